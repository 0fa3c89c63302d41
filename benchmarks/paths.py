"""The paths that people use beside the four ways, each to be walked by any model.

Each path is what a program does with a model: an LCEL chain, events, a LangGraph graph,
callbacks. Its floor is the same path with the model that does no I/O. That model makes the
protocol's events of v3 itself too, so that the floor is not the framework's translation of
chunks into events, which ChatThinnest does not use either. `create_thinnest_agent` takes
ChatThinnest alone: its floor is the plain graph with the model that does no I/O.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tracers import BaseTracer
from langchain_core.tracers.schemas import Run
from langgraph.graph import START, MessagesState, StateGraph

from benchmarks.clients import QUESTION
from langchain_thinnest import ChatThinnest, create_thinnest_agent

_MESSAGES = {"messages": QUESTION}


@dataclass(frozen=True)
class Path:
    """One path.

    Attributes:
        name: What the tables call it.
        make: Puts a model into what is run. This is not timed.
        read: Runs it, and yields all that a caller gets.
        text: The text in one item that `read` yields, to see that nothing is lost.
        is_async: Whether `read` is.
    """

    name: str
    make: Callable[[BaseChatModel], Any]
    read: Callable[[Any], Any]
    text: Callable[[Any], str]
    is_async: bool = field(default=False, kw_only=True)

    def walk(self, model: BaseChatModel) -> Callable[[], Any]:
        """Return what runs this path to its end, as often as it is called."""
        made = self.make(model)

        def walk() -> None:
            for _ in self.read(made):
                pass

        async def awalk() -> None:
            async for _ in self.read(made):
                pass

        return awalk if self.is_async else walk


def chain(model: BaseChatModel) -> Any:
    return ChatPromptTemplate.from_template("{question}") | model | StrOutputParser()


def graph(model: BaseChatModel) -> Any:
    """A graph of one node that calls the model."""

    def call(state: MessagesState, config: RunnableConfig) -> dict[str, list[BaseMessage]]:
        return {"messages": [model.invoke(state["messages"], config)]}

    async def acall(
        state: MessagesState, config: RunnableConfig
    ) -> dict[str, list[BaseMessage]]:
        return {"messages": [await model.ainvoke(state["messages"], config)]}

    made = StateGraph(MessagesState)
    made.add_node("model", RunnableLambda(call, acall, name="model"))
    made.add_edge(START, "model")
    return made.compile()


def agent(model: BaseChatModel) -> Any:
    return create_thinnest_agent(model) if isinstance(model, ChatThinnest) else graph(model)


def _itself(model: BaseChatModel) -> BaseChatModel:
    return model


class Counter(BaseCallbackHandler):
    """A handler that listens to every token."""

    tokens = 0

    def on_llm_new_token(self, *_: Any, **__: Any) -> None:
        self.tokens += 1


class LastRun(BaseTracer):
    """A tracer that keeps the last run in memory."""

    last: Run | None = None

    def _persist_run(self, run: Run) -> None:
        self.last = run


def _with(handler: type[BaseCallbackHandler]) -> Callable[[BaseChatModel], Any]:
    """Put a handler beside a model, the same one for all its calls."""
    return lambda model: (model, {"callbacks": [handler()]})


# --- how each is run ---


def _stream_with(both: tuple[BaseChatModel, RunnableConfig]) -> Iterator[Any]:
    model, config = both
    return model.stream(QUESTION, config)


def _invoke_with(both: tuple[BaseChatModel, RunnableConfig]) -> list[Any]:
    model, config = both
    return [model.invoke(QUESTION, config)]


def _graph_stream(mode: str, runnable: Any) -> Iterator[Any]:
    return runnable.stream(_MESSAGES, stream_mode=mode)  # type: ignore[no-any-return]


def _graph_astream(mode: str, runnable: Any) -> AsyncIterator[Any]:
    return runnable.astream(_MESSAGES, stream_mode=mode)  # type: ignore[no-any-return]


async def _astream_events_v3(runnable: Any) -> AsyncIterator[Any]:
    async for event in await runnable.astream_events(QUESTION, version="v3"):
        yield event


# --- where the text is ---


def _of_message(message: BaseMessage) -> str:
    return str(message.text)


def _of_v2(event: Any) -> str:
    streams = event["event"] == "on_chat_model_stream"
    return str(event["data"]["chunk"].text) if streams else ""


def _of_v3(event: Any) -> str:
    return str(event["delta"]["text"]) if event["event"] == "content-block-delta" else ""


def _of_pair(pair: Any) -> str:
    return str(pair[0].text)


def _of_update(update: Any) -> str:
    return "".join(m.text for node in update.values() for m in node["messages"])


CHAIN = "LCEL chain"
MESSAGES = "LangGraph, messages"
UPDATES = "LangGraph, updates"
AGENT = "create_thinnest_agent, messages"

PATHS = (
    Path(f"{CHAIN}, stream", chain, lambda it: it.stream(QUESTION), str),
    Path(f"{CHAIN}, astream", chain, lambda it: it.astream(QUESTION), str, is_async=True),
    Path(
        "astream_events v2",
        _itself,
        lambda model: model.astream_events(QUESTION, version="v2"),
        _of_v2,
        is_async=True,
    ),
    Path("astream_events v3", _itself, _astream_events_v3, _of_v3, is_async=True),
    Path(
        "stream_events v3",
        _itself,
        lambda model: model.stream_events(QUESTION, version="v3"),
        _of_v3,
    ),
    *(
        path
        for name, make, mode, text in (
            (MESSAGES, graph, "messages", _of_pair),
            (UPDATES, graph, "updates", _of_update),
            (AGENT, agent, "messages", _of_pair),
        )
        for path in (
            Path(f"{name}, stream", make, partial(_graph_stream, mode), text),
            Path(f"{name}, astream", make, partial(_graph_astream, mode), text, is_async=True),
        )
    ),
    *(
        Path(f"{way} with {what}", _with(handler), read, _of_message)
        for what, handler in (("a handler", Counter), ("a tracer", LastRun))
        for way, read in (("invoke", _invoke_with), ("stream", _stream_with))
    ),
)


def check_paths(
    models: dict[str, BaseChatModel], whole: dict[str, str], loop: asyncio.AbstractEventLoop
) -> None:
    """See that each path brings each model's whole text, before any is timed."""
    for path in PATHS:
        for name, model in models.items():
            items = path.read(path.make(model))
            seen = loop.run_until_complete(_gather(items)) if path.is_async else items
            text = "".join(map(path.text, seen))
            if text != whole[name]:
                raise AssertionError(f"{path.name}: {name} gave {text!r}")


async def _gather(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]
