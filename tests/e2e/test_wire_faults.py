"""Each wire to each dependency breaks in each way that wires break, under load: the pipeline comes back by itself within a
stated time, within its memory, and `kappa verify` finds nothing.

Every pipeline has wires of its own (`blocks/wire.py`), so several go through their faults side by side; a test waits for what
became of its fault. `-k` picks faults: the others are then left out.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from blocks.faults import (
    Answer, Bandwidth, BlackHole, CutAnswer, CutRequest, FlippedBitInRecords, FlippedBitOnTheWayThere, Garbage, HalfOpen, Latency,
    LostAnswer, NoBrokers, Parameters, Refused, Reset, Watched, clickhouse_error, kind_has, s3_error,
)  # fmt: skip
from blocks.new_schema import record_in_a_new_schema
from blocks.producer import Production
from blocks.stack import Stack
from blocks.survival import SLACK, Ordeal, Subject, Survived, strike
from blocks.wire import Wire
from blocks.world import World

# `make soak` makes them last longer.
TIMES = float(os.environ.get("KAPPA_FAULTS_TIMES", "1"))
PER_SECOND = 120
PARTITIONS = 2
MOST_IN_A_ROW = 20
#: So many pipelines share two cores, one Kafka and one ClickHouse without waiting for one another longer than for the fault.
MOST_AT_ONCE = 7
HTML = b"<!doctype html><title>Welcome</title><p>It works"

INSERT = kind_has("POST ", "INSERT")
PUT = kind_has("PUT ")
PUT_SEGMENT = kind_has("PUT ", ".parquet")
PUT_SNAPSHOT = kind_has("PUT ", ".snapshot")
SCHEMA = kind_has("GET ", "/schemas/")

KAFKA = [
    Ordeal("kafka", "refuses connections", Refused, seconds=3),
    Ordeal("kafka", "resets connections", Reset),
    Ordeal("kafka", "answers 200 ms late", Latency),
    Ordeal("kafka", "64 kB/s", Bandwidth, bound=20),
    Ordeal("kafka", "black hole, longer than the session", lambda: BlackHole(), bound=15, seconds=6),
    Ordeal("kafka", "garbage in place of answers", Garbage),
    Ordeal("kafka", "cut in the middle of answers", lambda: CutAnswer(kind_has("Fetch"), every=3)),
    Ordeal("kafka", "cut in the middle of requests", lambda: CutRequest(every=4)),
    Ordeal("kafka", "acknowledgements of commits are lost", lambda: LostAnswer(kind_has("OffsetCommit"))),
    Ordeal("kafka", "answers to heartbeats are lost", lambda: LostAnswer(kind_has("Heartbeat"))),
    # librdkafka forgets its brokers then, the configured ones too, and may not ask them again by itself.
    Ordeal("kafka", "answers that there are no brokers", NoBrokers, bound=30, seconds=15, alone=True),
    Ordeal("kafka", "half-open: never answers", HalfOpen, bound=45, alone=True),
]  # fmt: skip
NATIVE = [
    *(Ordeal("kafka (native fetcher)", ordeal.name, ordeal.fault, ordeal.bound, ordeal.seconds, ordeal.alone) for ordeal in KAFKA),
    # librdkafka goes on reading in the damaged batch, and now and then ends the process by an assertion of its own.
    Ordeal("kafka (native fetcher)", "a bit flips in records", lambda: FlippedBitInRecords(every=3)),
]

REGISTRY = [
    Ordeal("registry", "refuses connections", Refused),
    Ordeal("registry", "resets connections", Reset),
    Ordeal("registry", "answers 1 s late", lambda: Latency(seconds=1.0)),
    Ordeal("registry", "500 B/s", lambda: Bandwidth(bytes_per_second=500)),
    Ordeal("registry", "black hole", BlackHole),
    Ordeal("registry", "garbage in place of answers", Garbage),
    Ordeal("registry", "cut in the middle of answers", lambda: CutAnswer(SCHEMA)),
    Ordeal("registry", "answers are lost", lambda: LostAnswer(SCHEMA)),
    Ordeal("registry", "500", lambda: Answer(status=500, body=b"{}")),
    Ordeal("registry", "503 of a load balancer", lambda: Answer(status=503, body=HTML)),
    Ordeal("registry", "429", lambda: Answer(status=429, body=b'{"error_code":42901,"message":"slower"}')),
    Ordeal("registry", "401", lambda: Answer(status=401, body=b'{"error_code":401,"message":"Unauthorized"}')),
    Ordeal("registry", "404 of somebody else", lambda: Answer(status=404, body=HTML)),
    Ordeal("registry", "200 of somebody else", lambda: Answer(status=200, body=HTML)),
    Ordeal("registry", "200 and half a JSON", lambda: Answer(status=200, body=b'{"schema":"{\\"type\\":')),
    Ordeal("registry", "200 and another JSON", lambda: Answer(status=200, body=b'{"status":"UP"}')),
    Ordeal("registry", "half-open: never answers", HalfOpen, bound=20, alone=True),
]

OBJECT_STORE = [
    Ordeal("s3", "refuses connections", Refused),
    Ordeal("s3", "resets connections", Reset),
    Ordeal("s3", "answers 300 ms late", lambda: Latency(seconds=0.3)),
    Ordeal("s3", "64 kB/s", Bandwidth),
    Ordeal("s3", "black hole", BlackHole),
    Ordeal("s3", "garbage in place of answers", Garbage),
    Ordeal("s3", "reset in the middle of a PUT", lambda: CutRequest(PUT)),
    Ordeal("s3", "cut in the middle of answers", lambda: CutAnswer(every=2)),
    Ordeal("s3", "acknowledgements of segments are lost", lambda: LostAnswer(PUT_SEGMENT)),
    Ordeal("s3", "acknowledgements of snapshots are lost", lambda: LostAnswer(PUT_SNAPSHOT)),
    Ordeal("s3", "a bit flips on the way there", lambda: FlippedBitOnTheWayThere(PUT)),
    Ordeal("s3", "500 InternalError", lambda: s3_error(500, "InternalError")),
    Ordeal("s3", "503 SlowDown, every second request", lambda: s3_error(503, "SlowDown", every=2)),
    Ordeal("s3", "403 AccessDenied", lambda: s3_error(403, "AccessDenied")),
    Ordeal("s3", "404 NoSuchBucket", lambda: s3_error(404, "NoSuchBucket")),
    Ordeal("s3", "409 though nothing is there", lambda: s3_error(409, "ConditionalRequestConflict", PUT)),
    Ordeal("s3", "412 though nothing is there", lambda: s3_error(412, "PreconditionFailed", PUT)),
    Ordeal("s3", "507: its disk is full", lambda: s3_error(507, "InsufficientStorage", PUT)),
    Ordeal("s3", "200 of somebody else", lambda: Answer(status=200, body=HTML)),
    Ordeal("s3", "half-open: never answers", HalfOpen, bound=75, alone=True),
]

CLICKHOUSE = [
    Ordeal("clickhouse", "refuses connections", Refused),
    Ordeal("clickhouse", "resets connections", Reset),
    Ordeal("clickhouse", "answers 500 ms late", lambda: Latency(seconds=0.5)),
    Ordeal("clickhouse", "16 kB/s", lambda: Bandwidth(bytes_per_second=16_000), bound=20),
    Ordeal("clickhouse", "black hole", BlackHole),
    Ordeal("clickhouse", "garbage in place of answers", Garbage),
    Ordeal("clickhouse", "cut in the middle of inserts", lambda: CutRequest(INSERT)),
    Ordeal("clickhouse", "cut in the middle of answers", lambda: CutAnswer(INSERT)),
    Ordeal("clickhouse", "acknowledgements of inserts are lost", lambda: LostAnswer(INSERT)),
    Ordeal("clickhouse", "read-only (164)", lambda: Parameters(INSERT, added="readonly=1")),
    Ordeal("clickhouse", "memory limit (241)", lambda: Parameters(INSERT, added="max_memory_usage=1&max_untracked_memory=1")),
    Ordeal("clickhouse", "too many parts (252)", lambda: Parameters(INSERT, added="parts_to_throw_insert=1")),
    Ordeal("clickhouse", "refused until somebody mends it: no table (60)", lambda: Watched(saying=b"(UNKNOWN_TABLE)"),
        begins="RENAME TABLE `{0}`.windows_1m TO `{0}`.gone", ends="RENAME TABLE `{0}`.gone TO `{0}`.windows_1m"),
    Ordeal("clickhouse", "its disk is full (243)", lambda: clickhouse_error(500, 243, "NOT_ENOUGH_SPACE", INSERT)),
    Ordeal("clickhouse", "502 of a load balancer", lambda: Answer(status=502, body=HTML)),
    Ordeal("clickhouse", "200 of somebody else", lambda: Answer(status=200, body=HTML)),
    Ordeal("clickhouse", "half-open: never answers", HalfOpen, bound=75, alone=True),
]  # fmt: skip

ORDEALS = [*KAFKA, *NATIVE, *REGISTRY, *OBJECT_STORE, *CLICKHOUSE]


class Run:
    """All faults that were asked for, each pipeline's one after the other."""

    def __init__(self, stack: Stack, directory: Path, ordeals: list[Ordeal]) -> None:
        self.outcomes: dict[str, Future[Survived]] = {ordeal.id: Future() for ordeal in ordeals}
        self._stack = stack
        self._directory = directory
        self._places = threading.Semaphore(MOST_AT_ONCE)
        self._threads = [
            threading.Thread(target=self._go_through, args=(number, group), daemon=True)
            # The longest first.
            for number, group in enumerate(sorted(_by_pipeline(ordeals), key=len, reverse=True))
        ]
        for thread in self._threads:
            thread.start()

    def wait(self) -> None:
        for thread in self._threads:
            thread.join()

    def _go_through(self, number: int, ordeals: list[Ordeal]) -> None:
        at = ordeals[0]
        try:
            with self._places, self._subject(number, at.where) as subject:
                survived = []
                for at in ordeals:
                    survived.append((at, strike(subject, at, lambda: _give_cause(subject), at.seconds * TIMES)))
                subject.finish(at.bound)
            # Only now is it sure that none has left something behind.
            for ordeal, outcome in survived:
                outcome.report()
                self.outcomes[ordeal.id].set_result(outcome)
        except BaseException as failure:
            for ordeal in ordeals:
                error = failure if ordeal is at else AssertionError(f"its pipeline failed at another fault, {at.id}: {failure}")
                self.outcomes[ordeal.id].set_exception(error)

    def _subject(self, number: int, where: str) -> Subject:
        directory = self._directory / f"pipeline-{number}"
        directory.mkdir()
        name = f"wire-{where.split(' ')[0]}-{number}"
        return Subject.start(World(self._stack, directory, name, PARTITIONS), seed=1_000 + number, native=where != "kafka", per_second=PER_SECOND)


def _give_cause(subject: Subject) -> None:
    """What is only asked for now and then, is asked for now."""
    with subject.production.paused():
        record = record_in_a_new_schema(subject.world.registry, subject.world.topic, subject.stream, 0)
        subject.world.producer.send([record])


def _by_pipeline(ordeals: list[Ordeal]) -> list[list[Ordeal]]:
    together: dict[str, list[Ordeal]] = {}
    for ordeal in ordeals:
        together.setdefault(ordeal.id if ordeal.alone else ordeal.where, []).append(ordeal)
    return [group[at : at + MOST_IN_A_ROW] for group in together.values() for at in range(0, len(group), MOST_IN_A_ROW)]


@pytest.fixture(scope="module")
def run(stack: Stack, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Run]:
    chosen = {item.callspec.params["ordeal"].id for item in request.session.items if item.name.startswith("test_a_fault_on")}
    run = Run(stack, tmp_path_factory.mktemp("wire"), [ordeal for ordeal in ORDEALS if ordeal.id in chosen])
    yield run
    run.wait()


# The first of them waits for all faults of its pipeline.
@pytest.mark.timeout(400 * max(1.0, TIMES) * max(1.0, SLACK))
@pytest.mark.parametrize("ordeal", ORDEALS, ids=lambda ordeal: ordeal.id)
def test_a_fault_on_the_wire(run: Run, ordeal: Ordeal) -> None:
    survived = run.outcomes[ordeal.id].result()
    assert survived.recovered_seconds <= survived.bound_seconds
    assert survived.hits > 0 and survived.records_verified > 0, survived
