"""A hosted agent as a LangGraph graph: its state, and what its streams show."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.messages import ToolMessage

from unit_tests.answers import stream
from unit_tests.conftest import Make
from unit_tests.contract import EVENTS, OFFSET, TEXT, USAGE, as_sse
from unit_tests.network import Network, Side

pytest.importorskip("langgraph.graph")
from langchain_thinnest import create_thinnest_agent

WHOLE = stream(*(as_sse(event) for event in EVENTS))
GIVEN: Any = {"messages": "hi"}

needs_contexts = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="LangGraph loses an async node's context"
)


def parts(side: Side, graph: Any, modes: Any, config: Any = None) -> list[Any]:
    """What a graph streams."""

    async def aparts() -> list[Any]:
        return [part async for part in graph.astream(GIVEN, config, stream_mode=modes)]

    return side.either(lambda: list(graph.stream(GIVEN, config, stream_mode=modes)), aparts)


@pytest.mark.parametrize("name", [None, "hosted"])
def test_a_turn_is_what_an_agent_loop_would_have_written(
    network: Network, side: Side, make: Make, name: str | None
) -> None:
    network.answer(WHOLE)
    agent = create_thinnest_agent(make(), name=name)
    state: Any = side.either(agent.invoke, agent.ainvoke, GIVEN)
    human, first, tool, last = state["messages"]
    assert (human.text, first.text, last.text) == ("hi", TEXT[:OFFSET], TEXT[OFFSET:])
    assert first.tool_calls[0]["id"] == tool.tool_call_id
    assert last.usage_metadata == USAGE
    assert first.name == last.name == name
    assert len(network.requests) == 1


TURNS: list[list[dict[str, Any]]] = [
    EVENTS,
    [EVENTS[0], EVENTS[-1]],
    [EVENTS[3], EVENTS[3], EVENTS[4], EVENTS[4], EVENTS[0], EVENTS[-1]],
    [{"type": "tool_result", "name": "x", "result": {"n": 1}}, EVENTS[0], EVENTS[-1]],
    [EVENTS[0], EVENTS[3], EVENTS[-1]],
]


@needs_contexts
@pytest.mark.parametrize("version", [None, "v1"])
@pytest.mark.parametrize("turn", TURNS)
def test_messages_are_shown_once_and_in_order(
    network: Network, side: Side, make: Make, turn: Any, version: Any
) -> None:
    """Each piece as it comes, under the id that its message has in the state."""
    network.answer(stream(*(as_sse(event) for event in turn)))
    agent = create_thinnest_agent(make(output_version=version))
    found = parts(side, agent, ["messages", "values"])
    final = [data for mode, data in found if mode == "values"][-1]["messages"][1:]
    shown: dict[str, str] = {}
    for mode, data in found:
        if mode == "messages" and data[0].text:
            shown[data[0].id] = shown.get(data[0].id, "") + data[0].text
    assert [*shown.items()] == [(m.id, m.text) for m in final if m.text]


@needs_contexts
@pytest.mark.parametrize("fields", [{"streaming": False}, {"cache": InMemoryCache()}])
def test_what_is_not_streamed_is_shown_at_the_end(
    network: Network, side: Side, make: Make, fields: Any
) -> None:
    """And nothing is cached, since an agent acts."""
    network.answer(WHOLE)
    agent = create_thinnest_agent(make(**fields))
    for number in (1, 2):
        messages = [message for message, _ in parts(side, agent, "messages")]
        whole = [m for m in messages if isinstance(m, ToolMessage)]
        assert [m.text for m in whole] == ["..."]
        assert "".join(m.text for m in messages if m not in whole) == TEXT
        assert len(network.requests) == number


def test_tools_are_shown_as_they_run(network: Network, side: Side, make: Make) -> None:
    network.answer(WHOLE)
    found = parts(side, create_thinnest_agent(make()), ["tools", "updates"])
    tools = [data["event"] for mode, data in found if mode == "tools"]
    assert tools == ["tool-started", "tool-finished"]


def test_a_thread_is_a_session(network: Network, side: Side, make: Make) -> None:
    from langgraph.checkpoint.memory import InMemorySaver

    network.answer(WHOLE)
    model = make(session_key="thread_id")
    agent = create_thinnest_agent(model, checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "ada"}}
    for message in ("one", "two"):
        side.either(agent.invoke, agent.ainvoke, {"messages": message}, config)
    assert [(r.json["session_id"], r.json["message"]) for r in network.requests] == [
        ("ada", "one"),
        ("ada", "two"),
    ]


def test_only_a_hosted_agent_can_be_one() -> None:
    with pytest.raises(TypeError, match="takes a ChatThinnest, not str"):
        create_thinnest_agent("gpt")  # type: ignore[arg-type]
