"""The page "Which key, which endpoint": its examples run, and its claims hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from integration_tests.conftest import example_agent
from integration_tests.warm import Warm
from langchain_thinnest.emulator import ThinnestEmulator

PAGE = (Path(__file__).parents[1] / "docs" / "which-key.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
SHOWS = [
    r"Machine learning is .*\nsess_",
    r'/chat/stream is not for this key: .*set endpoint="/v1.*\n/v1/agents/.*/chat works',
    r"'server_tool_call'.*'Let me look. 7 are left.'.*\n/v1/agents/ag_shop/chat",
]


@pytest.mark.parametrize("siblings_stream", [True, False])
@pytest.mark.parametrize(("snippet", "shows"), list(zip(SNIPPETS, SHOWS, strict=True)))
def test_snippet(
    snippet: str,
    shows: str,
    siblings_stream: bool,
    monkeypatch: pytest.MonkeyPatch,
    strict_python: Warm,
) -> None:
    agent_id = "ag_c47e7c97_b2f2"
    with ThinnestEmulator(
        {agent_id: example_agent},
        api_keys=["thns_sk_all"],
        agent_keys={"ak_one_agents": agent_id},
        siblings_stream=siblings_stream,
    ) as emulator:
        monkeypatch.setenv("THINNEST_API_KEY", "ak_one_agents")
        monkeypatch.setenv("THINNEST_BASE_URL", emulator.base_url)
        done = strict_python.run(["-c", snippet])
    assert done.returncode == 0, done.stderr
    assert re.search(shows, done.stdout), done.stdout
    assert "ak_one_agents" not in done.stdout
