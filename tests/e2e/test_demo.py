"""The demo as people use it: on a terminal, with Ctrl-C, and killed."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from blocks.kappa_process import binary
from blocks.stack import REPOSITORY
from blocks.waiting import wait_for

START_SECONDS = 90
INTO_THE_SCREEN, OUT_OF_THE_SCREEN = b"\x1b[?1049h", b"\x1b[?1049l"
CTRL_C = b"\x03"


class Terminal:
    """A demo on a terminal of its own, and what it has written there."""

    def __init__(self, directory: Path) -> None:
        self.written = b""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
        self.before = termios.tcgetattr(self._master)
        command = [binary(), "demo", "--rate", "2000", "--sensors", "200", "--python", sys.executable, "--dir", directory]
        # A session of its own, whose terminal this is: a kill of the demo reaches nobody else.
        self.process = subprocess.Popen(
            [str(part) for part in command], cwd=REPOSITORY, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)

    def read(self) -> bytes:
        while select.select([self._master], [], [], 0)[0]:
            try:
                self.written += os.read(self._master, 1 << 16)
            except OSError:  # the other end is closed
                break
        return self.written

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def wait_for_screen(self) -> None:
        wait_for("the screen", START_SECONDS, lambda: INTO_THE_SCREEN in self.read(), lambda: self.written[-500:])

    def wait_for_end(self, seconds: float) -> int:
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"the demo still runs: {self.written[-500:]!r}"
            self.read()  # or it could not write
            time.sleep(0.02)
        self.read()
        return self.process.returncode

    def assert_as_before(self) -> None:
        assert termios.tcgetattr(self._master) == self.before, "the terminal is left in another mode"
        assert self.written.rfind(OUT_OF_THE_SCREEN) > self.written.rfind(INTO_THE_SCREEN), "the screen was not left"

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        os.close(self._master)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path / "demo")
    yield terminal
    terminal.close()


def _assert_gone(children: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive, f"left behind: {alive}"


def test_ctrl_c_ends_with_a_comparison_that_agrees(terminal: Terminal) -> None:
    terminal.wait_for_screen()
    time.sleep(3)
    children = terminal.children()
    assert children, "there is no ClickHouse"
    page = re.search(rb"The live page is at (http://[\d.:]+)", terminal.written)
    assert page, terminal.written[-500:]
    address = page[1].decode()
    assert "<title>Kappa</title>" in requests.get(address, timeout=20).text
    wait_for(
        "the page to show events", 60,
        lambda: (requests.get(f"{address}/api/live", timeout=20).json()["pulse"]["rate"] or 0) > 0, lambda: address,
    )  # fmt: skip
    terminal.press(CTRL_C)
    assert terminal.wait_for_end(90) == 0, terminal.written[-3000:].decode(errors="replace")
    terminal.assert_as_before()
    _assert_gone(children)


def test_the_second_ctrl_c_ends_at_once(terminal: Terminal) -> None:
    terminal.wait_for_screen()
    time.sleep(2)
    children = terminal.children()
    terminal.press(CTRL_C)
    terminal.press(CTRL_C)
    assert terminal.wait_for_end(5) == 1
    assert b"ended by force" in terminal.written
    terminal.assert_as_before()
    _assert_gone(children)


def test_a_killed_demo_leaves_no_clickhouse_behind(terminal: Terminal) -> None:
    terminal.wait_for_screen()
    children = terminal.children()
    assert children, "there is no ClickHouse"
    terminal.process.send_signal(signal.SIGKILL)
    terminal.process.wait(10)
    _assert_gone(children)


def test_the_schema_changes_under_load_and_nothing_stops(tmp_path: Path) -> None:
    """Without a terminal, as in CI: the comparison counts what came by the new schema, too."""
    command = [str(binary()), "demo", "--for", "9s", "--evolve", "--rate", "2000", "--sensors", "200", "--partitions", "3"]
    command += ["--python", sys.executable, "--dir", str(tmp_path / "demo"), "--page", "127.0.0.1:0"]
    result = subprocess.run(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-1000:]
    assert "Everything that was produced is found, once, in its place." in result.stdout, result.stdout[-3000:]
    line = re.search(r"events by the new schema: rows in Parquet +([\d,]+) +([\d,]+) +OK", result.stdout)
    assert line and line[1] == line[2] and int(line[1].replace(",", "")) > 500, result.stdout[-3000:]
    assert re.search(r"with the fields that the reader does not know +" + line[1] + r" .*OK", result.stdout), result.stdout[-3000:]
