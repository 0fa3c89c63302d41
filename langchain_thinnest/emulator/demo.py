"""The demo agent: no model, but real tools, chosen from the message.

`calculator` works out arithmetic, `search_library` finds passages in the small library of
texts beside this file, by SQLite's full-text search. It says what it is.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from functools import cache
from importlib.resources import files
from typing import Any

from langchain_core.messages import HumanMessage
from simpleeval import InvalidExpression, SimpleEval

from langchain_thinnest.emulator.agents import Item, Session

_EXPRESSION = re.compile(r"(?<![\w.])[-(\d.][\d\s.,+\-*/%^\u00d7\u00f7()]*[\d)](?![\w])")
_OPERATOR = re.compile(r"[\d)]\s*[-+*/%^\u00d7\u00f7]")
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
_SIGNATURE = (
    "\n\n(This is the emulator's demo agent: its tools are real, but no model speaks here.)"
)


def demo_agent(message: str, session: Session) -> Iterator[Item]:
    """Answer a message with what the tools find.

    Args:
        message: The user's message.
        session: The conversation, which the agent remembers.

    Yields:
        Pieces of text, tool calls and tool results.
    """
    if _RECALL.search(message):
        yield from _words(_recollection(session))
        return
    expression = _expression(message)
    if expression:
        yield from _words("Let me work that out. ")
        yield {"type": "tool_call", "name": "calculator", "args": {"expression": expression}}
        value = calculator(expression)
        yield {"type": "tool_result", "name": "calculator", "result": value}
        yield from _words(f"{expression} = {value}." if "error" not in value else f"{value}. ")
        message = message.replace(expression, " ")
    query = " ".join(_keywords(message))
    if query:
        found = search_library(query)
        if found or not expression:
            before = " " if expression else ""
            yield from _words(f"{before}Let me look that up in my library. ")
            yield {"type": "tool_call", "name": "search_library", "args": {"query": query}}
            yield {"type": "tool_result", "name": "search_library", "result": found}
            yield from _words(_report(found))
    elif not expression:
        yield from _words(_introduction())
    yield from _words(_SIGNATURE)


def paced(
    agent: Callable[[str, Session], Iterator[Item]], seconds: float
) -> Callable[[str, Session], AsyncIterator[Item]]:
    """Slow an agent down to a pace that a person can watch.

    Args:
        agent: The agent.
        seconds: The pause before a piece of text; a tool's result takes ten times as long.
    """

    async def answer(message: str, session: Session) -> AsyncIterator[Item]:
        for item in agent(message, session):
            is_result = isinstance(item, dict) and item["type"] == "tool_result"
            await asyncio.sleep(seconds * 10 if is_result else seconds)
            yield item

    return answer


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


def _expression(message: str) -> str | None:
    found = [match.strip(" .,") for match in _EXPRESSION.findall(message)]
    return max((text for text in found if _OPERATOR.search(text)), key=len, default=None)


def _keywords(message: str) -> list[str]:
    words = re.findall(r"[^\W\d_][\w'-]*", message.lower())
    stop_words = set(_STOP_WORDS.split())
    return [word for word in words if word not in stop_words]


def _words(text: str) -> Iterator[str]:
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


def _recollection(session: Session) -> str:
    asked = [m.text for m in session.messages if isinstance(m, HumanMessage)]
    if not asked:
        return "You have asked me nothing yet, as far as this session goes."
    return "In this session you asked: " + "; ".join(f"“{text}”" for text in asked) + "."
