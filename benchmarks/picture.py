"""The picture of the runs: small panels, one question each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.measure import (
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
from benchmarks.report import BASE_IMPORT, CONCURRENCY, Run, figure, number

_COLORS = {
    RAW: "#8c8c8c",
    VENDOR: "#b5b5b5",
    SSE: "#d0d0d0",
    FLOOR: "#5b8fb9",
    OURS: "#d1495b",
    MISTRAL: "#edae49",
    OPENAI: "#6a994e",
    BASE_IMPORT: "#8c8c8c",
}


def draw(runs: Sequence[Run], file: Path) -> None:
    """Draw all panels into a PNG."""
    plt.rcParams.update({"font.size": 8, "axes.titlesize": 9, "axes.titleweight": "bold"})
    grid, axes = plt.subplots(4, 4, figsize=(15, 12.5), layout="constrained")
    panels = iter(axes.flat)
    readers = (RAW, VENDOR, SSE, FLOOR, OURS, MISTRAL, OPENAI)
    some = (RAW, *MODELS)
    for way in WAYS:
        names = readers if "stream" in way else tuple(n for n in readers if n != FLOOR)
        bars(next(panels), f"{way}: µs per event", _values(runs, way, names))
    for measure in CONCURRENCY[1:]:
        bars(next(panels), f"{measure}: µs per event", _values(runs, measure, some))
    for way in ("stream", "astream", "invoke"):
        lines(next(panels), f"µs per event, by length: {way}", runs, way)
    first = _values(runs, "first token", some)
    bars(next(panels), "first token: ms", first)
    bars(
        next(panels),
        "answers of five events: µs each",
        _values(runs, "small answers", some),
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
    bars(next(panels), "memory of invoke: bytes/character,\nby events x characters", shown)
    grid.suptitle(
        "Shorter is better. Loopback, one machine, collector off; 'floor' is LangChain with a "
        f"model that does nothing. Median of {len(runs)} run{'s' * (len(runs) > 1)}.",
        fontsize=10,
    )
    grid.savefig(file, dpi=110)
    plt.close(grid)


def bars(axes: Axes, title: str, values: dict[str, tuple[float, float, float]]) -> None:
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
        color=[_COLORS.get(name, _COLORS[OURS]) for name in names],
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


def _values(
    runs: Sequence[Run], measure: str, names: Sequence[str]
) -> dict[str, tuple[float, float, float]]:
    seen = {name: figure(runs, lambda run, name=name: run[measure][name]) for name in names}
    return {name: (it.value, it.low, it.high) for name, it in seen.items()}
