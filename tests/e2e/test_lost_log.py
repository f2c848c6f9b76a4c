"""The log has lost what the pipeline still needs, or is another one: it stops, says so, and skips nothing."""

from __future__ import annotations

import pytest
import requests

from blocks.kappa_process import KappaProcess
from blocks.waiting import wait_for
from blocks.world import World, WorldMaker


def _run_to_the_end(world: World) -> None:
    kappa = world.start()
    world.wait_until_committed()
    assert kappa.terminate() == 0


def _assert_loud(kappa: KappaProcess, partition: int, *words: str) -> None:
    line = kappa.wait_for_state(partition, "stopped_loudly")
    for word in words:
        assert word in line["last_error"], f"`last_error` does not say {word!r}: {line['last_error']}"
    stopped = kappa.metric("kappa_partition_state", partition=str(partition), state="stopped_loudly")
    assert stopped == 1, f"kappa_partition_state is {stopped}"
    errors = [text for text in kappa.log().splitlines() if "ERROR" in text and words[0] in text]
    assert errors, f"the log holds no error about it:\n{kappa.log_tail()}"
    ready: requests.Response = kappa.get("/readyz")
    assert ready.status_code == 503 and f"partition {partition}" in ready.text, f"/readyz says {ready.status_code} {ready.text}"
    assert kappa.is_alive(), "a restart would not help, so /healthz must not ask for one"


def test_retention_has_overrun_one_partition(make_world: WorldMaker) -> None:
    world = make_world(partitions=2)
    stream = world.stream(seed=401)
    world.producer.send(stream.take(2_000))
    _run_to_the_end(world)
    committed, objects = world.committed(), set(world.archive_place.keys())

    world.producer.send(stream.take(2_000))
    world.delete_records(0, committed[0] + 300)
    kappa = world.start()
    _assert_loud(kappa, 0, "retention", str(committed[0]), str(committed[0] + 300))

    # The other partition is none the worse.
    end = world.sent.end_offsets()[1]
    wait_for("the other partition to be committed", 45, lambda: world.committed()[1] == end, world.committed)
    assert world.committed()[0] == committed[0], "the partition that stopped has moved on"
    added = set(world.archive_place.keys()) - objects
    assert added and all("/00001-" in key for key in added), f"archived since: {added}"
    assert kappa.terminate() == 1, "the exit code must not look like success"

    # It is as loud after a restart, and still skips nothing.
    again = world.start()
    _assert_loud(again, 0, "retention")
    assert world.committed()[0] == committed[0]


@pytest.mark.parametrize("records_after", [40, 6_000], ids=["shorter than before", "longer than before"])
def test_the_topic_was_deleted_and_created_again(make_world: WorldMaker, records_after: int) -> None:
    world = make_world(partitions=2)
    stream = world.stream(seed=402)
    world.producer.send(stream.take(2_000))
    _run_to_the_end(world)
    objects = set(world.archive_place.keys())
    snapshots = world.snapshots()

    world.delete_topic()
    world.create_topic()
    world.sent.partitions.clear()
    world.producer = world.new_producer()
    world.producer.send(stream.take(records_after))
    kappa = world.start()
    for partition in range(2):
        _assert_loud(kappa, partition, "deleted and created again")
    assert set(world.archive_place.keys()) == objects, "something of the new topic was archived among the old"
    assert world.snapshots() == snapshots
    assert kappa.terminate() == 1


def test_the_topic_is_made_anew_under_a_running_pipeline(make_world: WorldMaker) -> None:
    """Records of the new topic come from the old position on, and segments are cut all the time: none is sealed."""
    world = make_world(partitions=2)
    stream = world.stream(seed=404)
    kappa = world.start({"checkpoint": {"interval": "1s"}})
    kappa.wait_until_ready()
    world.producer.send(stream.take(2_000))
    world.wait_until_committed()
    objects = set(world.archive_place.keys()) | set(world.dead_letter_place.keys())

    world.delete_topic()
    world.create_topic()
    world.sent.partitions.clear()
    world.producer = world.new_producer()
    world.producer.send(stream.take(6_000))
    assert kappa.wait_for_end(60) == 1
    assert "deleted and created again" in kappa.log(), kappa.log_tail()
    assert set(world.archive_place.keys()) | set(world.dead_letter_place.keys()) == objects


def test_the_snapshot_is_gone(make_world: WorldMaker) -> None:
    """Without its state a partition cannot go on exactly; what to do is said, nothing is guessed."""
    world = make_world(partitions=1)
    stream = world.stream(seed=403)
    world.producer.send(stream.take(1_500))
    _run_to_the_end(world)
    committed = world.committed()[0]
    for key in world.state_place.keys():
        world.state_place.delete(key)
    world.producer.send(stream.take(500))
    kappa = world.start()
    _assert_loud(kappa, 0, "snapshot", str(committed))
    assert world.committed()[0] == committed
    assert kappa.terminate() == 1


def test_the_topic_does_not_exist(make_world: WorldMaker) -> None:
    """A mistyped topic neither comes into being nor looks like an empty one."""
    world = make_world(partitions=1)
    missing = f"{world.topic}-mistyped"
    kappa = world.start({"kafka": {"topic": missing}})
    wait_for("the log to name the missing topic", 45, lambda: missing in kappa.log(), lambda: kappa.log_tail(5))
    if kappa.exit_code is None:
        assert kappa.get("/readyz").status_code == 503
    assert missing not in world.admin.list_topics(timeout=10).topics
