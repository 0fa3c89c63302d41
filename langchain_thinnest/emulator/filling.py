"""Fills a JSON schema from clues, plausibly: what a model does with a tool's parameters.

This file knows of objects, lists and alternatives; `values` knows of single values. It knows
nothing of tools or of the conversation.
"""

from __future__ import annotations

import re
from typing import Any

from langchain_thinnest.emulator.clues import Clues, plain
from langchain_thinnest.emulator.values import (
    NAMES,
    Schema,
    as_type,
    beside,
    choice,
    is_kind,
    is_place,
    is_wordy,
    mentioned,
    number,
    says,
    shaped,
    string,
    truth,
    words_of,
)

_DEEP = 8  # as far as a schema that holds itself is followed
_MOST = 10  # as many things as a list holds at most


def fill(schema: Schema, clues: Clues, *, all_of_it: bool = False) -> Any:
    """Make a value that fits a schema.

    Args:
        schema: A JSON schema, with its definitions inside.
        clues: What to fill it with; those that are used are taken out.
        all_of_it: Whether to make up also what is optional.

    Returns:
        The value.
    """
    return _Filler(schema, clues, all_of_it=all_of_it).value(schema, "", 0)


def resolve(schema: Any, root: Schema) -> Schema:
    """Follow a schema's references, and lay what it is made of together."""
    if not isinstance(schema, dict):  # `true`: anything
        return {}
    for _ in range(_DEEP):
        if "$ref" not in schema:
            break
        found: Any = root
        for step in str(schema["$ref"]).lstrip("#").strip("/").split("/"):
            key = step.replace("~1", "/").replace("~0", "~")
            found = found.get(key, {}) if isinstance(found, dict) and key else found
        schema = {**found, **{key: value for key, value in schema.items() if key != "$ref"}}
    whole: Schema = {key: value for key, value in schema.items() if key != "allOf"}
    for part in schema.get("allOf", ()):
        other = resolve(part, root)
        properties = {**other.get("properties", {}), **whole.get("properties", {})}
        required = [*whole.get("required", []), *other.get("required", [])]
        whole = {**other, **whole}
        if properties:
            whole.update(properties=properties, required=required)
    return whole


class _Filler:
    """The filling of one schema."""

    def __init__(self, root: Schema, clues: Clues, *, all_of_it: bool) -> None:
        self.root, self.clues, self.all_of_it = root, clues, all_of_it

    def value(self, schema: Any, name: str, depth: int) -> Any:
        schema = resolve(schema, self.root)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return choice(schema["enum"], schema.get("default"), self.clues)
        options = self.options(schema)
        if len(options) > 1:
            return self.option(options, name, depth)
        (schema,) = options
        kind = schema.get("type") or self.kind_of(schema, name)
        if kind == "object":
            return self.object(schema, depth + 1)
        if kind == "array":
            return self.array(schema, name, depth + 1)
        if kind in ("integer", "number"):
            return number(schema, name, self.clues)
        if kind == "boolean":
            return truth(schema, name, self.clues)
        return None if kind == "null" else string(schema, name, self.clues)

    def options(self, schema: Any) -> list[Schema]:
        """What a value may be: the alternatives of a schema, or the schema itself."""
        schema = resolve(schema, self.root)
        given = schema.get("anyOf") or schema.get("oneOf")
        if given:
            shared = {k: v for k, v in schema.items() if k not in ("anyOf", "oneOf")}
            inner = [{**shared, **resolve(option, self.root)} for option in given]
            return [leaf for option in inner for leaf in self.options(option)]
        kind = schema.get("type")
        return (
            [{**schema, "type": one} for one in kind] if isinstance(kind, list) else [schema]
        )

    def kind_of(self, schema: Schema, name: str) -> str:
        """The type of what does not say it."""
        if "properties" in schema or "additionalProperties" in schema:
            return "object"
        if "items" in schema or "prefixItems" in schema:
            return "array"
        is_number = bool(self.clues.expression) or not is_wordy(name)
        return "number" if is_number and self.clues.numbers else "string"

    def option(self, options: list[Schema], name: str, depth: int) -> Any:
        real = [option for option in options if option.get("type") != "null"]
        has_null = len(real) < len(options)
        if has_null and (depth >= _DEEP or not self.is_wanted(real, name)):
            return None
        return self.value(max(real, key=lambda one: self.fit(one, name)), name, depth)

    def is_wanted(self, options: list[Schema], name: str) -> bool:
        """Whether to give something a value that needs none."""
        if any(self.has_clue(option, name) for option in options):
            return True
        if self.is_excluded(name):
            return False
        # Words can be made up; numbers, places and days cannot.
        made_up = any(
            option.get("type") in ("string", "object") and not option.get("format")
            for option in options
            if not is_place(name) and "enum" not in option
        )
        return made_up and (self.all_of_it or (bool(name) and says(self.clues, name)))

    def has_clue(self, schema: Schema, name: str) -> bool:
        """Whether the text speaks of just this value."""
        clues, kind = self.clues, schema.get("type")
        if "enum" in schema:
            return bool(mentioned(schema["enum"], clues))
        if kind in ("integer", "number"):
            return bool(beside(name, clues))
        if kind == "array":
            items = resolve(schema.get("items"), self.root)
            return self.has_clue(items, name) or bool(self.listed(name))
        if kind == "boolean":
            return any(says(clues, word) for word in words_of(name) if len(word) > 3)
        if plain(name) in clues.named or (kind == "string" and shaped(schema, name, clues)):
            return True
        return is_place(name) and bool(clues.places)

    def is_excluded(self, name: str) -> bool:
        """Whether the user does not want it."""
        word = " ".join(sorted(words_of(name)))
        found = rf"\b(?:no|without|not) (?:a |an |the )?{re.escape(word)}"
        return bool(re.search(found, self.clues.text, re.IGNORECASE))

    def fit(self, schema: Schema, name: str) -> int:
        """How well an alternative fits: by its type, or by the words of an object."""
        kind = schema.get("type")
        if kind in ("integer", "number"):
            return 2 if self.clues.numbers else 0
        properties = _properties(schema)
        if not properties:
            return 1 + (kind == "array" and self.has_clue(schema, name))
        consts = [resolve(inner, self.root).get("const") for inner in properties.values()]
        said = " ".join([str(schema.get("title")), *properties, *map(str, consts)])
        text = self.clues.everything.lower()
        return 2 + sum(word[:5] in text for word in words_of(said))

    def object(self, schema: Schema, depth: int) -> dict[str, Any]:
        properties, inner = _properties(schema), schema.get("additionalProperties")
        if not properties and isinstance(inner, dict):
            kind = resolve(inner, self.root).get("type")
            given = {key: as_type(kind, value) for key, value in self.clues.named.items()}
            return {key: value for key, value in given.items() if value is not None}
        required = set(schema.get("required", []))
        wanted = [
            name
            for name, inner in properties.items()
            if name in required
            or (depth < _DEEP and self.is_wanted(self.options(inner), name))
        ]
        # What has a clue of its own takes it before others take what is left.
        order = sorted(wanted, key=lambda name: not beside(name, self.clues))
        values = {name: self.value(properties[name], name, depth) for name in order}
        return {name: values[name] for name in wanted}

    def array(self, schema: Schema, name: str, depth: int) -> list[Any]:
        clues, items = self.clues, schema.get("items")
        prefix = schema.get("prefixItems") or (items if isinstance(items, list) else None)
        if prefix:
            return [self.value(item, name, depth) for item in prefix]
        items = resolve(items, self.root)
        least, most = schema.get("minItems", 0), schema.get("maxItems", _MOST)
        if "enum" in items:
            values = mentioned(items["enum"], clues) or items["enum"][: max(least, 1)]
        elif items.get("type") in ("integer", "number"):
            values = [given for given in clues.numbers if as_type(items["type"], given)]
            clues.numbers = []
        elif items.get("type") == "string" and (listed := self.listed(name)):
            values = listed
        else:
            count = 0 if depth >= _DEEP else max(1, self.count(items, name))
            values = [self.value(items, name, depth) for _ in range(min(count, most))]
        if schema.get("uniqueItems"):
            values = [value for at, value in enumerate(values) if value not in values[:at]]
        values = values[:most]
        return values + [self.value(items, name, depth) for _ in range(least - len(values))]

    def listed(self, name: str) -> list[str]:
        """The strings of a list in the text."""
        clues = self.clues
        given = clues.named.get(plain(name))
        if isinstance(given, list):
            return [str(value) for value in given]
        if is_place(name) and clues.places:
            return clues.places
        if clues.quoted:
            return clues.quoted
        found = re.search(r"(?::|\bwith)\s+([^.!?\n]+(?:,| and )[^.!?\n]+)", clues.text)
        if found:
            return [
                part.strip() for part in re.split(r",\s*(?:and )?| and ", found[1]) if part
            ]
        return clues.names if len(clues.names) > 1 else []

    def count(self, items: Schema, name: str) -> int:
        """How many things a list is to hold."""
        for asked in beside(name, self.clues):
            if asked in self.clues.numbers and 0 < asked <= _MOST:
                self.clues.numbers.remove(asked)
                return int(asked)
        has_name = any(is_kind(key, NAMES) for key in _properties(items))
        return len(self.clues.names) if has_name else 1


def _properties(schema: Schema) -> dict[str, Any]:
    return schema.get("properties") or {}
