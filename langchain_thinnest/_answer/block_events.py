"""The turn → LangChain's v3 content-block events, each block in its true place.

Text opens a block that stays open until a tool or the end comes; a tool's block opens and
closes the moment its event arrives; a local call's block is open while its arguments come.
Without these native events LangChain bridges chunks, gathers all text into one block, and
finishes tool blocks only at the end.
This module knows nothing of how an answer is fetched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

from langchain_thinnest._answer.message import Answer, call_block, tool_block
from langchain_thinnest._answer.tool_calls import CallPart
from langchain_thinnest._answer.turn import End, Piece
from langchain_thinnest._names import PROVIDER

if TYPE_CHECKING:
    from langchain_protocol.protocol import MessagesData

# What a block's start leaves out, for its finish to carry.
_HEAVY: dict[str, Any] = {"args": {}, "output": None}


class BlockEvents:
    """The events of one answer."""

    def __init__(self, answer: Answer, message_id: str) -> None:
        """Make the events of an answer, whose message will have this id."""
        self._answer = answer
        self._message_id = message_id
        self._has_started = False
        self._next = 0  # the index of the next block
        self._text: list[str] = []  # of the text block that is open
        self._call_index = 0  # of the local call that is open

    def of(self, piece: Piece) -> Iterator[MessagesData]:
        """Return the events for a piece of the answer."""
        if not self._has_started:
            self._has_started = True
            yield _event(
                "message-start",
                role="ai",
                id=self._message_id,
                metadata={"provider": PROVIDER, "model": self._answer.agent_id},
            )
        if isinstance(piece, str):
            if piece:
                yield from self._add_text(piece)
            return
        if self._text:
            text = {"type": "text", "text": "".join(self._text)}
            yield self._end(self._next - 1, text)
            self._text.clear()
        if isinstance(piece, End):
            yield self._finish()
        elif isinstance(piece, CallPart):
            yield from self._add_call(piece)
        else:
            block = tool_block(piece)
            light = {key: _HEAVY.get(key, value) for key, value in block.items()}
            yield self._start(light)
            yield self._end(self._next - 1, block)

    def before_the_end(self, piece: Piece) -> Iterable[MessagesData]:
        """Return the events for a piece, but none for `End`: the caller adds those last."""
        return () if type(piece) is End else self.of(piece)

    def _start(self, block: dict[str, Any]) -> MessagesData:
        self._next += 1
        return _event("content-block-start", index=self._next - 1, content=block)

    def _end(self, index: int, block: dict[str, Any]) -> MessagesData:
        block = {**block, "index": self._answer.block_index(index)}
        return _event("content-block-finish", index=index, content=block)

    def _add_text(self, text: str) -> Iterator[MessagesData]:
        if not self._text:
            yield self._start({"type": "text", "text": ""})
        self._text.append(text)
        delta = {"type": "text-delta", "text": text}
        yield _event("content-block-delta", index=self._next - 1, delta=delta)

    def _add_call(self, part: CallPart) -> Iterator[MessagesData]:
        """Keep a call's block open until the call ends; server tools may come in between."""
        call = part.call
        if part.is_first:
            chunk = {"type": "tool_call_chunk", "id": call.id, "name": call.name, "args": ""}
            yield self._start(chunk)
            self._call_index = self._next - 1
        index = self._call_index
        if part.text:
            delta = {"type": "tool-call-delta", "args": part.text}
            yield _event("content-block-delta", index=index, delta=delta)
        if part.is_last:
            yield self._end(index, call_block(call))

    def _finish(self) -> MessagesData:
        message = self._answer.message()
        metadata = message.response_metadata
        finish: dict[str, Any] = {"metadata": metadata}
        if "normalized_finish_reason" in metadata:  # then they are fields of the event, too
            keys = ("finish_reason", "normalized_finish_reason")
            finish.update((key, metadata[key]) for key in keys)
        if message.usage_metadata is not None:
            finish["usage"] = message.usage_metadata
        if message.additional_kwargs:  # no field of the protocol, but the framework takes it
            finish["additional_kwargs"] = message.additional_kwargs
        return _event("message-finish", **finish)


def _event(name: str, **fields: Any) -> MessagesData:
    return cast("MessagesData", {"event": name, **fields})
