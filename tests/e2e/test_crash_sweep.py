"""The process dies, or stands still and comes back, between each two steps of the protocol. Whatever the step: nothing is
lost, nothing counted twice, and the next owner goes on by itself."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from blocks.kappa_process import KappaProcess
from blocks.waiting import Found, NotYet, wait_until
from blocks.world import World, WorldMaker

RECORDS = 1_500
# A few segments each, so that the second time at a place is in mid-stream.
SETTINGS = {"checkpoint": {"interval": "1s"}}


@dataclass(frozen=True)
class Sweep:
    """What happens to the owners of a partition, one after the other."""

    name: str
    # Place and count for each process that dies.
    deaths: Sequence[str]


EVERY_STEP = [
    Sweep("start", ["StartSettled:1", "FirstSnapshot:1", "FirstCommit:1", "Restored:1"]),
    Sweep("cut", ["Cut:1", "Cut:2"]),
    Sweep("archived", ["Archived:1", "Archived:2"]),
    Sweep("dead-letters", ["DeadLettersWritten:1", "DeadLettersWritten:2"]),
    Sweep("rows", ["RowsWritten:1", "RowsWritten:2"]),
    Sweep("snapshot", ["SnapshotWritten:1", "SnapshotWritten:2"]),
    Sweep("committed", ["Committed:1", "Pruned:2"]),
    # Each finds what the one before it has sealed.
    Sweep("adopting", ["Archived:1", "Adopting:1", "Adopting:1", "SnapshotWritten:1"]),
]


def start(world: World, fail_point: str | None = None) -> KappaProcess:
    return world.start(SETTINGS, {"KAPPA_FAIL_POINT": fail_point} if fail_point else None)


def wait_for_death(kappa: KappaProcess, place: str) -> None:
    code = kappa.wait_for_end(60)
    assert code == -signal.SIGKILL, (
        f"kappa was to die at {place} and ended with {code}: was it built with `--features kappa-pipeline/fail-points`?"
        f"\n{kappa.log_tail()}"
    )


def test_kill_minus_nine_between_each_two_steps(make_world: WorldMaker) -> None:
    """All sweeps side by side: they wait most of the time."""
    worlds = [(sweep, make_world(partitions=1)) for sweep in EVERY_STEP]
    streams = {}
    for number, (sweep, world) in enumerate(worlds):
        streams[sweep.name] = world.stream(seed=700 + number)
        world.producer.send(streams[sweep.name].take(RECORDS))
    for turn in range(max(len(sweep.deaths) for sweep, _ in worlds)):
        dying = [(world, sweep, start(world, f"{sweep.deaths[turn]}:KILL")) for sweep, world in worlds if turn < len(sweep.deaths)]
        # Something new for each: without it there is no second segment to die in.
        for world, sweep, _ in dying:
            world.producer.send(streams[sweep.name].take(RECORDS // 3))
        feed_until_dead(dying, streams)
        for world, _, _ in dying:
            world.verify_committed_is_durable()
    survivors = [start(world) for _, world in worlds]
    for _, world in worlds:
        world.wait_until_committed(90)
    for kappa in survivors:
        assert kappa.terminate() == 0, kappa.log_tail()
    for _, world in worlds:
        world.verify_everything()


def feed_until_dead(dying: list, streams: dict) -> None:
    """Segments are cut by time, so that a second one needs records that come later than the first."""
    alive = list(dying)

    def look() -> Found[None] | NotYet:
        for entry in list(alive):
            world, sweep, kappa = entry
            if kappa.exit_code is not None:
                wait_for_death(kappa, str(sweep.deaths))
                alive.remove(entry)
            else:
                world.producer.send(streams[sweep.name].take(50))
        return NotYet(f"alive: {[sweep.name for _, sweep, _ in alive]}") if alive else Found(None)

    wait_until("all processes to die where they were told to", 60, look, every=0.5)


def test_a_zombie_wakes_up_between_two_steps(make_world: WorldMaker) -> None:
    """Stopped in the middle of a seal until another owner has sealed the very segment and more, then woken."""
    places = ["Cut", "Archived", "RowsWritten", "SnapshotWritten"]
    worlds = [make_world(partitions=1) for _ in places]
    streams = [world.stream(seed=760 + number) for number, world in enumerate(worlds)]

    def send_everywhere() -> None:
        for world, stream in zip(worlds, streams, strict=True):
            world.producer.send(stream.take(RECORDS))

    send_everywhere()
    zombies = [start(world, f"{place}:1:STOP") for world, place in zip(worlds, places, strict=True)]

    def look() -> Found[None] | NotYet:
        awake = [place for place, zombie in zip(places, zombies, strict=True) if not zombie.is_stopped()]
        return NotYet(f"awake: {awake}") if awake else Found(None)

    wait_until("all processes to stand still where they were told to", 60, look)
    heirs = [start(world) for world in worlds]
    for heir in heirs:
        heir.wait_until_ready()
    send_everywhere()
    for world in worlds:
        world.wait_until_committed()
    for zombie in zombies:
        zombie.resume()
    send_everywhere()
    for world, place, zombie, heir in zip(worlds, places, zombies, heirs, strict=True):
        world.wait_until_committed()
        assert zombie.exit_code is None, f"the zombie of {place} has died:\n{zombie.log_tail()}"
        assert [zombie.terminate(), heir.terminate()] == [0, 0], place
    # A zombie may have stored a snapshot again that its heir had deleted; the next owner finds it and deletes it.
    last = [start(world) for world in worlds]
    for kappa in last:
        kappa.wait_until_ready()
    send_everywhere()
    for world, kappa in zip(worlds, last, strict=True):
        world.wait_until_committed()
        assert kappa.terminate() == 0
        world.verify_everything()
