"""What is asked and answered at each of the vendor's endpoints, as JSON and as events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import NotRequired, TypedDict

from langchain_thinnest.emulator.faults import Cut, Event

CONTRACT, ACCOUNT, AGENT = "/chat/stream", "/chat", "/v1/agents/{agent_id}/chat"


class _Body(TypedDict):
    __pydantic_config__ = ConfigDict(strict=True)  # type: ignore[misc]

    agent_id: str
    message: str
    session_id: NotRequired[str]
    metadata: NotRequired[dict[str, Any]]
    stream: NotRequired[bool]


_BODY = TypeAdapter(_Body)
_json = partial(json.dumps, ensure_ascii=False, default=str)


class Received(dict[str, Any]):
    """The body of a request, as it came; `path` is where it came."""

    path: str = CONTRACT


def read(body: bytes, in_path: Mapping[str, str]) -> tuple[Any, list[Event]]:
    """What is asked, and what is wrong with it, as FastAPI and so the vendor would say it."""
    try:
        asked = json.loads(body)
        asked = {**asked, **in_path} if isinstance(asked, dict) else asked
        return _BODY.validate_python(asked), []
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        return None, [{**problem, "loc": ["body", *problem["loc"]]} for problem in found]
    except ValueError:
        return None, [{"loc": ["body"], "msg": "JSON decode error", "type": "json_invalid"}]


async def as_stream(
    events: AsyncIterator[Event], sibling: str | None, end: str
) -> AsyncIterator[str]:
    """An answer as the contract streams it, or as the other endpoints do, with a session."""
    async for event in events:
        told = event
        if sibling and event["type"] == "text":
            told = {**event, "type": "content"}
        elif sibling and event["type"] == "done":
            tokens = (event.get("usage") or {}).get("total_tokens")
            told = {"type": "done", "session_id": sibling, "tokens_used": tokens}
        yield f"data: {_json(told)}{end}"


async def as_json(events: AsyncIterator[Event], session_id: str | None) -> AsyncIterator[str]:
    """A whole answer as one JSON object; of an answer that is cut, the first half."""
    calls: list[Event] = []
    answer: Event = {"response": "", "session_id": session_id, "tool_calls": calls}
    try:
        async for event in events:
            if event["type"] == "text":
                answer["response"] += event["content"]
            elif event["type"] == "tool_call":
                calls.append({"name": event["name"], "args": event["args"]})
            elif event["type"] == "tool_result":  # answers calls by name, the first one first
                name = event["name"]
                waiting = (c for c in calls if c["name"] == name and "result" not in c)
                if (call := next(waiting, None)) is None:
                    calls.append(call := {"name": name, "args": {}})
                call["result"] = event["result"]
            elif event["type"] == "done":
                answer["usage"] = event.get("usage")
            elif event["type"] == "error":
                answer = {"success": False, "error": event["message"]}
    except Cut:
        yield _json(answer)[: len(_json(answer)) // 2]
        raise
    yield _json(answer)
