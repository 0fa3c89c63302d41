"""From the numbers of the runs to the tables, and the targets met or missed.

A run's figure is the median of its rounds; a ratio is taken within each round first. What is
told is the median of the runs, and from the lowest run to the highest. With a single run, the
spread is that of its rounds, from the lower quartile to the upper.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.measure import (
    FLOOR,
    IMPORTS,
    MISTRAL,
    MODELS,
    OPENAI,
    OURS,
    RAW,
    SIZES,
    SSE,
    VENDOR,
    WAYS,
    Rounds,
)

Run = dict[str, Any]
BASE_IMPORT = next(iter(IMPORTS))
CONCURRENCY = ("astream", "50 streams", "500 streams", "500 streams, again")


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


def figure(runs: Sequence[Run], rounds_of: Callable[[Run], list[float]]) -> Figure:
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


@dataclass(frozen=True)
class Target:
    """What is to be reached: a ratio or a difference, and its limit."""

    what: str
    limit: float
    rounds: Callable[[Run], list[float]]
    at_least: bool = False
    unit: str = ""

    def row(self, runs: Sequence[Run]) -> list[str]:
        seen = figure(runs, self.rounds)
        is_met = seen.value >= self.limit if self.at_least else seen.value <= self.limit
        sign = "at least" if self.at_least else "at most"
        return [
            self.what,
            f"{sign} {self.limit:g} {self.unit}".rstrip(),
            str(seen),
            "yes" if is_met else "**no**",
        ]


def _over(measure: str, *to: str) -> Callable[[Run], list[float]]:
    def rounds(run: Run) -> list[float]:
        seen = run[measure]
        return ratios(seen[OURS], *(seen[name] for name in to))

    return rounds


def _cheaper(measure: str, than: str) -> Callable[[Run], list[float]]:
    return lambda run: ratios(run[measure][than], run[measure][OURS])


def _first_token(measure: str) -> Callable[[Run], list[float]]:
    return lambda run: [
        mine - raw for mine, raw in zip(run[measure][OURS], run[measure][RAW], strict=True)
    ]


def _growth(way: str, name: str = OURS) -> Callable[[Run], list[float]]:
    def rounds(run: Run) -> list[float]:
        sizes = list(run["growth"][way])
        return ratios(run["growth"][way][sizes[-1]][name], run["growth"][way][sizes[1]][name])

    return rounds


def _memory(run: Run) -> list[float]:
    few, many, _ = (run["memory of invoke"][size] for size in SIZES)
    return ratios(many, few)


def _imports(run: Run) -> list[float]:
    return ratios(run["import"][OURS], run["import"][BASE_IMPORT])


TARGETS = (
    *(Target(f"{way} / raw", 1.25, _over(way, RAW)) for way in ("invoke", "ainvoke")),
    *(
        Target(f"{way} / (raw + floor)", 1.20, _over(way, RAW, FLOOR))
        for way in ("stream", "astream")
    ),
    *(
        Target(f"{than}'s {way} / ours", limit, _cheaper(way, than), at_least=True)
        for than, limit in ((OPENAI, 5.0), (MISTRAL, 1.3))
        for way in ("stream", "astream")
    ),
    Target("500 astreams / (raw + floor)", 1.25, _over("500 streams", RAW, FLOOR)),
    Target("500 astreams, again", 1.25, _over("500 streams, again", RAW, FLOOR)),
    Target("time to first token - raw, stream", 1.0, _first_token("first token"), unit="ms"),
    Target(
        "time to first token - raw, astream",
        1.0,
        _first_token("first token, async"),
        unit="ms",
    ),
    Target("import of the class / of BaseChatModel and httpx", 1.15, _imports),
    *(
        Target(f"construct {than} / ours", 1.0, _cheaper("construct", than), at_least=True)
        for than in (MISTRAL, OPENAI)
    ),
    *(
        Target(f"an event of 100,000 / of 1,000, {way}", 1.15, _growth(way))
        for way in ("stream", "astream", "invoke")
    ),
    Target("memory of invoke: the same text in fifty times the events", 1.15, _memory),
)


def tables(runs: Sequence[Run]) -> str:
    """All tables, as Markdown."""
    return "\n\n".join(
        f"### {title}\n\n{_table(head, rows)}" for title, head, rows in _sections(runs)
    )


Section = tuple[str, list[str], list[list[str]]]


def _sections(runs: Sequence[Run]) -> list[Section]:
    def cell(measure: str, name: str) -> str:
        rounds: Rounds = runs[0][measure]
        return str(figure(runs, lambda run: run[measure][name])) if name in rounds else ""

    def rows(names: Iterable[str], measures: Sequence[str]) -> list[list[str]]:
        return [[name, *(cell(measure, name) for measure in measures)] for name in names]

    readers = (RAW, VENDOR, SSE, FLOOR, OURS, MISTRAL, OPENAI)
    some = (RAW, *MODELS)
    growth = runs[0]["growth"]
    sizes = list(growth["stream"])
    return [
        (
            "Targets",
            ["what", "target", "measured", "met"],
            [target.row(runs) for target in TARGETS],
        ),
        (
            "Microseconds per event, collector off",
            ["", *WAYS],
            rows(readers, WAYS),
        ),
        (
            "The same, as a multiple of raw httpx",
            ["", *WAYS],
            [
                [
                    name,
                    *(
                        str(
                            figure(
                                runs,
                                lambda run, way=way, name=name: ratios(
                                    run[way][name], run[way][RAW]
                                ),
                            )
                        )
                        for way in WAYS
                    ),
                ]
                for name in readers
            ],
        ),
        (
            "Microseconds per event, collector on",
            ["", *WAYS],
            rows(readers, [f"{way}, collector on" for way in WAYS]),
        ),
        (
            "Streams at once in one event loop, microseconds per event, collector off",
            ["", "1", "50", "500", "500, again"],
            rows(some, CONCURRENCY),
        ),
        (
            "Milliseconds to the first token, and microseconds for an answer of five events",
            ["", "first, stream", "first, astream", "answer, stream", "answer, 10 astreams"],
            rows(
                some,
                ("first token", "first token, async", "small answers", "small answers, async"),
            ),
        ),
        (
            "Import and construction in ms, KiB of an open stream, connections for 50 answers",
            ["", "import", "construct", "open stream", "connections"],
            [
                *rows((BASE_IMPORT, "langchain_thinnest"), ("import",)),
                *rows(some, ("import", "construct", "memory", "connections")),
            ],
        ),
        (
            "Growth: microseconds per event in answers of so many events",
            ["", *(f"{int(size):,}" for size in sizes)],
            [
                [
                    f"{name}, {way}",
                    *(
                        str(
                            figure(
                                runs,
                                lambda run, way=way, size=size, name=name: run["growth"][way][
                                    size
                                ][name],
                            )
                        )
                        for size in sizes
                    ),
                ]
                for way, by_size in growth.items()
                for name in by_size[sizes[0]]
            ],
        ),
        (
            "Memory of invoke: the most bytes held at once, for each character of the text",
            ["events x characters", "bytes"],
            [
                [f"{events:,} x {chars}", cell("memory of invoke", size)]
                for size, (events, chars) in SIZES.items()
            ],
        ),
        (
            "About the measurement itself",
            ["what", "measured"],
            [
                [
                    "the server alone, microseconds per event",
                    cell("server alone", "a bare socket"),
                ],
                *(
                    [f"events that one read brings to {name}", cell("events per read", name)]
                    for name in runs[0]["events per read"]
                ),
            ],
        ),
    ]


def _table(head: list[str], rows: list[list[str]]) -> str:
    rows = [row + [""] * (len(head) - len(row)) for row in rows]
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def write_readme(readme: Path, text: str) -> None:
    """Put the tables between the README's markers."""
    marks = "<!-- results: begin -->", "<!-- results: end -->"
    between = re.compile(f"(?<={marks[0]}\n).*?(?={marks[1]})", re.DOTALL)
    page, count = between.subn(lambda _: f"\n{text}\n\n", readme.read_text())
    if count != 1:
        raise ValueError(f"{readme} needs the lines {marks[0]} and {marks[1]}, once each")
    readme.write_text(page)


def write_results(file: Path, machine: dict[str, str], runs: Sequence[Run]) -> None:
    """Keep the raw numbers: every round of every run."""
    text = json.dumps({"machine": machine, "runs": _rounded(list(runs))}, indent=1)
    # One line for each list of numbers.
    file.write_text(
        re.sub(r"\[[^\[\]{}]*\]", lambda list_: " ".join(list_[0].split()), text) + "\n"
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
