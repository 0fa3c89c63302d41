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

from langchain_thinnest._http.closing import finish
from langchain_thinnest._http.failures import FAILURES, open_failure, refusal
from langchain_thinnest._http.gate import gate_for
from langchain_thinnest._http.progress import Progress
from langchain_thinnest._http.response import Response, close_abandoned
from langchain_thinnest._http.retries import RetryPolicy
from langchain_thinnest._http.transport import ASYNC_CLIENTS, CLIENTS, PROGRESS
from langchain_thinnest.errors import ThinnestRateLimitError, ThinnestRequestError

if TYPE_CHECKING:
    from tenacity import RetryCallState  # imported at the first call: it takes a while

DEFAULT_TIMEOUT = httpx.Timeout(120.0, connect=10.0)
_USER_AGENT = f"langchain-thinnest/{version('langchain-thinnest')}"
_HEADERS = {
    "Accept": "text/event-stream",
    "Accept-Encoding": "identity",  # a compressor gathers events before it lets one go
    "Content-Type": "application/json",
}


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
        stall_timeout: The longest time without an event, in seconds; `None`: no limit.
    """

    base_url: str
    api_key: SecretStr
    timeout: httpx.Timeout
    headers: Mapping[str, str] = field(default_factory=dict)
    client: httpx.Client | None = None
    async_client: httpx.AsyncClient | None = None
    stall_timeout: float | None = None

    @property
    def auth(self) -> httpx.Auth:
        """What signs a request."""
        return _BearerAuth(self.api_key)

    def without_key(self, text: str) -> str:
        """A text of the server's, in which it may have told the key back."""
        return text.replace(self.api_key.get_secret_value(), "**********")

    def request(
        self, client: httpx.Client | httpx.AsyncClient, body: bytes, progress: Progress
    ) -> httpx.Request:
        """Build the request, without the key.

        Raises:
            ThinnestRequestError: If the caller's client has headers or cookies of which no
                request can be made.
        """
        is_own = client is not self.client and client is not self.async_client
        is_async = isinstance(client, httpx.AsyncClient)
        try:
            return client.build_request(
                "POST",
                _url(self.base_url),
                content=body,
                headers=_with_ours(self.headers) if self.headers else _OUR_HEADERS,
                timeout=self.timeout if is_own else httpx.USE_CLIENT_DEFAULT,
                extensions={
                    "trace": progress.atrace if is_async else progress.trace,
                    PROGRESS: progress,
                },
            )
        except ValueError as error:  # an encoding error is one
            kind = type(error).__name__
        raise ThinnestRequestError(
            f"The request cannot be built: a header or cookie of the client is not text that "
            f"HTTP can carry ({kind}). The message was not sent."
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
    was_refused = is_kept = False

    def send() -> Response:
        nonlocal was_refused, is_kept
        close_abandoned()
        pass_ = gate.enter(again=was_refused, is_kept=is_kept, max_wait=policy.max_window_wait)
        is_kept = False
        progress = Progress()
        request: httpx.Request | None = None
        try:
            client = endpoint.client or CLIENTS.get(endpoint.base_url)
            request = endpoint.request(client, body, progress)
            response = _send(client, request, endpoint)
        except BaseException as error:
            pass_.leave()
            if request is None or not isinstance(error, FAILURES):
                raise
            failure = open_failure(error, request, progress, endpoint.base_url)
        else:
            opened = Response(
                response,
                pass_,
                is_own=endpoint.client is None,
                stall_timeout=endpoint.stall_timeout,
            )
            if _is_event_stream(response):
                pass_.answered(response.headers)
                return opened
            failure = refusal(
                response, opened.excerpt(), endpoint.base_url, endpoint.without_key
            )
            if isinstance(failure, ThinnestRateLimitError):
                was_refused = True
                is_kept = pass_.refused(response.headers, failure.retry_after)
        raise failure

    from tenacity import Retrying

    try:
        response: Response = Retrying(**_retrying(policy), before_sleep=on_retry)(send)
    finally:
        if is_kept:
            gate.give_up()
    with response:
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
    was_refused = is_kept = False

    async def send() -> Response:
        nonlocal was_refused, is_kept
        pass_ = await gate.aenter(
            again=was_refused, is_kept=is_kept, max_wait=policy.max_window_wait
        )
        is_kept = False
        progress = Progress()
        request: httpx.Request | None = None
        try:
            client = endpoint.async_client or ASYNC_CLIENTS.get(endpoint.base_url)
            request = endpoint.request(client, body, progress)
            response = await _asend(client, request, endpoint)
        except BaseException as error:
            pass_.leave()
            if request is None or not isinstance(error, FAILURES):
                raise
            failure = open_failure(error, request, progress, endpoint.base_url)
        else:
            opened = Response(
                response,
                pass_,
                is_own=endpoint.async_client is None,
                stall_timeout=endpoint.stall_timeout,
            )
            if _is_event_stream(response):
                pass_.answered(response.headers)
                return opened
            failure = refusal(
                response, await opened.aexcerpt(), endpoint.base_url, endpoint.without_key
            )
            if isinstance(failure, ThinnestRateLimitError):
                was_refused = True
                is_kept = pass_.refused(response.headers, failure.retry_after)
        raise failure

    from tenacity import AsyncRetrying

    retrying = AsyncRetrying(**_retrying(policy), before_sleep=on_retry)
    try:
        response: Response = await retrying(send)
    finally:
        if is_kept:
            gate.give_up()
    try:
        yield response
    finally:
        await response.aclose()


def _send(client: httpx.Client, request: httpx.Request, endpoint: Endpoint) -> httpx.Response:
    return client.send(request, auth=endpoint.auth, stream=True, follow_redirects=False)


async def _asend(
    client: httpx.AsyncClient, request: httpx.Request, endpoint: Endpoint
) -> httpx.Response:
    """Send a request; over a caller's client in a task of its own.

    httpx's own pool loses a connection whose task is cancelled twice. There the task is
    cancelled once, and is waited for.
    """
    sending = client.send(request, auth=endpoint.auth, stream=True, follow_redirects=False)
    if endpoint.async_client is None:
        return await sending
    task = asyncio.ensure_future(sending)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.cancel()
        await finish(lambda: _given_up(task))
        raise


async def _given_up(task: asyncio.Future[httpx.Response]) -> None:
    await asyncio.wait([task])
    if not task.cancelled() and task.exception() is None:
        await task.result().aclose()


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
