"""What is asked and answered at each of the vendor's endpoints, as JSON and as events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import NotRequired, TypedDict

from langchain_thinnest.emulator.faults import Cut

Event = dict[str, Any]
CONTRACT = "/chat/stream"
ACCOUNT = "/chat"
AGENT = "/v1/agents/{agent_id}/chat"


class _Body(TypedDict):
    __pydantic_config__ = ConfigDict(strict=True)  # type: ignore[misc]

    agent_id: str
    message: str
    session_id: NotRequired[str]
    metadata: NotRequired[dict[str, Any]]
    stream: NotRequired[bool]


_BODY = TypeAdapter(_Body)


class Received(dict[str, Any]):
    """The body of a request, as it came; `path` is where it came."""

    path: str = CONTRACT


def problems(asked: Any) -> list[dict[str, Any]]:
    """What FastAPI, which the vendor's errors look like, would say of a body."""
    try:
        _BODY.validate_python(asked)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        return [{**problem, "loc": ["body", *problem["loc"]]} for problem in found]
    return []


def as_sibling(event: Event, session_id: str | None) -> Event:
    """An event of the contract as the other two endpoints stream it."""
    if event["type"] == "text":
        return {**event, "type": "content"}
    if event["type"] == "done":
        tokens = (event.get("usage") or {}).get("total_tokens")
        return {"type": "done", "session_id": session_id, "tokens_used": tokens}
    return event


async def as_json(events: AsyncIterator[Event], session_id: str | None) -> AsyncIterator[str]:
    """A whole answer as one JSON object; of an answer that is cut, the first half."""
    answer: Event = {"response": "", "session_id": session_id, "usage": None, "tool_calls": []}
    try:
        async for event in events:
            if event["type"] == "text":
                answer["response"] += event["content"]
            elif event["type"] == "tool_call":
                answer["tool_calls"].append({"name": event["name"], "args": event["args"]})
            elif event["type"] == "tool_result":
                _add_result(answer["tool_calls"], event)
            elif event["type"] == "done":
                answer["usage"] = event.get("usage")
            elif event["type"] == "error":
                answer = {"success": False, "error": event["message"]}
    except Cut:
        text = json.dumps(answer, ensure_ascii=False, default=str)
        yield text[: len(text) // 2]
        raise
    yield json.dumps(answer, ensure_ascii=False, default=str)


def _add_result(calls: list[Event], event: Event) -> None:
    """Results answer calls by name, first called first answered."""
    for call in calls:
        if call["name"] == event["name"] and "result" not in call:
            call["result"] = event["result"]
            return
    calls.append({"name": event["name"], "args": {}, "result": event["result"]})
