"""A record whose schema nobody has asked the registry for yet."""

from __future__ import annotations

import copy
import uuid

import fastavro

from .records import Accepted, PlannedRecord
from .registry import Registry
from .schemas import NEWER_SCHEMA, READER_DEFAULTS, WriterSchema
from .stream import MixedStream


def record_in_a_new_schema(registry: Registry, topic: str, stream: MixedStream, partition: int) -> PlannedRecord:
    schema = copy.deepcopy(NEWER_SCHEMA)
    number = uuid.uuid4().hex[:8]
    schema["fields"].append({"name": f"humidity_{number}", "type": "long"})
    writer = WriterSchema(registry.register(f"{topic}-{number}", schema), fastavro.parse_schema(copy.deepcopy(schema)))
    event = stream.valid_event(partition)
    extra = {
        "firmware": "9", "calibration": {"offset": 0.5, "technician": None}, "tags": ["x"], f"humidity_{number}": 1 << 40,
    }  # fmt: skip
    written = {**event, **extra, "value": 20.5, "sequence": 7}
    kept = {name: written[name] for name in ("sensor_id", "metric", "event_time", "value", "quality", "sequence")}
    fate = Accepted({**READER_DEFAULTS, **kept}, writer.schema_id, extra)
    return PlannedRecord(partition, event["sensor_id"].encode(), writer.framed(written), (), event["event_time"] + 1_000, fate)
