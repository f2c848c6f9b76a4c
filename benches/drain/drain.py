"""Drains a preloaded topic through the whole pipeline: real Kafka, registry, S3 and ClickHouse engine on this machine.

The clock runs from the first record taken in until everything is sealed and committed: Parquet on S3, rows acknowledged by
ClickHouse, snapshots written, offsets committed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import harness  # noqa: E402
from harness import ROOT, Pipeline, Stack, machine, run, say, write_report  # noqa: E402


def drain_once(stack: Stack, number: int, arguments: argparse.Namespace) -> dict:
    topic = f"drain-{number}"
    stack.create_topic(topic, arguments.partitions)
    schema_id = stack.register_schema(topic)
    say(f"run {number + 1}: preloading {arguments.events:,} events of {arguments.sensors:,} sensors")
    say(run(ROOT / "target/release/kappa-preload", "--brokers", stack.env["KAFKA_BROKERS"], "--topic", topic,
            "--schema-id", str(schema_id), "--partitions", str(arguments.partitions),
            "--events", str(arguments.events), "--sensors", str(arguments.sensors)).strip())
    pipeline = Pipeline(stack, topic, stack.directory / topic)
    first = None
    while True:
        status = pipeline.status()
        events = status["totals"]["events"] if status else 0
        now = time.monotonic()
        if events and first is None:
            first = (now, events)
        if events >= arguments.events:
            break
        if now - pipeline.started > 300:
            raise SystemExit(f"only {events:,} events after five minutes: see {pipeline.log.name}")
        time.sleep(0.02)
    taken_in = time.monotonic()
    usage = pipeline.usage()
    durable = pipeline.seal(arguments.events)
    pipeline.wait_for_end()
    database = topic.replace("-", "_")
    counted = int(stack.query(f"SELECT sum(count) FROM {database}.windows"))
    if counted != arguments.events:
        raise SystemExit(f"ClickHouse has counted {counted:,} events, {arguments.events:,} were sent")
    rest = arguments.events - first[1]
    result = {
        "taken_in_per_second": rest / (taken_in - first[0]),
        "durable_per_second": rest / (durable - first[0]),
        "cpu_ns_per_event": usage.total / arguments.events * 1e9,
        "cpu_seconds_by_thread": usage.cpu,
        "peak_rss_mib": usage.peak_mib,
        "window_rows": int(stack.query(f"SELECT count() FROM {database}.windows_1m")),
    }
    say(f"  taken in {result['taken_in_per_second'] / 1e6:.2f} M/s, durable {result['durable_per_second'] / 1e6:.2f} M/s,"
        f" {result['cpu_ns_per_event']:.0f} ns CPU an event, {usage.peak_mib:.0f} MiB")
    return result


def main() -> None:
    arguments = harness.arguments(__doc__, events=6_000_000, sensors=100_000, partitions=12, runs=3)
    with Stack(ROOT / "target/bench/stack") as stack:
        runs = [drain_once(stack, number, arguments) for number in range(arguments.runs)]
    durable = sorted(run["durable_per_second"] for run in runs)
    report = {"machine": machine(), "arguments": vars(arguments), "median_durable_per_second": statistics.median(durable),
              "runs": runs}
    path = write_report("drain", report)
    print(f"drained {arguments.events:,} events: median {statistics.median(durable) / 1e6:.2f} M/s"
          f" [{durable[0] / 1e6:.2f}-{durable[-1] / 1e6:.2f}] until all is durable, on {machine()}; {path}")


if __name__ == "__main__":
    main()
