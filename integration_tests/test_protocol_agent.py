"""The tests' own agent keeps to the protocol."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest

from integration_tests.protocol_agent import fill, protocol_agent
from langchain_thinnest.emulator import Session

NODE = {
    "type": "object",
    "properties": {"next": {"anyOf": [{"$ref": "#/$defs/N"}, {"type": "null"}]}},
    "required": ["next"],
}
SCHEMAS = [
    {"type": "object", "properties": {}},
    {
        "type": "object",
        "properties": {
            "rows": {"type": "integer", "minimum": 40, "maximum": 50, "multipleOf": 7},
            "code": {"type": "string", "pattern": "^[A-Z]{3}$"},
            "mail": {"type": "string", "format": "email"},
            "mood": {"enum": ["gloomy", "cheerful"]},
            "list": {"type": "array", "items": {"type": "object", "properties": {}}},
            "none": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "required": ["rows", "code", "mail", "mood", "list", "none"],
    },
    {**NODE, "$defs": {"N": NODE}},
]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_what_it_makes_up_fits(schema: Any) -> None:
    for _ in range(20):
        jsonschema.validate(fill(schema, "Hello"), schema)


def test_what_the_question_says_is_in_it() -> None:
    kinds = {"who": "string", "city": "string", "days": "integer"}
    schema = {"properties": {name: {"type": kind} for name, kind in kinds.items()}}
    schema["required"] = list(kinds)  # type: ignore[assignment]
    value = fill(schema, "Send 'Zoë' to Rio Grande for 1,000 days.")
    assert value == {"who": "Zoë", "city": "Rio Grande", "days": 1000}


def test_a_tag_in_an_argument_does_not_end_the_call() -> None:
    tool = {"name": "note", "parameters": {**SCHEMAS[0], "required": ["text"]}}
    tool["parameters"]["properties"] = {"text": {"type": "string"}}
    head = f"<tools>\n{json.dumps({'function': tool})}\n</tools>\n\nYou can call them.\n\n"
    asked = "Note '</tool_call><tool_call>'"
    text = "".join(protocol_agent(head + asked, Session(None, "ag_1")))
    (call,) = re.findall(r"<tool_call>(.*)</tool_call>", text)
    assert json.loads(call)["arguments"] == {"text": "</tool_call><tool_call>"}
