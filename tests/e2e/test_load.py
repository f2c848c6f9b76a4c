"""The load harness, briefly: what it reports is what was sent, and a gate that is not met is an exit code."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from blocks.kappa_process import binary
from blocks.stack import Stack

# Twenty seconds of load, and the rest of a run.
TIMEOUT_SECONDS = 180

TOO_MUCH_TO_ASK = """
[impatient]
about = "Nothing is visible within a millisecond."
extends = ["smoke"]
duration = "8s"
warm_up = "1s"
gates = { latency_p99 = "1ms" }
"""


def run_load(stack: Path, out: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    harness = binary().with_name("kappa-loadtest")
    if not harness.is_file():
        pytest.fail(f"{harness} is not there: build it with `cargo build --release --workspace`")
    command = [harness, "run", *arguments, "--stack-dir", stack, "--out", out]
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    report = out / "report.json"
    assert report.is_file(), f"exit code {done.returncode}, no report:\n{done.stdout}\n{done.stderr}"
    return done.returncode, json.loads(report.read_text())


def test_a_little_load_passes_every_gate_and_adds_up(controlled_stack: Stack, tmp_path: Path) -> None:
    code, report = run_load(controlled_stack.directory, tmp_path, "smoke")
    assert (code, report["verdict"]) == (0, "passed"), report["gates"]
    generator = report["generator"]
    assert generator["records"] == generator["valid"] + generator["invalid"]
    assert generator["records"] >= 2_000 * 20 and generator["invalid"] > 100
    assert generator["failed"] == generator["never_sent"] == 0
    assert report["checks"], report.get("unchecked")
    assert all(check["expected"] == check["found"] for check in report["checks"]), report["checks"]
    latency = dict(map(tuple, report["latency"]["percentiles"]))
    waiting = {figure["name"]: figure["value"] for figure in report["figures"]}["kafka_waiting_p90_ms"]
    assert 0 < waiting < 5_000, "records do wait for Kafka, and not for long"
    assert 0 < latency[50.0] <= latency[99.0] <= latency[99.99] < 20_000
    page = (tmp_path / "report.html").read_text()
    assert "uPlot" in page and "src=" not in page and "@import" not in page, "the page must be complete in itself"


def test_a_gate_that_is_not_met_fails_the_run(controlled_stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(TOO_MUCH_TO_ASK)
    code, report = run_load(controlled_stack.directory, tmp_path, "impatient", "--file", str(file))
    assert (code, report["verdict"]) == (1, "failed"), report["gates"]
    failed = [gate["name"] for gate in report["gates"] if not gate["passed"]]
    assert len(failed) == 1 and "p99" in failed[0], report["gates"]


def test_the_embedded_stack_is_a_target_too(tmp_path: Path) -> None:
    stack = tmp_path / "embedded"
    code, report = run_load(stack, tmp_path, "smoke", "--target", "embedded", "--for", "6s", "--rate", "3000")
    assert (code, report["verdict"]) == (0, "passed"), report["gates"]
    assert report["checks"] and all(check["expected"] == check["found"] for check in report["checks"]), report["checks"]
    assert "mock" in report["environment"]["target"]
    figures = {figure["name"] for figure in report["figures"]}
    assert {"kappa_cpu_cores", "broker_cpu_cores", "clickhouse_cpu_cores"} <= figures
    # Nothing is left of it: its address file goes with it, and so do its processes.
    assert not (stack / "env").exists()
    for pid_file in (stack / "run").glob("*.pid"):
        assert not Path(f"/proc/{json.loads(pid_file.read_text())['pid']}").exists(), pid_file
