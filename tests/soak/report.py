#!/usr/bin/env python3
"""The report of `make soak`: one HTML page, complete in itself, and the same as JSON.

    tests/soak/report.py target/soak
"""

from __future__ import annotations

import html
import json
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from faults_table import WHERE, read, summary

REPOSITORY = Path(__file__).resolve().parents[2]
# The look is that of the load report.
LOOK = REPOSITORY / "loadtest" / "assets" / "report.html"


def main() -> None:
    out = Path(sys.argv[1])
    steps = [json.loads(line) for line in (out / "steps.jsonl").read_text().splitlines()]
    steps.sort(key=lambda step: step["began"])
    faults = read(out / "faults.jsonl")
    logs = {step["name"]: (out / f"{re.sub('[^a-zA-Z0-9]+', '-', step['name'])}.log").read_text(errors="replace") for step in steps}
    report = {
        "kind": "soak",
        "passed": all(step["code"] == 0 for step in steps),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "--short", "HEAD"),
        "machine": f"{platform.machine()}, {platform.system()} {platform.release()}",
        "steps": [{**step, "result": _result(logs[step["name"]])} for step in steps],
        "faults": faults,
    }
    (out / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False))
    (out / "report.html").write_text(_page(report))


def _git(*arguments: str) -> str:
    result = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"


def _result(log: str) -> str:
    """What a step says of itself: seeds, inputs, tests."""
    said = re.findall(r"^(?:\d+ seeds: .*|fuzz \w+: .*)$", log, re.MULTILINE)
    said += re.findall(r"^=*\s?(\d+ (?:passed|failed).*? in [\d.]+s.*?)=*$", log, re.MULTILINE)
    return "\n".join(said)


def _page(report: dict) -> str:
    style = LOOK.read_text().split("<style>")[2].split("</style>")[0]
    passed, faults = report["passed"], report["faults"]
    failed = [step["name"] for step in report["steps"] if step["code"]]
    # Steps overlap.
    minutes = max(step["began"] + step["seconds"] for step in report["steps"]) / 60
    tiles = [
        (f"{len(faults)}", "faults survived"),
        (f"{sum(fault['records_verified'] for fault in faults):,}", "records gone through by kappa verify after them"),
        (f"{max((fault['recovered_seconds'] for fault in faults), default=0):g} s", "the longest recovery"),
        (f"{max((fault['peak_rss_mib'] for fault in faults), default=0):,} MiB", "the most memory"),
        (f"{minutes:,.0f} min", "of running"),
    ]
    verdict = "Nothing lost, nothing counted twice" if passed else f"Failed: {', '.join(failed)}"
    said = summary(faults).replace("`", "") if faults else "No fault was gone through."
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Kappa soak report</title><style>{style}</style></head><body><main>
<h1>Kappa: the long proof</h1>
<p class="soft">{_text(report["finished"])} · commit {_text(report["commit"])} · {_text(report["machine"])}</p>
<div class="verdict {"good" if passed else "bad"}"><b>{_text(verdict)}</b><p>{_text(said)}</p></div>
<div class="tiles">{"".join(f'<div class="tile"><b>{_text(number)}</b><span>{_text(name)}</span></div>' for number, name in tiles)}</div>
<h2>What ran</h2>
<div class="sheet"><table><thead><tr><th>step</th><th></th><th class="n">took</th><th>result</th></tr></thead><tbody>{_steps(report["steps"])}</tbody></table></div>
<h2>Faults survived</h2>
<p class="soft lead">Each struck a pipeline under load. “Well again” is the time from the end of the fault until all that was sent before it was committed;
then <code>kappa verify</code> went through the log, the archive, the windows and the dead letters.</p>
<div class="sheet"><table><thead><tr><th>fault</th><th class="n">lasted</th><th class="n">well again after</th><th class="n">at most</th><th class="n">RSS, peak</th><th class="n">allowed</th><th class="n">records verified</th></tr></thead><tbody>{_faults(faults)}</tbody></table></div>
<footer class="soft">Made by <code>make soak</code>; what is promised, and on which conditions: docs/guarantees.md.</footer>
</main></body></html>
"""


def _steps(steps: list[dict]) -> str:
    rows = []
    for step in steps:
        good = step["code"] == 0
        mark = f'<td class="mark {"good" if good else "bad"}">{"passed" if good else "failed"}</td>'
        result = "<br>".join(_text(line) for line in step["result"].splitlines())
        rows.append(f'<tr><td>{_text(step["name"])}</td>{mark}<td class="n">{step["seconds"]:,} s</td><td class="w">{result}</td></tr>')
    return "".join(rows)


def _faults(faults: list[dict]) -> str:
    rows, where = [], None
    for fault in faults:
        if fault["where"] != where:
            where = fault["where"]
            rows.append(f'<tr class="group"><td colspan="7">{_text(WHERE[where])}</td></tr>')
        figures = [
            f"{fault['lasted_seconds']:.0f} s", f"{fault['recovered_seconds']:.1f} s", f"{fault['bound_seconds']:.0f} s",
            f"{fault['peak_rss_mib']:,.0f} MiB", f"{fault['rss_bound_mib']:,.0f} MiB", f"{fault['records_verified']:,}",
        ]  # fmt: skip
        rows.append(f"<tr><td>{_text(fault['fault'])}</td>" + "".join(f'<td class="n">{figure}</td>' for figure in figures) + "</tr>")
    return "".join(rows)


def _text(text: object) -> str:
    return html.escape(str(text))


if __name__ == "__main__":
    main()
