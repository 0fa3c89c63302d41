"""Whether a place in Markdown text is code: within a fence, or within a code span.

A span's end decides whether there is one: backticks that no others of the same number follow
in the paragraph are text. So a place behind backticks waits for what follows it.
This module knows nothing of tool calls.
"""

from __future__ import annotations

import re

_LINE_END = re.compile(r"\r\n|\r|\n")
# In quotes and lists too. Backticks with more of them on their line are no fence.
_OPENER = re.compile(
    r"(?:[ \t>]|[-*+][ \t]|\d{1,9}[.)][ \t])*(?:(`{3,})[^`]*|(~{3,}).*)", re.DOTALL
)
_CLOSER = re.compile(r"[ \t>]*(`{3,}|~{3,})[ \t]*")
_LONGEST = 500  # what a line begins with says what it is
_RUN = re.compile(r"(?:(?<!\\)|(?<=\\\\))`+")
_PARAGRAPH_END = re.compile(r"(?:\r\n|\r|\n)[ \t]*(?:\r\n|\r|\n)")


class Markdown:
    """Tracks whether the text so far ends in a code fence or a code span."""

    def __init__(self) -> None:
        """Begin a text."""
        self._marks = ""  # of the fence that is open
        self._line = ""
        self._runs: list[int] = []  # of backticks in the lines of this paragraph before

    @property
    def is_in_fence(self) -> bool:
        """Whether the text ends within a fence."""
        return bool(self._marks or _OPENER.fullmatch(self._line))

    @property
    def may_be_in_span(self) -> bool:
        """Whether open backticks came before, so that the text may be in a code span."""
        return bool(self._open_runs())

    def feed(self, text: str) -> None:
        """Take the next piece of text."""
        *lines, last = _LINE_END.split(text)
        for line in lines:
            self._end_line(self._line + line)
            self._line = ""
        if len(self._line) < _LONGEST or "`" in last:
            self._line += last

    def find_span_end(self, text: str) -> tuple[bool | None, int]:
        """Find where the code span ends that the text may be in.

        Returns:
            Whether it is in one, `None` if more of the text must come to know; and where the
            span ends.
        """
        end = _PARAGRAPH_END.search(text)
        paragraph = text[: end.start()] if end else text
        opened = self._open_runs()
        for run in re.finditer("`+", paragraph):
            if end is None and run.end() == len(text):
                return None, 0  # there may be more of them
            if len(run[0]) in opened:
                return True, run.end()
        return (False if end else None), 0

    def forget_spans(self) -> None:
        """Treat the backticks so far as plain text."""
        self._runs.clear()
        self._line = self._line.replace("`", "'")

    def _open_runs(self) -> set[int]:
        """Return the lengths of the runs of backticks that have no partner yet."""
        runs = [*self._runs, *_runs_in(self._line)]
        opened: set[int] = set()
        at = 0
        while at < len(runs):
            if runs[at] in runs[at + 1 :]:
                at = runs.index(runs[at], at + 1)
            else:
                opened.add(runs[at])
            at += 1
        return opened

    def _end_line(self, line: str) -> None:
        if not self._marks:
            if opener := _OPENER.fullmatch(line):
                self._marks = opener[1] or opener[2]
                self._runs.clear()
            elif line.strip():
                self._runs += _runs_in(line)
            else:
                self._runs.clear()
        elif (closer := _CLOSER.fullmatch(line)) and closer[1].startswith(self._marks):
            self._marks = ""


def _runs_in(line: str) -> list[int]:
    return [len(run[0]) for run in _RUN.finditer(line)]
