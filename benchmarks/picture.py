"""The picture of the runs: small panels, one question each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.figures import Run, figure, number, ratios
from benchmarks.measure import (
    FAST,
    FLOOR,
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
from benchmarks.report import CONCURRENCY
from benchmarks.targets import BASE_IMPORT

_COLORS = {
    RAW: "#8c8c8c",
    VENDOR: "#b5b5b5",
    SSE: "#d0d0d0",
    FLOOR: "#5b8fb9",
    OURS: "#d1495b",
    FAST: "#8f2d56",
    MISTRAL: "#edae49",
    OPENAI: "#6a994e",
    BASE_IMPORT: "#8c8c8c",
}


def draw(runs: Sequence[Run], file: Path) -> None:
    """Draw all panels into a PNG."""
    plt.rcParams.update({"font.size": 8, "axes.titlesize": 9, "axes.titleweight": "bold"})
    grid = plt.figure(figsize=(15, 20), layout="constrained")
    upper, lower = grid.subfigures(2, 1, height_ratios=(5, 1.7))
    panels = iter(upper.subplots(5, 4).flat)
    readers = (RAW, VENDOR, SSE, FLOOR, OURS, FAST, MISTRAL, OPENAI)
    some = (RAW, *MODELS)
    for way in WAYS:
        names = readers if "stream" in way else tuple(n for n in readers if n != FLOOR)
        bars(next(panels), f"{way}: µs per event", _values(runs, way, names))
    for measure in CONCURRENCY[1:]:
        bars(next(panels), f"{measure}: µs per event", _values(runs, measure, some))
    for way in ("stream", "astream", "invoke"):
        lines(next(panels), f"µs per event, by length: {way}", runs, way)
    bars(next(panels), "first token after the call: ms", _values(runs, "first token", some))
    bars(
        next(panels),
        "first piece after the first byte: µs",
        _values(runs, "first chunk", tuple(n for n in some if n != FLOOR)),
    )
    for way in WAYS:
        bars(
            next(panels),
            f"{way}, five events in all: µs",
            _values(runs, f"small, {way}", some),
        )
    bars(
        next(panels),
        "import: ms",
        _values(runs, "import", (BASE_IMPORT, OURS, MISTRAL, OPENAI)),
    )
    bars(next(panels), "construct a model: ms", _values(runs, "construct", MODELS))
    bars(next(panels), "memory of an open stream: KiB", _values(runs, "memory", some))
    memory = _values(runs, "memory of invoke", tuple(SIZES))
    shown = {f"{n:,} x {chars}": memory[size] for size, (n, chars) in SIZES.items()}
    bars(next(panels), "invoke: bytes/character,\nby events x characters", shown)
    for panel, name in zip(lower.subplots(1, 2), (OURS, FAST), strict=True):
        title = f"an event of {name} / (raw httpx + floor)"
        bars(panel, title, _paths(runs, name), color=_COLORS[name])
    grid.suptitle(
        "Shorter is better. Loopback, one machine, collector off; 'floor' is LangChain with a "
        f"model that does nothing. Median of {len(runs)} run{'s' * (len(runs) > 1)}.",
        fontsize=10,
    )
    grid.savefig(file, dpi=110)
    plt.close(grid)


Values = dict[str, tuple[float, float, float]]


def bars(axes: Axes, title: str, values: Values, color: str = _COLORS[OURS]) -> None:
    """One bar for each name, with its spread."""
    names = list(values)
    middles = [values[name][0] for name in names]
    spread: Any = [
        [values[name][0] - values[name][1] for name in names],
        [values[name][2] - values[name][0] for name in names],
    ]
    axes.barh(
        names,
        middles,
        xerr=spread,
        color=[_COLORS.get(name, color) for name in names],
        error_kw={"elinewidth": 1, "ecolor": "#333333"},
    )
    for at, name in enumerate(names):
        axes.text(values[name][2], at, f" {number(values[name][0])}", va="center")
    axes.set_title(title, loc="left")
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.set_xlim(left=0)
    axes.spines[["top", "right"]].set_visible(False)


def lines(axes: Axes, title: str, runs: Sequence[Run], way: str) -> None:
    """Cost over length."""
    sizes = list(runs[0]["growth"][way])
    for name in runs[0]["growth"][way][sizes[0]]:
        costs = [
            figure(
                runs, lambda run, size=size, name=name: run["growth"][way][size][name]
            ).value
            for size in sizes
        ]
        axes.plot(list(map(int, sizes)), costs, marker="o", color=_COLORS[name], label=name)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_title(title, loc="left")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _values(runs: Sequence[Run], measure: str, names: Sequence[str]) -> Values:
    names = [name for name in names if name in runs[0][measure]]
    seen = {name: figure(runs, lambda run, name=name: run[measure][name]) for name in names}
    return {name: (it.value, it.low, it.high) for name, it in seen.items()}


def _paths(runs: Sequence[Run], mine: str) -> Values:
    def ratio(run: Run, path: str) -> list[float]:
        seen = run["paths"][path]
        return ratios(seen[mine], seen[RAW], seen[FLOOR])

    seen = {
        path: figure(runs, lambda run, path=path: ratio(run, path))
        for path in runs[0]["paths"]
    }
    return {path: (it.value, it.low, it.high) for path, it in seen.items()}
