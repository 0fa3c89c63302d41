"""The process's own httpx clients, and the transport below them: a pool of connections.

Each connection is an httpx transport with room for one, and carries one request at a time.
What httpx's own pool does not do is done here: a connection goes to the next caller only if
the last answer was read to its end and not a byte follows it, and in every other case it is
closed, whole. So there is nothing to keep account of that could be lost.

Calls to the same base URL share their connections, so that a model made anew for each call
(`configurable_fields` makes one) costs none. Async connections belong to an event loop, and
the loop owns them: see `_OfLoop`.
This module knows nothing of what requests and answers mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextvars import Context
from typing import Any, Generic, TypeVar

import httpx
from typing_extensions import override

from langchain_thinnest._http import http11
from langchain_thinnest._http.closing import finish
from langchain_thinnest._http.environment import proxy_for, tls_context
from langchain_thinnest._http.progress import PROGRESS, Progress
from langchain_thinnest.errors import ThinnestRequestError

END = "langchain_thinnest.end"  # that of a response: `alive` until its connection is closed
_IDLE_SECONDS = 4.0  # servers close an idle connection after 5 s, often in this very moment
_MOST_IDLE = 20  # twice what the vendor allows at once on the paid plan
_LIMITS = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=None)

T = TypeVar("T", bound=httpx.BaseTransport | httpx.AsyncBaseTransport)


class Connection(Generic[T]):
    """A transport with room for one connection.

    Attributes:
        transport: The transport.
        networks: httpcore's streams of what was opened for it, where it told of them.
        idle_since: When it came back, clean.
    """

    __slots__ = ("__weakref__", "_process", "_socket", "idle_since", "networks", "transport")

    def __init__(self, transport: T) -> None:
        """Take a new transport."""
        self.transport = transport
        self.networks: list[Any] = []
        self.idle_since = 0.0
        self._socket: http11.Socket | None = None
        self._process = os.getpid()

    @property
    def is_of_parent(self) -> bool:
        """Whether this process was forked from the one that opened it."""
        return self._process != os.getpid()

    def is_reusable(self) -> bool:
        """Whether an idle connection is still as it was left."""
        is_fresh = time.monotonic() - self.idle_since < _IDLE_SECONDS
        return is_fresh and self._socket is not None and self._socket.is_quiet()

    def is_clean(self, stream: object) -> bool:
        """Whether a body was read to its end, and not a byte follows it."""
        below = http11.connection_of(stream)
        if below is None or not below.is_over():
            return False
        if self._socket is None or not self._socket.is_below(below):
            self._socket = below.socket()
        return self._socket is not None and self._socket.is_quiet()

    def close(self: Connection[httpx.BaseTransport]) -> None:
        """Close it, whatever it is doing; in a forked child only the child's copy."""
        try:
            # Twins differ: a loop does not outlive a fork.
            # A thread that the child does not have may hold the transport's lock.
            if self._process == os.getpid():
                self.transport.close()
        finally:
            for network in self.networks:
                with contextlib.suppress(OSError):
                    network.close()

    async def aclose(self: Connection[httpx.AsyncBaseTransport]) -> None:
        """Close it, whatever it is doing: connecting too."""
        try:
            await self.transport.aclose()
        finally:
            for network in self.networks:
                with contextlib.suppress(OSError):
                    await network.aclose()

    def sever(self) -> None:
        """Close the sockets of an async connection whose loop is closed."""
        if self._process != os.getpid():
            return
        for network in self.networks:
            _sever(network)
        if hasattr(self.transport, "sever"):
            self.transport.sever()


def _sever(network: Any) -> None:
    """Make asyncio's transport close its socket now: a closed loop runs no callbacks."""
    inner = network
    while inner is not None and not hasattr(inner, "_transport"):
        inner = getattr(inner, "_stream", None) or getattr(inner, "transport_stream", None)
    transport = getattr(inner, "_transport", None)
    if transport is None or getattr(transport, "_sock", None) is None:
        return
    with contextlib.suppress(RuntimeError, AttributeError):  # a waiter's loop is closed
        transport._call_connection_lost(None)  # noqa: SLF001


class _Idle(Generic[T]):
    """The idle connections, the last one used first.

    There is no lock, which a fork or the garbage collector could find held: a deque's steps
    are atomic.
    """

    def __init__(self) -> None:
        self._connections: deque[Connection[T]] = deque()

    def take(self) -> tuple[Connection[T] | None, list[Connection[T]]]:
        """Return a reusable connection, if there is one, and the stale ones to close."""
        spent: list[Connection[T]] = []
        with contextlib.suppress(IndexError):
            while True:
                connection = self._connections.pop()
                if connection.is_reusable():
                    return connection, spent
                spent.append(connection)
        return None, spent

    def put(self, connection: Connection[T]) -> list[Connection[T]]:
        """Keep a connection, and return the ones to close."""
        connection.idle_since = time.monotonic()
        self._connections.append(connection)
        spent = []
        with contextlib.suppress(IndexError):
            while len(self._connections) > _MOST_IDLE or (
                connection.idle_since - self._connections[0].idle_since > _IDLE_SECONDS
            ):
                spent.append(self._connections.popleft())
        return spent

    def all(self) -> list[Connection[T]]:
        """Remove and return all."""
        connections = []
        with contextlib.suppress(IndexError):
            while True:
                connections.append(self._connections.pop())
        return connections


class Pool(httpx.BaseTransport):
    """A transport that uses a separate connection for each request under way."""

    def __init__(self, make: Callable[[], httpx.BaseTransport]) -> None:
        """Make an empty pool.

        Args:
            make: Makes a transport with room for one connection; of any kind, but those
                whose connections `http11` cannot read are used once.
        """
        self._make = make
        self.idle: _Idle[httpx.BaseTransport] = _Idle()
        # Twins differ: a loop that is closed severs what it has; sync pools have no loop.
        # The registry of finalizers keeps what is idle, and closes it at the interpreter's
        # end, while there are modules to do it with.
        weakref.finalize(self, _close_all, self.idle)

    @override
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        connection, spent = self.idle.take()
        if connection is None:
            connection = Connection(self._make())
        _watch(connection, request)
        try:
            if spent:
                self.close_all(spent)
            response = connection.transport.handle_request(request)
        except BaseException:
            self.close_all([connection])
            raise
        # Twins differ: see `_Body`.
        body = _Body(response.stream, connection, self.idle)
        response.stream = body
        response.extensions[END] = body.end
        return response

    def close_all(self, connections: list[Connection[httpx.BaseTransport]]) -> None:
        """Close connections."""
        for connection in connections:
            connection.close()

    @override
    def close(self) -> None:
        self.close_all(self.idle.all())


def _watch(connection: Connection[Any], request: httpx.Request) -> None:
    """Give a connection the list in which the request's sockets are noted."""
    progress: Progress | None = request.extensions.get(PROGRESS)
    if progress is not None:
        progress.networks = connection.networks


def _close_all(idle: _Idle[httpx.BaseTransport]) -> None:
    for connection in idle.all():
        connection.close()


class _Body(httpx.SyncByteStream):
    """A response's body; closing it keeps a clean connection and closes any other."""

    def __init__(
        # Twins differ: the async body needs to tell the pool what is lent no more.
        self,
        stream: Any,
        connection: Connection[httpx.BaseTransport],
        idle: _Idle[httpx.BaseTransport],
    ) -> None:
        self._stream = stream
        # Twins differ: a loop closes its generators itself, and keeps what is lent.
        self._idle = idle
        # A garbage cycle may finalise a socket before the generator that reads from it. So
        # the registry of finalizers holds the connection, and closes it once the body is
        # gone, at the latest at the interpreter's end.
        self.end = weakref.finalize(self, _cut, stream, connection)
        self._connection = connection

    def __iter__(self) -> Iterator[bytes]:
        iterator: Iterator[bytes] = iter(self._stream)
        return iterator

    # Twins differ: closing can be cancelled there, and is done by the pool.
    @override
    def close(self) -> None:
        if self.end.detach() is None:
            return
        connection, spent = self._connection, [self._connection]
        try:
            if connection.is_clean(self._stream):
                self._stream.close()
                spent = self._idle.put(connection)
        finally:
            for other in spent:
                other.close()


class AsyncPool(httpx.AsyncBaseTransport):
    """The async twin of `Pool`, for one event loop."""

    def __init__(self, make: Callable[[], httpx.AsyncBaseTransport]) -> None:
        """Make an empty pool; see `Pool`."""
        self._make = make
        self.idle: _Idle[httpx.AsyncBaseTransport] = _Idle()
        self.in_use: set[Connection[httpx.AsyncBaseTransport]] = set()

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        connection, spent = self.idle.take()
        if connection is None:
            connection = Connection(self._make())
        _watch(connection, request)
        # Twins differ: see `__init__`.
        self.in_use.add(connection)
        try:
            if spent:
                await self.close_all(spent)
            response = await connection.transport.handle_async_request(request)
        except BaseException:
            await self.close_all([connection])
            raise
        response.stream = _AsyncBody(response.stream, connection, self)
        return response

    # Twins differ: closing can be cancelled.
    async def close_all(self, connections: list[Connection[httpx.AsyncBaseTransport]]) -> None:
        """Close connections, whoever cancels the caller meanwhile."""

        async def close() -> None:
            for connection in list(connections):
                await connection.aclose()
                self.in_use.discard(connection)

        await finish(close)

    @override
    async def aclose(self) -> None:
        await self.close_all(self.idle.all())

    # No twin: see `__init__`.
    def sever(self) -> None:
        """Close all sockets: the loop is closed."""
        for connection in [*self.idle.all(), *self.in_use]:
            connection.sever()


class _AsyncBody(httpx.AsyncByteStream):
    """The async twin of `_Body`."""

    def __init__(
        self, stream: Any, connection: Connection[httpx.AsyncBaseTransport], pool: AsyncPool
    ) -> None:
        self._stream = stream
        self._connection: Connection[httpx.AsyncBaseTransport] | None = connection
        self._pool = pool

    def __aiter__(self) -> AsyncIterator[bytes]:
        iterator: AsyncIterator[bytes] = aiter(self._stream)
        return iterator

    @override
    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if not connection.is_clean(self._stream):
            await self._pool.close_all([connection])
            return
        try:
            await self._stream.aclose()
        except BaseException:
            await self._pool.close_all([connection])
            raise
        self._pool.in_use.discard(connection)
        if spent := self._pool.idle.put(connection):
            await self._pool.close_all(spent)


def _cut(stream: Any, connection: Connection[httpx.BaseTransport]) -> None:
    """Close a connection whose body was garbage-collected."""
    try:
        if not connection.is_of_parent:
            stream.close()  # so that httpcore's generators have nothing left to close
    finally:
        connection.close()


class _NoCookies(httpx.Cookies):
    """Keeps nothing: a client serves many keys, and a cookie would travel between them."""

    @override
    def extract_cookies(self, response: httpx.Response) -> None:
        pass


_NO_COOKIES = _NoCookies()


class _Client(httpx.Client):
    cookies = property(lambda _: _NO_COOKIES)


class _AsyncClient(httpx.AsyncClient):
    cookies = property(lambda _: _NO_COOKIES)


def _transport_options(url: httpx.URL) -> dict[str, Any]:
    return {"verify": tls_context(url), "proxy": proxy_for(url), "limits": _LIMITS}


def _new_transport(base_url: str, kind: str) -> httpx.BaseTransport:
    url = httpx.URL(base_url)
    if kind == "fast" and proxy_for(url) is None:
        from langchain_thinnest._http.fast import FastTransport

        return FastTransport(url)
    return httpx.HTTPTransport(**_transport_options(url))


def _new_async_transport(base_url: str, kind: str) -> httpx.AsyncBaseTransport:
    url = httpx.URL(base_url)
    if kind == "fast" and proxy_for(url) is None:
        # Twins differ: the async connection needs an extra.
        try:
            from langchain_thinnest._http.fast_async import AsyncFastTransport
        except ImportError as error:
            raise ThinnestRequestError(
                'transport="fast" needs the extra `fast` for async calls: '
                'pip install "langchain-thinnest[fast]". The message was not sent.'
            ) from error
        return AsyncFastTransport(url)
    return httpx.AsyncHTTPTransport(**_transport_options(url))


class _Clients:
    """The process's own clients for sync calls."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._clients: dict[tuple[str, str], httpx.Client] = {}

    def get(self, base_url: str, kind: str) -> httpx.Client:
        """The client for a base URL and a kind of transport."""
        if self._process != os.getpid():  # after a fork they are the parent's
            self.__init__()  # type: ignore[misc]
        client = self._clients.get((base_url, kind))
        if client is None:
            pool = Pool(lambda: _new_transport(base_url, kind))
            client = _Client(transport=pool)
            client = self._clients.setdefault((base_url, kind), client)
        return client


class _OfLoop:
    """What the calls of one event loop share, owned by that loop and by nothing else.

    `asyncio.run` and its like end a loop's async generators, of which one closes the
    connections here. A bare `close()` does not. So the loop holds it by a timer that never
    fires, and drops it when it is closed; then the sockets are closed without the loop.
    """

    def __init__(self) -> None:
        self._clients: dict[tuple[str, str], tuple[httpx.AsyncClient, AsyncPool]] = {}

    def get(self, base_url: str, kind: str) -> httpx.AsyncClient:
        held = self._clients.get((base_url, kind))
        if held is None:
            pool = AsyncPool(lambda: _new_async_transport(base_url, kind))
            held = _AsyncClient(transport=pool), pool
            self._clients[base_url, kind] = held
        return held[0]

    def keep(self, end: AsyncGenerator[None, None]) -> None:
        """Do nothing: the timer that holds this never fires."""

    # No twin: sync clients are the process's.
    async def close_at_the_end(self) -> AsyncGenerator[None, None]:
        """Wait, and close what is idle when the loop ends its generators."""
        try:
            yield
        finally:
            for _, pool in self._clients.values():
                await pool.aclose()

    def __del__(self) -> None:
        for _, pool in self._clients.values():
            pool.sever()


# Twins differ: async connections belong to a loop, sync ones to the process.
class _AsyncClients:
    """The async twin of `_Clients`: each event loop has its own."""

    def __init__(self) -> None:
        self._of_loops: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, weakref.ref[_OfLoop]
        ] = weakref.WeakKeyDictionary()

    def get(self, base_url: str, kind: str) -> httpx.AsyncClient:
        """The running loop's client for a base URL and a kind of transport."""
        loop = asyncio.get_running_loop()
        known = self._of_loops.get(loop)
        own = known() if known is not None else None
        if own is None:
            own = _OfLoop()
            self._of_loops[loop] = weakref.ref(own)
            end = own.close_at_the_end()
            with contextlib.suppress(StopIteration):  # it waits at its `yield`
                end.__anext__().send(None)
            # A context of its own: that of the caller would be kept as long.
            loop.call_later(_NEVER, own.keep, end, context=Context())
        return own.get(base_url, kind)


_NEVER = 3600.0 * 24 * 365 * 30  # seconds
CLIENTS = _Clients()
ASYNC_CLIENTS = _AsyncClients()
