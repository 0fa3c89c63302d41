"""Chooses which of the caller's tools a question calls for, and with what arguments.

A tool is chosen by the words that it shares with the question: those of its name count most.
A word is used once, so that of two tools for one thing the better one is called.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from langchain_thinnest.emulator.clues import Clues
from langchain_thinnest.emulator.conversation import Called, Tool
from langchain_thinnest.emulator.filling import fill, resolve
from langchain_thinnest.emulator.plain import arithmetic, keywords
from langchain_thinnest.emulator.values import fits, is_place, words_of

_ENOUGH = 2  # a word of the name, or a word of the description and something to fill in
_MOST_CALLS = 8
_SAYS_LITTLE = """
    tool tools function use using used call get gets give gives given fetch return returns
    make run do take takes set my our user users value values input inputs output string text
    number numbers integer integers list object name names please current new one two some
    any result results also need want help information data
"""
_OPERATORS = {
    "+": "add sum plus",
    "-": "subtract difference minus",
    "*": "multiply product",
    "/": "divide quotient",
    "^": "power exponent",
    "%": "modulo remainder",
}
_SAME = str.maketrans({"\u00d7": "*", "\u00f7": "/"})
_ARITHMETIC = "calculate calculator math maths arithmetic compute evaluate expression"
_VERBS = {
    "+": "plus|add|sum of|total of",
    "-": "minus|subtract|less",
    "*": "times|multipl",
    "/": "divided|divide",
}
_SMALL_TALK = "today doing going there all now day things everything name"
_CLAUSE = re.compile(r"((?:[.?!;]\s+)|,\s*(?:and\s+)?|\s+and\s+|\s+then\s+)")
_ASKS = re.compile(
    r"\s*(?:please\s+)?(?:what|who|how|why|when|where|which|tell|explain|describe|search|look"
    r"|find|do|does|is|are)\b",
    re.IGNORECASE,
)


@dataclass
class Choice:
    """What a question calls for.

    Attributes:
        calls: The calls of the caller's tools.
        left: What of the question no tool of the caller's does.
    """

    calls: list[Called] = field(default_factory=list)
    left: str = ""


def choose(question: str, tools: Sequence[Tool]) -> Choice:
    """Choose the calls that a question calls for.

    Args:
        question: The user's question.
        tools: What may be called.

    Returns:
        The calls, in no tool's favour beyond its words.
    """
    picked: list[tuple[Tool, set[str]]] = []
    pool, words = list(tools), _question_words(question)
    clues = Clues(question)
    while pool:
        best = max(pool, key=lambda tool: _score(tool, words, clues))
        if _score(best, words, clues) < _ENOUGH:
            break
        used = words & _tool_words(best)
        picked.append((best, used))
        pool.remove(best)
        words -= used
    if not picked:
        search = _search_for(question, tools)
        if search:
            return Choice([Called(search.name, arguments(search, Clues(question)))])
        return Choice(left=question)
    picked.sort(key=lambda pick: _position(question, pick[1]))
    scopes, left = _divide(question, picked)
    calls = [
        call
        for (tool, _), scope in zip(picked, scopes, strict=True)
        for call in calls_of(tool, scope or question, question)
    ]
    return Choice(calls, left)


def calls_of(tool: Tool, text: str, question: str) -> list[Called]:
    """The calls of one tool that a text asks for: several, if it speaks of several things."""
    clues, whole = Clues(text), Clues(question)
    for kind in ("places", "names", "quoted"):
        if not getattr(clues, kind):
            setattr(clues, kind, getattr(whole, kind))
    # The "Fahrenheit" of "in Lyon, in Fahrenheit" is one of the tool's own words, no place.
    own = {str(value).lower() for value in _enumerated(tool)}
    clues.places = [place for place in clues.places if place.lower() not in own]
    return [Called(tool.name, arguments(tool, variant)) for variant in _variants(tool, clues)]


def arguments(tool: Tool, clues: Clues, *, all_of_it: bool = False) -> dict[str, Any]:
    """Arguments for a tool: an object, whatever its schema says."""
    given = fill({"type": "object", **tool.parameters}, clues, all_of_it=all_of_it)
    return given if isinstance(given, dict) else {}


def by_fitness(question: str, tools: Sequence[Tool]) -> list[Tool]:
    """Tools by how well they fit a question, the best first; of equals, the first bound."""
    words, clues = _question_words(question), Clues(question)
    return sorted(tools, key=lambda tool: -_score(tool, words, clues))


def _score(tool: Tool, words: set[str], clues: Clues) -> int:
    if _is_named(tool, clues.text):
        return 10
    in_name = words & _stems(tool.name)
    score = 2 * len(in_name) + len((words & _tool_words(tool)) - in_name)
    if not score:
        return 0
    required = _required(tool)
    numbers = [name for name, schema in required.items() if _is_number(schema)]
    lacking = max(0, len(numbers) - len(clues.numbers))
    has_something = (
        not required
        or (numbers and clues.numbers)
        or (clues.places and any(is_place(name) for name in required))
        or clues.quoted
    )
    return score + bool(has_something) - lacking


def _is_named(tool: Tool, text: str) -> bool:
    spoken = re.escape(tool.name).replace("_", "[_ ]")
    return bool(re.search(rf"(?<!\w){spoken}(?!\w)", text, re.IGNORECASE)) and (
        "_" in tool.name or not _stems(tool.name) or tool.name in text
    )


def _tool_words(tool: Tool) -> set[str]:
    about = re.split(r"(?<=[.!?])\s|\n", tool.description.strip(), maxsplit=1)[0]
    return _stems(" ".join([tool.name, about, *tool.parameters.get("properties", {})]))


def _question_words(question: str) -> set[str]:
    said = question
    expression = (arithmetic(question) or "").translate(_SAME)
    for sign, names in _OPERATORS.items():
        spoken = _VERBS.get(sign)
        if sign in expression.lstrip("-") or (
            spoken and re.search(rf"\d[\w ]* (?:{spoken})\w*|(?:{spoken})\w* .*\d", question)
        ):
            said += f" {names}"
    return _stems(f"{said} {_ARITHMETIC}" if expression or said != question else said)


def _stems(text: str) -> set[str]:
    parts = " ".join(words_of(text) if " " not in text else [*words_of(text)])
    return {_stem(word) for word in keywords(parts) if word not in _SAYS_LITTLE.split()}


def _stem(word: str) -> str:
    word = re.sub(r"'s$", "", word)
    for end in ("ations", "ation", "ions", "ion", "ings", "ing", "ers", "er", "ed", "es", "s"):
        if word.endswith(end) and len(word) - len(end) >= 3:
            word = word[: -len(end)]
            break
    word = re.sub(r"(.)\1$", r"\1", word)
    return word.rstrip("ey") if len(word) > 3 else word


def _position(question: str, used: set[str]) -> int:
    """Where a question first says one of some words, or has its arithmetic."""
    found = re.finditer(r"[^\W\d_]+", question)
    said = [match.start() for match in found if _stem(match[0].lower()) in used]
    return min(said, default=question.find(arithmetic(question) or "\0"))


def _search_for(question: str, tools: Sequence[Tool]) -> Tool | None:
    """A tool that takes any question, if this is one."""
    known = [word for word in keywords(question) if word not in _SMALL_TALK.split()]
    if not _ASKS.match(question) or not known or arithmetic(question):
        return None
    for tool in tools:
        if len(required := _required(tool)) == 1 and words_of(next(iter(required))) & {
            "query",
            "question",
            "q",
        }:
            return tool
    return None


def _required(tool: Tool) -> dict[str, dict[str, Any]]:
    properties = tool.parameters.get("properties") or {}
    return {
        name: resolve(properties.get(name), tool.parameters)
        for name in tool.parameters.get("required", [])
    }


def _enumerated(tool: Tool) -> Iterator[Any]:
    for schema in (tool.parameters.get("properties") or {}).values():
        yield from resolve(schema, tool.parameters).get("enum", ())


def _is_number(schema: dict[str, Any]) -> bool:
    return schema.get("type") in ("integer", "number") and "enum" not in schema


def _variants(tool: Tool, clues: Clues) -> list[Clues]:
    """One set of clues for each of the things that a tool is to be called with."""
    required = _required(tool)
    scalar = [name for name, s in required.items() if s.get("type") not in ("array", "object")]
    strings = [name for name in scalar if required[name].get("type") == "string"]
    places = [name for name in strings if is_place(name)]
    if required and all(_is_number(schema) for schema in required.values()):
        size, count = len(required), len(clues.numbers)
        if count > size and count % size == 0:
            chunks = [clues.numbers[at : at + size] for at in range(0, count, size)]
            fitting = [c for c in chunks if all(map(fits, c, required.values()))]
            return [_with(clues, "numbers", chunk) for chunk in fitting[:_MOST_CALLS]] or [
                clues
            ]
    kind = "places" if len(places) == 1 else ""
    if not kind and len(scalar) == len(strings) == len(required) == 1:
        kind = "quoted" if clues.quoted else ""
    items = getattr(clues, kind) if kind else []
    return [_with(clues, kind, [item]) for item in items[:_MOST_CALLS]] or [clues]


def _with(clues: Clues, kind: str, items: list[Any]) -> Clues:
    variant = copy(clues)
    for name in ("numbers", "quoted", "places", "names", "codes"):
        setattr(variant, name, list(getattr(clues, name)))
    setattr(variant, kind, items)
    return variant


def _divide(question: str, picked: Sequence[tuple[Tool, set[str]]]) -> tuple[list[str], str]:
    """The part of a question that each tool does, and the part that none does."""
    parts = _CLAUSE.split(question)
    clauses = [part + end for part, end in zip(parts[::2], [*parts[1::2], ""], strict=True)]
    scopes, left, waiting = [""] * len(picked), "", ""
    sums = _stems(" ".join([_ARITHMETIC, *_OPERATORS.values()]))
    does_sums = any(used & sums or _is_named(tool, question) for tool, used in picked)
    current: int | None = None
    for clause in clauses:
        words = _question_words(clause)
        owners = [
            at
            for at, (tool, used) in enumerate(picked)
            if words & used or _is_named(tool, clause)
        ]
        if not owners and arithmetic(clause) and not does_sums:
            left += clause
        elif not owners and current is None:
            waiting += clause
        elif not owners and _ASKS.match(clause):
            left += clause
        else:
            for at in owners or [current or 0]:
                scopes[at] += waiting + clause
            waiting, current = "", owners[-1] if owners else current
            continue
        if waiting and _ASKS.match(waiting):
            left, waiting = left + waiting, ""
    return scopes, left
