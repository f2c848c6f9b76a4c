"""When segments are cut, and where they go."""

from __future__ import annotations

import itertools
import time

from blocks.segment_keys import HOUR_MS, date_and_hour, hour_that_began_ms
from blocks.world import WorldMaker

DAY_MS = 24 * HOUR_MS


def test_an_idle_topic_flushes_its_open_segment_by_the_wall_clock(make_world: WorldMaker) -> None:
    world = make_world()
    kappa = world.start({"checkpoint": {"interval": "3s"}})
    kappa.wait_until_ready()
    stream = world.stream(seed=601, broken_share=0.0, start_ms=hour_that_began_ms(minutes_ago=30))
    # The first segment with a schema is cut at once: nothing may be shown before it is settled that its records count.
    world.producer.send(stream.take(300))
    world.wait_until_committed(25)
    before = {partition: len(found) for partition, found in world.read_archive().segments.items()}
    started = time.monotonic()
    world.producer.send(stream.take(150))
    # Nothing more comes: only the clock can cut.
    world.wait_until_committed(25)
    waited = time.monotonic() - started
    assert waited >= 2.5, f"the segment was cut after {waited:.1f} s, long before its interval"
    segments = world.read_archive().segments
    assert {partition: len(found) - before[partition] for partition, found in segments.items()} == {0: 1, 1: 1, 2: 1}
    assert kappa.terminate() == 0
    world.verify_everything()


def test_a_later_hour_of_the_kafka_timestamp_begins_a_new_segment(make_world: WorldMaker) -> None:
    """A minute to ten between records: every few records an hour begins, at times a day."""
    world = make_world(partitions=2)
    world.window_ms, world.lateness_ms = 600_000, 60_000
    # In the evening, so that it crosses midnight.
    start_ms = (int(time.time() * 1000) // DAY_MS - 4) * DAY_MS + 20 * HOUR_MS
    stream = world.stream(seed=602, broken_share=0.0, start_ms=start_ms, step_ms=(60_000, 600_000))
    world.producer.send(stream.take(500))
    kappa = world.start({"checkpoint": {"interval": "1h"}, "limits": {"max_event_age": "20d"}})
    for partition, end in world.sent.end_offsets().items():
        world.wait_for_position(kappa, partition, end)
    assert kappa.terminate() == 0

    archive = world.read_archive()
    for partition, records in world.sent.partitions.items():
        hours = [(records[offset].timestamp_ms // HOUR_MS, offset) for offset in sorted(records)]
        starts = [next(offsets)[1] for _, offsets in itertools.groupby(hours, key=lambda place: place[0])]
        assert archive.starts(partition) == starts, "segments begin where hours do, and nowhere else"
        places = [(segment.key.date, segment.key.hour) for segment in archive.segments[partition]]
        assert places == [date_and_hour(records[start].timestamp_ms) for start in starts]
        assert len({date for date, _ in places}) >= 2, "the stream crosses midnight"
    world.verify_everything()


def test_the_size_cuts_a_segment(make_world: WorldMaker) -> None:
    world = make_world(partitions=1)
    # All within one hour, which would cut as well.
    stream = world.stream(seed=603, broken_share=0.0, start_ms=hour_that_began_ms(minutes_ago=60), padding=400)
    world.producer.send(stream.take(12_000))
    kappa = world.start({"checkpoint": {"interval": "1h", "max_bytes": "1MiB"}})
    world.wait_for_position(kappa, 0, world.sent.end_offsets()[0])
    assert kappa.terminate() == 0
    archive = world.read_archive()
    sizes = [world.archive_place.size(key) for key in world.archive_place.keys()]
    assert len(sizes) >= 3, f"12,000 records made segments of {sizes} bytes"
    # Counted is what the encoder holds, which may be more than what it writes in the end; one batch may be on its way.
    assert all(250_000 < size < 2_600_000 for size in sizes[:-1]), f"segments of {sizes} bytes"
    assert len(archive.segments[0]) == len(sizes)
    world.verify_everything()


def test_a_topic_of_nothing_but_poison(make_world: WorldMaker) -> None:
    """The chain has no gaps, even where no row is."""
    world = make_world(partitions=2)
    kappa = world.start()
    kappa.wait_until_ready()
    world.producer.send(world.stream(seed=604, broken_share=1.0).take(700))
    world.wait_until_committed()
    assert kappa.terminate() == 0
    archive = world.read_archive()
    assert all(segment.row_count == 0 for segments in archive.segments.values() for segment in segments)
    world.verify_everything()


def test_latest_starts_behind_what_was_there(make_world: WorldMaker) -> None:
    """A new group may leave the past alone, but a crash must not make it lose its start."""
    world = make_world(partitions=1)
    stream = world.stream(seed=605)
    world.producer.send(stream.take(500))
    skipped = world.sent.end_offsets()[0]
    kappa = world.start({"kafka": {"start": "latest"}})
    kappa.wait_until_ready()
    kappa.kill()
    world.producer.send(stream.take(800))
    again = world.start({"kafka": {"start": "latest"}})
    world.wait_until_committed()
    assert again.terminate() == 0
    archive = world.read_archive()
    assert archive.starts(0)[0] == skipped
    rows = [row["_offset"] for segment in archive.segments[0] for row in segment.rows]
    rejects = [offset for segment in archive.segments[0] for offset in segment.rejects]
    assert sorted([*rows, *rejects]) == list(range(skipped, world.sent.end_offsets()[0]))
