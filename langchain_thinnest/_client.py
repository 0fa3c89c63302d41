"""One POST, opened with retries, as a stream of bytes; sync and async.

Everything that a server can answer becomes an error of this package here, and everything
that httpx can raise. The API key exists as text only inside `_BearerAuth`, while a request
is being signed, and errors are raised outside the `except` that caught httpx's, whose
request holds the signed headers: so no traceback leads to the key.
This module knows nothing of what the bytes mean, and nothing of LangChain.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterator,
    Mapping,
)
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import httpx
from pydantic import SecretStr
from typing_extensions import Self

from langchain_thinnest._gate import Pass, gate_for
from langchain_thinnest._limits import RetryPolicy, asked_wait, rate_limit
from langchain_thinnest._pools import ASYNC_CLIENTS, CLIENTS
from langchain_thinnest._sse import read_json
from langchain_thinnest.errors import (
    ThinnestAuthenticationError,
    ThinnestBalanceError,
    ThinnestConnectionError,
    ThinnestError,
    ThinnestInterruptedError,
    ThinnestNotFoundError,
    ThinnestPermissionError,
    ThinnestProtocolError,
    ThinnestRateLimitError,
    ThinnestRequestError,
    ThinnestServerError,
    ThinnestStreamError,
    ThinnestTimeoutError,
)

if TYPE_CHECKING:
    from tenacity import RetryCallState  # imported at the first call: it takes a while

DEFAULT_TIMEOUT = httpx.Timeout(120.0, connect=10.0)
_USER_AGENT = f"langchain-thinnest/{version('langchain-thinnest')}"
_HEADERS = {
    "Accept": "text/event-stream",
    "Accept-Encoding": "identity",  # a compressor gathers events before it lets one go
    "Content-Type": "application/json",
}
_ERROR_BODY_BYTES = 64 * 1024
_DETAIL_CHARS = 500
_EXCERPT_SECONDS = 1.0
_DRAIN_SECONDS = 0.5
_BY_STATUS: dict[int, tuple[type[ThinnestError], str]] = {
    401: (
        ThinnestAuthenticationError,
        "The API key is missing or invalid. Set THINNEST_API_KEY or pass api_key=...",
    ),
    402: (ThinnestBalanceError, "The account's balance is insufficient"),
    403: (ThinnestPermissionError, "This API key may not use the agent"),
    404: (ThinnestNotFoundError, "There is no such agent"),
    429: (ThinnestRateLimitError, "The rate limit is exceeded"),
}
# httpx lets an async client's TLS errors through as they are.
_FAILURES = (httpx.HTTPError, ssl.SSLError)
# Failures before a connection was made: the server surely did not take the message.
_NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


@dataclass(frozen=True)
class Endpoint:
    """Where requests go, and how.

    Attributes:
        base_url: Without a slash at the end.
        api_key: The key that signs the requests.
        timeout: httpx's timeouts, in seconds.
        headers: Headers to add.
        client: The caller's own client for sync calls, used as it is.
        async_client: The caller's own client for async calls, used as it is.
    """

    base_url: str
    api_key: SecretStr
    timeout: httpx.Timeout
    headers: Mapping[str, str] = field(default_factory=dict)
    client: httpx.Client | None = None
    async_client: httpx.AsyncClient | None = None

    @property
    def auth(self) -> httpx.Auth:
        """What signs a request."""
        return _BearerAuth(self.api_key)

    def without_key(self, text: str) -> str:
        """A text of the server's, in which it may have told the key back."""
        return text.replace(self.api_key.get_secret_value(), "**********")

    def request(self, client: httpx.Client | httpx.AsyncClient, body: bytes) -> httpx.Request:
        """Build the request, without the key."""
        is_own = client is not self.client and client is not self.async_client
        return client.build_request(
            "POST",
            _url(self.base_url),
            content=body,
            headers=_with_ours(self.headers) if self.headers else _OUR_HEADERS,
            timeout=self.timeout if is_own else httpx.USE_CLIENT_DEFAULT,
        )


@lru_cache(maxsize=100)
def _url(base_url: str) -> httpx.URL:
    return httpx.URL(f"{base_url}/chat/stream")


def _with_ours(given: Mapping[str, str]) -> httpx.Headers:
    headers = httpx.Headers({"User-Agent": _USER_AGENT})
    headers.update(given)
    headers.update(_HEADERS)
    return headers


_OUR_HEADERS = _with_ours({})


class _BearerAuth(httpx.Auth):
    def __init__(self, key: SecretStr) -> None:
        self._key = key

    def auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._key.get_secret_value()}"
        yield request


class Response:
    """An opened stream: status 200, and an event stream.

    Iterate over it for the bytes of its body, and, last of all, the reason why there are no
    more: an error, for the case that the answer is not whole by then.

    Attributes:
        rate_limit: What the headers say of the rate limit.
    """

    def __init__(self, response: httpx.Response, pass_: Pass) -> None:
        """Wrap httpx's response, whose body has not been read, and which holds a pass."""
        self._pass = pass_
        self.rate_limit = rate_limit(response.headers)
        self._response = response
        self._process = os.getpid()
        self._has_ended = False
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
            reason = _closed_early()
        except _FAILURES as error:
            reason = _body_failure(error)
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
            reason = _closed_early()
        except _FAILURES as error:
            reason = _body_failure(error)
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

        A server that does not end the body is given up on: a read that is under way then
        can only be ended by shutting its socket, and only from outside.
        """
        network = self._response.extensions.get("network_stream")
        give_up = time.monotonic() + _DRAIN_SECONDS
        timer: threading.Timer | None = None
        while not self._has_ended and time.monotonic() < give_up:
            if not timer and network and not network.get_extra_info("is_readable"):
                timer = threading.Timer(_DRAIN_SECONDS, self._give_up)
                timer.daemon = True
                timer.start()
            next(self)
        if timer:
            timer.cancel()

    def _give_up(self) -> None:
        if not self._has_ended:
            _shut(self._response)

    async def adrain(self) -> None:
        """The async twin of `drain`; it gives up on a server that does not end the body."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._to_end(), _DRAIN_SECONDS)

    async def _to_end(self) -> None:
        async for _ in self:
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
        self._pass.leave()
        self._response.close()

    def abandon(self) -> None:
        """Close the connection at once, and leave telling the pool of it for later.

        A generator that nobody reads on is closed by the garbage collector, which may run
        anywhere: also in a thread that holds the pool's lock, which would wait for itself.
        """
        if self._process == os.getpid():
            self._pass.leave()
            _shut(self._response)
        _abandoned.append(self)

    async def aclose(self) -> None:
        """Close the body; the connection too, unless the body was read to its end."""
        self._pass.leave()
        await self._response.aclose()


def _shut(response: httpx.Response) -> None:
    network = response.extensions.get("network_stream")
    connection = network.get_extra_info("socket") if network is not None else None
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


# Streams that are being read in threads: out of the garbage collector's reach, since httpx's
# generators tell the pool when they are collected, in whatever order, whatever is locked.
_reading: set[Response] = set()
_abandoned: deque[Response] = deque()
_parents: list[Response] = []  # after a fork; neither their sockets nor their locks are ours


@contextlib.contextmanager
def open_stream(
    endpoint: Endpoint,
    body: bytes,
    policy: RetryPolicy,
    on_retry: Callable[[RetryCallState], None] | None = None,
) -> Iterator[Response]:
    """POST a message and open the answer's stream, with retries.

    Args:
        endpoint: Where to send it.
        body: The JSON to send.
        policy: When to send it again.
        on_retry: Called before each wait.

    Yields:
        The opened stream; it is closed on the way out.

    Raises:
        ThinnestError: If it could not be opened.
    """
    gate = gate_for(endpoint.base_url, endpoint.api_key)
    was_refused = False

    def send() -> Response:
        nonlocal was_refused
        while _abandoned:
            _abandoned.popleft().close()
        client = endpoint.client or CLIENTS.get(endpoint.base_url)
        pass_ = gate.enter(again=was_refused, max_wait=policy.max_window_wait)
        try:
            response = client.send(
                endpoint.request(client, body),
                auth=endpoint.auth,
                stream=True,
                follow_redirects=False,
            )
        except _FAILURES as error:
            pass_.leave()
            failure = _open_failure(error, endpoint)
        except BaseException:
            pass_.leave()
            raise
        else:
            opened = Response(response, pass_)
            if _is_event_stream(response):
                pass_.answered(response.headers)
                return opened
            failure = _refusal(response, opened.excerpt(), endpoint)
            if isinstance(failure, ThinnestRateLimitError):
                was_refused = True
                pass_.refused(response.headers, failure.retry_after)
        raise failure

    from tenacity import Retrying

    response: Response
    with Retrying(**_retrying(policy), before_sleep=on_retry)(send) as response:
        yield response


@contextlib.asynccontextmanager
async def aopen_stream(
    endpoint: Endpoint,
    body: bytes,
    policy: RetryPolicy,
    on_retry: Callable[[RetryCallState], Awaitable[None]] | None = None,
) -> AsyncIterator[Response]:
    """The async twin of `open_stream`."""
    gate = gate_for(endpoint.base_url, endpoint.api_key)
    was_refused = False

    async def send() -> Response:
        nonlocal was_refused
        client = endpoint.async_client or await ASYNC_CLIENTS.get(endpoint.base_url)
        pass_ = await gate.aenter(again=was_refused, max_wait=policy.max_window_wait)
        try:
            response = await client.send(
                endpoint.request(client, body),
                auth=endpoint.auth,
                stream=True,
                follow_redirects=False,
            )
        except _FAILURES as error:
            pass_.leave()
            failure = _open_failure(error, endpoint)
        except BaseException:
            pass_.leave()
            raise
        else:
            opened = Response(response, pass_)
            if _is_event_stream(response):
                pass_.answered(response.headers)
                return opened
            failure = _refusal(response, await opened.aexcerpt(), endpoint)
            if isinstance(failure, ThinnestRateLimitError):
                was_refused = True
                pass_.refused(response.headers, failure.retry_after)
        raise failure

    from tenacity import AsyncRetrying

    response: Response = await AsyncRetrying(**_retrying(policy), before_sleep=on_retry)(send)
    try:
        yield response
    finally:
        await response.aclose()


def _retrying(policy: RetryPolicy) -> dict[str, Any]:
    from tenacity import retry_if_exception, stop_after_attempt

    return {
        "stop": stop_after_attempt(policy.max_retries + 1),
        "retry": retry_if_exception(policy.should_retry),
        "wait": policy.wait,
        "reraise": True,
    }


def _is_event_stream(response: httpx.Response) -> bool:
    kind = response.headers.get("content-type", "text/event-stream")
    return response.status_code == 200 and kind.partition(";")[0].strip().lower() == (
        "text/event-stream"
    )


def _open_failure(error: Exception, endpoint: Endpoint) -> ThinnestError:
    never_sent = isinstance(error, _NEVER_SENT)
    because = str(error) or type(error).__name__
    if isinstance(error, httpx.TimeoutException):
        what = "did not accept a connection" if never_sent else "did not begin its answer"
        return ThinnestTimeoutError(
            f"{endpoint.base_url} {what} in time ({type(error).__name__}). "
            + ("" if never_sent else _FATE_UNKNOWN + " ")
            + "The field `timeout` sets how long to wait.",
            is_retryable=never_sent,
        )
    if never_sent:
        # Trying again does not make a certificate valid.
        is_final = _is_tls_failure(error) or isinstance(error, httpx.UnsupportedProtocol)
        return ThinnestConnectionError(
            f"Could not connect to {endpoint.base_url}: {because}",
            is_retryable=not is_final,
        )
    if isinstance(error, httpx.RemoteProtocolError) and "disconnected" not in because:
        return ThinnestProtocolError(
            f"What {endpoint.base_url} answered is not HTTP: {because}. " + _FATE_UNKNOWN
        )
    return ThinnestConnectionError(
        f"{endpoint.base_url} hung up before it began its answer: {because}. " + _FATE_UNKNOWN
    )


_FATE_UNKNOWN = (
    "The message was sent and the agent may have acted on it, so it was not sent again."
)


def _is_tls_failure(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return not isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError))
        error = error.__cause__ or error.__context__
    return False


def _closed_early() -> ThinnestStreamError:
    return ThinnestInterruptedError(
        "The server closed the stream before its `done` event, so the answer is not whole. "
        "What came is in `partial`; the agent may have acted all the same."
    )


def _body_failure(error: Exception) -> ThinnestStreamError:
    because = str(error) or type(error).__name__
    if isinstance(error, httpx.DecodingError):
        return ThinnestProtocolError(f"The stream's compression is broken: {because}")
    if isinstance(error, httpx.TimeoutException):
        because = "nothing came for as long as the field `timeout` allows (read)"
    return ThinnestInterruptedError(
        f"The stream was cut before its `done` event: {because}. What came is in `partial`; "
        "the agent may have acted all the same."
    )


def _refusal(response: httpx.Response, body: bytes, endpoint: Endpoint) -> ThinnestError:
    """The error for a response that is not an event stream."""
    status = response.status_code
    detail = endpoint.without_key(_detail(body))[:_DETAIL_CHARS] or None
    known: dict[str, Any] = {
        "status_code": status,
        "detail": detail,
        "request_id": response.headers.get("x-request-id"),
    }
    said = f": {detail}" if detail else ""
    if status < 400:
        what = (
            f"redirected to {endpoint.without_key(response.headers.get('location', ''))!r}, "
            "which is not followed, since the request carries the API key; check base_url"
            if response.is_redirect
            else f"answered {status} with {response.headers.get('content-type')!r} where "
            f"an event stream belongs; check base_url{said}"
        )
        return ThinnestProtocolError(f"{endpoint.base_url} {what}", **known)
    wait = asked_wait(response.headers) if status in (429, 503) else None
    kind, meaning = _BY_STATUS.get(status) or (
        (ThinnestServerError, "The server failed")
        if status >= 500
        else (ThinnestRequestError, "The server refused the request")
    )
    is_retryable = status == 429 or (status == 503 and "retry-after" in response.headers)
    asks = f" (the server asks to wait {wait:.0f} s)" if wait is not None else ""
    return kind(
        f"{meaning} [{status}]{said}{asks}",
        **known,
        retry_after=wait,
        is_retryable=is_retryable,
    )


def _detail(body: bytes) -> str:
    """What an error body says: FastAPI's `detail`, another usual field, or its text."""
    try:
        said = read_json(body)
    except ValueError:
        return " ".join(body.decode("utf-8", "replace").split())
    if isinstance(said, dict):
        said = said.get("detail") or said.get("message") or said.get("error") or said
    if isinstance(said, dict):
        said = said.get("message") or said
    if isinstance(said, list):  # validation: [{"loc": [...], "msg": "...", "type": "..."}]
        return "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item.get('msg')}"
            if isinstance(item, dict) and isinstance(item.get("loc"), list)
            else str(item)
            for item in said
        )
    return said if isinstance(said, str) else json.dumps(said)
