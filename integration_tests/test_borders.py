"""The borders of the house, each crossed once: `make lint` must see it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("importlinter")

ROOT = Path(__file__).parents[1]

# Who crosses, by which import, and the contract that says so.
CROSSINGS = [
    ("_http/limits.py", "langchain_thinnest._fields", "The front door imports the rooms"),
    ("_call.py", "langchain_thinnest.chat_models", "The front door imports the rooms"),
    ("_answer/turn.py", "langchain_thinnest._request.body", "A room knows no other room"),
    ("_request/messages.py", "langchain_thinnest._answer.turn", "A room knows no other room"),
    ("_http/client.py", "langchain_thinnest._answer.sse", "A room knows no other room"),
    ("errors.py", "langchain_thinnest._http.closing", "What is shared knows nothing else"),
    ("_names.py", "langchain_thinnest._request.body", "What is shared knows nothing else"),
    ("_request/body.py", "httpx", "The request does no I/O"),
    ("_request/messages.py", "threading", "The request does no I/O"),
    ("_answer/turn.py", "time", "The answer does no I/O"),
    ("_answer/message.py", "asyncio", "The answer does no I/O"),
    ("_http/limits.py", "time", "The arithmetic of limits"),
    ("_http/response.py", "langchain_core.messages", "HTTP knows nothing of LangChain"),
    ("chat_models.py", "socket", "The front door does no I/O itself"),
    ("emulator/server.py", "langchain_thinnest._http.client", "The emulator does not know"),
    ("emulator/server.py", "httpx", "The emulator does not know"),
]


def broken_contracts(folder: Path) -> list[str]:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Contracts: " in done.stdout, done.stdout + done.stderr
    broken = [line for line in done.stdout.splitlines() if " BROKEN" in line]
    assert bool(broken) == bool(done.returncode)
    return broken


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("house")
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(
        ROOT / "langchain_thinnest",
        folder / "langchain_thinnest",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    return folder


def test_as_it_is_no_border_is_crossed(house: Path) -> None:
    assert broken_contracts(house) == []


@pytest.mark.parametrize(("file", "imported", "contract"), CROSSINGS)
def test_a_crossed_border_is_seen(
    house: Path, file: str, imported: str, contract: str
) -> None:
    crossing = house / "langchain_thinnest" / file
    text = crossing.read_text(encoding="utf-8")
    crossing.write_text(f"{text}\nimport {imported}\n", encoding="utf-8")
    try:
        assert any(line.startswith(contract) for line in broken_contracts(house))
    finally:
        crossing.write_text(text, encoding="utf-8")
