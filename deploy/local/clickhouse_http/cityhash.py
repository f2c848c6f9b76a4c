"""CityHash128 as of version 1.0.2, which ClickHouse's compressed blocks carry.

Later versions of CityHash give other values. Plain Python reaches about 10 MB/s:
enough for the answers of tests, which is all it is used for. The algorithm is
Google's (Geoff Pike and Jyrki Alakuijala, MIT licence).
"""

from __future__ import annotations

import struct

_MASK = (1 << 64) - 1
_K0, _K1, _K2, _K3 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F, 0xC949D7C7509E6557
_MUL = 0x9DDFEA08EB382D69


def _rotate(value: int, shift: int) -> int:
    return ((value >> shift) | (value << (64 - shift))) & _MASK


def _mix(value: int) -> int:
    return value ^ (value >> 47)


def _u64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _hash_16(low: int, high: int) -> int:
    a = _mix(((low ^ high) * _MUL) & _MASK)
    b = _mix(((high ^ a) * _MUL) & _MASK)
    return (b * _MUL) & _MASK


def _hash_0_to_16(data: bytes) -> int:
    size = len(data)
    if size > 8:
        a, b = _u64(data, 0), _u64(data, size - 8)
        return _hash_16(a, _rotate((b + size) & _MASK, size)) ^ b
    if size >= 4:
        return _hash_16((size + (_u32(data, 0) << 3)) & _MASK, _u32(data, size - 4))
    if size > 0:
        y = data[0] + (data[size >> 1] << 8)
        z = size + (data[size - 1] << 2)
        return (_mix(((y * _K2) ^ (z * _K3)) & _MASK) * _K2) & _MASK
    return _K2


def _weak_32(w: int, x: int, y: int, z: int, a: int, b: int) -> tuple[int, int]:
    a = (a + w) & _MASK
    b = _rotate((b + a + z) & _MASK, 21)
    c = a
    a = (a + x + y) & _MASK
    b = (b + _rotate(a, 44)) & _MASK
    return (a + z) & _MASK, (b + c) & _MASK


def _weak_32_at(data: bytes, at: int, a: int, b: int) -> tuple[int, int]:
    return _weak_32(*struct.unpack_from("<4Q", data, at), a, b)


def _murmur(data: bytes, low: int, high: int) -> tuple[int, int]:
    size = len(data)
    a, b = low, high
    if size <= 16:
        a = (_mix((a * _K1) & _MASK) * _K1) & _MASK
        c = (b * _K1 + _hash_0_to_16(data)) & _MASK
        d = _mix((a + (_u64(data, 0) if size >= 8 else c)) & _MASK)
    else:
        c = _hash_16((_u64(data, size - 8) + _K1) & _MASK, a)
        d = _hash_16((b + size) & _MASK, (c + _u64(data, size - 16)) & _MASK)
        a = (a + d) & _MASK
        for at in range(0, size - 16, 16):
            a = ((a ^ (_mix((_u64(data, at) * _K1) & _MASK) * _K1)) * _K1) & _MASK
            b ^= a
            c = ((c ^ (_mix((_u64(data, at + 8) * _K1) & _MASK) * _K1)) * _K1) & _MASK
            d ^= c
    a, b = _hash_16(a, c), _hash_16(d, b)
    return a ^ b, _hash_16(b, a)


def _with_seed(data: bytes, low: int, high: int) -> tuple[int, int]:
    size = len(data)
    if size < 128:
        return _murmur(data, low, high)
    x, y, z = low, high, (size * _K1) & _MASK
    v0 = (_rotate(y ^ _K1, 49) * _K1 + _u64(data, 0)) & _MASK
    v1 = (_rotate(v0, 42) * _K1 + _u64(data, 8)) & _MASK
    w0 = (_rotate((y + z) & _MASK, 35) * _K1 + x) & _MASK
    w1 = (_rotate((x + _u64(data, 88)) & _MASK, 53) * _K1) & _MASK
    # The original does 128 bytes a turn as two equal halves.
    end = size - size % 128
    for d in struct.iter_unpack("<8Q", memoryview(data)[:end]):
        x = (_rotate((x + y + v0 + d[2]) & _MASK, 37) * _K1) & _MASK
        y = (_rotate((y + v1 + d[6]) & _MASK, 42) * _K1) & _MASK
        x ^= w1
        y ^= v0
        z = _rotate(z ^ w0, 33)
        v0, v1 = _weak_32(d[0], d[1], d[2], d[3], (v1 * _K1) & _MASK, (x + w0) & _MASK)
        w0, w1 = _weak_32(d[4], d[5], d[6], d[7], (z + w1) & _MASK, y)
        z, x = x, z
    y = (y + _rotate(w0, 37) * _K0 + z) & _MASK
    x = (x + _rotate((v0 + z) & _MASK, 49) * _K0) & _MASK
    # The last up to 127 bytes in steps of 32 from the end, reaching back into what was hashed.
    for done in range(32, size - end + 32, 32):
        at = size - done
        y = (_rotate((y - x) & _MASK, 42) * _K0 + v1) & _MASK
        w0 = (w0 + _u64(data, at + 16)) & _MASK
        x = (_rotate(x, 49) * _K0 + w0) & _MASK
        w0 = (w0 + v0) & _MASK
        v0, v1 = _weak_32_at(data, at, v0, v1)
    x, y = _hash_16(x, v0), _hash_16(y, w0)
    return (_hash_16((x + v1) & _MASK, w1) + y) & _MASK, _hash_16((x + w1) & _MASK, (y + v1) & _MASK)


def city_hash_128(data: bytes) -> tuple[int, int]:
    """The low and the high 64 bits."""
    size = len(data)
    if size >= 16:
        return _with_seed(data[16:], _u64(data, 0) ^ _K3, _u64(data, 8))
    if size >= 8:
        return _with_seed(b"", _u64(data, 0) ^ ((size * _K0) & _MASK), _u64(data, size - 8) ^ _K1)
    return _with_seed(data, _K0, _K1)
