"""The decoder: bytes → payloads, whatever the cut."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from httpx_sse._decoders import SSEDecoder as OracleDecoder
from hypothesis import given
from hypothesis import strategies as st

from langchain_thinnest import ThinnestProtocolError
from langchain_thinnest._answer.sse import SSEDecoder
from unit_tests.contract import EVENTS, as_printed, as_sse, lines

A, B = {"a": 1}, {"b": 2}


def decode(pieces: Iterable[bytes], max_event_bytes: int = 1 << 20) -> list[dict[str, Any]]:
    """Decode both ways, which must agree: with `only_event` tried on every read, or never."""
    pieces = list(pieces)
    quick = _decode(pieces, max_event_bytes, try_only=True)
    slow = _decode(pieces, max_event_bytes, try_only=False)
    if isinstance(quick, ThinnestProtocolError) and isinstance(slow, ThinnestProtocolError):
        assert str(quick) == str(slow)
        raise quick
    assert quick == slow
    return slow


def _decode(pieces: list[bytes], max_event_bytes: int, *, try_only: bool) -> Any:
    decoder = SSEDecoder(max_event_bytes)
    payloads: list[dict[str, Any]] = []
    try:
        for piece in pieces:
            only = decoder.only_event(piece) if try_only else None
            if only is None:
                payloads += decoder.feed(piece)
            else:
                payloads.append(only)
    except ThinnestProtocolError as error:
        return error
    last = decoder.flush()
    return payloads if last is None else [*payloads, last]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
@pytest.mark.parametrize("write", [as_printed, as_sse])
def test_example_decodes_alike_cut_at_every_byte(write: Any, end: bytes) -> None:
    body = write(*EVENTS).replace(b"\n", end)
    for at in range(len(body) + 1):
        assert decode([body[:at], body[at:]]) == EVENTS
    assert decode(body[at : at + 1] for at in range(len(body))) == EVENTS


def test_an_event_comes_with_its_line_end_and_waits_for_no_blank_line() -> None:
    decoder = SSEDecoder(1000)
    line = lines(EVENTS[0])[0]
    assert list(decoder.feed(line)) == []
    assert list(decoder.feed(b"\r")) == [EVENTS[0]]
    assert list(decoder.feed(b"\n" + line + b"\n")) == [EVENTS[0]]


def test_no_other_character_ends_a_line() -> None:
    event = {"type": "text", "content": "a\u2028b\u2029c\x85d\v\f\x1c\U0001f600e"}
    # JSON allows these unescaped, apart from the control characters below U+0020.
    raw = '{"type": "text", "content": "a\u2028b\u2029c\x85d\\u000b\\u000c\\u001c\U0001f600e"}'
    body = b"data: " + raw.encode() + b"\n"
    for at in range(len(body)):
        assert decode([body[:at], body[at:]]) == [event]


def test_what_carries_nothing_is_passed_over() -> None:
    body = (
        b"\xef\xbb\xbf: a comment\nevent: message\nid: 7\nretry: 10\nunknown: x\nnocolon\n"
        b"data\ndata:\ndata: \n"
        b'data:{"type": "a"}\n\n\n: ping\ndata: [DONE]\n\ndata: {"type": "b"}\ndatax: {}\n'
    )
    for at in range(len(body)):
        assert decode([body[:at], body[at:]]) == [{"type": "a"}, {"type": "b"}]


@pytest.mark.parametrize("lines_end", [b"\r\n", b"\r", b"\n"])
def test_a_line_end_cut_in_two_is_one(lines_end: bytes) -> None:
    """A CRLF that is cut between the two is no blank line, which would end the event."""
    body = lines_end.join([b'data: {"a":', b"data", b"data: 1", b"data: }", b""])
    assert decode(body[at : at + 1] for at in range(len(body))) == [{"a": 1}]


def test_a_line_feed_belongs_to_the_carriage_return_right_before_it_and_to_no_other() -> None:
    assert decode([b"data: {}\r", b'data: {"a": 1}', b"\n", b'data: {"b": 2}\n']) == [
        {},
        {"a": 1},
        {"b": 2},
    ]


def test_a_byte_order_mark_counts_at_the_beginning_only() -> None:
    assert decode([b'data: {"a": 1}\n', b'\xef\xbb\xbfdata: {"b": 2}\n']) == [{"a": 1}]


@pytest.mark.parametrize("at", range(4))
def test_a_byte_order_mark_before_a_last_line_without_its_end(at: int) -> None:
    body = b'\xef\xbb\xbfdata: {"a": 1}'
    assert decode([body[:at], body[at:]]) == [{"a": 1}]


def test_an_event_of_just_the_limit_is_taken() -> None:
    line = b'data: {"a": 1}'
    for at in range(len(line)):
        assert decode([line[:at], line[at:] + b"\n"], len(line)) == [{"a": 1}]
        with pytest.raises(ThinnestProtocolError):
            decode([line[:at], line[at:] + b"\n"], len(line) - 1)


def test_data_lines_are_joined_until_they_are_whole() -> None:
    event = {"type": "tool_call", "name": "a}{", "args": {"deep": {"list": [{}, '\\"{']}}}
    pretty = json.dumps(event, indent=1).split("\n")
    body = b"".join(b"data: " + line.encode() + b"\n" for line in pretty)
    assert decode([body]) == [event]
    assert decode([body + body]) == [event, event]
    nested = b'data: {"args":\ndata: {"whole": "by itself"}\ndata: }\n'
    assert decode([nested]) == [{"args": {"whole": "by itself"}}]


@pytest.mark.parametrize(
    "body",
    [
        b"data: hello\n",
        b"data: 42\n",
        b"data: null\n",
        b'data: ["type", "text"]\n',
        b'data: {"type": "text"}}\n',
        b'data: {"type": "te\xff"}\n',
        b'data: {"type":\n\n',
        b'data: {"type": "text\ndata: "}\n\n',
        b"data: [DONE\n",
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(ThinnestProtocolError, match="not a JSON object"):
        decode([body])


@pytest.mark.parametrize(
    ("body", "payloads"),
    [
        (b': xdata: {"a": 1}\n', []),
        (b'xxxxx{"a": 1}\n\n', []),
        (b'data: {"a": 1}\n\xef\xbb\xbfdata: {"b": 2}\n', [A]),
        (b'data: {"a":\ndata: {"b": 1}\ndata: }\n', [{"a": {"b": 1}}]),
        (b'data: {"a": 1}\rdata: {"b": 2}\n\ndata: {"c":\ndata: 3}\n', [A, B, {"c": 3}]),
    ],
)
def test_what_is_an_event_does_not_depend_on_the_cut(
    body: bytes, payloads: list[dict[str, Any]]
) -> None:
    for at in range(len(body) + 1):
        for then in range(at, len(body) + 1):
            assert decode([body[:at], body[at:then], body[then:]]) == payloads


@pytest.mark.parametrize(
    "body", [b'data: {"a": 1} x\n\n', b'data: {"a":\r"b"}\n\n', b"data: 4\n\n"]
)
def test_what_is_no_event_does_not_depend_on_the_cut(body: bytes) -> None:
    for at in range(len(body) + 1):
        with pytest.raises(ThinnestProtocolError, match="not a JSON object"):
            decode([body[:at], body[at:]])


@pytest.mark.parametrize("rest", [b'data: {"type": "te', b"data: 4", b"da", b'data: {"a":\n'])
def test_a_body_cut_inside_an_event_gives_what_came_before(rest: bytes) -> None:
    assert decode([as_sse(EVENTS[0]) + rest]) == [EVENTS[0]]


def test_events_before_a_bad_one_in_the_same_read_are_not_lost() -> None:
    decoder = SSEDecoder(1000)
    payloads = decoder.feed(as_sse(*EVENTS[:2]) + b"data: bad\n")
    assert [next(payloads), next(payloads)] == EVENTS[:2]
    with pytest.raises(ThinnestProtocolError):
        next(payloads)


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize(
    "body",
    [
        b"data: " + b'{"type": "text", "content": "' + b"x" * 5000 + b'"}\n',
        b"x" * 5000,
        b"data: {" + b"\ndata: " * 5000,
        b'data: {"a":\n' + b'data: "b",\n' * 5000,
    ],
)
def test_an_event_over_the_limit_is_refused(body: bytes, size: int) -> None:
    with pytest.raises(ThinnestProtocolError, match="max_event_bytes"):
        decode((body[at : at + size] for at in range(0, len(body), size)), 1000)


def test_the_limit_is_for_one_event_not_for_the_stream() -> None:
    event = {"type": "text", "content": "x" * 900}
    body = as_sse(*[event] * 50)
    assert decode([body], 1000) == [event] * 50
    assert decode((body[at : at + 10] for at in range(0, len(body), 10)), 1000) == [event] * 50


@pytest.mark.parametrize(
    ("escaped", "text"),
    [
        (rb"\ud83d", "\ufffd"),
        (rb"\uDE00", "\ufffd"),
        (rb"\ud83d\ude00", "\U0001f600"),
        (rb"\ude00\ud83d", "\ufffd\ufffd"),
        (rb"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (rb"\ud83d\ude00 \ud83d", "\U0001f600 \ufffd"),
        (rb"\\\ud83d", "\\\ufffd"),
        (rb"\\ud83d \ud83d", "\\ud83d \ufffd"),
        (rb"\"\ud83d\"", '"\ufffd"'),
        (rb"\ud7ff\ue000\ud800", "\ud7ff\ue000\ufffd"),
    ],
)
def test_half_a_surrogate_pair_is_replaced(escaped: bytes, text: str) -> None:
    line = b'data: {"content": "%s", "%s": 1}\n' % (escaped, escaped)
    assert decode([line]) == [{"content": text, text: 1}]
    split = b'data: {"content":\ndata: "%s"\ndata: }\n' % escaped
    assert decode([split]) == [{"content": text}]


@pytest.mark.parametrize(
    "line",
    [
        rb'data: {"content": "\ud83d}',
        rb'data: {"content": "\ud83"}',
        rb'data: {"content": "\ud83d"} \ud83d',
        rb'data: {"content": "\ud83d", "deep": ' + b"[" * 900 + b"]" * 900 + b"}",
    ],
)
def test_half_a_surrogate_pair_excuses_nothing_else(line: bytes) -> None:
    with pytest.raises(ThinnestProtocolError, match="not a JSON object"):
        decode([line + b"\n\n"])


@pytest.mark.parametrize("size", [1, 5, 7, 100_000])
@pytest.mark.parametrize(
    ("body", "largest"),
    [
        (b'data: {"a": "%s"}' % (b"x" * 80) + b"\n", 95),
        (b": %s\n" % (b"x" * 80) + b'data: {"a": 1}\n', 82),
        (b'data: {"a":\n: %s\ndata: 1}\n' % (b"x" * 80), 88),
        # What follows a held event in the same read is no part of it.
        (b'data: {"a":\ndata: 1}\ndata: {"a": "%s"}\n' % (b"x" * 50), 65),
    ],
)
def test_what_is_too_large_does_not_depend_on_the_cut(
    body: bytes, largest: int, size: int
) -> None:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    assert decode(pieces, largest)
    with pytest.raises(ThinnestProtocolError, match="max_event_bytes"):
        decode(pieces, largest - 1)


def test_the_limit_holds_however_many_events_of_many_lines_came_before() -> None:
    decoder = SSEDecoder(100)
    for _ in range(50):  # each read ends an event of two lines, and begins the next
        list(decoder.feed(b'data: {"a":\ndata: 1}\n: ' + b"x" * 60))
        list(decoder.feed(b"\n"))
    with pytest.raises(ThinnestProtocolError, match="max_event_bytes"):
        list(decoder.feed(b"x" * 101))


def test_work_is_linear_in_the_bytes() -> None:
    """Counted, not timed: what the decoder hands to the JSON parser, and scans."""
    import langchain_thinnest._answer.sse as module

    parsed = 0
    real = module.from_json

    def counting(data: bytes) -> Any:
        nonlocal parsed
        parsed += len(data)
        return real(data)

    body = b'data: {"a": [\n' + b'data: {"b": 1},\n' * 2000 + b"data: 0]}\n"
    module.from_json = counting
    try:
        (event,) = decode(body[at : at + 1] for at in range(len(body)))
    finally:
        module.from_json = real
    assert len(event["a"]) == 2001
    assert parsed < 2 * len(body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(st.text(), json_values, max_size=4)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[dict[str, Any]], bytes]:
    """Objects, and a stream of them in any of the ways to write one."""
    objects = draw(st.lists(json_objects, max_size=6))
    parts = [b"\xef\xbb\xbf"] if draw(st.booleans()) else []
    for value in objects:
        end = draw(st.sampled_from([b"\n", b"\r", b"\r\n"]))
        indent = draw(st.sampled_from([None, None, 1]))
        text = json.dumps(value, indent=indent, ensure_ascii=draw(st.booleans()))
        for line in text.split("\n"):
            prefix = draw(st.sampled_from([b"data: ", b"data:"]))
            parts.append(prefix + line.encode() + end)
        parts.append(draw(st.sampled_from([b"", end, b": ping" + end, b"event: x" + end])))
    return objects, b"".join(parts)


def cut(body: bytes, points: list[int]) -> list[bytes]:
    edges = [0, *sorted(point % (len(body) + 1) for point in points), len(body)]
    return [body[a:b] for a, b in pairwise(edges)]


@given(streams(), st.lists(st.integers(0), max_size=12))
def test_any_stream_decodes_alike_however_it_is_cut(
    stream: tuple[list[dict[str, Any]], bytes], points: list[int]
) -> None:
    objects, body = stream
    assert decode(cut(body, points)) == objects


@given(st.binary(max_size=300), st.lists(st.integers(0), max_size=8))
def test_any_bytes_decode_alike_however_they_are_cut(body: bytes, points: list[int]) -> None:
    def outcome(pieces: list[bytes]) -> Any:
        try:
            return decode(pieces)
        except ThinnestProtocolError:
            return ThinnestProtocolError

    assert outcome(cut(body, points)) == outcome([body])


@given(st.lists(json_objects, max_size=6), st.sampled_from(["\n", "\r", "\r\n"]))
def test_agrees_with_httpx_sse_where_a_blank_line_ends_each_event(
    objects: list[dict[str, Any]], end: str
) -> None:
    text = "".join(f"event: e{end}data: {json.dumps(value)}{end}{end}" for value in objects)
    oracle = OracleDecoder()
    events = [event for line in text.splitlines() if (event := oracle.decode(line))]
    assert decode([text.encode()]) == [json.loads(event.data) for event in events] == objects
