"""The services that a test runs against: started by `deploy/local/stack`, or somebody else's."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
STACK_COMMAND = REPOSITORY / "deploy" / "local" / "stack"

# The first start on a machine builds and downloads; later ones take seconds.
START_TIMEOUT = 900
COMMAND_TIMEOUT = 120


@dataclass(frozen=True)
class Stack:
    """Addresses and credentials, and the power to take services away."""

    directory: Path
    environment: dict[str, str]

    @classmethod
    def start(cls, directory: Path) -> Stack:
        _run(["up", "--dir", str(directory)], START_TIMEOUT)
        return cls.attach(directory / "env")

    @classmethod
    def attach(cls, env_file: Path) -> Stack:
        return cls(env_file.resolve().parent, _parse(env_file.read_text()))

    def take_down(self) -> None:
        _run(["down", "--keep-data", "--dir", str(self.directory)], COMMAND_TIMEOUT)
        # Some ten thousand small files: minutes where the disk is slow, and nobody needs to wait for that.
        subprocess.run(["sh", "-c", 'rm -rf "$0" > /dev/null 2>&1 &', str(self.directory)], start_new_session=True, check=True)

    @property
    def can_be_controlled(self) -> bool:
        return (self.directory / "stack.json").exists()

    @contextmanager
    def without(self, service: str, crash: bool = True) -> Iterator[None]:
        """Kills a service, or stops it kindly; it is back when the block ends, however it ends."""
        self._command("kill" if crash else "stop", service)
        try:
            yield
        finally:
            self._command("start", service)

    @contextmanager
    def silent(self, service: str) -> Iterator[None]:
        """Suspends a service: connections stand, nobody answers."""
        self._command("pause", service)
        try:
            yield
        finally:
            self._command("resume", service)

    def _command(self, verb: str, service: str) -> None:
        _run([verb, service, "--dir", str(self.directory)], COMMAND_TIMEOUT)

    @property
    def brokers(self) -> str:
        return self.environment["KAFKA_BROKERS"]

    @property
    def registry_url(self) -> str:
        return self.environment["REGISTRY_URL"].rstrip("/")

    @property
    def clickhouse_url(self) -> str:
        return self.environment["CLICKHOUSE_URL"]

    @property
    def s3_endpoint(self) -> str:
        return self.environment["S3_ENDPOINT"]


def _run(arguments: list[str], timeout: float) -> None:
    command = [str(STACK_COMMAND), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"{shlex.join(command)} ended with {result.returncode}:\n{result.stdout}{result.stderr}")


def _parse(text: str) -> dict[str, str]:
    """`export NAME=value` lines, quoted as a shell quotes."""
    variables = {}
    for line in text.splitlines():
        match = re.match(r"(?:export )?([A-Z][A-Z0-9_]*)=(.*)", line.strip())
        if match:
            variables[match[1]] = "".join(shlex.split(match[2]))
    return variables
