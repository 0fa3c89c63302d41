"""The demo agent: no model, but a real calculator and a real search. It says what it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from typing import Any

from langchain_core.messages import HumanMessage
from simpleeval import InvalidExpression, SimpleEval

from langchain_thinnest.emulator.agents import Item, Session

_LIBRARY = {
    "Honeybees": "Honeybees tell each other where flowers are by dancing: the waggle dance.",
    "Lighthouses": "The Fresnel lens threw a lamp's beam more than thirty kilometres in 1823.",
    "Machine learning": "Applications of machine learning in 2026: medical images, forecasts.",
    "Tides": "The Moon raises tides; the largest tides are in the Bay of Fundy.",
}
_GREETING = f"Hello. I can do arithmetic, and know a little of {', '.join(_LIBRARY)}."
_SIGNATURE = (
    "\n\n(This is the emulator's demo agent: its tools are real, but no model speaks here.)"
)
_EXPRESSION = re.compile(r"(?<![\w.])[-(\d.][\d\s.,+\-*/%^\u00d7\u00f7()]*[\d)](?!\w)")
_OPERATOR = re.compile(r"[\d)]\s*[-+*/%^\u00d7\u00f7]")
_PYTHON = str.maketrans({"^": "**", "\u00d7": "*", "\u00f7": "/", ",": None})
_words = re.compile(r"\s*\S+\s*$|\s*\S+").findall  # pieces as a model would stream them
_NAME = re.compile(r"\bmy name is ([^\W\d_][\w'-]*)", re.IGNORECASE)
_STOP_WORDS = re.compile(
    r"\b(?:a|about|an|and|are|as|by|can|could|did|do|does|for|hello|hi|how|i|in|is|it|me|my|of|on"
    r"|or|please|tell|that|the|this|to|was|what|when|where|which|who|why|with|you|your)\b"
)


def demo_agent(message: str, session: Session) -> Iterator[Item]:
    """Answer with what a calculator and a search find; remember what was asked, and a name."""
    told = [turn.text for turn in session.messages if isinstance(turn, HumanMessage)]
    said = re.split(r"^User: ", message.strip(), flags=re.MULTILINE)  # as a transcript has it
    *earlier, question = [*told, *(text.partition("\n\n")[0] for text in said if text)] or [""]
    named = _NAME.findall("\n".join([*earlier, question]))
    beginning = re.sub(r"\d{4}-\d\d-\d\d", "date", question[:2000])  # brackets take long
    found = _EXPRESSION.findall(beginning)
    sums = (text.strip(" .,") for text in found if _OPERATOR.search(text))
    expression = max(sums, key=len, default="")
    rest = question.replace(expression, " ") if expression else question
    query = " ".join(re.findall(r"[^\W\d_][\w'-]*", _STOP_WORDS.sub(" ", rest.lower())))
    if message.startswith(("<tools>", "<response_schema>", "Answer with one JSON object")):
        yield from _words("Without a model I call no tools of yours and write no JSON.")
    elif "did I ask" in question:
        asked = "; ".join(f"“{text}”" for text in earlier) or "nothing yet"
        yield from _words(f"In this session you asked: {asked}.")
    elif _NAME.search(question):
        yield from _words(f"Hello, {named[-1]}.")
    elif re.search(r"\bmy name\b", question):
        yield from _words(f"Your name is {named[-1]}." if named else "You have not said it.")
    elif expression or query:
        if expression:
            yield from _words("Let me work that out. ")
            value = yield from _use(calculator, expression=expression)
            yield from _words(f"{expression} = {value}.{' ' * bool(query)}")
        if query:
            yield from _words("Let me look that up in my library. ")
            texts = yield from _use(search_library, query=query)
            best = [f"From “{text['title']}”: {text['text']}" for text in texts[:1]]
            yield from _words("".join(best) or "I found nothing on that.")
    else:
        yield from _words(_GREETING)
    yield from _words(_SIGNATURE)


def _use(tool: Callable[..., Any], **args: str) -> Generator[Item, None, Any]:
    yield {"type": "tool_call", "name": tool.__name__, "args": args}
    result = tool(**args)
    yield {"type": "tool_result", "name": tool.__name__, "result": result}
    return result


def calculator(expression: str) -> str:
    """Work out arithmetic, numbers and operators only; say what is wrong with it if it is."""
    try:
        value = SimpleEval(functions={}, names={}).eval(expression.translate(_PYTHON))
    except (ArithmeticError, InvalidExpression, SyntaxError, ValueError, RecursionError) as e:
        return f"error: {e}"
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def search_library(query: str) -> list[dict[str, str]]:
    """Find the texts of the library that have a query's words, the best first."""
    stems = [word[:4] for word in re.findall(r"\w+", query.lower())]
    hits = {t: sum(s in f"{t} {_LIBRARY[t]}".lower() for s in stems) for t in _LIBRARY}
    best = sorted((title for title in hits if hits[title]), key=lambda title: -hits[title])
    return [{"title": title, "text": _LIBRARY[title]} for title in best]
