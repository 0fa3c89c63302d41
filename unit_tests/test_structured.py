"""Typed answers: what is asked for, and how an object is read from an answer."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import RunnableGenerator
from pydantic import BaseModel, Field, RootModel, field_validator
from pydantic.v1 import BaseModel as BaseModelV1
from typing_extensions import TypedDict

from langchain_thinnest import ChatThinnest, ThinnestRequestError
from langchain_thinnest._request.structured import typed_answer


class Person(BaseModel):
    """A person."""

    name: str
    age: int = Field(ge=0)


class PersonV1(BaseModelV1):
    """A person."""

    name: str
    age: int


class PersonDict(TypedDict):
    """A person."""

    name: str
    age: int


SCHEMA = {
    "title": "Person",
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "kind": {"enum": ["a", "b"]},
        "height": {"type": ["number", "null"]},
        "home": {"type": "object", "required": ["city", "street"]},
        "is_home": {"type": "boolean"},
        "any": {},
    },
    "required": ["name", "age"],
}
ADA = {"name": "Ada", "age": 36}
TEXT = json.dumps(ADA)


def structured(schema: Any = Person, **arguments: Any) -> Any:
    model = ChatThinnest(agent_id="ag_1", api_key="ak_1")
    return model.with_structured_output(schema, **arguments)


def parse(schema: Any, text: Any, **arguments: Any) -> Any:
    message = AIMessage(text) if isinstance(text, str) else text
    return structured(schema, **arguments).last.invoke(message)


def call(args: Any, name: str = "Person") -> AIMessage:
    return AIMessage("", tool_calls=[{"name": name, "args": args, "id": "1"}])


FITTING = {
    "alone": TEXT,
    "with space around": f"\n {TEXT} \n",
    "in a fence": f"```json\n{TEXT}\n```",
    "in a fence in prose": f"Here you are:\n\n```\n{TEXT}\n```\nAnything else?",
    "in prose": f'Of {{course}}, {{"it"}} is {TEXT}. Or {{"x": 1}}?',
    "after an object that does not fit": f'Not {{"name": "a much longer thing"}} but {TEXT}',
    "over lines": json.dumps(ADA, indent=2),
    "in double braces": f"{{{TEXT}}}",
    "a call": call(ADA),
    "a call in tags": f'<tool_call>{{"name": "Person", "arguments": {TEXT}}}</tool_call>',
    "Python": str(ADA),
    "a trailing comma": '{"name": "Ada", "age": 36,}',
    "a list of one": f"[{TEXT}]",
    "the schema's name around": f'{{"Person": {TEXT}}}',
    "properties around": f'{{"properties": {TEXT}}}',
    "a byte order mark": "\ufeff" + TEXT,
    "no-break spaces": TEXT.replace(" ", "\xa0"),
    "comments": '{"name": "Ada", // her name\n "age": /* years */ 36}',
    "JSON in a string": json.dumps(TEXT),
    "a whole number with a point": '{"name": "Ada", "age": 36.0}',
    "content blocks": AIMessage([{"type": "text", "text": TEXT}]),
}


@pytest.mark.parametrize("given", FITTING.values(), ids=FITTING)
def test_an_answer_that_fits(given: Any) -> None:
    assert parse(Person, given) == Person(**ADA)
    assert parse(SCHEMA, given) == ADA


def test_what_comes_out() -> None:
    assert parse(PersonDict, TEXT) == ADA
    assert parse(PersonV1, TEXT) == PersonV1(**ADA)
    assert parse(None, '{"x": [1]}', method="json_mode") == {"x": [1]}
    assert parse(Person, TEXT, method="json_mode") == Person(**ADA)
    longest = parse(None, f'Not {{"x": 1}} but {TEXT} or {{"y": 2}}', method="json_mode")
    assert longest == ADA
    assert parse(Person, call(ADA), method="function_calling") == Person(**ADA)


UNFIT = {
    "nothing": "",
    "a refusal": "I cannot do that.",
    "cut": TEXT[:-1],
    "cut in a string": TEXT[:12],
    "cut with a whole object in it": '{"name": "Ada", "home": {"name": "Ada", "age": 36},',
    "cut after a whole one": f"{TEXT} or {TEXT[:-3]}",
    "cut in a string after a whole one": f"{TEXT} or {TEXT[:12]}",
    "broken with a whole object in it": f'{{"x": {TEXT}, y}}',
    "a list of two": f"[{TEXT}, {TEXT}]",
    "a list that is cut": f"[{TEXT}",
    "Python that is cut": "{'name': 'Ada', 'age': 36",
    "an unescaped quote": '{"name": "A "B" C", "age": 36}',
    "another tool's call in tags": '<tool_call>{"name": "Other", "arguments": {}}</tool_call>',
    "a string": '"Ada"',
    "a key missing": '{"name": "Ada"}',
    "a type that is wrong": '{"name": "Ada", "age": "old"}',
    "another tool's call": call(ADA, "Other"),
    "a call that does not fit": call({"name": "Ada"}),
    "a broken call": AIMessage(
        "",
        invalid_tool_calls=[{"name": "Person", "args": TEXT[:9], "id": "1", "error": None}],
    ),
}


@pytest.mark.parametrize("schema", [Person, PersonV1, PersonDict, SCHEMA])
@pytest.mark.parametrize("given", UNFIT.values(), ids=UNFIT)
def test_an_answer_that_does_not_fit(schema: Any, given: Any) -> None:
    message = AIMessage(given) if isinstance(given, str) else given
    title = schema["title"] if isinstance(schema, dict) else schema.__name__
    for made in message.tool_calls + message.invalid_tool_calls:
        made["name"] = made["name"].replace("Person", title)
    with pytest.raises(OutputParserException) as raised:
        parse(schema, message)
    raw = raised.value.llm_output
    assert isinstance(raw, str)
    if isinstance(given, str):
        assert raw == given
    elif given.invalid_tool_calls:
        assert raw == TEXT[:9]
    elif title == given.tool_calls[0]["name"]:
        assert raw == json.dumps(given.tool_calls[0]["args"])
    both = structured(schema, include_raw=True).last.invoke(message)
    assert both["raw"] == message
    assert both["parsed"] is None
    assert both["parsing_error"].llm_output == raw


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"age": True}, "'age' should be of type integer"),
        ({"age": 1.5}, "'age' should be of type integer"),
        ({"tags": ["a", 1]}, "an item of 'tags' should be of type string"),
        ({"tags": "a"}, "'tags' should be of type array"),
        ({"kind": "c"}, "'kind' should be one of"),
        ({"height": "tall"}, "'height' should be of type number or null"),
        ({"home": {}}, "'home' lacks 'city', 'street'"),
        ({"is_home": 1}, "'is_home' should be of type boolean"),
        ({"is_home": False, "any": [1]}, None),
        (
            {
                "tags": [],
                "kind": "b",
                "height": None,
                "home": {"city": "", "street": ""},
                "odd": 1,
            },
            None,
        ),
        ({"height": 1}, None),
    ],
)
def test_what_a_json_schema_says(more: dict[str, Any], says: str | None) -> None:
    text = json.dumps({**ADA, **more})
    if says is None:
        assert parse(SCHEMA, text) == {**ADA, **more}
    else:
        with pytest.raises(OutputParserException, match=says):
            parse(SCHEMA, text)


PARTS: dict[str, Any] = {
    "title": "Parts",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "at": {"$ref": "#/$defs/Place"},
        "size": {"oneOf": [{"type": "integer"}, {"type": "null"}]},
        "kind": {"const": "a"},
    },
    "$defs": {"Place": {"type": "object", "required": ["city"]}},
}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"at": {"city": "x"}, "size": 3, "kind": "a"}, None),
        ({"size": None}, None),
        ({"at": {}}, "'at' lacks 'city'"),
        ({"size": "big"}, "'size' should be of type integer"),
        ({"kind": "b"}, "'kind' should be 'a'"),
        ({"kind": "a", "odd": 1}, "it has the unknown keys 'odd'"),
    ],
)
def test_what_a_json_schema_says_of_its_parts(value: Any, says: str | None) -> None:
    if says is None:
        assert parse(PARTS, json.dumps(value)) == value
    else:
        with pytest.raises(OutputParserException, match=f"does not fit Parts: {says}"):
            parse(PARTS, json.dumps(value))


def test_an_openai_call_around_an_object() -> None:
    function = {"name": "Person", "arguments": ADA}
    for wrapped in (
        {"type": "function", "function": function},
        {"function": function, "id": "c1"},
        {"name": "Person", "arguments": ADA, "parameters": ADA},
    ):
        assert parse(Person, json.dumps(wrapped)) == Person(**ADA)
    apart = {"name": "Person", "arguments": ADA, "parameters": {}}
    with pytest.raises(OutputParserException):
        parse(Person, json.dumps(apart))


def test_a_schema_that_is_repeated_is_no_answer() -> None:
    with pytest.raises(OutputParserException):
        parse(SCHEMA, json.dumps(SCHEMA))


def test_of_several_misfits_the_likeliest_is_told() -> None:
    text = '{"name": "x"} or {"name": "y", "odd": 1}'
    with pytest.raises(OutputParserException, match="it lacks 'age'"):
        parse(SCHEMA, text)


def test_a_text_alone_can_be_parsed() -> None:
    parser = structured().last
    assert parser.parse(TEXT) == parser.invoke(TEXT) == Person(**ADA)


def test_errors_say_what_is_wrong() -> None:
    for text, says in (
        ("No.", "The answer holds no whole JSON object. It was: No."),
        ('{"name": "x"}', "The answer does not fit Person: it lacks 'age'. It was: {\"name"),
    ):
        with pytest.raises(OutputParserException, match=f"^{re.escape(says)}"):
            parse(SCHEMA, text)


def test_other_forms_of_a_schema() -> None:
    function = {"name": "Person", "parameters": {k: SCHEMA[k] for k in SCHEMA if k != "title"}}
    for schema in (
        function,
        {"type": "function", "function": function},
        {"toolSpec": {"name": "Person", "inputSchema": {"json": function["parameters"]}}},
    ):
        assert parse(schema, TEXT) == ADA
        with pytest.raises(OutputParserException, match="does not fit Person"):
            parse(schema, "{}")


def test_deep_nesting_is_no_crash() -> None:
    for text in ('{"a":' * 100_000, "[" * 100_000):
        with pytest.raises(OutputParserException):
            parse(Person, text)


def stream(schema: Any, chunks: list[Any], **arguments: Any) -> list[Any]:
    def answer(_: Any) -> Iterator[Any]:
        for chunk in chunks:
            yield AIMessageChunk(content=chunk) if isinstance(chunk, str) else chunk

    return list((RunnableGenerator(answer) | structured(schema, **arguments).last).stream(""))


async def astream(schema: Any, chunks: list[Any], **arguments: Any) -> list[Any]:
    async def answer(_: Any) -> AsyncIterator[Any]:
        for chunk in chunks:
            yield AIMessageChunk(content=chunk) if isinstance(chunk, str) else chunk

    chain = RunnableGenerator(answer) | structured(schema, **arguments).last
    return [part async for part in chain.astream("")]


async def test_an_object_grows() -> None:
    chunks = ["Well:\n```json\n{", '"na', 'me": "A', "da", '", "age": 3', "6}", "\n```"]
    expected = [
        {"name": "A"},
        {"name": "Ada"},
        {"name": "Ada", "age": 3},
        {"name": "Ada", "age": 36},
    ]
    assert stream(PersonDict, chunks) == await astream(PersonDict, chunks) == expected
    people = [Person(name="Ada", age=3), Person(name="Ada", age=36)]
    assert stream(Person, chunks) == await astream(Person, chunks) == people
    # From a step that gives strings, too.
    assert list(structured(PersonDict).last.transform(iter(chunks))) == expected


async def test_a_call_grows() -> None:
    parts = [("Person", '{"name": "A', "1"), (None, 'da"', None), (None, "}", None)]
    chunks = [
        AIMessageChunk(
            content="",
            tool_call_chunks=[{"name": name, "args": args, "id": id_, "index": 0}],
        )
        for name, args, id_ in parts
    ]
    schema = {"title": "Person", "type": "object", "properties": {"name": {}}}
    expected = [{"name": "A"}, {"name": "Ada"}]
    assert stream(schema, chunks) == await astream(schema, chunks) == expected


async def test_a_stream_that_does_not_fit_fails_at_its_end() -> None:
    for chunks in (["{", '"name": "Ada"'], ["I ", "cannot."]):
        with pytest.raises(OutputParserException) as raised:
            stream(PersonDict, chunks)
        assert raised.value.llm_output == "".join(chunks)
        with pytest.raises(OutputParserException):
            await astream(PersonDict, chunks)


async def test_raw_and_object_while_streaming() -> None:
    for text, parsed in ((TEXT, ADA), (TEXT[:-1], None)):
        chunks = [text[:5], text[5:]]
        for parts in (
            stream(PersonDict, chunks, include_raw=True),
            await astream(PersonDict, chunks, include_raw=True),
        ):
            assert [part["raw"].content for part in parts[:-1]] == chunks
            assert parts[-1]["parsed"] == parsed
            assert (parts[-1]["parsing_error"] is None) == (parsed is not None)


def test_what_is_asked_for() -> None:
    described = structured().first.kwargs["response_format"]["json_schema"]
    assert described["name"] == "Person"
    assert described["schema"]["required"] == ["name", "age"]
    arguments = structured(method="function_calling").first.kwargs
    assert arguments["tools"][0]["function"]["name"] == arguments["tool_choice"] == "Person"
    assert arguments["parallel_tool_calls"] is False
    assert structured(method="json_mode").first.kwargs["response_format"] == {
        "type": "json_object"
    }


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_what_traces_are_told(method: Any) -> None:
    told = structured(method=method).first.kwargs["ls_structured_output_format"]
    assert told == {"kwargs": {"method": method, "strict": None}, "schema": Person}


def test_strict() -> None:
    schema = structured(strict=True).first.kwargs["response_format"]["json_schema"]["schema"]
    assert schema["additionalProperties"] is False
    schema = structured(SCHEMA, strict=True).first.kwargs["response_format"]["json_schema"]
    assert schema["schema"]["additionalProperties"] is False
    tool = structured(strict=True, method="function_calling").first.kwargs["tools"][0]
    assert tool["function"]["strict"] is True
    assert tool["function"]["parameters"]["additionalProperties"] is False


def test_a_schema_without_a_title() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    assert parse(schema, '{"x": 1}') == {"x": 1}
    described = structured(schema).first.kwargs["response_format"]["json_schema"]
    assert (described["name"], described["schema"]["properties"]) == (
        "Answer",
        schema["properties"],
    )


def test_what_cannot_be_asked_for() -> None:
    with pytest.raises(ThinnestRequestError, match="no schema"):
        structured(3)
    with pytest.raises(ThinnestRequestError, match="needs a schema"):
        structured(None)
    with pytest.raises(ValueError, match="'xml' is unknown"):
        structured(method="xml")
    with pytest.raises(ValueError, match="no arguments stict"):
        structured(stict=True)


def test_it_pickles() -> None:
    copy = pickle.loads(pickle.dumps(structured()))
    assert copy.last.invoke(AIMessage(TEXT)) == Person(**ADA)


class Loose(BaseModel):
    """What a wrong reading would fit."""

    name: str
    age: int | None = None


CALLED = '<tool_call>{"name": "Loose", "arguments": {"name": "Ada", "age": 3}}</tool_call>'


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
async def test_a_call_in_tags_is_not_the_answer_itself(method: Any) -> None:
    ada = Loose(name="Ada", age=3)
    assert parse(Loose, CALLED, method=method) == ada
    for pieces in (list(CALLED), [CALLED]):
        assert stream(Loose, pieces, method=method)[-1] == ada
        assert all("Loose" not in part.name for part in stream(Loose, pieces, method=method))


def test_lists_and_choices_at_the_top() -> None:
    class Numbers(RootModel[list[int]]):
        pass

    assert parse(Numbers, "[1, 2]") == Numbers([1, 2])
    assert parse({"title": "N", "type": "array", "items": {"type": "integer"}}, "[1]") == [1]
    colour = {"title": "Colour", "enum": ["red", "green"]}
    assert parse(colour, '"red"') == parse(colour, " red\n") == "red"
    boxed = call({"value": [1, 2]}, "Numbers")
    assert structured(Numbers, method="function_calling").last.invoke(boxed) == Numbers([1, 2])
    for schema, text in ((Numbers, '["x"]'), (Numbers, "[1,"), (colour, "blue")):
        with pytest.raises(OutputParserException):
            parse(schema, text)


async def test_a_list_comes_at_its_end() -> None:
    class Numbers(RootModel[list[int]]):
        pass

    pieces = ["[1, ", "2]"]
    assert stream(Numbers, pieces) == await astream(Numbers, pieces) == [Numbers([1, 2])]


class Node(BaseModel):
    """A tree."""

    name: str
    inner: list[Node] = []


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_schemas_that_refer_to_themselves(method: Any) -> None:
    class Nodes(RootModel[list[Node]]):
        pass

    tree = {"name": "a", "inner": [{"name": "b", "inner": []}]}
    text = json.dumps(tree)
    assert parse(Node, text, method=method) == Node.model_validate(tree)
    assert parse(Nodes, f"[{text}]", method=method) == Nodes.model_validate([tree])
    if method == "function_calling":
        tool = structured(Nodes, method=method).first.kwargs["tools"][0]["function"]
        assert "Node" in json.dumps(tool["parameters"]["$defs"])


def test_openais_forms_of_a_schema() -> None:
    form = {"name": "Person", "schema": SCHEMA, "strict": True}
    for schema in (form, {"type": "json_schema", "json_schema": form}):
        assert parse(schema, TEXT) == ADA
        with pytest.raises(OutputParserException, match="does not fit Person"):
            parse(schema, "{}")


async def test_validators_may_raise_what_they_like() -> None:
    class Picky(BaseModel):
        name: str

        @field_validator("name")
        @classmethod
        def check(cls, value: str) -> str:
            raise KeyError(value)

    outcome = structured(Picky, include_raw=True).last.invoke(AIMessage('{"name": "x"}'))
    assert isinstance(outcome["parsing_error"], OutputParserException)
    with pytest.raises(OutputParserException):
        stream(Picky, ['{"name"', ': "x"}'])
    with pytest.raises(OutputParserException):
        await astream(Picky, ['{"name"', ': "x"}'])


class Numbers(RootModel[list[int]]):
    pass


class Place(BaseModel):
    city: str


class Places(RootModel[list[Place]]):
    """Several places."""


PLACE: dict[str, Any] = {
    "properties": {"city": {"title": "City", "type": "string"}},
    "required": ["city"],
    "title": "Place",
    "type": "object",
}
PERSON_SCHEMA: dict[str, Any] = {
    "properties": {"name": {"type": "string"}, "age": {"minimum": 0, "type": "integer"}},
    "required": ["name", "age"],
    "type": "object",
}
TITLED = {"title": "Person", "description": "A person."}
POINT = {"type": "object", "properties": {"x": {"type": "integer"}}}
ENUM = {"title": "Colour", "enum": ["red", "green"]}


def boxed(inner: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"value": inner}, "required": ["value"], **more}


@pytest.mark.parametrize(
    ("schema", "strict", "function"),
    [
        (
            Person,
            None,
            {"name": "Person", "description": "A person.", "parameters": PERSON_SCHEMA},
        ),
        (
            Numbers,
            True,
            {
                "name": "Numbers",
                "description": "",
                "parameters": boxed({"items": {"type": "integer"}, "type": "array"}),
                "strict": True,
            },
        ),
        (
            Places,
            False,
            {
                "name": "Places",
                "description": "Several places.",
                "parameters": boxed(
                    {"items": {"$ref": "#/$defs/Place"}, "type": "array"},
                    **{"$defs": {"Place": PLACE}},
                ),
                "strict": False,
            },
        ),
        (
            {"name": "Point", "description": "A point.", "schema": POINT},
            None,
            {"name": "Point", "description": "A point.", "parameters": POINT},
        ),
        (POINT, None, {"name": "Answer", "description": "", "parameters": POINT}),
        (
            POINT,
            True,
            {
                "name": "Answer",
                "description": "",
                "parameters": {**POINT, "additionalProperties": False, "required": ["x"]},
                "strict": True,
            },
        ),
        (
            ENUM,
            None,
            {
                "name": "Colour",
                "description": "",
                "parameters": boxed({"enum": ["red", "green"]}),
            },
        ),
        ({"title": "Any"}, None, {"name": "Any", "description": "", "parameters": {}}),
    ],
    ids=["class", "list", "list-of-classes", "form", "untitled", "strict", "enum", "any"],
)
def test_the_tool_that_is_asked_for(
    schema: Any, strict: bool | None, function: dict[str, Any]
) -> None:
    asked = typed_answer(schema, "function_calling", strict=strict).arguments
    del asked["ls_structured_output_format"]
    assert asked == {
        "tools": [{"type": "function", "function": function}],
        "tool_choice": function["name"],
        "parallel_tool_calls": False,
    }


@pytest.mark.parametrize(
    ("schema", "name", "described"),
    [
        (Person, "Person", {**TITLED, **PERSON_SCHEMA}),
        (
            Numbers,
            "Numbers",
            {"title": "Numbers", "items": {"type": "integer"}, "type": "array"},
        ),
        (POINT, "Answer", {"title": "Answer", **POINT}),
        (ENUM, "Colour", ENUM),
        ({"name": "Point", "schema": POINT}, "Point", {"title": "Point", **POINT}),
        (
            {"name": "Point", "description": "A point.", "parameters": POINT},
            "Point",
            {"title": "Point", "description": "A point.", **POINT},
        ),
    ],
    ids=["class", "list", "untitled", "enum", "form", "function"],
)
def test_the_schema_that_is_asked_for(
    schema: Any, name: str, described: dict[str, Any]
) -> None:
    asked = typed_answer(schema, "json_schema", strict=None)
    form = {"name": name, "schema": described}
    assert asked.arguments["response_format"] == {"type": "json_schema", "json_schema": form}
    assert asked.title == name
    assert asked.schema == described


def test_a_json_object_that_is_asked_for() -> None:
    asked = typed_answer(None, "json_mode", strict=None)
    assert asked.arguments["response_format"] == {"type": "json_object"}
    assert (asked.title, asked.schema, asked.model) == ("a JSON object", {}, None)
    assert asked.is_object


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
@pytest.mark.parametrize("strict", [True, False, None])
def test_what_a_trace_is_told(method: Any, strict: bool | None) -> None:
    asked = typed_answer(Person, method, strict=strict)
    assert asked.arguments["ls_structured_output_format"] == {
        "kwargs": {"method": method, "strict": strict},
        "schema": Person,
    }


def test_the_model_that_is_made() -> None:
    for schema, model in (
        (Person, Person),
        (PersonV1, PersonV1),
        (Numbers, Numbers),
        (PersonDict, None),
        (SCHEMA, None),
    ):
        assert typed_answer(schema, "json_schema", strict=None).model is model


@pytest.mark.parametrize(
    ("schema", "is_object"),
    [
        ({"type": "object"}, True),
        ({"type": ["object", "null"]}, True),
        ({"properties": {}}, True),
        ({"type": "array"}, False),
        ({"type": ["string", "null"]}, False),
        ({"type": "string"}, False),
        ({"enum": [{}], "type": "object"}, False),
        (
            {"$ref": "#/$defs/A", "$defs": {"A": {"type": "object"}, "B": {"type": "array"}}},
            True,
        ),
        (
            {"$ref": "#/$defs/B", "$defs": {"A": {"type": "object"}, "B": {"type": "array"}}},
            False,
        ),
        ({"$ref": "#/$defs/C", "$defs": {"B": {"type": "array"}}}, True),  # it does not say
        ({"$ref": "#/$defs/C"}, True),
    ],
)
def test_whether_an_object_is_asked_for(schema: dict[str, Any], is_object: bool) -> None:
    asked = typed_answer({"title": "X", **schema}, "json_schema", strict=None)
    assert asked.is_object is is_object


@pytest.mark.parametrize(
    ("schema", "method", "kind", "says"),
    [
        (
            Person,
            "yaml",
            ValueError,
            (
                "method='yaml' is unknown: it is 'json_schema', 'function_calling' or "
                "'json_mode'."
            ),
        ),
        (
            None,
            "json_schema",
            ThinnestRequestError,
            "method='json_schema' needs a schema; 'json_mode' does not.",
        ),
        (
            None,
            "function_calling",
            ThinnestRequestError,
            "method='function_calling' needs a schema; 'json_mode' does not.",
        ),
    ],
)
def test_arguments_that_contradict_each_other(
    schema: Any, method: Any, kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind) as raised:
        typed_answer(schema, method, strict=None)
    assert type(raised.value) is kind
    assert str(raised.value) == says


def test_what_is_no_schema_is_told_in_short() -> None:
    with pytest.raises(ThinnestRequestError) as raised:
        typed_answer(10**300, "json_schema", strict=None)  # type: ignore[arg-type]
    said = str(raised.value)
    assert said.startswith(f"1{'0' * 199} is no schema (")
    assert said.endswith("): pass a pydantic class, a TypedDict, or a JSON schema.")
