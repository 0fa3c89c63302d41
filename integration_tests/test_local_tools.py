"""Local tools over the wire: what is sent, and what comes of the answer on every path."""

from __future__ import annotations

import asyncio
import json
from functools import reduce
from operator import add
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import (
    AIMessage,
    HumanMessage,
    ToolMessage,
    messages_from_dict,
    messages_to_dict,
)
from langchain_core.tools import tool

from integration_tests.conftest import Make
from integration_tests.wire import WireServer, stream
from langchain_thinnest import (
    ThinnestGenerationError,
    ThinnestInterruptedError,
    ThinnestRequestError,
    expand_server_tools,
)
from unit_tests.contract import USAGE, as_sse, without_ids

DONE = {"type": "done", "usage": USAGE}


@tool
def look(at: str) -> str:
    """Look at something."""
    return f"I see {at}."


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "content": content}


def called(args: str = '{"at": "x"}') -> str:
    return f'<tool_call>{{"name": "look", "arguments": {args}}}</tool_call>'


SERVER = [
    {"type": "tool_call", "name": "search", "args": {"q": 1}},
    {"type": "tool_result", "name": "search", "result": "found"},
]
MIXED = [
    text("Let me see. "),
    *SERVER,
    text("So: <tool"),
    text('_call>{"name": "look", "argu'),
    text('ments": {"at": "a'),
    text(' \\"b\\""}}</tool_call> and '),
    text(f"{called('{}')}{called('{]')} end"),
    text("."),
    DONE,
]
MIXED_TEXT = "Let me see. So:  and  end."
MIXED_BLOCKS = [
    {"type": "text", "text": "Let me see. "},
    {"type": "server_tool_call", "id": 0, "name": "search", "args": {"q": 1}},
    {
        "type": "server_tool_result",
        "tool_call_id": 0,
        "status": "success",
        "output": "found",
        "extras": {"name": "search"},
    },
    {"type": "text", "text": "So: "},
    {"type": "tool_call", "id": 1, "name": "look", "args": {"at": 'a "b"'}},
    {"type": "text", "text": " and "},
    {"type": "tool_call", "id": 2, "name": "look", "args": {}},
    {"type": "invalid_tool_call", "id": 3, "name": "look", "args": "{]}", "error": None},
    {"type": "text", "text": " end."},
]


def bind(model: Any) -> dict[str, Any]:
    """The arguments that binding the tool adds to a call."""
    return dict(model.bind_tools([look]).kwargs)


def check_mixed(answer: AIMessage) -> None:
    assert answer.text == MIXED_TEXT
    assert without_ids(answer.content_blocks) == MIXED_BLOCKS
    ids = [block["id"] for block in answer.content_blocks if "tool_call" in block["type"]][-3:]
    assert [(c["id"], c["name"], c["args"], c["type"]) for c in answer.tool_calls] == [
        (ids[0], "look", {"at": 'a "b"'}, "tool_call"),
        (ids[1], "look", {}, "tool_call"),
    ]
    (invalid,) = answer.invalid_tool_calls
    assert (invalid["id"], invalid["name"], invalid["args"]) == (ids[2], "look", "{]}")
    assert answer.usage_metadata == USAGE
    assert answer.response_metadata["finish_reason"] == "stop"


def test_calls_on_every_path(wired: Make, wire: WireServer, any_way: Any) -> None:
    wire.answer(stream(as_sse(*MIXED)))
    for version in (None, "v1"):
        model = wired(output_version=version)
        check_mixed(any_way(model, "hi", **bind(model)))


def test_calls_of_a_bound_model(wired: Make, wire: WireServer) -> None:
    wire.answer(stream(as_sse(*MIXED)))
    model = wired().bind_tools([look])
    check_mixed(model.invoke("hi"))
    check_mixed(asyncio.run(model.ainvoke("hi")))
    check_mixed(reduce(add, model.stream("hi")))
    check_mixed(model.batch(["hi", "hi"])[1])


def test_any_cut_of_the_text(wired: Make, wire: WireServer) -> None:
    whole = "".join(event["content"] for event in MIXED[3:-1])
    model = wired()
    arguments = bind(model)
    for at in range(0, len(whole) + 1, 3):
        cut = [text(whole[:at]), text(whole[at:])]
        wire.answer(stream(as_sse(*MIXED[:3], *cut, DONE)))
        check_mixed(model.invoke("hi", **arguments))
        check_mixed(reduce(add, model.stream("hi", **arguments)))


def test_what_a_stream_is_made_of(wired: Make, wire: WireServer) -> None:
    wire.answer(stream(as_sse(*MIXED)))
    model = wired()
    chunks = list(model.stream("hi", **bind(model)))
    assert [chunk.content for chunk in chunks] == [
        *("Let me see. ", "", "", "So: "),
        *("", "", " and "),  # the parts of the first call
        *("", "", " end", ".", ""),
    ]
    parts = [part for chunk in chunks for part in chunk.tool_call_chunks]
    assert [(p["name"], p["args"], p["index"]) for p in parts] == [
        ("look", '{"at": "a', 0),
        (None, ' \\"b\\""}', 0),
        ("look", "{}", 1),
        ("look", "{]}", 2),
    ]
    assert [bool(part["id"]) for part in parts] == [True, False, True, True]
    assert [chunk.chunk_position for chunk in chunks] == [None] * 11 + ["last"]
    growing = [reduce(add, chunks[:size]).tool_calls for size in (5, 6)]
    assert [calls[0]["args"] for calls in growing] == [{"at": "a"}, {"at": 'a "b"'}]
    assert len({chunk.id for chunk in chunks}) == 1


def test_v3_events(wired: Make, wire: WireServer) -> None:
    wire.answer(stream(as_sse(*MIXED)))
    model = wired()
    events = list(model.stream_events("hi", version="v3", **bind(model)))
    blocks = [e for e in events if e["event"].startswith("content-block")]
    call = [e for e in blocks if e["index"] == 4]
    assert [e["event"].removeprefix("content-block-") for e in call] == [
        "start",
        *["delta"] * 2,
        "finish",
    ]
    assert call[0]["content"]["type"] == "tool_call_chunk"
    assert call[0]["content"]["name"] == "look"
    assert "".join(e["delta"]["args"] for e in call[1:-1]) == '{"at": "a \\"b\\""}'
    assert call[-1]["content"]["args"] == {"at": 'a "b"'}
    finished = [e["index"] for e in blocks if e["event"] == "content-block-finish"]
    assert finished == list(range(len(MIXED_BLOCKS)))


def test_without_calls_the_chunks_are_the_same(wired: Make, wire: WireServer) -> None:
    contents = ["Hello ", "", "a < b", "\n```\n", called(), "\n```\n", "é </tool_call>", " x"]
    wire.answer(stream(as_sse(*map(text, contents), *SERVER, text("<b>"), DONE)))
    model = wired()
    plain = [chunk.content for chunk in model.stream("hi")]
    assert [chunk.content for chunk in model.stream("hi", **bind(model))] == plain
    assert plain[: len(contents)] == contents


def test_a_tag_that_a_servers_tool_cuts_is_text(
    wired: Make, wire: WireServer, any_way: Any
) -> None:
    wire.answer(stream(as_sse(text("a <tool"), *SERVER, text("_call> b"), DONE)))
    model = wired()
    answer = any_way(model, "hi", **bind(model))
    assert answer.text == "a <tool_call> b"
    assert [block["type"] for block in answer.content_blocks] == [
        "text",
        "server_tool_call",
        "server_tool_result",
        "text",
    ]


def test_a_call_goes_on_behind_a_servers_tool(
    wired: Make, wire: WireServer, any_way: Any
) -> None:
    body = called()
    wire.answer(stream(as_sse(text("a " + body[:46]), *SERVER, text(body[46:] + " b"), DONE)))
    model = wired()
    answer = any_way(model, "hi", **bind(model))
    assert answer.text == "a  b"
    assert [call["args"] for call in answer.tool_calls] == [{"at": "x"}]
    assert [block["type"] for block in answer.content_blocks] == [
        "text",
        "tool_call",
        "server_tool_call",
        "server_tool_result",
        "text",
    ]


def test_a_last_call_that_is_not_closed(wired: Make, wire: WireServer, any_way: Any) -> None:
    model = wired()
    for size, valid in ((12, 1), (14, 0), (20, 0)):
        wire.answer(stream(as_sse(text("a "), text(called()[:-size]), DONE)))
        answer = any_way(model, "hi", **bind(model))
        assert (answer.text, len(answer.tool_calls)) == ("a ", valid)
        assert len(answer.invalid_tool_calls) == 1 - valid


def test_no_call_is_found_where_none_is_bound(
    wired: Make, wire: WireServer, any_way: Any
) -> None:
    wire.answer(stream(as_sse(text(called()), DONE)))
    model = wired()
    for arguments in ({}, dict(model.bind_tools([look], tool_choice="none").kwargs)):
        answer = any_way(model, "hi", **arguments)
        assert (answer.text, answer.tool_calls) == (called(), [])


def test_where_nothing_is_asked_the_request_is_the_same_bytes(
    wired: Make, wire: WireServer, any_way: Any
) -> None:
    wire.answer(stream(as_sse(DONE)))
    model = wired()
    history = [
        HumanMessage("<tools>"),
        AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "1"}]),
        ToolMessage("x", tool_call_id="1"),
    ]
    for given in ("<tools> é", history):
        wire.requests.clear()
        any_way(model, given)
        for arguments in (
            dict(model.bind_tools([]).kwargs),
            dict(model.bind_tools([look], tool_choice="none").kwargs),
        ):
            any_way(model, given, **arguments)
        assert len({taken.body for taken in wire.requests}) == 1
        assert len(wire.requests) == 3
    assert (
        wire.requests[0].json["message"].startswith("User: <tools>\n\nAssistant called look")
    )


def test_what_is_sent(wired: Make, wire: WireServer, any_way: Any) -> None:
    wire.answer(stream(as_sse(DONE)))
    model = wired()
    any_way(model, "hi <tools>", **bind(model))
    message = wire.requests[0].json["message"]
    assert set(wire.requests[0].json) == {"agent_id", "message"}
    assert message.startswith('<tools>\n{"type": "function", "function": {"name": "look"')
    assert message.endswith("\n\nhi <\\tools>")
    # Given to the call itself, tools need no binding.
    any_way(model, "hi <tools>", tools=[look])
    assert wire.requests[1].json["message"] == message


def test_what_cannot_be_asked_is_refused_before_anything_is_sent(
    wired: Make, wire: WireServer, any_way: Any
) -> None:
    for arguments in (
        {"tools": [3]},
        {"tools": [look], "tool_choice": "listen"},
        {"tools": [look, {"name": "look", "description": "?"}]},
        {"response_format": {"type": "json_schema"}},
    ):
        with pytest.raises(ThinnestRequestError):
            any_way(wired(), "hi", **arguments)
    assert wire.connections == 0


def test_a_turn_of_tools_with_and_without_a_session(
    wired: Make, wire: WireServer, any_way: Any
) -> None:
    answers = [stream(as_sse(text(called()), DONE)), stream(as_sse(text("Good."), DONE))]
    for session_id in (None, "s_1"):
        wire.requests.clear()
        wire.answer(*answers)
        model = wired(session_id=session_id)
        history: list[Any] = [HumanMessage("hi")]
        history.append(any_way(model, history, **bind(model)))
        history.append(look.invoke(history[-1].tool_calls[0]))
        assert any_way(model, history, **bind(model)).text == "Good."
        sent = wire.requests[1].json["message"].partition("none helps.\n\n")[2]
        told = '<tool_response>{"name": "look", "content": "I see x."}</tool_response>'
        assert sent == (told if session_id else f"User: hi\n\nAssistant: {called()}\n\n{told}")


def test_ids_are_new_in_every_turn(wired: Make, wire: WireServer, any_way: Any) -> None:
    wire.answer(stream(as_sse(text(called() * 2), DONE)))
    model = wired()
    ids = {c["id"] for _ in range(2) for c in any_way(model, "hi", **bind(model)).tool_calls}
    assert len(ids) == 4


def test_an_answer_that_breaks_off_in_a_call(
    wired: Make, wire: WireServer, any_way: Any
) -> None:
    model = wired()
    events = [text(f"a {called()}"), text(called()[:-30])]
    for ending, error in (
        ([], ThinnestInterruptedError),
        ([{"type": "error", "message": "no"}], ThinnestGenerationError),
    ):
        wire.answer(stream(as_sse(*events, *ending)))
        with pytest.raises(error) as raised:
            any_way(model, "hi", **bind(model))
        partial = raised.value.partial
        assert partial.text == "a "
        assert [call["args"] for call in partial.tool_calls] == [{"at": "x"}]
        assert len(partial.invalid_tool_calls) == 1


def test_stop_sequences_end_text_not_arguments(
    wired: Make, wire: WireServer, any_way: Any
) -> None:
    wire.answer(
        stream(as_sse(text("a ST"), text(called('{"at": "STOP"}') + "OP STOP b"), DONE))
    )
    model = wired(stop=["STOP"])
    answer = any_way(model, "hi", **bind(model))
    assert answer.text == "a STOP "  # what a call parts is not one word
    assert [call["args"] for call in answer.tool_calls] == [{"at": "STOP"}]
    assert answer.response_metadata["finish_reason"] == "stop_sequence"
    wire.answer(stream(as_sse(text("a STOP"), text(called()), DONE)))
    answer = any_way(model, "hi", **bind(model))
    assert (answer.text, answer.tool_calls) == ("a ", [])


def test_only_the_servers_tools_are_tool_runs(wired: Make, wire: WireServer, way: Any) -> None:
    wire.answer(stream(as_sse(*MIXED)))
    started: list[str] = []

    class Handler(BaseCallbackHandler):
        def on_tool_start(self, serialized: Any, input_str: str, **kwargs: Any) -> None:
            started.append(kwargs["name"])

    model = wired()
    way(model, "hi", {"callbacks": [Handler()]}, **bind(model))
    assert started == ["search"]


def test_expanded(wired: Make, wire: WireServer, any_way: Any) -> None:
    """The local calls are the last message's, to be answered; the server's are answered."""
    model = wired()
    for events in (
        [*SERVER, text(called()), DONE],
        [text(called()), *SERVER, text("b"), DONE],
    ):
        wire.answer(stream(as_sse(*events)))
        answer = any_way(model, "hi", **bind(model))
        *rest, last = expand_server_tools(answer)
        assert [m.type for m in rest] == ["ai", "tool"]
        assert [call["name"] for call in rest[0].tool_calls] == ["search"]
        assert last.tool_calls == answer.tool_calls
        assert last.id == answer.id
        assert not last.additional_kwargs


def test_the_answer_goes_through_storage(wired: Make, wire: WireServer, way: Any) -> None:
    wire.answer(stream(as_sse(*MIXED)))
    model = wired()
    answer = way(model, "hi", **bind(model))
    (copy,) = messages_from_dict(json.loads(json.dumps(messages_to_dict([answer]))))
    check_mixed(copy)


def test_a_very_long_argument(wired: Make, wire: WireServer) -> None:
    """Read part by part in a lenient way, it would take minutes."""
    long = "word " * 40_000
    body = called(json.dumps({"at": long}))
    model = wired()
    for pieces in ([body], [body[: len(body) // 2], body[len(body) // 2 :]]):
        wire.answer(stream(as_sse(*map(text, pieces), DONE)))
        answer = reduce(add, model.stream("hi", **bind(model)))
        assert answer.tool_calls[0]["args"] == {"at": long}
