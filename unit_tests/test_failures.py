"""Every way in which a request or its answer fails: what is said, and whether to ask again."""

from __future__ import annotations

import itertools
import ssl
from collections.abc import Callable, Iterable
from typing import Any

import h2.events
import httpcore
import httpx
import pytest

from langchain_thinnest import (
    ThinnestConnectionError,
    ThinnestGenerationError,
    ThinnestInterruptedError,
    ThinnestProtocolError,
    ThinnestRequestError,
    ThinnestTimeoutError,
)
from unit_tests import fast_network
from unit_tests.answers import HEADERS, chunk, head, stream
from unit_tests.conftest import KEY, Make
from unit_tests.contract import EVENTS, OFFSET, TEXT, as_sse
from unit_tests.network import CLOSE, Fails, Network, Side, Step, Wait
from unit_tests.test_refusals import Endless, fails

WHOLE = stream(as_sse(*EVENTS))
BEGIN: list[Step] = [WHOLE[0], chunk(as_sse(*EVENTS[:3]))]
NOT_SENT, UNKNOWN, SENT = "was not sent.", "not known whether", "message was sent and"


def because_of(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = error.__context__ = cause
    return error


# --- before an answer begins ---

REFUSED = httpcore.ConnectError("refused")
BAD_CERTIFICATE = because_of(
    httpcore.ConnectError("certificate"), ssl.SSLCertVerificationError("self-signed")
)
TLS_ENDED = because_of(httpcore.ConnectError("eof"), ssl.SSLEOFError("eof"))


@pytest.mark.parametrize(
    ("script", "kind", "said", "fate", "is_retryable"),
    [
        pytest.param(
            [Fails("connect", REFUSED)],
            ThinnestConnectionError,
            "Could not connect to .*: refused",
            NOT_SENT,
            True,
            id="refused",
        ),
        pytest.param(
            [Fails("connect", httpcore.ConnectTimeout())],
            ThinnestTimeoutError,
            r"did not accept a connection in time \(ConnectTimeout\)",
            NOT_SENT,
            True,
            id="connect-timeout",
        ),
        pytest.param(
            [Fails("tls", BAD_CERTIFICATE)],
            ThinnestConnectionError,
            "certificate",
            NOT_SENT,
            False,
            id="bad-certificate",
        ),
        pytest.param(
            [Fails("tls", TLS_ENDED)],
            ThinnestConnectionError,
            "eof",
            NOT_SENT,
            True,
            id="tls-ended",
        ),
        pytest.param(
            [Fails("head", httpcore.WriteError("broken"))],
            ThinnestConnectionError,
            "Could not connect",
            NOT_SENT,
            True,
            id="head-unsent",
        ),
        pytest.param(
            [Fails("body", httpcore.WriteError("broken"))],
            ThinnestConnectionError,
            "hung up before it began its answer",
            UNKNOWN,
            False,
            id="body-broken",
        ),
        pytest.param(
            [Fails("body", httpcore.WriteTimeout())],
            ThinnestTimeoutError,
            "did not begin its answer in time",
            UNKNOWN,
            False,
            id="body-timeout",
        ),
        pytest.param([CLOSE], ThinnestConnectionError, "hung up", SENT, False, id="closed"),
        pytest.param(
            [httpcore.ReadError("reset")],
            ThinnestConnectionError,
            "reset",
            SENT,
            False,
            id="reset",
        ),
        pytest.param(
            [Wait()], ThinnestTimeoutError, r"\(ReadTimeout\)", SENT, False, id="silence"
        ),
        pytest.param(
            [b"SSH-2.0\r\n\r\n"],
            ThinnestProtocolError,
            "is not HTTP",
            SENT,
            False,
            id="not-HTTP",
        ),
        pytest.param(
            [ssl.SSLError("bad record")],
            ThinnestConnectionError,
            "bad record",
            SENT,
            False,
            id="tls-broken",
        ),
    ],
)
def test_no_answer_begins(
    network: Network,
    side: Side,
    make: Make,
    script: list[Step],
    kind: type,
    said: str,
    fate: str,
    is_retryable: bool,
) -> None:
    """What was surely not sent is sent again, all else never."""
    base_url = network.base_url.replace("http://", "https://")
    network.answer(script, WHOLE)
    with pytest.raises(kind, match=said) as caught:
        side.invoke(make(base_url=base_url, max_retries=0), "hi")
    assert fate in str(caught.value)
    assert caught.value.is_retryable is is_retryable
    assert network.open_wires == 0
    network.answer(script, WHOLE)
    if is_retryable:
        assert side.invoke(make(base_url=base_url), "hi").text == TEXT
    else:
        assert type(fails(side, make(base_url=base_url))) is kind


@pytest.mark.parametrize(
    ("script", "kind", "fate"),
    [
        ([Fails("connect", REFUSED)], ThinnestConnectionError, NOT_SENT),
        ([Fails("connect", httpcore.ConnectTimeout())], ThinnestTimeoutError, NOT_SENT),
        ([CLOSE], ThinnestConnectionError, SENT),
        ([b"HTTP/1.1 2", CLOSE], ThinnestConnectionError, SENT),
        ([httpcore.ReadError("reset")], ThinnestConnectionError, SENT),
        ([Wait()], ThinnestTimeoutError, SENT),
        ([b"SSH-2.0\r\n\r\n"], ThinnestProtocolError, SENT),
        ([head(100, {}), b"SSH-2.0\r\n\r\n"], ThinnestProtocolError, SENT),
        ([head(200, {"Content-Length": "no"})], ThinnestProtocolError, SENT),
    ],
)
def test_no_answer_begins_over_the_fast_transport(
    network: Network,
    side: Side,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    script: list[Step],
    kind: type,
    fate: str,
) -> None:
    fast_network.install(network, monkeypatch)
    network.answer(script, WHOLE)
    error = fails(side, make(transport="fast", max_retries=0))
    assert type(error) is kind
    assert fate in str(error)
    assert error.is_retryable is (fate == NOT_SENT)
    assert network.open_wires == 0
    assert side.invoke(make(transport="fast"), "hi").text == TEXT


@pytest.mark.parametrize("step", ["head", "body"])
def test_a_request_that_breaks_off_over_the_fast_transport(
    network: Network, make: Make, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The socket does not say how much of it arrived."""
    fast_network.install(network, monkeypatch)
    network.answer([Fails(step, httpcore.WriteError("broken"))], WHOLE)
    with pytest.raises(ThinnestConnectionError, match=UNKNOWN):
        make(transport="fast").invoke("hi")


def test_a_server_that_cannot_be_reached_is_told_once(
    network: Network, side: Side, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Before the wait that makes it long; and not where it is back in a moment."""
    caplog.set_level("INFO", "langchain_thinnest")
    network.answer([Fails("connect", REFUSED)])
    fails(side, make(max_retries=1))
    assert not caplog.records
    for _ in range(2):
        fails(side, make())
    (record,) = caplog.records
    assert "Could not connect" in record.getMessage()
    assert "Trying again" in record.getMessage()


# --- what stands before or in place of the transport ---


def client_of(side: Side, handler: Callable[[httpx.Request], Any], **fields: Any) -> Any:
    """The fields of a model whose client is answered by a function."""

    async def ahandler(request: httpx.Request) -> Any:
        return handler(request)

    if side.is_async:
        transport = httpx.MockTransport(ahandler)
        return {"http_async_client": httpx.AsyncClient(transport=transport, **fields)}
    return {"http_client": httpx.Client(transport=httpx.MockTransport(handler), **fields)}


def answers(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, headers=HEADERS, content=as_sse(*EVENTS))


def test_a_callers_client_is_used_as_it_is(network: Network, side: Side, make: Make) -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return answers(request)

    model = make(**client_of(side, handler, headers={"X-Mine": "1"}, timeout=3.0))
    assert side.invoke(model, "hi").text == TEXT
    assert "".join(chunk.text for chunk in side.stream(model, "hi")) == TEXT
    assert seen[0].headers["x-mine"] == "1"
    assert seen[0].headers["authorization"] == f"Bearer {KEY}"
    assert seen[0].extensions["timeout"]["read"] == 3.0
    assert not network.wires


def test_a_closed_client_is_told_by_its_name(side: Side, make: Make) -> None:
    given = client_of(side, answers)
    ((name, client),) = given.items()
    side.either(*(getattr(client, close, None) for close in ("close", "aclose")))
    for call in (side.invoke, lambda *a: list(side.stream(*a))):
        with pytest.raises(ThinnestRequestError, match=f"{name} .* is closed"):
            call(make(**given), "hi")


@pytest.mark.parametrize(
    ("error", "kind", "fate"),
    [
        (httpx.ConnectError("no"), ThinnestConnectionError, NOT_SENT),
        (httpx.PoolTimeout("no"), ThinnestTimeoutError, NOT_SENT),
        (httpx.LocalProtocolError("no"), ThinnestRequestError, NOT_SENT),
        (httpx.UnsupportedProtocol("no"), ThinnestConnectionError, NOT_SENT),
        (httpx.ReadTimeout("no"), ThinnestTimeoutError, UNKNOWN),
        (httpx.ReadError(""), ThinnestConnectionError, UNKNOWN),
        (httpx.RemoteProtocolError("no"), ThinnestProtocolError, UNKNOWN),
    ],
)
def test_a_transport_that_tells_nothing(
    side: Side, make: Make, error: httpx.RequestError, kind: type, fate: str
) -> None:
    """Its errors alone say whether the message was sent."""

    def handler(request: httpx.Request) -> httpx.Response:
        error.request = request
        raise error

    caught = fails(side, make(**client_of(side, handler), max_retries=0))
    assert type(caught) is kind
    assert fate in str(caught)


@pytest.mark.parametrize("where", ["request", "response"])
def test_a_hook_that_refuses(network: Network, side: Side, make: Make, where: str) -> None:
    def hook(_: Any) -> None:
        raise httpx.ReadTimeout("no token")

    async def ahook(_: Any) -> None:
        hook(_)

    network.answer(WHOLE)
    hooks = {where: [ahook if side.is_async else hook]}
    name, kind = ("http_client", httpx.Client)
    if side.is_async:
        name, kind = ("http_async_client", httpx.AsyncClient)  # type: ignore[assignment]
    client = kind(event_hooks=hooks, verify=False)  # type: ignore[arg-type]
    error = fails(side, make(**{name: client}))
    assert type(error) is ThinnestConnectionError
    assert "refused by a hook of the client that was given: ReadTimeout: no token" in str(
        error
    )
    assert ("request to" if where == "request" else "answer of") in str(error)
    assert (NOT_SENT if where == "request" else SENT) in str(error)
    assert len(network.requests) == (where == "response")


@pytest.mark.parametrize("cookie", ["\ud83d", "a\nb"])
def test_a_client_with_what_HTTP_cannot_carry(  # noqa: N802
    network: Network, side: Side, make: Make, cookie: str
) -> None:
    name, kind = ("http_client", httpx.Client)
    if side.is_async:
        name, kind = ("http_async_client", httpx.AsyncClient)  # type: ignore[assignment]
    client = kind(headers={"Cookie": b"a\nb"} if "\n" in cookie else None, verify=False)
    network.answer(WHOLE)
    if "\n" not in cookie:
        client.cookies.set("a", cookie)
    error = fails(side, make(**{name: client}))
    assert type(error) is ThinnestRequestError
    assert "not sent" in str(error)
    assert not network.requests


def test_what_is_no_failure_of_http_is_raised_as_it_is(side: Side, make: Make) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise RuntimeError("of the transport")

    with pytest.raises(RuntimeError, match="of the transport"):
        side.invoke(make(**client_of(side, handler)), "hi")


def event(kind: type, **fields: Any) -> Any:
    event = kind.__new__(kind)
    vars(event).update(fields, remote_reset=True, additional_data=None)
    return event


@pytest.mark.parametrize(
    ("event", "is_retryable", "said"),
    [
        (event(h2.events.StreamReset, stream_id=3, error_code=7), True, "not processed"),
        (event(h2.events.StreamReset, stream_id=3, error_code=2), False, "ended the stream"),
        (
            event(h2.events.ConnectionTerminated, error_code=0, last_stream_id=1),
            True,
            "not processed",
        ),
        (
            event(h2.events.ConnectionTerminated, error_code=0, last_stream_id=3),
            False,
            "ended the stream",
        ),
    ],
)
def test_a_reset_of_HTTP2_says_whether_it_was_processed(  # noqa: N802
    side: Side, make: Make, event: Any, is_retryable: bool, said: str
) -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if len(seen) > 1:
            return answers(request)
        traces = [
            ("http2.send_request_headers.started", {"request": request, "stream_id": 3}),
            ("http2.send_request_headers.complete", {}),
            ("http2.send_request_body.complete", {}),
        ]
        for step in traces:
            told = request.extensions["trace"](*step)
            if side.is_async:  # the coroutine waits for nothing
                with pytest.raises(StopIteration):
                    told.send(None)
        error = httpx.RemoteProtocolError(str(event), request=request)
        raise because_of(error, httpcore.RemoteProtocolError(event))

    model = make(**client_of(side, handler))
    if is_retryable:
        assert side.invoke(model, "hi").text == TEXT
        seen.clear()
    error = fails(side, model.model_copy(update={"max_retries": 0}))
    assert error.is_retryable is is_retryable
    assert said in str(error)
    assert len(seen) == 1


# --- an answer that is not whole ---


def json_answer(*parts: Any, length: int = 999) -> list[Any]:
    headers = {"Content-Type": "application/json", "Content-Length": str(length)}
    return [head(200, headers), *parts]


ZIPPED = {**HEADERS, "Content-Encoding": "gzip", "Transfer-Encoding": "chunked"}
PING = chunk(b": ping\n")


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        pytest.param([*BEGIN, CLOSE], ThinnestInterruptedError, "cut before", id="cut"),
        pytest.param(
            stream(as_sse(*EVENTS[:3])), ThinnestInterruptedError, "closed", id="end"
        ),
        pytest.param(
            [*BEGIN, httpcore.ReadError("reset")],
            ThinnestInterruptedError,
            "reset",
            id="reset",
        ),
        pytest.param(
            [*BEGIN, httpcore.ReadError()],
            ThinnestInterruptedError,
            "ReadError|ConnectionResetError",
            id="no-reason",
        ),
        pytest.param([*BEGIN, b"zz\r\n"], ThinnestInterruptedError, "cut", id="no-chunk"),
        pytest.param(
            [*BEGIN, ssl.SSLError("bad record")],
            ThinnestInterruptedError,
            "bad record",
            id="tls",
        ),
        pytest.param(
            [*BEGIN, Wait(61.0), *WHOLE[1:]],
            ThinnestInterruptedError,
            r"field `timeout` allows \(read\)",
            id="read-timeout",
        ),
        pytest.param(
            Endless(BEGIN, [Wait(31.0), PING]),
            ThinnestInterruptedError,
            "No event came for 300 s, as long as the field `stall_timeout`",
            id="heartbeats-alone",
        ),
        pytest.param(
            [*BEGIN, chunk(b"data: {x}\n\n")],
            ThinnestProtocolError,
            "JSON object",
            id="no-JSON",
        ),
        pytest.param(
            [*BEGIN, chunk(as_sse({"type": "error", "message": "boom"}))],
            ThinnestGenerationError,
            "boom",
            id="error-event",
        ),
    ],
)
def test_an_answer_that_is_not_whole(
    network: Network,
    side: Side,
    make: Make,
    transport: str,
    answer: Iterable[Step],
    kind: type,
    said: str,
) -> None:
    network.answer(answer)
    with pytest.raises(kind, match=said) as caught:
        side.invoke(make(transport=transport, timeout=60.0, stall_timeout=300.0), "hi")
    error: Any = caught.value
    assert error.partial.text == TEXT[:OFFSET]
    assert not error.is_retryable
    assert len(network.requests) == 1
    assert network.open_wires == (said == "closed")  # the body's end leaves it clean


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        ([*json_answer(b'{"response": "half'), CLOSE], ThinnestProtocolError, "was cut"),
        (json_answer(b'{"response": "half', length=18), ThinnestProtocolError, "ended it"),
        ([*json_answer(b"{"), Wait()], ThinnestInterruptedError, "`timeout` allows"),
        (
            [head(200, ZIPPED), chunk(b"no zip")],
            ThinnestProtocolError,
            "compression is broken",
        ),
    ],
    ids=["cut", "ended", "late", "no-zip"],
)
def test_an_answer_of_which_nothing_can_be_read(
    network: Network, side: Side, make: Make, answer: Any, kind: type, said: str
) -> None:
    network.answer(answer)
    error: Any = fails(side, make())
    assert type(error) is kind
    assert said in str(error)
    assert error.partial.text == ""


def test_a_silence_is_a_stall_before_it_is_a_timeout(
    network: Network, side: Side, make: Make, transport: str
) -> None:
    network.answer([*BEGIN, Wait()])
    began = network.clock.now
    error = fails(side, make(stall_timeout=30.0, transport=transport))
    assert "`stall_timeout`" in str(error)
    assert 30 <= network.clock.now - began < 31


def test_time_that_the_caller_takes_is_no_stall(
    network: Network, side: Side, make: Make
) -> None:
    pieces = [chunk(as_sse(event)) for event in EVENTS]
    waits = itertools.chain.from_iterable((Wait(20.0), PING, Wait(20.0), p) for p in pieces)
    network.answer([WHOLE[0], *waits, WHOLE[-1]])
    text = ""
    for piece in side.stream(make(stall_timeout=50.0), "hi"):
        text += piece.text
        network.clock.pass_(100.0)
    assert text == TEXT


def test_an_event_too_large(network: Network, side: Side, make: Make) -> None:
    big = {"type": "text", "content": "x" * 5000}
    network.answer(stream(as_sse(EVENTS[0], big)))
    error: Any = fails(side, make(max_event_bytes=1000))
    assert type(error) is ThinnestProtocolError
    assert "max_event_bytes" in str(error)
    assert error.partial.text == EVENTS[0]["content"]


@pytest.mark.parametrize(
    "script",
    [
        stream(as_sse({"type": "error", "message": f"no, {KEY} may not"})),
        stream(f"data: no, {KEY} may not\n".encode()),
    ],
)
def test_a_key_that_the_server_tells_back_is_taken_out(
    network: Network, side: Side, make: Make, script: Any
) -> None:
    network.answer(script)
    assert "**********" in str(fails(side, make()))
