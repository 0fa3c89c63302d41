"""Many streams at once: what they cost, and what they leave."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpcore
import httpx
import pytest

from integration_tests.conftest import Make
from integration_tests.test_lifetime import BEGIN, WHOLE, until
from integration_tests.test_shape import calls, total
from integration_tests.transports import TRANSPORT
from integration_tests.wire import END, Close, Wait, WireServer, chunk
from langchain_thinnest import ThinnestConnectionError
from unit_tests.contract import EVENTS, TEXT, as_sse

HTTPCORE = str(Path(httpcore.__file__).parent)


def burst(model: Any, size: int) -> list[str]:
    """Ask so often at once, in threads."""
    with ThreadPoolExecutor(size) as pool:
        return [answer.text for answer in pool.map(model.invoke, ["hi"] * size)]


async def aburst(model: Any, size: int) -> list[str]:
    """The same in the event loop."""
    answers = await asyncio.gather(*(model.ainvoke("hi") for _ in range(size)))
    return [answer.text for answer in answers]


@pytest.fixture
def held(wired: Make, wire: WireServer) -> threading.Event:
    """Answers stay half-sent until the event is set; an earlier one was whole."""
    go_on = threading.Event()
    half = [*BEGIN, Wait(go_on), chunk(as_sse(*EVENTS[1:])), END]
    wire.answer(WHOLE, *[half] * 70, WHOLE)
    assert wired().invoke("hi").text == TEXT  # few go out before the first answer
    return go_on


def test_many_threads_at_once_leave_few_connections(
    wired: Make, wire: WireServer, held: threading.Event
) -> None:
    model = wired()
    with ThreadPoolExecutor(1) as aside:
        texts = aside.submit(burst, model, 70)
        assert until(lambda: len(wire.requests) == 71)
        assert wire.open_connections == 70
        held.set()
        assert texts.result() == [TEXT] * 70
    assert until(lambda: wire.open_connections <= 20), wire.open_connections
    connections = wire.connections
    assert [model.invoke("hi").text for _ in range(30)] == [TEXT] * 30
    assert wire.connections == connections


async def test_many_tasks_at_once_leave_few_connections(
    wired: Make, wire: WireServer, held: threading.Event
) -> None:
    model = wired()
    texts = asyncio.ensure_future(aburst(model, 70))
    assert await asyncio.to_thread(until, lambda: len(wire.requests) == 71)
    held.set()
    assert await texts == [TEXT] * 70
    # The sync call of the fixture has its own.
    assert await asyncio.to_thread(until, lambda: wire.open_connections <= 21)
    connections = wire.connections
    assert [(await model.ainvoke("hi")).text for _ in range(30)] == [TEXT] * 30
    assert wire.connections == connections


@pytest.mark.skipif(TRANSPORT != "httpx", reason="it counts calls in httpcore")
async def test_a_stream_costs_no_more_where_many_are_open(
    wired: Make, wire: WireServer
) -> None:
    """Not even in a second burst, which finds idle connections."""
    model = wired()

    def cost(size: int) -> int:
        async def bursts() -> None:
            for _ in range(2):
                assert await aburst(model, size) == [TEXT] * size

        return total(calls(lambda: asyncio.run(bursts())), HTTPCORE)

    wire.answer(WHOLE)
    few, many = await asyncio.to_thread(cost, 40), await asyncio.to_thread(cost, 160)
    assert many / 160 < 1.5 * few / 40


def clients(kind: type) -> int:
    gc.collect()
    return sum(type(thing) is kind for thing in gc.get_objects())


def test_calls_that_fail_give_their_client_back(wired: Make, wire: WireServer) -> None:
    wire.answer([Close()])
    model = wired()
    before = clients(httpx.Client)
    for _ in range(45):
        with pytest.raises(ThinnestConnectionError, match="hung up"):
            model.invoke("hi")
    assert clients(httpx.Client) <= before + 1


async def test_calls_that_fail_give_their_client_back_in_a_loop(
    wired: Make, wire: WireServer
) -> None:
    wire.answer([Close()])
    model = wired()
    before = clients(httpx.AsyncClient)
    for _ in range(45):
        with pytest.raises(ThinnestConnectionError, match="hung up"):
            await model.ainvoke("hi")
    assert clients(httpx.AsyncClient) <= before + 1


def test_a_client_that_cannot_be_made_holds_no_place_in_the_line(
    wired: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "gopher://127.0.0.1:1")
    model = wired(base_url="https://thinnest.invalid")

    def ask(_: int) -> str:
        with pytest.raises(ValueError, match="proxy") as caught:
            model.invoke("hi")
        return str(caught.value)

    with ThreadPoolExecutor(12) as pool:
        assert all("gopher" in said for said in pool.map(ask, range(24), timeout=10))


async def test_nor_does_one_that_cannot_be_made_in_a_loop(
    wired: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "gopher://127.0.0.1:1")
    model = wired(base_url="https://thinnest.invalid")
    asked = (model.ainvoke("hi") for _ in range(24))
    said = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 10)
    assert all("gopher" in str(error) for error in said)
