"""Writers of every kind that one reader meets over the years. What each of their records must become: `resolution.py`.

The reader schema has a field of every type, each with a default. A writer is the reader's schema, changed.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .resolution import Named, without_logical_types

Json = Any


def _time(name: str, on: str = "long") -> dict[str, Json]:
    return {"type": on, "logicalType": name}


POSITION = {"type": "record", "name": "Position", "fields": [
    {"name": "lat", "type": "double"},
    {"name": "lon", "type": "double", "aliases": ["lng"]},
    {"name": "height", "type": ["null", "double"], "default": None},
    {"name": "datum", "type": {"type": "enum", "name": "Datum", "symbols": ["WGS84", "ETRS89"], "default": "WGS84"}, "default": "WGS84"},
    {"name": "fixes", "type": {"type": "array", "items": "long"}, "default": [7]},
]}  # fmt: skip

# A reader with a field of every type. The first six make the event.
READER: dict[str, Json] = {"type": "record", "name": "Reading", "namespace": "plant", "aliases": ["Measurement"], "fields": [
    {"name": "sensor_id", "type": "string"},
    {"name": "metric", "type": {"type": "enum", "name": "Kind", "aliases": ["Quantity"], "symbols": ["TEMPERATURE", "HUMIDITY", "OTHER"], "default": "OTHER"}},
    {"name": "event_time", "type": _time("timestamp-millis")},
    {"name": "value", "type": "double"},
    {"name": "quality", "type": {"type": "enum", "name": "Quality", "symbols": ["GOOD", "BAD"], "default": "GOOD"}, "default": "GOOD"},
    {"name": "site", "type": ["null", "string"], "default": None},
    {"name": "flag", "type": "boolean", "default": True},
    {"name": "int32", "type": "int", "default": -7},
    {"name": "int64", "type": "long", "default": 1 << 40, "aliases": ["counter"]},
    {"name": "float32", "type": "float", "default": 0.5},
    {"name": "float64", "type": "double", "default": -1e300},
    {"name": "text", "type": "string", "default": "grüße"},
    {"name": "raw", "type": "bytes", "default": "\u0000\u00ff"},
    {"name": "code", "type": {"type": "fixed", "name": "Code", "aliases": ["Kode"], "size": 3}, "default": "\u0001\u00fe\u0000"},
    {"name": "level", "type": {"type": "enum", "name": "Level", "symbols": ["LOW", "HIGH"]}, "default": "HIGH"},
    {"name": "numbers", "type": {"type": "array", "items": "long"}, "default": [1, -2]},
    {"name": "weights", "type": {"type": "map", "values": "double"}, "default": {"a": 1.5}},
    {"name": "position", "type": copy.deepcopy(POSITION), "default": {"lat": 1.0, "lon": 2.0, "height": None, "datum": "ETRS89", "fixes": []}, "aliases": ["place"]},
    {"name": "track", "type": {"type": "array", "items": "Position"}, "default": []},
    {"name": "named", "type": {"type": "map", "values": "Position"}, "default": {}},
    {"name": "maybe", "type": ["null", "string"], "default": None},
    {"name": "certain", "type": ["string", "null"], "default": "x"},
    {"name": "any", "type": ["null", "long", "string", "boolean", {"type": "array", "items": "int"}], "default": None},
    {"name": "day", "type": _time("date", "int"), "default": 3},
    {"name": "clock", "type": _time("time-millis", "int"), "default": 4},
    {"name": "clock_us", "type": _time("time-micros"), "default": 5},
    {"name": "at_us", "type": _time("timestamp-micros"), "default": 6},
    {"name": "at_ns", "type": _time("timestamp-nanos"), "default": 7},
    {"name": "local_ms", "type": _time("local-timestamp-millis"), "default": 8},
    {"name": "local_us", "type": _time("local-timestamp-micros"), "default": 9},
    {"name": "local_ns", "type": _time("local-timestamp-nanos"), "default": 10},
    {"name": "uuid", "type": {"type": "string", "logicalType": "uuid"}, "default": "00010203-0405-0607-0809-0a0b0c0d0e0f"},
    {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, "default": "\u00ff"},
    {"name": "exact", "type": {"type": "fixed", "name": "Exact", "size": 6, "logicalType": "decimal", "precision": 12, "scale": 4}, "default": "\u0000\u0000\u0000\u0000\u0001\u0000"},
    {"name": "lasted", "type": {"type": "fixed", "name": "Lasted", "size": 12, "logicalType": "duration"}, "default": "\u0001" * 12},
]}  # fmt: skip

EVENT_FIELDS = ("sensor_id", "metric", "event_time", "value", "quality", "site")

# A type that has itself in it: no columns could be made for it, but `_extra` holds it.
LINK = {"type": "record", "name": "Link", "fields": [{"name": "label", "type": "string"}, {"name": "next", "type": ["null", "Link"]}]}

NEW_FIELDS: list[Json] = [
    {"name": "firmware", "type": "string"},
    {"name": "new_boolean", "type": "boolean"},
    {"name": "new_int", "type": "int"},
    {"name": "new_long", "type": _time("timestamp-micros")},
    {"name": "new_float", "type": "float"},
    {"name": "new_double", "type": "double"},
    {"name": "new_bytes", "type": "bytes"},
    {"name": "new_fixed", "type": {"type": "fixed", "name": "Sixteen", "size": 16, "logicalType": "uuid"}},
    {"name": "new_enum", "type": {"type": "enum", "name": "Colour", "symbols": ["RED", "BLUE"]}},
    {"name": "new_array", "type": {"type": "array", "items": {"type": "map", "values": ["null", "long"]}}},
    {"name": "new_record", "type": ["null", LINK]},
    {"name": "new_decimal", "type": {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 3}},
]


@dataclass(frozen=True)
class Writer:
    """A schema that somebody writes with."""

    name: str
    schema: Json
    # Named types of other subjects, each behind those that it uses itself: name and schema.
    references: tuple[tuple[str, Json], ...] = ()
    # Changes what would be written; for values that only this writer has.
    adapt: Callable[[dict[str, Json], random.Random], None] | None = None


@dataclass(frozen=True)
class RefusedWriter:
    """One whose records no reader of ours can read, and what must be said about that."""

    name: str
    schema: Json
    field: str
    rule: str


def compatible_writers() -> list[Writer]:
    """Each change of the specification's chapter on resolution, in a writer of its own; then many at once."""
    every_default = [entry for entry in READER["fields"] if entry["name"] in EVENT_FIELDS[:4]]
    return [
        Writer("the same", READER),
        Writer("another doc, order and properties", _change(lambda field, _: field | {"doc": f"about {field['name']}", "order": "ignore", "x-owner": {"team": 7}})),
        Writer("fields added in front", _with_fields(NEW_FIELDS + READER["fields"])),
        Writer("fields added behind and between", _with_fields(
            [entry for pair in zip(READER["fields"], NEW_FIELDS, strict=False) for entry in pair] + READER["fields"][len(NEW_FIELDS):]
        )),
        Writer("fields removed: every default", _with_fields(every_default)),
        Writer("every second field removed", _with_fields([f for i, f in enumerate(READER["fields"]) if f["name"] in EVENT_FIELDS or i % 2])),
        Writer("fields reversed", _with_fields(list(reversed(READER["fields"])))),
        Writer("fields renamed", _renamed({"int64": "counter", "position": "place"})),
        Writer("the record renamed", READER | {"name": "Measurement"}),
        Writer("another namespace", READER | {"namespace": "factory.v2"}),
        Writer("no namespace", {name: value for name, value in READER.items() if name != "namespace"}),
        Writer("an enum renamed", _change(lambda field, name: _typed(field, name, "metric", field["type"] | {"name": "Quantity"} if name == "metric" else None))),
        Writer("a fixed renamed", _change(lambda field, name: _typed(field, name, "code", field["type"] | {"name": "Kode"} if name == "code" else None))),
        Writer("int to long and double", _types({"int64": "int", "value": "int", "float64": "int", "any": "int"})),
        Writer("int to float, long to double", _types({"float32": "int", "value": "long", "float64": "long"})),
        Writer("long to float, float to double", _types({"float32": "long", "value": "float", "float64": "float"})),
        Writer("string to bytes, bytes to string", _types({"raw": "string", "text": "bytes", "sensor_id": "bytes", "maybe": ["null", "bytes"]})),
        Writer("promoted inside of arrays and maps", _types({"numbers": {"type": "array", "items": "int"}, "weights": {"type": "map", "values": "long"}})),
        Writer("enum symbols in another order", _symbols({"metric": ["OTHER", "HUMIDITY", "TEMPERATURE"], "quality": ["BAD", "GOOD"], "level": ["HIGH", "LOW"]})),
        Writer("enum symbols that the reader lacks", _symbols({"metric": ["FLOW", "TEMPERATURE", "TORQUE"], "quality": ["GOOD", "SUSPECT"]})),
        Writer("enum symbols taken away", _symbols({"metric": ["TEMPERATURE"], "level": ["HIGH"]})),
        Writer("a union reversed", _types({"maybe": ["string", "null"], "certain": ["null", "string"], "any": [{"type": "array", "items": "int"}, "boolean", "string", "long", "null"]})),
        Writer("a plain type where the reader has a union", _types({"maybe": "string", "certain": "string", "any": {"type": "array", "items": "int"}})),
        Writer("null where the reader has a union", _types({"maybe": "null", "any": "null"})),
        Writer("a union where the reader has a plain type", _types({"int64": ["int", "long"], "text": ["string"], "value": ["float", "double", "int"]})),
        Writer("a narrower union", _types({"any": ["null", "boolean"], "certain": ["null", "string"]})),
        Writer("a wider union", _types({"int64": ["null", "long", "string"], "maybe": ["null", "string", "boolean"]}), adapt=_only_what_fits),
        Writer("fields added to a nested record", _position([*POSITION["fields"], {"name": "accuracy", "type": "float"}, {"name": "source", "type": ["null", LINK]}])),
        Writer("fields removed from a nested record", _position(POSITION["fields"][:2])),
        Writer("fields of a nested record renamed and reversed", _position([
            POSITION["fields"][2], POSITION["fields"][1] | {"name": "lng", "aliases": []}, POSITION["fields"][0],
        ])),
        Writer("fields of a nested record promoted", _position([
            {"name": "lat", "type": "float"}, {"name": "lon", "type": "int"}, {"name": "height", "type": ["null", "long"]},
            {"name": "fixes", "type": {"type": "array", "items": "int"}},
        ])),
        Writer("a nested enum with symbols that the reader lacks", _position([
            *POSITION["fields"][:2], {"name": "datum", "type": {"type": "enum", "name": "Datum", "symbols": ["NAD83", "ETRS89"]}},
        ])),
        Writer("no logical types", without_logical_types(READER), adapt=_bytes_of_decimals),
        Writer("unknown logical types", _change(lambda field, name: field | {"type": {"type": field["type"], "logicalType": "of-tomorrow"}} if field["type"] in ("string", "long", "int", "double") else field)),
        Writer("logical types on other widths", _types({"clock_us": _time("time-millis", "int"), "at_us": "int", "local_ms": _time("date", "int")})),
        Writer("named types of other subjects", _referring(), references=_references()),
        Writer("much at once", _much_at_once()),
    ]  # fmt: skip


def incompatible_writers() -> list[RefusedWriter]:
    """Each rule that can be broken, once; the field is called as the reader calls it."""
    other_decimal = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 3}
    def listed(items: Json) -> Json:
        return {"type": "array", "items": items}

    return [
        RefusedWriter("a field without default removed", _with_fields([f for f in READER["fields"] if f["name"] != "value"]),
                      "value", "the writer does not have the field, and the reader has no default for it"),
        RefusedWriter("a field renamed without alias", _renamed({"value": "reading"}),
                      "value", "the writer does not have the field, and the reader has no default for it"),
        RefusedWriter("another type", _types({"value": "string"}), "value", "the writer's string cannot be read as double"),
        RefusedWriter("a demotion", _types({"int32": "long"}), "int32", "the writer's long cannot be read as int"),
        RefusedWriter("a demotion of floats", _types({"float32": "double"}), "float32", "the writer's double cannot be read as float"),
        RefusedWriter("an enum renamed without alias", _types({"quality": {"type": "enum", "name": "Grade", "symbols": ["GOOD", "BAD"]}}),
                      "quality", "the writer's enum `plant.Grade` is neither called like the reader's `plant.Quality` nor its alias"),
        RefusedWriter("a fixed of another size", _types({"code": {"type": "fixed", "name": "Code", "size": 4}}),
                      "code", "fixed `plant.Code` has 4 bytes, the reader's has 3"),
        RefusedWriter("a decimal of another scale", _types({"price": other_decimal}), "price", "the writer's decimal(9,3) is not the reader's decimal(9,2)"),
        RefusedWriter("items of another type", _types({"numbers": listed("string")}), "numbers[]", "the writer's string cannot be read as long"),
        RefusedWriter("values of another type", _types({"weights": {"type": "map", "values": "boolean"}}), "weights[]", "the writer's boolean cannot be read as double"),
        RefusedWriter("a union with no branch that fits", _types({"value": ["null", "string"]}), "value", "the writer's null cannot be read as double"),
        RefusedWriter("a branch that the reader's union lacks", _types({"any": "double"}), "any", "the reader's union has no branch for the writer's double"),
        RefusedWriter("a nested field of another type", _position([{"name": "lat", "type": "string"}, POSITION["fields"][1]]),
                      "position.lat", "the writer's string cannot be read as double"),
        RefusedWriter("another record", {"type": "record", "name": "Heartbeat", "namespace": "plant", "fields": READER["fields"]},
                      "", "the writer's record `plant.Heartbeat` is neither called like the reader's `plant.Reading` nor its alias"),
        RefusedWriter("no record", {"type": "map", "values": "string"}, "", "the writer's schema is of type map, a record is needed"),
    ]  # fmt: skip


# The changes


def _with_fields(fields: list[Json]) -> Json:
    """Each named type is written out where it is named first, wherever its field has gone."""
    definitions = Named(READER).types | Named({"type": "record", "name": "Reading", "fields": fields}).types
    defined: set[str] = set()

    def walk(part: Json) -> Json:
        if isinstance(part, list):
            return [walk(inner) for inner in part]
        if isinstance(part, str) and part in definitions:
            part = definitions[part]
        if isinstance(part, dict) and part.get("type") in ("record", "enum", "fixed"):
            if part["name"] in defined:
                return part["name"]
            defined.add(part["name"])
        if not isinstance(part, dict):
            return part
        return {name: walk(inner) if name in ("type", "items", "values", "fields") else inner for name, inner in part.items()}

    return READER | {"fields": [walk(entry) for entry in copy.deepcopy(fields)]}


def _change(change: Callable[[Json, str], Json]) -> Json:
    return _with_fields([change(copy.deepcopy(entry), entry["name"]) for entry in READER["fields"]])


def _typed(entry: Json, name: str, wanted: str, new_type: Json) -> Json:
    return {"name": name, "type": new_type} if name == wanted else entry


def _types(types: Mapping[str, Json]) -> Json:
    """Defaults of a writer mean nothing; they would not fit its new types."""
    return _change(lambda entry, name: {"name": name, "type": copy.deepcopy(types[name])} if name in types else entry)


def _symbols(symbols: Mapping[str, list[str]]) -> Json:
    def change(entry: Json, name: str) -> Json:
        if name not in symbols:
            return entry
        return {"name": name, "type": {"type": "enum", "name": entry["type"]["name"], "symbols": symbols[name]}}

    return _change(change)


def _renamed(names: Mapping[str, str]) -> Json:
    return _change(lambda entry, name: {**entry, "name": names.get(name, name), "aliases": []})


def _position(fields: list[Json]) -> Json:
    return _types({"position": POSITION | {"fields": fields}})


def _only_what_fits(event: dict[str, Json], _: random.Random) -> None:
    """Of a wider union, the branches that the reader has; the others are refused record by record."""
    if not isinstance(event["int64"], int):
        event["int64"] = 12
    if isinstance(event["maybe"], bool):
        event["maybe"] = None


def _bytes_of_decimals(event: dict[str, Json], chosen: random.Random) -> None:
    """Any bytes may be written, but as decimals of so many digits they will be read."""
    event["price"] = chosen.randint(-99_999, 99_999).to_bytes(3, "big", signed=True)
    event["exact"] = chosen.randint(-(10**11), 10**11).to_bytes(6, "big", signed=True)


def _referring() -> Json:
    """Its position and its code are types of other subjects, and so is a type inside the position."""
    fields = [entry for entry in copy.deepcopy(READER["fields"]) if entry["name"] not in ("track", "named")]
    types = {"position": "geo.Position", "code": "codes.Code"}
    return _with_fields([entry | {"type": types[entry["name"]]} if entry["name"] in types else entry for entry in fields])


def _references() -> tuple[tuple[str, Json], ...]:
    datum = {"type": "enum", "name": "Datum", "namespace": "geo", "symbols": ["ETRS89", "WGS84"]}
    position = {"type": "record", "name": "Position", "namespace": "geo", "fields": [
        {"name": "lat", "type": "double"}, {"name": "lon", "type": "double"}, {"name": "datum", "type": "geo.Datum"},
    ]}  # fmt: skip
    code = {"type": "fixed", "name": "Code", "namespace": "codes", "size": 3}
    return (("geo.Datum", datum), ("geo.Position", position), ("codes.Code", code))


def _much_at_once() -> Json:
    changed = _types({
        "value": ["null", "float", "double"], "int64": "int", "text": "bytes", "weights": {"type": "map", "values": "float"},
        "metric": {"type": "enum", "name": "Quantity", "symbols": ["FLOW", "HUMIDITY", "TEMPERATURE"]},
        "position": POSITION | {"fields": [{"name": "accuracy", "type": "float"}, POSITION["fields"][1] | {"name": "lng"}, {"name": "lat", "type": "float"}]},
    })["fields"]  # fmt: skip
    kept = [entry for entry in changed if entry["name"] not in ("flag", "any", "uuid", "at_ns")]
    renamed = [entry | {"name": "counter"} if entry["name"] == "int64" else entry for entry in kept]
    fields = [NEW_FIELDS[10], *reversed(renamed), NEW_FIELDS[0]]
    return _with_fields(fields) | {"name": "Measurement", "namespace": "factory"}
