"""What can go wrong on a wire. `wire` passes messages on and asks the fault of the moment at each step."""

from __future__ import annotations

import random
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Message:
    """A request or an answer, whole."""

    # Of a request `PUT /archive/...` or `OffsetCommit`; an answer has the kind of its request.
    kind: str
    raw: bytes
    # Where the content begins that a checksum or a length of ours covers.
    content_at: int


class LinkLike(Protocol):
    """What a fault may do to a connection."""

    def to_service(self, data: bytes) -> None: ...
    def to_client(self, data: bytes) -> None: ...
    def reset(self) -> None: ...
    def never_answer(self) -> None: ...
    def wait_until_healed(self) -> None: ...


class ConnectionOver(Exception):
    """Nothing more passes over this connection."""


Matching = Callable[[Message], bool]


def everything(_: Message) -> bool:
    return True


def kind_has(*parts: str) -> Matching:
    """Requests whose kind has all these parts."""
    return lambda message: all(part in message.kind for part in parts)


@dataclass
class Fault:
    """Nothing goes wrong. The others replace a step; each counts how often it has struck."""

    matching: Matching = everything
    # Of those that match, each so many-th is hit.
    every: int = 1
    _seen: int = field(default=0, init=False)
    hits: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    #: While it lasts nobody listens at all.
    refuses_connections = False
    #: What stands when it begins is cut off.
    resets_at_once = False

    def strikes(self, message: Message) -> bool:
        if not self.matching(message):
            return False
        with self._lock:
            self._seen += 1
            if self._seen % self.every:
                return False
            self.hits += 1
            return True

    def connected(self, link: LinkLike) -> None:
        """A new connection stands."""

    def request(self, link: LinkLike, message: Message) -> Message | None:
        """What is passed on to the service; None: nothing, the client has been answered."""
        return message

    def answer(self, link: LinkLike, message: Message) -> Message:
        """What is passed on to the client."""
        return message

    def pace(self, size: int, is_first: bool) -> float:
        """Seconds that a part of a message takes."""
        return 0.0

    def _hit(self) -> None:
        with self._lock:
            self.hits += 1


class Healthy(Fault):
    """Everything passes."""


@dataclass
class Refused(Fault):
    """Nobody listens: the service is down."""

    refuses_connections = True
    resets_at_once = True


@dataclass
class Reset(Fault):
    """Connections are reset, those that stand and each new one."""

    resets_at_once = True

    def connected(self, link: LinkLike) -> None:
        self._hit()
        link.reset()
        raise ConnectionOver


@dataclass
class Latency(Fault):
    """Each message takes so long, each way."""

    seconds: float = 0.2

    def pace(self, size: int, is_first: bool) -> float:
        self._hit()
        return self.seconds if is_first else 0.0


@dataclass
class Bandwidth(Fault):
    """So many bytes a second, each way and connection."""

    bytes_per_second: int = 64_000

    def pace(self, size: int, is_first: bool) -> float:
        self._hit()
        return size / self.bytes_per_second


@dataclass
class BlackHole(Fault):
    """Packets are lost while connections stand; when it ends TCP sends them again."""

    def request(self, link: LinkLike, message: Message) -> Message | None:
        self._hit()
        link.wait_until_healed()
        return message

    def answer(self, link: LinkLike, message: Message) -> Message:
        self._hit()
        link.wait_until_healed()
        return message


@dataclass
class HalfOpen(Fault):
    """Whoever asks now is never answered on this connection, not even when the service is well again."""

    def request(self, link: LinkLike, message: Message) -> Message | None:
        if not self.strikes(message):
            return message
        link.never_answer()
        raise ConnectionOver


@dataclass
class Garbage(Fault):
    """Something else answers: bytes that mean nothing."""

    seed: int = 1

    def request(self, link: LinkLike, message: Message) -> Message | None:
        if not self.strikes(message):
            return message
        link.to_client(random.Random(self.seed + self.hits).randbytes(700))
        link.reset()
        raise ConnectionOver


@dataclass
class FlippedBit(Fault):
    """One bit in the middle of an answer's content is another one."""

    def answer(self, link: LinkLike, message: Message) -> Message:
        if len(message.raw) <= message.content_at or not self.strikes(message):
            return message
        return flipped(message)


@dataclass
class FlippedBitInRecords(Fault):
    """One bit of Kafka's records is another one: in what the checksum of their batch covers."""

    def answer(self, link: LinkLike, message: Message) -> Message:
        batch = largest_batch(message.raw) if message.kind == "Fetch" else None
        if batch is None or not self.strikes(message):
            return message
        raw = bytearray(message.raw)
        raw[(batch.start + batch.stop + BATCH_HEADER) // 2] ^= 0x10
        return Message(message.kind, bytes(raw), message.content_at)


#: Base offset, length, leader epoch, magic, checksum, and what describes the records.
BATCH_HEADER = 61


def largest_batch(answer: bytes) -> range | None:
    """Where the largest record batch of a Fetch answer lies, as far as bytes can look like one."""
    found = range(0)
    at = answer.find(b"\x02", 16)
    while at >= 0:
        start = at - 16
        base_offset, length, epoch = struct.unpack_from(">qii", answer, start)
        end = start + 12 + length
        if 0 <= base_offset < 1 << 40 and BATCH_HEADER - 12 < length and end <= len(answer) and 0 <= epoch < 1000 and end - start > len(found):
            found = range(start, end)
        at = answer.find(b"\x02", at + 1)
    return found or None


@dataclass
class FlippedBitOnTheWayThere(Fault):
    """One bit in the middle of a request's content is another one."""

    def request(self, link: LinkLike, message: Message) -> Message | None:
        if len(message.raw) <= message.content_at or not self.strikes(message):
            return message
        return flipped(message)


def flipped(message: Message) -> Message:
    raw = bytearray(message.raw)
    raw[(message.content_at + len(raw)) // 2] ^= 0x10
    return Message(message.kind, bytes(raw), message.content_at)


@dataclass
class CutRequest(Fault):
    """The connection is reset in the middle of a request."""

    share: float = 0.5

    def request(self, link: LinkLike, message: Message) -> Message | None:
        if not self.strikes(message):
            return message
        link.to_service(message.raw[: max(1, int(len(message.raw) * self.share))])
        link.reset()
        raise ConnectionOver


@dataclass
class CutAnswer(Fault):
    """The connection is reset in the middle of an answer."""

    share: float = 0.5

    def answer(self, link: LinkLike, message: Message) -> Message:
        if not self.strikes(message):
            return message
        link.to_client(message.raw[: max(1, int(len(message.raw) * self.share))])
        link.reset()
        raise ConnectionOver


@dataclass
class LostAnswer(Fault):
    """The service has done what was asked; the connection breaks before the client hears of it."""

    def answer(self, link: LinkLike, message: Message) -> Message:
        if not self.strikes(message):
            return message
        link.reset()
        raise ConnectionOver


@dataclass
class Answer(Fault):
    """An HTTP answer in place of the service's; the service never hears of the request."""

    status: int = 503
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def request(self, link: LinkLike, message: Message) -> Message | None:
        if not self.strikes(message):
            return message
        lines = [f"HTTP/1.1 {self.status} Whatever", f"Content-Length: {len(self.body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        head = "\r\n".join([*lines, "", ""]).encode()
        link.to_client(head if message.kind.startswith("HEAD ") else head + self.body)
        return None


@dataclass
class NoBrokers(Fault):
    """A broker that is just leaving its cluster, or joining it: it answers, and knows no broker, not even itself."""

    def answer(self, link: LinkLike, message: Message) -> Message:
        if message.kind != "Metadata" or not self.strikes(message):
            return message
        return Message(message.kind, without_brokers(message.raw), message.content_at)


def without_brokers(answer: bytes) -> bytes:
    """An answer of MetadataResponse version 9 or later (KIP-482), with an empty list of brokers."""
    # Length, correlation id, no tagged fields, throttle time.
    at = begin = 4 + 4 + 1 + 4
    brokers = answer[at] - 1
    at += 1
    for _ in range(brokers):
        at += 4  # its id
        at += answer[at] + 4  # its name, whose length counts one more than it has, and its port
        at += max(1, answer[at]) + 1  # its rack, or null, and no tagged fields
    frame = answer[4:begin] + b"\x01" + answer[at:]
    return len(frame).to_bytes(4, "big") + frame


@dataclass
class Watched(Fault):
    """Everything passes; answers that say so are counted. For faults that the service itself is made to have."""

    saying: bytes = b""

    def answer(self, link: LinkLike, message: Message) -> Message:
        if self.saying in message.raw:
            self._hit()
        return message


@dataclass
class Parameters(Fault):
    """The request gets further URL parameters: so ClickHouse itself refuses, with its own words."""

    added: str = ""

    def request(self, link: LinkLike, message: Message) -> Message | None:
        if not self.strikes(message):
            return message
        line, _, rest = message.raw.partition(b"\r\n")
        method, target, version = line.split(b" ")
        separator = b"&" if b"?" in target else b"?"
        changed = b" ".join([method, target + separator + self.added.encode(), version])
        return Message(message.kind, changed + b"\r\n" + rest, message.content_at + len(changed) - len(line))


def s3_error(status: int, code: str, matching: Matching = everything, every: int = 1) -> Answer:
    body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>on purpose</Message></Error>'
    return Answer(matching, every, status, body.encode(), {"Content-Type": "application/xml"})


def clickhouse_error(status: int, code: int, name: str, matching: Matching = everything) -> Answer:
    body = f"Code: {code}. DB::Exception: on purpose. ({name})\n"
    return Answer(matching, 1, status, body.encode(), {"X-ClickHouse-Exception-Code": str(code)})
