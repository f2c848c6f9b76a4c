"""The whole life of a dead letter: found, looked at, explained, sent again once and never twice, purged."""

from __future__ import annotations

import json
import math
import signal
import struct
import time
from collections import Counter
from collections.abc import Callable

import pytest

from blocks.broken import MAX_RECORD_BYTES, body_with, breakers_for
from blocks.kappa_process import KappaProcess
from blocks.records import Accepted, PlannedRecord, Rejected
from blocks.redrives import DeadLetterQueue, Expected, Place
from blocks.schemas import UNKNOWN_ID, frame
from blocks.segment_keys import HOUR_MS, date_and_hour, parse_segment_key
from blocks.waiting import Found, NotYet, wait_until
from blocks.world import World, WorldMaker


def _now_ms() -> int:
    return int(time.time() * 1000)


def _poison(world: World, partition: int, value: bytes | None, reason: str, schema_id: int | None, **changes: object) -> PlannedRecord:
    fields: dict = {"key": b"sensor-x", "headers": (("producer", b"gateway-7"),), "timestamp_ms": _now_ms()}
    return PlannedRecord(partition=partition, value=value, fate=Rejected(reason, schema_id), **{**fields, **changes})


def _event(world: World, partition: int) -> dict:
    return {**world.stream(seed=900).valid_event(partition), "sensor_id": "mended", "event_time": _now_ms() - 1_000}


def test_each_kind_of_poison_is_found_shown_and_explained(make_world: WorldMaker) -> None:
    """One of each kind among good records, and two records beside the limits."""
    world = make_world(partitions=1)
    kappa = world.start()
    kappa.wait_until_ready()
    stream = world.stream(seed=901, broken_share=0.0)
    kinds = breakers_for(world.schemas)
    assert len(kinds) >= 35
    for breaker in kinds:
        broken = breaker.make(world.schemas, stream.valid_event(0), _now_ms())
        world.producer.send([PlannedRecord(0, b"sensor", broken.value, broken.headers, _now_ms(), broken.fate), *stream.take(2)])
    same = world.schemas.same
    close = {**_event(world, 0), "attributes": {"blob": "x" * (MAX_RECORD_BYTES - 4_096)}}
    huge = same.framed({**_event(world, 0), "attributes": {"blob": "x" * 900_000}})
    world.producer.send([
        PlannedRecord(0, b"mended", same.framed(close), (), _now_ms(), Accepted(close, same.schema_id)),
        _poison(world, 0, huge, "too_large", same.schema_id),
    ])
    world.wait_until_committed()
    assert kappa.terminate() == 0
    world.verify_everything()

    queue = DeadLetterQueue(world)
    rejected = world.sent.rejected()
    assert queue.counts() == dict(Counter(fate.reason for _, fate in rejected.values()))
    _check_lists(queue, rejected)
    addresses = [f"{partition}/{offset}" for partition, offset in rejected]
    shown = [json.loads(line) for line in queue.run("show", "--json", *addresses).stdout.splitlines()]
    for (place, (record, fate)), exhibit in zip(rejected.items(), shown, strict=True):
        assert exhibit["address"] == f"{place[0]}/{place[1]}" and exhibit["reason"] == fate.reason
        assert exhibit["value_hex"] == (None if record.value is None else record.value.hex()), place
        # Nothing has changed since, so the same is said again.
        assert (exhibit["now"]["verdict"], exhibit["now"].get("reason")) == ("refused", fate.reason), exhibit["now"]
        failure = exhibit["failure"]
        if failure and fate.reason not in ("too_large", "invalid_enum", "incompatible_schema"):
            assert failure["detail"] in exhibit["detail"] or fate.reason == "too_deep", exhibit
    one_of_each = {fate.reason: place for place, (_, fate) in rejected.items()}
    for reason, (partition, offset) in one_of_each.items():
        said = queue.run("explain", f"{partition}/{offset}").stdout
        assert reason in said and "would be refused again" in said and "kappa dlq " in said or "kappa schema" in said, said
        assert "means" in world.command("dlq", "explain", reason).stdout


def _check_lists(queue: DeadLetterQueue, rejected: dict) -> None:
    with_header = queue.json("list", "--by", "header:producer,reason", "--header", "producer=gateway-7", "--samples", "5")
    assert [(group["by"], group["count"]) for group in with_header["groups"]] == [
        ({"header:producer": "gateway-7", "reason": "too_large"}, 1)
    ]
    by_schema = queue.json("list", "--by", "schema,partition")["groups"]
    expected = Counter(str(fate.schema_id) if fate.schema_id is not None else "-" for _, fate in rejected.values())
    assert {group["by"]["schema"]: group["count"] for group in by_schema} == dict(expected)
    assert queue.json("list", "--from", "1h")["count"] == len(rejected) and queue.json("list", "--to", "1h")["count"] == 0
    assert queue.json("list", "--partition", "7")["groups"] == []
    table = queue.run("list").stdout
    assert "REASON" in table and "REDRIVEN" in table and f"{len(rejected)} dead letters" in table
    assert "no reason" in queue.run("list", "--reason", "tombstoned", code=2).stderr
    assert "there is no dead letter 0/999999" in queue.run("show", "0/999999", code=1).stderr


def test_a_record_is_shown_up_to_the_byte_that_cannot_be_read(make_world: WorldMaker) -> None:
    world = make_world(partitions=1)
    same = world.schemas.same
    event = {**_event(world, 0), "unit": "Cel"}
    body = body_with(event, quality=b"\x0c")
    world.producer.send([_poison(world, 0, frame(same.schema_id, body), "invalid_enum", same.schema_id)])
    kappa = world.start()
    world.wait_until_committed()
    assert kappa.terminate() == 0
    queue = DeadLetterQueue(world)
    exhibit = queue.json("show", "0/0")
    # The quality stands right behind the unit.
    at = 5 + body.index(b"Cel") + 3
    assert exhibit["failure"]["value_byte"] == at and exhibit["failure"]["field"] == "quality"
    readable = ["sensor_id", "metric", "event_time", "value", "unit"]
    assert list(exhibit["event"]) == readable
    assert [exhibit["event"][name] for name in readable] == [event[name] for name in readable]
    assert exhibit["schema_text"]["name"] == "SensorReading"
    text = queue.run("show", "0/0").stdout
    assert "[0c]" in text and "quality ✗" in text and "producer: gateway-7" in text


def _mended_story(world: World) -> tuple[list[PlannedRecord], Callable[[Place, PlannedRecord], Expected]]:
    """Records of each kind that can be mended, and what they must be afterwards."""
    same, event = world.schemas.same, _event(world, 0)
    ahead = {**event, "sequence": 5, "event_time": _now_ms() - 60_000}
    nan = {**event, "sequence": 3, "value": math.nan}
    poison = [
        _poison(world, 0, frame(UNKNOWN_ID, same.body({**event, "sequence": 1})), "unknown_schema_id", UNKNOWN_ID),
        _poison(world, 1, frame(UNKNOWN_ID, same.body({**event, "sequence": 2})), "unknown_schema_id", UNKNOWN_ID),
        _poison(world, 0, same.framed(nan), "non_finite_value", same.schema_id),
        _poison(world, 1, same.framed({**event, "sequence": 4}) + b"\x07", "trailing_bytes", same.schema_id),
        # Ahead of its Kafka timestamp; by now its time has come.
        _poison(world, 0, same.framed(ahead), "event_time_in_future", same.schema_id, timestamp_ms=_now_ms() - 20 * 60_000),
        _poison(world, 1, None, "tombstone", None),
    ]
    mended = {
        "unknown_schema_id": lambda record: (frame(same.schema_id, (record.value or b"")[5:]), None),
        "non_finite_value": lambda _record: ((same.framed(nan | {"value": 0.1, "quality": "BAD"})), nan | {"value": 0.1, "quality": "BAD"}),
        "trailing_bytes": lambda record: ((record.value or b"")[:-1], None),
        "event_time_in_future": lambda record: (record.value, ahead),
    }

    def expected(_place: Place, record: PlannedRecord) -> Expected:
        assert isinstance(record.fate, Rejected)
        if record.fate.reason == "tombstone":
            return Expected(None, Rejected("tombstone", None, attempt=record.fate.attempt + 1))
        value, changed = mended[record.fate.reason](record)
        sequences = {"unknown_schema_id": record.partition + 1, "trailing_bytes": 4}
        what = changed or {**event, "sequence": sequences[record.fate.reason]}
        return Expected(value, Accepted(what, same.schema_id))

    return poison, expected


def test_what_is_mended_is_sent_once_and_counted_once(make_world: WorldMaker) -> None:
    world = make_world(partitions=2)
    kappa = world.start()
    kappa.wait_until_ready()
    poison, expected = _mended_story(world)
    world.producer.send(poison + world.stream(seed=902, broken_share=0.0).take(300))
    world.wait_until_committed()
    queue = DeadLetterQueue(world)

    _nothing_happens_without_being_asked(world, queue)
    schema_id = str(world.schemas.same.schema_id)
    report = queue.json("redrive", "--reason", "unknown_schema_id", "--as-schema", schema_id)
    assert (report["selected"], report["sent"], report["batches"]) == (2, 2, 1)
    assert queue.json("redrive", "--reason", "non_finite_value", "--jq", '.value = 0.1 | .quality = "BAD"')["sent"] == 1
    assert queue.json("redrive", "--reason", "trailing_bytes", "--header", "producer=gateway-7", "--jq", ".")["sent"] == 1
    rest = queue.json("redrive", "--all", code=1)
    assert (rest["selected"], rest["sent"], rest["already_sent"]) == (6, 1, 4)
    assert rest["left_out"]["tombstone"]["count"] == 1 and "delete marker" in rest["left_out"]["tombstone"]["example"]
    assert len(queue.take_in(expected)) == 5
    _check_no_lag(world, kappa)
    # Again and again: nothing more is sent.
    again = queue.json("redrive", "--all", "--jq", ".", code=1)
    assert (again["sent"], again["already_sent"], again["left_out"]["not_fixable"]["count"]) == (0, 5, 1)
    assert queue.take_in(expected) == {}
    world.wait_until_committed()
    listed = queue.json("list", "--by", "reason")
    assert (listed["count"], listed["redriven"]) == (6, 5)
    assert queue.json("show", "0/0")["redriven"] is not None

    # The loop guard: what is refused again and again stays where it is.
    assert queue.json("redrive", "--reason", "tombstone", "--even-if-refused")["sent"] == 1
    [(partition, offset)] = queue.take_in(expected).values()
    world.wait_until_committed()
    guarded = queue.json("redrive", f"{partition}/{offset}", "--even-if-refused", "--max-attempts", "1", code=1)
    assert guarded["sent"] == 0 and guarded["left_out"]["max_attempts"]["count"] == 1
    assert queue.json("list", "--by", "attempt", "--reason", "tombstone")["groups"][0]["by"] == {"attempt": "0"}
    assert kappa.terminate() == 0
    world.verify_everything()
    assert "redrive batches" in world.kappa_verify().stdout


def _check_no_lag(world: World, kappa: KappaProcess) -> None:
    """The markers behind the records are nothing that is still to come, with either fetcher."""
    world.wait_until_committed()

    def look() -> Found[None] | NotYet:
        lags = [(line["lag_records"], line["lag_seconds"]) for line in kappa.status()["partitions"]]
        return Found(None) if lags == [(0, 0.0)] * world.partitions else NotYet(f"lag {lags}")

    wait_until("no lag on an idle topic", 10, look)


def _nothing_happens_without_being_asked(world: World, queue: DeadLetterQueue) -> None:
    before = world.end_offsets()
    assert "--all" in queue.run("redrive", code=2).stderr
    assert "expected" in queue.run("redrive", "--all", "--jq", ".value = (", code=2).stderr
    planned = queue.json("redrive", "--reason", "unknown_schema_id", "--as-schema", str(world.schemas.same.schema_id), "--dry-run")
    assert planned["dry_run"] and planned["sent"] == 2
    unmended = queue.json("redrive", "--reason", "unknown_schema_id", "--dry-run", code=1)
    assert unmended["left_out"]["unknown_schema_id"]["count"] == 2
    misfit = queue.json("redrive", "--reason", "non_finite_value", "--jq", '.value = "high"', code=1)
    assert "field `value`" in misfit["left_out"]["not_fixable"]["example"]
    assert queue.json("redrive", "--reason", "non_finite_value", "--jq", "empty")["dropped"] == 1
    file = world.directory / "refused.jsonl"
    queue.run("redrive", "--all", "--even-if-refused", "--to-file", str(file))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    exported = {(line["partition"], line["offset"]): (line["value_hex"], line["reason"]) for line in lines}
    assert exported == {
        place: (record.value.hex() if record.value is not None else None, fate.reason)
        for place, (record, fate) in world.sent.rejected().items()
    }
    assert "not there yet" in queue.run("redrive", "--all", "--to-file", str(file), code=1).stderr
    # Take-overs of the transactional id leave no marker where nothing was sent.
    assert world.end_offsets() == before
    assert not [key for key in world.dead_letter_place.keys() if "_redrive" in key]


def test_a_rule_of_the_contract(make_world: WorldMaker) -> None:
    """A field that makes the event is null in this record: it can be put in."""
    world = make_world(partitions=1)
    measured = {"event": {"value": "battery"}}
    same, event = world.schemas.same, _event(world, 0)
    next_event = {**event, "sequence": event["sequence"] + 1}
    lacking = same.framed({**next_event, "battery": None})
    world.producer.send([
        PlannedRecord(0, b"k", same.framed({**event, "battery": 0.25}), (), _now_ms(), Accepted(event, same.schema_id)),
        _poison(world, 0, lacking, "contract_value_missing", same.schema_id),
    ])
    kappa = world.start(measured)
    world.wait_until_committed()
    queue = DeadLetterQueue(world, measured)
    assert queue.counts() == {"contract_value_missing": 1}
    assert "breaks a rule" in queue.run("explain", "0/1").stdout
    assert queue.json("redrive", "--reason", "contract_*", "--jq", ".battery = 0.5")["sent"] == 1
    full = {**next_event, "battery": 0.5}
    queue.take_in(lambda _place, _record: Expected(same.framed(full), Accepted(full, same.schema_id)))
    world.wait_until_committed()
    assert kappa.terminate() == 0
    [row] = world.hot_store.view()
    assert (row["count"], row["sum"]) == (2, 0.75)
    result = world.command("verify", "--config", str(world.write_config(measured, name="verify")))
    assert result.code == 0, result.text


def test_killed_and_stopped_between_each_two_steps_nothing_is_sent_twice(make_world: WorldMaker) -> None:
    world = make_world(partitions=2)
    same, event = world.schemas.same, _event(world, 0)

    def broken(number: int) -> PlannedRecord:
        value = frame(UNKNOWN_ID, same.body({**event, "sequence": number}))
        return _poison(world, number % 2, value, "unknown_schema_id", UNKNOWN_ID, headers=(("number", str(number).encode()),))

    def expected(_place: Place, record: PlannedRecord) -> Expected:
        number = int(dict(record.headers)["number"] or b"")
        return Expected(frame(same.schema_id, (record.value or b"")[5:]), Accepted({**event, "sequence": number}, same.schema_id))

    world.producer.send([broken(number) for number in range(40)])
    # Aborted transactions and markers are the fetcher's business; the other tests have librdkafka's.
    kappa = world.start({"kafka": {"fetcher": "native"}})
    world.wait_until_committed()
    queue = DeadLetterQueue(world)
    # Batches of three.
    command = ("redrive", "--all", "--as-schema", str(same.schema_id), "--rate", "3")
    sent: dict[Place, Place] = {}
    for place, outcome in (("RedriveIntended:2", "unsent"), ("RedriveProduced:2", "unsent"), ("RedriveCommitted:2", "sent")):
        process = queue.start(*command, environment={"KAPPA_FAIL_POINT": f"{place}:KILL"})
        assert process.wait(30) == -signal.SIGKILL, process.stdout and process.stdout.read()
        assert "was interrupted" in world.kappa_verify().stdout
        # One batch that ends, the one that was killed before it, and whatever that has left open is settled first.
        settled = queue.json(*command, "--limit", "1")["settled"]
        assert list(settled.values()) == [outcome], (place, settled)
        arrived = queue.take_in(expected)
        assert not sent.keys() & arrived.keys(), f"sent twice: {sent.keys() & arrived.keys()}"
        sent |= arrived
    # A process that sleeps through its own replacement.
    sleeper = queue.start(*command, environment={"KAPPA_FAIL_POINT": "RedriveProduced:1:STOP"})
    wait_until("the redrive to stand still", 30, lambda: Found(None) if _is_stopped(sleeper.pid) else NotYet("it runs"))
    rest = queue.json("redrive", "--all", "--as-schema", str(same.schema_id))
    assert list(rest["settled"].values()) == ["unsent"] and rest["already_sent"] + rest["sent"] == 40
    sleeper.send_signal(signal.SIGCONT)
    output, _ = sleeper.communicate(timeout=60)
    assert sleeper.returncode == 1 and "another redrive" in output, output
    arrived = queue.take_in(expected)
    assert not sent.keys() & arrived.keys()
    assert len(sent | arrived) == 40, f"{40 - len(sent | arrived)} records never arrived"
    assert queue.json("redrive", "--all")["already_sent"] == 40
    _check_no_lag(world, kappa)
    assert kappa.terminate() == 0
    world.verify_everything()


def _is_stopped(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "T"


def test_old_dead_letters_are_purged_on_purpose_only(make_world: WorldMaker) -> None:
    world = make_world(partitions=1)
    old = world.stream(seed=905, broken_share=0.5, start_ms=_now_ms() - 5 * HOUR_MS, step_ms=(1, 5))
    new = world.stream(seed=906, broken_share=0.5, start_ms=_now_ms() - 60_000, step_ms=(1, 5))
    world.producer.send(old.take(60) + new.take(60))
    kappa = world.start()
    world.wait_until_committed()
    assert kappa.terminate() == 0
    world.verify_everything()
    queue = DeadLetterQueue(world)
    keys = set(world.dead_letter_place.keys())
    limit = date_and_hour(_now_ms() - 3 * HOUR_MS)
    expired = {key for key in keys if (parse_segment_key(key).date, parse_segment_key(key).hour) < limit}
    assert 0 < len(expired) < len(keys)
    assert "not confirmed" in queue.run("purge", "--older-than", "3h", code=2).stderr
    assert "future" in queue.run("purge", "--older-than", "2100-01-01", "--yes", code=2).stderr
    planned = queue.json("purge", "--older-than", "3h", "--dry-run")
    assert planned["objects"] == len(expired) and set(world.dead_letter_place.keys()) == keys
    assert queue.json("purge", "--older-than", "3h", "--yes")["deleted"] == len(expired)
    left = set(world.dead_letter_place.keys())
    assert keys - left == expired and all("_purge/" in key for key in left - keys)
    assert queue.json("list")["count"] == sum(record.timestamp_ms > _now_ms() - 3 * HOUR_MS for record, _ in world.sent.rejected().values())
    verified = world.kappa_verify()
    assert verified.code == 0 and f"{len(expired)} objects purged" in verified.stdout, verified.text
    # What is missing from a later hour is damage.
    later = max(key for key in left if key.endswith(".parquet"))
    content = world.dead_letter_place.read(later)
    world.dead_letter_place.delete(later)
    damaged = world.kappa_verify()
    assert damaged.code == 1 and "the object is missing" in damaged.stdout
    world.dead_letter_place.write(later, content)


def test_a_partition_of_nothing_but_poison_neither_stalls_nor_grows_nor_delays_its_neighbour(make_world: WorldMaker) -> None:
    world = make_world(partitions=2)
    kappa = world.start({"limits": {"memory": "128MiB"}, "pipeline": {"workers": 1}})
    kappa.wait_until_ready()
    same, kinds = world.schemas.same, breakers_for(world.schemas)
    stream = world.stream(seed=907)
    # Without the ones that take the registry half a second each time, and the one of 64 KiB.
    quick = [kind for kind in kinds if "unknown" not in kind.name and "larger" not in kind.name]
    values = [(broken.value, broken.headers, broken.fate) for broken in (kind.make(world.schemas, stream.valid_event(0), _now_ms()) for kind in quick)]
    # One that decodes and is refused behind that: there is never a row in this partition that somebody could take.
    nan = {**stream.valid_event(0), "value": math.nan, "attributes": {"padding": "x" * 16_000}}
    values += [(same.framed(nan), (), Rejected("non_finite_value", same.schema_id))] * 5
    resident, delays, flooded = [], [], []
    for round_ in range(5):
        flood = [
            PlannedRecord(0, b"poison", *value_and_headers, _now_ms(), fate)
            for number in range(12_000)
            for *value_and_headers, fate in [values[number % len(values)]]
            if fate.reason not in ("event_time_too_old", "event_time_in_future")
        ]
        event = {**stream.valid_event(1), "sensor_id": f"beside-{round_}", "event_time": _now_ms(), "value": float(round_)}
        good = PlannedRecord(1, b"good", same.framed(event), (), _now_ms(), Accepted(event, same.schema_id))
        world.producer.send([*flood[: len(flood) // 2], good, *flood[len(flood) // 2 :]])
        delays.append(_seconds_until_visible(world, event["sensor_id"], event["event_time"] / 1000))
        world.wait_until_committed()
        resident.append(kappa.resident_bytes())
        flooded.append(sum(len(record.value or b"") for record in flood))
    # From when the event happened, while its neighbour is flooded; the producer's own time is in it.
    assert max(delays) < 5, f"a good record beside poison was visible after {delays} s"
    # It takes some rounds until all buffers have their size; by then far more has passed than may be left.
    growth, passed = resident[-1] - resident[1], sum(flooded[2:])
    assert passed > 64 * 2**20 and growth < passed / 2, f"{passed >> 20} MiB of poison have left {growth >> 20} MiB behind: {resident}"
    assert max(resident) < 400 * 2**20, resident
    print(f"visible after {[round(delay, 2) for delay in delays]} s; resident {[size >> 20 for size in resident]} MiB")
    assert kappa.terminate() == 0
    world.verify_everything()


def _seconds_until_visible(world: World, sensor: str, happened: float) -> float:
    def look() -> Found[float] | NotYet:
        seen = any(row["sensor_id"] == sensor for row in world.hot_store.view())
        return Found(time.time() - happened) if seen else NotYet("no window of it")

    return wait_until(f"{sensor} to be visible", 30, look, every=0.1)
