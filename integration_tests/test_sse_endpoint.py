"""The cookbook's endpoint of Server-Sent Events: clients that stay, and that leave."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import connect_sse

from integration_tests.conftest import KEY
from integration_tests.servers import until_it_serves
from integration_tests.test_lifetime import until
from langchain_thinnest.emulator import Fault, ThinnestEmulator

pytest.importorskip("fastapi")
HERE = Path(__file__).parents[1] / "cookbook" / "sse_endpoint"
CALL = {"type": "tool_call", "name": "search_library", "args": {"query": "tides"}}
RESULT = {"type": "tool_result", "name": "search_library", "result": "Of Moon and Sun."}
EVENTS = ["Let me look. ", CALL, RESULT, "The Moon does it."]
# The agent goes on for so many events, and waits.
MOMENTS = {
    "before anything": 0,
    "in the text": 1,
    "in a tool": 2,
    "behind a tool": 3,
    "last": 4,
}
CLIENTS = 20


class Agents:
    """The agent's runs: how many began, and how many were left before they ended."""

    def __init__(self) -> None:
        self.most = len(EVENTS) + 1
        self.begun = self.left = 0
        self.told = threading.Semaphore(0)

    async def __call__(self, message: str, session: Any) -> AsyncIterator[Any]:
        self.begun += 1
        try:
            for event in EVENTS[: self.most]:
                yield event
            self.told.release()
            if self.most <= len(EVENTS):
                await asyncio.sleep(30)
        except (GeneratorExit, asyncio.CancelledError):
            self.left += 1
            raise


@pytest.fixture(scope="module")
def the_emulator() -> Iterator[ThinnestEmulator]:
    with ThinnestEmulator({"ag_1": []}, api_keys=[KEY]) as emulator:
        yield emulator


@pytest.fixture
def agents(the_emulator: ThinnestEmulator) -> Agents:
    the_emulator.requests.clear()
    the_emulator.agents["ag_1"] = agents = Agents()
    return agents


@pytest.fixture(scope="module")
def url(
    the_emulator: ThinnestEmulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    environment = {
        **os.environ,
        "PYTHONPATH": str(HERE.parents[1]),
        "THINNEST_AGENT_ID": "ag_1",
        "THINNEST_API_KEY": KEY,
        "THINNEST_BASE_URL": the_emulator.base_url,
    }
    command = [sys.executable, "-m", "uvicorn", "app:app", "--app-dir", str(HERE)]
    log = tmp_path_factory.mktemp("endpoint") / "log"
    with log.open("wb") as file:
        server = subprocess.Popen(
            [*command, "--fd", str(listener.fileno())],
            env=environment,
            pass_fds=[listener.fileno()],
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.close()
        until_it_serves(url, server, log)
        yield url
    finally:
        server.terminate()
        server.wait(10)
    written = log.read_text("utf-8")
    assert "Traceback" not in written
    assert KEY not in written


def asked(url: str, **params: str) -> list[tuple[str, Any]]:
    params = {"question": "What are tides?", **params}
    with (
        httpx.Client(trust_env=False, timeout=30) as client,
        connect_sse(client, "GET", f"{url}/ask", params=params) as source,
    ):
        return [(event.event, json.loads(event.data)) for event in source.iter_sse()]


def test_text_and_tools_are_events(
    url: str, agents: Agents, the_emulator: ThinnestEmulator
) -> None:
    events = asked(url, session_id="ada")
    kinds = [kind for kind, _ in events]
    assert kinds == ["text", "server_tool_call", "server_tool_result", "text", "done"]
    assert events[1][1]["args"] == {"query": "tides"}
    assert events[2][1]["output"] == "Of Moon and Sun."
    assert events[2][1]["tool_call_id"] == events[1][1]["id"]
    assert [the_emulator.requests[0]["session_id"], agents.left] == ["ada", 0]


@pytest.mark.parametrize(
    ("fault", "begins", "says"),
    [
        (Fault.status(402, "Your balance is used up."), 0, "Your balance is used up."),
        (Fault.error("The model is overloaded.", after=1), 1, "The model is overloaded."),
    ],
    ids=["refused", "in the answer"],
)
def test_an_error_is_an_event(
    url: str,
    agents: Agents,
    the_emulator: ThinnestEmulator,
    fault: Fault,
    begins: int,
    says: str,
) -> None:
    the_emulator.fail_next(fault)
    *before, (kind, error) = asked(url)
    assert (len(before), kind) == (begins, "error")
    assert says in error["message"]
    assert KEY not in error["message"]
    assert error["retry"] is False


@pytest.mark.parametrize("moment", MOMENTS)
def test_clients_that_leave_end_the_agents_streams(
    url: str, agents: Agents, moment: str
) -> None:
    agents.most = MOMENTS[moment]
    port = httpx.URL(url).port
    request = b"GET /ask?question=hi HTTP/1.1\r\nHost: x\r\n\r\n"
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(CLIENTS)]
    for client in clients:
        client.sendall(request)
    for _ in clients:
        assert agents.told.acquire(timeout=10)
    if agents.most:  # what was said has come
        for client in clients:
            client.settimeout(10)
            received = b""
            while received.count(b"event: ") < agents.most:
                received += client.recv(65536)
    assert agents.left == 0
    for client in clients:
        client.close()
    assert until(lambda: agents.left == CLIENTS), agents.left
    assert agents.begun == CLIENTS
