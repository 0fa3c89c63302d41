"""The cookbook's chat page, in a real browser, over the emulator."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from integration_tests.servers import free_port, until_it_serves
from langchain_thinnest.emulator import Fault, ThinnestEmulator

HERE = Path(__file__).parents[2] / "cookbook" / "chat_page"
# With PICTURE in the environment, the page's picture is taken again.
PICTURE = Path(__file__).parents[2] / "docs" / "chat-page.png"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
CALL = {"type": "tool_call", "name": "search_library", "args": {"query": "tides"}}
RESULT = {"type": "tool_result", "name": "search_library", "result": "Of Moon and Sun."}
PATIENCE = 15_000  # milliseconds, for the browser
KEY = "ak_0123456789abcdef"


class Agent:
    """An agent that goes on when the test says so, and tells when it is left."""

    def __init__(self) -> None:
        self.gates = [threading.Event() for _ in range(3)]
        self.left = threading.Event()

    async def __call__(self, message: str, session: Any) -> AsyncIterator[Any]:
        events = [f"{len(session.messages) // 2} before. ", CALL, RESULT, "The Moon does it."]
        try:
            for number, event in enumerate(events):
                while number and not self.gates[number - 1].is_set():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                yield event
        except (GeneratorExit, asyncio.CancelledError):
            self.left.set()
            raise

    def go_on(self, steps: int = 3) -> None:
        for gate in self.gates[:steps]:
            gate.set()


@pytest.fixture(scope="module")
def emulator() -> Iterator[ThinnestEmulator]:
    with ThinnestEmulator({"ag_1": []}, api_keys=[KEY]) as emulator:
        yield emulator


@pytest.fixture
def agent(emulator: ThinnestEmulator) -> Agent:
    emulator.requests.clear()
    emulator.agents["ag_1"] = agent = Agent()
    return agent


@contextmanager
def serving(
    log: Path, environment: dict[str, str], command: Sequence[str] = (str(HERE),)
) -> Iterator[str]:
    """The page's server as a user begins it, with its files in another folder."""
    port = free_port()
    root = log.parent / "root"
    shutil.copytree(HERE, root, ignore=shutil.ignore_patterns("*.py", "translations"))
    known = {name: os.environ[name] for name in os.environ if "THINNEST" not in name}
    with log.open("wb") as file:
        server = subprocess.Popen(
            [sys.executable, *command, "--headless", "--port", str(port)],
            env={**known, "CHAINLIT_APP_ROOT": str(root), **environment},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        until_it_serves(url := f"http://127.0.0.1:{port}", server, log)
        yield url
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture(scope="module")
def environment(emulator: ThinnestEmulator) -> dict[str, str]:
    asked = {"THINNEST_API_KEY": KEY, "THINNEST_AGENT_ID": "ag_1"}
    return {**asked, "THINNEST_BASE_URL": emulator.base_url}


@pytest.fixture(scope="module")
def url(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    log = tmp_path_factory.mktemp("chat_page") / "log"
    with serving(log, environment) as url:
        yield url
    assert KEY not in log.read_text("utf-8")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        pytest.fail("The tests of the chat page need Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def open_page(browser: Browser, url: str) -> Page:
    page = browser.new_page(viewport={"width": 800, "height": 800})
    page.set_default_timeout(PATIENCE)
    page.goto(url)
    return page


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    page = open_page(browser, url)
    yield page
    page.close()


def ask(page: Page, question: str) -> None:
    page.locator("#chat-input").fill(question)
    page.locator("#chat-submit").click()  # once it can be


def expect_text(page: Page, *texts: str) -> None:
    """Expect what the agent says and does, from top to bottom."""
    pattern = re.compile(".*".join(map(re.escape, texts)), re.DOTALL)
    expect(page.locator("body")).to_contain_text(pattern, timeout=PATIENCE)


def test_text_streams_and_a_tool_is_a_step_while_it_runs(page: Page, agent: Agent) -> None:
    ask(page, "What are tides?")
    expect_text(page, "What are tides?", "0 before.")
    step = page.locator("#step-search_library")
    expect(step).to_have_count(0)
    agent.go_on(1)
    expect(step).to_have_text(re.compile("Using search_library"), timeout=PATIENCE)
    step.click()
    expect_text(page, "0 before.", "Using", '{"query": "tides"}')
    assert "Of Moon and Sun." not in page.inner_text("body")
    agent.go_on(2)
    expect_text(page, "0 before.", "Used", '{"query": "tides"}', "Of Moon and Sun.")
    assert "The Moon does it." not in page.inner_text("body")
    agent.go_on()
    expect_text(page, "Of Moon and Sun.", "The Moon does it.")


def test_a_conversation_is_a_session(
    page: Page, agent: Agent, emulator: ThinnestEmulator
) -> None:
    agent.go_on()
    for number in range(2):
        ask(page, f"question {number}")
        expect_text(page, f"question {number}", f"{number} before.", "The Moon does it.")
    page.locator("#new-chat-button").click()
    page.get_by_role("button", name="Confirm").click()
    ask(page, "question 2")
    expect_text(page, "question 2", "0 before.", "The Moon does it.")
    first, second, third = (asked["session_id"] for asked in emulator.requests)
    assert first == second != third
    # The server remembers, so only what is new is sent.
    assert [asked["message"] for asked in emulator.requests][1:] == [
        "question 1",
        "question 2",
    ]


@pytest.mark.parametrize("moment", ["in the text", "in a tool"])
def test_the_stop_button_ends_the_servers_stream(
    page: Page, agent: Agent, moment: str
) -> None:
    agent.go_on(moment == "in a tool")
    ask(page, "What are tides?")
    expect_text(page, "Using" if moment == "in a tool" else "0 before.")
    assert not agent.left.is_set()
    page.locator("#stop-button").click()
    assert agent.left.wait(5)
    expect_text(page, "0 before.", "Task manually stopped.")
    agent.go_on()
    ask(page, "And now?")  # goes on in the same conversation
    expect_text(page, "And now?", "The Moon does it.")


# The page's app, and a browser that takes its time.
SLOW = f"""
import asyncio, runpy
import chainlit as cl
write = cl.Message.stream_token

async def write_slowly(self, text):
    await write(self, text)
    await asyncio.sleep(60)

cl.Message.stream_token = write_slowly
runpy.run_path({str(HERE / "app.py")!r})
"""


def test_the_stop_button_ends_it_while_the_page_is_written_to(
    browser: Browser, agent: Agent, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    command = ["-m", "chainlit", "run", str(tmp_path / "slow.py")]
    with serving(tmp_path / "log", environment, command) as url:
        page = open_page(browser, url)
        ask(page, "What are tides?")
        expect_text(page, "0 before.")
        page.locator("#stop-button").click()
        assert agent.left.wait(5)
        page.close()


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (Fault.status(402, "Your balance is used up."), "Your balance is used up."),
        (Fault.error("The model is overloaded.", after=1), "The model is overloaded."),
        (Fault.cut(after=1), "the agent may have acted all the same"),
    ],
    ids=["balance", "error event", "cut"],
)
def test_an_error_is_a_sentence(
    page: Page,
    agent: Agent,
    emulator: ThinnestEmulator,
    fault: Fault,
    sentence: str,
) -> None:
    agent.go_on()
    emulator.fail_next(fault)
    ask(page, "What are tides?")
    expect_text(page, "What are tides?", sentence)
    assert "Traceback" not in page.inner_text("body")
    ask(page, "And now?")
    expect_text(page, "And now?", "The Moon does it.")


def test_without_a_key_the_demo_agent_answers(browser: Browser, tmp_path: Path) -> None:
    with serving(tmp_path / "log", {}) as url:
        page = open_page(browser, url)
        ask(page, "What is 37 * 42?")
        expect_text(page, "Used", "calculator", "37 * 42 = 1554.")
        if "PICTURE" in os.environ:
            page.locator("#step-calculator").click()
            page.wait_for_timeout(2000)  # until nothing moves
            page.screenshot(path=PICTURE)
        page.close()
    assert "demo agent" in (tmp_path / "log").read_text("utf-8")


def test_the_app_is_short() -> None:
    assert len((HERE / "app.py").read_text("utf-8").splitlines()) <= 40
