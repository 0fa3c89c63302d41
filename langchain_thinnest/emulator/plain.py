"""The tools that run on the demo agent's server, and how it answers with nothing else.

`calculator` works out arithmetic, `search_library` finds passages in the small library of
texts beside this file, by SQLite's full-text search. This file knows nothing of the tools
that a caller binds.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from simpleeval import InvalidExpression, SimpleEval

from langchain_thinnest.emulator.agents import Item

_EXPRESSION = re.compile(r"(?<![\w.])[-(\d.][\d\s.,+\-*/%^\u00d7\u00f7()]*[\d)](?![\w])")
_READS = 2000  # as many characters as are looked at: a text of brackets alone takes long
_OPERATOR = re.compile(r"[\d)]\s*[-+*/%^\u00d7\u00f7]")
_DATE = re.compile(r"\b\d{4}-\d\d-\d\d\b")
_RECALL = re.compile(
    r"\b(?:did|have|had)\s+(?:I|we)\b.*\b(?:ask|asked|said|say)\b", re.IGNORECASE
)
_STOP_WORDS = """
    a about an and are as at be but by can could did do does else for from give has have
    hello hey hi how i in is it its know like many me much my of on or please say show some
    tell than that the their them then there these they this to was we what when where which
    who why will with would you your
"""
_PYTHON = str.maketrans({"^": "**", "\u00d7": "*", "\u00f7": "/", ",": None})
SIGNATURE = (
    "\n\n(This is the emulator's demo agent: its tools are real, but no model speaks here.)"
)


def plain_answer(question: str, asked: Sequence[str]) -> Iterator[Item]:
    """Answer a question with what the server's tools find.

    Args:
        question: What the user asks.
        asked: What the user asked before.

    Yields:
        Pieces of text, tool calls and tool results.
    """
    if _RECALL.search(question):
        yield from words(_recollection(asked))
        return
    expression = arithmetic(question)
    if expression:
        yield from calculation(expression)
        question = question.replace(expression, " ")
    query = " ".join(keywords(question))
    if query:
        found = search_library(query)
        if found or not expression:
            yield from words(f"{' ' if expression else ''}Let me look that up in my library. ")
            yield from lookup(query, found)
    elif not expression:
        yield from words(_introduction())
    yield from words(SIGNATURE)


def calculation(expression: str) -> Iterator[Item]:
    """Work out an expression, in sight of the user."""
    yield from words("Let me work that out. ")
    yield {"type": "tool_call", "name": "calculator", "args": {"expression": expression}}
    value = calculator(expression)
    yield {"type": "tool_result", "name": "calculator", "result": value}
    yield from words(f"{expression} = {value}." if "error" not in value else f"{value}. ")


def lookup(query: str, found: list[dict[str, Any]]) -> Iterator[Item]:
    """Show a search and what it found."""
    yield {"type": "tool_call", "name": "search_library", "args": {"query": query}}
    yield {"type": "tool_result", "name": "search_library", "result": found}
    yield from words(_report(found))


def calculator(expression: str) -> str:
    """Work out an arithmetic expression, safely: numbers and operators only.

    Args:
        expression: Such as `(3 + 4) * 5`; `^` is a power.

    Returns:
        The value, or what is wrong with the expression.
    """
    try:
        value = SimpleEval(functions={}, names={}).eval(expression.translate(_PYTHON))
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return str(value)
    except (
        ArithmeticError,
        InvalidExpression,
        SyntaxError,
        ValueError,
        RecursionError,
    ) as error:
        return f"error: {error}"


def search_library(query: str, top_k: int = 2) -> list[dict[str, Any]]:
    """Find passages in the library.

    Args:
        query: Words to look for.
        top_k: How many passages to give at most.

    Returns:
        The best passages, best first: `title`, `text`, and `score` (greater is better).
    """
    words = " OR ".join(f'"{word}"' for word in re.findall(r"\w+", query))
    if not words:
        return []
    with sqlite3.connect(":memory:") as index:
        index.execute("CREATE VIRTUAL TABLE library USING fts5(title, text, tokenize=porter)")
        index.executemany("INSERT INTO library VALUES (?, ?)", _library())
        rows = index.execute(
            "SELECT title, text, -bm25(library, 4.0, 1.0) AS score FROM library "
            "WHERE library MATCH ? ORDER BY score DESC LIMIT ?",
            (words, top_k),
        ).fetchall()
    index.close()
    return [
        {"title": title, "text": text, "score": round(score, 2)} for title, text, score in rows
    ]


@cache
def _library() -> list[tuple[str, str]]:
    """The passages: a text's first line is its title, a paragraph is a passage."""
    passages: list[tuple[str, str]] = []
    for file in sorted(files(__package__).joinpath("library").iterdir(), key=lambda f: f.name):
        title, _, text = file.read_text(encoding="utf-8").partition("\n")
        passages += [
            (title.lstrip("# "), " ".join(paragraph.split()))
            for paragraph in text.strip().split("\n\n")
        ]
    return passages


def arithmetic(message: str) -> str | None:
    """The longest arithmetic expression in the beginning of a message."""
    text = _DATE.sub("date", message[:_READS])
    found = [match.strip(" .,") for match in _EXPRESSION.findall(text)]
    return max((text for text in found if _OPERATOR.search(text)), key=len, default=None)


def keywords(message: str) -> list[str]:
    """The words that a message is about, in lower case."""
    words = re.findall(r"[^\W\d_][\w'-]*", message.lower())
    stop_words = set(_STOP_WORDS.split())
    return [word for word in words if word not in stop_words]


def words(text: str) -> Iterator[str]:
    """A text in pieces of a word each, as a model would stream it."""
    yield from re.findall(r"\s*\S+\s*$|\s*\S+", text)


def _report(found: list[dict[str, Any]]) -> str:
    if not found:
        return "I found nothing on that. " + _introduction()
    best, *others = found
    also = {other["title"] for other in others} - {best["title"]}
    return f"From “{best['title']}”: {best['text']}" + (
        f" See also “{also.pop()}”." if also else ""
    )


def _introduction() -> str:
    titles = sorted({title for title, _ in _library()})
    return (
        "I can do arithmetic, such as 17 * (3 + 4), and I know a little of these: "
        f"{', '.join(titles)}."
    )


def _recollection(asked: Sequence[str]) -> str:
    if not asked:
        return "You have asked me nothing yet, as far as this session goes."
    return "In this session you asked: " + "; ".join(f"“{text}”" for text in asked) + "."
