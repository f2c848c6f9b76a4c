"""Kafka, S3 and ClickHouse as the compose stack has them: its own scripts, configuration, users and rights, on the
programs of deploy/local in place of containers. Only addresses and directories are put in.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.fs as fs
import requests

from .kappa_process import free_port
from .stack import REPOSITORY, Stack
from .waiting import Found, Hopeless, NotYet, wait_until

sys.path.insert(0, str(REPOSITORY / "deploy" / "local"))

from kappa_stack import downloads  # noqa: E402
from kappa_stack.s3_client import S3Client  # noqa: E402

LOCAL = REPOSITORY / "deploy" / "local"
START_TIMEOUT = 90
REGION = "us-east-1"
# Below which the pipeline's objects are, in each bucket.
PREFIX = "pipeline"

# Kafka's scripts, and the class that each starts.
KAFKA_TOOLS = {
    "kafka-storage": ("kafka.tools.StorageTool", 128),
    "kafka-server-start": ("kafka.Kafka", 512),
    "kafka-topics": ("org.apache.kafka.tools.TopicCommand", 128),
    "kafka-acls": ("org.apache.kafka.tools.AclCommand", 128),
}

# Grants and profiles are only as good as the engine that reads them; these few words it knows only in a server.
SERVER_ONLY = "<changeable_in_readonly/>"


def _say(text: str) -> None:
    print(text, file=sys.stderr)


@dataclass
class ComposeServices:
    """What `init` has made, and what was started of it."""

    root: Path
    stack: Stack
    topic: str
    partitions: int
    ports: dict[str, int] = field(init=False)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.compose = self.root / "compose"
        ignore = shutil.ignore_patterns("secrets", ".env", "tests", "__pycache__")
        shutil.copytree(REPOSITORY / "deploy" / "compose", self.compose, ignore=ignore)
        _run([self.compose / "init"], {})
        self.ports = {name: free_port() for name in ("client", "host", "controller", "s3", "clickhouse", "kappa")}

    def secret(self, name: str) -> str:
        return (self.compose / "secrets" / name).read_text()

    @property
    def brokers(self) -> str:
        return f"127.0.0.1:{self.ports['client']}"

    @property
    def s3_endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports['s3']}"

    # The log

    def start_kafka(self) -> None:
        home = self._kafka_home()
        server = self._render("kafka/server.properties", {
            "CLIENT://:9092,HOST://:9094,CONTROLLER://127.0.0.1:9093":
                f"CLIENT://{self.brokers},HOST://127.0.0.1:{self.ports['host']},CONTROLLER://127.0.0.1:{self.ports['controller']}",
            "CLIENT://kafka:9092,HOST://127.0.0.1:9094": f"CLIENT://{self.brokers},HOST://127.0.0.1:{self.ports['host']}",
            "1@127.0.0.1:9093": f"1@127.0.0.1:{self.ports['controller']}",
            "/var/lib/kafka/data": str(self.root / "kafka"),
        })  # fmt: skip
        environment = {
            "KAFKA_HOME": str(home),
            "KAPPA_SECRETS": str(self.compose / "secrets"),
            "KAPPA_KAFKA_PROPERTIES": str(server),
        }
        self._start("kafka/start", environment)

    def set_kafka_up(self) -> None:
        """Topic and ACLs; waits for the broker by itself."""
        admin = self._render("kafka/admin.properties", {})
        environment = {
            "KAFKA_HOME": str(self._kafka_home()),
            "KAPPA_BROKERS": self.brokers,
            "KAPPA_KAFKA_ADMIN": str(admin),
            "KAPPA_TOPIC": self.topic,
            "KAPPA_PARTITIONS": str(self.partitions),
        }
        _run([self.compose / "kafka" / "setup"], environment)

    def _kafka_home(self) -> Path:
        """Scripts where the image has them, for the same classes."""
        scripts = self.root / "kafka-home" / "bin"
        if not scripts.exists():
            scripts.mkdir(parents=True)
            java, libs = downloads.java(_say), downloads.kafka_libs(_say)
            logging = LOCAL / "kafka" / "log4j2.properties"
            for name, (main, heap) in KAFKA_TOOLS.items():
                script = scripts / f"{name}.sh"
                options = f"-Xmx{heap}m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dlog4j2.configurationFile={logging}"
                script.write_text(f"#!/bin/sh\nexec '{java}' {options} -cp '{libs}/*' {main} \"$@\"\n")
                script.chmod(0o755)
        return scripts.parent

    def kafka_client(self, user: str, password: str | None = None) -> dict[str, str]:
        """librdkafka's properties for one of the users."""
        return {
            "bootstrap.servers": self.brokers,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": user,
            "sasl.password": password or self.secret(f"kafka_{user}_password"),
        }

    # The objects

    def start_s3(self) -> None:
        environment = {
            "PATH": f"{downloads.versitygw(_say).parent}:{os.environ['PATH']}",
            "KAPPA_SECRETS": str(self.compose / "secrets"),
            "KAPPA_S3_DATA": str(self.root / "s3"),
            "KAPPA_S3_USERS": str(self.root / "s3-users"),
            "KAPPA_S3_LISTEN": f"127.0.0.1:{self.ports['s3']}",
        }
        process = self._start("s3/start", environment)

        def look() -> Found[None] | NotYet:
            if process.poll() is not None:
                raise Hopeless(f"the S3 server has ended: {self.log('s3/start')}")
            answer = requests.get(f"{self.s3_endpoint}/health", timeout=5)
            return Found(None) if answer.status_code == 200 else NotYet(f"{answer.status_code}")

        wait_until("the S3 server", START_TIMEOUT, look)
        setup = {
            "KAPPA_SECRETS": str(self.compose / "secrets"),
            "KAPPA_S3_ENDPOINT": self.s3_endpoint,
            "KAPPA_S3_POLICIES": str(self.compose / "s3" / "policies"),
        }
        for _ in ("once", "again"):
            _run([self.compose / "s3" / "setup"], setup)

    def s3(self, user: str) -> S3Client:
        return S3Client("127.0.0.1", self.ports["s3"], user, self.secret(f"s3_{user}_secret_key"), REGION)

    def s3_files(self, user: str) -> fs.S3FileSystem:
        return fs.S3FileSystem(
            endpoint_override=self.s3_endpoint,
            access_key=user,
            secret_key=self.secret(f"s3_{user}_secret_key"),
            region=REGION,
        )

    # The hot store. The engine has one user, so it is started anew for each role.

    @contextmanager
    def clickhouse_as(self, role: str) -> Iterator[None]:
        """ClickHouse's HTTP interface, where everybody has the rights of that role."""
        address = f"127.0.0.1:{self.ports['clickhouse']}"
        python = downloads.python("demo", _say)
        argv = [python, LOCAL / "clickhouse_http", "--listen", address, "--path", self.root / "clickhouse", "--config-file", self._clickhouse_config(role)]
        log = (self.root / f"clickhouse-{role}.log").open("wb")
        process = subprocess.Popen([str(part) for part in argv], stdout=log, stderr=log, cwd=self.root)
        self.processes.append(process)

        def look() -> Found[None] | NotYet:
            if process.poll() is not None:
                raise Hopeless(f"ClickHouse has ended: {Path(log.name).read_text()}")
            answer = requests.get(f"http://{address}/ping", timeout=5)
            return Found(None) if answer.status_code == 200 else NotYet(f"{answer.status_code}")

        try:
            wait_until("ClickHouse", START_TIMEOUT, look)
            yield
        finally:
            # Its data is locked for as long as it runs.
            process.terminate()
            process.wait(30)

    def ask_clickhouse_as(self, role: str, statements: list[str]) -> list[str]:
        """The answer to each statement, or what ClickHouse has against it."""
        script = textwrap.dedent("""
            import json, sys
            from chdb import session
            engine = session.Session(sys.argv[1])
            answers = []
            for statement in json.loads(sys.argv[2]):
                try:
                    answers.append(str(engine.query(statement, "TabSeparated")).strip())
                except Exception as error:
                    answers.append(str(error))
            print("answers:", json.dumps(answers))
        """)
        address = f"{self.root / 'clickhouse'}?config-file={self._clickhouse_config(role)}"
        argv = [str(downloads.python("demo", _say)), "-c", script, address, json.dumps(statements)]
        result = subprocess.run(argv, capture_output=True, text=True, timeout=120, cwd=self.root)
        assert result.returncode == 0, result.stderr
        [line] = [line for line in result.stdout.splitlines() if line.startswith("answers: ")]
        return json.loads(line.removeprefix("answers: "))

    def _clickhouse_config(self, role: str) -> Path:
        """A server's configuration directory with the users of the compose stack. The embedded engine is always the user
        `default`, so he gets what the role has."""
        directory = self.root / f"clickhouse-{role}"
        if directory.exists():
            return directory / "config.xml"
        users = directory / "users.d"
        users.mkdir(parents=True)
        shutil.copytree(self.compose / "clickhouse" / "config.d", directory / "config.d")
        (directory / "config.xml").write_text(f"<clickhouse><users_config>{directory}/users.xml</users_config></clickhouse>")
        # What the image brings: a user who may do everything, whom the compose stack removes.
        (directory / "users.xml").write_text(
            "<clickhouse><profiles><default/></profiles><quotas><default/></quotas><users><default><password/>"
            "<networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota></default></users></clickhouse>"
        )
        text = (self.compose / "clickhouse" / "users.d" / "kappa.xml").read_text()
        text = text.replace("/run/secrets", str(self.compose / "secrets")).replace(SERVER_ONLY, "")
        (users / "kappa.xml").write_text(text)
        found = ElementTree.fromstring(text).find(f"users/{role}")
        assert found is not None, f"there is no user {role}"
        found.tag = "default"
        password = found.find("password_sha256_hex")
        assert password is not None
        password.tag, password.attrib = "password", {}
        described = ElementTree.tostring(found, encoding="unicode")
        (users / "role.xml").write_text(f"<clickhouse><users>{described}</users></clickhouse>")
        return directory / "config.xml"

    # The pipeline

    def kappa_config(self, name: str = "kappa", replaced: Mapping[str, str] | None = None) -> Path:
        addresses = {
            "kafka:9092": self.brokers,
            "http://registry:8080/apis/ccompat/v7": self.stack.registry_url,
            "http://s3:7070": self.s3_endpoint,
            "http://clickhouse:8123": f"http://127.0.0.1:{self.ports['clickhouse']}",
            "0.0.0.0:9464": f"127.0.0.1:{self.ports['kappa']}",
            'topic = "sensor-readings"': f'topic = "{self.topic}"',
            's3://archive"': f's3://archive/{PREFIX}"',
            's3://dead-letter"': f's3://dead-letter/{PREFIX}"',
            's3://state"': f's3://state/{PREFIX}"',
        }
        return self._render("kappa/kappa.toml", addresses | dict(replaced or {}), name)

    def aws(self, user: str) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": user, "AWS_SECRET_ACCESS_KEY": self.secret(f"s3_{user}_secret_key")}

    # Files and processes

    def _render(self, file: str, replaced: Mapping[str, str], name: str | None = None) -> Path:
        source = self.compose / file
        text = source.read_text()
        for old, new in {**replaced, "/run/secrets": str(self.compose / "secrets")}.items():
            assert old in text, f"{file} has no {old!r} any more"
            text = text.replace(old, new)
        rendered = self.root / f"{name or source.stem}{source.suffix}"
        rendered.write_text(text)
        return rendered

    def _start(self, script: str, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        log = self._log_file(script).open("wb")
        process = subprocess.Popen([str(self.compose / script)], env=_environment(environment), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def _log_file(self, script: str) -> Path:
        return self.root / f"{script.replace('/', '-')}.log"

    def log(self, script: str) -> str:
        return self._log_file(script).read_text(errors="replace")

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    unwanted = ("KAPPA_", "KAFKA_", "AWS_", "VGW_", "ROOT_", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted) or name == "KAPPA_CACHE"}
    return kept | dict(variables)


def _run(argv: list[Path], environment: Mapping[str, str]) -> str:
    command = [str(part) for part in argv]
    result = subprocess.run(command, env=_environment(environment), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=150)
    said = result.stdout + result.stderr
    assert result.returncode == 0, f"{command[0]} ended with {result.returncode}: {said}"
    return said


def sql_of_operations() -> list[str]:
    """The statements that docs/operations.md has to copy, for the same rights."""
    text = (REPOSITORY / "docs" / "operations.md").read_text()
    blocks = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if not line.startswith("--")]
    return [statement.strip() for statement in "\n".join(lines).split(";") if statement.strip()]
