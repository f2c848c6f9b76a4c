"""Everything that a producer can send is found again, exactly, and in the right place."""

from __future__ import annotations

from collections import Counter

from conftest import WorldMaker


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
    rows, anomalies = world.hot_store.view(), world.hot_store.anomalies(world.topic)

    other = make_world(partitions=1)
    other.adopt_log_of(world)
    second = other.start({"checkpoint": {"interval": "3s"}, "anomaly": {}})
    other.wait_until_committed()
    assert second.terminate() == 0
    other.verify_everything()
    assert _by_window(other.hot_store.view()) == _by_window(rows)
    key = lambda row: row["offset"]  # noqa: E731
    assert sorted(other.hot_store.anomalies(other.topic), key=key) == sorted(anomalies, key=key)


def _by_window(view: list[dict]) -> dict[tuple, dict]:
    """Sums may be added up in another order where late contributions were cut elsewhere."""
    rounded = {"sum", "mean", "stddev", "max_score"}
    return {
        (row["sensor_id"], row["metric"], row["window_start_ms"]): {
            name: float(f"{value:.9g}") if name in rounded else value for name, value in row.items()
        }
        for row in view
    }
