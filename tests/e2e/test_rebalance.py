"""Instances come and go while records flow; every partition is read on by somebody, exactly."""

from __future__ import annotations

import time

from conftest import WorldMaker

from blocks.kappa_process import KappaProcess
from blocks.producer import Production
from blocks.waiting import wait_for


def _partitions_of(kappa: KappaProcess) -> list[int]:
    return [line["partition"] for line in kappa.status()["partitions"] if line["state"] == "running"]


def _wait_for_a_share(kappa: KappaProcess) -> None:
    wait_for(f"{kappa.log_file.name} to run a partition", 40, lambda: bool(_partitions_of(kappa)), kappa.status)


def test_instances_join_and_leave_under_load(make_world: WorldMaker) -> None:
    world = make_world(partitions=4)
    stream = world.stream(seed=201)
    first = world.start()
    first.wait_until_ready()
    with Production(world.producer, stream.take, per_second=900, most=20_000):
        time.sleep(1)
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
    stream = world.stream(seed=202)
    first = world.start()
    first.wait_until_ready()
    with Production(world.producer, stream.take, per_second=900, most=20_000):
        time.sleep(2)
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
