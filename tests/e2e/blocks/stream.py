"""A mixed stream, the same for the same seed: good records of several writers, late ones, odd keys, broken ones."""

from __future__ import annotations

import random
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from .broken import VALUE_SCHEMA_HEADER, Breaker, breakers_for
from .records import Accepted, Headers, PlannedRecord
from .schemas import READER_DEFAULTS, READER_METRICS, RegisteredSchemas

# A spike must come in a series that the detector knows already, and not right behind another one.
SPIKE_EVERY = 45
SPIKE_VALUE = 1_000_000.0


@dataclass(frozen=True)
class StreamSettings:
    seed: int
    partitions: int
    # Kafka timestamp of the first record.
    start_ms: int
    # The windows that the pipeline is configured with: lateness is measured in them.
    window_ms: int = 60_000
    lateness_ms: int = 30_000
    # Milliseconds of log time from one record of a partition to the next. None: the wall clock's own pace.
    step_ms: tuple[int, int] | None = (20, 160)
    broken_share: float = 0.06
    sensors: int = 6
    # Bytes that no compression makes smaller, in each event.
    padding: int = 0


@dataclass
class _Lane:
    """What one partition remembers of what was written to it."""

    number: int
    now_ms: int
    spiky_events: int = 0
    # Events written lately, whose time another one may repeat.
    recent: deque[tuple[str, str, int]] = field(default_factory=lambda: deque(maxlen=200))
    # What was written just now, of which some is written again.
    newest: deque[PlannedRecord] = field(default_factory=lambda: deque(maxlen=40))


class MixedStream:
    """Plans records without end; the caller takes as many as it sends."""

    def __init__(self, settings: StreamSettings, schemas: RegisteredSchemas) -> None:
        self._settings = settings
        self._schemas = schemas
        self._random = random.Random(settings.seed)
        self._lanes = [_Lane(number, settings.start_ms) for number in range(settings.partitions)]
        self._sequence = 0
        self._breakers: list[Breaker] = []
        # One deterministic mix of writers, weighted.
        self._writers: list[tuple[Callable[[dict[str, Any], _Lane], PlannedRecord], int]] = [
            (self._by_the_same_schema, 70),
            (self._by_the_newer_schema, 14),
            (self._by_the_older_schema, 10),
            (self._by_header_id, 4),
            (self._by_header_guid if schemas.guid else self._by_header_id, 2),
        ]

    def take(self, count: int) -> list[PlannedRecord]:
        return [self._next() for _ in range(count)]

    def valid_event(self, partition: int) -> dict[str, Any]:
        """An ordinary event, for tests that make a record of their own of it."""
        return self._event(self._lanes[partition])

    def _next(self) -> PlannedRecord:
        lane = self._random.choice(self._lanes)
        self._advance(lane)
        if self._random.random() < self._settings.broken_share:
            return self._broken(lane)
        if self._random.random() < 0.12:
            return self._spiky(lane)
        if lane.newest and self._random.random() < 0.03:
            # A producer that heard no acknowledgement.
            return replace(self._random.choice(lane.newest), timestamp_ms=lane.now_ms)
        event = self._event(lane)
        writers, weights = zip(*self._writers, strict=True)
        record = self._random.choices(writers, weights)[0](event, lane)
        lane.newest.append(record)
        return record

    def _advance(self, lane: _Lane) -> None:
        step = self._settings.step_ms
        if step is not None:
            lane.now_ms += self._random.randint(*step)
            return
        # The wall clock may stand still or be set back; the log's own time must not.
        lane.now_ms = max(lane.now_ms + 1, int(time.time() * 1000))

    # Events

    def _event(self, lane: _Lane) -> dict[str, Any]:
        chosen = self._random
        sensor, metric = self._series(lane)
        self._sequence += 1
        event_time = self._event_time(lane)
        if lane.recent and chosen.random() < 0.03:
            # The very time of another event of the series: first and last go by the offset then.
            sensor, metric, event_time = chosen.choice(lane.recent)
        lane.recent.append((sensor, metric, event_time))
        return {
            "sensor_id": sensor,
            "metric": metric,
            "event_time": event_time,
            "value": self._value(metric),
            "unit": chosen.choice(["Cel", "%", "hPa", "mm/s", "V", ""]),
            "quality": chosen.choices(["GOOD", "UNCERTAIN", "BAD"], [90, 6, 4])[0],
            "sequence": self._sequence if chosen.random() < 0.98 else -(1 << 62) + self._sequence,
            "battery": None if chosen.random() < 0.3 else round(chosen.random(), 3),
            "rssi": None if chosen.random() < 0.3 else -chosen.uniform(30, 120),
            "site": chosen.choice([None, "north", "süd", "", "東"]),
            "attributes": self._attributes(),
        }

    def _series(self, lane: _Lane) -> tuple[str, str]:
        number = self._random.randrange(self._settings.sensors)
        metric = self._random.choice(READER_METRICS[:3])
        if self._random.random() < 0.15:
            # In several partitions at once: their windows must be merged.
            return f"wandering-{number}", metric
        return f"sensor-{lane.number}-{number}{'-λ' if number == 0 else ''}", metric

    def _event_time(self, lane: _Lane) -> int:
        """Mostly just before now; sometimes out of order, late but in time, too late, or a little ahead."""
        window, lateness = self._settings.window_ms, self._settings.lateness_ms
        chance = self._random.random()
        if chance < 0.03:
            return lane.now_ms - self._random.randint(window + lateness, 5 * window + lateness)
        if chance < 0.08:
            return lane.now_ms - self._random.randint(lateness // 3, lateness)
        if chance < 0.09:
            return lane.now_ms + self._random.randint(0, window // 100)
        return lane.now_ms - self._random.randint(0, window // 60)

    def _value(self, metric: str) -> float:
        if metric == "PRESSURE":
            return 101_325.0 + self._random.uniform(-40.0, 40.0)
        if metric == "HUMIDITY":
            return float(self._random.randint(20, 80))
        return 20.0 + self._random.uniform(-5.0, 5.0)

    def _attributes(self) -> dict[str, str]:
        count = self._random.choice([0, 0, 0, 1, 3])
        names = self._random.sample(["line", "größe", "b", "operator", ""], count)
        padding = {"padding": self._random.randbytes(self._settings.padding).hex()} if self._settings.padding else {}
        return {name: self._random.choice(["", "1", "ñandú", "x" * 40]) for name in names} | padding

    # Records

    def _by_the_same_schema(self, event: dict[str, Any], lane: _Lane) -> PlannedRecord:
        writer = self._schemas.same
        return self._record(lane, event, writer.framed(event), Accepted(event, writer.schema_id))

    def _by_the_newer_schema(self, event: dict[str, Any], lane: _Lane) -> PlannedRecord:
        chosen = self._random
        extra = {
            "firmware": chosen.choice(["1.2", "2.0-β", 'quote " and \\ and \n']),
            "calibration": {"offset": round(chosen.uniform(-1, 1), 6), "technician": chosen.choice([None, "Ada"])},
            "tags": chosen.sample(["a", "b", "c"], chosen.randrange(3)),
        }
        single = struct.unpack("<f", struct.pack("<f", event["value"]))[0]
        written = {**event, **extra, "value": single, "sequence": event["sequence"] % 1_000_000}
        kept = {name: written[name] for name in ("sensor_id", "metric", "event_time", "value", "quality", "sequence")}
        writer = self._schemas.newer
        return self._record(lane, event, writer.framed(written), Accepted({**READER_DEFAULTS, **kept}, writer.schema_id, extra))

    def _by_the_older_schema(self, event: dict[str, Any], lane: _Lane) -> PlannedRecord:
        battery = None if event["battery"] is None else struct.unpack("<f", struct.pack("<f", event["battery"]))[0]
        metric = event["metric"] if event["metric"] == "TEMPERATURE" else "CARBON_DIOXIDE"
        written = {
            **event,
            "metric": metric,
            "value": int(event["value"]) if metric == "TEMPERATURE" else self._random.randint(380, 440),
            "battery": battery,
            "site": event["site"] or "somewhere",
        }
        kept = {name: written[name] for name in ("sensor_id", "event_time", "battery", "site", "attributes")}
        # A metric that the reader does not have becomes its default.
        seen = {"metric": "OTHER" if metric == "CARBON_DIOXIDE" else metric, "value": float(written["value"])}
        writer = self._schemas.older
        return self._record(lane, event, writer.framed(written), Accepted({**READER_DEFAULTS, **kept, **seen}, writer.schema_id))

    def _by_header_id(self, event: dict[str, Any], lane: _Lane) -> PlannedRecord:
        writer = self._schemas.same
        header = (VALUE_SCHEMA_HEADER, b"\0" + writer.schema_id.to_bytes(4, "big"))
        return self._record(lane, event, writer.body(event), Accepted(event, writer.schema_id), (header,))

    def _by_header_guid(self, event: dict[str, Any], lane: _Lane) -> PlannedRecord:
        writer, guid = self._schemas.same, self._schemas.guid
        assert guid is not None
        header = (VALUE_SCHEMA_HEADER, b"\x01" + guid.bytes)
        return self._record(lane, event, writer.body(event), Accepted(event, writer.schema_id), (header,))

    def _spiky(self, lane: _Lane) -> PlannedRecord:
        """A steady series in order, with a wild value now and then that must be flagged."""
        lane.spiky_events += 1
        self._sequence += 1
        is_spike = lane.spiky_events % SPIKE_EVERY == 0
        event = {
            **READER_DEFAULTS,
            "sensor_id": f"spiky-{lane.number}",
            "metric": "VIBRATION",
            "event_time": lane.now_ms,
            "value": SPIKE_VALUE if is_spike else 50.0 + self._random.uniform(-1.0, 1.0),
            "sequence": self._sequence,
        }
        writer = self._schemas.same
        return self._record(lane, event, writer.framed(event), Accepted(event, writer.schema_id, is_spike=is_spike))

    def _broken(self, lane: _Lane) -> PlannedRecord:
        if not self._breakers:
            # All kinds in turn, so that each comes up, but in no fixed order.
            self._breakers = breakers_for(self._schemas)
            self._random.shuffle(self._breakers)
        broken = self._breakers.pop().make(self._schemas, self._event(lane), lane.now_ms)
        key = self._random.choice([None, b"", b"some-sensor", b"\xff\x00\xfe"])
        headers = broken.headers + self._headers()
        return PlannedRecord(lane.number, key, broken.value, headers, lane.now_ms, broken.fate)

    def _record(
        self, lane: _Lane, event: dict[str, Any], value: bytes, fate: Accepted, headers: Headers = ()
    ) -> PlannedRecord:
        chance = self._random.random()
        key: bytes | None = event["sensor_id"].encode()
        if chance < 0.06:
            key = None
        elif chance < 0.12:
            key = self._random.choice([b"", b"\x00\xff", b"another-key", event["sensor_id"].upper().encode()])
        return PlannedRecord(lane.number, key, value, headers + self._headers(), lane.now_ms, fate)

    def _headers(self) -> Headers:
        if self._random.random() < 0.8:
            return ()
        possible: list[tuple[str, bytes | None]] = [
            ("traceparent", b"00-" + self._random.randbytes(8).hex().encode()), ("empty", b""), ("null", None),
            ("repeated", b"1"), ("repeated", b"\xff\xfe"), ("größe", b"x"),
        ]  # fmt: skip
        return tuple(self._random.sample(possible, self._random.randint(1, 3)))
