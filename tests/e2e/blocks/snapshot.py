"""A snapshot as another version of the program would have written it."""

from __future__ import annotations

import re

import pyarrow as pa

from .hot_store import HotStore
from .stack import REPOSITORY

MAGIC = b"KAPPA\0"
CHECKSUM = 8
# The format that this version writes.
FORMAT = int(re.findall(r"FORMAT_VERSION: u16 = (\d+)", (REPOSITORY / "services/core/src/snapshot.rs").read_text())[0])


def version_of(snapshot: bytes) -> int:
    return int.from_bytes(_plain(snapshot)[len(MAGIC) : len(MAGIC) + 2], "little")


def _plain(snapshot: bytes) -> bytes:
    plain: bytes = pa.CompressedInputStream(pa.BufferReader(snapshot), "zstd").read()
    assert plain.startswith(MAGIC)
    return plain


def of_version(snapshot: bytes, version: int, hashing: HotStore) -> bytes:
    """The same content under another version number. ClickHouse knows the hash function of the checksum."""
    plain = _plain(snapshot)
    body = MAGIC + version.to_bytes(2, "little") + plain[len(MAGIC) + 2 : -CHECKSUM]
    checksum = int(hashing.query(f"SELECT toString(xxh3(unhex('{body.hex()}'))) AS hash")[0]["hash"])
    return pa.compress(body + checksum.to_bytes(CHECKSUM, "little"), codec="zstd", asbytes=True)
