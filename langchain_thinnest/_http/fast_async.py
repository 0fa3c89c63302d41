"""An async HTTP/1.1 connection on aiohttp, as an httpx transport.

It costs less than half of httpx's own connection for each event. What aiohttp raises becomes
httpx's exception for it. Needs the extra `fast`.
This module knows no proxies, and nothing of what requests and answers mean.
"""

from __future__ import annotations

import contextlib
import io
import selectors
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import anyio
import httpx
from typing_extensions import Self, override
from yarl import URL

from langchain_thinnest._http.environment import tls_context
from langchain_thinnest._http.http11 import Selector
from langchain_thinnest._http.progress import PROGRESS, Progress, Sent

_AT_ONCE = 64 * 1024  # bytes that a socket takes without waiting
_NO_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")  # of aiohttp's own


# No twin: `fast.py` stands on another library.
class AsyncFastTransport(httpx.AsyncBaseTransport):
    """One connection. It is opened by the first request, and carries one at a time."""

    def __init__(self, url: httpx.URL) -> None:
        """Take the URL whose host to connect to.

        Raises:
            ThinnestConnectionError: If the CA certificates cannot be read.
        """
        self._tls = tls_context(url) if url.scheme == "https" else True
        self._session: aiohttp.ClientSession | None = None
        self._answer: Any = None
        self._protocol: Any = None
        self._selector: Any = None

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        timeouts = request.extensions["timeout"]
        progress: Progress = request.extensions.get(PROGRESS) or Progress()
        progress.sent = Sent.NO
        self._networks = progress.networks
        if self._session is None:
            self._session = self._new_session()
        answer: Any = None
        with _as_httpx(progress), anyio.CancelScope() as scope:
            answer = await self._session.request(
                request.method,
                URL(str(request.url), encoded=True),
                headers=[(k.decode(), v.decode("latin-1")) for k, v in request.headers.raw],
                skip_auto_headers=_NO_HEADERS,
                data=io.BytesIO(request.content),  # bytes alone may hold up the loop
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=timeouts["connect"], sock_read=timeouts["read"]
                ),
                trace_request_ctx=_Sending(progress, scope, timeouts),
            )
        if answer is None:
            raise httpx.WriteTimeout("the request was not taken in time")
        progress.sent = Sent.YES
        self._answer = answer
        _end_with_connection(answer.content, self._protocol.closed)
        return httpx.Response(
            answer.status,
            headers=list(answer.raw_headers),
            stream=_Body(self, progress, timeouts),
            extensions={
                "http_version": b"HTTP/1.1",
                "reason_phrase": (answer.reason or "").encode(errors="replace"),
            },
        )

    def _new_session(self) -> aiohttp.ClientSession:
        connector = _Connector(self._see, self._tls)
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(_headers_sent)
        trace.on_request_chunk_sent.append(_body_sent)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trace_configs=[trace],
        )

    def _see(self, protocol: Any) -> None:
        """Take the connection that a request goes out on."""
        if protocol is self._protocol:
            return
        self._protocol = protocol
        self._networks.append(_Network(protocol.transport))
        self._selector = Selector()
        sock = protocol.transport.get_extra_info("socket")
        self._selector.register(sock, selectors.EVENT_READ)

    async def read(self, progress: Progress) -> bytes:
        """Read what there is of the body, at least a byte; empty at its end."""
        with _as_httpx(progress):
            data: bytes = await self._answer.content.readany()
        return data

    def set_timeout(self, seconds: float | None) -> None:
        """Set how long a read may take."""
        if self._answer.connection is not None:
            self._protocol.read_timeout = seconds
            self._protocol.start_timeout()

    @override
    async def aclose(self) -> None:
        if self._answer is not None:
            self._answer.close()
        if self._session is not None:
            await self._session.close()

    # --- what `http11` asks of a connection below a response, and of its socket ---

    def is_over(self) -> bool:
        is_read: bool = self._answer.content.is_eof() and self._answer.connection is None
        return is_read

    def socket(self) -> Self:
        return self

    def is_below(self, below: object) -> bool:
        return below is self

    def is_quiet(self) -> bool:
        protocol = self._protocol
        if protocol is None or not protocol.is_connected() or protocol.should_close:
            return False
        with contextlib.suppress(ValueError):  # it is closed
            return not self._selector.select(0)
        return False

    def sever(self) -> None:
        """Close all there is, though the loop is closed; the sockets are already."""
        if self._answer is not None:
            self._answer.close()
        if self._session is not None:
            connector = self._session.connector
            self._session.detach()
            closing: Any = None if connector is None else connector.close()
            if hasattr(closing, "send"):  # it closes all before it first waits
                with contextlib.suppress(StopIteration, RuntimeError):
                    closing.send(None)
                closing.close()


# No twin: `fast.py` stands on another library.
class _Connector(aiohttp.TCPConnector):
    """Shows the connection that it gives to a request."""

    def __init__(self, see: Callable[[Any], None], tls: Any) -> None:
        super().__init__(limit=1, ssl=tls, keepalive_timeout=60.0)
        self._see = see

    @override
    async def connect(self, *arguments: Any, **more: Any) -> Any:
        connection = await super().connect(*arguments, **more)
        self._see(connection.protocol)
        return connection


def _end_with_connection(content: aiohttp.StreamReader, closed: Any) -> None:
    """Have a body fail where its connection is closed within it.

    aiohttp closes the connection over a chunk that is none, and tells no reader of it.
    """

    def end(_: object = None) -> None:
        if closed is not None and not closed.cancelled():
            closed.exception()  # or asyncio says that nobody looked at it
        if not content.is_eof() and content.exception() is None:
            error = aiohttp.ClientPayloadError("the connection was closed within the body")
            content.set_exception(error)

    if closed is None:  # the connection is gone by now
        end()
    else:
        closed.add_done_callback(end)
        content.on_eof(lambda: closed.remove_done_callback(end))


@dataclass
class _Sending:
    """What aiohttp's reports of one request change."""

    progress: Progress
    scope: anyio.CancelScope
    timeouts: dict[str, float | None]


# No twin: aiohttp reports what a request does to async functions.
async def _headers_sent(_: object, context: Any, __: object) -> None:
    sending: _Sending = context.trace_request_ctx
    sending.progress.sent = Sent.UNKNOWN
    # aiohttp has no limit for a write. A read that takes too long ends before this.
    write, read = sending.timeouts["write"], sending.timeouts["read"]
    if write is not None and read is not None:
        sending.scope.deadline = anyio.current_time() + write + read


# No twin: see `_headers_sent`.
async def _body_sent(_: object, context: Any, params: Any) -> None:
    if len(params.chunk) <= _AT_ONCE:
        context.trace_request_ctx.progress.sent = Sent.YES


# No twin: `fast.py` has the socket itself.
class _Network:
    """The socket of a connection, for whoever closes all there is."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    async def aclose(self) -> None:
        self._transport.abort()


# No twin: `fast.py` stands on another library.
class _Body(httpx.AsyncByteStream):
    """The body of an answer."""

    def __init__(
        self,
        connection: AsyncFastTransport,
        progress: Progress,
        timeouts: dict[str, float | None],
    ) -> None:
        self._connection = connection
        self._progress = progress
        self._timeouts = timeouts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self._connection.set_timeout(self._timeouts["read"])
        while data := await self._connection.read(self._progress):
            yield data


@contextlib.contextmanager
def _as_httpx(progress: Progress) -> Iterator[None]:
    """Raise httpx's exceptions in place of aiohttp's."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise httpx.ConnectTimeout(str(error)) from error
    except (aiohttp.ServerTimeoutError, TimeoutError) as error:
        raise httpx.ReadTimeout(str(error)) from error
    except aiohttp.ClientConnectorError as error:
        raise httpx.ConnectError(str(error)) from error
    except aiohttp.ServerDisconnectedError as error:
        raise httpx.RemoteProtocolError(
            "Server disconnected without sending a response."
        ) from error
    except (aiohttp.ClientPayloadError, aiohttp.ClientResponseError) as error:
        raise httpx.RemoteProtocolError(str(error)) from error
    except (aiohttp.ClientError, OSError) as error:
        kind = httpx.ConnectError if progress.sent is Sent.NO else httpx.ReadError
        raise kind(str(error)) from error
    except ValueError as error:
        raise httpx.LocalProtocolError(str(error)) from error
