"""S3 is away for long, at full load: the aggregates stay fresh until the memory budget is used, then Kafka waits.

What fills the memory is the archive that cannot be written, so the time that is survived follows from bytes, not from
the clock: here events are made of bytes that cannot be compressed, and the smallest budget that there is fills in seconds.
`make soak` runs the long form, 50,000 ordinary events a second (KAPPA_OUTAGE_MINUTES).
"""

from __future__ import annotations

import os
import time

import pyarrow.parquet as pq
import pytest

from blocks.faults import Refused
from blocks.fire_hose import FireHose
from blocks.kappa_process import KappaProcess
from blocks.survival import RSS_MARGIN, Survived, verified_records
from blocks.waiting import Found, NotYet, wait_until
from blocks.wire import Wire
from blocks.world import World, WorldMaker

MINUTES = float(os.environ.get("KAPPA_OUTAGE_MINUTES", "0"))
FRESH_MS = 5_000
CATCH_UP = 60
# Its last segment is cut when `checkpoint.interval` is over, a minute there.
CATCH_UP_LONG = 180


def test_s3_is_away_until_the_memory_budget_is_used(make_world: WorldMaker) -> None:
    world = make_world()
    wire = Wire.to(world.stack.s3_endpoint)
    kappa = world.start({
        "object_store": {"endpoint": wire.url(world.stack.s3_endpoint)},
        "limits": {"memory": "128MiB", "max_event_age": "1h"},
        "checkpoint": {"interval": "2s", "max_bytes": "16MiB"},
        "hot_store": {"emit_interval": "1s"},
        "http": {"ready_max_lag": "30s"},
    })  # fmt: skip
    kappa.wait_until_ready()
    with FireHose(world, per_second=6_000, sensors=300, padding=2_000) as hose:
        # The first segment is cut and sealed: the registry's word on the schema is in it, and rows may leave.
        time.sleep(5)
        kappa.peak_resident_bytes()
        began = time.monotonic()
        with wire.failing(Refused()):
            fresh_for = _fresh_until_the_budget_is_used(world, kappa)
            # Longer than the largest pause between two tries, with all memory in use.
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline:
                assert kappa.is_alive()
                time.sleep(0.3)
            kept = kappa.status()["memory"]["used_bytes"]
        healed = time.monotonic()
        hose.stop()
    _finish(world, kappa, hose, kappa.failures_of("object_store"), began, healed, f"down until the memory is full: fresh for {fresh_for:.0f} s, {kept >> 20} MiB kept")
    wire.close()


@pytest.mark.skipif(MINUTES == 0, reason="KAPPA_OUTAGE_MINUTES is not set: the long form takes so many minutes")
@pytest.mark.timeout(MINUTES * 60 + 1_800)
def test_s3_is_away_for_minutes_at_fifty_thousand_events_a_second(make_world: WorldMaker) -> None:
    """Ordinary events: the budget lasts for half an hour."""
    world = make_world(partitions=6)
    wire = Wire.to(world.stack.s3_endpoint)
    kappa = world.start({
        "object_store": {"endpoint": wire.url(world.stack.s3_endpoint)},
        "limits": {"memory": "1536MiB", "max_event_age": "1h"},
        "checkpoint": {"interval": "1m", "max_bytes": "64MiB"},
        "hot_store": {"emit_interval": "1s"},
    })  # fmt: skip
    kappa.wait_until_ready()
    with FireHose(world, per_second=50_000, sensors=10_000) as hose:
        time.sleep(5)
        kappa.peak_resident_bytes()
        began, sent_before, used_before = time.monotonic(), hose.sent, kappa.status()["memory"]["used_bytes"]
        stale = []
        with wire.failing(Refused()):
            while time.monotonic() - began < MINUTES * 60:
                time.sleep(1)
                stale.append(_behind_ms(world))
                assert not _is_waiting(kappa), "the budget is used up"
            events, kept = hose.sent - sent_before, kappa.status()["memory"]["used_bytes"] - used_before
        healed = time.monotonic()
        hose.stop()
    late = sorted(stale)[len(stale) * 99 // 100]
    assert late < FRESH_MS, f"aggregates were {late} ms behind (99th percentile)"
    _finish(world, kappa, hose, kappa.failures_of("object_store"), began, healed,
        f"down at {events / (healed - began):,.0f} events/s: {kept / events:.1f} B of the budget an event, aggregates {late / 1000:.1f} s behind (p99)", CATCH_UP_LONG)  # fmt: skip
    wire.close()


def _fresh_until_the_budget_is_used(world: World, kappa: KappaProcess) -> float:
    """For how many seconds; meanwhile windows of this very moment were in ClickHouse."""
    started, behind = time.monotonic(), []
    while not _is_waiting(kappa):
        waited = time.monotonic() - started
        assert waited < 60, f"the memory budget is not used up: {kappa.status()['memory']}"
        behind.append(_behind_ms(world))
        time.sleep(0.3)
    # What was looked at last may have been held up already.
    assert len(behind) > 5, "the budget was used up before anything could be seen"
    assert max(behind[:-2]) < FRESH_MS, f"aggregates were {max(behind[:-2])} ms behind although memory was left"
    return time.monotonic() - started


def _behind_ms(world: World) -> int:
    return int(time.time() * 1000) - world.hot_store.newest_event_ms()


def _is_waiting(kappa: KappaProcess) -> bool:
    return any(line["state"] == "backpressure" for line in kappa.status()["partitions"])


def _finish(
    world: World, kappa: KappaProcess, hose: FireHose, hits: int, began: float, healed: float, fault: str, within: float = CATCH_UP
) -> None:
    ends = world.end_offsets()
    assert sum(ends.values()) == hose.sent

    def look() -> Found[None] | NotYet:
        committed = world.committed()
        return Found(None) if committed == ends else NotYet(f"committed {committed}")

    wait_until(f"{ends} to be committed", within, look, every=0.3)
    recovered = time.monotonic() - healed
    budget, peak = kappa.status()["memory"]["budget_bytes"], kappa.peak_resident_bytes()
    assert peak <= budget + RSS_MARGIN, f"{peak >> 20} MiB resident with a budget of {budget >> 20} MiB"
    assert kappa.terminate() == 0, kappa.log_tail()
    records = verified_records(world)
    assert records == hose.sent
    counted = world.hot_store.query(f"SELECT toString(sum(count)) AS n FROM {world.hot_store.database}.windows")[0]["n"]
    archived = sum(pq.read_metadata(world.archive_place.open(key)).num_rows for key in world.archive_place.keys())
    assert (int(counted), archived) == (hose.sent, hose.sent)
    Survived(
        "s3", fault, round(healed - began, 1), round(recovered, 1), within, peak >> 20, (budget + RSS_MARGIN) >> 20, records, hits,
    ).report()  # fmt: skip
