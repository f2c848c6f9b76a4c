"""What each record must become, by another implementation: bytes by fastavro's encoder, values by its schema resolution, what the
reader does not know by the documentation of `_extra`. Logical types are taken off on both sides, so what is compared are the numbers
and bytes below them.
"""

from __future__ import annotations

import base64
import copy
import io
import random
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import fastavro
import pyarrow as pa

if TYPE_CHECKING:
    from .evolution import Writer

Json = Any


def without_logical_types(schema: Json) -> Json:
    if isinstance(schema, list):
        return [without_logical_types(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    dropped = ("logicalType", "precision", "scale")
    return {
        name: value if name == "default" else without_logical_types(value) for name, value in schema.items() if name not in dropped
    }


@dataclass
class Encoder:
    """Writes a writer's records, and says what the reader must see."""

    writer: Writer
    reader: Json
    schema_id: int = 0
    _plain_writer: Json = field(init=False)
    _plain_reader: Json = field(init=False)
    _logical_writer: Json = field(init=False)

    def __post_init__(self) -> None:
        references = [copy.deepcopy(schema) for _, schema in self.writer.references]
        merged = _inlined(without_logical_types(copy.deepcopy(self.writer.schema)), references)
        self._plain_writer = fastavro.parse_schema(merged)
        self._plain_reader = fastavro.parse_schema(without_logical_types(copy.deepcopy(self.reader)))
        self._logical_writer = _inlined(copy.deepcopy(self.writer.schema), references)

    def value(self, event: Mapping[str, Json], chosen: random.Random) -> dict[str, Json]:
        """A value of the writer's schema, with the event's fields where it has them."""
        made = Values(chosen).of(self._logical_writer)
        for entry in self._logical_writer["fields"]:
            if entry["name"] in event:
                made[entry["name"]] = fitted(entry["type"], event[entry["name"]])
        if self.writer.adapt is not None:
            self.writer.adapt(made, chosen)
        return made

    def body(self, value: Mapping[str, Json]) -> bytes:
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, self._plain_writer, dict(value))
        return buffer.getvalue()

    def resolved(self, body: bytes) -> dict[str, Json]:
        """What the reader must see, by fastavro's resolution."""
        found = fastavro.schemaless_reader(io.BytesIO(body), self._plain_writer, self._plain_reader)
        assert isinstance(found, dict)
        return normalized(without_logical_types(self.reader), found)

    def extra(self, value: Mapping[str, Json]) -> Json:
        """What the reader must find in `_extra`."""
        return extra_of(self._logical_writer, self.reader, value, Named(self._logical_writer), Named(self.reader))


def _inlined(schema: Json, references: list[Json]) -> Json:
    """The same schema with each referred type written out where it is named first."""
    known = {f"{entry['namespace']}.{entry['name']}": entry for entry in references}

    def walk(part: Json) -> Json:
        if isinstance(part, str) and part in known:
            return walk(known.pop(part))
        if isinstance(part, list):
            return [walk(inner) for inner in part]
        if isinstance(part, dict):
            return {name: walk(inner) if name in ("type", "items", "values", "fields") else inner for name, inner in part.items()}
        return part

    return walk(schema)


class Named:
    """The named types of a schema, by their unqualified names: unique in the schemas here."""

    def __init__(self, schema: Json) -> None:
        self.types: dict[str, Json] = {}
        self._collect(schema)

    def _collect(self, part: Json) -> None:
        if isinstance(part, list):
            for inner in part:
                self._collect(inner)
        elif isinstance(part, dict):
            if part.get("type") in ("record", "enum", "fixed"):
                self.types[part["name"].rsplit(".", 1)[-1]] = part
            for name in ("type", "items", "values", "fields"):
                if isinstance(part.get(name), (dict, list)):
                    self._collect(part[name])

    def of(self, schema: Json) -> Json:
        """The type itself, where only its name stands."""
        if isinstance(schema, str):
            return self.types.get(schema.rsplit(".", 1)[-1], schema)
        if isinstance(schema, dict) and isinstance(schema.get("type"), (dict, list)) and "name" not in schema:
            return self.of(schema["type"])
        return schema


def kind_of(schema: Json) -> str:
    if isinstance(schema, list):
        return "union"
    return schema if isinstance(schema, str) else str(schema["type"])


class Values:
    """Values of any schema, the same for the same seed; edges and ordinary ones."""

    def __init__(self, chosen: random.Random) -> None:
        self._chosen = chosen

    def of(self, schema: Json) -> Any:
        self._named = Named(schema)
        return self._value(schema, 0)

    def _value(self, schema: Json, depth: int) -> Any:
        chosen, schema = self._chosen, self._named.of(schema)
        kind = kind_of(schema)
        if kind == "union":
            branches = [branch for branch in schema if depth < 4 or branch in ("null", "string")] or schema
            return self._value(chosen.choice(branches), depth + 1)
        if kind == "record":
            return {entry["name"]: self._value(entry["type"], depth + 1) for entry in schema["fields"]}
        if kind == "array":
            return [self._value(schema["items"], depth + 1) for _ in range(chosen.choice([0, 1, 2, 5]))]
        if kind == "map":
            names = chosen.sample(["", "a", "ключ", 'quote "', "b" * 30], chosen.choice([0, 1, 3]))
            return {name: self._value(schema["values"], depth + 1) for name in names}
        if kind == "enum":
            return chosen.choice(schema["symbols"])
        if kind == "fixed":
            return self._fixed(schema)
        if isinstance(schema, dict) and schema.get("logicalType") == "uuid":
            return "12345678-9abc-def0-1234-56789abcdef0"
        if kind == "bytes" and isinstance(schema, dict) and schema.get("logicalType") == "decimal":
            return chosen.randint(-99_999, 99_999).to_bytes(chosen.choice([3, 4]), "big", signed=True)
        return self._primitive(kind, schema)

    def _fixed(self, schema: Json) -> bytes:
        if schema.get("logicalType") == "decimal":
            return self._chosen.randint(-(10**11), 10**11).to_bytes(schema["size"], "big", signed=True)
        return self._chosen.randbytes(schema["size"])

    def _primitive(self, kind: str, schema: Json) -> Any:
        chosen = self._chosen
        if kind == "null":
            return None
        if kind == "boolean":
            return chosen.random() < 0.5
        if kind == "int":
            is_clock = isinstance(schema, dict) and schema.get("logicalType") == "time-millis"
            return chosen.randrange(86_400_000) if is_clock else chosen.choice([0, -1, 63, -64, (1 << 31) - 1, -(1 << 31), chosen.randint(-9999, 9999)])
        if kind == "long":
            is_clock = isinstance(schema, dict) and schema.get("logicalType") == "time-micros"
            if is_clock:
                return chosen.randrange(86_400_000_000)
            return chosen.choice([0, -1, 64, (1 << 63) - 1, -(1 << 63), 1 << 40, chosen.randint(-(10**12), 10**12)])
        if kind == "float":
            return struct.unpack("<f", struct.pack("<f", chosen.choice([0.0, -0.5, 3.4e38, 1e-45, chosen.randint(-(10**6), 10**6) / 4])))[0]
        if kind == "double":
            return chosen.choice([0.0, -0.0, 1e308, 5e-324, 0.1, chosen.uniform(-1e9, 1e9)])
        if kind == "bytes":
            return chosen.choice([b"", b"ascii", "süß".encode()])
        return chosen.choice(["", "ascii", "süß\n\t\"\\", "日本語", "x" * 70])


def fitted(schema: Json, value: Json) -> Json:
    """An event's value as that writer can write it."""
    kinds = [kind_of(branch) for branch in schema] if isinstance(schema, list) else [kind_of(schema)]
    if isinstance(value, str) and "bytes" in kinds:
        return value.encode()
    if isinstance(value, str) and "enum" in kinds:
        return value if value in schema["symbols"] else schema["symbols"][0]
    if isinstance(value, float) and not {"double", "float"} & set(kinds):
        return int(value)
    if isinstance(value, float) and "double" not in kinds:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    return value


def normalized(schema: Json, value: Json, named: Named | None = None) -> Json:
    """fastavro's value in the form in which columns are compared. It takes defaults over as they stand in the JSON."""
    named = named or Named(schema)
    schema = named.of(schema)
    kind = kind_of(schema)
    if kind == "union":
        branch = next(branch for branch in schema if _is_of(named.of(branch), value))
        return normalized(branch, value, named)
    if kind == "record":
        return {entry["name"]: normalized(entry["type"], value[entry["name"]], named) for entry in schema["fields"]}
    if kind == "array":
        return [normalized(schema["items"], item, named) for item in value]
    if kind == "map":
        return [(name, normalized(schema["values"], item, named)) for name, item in value.items()]
    if kind in ("bytes", "fixed") and isinstance(value, str):
        return value.encode("latin-1")
    if kind == "float":
        return struct.unpack("<f", struct.pack("<f", value))[0]
    if kind == "double":
        return float(value)
    return value


def _is_of(schema: Json, value: Json) -> bool:
    kind = kind_of(schema)
    python: dict[str, Any] = {
        "null": type(None), "boolean": bool, "int": int, "long": int, "float": float, "double": float, "string": str,
        "bytes": bytes, "fixed": bytes, "enum": str, "array": list, "map": dict, "record": dict,
    }  # fmt: skip
    return isinstance(value, python[kind]) and (kind == "boolean" or not isinstance(value, bool))


def extra_of(writer: Json, reader: Json, value: Json, writers: Named, readers: Named) -> Json:
    """The parts that the reader does not know, as `_extra` has them; None if there are none."""
    writer, reader = writers.of(writer), readers.of(reader)
    if isinstance(writer, list):
        writer = next(writers.of(branch) for branch in writer if _is_of(writers.of(branch), value))
        return extra_of(writer, reader, value, writers, readers)
    if isinstance(reader, list):
        same = [readers.of(branch) for branch in reader if kind_of(readers.of(branch)) == kind_of(writer)]
        return extra_of(writer, same[0], value, writers, readers) if same else None
    if kind_of(writer) == "record" and kind_of(reader) == "record":
        return _extra_of_record(writer, reader, value, writers, readers)
    if kind_of(writer) == "array":
        items = [extra_of(writer["items"], reader["items"], item, writers, readers) for item in value]
        return items if any(item is not None for item in items) else None
    if kind_of(writer) == "map":
        members = {name: extra_of(writer["values"], reader["values"], item, writers, readers) for name, item in value.items()}
        return members if any(member is not None for member in members.values()) else None
    return None


def _extra_of_record(writer: Json, reader: Json, value: Json, writers: Named, readers: Named) -> Json:
    names = {entry["name"] for entry in writer["fields"]}
    targets: dict[str, Json] = {}
    for entry in reader["fields"]:
        source = next((name for name in [entry["name"], *entry.get("aliases", [])] if name in names), None)
        if source is not None:
            targets.setdefault(source, entry)
    out = {}
    for entry in writer["fields"]:
        name = entry["name"]
        if name not in targets:
            out[name] = natural(entry["type"], value[name], writers)
            continue
        inner = extra_of(entry["type"], targets[name]["type"], value[name], writers, readers)
        if inner is not None:
            out[name] = inner
    return out or None


def natural(schema: Json, value: Json, named: Named) -> Json:
    """A value as natural JSON, as the documentation of `_extra` says."""
    schema = named.of(schema)
    kind = kind_of(schema)
    if kind == "union":
        return natural(next(branch for branch in schema if _is_of(named.of(branch), value)), value, named)
    if kind == "record":
        return {entry["name"]: natural(entry["type"], value[entry["name"]], named) for entry in schema["fields"]}
    if kind == "array":
        return [natural(schema["items"], item, named) for item in value]
    if kind == "map":
        return {name: natural(schema["values"], item, named) for name, item in value.items()}
    if kind == "float":
        return shortest(value)
    if kind not in ("bytes", "fixed"):
        return value
    logical = schema.get("logicalType") if isinstance(schema, dict) else None
    if logical == "decimal":
        return str(Decimal(int.from_bytes(value, "big", signed=True)).scaleb(-schema["scale"]))
    if logical == "uuid":
        digits = value.hex()
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    return base64.b64encode(value).decode()


def shortest(single: float) -> float:
    """The number of the fewest digits that is that single-precision float."""
    candidates = (float(f"{single:.{digits}g}") for digits in range(1, 10))
    return next(number for number in candidates if struct.unpack("<f", struct.pack("<f", number))[0] == single)


# What was found


def raw_rows(table: pa.Table) -> Iterator[dict[str, Json]]:
    """Rows with times as numbers, decimals as their bytes' integers, unions of several types as the member that is set."""
    columns = {name: _raw(column.combine_chunks(), name) for name, column in zip(table.column_names, table.columns, strict=True)}
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def _raw(column: pa.Array, name: str) -> list[Json]:
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_time64(kind):
        return column.view(pa.int64()).to_pylist()
    if pa.types.is_date32(kind) or pa.types.is_time32(kind):
        return column.view(pa.int32()).to_pylist()
    if pa.types.is_decimal(kind):
        return [None if value is None else int(value.scaleb(kind.scale)) for value in column.to_pylist()]
    if name == "any":
        return [None if members is None else _the_one(members) for members in column.to_pylist()]
    return column.to_pylist()


def _the_one(members: Mapping[str, Json]) -> Json:
    found = {name: value for name, value in members.items() if value is not None}
    assert len(found) == 1, f"{len(found)} members of a union are set: {members}"
    (name, value), = found.items()
    expected = {int: "long", str: "string", bool: "boolean", list: "array"}[type(value)]
    assert name == expected, f"{value!r} stands in the member {name}"
    return value


def decimals(row: Mapping[str, Json]) -> dict[str, Json]:
    """The oracle's bytes of the decimal fields as integers."""
    return {
        name: int.from_bytes(value, "big", signed=True) if name in ("price", "exact") else value for name, value in row.items()
    }
