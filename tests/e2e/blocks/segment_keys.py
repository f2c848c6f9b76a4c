"""The documented form of the keys of segments, dead letters and snapshots."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import datetime, timezone

HOUR_MS = 3_600_000

_SEGMENT = re.compile(r"(?P<topic>[^/]+)/date=(?P<date>\d{4}-\d\d-\d\d)/hour=(?P<hour>\d\d)/(?P<partition>\d{5})-(?P<start>\d{20})\.parquet")
_SNAPSHOT = re.compile(r"(?P<topic>[^/]+)/(?P<partition>\d{5})/(?P<position>\d{20})\.snapshot")


@dataclass(frozen=True)
class SegmentKey:
    topic: str
    date: str
    hour: str
    partition: int
    start: int


def parse_segment_key(key: str) -> SegmentKey:
    match = _SEGMENT.fullmatch(key)
    assert match, f"{key!r} is no key of a segment"
    return SegmentKey(match["topic"], match["date"], match["hour"], int(match["partition"]), int(match["start"]))


def parse_snapshot_key(key: str) -> tuple[str, int, int]:
    match = _SNAPSHOT.fullmatch(key)
    assert match, f"{key!r} is no key of a snapshot"
    return match["topic"], int(match["partition"]), int(match["position"])


def is_start_key(key: str) -> bool:
    """The object that says where a partition began."""
    return re.fullmatch(r"[^/]+/\d{5}/start", key) is not None


def is_beside_dead_letters(key: str) -> bool:
    """The ledger of redrives and the marks of purges."""
    ledger, purge = r"_redrive/\d{10}\.(intent|outcome)\.json", r"_purge/\d{4}-\d\d-\d\dT\d\d\.json"
    return re.fullmatch(rf"[^/]+/({ledger}|{purge})", key) is not None


def date_and_hour(timestamp_ms: int) -> tuple[str, str]:
    moment = datetime.fromtimestamp(timestamp_ms / 1000, timezone.utc)
    return moment.strftime("%Y-%m-%d"), moment.strftime("%H")


def hour_that_began_ms(minutes_ago: int) -> int:
    """When the last hour began that had begun so many minutes ago: Kafka's timestamps from there on share a segment's hour."""
    return (int(time.time() * 1000) - minutes_ago * 60_000) // HOUR_MS * HOUR_MS
