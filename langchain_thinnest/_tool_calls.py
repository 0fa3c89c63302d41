"""Text of an answer → text and calls of local tools: the tool protocol as it is read.

    I will look. <tool_call>{"name": "search", "arguments": {"query": "x"}}</tool_call> Then...

Text passes the moment it comes, in the pieces it came in; only an end that may begin a tag is
held back. A call's arguments pass as they come too, once its name is known, but for their
last bracket, which waits until the call proves right. What is what:

- A tag in a Markdown code fence is text.
- A call ends at the first `</tool_call>` outside its JSON strings. One inside a string is a
  part of it if the JSON turns out right; if not, the call ended there.
- The next `<tool_call>`, or the end of the answer, ends a call too: right if it is whole JSON.
- Tags with nothing in between are text, and so is a last tag that no JSON follows: who speaks
  of tags calls nothing.
- Right is an object with a `name` and, if any, `arguments`: an object, or a string that holds
  one. All else between tags is an invalid call, which keeps its text.

This module knows nothing of events, of messages, or of which tools there are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

START = "<tool_call>"
END = "</tool_call>"

# As far as a call's name is looked for before the call is taken as a whole, at its end.
_LONGEST_HEAD = 400
_HEAD = re.compile(
    r'\s*\{\s*"name"\s*:\s*("(?:[^"\\\x00-\x1f]|\\.)+")\s*,\s*"arguments"\s*:\s*(?=\{)'
)
_NAME = re.compile(r'"name"\s*:\s*"([^"\\]+)"')
_IN_STRING = re.compile(r'\\.|"|</?tool_call>', re.DOTALL)
_OUTSIDE = re.compile(r'["{}\[\]]|</?tool_call>')
_FENCED = re.compile(r"\s*(`{3,}|~{3,})[^\n`]*\n(.*?)\n[ \t]*\1\s*", re.DOTALL)
_CLOSERS = {"{": "}", "[": "]"}


@dataclass(slots=True)
class LocalCall:
    """A call that the agent makes of a tool on this side.

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
    """What a piece of text adds to a call: the next part of its arguments."""

    call: LocalCall
    text: str
    is_first: bool
    is_last: bool


class CallScanner:
    """Finds the calls in an answer's text."""

    def __init__(self) -> None:
        """Begin an answer."""
        self._held = ""
        self._fences = _Fences()
        self._body: _Body | None = None  # of the call that is open
        self._last = ""  # the last character of text

    def feed(self, text: str) -> Iterator[str | CallPart]:
        """Take the next piece of text, cut anywhere.

        Yields:
            The text that is free to go and the parts of calls, in order.
        """
        if not text and self._body is None and not self._held:
            yield text  # one piece for one event, be it empty
        text, self._held = self._held + text, ""
        at = 0
        while at < len(text):
            if self._body is None:
                start = self._find_call(text, at)
                if free := text[at : start if start >= 0 else len(text) - len(self._held)]:
                    self._last = free[-1]
                    yield free
                if start < 0:
                    return
                self._body = _Body()
                at = start + len(START)
            end, tag = self._body.feed(text, at)
            if not tag:
                self._held = text[end:]
                yield from self._body.part()
                return
            text, at = yield from self._close(text, end, tag)

    def release(self) -> Iterator[str | CallPart]:
        """Give the text that was held back: something else came, so no tag goes on."""
        if self._held and self._body is None:
            held, self._held = self._held, ""
            self._last = held[-1]
            self._fences.feed(held)
            yield held

    def flush(self) -> Iterator[str | CallPart]:
        """Give all that is left, since the answer is over."""
        while self._body is not None:
            self._body.take(self._held)
            self._held = ""
            rest, _ = yield from self._close("", 0, "")
            if rest:
                yield from self.feed(rest)
        yield from self.release()

    def _find_call(self, text: str, seen: int) -> int:
        """Where the next call begins, or -1; then what may begin a tag is held."""
        at = seen
        while (at := text.find("<", at)) >= 0:
            if START.startswith(text[at : at + len(START)]):
                self._fences.feed(text[seen:at])
                seen = at
                if not self._fences.is_open:
                    if text.startswith(START, at):
                        return at
                    self._held = text[at:]
                    return -1
            at += 1
        self._fences.feed(text[seen:])
        return -1

    def _close(
        self, text: str, end: int, tag: str
    ) -> Generator[str | CallPart, None, tuple[str, int]]:
        """End the open call at a tag, or at the answer's end, and say where to read on."""
        assert self._body is not None  # noqa: S101
        body, self._body = self._body, None
        inner = body.text
        value = _load(inner)
        at = end + len(tag) if tag == END else end
        if value is None and body.doubt is not None:
            # The string that the tag stood in was none: the call ended there.
            at = end - (len(inner) - body.doubt) + len(END)
            if at < 0 or not tag:
                text, at = inner[body.doubt + len(END) :] + text[end:], 0
            inner, tag = inner[: body.doubt], END
        if self._is_call(inner, tag):
            yield body.last_part(inner, value)
        else:
            spoken = START + inner + (END if tag == END else "")
            self._fences.feed(spoken)
            self._last = spoken[-1]
            yield spoken
        return text, at

    def _is_call(self, inner: str, tag: str) -> bool:
        inner = inner.strip()
        if not inner.startswith("{"):
            return bool(inner) and tag == END and self._last != "`"
        return True


class _Body:
    """What follows a start tag, as far as it came.

    Attributes:
        doubt: Where the first end tag within a string stands.
    """

    def __init__(self) -> None:
        self.doubt: int | None = None
        self._call = LocalCall()
        self._pieces: list[str] = []
        self._length = 0
        self._in_string = False
        self._open: list[str] = []  # the closers of what is open
        self._has_head: bool | None = None
        self._args_start = 0
        self._args_end: int | None = None  # where their last bracket stands
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
        while match := (_IN_STRING if self._in_string else _OUTSIDE).search(text, at):
            mark, at = match[0], match.end()
            if mark == '"':
                self._in_string = not self._in_string
            elif mark in _CLOSERS:
                self._open.append(_CLOSERS[mark])
            elif mark in ("}", "]"):
                if self._open and self._open[-1] == mark:
                    self._open.pop()
                if len(self._open) == 1 and self._args_end is None:
                    self._args_end = before + match.start()
            elif not self._in_string:
                self.take(text[start : match.start()])
                return match.start(), mark
            elif mark == END and self.doubt is None:
                self.doubt = before + match.start()
        end = self._end_of_what_is_sure(text, at)
        self.take(text[start:end])
        return end, ""

    def _end_of_what_is_sure(self, text: str, at: int) -> int:
        if self._in_string and text.endswith("\\") and len(text) > at:
            return len(text) - 1
        tag = text.rfind("<", max(at, len(text) - len(END)))
        if tag >= 0 and (END.startswith(text[tag:]) or START.startswith(text[tag:])):
            return tag
        return len(text)

    def part(self) -> Iterator[CallPart]:
        """What can pass of the arguments while the call is open."""
        if self._has_head is None:
            self._find_head()
        end = min(self._length if at is None else at for at in (self._args_end, self.doubt))
        if self._has_head and self._sent < end:
            last = self._length - len(self._pieces[-1])  # what came before it was sent
            text = self._pieces[-1][self._sent - last : end - last]
            is_first = self._sent == self._args_start
            self._sent = end
            yield CallPart(self._call, text, is_first, is_last=False)

    def _find_head(self) -> None:
        match = _HEAD.match(self.text)
        name = _load(match[1]) if match else None
        if match and name:
            self._has_head = True
            self._call.name = name
            self._args_start = self._sent = match.end()
        elif self._length > _LONGEST_HEAD:
            self._has_head = False

    def last_part(self, inner: str, value: Any) -> CallPart:
        """What the end makes of the call.

        Args:
            inner: What stands between the tags.
            value: The JSON that it is, if it is.
        """
        if self._has_head is None:
            self._find_head()
        call = self._call
        is_first = not self._has_head or self._sent == self._args_start
        name, args = _name_and_args(value)
        if self._has_head:
            end = len(inner) if self._args_end is None else self._args_end + 1
            call.text = inner[self._args_start : end]
            if args is None or name != call.name or args != _load(call.text):
                args = None
                call.text = inner[self._args_start :]
            sent = self._sent - self._args_start
        else:
            found = _NAME.search(inner)
            call.name = name or (found[1] if found else None)
            call.text = json.dumps(args, ensure_ascii=False) if args is not None else inner
            call.text = call.text.strip()
            sent = 0
        if args is None:
            call.text += _unmistakable_end(call.text)
        call.args = args
        return CallPart(call, call.text[sent:], is_first, is_last=True)


class _Fences:
    """Whether a place in Markdown text is within a code fence."""

    _LINE_END = re.compile(r"\r\n|\r|\n")
    # In quotes and lists too. Backticks with more of them on their line are no fence.
    _OPENER = re.compile(
        r"(?:[ \t>]|[-*+][ \t]|\d{1,9}[.)][ \t])*(?:(`{3,})[^`]*|(~{3,}).*)", re.DOTALL
    )
    _CLOSER = re.compile(r"[ \t>]*(`{3,}|~{3,})[ \t]*")
    _LONGEST = 500  # what a line begins with says what it is

    def __init__(self) -> None:
        self._marks = ""  # of the fence that is open
        self._line = ""

    @property
    def is_open(self) -> bool:
        return bool(self._marks or self._OPENER.fullmatch(self._line))

    def feed(self, text: str) -> None:
        """Go on by some text."""
        *lines, last = self._LINE_END.split(text)
        for line in lines:
            self._end_line(self._line + line)
            self._line = ""
        if len(self._line) < self._LONGEST:
            self._line += last

    def _end_line(self, line: str) -> None:
        if not self._marks:
            if opener := self._OPENER.fullmatch(line):
                self._marks = opener[1] or opener[2]
        elif (closer := self._CLOSER.fullmatch(line)) and closer[1].startswith(self._marks):
            self._marks = ""


def _load(text: str) -> Any:
    """The JSON value that a text is, be it in a fence, or `None`."""
    fenced = _FENCED.fullmatch(text)
    try:
        return json.loads(fenced[2] if fenced else text, strict=False)
    except (ValueError, RecursionError):
        return None


def _name_and_args(value: Any) -> tuple[str | None, dict[str, Any] | None]:
    """A call's name and arguments, each `None` if they are not right."""
    if not isinstance(value, dict):
        return None, None
    name, args = value.get("name"), value.get("arguments")
    if isinstance(args, str):
        args = _load(args) if args.strip() else {}
    elif args is None and value.keys() <= {"name", "arguments"}:
        args = {}
    if not isinstance(name, str) or not name:
        return None, None
    return name, args if isinstance(args, dict) else None


def _unmistakable_end(text: str) -> str:
    """What to add to broken JSON so that no lenient reader mends it to something whole.

    LangChain closes what is open when chunks are added up: half a call would be made whole.
    A bracket that closes nothing is what it does not mend. It also ends at once a search for
    something to mend, which takes very long for a long text.
    """
    if not text.startswith("{") and len(text) < 1000:
        return ""
    closers: list[str] = []
    in_string = False
    at = 0
    while match := (_IN_STRING if in_string else _OUTSIDE).search(text, at):
        mark, at = match[0], match.end()
        if mark == '"':
            in_string = not in_string
        elif mark in _CLOSERS:
            closers.append(_CLOSERS[mark])
        elif mark in ("}", "]") and (not closers or closers.pop() != mark):
            return ""
    end = ('\\"' if text.endswith("\\") and at < len(text) else '"') if in_string else ""
    return end + ("]" if closers and closers[-1] == "}" else "}")
