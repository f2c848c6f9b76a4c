"""Everything that a producer can send is found again, exactly, and in the right place."""

from __future__ import annotations

from collections import Counter

from blocks.readings import Verdict
from blocks.verification import check_same_results
from blocks.world import World, WorldMaker


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
    again = sum(verdict is Verdict.DUPLICATE for verdict, _ in world.sent.verdicts().values())
    assert again > 100 and totals["duplicate_events"] == again
    assert kappa.metric("kappa_duplicate_events_total", topic=world.topic) == again
    assert kappa.terminate() == 0
    world.verify_everything()
    _check_the_view_of_quality(world)


def _check_the_view_of_quality(world: World) -> None:
    """Completeness, validity and freshness as people query them."""
    rows = world.hot_store.query(f"SELECT * FROM {world.hot_store.database}.quality")
    verdicts, rejected = world.sent.verdicts(), len(world.sent.rejected())
    counted = len(world.sent.counted())
    assert sum(int(row["accepted"]) for row in rows) == counted
    assert sum(int(row["rejected"]) for row in rows) == rejected
    assert sum(int(row["restarts"]) for row in rows) == sum(verdict is Verdict.RESTART for verdict, _ in verdicts.values())
    for row in rows:
        if int(row["expected"]):
            assert abs(row["completeness"] - min(int(row["accepted"]) / int(row["expected"]), 1)) < 1e-9, row
        assert 0 <= row["validity"] <= 1 and row["mean_delay_seconds"] <= row["max_delay_seconds"], row
    wholly = world.hot_store.query(f"SELECT sum(accepted) / (sum(accepted) + sum(rejected)) AS validity FROM {world.hot_store.database}.quality")
    assert abs(wholly[0]["validity"] - counted / (counted + rejected)) < 1e-9


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
