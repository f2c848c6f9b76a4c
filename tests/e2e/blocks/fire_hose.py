"""Many events a second, of this very moment: bodies are put together from parts that were encoded once."""

from __future__ import annotations

import base64
import random
import struct
import threading
import time

from confluent_kafka import Producer

from .broken import body_with
from .schemas import READER_DEFAULTS, frame, zigzag
from .world import World


class FireHose:
    """Sends until it is stopped. All events are good ones; `padding` bytes of each cannot be compressed."""

    def __init__(self, world: World, per_second: int, sensors: int, padding: int = 0) -> None:
        self._topic, self._partitions = world.topic, world.partitions
        self._per_second, self._padding = per_second, padding
        self._producer = Producer({
            "bootstrap.servers": world.stack.brokers, "acks": "all", "enable.idempotence": True, "linger.ms": 20,
            "compression.type": "lz4", "queue.buffering.max.messages": 500_000,
        })  # fmt: skip
        self._bodies = [_parts(world, f"sensor-{number}") for number in range(sensors)]
        self._random = random.Random(7)
        self.sent = 0
        self._stopped = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> FireHose:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Afterwards everything that was sent is acknowledged."""
        self._stopped.set()
        self._thread.join(60)
        assert not self._thread.is_alive() and self._failure is None, self._failure
        assert self._producer.flush(60) == 0

    def _run(self) -> None:
        try:
            started = time.monotonic()
            while not self._stopped.is_set():
                due = int((time.monotonic() - started) * self._per_second) - self.sent
                now_ms = int(time.time() * 1000)
                for _ in range(due):
                    self._send(now_ms)
                self._producer.poll(0)
                self._stopped.wait(0.01)
        except BaseException as failure:  # told by `stop`
            self._failure = failure

    def _send(self, now_ms: int) -> None:
        sensor = self.sent % len(self._bodies)
        head, between = self._bodies[sensor]
        noise = base64.b64encode(self._random.randbytes(self._padding * 3 // 4)) if self._padding else b""
        attributes = zigzag(1) + zigzag(5) + b"noise" + zigzag(len(noise)) + noise + zigzag(0) if noise else zigzag(0)
        value = struct.pack("<d", 20 + self._random.random())
        body = b"".join((head, zigzag(now_ms), value, between, attributes))
        while True:
            try:
                self._producer.produce(self._topic, body, partition=sensor % self._partitions)
                break
            except BufferError:
                self._producer.poll(0.05)
        self.sent += 1


def _parts(world: World, sensor: str) -> tuple[bytes, bytes]:
    """What comes before the event time, and what between value and attributes, which are the last field."""
    marks = {"event_time": b"\0TIME\0", "value": b"\0VALUE\0", "attributes": b""}
    event = {**READER_DEFAULTS, "sensor_id": sensor, "metric": "TEMPERATURE", "unit": "Cel", "event_time": 0, "value": 0.0}
    head, rest = frame(world.schemas.same.schema_id, body_with(event, **marks)).split(marks["event_time"])
    nothing, between = rest.split(marks["value"])
    assert not nothing
    return head, between
