"""What goes out: the body, headers, sessions, metadata; and what does not: the key."""

from __future__ import annotations

import asyncio
import json
import logging
from importlib.metadata import version
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.runnables import ConfigurableField, RunnableLambda

from integration_tests.conftest import KEY, Make
from integration_tests.transports import GIVEN, TRANSPORT
from integration_tests.wire import Watch, WireServer, chunk, head, stream
from langchain_thinnest import ChatThinnest
from langchain_thinnest.emulator import ThinnestEmulator
from unit_tests.contract import EVENTS, TEXT, as_sse

WHOLE = stream(as_sse(*EVENTS))


def test_the_request(wired: Make, wire: WireServer, any_way: Any) -> None:
    wire.answer(WHOLE)
    text = "  Grüße,\r\n\u2028\tWelt \U0001f600 \\u0041 "
    any_way(wired(default_headers={"X-Team": "blue", "accept": "text/html"}), text)
    (request,) = wire.requests
    assert request.line == "POST /chat/stream HTTP/1.1"
    assert request.json == {"agent_id": "ag_1", "message": text}
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept"] == "text/event-stream"
    assert (
        request.headers["user-agent"] == f"langchain-thinnest/{version('langchain-thinnest')}"
    )
    assert request.headers["x-team"] == "blue"


def test_the_body_has_all_that_is_set(wired: Make, wire: WireServer, any_way: Any) -> None:
    wire.answer(WHOLE)
    any_way(wired(session_id="s1", request_metadata={"page": "/"}), "hi")
    assert wire.requests[0].json == {
        "agent_id": "ag_1",
        "message": "hi",
        "session_id": "s1",
        "metadata": {"page": "/"},
    }


def test_a_base_url_with_a_path(wired: Make, wire: WireServer) -> None:
    wire.answer(WHOLE)
    wired(base_url=f"{wire.base_url}/proxy/").invoke("hi")
    assert wire.requests[0].line == "POST /proxy/chat/stream HTTP/1.1"


# --- sessions ---


def test_a_session_is_named_by_argument_config_or_field(
    emulator: ThinnestEmulator, make: Make, any_way: Any
) -> None:
    config = {"configurable": {"session_id": "config", "thread_id": "thread"}}
    for kwargs, given, fields, sent in [
        ({"session_id": "arg"}, config, {"session_id": "field"}, "arg"),
        ({}, config, {"session_id": "field"}, "config"),
        ({}, None, {"session_id": "field"}, "field"),
        ({}, config, {"session_key": "thread_id"}, "thread"),
        ({}, {"configurable": {"thread_id": "thread"}}, {}, None),
        ({"session_id": None}, None, {}, None),
        ({"session_id": 7}, None, {}, "7"),
    ]:
        answer = any_way(make("ag_echo", **fields), "hi", given, **kwargs)
        assert emulator.requests[-1].get("session_id") == sent
        assert answer.response_metadata.get("session_id") == sent


def test_metadata_is_given_by_argument_config_or_field(
    emulator: ThinnestEmulator, make: Make, any_way: Any
) -> None:
    config = {"configurable": {"request_metadata": {"from": "config"}}}
    for kwargs, given, fields, sent in [
        ({"request_metadata": {"a": 1}}, config, {"request_metadata": {"f": 1}}, {"a": 1}),
        ({}, config, {"request_metadata": {"f": 1}}, {"from": "config"}),
        ({}, None, {"request_metadata": {"f": 1}}, {"f": 1}),
        ({}, None, {}, None),
    ]:
        any_way(make("ag_echo", **fields), "hi", given, **kwargs)
        assert emulator.requests[-1].get("metadata") == sent


def test_the_session_of_the_surrounding_run_counts(
    emulator: ThinnestEmulator, make: Make
) -> None:
    model = make("ag_echo")
    outer = RunnableLambda(model.invoke)
    outer.invoke("hi", {"configurable": {"session_id": "outer"}})
    assert emulator.requests[-1]["session_id"] == "outer"
    generated = RunnableLambda(lambda text: model.generate([[HumanMessage(text)]]))
    generated.invoke("hi", {"configurable": {"session_id": "outer"}})
    assert emulator.requests[-1]["session_id"] == "outer"


def test_a_conversation_in_a_session(
    emulator: ThinnestEmulator, make: Make, any_way: Any
) -> None:
    model = make("ag_echo", session_id="s1")
    history: list[Any] = [SystemMessage("Be brief."), HumanMessage("one")]
    history.append(any_way(model, history))
    history.append(HumanMessage("two"))
    answer = any_way(model, history)
    sent = [request["message"] for request in emulator.requests]
    assert sent == ["System: Be brief.\n\nUser: one", "two"]
    assert answer.text == "1: two"


def test_a_conversation_without_a_session(
    emulator: ThinnestEmulator, make: Make, any_way: Any
) -> None:
    history = [HumanMessage("one"), AIMessage("1"), HumanMessage("two")]
    any_way(make("ag_echo"), history)
    assert emulator.requests[-1]["message"] == "User: one\n\nAssistant: 1\n\nUser: two"


def test_a_session_that_the_server_names(wired: Make, wire: WireServer, any_way: Any) -> None:
    wire.answer(stream(as_sse({"type": "done", "session_id": "theirs"})))
    metadata = any_way(wired(), "hi").response_metadata
    assert metadata["session_id"] == "theirs"
    assert "server_session_id" not in metadata
    metadata = any_way(wired(session_id="ours"), "hi").response_metadata
    assert (metadata["session_id"], metadata["server_session_id"]) == ("ours", "theirs")


# --- stop sequences ---


def test_text_ends_at_a_stop_sequence(wired: Make, wire: WireServer, any_way: Any) -> None:
    import threading

    closed = threading.Event()
    begin = head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
    for fields, kwargs in [({"stop": ["artificial"]}, {}), ({}, {"stop": ["artificial"]})]:
        closed.clear()
        wire.answer([begin, chunk(as_sse(*EVENTS[:2])), Watch(closed)])
        answer = any_way(wired(**fields), "hi", **kwargs)
        assert answer.text == "Machine learning is a subset of "
        assert answer.response_metadata["finish_reason"] == "stop_sequence"
        assert answer.usage_metadata is None
        assert closed.wait(5)  # the server need not go on
    assert "stop" not in wire.requests[0].json


def test_a_stop_sequence_that_does_not_come(make: Make, any_way: Any) -> None:
    answer = any_way(make(), "hi", stop=["nowhere", "programmed.!"])
    assert answer.text == TEXT
    assert answer.response_metadata["finish_reason"] == "stop"


# --- the key ---


def test_the_key_is_in_no_log_and_no_trace(
    make: Make, any_way: Any, caplog: pytest.LogCaptureFixture
) -> None:
    from langchain_core.callbacks import BaseCallbackHandler

    seen: list[Any] = []

    class Everything(BaseCallbackHandler):
        def __getattribute__(self, name: str) -> Any:
            if name.startswith("on_"):
                return lambda *args, **kwargs: seen.append((name, args, kwargs))
            return super().__getattribute__(name)

    caplog.set_level(logging.DEBUG)
    any_way(make(), "hi", {"callbacks": [Everything()]})
    with pytest.raises(Exception, match="agent"):
        any_way(make("ag_unknown"), "hi", {"callbacks": [Everything()]})
    assert len(seen) > 3
    assert len(caplog.records) > (3 if TRANSPORT == "httpx" else 1)
    assert KEY not in repr(seen) + caplog.text


def test_the_key_is_no_local_below_a_call(make: Make, any_way: Any) -> None:
    """Crash reporters print the locals of every frame; ours begin below the call."""
    with pytest.raises(Exception, match="agent") as caught:
        any_way(make("ag_unknown"), "hi")
    for entry in caught.traceback:
        if "langchain_thinnest" in str(entry.path):
            assert KEY not in repr(entry.locals)


# --- the LLM cache ---


@pytest.fixture
def cache() -> Any:
    set_llm_cache(InMemoryCache())
    yield
    set_llm_cache(None)


def test_the_cache_answers_the_same_question(
    cache: Any, emulator: ThinnestEmulator, make: Make
) -> None:
    first = make().invoke("hi")
    again = make().invoke("hi")
    assert len(emulator.requests) == 1
    assert again.content_blocks == first.content_blocks
    assert asyncio.run(make().ainvoke("hi")).text == first.text
    assert len(emulator.requests) == 1


def test_the_cache_tells_requests_apart(
    cache: Any, emulator: ThinnestEmulator, make: Make
) -> None:
    model = make("ag_echo")
    model.invoke("hi")
    model.invoke("hi", agent_id="ag_example")
    model.invoke("hi", request_metadata={"page": "/"})
    model.invoke("hi", {"configurable": {"request_metadata": {"page": "/other"}}})
    model.invoke("hi", stop=["x"])
    make("ag_echo", request_metadata={"page": "/third"}).invoke("hi")
    model.invoke("ho")
    assert len(emulator.requests) == 7
    model.invoke("hi", stop=["x"])
    assert len(emulator.requests) == 7


@pytest.mark.parametrize("is_async", [False, True])
def test_sessions_neither_read_nor_write_the_cache(
    cache: Any, emulator: ThinnestEmulator, make: Make, is_async: bool
) -> None:
    def ask(*args: Any, **kwargs: Any) -> str:
        model = make("ag_echo", **kwargs.pop("fields", {}))
        if is_async:
            return asyncio.run(model.ainvoke(*args, **kwargs)).text
        return model.invoke(*args, **kwargs).text

    assert ask("hi") == "0: hi"  # cached
    for turn in range(2):
        assert ask("hi", session_id="ada") == f"{turn}: hi"
        assert ask("hi", fields={"session_id": "bob"}) == f"{turn}: hi"
        assert ask("hi", {"configurable": {"session_id": "eve"}}) == f"{turn}: hi"
    assert len(emulator.requests) == 7
    assert ask("hi") == "0: hi"
    assert len(emulator.requests) == 7


# --- connections ---


def test_calls_in_a_row_use_one_connection(wired: Make, wire: WireServer) -> None:
    wire.answer(WHOLE)
    for _ in range(20):
        wired().invoke("hi")
        list(wired().stream("hi"))
    assert wire.connections == 1

    async def run() -> None:
        for _ in range(20):
            await wired().ainvoke("hi")
            _ = [piece async for piece in wired().astream("hi")]

    asyncio.run(run())
    assert wire.connections == 2


def test_configurable_fields_over_100_calls(wired: Make, wire: WireServer) -> None:
    wire.answer(WHOLE)
    model = wired().configurable_fields(agent_id=ConfigurableField("agent"))
    for number in range(100):
        config = {"configurable": {"agent": f"ag_{number}"}}
        assert len(list(model.stream("hi", config))) == len(EVENTS)
    assert wire.connections == 1
    assert wire.requests[-1].json["agent_id"] == "ag_99"


def test_a_callers_own_clients_are_used_and_not_closed(wired: Make, wire: WireServer) -> None:
    wire.answer(WHOLE)
    mark = {"X-Mine": "yes"}
    with GIVEN.Client(headers=mark, follow_redirects=True) as client:
        for _ in range(3):
            wired(http_client=client).invoke("hi")
        assert not client.is_closed

    async def run() -> None:
        async with GIVEN.AsyncClient(headers=mark) as async_client:
            for _ in range(3):
                await wired(http_async_client=async_client).ainvoke("hi")
            assert not async_client.is_closed

    asyncio.run(run())
    assert [request.headers["x-mine"] for request in wire.requests] == ["yes"] * 6
    assert wire.connections == 2


def test_a_dead_proxy_in_the_environment_does_not_stand_before_loopback(
    emulator: ThinnestEmulator, make: Make, way: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.lower(), "http://127.0.0.1:9")
    port = emulator.base_url.rpartition(":")[2]
    assert way(make(base_url=f"http://localhost:{port}"), "hi").text == TEXT


def test_a_consumer_that_stops_closes_the_connection(wired: Make, wire: WireServer) -> None:
    import threading

    begin = head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
    closed = threading.Event()
    wire.answer([begin, chunk(as_sse(EVENTS[0])), Watch(closed)])
    for _ in wired().stream("hi"):
        break
    assert closed.wait(5)

    async def run() -> None:
        chunks = wired().astream("hi")
        async for _ in chunks:
            break
        await chunks.aclose()
        assert await asyncio.to_thread(closed.wait, 5)

    closed.clear()
    asyncio.run(run())

    async def run_without_closing() -> None:
        async for _ in wired().astream("hi"):
            break
        assert await asyncio.to_thread(closed.wait, 5)

    closed.clear()
    asyncio.run(run_without_closing())


def test_the_config_is_no_part_of_what_a_trace_calls_the_models_arguments(make: Make) -> None:
    from langchain_core.callbacks import BaseCallbackHandler

    seen: list[Any] = []

    class Starts(BaseCallbackHandler):
        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            seen.append(kwargs["invocation_params"])

    config = {"callbacks": [Starts()], "configurable": {"session_id": "s"}}
    make().invoke("hi", config)
    list(make().stream("hi", config))
    for params in seen:
        assert params["session_id"] == "s"
        assert not any(name.startswith("_thinnest") for name in params)
        json.dumps(params)


def test_one_model_serves_many_event_loops(make: Make) -> None:
    model = make()
    for _ in range(3):
        assert asyncio.run(model.ainvoke("hi")).text == TEXT


def test_models_made_of_the_same_fields_are_equal(make: Make) -> None:
    assert isinstance(make(), ChatThinnest)
    assert make() == make()
