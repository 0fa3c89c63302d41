"""A network in memory, in virtual time: httpx, httpcore and h11 as they are, and no socket.

Below httpcore each connection reads what a script says: bytes, silence, an error. What it was
sent is noted, and whether it was closed. Time passes only by sleeping and waiting, which then
take none: a test of a minute's wait is over at once, and always the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import os
import selectors
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar

import httpcore
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk

from langchain_thinnest import ChatThinnest
from langchain_thinnest._http.client import Endpoint, aopen_stream, open_stream
from langchain_thinnest._http.response import Response
from langchain_thinnest._http.retries import RetryPolicy

T = TypeVar("T")

# --- time ---


class Clock:
    """Time that passes only when somebody sleeps.

    Attributes:
        now: Seconds, as `time.monotonic` gives them.
        slept: How long was slept, each time.
    """

    def __init__(self) -> None:
        self.now = time.monotonic()
        self.slept: list[float] = []
        self.on_tick: list[Callable[[], None]] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.pass_(seconds)

    def pass_(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        for tell in self.on_tick.copy():
            tell()

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        """Do something, once, when so much time has passed."""
        when = self.now + seconds

        def tell() -> None:
            if self.now >= when:
                self.on_tick.remove(tell)
                do()

        self.on_tick.append(tell)


class _Selector(selectors.DefaultSelector):
    """Waits for what is there now, and else lets the time pass that it may wait."""

    clock: Clock

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is not None and timeout < 3600:
            self.clock.pass_(timeout)
            return []
        ready = super().select(5)  # there may be a thread that has something to say
        assert ready, "all tasks wait, and nothing will ever happen"
        return ready


def loop_of(clock: Clock) -> asyncio.AbstractEventLoop:
    """An event loop in virtual time."""
    selector = _Selector()
    selector.clock = clock
    return asyncio.SelectorEventLoop(selector)


# --- what connections do ---


class Wait(NamedTuple):
    """Nothing comes for some seconds."""

    seconds: float = math.inf


class Fails(NamedTuple):
    """A step of the connection fails: `connect`, `tls`, `head` or `body` (of the request)."""

    step: str
    error: Exception


class Hangs(NamedTuple):
    """A step of an async connection that never ends."""

    step: str


Step = bytes | Exception | Wait | Fails | Hangs
CLOSE = b""


class Sent(NamedTuple):
    """A request as it came."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class _Descriptor:
    """What is polled instead of a socket: readable if there is something to read."""

    family = None

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._read, self._write = os.pipe()
        self._is_readable = self._is_closed = False

    def fileno(self) -> int:
        return -1 if self._is_closed else self._read

    def set(self, is_readable: bool) -> None:
        if is_readable and not self._is_readable:
            os.write(self._write, b".")
        elif self._is_readable and not is_readable:
            os.read(self._read, 1)
        self._is_readable = is_readable

    def shutdown(self, _: int) -> None:
        self._wire.close()

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            os.close(self._read)
            os.close(self._write)


class Wire:
    """One connection.

    Attributes:
        is_closed: The client has closed it.
        host: Whom it was made to.
    """

    def __init__(self, network: Network, host: str) -> None:
        self.host = host
        self.is_closed = False
        self._network = network
        self._steps: Iterator[Step] = iter(())
        self._next: Step | None = None
        self._since = network.clock.now
        self._unread = b""
        self._written = b""
        self.socket = _Descriptor(self)

    def update(self) -> None:
        """Look which step is next, and whether it is there by now."""
        if self.is_closed:
            return
        while isinstance(self._next, Wait) and self.seconds_left <= 0:
            self._since += self._next.seconds
            self._next = next(self._steps, None)
        self.socket.set(bool(self._unread) or isinstance(self._next, (bytes, Exception)))

    @property
    def seconds_left(self) -> float:
        """How long nothing comes."""
        if self._unread or isinstance(self._next, (bytes, Exception)):
            return 0.0
        if isinstance(self._next, Wait):
            return self._since + self._next.seconds - self._network.clock.now
        return math.inf

    def read(self, most: int) -> bytes:
        """Take what is there."""
        if not self._unread:
            step = self._next
            if step == CLOSE:  # and it stays so
                return CLOSE
            self._since = self._network.clock.now
            self._next = next(self._steps, None)
            if isinstance(step, Exception):
                self.update()
                raise step
            assert isinstance(step, bytes)
            self._unread = step
        data, self._unread = self._unread[:most], self._unread[most:]
        self.update()
        return data

    def write(self, data: bytes) -> None:
        """Take a part of a request; once it is whole, the answer begins."""
        try:
            self._network.fail("body" if self._written else "head")
        except Exception:
            self._next = httpcore.ReadError("the connection is broken")
            raise
        self._written += data
        head, end, body = self._written.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (field.partition(":") for field in fields)
        }
        if end and len(body) >= int(headers.get("content-length", 0)):
            self._written = b""
            self._network.requests.append(Sent(line, headers, body))
            self._steps = iter(self._network.next_script())
            self._since = self._network.clock.now
            self._next = next(self._steps, None)
            self.update()

    def extra(self, info: str) -> Any:
        """What httpcore's streams tell of their sockets."""
        if info == "is_readable":  # a closed one is
            return self.is_closed or self.seconds_left <= 0
        return self.socket if info == "socket" else None

    def close(self) -> None:
        self.is_closed = True
        self.socket.close()


class Network:
    """Where all connections go.

    Attributes:
        clock: What time it is.
        base_url: That of this network's server; no other test has it.
        requests: What was asked, in order.
        wires: The connections that were made.
    """

    _ports = itertools.count(20_000)

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.base_url = self.new_url()
        self.requests: list[Sent] = []
        self.wires: list[Wire] = []
        self._scripts: deque[Iterable[Step]] = deque()
        clock.on_tick.append(self.update)

    def new_url(self) -> str:
        """Another server of this network, to which no connection was made yet."""
        return f"http://localhost:{next(self._ports)}"

    def answer(self, *scripts: Iterable[Step]) -> None:
        """Set what the next requests are answered with; the last one counts for ever."""
        self._scripts = deque(scripts)

    @property
    def open_wires(self) -> int:
        """How many connections are not closed."""
        return sum(not wire.is_closed for wire in self.wires)

    def close(self) -> None:
        """Close all connections, and forget them."""
        while self.wires:
            self.wires.pop().close()

    def update(self) -> None:
        for wire in self.wires:
            wire.update()

    def next_script(self) -> Iterable[Step]:
        return self._scripts[0] if len(self._scripts) == 1 else self._scripts.popleft()

    def fail(self, step: str) -> None:
        """Raise what the next script says of a step."""
        first = self._first_step
        if isinstance(first, Fails) and first.step == step:
            self.next_script()
            raise first.error

    async def hang(self, step: str) -> None:
        """Wait for ever, if the next script says so of a step."""
        await asyncio.sleep(0)
        if self._first_step == Hangs(step):
            await asyncio.Event().wait()

    @property
    def _first_step(self) -> Step | None:
        script = self._scripts[0]
        return script[0] if isinstance(script, list) else None

    def connect(self, host: str) -> Wire:
        self.fail("connect")
        self.wires.append(Wire(self, host))
        return self.wires[-1]

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Have each connection of httpcore, and so of httpx, go to this network."""
        for name in ("ConnectionPool", "HTTPProxy"):
            for prefix, backend in (("", _Backend(self)), ("Async", _AsyncBackend(self))):
                kind = getattr(httpcore, prefix + name)
                patch.setattr(httpcore, prefix + name, partial(kind, network_backend=backend))


class _Stream(httpcore.NetworkStream):
    def __init__(self, wire: Wire, network: Network) -> None:
        self._wire, self._network = wire, network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._wire.is_closed:
            raise httpcore.ReadError("it is closed")
        left = self._wire.seconds_left
        limit = math.inf if timeout is None else timeout
        assert min(left, limit) < math.inf, "this would wait for ever"
        if min(left, limit) > 0:
            self._network.clock.pass_(min(left, limit))
        if left > limit:
            raise httpcore.ReadTimeout("timed out")
        return self._wire.read(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._wire.write(buffer)

    def close(self) -> None:
        self._wire.close()

    def start_tls(self, *_: Any, **__: Any) -> _Stream:
        self._network.fail("tls")
        return self

    def get_extra_info(self, info: str) -> Any:
        return self._wire.extra(info)


class _AsyncioTransport:
    """What asyncio keeps of a socket, as far as the package looks at it."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    @property
    def _sock(self) -> Any:
        return None if self._wire.is_closed else self._wire.socket

    def _call_connection_lost(self, _: Any) -> None:
        self._wire.close()


class _AsyncStream(httpcore.AsyncNetworkStream):
    def __init__(self, wire: Wire, network: Network) -> None:
        self._wire, self._network = wire, network
        self._stream = SimpleNamespace(_transport=_AsyncioTransport(wire))

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._wire.is_closed:
            raise httpcore.ReadError("it is closed")
        left = self._wire.seconds_left
        limit = math.inf if timeout is None else timeout
        if min(left, limit) == math.inf:
            await asyncio.Event().wait()
        await asyncio.sleep(min(left, limit))
        if left > limit:
            raise httpcore.ReadTimeout("timed out")
        return self._wire.read(max_bytes)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._network.hang("write")
        self._wire.write(buffer)

    async def aclose(self) -> None:
        self._wire.close()
        await asyncio.sleep(0)

    async def start_tls(self, *_: Any, **__: Any) -> _AsyncStream:
        await self._network.hang("tls")
        self._network.fail("tls")
        return self

    def get_extra_info(self, info: str) -> Any:
        return self._wire.extra(info)


@dataclass
class _Backend(httpcore.NetworkBackend):
    network: Network

    def connect_tcp(self, host: str, *_: Any, **__: Any) -> _Stream:
        return _Stream(self.network.connect(host), self.network)


@dataclass
class _AsyncBackend(httpcore.AsyncNetworkBackend):
    network: Network

    async def connect_tcp(self, host: str, *_: Any, **__: Any) -> _AsyncStream:
        await self.network.hang("connect")
        return _AsyncStream(self.network.connect(host), self.network)


# --- sync and async, alike ---

VIEWS = ["invoke", "stream", "v3"]


class Side:
    """The sync side of everything, or the async one, in an event loop that lasts a test."""

    def __init__(self, clock: Clock, *, is_async: bool) -> None:
        self.is_async = is_async
        self.clock = clock
        self._loop = loop_of(clock) if is_async else None

    def run(self, result: Coroutine[Any, Any, T]) -> T:
        """Await something on the loop."""
        assert self._loop is not None
        return self._loop.run_until_complete(result)

    def either(self, sync: Callable[..., T], async_: Callable[..., Any], *args: Any) -> T:
        """Call the one or the other."""
        return self.run(async_(*args)) if self.is_async else sync(*args)

    def invoke(self, model: ChatThinnest, *args: Any, **kwargs: Any) -> AIMessage:
        call = model.ainvoke if self.is_async else model.invoke
        found: Any = call(*args, **kwargs)
        return self.run(found) if self.is_async else found

    def stream(self, model: ChatThinnest, *args: Any, **kwargs: Any) -> Chunks:
        if self.is_async:
            return Chunks(self, model.astream(*args, **kwargs))
        return Chunks(self, model.stream(*args, **kwargs))

    def events(self, model: ChatThinnest, *args: Any, **kwargs: Any) -> list[Any]:
        """The v3 events of an answer."""

        async def events() -> list[Any]:
            async with await model.astream_events(*args, version="v3", **kwargs) as found:
                return [event async for event in found]

        if self.is_async:
            return self.run(events())
        return list(model.stream_events(*args, version="v3", **kwargs))

    def output(self, model: ChatThinnest, *args: Any, **kwargs: Any) -> AIMessage:
        """The message that v3 events add up to."""

        async def output() -> AIMessage:
            async with await model.astream_events(*args, version="v3", **kwargs) as found:
                message: AIMessage = await found.output
                return message

        if self.is_async:
            return self.run(output())
        message: AIMessage = model.stream_events(*args, version="v3", **kwargs).output
        return message

    def ask(self, view: str, model: ChatThinnest, *args: Any, **kwargs: Any) -> AIMessage:
        """The whole answer, in one of the `VIEWS`."""
        if view == "invoke":
            return self.invoke(model, *args, **kwargs)
        if view == "stream":
            return reduce(add, self.stream(model, *args, **kwargs))
        return self.output(model, *args, **kwargs)

    def open(self, endpoint: Endpoint, policy: RetryPolicy, on_retry: Any = None) -> Response:
        return self.either(open_stream, aopen_stream, endpoint, b"{}", policy, on_retry)

    def rest(self, response: Response) -> list[Any]:
        """What an opened stream gives, up to its end."""

        async def rest() -> list[Any]:
            return [data async for data in response]

        return self.either(lambda: list(response), rest)

    def close_after(self, seconds: float, chunks: Chunks) -> None:
        """Close a stream in so many seconds."""
        if self._loop is None:
            self.clock.after(seconds, chunks.close)
        else:
            self._loop.call_later(seconds, self._loop.create_task, chunks.aclose())

    def elsewhere(self, do: Callable[[], T]) -> T:
        """Do something in another thread, or task: each `run` is one."""
        if self.is_async:
            return do()
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(do).result()

    def close_loop(self) -> None:
        if self._loop is None:
            return
        with contextlib.closing(self._loop):
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self.run(_all(tasks))
            self.run(self._loop.shutdown_asyncgens())


async def _all(tasks: Iterable[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


class Chunks(Iterator[AIMessageChunk]):
    """What `stream` or `astream` gives, one by one."""

    def __init__(self, side: Side, chunks: Any) -> None:
        self._side = side
        self._chunks = chunks

    def __next__(self) -> AIMessageChunk:
        if not self._side.is_async:
            chunk: AIMessageChunk = next(self._chunks)
            return chunk

        async def anext_() -> AIMessageChunk:  # a coroutine, as a loop wants one
            found: AIMessageChunk = await self._chunks.__anext__()
            return found

        try:
            return self._side.run(anext_())
        except StopAsyncIteration:
            raise StopIteration from None

    async def aclose(self) -> None:
        await self._chunks.aclose()

    def close(self) -> None:
        if self._side.is_async:
            self._side.run(self.aclose())
        else:
            self._chunks.close()
