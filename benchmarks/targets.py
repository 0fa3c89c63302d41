"""The targets: what each is, and whether it is met.

`(raw + floor)` is what a path costs that decodes for free: raw httpx, which reads the bytes,
and the floor of the same path, which makes LangChain's objects of nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.figures import RoundsOf, Run, differences, figure, ratios
from benchmarks.measure import (
    FAST,
    FLOOR,
    IMPORTS,
    MISTRAL,
    OPENAI,
    OURS,
    RAW,
    SIZES,
    WAYS,
)
from benchmarks.paths import AGENT, MESSAGES
from benchmarks.timing import Rounds

BASE_IMPORT = next(iter(IMPORTS))
_STREAMS = ("stream", "astream")


@dataclass(frozen=True)
class Target:
    """What is to be reached: a ratio or a difference, and its limit."""

    what: str
    limit: float
    rounds: RoundsOf
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


def _over(measure: str, *to: str, path: str = "", mine: str = OURS) -> RoundsOf:
    """What we take as a multiple of what others take together."""

    def rounds(run: Run) -> list[float]:
        seen: Rounds = run[measure][path] if path else run[measure]
        return ratios(seen[mine], *(seen[name] for name in to))

    return rounds


def _cheaper(measure: str, than: str) -> RoundsOf:
    return lambda run: ratios(run[measure][than], run[measure][OURS])


def _after_raw(measure: str) -> RoundsOf:
    return lambda run: differences(run[measure][OURS], run[measure][RAW])


def _growth(way: str, name: str = OURS) -> RoundsOf:
    def rounds(run: Run) -> list[float]:
        sizes = list(run["growth"][way])
        return ratios(run["growth"][way][sizes[-1]][name], run["growth"][way][sizes[1]][name])

    return rounds


def _memory(run: Run) -> list[float]:
    few, many, _ = (run["memory of invoke"][size] for size in SIZES)
    return ratios(many, few)


def _imports(run: Run) -> list[float]:
    return ratios(run["import"][OURS], run["import"][BASE_IMPORT])


def _long() -> Iterator[Target]:
    """Answers of thousands of events."""
    yield Target("invoke / raw", 1.12, _over("invoke", RAW))
    yield Target("ainvoke / raw", 1.25, _over("ainvoke", RAW))
    for way in _STREAMS:
        yield Target(f"{way} / (raw + floor)", 1.0, _over(way, RAW, FLOOR))
    for name, limit in ((MESSAGES, 1.10), (AGENT, 1.25)):
        for way in _STREAMS:
            path = f"{name}, {way}"
            ratio = _over("paths", RAW, FLOOR, path=path)
            yield Target(f"{path} / (raw + floor)", limit, ratio)
    for way, limit, to in (
        ("invoke", 0.45, (RAW,)),
        ("ainvoke", 0.45, (RAW,)),
        ("stream", 0.70, (RAW, FLOOR)),
        ("astream", 0.75, (RAW, FLOOR)),
    ):
        than = "(raw + floor)" if FLOOR in to else "raw"
        yield Target(f"fast: {way} / {than}", limit, _over(way, *to, mine=FAST))
    for than, limit in ((OPENAI, 5.0), (MISTRAL, 1.3)):
        for way in _STREAMS:
            ratio = _cheaper(way, than)
            yield Target(f"{than}'s {way} / ours", limit, ratio, at_least=True)


def _small() -> Iterator[Target]:
    """Answers of five events."""
    for mark, mine, limit in (("", OURS, 1.25), ("fast: ", FAST, 1.0)):
        for way in WAYS:
            ratio = _over(f"small, {way}", RAW, FLOOR, mine=mine)
            yield Target(f"{mark}five events, {way} / (raw + floor)", limit, ratio)


def _many() -> Iterator[Target]:
    """Many streams at once."""
    yield Target("500 astreams / raw", 1.3, _over("500 streams", RAW))
    yield Target("fast: 500 astreams / raw", 1.3, _over("500 streams", RAW, mine=FAST))
    yield Target("500 astreams / (raw + floor)", 1.25, _over("500 streams", RAW, FLOOR))
    yield Target("500 astreams, again", 1.25, _over("500 streams, again", RAW, FLOOR))


def _once() -> Iterator[Target]:
    """What comes once: the first piece, the import, the construction, growth."""
    for measure, way in zip(("first chunk", "first chunk, async"), _STREAMS, strict=True):
        yield Target(f"first chunk - raw, {way}", 150, _after_raw(measure), unit="µs")
    for measure, way in zip(("first token", "first token, async"), _STREAMS, strict=True):
        what = f"time to first token - raw, {way}"
        yield Target(what, 1.0, _after_raw(measure), unit="ms")
    yield Target("import of the class / of BaseChatModel and httpx", 1.15, _imports)
    for than in (MISTRAL, OPENAI):
        ratio = _cheaper("construct", than)
        yield Target(f"construct {than} / ours", 1.0, ratio, at_least=True)
    for way in (*_STREAMS, "invoke"):
        yield Target(f"an event of 100,000 / of 1,000, {way}", 1.15, _growth(way))
    yield Target("memory of invoke: the same text in fifty times the events", 1.15, _memory)


TARGETS = (*_long(), *_small(), *_many(), *_once())
