"""When a call may go out: what it waits for, for how long, and what it says of that."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from langchain_thinnest import ChatThinnest, ThinnestRateLimitError
from langchain_thinnest._http import store
from unit_tests.answers import refusal, stream
from unit_tests.conftest import Make
from unit_tests.contract import EVENTS, TEXT, as_sse
from unit_tests.network import Chunks, Network, Side, Wait
from unit_tests.test_refusals import fails

WHOLE = stream(as_sse(*EVENTS))
OPEN = [*stream(as_sse(EVENTS[0]))[:-1], Wait()]


def window(seconds: int, remaining: int = 0) -> dict[str, str]:
    """Headers that tell of a window, which ends in so many seconds."""
    return {
        "X-RateLimit-Limit": "1",
        "X-RateLimit-Remaining": str(remaining),
        "X-RateLimit-Reset": str(int(time.time()) + seconds),
    }


def last_of(seconds: int) -> list[Any]:
    """An answer that uses up the window."""
    return stream(as_sse(*EVENTS), headers=window(seconds))


# --- the window of requests ---


def test_a_window_that_is_used_up_is_waited_for(
    network: Network, side: Side, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Without asking the server, and one line tells of it."""
    caplog.set_level("INFO", "langchain_thinnest")
    network.answer(last_of(30), WHOLE)
    side.invoke(make(), "hi")
    began = network.clock.now
    assert side.invoke(make(), "hi").text == TEXT
    assert 28 < network.clock.now - began < 31
    assert len(network.requests) == 2
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "Calls have waited for 10 s: the rate limit's window"
    )


def test_waits_are_told_once_a_minute(
    network: Network, side: Side, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "langchain_thinnest")
    network.answer(last_of(25))
    for _ in range(5):
        side.invoke(make(), "hi")
    assert len(caplog.records) == 2


def test_a_window_that_lasts_too_long_is_an_error_at_once(
    network: Network, side: Side, make: Make
) -> None:
    network.answer(last_of(30), WHOLE)
    side.invoke(make(), "hi")
    began = network.clock.now
    error = fails(side, make(max_retry_wait=10.0))
    assert type(error) is ThinnestRateLimitError
    assert "longer than max_retry_wait; nothing was sent" in str(error)
    assert 28 < (error.retry_after or 0) < 31
    assert error.is_retryable
    assert network.clock.now == began
    assert len(network.requests) == 1


def test_who_wants_no_retries_asks_the_server(
    network: Network, side: Side, make: Make
) -> None:
    network.answer(last_of(30), WHOLE)
    side.invoke(make(), "hi")
    began = network.clock.now
    assert side.invoke(make(max_retries=0), "hi").text == TEXT
    assert network.clock.now == began


def test_each_key_has_its_limits(network: Network, side: Side, make: Make) -> None:
    network.answer(last_of(30), WHOLE)
    side.invoke(make(), "hi")
    began = network.clock.now
    side.invoke(make(api_key="ak_other"), "hi")
    assert network.clock.now == began


# --- streams at once ---


def open_elsewhere(side: Side, model: ChatThinnest) -> Chunks:
    """A stream that another thread or task has open."""

    def begin() -> Chunks:
        chunks = side.stream(model, "hi")
        next(chunks)
        return chunks

    return side.elsewhere(begin)


def test_a_place_among_the_streams_is_waited_for(
    network: Network, side: Side, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "langchain_thinnest")
    network.answer(OPEN, WHOLE)
    model = make(max_streams=1)
    chunks = open_elsewhere(side, model)
    side.close_after(15.0, chunks)
    began = network.clock.now
    assert side.invoke(model, "hi").text == TEXT
    assert 15.0 <= network.clock.now - began < 15.1
    (record,) = caplog.records
    assert "10 s: max_streams=1 streams are open, or others came first." in record.getMessage()


def test_who_wants_no_retries_waits_for_no_place(
    network: Network, side: Side, make: Make
) -> None:
    network.answer(OPEN)
    model = make(max_streams=1)
    chunks = open_elsewhere(side, model)
    error = fails(side, make(max_streams=1, max_retries=0))
    assert type(error) is ThinnestRateLimitError
    assert error.is_retryable
    assert str(error).startswith("max_streams=1 streams are open, and max_retries=0")
    assert len(network.requests) == 1
    chunks.close()


def test_how_many_streams_there_may_be_is_learned(
    network: Network, side: Side, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """From a refusal that says nothing of the window."""
    caplog.set_level("INFO", "langchain_thinnest")
    network.answer(OPEN, refusal(429, {}), WHOLE)
    model = make()
    chunks = open_elsewhere(side, model)
    side.close_after(15.0, chunks)
    began = network.clock.now
    assert side.invoke(model, "hi").text == TEXT
    assert 15.0 <= network.clock.now - began < 16.0
    assert len(network.requests) == 3
    assert "as many streams are open as the server takes" in caplog.text


def test_a_stream_that_is_dropped_gives_its_place_back(
    network: Network, side: Side, make: Make, collect: Callable[[], int]
) -> None:
    network.answer(OPEN, WHOLE)
    model = make(max_streams=1)
    chunks = open_elsewhere(side, model)
    del chunks
    collect()
    began = network.clock.now
    assert side.invoke(model, "hi").text == TEXT
    assert network.clock.now - began < 0.1


def test_a_call_inside_of_an_own_stream_does_not_wait_for_it(
    network: Network, side: Side, make: Make
) -> None:
    """It would wait for itself. It may be refused, and its error says why."""
    network.answer(OPEN, WHOLE, refusal(429, {}))
    model = make(max_streams=1, max_retries=0)

    async def nested() -> None:
        async for _ in model.astream("outer"):
            assert (await model.ainvoke("inner")).text == TEXT
            with pytest.raises(
                ThinnestRateLimitError, match="own task or thread had a stream"
            ):
                await model.ainvoke("inner")
            break

    if side.is_async:
        side.run(nested())
        return
    for _ in model.stream("outer"):
        assert model.invoke("inner").text == TEXT
        with pytest.raises(ThinnestRateLimitError, match="own task or thread had a stream"):
            model.invoke("inner")
        break


# --- what is kept ---


def test_accounts_that_nobody_uses_are_forgotten(
    network: Network, side: Side, make: Make
) -> None:
    network.answer(WHOLE)
    for number in range(5):
        side.invoke(make(api_key=f"ak_{number}"), "hi")
        network.clock.pass_(70.0)
    network.clock.pass_(100.0)
    side.invoke(make(api_key="ak_5"), "hi")
    keys = {key.get_secret_value() for _, key, _ in store._accounts.by_key}
    assert keys == {"ak_3", "ak_4", "ak_5"}


def test_a_forked_child_begins_anew(
    network: Network, side: Side, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The streams of its parent are not its own."""
    monkeypatch.setattr(store, "_parents", [])
    network.answer(OPEN, WHOLE)
    model = make(max_streams=1, max_retries=0)
    chunks = open_elsewhere(side, model)
    monkeypatch.setattr("os.getpid", lambda: -2)
    assert side.invoke(model, "hi").text == TEXT
    chunks.close()
