"""From the numbers of the runs to the tables of the README."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import Run, figure, ratios
from benchmarks.measure import (
    FAST,
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
)
from benchmarks.targets import TARGETS
from benchmarks.timing import Rounds

SMALL = (*(f"small, {way}" for way in WAYS), "small, 10 astreams")
CONCURRENCY = ("astream", "50 streams", "500 streams", "500 streams, again")


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

    def over(mine: str, rounds: Callable[[Run], Rounds]) -> str:
        def ratio(run: Run) -> list[float]:
            seen = rounds(run)
            return ratios(seen[mine], seen[RAW], seen[FLOOR])

        return str(figure(runs, ratio))

    readers = (RAW, VENDOR, SSE, FLOOR, OURS, FAST, MISTRAL, OPENAI)
    columns = (OURS, FAST)
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
            "Small answers: microseconds for one of five events, collector off",
            ["", *WAYS, "10 astreams"],
            [
                *rows(some, SMALL),
                *(
                    [
                        f"{mine} / (raw + floor)",
                        *(over(mine, lambda run, it=it: run[it]) for it in SMALL),
                    ]
                    for mine in (OURS, FAST)
                ),
            ],
        ),
        (
            "Every path: microseconds per event, collector off",
            [
                "",
                "raw httpx",
                "floor of the path",
                *columns,
                *(f"{it} / (raw + floor)" for it in columns),
            ],
            [
                [
                    path,
                    *(
                        str(figure(runs, lambda run, path=path, it=it: run["paths"][path][it]))
                        for it in (RAW, FLOOR, *columns)
                    ),
                    *(
                        over(mine, lambda run, path=path: run["paths"][path])
                        for mine in columns
                    ),
                ]
                for path in runs[0]["paths"]
            ],
        ),
        (
            "The first piece: ms from the call, and µs from the server's first byte",
            ["", "call, stream", "call, astream", "byte, stream", "byte, astream"],
            rows(
                some,
                ("first token", "first token, async", "first chunk", "first chunk, async"),
            ),
        ),
        (
            "Import and construction in ms, KiB of an open stream, connections for 50 answers",
            ["", "import", "construct", "open stream", "each of many", "connections"],
            [
                *rows(list(IMPORTS)[:3], ("import",)),
                *rows(
                    some, ("import", "construct", "memory", "memory of many", "connections")
                ),
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
