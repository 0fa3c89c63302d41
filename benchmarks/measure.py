"""One run: the contestants in turn, round after round, against one server.

What is measured together is measured in the same rounds, in an order that turns from round to
round, so that whatever else the machine does falls on all of them. A ratio is taken within a
round; the run's ratio is the median over the rounds. The garbage collector is off while the
clock runs, unless a measure says that it is on.

`python -m benchmarks.measure <file> [--quick]` writes the numbers of one run as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from langchain_core._api.beta_decorator import LangChainBetaWarning
from langchain_core.language_models import BaseChatModel

from benchmarks.clients import ALL, Contestant, check, whole_text
from benchmarks.paths import PATHS, check_paths
from benchmarks.probes import import_seconds, memory_bytes
from benchmarks.server import allow_descriptors, bench_name
from benchmarks.timing import Rounds, Step, collector, in_turn, repeat, scaled, timed

RAW, VENDOR, SSE, FLOOR, OURS, FAST, MISTRAL, OPENAI = ALL
MODELS = (FLOOR, OURS, FAST, MISTRAL, OPENAI)
WALKERS = (FLOOR, OURS, FAST)  # of the paths
WAYS = ("stream", "invoke", "astream", "ainvoke")
IMPORTS = {
    "BaseChatModel and httpx": (
        "from langchain_core.language_models import BaseChatModel; import httpx"
    ),
    "langchain_core.language_models": "import langchain_core.language_models",
    "langchain_thinnest": "import langchain_thinnest",
    OURS: "from langchain_thinnest import ChatThinnest",
    MISTRAL: "from langchain_mistralai import ChatMistralAI",
    OPENAI: "from langchain_openai import ChatOpenAI",
}
GROWTH = (100, 1_000, 10_000, 100_000)
# The same text in few events and in many, and twice the text: (events, characters of each).
SIZES = {"few events": (500, 400), "many events": (25_000, 8), "twice": (50_000, 8)}


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    rounds: int = 7
    rounds_collector_on: int = 2
    rounds_many: int = 5  # of 500 streams at once
    many_events: int = 120  # of each of many streams
    rounds_growth: int = 2
    rounds_import: int = 5
    rounds_small: int = 7
    rounds_paths: int = 7
    rounds_construct: int = 41
    events: int = 5_000
    path_events: int = 3_000
    growth: Sequence[int] = GROWTH
    first: int = 75
    answers: int = 100
    parked: int = 60  # fewer than the connections that ChatMistralAI's pool has
    many_parked: int = 1_000
    sizes: tuple[str, ...] = tuple(SIZES)


QUICK = Scale(
    rounds=3,
    rounds_collector_on=1,
    rounds_many=1,
    many_events=40,
    rounds_growth=1,
    rounds_import=2,
    rounds_small=2,
    rounds_paths=2,
    rounds_construct=7,
    events=500,
    path_events=300,
    growth=GROWTH[:3],
    first=15,
    answers=40,
    parked=20,
    many_parked=150,
)


@dataclass
class Bench:
    """One run under way."""

    url: str
    scale: Scale
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    contestants: dict[str, Contestant] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.contestants = {name: kind(self.url) for name, kind in ALL.items()}

    def run(self) -> dict[str, Any]:
        scale = self.scale
        check(self.contestants)
        whole = {name: whole_text(name) for name in WALKERS}
        check_paths(self._models(bench_name(3)), whole, self.loop)
        measures: dict[str, Callable[[], Any]] = {
            "import": self.imports,
            "construct": self.constructions,
            **{way: lambda way=way: self.way(way, scale.rounds) for way in WAYS},
            **{
                f"{way}, collector on": lambda way=way: self.way(
                    way, scale.rounds_collector_on, on=True
                )
                for way in WAYS
            },
            "50 streams": lambda: self.at_once(50),
            "500 streams": lambda: self.at_once(500),
            "500 streams, again": lambda: self.at_once(500, again=True),
            "first token": lambda: self.first_tokens("first"),
            "first token, async": lambda: self.first_tokens("afirst"),
            "first chunk": lambda: self.first_chunks("first"),
            "first chunk, async": lambda: self.first_chunks("afirst"),
            "growth": self.growth,
            **{f"small, {way}": lambda way=way: self.small_answers(way) for way in WAYS},
            "small, 10 astreams": self.small_answers_at_once,
            "connections": self.connections,
            "paths": self.paths,
            "memory": self.memory,
            "memory of many": self.memory_of_many,
            "memory of invoke": self.memory_of_invoke,
            "events per read": self.events_per_read,
            "server alone": self.server_alone,
        }
        results = {}
        for name, measure in measures.items():
            began = time.monotonic()
            print(f"  {name} ...", end="", flush=True, file=sys.stderr)
            results[name] = measure()
            print(f" {time.monotonic() - began:.0f} s", file=sys.stderr)
        self.loop.run_until_complete(self._close())
        return results

    async def _close(self) -> None:
        for contestant in self.contestants.values():
            await contestant.close()
        await self.loop.shutdown_asyncgens()

    # --- microseconds per event ---

    def way(
        self,
        way: str,
        rounds: int,
        *,
        on: bool = False,
        events: int = 0,
        calls: int = 1,
        names: Sequence[str] = tuple(ALL),
        warm: bool = False,
    ) -> Rounds:
        """One stream at a time, read in one of the four ways."""
        answer = bench_name(events or self.scale.events)

        def step(name: str) -> Step:
            call = getattr(self.contestants[name], way)
            return self._step(way, lambda: call(answer), calls, on=on)

        steps = {name: step(name) for name in names}
        if not warm:
            for step_ in steps.values():
                step_()
        return scaled(in_turn(steps, rounds), 1e6 / (events or self.scale.events) / calls)

    def _step(
        self, way: str, call: Callable[[], Any], calls: int = 1, *, on: bool = False
    ) -> Step:
        if way.startswith("a"):
            return lambda: self._arepeat(call, calls, on=on)
        return lambda: repeat(call, calls, on=on)

    def _arepeat(
        self, call: Callable[[], Awaitable[object]], calls: int, *, on: bool = False
    ) -> float:
        async def arepeat() -> float:
            with collector(on=on):
                begin = time.perf_counter()
                for _ in range(calls):
                    await call()
                return time.perf_counter() - begin

        return self.loop.run_until_complete(arepeat())

    def at_once(self, streams: int, *, again: bool = False) -> Rounds:
        """Many streams in one event loop.

        Each burst of streams has a loop and clients of its own, as with `asyncio.run`, so that
        all open their connections while the clock runs. With `again`, the second of two bursts
        is timed, which finds idle connections. ChatMistralAI and ChatOpenAI keep their clients
        across loops, so they have one loop for all rounds, and take part in fewer.
        """
        answer = bench_name(self.scale.many_events)

        def own_loop(name: str) -> Step:
            async def burst() -> float:
                contestant = ALL[name](self.url)
                astream = contestant.astream
                if again:
                    await asyncio.gather(*[astream(answer) for _ in range(streams)])
                with collector(on=False):
                    begin = time.perf_counter()
                    await asyncio.gather(*[astream(answer) for _ in range(streams)])
                    seconds = time.perf_counter() - begin
                await contestant.close()
                return seconds

            return lambda: asyncio.run(burst())

        def same_loop(name: str) -> Step:
            astream = self.contestants[name].astream

            async def burst() -> None:
                await asyncio.gather(*[astream(answer) for _ in range(streams)])

            return lambda: self._arepeat(burst, 1)

        rounds = self.scale.rounds if streams <= 50 else self.scale.rounds_many
        seen = in_turn({name: own_loop(name) for name in (RAW, FLOOR, OURS, FAST)}, rounds)
        beside = in_turn({name: same_loop(name) for name in (MISTRAL, OPENAI)}, rounds // 3)
        return scaled({**seen, **beside}, 1e6 / streams / self.scale.many_events)

    def growth(self) -> dict[str, dict[str, Rounds]]:
        """The cost of an event in short and in long answers."""
        sizes = self.scale.growth
        seen: dict[str, dict[str, Rounds]] = {}
        for way in ("stream", "astream", "invoke"):
            names = (RAW, FLOOR, OURS) if way != "invoke" else (RAW, OURS)
            seen[way] = {str(size): {name: [] for name in names} for size in sizes}
        for _ in range(self.scale.rounds_growth):
            for way, by_size in seen.items():
                for size in sizes:
                    calls = max(1, 10_000 // size)
                    names = tuple(by_size[str(size)])
                    once = self.way(way, 1, events=size, calls=calls, names=names, warm=True)
                    for name in names:
                        by_size[str(size)][name] += once[name]
        return seen

    def paths(self) -> dict[str, Rounds]:
        """The cost of an event on each path, and beside it raw httpx, which has but one."""
        events = self.scale.path_events
        answer = bench_name(events)
        seen: dict[str, Rounds] = {}
        for path in PATHS:
            way = "astream" if path.is_async else "stream"
            raw = getattr(self.contestants[RAW], way)
            walks = {name: path.walk(model) for name, model in self._models(answer).items()}
            calls = {RAW: partial(raw, answer), **walks}
            steps = {name: self._step(way, call) for name, call in calls.items()}
            in_turn(steps, 1)
            rounds = in_turn(steps, self.scale.rounds_paths)
            seen[path.name] = scaled(rounds, 1e6 / events)
        return seen

    def _models(self, answer: str) -> dict[str, BaseChatModel]:
        """The models that walk the paths."""
        contestants = {name: self.contestants[name] for name in WALKERS}
        return {name: it.model(answer) for name, it in contestants.items()}  # type: ignore[attr-defined]

    # --- to the first piece ---

    def first_tokens(self, way: str) -> Rounds:
        """Milliseconds from the call to the first piece; the connection is open already."""
        seen = self._firsts(way, (RAW, *MODELS), lambda called: called)
        return scaled(seen, 1e3)

    def first_chunks(self, way: str) -> Rounds:
        """Microseconds from the moment before the server's first byte to the first piece."""
        names = (RAW, *(name for name in MODELS if name != FLOOR))
        return scaled(self._firsts(way, names, lambda _: float(self._ask("/first-byte"))), 1e6)

    def _firsts(
        self, way: str, names: Sequence[str], begin: Callable[[float], float]
    ) -> Rounds:
        answer = bench_name(10, mode="hold")

        def step(name: str) -> Step:
            first = getattr(self.contestants[name], way)

            def once() -> float:
                moments = first(answer)
                if way == "afirst":
                    moments = self.loop.run_until_complete(moments)
                called, came = moments
                seconds = float(came - begin(called))
                if seconds < 0:
                    raise AssertionError("this process and the server's have other clocks")
                return seconds

            return lambda: timed(once)

        steps = {name: step(name) for name in names}
        in_turn(steps, 3)
        return in_turn(steps, self.scale.first)

    def _ask(self, path: str) -> bytes:
        """Ask the server about itself."""
        server = http.client.HTTPConnection(self.url.removeprefix("http://"))
        server.request("GET", path)
        try:
            return server.getresponse().read()
        finally:
            server.close()

    # --- milliseconds ---

    def constructions(self) -> Rounds:
        """Milliseconds to construct a model, once the first one was."""
        makes = {name: self.contestants[name].make for name in MODELS}  # type: ignore[attr-defined]

        def step(name: str) -> Step:
            answer = bench_name(4)
            return lambda: repeat(lambda: makes[name](answer), 1)

        steps = {name: step(name) for name in MODELS}
        in_turn(steps, 2)
        return scaled(in_turn(steps, self.scale.rounds_construct), 1e3)

    def imports(self) -> Rounds:
        """Milliseconds to import, each in a fresh interpreter."""
        steps = {
            name: lambda statement=statement: import_seconds(statement)
            for name, statement in IMPORTS.items()
        }
        in_turn(steps, 1)  # the files come into the page cache, and the bytecode to disk
        return scaled(in_turn(steps, self.scale.rounds_import), 1e3)

    # --- microseconds per answer of five events ---

    def small_answers(self, way: str) -> Rounds:
        """One after the other."""
        rounds, calls = self.scale.rounds_small, self.scale.answers
        seen = self.way(way, rounds, events=5, calls=calls, names=(RAW, *MODELS))
        return scaled(seen, 5)

    def small_answers_at_once(self) -> Rounds:
        """Ten streams at once."""
        answer, calls = bench_name(5), self.scale.answers // 10

        def step(name: str) -> Step:
            astream = self.contestants[name].astream

            async def one_after_the_other() -> None:
                for _ in range(calls):
                    await astream(answer)

            async def gather() -> None:
                await asyncio.gather(*[one_after_the_other() for _ in range(10)])

            return lambda: self._arepeat(gather, 1)

        steps = {name: step(name) for name in (RAW, *MODELS)}
        in_turn(steps, 1)
        return scaled(in_turn(steps, self.scale.rounds_small), 1e6 / calls / 10)

    # --- counts ---

    def connections(self) -> Rounds:
        """Connections that the server had to accept for fifty small answers in a row."""
        counts: Rounds = {}
        for name in (RAW, OURS, FAST, MISTRAL, OPENAI):
            contestant = ALL[name](self.url)
            self._ask("/connections")
            for _ in range(50):
                contestant.stream(bench_name(5))
            counts[name] = [float(self._ask("/connections"))]
            self.loop.run_until_complete(contestant.close())
        return counts

    def memory(self) -> Rounds:
        """KiB that an open stream holds."""
        return {
            name: [memory_bytes("streams", self.url, name, self.scale.parked) / 1024]
            for name in (RAW, *MODELS)
        }

    def memory_of_many(self) -> Rounds:
        """The same with so many open; the pools of the others hold fewer connections."""
        return {
            name: [memory_bytes("streams", self.url, name, self.scale.many_parked) / 1024]
            for name in (RAW, OURS, FAST)
        }

    def memory_of_invoke(self) -> Rounds:
        """The most bytes that `invoke` holds at once, for each character of the text."""
        return {
            size: [
                memory_bytes("invoke", self.url, OURS, *SIZES[size])
                / (SIZES[size][0] * SIZES[size][1])
            ]
            for size in self.scale.sizes
        }

    def events_per_read(self) -> Rounds:
        """How many events one read of the socket brings: a slow reader finds more waiting."""
        from httpcore._backends.sync import SyncStream

        read, reads = SyncStream.read, 0

        def counted(stream: SyncStream, *args: Any, **kwargs: Any) -> bytes:
            nonlocal reads
            reads += 1
            return read(stream, *args, **kwargs)

        seen: Rounds = {}
        SyncStream.read = counted  # type: ignore[method-assign]
        try:
            for name in (RAW, OURS, MISTRAL):
                reads = 0
                self.contestants[name].stream(bench_name(10_000))
                seen[name] = [10_000 / reads]
        finally:
            SyncStream.read = read  # type: ignore[method-assign]
        return seen

    def server_alone(self) -> Rounds:
        """Microseconds per event to a socket that is only emptied: what the server costs.

        The reader sleeps until much has come, as if it were slow: woken for every event, it
        would make the server's writes the dearer ones.
        """
        events = 20_000
        body = json.dumps({"agent_id": bench_name(events), "message": "?"}).encode()
        request = b"POST /chat/stream HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body)
        host, port = self.url.removeprefix("http://").split(":")

        def empty(size: int = 0) -> int:
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(request + body)
                seen, end = 0, b""
                while not end.endswith(b"0\r\n\r\n"):
                    least = 65536 if size - seen > 2 * 65536 else 1
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)
                    data = connection.recv(65536)
                    seen += len(data)
                    end = end[-5:] + data
                return seen

        size = empty()
        steps = {"a bare socket": lambda: repeat(lambda: empty(size), 1)}
        return scaled(in_turn(steps, self.scale.rounds), 1e6 / events)


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """The server, in its own process.

    Yields:
        Its URL.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.server"],
        cwd=Path(__file__).resolve().parent.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        if server.stdin is None or server.stdout is None:
            raise AssertionError("pipes were asked for")
        try:
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.stdin.close()


def main() -> None:
    file, *flags = sys.argv[1:]
    warnings.simplefilter("ignore", LangChainBetaWarning)  # of events v3
    allow_descriptors()
    scale = QUICK if "--quick" in flags else Scale()
    with serving() as url:
        results = Bench(url, scale).run()
    Path(file).write_text(json.dumps(results))


if __name__ == "__main__":
    main()
