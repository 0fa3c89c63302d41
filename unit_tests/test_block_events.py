"""The content-block events of an answer, and its message and chunks, field by field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from langchain_thinnest._answer.block_events import BlockEvents
from langchain_thinnest._answer.message import Answer, as_tool_message, tool_message
from langchain_thinnest._answer.turn import End, ServerToolResult, Turn
from unit_tests.contract import USAGE, as_sse, fed

TOOLS = {"f": {"type": "object", "properties": {"x": {"type": "integer"}}}}
PLACE = {"type": "tool_call", "name": "find", "args": {"q": "x"}, "id": "s1"}
FOUND = {"type": "tool_result", "name": "find", "result": {"n": 1}, "id": "s1"}
DONE = {"type": "done", "usage": USAGE}
CALL = '<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>'
SERVER_TOOLS = [
    {"type": "call", "id": "s1", "name": "find", "args": {"q": "x"}, "offset": 2},
    {"type": "result", "id": "s1", "name": "find", "result": {"n": 1}, "offset": 2},
]
ORIGIN = {"model_provider": "thinnest"}


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "content": content}


def opened(*, as_blocks: bool = False, **fields: Any) -> tuple[Turn, Answer]:
    turn = Turn(max_event_bytes=100_000, local_tools=TOOLS)
    given: dict[str, Any] = {"agent_id": "ag_1", "session_id": None, "as_blocks": as_blocks}
    return turn, Answer(turn, **{**given, **fields})


def events(*payloads: Any, **fields: Any) -> list[Any]:
    """The events of an answer; the index of a block is shown without its random part."""
    turn, answer = opened(**fields)
    made = BlockEvents(answer, "m1")
    found: list[Any] = []
    for payload in payloads:
        for piece in fed(turn, as_sse(payload)):
            found += made.of(piece)
    for event in found:
        if event["event"] == "content-block-finish":
            mark, _, number = event["content"]["index"].rpartition("_")
            assert mark.startswith("lc_")
            assert event["index"] == int(number)
            event["content"] = {k: v for k, v in event["content"].items() if k != "index"}
    return found


START = {
    "event": "message-start",
    "role": "ai",
    "id": "m1",
    "metadata": {"provider": "thinnest", "model": "ag_1"},
}


def started(index: int, block: Any) -> Any:
    return {"event": "content-block-start", "index": index, "content": block}


def grown(index: int, delta: Any) -> Any:
    return {"event": "content-block-delta", "index": index, "delta": delta}


def ended(index: int, block: Any) -> Any:
    return {"event": "content-block-finish", "index": index, "content": block}


def test_text_is_one_block() -> None:
    assert events(text("ab"), text(""), text("c"), DONE) == [
        START,
        started(0, {"type": "text", "text": ""}),
        grown(0, {"type": "text-delta", "text": "ab"}),
        grown(0, {"type": "text-delta", "text": "c"}),
        ended(0, {"type": "text", "text": "abc"}),
        {
            "event": "message-finish",
            "metadata": {**ORIGIN, "model_name": "ag_1", "finish_reason": "stop"},
            "usage": USAGE,
        },
    ]


def test_without_usage_and_text() -> None:
    assert events({"type": "done"}) == [
        START,
        {
            "event": "message-finish",
            "metadata": {**ORIGIN, "model_name": "ag_1", "finish_reason": "stop"},
        },
    ]


def test_server_tools_are_blocks_of_their_own() -> None:
    call = {"type": "server_tool_call", "id": "s1", "name": "find"}
    result = {
        "type": "server_tool_result",
        "tool_call_id": "s1",
        "status": "success",
        "extras": {"name": "find"},
    }
    *found, finish = events(text("ab"), PLACE, FOUND, text("c"), DONE)
    assert found == [
        START,
        started(0, {"type": "text", "text": ""}),
        grown(0, {"type": "text-delta", "text": "ab"}),
        ended(0, {"type": "text", "text": "ab"}),
        # What is heavy comes once, at the end.
        started(1, {**call, "args": {}}),
        ended(1, {**call, "args": {"q": "x"}}),
        started(2, {**result, "output": None}),
        ended(2, {**result, "output": {"n": 1}}),
        started(3, {"type": "text", "text": ""}),
        grown(3, {"type": "text-delta", "text": "c"}),
        ended(3, {"type": "text", "text": "c"}),
    ]
    around = {"s1": [["ab", "c"], ["ab", "c"]]}
    assert finish["additional_kwargs"] == {
        "server_tools": SERVER_TOOLS,
        "tool_surroundings": {"s1": {"length": 3, "around": around}},
    }


def test_a_local_call_is_open_while_its_arguments_come() -> None:
    head, _, tail = CALL.partition("1}")
    found = events(text(f"ab{head}"), PLACE, text(f"1}}{tail}"), DONE)[4:-1]
    id_ = found[0]["content"]["id"]
    chunk = {"type": "tool_call_chunk", "id": id_, "name": "f", "args": ""}
    assert found[0] == started(1, chunk)
    index_of_call = {event["index"] for event in found if "delta" in event}
    assert index_of_call == {1}
    deltas = [event["delta"] for event in found if "delta" in event]
    assert {delta["type"] for delta in deltas} == {"tool-call-delta"}
    assert json.loads("".join(delta["args"] for delta in deltas)) == {"x": 1}
    assert [event for event in found if "delta" not in event][1:] == [
        started(2, {"type": "server_tool_call", "id": "s1", "name": "find", "args": {}}),
        ended(2, {"type": "server_tool_call", "id": "s1", "name": "find", "args": {"q": "x"}}),
        ended(1, {"type": "tool_call", "id": id_, "name": "f", "args": {"x": 1}}),
    ]


def test_a_local_call_that_is_broken() -> None:
    broken = '<tool_call>{"name": "f", "arguments": {"x": </tool_call>'
    found = events(text(broken), DONE)
    last = next(event for event in found if event["event"] == "content-block-finish")
    block = last["content"]
    assert {**block, "id": "", "args": ""} == {
        "type": "invalid_tool_call",
        "name": "f",
        "id": "",
        "args": "",
        "error": None,
    }
    assert block["args"].startswith('{"x":')
    assert block["id"] == found[1]["content"]["id"]


def test_the_caller_may_add_the_end() -> None:
    _, answer = opened()
    made = BlockEvents(answer, "m1")
    assert list(made.before_the_end(End())) == []
    kinds = [event["event"] for event in made.before_the_end("a")]
    assert kinds == ["message-start", "content-block-start", "content-block-delta"]


# --- the message ---


def answered(*payloads: Any, **fields: Any) -> tuple[Any, list[Any]]:
    """The message of an answer, and its chunks."""
    turn, answer = opened(**fields)
    pieces = [piece for payload in payloads for piece in fed(turn, as_sse(payload))]
    return answer.message(), [answer.chunk(piece).message for piece in pieces]


def test_what_a_message_holds() -> None:
    broken = '<tool_call>{"name": "f", "arguments": {"x": </tool_call>'
    message, _ = answered(text("ab"), PLACE, FOUND, text(f"c{CALL}{broken}"), DONE)
    (call,), (invalid,) = message.tool_calls, message.invalid_tool_calls
    assert message.content == "abc"
    assert call == {"type": "tool_call", "name": "f", "args": {"x": 1}, "id": call["id"]}
    assert (invalid["name"], invalid["error"]) == ("f", None)
    assert invalid["args"].startswith('{"x":')
    assert message.usage_metadata == USAGE
    sides = [["abc", ""]]
    assert message.additional_kwargs == {
        "server_tools": SERVER_TOOLS,
        "tool_call_positions": {call["id"]: [3, 2], invalid["id"]: [3, 2]},
        "tool_surroundings": {
            "s1": {
                "length": 3,
                "around": {
                    "s1": [["ab", "c"], ["ab", "c"]],
                    call["id"]: sides,
                    invalid["id"]: sides,
                },
            }
        },
    }


@pytest.mark.parametrize("as_blocks", [False, True])
def test_the_chunks_of_a_call(as_blocks: bool) -> None:
    head, _, tail = CALL.partition("1}")
    message, chunks = answered(
        text(head), text(f"1}}{tail}"), text(CALL), DONE, as_blocks=as_blocks
    )
    *chunks, last = chunks
    ids = [call["id"] for call in message.tool_calls]
    for index, id_ in enumerate(ids):
        first, *others = [c for c in chunks if c.tool_call_chunks[0]["index"] == index]
        (told,) = first.tool_call_chunks
        assert (told["name"], told["id"], told["type"]) == ("f", id_, "tool_call_chunk")
        assert first.additional_kwargs == {"tool_call_positions": {id_: [0, 0]}}
        for other in others:
            (told,) = other.tool_call_chunks
            assert (told["name"], told["id"]) == (None, None)
            assert other.additional_kwargs == {}
        parts = [c.tool_call_chunks[0]["args"] for c in (first, *others)]
        assert json.loads("".join(parts)) == {"x": 1}
        contents = [block for c in (first, *others) for block in c.content]
        if as_blocks:
            block = {"type": "tool_call", "name": "f", "args": {"x": 1}, "id": id_}
            (found,) = contents
            assert found.pop("index").endswith(f"_{index}")
            assert found == block
        else:
            assert contents == []
    origin = {**ORIGIN, "output_version": "v1"} if as_blocks else ORIGIN
    assert all(chunk.response_metadata == origin for chunk in chunks)
    assert all(chunk.content in ([], "") for chunk in chunks if not chunk.content)
    assert last.content == ([] if as_blocks else "")
    assert last.response_metadata == {**origin, "model_name": "ag_1", "finish_reason": "stop"}
    assert last.usage_metadata == USAGE
    assert last.chunk_position == "last"
    sides = {id_: [["", ""]] for id_ in ids}
    assert last.additional_kwargs == {
        "tool_surroundings": {ids[0]: {"length": 0, "around": sides}}
    }


def test_the_arguments_of_a_long_part_come_whole() -> None:
    for size in (1980, 1999, 2000, 2001, 5000):
        long = json.dumps({"name": "f", "arguments": {"note": "y" * size}})
        message, chunks = answered(text(f"<tool_call>{long}</tool_call>"), DONE)
        parts = [c.tool_call_chunks[0] for c in chunks if c.tool_call_chunks]
        assert json.loads("".join(part["args"] for part in parts)) == {"note": "y" * size}
        assert (parts[0]["name"], parts[0]["index"]) == ("f", 0)
        assert message.tool_calls[0]["args"] == {"note": "y" * size}


def test_chunks_of_blocks() -> None:
    _, chunks = answered(
        text("a"), text("b"), PLACE, FOUND, text("c"), text("d"), DONE, as_blocks=True
    )
    found = [block for chunk in chunks for block in chunk.content]
    numbers = [int(block.pop("index").rpartition("_")[2]) for block in found]
    assert numbers == [0, 0, 1, 2, 3, 3]
    assert found == [
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b"},
        {"type": "server_tool_call", "id": "s1", "name": "find", "args": {"q": "x"}},
        {
            "type": "server_tool_result",
            "tool_call_id": "s1",
            "status": "success",
            "output": {"n": 1},
            "extras": {"name": "find"},
        },
        {"type": "text", "text": "c"},
        {"type": "text", "text": "d"},
    ]
    origin = {**ORIGIN, "output_version": "v1"}
    assert all(chunk.response_metadata == origin for chunk in chunks[:-1])
    kept = [chunk.additional_kwargs for chunk in chunks[:-1]]
    tools = [{"server_tools": [raw]} for raw in SERVER_TOOLS]
    assert kept == [{}, {}, *tools, {}, {}]


def test_text_after_a_local_call_is_a_new_block() -> None:
    _, chunks = answered(text("a"), text(CALL), PLACE, text("b"), DONE, as_blocks=True)
    found = [block for chunk in chunks for block in chunk.content]
    numbers = [int(block["index"].rpartition("_")[2]) for block in found]
    assert numbers == [*range(len(found))]


def test_chunks_of_text_and_tools() -> None:
    _, chunks = answered(text("ab"), PLACE, FOUND, text("c"), DONE, segment_id="r")
    assert [chunk.content for chunk in chunks] == ["ab", "", "", "c", ""]
    assert [chunk.id for chunk in chunks] == ["r-0", "r-0", "r-0", "r-1", "r-1"]
    assert all(chunk.response_metadata == ORIGIN for chunk in chunks[:-1])
    kept = [chunk.additional_kwargs for chunk in chunks[:-1]]
    assert kept == [{}, *({"server_tools": [raw]} for raw in SERVER_TOOLS), {}]


def test_ids_of_segments_count_the_messages_of_a_loop() -> None:
    again = [{**event, "id": "s2"} for event in (PLACE, FOUND)]
    _, chunks = answered(PLACE, FOUND, *again, text("a"), DONE, segment_id="r")
    numbers = [chunk.id for chunk in chunks]
    assert numbers == ["r-0", "r-0", "r-1", "r-1", "r-2", "r-2"]
    _, chunks = answered(PLACE, FOUND, DONE, segment_id="r")
    assert [chunk.id for chunk in chunks] == ["r-0", "r-0", "r-0"]


def as_json(**fields: Any) -> tuple[Any, list[Any]]:
    """The message of an answer in JSON, and its chunks."""
    value = {
        "response": "ab",
        "tool_calls": [{"id": "s1", "name": "find", "args": {"q": "x"}}],
        "finish_reason": "length",
        "model": "m",
        "rate_limit": 3,
        "server_rate_limit": 4,
    }
    turn = Turn(max_event_bytes=10_000)
    turn.expect_json()
    given: dict[str, Any] = {"agent_id": "ag_1", "session_id": None, "as_blocks": False}
    answer = Answer(turn, **{**given, **fields})
    list(fed(turn, json.dumps(value).encode()))
    from langchain_thinnest import ThinnestProtocolError

    pieces = list(fed(turn, ThinnestProtocolError("cut")))
    return answer.message(), [answer.chunk(piece).message for piece in pieces]


def test_a_call_whose_result_nobody_tells() -> None:
    message, chunks = as_json(segment_id="r")
    (raw,) = message.additional_kwargs["server_tools"]
    assert raw == {
        "type": "call",
        "id": "s1",
        "name": "find",
        "args": {"q": "x"},
        "offset": 0,
        "unanswered": True,
    }
    assert message.content_blocks == [
        {
            "type": "server_tool_call",
            "id": "s1",
            "name": "find",
            "args": {"q": "x"},
            "extras": {"unanswered": True},
        },
        {"type": "text", "text": "ab"},
    ]
    assert [chunk.id for chunk in chunks] == ["r-0", "r-1", "r-1"]


def test_a_servers_key_of_our_name_gets_a_prefix() -> None:
    message, chunks = as_json()
    expected = {
        **ORIGIN,
        "model_name": "ag_1",
        "finish_reason": "stop",
        "server_finish_reason": "length",
        "model": "m",
        "server_rate_limit": 3,
        "server_server_rate_limit": 4,
    }
    assert message.response_metadata == expected
    assert chunks[-1].response_metadata == expected


@pytest.mark.parametrize(
    ("sent", "told", "expected"),
    [
        (None, None, {}),
        ("a", None, {"session_id": "a"}),
        (None, "b", {"session_id": "b"}),
        ("a", "b", {"session_id": "a", "server_session_id": "b"}),
        ("a", "a", {"session_id": "a"}),
    ],
)
def test_which_session_a_message_tells(sent: Any, told: Any, expected: Any) -> None:
    message, _ = answered({"type": "done", "session_id": told}, session_id=sent)
    fields = {k: v for k, v in message.response_metadata.items() if "session" in k}
    assert fields == expected


def test_an_answer_that_a_stop_sequence_ended() -> None:
    turn = Turn(max_event_bytes=1000, stop=["."])
    answer = Answer(turn, agent_id="ag_1", session_id=None, as_blocks=False)
    list(fed(turn, as_sse(text("One. Two."))))
    assert answer.message().response_metadata == {
        **ORIGIN,
        "model_name": "ag_1",
        "finish_reason": "stop_sequence",
    }


def test_what_the_headers_said() -> None:
    turn, answer = opened()
    list(fed(turn, as_sse(text("a"))))
    assert answer.message().response_metadata == {**ORIGIN, "model_name": "ag_1"}
    answer.rate_limit, answer.request_id = {"remaining": 3}, "req_7"
    assert answer.message().response_metadata == {
        **ORIGIN,
        "model_name": "ag_1",
        "rate_limit": {"remaining": 3},
        "request_id": "req_7",
    }


def test_a_message_of_blocks() -> None:
    message, _ = answered(text("ab"), PLACE, FOUND, DONE, as_blocks=True)
    assert [block["type"] for block in message.content] == [
        "text",
        "server_tool_call",
        "server_tool_result",
    ]
    assert message.response_metadata["output_version"] == "v1"


def test_blocks_of_two_answers_have_different_indexes() -> None:
    (_, first), (_, second) = opened(as_blocks=True), opened(as_blocks=True)
    assert first.block_index(0) == first.block_index(0) != first.block_index(1)
    assert first.block_index(0) != second.block_index(0)


@pytest.mark.parametrize(
    ("output", "content", "artifact"),
    [
        ("plain", "plain", None),
        ({"é": [1, None]}, '{"é": [1, null]}', {"é": [1, None]}),
        (None, "null", None),
        ({"a": 1 + 2j}, '{"a": "(1+2j)"}', {"a": 1 + 2j}),
    ],
)
def test_a_tools_output_as_a_message(output: Any, content: str, artifact: Any) -> None:
    message = tool_message(ServerToolResult("c1", "find", output, 3, answers=True))
    assert message == as_tool_message("c1", "find", output)
    assert (message.tool_call_id, message.name, message.id) == ("c1", "find", "c1-result")
    assert (message.content, message.artifact, message.status) == (
        content,
        artifact,
        "success",
    )
