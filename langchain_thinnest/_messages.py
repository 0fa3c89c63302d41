"""LangChain messages → the request, whose `message` is one string.

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
session wrote goes out. What cannot be sent is refused here, before any request.
This module knows nothing of HTTP.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_thinnest._answer import PROVIDER
from langchain_thinnest._server_tools import expand_server_tools
from langchain_thinnest.errors import ThinnestRequestError

# Whatever a reader, man or model, may take for the beginning of a line.
_LINE_START = r"(?:^|(?<=[\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029]))"
_LABEL = re.compile(
    _LINE_START + r"(?=[ \t\xa0]{0,64}\\*(?:System|User|Assistant|Tool)\b[^\n\r:]{0,200}:)",
    re.IGNORECASE,
)
# Blocks of an earlier answer that are no words of it: how it was thought out, and the calls
# that `tool_calls` or the tool messages after it show.
_SILENT_BLOCKS = frozenset(
    {
        "function_call",
        "invalid_tool_call",
        "reasoning",
        "redacted_thinking",
        "server_tool_call",
        "server_tool_call_chunk",
        "server_tool_result",
        "server_tool_use",
        "thinking",
        "tool_call",
        "tool_call_chunk",
        "tool_use",
    }
)
_ROLES = {
    "ai": "Assistant",
    "assistant": "Assistant",
    "developer": "System",
    "human": "User",
    "system": "System",
    "user": "User",
}


@dataclass(frozen=True)
class Request:
    """The body of one request; a field that is not set is left out, never sent as null.

    Attributes:
        agent_id: The agent to ask.
        message: The one string to send.
        session_id: The server-side memory that the message belongs to.
        metadata: Context for the agent, such as who asks, from which page.
    """

    agent_id: str
    message: str
    session_id: str | None = None
    metadata: Mapping[str, Any] | None = None

    def body(self) -> bytes:
        """Write the request as JSON.

        Raises:
            ThinnestRequestError: If it cannot be written as UTF-8 JSON.
        """
        fields: dict[str, Any] = {"agent_id": self.agent_id, "message": self.message}
        if self.session_id is not None:
            fields["session_id"] = self.session_id
        if self.metadata is not None:
            fields["metadata"] = self.metadata
        try:
            text = json.dumps(fields, ensure_ascii=False, allow_nan=False)
            return text.encode()
        except UnicodeEncodeError as error:
            problem = (
                "the text holds a lone surrogate (half of a character, "
                f"{error.object[error.start]!a}), which UTF-8 cannot carry"
            )
        except (TypeError, ValueError, RecursionError) as error:
            problem = f"request_metadata cannot be written as JSON ({error})"
        raise ThinnestRequestError(f"The request cannot be sent: {problem}.")


def checked_id(name: str, value: object) -> str:
    """Check an id that goes into a request.

    Args:
        name: The field's name, for the error.
        value: The id; a number or a UUID is taken as its text.

    Returns:
        The id as a string.

    Raises:
        ThinnestRequestError: If it is empty, has control characters, or is no id at all.
    """
    if isinstance(value, (int, UUID)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        problem = f"must be a string, not {type(value).__name__}"
    elif not value.strip():
        problem = "must not be empty"
    elif has_control_characters(value):
        problem = "must not hold control characters"
    else:
        return value
    raise ThinnestRequestError(f"{name} {problem}.")


def has_control_characters(text: str) -> bool:
    """Whether a text holds characters that could break out of a header or a line."""
    return any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def to_text(messages: Sequence[BaseMessage], session_id: str | None) -> str:
    """Write messages as the one string to send.

    Args:
        messages: The conversation, oldest first.
        session_id: The session that it is part of, if any.

    Returns:
        What to send as `message`.

    Raises:
        ThinnestRequestError: If there is nothing to say, or something that is not text.
    """
    if session_id is not None:
        messages = _new_part(messages, session_id)
    messages = _with_server_tools_apart(messages)
    texts = [_text(message) for message in messages]
    if not any(text.strip() for text in texts):
        raise ThinnestRequestError(
            "There is nothing to send: "
            + (
                "no message holds any text."
                if session_id is None
                else "no message with text follows the last answer of this session."
            )
        )
    if len(messages) == 1 and type(messages[0]) is HumanMessage:
        return texts[0]
    names = {
        call["id"]: call["name"]
        for message in messages
        if isinstance(message, AIMessage)
        for call in message.tool_calls
    }
    paragraphs: list[str] = []
    for message, text in zip(messages, texts, strict=True):
        if text.strip() or not isinstance(message, AIMessage):
            paragraphs.append(f"{_label(message, names)}: {_escape(text)}")
        if isinstance(message, AIMessage):
            paragraphs += [
                f"Assistant called {_in_label(call['name'])}: "
                + json.dumps(call["args"], ensure_ascii=False, default=str)
                for call in message.tool_calls
            ]
    return "\n\n".join(paragraphs)


def _new_part(messages: Sequence[BaseMessage], session_id: str) -> Sequence[BaseMessage]:
    for at in range(len(messages) - 1, -1, -1):
        if _is_written_by(messages[at], session_id):
            return messages[at + 1 :]
    return messages


def _is_written_by(message: BaseMessage, session_id: str) -> bool:
    metadata = message.response_metadata
    if isinstance(message, (AIMessage, ToolMessage)) and (
        metadata.get("session_id") == session_id
    ):
        return True  # a tool message of this session tells of a tool that the server ran
    # A history that was stored without metadata can only be this session's own.
    return (
        isinstance(message, AIMessage)
        and "model_provider" not in metadata
        and not message.tool_calls
    )


def _with_server_tools_apart(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Write the tools that our own answers tell of as messages, as in a stored transcript."""
    apart: list[BaseMessage] = []
    for message in messages:
        is_ours = message.response_metadata.get("model_provider") == PROVIDER
        if is_ours and isinstance(message, AIMessage):
            apart += expand_server_tools(message)
        else:
            apart.append(message)
    return apart


def tool_call_ids(messages: Sequence[BaseMessage]) -> set[str]:
    """The ids of all tool calls that a conversation has had."""
    ids: set[str] = set()
    for message in _with_server_tools_apart(messages):
        if isinstance(message, ToolMessage):
            ids.add(message.tool_call_id)
    return ids


def _text(message: BaseMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    silent = _SILENT_BLOCKS if isinstance(message, AIMessage) else frozenset()
    texts: list[str] = []
    for block in message.content:
        if isinstance(block, str):
            texts.append(block)
            continue
        kind = block.get("type")
        if kind == "text" and isinstance(block.get("text"), str):
            texts.append(block["text"])
        elif kind not in silent:
            raise ThinnestRequestError(
                f"A {message.type} message holds a content block of type {kind!r}. "
                "The thinnest.ai API takes text alone: send text blocks only."
            )
    return "".join(texts)


def _label(message: BaseMessage, tool_names: dict[str | None, str]) -> str:
    if isinstance(message, (ToolMessage, FunctionMessage)):
        name = message.name
        if not name and isinstance(message, ToolMessage):
            name = tool_names.get(message.tool_call_id)
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


def _in_label(name: str) -> str:
    """A name as it may stand in a label: on one line, and not ending the label early."""
    return re.sub(r"[^\w.-]+", " ", name).strip()[:64]


def _escape(text: str) -> str:
    return _LABEL.sub(lambda _: "\\", text)
