"""What the drain measurement stands on: a stack, a topic, a pipeline, and what it costs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
DEFAULT_SCHEMA = ROOT / "schemas/sensor-reading.avsc"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(*command: str | Path, **options: object) -> str:
    return subprocess.run([str(part) for part in command], check=True, text=True, stdout=subprocess.PIPE, **options).stdout


class Stack:
    """The local stack, for the time of a `with` block."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.env: dict[str, str] = {}
        self._readers: dict[str, Any] = {}

    def __enter__(self) -> "Stack":
        run(ROOT / "deploy/local/stack", "up", "--dir", self.directory)
        for line in (self.directory / "env").read_text().splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            self.env[name] = value.strip("'\"")
        return self

    def __exit__(self, *_: object) -> None:
        for reader in self._readers.values():
            reader.close()
        run(ROOT / "deploy/local/stack", "down", "--dir", self.directory)

    def create_topic(self, topic: str, partitions: int) -> None:
        from confluent_kafka.admin import AdminClient, NewTopic

        admin = AdminClient({"bootstrap.servers": self.env["KAFKA_BROKERS"]})
        admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(30)

    def register_schema(self, topic: str, avsc: Path = DEFAULT_SCHEMA) -> int:
        schema = avsc.read_text()
        request = urllib.request.Request(
            f"{self.env['REGISTRY_URL']}/subjects/{topic}-value/versions",
            data=json.dumps({"schema": schema}).encode(),
            headers={"Content-Type": "application/vnd.schemaregistry.v1+json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(json.load(answer)["id"])

    def committed(self, group: str, topic: str, partitions: int) -> int:
        """The sum of the group's committed offsets: events that are durable, where the log starts at zero."""
        from confluent_kafka import Consumer, TopicPartition

        if group not in self._readers:
            self._readers[group] = Consumer({"bootstrap.servers": self.env["KAFKA_BROKERS"], "group.id": group})
        wanted = [TopicPartition(topic, partition) for partition in range(partitions)]
        return sum(max(found.offset, 0) for found in self._readers[group].committed(wanted, 30))

    def query(self, sql: str) -> str:
        with urllib.request.urlopen(self.env["CLICKHOUSE_URL"], data=sql.encode(), timeout=120) as answer:
            return answer.read().decode().strip()


    def cpu(self) -> dict[str, float]:
        """CPU seconds of each server, with its children."""
        seconds: dict[str, float] = {}
        parents: dict[int, tuple[int, float]] = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                fields = (process / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # ended meanwhile
            parents[int(process.name)] = (int(fields[1]), (int(fields[11]) + int(fields[12])) / CLOCK_TICKS)
        for pid_file in (self.directory / "run").glob("*.pid"):
            server = json.loads(pid_file.read_text())["pid"]
            seconds[pid_file.stem] = sum(used for pid, (parent, used) in parents.items() if server in (pid, parent))
        return seconds


@dataclass
class Usage:
    """CPU seconds by thread name, and the largest resident memory in MiB."""

    cpu: dict[str, float]
    peak_mib: float


class Pipeline:
    """A `kappa run` on the stack; those of one name share group, prefixes of the buckets, and database."""

    def __init__(self, stack: Stack, topic: str, name: str, settings: dict[str, str] | None = None, instance: int = 0) -> None:
        self.port = 19_464 + instance
        self.database = f"bench_{name.replace('-', '_')}"
        directory = stack.directory / f"{name}-{instance}"
        directory.mkdir(parents=True, exist_ok=True)
        self.config = config = directory / "kappa.toml"
        config.write_text(
            f"""[kafka]
brokers = "{stack.env['KAFKA_BROKERS']}"
topic = "{topic}"
group = "{name}"
[registry]
url = "{stack.env['REGISTRY_URL']}"
[archive]
url = "s3://archive/{name}"
[dead_letter]
url = "s3://dead-letter/{name}"
[state]
url = "s3://state/{name}"
[object_store]
endpoint = "{stack.env['S3_ENDPOINT']}"
allow_http = true
[hot_store]
url = "{stack.env['CLICKHOUSE_URL']}"
database = "{self.database}"
[http]
listen = "127.0.0.1:{self.port}"
"""
        )
        overrides = [part for key, value in (settings or {}).items() for part in ("-s", f"{key}={value}")]
        self.overrides = overrides
        self.environment = environment = os.environ | stack.env
        kappa = ROOT / "target/release/kappa"
        subprocess.run([kappa, "migrate", "-c", config, "--wait", "30s"], check=True, env=environment, stdout=sys.stderr)
        self.log = (directory / "kappa.log").open("w")
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [kappa, "run", "-c", config, *overrides], env=environment, stdout=self.log, stderr=self.log
        )

    def status(self) -> dict | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/status", timeout=5) as answer:
                return json.load(answer)
        except OSError:
            if self.process.poll() is not None:
                raise SystemExit(f"kappa has ended with exit code {self.process.returncode}: see {self.log.name}")
            return None

    def usage(self) -> Usage:
        process = Path(f"/proc/{self.process.pid}")
        cpu: dict[str, float] = {}
        for task in (process / "task").iterdir():
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            name = (task / "comm").read_text().strip()
            cpu[name] = cpu.get(name, 0) + (int(fields[11]) + int(fields[12])) / CLOCK_TICKS
        peak = next(line for line in (process / "status").read_text().splitlines() if line.startswith("VmHWM"))
        return Usage(cpu, int(peak.split()[1]) / 1024)

    def verify(self) -> dict:
        """What `kappa verify` says of all that was written."""
        command = [ROOT / "target/release/kappa", "verify", "--json", "-c", self.config, *self.overrides]
        result = subprocess.run(command, env=self.environment, stdout=subprocess.PIPE, stderr=self.log)
        if result.returncode != 0:
            raise SystemExit(f"kappa verify ended with {result.returncode}: {result.stdout.decode()} and {self.log.name}")
        return json.loads(result.stdout)

    def ask_to_stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait_for_end(self) -> float:
        """CPU seconds of the whole process, from its start until everything is sealed."""
        deadline = time.monotonic() + 60
        while True:
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                raise SystemExit(f"kappa does not end: see {self.log.name}")
            time.sleep(0.01)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        if self.process.returncode != 0:
            raise SystemExit(f"kappa did not seal everything: see {self.log.name}")
        return usage.ru_utime + usage.ru_stime


def machine() -> str:
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?")
    return f"{os.cpu_count()} x {model}"


def write_report(name: str, report: dict) -> Path:
    path = ROOT / f"target/bench/{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")
    return path
