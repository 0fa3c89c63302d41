"""The contract's example, on every path."""

from __future__ import annotations

import asyncio
from functools import reduce
from operator import add
from typing import Any

import pytest
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.messages import AIMessageChunk, messages_from_dict, messages_to_dict
from langchain_core.output_parsers import StrOutputParser

from integration_tests.conftest import Make
from integration_tests.wire import Wait, WireServer, chunk, head, stream
from langchain_thinnest.emulator import ThinnestEmulator
from unit_tests.contract import BLOCKS, EVENTS, TEXT, USAGE, as_printed, as_sse, without_ids


def test_example(make: Make, way: Any) -> None:
    answer = way(make(), "What is machine learning?")
    assert answer.content == answer.text == TEXT
    assert without_ids(answer.content_blocks) == BLOCKS
    assert answer.tool_calls == answer.invalid_tool_calls == []
    assert answer.usage_metadata == USAGE
    assert answer.response_metadata == {
        "model_provider": "thinnest",
        "model_name": "ag_example",
        "finish_reason": "stop",
    }


def test_example_as_v1_content(make: Make, way: Any) -> None:
    answer = way(make(output_version="v1"), "hi")
    assert without_ids(answer.content) == BLOCKS
    assert answer.content_blocks == answer.content
    assert answer.text == TEXT
    assert answer.usage_metadata == USAGE
    assert answer.response_metadata["output_version"] == "v1"


def test_v1_content_by_the_environment(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_OUTPUT_VERSION", "v1")
    assert without_ids(make().invoke("hi").content) == BLOCKS


def test_events_as_the_page_prints_them(wired: Make, wire: WireServer, any_way: Any) -> None:
    wire.answer(stream(as_printed(*EVENTS)))
    answer = any_way(wired(), "hi")
    assert without_ids(answer.content_blocks) == BLOCKS
    assert answer.usage_metadata == USAGE


async def test_one_chunk_for_one_event(make: Make) -> None:
    chunks = list(make().stream("hi"))
    texts = [event.get("content", "") for event in EVENTS]
    assert [piece.content for piece in chunks] == texts
    assert [piece.content async for piece in make().astream("hi")] == texts
    assert [piece.content_blocks for piece in chunks if piece.content] == [
        [{"type": "text", "text": text}] for text in texts if text
    ]
    assert [block["type"] for piece in chunks[3:5] for block in piece.content_blocks] == [
        "server_tool_call",
        "server_tool_result",
    ]
    assert [piece.chunk_position for piece in chunks] == [None] * 6 + ["last"]
    assert [piece.usage_metadata for piece in chunks] == [None] * 6 + [USAGE]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_chunk_comes_the_moment_its_line_does(
    wired: Make, wire: WireServer, is_async: bool
) -> None:
    """The server sends the next event only once the one before was seen here."""
    import threading

    seen = [threading.Event() for _ in EVENTS]
    steps: list[Any] = [
        head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
    ]
    for event, is_seen in zip(EVENTS, seen, strict=True):
        steps += [chunk(as_printed(event) + b"\n"), Wait(is_seen)]
    wire.answer([*steps, b"0\r\n\r\n"])

    async def run() -> int:
        count = 0
        async for _ in wired().astream("hi"):
            seen[count].set()
            count += 1
        return count

    if is_async:
        assert asyncio.run(run()) == len(EVENTS)
    else:
        for at, _ in enumerate(wired().stream("hi")):
            seen[at].set()
        assert at + 1 == len(EVENTS)


def test_odd_characters_arrive_unchanged(wired: Make, wire: WireServer, any_way: Any) -> None:
    text = "a\u2028b\x85c\vd\fe\U0001f600f\r\n\x00"
    body = as_sse({"type": "text", "content": text}, {"type": "done"})
    wire.answer(stream(*(body[at : at + 1] for at in range(len(body)))))
    assert any_way(wired(), "hi").text == text


def test_an_answer_without_text(wired: Make, wire: WireServer, any_way: Any) -> None:
    wire.answer(stream(as_sse({"type": "done", "usage": USAGE})))
    answer = any_way(wired(), "hi")
    assert (answer.text, answer.usage_metadata) == ("", USAGE)


def test_an_answer_of_tools_only(wired: Make, wire: WireServer, way: Any) -> None:
    calls = [{"type": "tool_call", "name": "a", "args": {}}] * 2
    results = [{"type": "tool_result", "name": "a", "result": n} for n in range(2)]
    wire.answer(stream(as_sse(*calls, *results, {"type": "done"})))
    for version in (None, "v1"):
        blocks = way(wired(output_version=version), "hi").content_blocks
        assert [block["type"] for block in blocks] == [
            *["server_tool_call"] * 2,
            *["server_tool_result"] * 2,
        ]
        assert [b["tool_call_id"] for b in blocks[2:]] == [b["id"] for b in blocks[:2]]


def test_the_answer_goes_through_storage(make: Make) -> None:
    for answer in (make().invoke("hi"), reduce(add, make().stream("hi"))):
        (copy,) = messages_from_dict(messages_to_dict([answer]))
        assert copy.content_blocks == answer.content_blocks


def test_what_headers_say_of_the_rate_limit(wired: Make, wire: WireServer, way: Any) -> None:
    headers = {"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "59"}
    wire.answer(stream(as_sse(*EVENTS), headers=headers))
    metadata = way(wired(), "hi").response_metadata
    assert metadata["rate_limit"] == {"limit": 60, "remaining": 59}


def test_the_usage_callback_counts(make: Make, way: Any) -> None:
    with get_usage_metadata_callback() as usage:
        way(make(), "hi")
        way(make(), "hi")
    assert usage.usage_metadata == {
        "ag_example": {key: 2 * count for key, count in USAGE.items()}
    }


def test_batches_keep_their_order(make: Make) -> None:
    questions = [f"question {number}" for number in range(20)]
    expected = [f"0: {question}" for question in questions]
    model = make("ag_echo")
    assert [answer.text for answer in model.batch(questions)] == expected
    answers = asyncio.run(model.abatch(questions))
    assert [answer.text for answer in answers] == expected


def test_a_model_for_one_call(emulator: ThinnestEmulator, make: Make, any_way: Any) -> None:
    for name in ("model", "agent_id"):
        answer = any_way(make(), "hi", **{name: "ag_echo"})
        assert answer.text == "0: hi"
        assert answer.response_metadata["model_name"] == "ag_echo"
    assert emulator.requests[-1] == {"agent_id": "ag_echo", "message": "hi"}


def test_streaming_switched_off_and_on(make: Make) -> None:
    assert len(list(make(streaming=False).stream("hi"))) == 1
    assert len(list(make(disable_streaming=True).stream("hi"))) == 1
    tokens: list[Any] = []

    from langchain_core.callbacks import BaseCallbackHandler

    class Tokens(BaseCallbackHandler):
        def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
            tokens.append(token)

    answer = make(streaming=True).invoke("hi", {"callbacks": [Tokens()]})
    assert "".join(tokens) == answer.text == TEXT


async def test_in_an_lcel_pipeline(make: Make) -> None:
    chain = make() | StrOutputParser()
    assert [text for text in chain.stream("hi") if text] == [
        event["content"] for event in EVENTS if "content" in event
    ]
    assert "".join([text async for text in chain.astream("hi")]) == TEXT


async def test_astream_uses_no_thread(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a thread was asked for")

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "run_in_executor", refuse)
    chunks = [piece async for piece in make().astream("hi")]
    assert all(isinstance(piece, AIMessageChunk) for piece in chunks)
    assert (await make().ainvoke("hi")).text == TEXT
