"""A caller's own client may speak HTTP/2, where streams share a connection."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived, StreamEnded

from langchain_thinnest import ChatThinnest
from unit_tests.contract import EVENTS, TEXT, as_sse


class Http2Server:
    """Sends the first event of an answer at once, and the rest when it is told to."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self.base_url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.go_on = threading.Event()
        self.ends_bodies = True
        self.connections = 0

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
                    if isinstance(event, RequestReceived):
                        headers = [(":status", "200"), ("content-type", "text/event-stream")]
                        state.send_headers(event.stream_id, headers)
                        state.send_data(event.stream_id, as_sse(EVENTS[0]))
                    elif isinstance(event, StreamEnded):
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
