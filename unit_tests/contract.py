"""The contract's example, as the vendor's page prints it, and what it means."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from langchain_thinnest import ThinnestStreamError
from langchain_thinnest._answer.turn import Piece, Turn

EVENTS: list[dict[str, Any]] = [
    {"type": "text", "content": "Machine learning is"},
    {"type": "text", "content": " a subset of artificial intelligence"},
    {"type": "text", "content": " that enables systems to learn"},
    {"type": "tool_call", "name": "web_search", "args": {"query": "ML applications 2026"}},
    {"type": "tool_result", "name": "web_search", "result": "..."},
    {"type": "text", "content": " from data without being explicitly programmed."},
    {"type": "done", "usage": {"input_tokens": 50, "output_tokens": 120, "total_tokens": 170}},
]
TEXT = (
    "Machine learning is a subset of artificial intelligence that enables systems to learn"
    " from data without being explicitly programmed."
)
USAGE = {"input_tokens": 50, "output_tokens": 120, "total_tokens": 170}
OFFSET = len(
    "Machine learning is a subset of artificial intelligence that enables systems to learn"
)


def lines(*events: dict[str, Any]) -> list[bytes]:
    """Events as the lines of a stream, without line ends."""
    return [b"data: " + json.dumps(event, ensure_ascii=False).encode() for event in events]


def as_printed(*events: dict[str, Any]) -> bytes:
    """Events as the vendor's page prints them: no blank lines, and none at the end."""
    return b"\n".join(lines(*events))


def as_sse(*events: dict[str, Any]) -> bytes:
    """Events as the WHATWG rule wants them: a blank line after each."""
    return b"".join(line + b"\n\n" for line in lines(*events))


def fed(turn: Turn, data: bytes | ThinnestStreamError) -> Iterator[Piece]:
    """The pieces that a turn finds, one by one."""
    found = turn.feed(data)
    return iter([found]) if isinstance(found, str) else iter(found)


def without_ids(blocks: list[Any]) -> list[dict[str, Any]]:
    """Content blocks to compare: the ids, which differ by turn, are numbered by order.

    The framework gives the blocks that it assembles from a v3 stream, or adds up from v1
    chunks, an `index` each; it says nothing that the order does not.
    """
    numbers: dict[str, int] = {}
    return [
        {
            key: numbers.setdefault(value, len(numbers))
            if key in ("id", "tool_call_id")
            else value
            for key, value in block.items()
            if key != "index"
        }
        for block in blocks
    ]


BLOCKS: list[dict[str, Any]] = [
    {"type": "text", "text": TEXT[:OFFSET]},
    {
        "type": "server_tool_call",
        "id": 0,
        "name": "web_search",
        "args": {"query": "ML applications 2026"},
    },
    {
        "type": "server_tool_result",
        "tool_call_id": 0,
        "status": "success",
        "output": "...",
        "extras": {"name": "web_search"},
    },
    {"type": "text", "text": TEXT[OFFSET:]},
]
