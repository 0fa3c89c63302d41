"""A caller's own client may speak HTTP/2, where streams share a connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
from h2.errors import ErrorCodes

from integration_tests.http2 import Failure, Http2Server, goes_away, reset
from integration_tests.transports import GIVEN
from langchain_thinnest import ChatThinnest, ThinnestConnectionError, ThinnestInterruptedError
from unit_tests.contract import EVENTS, TEXT, as_sse


@pytest.fixture
def server() -> Iterator[Http2Server]:
    with Http2Server() as server:
        yield server


@pytest.fixture
def model(server: Http2Server) -> Iterator[ChatThinnest]:
    with GIVEN.Client(http1=False, http2=True) as client:
        yield ChatThinnest(
            agent_id="ag_1", api_key="ak_1", base_url=server.base_url, http_client=client
        )


def test_who_goes_away_takes_no_other_stream_along(
    server: Http2Server, model: ChatThinnest
) -> None:
    leaves, stays = model.stream("hi"), model.stream("hi")
    next(leaves)
    pieces = [next(stays)]
    leaves.close()
    server.go_on.set()
    pieces += stays
    assert "".join(piece.text for piece in pieces) == TEXT
    assert model.invoke("hi").text == TEXT
    assert server.connections == 1


def test_a_body_that_does_not_end_costs_neither_time_nor_the_connection(
    server: Http2Server, model: ChatThinnest
) -> None:
    server.go_on.set()
    server.ends_bodies = False
    begin = time.monotonic()
    for _ in range(20):
        assert model.invoke("hi").text == TEXT
    assert time.monotonic() - begin < 5  # 0.5 s for each would be 10
    assert server.connections == 1


async def test_the_same_in_a_loop(server: Http2Server) -> None:
    async with GIVEN.AsyncClient(http1=False, http2=True) as client:
        model = ChatThinnest(
            agent_id="ag_1", api_key="ak_1", base_url=server.base_url, http_async_client=client
        )
        leaves, stays = model.astream("hi"), model.astream("hi")
        await anext(leaves)
        text = (await anext(stays)).text
        await leaves.aclose()  # type: ignore[attr-defined]
        server.ends_bodies = False
        server.go_on.set()
        async for piece in stays:
            text += piece.text
        assert text == TEXT
        begin = time.monotonic()
        for _ in range(20):
            assert (await model.ainvoke("hi")).text == TEXT
        assert time.monotonic() - begin < 5
    assert server.connections == 1


def ask(server: Http2Server, *, is_async: bool) -> str:
    """Ask once over HTTP/2, with two tries, the second at once."""
    fields = {"agent_id": "ag_1", "api_key": "ak_1", "base_url": server.base_url}
    tries = {"max_retries": 1, "max_retry_wait": 0.0}
    if is_async:

        async def run() -> str:
            async with GIVEN.AsyncClient(http1=False, http2=True) as client:
                model = ChatThinnest(**fields, **tries, http_async_client=client)
                return (await model.ainvoke("hi")).text

        return asyncio.run(run())
    with GIVEN.Client(http1=False, http2=True) as client:
        return ChatThinnest(**fields, **tries, http_client=client).invoke("hi").text


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("failure", [reset(ErrorCodes.REFUSED_STREAM), goes_away(lambda _: 0)])
def test_what_the_server_says_it_did_not_process_is_sent_again(
    server: Http2Server, failure: Failure, is_async: bool
) -> None:
    server.failures = [failure]
    server.go_on.set()
    assert ask(server, is_async=is_async) == TEXT
    assert len(server.requests) == 2


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(
    "failure",
    [
        reset(ErrorCodes.INTERNAL_ERROR),
        reset(ErrorCodes.CANCEL),
        reset(ErrorCodes.ENHANCE_YOUR_CALM),
        goes_away(lambda stream: stream),
        goes_away(lambda stream: stream, ErrorCodes.INTERNAL_ERROR),
    ],
)
def test_a_stream_that_the_server_may_have_processed_is_not_sent_again(
    server: Http2Server, failure: Failure, is_async: bool
) -> None:
    server.failures = [failure]
    server.go_on.set()
    with pytest.raises(ThinnestConnectionError, match=r"was sent.*not sent again") as caught:
        ask(server, is_async=is_async)
    assert not caught.value.is_retryable
    assert len(server.requests) == 1


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_reset_in_the_body_leaves_a_partial_answer(
    server: Http2Server, is_async: bool
) -> None:
    some = as_sse(EVENTS[0])
    server.failures = [reset(ErrorCodes.REFUSED_STREAM, after=some)]
    with pytest.raises(ThinnestInterruptedError) as caught:
        ask(server, is_async=is_async)
    assert caught.value.partial.text in ("", EVENTS[0]["content"])
    assert not caught.value.is_retryable
    assert len(server.requests) == 1
