"""The demo agent: no model, but a real calculator and a real search. It says what it is."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from typing import Any

from langchain_core.messages import HumanMessage
from simpleeval import InvalidExpression, SimpleEval

from langchain_thinnest.emulator.agents import Item, Session

_LIBRARY = {
    "Honeybees": "Honeybees tell each other where flowers are by dancing: the angle of the "
    "waggle dance is the angle of the flight against the sun.",
    "LangChain": "LangChain is a framework for applications around language models, whose chat "
    "models share one interface.",
    "Lighthouses": "The Fresnel lens, built in 1823 for the lighthouse of Cordouan, threw the "
    "beam of a lamp more than thirty kilometres.",
    "Machine learning": "Machine learning finds regularities in examples. Applications in 2026 "
    "include medical images, weather forecasts, translation and chat agents.",
    "Tides": "Tides are raised by the Moon and the Sun. The largest tides are in the Bay of "
    "Fundy, where the water rises by up to sixteen metres.",
}
_GREETING = (
    "Hello. I can do arithmetic, such as 17 * (3 + 4), remember your name in a session, and I "
    f"know a little of these: {', '.join(_LIBRARY)}."
)
_SIGNATURE = (
    "\n\n(This is the emulator's demo agent: its tools are real, but no model speaks here.)"
)
_PROTOCOL = ("<tools>", "<response_schema>", "Answer with one JSON object")
_DECLINED = "I have no model, so I call no tools of yours and write no JSON."
_USER = re.compile(
    r"^User(?: \([^\n()]*\))?: (.*?)(?=\n\n(?:System|User|Assistant|Tool)\b|\Z)",
    re.DOTALL | re.MULTILINE,
)
_READS = 2000  # as many characters as are looked at: a text of brackets alone takes long
_EXPRESSION = re.compile(r"(?<![\w.])[-(\d.][\d\s.,+\-*/%^×÷()]*[\d)](?!\w)")
_OPERATOR = re.compile(r"[\d)]\s*[-+*/%^×÷]")
_PYTHON = str.maketrans({"^": "**", "×": "*", "÷": "/", ",": None})
_NAME = re.compile(r"\bmy name is ([^\W\d_][\w'-]*)", re.IGNORECASE)
_ASKS_NAME = re.compile(r"\bmy name\b.*\?|\bwho am I\b", re.IGNORECASE)
_ASKS_QUESTIONS = re.compile(r"\bdid I (?:ask|say)\b", re.IGNORECASE)
_STOP_WORDS = set(
    "a about an and are as at be but by can could did do does for from give has have hello hey "
    "hi how i in is it know like many me much my name of on or please say tell than that the "
    "them there they this to up was we what when where which who why will with you your".split()
)


def demo_agent(message: str, session: Session) -> Iterator[Item]:
    """Answer a message with what a calculator and a search in a few texts find.

    Args:
        message: The user's message.
        session: The conversation: the questions in it, and the user's name, are remembered.

    Yields:
        Pieces of text, tool calls and tool results.
    """
    told = [turn.text for turn in session.messages if isinstance(turn, HumanMessage)]
    *earlier, question = _USER.findall(message) or [message]
    yield from _answer(question.strip(), [*told, *earlier])


def _answer(question: str, earlier: list[str]) -> Iterator[Item]:
    named = _NAME.findall("\n".join([*earlier, question]))
    expression = _arithmetic(question)
    rest = question.replace(expression, " ") if expression else question
    keywords = re.findall(r"[^\W\d_][\w'-]*", rest.lower())
    query = " ".join(word for word in keywords if word not in _STOP_WORDS)
    if question.startswith(_PROTOCOL):
        yield from _words(_DECLINED)
    elif _ASKS_QUESTIONS.search(question):
        asked = "; ".join(f"“{text}”" for text in earlier)
        yield from _words(f"In this session you asked: {asked or 'nothing yet'}.")
    elif _ASKS_NAME.search(question):
        yield from _words(
            f"Your name is {named[-1]}." if named else "I was not told your name."
        )
    elif _NAME.search(question):
        yield from _words(f"Hello, {named[-1]}.")
    elif expression or query:
        if expression:
            yield from _words("Let me work that out. ")
            yield from _run("calculator", {"expression": expression}, calculator(expression))
            yield from _words(f"{expression} = {calculator(expression)}.")
        found = search_library(query)
        if found or not expression:
            yield from _words(f"{' ' * bool(expression)}Let me look that up in my library. ")
            yield from _run("search_library", {"query": query}, found)
            told = [f"From “{best['title']}”: {best['text']}" for best in found[:1]]
            yield from _words("".join(told) or f"I found nothing on that. {_GREETING}")
    else:
        yield from _words(_GREETING)
    yield from _words(_SIGNATURE)


def _run(name: str, args: dict[str, Any], result: Any) -> Iterator[Item]:
    yield {"type": "tool_call", "name": name, "args": args}
    yield {"type": "tool_result", "name": name, "result": result}


def _arithmetic(message: str) -> str:
    """The longest arithmetic expression in the beginning of a message, or nothing."""
    text = re.sub(r"\b\d{4}-\d\d-\d\d\b", "date", message[:_READS])
    found = [match.strip(" .,") for match in _EXPRESSION.findall(text)]
    return max((text for text in found if _OPERATOR.search(text)), key=len, default="")


def _words(text: str) -> Iterator[str]:
    """A text in pieces of a word each, as a model would stream it."""
    yield from re.findall(r"\s*\S+\s*$|\s*\S+", text)


def calculator(expression: str) -> str:
    """Work out arithmetic, numbers and operators only; say what is wrong with it if it is."""
    try:
        value = SimpleEval(functions={}, names={}).eval(expression.translate(_PYTHON))
    except (ArithmeticError, InvalidExpression, SyntaxError, ValueError, RecursionError) as e:
        return f"error: {e}"
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def search_library(query: str) -> list[dict[str, str]]:
    """Find the two texts of the library that fit a query best, by full-text search."""
    words = " OR ".join(f'"{word}"' for word in re.findall(r"\w+", query)) or '""'
    with closing(sqlite3.connect(":memory:")) as index:
        index.execute("CREATE VIRTUAL TABLE library USING fts5(title, text, tokenize=porter)")
        index.executemany("INSERT INTO library VALUES (?, ?)", _LIBRARY.items())
        rows = index.execute(
            "SELECT title, text FROM library(?) ORDER BY bm25(library, 4, 1) LIMIT 2", (words,)
        ).fetchall()
    return [{"title": title, "text": text} for title, text in rows]


def paced(agent: Callable[[str, Session], Iterator[Item]], seconds: float) -> Any:
    """Slow an agent down to a pace to watch: a pause before each piece, ten before a result."""

    async def answer(message: str, session: Session) -> AsyncIterator[Item]:
        for item in agent(message, session):
            is_result = isinstance(item, dict) and item["type"] == "tool_result"
            await asyncio.sleep(seconds * 10 if is_result else seconds)
            yield item

    return answer
