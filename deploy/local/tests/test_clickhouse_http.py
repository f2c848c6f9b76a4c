"""The HTTP layer around the ClickHouse engine, driven over the socket as clients do."""

from __future__ import annotations

import gzip
import itertools
import json
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest
from running import ClickHouseProcess

from clickhouse_http.cityhash import city_hash_128
from clickhouse_http.compression import HEADER, LZ4, compressed, decompressed
from clickhouse_http.statement import output_format, parse_insert

WINDOWS = """
CREATE TABLE {table} (
    sensor_id String,
    metric LowCardinality(String),
    window_start DateTime64(3, 'UTC') DEFAULT '2025-11-24 16:00:00',
    quality Enum8('GOOD' = 0, 'BAD' = 1),
    mean Float64,
    battery Nullable(Float64),
    note String DEFAULT 'none',
    version UInt64
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toDate(window_start)
ORDER BY (sensor_id, metric, window_start)
TTL toDateTime(window_start) + INTERVAL 30 YEAR
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
"""
COLUMNS = "(sensor_id, metric, window_start, quality, mean, battery, version)"
START = 1_764_000_000_000
NUMBERS = itertools.count()


def string(text: str) -> bytes:
    raw = text.encode()
    assert len(raw) < 128
    return bytes([len(raw)]) + raw


def window(sensor: int, minute: int, mean: float = 1.5, version: int = 1, battery: float | None = None) -> bytes:
    null = b"\x01" if battery is None else b"\x00" + struct.pack("<d", battery)
    return string(f"sensor-{sensor}") + string("TEMPERATURE") + struct.pack("<qbd", START + minute * 60_000, 1, mean) + null + struct.pack("<Q", version)


@pytest.fixture
def table(clickhouse: ClickHouseProcess) -> str:
    name = f"windows_{next(NUMBERS)}"
    clickhouse.sql(WINDOWS.format(table=name))
    return name


def insert(clickhouse: ClickHouseProcess, table: str, body, headers=None, format_name="RowBinary", **parameters):
    return clickhouse.send(body=body, headers=headers, query=f"INSERT INTO {table} {COLUMNS} FORMAT {format_name}", **parameters)


def test_ping_and_root(clickhouse):
    for path in ("/ping", "/"):
        response = clickhouse.send("GET", path=path)
        assert (response.status, response.body) == (200, b"Ok.\n")
    assert clickhouse.send("GET", path="/nothing").status == 404


def test_row_binary_with_length_and_chunked(clickhouse, table):
    response = insert(clickhouse, table, b"".join(window(1, minute) for minute in range(10)))
    assert response.status == 200, response.text
    assert json.loads(response.headers["X-ClickHouse-Summary"])["written_rows"] == "10"
    # Chunks that end in the middle of rows, and of values.
    data = b"".join(window(2, minute, battery=3.5) for minute in range(1_000))
    response = insert(clickhouse, table, (data[at : at + 777] for at in range(0, len(data), 777)))
    assert response.status == 200, response.text
    answer = clickhouse.sql(f"SELECT sensor_id, count(), sum(battery), any(note), any(quality), min(window_start), any(toTypeName(metric)) FROM {table} GROUP BY 1 ORDER BY 1")
    assert answer.splitlines() == [
        "sensor-1\t10\t\\N\tnone\tBAD\t2025-11-24 16:00:00.000\tLowCardinality(String)",
        "sensor-2\t1000\t3500\tnone\tBAD\t2025-11-24 16:00:00.000\tLowCardinality(String)",
    ]


def test_row_binary_with_names_and_types(clickhouse, table):
    names = ("sensor_id", "window_start", "version")
    types = ("String", "DateTime64(3, 'UTC')", "UInt64")
    header = bytes([3]) + b"".join(map(string, names)) + b"".join(map(string, types))
    row = string("s") + struct.pack("<qQ", START, 9)
    query = f"INSERT INTO {table} (sensor_id, window_start, version) FORMAT RowBinaryWithNamesAndTypes"
    assert clickhouse.send(body=header + row, query=query).status == 200
    assert clickhouse.sql(f"SELECT sensor_id, version FROM {table}") == "s\t9\n"
    wrong = header.replace(string("UInt64"), string("String"))
    response = clickhouse.send(body=wrong + row, query=query)
    assert (response.status, response.code) == (400, "117")


@pytest.mark.parametrize(
    ("format_name", "data"),
    [
        ("JSONEachRow", b'{"sensor_id":"a"}\n{"sensor_id":"b","mean":2}\n'),
        ("CSV", b'"a","m",1,"GOOD",1,2,"n",3\n"b","m",1,"BAD",1,\\N,"n",3\n'),
        ("TSV", b"a\tm\t1\tGOOD\t1\t2\tn\t3\nb\tm\t1\tBAD\t1\t\\N\tn\t3\n"),
    ],
)
def test_other_formats_with_the_statement_in_url_or_body(clickhouse, table, format_name, data):
    statement = f"INSERT INTO {table} FORMAT {format_name}"
    assert clickhouse.send(body=data, query=statement).status == 200
    assert clickhouse.send(body=statement.encode() + b"\n" + data).status == 200
    assert clickhouse.send(body=statement.encode() + b"\r\n" + data).status == 200
    # Each insert brings the same two keys.
    assert clickhouse.sql(f"SELECT count(), uniq(sensor_id) FROM {table} FINAL") == "2\t2\n"


def test_values_and_insert_select(clickhouse, table):
    clickhouse.sql(f"INSERT INTO {table} (sensor_id, mean) VALUES ('it''s (a; FORMAT CSV)', 1), ('b', 2)")
    clickhouse.sql(f"INSERT INTO {table} (sensor_id, mean) SELECT 'c' || toString(number), number FROM numbers(5)")
    assert clickhouse.sql(f"SELECT count(), countIf(sensor_id = 'it''s (a; FORMAT CSV)') FROM {table}") == "7\t1\n"


def test_parquet_round_trip(clickhouse, table):
    clickhouse.sql(f"INSERT INTO {table} (sensor_id, mean) SELECT toString(number), number FROM numbers(1000)")
    parquet = clickhouse.send("GET", query=f"SELECT sensor_id || 'x' AS sensor_id, mean FROM {table} FORMAT Parquet")
    assert parquet.body.startswith(b"PAR1") and parquet.headers["X-ClickHouse-Format"] == "Parquet"
    copied = clickhouse.send(body=parquet.body, query=f"INSERT INTO {table} (sensor_id, mean) FORMAT Parquet")
    assert copied.status == 200, copied.text
    assert clickhouse.sql(f"SELECT count(), sum(mean) FROM {table}") == "2000\t999000\n"


def test_time_to_live(clickhouse, table):
    clickhouse.sql(f"INSERT INTO {table} (sensor_id, window_start) VALUES ('old', '1990-01-01 00:00:00'), ('new', '2025-01-01 00:00:00')")
    clickhouse.sql(f"OPTIMIZE TABLE {table} FINAL")
    assert clickhouse.sql(f"SELECT sensor_id FROM {table}") == "new\n"
    assert clickhouse.sql(f"SELECT count() FROM system.parts WHERE table = '{table}' AND active AND rows > 0") == "1\n"


def test_replacing_merge_tree_final(clickhouse, table):
    for version, mean in ((1, 10.0), (3, 30.0), (2, 20.0)):
        assert insert(clickhouse, table, window(7, 0, mean, version)).status == 200
    assert clickhouse.sql(f"SELECT mean, version FROM {table} FINAL") == "30\t3\n"


def test_select_formats_and_headers(clickhouse):
    query = "SELECT 1 AS x, 'a' AS y"
    response = clickhouse.send("GET", query=query)
    assert response.body == b"1\ta\n" and response.headers["X-ClickHouse-Format"] == "TabSeparated"
    assert clickhouse.send("GET", query=query, default_format="CSV").body == b'1,"a"\n'
    assert clickhouse.send("GET", query=query + " FORMAT JSONEachRow", default_format="CSV").body == b'{"x":1,"y":"a"}\n'
    assert clickhouse.send("GET", query=query, headers={"X-ClickHouse-Format": "JSONCompactEachRow"}).body == b'[1, "a"]\n'
    assert clickhouse.send("GET", query=query + " FORMAT RowBinaryWithNamesAndTypes").body == b"\x02\x01x\x01y\x05UInt8\x06String\x01\x01a"
    response = clickhouse.send("POST", body=query.encode() + b" FORMAT JSON;", query_id="mine")
    assert json.loads(response.body)["data"] == [{"x": 1, "y": "a"}]
    assert response.headers["Content-Type"] == "application/json; charset=UTF-8"
    assert response.headers["X-ClickHouse-Query-Id"] == "mine"
    assert clickhouse.send("POST", body=b"1, 2", query="SELECT").body == b"1\t2\n"
    assert clickhouse.send("GET", query="SELECT 1 WHERE 0").body == b""


def test_parameters_settings_and_database_end_with_the_request(clickhouse):
    clickhouse.sql("CREATE DATABASE IF NOT EXISTS other")
    awkward = "it's a \\ `test` \u00fc"
    escaped = awkward.replace("\\", "\\\\")  # parameters travel in ClickHouse's escaped form
    assert clickhouse.sql("SELECT {text:String} FORMAT RawBLOB", param_text=escaped) == awkward
    assert clickhouse.sql("SELECT {n:UInt64} + 1, {ids:Array(String)}", param_n="41", param_ids="['a','b']") == "42\t['a','b']\n"
    changed = "SELECT getSetting('max_block_size'), currentDatabase()"
    before = clickhouse.sql(changed)
    assert clickhouse.sql(changed, max_block_size="12345", database="other") == "12345\tother\n"
    assert clickhouse.sql(changed) == before
    credentials = {"X-ClickHouse-User": "kappa", "X-ClickHouse-Key": "x", "Authorization": "Basic a2FwcGE6eA=="}
    assert clickhouse.send("GET", query="SELECT 1", headers=credentials, user="u", password="p").status == 200


@pytest.mark.parametrize(
    ("statement", "parameters", "status", "code"),
    [
        ("SELECT * FROM no_such_table", {}, 404, "60"),
        ("SELECT * FROM no_such_database.t", {}, 404, "81"),
        ("SELECT 1", {"database": "no_such_database"}, 404, "81"),
        ("SELECT 1", {"no_such_setting": "1"}, 404, "115"),
        ("SELECT no_such_column", {}, 404, "47"),
        ("SELECT no_such_function(1)", {}, 404, "46"),
        ("SELECT 1 FORMAT NoSuchFormat", {}, 404, "73"),
        ("SELEC 1", {}, 400, "62"),
        ("garbage", {}, 400, "62"),
        ("   ", {}, 400, "62"),
        ("SELECT toUInt8('x')", {}, 400, "6"),
        ("SELECT throwIf(1)", {}, 500, "395"),
        ("SELECT sleepEachRow(1) FROM numbers(3)", {"max_execution_time": "1", "max_block_size": "1"}, 408, "159"),
        ("SELECT 1", {"session_id": "s"}, 501, "48"),
    ],
)
def test_error_codes(clickhouse, statement, parameters, status, code):
    response = clickhouse.send(body=statement.encode(), **parameters)
    assert (response.status, response.code) == (status, code), response.text
    assert response.text.startswith(f"Code: {code}. DB::Exception: ")


def test_get_is_read_only(clickhouse, table):
    for statement in (f"INSERT INTO {table} (sensor_id) VALUES ('x')", f"DROP TABLE {table}", "CREATE TABLE z (a Int8) ENGINE = Memory"):
        response = clickhouse.send("GET", query=statement)
        assert (response.status, response.code) == (500, "164"), response.text
    assert clickhouse.send("GET", query="SELECT 1", max_threads="1").status == 200


def test_what_fails_as_the_first_block_is_written_is_told(clickhouse, table):
    """The embedding layer says nothing of it."""
    for minute in (0, 1):
        assert insert(clickhouse, table, window(1, minute)).status == 200
    refused = insert(clickhouse, table, window(1, 2), parts_to_throw_insert="1")
    assert refused.code == "252" and "TOO_MANY_PARTS" in refused.text


def test_broken_bodies_insert_nothing(clickhouse, table):
    rows = window(1, 0) + window(1, 1)
    response = insert(clickhouse, table, rows[:-3])
    assert (response.status, response.code) == (500, "33")
    # A client that goes away in the middle of what it promised.
    host, port = clickhouse.host.split(":")
    with socket.create_connection((host, int(port))) as lost:
        query = f"INSERT%20INTO%20{table}%20(sensor_id)%20FORMAT%20TSV"
        lost.sendall(f"POST /?query={query} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf\n".encode())
        lost.shutdown(socket.SHUT_WR)
        assert b"400 Bad Request" in lost.recv(4096)
    assert clickhouse.sql(f"SELECT count() FROM {table}") == "0\n"
    assert insert(clickhouse, table, rows).status == 200


def test_unknown_table_answers_although_the_client_still_sends(clickhouse):
    response = clickhouse.send(body=b"x" * 20_000_000, query="INSERT INTO nowhere FORMAT RowBinary")
    assert (response.status, response.code) == (404, "60")


def test_content_encoding(clickhouse, table):
    rows = b"".join(window(1, minute) for minute in range(100))
    assert insert(clickhouse, table, gzip.compress(rows), headers={"Content-Encoding": "gzip"}).status == 200
    refused = insert(clickhouse, table, rows, headers={"Content-Encoding": "br"})
    assert refused.status == 501 and "gzip" in refused.text
    assert clickhouse.sql(f"SELECT count() FROM {table}") == "100\n"
    response = clickhouse.send("GET", query="SELECT 'a'", headers={"Accept-Encoding": "gzip"}, enable_http_compression="1")
    assert gzip.decompress(response.body) == b"a\n"


def test_clickhouse_compressed_blocks(clickhouse, table):
    # The check sum of an answer is what clients verify; this value is CityHash 1.0.2's.
    assert city_hash_128(bytes(range(200))) == (0x275774699E23B6FD, 0x5682EF01EBE7289C)
    rows = b"".join(window(1, minute) for minute in range(5_000))
    assert insert(clickhouse, table, b"".join(compressed(rows)), decompress="1").status == 200
    # A real LZ4 block: "a", then a match of it.
    lz4 = b"\x1aa\x01\x00\x50\x0ab\tc\t"
    block = bytes(16) + HEADER.pack(LZ4, HEADER.size + len(lz4), 20) + lz4
    assert b"".join(decompressed([block])) == b"a" * 15 + b"\nb\tc\t"
    response = clickhouse.send("GET", query=f"SELECT mean FROM {table} FORMAT RowBinary", compress="1")
    assert b"".join(decompressed([response.body])) == struct.pack("<d", 1.5) * 5_000
    damaged = insert(clickhouse, table, rows, decompress="1")
    assert damaged.status == 400 and "compress" in damaged.text
    assert clickhouse.sql(f"SELECT count() FROM {table}") == "5000\n"


def test_inserts_go_on_while_a_slow_select_runs(clickhouse, table):
    done = threading.Event()

    def slow() -> None:
        clickhouse.sql("SELECT count() FROM numbers(40) WHERE NOT ignore(sleepEachRow(0.1))", max_block_size="1")
        done.set()

    def write(sensor: int) -> None:
        for minute in range(5):
            assert insert(clickhouse, table, window(sensor, minute)).status == 200

    reader = threading.Thread(target=slow)
    reader.start()
    writers = [threading.Thread(target=write, args=(sensor,)) for sensor in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not done.is_set(), "the inserts waited for the SELECT"
    reader.join()
    assert clickhouse.sql(f"SELECT count() FROM {table} FINAL") == "20\n"


def test_restart_and_crash_keep_what_was_acknowledged(tmp_path):
    server = ClickHouseProcess(tmp_path)
    server.start()
    server.sql(WINDOWS.format(table="windows"))
    assert insert(server, "windows", window(1, 0)).status == 200
    assert server.end() == 0
    server.start()
    acknowledged = 1
    stop = threading.Event()

    def write() -> None:
        nonlocal acknowledged
        for minute in range(1, 10_000):
            try:
                if insert(server, "windows", window(1, minute)).status != 200:
                    return
            except OSError:
                return
            acknowledged = minute + 1
            if stop.is_set():
                return

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(1.5)
    server.end(signal.SIGKILL)
    stop.set()
    writer.join()
    server.start()
    try:
        found = int(server.sql("SELECT count() FROM windows"))
        # One more may have been written whose answer the crash cut off.
        assert acknowledged > 1 and acknowledged <= found <= acknowledged + 1
        assert server.sql(f"SELECT max(window_start) = fromUnixTimestamp64Milli({START} + {found - 1} * 60000) FROM windows") in ("1\n",)
    finally:
        server.end()


def test_it_ends_with_whoever_holds_its_standard_input(tmp_path):
    server = ClickHouseProcess(tmp_path)
    server.start("--end-with-stdin", stdin=subprocess.PIPE)
    server.process.stdin.write("whatever")
    server.process.stdin.flush()
    assert server.sql("SELECT 1") == "1\n"
    server.process.stdin.close()
    assert server.process.wait(30) == 0


def test_sigterm_lets_running_requests_finish(tmp_path):
    server = ClickHouseProcess(tmp_path)
    server.start()
    answers: list[str] = []
    slow = threading.Thread(target=lambda: answers.append(server.sql("SELECT sum(sleepEachRow(0.1)) FROM numbers(10)", max_block_size="1")))
    slow.start()
    time.sleep(0.3)
    assert server.end() == 0
    slow.join()
    assert answers == ["0\n"]


@pytest.mark.parametrize(
    ("statement", "head", "format_name", "data"),
    [
        (b"INSERT INTO t FORMAT RowBinary", "INSERT INTO t", "RowBinary", b""),
        (b"insert into `a b`.`c`(`d`,`e f`) format RowBinary\n\x00\xff", "insert into `a b`.`c`(`d`,`e f`)", "RowBinary", b"\x00\xff"),
        (b"-- why\nINSERT INTO TABLE d.t (a) SETTINGS x = 1, y='q' FORMAT CSV\n\n1", "INSERT INTO TABLE d.t (a) SETTINGS x = 1, y='q'", "CSV", b"\n1"),
        (b"INSERT INTO t FORMAT CSV SETTINGS x=1", "INSERT INTO t SETTINGS x=1", "CSV", b""),
        (b"INSERT INTO FUNCTION null('a Int8') FORMAT TSV\r\n1", "INSERT INTO FUNCTION null('a Int8')", "TSV", b"1"),
        (b"INSERT INTO t (a) VALUES (1)", "INSERT INTO t (a)", "Values", b" (1)"),
    ],
)
def test_where_an_insert_ends_and_its_data_begins(statement, head, format_name, data):
    parsed = parse_insert(statement)
    assert (parsed.head, parsed.format, parsed.inline_data) == (head, format_name, data)


def test_statements_without_data():
    for statement in (b"SELECT 1 FORMAT CSV", b"INSERT INTO t SELECT 1 FORMAT CSV", b"CREATE TABLE t (a Int8)", b""):
        assert parse_insert(statement) is None
    assert output_format("SELECT 'FORMAT x' FORMAT CSV SETTINGS max_threads = 1 ;\n") == "CSV"
    assert output_format("SELECT format FROM t") is None
