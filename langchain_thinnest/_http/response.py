"""An opened stream: the bytes of a body, whichever way it ends, and its closing.

A body that was read to its end leaves a connection that can be used again. So the rest of it
is read after `done` too, though not for long: who waits for the server waits for nothing more.
This module knows nothing of requests, or of what the bytes mean.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
from typing_extensions import Self

from langchain_thinnest._http.admission import Lease
from langchain_thinnest._http.failures import FAILURES, body_failure, closed_early
from langchain_thinnest._http.pools import Loan
from langchain_thinnest._http.retries import rate_limit
from langchain_thinnest.errors import ThinnestStreamError

_ERROR_BODY_BYTES = 64 * 1024
_EXCERPT_SECONDS = 1.0
_DRAIN_SECONDS = 0.5
_TICK = 0.05  # seconds; how precisely the watchdog keeps to them
_WATCHDOG_NAME = "langchain-thinnest-watchdog"


class Response:
    """An opened stream: status 200, and an event stream.

    Iterate over it for the bytes of its body, and, last of all, the reason why there are no
    more: an error, for the case that the answer is not whole by then.

    Attributes:
        rate_limit: What the headers say of the rate limit.
    """

    def __init__(self, response: httpx.Response, lease: Lease, loan: Loan[Any]) -> None:
        """Wrap httpx's response, whose body has not been read.

        Args:
            response: What the client gave.
            lease: The right to have this stream open; it ends when the stream is closed.
            loan: Of the client; it ends then too.
        """
        self._lease = lease
        self._loan = loan
        self.rate_limit = rate_limit(response.headers)
        self._response = response
        self._process = os.getpid()
        self._has_ended = False
        self._is_closed = False
        # Without a Content-Encoding the stream's bytes are the body, and cheaper to come by.
        is_raw = "content-encoding" not in response.headers
        stream = response.stream
        if isinstance(stream, httpx.SyncByteStream):
            self._chunks = iter(stream) if is_raw else response.iter_bytes()
        else:
            self._achunks = aiter(stream) if is_raw else response.aiter_bytes()

    def __iter__(self) -> Iterator[bytes | ThinnestStreamError]:
        return self

    def __next__(self) -> bytes | ThinnestStreamError:
        try:
            return next(self._chunks)
        except StopIteration:
            if self._has_ended:
                raise
            reason = closed_early()
        except FAILURES as error:
            reason = body_failure(error)
        self._has_ended = True
        return reason

    def __aiter__(self) -> AsyncIterator[bytes | ThinnestStreamError]:
        return self

    async def __anext__(self) -> bytes | ThinnestStreamError:
        try:
            return await self._achunks.__anext__()
        except StopAsyncIteration:
            if self._has_ended:
                raise
            reason = closed_early()
        except FAILURES as error:
            reason = body_failure(error)
        self._has_ended = True
        return reason

    def excerpt(self) -> bytes:
        """Read what there is of a refusal's body, up to a limit, and close it."""
        excerpt = b""
        give_up = time.monotonic() + _EXCERPT_SECONDS
        try:
            for data in self:
                excerpt += data if isinstance(data, bytes) else b""
                if len(excerpt) >= _ERROR_BODY_BYTES or time.monotonic() > give_up:
                    break
        finally:
            self.close()
        return excerpt

    async def aexcerpt(self) -> bytes:
        """The async twin of `excerpt`."""
        excerpt = b""
        give_up = time.monotonic() + _EXCERPT_SECONDS
        try:
            async for data in self:
                excerpt += data if isinstance(data, bytes) else b""
                if len(excerpt) >= _ERROR_BODY_BYTES or time.monotonic() > give_up:
                    break
        finally:
            await self.aclose()
        return excerpt

    def drain(self) -> None:
        """Read on to the body's end, so that the connection can be used again.

        A server that does not end the body is given up on. A read that is under way then can
        only be ended by shutting its socket, from another thread.
        """
        if self._is_one_of_many or not _WATCHDOG.watch(self):
            return
        give_up = time.monotonic() + _DRAIN_SECONDS
        try:
            for _ in self._chunks:
                if time.monotonic() > give_up:
                    break
        except FAILURES:
            pass  # the answer is whole
        finally:
            _WATCHDOG.leave(self)

    async def adrain(self) -> None:
        """The async twin of `drain`."""
        if self._is_one_of_many:
            return
        with contextlib.suppress(asyncio.TimeoutError, *FAILURES):
            if sys.version_info < (3, 11):
                await asyncio.wait_for(self._to_end(), _DRAIN_SECONDS)
            else:  # without a task of its own
                async with asyncio.timeout(_DRAIN_SECONDS):
                    await self._to_end()

    async def _to_end(self) -> None:
        async for _ in self._achunks:
            pass

    def __enter__(self) -> Self:
        _reading.add(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        _reading.discard(self)
        if kind is GeneratorExit:
            self.abandon()
        else:
            self.close()

    def close(self) -> None:
        """Close the body; the connection too, unless the body was read to its end."""
        if self._process != os.getpid():
            _parents.append(self)
            return
        if self._is_closed:
            return
        self._is_closed = True
        self._lease.end()
        try:
            self._response.close()
        finally:
            self._loan.end()

    def abandon(self) -> None:
        """Close the connection at once, and leave telling the pool of it for later.

        A generator that nobody reads on is closed by the garbage collector, which may run
        anywhere: also in a thread that holds the pool's lock, which would wait for itself.
        """
        if self._is_closed:
            return
        if self._process == os.getpid():
            self._lease.end()
            self.shut()
        _abandoned.append(self)

    async def aclose(self) -> None:
        """Close the body; the connection too, unless the body was read to its end."""
        self._lease.end()
        try:
            await self._response.aclose()
        finally:
            await self._loan.aend()

    @property
    def _is_one_of_many(self) -> bool:
        """Whether the connection carries other streams too, and needs not the end of one.

        The package's own clients speak HTTP/1.1; the caller's may not.
        """
        return self._response.http_version == "HTTP/2"

    def shut(self) -> None:
        """Shut the socket, which ends a read that is under way in another thread."""
        if self._is_one_of_many:
            return
        network = self._response.extensions.get("network_stream")
        connection = network.get_extra_info("socket") if network is not None else None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


# Streams that are being read in threads: out of the garbage collector's reach, since httpx's
# generators tell the pool when they are collected, in whatever order, whatever is locked.
_reading: set[Response] = set()
_abandoned: deque[Response] = deque()
_parents: list[Response] = []  # after a fork; neither their sockets nor their locks are ours


def close_abandoned() -> None:
    """Tell the pools of the streams that were abandoned since the last call."""
    while _abandoned:
        _abandoned.popleft().close()


@atexit.register
def _close_all() -> None:
    """Close what is still being read, as long as there are modules to do it with."""
    close_abandoned()
    for response in list(_reading):
        response.close()


class _Watchdog:
    """Shuts streams whose bodies do not end in time: one thread, while there are any."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """After a fork: the parent's streams are none of the child's, nor is its thread."""
        self._lock = threading.Lock()
        self._due: dict[Response, float] = {}  # all wait equally long, so they are in order
        self._is_awake = False

    def watch(self, response: Response) -> bool:
        """Shut a stream in a while, unless it leaves; `False` if that cannot be done."""
        with self._lock:
            self._due[response] = time.monotonic() + _DRAIN_SECONDS
            if self._is_awake:
                return True
            try:
                threading.Thread(target=self._watch, name=_WATCHDOG_NAME, daemon=True).start()
            except RuntimeError:  # the process has too many, or is about to end
                del self._due[response]
                return False
            self._is_awake = True
            return True

    def leave(self, response: Response) -> None:
        """The stream has ended, and its connection may be another one's by now."""
        with self._lock:
            self._due.pop(response, None)

    def _watch(self) -> None:
        sleep = _DRAIN_SECONDS
        while sleep:
            time.sleep(sleep)
            sleep = self._shut_due()

    def _shut_due(self) -> float:
        """Shut what is due; return the seconds until more may be, or 0 to end the thread."""
        with self._lock:
            now = time.monotonic()
            for response, due in list(self._due.items()):
                if due > now:
                    return max(_TICK, due - now)
                del self._due[response]
                response.shut()
            self._is_awake = False
            return 0.0


_WATCHDOG = _Watchdog()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_WATCHDOG.forget)
