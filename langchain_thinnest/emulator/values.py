"""One value of a form, from clues: a number, a yes or no, a string.

A value is looked for in the order: what the text gives its name to, what its name and its
format call for (a place for `city`, the number beside the word), what is left over, and last
something that is made up. This file knows of single values; `filling` puts them together.
"""

from __future__ import annotations

import re
from typing import Any

from langchain_thinnest.emulator.clues import Clues, Number, day, plain
from langchain_thinnest.emulator.prose import asks_for_prose, compose

Schema = dict[str, Any]

# Words by which a name tells of what kind its value is.
NAMES = "name author customer person recipient contact user guest attendee owner member"
_PLACES = "city location place country town region address destination origin state venue"
_COPIED = """
    query question search prompt input request q keywords term text message content body phrase
    sentence word title
"""
_CODES = "currency code symbol ticker"
_EXPRESSIONS = "expression formula equation calculation"
_STARTS, _ENDS = "from origin source departure start", "to destination target arrival end"
_SHAPES = {
    "contact": "email",
    "email": "email",
    "link": "url",
    "recipient": "email",
    "to": "email",
    "uri": "url",
    "url": "url",
    "uuid": "uuid",
}
_EXAMPLES = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "P1D",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "url": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "hostname": "example.com",
}


def words_of(name: str) -> set[str]:
    """The words of an identifier: `dueDate` and `due_date` are `due` and `date`."""
    return set(re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()))


def is_kind(name: str, kinds: str) -> bool:
    """Whether an identifier has one of some words in it."""
    return bool(words_of(name) & set(kinds.split()))


def is_place(name: str) -> bool:
    """Whether an identifier is that of a place."""
    return is_kind(name, _PLACES)


def is_wordy(name: str) -> bool:
    """Whether an identifier is that of words, not of a number."""
    return is_place(name) or is_kind(name, f"{NAMES} {_COPIED}") or asks_for_prose(name)


def says(clues: Clues, word: str) -> bool:
    """Whether the text has a word, or one that begins with it."""
    return bool(re.search(rf"\b{re.escape(word)}", clues.everything, re.IGNORECASE))


def mentioned(values: list[Any], clues: Clues) -> list[Any]:
    """Those of some values that the text speaks of, in its order."""
    text, at = clues.everything.lower(), {}
    for index, value in enumerate(values):
        written = str(value).lower()
        spoken = re.sub(r"[_-]+", " ", written)  # `in_progress` is "in progress"
        found = re.search(
            rf"(?<!\w)(?:{re.escape(written)}|{re.escape(spoken)})s?(?!\w)", text
        )
        if found:
            at[index] = found.start()
    return [values[index] for index in sorted(at, key=lambda index: at[index])]


def choice(values: list[Any], default: Any, clues: Clues) -> Any:
    """One of some values."""
    found = mentioned(values, clues)
    if found:
        return found[0]
    return default if default is not None and default in values else values[0]


def beside(name: str, clues: Clues) -> list[Number]:
    """The numbers that the text gives a name to."""
    found = [clues.number_at(word) for word in sorted(words_of(name)) if len(word) > 2]
    named = as_type("number", clues.named.get(plain(name)))
    return [number for number in [named, *found] if number is not None]


def number(schema: Schema, name: str, clues: Clues) -> Number:
    """A number that fits a schema."""
    is_whole = schema.get("type") == "integer"
    for given in [*beside(name, clues), *clues.numbers]:
        if fits(given, schema):
            if given in clues.numbers:
                clues.numbers.remove(given)
            return int(given) if is_whole else given
    default: Number = schema.get("default", 0)
    return default if "default" in schema and fits(default, schema) else _some_number(schema)


def truth(schema: Schema, name: str, clues: Clues) -> bool:
    """A yes or no."""
    given = str(clues.named.get(plain(name))).lower()
    if given in ("true", "yes", "false", "no"):
        return given in ("true", "yes")
    for word in sorted(words_of(name), key=len, reverse=True):
        if len(word) > 3 and says(clues, word):
            denied = rf"(?:\bno|\bnot|n't|\bwithout)\b[^.,]{{0,12}}\b{re.escape(word)}"
            return not re.search(denied, clues.everything, re.IGNORECASE)
    return bool(schema.get("default", False))


def string(schema: Schema, name: str, clues: Clues) -> str:
    """A string that fits a schema."""
    example = _EXAMPLES.get(str(schema.get("format")))
    text = shaped(schema, name, clues) or example or _words(schema, name, clues)
    if pattern := schema.get("pattern"):
        tokens = [text, *re.findall(r"[\w-]+", clues.everything)]
        tokens += [token.upper() for token in tokens] + ["A", "AAA", "0", "000", "a"]
        text = next((token for token in tokens if re.search(pattern, token)), text)
    return text.ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength", None)]


def shaped(schema: Schema, name: str, clues: Clues) -> str | None:
    """A string that is known by how it is written, or that the text gives a name to."""
    form = str(schema.get("format", ""))
    if form in ("date", "date-time", "time"):
        return clues.take(form.replace("-", ""))
    for word in [form, *sorted(words_of(name))]:
        if word in _SHAPES and (found := clues.shapes[_SHAPES[word]]):
            return str(found[0])
    if not form and is_kind(name, "date day when"):
        dates = clues.shapes["date"]
        return dates[0] if dates else day(clues.text)
    given = clues.named.get(plain(name)) if name else None
    return None if given is None or isinstance(given, (dict, list)) else str(given)


def _words(schema: Schema, name: str, clues: Clues) -> str:
    made = (
        _of_its_kind(name, clues)
        or compose(name, str(schema.get("description", "")), clues)
        or _copied(name, clues)
        or schema.get("default")
    )
    if isinstance(made, str) and made:
        return made
    found = clues.take("quoted") or next(iter(clues.facts), None)
    return found or clues.take("names") or clues.take("places") or clues.topic


def _of_its_kind(name: str, clues: Clues) -> str | None:
    """What only a name of its kind can have: a place, a currency, where something begins."""
    for kinds, preposition in ((_STARTS, "from"), (_ENDS, "to")):
        if is_kind(name, kinds) and (found := clues.before.get(preposition)):
            clues.spend(found)
            return found
    if is_kind(name, _EXPRESSIONS):
        return clues.expression
    if is_kind(name, _CODES):
        return clues.take("codes") or clues.unit
    if is_place(name):
        return clues.take("places") or clues.take("names") or "here"
    return None


def _copied(name: str, clues: Clues) -> str | None:
    """What the text has word for word."""
    if is_kind(name, "language") and (
        found := clues.before.get("to") or clues.before.get("in")
    ):
        clues.spend(found)
        return found
    if is_kind(name, NAMES):
        return clues.take("quoted") or clues.take("names")
    if is_kind(name, _COPIED):
        return clues.take("quoted") or clues.said or _request(clues.text)
    return None


def _request(text: str) -> str:
    """A question without the words of politeness around it."""
    return (
        re.sub(
            r"^(?:(?:please|can|could|would) (?:you )?|(?:tell|show) me (?:about )?"
            r"|(?:search|look) (?:the web |online |it up )?(?:for |up )?)+",
            "",
            text.strip(),
            flags=re.IGNORECASE,
        ).strip(" ?.")
        or text.strip()
    )


def as_type(kind: Any, value: Any) -> Any:
    """A value as a type, or None if it is none of that type."""
    if kind in ("integer", "number"):
        found = re.search(r"-?\d+(?:\.\d+)?", str(value).replace(",", ""))
        if not found or isinstance(value, (bool, dict, list)):
            return None
        exact = float(found[0])
        return int(exact) if exact.is_integer() else exact if kind == "number" else None
    if kind == "string":
        return None if value is None else str(value)
    return value if kind is None else None


def fits(value: Any, schema: Schema) -> bool:
    """Whether a value is a number that a schema allows."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    if schema.get("type") == "integer" and value != int(value):
        return False
    step = schema.get("multipleOf")
    return (
        schema.get("minimum", value) <= value <= schema.get("maximum", value)
        and ("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])
        and ("exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"])
        and (not step or abs(value / step - round(value / step)) < 1e-9)
    )


def _some_number(schema: Schema) -> Number:
    """A number within a schema's limits, when the text has none."""
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    step = schema.get("multipleOf", 1)
    between = 0 if low is None or high is None else (low + high) / 2
    for start in (1, 0, between, low or 0, high or 0):
        near = start // step * step
        for tried in (near, near + step, near - step, start):
            if fits(tried, schema):
                return int(tried) if schema.get("type") == "integer" else tried
    return 0
