"""The writers' schemas: the reader's own, newer and older ones, and some that cannot be read."""

from __future__ import annotations

import copy
import io
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import fastavro

from .registry import Registry
from .stack import REPOSITORY

READER_SCHEMA: dict[str, Any] = json.loads((REPOSITORY / "schemas" / "sensor-reading.avsc").read_text())
READER_FIELDS = [field["name"] for field in READER_SCHEMA["fields"]]
READER_METRICS = ["TEMPERATURE", "HUMIDITY", "PRESSURE", "VIBRATION", "VOLTAGE", "OTHER"]

# What the reader puts in where a writer does not have the field.
READER_DEFAULTS: dict[str, Any] = {
    "unit": "",
    "quality": "GOOD",
    "sequence": 0,
    "battery": None,
    "rssi": None,
    "site": None,
    "attributes": {},
}

# An id that no registry of a test ever gives out.
UNKNOWN_ID = 2_000_000_000


def _schema(fields: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "record", "name": "SensorReading", "namespace": "kappa.sensors", "fields": fields}


def _field(name: str) -> dict[str, Any]:
    return copy.deepcopy(next(field for field in READER_SCHEMA["fields"] if field["name"] == name))


# A newer writer: fields that the reader does not know, narrower numbers, and four of the reader's fields left out.
NEWER_SCHEMA = _schema([
    {"name": "firmware", "type": "string"},
    _field("sensor_id"),
    _field("metric"),
    {"name": "sequence", "type": "int"},
    _field("event_time"),
    {"name": "value", "type": "float"},
    {"name": "calibration", "type": {"type": "record", "name": "Calibration", "fields": [
        {"name": "offset", "type": "double"},
        {"name": "technician", "type": ["null", "string"]},
    ]}},
    {"name": "tags", "type": {"type": "array", "items": "string"}},
    _field("quality"),
])

# An older writer: other order, other branch order, a metric that the reader has dropped, whole numbers.
OLDER_SCHEMA = _schema([
    _field("event_time"),
    {"name": "value", "type": "int"},
    {"name": "metric", "type": {"type": "enum", "name": "Metric", "symbols": ["CARBON_DIOXIDE", "TEMPERATURE", "OTHER"]}},
    _field("sensor_id"),
    {"name": "battery", "type": ["float", "null"]},
    {"name": "site", "type": "string"},
    _field("attributes"),
])

# Readable, but its unknown field can nest without end.
NESTING_SCHEMA = _schema([
    *(_field(name) for name in READER_FIELDS),
    {"name": "chain", "type": ["null", {"type": "record", "name": "Link", "fields": [
        {"name": "next", "type": ["null", "Link"]},
    ]}]},
])

# Registered, valid, and impossible to read: the measured value is missing.
INCOMPATIBLE_SCHEMA = _schema([_field("sensor_id"), _field("metric"), _field("event_time")])

JSON_SCHEMA = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "properties": {"value": {"type": "number"}}}


@dataclass(frozen=True)
class WriterSchema:
    """A registered schema, ready to write with."""

    schema_id: int
    parsed: Any

    def body(self, event: Mapping[str, Any]) -> bytes:
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, self.parsed, dict(event))
        return buffer.getvalue()

    def framed(self, event: Mapping[str, Any]) -> bytes:
        return frame(self.schema_id, self.body(event))


@dataclass(frozen=True)
class RegisteredSchemas:
    same: WriterSchema
    newer: WriterSchema
    older: WriterSchema
    nesting: WriterSchema
    incompatible: WriterSchema
    # None where the registry takes only Avro.
    json_schema_id: int | None
    # GUID of `same`; None where the registry has no GUIDs.
    guid: uuid.UUID | None

    @classmethod
    def register(cls, registry: Registry, topic: str) -> RegisteredSchemas:
        """Each in a subject of its own, so that the registry's compatibility rule has no say."""

        def writer(schema: dict[str, Any], suffix: str) -> WriterSchema:
            schema_id = registry.register(f"{topic}{suffix}", schema)
            return WriterSchema(schema_id, fastavro.parse_schema(copy.deepcopy(schema)))

        same = writer(READER_SCHEMA, "-value")
        try:
            json_schema_id = registry.register(f"{topic}-json", JSON_SCHEMA, "JSON")
        except AssertionError:
            json_schema_id = None
        return cls(
            same=same,
            newer=writer(NEWER_SCHEMA, "-newer"),
            older=writer(OLDER_SCHEMA, "-older"),
            nesting=writer(NESTING_SCHEMA, "-nesting"),
            incompatible=writer(INCOMPATIBLE_SCHEMA, "-incompatible"),
            json_schema_id=json_schema_id,
            guid=registry.guid_of(f"{topic}-value"),
        )

    @classmethod
    def unregistered(cls) -> RegisteredSchemas:
        """Invented ids, for the tests of the blocks themselves."""

        def writer(schema: dict[str, Any], schema_id: int) -> WriterSchema:
            return WriterSchema(schema_id, fastavro.parse_schema(copy.deepcopy(schema)))

        return cls(
            same=writer(READER_SCHEMA, 1),
            newer=writer(NEWER_SCHEMA, 2),
            older=writer(OLDER_SCHEMA, 3),
            nesting=writer(NESTING_SCHEMA, 4),
            incompatible=writer(INCOMPATIBLE_SCHEMA, 5),
            json_schema_id=6,
            guid=uuid.UUID("00010203-0405-0607-0809-0a0b0c0d0e0f"),
        )


def frame(schema_id: int, body: bytes) -> bytes:
    """The framing of the Confluent serializers: magic 0, the id, the body."""
    return b"\0" + schema_id.to_bytes(4, "big") + body


def zigzag(number: int) -> bytes:
    """Avro's varint, for records that no encoder would write."""
    rest = (number << 1) ^ (number >> 63)
    out = bytearray()
    while rest >= 0x80:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)
