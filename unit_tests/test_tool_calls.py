"""Calls of local tools, as they are read from an answer's text."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from langchain_core.utils.json import parse_partial_json

from langchain_thinnest._tool_calls import END, START, CallPart, CallScanner


def scan(chunks: Iterable[str]) -> list[str | CallPart]:
    scanner = CallScanner()
    pieces = [piece for chunk in chunks for piece in scanner.feed(chunk)]
    return [*pieces, *scanner.flush()]


def summed(pieces: list[str | CallPart]) -> list[Any]:
    """Text added up, and each call as its name, its JSON, and its arguments."""
    found: list[Any] = []
    for piece in pieces:
        if isinstance(piece, str):
            if found and isinstance(found[-1], str):
                found[-1] += piece
            elif piece:
                found.append(piece)
            continue
        if piece.is_first:
            found.append((piece.call.name, ""))
        name, text = found[-1]
        found[-1] = (name or piece.call.name, text + piece.text)
        if piece.is_last:
            assert found[-1] == (piece.call.name, piece.call.text)
            found[-1] = (*found[-1], piece.call.args)
    return found


def tags(body: str) -> str:
    return START + body + END


F = '{"name": "f", "arguments": %s}'
WHOLE = tags(F % '{"a": 1}')
CALL = ("f", '{"a": 1}', {"a": 1})

CASES: dict[str, tuple[str, list[Any]]] = {
    "text alone": (
        "a < b, <b>, </tool_call> and <tool",
        ["a < b, <b>, </tool_call> and <tool"],
    ),
    "a call alone": (WHOLE, [CALL]),
    "text around": (f"Hi \n{WHOLE}\n there", ["Hi \n", CALL, "\n there"]),
    "a bracket before": (f"<{WHOLE}<<tool_call{WHOLE}", ["<", CALL, "<<tool_call", CALL]),
    "several": (f"{WHOLE}{WHOLE}\n{WHOLE}", [CALL, CALL, "\n", CALL]),
    "white space within": (
        tags('\n { "name" :\t"f" , "arguments" : {"a": 1} } \n'),
        [CALL],
    ),
    "nested braces": (
        tags(F % '{"a": {"b": [{"c": {}}, "}]"]}}'),
        [("f", '{"a": {"b": [{"c": {}}, "}]"]}}', {"a": {"b": [{"c": {}}, "}]"]}})],
    ),
    "unicode": (
        tags(F % '{"a": "Zürich 😀 \\u00e9 \\ud83d\\ude00"}'),
        [("f", '{"a": "Zürich 😀 \\u00e9 \\ud83d\\ude00"}', {"a": "Zürich 😀 é 😀"})],
    ),
    "escapes": (
        tags(F % r'{"a": "\\", "b": "\"}"}'),
        [("f", r'{"a": "\\", "b": "\"}"}', {"a": "\\", "b": '"}'})],
    ),
    "a raw line end in a string": (
        tags(F % '{"a": "x\ny"}'),
        [("f", '{"a": "x\ny"}', {"a": "x\ny"})],
    ),
    "empty arguments": (tags(F % "{}"), [("f", "{}", {})]),
    "no arguments": (tags('{"name": "f"}'), [("f", "{}", {})]),
    "null arguments": (tags(F % "null"), [("f", "{}", {})]),
    "arguments in a string": (tags(F % '"{\\"a\\": 1}"'), [CALL]),
    "an empty string of arguments": (tags(F % '""'), [("f", "{}", {})]),
    "arguments first": (tags('{"arguments": {"a": 1}, "name": "f"}'), [CALL]),
    "long arguments first": (
        tags('{"arguments": {"a": "' + "x" * 500 + '"}, "name": "f"}'),
        [("f", '{"a": "' + "x" * 500 + '"}', {"a": "x" * 500})],
    ),
    "arguments first, and not ASCII": (
        tags('{"arguments": {"a": "é"}, "name": "f"}'),
        [("f", '{"a": "é"}', {"a": "é"})],
    ),
    "more keys": (tags('{"name": "f", "arguments": {"a": 1}, "id": "x"}'), [CALL]),
    "in a fence within the tags": (tags("\n```json\n" + F % '{"a": 1}' + "\n```\n"), [CALL]),
    "an end tag in a string": (
        tags(F % '{"a": "</tool_call>"}') + "!",
        [("f", '{"a": "</tool_call>"}', {"a": "</tool_call>"}), "!"],
    ),
    "a start tag in a string": (
        tags(F % '{"a": "<tool_call>"}'),
        [("f", '{"a": "<tool_call>"}', {"a": "<tool_call>"})],
    ),
    "a string that is not closed": (
        tags('{"name": "f", "arguments": {"a": "x}}') + f' then "this" {WHOLE}.',
        [("f", '{"a": "x}}"]', None), ' then "this" ', CALL, "."],
    ),
    "two strings that are not closed": (
        tags('{"name": "f", "arguments": {"a": "x}') * 2 + "end",
        [("f", '{"a": "x}"]', None)] * 2 + ["end"],
    ),
    "not closed but whole": (START + F % '{"a": 1}', [CALL]),
    "not closed and cut": (
        START + '{"name": "f", "arguments": {"a": "x',
        [("f", '{"a": "x"]', None)],
    ),
    "cut behind a backslash": (
        START + '{"name": "f", "arguments": {"a": "x\\',
        [("f", '{"a": "x\\\\"]', None)],
    ),
    "cut in a list": (
        START + '{"name": "f", "arguments": {"a": [1',
        [("f", '{"a": [1}', None)],
    ),
    "cut before its name": (START + '{"na', [(None, '{"na"]', None)]),
    "the next tag ends a call": (
        START + F % '{"a": 1}' + START + '{"name": "f", "arguments": {"a": ' + WHOLE,
        [CALL, ("f", '{"a": ]', None), CALL],
    ),
    "a bracket too many": (tags(F % '{"a": 1}}'), [("f", '{"a": 1}}}', None)]),
    "a bracket too few": (
        tags('{"name": "f", "arguments": {"a": 1}'),
        [("f", '{"a": 1}}', None)],
    ),
    "no JSON": (tags("f(a=1)"), [(None, "f(a=1)", None)]),
    "no value": (tags(F % '{"a": }'), [("f", '{"a": }}', None)]),
    "no name": (tags('{"arguments": {}}'), [(None, '{"arguments": {}}}', None)]),
    "an empty name": (
        tags('{"name": "", "arguments": {}}'),
        [(None, '{"name": "", "arguments": {}}}', None)],
    ),
    "a name that is no JSON": (
        tags('{"name": "a\\x", "arguments": {}}'),
        [(None, '{"name": "a\\x", "arguments": {}}}', None)],
    ),
    "a name that is none": (tags('{"name": 1}'), [(None, '{"name": 1}}', None)]),
    "another word for arguments": (
        tags('{"name": "f", "parameters": {"a": 1}}'),
        [("f", '{"name": "f", "parameters": {"a": 1}}}', None)],
    ),
    "arguments that are a list": (
        tags(F % "[1]"),
        [("f", '{"name": "f", "arguments": [1]}}', None)],
    ),
    "the same key twice": (
        tags('{"name": "f", "arguments": {"a": 1}, "name": "g"}'),
        [("f", '{"a": 1}, "name": "g"}', None)],
    ),
    "a list of calls": (tags("[" + F % "{}" + "]"), [("f", "[" + F % "{}" + "]", None)]),
    "empty tags": (
        f"Use {START}{END} or {START} {END}.",
        [f"Use {START}{END} or {START} {END}."],
    ),
    "tags as inline code": (
        f"`{START}` ends with `{END}`",
        [f"`{START}` ends with `{END}`"],
    ),
    "a tag as inline code, and a call": (f"`{START}`: {WHOLE}", [f"`{START}`: ", CALL]),
    "a last tag that nothing like JSON follows": (
        f"the tag {START} is",
        [f"the tag {START} is"],
    ),
    "a tag that nothing follows": (f"the tag {START}", [f"the tag {START}"]),
    "a fence": (f"```\n{WHOLE}\n```\n{WHOLE}", [f"```\n{WHOLE}\n```\n", CALL]),
    "a fence with a language": (
        f"So:\n```json\n{WHOLE}\n```",
        [f"So:\n```json\n{WHOLE}\n```"],
    ),
    "a fence of tildes": (f"~~~~\n{WHOLE}\n~~~\n{WHOLE}", [f"~~~~\n{WHOLE}\n~~~\n{WHOLE}"]),
    "a longer end of a fence": (f"```\nx\n````\n{WHOLE}", ["```\nx\n````\n", CALL]),
    "a fence in a list and a quote": (
        f"- ```\n  {WHOLE}\n  ```\n> ```\n> {WHOLE}\n> ```\r\n{WHOLE}",
        [f"- ```\n  {WHOLE}\n  ```\n> ```\n> {WHOLE}\n> ```\r\n", CALL],
    ),
    "a fence that is never closed": (f"```\n{WHOLE}", [f"```\n{WHOLE}"]),
    "backticks that are no fence": (f"a ``` b\n```x``` {WHOLE}", ["a ``` b\n```x``` ", CALL]),
    "a fence after a call": (f"{WHOLE}\n```\n{WHOLE}", [CALL, f"\n```\n{WHOLE}"]),
}


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES)
def test_whatever_the_cut(text: str, expected: list[Any]) -> None:
    assert summed(scan([text])) == expected
    assert summed(scan(text)) == expected
    for at in range(len(text)):
        assert summed(scan([text[:at], text[at:]])) == expected


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES)
def test_no_lenient_reader_mends_an_invalid_call(text: str, expected: list[Any]) -> None:
    """LangChain reads what chunks add up to with this function."""
    for found in expected:
        if isinstance(found, tuple):
            try:
                args = parse_partial_json(found[1])
            except json.JSONDecodeError:
                args = None
            assert args == found[2] or not isinstance(args, dict)


@given(st.lists(st.text('ab<>\n`~ {}"\\/tool_ca', max_size=12)))
def test_text_without_a_tag_keeps_its_pieces(chunks: list[str]) -> None:
    """But for a `<` that ends a piece, and what follows it of a tag."""
    assume(START not in "".join(chunks))
    if any(START.startswith(chunk[at:]) for chunk in chunks for at in range(len(chunk))):
        assert "".join(map(str, scan(chunks))) == "".join(chunks)
    else:
        assert scan(chunks) == chunks


@given(st.data())
def test_any_cut_of_anything(data: st.DataObject) -> None:
    bits = [START, END, WHOLE, "```\n", "\n", "{", "}", '"', "\\", '"name": "f"', "x", "<"]
    text = "".join(data.draw(st.lists(st.sampled_from(bits), max_size=12)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    chunks = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert summed(scan(chunks)) == summed(scan([text]))


def test_only_what_may_begin_a_tag_is_held() -> None:
    scanner = CallScanner()
    assert list(scanner.feed("Hello <to")) == ["Hello "]
    assert list(scanner.feed("ol>")) == ["<tool>"]
    assert list(scanner.feed("<")) == []
    assert list(scanner.feed("")) == []
    assert list(scanner.feed("b")) == ["<b"]
    assert list(scanner.feed("")) == [""]
    assert list(scanner.feed("\n```\n<")) == ["\n```\n<"]  # no tag begins in a fence


def test_arguments_pass_as_they_come() -> None:
    scanner = CallScanner()
    parts = [
        [(part.text, part.is_first, part.is_last) for part in scanner.feed(chunk)]
        for chunk in (START + '{"name": "f", ', '"arguments": {"a', '": "x', '"}', "}", END)
    ]
    assert parts == [
        [],
        [('{"a', True, False)],
        [('": "x', False, False)],
        [('"', False, False)],
        [],
        [("}", False, True)],
    ]


def test_what_is_held_goes_when_something_else_comes() -> None:
    scanner = CallScanner()
    assert list(scanner.feed("a <tool")) == ["a "]
    assert list(scanner.release()) == ["<tool"]
    assert list(scanner.feed("_call>")) == ["_call>"]
    assert list(scanner.feed(START + "{")) == []
    assert list(scanner.release()) == []  # a call goes on behind a server's tool
