"""The server's tools as LangChain tool runs, on every path; and the v3 events.

Over both kinds of answers: an event stream, and JSON, which says of tools only that they ran
before it was written.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.messages import ToolMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_tests.utils.stream_lifecycle import assert_valid_event_stream

from integration_tests.conftest import KEY, Make, example_agent
from integration_tests.ways import V3_WAYS, in_each_at_once
from integration_tests.wire import (
    END,
    Close,
    Reset,
    Wait,
    WireServer,
    chunk,
    head,
    refusal,
    stream,
)
from langchain_thinnest import ChatThinnest, ThinnestError, ThinnestInterruptedError
from langchain_thinnest.emulator import ThinnestEmulator
from unit_tests.contract import BLOCKS, EVENTS, OFFSET, TEXT, as_sse, without_ids

BEGIN = head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})


class Recorder:
    """What a handler saw, in order, as short words; and the runs' places in the tree."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.parents: dict[Any, Any] = {}
        self.tools: list[dict[str, Any]] = []
        self.times: dict[str, float] = {}

    def take(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        run_id = kwargs.get("run_id")
        if name.endswith("_start"):
            self.parents[run_id] = kwargs.get("parent_run_id")
        if name == "on_chat_model_start":
            self.model_run = run_id
            self.seen.append("start")
        elif name == "on_llm_new_token":
            text = kwargs["chunk"].message.text
            self.seen += [text] if text else []
        elif name in ("on_llm_end", "on_llm_error"):
            self.seen.append(name.removeprefix("on_llm_"))
        elif name.startswith("on_tool"):
            self.seen.append(name.removeprefix("on_"))
            self.times[name] = time.monotonic()
            self.tools.append({"args": args, **kwargs})


class SyncRecorder(Recorder, BaseCallbackHandler):
    run_inline = True

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.take("on_chat_model_start", args, kwargs)

    def on_llm_new_token(self, *args: Any, **kwargs: Any) -> None:
        self.take("on_llm_new_token", args, kwargs)

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self.take("on_llm_end", args, kwargs)

    def on_llm_error(self, *args: Any, **kwargs: Any) -> None:
        self.take("on_llm_error", args, kwargs)

    def on_tool_start(self, *args: Any, **kwargs: Any) -> None:
        self.take("on_tool_start", args, kwargs)

    def on_tool_end(self, *args: Any, **kwargs: Any) -> None:
        self.take("on_tool_end", args, kwargs)

    def on_tool_error(self, *args: Any, **kwargs: Any) -> None:
        self.take("on_tool_error", args, kwargs)


class AsyncRecorder(Recorder, AsyncCallbackHandler):
    async def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.take("on_chat_model_start", args, kwargs)

    async def on_llm_new_token(self, *args: Any, **kwargs: Any) -> None:
        self.take("on_llm_new_token", args, kwargs)

    async def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self.take("on_llm_end", args, kwargs)

    async def on_llm_error(self, *args: Any, **kwargs: Any) -> None:
        self.take("on_llm_error", args, kwargs)

    async def on_tool_start(self, *args: Any, **kwargs: Any) -> None:
        self.take("on_tool_start", args, kwargs)

    async def on_tool_end(self, *args: Any, **kwargs: Any) -> None:
        self.take("on_tool_end", args, kwargs)

    async def on_tool_error(self, *args: Any, **kwargs: Any) -> None:
        self.take("on_tool_error", args, kwargs)


TEXTS = [event["content"] for event in EVENTS if "content" in event]
WITHOUT_TOKENS = ["start", "tool_start", "tool_end", "end"]
WITH_TOKENS = {
    "stream": ["start", *TEXTS[:3], "tool_start", "tool_end", TEXTS[3], "end"],
    "json": ["start", "tool_start", "tool_end", TEXT, "end"],
}
# Where the tools stand: in a stream where they ran, in JSON before the text.
BLOCKS_OF = {
    "stream": BLOCKS,
    "json": [*BLOCKS[1:3], {"type": "text", "text": TEXT}],
}


@pytest.fixture(params=["stream", "json"])
def kind(request: Any) -> str:
    """How the server answers."""
    return request.param


@pytest.fixture
def make(kind: str) -> Iterator[Make]:
    """Makes a model that asks the emulator, which answers in this kind."""
    agents = {"ag_example": example_agent}
    with ThinnestEmulator(agents, api_keys=[KEY], siblings_stream=False) as emulator:
        given = {"agent_id": "ag_example", "api_key": KEY, "base_url": emulator.base_url}
        if kind == "json":
            given["endpoint"] = "/v1/agents/{agent_id}/chat"
        yield lambda **fields: ChatThinnest(**{**given, **fields})


def answer_in(kind: str, *events: dict[str, Any]) -> list[Any]:
    """A whole answer; in JSON, with the text and the tools of these events."""
    if kind == "stream":
        return stream(as_sse(*events))
    answer: dict[str, Any] = {"response": "", "tool_calls": [], **events[-1]}
    for event in events:
        if event["type"] == "text":
            answer["response"] += event["content"]
        elif event["type"] == "tool_call":
            answer["tool_calls"].append({"name": event["name"], "args": event["args"]})
        elif event["type"] == "tool_result" and answer["tool_calls"]:
            answer["tool_calls"][-1]["result"] = event["result"]
    return refusal(200, answer)


@pytest.fixture(params=[SyncRecorder, AsyncRecorder])
def recorder(request: Any) -> Any:
    return request.param()


def streams(way: Any) -> bool:
    """Whether the framework streams tokens to callbacks on this way."""
    return way.__name__ in ("stream", "astream", "chain_stream", "chain_astream")


def test_example(make: Make, kind: str, any_way: Any, recorder: Any) -> None:
    any_way(make(), "hi", {"callbacks": [recorder]})
    assert recorder.seen == (WITH_TOKENS[kind] if streams(any_way) else WITHOUT_TOKENS)
    start, end = recorder.tools
    assert start["args"][0]["name"] == start["name"] == "web_search"
    assert start["inputs"] == {"query": "ML applications 2026"}
    assert start["parent_run_id"] == recorder.model_run
    assert end["run_id"] == start["run_id"]
    (output,) = end["args"]
    assert isinstance(output, ToolMessage)
    assert (output.tool_call_id, output.content) == (start["tool_call_id"], "...")


@pytest.mark.parametrize("place", ["model", "enclosing"])
def test_wherever_the_handler_is_given(make: Make, any_way: Any, place: str) -> None:
    recorder = SyncRecorder()
    if place == "model":
        any_way(make(callbacks=[recorder]), "hi")
    else:
        model = make()
        runnable = RunnableLambda(lambda text: any_way(model, text))
        if asyncio.iscoroutinefunction(any_way) or any_way.__name__[0] == "a":
            pytest.skip("this way opens a loop of its own, outside of a run")
        runnable.invoke("hi", {"callbacks": [recorder]})
    assert [name for name in recorder.seen if name in WITHOUT_TOKENS] == WITHOUT_TOKENS
    assert recorder.tools[0]["parent_run_id"] == recorder.model_run


async def test_an_enclosing_async_run(make: Make) -> None:
    model = make()

    async def ask(text: str, config: Any) -> str:
        return (await model.ainvoke(text, config)).text

    async def ask_streaming(text: str, config: Any) -> str:
        return "".join([piece.text async for piece in model.astream(text, config)])

    for function in (ask, ask_streaming):
        recorder = AsyncRecorder()
        await RunnableLambda(function).ainvoke("hi", {"callbacks": [recorder]})
        assert [name for name in recorder.seen if name in WITHOUT_TOKENS] == WITHOUT_TOKENS


async def test_astream_events_v2(make: Make) -> None:
    chain = ChatPromptTemplate([("human", "{question}")]) | make()
    for runnable, given in ((make(), "hi"), (chain, {"question": "hi"})):
        events = [event async for event in runnable.astream_events(given, version="v2")]
        kinds = [event["event"] for event in events]
        for kind in ("on_tool_start", "on_tool_end", "on_chat_model_end"):
            assert kinds.count(kind) == 1
        start = events[kinds.index("on_tool_start")]
        end = events[kinds.index("on_tool_end")]
        assert start["name"] == "web_search"
        assert start["data"]["input"] == {"query": "ML applications 2026"}
        assert end["data"]["output"].content == "..."
        model_start = events[kinds.index("on_chat_model_start")]
        assert model_start["run_id"] in start["parent_ids"]
        texts = [
            event["data"]["chunk"].text
            for event in events
            if event["event"] == "on_chat_model_stream"
        ]
        assert "".join(texts) == TEXT


def test_a_batch_keeps_runs_apart(make: Make) -> None:
    recorder = SyncRecorder()
    make().batch(["a", "b", "c"], {"callbacks": [recorder]})
    asyncio.run(make().abatch(["a", "b", "c"], {"callbacks": [recorder]}))
    starts = [tool for tool in recorder.tools if "inputs" in tool]
    assert len({tool["parent_run_id"] for tool in starts}) == 6
    assert len({tool["tool_call_id"] for tool in starts}) == 6
    assert recorder.seen.count("tool_end") == 6


def test_names_tags_and_metadata_of_the_config_reach_tool_runs(make: Make, way: Any) -> None:
    recorder = SyncRecorder()
    way(make(), "hi", {"callbacks": [recorder], "tags": ["t"], "metadata": {"user": "ada"}})
    start = recorder.tools[0]
    assert "t" in start["tags"]
    assert start["metadata"]["user"] == "ada"
    assert not any(key.startswith("ls_") for key in start["metadata"])


def test_tools_in_flight_together(wired: Make, wire: WireServer, any_way: Any) -> None:
    def tool(kind: str, name: str, **fields: Any) -> dict[str, Any]:
        return {"type": f"tool_{kind}", "name": name, **fields}

    wire.answer(
        stream(
            as_sse(
                tool("call", "a", args={"n": 1}),
                tool("call", "a", args={"n": 2}),
                tool("call", "b", args={"n": 3}),
                tool("result", "b", result="B"),
                tool("result", "nobody", result="?"),
                tool("result", "a", result="A1"),
                {"type": "done"},
            )
        )
    )
    recorder = SyncRecorder()
    any_way(wired(), "hi", {"callbacks": [recorder]})
    assert [name for name in recorder.seen if "tool" in name] == [
        *["tool_start"] * 3,
        *["tool_end"] * 2,
        "tool_error",
    ]
    inputs = {tool["run_id"]: tool["inputs"]["n"] for tool in recorder.tools[:3]}
    ends = [(inputs[tool["run_id"]], tool["args"][0]) for tool in recorder.tools[3:]]
    assert [(n, getattr(out, "content", None)) for n, out in ends] == [
        (3, "B"),
        (1, "A1"),
        (2, None),
    ]
    assert "without a result" in str(ends[2][1])
    assert recorder.seen[-1] == "end"


def test_json_tools_with_and_without_results(
    wired: Make, wire: WireServer, any_way: Any
) -> None:
    entries = [
        {"name": "a", "args": {"n": 1}},
        {"name": "a", "arguments": '{"n": 2}', "result": "A2"},
        {"name": "b", "result": {"left": 7}},
    ]
    wire.answer(refusal(200, {"response": "So.", "tool_calls": entries}))
    recorder = SyncRecorder()
    answer = any_way(wired(), "hi", {"callbacks": [recorder]})
    assert [name for name in recorder.seen if name != "So."] == [
        *["start", "tool_start", "tool_start", "tool_end", "tool_start", "tool_end"],
        *["tool_error", "end"],
    ]
    starts = [tool for tool in recorder.tools if "inputs" in tool]
    assert [(tool["name"], tool["inputs"]) for tool in starts] == [
        ("a", {"n": 1}),
        ("a", {"n": 2}),
        ("b", {}),
    ]
    ends = {tool["run_id"]: tool["args"][0] for tool in recorder.tools if "inputs" not in tool}
    unknown, second, third = (ends[tool["run_id"]] for tool in starts)
    assert "without a result" in str(unknown)
    assert (second.content, third.content) == ("A2", '{"left": 7}')
    assert third.artifact == {"left": 7}
    assert answer.tool_calls == []


@pytest.mark.parametrize("after", [[Close()], [Wait(5.0)]])
def test_json_that_is_not_whole_runs_no_tool(
    wired: Make, wire: WireServer, after: list[Any]
) -> None:
    whole = answer_in("json", *EVENTS)[0]
    wire.answer([whole[:-9], *after])

    def check(way: Any) -> None:
        recorder = SyncRecorder()
        with pytest.raises(ThinnestError):
            way(wired(timeout=0.5), "hi", {"callbacks": [recorder]})
        assert recorder.seen == ["start", "error"]

    in_each_at_once(check)


@pytest.mark.parametrize(
    ("after", "error"),
    [
        ([Close()], ThinnestInterruptedError),
        ([Reset()], ThinnestInterruptedError),
        ([END], ThinnestInterruptedError),
        ([Wait(5.0)], ThinnestInterruptedError),
        ([chunk(as_sse({"type": "error", "message": "x"}))], ThinnestError),
        ([chunk(b"data: bad\n")], ThinnestError),
    ],
)
def test_a_stream_that_dies_ends_open_runs_before_the_model(
    wired: Make, wire: WireServer, after: list[Any], error: type[Exception]
) -> None:
    wire.answer([BEGIN, chunk(as_sse(*EVENTS[:4])), *after])

    def check(way: Any) -> None:
        recorder = SyncRecorder()
        with pytest.raises(error) as caught:
            way(wired(timeout=0.7), "hi", {"callbacks": [recorder]})
        seen = [name for name in recorder.seen if name not in TEXTS]
        assert seen == ["start", "tool_start", "tool_error", "error"]
        assert recorder.tools[1]["args"][0] is caught.value

    in_each_at_once(check)


def test_a_stop_sequence_ends_open_runs(
    wired: Make, wire: WireServer, any_way: Any, kind: str
) -> None:
    events = [EVENTS[3], EVENTS[0], EVENTS[6]]
    wire.answer(answer_in(kind, *events))
    recorder = SyncRecorder()
    any_way(wired(), "hi", {"callbacks": [recorder]}, stop=["learning"])
    seen = [name for name in recorder.seen if name != "Machine "]
    assert seen == ["start", "tool_start", "tool_error", "end"]
    assert "stop sequence" in str(recorder.tools[1]["args"][0])


@pytest.mark.parametrize("is_async", [False, True])
def test_a_consumer_that_stops_ends_open_runs(
    wired: Make, wire: WireServer, is_async: bool
) -> None:
    wire.answer([BEGIN, chunk(as_sse(EVENTS[3])), Wait(2.0)])
    recorder = SyncRecorder()
    config = {"callbacks": [recorder]}

    async def run() -> None:
        chunks = wired().astream("hi", config)
        await anext(chunks)
        await chunks.aclose()

    if is_async:
        asyncio.run(run())
    else:
        chunks = wired().stream("hi", config)
        next(chunks)
        chunks.close()
    assert recorder.seen == ["start", "tool_start", "tool_error", "error"]


async def test_cancellation_ends_open_runs(wired: Make, wire: WireServer) -> None:
    wire.answer([BEGIN, chunk(as_sse(EVENTS[3])), Wait(2.0)])
    called = asyncio.Event()

    class Seen(AsyncRecorder):
        async def on_tool_start(self, *args: Any, **kwargs: Any) -> None:
            await super().on_tool_start(*args, **kwargs)
            called.set()

    recorder = Seen()
    task = asyncio.create_task(wired().ainvoke("hi", {"callbacks": [recorder]}))
    await called.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    # The framework tells no handler that a model run was cancelled.
    assert recorder.seen == ["start", "tool_start", "tool_error"]


def test_a_tool_run_starts_while_the_tool_runs(
    wired: Make, wire: WireServer, any_way: Any
) -> None:
    """The server gives the result only once the handler has seen the call."""
    called = threading.Event()

    class Seen(SyncRecorder):
        def on_tool_start(self, *args: Any, **kwargs: Any) -> None:
            super().on_tool_start(*args, **kwargs)
            called.set()

    rest = [chunk(as_sse(*EVENTS[4:])), END]
    wire.answer([BEGIN, chunk(as_sse(*EVENTS[:4])), Wait(called), *rest])
    recorder = Seen()
    began = time.monotonic()
    any_way(wired(), "hi", {"callbacks": [recorder]})
    assert called.is_set()
    assert time.monotonic() - began < 5  # it waits 10 s for a call that nobody sees


def test_a_cached_answer_runs_no_tool(make: Make, way: Any) -> None:
    from langchain_core.caches import InMemoryCache

    recorder = SyncRecorder()
    model = make(cache=InMemoryCache())
    model.invoke("hi")
    if streams(way):
        pytest.skip("the framework does not cache streams")
    way(model, "hi", {"callbacks": [recorder]})
    assert recorder.seen == ["start", "end"]


def test_a_handler_that_fails_does_no_harm(make: Make, way: Any) -> None:
    class Fails(BaseCallbackHandler):
        def on_tool_start(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("handler")

    assert way(make(), "hi", {"callbacks": [Fails()]}).text == TEXT


def test_context_variables_of_handlers_do_not_leak(make: Make) -> None:
    from contextvars import ContextVar

    variable: ContextVar[str] = ContextVar("variable", default="mine")

    class Sets(BaseCallbackHandler):
        run_inline = True

        def on_tool_start(self, *args: Any, **kwargs: Any) -> None:
            variable.set("theirs")

    async def run() -> None:
        async for _ in make().astream("hi", {"callbacks": [Sets()]}):
            assert variable.get() == "mine"

    for _ in make().stream("hi", {"callbacks": [Sets()]}):
        assert variable.get() == "mine"
    asyncio.run(run())


# --- v3 ---


def v3_events(model: Any, is_async: bool, given: str = "hi") -> list[Any]:
    async def run() -> list[Any]:
        return [event async for event in await model.astream_events(given, version="v3")]

    if is_async:
        return asyncio.run(run())
    return list(model.stream_events(given, version="v3"))


@pytest.mark.parametrize("is_async", [False, True])
def test_v3_blocks_open_and_close_in_their_place(
    make: Make, kind: str, is_async: bool
) -> None:
    events = v3_events(make(), is_async)
    assert_valid_event_stream(events)
    texts = {"stream": [3, None, None, 1], "json": [None, None, 1]}[kind]  # deltas of a block
    assert [(e["event"].removeprefix("content-block-"), e.get("index")) for e in events] == [
        ("message-start", None),
        *(
            (event, index)
            for index, deltas in enumerate(texts)
            for event in ["start", *["delta"] * (deltas or 0), "finish"]
        ),
        ("message-finish", None),
    ]
    finished = [e["content"] for e in events if e["event"] == "content-block-finish"]
    assert without_ids(finished) == BLOCKS_OF[kind]


SHAPES = [
    [],
    [EVENTS[0]],
    [{"type": "text", "content": ""}, EVENTS[0], {"type": "text", "content": ""}],
    [EVENTS[3]],
    [EVENTS[4]],
    [EVENTS[3], EVENTS[3], EVENTS[4], EVENTS[0], EVENTS[4]],
    EVENTS[:-1],
]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_v3_events_are_valid_whatever_comes(
    wired: Make, wire: WireServer, is_async: bool, shape: list[Any], kind: str
) -> None:
    wire.answer(answer_in(kind, *shape, EVENTS[-1]))
    assert_valid_event_stream(v3_events(wired(), is_async))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("way", V3_WAYS, ids=lambda way: way.__name__)
def test_v3_output_is_what_invoke_gives(
    wired: Make, wire: WireServer, way: Any, shape: list[Any], kind: str
) -> None:
    wire.answer(answer_in(kind, *shape, EVENTS[-1]))
    output, answer = way(wired(session_id="s"), "hi"), wired(session_id="s").invoke("hi")
    assert without_ids(output.content_blocks) == without_ids(answer.content_blocks)
    assert output.text == answer.text
    assert output.usage_metadata == answer.usage_metadata
    assert output.tool_calls == answer.tool_calls == []
    metadata = {k: v for k, v in output.response_metadata.items() if k != "output_version"}
    assert metadata == answer.response_metadata
    assert output.additional_kwargs.keys() == answer.additional_kwargs.keys()


@pytest.mark.parametrize("is_async", [False, True])
def test_v3_a_call_is_finished_while_the_tool_runs(
    wired: Make, wire: WireServer, is_async: bool
) -> None:
    called = threading.Event()
    wire.answer(
        [BEGIN, chunk(as_sse(*EVENTS[:4])), Wait(called), chunk(as_sse(*EVENTS[4:])), END]
    )

    def look(event: Any) -> None:
        block = event.get("content", {})
        if event["event"] == "content-block-finish" and block["type"] == "server_tool_call":
            called.set()

    async def run() -> None:
        async for event in await wired().astream_events("hi", version="v3"):
            look(event)

    began = time.monotonic()
    if is_async:
        asyncio.run(run())
    else:
        for event in wired().stream_events("hi", version="v3"):
            look(event)
    assert time.monotonic() - began < 5


def test_v3_text_projection(make: Make, kind: str) -> None:
    events = make().stream_events("hi", version="v3")
    assert list(events.text) == (TEXTS if kind == "stream" else [TEXT])
    assert events.output.text[:OFFSET] == TEXT[:OFFSET]
