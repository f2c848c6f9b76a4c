"""Waits with a deadline, that say what was awaited and what was there instead."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Found(Generic[T]):
    """What was awaited is there."""

    value: T


@dataclass(frozen=True)
class NotYet:
    """It is not there; this is."""

    there: str


class AwaitedInVain(AssertionError):
    """The deadline has passed."""


class Hopeless(AssertionError):
    """It will never be there: there is no use in waiting until the deadline."""


def wait_until(awaited: str, seconds: float, look: Callable[[], Found[T] | NotYet], every: float = 0.15) -> T:
    """Looks again and again; an exception while looking counts as "not yet" and is shown at the deadline."""
    started = time.monotonic()
    while True:
        try:
            outcome: Found[T] | NotYet = look()
        except (AwaitedInVain, Hopeless):
            raise
        except Exception as error:  # a service that is just coming up fails in many ways
            outcome = NotYet(f"{type(error).__name__}: {error}")
        if isinstance(outcome, Found):
            return outcome.value
        if time.monotonic() - started > seconds:
            raise AwaitedInVain(f"after {seconds:.0f} s still waiting for {awaited}; there is {outcome.there}")
        time.sleep(every)


def wait_for(awaited: str, seconds: float, condition: Callable[[], bool], there: Callable[[], object]) -> None:
    """The short form: a condition, and what to show while it does not hold."""

    def look() -> Found[None] | NotYet:
        return Found(None) if condition() else NotYet(str(there()))

    wait_until(awaited, seconds, look)
