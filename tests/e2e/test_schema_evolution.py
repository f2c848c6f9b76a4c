"""Schemas change while records flow: every change that Avro allows, interleaved, and each that it does not."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Container, Iterator
from typing import Any

from blocks.archive import check_chain, check_rejects
from blocks.dead_letters import check_dead_letters
from blocks.evolution import READER, RefusedWriter, compatible_writers, incompatible_writers
from blocks.kappa_process import KappaProcess
from blocks.object_store import parquet_of
from blocks.records import Accepted, PlannedRecord, Rejected
from blocks.resolution import Encoder, decimals, raw_rows
from blocks.schemas import frame
from blocks.verification import check_sensors, check_windows
from blocks.world import World, WorldMaker

RECORDS_OF_EACH = 25


class Fleet:
    """Sensors that write by many schemas at once, their records shuffled, in the log's own time."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        # The schema that the pipeline reads by, and what it calls the fields of an event.
        self.reader: dict[str, Any] = READER
        self.names: dict[str, str] = {}
        self._random = random.Random(seed)
        self._now_ms = int(time.time() * 1000) - 10 * 60_000
        self._sequence = 0
        self.refused: dict[int, RefusedWriter] = {}
        self._subjects = 0

    def register(self, schema: Any, references: tuple[tuple[str, Any], ...] = ()) -> int:
        """By each of the strategies of subject names in turn; which one a schema came by makes no difference."""
        self._subjects += 1
        name = schema.get("name", "none")
        topic = self._world.topic
        subject = [f"{topic}-value-{self._subjects}", f"{topic}.{self._subjects}.{name}", f"{topic}-{name}-{self._subjects}"]
        versions: list[dict[str, Any]] = []
        for named, text in references:
            of_it = f"{topic}-{named}"
            uses = [version for version in versions if version["name"] in json.dumps(text)]
            self._world.registry.register(of_it, text, references=uses)
            versions.append({"name": named, "subject": of_it, "version": 1})
        direct = [version for version in versions if version["name"] in json.dumps(schema)]
        return self._world.registry.register(subject[self._subjects % 3], schema, references=direct)

    def encoder(self, writer: Any) -> Encoder:
        return Encoder(writer, self.reader, self.register(writer.schema, writer.references))

    def upgraded(self, encoders: list[Encoder]) -> list[Encoder]:
        """The same writers, now that the reader is another."""
        return [Encoder(encoder.writer, self.reader, encoder.schema_id) for encoder in encoders]

    def refuse(self, writer: RefusedWriter) -> int:
        schema_id = self.register(writer.schema)
        self.refused[schema_id] = writer
        return schema_id

    def wave(self, encoders: list[Encoder], refused: list[int]) -> list[PlannedRecord]:
        """Records of all of them, one behind the other in no order."""
        turns: list[Encoder | int] = [writer for writer in [*encoders, *refused] for _ in range(RECORDS_OF_EACH)]
        self._random.shuffle(turns)
        return list(self._records(turns))

    def _records(self, turns: list[Encoder | int]) -> Iterator[PlannedRecord]:
        for writer in turns:
            self._now_ms += self._random.randint(20, 400)
            partition = self._random.randrange(self._world.partitions)
            if isinstance(writer, int):
                value = frame(writer, self._random.randbytes(30))
                yield PlannedRecord(partition, None, value, (), self._now_ms, Rejected("incompatible_schema", writer))
                continue
            value = writer.value(self._event(), self._random)
            body = writer.body(value)
            seen = writer.resolved(body)
            seen |= {role: seen[name] for role, name in self.names.items()}
            fate = Accepted(seen, writer.schema_id, writer.extra(value))
            yield PlannedRecord(partition, None, frame(writer.schema_id, body), (), self._now_ms, fate)

    def _event(self) -> dict[str, Any]:
        chosen = self._random
        return {
            "sensor_id": f"sensor-{chosen.randrange(5)}",
            "metric": chosen.choice(["TEMPERATURE", "HUMIDITY", "OTHER"]),
            "event_time": self._now_ms - chosen.choice([0, 0, 100, 20_000]),
            "value": chosen.choice([20.25, 21.0, 22.5]),
            "quality": chosen.choice(["GOOD", "GOOD", "BAD"]),
            "site": chosen.choice([None, "north"]),
        }


def _reads_by(world: World, reader: dict[str, Any], name: str = "reader") -> dict[str, dict[str, Any]]:
    file = world.directory / f"{name}.avsc"
    file.write_text(json.dumps(reader, ensure_ascii=False))
    if reader not in world.readers:
        world.readers.append(reader)
    return {"event": {"schema": str(file), "sequence": ""}}


def _check_rows(world: World, roles: Container[str] = ()) -> None:
    """Each accepted record is archived once, each of its fields as fastavro reads it. `roles`: what an event calls a field
    that has another name in the schema by now."""
    accepted = world.sent.accepted()
    seen = set()
    for content in world.archive_place.read_all().values():
        for row in raw_rows(parquet_of(content).read()):
            place = (row["_partition"], row["_offset"])
            record, fate = accepted[place]
            expected = {name: value for name, value in decimals(fate.event).items() if name not in roles or name in row}
            found = {name: row[name] for name in expected}
            where = f"{place}, schema {fate.schema_id}"
            for name, value in expected.items():
                assert _same(found[name], value), f"{where}: `{name}` is {found[name]!r}, fastavro reads {value!r}"
            extra = None if row["_extra"] is None else json.loads(row["_extra"])
            assert extra == fate.extra, f"{where}: _extra is {extra}, expected {fate.extra}"
            assert row["_schema_id"] == fate.schema_id and row["_timestamp"] == record.timestamp_ms, where
            seen.add(place)
    assert seen == set(accepted)


def _same(found: Any, expected: Any) -> bool:
    """Equal, with types, and floats by their bits."""
    if type(found) is not type(expected):
        return False
    if isinstance(found, dict):
        return found.keys() == expected.keys() and all(_same(found[name], expected[name]) for name in found)
    if isinstance(found, (list, tuple)):
        return len(found) == len(expected) and all(map(_same, found, expected))
    return found.hex() == expected.hex() if isinstance(found, float) else found == expected


def _check_told_once(kappa: KappaProcess, fleet: Fleet) -> None:
    """Log, status and metric name each unreadable schema with its field and rule, however many records there were."""
    told = {int(entry["schema"]): entry for entry in kappa.status()["refused_schemas"]}
    assert told.keys() == fleet.refused.keys()
    lines = [line for line in kappa.log().splitlines() if "records of a schema go to the dead letters" in line]
    assert len(lines) == len(fleet.refused), lines
    for schema_id, writer in fleet.refused.items():
        entry = told[schema_id]
        assert (entry["reason"], entry["field"]) == ("incompatible_schema", writer.field), writer.name
        assert entry["rule"] == f"{writer.rule} (Avro 1.12, Schema Resolution)", writer.name
        labels = {"schema": str(schema_id), "reason": entry["reason"], "field": writer.field, "rule": entry["rule"]}
        seen = kappa.metric("kappa_refused_schema_last_seen_timestamp_seconds", **labels)
        assert seen is not None and abs(time.time() - seen) < 60, writer.name
        line = next(line for line in lines if f'schema="{schema_id}"' in line)
        assert writer.rule in line and f'field="{writer.field}"' in line, line


def test_every_change_flows_without_a_restart(make_world: WorldMaker) -> None:
    """Known writers and new ones, record by record behind one another; what cannot be read hurts nobody else."""
    world = make_world()
    kappa = world.start(_reads_by(world, READER))
    kappa.wait_until_ready()
    fleet = Fleet(world, seed=11)
    writers, broken = compatible_writers(), incompatible_writers()
    first = [fleet.encoder(writer) for writer in writers[::2]]
    refused = [fleet.refuse(writer) for writer in broken[::2]]
    world.producer.send(fleet.wave(first, refused))
    # While these flow, others are deployed.
    everyone = first + [fleet.encoder(writer) for writer in writers[1::2]]
    refused += [fleet.refuse(writer) for writer in broken[1::2]]
    world.producer.send(fleet.wave(everyone, refused))
    world.wait_until_committed()
    _check_told_once(kappa, fleet)
    assert kappa.terminate() == 0

    archive, letters = world.read_archive(with_rows=False), world.read_dead_letters()
    check_chain(archive, world.sent)
    check_rejects(archive, world.sent)
    _check_rows(world)
    check_dead_letters(letters, world.sent, archive)
    for letter in letters.values():
        writer = fleet.refused[int(str(letter["schema_id"]))]
        where = f"field `{writer.field}`: " if writer.field else ""
        assert letter["detail"] == f"{where}{writer.rule} (Avro 1.12, Schema Resolution)", writer.name
    check_windows(world.hot_store, world.sent, world.oracle, archive)
    check_sensors(world.hot_store, world.sent)
    result = world.kappa_verify()
    assert result.code == 0, result.text


def _upgraded_reader() -> dict[str, Any]:
    """The next version: fields renamed, one promoted, one gone, two new; and a metric that was OTHER until now."""
    renamed = {"value": "reading", "site": "location"}
    fields: list[dict[str, Any]] = [
        {**field, "name": renamed.get(field["name"], field["name"]), "aliases": [field["name"], *field.get("aliases", [])]}
        if field["name"] in renamed else field
        for field in READER["fields"] if field["name"] != "flag"
    ]  # fmt: skip
    metric = {"type": "enum", "name": "Kind", "aliases": ["Quantity"], "symbols": ["FLOW", "TEMPERATURE", "HUMIDITY", "OTHER"], "default": "OTHER"}
    types = {"metric": metric, "int32": "long"}
    fields = [field | {"type": types[field["name"]]} if field["name"] in types else field for field in fields]
    new = [{"name": "firmware", "type": "string", "default": "unknown"}, {"name": "new_int", "type": ["null", "long"], "default": None}]
    return READER | {"fields": new + fields}


NEW_NAMES = {"value": "reading", "site": "location"}


def test_the_reader_is_upgraded_in_mid_stream(make_world: WorldMaker) -> None:
    """Windows go on over the restart, also where the old process died in the middle of a seal; what was archived before
    and after is verified, and read, as one."""
    world = make_world(partitions=1)
    before = _reads_by(world, READER)
    kappa = world.start(before)
    fleet = Fleet(world, seed=12)
    by_name = {writer.name: writer for writer in compatible_writers()}
    names = ["the same", "fields added in front", "enum symbols that the reader lacks", "much at once", "int to long and double"]
    encoders = [fleet.encoder(by_name[name]) for name in names]
    world.producer.send(fleet.wave(encoders, []))
    world.wait_until_committed()
    assert kappa.terminate() == 0
    assert (result := world.kappa_verify()).code == 0, result.text

    # The old version once more. It dies when its segment is in the archive, and nothing else of it is durable.
    in_the_old_segment = fleet.wave(encoders, [])
    world.producer.send(in_the_old_segment)
    dying = world.start(before, {"KAPPA_FAIL_POINT": "Archived:1:KILL"})
    assert dying.wait_for_end(60) == -signal.SIGKILL, dying.log_tail()
    archived = world.read_archive(with_rows=False).ends()

    fleet.reader, fleet.names = _upgraded_reader(), NEW_NAMES
    after = _reads_by(world, fleet.reader, "upgraded")
    after["event"] |= fleet.names
    upgraded = world.start(after)
    upgraded.wait_until_ready()
    world.producer.send(fleet.wave(fleet.upgraded(encoders), []))
    world.wait_until_committed()
    assert "another version of the reader schema" in upgraded.log(), "nothing was adopted"
    assert upgraded.terminate() == 0
    assert archived == {0: world.sent.end_offsets()[0] - len(names) * RECORDS_OF_EACH}

    archive = world.read_archive(with_rows=False)
    readers = [segment.reader for segment in archive.segments[0]]
    assert readers[0] == READER and readers[-1] == fleet.reader
    check_chain(archive, world.sent)
    check_rejects(archive, world.sent)
    _check_rows(world, roles=NEW_NAMES)
    _check_windows_went_on(world, archived[0])
    check_windows(world.hot_store, world.sent, world.oracle, archive)
    metrics = {fate.event["metric"] for (_, offset), (_, fate) in world.sent.accepted().items() if offset >= archived[0]}
    assert "FLOW" in metrics, "no record shows what the new reader knows"
    result = world.kappa_verify()
    assert result.code == 0, result.text


def _check_windows_went_on(world: World, restarted_at: int) -> None:
    """Some window has events of before and of after in one row."""
    windows = world.oracle.partition(world.sent, 0).on_time.values()
    over_it = [seen for seen in windows if seen[0].offset < restarted_at <= seen[-1].offset]
    assert over_it, "no window was open over the restart"


def test_a_reader_of_other_keys_is_refused(make_world: WorldMaker) -> None:
    """Series would change their meaning: the partition stops and says so, and goes on with the old settings."""
    world = make_world(partitions=1)
    kappa = world.start()
    world.producer.send(world.stream(seed=13, broken_share=0).take(300))
    world.wait_until_committed()
    assert kappa.terminate() == 0
    other = world.start({"event": {"key": "sensor_id"}})
    stopped = other.wait_for_state(0, "stopped_loudly")
    assert "event.key = 2 fields, now it is 1" in stopped["last_error"], stopped
    assert other.terminate() == 1
    again = world.start()
    again.wait_until_ready()
    assert again.terminate() == 0
    world.verify_everything()
