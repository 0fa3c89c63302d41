"""The turn → LangChain: one message, or chunks, or content blocks, of the same answer.

How `content` and `additional_kwargs` tell of tools, `content_blocks.py` says.
This module knows nothing of how an answer is fetched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, cast
from uuid import uuid4

from langchain_core.messages import AIMessage, AIMessageChunk, InvalidToolCall, ToolMessage
from langchain_core.messages.tool import (
    ToolCall,
    invalid_tool_call,
    tool_call,
    tool_call_chunk,
)
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.version import VERSION

from langchain_thinnest._answer.content_blocks import block_of_raw
from langchain_thinnest._answer.places import around
from langchain_thinnest._answer.tool_calls import CallPart, LocalCall
from langchain_thinnest._answer.turn import (
    End,
    Piece,
    ServerTool,
    ServerToolCall,
    ServerToolResult,
    Turn,
)
from langchain_thinnest._names import POSITIONS, PROVIDER, SERVER_TOOLS, SURROUNDINGS

# Our keys of `response_metadata`; a server's key of that name gets a prefix.
_OURS = frozenset(
    {
        "finish_reason",
        "model_name",
        "model_provider",
        "normalized_finish_reason",
        "output_version",
        "rate_limit",
        "request_id",
        "server_session_id",
        "session_id",
    }
)
# LangChain has a reason to finish that is the same for all providers since 1.8.4.
NORMALIZES = tuple(map(int, re.findall(r"\d+", VERSION)[:3])) >= (1, 8, 4)
# LangChain parses the arguments of each chunk; above this length that is slow.
_LONG_PART = 2000


class Answer:
    """LangChain's views of one turn."""

    def __init__(
        self,
        turn: Turn,
        *,
        agent_id: str,
        session_id: str | None,
        as_blocks: bool,
        segment_id: str | None = None,
    ) -> None:
        """Make the views.

        Args:
            turn: The turn to view.
            agent_id: The agent that answers; it takes the place of a model's name.
            session_id: The session that was sent.
            as_blocks: Make `content` content blocks (`output_version="v1"`), not a string.
            segment_id: Give the chunks ids made of this and the number of the AI message
                that they will be part of once the answer is expanded. Default: no ids, so
                that the framework gives all chunks the run's.
        """
        self.turn = turn
        self.rate_limit: dict[str, int] | None = None
        """What the response's headers say of the rate limit, once they came."""
        self.request_id: str | None = None
        """What the server calls the request, once its answer began: support asks for it."""
        self.agent_id = agent_id
        self._session_id = session_id
        self._as_blocks = as_blocks
        self._metadata = {"model_provider": PROVIDER}
        if as_blocks:
            self._metadata["output_version"] = "v1"
        # Blocks of a v1 stream, so that chunks add up to them: a piece of text goes on with
        # the block before it, and a tool begins one of its own.
        self._block = -1
        self._mark = ""
        self._block_is_text = False
        self._segment_id = segment_id
        self._segment = 0
        self._was_result = False

    def message(self) -> AIMessage:
        """Return the answer so far as one message; whole once the turn is over."""
        turn = self.turn
        message = AIMessage(
            content=turn.text,
            additional_kwargs={
                **_raw(turn.tools),
                **_positions(turn.local_calls),
                **_surroundings(turn),
            },
            tool_calls=[_valid(c) for c in turn.local_calls if c.args is not None],
            invalid_tool_calls=[_invalid(c) for c in turn.local_calls if c.args is None],
            response_metadata=self._response_metadata(),
            usage_metadata=turn.usage,
        )
        if self._as_blocks:
            content = cast("list[str | dict[Any, Any]]", message.content_blocks)
            message.content = content
            message.response_metadata["output_version"] = "v1"
        return message

    def chunk(self, piece: Piece) -> ChatGenerationChunk:
        """Turn a piece of the answer into a chunk; `End` becomes the last, with the usage."""
        if isinstance(piece, str) and not self._as_blocks:
            chunk = _text_chunk(piece)
            if self._segment_id is not None:
                chunk.message.id = self._id_of(piece)
            return chunk
        if isinstance(piece, End):
            message = self._last_chunk()
        elif isinstance(piece, CallPart):
            message = self._call_chunk(piece)
        elif self._as_blocks or isinstance(piece, str):
            message = self._block_chunk(piece)
        else:
            message = AIMessageChunk(
                content="",
                additional_kwargs=_raw([piece]),
                response_metadata=self._metadata,
            )
        if self._segment_id is not None:
            message.id = self._id_of(piece)
        return ChatGenerationChunk(message=message)

    def block_index(self, number: int) -> str:
        """Return the `index` of a content block, unique among answers.

        LangChain puts blocks of one index together, also when it merges two messages.
        """
        self._mark = self._mark or f"lc_{uuid4().hex[:16]}"
        return f"{self._mark}_{number}"

    def _id_of(self, piece: Piece) -> str:
        # A result without a call becomes a call, too.
        goes_on = isinstance(piece, End) or (
            isinstance(piece, ServerToolResult) and piece.answers
        )
        if self._was_result and not goes_on:
            self._segment += 1
        is_unanswered = isinstance(piece, ServerToolCall) and piece.unanswered
        self._was_result = isinstance(piece, ServerToolResult) or is_unanswered
        return f"{self._segment_id}-{self._segment}"

    def _last_chunk(self) -> AIMessageChunk:
        return AIMessageChunk(
            content=[] if self._as_blocks else "",
            additional_kwargs=_surroundings(self.turn),
            response_metadata={**self._metadata, **self._response_metadata()},
            usage_metadata=self.turn.usage,
            chunk_position="last",
        )

    def _call_chunk(self, part: CallPart) -> AIMessageChunk:
        chunk = tool_call_chunk(
            name=part.call.name if part.is_first else None,
            args=part.text,
            id=part.call.id if part.is_first else None,
            index=part.call.index,
        )
        content: list[str | dict[Any, Any]] = []
        if self._as_blocks and part.is_last:  # it is known now what the call is
            self._block += 1
            self._block_is_text = False
            content = [{**call_block(part.call), "index": self.block_index(self._block)}]
        message = AIMessageChunk(
            content=content if self._as_blocks else "",
            additional_kwargs=_positions([part.call]) if part.is_first else {},
            response_metadata=self._metadata,
            tool_call_chunks=[chunk] if len(part.text) < _LONG_PART else [],
        )
        message.tool_call_chunks = [chunk]  # a long one was kept from LangChain's reading
        return message

    def _block_chunk(self, piece: str | ServerTool) -> AIMessageChunk:
        is_text = isinstance(piece, str)
        if not (is_text and self._block_is_text):
            self._block += 1
        self._block_is_text = is_text
        block: dict[str, Any] = (
            {"type": "text", "text": piece} if isinstance(piece, str) else tool_block(piece)
        )
        return AIMessageChunk(
            content=[{**block, "index": self.block_index(self._block)}],
            additional_kwargs={} if isinstance(piece, str) else _raw([piece]),
            response_metadata=self._metadata,
        )

    def _response_metadata(self) -> dict[str, Any]:
        turn = self.turn
        metadata: dict[str, Any] = {
            "model_provider": PROVIDER,
            "model_name": self.agent_id,
        }
        if turn.is_over:
            metadata["finish_reason"] = "stop_sequence" if turn.is_cut else "stop"
            if NORMALIZES:
                calls = any(call.args is not None for call in turn.local_calls)
                metadata["normalized_finish_reason"] = "tool_call" if calls else "stop"
        session_id = self._session_id or turn.server_session_id
        if session_id:
            metadata["session_id"] = session_id
        if turn.server_session_id and turn.server_session_id != session_id:
            metadata["server_session_id"] = turn.server_session_id
        if self.rate_limit:
            metadata["rate_limit"] = self.rate_limit
        if self.request_id:
            metadata["request_id"] = self.request_id
        for key, value in turn.rest.items():
            while key in _OURS or key in metadata:
                key = f"server_{key}"  # noqa: PLW2901
            metadata[key] = value
        return metadata


_TEXT = AIMessageChunk(content="", response_metadata={"model_provider": PROVIDER})
_TEXT_CHUNK = ChatGenerationChunk(message=_TEXT)
_set = object.__setattr__


def _text_chunk(text: str) -> ChatGenerationChunk:
    """Make a chunk of text, as a copy of a finished one.

    There is one for every event, and pydantic's way to make one takes as long as all else that
    is done for an event: it validates, though there is nothing here that could be wrong.
    """
    message = AIMessageChunk.__new__(AIMessageChunk)
    own = {
        "content": text,
        "additional_kwargs": {},
        "response_metadata": {"model_provider": PROVIDER},
        "tool_calls": [],
        "invalid_tool_calls": [],
        "tool_call_chunks": [],
    }
    _set(message, "__dict__", {**_TEXT.__dict__, **own})
    _set(message, "__pydantic_fields_set__", {*_TEXT.__pydantic_fields_set__})
    _set(message, "__pydantic_extra__", {})
    _set(message, "__pydantic_private__", None)
    chunk = ChatGenerationChunk.__new__(ChatGenerationChunk)
    _set(chunk, "__dict__", {**_TEXT_CHUNK.__dict__, "text": text, "message": message})
    _set(chunk, "__pydantic_fields_set__", {*_TEXT_CHUNK.__pydantic_fields_set__})
    _set(chunk, "__pydantic_extra__", None)
    _set(chunk, "__pydantic_private__", None)
    return chunk


def tool_message(result: ServerToolResult) -> ToolMessage:
    """Turn a tool's result into the message that an agent loop would have made."""
    return as_tool_message(result.id, result.name, result.result)


def as_tool_message(call_id: str, name: str, output: Any) -> ToolMessage:
    """Turn a tool's output into a message: a string as it is, anything else as JSON.

    Its id follows from the call's, so that it is one message wherever it is made again.
    """
    fields = {"tool_call_id": call_id, "name": name, "id": f"{call_id}-result"}
    if isinstance(output, str):
        return ToolMessage(output, **fields)
    text = json.dumps(output, ensure_ascii=False, default=str)
    return ToolMessage(text, artifact=output, **fields)


def _raw(tools: Iterable[ServerTool]) -> dict[str, Any]:
    raw = [
        {
            "type": "call",
            "id": tool.id,
            "name": tool.name,
            "args": tool.args,
            "offset": tool.offset,
            **({"unanswered": True} if tool.unanswered else {}),
        }
        if isinstance(tool, ServerToolCall)
        else {
            "type": "result",
            "id": tool.id,
            "name": tool.name,
            "result": tool.result,
            "offset": tool.offset,
        }
        for tool in tools
    ]
    return {SERVER_TOOLS: raw} if raw else {}


def _positions(calls: Iterable[LocalCall]) -> dict[str, Any]:
    positions = {call.id: [call.offset, call.tools_before] for call in calls}
    return {POSITIONS: positions} if positions else {}


def _surroundings(turn: Turn) -> dict[str, Any]:
    """Return the text around each tool: one entry for a local call, two for a server's."""
    if not (turn.tools or turn.local_calls):
        return {}
    text = turn.text
    found: dict[str, list[list[str]]] = {}
    for tool in (*turn.tools, *turn.local_calls):
        found.setdefault(tool.id, []).append([*around(text, tool.offset)])
    return {SURROUNDINGS: {next(iter(found)): {"length": len(text), "around": found}}}


def _valid(call: LocalCall) -> ToolCall:
    return tool_call(name=call.name or "", args=call.args or {}, id=call.id)


def _invalid(call: LocalCall) -> InvalidToolCall:
    return invalid_tool_call(name=call.name, args=call.text, id=call.id, error=None)


def call_block(call: LocalCall) -> dict[str, Any]:
    """Turn a local call into a standard content block."""
    return cast("dict[str, Any]", _valid(call) if call.args is not None else _invalid(call))


def tool_block(tool: ServerTool) -> dict[str, Any]:
    """Turn a server tool's call or result into a standard content block."""
    return block_of_raw(_raw([tool])[SERVER_TOOLS][0])
