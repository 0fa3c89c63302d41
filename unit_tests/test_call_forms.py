"""What agents write between the tags of a call, and which calls that is."""

from __future__ import annotations

from typing import Any

import pytest

from langchain_thinnest._answer.call_forms import read_calls

TOOLS = {
    "f": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "note": {"type": ["string", "null"]},
            "when": {"anyOf": [{"type": "number"}, {"type": "null"}]},
            "kind": {"enum": ["a", "b"]},
            "size": {"enum": [1, 2]},
            "place": {"$ref": "#/$defs/Place"},
            "odd": True,
        },
    },
    "g": {},
}
PARIS = {"city": "Paris"}


def read(inner: str, tag: str = "<tool_call>", *, is_closed: bool = True) -> Any:
    return read_calls(inner, tag, TOOLS, is_closed=is_closed)


@pytest.mark.parametrize(
    ("inner", "calls"),
    [
        ('{"name": "f", "arguments": {"city": "Paris"}}', [("f", PARIS)]),
        ('{"tool": "f", "parameters": {"city": "Paris"}}', [("f", PARIS)]),
        ('{"function": "f", "args": {"city": "Paris"}}', [("f", PARIS)]),
        ('{"name": "f", "input": "{\\"city\\": \\"Paris\\"}"}', [("f", PARIS)]),
        ('{"name": "g", "arguments": ""}', [("g", {})]),
        ('{"name": "g", "arguments": null}', [("g", {})]),
        ('{"name": "g", "id": "c1", "type": "function"}', [("g", {})]),
        ('{"name": "functions.f", "arguments": {"city": "Paris"}}', [("f", PARIS)]),
        ('{"name": "functions.x", "arguments": {}}', [("functions.x", {})]),
        (
            '{"type": "function", "function": {"name": "f", "arguments": {"city": "Paris"}}}',
            [("f", PARIS)],
        ),
        ('{"tool_calls": [{"name": "g"}, {"name": "g"}]}', [("g", {}), ("g", {})]),
        (
            '[{"name": "g"}, {"name": "f", "args": {"city": "Paris"}}]',
            [("g", {}), ("f", PARIS)],
        ),
        ('{"name": "g"}\n{"name": "g"}', [("g", {}), ("g", {})]),
        ('```json\n{"name": "g"}\n```', [("g", {})]),
        ("{'name': 'f', 'arguments': {'city': 'Paris',}}", [("f", PARIS)]),
        ('{"name": "f", "arguments": {"city": "Paris"}}}', [("f", PARIS)]),
        ('{"name": "f", "arguments": {"city": "Paris"}', [("f", PARIS)]),
        # In doubt, none.
        ("", []),
        ("f(Paris)", None),
        ('{"name": "f", "arguments": {"city": "Par', None),
        ('{"name": "f", "arguments": [1]}', None),
        ('{"name": "f", "city": "Paris"}', None),
        ('{"arguments": {}}', None),
        ('{"name": "", "arguments": {}}', None),
        ('{"name": "f", "tool": "g", "arguments": {}}', None),
        ('{"name": "f", "arguments": {}, "args": {"city": "Paris"}}', None),
        ('["f"]', None),
        ("[]", None),
        ('[{"name": "g"}] 7', None),
        # What repeats the tool's description calls nothing.
        ('{"name": "f", "parameters": {"type": "object", "properties": {}}}', None),
    ],
)
def test_json(inner: str, calls: Any) -> None:
    assert read(inner) == calls


def test_a_missing_brace_is_added_only_before_a_closing_tag() -> None:
    assert read('{"name": "g", "arguments": {}', is_closed=False) is None


@pytest.mark.parametrize(
    ("tag", "inner", "calls"),
    [
        ('<tool_call name="f">', '{"city": "Paris"}', [("f", PARIS)]),
        ("<tool_call name=f>", '{"arguments": {"city": "Paris"}}', [("f", PARIS)]),
        ("<tool_call name='f'>", '{"name": "g"}', [("g", {})]),
        ('<tool_call name="x">', '{"city": "Paris"}', None),
        ('<tool_call name="g">', '{"city": "Paris"}', None),
    ],
)
def test_a_name_in_the_tag(tag: str, inner: str, calls: Any) -> None:
    assert read(inner, tag) == calls


def parameters(**values: str) -> str:
    found = (f"<parameter={name}>{value}</parameter>" for name, value in values.items())
    return "".join(["<function=f>", *found, "</function>"])


@pytest.mark.parametrize(
    ("inner", "args"),
    [
        (parameters(city="Paris"), PARIS),
        (parameters(city="\nParis\n"), PARIS),
        (parameters(city="\r\n 7 \r\n"), {"city": " 7 "}),
        (parameters(days="3"), {"days": 3}),
        (parameters(days="{'a': True,}"), {"days": {"a": True}}),
        (parameters(note="null"), {"note": None}),
        (parameters(when="None"), {"when": None}),
        (parameters(when="3.5"), {"when": 3.5}),
        (parameters(kind="7"), {"kind": "7"}),
        (parameters(size="2"), {"size": 2}),
        (parameters(place='{"x": 1}'), {"place": {"x": 1}}),
        (parameters(place="null"), {"place": None}),
        (parameters(odd="7"), {"odd": "7"}),
        (parameters(unknown="7"), {"unknown": "7"}),
        ('<function=f>{"city": "Paris"}</function>', PARIS),
        ("<function=f>\n</function>", {}),
        # In doubt, none.
        (parameters(days="soon"), None),
        ("<function=f>{7}</function>", None),
        ("<function=f>Paris</function>", None),
        (f"<function=f>{'<parameter=city>a</parameter>' * 2}</function>", None),
        ("<function=f><parameter=city>Paris", None),
    ],
)
def test_qwens_form(inner: str, args: Any) -> None:
    assert read(inner) == (None if args is None else [("f", args)])


def test_several_in_qwens_form() -> None:
    inner = f"{parameters(city='Paris')}\n<function=functions.g></function>"
    assert read(inner) == [("f", PARIS), ("g", {})]
