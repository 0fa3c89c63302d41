"""What users read when something is wrong: each message, whole."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from langchain_thinnest import ThinnestProtocolError, ThinnestRequestError
from langchain_thinnest._answer.events import parse_event
from langchain_thinnest._answer.sse import SSEDecoder
from langchain_thinnest._request import body
from langchain_thinnest._request.body import Request, checked_id
from unit_tests.history import to_text


@pytest.fixture(autouse=True)
def _nothing_is_known() -> None:
    """What an earlier test asked about an id must not answer for this one."""
    body._problem_of.cache_clear()


def said(function: Any, *args: Any) -> str:
    with pytest.raises((ThinnestProtocolError, ThinnestRequestError)) as caught:
        function(*args)
    return str(caught.value)


def decode(data: bytes, limit: int = 1000) -> None:
    list(SSEDecoder(limit).feed(data))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.5, "session_id must be a string, not float."),
        (" ", "session_id must not be empty."),
        ("a\nb", "session_id must not hold control characters."),
        (True, "session_id must be a string, not bool."),
        (None, "session_id must be a string, not NoneType."),
        (" a", "session_id must not hold spaces: ' a'."),
        ("a" * 90 + " ", f"session_id must not hold spaces: '{'a' * 79}."),
    ],
)
def test_an_id(value: Any, message: str) -> None:
    assert said(checked_id, "session_id", value) == message


def test_an_agent_has_no_spaces() -> None:
    assert said(checked_id, "agent_id", "a b") == "agent_id must not hold spaces: 'a b'."
    assert checked_id("session_id", "a b") == "a b"


def test_nothing_to_send() -> None:
    assert said(to_text, [HumanMessage("")], None) == (
        "There is nothing to send: no message holds any text."
    )
    assert said(to_text, [HumanMessage("")], "s") == (
        "There is nothing to send: no message with text follows the last answer of this "
        "session."
    )


def test_a_block_that_is_not_text() -> None:
    message = HumanMessage([{"type": "image", "url": "x"}])
    assert said(to_text, [message], None) == (
        "A human message holds a content block of type 'image'. The thinnest.ai API takes "
        "text alone: send text blocks only."
    )


def test_what_utf_8_cannot_carry() -> None:
    assert said(Request("a", "b\ud83d").body) == (
        "The request cannot be sent: the text holds a lone surrogate (half of a character, "
        "'\\ud83d'), which UTF-8 cannot carry."
    )
    assert said(Request("a", "b", None, {"x": {1}}).body) == (
        "The request cannot be sent: request_metadata cannot be written as JSON (Object of "
        "type set is not JSON serializable)."
    )


PREFIX = (
    "The stream holds an event that is not a JSON object, which the contract does not know: "
)


def test_what_is_no_json_object() -> None:
    assert said(decode, b"data: " + b"x" * 80 + b"\n") == PREFIX + f"'{'x' * 80}'"
    assert said(decode, b"data: " + b"x" * 81 + b"\n") == PREFIX + f"'{'x' * 80}'..."
    assert said(decode, b"data: \xff\n") == PREFIX + "'\ufffd'"
    assert said(decode, b'data: {"a":\ndata: 1\n\n') == PREFIX + "'{\"a\":\\n1'"


def test_an_event_too_large() -> None:
    assert said(decode, b"data: " + b"x" * 100 + b"\n", 50) == (
        "One event of the stream is larger than max_event_bytes (50). If the agent's tools "
        "return that much, raise max_event_bytes."
    )


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"type": "token"}, "content: is not a string"),
        ({"type": "tool_call", "name": 1}, "name: Input should be a valid string"),
        (
            {"type": "tool_call", "name": "x", "args": [1]},
            "args: Input should be a valid dictionary",
        ),
    ],
)
def test_an_event_that_is_not_the_contracts(event: dict[str, Any], message: str) -> None:
    assert said(parse_event, event) == (
        f"The stream holds a `{event['type']}` event that is not the contract's: {message}"
    )


def test_what_the_log_says(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "langchain_thinnest")
    parse_event({"type": "thinking"})
    parse_event({"type": 7})
    parse_event({"type": "done", "usage": {"input_tokens": "?"}})
    assert [record.message for record in caplog.records] == [
        "Skipped a stream event of the unknown type 'thinking'",
        "Skipped a stream event of the unknown type ''",
        "Dropped a usage whose counts are not numbers of tokens",
    ]
