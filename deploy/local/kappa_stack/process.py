"""Long-lived processes that outlive the command which started them.

A pid alone is no proof of identity: after a reboot or a long test run it may
belong to somebody else. The pid file therefore also holds the kernel's start
time of the process and the boot id; nothing is ever signalled without both
matching.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class ProcessId:
    pid: int
    start_ticks: int
    boot_id: str


def _stat(pid: int) -> tuple[str, int] | None:
    """State letter and start time of a process, None when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command name stands in parentheses and may itself contain any byte.
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[19])


def _identify(pid: int) -> ProcessId:
    stat = _stat(pid)
    start_ticks = stat[1] if stat else -1
    return ProcessId(pid, start_ticks, BOOT_ID.read_text().strip())


class Process:
    """One process known by its pid file."""

    def __init__(self, pid_file: Path) -> None:
        self.pid_file = pid_file

    def start(self, argv: list[str], env: dict[str, str], log_file: Path, cwd: Path) -> None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        self.pid_file.parent.mkdir(parents=True, exist_ok=True)
        with log_file.open("ab") as log:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                start_new_session=True,  # survives this command and its terminal
            )
        # We never wait for the child; without this Popen warns when it is collected.
        child.returncode = 0
        temporary = self.pid_file.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(_identify(child.pid))))
        temporary.replace(self.pid_file)

    def running(self) -> ProcessId | None:
        """The process if it lives and really is ours."""
        try:
            known = ProcessId(**json.loads(self.pid_file.read_text()))
        except (OSError, ValueError, TypeError):
            return None
        _reap(known.pid)
        stat = _stat(known.pid)
        if stat is None or stat[0] in "ZX":
            return None
        return known if _identify(known.pid) == known else None

    def signal(self, number: signal.Signals) -> bool:
        """Signals the process and whatever it started. False when it is not running."""
        known = self.running()
        if known is None:
            return False
        try:
            # start_new_session made it the leader of its own group.
            os.killpg(known.pid, number)
        except ProcessLookupError:
            return False
        return True

    def wait_gone(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while self.running() is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def stop(self, grace: float) -> str:
        """Ends the process, by force after `grace` seconds. Says how it went."""
        how = "stopped" if self.pid_file.exists() else "was not running"
        if self.running() is not None:
            self.signal(signal.SIGCONT)  # a suspended process cannot act on SIGTERM
            self.signal(signal.SIGTERM)
            if not self.wait_gone(grace):
                how = f"killed: it did not stop within {grace:.0f} s"
                self.signal(signal.SIGKILL)
                self.wait_gone(10)
        self.pid_file.unlink(missing_ok=True)
        return how

    def kill(self) -> str:
        """SIGKILL at once, the crash that tests want."""
        if not self.signal(signal.SIGKILL):
            return "was not running"
        self.wait_gone(10)
        self.pid_file.unlink(missing_ok=True)
        return "killed"


def _reap(pid: int) -> None:
    """Collects a dead child of this very process, so that it is no zombie."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass  # somebody else's child: the usual case, `up` ended long ago


def resident_mib(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) // 1024
    except OSError:
        pass
    return 0
