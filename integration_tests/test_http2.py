"""A caller's own client may speak HTTP/2, where streams share a connection."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import RequestReceived, StreamEnded

from langchain_thinnest import ChatThinnest, ThinnestConnectionError, ThinnestInterruptedError
from unit_tests.contract import EVENTS, TEXT, as_sse

Failure = Callable[[H2Connection, int], None]


def reset(code: ErrorCodes, *, after: bytes = b"") -> Failure:
    """The server resets the stream, perhaps after a part of the answer."""

    def fail(state: H2Connection, stream: int) -> None:
        if after:
            headers = [(":status", "200"), ("content-type", "text/event-stream")]
            state.send_headers(stream, headers)
            state.send_data(stream, after)
        state.reset_stream(stream, code)

    return fail


def goes_away(last: Callable[[int], int], code: ErrorCodes = ErrorCodes.NO_ERROR) -> Failure:
    """The server names the last stream that it may have processed, and leaves."""

    def fail(state: H2Connection, stream: int) -> None:
        state.close_connection(code, last_stream_id=last(stream))

    return fail


class Http2Server:
    """Sends the first event of an answer at once, and the rest when it is told to."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self.base_url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.go_on = threading.Event()
        self.ends_bodies = True
        self.connections = 0
        self.requests = 0
        self.failures: list[Failure] = []  # for the next requests, instead of an answer

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.connections += 1
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def stop(self) -> None:
        self.go_on.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _talk(self, connection: socket.socket) -> None:
        state = H2Connection(H2Configuration(client_side=False))

        def send() -> None:
            connection.sendall(state.data_to_send())

        def answer(stream: int) -> None:
            self.go_on.wait()
            with self._lock, contextlib.suppress(Exception):  # it may have gone away
                rest = as_sse(*EVENTS[1:])
                state.send_data(stream, rest, end_stream=self.ends_bodies)
                send()

        with self._lock, connection:
            state.initiate_connection()
            send()
            while True:
                self._lock.release()
                try:
                    data = connection.recv(65536)
                finally:
                    self._lock.acquire()
                if not data:
                    return
                for event in state.receive_data(data):
                    if isinstance(event, StreamEnded) and self.failures:
                        self.requests += 1
                        self.failures.pop(0)(state, event.stream_id)
                    elif self.failures:
                        continue
                    elif isinstance(event, RequestReceived):
                        headers = [(":status", "200"), ("content-type", "text/event-stream")]
                        state.send_headers(event.stream_id, headers)
                        state.send_data(event.stream_id, as_sse(EVENTS[0]))
                    elif isinstance(event, StreamEnded):
                        self.requests += 1
                        threading.Thread(
                            target=answer, args=(event.stream_id,), daemon=True
                        ).start()
                send()


@pytest.fixture
def server() -> Iterator[Http2Server]:
    server = Http2Server()
    threading.Thread(target=server.serve, daemon=True).start()
    yield server
    server.stop()


@pytest.fixture
def model(server: Http2Server) -> Iterator[ChatThinnest]:
    with httpx.Client(http1=False, http2=True) as client:
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
    for _ in range(5):
        assert model.invoke("hi").text == TEXT
    assert time.monotonic() - begin < 2
    assert server.connections == 1


async def test_the_same_in_a_loop(server: Http2Server) -> None:
    async with httpx.AsyncClient(http1=False, http2=True) as client:
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
        for _ in range(5):
            assert (await model.ainvoke("hi")).text == TEXT
        assert time.monotonic() - begin < 2
    assert server.connections == 1


def ask(server: Http2Server, *, is_async: bool) -> str:
    """Ask once over HTTP/2, with two tries, the second at once."""
    fields = {"agent_id": "ag_1", "api_key": "ak_1", "base_url": server.base_url}
    tries = {"max_retries": 1, "max_retry_wait": 0.0}
    if is_async:

        async def run() -> str:
            async with httpx.AsyncClient(http1=False, http2=True) as client:
                model = ChatThinnest(**fields, **tries, http_async_client=client)
                return (await model.ainvoke("hi")).text

        return asyncio.run(run())
    with httpx.Client(http1=False, http2=True) as client:
        return ChatThinnest(**fields, **tries, http_client=client).invoke("hi").text


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("failure", [reset(ErrorCodes.REFUSED_STREAM), goes_away(lambda _: 0)])
def test_what_the_server_says_it_did_not_process_is_sent_again(
    server: Http2Server, failure: Failure, is_async: bool
) -> None:
    server.failures = [failure]
    server.go_on.set()
    assert ask(server, is_async=is_async) == TEXT
    assert server.requests == 2


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
    assert server.requests == 1


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
    assert server.requests == 1
