"""Where tools stand in a text that may have been changed since.

An offset is true for one text only. A message may be edited, redacted, or merged with its
neighbour (`merge_message_runs`) before anybody looks at its tools again. So each tool also
keeps the characters around it, and is looked for by them. One that is not found, or in two
places, stands at the end of the text: behind the words, but never inside one, nor in the
middle of what somebody else said.
This file knows nothing of messages: it takes texts and offsets, and gives offsets.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

AROUND = 32  # characters kept on each side
_WIDTHS = (AROUND, 16, 8)
_ENOUGH = 8  # characters that identify a place from one side alone


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tool stood in the text.

    Attributes:
        answer: Which answer it belongs to: a merged text holds several, one after the other.
        offset: Characters of that answer's text before it.
        before: The last of these characters; `None` if they were not kept.
        after: The first characters after it.
        opens: For a tool's result, the number of the place of its call.
    """

    answer: int
    offset: int
    before: str | None
    after: str
    opens: int | None = None


def around(text: str, offset: int) -> tuple[str, str]:
    """Return the characters before and after an offset."""
    return text[max(0, offset - AROUND) : offset], text[offset : offset + AROUND]


def find(text: str, places: Sequence[Place], length: int | None) -> list[int]:
    """Find where tools belong in a text that may have been edited.

    Args:
        text: The text as it is now.
        places: Where the tools stood, in their order; those of one answer follow each other.
        length: How long the text was, where it is of one answer and its length was kept.

    Returns:
        The offset of each in the text; that of the end for what is not found.
    """
    search = _Search(text, places)
    is_same_length = length == len(text)
    found: list[int] = []
    for place in places:
        if place.opens is not None and found[place.opens] == len(text):
            found.append(len(text))  # a result never comes before its call
            continue
        at = search.of(place, is_same_length=is_same_length)
        found.append(len(text) if at is None else at)
    return found


class _Search:
    """A search that goes through the text once, from its beginning to its end."""

    def __init__(self, text: str, places: Sequence[Place]) -> None:
        self._text = text
        self._floor = 0  # no tool stands before the one that came before it
        self._start = 0  # where the text of the answer may begin
        self._end = 0  # how far the text of the answers so far certainly reaches
        self._answer = places[0].answer if places else 0
        self._first_answer = self._answer
        self._last: tuple[Place, int | None] | None = None
        distinct = {(p.answer, p.offset, p.before, p.after) for p in places}
        self._alike = Counter((before, after) for _, _, before, after in distinct)

    def of(self, place: Place, *, is_same_length: bool) -> int | None:
        if self._last and _is_same(self._last[0], place):
            return self._last[1]
        if place.answer != self._answer:
            self._answer, self._start = place.answer, self._end
        at = self._find(place, is_same_length=is_same_length)
        self._alike[place.before or "", place.after] -= 1
        if at is not None:
            self._floor = at
            self._end = max(self._end, at + len(place.after))
        self._last = (place, at)
        return at

    def _find(self, place: Place, *, is_same_length: bool) -> int | None:
        if place.before is None:
            is_first = place.answer == self._first_answer
            return place.offset if is_first and self._may_be(place.offset) else None
        if is_same_length and self._fits(place.offset, place):
            return place.offset
        for width in _WIDTHS:
            before, after = place.before[-width:], place.after[:width]
            starts = self._starts(before + after, place)
            if len(starts) == 1 or (starts and len(starts) == self._alike_of(place)):
                return starts[0] + len(before)
        return self._by_one_side(place)

    def _fits(self, at: int, place: Place) -> bool:
        return (around(self._text, at)) == (place.before, place.after)

    def _alike_of(self, place: Place) -> int:
        return self._alike[place.before or "", place.after]

    def _starts(self, context: str, place: Place) -> list[int]:
        """Return where the characters around a tool occur."""
        starts: list[int] = []
        most = self._alike_of(place) + 1
        at = self._text.find(context, self._start) if context.strip() else -1
        while at >= 0 and len(starts) < most:
            end = at + len(context)
            is_inside = (len(place.before or "") < AROUND and _cuts(self._text, at)) or (
                len(place.after) < AROUND and _cuts(self._text, end)
            )
            if not is_inside and at + len(place.before or "") >= self._floor:
                starts.append(at)
            at = self._text.find(context, at + 1)
        return starts

    def _by_one_side(self, place: Place) -> int | None:
        """Search by the characters on one side, where the other side has changed."""
        for width in _WIDTHS[:2]:
            for context, shift in (
                ((place.before or "")[-width:], True),
                (place.after[:width], False),
            ):
                if len(context.strip()) < _ENOUGH:
                    continue
                at = self._text.find(context, self._start)
                if at < 0 or self._text.find(context, at + 1) >= 0:
                    continue
                at += len(context) if shift else 0
                if self._may_be(at):
                    return at
        return None

    def _may_be(self, at: int) -> bool:
        return self._floor <= at <= len(self._text) and not _cuts(self._text, at)


def _is_same(one: Place, other: Place) -> bool:
    return (one.answer, one.offset, one.before, one.after) == (
        other.answer,
        other.offset,
        other.before,
        other.after,
    )


def _cuts(text: str, at: int) -> bool:
    """Whether an offset lies inside a word, in scripts that separate words."""
    if not 0 < at < len(text):
        return False
    left, right = text[at - 1], text[at]
    if unicodedata.combining(right):
        return True
    return left.isalnum() and right.isalnum() and not (_is_wide(left) and _is_wide(right))


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in ("W", "F")
