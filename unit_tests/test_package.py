"""The package as a whole: what importing it costs, and what it offers."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

import langchain_thinnest


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout.removesuffix("\n")


# In one process, since its start takes longer than all that is asked.
CODE = """
import sys
before = set(sys.modules)
import langchain_thinnest

others = {"langchain_core", "httpx", "pydantic", "tenacity", "importlib.metadata"}
print(*sorted(others & (sys.modules.keys() - before)))
from langchain_thinnest import ChatThinnest
others = ("starlette", "uvicorn", "simpleeval", "langchain", "langgraph")
print(*[name for name in others if name in sys.modules])
for missing, wanted in {
    "simpleeval": "import langchain_thinnest.emulator",
    "starlette": "import langchain_thinnest.emulator",
    "uvicorn": "import langchain_thinnest.emulator",
    "langgraph": "from langchain_thinnest import create_thinnest_agent",
}.items():
    sys.modules[missing] = None
    try:
        exec(wanted)
    except ImportError as error:
        print(error)
    del sys.modules[missing]
sys.modules["langgraph"] = sys.modules["starlette"] = None
from langchain_thinnest import *
print(ThinnestError.__name__)
"""


def test_what_importing_it_takes() -> None:
    """Nothing but itself at first, then the four dependencies; a missing extra is named."""
    package, model, *missing, star = run(CODE).split("\n")
    assert (package, model, star) == ("", "", "ThinnestError")
    extras = {"simpleeval": "emulator", "starlette": "emulator", "uvicorn": "emulator"}
    extras["langgraph"] = "langgraph"
    for said, (name, extra) in zip(missing, extras.items(), strict=True):
        assert f"needs {name}" in said
        assert f"langchain-thinnest[{extra}]" in said


def test_every_public_name_can_be_imported() -> None:
    for name in langchain_thinnest.__all__:
        assert getattr(langchain_thinnest, name).__name__ == name
        assert name in dir(langchain_thinnest)
    assert "__version__" in dir(langchain_thinnest)
    assert langchain_thinnest.__version__ == version("langchain-thinnest")
    with pytest.raises(AttributeError, match="nonsense"):
        langchain_thinnest.nonsense  # noqa: B018
