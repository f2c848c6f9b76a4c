"""What the producer remembers is what the log holds: all comparisons rest on that."""

from __future__ import annotations

import time

from confluent_kafka import Consumer, TopicPartition

from blocks.records import PlannedRecord
from blocks.world import WorldMaker


def test_the_log_holds_what_the_producer_remembers(make_world: WorldMaker) -> None:
    world = make_world(migrated=False)
    world.producer.send(world.stream(seed=11).take(3_000))
    assert world.sent.count() == 3_000
    assert world.end_offsets() == world.sent.end_offsets()

    found: dict[tuple[int, int], tuple[object, ...]] = {}
    consumer = Consumer({
        "bootstrap.servers": world.stack.brokers, "group.id": f"{world.group}-reader", "enable.auto.commit": False,
    })  # fmt: skip
    try:
        consumer.assign([TopicPartition(world.topic, partition, 0) for partition in range(world.partitions)])
        deadline = time.monotonic() + 30
        while len(found) < 3_000 and time.monotonic() < deadline:
            for message in consumer.consume(1_000, 1.0):
                assert message.error() is None, str(message.error())
                headers = tuple(message.headers() or ())
                content = (message.key(), message.value(), headers, message.timestamp()[1])
                found[message.partition(), message.offset()] = content
    finally:
        consumer.close()

    expected = {
        (partition, offset): _content(record)
        for partition, records in world.sent.partitions.items()
        for offset, record in records.items()
    }
    differences = [(place, found.get(place), expected[place]) for place in expected if found.get(place) != expected[place]]
    assert not differences, f"{len(differences)} records differ: {differences[:2]}"


def _content(record: PlannedRecord) -> tuple[object, ...]:
    return record.key, record.value, record.headers, record.timestamp_ms
