"""The archive of a topic: every object, every footer, every row."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .object_store import Place, header_pairs, parquet_of, python_rows
from .records import Accepted, PlannedRecord, Rejected, SentLog
from .schemas import READER_FIELDS, READER_SCHEMA
from .segment_keys import HOUR_MS, SegmentKey, date_and_hour, parse_segment_key

METADATA_COLUMNS = ["_partition", "_offset", "_timestamp", "_schema_id", "_key", "_keyless", "_headers", "_extra", "_duplicate"]


@dataclass(frozen=True)
class Segment:
    key: SegmentKey
    end: int
    row_count: int
    duplicates: int
    # Reason by offset, from the footer.
    rejects: Mapping[int, str]
    rows: list[dict[str, object]]
    reader: Mapping[str, object]
    # The data contract in force, and a fingerprint of its rules.
    contract: str | None


@dataclass
class Archive:
    # By partition, in the order of their start offsets.
    segments: dict[int, list[Segment]] = field(default_factory=lambda: defaultdict(list))

    def starts(self, partition: int) -> list[int]:
        return [segment.key.start for segment in self.segments[partition]]

    def ends(self) -> dict[int, int]:
        return {partition: segments[-1].end for partition, segments in self.segments.items() if segments}


def read_archive(
    place: Place, topic: str, with_rows: bool = True, readers: Sequence[Mapping[str, object]] = (READER_SCHEMA,)
) -> Archive:
    """`readers`: the schemas that the pipeline has read by, over the time."""
    archive = Archive()
    for key, content in place.read_all().items():
        segment = _read_segment(key, content, topic, with_rows, readers)
        archive.segments[segment.key.partition].append(segment)
    for segments in archive.segments.values():
        segments.sort(key=lambda segment: segment.key.start)
    return archive


def _read_segment(
    key: str, content: bytes, topic: str, with_rows: bool, readers: Sequence[Mapping[str, object]]
) -> Segment:
    parsed = parse_segment_key(key)
    file = parquet_of(content)
    pairs = {name.decode(): value.decode() for name, value in (file.schema_arrow.metadata or {}).items()}
    pairs |= {name.decode(): value.decode() for name, value in (file.metadata.metadata or {}).items() if name != b"ARROW:schema"}
    footer = {name.removeprefix("kappa."): value for name, value in pairs.items() if name.startswith("kappa.")}
    expected = {"topic", "partition", "start_offset", "end_offset", "rows", "rejects", "digest", "reader_schema", "version", "duplicates"}
    assert set(footer) - {"contract", "sequence"} == expected, f"{key} has the footer keys {sorted(footer)}"
    assert footer["topic"] == parsed.topic == topic, f"{key} is of topic {footer['topic']}"
    assert int(footer["partition"]) == parsed.partition, f"{key} says partition {footer['partition']}"
    assert int(footer["start_offset"]) == parsed.start, f"{key} says it starts at {footer['start_offset']}"
    reader = json.loads(footer["reader_schema"])
    assert reader in readers, f"{key} was written by the reader schema {reader}"
    fields = [field["name"] for field in reader["fields"]]
    assert file.schema_arrow.names == fields + METADATA_COLUMNS, f"{key} has columns {file.schema_arrow.names}"
    assert int(footer["rows"]) == file.metadata.num_rows, f"{key} has {file.metadata.num_rows} rows, says {footer['rows']}"
    rejects = {
        first + step: reason for first, count, reason in json.loads(footer["rejects"]) for step in range(count)
    }
    rows = python_rows(file.read()) if with_rows else []
    assert footer.get("sequence", "sequence") == "sequence", f"{key} tells duplicates by {footer['sequence']}"
    return Segment(
        parsed, int(footer["end_offset"]), int(footer["rows"]), int(footer["duplicates"]), rejects, rows, reader, footer.get("contract")
    )


def check_chain(archive: Archive, sent: SentLog, up_to: Mapping[int, int] | None = None) -> None:
    """The segments of each partition follow one another without gap or overlap, from 0 to the end (or beyond `up_to`),
    and account for every record."""
    for partition in sent.partitions if up_to is None else up_to:
        position = 0
        for segment in archive.segments[partition]:
            where = f"segment {partition}-{segment.key.start}"
            assert segment.key.start == position, f"{where} starts where {position} should be: gap or overlap"
            assert segment.end > position, f"{where} ends at {segment.end}"
            # Markers of transactions take offsets that nobody is ever sent.
            markers = sum(position <= marker < segment.end for marker in sent.markers.get(partition, ()))
            delivered = segment.end - position - markers
            counted = segment.row_count + len(segment.rejects)
            assert counted == delivered, f"{where} accounts for {counted} of {delivered} records"
            outside = [offset for offset in segment.rejects if not position <= offset < segment.end]
            assert not outside, f"{where} rejects offsets outside of it: {outside[:5]}"
            _check_hour(segment, sent, where)
            position = segment.end
        if up_to is None:
            assert position == sent.end_offsets()[partition], f"partition {partition} is archived up to {position}"
        else:
            assert position >= up_to[partition], f"partition {partition}: {up_to[partition]} is committed, {position} archived"
    unexpected = set(archive.segments) - set(sent.partitions)
    assert not unexpected, f"segments of partitions that got no record: {unexpected}"


def _check_hour(segment: Segment, sent: SentLog, where: str) -> None:
    records = sent.partitions[segment.key.partition]
    offsets = [offset for offset in range(segment.key.start, segment.end) if offset in records]
    first = records[offsets[0]].timestamp_ms
    assert (segment.key.date, segment.key.hour) == date_and_hour(first), f"{where} lies in the wrong hour"
    later = [
        offset
        for offset in offsets
        if records[offset].timestamp_ms // HOUR_MS > first // HOUR_MS
    ]
    assert not later, f"{where} holds records of a later hour: {later[:5]}"


def check_rows(archive: Archive, sent: SentLog) -> None:
    """Every accepted record is there once, equal in every column; no rejected one is."""
    seen: set[tuple[int, int]] = set()
    for partition, segments in archive.segments.items():
        marked = sent.duplicates(partition)
        for segment in segments:
            previous = segment.key.start - 1
            for row in segment.rows:
                offset = row["_offset"]
                assert isinstance(offset, int) and previous < offset < segment.end, (
                    f"offset {offset} behind {previous} in segment {partition}-{segment.key.start}..{segment.end}"
                )
                previous = offset
                _check_row(partition, offset, row, sent.partitions[partition][offset], offset in marked)
                seen.add((partition, offset))
            duplicates = sum(bool(row["_duplicate"]) for row in segment.rows)
            assert segment.duplicates == duplicates, f"segment {partition}-{segment.key.start} says {segment.duplicates} duplicates"
    missing = set(sent.accepted()) - seen
    assert not missing, f"{len(missing)} records are not archived: {sorted(missing)[:5]}"


def check_rejects(archive: Archive, sent: SentLog) -> None:
    """The footers reject exactly what they should, for the right reason."""
    found = {
        (partition, offset): reason
        for partition, segments in archive.segments.items()
        for segment in segments
        for offset, reason in segment.rejects.items()
    }
    expected = {place: fate.reason for place, (_, fate) in sent.rejected().items()}
    assert found == expected, _first_difference(found, expected)


def _check_row(partition: int, offset: int, row: dict[str, object], record: PlannedRecord, is_duplicate: bool) -> None:
    fate = record.fate
    assert not isinstance(fate, Rejected), f"{partition}@{offset} is archived, but should be rejected as {fate}"
    expected = expected_row(partition, offset, record, fate) | {"_duplicate": is_duplicate}
    found = dict(row)
    found["_headers"] = header_pairs(row["_headers"])
    found["_extra"] = json.loads(str(row["_extra"])) if row["_extra"] is not None else None
    if _exact(found) != _exact(expected):
        raise AssertionError(f"row {partition}@{offset}: {_first_difference(_exact(found), _exact(expected))}")


def expected_row(partition: int, offset: int, record: PlannedRecord, fate: Accepted) -> dict[str, object]:
    event: dict[str, object] = {name: fate.event[name] for name in READER_FIELDS}
    event["attributes"] = list(fate.event["attributes"].items())
    repeats_the_sensor = record.key == fate.event["sensor_id"].encode()
    return event | {
        "_partition": partition,
        "_offset": offset,
        "_timestamp": record.timestamp_ms,
        "_schema_id": fate.schema_id,
        "_key": None if repeats_the_sensor else record.key,
        "_keyless": record.key is None,
        "_headers": record.headers,
        "_extra": fate.extra,
    }


def _exact(row: Mapping[str, object]) -> dict[str, object]:
    """With types, and floats by their bits: 1 is neither 1.0 nor True, and -0.0 is not 0.0."""
    return {
        name: (type(value).__name__, value.hex() if isinstance(value, float) else value) for name, value in row.items()
    }


def _first_difference(found: Mapping, expected: Mapping) -> str:
    for name in [*expected, *found]:
        if name not in found:
            return f"{name}: nothing found, expected {expected[name]!r}"
        if name not in expected:
            return f"{name}: found {found[name]!r}, expected nothing"
        if found[name] != expected[name]:
            return f"{name}: found {found[name]!r}, expected {expected[name]!r}"
    return "no difference"


