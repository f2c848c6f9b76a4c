"""Asks a broker over its own protocol whether a topic could be created now.

A listening port proves little: a KRaft broker accepts connections before the
controller has unfenced it. A CreateTopics request with `validate_only` goes
the whole way (broker, controller, placement on a live broker) and changes
nothing. Two old, fixed request versions are enough, hence no client library.
"""

from __future__ import annotations

import socket
import struct

API_VERSIONS, CREATE_TOPICS = 18, 19
NO_ERROR = 0


class NotReady(Exception):
    """Why the broker cannot take a topic yet."""


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack(">h", len(raw)) + raw


def _receive(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        part = connection.recv(size - len(received))
        if not part:
            raise NotReady("the broker closed the connection")
        received += part
    return bytes(received)


def _call(connection: socket.socket, api: int, version: int, body: bytes) -> bytes:
    header = struct.pack(">hhi", api, version, 7) + _string("kappa-stack")
    connection.sendall(struct.pack(">i", len(header) + len(body)) + header + body)
    (size,) = struct.unpack(">i", _receive(connection, 4))
    return _receive(connection, size)[4:]  # after the correlation id


def check(host: str, port: int, timeout: float = 3.0) -> None:
    """Returns when a topic can be created, raises NotReady or OSError otherwise."""
    with socket.create_connection((host, port), timeout=timeout) as connection:
        (error,) = struct.unpack_from(">h", _call(connection, API_VERSIONS, 0, b""))
        if error != NO_ERROR:
            raise NotReady(f"ApiVersions answered error {error}")
        topic = _string("kappa-stack-probe") + struct.pack(">ihii", 1, 1, 0, 0)
        request = struct.pack(">i", 1) + topic + struct.pack(">i?", int(timeout * 1000), True)
        answer = _call(connection, CREATE_TOPICS, 2, request)
        # throttle time, topic count, topic name, error code
        (name_length,) = struct.unpack_from(">h", answer, 8)
        (error,) = struct.unpack_from(">h", answer, 10 + name_length)
        if error != NO_ERROR:
            raise NotReady(f"CreateTopics answered error {error}")
