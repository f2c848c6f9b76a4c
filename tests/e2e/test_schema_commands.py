"""`kappa schema check|register|diff|history` on the real registry: the answers of a pull request, and their exit codes."""

from __future__ import annotations

import copy
import json
from typing import Any

from blocks.kappa_process import CommandResult
from blocks.schemas import READER_SCHEMA
from blocks.world import World, WorldMaker

NO_DEFAULT = "the writer does not have the field, and the reader has no default for it"
NOWHERE = "http://127.0.0.1:1"


class Repository:
    """The files and the registry of somebody who wants to change a schema."""

    def __init__(self, make_world: WorldMaker) -> None:
        self.world: World = make_world(partitions=1, migrated=False)
        self.config = str(self.world.write_config())
        self.subject = f"{self.world.topic}-value"

    def file(self, name: str, schema: Any) -> str:
        file = self.world.directory / name
        file.write_text(json.dumps(schema))
        return str(file)

    def kappa(self, command: str, *arguments: str) -> CommandResult:
        return self.world.command("schema", command, "--config", self.config, *arguments)

    def json(self, command: str, *arguments: str, code: int = 0) -> Any:
        result = self.kappa(command, "--json", *arguments)
        assert result.code == code, result.text
        return json.loads(result.stdout)


def _changed(*added: dict[str, Any], without: tuple[str, ...] = (), types: dict[str, Any] | None = None) -> dict[str, Any]:
    schema = copy.deepcopy(READER_SCHEMA)
    fields = [field for field in schema["fields"] if field["name"] not in without]
    fields = [{"name": field["name"], "type": types[field["name"]]} if types and field["name"] in types else field for field in fields]
    return schema | {"fields": fields + list(added)}


FIRMWARE = {"name": "firmware", "type": "string", "default": ""}
MORE_METRICS = {"type": "enum", "name": "Metric", "symbols": ["TEMPERATURE", "HUMIDITY", "PRESSURE", "VIBRATION", "VOLTAGE", "FLOW", "OTHER"], "default": "OTHER"}


def test_check_says_what_a_compatible_change_comes_to(make_world: WorldMaker) -> None:
    repository = Repository(make_world)
    repository.world.registry.set_rule(repository.subject, "FULL")
    v2 = repository.file("v2.avsc", _changed(FIRMWARE, without=("rssi",), types={"metric": MORE_METRICS}))
    result = repository.kappa("check", v2)
    assert result.code == 0, result.text
    said = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert said == [
        f"registry yes: FULL lets it follow version 1 of {repository.subject}",
        "pipeline yes: records of this schema can be read",
        "warning metric `FLOW`: read as `OTHER`, the default of the reader's enum",
        "note firmware the reader does not know the field: kept in `_extra`",
        "note rssi the writer does not have the field; the reader's default is null",
        "changes since version 1",
        "~ metric symbols added: FLOW",
        '+ firmware string, default ""',
        "- rssi null or double",
    ]
    report = repository.json("check", v2)
    assert (report["ok"], report["follows"], report["registry"]["rule"]) == (True, 1, "FULL")
    assert {"verdict": "note", "field": "firmware", "effect": "unknown", "rule": "the reader does not know the field: kept in `_extra`"} in report["pipeline"]["findings"]
    assert repository.world.registry.versions(repository.subject) == [1], "a check has registered something"


def test_check_names_the_field_and_the_rule_of_the_registry(make_world: WorldMaker) -> None:
    repository = Repository(make_world)
    registry, subject = repository.world.registry, repository.subject
    registry.set_rule(subject, "BACKWARD")
    # The registry would not have it, this pipeline could read it.
    demanding = repository.file("demanding.avsc", _changed({"name": "firmware", "type": "string"}))
    result = repository.kappa("check", demanding)
    assert result.code == 1 and f"registry   NO: BACKWARD does not let it follow version 1 of {subject}" in result.stdout, result.text
    assert f"NO       firmware  {NO_DEFAULT}" in result.stdout and "pipeline   yes" in result.stdout, result.text
    report = repository.json("check", demanding, code=1)
    assert (report["registry"]["ok"], report["pipeline"]["ok"]) == (False, True)
    (refused,) = report["registry"]["refused"]
    assert [(finding["field"], finding["rule"]) for finding in refused["findings"]] == [("firmware", NO_DEFAULT)]
    # A transitive rule is about all versions: the second has no `battery`, so only the first stands against a new type.
    registry.register(subject, _changed(without=("battery",)))
    registry.set_rule(subject, "BACKWARD_TRANSITIVE")
    retyped = _changed(types={"battery": ["null", "string"]})
    retyped["fields"] = [field | {"default": None} if field["name"] == "battery" else field for field in retyped["fields"]]
    report = repository.json("check", repository.file("retyped.avsc", retyped), code=1)
    assert [refused["version"] for refused in report["registry"]["refused"]] == [1]
    (finding,) = report["registry"]["refused"][0]["findings"]
    assert (finding["field"], finding["effect"]) == ("battery", "some_refused")


def test_check_knows_what_an_event_needs(make_world: WorldMaker) -> None:
    repository = Repository(make_world)
    repository.world.registry.set_rule(repository.subject, "NONE")
    cases: list[tuple[Any, str, str]] = [
        (_changed(without=("value",)), "value", NO_DEFAULT),
        (_changed(types={"value": "string"}), "value", "the writer's string cannot be read as double"),
        (_changed(types={"event_time": {"type": "long", "logicalType": "timestamp-micros"}}), "event_time",
         "timestamp-micros is read as timestamp-millis: the same number, with another meaning; event.time would be wrong"),
    ]  # fmt: skip
    for number, (schema, field, rule) in enumerate(cases):
        report = repository.json("check", repository.file(f"{number}.avsc", schema), code=1)
        found = [(finding["field"], finding["rule"]) for finding in report["pipeline"]["findings"] if finding["verdict"] == "no"]
        assert found == [(field, rule)]
        refused = repository.kappa("register", repository.file(f"{number}.avsc", schema))
        assert refused.code == 1 and f"field `{field}`: {rule}" in refused.stderr, refused.text
    assert repository.world.registry.versions(repository.subject) == [1]
    # Wrong use is told from a "no".
    missing = repository.kappa("check", "nowhere.avsc")
    assert missing.code == 2 and "nowhere.avsc" in missing.stderr, missing.text
    away = repository.kappa("check", "-s", f"registry.url={NOWHERE}", repository.file("same.avsc", READER_SCHEMA))
    assert away.code == 1 and NOWHERE in away.stderr, away.text


def test_types_of_other_subjects_and_each_strategy(make_world: WorldMaker) -> None:
    repository = Repository(make_world)
    topic, registry = repository.world.topic, repository.world.registry
    position = {"type": "record", "name": "Position", "namespace": topic.replace("-", "_"), "fields": [{"name": "lat", "type": "double"}]}
    name = f"{position['namespace']}.Position"
    registry.register(f"{name}-value", position)
    v2 = repository.file("v2.avsc", _changed({"name": "position", "type": ["null", name], "default": None}))
    reference = ("--reference", f"{name}={name}-value:1")
    without = repository.kappa("check", v2)
    assert without.code == 1 and f"type `{name}` is not defined" in without.stdout, without.text
    # The record's name in front, so that no test meets another's subject.
    record = "kappa.sensors.SensorReading"
    for strategy, subject in [("topic", f"{topic}-value"), ("record", record), ("topic-record", f"{topic}-{record}")]:
        report = repository.json("check", v2, "--strategy", strategy, *reference)
        assert report["subject"] == subject
        if strategy == "record":
            continue
        registered = repository.kappa("register", v2, "--strategy", strategy, *reference)
        assert registered.code == 0 and registered.stdout.startswith(subject), registered.text
        latest = registry.version(subject, "latest")
        assert latest["references"] == [{"name": name, "subject": f"{name}-value", "version": 1}]
    history = repository.json("history")
    assert [version["pipeline"]["ok"] for version in history["versions"]] == [True, True]
    # The rule holds for what refers to others, too.
    registry.set_rule(repository.subject, "BACKWARD")
    v3 = repository.file("v3.avsc", _changed({"name": "position", "type": ["null", name], "default": None}, {"name": "firmware", "type": "string"}))
    refused = repository.json("check", v3, *reference, code=1)["registry"]["refused"]
    assert [finding["field"] for finding in refused[0]["findings"]] == ["firmware"]


def test_diff_and_history(make_world: WorldMaker) -> None:
    repository = Repository(make_world)
    registry, subject = repository.world.registry, repository.subject
    registry.set_rule(subject, "NONE")
    v1, v2 = repository.file("v1.avsc", READER_SCHEMA), repository.file("v2.avsc", _changed(FIRMWARE))
    v3 = repository.file("v3.avsc", _changed(types={"sequence": "string"}))
    same, compatible, broken = (repository.kappa("diff", old, new) for old, new in [(v1, v1), (v1, v2), (v1, v3)])
    assert same.code == 0 and same.stdout.startswith("no change"), same.text
    assert compatible.code == 0 and '+ firmware  string, default ""' in compatible.stdout, compatible.text
    assert broken.code == 1 and "~ sequence  long -> string" in broken.stdout, broken.text
    assert "NO       sequence  the writer's long cannot be read as string" in broken.stdout, broken.text
    registry.register(subject, _changed(FIRMWARE))
    for old, new in [(f"{subject}:1", f"{subject}:latest"), ("reader", v2), (f"{subject}:1", v2)]:
        report = repository.json("diff", old, new)
        assert report["changes"] == [{"field": "firmware", "change": "added", "what": 'string, default ""'}]
    for wrong in [("nowhere.avsc", v1), (v1,)]:
        assert repository.kappa("diff", *wrong).code == 2
    assert repository.kappa("diff", f"{subject}:7", v1).code == 1

    history = repository.json("history")
    assert history["ok"] and [version["version"] for version in history["versions"]] == [1, 2]
    registry.register(subject, json.loads((repository.world.directory / "v3.avsc").read_text()))
    told = repository.kappa("history")
    assert told.code == 1 and "version 3" in told.stdout, told.text
    assert "NO       sequence  the writer's string cannot be read as long" in told.stdout, told.text
    # A reader that could: its union takes both.
    wider = repository.file("wider.avsc", _changed(types={"sequence": ["long", "string"]}))
    assert repository.kappa("history", "-s", f"event.schema={wider}", "-s", "event.sequence=").code == 0
    assert repository.kappa("history", "--subject", "nobody").code == 1
