"""Sends planned records and remembers, from the delivery reports, where each one went."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from confluent_kafka import KafkaError, Message, Producer

from .records import PlannedRecord, SentLog

FLUSH_TIMEOUT = 60


class RecordingProducer:
    """Not the pipeline's client library's consumer side, and no code of the pipeline: only the broker is shared."""

    def __init__(self, brokers: str, sent: SentLog, properties: Mapping[str, str] | None = None) -> None:
        self.sent = sent
        self._failures: list[str] = []
        self._producer = Producer({
            "bootstrap.servers": brokers,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 5,
            "compression.type": "lz4",
            **(properties or {}),
        })

    def send(self, records: Iterable[PlannedRecord]) -> None:
        for record in records:
            self._send_one(record)
        self.flush()

    def _send_one(self, record: PlannedRecord) -> None:
        while True:
            try:
                self._producer.produce(
                    self.sent.topic,
                    value=record.value,
                    key=record.key,
                    partition=record.partition,
                    timestamp=record.timestamp_ms,
                    headers=list(record.headers) or None,
                    on_delivery=lambda error, message: self._delivered(record, error, message),
                )
                break
            except BufferError:
                self._producer.poll(0.1)
        self._producer.poll(0)

    def _delivered(self, record: PlannedRecord, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failures.append(str(error))
            return
        partition, offset = message.partition(), message.offset()
        assert partition is not None and offset is not None
        self.sent.add(partition, offset, record)

    def flush(self) -> None:
        waiting = self._producer.flush(FLUSH_TIMEOUT)
        assert waiting == 0, f"{waiting} records were not delivered within {FLUSH_TIMEOUT} s"
        assert not self._failures, f"{len(self._failures)} records were not delivered: {self._failures[:3]}"


class Production:
    """Production that goes on in the background until it is stopped, or a number of records is reached."""

    def __init__(
        self, producer: RecordingProducer, take: Callable[[int], list[PlannedRecord]], per_second: int, most: int
    ) -> None:
        self._producer = producer
        self._take = take
        self._per_second = per_second
        self._most = most
        self._stopped = threading.Event()
        # Held while records are on their way: who has it sees a log and a memory of it that agree.
        self._sending = threading.Lock()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="production", daemon=True)

    def __enter__(self) -> Production:
        self.start()
        return self

    def start(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            produced, started = 0, time.monotonic()
            while not self._stopped.is_set() and produced < self._most:
                due = min(int((time.monotonic() - started) * self._per_second), self._most) - produced
                if due > 0:
                    with self._sending:
                        self._producer.send(self._take(due))
                    produced += due
                self._stopped.wait(0.05)
        except BaseException as failure:  # told to the test by `stop`
            self._failure = failure

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Everything sent is acknowledged, and nothing more is sent."""
        with self._sending:
            yield

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(FLUSH_TIMEOUT)
        assert not self._thread.is_alive(), "production did not stop"
        if self._failure is not None:
            raise AssertionError("production failed") from self._failure
