"""A figure: what the rounds of one run or of many come to, and how far they lie apart.

A run's figure is the median of its rounds; a ratio is taken within each round first. What is
told is the median of the runs, and from the lowest run to the highest. With a single run, the
spread is that of its rounds, from the lower quartile to the upper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

Run = dict[str, Any]
RoundsOf = Callable[[Run], list[float]]


@dataclass(frozen=True)
class Figure:
    """A median, and how far the numbers behind it lie apart."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{number(self.value)} ({number(self.low)} to {number(self.high)})"


def number(value: float) -> str:
    """Three digits, more or less."""
    size = abs(value)
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def figure(runs: Sequence[Run], rounds_of: RoundsOf) -> Figure:
    """The figure over all runs of what each run's rounds gave."""
    by_run = [rounds_of(run) for run in runs]
    if len(by_run) > 1:
        medians = [median(rounds) for rounds in by_run]
        return Figure(median(medians), min(medians), max(medians))
    rounds = by_run[0]
    low, _, high = quantiles(rounds, n=4) if len(rounds) > 1 else rounds * 3
    return Figure(median(rounds), max(low, min(rounds)), min(high, max(rounds)))


def ratios(of: Iterable[float], *to: Iterable[float]) -> list[float]:
    """One thing over the sum of others, round by round."""
    sums = map(sum, zip(*to, strict=True))
    return [mine / theirs for mine, theirs in zip(of, sums, strict=False)]


def differences(of: Iterable[float], to: Iterable[float]) -> list[float]:
    """How much more one thing takes than another, round by round."""
    return [mine - theirs for mine, theirs in zip(of, to, strict=True)]
