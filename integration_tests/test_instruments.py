"""What watches or replaces httpx sees the package's calls: mocks, recorders, tracing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx
import vcr
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from integration_tests.conftest import Make
from integration_tests.test_lifetime import WHOLE
from integration_tests.wire import WireServer
from langchain_thinnest import ChatThinnest, ThinnestTimeoutError
from unit_tests.contract import EVENTS, TEXT, as_sse

URL = "https://api.thinnest.ai/chat/stream"
ANSWER = {"content": as_sse(*EVENTS), "headers": {"Content-Type": "text/event-stream"}}
MODEL = {"agent_id": "ag_1", "api_key": "ak_mocked", "base_url": "https://api.thinnest.ai"}


def test_respx_sees_the_calls(way: Any) -> None:
    with respx.mock:
        route = respx.post(URL).mock(return_value=httpx.Response(200, **ANSWER))
        assert way(ChatThinnest(**MODEL), "hi").text == TEXT
        assert way(ChatThinnest(**MODEL), "hi").text == TEXT
        assert route.call_count == 2
        route.mock(side_effect=httpx.ReadTimeout)
        with pytest.raises(ThinnestTimeoutError, match="not known") as caught:
            way(ChatThinnest(**MODEL), "hi")
        assert not caught.value.is_retryable


def test_pytest_httpx_sees_the_calls(httpx_mock: Any, way: Any) -> None:
    httpx_mock.add_response(url=URL, **ANSWER)
    assert way(ChatThinnest(**MODEL), "hi").text == TEXT
    assert len(httpx_mock.get_requests()) == 1


def test_vcrpy_records_and_plays_the_calls(
    wired: Make, wire: WireServer, way: Any, tmp_path: Path
) -> None:
    wire.answer(WHOLE)
    for _ in range(2):
        with vcr.use_cassette(str(tmp_path / "answer.yaml")):
            assert way(wired(), "hi").text == TEXT
    assert len(wire.requests) == 1


def test_opentelemetry_traces_the_calls(wired: Make, wire: WireServer) -> None:
    wire.answer(WHOLE)
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    instrumentor = HTTPXClientInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    try:
        assert wired().invoke("hi").text == TEXT
        assert asyncio.run(wired().ainvoke("hi")).text == TEXT
    finally:
        instrumentor.uninstrument()
    assert [span.name for span in spans.get_finished_spans()] == ["POST", "POST"]
