"""What the windows must hold, worked out from the records alone.

It reads each partition in the order of the offsets and follows the documentation: the watermark is the largest valid
event time so far; a window is closed once the watermark, with the event at hand, is past its end and the allowed
lateness. It keeps every event of every window, so there is nothing incremental in it that could go wrong the same way
as in the pipeline.
"""

from __future__ import annotations

import bisect
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .records import Accepted, SentLog


@dataclass(frozen=True, order=True)
class SeriesWindow:
    sensor_id: str
    metric: str
    window_start_ms: int


@dataclass(frozen=True)
class Observation:
    partition: int
    offset: int
    time_ms: int
    value: float
    is_bad: bool


@dataclass(frozen=True)
class Aggregate:
    count: int
    sum: float
    # Sum of the absolute values: what a relative error of `sum` must be measured against.
    magnitude: float
    min: float
    max: float
    mean: float
    # Sum of squared deviations from the mean.
    m2: float
    first_time_ms: int
    first_value: float
    last_time_ms: int
    last_value: float
    bad_quality: int

    @classmethod
    def of(cls, observations: Sequence[Observation]) -> Aggregate:
        values = [observation.value for observation in observations]
        mean = math.fsum(values) / len(values)
        # Equal times: the place in the log decides.
        first = min(observations, key=lambda seen: (seen.time_ms, seen.partition, seen.offset))
        last = max(observations, key=lambda seen: (seen.time_ms, seen.partition, seen.offset))
        return cls(
            count=len(values),
            sum=math.fsum(values),
            magnitude=math.fsum(map(abs, values)),
            min=min(values),
            max=max(values),
            mean=mean,
            m2=math.fsum((value - mean) ** 2 for value in values),
            first_time_ms=first.time_ms,
            first_value=first.value,
            last_time_ms=last.time_ms,
            last_value=last.value,
            bad_quality=sum(observation.is_bad for observation in observations),
        )


@dataclass
class PartitionWindows:
    """One partition's events, told apart by whether their window was still open."""

    on_time: dict[SeriesWindow, list[Observation]] = field(default_factory=lambda: defaultdict(list))
    late: dict[SeriesWindow, list[Observation]] = field(default_factory=lambda: defaultdict(list))
    # Number of the first window that is still open at the end.
    first_open: int | None = None

    def late_by_segment(self, starts: Sequence[int]) -> dict[tuple[SeriesWindow, int], list[Observation]]:
        """Late contributions as the segments cut them; `starts` are the segments' first offsets, in order."""
        by_segment: dict[tuple[SeriesWindow, int], list[Observation]] = defaultdict(list)
        for window, observations in self.late.items():
            for observation in observations:
                segment = starts[bisect.bisect_right(starts, observation.offset) - 1]
                by_segment[window, segment].append(observation)
        return by_segment


@dataclass(frozen=True)
class Oracle:
    window_ms: int
    lateness_ms: int

    def partition(self, sent: SentLog, partition: int) -> PartitionWindows:
        windows = PartitionWindows()
        watermark: int | None = None
        duplicates = sent.duplicates(partition)
        for position in sent.in_order(partition):
            fate = position.record.fate
            if not isinstance(fate, Accepted) or position.offset in duplicates:
                continue
            event = fate.event
            time_ms = event["event_time"]
            watermark = time_ms if watermark is None else max(watermark, time_ms)
            windows.first_open = (watermark - self.lateness_ms) // self.window_ms
            number = time_ms // self.window_ms
            key = SeriesWindow(event["sensor_id"], event["metric"], number * self.window_ms)
            observation = Observation(partition, position.offset, time_ms, event["value"], event["quality"] == "BAD")
            is_late = number < windows.first_open
            (windows.late if is_late else windows.on_time)[key].append(observation)
        return windows

    def partitions(self, sent: SentLog) -> dict[int, PartitionWindows]:
        return {partition: self.partition(sent, partition) for partition in sent.partitions}


def merged(partitions: Iterable[PartitionWindows]) -> dict[SeriesWindow, Aggregate]:
    """The windows as people see them: over partitions, late or not."""
    observations: dict[SeriesWindow, list[Observation]] = defaultdict(list)
    for windows in partitions:
        for part in (windows.on_time, windows.late):
            for key, found in part.items():
                observations[key].extend(found)
    return {key: Aggregate.of(found) for key, found in observations.items()}


def nearly(left: float, right: float, scale: float) -> bool:
    """Equal but for rounding: within 1e-9 of the size of what was added up."""
    return abs(left - right) <= 1e-9 * abs(scale)


def same_deviation(left: float, right: float, mean: float) -> bool:
    """Within 1e-9; where all values are equal, a rest of rounding in the mean is no deviation."""
    return abs(left - right) <= 1e-9 * abs(right) + 1e-13 * abs(mean)
