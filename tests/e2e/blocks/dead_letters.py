"""The dead letters of a topic: every rejected record once, untouched, with the right reason."""

from __future__ import annotations

from .archive import Archive
from .object_store import Place, header_pairs, parquet_of, python_rows
from .records import SentLog
from .segment_keys import is_beside_dead_letters, parse_segment_key

COLUMNS = ["topic", "partition", "offset", "timestamp", "key", "value", "headers", "schema_id", "reason", "detail", "attempt"]

DeadLetters = dict[tuple[int, int], dict[str, object]]


def read_dead_letters(place: Place, topic: str) -> DeadLetters:
    letters: DeadLetters = {}
    for key, content in place.read_all().items():
        if is_beside_dead_letters(key):
            continue
        parsed = parse_segment_key(key)
        table = parquet_of(content).read()
        assert parsed.topic == topic, f"{key} is of another topic"
        assert table.column_names == COLUMNS, f"{key} has columns {table.column_names}"
        assert table.num_rows > 0, f"{key} is empty"
        for row in python_rows(table):
            row |= {"object": key, "segment_start": parsed.start}
            at = (int(str(row["partition"])), int(str(row["offset"])))
            assert at[0] == parsed.partition, f"{key} holds a record of partition {at[0]}"
            assert at not in letters, f"{at[0]}@{at[1]} is in {key} and in {letters[at]['object']}"
            letters[at] = row
    return letters


def check_dead_letters(letters: DeadLetters, sent: SentLog, archive: Archive) -> None:
    rejected = sent.rejected()
    missing, surplus = set(rejected) - set(letters), set(letters) - set(rejected)
    assert not missing, f"{len(missing)} rejects have no dead letter: {[(at, rejected[at][1]) for at in sorted(missing)[:5]]}"
    assert not surplus, f"{len(surplus)} dead letters of good records: {[(at, letters[at]) for at in sorted(surplus)[:3]]}"
    for (partition, offset), (record, fate) in rejected.items():
        letter = letters[partition, offset]
        found = {name: letter[name] for name in COLUMNS if name != "detail"}
        found["headers"] = header_pairs(letter["headers"])
        expected = {
            "topic": sent.topic,
            "partition": partition,
            "offset": offset,
            "timestamp": record.timestamp_ms,
            "key": record.key,
            "value": record.value,
            "headers": record.headers,
            "schema_id": fate.schema_id,
            "reason": fate.reason,
            "attempt": fate.attempt,
        }
        assert found == expected, f"dead letter {partition}@{offset}: found {found}, expected {expected}"
        assert str(letter["detail"]).strip(), f"dead letter {partition}@{offset} has no sentence"
    _check_places(letters, archive)


def _check_places(letters: DeadLetters, archive: Archive) -> None:
    """A dead letter lies in the object of its segment, in the same hour."""
    for (partition, offset), letter in letters.items():
        homes = [segment for segment in archive.segments[partition] if segment.key.start <= offset < segment.end]
        assert len(homes) == 1, f"{partition}@{offset} is in {len(homes)} segments"
        assert parse_segment_key(str(letter["object"])) == homes[0].key, (
            f"dead letter {partition}@{offset} is in {letter['object']}, its segment is {homes[0].key}"
        )
