"""One payload → one event: which fields are taken, and in which forms."""

from __future__ import annotations

import json
from typing import Any

import pytest

from langchain_thinnest import ThinnestProtocolError
from langchain_thinnest._answer.call_forms import read_calls
from langchain_thinnest._answer.events import (
    DoneEvent,
    ErrorEvent,
    TextEvent,
    ToolCallEvent,
    ToolResultEvent,
    as_args,
    as_id,
    error_message,
    parse_event,
    text_of,
    usage_of,
)
from langchain_thinnest._answer.json_answer import JSONAnswer
from langchain_thinnest._answer.lenient import (
    load,
    load_mended,
    mended,
    values_in,
    without_fence,
)
from langchain_thinnest._answer.server_tools import said_in

USAGE: Any = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 4}
CUT = ThinnestProtocolError("cut")


def total(number: int) -> Any:
    return {"input_tokens": 0, "output_tokens": 0, "total_tokens": number}


@pytest.mark.parametrize(
    ("payload", "event"),
    [
        ({"type": "text", "content": ""}, TextEvent("")),
        ({"type": "token", "content": "a", "data": "b"}, TextEvent("a")),
        ({"type": "content", "data": "b"}, TextEvent("b")),
        ({"type": "tool_call", "name": "f"}, ToolCallEvent("f", {}, None)),
        (
            {"type": "tool_call", "name": "f", "args": {"a": 1}, "tool_call_id": "x"},
            ToolCallEvent("f", {"a": 1}, "x"),
        ),
        (
            {"type": "tool_call", "name": "f", "args": '{"a": 1}', "id": 7},
            ToolCallEvent("f", {"a": 1}, "7"),
        ),
        ({"type": "tool_call", "name": "f", "id": [1]}, ToolCallEvent("f", {}, None)),
        ({"type": "tool_result", "name": "f"}, ToolResultEvent("f", None, None)),
        (
            {
                "type": "tool_result",
                "name": "f",
                "result": [1],
                "tool_call_id": "x",
                "id": "y",
            },
            ToolResultEvent("f", [1], "x"),
        ),
        ({"type": "done"}, DoneEvent(None, None)),
        ({"type": "done", "usage": USAGE, "session_id": 7}, DoneEvent(USAGE, "7")),
        ({"type": "done", "tokens_used": 3, "session_id": ""}, DoneEvent(total(3), None)),
        ({"type": "error", "message": "why"}, ErrorEvent("why")),
        ({"error": "why"}, ErrorEvent("why")),
        ({"error": "why", "type": "thinking"}, None),
        ({"error": "why", "type": None}, None),
        ({"error": ""}, None),
        ({"type": "thinking"}, None),
        ({"type": ["text"]}, None),
        ({}, None),
    ],
)
def test_an_event(payload: dict[str, Any], event: Any) -> None:
    assert parse_event(payload) == event


@pytest.mark.parametrize(
    "payload",
    [
        {"type": "text"},
        {"type": "text", "content": 7},
        {"type": "text", "content": 7, "data": "a"},
        {"type": "tool_call"},
        {"type": "tool_call", "name": "f", "args": "[1]"},
        {"type": "tool_result", "result": 1},
        {"type": "tool_result", "name": None},
    ],
)
def test_no_event(payload: dict[str, Any]) -> None:
    with pytest.raises(
        ThinnestProtocolError, match=f"^The stream holds a `{payload['type']}`"
    ):
        parse_event(payload)


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ({"type": "text", "content": ""}, ""),
        ({"type": "text", "content": "a"}, "a"),
        ({"type": "token", "content": "a"}, None),
        ({"type": "text", "content": 1}, None),
        ({"type": "text", "data": "a"}, None),
        ({"content": "a"}, None),
    ],
)
def test_what_is_plainly_text(payload: dict[str, Any], text: Any) -> None:
    assert text_of(payload) == text


@pytest.mark.parametrize(
    ("value", "args"),
    [(None, {}), ("", {}), (" \n", {}), ('{"é": 1}', {"é": 1}), ([1], [1]), (0, 0)],
)
def test_arguments(value: Any, args: Any) -> None:
    assert as_args(value) == args


@pytest.mark.parametrize(
    ("value", "id_"),
    [("a", "a"), (0, "0"), (7, "7"), ("", None), (None, None), (1.5, None), ([], None)],
)
def test_ids(value: Any, id_: Any) -> None:
    assert as_id(value) == id_


@pytest.mark.parametrize(
    ("count", "number"),
    [
        (0, 0),
        (7, 7),
        (7.0, 7),
        ("7", 7),
        (" 7 ", 7),
        ("7.", 7),
        ("7.00", 7),
        ("9" * 15, 999_999_999_999_999),
        ("9" * 16, None),
        ("7.5", None),
        ("7,5", None),
        ("", None),
        ("-7", None),
        ("٣", None),
        (7.5, None),
        (-1, None),
        (-1.0, None),
        (True, None),
        (None, None),
        (float("inf"), None),
        (float("nan"), None),
        ([7], None),
    ],
)
def test_counts(count: Any, number: Any) -> None:
    assert usage_of({"tokens_used": count}) == (None if number is None else total(number))
    usage = usage_of({"usage": {"input_tokens": count, "output_tokens": 2}})
    if number is None:
        assert usage is None
    else:
        assert usage == {
            "input_tokens": number,
            "output_tokens": 2,
            "total_tokens": number + 2,
        }


@pytest.mark.parametrize(
    ("payload", "usage"),
    [
        ({"usage": USAGE}, USAGE),
        ({"usage": USAGE, "tokens_used": 9}, USAGE),
        ({"usage": {**USAGE, "total_tokens": "?"}}, {**USAGE, "total_tokens": 3}),
        ({"usage": {**USAGE, "total_tokens": 0}}, {**USAGE, "total_tokens": 0}),
        ({"usage": {"input_tokens": 1}}, None),
        ({"usage": {"output_tokens": 1}}, None),
        ({"usage": {"input_tokens": 1}, "tokens_used": 9}, total(9)),
        ({"usage": [1]}, None),
        ({}, None),
    ],
)
def test_usage(payload: dict[str, Any], usage: Any) -> None:
    assert usage_of(payload) == usage


NO_REASON = "the server gave no reason"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        *(
            ({key: "why"}, "why")
            for key in (
                "message",
                "error",
                "detail",
                "content",
                "data",
                "reason",
                "msg",
                "description",
            )
        ),
        ({"error": "less", "message": "why"}, "why"),
        ({"message": "", "error": "why"}, "why"),
        ({"error": {"message": "why"}}, "why"),
        ({"error": {"detail": {"reason": {"msg": "four"}}}}, "four"),
        ({"error": {"error": {"error": {"error": {"error": "five"}}}}}, '{"error": "five"}'),
        ({"error": {"code": "é"}}, '{"code": "é"}'),
        ({"error": ["é", 1]}, '["é", 1]'),
        ({"error": 7}, "7"),
        ({"error": True}, "true"),
        ({"message": None}, NO_REASON),
        ({"code": 7}, NO_REASON),
        ({}, NO_REASON),
    ],
)
def test_reasons(payload: dict[str, Any], reason: str) -> None:
    assert error_message(payload) == reason


# --- an answer in JSON ---


def unreadable(body: bytes) -> str:
    answer = JSONAnswer(1000, str)
    answer.feed(body)
    with pytest.raises(ThinnestProtocolError) as caught:
        answer.finish(CUT)
    return str(caught.value)


ACTED = ". The agent may have acted all the same."


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"[1]", "is not a JSON object: '[1]'"),
        (b"\xef\xbb\xbf[1]", "is not a JSON object: '[1]'"),
        (b"<html>\xff", "is not a JSON object: '<html>\ufffd'"),
        (b'{"a": 1}', "has no answer in it: '{\"a\": 1}'"),
        (b"x" * 200, f"is not a JSON object: '{'x' * 200}'"),
        (b"x" * 201, f"is not a JSON object: '{'x' * 200}'..."),
    ],
)
def test_what_is_no_answer_in_json(body: bytes, shown: str) -> None:
    assert unreadable(body) == f"The server's answer in JSON {shown}{ACTED}"


def test_an_answer_in_json_that_is_too_large() -> None:
    answer = JSONAnswer(6, str)
    answer.feed(b"xxx")
    answer.feed(b"xxx")
    with pytest.raises(ThinnestProtocolError) as caught:
        answer.feed(b"x")
    assert str(caught.value) == (
        "The answer in JSON is larger than max_event_bytes (6). "
        "If the agent says that much, or its tools return it, raise max_event_bytes."
    )


def finished(value: Any, without_key: Any = str) -> tuple[Any, JSONAnswer]:
    answer = JSONAnswer(1000, without_key)
    answer.feed(b"\xef\xbb\xbf" + json.dumps(value).encode())
    return answer.finish(CUT), answer


def test_the_events_of_an_answer_in_json() -> None:
    payloads, answer = finished(
        {
            "response": "Hi.",
            "usage": USAGE,
            "tokens_used": 3,
            "session_id": 7,
            "success": True,
            "tool_calls": [
                {"id": "a", "name": "f", "args": {"x": 1}, "result": "r"},
                {"id": 0, "tool_call_id": "b", "name": "g"},
                {"id": "a", "name": "h", "result": None},
                {"odd": 1},
                "odd",
            ],
            "more": None,
            "rest": 1,
        }
    )
    made = payloads[3]["id"]
    assert made.startswith("call_")
    assert len(made) == len("call_") + 32
    assert payloads == [
        {"type": "tool_call", "name": "f", "args": {"x": 1}, "id": "a"},
        {"type": "tool_result", "name": "f", "id": "a", "result": "r"},
        {"type": "tool_call", "name": "g", "args": {}, "id": "b"},
        {"type": "tool_call", "name": "h", "args": {}, "id": made},
        {"type": "tool_result", "name": "h", "id": made, "result": None},
        {"type": "text", "content": "Hi."},
        {"type": "done", "usage": USAGE, "session_id": "7"},
    ]
    assert answer.unanswered == {"b"}
    assert answer.rest == {"tool_calls": [{"odd": 1}, "odd"], "rest": 1}


def test_the_events_of_a_failure_in_json() -> None:
    tool = {"id": "a", "name": "f"}
    for value, text, reason in (
        ({"success": False, "response": "some", "error": "why"}, ["some"], "why"),
        ({"success": False, "response": "why"}, [], "why"),
        ({"success": False, "response": "some", "error": {"message": "why"}}, ["some"], "why"),
        ({"success": False, "response": "some", "reason": ["why"]}, ["some"], '["why"]'),
        ({"success": False, "response": "some", "msg": 7}, [], "some"),
        ({"success": False, "data": {"response": "some", "success": True}}, [], "some"),
        ({"success": False}, [], NO_REASON),
    ):
        payloads, answer = finished({**value, "tool_calls": [tool]})
        assert payloads == [
            {"type": "tool_call", "name": "f", "args": {}, "id": "a"},
            *({"type": "text", "content": part} for part in text),
            {"type": "error", "message": reason},
        ]
        assert answer.rest == {}


def test_the_rest_of_an_answer_in_json_does_not_tell_the_key() -> None:
    value = {"response": "Hi.", "a": {"ak_1": ["ak_1", 7, None]}, "ak_1 b": "is ak_1"}
    _, answer = finished(value, lambda text: text.replace("ak_1", "***"))
    assert answer.rest == {"a": {"***": ["***", 7, None]}, "*** b": "is ***"}


# --- JSON as models write it ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{'a': 'b'}", '{"a": "b"}'),
        ("""{'a': 'say "x"'}""", r'{"a": "say \"x\""}'),
        (r"{'a': 'it\'s'}", '{"a": "it\'s"}'),
        (r"{'a': 'x\n\\'}", r'{"a": "x\n\\"}'),
        ("[True, False, None]", "[true, false, null]"),
        ('["True", Truely, xNone]', '["True", Truely, xNone]'),
        ("[1, 2,]", "[1, 2]"),
        ("[1, 2 , ]", "[1, 2  ]"),
        ("[1,, 2]", "[1,, 2]"),
        ("[1,,]", "[1,,]"),
        ("[,]", "[,]"),
        ("{,}", "{,}"),
        ('{"a":,}', '{"a":,}'),
        (",]", ",]"),
        ("[1, // x\n]", "[1  \n]"),
        ("[1, # x\n 2]", "[1,  \n 2]"),
        ("[1, /* x\n */]", "[1  ]"),
        ("[1,\xa0\u3000]", "[1 ]"),
        ("\ufeff[1]", " [1]"),
        ('["a, ]", "// #"]', '["a, ]", "// #"]'),
        ("[1, 2", "[1, 2"),
        ("[1], ]", "[1] ]"),
    ],
)
def test_what_is_mended(text: str, expected: str) -> None:
    assert mended(text) == expected


@pytest.mark.parametrize(
    ("text", "within", "value"),
    [
        ("```json\n[1]\n```", "[1]", [1]),
        (" ~~~\n[1]\n~~~ \n", "[1]", [1]),
        ("````\n[1]````", "[1]", [1]),
        ("```\n[1]\n~~~", "```\n[1]\n~~~", None),
        ("So: ```\n[1]\n```", "So: ```\n[1]\n```", None),
        ("[1]", "[1]", [1]),
        ('"a\nb"', '"a\nb"', "a\nb"),
        ("[1,]", "[1,]", None),
        ("[" * 100_000, "[" * 100_000, None),
    ],
)
def test_fences(text: str, within: str, value: Any) -> None:
    assert without_fence(text) == within
    assert load(text) == value


def test_what_is_json_is_not_mended() -> None:
    assert load_mended("[1,]") == [1]
    assert load_mended("```\n{'a': True}\n```") == {"a": True}
    assert load_mended("false") is False
    assert load_mended("[1") is None


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", []),
        (" \n", []),
        (' {"a": 1}', [({"a": 1}, 1, 9)]),
        ("1 2", [(1, 0, 1), (2, 2, 3)]),
        ("1 , 2\n", [(1, 0, 1), (2, 4, 5)]),
        ("[1]{}", [([1], 0, 3), ({}, 3, 5)]),
        ("1,", [(1, 0, 1)]),
        (", 1", None),
        ("1,, 2", None),
        ("1 x", None),
        ("[" * 100_000, None),
    ],
)
def test_a_sequence_of_values(text: str, values: Any) -> None:
    assert values_in(text) == values


# --- forms of calls ---

TOOLS: dict[str, Any] = {
    "f": {
        "properties": {
            "text": {"type": "string"},
            "number": {"type": "number"},
            "maybe": {"oneOf": [{"type": "integer"}, {"type": "null"}]},
            "all": {"allOf": [{"type": "string"}]},
            "words": {"enum": ["a", 1]},
            "none": {},
        }
    },
    "schemas": {"properties": {"properties": {}, "type": {}}},
}


@pytest.mark.parametrize(
    ("inner", "calls"),
    [
        *(
            (f'{{"{key}": {{"name": "f", "input": {{"x": 1}}}}}}', [("f", {"x": 1})])
            for key in ("function", "function_call", "tool_call")
        ),
        ('{"tool_call": {"name": "f"}, "index": 0, "id": "1", "type": "t"}', [("f", {})]),
        ('{"tool_call": {"name": "f"}, "more": 0}', None),
        ('{"tool_calls": [{"name": "f"}], "more": 1}', None),
        ('{"tool_calls": {"name": "f"}}', None),
        ('{"name": "f", "index": 0, "id": "1", "type": "t"}', [("f", {})]),
        ('{"name": "f", "more": 0}', None),
        ('{"name": "f", "more": 0, "args": {}}', [("f", {})]),
        ('{"name": "f", "tool": "f", "function": "f"}', [("f", {})]),
        ('{"name": "f", "args": {"x": 1}, "input": {"x": 1}}', [("f", {"x": 1})]),
        ('{"name": "f", "args": " "}', [("f", {})]),
        ('{"name": "f", "args": "{x"}', None),
        ('{"name": "f", "args": "{\'x\': True,}"}', [("f", {"x": True})]),
        ('{"name": "f", "args": {"type": "object", "properties": {}}}', None),
        (
            '{"name": "f", "args": {"type": "x", "properties": {}}}',
            [("f", {"type": "x", "properties": {}})],
        ),
        (
            '{"name": "f", "args": {"type": "object", "properties": 1}}',
            [("f", {"type": "object", "properties": 1})],
        ),
        (
            '{"name": "schemas", "args": {"type": "object", "properties": {}}}',
            [("schemas", {"type": "object", "properties": {}})],
        ),
        ('[[{"name": "f"}]]', [("f", {})]),
        ('[{"name": "f"}, [{"name": "f"}]]', None),
        ('{"name": "f"} }', [("f", {})]),
        ('{"name": "f"}}}', None),
        (
            "  <function=f>\n<parameter=number>\n 1.5 \n</parameter>\n</function>\n",
            [("f", {"number": 1.5})],
        ),
        (
            "<function=f><parameter=number>None</parameter></function>",
            [("f", {"number": None})],
        ),
        ("<function=f><parameter=number>one</parameter></function>", None),
        (
            "<function=f><parameter=maybe> null </parameter></function>",
            [("f", {"maybe": None})],
        ),
        ("<function=f><parameter=maybe>3</parameter></function>", [("f", {"maybe": 3})]),
        ("<function=f><parameter=text>null</parameter></function>", [("f", {"text": "null"})]),
        ("<function=f><parameter=all>[1]</parameter></function>", [("f", {"all": [1]})]),
        ("<function=f><parameter=words>1</parameter></function>", [("f", {"words": "1"})]),
        ("<function=f><parameter=none>1</parameter></function>", [("f", {"none": "1"})]),
        (
            "<function=f><parameter=text>\n\na\n\n</parameter></function>",
            [("f", {"text": "\na\n"})],
        ),
        ("<function=f> {'text': 'a'} </function>", [("f", {"text": "a"})]),
        ("<function=functions.f></function> <function=g></function>", [("f", {}), ("g", {})]),
        ("<function=f></function> more", None),
    ],
)
def test_forms_of_calls(inner: str, calls: Any) -> None:
    assert read_calls(inner, "<tool_call>", TOOLS, is_closed=True) == calls


def test_a_tag_with_a_name_around_all_parameters() -> None:
    for inner in ('{"properties": 1, "type": 2}', '{"type": 2}', "{}"):
        found = read_calls(inner, "<tool_call name='schemas'>", TOOLS, is_closed=True)
        assert found == [("schemas", json.loads(inner))]


@pytest.mark.parametrize(
    ("inner", "calls"),
    [
        ('{"name": "x", "args": {"a": 1}}', [("x", {"a": 1})]),
        ('{"name": "x", "args": {"type": "object", "properties": {}}}', None),
        ("<function=x><parameter=a>1</parameter></function>", [("x", {"a": "1"})]),
    ],
)
def test_calls_of_a_tool_that_is_not_bound(inner: str, calls: Any) -> None:
    """Who calls the model is told of them."""
    assert read_calls(inner, "<tool_call>", TOOLS, is_closed=True) == calls


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ({"type": "text", "text": "a"}, "a"),
        ({"type": "text", "text": None}, None),
        ({"type": "refusal", "refusal": "no"}, "no"),
        ({"type": "refusal", "text": "no"}, None),
        ({"type": "non_standard", "value": {"type": "refusal", "refusal": "no"}}, "no"),
        ({"type": "non_standard", "value": {"type": "text", "text": "a"}}, "a"),
        ({"type": "non_standard", "value": "a"}, None),
        ({"type": "other", "value": {"type": "text", "text": "a"}}, None),
        ({"type": "reasoning", "text": "a", "refusal": "b"}, None),
        ({}, None),
    ],
)
def test_what_a_block_says(block: dict[str, Any], text: Any) -> None:
    assert said_in(block) == text
