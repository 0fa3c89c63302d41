"""`expand_server_tools`: one answer → the transcript of an agent loop."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ToolMessage,
    convert_to_openai_messages,
    messages_from_dict,
    messages_to_dict,
)

from langchain_thinnest import expand_server_tools
from langchain_thinnest._answer.message import Answer
from langchain_thinnest._answer.turn import End, Turn
from unit_tests.contract import EVENTS, OFFSET, TEXT, USAGE, as_sse, fed


def answers(*events: dict[str, Any], **fields: Any) -> list[AIMessage]:
    """The answer as a message and as chunks added up, with string and with block content."""
    made: list[AIMessage] = []
    for as_blocks in (False, True):
        for as_chunks in (False, True):
            turn = Turn(max_event_bytes=10_000)
            answer = Answer(
                turn, agent_id="ag_1", session_id=fields.get("session_id"), as_blocks=as_blocks
            )
            pieces = fed(turn, as_sse(*events, {"type": "done", "usage": USAGE}))
            chunks = [answer.chunk(piece).message for piece in pieces]
            message = reduce(add, chunks) if as_chunks else answer.message()
            message.id = "m1"
            made.append(message)
    return made


def call(name: str, **fields: Any) -> dict[str, Any]:
    return {"type": "tool_call", "name": name, "args": {}, **fields}


def result(name: str, value: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "name": name, "result": value, **fields}


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "content": content}


def shape(messages: list[BaseMessage]) -> list[Any]:
    return [
        (message.text, [c["name"] for c in message.tool_calls])
        if isinstance(message, AIMessage)
        else (message.name, message.content, message.status)
        for message in messages
        if isinstance(message, (AIMessage, ToolMessage))
    ]


def is_valid_history(messages: list[BaseMessage]) -> bool:
    """Whether each AI message's calls are answered, right after it, once each."""
    waiting: list[str] = []
    for message in messages:
        if isinstance(message, ToolMessage):
            if message.tool_call_id not in waiting:
                return False
            waiting.remove(message.tool_call_id)
        elif isinstance(message, AIMessage):
            if waiting:
                return False
            waiting = [c["id"] or "" for c in message.tool_calls]
    return not waiting


def test_example() -> None:
    for message in answers(*EVENTS[:-1], session_id="s1"):
        first, tool, last = expand_server_tools(message)
        assert isinstance(first, AIMessage)
        assert isinstance(tool, ToolMessage)
        assert isinstance(last, AIMessage)
        assert (first.content, last.content) == (TEXT[:OFFSET], TEXT[OFFSET:])
        (tool_call,) = first.tool_calls
        assert (tool_call["name"], tool_call["args"]) == (
            "web_search",
            {"query": "ML applications 2026"},
        )
        assert (tool.tool_call_id, tool.name, tool.content) == (
            tool_call["id"],
            "web_search",
            "...",
        )
        assert (last.id, last.usage_metadata) == ("m1", USAGE)
        assert last.response_metadata == {
            "model_provider": "thinnest",
            "model_name": "ag_1",
            "finish_reason": "stop",
            "session_id": "s1",
        }
        assert first.usage_metadata is None
        assert first.id not in (None, last.id)
        assert first.content_blocks[0] == {"type": "text", "text": TEXT[:OFFSET]}
        assert [block["type"] for block in first.content_blocks] == ["text", "tool_call"]


NO_RESULT = "The answer ended without a result of this tool."
X, Y = ("x", "X", "success"), ("y", "Y", "success")


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([text("a")], [("a", [])]),
        ([], [("", [])]),
        (
            [call("x")],
            [("", ["x"]), ("x", "The answer ended without a result of this tool.", "error")],
        ),
        ([result("x", "X")], [("", ["x"]), ("x", "X", "success")]),
        (
            [call("x"), result("x", "X"), call("y"), result("y", "Y"), text("a")],
            [
                ("", ["x"]),
                ("x", "X", "success"),
                ("", ["y"]),
                ("y", "Y", "success"),
                ("a", []),
            ],
        ),
        (
            [text("a"), call("x"), text("b"), call("y"), result("y", "Y"), result("x", "X")],
            [("ab", ["x", "y"]), Y, X],
        ),
        (  # a result that comes late still stands right after its call
            [call("x"), call("y"), result("y", "Y"), text("a"), result("x", "X"), text("b")],
            [
                ("", ["x", "y"]),
                ("y", "Y", "success"),
                ("x", "X", "success"),
                ("a", []),
                ("b", []),
            ],
        ),
    ],
)
def test_steps(events: list[dict[str, Any]], expected: list[Any]) -> None:
    for message in answers(*events):
        expanded = expand_server_tools(message)
        assert shape(expanded) == expected
        assert is_valid_history(expanded)


@pytest.mark.parametrize("value", [None, 7, ["a", {"b": None}], {"ü": "é"}])
def test_a_result_that_is_no_string_is_json_and_kept_raw(value: Any) -> None:
    import json

    for message in answers(call("x"), result("x", value)):
        _, tool = expand_server_tools(message)
        assert isinstance(tool, ToolMessage)
        assert json.loads(tool.text) == value
        assert tool.artifact == value
        assert "\\u" not in tool.text


def test_a_message_without_tools_is_as_it_was() -> None:
    message = AIMessage("hi", id="m1", tool_calls=[{"name": "x", "args": {}, "id": "c"}])
    assert expand_server_tools(message) == [message]


events = st.sampled_from(
    [
        text("a"),
        call("x"),
        call("y"),
        result("x", "X"),
        result("y", {"n": 1}),
        call("x", id="1"),
        result("x", "X1", id="1"),
    ]
)


@given(st.lists(events, max_size=9))
def test_whatever_comes_the_history_is_valid_and_nothing_is_lost(
    given_events: list[dict[str, Any]],
) -> None:
    expansions = [expand_server_tools(message) for message in answers(*given_events)]
    for expanded in expansions:
        assert is_valid_history(expanded)
        assert convert_to_openai_messages(expanded)
        ids = [message.id for message in expanded]
        assert len(set(ids)) == len(ids)
        assert all(ids)
        said = "".join(m.text for m in expanded if isinstance(m, AIMessage))
        assert said == "".join(e["content"] for e in given_events if e["type"] == "text")
        results = [m for m in expanded if isinstance(m, ToolMessage) and m.status == "success"]
        assert len(results) == sum(e["type"] == "tool_result" for e in given_events)
        (copies) = messages_from_dict(messages_to_dict(expanded))
        assert copies == expanded
        for message, copy in zip(expanded, copies, strict=True):
            if isinstance(message, ToolMessage):
                assert isinstance(copy, ToolMessage)
                assert copy.artifact == message.artifact
    assert all(shape(expanded) == shape(expansions[0]) for expanded in expansions)


@given(st.lists(events, max_size=9))
def test_all_views_of_an_answer_agree(given_events: list[dict[str, Any]]) -> None:
    from unit_tests.contract import without_ids

    blocks = [without_ids(message.content_blocks) for message in answers(*given_events)]
    assert all(other == blocks[0] for other in blocks)


def test_chunks_of_expanded_messages_have_their_ids() -> None:
    from langchain_thinnest._answer.server_tools import expand

    turn = Turn(max_event_bytes=10_000)
    answer = Answer(turn, agent_id="a", session_id=None, as_blocks=False, segment_id="s")
    given_events = [text("a"), call("x"), result("x", "X"), text("b"), {"type": "done"}]
    pieces = list(fed(turn, as_sse(*given_events)))
    assert pieces[-1] == End()
    ids = [answer.chunk(piece).message.id for piece in pieces]
    assert ids == ["s-0", "s-0", "s-0", "s-1", "s-1"]
    expanded = expand(answer.message(), "s")
    assert [m.id for m in expanded if isinstance(m, AIMessage)] == ["s-0", "s-1"]


ORIGIN = {"model_provider": "thinnest", "model_name": "ag_1", "session_id": "s1"}


def blocks(*content: dict[str, Any], **fields: Any) -> AIMessage:
    return AIMessage(list(content), **fields)


def test_what_each_message_of_a_transcript_holds() -> None:
    message = blocks(
        {"type": "text", "text": "a"},
        {"type": "server_tool_call", "id": "1", "name": "x", "args": {"q": 1}},
        {"type": "server_tool_call", "id": "2", "name": "y", "args": {}},
        {
            "type": "server_tool_result",
            "tool_call_id": "1",
            "output": {"n": 1},
            "extras": {"name": "x"},
        },
        {"type": "text", "text": "b"},
        id="m1",
        name="Ada",
        additional_kwargs={"kept": 1, "server_tools": []},
        response_metadata={**ORIGIN, "finish_reason": "stop", "output_version": "v1"},
        usage_metadata=USAGE,
        tool_calls=[{"name": "z", "args": {}, "id": "3"}],
        invalid_tool_calls=[{"name": "z", "args": "{", "id": "4", "error": None}],
    )
    first, found, missing, last = expand_server_tools(message)
    assert first == AIMessage(
        "a",
        id="m1-0",
        name="Ada",
        response_metadata=ORIGIN,
        tool_calls=[
            {"name": "x", "args": {"q": 1}, "id": "1"},
            {"name": "y", "args": {}, "id": "2"},
        ],
    )
    assert found == ToolMessage(
        '{"n": 1}',
        artifact={"n": 1},
        tool_call_id="1",
        name="x",
        id="1-result",
        response_metadata=ORIGIN,
    )
    assert missing == ToolMessage(
        "The answer ended without a result of this tool.",
        tool_call_id="2",
        name="y",
        id="2-result",
        status="error",
        response_metadata=ORIGIN,
    )
    assert last == AIMessage(
        "b",
        id="m1",
        name="Ada",
        additional_kwargs={"kept": 1},
        response_metadata={**ORIGIN, "finish_reason": "stop"},
        usage_metadata=USAGE,
        tool_calls=message.tool_calls,
        invalid_tool_calls=message.invalid_tool_calls,
    )


def test_messages_without_an_id_get_none() -> None:
    message = blocks(
        {"type": "server_tool_call", "id": "1", "name": "x", "args": {}},
        {"type": "server_tool_result", "tool_call_id": "1", "output": "X"},
        {"type": "text", "text": "b"},
    )
    first, tool, last = expand_server_tools(message)
    assert (first.id, tool.id, last.id) == (None, "1-result", None)
    assert tool.name == "tool"  # it does not say which
    assert first.response_metadata == {"model_provider": "thinnest"}


@pytest.mark.parametrize(
    ("block", "read"),
    [
        ({"args": {"a": 1}, "name": "x", "id": "1"}, ("x", {"a": 1}, "1")),
        ({"args": "code", "name": "x", "id": "1"}, ("x", {"input": "code"}, "1")),
        ({"args": "", "name": None, "id": None}, ("tool", {}, "call")),
        ({}, ("tool", {}, "call")),
    ],
)
def test_a_call_of_another_provider(block: dict[str, Any], read: Any) -> None:
    message = blocks({"type": "server_tool_call", **block})
    first, _ = expand_server_tools(message)
    assert isinstance(first, AIMessage)
    (made,) = first.tool_calls
    assert (made["name"], made["args"], made["id"]) == read


@pytest.mark.parametrize(
    ("block", "read"),
    [
        ({"tool_call_id": "1", "output": "X", "extras": {"name": "x"}}, ("1", "x", "X")),
        ({"tool_call_id": "1", "extras": {}}, ("1", "tool", "null")),
        ({}, ("call", "tool", "null")),
    ],
)
def test_a_result_without_a_call(block: dict[str, Any], read: Any) -> None:
    first, tool = expand_server_tools(blocks({"type": "server_tool_result", **block}))
    assert isinstance(first, AIMessage)
    assert isinstance(tool, ToolMessage)
    (made,) = first.tool_calls
    assert (made["id"], made["name"], made["args"]) == (read[0], read[1], {})
    assert (tool.tool_call_id, tool.name, tool.content) == read


def test_a_call_of_which_no_result_is_known_ends_its_step() -> None:
    told = {"type": "server_tool_call", "name": "x", "args": {}}
    silent = {**told, "id": "1", "extras": {"unanswered": True}}
    message = blocks(silent, {**told, "id": "2"}, {"type": "text", "text": "a"})
    expanded = expand_server_tools(message)
    error = "The answer ended without a result of this tool."
    assert shape(expanded) == [
        ("", ["x"]),
        ("x", error, "error"),
        ("a", ["x"]),
        ("x", error, "error"),
    ]


def test_a_local_call_begins_a_new_step() -> None:
    message = blocks(
        {"type": "server_tool_call", "id": "1", "name": "x", "args": {}},
        {"type": "server_tool_result", "tool_call_id": "1", "output": "X"},
        {"type": "tool_call", "id": "2", "name": "z", "args": {}},
        tool_calls=[{"name": "z", "args": {}, "id": "2"}],
    )
    assert shape(expand_server_tools(message)) == [
        ("", ["x"]),
        ("tool", "X", "success"),
        ("", ["z"]),
    ]
