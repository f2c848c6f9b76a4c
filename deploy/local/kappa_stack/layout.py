"""Where a stack keeps its things, and which ports it listens on."""

from __future__ import annotations

import base64
import fcntl
import json
import random
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import StackError

LOOPBACK = "127.0.0.1"
PORT_NAMES = ("kafka", "kafka_controller", "registry", "registry_management", "s3", "clickhouse")

# Below the range from which Linux takes the ports of outgoing connections
# (32768 and up by default): otherwise some client could be given the port of a
# service that a test has stopped for a moment, and the service could not return.
PORT_RANGE = range(18_000, 32_000)


class Layout:
    """The files of one stack. Everything it writes is below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.env_file = self.root / "env"
        self.state_file = self.root / "stack.json"
        self.logs = self.root / "logs"
        self.data = self.root / "data"
        self.pids = self.root / "run"

    def log_file(self, service: str) -> Path:
        return self.logs / f"{service}.log"

    def data_dir(self, service: str) -> Path:
        return self.data / service

    def exists(self) -> bool:
        return self.state_file.exists()

    def state(self) -> dict:
        """Ports and cluster id: chosen once, kept for the life of the stack."""
        if not self.exists():
            raise StackError(f"there is no stack in {self.root}: start one with `stack up --dir {self.root}`")
        return json.loads(self.state_file.read_text())

    def create_state(self) -> dict:
        state = {
            "ports": free_ports(),
            # Kafka wants 16 random bytes in URL-safe base64 without padding.
            "cluster_id": base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("="),
        }
        self.root.mkdir(parents=True, exist_ok=True)
        temporary = self.state_file.with_suffix(".tmp")
        temporary.write_text(json.dumps(state, indent=2) + "\n")
        temporary.replace(self.state_file)
        return state

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One command at a time on one stack."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"waiting for another stack command on {self.root}", flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the services do: a port in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_ports() -> dict[str, int]:
    ports: dict[str, int] = {}
    candidates = random.sample(PORT_RANGE, 2_000)
    for name in PORT_NAMES:
        while candidates:
            port = candidates.pop()
            if port_is_free(port):
                ports[name] = port
                break
        else:
            raise StackError(f"no free port on {LOOPBACK} between {PORT_RANGE.start} and {PORT_RANGE.stop}: stop whatever uses them")
    return ports
