"""Records: as planned, as sent, and what must become of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .readings import Readings, Verdict

Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True)
class Accepted:
    """The record must be found in the archive and be counted in its window."""

    # Every field of the reader schema; times in milliseconds, maps as dicts in the order of writing.
    event: Mapping[str, Any]
    schema_id: int
    # The writer's fields that the reader does not know, as JSON values.
    extra: Mapping[str, Any] | None = None
    # So far from its series that the detector must flag it.
    is_spike: bool = False


@dataclass(frozen=True)
class Rejected:
    """The record must be found in the dead letters."""

    reason: str
    # None where the framing does not give one.
    schema_id: int | None
    # How often it was sent again before.
    attempt: int = 0


@dataclass(frozen=True)
class PlannedRecord:
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int
    fate: Accepted | Rejected


@dataclass(frozen=True)
class SentRecord:
    offset: int
    record: PlannedRecord


@dataclass
class SentLog:
    """What the broker has acknowledged, by partition, in the order of the offsets."""

    topic: str
    partitions: dict[int, dict[int, PlannedRecord]] = field(default_factory=dict)
    # By partition, the offsets of markers that transactions have left: no consumer ever sees these.
    markers: dict[int, set[int]] = field(default_factory=dict)

    def add(self, partition: int, offset: int, record: PlannedRecord) -> None:
        of_partition = self.partitions.setdefault(partition, {})
        assert offset not in of_partition, f"two delivery reports for {self.topic}-{partition}@{offset}"
        of_partition[offset] = record

    def in_order(self, partition: int) -> Iterator[SentRecord]:
        of_partition = self.partitions.get(partition, {})
        return (SentRecord(offset, of_partition[offset]) for offset in sorted(of_partition))

    def end_offsets(self) -> dict[int, int]:
        # Copied first: production may go on meanwhile.
        return {partition: max(list(records)) + 1 for partition, records in self.partitions.items() if records}

    def log_end_offsets(self) -> dict[int, int]:
        """As the broker counts: markers have offsets too."""
        ends = self.end_offsets()
        return {partition: max(end, *(offset + 1 for offset in self.markers.get(partition, {-1}))) for partition, end in ends.items()}

    def count(self) -> int:
        return sum(len(records) for records in self.partitions.values())

    def rejected(self) -> dict[tuple[int, int], tuple[PlannedRecord, Rejected]]:
        return {
            (partition, offset): (record, record.fate)
            for partition, records in self.partitions.items()
            for offset, record in records.items()
            if isinstance(record.fate, Rejected)
        }

    def verdicts(self) -> dict[tuple[int, int], tuple[Verdict, int]]:
        """What each accepted reading is, and how many more are missing with it."""
        return {place: verdict for partition in self.partitions for place, verdict in self._verdicts_of(partition)}

    def _verdicts_of(self, partition: int) -> Iterator[tuple[tuple[int, int], tuple[Verdict, int]]]:
        readings = Readings()
        for sent in self.in_order(partition):
            if isinstance(sent.record.fate, Accepted):
                event = sent.record.fate.event
                verdict = readings.judge(event["sensor_id"], event.get("sequence", 0), event["event_time"])
                yield (partition, sent.offset), verdict

    def duplicates(self, partition: int) -> set[int]:
        """Offsets of readings that were there before."""
        return {offset for (_, offset), (verdict, _) in self._verdicts_of(partition) if verdict is Verdict.DUPLICATE}

    def counted(self) -> dict[tuple[int, int], tuple[PlannedRecord, Accepted]]:
        """What is accepted and no duplicate."""
        verdicts = self.verdicts()
        return {place: sent for place, sent in self.accepted().items() if verdicts[place][0] is not Verdict.DUPLICATE}

    def accepted(self) -> dict[tuple[int, int], tuple[PlannedRecord, Accepted]]:
        return {
            (partition, offset): (record, record.fate)
            for partition, records in self.partitions.items()
            for offset, record in records.items()
            if isinstance(record.fate, Accepted)
        }
