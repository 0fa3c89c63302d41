"""An answer in JSON: bytes → the payloads that a stream would have had."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_thinnest import ThinnestInterruptedError, ThinnestProtocolError
from langchain_thinnest._answer.json_answer import JSONAnswer
from langchain_thinnest._answer.turn import End, ServerToolCall, ServerToolResult, Turn
from unit_tests.contract import fed

CUT = ThinnestProtocolError("cut")
STALLED = ThinnestInterruptedError("stalled")
KEYS = ["response", "data", "success", "error", "detail", "usage", "tokens_used", "session_id"]
KEYS += ["tool_calls", "name", "args", "arguments", "result", "function", "id", "a"]
USAGE = {"input_tokens": 45, "output_tokens": 32, "total_tokens": 77}
TOTAL = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 145}


def read(value: Any, **options: Any) -> tuple[Turn, list[Any]]:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    turn = Turn(max_event_bytes=10_000, **options)
    turn.expect_json()
    assert list(fed(turn, body)) == []
    return turn, list(fed(turn, CUT))


# --- the answers that the vendor's pages show ---


def test_with_usage_and_tools() -> None:
    turn, pieces = read(
        {"response": "Hi.", "session_id": "s", "usage": USAGE, "tool_calls": []}
    )
    assert pieces == ["Hi.", End()]
    assert (turn.text, turn.usage, turn.server_session_id) == ("Hi.", USAGE, "s")
    assert (turn.is_done, turn.tools, turn.rest) == (True, [], {})


def test_with_tokens_used() -> None:
    turn, _ = read({"response": "Hi.", "session_id": "s", "tokens_used": 145})
    assert (turn.usage, turn.rest) == (TOTAL, {})


def test_with_success_and_metadata() -> None:
    metadata = {"model": "m", "latency_ms": 1450}
    turn, _ = read(
        {"success": True, "response": "Hi.", "session_id": "s", "metadata": metadata}
    )
    assert (turn.text, turn.usage, turn.rest) == ("Hi.", None, {"metadata": metadata})


@pytest.mark.parametrize("key", ["response", "content", "text", "answer"])
@pytest.mark.parametrize("text", ["Hi.", "", " \u2028\n\U0001f600"])
def test_where_the_text_may_stand(key: str, text: str) -> None:
    turn, pieces = read({key: text, "more": [1]})
    assert (pieces, turn.rest) == ([text, End()], {"more": [1]})


def test_the_response_counts_first() -> None:
    turn, _ = read({"text": "no", "response": "yes", "content": "no"})
    assert (turn.text, turn.rest) == ("yes", {"text": "no", "content": "no"})


# --- wrappers ---


@pytest.mark.parametrize(
    ("value", "text", "rest"),
    [
        ({"data": {"response": "x"}, "status": 200}, "x", {"status": 200}),
        ({"data": {"text": "x"}}, "x", {}),
        ({"data": {"response": "x", "a": 1}, "a": 2, "b": 3}, "x", {"a": 1, "b": 3}),
        ({"data": {"response": "x"}, "text": "ok"}, "x", {"text": "ok"}),
        ({"response": "x", "data": {"response": "y"}}, "x", {"data": {"response": "y"}}),
        ({"data": {"response": "x", "data": {"a": 1}}}, "x", {"data": {"a": 1}}),
        ({"data": [1], "response": "x"}, "x", {"data": [1]}),
        ({"success": True, "data": {"response": "x"}, "error": None}, "x", {}),
    ],
)
def test_a_wrapper_is_looked_into_once(value: Any, text: str, rest: Any) -> None:
    turn, _ = read(value)
    assert (turn.text, turn.rest) == (text, rest)


def test_a_wrapper_has_all_of_an_answer() -> None:
    turn, _ = read(
        {
            "status": "success",
            "data": {
                "response": "Hi.",
                "session_id": "s",
                "usage": USAGE,
                "tool_calls": [{"name": "f", "result": 1}],
            },
        }
    )
    assert (turn.server_session_id, turn.usage, len(turn.tools)) == ("s", USAGE, 2)


# --- tools ---


def tools_of(*entries: Any) -> tuple[list[Any], Any]:
    """Each call's name and arguments, with its result if it has one; and what is left."""
    turn, _ = read({"response": "", "tool_calls": list(entries)})
    results = {
        tool.id: tool.result for tool in turn.tools if isinstance(tool, ServerToolResult)
    }
    assert all(tool.answers for tool in turn.tools if isinstance(tool, ServerToolResult))
    calls = [tool for tool in turn.tools if isinstance(tool, ServerToolCall)]
    assert len({call.id for call in calls}) == len(calls)
    return [
        (call.name, call.args, results[call.id])
        if call.id in results
        else (call.name, call.args)
        for call in calls
    ], turn.rest.get("tool_calls")


@pytest.mark.parametrize(
    ("entry", "tool"),
    [
        ({"name": "f"}, ("f", {})),
        ({"name": "f", "args": None}, ("f", {})),
        ({"name": "f", "args": {"a": 1}}, ("f", {"a": 1})),
        ({"name": "f", "arguments": {"a": 1}}, ("f", {"a": 1})),
        ({"name": "f", "arguments": '{"a": 1}'}, ("f", {"a": 1})),
        ({"name": "f", "args": "", "result": "x"}, ("f", {}, "x")),
        ({"name": "f", "result": None}, ("f", {}, None)),
        ({"name": "f", "result": {"a": [1]}}, ("f", {}, {"a": [1]})),
        (
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            ("f", {}),
        ),
    ],
)
def test_a_tool(entry: Any, tool: Any) -> None:
    assert tools_of(entry) == ([tool], None)


@pytest.mark.parametrize(
    "entry",
    [
        "f",
        7,
        None,
        ["f"],
        {},
        {"name": ""},
        {"name": 7},
        {"name": {"a": 1}},
        {"args": {"a": 1}},
        {"name": "f", "args": [1]},
        {"name": "f", "args": 7},
        {"name": "f", "arguments": "{"},
        {"function": "f"},
    ],
)
def test_what_is_no_tool_is_kept(entry: Any) -> None:
    assert tools_of({"name": "g"}, entry) == ([("g", {})], [entry])


def test_results_go_to_their_own_calls() -> None:
    assert tools_of(
        {"name": "f", "args": {"n": 1}},
        {"name": "f", "args": {"n": 2}, "result": "two"},
        {"id": "c", "name": "f", "args": {"n": 3}},
        {"id": "c", "name": "f", "args": {"n": 4}, "result": "four"},
        {"id": 5, "name": "g", "result": "five"},
    )[0] == [
        ("f", {"n": 1}),
        ("f", {"n": 2}, "two"),
        ("f", {"n": 3}),
        ("f", {"n": 4}, "four"),
        ("g", {}, "five"),
    ]


@pytest.mark.parametrize("calls", [None, {}, "f", 7, {"name": "f"}])
def test_tool_calls_that_are_no_list(calls: Any) -> None:
    turn, pieces = read({"response": "x", "tool_calls": calls})
    assert pieces == ["x", End()]
    assert turn.rest.get("tool_calls") == calls


def test_ids_are_the_servers_unless_they_are_taken() -> None:
    entry = {"response": "", "tool_calls": [{"id": "c1", "name": "f", "result": 1}]}
    assert {tool.id for tool in read(entry)[0].tools} == {"c1"}
    (id_,) = {tool.id for tool in read(entry, taken_ids=["c1"])[0].tools}
    assert id_ != "c1"


# --- usage, session, and the rest ---


@pytest.mark.parametrize(
    ("fields", "usage", "rest"),
    [
        ({"usage": USAGE, "tokens_used": 1}, USAGE, {}),
        ({"usage": None, "tokens_used": 145}, TOTAL, {}),
        ({"tokens_used": "145"}, TOTAL, {}),
        ({"tokens_used": 145.0}, TOTAL, {}),
        ({"usage": {"credits": 2}}, None, {"usage": {"credits": 2}}),
        ({"usage": {"credits": 2}, "tokens_used": 145}, TOTAL, {}),
        ({"tokens_used": -1}, None, {"tokens_used": -1}),
        ({"tokens_used": True}, None, {"tokens_used": True}),
        ({"session_id": None}, None, {}),
        ({"session_id": {"a": 1}}, None, {"session_id": {"a": 1}}),
        ({"success": "yes"}, None, {"success": "yes"}),
    ],
)
def test_what_the_fields_say(fields: Any, usage: Any, rest: Any) -> None:
    turn, pieces = read({"response": "x", **fields})
    assert pieces == ["x", End()]
    assert (turn.usage, turn.rest) == (usage, rest)


def test_a_session_that_is_a_number() -> None:
    assert read({"response": "x", "session_id": 7})[0].server_session_id == "7"


@pytest.mark.parametrize(
    ("event", "usage"),
    [
        ({"type": "done", "tokens_used": 145, "session_id": "s"}, TOTAL),
        ({"type": "done", "tokens_used": None, "session_id": "s"}, None),
        ({"type": "done", "usage": USAGE, "tokens_used": 1, "session_id": "s"}, USAGE),
    ],
)
def test_done_of_a_sibling_stream(event: Any, usage: Any) -> None:
    turn = Turn(max_event_bytes=10_000)
    list(fed(turn, f"data: {json.dumps(event)}\n".encode()))
    assert (turn.usage, turn.server_session_id) == (usage, "s")


def test_a_stop_sequence_cuts_the_text_and_the_session_is_known() -> None:
    value = {"response": "One. Two.", "session_id": "s", "usage": USAGE, "a": 1}
    turn, pieces = read(value, stop=[" Two"])
    assert pieces == ["One.", End()]
    assert (turn.text, turn.is_cut, turn.usage) == ("One.", True, None)
    assert (turn.server_session_id, turn.rest) == ("s", {"a": 1})


# --- failures ---


def reason_of(value: Any) -> str:
    from langchain_thinnest import ThinnestGenerationError

    with pytest.raises(ThinnestGenerationError) as caught:
        read(value)
    assert caught.value.detail is not None
    assert caught.value.detail in str(caught.value)
    return caught.value.detail


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"success": False}, "the server gave no reason"),
        ({"success": False, "error": "why"}, "why"),
        ({"success": False, "error": "why", "message": "more"}, "why"),
        ({"success": False, "message": "why"}, "why"),
        ({"success": False, "response": "why"}, "why"),
        ({"success": False, "response": "some", "error": "why"}, "why"),
        ({"success": False, "error": True, "message": "why"}, "why"),
        ({"error": "why"}, "why"),
        ({"error": {"message": "why", "code": 7}}, "why"),
        ({"error": {"code": 7}}, '{"code": 7}'),
        ({"detail": "why"}, "why"),
        ({"detail": [{"loc": ["body"], "msg": "why"}]}, '[{"loc": ["body"], "msg": "why"}]'),
        ({"error": "why", "response": None}, "why"),
        ({"data": {"error": "why"}, "status": 500}, "why"),
        ({"data": None, "detail": "why"}, "why"),
        ({"data": {"success": False}, "message": "why"}, "why"),
    ],
)
def test_a_failure_has_its_reason(value: Any, reason: str) -> None:
    assert reason_of(value) == reason


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"session_id": "s"},
        {"response": None},
        {"response": 7},
        {"response": ["x"]},
        {"message": "x"},
        {"error": None, "detail": ""},
        {"data": "x"},
        {"data": {}},
        {"data": {"data": {"response": "x"}}},
        {"usage": USAGE, "tool_calls": [{"name": "f"}]},
        [{"response": "x"}],
        "x",
        None,
        7,
    ],
)
def test_what_holds_no_answer(value: Any) -> None:
    with pytest.raises(ThinnestProtocolError, match=r"in JSON (has no|is not)"):
        read(value)


@pytest.mark.parametrize("reason", [CUT, STALLED], ids=["cut", "stalled"])
def test_cut_at_every_byte(reason: Any) -> None:
    body = '{"response": "a\\u00e9é\\n", "tool_calls": [{"name": "f"}], "n": -1.5e3}'.encode()
    for at in range(len(body)):
        turn = Turn(max_event_bytes=10_000)
        turn.expect_json()
        list(fed(turn, body[:at]))
        with pytest.raises(type(reason)) as caught:
            list(fed(turn, reason))
        assert caught.value is reason
        assert turn.text == ""


@given(st.data())
def test_how_the_bytes_are_cut_does_not_matter(data: st.DataObject) -> None:
    text = data.draw(st.text())
    body = json.dumps({"response": text}, ensure_ascii=False).encode("utf-8", "replace")
    turn = Turn(max_event_bytes=1_000_000)
    turn.expect_json()
    at = 0
    while at < len(body):
        size = data.draw(st.integers(1, 9))
        list(fed(turn, body[at : at + size]))
        at += size
    assert list(fed(turn, CUT)) == [json.loads(body)["response"], End()]


def test_what_is_too_large() -> None:
    answer = JSONAnswer(10, str)
    answer.feed(b"x" * 10)
    with pytest.raises(ThinnestProtocolError, match=r"max_event_bytes \(10\)"):
        answer.feed(b"x")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 999) | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(KEYS),
                inner,
                max_size=5,
            )
        ),
        max_leaves=12,
    )
)
def test_whatever_comes_is_an_answer_or_an_error_of_ours(value: Any) -> None:
    from langchain_thinnest import ThinnestStreamError

    try:
        turn, pieces = read(value)
    except ThinnestStreamError:
        return
    assert pieces[-1] == End()
    assert turn.is_done
    json.dumps(turn.rest)
