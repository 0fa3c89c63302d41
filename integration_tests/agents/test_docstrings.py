"""The examples of the docstrings, which the reference shows: each runs with the emulator."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langchain_thinnest.emulator import ThinnestEmulator, demo_agent

PACKAGE = Path(__file__).parents[2] / "langchain_thinnest"
# What the docstrings take as given.
GIVEN = """
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import HumanMessage
from langchain_thinnest import *
from langchain_thinnest import create_thinnest_agent
from pydantic import BaseModel

model = ChatThinnest()
other_model = FakeListChatModel(responses=["It is."])
"""
# What each prints, among other things, or leaves in a name.
SHOWS = {
    "ChatThinnest": "From “Machine learning”",
    "as_tool": "From “Machine learning”",
    "bind_tools": "[]",  # the emulator's agent calls no tools of yours
    "create_thinnest_agent": "",
    "expand_server_tools": "",
    "is_retryable": "",
    "with_retry": "Hello",
    "with_structured_output": "21.5",
}


def examples() -> Iterator[tuple[str, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                docstring = ast.get_docstring(node) or ""
                blocks = r"^ *```python\n(.*?)^ *```"
                for code in re.findall(blocks, docstring, re.MULTILINE | re.DOTALL):
                    yield node.name, textwrap.dedent(code)


EXAMPLES = dict(examples())


def agent(message: str, session: Any) -> Any:
    if "<response_schema>" in message:
        return '{"city": "Paris", "celsius": 21.5}'
    return demo_agent(message, session)


def test_each_is_known() -> None:
    assert EXAMPLES.keys() == SHOWS.keys()
    assert len(list(examples())) == len(EXAMPLES)


@pytest.mark.parametrize("name", SHOWS)
def test_example(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with ThinnestEmulator({"*": agent}) as emulator:
        monkeypatch.setenv("THINNEST_API_KEY", emulator.api_key)
        monkeypatch.setenv("THINNEST_AGENT_ID", "ag_demo")
        monkeypatch.setenv("THINNEST_BASE_URL", emulator.base_url)
        names: dict[str, Any] = {"__name__": "example"}
        exec(compile(GIVEN + EXAMPLES[name], name, "exec", dont_inherit=True), names)
    assert SHOWS[name] in capsys.readouterr().out
    asks = name != "is_retryable"
    assert len(emulator.requests) == asks
