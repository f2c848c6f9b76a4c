"""The Grafana dashboards as data: their panels, and their queries with everything filled in that Grafana fills in.

| in the query                         | filled in                                                             |
|--------------------------------------|-----------------------------------------------------------------------|
| `$__rate_interval`                   | a minute                                                              |
| `$__range`                           | the time range in seconds                                             |
| `$__timeFilter(column)`              | the column lies in the time range                                     |
| `$__timeInterval(column)`            | the column, rounded down to a minute                                  |
| `$name`, `${name}`                   | the variable; more than one value as a regular expression `(a|b)`     |
| `${name:singlequote}`                | all values, each in single quotes, separated by commas                |

A query that uses anything else of Grafana's is refused, so that this table stays complete.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .stack import REPOSITORY

GRAFANA = REPOSITORY / "deploy" / "grafana"
PROMETHEUS, CLICKHOUSE = "prometheus", "grafana-clickhouse-datasource"

Dashboard = dict[str, Any]
Variables = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Query:
    place: str
    source: str
    text: str
    instant: bool = False


def dashboards() -> dict[str, Dashboard]:
    return {file.stem: json.loads(file.read_text()) for file in sorted((GRAFANA / "dashboards").glob("*.json"))}


def panels(dashboard: Dashboard) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries(name: str, dashboard: Dashboard) -> Iterator[Query]:
    """Those of all panels and annotations, as they stand in the file."""
    for panel in panels(dashboard):
        for target in panel["targets"]:
            place = f"{name}: {panel['title']} ({target['refId']})"
            source = target["datasource"]["type"]
            text = target["expr"] if source == PROMETHEUS else target["rawSql"]
            yield Query(place, source, text, target.get("instant", False))


def variable_queries(dashboard: Dashboard) -> dict[str, tuple[str, str]]:
    """By variable: the kind of the data source, and the query."""
    return {
        variable["name"]: (variable["datasource"]["type"], variable["definition"])
        for variable in dashboard["templating"]["list"]
        if variable["type"] == "query"
    }


def fixed_variables(dashboard: Dashboard) -> dict[str, list[str]]:
    return {
        variable["name"]: [variable["current"]["value"]]
        for variable in dashboard["templating"]["list"]
        if variable["type"] != "query"
    }


def fill_in(text: str, variables: Variables, start: int, end: int) -> str:
    """What Grafana would send to the data source. Times are seconds since the epoch."""
    text = re.sub(r"\$__timeFilter\((\w+)\)", rf"(\1 >= toDateTime({start}) AND \1 <= toDateTime({end}))", text)
    text = re.sub(r"\$__timeInterval\((\w+)\)", r"toStartOfInterval(toDateTime(\1), INTERVAL 60 second)", text)
    text = text.replace("$__rate_interval", "1m").replace("$__range", f"{end - start}s")

    def value(match: re.Match[str]) -> str:
        name, form = match[1] or match[3], match[2]
        values = variables.get(name)
        assert values, f"what is {match[0]} in {text}?"
        if form == "singlequote":
            return ",".join(f"'{one}'" for one in values)
        assert form is None, f"{match[0]}: no such form in the table of this module"
        return values[0] if len(values) == 1 else f"({'|'.join(values)})"

    return re.sub(r"\$\{(\w+)(?::(\w+))?\}|\$(\w+)", value, text)
