"""A response that is no answer: its error, what the server said, and whether to ask again."""

from __future__ import annotations

import gzip
import itertools
import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler

from langchain_thinnest import (
    ThinnestAuthenticationError,
    ThinnestBalanceError,
    ThinnestError,
    ThinnestNotFoundError,
    ThinnestPermissionError,
    ThinnestProtocolError,
    ThinnestRateLimitError,
    ThinnestRequestError,
    ThinnestServerError,
)
from unit_tests.answers import head, refusal, stream
from unit_tests.conftest import KEY, Make
from unit_tests.contract import EVENTS, TEXT, as_sse
from unit_tests.network import CLOSE, Network, Side, Step, Wait

WHOLE = stream(as_sse(*EVENTS))


def fails(side: Side, model: Any) -> ThinnestError:
    """The error of a call, which never leads to the key."""
    with pytest.raises(ThinnestError) as caught:
        side.invoke(model, "hi")
    error = caught.value
    assert pickle.loads(pickle.dumps(error)).args == error.args
    assert KEY not in str(vars(error)) + repr(error)
    # httpx's own error holds the signed request: it must not be reachable from here.
    assert error.__cause__ is None
    assert not isinstance(error.__context__, Exception)
    return error


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (302, ThinnestProtocolError, "redirected to 'https://elsewhere.example/"),
        (201, ThinnestProtocolError, "answered 201 with 'application/json'"),
        (400, ThinnestRequestError, "The server refused the request"),
        (401, ThinnestAuthenticationError, "THINNEST_API_KEY"),
        (402, ThinnestBalanceError, "balance"),
        (403, ThinnestPermissionError, "may not use"),
        (404, ThinnestNotFoundError, "the agent 'ag_1' at http://localhost"),
        (418, ThinnestRequestError, "The server refused the request"),
        (429, ThinnestRateLimitError, "rate limit"),
        (500, ThinnestServerError, "The server failed"),
        (503, ThinnestServerError, "The server failed"),
    ],
)
def test_a_status_raises_its_class(
    network: Network, side: Side, make: Make, status: int, kind: Any, said: str
) -> None:
    location = f"https://elsewhere.example/?key={KEY}"
    headers = {"X-Request-ID": "req_7", "Location": location}
    network.answer(refusal(status, {"detail": f"no, {KEY} may not"}, headers))
    error = fails(side, make(max_retries=0))
    assert type(error) is kind
    assert said in str(error)
    assert error.status_code == status
    assert error.detail == "no, ********** may not"
    assert error.request_id == "req_7"
    assert error.is_retryable is (status == 429)
    assert len(network.requests) == 1


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"detail": "why"}, "why"),
        ({"error": {"message": "why", "code": 7}}, "why"),
        ({"error": {"errors": [{"reason": "why"}]}}, "why"),
        ({"error": "invalid_grant", "error_description": "why"}, "why"),
        ({"error": True, "Message": "why"}, "why"),
        ({"message": " ", "error": {"message": None, "description": "why"}}, "why"),
        ({"title": "Bad", "detail": "why", "status": 400}, "why"),
        (
            {"detail": [{"loc": ["body", "message"], "msg": "too long"}, "more", 7]},
            "body.message: too long; more; 7",
        ),
        (
            {"errors": {"session_id": ["too long", "bad"], "x": []}},
            "session_id: too long; bad",
        ),
        (["why", {"message": "more"}], "why; more"),
        ({"error": {"code": 7}}, '{"error": {"code": 7}}'),
        ({"error": {"error": {"error": {"error": {"error": {"error": "deep"}}}}}}, None),
        ("why", "why"),
        (b'{"detail": "half \\ud83d"}', "half \ufffd"),
        (b"<html>\n<h1>why</h1>", "<html> <h1>why</h1>"),
        (b"[" * 100_000, "[" * 500),
        (b"\xff" * 9000, "\ufffd" * 500),
        (b"", None),
    ],
)
def test_what_the_server_says(
    network: Network, side: Side, make: Make, body: Any, detail: str | None
) -> None:
    network.answer(refusal(400, body))
    error = fails(side, make())
    if isinstance(body, dict) and detail is None:
        assert "deep" in str(error.detail)
    else:
        assert error.detail == detail


def begun(headers: dict[str, str]) -> bytes:
    return head(400, {"Content-Type": "text/plain", **headers})


@dataclass(frozen=True)
class Endless:
    """Steps, of which the last ones come again and again."""

    first: list[Step]
    then: list[Step]

    def __iter__(self) -> Iterator[Step]:
        return itertools.chain(self.first, itertools.cycle(self.then))


ZIPPED = {"Content-Encoding": "gzip"}


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        pytest.param(
            [begun({"Content-Length": "99"}), b"half a reason", CLOSE],
            "half a reason",
            id="cut",
        ),
        pytest.param(
            [begun({"Content-Length": "99"}), b"half a reason", Wait()],
            "half a reason",
            id="slow",
        ),
        pytest.param([begun({"Content-Length": "9"}), Wait()], None, id="silent"),
        pytest.param(
            Endless([begun({})], [b"on and on " * 1000]),
            ("on and on " * 50).rstrip(),
            id="endless",
        ),
        pytest.param(
            Endless([begun({})], [b"drip ", Wait(0.3)]),
            "drip drip drip drip",
            id="dripping",
        ),
        pytest.param([begun(ZIPPED) + gzip.compress(b"why"), CLOSE], "why", id="zipped"),
        pytest.param([begun(ZIPPED) + b"no zip", CLOSE], None, id="no-zip"),
        pytest.param(
            [begun({"Transfer-Encoding": "chunked"}), Wait(0.1), b"zz\r\n"],
            None,
            id="no-chunks",
        ),
    ],
)
def test_a_refusal_is_told_however_its_body_fails(
    network: Network,
    side: Side,
    make: Make,
    transport: str,
    answer: Iterable[Step],
    detail: str | None,
) -> None:
    """Within about a second, and then the connection is closed."""
    network.answer(answer)
    began = network.clock.now
    error = fails(side, make(transport=transport))
    assert type(error) is ThinnestRequestError
    assert (error.detail or "").strip() == (detail or "").strip()
    assert network.clock.now - began < 1.5
    assert network.open_wires == 0


def test_a_clean_refusal_gives_its_connection_back(
    network: Network, side: Side, make: Make, transport: str
) -> None:
    network.answer(refusal(400, {"detail": "why"}), WHOLE)
    fails(side, make(transport=transport))
    assert side.invoke(make(transport=transport), "hi").text == TEXT
    assert len(network.wires) == 1


@pytest.mark.parametrize(
    ("kinds", "is_answer"),
    [
        (["text/event-stream; charset=utf-8"], True),
        (["TEXT/Event-Stream", "text/plain"], True),
        (["text/html, text/event-stream"], True),
        ([], True),
        (["text/html"], False),
    ],
)
def test_the_content_type_says_whether_it_is_an_answer(
    network: Network, side: Side, make: Make, kinds: list[str], is_answer: bool
) -> None:
    lines = "".join(f"Content-Type: {kind}\r\n" for kind in kinds).encode()
    body = as_sse(*EVENTS)
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    network.answer([b"HTTP/1.1 200 OK\r\n" + lines + length + body])
    if is_answer:
        assert side.invoke(make(), "hi").text == TEXT
    else:
        error = fails(side, make())
        assert type(error) is ThinnestProtocolError
        assert "text/html" in str(error)


# --- what is asked again, and when ---


@pytest.mark.parametrize(
    ("status", "headers", "waits"),
    [
        (429, {"Retry-After": "7"}, 7),
        (429, {"Retry-After": "0"}, 0),
        (503, {"Retry-After": "7"}, 7),
        (503, {}, None),
        (429, {"Retry-After": "76"}, None),
        (500, {"Retry-After": "0"}, None),
        (401, {"Retry-After": "0"}, None),
    ],
)
def test_only_what_was_surely_not_taken_is_sent_again(
    network: Network, side: Side, make: Make, status: int, headers: Any, waits: int | None
) -> None:
    network.answer(*[refusal(status, {}, headers)] * 2, WHOLE)
    began = network.clock.now
    if waits is None:
        error = fails(side, make())
        assert error.is_retryable is (status == 429)
        assert len(network.requests) == 1
        assert network.clock.now == began
    else:
        assert side.invoke(make(), "hi").text == TEXT
        assert len({request.body for request in network.requests}) == 1
        assert len(network.requests) == 3
        assert 2 * waits < network.clock.now - began < 2 * waits + 1


def test_a_wait_that_is_too_long_is_told(network: Network, side: Side, make: Make) -> None:
    network.answer(refusal(429, {}, {"Retry-After": "300"}))
    error = fails(side, make())
    assert "asks to wait 300 s" in str(error)
    assert error.retry_after == 300


@pytest.mark.parametrize("max_retries", [0, 1, 3])
def test_tries_are_counted_and_told(
    network: Network, side: Side, make: Make, max_retries: int
) -> None:
    told: list[str] = []

    class Handler(BaseCallbackHandler):
        run_inline = True

        def on_retry(self, retry_state: Any, **kwargs: Any) -> None:
            told.append(type(retry_state.outcome.exception()).__name__)

    network.answer(refusal(429, {}, {"Retry-After": "1"}))
    fails(side, make(max_retries=max_retries, callbacks=[Handler()]))
    assert len(network.requests) == max_retries + 1
    assert told == ["ThinnestRateLimitError"] * max_retries


@pytest.mark.parametrize(("key", "is_newer"), [("ta_live_1", True), ("ak_1", False)])
def test_a_key_of_the_other_api_is_told(
    network: Network, side: Side, make: Make, key: str, is_newer: bool
) -> None:
    network.answer(refusal(401, {"detail": "Invalid token"}))
    error = fails(side, make(api_key=key))
    assert ("newer API" in str(error)) is is_newer
    assert key not in str(error)
