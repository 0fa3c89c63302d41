"""Whoever is cancelled, however and whenever, leaves no stream, no socket and no tool run."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.runnables import RunnableConfig

from integration_tests.test_lifetime import until
from integration_tests.transports import GIVEN
from integration_tests.wire import HEADERS, Step, Watch, WireServer, chunk, head
from langchain_thinnest import ChatThinnest
from unit_tests.contract import as_sse


class Runs(AsyncCallbackHandler):
    """Counts the tool runs, and takes a while over each end, as a tracer does.

    Over text it takes for ever: the call is then cancelled while it waits for a handler.
    """

    def __init__(self) -> None:
        self.begun: Counter[Any] = Counter()
        self.ended: Counter[Any] = Counter()

    async def on_tool_start(self, *args: Any, run_id: Any, **kwargs: Any) -> None:
        self.begun[run_id] += 1

    async def on_tool_error(self, *args: Any, run_id: Any, **kwargs: Any) -> None:
        await asyncio.sleep(0.01)
        self.ended[run_id] += 1

    async def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        if token:
            await asyncio.sleep(30)

    async def on_stream_event(self, event: Any, **kwargs: Any) -> None:
        if event["event"] == "content-block-delta":
            await asyncio.sleep(30)


# --- what is cancelled ---

Call = Callable[[ChatThinnest, Any], Coroutine[Any, Any, None]]


async def ainvoke(model: ChatThinnest, config: Any) -> None:
    await model.ainvoke("hi", config)


async def astream(model: ChatThinnest, config: Any) -> None:
    async for _ in model.astream("hi", config):
        pass


async def events_v2(model: ChatThinnest, config: Any) -> None:
    async for _ in model.astream_events("hi", config, version="v2"):
        pass


async def events_v3(model: ChatThinnest, config: Any) -> None:
    async with await model.astream_events("hi", config, version="v3") as stream:
        async for _ in stream.text:
            pass


def _graph(model: ChatThinnest) -> Any:
    from langgraph import graph

    async def node(state: Any, config: RunnableConfig) -> Any:
        return {"messages": [await model.ainvoke(state["messages"], config)]}

    builder = graph.StateGraph(graph.MessagesState)
    builder.add_node("ask", node)
    builder.add_edge(graph.START, "ask")
    return builder.compile()


def _agent(model: ChatThinnest) -> Any:
    from langchain_thinnest import create_thinnest_agent

    return create_thinnest_agent(model)


async def _in_a_task_of_its_own(call: Coroutine[Any, Any, Any]) -> None:
    """As the docs on web servers say: LangGraph leaves nodes running that a scope cancels."""
    task = asyncio.ensure_future(call)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        task.cancel()
        raise


async def _messages(graph: Any, config: Any) -> None:
    async for _ in graph.astream({"messages": "hi"}, config, stream_mode="messages"):
        pass


async def graph_ainvoke(model: ChatThinnest, config: Any) -> None:
    await _in_a_task_of_its_own(_graph(model).ainvoke({"messages": "hi"}, config))


async def graph_astream(model: ChatThinnest, config: Any) -> None:
    await _in_a_task_of_its_own(_messages(_graph(model), config))


async def agent_ainvoke(model: ChatThinnest, config: Any) -> None:
    await _in_a_task_of_its_own(_agent(model).ainvoke({"messages": "hi"}, config))


async def agent_astream(model: ChatThinnest, config: Any) -> None:
    await _in_a_task_of_its_own(_messages(_agent(model), config))


CALLS: list[Call] = [
    ainvoke,
    astream,
    events_v2,
    events_v3,
    graph_ainvoke,
    graph_astream,
    agent_ainvoke,
    agent_astream,
]


# --- how ---

Reached = Callable[[], Coroutine[Any, Any, None]]
Cancel = Callable[[Coroutine[Any, Any, None], Reached], Coroutine[Any, Any, None]]


def times(count: int) -> Cancel:
    async def cancel(call: Coroutine[Any, Any, None], reached: Reached) -> None:
        task = asyncio.ensure_future(call)
        await reached()
        for _ in range(count):
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([task])
        assert task.cancelled()

    return cancel


async def scope(call: Coroutine[Any, Any, None], reached: Reached) -> None:
    async def cancel() -> None:
        await reached()
        scope_.cancel()

    with anyio.CancelScope() as scope_:
        watcher = asyncio.ensure_future(cancel())
        await call
    assert scope_.cancelled_caught
    await watcher


async def group(call: Coroutine[Any, Any, None], reached: Reached) -> None:
    async def run() -> None:
        await call

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await reached()
        tasks.cancel_scope.cancel()


async def wait_for(call: Coroutine[Any, Any, None], reached: Reached) -> None:
    """The time runs out once the call has come as far as the server lets it."""
    task = asyncio.ensure_future(call)
    await reached()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(task, 0.01)


async def timeout(call: Coroutine[Any, Any, None], reached: Reached) -> None:
    """As `asyncio.wait_for` does from Python 3.12 on: in the caller's own task."""

    async def run_out() -> None:
        await reached()
        limit.reschedule(0)

    with pytest.raises(asyncio.TimeoutError):  # noqa: PT012
        async with asyncio.timeout(None) as limit:  # type: ignore[attr-defined]
            watcher = asyncio.ensure_future(run_out())
            await call
    await watcher


CANCELS: dict[str, Cancel] = {
    "once": times(1),
    "twice": times(2),
    "thrice": times(3),
    "scope": scope,
    "group": group,
    "wait_for": wait_for,
}
if sys.version_info >= (3, 11):
    CANCELS["timeout"] = timeout


# --- when ---


@dataclass
class Place:
    """Where the call is cancelled.

    Attributes:
        base_url: Of the server.
        closed: The client has closed its connection.
        is_reached: The call has come this far.
        tools: How many tool runs begin before.
    """

    base_url: str
    closed: threading.Event
    is_reached: Callable[[], bool]
    tools: int = 0


@contextlib.contextmanager
def connecting() -> Iterator[Place]:
    """TLS is never answered."""
    closed, accepted = threading.Event(), threading.Event()

    def accept() -> None:
        connection, _ = listener.accept()
        accepted.set()
        with connection, contextlib.suppress(OSError):
            connection.settimeout(10)
            while connection.recv(4096):
                pass
        closed.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        base_url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        yield Place(base_url, closed, accepted.is_set)


@contextlib.contextmanager
def _wire(steps: list[Step], tools: int) -> Iterator[Place]:
    closed = threading.Event()
    with WireServer() as server:
        server.answer([*steps, Watch(closed)])
        yield Place(server.base_url, closed, lambda: bool(server.requests), tools)


TWO_CALLS = as_sse(
    {"type": "tool_call", "name": "a", "args": {}},
    {"type": "tool_call", "name": "b", "args": {}},
)
IN_BODY = [head(200, {**HEADERS, "Transfer-Encoding": "chunked"}), chunk(TWO_CALLS)]
TEXT = [{"type": "text", "content": "a"}, {"type": "text", "content": "b"}]
MOMENTS: dict[str, Callable[[], contextlib.AbstractContextManager[Place]]] = {
    "connecting": connecting,
    "head": lambda: _wire([], 0),
    "body": lambda: _wire(list(IN_BODY), 2),
    "handler": lambda: _wire([*IN_BODY, chunk(as_sse(*TEXT))], 2),
}


def descriptors() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("is_given", [False, True], ids=["own", "given"])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
async def test_a_call_that_is_cancelled_leaves_nothing(
    call: Call, moment: str, is_given: bool
) -> None:
    """In all ways to cancel at once, four calls each, each on a connection of its own."""
    if call.__name__.startswith(("graph", "agent")):
        pytest.importorskip("langgraph.graph")
    before = descriptors()
    hows = [how for how in CANCELS for _ in range(4)]
    with contextlib.ExitStack() as stack:
        places = [stack.enter_context(MOMENTS[moment]()) for _ in hows]
        runs = [Runs() for _ in hows]
        client = GIVEN.AsyncClient() if is_given else None

        async def one(how: str, place: Place, run: Runs) -> None:
            model = ChatThinnest(
                agent_id="ag_1",
                api_key="ak_cancelled",
                base_url=place.base_url,
                http_async_client=client,
            )

            async def reached() -> None:
                give_up = time.monotonic() + 30.0
                while not (place.is_reached() and len(run.begun) == place.tools):
                    assert time.monotonic() < give_up
                    await asyncio.sleep(0.02)
                await asyncio.sleep(0.05)

            await CANCELS[how](call(model, {"callbacks": [run]}), reached)

        given = list(zip(hows, places, runs, strict=True))
        await asyncio.gather(*(one(*each) for each in given))
        for how, place, run in given:
            assert await asyncio.to_thread(place.closed.wait, 1.0), how
            assert await asyncio.to_thread(until, lambda run=run: run.begun == run.ended), how
            assert len(run.begun) == place.tools, how
            assert run.begun == run.ended == Counter(set(run.begun)), how
        if client is not None:
            await client.aclose()
    # The servers' threads close their own in their time.
    assert await asyncio.to_thread(until, lambda: descriptors() <= before)
