"""The embedded ClickHouse engine.

Each request gets a connection of its own. They share one engine and its data;
opening one takes about a millisecond. So settings, parameters and the current
database of a request end with it, and requests run side by side: the engine
lets go of Python's global lock while it works.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import chdb  # noqa: F401  (prepares the loading of the engine's library)
from chdb import _chdb

from .statement import Insert, quoted, quoted_name

# The engine believes that the machine is its own: it would let its caches grow
# to 5 GiB and itself to 90 % of the memory. Background merges stay at the
# embedded engine's two threads; more would take the cores from the pipeline.
ENGINE_ARGUMENTS = {
    "max_server_memory_usage": 3 << 30,
    "mark_cache_size": 64 << 20,
    "index_mark_cache_size": 16 << 20,
    "uncompressed_cache_size": 0,
    "query_condition_cache_size": 8 << 20,
    "background_pool_size": 2,
}

# A request starts from these, so that the embedded engine answers like a server.
SESSION_SETTINGS = {
    # The embedded engine reads any word as SELECT word; a server calls it a syntax error.
    "implicit_select": "0",
}

_ERROR_CODE = re.compile(r"Code: (\d+)\. ")
_ERROR_START = re.compile(r"Code: \d+\. DB::.*", re.DOTALL)


class EngineError(Exception):
    """What the engine has against a statement, in ClickHouse's own words."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code

    @classmethod
    def of(cls, error: BaseException) -> EngineError:
        message = str(error)
        code = _ERROR_CODE.search(message)
        if code is None:
            # The embedding layer itself refused: 48 is ClickHouse's NOT_IMPLEMENTED.
            return cls(48, f"Code: 48. DB::Exception: {message} (NOT_IMPLEMENTED)")
        text = _ERROR_START.search(message)
        return cls(int(code[1]), text[0] if text else message)


@dataclass
class Answer:
    body: bytes
    summary: dict[str, int] = field(default_factory=dict)

    def summary_header(self) -> str:
        # ClickHouse sends numbers as strings: 64 bits do not fit JavaScript.
        return json.dumps({name: str(value) for name, value in self.summary.items()}, separators=(",", ":"))


@dataclass(frozen=True)
class Context:
    """What of a request holds for its statement alone."""

    database: str | None
    settings: dict[str, str]
    parameters: dict[str, str]
    read_only: bool


class Engine:
    def __init__(self, path: Path, config_file: Path | None = None) -> None:
        path.mkdir(parents=True, exist_ok=True)
        named = ENGINE_ARGUMENTS | ({"config-file": str(config_file)} if config_file else {})
        arguments = "&".join(f"{name}={value}" for name, value in named.items())
        self._address = f"{path}?{arguments}"
        # Held open for as long as we run: the engine ends with its last connection.
        self._keeper = _chdb.connect(self._address)

    def close(self) -> None:
        self._keeper.close()

    @contextmanager
    def session(self, context: Context) -> Iterator[Session]:
        connection = _chdb.connect(self._address)
        try:
            session = Session(connection)
            session.prepare(context)
            yield session
        finally:
            connection.close()


class Session:
    def __init__(self, connection: _chdb.connect) -> None:
        self._connection = connection

    def prepare(self, context: Context) -> None:
        settings = SESSION_SETTINGS | context.settings
        assignments = [f"{quoted_name(name)} = {quoted(value)}" for name, value in settings.items()]
        assignments += [f"{quoted_name('param_' + name)} = {quoted(value)}" for name, value in context.parameters.items()]
        if context.database:
            self._execute(f"USE {quoted_name(context.database)}")
        self._execute("SET " + ", ".join(assignments))
        if context.read_only:
            # 2, as in ClickHouse: reading only, but settings may still be changed.
            self._execute("SET readonly = 2")

    def query(self, statement: str, output_format: str) -> Answer:
        started = time.perf_counter_ns()
        result = self._execute(statement, output_format)
        # Copied: a view does not keep the memory of its result alive, and other requests soon write there.
        body = result.bytes() if result.size() else b""
        return Answer(
            body,
            {
                "read_rows": result.storage_rows_read(),
                "read_bytes": result.storage_bytes_read(),
                "written_rows": result.rows_written(),
                "written_bytes": result.bytes_written(),
                "result_rows": result.rows_read(),
                "result_bytes": len(body),
                "elapsed_ns": time.perf_counter_ns() - started,
            },
        )

    def insert(self, insert: Insert, data: Iterable[bytes]) -> Answer:
        """Feeds the data into the engine as it arrives; memory does not grow with it."""
        started, fed = time.perf_counter_ns(), 0
        try:
            stream = self._connection.send_insert(insert.head, insert.format)
        except Exception as error:
            raise EngineError.of(error) from error
        try:
            for part in data:
                try:
                    self._connection.insert_append(stream, part)
                    fed += len(part)
                except Exception as error:
                    raise EngineError.of(error) from error
        except BaseException:
            # A broken body or a lost client: what was not finished is not inserted.
            self._cancel(stream)
            raise
        try:
            result = self._connection.insert_done(stream)
        except Exception as error:
            raise EngineError.of(error) from error
        if fed and not result.rows_written():
            raise self._kept_quiet(insert.head)
        written = {"written_rows": result.rows_written(), "written_bytes": result.bytes_written()}
        return Answer(b"", {"read_rows": written["written_rows"], "read_bytes": written["written_bytes"], **written, "elapsed_ns": time.perf_counter_ns() - started})

    def _kept_quiet(self, head: str) -> EngineError:
        """Why an INSERT wrote nothing although the engine gave no error: what fails as its first block is written (too many
        parts, say) is in the engine's statistics only, to the second. Of several there, one that names the table counts."""
        table = re.sub(r"^INSERT\s+INTO\s+|[\s(].*", "", head, flags=re.IGNORECASE | re.DOTALL).rpartition(".")[2].strip("`")
        newest = (
            "SELECT code, name, last_error_message FROM system.errors WHERE last_error_time >= now() - 2"
            f" ORDER BY position(last_error_message, {quoted(table)}) > 0 DESC, last_error_time DESC LIMIT 1 FORMAT TSVRaw"
        )
        try:
            code, name, text = bytes(self._execute(newest).bytes()).decode().rstrip("\n").split("\t", 2)
        except (EngineError, ValueError):
            code, name, text = "1002", "UNKNOWN_EXCEPTION", "the rows were not written, and the engine does not say why"
        return EngineError(int(code), f"Code: {code}. DB::Exception: {text} ({name})")

    def _cancel(self, stream: _chdb.streaming_insert_result) -> None:
        try:
            self._connection.insert_cancel(stream)
        except Exception:
            pass  # it failed already, and the connection is closed next

    def _execute(self, statement: str, output_format: str = "TabSeparated") -> _chdb.query_result:
        try:
            result = self._connection.query(statement, output_format)
        except Exception as error:
            raise EngineError.of(error) from error
        if result.has_error():
            raise EngineError.of(RuntimeError(result.error_message()))
        return result
