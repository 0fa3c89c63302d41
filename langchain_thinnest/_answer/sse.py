"""Bytes → JSON payloads: the vendor's event stream, which is not quite the WHATWG's.

The contract's example has no blank line between events, and both its clients read line by
line. So a `data:` line that is a whole JSON object is a payload at once. One that is not is
held and joined to the `data:` lines after it by LF, as the WHATWG rule says ("Interpreting
an event stream"), until it is whole or a blank line ends it.

Only LF, CR and CRLF end a line, wherever the network cut the bytes. U+2028, U+0085, VT and
FF are legal inside JSON strings and end nothing, which is why lines are split as bytes:
`bytes.splitlines` knows just those three ends, `str.splitlines` many more.

Time is linear in the bytes, whatever the cut, and memory is bounded by the size limit.
This module knows nothing of HTTP, of event types, or of LangChain.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic_core import from_json

from langchain_thinnest.errors import ThinnestProtocolError

Payload = dict[str, Any]

_BOM = b"\xef\xbb\xbf"
_LINE_ENDS = b"\n\r"
# A JSON string, or what an unfinished line holds of one. The alternatives are disjoint and
# the closing quote is optional, so that a match cannot fail and the scan stays linear.
_STRING = re.compile(rb'"(?:[^"\\]+|\\.)*"?', re.DOTALL)
# An escape in a JSON string: a surrogate pair, one half of a pair alone, or any other.
_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
    rb"|\\.",
    re.DOTALL,
)


class SSEDecoder:
    """Feed it bytes as they come; it gives each payload as soon as its line is whole."""

    def __init__(self, max_event_bytes: int) -> None:
        """Make a decoder.

        Args:
            max_event_bytes: The most bytes that one event, or one line, may have. Line ends
                do not count; so what is too large does not depend on the cut.
        """
        self._max = max_event_bytes
        self._line: list[bytes] = []  # the reads that make up a line not yet ended
        self._line_size = 0
        self._held: list[bytes] = []  # `data:` values that are not yet a whole object
        self._held_size = 0
        self._depth = 0  # braces open in `_held`
        self._after_cr = False  # the last byte was CR: an LF now belongs to it
        self._started = False  # the first line, which may carry a BOM, has been seen

    def feed(self, data: bytes) -> Iterator[Payload]:
        """Decode the next bytes.

        Args:
            data: The next bytes of the body, of any length.

        Yields:
            Each payload whose last line `data` completes.

        Raises:
            ThinnestProtocolError: For a payload that is no JSON object, or is too large.
        """
        for line in self._whole_lines(data):
            payload = self._decode(line)
            if payload is not None:
                yield payload
        self._check_size(self._line_size)

    def only_event(self, data: bytes) -> Payload | None:
        """Decode bytes that are one whole event and nothing else, as most reads are.

        Returns:
            The payload; `None` if it is not as simple as that: then `feed` decodes it.
        """
        lines = data.splitlines()
        if (
            (len(lines) == 1 or (len(lines) == 2 and not lines[1]))
            and data.endswith(b"\n")
            and len(data) <= self._max
            and not (self._line or self._held)
            and lines[0].startswith(b"data:")
        ):
            try:
                payload = from_json(lines[0][5:])
            except ValueError:
                return None
            if type(payload) is dict:
                self._started = True
                return payload
        return None

    def flush(self) -> Payload | None:
        """Decode what the body's end leaves: its last line may end without a newline.

        Returns:
            The last payload, or `None` if the rest is none: then the body was cut.
        """
        line = b"".join(self._line)
        self._line.clear()
        if not self._started:
            line = line.removeprefix(_BOM)
        try:
            return self._decode(line) if line else None
        except ThinnestProtocolError:
            return None

    def _whole_lines(self, data: bytes) -> list[bytes]:
        """Return the lines that `data` completes, and keep the rest."""
        if self._after_cr and data:
            self._after_cr = False
            if data.startswith(b"\n"):
                data = data[1:]
        lines = data.splitlines()
        if not lines:
            return lines
        if self._line:
            self._line.append(lines[0])
            self._line_size += len(lines[0])
            if len(lines) == 1 and data[-1] not in _LINE_ENDS:
                return []
            lines[0] = b"".join(self._line)
            self._line.clear()
            self._line_size = 0
        if data.endswith(b"\r"):
            self._after_cr = True
        elif not data.endswith(b"\n"):
            self._line.append(lines.pop())
            self._line_size = len(self._line[0])
        if not self._started and lines:
            self._started = True
            lines[0] = lines[0].removeprefix(_BOM)
        return lines

    def _decode(self, line: bytes) -> Payload | None:
        self._check_size(len(line))
        if line.startswith(b"data:"):
            value = line[6:] if line.startswith(b"data: ") else line[5:]
        elif not line:
            if self._held:
                raise _not_an_object(b"\n".join(self._held))
            return None
        else:  # a comment, another field, or `data` without a value: legal, carries nothing
            return None
        if self._held:
            return self._join(value)
        try:
            payload = from_json(value)  # as nearly every line can be read
        except ValueError:
            payload = _parsed(value)
        return payload if type(payload) is dict else self._hold(value)

    def _hold(self, value: bytes) -> Payload | None:
        stripped = value.strip()
        if not stripped or stripped == b"[DONE]":  # neither is an event
            return None
        return self._join(value)

    def _join(self, value: bytes) -> Payload | None:
        self._held.append(value)
        self._held_size += len(value) + 1
        # A raw line end inside a JSON string is invalid, so each line can be scanned alone.
        bare = _STRING.sub(b"", value)
        self._depth += bare.count(b"{") - bare.count(b"}")
        if self._depth > 0:
            return None
        joined = b"\n".join(self._held)
        self._held.clear()
        self._held_size = self._depth = 0
        payload = _parsed(joined)
        if payload is None:
            raise _not_an_object(joined)
        return payload

    def _check_size(self, line_size: int) -> None:
        if self._held_size + line_size > self._max:
            raise ThinnestProtocolError(
                f"One event of the stream is larger than max_event_bytes ({self._max}). "
                "If the agent's tools return that much, raise max_event_bytes."
            )


def read_json(text: bytes) -> Any:
    """Read JSON as it comes from a server.

    Half a surrogate pair, which some servers leave where they cut text between two strings,
    is no character: it becomes U+FFFD. Values nested some 200 deep or more are refused.

    Raises:
        ValueError: If it is not JSON.
    """
    try:
        return from_json(text)
    except ValueError:
        mended = _ESCAPE.sub(lambda escape: rb"\ufffd" if escape["half"] else escape[0], text)
        if mended == text:
            raise
    return from_json(mended)


def _parsed(value: bytes) -> Payload | None:
    try:
        payload = read_json(value)
    except ValueError:
        return None
    return payload if isinstance(payload, dict) else None


def _not_an_object(payload: bytes) -> ThinnestProtocolError:
    shown = payload[:80].decode("utf-8", "replace")
    return ThinnestProtocolError(
        "The stream holds an event that is not a JSON object, which the contract does not "
        f"know: {shown!r}{'...' if len(payload) > 80 else ''}"
    )
