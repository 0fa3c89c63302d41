"""What answers a message: a script, a function, a LangChain runnable, or a LangGraph graph.

Its answer becomes a stream of events, in which a `Fault` is what goes wrong on purpose: a
string is a piece of text, a dictionary an event.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any, Literal
from uuid import uuid4

from langchain_core import messages as lc
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnablePassthrough
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool

_MESSAGE = "The emulator was told to fail"
Event = dict[str, Any]
Events = AsyncIterator[Event]
Item = str | Event
Agent = Callable[[str, "Session"], Any] | Runnable[Any, Any] | list[Any]
"""A script: a list of items, which answers every message the same, or a list of such lists,
which answers one message each, whatever their sessions. Or a function of the message and the
session, which gives (returns, yields, or awaits) items. Or a runnable: a chat model gets the
session's messages, a graph `{"messages": [...]}`, and any other one the message;
`config["configurable"]` has the `session_id`, and a `thread_id`.
"""


class Unanswered(LookupError):  # noqa: N818  # nothing is wrong with the agent
    """A message came for which there is no answer."""


def scripted(script: list[Any]) -> Callable[[str, Session], list[Any]]:
    """Make an agent that answers with what a list says."""
    is_by_turn = bool(script) and all(isinstance(turn, list) for turn in script)
    for item in chain(*script) if is_by_turn else script:
        if not isinstance(item, str) and not (isinstance(item, dict) and "type" in item):
            kinds = "strings and events (dictionaries with a type), or of such lists"
            raise ValueError(f"A script is a list of {kinds}. This is neither: {item!r}")
    turns = count()

    def agent(message: str, session: Session) -> list[Any]:
        turn = next(turns)
        if is_by_turn and turn >= len(script):
            raise Unanswered(
                f"{session.agent_id} has a script of {len(script)} answers, and this is "
                f"message {turn + 1}: {message!r}"
            )
        return script[turn] if is_by_turn else script

    return agent


@dataclass
class Session:
    """The memory of one agent for one `session_id`; without an id it lasts for one message."""

    id: str | None
    agent_id: str
    messages: list[lc.BaseMessage] = field(default_factory=list)  # the turns before this one
    state: dict[str, Any] = field(default_factory=dict)  # for the agent to use as it likes
    metadata: dict[str, Any] = field(default_factory=dict)


async def answer(agent: Agent, message: str, session: Session) -> Events:
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
            output = data.get("output")
            result = output.content if isinstance(output, lc.BaseMessage) else output
            yield {"type": "tool_result", "name": event["name"], "result": result}
        elif event["run_id"] == root and kind.endswith("_stream"):
            chunk = data.get("chunk")
            text = chunk.text if isinstance(chunk, lc.BaseMessage) else str(chunk or "")
            if text:
                yield text


async def _graph_items(agent: Any, given: Any, config: Any) -> AsyncIterator[Item]:
    """The text of a graph's messages as it is streamed, and calls once they are whole."""
    begun: dict[str | None, lc.BaseMessageChunk] = {}
    async for message, _ in agent.astream(given, config, stream_mode="messages"):
        if isinstance(message, lc.ToolMessage):
            name = message.name or "tool"
            yield {"type": "tool_result", "name": name, "result": message.content}
        elif isinstance(message, lc.AIMessage):
            whole: Any = message
            if message.text:
                yield message.text
            if isinstance(message, lc.AIMessageChunk):
                whole = begun.get(message.id, lc.AIMessageChunk(content="")) + message
                begun[message.id] = whole
            if getattr(whole, "chunk_position", "last") == "last":
                for call in whole.tool_calls:
                    yield {"type": "tool_call", "name": call["name"], "args": call["args"]}


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong with one request: `emulator.fail_next(Fault.cut(after=3))`."""

    kind: Literal["status", "cut", "stall", "error"]
    after: int = 0
    code: int = 0
    seconds: float = 0.0
    message: str = _MESSAGE
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def status(
        cls,
        code: int,
        message: str = _MESSAGE,
        *,
        retry_after: float | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Fault:
        """Refuse the request; `retry_after` is in seconds, or an HTTP date."""
        asked = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return cls("status", code=code, message=message, headers={**(headers or {}), **asked})

    @classmethod
    def cut(cls, *, after: int = 0) -> Fault:
        """Close the connection in the middle of the answer, after some events."""
        return cls("cut", after=after)

    @classmethod
    def stall(cls, seconds: float, *, after: int = 0) -> Fault:
        """Send nothing for some seconds, after some events, and go on."""
        return cls("stall", after=after, seconds=seconds)

    @classmethod
    def error(cls, message: str = _MESSAGE, *, after: int = 0) -> Fault:
        """Send an `error` event in place of the rest of the answer, after some events."""
        return cls("error", after=after, message=message)

    async def spoil(self, events: Events) -> Events:
        """Give events until something goes wrong."""
        left = self.after
        async for event in events:
            if left == 0 and self.kind == "cut":
                raise ConnectionAbortedError  # for which the server closes the connection
            if left == 0 and self.kind == "error":
                yield {"type": "error", "message": self.message}
                return
            await asyncio.sleep(self.seconds if left == 0 else 0)
            yield event
            left -= 1
