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


def test_import_star_needs_no_extra() -> None:
    code = (
        "import sys; sys.modules['langgraph'] = sys.modules['starlette'] = None\n"
        "from langchain_thinnest import *; print(ChatThinnest.__name__)"
    )
    assert run(code) == "ChatThinnest"


@pytest.mark.parametrize(
    ("missing", "wanted", "extra"),
    [
        ("starlette", "import langchain_thinnest.emulator", "emulator"),
        ("uvicorn", "import langchain_thinnest.emulator", "emulator"),
        ("simpleeval", "import langchain_thinnest.emulator", "emulator"),
        ("langgraph", "from langchain_thinnest import create_thinnest_agent", "langgraph"),
    ],
)
def test_a_missing_extra_is_named(missing: str, wanted: str, extra: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        f"try: {wanted}\n"
        "except ImportError as error: print(error)"
    )
    assert f"needs {missing}" in run(code)
    assert f"langchain-thinnest[{extra}]" in run(code)
