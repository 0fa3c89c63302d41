"""JSON payload → typed event: the five event types of the contract.

| type | fields |
|---|---|
| `text` | `content`: a piece of the answer |
| `tool_call` | `name`, `args`: the agent calls one of its own tools |
| `tool_result` | `name`, `result`: what that tool gave back |
| `done` | `usage`: the answer is complete |
| `error` | `message`: the agent failed while generating |

The vendor's sibling endpoints show dialects of the same stream, which are accepted: text
typed `token` or `content`, its text under `data`; ids on tool events; a `session_id` in
`done`, and `tokens_used` in place of `usage`. An event of an unknown type is skipped, and one
of a known type whose fields cannot be the contract's is an error, since dropping it would lose
a part of the answer.
This module knows nothing of bytes, and not what a sequence of events means.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from langchain_core.messages.ai import UsageMetadata
from pydantic import (
    AliasChoices,
    BeforeValidator,
    Field,
    StrictStr,
    TypeAdapter,
    ValidationError,
)

from langchain_thinnest._answer.sse import read_json
from langchain_thinnest.errors import ThinnestProtocolError

logger = logging.getLogger(__name__)


def as_args(value: object) -> object:
    """Accept no arguments at all, and the JSON text of an object."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return {}
    return read_json(value.encode()) if isinstance(value, str) else value


def as_id(value: object) -> str | None:
    """Take a text or a number; the contract has no ids, so anything else is dropped."""
    return str(value) if isinstance(value, str | int) and value != "" else None


def _as_usage(value: object) -> UsageMetadata | None:
    """Take the three counts; an answer is whole without them, so bad ones are dropped."""
    if not isinstance(value, dict):
        return None
    counts = (_count(value.get(f"{kind}_tokens")) for kind in ("input", "output", "total"))
    spent, made, total = counts
    if spent is None or made is None:
        logger.debug("Dropped a usage whose counts are not numbers of tokens")
        return None
    return UsageMetadata(
        input_tokens=spent,
        output_tokens=made,
        total_tokens=spent + made if total is None else total,
    )


def usage_of(payload: dict[str, Any]) -> UsageMetadata | None:
    """The token counts of a payload; `tokens_used`, which some have instead, is the total."""
    usage = _as_usage(payload.get("usage"))
    total = _count(payload.get("tokens_used"))
    if usage is None and total is not None:
        return UsageMetadata(input_tokens=0, output_tokens=0, total_tokens=total)
    return usage


def _count(value: object) -> int | None:
    """A number of tokens, also as a text or with a fraction of nothing."""
    if isinstance(value, str):
        text = value.strip()
        value = float(text) if re.fullmatch(r"[0-9]{1,15}(\.0*)?", text) else None
    if isinstance(value, float):
        value = int(value) if value.is_integer() else None  # inf and nan are none
    return value if type(value) is int and value >= 0 else None


_Id = Annotated[
    StrictStr | None,
    BeforeValidator(as_id),
    Field(validation_alias=AliasChoices("tool_call_id", "id")),
]


@dataclass(frozen=True, slots=True)
class TextEvent:
    """A piece of the answer's text."""

    content: str


@dataclass(frozen=True, slots=True)
class ToolCallEvent:
    """The agent calls one of its own tools, on the server."""

    name: StrictStr
    args: Annotated[dict[str, Any], BeforeValidator(as_args)]
    id: _Id = None


@dataclass(frozen=True, slots=True)
class ToolResultEvent:
    """What a tool gave back: any JSON value."""

    name: StrictStr
    result: Any = None
    id: _Id = None


@dataclass(frozen=True, slots=True)
class DoneEvent:
    """The answer is complete."""

    usage: Annotated[UsageMetadata | None, BeforeValidator(_as_usage)] = None
    session_id: Annotated[StrictStr | None, BeforeValidator(as_id)] = None


@dataclass(frozen=True, slots=True)
class ErrorEvent:
    """The agent failed while generating."""

    message: str


Event = TextEvent | ToolCallEvent | ToolResultEvent | DoneEvent | ErrorEvent

_REASONS = ("message", "error", "detail", "content", "data", "reason", "msg", "description")
_TEXT_TYPES = frozenset({"text", "token", "content"})
_VALIDATED: dict[str, type] = {
    "tool_call": ToolCallEvent,
    "tool_result": ToolResultEvent,
    "done": DoneEvent,
}


@cache  # made when it is needed: that takes longer than importing this module
def _adapter(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter(_VALIDATED[kind])


def text_of(payload: dict[str, Any]) -> str | None:
    """The text of what is plainly a text event; for all others, there is `parse_event`."""
    if payload.get("type") == "text":
        content = payload.get("content")
        if type(content) is str:
            return content
    return None


def parse_event(payload: dict[str, Any]) -> Event | None:
    """Read one payload as an event.

    Args:
        payload: A JSON object from the stream.

    Returns:
        The event, or `None` for a type that the contract does not know.

    Raises:
        ThinnestProtocolError: If the type is known and the fields are not the contract's.
    """
    kind = payload.get("type")
    if not isinstance(kind, str):
        kind = ""
    if kind in _TEXT_TYPES:
        content = payload.get("content")
        if content is None:
            content = payload.get("data")
        if type(content) is str:
            return TextEvent(content)
        raise _not_the_contract(kind, "content: is not a string")
    if kind == "error" or ("type" not in payload and _is_error(payload)):
        return ErrorEvent(error_message(payload))
    if kind not in _VALIDATED:
        logger.debug("Skipped a stream event of the unknown type %.40r", kind)
        return None
    try:
        event: Event = _adapter(kind).validate_python(_with_defaults(kind, payload))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    else:
        return event
    raise _not_the_contract(kind, problem)


def _with_defaults(kind: str, payload: dict[str, Any]) -> dict[str, Any]:
    if kind == "tool_call":
        return {"args": None, **payload}
    return {**payload, "usage": usage_of(payload)} if kind == "done" else payload


def _is_error(payload: dict[str, Any]) -> bool:
    """Whether an event without a type says that something failed."""
    return bool(payload.get("error"))


def error_message(payload: dict[str, Any]) -> str:
    """The reason, under whichever key the server has it."""
    said: Any = payload
    for _ in range(4):  # levels
        if not isinstance(said, dict):
            break
        inner = next((said[key] for key in _REASONS if said.get(key)), None)
        if inner is None and said is not payload:
            break
        said = inner
    return (
        said
        if isinstance(said, str)
        else (json.dumps(said, ensure_ascii=False) if said else "the server gave no reason")
    )


def _not_the_contract(kind: str, problem: str) -> ThinnestProtocolError:
    return ThinnestProtocolError(
        f"The stream holds a `{kind}` event that is not the contract's: {problem}"
    )
