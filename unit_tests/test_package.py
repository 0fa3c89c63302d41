"""The package as a whole: what importing it costs, and what it offers."""

from __future__ import annotations

import subprocess
import sys

import pytest

import langchain_thinnest


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_importing_the_package_imports_nothing_else() -> None:
    code = (
        "import sys, langchain_thinnest; print(sorted(m for m in sys.modules if "
        "m.partition('.')[0] in ('langchain_core', 'httpx', 'pydantic', 'tenacity')))"
    )
    assert run(code) == "[]"


def test_the_model_needs_the_four_dependencies_only() -> None:
    code = (
        "import sys; from langchain_thinnest import ChatThinnest\n"
        "names = ('starlette', 'uvicorn', 'simpleeval', 'langchain', 'langgraph')\n"
        "print([name for name in names if name in sys.modules])"
    )
    assert run(code) == "[]"


def test_every_public_name_can_be_imported() -> None:
    for name in langchain_thinnest.__all__:
        assert getattr(langchain_thinnest, name).__name__ == name
        assert name in dir(langchain_thinnest)
    with pytest.raises(AttributeError, match="nonsense"):
        langchain_thinnest.nonsense  # noqa: B018


MISSING = [
    ("starlette", "import langchain_thinnest.emulator", "emulator"),
    ("uvicorn", "import langchain_thinnest.emulator", "emulator"),
    ("simpleeval", "import langchain_thinnest.emulator", "emulator"),
    ("langgraph", "from langchain_thinnest import create_thinnest_agent", "langgraph"),
]


@pytest.fixture(scope="module")
def said() -> list[str]:
    """What Python says without each of them, and without all: in one process, for speed."""
    return run(
        "import sys\n"
        "def say(missing, code):\n"
        "    sys.modules.update(dict.fromkeys(missing))\n"
        "    try: exec(code)\n"
        "    except ImportError as error: print(error)\n"
        "    for name in list(sys.modules):\n"
        "        if name in missing or name.startswith('langchain_thinnest'):\n"
        "            del sys.modules[name]\n"
        "say(['langgraph', 'starlette'],\n"
        "    'from langchain_thinnest import *; print(ChatThinnest.__name__)')\n"
        f"for missing, wanted, _ in {MISSING!r}: say([missing], wanted)\n"
    ).splitlines()


def test_import_star_needs_no_extra(said: list[str]) -> None:
    assert said[0] == "ChatThinnest"


@pytest.mark.parametrize("number", range(len(MISSING)), ids=[name for name, *_ in MISSING])
def test_a_missing_extra_is_named(said: list[str], number: int) -> None:
    missing, _, extra = MISSING[number]
    assert f"needs {missing}" in said[1 + number]
    assert f"langchain-thinnest[{extra}]" in said[1 + number]
