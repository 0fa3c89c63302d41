"""Every way in which a request or its answer can fail, as an error of this package.

One place decides what was wrong, whether the message was sent, and whether to send it again.
It looks at httpx's exceptions and responses, and does no I/O.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from typing import Any

import httpx

from langchain_thinnest._http.retries import asked_wait
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

# httpx lets an async client's TLS errors through as they are.
FAILURES = (httpx.HTTPError, ssl.SSLError)
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


def open_failure(error: Exception, base_url: str) -> ThinnestError:
    never_sent = isinstance(error, _NEVER_SENT)
    because = str(error) or type(error).__name__
    if isinstance(error, httpx.TimeoutException):
        what = "did not accept a connection" if never_sent else "did not begin its answer"
        return ThinnestTimeoutError(
            f"{base_url} {what} in time ({type(error).__name__}). "
            + ("" if never_sent else _FATE_UNKNOWN + " ")
            + "The field `timeout` sets how long to wait.",
            is_retryable=never_sent,
        )
    if never_sent:
        # Trying again does not make a certificate valid.
        is_final = _is_tls_failure(error) or isinstance(error, httpx.UnsupportedProtocol)
        return ThinnestConnectionError(
            f"Could not connect to {base_url}: {because}",
            is_retryable=not is_final,
        )
    if isinstance(error, httpx.RemoteProtocolError) and "disconnected" not in because:
        return ThinnestProtocolError(
            f"What {base_url} answered is not HTTP: {because}. " + _FATE_UNKNOWN
        )
    return ThinnestConnectionError(
        f"{base_url} hung up before it began its answer: {because}. " + _FATE_UNKNOWN
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


def refusal(
    response: httpx.Response, body: bytes, base_url: str, without_key: Callable[[str], str]
) -> ThinnestError:
    """The error for a response that is not an event stream."""
    status = response.status_code
    detail = without_key(_detail(body))[:_DETAIL_CHARS] or None
    known: dict[str, Any] = {
        "status_code": status,
        "detail": detail,
        "request_id": response.headers.get("x-request-id"),
    }
    said = f": {detail}" if detail else ""
    if status < 400:
        what = (
            f"redirected to {without_key(response.headers.get('location', ''))!r}, "
            "which is not followed, since the request carries the API key; check base_url"
            if response.is_redirect
            else f"answered {status} with {response.headers.get('content-type')!r} where "
            f"an event stream belongs; check base_url{said}"
        )
        return ThinnestProtocolError(f"{base_url} {what}", **known)
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
    text = body.decode("utf-8", "replace")
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return " ".join(text.split())
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
    text = said if isinstance(said, str) else json.dumps(said)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def closed_early() -> ThinnestStreamError:
    return ThinnestInterruptedError(
        "The server closed the stream before its `done` event, so the answer is not whole. "
        "What came is in `partial`; the agent may have acted all the same."
    )


def body_failure(error: Exception) -> ThinnestStreamError:
    because = str(error) or type(error).__name__
    if isinstance(error, httpx.DecodingError):
        return ThinnestProtocolError(f"The stream's compression is broken: {because}")
    if isinstance(error, httpx.TimeoutException):
        because = "nothing came for as long as the field `timeout` allows (read)"
    return ThinnestInterruptedError(
        f"The stream was cut before its `done` event: {because}. What came is in `partial`; "
        "the agent may have acted all the same."
    )
