"""Which readings came again, worked out from the numbers alone.

It follows docs/architecture.md: a number among the last 256 that was there in this life of the sensor is a duplicate; one that
is not higher, at a later time than any before, begins another life, as does a leap by more than a million; what is older than
the life or further back is not told. Numbers count from 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

HORIZON = 256
LARGEST_GAP = 1_000_000


class Verdict(Enum):
    NEW = "new"
    DUPLICATE = "duplicate"
    RESTART = "restart"
    UNTOLD = "untold"


@dataclass
class _Life:
    numbers: set[int]
    lowest: int
    highest: int
    since_ms: float
    newest_ms: int

    def missing(self) -> int:
        return self.highest - self.lowest + 1 - len(self.numbers)


class Readings:
    """The sensors of one partition."""

    def __init__(self) -> None:
        self._lives: dict[str, _Life] = {}

    def judge(self, sensor: str, number: int, time_ms: int) -> tuple[Verdict, int]:
        """The verdict, and how many readings more are missing with it."""
        if number < 1:
            return Verdict.UNTOLD, 0
        life = self._lives.get(sensor)
        if life is None:
            self._lives[sensor] = _Life({number}, number, number, float("-inf"), time_ms)
            return Verdict.NEW, 0
        if time_ms < life.since_ms:
            return Verdict.UNTOLD, 0
        if number - life.highest > LARGEST_GAP or (number <= life.highest and time_ms > life.newest_ms):
            self._lives[sensor] = _Life({number}, number, number, time_ms, max(time_ms, life.newest_ms))
            return Verdict.RESTART, 0
        if number <= life.highest - HORIZON:
            return Verdict.UNTOLD, 0
        if number in life.numbers:
            return Verdict.DUPLICATE, 0
        before = life.missing()
        life.numbers.add(number)
        life.lowest, life.highest = min(life.lowest, number), max(life.highest, number)
        life.newest_ms = max(life.newest_ms, time_ms)
        return Verdict.NEW, life.missing() - before
