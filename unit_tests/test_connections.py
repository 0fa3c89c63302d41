"""Connections: each carries one answer at a time, and another one only if it is clean."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import httpcore
import httpx
import pytest

from langchain_thinnest._http.transport import AsyncPool, Pool
from unit_tests import fast_network
from unit_tests.answers import END, HEADERS, chunk, head, stream
from unit_tests.conftest import Make
from unit_tests.contract import EVENTS, TEXT, as_sse
from unit_tests.network import CLOSE, Clock, Network, Side, Step, Wait, loop_of

WHOLE = stream(as_sse(*EVENTS))
BEGIN: list[Step] = [WHOLE[0], chunk(as_sse(EVENTS[0]))]
UNENDED = WHOLE[:-1]


@pytest.fixture(params=["own", "given", "fast"])
def client(
    request: pytest.FixtureRequest,
    side: Side,
    network: Network,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """The fields of a model: of the package's own clients, or the caller's."""
    if request.param == "own":
        yield {}
    elif request.param == "fast":
        fast_network.install(network, monkeypatch)
        yield {"transport": "fast"}
    elif side.is_async:
        aclient = httpx.AsyncClient(verify=False)
        yield {"http_async_client": aclient}
        side.run(aclient.aclose())
    else:
        with httpx.Client(verify=False) as given:
            yield {"http_client": given}


def plain(body: bytes, **headers: str) -> list[Step]:
    fields = {**HEADERS, "Content-Length": str(len(body)), **headers}
    return [head(200, fields) + body]


# --- what becomes of a connection ---


@pytest.mark.parametrize(
    ("answer", "is_used_again"),
    [
        pytest.param(WHOLE, True, id="whole"),
        pytest.param([b"".join(WHOLE)], True, id="whole-in-one-read"),
        pytest.param([bytes([b]) for b in b"".join(WHOLE)], True, id="byte-by-byte"),
        pytest.param(plain(as_sse(*EVENTS)), True, id="of-known-length"),
        pytest.param(
            plain(gzip.compress(as_sse(*EVENTS)), **{"Content-Encoding": "gzip"}),
            True,
            id="zipped",
        ),
        pytest.param([*UNENDED, Wait(0.4), END], True, id="ends-soon-after-done"),
        pytest.param([*UNENDED, Wait(0.6), END], False, id="ends-too-late-after-done"),
        pytest.param(UNENDED, False, id="never-ends"),
        pytest.param([*UNENDED, CLOSE], False, id="cut-after-done"),
        pytest.param([*UNENDED, b"zz\r\n"], False, id="no-HTTP-after-done"),
        pytest.param([*UNENDED, httpcore.ReadError("gone")], False, id="fails-after-done"),
        pytest.param([*UNENDED, END + b"x"], False, id="bytes-behind-in-one-read"),
        pytest.param([*WHOLE, b"HTTP/1.1 200"], False, id="bytes-behind-later"),
        pytest.param([*WHOLE, CLOSE], False, id="closed-behind-it"),
        pytest.param(
            stream(as_sse(*EVENTS), headers={"Connection": "close"}), False, id="last"
        ),
        pytest.param([head(version="1.0") + as_sse(*EVENTS), CLOSE], False, id="http-1.0"),
    ],
)
def test_a_connection_is_used_again_only_if_it_is_clean(
    network: Network,
    side: Side,
    make: Make,
    client: Any,
    answer: list[Step],
    is_used_again: bool,
) -> None:
    network.answer(answer, WHOLE)
    model = make(**client)
    assert side.invoke(model, "hi").text == TEXT
    assert network.open_wires == is_used_again
    assert side.invoke(model, "hi").text == TEXT
    assert len(network.wires) == (1 if is_used_again else 2)
    assert network.open_wires == 1


@pytest.mark.parametrize(
    ("then", "idle", "is_used_again"),
    [
        pytest.param([], 3.9, True, id="fresh"),
        pytest.param([], 4.1, False, id="old"),
        pytest.param([Wait(1.0), CLOSE], 2.0, False, id="closed-meanwhile"),
        pytest.param([Wait(1.0), b"408"], 2.0, False, id="bytes-meanwhile"),
    ],
)
def test_an_idle_connection_is_used_if_it_is_as_it_was(
    network: Network, side: Side, make: Make, then: Any, idle: float, is_used_again: bool
) -> None:
    network.answer([*WHOLE, *then], WHOLE)
    model = make()
    side.invoke(model, "hi")
    network.clock.pass_(idle)
    assert side.invoke(model, "hi").text == TEXT
    assert len(network.wires) == (1 if is_used_again else 2)
    assert network.open_wires == 1


def test_few_connections_stay_idle_and_none_for_long(
    network: Network, side: Side, make: Make
) -> None:
    network.answer(WHOLE, BEGIN)
    model = make()
    side.invoke(model, "hi")  # few go out before the first answer
    network.answer([*BEGIN, Wait(1.0), chunk(as_sse(*EVENTS[1:])), END])
    streams = [side.stream(model, "hi") for _ in range(7)]
    for chunks in streams:
        next(chunks)
    assert network.open_wires == 7
    for chunks in streams:
        list(chunks)
    assert network.open_wires == 7
    network.clock.pass_(5.0)
    network.answer(WHOLE)
    side.invoke(model, "hi")
    assert network.open_wires == 1


def test_at_most_twenty_stay_idle(network: Network, side: Side) -> None:
    network.answer(WHOLE)
    pool: Any = Pool(partial(httpx.HTTPTransport, verify=False))
    client: Any = httpx.Client(transport=pool)
    if side.is_async:
        pool = AsyncPool(partial(httpx.AsyncHTTPTransport, verify=False))
        client = httpx.AsyncClient(transport=pool)

    async def aburst() -> None:
        opened = [
            await client.send(client.build_request("POST", network.base_url), stream=True)
            for _ in range(25)
        ]
        for response in opened:
            await response.aread()
            await response.aclose()

    def burst() -> None:
        opened = [
            client.send(client.build_request("POST", network.base_url), stream=True)
            for _ in range(25)
        ]
        for response in opened:
            response.read()
            response.close()

    side.either(burst, aburst)
    assert len(network.wires) == 25
    assert network.open_wires == 20
    side.either(*(getattr(pool, name, None) for name in ("close", "aclose")))
    assert network.open_wires == 0


# --- who goes away ---


def test_who_stops_reading_closes_the_connection_at_once(
    network: Network, side: Side, make: Make, client: Any
) -> None:
    network.answer([*BEGIN, Wait()])
    chunks = side.stream(make(**client), "hi")
    assert next(chunks).text == EVENTS[0]["content"]
    chunks.close()
    assert network.open_wires == 0


def test_a_stream_that_is_dropped_closes_its_connection(
    network: Network, side: Side, make: Make, client: Any, collect: Callable[[], int]
) -> None:
    network.answer([*BEGIN, Wait()], WHOLE)
    model = make(**client)
    chunks = side.stream(model, "hi")
    next(chunks)
    del chunks
    collect()
    assert side.invoke(model, "hi").text == TEXT
    assert [wire.is_closed for wire in network.wires] == [True, False]


def test_a_forked_child_leaves_its_parents_connections_alone(
    network: Network, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It closes its copies of the sockets, and makes connections of its own."""
    network.answer([*BEGIN, Wait()], WHOLE)
    model = make()
    chunks = model.stream("open in the parent")
    next(chunks)
    model.invoke("idle in the parent")
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert model.invoke("in the child").text == TEXT
    chunks.close()
    assert [wire.is_closed for wire in network.wires] == [True, True, False]


# What Python itself says of such a loop, from 3.12 on.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("is_idle", [True, False])
def test_a_loop_that_is_closed_barely_leaves_no_connection(
    network: Network,
    clock: Clock,
    make: Make,
    is_idle: bool,
    collect: Callable[[], int],
) -> None:
    """Without the end of its generators, which `asyncio.run` sees to."""
    network.answer(WHOLE if is_idle else [*BEGIN, Wait()])
    loop = loop_of(clock)

    async def main() -> None:
        async for _ in make().astream("hi"):
            if not is_idle:
                break

    loop.run_until_complete(main())
    assert network.open_wires == 1
    loop.close()
    del loop
    collect()
    assert network.open_wires == 0


# --- what is made once ---


def test_cookies_do_not_travel_between_keys(network: Network, side: Side, make: Make) -> None:
    network.answer(stream(as_sse(*EVENTS), headers={"Set-Cookie": "a=1; Path=/"}))
    for key in ("ak_1", "ak_2"):
        side.invoke(make(api_key=key), "hi")
    assert not any("cookie" in request.headers for request in network.requests)
    assert [r.headers["authorization"] for r in network.requests] == [
        "Bearer ak_1",
        "Bearer ak_2",
    ]
