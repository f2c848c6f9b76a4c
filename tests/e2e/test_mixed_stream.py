"""Everything that a producer can send is found again, exactly, and in the right place."""

from __future__ import annotations

from collections import Counter

from conftest import WorldMaker

from blocks.verification import check_same_results


def test_a_mixed_stream_is_found_again_exactly(make_world: WorldMaker) -> None:
    world = make_world()
    kappa = world.start()
    kappa.wait_until_ready()
    stream = world.stream(seed=1)
    for _ in range(4):
        world.producer.send(stream.take(5_000))
    world.wait_until_committed()

    expected = Counter(fate.reason for _, fate in world.sent.rejected().values())
    totals = kappa.status()["totals"]
    assert totals["dead_letters_by_reason"] == dict(expected)
    assert totals["events"] == len(world.sent.accepted())
    assert kappa.metric("kappa_dead_letters_total", topic=world.topic) == sum(expected.values())
    assert kappa.metric("kappa_events_total", topic=world.topic) == len(world.sent.accepted())
    assert kappa.terminate() == 0
    world.verify_everything()


def test_a_backlog_is_found_again_exactly(make_world: WorldMaker) -> None:
    """Read as fast as it goes: provisional rows are skipped, partitions are decoded in large batches."""
    world = make_world(partitions=2)
    world.window_ms, world.lateness_ms = 10_000, 5_000
    world.producer.send(world.stream(seed=2, sensors=40).take(15_000))
    kappa = world.start({"pipeline": {"workers": 2}})
    world.wait_until_committed()
    assert kappa.terminate() == 0
    world.verify_everything()


def test_another_group_comes_to_the_same_rows(make_world: WorldMaker) -> None:
    """Every output is a function of the log: other cuts, other batches, the same rows."""
    world = make_world(partitions=1)
    world.producer.send(world.stream(seed=3).take(6_000))
    first = world.start()
    world.wait_until_committed()
    assert first.terminate() == 0
    world.verify_everything()
    second = make_world(partitions=1)
    second.run_undisturbed_on_the_log_of(world)
    check_same_results(second.hot_store, world.hot_store, world.topic)
