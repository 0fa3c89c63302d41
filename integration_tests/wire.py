"""A server that does to a connection just what a test says, byte by byte."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import ssl
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import Self

from unit_tests.answers import END, HEADERS, chunk, head, refusal, stream

# Tests script the server with these, and import them from here.
__all__ = [
    "END",
    "HEADERS",
    "Bare",
    "Close",
    "Repeat",
    "Reset",
    "Step",
    "Taken",
    "Wait",
    "Watch",
    "WireServer",
    "chunk",
    "head",
    "refusal",
    "stream",
]


@dataclass(frozen=True)
class Wait:
    """Send nothing until the event is set, or for some seconds, while the server runs."""

    until: threading.Event | float


@dataclass(frozen=True)
class Reset:
    """Break the connection off, so that the client's system says so."""


@dataclass(frozen=True)
class Close:
    """Close the connection in good order."""


@dataclass(frozen=True)
class Watch:
    """Say by the event when the client closes the connection."""

    closed: threading.Event


@dataclass(frozen=True)
class Repeat:
    """Send the same bytes again and again, until the client or the server is gone.

    And not for ever, so that a client that would read for ever fails a test and not the run.
    """

    data: bytes
    pause: float
    seconds: float = 10.0


@dataclass(frozen=True)
class Bare:
    """Send bytes below TLS, where they are no part of its stream."""

    data: bytes


Step = bytes | Wait | Reset | Close | Watch | Repeat | Bare


@dataclass
class Taken:
    """A request as it came."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body's content."""
        return json.loads(self.body)


@dataclass
class WireServer:
    """Answers each request with the next script, and repeats the last one for ever.

    Attributes:
        tls: The server's side of TLS, if it speaks it.
        is_deaf: It takes whatever comes first for a request.
        requests: What it was asked, in order.
        answered: How many of these requests' scripts are done; what they send has arrived.
        connections: How many connections it accepted.
    """

    scripts: deque[list[Step]] = field(default_factory=deque)
    tls: ssl.SSLContext | None = None
    is_deaf: bool = False
    requests: list[Taken] = field(default_factory=list)
    answered: int = 0
    connections: int = 0

    def __post_init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()

    @property
    def base_url(self) -> str:
        """Where it listens."""
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self._socket.getsockname()[1]}"

    @property
    def open_connections(self) -> int:
        """How many of them are still open, as far as the server has noticed."""
        return len(self._open)

    def answer(self, *scripts: list[Step]) -> None:
        """Set what the next requests are answered with."""
        self.scripts = deque(scripts)

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self.connections += 1
                    self._open.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.enter_context(connection)
            if self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True)
                stack.enter_context(connection)
            reader = stack.enter_context(connection.makefile("rb"))
            if self.is_deaf:
                reader = io.BytesIO(b"POST\n\n" if connection.recv(65536) else b"")
            while (taken := _read_request(reader)) is not None:
                with self._lock:
                    self.requests.append(taken)
                    script = (
                        self.scripts[0] if len(self.scripts) == 1 else self.scripts.popleft()
                    )
                try:
                    lives_on = all(self._do(connection, step) for step in script)
                finally:
                    with self._lock:
                        self.answered += 1
                if not lives_on:
                    break
        self._open.discard(connection)

    def _do(self, connection: socket.socket, step: Step) -> bool:  # noqa: C901
        """Do one step, and say whether the connection lives on."""
        if isinstance(step, bytes):
            connection.sendall(step)
        elif isinstance(step, Wait):
            if isinstance(step.until, float):
                self._ended.wait(step.until)
            else:
                step.until.wait(10)
        elif isinstance(step, Repeat):
            give_up = time.monotonic() + step.seconds
            while time.monotonic() < give_up:
                connection.sendall(step.data)
                if self._ended.wait(step.pause):
                    break
            return False
        elif isinstance(step, Bare):
            socket.socket.sendall(connection, step.data)
        elif isinstance(step, Watch):
            connection.settimeout(10)
            with contextlib.suppress(OSError):
                while connection.recv(4096):
                    pass
            step.closed.set()
            return False
        else:
            if isinstance(step, Reset):
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            else:
                connection.shutdown(socket.SHUT_RDWR)
            return False
        return True


def _read_request(reader: Any) -> Taken | None:
    line = reader.readline().decode("latin-1").strip()
    if not line:
        return None
    headers: dict[str, str] = {}
    while field_ := reader.readline().decode("latin-1").strip():
        name, _, value = field_.partition(":")
        headers[name.lower()] = value.strip()
    return Taken(line, headers, reader.read(int(headers.get("content-length", 0))))
