"""A snapshot as another version of the program would have written it."""

from __future__ import annotations

import pyarrow as pa

from .hot_store import HotStore

MAGIC = b"KAPPA\0"
CHECKSUM = 8


def of_version(snapshot: bytes, version: int, hashing: HotStore) -> bytes:
    """The same content under another version number. ClickHouse knows the hash function of the checksum."""
    plain = pa.CompressedInputStream(pa.BufferReader(snapshot), "zstd").read()
    assert plain.startswith(MAGIC)
    body = MAGIC + version.to_bytes(2, "little") + plain[len(MAGIC) + 2 : -CHECKSUM]
    checksum = int(hashing.query(f"SELECT toString(xxh3(unhex('{body.hex()}'))) AS hash")[0]["hash"])
    return pa.compress(body + checksum.to_bytes(CHECKSUM, "little"), codec="zstd", asbytes=True)
