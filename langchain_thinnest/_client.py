"""One POST, opened with retries, as a stream of bytes; sync and async.

Everything that a server can answer becomes an error of this package here, and everything
that httpx can raise. The API key exists as text only inside `_BearerAuth`, while a request
is being signed, and errors are raised outside the `except` that caught httpx's, whose
request holds the signed headers: so no traceback leads to the key.
This module knows nothing of what the bytes mean, and nothing of LangChain.
"""

from __future__ import annotations

import contextlib
import json
import ssl
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

from langchain_thinnest._gate import gate_for
from langchain_thinnest._limits import RetryPolicy, asked_wait
from langchain_thinnest._pools import ASYNC_CLIENTS, CLIENTS, Loan
from langchain_thinnest._response import FAILURES, Response, close_abandoned
from langchain_thinnest._sse import read_json
from langchain_thinnest.errors import (
    ThinnestAuthenticationError,
    ThinnestBalanceError,
    ThinnestConnectionError,
    ThinnestError,
    ThinnestNotFoundError,
    ThinnestPermissionError,
    ThinnestProtocolError,
    ThinnestRateLimitError,
    ThinnestRequestError,
    ThinnestServerError,
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
_DETAIL_CHARS = 500
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
        loan: Loan[httpx.Client] | None = None
        try:
            loan = CLIENTS.lend(endpoint.base_url, endpoint.client)
            response = loan.client.send(
                endpoint.request(loan.client, body),
                auth=endpoint.auth,
                stream=True,
                follow_redirects=False,
            )
        except BaseException as error:
            pass_.leave()
            if loan:
                loan.end()
            if not isinstance(error, FAILURES):
                raise
            failure = _open_failure(error, endpoint)
        else:
            opened = Response(response, pass_, loan)
            if _is_event_stream(response):
                pass_.answered(response.headers)
                return opened
            failure = _refusal(response, opened.excerpt(), endpoint)
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
        loan: Loan[httpx.AsyncClient] | None = None
        try:
            loan = await ASYNC_CLIENTS.lend(endpoint.base_url, endpoint.async_client)
            response = await loan.client.send(
                endpoint.request(loan.client, body),
                auth=endpoint.auth,
                stream=True,
                follow_redirects=False,
            )
        except BaseException as error:
            pass_.leave()
            if loan:
                await loan.aend()
            if not isinstance(error, FAILURES):
                raise
            failure = _open_failure(error, endpoint)
        else:
            opened = Response(response, pass_, loan)
            if _is_event_stream(response):
                pass_.answered(response.headers)
                return opened
            failure = _refusal(response, await opened.aexcerpt(), endpoint)
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
