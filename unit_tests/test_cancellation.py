"""Whoever is cancelled, whenever and how often, leaves no connection and no place taken."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import anyio
import httpx
import pytest

from langchain_thinnest import ChatThinnest
from langchain_thinnest._http.closing import finish
from unit_tests.answers import END, HEADERS, chunk, head, refusal, stream
from unit_tests.conftest import Make
from unit_tests.contract import EVENTS, TEXT, as_sse
from unit_tests.network import Clock, Hangs, Network, Side, Step, Wait

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def run(clock: Clock) -> Iterator[Run]:
    """Awaits something, in virtual time."""
    side = Side(clock, is_async=True)
    yield side.run
    side.close_loop()


# --- awaiting what must come to its end ---


async def cancelled(task: asyncio.Future[Any], times: int) -> None:
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)


@pytest.mark.parametrize("times", [0, 1, 2, 3])
def test_what_must_end_does_whoever_is_cancelled(run: Run, clock: Clock, times: int) -> None:
    ended: list[float] = []

    async def close() -> None:
        await asyncio.sleep(1.0)
        ended.append(clock.now)

    async def main() -> None:
        task = asyncio.ensure_future(finish(close))
        await asyncio.sleep(0.5)
        await cancelled(task, times)
        await asyncio.wait([task])
        assert task.cancelled() is bool(times)
        if sys.version_info >= (3, 11) and isinstance(task, asyncio.Task):
            assert task.cancelling() == times  # what scopes go by stays as others made it

    began = clock.now
    run(main())
    assert ended == [pytest.approx(began + 1.0)]


def test_a_scope_that_cancels_again_and_again_waits_for_it(run: Run) -> None:
    ended: list[bool] = []

    async def close() -> None:
        await asyncio.sleep(1.0)
        ended.append(True)

    async def main() -> None:
        with anyio.move_on_after(0.5) as scope:
            await finish(close)
            assert ended
            await asyncio.sleep(0)
        assert scope.cancelled_caught

    run(main())
    assert ended == [True]


def test_what_takes_too_long_goes_on_by_itself(run: Run, clock: Clock) -> None:
    ended: list[bool] = []

    async def close() -> None:
        await asyncio.sleep(10.0)
        ended.append(True)

    async def main() -> None:
        began = clock.now
        await finish(close)
        assert clock.now - began == pytest.approx(2.0)
        assert not ended
        await asyncio.sleep(8.1)
        assert ended

    run(main())


@pytest.mark.parametrize(("times", "is_done"), [(1, True), (2, True), (3, False)])
def test_what_is_cancelled_itself_is_begun_again(run: Run, times: int, is_done: bool) -> None:
    """As by `asyncio.run`, which cancels all tasks; but not for ever."""
    begun: list[int] = []

    async def close() -> None:
        begun.append(1)
        if len(begun) <= times:
            raise asyncio.CancelledError

    async def main() -> None:
        await finish(close)

    run(main())
    assert len(begun) == min(times + 1, 3)
    assert (len(begun) > times) is is_done


def test_an_error_of_what_must_end_is_raised(run: Run) -> None:
    async def close() -> None:
        raise OSError("broken")

    async def main() -> None:
        with pytest.raises(OSError, match="broken"):
            await finish(close)

    run(main())


# --- calls ---

WHOLE = stream(as_sse(*EVENTS))
BEGIN = [head(200, {**HEADERS, "Transfer-Encoding": "chunked"}), chunk(as_sse(EVENTS[0]))]
PLACES: dict[str, list[Step]] = {
    "connect": [Hangs("connect")],
    "tls": [Hangs("tls")],
    "request": [Hangs("write")],
    "head": [Wait()],
    "body": [*BEGIN, Wait()],
    "end": [*WHOLE[:-1], Wait(0.3), END],
    "refusal": [head(400, {"Content-Length": "9"}), Wait()],
    "wait": refusal(429, {}, {"Retry-After": "30"}),
}


async def ainvoke(model: ChatThinnest) -> None:
    await model.ainvoke("hi")


async def astream(model: ChatThinnest) -> None:
    async for _ in model.astream("hi"):
        pass


async def events_v3(model: ChatThinnest) -> None:
    async with await model.astream_events("hi", version="v3") as events:
        async for _ in events:
            pass


@pytest.mark.parametrize("is_given", [False, True], ids=["own", "given"])
@pytest.mark.parametrize(
    ("call", "place"),
    [*((ainvoke, place) for place in PLACES), (astream, "body"), (events_v3, "body")],
)
def test_a_call_that_is_cancelled_at_any_step_leaves_nothing(
    network: Network,
    make: Make,
    run: Run,
    call: Callable[[ChatThinnest], Coroutine[Any, Any, None]],
    place: str,
    is_given: bool,
) -> None:
    """Once and twice, after each step of the loop up to where it waits for the server."""

    async def cancel(steps: int, times: int) -> None:
        network.answer(PLACES[place], WHOLE)
        network.close()
        base_url = network.new_url().replace("http:", "https:")
        client = httpx.AsyncClient(verify=False) if is_given else None
        model = make(base_url=base_url, http_async_client=client, max_streams=1)
        task = asyncio.ensure_future(call(model))
        for _ in range(steps):
            await asyncio.sleep(0)
        await cancelled(task, times)
        await asyncio.wait([task])
        await asyncio.sleep(0.001)  # the framework's own task of v3 ends a little later
        assert task.cancelled() or place == "end"
        # A connection that has read a whole refusal is clean, and waits for the next try.
        may_be_open = place == "wait" or not task.cancelled()
        assert network.open_wires <= may_be_open, (steps, times)
        network.answer(WHOLE)
        began = network.clock.now
        assert (await model.ainvoke("after")).text == TEXT
        assert network.clock.now - began < (31 if place == "wait" else 0.01), (steps, times)
        if client is not None:
            await client.aclose()

    async def main() -> None:
        for steps in [*range(20), 40]:
            for times in (1, 2):
                await cancel(steps, times)

    run(main())
