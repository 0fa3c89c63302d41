"""How the clock is read: contestants in turn, with the garbage collector off, or on."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator

Rounds = dict[str, list[float]]
Step = Callable[[], float]
"""Does something once and says what it took."""


def in_turn(steps: dict[str, Step], rounds: int) -> Rounds:
    """Run the steps in turn, beginning with another one in every round."""
    names = list(steps)
    seen: Rounds = {name: [] for name in names}
    for number in range(rounds):
        gc.collect()
        at = number % len(names)
        for name in names[at:] + names[:at]:
            seen[name].append(steps[name]())
    return seen


@contextlib.contextmanager
def collector(*, on: bool) -> Iterator[None]:
    """Set the garbage collector, and begin with nothing to collect where it is on."""
    if on:
        gc.collect()
    else:
        gc.disable()
    try:
        yield
    finally:
        gc.enable()


def repeat(call: Callable[[], object], calls: int, *, on: bool = False) -> float:
    """Seconds that so many calls take."""
    with collector(on=on):
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        return time.perf_counter() - begin


def timed(call: Step) -> float:
    """For what times itself."""
    with collector(on=False):
        return call()


def scaled(seen: Rounds, factor: float) -> Rounds:
    return {
        name: [value * factor for value in values] for name, values in seen.items() if values
    }
