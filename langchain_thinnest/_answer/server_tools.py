"""One answer with server-side tools → the messages that an agent loop would have written.

A hosted agent calls its tools within one answer. The histories of LangChain, and of other
providers, have it apart: an AI message that calls, a tool message for each call, and so on.
This module knows nothing of how an answer is fetched.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.messages.tool import ToolCall

from langchain_thinnest._answer.content_blocks import blocks_of
from langchain_thinnest._answer.message import as_tool_message
from langchain_thinnest._names import POSITIONS, PROVIDER, SERVER_TOOLS, SURROUNDINGS


@dataclass
class _Step:
    """One step of an agent loop: its text, its calls, and the results by call id."""

    text: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    results: dict[str, ToolMessage] = field(default_factory=dict)


def expand_server_tools(message: AIMessage) -> list[BaseMessage]:
    """Write an answer as the transcript that an agent loop would have made of it.

    The result is a valid history for any provider: every tool call is answered. A result
    without a call becomes a call without arguments; a call without a result is answered by
    a tool message with `status="error"`. Results that are no strings are written as JSON,
    with the raw value as the tool message's `artifact`.

    Args:
        message: An answer of `ChatThinnest`: from `invoke`, or chunks added up; with string
            or block content. A message without server-side tools comes back alone.

    Returns:
        AI messages (with `tool_calls`) and tool messages by turns. The last AI message keeps
        the answer's id, usage and metadata, and the calls of local tools, which are still to
        be answered.

    Example:
        ```python
        answer = model.invoke("What is new in machine learning?")
        history = [HumanMessage("What is new in machine learning?")]
        history += expand_server_tools(answer)  # AI (tool_calls), tool, AI
        other_model.invoke([*history, HumanMessage("Is that true?")])
        ```
    """
    return expand(message, None)


def expand(message: AIMessage, segment_id: str | None) -> list[BaseMessage]:
    """Expand an answer; with a segment id, the AI messages have the ids that chunks had."""
    base = segment_id or message.id
    steps = _steps(message)
    expanded: list[BaseMessage] = []
    for number, step in enumerate(steps[:-1]):
        ai = AIMessage(
            step.text,
            tool_calls=step.calls,
            id=f"{base}-{number}" if base else None,
            name=message.name,
            response_metadata=_origin(message),
        )
        expanded += [ai, *_answers(step, message)]
    ours = (SERVER_TOOLS, POSITIONS, SURROUNDINGS)
    extra = {k: v for k, v in message.additional_kwargs.items() if k not in ours}
    metadata = {k: v for k, v in message.response_metadata.items() if k != "output_version"}
    last = AIMessage(
        steps[-1].text,
        tool_calls=[*steps[-1].calls, *message.tool_calls],
        invalid_tool_calls=message.invalid_tool_calls,
        id=f"{segment_id}-{len(steps) - 1}" if segment_id else message.id,
        name=message.name,
        additional_kwargs=extra,
        response_metadata=metadata,
        usage_metadata=message.usage_metadata,
    )
    return [*expanded, last, *_answers(steps[-1], message)]


def _steps(message: AIMessage) -> list[_Step]:
    steps = [_Step()]
    step_of: dict[str, _Step] = {}
    was_result = False

    def step(*, is_result: bool) -> _Step:
        """Return the step for the next item: whatever follows a result begins a new one.

        So does what follows a call of which it is known that no result will come.
        """
        nonlocal was_result
        if was_result and not is_result:
            steps.append(_Step())
        was_result = is_result
        return steps[-1]

    for block in blocks_of(message):
        if (text := said_in(block)) is not None:
            step(is_result=False).text += text
        elif block.get("type") == "server_tool_call":
            call = _call_in(block)
            step_of[call["id"] or ""] = now = step(is_result=False)
            now.calls.append(call)
            was_result = block.get("extras", {}).get("unanswered", False)
        elif block.get("type") == "server_tool_result":
            id_ = str(block.get("tool_call_id") or "call")
            name = str(block.get("extras", {}).get("name", "tool"))
            if id_ not in step_of:
                step_of[id_] = now = step(is_result=False)
                now.calls.append(ToolCall(name=name, args={}, id=id_))
            step(is_result=True)
            # Providers want a call's answer right after the call, however late it came.
            step_of[id_].results[id_] = as_tool_message(id_, name, block.get("output"))
        else:  # a local tool's call, which the last message keeps
            step(is_result=False)
    return steps


def _call_in(block: dict[str, Any]) -> ToolCall:
    """Read a server-side call of any provider."""
    args = block.get("args")
    return ToolCall(
        name=str(block.get("name") or "tool"),
        args=args if isinstance(args, dict) else {"input": args} if args else {},
        id=str(block.get("id") or "call"),
    )


def said_in(block: dict[str, Any]) -> str | None:
    """Return the text of a block, or another provider's refusal."""
    if block.get("type") == "non_standard" and isinstance(block.get("value"), dict):
        block = block["value"]
    kind = block.get("type")
    said = block.get("text" if kind == "text" else "refusal")
    return said if kind in ("text", "refusal") and isinstance(said, str) else None


def _answers(step: _Step, message: AIMessage) -> list[ToolMessage]:
    """Return the results in order, and an error for each call that has none."""
    answers = list(step.results.values())
    for call in step.calls:
        id_ = cast("str", call["id"])
        if id_ not in step.results:
            missing = as_tool_message(
                id_, call["name"], "The answer ended without a result of this tool."
            )
            missing.status = "error"
            answers.append(missing)
    for answer in answers:
        answer.response_metadata = _origin(message)
    return answers


def _origin(message: AIMessage) -> dict[str, Any]:
    """Return who wrote the answer and in which session, so that it is not sent again."""
    keys = ("model_provider", "model_name", "session_id")
    known = {k: v for k, v in message.response_metadata.items() if k in keys}
    return {"model_provider": PROVIDER, **known}
