"""One POST, opened with retries, as a stream of bytes; sync and async.

Everything that a server can answer becomes an error of this package here, and everything
that httpx can raise. The API key exists as text only inside `Endpoint.sign`, while a request
is being signed, and errors are raised outside the `except` that caught httpx's, whose
request holds the signed headers: so no traceback leads to the key.
This module knows nothing of what the bytes mean, and nothing of LangChain.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import httpx
from pydantic import SecretStr

from langchain_thinnest._http.admission import Admission
from langchain_thinnest._http.closing import finish
from langchain_thinnest._http.failures import failures, open_failure, refusal
from langchain_thinnest._http.progress import PROGRESS, Progress
from langchain_thinnest._http.response import Response, close_abandoned
from langchain_thinnest._http.retries import (
    RetryPolicy,
    reported_by_answer,
    reported_by_refusal,
)
from langchain_thinnest._http.store import account_for
from langchain_thinnest._http.transport import ASYNC_CLIENTS, CLIENTS
from langchain_thinnest.errors import ThinnestError, ThinnestRequestError

if TYPE_CHECKING:
    from tenacity import RetryCallState  # imported at the first call: it takes a while

DEFAULT_TIMEOUT = httpx.Timeout(120.0, connect=10.0)
_USER_AGENT = f"langchain-thinnest/{version('langchain-thinnest')}"
_HEADERS = {
    "Accept": "text/event-stream",
    "Accept-Encoding": "identity",  # a compressor gathers events before it lets one go
    "Content-Type": "application/json",
}


@dataclass
class Endpoint:
    """Where requests go, and how.

    Attributes:
        base_url: Without a slash at the end.
        path: What is asked below it. Limits and connections are per base URL, whatever it is.
        api_key: The key that signs the requests.
        timeout: httpx's timeouts, in seconds.
        headers: Headers to add.
        client: The caller's own client for sync calls, used as it is.
        async_client: The caller's own client for async calls, used as it is.
        max_streams: The most streams at once with the key, if the user has set it.
        shared_limits: The URL of the store in which processes count together.
        stall_timeout: The longest time without an event, in seconds; `None`: no limit.
        transport: Which connections the package's own clients use: `"httpx"` or `"fast"`.
    """

    base_url: str
    api_key: SecretStr
    timeout: httpx.Timeout
    headers: Mapping[str, str] = field(default_factory=dict)
    client: httpx.Client | None = None
    async_client: httpx.AsyncClient | None = None
    max_streams: int | None = None
    shared_limits: SecretStr | None = None
    stall_timeout: float | None = None
    path: str = "/chat/stream"
    transport: str = "httpx"

    def sign(self, request: httpx.Request) -> httpx.Request:
        """Add the key to a request."""
        request.headers["Authorization"] = f"Bearer {self.api_key.get_secret_value()}"
        return request

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
        is_async = client is self.async_client or isinstance(client, httpx.AsyncClient)
        url = _url(self.base_url, self.path)
        headers = _with_ours(self.headers) if self.headers else _OUR_HEADERS
        extensions: dict[str, Any] = {
            "trace": progress.atrace if is_async else progress.trace,
            PROGRESS: progress,
        }
        try:
            if client is not self.client and client is not self.async_client:
                # The package's own clients have no settings to merge into it.
                extensions["timeout"] = self.timeout.as_dict()
                return httpx.Request(
                    "POST", url, content=body, headers=headers, extensions=extensions
                )
            # In plain values, since the client may be one of httpx2's.
            return client.build_request(
                "POST",
                str(url),
                content=body,
                headers=headers.multi_items(),
                extensions=extensions,
            )
        except ValueError as error:  # an encoding error is one
            kind = type(error).__name__
        raise ThinnestRequestError(
            f"The request cannot be built: a header or cookie of the client is not text that "
            f"HTTP can carry ({kind}). The message was not sent."
        )


@lru_cache(maxsize=100)
def _url(base_url: str, path: str) -> httpx.URL:
    return httpx.URL(base_url + path)


def _with_ours(given: Mapping[str, str]) -> httpx.Headers:
    headers = httpx.Headers({"Connection": "keep-alive", "User-Agent": _USER_AGENT})
    headers.update(given)
    headers.update(_HEADERS)
    return headers


_OUR_HEADERS = _with_ours({})


def open_stream(
    endpoint: Endpoint,
    body: bytes,
    policy: RetryPolicy,
    on_retry: Callable[[RetryCallState], None] | None = None,
) -> Response:
    """POST a message and open the answer's stream, with retries.

    Args:
        endpoint: Where to send it.
        body: The JSON to send.
        policy: When to send it again.
        on_retry: Called before each wait.

    Returns:
        The opened stream, which whoever takes it closes.

    Raises:
        ThinnestError: If it could not be opened.
    """
    admission = _admission(endpoint, policy)

    def send() -> Response:
        # Twins differ: the garbage collector abandons sync streams alone.
        close_abandoned()
        lease = admission.enter()
        progress = Progress()
        request: httpx.Request | None = None
        try:
            client = _client_for(endpoint)
            request = endpoint.request(client, body, progress)
            response = _send(client, request, endpoint)
        except BaseException as error:
            lease.end()
            if request is None or not isinstance(error, failures()):
                raise
            failure = open_failure(error, request, progress, endpoint.base_url)
        else:
            opened = Response(
                response,
                lease,
                is_own=endpoint.client is None,
                stall_timeout=endpoint.stall_timeout,
            )
            if opened.kind:
                admission.accepted(lease, reported_by_answer(opened.headers))
                return opened
            # First, since reading the body closes the response, which ends the lease.
            if response.status_code == 429:
                admission.refused(lease, reported_by_refusal(opened.headers))
            failure = refusal(
                response, opened.excerpt(), endpoint.base_url, endpoint.without_key
            )
        raise admission.failed(failure)

    try:
        return _retried(send, admission, on_retry)
    finally:
        admission.leave()


async def aopen_stream(
    endpoint: Endpoint,
    body: bytes,
    policy: RetryPolicy,
    on_retry: Callable[[RetryCallState], Awaitable[None]] | None = None,
) -> Response:
    """The async twin of `open_stream`."""
    admission = _admission(endpoint, policy)

    async def send() -> Response:
        lease = await admission.aenter()
        progress = Progress()
        request: httpx.Request | None = None
        try:
            client = _aclient_for(endpoint)
            request = endpoint.request(client, body, progress)
            response = await _asend(client, request, endpoint)
        except BaseException as error:
            lease.end()
            if request is None or not isinstance(error, failures()):
                raise
            failure = open_failure(error, request, progress, endpoint.base_url)
        else:
            opened = Response(
                response,
                lease,
                is_own=endpoint.async_client is None,
                stall_timeout=endpoint.stall_timeout,
            )
            if opened.kind:
                admission.accepted(lease, reported_by_answer(opened.headers))
                return opened
            # First, since reading the body closes the response, which ends the lease.
            if response.status_code == 429:
                await admission.arefused(lease, reported_by_refusal(opened.headers))
            failure = refusal(
                response, await opened.aexcerpt(), endpoint.base_url, endpoint.without_key
            )
        raise admission.failed(failure)

    try:
        return await _aretried(send, admission, on_retry)
    finally:
        admission.leave()


def _retried(
    send: Callable[[], Response],
    admission: Admission,
    on_retry: Callable[[RetryCallState], None] | None,
) -> Response:
    """Send, and have tenacity send again after the first failure: most calls have none."""
    first: list[ThinnestError] = []
    try:
        return send()
    except ThinnestError as error:
        if not admission.may_retry(error):
            raise
        first.append(error)
    from tenacity import Retrying

    def again() -> Response:
        if first:
            raise first.pop()  # which is not kept: its traceback leads back to this frame
        return send()

    retrying = Retrying(**_retrying(admission), before_sleep=on_retry)
    response: Response = retrying(again)
    return response


async def _aretried(
    send: Callable[[], Awaitable[Response]],
    admission: Admission,
    on_retry: Callable[[RetryCallState], Awaitable[None]] | None,
) -> Response:
    """The async twin of `_retried`."""
    first: list[ThinnestError] = []
    try:
        return await send()
    except ThinnestError as error:
        if not admission.may_retry(error):
            raise
        first.append(error)
    from tenacity import AsyncRetrying

    async def again() -> Response:
        if first:
            raise first.pop()  # which is not kept: its traceback leads back to this frame
        return await send()

    retrying = AsyncRetrying(**_retrying(admission), before_sleep=on_retry)
    response: Response = await retrying(again)
    return response


def _client_for(endpoint: Endpoint) -> httpx.Client:
    return endpoint.client or CLIENTS.get(endpoint.base_url, endpoint.transport)


def _aclient_for(endpoint: Endpoint) -> httpx.AsyncClient:
    return endpoint.async_client or ASYNC_CLIENTS.get(endpoint.base_url, endpoint.transport)


# Twins differ: a task can be cancelled.
def _send(client: httpx.Client, request: httpx.Request, endpoint: Endpoint) -> httpx.Response:
    return client.send(request, auth=endpoint.sign, stream=True, follow_redirects=False)


async def _asend(
    client: httpx.AsyncClient, request: httpx.Request, endpoint: Endpoint
) -> httpx.Response:
    """Send a request; over a caller's client in a task of its own.

    httpx's own pool loses a connection whose task is cancelled twice. There the task is
    cancelled once, and is waited for. While TLS begins, it loses it after one, too.
    """
    sending = client.send(request, auth=endpoint.sign, stream=True, follow_redirects=False)
    if endpoint.async_client is None:
        return await sending
    task = asyncio.ensure_future(sending)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.cancel()
        await finish(lambda: _given_up(task, request.extensions[PROGRESS]))
        raise


# No twin: it closes what a cancelled task leaves.
async def _given_up(task: asyncio.Future[httpx.Response], progress: Progress) -> None:
    await asyncio.wait([task])
    if not task.cancelled() and task.exception() is None:
        await task.result().aclose()
    elif progress.is_connecting:
        for network in progress.networks:
            await network.aclose()


def _admission(endpoint: Endpoint, policy: RetryPolicy) -> Admission:
    account = account_for(endpoint.base_url, endpoint.api_key, endpoint.shared_limits)
    return Admission(account, policy, endpoint.max_streams)


def _retrying(admission: Admission) -> dict[str, Any]:
    from tenacity import retry_if_exception

    tries = admission.tries
    return {
        "stop": lambda _: tries.are_over,
        "retry": retry_if_exception(tries.policy.should_retry),
        "wait": lambda state: tries.delay(state.outcome.exception()),
        "reraise": True,
    }
