"""Drains preloaded topics through the whole pipeline: real Kafka, registry, S3 and ClickHouse engine on this machine.

The clock runs from the last look that found nothing taken in until everything is sealed and committed: Parquet on S3, rows acknowledged by
ClickHouse, snapshots written, offsets committed. Beside each run the floor is measured: the same topic taken from librdkafka
and thrown away. Their ratio is what to compare between machines. Behind each run `kappa verify` goes through all of it again:
the log, the archive, the windows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from harness import DEFAULT_SCHEMA, ROOT, Pipeline, Stack, machine, run, say, write_report  # noqa: E402

BINARIES = ROOT / "target/release"
SCHEMAS = ROOT / "benches/schemas"


@dataclass(frozen=True)
class Case:
    """What is in the topic."""

    about: str
    sensors: int = 100_000
    partitions: int = 12
    events: int = 12_000_000
    invalid_percent: int = 0
    wide: bool = False
    two_schemas: bool = False
    instances: int = 1


# Long enough that Kafka's JVM has compiled what it runs, and that the rows of the last open windows, which are written at the end,
# are a small part.
CASES = {
    "main": Case("100,000 sensors", events=24_000_000),
    "8k": Case("8,000 sensors", sensors=8_000),
    "wide": Case("40 fields, nested", sensors=8_000, events=4_000_000, wide=True),
    "invalid": Case("10 % invalid", invalid_percent=10),
    "all-invalid": Case("all invalid", events=6_000_000, invalid_percent=100),
    "two-schemas": Case("two schema versions, interleaved", two_schemas=True),
    "1-partition": Case("1 partition", partitions=1),
    "96-partitions": Case("96 partitions", partitions=96),
    "2-instances": Case("two instances", instances=2),
    "4-instances": Case("four instances", instances=4),
}


def preload(stack: Stack, topic: str, case: Case) -> None:
    stack.create_topic(topic, case.partitions)
    first = stack.register_schema(topic, SCHEMAS / "wide.avsc" if case.wide else DEFAULT_SCHEMA)
    options = ["--shape", "wide"] if case.wide else []
    if case.two_schemas:
        options += ["--second-schema-id", str(stack.register_schema(topic, SCHEMAS / "evolved.avsc"))]
    say(run(BINARIES / "kappa-preload", "--brokers", stack.env["KAFKA_BROKERS"], "--topic", topic, "--schema-id", str(first),
            "--partitions", str(case.partitions), "--events", str(case.events), "--sensors", str(case.sensors),
            "--invalid-percent", str(case.invalid_percent), *options).strip())


def floor(stack: Stack, topic: str, case: Case) -> dict:
    found = json.loads(run(BINARIES / "kappa-floor", "--brokers", stack.env["KAFKA_BROKERS"], "--topic", topic,
                          "--partitions", str(case.partitions), "--events", str(case.events)))
    return {f"floor_{name}": value for name, value in found.items()}


def processed(pipelines: list[Pipeline]) -> int:
    """Records up to the positions of all partitions. Not the totals: partitions move between instances as they start."""
    positions: dict[int, int] = {}
    for status in filter(None, (pipeline.status() for pipeline in pipelines)):
        for partition in status["partitions"]:
            number = partition["partition"]
            positions[number] = max(positions.get(number, 0), partition["position"] or 0)
    return sum(positions.values())


def drain(stack: Stack, topic: str, name: str, case: Case) -> dict:
    settings = {"event.schema": str(SCHEMAS / "wide.avsc")} if case.wide else {}
    pipelines = [Pipeline(stack, topic, name, settings, instance) for instance in range(case.instances)]
    # The last moment at which nothing was taken in yet: a look between then and the first record makes the run longer, never shorter.
    started, seen, servers = time.monotonic(), 0, stack.cpu()
    while seen < case.events:
        time.sleep(0.05)
        now = time.monotonic()
        seen = processed(pipelines)
        if not seen:
            started = now
        if now - pipelines[0].started > 300:
            raise SystemExit(f"only {seen:,} records after five minutes: see {pipelines[0].log.name}")
    taken_in = time.monotonic()
    usages = [pipeline.usage() for pipeline in pipelines]
    dead_letters = sum(pipeline.status()["totals"]["dead_letters"] for pipeline in pipelines)
    for pipeline in pipelines:
        pipeline.ask_to_stop()
    while stack.committed(name, topic, case.partitions) < case.events:
        time.sleep(0.05)
        if time.monotonic() - taken_in > 120:
            raise SystemExit(f"not everything was committed: see {pipelines[0].log.name}")
    durable = time.monotonic()
    servers = {name: seconds - servers[name] for name, seconds in stack.cpu().items()}
    cpu = sum(pipeline.wait_for_end() for pipeline in pipelines)
    database = pipelines[0].database
    counted = int(stack.query(f"SELECT sum(count) FROM {database}.windows"))
    if counted + dead_letters != case.events:
        raise SystemExit(f"ClickHouse has counted {counted:,} events, {dead_letters:,} are dead letters, {case.events:,} were sent")
    verification = pipelines[0].verify()
    by_thread: dict[str, float] = {}
    for usage in usages:
        for thread, seconds in usage.cpu.items():
            by_thread[thread] = by_thread.get(thread, 0) + seconds / case.events * 1e9
    return {
        "taken_in_per_second": case.events / (taken_in - started),
        "durable_per_second": case.events / (durable - started),
        "cpu_ns_per_event": cpu / case.events * 1e9,
        "cpu_ns_per_event_by_server": {server: seconds / case.events * 1e9 for server, seconds in servers.items()},
        "cpu_ns_per_event_by_thread": {thread: cost for thread, cost in by_thread.items() if cost},
        "peak_rss_mib": sum(usage.peak_mib for usage in usages),
        "verified_per_second": case.events / verification["seconds"],
        "dead_letters": dead_letters,
        "window_rows": int(stack.query(f"SELECT count() FROM {database}.windows_1m")),
    }


def measure(stack: Stack, name: str, case: Case, repetitions: int) -> dict:
    say(f"{name}: {case.about}; preloading {case.events:,} events")
    preload(stack, name, case)
    runs = []
    for number in range(repetitions):
        result = floor(stack, name, case) | drain(stack, name, f"{name}-{number}", case)
        result["share_of_floor"] = result["durable_per_second"] / result["floor_per_second"]
        runs.append(result)
        say(f"  floor {result['floor_per_second'] / 1e6:.2f} M/s, taken in {result['taken_in_per_second'] / 1e6:.2f} M/s, durable"
            f" {result['durable_per_second'] / 1e6:.2f} M/s, {result['cpu_ns_per_event']:.0f} ns CPU an event,"
            f" {result['peak_rss_mib']:.0f} MiB; verified {result['verified_per_second'] / 1e6:.2f} M/s")
    return {"about": case.about, "events": case.events, "runs": runs}


# Headings of the table, and for each the name of the figure, its unit and how it is written.
COLUMNS = [
    ("floor, M/s", "floor_per_second", 1e6, ".2f"),
    ("taken in, M/s", "taken_in_per_second", 1e6, ".2f"),
    ("durable, M/s", "durable_per_second", 1e6, ".2f"),
    ("share of the floor", "share_of_floor", 1, ".2f"),
    ("CPU, ns an event", "cpu_ns_per_event", 1, ".0f"),
    ("memory, MiB", "peak_rss_mib", 1, ".0f"),
    ("verified, M/s", "verified_per_second", 1e6, ".2f"),
]


def table(results: dict[str, dict]) -> str:
    """Median, smallest and largest of each figure."""
    lines = [f"| case | {' | '.join(heading for heading, *_ in COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for result in results.values():
        cells = [result["about"]]
        for _, name, unit, form in COLUMNS:
            values = [run[name] / unit for run in result["runs"]]
            cells.append(f"{statistics.median(values):{form}} [{min(values):{form}}-{max(values):{form}}]")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=["main"], metavar="CASE",
                        help=f"which to run, by default `main`, or `all`: {', '.join(CASES)}")
    parser.add_argument("--runs", type=int, default=3, help="repetitions of each case; default: %(default)s")
    arguments = parser.parse_args()
    names = list(CASES) if "all" in arguments.cases else arguments.cases
    unknown = [name for name in names if name not in CASES]
    if unknown:
        parser.error(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")
    with Stack(ROOT / "target/bench/stack") as stack:
        results = {name: measure(stack, name, CASES[name], arguments.runs) for name in names}
    path = write_report("drain", {"machine": machine(), "cases": results})
    print(f"{table(results)}\n\nmedian [smallest-largest] of {arguments.runs} runs on {machine()}; all figures: {path}")


if __name__ == "__main__":
    main()
