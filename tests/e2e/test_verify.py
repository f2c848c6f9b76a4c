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
from conftest import WorldMaker

from blocks.object_store import Place, parquet_of
from blocks.world import World

TABLES = ("windows_1m", "anomalies")


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
    middle = times[len(times) // 2]
    shown = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(middle // 1000))
    whole, first, second = _verified(world), _verified(world, "--to", shown), _verified(world, "--from", shown)
    assert whole["complete"] and not first["complete"] and not second["complete"]

    def rows(verification: dict[str, Any]) -> int:
        return _check(verification, "windows")["examined"]["rows"]

    # The window that holds the moment is compared in both.
    assert rows(whole) <= rows(first) + rows(second) < rows(whole) + 60, (rows(whole), rows(first), rows(second))
    assert any("flagged" in because for because in _check(second, "anomalies")["not_checked"])
    assert world.kappa_verify("--from", "yesterday").code == 2


def _run_with_a_crash(world: World) -> None:
    stream = world.stream(seed=71)
    kappa = world.start({"checkpoint": {"interval": "1s"}})
    kappa.wait_until_ready()
    world.producer.send(stream.take(4_000))
    world.wait_until_archived_behind({partition: 1 for partition in range(world.partitions)})
    world.producer.send(stream.take(2_000))
    kappa.kill()
    kappa = world.start()
    world.producer.send(stream.take(2_000))
    world.wait_until_committed()
    assert kappa.terminate() == 0


def _damage_to_the_archive(world: World) -> None:
    place = world.archive_place
    segments = sorted(key for key in place.keys() if "/00000-" in key)
    assert len(segments) >= 3, segments
    first, second, last = segments[0], segments[1], segments[-1]
    start, end = (int(re.search(r"-(\d+)\.parquet", key)[1]) for key in (second, segments[2]))

    with _replaced(place, second, None):
        found = _differing(world, "chain")
        assert f"partition 0: no segment begins at {start}; the next one begins at {end}" in found, found
    with _replaced(place, first, None):
        assert "--archive-expires" in _differing(world, "chain")
        # Announced, it is no difference; what cannot be checked is said.
        expired = _verified(world, "--archive-expires")
        assert not expired["complete"] and any("older segments" in note for note in _check(expired, "chain")["notes"])
    with _replaced(place, second, place.read(second)[:-1_000]):
        assert f"archive object {place.prefix}/{second}: it is not a readable Parquet file" in _differing(world, "chain")
    with _replaced(place, second, _changed_value(place.read(second))):
        found = _differing(world, "windows")
        assert f"partition 0" in found and "expected" in found, found
    # The same object again, under another offset and under another hour.
    with _replaced(place, last.replace(".parquet", "").rsplit("-", 1)[0] + f"-{start + 1:020}.parquet", place.read(second)):
        assert "its key says" in _differing(world, "chain")
    other_hour = re.sub(r"hour=\d\d", "hour=23" if "hour=23" not in second else "hour=00", second)
    with _replaced(place, other_hour, place.read(second)):
        found = _differing(world, "strays") + _differing(world, "chain", or_none=True)
        assert "lies inside the range of the segment" in found, found
    with _replaced(place, f"{world.topic}/notes.txt", b"?"):
        assert "notes.txt is not the key of a segment" in _differing(world, "strays")


def _damage_to_dead_letters_and_state(world: World) -> None:
    place = world.dead_letter_place
    key = sorted(place.keys())[0]
    content = place.read(key)
    with _replaced(place, key, None):
        assert "the object is missing" in _differing(world, "dead_letters")
    table = parquet_of(content).read()
    with _replaced(place, key, _with_column(table, "value", [b"changed", *table["value"].to_pylist()[1:]])):
        offset = table["offset"].to_pylist()[0]
        assert f"offset {offset}: dead letter: its value is not that of the log's record" in _differing(world, "dead_letters")
    with _replaced(place, key, _with_column(table, "reason", ["tombstone!"] * table.num_rows)):
        assert "has the reason tombstone!" in _differing(world, "dead_letters")
    with _replaced(place, key, _parquet(table.slice(1))):
        assert "1 of " in _differing(world, "dead_letters")
    with _replaced(place, re.sub(r"-\d{20}", f"-{10**9:020}", key), content):
        assert "there is no such segment" in _differing(world, "strays")

    committed = world.committed()[0]
    place = world.state_place
    key = f"{world.topic}/00000/{committed:020}.snapshot"
    content = place.read(key)
    with _replaced(place, key, None):
        assert f"partition 0: {committed} is committed, but there is no snapshot" in _differing(world, "committed")
    with _replaced(place, key, content[:-9]):
        assert "cannot be used" in _differing(world, "committed")
    with _replaced(place, f"{world.topic}/00000/{committed - 1:020}.snapshot", content):
        assert f"there is a snapshot at {committed - 1}, where no segment ends" in _differing(world, "strays")


def _damage_to_the_hot_store(world: World) -> None:
    store = world.hot_store
    for table in TABLES:
        store.execute(f"CREATE TABLE {store.database}.{table}_kept AS {store.database}.{table}")
        store.execute(f"INSERT INTO {store.database}.{table}_kept SELECT * FROM {store.database}.{table} FINAL")
    own, late = (
        store.query(f"SELECT * FROM {store.database}.windows_1m FINAL WHERE partition = 0 AND closed AND {kind} LIMIT 1")[0]
        for kind in ("segment = -1", "segment >= 0")
    )
    flag = store.query(f"SELECT * FROM {store.database}.anomalies FINAL LIMIT 1")[0]

    for row, kind in ((own, "own row"), (late, f"late contribution of segment {late['segment']}")):
        same = f"sensor_id = '{row['sensor_id']}' AND metric = '{row['metric']}' AND segment = {row['segment']} AND partition = 0"
        same += f" AND window_start = '{row['window_start']}'"
        place = f"{row['sensor_id']}/{row['metric']}, window {row['window_start'].replace(' ', 'T')}Z, {kind}"
        for column, change, sentence in (
            ("count", "count + 1", f"count {row['count']} expected, {int(row['count']) + 1} found"),
            ("sum", "sum + 0.001", "sum "),
            ("last_value", "last_value + 1", "last_value "),
        ):
            with _changed_rows(world, "windows_1m", f"SELECT * REPLACE ({change} AS {column}, version + 1 AS version)", same):
                found = _differing(world, "windows")
                assert place in found and (sentence in found or kind != "own row"), (place, found)
        with _without_rows(world, "windows_1m", same):
            found = _differing(world, "windows")
            assert f"{place}: the row is missing" in found, found
    with _changed_rows(world, "windows_1m", "SELECT * REPLACE ('nobody' AS sensor_id)", f"sensor_id = '{own['sensor_id']}'"):
        assert "nobody/" in _differing(world, "windows")
    with _changed_rows(world, "windows_1m", "SELECT * REPLACE (7 AS partition)", f"sensor_id = '{own['sensor_id']}'"):
        assert "the topic has no such partition" in _differing(world, "strays")
    with _without_rows(world, "anomalies", f"offset = {flag['offset']} AND partition = {flag['partition']}"):
        assert f"partition {flag['partition']}, offset {flag['offset']}: " in _differing(world, "anomalies")
    same = f"offset = {flag['offset']} AND partition = {flag['partition']}"
    with _changed_rows(world, "anomalies", "SELECT * REPLACE (offset - 1 AS offset)", same):
        assert f"offset {int(flag['offset']) - 1}: flagged as" in _differing(world, "anomalies")
    # The view is asked as people ask it.
    definition = store.query(f"SELECT create_table_query AS sql FROM system.tables WHERE database = '{store.database}' AND name = 'windows'")
    sql = str(definition[0]["sql"]).replace("CREATE VIEW", "CREATE OR REPLACE VIEW")
    store.execute(sql.replace("sum(sum) AS total", "sum(sum) + 1 AS total"))
    assert "sum " in _differing(world, "view")
    store.execute(sql)
    assert _verified(world)["differences"] == 0


def _committed_ahead_of_durable(world: World) -> None:
    committed = world.committed()[0]
    world.producer.send(world.stream(seed=74).take(200))
    ahead = world.sent.end_offsets()[0]
    _commit(world, ahead)
    assert f"{ahead} is committed, but the archive ends at {committed}" in _differing(world, "committed")
    _commit(world, committed)
    assert _verified(world)["differences"] == 0


def _commit(world: World, offset: int) -> None:
    request = ConsumerGroupTopicPartitions(world.group, [TopicPartition(world.topic, 0, offset)])
    world.admin.alter_consumer_group_offsets([request])[world.group].result(30)


def _verified(world: World, *arguments: str) -> dict[str, Any]:
    result = world.kappa_verify("--json", *arguments)
    assert result.code == 0, f"kappa verify ended with {result.code}: {result.text}"
    return json.loads(result.stdout)


def _differing(world: World, check: str, or_none: bool = False) -> str:
    """The sentences of a check that must find something."""
    result = world.kappa_verify("--json")
    assert result.code == 1, f"kappa verify ended with {result.code}: {result.text}"
    verification = json.loads(result.stdout)
    found = _check(verification, check)
    assert found["differences"] or or_none, f"{check} finds nothing: {result.stdout}"
    return "\n".join(difference["sentence"] for difference in found["first"])


def _check(verification: dict[str, Any], name: str) -> dict[str, Any]:
    return next(check for check in verification["checks"] if check["check"] == name)


@contextmanager
def _replaced(place: Place, key: str, content: bytes | None) -> Iterator[None]:
    """For the time of a block an object is another one, or gone."""
    before = place.read(key) if key in place.keys() else None
    if content is None:
        place.delete(key)
    else:
        place.write(key, content)
    yield
    if before is None:
        place.delete(key)
    else:
        place.write(key, before)


@contextmanager
def _changed_rows(world: World, table: str, select: str, condition: str) -> Iterator[None]:
    """For the time of a block there are more rows, or newer ones."""
    database = world.hot_store.database
    world.hot_store.execute(f"INSERT INTO {database}.{table} {select} FROM {database}.{table}_kept WHERE {condition}")
    yield
    _restore(world, table, "1")


@contextmanager
def _without_rows(world: World, table: str, condition: str) -> Iterator[None]:
    _restore(world, table, f"NOT ({condition})")
    yield
    _restore(world, table, "1")


def _restore(world: World, table: str, condition: str) -> None:
    database = world.hot_store.database
    world.hot_store.execute(f"TRUNCATE TABLE {database}.{table}")
    world.hot_store.execute(f"INSERT INTO {database}.{table} SELECT * FROM {database}.{table}_kept WHERE {condition}")


def _changed_value(content: bytes) -> bytes:
    """One value of a segment another one; the footer as it was."""
    table = parquet_of(content).read()
    values = table["value"].to_pylist()
    return _with_column(table, "value", [values[0] + 1, *values[1:]])


def _with_column(table: pa.Table, name: str, values: list[object]) -> bytes:
    index = table.column_names.index(name)
    return _parquet(table.set_column(index, table.schema.field(index), pa.array(values, table.schema.field(index).type)))


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()
