"""Instances come and go while records flow; every partition is read on by somebody, exactly."""

from __future__ import annotations

import time

from blocks.kappa_process import KappaProcess
from blocks.waiting import wait_for
from blocks.world import WorldMaker


def _partitions_of(kappa: KappaProcess) -> list[int]:
    return [line["partition"] for line in kappa.status()["partitions"] if line["state"] == "running"]


def _wait_for_a_share(kappa: KappaProcess) -> None:
    wait_for(f"{kappa.log_file.name} to run a partition", 40, lambda: bool(_partitions_of(kappa)), kappa.status)


def test_instances_join_and_leave_under_load(make_world: WorldMaker) -> None:
    world = make_world(partitions=4)
    with world.flowing(seed=201, per_second=900) as first:
        second = world.start()
        _wait_for_a_share(second)
        time.sleep(1.5)
        assert second.terminate() == 0, second.log_tail()
        time.sleep(1)
        third = world.start()
        _wait_for_a_share(third)
        time.sleep(1.5)
        third.kill()
        time.sleep(1)
    world.wait_until_committed()
    assert sorted(_partitions_of(first)) == [0, 1, 2, 3], "the first instance has all partitions back"
    assert first.terminate() == 0
    world.verify_everything()


def test_a_suspended_owner_comes_back_as_a_zombie(make_world: WorldMaker) -> None:
    """It misses its session, another one takes over, and then it wakes up in the middle of what it was doing."""
    world = make_world(partitions=2)
    with world.flowing(seed=202, per_second=900) as first:
        first.suspend()
        second = world.start()
        wait_for("the other one to take over", 40, lambda: sorted(_partitions_of(second)) == [0, 1], second.status)
        time.sleep(2)
        first.resume()
        time.sleep(3)
    world.wait_until_committed()
    assert first.is_alive()
    assert [first.terminate(), second.terminate()] == [0, 0], first.log_tail()
    world.verify_everything()


def test_a_member_without_partitions_is_ready_and_takes_over(make_world: WorldMaker) -> None:
    """Three members share two partitions: one is idle, which is no fault of its own, and stands in when it is needed."""
    world = make_world(partitions=2)
    members = [world.start() for _ in range(3)]
    for member in members:
        member.wait_until_ready()

    def shares() -> list[int]:
        return sorted(len(_partitions_of(member)) for member in members)

    wait_for("two of three to run a partition each", 40, lambda: shares() == [0, 1, 1], shares)
    idle = next(member for member in members if not _partitions_of(member))
    answer = idle.get("/readyz")
    assert (answer.status_code, answer.text.strip()) == (200, "ready: assigned, no partitions")
    world.producer.send(world.stream(seed=203).take(1_000))
    gone = next(member for member in members if member is not idle)
    assert gone.terminate() == 0, gone.log_tail()
    _wait_for_a_share(idle)
    world.wait_until_committed()
    assert [member.terminate() for member in members if member is not gone] == [0, 0]
    world.verify_everything()
