"""The program under test, run as people run it: a binary, a TOML file, signals, HTTP."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from .stack import REPOSITORY
from .waiting import Found, Hopeless, NotYet, wait_for, wait_until

HTTP_TIMEOUT = 10
COMMAND_TIMEOUT = 60

Sections = Mapping[str, Mapping[str, Any]]


def binary() -> Path:
    configured = os.environ.get("KAPPA_BIN")
    path = Path(configured) if configured else REPOSITORY / "target" / "release" / "kappa"
    assert path.is_file(), f"{path} is not there: build it with `cargo build --release`, or set KAPPA_BIN"
    return path.absolute()


def to_toml(sections: Sections) -> str:
    """Enough of TOML for a configuration: JSON's strings, numbers and booleans are TOML's."""
    lines: list[str] = []
    for section, values in sections.items():
        plain = {name: value for name, value in values.items() if not isinstance(value, Mapping)}
        lines.append(f"[{section}]")
        lines.extend(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in plain.items())
        for name, value in values.items():
            if isinstance(value, Mapping):
                lines.append(f"[{section}.{name}]")
                lines.extend(f"{json.dumps(key)} = {json.dumps(inner)}" for key, inner in value.items())
        lines.append("")
    return "\n".join(lines)


def free_port() -> int:
    """Below the range of outgoing connections, as the stack's own ports are."""
    for port in random.sample(range(18_000, 32_000), 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")


@dataclass(frozen=True)
class CommandResult:
    code: int
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        return f"{self.stdout}\n{self.stderr}"


def run_command(arguments: list[str], environment: Mapping[str, str], timeout: float = COMMAND_TIMEOUT) -> CommandResult:
    """One of the commands that end by themselves."""
    result = subprocess.run(
        [str(binary()), *arguments],
        env=_clean_environment() | dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return CommandResult(result.returncode, result.stdout, result.stderr)


def background_command(arguments: list[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """One that is killed or stopped half-way."""
    return subprocess.Popen(
        [str(binary()), *arguments],
        env=_clean_environment() | dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _clean_environment() -> dict[str, str]:
    """Settings of the person who runs the tests must not reach the program."""
    unwanted = ("KAPPA_", "AWS_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    # What a failed test needs to be understood.
    return environment | {"RUST_LOG": "info,kappa_pipeline=debug", "NO_COLOR": "1"}


class KappaProcess:
    """One `kappa run`."""

    def __init__(
        self, config_file: Path, http_port: int, log_file: Path, environment: Mapping[str, str], limits: Sequence[str] = ()
    ) -> None:
        """`limits` are options of prlimit(1). The log goes through a pipe then: it is not the program's to write files."""
        self.http_port = http_port
        self.log_file = log_file
        command = [environment.get("KAPPA_BIN") or str(binary()), "run", "--config", str(config_file)]
        with log_file.open("wb") as log:
            through = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=log) if limits else None
            self._process = subprocess.Popen(
                ["prlimit", *limits, *command] if limits else command,
                env=_clean_environment() | dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=through.stdin if through else log,
                stderr=subprocess.STDOUT,
            )
            if through and through.stdin:
                through.stdin.close()

    # Signals

    def terminate(self, seconds: float = 45) -> int:
        """SIGTERM; gives the exit code."""
        self.signal_terminate()
        return self.wait_for_end(seconds)

    def signal_terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def wait_for_end(self, seconds: float) -> int:
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"kappa still runs after {seconds:.0f} s; it says:\n{self.log_tail()}") from None

    def kill(self) -> None:
        """SIGKILL: no chance to tidy up."""
        self._process.kill()
        self._process.wait(10)

    def suspend(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def is_stopped(self) -> bool:
        """Whether it stands still after SIGSTOP."""
        state = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "T"

    def resident_bytes(self) -> int:
        """What the system says that it holds in memory."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        match = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        assert match, status
        return int(match[1]) * 1024

    def files_open_for_writing(self) -> list[str]:
        """Regular files and directories, by name."""
        found = []
        for entry in Path(f"/proc/{self._process.pid}/fd").iterdir():
            try:
                target, flags = os.readlink(entry), Path(f"/proc/{self._process.pid}/fdinfo/{entry.name}").read_text()
            except FileNotFoundError:  # closed meanwhile
                continue
            mode = int(next(line for line in flags.splitlines() if line.startswith("flags:")).split()[1], 8)
            if target.startswith("/") and not target.startswith("/dev/") and mode & os.O_ACCMODE != os.O_RDONLY:
                found.append(target)
        return found

    def peak_resident_bytes(self) -> int:
        """The most that it had in memory since it was asked last, as the kernel counts."""
        directory = Path(f"/proc/{self._process.pid}")
        line = next(line for line in (directory / "status").read_text().splitlines() if line.startswith("VmHWM:"))
        # 5: the peak begins anew at what there is now.
        (directory / "clear_refs").write_text("5")
        return int(line.split()[1]) * 1024

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    def make_sure_it_ends(self) -> None:
        if self._process.poll() is None:
            self.resume()
            self.kill()

    # What it says

    def get(self, path: str) -> requests.Response:
        return requests.get(f"http://127.0.0.1:{self.http_port}{path}", timeout=HTTP_TIMEOUT)

    def status(self) -> dict[str, Any]:
        return self.get("/status").json()

    def partition_status(self, partition: int) -> dict[str, Any]:
        found = [line for line in self.status()["partitions"] if line["partition"] == partition]
        assert len(found) == 1, f"/status has {len(found)} lines for partition {partition}"
        return found[0]

    def failures_of(self, dependency: str) -> int:
        return next(line["failures"] for line in self.status()["dependencies"] if line["dependency"] == dependency)

    def is_alive(self) -> bool:
        return self.get("/healthz").status_code == 200

    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Samples by name and labels."""
        samples = {}
        for line in self.get("/metrics").text.splitlines():
            match = re.fullmatch(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)", line)
            if match:
                labels = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2] or "")
                samples[match[1], frozenset(labels)] = float(match[3])
        return samples

    def metric(self, name: str, **labels: str) -> float | None:
        """The sum of all samples of that name which have these labels; None if there is no such sample."""
        wanted = set(labels.items())
        found = [value for (sample, has), value in self.metrics().items() if sample == name and wanted <= has]
        return sum(found) if found else None

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log().splitlines()[-lines:])

    # Waits

    def wait_until_ready(self, seconds: float = 45) -> None:
        def look() -> Found[None] | NotYet:
            if self.exit_code is not None:
                raise Hopeless(f"kappa has ended with {self.exit_code}; it says:\n{self.log_tail()}")
            answer = self.get("/readyz")
            return Found(None) if answer.status_code == 200 else NotYet(f"{answer.status_code}: {answer.text.strip()}")

        wait_until("/readyz to say yes", seconds, look)

    def wait_for_http(self, seconds: float = 45) -> None:
        wait_for("/healthz to answer", seconds, self.is_alive, lambda: self.log_tail(5))

    def wait_for_state(self, partition: int, state: str, seconds: float = 45) -> dict[str, Any]:
        def look() -> Found[dict[str, Any]] | NotYet:
            line = self.partition_status(partition)
            return Found(line) if line["state"] == state else NotYet(f"state {line['state']}")

        return wait_until(f"partition {partition} to be {state}", seconds, look)
