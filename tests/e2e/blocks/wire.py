"""A wire between one pipeline and one service, which fails as a test wants: see `faults`.

A proxy on a port of its own. It takes in whole messages, HTTP's or Kafka's, so that a fault can strike in the middle of one or
between a request and its answer. Brokers tell clients their address; the wire puts its own port there, so every pipeline can
have a wire of its own to the same broker.
"""

from __future__ import annotations

import queue
import socket
import struct
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from .faults import ConnectionOver, Fault, Healthy, Message

LOOPBACK = "127.0.0.1"
CONNECT_TIMEOUT = 5
# What is sent at once while a fault sets the pace.
SLICE = 16 * 1024

# Of Kafka's requests those that a fault is ever aimed at.
KAFKA_KINDS = {
    1: "Fetch", 2: "ListOffsets", 3: "Metadata", 8: "OffsetCommit", 9: "OffsetFetch", 10: "FindCoordinator", 11: "JoinGroup",
    12: "Heartbeat", 13: "LeaveGroup", 14: "SyncGroup", 18: "ApiVersions",
}  # fmt: skip


class Link:
    """One connection of the client, and the one to the service that belongs to it."""

    def __init__(self, wire: Wire, client: socket.socket) -> None:
        self.wire = wire
        self.client = client
        self.service = socket.create_connection((LOOPBACK, wire.service_port), CONNECT_TIMEOUT)
        self.service.settimeout(None)
        for side in (self.client, self.service):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._over = threading.Event()

    def to_service(self, data: bytes) -> None:
        self._send(self.service, data)

    def to_client(self, data: bytes) -> None:
        self._send(self.client, data)

    def _send(self, side: socket.socket, data: bytes) -> None:
        # What the other side sent just after a reset may still be read, as the sockets live until the last reader has let go.
        if self._over.is_set():
            raise ConnectionOver
        if type(self.wire.fault).pace is Fault.pace:
            side.sendall(data)
            return
        for at in range(0, len(data), SLICE):
            part = data[at : at + SLICE]
            self._over.wait(self.wire.fault.pace(len(part), at == 0))
            side.sendall(part)

    def reset(self) -> None:
        """RST, both ways, at once."""
        self._over.set()
        for side in (self.client, self.service):
            try:
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                # Another thread may be reading: only this wakes it. What was sent goes out first.
                side.shutdown(socket.SHUT_RD)
            except OSError:
                pass
            side.close()

    def close(self) -> None:
        self._over.set()
        for side in (self.client, self.service):
            try:
                side.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            side.close()

    def never_answer(self) -> None:
        """Takes what comes, until the client gives up."""
        while self.client.recv(SLICE):
            pass

    def wait_until_healed(self) -> None:
        while not self._over.is_set() and not self.wire.healed.wait(0.1):
            pass
        if self._over.is_set():
            raise ConnectionOver


class Wire:
    """Listens until it is closed."""

    def __init__(self, service_port: int, protocol: str) -> None:
        assert protocol in ("http", "kafka")
        self.service_port = service_port
        self._serve = _serve_http if protocol == "http" else _serve_kafka
        self.fault: Fault = Healthy()
        self.healed = threading.Event()
        self.healed.set()
        self._links: set[Link] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._listener = _listen(0)
        self.port: int = self._listener.getsockname()[1]
        self._accept_from(self._listener)

    @classmethod
    def to(cls, url: str, protocol: str = "http") -> Wire:
        """To the service at an address like `http://127.0.0.1:8123/x` or `127.0.0.1:9092`."""
        port = urllib.parse.urlsplit(url if "//" in url else f"//{url}").port
        assert port is not None
        return cls(port, protocol)

    def url(self, of: str) -> str:
        """The address `of` the service, by way of this wire."""
        return of.replace(f":{self.service_port}", f":{self.port}", 1)

    @contextmanager
    def failing(self, fault: Fault) -> Iterator[Fault]:
        self.begin(fault)
        try:
            yield fault
        finally:
            self.heal()

    def begin(self, fault: Fault) -> None:
        self.healed.clear()
        self.fault = fault
        if fault.refuses_connections:
            self._listener.close()
        if fault.resets_at_once:
            for link in self._standing():
                fault._hit()
                link.reset()

    def heal(self) -> None:
        refused = self.fault.refuses_connections
        self.fault = Healthy()
        self.healed.set()
        if refused:
            self._listener = _listen(self.port)
            self._accept_from(self._listener)

    def close(self) -> None:
        self._closed = True
        self.healed.set()
        self._listener.close()
        for link in self._standing():
            link.close()

    def _standing(self) -> list[Link]:
        with self._lock:
            return list(self._links)

    def _accept_from(self, listener: socket.socket) -> None:
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            client.settimeout(None)
            threading.Thread(target=self._connection, args=(client,), daemon=True).start()

    def _connection(self, client: socket.socket) -> None:
        try:
            link = Link(self, client)
        except OSError:
            client.close()
            return
        with self._lock:
            self._links.add(link)
        try:
            if not self._closed:
                self.fault.connected(link)
                self._serve(link)
        except (ConnectionOver, OSError, ValueError):
            pass  # closed by one side, or by a fault
        finally:
            with self._lock:
                self._links.discard(link)
            link.close()


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    deadline = time.monotonic() + 10
    while True:
        try:
            listener.bind((LOOPBACK, port))
            break
        except OSError:
            # An outgoing connection may have this port for a moment.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    listener.listen(128)
    # Closing does not wake a thread that accepts.
    listener.settimeout(0.2)
    return listener


# HTTP: one request after the other.


def _serve_http(link: Link) -> None:
    with link.client.makefile("rb") as requests, link.service.makefile("rb") as answers:
        while (message := _http_message(requests, None)) is not None:
            passed_on = link.wire.fault.request(link, message)
            if passed_on is None:
                continue
            link.to_service(passed_on.raw)
            answer = _http_message(answers, message.kind)
            if answer is None:
                return
            link.to_client(link.wire.fault.answer(link, answer).raw)


def _http_message(stream: BinaryIO, request_kind: str | None) -> Message | None:
    """The next request, or the answer to a request of that kind; None at the end of the stream."""
    head = bytearray()
    while (line := stream.readline(1 << 16)) not in (b"\r\n", b""):
        head += line
    if not line:
        return None
    head += line
    first, *fields = bytes(head).decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (field.partition(":") for field in fields if field)}
    if request_kind is None:
        kind = urllib.parse.unquote_plus(" ".join(first.split(" ")[:2]))
        has_content = True
    else:
        kind = request_kind
        has_content = not kind.startswith("HEAD ") and first.split(" ")[1] not in ("204", "304")
    content = _http_content(stream, headers, request_kind is not None) if has_content else b""
    return Message(kind, bytes(head) + content, len(head))


def _http_content(stream: BinaryIO, headers: dict[str, str], is_answer: bool) -> bytes:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        raw = bytearray()
        while True:
            line = stream.readline(1 << 16)
            size = int(line.split(b";")[0], 16)
            raw += line + stream.read(size + 2)
            if size == 0:
                return bytes(raw)
    if "content-length" in headers:
        return stream.read(int(headers["content-length"]))
    return stream.read() if is_answer and headers.get("connection", "").lower() == "close" else b""


# Kafka: many requests may be under way; answers come in their order.


def _serve_kafka(link: Link) -> None:
    under_way: queue.Queue[str] = queue.Queue()
    answers = threading.Thread(target=_kafka_answers, args=(link, under_way), daemon=True)
    answers.start()
    with link.client.makefile("rb") as stream:
        while (frame := _kafka_frame(stream)) is not None:
            kind = KAFKA_KINDS.get(int.from_bytes(frame[4:6], "big"), "other")
            passed_on = link.wire.fault.request(link, Message(kind, frame, 12))
            if passed_on is not None:
                under_way.put(kind)
                link.to_service(passed_on.raw)


def _kafka_answers(link: Link, under_way: queue.Queue[str]) -> None:
    service = f"{LOOPBACK}".encode() + struct.pack(">i", link.wire.service_port)
    ours = f"{LOOPBACK}".encode() + struct.pack(">i", link.wire.port)
    try:
        with link.service.makefile("rb") as stream:
            while (frame := _kafka_frame(stream)) is not None:
                kind = under_way.get()
                if kind in ("Metadata", "FindCoordinator", "Fetch", "other"):
                    # In either encoding the port of a broker follows its name.
                    frame = frame.replace(service, ours)
                link.to_client(link.wire.fault.answer(link, Message(kind, frame, 8)).raw)
    except (ConnectionOver, OSError, ValueError):
        pass  # closed by one side, or by a fault
    finally:
        link.close()


def _kafka_frame(stream: BinaryIO) -> bytes | None:
    length = stream.read(4)
    if len(length) < 4:
        return None
    frame = length + stream.read(int.from_bytes(length, "big"))
    return frame if len(frame) == 4 + int.from_bytes(length, "big") else None
