"""Reads what a message says: the caller's tools, the form of the answer, the conversation.

The form is the client's: a `<tools>` block and a `<response_schema>` block, each with a
paragraph that says what to do with it, and then one user's words or a transcript. The server
knows it as a model would, by reading: this file shares no code with the client.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from langchain_core.messages import HumanMessage

from langchain_thinnest.emulator.agents import Session

_JSON_MODE = r"(?:Once [^,\n]+, a|A)nswer with one JSON object and nothing else"
_OPENING = re.compile(rf"\s*(?:<tools>\n|<response_schema>\n|{_JSON_MODE})")
_PREAMBLE = re.compile(
    rf"\s*(?:<(?P<tag>tools|response_schema)>\n(?P<block>.*?)\n?</(?P=tag)>\s*?(?:\n\n|\Z))?"
    rf"(?P<rule>(?(tag).*?|{_JSON_MODE}.*?))(?:\n\n|\Z)",
    re.DOTALL,
)
_NAMED = re.compile(r"must call the tool [`'\"]?([\w.-]+?)[`'\"]?(?=[\s.,;]|$)")
_SECTION = re.compile(
    r"(?:\A|(?<=\n\n))(?:"
    r"(?P<role>System|User|Assistant)(?: \([^\n:()]*\))?: ?"
    r"|Assistant called (?P<called>[^\n:]*): ?"
    r"|Tool(?: \((?P<tool>[^\n:()]*)\))?(?P<failed> failed)?: ?"
    r"|(?=<tool_response>))"
)
_ESCAPED = re.compile(
    r"^([ \t]*)\\(\\*(?:System|User|Assistant|Tool)\b)", re.MULTILINE | re.IGNORECASE
)
_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_RESPONSE = re.compile(r"<tool_response>(.*?)</tool_response>", re.DOTALL)


@dataclass(frozen=True)
class Tool:
    """A tool that the caller runs."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Said:
    """Somebody's words."""

    role: Literal["system", "user", "assistant"]
    text: str


@dataclass(frozen=True)
class Called:
    """A call that the assistant made."""

    name: str
    args: dict[str, Any]


@dataclass(frozen=True)
class Answered:
    """What a tool gave."""

    name: str
    content: str
    failed: bool = False


Entry = Said | Called | Answered


@dataclass
class Prompt:
    """A message, taken apart.

    Attributes:
        tools: What may be called.
        must_call: Whether the answer has to be a call.
        only: The tool that has to be called, if one is named.
        one_call: Whether one call is the most that an answer may hold.
        schema: The JSON schema of the answer.
        any_json: Whether the answer is to be some JSON object, of no given schema.
        entries: The conversation, as far as the message has it.
    """

    tools: list[Tool] = field(default_factory=list)
    must_call: bool = False
    only: str | None = None
    one_call: bool = False
    schema: dict[str, Any] | None = None
    any_json: bool = False
    entries: list[Entry] = field(default_factory=list)


def has_protocol(message: str) -> bool:
    """Whether a message has tools of the caller, or a form for the answer."""
    return bool(_OPENING.match(message))


def read(message: str) -> Prompt:
    """Take a message apart.

    Args:
        message: As the client sent it.

    Returns:
        What it says.
    """
    prompt, rest = Prompt(), message
    while has_protocol(rest) and (found := _PREAMBLE.match(rest)):
        if found["tag"] == "tools":
            prompt.tools = list(_tools(found["block"]))
            rule = found["rule"]
            named = _NAMED.search(rule)
            prompt.only = named[1] if named else None
            prompt.must_call = bool(named) or "must call at least one" in rule
            prompt.one_call = "one call at most" in rule
        elif found["tag"]:
            schema = _json(found["block"])
            prompt.schema = schema if isinstance(schema, dict) else None
        else:
            prompt.any_json = True
        rest = rest[found.end() :]
    prompt.entries = list(_entries(rest))
    return prompt


def remembered(session: Session) -> list[Entry]:
    """The conversation before this message, as far as the session knows it."""
    entries: list[Entry] = []
    for message in session.messages:
        if isinstance(message, HumanMessage):
            entries += read(message.text).entries
        else:
            entries += _assistant(message.text)
    return entries


def asked_before(session: Session) -> list[str]:
    """What the user has said in a session so far."""
    said: list[str] = []
    for message in session.messages:
        if isinstance(message, HumanMessage):
            said += user_texts(read(message.text).entries)
    return said


def is_from_user(entry: Entry) -> bool:
    """Whether an entry is the user's words."""
    return isinstance(entry, Said) and entry.role == "user"


def user_texts(entries: Sequence[Entry]) -> list[str]:
    """What the user said in a conversation."""
    return [entry.text for entry in entries if isinstance(entry, Said) and is_from_user(entry)]


def _tools(block: str) -> Iterator[Tool]:
    for line in block.splitlines():
        tool = _json(line)
        if isinstance(tool, dict):
            function = tool.get("function", tool)
            yield Tool(
                str(function["name"]),
                str(function.get("description") or ""),
                function.get("parameters") or {},
            )


def _entries(text: str) -> Iterator[Entry]:
    starts = list(_SECTION.finditer(text))
    if not starts or starts[0].start() > 0:  # one user's words, whatever they look like
        if text.strip():
            yield Said("user", text.strip())
        return
    ends = [start.start() for start in starts[1:]] + [len(text)]
    for start, end in zip(starts, ends, strict=True):
        body = _ESCAPED.sub(r"\1\2", text[start.end() : end].strip())
        if start["called"] is not None:
            args = _json(body)
            yield Called(start["called"], args if isinstance(args, dict) else {})
        elif start["role"] == "Assistant":
            yield from _assistant(body)
        elif start["role"]:
            yield Said("system" if start["role"] == "System" else "user", body)
        elif start[0].startswith("Tool"):
            yield Answered(start["tool"] or "tool", body, bool(start["failed"]))
        else:
            yield from _responses(body)


def _assistant(text: str) -> Iterator[Entry]:
    words = _CALL.sub("", text).strip()
    if words:
        yield Said("assistant", words)
    for match in _CALL.finditer(text):
        call = _json(match[1])
        if isinstance(call, dict) and isinstance(call.get("arguments"), dict):
            yield Called(str(call.get("name")), call["arguments"])


def _responses(text: str) -> Iterator[Entry]:
    for match in _RESPONSE.finditer(text):
        given = _json(match[1])
        if isinstance(given, dict):
            content = given.get("content", "")
            if not isinstance(content, str):
                content = json.dumps(content, ensure_ascii=False)
            yield Answered(
                str(given.get("name") or "tool"), content, given.get("status") == "error"
            )
    after = _RESPONSE.sub("", text).strip()
    if after:
        yield Said("user", after)


def _json(text: str) -> Any:
    try:
        return json.loads(text, strict=False)
    except ValueError:
        return None
