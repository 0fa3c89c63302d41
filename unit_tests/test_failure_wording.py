"""What users read when a request or its answer fails: each message, whole."""

from __future__ import annotations

import ssl
import sys
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from langchain_thinnest import (
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
    ThinnestTimeoutError,
)
from langchain_thinnest._http.failures import (
    answer_kind,
    as_httpx,
    body_failure,
    closed_early,
    failures,
    open_failure,
    refusal,
    sent_by,
    stalled,
)
from langchain_thinnest._http.progress import Progress, Sent

URL = "https://a.example"
REQUEST = httpx.Request("POST", URL)
OTHER = httpx.Request("POST", "https://b.example")
NOT_SENT = "The message was not sent."
UNKNOWN = (
    "It is not known whether the message arrived: the agent may have acted on it, so it was "
    "not tried again."
)
SENT = "The message was sent and the agent may have acted on it, so it was not sent again."


def progress(sent: Sent | None = None, stream_id: int | None = None) -> Progress:
    made = Progress()
    made.sent, made.stream_id = sent, stream_id
    return made


def of(kind: type[httpx.RequestError], text: str = "why", cause: Any = None) -> Exception:
    error = kind(text, request=REQUEST)
    error.__cause__ = cause
    return error


# --- no answer began ---


def hook(what: str, fate: str) -> str:
    return (
        f"The {what} {URL} was refused by a hook of the client that was given: "
        f"ReadError: why. {fate}"
    )


def late(what: str, name: str, fate: str) -> str:
    return (
        f"{URL} did not {what} in time ({name}). {fate} The field `timeout` sets how long to "
        "wait."
    )


RESET = httpx.RemoteProtocolError
NO_HTTP = f"What {URL} answered is not HTTP: why."
HUNG_UP = f"{URL} hung up before it began its answer:"
NO_CONNECTION = f"Could not connect to {URL}:"


@pytest.mark.parametrize(
    ("error", "sent", "kind", "said"),
    [
        (
            httpx.ReadError("why"),
            Sent.NO,
            ThinnestConnectionError,
            hook("request to", NOT_SENT),
        ),
        (
            httpx.ReadError("why", request=OTHER),
            Sent.NO,
            ThinnestConnectionError,
            hook("request to", NOT_SENT),
        ),
        (httpx.ReadError("why"), Sent.YES, ThinnestConnectionError, hook("answer of", SENT)),
        (
            httpx.ReadError("why"),
            Sent.UNKNOWN,
            ThinnestConnectionError,
            hook("answer of", UNKNOWN),
        ),
        (
            of(httpx.LocalProtocolError),
            Sent.NO,
            ThinnestRequestError,
            f"The request cannot be sent: why. {NOT_SENT}",
        ),
        (
            of(httpx.ConnectTimeout),
            Sent.NO,
            ThinnestTimeoutError,
            late("accept a connection", "ConnectTimeout", NOT_SENT),
        ),
        (
            of(httpx.ReadTimeout),
            Sent.YES,
            ThinnestTimeoutError,
            late("begin its answer", "ReadTimeout", SENT),
        ),
        (
            of(httpx.WriteTimeout),
            Sent.UNKNOWN,
            ThinnestTimeoutError,
            late("begin its answer", "WriteTimeout", UNKNOWN),
        ),
        (
            of(httpx.ConnectError),
            Sent.NO,
            ThinnestConnectionError,
            f"{NO_CONNECTION} why. {NOT_SENT}",
        ),
        (
            of(httpx.ConnectError, ""),
            Sent.NO,
            ThinnestConnectionError,
            f"{NO_CONNECTION} ConnectError. {NOT_SENT}",
        ),
        (of(RESET), Sent.YES, ThinnestProtocolError, f"{NO_HTTP} {SENT}"),
        (of(RESET), Sent.UNKNOWN, ThinnestProtocolError, f"{NO_HTTP} {UNKNOWN}"),
        (
            of(RESET, "Server disconnected without a response"),
            Sent.YES,
            ThinnestConnectionError,
            f"{HUNG_UP} Server disconnected without a response. {SENT}",
        ),
        (
            of(httpx.ReadError),
            Sent.UNKNOWN,
            ThinnestConnectionError,
            f"{HUNG_UP} why. {UNKNOWN}",
        ),
        (
            of(httpx.ReadError, "", OSError("a cause that is no event")),
            Sent.YES,
            ThinnestConnectionError,
            f"{HUNG_UP} ReadError. {SENT}",
        ),
        (
            of(httpx.ReadError, "", OSError()),
            Sent.YES,
            ThinnestConnectionError,
            f"{HUNG_UP} ReadError. {SENT}",
        ),
    ],
)
def test_no_answer_began(
    error: Exception, sent: Sent, kind: type[ThinnestError], said: str
) -> None:
    failure = open_failure(error, REQUEST, progress(sent), URL)
    assert type(failure) is kind
    assert str(failure) == said


PROXY = httpx.ProxyError


@pytest.mark.parametrize(
    ("error", "is_retryable"),
    [
        (of(httpx.ConnectError), True),
        (of(httpx.ConnectTimeout), True),
        (of(httpx.PoolTimeout), True),
        (of(httpx.UnsupportedProtocol), False),
        (of(httpx.ConnectError, cause=ssl.SSLCertVerificationError("self-signed")), False),
        (of(httpx.ConnectError, cause=ssl.SSLEOFError("eof")), True),
        (of(httpx.ConnectError, cause=ssl.SSLZeroReturnError("closed")), True),
        (of(httpx.ConnectError, cause=OSError("refused")), True),
        (ssl.SSLError("bad"), False),
        (of(PROXY, "407 Proxy Authentication Required"), False),
        (of(PROXY, "403"), False),
        (of(PROXY, "4031"), True),
        (of(PROXY, "502 Bad Gateway"), True),
        (of(PROXY, "Invalid username/password"), False),
        (of(PROXY, "Requested username/password from proxy server, but got none."), False),
        (of(PROXY, "Connection not allowed by ruleset"), False),
        (of(PROXY, "Host unreachable"), True),
    ],
)
def test_what_was_not_sent_is_sent_again_unless_it_would_be_the_same(
    error: Exception, is_retryable: bool
) -> None:
    assert open_failure(error, REQUEST, progress(Sent.NO), URL).is_retryable is is_retryable
    if not isinstance(error, httpx.TimeoutException):
        return
    for sent in (Sent.UNKNOWN, Sent.YES):
        assert open_failure(error, REQUEST, progress(sent), URL).is_retryable is False


def test_a_tls_failure_below_another_error() -> None:
    inner = ValueError("x")
    inner.__context__ = ssl.SSLCertVerificationError("self-signed")
    error = of(httpx.ConnectError, cause=inner)
    assert not open_failure(error, REQUEST, progress(Sent.NO), URL).is_retryable


class Event(SimpleNamespace):
    def __repr__(self) -> str:
        return "<event>"


@pytest.mark.parametrize(
    ("event", "stream_id", "is_untouched"),
    [
        (Event(error_code=7), 3, True),  # REFUSED_STREAM
        (Event(error_code=8), 3, False),
        (Event(error_code=0, last_stream_id=1), 3, True),  # GOAWAY
        (Event(error_code=0, last_stream_id=3), 3, False),
        (Event(error_code=0, last_stream_id=5), 3, False),
        (Event(error_code=0, last_stream_id=None), 3, False),
        (Event(error_code=0, last_stream_id=1), None, False),
        (Event(error_code=0, last_stream_id=0), 1, True),
    ],
)
@pytest.mark.parametrize(("sent", "fate"), [(Sent.YES, SENT), (Sent.UNKNOWN, UNKNOWN)])
def test_a_stream_that_was_reset(
    event: Event, stream_id: int | None, is_untouched: bool, sent: Sent, fate: str
) -> None:
    error = of(RESET, cause=Exception(event))
    failure = open_failure(error, REQUEST, progress(sent, stream_id), URL)
    assert type(failure) is ThinnestConnectionError
    assert failure.is_retryable is is_untouched
    assert str(failure) == (
        f"{URL} did not take the request (<event>): it says that the message was not "
        "processed."
        if is_untouched
        else f"{URL} ended the stream before it began its answer (<event>). {fate}"
    )


@pytest.mark.parametrize(
    ("error", "sent"),
    [
        (of(httpx.ConnectError), Sent.NO),
        (of(httpx.ConnectTimeout), Sent.NO),
        (of(httpx.LocalProtocolError), Sent.NO),
        (of(httpx.PoolTimeout), Sent.NO),
        (of(httpx.ProxyError), Sent.NO),
        (of(httpx.UnsupportedProtocol), Sent.NO),
        (of(httpx.ReadError), Sent.UNKNOWN),
        (of(httpx.ReadTimeout), Sent.UNKNOWN),
        (ssl.SSLError("x"), Sent.UNKNOWN),
        (httpx.ReadError("x"), Sent.NO),  # a hook's
        (httpx.ReadError("x", request=OTHER), Sent.NO),
        (httpx.InvalidURL("x"), Sent.UNKNOWN),
        (httpx.HTTPStatusError("x", request=REQUEST, response=httpx.Response(400)), Sent.NO),
    ],
)
def test_whether_it_was_sent_where_nothing_was_traced(error: Exception, sent: Sent) -> None:
    assert sent_by(error, REQUEST, progress()) is sent
    for known in Sent:
        assert sent_by(error, REQUEST, progress(known)) is known


# --- errors of httpx2 ---


def newer(name: str, *bases: type[Exception], module: str = "httpx2") -> type[Exception]:
    return type(name, bases or (Exception,), {"__module__": module})


def test_an_error_of_httpx2_is_httpxs_of_that_name() -> None:
    error = newer("ReadTimeout")("slow")
    error.__cause__ = OSError("why")
    error._request = REQUEST  # type: ignore[attr-defined]
    same = as_httpx(error)
    assert type(same) is httpx.ReadTimeout
    assert str(same) == "slow"
    assert same.__cause__ is error.__cause__
    assert same.request is REQUEST
    assert not hasattr(as_httpx(newer("ReadTimeout")("slow")), "_request")


def test_an_error_that_httpx_has_not_is_its_next_class() -> None:
    assert type(as_httpx(newer("Newest", newer("ReadError"))("x"))) is httpx.ReadError
    for unknown in (newer("Newest")("x"), newer("ReadError", module="other")("x")):
        assert as_httpx(unknown) is unknown


# --- refusals ---


def refused(status: int, body: bytes = b"", **headers: str) -> ThinnestError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = httpx.Response(status, headers=named)
    return refusal(response, body, URL, lambda text: text.replace("secret", "***"))


@pytest.mark.parametrize(
    ("status", "kind", "meaning"),
    [
        (
            401,
            ThinnestAuthenticationError,
            "The API key is missing or invalid. Set THINNEST_API_KEY or pass api_key=...",
        ),
        (402, ThinnestBalanceError, "The account's balance is insufficient"),
        (403, ThinnestPermissionError, "This API key may not use the agent"),
        (404, ThinnestNotFoundError, "There is no such agent"),
        (429, ThinnestRateLimitError, "The rate limit is exceeded"),
        (400, ThinnestRequestError, "The server refused the request"),
        (499, ThinnestRequestError, "The server refused the request"),
        (500, ThinnestServerError, "The server failed"),
        (599, ThinnestServerError, "The server failed"),
    ],
)
def test_a_refusal(status: int, kind: type[ThinnestError], meaning: str) -> None:
    error = refused(status, b'{"detail": "no secret"}', x_request_id="r_1")
    assert type(error) is kind
    assert str(error) == f"{meaning} [{status}]: no ***"
    assert (error.status_code, error.detail, error.request_id) == (status, "no ***", "r_1")
    assert error.is_retryable is (status == 429)
    bare = refused(status)
    assert str(bare) == f"{meaning} [{status}]"
    assert (bare.detail, bare.request_id, bare.retry_after) == (None, None, None)


@pytest.mark.parametrize(
    ("status", "wait", "is_retryable"),
    [(429, 7.0, True), (503, 7.0, True), (500, None, False), (502, None, False)],
)
def test_a_refusal_that_asks_to_wait(
    status: int, wait: float | None, is_retryable: bool
) -> None:
    error = refused(status, b"busy", retry_after="7")
    assert error.retry_after == wait
    assert error.is_retryable is is_retryable
    assert str(error).endswith(
        "]: busy (the server asks to wait 7 s)" if wait is not None else "]: busy"
    )


def test_a_server_that_is_down_and_does_not_say_for_how_long() -> None:
    assert refused(503).is_retryable is False


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        (
            302,
            {"location": "https://b.example/?secret"},
            (
                "redirected to 'https://b.example/?***', which is not followed, since the "
                "request carries the API key; check base_url"
            ),
        ),
        (
            201,
            {},
            (
                "answered 201 with None where an event stream belongs; check base_url and "
                "endpoint: page"
            ),
        ),
        (
            299,
            {"content_type": "text/html"},
            (
                "answered 299 with 'text/html' where an event stream belongs; check base_url "
                "and endpoint: page"
            ),
        ),
    ],
)
def test_a_response_that_is_no_refusal(
    status: int, headers: dict[str, str], said: str
) -> None:
    error = refused(status, b"page", **headers, x_request_id="r_1")
    assert type(error) is ThinnestProtocolError
    assert str(error) == f"{URL} {said}"
    assert (error.status_code, error.detail, error.request_id) == (status, "page", "r_1")
    assert not error.is_retryable


def test_a_long_reason_is_cut() -> None:
    for length, kept in ((500, 500), (501, 500)):
        assert refused(400, b"x" * length).detail == "x" * kept


REASONS = [
    *("detail", "message", "error_description", "error", "errors", "reason", "msg"),
    *("description", "error_message", "content", "title", "data", "response", "fault"),
    "faultstring",
]


@pytest.mark.parametrize("key", REASONS)
def test_where_a_reason_stands(key: str) -> None:
    for written in (key, key.upper(), key.replace("_", "-"), key.title()):
        body = httpx.Response(400, json={"code": "c", written: "why"}).content
        assert refused(400, body).detail == "why"


def nested(levels: int) -> bytes:
    return b'{"error": ' * levels + b'"why"' + b"}" * levels


def by_field(levels: int) -> bytes:
    return b'{"errors": {"a": ' * levels + b'{"msg": "why"}' + b"}}" * levels


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (nested(6), "why"),
        (nested(7), nested(7).decode()),
        (b"[" * 5 + b'"why"' + b"]" * 5, "why"),
        (b"[" * 9 + b'{"m": 1}' + b"]" * 9, "[" * 3 + '{"m": 1}' + "]" * 3),
        (by_field(5), "a: a: a: a: a: why"),
        (by_field(6), by_field(6).decode()),
        (b'["", "why", null, {}, 7, ["x", ["y"]]]', "why; 7; x; y"),
        (b'[{"loc": ["body", 0, "x"], "msg": "too long"}]', "body.0.x: too long"),
        (b'[{"loc": "body", "msg": "too long"}]', "too long"),
        (b'[{"loc": ["body"]}]', "body: "),
        (b'[{"code": 7}]', '{"code": 7}'),
        (b'{"errors": {"a": ["x"], "b": "", "c": {"msg": "y"}}}', "a: x; c: y"),
        (b'{"errors": 7}', '{"errors": 7}'),
        (b"7", "7"),
        (b'""', '""'),
        (b" a \n b ", "a b"),
    ],
)
def test_what_a_body_says(body: bytes, detail: str) -> None:
    assert refused(400, body).detail == detail


# --- answers ---


@pytest.mark.parametrize(
    ("status", "given", "kind"),
    [
        (200, None, "text/event-stream"),
        (200, "text/event-stream", "text/event-stream"),
        (200, "TEXT/Event-Stream ; charset=utf-8", "text/event-stream"),
        (200, "text/html, text/event-stream", "text/event-stream"),
        (200, "application/json, text/event-stream", "text/event-stream"),
        (200, "application/json; charset=utf-8", "application/json"),
        (200, "text/html, Application/JSON", "application/json"),
        (200, "text/html,text/event-stream", "text/event-stream"),
        (200, "text/html", None),
        (200, "", None),
        (201, "text/event-stream", None),
        (204, None, None),
    ],
)
def test_the_kind_of_an_answer(status: int, given: str | None, kind: str | None) -> None:
    headers = {} if given is None else {"content-type": given}
    assert answer_kind(status, headers) == kind


MAY_HAVE_ACTED = "What came is in `partial`; the agent may have acted all the same."
TOO_LATE = "nothing came for as long as the field `timeout` allows (read)"
STALLED = (
    "No event came for 2.5 s, as long as the field `stall_timeout` allows; heartbeats are no "
    f"events. {MAY_HAVE_ACTED}"
)


def cut(because: str) -> str:
    return f"The stream was cut before its `done` event: {because}. {MAY_HAVE_ACTED}"


def cut_json(because: str) -> str:
    return (
        f"The answer in JSON was cut before it was whole: {because}. Nothing of it can be "
        "read; the agent may have acted all the same."
    )


@pytest.mark.parametrize(
    ("error", "stall", "is_json", "kind", "said"),
    [
        (httpx.ReadError("why"), None, False, ThinnestInterruptedError, cut("why")),
        (httpx.ReadError(""), None, False, ThinnestInterruptedError, cut("ReadError")),
        (httpx.ReadError("why"), 2.5, False, ThinnestInterruptedError, cut("why")),
        (httpx.ReadTimeout("x"), None, False, ThinnestInterruptedError, cut(TOO_LATE)),
        (httpx.ReadTimeout("x"), 2.5, False, ThinnestInterruptedError, STALLED),
        (httpx.ReadError("why"), None, True, ThinnestProtocolError, cut_json("why")),
        (httpx.ReadTimeout("x"), None, True, ThinnestInterruptedError, cut_json(TOO_LATE)),
        (
            httpx.DecodingError("why"),
            None,
            False,
            ThinnestProtocolError,
            "The stream's compression is broken: why",
        ),
        (
            httpx.DecodingError("why"),
            None,
            True,
            ThinnestProtocolError,
            "The stream's compression is broken: why",
        ),
        (newer("ReadTimeout")("x"), None, False, ThinnestInterruptedError, cut(TOO_LATE)),
    ],
)
def test_a_body_that_cannot_be_read_on(
    error: Exception, stall: float | None, is_json: bool, kind: type[ThinnestError], said: str
) -> None:
    failure = body_failure(error, stall, is_json=is_json)
    assert type(failure) is kind
    assert str(failure) == said
    assert str(body_failure(error, stall)) == said or is_json


def test_a_body_that_ends_early() -> None:
    for failure, kind, said in (
        (
            closed_early(),
            ThinnestInterruptedError,
            (
                "The server closed the stream before its `done` event, so the answer is not "
                f"whole. {MAY_HAVE_ACTED}"
            ),
        ),
        (closed_early(is_json=True), ThinnestProtocolError, cut_json("the server ended it")),
        (stalled(2.5), ThinnestInterruptedError, STALLED),
    ):
        assert type(failure) is kind
        assert str(failure) == said


def test_what_clients_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "httpx2", raising=False)
    assert failures() == (httpx.HTTPError, ssl.SSLError)
    error = newer("HTTPError")
    monkeypatch.setitem(
        sys.modules, "httpx2", cast("ModuleType", SimpleNamespace(HTTPError=error))
    )
    assert failures() == (httpx.HTTPError, ssl.SSLError, error)
