"""The server of the benchmarks: precomputed bytes, one event per TCP write.

It speaks three dialects of the same answer, by path: the vendor's `/chat/stream`, OpenAI's
`/openai/v1/chat/completions` and Mistral's `/mistral/v1/chat/completions`. The name of the
agent or model says what to answer: `bench-<events>-<characters of each>-<mode>`, with the mode

    flow    all events, as fast as the socket takes them
    hold    the first event, a short pause, the others: a client that gathers is found out
    park    the first event, and then nothing until the client hangs up

`GET /connections` tells how many connections were accepted since it was last asked, and
`GET /first-byte` when the last answer began: the moment before its head was written.

One process, one thread, one selector; a connection that takes more waits its turn after a few
events, so that streams open at once progress together. Run it with `python -m
benchmarks.server`: it prints its port, and ends when its standard input does.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import re
import selectors
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import chain, cycle, islice

TEXT = " a subset of artificial intelligence"
HOLD_SECONDS = 0.003

# More than parsers keep of the strings they have seen: each text is a new one to them.
_RING = 20_011
_BURST = 32  # events in a row to one client, before the next client's turn
_NAME = re.compile(rb"bench-(\d+)-(\d+)-(flow|hold|park)")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def bench_name(events: int, chars: int = len(TEXT), mode: str = "flow") -> str:
    """The agent or model that answers with so many events of text."""
    return f"bench-{events}-{chars}-{mode}"


def text_of(number: int, chars: int = len(TEXT)) -> str:
    """The text of one event: no two of the first 20,000 are the same."""
    return (f" {number % _RING}" + TEXT * (chars // len(TEXT) + 1))[:chars]


def _vendor(text: str) -> tuple[object, list[object]]:
    usage = {"input_tokens": 50, "output_tokens": 120, "total_tokens": 170}
    return {"type": "text", "content": text}, [{"type": "done", "usage": usage}]


def _openai(text: str) -> tuple[object, list[object]]:
    def event(delta: dict[str, str], finish_reason: str | None) -> object:
        choice = {
            "index": 0,
            "delta": delta,
            "logprobs": None,
            "finish_reason": finish_reason,
        }
        return {
            "id": "chatcmpl-BkX2p0aGfuDQ1",
            "object": "chat.completion.chunk",
            "created": 1750000000,
            "model": "bench",
            "choices": [choice],
        }

    return event({"content": text}, None), [event({}, "stop"), "[DONE]"]


def _mistral(text: str) -> tuple[object, list[object]]:
    def event(content: str, finish_reason: str | None, **more: object) -> object:
        choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish_reason}
        return {
            "id": "cmpl-e5cc70bb28c444948073e77776eb30ef",
            "object": "chat.completion.chunk",
            "created": 1750000000,
            "model": "bench",
            "choices": [choice],
            **more,
        }

    usage = {"prompt_tokens": 50, "completion_tokens": 120, "total_tokens": 170}
    return event(text, None), [event("", "stop", usage=usage), "[DONE]"]


_DIALECTS: dict[bytes, Callable[[str], tuple[object, list[object]]]] = {
    b"/chat/stream": _vendor,
    b"/openai/v1/chat/completions": _openai,
    b"/mistral/v1/chat/completions": _mistral,
}


def _on_the_wire(event: object) -> bytes:
    """One event as one chunk of the body."""
    data = event if isinstance(event, str) else json.dumps(event)
    line = f"data: {data}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(line), line)


@lru_cache(maxsize=16)
def _answer(path: bytes, chars: int) -> tuple[list[bytes], list[bytes]]:
    """The events of text, which an answer takes round and round, and what ends it."""
    dialect = _DIALECTS[path]
    texts = [text_of(number, chars) for number in range(_RING)]
    ending = dialect("")[1]
    return (
        [_on_the_wire(dialect(text)[0]) for text in texts],
        [*map(_on_the_wire, ending), b"0\r\n\r\n"],
    )


def _told(text: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text)


class _Connection:
    """One client: what it has sent, and what is still to be written to it."""

    def __init__(self, server: _Server, client: socket.socket) -> None:
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._server = server
        self._client = client
        self._received = b""
        self._writes: Iterator[bytes] = iter(())
        self._rest = b""  # of a write that the socket took only in part

    def on_ready(self, mask: int) -> None:
        try:
            if mask & selectors.EVENT_READ:
                self._read()
            else:
                self._write()
        except OSError:
            self._close()

    def _read(self) -> None:
        data = self._client.recv(65536)
        if not data:
            self._close()
            return
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not blank or len(body) < (int(length[1]) if length else 0):
            return
        self._received = b""
        path = head.split(b" ", 2)[1]
        name = _NAME.search(body)
        if name and path in _DIALECTS:
            self._begin(path, int(name[1]), int(name[2]), name[3])
        else:
            server = self._server
            tell = (
                server.tell_first_byte if path == b"/first-byte" else server.count_connections
            )
            self._writes = iter([tell()])
            self._write()

    def _begin(self, path: bytes, events: int, chars: int, mode: bytes) -> None:
        ring, ending = _answer(path, chars)
        texts = islice(cycle(ring) if events > len(ring) else ring, events)
        if mode == b"flow":
            self._writes = chain([_HEAD], texts, ending)
        else:
            self._writes = iter([_HEAD, next(texts)])
        if mode == b"hold":
            rest = chain(texts, ending)
            self._server.later(HOLD_SECONDS, lambda: self.go_on(rest))
        self._server.first_byte = time.perf_counter()
        self._write()

    def go_on(self, writes: Iterator[bytes]) -> None:
        self._writes = writes
        with contextlib.suppress(OSError):
            self._write()

    def _write(self) -> None:
        send = self._client.send
        for _ in range(_BURST):
            data = self._rest or next(self._writes, None)
            if data is None:
                self._server.watch(self._client, selectors.EVENT_READ, self.on_ready)
                return
            try:
                self._rest = data[send(data) :]
            except BlockingIOError:
                self._rest = data
                break
        self._server.watch(self._client, selectors.EVENT_WRITE, self.on_ready)

    def _close(self) -> None:
        self._server.forget(self._client)
        self._client.close()


class _Server:
    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timers_made = 0
        self._accepted = 0
        self.first_byte = 0.0
        self._watched: dict[int, int] = {}

    def serve(self) -> None:
        self.watch(self.listener, selectors.EVENT_READ, self._accept)
        self.watch(sys.stdin, selectors.EVENT_READ, self._stop)
        while True:
            wait = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
            for key, mask in self._selector.select(wait):
                key.data(mask)
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()

    def watch(self, file: object, mask: int, on_ready: Callable[[int], None]) -> None:
        """Call `on_ready` when a file is ready, for reading or for writing, not both."""
        number = file.fileno()  # type: ignore[attr-defined]
        before = self._watched.get(number)
        if before is None:
            self._selector.register(number, mask, on_ready)
        elif before != mask:
            self._selector.modify(number, mask, on_ready)
        self._watched[number] = mask

    def forget(self, file: socket.socket) -> None:
        if self._watched.pop(file.fileno(), None) is not None:
            self._selector.unregister(file.fileno())

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self._timers_made += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._timers_made, call))

    def count_connections(self) -> bytes:
        # The one that asks is not counted.
        count, self._accepted = str(max(0, self._accepted - 1)).encode(), 0
        return _told(count)

    def tell_first_byte(self) -> bytes:
        return _told(repr(self.first_byte).encode())

    def _accept(self, _: int) -> None:
        client, _ = self.listener.accept()
        self._accepted += 1
        connection = _Connection(self, client)
        self.watch(client, selectors.EVENT_READ, connection.on_ready)

    def _stop(self, _: int) -> None:
        if not sys.stdin.readline():
            sys.exit()


def allow_descriptors(count: int = 4096) -> None:
    """Raise the soft limit of open files, as far as the hard one lets it."""
    with contextlib.suppress(ImportError):  # Windows has none
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = count if hard == resource.RLIM_INFINITY else min(count, hard)
        if soft != resource.RLIM_INFINITY and soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def main() -> None:
    allow_descriptors()
    server = _Server()
    print(server.listener.getsockname()[1], flush=True)
    server.serve()


if __name__ == "__main__":
    main()
