"""A server that speaks HTTP/2 without TLS, for clients that know that it does."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import RequestReceived, StreamEnded
from h2.exceptions import ProtocolError
from typing_extensions import Self

from unit_tests.contract import EVENTS, as_sse

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
        self.requests: list[int] = []
        self.failures: list[Failure] = []  # for the next requests, instead of an answer

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.connections += 1
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

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

        gone = (OSError, ProtocolError)  # a client may speak on after a GOAWAY
        with self._lock, connection, contextlib.suppress(*gone):
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
                        self.requests.append(event.stream_id)
                        self.failures.pop(0)(state, event.stream_id)
                    elif self.failures:
                        continue
                    elif isinstance(event, RequestReceived):
                        headers = [(":status", "200"), ("content-type", "text/event-stream")]
                        state.send_headers(event.stream_id, headers)
                        state.send_data(event.stream_id, as_sse(EVENTS[0]))
                    elif isinstance(event, StreamEnded):
                        self.requests.append(event.stream_id)
                        threading.Thread(
                            target=answer, args=(event.stream_id,), daemon=True
                        ).start()
                send()
