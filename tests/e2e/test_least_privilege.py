"""The pipeline with the users, ACLs, policies and grants of the compose stack, and not one right more.

Kafka with SASL and ACLs and the S3 server with users and bucket policies are started by the scripts of deploy/compose;
ClickHouse's engine reads its file of users. The registry is that of the session's stack: it has no users in either.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from blocks.archive import check_chain, check_rejects, check_rows, read_archive
from blocks.broken import MAX_RECORD_BYTES
from blocks.compose_services import PREFIX, ComposeServices, sql_of_operations
from blocks.dead_letters import check_dead_letters, read_dead_letters
from blocks.kappa_process import CommandResult, KappaProcess, free_port, run_command
from blocks.object_store import Place
from blocks.producer import RecordingProducer
from blocks.records import SentLog
from blocks.registry import Registry
from blocks.schemas import RegisteredSchemas
from blocks.stack import Stack
from blocks.stream import MixedStream, StreamSettings
from blocks.waiting import Found, Hopeless, NotYet, wait_until

TOPIC, PARTITIONS = "least-privilege", 2
CREATE = {"If-None-Match": "*"}
# For the time of a test, and for a stream whose timestamps lie in the past.
TEST_SETTINGS = {
    "KAPPA__CHECKPOINT__INTERVAL": "2s",
    "KAPPA__REGISTRY__UNKNOWN_ID_RETRY": "500ms",
    "KAPPA__LIMITS__MAX_RECORD_BYTES": str(MAX_RECORD_BYTES),
    "KAPPA__HTTP__READY_MAX_LAG": "2h",
}


@pytest.fixture(scope="module")
def services(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeServices]:
    services = ComposeServices(tmp_path_factory.mktemp("compose"), stack, TOPIC, PARTITIONS)
    failures: list[BaseException] = []

    def objects() -> None:
        try:
            services.start_s3()
        except BaseException as failure:
            failures.append(failure)

    try:
        services.start_kafka()
        beside = threading.Thread(target=objects)
        beside.start()
        try:
            services.set_kafka_up()
        except AssertionError as failure:
            raise AssertionError(services.log("kafka/start")) from failure
        finally:
            beside.join()
        if failures:
            raise failures[0]
        yield services
    finally:
        services.stop()


@pytest.fixture(scope="module")
def migrated(services: ComposeServices) -> ComposeServices:
    """By the environment alone, as in compose.yaml; twice, the second time with everything there."""
    environment = {
        "KAPPA__HOT_STORE__URL": f"http://127.0.0.1:{services.ports['clickhouse']}",
        "KAPPA__HOT_STORE__USER": "migrator",
        "KAPPA__HOT_STORE__PASSWORD_FILE": str(services.compose / "secrets" / "clickhouse_migrator_password"),
    }
    with services.clickhouse_as("migrator"):
        for expected in ("applied", "there"):
            result = run_command(["migrate", "--wait", "30s"], environment)
            assert result.code == 0 and expected in result.stdout, result.text
    return services


class Segments(Place):
    """Without the small objects that the probes of the start leave where nothing may be deleted."""

    def keys(self) -> list[str]:
        return [key for key in super().keys() if key.startswith(f"{TOPIC}/")]


def doctor(services: ComposeServices, config: Path, user: str = "kappa") -> CommandResult:
    return run_command(["doctor", "-c", str(config)], TEST_SETTINGS | services.aws(user), timeout=120)


def test_the_listed_rights_are_enough(migrated: ComposeServices, tmp_path: Path) -> None:
    services = migrated
    schemas = RegisteredSchemas.register(Registry(services.stack.registry_url), TOPIC)
    sent = SentLog(TOPIC)
    producer = RecordingProducer(services.brokers, sent, services.kafka_client("loadtest"))
    settings = StreamSettings(seed=611, partitions=PARTITIONS, start_ms=int(time.time() * 1000) - 85 * 60_000)
    producer.send(MixedStream(settings, schemas).take(600))
    # It would look for the broker as long as the session lasts.
    del producer
    config = services.kappa_config()

    with services.clickhouse_as("writer"):
        kappa = KappaProcess(config, services.ports["kappa"], tmp_path / "kappa.log", TEST_SETTINGS | services.aws("kappa"))
        try:
            kappa.wait_until_ready()
            wait_until_committed(kappa, sent)
            healthy = run_command(["health", "--ready", "-c", str(config)], {})
            assert (healthy.code, healthy.stdout) == (0, "ready\n"), healthy.text
            examined = doctor(services, config)
            assert examined.code == 0 and "FAIL" not in examined.stdout, examined.text
            assert "is migrated" in examined.stdout and "writer may insert" in examined.stdout, examined.text
            log = kappa.log()
            assert kappa.terminate() == 0, kappa.log_tail()
            # Nothing was tried that is not allowed, but to remove the probes' objects.
            refusals = [line for line in log.splitlines() if re.search("denied|not authorized|authorization", line, re.IGNORECASE)]
            assert all("probe's object could not be deleted" in line for line in refusals), refusals
        finally:
            kappa.make_sure_it_ends()
    stopped = run_command(["health", "-c", str(config)], {})
    assert stopped.code == 1 and "does not answer" in stopped.stderr, stopped.text

    # Read by the user who may only read.
    files = services.s3_files("loadtest")
    archive = read_archive(Segments(files, "archive", PREFIX), TOPIC)
    check_chain(archive, sent)
    check_rows(archive, sent)
    check_rejects(archive, sent)
    check_dead_letters(read_dead_letters(Segments(files, "dead-letter", PREFIX), TOPIC), sent, archive)
    assert Segments(files, "state", PREFIX).keys()
    [events] = services.ask_clickhouse_as("reader", ["SELECT sum(count) FROM kappa.windows"])
    assert int(events) == len(sent.counted())
    look_at_dead_letters_only(services, config, sent)


def look_at_dead_letters_only(services: ComposeServices, config: Path, sent: SentLog) -> None:
    """With the rights of the pipeline they can be looked at, and neither be sent again nor purged."""

    def dlq(*arguments: str, user: str = "kappa") -> CommandResult:
        return run_command(["dlq", *arguments, "-c", str(config)], TEST_SETTINGS | services.aws(user))

    listed = dlq("list", "--json")
    assert listed.code == 0 and json.loads(listed.stdout)["count"] == len(sent.rejected()), listed.text
    partition, offset = next(iter(sent.rejected()))
    assert dlq("explain", f"{partition}/{offset}").code == 0
    redriven = dlq("redrive", "--all", "--even-if-refused")
    assert redriven.code == 1 and "Write and Describe on the transactional id" in redriven.stderr, redriven.text
    # Who may only read cannot say that a purge is one, and so deletes nothing.
    unmarked = dlq("purge", "--older-than", "0s", "--yes", user="loadtest")
    assert unmarked.code == 1 and "cannot be created" in unmarked.stderr and "the mark" in unmarked.stderr, unmarked.text
    # The bucket is write-once; all of its dead letters are of an earlier hour.
    purged = dlq("purge", "--older-than", "0s", "--yes")
    assert purged.code == 1 and "a write-once bucket" in purged.stderr and "0 objects were deleted" in purged.stderr, purged.text
    assert json.loads(dlq("list", "--json").stdout)["count"] == len(sent.rejected())


def wait_until_committed(kappa: KappaProcess, sent: SentLog) -> None:
    ends = sent.end_offsets()

    def look() -> Found[None] | NotYet:
        if kappa.exit_code is not None:
            raise Hopeless(kappa.log_tail())
        committed = {line["partition"]: line["committed"] for line in kappa.status()["partitions"]}
        return Found(None) if committed == ends else NotYet(f"committed {committed}")

    wait_until(f"{ends} to be committed", 60, look)


def code_of(future: Future[object]) -> int:
    """How a request to the brokers ended."""
    try:
        future.result(20)
    except KafkaException as error:
        return error.args[0].code()
    return KafkaError.NO_ERROR


def test_what_is_not_listed_is_refused_by_kafka(services: ComposeServices) -> None:
    def produce(client: dict[str, str]) -> int | None:
        errors: list[KafkaError | None] = []
        producer = Producer(client | {"message.timeout.ms": "15000"})
        producer.produce(TOPIC, b"x", partition=0, on_delivery=lambda error, _: errors.append(error))
        producer.flush(20)
        assert errors, "the broker did not answer"
        return errors[0].code() if errors[0] else None

    assert produce(services.kafka_client("loadtest")) is None
    assert produce(services.kafka_client("kappa")) == KafkaError.TOPIC_AUTHORIZATION_FAILED

    def read(user: str) -> int:
        consumer = Consumer(services.kafka_client(user) | {"group.id": "kappa", "auto.offset.reset": "earliest"})
        try:
            consumer.assign([TopicPartition(TOPIC, 0, 0)])
            while True:
                message = consumer.poll(20)
                assert message is not None, "neither a record nor a refusal"
                code = message.error().code() if message.error() else KafkaError.NO_ERROR
                # That the group is not its own either may come first.
                if code != KafkaError.GROUP_AUTHORIZATION_FAILED:
                    return code
        finally:
            consumer.close()

    assert read("loadtest") == KafkaError.TOPIC_AUTHORIZATION_FAILED
    assert read("kappa") == KafkaError.NO_ERROR

    def group_offsets(user: str, group: str) -> int:
        request = ConsumerGroupTopicPartitions(group, [TopicPartition(TOPIC, 0)])
        admin = AdminClient(services.kafka_client(user))
        return code_of(admin.list_consumer_group_offsets([request])[group])

    assert group_offsets("kappa", "kappa") == KafkaError.NO_ERROR
    assert group_offsets("kappa", "another") == KafkaError.GROUP_AUTHORIZATION_FAILED
    assert group_offsets("loadtest", "kappa") == KafkaError.GROUP_AUTHORIZATION_FAILED
    for user in ("kappa", "loadtest"):
        admin = AdminClient(services.kafka_client(user))
        refusals = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)
        assert code_of(admin.create_topics([NewTopic("mine", 1, 1)])["mine"]) in refusals
        assert code_of(admin.delete_topics([TOPIC])[TOPIC]) in refusals
        assert set(admin.list_topics(timeout=20).topics) == {TOPIC}, "it sees what it may use, and no more"
    # Nobody without a name, and none with a wrong password.
    for client in ({"bootstrap.servers": services.brokers}, services.kafka_client("kappa", "wrong")):
        with pytest.raises(KafkaException):
            AdminClient(client).list_topics(timeout=4)


def test_what_is_not_listed_is_refused_by_the_buckets(services: ComposeServices) -> None:
    kappa, loadtest, admin = services.s3("kappa"), services.s3("loadtest"), services.s3("admin")
    for bucket in ("archive", "dead-letter"):
        path = f"/{bucket}/rights/object"
        assert kappa.request("PUT", path, b"first", CREATE)[0] == 200
        assert kappa.request("PUT", path, b"second", CREATE)[0] in (403, 412)
        assert kappa.request("PUT", path, b"second")[0] == 403, "it could be overwritten"
        assert kappa.request("DELETE", path)[0] == 403, "it could be deleted"
        # Not even the admin does it by mistake.
        assert admin.request("PUT", path, b"second")[0] == 403 and admin.request("DELETE", path)[0] == 403
        assert kappa.request("GET", path) == (200, b"first")
        assert loadtest.request("GET", path) == (200, b"first")
    # What the pipeline tells from an answer: not there, and not allowed.
    assert kappa.request("GET", "/archive/rights/none")[0] == 404
    assert kappa.request("PUT", "/state/rights/object", b"first", CREATE)[0] == 200
    assert kappa.request("PUT", "/state/rights/object", b"second", CREATE)[0] == 412
    assert loadtest.request("GET", "/state/rights/object")[0] == 403
    for bucket in ("archive", "dead-letter", "state"):
        assert loadtest.request("PUT", f"/{bucket}/rights/other", b"x")[0] == 403
        assert loadtest.request("DELETE", f"/{bucket}/rights/object")[0] == 403
        for user in (kappa, loadtest):
            assert user.request("DELETE", f"/{bucket}")[0] == 403
            assert user.request("PUT", f"/{bucket}", b"{}", {"x-amz-acl": "public-read"})[0] in (403, 409)
    assert kappa.request("DELETE", "/state/rights/object")[0] == 204
    assert kappa.request("PUT", "/mine")[0] == 403


def test_what_is_not_listed_is_refused_by_clickhouse(migrated: ComposeServices) -> None:
    services = migrated
    denied = {
        "writer": [
            "SELECT count() FROM kappa.windows_1m",
            "SELECT count() FROM kappa.windows",
            "INSERT INTO kappa.schema_migrations (version) SELECT 9",
            "ALTER TABLE kappa.windows_1m DELETE WHERE 1",
            "TRUNCATE TABLE kappa.windows_1m",
            "DROP TABLE kappa.windows_1m",
            "CREATE TABLE kappa.mine (a Int8) ENGINE = ReplacingMergeTree ORDER BY a",
            "CREATE DATABASE mine",
        ],
        "migrator": [
            "DROP TABLE kappa.windows_1m",
            "DROP DATABASE kappa",
            "SELECT count() FROM kappa.anomalies",
            "INSERT INTO kappa.windows_1m (`partition`) SELECT 1",
            "CREATE DATABASE mine",
            "CREATE USER mine",
        ],
        "reader": [
            "INSERT INTO kappa.anomalies (`partition`) SELECT 1",
            "CREATE TABLE kappa.mine (a Int8) ENGINE = ReplacingMergeTree ORDER BY a",
            "DROP TABLE kappa.windows_1m",
            "SET readonly = 0",
            "SELECT * FROM file('/etc/passwd', 'LineAsString')",
        ],
    }
    for role, statements in denied.items():
        for statement, answer in zip(statements, services.ask_clickhouse_as(role, statements), strict=True):
            assert "Code: 497" in answer or "Code: 164" in answer, f"{role}: {statement}: {answer}"
    allowed = ["SELECT count() FROM kappa.windows", "SELECT count() FROM kappa.anomalies FINAL"]
    assert all(answer.isdigit() for answer in services.ask_clickhouse_as("reader", allowed))
    # The rest of the configuration has been read, too.
    settings = "SELECT name, value FROM system.server_settings WHERE name = 'mark_cache_size'"
    assert services.ask_clickhouse_as("writer", [settings]) == ["mark_cache_size\t268435456"]


def test_the_sql_of_the_documentation_gives_the_same_rights(migrated: ComposeServices) -> None:
    statements = sql_of_operations()
    literal = [statement.replace("\\", "\\\\").replace("'", "\\'") for statement in statements]
    for statement, answer in zip(statements, migrated.ask_clickhouse_as("writer", [f"SELECT formatQuery('{text}')" for text in literal]), strict=True):
        assert "Code:" not in answer, f"{statement}: {answer}"
    documented = {statement for statement in statements if statement.startswith("GRANT")}
    users = ElementTree.parse(migrated.compose / "clickhouse" / "users.d" / "kappa.xml").find("users")
    assert users is not None
    granted = {f"{query.text} TO {user.tag}" for user in users for query in user.iterfind("grants/query")}
    assert documented == granted


@pytest.mark.parametrize(
    ("replaced", "user", "words"),
    [
        ({'group = "kappa"': 'group = "another"'}, "kappa", ("kafka group", "allow this user to READ the group")),
        ({f'topic = "{TOPIC}"': 'topic = "another"'}, "kappa", ("kafka topic", "allow this user to READ and DESCRIBE")),
        ({"kafka_kappa_password": "kafka_loadtest_password"}, "kappa", ("kafka brokers", "check sasl.mechanism, sasl.username")),
        ({}, "loadtest", ("archive", "may put, get and list objects there")),
    ],
    ids=["group", "topic", "password", "objects"],
)
def test_the_doctor_names_the_right_that_is_missing(
    migrated: ComposeServices, replaced: dict[str, str], user: str, words: tuple[str, ...]
) -> None:
    result = doctor(migrated, migrated.kappa_config("wrong", replaced), user)
    assert result.code == 1, result.text
    failed = [line for line in result.stdout.splitlines() if line.startswith("FAIL")]
    assert any(words[0] in line for line in failed) and words[1] in result.stdout, result.text


def test_a_pipeline_without_its_rights_waits_and_says_why(migrated: ComposeServices, tmp_path: Path) -> None:
    services = migrated
    config = services.kappa_config("wrong-group", {'group = "kappa"': 'group = "another"'})
    with services.clickhouse_as("writer"):
        kappa = KappaProcess(config, services.ports["kappa"], tmp_path / "kappa.log", TEST_SETTINGS | services.aws("kappa"))
        try:
            kappa.wait_for_http()

            def look() -> Found[None] | NotYet:
                answer = kappa.get("/readyz")
                says_why = answer.status_code == 503 and "Group authorization failed" in answer.text
                return Found(None) if says_why else NotYet(answer.text)

            wait_until("/readyz to name the missing right", 45, look)
            assert "GroupAuthorizationFailed" in kappa.log() or "Group authorization failed" in kappa.log()
            assert kappa.is_alive() and kappa.exit_code is None
        finally:
            kappa.make_sure_it_ends()


def test_health_checks_by_bash_see_what_is_there_and_what_is_not(services: ComposeServices) -> None:
    """Those of compose.yaml that are more than one call of a tool, at the addresses of the test."""
    text = (services.compose / "compose.yaml").read_text()
    [registry] = re.findall(r"exec 3<>/dev/tcp/127\.0\.0\.1/8080 .*", text)
    [kafka] = re.findall(r"exec 3<>/dev/tcp/127\.0\.0\.1/9092 [^\"]*", text)
    registry_port = str(urlsplit(services.stack.registry_url).port)
    nobody = str(free_port())

    def check(command: str, ports: dict[str, str]) -> bool:
        for container, here in ports.items():
            command = command.replace(f"127.0.0.1/{container}", f"127.0.0.1/{here}")
        return subprocess.run(["bash", "-c", command.replace("$$", "$")], capture_output=True, timeout=20).returncode == 0

    assert check(registry, {"8080": registry_port})
    assert not check(registry, {"8080": nobody})
    # Somebody answers, but not with 200.
    assert not check(registry.replace("/subjects", "/no-such-thing"), {"8080": registry_port})
    client, host = str(services.ports["client"]), str(services.ports["host"])
    assert check(kafka, {"9092": client, "9094": host})
    assert not check(kafka, {"9092": client, "9094": nobody})
