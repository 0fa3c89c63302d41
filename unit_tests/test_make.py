"""The targets of `make` that the pages name, and those that there are."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PHONY = re.findall(r"^\.PHONY:((?:.*\\\n)*.*)", MAKEFILE, re.MULTILINE)
TARGETS = set(" ".join(PHONY).replace("\\", "").split())
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("benchmarks/*.md")]


def named(text: str) -> set[str]:
    return set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", text, re.MULTILINE))


def test_every_target_that_a_page_names_is_there() -> None:
    for page in PAGES:
        assert named(page.read_text(encoding="utf-8")) <= TARGETS, page
    assert set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE)) == TARGETS


def test_the_page_for_developers_names_every_target() -> None:
    page = (ROOT / "docs" / "development.md").read_text(encoding="utf-8")
    elsewhere = {"demo", "bench-limits", "clean"}
    assert named(page) | elsewhere >= TARGETS
