"""An opened stream: the bytes of a body, whichever way it ends, and its closing.

A body that was read to its end leaves a connection that can be used again. So the rest of it
is read after `done` too, though not for long: the caller is not kept waiting.
This module knows nothing of requests, or of what the bytes mean.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
from typing_extensions import Self

from langchain_thinnest._http import http11
from langchain_thinnest._http.admission import Lease
from langchain_thinnest._http.closing import finish
from langchain_thinnest._http.failures import (
    JSON,
    answer_kind,
    body_failure,
    closed_early,
    failures,
    stalled,
)
from langchain_thinnest._http.retries import rate_limit
from langchain_thinnest._http.transport import END
from langchain_thinnest.errors import ThinnestStreamError

_ERROR_BODY_BYTES = 64 * 1024
_EXCERPT_SECONDS = 1.0
_DRAIN_SECONDS = 0.5


class Response:
    """An opened stream: status 200, and an event stream, or an answer in JSON.

    Iterate over it for the bytes of its body, and, last of all, the reason why there are no
    more: an error, for the case that the answer is not whole by then.

    Attributes:
        headers: The response's headers, in lower case.
        kind: The content type of an answer; `None` if the response is something else.
        is_json: The body is an answer in JSON, by its content type.
        waited: Seconds that reads have taken since the last event; whoever finds an event in
            the bytes sets it to 0.
    """

    def __init__(
        self,
        response: httpx.Response,
        lease: Lease,
        *,
        is_own: bool,
        stall_timeout: float | None = None,
    ) -> None:
        """Wrap httpx's response, whose body has not been read.

        Args:
            response: What the client gave.
            lease: The right to have this stream open; it ends when the stream is closed.
            is_own: It came over a connection of the package's own.
            stall_timeout: The longest time without an event, in seconds.
        """
        self._lease = lease
        headers = dict(response.headers.items())  # httpx's own take their time
        self.headers = headers
        self.kind = answer_kind(response.status_code, headers)
        self.is_json = self.kind == JSON
        self.waited = 0.0
        self._response = response
        self._is_own = is_own
        self._process = os.getpid()
        self._connection_end = response.extensions.get(END)
        self._has_ended = False
        self._is_closed = False
        self._stall_timeout = stall_timeout
        # The head has arrived: the trace is not needed any more, and costs time.
        response.request.extensions.pop("trace", None)
        self._limits_read = stall_timeout is not None and _limit_reads(response, stall_timeout)
        # Without a Content-Encoding the stream's bytes are the body, and cheaper to come by.
        is_raw = "content-encoding" not in headers
        stream = response.stream
        if hasattr(stream, "__iter__"):
            self._chunks = iter(stream) if is_raw else response.iter_bytes()
        else:
            self._achunks = aiter(stream) if is_raw else response.aiter_bytes()

    @property
    def rate_limit(self) -> dict[str, int] | None:
        """What the headers say of the rate limit."""
        return rate_limit(self.headers)

    @property
    def request_id(self) -> str | None:
        """What the server calls the request, where it says so."""
        return self.headers.get("x-request-id")

    def __iter__(self) -> Iterator[bytes | ThinnestStreamError]:
        return self

    def __next__(self) -> bytes | ThinnestStreamError:
        if self._stall_timeout is not None and self.waited > self._stall_timeout:
            return self._end(stalled(self._stall_timeout))
        began = time.monotonic()
        try:
            data = next(self._chunks)
        except StopIteration:
            if self._has_ended:
                raise
            return self._end(closed_early(is_json=self.is_json))
        except failures() as error:
            return self._end(self._failure(error))
        self.waited += time.monotonic() - began
        return data

    def __aiter__(self) -> AsyncIterator[bytes | ThinnestStreamError]:
        return self

    async def __anext__(self) -> bytes | ThinnestStreamError:
        if self._stall_timeout is not None and self.waited > self._stall_timeout:
            return self._end(stalled(self._stall_timeout))
        began = time.monotonic()
        try:
            data = await anext(self._achunks)
        except StopAsyncIteration:
            if self._has_ended:
                raise
            return self._end(closed_early(is_json=self.is_json))
        except failures() as error:
            return self._end(self._failure(error))
        self.waited += time.monotonic() - began
        return data

    def _failure(self, error: Exception) -> ThinnestStreamError:
        stall_timeout = self._stall_timeout if self._limits_read else None
        return body_failure(error, stall_timeout, is_json=self.is_json)

    def _end(self, reason: ThinnestStreamError) -> ThinnestStreamError:
        self._has_ended = True
        self.waited = 0.0
        return reason

    # Twins differ: a loop can end any read; sync code needs the socket for a deadline.
    def excerpt(self) -> bytes:
        """Read a refusal's body, up to a limit of bytes and time, and close it."""
        try:
            if (below := self._unread()) is not None:
                raw = below.read_on(_EXCERPT_SECONDS, _ERROR_BODY_BYTES)
                return _decoded(self._response, raw)
            excerpt = b""
            give_up = time.monotonic() + _EXCERPT_SECONDS
            for data in self:
                excerpt += data if isinstance(data, bytes) else b""
                if len(excerpt) >= _ERROR_BODY_BYTES or time.monotonic() > give_up:
                    break
            return excerpt
        finally:
            self.close()

    async def aexcerpt(self) -> bytes:
        """The async twin of `excerpt`."""
        import anyio  # httpx needs it; it is imported once there is a connection

        excerpt = b""
        try:
            with anyio.move_on_after(_EXCERPT_SECONDS):
                async for data in self:
                    excerpt += data if isinstance(data, bytes) else b""
                    if len(excerpt) >= _ERROR_BODY_BYTES:
                        break
            return excerpt
        finally:
            await self.aclose()

    # Twins differ: see `excerpt`.
    def drain(self) -> None:
        """Read on to the body's end, if it comes soon, so that the connection can be reused.

        After the end has been read there is nothing to wait for. What speaks HTTP/2 carries
        other streams too, and does not need the end of one.
        """
        if not self._has_ended and (below := self._unread()) is not None:
            below.read_on(_DRAIN_SECONDS)

    async def adrain(self) -> None:
        """The async twin of `drain`. A loop can end any read, so httpx does it all."""
        import anyio

        if not self._has_ended and self._unread() is not None:
            with contextlib.suppress(*failures()), anyio.move_on_after(_DRAIN_SECONDS):
                async for _ in self._achunks:
                    pass

    def _unread(self) -> Any:
        """Return the connection while the body is being read; httpx releases it at the end."""
        if self._response.is_closed:
            return None
        return http11.connection_of(self._response.stream)

    def __enter__(self) -> Self:
        return self

    # Twins differ: the garbage collector closes sync generators, at any point of the code.
    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is GeneratorExit and not self._is_own:
            self._abandon()
        else:
            self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def close(self) -> None:
        """Close the body; the connection too, unless the body was read to its end."""
        if self._is_closed:
            return
        self._is_closed = True
        # Twins differ: sync streams outlive a fork, and are closed at the interpreter's end.
        # Nothing imported may be used here: it is gone by then.
        if self._connection_end is not None and not self._connection_end.alive:
            self._lease.end()
            return
        if self._process == os.getpid():
            self._lease.end()
        elif not self._is_own:
            return  # neither the sockets nor the locks of the parent's client are ours
        self._drop_excess()
        self._response.close()

    def _drop_excess(self) -> None:
        """Close a connection with unread bytes, so that the client does not reuse it."""
        if self._is_own:
            return
        below = self._unread()
        if below is not None and not http11.is_clean(below):
            below.close()

    def _abandon(self) -> None:
        """Shut the connection now, and close the response at the next call.

        A generator that nobody reads on is closed by the garbage collector, which may run
        anywhere: also in a thread that holds the lock of the client's pool.
        """
        if self._is_closed or self._process != os.getpid():
            return
        self._lease.end()
        network = self._response.extensions.get("network_stream")
        connection = network.get_extra_info("socket") if network is not None else None
        if connection is not None and self._response.http_version != "HTTP/2":
            with contextlib.suppress(OSError):  # it is shut
                connection.shutdown(socket.SHUT_RDWR)
        _abandoned.append(self)

    async def aclose(self) -> None:
        """Close the body, whoever cancels the caller meanwhile.

        The connection too, unless the body was read to its end.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._lease.end()
        if self._is_own:
            await self._response.aclose()  # which cannot be interrupted: see `transport`
        else:
            await finish(self._aclose_given)

    # No twin: it runs in a task of its own.
    async def _aclose_given(self) -> None:
        below = self._unread()
        if below is not None and not http11.is_clean(below):
            # First, since a read that was cancelled twice has left httpx's stream closed by
            # its own account, and its connection open.
            await below.aclose()
        await self._response.aclose()


def _limit_reads(response: httpx.Response, stall_timeout: float) -> bool:
    """Cap the read timeout of the body; return whether that changed it.

    httpx's transport looks at the request's timeouts once for the head and once for the body.
    """
    timeouts = response.request.extensions.get("timeout")
    if not isinstance(timeouts, dict):
        return False
    read = timeouts.get("read")
    if read is not None and read <= stall_timeout:
        return False
    timeouts["read"] = stall_timeout
    return True


def _decoded(response: httpx.Response, raw: bytes) -> bytes:
    """Decompress a refusal's body; empty if that fails."""
    encoding = response.headers.get("content-encoding")
    if encoding is None:
        return raw
    try:
        return httpx.Response(200, headers={"content-encoding": encoding}, content=raw).content
    except httpx.DecodingError:
        return b""


# Streams over callers' clients that the garbage collector closed, or may have.
_abandoned: deque[Response] = deque()


def close_abandoned() -> None:
    """Close the responses that were abandoned since the last call."""
    while _abandoned:
        _abandoned.popleft().close()
