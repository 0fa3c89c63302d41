"""Refusals: each status raises its class, with what the server said."""

from __future__ import annotations

import pickle
import socket
import time
from typing import Any

import pytest

import langchain_thinnest as package
from integration_tests import ways
from integration_tests.conftest import KEY, Make
from integration_tests.transports import GIVEN, fails_whole_answers
from integration_tests.wire import (
    Close,
    Reset,
    Wait,
    WireServer,
    chunk,
    head,
    refusal,
    stream,
)
from langchain_thinnest import (
    ChatThinnest,
    ThinnestAuthenticationError,
    ThinnestConnectionError,
    ThinnestError,
    ThinnestGenerationError,
    ThinnestInterruptedError,
    ThinnestNotFoundError,
    ThinnestProtocolError,
    ThinnestRateLimitError,
    ThinnestRequestError,
    ThinnestServerError,
    ThinnestTimeoutError,
)
from langchain_thinnest.emulator import Fault, ThinnestEmulator
from unit_tests.contract import EVENTS, OFFSET, TEXT, as_sse

STATUSES = [
    (400, "ThinnestRequestError"),
    (401, "ThinnestAuthenticationError"),
    (402, "ThinnestBalanceError"),
    (403, "ThinnestPermissionError"),
    (404, "ThinnestNotFoundError"),
    (409, "ThinnestRequestError"),
    (413, "ThinnestRequestError"),
    (422, "ThinnestRequestError"),
    (429, "ThinnestRateLimitError"),
    (500, "ThinnestServerError"),
    (502, "ThinnestServerError"),
    (503, "ThinnestServerError"),
    (504, "ThinnestServerError"),
]


def model_of(wire: WireServer, **fields: Any) -> ChatThinnest:
    return ChatThinnest(agent_id="ag_1", api_key=KEY, base_url=wire.base_url, **fields)


def fails(way: Any, model: Any, **kwargs: Any) -> ThinnestError:
    with pytest.raises(ThinnestError) as caught:
        way(model, "hi", **kwargs)
    error = caught.value
    assert pickle.loads(pickle.dumps(error)).args == error.args
    assert KEY not in str(vars(error)) + repr(error)
    # httpx's own error holds the signed request: it must not be reachable from here.
    assert error.__cause__ is None
    assert not isinstance(error.__context__, Exception)
    return error


@pytest.mark.parametrize(("status", "name"), STATUSES)
def test_a_status_raises_its_class(
    wired: Make, wire: WireServer, any_way: Any, status: int, name: str
) -> None:
    headers = {"X-Request-ID": "req_7"}
    wire.answer(refusal(status, {"detail": f"no, {KEY} may not"}, headers))
    error = fails(any_way, wired(max_retries=0))
    assert type(error) is getattr(package, name)
    assert error.status_code == status
    assert error.detail == "no, ********** may not"
    assert error.detail in str(error)
    assert error.request_id == "req_7"
    assert error.is_retryable is (status == 429)
    assert len(wire.requests) == 1


@pytest.mark.parametrize("status", [status for status, _ in STATUSES])
def test_only_a_429_is_sent_again(status: int) -> None:
    headers = {"Retry-After": "0"} if status == 429 else {}

    def check(way: Any) -> None:
        with WireServer() as wire:
            wire.answer(*[refusal(status, headers=headers)] * 2, stream(as_sse(*EVENTS)))
            if status == 429:
                assert way(model_of(wire), "hi").text == TEXT
                assert len(wire.requests) == 3
            else:
                fails(way, model_of(wire))
                assert len(wire.requests) == 1

    ways.in_each_at_once(check, ways.WAYS)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"detail": "why"}, "why"),
        ({"message": "why"}, "why"),
        ({"error": {"message": "why", "code": 7}}, "why"),
        ({"error": "why"}, "why"),
        (
            {"detail": [{"loc": ["body", "message"], "msg": "too long", "type": "x"}, "more"]},
            "body.message: too long; more",
        ),
        ({"error": {"detail": "why", "code": "x"}}, "why"),
        ({"error": {"errors": [{"reason": "why"}]}}, "why"),
        ({"reason": "why"}, "why"),
        ({"content": "why"}, "why"),
        ({"error": {"content": {"text": 1, "message": "why"}}}, "why"),
        ({"error": "invalid_grant", "error_description": "why"}, "why"),
        ({"error": True, "message": "why"}, "why"),
        ({"success": False, "msg": "why"}, "why"),
        ({"Message": "why"}, "why"),
        ({"message": "", "error": {"message": None, "description": "why"}}, "why"),
        ({"type": "about:blank", "title": "why", "status": 400}, "why"),
        ({"title": "Bad", "detail": "why", "status": 400}, "why"),
        ({"errors": [{"title": "Bad", "detail": "why"}, {"detail": "more"}]}, "why; more"),
        ({"errors": ["why", "more"]}, "why; more"),
        ({"errors": {"session_id": ["too long", "bad"]}}, "session_id: too long; bad"),
        ({"status": "error", "data": {"message": "why"}}, "why"),
        (["why", {"message": "more"}], "why; more"),
        ({"error": {"code": 7}}, '{"error": {"code": 7}}'),
        ({"error": 7}, '{"error": 7}'),
        ({}, "{}"),
        ("why", "why"),
        (b"<html>\n<h1>why</h1>", "<html> <h1>why</h1>"),
        (b"", None),
        (b"\xff" * 9000, "\ufffd" * 500),
    ],
)
def test_what_the_server_says(wired: Make, wire: WireServer, body: Any, detail: Any) -> None:
    wire.answer(refusal(400, body))
    with pytest.raises(ThinnestError) as caught:
        wired().invoke("hi")
    assert caught.value.detail == detail


def test_an_answer_tells_its_request_id(wired: Make, wire: WireServer, any_way: Any) -> None:
    headers = {"X-Request-ID": "req_7"}
    wire.answer(stream(as_sse(*EVENTS), headers=headers))
    assert any_way(wired(), "hi").response_metadata["request_id"] == "req_7"
    wire.answer(stream(as_sse(*EVENTS)))
    assert "request_id" not in any_way(wired(), "hi").response_metadata
    wire.answer(stream(as_sse(*EVENTS[:3]), headers=headers))
    error = fails(any_way, wired())
    assert type(error) is ThinnestInterruptedError
    assert error.request_id == "req_7"
    assert error.partial.response_metadata["request_id"] == "req_7"


def test_the_emulators_own_refusals(
    emulator: ThinnestEmulator, make: Make, any_way: Any
) -> None:
    error = fails(any_way, make(api_key="wrong"))
    assert isinstance(error, ThinnestAuthenticationError)
    assert error.detail == "Missing or invalid authentication"
    assert isinstance(fails(any_way, make("ag_unknown")), ThinnestNotFoundError)


def test_a_wait_longer_than_allowed_is_not_waited_for(
    wired: Make, wire: WireServer, way: Any
) -> None:
    wire.answer(refusal(429, headers={"Retry-After": "300"}))
    error = fails(way, wired())
    assert isinstance(error, ThinnestRateLimitError)
    assert error.retry_after == 300
    assert "300 s" in str(error)
    assert error.is_retryable
    assert len(wire.requests) == 1


@pytest.mark.parametrize("retry_after", [None, "1"])
def test_a_503_is_sent_again_only_if_it_says_when(
    retry_after: str | None,
) -> None:
    headers = {"Retry-After": retry_after} if retry_after else {}

    def check(way: Any) -> None:
        with WireServer() as wire:
            wire.answer(refusal(503, headers=headers), stream(as_sse(*EVENTS)))
            model = model_of(wire)
            if retry_after:
                assert way(model, "hi").text == TEXT
            else:
                error = fails(way, model)
                assert isinstance(error, ThinnestServerError)
                assert not error.is_retryable
            assert len(wire.requests) == (2 if retry_after else 1)

    ways.in_each_at_once(check, ways.WAYS)


def test_404_names_the_agent_and_the_address(
    emulator: ThinnestEmulator, make: Make, any_way: Any
) -> None:
    error = fails(any_way, make("ag_unknown"))
    for said in ("'ag_unknown'", emulator.base_url, "agent_id", "base_url"):
        assert said in str(error)
    assert error.detail == "Agent not found"


@pytest.mark.parametrize(
    ("key", "is_newer"), [("ta_live_0123456789", True), ("ak_0123456789", False)]
)
def test_401_says_that_a_key_belongs_to_another_api(
    wired: Make, wire: WireServer, any_way: Any, key: str, is_newer: bool
) -> None:
    wire.answer(refusal(401, {"detail": "Invalid token"}))
    error = fails(any_way, wired(api_key=key))
    assert type(error) is ThinnestAuthenticationError
    assert ("newer API" in str(error)) is is_newer
    assert "THINNEST_API_KEY" in str(error)
    assert key not in str(error)


async def test_a_closed_client_is_told_by_its_name(wired: Make, wire: WireServer) -> None:
    wire.answer(stream(as_sse(*EVENTS)))
    client, async_client = GIVEN.Client(), GIVEN.AsyncClient()
    model = wired(http_client=client, http_async_client=async_client)
    assert model.invoke("hi").text == (await model.ainvoke("hi")).text == TEXT
    client.close()
    await async_client.aclose()
    for way in (model.invoke, lambda text: list(model.stream(text))):
        with pytest.raises(ThinnestRequestError, match=r"http_client .*closed"):
            way("hi")
    with pytest.raises(ThinnestRequestError, match=r"http_async_client .*closed"):
        await model.ainvoke("hi")
    with pytest.raises(ThinnestRequestError, match=r"http_async_client .*closed"):
        _ = [chunk async for chunk in model.astream("hi")]
    assert len(wire.requests) == 2


@pytest.mark.parametrize(
    "kinds",
    [
        ["text/event-stream", "text/event-stream"],
        ["text/event-stream", "text/plain"],
        ["text/html", "text/event-stream; charset=utf-8"],
        ["text/event-stream, text/event-stream"],
        ["TEXT/Event-Stream;charset=UTF-8", "application/octet-stream"],
    ],
)
def test_two_content_types_where_one_is_the_contracts(
    wired: Make, wire: WireServer, any_way: Any, kinds: list[str]
) -> None:
    """Some proxies add a second; to refuse it then would be after the agent acted."""
    types = "".join(f"Content-Type: {kind}\r\n" for kind in kinds).encode()
    begin = b"HTTP/1.1 200 OK\r\n" + types + b"Connection: close\r\n\r\n"
    wire.answer([begin + as_sse(*EVENTS), Close()])
    assert any_way(wired(), "hi").text == TEXT
    assert len(wire.requests) == 1


# --- no answer at all ---


def test_nobody_listens(wired: Make, any_way: Any) -> None:
    error = fails(any_way, wired(base_url="http://127.0.0.1:9", max_retries=0))
    assert type(error) is ThinnestConnectionError
    assert error.is_retryable
    assert "http://127.0.0.1:9" in str(error)


def test_an_address_that_cannot_be_reached_is_told_once(
    wired: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "langchain_thinnest")

    def check(way: Any) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # and does not listen
            base_url = f"http://127.0.0.1:{taken.getsockname()[1]}"
            began = time.time()
            fails(way, wired(base_url=base_url, max_retries=4))
            for _ in range(2):  # no more after that
                (record,) = [it for it in caplog.records if base_url in it.getMessage()]
                assert record.levelname == "INFO"
                assert "Could not connect to" in record.getMessage()
                assert KEY not in record.getMessage()
                assert record.created - began > 0.5  # not for what is over in a moment
                with pytest.raises(ThinnestConnectionError):
                    wired(base_url=base_url, max_retries=1).invoke("hi")

    ways.in_each_at_once(check, [ways.invoke, ways.ainvoke])
    assert len(caplog.records) == 2


@pytest.mark.parametrize("end", [Close(), Reset()])
def test_a_connection_lost_before_the_answer_is_not_made_again(
    wired: Make, wire: WireServer, any_way: Any, end: Any
) -> None:
    wire.answer([end])
    error = fails(any_way, wired())
    assert type(error) is ThinnestConnectionError
    assert not error.is_retryable
    assert "may have acted" in str(error)
    assert len(wire.requests) == 1


def test_an_answer_that_does_not_begin() -> None:
    def check(way: Any) -> None:
        with WireServer() as wire:
            wire.answer([Wait(5.0)])
            error = fails(way, model_of(wire, timeout=0.5))
            assert type(error) is ThinnestTimeoutError
            assert not error.is_retryable
            assert len(wire.requests) == 1

    ways.in_each_at_once(check)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (refusal(200, {"login": "a page"}), "no answer in it.*a page"),
        (refusal(201, {"detail": "a login page"}), "application/json.*a login page"),
        (refusal(200, b"<html>hello</html>"), "text/html"),
        (refusal(204), "204"),
        (refusal(302, headers={"Location": "https://elsewhere.example/"}), "redirected"),
        (refusal(307, headers={"Location": "/chat/stream/"}), "redirected"),
    ],
)
def test_what_is_no_event_stream(
    wired: Make, wire: WireServer, any_way: Any, script: Any, said: str
) -> None:
    import re

    wire.answer(script)
    error = fails(any_way, wired())
    assert type(error) is ThinnestProtocolError
    if said == "204" and fails_whole_answers(any_way):
        said = "is not HTTP"  # it has a body, which a 204 must not have
    assert re.search(said, str(error))
    assert len(wire.requests) == 1


# --- an answer that is not whole ---


def test_an_error_event(emulator: ThinnestEmulator, make: Make, any_way: Any) -> None:
    for after, text in [(0, ""), (2, TEXT[:55]), (5, TEXT[:OFFSET])]:
        emulator.fail_next(Fault.error("out of tokens", after=after))
        error = fails(any_way, make())
        assert type(error) is ThinnestGenerationError
        assert error.detail == "out of tokens"
        assert "out of tokens" in str(error)
        assert error.partial.text == text
        assert "finish_reason" not in error.partial.response_metadata
    assert len(emulator.requests) == 3


@pytest.mark.parametrize("version", [None, "v1"])
def test_a_cut(emulator: ThinnestEmulator, make: Make, any_way: Any, version: Any) -> None:
    emulator.fail_next(Fault.cut(after=5))
    error = fails(any_way, make(output_version=version))
    assert type(error) is ThinnestInterruptedError
    assert error.partial.text == TEXT[:OFFSET]
    assert [block["type"] for block in error.partial.content_blocks] == [
        "text",
        "server_tool_call",
        "server_tool_result",
    ]
    assert len(emulator.requests) == 1


def test_a_stall(emulator: ThinnestEmulator, make: Make) -> None:
    emulator.fail_next(Fault.stall(5.0, after=2), times=12)

    def check(way: Any) -> None:
        error = fails(way, make(timeout=0.5))
        assert type(error) is ThinnestInterruptedError
        assert error.partial.text == TEXT[:55]
        assert "timeout" in str(error)

    ways.in_each_at_once(check)


@pytest.mark.parametrize(
    "script",
    [
        stream(as_sse({"type": "error", "message": f"no, {KEY} may not"})),
        stream(f"data: no, {KEY} may not\n".encode()),
        refusal(302, headers={"Location": f"https://elsewhere.example/?key={KEY}"}),
        refusal(200, {"detail": f"no, {KEY} may not"}),
    ],
)
def test_a_key_that_the_server_tells_back_is_taken_out(
    wired: Make, wire: WireServer, any_way: Any, script: Any
) -> None:
    wire.answer(script)
    assert "**********" in str(fails(any_way, wired()))


def test_an_end_without_done(wired: Make, wire: WireServer, any_way: Any) -> None:
    wire.answer(stream(as_sse(*EVENTS[:3])))
    error = fails(any_way, wired())
    assert type(error) is ThinnestInterruptedError
    assert error.partial.text == TEXT[:OFFSET]


def test_bytes_that_are_not_the_contract(wired: Make, wire: WireServer, any_way: Any) -> None:
    wire.answer(stream(as_sse(*EVENTS[:3]) + b"data: {x}\n"))
    error = fails(any_way, wired())
    assert type(error) is ThinnestProtocolError
    assert error.partial.text == TEXT[:OFFSET]


def test_an_event_too_large(wired: Make, wire: WireServer, any_way: Any) -> None:
    big = {"type": "text", "content": "x" * 5000}
    wire.answer(stream(as_sse(EVENTS[0], big)))
    error = fails(any_way, wired(max_event_bytes=1000))
    assert type(error) is ThinnestProtocolError
    assert error.partial.text == EVENTS[0]["content"]


def test_done_makes_it_whole_whatever_happens_then(wired: Make, wire: WireServer) -> None:
    begin = head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
    whole = as_sse(*EVENTS)

    def check(way: Any) -> None:
        assert way(wired(), "hi").text == TEXT

    for script in (
        [begin + chunk(whole), Close()],
        [begin + chunk(whole), Reset()],
        [begin + chunk(whole.rstrip()), Close()],
        [begin + chunk(whole + b"data: garbage\n\xff\xff")],
    ):
        wire.answer(script)
        ways.in_each_at_once(check)
