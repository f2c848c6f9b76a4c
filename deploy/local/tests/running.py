"""The stack and its ClickHouse server, run as their users run them."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

LOCAL = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(LOCAL))


@dataclass
class Response:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def code(self) -> str | None:
        return self.headers.get("X-ClickHouse-Exception-Code")


@dataclass
class ClickHouseProcess:
    """The server as its users start it: a process of its own on a port of its choice."""

    path: Path
    process: subprocess.Popen = field(init=False)
    host: str = field(init=False)

    def start(self, *arguments: str, stdin: int | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, LOCAL / "clickhouse_http", *arguments, "--listen", "127.0.0.1:0", "--path", self.path],
            stdin=stdin,
            stdout=subprocess.PIPE,
            text=True,
        )
        line = self.process.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:"), line
        self.host = line.split("//")[1].strip()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)

    def send(self, method: str = "POST", body: bytes | Iterable[bytes] | None = None, headers: dict[str, str] | None = None, path: str = "/", **parameters: str) -> Response:
        connection = http.client.HTTPConnection(self.host, timeout=30)
        try:
            target = path + ("?" + urllib.parse.urlencode(parameters) if parameters else "")
            chunked = body is not None and not isinstance(body, bytes)
            connection.request(method, target, body=body, headers=headers or {}, encode_chunked=chunked)
            response = connection.getresponse()
            return Response(response.status, response.headers, response.read())
        finally:
            connection.close()

    def sql(self, statement: str, **parameters: str) -> str:
        """The answer to a statement that has to succeed."""
        response = self.send(body=statement.encode(), **parameters)
        assert response.status == 200, response.text
        return response.text


def stack(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [sys.executable, LOCAL / "stack", *map(str, arguments)],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=150,
    )
    if check:
        assert result.returncode == 0, result.stdout + result.stderr
    return result
