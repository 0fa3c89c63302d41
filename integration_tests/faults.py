"""Every fault has one outcome: the table, as data.

`test_faults.py` runs each row in every way to call a model, `break_faults.py` breaks the rule
behind each row to see its tests fail, and `python -m integration_tests.faults` prints the
table as Markdown, which is `docs/faults.md`.
"""

from __future__ import annotations

import gzip
import json
import os
import socket
import ssl
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple
from unittest.mock import patch

import httpx
import trustme
from h2.errors import ErrorCodes

from integration_tests.http2 import Failure, Http2Server, goes_away, reset
from integration_tests.transports import GIVEN
from integration_tests.wire import (
    END,
    HEADERS,
    Bare,
    Close,
    Repeat,
    Reset,
    Step,
    Wait,
    WireServer,
    chunk,
    head,
    refusal,
    stream,
)
from langchain_thinnest import (
    ThinnestAuthenticationError,
    ThinnestBalanceError,
    ThinnestConnectionError,
    ThinnestError,
    ThinnestGenerationError,
    ThinnestInterruptedError,
    ThinnestNotFoundError,
    ThinnestPermissionError,
    ThinnestProtocolError,
    ThinnestRateLimitError,
    ThinnestRequestError,
    ThinnestServerError,
    ThinnestTimeoutError,
)
from unit_tests.contract import EVENTS, TEXT, as_printed, as_sse

TIMEOUT = 5.0  # seconds, where nothing stalls
STALL = 0.6  # seconds without a byte, where something does: the machine may be busy
MAX_EVENT_BYTES = 2000
SOME = EVENTS[:2]
SOME_TEXT = EVENTS[0]["content"] + EVENTS[1]["content"]
DONE = EVENTS[-1]
WHOLE = as_sse(*EVENTS)
LONG = 10.0  # seconds: longer than any call waits


class Reached(NamedTuple):
    """A server that is not scripted."""

    base_url: str
    fields: dict[str, Any]
    requests: Sequence[Any] = ()


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and what comes of it.

    Attributes:
        name: In a few plain words.
        error: The class that is raised; `None`: the answer is whole all the same.
        script: What the server does with each request.
        place: Something else than the scripted server: makes its base URL, the fields that a
            model needs to speak to it, and what requests it has had.
        is_sent_again: The message is sent again while tries are left.
        is_retryable: The error says that sending the message again is safe.
        partial: The text in the error's `partial`; `None` for an error without one.
        text: The text of a whole answer.
        fields: The model's, where the fault is relative to them.
        within: Seconds in which a call ends.
        asks: How many calls are made, one after the other, each with this outcome.
        waits: A call mostly waits. It always does where the script stalls.
        sent: Whether the message was sent: yes, no or unknown, as the error says too.
    """

    name: str
    error: type[ThinnestError] | None = None
    script: list[Step] = field(default_factory=list)
    place: Callable[[], AbstractContextManager[Reached]] | None = None
    is_sent_again: bool = False
    is_retryable: bool = False
    partial: str | None = None
    text: str = TEXT
    fields: dict[str, Any] = field(default_factory=dict)
    within: float = TIMEOUT
    asks: int = 1
    waits: bool = False
    sent: str = "yes"

    @property
    def is_slow(self) -> bool:
        """Whether it is worth the while to run it beside others."""
        return self.waits or any(
            isinstance(step, Wait) or (isinstance(step, Repeat) and step.pause > 0)
            for step in self.script
        )


# --- servers that cannot be scripted, since no request reaches them ---

Place = Iterator[Reached]


@contextmanager
def _nobody() -> Place:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        yield Reached(f"http://127.0.0.1:{taken.getsockname()[1]}", {})


@contextmanager
def _no_such_host() -> Place:
    yield Reached("https://nowhere.invalid", {})


@contextmanager
def _full_backlog() -> Place:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield Reached(
            f"http://127.0.0.1:{listener.getsockname()[1]}",
            {"timeout": httpx.Timeout(TIMEOUT, connect=STALL)},
        )
        for client in waiting:
            client.close()


@contextmanager
def _takes_nothing() -> Place:
    """Accepts the connection, and reads nothing of a request."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        yield Reached(
            f"http://127.0.0.1:{listener.getsockname()[1]}",
            {
                "timeout": httpx.Timeout(TIMEOUT, write=STALL),
                "request_metadata": {"large": "x" * 8_000_000},
            },
        )


@cache
def _authority() -> trustme.CA:
    return trustme.CA()


@cache
def _server_side() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _authority().issue_cert("127.0.0.1").configure_cert(context)
    return context


@contextmanager
def _untrusted() -> Place:
    with WireServer(tls=_server_side()) as server:
        yield Reached(server.base_url, {}, server.requests)


def _in_handshake(*script: Step) -> Any:
    """A server that does this with a connection as soon as the client has said a word."""

    @contextmanager
    def place() -> Place:
        with WireServer(is_deaf=True) as server:
            server.answer(list(script))
            stalls = any(isinstance(step, Wait) for step in script)
            yield Reached(
                server.base_url.replace("http", "https"),
                {"timeout": httpx.Timeout(TIMEOUT, connect=STALL if stalls else TIMEOUT)},
            )

    return place


def _trusted(*script: Step) -> Any:
    """A server that speaks TLS, and clients that trust it."""

    @contextmanager
    def place() -> Place:
        context = ssl.create_default_context()
        _authority().configure_trust(context)
        with WireServer(tls=_server_side()) as server:
            server.answer(list(script))
            with GIVEN.Client(verify=context) as client:
                yield Reached(
                    server.base_url,
                    {
                        "http_client": client,
                        "http_async_client": GIVEN.AsyncClient(verify=context),
                    },
                    server.requests,
                )

    return place


def _proxied(*script: Step) -> Any:
    """A proxy that does this with CONNECT; what it hears of is no message."""

    @contextmanager
    def place() -> Place:
        with WireServer() as proxy, patch.dict(os.environ, {"HTTPS_PROXY": proxy.base_url}):
            proxy.answer(list(script))
            yield Reached("https://thinnest.invalid", {})

    return place


def _environment(base_url: str, **variables: str) -> Any:
    """An environment that cannot be used."""

    @contextmanager
    def place() -> Place:
        with NamedTemporaryFile() as empty:
            given = {name: value.format(empty=empty.name) for name, value in variables.items()}
            with patch.dict(os.environ, given):
                yield Reached(base_url, {})

    return place


@contextmanager
def _hook_that_raises() -> Place:
    def hook(_: httpx.Request) -> None:
        raise httpx.ConnectError("no token")

    async def ahook(request: httpx.Request) -> None:
        hook(request)

    with WireServer() as server, GIVEN.Client(event_hooks={"request": [hook]}) as client:
        server.answer(stream(WHOLE))
        aclient = GIVEN.AsyncClient(event_hooks={"request": [ahook]})
        fields = {"http_client": client, "http_async_client": aclient}
        yield Reached(server.base_url, fields, server.requests)


@contextmanager
def _illegal_header() -> Place:
    """The caller's own clients add a header that HTTP cannot carry."""
    headers = {"X-Team": " blue"}
    with WireServer() as server, GIVEN.Client(headers=headers) as client:
        server.answer(stream(WHOLE))
        fields = {
            "http_client": client,
            "http_async_client": GIVEN.AsyncClient(headers=headers),
        }
        yield Reached(server.base_url, fields, server.requests)


def _http2(failure: Failure) -> Any:
    """A server that speaks HTTP/2 and fails the first request and its second try."""

    @contextmanager
    def place() -> Place:
        none_idle = httpx.Limits(max_keepalive_connections=0)  # whose loop is gone
        options: Any = {"http1": False, "http2": True, "limits": none_idle}
        with Http2Server() as server, GIVEN.Client(**options) as client:
            server.failures = [failure, failure]
            fields = {
                "http_client": client,
                "http_async_client": GIVEN.AsyncClient(**options),
            }
            yield Reached(server.base_url, fields, server.requests)

    return place


# --- scripts ---


def _begun(*data: bytes, **headers: str) -> list[Step]:
    """An answer of unknown length, up to somewhere in its body."""
    begin = head(200, {**HEADERS, "Transfer-Encoding": "chunked", **headers})
    return [begin, *(chunk(piece) for piece in data if piece)]


def _sized(length: int, body: bytes, **headers: str) -> list[Step]:
    return [head(200, {**HEADERS, "Content-Length": str(length), **headers}) + body]


def joined(steps: list[Step], *more: Step) -> bytes:
    """Steps that are bytes alone, as one write."""
    return b"".join(step for step in [*steps, *more] if isinstance(step, bytes))


def _event(**fields: Any) -> bytes:
    return as_sse(fields)


def _with(raw: bytes) -> list[Step]:
    """A whole answer with something odd amid it."""
    return stream(as_sse(*SOME) + raw + as_sse(*EVENTS[2:]))


def _json(body: Any, kind: str = "application/json", **headers: str) -> list[Step]:
    """A whole answer in JSON, or in what are these bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"Content-Type": kind, "Content-Length": str(len(content)), **headers}
    return [head(200, fields) + content]


def _json_begun(*data: bytes) -> list[Step]:
    """An answer in JSON of unknown length, up to somewhere in its body."""
    begin = head(200, {"Content-Type": "application/json", "Transfer-Encoding": "chunked"})
    return [begin, *map(chunk, data)]


def _html(status: int) -> list[Step]:
    return refusal(status, b"<html><h1>Something went wrong</h1></html>")


def _redirect(status: int, to: str = "/elsewhere") -> list[Step]:
    return refusal(status, b"", {"Location": to})


def _flushed(data: bytes) -> bytes:
    """What a server that compresses has sent once it let go of these bytes."""
    packer = zlib.compressobj(wbits=31)
    return packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH)


def _nested(depth: int, beside: bytes = b"") -> list[Step]:
    args = b'{%s"a": %s%s}' % (beside, b"[" * depth, b"]" * depth)
    return _with(b'data: {"type": "tool_call", "name": "f", "args": %s}\n' % args)


GZIP = {"Content-Encoding": "gzip"}
ZIPPED = gzip.compress(WHOLE)
RETRIED = {"is_sent_again": True, "is_retryable": True}
UNSENT = {"sent": "no"}
REFUSED_CONNECTION = {**RETRIED, **UNSENT}
CUT = {"error": ThinnestInterruptedError, "partial": SOME_TEXT}
WRONG = {"error": ThinnestProtocolError, "partial": SOME_TEXT}
NOT_A_STREAM = {"error": ThinnestProtocolError, "partial": ""}
NO_ANSWER = NOT_A_STREAM
FAILED: dict[str, Any] = {"error": ThinnestGenerationError, "partial": ""}
STALLED: dict[str, Any] = {"error": ThinnestInterruptedError, "partial": ""}
WHOLE_JSON = json.dumps({"response": TEXT, "session_id": "s", "tokens_used": 170}).encode()
HALF = WHOLE_JSON[:40]
JSON_SIZED = head(
    200, {"Content-Type": "application/json", "Content-Length": str(len(WHOLE_JSON))}
)

_refused: list[tuple[int, type[ThinnestError]]] = [
    (400, ThinnestRequestError),
    (401, ThinnestAuthenticationError),
    (402, ThinnestBalanceError),
    (403, ThinnestPermissionError),
    (404, ThinnestNotFoundError),
    (405, ThinnestRequestError),
    (408, ThinnestRequestError),
    (409, ThinnestRequestError),
    (413, ThinnestRequestError),
    (418, ThinnestRequestError),
    (422, ThinnestRequestError),
    (500, ThinnestServerError),
    (502, ThinnestServerError),
    (503, ThinnestServerError),
    (504, ThinnestServerError),
    (529, ThinnestServerError),
]

TABLE: dict[str, list[Fault]] = {
    "No connection": [
        Fault("nobody listens", ThinnestConnectionError, place=_nobody, **REFUSED_CONNECTION),
        Fault(
            "unknown host name",
            ThinnestConnectionError,
            place=_no_such_host,
            **REFUSED_CONNECTION,
        ),
        Fault(
            "connect timeout",
            ThinnestTimeoutError,
            place=_full_backlog,
            waits=True,
            **REFUSED_CONNECTION,
        ),
        Fault("untrusted certificate", ThinnestConnectionError, place=_untrusted, **UNSENT),
        Fault(
            "plain HTTP on an https URL",
            ThinnestConnectionError,
            place=_in_handshake(*stream(WHOLE)),
            **UNSENT,
        ),
        Fault(
            "close in the TLS handshake",
            ThinnestConnectionError,
            place=_in_handshake(Close()),
            **REFUSED_CONNECTION,
        ),
        Fault(
            "reset in the TLS handshake",
            ThinnestConnectionError,
            place=_in_handshake(Reset()),
            **REFUSED_CONNECTION,
        ),
        Fault(
            "stall in the TLS handshake",
            ThinnestTimeoutError,
            place=_in_handshake(Wait(LONG)),
            waits=True,
            **REFUSED_CONNECTION,
        ),
        *(
            Fault(
                f"proxy that answers CONNECT with {status}",
                ThinnestConnectionError,
                place=_proxied(head(status, {"Content-Length": "0"})),
                **UNSENT,
            )
            for status in (403, 407)
        ),
        Fault(
            "proxy that answers CONNECT with 502",
            ThinnestConnectionError,
            place=_proxied(head(502, {"Content-Length": "0"})),
            **REFUSED_CONNECTION,
        ),
        Fault(
            "proxy that closes in CONNECT",
            ThinnestConnectionError,
            place=_proxied(Close()),
            **REFUSED_CONNECTION,
        ),
        Fault(
            "proxy that resets in CONNECT",
            ThinnestConnectionError,
            place=_proxied(Reset()),
            **REFUSED_CONNECTION,
        ),
        Fault(
            "proxy that stalls in CONNECT",
            ThinnestTimeoutError,
            place=_proxied(Wait(LONG)),
            # Alone, since the proxy is in the environment.
            fields={"timeout": httpx.Timeout(TIMEOUT, read=0.2)},
            **REFUSED_CONNECTION,
        ),
        *(
            Fault(
                f"proxy in the environment {what}",
                ThinnestRequestError,
                place=_environment("https://thinnest.invalid", HTTPS_PROXY=proxy),
                **UNSENT,
            )
            for what, proxy in {
                "of an unknown kind": "socks://127.0.0.1:1",
                "that is no URL": "http://[::1",
                "by SOCKS, without its package": "socks5://127.0.0.1:1",
            }.items()
        ),
        Fault(
            "empty file of CA certificates",
            ThinnestConnectionError,
            place=_environment("https://127.0.0.1:1", SSL_CERT_FILE="{empty}"),
            **UNSENT,
        ),
        Fault(
            "request hook of a caller's client that raises",
            ThinnestConnectionError,
            place=_hook_that_raises,
            **UNSENT,
        ),
        Fault(
            "header of a caller's client that HTTP cannot carry",
            ThinnestRequestError,
            place=_illegal_header,
            **UNSENT,
        ),
    ],
    "No answer": [
        Fault(
            "server does not read",
            ThinnestTimeoutError,
            place=_takes_nothing,
            within=2 * TIMEOUT,
            waits=True,
            sent="unknown",
        ),
        Fault("close before the status", ThinnestConnectionError, [Close()]),
        Fault("reset before the status", ThinnestConnectionError, [Reset()]),
        Fault("stall before the status", ThinnestTimeoutError, [Wait(LONG)]),
        Fault("close inside the head", ThinnestConnectionError, [head()[:-4], Close()]),
        Fault("reset inside the head", ThinnestConnectionError, [head()[:-4], Reset()]),
        Fault("stall inside the head", ThinnestTimeoutError, [head()[:-4], Wait(LONG)]),
        Fault(
            "garbage in place of a status line",
            script=[b"SSH-2.0-OpenSSH_9.9\r\n\r\n"],
            **NOT_A_STREAM,
        ),
        Fault(
            "head without an end",
            script=[b"HTTP/1.1 200 " + b"x" * 200_000],
            **NOT_A_STREAM,
        ),
        Fault(
            "garbage under TLS in place of an answer",
            ThinnestConnectionError,
            place=_trusted(Bare(b"garbage\n" * 9)),
        ),
        *(
            Fault(
                f"HTTP/2 stream reset with {code.name} before the status",
                ThinnestConnectionError,
                place=_http2(reset(code)),
            )
            for code in (ErrorCodes.INTERNAL_ERROR, ErrorCodes.CANCEL)
        ),
        Fault(
            "HTTP/2 stream reset with REFUSED_STREAM",
            ThinnestConnectionError,
            place=_http2(reset(ErrorCodes.REFUSED_STREAM)),
            **RETRIED,
        ),
        Fault(
            "HTTP/2 GOAWAY that names no stream",
            ThinnestConnectionError,
            place=_http2(goes_away(lambda _: 0)),
            **RETRIED,
        ),
        Fault(
            "HTTP/2 GOAWAY that names the request's stream",
            ThinnestConnectionError,
            place=_http2(goes_away(lambda stream_id: stream_id)),
        ),
    ],
    "A refusal": [
        *(
            Fault(f"status {status}", kind, refusal(status, {"detail": "no"}))
            for status, kind in _refused
        ),
        Fault("status 429", ThinnestRateLimitError, refusal(429), **RETRIED),
        Fault(
            "status 429 with Retry-After",
            ThinnestRateLimitError,
            refusal(429, headers={"Retry-After": "0"}),
            **RETRIED,
        ),
        Fault(
            "status 429 with a Retry-After longer than max_retry_wait",
            ThinnestRateLimitError,
            refusal(429, headers={"Retry-After": "300"}),
            is_retryable=True,
        ),
        Fault(
            "status 429 with a Retry-After that means nothing",
            ThinnestRateLimitError,
            refusal(429, headers={"Retry-After": "soon"}),
            **RETRIED,
        ),
        Fault(
            "status 503 with Retry-After",
            ThinnestServerError,
            refusal(503, headers={"Retry-After": "0"}),
            **RETRIED,
        ),
        Fault("status 500 as an HTML page", ThinnestServerError, _html(500)),
        Fault(
            "refusal as an event stream",
            ThinnestServerError,
            [head(500) + WHOLE, Close()],
        ),
        Fault(
            "refusal whose body is nested 10000 deep",
            ThinnestRequestError,
            refusal(400, b"[" * 10_000 + b"]" * 10_000),
        ),
        Fault(
            "refusal whose validation error has another shape",
            ThinnestRequestError,
            refusal(422, {"detail": [{"loc": 5, "msg": None}, {}, 7, {"loc": None}]}),
        ),
        Fault(
            "refusal whose body is broken gzip",
            ThinnestRequestError,
            refusal(400, b"garbage", {"Content-Encoding": "gzip"}),
        ),
        Fault(
            "refusal whose body stalls",
            ThinnestRequestError,
            [head(400, {"Content-Length": "99"}) + b"no", Wait(LONG)],
        ),
        Fault(
            "refusal whose body is cut",
            ThinnestRequestError,
            [head(400, {"Content-Length": "99"}) + b"no", Reset()],
        ),
        Fault(
            "refusal whose body never ends",
            ThinnestRequestError,
            [head(400, {"Connection": "close"}), Repeat(b"no", 0.05)],
        ),
    ],
    "Not an event stream": [
        *(
            Fault(f"redirect {status}", script=_redirect(status), **NOT_A_STREAM)
            for status in (301, 302, 303, 307, 308)
        ),
        Fault(
            "redirect to what is no URL",
            script=_redirect(302, "http://[::1/:x"),
            **NOT_A_STREAM,
        ),
        Fault("redirect to nowhere", script=refusal(302, b""), **NOT_A_STREAM),
        Fault("status 304", script=[head(304, {})], **NOT_A_STREAM),
        Fault("status 204", script=[head(204, {})], **NOT_A_STREAM),
        Fault("status 206", script=[head(206) + WHOLE, Close()], **NOT_A_STREAM),
        Fault("HTML page with status 200", script=_html(200), **NOT_A_STREAM),
        Fault("JSON with status 201", script=refusal(201, {"response": "hi"}), **NOT_A_STREAM),
        Fault(
            "another content type",
            script=stream(WHOLE, headers={"Content-Type": "text/plain"}),
            **NOT_A_STREAM,
        ),
        Fault("no content type", script=[head(200, {}) + WHOLE, Close()]),
        Fault(
            "content type with a parameter, in capitals",
            script=stream(WHOLE, headers={"Content-Type": "Text/Event-Stream; charset=UTF-8"}),
        ),
        Fault(
            "informational answer first",
            script=[head(103, {"Link": "</x>"}), *stream(WHOLE)],
        ),
    ],
    "Answers in JSON": [
        Fault("JSON, whole", script=_json(WHOLE_JSON)),
        Fault("JSON, whole, in chunks", script=[*_json_begun(HALF, WHOLE_JSON[40:]), END]),
        Fault(
            "JSON in a wrapper",
            script=_json({"data": {"response": TEXT, "session_id": "s"}, "status": 200}),
        ),
        Fault("JSON with a byte order mark", script=_json(b"\xef\xbb\xbf" + WHOLE_JSON)),
        Fault(
            "JSON with a parameter, in capitals",
            script=_json(WHOLE_JSON, "Application/JSON; charset=UTF-8"),
        ),
        Fault("JSON, gzipped", script=_json(gzip.compress(WHOLE_JSON), **GZIP)),
        Fault("JSON, whole, then a reset", script=[*_json_begun(WHOLE_JSON), Reset()]),
        Fault("JSON, whole, then a stall", script=[*_json_begun(WHOLE_JSON), Wait(LONG)]),
        Fault("JSON cut by the server", script=_json(HALF), **NO_ANSWER),
        Fault("JSON cut by a close", script=[JSON_SIZED + HALF, Close()], **NO_ANSWER),
        Fault("JSON cut by a reset", script=[JSON_SIZED + HALF, Reset()], **NO_ANSWER),
        Fault("JSON cut amid its chunks", script=[*_json_begun(HALF), Close()], **NO_ANSWER),
        Fault(
            "JSON cut in its gzip",
            script=[*_json(gzip.compress(WHOLE_JSON)[:-20], **GZIP)],
            **NO_ANSWER,
        ),
        Fault("JSON with broken gzip", script=_json(b"garbage", **GZIP), **NO_ANSWER),
        Fault("JSON of no bytes", script=_json(b""), **NO_ANSWER),
        Fault("JSON stalled at its begin", script=[JSON_SIZED, Wait(LONG)], **STALLED),
        Fault("JSON stalled in its middle", script=[JSON_SIZED + HALF, Wait(LONG)], **STALLED),
        Fault(
            "JSON with spaces for ever",
            script=[*_json_begun(HALF), Repeat(chunk(b" "), 0.02)],
            fields={"stall_timeout": STALL},
            **STALLED,
        ),
        Fault(
            "JSON over max_event_bytes",
            script=_json({"response": "x" * MAX_EVENT_BYTES}),
            **NO_ANSWER,
        ),
        Fault(
            "JSON over max_event_bytes without an end",
            script=[*_json_begun(HALF), Repeat(chunk(b"x" * 500), 0.0)],
            **NO_ANSWER,
        ),
        *(
            Fault(f"JSON that is {what}", script=_json(body), **NO_ANSWER)
            for what, body in {
                "a list": [{"response": "hi"}],
                "a string": "hi",
                "null": None,
                "no JSON": b"<html>",
                "an event stream": WHOLE,
                "not UTF-8": b'{"response": "\xff"}',
                "an object and more": WHOLE_JSON + b"{}",
                "nested 500 deep": b'{"response": "", "a": %s%s}' % (b"[" * 500, b"]" * 500),
                "an empty object": {},
                "an object without an answer": {"session_id": "s", "usage": {}},
                "an object whose answer is no string": {"response": {"a": "hi"}},
                "an object whose answer is null": {"response": None, "tool_calls": []},
                "an answer in two wrappers": {"data": {"data": {"response": "hi"}}},
            }.items()
        ),
        *(
            Fault(f"JSON with {what}", script=_json(body), **FAILED)
            for what, body in {
                "success false": {"success": False, "error": "no"},
                "success false and a text": {"success": False, "response": "no"},
                "success false around an answer": {
                    "success": False,
                    "data": {"success": True, "response": ""},
                },
                "an error and no answer": {"error": {"message": "no", "code": 7}},
                "a detail and no answer": {"detail": [{"loc": ["body"], "msg": "no"}]},
                "an error in a wrapper": {"data": {"error": "no"}, "status": 200},
                "an error beside an empty wrapper": {"data": None, "error": "no"},
            }.items()
        ),
        Fault(
            "JSON with success false after a text",
            ThinnestGenerationError,
            _json({"success": False, "response": SOME_TEXT, "error": "no"}),
            partial=SOME_TEXT,
        ),
        Fault(
            "JSON with an error beside the answer",
            script=_json({"response": TEXT, "error": "one tool failed", "detail": None}),
        ),
        Fault(
            "JSON with fields of wrong types",
            script=_json(
                {"response": TEXT, "session_id": {}, "usage": [1], "tool_calls": [7, {}]}
            ),
        ),
        Fault("JSON as plain text", script=_json(WHOLE_JSON, "text/plain"), **NOT_A_STREAM),
        Fault(
            "JSON as another kind of JSON",
            script=_json(WHOLE_JSON, "application/problem+json"),
            **NOT_A_STREAM,
        ),
        Fault("JSON as an event stream", script=_json(WHOLE_JSON, **HEADERS), **STALLED),
    ],
    "The body's length and encoding": [
        Fault("right gzip", script=_sized(len(ZIPPED), ZIPPED, **GZIP)),
        Fault(
            "broken gzip",
            script=stream(b"garbage", headers=GZIP),
            error=ThinnestProtocolError,
            partial="",
        ),
        Fault(
            "cut gzip",
            script=stream(_flushed(as_sse(*SOME)), headers=GZIP),
            error=ThinnestInterruptedError,
            partial=SOME_TEXT,
        ),
        Fault(
            "content encoding that is unknown",
            script=_sized(20, b"\x8b\x05\x80" + b"\xff" * 17, **{"Content-Encoding": "br"}),
            error=ThinnestInterruptedError,
            partial="",
        ),
        Fault("HTTP/1.0, whole", script=[head(version="1.0") + WHOLE, Close()]),
        Fault("HTTP/1.0, cut", script=[head(version="1.0") + as_sse(*SOME), Close()], **CUT),
        Fault("empty body", ThinnestInterruptedError, stream(), partial=""),
        Fault(
            "Content-Length longer than a whole body",
            script=[*_sized(len(WHOLE) + 9, WHOLE), Close()],
        ),
        Fault(
            "Content-Length longer than a cut body",
            script=[*_sized(len(WHOLE), as_sse(*SOME)), Close()],
            **CUT,
        ),
        Fault(
            "Content-Length shorter than the body",
            script=[*_sized(len(as_sse(*SOME)), WHOLE), Close()],
            **CUT,
        ),
        Fault(
            "garbage in place of a chunk's size",
            script=[*_begun(as_sse(*SOME)), b"garbage\r\n"],
            **CUT,
        ),
        Fault(
            "garbage under TLS amid the answer",
            place=_trusted(*_begun(as_sse(*SOME)), Wait(0.05), Bare(b"garbage\n" * 9)),
            **CUT,
        ),
        Fault(
            "close under TLS without its farewell",
            place=_trusted(*_begun(as_sse(*SOME)), Close()),
            **CUT,
        ),
    ],
    "Cut or stalled before `done`": [
        Fault("end of the body", script=stream(as_sse(*SOME)), **CUT),
        Fault("close", script=[*_begun(as_sse(*SOME)), Close()], **CUT),
        Fault("reset", script=[*_begun(as_sse(*SOME)), Reset()], **CUT),
        Fault(
            "close inside an event",
            script=[*_begun(as_sse(*SOME) + b'data: {"type": "te'), Close()],
            **CUT,
        ),
        *(
            Fault(
                f"stall after {count} events",
                ThinnestInterruptedError,
                [*_begun(as_sse(*EVENTS[:count])), Wait(LONG)],
                partial="".join(event.get("content", "") for event in EVENTS[:count]),
            )
            for count in range(len(EVENTS))
        ),
        Fault(
            "stall inside an event",
            script=[*_begun(as_sse(*SOME) + b'data: {"type": "te'), Wait(LONG)],
            **CUT,
        ),
        Fault(
            "heartbeats and nothing else, for longer than stall_timeout",
            script=[*_begun(as_sse(*SOME)), Repeat(chunk(b": ping\n"), 0.02)],
            fields={"stall_timeout": STALL},
            **CUT,
        ),
        Fault(
            "silence for longer than stall_timeout",
            script=[*_begun(as_sse(*SOME)), Wait(LONG)],
            fields={"timeout": 10.0, "stall_timeout": STALL},
            **CUT,
        ),
        Fault(
            "[DONE] in place of `done`",
            script=stream(as_sse(*SOME) + b"data: [DONE]\n"),
            **CUT,
        ),
    ],
    "The agent fails": [
        Fault(
            "error event first",
            ThinnestGenerationError,
            stream(_event(type="error", message="no") + WHOLE),
            partial="",
        ),
        Fault(
            "error event after text",
            ThinnestGenerationError,
            stream(as_sse(*SOME) + _event(type="error", message="no") + WHOLE),
            partial=SOME_TEXT,
        ),
        Fault(
            "error event amid a tool call",
            ThinnestGenerationError,
            stream(as_sse(*EVENTS[:4]) + _event(type="error", message="no")),
            partial=SOME_TEXT + EVENTS[2]["content"],
        ),
        Fault(
            "error event without a line end, then a close",
            ThinnestGenerationError,
            [*_begun(as_sse(*SOME) + as_printed({"type": "error"})), Close()],
            partial=SOME_TEXT,
        ),
        Fault(
            "error event that says nothing",
            ThinnestGenerationError,
            stream(as_sse(*SOME) + _event(type="error", message={"code": [7]})),
            partial=SOME_TEXT,
        ),
    ],
    "Not the contract": [
        Fault("no JSON", script=_with(b"data: garbage\n"), **WRONG),
        Fault("JSON scalar", script=_with(b"data: 42\n"), **WRONG),
        Fault("JSON list", script=_with(b'data: ["text"]\n'), **WRONG),
        Fault("JSON object that is not closed", script=_with(b'data: {"a": 1\n\n'), **WRONG),
        Fault("bytes that are not UTF-8", script=_with(b'data: {"type": "\xff"}\n'), **WRONG),
        Fault("text that is no string", script=_with(_event(type="text", content=7)), **WRONG),
        Fault("text without content", script=_with(_event(type="text")), **WRONG),
        Fault("tool call without a name", script=_with(_event(type="tool_call")), **WRONG),
        Fault(
            "tool call whose args are no object",
            script=_with(_event(type="tool_call", name="f", args=[1])),
            **WRONG,
        ),
        Fault(
            "tool call whose args are no JSON",
            script=_with(_event(type="tool_call", name="f", args="{")),
            **WRONG,
        ),
        Fault(
            "tool result whose name is no string",
            script=_with(_event(type="tool_result", name={}, result=1)),
            **WRONG,
        ),
        Fault(
            "args nested 1000 deep",
            script=_nested(1000),
            fields={"max_event_bytes": 10_000},
            **WRONG,
        ),
        Fault(
            "args nested 1000 deep beside half a surrogate pair",
            script=_nested(1000, beside=b'"b": "\\ud83d", '),
            fields={"max_event_bytes": 10_000},
            **WRONG,
        ),
        Fault(
            "number of 5000 digits",
            script=_with(b'data: {"a": %s}\n' % (b"9" * 5000)),
            fields={"max_event_bytes": 10_000},
            **WRONG,
        ),
        Fault(
            "event over max_event_bytes",
            script=_with(_event(type="text", content="x" * MAX_EVENT_BYTES)),
            **WRONG,
        ),
        Fault(
            "event of many lines over max_event_bytes",
            script=_with(
                b'data: {"type": "mood"\n'
                + b'data: , "a": 1\n' * MAX_EVENT_BYTES
                + b"data: }\n"
            ),
            **WRONG,
        ),
        Fault(
            "line without an end over max_event_bytes",
            script=[*_begun(as_sse(*SOME), *[b"x" * 500] * 8), Wait(LONG)],
            **WRONG,
        ),
        Fault(
            "comment over max_event_bytes",
            script=_with(b":" + b"x" * MAX_EVENT_BYTES + b"\n"),
            **WRONG,
        ),
    ],
    "Odd, but the contract": [
        Fault(
            "half a surrogate pair in text",
            script=_with(b'data: {"type": "text", "content": "a\\ud83d!"}\n'),
            text=SOME_TEXT + "a\ufffd!" + TEXT[len(SOME_TEXT) :],
        ),
        Fault(
            "surrogate pair split over two events",
            script=_with(
                b'data: {"type": "text", "content": "\\ud83d"}\n'
                b'data: {"type": "text", "content": "\\ude00"}\n'
            ),
            text=SOME_TEXT + "\ufffd\ufffd" + TEXT[len(SOME_TEXT) :],
        ),
        Fault(
            "half a surrogate pair in args that are JSON text",
            script=_with(_event(type="tool_call", name="f", args='{"a": "\\ud83d"}')),
        ),
        Fault(
            "NaN in args",
            script=_with(b'data: {"type": "tool_call", "name": "f", "args": {"a": NaN}}\n'),
        ),
        Fault(
            "key that comes twice",
            script=_with(b'data: {"type": "text", "content": "no", "content": "yes"}\n'),
            text=SOME_TEXT + "yes" + TEXT[len(SOME_TEXT) :],
        ),
        Fault("event of an unknown type", script=_with(_event(type="mood", content="good"))),
        Fault("event without a type", script=_with(_event(content="x"))),
        Fault(
            "id that is neither text nor number",
            script=_with(_event(type="tool_call", name="f", id={"a": 1})),
        ),
        Fault(
            "`done` with fields of wrong types",
            script=stream(
                as_sse(*EVENTS[:-1], {"type": "done", "usage": [1], "session_id": {"a": 1}})
            ),
        ),
        Fault("`done` without a line end", script=[*_begun(as_printed(*EVENTS)), Close()]),
        Fault(
            "`done` without a line end, then a reset",
            script=[*_begun(as_printed(*EVENTS)), Reset()],
        ),
        Fault(
            "`done` without a line end, then a stall",
            script=[*_begun(as_printed(*EVENTS)), Wait(LONG)],
        ),
    ],
    "After `done`": [
        # In one write: what comes after the next request was sent may be its answer.
        Fault("line end behind the answer", script=[joined(stream(WHOLE), b"\r\n")], asks=3),
        Fault(
            "another answer behind the answer",
            script=[joined(stream(WHOLE), *stream(as_sse(EVENTS[0], DONE)))],
            asks=3,
        ),
        Fault(
            "cookie that is not ASCII",
            script=stream(WHOLE, headers={"Set-Cookie": "a=gr\u00fc\u00df; Path=/"}),
            asks=2,
        ),
        Fault("close after `done`", script=[*_begun(WHOLE), Close()]),
        Fault("reset after `done`", script=[*_begun(WHOLE), Reset()]),
        Fault("garbage after `done`", script=stream(WHOLE + b"data: garbage\n\xff")),
        Fault("garbage later after `done`", script=stream(WHOLE, b"data: garbage\n\xff")),
        Fault("error event after `done`", script=stream(WHOLE + _event(type="error"))),
        Fault("text after `done`", script=stream(WHOLE, _event(type="text", content="x"))),
        Fault("no chunk's size after `done`", script=[*_begun(WHOLE), b"garbage\r\n"]),
        Fault(
            "event over max_event_bytes after `done`",
            script=stream(WHOLE + b"x" * MAX_EVENT_BYTES * 2, b"x" * MAX_EVENT_BYTES),
        ),
        Fault(
            "server that never closes after `done`",
            script=[*_begun(WHOLE), Wait(LONG)],
            fields={"timeout": 10.0},
            within=2.5,
        ),
        Fault(
            "comments for ever after `done`",
            script=[*_begun(WHOLE), Repeat(chunk(b": ping\n"), 0.02)],
            fields={"timeout": 10.0},
            within=2.5,
        ),
        Fault(
            "comments for ever and at once after `done`",
            script=[*_begun(WHOLE), Repeat(chunk(b": ping\n" * 1000), 0.0)],
            fields={"timeout": 10.0},
            within=2.5,
        ),
    ],
}
FAULTS = [fault for faults in TABLE.values() for fault in faults]

_INTRODUCTION = """\
# What comes of every fault

Each fault has one outcome, however the model is called: `invoke`, `stream`, `ainvoke`,
`astream`, and both v3 event streams. `integration_tests/test_faults.py` runs every row in all
six. This page is printed by `python -m integration_tests.faults`.

- **sent again**: the message is sent again, up to `max_retries` times; the error is the last
  try's.
- **is_retryable**: what the error says of sending the message again. It says yes only where
  the server surely did not take it.
- **sent**: whether the message was sent; the error says so too. It is unknown where the
  connection broke while the message was on its way.
- **partial**: the text of the error's `partial`: what had come in whole events. An error
  without one has "-": no answer had begun.
"""


_LEAVING = """\
## The caller goes away

Whoever leaves sees no error. The connection is closed within a second, and each tool run that
is open ends once, with an error. `integration_tests/test_cancellation.py`,
`test_web_server.py` and `test_lifetime.py` hold these rows.
"""
LEAVING = {
    "a task is cancelled, once or more often": "`CancelledError`, once all is closed",
    "an anyio scope or task group ends": "its own cancellation, once all is closed",
    "`asyncio.wait_for` runs out": "`TimeoutError`, once all is closed",
    "the client of a FastAPI app disconnects": "the agent's stream is closed",
    "a stream's `close()` or `aclose()`": "none",
    "a stream is dropped": "closed by the garbage collector",
}
_COLUMNS = [
    "| fault | outcome | sent | sent again | is_retryable | partial |",
    "|---|---|---|---|---|---|",
]


# aiohttp reads what came with a head before it gives that head away, and what is wrong with it
# fails all of it. Over `transport="fast"`, async, these are errors therefore, which hold no
# part of an answer.
OF_FAST_ASYNC = {
    "Content-Length shorter than the body",
    "garbage in place of a chunk's size",
    "no chunk's size after `done`",
}


def markdown() -> str:
    """The table, for people."""
    parts = [_INTRODUCTION]
    for title, faults in TABLE.items():
        rows = map(_row, faults)
        parts.append("\n".join([f"## {title}\n", *_COLUMNS, *rows, ""]))
    rows = [f"| {name} | {outcome} |" for name, outcome in LEAVING.items()]
    parts.append("\n".join([_LEAVING, "| how | outcome |", "|---|---|", *rows, ""]))
    return "\n".join(parts)


def _row(fault: Fault) -> str:
    if fault.error is None:
        added = fault.text.removeprefix(SOME_TEXT).removesuffix(TEXT[len(SOME_TEXT) :])
        text = "" if fault.text == TEXT else f"; the odd event's text is `{json.dumps(added)}`"
        cells = [fault.name, f"whole answer{text}", fault.sent, "no", "-", "-"]
    else:
        partial = {None: "-", "": "empty"}.get(fault.partial, f'"{fault.partial}"')
        again = "yes" if fault.is_sent_again else "no"
        is_retryable = "yes" if fault.is_retryable else "no"
        outcome = f"`{fault.error.__name__}`"
        cells = [fault.name, outcome, fault.sent, again, is_retryable, partial]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(markdown(), end="")
