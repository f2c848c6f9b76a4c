#!/usr/bin/env python3
"""The table of the faults survived, from what the tests have written (KAPPA_FAULTS_FILE).

    tests/soak/faults_table.py FAULTS [--into docs/guarantees.md]

Prints it, or puts it between the marks of a page.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

BEGIN, END = "<!-- faults survived: `make faults` -->", "<!-- end of faults survived -->"
WHERE = {
    "kafka": "Kafka", "kafka (native fetcher)": "Kafka, native fetcher", "registry": "registry", "s3": "S3", "clickhouse": "ClickHouse",
}  # fmt: skip


def read(file: Path) -> list[dict]:
    """Lines of the faults, each dependency's together, in the order in which they were gone through."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return sorted(lines, key=lambda line: list(WHERE).index(line["where"]))


def summary(faults: list[dict]) -> str:
    unanswered = [fault["recovered_seconds"] for fault in faults if fault["fault"].startswith("half-open")]
    full = [fault["recovered_seconds"] for fault in faults if fault["fault"].startswith("down")]
    others = [fault["recovered_seconds"] for fault in faults if not fault["fault"].startswith(("half-open", "down"))]
    return (
        f"{len(faults)} faults, {sum(fault['records_verified'] for fault in faults):,} records gone through by `kappa verify` in all, "
        f"no difference. All was committed again {max(others, default=0):g} s after the end of a fault at the latest, "
        f"{max(full, default=0):g} s where the memory was full, {max(unanswered, default=0):g} s where a connection was never answered; "
        f"{max(fault['peak_rss_mib'] for fault in faults):,} MiB resident at most."
    )


def table(faults: list[dict]) -> str:
    lines = ["| where | fault | lasted | well again after | at most | RSS, peak | allowed | records verified |", "|---|---|--:|--:|--:|--:|--:|--:|"]
    for fault in faults:
        cells = [
            WHERE[fault["where"]], fault["fault"], f"{fault['lasted_seconds']:.0f} s", f"{fault['recovered_seconds']:.1f} s",
            f"{fault['bound_seconds']:.0f} s", f"{fault['peak_rss_mib']:.0f} MiB", f"{fault['rss_bound_mib']:.0f} MiB", f"{fault['records_verified']:,}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", type=Path)
    parser.add_argument("--into", type=Path)
    options = parser.parse_args()
    faults = read(options.faults)
    text = f"{summary(faults)}\n\n{table(faults)}"
    if options.into is None:
        print(text)
        return
    page = options.into.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    options.into.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


if __name__ == "__main__":
    main()
