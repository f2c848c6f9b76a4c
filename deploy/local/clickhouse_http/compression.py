"""ClickHouse's own compressed blocks: `decompress=1` for bodies, `compress=1` for answers.

A block is a 16-byte CityHash128 of what follows, a method byte, the compressed
size including this 9-byte header, the plain size, and the data. LZ4 itself is
the system's liblz4 through ctypes, which Debian and Ubuntu always have (apt
needs it). Answers go out as LZ4 blocks of literals only: over the loopback
interface compressing would cost time and save nothing, but clients insist on
the method.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Iterable, Iterator

from .cityhash import city_hash_128

LZ4, NONE = 0x82, 0x02
HEADER = struct.Struct("<BII")
CHECKSUM_SIZE = 16
BLOCK_SIZE = 256 << 10
# What ClickHouse itself refuses to decompress (DBMS_MAX_COMPRESSED_SIZE).
LARGEST_BLOCK = 1 << 30


class BadBlock(Exception):
    """Data that is no ClickHouse compressed block, or one we cannot read."""


@functools.cache
def _liblz4() -> ctypes.CDLL:
    for name in ("liblz4.so.1", "liblz4.dylib"):
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.LZ4_decompress_safe.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
        library.LZ4_decompress_safe.restype = ctypes.c_int
        return library
    raise BadBlock("this machine has no liblz4 to read compressed blocks with: send data without decompress=1, or install liblz4-1")


def decompressed(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The plain data of a stream of blocks. Checksums are not looked at: the loopback does not flip bits."""
    pending = bytearray()
    prefix = CHECKSUM_SIZE + HEADER.size
    for part in parts:
        pending += part
        while len(pending) >= prefix:
            method, compressed_size, plain_size = HEADER.unpack_from(pending, CHECKSUM_SIZE)
            if method not in (LZ4, NONE):
                raise BadBlock(f"compression method 0x{method:02x} is not supported here: use LZ4 or none")
            if compressed_size < HEADER.size or max(compressed_size, plain_size) > LARGEST_BLOCK:
                raise BadBlock(f"a compressed block of {compressed_size} bytes for {plain_size}: the body is not in ClickHouse's compressed format")
            end = CHECKSUM_SIZE + compressed_size
            if len(pending) < end:
                break
            data = bytes(memoryview(pending)[prefix:end])
            del pending[:end]
            yield data if method == NONE else _lz4_block(data, plain_size)
    if pending:
        raise BadBlock("the body ends in the middle of a compressed block")


def _lz4_block(data: bytes, plain_size: int) -> bytes:
    plain = ctypes.create_string_buffer(max(plain_size, 1))
    if _liblz4().LZ4_decompress_safe(data, plain, len(data), plain_size) != plain_size:
        raise BadBlock("a compressed block that is damaged")
    return plain.raw[:plain_size]


def compressed(data: bytes | memoryview) -> Iterator[bytes]:
    view = memoryview(data)
    for start in range(0, len(view), BLOCK_SIZE):
        plain = view[start : start + BLOCK_SIZE].tobytes()
        literals = _lz4_literals(plain)
        block = HEADER.pack(LZ4, HEADER.size + len(literals), len(plain)) + literals
        yield struct.pack("<QQ", *city_hash_128(block)) + block


def _lz4_literals(plain: bytes) -> bytes:
    """An LZ4 block that only copies."""
    if len(plain) < 15:
        return bytes([len(plain) << 4]) + plain
    full, rest = divmod(len(plain) - 15, 255)
    return b"\xf0" + b"\xff" * full + bytes([rest]) + plain
