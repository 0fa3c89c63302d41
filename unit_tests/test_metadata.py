"""What the project says of itself: each fact has one place, or its places agree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hatch_build import for_index
from unit_tests.test_make import TARGETS, named

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT, CITATION, CHANGELOG, README = (
    (ROOT / name).read_text(encoding="utf-8")
    for name in ("pyproject.toml", "CITATION.cff", "CHANGELOG.md", "README.md")
)


def found(pattern: str, text: str) -> str:
    [value] = re.findall(pattern, text, re.MULTILINE)
    return str(value)


def test_the_version_and_its_date() -> None:
    version = found(r'^version = "(.+)"', PROJECT)
    assert found("^version: (.+)", CITATION) == version
    heads = re.findall(r"^## (.+)", CHANGELOG, re.MULTILINE)
    dated = r"(\d+\.\d+\.\d+) \((\d{4}-\d\d-\d\d|unreleased)\)"
    releases = [match.groups() for head in heads if (match := re.fullmatch(dated, head))]
    assert len(releases) == len(heads)
    assert next(release for release in releases if release[1] != "unreleased") == (
        version,
        found("^date-released: (.+)", CITATION),
    )


def test_the_pythons_that_are_named_are_those_that_are_tested() -> None:
    classified = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PROJECT)
    [tests] = [path for path in WORKFLOWS if path.name == "tests.yml"]
    matrix = found(r"^ +python: \[(.{20,})\]", tests.read_text(encoding="utf-8"))
    assert matrix == ", ".join(f'"{python}"' for python in classified)
    assert found(r'^requires-python = ">=(.+)"', PROJECT) == classified[0]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_pins_its_actions_and_calls_targets_that_there_are(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for line in re.findall(r"uses: (.+)", text):
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", line), line
    assert set(re.findall(r"run: make ([\w-]+)", text)) <= {*TARGETS}


def test_one_action_has_one_commit() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)
    uses = set(re.findall(r"uses: (.+)", text))
    assert len(uses) == len({use.partition("@")[0] for use in uses})


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md", ".pre-commit-config.yaml"])
def test_targets_and_pages_that_are_named_are_there(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert named(text) | set(re.findall("entry: make (.+)", text)) <= TARGETS
    for link in re.findall(r"\]\(([^)\s#]+)[^)]*\)", text):
        assert (ROOT / link).exists(), link


def test_the_readme_on_a_package_index() -> None:
    """A relative link leads into the repository, once that has an address; else it is text."""
    assert re.search(r"\]\(docs/", README)
    for repository in (None, "https://git.example/it/"):
        shown = for_index(README, repository, "1.2.3")
        links = re.findall(r"\]\(([^)\s]+)\)", shown)
        assert all(link.startswith("https://") for link in links)
        at = "https://git.example/it/blob/v1.2.3/docs/moving.md"
        assert (at in links) is bool(repository)
        assert "Moving a chain here" in shown
    assert for_index("[a](#b) [c](https://d)", None, "1") == "[a](#b) [c](https://d)"


def test_one_line_waits_for_the_address_of_the_repository() -> None:
    assert len(re.findall(r"^(?:# )?Repository = ", PROJECT, re.MULTILINE)) == 1
    assert "`Repository`" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
