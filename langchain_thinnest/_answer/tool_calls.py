"""Text of an answer → text and calls of local tools: the tool protocol as it is read.

    I will look. <tool_call>{"name": "search", "arguments": {"query": "x"}}</tool_call> Then...

Text passes the moment it comes, in the pieces it came in; only an end that may begin a tag is
held back. A call's arguments pass as they come too, once its name is known, as far as they are
JSON as it should be; their last bracket waits until the call proves right. What is what:

- A tag in a Markdown code fence or code span is text.
- A call ends at the first `</tool_call>` outside its strings. One inside a string is a part
  of it if the JSON turns out right; if not, the call ended there.
- The next `<tool_call>`, or the end of the answer, ends a call too: right if it is whole.
- Tags with nothing in between are text, and so is a last tag that no JSON follows: who speaks
  of tags calls nothing.
- What is between tags and cannot be read as calls (`call_forms.py`) is one invalid call, which
  keeps its text.
- After a call of a bound tool, the agent waits for its result. If it makes one up, a
  `<tool_response>`, then that and all text behind it is no part of the answer.

This module knows nothing of events and of messages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_thinnest._answer.call_forms import ToolSchemas, bound_name, read_calls
from langchain_thinnest._answer.lenient import ODD_SPACE, load, mended
from langchain_thinnest._answer.markdown import Markdown
from langchain_thinnest._names import CALL_END, CALL_START

_OPENING = re.compile(r"<tool_call(?P<attributes>\s[^<>]{0,200})?>")
_RESPONSE = "<tool_response>"
_MAY_OPEN = re.compile(r"<tool_call\s[^<>]{0,200}\Z")
# As far as a call's name is looked for before the call is taken as a whole, at its end.
_LONGEST_HEAD = 400
_HEAD = re.compile(
    r'\s*\{\s*"name"\s*:\s*("(?:[^"\\\x00-\x1f]|\\.)+")\s*,\s*"arguments"\s*:\s*(?=\{)'
)
_NAME = re.compile(r'"name"\s*:\s*"([^"\\]+)"')
_TAG = r"</tool_call>|<tool_call(?:\s[^<>]{0,200})?>"
_IN_STRING = {quote: re.compile(rf"\\.|{quote}|{_TAG}", re.DOTALL) for quote in ('"', "'")}
# Beside brackets and tags: what is no JSON, so that the arguments do not pass any more.
_OUTSIDE = re.compile(rf"[\"'{{}}\[\],]|[TFN#{ODD_SPACE}]|(?<!<)/|{_TAG}")
_IN_MARKUP = re.compile(_TAG)
_CLOSERS = {"{": "}", "[": "]"}


@dataclass(slots=True)
class LocalCall:
    """A call of a tool on this side.

    Attributes:
        name: The tool's name, if it could be read.
        text: The arguments as JSON; of an invalid call, what stood in their place, with an
            end that no lenient reader takes for whole JSON. Empty while they come.
        args: The arguments; `None` while they come, and for an invalid call.
        id: What the call is known by; the turn gives it, and what follows.
        index: The call's number among the answer's.
        offset: How many characters of text stand before the call.
        tools_before: How many of the server's calls and results stand before it.
    """

    name: str | None = None
    text: str = ""
    args: dict[str, Any] | None = None
    id: str = ""
    index: int = 0
    offset: int = 0
    tools_before: int = 0


@dataclass(frozen=True, slots=True)
class CallPart:
    """The next part of a call's arguments."""

    call: LocalCall
    text: str
    is_first: bool
    is_last: bool


class CallScanner:
    """Finds the calls in an answer's text."""

    def __init__(self, tools: ToolSchemas | None = None) -> None:
        """Begin an answer.

        Args:
            tools: The parameters of each bound tool, as a JSON schema, by its name.
        """
        self._tools = tools or {}
        self._held = ""
        self._markdown = Markdown()
        self._body: _Body | None = None  # of the call that is open
        self._span = ""  # text from a tag on that may be in a code span
        self._last = ""  # the last character of text
        self._waits = False  # a bound tool was called
        self._is_over = False  # all that follows is made up

    def feed(self, text: str) -> Iterator[str | CallPart]:
        """Take the next piece of text, cut anywhere.

        Yields:
            The text that is free to go and the parts of calls, in order.
        """
        if not text and self._body is None and not self._held and not self._span:
            yield text  # one piece for one event, be it empty
        text, self._held = self._held + text, ""
        at = 0
        while at < len(text) and not self._is_over:
            if self._span:
                text, at = yield from self._look_for_span_end(text[at:])
                continue
            if self._body is None:
                start, tag = self._find_tag(text, at)
                if free := text[at : start if start >= 0 else len(text) - len(self._held)]:
                    yield self._spoken(free)
                if start < 0:
                    return
                if self._markdown.may_be_in_span:
                    self._span, at = tag, start + len(tag)
                    continue
                at = start + len(tag)
                self._open(tag)
                continue
            end, tag = self._body.feed(text, at)
            if not tag:
                self._held = text[end:]
                yield from self._body.part()
                return
            text, at = yield from self._close(text, end, tag)

    def release(self) -> Iterator[str | CallPart]:
        """Return the text that was held back: another event came, so no tag continues."""
        if self._held and self._body is None and not self._span:
            held, self._held = self._held, ""
            self._markdown.feed(held)
            yield self._spoken(held)

    def flush(self) -> Iterator[str | CallPart]:
        """Return all that is left, since the answer is over."""
        while (self._body is not None or self._span) and not self._is_over:
            if self._span:  # which nothing ends: it was none
                rest, self._held = self._end_span() + self._held, ""
            else:
                assert self._body is not None  # noqa: S101
                self._body.take(self._held)
                self._held = ""
                rest, _ = yield from self._close("", 0, "")
            if rest:
                yield from self.feed(rest)
        yield from self.release()

    def _spoken(self, text: str) -> str:
        self._last = text[-1]
        return text

    def _open(self, tag: str) -> None:
        if tag == _RESPONSE:
            self._is_over = True
        else:
            self._body = _Body(tag, self._tools)

    def _find_tag(self, text: str, seen: int) -> tuple[int, str]:
        """Find the next tag outside of code fences, or -1; hold what may begin one."""
        at = seen
        while (at := text.find("<", at)) >= 0:
            opening = _OPENING.match(text, at)
            tag = opening[0] if opening else ""
            if self._waits and text.startswith(_RESPONSE, at):
                tag = _RESPONSE
            if tag or self._may_go_on(text, at):
                self._markdown.feed(text[seen:at])
                seen = at
                if not self._markdown.is_in_fence:
                    if tag:
                        return at, tag
                    self._held = text[at:]
                    return -1, ""
            at += 1
        self._markdown.feed(text[seen:])
        return -1, ""

    def _may_go_on(self, text: str, at: int) -> bool:
        """Whether the text may end with the beginning of a tag."""
        end = text[at : at + len(_RESPONSE)]
        return (
            CALL_START.startswith(end)
            or (self._waits and _RESPONSE.startswith(end))
            or _MAY_OPEN.match(text, at) is not None
        )

    # --- a tag behind backticks, which may be in a code span ---

    def _look_for_span_end(self, text: str) -> Generator[str, None, tuple[str, int]]:
        """Hold a tag until it is known whether a code span holds it."""
        text, self._span = self._span + text, ""
        is_in_span, end = self._markdown.find_span_end(text)
        if is_in_span is None:
            self._span = text
            return "", 0
        if is_in_span:
            self._markdown.feed(text[:end])
            yield self._spoken(text[:end])
            return text, end
        self._markdown.forget_spans()
        return text, 0

    def _end_span(self) -> str:
        span, self._span = self._span, ""
        is_in_span, _ = self._markdown.find_span_end(span + "\n\n")
        if not is_in_span:
            self._markdown.forget_spans()
        return span

    # --- a call ---

    def _close(
        self, text: str, end: int, tag: str
    ) -> Generator[str | CallPart, None, tuple[str, int]]:
        """End the open call at a tag, or at the answer's end, and say where to read on."""
        assert self._body is not None  # noqa: S101
        body, self._body = self._body, None
        inner = body.text
        at = end + len(tag) if tag == CALL_END else end
        calls = body.read(inner, is_closed=tag == CALL_END and body.doubt is None)
        if calls is None and body.doubt is not None:
            # The string that the tag stood in was none: the call ended there.
            at = end - (len(inner) - body.doubt) + len(CALL_END)
            if at < 0 or not tag:
                text, at = inner[body.doubt + len(CALL_END) :] + text[end:], 0
            inner, tag = inner[: body.doubt], CALL_END
            calls = body.read(inner, is_closed=True)
        if calls:
            yield from body.last_parts(inner, calls)
            self._waits = self._waits or any(name in self._tools for name, _ in calls)
        elif self._is_call(inner, tag):
            yield body.broken(inner)
        else:
            spoken = body.tag + inner + (CALL_END if tag == CALL_END else "")
            self._markdown.feed(spoken)
            yield self._spoken(spoken)
        return text, at

    def _is_call(self, inner: str, tag: str) -> bool:
        inner = inner.strip()
        if not inner.startswith("{"):
            return bool(inner) and tag == CALL_END and self._last != "`"
        return True


class _Body:
    """The text after a start tag, as far as it has arrived.

    Attributes:
        tag: The start tag.
        doubt: Where the first end tag within a string stands.
    """

    def __init__(self, tag: str, tools: ToolSchemas) -> None:
        self.tag = tag
        self.doubt: int | None = None
        self._tools = tools
        self._call = LocalCall()
        self._pieces: list[str] = []
        self._length = 0
        self._is_markup: bool | None = None  # `<function=...>`, which has no strings
        self._quote = ""  # of the string that is open
        self._open: list[str] = []  # the closers of what is open
        self._comma: int | None = None  # the last one, if only space follows it so far
        self._has_head: bool | None = None
        self._args_start = 0
        self._args_end: int | None = None  # where their last bracket stands
        self._odd: int | None = None  # where the first thing stands that is no JSON
        self._sent = 0

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def take(self, text: str) -> None:
        self._pieces.append(text)
        self._length += len(text)

    def feed(self, text: str, start: int) -> tuple[int, str]:
        """Read on from `start`.

        Returns:
            Where the tag stands that ends the call, and the tag. Or, if there is none, up to
            where the text was read, since the rest may go on to be a tag, and "".
        """
        at = start
        before = self._length - start  # so that `before + at` counts from the body's start
        if self._is_markup is None and (begin := text[start:].lstrip()):
            self._is_markup = begin.startswith("<f")
        while match := self._marks().search(text, at):
            mark, at = match[0], match.end()
            if len(mark) > 1 and mark[0] == "<":
                if not self._quote:
                    self.take(text[start : match.start()])
                    return match.start(), mark
                if mark == CALL_END and self.doubt is None:
                    self.doubt = before + match.start()
            elif self._quote:
                if mark == self._quote:
                    self._quote = ""
            else:
                self._see(mark, before + match.start(), text[start : match.start()])
        end = self._end_of_what_is_sure(text, at)
        self.take(text[start:end])
        if (
            self._comma is not None
            and text[max(start, self._comma + 1 - before) : end].strip()
        ):
            self._comma = None
        return end, ""

    def _marks(self) -> re.Pattern[str]:
        if self._is_markup:
            return _IN_MARKUP
        return _IN_STRING[self._quote] if self._quote else _OUTSIDE

    def _see(self, mark: str, where: int, before: str) -> None:  # noqa: C901
        """Process a bracket or tag outside of strings, at `where` in the body."""
        if mark == ",":
            self._comma = where
        elif mark in _CLOSERS:
            self._open.append(_CLOSERS[mark])
        elif mark in ("}", "]"):
            if self._comma is not None:
                gap = (
                    before[len(before) - (where - self._comma - 1) :]
                    if (where - self._comma - 1 <= len(before))
                    else before
                )
                if where - self._comma == 1 or not gap.strip():
                    self._is_odd_from(self._comma)
            if self._open and self._open[-1] == mark:
                self._open.pop()
            if len(self._open) == 1 and self._args_end is None:
                self._args_end = where
        elif mark == '"' or (mark == "'" and self._open):
            self._quote = mark
            if mark == "'":
                self._is_odd_from(where)
        elif mark != "'":
            self._is_odd_from(where)

    def _is_odd_from(self, where: int) -> None:
        self._odd = where if self._odd is None else min(self._odd, where)

    def _end_of_what_is_sure(self, text: str, at: int) -> int:
        if self._quote and text.endswith("\\") and len(text) > at:
            return len(text) - 1
        tag = text.rfind("<", max(at, len(text) - 220))
        if tag >= 0 and (
            CALL_END.startswith(text[tag:])
            or CALL_START.startswith(text[tag:])
            or _MAY_OPEN.match(text, tag)
        ):
            return tag
        return len(text)

    def part(self) -> Iterator[CallPart]:
        """Return the part of the arguments that is certain while the call is open."""
        if self._has_head is None:
            self._find_head()
        stops = (self._args_end, self.doubt, self._odd, self._comma)
        end = min(self._length if at is None else at for at in stops)
        if self._has_head and self._sent < end:
            text = self._between(self._sent, end)
            is_first = self._sent == self._args_start
            self._sent = end
            yield CallPart(self._call, text, is_first, is_last=False)

    def _between(self, start: int, end: int) -> str:
        """Return a slice near the end of the text, without joining all of it."""
        last = self._length
        pieces: list[str] = []
        for piece in reversed(self._pieces):
            pieces.append(piece)
            last -= len(piece)
            if last <= start:
                break
        return "".join(reversed(pieces))[start - last : end - last]

    def _find_head(self) -> None:
        match = _HEAD.match(self.text)
        name = load(match[1]) if match else None
        if match and name:
            self._has_head = True
            self._call.name = bound_name(name, self._tools)
            self._args_start = self._sent = match.end()
        elif self._length > _LONGEST_HEAD:
            self._has_head = False

    def read(self, inner: str, *, is_closed: bool) -> list[tuple[str, dict[str, Any]]] | None:
        """Return the names and arguments of the calls, if all of them are valid."""
        if self._has_head is None:
            self._find_head()
        calls = read_calls(inner, self.tag, self._tools, is_closed=is_closed)
        if not calls or not self._has_head:
            return calls
        # What passed already must be the beginning of what the call is.
        return calls if calls[0] == (self._call.name, load(self._head_args(inner))) else None

    def _head_args(self, inner: str) -> str:
        """Return the first call's arguments as JSON, beginning with what was passed on."""
        for text in (inner, mended(inner)):
            try:
                end = json.JSONDecoder(strict=False).raw_decode(text, self._args_start)[1]
            except (ValueError, RecursionError):
                continue
            if text.startswith(inner[: self._sent]):
                return text[self._args_start : end]
        return ""

    def last_parts(
        self, inner: str, calls: list[tuple[str, dict[str, Any]]]
    ) -> Iterator[CallPart]:
        """Return the rest of the call, and the other calls in the same tag."""
        for number, (name, args) in enumerate(calls):
            call, sent = (LocalCall(), 0) if number else (self._call, 0)
            if number or not self._has_head:
                call.text = json.dumps(args, ensure_ascii=False)
            else:
                call.text = self._head_args(inner)
                sent = self._sent - self._args_start
            call.name, call.args = name, args
            yield CallPart(call, call.text[sent:], sent == 0, is_last=True)

    def broken(self, inner: str) -> CallPart:
        """Return the call as an invalid one."""
        call, sent = self._call, 0
        if self._has_head:
            call.text = inner[self._args_start :]
            sent = self._sent - self._args_start
        else:
            value = load(inner)
            name = value.get("name") if isinstance(value, Mapping) else None
            found = _NAME.search(inner)
            call.name = name if name and isinstance(name, str) else found[1] if found else None
            call.text = inner.strip()
        call.text += _unmistakable_end(call.text)
        return CallPart(call, call.text[sent:], sent == 0, is_last=True)


def _unmistakable_end(text: str) -> str:
    """Return what to append to broken JSON so that no lenient parser completes it.

    LangChain closes what is open when chunks are added up: half a call would be made whole.
    A bracket that closes nothing is what it does not mend. It also ends at once a search for
    something to mend, which takes very long for a long text.
    """
    if not text.startswith("{") and len(text) < 1000:
        return ""
    closers: list[str] = []
    in_string = False
    at = 0
    marks = re.compile(r'["{}\[\]]')
    while match := (_IN_STRING['"'] if in_string else marks).search(text, at):
        mark, at = match[0], match.end()
        if mark == '"':
            in_string = not in_string
        elif mark in _CLOSERS:
            closers.append(_CLOSERS[mark])
        elif mark in ("}", "]") and (not closers or closers.pop() != mark):
            return ""
    end = ('\\"' if text.endswith("\\") and at < len(text) else '"') if in_string else ""
    return end + ("]" if closers and closers[-1] == "}" else "}")
