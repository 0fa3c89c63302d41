"""The server's tools as LangChain tool runs, in every view; sync and async."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.messages import ToolMessage

from langchain_thinnest import ThinnestError
from unit_tests.answers import chunk, refusal, stream
from unit_tests.conftest import Make
from unit_tests.contract import EVENTS, TEXT, as_sse
from unit_tests.network import VIEWS, Clock, Network, Side, Wait

WHOLE = stream(*(as_sse(event) for event in EVENTS))


class Recorder:
    """What a handler saw, in order, as short words."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.tools: list[dict[str, Any]] = []
        self.model_run: Any = None

    def take(self, name: str, /, *args: Any, **kwargs: Any) -> None:
        if name == "chat_model_start":
            self.model_run = kwargs["run_id"]
        elif name.startswith("tool"):
            self.tools.append({"args": args, **kwargs})
        self.seen.append(name.replace("chat_model", "model").replace("llm", "model"))


class SyncRecorder(Recorder, BaseCallbackHandler):
    run_inline = True

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.take("chat_model_start", *args, **kwargs)

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self.take("llm_end", *args, **kwargs)

    def on_llm_error(self, *args: Any, **kwargs: Any) -> None:
        self.take("llm_error", *args, **kwargs)

    def on_tool_start(self, *args: Any, **kwargs: Any) -> None:
        self.take("tool_start", *args, **kwargs)

    def on_tool_end(self, *args: Any, **kwargs: Any) -> None:
        self.take("tool_end", *args, **kwargs)

    def on_tool_error(self, *args: Any, **kwargs: Any) -> None:
        self.take("tool_error", *args, **kwargs)


class AsyncRecorder(Recorder, AsyncCallbackHandler):
    """Takes a while over each end, as a tracer does."""

    async def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.take("chat_model_start", *args, **kwargs)

    async def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self.take("llm_end", *args, **kwargs)

    async def on_llm_error(self, *args: Any, **kwargs: Any) -> None:
        self.take("llm_error", *args, **kwargs)

    async def on_tool_start(self, *args: Any, **kwargs: Any) -> None:
        self.take("tool_start", *args, **kwargs)

    async def on_tool_end(self, *args: Any, **kwargs: Any) -> None:
        await asyncio.sleep(0.5)
        self.take("tool_end", *args, **kwargs)

    async def on_tool_error(self, *args: Any, **kwargs: Any) -> None:
        await asyncio.sleep(0.5)
        self.take("tool_error", *args, **kwargs)


@pytest.fixture(params=VIEWS)
def view(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(
    params=[(False, SyncRecorder), (True, SyncRecorder), (True, AsyncRecorder)],
    ids=["sync", "async-with-sync-handler", "async"],
)
def kinds(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def side(clock: Clock, kinds: Any) -> Iterator[Side]:
    side = Side(clock, is_async=kinds[0])
    yield side
    side.close_loop()


@pytest.fixture
def recorder(kinds: Any) -> Any:
    return kinds[1]()


def test_a_call_begins_a_run_and_its_result_ends_it(
    network: Network, side: Side, make: Make, view: str, recorder: Any
) -> None:
    network.answer(WHOLE)
    config = {"callbacks": [recorder], "tags": ["t"], "metadata": {"user": "ada"}}
    side.ask(view, make(), "hi", config)
    assert recorder.seen == ["model_start", "tool_start", "tool_end", "model_end"]
    start, end = recorder.tools
    assert start["args"][0]["name"] == start["name"] == "web_search"
    assert start["inputs"] == {"query": "ML applications 2026"}
    assert start["parent_run_id"] == recorder.model_run
    assert "t" in start["tags"]
    assert start["metadata"]["user"] == "ada"
    assert not any(key.startswith("ls_") for key in start["metadata"])
    assert end["run_id"] == start["run_id"]
    (output,) = end["args"]
    assert isinstance(output, ToolMessage)
    assert (output.tool_call_id, output.content) == (start["tool_call_id"], "...")


@pytest.mark.parametrize("place", ["model", "nowhere"])
def test_handlers_of_the_model_alone(
    network: Network, side: Side, make: Make, view: str, place: str
) -> None:
    network.answer(WHOLE)
    recorder = SyncRecorder()
    model = make(callbacks=[recorder] if place == "model" else None)
    assert side.ask(view, model, "hi").text == TEXT
    assert recorder.seen.count("tool_end") == (place == "model")


def tool(kind: str, name: str, **fields: Any) -> dict[str, Any]:
    return {"type": f"tool_{kind}", "name": name, **fields}


def test_tools_in_flight_together(
    network: Network, side: Side, make: Make, view: str, recorder: Any
) -> None:
    """Each is ended by its own result, or at the end; a result without a call begins none."""
    events = [
        tool("call", "a", args={"n": 1}),
        tool("call", "a", args={"n": 2}),
        tool("call", "b", args={"n": 3}),
        tool("result", "b", result={"left": 7}),
        tool("result", "nobody", result="?"),
        tool("result", "a", result="A1"),
        {"type": "done"},
    ]
    network.answer(stream(as_sse(*events)))
    side.ask(view, make(), "hi", {"callbacks": [recorder]})
    inputs = {each["run_id"]: each["inputs"]["n"] for each in recorder.tools[:3]}
    ends = [(inputs[each["run_id"]], each["args"][0]) for each in recorder.tools[3:]]
    assert [(n, getattr(out, "content", None)) for n, out in ends] == [
        (3, '{"left": 7}'),
        (1, "A1"),
        (2, None),
    ]
    assert "without a result" in str(ends[2][1])
    assert recorder.seen[-2:] == ["tool_error", "model_end"]


CALLS = [EVENTS[0], EVENTS[3]]


@pytest.mark.parametrize(
    ("answer", "kwargs", "said", "is_whole"),
    [
        pytest.param(stream(as_sse(*CALLS)), {}, "closed the stream", False, id="ended"),
        pytest.param(
            stream(as_sse(*CALLS, {"type": "error", "message": "boom"})),
            {},
            "boom",
            False,
            id="failed",
        ),
        pytest.param(
            stream(as_sse(*CALLS, {"type": "text", "content": "a STOP"})),
            {"stop": ["STOP"]},
            "A stop sequence ended the answer",
            True,
            id="stopped",
        ),
        pytest.param(
            refusal(200, {"response": "So.", "tool_calls": [{"name": "x", "args": {}}]}),
            {},
            "without a result",
            True,
            id="json",
        ),
    ],
)
def test_what_is_open_when_the_answer_ends_ends_with_an_error(
    network: Network,
    side: Side,
    make: Make,
    view: str,
    recorder: Any,
    answer: Any,
    kwargs: Any,
    said: str,
    is_whole: bool,
) -> None:
    """Before the model's own end, or error."""
    network.answer(answer)
    config = {"callbacks": [recorder]}
    if is_whole:
        side.ask(view, make(), "hi", config, **kwargs)
    else:
        with pytest.raises(ThinnestError, match=said):
            side.ask(view, make(), "hi", config, **kwargs)
    assert said in str(recorder.tools[-1]["args"][0])
    end = "model_end" if is_whole else "model_error"
    assert recorder.seen == ["model_start", "tool_start", "tool_error", end]


class SlowStart(AsyncRecorder):
    async def on_tool_start(self, *args: Any, **kwargs: Any) -> None:
        await asyncio.sleep(10.0)
        self.take("tool_start", *args, **kwargs)


@pytest.mark.parametrize("kind", [AsyncRecorder, SlowStart])
@pytest.mark.parametrize("times", [1, 2])
def test_a_cancelled_call_ends_its_runs_once(
    network: Network, make: Make, clock: Clock, times: int, kind: type[AsyncRecorder]
) -> None:
    """Also one that a handler is still being told of."""
    network.answer([WHOLE[0], chunk(as_sse(*CALLS)), Wait()])
    side = Side(clock, is_async=True)
    recorder = kind()

    async def main() -> None:
        task = asyncio.ensure_future(make().ainvoke("hi", {"callbacks": [recorder]}))
        await asyncio.sleep(5)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0.1)
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(10)

    side.run(main())
    side.close_loop()
    assert [name for name in recorder.seen if "tool" in name] == ["tool_start", "tool_error"]


def test_who_stops_reading_ends_the_runs(
    network: Network, side: Side, make: Make, recorder: Any
) -> None:
    network.answer([WHOLE[0], chunk(as_sse(*CALLS)), Wait()])
    chunks = side.stream(make(), "hi", {"callbacks": [recorder]})
    for _ in CALLS:
        next(chunks)
    chunks.close()
    assert recorder.seen[1:3] == ["tool_start", "tool_error"]


def test_a_handler_that_fails_does_no_harm(
    network: Network, side: Side, make: Make, view: str
) -> None:
    class Fails(BaseCallbackHandler):
        run_inline = True

        def on_tool_start(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("handler")

    class Breaks(Fails):
        raise_error = True

    network.answer(WHOLE)
    assert side.ask(view, make(), "hi", {"callbacks": [Fails()]}).text == TEXT
    with pytest.raises(RuntimeError, match="handler"):  # as it asks for
        side.ask(view, make(), "hi", {"callbacks": [Breaks()]})


def test_context_variables_of_handlers_do_not_leak(
    network: Network, side: Side, make: Make
) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="mine")

    class Sets(BaseCallbackHandler):
        run_inline = True

        def on_tool_start(self, *args: Any, **kwargs: Any) -> None:
            variable.set("theirs")

    network.answer(WHOLE)

    async def main() -> None:
        async for _ in make().astream("hi", {"callbacks": [Sets()]}):
            assert variable.get() == "mine"

    if side.is_async:
        side.run(main())
        return
    for _ in make().stream("hi", {"callbacks": [Sets()]}):
        assert variable.get() == "mine"
