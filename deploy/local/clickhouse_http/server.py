"""ClickHouse's HTTP interface: one thread a connection, one engine for all."""

from __future__ import annotations

import argparse
import gzip
import itertools
import os
import signal
import sys
import threading
import urllib.parse
import uuid
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from . import body, compression
from .engine import Answer, Context, Engine, EngineError
from .statement import Insert, is_insert, output_format, parse_insert
from .status import http_status

DEFAULT_FORMAT = "TabSeparated"
# A statement in the body is read up to here in search of its end; an INSERT's
# data may follow it and is never collected.
LARGEST_STATEMENT = 64 << 20
CONTENT_TYPES = {
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TSV": "text/tab-separated-values; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "RowBinary": "application/octet-stream",
    "RowBinaryWithNames": "application/octet-stream",
    "RowBinaryWithNamesAndTypes": "application/octet-stream",
    "Native": "application/octet-stream",
    "Parquet": "application/octet-stream",
    "Arrow": "application/octet-stream",
    "ArrowStream": "application/octet-stream",
}
# Of the URL's parameters these steer the request; all others are settings.
# User and password are taken and not looked at: the engine has no users.
RESERVED = {
    "query", "database", "default_format", "user", "password", "quota_key", "query_id", "role",
    "session_id", "session_timeout", "session_check", "compress", "decompress", "buffer_size",
    "wait_end_of_query", "stacktrace", "client_protocol_version", "close_session",
    "enable_http_compression", "http_zlib_compression_level", "add_http_cors_header",
}  # fmt: skip


class Refused(Exception):
    """A request that this server cannot serve, with the status that says so."""

    def __init__(self, status: int, code: int, text: str) -> None:
        super().__init__(f"Code: {code}. DB::Exception: {text}")
        self.status = status
        self.code = code


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "kappa-clickhouse-http"
    sys_version = ""
    # Answers are written in two parts, headers and body: without this the second
    # would wait for the client's delayed acknowledgement, 40 ms on every request.
    disable_nagle_algorithm = True
    wbufsize = 64 << 10
    rbufsize = 256 << 10
    server: Server

    def do_GET(self) -> None:
        self._handle(read_only=True)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self._handle(read_only=False)

    do_PUT = do_POST

    def handle_expect_100(self) -> bool:
        proceed = super().handle_expect_100()
        self.wfile.flush()  # the client waits for this line before it sends the body
        return proceed

    def _handle(self, read_only: bool) -> None:
        address = urllib.parse.urlsplit(self.path)
        parameters = dict(urllib.parse.parse_qsl(address.query, keep_blank_values=True, errors="surrogateescape"))
        query_id = parameters.get("query_id") or str(uuid.uuid4())
        self._body = body.raw_parts(self.rfile, self.headers)
        self._left_unread = False
        with self.server.counted():
            try:
                if address.path in ("/ping", "/replicas_status"):
                    self._send(200, b"Ok.\n", {"Content-Type": "text/html; charset=UTF-8"})
                elif address.path != "/":
                    raise Refused(404, 0, f"There is no handle {address.path}. Use / or /ping")
                elif "query" not in parameters and not self._has_body():
                    self._send(200, b"Ok.\n", {"Content-Type": "text/html; charset=UTF-8"})
                else:
                    self._statement(parameters, query_id, read_only)
            except EngineError as error:
                self._send_error(http_status(error.code), error.code, str(error), query_id)
            except Refused as error:
                self._send_error(error.status, error.code, str(error), query_id)
            except (body.BadBody, compression.BadBlock) as error:
                self._left_unread = True
                self._send_error(400, 33, f"Code: 33. DB::Exception: {error} (CANNOT_READ_ALL_DATA)", query_id)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

    def _has_body(self) -> bool:
        return "Transfer-Encoding" in self.headers or int(self.headers.get("Content-Length") or 0) > 0

    def _statement(self, parameters: dict[str, str], query_id: str, read_only: bool) -> None:
        if parameters.get("session_id"):
            raise Refused(501, 48, "sessions (session_id) are not supported here: put the settings into each request (NOT_IMPLEMENTED)")
        settings = {name: value for name, value in parameters.items() if name not in RESERVED and not name.startswith("param_")}
        context = Context(
            database=parameters.get("database") or self.headers.get("X-ClickHouse-Database"),
            settings=settings,
            parameters={name.removeprefix("param_"): value for name, value in parameters.items() if name.startswith("param_")},
            read_only=read_only,
        )
        parts = self._decoded(parameters)
        statement, insert = self._split(parameters.get("query", ""), parts)
        wanted = parameters.get("default_format") or self.headers.get("X-ClickHouse-Format") or DEFAULT_FORMAT
        with self.server.engine.session(context) as session:
            if insert is not None:
                answer = session.insert(insert, itertools.chain([insert.inline_data] if insert.inline_data else [], parts))
                self._send_answer(answer, None, parameters, query_id)
                return
            if not statement.strip():
                raise Refused(400, 62, "Syntax error: failed at position 1 (end of query): Empty query. (SYNTAX_ERROR)")
            answer = session.query(statement, wanted)
            self._send_answer(answer, output_format(statement) or wanted, parameters, query_id)

    def _split(self, url_query: str, parts: Iterator[bytes]) -> tuple[str, Insert | None]:
        """The statement, and if rows follow it, the INSERT; `parts` then holds what is left of the data."""
        text = url_query.encode("utf-8", errors="surrogateescape")
        if text.strip():
            insert = parse_insert(text)
            if insert is not None:
                return "", insert
            if is_insert(url_query) and self._has_body() and "select" not in url_query.lower():
                # `INSERT INTO t` alone: the format is in a parameter or its default.
                raise Refused(400, 62, "an INSERT with data in the body needs `FORMAT name` at its end (SYNTAX_ERROR)")
            if is_insert(url_query) and self._has_body():
                raise Refused(501, 48, "INSERT ... SELECT ... FROM input() is not supported here: insert into a table with FORMAT (NOT_IMPLEMENTED)")
            if self._has_body():
                # As ClickHouse does it: the body continues the query of the URL.
                text += b"\n"
        collected = bytearray(text)
        for part in parts:
            collected += part
            insert = parse_insert(bytes(collected)) if is_insert(bytes(collected[:4096]).decode("latin-1")) else None
            if insert is not None:
                return "", insert
            if len(collected) > LARGEST_STATEMENT:
                raise Refused(413, 62, f"a statement of more than {LARGEST_STATEMENT} bytes (SYNTAX_ERROR)")
        return collected.decode("utf-8", errors="surrogateescape"), None

    def _decoded(self, parameters: dict[str, str]) -> Iterator[bytes]:
        parts: Iterable[bytes] = self._body
        encoding = self.headers.get("Content-Encoding", "identity").lower()
        if encoding == "gzip":
            parts = body.gunzipped(parts)
        elif encoding != "identity":
            raise Refused(501, 48, f"Content-Encoding {encoding} is not supported here: send gzip or nothing (NOT_IMPLEMENTED)")
        if _is_on(parameters.get("decompress")):
            parts = compression.decompressed(parts)
        return iter(parts)

    def _send_answer(self, answer: Answer, format_name: str | None, parameters: dict[str, str], query_id: str) -> None:
        headers = {
            "X-ClickHouse-Query-Id": query_id,
            "X-ClickHouse-Server-Display-Name": "kappa-local",
            "X-ClickHouse-Timezone": "UTC",
            "X-ClickHouse-Summary": answer.summary_header(),
        }
        if format_name:
            headers["X-ClickHouse-Format"] = format_name
            headers["Content-Type"] = CONTENT_TYPES.get(format_name, "text/plain; charset=UTF-8")
        payload = answer.body
        if _is_on(parameters.get("compress")):
            payload = b"".join(compression.compressed(payload))
        elif _is_on(parameters.get("enable_http_compression")) and "gzip" in self.headers.get("Accept-Encoding", ""):
            payload = gzip.compress(payload, compresslevel=1)
            headers["Content-Encoding"] = "gzip"
        self._send(200, payload, headers)

    def _send_error(self, status: int, code: int, text: str, query_id: str) -> None:
        self._send(
            status,
            text.rstrip().encode("utf-8", errors="replace") + b"\n",
            {
                "Content-Type": "text/plain; charset=UTF-8",
                "X-ClickHouse-Exception-Code": str(code),
                "X-ClickHouse-Query-Id": query_id,
            },
        )

    def _send(self, status: int, payload: bytes | memoryview, headers: dict[str, str]) -> None:
        self._drain()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(payload)))
        if self.close_connection or self.server.stopping:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload)
        self.wfile.flush()

    def _drain(self) -> None:
        """Reads on to the end of the request, so that the connection can serve the next one
        and the client, which may still be writing, gets to see the answer."""
        if self._left_unread:
            self.close_connection = True
            return
        try:
            for _ in self._body:
                pass
        except body.BadBody:
            self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        pass  # one line a request is of no use to anybody here


def _is_on(value: str | None) -> bool:
    return value not in (None, "", "0", "false")


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], engine: Engine) -> None:
        self.engine = engine
        self.stopping = False
        self._running = 0
        self._idle = threading.Condition()
        super().__init__(address, Handler)

    def counted(self) -> _Counted:
        return _Counted(self)

    def entered(self, by: int) -> None:
        with self._idle:
            self._running += by
            self._idle.notify_all()

    def finish_requests(self, timeout: float) -> bool:
        """Waits until no request is being served. False when some are left."""
        with self._idle:
            return self._idle.wait_for(lambda: self._running == 0, timeout)

    def handle_error(self, request: object, client_address: object) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Counted:
    """Holds the server open while one request is served."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def __enter__(self) -> None:
        self._server.entered(1)

    def __exit__(self, *_: object) -> None:
        self._server.entered(-1)


def _wait_for_end_of_stdin(stop: threading.Event) -> None:
    while sys.stdin.buffer.read(4096):
        pass
    stop.set()


def main() -> int:
    parser = argparse.ArgumentParser(prog="clickhouse_http", description="The ClickHouse engine behind ClickHouse's HTTP interface.")
    parser.add_argument("--listen", default="127.0.0.1:8123", metavar="HOST:PORT", help="port 0: any free one, printed in the first line")
    parser.add_argument("--path", type=Path, required=True, metavar="DIR", help="where the data is kept")
    parser.add_argument("--config-file", type=Path, metavar="FILE", help="a configuration of ClickHouse's own; what it says of the user `default`, rights and settings, holds for everybody")
    parser.add_argument("--shutdown-timeout", type=float, default=15.0, metavar="SECONDS", help="how long running requests may take to finish")
    parser.add_argument("--end-with-stdin", action="store_true", help="end when standard input is closed: with the process that holds the other end")
    options = parser.parse_args()
    host, _, port = options.listen.rpartition(":")
    if not host or not port.isdigit():
        parser.error(f"--listen takes HOST:PORT, not {options.listen!r}")

    try:
        engine = Engine(options.path.absolute(), options.config_file and options.config_file.absolute())
    except Exception as error:
        print(f"clickhouse_http: cannot open {options.path}: {error}", file=sys.stderr)
        return 1
    try:
        server = Server((host, int(port)), engine)
    except OSError as error:
        print(f"clickhouse_http: cannot listen on {options.listen}: {error.strerror}", file=sys.stderr)
        return 1

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if options.end_with_stdin:
        threading.Thread(target=_wait_for_end_of_stdin, args=(stop,), daemon=True).start()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    print(f"listening on http://{host}:{server.server_address[1]}", flush=True)

    while not stop.wait(1.0):
        pass
    server.stopping = True
    server.shutdown()
    finished = server.finish_requests(options.shutdown_timeout)
    server.server_close()
    if finished:
        engine.close()
    # The engine has threads of its own; leaving the usual way would wait for them.
    sys.stdout.flush()
    os._exit(0 if finished else 1)
