"""How the object of a typed answer is found, checked and grown: the rules, one by one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, Generation
from pydantic import AliasChoices, AliasPath, BaseModel, Field
from pydantic.v1 import BaseModel as BaseModelV1
from pydantic.v1 import Field as FieldV1

from langchain_thinnest._answer.typed import ObjectParser, with_raw

SCHEMA: dict[str, Any] = {
    "title": "Item",
    "type": "object",
    "properties": {"x": {"type": "integer"}, "y": {"type": "string"}},
    "required": ["x"],
}
CLOSED = {**SCHEMA, "additionalProperties": False}
OPEN = {**SCHEMA, "additionalProperties": True}
CALLS: dict[str, Any] = {
    "title": "Item",
    "type": "object",
    "properties": {"name": {"type": "string"}, "arguments": {"type": "object"}},
}


def parser(schema: dict[str, Any] | None = SCHEMA, **fields: Any) -> ObjectParser:
    return ObjectParser(**{"title": "Item", "answer_schema": schema, **fields})


def numbers(**fields: Any) -> ObjectParser:
    """A parser for a list, which a call holds in a box."""
    schema = {"title": "Item", "type": "array", "items": {"type": "integer"}}
    return parser(schema, wants_object=False, **fields)


def said(made: ObjectParser, message: Any) -> str:
    message = AIMessage(message) if isinstance(message, str) else message
    with pytest.raises(OutputParserException) as caught:
        made.whole(message)
    return str(caught.value).partition("\n")[0]


def call(args: Any, name: str = "Item") -> AIMessage:
    return AIMessage("", tool_calls=[{"name": name, "args": args, "id": "1"}])


def read(made: ObjectParser, value: Any) -> Any:
    text = value if isinstance(value, str) else json.dumps(value)
    return made.whole(AIMessage(text))


# --- what the errors say ---


@pytest.mark.parametrize(
    ("schema", "value", "problem"),
    [
        ({}, {"x": 1}, None),
        ({"type": "string"}, {}, "it should be of type string"),
        ({"type": ["string", "null"]}, {}, "it should be of type string or null"),
        ({"type": "unheard-of"}, {}, None),
        ({"properties": {"a": {"type": "null"}}}, {"a": 0}, "'a' should be of type null"),
        ({"properties": {"a": {"type": "number"}}}, {"a": 0.5}, None),
        ({"properties": {"a": {"type": "integer"}}}, {"a": 3.0}, None),
        (
            {"properties": {"a": {"type": "integer"}}},
            {"a": "3"},
            "'a' should be of type integer",
        ),
        ({"properties": {"a": {"type": "boolean"}}}, {"a": True}, None),
        (
            {"properties": {"a": {"type": "number"}}},
            {"a": True},
            "'a' should be of type number",
        ),
        (
            {"properties": {"a": {"enum": [1, "b"]}}},
            {"a": 2},
            "'a' should be one of [1, 'b']",
        ),
        ({"properties": {"a": {"enum": [1, "b"]}}}, {"a": "b"}, None),
        ({"properties": {"a": {"const": "b"}}}, {"a": "c"}, "'a' should be 'b'"),
        ({"properties": {"a": {"const": None}}}, {"a": None}, None),
        ({"required": ["a", "b", "c"]}, {"b": 1}, "it lacks 'a', 'c'"),
        (
            {"properties": {"a": {}}, "additionalProperties": False},
            {"a": 1, "b": 2, "c": 3},
            "it has the unknown keys 'b', 'c'",
        ),
        ({"additionalProperties": False}, {"b": 2}, "it has the unknown keys 'b'"),
        ({"properties": {"a": {}}, "additionalProperties": {}}, {"a": 1, "b": 2}, None),
        # In parts of parts, the innermost place is told.
        (
            {"properties": {"a": {"properties": {"b": {"type": "string"}}}}},
            {"a": {"b": 1}},
            "'b' should be of type string",
        ),
        (
            {"properties": {"a": {"items": {"type": "string"}}}},
            {"a": ["x", 1]},
            "an item of 'a' should be of type string",
        ),
        (
            {"properties": {"a": {"items": {"items": {"type": "string"}}}}},
            {"a": [["x"], [1]]},
            "an item of an item of 'a' should be of type string",
        ),
        ({"properties": {"a": {"items": [{"type": "string"}]}}}, {"a": [1]}, None),
        (
            {"properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
            {"a": "", "b": 1},
            "'b' should be of type string",
        ),
        # Choices: the first one's problem is told.
        (
            {"properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}},
            {"a": 1},
            "'a' should be of type string",
        ),
        (
            {"properties": {"a": {"oneOf": [{"const": 1}, {"required": ["b"]}]}}},
            {"a": {}},
            "'a' should be 1",
        ),
        ({"properties": {"a": {"oneOf": [{"const": 1}, {"const": 2}]}}}, {"a": 2}, None),
        (
            {"properties": {"a": {"anyOf": [{"type": "integer"}], "enum": [1]}}},
            {"a": 2},
            "'a' should be one of [1]",
        ),
        # References, in the newer place and the older one.
        (
            {"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"type": "string"}}},
            {"a": 1},
            "'a' should be of type string",
        ),
        (
            {
                "properties": {"a": {"$ref": "#/definitions/A"}},
                "definitions": {"A": {"required": ["b"]}},
            },
            {"a": {}},
            "'a' lacks 'b'",
        ),
        (
            {
                "properties": {"a": {"anyOf": [{"$ref": "#/$defs/A"}]}},
                "$defs": {"A": {"items": {"$ref": "#/$defs/B"}}, "B": {"type": "string"}},
            },
            {"a": [1]},
            "an item of 'a' should be of type string",
        ),
        ({"properties": {"a": {"$ref": "#/$defs/Nowhere"}}, "$defs": {}}, {"a": 1}, None),
        ({"properties": {"a": {"$ref": "#/$defs/Nowhere"}}}, {"a": 1}, None),
    ],
)
def test_what_does_not_fit(schema: dict[str, Any], value: Any, problem: str | None) -> None:
    made = parser(schema)
    message = call(value)
    if problem is None:
        assert made.whole(message) == value
    else:
        raw = json.dumps(value)
        expected = f"The answer does not fit Item: {problem}. It was: {raw}"
        assert said(made, message) == expected


@pytest.mark.parametrize(
    ("made", "message", "expected"),
    [
        (parser(), "", "The answer holds no whole JSON object. It was: "),
        (numbers(), "No.", "The answer holds no whole JSON value. It was: No."),
        (
            parser(),
            call({"y": "é"}),
            'The answer does not fit Item: it lacks \'x\'. It was: {"y": "é"}',
        ),
        (
            parser(),
            AIMessage("So.", tool_calls=[{"name": "Item", "args": {}, "id": "1"}]),
            "The answer does not fit Item: it lacks 'x'. It was: So.",
        ),
        # Of several, the first that has known keys; else the last.
        (
            parser(),
            '{"odd": 1} {"x": "a"} {"z": 2}',
            (
                "The answer does not fit Item: 'x' should be of type integer. "
                'It was: {"odd": 1} {"x": "a"} {"z": 2}'
            ),
        ),
        (
            parser(),
            '{"x": "a", "odd": 1}',
            (
                "The answer does not fit Item: 'x' should be of type integer. "
                'It was: {"x": "a", "odd": 1}'
            ),
        ),
    ],
)
def test_what_an_error_says(made: ObjectParser, message: Any, expected: str) -> None:
    assert said(made, message) == expected


def test_an_error_shows_the_arguments_of_a_broken_call() -> None:
    broken = [
        {"name": "Item", "args": None, "id": "1", "error": None},
        {"name": "Item", "args": '{"x', "id": "2", "error": None},
        {"name": "Item", "args": '{"y', "id": "3", "error": None},
    ]
    message = AIMessage("", invalid_tool_calls=broken)
    assert said(parser(), message) == 'The answer holds no whole JSON object. It was: {"x'
    message = AIMessage("So.", invalid_tool_calls=broken)
    assert said(parser(), message) == "The answer holds no whole JSON object. It was: So."


# --- which value is the answer ---


@pytest.mark.parametrize("schema", [SCHEMA, CLOSED, OPEN])
@pytest.mark.parametrize(
    "value",
    [
        {"x": 1},
        [{"x": 1}],
        {"Item": {"x": 1}},
        {"iTEM": {"x": 1}},
        {"name": "Item", "arguments": {"x": 1}},
        {"name": "Item", "parameters": {"x": 1}},
        {"name": "Item", "args": {"x": 1}},
        {"name": "Item", "input": {"x": 1}},
        {"name": "Item", "arguments": {"x": 1}, "input": {"x": 1}},
        {"name": "Item", "arguments": '{"x": 1}'},
        {"type": "function", "function": {"name": "Item", "arguments": '{"x": 1}'}, "id": "1"},
        {"title": "Item", "type": "object", "properties": {"x": 1}},
        {"description": "d", "required": ["x"], "properties": {"x": 1}},
        [{"Item": [{"x": 1}]}],
    ],
)
def test_what_is_unwrapped(schema: dict[str, Any], value: Any) -> None:
    assert read(parser(schema), value) == {"x": 1}


@pytest.mark.parametrize(
    "value",
    [
        {"Other": {"x": 1}},
        {"name": "Other", "arguments": {"x": 1}},
        {"name": "Item", "arguments": {"x": 1}, "input": {"x": 2}},
        {"function": {"name": "Item", "arguments": {"x": 1}}, "more": 1},
        {"properties": {"x": 1}, "more": 1},
        {"value": {"x": 1}},
        [{"x": 1}, {"x": 2}],
        {"name": 7, "arguments": {"x": 1}},
    ],
)
def test_what_is_not_unwrapped(value: Any) -> None:
    assert said(parser(CLOSED), json.dumps(value)).startswith("The answer ")


def wrapped(levels: int) -> str:
    return "[" * levels + '{"x": 1}' + "]" * levels


def test_how_deep_a_wrapping_may_be() -> None:
    assert read(parser(), wrapped(4)) == {"x": 1}
    assert "it should be of type object" in said(parser(), wrapped(5))


def test_what_order_values_are_tried_in() -> None:
    for text, expected in (
        ('{"x": 1} or {"x": 2}', {"x": 1}),
        ('[{"x": 1}] or {"x": 2}', {"x": 2}),  # one that stands as it is
        ('{"x": 1, "odd": 0} or [{"x": 2}]', {"x": 2}),  # no unknown keys
        ('{"x": 1, "odd": 0} or {"x": 2, "odd": 1}', {"x": 1, "odd": 0}),
        ('{"x": "a"} or {"x": 2}', {"x": 2}),
    ):
        assert read(parser(), text) == expected


def test_a_call_is_no_answer_unless_the_schema_has_its_keys() -> None:
    value = {"name": "Other", "arguments": {"x": 1}}
    assert read(parser(CALLS), value) == value
    only_name = {**CALLS, "properties": {"name": {}}}
    assert "no whole JSON object" in said(parser(only_name), json.dumps(value))
    three = {**CALLS, "properties": {**CALLS["properties"], "x": {}}}
    assert read(parser(three), value) == value
    # `input` is a key of this schema, so it makes no call of an object with a name.
    taken = {**CALLS, "properties": {"name": {}, "input": {}, "more": {}}}
    given = {"name": "a", "input": 1, "odd": 2}
    assert read(parser(taken), given) == given


def test_without_a_schema_the_longest_object_counts() -> None:
    text = '[1, 2, 3, 4, 5, 6, 7, 8] {"a": 1} {"b": [1, 2]} {"c": 1}'
    assert read(parser(None), text) == {"b": [1, 2]}
    assert "no whole JSON object" in said(parser(None), "[1]")


def test_values_that_are_no_objects() -> None:
    assert read(numbers(), "[1, 2]") == [1, 2]
    assert numbers().whole(call({"value": [1, 2]})) == [1, 2]
    assert read(numbers(), '{"value": [1]}') == [1]
    assert "does not fit" in said(numbers(), call({"value": [1], "more": 1}))
    for text, value in (("3", 3), ("2.5", 2.5), ("true", True), ('"a"', "a"), ("0", 0)):
        assert read(parser({"title": "Item"}, wants_object=False), text) == value
    colours = parser({"title": "Item", "enum": ["red", "7"]}, wants_object=False)
    assert read(colours, " red\n") == "red"
    assert "no whole JSON value" in said(colours, "blue")
    assert "no whole JSON value" in said(parser(None, wants_object=False), "blue")
    assert parser().whole(call({"x": 1})) == {"x": 1}


def test_properties_that_repeat_the_schema_are_no_answer() -> None:
    closed = {"title": "Item", "properties": {"x": {}}, "additionalProperties": False}
    text = json.dumps({"properties": {"x": {}}})
    assert "it has the unknown keys 'properties'" in said(parser(closed), text)
    assert read(parser(closed), {"properties": {"x": 1}}) == {"x": 1}


def test_of_values_without_unknown_keys_the_last_problem_is_told() -> None:
    for text in ('{"y": "a"} [{"x": "b"}]', '{"y": "a"} {"x": "b"}'):
        assert "Item: 'x' should be of type integer. It" in said(parser(), text)


def test_a_box_is_opened_for_no_object() -> None:
    boxed = parser({"title": "Item", "properties": {"value": {}}})
    assert boxed.whole(call({"value": {"value": 1}})) == {"value": {"value": 1}}


class Aliased(BaseModel):
    """A class whose fields have other names in JSON."""

    x: int = Field(validation_alias=AliasChoices("ex", "iks", AliasPath("deep", 0)))
    y: int = Field(default=0, alias="why")
    z: int = Field(default=0, validation_alias="zed")
    model_config = {"populate_by_name": True}


class AliasedV1(BaseModelV1):
    """The same of pydantic's first version."""

    x: int = FieldV1(alias="ex")

    class Config:
        allow_population_by_field_name = True


@pytest.mark.parametrize("key", ["ex", "iks", "x"])
def test_names_of_fields_are_known_keys(key: str) -> None:
    """An object with unknown keys counts last."""
    made = parser(Aliased.model_json_schema(), model=Aliased)
    text = f'{{"odd": 1, "ex": 1}} {{"{key}": 2, "zed": 3}}'
    assert read(made, text) == Aliased.model_validate({"x": 2, "z": 3})
    grown = made.partial(AIMessage(f'{{"{key}": 2'))
    assert grown == Aliased.model_validate({"x": 2})
    for name in ("y", "why", "z"):
        text = f'{{"odd": 1, "ex": 1}} {{"ex": 2, "{name}": 3}}'
        assert read(made, text).x == 2


def test_names_of_fields_of_the_first_version() -> None:
    made = parser(AliasedV1.schema(), model=AliasedV1)
    for key in ("x", "ex"):
        assert read(made, f'{{"odd": 1, "ex": 1}} {{"{key}": 2}}') == AliasedV1(ex=2)


# --- the object while it grows ---


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("{", None),
        ('{"x', None),
        ('{"x": 1', {"x": 1}),
        ('Well: {"x": 1', {"x": 1}),
        ('{ \n "x": 1, "y": "a', {"x": 1, "y": "a"}),
        ('{"x": 1} and so on', {"x": 1}),
        ('In {braces} {"x": 1', {"x": 1}),
        ("{}", None),
        ('{"odd": 1', None),
        ('{"Item": {"x": 1', {"x": 1}),
        ('{"Item": {', None),
        ('{"name": "It', None),
        ('{"name": "Item", "arguments": {"x": 1', {"x": 1}),
        ('{"name": "Other", "arguments": {"x": 1', None),
        ("[1", None),
        ('{"x": 1 oops', {"x": 1}),
        ('{"x":' * 100_000, None),
    ],
)
def test_how_much_there_is(text: str, value: Any) -> None:
    if text != '{"x": 1 oops':
        assert parser().partial(AIMessage(text)) == value
    assert numbers().partial(AIMessage(text)) is None


def test_an_object_that_may_become_a_call_is_waited_for() -> None:
    only_name = {"title": "Item", "properties": {"name": {}, "x": {}}}
    made = parser(only_name)
    assert made.partial(AIMessage('{"name": "It')) is None
    assert made.partial(AIMessage('{"name": "Item"')) is None
    assert made.partial(AIMessage('{"name": "Items"')) == {"name": "Items"}
    assert made.partial(AIMessage('{"name": "It", "x": 1')) == {"name": "It", "x": 1}
    assert made.partial(AIMessage('{"name": 7')) == {"name": 7}
    assert parser(CALLS).partial(AIMessage('{"name": "It')) == {"name": "It"}
    unlimited = parser({"title": "Item"})
    assert unlimited.partial(AIMessage('{"name": "It')) is None


def test_a_call_while_it_grows() -> None:
    assert parser().partial(call({"x": 1})) == {"x": 1}
    assert parser().partial(call({})) is None
    assert parser().partial(call({"x": 1}, "Other")) is None


def test_what_a_chain_gives_it() -> None:
    made, whole = parser(), '{"x": 1, "y": "a"}'
    text, message = Generation(text=whole), ChatGeneration(message=AIMessage(whole))
    for result in (text, message):
        assert made.parse_result([result]) == {"x": 1, "y": "a"}
        assert made.parse_result([result], partial=True) == {"x": 1, "y": "a"}
    cut = [Generation(text=whole[:-3])]
    assert made.parse_result(cut, partial=True) == {"x": 1, "y": "a"[:0]}
    with pytest.raises(OutputParserException):
        made.parse_result(cut)
    assert made.parse(whole) == {"x": 1, "y": "a"}


def test_no_value_is_given_twice() -> None:
    pieces = ['{"x": 1', ", ", '"y": ', '"a"', "}", "\n"]
    expected = [{"x": 1}, {"x": 1, "y": "a"}]
    assert list(parser().transform(iter(pieces))) == expected
    assert list(parser().transform(iter([]))) == []
    # An answer whose value is nothing is still no error.
    nothing = parser({"title": "Item"}, wants_object=False)
    boxed = AIMessageChunk(
        content="",
        tool_call_chunks=[{"name": "Item", "args": '{"value": 0}', "id": "1", "index": 0}],
    )
    assert list(nothing.transform(iter([boxed]))) == [0]


async def test_raw_messages_beside_the_object() -> None:
    made = with_raw(parser())
    assert made.get_name() == "ObjectParserWithRaw"
    chunks = [AIMessageChunk(content='{"x": '), AIMessageChunk(content="1}")]

    async def given() -> AsyncIterator[Any]:
        for chunk in chunks:
            yield chunk

    def given_sync() -> Iterator[Any]:
        yield from chunks

    expected: list[Any] = [{"raw": chunk} for chunk in chunks]
    expected.append({"parsed": {"x": 1}, "parsing_error": None})
    assert list(made.transform(given_sync())) == expected
    assert [part async for part in made.atransform(given())] == expected
    assert list(made.transform(iter([]))) == [{"parsed": None, "parsing_error": None}]
    problem = made.invoke(AIMessage("No."))
    assert (problem["raw"], problem["parsed"]) == (AIMessage("No."), None)
    assert str(problem["parsing_error"]).startswith("The answer holds no whole JSON object.")
