"""Makes up the sentences that a form asks for: a question, its answer, a summary, a title."""

from __future__ import annotations

import re

from langchain_thinnest.emulator.clues import Clues

_CUES = {
    "question": "question setup quiz riddle",
    "answer": "answer punchline response reply conclusion solution result",
    "title": "title headline heading subject topic theme",
    "text": """
        summary overview abstract report description details story poem explanation reasoning
        reason analysis review comment feedback paragraph note justification rationale advice
    """,
}
_JOKE = re.compile(r"\b(?:joke|riddle|pun|funny|punchline)", re.IGNORECASE)
_RIDDLE = "What do {} and a good book have in common?"
_POINT = "Both are hard to put down, {} above all."
# Names of things to copy from the text, whatever their descriptions say.
_COPIED = re.compile(
    r"name|query|search|text|input|prompt|request|style|message", re.IGNORECASE
)


def compose(name: str, description: str, clues: Clues) -> str | None:
    """Write what a field asks for, if it asks for words that nobody has said.

    Args:
        name: The field's name, which tells what it is better than its description.
        description: The field's description.
        clues: What to write about.

    Returns:
        The words, or None if the field's value is rather to be found in the text.
    """
    kind = _kind(_words(name)[-1:])
    if not kind and not _COPIED.search(name):
        kind = _kind(_words(description)[:3])
    topic = clues.topic
    is_joke = bool(_JOKE.search(f"{name} {description} {clues.text}"))
    known = " ".join(clues.facts)
    if kind == "question":
        if is_joke:
            return _RIDDLE.format(topic)
        asked = clues.text.strip() if clues.text.strip().endswith("?") else None
        return clues.take("quoted") or asked or f"What is there to know of {topic}?"
    if kind == "answer":
        unknown = f"This agent has no model, and does not know ({topic})."
        return _POINT.format(topic) if is_joke else known or unknown
    if kind == "title":
        return clues.take("quoted") or topic[:1].upper() + topic[1:]
    if kind == "text":
        return known or _told(clues.text) or f"A few words on {topic}."
    return None


def asks_for_prose(name: str) -> bool:
    """Whether a field's name alone asks for words that nobody has said."""
    return bool(_kind(_words(name)[-1:]))


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower())


def _kind(words: list[str]) -> str:
    kinds = (kind for word in words for kind, cues in _CUES.items() if word in cues.split())
    return next(kinds, "")


def _told(text: str) -> str | None:
    """What the user gives to be written down: after a dash or a colon, or "because"."""
    found = re.search(r"(?:\s[-\u2013\u2014]\s|:\s|\bbecause\s)(.{3,})", text, re.DOTALL)
    return found[1].strip() if found else None
