"""`create_thinnest_agent`, and the model in LangGraph and LangChain agents."""

from __future__ import annotations

import asyncio
import sys
import threading
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    AnyMessage,
    HumanMessage,
    ToolMessage,
)
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, MessagesState, StateGraph

from integration_tests.conftest import Make
from integration_tests.wire import END, Wait, WireServer, chunk, head, stream
from langchain_thinnest import create_thinnest_agent
from langchain_thinnest.emulator import ThinnestEmulator
from unit_tests.contract import EVENTS, OFFSET, TEXT, USAGE, as_sse

GIVEN: Any = {"messages": "hi"}
ALL_MODES = ["values", "updates", "messages", "tools", "custom"]


def run(
    graph: Any, is_async: bool, modes: Any, given: Any = GIVEN, **options: Any
) -> list[Any]:
    async def arun() -> list[Any]:
        return [part async for part in graph.astream(given, stream_mode=modes, **options)]

    if is_async:
        return asyncio.run(arun())
    return list(graph.stream(given, stream_mode=modes, **options))


def types(messages: list[AnyMessage]) -> list[str]:
    return [message.type for message in messages]


@pytest.mark.parametrize("is_async", [False, True])
def test_example(make: Make, is_async: bool) -> None:
    agent = create_thinnest_agent(make())
    state = asyncio.run(agent.ainvoke(GIVEN)) if is_async else agent.invoke(GIVEN)
    human, first, tool, last = state["messages"]
    assert types(state["messages"]) == ["human", "ai", "tool", "ai"]
    assert (human.text, first.text, last.text) == ("hi", TEXT[:OFFSET], TEXT[OFFSET:])
    assert first.tool_calls[0]["id"] == tool.tool_call_id
    assert last.tool_calls == []
    assert last.usage_metadata == USAGE


@pytest.mark.parametrize("is_async", [False, True])
def test_every_stream_mode_and_one_message_sent(
    make: Make, emulator: ThinnestEmulator, is_async: bool
) -> None:
    agent = create_thinnest_agent(make())
    parts = run(agent, is_async, ALL_MODES)
    assert len(emulator.requests) == 1
    modes = {mode for mode, _ in parts}
    assert modes == {"values", "updates", "messages", "tools"}
    tools = [data["event"] for mode, data in parts if mode == "tools"]
    assert tools == ["tool-started", "tool-finished"]
    (update,) = [data for mode, data in parts if mode == "updates"]
    assert types(update["agent"]["messages"]) == ["ai", "tool", "ai"]
    values = [data["messages"] for mode, data in parts if mode == "values"]
    assert types(values[-1]) == ["human", "ai", "tool", "ai"]


def shown(parts: list[Any]) -> list[Any]:
    """What the `messages` mode showed: text by message id, and tool messages whole."""
    seen: list[Any] = []
    for message, _ in parts:
        if isinstance(message, ToolMessage):
            seen.append((message.id, message.text))
        elif message.text and seen and seen[-1][0] == message.id:
            seen[-1] = (message.id, seen[-1][1] + message.text)
        elif message.text:
            seen.append((message.id, message.text))
    return seen


def event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, **fields}


TURNS = [
    EVENTS,
    [event("text", content="just text"), EVENTS[-1]],
    [EVENTS[3], EVENTS[4], EVENTS[0], EVENTS[3], EVENTS[4], EVENTS[5], EVENTS[-1]],
    [EVENTS[3], EVENTS[3], EVENTS[4], EVENTS[4], EVENTS[0], EVENTS[-1]],
    [event("tool_result", name="x", result={"n": 1}), EVENTS[0], EVENTS[-1]],
    [EVENTS[0], EVENTS[3], EVENTS[-1]],
    [*(event("tool_result", name=name, result=1) for name in "xy"), EVENTS[0], EVENTS[-1]],
    [EVENTS[3], EVENTS[4], event("tool_result", name="x", result=1), EVENTS[0], EVENTS[-1]],
]


def in_a_graph(graph: Any) -> Any:
    parent = StateGraph(MessagesState)
    parent.add_node("sub", graph)
    parent.add_edge(START, "sub")
    return parent.compile()


def streamed(model: Any, is_async: bool, nested: bool) -> tuple[list[Any], list[Any]]:
    """What the `messages` mode showed, and the messages that came into the state."""
    graph: Any = create_thinnest_agent(model, name="hosted")
    graph = in_a_graph(graph) if nested else graph
    parts = [
        part[-2:] for part in run(graph, is_async, ["messages", "values"], subgraphs=nested)
    ]
    messages = [data for mode, data in parts if mode == "messages"]
    return messages, [data for mode, data in parts if mode == "values"][-1]["messages"][1:]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("version", [None, "v1"])
@pytest.mark.parametrize("turn", TURNS)
def test_messages_mode_shows_everything_once_and_in_order(
    wired: Make, wire: WireServer, is_async: bool, nested: bool, version: Any, turn: Any
) -> None:
    wire.answer(stream(as_sse(*turn)))
    messages, final = streamed(wired(output_version=version), is_async, nested)
    expected = [(m.id, m.text) for m in final if m.text]
    assert shown(messages) == expected
    ids = {message.id for message in final}
    assert {message.id for message, _ in messages} <= ids


def steps(parts: list[Any]) -> list[Any]:
    """What the `messages` mode showed: text, calls and results, in order."""
    found: list[Any] = []
    for message, _ in parts:
        if isinstance(message, ToolMessage):
            found.append(("result", message.tool_call_id))
            continue
        if message.text:
            found.append(("text", message.id))
        found += [("call", call["id"]) for call in message.tool_calls]
    return [step for step, _ in groupby(found)]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("version", [None, "v1"])
@pytest.mark.parametrize("turn", TURNS)
def test_messages_mode_shows_each_call_before_its_result(
    wired: Make, wire: WireServer, is_async: bool, nested: bool, version: Any, turn: Any
) -> None:
    """Pages add up what they are given by its id, and have what the state has."""
    wire.answer(stream(as_sse(*turn)))
    messages, final = streamed(wired(output_version=version), is_async, nested)
    assert steps(messages) == steps([(message, None) for message in final])
    sums: dict[Any, Any] = {}
    for message, _ in messages:
        if isinstance(message, AIMessageChunk):
            sums[message.id] = sums[message.id] + message if message.id in sums else message
    for message in final:
        if isinstance(message, AIMessage):
            assert sums[message.id].tool_calls == message.tool_calls
            assert sums[message.id].text == message.text


@pytest.mark.parametrize("is_async", [False, True])
def test_a_call_is_shown_before_its_result_has_come(
    wired: Make, wire: WireServer, is_async: bool
) -> None:
    shown = threading.Event()
    before, behind = as_sse(*EVENTS[:4]), as_sse(*EVENTS[4:])
    wire.answer([head(), chunk(before), Wait(shown), chunk(behind), END])
    graph = create_thinnest_agent(wired(timeout=10))

    async def arun() -> None:
        async for message, _ in graph.astream(GIVEN, stream_mode="messages"):
            if isinstance(message, AIMessageChunk) and message.tool_call_chunks:
                shown.set()

    if is_async:
        asyncio.run(asyncio.wait_for(arun(), 20))
        return
    for message, _ in graph.stream(GIVEN, stream_mode="messages"):
        if isinstance(message, AIMessageChunk) and message.tool_call_chunks:
            shown.set()


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("name", [None, "hosted", "agent"])
def test_a_trace_has_one_run_of_the_agents_name(
    make: Make, is_async: bool, name: str | None
) -> None:
    collector = RunCollectorCallbackHandler()
    graph = create_thinnest_agent(make(), name=name)
    run(graph, is_async, "messages", config={"callbacks": [collector]})

    def paths(found: Any, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
        here = (*above, found.name)
        return [here, *(path for child in found.child_runs for path in paths(child, here))]

    (root,) = collector.traced_runs
    top = name or "LangGraph"
    node = "model" if name == "agent" else "agent"
    assert paths(root) == [
        (top,),
        (top, node),
        (top, node, "ChatThinnest"),
        (top, node, "ChatThinnest", "web_search"),
    ]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("fields", [{"streaming": False}, {"cache": InMemoryCache()}])
def test_messages_mode_without_streaming_or_with_a_cache(
    make: Make, emulator: ThinnestEmulator, is_async: bool, fields: Any
) -> None:
    agent = create_thinnest_agent(make(**fields))
    for number in (1, 2):
        parts = run(agent, is_async, "messages")
        assert [text for _, text in shown(parts)] == [TEXT[:OFFSET], "...", TEXT[OFFSET:]]
        assert len(emulator.requests) == number


def test_a_thread_is_a_session(make: Make, emulator: ThinnestEmulator) -> None:
    agent = create_thinnest_agent(
        make("ag_echo", session_key="thread_id"), checkpointer=InMemorySaver()
    )
    for thread, message, answer in [
        ("ada", "one", "0: one"),
        ("bob", "two", "0: two"),
        ("ada", "three", "1: three"),
    ]:
        config: Any = {"configurable": {"thread_id": thread}}
        state = agent.invoke({"messages": message}, config)
        assert state["messages"][-1].text == answer
        assert emulator.requests[-1]["message"] == message
        assert emulator.requests[-1]["session_id"] == thread


def test_a_thread_is_a_session_when_the_answer_ends_with_a_tool(
    wired: Make, wire: WireServer
) -> None:
    wire.answer(stream(as_sse(*EVENTS[:5], EVENTS[-1])))
    agent = create_thinnest_agent(wired(session_key="thread_id"), checkpointer=InMemorySaver())
    for message in ("one", "two"):
        agent.invoke({"messages": message}, {"configurable": {"thread_id": "t"}})
        assert wire.requests[-1].json["message"] == message


def test_without_a_session_the_whole_transcript_goes_out(
    make: Make, emulator: ThinnestEmulator
) -> None:
    agent = create_thinnest_agent(make(), checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "ada"}}
    agent.invoke({"messages": "one"}, config)
    agent.invoke({"messages": "two"}, config)
    assert emulator.requests[0] == {"agent_id": "ag_example", "message": "one"}
    assert emulator.requests[1]["message"] == (
        "User: one\n\n"
        f"Assistant: {TEXT[:OFFSET]}\n\n"
        'Assistant called web_search: {"query": "ML applications 2026"}\n\n'
        "Tool (web_search): ...\n\n"
        f"Assistant: {TEXT[OFFSET:]}\n\n"
        "User: two"
    )


def test_ids_stay_unique_though_the_server_repeats_its_own(
    wired: Make, wire: WireServer
) -> None:
    wire.answer(stream(as_sse(*({**e, "id": "c1"} for e in EVENTS))))
    agent = create_thinnest_agent(wired(), checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t"}}
    for turns in (1, 2, 3):
        messages = agent.invoke(GIVEN, config)["messages"]
        assert types(messages) == ["human", "ai", "tool", "ai"] * turns
    calls = [m.tool_call_id for m in messages if isinstance(m, ToolMessage)]
    assert len(set(calls)) == 3
    assert calls[0] == "c1"


def test_resumes_from_sqlite(make: Make, tmp_path: Path) -> None:
    path = str(tmp_path / "threads.db")
    config: Any = {"configurable": {"thread_id": "ada"}}
    for turns in (1, 2):
        with SqliteSaver.from_conn_string(path) as saver:
            agent = create_thinnest_agent(make(), checkpointer=saver)
            messages = agent.invoke(GIVEN, config)["messages"]
            assert types(messages) == ["human", "ai", "tool", "ai"] * turns


async def test_resumes_from_sqlite_async(make: Make, tmp_path: Path) -> None:
    path = str(tmp_path / "threads.db")
    config: Any = {"configurable": {"thread_id": "ada"}}
    for turns in (1, 2):
        async with AsyncSqliteSaver.from_conn_string(path) as saver:
            agent = create_thinnest_agent(make(), checkpointer=saver)
            messages = (await agent.ainvoke(GIVEN, config))["messages"]
            assert types(messages) == ["human", "ai", "tool", "ai"] * turns


def test_its_name_is_the_graphs_and_the_messages(make: Make) -> None:
    agent = create_thinnest_agent(make(), name="researcher")
    assert agent.name == "researcher"
    messages = agent.invoke(GIVEN)["messages"]
    assert {m.name for m in messages if isinstance(m, AIMessage)} == {"researcher"}


def test_what_is_no_hosted_agent_is_refused(make: Make) -> None:
    with pytest.raises(TypeError, match="ChatThinnest"):
        create_thinnest_agent(make() | (lambda answer: answer))  # type: ignore[arg-type]


def test_two_hosted_agents_in_one_graph(make: Make, emulator: ThinnestEmulator) -> None:
    graph = StateGraph(MessagesState)
    for name in ("first", "second"):
        model = make("ag_echo", session_id=f"session-{name}")
        graph.add_node(name, create_thinnest_agent(model, name=name))
    graph.add_edge(START, "first")
    graph.add_edge("first", "second")
    graph.compile().invoke({"messages": [HumanMessage("the question")]})
    assert [request["message"] for request in emulator.requests] == [
        "the question",
        "User: the question\n\nAssistant (first): 0: the question",
    ]


# --- the model itself, in LangChain's agent loop ---


@pytest.mark.parametrize(
    "is_async",
    [
        False,
        pytest.param(
            True,
            marks=pytest.mark.skipif(
                sys.version_info < (3, 11),
                reason="before 3.11 asyncio hands no context, and so no config, to tasks",
            ),
        ),
    ],
)
def test_create_agent_shows_the_servers_tools_and_does_not_run_them(
    make: Make, emulator: ThinnestEmulator, is_async: bool
) -> None:
    agent = create_agent(model=make(), tools=[])
    parts = run(agent, is_async, ["messages", "tools", "values"])
    tools = [data for mode, data in parts if mode == "tools"]
    assert [data["event"] for data in tools] == ["tool-started", "tool-finished"]
    assert tools[0]["tool_name"] == "web_search"
    assert tools[0]["input"] == {"query": "ML applications 2026"}
    assert tools[1]["output"].content == "..."
    final = parts[-1][1]["messages"]
    assert types(final) == ["human", "ai"]
    assert final[-1].text == TEXT
    assert len(emulator.requests) == 1
    texts = [data[0].text for mode, data in parts if mode == "messages"]
    assert "".join(texts) == TEXT


@pytest.mark.parametrize("is_async", [False, True])
def test_v3_events_of_a_graph(make: Make, is_async: bool) -> None:
    agent = create_thinnest_agent(make())

    async def arun() -> tuple[list[str], Any]:
        events = await agent.astream_events(GIVEN, version="v3")
        texts = [await message.text async for message in events.messages]
        return texts, await events.output()

    if is_async:
        texts, state = asyncio.run(arun())
    else:
        events = agent.stream_events(GIVEN, version="v3")
        texts = [str(message.text) for message in events.messages]
        state = events.output
    assert texts == [TEXT]
    assert types(state["messages"]) == ["human", "ai", "tool", "ai"]


@pytest.mark.parametrize("is_async", [False, True])
def test_v3_events_of_a_graph_in_a_graph(make: Make, is_async: bool) -> None:
    """The answer is shown once: by the subgraph, and not again at the end of the node."""
    graph = in_a_graph(create_thinnest_agent(make(), name="hosted"))

    async def arun() -> tuple[list[str], list[str], Any]:
        events = await graph.astream_events(GIVEN, version="v3")
        below = [
            await message.text
            async for sub in events.subgraphs
            async for message in sub.messages
        ]
        texts = [await message.text async for message in events.messages]
        return texts, below, await events.output()

    if is_async:
        texts, below, state = asyncio.run(arun())
    else:
        events = graph.stream_events(GIVEN, version="v3")
        below = [str(message.text) for sub in events.subgraphs for message in sub.messages]
        texts = [str(message.text) for message in events.messages]
        state = events.output
    assert texts == []
    assert below == [TEXT]
    assert types(state["messages"]) == ["human", "ai", "tool", "ai"]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("subgraphs", [False, True])
def test_messages_mode_of_a_graph_in_a_graph(
    make: Make, is_async: bool, subgraphs: bool
) -> None:
    """Whoever does not listen to subgraphs is shown each message at the end of the node."""
    graph = in_a_graph(create_thinnest_agent(make(), name="hosted"))
    parts = run(graph, is_async, ["messages"], subgraphs=subgraphs)
    messages = [part[-1] for part in parts]
    assert [text for _, text in shown(messages)] == [TEXT[:OFFSET], "...", TEXT[OFFSET:]]
