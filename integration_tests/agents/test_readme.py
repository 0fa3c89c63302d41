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

from integration_tests.conftest import EXAMPLES_IMPORT
from integration_tests.warm import Cold, Warm, warmed_up
from langchain_thinnest import ChatThinnest
from langchain_thinnest.emulator import ThinnestEmulator

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# These have tests of their own.
ELSEWHERE = {"langgraph-server.md", "many-workers.md", "traces.md"}
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
    "errors-and-retries.md": [
        "ThinnestNotFoundError 404 Agent not found",
        "From “Tides”",
        "From “Tides”",
        "stop_sequence None",
    ],
    "langgraph.md": ["tool-finished", "human And what are tides?\nai Let me"],
    "faster.md": ["From “Machine learning”"],
    "local-tools.md": [
        "Name: get_weather\n\nIt is sunny in Paris.",
        "From “Machine learning”",
    ],
    "moving.md": ["From “Tides”"],
    "sessions.md": ["Your name is Ada.", "And Lyon?\n---\nWhy?\n---"],
    "testing.md": ["You have asked 0 times before.", "1 passed"],
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


def test_the_readme_is_short() -> None:
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) <= 200
