"""The app of `docs/web-server.md`, over real sockets: clients that stay, and that leave."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from integration_tests.test_lifetime import WHOLE, until
from integration_tests.wire import HEADERS, Repeat, Step, Watch, WireServer, chunk, head
from unit_tests.contract import TEXT, as_sse

pytest.importorskip("fastapi")
pytest.importorskip("langgraph.graph")
PAGE = Path(__file__).parents[1] / "docs" / "web-server.md"
CLIENTS = 200
BEGUN: list[Step] = [
    head(200, {**HEADERS, "Transfer-Encoding": "chunked"}),
    chunk(as_sse({"type": "text", "content": "some"})),
]
ENDLESS = [*BEGUN, Repeat(BEGUN[1], 0.02)]
SILENT = [*BEGUN, Watch(threading.Event())]


class App:
    """The page's code, served by uvicorn in a process of its own."""

    def __init__(self, folder: Path, base_url: str) -> None:
        code = "\n".join(
            re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
        )
        (folder / "app.py").write_text(code, encoding="utf-8")
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        command = [sys.executable, "-m", "uvicorn", "app:app", "--app-dir", str(folder)]
        command += ["--fd", str(listener.fileno()), "--log-level", "error"]
        environment = {**os.environ, "THINNEST_BASE_URL": base_url, "THINNEST_API_KEY": "ak_1"}
        environment["THINNEST_AGENT_ID"] = "ag_1"
        self._process = subprocess.Popen(
            command, env=environment, pass_fds=[listener.fileno()]
        )
        listener.close()

    @property
    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self._process.pid}/fd").iterdir()))

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)


@pytest.fixture(scope="module")
def the_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[App, WireServer]]:
    """An app, which takes a second to begin, and the server that it asks."""
    with WireServer() as server:
        app = App(tmp_path_factory.mktemp("app"), server.base_url)
        yield app, server
        app.close()


@pytest.fixture
def app(the_app: tuple[App, WireServer]) -> App:
    return the_app[0]


@pytest.fixture
def wire(the_app: tuple[App, WireServer]) -> WireServer:
    the_app[1].requests.clear()
    return the_app[1]


@pytest.mark.parametrize("path", ["/ask", "/ask-graph", "/events"])
def test_a_client_that_stays_gets_the_answer(app: App, wire: WireServer, path: str) -> None:
    wire.answer(WHOLE)
    answer = httpx.get(app.url + path, params={"question": "hi"}, timeout=30)
    assert "".join(re.findall(r'"text": "(.*?)"}', answer.text)) == TEXT


def test_an_answer_that_is_not_streamed(app: App, wire: WireServer) -> None:
    wire.answer(WHOLE)
    assert httpx.get(f"{app.url}/answer?question=hi", timeout=30).json() == TEXT


async def leave(app: App, path: str) -> None:
    """Ask, and go away in the middle of the answer."""
    port = httpx.URL(app.url).port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path}?question=hi HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await reader.readuntil(b"data: ")
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("script", [ENDLESS, SILENT], ids=["endless", "silent"])
@pytest.mark.parametrize("path", ["/ask", "/ask-graph", "/events"])
def test_clients_that_leave_leave_nothing_open(
    app: App, wire: WireServer, path: str, script: list[Step]
) -> None:
    wire.answer(script)

    async def all_leave(count: int) -> None:
        await asyncio.gather(*(leave(app, path) for _ in range(count)))

    asyncio.run(all_leave(1))  # what is made once
    assert until(lambda: wire.open_connections == 0)
    gc.collect()
    before = app.descriptors
    for _ in range(CLIENTS // 20):
        asyncio.run(all_leave(20))
    assert len(wire.requests) == CLIENTS + 1
    assert until(lambda: wire.open_connections == 0), wire.open_connections
    assert until(lambda: app.descriptors <= before), (app.descriptors, before)
