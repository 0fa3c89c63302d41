"""What an event costs, by counting: growth, and work that nobody asked for.

How long it takes is for `make bench` to say; what is counted here is the same on every
machine, however busy.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import langchain_core
import pytest
from langchain_core.callbacks import BaseCallbackHandler

import langchain_thinnest
from integration_tests.conftest import Make
from integration_tests.warm import Warm
from integration_tests.wire import WireServer, stream
from unit_tests.contract import as_sse

OURS = str(Path(langchain_thinnest.__file__).parent)
FRAMEWORK = str(Path(langchain_core.__file__).parent)


def answer(events: int, size: int = 5) -> list[Any]:
    """An answer of so many texts, no two alike, each in a chunk of the body of its own."""
    texts = (f"{number:0{size}}" for number in range(events))
    return stream(
        *(as_sse({"type": "text", "content": text}) for text in texts),
        as_sse({"type": "done"}),
    )


def invoke(model: Any, **config: Any) -> None:
    model.invoke("hi", config)


def ainvoke(model: Any, **config: Any) -> None:
    asyncio.run(model.ainvoke("hi", config))


def read_stream(model: Any, **config: Any) -> None:
    for _ in model.stream("hi", config):
        pass


def read_astream(model: Any, **config: Any) -> None:
    async def run() -> None:
        async for _ in model.astream("hi", config):
            pass

    asyncio.run(run())


def calls(call: Callable[[], None]) -> Counter[tuple[str, str]]:
    """How often each function was called or resumed, by its file and name."""
    counted: Counter[tuple[str, str]] = Counter()

    def count(frame: Any, event: str, _: Any) -> None:
        if event == "call":
            counted[frame.f_code.co_filename, frame.f_code.co_name] += 1

    sys.setprofile(count)
    try:
        call()
    finally:
        sys.setprofile(None)
    return counted


def total(counted: Counter[tuple[str, str]], folder: str, name: str = "") -> int:
    return sum(
        count
        for (file, function), count in counted.items()
        if file.startswith(folder) and function.startswith(name)
    )


@pytest.fixture
def counted(wired: Make, wire: WireServer) -> Callable[..., Counter[tuple[str, str]]]:
    """Counts the calls for an answer of so many events."""
    model = wired()

    def count(way: Any, events: int, **config: Any) -> Counter[tuple[str, str]]:
        wire.answer(answer(1))
        way(model)  # what is made once is made
        wire.answer(answer(events))
        return calls(lambda: way(model, **config))

    return count


@pytest.mark.parametrize("way", [invoke, ainvoke, read_stream, read_astream])
def test_the_work_grows_with_the_events(counted: Any, way: Any) -> None:
    few, more, most = (total(counted(way, events), OURS) for events in (500, 1000, 2000))
    # A task that has to wait is resumed once more, through all who wait for it.
    tolerance, most_calls = (0.02, 12) if way in (invoke, read_stream) else (0.3, 25)
    assert abs((most - more) - 2 * (more - few)) < tolerance * most
    assert (most - more) / 1000 <= most_calls


@pytest.mark.parametrize("way", [invoke, ainvoke])
def test_invoke_makes_no_chunks(counted: Any, way: Any) -> None:
    many = counted(way, 1000)
    assert total(many, OURS, "chunk") == total(many, OURS, "_text_chunk") == 0
    assert total(counted(read_stream, 1000), OURS, "_text_chunk") == 1000


class Listener(BaseCallbackHandler):
    """Listens to the model, but not to its tokens."""

    def on_llm_end(self, *_: Any, **__: Any) -> None:
        self.has_heard = True


def test_invoke_leaves_the_framework_alone(counted: Any) -> None:
    """Nothing is done there for an event, whether or not somebody listens to the end."""
    for config in ({}, {"callbacks": [Listener()]}):
        few, many = (
            total(counted(invoke, events, **config), FRAMEWORK) for events in (100, 1000)
        )
        assert abs(many - few) < 50


def test_nobody_is_told_of_chunks_if_nobody_listens(counted: Any) -> None:
    callbacks = str(Path(FRAMEWORK, "callbacks"))
    few, many = (total(counted(read_stream, events), callbacks) for events in (100, 1000))
    assert many - few <= 900  # the framework's own look, once for each


def test_long_parts_of_a_call_are_not_read_one_by_one(wired: Make, wire: WireServer) -> None:
    """The framework reads the arguments of each chunk as JSON: slow for a long one."""
    model = wired().bind_tools([{"name": "keep", "parameters": {"type": "object"}}])

    def reads(parts: int) -> int:
        text = ['<tool_call>{"name": "keep", "arguments": {"it": "', *["x" * 2500] * parts]
        events = [{"type": "text", "content": it} for it in (*text, '"}}</tool_call>')]
        wire.answer(stream(*map(as_sse, events), as_sse({"type": "done"})))
        counted = calls(lambda: read_stream(model))
        return total(counted, FRAMEWORK, "parse_partial_json")

    assert reads(1) == reads(20)


MEMORY = """
import sys, tracemalloc
from integration_tests.test_shape import answer
from integration_tests.wire import WireServer
from langchain_thinnest import ChatThinnest

with WireServer() as wire:
    model = ChatThinnest(agent_id="ag_1", api_key="ak_1", base_url=wire.base_url)
    wire.answer(answer(10, 10))
    model.invoke("hi")
    wire.answer(answer(int(sys.argv[1]), int(sys.argv[2])))
    sizes = []
    for _ in range(2):
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        text = model.invoke("hi").text
        sizes.append(tracemalloc.get_traced_memory()[1] - before)
        tracemalloc.stop()
    assert len(text) == int(sys.argv[1]) * int(sys.argv[2])
    print(min(sizes))
"""


def test_invokes_memory_grows_with_the_text_alone(strict_python: Warm) -> None:
    """The same text in twenty times the events."""

    def most(events: int, size: int) -> int:
        done = strict_python.run(["-c", MEMORY, str(events), str(size)])
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    assert most(10_000, 20) < 1.5 * most(500, 400)


def test_the_benchmark_runs() -> None:
    pytest.importorskip("matplotlib", reason="the group `bench` is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert "--runs" in done.stdout
