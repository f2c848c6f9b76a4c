"""The wires of the tests do what they say, no more and no less."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from blocks.faults import (
    Answer, Bandwidth, BlackHole, ConnectionOver, CutAnswer, CutRequest, Fault, FlippedBit, FlippedBitOnTheWayThere, Garbage,
    HalfOpen, Latency, LostAnswer, Parameters, Refused, Reset, kind_has, largest_batch,
)  # fmt: skip
from blocks.wire import Wire


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: list[tuple[str, bytes]]

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if len(content) == int(self.headers["Content-Length"]):
            self.served.append((self.path, content))
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        pass  # broken connections are what is tested


class Line:
    def __init__(self) -> None:
        self.served: list[tuple[str, bytes]] = []
        self.server = Server(("127.0.0.1", 0), type("Handler", (Echo,), {"served": self.served}))
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        self.wire = Wire(self.server.server_address[1], "http")
        self.session = requests.Session()

    def put(self, content: bytes = b"hello world", timeout: float = 5) -> bytes:
        return self.session.put(f"http://127.0.0.1:{self.wire.port}/a", data=content, timeout=timeout).content


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    line.wire.close()
    line.server.shutdown()
    line.server.server_close()


def test_nothing_passes_behind_a_reset(line: Line) -> None:
    line.put()
    (link,) = line.wire._standing()
    link.reset()
    with pytest.raises(ConnectionOver):
        link.to_service(b"late")


def test_everything_passes_on_a_whole_wire(line: Line) -> None:
    content = bytes(range(256)) * 4_000
    assert line.put(content) == content and line.put() == b"hello world"
    assert [len(served) for _, served in line.served] == [len(content), 11]


@pytest.mark.parametrize(
    ("fault", "is_served"),
    [
        (Refused(), False), (Reset(), False), (Garbage(), False), (CutRequest(), False), (CutAnswer(), True), (LostAnswer(), True),
        (HalfOpen(), False), (BlackHole(), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Fault) else "",
)  # fmt: skip
def test_a_broken_wire_gives_no_answer_and_a_mended_one_does(line: Line, fault: Fault, is_served: bool) -> None:
    line.put()
    with line.wire.failing(fault):
        if fault.refuses_connections:
            time.sleep(0.3)
        with pytest.raises(requests.RequestException):
            line.put(b"during", timeout=0.7)
        assert fault.hits > 0
        assert [content for _, content in line.served].count(b"during") == is_served
    assert line.put(b"after") == b"after"
    assert line.served[-1][1] == b"after"


def test_what_a_black_hole_holds_back_comes_later(line: Line) -> None:
    line.put()
    with line.wire.failing(BlackHole()):
        waiting = threading.Thread(target=line.put, args=(b"held back", 10))
        waiting.start()
        time.sleep(0.4)
        assert len(line.served) == 1
    waiting.join(5)
    assert [content for _, content in line.served] == [b"hello world", b"held back"]


def test_slow_wires(line: Line) -> None:
    for fault, content, least in ((Latency(seconds=0.2), b"x", 0.4), (Bandwidth(bytes_per_second=100_000), bytes(30_000), 0.55)):
        with line.wire.failing(fault):
            started = time.monotonic()
            assert line.put(content) == content
            assert least <= time.monotonic() - started < least + 0.6, fault


def test_what_is_changed_on_the_way(line: Line) -> None:
    with line.wire.failing(FlippedBit()):
        answer = line.put(b"00000000")
        assert sum(bin(one ^ ord("0")).count("1") for one in answer) == 1
        assert line.served[-1][1] == b"00000000"
    with line.wire.failing(FlippedBitOnTheWayThere()):
        line.put(b"00000000")
        assert line.served[-1][1] != b"00000000"
    with line.wire.failing(Parameters(added="readonly=1")):
        line.put()
        assert line.served[-1][0] == "/a?readonly=1"
    with line.wire.failing(Answer(kind_has("PUT "), 2, 503, b"no")):
        assert [line.put(), line.put()] == [b"hello world", b"no"]


def test_the_largest_batch_of_a_fetch_answer() -> None:
    def batch(records: bytes) -> bytes:
        body = struct.pack(">iB", 0, 2) + bytes(44) + records
        return struct.pack(">qi", 7, len(body)) + body

    answer = b"some header" + batch(b"small") + batch(b"not so small") + b"rest"
    found = largest_batch(answer)
    assert found is not None and answer[found.start : found.stop] == batch(b"not so small")
    assert largest_batch(b"\x02" * 40) is None
