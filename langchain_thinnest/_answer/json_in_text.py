"""Text of an answer → the JSON values in it.

Values stand alone, in a code fence, in tags, or in the middle of prose. A value within a
broken one is none. If one was cut off, none counts: there may have been more to the answer.
This module knows nothing of schemas and of messages.
"""

from __future__ import annotations

import re
from typing import Any

from langchain_thinnest._answer.lenient import load_mended

_CLOSERS = {"{": "}", "[": "]"}
_PLAIN = re.compile(r"[{\[]")
_WITHIN = re.compile(
    r'"(?:[^"\\]|\\.)*"|(?<=[\[{,:\s])\'(?:[^\'\\]|\\.)*\'|[{}\[\]]', re.DOTALL
)
# What begins like an object, or like a list of some.
_BEGINS = re.compile(r"\{\s*(?:[\"'}]|\Z)|\[\s*(?:[{\[\"]|\Z)")


def json_values(text: str) -> list[Any]:
    """Find the objects and lists in a text, in their order; none if one was cut off."""
    regions, unmatched = _regions(text)
    if any(_BEGINS.match(text, start) for start in unmatched):
        return []
    values: list[Any] = []
    for start, end in regions:
        value = load_mended(text[start:end])
        if value is None and text[start] == "{" and text[start + 1 : end - 1].startswith("{"):
            value = load_mended(text[start + 1 : end - 1])  # in a template's double braces
        if value is not None:
            values.append(value)
    return values


def _regions(text: str) -> tuple[list[tuple[int, int]], list[int]]:
    """Where brackets open and close that stand in no others, and which never close."""
    closed: list[tuple[int, int]] = []
    opened: list[int] = []
    at = 0
    while match := (_WITHIN if opened else _PLAIN).search(text, at):
        mark, at = match[0], match.end()
        if mark in _CLOSERS:
            opened.append(match.start())
        elif mark in ("}", "]") and _CLOSERS[text[opened[-1]]] == mark:
            start = opened.pop()
            while closed and closed[-1][0] > start:
                closed.pop()
            closed.append((start, at))
    return closed, opened
