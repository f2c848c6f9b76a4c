"""Services go away for a while under load: nothing is lost, nothing is called poison, and it mends by itself."""

from __future__ import annotations

import time

import pytest

from blocks.kappa_process import KappaProcess
from blocks.new_schema import record_in_a_new_schema
from blocks.producer import Production
from blocks.stack import Stack
from blocks.waiting import Found, NotYet, wait_for, wait_until
from blocks.world import World, WorldMaker


def _assert_alive_for(kappa: KappaProcess, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert kappa.exit_code is None, f"kappa has ended with {kappa.exit_code}"
        assert kappa.is_alive(), "/healthz says no, but only a dependency is away"
        time.sleep(0.3)


def _wait_until_noticed(kappa: KappaProcess, name: str) -> None:
    def look() -> Found[None] | NotYet:
        up = kappa.metric("kappa_dependency_up", dependency=name)
        return Found(None) if up == 0 else NotYet(f"kappa_dependency_up {up}")

    wait_until(f"the outage of {name} to be noticed", 40, look)


def test_the_registry_is_away_at_the_start(make_world: WorldMaker, controlled_stack: Stack) -> None:
    world = make_world()
    world.producer.send(world.stream(seed=301).take(3_000))
    with controlled_stack.without("registry"):
        kappa = world.start()
        kappa.wait_for_http()
        kappa.wait_for_state(0, "waiting_for_schema")
        _wait_until_noticed(kappa, "registry")
        _assert_alive_for(kappa, 2)
        # Records without a readable framing need no registry; all others wait.
        letters = world.read_dead_letters()
        rejected = world.sent.rejected()
        assert all(letter["reason"] == rejected[at][1].reason for at, letter in letters.items())
    world.wait_until_committed()
    assert kappa.terminate() == 0
    world.verify_everything()


def test_a_new_schema_comes_while_the_registry_is_silent(make_world: WorldMaker, controlled_stack: Stack) -> None:
    """Connections stand, nobody answers. The partition with the new schema waits, the others go on."""
    world = make_world()
    stream = world.stream(seed=302, broken_share=0.0)
    kappa = world.start()
    kappa.wait_until_ready()
    world.producer.send(stream.take(2_000))
    world.wait_until_committed()

    newest = record_in_a_new_schema(world.registry, world.topic, stream, 0)
    with controlled_stack.silent("registry"):
        world.producer.send([newest])
        world.producer.send(stream.take(2_000))
        kappa.wait_for_state(0, "waiting_for_schema")
        ends = world.sent.end_offsets()
        for partition in (1, 2):
            wait_for(
                f"partition {partition} to be committed without the registry", 30,
                lambda partition=partition: world.committed()[partition] == ends[partition], world.committed,
            )  # fmt: skip
        _assert_alive_for(kappa, 1)
        assert world.committed()[0] < ends[0]
        assert not world.read_dead_letters(), "a silent registry is not poison"
    world.wait_until_committed()
    assert kappa.terminate() == 0
    world.verify_everything()


def test_s3_is_away_at_the_start(make_world: WorldMaker, controlled_stack: Stack) -> None:
    """It is waited for, and /readyz says so; a stop meanwhile is a clean one."""
    world = make_world()
    world.producer.send(world.stream(seed=307).take(2_000))
    with controlled_stack.without("s3"):
        kappa, other = world.start(), world.start()
        for process in (kappa, other):
            process.wait_for_http()
            _wait_until_noticed(process, "object_store")
            answer = process.get("/readyz")
            assert answer.status_code == 503 and "object_store" in answer.text and "archive.url" in answer.text, answer.text
        assert other.terminate(seconds=5) == 0, other.log_tail()
        # Longer than all tries of a probe that does not wait.
        _assert_alive_for(kappa, 8)
        assert not world.group_exists(), "the group was joined before anything could become durable"
    world.wait_until_committed()
    assert kappa.terminate() == 0
    world.verify_everything()


def test_access_to_s3_is_denied(make_world: WorldMaker) -> None:
    """Waiting would not help: it ends, and says what to do."""
    world = make_world(partitions=1)
    kappa = world.start(environment={"AWS_SECRET_ACCESS_KEY": "not-the-right-one"})
    assert kappa.wait_for_end(30) == 1
    assert "AWS_ credentials" in kappa.log_tail(), kappa.log_tail()


def test_s3_is_away_and_the_aggregates_stay_fresh(make_world: WorldMaker, controlled_stack: Stack) -> None:
    world = make_world()
    world.window_ms, world.lateness_ms = 2_000, 1_000
    # By the wall clock, so that freshness means something. Nothing broken: where the registry says for the first time that it
    # does not know an id, rows wait until that is in the archive (decision 5).
    with world.flowing(seed=303, per_second=400, step_ms=None, broken_share=0.0) as kappa:
        with controlled_stack.without("s3"):
            _wait_until_noticed(kappa, "object_store")
            for _ in range(3):
                time.sleep(1.5)
                _wait_until_fresh(world)
                assert kappa.is_alive()
        time.sleep(1)
    world.wait_until_committed()
    assert kappa.terminate() == 0
    world.verify_everything()


def _wait_until_fresh(world: World) -> None:
    """Events of this very moment are in the hot store soon."""
    now_ms = int(time.time() * 1000)

    def look() -> Found[None] | NotYet:
        newest = world.hot_store.newest_event_ms()
        return Found(None) if newest >= now_ms - 500 else NotYet(f"{(now_ms - newest) / 1000:.1f} s before")

    wait_until("the aggregates to reach this moment", 8, look)


def test_clickhouse_is_away_and_the_archive_goes_on(make_world: WorldMaker, controlled_stack: Stack) -> None:
    world = make_world()
    with world.flowing(seed=304) as kappa:
        with controlled_stack.without("clickhouse"):
            _wait_until_noticed(kappa, "hot_store")
            # Twice, so that it is not only the segment that was under way.
            for _ in range(2):
                world.wait_until_archived_behind(world.sent.end_offsets())
            assert kappa.is_alive()
        time.sleep(1)
    world.wait_until_committed()
    assert kappa.terminate() == 0
    world.verify_everything()


def test_crashes_during_outages(make_world: WorldMaker, controlled_stack: Stack) -> None:
    """Killed while each store is away: sealing stood still half-way, and goes on from there."""
    world = make_world()
    stream = world.stream(seed=305)
    with Production(world.producer, stream.take, per_second=800, most=20_000) as production:
        for service, name in (("clickhouse", "hot_store"), ("s3", "object_store")):
            kappa = world.start()
            kappa.wait_until_ready()
            time.sleep(1.5)
            with controlled_stack.without(service):
                _wait_until_noticed(kappa, name)
                time.sleep(1.5)
                kappa.kill()
            with production.paused():
                world.verify_committed_is_durable()
    kappa = world.start()
    world.wait_until_committed()
    assert kappa.terminate() == 0
    world.verify_everything()


@pytest.mark.parametrize(("crash", "fetcher"), [(True, "librdkafka"), (False, "native")])
def test_kafka_is_away(make_world: WorldMaker, controlled_stack: Stack, crash: bool, fetcher: str) -> None:
    """The broker is killed, or restarted as for an upgrade, under load: the producer waits for it, and so does the pipeline."""
    world = make_world()
    with world.flowing(seed=306, changes={"kafka": {"fetcher": fetcher}}) as kappa:
        with controlled_stack.without("kafka", crash):
            _wait_until_noticed(kappa, "kafka")
            _assert_alive_for(kappa, 2)
        time.sleep(2)
    world.wait_until_committed()
    assert kappa.terminate() == 0
    world.verify_everything()
