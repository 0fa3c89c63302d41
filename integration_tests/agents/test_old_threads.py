"""Threads in a SQLite checkpoint that 0.1 wrote, continued; see `fixtures/write.py`."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph

from integration_tests.conftest import KEY
from langchain_thinnest import ChatThinnest, create_thinnest_agent
from langchain_thinnest.emulator import ThinnestEmulator

FIXTURE = Path(__file__).parents[1] / "fixtures" / "0.1" / "threads.sqlite"
TURN = ["human", "ai", "tool", "ai"]


def shop(message: str, session: Any) -> Any:
    yield {"type": "tool_call", "name": "till", "args": {}}
    yield {"type": "tool_result", "name": "till", "result": "open"}
    yield "Come in."


@pytest.fixture
def emulator() -> Iterator[ThinnestEmulator]:
    with ThinnestEmulator(
        {"ag_shop": shop, "ag_other": ["Well."]}, api_keys=[KEY]
    ) as emulator:
        yield emulator


@pytest.fixture
def threads(tmp_path: Path) -> Path:
    """A copy: the fixture stays as 0.1 wrote it."""
    return Path(shutil.copy(FIXTURE, tmp_path / "threads.sqlite"))


def model(
    emulator: ThinnestEmulator, agent_id: str = "ag_shop", **fields: Any
) -> ChatThinnest:
    return ChatThinnest(agent_id=agent_id, api_key=KEY, base_url=emulator.base_url, **fields)


def go_on(graph: Any, path: Path, thread: str, *, in_a_loop: bool) -> list[Any]:
    """Ask in a thread, sync or async, and give the state's messages."""
    config = {"configurable": {"thread_id": thread}}
    given = {"messages": "Are you open?"}

    async def ask() -> Any:
        async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
            return await graph(saver).ainvoke(given, config)

    if in_a_loop:
        return list(asyncio.run(ask())["messages"])
    connection = sqlite3.connect(path, check_same_thread=False)
    try:
        return list(graph(SqliteSaver(connection)).invoke(given, config)["messages"])
    finally:
        connection.close()


@pytest.mark.parametrize("in_a_loop", [False, True], ids=["sync", "async"])
def test_a_thread_that_is_a_session(
    emulator: ThinnestEmulator, threads: Path, in_a_loop: bool
) -> None:
    """The session has heard all that the thread holds: only what is new goes out."""
    shopkeeper = model(emulator, session_key="thread_id")
    messages = go_on(
        lambda saver: create_thinnest_agent(shopkeeper, name="shop", checkpointer=saver),
        threads,
        "with-session",
        in_a_loop=in_a_loop,
    )
    assert [message.type for message in messages] == TURN * 3
    assert len({message.id for message in messages}) == len(messages)
    (request,) = emulator.requests
    assert (request["message"], request["session_id"]) == ("Are you open?", "with-session")


@pytest.mark.parametrize("in_a_loop", [False, True], ids=["sync", "async"])
def test_a_thread_without_a_session(
    emulator: ThinnestEmulator, threads: Path, in_a_loop: bool
) -> None:
    messages = go_on(
        lambda saver: create_thinnest_agent(model(emulator), name="shop", checkpointer=saver),
        threads,
        "without-session",
        in_a_loop=in_a_loop,
    )
    assert [message.type for message in messages] == TURN * 3
    (request,) = emulator.requests
    assert request["message"].startswith("User: Do you have tea?\n\nAssistant (shop): Let me")
    assert request["message"].count('Assistant called stock: {"item": "tea"}') == 2
    assert request["message"].count('Tool (stock): {"left": 7}') == 2
    assert request["message"].endswith("\n\nUser: Are you open?")


def test_another_agent_on_the_thread_is_told_all(
    emulator: ThinnestEmulator, threads: Path
) -> None:
    other = model(emulator, "ag_other", session_key="thread_id")
    messages = go_on(
        lambda saver: create_thinnest_agent(other, checkpointer=saver),
        threads,
        "with-session",
        in_a_loop=False,
    )
    assert [message.type for message in messages] == [*TURN * 2, "human", "ai"]
    assert emulator.requests[0]["message"].startswith("User: Do you have tea?\n\nAssistant")


def test_a_plain_model_in_a_graph_goes_on(emulator: ThinnestEmulator, threads: Path) -> None:
    def graph(saver: Any) -> Any:
        shopkeeper = model(emulator, session_key="thread_id")
        builder = StateGraph(MessagesState)
        builder.add_node(
            "shop", lambda state: {"messages": shopkeeper.invoke(state["messages"])}
        )
        builder.add_edge(START, "shop")
        builder.add_edge("shop", END)
        return builder.compile(checkpointer=saver)

    messages = go_on(graph, threads, "with-session", in_a_loop=False)
    assert emulator.requests[0]["message"] == "Are you open?"
    assert isinstance(messages[-2], HumanMessage)
    kinds = [block["type"] for block in messages[-1].content_blocks]
    assert kinds == ["server_tool_call", "server_tool_result", "text"]
