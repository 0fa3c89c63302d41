"""Every way in which a request or its answer can fail, as an error of this package.

One place decides what was wrong, whether the message was sent, and whether to send it again.
It looks at httpx's exceptions and responses, and does no I/O.
"""

from __future__ import annotations

import json
import re
import ssl
import sys
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from langchain_thinnest._http.progress import Progress, Sent
from langchain_thinnest._http.retries import retry_delay
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
    httpx.LocalProtocolError,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)
_FATE = {
    Sent.NO: "The message was not sent.",
    Sent.UNKNOWN: "It is not known whether the message arrived: the agent may have acted on "
    "it, so it was not tried again.",
    Sent.YES: "The message was sent and the agent may have acted on it, so it was not sent "
    "again.",
}


def failures() -> tuple[type[Exception], ...]:
    """What clients raise: httpx's, and those of its continuation httpx2 where that is used."""
    # httpx lets an async client's TLS errors through as they are.
    known: tuple[type[Exception], ...] = (httpx.HTTPError, ssl.SSLError)
    httpx2 = sys.modules.get("httpx2")
    return known if httpx2 is None else (*known, httpx2.HTTPError)


def as_httpx(error: Exception) -> Exception:
    """Return httpx's exception for one of httpx2's, which has the same name."""
    names = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "httpx2"]
    kind = next((getattr(httpx, name) for name in names if hasattr(httpx, name)), None)
    if kind is None:
        return error
    same: Exception = kind.__new__(kind, str(error))
    same.__cause__ = error.__cause__
    if hasattr(error, "_request"):
        same._request = error._request  # type: ignore[attr-defined]  # noqa: SLF001
    return same


def sent_by(error: Exception, request: httpx.Request, progress: Progress) -> Sent:
    """Say whether the message was sent, for an error that came in place of a response."""
    if progress.sent is not None:
        return progress.sent
    # Without a trace: a mock, or what stands before the transport (an event hook).
    if not _is_of_transport(error, request) or isinstance(error, _NEVER_SENT):
        return Sent.NO
    return Sent.UNKNOWN


def open_failure(
    error: Exception, request: httpx.Request, progress: Progress, base_url: str
) -> ThinnestError:
    """The error for a request that got no response.

    Args:
        error: What the client raised.
        request: The request.
        progress: How far it got.
        base_url: Where it went.
    """
    error = as_httpx(error)
    sent = sent_by(error, request, progress)
    fate = _FATE[sent]
    because = str(error) or type(error).__name__
    if not _is_of_transport(error, request):
        what = "request to" if sent is Sent.NO else "answer of"
        return ThinnestConnectionError(
            f"The {what} {base_url} was refused by a hook of the client that was given: "
            f"{type(error).__name__}: {because}. {fate}"
        )
    if isinstance(error, httpx.LocalProtocolError):
        return ThinnestRequestError(f"The request cannot be sent: {because}. {fate}")
    if isinstance(error, httpx.TimeoutException):
        what = "accept a connection" if sent is Sent.NO else "begin its answer"
        return ThinnestTimeoutError(
            f"{base_url} did not {what} in time ({type(error).__name__}). {fate} "
            "The field `timeout` sets how long to wait.",
            is_retryable=sent is Sent.NO,
        )
    if sent is Sent.NO:
        return ThinnestConnectionError(
            f"Could not connect to {base_url}: {because}. {fate}",
            is_retryable=not _is_final(error),
        )
    if (reset := _reset_of(error)) is not None:
        return _reset_failure(reset, progress, base_url, fate)
    if isinstance(error, httpx.RemoteProtocolError) and "disconnected" not in because:
        return ThinnestProtocolError(
            f"What {base_url} answered is not HTTP: {because}. {fate}"
        )
    return ThinnestConnectionError(
        f"{base_url} hung up before it began its answer: {because}. {fate}"
    )


def _is_of_transport(error: Exception, request: httpx.Request) -> bool:
    """Whether the transport raised it: httpx then says which request was under way."""
    if isinstance(error, httpx.RequestError):
        return getattr(error, "_request", None) is request
    return not isinstance(error, httpx.HTTPError)  # httpx lets TLS errors through


def _is_final(error: Exception) -> bool:
    """Whether it would be the same the next time: a certificate, or a proxy that refuses."""
    if isinstance(error, httpx.ProxyError):
        return _PROXY_REFUSES.match(str(error)) is not None
    return _is_tls_failure(error) or isinstance(error, httpx.UnsupportedProtocol)


# A status of 4xx; and what httpcore says of a SOCKS proxy that wants other credentials.
_PROXY_REFUSES = re.compile(
    r"4\d\d\b|Invalid username|Requested .* but got|.*not allowed", re.IGNORECASE
)


def _reset_of(error: Exception) -> Any:
    """HTTP/2's event that ended a stream or the connection, where that is what happened."""
    cause = error.__cause__
    event = cause.args[0] if cause is not None and cause.args else None
    return event if hasattr(event, "error_code") else None


def _reset_failure(
    event: Any, progress: Progress, base_url: str, fate: str
) -> ThinnestConnectionError:
    """The error for a stream that the server reset, or a connection that it went away from.

    REFUSED_STREAM, and a stream after the last one that GOAWAY names, were not processed
    (RFC 9113, 8.7 and 6.8): these are safe to send again.
    """
    last = getattr(event, "last_stream_id", None)
    is_untouched = event.error_code == _REFUSED_STREAM or (
        last is not None and progress.stream_id is not None and progress.stream_id > last
    )
    if is_untouched:
        return ThinnestConnectionError(
            f"{base_url} did not take the request ({event!r}): it says that the message was "
            "not processed.",
            is_retryable=True,
        )
    return ThinnestConnectionError(
        f"{base_url} ended the stream before it began its answer ({event!r}). {fate}"
    )


_REFUSED_STREAM = 7


def _is_tls_failure(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return not isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError))
        error = error.__cause__ or error.__context__
    return False


EVENT_STREAM, JSON = "text/event-stream", "application/json"


def answer_kind(status: int, headers: Mapping[str, str]) -> str | None:
    """The content type of an answer; `None` if the response is something else."""
    if status != 200:
        return None
    given = headers.get("content-type", EVENT_STREAM)
    if given == EVENT_STREAM:
        return given
    # Two headers are one with a comma: some proxies add a second.
    kinds = [part.partition(";")[0].strip().lower() for part in given.split(",")]
    return next((kind for kind in (EVENT_STREAM, JSON) if kind in kinds), None)


def refusal(
    response: httpx.Response, body: bytes, base_url: str, without_key: Callable[[str], str]
) -> ThinnestError:
    """The error for a response that is no answer."""
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
            f"an event stream belongs; check base_url and endpoint{said}"
        )
        return ThinnestProtocolError(f"{base_url} {what}", **known)
    wait = retry_delay(response.headers) if status in (429, 503) else None
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


# Where servers say what went wrong: FastAPI, OpenAI's form, OAuth, RFC 9457, gateways.
_REASONS = (
    "detail",
    "message",
    "error_description",
    "error",
    "errors",
    "reason",
    "msg",
    "description",
    "error_message",
    "content",
    "title",
    "data",
    "response",
    "fault",
    "faultstring",
)


def _detail(body: bytes) -> str:
    """What an error body says: its reason, under whichever key, or else its text."""
    text = body.decode("utf-8", "replace")
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return " ".join(text.split())
    text = _reason(said) or json.dumps(said)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _reason(said: Any, levels: int = 6) -> str:
    """The reason in a JSON value; empty if there is none."""
    if isinstance(said, str):
        return said if said.strip() else ""
    if not levels:
        return ""
    if isinstance(said, list):
        return "; ".join(filter(None, (_item(item, levels - 1) for item in said)))
    if not isinstance(said, dict):
        return ""
    values = {key.lower().replace("-", "_"): value for key, value in said.items()}
    found = (_reason(values.get(key), levels - 1) for key in _REASONS)
    return next(filter(None, found), "") or _by_field(values.get("errors"), levels - 1)


def _by_field(errors: Any, levels: int) -> str:
    """The reasons in {"field": ["reason", ...], ...}."""
    if not isinstance(errors, dict):
        return ""
    reasons = ((field, _reason(said, levels)) for field, said in errors.items())
    return "; ".join(f"{field}: {reason}" for field, reason in reasons if reason)


def _item(item: Any, levels: int) -> str:
    """One of several errors; of a validation: {"loc": [...], "msg": "...", "type": "..."}."""
    reason = _reason(item, levels)
    if isinstance(item, dict) and isinstance(item.get("loc"), list):
        return f"{'.'.join(map(str, item['loc']))}: {reason}"
    return reason or (json.dumps(item) if item else "")


_CUT_JSON = (
    "The answer in JSON was cut before it was whole: {}. Nothing of it can be read; the agent "
    "may have acted all the same."
)


def closed_early(*, is_json: bool = False) -> ThinnestStreamError:
    if is_json:
        return ThinnestProtocolError(_CUT_JSON.format("the server ended it"))
    return ThinnestInterruptedError(
        "The server closed the stream before its `done` event, so the answer is not whole. "
        "What came is in `partial`; the agent may have acted all the same."
    )


def body_failure(
    error: Exception, stall_timeout: float | None = None, *, is_json: bool = False
) -> ThinnestStreamError:
    """The error for a body that cannot be read on.

    Args:
        error: What reading it raised.
        stall_timeout: Given where it is what ended the read, not the read's own timeout.
        is_json: The body is an answer in JSON, not a stream.
    """
    error = as_httpx(error)
    if isinstance(error, httpx.TimeoutException) and stall_timeout is not None:
        return stalled(stall_timeout)
    because = str(error) or type(error).__name__
    if isinstance(error, httpx.DecodingError):
        return ThinnestProtocolError(f"The stream's compression is broken: {because}")
    if isinstance(error, httpx.TimeoutException):
        because = "nothing came for as long as the field `timeout` allows (read)"
    if is_json:  # a part of a stream is a part of an answer; a part of JSON is no JSON
        is_late = isinstance(error, httpx.TimeoutException)
        kind = ThinnestInterruptedError if is_late else ThinnestProtocolError
        return kind(_CUT_JSON.format(because))
    return ThinnestInterruptedError(
        f"The stream was cut before its `done` event: {because}. What came is in `partial`; "
        "the agent may have acted all the same."
    )


def stalled(stall_timeout: float) -> ThinnestStreamError:
    return ThinnestInterruptedError(
        f"No event came for {stall_timeout:g} s, as long as the field `stall_timeout` "
        "allows; heartbeats are no events. What came is in `partial`; the agent may have "
        "acted all the same."
    )
