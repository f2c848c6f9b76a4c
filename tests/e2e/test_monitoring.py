"""What people watch: a real Prometheus scrapes a running pipeline, and every query of every dashboard finds data."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from blocks.grafana import CLICKHOUSE, PROMETHEUS, Query, dashboards, fill_in, fixed_variables, queries, variable_queries
from blocks.kappa_process import KappaProcess, run_command
from blocks.producer import Production
from blocks.prometheus import Prometheus
from blocks.stack import Stack
from blocks.waiting import Found, Hopeless, NotYet, wait_until
from blocks.world import World


@dataclass(frozen=True)
class Watched:
    world: World
    kappa: KappaProcess
    prometheus: Prometheus


@pytest.fixture(scope="module")
def watched(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A pipeline under load, with late events, rejects and anomalies, and a Prometheus that watches it."""
    directory = tmp_path_factory.mktemp("watched")
    world = World(stack, directory, "watched")
    try:
        world.migrate()
        kappa = world.start({"log": {"format": "json"}, "kafka": {"fetcher": "native"}})
        kappa.wait_until_ready()
        # Within the hour that the dashboards show, whatever the time of the day.
        stream = world.stream(seed=11, start_ms=int(time.time() * 1000) - 25 * 60_000)
        with (
            Prometheus(directory, [f"127.0.0.1:{kappa.http_port}"]) as prometheus,
            Production(world.producer, stream.take, per_second=500, most=200_000),
        ):
            yield Watched(world, kappa, prometheus)
    finally:
        world.close()


def _catalogue() -> dict[str, dict]:
    result = run_command(["metrics", "--format", "json"], {})
    assert result.code == 0, result.text
    return {metric["name"]: metric for metric in json.loads(result.stdout)}


def test_every_exported_metric_is_in_the_catalogue_and_vice_versa(watched: Watched) -> None:
    catalogue = _catalogue()

    def look() -> Found[str] | NotYet:
        text = watched.kappa.get("/metrics").text
        exported = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
        unknown = exported - catalogue.keys()
        assert not unknown, f"not in the catalogue: {unknown}"
        missing = catalogue.keys() - exported
        return NotYet(f"everything but {missing}") if missing else Found(text)

    text = wait_until("every metric of the catalogue to be exported", 60, look)
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        assert kind == catalogue[name]["type"], name
        assert f"# HELP {name} {catalogue[name]['meaning']}\n" in text, f"{name} has another text, or none"
    for line in text.splitlines():
        sample = re.fullmatch(r"(\w+?)(?:\{(.*)\})? \S+", line)
        if sample is None:
            assert not line or line.startswith("# "), line
            continue
        name, labels = sample[1], set(re.findall(r'(\w+)="', sample[2] or ""))
        if name not in catalogue:
            name = re.sub("_(bucket|sum|count)$", "", name)
            labels -= {"le"}
        assert labels == set(catalogue[name]["labels"]), line


def test_the_build_and_the_process_are_described(watched: Watched) -> None:
    (labels,) = [dict(labels) for (name, labels) in watched.kappa.metrics() if name == "kappa_build_info"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", labels["version"]), labels
    assert re.fullmatch(r"[0-9a-f]{7,40}|unknown", labels["revision"]), labels
    assert re.match(r"1\.\d+", labels["rustc"]), labels
    started = watched.kappa.metric("process_start_time_seconds")
    assert started is not None and time.time() - 3600 < started <= time.time() + 2
    assert watched.kappa.metric("kappa_checkpoint_interval_seconds") == 2


def test_every_stage_and_every_step_is_measured(watched: Watched) -> None:
    counts = {
        "stage": ("kappa_stage_duration_seconds_count", ["fetch", "decode", "windows", "encode"]),
        "step": ("kappa_seal_duration_seconds_count", ["archive", "dead_letters", "hot_store", "snapshot", "commit"]),
    }

    def look() -> Found[None] | NotYet:
        metrics = watched.kappa.metrics()
        missing = [
            value
            for label, (name, values) in counts.items()
            for value in values
            if not metrics.get((name, frozenset({(label, value)})))
        ]
        return NotYet(f"nothing of {missing}") if missing else Found(None)

    wait_until("each stage and step to have been measured", 60, look)
    # Once a batch, never once an event.
    events = watched.kappa.metric("kappa_events_total") or 0
    decoded = watched.kappa.metric("kappa_stage_duration_seconds_count", stage="decode") or 0
    assert 0 < decoded < events, f"{decoded} of {events}"


def test_log_lines_are_json_with_topic_partition_and_offset(watched: Watched) -> None:
    """The form comes from the configuration file."""

    def look() -> Found[dict] | NotYet:
        # The last line may be half written.
        complete, _, _ = watched.kappa.log().rpartition("\n")
        lines = [json.loads(line) for line in complete.splitlines()]
        committed = [line for line in lines if line["message"] == "segment committed"]
        return Found(committed[-1]) if committed else NotYet(f"{len(lines)} lines")

    line = wait_until("a committed segment in the log", 60, look)
    assert line["level"] == "DEBUG" and line["topic"] == watched.world.topic
    assert 0 <= line["partition"] < watched.world.partitions and line["offset"] > 0


def test_no_panel_is_dead(watched: Watched) -> None:
    """Every query of every dashboard finds data; so does every variable."""
    expected = {name for name in dashboards() if list(queries(name, dashboards()[name]))}
    assert expected == {"business", "pipeline"}
    dead: dict[str, Query] = {}
    for name, dashboard in dashboards().items():
        dead |= {query.place: query for query in queries(name, dashboard)}

    def look() -> Found[None] | NotYet:
        for name, dashboard in dashboards().items():
            variables = _variables(watched, dashboard)
            for query in queries(name, dashboard):
                if query.place in dead and _has_data(watched, query, variables):
                    del dead[query.place]
        return NotYet(f"no data for {sorted(dead)}") if dead else Found(None)

    wait_until("every query to find data", 90, look, every=1)


def test_all_rules_are_evaluated(watched: Watched) -> None:
    def look() -> Found[dict[str, str]] | NotYet:
        rules = watched.prometheus.rules()
        errors = [(rule["name"], rule["lastError"]) for rule in rules if rule.get("lastError")]
        assert not errors, errors
        waiting = {rule["name"] for rule in rules if rule["health"] != "ok"}
        if waiting or not rules:
            return NotYet(f"not yet evaluated: {waiting}")
        states = {rule["name"]: rule["state"] for rule in rules if rule["type"] == "alerting"}
        # A stream with so many rejects must lead to one, once it has lasted.
        return Found(states) if states["KappaDeadLetterRate"] in ("pending", "firing") else NotYet(f"{states}")

    states = wait_until("all rules to be evaluated, and the rejects to be noticed", 90, look)
    assert states["KappaPartitionStopped"] == states["KappaInstanceDown"] == "inactive", states


def _variables(watched: Watched, dashboard: dict) -> dict[str, list[str]]:
    """What a person would see who opens the dashboard and chooses "All", or the first entry where there is no "All"."""
    chosen = fixed_variables(dashboard)
    for name, (source, text) in variable_queries(dashboard).items():
        if source == PROMETHEUS:
            values = re.fullmatch(r"label_values\((.+), (\w+)\)", text)
            assert values, f"{name}: {text}"
            found = watched.prometheus.label_values(values[1], values[2])
        else:
            found = [str(next(iter(row.values()))) for row in _select(watched, text)]
        assert found, f"the variable {name} has no values"
        is_multiple = next(v["multi"] for v in dashboard["templating"]["list"] if v["name"] == name)
        chosen[name] = found if is_multiple else found[:1]
    return chosen


def _has_data(watched: Watched, query: Query, variables: dict[str, list[str]]) -> bool:
    now = int(time.time())
    text = fill_in(query.text, variables, now - 3600, now + 600)
    if query.source == PROMETHEUS:
        return watched.prometheus.has_data(text, query.instant)
    assert query.source == CLICKHOUSE, query
    rows = _select(watched, text)
    # An aggregate over nothing has a row, too.
    return any(value not in (None, 0, "nan") for row in rows for value in row.values())


def _select(watched: Watched, sql: str) -> list[dict]:
    return watched.world.hot_store.query_within(sql)
