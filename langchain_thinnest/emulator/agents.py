"""What answers a message: a script, a function, a LangChain runnable, or a LangGraph graph.

Its answer becomes a stream of events: a string is a piece of text, a dictionary an event.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any
from uuid import uuid4

from langchain_core import messages as lc
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnablePassthrough
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool

from langchain_thinnest.emulator.faults import Event

Item = str | Event
Agent = Callable[[str, "Session"], Any] | Runnable[Any, Any] | list[Any]
"""A script, a function of the message and the session, or a runnable.

A script is a list of items, which answers every message the same, or a list of such lists,
which answers one message each, whatever their sessions. A function gives (returns, yields, or
awaits) items. A chat model gets the session's messages, a graph `{"messages": [...]}`, and any
other runnable the message; `config["configurable"]` has the `session_id`, and a `thread_id`.
"""


class Unanswered(LookupError):  # noqa: N818  # nothing is wrong with the agent
    """A message came for which there is no answer."""


class Script:
    """Answers with what a list says."""

    def __init__(self, script: list[Any]) -> None:
        self._by_turn = bool(script) and all(isinstance(turn, list) for turn in script)
        for item in chain(*script) if self._by_turn else script:
            if not isinstance(item, str) and not (isinstance(item, dict) and "type" in item):
                kinds = "strings and events (dictionaries with a type), or of such lists"
                raise ValueError(f"A script is a list of {kinds}. This is neither: {item!r}")
        self._script, self._turns = script, count()

    def __call__(self, message: str, session: Session) -> list[Any]:
        """The next answer."""
        turn, answers = next(self._turns), len(self._script)
        if self._by_turn and turn >= answers:
            asked = (
                f"a script of {answers} answers, and this is message {turn + 1}: {message!r}"
            )
            raise Unanswered(f"{session.agent_id} has {asked}")
        return self._script[turn] if self._by_turn else self._script


@dataclass
class Session:
    """The memory of one agent for one `session_id`; without an id it lasts for one message."""

    id: str | None
    agent_id: str
    messages: list[lc.BaseMessage] = field(default_factory=list)  # the turns before this one
    state: dict[str, Any] = field(default_factory=dict)  # for the agent to use as it likes
    metadata: dict[str, Any] = field(default_factory=dict)


async def answer(agent: Agent, message: str, session: Session) -> AsyncIterator[Event]:
    """Run an agent, and give its answer as the contract's events; remember a whole turn."""
    text, done = "", None
    async for item in _items(agent, message, session):
        event = {"type": "text", "content": item} if isinstance(item, str) else item
        if event.get("type") == "done":
            done = event
            break
        text += str(event.get("content", "")) if event.get("type") == "text" else ""
        yield event
        if event.get("type") == "error":
            return
    session.messages += [lc.HumanMessage(message), lc.AIMessage(text)]
    spent, made = len(message.split()), len(text.split())  # words: there is no tokenizer
    usage = {"input_tokens": spent, "output_tokens": made, "total_tokens": spent + made}
    yield done or {"type": "done", "usage": usage}


def _items(agent: Agent, message: str, session: Session) -> AsyncIterator[Item]:
    if not isinstance(agent, Runnable):
        return _function_items(agent, message, session)
    conversation = [*session.messages, lc.HumanMessage(message)]
    thread = f"{session.agent_id}/{session.id}"
    known = {"session_id": session.id, "thread_id": thread} if session.id is not None else {}
    if not (hasattr(agent, "get_state") and hasattr(agent, "stream_mode")):
        given = conversation if isinstance(agent, BaseChatModel) else message
        return _runnable_items(agent, given, {"configurable": known})
    if getattr(agent, "checkpointer", None):  # a graph that remembers by itself
        conversation = conversation[-1:]
        known.setdefault("thread_id", uuid4().hex)
    return _graph_items(agent, {"messages": conversation}, {"configurable": known})


async def _function_items(agent: Any, message: str, session: Session) -> AsyncIterator[Item]:
    result = await run_in_threadpool(agent, message, session)
    if inspect.isawaitable(result):
        result = await result
    if isinstance(result, (str, dict)):
        result = [result]
    is_async = hasattr(result, "__aiter__")
    async for item in result if is_async else iterate_in_threadpool(result):
        yield item


async def _runnable_items(agent: Any, given: Any, config: Any) -> AsyncIterator[Item]:
    """What a runnable itself streams is its text; tools that run inside it are events."""
    root = None
    streaming = agent | RunnablePassthrough()  # which streams, also what a model only returns
    async for event in streaming.astream_events(given, config, version="v2"):
        root = root or event["run_id"]
        kind, data = event["event"], event["data"]
        if kind == "on_tool_start":
            yield {"type": "tool_call", "name": event["name"], "args": data.get("input") or {}}
        elif kind == "on_tool_end":
            yield _tool_result(event["name"], data.get("output"))
        elif event["run_id"] == root and kind.endswith("_stream"):
            chunk = data.get("chunk")
            if not isinstance(chunk, lc.BaseMessage):
                chunk = lc.AIMessage("" if chunk is None else str(chunk))
            # What the tools of a `ChatThinnest` do comes as tool runs already.
            is_ours = chunk.response_metadata.get("model_provider") == "thinnest"
            for item in _message_items(chunk):
                if isinstance(item, str) or not is_ours:
                    yield item


def _message_items(message: Any) -> Iterable[Item]:
    is_result = isinstance(message, lc.ToolMessage)
    if is_result:
        yield _tool_result(message.name, message)
    for block in () if is_result else message.content_blocks:
        if block["type"] == "text" and block["text"]:
            yield block["text"]
        elif block["type"] == "server_tool_call":
            yield {"type": "tool_call", "name": block["name"], "args": block["args"]}
        elif block["type"] == "server_tool_result":
            yield _tool_result(block.get("extras", {}).get("name"), block.get("output"))


async def _graph_items(agent: Any, given: Any, config: Any) -> AsyncIterator[Item]:
    """What is streamed or whole comes by `messages`; a streamed call is whole in `updates`."""
    called: set[str | None] = set()  # the messages whose calls were given
    modes = ["messages", "updates"]
    async for mode, data in agent.astream(given, config, stream_mode=modes):
        is_update = mode == "updates"
        nodes = [node for node in (data or {}).values() if node] if is_update else []
        added = [n["messages"] for n in nodes if isinstance(n, dict) and "messages" in n]
        lists = [group if isinstance(group, list) else [group] for group in added]
        for message in chain(*lists) if is_update else [data[0]]:
            if not is_update and isinstance(message, lc.AIMessage | lc.ToolMessage):
                for item in _message_items(message):
                    yield item
            is_whole = is_update or not isinstance(message, lc.AIMessageChunk)
            if isinstance(message, lc.AIMessage) and is_whole and message.id not in called:
                called.add(message.id)
                for call in message.tool_calls:
                    yield {"type": "tool_call", "name": call["name"], "args": call["args"]}


def _tool_result(name: str | None, output: Any) -> Event:
    result = output.content if isinstance(output, lc.BaseMessage) else output
    return {"type": "tool_result", "name": name or "tool", "result": result}
