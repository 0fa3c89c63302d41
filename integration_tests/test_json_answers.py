"""Answers in JSON, in every way to call a model: every view works as from a stream."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.messages import messages_from_dict, messages_to_dict
from langchain_core.output_parsers import StrOutputParser

from integration_tests import ways
from integration_tests.conftest import KEY, Make
from integration_tests.wire import WireServer, refusal, stream
from langchain_thinnest import (
    ThinnestGenerationError,
    ThinnestProtocolError,
    expand_server_tools,
)
from unit_tests.contract import BLOCKS, EVENTS, TEXT, USAGE, as_printed, without_ids

TOOLS = [{"name": "web_search", "args": {"query": "ML applications 2026"}, "result": "..."}]
ANSWER = {"response": TEXT, "session_id": "s1", "usage": USAGE, "tool_calls": TOOLS}
JSON_BLOCKS = [*BLOCKS[1:3], {"type": "text", "text": TEXT}]
ENDPOINTS = ["/chat/stream", "/chat", "/v1/agents/{agent_id}/chat"]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_whatever_the_endpoint(
    wired: Make, wire: WireServer, any_way: Any, endpoint: str
) -> None:
    wire.answer(refusal(200, ANSWER, {"X-RateLimit-Limit": "60"}))
    answer = any_way(wired(endpoint=endpoint), "hi")
    assert answer.text == TEXT
    if any_way not in ways.V3_WAYS:
        assert answer.content == TEXT
    assert without_ids(answer.content_blocks) == JSON_BLOCKS
    assert answer.tool_calls == answer.invalid_tool_calls == []
    assert answer.usage_metadata == USAGE
    metadata = {k: v for k, v in answer.response_metadata.items() if k != "output_version"}
    assert metadata == {
        "model_provider": "thinnest",
        "model_name": "ag_1",
        "finish_reason": "stop",
        "session_id": "s1",
        "rate_limit": {"limit": 60},
    }
    assert len(wire.requests) == 1


def test_as_v1_content(wired: Make, wire: WireServer, way: Any) -> None:
    wire.answer(refusal(200, ANSWER))
    answer = way(wired(output_version="v1"), "hi")
    assert without_ids(answer.content) == JSON_BLOCKS
    assert answer.content_blocks == answer.content
    assert (answer.text, answer.usage_metadata) == (TEXT, USAGE)


async def test_one_chunk_of_text_then_the_end(wired: Make, wire: WireServer) -> None:
    wire.answer(refusal(200, ANSWER))
    chunks = list(wired().stream("hi"))
    for chunks_ in (chunks, [piece async for piece in wired().astream("hi")]):
        assert [piece.content for piece in chunks_] == ["", "", TEXT, ""]
        assert [piece.chunk_position for piece in chunks_] == [None, None, None, "last"]
        assert [piece.usage_metadata for piece in chunks_] == [None, None, None, USAGE]


def test_the_transcript_has_the_tools_before_the_text(
    wired: Make, wire: WireServer, any_way: Any
) -> None:
    tools = [*TOOLS, {"name": "send", "args": {}}]
    wire.answer(refusal(200, {**ANSWER, "tool_calls": tools}))
    first, result, second, unknown, last = expand_server_tools(any_way(wired(), "hi"))
    assert (first.tool_calls[0]["name"], result.content) == ("web_search", "...")
    assert (second.tool_calls[0]["name"], unknown.status) == ("send", "error")
    assert (last.text, last.usage_metadata) == (TEXT, USAGE)


def test_what_else_is_told_is_metadata_and_hides_nothing(
    wired: Make, wire: WireServer, any_way: Any
) -> None:
    ours = {"model_name": "gpt", "model_provider": "x", "finish_reason": "length"}
    ours |= {"rate_limit": 1, "server_session_id": "x", "output_version": "v9"}
    more = {"metadata": {"model": "gpt", "latency_ms": 1450}, "server_model_name": "g"}
    wire.answer(refusal(200, {**ANSWER, **ours, **more, "nothing": None}))
    metadata = any_way(wired(session_id="mine"), "hi").response_metadata
    assert metadata["model_name"] == "ag_1"
    assert metadata["model_provider"] == "thinnest"
    assert metadata["finish_reason"] == "stop"
    assert metadata.get("output_version") in (None, "v1")
    assert (metadata["session_id"], metadata["server_session_id"]) == ("mine", "s1")
    assert "rate_limit" not in metadata
    assert metadata["server_finish_reason"] == "length"
    assert metadata["server_rate_limit"] == 1
    assert metadata["server_output_version"] == "v9"
    assert metadata["metadata"] == more["metadata"]
    names = {metadata["server_model_name"], metadata["server_server_model_name"]}
    assert names == {"g", "gpt"}
    assert "nothing" not in metadata


def test_a_conversation_goes_on_in_its_session(
    wired: Make, wire: WireServer, any_way: Any
) -> None:
    wire.answer(refusal(200, ANSWER))
    first = any_way(wired(), "one")
    (stored,) = messages_from_dict(messages_to_dict([first]))
    any_way(wired(session_id="s1"), [("human", "one"), stored, ("human", "two")])
    assert wire.requests[1].json["message"] == "two"


def test_stop_sequences(wired: Make, wire: WireServer, any_way: Any) -> None:
    wire.answer(refusal(200, ANSWER))
    answer = any_way(wired(), "hi", stop=[" of artificial"])
    assert answer.text == "Machine learning is a subset"
    assert answer.usage_metadata is None
    assert answer.response_metadata["finish_reason"] == "stop_sequence"
    assert answer.response_metadata["session_id"] == "s1"
    assert len(answer.additional_kwargs["server_tools"]) == 2


def test_the_total_alone(wired: Make, wire: WireServer, any_way: Any) -> None:
    wire.answer(refusal(200, {"response": TEXT, "tokens_used": 145}))
    with get_usage_metadata_callback() as counted:
        answer = any_way(wired(), "hi")
    assert answer.usage_metadata["total_tokens"] == 145
    assert "tokens_used" not in answer.response_metadata
    if not any_way.__name__.startswith("a") and "async" not in any_way.__name__:
        assert counted.usage_metadata["ag_1"]["total_tokens"] == 145


def test_a_parser_behind_it(wired: Make, wire: WireServer) -> None:
    wire.answer(refusal(200, ANSWER))
    chain = wired() | StrOutputParser()
    assert "".join(chain.stream("hi")) == chain.invoke("hi") == TEXT


def test_a_failure_has_its_reason_and_hides_the_key(
    wired: Make, wire: WireServer, any_way: Any
) -> None:
    for body in (
        {"success": False, "error": f"no, {KEY} may not"},
        {"detail": f"no, {KEY} may not"},
        {"data": {"error": {"message": f"no, {KEY} may not"}}, "status": 200, "key": KEY},
    ):
        wire.answer(refusal(200, body))
        with pytest.raises(ThinnestGenerationError, match=r"no, .* may not") as caught:
            any_way(wired(), "hi")
        assert caught.value.detail == "no, ********** may not"
        assert KEY not in str(vars(caught.value)) + repr(caught.value)
        assert not caught.value.is_retryable
    wire.answer(refusal(200, {"key": KEY}))
    with pytest.raises(ThinnestProtocolError, match=r"\*{10}"):
        any_way(wired(), "hi")
    assert len(wire.requests) == 4


def test_a_key_that_the_server_tells_back_is_no_metadata(
    wired: Make, wire: WireServer, any_way: Any
) -> None:
    request = {"headers": [f"Bearer {KEY}"], KEY: 1}
    wire.answer(refusal(200, {"response": TEXT, "request": request}))
    answer = any_way(wired(), "hi")
    assert answer.response_metadata["request"] == {
        "headers": ["Bearer **********"],
        "**********": 1,
    }


def test_what_is_too_large_is_not_read_on(wired: Make, wire: WireServer, any_way: Any) -> None:
    from integration_tests.wire import Repeat, chunk, head

    begin = head(200, {"Content-Type": "application/json", "Transfer-Encoding": "chunked"})
    wire.answer([begin + chunk(b'{"response": "'), Repeat(chunk(b"x" * 100), 0.0)])
    with pytest.raises(ThinnestProtocolError, match="max_event_bytes"):
        any_way(wired(max_event_bytes=5000), "hi")


# --- connections ---


@pytest.mark.parametrize(
    "script",
    [refusal(200, ANSWER), stream(as_printed(*EVENTS))],
    ids=["JSON", "stream without a last line end"],
)
@pytest.mark.parametrize("is_async", [False, True])
def test_an_answer_that_ends_with_its_body_costs_no_wait(
    wired: Make, wire: WireServer, script: Any, is_async: bool
) -> None:
    """Nothing follows it that could be read: 20 calls, each of which once waited for 0.5 s."""
    wire.answer(script)
    model = wired()

    async def run() -> None:
        for _ in range(20):
            assert (await model.ainvoke("hi")).text == TEXT

    began = time.monotonic()
    if is_async:
        asyncio.run(run())
    else:
        for _ in range(20):
            assert model.invoke("hi").text == TEXT
    assert time.monotonic() - began < 5
    assert wire.connections == 1


@pytest.mark.parametrize("is_async", [False, True])
def test_over_clients_of_the_callers(wired: Make, wire: WireServer, is_async: bool) -> None:
    import httpx

    wire.answer(refusal(200, ANSWER))

    async def run() -> list[str]:
        async with httpx.AsyncClient(trust_env=False) as client:
            model = wired(http_async_client=client)
            return [(await model.ainvoke("hi")).text for _ in range(3)]

    if is_async:
        assert asyncio.run(run()) == [TEXT] * 3
    else:
        with httpx.Client(trust_env=False) as client:
            model = wired(http_client=client)
            assert [ways.invoke(model, "hi").text for _ in range(3)] == [TEXT] * 3
    assert wire.connections == 1
