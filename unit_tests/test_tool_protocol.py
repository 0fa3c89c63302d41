"""Local tools and typed answers, as they are asked for."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Annotated, Any

import pytest
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import StructuredTool, tool
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from langchain_thinnest import ChatThinnest, ThinnestRequestError
from langchain_thinnest._request.tool_protocol import (
    CallOptions,
    as_function,
    call_text,
    choice_of,
    openai_schema,
    response_text,
    without_tags,
)


def look_up(word: str, times: int = 1) -> str:
    """Look a word up."""
    return word * times


class LookUp(BaseModel):
    """Look a word up."""

    word: str = Field(description="The word")


class LookUpDict(TypedDict):
    """Look a word up."""

    word: Annotated[str, ..., "The word"]


PARAMETERS = {
    "type": "object",
    "properties": {"word": {"type": "string"}},
    "required": ["word"],
}
FUNCTION = {"name": "look_up", "description": "Look a word up.", "parameters": PARAMETERS}


@pytest.fixture
def model() -> ChatThinnest:
    return ChatThinnest(agent_id="ag_1", api_key="ak_1")


def bound(model: ChatThinnest, *tools: Any, **kwargs: Any) -> dict[str, Any]:
    return dict(model.bind_tools(tools, **kwargs).kwargs)  # type: ignore[attr-defined]


def asked(tools: Any = (), **arguments: Any) -> str:
    return "\n\n".join(CallOptions.of({"tools": tools, **arguments}).preamble())


@pytest.mark.parametrize(
    "given",
    [
        look_up,
        tool(look_up),
        StructuredTool.from_function(look_up),
        LookUp,
        LookUpDict,
        RunnableLambda(lambda x: x).as_tool(
            name="look_up", description="Look a word up.", arg_types={"word": str}
        ),
        {"type": "function", "function": FUNCTION},
        {"type": "function", **FUNCTION},
        FUNCTION,
        {"name": "look_up", "description": "Look a word up.", "input_schema": PARAMETERS},
        {"title": "look_up", "description": "Look a word up.", **PARAMETERS},
        {"toolSpec": {**FUNCTION, "inputSchema": {"json": PARAMETERS}}},
    ],
)
def test_whatever_langchain_takes_for_a_tool(model: ChatThinnest, given: Any) -> None:
    (described,) = bound(model, given)["tools"]
    function = described["function"]
    assert described["type"] == "function"
    assert function["name"] in ("look_up", "LookUp", "LookUpDict")
    assert function["description"] == "Look a word up."
    assert function["parameters"]["properties"]["word"]["type"] == "string"
    assert json.dumps(described) in asked([given])  # given to a call, it is described too


@pytest.mark.parametrize(
    "given", [3, "look_up", object(), {}, {"type": "web_search"}, {"type": "object"}, None]
)
def test_what_is_no_tool_is_refused(model: ChatThinnest, given: Any) -> None:
    with pytest.raises(ThinnestRequestError, match="cannot be bound"):
        bound(model, given)


def test_a_tool_that_json_cannot_describe_is_refused(model: ChatThinnest) -> None:
    class Odd(BaseModel):
        model_config = {"arbitrary_types_allowed": True}
        value: ChatThinnest.__class__  # type: ignore[name-defined]

    with pytest.raises(ThinnestRequestError, match="cannot be bound"):
        bound(model, Odd)


def test_openais_newer_form_of_a_tool_is_kept(model: ChatThinnest) -> None:
    given = {"type": "function", **FUNCTION, "strict": True, "odd": 1}
    (described,) = bound(model, given)["tools"]
    assert described == {"type": "function", "function": {**FUNCTION, "strict": True}}


@pytest.mark.parametrize("strict", [True, False, None])
def test_strict(model: ChatThinnest, strict: bool | None) -> None:
    (described,) = bound(model, look_up, strict=strict)["tools"]
    assert described["function"].get("strict") is strict
    is_closed = described["function"]["parameters"].get("additionalProperties") is False
    assert is_closed is bool(strict)


AUTO = "You may make several calls in one answer; call none if none helps."
ANY = "You must call at least one of the tools now."
THIS = "You must call the tool look_up now."
ONE = "Make one call at most."


@pytest.mark.parametrize(
    ("choice", "parallel", "sentence"),
    [
        (None, None, AUTO),
        ("auto", True, AUTO),
        ({"type": "auto"}, None, AUTO),
        ("any", None, ANY),
        ("required", None, ANY),
        (True, None, ANY),
        ({"type": "any"}, None, ANY),
        ("look_up", None, THIS),
        ({"type": "function", "function": {"name": "look_up"}}, None, THIS),
        ({"type": "tool", "name": "look_up"}, None, THIS),
        ({"name": "look_up"}, None, THIS),
        (None, False, f"Call none if none helps. {ONE}"),
        ("any", False, f"{ANY} {ONE}"),
        ("look_up", False, f"{THIS} {ONE}"),
    ],
)
def test_choice(model: ChatThinnest, choice: Any, parallel: Any, sentence: str) -> None:
    arguments = bound(model, look_up, tool_choice=choice, parallel_tool_calls=parallel)
    preamble = "\n\n".join(CallOptions.of(arguments).preamble())
    assert preamble.endswith(f"Then stop and wait for the results. {sentence}")


@pytest.mark.parametrize("choice", ["none", False, {"type": "none"}])
def test_no_choice_asks_for_nothing(model: ChatThinnest, choice: Any) -> None:
    arguments = bound(model, look_up, tool_choice=choice)
    assert CallOptions.of(arguments) == CallOptions()
    assert CallOptions().preamble() == []


@pytest.mark.parametrize(
    ("tools", "choice", "says"),
    [
        ([look_up], "look_down", "look_down.*not bound; bound are: look_up"),
        ([look_up], {"type": "tool", "name": "look_down"}, "look_down"),
        ([look_up], 3, "makes no sense"),
        ([], "any", "none is bound"),
        ([], "look_up", "none is bound"),
    ],
)
def test_a_choice_that_cannot_be(
    model: ChatThinnest, tools: Any, choice: Any, says: str
) -> None:
    with pytest.raises(ThinnestRequestError, match=says):
        bound(model, *tools, tool_choice=choice)


def test_binding_no_tools_asks_for_nothing(model: ChatThinnest) -> None:
    assert CallOptions.of(bound(model)) == CallOptions()
    assert CallOptions.of(bound(model, tool_choice="auto")) == CallOptions()


def test_other_arguments_pass(model: ChatThinnest) -> None:
    arguments = bound(model, look_up, session_id="s_1", response_format={"type": "text"})
    assert (arguments["session_id"], arguments["response_format"]) == ("s_1", {"type": "text"})


def test_errors_say_what_to_do(model: ChatThinnest) -> None:
    other = {"name": "look_up", "description": "Another."}
    for make, says in (
        (
            lambda: bound(model, 3),
            (
                "Bind a function, a pydantic class, a TypedDict, a LangChain tool, or a dict "
                "that describes one."
            ),
        ),
        (
            lambda: bound(model, {"type": "web_search"}),
            (
                "A tool of type 'web_search' cannot be bound: only functions can be called "
                "through thinnest.ai. Give the agent other tools in its settings there."
            ),
        ),
        (
            lambda: bound(model, look_up, tool_choice=3),
            "tool_choice=3 makes no sense: pass 'auto', 'any', 'none', or the name of a tool.",
        ),
        (
            lambda: bound(model, look_up, LookUp, tool_choice="x"),
            "tool_choice names the tool 'x', which is not bound; bound are: look_up, LookUp.",
        ),
        (
            lambda: asked([look_up, other]),
            (
                "Two different tools are named 'look_up': the agent could not tell them "
                "apart. Rename one."
            ),
        ),
        (
            lambda: asked(response_format=3),
            "pass a pydantic class, a TypedDict, or a JSON schema with a title.",
        ),
    ):
        with pytest.raises(ThinnestRequestError) as raised:
            make()
        assert str(raised.value).endswith(says)


def test_what_json_does_not_know_is_written_as_text() -> None:
    assert '"default": "0.5"' in asked(
        [{"name": "x", "parameters": {"default": Decimal("0.5")}}]
    )


def test_the_same_tool_twice_is_one() -> None:
    assert asked([look_up, look_up]) == asked([look_up])
    assert asked([look_up, look_up]).count('"name": "look_up"') == 1


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(ThinnestRequestError, match="Two different tools are named 'look_up'"):
        asked([look_up, {"name": "look_up", "description": "Another."}])


def test_the_preamble() -> None:
    look_up, other = FUNCTION, {"name": "other", "description": "é", "parameters": {}}
    assert asked([look_up, other]) == (
        "<tools>\n"
        '{"type": "function", "function": {"name": "look_up", '
        '"description": "Look a word up.", "parameters": {"type": "object", '
        '"properties": {"word": {"type": "string"}}, "required": ["word"]}}}\n'
        '{"type": "function", "function": {"name": "other", "description": "é", '
        '"parameters": {}}}\n'
        "</tools>\n\n"
        "You can call the tools above: the user runs them and sends back what they give. "
        'To call one, write a JSON object with its "name" and its "arguments" (an object '
        "that fits its parameters) within <tool_call></tool_call> tags, outside of any code "
        f"fence. Then stop and wait for the results. {AUTO}"
    )


NOTHING_ELSE = "and nothing else: no prose, no code fence."
FITTING = f"Answer with one JSON object that fits the schema above {NOTHING_ELSE}"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (None, ""),
        ({"type": "text"}, ""),
        ({"type": "json_object"}, f"Answer with one JSON object {NOTHING_ELSE}"),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "schema": PARAMETERS}},
            f"<response_schema>\n{json.dumps(PARAMETERS)}\n</response_schema>\n\n{FITTING}",
        ),
    ],
)
def test_the_form_of_the_answer(given: Any, says: str) -> None:
    assert asked(response_format=given) == says


def test_the_form_of_an_answer_after_tools() -> None:
    said = asked([look_up], response_format=LookUp)
    assert said.startswith("<tools>")
    assert "</tools>\n\nYou can call" in said
    assert f"{AUTO}\n\n<response_schema>\n" in said
    assert said.endswith(
        "Once no tool is left to call, answer with one JSON object that fits the schema above "
        + NOTHING_ELSE
    )


def test_a_form_of_plain_text_asks_for_nothing() -> None:
    assert asked(response_format={"type": "text"}) == asked(response_format=None) == ""


@pytest.mark.parametrize(
    "given",
    [
        *(3, "json", {"type": "json_schema"}, {"type": "yaml"}),
        {"type": "json_schema", "json_schema": {"name": "x"}},
    ],
)
def test_a_form_that_is_none_is_refused(given: Any) -> None:
    with pytest.raises(ThinnestRequestError, match="response_format"):
        asked(response_format=given)


@pytest.mark.parametrize("tag", ["tools", "tool_call", "tool_response", "response_schema"])
def test_text_cannot_pass_for_the_protocol(tag: str) -> None:
    for given in (f"<{tag}>", f"</{tag}>", f"<{tag.upper()} x=1>"):
        assert without_tags(f"a {given} b") == f"a <\\{given[1:]} b"
        assert without_tags(without_tags(given)) == f"<\\\\{given[1:]}"
    untouched = f"<b> < {tag} <{tag}s2> x<y"
    assert without_tags(untouched) == untouched


def test_a_description_cannot_end_the_tools() -> None:
    said = asked([{"name": "x", "description": "a</tools>b", "parameters": {}}])
    assert said.count("</tools>") == 1
    assert json.loads(said.splitlines()[1])["function"]["description"] == "a</tools>b"


def tool_of(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


@pytest.mark.parametrize(
    ("choice", "names", "read"),
    [
        (None, [], None),
        (None, ["a"], "auto"),
        ("auto", [], None),
        ("auto", ["a"], "auto"),
        ("auto", ["auto"], "auto"),
        ("none", ["a"], None),
        ("none", [], None),
        (False, ["a"], None),
        (True, ["a"], "any"),
        ("any", ["a"], "any"),
        ("required", ["a"], "any"),
        ("b", ["a", "b"], "b"),
        ({"type": "function", "function": {"name": "b"}}, ["a", "b"], "b"),
        ({"type": "tool", "name": "b"}, ["a", "b"], "b"),
        ({"type": "any"}, ["a"], "any"),
        ({"type": "none"}, ["a"], None),
    ],
)
def test_a_choice_as_it_is_read(choice: Any, names: list[str], read: str | None) -> None:
    assert choice_of(choice, map(tool_of, names)) == read


@pytest.mark.parametrize(
    ("choice", "names", "says"),
    [
        ("any", [], "tool_choice='any' asks for a tool, but none is bound."),
        (True, [], "tool_choice='any' asks for a tool, but none is bound."),
        ("a", [], "tool_choice='a' asks for a tool, but none is bound."),
        (
            3,
            ["a"],
            (
                "tool_choice=3 makes no sense: pass 'auto', 'any', 'none', or the name of a "
                "tool."
            ),
        ),
        (
            "c",
            ["a", "b"],
            "tool_choice names the tool 'c', which is not bound; bound are: a, b.",
        ),
    ],
)
def test_a_choice_that_is_refused(choice: Any, names: list[str], says: str) -> None:
    with pytest.raises(ThinnestRequestError) as raised:
        choice_of(choice, map(tool_of, names))
    assert str(raised.value) == says


SCHEMA: dict[str, Any] = {"title": "Word", **PARAMETERS}
POINT = {"type": "object"}


@pytest.mark.parametrize(
    ("given", "schema"),
    [
        (SCHEMA, SCHEMA),
        ({"name": "W", "schema": PARAMETERS}, {**PARAMETERS, "title": "W"}),
        (
            {"name": "W", "description": "A word.", "schema": PARAMETERS, "strict": True},
            {**PARAMETERS, "title": "W", "description": "A word."},
        ),
        ({"schema": SCHEMA}, SCHEMA),
        ({"name": "", "description": "", "schema": SCHEMA}, SCHEMA),
        (
            {"type": "json_schema", "json_schema": {"name": "W", "schema": PARAMETERS}},
            {**PARAMETERS, "title": "W"},
        ),
        # A schema that has a property of its own named so, not OpenAI's form.
        ({**SCHEMA, "schema": POINT}, {**SCHEMA, "schema": POINT}),
        ({"schema": 3}, {"schema": 3}),
        ({"type": "json_schema"}, {"type": "json_schema"}),
    ],
)
def test_openais_forms_of_a_schema(given: dict[str, Any], schema: dict[str, Any]) -> None:
    assert openai_schema(given) == schema


def test_a_form_without_its_schema() -> None:
    with pytest.raises(ThinnestRequestError) as raised:
        openai_schema({"type": "json_schema", "json_schema": {"name": "W"}})
    assert str(raised.value) == (
        'The form {"type": "json_schema", "json_schema": {...}} holds no `schema`.'
    )


@pytest.mark.parametrize(
    ("given", "schema"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, {}),
        (
            {"type": "json_schema", "json_schema": {"name": "W", "schema": PARAMETERS}},
            PARAMETERS,
        ),
        ({"name": "W", "schema": PARAMETERS}, {**PARAMETERS, "title": "W"}),
        (SCHEMA, SCHEMA),
    ],
)
def test_the_schema_of_an_answer(given: Any, schema: dict[str, Any] | None) -> None:
    assert CallOptions.of({"response_format": given}).schema == schema


def test_a_class_as_the_form_of_an_answer() -> None:
    schema = CallOptions.of({"response_format": LookUp}).schema
    assert schema is not None
    assert schema["title"] == "LookUp"
    assert schema["properties"]["word"]["description"] == "The word"


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "object"}, "object"),
        ({"properties": {}}, "object"),
        ({"type": "array"}, "array"),
        ({"type": "string"}, "value"),
        ({"type": ["object", "null"]}, "value"),
        ({"type": "object", "enum": [{}]}, "value"),
        ({"enum": ["a"]}, "value"),
    ],
)
def test_the_kind_of_the_answer(schema: dict[str, Any], kind: str) -> None:
    (described, said) = CallOptions(schema=schema).preamble()
    assert described == f"<response_schema>\n{json.dumps(schema)}\n</response_schema>"
    assert said == f"Answer with one JSON {kind} that fits the schema above {NOTHING_ELSE}"


def test_an_object_after_tools() -> None:
    said = CallOptions(tools=[tool_of("a")], schema={}).preamble()
    assert said[-1] == (
        f"Once no tool is left to call, answer with one JSON object {NOTHING_ELSE}"
    )
    assert len(said) == 3


def test_options_as_they_are_read() -> None:
    tools = [tool_of("a", parameters={"x": 1}), tool_of("b")]
    options = CallOptions.of({"tools": tools, "tool_choice": "b"})
    assert options == CallOptions(tools=tools, choice="b", is_parallel=True, schema=None)
    assert options.parameters == {"a": {"x": 1}, "b": {}}
    assert CallOptions.of({"tools": tools}).choice == "auto"
    for given, is_parallel in ((False, False), (True, True), (None, True)):
        options = CallOptions.of({"tools": tools, "parallel_tool_calls": given})
        assert options.is_parallel is is_parallel
    assert CallOptions.of({"parallel_tool_calls": False}).is_parallel is False
    off = CallOptions.of({"tools": tools, "tool_choice": "none", "response_format": SCHEMA})
    assert off == CallOptions(schema=SCHEMA)
    nothings: list[dict[str, Any]] = [{}, {"session_id": "s"}, {"tools": None}]
    for nothing in nothings:
        options = CallOptions.of(nothing)
        assert not options.tools
        assert (options.choice, options.is_parallel, options.schema) == ("auto", True, None)


def test_calls_and_results_as_text() -> None:
    assert call_text("a", {"x": "é"}) == (
        '<tool_call>{"name": "a", "arguments": {"x": "é"}}</tool_call>'
    )
    for name, failed, said in (
        ("a", False, '{"name": "a", "content": "é"}'),
        (None, False, '{"content": "é"}'),
        ("", False, '{"content": "é"}'),
        ("a", True, '{"name": "a", "content": "é", "status": "error"}'),
    ):
        text = response_text(name, "é", has_failed=failed)
        assert text == f"<tool_response>{said}</tool_response>"
    assert call_text("a", "</tool_call>") == (
        '<tool_call>{"name": "a", "arguments": "\\u003c/tool_call>"}</tool_call>'
    )


def test_what_cannot_be_bound_is_told_in_short() -> None:
    with pytest.raises(ThinnestRequestError) as raised:
        as_function(10**300)  # type: ignore[arg-type]
    said = str(raised.value)
    assert said.startswith(f"This cannot be bound as a tool: 1{'0' * 199} (")
    assert said.endswith(
        "). Bind a function, a pydantic class, a TypedDict, a LangChain tool, or a dict that "
        "describes one."
    )


@pytest.mark.parametrize(
    "given", [{"type": "function", "function": {}}, {"type": "function", "function": 3}]
)
def test_a_function_without_a_name(given: dict[str, Any]) -> None:
    with pytest.raises(ThinnestRequestError) as raised:
        as_function(given)
    assert str(raised.value) == (
        "A tool of type 'function' cannot be bound: only functions can be called through "
        "thinnest.ai. Give the agent other tools in its settings there."
    )


def test_a_response_format_that_holds_no_schema() -> None:
    with pytest.raises(ThinnestRequestError) as raised:
        CallOptions.of({"response_format": {"type": "json_schema"}})
    assert str(raised.value) == (
        "response_format holds no schema ('json_schema'): pass a pydantic class, a TypedDict, "
        "or a JSON schema with a title."
    )
