"""What the pages tell a reader to type: packages, extras, modules and variables are there."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
# By hand: tomllib came with Python 3.11.
SECTION = PROJECT.partition("[project.optional-dependencies]")[2].partition("\n[project")[0]
EXTRAS = set(re.findall(r"^([\w-]+) = \[", SECTION, re.MULTILINE))
SOURCES = "".join(
    p.read_text(encoding="utf-8") for p in (ROOT / "langchain_thinnest").rglob("*.py")
)
# What the project installs itself somewhere, in pyproject.toml; `mlflow` as its smaller part.
OTHERS = {*re.findall(r"[\"']([\w.-]+)(?:\[[\w,]+\])?>=", PROJECT), "mlflow"}
MODULES = {"langchain_thinnest", "integration_tests", "unit_tests", "benchmarks"}


@pytest.fixture(params=PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def text(request: pytest.FixtureRequest) -> str:
    return request.param.read_text(encoding="utf-8")


def lines_of(text: str) -> list[str]:
    """The lines of the blocks of shell, without their comments."""
    blocks = re.findall(r"^```(?:bash|shell)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [
        line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()
    ]
    return [line for line in lines if line and not line.startswith("#")]


def test_each_line_is_of_a_known_kind(text: str) -> None:
    for line in lines_of(text):
        known = r"pip install |python (-m|\w+\.py) |make |cd |langgraph dev|export( \w+=\S+)+$"
        assert re.match(known, line), line


def test_scripts_are_there(text: str) -> None:
    for script in re.findall(r"^python (\w+\.py)", "\n".join(lines_of(text)), re.MULTILINE):
        assert list((ROOT / "cookbook").glob(f"*/{script}")), script


def test_what_is_installed_is_there(text: str) -> None:
    for asked in re.findall(r"pip install \"?([\w\[\],-]+)", text):
        name, _, extras = asked.rstrip("]").partition("[")
        if name == "langchain-thinnest":
            assert set(filter(None, extras.split(","))) <= EXTRAS, asked
        else:
            assert name in OTHERS, asked


def test_modules_are_there(text: str) -> None:
    for module in re.findall(r"python -m ([\w.]+)", text):
        if module.partition(".")[0] in MODULES:
            spec = find_spec(module)
            assert spec is not None, module
            is_package = spec.submodule_search_locations is not None
            assert not is_package or find_spec(f"{module}.__main__"), module


def test_options_are_there(text: str) -> None:
    options = (ROOT / "langchain_thinnest/emulator/__main__.py").read_text(encoding="utf-8")
    for line in re.findall(r"python -m langchain_thinnest\.emulator([^\n`]*)", text):
        for option in re.findall(r"--[\w-]+", line):
            assert f'"{option}"' in options, option


def test_variables_are_read(text: str) -> None:
    for name in re.findall(r"\b(THINNEST\w*_\w+)\b", text):
        assert f'"{name}"' in SOURCES, name
