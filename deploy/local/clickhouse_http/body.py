"""Reads the body of a request part by part, however it was framed and encoded."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

PART_SIZE = 1 << 20


class BadBody(Exception):
    """The request's body breaks the rules it announced."""


def raw_parts(stream: BinaryIO, headers) -> Iterator[bytes]:
    """The body as sent, in parts of at most a mebibyte."""
    if "chunked" in headers.get("Transfer-Encoding", "").lower():
        yield from _merged(_chunks(stream))
        return
    remaining = int(headers.get("Content-Length") or 0)
    while remaining > 0:
        part = stream.read(min(PART_SIZE, remaining))
        if not part:
            raise BadBody("the client closed the connection before the end of the body")
        remaining -= len(part)
        yield part


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    while True:
        line = stream.readline(1024)
        try:
            size = int(line.split(b";")[0], 16)
        except ValueError:
            raise BadBody("a chunk without a size: the client closed the connection or broke the framing") from None
        if size == 0:
            break
        while size > 0:
            part = stream.read(min(PART_SIZE, size))
            if not part:
                raise BadBody("the client closed the connection in the middle of a chunk")
            size -= len(part)
            yield part
        if stream.readline(3) != b"\r\n":
            raise BadBody("a chunk that is longer than it said")
    while stream.readline(65_536) not in (b"\r\n", b"\n", b""):
        pass  # trailers


def _merged(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Small chunks put together: each part is a call into the engine."""
    pending = bytearray()
    for part in parts:
        pending += part
        if len(pending) >= PART_SIZE:
            yield bytes(pending)
            pending.clear()
    if pending:
        yield bytes(pending)


def gunzipped(parts: Iterable[bytes]) -> Iterator[bytes]:
    decoder = zlib.decompressobj(wbits=31)
    try:
        for part in parts:
            while part:
                yield decoder.decompress(part, PART_SIZE)
                part = decoder.unconsumed_tail
        yield decoder.flush()
    except zlib.error as error:
        raise BadBody(f"Content-Encoding says gzip, but the body is not: {error}") from None
    if not decoder.eof:
        raise BadBody("the gzip body ends too early")
