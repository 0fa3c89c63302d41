"""LangGraph graphs as the emulator's agents."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
)
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from integration_tests.ways import WAYS
from langchain_thinnest import ChatThinnest, ThinnestGenerationError
from langchain_thinnest.emulator import ThinnestEmulator


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def double(a: int) -> int:
    """Double a number."""
    return 2 * a


TOOLS = [add, double]


class Caller(BaseChatModel):
    """Says what it will do, calls two tools, and says how many messages it has seen."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        answer = AIMessage(f"Seen {len(messages)}.")
        if isinstance(messages[-1], HumanMessage):
            calls = [
                {"name": "add", "args": {"a": 1, "b": 2}, "id": uuid4().hex},
                {"name": "double", "args": {"a": 4}, "id": uuid4().hex},
            ]
            answer = AIMessage("Adding. ", tool_calls=calls)
        return ChatResult(generations=[ChatGeneration(message=answer)])

    @property
    def _llm_type(self) -> str:
        return "caller"


class StreamingCaller(Caller):
    """The same, in pieces: a call is whole only at the end."""

    def _stream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        (generation,) = self._generate(messages).generations
        for word in re.findall(r"\S+ ?", generation.text):
            yield ChatGenerationChunk(message=AIMessageChunk(word))
        for index, call in enumerate(generation.message.tool_calls):
            args = json.dumps(call["args"])
            for piece in (
                tool_call_chunk(name=call["name"], args=args[:4], id=call["id"], index=index),
                tool_call_chunk(name=None, args=args[4:], id=None, index=index),
            ):
                chunk = AIMessageChunk("", tool_call_chunks=[piece])
                yield ChatGenerationChunk(message=chunk)
        yield ChatGenerationChunk(message=AIMessageChunk("", chunk_position="last"))


def node_of(agent: Any) -> Any:
    """A graph whose one node is the agent: a subgraph."""
    graph = StateGraph(MessagesState)
    graph.add_node("agent", agent)
    graph.add_edge(START, "agent")
    return graph.compile()


def calling_in_a_function() -> Any:
    """A graph whose node runs the agent and returns its whole transcript at once."""
    agent = create_agent(StreamingCaller(), TOOLS)

    def node(state: MessagesState) -> dict[str, Any]:
        return {"messages": agent.invoke(state)["messages"]}

    return node_of(node)


def count(state: MessagesState) -> dict[str, Any]:
    return {"messages": [AIMessage(f"Seen {len(state['messages'])}.")]}


def count_again(state: MessagesState) -> dict[str, Any]:
    """Returns the messages that it was given, too."""
    return {"messages": [*state["messages"], *count(state)["messages"]]}


@pytest.fixture
def serve() -> Iterator[Any]:
    """Makes a model that asks an agent."""
    with ThinnestEmulator({}) as emulator:

        def serve(agent: Any, **fields: Any) -> ChatThinnest:
            emulator.agents["ag_graph"] = agent
            return ChatThinnest(
                agent_id="ag_graph",
                api_key=emulator.api_key,
                base_url=emulator.base_url,
                **fields,
            )

        yield serve


def what_happened(answer: AIMessage) -> list[Any]:
    """Text, calls and results, in order."""
    names: dict[str, str] = {}
    happened: list[Any] = []
    for block in answer.content_blocks:
        if block["type"] == "text":
            happened.append(block["text"])
        elif block["type"] == "server_tool_call":
            names[block["id"]] = block["name"]
            happened.append((block["name"], block["args"]))
        else:
            happened.append((names[block["tool_call_id"]], block["output"]))
    return happened


@pytest.mark.parametrize("node", [count, count_again])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_node_that_returns_a_message(serve: Any, way: Any, node: Any) -> None:
    model = serve(node_of(node))
    for expected in ("Seen 1.", "Seen 3.", "Seen 5."):
        assert way(model, "hi", session_id="s").text == expected
    assert way(model, "hi").text == "Seen 1."


AGENTS = {
    "whole": lambda: create_agent(Caller(), TOOLS),
    "streamed": lambda: create_agent(StreamingCaller(), TOOLS),
    "subgraph": lambda: node_of(create_agent(Caller(), TOOLS)),
    "streamed-subgraph": lambda: node_of(create_agent(StreamingCaller(), TOOLS)),
    "in-a-function": calling_in_a_function,
}


@pytest.mark.parametrize("make_agent", AGENTS.values(), ids=AGENTS)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_an_agents_text_calls_and_results(serve: Any, make_agent: Any, way: Any) -> None:
    text, add_call, double_call, *results, end = what_happened(way(serve(make_agent()), "hi"))
    assert (text, end) == ("Adding. ", "Seen 4.")
    assert add_call == ("add", {"a": 1, "b": 2})
    assert double_call == ("double", {"a": 4})
    assert sorted(results) == [("add", "3"), ("double", "8")]  # they run side by side


def test_an_agents_text_is_streamed(serve: Any) -> None:
    model = serve(create_agent(StreamingCaller(), TOOLS))
    chunks = [chunk.text for chunk in model.stream("hi")]
    assert [text for text in chunks if text] == ["Adding. ", "Seen ", "4."]


def test_a_history_is_not_told_again(serve: Any) -> None:
    model = serve(create_agent(Caller(), TOOLS), session_id="s")
    first, second = (what_happened(model.invoke("hi")) for _ in range(2))
    assert (first[0], first[-1]) == ("Adding. ", "Seen 4.")
    assert (second[0], second[-1]) == ("Adding. ", "Seen 6.")
    assert len(first) == len(second) == 6


# --- a graph that remembers by itself ---


@pytest.fixture
def saved() -> Any:
    """A graph whose checkpointer has all messages, those of its tools too."""
    return create_agent(Caller(), TOOLS, checkpointer=InMemorySaver())


def test_a_checkpointer_remembers_by_session(serve: Any, saved: Any) -> None:
    model = serve(saved)
    asked = ["s", "s", "t", "s"]
    ends = [what_happened(model.invoke("hi", session_id=session))[-1] for session in asked]
    assert ends == ["Seen 4.", "Seen 9.", "Seen 4.", "Seen 14."]


def test_a_checkpointer_knows_agents_apart(saved: Any) -> None:
    with ThinnestEmulator({"ag_1": saved, "ag_2": saved}) as emulator:
        for agent_id in ("ag_1", "ag_2"):
            model = ChatThinnest(
                agent_id=agent_id, api_key=emulator.api_key, base_url=emulator.base_url
            )
            assert what_happened(model.invoke("hi", session_id="s"))[-1] == "Seen 4."


def test_a_checkpointer_without_a_session_forgets(serve: Any, saved: Any) -> None:
    model = serve(saved)
    for _ in range(20):
        assert what_happened(model.invoke("hi"))[-1] == "Seen 4."


# --- what goes wrong ---


def test_a_graph_that_raises(serve: Any) -> None:
    def fail(state: MessagesState) -> None:
        raise ValueError("no")

    with pytest.raises(ThinnestGenerationError, match="ValueError: no"):
        serve(node_of(fail)).invoke("hi")
