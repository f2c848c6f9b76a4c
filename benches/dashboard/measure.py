#!/usr/bin/env python3
"""How long the live page's answers take over a large fleet: fills ClickHouse, asks, writes target/bench/dashboard.json.

100,000 sensors for the last half an hour, 200 of them for a week; a week of windows of all of them would be a thousand
million rows, which no answer reads: every answer goes by sensor, or by the last minutes.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

REPOSITORY = Path(__file__).resolve().parents[2]
SCRATCH = REPOSITORY / "target" / "bench" / "dashboard-data"
RESULT = REPOSITORY / "target" / "bench" / "dashboard.json"
MINUTE = 60_000
DAY = 24 * 60 * MINUTE
WEEK = 7 * DAY

# A window's columns behind its key; `at` is its start, `n` the number of the sensor.
WINDOW = """
    fromUnixTimestamp64Milli(at, 'UTC') AS window_start, 'readings' AS topic, toInt32(n % 12) AS `partition`, -1 AS segment,
    toUInt64(20 + n % 11) AS `count`, `count` * mean AS `sum`, mean - 1.5 AS `min`, mean + 1.5 AS `max`, 10.5 AS m2,
    mean AS first_value, window_start AS first_time, mean AS last_value,
    fromUnixTimestamp64Milli(at + 59000, 'UTC') AS last_time, toUInt64(cityHash64(n, at) % 2000 = 0) AS anomalies,
    4.0 AS max_score, toUInt64(cityHash64(at, n) % 100 = 0) AS bad_quality, true AS closed, toUInt64(at / 60000) AS version
"""


class ClickHouse:
    def __init__(self, url: str) -> None:
        self.url = url

    def run(self, sql: str) -> str:
        answer = requests.post(self.url, data=sql.encode(), timeout=600)
        assert answer.ok, f"{sql[:200]}: {answer.text[:500]}"
        return answer.text

    def number(self, sql: str) -> int:
        return int(self.run(sql))


@contextmanager
def program(command: list[str | Path], awaited: str, stop_with_stdin: bool = False) -> Iterator[str]:
    """Runs a program that says where it listens."""
    process = subprocess.Popen(
        [str(part) for part in command], cwd=REPOSITORY, text=True, stdout=subprocess.PIPE, stdin=subprocess.PIPE if stop_with_stdin else None
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert awaited in line, f"{command[0]} said {line!r}"
        yield line.split()[-1]
    finally:
        process.terminate()
        process.wait(60)


def migrate(clickhouse: ClickHouse) -> None:
    configuration = SCRATCH / "kappa.toml"
    configuration.write_text(f'[hot_store]\nurl = "{clickhouse.url}"\n')
    subprocess.run([REPOSITORY / "target/release/kappa", "migrate", "--config", configuration], check=True, stdout=subprocess.DEVNULL)


def fill(clickhouse: ClickHouse, sensors: int, long_sensors: int, now: int) -> None:
    minute = now // MINUTE * MINUTE
    name = "format('sensor-{}', leftPad(toString(n), 6, '0'))"
    insert = "INSERT INTO kappa.windows_1m SELECT sensor_id, metric, * EXCEPT (n, at, mean, sensor_id, metric) FROM (SELECT"
    start = f"{insert} {name} AS sensor_id, 'TEMPERATURE' AS metric"
    say(f"{long_sensors} sensors for a week")
    clickhouse.run(
        f"{start}, {WINDOW}, n, at, mean FROM (SELECT number % {long_sensors} AS n, {minute - WEEK} + intDiv(number, {long_sensors}) * {MINUTE} AS at, "
        f"20 + 5 * sin(at / 1e7 + n) AS mean FROM numbers({long_sensors * 7 * 24 * 60})))"
    )  # fmt: skip
    say(f"{sensors} sensors for half an hour, minute by minute as the pipeline writes them")
    for back in range(30, -1, -1):
        clickhouse.run(f"{start}, {WINDOW}, n, at, mean FROM (SELECT number AS n, {minute - back * MINUTE} AS at, 20 + 5 * sin(n) AS mean FROM numbers({sensors})))")
    clickhouse.run(
        f"INSERT INTO kappa.sensors SELECT format('sensor-{{}}', leftPad(toString(number), 6, '0')), 'readings', toInt32(number % 12), "
        f"format('plant-{{}}', leftPad(toString(number % 100), 2, '0')), now64(3), number FROM numbers({sensors})"
    )
    say("2 anomalies a second for a week")
    clickhouse.run(
        f"INSERT INTO kappa.anomalies SELECT {name}, 'TEMPERATURE', fromUnixTimestamp64Milli({now} - number * 500, 'UTC'), 99.5, 20.25, "
        f"6 + cityHash64(number) % 200 / 10, ['spike', 'drift', 'flatline'][1 + number % 3], 'readings', toInt32(n % 12), number "
        f"FROM (SELECT number, cityHash64(number) % {sensors} AS n FROM numbers({WEEK // 500}))"
    )


def measure(ask: Callable[[], requests.Response], times: int, viewers: int) -> dict[str, Any]:
    """Milliseconds of `times` answers, asked by so many at once."""

    def once(_: int) -> float:
        started = time.perf_counter()
        answer = ask()
        took = (time.perf_counter() - started) * 1000
        assert answer.ok, f"{answer.url}: {answer.status_code} {answer.text[:300]}"
        return took

    with ThreadPoolExecutor(viewers) as pool:
        list(pool.map(once, range(viewers * 2)))
        took = sorted(pool.map(once, range(times)))
    quantile = statistics.quantiles(took, n=100, method="inclusive")
    return {"p50_ms": round(quantile[49], 1), "p99_ms": round(quantile[98], 1), "max_ms": round(took[-1], 1)}


def questions(url: str, sensors: int, long_sensors: int, now: int) -> dict[str, Callable[[], requests.Response]]:
    session = requests.Session()
    chosen = random.Random(1)

    def ask(path: str, **parameters: Any) -> requests.Response:
        return session.get(f"{url}/{path}", params=parameters, timeout=30)

    def any_sensor(below: int) -> str:
        return f"sensor-{chosen.randrange(below):06}"

    def series(below: int, length: int) -> Callable[[], requests.Response]:
        return lambda: ask("api/series", sensor=any_sensor(below), **{"from": now - length, "to": now})

    return {
        "the page": lambda: ask(""),
        "live frames (memory)": lambda: ask("api/live"),
        "dead letters (memory)": lambda: ask("api/dead-letters"),
        "search, by the beginning": lambda: ask("api/sensors", q=any_sensor(sensors)[:-2]),
        "search, a part": lambda: ask("api/sensors", q=f"{chosen.randrange(10_000):04}"),
        "a sensor, an hour": series(sensors, 60 * MINUTE),
        "a sensor, a day": series(long_sensors, DAY),
        "a sensor, a week": series(long_sensors, WEEK),
        "anomalies, newest 300": lambda: ask("api/anomalies", limit=300),
        "anomalies, a site, a week": lambda: ask("api/anomalies", site=f"plant-{chosen.randrange(100):02}", limit=300, **{"from": now - WEEK + DAY, "to": now}),
        "anomalies, score from 25, a week": lambda: ask("api/anomalies", min_score=25, limit=300, **{"from": now - WEEK + DAY, "to": now}),
    }


def glance(url: str) -> int:
    """Milliseconds that the poller's questions for all viewers take ClickHouse."""
    return requests.get(f"{url}/api/live", timeout=30).json()["fleet"]["click_house"]["took_ms"]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sensors", type=int, default=100_000)
    parser.add_argument("--long-sensors", type=int, default=200)
    parser.add_argument("--times", type=int, default=200, help="answers to each question")
    options = parser.parse_args()
    shutil.rmtree(SCRATCH, ignore_errors=True)
    SCRATCH.mkdir(parents=True)
    server = [sys.executable, REPOSITORY / "deploy/local/clickhouse_http", "--end-with-stdin", "--listen", "127.0.0.1:0", "--path", SCRATCH / "clickhouse"]
    with program(server, "listening on", stop_with_stdin=True) as clickhouse_url:
        clickhouse = ClickHouse(clickhouse_url)
        migrate(clickhouse)
        now = int(time.time() * 1000)
        fill(clickhouse, options.sensors, options.long_sensors, now)
        rows = {table: clickhouse.number(f"SELECT count() FROM kappa.{table}") for table in ("windows_1m", "anomalies", "sensors")}
        page = [REPOSITORY / "target/release/kappa-dashboard", "--listen", "127.0.0.1:0", "--clickhouse", clickhouse_url, "--pipeline", "http://127.0.0.1:1"]
        with program(page, "the live page is at") as url:
            deadline = time.monotonic() + 120
            while requests.get(f"{url}/readyz", timeout=30).status_code != 200:
                assert time.monotonic() < deadline, "the first answers do not come"
                time.sleep(0.2)
            # As in use: somebody watches, so the poller is at work.
            with requests.get(f"{url}/api/events", stream=True, timeout=60) as _watching:
                time.sleep(5)
                asked = questions(url, options.sensors, options.long_sensors, now)
                result = {"rows": rows, "glance_ms": [], "questions": {}}
                for name, ask in asked.items():
                    result["questions"][name] = measure(ask, options.times, viewers=1)
                    result["glance_ms"].append(glance(url))
                result["four_at_once"] = {name: measure(ask, options.times, viewers=4) for name, ask in asked.items()}
    shutil.rmtree(SCRATCH)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(f"rows: {rows}")
    print(f"questions of the poller, for all viewers together: {min(result['glance_ms'])} to {max(result['glance_ms'])} ms")
    print(f"{'milliseconds':36}{'p50':>8}{'p99':>8}{'  four at once: p50':>20}{'p99':>8}")
    for name, alone in result["questions"].items():
        four = result["four_at_once"][name]
        print(f"{name:36}{alone['p50_ms']:8}{alone['p99_ms']:8}{four['p50_ms']:20}{four['p99_ms']:8}")


if __name__ == "__main__":
    main()
