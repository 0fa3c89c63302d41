"""An agent that obeys the text protocol by rules: it calls the caller's tools and writes JSON.

For tests that need an agent to decide by itself; it knows no test. A tool is called if it must
be, or if the question has a word of its name. What a question says (numbers, quoted words,
names) is put into a schema, and jsf fills in the rest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from jsf import JSF

from langchain_thinnest.emulator import Session, demo_agent

Json = dict[str, Any]
_JSON_MODE = r"(?:Once [^,\n]+, a|A)nswer with one JSON object and nothing else"
_PREAMBLE = re.compile(
    rf"\s*(?:<(?P<tag>tools|response_schema)>\n(?P<block>.*?)\n</(?P=tag)>\n\n)?"
    rf"(?P<rule>(?(tag).*?|{_JSON_MODE}.*?))(?:\n\n|\Z)",
    re.DOTALL,
)
_USER = re.compile(r"(?:\A|\n\n)User(?: \([^\n()]*\))?: ")
_NEXT = re.compile(r"\n\n(?=(?:Assistant|Tool|System)\b|<tool_response>)|(?=<tool_response>)")
_RESULT = re.compile(r"<tool_response>(.*?)</tool_response>", re.DOTALL)
_TRANSCRIPT = re.compile(r"(?:System|User|Assistant)(?: \([^\n()]*\))?[: ]")
_SAYS_LITTLE = {"get", "my", "the", "tool", "function", "ask", "a", "to", "of"}


def protocol_agent(message: str, session: Session) -> Iterator[Any]:
    """Answer as the message's tools, schema and rules ask."""
    tools, schema, rule, rest = _read(message)
    question, turn = _question(rest, session)
    results = [json.loads(given, strict=False) for given in _RESULT.findall(turn)]
    calls = _calls(tools, rule, question, results)
    if calls:
        text = "".join(f"<tool_call>{call}</tool_call>" for call in calls)
    elif schema is not None:
        text = json.dumps(fill(schema, question, results), ensure_ascii=False)
    elif results:
        told = (f"{given['name']} gives: {given['content']}" for given in results)
        text = "\n".join(told).replace("<", "(")  # a tag in a result is not repeated
    else:
        yield from demo_agent(question, session)
        return
    yield from re.findall(r"\s*\w{1,6}|\s*[^\w\s]{1,3}|\s+", text)


def _read(message: str) -> tuple[list[Json], Json | None, str, str]:
    """The tools, the schema of the answer, what is said of calls, and the conversation."""
    tools: list[Json] = []
    schema, rule = None, ""
    while re.match(rf"\s*(?:<tools>|<response_schema>|{_JSON_MODE})", message):
        found = _PREAMBLE.match(message)
        assert found, message
        message = message[found.end() :]
        if found["tag"] == "tools":
            tools = [json.loads(line)["function"] for line in found["block"].splitlines()]
            rule = found["rule"]
        elif found["tag"]:
            schema = json.loads(found["block"])
        else:
            keys = re.findall(r"[`'\"](\w+)[`'\"]", message) or ["answer"]
            schema = {
                "properties": {key: {"type": "string"} for key in keys},
                "required": keys,
            }
    return tools, schema, rule, message


def _question(rest: str, session: Session) -> tuple[str, str]:
    """What the user asked last, and what came after it."""
    if rest.startswith("<tool_response>"):  # a session knows the question
        asked = [turn.text for turn in session.messages if turn.type == "human"]
        known = next((text for text in reversed(asked) if "<tool_response>" not in text), "")
        return _read(known)[3], rest
    if not _TRANSCRIPT.match(rest):
        return rest.strip(), ""
    last = _USER.split(rest)[-1]
    question, *turn = _NEXT.split(last, maxsplit=1)
    return question.strip(), "".join(turn)


def _calls(tools: list[Json], rule: str, question: str, results: list[Json]) -> list[str]:
    named = re.search(r"must call the tool [`'\"]?([\w.-]+?)[`'\"]?(?=[\s.,;]|$)", rule)
    if named:
        tools = [tool for tool in tools if tool["name"] == named[1]]
    given = {result["name"] for result in results}
    best = sorted(tools, key=lambda tool: (tool["name"] in given, -_fitness(tool, question)))
    wanted = [tool for tool in tools if _fitness(tool, question) and tool["name"] not in given]
    if named or "must call at least one" in rule:
        wanted = wanted or best[:1]
    if named or "one call at most" in rule:
        wanted = wanted[:1]
    return [
        json.dumps(
            {"name": tool["name"], "arguments": fill(tool["parameters"], question, results)},
            ensure_ascii=False,
        ).replace("<", "\\u003c")  # a tag in a string would end the call
        for tool in wanted
    ]


def _fitness(tool: Json, question: str) -> int:
    """How many words of its name the question has."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", tool["name"]).lower()
    asked = set(re.findall(r"[^\W_]+", question.lower()))
    return len((set(name.split("_")) - _SAYS_LITTLE) & asked) + 9 * (tool["name"] in question)


def fill(schema: Json, question: str, results: list[Json] | None = None) -> Any:
    """A value that fits a JSON schema, with what the question and the results say in it."""
    facts: Json = {}
    for result in results or []:
        try:
            facts.update(json.loads(result["content"]))
        except (TypeError, ValueError):
            facts.setdefault("answer", result["content"])
    filler = JSF({"type": "object", **_Said(question, facts).pin(schema)})
    # It is copied, which Python 3.14 does not do for an `itertools.count`.
    filler.base_state["__counter__"] = iter(range(1, 1_000_000))
    return filler.generate()


class _Said:
    """What is known, each thing used once."""

    def __init__(self, question: str, facts: Json) -> None:
        quoted = r"(?<!\w)'([^']+)'(?!\w)|\"([^\"]+)\""
        self._quoted = [one or other for one, other in re.findall(quoted, question)]
        text = re.sub(quoted, " ", question)
        self._numbers = [
            float(found.replace(",", ""))
            for found in re.findall(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?", text)
        ]
        self._names = re.findall(r"(?<=[^.!?\s] )[A-Z]\w+(?: [A-Z]\w+)*", text)
        self._question, self._facts = question, facts

    def pin(self, schema: Json, name: str = "") -> Json:
        """The schema, with what is known as constants in it."""
        known = self._facts.get(name)
        kind = schema.get("type", "object" if "properties" in schema else None)
        if kind == "object":
            required = schema.get("required", [])
            properties = schema.get("properties", {})
            pinned = {key: self.pin(properties.get(key, {}), key) for key in required}
            return {**schema, "properties": pinned}
        if "enum" in schema:
            said = [value for value in schema["enum"] if str(value) in self._question.lower()]
            return {"enum": said or schema["enum"]}
        if kind == "array" and isinstance(schema.get("items"), dict):
            return {**schema, "items": self.pin(schema["items"], name), "minItems": 1}
        if kind in ("integer", "number"):
            numbers = [known] if isinstance(known, (int, float)) else self._numbers
            return {"const": _as(kind, numbers.pop(0))} if numbers else schema
        if kind == "string" and not {"pattern", "format", "const"} & schema.keys():
            found = known or next(
                (kept.pop(0) for kept in (self._quoted, self._names) if kept), 0
            )
            return {"const": str(found or self._question)}
        return schema


def _as(kind: str, number: float) -> float:
    return int(number) if kind == "integer" or number == int(number) else number
