"""`docs/troubleshooting.md` has each message of the package, and none that is gone.

A message is any text of three words and more in the sources, but for what `OTHER` names; where
a value is put in, the page has `…`. An entry of the page is a code span that begins an item of
a list, or holds `…`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
PAGE = re.sub(r"^```.*?^```", "", TEXT, flags=re.MULTILINE | re.DOTALL)
HERE = ROOT / "langchain_thinnest"
SOURCES = [
    path
    for path in sorted(HERE.rglob("*.py"))
    if "emulator" not in path.parts and path.name not in ("__main__.py", "_terminal.py")
]
# Texts that are no messages, by how they begin.
OTHER = (
    # regular expressions, types, languages of others
    "(?:[ \\t>]",
    "[ \\t>]*",
    "4\\d\\d\\b",
    "^ {4}",
    "list[str |",
    "INSERT OR",
    "SELECT state",
    "PRAGMA ",
    "CREATE TABLE",
    "DELETE FROM",
    "\nlocal time",
    # what the agent is told
    "Assistant called",
    "You can call the tools above",
    "<tools>",
    "<response_schema>",
    "{} with one JSON",
    " Make one call at most.",
    "You must call",
    "Call none if none helps.",
    "You may make several calls",
    "Once no tool is left",
    "that fits the schema above",
    # descriptions, and parts that stand in messages
    "What to ask, with",
    "Asks the agent",
    "Run by the agent",
    "a JSON object",
    "an item of",
    # never shown: the warning tells the error's class alone
    "Others changed the state",
)
# A part of a message that is looked for in it.
PART = "does not fit"
_VALUE = re.compile(r"\{\w*\}|%[\d.]*[a-z]")


def texts(node: ast.AST) -> Iterator[str]:
    """The texts below a node, `{}` for values; not those of docstrings."""
    if isinstance(node, (ast.Constant, ast.JoinedStr, ast.BinOp)):
        text, others = _text(node)
        if text.strip("{}"):
            yield text
        for other in others:
            yield from texts(other)
        return
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)):
            yield from texts(child)


def _text(node: ast.AST) -> tuple[str, list[ast.AST]]:
    """A text, and what stands inside it."""
    if isinstance(node, ast.Constant):
        return (node.value if isinstance(node.value, str) else "{}"), []
    if isinstance(node, ast.JoinedStr):
        parts = [_text(part) for part in node.values]
        return "".join(text for text, _ in parts), [o for _, others in parts for o in others]
    if isinstance(node, ast.FormattedValue):
        return "{}", [node.value]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _text(node.left), _text(node.right)
        return left[0] + right[0], [*left[1], *right[1]]
    return "{}", list(ast.iter_child_nodes(node))


def messages_of(source: str) -> Iterator[str]:
    for text in texts(ast.parse(source)):
        if len(text.split()) >= 3 and not text.startswith(OTHER) and text != PART:
            yield _VALUE.sub("{}", text).strip()


def spans(text: str) -> list[str]:
    """The code spans of a text, written as messages are."""
    found = re.findall(r"`` (.+?) ``|`([^`]+)`", text)
    return [(double or single).replace("…", "{}").strip() for double, single in found]


def entries(page: str) -> list[str]:
    """What the page has as messages."""
    paragraphs = re.split(r"\n\n|\n(?=- )", page)
    found = []
    for paragraph in (" ".join(p.split()) for p in paragraphs):
        if paragraph.startswith("- `"):
            code = r"``.+?``|`[^`]+`"
            head = re.match(rf"- (?:{code}|[^:`])+", paragraph)
            assert head is not None
            found += [span for span in spans(head[0]) if len(span.split()) >= 2]
        found += [span for span in spans(paragraph) if "{}" in span]
    return found


MESSAGES = [
    pytest.param(message, id=f"{path.stem}: {message[:40]}")
    for path in SOURCES
    for message in messages_of(path.read_text(encoding="utf-8"))
]
ENTRIES = list(dict.fromkeys(entries(PAGE)))


@pytest.mark.parametrize("message", MESSAGES)
def test_every_message_is_told(message: str) -> None:
    told = [span for span in spans(" ".join(PAGE.split())) if len(span.split()) >= 2]
    assert any(message.startswith(span) for span in told), message


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_is_a_message(entry: str) -> None:
    assert any(entry in message.values[0] for message in MESSAGES), entry


def test_what_is_no_message_is_there() -> None:
    """`OTHER` names nothing that is gone."""
    every = [
        text for path in SOURCES for text in texts(ast.parse(path.read_text(encoding="utf-8")))
    ]
    for other in (*OTHER, PART):
        assert any(text.startswith(other) for text in every), other


def test_it_would_notice() -> None:
    """A message that is new in any of the ways in which messages are made."""
    source = (
        'def f(x):\n    "Not a message."\n'
        "    raise E(f\"{x} is never told of: {1 if x else 'and never of this'}\")\n"
        '    log.info("Calls are %s times %.0f slower.", x, 2)\n'
        '    return "It is wrong " + ("in one way or another" if x else "x")\n'
    )
    assert list(messages_of(source)) == [
        "{} is never told of: {}",
        "and never of this",
        "Calls are {} times {} slower.",
        "It is wrong {}",
        "in one way or another",
    ]
    assert entries("- `Never was`, `that … is told`: see `x y`, `… z`.") == [
        "Never was",
        "that {} is told",
        "that {} is told",
        "{} z",
    ]
