"""The four services: what to fetch, how to start each, when it really answers."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from . import downloads, kafka_probe
from .downloads import HERE, Say
from .errors import StackError
from .layout import LOOPBACK, Layout
from .s3_client import S3Client

# Not secrets: the S3 server listens on the loopback address only.
ACCESS_KEY, SECRET_KEY, REGION = "kappa", "kappa-local-only", "us-east-1"
BUCKETS = ("archive", "dead-letter", "state")


@dataclass(frozen=True)
class Command:
    argv: list[str]
    env: dict[str, str]
    cwd: Path


class Service(ABC):
    name: str
    #: Seconds that SIGTERM is given before SIGKILL.
    grace: float = 10
    #: Seconds until it must answer; generous, since cold caches and two busy cores are normal.
    start_timeout: float = 90

    def __init__(self, layout: Layout, state: dict) -> None:
        self.layout = layout
        self.port: int = state["ports"][self.name]
        self.state = state
        self.data = layout.data_dir(self.name)

    @property
    def ports(self) -> list[int]:
        return [self.port]

    @staticmethod
    @abstractmethod
    def fetch(say: Say) -> tuple[Path, ...]:
        """Downloads or builds what it needs, where that is missing; where it lies."""

    @abstractmethod
    def prepare(self, say: Say) -> Command:
        """Fetches what is missing, writes configuration, returns what to run."""

    @abstractmethod
    def check(self) -> None:
        """Returns when the service answers; raises an exception saying why not."""

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """What a client has to know."""

    def after_start(self) -> None:
        """Once it answers: whatever clients expect to exist."""

    def after_stop(self) -> None:
        """Once it has ended by itself, not by force."""


def _http_get(port: int, path: str, expected: int = 200) -> bytes:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != expected:
        raise StackError(f"GET {path} answered {response.status}, not {expected}: {body[:200].decode(errors='replace')}")
    return body


def _java_environment() -> dict[str, str]:
    # Options meant for other programs must not change the services.
    unwanted = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH")
    return {name: value for name, value in os.environ.items() if name not in unwanted}


class JavaService(Service):
    """A service whose JVM starts faster with the class archive of an earlier run."""

    def class_archive(self, java: Path, home: Path) -> ClassArchive:
        return ClassArchive(java, home, self.layout.pids / f"{self.name}.jsa")

    def after_stop(self) -> None:
        ClassArchive.adopt(self.layout.pids / f"{self.name}.jsa")


@dataclass(frozen=True)
class ClassArchive:
    """Parsed classes of one program on one JVM (JDK "CDS"), which halve its start.

    The first run writes the archive as it exits, to a file of its own stack; only
    after it ended well does the file move into the cache. So neither a crash nor
    two stacks at once can leave a broken archive there.
    """

    java: Path
    home: Path
    written: Path

    def options(self) -> list[str]:
        release = self.java.parent.parent / "release"
        jvm = hashlib.sha256(release.read_bytes() if release.exists() else str(self.java).encode()).hexdigest()[:8]
        cached = self.home.with_name(f"{self.home.name}-{jvm}.jsa")
        quiet = ["-Xlog:cds=off", "-Xlog:cds+dynamic=off", "-Xlog:aot=off"]
        if cached.exists():
            return [f"-XX:SharedArchiveFile={cached}", *quiet]
        self.written.parent.mkdir(parents=True, exist_ok=True)
        self.written.unlink(missing_ok=True)
        self.written.with_suffix(".target").write_text(str(cached))
        return [f"-XX:ArchiveClassesAtExit={self.written}", *quiet]

    @staticmethod
    def adopt(written: Path) -> None:
        target_file = written.with_suffix(".target")
        if not (written.exists() and target_file.exists()):
            return
        target = Path(target_file.read_text())
        target_file.unlink()
        if not target.exists() and target.parent.exists():
            beside = target.with_name(f".{target.name}.{os.getpid()}")
            shutil.move(written, beside)  # perhaps from another file system
            beside.replace(target)


class Kafka(JavaService):
    """One KRaft node, broker and controller in one."""

    name = "kafka"
    grace = 20

    @property
    def ports(self) -> list[int]:
        return [self.port, self.state["ports"]["kafka_controller"]]

    @staticmethod
    def fetch(say: Say) -> tuple[Path, ...]:
        return downloads.kafka_libs(say), downloads.java(say)

    def prepare(self, say: Say) -> Command:
        libs, java = self.fetch(say)
        properties = self.layout.data / "kafka.properties"
        properties.parent.mkdir(parents=True, exist_ok=True)
        template = (HERE / "kafka" / "server.properties").read_text()
        properties.write_text(
            template.format(
                port=self.port,
                controller_port=self.state["ports"]["kafka_controller"],
                data=self.data,
            )
        )
        logging = f"-Dlog4j2.configurationFile={HERE / 'kafka' / 'log4j2.properties'}"
        classpath = str(libs / "*")
        if not (self.data / "meta.properties").exists():
            self._format(str(java), logging, classpath, properties)
        argv = [
            str(java),
            "-Xms256m", "-Xmx768m", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20",
            "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true",
            *self.class_archive(java, libs).options(),
            logging, "-cp", classpath, "kafka.Kafka", str(properties),
        ]  # fmt: skip
        return Command(argv, _java_environment(), self.layout.root)

    def _format(self, java: str, logging: str, classpath: str, properties: Path) -> None:
        """Writes the cluster id and the first metadata, as every KRaft node needs once."""
        self.data.mkdir(parents=True, exist_ok=True)
        argv = [
            java, "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", logging,
            "-cp", classpath, "kafka.tools.StorageTool", "format",
            # In one word: an id may begin with a dash.
            f"--cluster-id={self.state['cluster_id']}", "--config", str(properties),
        ]  # fmt: skip
        result = subprocess.run(argv, env=_java_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if result.returncode != 0:
            raise StackError(f"Kafka could not format {self.data}: {(result.stderr or result.stdout).strip()[-800:]}")

    def check(self) -> None:
        kafka_probe.check(LOOPBACK, self.port)

    def environment(self) -> dict[str, str]:
        return {"KAFKA_BROKERS": f"{LOOPBACK}:{self.port}"}


class Registry(JavaService):
    """Apicurio Registry; its Confluent-compatible API is what the pipeline uses."""

    name = "registry"

    @property
    def ports(self) -> list[int]:
        return [self.port, self.state["ports"]["registry_management"]]

    @staticmethod
    def fetch(say: Say) -> tuple[Path, ...]:
        return downloads.apicurio(say), downloads.java(say)

    def prepare(self, say: Say) -> Command:
        home, java = self.fetch(say)
        self.data.mkdir(parents=True, exist_ok=True)
        env = _java_environment() | {
            "QUARKUS_HTTP_HOST": LOOPBACK,
            "QUARKUS_HTTP_PORT": str(self.port),
            # The management interface cannot be switched off (that is fixed when Apicurio
            # is built), and by default it takes port 9000 on every interface.
            "QUARKUS_MANAGEMENT_HOST": LOOPBACK,
            "QUARKUS_MANAGEMENT_PORT": str(self.state["ports"]["registry_management"]),
            "QUARKUS_BANNER_ENABLED": "false",
            "QUARKUS_LOG_LEVEL": "WARN",
            "APICURIO_LOG_LEVEL": "WARN",
            "QUARKUS_HTTP_ACCESS_LOG_ENABLED": "false",
            # In memory by default, which would lose the schemas and their ids at
            # every restart. WRITE_DELAY=0: not even SIGKILL loses one.
            "APICURIO_DATASOURCE_URL": f"jdbc:h2:file:{self.data}/registry;WRITE_DELAY=0",
            "APICURIO_DATASOURCE_JDBC_INITIAL_SIZE": "2",
            "APICURIO_DATASOURCE_JDBC_MIN_SIZE": "2",
            "APICURIO_STORAGE_SNAPSHOT_LOCATION": str(self.data),
        }
        argv = [
            str(java), "-Xms64m", "-Xmx384m", "-XX:+UseSerialGC",
            # It serves a handful of requests: the quick compiler starts faster.
            "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true",
            *self.class_archive(java, home).options(),
            "-jar", str(home / "quarkus-run.jar"),
        ]  # fmt: skip
        return Command(argv, env, self.layout.root)

    def check(self) -> None:
        _http_get(self.port, "/apis/ccompat/v7/subjects")

    def environment(self) -> dict[str, str]:
        return {"REGISTRY_URL": f"http://{LOOPBACK}:{self.port}/apis/ccompat/v7"}


class S3(Service):
    """versitygw on a directory; metadata in a side directory, so any file system will do."""

    name = "s3"

    @staticmethod
    def fetch(say: Say) -> tuple[Path, ...]:
        return (downloads.versitygw(say),)

    def prepare(self, say: Say) -> Command:
        (binary,) = self.fetch(say)
        objects, sidecar = self.data / "objects", self.data / "metadata"
        objects.mkdir(parents=True, exist_ok=True)
        sidecar.mkdir(parents=True, exist_ok=True)
        _forget_unfinished_objects(objects, sidecar)
        unwanted = ("VGW_", "ROOT_", "LOGFILE")
        env = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
        env |= {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}
        argv = [
            str(binary), "--port", f"{LOOPBACK}:{self.port}", "--region", REGION,
            # Without keep-alive each request would open, and leave in TIME_WAIT, a connection.
            "--keep-alive", "--quiet",
            "posix", "--sidecar", str(sidecar), str(objects),
        ]  # fmt: skip
        return Command(argv, env, self.layout.root)

    @property
    def client(self) -> S3Client:
        return S3Client(LOOPBACK, self.port, ACCESS_KEY, SECRET_KEY, REGION)

    def check(self) -> None:
        status, body = self.client.request("GET", "/")
        if status != 200:
            raise StackError(f"listing the buckets answered {status}: {body[:200].decode(errors='replace')}")

    def after_start(self) -> None:
        for bucket in BUCKETS:
            status, body = self.client.request("PUT", f"/{bucket}")
            if status not in (200, 409):  # 409: it exists already
                raise StackError(f"creating the bucket {bucket} answered {status}: {body[:200].decode(errors='replace')}")

    def environment(self) -> dict[str, str]:
        return {
            "S3_ENDPOINT": f"http://{LOOPBACK}:{self.port}",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": REGION,
            "AWS_ALLOW_HTTP": "true",
        }


def _forget_unfinished_objects(objects: Path, sidecar: Path) -> None:
    """versitygw writes an object's metadata first, and refuses to create an object that has some: killed in between, it would
    do so for ever."""
    for metadata in list(sidecar.rglob("meta")):
        if not (objects / metadata.parent.relative_to(sidecar)).exists():
            shutil.rmtree(metadata, ignore_errors=True)


class ClickHouse(Service):
    """The ClickHouse engine behind our own HTTP server, see ../clickhouse_http."""

    name = "clickhouse"
    grace = 20

    @staticmethod
    def fetch(say: Say) -> tuple[Path, ...]:
        return (downloads.python("demo", say),)

    def prepare(self, say: Say) -> Command:
        (python,) = self.fetch(say)
        env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
        argv = [
            str(python), str(HERE / "clickhouse_http"),
            "--listen", f"{LOOPBACK}:{self.port}", "--path", str(self.data),
        ]  # fmt: skip
        return Command(argv, dict(env), self.layout.root)

    def check(self) -> None:
        answer = _http_get(self.port, "/?query=SELECT+1")
        if answer != b"1\n":
            raise StackError(f"SELECT 1 answered {answer[:50]!r}")

    def environment(self) -> dict[str, str]:
        return {"CLICKHOUSE_URL": f"http://{LOOPBACK}:{self.port}"}


SERVICES: tuple[type[Service], ...] = (Kafka, Registry, S3, ClickHouse)
