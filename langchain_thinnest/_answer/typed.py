"""Typed answers: how the object that `with_structured_output` asked for is read.

An answer holds its object as the arguments of a call, or as text: alone, in a code fence, or
in the middle of prose. Of several, the first counts that fits without unknown keys as it
stands, then unwrapped (a call, a list of one, the schema's name around it), then one with
unknown keys. What is cut is never taken for whole: a truncated answer is no answer. While an
answer streams, what there is of the object is given as it grows. How the JSON is found in a
text is in `json_in_text.py`.
This module knows nothing of how an answer is fetched.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, cast

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.output_parsers.transform import BaseTransformOutputParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable, RunnableGenerator
from langchain_core.runnables.utils import AddableDict
from langchain_core.utils.json import parse_partial_json
from pydantic import BaseModel
from typing_extensions import override

from langchain_thinnest._answer.json_in_text import json_values
from langchain_thinnest._answer.lenient import load_mended
from langchain_thinnest._names import BOXED

_ARGUMENTS = ("arguments", "parameters", "args", "input")
_SCHEMA_KEYS = frozenset({"properties", "type", "title", "description", "required"})
_DEEPEST = 4  # levels of wrapping
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


class ObjectParser(BaseTransformOutputParser[Any]):
    """Reads the object that an answer holds, of whichever method."""

    title: str
    """The name of the schema, and of the tool that takes it."""

    answer_schema: dict[str, Any] | None = None
    """The JSON schema to fit; `None` for any object."""

    model: Any = None
    """The pydantic class to make of the object; `None` to leave it a dict."""

    wants_object: bool = True
    """Whether the schema asks for an object, and not for a list, a number or a text."""

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
        problem = "holds no whole JSON " + ("object" if self.wants_object else "value")
        if found is not None:
            raw = raw or json.dumps(found, ensure_ascii=False)
            values = [found]
        else:
            values = self._values(message.text)
        for value, is_strange in self._in_order(values):
            try:
                return self._fit(value)
            except Exception as error:  # noqa: BLE001 - a validator may raise what it likes
                if not is_strange or "does not fit" not in problem:
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
        if not isinstance(value, dict) or not value or not self.wants_object:
            return None
        if self._may_be_a_call(value):
            return None  # which the next words may show
        known = [v for v in self._unwrapped(value) if not self._is_strange(v)]
        if not known or not isinstance(known[0], dict) or not known[0]:
            return None
        if self.model is None:
            return known[0]
        try:
            return self._fit(known[0])
        except Exception:  # noqa: BLE001 - it is not whole yet
            return None

    @property
    def _known(self) -> frozenset[str] | None:
        """The allowed keys of an object; `None` where the schema does not limit them."""
        schema = self.answer_schema or {}
        if not schema.get("properties") or schema.get("additionalProperties") not in (
            None,
            False,
        ):
            return None
        return frozenset(schema["properties"]) | frozenset(_field_names(self.model))

    def _args(self, message: BaseMessage) -> Any:
        calls = message.tool_calls if isinstance(message, AIMessage) else []
        args = next((call["args"] for call in calls if call["name"] == self.title), None)
        if args is not None and not self.wants_object and args.keys() == {BOXED}:
            return args[BOXED]
        return args

    def _values(self, text: str) -> list[Any]:
        """Return the JSON values in a text that may be the answer."""
        whole = load_mended(text)
        if self.wants_object:
            values = json_values(whole if isinstance(whole, str) else text)
            if not self.answer_schema:
                values = [value for value in values if isinstance(value, dict)]
                values.sort(key=lambda value: -len(json.dumps(value)))
            return values
        if isinstance(whole, (str, int, float, bool)):
            return [whole]
        if text.strip() in (self.answer_schema or {}).get("enum", ()):
            return [text.strip()]
        return json_values(text)

    def _in_order(self, values: list[Any]) -> Iterator[tuple[Any, bool]]:
        """Yield candidates, the likeliest first, and whether each has unknown keys."""
        known = [value for value in values if not self._is_strange(value)]
        yield from ((value, False) for value in known)
        for value in values:
            for inner in [*self._unwrapped(value)][1:]:
                if not self._is_strange(inner):
                    yield inner, False
        for value in values:
            if self._is_strange(value) and not self._is_call(value):
                yield value, True

    def _is_strange(self, value: Any) -> bool:
        """Whether it is an object with keys that the schema does not know."""
        if not self.wants_object or self._known is None:
            return self.wants_object and not isinstance(value, dict)
        return not isinstance(value, dict) or not value.keys() <= self._known

    def _is_call(self, value: Any) -> bool:
        """Whether an object is a tool call, and no answer."""
        return (
            isinstance(value, dict)
            and not {"name", "arguments"} <= (self._known or frozenset())
            and isinstance(value.get("name"), str)
            and any(key in value for key in _ARGUMENTS if key not in (self._known or ()))
        )

    def _may_be_a_call(self, value: dict[str, Any]) -> bool:
        """Whether a partial object may become a call of the schema's tool."""
        name = value.get("name")
        return (
            value.keys() == {"name"}
            and isinstance(name, str)
            and self.title.startswith(name)
            and not {"name", "arguments"} <= (self._known or frozenset())
        )

    def _unwrapped(self, value: Any, depth: int = 0) -> Iterator[Any]:
        """Yield a value, and what it may wrap."""
        yield value
        inner: Any = None
        if isinstance(value, list) and len(value) == 1 and self.wants_object:
            inner = value[0]
        elif isinstance(value, str):
            inner = load_mended(value)
        elif isinstance(value, dict) and len(value) == 1:
            key, content = next(iter(value.items()))
            if key.casefold() == self.title.casefold() or (
                key == BOXED and not self.wants_object
            ):
                inner = content
        if isinstance(value, dict) and inner is None:
            if self._is_call(value) and value["name"] == self.title:
                given = [value[key] for key in _ARGUMENTS if key in value]
                inner = given[0] if all(args == given[0] for args in given) else None
            elif isinstance(value.get("function"), dict) and (
                value.keys() <= {"type", "function", "id"}
            ):
                inner = value["function"]
            elif value.keys() <= _SCHEMA_KEYS and isinstance(value.get("properties"), dict):
                echo = (self.answer_schema or {}).get("properties")
                inner = None if value["properties"] == echo else value["properties"]
        if inner is not None and depth < _DEEPEST:
            yield from self._unwrapped(inner, depth + 1)

    def _fit(self, value: Any) -> Any:
        if self.model is None:
            schema = self.answer_schema
            if schema and (misfit := _misfit(value, schema, schema)):
                raise ValueError(misfit)
            return value
        if issubclass(self.model, BaseModel):
            return self.model.model_validate(value)
        return self.model.parse_obj(value)  # pydantic's first version


def _field_names(model: Any) -> Iterator[str]:
    """Yield the names of fields that are not in a class's JSON schema."""
    fields = getattr(model, "model_fields", None) or getattr(model, "__fields__", {})
    for name, field in fields.items():
        yield name
        alias = getattr(field, "validation_alias", None)
        yield from (a for a in getattr(alias, "choices", [alias]) if isinstance(a, str))


class _Growing:
    """Parses an answer while it streams."""

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
    """Make a runnable that returns the message, its object, and the parsing error, if any."""

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


def _misfit(  # noqa: C901
    value: Any, schema: Mapping[str, Any], root: Mapping[str, Any], where: str = "it"
) -> str | None:
    """Return what is plainly wrong with a value: types, required keys, choices.

    Not a validator: what it does not know, it lets pass.
    """
    if isinstance(schema.get("$ref"), str):
        name = schema["$ref"].rpartition("/")[2]
        schema = root.get("$defs", root.get("definitions", {})).get(name, {})
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        misfits = [_misfit(value, choice, root, where) for choice in choices]
        if None not in misfits:
            return misfits[0]
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    if types and not any(_is_of(value, name) for name in types):
        return f"{where} should be of type {' or '.join(types)}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{where} should be one of {schema['enum']}"
    if "const" in schema and value != schema["const"]:
        return f"{where} should be {schema['const']!r}"
    parts: list[tuple[Any, Mapping[str, Any], str]] = []
    if isinstance(value, dict):
        missing = [key for key in schema.get("required", ()) if key not in value]
        if missing:
            return f"{where} lacks {', '.join(map(repr, missing))}"
        known = schema.get("properties", {})
        unknown = [key for key in value if key not in known]
        if unknown and schema.get("additionalProperties") is False:
            return f"{where} has the unknown keys {', '.join(map(repr, unknown))}"
        parts = [(value[key], known[key], repr(key)) for key in known if key in value]
    elif isinstance(value, list) and isinstance(schema.get("items"), Mapping):
        parts = [(item, schema["items"], f"an item of {where}") for item in value]
    found = (_misfit(part, its, root, name) for part, its, name in parts)
    return next((misfit for misfit in found if misfit), None)


def _is_of(value: Any, name: str) -> bool:
    if isinstance(value, bool):  # which Python takes for an integer
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()  # as JSON schema has it: 3.0 is one
    return isinstance(value, _TYPES.get(name, object))
