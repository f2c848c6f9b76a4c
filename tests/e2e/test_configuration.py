"""A wrong configuration is refused with exit code 2, by the name of the key, before anything is touched."""

from __future__ import annotations

from typing import Any

from blocks.world import World, WorldMaker

# What is set, and the key that must be blamed. `None` takes a key away.
WRONG: list[tuple[str, str, Any, str]] = [
    ("kafka", "brkers", "127.0.0.1:9092", "kafka.brkers"),
    ("kafka", "brokers", None, "kafka.brokers"),
    ("kafka", "brokers", "no-port-here", "kafka.brokers"),
    ("kafka", "start", "yesterday", "kafka.start"),
    ("kafka", "topic", "not a topic!", "kafka.topic"),
    ("kafka", "properties", {"enable.auto.commit": "true"}, "kafka.properties.enable.auto.commit"),
    ("kafka", "properties", {"no.such.property": "1"}, "kafka.properties.no.such.property"),
    ("kafka", "properties", {"sasl.password": "hunter2"}, "kafka.properties.sasl.password"),
    ("registry", "url", None, "registry.url"),
    ("registry", "url", "ftp://registry", "registry.url"),
    ("archive", "url", "s3://", "archive.url"),
    ("dead_letter", "url", "s3://archive/{topic}", "dead_letter.url"),
    ("object_store", "allow_http", False, "object_store.endpoint"),
    ("hot_store", "database", "1-bad", "hot_store.database"),
    ("hot_store", "password_file", "/no/such/file", "hot_store.password_file"),
    ("event", "time", "no_such_field", "event.time"),
    ("event", "key", ["sensor_id", "value"], "event.key"),
    ("event", "schema", "/no/such/schema.avsc", "event.schema"),
    ("contract", "file", "/no/such/contract.yaml", "contract.file"),
    ("windows", "length", "7 minutes", "windows.length"),
    ("windows", "length", "soon", "windows.length"),
    ("checkpoint", "interval", "100ms", "checkpoint.interval"),
    ("limits", "memory", "1MiB", "limits.memory"),
    ("limits", "max_event_age", -5, "limits.max_event_age"),
    ("pipeline", "workers", 0, "pipeline.workers"),
    ("http", "listen", "localhost", "http.listen"),
    ("anomaly", "detector", "magic", "anomaly.detector"),
]


def _write(world: World, section: str, key: str, value: Any, number: int) -> str:
    if isinstance(value, str):
        value = value.replace("{topic}", world.topic)
    file = world.write_config({section: {key: value}} if value is not None else None, f"wrong-{number}")
    if value is None:
        text = file.read_text()
        kept = [line for line in text.splitlines() if not (line.startswith(f"{key} = ") and _section_of(text, line) == section)]
        file.write_text("\n".join(kept) + "\n")
    return str(file)


def _section_of(text: str, line: str) -> str:
    before = text[: text.index(line)]
    return before.rsplit("[", 1)[-1].split("]")[0]


def test_wrong_configurations_are_refused_before_anything_is_touched(make_world: WorldMaker) -> None:
    world = make_world(partitions=1, migrated=False)
    world.producer.send(world.stream(seed=501).take(200))
    complaints = []
    for number, (section, key, value, blamed) in enumerate(WRONG):
        result = world.command("run", "--config", _write(world, section, key, value, number), timeout=30)
        if result.code != 2 or blamed not in result.stderr:
            complaints.append(f"{section}.{key} = {value!r}: exit code {result.code}, says {result.text.strip()[:300]!r}")
        assert "hunter2" not in result.text, "a secret was printed"
    assert not complaints, "\n".join(complaints)

    assert not world.group_exists(), "a consumer group has come into being"
    assert world.archive_place.keys() == world.dead_letter_place.keys() == world.state_place.keys() == []
    assert world.hot_store.tables() == set()


def test_all_problems_are_named_at_once(make_world: WorldMaker) -> None:
    world = make_world(partitions=1, migrated=False)
    wrong = {"limits": {"memory": "lots"}, "windows": {"length": "0s"}, "hot_store": {"urll": "http://x"}}
    result = world.command("config", "check", "--config", str(world.write_config(wrong)))
    assert result.code == 2
    for key in ("limits.memory", "windows.length", "hot_store.urll"):
        assert key in result.stderr, f"{key} is not named: {result.stderr}"


def test_a_missing_file_and_a_wrong_flag_are_wrong_use(make_world: WorldMaker) -> None:
    world = make_world(partitions=1, migrated=False)
    missing = world.command("run", "--config", str(world.directory / "nowhere.toml"))
    assert missing.code == 2 and "nowhere.toml" in missing.stderr, missing.text
    assert world.command("run", "--no-such-flag").code == 2
    assert world.command("no-such-command").code == 2


def test_the_environment_wins_over_the_file(make_world: WorldMaker) -> None:
    world = make_world(partitions=1, migrated=False)
    file = str(world.write_config())
    assert world.command("config", "check", "--config", file).code == 0
    result = world.command("config", "check", "--config", file, environment={"KAPPA__LIMITS__MEMORY": "much"})
    assert result.code == 2 and "KAPPA__LIMITS__MEMORY" in result.stderr, result.text
