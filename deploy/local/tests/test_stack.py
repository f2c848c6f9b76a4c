"""Two stacks side by side, driven as people drive them: by the command line."""

from __future__ import annotations

import http.client
import json
import os
import shlex
import signal
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from running import stack

from kappa_stack import layout as layout_module
from kappa_stack.process import Process
from kappa_stack.s3_client import S3Client

SERVICES = ("kafka", "registry", "s3", "clickhouse")
SCHEMA = {"type": "record", "name": "Reading", "fields": [{"name": "value", "type": "double"}]}


def environment(directory: Path) -> dict[str, str]:
    lines = (directory / "env").read_text().splitlines()
    assignments = [shlex.split(line)[1] for line in lines if line.startswith("export ")]
    return dict(assignment.split("=", 1) for assignment in assignments)


def http_request(url: str, method: str = "GET", body: object = None) -> tuple[int, object]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=20)
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        payload = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method, target or "/", body=payload, headers={"Content-Type": "application/vnd.schemaregistry.v1+json"})
        response = connection.getresponse()
        text = response.read()
    finally:
        connection.close()
    try:
        return response.status, json.loads(text)
    except ValueError:
        return response.status, text.decode()


def s3_client(env: dict[str, str]) -> S3Client:
    parts = urlsplit(env["S3_ENDPOINT"])
    return S3Client(parts.hostname, parts.port, env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], env["AWS_REGION"])


def processes_of(directory: Path) -> list[int]:
    """Every process whose command line names the directory."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if process.info["status"] != psutil.STATUS_ZOMBIE and any(str(directory) in part for part in process.info["cmdline"] or ()):
            found.append(process.pid)
    return found


@pytest.fixture(scope="module")
def stacks(tmp_path_factory):
    """Both at once: the second must neither disturb nor wait for the first."""
    directories = [tmp_path_factory.mktemp(name) / "stack" for name in ("one", "two")]
    failures: list[str] = []

    def bring_up(directory: Path) -> None:
        result = stack("up", "--dir", directory, check=False)
        if result.returncode:
            failures.append(result.stdout + result.stderr)

    threads = [threading.Thread(target=bring_up, args=(directory,)) for directory in directories]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert not failures, failures
        yield directories
    finally:
        for directory in directories:
            stack("down", "--dir", directory, check=False)


@pytest.fixture(scope="module")
def one(stacks) -> Path:
    return stacks[0]


def test_environment_names_everything_a_client_needs(stacks):
    first, second = map(environment, stacks)
    expected = {"KAFKA_BROKERS", "REGISTRY_URL", "S3_ENDPOINT", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ALLOW_HTTP", "CLICKHOUSE_URL"}
    assert first.keys() == expected == second.keys()
    for name in ("KAFKA_BROKERS", "REGISTRY_URL", "S3_ENDPOINT", "CLICKHOUSE_URL"):
        assert "127.0.0.1:" in first[name] and first[name] != second[name]
    assert first["REGISTRY_URL"].endswith("/apis/ccompat/v7")
    assert stack("env", "--dir", stacks[0]).stdout == (stacks[0] / "env").read_text()


def test_both_answer_and_listen_on_loopback_only(stacks):
    for directory in stacks:
        assert stack("status", "--dir", directory).stdout.count(" answers ") == len(SERVICES)
        for service in SERVICES:
            known = Process(directory / "run" / f"{service}.pid").running()
            listening = {entry.laddr.ip for entry in psutil.Process(known.pid).net_connections("tcp") if entry.status == psutil.CONN_LISTEN}
            assert listening <= {"127.0.0.1", "::ffff:127.0.0.1"}, (service, listening)


def test_up_again_changes_nothing(one):
    before = (one / "env").read_text()
    assert "already up" in stack("up", "--dir", one).stdout
    assert (one / "env").read_text() == before


def test_kafka_keeps_records_over_a_crash_and_knows_no_topic_unasked(one):
    brokers = environment(one)["KAFKA_BROKERS"]
    admin = AdminClient({"bootstrap.servers": brokers})
    admin.create_topics([NewTopic("readings")])["readings"].result(20)
    assert len(admin.list_topics("readings", 10).topics["readings"].partitions) == 12
    producer = Producer({"bootstrap.servers": brokers})
    producer.produce("readings", b"before", partition=3)
    assert producer.flush(10) == 0
    assert "unasked" not in admin.list_topics(timeout=10).topics
    with pytest.raises(KafkaException):
        consumer = Consumer({"bootstrap.servers": brokers, "group.id": "g"})
        consumer.get_watermark_offsets(TopicPartition("unasked", 0), timeout=3)
    stack("kill", "kafka", "--dir", one)
    assert "stopped" in stack("status", "--dir", one, check=False).stdout
    stack("start", "kafka", "--dir", one)
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "g", "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition("readings", 3, 0)])
    message = consumer.poll(20)
    consumer.close()
    assert message.value() == b"before"


def test_retention_can_overrun_in_seconds(one):
    brokers = environment(one)["KAFKA_BROKERS"]
    admin = AdminClient({"bootstrap.servers": brokers})
    short = {"retention.ms": "500", "segment.ms": "500"}
    admin.create_topics([NewTopic("short", 1, 1, config=short)])["short"].result(20)
    producer = Producer({"bootstrap.servers": brokers})
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "g"})
    low, deadline = 0, time.monotonic() + 20
    while low == 0 and time.monotonic() < deadline:
        producer.produce("short", b"x")
        producer.flush(10)
        time.sleep(0.3)
        low, _ = consumer.get_watermark_offsets(TopicPartition("short", 0), timeout=10)
    consumer.close()
    assert low > 0


def register(url: str) -> int:
    status, answer = http_request(f"{url}/subjects/readings-value/versions", "POST", {"schema": json.dumps(SCHEMA)})
    assert status == 200, answer
    return answer["id"]


def test_registry_keeps_ids_over_a_crash(one):
    url = environment(one)["REGISTRY_URL"]
    number = register(url)
    stack("kill", "registry", "--dir", one)
    with pytest.raises(OSError):
        http_request(f"{url}/subjects")
    stack("start", "registry", "--dir", one)
    status, answer = http_request(f"{url}/schemas/ids/{number}")
    assert status == 200 and json.loads(answer["schema"]) == SCHEMA
    # What the pipeline takes for "the registry says it does not know this id".
    status, answer = http_request(f"{url}/schemas/ids/999999")
    assert (status, answer["error_code"]) == (404, 40403)


def test_s3_keeps_objects_and_buckets_over_a_stop(one):
    client = s3_client(environment(one))
    for bucket in ("archive", "dead-letter", "state"):
        assert client.request("PUT", f"/{bucket}/a/date=2026-01-01/x y.parquet", b"data")[0] == 200
    stack("stop", "s3", "--dir", one)
    with pytest.raises(OSError):
        client.request("GET", "/")
    stack("start", "s3", "--dir", one)
    assert client.request("GET", "/archive/a/date=2026-01-01/x y.parquet") == (200, b"data")
    assert client.request("GET", "/archive/nothing")[0] == 404


def test_s3_creates_what_a_kill_left_unfinished(one):
    client = s3_client(environment(one))
    path = "/state/a/torn.snapshot"
    assert client.request("PUT", path, b"first", {"If-None-Match": "*"})[0] == 200
    stack("stop", "s3", "--dir", one)
    # As if it had been killed before the last of its steps: the metadata is there, the object is not.
    (left,) = Path(one).rglob("objects/state/a/torn.snapshot")
    left.unlink()
    stack("start", "s3", "--dir", one)
    assert client.request("GET", path)[0] == 404
    assert client.request("PUT", path, b"second", {"If-None-Match": "*"})[0] == 200
    assert client.request("GET", path) == (200, b"second")


def test_s3_create_only_has_one_winner(one):
    client = s3_client(environment(one))
    for round_number in range(8):
        path = f"/state/race/{round_number}"
        outcomes: list[tuple[int, bytes]] = []
        barrier = threading.Barrier(16)

        def create(number: int, path: str = path, outcomes: list = outcomes, barrier: threading.Barrier = barrier) -> None:
            body = str(number).encode() * 1000
            barrier.wait()
            outcomes.append((client.request("PUT", path, body, {"If-None-Match": "*"}, timeout=30)[0], body))

        threads = [threading.Thread(target=create, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        winners = [body for status, body in outcomes if status == 200]
        assert len(winners) == 1 and {status for status, _ in outcomes} <= {200, 409, 412}
        assert client.request("GET", path) == (200, winners[0])


def test_clickhouse_keeps_tables_over_stop_and_kill(one):
    url = environment(one)["CLICKHOUSE_URL"]
    statements = (b"CREATE TABLE t (a Int8) ENGINE = MergeTree ORDER BY a SETTINGS fsync_after_insert = 1", b"INSERT INTO t VALUES (1)")
    for statement in statements:
        assert http_request(url, "POST", statement)[0] == 200
    for command in ("stop", "kill"):
        stack(command, "clickhouse", "--dir", one)
        stack("start", "clickhouse", "--dir", one)
        assert http_request(f"{url}/?query=SELECT+a+FROM+t") == (200, 1)


def test_pause_and_resume(one):
    stack("pause", "s3", "--dir", one)
    with pytest.raises(OSError):
        s3_client(environment(one)).request("GET", "/", timeout=0.5)
    stack("resume", "s3", "--dir", one)
    assert s3_client(environment(one)).request("GET", "/")[0] == 200


def test_a_pid_of_somebody_else_is_never_signalled(tmp_path):
    process = Process(tmp_path / "x.pid")
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    # This very process, but with another start time: as if the pid had been reused.
    process.pid_file.write_text(json.dumps({"pid": os.getpid(), "start_ticks": 1, "boot_id": boot_id}))
    assert process.running() is None
    assert not process.signal(signal.SIGKILL)
    assert process.kill() == "was not running"


def test_ports_leave_out_what_is_taken():
    ports = layout_module.free_ports()
    assert len(set(ports.values())) == len(layout_module.PORT_NAMES)
    assert all(port in layout_module.PORT_RANGE for port in ports.values())


def test_errors_are_sentences(tmp_path, one):
    result = stack("status", "--dir", tmp_path / "none", check=False)
    assert result.returncode == 1 and "stack up" in result.stderr and "Traceback" not in result.stderr
    assert "nothing to do" in stack("down", "--dir", tmp_path / "none").stdout
    assert stack("start", "zookeeper", "--dir", one, check=False).returncode == 2


def test_fetch_starts_nothing(tmp_path):
    stack("fetch", "--dir", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_down_can_keep_data_and_otherwise_leaves_nothing(stacks):
    two = stacks[1]
    url, registry = environment(two)["CLICKHOUSE_URL"], environment(two)["REGISTRY_URL"]
    number = register(registry)
    assert http_request(url, "POST", b"CREATE DATABASE kept")[0] == 200
    stack("down", "--keep-data", "--dir", two)
    assert processes_of(two) == [] and (two / "data").is_dir()
    stack("up", "--dir", two)
    assert environment(two)["CLICKHOUSE_URL"] == url
    assert "kept" in http_request(f"{url}/?query=SHOW+DATABASES")[1]
    assert http_request(f"{registry}/schemas/ids/{number}")[0] == 200
    stack("down", "--dir", two)
    assert processes_of(two) == [] and not two.exists()
    assert stack("status", "--dir", stacks[0]).stdout.count(" answers ") == len(SERVICES)
