"""What is sent again, how soon, and who is told."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler

from integration_tests.conftest import Make, example_agent
from integration_tests.ways import WAYS, in_each_at_once
from integration_tests.wire import WireServer, refusal, stream
from langchain_thinnest import ChatThinnest, ThinnestConnectionError
from langchain_thinnest.emulator import Fault, ThinnestEmulator
from unit_tests.contract import EVENTS, TEXT, as_sse


def model_of(emulator: ThinnestEmulator) -> ChatThinnest:
    return ChatThinnest(agent_id="ag_1", api_key=emulator.api_key, base_url=emulator.base_url)


def test_twice_429_then_200() -> None:
    def check(way: Any) -> None:
        with ThinnestEmulator({"ag_1": example_agent}) as emulator:
            emulator.fail_next(Fault.status(429, retry_after=1), times=2)
            began = time.monotonic()
            assert way(model_of(emulator), "hi").text == TEXT
            assert time.monotonic() - began >= 2
            assert len(emulator.requests) == 3
            assert all(request == emulator.requests[0] for request in emulator.requests)

    in_each_at_once(check)


def test_the_reset_of_the_window_is_waited_for(wired: Make, wire: WireServer) -> None:
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(time.time()) + 2)}
    wire.answer(refusal(429, headers=headers), stream(as_sse(*EVENTS)))
    began = time.monotonic()
    assert wired().invoke("hi").text == TEXT
    assert time.monotonic() - began >= 0.9


def test_tries_are_counted(wired: Make, wire: WireServer) -> None:
    wire.answer(refusal(429, headers={"Retry-After": "0"}))
    for retries in (0, 1, 3):
        wire.requests.clear()
        with pytest.raises(Exception, match="rate limit"):
            wired(max_retries=retries).invoke("hi")
        assert len(wire.requests) == retries + 1


def test_a_server_that_comes_up_late_is_reached() -> None:
    import socket
    import threading

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    model = ChatThinnest(
        agent_id="ag_demo", api_key="ak_emulator", base_url=f"http://127.0.0.1:{port}"
    )
    with pytest.raises(ThinnestConnectionError):
        model.model_copy(update={"max_retries": 0}).invoke("hi")
    emulator = ThinnestEmulator(port=port)
    timer = threading.Timer(0.5, emulator.__enter__)
    timer.start()
    try:
        assert "emulator" in model.invoke("hi").text
    finally:
        timer.join()
        emulator.__exit__(None, None, None)


class Told:
    """What a handler was told of retries: the errors, and in which runs."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.runs: set[Any] = set()

    def take(self, retry_state: Any, kwargs: Any) -> None:
        self.errors.append(type(retry_state.outcome.exception()).__name__)
        self.runs.add(kwargs["run_id"])


class ToldSync(Told, BaseCallbackHandler):
    def on_retry(self, retry_state: Any, **kwargs: Any) -> None:
        self.take(retry_state, kwargs)


class ToldAsync(Told, AsyncCallbackHandler):
    async def on_retry(self, retry_state: Any, **kwargs: Any) -> None:
        self.take(retry_state, kwargs)


def test_handlers_are_told_of_retries() -> None:
    def check(way: Any) -> None:
        for handler in (ToldSync(), ToldAsync()):
            with ThinnestEmulator({"ag_1": example_agent}) as emulator:
                emulator.fail_next(Fault.status(429, retry_after=0), times=2)
                way(model_of(emulator), "hi", {"callbacks": [handler]})
                assert handler.errors == ["ThinnestRateLimitError"] * 2
                assert len(handler.runs) == 1

    in_each_at_once(check, WAYS)


async def test_a_wait_is_cancelled_at_once(wired: Make, wire: WireServer) -> None:
    wire.answer(refusal(429, headers={"Retry-After": "30"}))
    task = asyncio.create_task(wired().ainvoke("hi"))
    await asyncio.sleep(0.3)
    assert len(wire.requests) == 1
    task.cancel()
    began = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < 5


def test_with_retry_never_sends_a_message_twice(wired: Make, wire: WireServer) -> None:
    """But what the server surely did not take, it sends again."""
    from langchain_thinnest import ThinnestInterruptedError, is_retryable

    wire.answer(stream(as_sse(*EVENTS[:3])))
    model = wired(max_retries=0)
    with pytest.raises(ThinnestInterruptedError) as caught:
        model.with_retry(wait_exponential_jitter=False).invoke("hi")
    assert not is_retryable(caught.value)
    assert len(wire.requests) == 1
    refused = refusal(429, headers={"Retry-After": "0"})
    for predicate in (None, is_retryable):
        wire.answer(refused, stream(as_sse(*EVENTS)))
        retrying = model.with_retry(
            retry_if_exception_type=predicate, wait_exponential_jitter=False
        )
        assert asyncio.run(retrying.ainvoke("hi")).text == TEXT
