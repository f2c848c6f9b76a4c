"""Compares everything that came out with everything that was sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from .archive import Archive, check_chain, check_rejects, check_rows
from .dead_letters import DeadLetters, check_dead_letters
from .hot_store import HotStore
from .oracle import Aggregate, Observation, Oracle, PartitionWindows, SeriesWindow, merged, nearly, same_deviation
from .readings import Verdict
from .records import Accepted, SentLog

OWN_ROW = -1
# `anomaly.threshold` by default.
SPIKE_SCORE = 6.0
MOST_FALSE_ALARMS = 0.001


def check_archive(archive: Archive, letters: DeadLetters, sent: SentLog) -> None:
    check_chain(archive, sent)
    check_rejects(archive, sent)
    check_rows(archive, sent)
    check_dead_letters(letters, sent, archive)


def check_windows(store: HotStore, sent: SentLog, oracle: Oracle, archive: Archive) -> None:
    partitions = oracle.partitions(sent)
    check_window_rows(store.rows(sent.topic), partitions, archive, oracle)
    check_view(store.view(), partitions, oracle)


def check_view(view: list[dict[str, Any]], partitions: Mapping[int, PartitionWindows], oracle: Oracle) -> None:
    """The view that people query."""
    found = {_series_window(row): row for row in view}
    assert len(found) == len(view), "a window is twice in the view"
    expected = merged(partitions.values())
    _same_keys("windows", found, expected)
    for key, aggregate in expected.items():
        row = found[key]
        _compare(f"window {key}", row, aggregate)
        where = f"window {key}"
        assert nearly(row["mean"], aggregate.mean, aggregate.magnitude / aggregate.count), f"{where}: mean {row['mean']}, expected {aggregate.mean}"
        deviation = (aggregate.m2 / aggregate.count) ** 0.5
        assert same_deviation(row["stddev"], deviation, aggregate.mean), f"{where}: stddev {row['stddev']}, expected {deviation}"
        late = sum(len(windows.late.get(key, ())) for windows in partitions.values())
        assert row["late"] == late, f"{where}: {row['late']} late events, expected {late}"
        closed = all(_is_closed(windows, key, oracle) for windows in partitions.values() if key in windows.on_time)
        assert bool(row["closed"]) == closed, f"{where}: closed is {row['closed']}, expected {closed}"


def check_window_rows(
    rows: list[dict[str, Any]], partitions: Mapping[int, PartitionWindows], archive: Archive, oracle: Oracle
) -> None:
    """The table below the view: own rows hold the on-time events, the others what each segment brought late."""
    found = {(row["partition"], _series_window(row), row["segment"]): row for row in rows}
    assert len(found) == len(rows), "a row of windows_1m is there twice"
    expected: dict[tuple[int, SeriesWindow, int], list[Observation]] = {}
    for partition, windows in partitions.items():
        for key, observations in windows.on_time.items():
            expected[partition, key, OWN_ROW] = observations
        for (key, segment), observations in windows.late_by_segment(archive.starts(partition)).items():
            expected[partition, key, segment] = observations
    _same_keys("rows of windows_1m", found, expected)
    for (partition, key, segment), observations in expected.items():
        row, aggregate = found[partition, key, segment], Aggregate.of(observations)
        where = f"row {partition}/{segment} of {key}"
        _compare(where, row, aggregate)
        deviation, expected_deviation = (row["m2"] / row["count"]) ** 0.5, (aggregate.m2 / aggregate.count) ** 0.5
        assert same_deviation(deviation, expected_deviation, aggregate.mean), f"{where}: m2 {row['m2']}, expected {aggregate.m2}"
        closed = segment != OWN_ROW or _is_closed(partitions[partition], key, oracle)
        assert bool(row["closed"]) == closed, f"{where}: closed is {row['closed']}, expected {closed}"


def check_anomalies(store: HotStore, sent: SentLog, oracle: Oracle) -> None:
    """Every injected spike is flagged, no event twice, each with what was measured; the windows count the same."""
    final = store.anomalies(sent.topic)
    found = {(row["partition"], row["offset"]): row for row in final}
    assert len(found) == len(final), "an event is flagged twice"
    accepted = sent.counted()
    spikes = {place for place, (_, fate) in accepted.items() if fate.is_spike}
    missing, surplus = spikes - set(found), set(found) - spikes
    assert not missing, f"{len(missing)} of {len(spikes)} spikes are not flagged: {sorted(missing)[:5]}"
    # All else is noise, in which a detector may see something now and then.
    most = MOST_FALSE_ALARMS * len(accepted)
    assert len(surplus) <= most, f"{len(surplus)} ordinary events are flagged: {[found[place] for place in sorted(surplus)[:3]]}"
    for place, row in found.items():
        _check_anomaly(place, row, accepted[place][1], place in spikes)
    # A replay may write a row again, which FINAL hides; but only the very same one.
    distinct = {tuple(sorted(row.items())) for row in store.anomalies(sent.topic, final=False)}
    assert len(distinct) == len(final), "a replay has written another row for the same event"
    flagged = Counter((row["partition"], _window_of(row, oracle.window_ms)) for row in final)
    counted: Counter[tuple[int, SeriesWindow]] = Counter()
    for row in store.rows(sent.topic):
        counted[row["partition"], _series_window(row)] += row["anomalies"]
    assert +counted == +flagged, f"windows count other anomalies than there are: {(counted - flagged) | (flagged - counted)}"


def _check_anomaly(place: tuple[int, int], row: Mapping[str, Any], fate: Accepted, is_spike: bool) -> None:
    names = ("sensor_id", "metric", "value")
    told = {name: row[name] for name in names} | {"event_time": row["event_time_ms"]}
    sent_event = {name: fate.event[name] for name in (*names, "event_time")}
    assert told == sent_event, f"anomaly {place}: found {told}, expected {sent_event}"
    kinds = {"spike"} if is_spike else {"spike", "drift", "flatline"}
    assert row["kind"] in kinds, f"anomaly {place} is of kind {row['kind']}"
    if row["kind"] == "spike":
        assert row["score"] >= SPIKE_SCORE, f"anomaly {place} is a spike with a score of {row['score']}: {row}"


def check_quality(store: HotStore, sent: SentLog) -> None:
    """What the hot store says of each site, metric and minute of arrival; of what was refused, the total."""
    expected: dict[tuple[str, str, int], Counter[str]] = {}
    longest: dict[tuple[str, str, int], int] = {}
    verdicts = sent.verdicts()
    for place, (record, fate) in sorted(sent.accepted().items()):
        event, (verdict, missing) = fate.event, verdicts[place]
        cell = (event["site"] or "", event["metric"], record.timestamp_ms // 60_000 * 60_000)
        counts = expected.setdefault(cell, Counter())
        if verdict is Verdict.DUPLICATE:
            counts["duplicates"] += 1
            continue
        delay_ms = record.timestamp_ms - event["event_time"]
        counts.update(accepted=1, missing=missing, restarts=verdict is Verdict.RESTART, bad_quality=event["quality"] == "BAD", delay_sum_ms=delay_ms)
        longest[cell] = max(longest.get(cell, delay_ms), delay_ms)
    found = {(row["site"], row["metric"], row["minute_ms"]): row for row in store.quality(sent.topic)}
    rejected = sum(row["rejected"] for row in found.values())
    assert rejected == len(sent.rejected()), f"quality counts {rejected} rejected records, {len(sent.rejected())} were sent"
    # Cells of nothing but refused records are beyond what the plan says.
    _same_keys("quality", {cell: row for cell, row in found.items() if row["accepted"] or row["duplicates"]}, expected)
    for cell, counts in expected.items():
        told = {name: found[cell][name] for name in ("accepted", "duplicates", "missing", "restarts", "bad_quality", "delay_sum_ms")}
        assert told == {name: counts[name] for name in told}, f"quality of {cell}: {told}, expected {counts}"
        if cell in longest:
            assert found[cell]["delay_max_ms"] == longest[cell], f"quality of {cell}: the longest delay is {longest[cell]}: {found[cell]}"


def check_sensors(store: HotStore, sent: SentLog) -> None:
    """Each sensor stands where its newest event says; the row names an event that said so."""
    accepted = {place: fate.event for place, (_, fate) in sent.accepted().items()}
    newest = {(partition, event["sensor_id"]): event for (partition, _), event in sorted(accepted.items())}
    rows = store.sensors(sent.topic)
    found = {(row["partition"], row["sensor"]): row for row in rows}
    assert len(found) == len(rows), "a sensor is there twice"
    _same_keys("sensors", found, newest)
    for (partition, sensor), row in found.items():
        told = accepted[partition, row["version"] - 1]
        expected = newest[partition, sensor]["site"] or ""
        assert row["site"] == expected, f"{sensor} of partition {partition} stands at {row['site']!r}, expected {expected!r}"
        witness = (told["sensor_id"], told["site"] or "", told["event_time"])
        assert witness == (sensor, row["site"], row["seen_at_ms"]), f"{row}: the event before says {witness}"


def check_same_results(found: HotStore, expected: HotStore, topic: str) -> None:
    """Two runs over one log, cut and interrupted in different places, come to the same windows and anomalies."""
    windows, expected_windows = _comparable(found.view()), _comparable(expected.view())
    _same_keys("windows", windows, expected_windows)
    for key, row in expected_windows.items():
        assert windows[key] == row, f"window {key}: one run says {windows[key]}, the other {row}"
    one, other = ({(row["partition"], row["offset"]): row for row in store.anomalies(topic)} for store in (found, expected))
    _same_keys("anomalies", one, other)
    for place, row in other.items():
        assert one[place] == row, f"anomaly {place}: one run says {one[place]}, the other {row}"


def _comparable(view: list[dict[str, Any]]) -> dict[SeriesWindow, dict[str, Any]]:
    """Where late contributions were cut elsewhere, sums were added up in another order."""
    rounded = {"sum", "mean", "stddev"}
    return {
        _series_window(row): {
            name: float(f"{value:.9g}") if name in rounded else value for name, value in row.items()
        }
        for row in view
    }


def _series_window(row: Mapping[str, Any]) -> SeriesWindow:
    return SeriesWindow(row["sensor_id"], row["metric"], row["window_start_ms"])


def _window_of(row: Mapping[str, Any], window_ms: int) -> SeriesWindow:
    start = row["event_time_ms"] // window_ms * window_ms
    return SeriesWindow(row["sensor_id"], row["metric"], start)


def _is_closed(windows: PartitionWindows, key: SeriesWindow, oracle: Oracle) -> bool:
    return windows.first_open is not None and key.window_start_ms // oracle.window_ms < windows.first_open


def _compare(where: str, row: Mapping[str, Any], aggregate: Aggregate) -> None:
    found = (
        row["count"], row["min"], row["max"], row["first_time_ms"], row["first_value"], row["last_time_ms"],
        row["last_value"], row["bad_quality"],
    )  # fmt: skip
    expected = (
        aggregate.count, aggregate.min, aggregate.max, aggregate.first_time_ms, aggregate.first_value,
        aggregate.last_time_ms, aggregate.last_value, aggregate.bad_quality,
    )  # fmt: skip
    assert found == expected, (
        f"{where}: (count, min, max, first time and value, last time and value, bad) are {found}, expected {expected}"
    )
    assert nearly(row["sum"], aggregate.sum, aggregate.magnitude), f"{where}: sum {row['sum']}, expected {aggregate.sum}"


def _same_keys(what: str, found: Mapping[Any, Any], expected: Mapping[Any, Any]) -> None:
    missing, surplus = set(expected) - set(found), set(found) - set(expected)
    assert not missing, f"{len(missing)} of {len(expected)} {what} are missing: {sorted(missing)[:3]}"
    assert not surplus, f"{len(surplus)} {what} should not be there: {sorted(surplus)[:3]}"
