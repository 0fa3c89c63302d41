"""How models live, in loops, threads, forks and other processes, and what they leave."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cloudpickle
import httpx
import pytest
from langchain_core.rate_limiters import InMemoryRateLimiter

from integration_tests.conftest import Make
from integration_tests.processes import SECONDS, ask_pickled
from integration_tests.transports import GIVEN
from integration_tests.wire import END, HEADERS, Wait, Watch, WireServer, chunk, head, stream
from unit_tests.contract import EVENTS, TEXT, as_sse

WHOLE = stream(as_sse(*EVENTS))
BEGIN = [head(200, {**HEADERS, "Transfer-Encoding": "chunked"}), chunk(as_sse(EVENTS[0]))]


def ends_well(process: Any) -> None:
    out, err = process.communicate(timeout=SECONDS + 10)
    assert (process.returncode, out, err) == (0, "", "")


def until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    give_up = time.monotonic() + seconds
    while not condition() and time.monotonic() < give_up:
        time.sleep(0.01)
    return condition()


# --- loops, threads, processes ---


def test_one_model_serves_event_loop_after_event_loop(wired: Make, wire: WireServer) -> None:
    wire.answer(WHOLE)
    model = wired()

    async def run() -> None:
        assert (await model.ainvoke("hi")).text == TEXT
        async for _ in model.astream("hi"):
            break
        assert await asyncio.gather(*(model.ainvoke("hi") for _ in range(3)))

    for _ in range(30):
        asyncio.run(run())
    assert len(wire.requests) == 150


def test_one_model_serves_an_event_loop_in_each_of_many_threads(make: Make) -> None:
    model = make("ag_echo")

    async def run(name: int) -> list[str]:
        asked = (model.ainvoke(f"{name}.{number}") for number in range(10))
        return [answer.text for answer in await asyncio.gather(*asked)]

    with ThreadPoolExecutor(8) as pool:
        for name, texts in enumerate(pool.map(lambda name: asyncio.run(run(name)), range(8))):
            assert texts == [f"0: {name}.{number}" for number in range(10)]


def test_one_model_serves_many_threads(make: Make) -> None:
    model = make("ag_echo")

    def run(name: int) -> list[str]:
        texts = [model.invoke(f"{name}.{number}").text for number in range(10)]
        texts += ["".join(c.text for c in model.stream(f"{name}.{n}")) for n in range(10)]
        return texts

    with ThreadPoolExecutor(16) as pool:
        for name, texts in enumerate(pool.map(run, range(16))):
            assert texts == [f"0: {name}.{number}" for number in range(10)] * 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_parent_and_child_of_a_fork_both_work(wire: WireServer, in_a_process: Any) -> None:
    go_on = threading.Event()
    rest = [chunk(as_sse(*EVENTS[1:])), END]
    wire.answer([*BEGIN, Wait(go_on), *rest], *[WHOLE] * 10)
    process = in_a_process("forks", wire.base_url)
    assert until(lambda: len(wire.requests) == 6 or process.poll() is not None, 30)
    go_on.set()
    ends_well(process)
    asked = [request.json["message"] for request in wire.requests]
    child = ["the child", "the child, async", "the child again"]
    assert asked == ["half", "the parent", *child, "the parent again"]
    # The child made its own two; the parent's idle one still served the parent.
    assert wire.connections == 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_gives_up_on_a_body_that_does_not_end(
    wire: WireServer, in_a_process: Any
) -> None:
    wire.answer(WHOLE, [*WHOLE[:-1], Wait(20.0)])
    begin = time.monotonic()
    ends_well(in_a_process("forks_while_streams_are_watched", wire.base_url))
    assert time.monotonic() - begin < 15


def test_a_pickled_model_works_in_another_process(make: Make) -> None:
    model = make("ag_echo", default_headers={"X-Team": "blue"}, timeout=httpx.Timeout(5.0))
    model.invoke("its own connections stay here")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        for dumps in (pickle.dumps, cloudpickle.dumps):
            process, *texts = pool.submit(ask_pickled, dumps(model), "hi").result(60)
            assert process != os.getpid()
            assert texts == ["0: hi", "0: hi"]


# --- pickles and copies of what cannot leave the process ---


@pytest.fixture(params=["http_client", "http_async_client", "rate_limiter"])
def bound(request: pytest.FixtureRequest) -> Any:
    """A field that holds what cannot leave the process, and its value."""
    if request.param == "rate_limiter":
        yield request.param, InMemoryRateLimiter(requests_per_second=1000)
    elif request.param == "http_client":
        with GIVEN.Client() as client:
            yield request.param, client
    else:
        client = GIVEN.AsyncClient()
        yield request.param, client
        asyncio.run(client.aclose())


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
def test_a_model_with_what_cannot_leave_the_process_refuses_to_be_pickled(
    make: Make, dumps: Any, bound: Any
) -> None:
    name, value = bound
    model = make(**{name: value})
    with pytest.raises(TypeError, match=rf"with {name} cannot be pickled.*model_copy"):
        dumps(model)
    without = pickle.loads(dumps(model.model_copy(update={name: None})))
    assert without == make()
    assert getattr(without.model_copy(update={name: value}), name) is value


def test_copies_share_what_cannot_leave_the_process(make: Make, bound: Any) -> None:
    name, value = bound
    model = make(**{name: value}, request_metadata={"page": ["/"]})
    shallow = (copy.copy(model), model.model_copy(), model.model_copy(update={"stop": ["x"]}))
    deep = (copy.deepcopy(model), model.model_copy(deep=True), copy.deepcopy([model])[0])
    for other in (*shallow, *deep):
        assert getattr(other, name) is value
    for other in deep:
        assert other == model
        assert other.request_metadata["page"] is not model.request_metadata["page"]


# --- going away ---


def _break(model: Any) -> None:
    for _ in model.stream("hi"):
        break


def _close(model: Any) -> None:
    chunks = model.stream("hi")
    next(chunks)
    chunks.close()


def _drop_v3(model: Any) -> None:
    next(iter(model.stream_events("hi", version="v3")))
    gc.collect()


async def _abreak(model: Any) -> None:
    async for _ in model.astream("hi"):
        break


async def _aclose(model: Any) -> None:
    chunks = model.astream("hi")
    await anext(chunks)
    await chunks.aclose()


async def _cancel(call: Any) -> None:
    task = asyncio.ensure_future(call)
    await asyncio.sleep(0.3)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def _cancel_ainvoke(model: Any) -> None:
    await _cancel(model.ainvoke("hi"))


async def _cancel_astream(model: Any) -> None:
    async def consume() -> None:
        async for _ in model.astream("hi"):
            pass

    await _cancel(consume())


async def _cancel_abatch(model: Any) -> None:
    await _cancel(model.abatch(["hi"]))


async def _time_out(model: Any) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(model.ainvoke("hi"), 0.3)


@pytest.mark.alone
@pytest.mark.parametrize("leave", [_break, _close, _drop_v3])
def test_who_goes_away_closes_the_connection_at_once(
    wired: Make, wire: WireServer, leave: Callable[[Any], None]
) -> None:
    closed = threading.Event()
    wire.answer([*BEGIN, Watch(closed)])
    leave(wired())
    assert closed.wait(0.5)


@pytest.mark.alone
@pytest.mark.parametrize(
    "leave", [_abreak, _aclose, _cancel_ainvoke, _cancel_astream, _cancel_abatch, _time_out]
)
async def test_who_goes_away_in_a_loop_closes_the_connection_at_once(
    wired: Make, wire: WireServer, leave: Callable[[Any], Any]
) -> None:
    closed = threading.Event()
    wire.answer([*BEGIN, Watch(closed)])
    await leave(wired())
    assert await asyncio.to_thread(closed.wait, 0.5)


# --- connections, and what is left behind ---


def test_twenty_calls_in_a_row_take_one_connection(wired: Make, wire: WireServer) -> None:
    wire.answer(WHOLE)
    model = wired()
    for _ in range(20):
        model.invoke("hi")
        list(model.stream("hi"))
        assert model.stream_events("hi", version="v3").output.text == TEXT
    assert wire.connections == 1


async def test_twenty_calls_in_a_loop_take_one_connection(
    wired: Make, wire: WireServer
) -> None:
    wire.answer(WHOLE)
    model = wired()
    for _ in range(20):
        await model.ainvoke("hi")
        _ = [piece async for piece in model.astream("hi")]
        assert (await (await model.astream_events("hi", version="v3")).output).text == TEXT
    assert wire.connections == 1


def test_no_thread_of_ours_gives_up_on_bodies_that_do_not_end(
    wired: Make, wire: WireServer
) -> None:
    closed = threading.Event()
    wire.answer([*WHOLE[:-1], Watch(closed)])
    model = wired()
    begin = time.monotonic()
    before = threading.active_count()
    with ThreadPoolExecutor(30) as pool:
        answers = [pool.submit(model.invoke, "hi") for _ in range(30)]
        assert until(lambda: len(wire.requests) == 30)
        names = {thread.name for thread in threading.enumerate()}
        assert not any("thinnest" in name for name in names), names
    assert [answer.result().text for answer in answers] == [TEXT] * 30
    assert time.monotonic() - begin < 5
    assert until(lambda: wire.open_connections == 0)
    assert until(lambda: threading.active_count() <= before)


def test_refusals_do_not_cost_the_connection(wired: Make, wire: WireServer) -> None:
    from integration_tests.wire import refusal
    from langchain_thinnest import ThinnestNotFoundError

    wire.answer(refusal(404, {"detail": "no"}))
    for _ in range(10):
        with pytest.raises(ThinnestNotFoundError):
            wired().invoke("hi")
    assert wire.connections == 1


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="there is no /proc")
async def test_two_thousand_calls_leave_no_socket_and_no_task(
    wired: Make, wire: WireServer
) -> None:
    wire.answer(WHOLE)
    model = wired()

    def sync_calls(count: int) -> None:
        for _ in range(count):
            model.invoke("hi")
            _break(model)

    async def calls(count: int) -> None:
        for _ in range(count // 4):
            await model.ainvoke("hi")
            await _aclose(model)
        await asyncio.to_thread(sync_calls, count // 4)

    def sockets() -> int:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    await calls(40)
    await asyncio.sleep(0.3)
    tasks, before = asyncio.all_tasks(), sockets()
    await calls(2000)
    assert len(wire.requests) == 2040
    assert asyncio.all_tasks() == tasks
    assert until(lambda: sockets() <= before), f"{before} before, {sockets()} after"


def test_nothing_is_left_open_at_the_exit(wire: WireServer, in_a_process: Any) -> None:
    wire.answer(WHOLE)
    ends_well(in_a_process("makes_calls_and_exits", wire.base_url, is_cold=True))


def test_streams_that_the_garbage_collector_finds_anywhere_do_no_harm(
    wire: WireServer, in_a_process: Any
) -> None:
    wire.answer(WHOLE)
    ends_well(in_a_process("collects_streams_anywhere", wire.base_url))


def test_a_thousand_turns_more_keep_no_objects_more(
    wire: WireServer, in_a_process: Any
) -> None:
    wire.answer(WHOLE)
    ends_well(in_a_process("keeps_no_objects", wire.base_url))
