"""The stack of the session, the corner of each test, and the logs of what failed."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from blocks.stack import Stack
from blocks.world import World, WorldMaker


def pytest_configure(config: pytest.Config) -> None:
    """Ended from outside, the session still takes its stack down."""
    if os.environ.get("KAPPA_STACK_ENV") and config.getoption("numprocesses", None):
        raise pytest.UsageError("tests take services away, so two files at a time cannot share a stack: leave KAPPA_STACK_ENV or -n out")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Somebody's running stack, or one of our own for as long as the tests run."""
    env_file = os.environ.get("KAPPA_STACK_ENV")
    if env_file:
        yield Stack.attach(Path(env_file))
        return
    stack = Stack.start(tmp_path_factory.mktemp("stack"))
    yield stack
    stack.take_down()


@pytest.fixture
def controlled_stack(stack: Stack) -> Stack:
    """A stack whose services may be taken away."""
    if not stack.can_be_controlled:
        pytest.skip("this stack was not started by deploy/local/stack: its services cannot be stopped")
    return stack


@pytest.fixture
def make_world(stack: Stack, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[WorldMaker]:
    """Makes the corner of a test; `migrated` says whether its tables exist already."""
    worlds: list[World] = []
    request.node.stash[WORLDS] = worlds
    short_name = request.node.name.removeprefix("test_").split("[")[0].replace("_", "-")[:30]

    def make(partitions: int = 3, migrated: bool = True) -> World:
        directory = tmp_path / f"world-{len(worlds)}"
        directory.mkdir()
        world = World(stack, directory, short_name, partitions)
        worlds.append(world)
        if migrated:
            world.migrate()
        return world

    yield make
    for world in worlds:
        world.close()


WORLDS: pytest.StashKey[list[World]] = pytest.StashKey()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What every kappa of a failed test said last."""
    report = yield
    if report.failed:
        for world in item.stash.get(WORLDS, []):
            for number, process in enumerate(world.processes):
                title = f"kappa {number} of {world.topic} (exit code {process.exit_code})"
                report.sections.append((title, process.log_tail()))
    return report
