"""Finds in a text what can fill a form: numbers, quotations, places, names, dates.

A clue is used once: `take` gives the next one. What tools gave comes before what was asked.
This file knows nothing of schemas.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from langchain_thinnest.emulator.plain import arithmetic, keywords

Number = int | float

# A word that is written as a name: it begins with a capital, or has no case, as in Chinese.
_WORD = r"(?![a-zß-öø-ÿα-ωа-яё])[^\W\d_][\w'\u2019-]*"
_PROPER = re.compile(
    rf"(?<![\w'\u2019-]){_WORD}(?: (?:(?:de|da|do|del|la|le|of|am) )?{_WORD})*"
    r"(?:, [A-Z]{2,3}\b)?"
)
_NUMBER = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_QUOTED = re.compile(  # within bounds, so that a text of lone marks takes no time
    r"(?<!\w)'((?:[^'\n]|(?<=\w)'(?=\w)){1,500})'(?!\w)"
    r"|\"([^\"\n]{1,500})\"|“([^”]{1,500})”|\u2018([^\u2019]{1,500})\u2019"
    r"|«([^»]{1,500})»|「([^」]{1,500})」|`([^`\n]{1,500})`"
)
_SHAPES = {
    "email": re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    "url": re.compile(r"https?://[^\s<>\"')]+[^\s<>\"').,;!?]"),
    "uuid": re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"),
    "datetime": re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?(?:Z|[+-]\d\d:\d\d)?"),
    "date": re.compile(r"\b\d{4}-\d\d-\d\d\b"),
    "time": re.compile(r"\b\d{1,2}:\d\d(?::\d\d)?\b"),
}
_DAY = re.compile(
    r"\b(?:today|tonight|tomorrow|yesterday|(?:next |this )?(?:mon|tues|wednes|thurs|fri|"
    r"satur|sun)day|next (?:week|month|year))\b",
    re.IGNORECASE,
)
_CODE = re.compile(r"\b[A-Z]{2,5}\b")
_NAMED = re.compile(r"[\"']?\b([A-Za-z_][\w ]{0,30}?)[\"']?\s*[:=]\s*([^\s,;:=][^,;\n]*)")
_TOPIC = re.compile(
    r"\b(?:about|on|regarding|concerning)\s+(?:the\s+|a\s+|an\s+)?(.+?)"
    r"(?=[.,;:?!\n]|\s(?:and|with|for|in|using|as)\s|$)",
    re.IGNORECASE,
)
_FOR = re.compile(r"\bfor ((?!the\b|me\b|\d)[a-z]\w+)")
_AND = re.compile(r",? (?:and|or|&|then) (?:(?:in|at|for|to|near|of) )?|, (?:in |for )?")
_COUNTS = {
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "twelve": 12,
}
_NO_NAMES = """
    i i'm i'd i've ok yes no json monday tuesday wednesday thursday friday saturday sunday
    january february march april may june july august september october november december
    add answer ask book buy calculate call check compare compute convert count create describe
    divide explain extract fetch find generate get give greet help let's list look make
    multiply order plan read remind reply respond return schedule search send set show
    subtract sum summarise summarize take tell translate use using visit what's who's
    where's how's write also now
"""
_PLACE_WORDS = {"in", "at", "near", "for", "of", "from", "to", "around", "between", "visit"}
_AFTER_NAME = re.compile(
    r"['\u2019]s\b|,| (?:is|was|has|are|lives|works|and|wants|said|says)\b"
)
_LOWER_PLACE = re.compile(r"\b(?:in|at|near) ((?!the\b|a\b|an\b|my\b|this\b|that\b)[a-z]{3,})")
_LOWER_DIRECTION = re.compile(r"\b(from|to) ([a-z]{3,})")
_UNIT = re.compile(r"\d ?((?!and\b|plus\b|in\b|to\b)[^\W\d]{2,})")
_SAYING = re.compile(r"\b(?:saying|says?|that says)[:,]? (?:that )?(.+)")


class Clues:
    """What a text, and what tools gave, have to fill a form with.

    Attributes:
        text: The question.
        facts: What tools gave.
        numbers: All numbers, in order, those of the facts first.
        quoted: What stands in quotation marks.
        places: What looks like a place.
        names: What looks like a name and is no place.
        codes: Words of capitals alone, such as currencies.
        expression: Arithmetic, if there is some.
        before: Names by the preposition before them.
        unit: The word after a number, such as a currency.
        said: What is to be said to somebody.
        named: Values by the names that the text, or a tool's JSON, gives them.
        topic: What it is about.
    """

    def __init__(self, text: str, facts: Sequence[str] = ()) -> None:
        """Read a question, and what tools gave."""
        self.text, self.facts = text, list(facts)
        self.everything = "\n".join([*facts, text])
        self.quoted = [next(filter(None, match.groups())) for match in _QUOTED.finditer(text)]
        bare = _QUOTED.sub(" ", text)
        self.shapes = {kind: shape.findall(self.everything) for kind, shape in _SHAPES.items()}
        self.numbers = _numbers(self.everything)
        self.codes = [
            code for code in _CODE.findall(bare) if code.lower() not in _NO_NAMES.split()
        ]
        self.expression = arithmetic(text)
        self.before: dict[str, str] = {}  # preposition → the name after it
        self.places: list[str] = []
        self.names: list[str] = []
        self._sort_names(bare)
        self.named = dict(_named(text, facts))
        for word, name in _LOWER_DIRECTION.findall(bare):
            self.before.setdefault(word, name)
        unit = _UNIT.search(bare)
        self.unit = unit[1] if unit else None
        said = _SAYING.search(text)
        self.said = said[1].strip(" .") if said else None
        topic = _TOPIC.search(bare) or _FOR.search(bare)
        known = [word for word in keywords(self.said or bare) if word not in _NO_NAMES.split()]
        self.topic = topic[1].strip() if topic else " ".join(known[-3:]) or "that"

    def take(self, kind: str) -> str | None:
        """The next clue of a kind: `quoted`, `places`, `names`, `codes`, or a shape."""
        found = self.shapes[kind] if kind in self.shapes else getattr(self, kind)
        return str(found.pop(0)) if found else None

    def spend(self, name: str) -> None:
        """Take a name out, wherever it is."""
        for kind in (self.places, self.names):
            if name in kind:
                kind.remove(name)

    def number_at(self, word: str) -> Number | None:
        """The number beside a word, such as the 3 of "3 days" or "age: 3"."""
        stem = re.escape(word[: max(3, len(word) - 1)])
        for pattern in (
            rf"({_NUMBER.pattern})[ -]?{stem}\w*",
            rf"\b{stem}\w*\"?(?:\s*[:=]|\s+is|\s+of|\s+to|\s+at)?\s*({_NUMBER.pattern})",
        ):
            if found := re.search(pattern, self.everything, re.IGNORECASE):
                return _number(found[1])
        return None

    def _sort_names(self, text: str) -> None:
        found = list(_propers(text))
        for at, (start, _, name) in enumerate(found):
            before = re.search(r"(\w+) $", text[max(0, start - 30) : start])
            word = before[1].lower() if before else ""
            if at and _AND.fullmatch(text[found[at - 1][1] : start]):
                word = self._joined(found[at - 1][2], word)
            self.before.setdefault(word, name)
            (self.places if word in _PLACE_WORDS else self.names).append(name)
        self._join_countries(text)
        if not self.places and (place := _LOWER_PLACE.search(text)):
            self.places.append(place[1])

    def _joined(self, previous: str, word: str) -> str:
        """What stands before a list stands before all of it."""
        if word in _PLACE_WORDS:
            return word
        return "in" if self.places and self.places[-1] == previous else word

    def _join_countries(self, text: str) -> None:
        """Of "Lyon, France" make one place, but not of "Lyon, Rome and Bonn"."""
        for first, second in pairwise(self.places[:20]):
            both = f"{first}, {second}"
            listed = rf"(?:, |and |or ){re.escape(first)}|{re.escape(both)},? (?:,|and |or )\w"
            if both in text and not re.search(listed, text):
                self.places.remove(second)
                self.places[self.places.index(first)] = both
                return


def _propers(text: str) -> Iterator[tuple[int, int, str]]:
    """Names, and where they stand; a sentence's first word is one only if it acts so."""
    for match in _PROPER.finditer(text):
        name, start = match[0], match.start()
        is_first = not start or bool(
            re.search(r"[.?!:\n]\s*$", text[max(0, start - 5) : start])
        )
        while name and (
            not keywords(words := name.split()[0])
            or words.lower().strip(".") in _NO_NAMES.split()
        ):
            if name[0].lower() == name[0].upper():  # no Latin letters: no stop word
                break
            name = name[len(words) :].lstrip()
            is_first = False
        start = match.end() - len(name)
        alone = " " not in name
        if name and not (is_first and alone and not _AFTER_NAME.match(text, match.end())):
            yield start, match.end(), re.sub(r"['\u2019]s$", "", name)


def _numbers(text: str) -> list[Number]:
    for shape in _SHAPES.values():
        text = shape.sub(" ", text)
    found = [(match.start(), _number(match[0])) for match in _NUMBER.finditer(text)]
    for word, count in _COUNTS.items():
        found += [(m.start(), count) for m in re.finditer(rf"\b{word}\b", text, re.IGNORECASE)]
    return [number for _, number in sorted(found, key=lambda pair: pair[0])]


def _number(text: str) -> Number:
    text = text.replace(",", "")
    return float(text) if "." in text else int(text)


def _named(text: str, facts: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """What the text or a tool's JSON gives a name to; facts win."""
    for source in (text, *facts):
        value = _json(source)
        if isinstance(value, (dict, list)):
            yield from _leaves(value)
        else:
            for key, given in _NAMED.findall(source):
                yield plain(key), given.strip(" \"'.")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _leaves(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield plain(str(key)), inner
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)


def plain(name: str) -> str:
    """A name without its writing: `dueDate`, `due_date` and `Due date` are one."""
    return re.sub(r"[^\w]|_", "", name).lower()


def day(text: str) -> str | None:
    """A day by its name, such as "tomorrow"."""
    found = _DAY.search(text)
    return found[0] if found else None
