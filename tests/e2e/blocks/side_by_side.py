"""Several things at once, of which each waits most of the time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor


def side_by_side(tasks: Sequence[Callable[[], None]]) -> None:
    """All of them, to the end; the first failure is raised."""
    with ThreadPoolExecutor(len(tasks)) as pool:
        for future in [pool.submit(task) for task in tasks]:
            future.result()
