"""`kappa verify`: no difference where there is none, and every kind of damage is found and named."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

from blocks.object_store import Place, parquet_of
from blocks.segment_keys import parse_segment_key
from blocks.world import World, WorldMaker

TABLES = ("windows_1m", "anomalies", "quality_1m")


def test_damage_is_found_and_named(make_world: WorldMaker) -> None:
    world = make_world(partitions=2)
    _run_with_a_crash(world)
    good = _verified(world)
    assert good["complete"] and good["differences"] == 0
    examined = {check["check"]: check["examined"] for check in good["checks"]}
    assert examined["chain"]["rows"] == len(world.sent.accepted()) == good["events"]
    assert examined["chain"]["rejects"] == examined["dead_letters"]["records"] == len(world.sent.rejected())
    assert examined["dead_letters"]["records equal to the log's"] == len(world.sent.rejected())
    assert examined["log"]["records"] == len(world.sent.accepted()) + len(world.sent.rejected())
    assert examined["windows"]["windows recomputed"] > 50 and examined["windows"]["late contributions recomputed"] > 10
    again = len(world.sent.accepted()) - len(world.sent.counted())
    assert examined["duplicates"] == {"readings": good["events"], "duplicates": again} and again > 10
    assert examined["quality"]["rows"] > 50 and examined["quality"]["segments"] == len(world.archive_place.keys())
    assert examined["anomalies"]["flags recomputed"] > 0 and examined["view"]["windows in a sample"] > 20

    _damage_to_the_archive(world)
    _damage_to_dead_letters_and_state(world)
    _damage_to_the_hot_store(world)
    _committed_ahead_of_durable(world)


def test_a_running_deployment_has_no_differences(make_world: WorldMaker) -> None:
    """What is not yet committed is provisional, on every side."""
    world = make_world(partitions=2)
    with world.flowing(seed=72):
        for _ in range(3):
            verification = _verified(world)
            time.sleep(0.7)
    assert verification["differences"] == 0


def test_windows_of_a_time_range(make_world: WorldMaker) -> None:
    world = make_world(partitions=1)
    kappa = world.start({"checkpoint": {"interval": "1s"}})
    kappa.wait_until_ready()
    stream = world.stream(seed=73)
    # Segments with times that lie apart, so that some can be left out.
    for _ in range(4):
        world.producer.send(stream.take(1_500))
        world.wait_until_committed()
    assert kappa.terminate() == 0
    times = sorted(fate.event["event_time"] for _, fate in world.sent.accepted().values())
    shared_ms = times[len(times) // 2] // world.window_ms * world.window_ms
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(shared_ms // 1000 + 1))
    whole, first, second = _verified(world), _verified(world, "--to", moment), _verified(world, "--from", moment)
    assert whole["complete"] and not first["complete"] and not second["complete"]

    def rows(verification: dict[str, Any]) -> int:
        return _check(verification, "windows")["examined"]["rows"]

    # The window that holds the moment is compared in both.
    in_both = sum(row["window_start_ms"] == shared_ms for row in world.hot_store.rows(world.topic))
    assert in_both > 0 and rows(first) + rows(second) == rows(whole) + in_both
    assert any("flagged" in because for because in _check(second, "anomalies")["not_checked"])
    assert world.kappa_verify("--from", "yesterday").code == 2


def _run_with_a_crash(world: World) -> None:
    stream = world.stream(seed=71)
    kappa = world.start({"checkpoint": {"interval": "1s"}})
    kappa.wait_until_ready()
    # At least so many segments.
    for _ in range(3):
        world.producer.send(stream.take(1_500))
        world.wait_until_committed()
    world.producer.send(stream.take(2_000))
    kappa.kill()
    kappa = world.start()
    world.producer.send(stream.take(2_000))
    world.wait_until_committed()
    assert kappa.terminate() == 0


def _damage_to_the_archive(world: World) -> None:
    place = world.archive_place
    segments = [sorted(key for key in place.keys() if f"/{partition:05}-" in key) for partition in range(2)]
    assert min(map(len, segments)) >= 3, segments
    first, second, third = segments[0][:3]
    start, end = _start_of(second), _start_of(third)
    # The same object again, under another offset and under another hour.
    last = segments[1][-1]
    moved = last.replace(f"{_start_of(last):020}", f"{_start_of(last) + 1:020}")

    damage = {second: None, segments[1][1]: place.read(segments[1][1])[:-1_000], moved: place.read(last)}
    with _replaced(place, damage | {f"{world.topic}/notes.txt": b"?"}):
        found = _differing(world)
        assert f"partition 0: no segment begins at {start}; the next one begins at {end}" in found["chain"]
        assert f"{segments[1][1]}: it is not a readable Parquet file" in found["chain"]
        assert f"{moved}: its key says" in found["chain"]
        assert "notes.txt is not the key of a segment" in found["strays"]
    with _replaced(place, {first: None}):
        assert "--archive-expires" in _differing(world)["chain"]
        # Announced, it is no difference; what cannot be checked is said.
        expired = _verified(world, "--archive-expires")
        assert not expired["complete"] and any("older segments" in note for note in _check(expired, "chain")["notes"])
    with _replaced(place, {second: _marks_exchanged(place.read(second))}):
        told = _differing(world)["duplicates"]
        assert "was there before, but is not marked" in told and "is marked as a duplicate, but was not there before" in told
    with _replaced(place, {second: _marks_gone(place.read(second))}):
        assert "0 rows are marked as duplicates, its footer says" in _differing(world)["chain"]
    other_hour = re.sub(r"hour=\d\d", "hour=00" if "hour=23" in last else "hour=23", last)
    with _replaced(place, {second: _changed_value(place.read(second)), other_hour: place.read(last)}):
        found = _differing(world)
        assert "partition 0, " in found["windows"] and "sum " in found["windows"]
        assert "lies inside the range of the segment" in found["strays"]


def _damage_to_dead_letters_and_state(world: World) -> None:
    place = world.dead_letter_place
    missing, changed, misjudged, shortened, *_ = sorted(place.keys())
    tables = {key: parquet_of(place.read(key)).read() for key in (changed, misjudged, shortened)}
    values, reasons = tables[changed]["value"].to_pylist(), tables[misjudged]["reason"].to_pylist()
    unexplained = missing.replace(f"{_start_of(missing):020}", f"{10**9:020}")
    damage = {
        missing: None,
        changed: _with_column(tables[changed], "value", [b"changed", *values[1:]]),
        misjudged: _with_column(tables[misjudged], "reason", ["tombstone!", *reasons[1:]]),
        shortened: _parquet(tables[shortened].slice(1)),
        unexplained: place.read(missing),
    }
    with _replaced(place, damage):
        found = _differing(world)
        offset = tables[changed]["offset"].to_pylist()[0]
        assert f"{missing}: the object is missing" in found["dead_letters"]
        assert f"offset {offset}: dead letter: its value is not that of the log's record" in found["dead_letters"]
        assert f"{misjudged}: offset" in found["dead_letters"] and "has the reason tombstone!" in found["dead_letters"]
        assert f"{shortened}: 1 of " in found["dead_letters"]
        assert f"{unexplained}: there is no such segment" in found["strays"]

    place = world.state_place
    committed = world.committed()
    keys = [f"{world.topic}/{partition:05}/{committed[partition]:020}.snapshot" for partition in range(2)]
    between = f"{world.topic}/00000/{committed[0] - 1:020}.snapshot"
    with _replaced(place, {keys[0]: None, keys[1]: place.read(keys[1])[:-9], between: place.read(keys[0])}):
        found = _differing(world)
        assert f"partition 0: {committed[0]} is committed, but there is no snapshot" in found["committed"]
        assert f"partition 1: {committed[1]} is committed, but its snapshot" in found["committed"]
        assert f"there is a snapshot at {committed[0] - 1}, where no segment ends" in found["strays"]


def _damage_to_the_hot_store(world: World) -> None:
    store = world.hot_store
    for table in TABLES:
        store.execute(f"CREATE TABLE {store.database}.{table}_kept AS {store.database}.{table}")
        store.execute(f"INSERT INTO {store.database}.{table}_kept SELECT * FROM {store.database}.{table} FINAL")
    rows = f"SELECT * FROM {store.database}.windows_1m FINAL WHERE partition = 0 AND closed"
    counted, moved, missing = store.query(f"{rows} AND segment = -1 ORDER BY sensor_id, metric, window_start LIMIT 3")
    late, late_missing = store.query(f"{rows} AND segment >= 0 ORDER BY sensor_id, metric, window_start LIMIT 2")
    flag, flag_missing = store.query(f"SELECT * FROM {store.database}.anomalies FINAL ORDER BY partition, offset LIMIT 2")

    segments = store.query(f"SELECT DISTINCT segment FROM {store.database}.quality_1m WHERE partition = 0 ORDER BY segment LIMIT 3")
    more, gone, other = (row["segment"] for row in segments)
    _restore(world, "quality_1m", f"NOT (partition = 0 AND segment = {gone})")
    one_of = f"partition = 0 AND segment = {{}} AND accepted > 0 ORDER BY minute, site, metric LIMIT 1"
    _insert(world, "quality_1m", "accepted + 1 AS accepted, version + 1 AS version", one_of.format(more))
    _insert(world, "quality_1m", "missing - 7 AS missing", one_of.format(other))
    _insert(world, "quality_1m", "segment + 1 AS segment", one_of.format(other))
    _restore(world, "windows_1m", f"NOT ({_same_row(missing)}) AND NOT ({_same_row(late_missing)})")
    _restore(world, "anomalies", f"NOT ({_same_flag(flag_missing)})")
    for row, change in (
        (counted, "count + 1 AS count, version + 1 AS version"),
        (moved, "last_value + 1 AS last_value, version + 1 AS version"),
        (late, "sum + 0.001 AS sum"),
        (counted, "'nobody' AS sensor_id"),
        (counted, "7 AS partition"),
    ):
        _insert(world, "windows_1m", change, _same_row(row))
    _insert(world, "anomalies", "offset - 1 AS offset", _same_flag(flag))
    found = _differing(world)
    assert f"partition 0, segment {more}: site " in found["quality"] and ": its version is " in found["quality"], found
    assert ": accepted " in found["quality"], found
    assert f"partition 0, segment {gone}: quality_1m has no row of it" in found["quality"], found
    assert f"partition 0, segment {other}: site " in found["quality"] and ": missing " in found["quality"], found
    assert f"partition 0, segment {int(other) + 1}: quality_1m has rows of it, but there is no such segment" in found["quality"], found
    count, last_value = int(counted["count"]), moved["last_value"]
    assert f"{_place(counted)}: count {count} expected, {count + 1} found" in found["windows"], found
    assert f"{_place(moved)}: last_value {last_value}" in found["windows"], found
    assert f"{_place(missing)}: the row is missing" in found["windows"], found
    assert f"{_place(late)}: sum " in found["windows"], found
    assert f"{_place(late_missing)}: the row is missing" in found["windows"], found
    assert f"nobody/{counted['metric']}" in found["windows"], found
    assert "partition 7: 1 rows are in the tables; the topic has no such partition" in found["strays"]
    at = f"partition {flag['partition']}, offset {int(flag['offset']) - 1}"
    assert f"{at}: flagged as {flag['kind']}" in found["anomalies"]
    at = f"partition {flag_missing['partition']}, offset {flag_missing['offset']}"
    assert f"{at}: {flag_missing['sensor_id']}" in found["anomalies"] and "but not flagged" in found["anomalies"]
    for table in TABLES:
        _restore(world, table, "1")

    # The view is asked as people ask it.
    named = f"database = '{store.database}' AND name = 'windows'"
    sql = str(store.query(f"SELECT create_table_query AS sql FROM system.tables WHERE {named}")[0]["sql"])
    sql = sql.replace("CREATE VIEW", "CREATE OR REPLACE VIEW")
    assert "sum(sum) AS total" in sql, sql
    store.execute(sql.replace("sum(sum) AS total", "sum(sum) + 1 AS total"))
    assert "sum " in _differing(world)["view"]
    store.execute(sql)


def _committed_ahead_of_durable(world: World) -> None:
    committed = world.committed()[0]
    world.producer.send(world.stream(seed=74).take(200))
    ahead = world.sent.end_offsets()[0]
    _commit(world, ahead)
    assert f"{ahead} is committed, but the archive ends at {committed}" in _differing(world)["committed"]
    _commit(world, committed)
    # All damage is mended.
    assert _verified(world)["differences"] == 0


def _commit(world: World, offset: int) -> None:
    request = ConsumerGroupTopicPartitions(world.group, [TopicPartition(world.topic, 0, offset)])
    world.admin.alter_consumer_group_offsets([request])[world.group].result(30)


def _verified(world: World, *arguments: str) -> dict[str, Any]:
    result = world.kappa_verify("--json", *arguments)
    assert result.code == 0, f"kappa verify ended with {result.code}: {result.text}"
    return json.loads(result.stdout)


def _differing(world: World) -> dict[str, str]:
    """The sentences of each check, where some check must find something."""
    result = world.kappa_verify("--json")
    assert result.code == 1, f"kappa verify ended with {result.code}: {result.text}"
    checks = json.loads(result.stdout)["checks"]
    assert any(check["differences"] for check in checks)
    return {check["check"]: "\n".join(difference["sentence"] for difference in check["first"]) for check in checks}


def _check(verification: dict[str, Any], name: str) -> dict[str, Any]:
    return next(check for check in verification["checks"] if check["check"] == name)


@contextmanager
def _replaced(place: Place, changes: dict[str, bytes | None]) -> Iterator[None]:
    """For the time of a block objects are other ones, or gone."""
    there = set(place.keys())
    before = {key: place.read(key) if key in there else None for key in changes}
    _put(place, changes)
    yield
    _put(place, before)


def _put(place: Place, objects: dict[str, bytes | None]) -> None:
    for key, content in objects.items():
        if content is None:
            place.delete(key)
        else:
            place.write(key, content)


def _start_of(key: str) -> int:
    return parse_segment_key(key).start


def _insert(world: World, table: str, change: str, condition: str) -> None:
    """More rows, or newer ones."""
    database = world.hot_store.database
    rows = f"SELECT * REPLACE ({change}) FROM (SELECT * FROM {database}.{table}_kept WHERE {condition})"
    world.hot_store.execute(f"INSERT INTO {database}.{table} {rows}")


def _restore(world: World, table: str, condition: str) -> None:
    database = world.hot_store.database
    world.hot_store.execute(f"TRUNCATE TABLE {database}.{table}")
    world.hot_store.execute(f"INSERT INTO {database}.{table} SELECT * FROM {database}.{table}_kept WHERE {condition}")


def _same_row(row: dict[str, Any]) -> str:
    names = ("sensor_id", "metric", "window_start", "partition", "segment")
    return " AND ".join(f"{name} = '{row[name]}'" for name in names)


def _same_flag(flag: dict[str, Any]) -> str:
    return f"offset = {flag['offset']} AND partition = {flag['partition']}"


def _place(row: dict[str, Any]) -> str:
    kind = "own row" if int(row["segment"]) == -1 else f"late contribution of segment {row['segment']}"
    return f"partition 0, {row['sensor_id']}/{row['metric']}, window {row['window_start'].replace(' ', 'T')}Z, {kind}"


def _changed_value(content: bytes) -> bytes:
    """One value of a segment another one; the footer as it was."""
    table = parquet_of(content).read()
    values = table["value"].to_pylist()
    return _with_column(table, "value", [values[0] + 1, *values[1:]])


def _marks_exchanged(content: bytes) -> bytes:
    """The mark of a duplicate on its neighbour: as many as the footer says."""
    table = parquet_of(content).read()
    marks = table["_duplicate"].to_pylist()
    at = next(row for row, (one, next_one) in enumerate(zip(marks, marks[1:], strict=False)) if one != next_one)
    marks[at], marks[at + 1] = marks[at + 1], marks[at]
    return _with_column(table, "_duplicate", marks)


def _marks_gone(content: bytes) -> bytes:
    table = parquet_of(content).read()
    return _with_column(table, "_duplicate", [False] * len(table))


def _with_column(table: pa.Table, name: str, values: list[object]) -> bytes:
    index = table.column_names.index(name)
    return _parquet(table.set_column(index, table.schema.field(index), pa.array(values, table.schema.field(index).type)))


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()
