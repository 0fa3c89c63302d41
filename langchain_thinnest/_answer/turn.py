"""Events → the answer so far: the one place that knows what an answer's events mean.

A turn is one message to an agent and the answer to it:

    text*, (tool_call, text*, tool_result, text*)*, done        whole
    ... error                                                   the agent failed
    ... end of the body                                         cut short

Text adds up. Tools stand at the text offset where they happened. No ids tie a result to its
call in the contract, so they pair by name, first called, first answered; an id the server
does send wins. With local tools, calls of them are found in the text, and stand in it too.
Everything that a caller sees (a message, chunks, content-block events, tool
runs) is a view of the turn, so that the views cannot disagree.
This module knows nothing of HTTP, of clocks, or of LangChain's callbacks and messages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from langchain_core.messages.ai import UsageMetadata

from langchain_thinnest._answer.call_forms import ToolSchemas
from langchain_thinnest._answer.events import (
    DoneEvent,
    ErrorEvent,
    TextEvent,
    ToolCallEvent,
    ToolResultEvent,
    parse_event,
    text_of,
)
from langchain_thinnest._answer.json_answer import JSONAnswer
from langchain_thinnest._answer.sse import Payload, SSEDecoder
from langchain_thinnest._answer.tool_calls import CallPart, CallScanner, LocalCall
from langchain_thinnest.errors import (
    ThinnestGenerationError,
    ThinnestProtocolError,
    ThinnestStreamError,
)


@dataclass(frozen=True, slots=True)
class ServerToolCall:
    """A call on the server, at `offset` characters of the text.

    `unanswered` is true where it is known already that no result will come.
    """

    id: str
    name: str
    args: dict[str, Any]
    offset: int
    server_id: str | None = None
    unanswered: bool = False


@dataclass(frozen=True, slots=True)
class ServerToolResult:
    """A call's result. `answers` is false for a result without a call."""

    id: str
    name: str
    result: Any
    offset: int
    answers: bool


@dataclass(frozen=True, slots=True)
class End:
    """The answer is over: `done` came, or a stop sequence was met."""


ServerTool = ServerToolCall | ServerToolResult
Piece = str | CallPart | ServerTool | End
"""What an event adds to an answer: text, a part of a local call, a server's tool call or
result, or the end."""


_PAGE = 1000  # texts


class Turn:
    """The answer so far.

    Attributes:
        tools: The server's tool calls and results, in order.
        local_calls: The calls of local tools, in order; the last one may not be whole.
        usage: The token counts of `done`, if they came.
        server_session_id: The session id in `done`, if one came.
        is_done: `done` came: the answer is whole.
        is_cut: A stop sequence ended the answer here, before the server did.
        events: How many events came, also those that mean nothing here.
    """

    def __init__(
        self,
        *,
        max_event_bytes: int,
        stop: Sequence[str] = (),
        taken_ids: Iterable[str] = (),
        local_tools: ToolSchemas | None = None,
    ) -> None:
        """Begin a turn.

        Args:
            max_event_bytes: The most bytes that one event may have.
            stop: Sequences at whose first match the text ends.
            taken_ids: Ids of tool calls that the conversation has had: a state keeps them
                for ever, so they are not given again, whatever the server sends.
            local_tools: The parameters of the bound tools by name, to look for their calls in
                the text; `None` for no such calls.
        """
        self.tools: list[ServerTool] = []
        self.local_calls: list[LocalCall] = []
        self.usage: UsageMetadata | None = None
        self.server_session_id: str | None = None
        self.is_done = False
        self.is_cut = False
        self.events = 0
        self._max_event_bytes = max_event_bytes
        self._decoder = SSEDecoder(max_event_bytes)
        self._json: JSONAnswer | None = None
        self._stop = _StopFilter(stop) if stop else None
        self._scanner = CallScanner(local_tools) if local_tools is not None else None
        self._is_plain = not stop and local_tools is None
        # Many small strings take many times the memory of their text: they are put together.
        # (`StringIO` would do, but up to Python 3.11 it keeps 100,000 of them as they are.)
        self._pages: list[str] = []
        self._texts: list[str] = []
        self._open: dict[str, ServerToolCall] = {}  # by their ids
        self._number: dict[str, int] = {}  # of each call, by its id
        self._by_server_id: dict[str, deque[ServerToolCall]] = {}
        self._by_name: dict[tuple[str, bool], deque[ServerToolCall]] = {}
        self._ids = set(taken_ids)

    @property
    def text(self) -> str:
        """The whole text so far."""
        return "".join([*self._pages, *self._texts])

    @property
    def _length(self) -> int:
        return sum(map(len, self._pages)) + sum(map(len, self._texts))

    @property
    def is_over(self) -> bool:
        """Whether nothing more can be added."""
        return self.is_done or self.is_cut

    @property
    def open_calls(self) -> Sequence[ServerToolCall]:
        """The calls that have no result yet, oldest first."""
        return list(self._open.values())

    @property
    def rest(self) -> dict[str, Any]:
        """The fields of an answer in JSON that a stream does not have."""
        return self._json.rest if self._json is not None else {}

    def expect_json(self, without_key: Callable[[str], str] = str) -> None:
        """Read the body as one JSON object instead of a stream.

        Args:
            without_key: Takes the API key from a text, in which the server may tell it back.
        """
        self._json = JSONAnswer(self._max_event_bytes, without_key)

    def feed(self, data: bytes | ThinnestStreamError) -> str | Iterable[Piece]:
        """Take the next bytes of the body, or the reason why there are no more.

        Args:
            data: Bytes, cut anywhere; or the error to raise, since the body ended, unless
                a last line without a newline makes the answer whole after all.

        Returns:
            What they add to the answer: one piece for one event, unless a text holds calls.
            Bytes that are one event of text and no more, as most are, give that text. All
            else is known to the turn once it has been iterated over.

        Raises:
            ThinnestGenerationError: For an `error` event.
            ThinnestInterruptedError: If the body ended before `done`.
            ThinnestProtocolError: For bytes that cannot be the contract.
        """
        if isinstance(data, ThinnestStreamError):
            return self._end(data)
        if self._json is not None:
            self._json.feed(data)
            return ()
        if self._is_plain and (payload := self._decoder.only_event(data)):
            text = text_of(payload)
            if text is not None:
                self.events += 1
                return self._hear(text)
            return self._take_one(payload)
        return self._take_all(data)

    def _take_one(self, payload: Payload) -> Iterator[Piece]:
        self.events += 1
        yield from self._take(payload)

    def _take_all(self, data: bytes) -> Iterator[Piece]:
        try:
            for payload in self._decoder.feed(data):
                self.events += 1
                text = text_of(payload) if self._is_plain else None
                if text is not None:
                    yield self._hear(text)
                    continue
                yield from self._take(payload)
                if self.is_over:
                    return
        except ThinnestProtocolError:
            yield from self._flush()  # what came counts, whatever follows it
            if not self.is_over:
                raise

    def _hear(self, text: str) -> str:
        texts = self._texts
        texts.append(text)
        if len(texts) == _PAGE:
            self._pages.append("".join(texts))
            texts.clear()
        return text

    def _end(self, reason: ThinnestStreamError) -> Iterator[Piece]:
        if self._json is not None:
            payloads = self._json.finish(reason)
            # Known at once, also where a stop sequence cuts the text before `done`.
            self.server_session_id = payloads[-1].get("session_id")
        else:
            last = self._decoder.flush()
            payloads = [] if last is None else [last]
        for payload in payloads:
            yield from self._take(payload)
            if self.is_over:
                return
        yield from self._flush()
        if not self.is_over:
            raise reason

    def _take(self, payload: Payload) -> Iterator[Piece]:
        event = parse_event(payload)
        if event is None:
            return
        if isinstance(event, TextEvent):
            yield from self._add_text(event.content)
            return
        is_last = isinstance(event, (DoneEvent, ErrorEvent))
        yield from self._flush() if is_last else self._release()
        if self.is_cut:
            return
        if isinstance(event, ToolCallEvent):
            call = ServerToolCall(
                self._new_id(event.id),
                event.name,
                event.args,
                self._length,
                event.id,
                unanswered=self._json is not None and event.id in self._json.unanswered,
            )
            self.tools.append(call)
            self._open[call.id] = call
            self._number[call.id] = len(self._number)
            if event.id:
                self._by_server_id.setdefault(event.id, deque()).append(call)
            self._by_name.setdefault((call.name, bool(event.id)), deque()).append(call)
            yield call
        elif isinstance(event, ToolResultEvent):
            result = self._answer(event)
            self.tools.append(result)
            yield result
        elif isinstance(event, DoneEvent):
            self.is_done = True
            self.usage = event.usage
            self.server_session_id = event.session_id
            yield End()
        elif isinstance(event, ErrorEvent):
            raise ThinnestGenerationError(
                f"The agent failed while generating: {event.message}",
                detail=event.message,
            )

    def _add_text(self, content: str) -> Iterator[Piece]:
        if self._scanner is None:
            return self._add_spoken(content)
        return self._add_scanned(self._scanner.feed(content))

    def _add_scanned(self, found: Iterator[str | CallPart]) -> Iterator[Piece]:
        for piece in found:
            if isinstance(piece, str):
                yield from self._add_spoken(piece)
                if self.is_cut:
                    return
            else:
                if piece.is_first:
                    yield from self._release_stop()
                    self._place(piece.call)
                yield piece

    def _place(self, call: LocalCall) -> None:
        call.id = self._new_id(None)
        call.index = len(self.local_calls)
        call.offset = self._length
        call.tools_before = len(self.tools)
        self.local_calls.append(call)

    def _add_spoken(self, text: str) -> Iterator[Piece]:
        if self._stop is not None:
            text, self.is_cut = self._stop.feed(text)
        if text or self._stop is None:  # one piece for one event, but none for a held one
            yield self._hear(text)
        if self.is_cut:
            yield End()

    def _release(self) -> Iterator[Piece]:
        """Return the text that was held back: no tag or sequence crosses an event."""
        if self._scanner is not None:
            yield from self._add_scanned(self._scanner.release())
        yield from self._release_stop()

    def _flush(self) -> Iterator[Piece]:
        """Return all text that was held back, since nothing follows."""
        if self._scanner is not None:
            yield from self._add_scanned(self._scanner.flush())
        yield from self._release_stop()

    def _release_stop(self) -> Iterator[Piece]:
        held = self._stop.release() if self._stop is not None and not self.is_cut else ""
        if held:
            yield self._hear(held)

    def _answer(self, event: ToolResultEvent) -> ServerToolResult:
        call = self._first_open(self._by_server_id.get(event.id)) if event.id else None
        if call is None:
            named = [self._first_open(self._by_name.get((event.name, False)))]
            if not event.id:
                named.append(self._first_open(self._by_name.get((event.name, True))))
            # Of those with and without an id, the one that was called first.
            call = min(
                (c for c in named if c is not None),
                key=lambda c: self._number[c.id],
                default=None,
            )
        if call is None:
            return ServerToolResult(
                self._new_id(event.id), event.name, event.result, self._length, False
            )
        del self._open[call.id]
        return ServerToolResult(call.id, call.name, event.result, self._length, True)

    def _first_open(self, calls: deque[ServerToolCall] | None) -> ServerToolCall | None:
        while calls:
            if calls[0].id in self._open:
                return calls[0]
            calls.popleft()
        return None

    def _new_id(self, id_: str | None) -> str:
        """Return the server's id, or a new one if it is missing or taken."""
        if not id_ or id_ in self._ids:
            id_ = f"call_{uuid4().hex}"
        self._ids.add(id_)
        return id_


class _StopFilter:
    """Passes text up to the first stop sequence, holding back only what may begin one."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = stop
        self._held = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """Return the text that is free to go, and whether a sequence ended it."""
        text = self._held + text
        found = [at for at in map(text.find, self._stop) if at >= 0]
        if found:
            return text[: min(found)], True
        held = max(
            size
            for stop in self._stop
            for size in range(len(stop))
            if text.endswith(stop[:size])
        )
        self._held = text[len(text) - held :]
        return text[: len(text) - held], False

    def release(self) -> str:
        """Return what was held: nothing that begins a sequence follows it."""
        held, self._held = self._held, ""
        return held
