"""Invalid records: at least one for every reason that a producer can give cause to."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import fastavro

from .records import Headers, Rejected
from .schemas import READER_SCHEMA, UNKNOWN_ID, RegisteredSchemas, frame, zigzag

DAY_MS = 86_400_000
VALUE_SCHEMA_HEADER = "__value_schema_id"

# The configuration of every test sets `limits.max_record_bytes` to this.
MAX_RECORD_BYTES = 64 * 1024

Event = Mapping[str, Any]


@dataclass(frozen=True)
class BrokenValue:
    value: bytes | None
    fate: Rejected
    headers: Headers = ()


@dataclass(frozen=True)
class Breaker:
    """Makes an invalid record out of a good event."""

    name: str
    make: Callable[[RegisteredSchemas, Event, int], BrokenValue]


_FIELD_TYPES = [(field["name"], fastavro.parse_schema(field["type"])) for field in READER_SCHEMA["fields"]]


def body_with(event: Event, **replaced: bytes) -> bytes:
    """The body of an event in the reader's own schema, some fields replaced by raw bytes.

    A record is its fields one after another, so each can be encoded alone.
    """
    parts = []
    for name, field_type in _FIELD_TYPES:
        if name in replaced:
            parts.append(replaced[name])
            continue
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, field_type, event[name])
        parts.append(buffer.getvalue())
    return b"".join(parts)


def _raw(value: bytes | None, reason: str) -> Callable[[RegisteredSchemas, Event, int], BrokenValue]:
    return lambda _schemas, _event, _time: BrokenValue(value, Rejected(reason, None))


def _body(reason: str, change: Callable[[Event], bytes]) -> Callable[[RegisteredSchemas, Event, int], BrokenValue]:
    """A broken body in a good frame."""

    def make(schemas: RegisteredSchemas, event: Event, _time: int) -> BrokenValue:
        schema_id = schemas.same.schema_id
        return BrokenValue(frame(schema_id, change(event)), Rejected(reason, schema_id))

    return make


def _field(reason: str, **replaced: bytes) -> Callable[[RegisteredSchemas, Event, int], BrokenValue]:
    return _body(reason, lambda event: body_with(event, **replaced))


def _event(reason: str, change: Callable[[int], dict[str, Any]]) -> Callable[[RegisteredSchemas, Event, int], BrokenValue]:
    """Well encoded, but not acceptable."""

    def make(schemas: RegisteredSchemas, event: Event, timestamp_ms: int) -> BrokenValue:
        schema_id = schemas.same.schema_id
        changed = {**event, **change(timestamp_ms)}
        return BrokenValue(schemas.same.framed(changed), Rejected(reason, schema_id))

    return make


def _unknown_id(_schemas: RegisteredSchemas, event: Event, _time: int) -> BrokenValue:
    return BrokenValue(frame(UNKNOWN_ID, body_with(event)), Rejected("unknown_schema_id", UNKNOWN_ID))


def _impossible_id(_schemas: RegisteredSchemas, event: Event, _time: int) -> BrokenValue:
    # No registry counts that far, so nobody is asked, and there is no number that a reader of the column could use.
    return BrokenValue(frame(1 << 31 | 7, body_with(event)), Rejected("unknown_schema_id", None))


def _unknown_guid(_schemas: RegisteredSchemas, event: Event, _time: int) -> BrokenValue:
    header = (VALUE_SCHEMA_HEADER, b"\x01" + bytes(range(100, 116)))
    return BrokenValue(body_with(event), Rejected("unknown_schema_id", None), (header,))


def _incompatible(schemas: RegisteredSchemas, event: Event, _time: int) -> BrokenValue:
    writer = schemas.incompatible
    return BrokenValue(writer.framed(event), Rejected("incompatible_schema", writer.schema_id))


def _not_avro(schemas: RegisteredSchemas, _event: Event, _time: int) -> BrokenValue:
    assert schemas.json_schema_id is not None
    return BrokenValue(frame(schemas.json_schema_id, b'{"value":1}'), Rejected("schema_not_avro", schemas.json_schema_id))


def _too_deep(schemas: RegisteredSchemas, event: Event, _time: int) -> BrokenValue:
    # 200 links: `next` is the second branch of its union, the last one the first.
    chain = zigzag(1) * 200 + zigzag(0)
    schema_id = schemas.nesting.schema_id
    return BrokenValue(frame(schema_id, body_with(event) + chain), Rejected("too_deep", schema_id))


def _array(schemas: RegisteredSchemas, event: Event, _time: int) -> BrokenValue:
    """A billion items of an array that only the writer knows; two bytes are left for them."""
    writer = schemas.newer
    newer = {**event, "value": 0.0, "sequence": 1, "firmware": "1", "calibration": {"offset": 0.0, "technician": None}, "tags": []}
    # Without tags and quality the body ends with a zero and an enum of one byte.
    body = writer.body(newer)[:-2] + zigzag(1_000_000_000) + zigzag(0)
    return BrokenValue(frame(writer.schema_id, body), Rejected("truncated_body", writer.schema_id))


def _cut_behind_guid(schemas: RegisteredSchemas, event: Event, _time: int) -> BrokenValue:
    assert schemas.guid is not None
    header = (VALUE_SCHEMA_HEADER, b"\x01" + schemas.guid.bytes)
    return BrokenValue(_half(_body_without_attributes(event)), Rejected("truncated_body", schemas.same.schema_id), (header,))


def _header(content: bytes, reason: str) -> Callable[[RegisteredSchemas, Event, int], BrokenValue]:
    def make(_schemas: RegisteredSchemas, event: Event, _time: int) -> BrokenValue:
        return BrokenValue(body_with(event), Rejected(reason, None), ((VALUE_SCHEMA_HEADER, content),))

    return make


def _body_without_attributes(event: Event) -> bytes:
    """A body cut off behind the count of a map looks like one with too large a count."""
    return body_with(event, attributes=zigzag(0))


def _half(body: bytes) -> bytes:
    return body[: len(body) // 2]


_NOT_UTF8 = zigzag(4) + b"ab\xff\xfe"

BREAKERS: tuple[Breaker, ...] = (
    Breaker("tombstone", _raw(None, "tombstone")),
    Breaker("empty value", _raw(b"", "empty_value")),
    Breaker("JSON in place of Avro", _raw(b'{"sensor_id":"x","value":1}', "bad_magic")),
    Breaker("magic 1 in the payload", _raw(b"\x01\0\0\0\x01\x02", "bad_magic")),
    Breaker("magic only", _raw(b"\0", "truncated_header")),
    Breaker("three bytes of an id", _raw(b"\0\0\0\x01", "truncated_header")),
    Breaker("header with another magic", _header(b"\x02" + bytes(16), "bad_magic")),
    Breaker("header with half a GUID", _header(b"\x01" + bytes(8), "truncated_header")),
    Breaker("unknown id", _unknown_id),
    Breaker("impossible id", _impossible_id),
    Breaker("unknown GUID", _unknown_guid),
    Breaker("no body", _body("truncated_body", lambda _event: b"")),
    Breaker("body without its last byte", _body("truncated_body", lambda event: _body_without_attributes(event)[:-1])),
    Breaker("body cut in the middle", _body("truncated_body", lambda event: _half(_body_without_attributes(event)))),
    Breaker("one byte too many", _body("trailing_bytes", lambda event: body_with(event) + b"\0")),
    Breaker("two bodies", _body("trailing_bytes", lambda event: body_with(event) * 2)),
    Breaker("sensor id not UTF-8", _field("invalid_utf8", sensor_id=_NOT_UTF8)),
    Breaker("attribute not UTF-8", _field("invalid_utf8", attributes=zigzag(1) + zigzag(1) + b"k" + _NOT_UTF8 + zigzag(0))),
    Breaker("union branch 2 of 2", _field("invalid_union_branch", battery=zigzag(2))),
    Breaker("union branch -1", _field("invalid_union_branch", site=zigzag(-1))),
    Breaker("enum symbol 6 of 6", _field("invalid_enum", metric=zigzag(6))),
    Breaker("enum symbol -1", _field("invalid_enum", quality=zigzag(-1))),
    Breaker("negative length", _field("invalid_length", unit=zigzag(-5))),
    Breaker("length of a terabyte", _field("invalid_length", unit=zigzag(1 << 40))),
    Breaker("a billion map entries", _field("invalid_length", attributes=zigzag(1_000_000_000))),
    Breaker("map block of negative size", _field("invalid_length", attributes=zigzag(-1) + zigzag(-7))),
    Breaker("not a number", _field("non_finite_value", value=struct.pack("<d", float("nan")))),
    Breaker("infinite", _field("non_finite_value", value=struct.pack("<d", float("-inf")))),
    Breaker("31 days old", _event("event_time_too_old", lambda time: {"event_time": time - 31 * DAY_MS})),
    Breaker("from 1970", _event("event_time_too_old", lambda _time: {"event_time": 0})),
    Breaker("six minutes ahead", _event("event_time_in_future", lambda time: {"event_time": time + 360_000})),
    Breaker("at the end of time", _event("event_time_in_future", lambda _time: {"event_time": (1 << 63) - 1})),
    Breaker("larger than allowed", _event("too_large", lambda _time: {"attributes": {"blob": "x" * (MAX_RECORD_BYTES + 1)}})),
    Breaker("nested too deep", _too_deep),
    Breaker("incompatible schema", _incompatible),
    Breaker("JSON schema", _not_avro),
    Breaker("a billion array items", _array),
    Breaker("body cut behind a GUID", _cut_behind_guid),
)


def breakers_for(schemas: RegisteredSchemas) -> list[Breaker]:
    """Those that the registry at hand allows."""
    impossible = {
        make for make, is_possible in ((_not_avro, schemas.json_schema_id is not None), (_cut_behind_guid, schemas.guid is not None))
        if not is_possible
    }  # fmt: skip
    return [breaker for breaker in BREAKERS if breaker.make not in impossible]
