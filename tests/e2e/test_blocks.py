"""Tests of the building blocks themselves: an oracle that nods at everything would prove nothing."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable

import fastavro
import pytest

from blocks.archive import Archive, Segment, check_chain, check_rejects, check_rows, expected_row
from blocks.broken import BREAKERS, body_with
from blocks.oracle import Aggregate, Observation, Oracle, SeriesWindow, merged
from blocks.records import Accepted, PlannedRecord, Rejected, SentLog
from blocks.schemas import NEWER_SCHEMA, OLDER_SCHEMA, READER_DEFAULTS, READER_SCHEMA, RegisteredSchemas, zigzag
from blocks.segment_keys import SegmentKey, date_and_hour, parse_segment_key
from blocks.stack import _parse
from blocks.stream import MixedStream, StreamSettings
from blocks.verification import check_view
from blocks.waiting import AwaitedInVain, NotYet, wait_until

START_MS = 1_790_000_000_000
SCHEMAS = RegisteredSchemas.unregistered()
MINUTE = 60_000


def stream(seed: int) -> MixedStream:
    return MixedStream(StreamSettings(seed=seed, partitions=3, start_ms=START_MS), SCHEMAS)


def sent_events(*events: tuple[int, float], sensor: str = "s") -> SentLog:
    """(time, value) of one series in one partition."""
    sent = SentLog("t")
    for offset, (time_ms, value) in enumerate(events):
        event = {**READER_DEFAULTS, "sensor_id": sensor, "metric": "OTHER", "event_time": time_ms, "value": value}
        sent.add(0, offset, PlannedRecord(0, None, b"", (), time_ms, Accepted(event, 1)))
    return sent


def test_the_same_seed_makes_the_same_stream() -> None:
    assert stream(7).take(3000) == stream(7).take(3000)
    assert stream(7).take(50) != stream(8).take(50)


def test_the_stream_holds_everything_it_promises() -> None:
    records = stream(1).take(20_000)
    good = [record for record in records if isinstance(record.fate, Accepted)]
    reasons = {record.fate.reason for record in records if isinstance(record.fate, Rejected)}
    assert reasons == {
        "empty_value", "tombstone", "bad_magic", "truncated_header", "unknown_schema_id", "schema_not_avro",
        "incompatible_schema", "truncated_body", "trailing_bytes", "invalid_utf8", "invalid_union_branch",
        "invalid_enum", "invalid_length", "too_deep", "too_large", "non_finite_value", "event_time_too_old",
        "event_time_in_future",
    }  # fmt: skip
    assert {record.partition for record in records} == {0, 1, 2}
    fates = [record.fate for record in good if isinstance(record.fate, Accepted)]
    assert {fate.schema_id for fate in fates} == {SCHEMAS.same.schema_id, SCHEMAS.newer.schema_id, SCHEMAS.older.schema_id}
    assert sum(fate.is_spike for fate in fates) >= 30
    keys = {"absent" if r.key is None else "sensor" if r.key == r.fate.event["sensor_id"].encode() else "other" for r in good}
    assert keys == {"absent", "sensor", "other"}


def test_good_records_decode_to_what_is_expected() -> None:
    """fastavro reads them with the reader's schema, resolving as the specification says."""
    writers = {1: READER_SCHEMA, 2: NEWER_SCHEMA, 3: OLDER_SCHEMA}
    plain_reader = json.loads(json.dumps(READER_SCHEMA).replace('"logicalType": "timestamp-millis"', '"doc": "ms"'))
    checked = 0
    for record in stream(2).take(4000):
        if not isinstance(record.fate, Accepted):
            continue
        assert record.value is not None
        framed = not any(name == "__value_schema_id" for name, _ in record.headers)
        body = io.BytesIO(record.value[5:] if framed else record.value)
        writer = json.loads(json.dumps(writers[record.fate.schema_id]).replace('"logicalType": "timestamp-millis"', '"doc": "ms"'))
        decoded = fastavro.schemaless_reader(body, fastavro.parse_schema(writer), fastavro.parse_schema(plain_reader))
        assert decoded == record.fate.event
        assert body.read() == b""
        checked += 1
    assert checked > 3500


@pytest.mark.parametrize("breaker", BREAKERS, ids=lambda breaker: breaker.name)
def test_broken_records_are_broken(breaker) -> None:
    """None of them can be taken for a good record: no frame, no known schema, or not decodable to a valid event."""
    event = stream(3).valid_event(0)
    broken = breaker.make(SCHEMAS, event, START_MS)
    readable = {1: READER_SCHEMA}
    header = dict(broken.headers).get("__value_schema_id")
    if broken.value is None or header is not None or broken.value[:1] != b"\0" or len(broken.value) < 5:
        return_reasons = {"tombstone", "empty_value", "bad_magic", "truncated_header", "unknown_schema_id"}
        if breaker.name == "body cut behind a GUID":
            return_reasons = {"truncated_body"}
        assert broken.fate.reason in return_reasons
        return
    schema_id = int.from_bytes(broken.value[1:5], "big")
    # An id that no 32-bit registry can have given out is not written down as one.
    assert broken.fate.schema_id == (schema_id if schema_id < 1 << 31 else None)
    if schema_id not in readable:
        assert broken.fate.reason in {"unknown_schema_id", "schema_not_avro", "incompatible_schema", "too_deep", "truncated_body"}
        return
    body = io.BytesIO(broken.value[5:])
    by_content = {"non_finite_value", "event_time_too_old", "event_time_in_future", "too_large"}
    if broken.fate.reason in by_content:
        if broken.fate.reason != "event_time_in_future" or breaker.name == "six minutes ahead":
            fastavro.schemaless_reader(body, fastavro.parse_schema(READER_SCHEMA), None)
        return
    try:
        fastavro.schemaless_reader(body, fastavro.parse_schema(READER_SCHEMA), None)
    except Exception:
        return  # whatever fastavro says of it: it is not a record
    lenient = {"invalid_enum", "invalid_union_branch", "invalid_length"}
    assert body.read() != b"" or broken.fate.reason in lenient, "fastavro reads it without complaint"


def test_replacing_nothing_gives_the_encoders_own_bytes() -> None:
    event = stream(4).valid_event(1)
    assert body_with(event) == SCHEMAS.same.body(event)
    assert [zigzag(number) for number in (0, -1, 1, 64, -65)] == [b"\0", b"\x01", b"\x02", b"\x80\x01", b"\x81\x01"]


def test_the_oracle_closes_windows_by_the_watermark_with_the_event_at_hand() -> None:
    # 89,999 keeps the first window open; 90,000 closes it, for the events behind it.
    sent = sent_events((1_000, 1.0), (89_999, 2.0), (2_000, 3.0), (90_000, 4.0), (3_000, 5.0), (60_000, 6.0))
    windows = Oracle(MINUTE, 30_000).partition(sent, 0)
    first, second = SeriesWindow("s", "OTHER", 0), SeriesWindow("s", "OTHER", MINUTE)
    assert [seen.value for seen in windows.on_time[first]] == [1.0, 3.0]
    assert [seen.value for seen in windows.on_time[second]] == [2.0, 4.0, 6.0]
    assert [seen.value for seen in windows.late[first]] == [5.0]
    assert windows.first_open == 1
    assert {place: [seen.value for seen in part] for place, part in windows.late_by_segment([0, 3]).items()} == {(first, 3): [5.0]}


def test_an_event_is_never_late_by_its_own_time() -> None:
    sent = sent_events((0, 1.0), (10 * MINUTE, 2.0))
    windows = Oracle(MINUTE, 30_000).partition(sent, 0)
    assert not windows.late
    assert len(windows.on_time) == 2


def test_ties_go_by_the_log() -> None:
    observations = [
        Observation(0, 5, 100, 1.0, False), Observation(0, 6, 100, 2.0, True), Observation(1, 0, 100, 3.0, False),
        Observation(0, 7, 100, 4.0, False),
    ]  # fmt: skip
    aggregate = Aggregate.of(observations)
    assert (aggregate.first_value, aggregate.last_value, aggregate.bad_quality) == (1.0, 3.0, 1)
    assert (aggregate.count, aggregate.min, aggregate.max, aggregate.mean, aggregate.m2) == (4, 1.0, 4.0, 2.5, 5.0)


def _view_row(key: SeriesWindow, aggregate: Aggregate) -> dict:
    row = dataclasses.asdict(key) | dataclasses.asdict(aggregate)
    return row | {"stddev": (aggregate.m2 / aggregate.count) ** 0.5, "late": 0, "closed": False}


def test_the_comparison_of_windows_finds_every_difference() -> None:
    sent = sent_events((1_000, 1.0), (2_000, 2.5), (3_000, 7.0))
    oracle = Oracle(MINUTE, 30_000)
    partitions = oracle.partitions(sent)
    (key, aggregate), *_ = merged(partitions.values()).items()
    good = _view_row(key, aggregate)
    check_view([good], partitions, oracle)
    changes = {
        "count": 4, "sum": 10.5 + 1e-7, "min": 0.0, "max": 7.5, "mean": 3.6, "stddev": 2.0, "first_time_ms": 0,
        "first_value": 2.0, "last_time_ms": 1, "last_value": 1.0, "bad_quality": 1, "late": 1, "closed": True,
        "sensor_id": "other",
    }  # fmt: skip
    for name, value in changes.items():
        with pytest.raises(AssertionError):
            check_view([{**good, name: value}], partitions, oracle)
    with pytest.raises(AssertionError):
        check_view([], partitions, oracle)


def _archived(sent: SentLog, records: list[PlannedRecord]) -> Archive:
    """An archive as it should be, in two segments."""
    archive = Archive()
    date, hour = date_and_hour(START_MS)
    middle = len(records) // 2
    duplicates = sent.duplicates(0)
    for start, end in ((0, middle), (middle, len(records))):
        rows, rejects = [], {}
        for offset in range(start, end):
            fate = records[offset].fate
            if isinstance(fate, Rejected):
                rejects[offset] = fate.reason
                continue
            row = expected_row(0, offset, records[offset], fate) | {"_duplicate": offset in duplicates}
            headers = [{"key": name, "value": value} for name, value in records[offset].headers]
            rows.append(row | {"_headers": headers or None, "_extra": json.dumps(fate.extra) if fate.extra else None})
        key = SegmentKey(sent.topic, date, hour, 0, start)
        archive.segments[0].append(Segment(key, end, len(rows), sum(row["_duplicate"] for row in rows), rejects, rows, READER_SCHEMA, None))
    return archive


def _one_partition(count: int) -> tuple[SentLog, list[PlannedRecord]]:
    settings = StreamSettings(seed=5, partitions=1, start_ms=START_MS, step_ms=(1, 2))
    sent, records = SentLog("t"), MixedStream(settings, SCHEMAS).take(count)
    for offset, record in enumerate(records):
        sent.add(0, offset, record)
    return sent, records


def _check_all(archive: Archive, sent: SentLog) -> None:
    check_chain(archive, sent)
    check_rejects(archive, sent)
    check_rows(archive, sent)


def test_the_comparison_of_the_archive_finds_a_change_in_any_column() -> None:
    sent, records = _one_partition(300)
    _check_all(_archived(sent, records), sent)
    sample = _archived(sent, records).segments[0][1].rows
    for column in sample[0]:
        for wrong in (None, "x", 0, 0.5, b"?", [("k", "v")], True):
            archive = _archived(sent, records)
            row = archive.segments[0][1].rows[7]
            if row[column] == wrong and type(row[column]) is type(wrong):
                continue
            row[column] = wrong
            with pytest.raises((AssertionError, ValueError, TypeError)):
                _check_all(archive, sent)
                pytest.fail(f"{column} = {wrong!r} was not noticed", pytrace=False)


def test_the_comparison_of_the_archive_finds_what_is_lost_doubled_or_moved() -> None:
    sent, records = _one_partition(300)

    def broken(change: Callable[[list[Segment]], object]) -> None:
        archive = _archived(sent, records)
        change(archive.segments[0])
        with pytest.raises(AssertionError):
            _check_all(archive, sent)

    broken(lambda segments: segments[1].rows.pop())
    broken(lambda segments: segments[0].rows.append(segments[0].rows[-1]))
    broken(lambda segments: segments[0].rows.reverse())
    broken(lambda segments: segments.pop())
    broken(lambda segments: segments.pop(0))
    broken(lambda segments: segments.append(segments[1]))
    broken(lambda segments: segments.__setitem__(1, dataclasses.replace(segments[1], end=299)))
    broken(lambda segments: segments.__setitem__(0, dataclasses.replace(segments[0], row_count=1)))
    broken(lambda segments: segments.__setitem__(0, dataclasses.replace(segments[0], rejects={})))
    wrong_hour = dataclasses.replace(_archived(sent, records).segments[0][0].key, hour="00")
    broken(lambda segments: segments.__setitem__(0, dataclasses.replace(segments[0], key=wrong_hour)))


def test_keys_are_read_and_refused() -> None:
    key = parse_segment_key("t/date=2026-09-21/hour=14/00007-00000000000000001234.parquet")
    assert (key.partition, key.start, key.date, key.hour) == (7, 1234, "2026-09-21", "14")
    assert date_and_hour(START_MS) == ("2026-09-21", "14")
    for wrong in ("t/00007-00000000000000001234.parquet", "t/date=2026-09-21/hour=14/7-1234.parquet"):
        with pytest.raises(AssertionError):
            parse_segment_key(wrong)


def test_waits_say_what_was_there() -> None:
    with pytest.raises(AwaitedInVain, match="still waiting for the moon; there is cheese"):
        wait_until("the moon", 0.01, lambda: NotYet("cheese"), every=0.005)


def test_env_files_are_read_as_a_shell_would() -> None:
    assert _parse("# hello\nexport A_B='x y'\nC=1\n") == {"A_B": "x y", "C": "1"}
