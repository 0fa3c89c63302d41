"""Calls of local tools, as they are read from an answer's text."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from langchain_core.utils.json import parse_partial_json

from langchain_thinnest._answer.tool_calls import CallPart, CallScanner
from langchain_thinnest._names import CALL_END, CALL_START


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
    return CALL_START + body + CALL_END


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
    "not closed but whole": (CALL_START + F % '{"a": 1}', [CALL]),
    "not closed and cut": (
        CALL_START + '{"name": "f", "arguments": {"a": "x',
        [("f", '{"a": "x"]', None)],
    ),
    "cut behind a backslash": (
        CALL_START + '{"name": "f", "arguments": {"a": "x\\',
        [("f", '{"a": "x\\\\"]', None)],
    ),
    "cut in a list": (
        CALL_START + '{"name": "f", "arguments": {"a": [1',
        [("f", '{"a": [1}', None)],
    ),
    "cut before its name": (CALL_START + '{"na', [(None, '{"na"]', None)]),
    "the next tag ends a call": (
        CALL_START + F % '{"a": 1}' + CALL_START + '{"name": "f", "arguments": {"a": ' + WHOLE,
        [CALL, ("f", '{"a": ]', None), CALL],
    ),
    "a bracket too many": (tags(F % '{"a": 1}}'), [CALL]),
    "two brackets too many": (tags(F % '{"a": 1}}}'), [("f", '{"a": 1}}}}', None)]),
    "a bracket too few": (
        tags('{"name": "f", "arguments": {"a": 1}'),
        [CALL],
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
        [CALL],
    ),
    "arguments that are a list": (
        tags(F % "[1]"),
        [("f", '{"name": "f", "arguments": [1]}}', None)],
    ),
    "the same key twice": (
        tags('{"name": "f", "arguments": {"a": 1}, "name": "g"}'),
        [("f", '{"a": 1}, "name": "g"}', None)],
    ),
    "a list of calls": (tags("[" + F % '{"a": 1}' + "]"), [CALL]),
    "Python": (
        tags("{'name': 'f', 'arguments': {'a': True, 'b': None, 'c': 'it\\'s \"x\"'}}"),
        [
            (
                "f",
                '{"a": true, "b": null, "c": "it\'s \\"x\\""}',
                {"a": True, "b": None, "c": 'it\'s "x"'},
            )
        ],
    ),
    "Python behind a JSON head": (
        tags(F % '{"a": \'x\', "b": True}'),
        [("f", '{"a": "x", "b": true}', {"a": "x", "b": True})],
    ),
    "an end tag in a Python string": (
        tags("{'name': 'f', 'arguments': {'a': '</tool_call>'}}"),
        [("f", '{"a": "</tool_call>"}', {"a": "</tool_call>"})],
    ),
    "a comma behind the last argument": (tags(F % '{"a": 1,}'), [CALL]),
    "commas everywhere": (
        tags('{"name": "f", "arguments": {"a": [1, 2,], },}'),
        [("f", '{"a": [1, 2] }', {"a": [1, 2]})],
    ),
    "an unescaped quote": (
        tags(F % '{"a": "say "x" now"}'),
        [("f", '{"a": "say "x" now"}}', None)],
    ),
    "a cut argument in closed tags": (
        tags('{"name": "f", "arguments": {"a": 1'),
        [("f", '{"a": 1]', None)],
    ),
    "a bracket too few and no end": (
        CALL_START + '{"name": "f", "arguments": {"a": 1}',
        [("f", '{"a": 1}}', None)],
    ),
    "two objects": (
        tags(F % '{"a": 1}' + "\n" + F % '{"b": 2}'),
        [CALL, ("f", '{"b": 2}', {"b": 2})],
    ),
    "a list of two": (
        tags("[" + F % '{"a": 1}' + ", " + F % "{}" + "]"),
        [CALL, ("f", "{}", {})],
    ),
    "OpenAI's wrapper": (
        tags('{"type": "function", "function": ' + F % '{"a": 1}' + "}"),
        [CALL],
    ),
    "other words": (
        tags('{"tool": "f", "args": {"a": 1}}') + tags('{"name": "f", "input": {"a": 1}}'),
        [CALL, CALL],
    ),
    "two words for arguments": (
        tags('{"name": "f", "args": {"a": 1}, "input": {}}'),
        [("f", '{"name": "f", "args": {"a": 1}, "input": {}}}', None)],
    ),
    "a schema told back": (
        tags('{"name": "f", "parameters": {"type": "object", "properties": {}}}'),
        [("f", '{"name": "f", "parameters": {"type": "object", "properties": {}}}}', None)],
    ),
    "Python in a string": (tags(F % "\"{'a': 1}\""), [CALL]),
    "attributes": ('<tool_call id="1">' + F % '{"a": 1}' + CALL_END, [CALL]),
    "Qwen's form": (
        tags('\n<function=f>\n<parameter=a>\nit\'s "x"\n</parameter>\n</function>\n') + "!",
        [("f", json.dumps({"a": 'it\'s "x"'}), {"a": 'it\'s "x"'}), "!"],
    ),
    "a code span": (f"Write `{WHOLE}` so", [f"Write `{WHOLE}` so"]),
    "a code span with more in it": (
        f"Write ``a {WHOLE} b`` so {WHOLE}",
        [f"Write ``a {WHOLE} b`` so ", CALL],
    ),
    "a backtick that nothing closes": (
        f"The ` key: {WHOLE} yes",
        ["The ` key: ", CALL, " yes"],
    ),
    "a backtick in an earlier paragraph": (
        f"The ` key\n\n{WHOLE} ` yes",
        ["The ` key\n\n", CALL, " ` yes"],
    ),
    "empty tags": (
        f"Use {CALL_START}{CALL_END} or {CALL_START} {CALL_END}.",
        [f"Use {CALL_START}{CALL_END} or {CALL_START} {CALL_END}."],
    ),
    "tags as inline code": (
        f"`{CALL_START}` ends with `{CALL_END}`",
        [f"`{CALL_START}` ends with `{CALL_END}`"],
    ),
    "a tag as inline code, and a call": (
        f"`{CALL_START}`: {WHOLE}",
        [f"`{CALL_START}`: ", CALL],
    ),
    "a last tag that nothing like JSON follows": (
        f"the tag {CALL_START} is",
        [f"the tag {CALL_START} is"],
    ),
    "a tag that nothing follows": (f"the tag {CALL_START}", [f"the tag {CALL_START}"]),
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


def bound(text: str, cut: bool = False) -> list[Any]:
    parameters = {"properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
    scanner = CallScanner({"get_weather": parameters})
    pieces = [piece for chunk in (text if cut else [text]) for piece in scanner.feed(chunk)]
    return [
        (item[0], item[2]) if isinstance(item, tuple) else item
        for item in summed([*pieces, *scanner.flush()])
    ]


PARIS = ("get_weather", {"city": "Paris"})
W = '{"name": "get_weather", "arguments": {"city": "Paris"}}'


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (tags(W.replace("get_", "functions.get_")), [PARIS]),
        (f'<tool_call name="get_weather">{{"city": "Paris"}}{CALL_END}', [PARIS]),
        (
            tags(
                "<function=get_weather><parameter=city>Paris</parameter>"
                "<parameter=days>3</parameter></function>"
            ),
            [("get_weather", {"city": "Paris", "days": 3})],
        ),
        (
            tags("<function=get_weather><parameter=days>three</parameter></function>"),
            [("get_weather", None)],
        ),
        (
            tags(W) + '\n<tool_response>{"content": "Sun"}</tool_response>It is ' + tags(W),
            [PARIS, "\n"],
        ),
        ("No <tool_response> yet " + tags(W), ["No <tool_response> yet ", PARIS]),
        (tags(W) + " `<tool_response>` no", [PARIS, " `<tool_response>` no"]),
        (tags(F % "{}") + "<tool_response>", [("f", {}), "<tool_response>"]),
    ],
)
def test_with_the_bound_tools_known(text: str, expected: list[Any], cut: bool) -> None:
    found = bound(text, cut)
    assert [
        ("get_weather", None) if isinstance(f, tuple) and f[1] is None else f for f in found
    ] == expected


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
    assume(CALL_START not in "".join(chunks))
    if any(CALL_START.startswith(chunk[at:]) for chunk in chunks for at in range(len(chunk))):
        assert "".join(map(str, scan(chunks))) == "".join(chunks)
    else:
        assert scan(chunks) == chunks


@given(st.data())
def test_any_cut_of_anything(data: st.DataObject) -> None:
    bits = [
        CALL_START,
        CALL_END,
        WHOLE,
        "```\n",
        "\n",
        "{",
        "}",
        '"',
        "\\",
        '"name": "f"',
        "x",
        "<",
    ]
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
        for chunk in (
            CALL_START + '{"name": "f", ',
            '"arguments": {"a',
            '": "x',
            '"}',
            "}",
            CALL_END,
        )
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
    assert list(scanner.feed(CALL_START + "{")) == []
    assert list(scanner.release()) == []  # a call goes on behind a server's tool
