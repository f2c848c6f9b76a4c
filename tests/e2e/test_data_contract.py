"""The data contract: its rules at ingestion, what a change of them leaves alone, and `kappa contract` on the command line."""

from __future__ import annotations

import copy
import json
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from blocks.kappa_process import CommandResult, run_command
from blocks.records import Accepted, PlannedRecord, Rejected
from blocks.redrives import DeadLetterQueue
from blocks.schemas import READER_DEFAULTS, READER_SCHEMA
from blocks.stack import REPOSITORY
from blocks.world import World, WorldMaker

BUILT_IN = REPOSITORY / "schemas" / "sensor-reading.contract.yaml"
OWNER = "sensor-platform@example.com"

# Rules that refuse, by name: field, implementation, a value that breaks it, and the sentence.
REFUSING: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "value_range": (
        "value", {"rule": "range", "by": "metric", "values": {"TEMPERATURE": {"min": -40, "max": 85}, "HUMIDITY": {"min": 0}}},
        {"value": 85.5}, "field `value` is 85.5; -40 to 85 is allowed where `metric` is TEMPERATURE",
    ),
    "sensor_id_length": (
        "sensor_id", {"rule": "length", "min": 3, "max": 12}, {"sensor_id": "zu-lang-für-uns"},
        "field `sensor_id` has 16 bytes; 3 to 12 are allowed",
    ),
    "site_known": (
        "site", {"rule": "allowed", "values": ["north", "south"]}, {"site": "atlantis"},
        'field `site` is "atlantis"; allowed are north, south',
    ),
    "site_there": ("site", {"rule": "required"}, {"site": None}, "field `site` is null, but must be there"),
    "unit_there": ("unit", {"rule": "required"}, {"unit": ""}, "field `unit` is empty, but must not be"),
    "sequence_range": (
        "sequence", {"rule": "range", "min": 0}, {"sequence": -(1 << 62)},
        f"field `sequence` is {-(1 << 62)}; at least 0 is allowed",
    ),
}  # fmt: skip
# Rules that only warn, and a value that breaks each.
WARNING: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "quality_trusted": ("quality", {"rule": "allowed", "values": ["GOOD", "UNCERTAIN"]}, {"quality": "BAD"}),
    "battery_range": ("battery", {"rule": "range", "min": 0, "max": 1}, {"battery": 1.5}),
    "rssi_range": ("rssi", {"rule": "range", "max": 0}, {"rssi": 3.0}),
}


def _now_ms() -> int:
    return int(time.time() * 1000)


def _contract(directory: Path, rules: dict[str, tuple[str, dict[str, Any], str]], name: str, version: str) -> str:
    """The built-in contract with other rules: field, implementation and severity by name."""
    contract = yaml.safe_load(BUILT_IN.read_text())
    contract["version"] = version
    for described in contract["schema"][0]["properties"]:
        if described["name"] != "event_time":
            described["quality"] = [
                {"name": rule, "description": "Of a test.", "type": "custom", "engine": "kappa", "severity": severity,
                 "implementation": implementation}
                for rule, (field, implementation, severity) in rules.items() if field == described["name"]
            ]  # fmt: skip
    file = directory / f"{name}.contract.yaml"
    file.write_text(yaml.safe_dump(contract, allow_unicode=True))
    return str(file)


def _event(number: int, **changes: Any) -> dict[str, Any]:
    plain = {
        **READER_DEFAULTS, "sensor_id": f"sensor-{number % 4}", "metric": "TEMPERATURE", "event_time": _now_ms() - 1_000,
        "value": 20.0 + number % 3, "unit": "Cel", "sequence": number, "site": "north",
    }  # fmt: skip
    return plain | changes


def _record(world: World, event: dict[str, Any], reason: str | None = None) -> PlannedRecord:
    same = world.schemas.same
    fate = Accepted(event, same.schema_id) if reason is None else Rejected(reason, same.schema_id)
    return PlannedRecord(0, event["sensor_id"].encode(), same.framed(event), (), _now_ms(), fate)


def test_each_rule_refuses_or_counts_and_touches_nobody_else(make_world: WorldMaker) -> None:
    world = make_world(partitions=1)
    rules = {name: (field, demand, "error") for name, (field, demand, *_) in REFUSING.items()}
    rules |= {name: (field, demand, "warning") for name, (field, demand, _) in WARNING.items()}
    changes = {"contract": {"file": _contract(world.directory, rules, "strict", "2.0.0")}}
    kappa = world.start(changes)
    kappa.wait_until_ready()
    for name in rules:
        action = "rejected" if name in REFUSING else "warned"
        assert kappa.metric("kappa_contract_violations_total", rule=name, action=action) == 0, "not there before the first"
    told: dict[int, tuple[str, str]] = {}
    refused, warned = Counter(), Counter()
    records: list[PlannedRecord] = []
    for turn in range(4):
        for name, (_, _, broken, sentence) in REFUSING.items():
            told[len(records)] = (f"contract_{name}", sentence)
            records.append(_record(world, _event(len(records), **broken), f"contract_{name}"))
            refused[name] += 1
            records.append(_record(world, _event(len(records))))
        for name, (_, _, broken) in WARNING.items():
            records.append(_record(world, _event(len(records), **broken)))
            warned[name] += 1
        # At a bound, not listed in `by`, and two warnings in one record.
        records.append(_record(world, _event(len(records), value=85.0)))
        records.append(_record(world, _event(len(records), metric="PRESSURE", value=101_325.0)))
        records.append(_record(world, _event(len(records), quality="BAD", battery=-0.5)))
        warned.update(["quality_trusted", "battery_range"])
        # Both: refused, so the warning is not counted.
        told[len(records)] = ("contract_value_range", "field `value` is -1; at least 0 is allowed where `metric` is HUMIDITY")
        records.append(_record(world, _event(len(records), metric="HUMIDITY", value=-1.0, quality="BAD"), "contract_value_range"))
        refused["value_range"] += 1
        # NaN stays what it is.
        records.append(_record(world, _event(len(records), value=float("nan")), "non_finite_value"))
        if turn == 1:
            # Dictionaries of the columns go on over segments, and sensors come that nobody knew.
            world.producer.send(records)
            time.sleep(2.2)
    world.producer.send(records[len(world.sent.partitions.get(0, {})):])
    world.wait_until_committed()
    for name, count in refused.items():
        assert kappa.metric("kappa_contract_violations_total", rule=name, action="rejected") == count, name
        assert kappa.metric("kappa_dead_letters_total", reason=f"contract_{name}") == count, name
    for name, count in warned.items():
        assert kappa.metric("kappa_contract_violations_total", rule=name, action="warned") == count, name
    assert kappa.terminate() == 0
    world.verify_everything()
    letters = world.read_dead_letters()
    for offset, (reason, sentence) in told.items():
        letter = letters[0, offset]
        assert (letter["reason"], letter["detail"]) == (reason, f"{sentence} (rule {reason.removeprefix('contract_')} of the data contract)")
    contracts = {segment.contract for segment in world.read_archive(with_rows=False).segments[0]}
    assert len(contracts) == 1 and str(contracts.pop()).startswith("kappa-sensor-readings 2.0.0 ")

    queue = DeadLetterQueue(world, changes)
    said = queue.run("explain", "0/0").stdout
    for words in ("value_range", "-40 to 85", "kappa-sensor-readings 2.0.0", OWNER, "would be refused again"):
        assert words in said, said
    assert OWNER in queue.run("explain", "contract_site_known").stdout
    assert queue.json("show", "0/0")["now"]["reason"] == "contract_value_range"
    # By the built-in contract the same record would do.
    assert DeadLetterQueue(world).json("show", "0/0")["now"]["verdict"] == "accepted"


def test_a_contract_that_changes_leaves_what_is_archived_alone(make_world: WorldMaker) -> None:
    """Tightened while a segment was archived and not committed, and loosened later: each record keeps its verdict."""
    world = make_world(partitions=1)
    wide: dict[str, tuple[str, dict[str, Any], str]] = {"value_range": ("value", {"rule": "range", "min": 0, "max": 100}, "error")}
    narrow = {"value_range": ("value", {"rule": "range", "min": 0, "max": 50}, "error")}

    def wave(most: float | None) -> list[PlannedRecord]:
        values = [20.0, 70.0, 21.0, 700.0, 22.0] * 4
        over = "contract_value_range"
        return [_record(world, _event(number, value=value), over if most and value > most else None) for number, value in enumerate(values)]

    before = {"contract": {"file": _contract(world.directory, wide, "wide", "1.1.0")}}
    world.producer.send(wave(100))
    dying = world.start(before, {"KAPPA_FAIL_POINT": "Archived:1:KILL"})
    assert dying.wait_for_end(60) == -signal.SIGKILL, dying.log_tail()
    archived = world.read_archive(with_rows=False).ends()
    assert archived == {0: 20} and world.committed().get(0, 0) == 0

    after = {"contract": {"file": _contract(world.directory, narrow, "narrow", "1.2.0")}}
    tightened = world.start(after)
    tightened.wait_until_ready()
    world.producer.send(wave(50))
    world.wait_until_committed()
    assert "replaying a segment that is sealed" in tightened.log()
    # What the footer refused, and what the new rule does.
    assert tightened.metric("kappa_contract_violations_total", rule="value_range", action="rejected") == 4 + 8
    assert tightened.terminate() == 0
    world.verify_everything()

    none = world.start({"contract": {"file": "none"}})
    none.wait_until_ready()
    world.producer.send(wave(None))
    world.wait_until_committed()
    assert none.terminate() == 0
    world.verify_everything()
    for config in (before, after):
        result = world.command("verify", "--config", str(world.write_config(config, "verify")))
        assert result.code == 0, result.text
    contracts = [segment.contract for segment in world.read_archive(with_rows=False).segments[0]]
    versions = [contract and contract.split()[1] for contract in contracts]
    assert list(dict.fromkeys(versions)) == ["1.1.0", "1.2.0", None], contracts


def test_verify_finds_a_row_that_the_contract_in_its_footer_forbids(make_world: WorldMaker) -> None:
    """As if a build with a defect had let it pass: the same footer, the same contract, and a row that breaks a rule."""
    world = make_world(partitions=1)
    rules: dict[str, tuple[str, dict[str, Any], str]] = {
        "value_range": ("value", {"rule": "range", "by": "metric", "values": {"TEMPERATURE": {"max": 50}}}, "warning"),
        "site_there": ("site", {"rule": "required"}, "warning"),
    }
    changes = {"contract": {"file": _contract(world.directory, rules, "lax", "1.0.0")}}
    kappa = world.start(changes)
    world.producer.send([_record(world, _event(0)), _record(world, _event(1, value=51.0)), _record(world, _event(2, site=None))])
    world.wait_until_committed()
    assert kappa.terminate() == 0
    assert (result := world.kappa_verify()).code == 0, result.text
    strict = {name: (field, demand, "error") for name, (field, demand, _) in rules.items()}
    file = _contract(world.directory, strict, "strict", "1.0.0")
    # Another fingerprint, so nothing is judged anew.
    verify = ["verify", "--json", "--config", str(world.write_config({"contract": {"file": file}}, "strict"))]
    assert world.command(*verify).code == 0
    [segment] = world.read_archive(with_rows=False).segments[0]
    label = json.loads(_kappa("check", "--json", file).stdout)["label"]
    _relabel(world, str(segment.contract), label)
    report = world.command(*verify)
    assert report.code == 1, report.text
    assert "offset 1 breaks the rule value_range" in report.stdout and "offset 2 breaks the rule site_there" in report.stdout, report.text


def _relabel(world: World, old: str, new: str) -> None:
    """Writes another contract's name into a footer; it must have as many bytes."""
    assert len(old) == len(new), (old, new)
    [(key, content)] = world.archive_place.read_all().items()
    assert content.count(old.encode()) == 1
    world.archive_place.write(key, content.replace(old.encode(), new.encode()))


# The command line: files alone, no stack.


def _kappa(*arguments: str) -> CommandResult:
    return run_command(["contract", *arguments], {})


def test_check_says_what_is_wrong_and_where(tmp_path: Path) -> None:
    fine = _kappa("check")
    assert fine.code == 0 and "kappa-sensor-readings 1.0.0 with 10 rules fits" in fine.stdout, fine.text
    assert _kappa("check", str(BUILT_IN)).code == 0
    text = BUILT_IN.read_text()
    broken = tmp_path / "broken.yaml"
    broken.write_text(text.replace("by: metric", "by: kind").replace("duration: 30d", "duration: 20d"))
    result = _kappa("check", str(broken))
    lines = text.splitlines()
    line = next(number for number, line in enumerate(lines, 1) if "name: value_range" in line)
    assert result.code == 1, result.text
    assert f"line {line}: schema[0].properties[3].quality[0]: rule value_range: the schema has no field `kind`" in result.stdout
    assert "20days here, 30days in limits.max_event_age" in result.stdout and "2 problems" in result.stdout, result.text
    report = json.loads(_kappa("check", "--json", str(broken)).stdout)
    assert (report["ok"], len(report["problems"])) == (False, 2) and report["problems"][1]["line"] == line
    # The configuration may be what is to be changed.
    agreed = text.replace("duration: 30d", "duration: 20d")
    broken.write_text(agreed)
    assert _kappa("check", str(broken), "-s", "limits.max_event_age=20d").code == 0
    schema = copy.deepcopy(READER_SCHEMA)
    schema["fields"] = [field for field in schema["fields"] if field["name"] != "rssi"] + [{"name": "firmware", "type": "string", "default": ""}]
    other = tmp_path / "other.avsc"
    other.write_text(json.dumps(schema))
    result = _kappa("check", "--schema", str(other))
    assert result.code == 1 and "no field `rssi`" in result.stdout and "does not describe the field `firmware`" in result.stdout, result.text
    for wrong in (["check", "nowhere.yaml"], ["check", "--schema", "nowhere.avsc"], ["check", "-s", f"event.schema={other}"]):
        assert _kappa(*wrong).code == 2, wrong


def test_docs_are_the_page_of_the_repository() -> None:
    result = _kappa("docs")
    assert result.code == 0 and result.stdout == (REPOSITORY / "docs" / "data-contract.md").read_text()
    assert _kappa("docs", "nowhere.yaml").code == 2


@pytest.mark.parametrize("command", [["run"], ["config", "check"]], ids=" ".join)
def test_a_contract_that_cannot_be_judged_stops_the_start(tmp_path: Path, command: list[str]) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text(BUILT_IN.read_text().replace("PRESSURE: {min: 0,", "PRESSURE: {minimum: 0,"))
    needed = {
        "kafka.brokers": "127.0.0.1:1", "registry.url": "http://127.0.0.1:1", "hot_store.url": "http://127.0.0.1:1",
        "archive.url": f"file://{tmp_path}/a", "dead_letter.url": f"file://{tmp_path}/d", "state.url": f"file://{tmp_path}/s",
    }  # fmt: skip
    settings = [part for key, value in needed.items() for part in ("-s", f"{key}={value}")]
    result = run_command([*command, *settings, "-s", f"contract.file={broken}"], {})
    assert result.code == 2, result.text
    assert "contract.file" in result.stderr and "PRESSURE.minimum" in result.stderr and "did you mean min?" in result.stderr, result.text
    line = next(number for number, line in enumerate(broken.read_text().splitlines(), 1) if "minimum" in line)
    assert f"line {line}: " in result.stderr, result.text
