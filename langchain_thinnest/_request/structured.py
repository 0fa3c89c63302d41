"""Typed answers: what `with_structured_output` asks for.

How the answer is read is in `_answer/typed.py`.
This module knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import RootModel

from langchain_thinnest._names import BOXED
from langchain_thinnest._request.tool_protocol import NO_SCHEMA, openai_schema
from langchain_thinnest.errors import ThinnestRequestError

Method = Literal["json_schema", "function_calling", "json_mode"]
Schema = Mapping[str, Any] | type

_NO_PARAMETERS = ("title", "description")


@dataclass(frozen=True)
class TypedAnswer:
    """What to ask for, and what an answer must be.

    Attributes:
        arguments: The arguments of calls.
        title: The name of the schema, and of the tool that takes it.
        schema: The JSON schema to fit; an empty one is any object.
        model: The pydantic class to make of the object; `None` to leave it a dict.
    """

    arguments: dict[str, Any]
    title: str
    schema: dict[str, Any]
    model: type | None

    @property
    def is_object(self) -> bool:
        """Whether an object is asked for, as far as the schema says."""
        return _is_object(self.schema)


def typed_answer(schema: Schema | None, method: Method, *, strict: bool | None) -> TypedAnswer:
    """Make the arguments of calls for a typed answer, and describe the answer.

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
    if isinstance(schema, Mapping):
        schema = openai_schema(schema)
    described = {} if schema is None else _json_schema(schema, strict=strict)
    title = described.get("title", "a JSON object")
    if method == "json_mode":
        arguments = {"response_format": {"type": "json_object"}}
    elif method == "json_schema":
        form = {"name": title, "schema": described}
        arguments = {"response_format": {"type": "json_schema", "json_schema": form}}
    else:
        parameters = {k: v for k, v in described.items() if k not in _NO_PARAMETERS}
        function: dict[str, Any] = {
            "name": title,
            "description": described.get("description", ""),
            "parameters": parameters if _is_object(described) else _boxed(parameters),
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
    return TypedAnswer(arguments, title, described, model)


def _is_object(schema: Mapping[str, Any]) -> bool:
    """Whether a schema asks for an object, as far as it says."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return _is_object(schema.get("$defs", {}).get(name, {}))
    kind = schema.get("type")
    return "enum" not in schema and (kind in (None, "object") or "object" in kind)


def _boxed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Wrap a schema that is no object into the one parameter of a tool."""
    inner = {key: value for key, value in schema.items() if key != "$defs"}
    box: dict[str, Any] = {"type": "object", "properties": {BOXED: inner}, "required": [BOXED]}
    return {**box, "$defs": schema["$defs"]} if "$defs" in schema else box


def _json_schema(schema: Schema, *, strict: bool | None = None) -> dict[str, Any]:
    """Write a pydantic class, a `TypedDict` or a dict as a JSON schema with a title."""
    if isinstance(schema, type) and issubclass(schema, RootModel):
        return {"title": schema.__name__, **schema.model_json_schema()}
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
