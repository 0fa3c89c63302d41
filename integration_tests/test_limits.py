"""The server's limits: a batch larger than they are simply finishes."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.rate_limiters import InMemoryRateLimiter

from integration_tests.conftest import KEY, Make, echo_agent
from integration_tests.test_lifetime import until
from integration_tests.wire import WireServer, refusal, stream
from langchain_thinnest import ChatThinnest, ThinnestRateLimitError
from langchain_thinnest.emulator import ThinnestEmulator
from unit_tests.contract import as_sse


class Retries(BaseCallbackHandler):
    """Counts the refusals that calls were told of."""

    def __init__(self) -> None:
        self.count = 0

    def on_retry(self, retry_state: Any, **kwargs: Any) -> None:
        self.count += 1


def emulator(**limits: Any) -> ThinnestEmulator:
    return ThinnestEmulator({"ag_echo": echo_agent}, api_keys=[KEY], **limits)


def model_of(server: ThinnestEmulator, **fields: Any) -> ChatThinnest:
    return ChatThinnest(agent_id="ag_echo", api_key=KEY, base_url=server.base_url, **fields)


def ask_all(server: ThinnestEmulator, count: int, is_async: bool, **config: Any) -> int:
    """Ask many questions at once, check the answers, and count the refusals."""
    questions = [f"question {number}" for number in range(count)]
    retries = Retries()
    model = model_of(server, callbacks=[retries])
    if is_async:
        answers = asyncio.run(model.abatch(questions, config))
    else:
        answers = model.batch(questions, config)
    assert [answer.text for answer in answers] == [f"0: {text}" for text in questions]
    return retries.count


WINDOW = 1.8  # seconds: two, as the headers say it


def test_120_questions_at_20_in_a_window_all_succeed() -> None:
    """Sync and async side by side, each on a server of its own, since both mostly wait."""

    def timed(is_async: bool) -> tuple[float, int]:
        with emulator(requests_per_window=20, window_seconds=WINDOW) as server:
            began = time.monotonic()
            refused = ask_all(server, 120, is_async)
            return time.monotonic() - began, refused

    with ThreadPoolExecutor() as pool:
        for seconds, refused in pool.map(timed, [False, True]):
            assert refused < 12
            assert seconds > 5 * WINDOW  # six windows' worth: it cannot be faster
            assert seconds < 2 * 6 * WINDOW


@pytest.mark.parametrize("is_async", [False, True])
def test_50_questions_at_2_streams_all_succeed(is_async: bool) -> None:
    with emulator(max_connections=2) as server:
        refused = ask_all(server, 50, is_async, max_concurrency=20)
    assert 0 < refused < 30


@pytest.mark.parametrize("is_async", [False, True])
def test_without_limits_nothing_waits(is_async: bool) -> None:
    with emulator() as server:
        assert ask_all(server, 100, is_async) == 0


def test_threads_and_loops_share_what_is_known() -> None:
    with emulator(requests_per_window=10, window_seconds=WINDOW) as server:
        with ThreadPoolExecutor() as pool:
            refused = sum(pool.map(lambda a: ask_all(server, 10, a), [False, True]))
        assert refused <= 2
        assert len(server.requests) == 20


def test_a_limit_that_another_process_has_used_up() -> None:
    with emulator(requests_per_window=3, window_seconds=WINDOW) as server:
        for _ in range(3):
            httpx.post(
                f"{server.base_url}/chat/stream",
                json={"agent_id": "ag_echo", "message": "other"},
                headers={"Authorization": f"Bearer {KEY}"},
            )
        retries = Retries()
        answer = model_of(server).invoke("hi", {"callbacks": [retries]})
        assert answer.text == "0: hi"
        assert retries.count == 1


async def test_one_who_waits_is_cancelled_at_once() -> None:
    with emulator(requests_per_window=1, window_seconds=30.0) as server:
        model = model_of(server)
        await model.ainvoke("uses up the window")
        tasks = [asyncio.create_task(model.ainvoke("waits")) for _ in range(20)]
        await asyncio.sleep(0.2)
        began = time.monotonic()
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert time.monotonic() - began < 5
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        assert len(server.requests) == 1


def test_a_wait_longer_than_allowed_is_refused_and_not_sat_out() -> None:
    with emulator(requests_per_window=1, window_seconds=30.0) as server:
        model = model_of(server, max_retry_wait=2.0)
        model.invoke("uses up the window")
        began = time.monotonic()
        with pytest.raises(ThinnestRateLimitError) as caught:
            model.invoke("does not wait")
        assert time.monotonic() - began < 5
        assert 20 < (caught.value.retry_after or 0) <= 32
        assert caught.value.is_retryable


def test_who_wants_no_retries_is_told_at_once_by_the_server() -> None:
    with emulator(requests_per_window=1, window_seconds=30.0) as server:
        model = model_of(server, max_retries=0)
        model.invoke("uses up the window")
        for _ in range(3):
            with pytest.raises(ThinnestRateLimitError) as caught:
                model.invoke("is refused")
            assert caught.value.status_code == 429


def test_a_call_while_a_stream_is_open_in_the_same_thread() -> None:
    """The server may refuse the inner call, but it does not wait for the outer one to end."""
    asked = threading.Event()

    def agent(message: str, session: Any) -> Any:
        yield message
        asked.wait(10)

    with ThinnestEmulator({"ag_echo": agent}, api_keys=[KEY], max_connections=1) as server:
        model = model_of(server, max_retries=0)
        for number, _ in enumerate(model.stream("outer")):
            if number == 0:
                for _ in range(
                    2
                ):  # the second time one stream at once is known to be the limit
                    with pytest.raises(ThinnestRateLimitError):
                        model.invoke("inner")
                asked.set()
        assert model.invoke("after").text == "after"


def test_together_with_the_frameworks_own_limiter() -> None:
    limiter = InMemoryRateLimiter(requests_per_second=50, check_every_n_seconds=0.01)
    with emulator(max_connections=2) as server:
        model = model_of(server, rate_limiter=limiter)
        answers = model.batch(["hi"] * 20, {"max_concurrency": 5})
        assert len(answers) == len(server.requests) == 20


def test_nobody_starves_in_a_line_of_threads() -> None:
    with emulator(requests_per_window=5, window_seconds=WINDOW) as server:
        model = model_of(server)
        order: list[int] = []
        lock = threading.Lock()

        def ask(number: int) -> None:
            model.invoke(f"{number}")
            with lock:
                order.append(number)

        model.invoke("first")
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(17)]
        for thread in threads:
            thread.start()
            time.sleep(0.02)  # so that they stand in line in this order
        for thread in threads:
            thread.join()
        windows = [order[:4], order[4:9], order[9:14], order[14:]]
        # One that comes a moment before the server's reset is refused, and may lose a window.
        for number in range(17):
            (got,) = [at for at, window in enumerate(windows) if number in window]
            assert abs(got - (number + 1) // 5) <= 1


def begin_window(wire: WireServer) -> None:
    """Refuse the next request, in a window of one request that ends soon."""
    headers = {"X-RateLimit-Limit": "1", "X-RateLimit-Reset": f"{time.time() + 1:.3f}"}
    one_left = {**headers, "X-RateLimit-Remaining": "1"}
    whole = stream(as_sse({"type": "done"}), headers=one_left)
    wire.answer(refusal(429, {}, {**headers, "X-RateLimit-Remaining": "0"}), whole, whole)


@pytest.fixture
def window_of_one(wire: WireServer) -> WireServer:
    begin_window(wire)
    return wire


def asked(wire: WireServer) -> list[str]:
    return [request.json["message"] for request in wire.requests]


def test_one_that_was_refused_is_not_overtaken_while_it_sleeps(
    wired: Make, window_of_one: WireServer
) -> None:
    with ThreadPoolExecutor(2) as pool:
        for before in (0, 3):
            first = pool.submit(wired().invoke, "first")
            assert until(lambda before=before: len(window_of_one.requests) == before + 1)
            time.sleep(0.1)
            pool.submit(wired().invoke, "second").result(10)
            first.result(10)
            begin_window(window_of_one)
    assert asked(window_of_one) == ["first", "first", "second"] * 2


async def test_one_that_was_refused_is_not_overtaken_while_it_sleeps_in_a_loop(
    wired: Make, window_of_one: WireServer
) -> None:
    first = asyncio.ensure_future(wired().ainvoke("first"))
    assert await asyncio.to_thread(until, lambda: len(window_of_one.requests) == 1)
    await asyncio.sleep(0.1)
    await asyncio.wait_for(asyncio.gather(first, wired().ainvoke("second")), 10)
    assert asked(window_of_one) == ["first", "first", "second"]


def test_nobody_waits_for_one_that_gave_up(wired: Make, window_of_one: WireServer) -> None:
    with pytest.raises(ThinnestRateLimitError):
        wired(max_retries=0).invoke("first")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(wired().invoke, "second").result(10)
    assert asked(window_of_one) == ["first", "second"]


async def test_nobody_waits_for_one_that_was_cancelled(
    wired: Make, window_of_one: WireServer
) -> None:
    first = asyncio.ensure_future(wired().ainvoke("first"))
    assert await asyncio.to_thread(until, lambda: len(window_of_one.requests) == 1)
    await asyncio.sleep(0.1)
    first.cancel()
    await asyncio.wait_for(wired().ainvoke("second"), 10)
    assert asked(window_of_one) == ["first", "second"]
