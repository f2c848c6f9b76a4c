"""`kappa dlq` as people call it, and what it puts into the log, read by a consumer of our own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from .broken import VALUE_SCHEMA_HEADER
from .kappa_process import CommandResult, background_command
from .records import Accepted, PlannedRecord, Rejected
from .world import World

Place = tuple[int, int]
PROVENANCE = "kappa.redrive."


@dataclass(frozen=True)
class Expected:
    """What must become of a dead letter that is sent again."""

    value: bytes | None
    fate: Accepted | Rejected
    has_schema_header: bool = True


class DeadLetterQueue:
    def __init__(self, world: World, changes: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._world = world
        self.config = str(world.write_config(changes, name="dlq"))
        self._seen = world.end_offsets()

    def run(self, *arguments: str, code: int = 0, environment: Mapping[str, str] | None = None) -> CommandResult:
        result = self._world.command("dlq", *arguments, "--config", self.config, environment=environment)
        assert result.code == code, f"kappa dlq {' '.join(arguments)} ended with {result.code}, not {code}: {result.text}"
        return result

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code).stdout)

    def start(self, *arguments: str, environment: Mapping[str, str]) -> subprocess.Popen[str]:
        return background_command(["dlq", *arguments, "--config", self.config], self._world.stack.environment | dict(environment))

    def counts(self) -> dict[str, int]:
        groups = self.json("list", "--by", "reason")["groups"]
        return {group["by"]["reason"]: group["count"] for group in groups}

    def take_in(self, expected: Callable[[Place, PlannedRecord], Expected]) -> dict[Place, Place]:
        """What was appended since the last look: each record must be a dead letter, in its own partition, with its key,
        its headers and where it comes from. Gives the new place of each, and remembers the records as sent."""
        world, places = self._world, {}
        ends = world.end_offsets()
        for message in _read(world, self._seen, ends):
            partition, offset = message.partition(), message.offset()
            assert partition is not None and offset is not None
            headers: list[tuple[str, bytes | None]] = [(str(name), content) for name, content in message.headers() or []]
            provenance = {name: (content or b"").decode() for name, content in headers if name.startswith(PROVENANCE)}
            topic, from_partition, from_offset = provenance[f"{PROVENANCE}from"].rsplit("/", 2)
            origin = (int(from_partition), int(from_offset))
            assert topic == world.topic and origin[0] == partition, provenance
            source = world.sent.partitions[origin[0]][origin[1]]
            assert isinstance(source.fate, Rejected)
            assert provenance[f"{PROVENANCE}attempt"] == str(source.fate.attempt + 1)
            assert provenance[f"{PROVENANCE}reason"] == source.fate.reason
            wanted = expected(origin, source)
            own = tuple(header for header in headers if not header[0].startswith(PROVENANCE))
            kept = tuple(
                header for header in source.headers
                if not header[0].startswith(PROVENANCE) and (wanted.has_schema_header or header[0] != VALUE_SCHEMA_HEADER)
            )  # fmt: skip
            assert (message.key(), own, message.value()) == (source.key, kept, wanted.value), f"{origin} at {offset}"
            assert origin not in places, f"the dead letter {origin} was sent twice: at {places[origin]} and {offset}"
            places[origin] = (partition, offset)
            timestamp = message.timestamp()[1]
            world.sent.add(partition, offset, PlannedRecord(partition, source.key, wanted.value, tuple(headers), timestamp, wanted.fate))
        for partition, end in ends.items():
            records = world.sent.partitions.get(partition, {})
            unseen = {offset for offset in range(self._seen[partition], end) if offset not in records}
            world.sent.markers.setdefault(partition, set()).update(unseen)
        self._seen = ends
        return places


def _read(world: World, since: Mapping[int, int], ends: Mapping[int, int]) -> list[Message]:
    """All committed records in these ranges."""
    consumer = Consumer({
        "bootstrap.servers": world.stack.brokers,
        "group.id": f"{world.topic}.reader",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
    })
    waiting = {partition for partition, end in ends.items() if end > since[partition]}
    consumer.assign([TopicPartition(world.topic, partition, since[partition]) for partition in waiting])
    messages: list[Message] = []
    try:
        while waiting:
            message = consumer.poll(20)
            assert message is not None, f"partitions {waiting} of {world.topic} cannot be read to their end"
            error = message.error()
            if error is None:
                messages.append(message)
            else:
                assert error.code() == KafkaError._PARTITION_EOF, str(error)
                waiting.discard(message.partition() or 0)
    finally:
        consumer.close()
    return messages
