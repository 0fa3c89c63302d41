"""LangChain messages → the one string that a request holds as its `message`.

One human message and nothing else goes out byte for byte. A conversation goes out as a
transcript, oldest first, one paragraph for each message, with a label in front:

    System: Answer in one sentence.

    User: What is the capital of France?

    Assistant: Paris.

    Assistant called search: {"query": "population of Paris"}

    Tool (search): 2,102,650

    User (Ada): And of Lyon?

A line inside a message that could be read as a label gets one backslash in front (and one
more if it has some already), so that no text can pass for somebody else's words.

With a session the server remembers, so only what came after the last answer that this
session wrote goes out. With local tools, or a typed answer, what is asked of the agent goes
before all that, and the calls of local tools have a form of their own: `tool_protocol.py`.
What cannot be sent is refused here, before any request.
This module knows nothing of HTTP.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import TypeGuard, cast

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_thinnest._names import PROVIDER, SERVER_TOOLS
from langchain_thinnest._request.tool_protocol import (
    CallOptions,
    call_text,
    response_text,
    without_tags,
)
from langchain_thinnest.errors import ThinnestRequestError

logger = logging.getLogger(__name__)

Expand = Callable[[AIMessage], list[BaseMessage]]
"""Writes an answer as the messages that an agent loop would have made of it."""

# The beginning of a line, by every character that may be read as a line end.
_LINE_START = r"(?:^|(?<=[\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029]))"
_LABEL = re.compile(
    _LINE_START + r"(?=[ \t\xa0]{0,64}\\*(?:System|User|Assistant|Tool)\b[^\n\r:]{0,200}:)",
    re.IGNORECASE,
)
_ROLES = {
    "ai": "Assistant",
    "assistant": "Assistant",
    "developer": "System",
    "human": "User",
    "system": "System",
    "user": "User",
}


def to_text(
    messages: Sequence[BaseMessage],
    session_id: str | None,
    options: CallOptions | None = None,
    *,
    expand: Expand,
    agent_id: str | None = None,
    is_known: bool = False,
    seen: int | None = None,
) -> str:
    """Write messages as the one string to send.

    Args:
        messages: The conversation, oldest first.
        session_id: The session that it is part of, if any.
        options: What is asked of the agent beside: local tools, a typed answer.
        expand: Writes the tools that an answer tells of as messages.
        agent_id: The agent that the session belongs to.
        is_known: This process has spoken in the session before.
        seen: How many of the messages the session has seen. Default: what they say of it.

    Returns:
        What to send as `message`.

    Raises:
        ThinnestRequestError: If there is nothing to say, or something that is not text.
    """
    transcript = _Transcript(_expanded(messages, expand), options or CallOptions())
    if session_id is not None:
        messages = (
            _new_part(messages, session_id, agent_id, is_known=is_known)
            if seen is None
            else messages[seen:]
        )
    return transcript.of(_expanded(messages, expand), session_id)


class _Transcript:
    """Writes the messages of one conversation."""

    def __init__(self, history: Sequence[BaseMessage], options: CallOptions) -> None:
        """Index the calls of the whole history, also of the part that is not sent."""
        self._preamble = options.preamble()
        self._has_tools = bool(options.tools)
        self._calls: dict[str | None, tuple[int, str | None]] = {}  # number and name, by id
        self._on_server: set[str | None] = set()
        for message in history:
            if isinstance(message, AIMessage):
                for call in [*message.tool_calls, *message.invalid_tool_calls]:
                    self._calls[call["id"]] = (len(self._calls), call["name"])
            elif isinstance(message, ToolMessage) and _is_ours(message):
                self._on_server.add(message.tool_call_id)

    def of(self, messages: Sequence[BaseMessage], session_id: str | None) -> str:
        texts = [_text(message) for message in messages]
        if not any(text.strip() for text in texts) and not any(
            map(self._is_local_result, messages)
        ):
            raise ThinnestRequestError(
                "There is nothing to send: "
                + (
                    "no message holds any text."
                    if session_id is None
                    else "no message with text follows the last answer of this session."
                )
            )
        if self._preamble:
            texts = [without_tags(text) for text in texts]
        if len(messages) == 1 and type(messages[0]) is HumanMessage:
            return "\n\n".join([*self._preamble, texts[0]])
        paragraphs = self._preamble[:]
        for message, text in self._in_order_of_calls(zip(messages, texts, strict=True)):
            if self._is_local_result(message):
                paragraphs.append(self._response(message))
            elif isinstance(message, AIMessage):
                paragraphs += self._answer(message, text)
            else:
                paragraphs.append(f"{self._label(message)}: {_escape(text)}")
        return "\n\n".join(paragraphs)

    def _is_local_result(self, message: BaseMessage) -> TypeGuard[ToolMessage]:
        """Whether a message is a local tool's result, to be written in the protocol."""
        return (
            self._has_tools
            and isinstance(message, ToolMessage)
            and message.tool_call_id not in self._on_server
        )

    def _in_order_of_calls(
        self, pairs: Iterable[tuple[BaseMessage, str]]
    ) -> Iterator[tuple[BaseMessage, str]]:
        """Sort results of local tools by their calls, since they are sent without an id."""
        for is_result, group in groupby(pairs, lambda pair: self._is_local_result(pair[0])):
            run = list(group)
            yield from sorted(run, key=self._number) if is_result else run

    def _number(self, pair: tuple[BaseMessage, str]) -> float:
        call_id = cast("ToolMessage", pair[0]).tool_call_id
        return self._calls[call_id][0] if call_id in self._calls else math.inf

    def _name(self, message: ToolMessage) -> str | None:
        return message.name or self._calls.get(message.tool_call_id, (0, None))[1]

    def _response(self, message: ToolMessage) -> str:
        failed = message.status == "error"
        return response_text(self._name(message), _text(message), has_failed=failed)

    def _answer(self, message: AIMessage, text: str) -> list[str]:
        calls: list[str] = []
        paragraphs: list[str] = []
        for call in message.tool_calls:
            if self._has_tools and call["id"] not in self._on_server:
                calls.append(call_text(call["name"], call["args"]))
            else:
                args = json.dumps(call["args"], ensure_ascii=False, default=str)
                if self._preamble:
                    args = without_tags(args)
                paragraphs.append(f"Assistant called {_in_label(call['name'])}: {args}")
        if self._has_tools:
            calls += [call_text(c["name"], c["args"]) for c in message.invalid_tool_calls]
        if calls or text.strip():
            said = [_escape(text)] if text.strip() else []
            paragraphs.insert(0, f"{self._label(message)}: " + "\n".join([*said, *calls]))
        return paragraphs

    def _label(self, message: BaseMessage) -> str:
        if isinstance(message, (ToolMessage, FunctionMessage)):
            name = self._name(message) if isinstance(message, ToolMessage) else message.name
            failed = isinstance(message, ToolMessage) and message.status == "error"
            label = f"Tool ({_in_label(name)})" if name else "Tool"
            return f"{label} failed" if failed else label
        if isinstance(message, SystemMessage):
            label = "System"
        elif isinstance(message, HumanMessage):
            label = "User"
        elif isinstance(message, AIMessage):
            label = "Assistant"
        elif isinstance(message, ChatMessage):
            return _ROLES.get(message.role) or f"User ({_in_label(message.role)})"
        else:
            raise ThinnestRequestError(
                f"A message of type {message.type!r} has no place in a conversation to send."
            )
        return f"{label} ({_in_label(message.name)})" if message.name else label


def _new_part(
    messages: Sequence[BaseMessage], session_id: str, agent_id: str | None, *, is_known: bool
) -> Sequence[BaseMessage]:
    """Return the messages that the session has not seen: all, if that is unknown."""
    for at in range(len(messages) - 1, -1, -1):
        if _is_written_by(messages, at, session_id, agent_id):
            return messages[at + 1 :]
    answers = [message for message in messages if isinstance(message, AIMessage)]
    if is_known and not any(message.response_metadata for message in answers):
        # A page that keeps only role and text: what it keeps is this session's own.
        for at in range(len(messages) - 1, -1, -1):
            message = messages[at]
            if isinstance(message, AIMessage) and not message.tool_calls:
                return messages[at + 1 :]
    return messages


def _is_written_by(
    messages: Sequence[BaseMessage], at: int, session_id: str, agent_id: str | None
) -> bool:
    """Whether this session of this agent wrote a message, or a tool that its agent ran."""
    message = messages[at]
    if not isinstance(message, (AIMessage, ToolMessage)):
        return False
    if message.response_metadata.get("session_id") != session_id:
        return False
    return agent_id is None or _agent_of(messages, at, session_id) in (agent_id, None)


def _agent_of(messages: Sequence[BaseMessage], at: int, session_id: str) -> str | None:
    """Return the agent that wrote a message; 0.1 noted it only in the last of a turn."""
    for part in (messages[at:], messages[at::-1]):
        for message in part:
            if message.response_metadata.get("session_id") != session_id:
                break
            if name := message.response_metadata.get("model_name"):
                return str(name)
    return None


def _expanded(messages: Sequence[BaseMessage], expand: Expand) -> list[BaseMessage]:
    """Expand the server tools of answers into messages of their own."""
    apart: list[BaseMessage] = []
    for message in messages:
        if isinstance(message, AIMessage) and (
            _is_ours(message) or SERVER_TOOLS in message.additional_kwargs
        ):
            apart += expand(message)
        elif isinstance(message, AIMessage) and _has_foreign_tools(message):
            apart += _foreign_steps(message, expand)
        else:
            apart.append(message)
    return apart


def _has_foreign_tools(message: AIMessage) -> bool:
    """Whether another provider's answer has standard blocks of server tools."""
    if not isinstance(message.content, list):
        return False
    try:
        return any(block["type"] == "server_tool_call" for block in message.content_blocks)
    except Exception:  # noqa: BLE001 - a provider's translator met what it does not know
        return False


def _foreign_steps(message: AIMessage, expand: Expand) -> list[BaseMessage]:
    steps = expand(message)
    names = {
        c["id"]: c["name"] for s in steps if isinstance(s, AIMessage) for c in s.tool_calls
    }
    for step in steps:
        step.response_metadata = {**step.response_metadata, "model_provider": PROVIDER}
        if isinstance(step, ToolMessage):
            step.name = names.get(step.tool_call_id, step.name)
    return steps


def _is_ours(message: BaseMessage) -> bool:
    return message.response_metadata.get("model_provider") == PROVIDER


def tool_call_ids(messages: Sequence[BaseMessage], expand: Expand) -> set[str]:
    """The ids of all tool calls that a conversation has had."""
    ids: set[str] = set()
    for message in _expanded(messages, expand):
        if isinstance(message, ToolMessage):
            ids.add(message.tool_call_id)
    return ids


def _text(message: BaseMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    texts: list[str] = []
    for block in message.content:
        if isinstance(block, str):
            texts.append(block)
            continue
        kind = block.get("type")
        if kind == "text" and isinstance(block.get("text"), str):
            texts.append(block["text"])
        elif kind == "refusal" and isinstance(message, AIMessage):
            texts.append(str(block.get("refusal") or ""))
        elif isinstance(message, AIMessage):
            logger.debug("Left out a block of type %.40r of an earlier answer", kind)
        else:
            raise ThinnestRequestError(
                f"A {message.type} message holds a content block of type {kind!r}. "
                "The thinnest.ai API takes text alone: send text blocks only."
            )
    return "".join(texts)


def _in_label(name: str) -> str:
    """Clean a name for a label: on one line, without a colon or brackets."""
    return re.sub(r"[^\w.-]+", " ", name).strip()[:64]


def _escape(text: str) -> str:
    return _LABEL.sub(lambda _: "\\", text)
