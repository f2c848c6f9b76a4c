"""Sends events on schedule for some minutes and looks whether the pipeline keeps up: lag bounded, memory flat."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import harness  # noqa: E402
from harness import ROOT, Pipeline, Stack, machine, say, write_report  # noqa: E402


def main() -> None:
    arguments = harness.arguments(__doc__, rate=50_000, seconds=300, sensors=10_000, partitions=12)
    events = arguments.rate * arguments.seconds
    with Stack(ROOT / "target/bench/stack") as stack:
        topic = "sustain"
        stack.create_topic(topic, arguments.partitions)
        schema_id = stack.register_schema(topic)
        pipeline = Pipeline(stack, topic, topic, {"checkpoint.interval": "1m"})
        producer = subprocess.Popen(
            [ROOT / "target/release/kappa-preload", "--brokers", stack.env["KAFKA_BROKERS"], "--topic", topic,
             "--schema-id", str(schema_id), "--partitions", str(arguments.partitions), "--events", str(events),
             "--sensors", str(arguments.sensors), "--rate", str(arguments.rate)], stdout=subprocess.PIPE, text=True)
        samples = sample_until_done(pipeline, producer, events)
        usage = pipeline.usage()
        pipeline.seal(events)
        pipeline.wait_for_end()
        counted = int(stack.query("SELECT sum(count) FROM sustain.windows"))
    # The first fifth is warm-up: series appear, buffers grow.
    steady = samples[len(samples) // 5:]
    half = len(steady) // 2
    memory = [sample["rss_mib"] for sample in steady]
    report = {
        "machine": machine(), "arguments": vars(arguments), "producer": producer.stdout.read().strip() if producer.stdout else "",
        "events_counted": counted, "events_sent": events,
        "lag_records_p50": statistics.median(sample["lag"] for sample in steady),
        "lag_records_max": max(sample["lag"] for sample in steady),
        "rss_mib_first_half": statistics.median(memory[:half]), "rss_mib_second_half": statistics.median(memory[half:]),
        "rss_mib_peak": usage.peak_mib,
        "cores": usage.total / (samples[-1]["at"] - samples[0]["at"]), "cpu_seconds_by_thread": usage.cpu, "samples": samples,
    }
    path = write_report("sustain", report)
    print(f"{arguments.rate:,} events/s for {arguments.seconds} s on {machine()}: lag p50 {report['lag_records_p50']:.0f}, max"
          f" {report['lag_records_max']} records; memory {report['rss_mib_first_half']:.0f} MiB, then"
          f" {report['rss_mib_second_half']:.0f} MiB; {report['cores']:.2f} cores; {counted:,} of {events:,} events counted; {path}")
    kept_up = report["lag_records_max"] < 5 * arguments.rate and counted == events
    sys.exit(0 if kept_up else 1)


def sample_until_done(pipeline: Pipeline, producer: subprocess.Popen, events: int) -> list[dict]:
    samples: list[dict] = []
    while True:
        time.sleep(1)
        status = pipeline.status()
        if status is None:
            continue
        rss = next(line for line in Path(f"/proc/{pipeline.process.pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
        samples.append({"at": time.monotonic(), "events": status["totals"]["events"],
                        "lag": sum(partition["lag_records"] or 0 for partition in status["partitions"]),
                        "rss_mib": int(rss.split()[1]) / 1024})
        if len(samples) % 15 == 0:
            say(f"{samples[-1]['events']:,} events, lag {samples[-1]['lag']}, {samples[-1]['rss_mib']:.0f} MiB")
        if producer.poll() is not None and samples[-1]["events"] >= events:
            return samples
        if producer.poll() is not None and samples[-1]["at"] - samples[0]["at"] > 2 * events:
            raise SystemExit("the pipeline never caught up")


if __name__ == "__main__":
    main()
