"""JSON as models write it → JSON.

What is mended changes no value: Python's quotes and literals, a comma before a closing
bracket, comments, spaces that JSON does not know, a byte order mark. Where a text is JSON
already, it stays as it is, character by character. What is cut, or has an unescaped quote, is
not mended: it stays broken.
This module knows nothing of tool calls, schemas and messages.
"""

from __future__ import annotations

import json
import re
from typing import Any

_DECODER = json.JSONDecoder(strict=False)  # models write raw line ends in strings
_FENCED = re.compile(r"\s*(`{3,}|~{3,})[^\n`]*\n(.*?)\n?[ \t]*\1\s*", re.DOTALL)
# Spaces that JSON does not know, and marks that take no room.
ODD_SPACE = (
    "\ufeff\u200b\u2060\xa0\x0b\x0c\x85\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
)
_PART = re.compile(
    r'"(?:[^"\\]|\\.)*"'
    r"|'(?P<single>(?:[^'\\]|\\.)*)'"
    r"|(?P<literal>\b(?:True|False|None)\b)"
    r"|(?P<comment>//[^\r\n]*|/\*.*?\*/|\#[^\r\n]*)"
    rf"|(?P<space>[{ODD_SPACE}]+)"
    r"|\w+|.",
    re.DOTALL,
)
_LITERALS = {"True": "true", "False": "false", "None": "null"}
_QUOTES = re.compile(r'\\.|"', re.DOTALL)


def load(text: str) -> Any:
    """Parse a text that is one JSON value, also in a code fence; `None` if it is not."""
    fenced = _FENCED.fullmatch(text)
    try:
        return _DECODER.decode(fenced[2] if fenced else text)
    except (ValueError, RecursionError):
        return None


def load_mended(text: str) -> Any:
    """Parse like `load`, and repair common faults first if that fails."""
    value = load(text)
    return load(mended(text)) if value is None else value


def mended(text: str) -> str:
    """Repair the common faults of JSON that models write.

    Any beginning of the text that is JSON comes out as it is.
    """
    out: list[str] = []
    comma: int | None = None  # where the last comma stands in `out`, if only space follows it
    before = ""  # the last part that was no space
    for match in _PART.finditer(text):
        part = match[0]
        if match["comment"] is not None or match["space"] is not None:
            part = " "
        elif part.isspace():
            pass
        elif part == ",":
            comma = len(out) if before not in (",", "", ":", "{", "[") else None
            before = part
        else:
            if part in ("}", "]") and comma is not None:
                out[comma] = ""
            comma = None
            if match["single"] is not None:
                part = '"' + _QUOTES.sub(_quote, match["single"]) + '"'
            elif match["literal"]:
                part = _LITERALS[part]
            before = part
        out.append(part)
    return "".join(out)


def _quote(match: re.Match[str]) -> str:
    return {'"': '\\"', "\\'": "'"}.get(match[0], match[0])


def without_fence(text: str) -> str:
    """Return the text within a code fence, if the fence is all there is."""
    fenced = _FENCED.fullmatch(text)
    return fenced[2] if fenced else text


def values_in(text: str) -> list[tuple[Any, int, int]] | None:
    """Parse a sequence of JSON values; yield each with its start and end.

    White space or a comma may stand between them. `None` if there is anything else.
    """
    found: list[tuple[Any, int, int]] = []
    at = 0
    while gap := re.compile(r"\s*,?\s*" if found else r"\s*").match(text, at):
        at = gap.end()
        if at == len(text):
            break
        try:
            value, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            return None
        found.append((value, at, end))
        at = end
    return found
