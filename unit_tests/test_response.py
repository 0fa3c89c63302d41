"""An opened stream, by itself; and what is known of the connection below it."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from langchain_thinnest import ThinnestInterruptedError, ThinnestRequestError
from langchain_thinnest._http.client import Endpoint, open_stream
from langchain_thinnest._http.http11 import HttpcoreConnection, Socket, connection_of
from langchain_thinnest._http.retries import RetryPolicy
from unit_tests.answers import HEADERS, chunk, refusal, stream
from unit_tests.conftest import KEY, Make
from unit_tests.contract import EVENTS, as_sse
from unit_tests.network import Network, Side, Wait, Wire
from unit_tests.test_failures import client_of
from unit_tests.test_refusals import fails

WHOLE = stream(as_sse(*EVENTS))
POLICY = RetryPolicy(max_retries=0, max_wait=0.0)


def endpoint(network: Network, **fields: Any) -> Endpoint:
    given = {"timeout": httpx.Timeout(60.0), **fields}
    return Endpoint(base_url=network.base_url, api_key=SecretStr(KEY), **given)


def test_an_opened_stream_tells_what_its_head_said(network: Network, side: Side) -> None:
    headers = {"X-Request-ID": "req_7", "X-RateLimit-Remaining": "3"}
    network.answer(stream(b"a", b"b", headers=headers))
    response = side.open(endpoint(network), POLICY)
    assert response.request_id == "req_7"
    assert response.rate_limit == {"remaining": 3}
    assert not response.is_json
    first, second, end = side.rest(response)
    assert (first, second) == (b"a", b"b")
    assert type(end) is ThinnestInterruptedError  # for the case that it is not whole by then
    assert side.rest(response) == []  # and that is all
    for _ in range(2):
        side.either(response.close, response.aclose)
    assert network.open_wires == 1


def test_json_is_told_by_its_content_type(network: Network, side: Side) -> None:
    network.answer(refusal(200, {"response": "So."}))
    response = side.open(endpoint(network), POLICY)
    assert response.is_json
    side.either(response.close, response.aclose)


def test_time_is_counted_while_the_server_is_waited_for(network: Network, side: Side) -> None:
    network.answer([WHOLE[0], Wait(2.0), chunk(b"a"), Wait(3.0), chunk(b"b"), Wait()])
    response = side.open(endpoint(network, stall_timeout=4.0), POLICY)
    *_, reason = side.rest(response)
    assert "`stall_timeout`" in str(reason)
    assert response.waited == 0.0
    side.either(response.close, response.aclose)
    assert network.open_wires == 0


def test_a_forked_child_leaves_the_client_of_its_parent_alone(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its locks may be held by threads that the child does not have."""
    network.answer([WHOLE[0], chunk(b"a"), Wait()])
    with httpx.Client(verify=False) as client:
        response = open_stream(endpoint(network, client=client), b"{}", POLICY)
        assert next(response) == b"a"
        with monkeypatch.context() as child:
            child.setattr(os, "getpid", lambda: -1)
            response.close()
            assert network.open_wires == 1


# --- over a transport of which nothing is known ---


@pytest.mark.parametrize(
    ("body", "detail"), [(b'{"detail": "why"}', "why"), (b"x" * 100_000, "x" * 500)]
)
def test_a_refusal_of_a_mock(side: Side, make: Make, body: bytes, detail: str) -> None:
    error = fails(side, make(**client_of(side, lambda _: httpx.Response(400, content=body))))
    assert type(error) is ThinnestRequestError
    assert error.detail == detail


def test_a_stream_of_a_mock_is_closed(
    network: Network, side: Side, make: Make, collect: Callable[[], int]
) -> None:
    closed: list[bool] = []

    class Stream(httpx.SyncByteStream, httpx.AsyncByteStream):
        def __iter__(self) -> Any:
            yield as_sse(EVENTS[0])
            raise AssertionError("nobody reads on")

        async def __aiter__(self) -> Any:
            for data in self:
                yield data

        def close(self) -> None:
            closed.append(True)

        async def aclose(self) -> None:
            closed.append(True)

    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers=HEADERS, stream=Stream())

    model = make(**client_of(side, handler))
    chunks = side.stream(model, "hi")
    assert next(chunks).text == EVENTS[0]["content"]
    del chunks
    collect()
    other = side.stream(model, "the next call tells the client")
    next(other)
    if side.is_async:
        side.run(asyncio.sleep(0.1))
    assert closed == [True]
    other.close()


# --- the layers in which bytes may wait ---


def connection(network: Network, **layers: Any) -> Any:
    """An HTTP/1.1 connection, over what httpcore may have between it and its socket."""
    wire = Wire(network, "thinnest.example")
    network.wires.append(wire)
    given = {"socket": wire.socket, "ssl_object": layers.pop("ssl_object", None)}
    stream = SimpleNamespace(get_extra_info=given.get, **layers)
    return SimpleNamespace(_network_stream=stream)


def bio(data: bytes) -> ssl.MemoryBIO:
    bio = ssl.MemoryBIO()
    bio.write(data)
    return bio


def asyncio_stream(
    *queue: bytes, is_at_eof: bool = False, is_read: bool = False
) -> SimpleNamespace:
    return SimpleNamespace(
        _protocol=SimpleNamespace(read_queue=deque(queue), is_at_eof=is_at_eof),
        _receive_guard=SimpleNamespace(_guarded=is_read),
    )


@pytest.mark.parametrize(
    ("layers", "is_quiet"),
    [
        ({}, True),
        ({"ssl_object": SimpleNamespace(pending=lambda: 0)}, True),
        ({"ssl_object": SimpleNamespace(pending=lambda: 1)}, False),
        ({"_incoming": bio(b"")}, True),
        ({"_incoming": bio(b"x")}, False),
        ({"_stream": asyncio_stream()}, True),
        ({"_stream": asyncio_stream(b"x")}, False),
        ({"_stream": asyncio_stream(is_at_eof=True)}, False),
        ({"_stream": asyncio_stream(is_read=True)}, False),
        ({"_stream": SimpleNamespace(_read_bio=bio(b"x"))}, False),
        (
            {
                "_stream": SimpleNamespace(
                    _read_bio=bio(b""), transport_stream=asyncio_stream(b"x")
                )
            },
            False,
        ),
    ],
)
def test_a_connection_is_quiet_if_no_layer_holds_bytes(
    network: Network, layers: Any, is_quiet: bool
) -> None:
    socket = Socket(connection(network, **layers))
    assert socket.is_quiet() is is_quiet
    network.wires[0].socket.set(is_readable=True)
    assert not socket.is_quiet()


@pytest.mark.parametrize("state", ["closed", "unknown"])
def test_a_socket_that_cannot_be_looked_at(network: Network, state: str) -> None:
    below = connection(network)
    if state == "closed":
        network.close()
    else:
        below._network_stream = SimpleNamespace()
    assert HttpcoreConnection(below).socket() is None


def test_what_is_no_connection_of_httpcore() -> None:
    assert connection_of(object()) is None
    ring = SimpleNamespace()
    ring._stream = ring
    assert connection_of(ring) is None
