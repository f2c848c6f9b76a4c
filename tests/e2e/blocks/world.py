"""One test's own corner of the stack: its topic, group, prefixes and database, and the pipelines on them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from .archive import Archive, check_chain, read_archive
from .broken import MAX_RECORD_BYTES
from .dead_letters import DeadLetters, read_dead_letters
from .hot_store import HotStore
from .kappa_process import CommandResult, KappaProcess, free_port, run_command, to_toml
from .object_store import Place, connect
from .oracle import Oracle
from .producer import Production, RecordingProducer
from .records import SentLog
from .registry import Registry
from .schemas import READER_SCHEMA, RegisteredSchemas
from .segment_keys import hour_that_began_ms, is_start_key, parse_snapshot_key
from .stack import Stack
from .stream import MixedStream, StreamSettings
from .verification import check_anomalies, check_archive, check_quality, check_sensors, check_windows
from .waiting import Found, Hopeless, NotYet, wait_until

Changes = Mapping[str, Mapping[str, Any]]


class World:
    def __init__(self, stack: Stack, directory: Path, name: str, partitions: int = 3) -> None:
        self.stack = stack
        self.directory = directory
        self.partitions = partitions
        self.topic = f"e2e-{name}-{uuid.uuid4().hex[:8]}"
        self.group = self.topic
        self.window_ms = 60_000
        self.lateness_ms = 30_000
        # The schemas that the pipeline reads by, one after the other.
        self.readers: list[dict[str, Any]] = [READER_SCHEMA]
        self.processes: list[KappaProcess] = []
        # What the last pipeline was configured with besides.
        self._changes: Changes | None = None
        self.sent = SentLog(self.topic)
        self.registry = Registry(stack.registry_url)
        files = connect(stack)
        self.archive_place = Place(files, "archive", self.topic)
        self.dead_letter_place = Place(files, "dead-letter", self.topic)
        self.state_place = Place(files, "state", self.topic)
        self.hot_store = HotStore(stack.clickhouse_url, self.topic.replace("-", "_"))
        self.admin = AdminClient({"bootstrap.servers": stack.brokers})
        # By the group whose offsets they are asked for.
        self._groups: dict[str, Consumer] = {}
        self.create_topic()
        self.producer = self.new_producer()
        self.schemas = RegisteredSchemas.register(self.registry, self.topic)

    # Kafka

    def create_topic(self) -> None:
        """Retention would delete records whose timestamps a test has put into the past."""
        settings = {"retention.ms": "-1", "message.timestamp.after.max.ms": str(1 << 60)}
        topic = NewTopic(self.topic, num_partitions=self.partitions, replication_factor=1, config=settings)
        self.admin.create_topics([topic])[self.topic].result(30)

    def delete_topic(self) -> None:
        self.admin.delete_topics([self.topic])[self.topic].result(30)

        def look() -> Found[None] | NotYet:
            topics = self.admin.list_topics(timeout=10).topics
            return NotYet("the topic") if self.topic in topics else Found(None)

        wait_until("the topic to be gone", 30, look)

    def new_producer(self) -> RecordingProducer:
        """A client remembers a topic's identity: after a topic was made anew, it takes a new client."""
        return RecordingProducer(self.stack.brokers, self.sent)

    def delete_records(self, partition: int, before: int) -> None:
        position = TopicPartition(self.topic, partition, before)
        for future in self.admin.delete_records([position]).values():
            future.result(30)

    def committed(self, group: str | None = None) -> dict[int, int]:
        """The group's offsets, without becoming a member of it."""
        name = group or self.group
        positions = [TopicPartition(self.topic, partition) for partition in range(self.partitions)]
        # Not by an admin client: in librdkafka that crashes where the coordinator is still loading.
        if name not in self._groups:
            self._groups[name] = Consumer({"bootstrap.servers": self.stack.brokers, "group.id": name, "enable.auto.commit": False})
        answer = self._groups[name].committed(positions, timeout=30)
        return {found.partition: found.offset for found in answer if found.offset >= 0}

    def group_exists(self) -> bool:
        groups = self.admin.list_consumer_groups(request_timeout=20).result(30)
        return any(group.group_id == self.group for group in groups.valid)

    def end_offsets(self) -> dict[int, int]:
        """As the broker says: a check on our own book-keeping."""
        request = {TopicPartition(self.topic, partition): OffsetSpec.latest() for partition in range(self.partitions)}
        answers = self.admin.list_offsets(request)
        return {position.partition: future.result(30).offset for position, future in answers.items()}

    # Records

    def stream(self, seed: int, **changes: Any) -> MixedStream:
        """By default it starts half an hour ago or more, in the log's own time, and runs faster than the clock.

        An hour begins 20 seconds in, whatever the time of the day: it cuts segments, so a test that counts them names a
        start of its own.
        """
        settings = {
            "seed": seed,
            "partitions": self.partitions,
            "start_ms": hour_that_began_ms(minutes_ago=30) - 20_000,
            "window_ms": self.window_ms,
            "lateness_ms": self.lateness_ms,
        }
        return MixedStream(StreamSettings(**(settings | changes)), self.schemas)

    # The pipeline

    def config(self, changes: Changes | None = None) -> dict[str, dict[str, Any]]:
        sections: dict[str, dict[str, Any]] = {
            "kafka": {
                "brokers": self.stack.brokers,
                "topic": self.topic,
                "group": self.group,
                # Members that are killed must be missed soon.
                "properties": {"session.timeout.ms": "3000", "heartbeat.interval.ms": "500"},
            },
            "registry": {"url": self.stack.registry_url, "unknown_id_retry": "500ms"},
            "archive": {"url": self.archive_place.url},
            "dead_letter": {"url": self.dead_letter_place.url},
            "state": {"url": self.state_place.url},
            "object_store": {
                "endpoint": self.stack.s3_endpoint,
                "region": self.stack.environment.get("AWS_REGION", "us-east-1"),
                "allow_http": True,
            },
            "hot_store": {"url": self.stack.clickhouse_url, "database": self.hot_store.database, "emit_interval": "200ms"},
            "windows": {"length": f"{self.window_ms}ms", "allowed_lateness": f"{self.lateness_ms}ms"},
            "checkpoint": {"interval": "2s"},
            "limits": {"memory": "256MiB", "max_record_bytes": f"{MAX_RECORD_BYTES}"},
            "pipeline": {"shutdown_timeout": "30s"},
            # The records' timestamps lie in the past, which looks like lag.
            "http": {"listen": "127.0.0.1:0", "ready_max_lag": "2h"},
        }
        for section, values in (changes or {}).items():
            sections.setdefault(section, {}).update(values)
        return sections

    def write_config(self, changes: Changes | None = None, name: str = "kappa") -> Path:
        file = self.directory / f"{name}.toml"
        file.write_text(to_toml(self.config(changes)))
        return file

    def command(
        self, *arguments: str, timeout: float = 60, environment: Mapping[str, str] | None = None
    ) -> CommandResult:
        return run_command(list(arguments), self.stack.environment | dict(environment or {}), timeout)

    def migrate(self) -> None:
        result = self.command("migrate", "--config", str(self.write_config(name="migrate")))
        assert result.code == 0, f"kappa migrate ended with {result.code}: {result.text}"

    def start(
        self, changes: Changes | None = None, environment: Mapping[str, str] | None = None, limits: Sequence[str] = ()
    ) -> KappaProcess:
        self._changes = changes
        number = len(self.processes)
        port = free_port()
        with_port = {name: dict(values) for name, values in (changes or {}).items()}
        with_port["http"] = {**with_port.get("http", {}), "listen": f"127.0.0.1:{port}"}
        config_file = self.write_config(with_port, f"kappa-{number}")
        log_file = self.directory / f"kappa-{number}.log"
        process = KappaProcess(config_file, port, log_file, self.stack.environment | dict(environment or {}), limits)
        self.processes.append(process)
        return process

    @contextmanager
    def flowing(
        self, seed: int, per_second: int = 800, changes: Changes | None = None, **stream: Any
    ) -> Iterator[KappaProcess]:
        """A pipeline that is ready and under load, for the time of a block."""
        planned = self.stream(seed, **stream)
        kappa = self.start(changes)
        kappa.wait_until_ready()
        with Production(self.producer, planned.take, per_second, most=20_000):
            time.sleep(2)
            yield kappa

    def run_undisturbed_on_the_log_of(self, other: World) -> None:
        """Reads another corner's topic into places of its own, in one go, cut only by the stop."""
        self.delete_topic()
        self.topic, self.sent, self.schemas = other.topic, other.sent, other.schemas
        kappa = self.start({"checkpoint": {"interval": "1h"}})
        for partition, end in self.sent.end_offsets().items():
            self.wait_for_position(kappa, partition, end)
        assert kappa.terminate() == 0, kappa.log_tail()
        self.verify_everything()

    def close(self) -> None:
        for process in self.processes:
            process.make_sure_it_ends()
        # Their threads would look for the broker as long as the session lasts.
        for consumer in self._groups.values():
            consumer.close()
        del self.producer, self.admin

    # What came out

    def wait_until_committed(self, seconds: float = 60) -> None:
        """All that was sent is committed, hence durable everywhere."""
        ends = self.sent.end_offsets()

        def look() -> Found[None] | NotYet:
            if all(process.exit_code is not None for process in self.processes):
                raise Hopeless("no kappa runs any more")
            committed = self.committed()
            done = all(committed.get(partition) == end for partition, end in ends.items())
            return Found(None) if done else NotYet(f"committed {committed}")

        wait_until(f"the offsets {ends} to be committed", seconds, look, every=0.3)

    def wait_for_position(self, kappa: KappaProcess, partition: int, position: int, seconds: float = 45) -> None:
        """The process has taken in everything before that position, whatever became of it."""

        def look() -> Found[None] | NotYet:
            line = kappa.partition_status(partition)
            return Found(None) if line["position"] == position else NotYet(f"position {line['position']}, {line['state']}")

        wait_until(f"partition {partition} to be at {position}", seconds, look)

    def wait_until_archived_behind(self, offsets: Mapping[int, int], seconds: float = 45) -> None:
        """Some segment beyond these offsets is durable, whatever else is."""

        def look() -> Found[None] | NotYet:
            ends = self.read_archive(with_rows=False).ends()
            done = all(ends.get(partition, 0) >= offset for partition, offset in offsets.items())
            return Found(None) if done else NotYet(f"archived up to {ends}")

        wait_until(f"the archive to reach {dict(offsets)}", seconds, look, every=0.4)

    def read_archive(self, with_rows: bool = True) -> Archive:
        return read_archive(self.archive_place, self.topic, with_rows, self.readers)

    def read_dead_letters(self) -> DeadLetters:
        return read_dead_letters(self.dead_letter_place, self.topic)

    def snapshots(self) -> dict[int, list[int]]:
        positions: dict[int, list[int]] = {}
        for key in self.state_place.keys():
            if is_start_key(key):
                continue
            topic, partition, position = parse_snapshot_key(key)
            assert topic == self.topic, f"snapshot {key} of another topic"
            positions.setdefault(partition, []).append(position)
        return positions

    @property
    def oracle(self) -> Oracle:
        return Oracle(self.window_ms, self.lateness_ms)

    def verify_everything(self) -> None:
        """The whole truth: archive, dead letters, windows, anomalies, snapshots."""
        assert self.end_offsets() == {p: self.sent.log_end_offsets().get(p, 0) for p in range(self.partitions)}
        archive = self.read_archive()
        check_archive(archive, self.read_dead_letters(), self.sent)
        check_windows(self.hot_store, self.sent, self.oracle, archive)
        check_anomalies(self.hot_store, self.sent, self.oracle)
        check_sensors(self.hot_store, self.sent)
        check_quality(self.hot_store, self.sent)
        self.verify_snapshots()
        result = self.kappa_verify()
        assert result.code == 0, f"kappa verify ended with {result.code}: {result.text}"

    def kappa_verify(self, *arguments: str, timeout: float = 60) -> CommandResult:
        """What the program says of itself."""
        config = str(self.write_config(self._changes, "verify"))
        return self.command("verify", "--config", config, *arguments, timeout=timeout)

    def verify_snapshots(self) -> None:
        """The state at each committed offset is there, and no more than the one before it."""
        snapshots = self.snapshots()
        for partition, offset in self.committed().items():
            found = sorted(snapshots[partition])
            assert offset in found, f"partition {partition}: {offset} is committed, snapshots are at {found}"
            assert len(found) <= 2, f"partition {partition}: old snapshots are left at {found[:-2]}"

    def verify_committed_is_durable(self) -> None:
        """Right after a crash: whatever is committed can be found without the process."""
        committed = self.committed()
        archive, snapshots = self.read_archive(with_rows=False), self.snapshots()
        check_chain(archive, self.sent, up_to=committed)
        letters = self.read_dead_letters()
        for (partition, offset), (_, fate) in self.sent.rejected().items():
            if offset < committed.get(partition, 0):
                assert letters[partition, offset]["reason"] == fate.reason
        for partition, offset in committed.items():
            assert offset in snapshots.get(partition, []), f"no snapshot at {partition}@{offset}, which is committed"


#: The fixture `make_world`: partitions, and whether the tables exist already.
WorldMaker = Callable[..., World]
