"""The process ends at any moment, kindly or not, while production goes on; the result is the same."""

from __future__ import annotations

import random
import time

import pytest

from blocks.new_schema import record_in_a_new_schema
from blocks.producer import Production
from blocks.segment_keys import hour_that_began_ms
from blocks.verification import check_same_results
from blocks.world import World, WorldMaker


@pytest.mark.parametrize(("seed", "fetcher"), [(101, "librdkafka"), (102, "native")])
def test_kill_minus_nine_at_random_moments(make_world: WorldMaker, seed: int, fetcher: str) -> None:
    """The moments come from the seed: rerun with it to try the same ones."""
    world = make_world()
    stream, moments = world.stream(seed=seed), random.Random(seed)
    with Production(world.producer, stream.take, per_second=700, most=20_000) as production:
        for _ in range(5):
            kappa = world.start({"kafka": {"fetcher": fetcher}})
            kappa.wait_for_http()
            time.sleep(moments.uniform(0.3, 4.5))
            kappa.kill()
            with production.paused():
                world.verify_committed_is_durable()
    kappa = world.start({"kafka": {"fetcher": fetcher}})
    kappa.wait_until_ready()
    world.wait_until_committed()
    assert kappa.terminate() == 0
    world.verify_everything()

    undisturbed = make_world()
    undisturbed.run_undisturbed_on_the_log_of(world)
    check_same_results(world.hot_store, undisturbed.hot_store, world.topic)


def test_sigterm_at_random_moments(make_world: WorldMaker) -> None:
    world = make_world()
    stream, moments = world.stream(seed=110), random.Random(110)
    with Production(world.producer, stream.take, per_second=700, most=20_000) as production:
        for _ in range(4):
            kappa = world.start()
            kappa.wait_for_http()
            time.sleep(moments.uniform(0.0, 3.0))
            assert kappa.terminate() == 0, kappa.log_tail()
            with production.paused():
                world.verify_committed_is_durable()
    world.start()
    world.wait_until_committed()
    world.verify_everything()


def test_sigterm_seals_and_commits_all_that_was_taken_in(make_world: WorldMaker) -> None:
    """No timer cuts here: once every schema's first record is durable, which does not wait for one, only the stop does."""
    world = make_world()
    kappa = world.start({"checkpoint": {"interval": "1h"}, "registry": {"unknown_id_retry": "200ms"}})
    kappa.wait_until_ready()
    # Without broken records and within one hour: an unknown id cuts a segment early, and so does an hour that begins.
    stream = world.stream(seed=120, broken_share=0.0, start_ms=hour_that_began_ms(minutes_ago=30))
    world.producer.send(stream.take(600))
    # Behind all others, so that with them everything is committed.
    newest = [record_in_a_new_schema(world.registry, world.topic, stream, partition) for partition in range(world.partitions)]
    world.producer.send(newest)
    world.wait_until_committed()
    first, first_segments = world.committed(), _segments_of(world)

    world.producer.send(stream.take(5_000))
    ends = world.sent.end_offsets()
    for partition, end in ends.items():
        world.wait_for_position(kappa, partition, end)
    assert world.committed() == first, "something was committed before the stop"
    assert kappa.terminate() == 0
    assert world.committed() == ends
    assert _segments_of(world) == {partition: count + 1 for partition, count in first_segments.items()}
    world.verify_everything()


def _segments_of(world: World) -> dict[int, int]:
    return {partition: len(segments) for partition, segments in world.read_archive().segments.items()}


def test_the_second_sigterm_leaves_at_once_and_loses_nothing(make_world: WorldMaker) -> None:
    world = make_world()
    kappa = world.start()
    kappa.wait_until_ready()
    world.producer.send(world.stream(seed=130).take(4_000))
    kappa.signal_terminate()
    kappa.signal_terminate()
    assert kappa.wait_for_end(15) in (0, 1)
    world.verify_committed_is_durable()
    world.start()
    world.wait_until_committed()
    world.verify_everything()
