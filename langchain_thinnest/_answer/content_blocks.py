"""One message → its content blocks: text and tools, interleaved as they happened.

`content` is one string, whether or not tools ran. The server's tools ride beside it in
`additional_kwargs["server_tools"]`, each with the text offset where it happened:

    {"type": "call", "id": ..., "name": ..., "args": {...}, "offset": 83}
    {"type": "result", "id": ..., "name": ..., "result": ..., "offset": 83}

A call of an answer in JSON that does not tell its result has `"unanswered": True` too.

`tool_calls` holds the calls of local tools alone: an agent loop would run again what the
server ran. Where they stand, `additional_kwargs["tool_call_positions"]` says by their ids: how
many characters of text, and how many of the server's tools, stand before them. Offsets are
true for one text: so that tools are found again in an edited or merged one, the last chunk
adds what stands around each, in `additional_kwargs["tool_surroundings"]`, by the first id of
the answer (merged messages hold several answers) and the ids of its tools:

    {"call_1": {"length": 130, "around": {"call_1": [["before", "after"], ...]}}}

`content_blocks` interleaves all this, by the translator registered here for the provider
`thinnest`.
This module knows nothing of how an answer is fetched, or how its message is made.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk, InvalidToolCall
from langchain_core.messages.block_translators import register_translator
from langchain_core.messages.content import ContentBlock
from langchain_core.messages.tool import ToolCall, ToolCallChunk

from langchain_thinnest._answer.places import Place, find
from langchain_thinnest._names import POSITIONS, PROVIDER, SERVER_TOOLS, SURROUNDINGS


def block_of_raw(raw: dict[str, Any]) -> dict[str, Any]:
    """Turn a raw call or result into a standard content block."""
    if raw["type"] == "call":
        return {
            "type": "server_tool_call",
            "id": raw["id"],
            "name": raw["name"],
            "args": raw["args"],
            **({"extras": {"unanswered": True}} if raw.get("unanswered") else {}),
        }
    return {
        "type": "server_tool_result",
        "tool_call_id": raw["id"],
        "status": "success",
        "output": raw["result"],
        "extras": {"name": raw["name"]},
    }


def blocks_of(message: AIMessage) -> list[dict[str, Any]]:
    """Return the content blocks of an answer, also of one that was edited or merged."""
    try:
        blocks: list[Any] = _content_blocks(message)
    except NotImplementedError:
        blocks = message.content_blocks
    return [{"type": "text", "text": b} if isinstance(b, str) else b for b in blocks]


def _content_blocks(message: AIMessage) -> list[ContentBlock]:
    """Translate a message: text and tools, interleaved as they happened."""
    if message.additional_kwargs.keys() & {SERVER_TOOLS, POSITIONS}:
        items = _Items(message)
        if isinstance(message.content, str) or items.has_server_tools:
            return cast("list[ContentBlock]", items.interleaved())
    raise NotImplementedError  # nothing to interleave: the framework knows what to do


@dataclass(frozen=True, slots=True)
class _Item:
    """A tool to insert into the text."""

    block: dict[str, Any]
    answer: str | None  # the first id of the answer that it belongs to, if that is known
    offset: int
    around: tuple[str, str] | None


class _Items:
    """The tools of a message that are not in its content yet, and where they belong."""

    def __init__(self, message: AIMessage) -> None:
        content: list[str | dict[Any, Any]] = []
        content += [message.content] if isinstance(message.content, str) else message.content
        self._message = message
        self._content = content
        extra = message.additional_kwargs
        self._kept: dict[str, Any] = extra.get(SURROUNDINGS) or {}
        self._answer_of = {id_: key for key in self._kept for id_ in self._kept[key]["around"]}
        self._positions: dict[str, Any] = extra.get(POSITIONS) or {}
        there = {
            (block.get("type"), block.get("id") or block.get("tool_call_id"))
            for block in content
            if isinstance(block, dict)
        }
        self._tools = [
            self._item(block, raw["id"], raw["offset"])
            for raw in extra.get(SERVER_TOOLS) or ()
            if (block := block_of_raw(raw)) and (block["type"], raw["id"]) not in there
        ]
        self.has_server_tools = bool(self._tools)
        self._calls = self._local_calls()

    def _item(self, block: dict[str, Any], id_: str, offset: int) -> _Item:
        answer = self._answer_of.get(id_)
        pairs = self._kept[answer]["around"][id_] if answer is not None else []
        is_second = block["type"] == "server_tool_result" and len(pairs) > 1
        pair = pairs[is_second] if pairs else None
        return _Item(block, answer, offset, (pair[0], pair[1]) if pair else None)

    def _local_calls(self) -> list[tuple[int, _Item]]:
        """Return the local calls, and how many server tools come before each."""
        message = self._message
        calls: list[ToolCall | InvalidToolCall | ToolCallChunk] = [
            *message.tool_calls,
            *message.invalid_tool_calls,
        ]
        if isinstance(message, AIMessageChunk) and message.chunk_position != "last":
            calls = [*message.tool_call_chunks]
        blocks = {call["id"]: dict(call) for call in calls}
        for block in self._content:
            if isinstance(block, dict) and str(block.get("type")).endswith("tool_call"):
                blocks.pop(block.get("id"), None)
        return [
            (tools_before, self._item(blocks.pop(id_), id_, offset))
            for id_, (offset, tools_before, *_) in self._positions.items()  # in their order
            if id_ in blocks
        ] + [(len(self._tools), _Item(block, None, _FAR, None)) for block in blocks.values()]

    def _in_order(self) -> list[list[_Item]]:
        """The tools of each answer, in the order in which they happened."""
        answers: list[tuple[str | None, list[_Item]]] = []
        known: dict[str, list[_Item]] = {}
        for item in self._tools:
            if item.answer is not None:
                if item.answer not in known:
                    answers.append((item.answer, known.setdefault(item.answer, [])))
                known[item.answer].append(item)
            elif answers and _goes_on(*answers[-1], item):
                answers[-1][1].append(item)
            else:  # of another answer, whose offsets begin anew
                answers.append((None, [item]))
        done: Counter[str | None] = Counter()
        for before, item in self._calls:
            key = item.answer
            group = next((items for answer, items in answers if answer == key), None)
            if group is None:
                answers.append((key, group := []))
            group.insert(min(len(group), before + done[key]), item)
            done[key] += 1
        order = {key: number for number, key in enumerate(self._kept)}
        if all(key is not None for key, _ in answers):
            answers.sort(key=lambda pair: order[cast("str", pair[0])])
        return [items for _, items in answers]

    def interleaved(self) -> list[dict[str, Any]]:
        """Text, the blocks that the content holds, and the tools in between."""
        texts = [_text_in(block) for block in self._content]
        text = "".join(part or "" for part in texts)
        items: list[_Item] = []
        places: list[Place] = []
        calls: dict[str, int] = {}
        for answer, group in enumerate(self._in_order()):
            for item in group:
                if item.block["type"] == "server_tool_call":
                    calls[item.block["id"]] = len(places)
                before, after = item.around or (None, "")
                opens = calls.get(item.block.get("tool_call_id", ""))
                places.append(Place(answer, item.offset, before, after, opens))
                items.append(item)
        found = self._found(text, places)
        placed = sorted(zip(found, range(len(found)), items, strict=True))
        return _interleaved(self._content, texts, [(at, it.block) for at, _, it in placed])

    def _found(self, text: str, places: list[Place]) -> list[int]:
        is_growing = (
            isinstance(self._message, AIMessageChunk)
            and self._message.chunk_position != "last"
            and not self._kept
        )
        if is_growing:  # nobody has changed it yet
            return [min(place.offset, len(text)) for place in places]
        kept = [*self._kept.values()]
        return find(text, places, kept[0]["length"] if len(kept) == 1 else None)


def _goes_on(answer: str | None, items: list[_Item], item: _Item) -> bool:
    """Whether a tool without surroundings belongs to the same answer as the last one."""
    return answer is None and items[-1].offset <= item.offset


_FAR = 1 << 60  # behind every text


def _text_in(block: str | dict[Any, Any]) -> str | None:
    if isinstance(block, str):
        return block
    return str(block.get("text") or "") if block.get("type") == "text" else None


def _interleaved(
    content: list[str | dict[Any, Any]],
    texts: list[str | None],
    tools: list[tuple[int, dict[str, Any]]],
) -> list[dict[str, Any]]:
    """Insert tools, sorted by offset, between and into the blocks."""
    blocks: list[dict[str, Any]] = []
    at = number = 0
    for block, text in zip(content, texts, strict=True):
        if text is None:
            blocks.append(cast("dict[str, Any]", block))
            continue
        end = at + len(text)
        start = at
        while number < len(tools) and tools[number][0] < end:
            offset, tool = tools[number]
            if at < offset:
                blocks.append({"type": "text", "text": text[at - start : offset - start]})
                at = offset
            blocks.append(tool)
            number += 1
        if at < end:
            blocks.append({"type": "text", "text": text[at - start :]})
        at = end
    return blocks + [block for _, block in tools[number:]]


register_translator(PROVIDER, _content_blocks, _content_blocks)
