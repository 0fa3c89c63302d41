"""The README and the docs: each Python example runs, as it is, and links lead somewhere.

The examples run for a reader who has the emulator and nothing else: its demo agent, by the
three variables that `python -m langchain_thinnest.emulator` says to set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import ConfigurableField

from integration_tests.conftest import EXAMPLES_IMPORT, KEY
from integration_tests.warm import Cold, Warm, warmed_up
from langchain_thinnest import ChatThinnest
from langchain_thinnest.emulator import ThinnestEmulator
from unit_tests.contract import TEXT

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# These have tests of their own.
ELSEWHERE = {"engines.md", "langgraph-server.md", "many-workers.md", "traces.md"}
ELSEWHERE |= {"web-server.md", "which-key.md"}
# What each example prints, among other things: so that it cannot run and show nothing.
SHOWS: dict[str, list[str]] = {
    "README.md": [
        "'server_tool_result'",
        "From “Lighthouses”: The Fresnel lens",
        "Your name is Ada.",
        "calls calculator {'expression': '37 * 42'}\ngave  calculator 1554",
        "Trip(city='Lisbon', days=3)",
        "tool [{",
        "ThinnestNotFoundError 404 False",
    ],
    "batches.md": ["25 answers, 25 requests taken"],
    "calls.md": ["'session_id': 'ada'"],
    "chains.md": [
        "From “Machine learning”",
        "From “Tides”",
        "Your name is Ada.",
        "From “Tides”",
    ],
    "errors-and-retries.md": [
        "ThinnestNotFoundError 404 Agent not found",
        "From “Tides”",
        "From “Tides”",
        "stop_sequence None",
    ],
    "hosted-agents.md": ["'total_tokens'"],
    "index.md": ["From “Machine learning”"],
    "langgraph.md": [
        "on_tool_end search_library",
        "human And what are tides?\nai Let me",
        "Your name is Ada.\n\n(This is the emulator's",
    ],
    "faster.md": ["From “Machine learning”"],
    "local-tools.md": [
        "Name: get_weather\n\nIt is sunny in Paris.",
        "From “Machine learning”",
    ],
    "moving.md": ["From “Tides”"] * 4,
    "settings.md": ["From “Tides”"],
    "sessions.md": ["Your name is Ada.", "And Lyon?\n---\nWhy?\n---"],
    "testing.md": ["You have asked 0 times before.", "", "1 passed"],
    "troubleshooting.md": ["From “Tides”"],
    "typed-answers.md": ["Trip(city='Lisbon', days=3)"],
    "watching-tools.md": [
        "calls search_library {'query': 'machine learning'}",
        "on_tool_end search_library",
        "server_tool_result 1554",
        "Tool Message",
    ],
}


@pytest.fixture(scope="module")
def strict_python() -> Iterator[Warm | Cold]:
    """Runs code for which a warning is an error."""
    agents = ["langchain_thinnest.agents", "langchain.agents"]
    python = warmed_up(*EXAMPLES_IMPORT, *agents, flags=["-W", "error"])
    yield python
    python.close()


def examples(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


CASES = [
    pytest.param(page, number, shows, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, shows in enumerate(SHOWS.get(page.name, ()))
]


@pytest.mark.parametrize(("page", "number", "shows"), CASES)
def test_example(
    page: Path,
    number: int,
    shows: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    strict_python: Warm,
) -> None:
    example = examples(page)[number]
    assert len(example.splitlines()) <= 30
    python: Any = strict_python
    command = ["-c", example]
    if "def test_" in example:
        (tmp_path / "test_it.py").write_text(example, encoding="utf-8")
        fixture = "from langchain_thinnest.emulator.pytest import thinnest\n"
        (tmp_path / "conftest.py").write_text(fixture, encoding="utf-8")
        # pytest brings the fixture's package in by itself, so it begins with nothing.
        python, command = Cold(), ["-m", "pytest", "-q", str(tmp_path)]
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    with ThinnestEmulator() as emulator:
        monkeypatch.setenv("THINNEST_API_KEY", emulator.api_key)
        monkeypatch.setenv("THINNEST_AGENT_ID", "ag_demo")
        monkeypatch.setenv("THINNEST_BASE_URL", emulator.base_url)
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        done = python.run(command, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert shows in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_example_is_run(page: Path) -> None:
    if page.name not in ELSEWHERE:
        assert len(examples(page)) == len(SHOWS.get(page.name, ()))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", prose(target), re.MULTILINE)
            assert anchor in map(slug, headings), link


def prose(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def slug(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")


def test_the_settings_are_all_told() -> None:
    told = re.findall(r"`(\w+)`", (ROOT / "docs" / "settings.md").read_text(encoding="utf-8"))
    ours = ChatThinnest.model_fields.keys() - BaseChatModel.model_fields.keys()
    assert ours - set(told) == set()


def test_the_fields_of_langchain_are_all_told() -> None:
    page = (ROOT / "docs" / "api" / "model.md").read_text(encoding="utf-8")
    table = page.partition("## Fields of LangChain")[2].partition("## Methods")[0]
    told = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)))
    assert set(told) == BaseChatModel.model_fields.keys()


def test_the_readme_is_short() -> None:
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) <= 200


def test_init_chat_model_knows_no_provider_of_ours(emulator: ThinnestEmulator) -> None:
    """As docs/moving.md says: and where it takes a name, `create_agent` takes a model."""
    from langchain.agents import create_agent
    from langchain.chat_models import init_chat_model

    with pytest.raises(ValueError, match="Unable to infer model provider"):
        init_chat_model("thinnest:ag_demo")
    with pytest.raises(ValueError, match="Unsupported provider='thinnest'"):
        init_chat_model("ag_demo", model_provider="thinnest")
    model = ChatThinnest(api_key=KEY, base_url=emulator.base_url, agent_id="ag_example")
    answer = create_agent(model).invoke({"messages": "hi"})["messages"][-1]
    assert answer.text == TEXT
    by_config = model.configurable_fields(agent_id=ConfigurableField(id="agent"))
    echo = by_config.invoke("hi", {"configurable": {"agent": "ag_echo"}})
    assert echo.text == "0: hi" == model.invoke("hi", agent_id="ag_echo").text
