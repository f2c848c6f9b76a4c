"""ClickHouse, asked over HTTP as any user would ask it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import requests

TIMEOUT = 60

VIEW_COLUMNS = [
    "sensor_id", "metric", "window_start", "count", "sum", "min", "max", "mean", "stddev", "first_value", "first_time",
    "last_value", "last_time", "anomalies", "max_score", "bad_quality", "closed", "late",
]  # fmt: skip
ROW_COLUMNS = [
    "sensor_id", "metric", "window_start", "partition", "segment", "count", "sum", "min", "max", "m2", "first_value",
    "first_time", "last_value", "last_time", "anomalies", "bad_quality", "closed", "version",
]  # fmt: skip
ANOMALY_COLUMNS = ["sensor_id", "metric", "event_time", "value", "expected", "score", "kind", "partition", "offset"]
TIMES = {"window_start", "first_time", "last_time", "event_time"}


@dataclass(frozen=True)
class HotStore:
    url: str
    database: str

    def query_within(self, sql: str) -> list[dict[str, Any]]:
        """As `query`, for statements whose tables have no database in front."""
        return self.query(sql, {"database": self.database})

    def query(self, sql: str, parameters: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        settings = {
            "output_format_json_quote_64bit_integers": "0",
            "output_format_json_quote_denormals": "1",
            **(parameters or {}),
        }
        answer = requests.post(self.url, params=settings, data=f"{sql} FORMAT JSONEachRow".encode(), timeout=TIMEOUT)
        assert answer.ok, f"ClickHouse answered {answer.status_code} to {sql}: {answer.text.strip()}"
        return [json.loads(line) for line in answer.text.splitlines() if line]

    def execute(self, sql: str) -> None:
        answer = requests.post(self.url, data=sql.encode(), timeout=TIMEOUT)
        assert answer.ok, f"ClickHouse answered {answer.status_code} to {sql}: {answer.text.strip()}"

    def view(self) -> list[dict[str, Any]]:
        return self.query(f"SELECT {_columns(VIEW_COLUMNS)} FROM {self.database}.windows")

    def rows(self, topic: str) -> list[dict[str, Any]]:
        return self.query(f"SELECT {_columns(ROW_COLUMNS)} FROM {self.database}.windows_1m FINAL WHERE topic = '{topic}'")

    def anomalies(self, topic: str, final: bool = True) -> list[dict[str, Any]]:
        modifier = "FINAL" if final else ""
        return self.query(f"SELECT {_columns(ANOMALY_COLUMNS)} FROM {self.database}.anomalies {modifier} WHERE topic = '{topic}'")

    def sensors(self, topic: str) -> list[dict[str, Any]]:
        columns = "sensor, `partition`, site, toUnixTimestamp64Milli(seen_at) AS seen_at_ms, version"
        return self.query(f"SELECT {columns} FROM {self.database}.sensors FINAL WHERE topic = '{topic}'")

    def quality(self, topic: str) -> list[dict[str, Any]]:
        counts = ("accepted", "rejected", "duplicates", "missing", "restarts", "bad_quality", "delay_sum_ms")
        sums = ", ".join(f"toInt64(sum(q.{name})) AS {name}" for name in counts)
        return self.query(
            f"SELECT site, metric, toUnixTimestamp64Milli(minute) AS minute_ms, {sums}, maxIf(q.delay_max_ms, q.accepted > 0) AS delay_max_ms "
            f"FROM {self.database}.quality_1m AS q FINAL WHERE topic = '{topic}' GROUP BY site, metric, minute"
        )

    def newest_event_ms(self) -> int:
        rows = self.query(f"SELECT toUnixTimestamp64Milli(max(last_time)) AS newest FROM {self.database}.windows_1m")
        return int(rows[0]["newest"])

    def tables(self) -> set[str]:
        rows = self.query(f"SELECT name FROM system.tables WHERE database = '{self.database}'")
        return {row["name"] for row in rows}


def _columns(names: list[str]) -> str:
    def one(name: str) -> str:
        if name in TIMES:
            return f"toUnixTimestamp64Milli({name}) AS {name}_ms"
        return f"`{name}`"

    return ", ".join(one(name) for name in names)
