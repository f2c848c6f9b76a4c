"""The commands around the pipeline, on the real stack: what they do, and their exit codes, good and bad."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from blocks.schemas import INCOMPATIBLE_SCHEMA, READER_SCHEMA
from blocks.stack import REPOSITORY
from blocks.world import World, WorldMaker

# Nobody listens there: port 1 needs privileges that no test service has.
NOWHERE = "127.0.0.1:1"


def test_migrate_twice(make_world: WorldMaker) -> None:
    world = make_world(partitions=1, migrated=False)
    file = str(world.write_config())
    first = world.command("migrate", "--config", file)
    assert first.code == 0 and "applied" in first.stdout, first.text
    tables = world.hot_store.tables()
    assert {"windows_1m", "anomalies", "windows"} <= tables
    record = f"SELECT * FROM {world.hot_store.database}.schema_migrations ORDER BY version"
    recorded = world.hot_store.query(record)

    second = world.command("migrate", "--config", file)
    assert second.code == 0 and "applied" not in second.stdout, second.text
    assert world.hot_store.tables() == tables
    assert world.hot_store.query(record) == recorded


def test_migrate_needs_a_clickhouse(make_world: WorldMaker) -> None:
    world = make_world(partitions=1, migrated=False)
    file = world.write_config({"hot_store": {"url": f"http://{NOWHERE}"}})
    result = world.command("migrate", "--config", str(file))
    assert result.code == 1 and NOWHERE in result.stderr, result.text


def _schema_file(directory: Path, schema: Any) -> str:
    file = directory / "schema.avsc"
    file.write_text(schema if isinstance(schema, str) else json.dumps(schema))
    return str(file)


def test_schema_register_gives_the_id_that_the_registry_has(make_world: WorldMaker) -> None:
    world = make_world(partitions=1, migrated=False)
    file, subject = str(world.write_config()), f"{world.topic}-fresh"
    avsc = str(REPOSITORY / "schemas" / "sensor-reading.avsc")
    assert world.registry.versions(subject) == []
    first = world.command("schema", "register", "--config", file, "--subject", subject, avsc)
    assert first.code == 0, first.text
    # The same content has one id, whatever the subject.
    assert str(world.registry.register(subject, READER_SCHEMA)) in first.stdout.split()
    assert world.registry.versions(subject) == [1]
    second = world.command("schema", "register", "--config", file, "--subject", subject, avsc)
    assert (second.code, second.stdout) == (0, first.stdout)
    assert world.registry.versions(subject) == [1]


def test_schema_register_refuses_what_the_pipeline_could_not_read(make_world: WorldMaker) -> None:
    world = make_world(partitions=1, migrated=False)
    subject = f"{world.topic}-unreadable"
    avsc = _schema_file(world.directory, INCOMPATIBLE_SCHEMA)
    result = world.command("schema", "register", "--config", str(world.write_config()), "--subject", subject, avsc)
    assert result.code == 1 and "value" in result.stderr, result.text
    assert world.registry.versions(subject) == []


def test_schema_check_registers_nothing(make_world: WorldMaker) -> None:
    world = make_world(partitions=1, migrated=False)
    file, subject = str(world.write_config()), f"{world.topic}-value"
    versions = world.registry.versions(subject)
    newer = copy.deepcopy(READER_SCHEMA)
    newer["fields"].append({"name": "firmware", "type": "string", "default": ""})
    checks = [(newer, 0), (READER_SCHEMA, 0), (INCOMPATIBLE_SCHEMA, 1), ("{not json", 1), ({"type": "string"}, 1)]
    for schema, code in checks:
        result = world.command("schema", "check", "--config", file, _schema_file(world.directory, schema))
        assert result.code == code, f"{schema} gave {result.code}: {result.text}"
    missing = world.command("schema", "check", "--config", file, str(world.directory / "nowhere.avsc"))
    assert missing.code == 2 and "nowhere.avsc" in missing.stderr
    assert world.registry.versions(subject) == versions


def _doctor(world: World, changes: dict | None = None) -> tuple[int, dict[str, str], str]:
    """Exit code, outcome by check, and all that was said."""
    result = world.command("doctor", "--json", "--config", str(world.write_config(changes)), timeout=90)
    assert result.stdout.strip(), result.text
    checks = json.loads(result.stdout)["checks"]
    for check in checks:
        assert check["outcome"] == "ok" or check["advice"], f"no advice for {check}"
    return result.code, {check["name"]: check["outcome"] for check in checks}, result.text


def test_the_doctor_finds_a_good_stack_healthy(make_world: WorldMaker) -> None:
    world = make_world(partitions=1)
    code, outcomes, text = _doctor(world)
    assert code == 0, text
    assert "fail" not in outcomes.values(), text
    assert world.archive_place.keys() == world.dead_letter_place.keys() == world.state_place.keys() == []
    assert not world.group_exists(), "the doctor has joined the group"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kafka": {"brokers": NOWHERE}}, ("kafka",)),
        ({"kafka": {"topic": "no-such-topic"}}, ("no-such-topic",)),
        ({"registry": {"url": f"http://{NOWHERE}/apis/ccompat/v7"}}, ("registry",)),
        ({"archive": {"url": "s3://no-such-bucket/x"}}, ("archive", "no-such-bucket")),
        ({"object_store": {"endpoint": f"http://{NOWHERE}"}}, ("archive", "dead", "state")),
        ({"hot_store": {"url": f"http://{NOWHERE}"}}, ("hot",)),
        ({"hot_store": {"database": "never_migrated"}}, ("never_migrated",)),
        ({"limits": {"memory": "4TiB"}}, ("memory",)),
    ],
    ids=["brokers", "topic", "registry", "bucket", "S3 endpoint", "ClickHouse", "tables", "memory"],
)
def test_the_doctor_finds_the_one_thing_that_is_broken(make_world: WorldMaker, changes: dict, words: tuple[str, ...]) -> None:
    world = make_world(partitions=1)
    code, outcomes, text = _doctor(world, changes)
    failed = {name for name, outcome in outcomes.items() if outcome == "fail"}
    assert code == 1 and failed, text
    said = text.lower()
    assert all(word in said for word in words), f"{words} in {text}"
