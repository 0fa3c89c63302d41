"""The whole way from bytes to an answer, with whatever hypothesis comes up with.

`make test` looks a little, `make fuzz` long.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from langchain_thinnest import ThinnestInterruptedError, ThinnestStreamError
from langchain_thinnest._answer.block_events import BlockEvents
from langchain_thinnest._answer.message import Answer
from langchain_thinnest._answer.server_tools import expand_server_tools
from langchain_thinnest._answer.turn import Turn
from unit_tests.contract import fed, without_ids

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(["a", "b", ""])
ids = st.sampled_from([None, "1", "2", 3])
likely_events = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "content": st.text(max_size=12)}),
    st.fixed_dictionaries(
        {"type": st.just("tool_call"), "name": names},
        optional={"args": st.dictionaries(st.text(max_size=3), values, max_size=2), "id": ids},
    ),
    st.fixed_dictionaries(
        {"type": st.just("tool_result"), "name": names},
        optional={"result": values, "id": ids, "tool_call_id": ids},
    ),
    st.fixed_dictionaries({"type": st.just("done")}, optional={"usage": values}),
)
any_events = st.one_of(
    likely_events,
    likely_events,
    st.fixed_dictionaries({"type": st.sampled_from(["error", "text", "tool_call", "x"])}),
    st.dictionaries(st.sampled_from(["type", "content", "name", "args"]), values),
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A stream of events, with line ends of any kind, and now and then broken."""
    body = b""
    for event in draw(st.lists(any_events, max_size=8)):
        end = draw(st.sampled_from([b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n"]))
        indent = draw(st.sampled_from([None, None, None, 1]))
        text = json.dumps(event, indent=indent, ensure_ascii=draw(st.booleans()))
        for line in text.split("\n"):
            body += b"data: " + line.encode("utf-8", "replace") + end.rstrip(b"\n\r") + end[:2]
        body += draw(st.sampled_from([b"", b"\n", b": ping\n", b"data: [DONE]\n\n"]))
    at = draw(st.integers(0, len(body)))
    noise = draw(st.sampled_from([b"", b"", b"", b"\xff", b"\n", b"{", b'"', b"data: "]))
    return (
        body[:at]
        + noise
        + body[at : draw(st.integers(at, len(body)))]
        + (body[at:] if draw(st.booleans()) else b"")
    )


cuts = st.lists(st.integers(0, 2000), max_size=10)
stops = st.lists(st.text("ab<", min_size=1, max_size=3), max_size=2)


def outcome(body: bytes, points: list[int], stop: list[str]) -> tuple[Any, ...]:
    """What becomes of a body: the answer's blocks, and whether and how it failed."""
    turn = Turn(max_event_bytes=500, stop=stop)
    answer = Answer(turn, agent_id="a", session_id=None, as_blocks=False)
    edges = [0, *sorted(point % (len(body) + 1) for point in points), len(body)]
    texts: list[str] = []
    failure = None
    try:
        for data in [body[a:b] for a, b in pairwise(edges)]:
            if not turn.is_over:
                texts += [piece for piece in fed(turn, data) if isinstance(piece, str)]
        if not turn.is_over:
            reason = ThinnestInterruptedError("closed")
            texts += [piece for piece in fed(turn, reason) if isinstance(piece, str)]
    except ThinnestStreamError as error:
        failure = type(error).__name__
    assert failure or turn.is_over  # never neither whole nor an error
    message = answer.message()
    assert message.text == turn.text
    if not failure:
        assert "".join(texts) == turn.text
    expand_server_tools(message)
    return repr(without_ids(message.content_blocks)), failure, turn.usage


@given(bodies(), cuts, stops)
def test_the_outcome_is_one_whatever_the_cut(
    body: bytes, points: list[int], stop: list[str]
) -> None:
    whole, failure, usage = outcome(body, [], stop)
    cut, cut_failure, cut_usage = outcome(body, points, stop)
    assert (failure, usage) == (cut_failure, cut_usage)
    if not failure:
        assert whole == cut


@given(st.binary(max_size=400), cuts, stops)
def test_no_bytes_do_harm(body: bytes, points: list[int], stop: list[str]) -> None:
    assert outcome(body, points, stop)[1] == outcome(body, [], stop)[1]


@given(st.lists(likely_events, max_size=8))
def test_v3_events_add_up_to_the_message(events: list[dict[str, Any]]) -> None:
    from langchain_core.language_models.chat_model_stream import ChatModelStream
    from langchain_tests.utils.stream_lifecycle import assert_valid_event_stream

    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n" for event in events)
    turn = Turn(max_event_bytes=100_000)
    answer = Answer(turn, agent_id="a", session_id=None, as_blocks=False)
    made = BlockEvents(answer, "m1")
    pieces = [*fed(turn, body)]
    if not turn.is_over:
        pieces += fed(turn, b'data: {"type": "done"}\n')
    v3 = [event for piece in pieces for event in made.of(piece)]
    assert_valid_event_stream(v3)
    stream = ChatModelStream()
    for event in v3:
        stream.dispatch(event)
    output, message = stream.output_message, answer.message()
    assert output is not None
    assert repr(without_ids(output.content_blocks)) == repr(
        without_ids(message.content_blocks)
    )
    assert output.usage_metadata == message.usage_metadata
    assert output.id == "m1"
