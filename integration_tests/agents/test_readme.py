"""Each Python snippet of the README runs, as it is, against the emulator."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from integration_tests.conftest import KEY, echo_agent, example_agent
from integration_tests.protocol_agent import protocol_agent
from langchain_thinnest.emulator import ThinnestEmulator

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
# What each snippet prints, among other things: so that it cannot run and show nothing.
SHOWS = [
    "server_tool_result",
    "ada",
    "calls web_search {'query': 'ML applications 2026'}\ngave  web_search ...",
    "on_tool_end web_search",
    "Tool Message",
    "Name: get_weather\n\nIt is sunny in Paris.",
    "Machine learning is",
    "Trip(city='Lisbon', days=3)",
    "tool-finished",
    "tool ...",
    "ThinnestNotFoundError 404 Agent not found",
    "You have asked 0 times before.",
]


def either_agent(message: str, session: Any) -> Any:
    """Gives the contract's example, unless tools or a typed answer are asked for."""
    agent = protocol_agent if message.startswith("<") else example_agent
    yield from agent(message, session)


@pytest.mark.parametrize(("snippet", "shows"), list(zip(SNIPPETS, SHOWS, strict=True)))
def test_snippet(snippet: str, shows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agents = {"ag_c47e7c97_b2f2": either_agent, "ag_echo": echo_agent}
    with ThinnestEmulator(agents, api_keys=[KEY]) as emulator:
        monkeypatch.setenv("THINNEST_API_KEY", KEY)
        monkeypatch.setenv("THINNEST_BASE_URL", emulator.base_url)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", snippet],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert shows in done.stdout
    assert len(snippet.splitlines()) <= 25
