"""Local tools and typed answers as text: the tool protocol as it is written.

The API has no field for either, so what a call asks of the agent goes before its message, if
it asks for anything:

    <tools>
    {"type": "function", "function": {"name": "search", "parameters": {...}}}
    </tools>

    You can call the tools above: ...

    User: What is new?

    Assistant: I will look.
    <tool_call>{"name": "search", "arguments": {"query": "news"}}</tool_call>

    <tool_response>{"name": "search", "content": "Nothing."}</tool_response>

Most models have seen this convention (Hermes). What users and tools say cannot pass for it: a
tag in their text gets a backslash after its `<`, and one in JSON has its `<` as an escape.
How an answer's calls are read is in `_answer/tool_calls.py`.
This module knows nothing of HTTP and of messages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.utils.function_calling import (
    convert_to_json_schema,
    convert_to_openai_tool,
)

from langchain_thinnest._names import CALL_END, CALL_START
from langchain_thinnest.errors import ThinnestRequestError

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

    Tool = Mapping[str, Any] | type | Callable[..., Any] | BaseTool

_TAG = re.compile(
    r"<(?=\\*/?(?:tools|tool_call|tool_response|response_schema)\b)", re.IGNORECASE
)
_FORM = frozenset({"name", "description", "schema", "strict"})
# What LangChain raises for what is neither a tool nor a schema.
NO_SCHEMA = (AttributeError, KeyError, RuntimeError, TypeError, ValueError)
_HOW_TO_CALL = (
    "You can call the tools above: the user runs them and sends back what they give. "
    'To call one, write a JSON object with its "name" and its "arguments" (an object that '
    f"fits its parameters) within {CALL_START}{CALL_END} tags, outside of any code fence. "
    "Then stop and wait for the results."
)


@dataclass(frozen=True)
class CallOptions:
    """Local tools and the form of the answer, as one call asks for them.

    Attributes:
        tools: The tools that it may call, as OpenAI describes them.
        choice: `"auto"`, `"any"`, or the name of the one that it must call.
        is_parallel: It may make several calls in one answer.
        schema: The JSON schema that its answer must fit; an empty one is any object. `None`
            leaves the answer free.
    """

    tools: Sequence[Mapping[str, Any]] = ()
    choice: str = "auto"
    is_parallel: bool = True
    schema: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> CallOptions:
        """Read a call's arguments.

        Raises:
            ThinnestRequestError: If they contradict each other, or make no sense.
        """
        if not arguments.keys() & _ARGUMENTS:
            return _NOTHING_ASKED
        tools = _distinct(as_function(tool) for tool in arguments.get("tools") or ())
        choice = choice_of(arguments.get("tool_choice"), tools)
        return cls(
            tools=tools if choice else (),
            choice=choice or "auto",
            is_parallel=arguments.get("parallel_tool_calls") is not False,
            schema=_schema_of(arguments.get("response_format")),
        )

    @property
    def parameters(self) -> dict[str, Mapping[str, Any]]:
        """The JSON schema of each tool's parameters, by the tool's name."""
        functions = [tool["function"] for tool in self.tools]
        return {f["name"]: f.get("parameters") or {} for f in functions}

    def preamble(self) -> list[str]:
        """Return the paragraphs before the message; none if nothing is asked for."""
        paragraphs: list[str] = []
        if self.tools:
            described = "\n".join(map(_dumps, self.tools))
            paragraphs.append(f"<tools>\n{described}\n</tools>")
            paragraphs.append(f"{_HOW_TO_CALL} {self._what_to_call()}")
        if self.schema:
            schema = _dumps(self.schema)
            paragraphs.append(f"<response_schema>\n{schema}\n</response_schema>")
        if self.schema is not None:
            paragraphs.append(
                ("Once no tool is left to call, answer" if self.tools else "Answer")
                + f" with one JSON {_kind_of(self.schema)} "
                + ("that fits the schema above " if self.schema else "")
                + "and nothing else: no prose, no code fence."
            )
        return paragraphs

    def _what_to_call(self) -> str:
        one = "" if self.is_parallel else " Make one call at most."
        if self.choice == "any":
            return f"You must call at least one of the tools now.{one}"
        if self.choice != "auto":
            return f"You must call the tool {self.choice} now.{one}"
        if one:
            return f"Call none if none helps.{one}"
        return "You may make several calls in one answer; call none if none helps."


_ARGUMENTS = {"parallel_tool_calls", "response_format", "tool_choice", "tools"}
_NOTHING_ASKED = CallOptions()


def as_function(tool: Tool, *, strict: bool | None = None) -> dict[str, Any]:
    """Describe a tool as OpenAI does.

    Args:
        tool: What LangChain takes for one.
        strict: As in `bind_tools`.

    Raises:
        ThinnestRequestError: If it is none, or one that only another provider can run.
    """
    try:
        described = convert_to_openai_tool(tool, strict=strict)
    except NO_SCHEMA as error:
        raise ThinnestRequestError(
            f"This cannot be bound as a tool: {tool!r:.200} ({error!s:.300}). Bind a "
            "function, a pydantic class, a TypedDict, a LangChain tool, or a dict that "
            "describes one."
        ) from error
    if described.get("type") == "function" and "function" not in described:
        keys = ("name", "description", "parameters", "strict")  # as OpenAI's newer API has it
        described = {
            "type": "function",
            "function": {key: described[key] for key in keys if key in described},
        }
    function = described.get("function")
    if not isinstance(function, Mapping) or not function.get("name"):
        raise ThinnestRequestError(
            f"A tool of type {described.get('type')!r} cannot be bound: only functions can be "
            "called through thinnest.ai. Give the agent other tools in its settings there."
        )
    return described


def openai_schema(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Unwrap a JSON schema from OpenAI's forms.

    Returns:
        The schema, with the form's name as its title.
    """
    if schema.get("type") == "json_schema" and "json_schema" in schema:
        schema = schema["json_schema"]
        if not isinstance(schema.get("schema"), Mapping):
            raise ThinnestRequestError(
                'The form {"type": "json_schema", "json_schema": {...}} holds no `schema`.'
            )
    inner = schema.get("schema")
    if not isinstance(inner, Mapping) or not schema.keys() <= _FORM:
        return schema
    named = {"title": schema["name"]} if schema.get("name") else {}
    if schema.get("description"):
        named["description"] = schema["description"]
    return {**inner, **named}


def choice_of(choice: Any, tools: Iterable[Mapping[str, Any]]) -> str | None:
    """Read `tool_choice`, in the forms that LangChain's integrations know.

    Returns:
        `"auto"`, `"any"`, a tool's name, or `None` if no tool is to be called.

    Raises:
        ThinnestRequestError: If no such tool is there, or if it is no such thing at all.
    """
    names = [tool["function"]["name"] for tool in tools]
    if isinstance(choice, Mapping):
        named = choice.get("function", choice)
        choice = named.get("name") or choice.get("type")
    if choice == "none" or choice is False:
        return None
    if choice is None or (choice == "auto" and choice not in names):
        return "auto" if names else None
    if choice is True or choice == "required":
        choice = "any"
    elif not isinstance(choice, str):
        raise ThinnestRequestError(
            f"tool_choice={choice!r} makes no sense: pass 'auto', 'any', 'none', or the name "
            "of a tool."
        )
    if not names:
        raise ThinnestRequestError(
            f"tool_choice={choice!r} asks for a tool, but none is bound."
        )
    if choice != "any" and choice not in names:
        raise ThinnestRequestError(
            f"tool_choice names the tool {choice!r}, which is not bound; bound are: "
            f"{', '.join(names)}."
        )
    return str(choice)


def call_text(name: str | None, arguments: Any) -> str:
    """Write a call of the agent, as it stands in the history."""
    return f"{CALL_START}{_dumps({'name': name, 'arguments': arguments})}{CALL_END}"


def response_text(name: str | None, content: str, *, has_failed: bool) -> str:
    """Write a tool's result."""
    response = {"name": name} if name else {}
    response["content"] = content
    if has_failed:
        response["status"] = "error"
    return f"<tool_response>{_dumps(response)}</tool_response>"


def without_tags(text: str) -> str:
    """Escape the protocol's tags in a text."""
    return _TAG.sub(lambda _: "<\\", text)


def _dumps(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return _TAG.sub(lambda _: "\\u003c", text)


def _kind_of(schema: Mapping[str, Any]) -> str:
    """Return the type that a schema asks for, as one word."""
    kind = schema.get("type", "object")
    return "value" if "enum" in schema or kind not in ("array", "object") else str(kind)


def _distinct(tools: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    by_name: dict[str, dict[str, Any]] = {}
    for tool in tools:
        name = tool["function"]["name"]
        if by_name.setdefault(name, tool) != tool:
            raise ThinnestRequestError(
                f"Two different tools are named {name!r}: the agent could not tell them "
                "apart. Rename one."
            )
    return list(by_name.values())


def _schema_of(response_format: Any) -> Mapping[str, Any] | None:
    if response_format is None:
        return None
    kind = response_format.get("type") if isinstance(response_format, Mapping) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return {}
    try:
        if kind == "json_schema":
            schema: Mapping[str, Any] = response_format["json_schema"]["schema"]
        elif isinstance(response_format, Mapping) and "schema" in response_format:
            schema = openai_schema(response_format)
        else:
            schema = convert_to_json_schema(response_format)
    except NO_SCHEMA as error:
        raise ThinnestRequestError(
            f"response_format holds no schema ({error!s:.300}): pass a pydantic class, a "
            "TypedDict, or a JSON schema with a title."
        ) from error
    return schema
