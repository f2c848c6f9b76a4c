"""What the machine and its operators do to a pipeline: limits of memory and disk, stops during outages, members that come and
go without end, other versions before and after."""

from __future__ import annotations

import os
import random
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from blocks.faults import FlippedBit, Refused, kind_has
from blocks.kappa_process import binary
from blocks.new_schema import record_in_a_new_schema
from blocks.producer import Production
from blocks.side_by_side import side_by_side
from blocks.snapshot import FORMAT, of_version, version_of
from blocks.survival import RSS_MARGIN
from blocks.waiting import wait_for
from blocks.wire import Wire
from blocks.world import World, WorldMaker

OTHER_BIN = os.environ.get("KAPPA_OTHER_BIN")


def test_members_join_and_leave_without_end(make_world: WorldMaker) -> None:
    """A rebalance storm: three seats, and every second somebody leaves one, kindly or not, and another one takes it."""
    world = make_world(partitions=6)
    moments = random.Random(41)
    stream = world.stream(seed=41)
    seats = [world.start({"kafka": {"fetcher": fetcher}}) for fetcher in ("librdkafka", "native", "librdkafka")]
    seats[0].wait_until_ready()
    with Production(world.producer, stream.take, per_second=900, most=20_000):
        for _ in range(9):
            time.sleep(moments.uniform(0.2, 1.5))
            seat = moments.randrange(3)
            if moments.random() < 0.5:
                seats[seat].kill()
            else:
                seats[seat].signal_terminate()
            seats[seat] = world.start({"kafka": {"fetcher": moments.choice(["librdkafka", "native"])}})
    world.wait_until_committed(90)
    assert [seat.terminate() for seat in seats] == [0, 0, 0]
    world.verify_everything()


def test_sigterm_during_an_outage_of_each_dependency(make_world: WorldMaker) -> None:
    """It ends within `shutdown_timeout` whatever is away, says with code 1 that not everything was sealed, and the next start
    goes on from the last commit."""
    side_by_side([partial(_stop_without, make_world(), service) for service in ("kafka", "registry", "s3", "clickhouse")])


def _stop_without(world: World, service: str) -> None:
    stack = world.stack
    addresses = {
        "kafka": ("kafka", "brokers", stack.brokers), "registry": ("registry", "url", stack.registry_url),
        "s3": ("object_store", "endpoint", stack.s3_endpoint), "clickhouse": ("hot_store", "url", stack.clickhouse_url),
    }  # fmt: skip
    section, key, address = addresses[service]
    wire = Wire.to(address, "kafka" if service == "kafka" else "http")
    # While Kafka is away, the session outlives the stop: a partition that the group has taken back is nobody's to seal.
    session = {"session.timeout.ms": "12000", "heartbeat.interval.ms": "500"}
    changes = {"pipeline": {"shutdown_timeout": "4s"}, "kafka": {"properties": session}}
    changes.setdefault(section, {})[key] = wire.url(address)
    kappa = world.start(changes)
    kappa.wait_until_ready()
    stream = world.stream(seed=50)
    with Production(world.producer, stream.take, per_second=400, most=10_000) as production:
        time.sleep(2)
        with wire.failing(Refused()):
            with production.paused():
                world.producer.send([record_in_a_new_schema(world.registry, world.topic, stream, 0)])
            time.sleep(1.5)
            started = time.monotonic()
            code = kappa.terminate(30)
            took = time.monotonic() - started
        with production.paused():
            world.verify_committed_is_durable()
    wire.close()
    # A partition that waits for a schema has sealed what came before it.
    assert code == (0 if service == "registry" else 1), f"{service}: exit code {code}\n{kappa.log_tail()}"
    # Leaving the group may take some seconds more, with the brokers away.
    assert took < 4 + 11, f"{service}: it took {took:.1f} s to end"
    following = world.start()
    world.wait_until_committed()
    assert following.terminate() == 0
    world.verify_everything()


def test_no_file_is_written(make_world: WorldMaker, tmp_path: Path) -> None:
    """A full disk does not matter: the process may not write a single byte to a file, and needs none."""
    world = make_world()
    nowhere = tmp_path / "not-there"
    kappa = world.start(environment={"TMPDIR": str(nowhere), "HOME": str(nowhere)}, limits=["--fsize=0"])
    kappa.wait_until_ready()
    with Production(world.producer, world.stream(seed=42).take, per_second=800, most=4_000):
        for _ in range(10):
            assert not kappa.files_open_for_writing()
            time.sleep(0.3)
    world.wait_until_committed()
    assert kappa.terminate() == 0
    world.verify_everything()


# Bytes of data that it needs for its threads and clients before the first record, and hardly more.
HARDLY_ENOUGH = 92 << 20


def test_memory_runs_out_all_the_same(make_world: WorldMaker) -> None:
    """Within budget and margin the system's own limit is never met. A limit below kills the process, which loses nothing."""
    side_by_side([partial(_run_within_the_margin, make_world()), partial(_run_out_of_memory, make_world())])


def _run_within_the_margin(world: World) -> None:
    _run_within(world, 128 << 20, limits=[f"--data={(128 << 20) + RSS_MARGIN}"])


def test_memory_of_many_partitions(make_world: WorldMaker) -> None:
    """Buffers and open files of so many are more than the budget has room for: segments are cut early instead. What is resident
    counts: the system's limit counts what the allocator has reserved too, in larger pieces the more there is."""
    _run_within(make_world(partitions=96), 128 << 20)


def _run_within(world: World, budget: int, limits: list[str] | None = None) -> None:
    kappa = world.start({"limits": {"memory": f"{budget}"}}, limits=limits or [])
    kappa.wait_until_ready()
    with Production(world.producer, world.stream(seed=43).take, per_second=1_500, most=8_000):
        time.sleep(5)
    world.wait_until_committed()
    peak = kappa.peak_resident_bytes()
    assert peak <= budget + RSS_MARGIN, f"{peak >> 20} MiB"
    assert kappa.terminate() == 0, kappa.log_tail()
    world.verify_everything()


def _run_out_of_memory(world: World) -> None:
    stream = world.stream(seed=47, padding=2_000)
    with Production(world.producer, stream.take, per_second=900, most=20_000) as production:
        # Whoever prints a backtrace at a panic must not stand still where there is no memory for it.
        dying = world.start(environment={"RUST_BACKTRACE": "1"}, limits=[f"--data={HARDLY_ENOUGH}"])
        wait_for("it to run out of memory", 40, lambda: dying.exit_code is not None, lambda: dying.log_tail(3))
        assert dying.exit_code == -signal.SIGABRT, dying.log_tail()
        with production.paused():
            world.verify_committed_is_durable()
    following = world.start()
    world.wait_until_committed()
    assert following.terminate() == 0
    world.verify_everything()


def test_the_state_of_a_newer_version_is_refused_and_kept(make_world: WorldMaker) -> None:
    """Going back too far stops loudly, touches nothing, and says what to do; the newer version then goes on."""
    world = make_world(partitions=1)
    stream = world.stream(seed=44)
    kappa = world.start()
    world.producer.send(stream.take(1_000))
    world.wait_until_committed()
    assert kappa.terminate() == 0
    key = next(key for key in world.state_place.keys() if key.endswith(f"{world.committed()[0]:020}.snapshot"))
    ours = world.state_place.read(key)
    newer_state = of_version(ours, FORMAT + 1, world.hot_store)
    world.state_place.write(key, newer_state)
    world.producer.send(stream.take(500))
    older = world.start()
    line = older.wait_for_state(0, "stopped_loudly")
    assert f"format version {FORMAT + 1}" in line["last_error"] and "run a newer version" in line["last_error"], line
    assert older.terminate() == 1
    assert world.state_place.read(key) == newer_state, "what it cannot read it must leave alone"
    world.state_place.write(key, ours)
    newer = world.start()
    world.wait_until_committed()
    assert newer.terminate() == 0
    world.verify_everything()


def test_a_bit_flips_in_snapshots_on_their_way(make_world: WorldMaker) -> None:
    """What the checksum does not fit is read again before a partition stops."""
    world = make_world()
    stream = world.stream(seed=46)
    first = world.start()
    world.producer.send(stream.take(2_000))
    world.wait_until_committed()
    assert first.terminate() == 0
    wire = Wire.to(world.stack.s3_endpoint)
    with wire.failing(FlippedBit(kind_has("GET ", ".snapshot"), every=2)) as fault:
        second = world.start({"object_store": {"endpoint": wire.url(world.stack.s3_endpoint)}})
        world.producer.send(stream.take(1_000))
        world.wait_until_committed()
    assert fault.hits > 0 and "reading it again" in second.log()
    assert second.terminate() == 0
    world.verify_everything()
    wire.close()


@pytest.mark.skipif(OTHER_BIN is None, reason="KAPPA_OTHER_BIN is not set: `make soak` builds an older version for it")
def test_versions_follow_one_another_both_ways(make_world: WorldMaker) -> None:
    """Upgrade and downgrade, one instance after the other under load, by SIGTERM and by SIGKILL. Where the state has got another
    format since, upgrade alone: the older version refuses the newer state, as another test shows."""
    world = make_world(partitions=4)
    stream = world.stream(seed=45)
    old = {"KAPPA_BIN": str(OTHER_BIN)}
    assert Path(old["KAPPA_BIN"]).read_bytes() != binary().read_bytes(), "both are the same program"
    seats = [world.start(environment=old), world.start(environment=old)]
    seats[0].wait_until_ready()
    snapshots = [world.state_place.read(key) for key in world.state_place.keys() if key.endswith(".snapshot")]
    is_same_format = {version_of(snapshot) for snapshot in snapshots} == {FORMAT}
    turns = (({}, False), (old, False), ({}, True), (old, True)) if is_same_format else (({}, False), ({}, True))
    with Production(world.producer, stream.take, per_second=800, most=30_000):
        for environment, kill in turns:
            for number in range(2):
                time.sleep(2)
                if kill:
                    seats[number].kill()
                else:
                    assert seats[number].terminate() == 0, seats[number].log_tail()
                seats[number] = world.start(environment=environment)
                seats[number].wait_until_ready()
        time.sleep(2)
    world.wait_until_committed(90)
    assert [seat.terminate() for seat in seats] == [0, 0]
    if is_same_format:
        world.verify_everything()
    else:
        # What an older version made of the records is what it promised, not what this one does.
        result = world.kappa_verify()
        assert result.code == 0, result.text
