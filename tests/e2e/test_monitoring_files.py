"""Alerts, runbooks, routes and dashboards as files: complete, and about metrics that exist. Needs no stack."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from blocks.grafana import GRAFANA, PROMETHEUS, dashboards, panels, queries, variable_queries
from blocks.kappa_process import run_command
from blocks.prometheus import CONFIGURATION, tool
from blocks.stack import REPOSITORY

RUNBOOKS = REPOSITORY / "docs" / "runbooks"
ALERTMANAGER = REPOSITORY / "deploy" / "alertmanager" / "alertmanager.yml"
RULE_TESTS = sorted((CONFIGURATION / "tests").glob("*.yml"))

# Made by Prometheus itself.
OF_PROMETHEUS = {"up": {"job", "instance"}, "ALERTS": {"alertname", "alertstate", "severity", "topic", "partition", "instance"}}
WORDS_OF_PROMQL = {"by", "without", "on", "ignoring", "group_left", "group_right", "and", "or", "unless", "bool", "offset"}


def _run(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, f"{' '.join(command)} ended with {result.returncode}:\n{result.stdout}{result.stderr}"
    return result.stdout


@cache
def _catalogue() -> dict[str, dict[str, Any]]:
    result = run_command(["metrics", "--format", "json"], {})
    assert result.code == 0, result.text
    return {metric["name"]: metric for metric in json.loads(result.stdout)}


@cache
def _rules(kind: str) -> list[dict[str, Any]]:
    files = [yaml.safe_load(file.read_text()) for file in sorted((CONFIGURATION / "rules").glob("*.yml"))]
    rules = [rule for file in files for group in file["groups"] for rule in group["rules"] if kind in rule]
    assert rules
    return rules


def _alerts() -> list[dict[str, Any]]:
    return _rules("alert")


# Prometheus and Alertmanager


def test_prometheus_takes_the_configuration() -> None:
    _run(tool("promtool"), "check", "config", str(CONFIGURATION / "prometheus.yml"))
    rules = [str(file) for file in sorted((CONFIGURATION / "rules").glob("*.yml"))]
    _run(tool("promtool"), "check", "rules", "--lint-fatal", *rules)


@pytest.mark.parametrize("file", RULE_TESTS, ids=[file.stem for file in RULE_TESTS])
def test_alerts_fire_when_they_should(file: Path) -> None:
    _run(tool("promtool"), "test", "rules", str(file))


def test_alertmanager_takes_the_configuration_and_routes_by_it() -> None:
    _run(tool("amtool"), "check-config", str(ALERTMANAGER))
    for alert in _alerts():
        labels = alert["labels"]
        expected = "on-call" if labels["severity"] == "critical" else "operations"
        if labels.get("team") == "data-engineering":
            expected = "data-engineering"
        chosen = _run(
            tool("amtool"), "config", "routes", "test", f"--config.file={ALERTMANAGER}", f"alertname={alert['alert']}",
            *(f"{name}={value}" for name, value in labels.items()),
        )  # fmt: skip
        assert chosen.split() == [expected], alert["alert"]


def test_no_secret_is_in_the_configuration_of_alertmanager() -> None:
    def keys(node: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(node, dict):
            for key, value in node.items():
                yield key, value
                yield from keys(value)
        elif isinstance(node, list):
            for entry in node:
                yield from keys(entry)

    secret = re.compile(r"(password|secret|token|api_url|routing_key|service_key|credentials)$")
    for key, value in keys(yaml.safe_load(ALERTMANAGER.read_text())):
        assert not secret.search(key), f"{key} must come from a file ({key}_file)"
        assert not key.endswith("_file") or str(value).startswith("secrets/"), f"{key}: {value}"


def test_the_receivers_of_dead_letters_are_the_data_engineers() -> None:
    teams = {alert["alert"]: alert["labels"].get("team") for alert in _alerts()}
    about_data = {name for name, team in teams.items() if team == "data-engineering"}
    assert about_data == {"KappaDeadLetterRate", "KappaIncompatibleSchema", "KappaContractWarnings"}


# Alerts and runbooks


def test_each_alert_is_complete() -> None:
    for alert in _alerts():
        name, annotations = alert["alert"], alert["annotations"]
        assert alert["labels"]["severity"] in ("critical", "warning"), name
        assert all(annotations[key].strip() for key in ("summary", "description")), name
        assert annotations["runbook_url"] == "{{ $externalLabels.runbooks }}/" + name + ".md", name
        assert (RUNBOOKS / f"{name}.md").is_file(), f"{name} has no runbook"
    external = yaml.safe_load((CONFIGURATION / "prometheus.yml").read_text())["global"]["external_labels"]
    assert external["runbooks"].endswith("/docs/runbooks")


def test_each_alert_is_tested_to_fire_and_not_to_fire() -> None:
    fires: set[tuple[str, str]] = set()
    silent: set[str] = set()
    for file in RULE_TESTS:
        for group in yaml.safe_load(file.read_text())["tests"]:
            for case in group["alert_rule_test"]:
                expected = case.get("exp_alerts") or []
                fires |= {(case["alertname"], alert["exp_labels"]["severity"]) for alert in expected}
                silent |= set() if expected else {case["alertname"]}
    assert fires == {(alert["alert"], alert["labels"]["severity"]) for alert in _alerts()}
    # What fires at once from the first sample on has no moment before.
    assert silent >= {alert["alert"] for alert in _alerts()}


def test_each_runbook_belongs_to_an_alert_and_says_everything() -> None:
    pages = {file.stem for file in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == {alert["alert"] for alert in _alerts()}
    commands = set(re.findall(r"^  (\w+) ", run_command(["--help"], {}).stdout, re.MULTILINE))
    for page in sorted(pages):
        text = (RUNBOOKS / f"{page}.md").read_text()
        assert text.startswith(f"# {page}\n"), page
        for part in ("**Means.**", "## Find the cause", "## What to do", "## Over when"):
            assert text.count(part) == 1, f"{page}: {part}"
        shell = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
        assert "localhost:9464/" in shell, f"{page} does not look at the instance"
        used = set(re.findall(r"^kappa (\w+)", shell, re.MULTILINE))
        assert used <= commands, f"{page}: there is no kappa {used - commands}"


def test_links_of_the_runbooks_lead_somewhere() -> None:
    for file in RUNBOOKS.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", file.read_text()):
            assert (file.parent / target).exists(), f"{file.name}: {target}"


# Metrics


def _series(expression: str) -> Iterator[tuple[str, set[str]]]:
    """The series that an expression reads: name, and the labels that select among them."""
    without_text = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    without_groups = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", without_text)
    without_ranges = re.sub(r"\[[^\]]*\]|\boffset\s+\w+", "", without_groups)
    for match in re.finditer(r"([A-Za-z_:][\w:]*)\s*(\{[^}]*\}|\(|)", without_ranges):
        if match[2] == "(" or match[1] in WORDS_OF_PROMQL:
            continue
        # Units of numbers, and what stands within the braces, are no names.
        if match.start() and re.match(r"[\w.]", without_ranges[match.start() - 1]):
            continue
        yield match[1], set(re.findall(r"(\w+)\s*[=!]", match[2]))


def _check(place: str, expression: str) -> None:
    recorded = {rule["record"] for rule in _rules("record")}
    found = list(_series(expression))
    assert found, f"{place} reads nothing: {expression}"
    for name, labels in found:
        if name in recorded:
            continue
        if name in OF_PROMETHEUS:
            known = OF_PROMETHEUS[name]
        else:
            base = re.sub("_(bucket|sum|count)$", "", name)
            metric = _catalogue().get(name) or _catalogue().get(base)
            assert metric is not None, f"{place}: there is no metric {name}"
            assert (metric["type"] == "histogram") == (metric["name"] != name), f"{place}: {name} has no such series"
            known = {*metric["labels"], "job", "instance", "le"}
        assert labels <= known, f"{place}: {name} has no labels {labels - known}"


def test_the_reading_of_expressions_finds_every_series() -> None:
    expression = 'sum by (a) (rate(x_total{b="by (c)"}[5m])) / on (d) group_left () y:z > 0.5 and w offset 15m > bool 3e2'
    assert list(_series(expression)) == [("x_total", {"b"}), ("y:z", set()), ("w", set())]


def test_rules_are_about_metrics_that_exist() -> None:
    for rule in _rules("expr"):
        _check(rule.get("alert") or rule["record"], rule["expr"])


def test_runbooks_are_about_metrics_that_exist() -> None:
    recorded = {rule["record"] for rule in _rules("record")}
    for file in RUNBOOKS.glob("*.md"):
        text = re.sub(r"```sql.*?```", "", file.read_text(), flags=re.DOTALL)
        for name in re.findall(r"\b(?:\w+:)?(?:kappa|kafka_consumergroup|process)_\w+(?::\w+)?", text):
            base = re.sub("_(bucket|sum|count)$", "", name)
            assert name in _catalogue() or base in _catalogue() or name in recorded, f"{file.name}: {name}"


# Grafana


def test_each_panel_explains_itself() -> None:
    for name, dashboard in dashboards().items():
        assert dashboard["description"] and {"Live page", "Runbooks"} <= {link["title"] for link in dashboard["links"]}
        titles = [panel["title"] for panel in panels(dashboard)]
        assert len(set(titles)) == len(titles), f"{name}: two panels have one title"
        for panel in panels(dashboard):
            place = f"{name}: {panel['title']}"
            defaults = panel["fieldConfig"]["defaults"]
            assert len(panel["description"]) > 10 and panel["targets"], place
            assert defaults["unit"] and defaults["thresholds"]["steps"], place
            for link in panel.get("links", []):
                page = link["url"].removeprefix("${runbooks}/")
                assert (RUNBOOKS / page).is_file(), f"{place}: {link['url']}"


def test_panels_do_not_overlap() -> None:
    for name, dashboard in dashboards().items():
        taken: dict[tuple[int, int], str] = {}
        for panel in dashboard["panels"]:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24, f"{name}: {panel['title']}"
            for x in range(place["x"], place["x"] + place["w"]):
                for y in range(place["y"], place["y"] + place["h"]):
                    assert (x, y) not in taken, f"{name}: {panel['title']} lies on {taken[x, y]}"
                    taken[x, y] = panel["title"]


def test_dashboards_are_about_metrics_that_exist() -> None:
    for name, dashboard in dashboards().items():
        for query in queries(name, dashboard):
            if query.source == PROMETHEUS:
                _check(query.place, query.text)
        for variable, (source, text) in variable_queries(dashboard).items():
            if source == PROMETHEUS:
                _check(f"{name}: ${variable}", text.removeprefix("label_values(").rpartition(",")[0])


def test_dashboards_and_provisioning_name_the_same_data_sources() -> None:
    sources = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "kappa.yml").read_text())["datasources"]
    provisioned = {source["type"]: source["uid"] for source in sources}
    uids = set()
    for name, dashboard in dashboards().items():
        variables = {v["name"]: v for v in dashboard["templating"]["list"] if v["type"] == "datasource"}
        for variable in variables.values():
            assert provisioned[variable["query"]] == variable["current"]["value"], f"{name}: {variable['name']}"
        for panel in panels(dashboard):
            for target in panel["targets"]:
                source = target["datasource"]
                variable = variables[source["uid"].removeprefix("${").removesuffix("}")]
                assert variable["query"] == source["type"], f"{name}: {panel['title']}"
        uids.add(dashboard["uid"])
    assert len(uids) == len(dashboards()) == 2
    provider = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "kappa.yml").read_text())["providers"][0]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
