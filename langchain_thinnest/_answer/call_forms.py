r"""What stands between `<tool_call>` tags → names and arguments of calls.

Models miss the format in known ways. A call that can be understood without guessing is: as it
stands, then unwrapped, then mended. In doubt, and where arguments were cut, it is none.

| form | example |
|---|---|
| other keys | `parameters`, `args`, `input` for `arguments`; `tool`, `function` for `name` |
| OpenAI's wrapper | `{"type": "function", "function": {"name": ..., "arguments": ...}}` |
| arguments as text | `"arguments": "{\"city\": \"Paris\"}"` |
| several calls | a list, or one object after the other |
| no strict JSON | `{'name': 'f', 'arguments': {'a': True,}}` |
| braces | one too many at the end, or, before a closing tag, the last one missing |
| Qwen's | `<function=f><parameter=city>Paris</parameter></function>` |
| attributes | `<tool_call name="f">{"city": "Paris"}</tool_call>` |
| a prefix | `functions.f`, where a tool `f` is bound |

This module knows nothing of how a text comes, in which pieces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from langchain_thinnest._answer.lenient import (
    load,
    load_mended,
    mended,
    values_in,
    without_fence,
)

ToolSchemas = Mapping[str, Mapping[str, Any]]
Call = tuple[str, dict[str, Any]]

_NAMES = ("name", "tool", "function")
_ARGUMENTS = ("arguments", "parameters", "args", "input")
_WRAPPERS = ("function", "function_call", "tool_call")
_BESIDE = frozenset({*_NAMES, *_ARGUMENTS, "id", "index", "type"})
_PREFIX = "functions."
_ATTRIBUTE = re.compile(r"""\bname\s*=\s*(["']?)([^\s"'<>=]+)\1""")
_FUNCTION = re.compile(r"\s*<function=\s*([^<>\s]+)\s*>(.*?)</function>\s*", re.DOTALL)
_PARAMETER = re.compile(r"\s*<parameter=\s*([^<>\s]+)\s*>(.*?)</parameter>\s*", re.DOTALL)


def read_calls(
    inner: str, tag: str, tools: ToolSchemas, *, is_closed: bool
) -> list[Call] | None:
    """Parse the text between two tags.

    Args:
        inner: The text.
        tag: The tag before it, which may have attributes.
        tools: The parameters of the bound tools by name.
        is_closed: A closing tag came, so nothing is missing but what the agent forgot.

    Returns:
        The calls, or `None` if it cannot be understood as a whole.
    """
    if inner.lstrip().startswith("<function="):
        return _read_markup(inner, tools)
    text = without_fence(inner)
    for candidate in (text, mended(text)):
        values = values_in(candidate)
        if values is None:
            values = values_in(_with_right_end(candidate, is_closed=is_closed))
        if values is not None:
            found = [value for value, _, _ in values]
            return _calls_of(found, tag, tools)
    return None


def bound_name(name: str, tools: ToolSchemas) -> str:
    """Return the bound tool's name that is closest in form to `name`."""
    if name not in tools and name.removeprefix(_PREFIX) in tools:
        return name.removeprefix(_PREFIX)
    return name


def _with_right_end(text: str, *, is_closed: bool) -> str:
    """Return the text with one closing brace less, or one more."""
    text = text.rstrip()
    if not text.endswith("}"):
        return text + "\0"  # no JSON
    if values_in(text[:-1]):
        return text[:-1]
    # What ends with its arguments, as a call does, was not cut within them.
    return text + "}" if is_closed and values_in(text + "}") else text


def _calls_of(values: list[Any], tag: str, tools: ToolSchemas) -> list[Call] | None:
    calls: list[Call] = []
    for value in values:
        if isinstance(value, list) and value and len(values) == 1:
            found = _calls_of(value, tag, tools)
        elif isinstance(value, dict):
            found = _unwrapped(value, tag, tools)
        else:
            found = None
        if found is None:
            return None
        calls += found
    return calls


def _unwrapped(value: dict[str, Any], tag: str, tools: ToolSchemas) -> list[Call] | None:
    for key in _WRAPPERS:
        if isinstance(value.get(key), dict) and value.keys() <= {key, "type", "id", "index"}:
            return _unwrapped(value[key], tag, tools)
    if value.keys() == {"tool_calls"} and isinstance(value["tool_calls"], list):
        return _calls_of(value["tool_calls"], tag, tools)
    attribute = _ATTRIBUTE.search(tag)
    if attribute and not any(isinstance(value.get(key), str) for key in _NAMES):
        name = bound_name(attribute[2], tools)
        if name in tools and value.keys() <= _properties(tools[name]).keys():
            return [(name, value)]
        value = {"name": attribute[2], **value}
    call = _as_call(value, tools)
    return None if call is None else [call]


def _as_call(value: dict[str, Any], tools: ToolSchemas) -> Call | None:
    names = {value[key] for key in _NAMES if isinstance(value.get(key), str)}
    given = [value[key] for key in _ARGUMENTS if key in value]
    if len(names) != 1 or "" in names or any(args != given[0] for args in given):
        return None
    name = bound_name(names.pop(), tools)
    args: Any = given[0] if given else None
    if isinstance(args, str):
        args = load_mended(args) if args.strip() else {}
    elif args is None and value.keys() <= _BESIDE:
        args = {}
    if not isinstance(args, dict) or _is_schema(args, tools.get(name, {})):
        return None
    return name, args


def _is_schema(args: dict[str, Any], parameters: Mapping[str, Any]) -> bool:
    """Whether the arguments are just the tool's schema repeated."""
    return (
        isinstance(args.get("properties"), dict)
        and args.get("type") == "object"
        and "properties" not in _properties(parameters)
    )


def _properties(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    known = parameters.get("properties")
    return known if isinstance(known, Mapping) else {}


def _read_markup(inner: str, tools: ToolSchemas) -> list[Call] | None:
    calls: list[Call] = []
    at = 0
    while at < len(inner):
        function = _FUNCTION.match(inner, at)
        if function is None:
            return None
        at = function.end()
        name = bound_name(function[1], tools)
        args = _markup_args(function[2], tools.get(name, {}))
        if args is None:
            return None
        calls.append((name, args))
    return calls or None


def _markup_args(body: str, parameters: Mapping[str, Any]) -> dict[str, Any] | None:
    if body.lstrip().startswith("{"):
        value = load_mended(body)
        return value if isinstance(value, dict) else None
    args: dict[str, Any] = {}
    at = 0
    while body[at:].strip():
        found = _PARAMETER.match(body, at)
        if found is None or found[1] in args:
            return None
        at = found.end()
        text = found[2].removeprefix("\r").removeprefix("\n")
        text = text.removesuffix("\n").removesuffix("\r")
        known = _properties(parameters)
        try:
            args[found[1]] = _typed(text, known.get(found[1], {"type": "string"}))
        except ValueError:
            return None
    return args


def _typed(text: str, schema: Any) -> Any:
    """Convert a parameter's text to the type that its schema asks for.

    Raises:
        ValueError: If it is none.
    """
    kinds = _kinds(schema)
    if "null" in kinds and text.strip() in ("null", "None"):
        return None
    if "string" in kinds:
        return text
    value = load(text)
    if value is None:
        value = load(mended(text))
    if value is None and text.strip() not in ("null", "None"):
        raise ValueError("it is no JSON")
    return value


def _kinds(schema: Any) -> set[str]:
    """Return the types that a schema allows; `string` where it names none."""
    if not isinstance(schema, Mapping):
        return {"string"}
    kinds: set[str] = set()
    given = schema.get("type")
    kinds.update([given] if isinstance(given, str) else given or ())
    for key in ("anyOf", "oneOf"):
        for choice in schema.get(key) or ():
            kinds |= _kinds(choice)
    for choice in schema.get("enum") or ():
        kinds.add("string" if isinstance(choice, str) else "json")
    if "$ref" in schema or "allOf" in schema:
        kinds.add("json")
    return kinds or {"string"}
