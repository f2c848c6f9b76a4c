"""The buckets, read and listed by pyarrow's own S3 client."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.fs as fs
import pyarrow.parquet as pq

from .stack import Stack

READERS = 8


@dataclass(frozen=True)
class Place:
    """A bucket and prefix: what the pipeline is given as one URL."""

    files: fs.S3FileSystem
    bucket: str
    prefix: str

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    def keys(self) -> list[str]:
        """All objects below the place, by their keys relative to it. Without those of the start-up probe: a process that is
        killed in the middle of it leaves them."""
        root = f"{self.bucket}/{self.prefix}"
        selector = fs.FileSelector(root, recursive=True, allow_not_found=True)
        found = [info.path for info in self.files.get_file_info(selector) if info.type == fs.FileType.File]
        keys = sorted(path.removeprefix(f"{root}/") for path in found)
        return [key for key in keys if not key.startswith("_create_only_probe/")]

    def read(self, key: str) -> bytes:
        with self.files.open_input_file(f"{self.bucket}/{self.prefix}/{key}") as file:
            return bytes(file.read())

    def open(self, key: str) -> pa.NativeFile:
        return self.files.open_input_file(f"{self.bucket}/{self.prefix}/{key}")

    def write(self, key: str, content: bytes) -> None:
        """Whatever was there is replaced: for damage, and for mending it."""
        with self._files_for_writing().open_output_stream(f"{self.bucket}/{self.prefix}/{key}") as file:
            file.write(content)

    def read_all(self) -> dict[str, bytes]:
        """Every object below the place. Many at once: each costs little but waiting."""
        keys = self.keys()
        with ThreadPoolExecutor(READERS) as readers:
            return dict(zip(keys, readers.map(self.read, keys), strict=True))

    def size(self, key: str) -> int:
        return int(self.files.get_file_info(f"{self.bucket}/{self.prefix}/{key}").size)

    def delete(self, key: str) -> None:
        self._files_for_writing().delete_file(f"{self.bucket}/{self.prefix}/{key}")

    def _files_for_writing(self) -> fs.S3FileSystem:
        """With connections of its own: after an upload of this library's, versitygw cannot read the next request on one."""
        return copy.copy(self.files)


def parquet_of(content: bytes) -> pq.ParquetFile:
    return pq.ParquetFile(pa.BufferReader(content))


def connect(stack: Stack) -> fs.S3FileSystem:
    environment = stack.environment
    return fs.S3FileSystem(
        endpoint_override=stack.s3_endpoint,
        access_key=environment["AWS_ACCESS_KEY_ID"],
        secret_key=environment["AWS_SECRET_ACCESS_KEY"],
        region=environment.get("AWS_REGION", "us-east-1"),
        connect_timeout=5,
        request_timeout=20,
        # Small objects by one PUT, not in parts.
        allow_delayed_open=True,
    )


def python_rows(table: pa.Table) -> list[dict[str, object]]:
    """Rows of plain values: times as milliseconds, dictionaries resolved, maps as lists of pairs.

    Times are compared as numbers: turning them into `datetime` would need a time-zone database and lose nothing but
    time.
    """
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_timestamp(column.type):
            assert column.type.unit == "ms" and column.type.tz == "UTC", f"{name} is of type {column.type}"
            column = column.cast(pa.int64())
        columns[name] = column.to_pylist()
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def header_pairs(headers: object) -> tuple[tuple[str, bytes | None], ...]:
    """A headers column's value as the records have it."""
    if headers is None:
        return ()
    assert isinstance(headers, list) and headers, f"headers that are there but empty: {headers!r}"
    return tuple((header["key"], header["value"]) for header in headers)
