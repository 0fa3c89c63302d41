"""The cookbook's LangGraph server: `langgraph dev`, asked over HTTP as its users ask it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from integration_tests.conftest import KEY
from integration_tests.servers import free_port, until_it_serves
from langchain_thinnest.emulator import ThinnestEmulator

pytest.importorskip("langgraph_api", reason="langgraph dev needs Python 3.11")
from langgraph.pregel.remote import RemoteGraph
from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.errors import UnprocessableEntityError

pytestmark = pytest.mark.tools

ROOT = Path(__file__).parents[2]
HERE = ROOT / "cookbook" / "langgraph_server"
PAGE = ROOT / "docs" / "langgraph-server.md"
CALL = {"type": "tool_call", "name": "search_library", "args": {"query": "tides"}}
RESULT = {"type": "tool_result", "name": "search_library", "result": "Of Moon and Sun."}
BEFORE, AFTER = ["Let me ", "look. "], ["The Moon ", "does it."]
QUESTION = {"messages": [{"role": "user", "content": "What are tides?"}]}


class Agent:
    """Answers with a script; told to wait, it waits in its tool until it is left."""

    def __init__(self) -> None:
        self.waits = False
        self.left = threading.Event()

    async def __call__(self, message: str, session: Any) -> AsyncIterator[Any]:
        try:
            for event in [*BEFORE, CALL]:
                yield event
            await asyncio.sleep(10 * self.waits)
            for event in [RESULT, *AFTER]:
                yield event
        except (GeneratorExit, asyncio.CancelledError):
            self.left.set()
            raise


@pytest.fixture(scope="module")
def the_emulator() -> Iterator[ThinnestEmulator]:
    with ThinnestEmulator({"ag_1": []}, api_keys=[KEY]) as emulator:
        yield emulator


@pytest.fixture
def emulator(the_emulator: ThinnestEmulator) -> ThinnestEmulator:
    the_emulator.requests.clear()
    the_emulator.agents["ag_1"] = Agent()
    return the_emulator


@pytest.fixture(scope="module")
def url(
    the_emulator: ThinnestEmulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The server, which takes some seconds to begin."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copytree(HERE, folder, dirs_exist_ok=True)
    environment = {
        **os.environ,
        "LANGGRAPH_CLI_NO_ANALYTICS": "1",
        "LANGSMITH_TRACING": "false",
        "PYTHONPATH": str(ROOT),
        "THINNEST_AGENT_ID": "ag_1",
        "THINNEST_API_KEY": KEY,
        "THINNEST_BASE_URL": the_emulator.base_url,
    }
    command = [str(Path(sys.executable).parent / "langgraph"), "dev", "--no-browser"]
    port, log = free_port(), folder / "log"
    with log.open("wb") as file:
        server = subprocess.Popen(
            [*command, "--no-reload", "--port", str(port)],
            cwd=folder,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        until_it_serves(url := f"http://127.0.0.1:{port}", server, log)
        yield url
    finally:
        server.terminate()
        server.wait(20)
    assert KEY not in log.read_text("utf-8")


@pytest.fixture
def thread(url: str) -> dict[str, Any]:
    """The config of a new thread."""
    with get_sync_client(url=url) as client:
        return {"configurable": {"thread_id": client.threads.create()["thread_id"]}}


def streamed(url: str, config: Any, mode: str, way: str) -> list[Any]:
    if way == "sync":
        with remote(url) as graph:
            return list(graph.stream(QUESTION, config, stream_mode=mode))

    async def run() -> list[Any]:
        async with get_client(url=url) as client:
            graph = RemoteGraph("thinnest", client=client)
            return [item async for item in graph.astream(QUESTION, config, stream_mode=mode)]

    return asyncio.run(run())


@contextmanager
def remote(url: str) -> Iterator[RemoteGraph]:
    """The graph, over a client that is closed: the one that it makes by itself is not."""
    with get_sync_client(url=url) as client:
        yield RemoteGraph("thinnest", sync_client=client)


@pytest.mark.parametrize("way", ["sync", "async"])
def test_messages_mode_streams_text_and_tools_in_order(
    url: str, emulator: ThinnestEmulator, thread: dict[str, Any], way: str
) -> None:
    messages = [message for message, _ in streamed(url, thread, "messages", way)]
    told = [(m["type"], m["content"]) for m in messages if m["content"]]
    assert told == [
        *(("AIMessageChunk", text) for text in BEFORE),
        ("tool", "Of Moon and Sun."),
        *(("AIMessageChunk", text) for text in AFTER),
    ]
    with get_sync_client(url=url) as client:
        state = client.threads.get_state(thread["configurable"]["thread_id"])
    human, calls, result, answer = state["values"]["messages"]
    assert [call["name"] for call in calls["tool_calls"]] == ["search_library"]
    assert result["tool_call_id"] == calls["tool_calls"][0]["id"]
    assert (human["type"], answer["content"]) == ("human", "".join(AFTER))
    assert {m["id"] for m in messages} == {m["id"] for m in (calls, result, answer)}
    assert KEY not in str(state)


def test_a_thread_is_a_session(
    url: str, emulator: ThinnestEmulator, thread: dict[str, Any]
) -> None:
    with remote(url) as graph:
        for _ in range(2):
            state = graph.invoke(QUESTION, thread)
    assert [m["type"] for m in state["messages"]] == ["human", "ai", "tool", "ai"] * 2
    for asked in emulator.requests:  # the server remembers: only what is new is sent
        assert asked["message"] == "What are tides?"
        assert asked["session_id"] == thread["configurable"]["thread_id"]
    assert len(emulator.requests) == 2


def test_events_mode_shows_the_tools(url: str, emulator: ThinnestEmulator) -> None:
    seen = []
    with get_sync_client(url=url) as client:
        for part in client.runs.stream(None, "thinnest", input=QUESTION, stream_mode="events"):
            if part.event == "events":
                seen.append(part.data)
    assert seen
    tools = [event for event in seen if event["event"].startswith("on_tool")]
    assert [event["event"] for event in tools] == ["on_tool_start", "on_tool_end"]
    assert tools[0]["data"]["input"] == {"query": "tides"}
    assert tools[1]["data"]["output"]["content"] == "Of Moon and Sun."
    texts = [
        e["data"]["chunk"]["content"] for e in seen if e["event"] == "on_chat_model_stream"
    ]
    assert [text for text in texts if text] == BEFORE + AFTER
    assert KEY not in str(seen)


def test_v3_events_open_and_close_each_block(
    url: str, emulator: ThinnestEmulator, thread: dict[str, Any]
) -> None:
    with remote(url) as graph, graph.stream_events(QUESTION, thread, version="v3") as run:
        data = [e["params"]["data"] for e in run if e["method"] == "messages"]
    ended = [event["content"] for event in data if event["event"] == "content-block-finish"]
    assert [block["type"] for block in ended] == [
        "text",
        "server_tool_call",
        "server_tool_result",
        "text",
    ]
    assert [ended[0]["text"], ended[3]["text"]] == ["".join(BEFORE), "".join(AFTER)]


@pytest.mark.parametrize(
    ("number", "shows"),
    [
        (0, "AIMessageChunk look. \ntool Of Moon and Sun.\nAIMessageChunk The Moon "),
        (1, "on_tool_start search_library {'input': {'query': 'tides'}}\non_tool_end search"),
    ],
)
def test_the_pages_examples(
    url: str,
    emulator: ThinnestEmulator,
    capsys: pytest.CaptureFixture[str],
    number: int,
    shows: str,
) -> None:
    blocks = re.findall(
        r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert len(blocks) == 2
    scope: dict[str, Any] = {}
    exec(blocks[number].replace("http://127.0.0.1:2024", url), scope)
    scope["client"].close()
    assert shows in capsys.readouterr().out


def test_tools_mode_is_refused(url: str, emulator: ThinnestEmulator) -> None:
    """So what the docs show first is events."""
    with get_sync_client(url=url) as client, pytest.raises(UnprocessableEntityError):
        list(client.runs.stream(None, "thinnest", input=QUESTION, stream_mode="tools"))


def test_a_client_that_leaves_ends_the_stream(url: str, emulator: ThinnestEmulator) -> None:
    agent: Any = emulator.agents["ag_1"]
    agent.waits = True
    with get_sync_client(url=url) as client:
        parts = client.runs.stream(
            None,
            "thinnest",
            input=QUESTION,
            stream_mode="messages-tuple",
            on_disconnect="cancel",
        )
        for part in parts:
            if part.event == "messages":
                break
        assert not agent.left.is_set()
        parts.close()
        assert agent.left.wait(10)
