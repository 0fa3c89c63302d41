"""Typed answers: what `with_structured_output` binds, and how it reads the answer.

An answer holds its object as the arguments of a call, or as text: alone, in a code fence, or
in the middle of prose. What is whole is taken, and what is not is never mended: a truncated
answer is no answer. While an answer streams, what there is of the object is given as it grows.
This module knows nothing of how an answer is fetched.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Literal, cast

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.output_parsers.transform import BaseTransformOutputParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable, RunnableGenerator
from langchain_core.runnables.utils import AddableDict
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.json import parse_partial_json
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel
from typing_extensions import override

from langchain_thinnest._tool_protocol import NO_SCHEMA
from langchain_thinnest.errors import ThinnestRequestError

Method = Literal["json_schema", "function_calling", "json_mode"]
Schema = Mapping[str, Any] | type

_NO_PARAMETERS = ("title", "description")
_OBJECT_START = re.compile(r"\{\s*(?:[\"}]|\Z)")
_DECODER = json.JSONDecoder(strict=False)
_TYPES: dict[str, type | tuple[type, ...]] = {
    "array": list,
    "boolean": bool,
    "integer": int,
    "null": type(None),
    "number": (int, float),
    "object": dict,
    "string": str,
}


def typed_answer(
    schema: Schema | None, method: Method, *, strict: bool | None
) -> tuple[dict[str, Any], ObjectParser]:
    """What to ask of the agent, and what reads its answer.

    Returns:
        The arguments of calls, and the parser.

    Raises:
        ThinnestRequestError: If the schema is none.
        ValueError: If the method is unknown.
    """
    arguments: dict[str, Any]
    if method not in ("json_schema", "function_calling", "json_mode"):
        raise ValueError(
            f"method={method!r} is unknown: it is 'json_schema', 'function_calling' or "
            "'json_mode'."
        )
    if schema is None and method != "json_mode":
        raise ThinnestRequestError(f"method={method!r} needs a schema; 'json_mode' does not.")
    described = {} if schema is None else _json_schema(schema, strict=strict)
    title = described.get("title", "a JSON object")
    if method == "json_mode":
        arguments = {"response_format": {"type": "json_object"}}
    elif method == "json_schema":
        form = {"name": title, "schema": described}
        arguments = {"response_format": {"type": "json_schema", "json_schema": form}}
    else:
        function: dict[str, Any] = {
            "name": title,
            "description": described.get("description", ""),
            "parameters": {k: v for k, v in described.items() if k not in _NO_PARAMETERS},
        }
        if strict is not None:
            function["strict"] = strict
        arguments = {
            "tools": [{"type": "function", "function": function}],
            "tool_choice": title,
            "parallel_tool_calls": False,
        }
    arguments["ls_structured_output_format"] = {
        "kwargs": {"method": method, "strict": strict},
        "schema": schema,
    }
    model = schema if isinstance(schema, type) and is_basemodel_subclass(schema) else None
    return arguments, ObjectParser(title=title, answer_schema=described, model=model)


class ObjectParser(BaseTransformOutputParser[Any]):
    """Reads the object that an answer holds, of whichever method."""

    title: str
    """The name of the schema, and of the tool that takes it."""

    answer_schema: dict[str, Any] | None = None
    """The JSON schema to fit; `None` for any object."""

    model: Any = None
    """The pydantic class to make of the object; `None` to leave it a dict."""

    @override
    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        generation = result[0]
        if isinstance(generation, ChatGeneration):
            message = generation.message
        else:
            message = AIMessage(generation.text)
        return self.partial(message) if partial else self.whole(message)

    @override
    def parse(self, text: str) -> Any:
        return self.whole(AIMessage(text))

    @override
    def _transform(self, input: Iterator[str | BaseMessage]) -> Iterator[Any]:
        growing = _Growing(self)
        for chunk in input:
            yield from growing.add(chunk)
        yield from growing.end()

    @override
    async def _atransform(self, input: AsyncIterator[str | BaseMessage]) -> AsyncIterator[Any]:
        growing = _Growing(self)
        async for chunk in input:
            for value in growing.add(chunk):
                yield value
        for value in growing.end():
            yield value

    def whole(self, message: BaseMessage) -> Any:
        """Read a whole answer.

        Raises:
            OutputParserException: If it holds no object that fits. Its `llm_output` is what
                the agent wrote.
        """
        raw, found = str(message.text), self._args(message)
        for call in getattr(message, "invalid_tool_calls", ()):
            raw = raw or call["args"] or ""
        problem = "holds no whole JSON object"
        if found is not None:
            raw = raw or json.dumps(found, ensure_ascii=False)
        for value in _objects(message.text) if found is None else [found]:
            try:
                return self._fit(value)
            except ValueError as error:
                problem = f"does not fit {self.title}: {error}"
        raise OutputParserException(f"The answer {problem}. It was: {raw}", llm_output=raw)

    def partial(self, message: BaseMessage) -> Any:
        """Read as much as there is of an answer; `None` if that is nothing yet."""
        value = self._args(message)
        if value is None and (start := _OBJECT_START.search(message.text)):
            text = message.text[start.start() :]
            try:
                value = _DECODER.raw_decode(text)[0]
            except (ValueError, RecursionError):
                with contextlib.suppress(ValueError, RecursionError):
                    value = parse_partial_json(text)
        if not isinstance(value, dict) or not value:
            return None
        if self.model is None:
            return value
        try:
            return self._fit(value)
        except ValueError:
            return None

    def _args(self, message: BaseMessage) -> dict[str, Any] | None:
        calls = message.tool_calls if isinstance(message, AIMessage) else []
        return next((call["args"] for call in calls if call["name"] == self.title), None)

    def _fit(self, value: dict[str, Any]) -> Any:
        if self.model is None:
            if self.answer_schema and (misfit := _misfit(value, self.answer_schema)):
                raise ValueError(misfit)
            return value
        if issubclass(self.model, BaseModel):
            return self.model.model_validate(value)
        return self.model.parse_obj(value)  # pydantic's first version


def _json_schema(schema: Schema, *, strict: bool | None = None) -> dict[str, Any]:
    """Write a pydantic class, a `TypedDict` or a dict as a JSON schema with a title."""
    if isinstance(schema, Mapping):
        schema = dict(schema)
        if not schema.keys() & {"name", "function", "toolSpec"}:  # other forms of a tool
            schema = {"title": "Answer", **schema}
            if not strict:  # it is one: the framework's way would drop parts of it
                return schema
    try:
        return convert_to_json_schema(schema, strict=strict)
    except NO_SCHEMA as error:
        raise ThinnestRequestError(
            f"{schema!r:.200} is no schema ({error!s:.300}): pass a pydantic class, a "
            "TypedDict, or a JSON schema."
        ) from error


class _Growing:
    """What a parser makes of an answer as it comes."""

    def __init__(self, parser: ObjectParser) -> None:
        self._parser = parser
        self._message: BaseMessage | None = None
        self._value: Any = None

    def add(self, chunk: str | BaseMessage) -> Iterator[Any]:
        message = AIMessageChunk(content=chunk) if isinstance(chunk, str) else chunk
        if self._message is not None:
            message = cast("BaseMessage", self._message + message)
        self._message = message
        yield from self._new(self._parser.partial(message))

    def end(self) -> Iterator[Any]:
        """The object, or the error that there is none."""
        if self._message is not None:
            yield from self._new(self._parser.whole(self._message))

    def _new(self, value: Any) -> Iterator[Any]:
        if value is not None and value != self._value:
            self._value = value
            yield value


def with_raw(parser: ObjectParser) -> Runnable[BaseMessage, Any]:
    """Make of an answer the answer itself, its object, and what was wrong with it, if so."""

    def outcome(message: BaseMessage | None) -> AddableDict:
        parsed, problem = None, None
        try:
            parsed = message and parser.whole(message)
        except OutputParserException as error:
            problem = error
        return AddableDict(parsed=parsed, parsing_error=problem)

    def read(chunks: Iterator[BaseMessage]) -> Iterator[AddableDict]:
        message: Any = None
        for chunk in chunks:
            message = chunk if message is None else message + chunk
            yield AddableDict(raw=chunk)
        yield outcome(message)

    async def aread(chunks: AsyncIterator[BaseMessage]) -> AsyncIterator[AddableDict]:
        message: Any = None
        async for chunk in chunks:
            message = chunk if message is None else message + chunk
            yield AddableDict(raw=chunk)
        yield outcome(message)

    return RunnableGenerator(read, aread, name="ObjectParserWithRaw")


def _objects(text: str) -> list[dict[str, Any]]:
    """The JSON objects in a text, the longest first; none if one of them was cut off."""
    found: list[tuple[int, dict[str, Any]]] = []
    end = len(text.rstrip())
    try:
        if not isinstance(_DECODER.decode(text), dict):
            return []  # a list of objects, say, is none
    except (ValueError, RecursionError):
        pass
    at = 0
    while (at := text.find("{", at)) >= 0:
        try:
            value, after = _DECODER.raw_decode(text, at)
        except json.JSONDecodeError as error:
            if error.pos >= end or error.msg.startswith("Unterminated"):
                return []
            at = max(error.pos, at + 1)  # an object within a broken one is no answer
        except (ValueError, RecursionError):
            return []
        else:
            found.append((after - at, value))
            at = after
    found.sort(key=lambda pair: -pair[0])
    return [value for _, value in found]


def _misfit(value: Any, schema: Mapping[str, Any], where: str = "it") -> str | None:
    """What is plainly wrong with a value, if anything: types, required keys, choices.

    Not a validator: what it does not know, it lets pass.
    """
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    if types and not any(_is_of(value, name) for name in types):
        return f"{where} should be of type {' or '.join(types)}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{where} should be one of {schema['enum']}"
    parts: list[tuple[Any, Mapping[str, Any], str]] = []
    if isinstance(value, dict):
        missing = [key for key in schema.get("required", ()) if key not in value]
        if missing:
            return f"{where} lacks {', '.join(map(repr, missing))}"
        known = schema.get("properties", {})
        parts = [(value[key], known[key], repr(key)) for key in known if key in value]
    elif isinstance(value, list) and isinstance(schema.get("items"), Mapping):
        parts = [(item, schema["items"], f"an item of {where}") for item in value]
    return next((misfit for part in parts if (misfit := _misfit(*part))), None)


def _is_of(value: Any, name: str) -> bool:
    if isinstance(value, bool):  # which Python takes for an integer
        return name == "boolean"
    return isinstance(value, _TYPES.get(name, object))
