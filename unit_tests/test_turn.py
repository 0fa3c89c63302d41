"""The turn: events → the answer so far."""

from __future__ import annotations

import tracemalloc
from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_thinnest import (
    ThinnestGenerationError,
    ThinnestInterruptedError,
    ThinnestProtocolError,
)
from langchain_thinnest._answer.turn import End, ServerToolCall, ServerToolResult, Turn
from unit_tests.contract import EVENTS, OFFSET, TEXT, USAGE, as_printed, as_sse, fed, lines

DONE = {"type": "done"}
CLOSED = ThinnestInterruptedError("closed")


def call(name: str, **fields: Any) -> dict[str, Any]:
    return {"type": "tool_call", "name": name, "args": {}, **fields}


def result(name: str, value: Any = None, **fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "name": name, "result": value, **fields}


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "content": content}


def take(
    *events: dict[str, Any], stop: tuple[str, ...] = (), **options: Any
) -> tuple[Turn, list[Any]]:
    turn = Turn(max_event_bytes=10_000, stop=stop, **options)
    return turn, list(fed(turn, as_sse(*events)))


def pairs(turn: Turn) -> list[tuple[Any, Any]]:
    """Each result's value, with the arguments of the call that it answers."""
    args = {tool.id: tool.args for tool in turn.tools if isinstance(tool, ServerToolCall)}
    return [
        (tool.result, args[tool.id] if tool.answers else None)
        for tool in turn.tools
        if isinstance(tool, ServerToolResult)
    ]


def test_example() -> None:
    turn = Turn(max_event_bytes=10_000)
    pieces = [*fed(turn, as_printed(*EVENTS)), *fed(turn, CLOSED)]
    tool_call, tool_result = turn.tools
    assert pieces == [
        *(event["content"] for event in EVENTS[:3]),
        tool_call,
        tool_result,
        EVENTS[5]["content"],
        End(),
    ]
    assert isinstance(tool_call, ServerToolCall)
    assert isinstance(tool_result, ServerToolResult)
    assert (tool_call.name, tool_call.args) == (
        "web_search",
        {"query": "ML applications 2026"},
    )
    assert (tool_result.result, tool_result.id) == ("...", tool_call.id)
    assert tool_call.offset == tool_result.offset == OFFSET
    assert (turn.text, turn.usage, turn.is_done, turn.is_cut) == (TEXT, USAGE, True, False)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "text", "content": "x"},
        {"type": "token", "content": "x"},
        {"type": "content", "content": "x"},
        {"type": "token", "data": "x"},
        {"type": "content", "data": "x"},
        {"type": "text", "data": "x", "content": None},
    ],
)
def test_dialects_of_text(event: dict[str, Any]) -> None:
    assert take(event)[1] == ["x"]


@pytest.mark.parametrize(
    "event", [{"type": "thinking", "content": "x"}, {"no": 1}, {"type": 7}]
)
def test_an_unknown_type_is_skipped_with_a_debug_line(
    event: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "langchain_thinnest")
    assert take(event, DONE)[1] == [End()]
    assert "unknown type" in caplog.text


@pytest.mark.parametrize(
    ("event", "field"),
    [
        ({"type": "text"}, "content"),
        ({"type": "text", "content": 7}, "content"),
        ({"type": "text", "content": ["x"]}, "content"),
        ({"type": "tool_call", "args": {}}, "name"),
        ({"type": "tool_call", "name": 7, "args": {}}, "name"),
        ({"type": "tool_call", "name": "x", "args": [1]}, "args"),
        ({"type": "tool_call", "name": "x", "args": "no json"}, "args"),
        ({"type": "tool_result", "result": 1}, "name"),
    ],
)
def test_an_event_whose_fields_are_not_the_contracts_is_refused(
    event: dict[str, Any], field: str
) -> None:
    with pytest.raises(ThinnestProtocolError, match=f"`{event['type']}` event .* {field}"):
        take(text("before"), event)


@pytest.mark.parametrize("args", [None, {}, "{}"])
def test_a_call_without_arguments(args: Any) -> None:
    turn, _ = take({"type": "tool_call", "name": "now", "args": args})
    assert turn.tools[0].args == {}  # type: ignore[union-attr]
    turn, _ = take({"type": "tool_call", "name": "now"})
    assert turn.tools[0].args == {}  # type: ignore[union-attr]


@pytest.mark.parametrize("value", ["", "text", None, 1.5, True, [1, {"a": None}], {"b": []}])
def test_a_result_is_any_json(value: Any) -> None:
    turn, _ = take(call("x"), result("x", value))
    assert turn.tools[1].result == value  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (USAGE, USAGE),
        ({"input_tokens": 1, "output_tokens": 2}, dict(zip(USAGE, (1, 2, 3), strict=True))),
        ({"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}, dict.fromkeys(USAGE, 0)),
        (
            {"input_tokens": 1, "output_tokens": 2, "total_tokens": 9},
            dict(zip(USAGE, (1, 2, 9), strict=True)),
        ),
        (None, None),
        ({}, None),
        ("many", None),
        ({"input_tokens": "x", "output_tokens": 2}, None),
        ({"input_tokens": 1.5, "output_tokens": 2}, None),
        ({"input_tokens": float("nan"), "output_tokens": 2}, None),
        (
            {"input_tokens": "1", "output_tokens": 2.0, "total_tokens": "3.0"},
            dict(zip(USAGE, (1, 2, 3), strict=True)),
        ),
        ({"input_tokens": True, "output_tokens": 2}, None),
    ],
)
def test_usage(usage: Any, expected: Any) -> None:
    turn, pieces = take({"type": "done", "usage": usage})
    assert turn.usage == expected
    assert pieces == [End()]


def test_what_follows_done_is_not_read() -> None:
    turn, pieces = take(text("a"), DONE, text("b"), {"type": "error"}, {"type": "text"})
    assert pieces == ["a", End()]
    assert turn.text == "a"


# --- tools ---


def test_results_answer_the_calls_of_their_name_in_order() -> None:
    calls = [call("a", args={"n": 1}), call("b", args={"n": 2}), call("a", args={"n": 3})]
    turn, _ = take(*calls, result("b", "B"), result("a", "A1"), result("a", "A3"))
    assert pairs(turn) == [("B", {"n": 2}), ("A1", {"n": 1}), ("A3", {"n": 3})]
    assert len({tool.id for tool in turn.tools}) == 3
    assert not turn.open_calls


@pytest.mark.parametrize("key", ["id", "tool_call_id"])
def test_ids_that_the_server_sends_win(key: str) -> None:
    calls = [call("a", args={"n": 1}, **{key: "one"}), call("a", args={"n": 2}, **{key: 2})]
    turn, _ = take(*calls, result("a", "A2", **{key: 2}), result("a", "A1", **{key: "one"}))
    assert pairs(turn) == [("A2", {"n": 2}), ("A1", {"n": 1})]
    assert [tool.id for tool in turn.tools] == ["one", "2", "2", "one"]


def test_a_result_names_its_call_by_tool_call_id_though_it_has_an_id_of_its_own() -> None:
    turn, _ = take(call("a", id="c1"), result("a", "A", id="r1", tool_call_id="c1"))
    assert pairs(turn) == [("A", {})]


def test_a_result_whose_id_is_of_no_open_call_answers_none_that_has_an_id() -> None:
    turn, _ = take(call("a", id="one"), result("a", "A", id="two"))
    assert pairs(turn) == [("A", None)]
    assert [c.id for c in turn.open_calls] == ["one"]


def test_an_id_that_only_the_result_has_pairs_by_name() -> None:
    turn, _ = take(call("a", args={"n": 1}), result("a", "A", id="r"))
    assert pairs(turn) == [("A", {"n": 1})]


def test_an_id_that_the_server_sends_twice_is_replaced() -> None:
    turn, _ = take(
        call("a", id="x"), result("a", 1, id="x"), call("a", id="x"), result("a", 2, id="x")
    )
    first, answer, second, other = turn.tools
    assert first.id == answer.id != second.id == other.id


def test_a_result_without_a_call() -> None:
    turn, _ = take(result("a", "A", id="r1"), call("a"), DONE)
    assert pairs(turn) == [("A", None)]
    assert turn.tools[0] == ServerToolResult("r1", "a", "A", 0, answers=False)
    assert len(turn.open_calls) == 1


@pytest.mark.parametrize("bad", ["", None, ["x"], {}, 1.5])
def test_an_id_that_is_none_counts_for_nothing(bad: Any) -> None:
    turn, _ = take(call("a", id=bad), result("a", "A", id=bad))
    assert pairs(turn) == [("A", {})]
    assert turn.tools[0].id.startswith("call_")


@pytest.mark.parametrize("stop", [(), ("<end>",)])
def test_tools_stand_at_their_offset_in_the_text(stop: tuple[str, ...]) -> None:
    events = [
        text("ab"),
        text("c<"),
        call("x"),
        text("de"),
        text("f<"),
        result("x"),
        text("g"),
    ]
    turn, _ = take(*events, DONE, stop=stop)
    assert turn.text == "abc<def<g"
    assert [tool.offset for tool in turn.tools] == [4, 8]


def test_the_session_that_the_server_names() -> None:
    assert take(text("a"))[0].server_session_id is None
    assert take({"type": "done", "session_id": "s1"})[0].server_session_id == "s1"


def test_ids_differ_from_turn_to_turn() -> None:
    assert take(call("a"))[0].tools[0].id != take(call("a"))[0].tools[0].id


# --- the end ---


def test_an_error_event_ends_the_turn() -> None:
    turn = Turn(max_event_bytes=1000)
    pieces = fed(turn, as_sse(text("a"), {"type": "error", "message": "no more tokens"}))
    assert next(pieces) == "a"
    with pytest.raises(ThinnestGenerationError, match="no more tokens") as caught:
        next(pieces)
    assert caught.value.detail == "no more tokens"
    assert not turn.is_over


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"type": "error"}, "generating: the server gave no reason$"),
        ({"type": "error", "message": {"message": "deep"}}, "deep"),
        ({"type": "error", "error": "other field"}, "other field"),
        ({"type": "error", "detail": "a third field"}, "a third field"),
    ],
)
def test_an_error_event_of_another_shape_is_an_error_all_the_same(
    event: dict[str, Any], message: str
) -> None:
    with pytest.raises(ThinnestGenerationError, match=message):
        take(event)


def test_the_body_ended_early() -> None:
    turn, _ = take(text("a"))
    with pytest.raises(ThinnestInterruptedError) as caught:
        list(fed(turn, CLOSED))
    assert caught.value is CLOSED
    assert turn.text == "a"


def test_a_last_line_without_its_end_counts() -> None:
    turn = Turn(max_event_bytes=1000)
    list(fed(turn, as_printed(text("a"), DONE)))
    assert not turn.is_over
    assert list(fed(turn, CLOSED)) == [End()]
    assert turn.is_done


# --- stop sequences ---


def stopped(*events: dict[str, Any], stop: tuple[str, ...]) -> tuple[str, list[Any], bool]:
    turn, pieces = take(*events, stop=stop)
    return turn.text, pieces, turn.is_cut


def test_text_ends_at_the_first_match() -> None:
    assert stopped(text("one two three"), text("x"), stop=("three", "two")) == (
        "one ",
        ["one ", End()],
        True,
    )


def test_a_match_may_reach_across_chunks_and_no_more_is_held_back() -> None:
    events = [text("a<"), text("b<"), text("en"), text("d>c")]
    assert stopped(*events, stop=("<end>",)) == ("a<b", ["a", "<b", End()], True)


def test_what_only_seemed_to_begin_a_match_is_given_back() -> None:
    assert stopped(text("a<e"), text("n!"), stop=("<end>",))[1] == ["a", "<en!"]
    assert stopped(text("a<e"), DONE, stop=("<end>",)) == ("a<e", ["a", "<e", End()], False)


def test_a_match_does_not_reach_across_a_tool_event() -> None:
    _, pieces, is_cut = stopped(text("a<e"), call("x"), text("nd>"), DONE, stop=("<end>",))
    assert [piece for piece in pieces if isinstance(piece, str)] == ["a", "<e", "nd>"]
    assert not is_cut


def test_a_stopped_turn_takes_nothing_more() -> None:
    turn, pieces = take(text("aSTOPb"), call("x"), DONE, stop=("STOP",))
    assert (pieces, turn.tools, turn.is_done, turn.usage) == (["a", End()], [], False, None)


def test_text_held_back_is_not_lost_when_the_body_is_cut() -> None:
    turn, _ = take(text("a<e"), stop=("<end>",))
    with pytest.raises(ThinnestInterruptedError):
        list(fed(turn, CLOSED))
    assert turn.text == "a<e"


@given(
    st.lists(st.text("ab<>", max_size=5), max_size=8),
    st.lists(st.text("ab<>", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_stop_gives_the_same_text_however_it_is_cut(parts: list[str], stop: list[str]) -> None:
    whole = "".join(parts)
    ends = [at for at in map(whole.find, stop) if at >= 0]
    turn, pieces = take(*map(text, parts), DONE, stop=tuple(stop))
    # Of several sequences the one that is complete first wins, as in a stream it must.
    if ends:
        assert turn.is_cut
        assert whole.startswith(turn.text)
        assert not any(sequence in turn.text for sequence in stop)
        assert any(whole[len(turn.text) :].startswith(sequence) for sequence in stop)
    else:
        assert turn.text == whole
        assert turn.is_done
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == turn.text


# --- local tools ---


def calling(*events: dict[str, Any], **options: Any) -> tuple[Turn, list[Any]]:
    return take(*events, local_tools={}, **options)


CALL = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'


def test_calls_of_local_tools_have_their_place() -> None:
    turn, pieces = calling(
        text(f"a {CALL} b {CALL}"), call("x"), text(CALL), result("x"), text("c"), DONE
    )
    assert turn.text == "a  b c"
    placed = [(c.index, c.offset, c.tools_before, c.args) for c in turn.local_calls]
    assert placed == [(0, 2, 0, {}), (1, 5, 0, {}), (2, 5, 1, {})]
    assert len({c.id for c in turn.local_calls}) == 3
    assert [p if isinstance(p, str) else type(p).__name__ for p in pieces] == [
        *("a ", "CallPart", " b ", "CallPart"),
        *("ServerToolCall", "CallPart", "ServerToolResult", "c", "End"),
    ]


def test_without_local_tools_a_call_is_text() -> None:
    assert take(text(CALL), DONE)[0].text == CALL


def test_what_may_begin_a_tag_goes_before_whatever_comes() -> None:
    for event in (call("x"), result("x"), DONE):
        turn, pieces = calling(text("a <tool"), event)
        assert pieces[:2] == ["a ", "<tool"]
        assert turn.text == "a <tool"


def test_a_call_that_the_end_cuts_is_kept() -> None:
    for end, error in ((DONE, None), ({"type": "error"}, ThinnestGenerationError)):
        turn = Turn(max_event_bytes=1000, local_tools={})
        with pytest.raises(error) if error else nullcontext():
            list(fed(turn, as_sse(text(CALL[:-20]), end)))
        assert [made.args for made in turn.local_calls] == [None]
    turn, _ = calling(text(CALL[:-20]))
    with pytest.raises(ThinnestInterruptedError):
        list(fed(turn, CLOSED))
    assert [made.args for made in turn.local_calls] == [None]


def test_what_was_held_is_not_lost_to_broken_bytes() -> None:
    for content, text_, calls in (("a <too", "a <too", []), (f"a {CALL[:-20]}", "a ", [None])):
        turn, _ = calling(text(content))
        with pytest.raises(ThinnestProtocolError):
            list(fed(turn, b"data: {]\n\n"))
        assert (turn.text, [made.args for made in turn.local_calls]) == (text_, calls)
    turn, _ = take(text("a<e"), stop=("<end>",))
    with pytest.raises(ThinnestProtocolError):
        list(fed(turn, b"data: {]\n\n"))
    assert turn.text == "a<e"


def test_stop_sequences_reach_across_no_call() -> None:
    turn, pieces = calling(text(f"aST{CALL}OP"), DONE, stop=("STOP",))
    assert (turn.text, turn.is_cut) == ("aSTOP", False)
    assert pieces[0] == "a"
    assert pieces[1] == "ST"
    turn, _ = calling(text(f"aSTOP{CALL}"), DONE, stop=("STOP",))
    assert (turn.text, turn.is_cut, turn.local_calls) == ("a", True, [])
    turn, _ = calling(text("a<t"), call("x"), DONE, stop=("<t",))
    assert (turn.text, turn.is_cut, turn.tools) == ("a", True, [])


# --- reads of one event, which go a shorter way ---


def test_a_read_of_one_event_is_taken_like_any_other() -> None:
    events = [*EVENTS[:-1], text(""), {"type": "token", "data": "x"}, {"type": "other"}, DONE]
    turn, pieces = take(*events)
    for end in (b"\n\n", b"\n", b"\r\n\r\n", b"\r", b"\n: ping\n"):
        one_by_one = Turn(max_event_bytes=10_000)
        found = [piece for line in lines(*events) for piece in fed(one_by_one, line + end)]
        assert [type(piece) for piece in found] == [type(piece) for piece in pieces]
        assert one_by_one.text == turn.text
        assert [tool.offset for tool in one_by_one.tools] == [OFFSET, OFFSET]
        assert one_by_one.is_done


def test_what_is_kept_of_an_answer_is_its_text() -> None:
    """However many the events: strings of their own would take twice as much again."""
    turn = Turn(max_event_bytes=1 << 20)
    reads = [as_sse({"type": "text", "content": f"{at:0100}"}) for at in range(10_000)]
    tracemalloc.start()
    try:
        for read in reads:
            assert isinstance(turn.feed(read), str)
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < 1.5 * len(turn.text)


@pytest.mark.parametrize("args", ["", " ", "\n", None])
def test_a_call_with_blank_arguments(args: Any) -> None:
    turn = Turn(max_event_bytes=1000)
    (call,) = fed(turn, as_sse({"type": "tool_call", "name": "x", "args": args}))
    assert call.args == {}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "content": "why"},
        {"type": "error", "data": {"reason": "why"}},
        {"type": "error", "error": {"message": "why"}},
        {"error": "why"},
        {"error": {"detail": "why"}},
    ],
)
def test_the_reason_of_an_error(event: dict[str, Any]) -> None:
    with pytest.raises(ThinnestGenerationError) as caught:
        list(fed(Turn(max_event_bytes=1000), as_sse(event)))
    assert caught.value.detail == "why"


def test_results_in_any_order() -> None:
    calls = [{"type": "tool_call", "name": "x", "args": {}, "id": str(n)} for n in range(3000)]
    results = [
        {"type": "tool_result", "name": "x", "result": n, "id": str(n)} for n in range(3000)
    ]
    turn = Turn(max_event_bytes=1000)
    list(fed(turn, as_sse(*calls, *reversed(results))))
    assert [t.id for t in turn.tools[3000:]] == [str(n) for n in reversed(range(3000))]
    assert not turn.open_calls
