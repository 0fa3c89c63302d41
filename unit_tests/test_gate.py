"""The gate: when a request may go out. Tasks wait at it here, by a clock that tests set."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from pydantic import SecretStr

from langchain_thinnest import ThinnestRateLimitError
from langchain_thinnest._http.gate import Gate, Pass, gate_for


class Clock:
    """A clock that stands still until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Line:
    """Tasks that enter a gate, by name, and the order in which they get through."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.gate = Gate(self.clock)
        self.through: list[str] = []
        self.passes: dict[str, Pass] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def enter(self, *names: str, again: bool = False, is_kept: bool = False) -> None:
        async def enter(name: str) -> None:
            self.passes[name] = await self.gate.aenter(
                again=again, is_kept=is_kept, max_wait=5_000
            )
            self.through.append(name)

        for name in names:
            self.tasks[name] = asyncio.create_task(enter(name))
            await self.settle()

    async def settle(self) -> None:
        for _ in range(100):
            await asyncio.sleep(0)

    async def leave(self, *names: str) -> None:
        for name in names:
            self.passes[name].leave()
        await self.settle()

    async def at(self, now: float) -> None:
        """Set the clock, and have the first in line look at it."""
        self.clock.now = now
        self.gate._wake_next()
        await self.settle()

    async def close(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


@pytest.fixture
async def line() -> Any:
    line = Line()
    yield line
    await line.close()


def window(remaining: int, reset: int = 1_000, limit: int = 3) -> dict[str, str]:
    """Headers of a window that ends at a second of the server's clock, which began at 0."""
    return {
        "x-ratelimit-limit": str(limit),
        "x-ratelimit-remaining": str(remaining),
        "x-ratelimit-reset": str(reset),
        "date": "Thu, 01 Jan 1970 00:00:00 GMT",
    }


NAMES = [f"call {number}" for number in range(14)]


async def test_before_the_first_answer_ten_go_out(line: Line) -> None:
    await line.enter(*NAMES)
    assert line.through == NAMES[:10]
    line.passes["call 0"].answered({})
    await line.settle()
    assert line.through == NAMES


async def test_a_call_that_closes_makes_room(line: Line) -> None:
    await line.enter(*NAMES)
    await line.leave("call 3")
    assert line.through == NAMES[:11]
    line.passes["call 3"].leave()  # once is enough
    await line.settle()
    assert line.through == NAMES[:11]


async def test_what_is_left_of_the_window_goes_out_and_the_rest_waits(line: Line) -> None:
    await line.enter("a")
    line.passes["a"].answered(window(remaining=2))
    await line.enter("b", "c", "d", "e")
    assert line.through == ["a", "b", "c"]
    await line.at(999.0)
    assert line.through == ["a", "b", "c"]
    await line.at(1000.1)  # the limit is known to be three
    assert line.through == ["a", "b", "c", "d", "e"]


@pytest.fixture
async def refused(line: Line) -> Line:
    """One call was refused and will come again; a new window of three has begun since."""
    await line.enter("a", "refused")
    line.passes["a"].answered(window(remaining=0))
    assert line.passes["refused"].refused(window(remaining=0), 1_000.0)
    await line.leave("a", "refused")
    await line.enter("b", "c", "d", "e", "f")
    await line.at(1000.1)
    return line


async def test_a_request_is_kept_for_one_that_was_refused(refused: Line) -> None:
    assert refused.through == ["a", "refused", "b", "c"]
    await refused.enter("refused again", again=True, is_kept=True)
    assert refused.through[4:] == ["refused again"]
    refused.passes["refused again"].answered(window(remaining=0, reset=2_000))
    await refused.at(3000.2)  # the header's date is 0, so that it is as long until then
    assert refused.through[5:] == ["d", "e", "f"]


async def test_a_request_that_was_kept_can_be_given_up(refused: Line) -> None:
    refused.gate.give_up()
    await refused.settle()
    assert refused.through[4:] == ["d"]


async def test_a_refusal_of_one_stream_too_many_keeps_no_request(line: Line) -> None:
    await line.enter("a", "refused")
    line.passes["a"].answered(window(remaining=2))
    assert not line.passes["refused"].refused(window(remaining=1), None)
    await line.leave("a", "refused")
    await line.enter("b")
    assert line.through == ["a", "refused", "b"]


async def test_a_new_window_has_no_more_than_the_last_until_it_is_known(line: Line) -> None:
    await line.enter("a")
    line.passes["a"].answered(window(remaining=0))
    await line.enter("b", "c", "d", "e", "f")
    await line.at(1000.1)
    assert line.through == ["a", "b", "c", "d"]
    short = {**window(remaining=3, reset=1_005), "date": "Thu, 01 Jan 1970 00:16:40 GMT"}
    line.passes["b"].answered(short)  # c and d take two
    await line.settle()
    assert line.through == ["a", "b", "c", "d", "e"]
    await line.at(1005.2)
    assert line.through == ["a", "b", "c", "d", "e", "f"]


@pytest.mark.parametrize("how", ["an error", "an answer", "patience"])
async def test_a_new_window_whose_calls_tell_nothing(line: Line, how: str) -> None:
    await line.enter("a")
    line.passes["a"].answered(window(remaining=0))
    await line.enter("b", "c", "d", "e")
    await line.at(1000.1)
    assert line.through == ["a", "b", "c", "d"]
    if how == "an error":
        await line.leave("b")
    elif how == "an answer":
        line.passes["b"].answered({})
        await line.settle()
    else:
        await line.at(1030.2)
    assert line.through == ["a", "b", "c", "d", "e"]


async def test_requests_under_way_count_as_used(line: Line) -> None:
    await line.enter("a", "b", "c")
    line.passes["a"].answered(window(remaining=2))  # of which b and c may take both
    await line.enter("d")
    assert line.through == ["a", "b", "c"]
    line.passes["c"].answered(window(remaining=0))
    line.passes["b"].answered(window(remaining=1))  # an answer that comes out of order
    await line.settle()
    assert line.through == ["a", "b", "c"]


async def test_a_new_window_is_believed(line: Line) -> None:
    await line.enter("a", "b")
    line.passes["a"].answered(window(remaining=0))
    line.passes["b"].answered(window(remaining=2, reset=2_000))
    await line.enter("c", "d", "e")
    assert line.through == ["a", "b", "c", "d"]


async def test_after_a_refusal_all_wait_as_long_as_it_asks(line: Line) -> None:
    await line.enter("a")
    line.passes["a"].refused(window(remaining=0), wait=5.0)
    await line.leave("a")
    await line.enter("b")
    await line.at(4.9)
    assert line.through == ["a"]
    await line.enter("a", again=True)
    await line.at(1000.1)
    assert line.through == ["a", "a", "b"]  # who was refused goes first


async def test_a_window_that_lasts_too_long_is_not_waited_for(line: Line) -> None:
    await line.enter("a")
    line.passes["a"].answered(window(remaining=0, reset=10_000))
    with pytest.raises(ThinnestRateLimitError, match="10000 s") as caught:
        await line.gate.aenter(again=False, max_wait=5_000)
    assert caught.value.retry_after == pytest.approx(10_000, abs=1)
    (await line.gate.aenter(again=False, max_wait=None)).leave()  # asks the server
    line.clock.now = 10_001.0
    await line.enter("b")
    assert line.through == ["a", "b"]


async def test_a_refusal_that_has_requests_left_is_of_too_many_streams(line: Line) -> None:
    await line.enter("a", "b", "c", "d")
    line.passes["a"].answered({})
    line.passes["b"].answered({})
    for name in ("c", "d"):
        line.passes[name].refused({}, wait=None)
        await line.leave(name)
    await line.enter("e", "f")
    assert line.through == ["a", "b", "c", "d"]  # as many as were answered are open
    await line.leave("a")
    assert line.through[4:] == ["e"]
    await line.leave("b")
    assert line.through[4:] == ["e", "f"]


async def test_after_many_answers_one_more_stream_is_tried(line: Line) -> None:
    await line.enter("a")
    line.passes["a"].refused({}, wait=None)  # nothing was open: one stream it is
    await line.leave("a")
    for number in range(20):
        await line.enter(f"b{number}", f"c{number}")
        assert f"c{number}" not in line.passes
        line.passes[f"b{number}"].answered({})
        await line.leave(f"b{number}")
        line.passes[f"c{number}"].leave()
    await line.enter("x", "y", "z")
    assert line.through[-2:] == ["x", "y"]


async def test_one_who_is_cancelled_leaves_the_line(line: Line) -> None:
    await line.enter(*NAMES[:12])
    line.tasks["call 10"].cancel()
    await line.settle()
    assert line.tasks["call 10"].cancelled()
    await line.leave("call 0")
    assert line.through[10:] == ["call 11"]


async def test_a_call_within_a_call_does_not_wait_for_it(line: Line) -> None:
    await line.enter("a")
    line.passes["a"].refused({}, wait=None)
    await line.leave("a")

    async def nested() -> None:
        outer = await line.gate.aenter(again=False, max_wait=5_000)
        inner = await line.gate.aenter(again=False, max_wait=5_000)
        inner.leave()
        outer.leave()

    await asyncio.wait_for(nested(), 5)


async def test_who_waits_long_for_a_stream_to_close_asks_the_server(line: Line) -> None:
    await line.enter("a", "b")
    line.passes["a"].answered({})
    line.passes["b"].refused({}, wait=None)
    await line.leave("b")
    await line.enter("c")
    await line.at(29.0)
    assert "c" not in line.through
    await line.at(31.0)
    assert "c" in line.through


async def test_threads_and_tasks_wait_in_one_line(line: Line) -> None:
    await line.enter(*NAMES[:11])
    done = threading.Event()

    def thread() -> None:
        line.gate.enter(again=False, max_wait=5_000)
        line.through.append("thread")
        done.set()

    threading.Thread(target=thread, daemon=True).start()
    while len(line.gate._line) < 2:  # noqa: ASYNC110  # it has no event to wait for
        await asyncio.sleep(0.01)
    await line.enter("last")
    await line.leave("call 0", "call 1")
    assert await asyncio.to_thread(done.wait, 5)
    await line.settle()
    assert line.through[10:] == ["call 10", "thread"]
    await line.leave("call 2")
    assert line.through[12:] == ["last"]


def test_a_gate_is_shared_by_url_and_key() -> None:
    gate = gate_for("http://a", SecretStr("k"))
    assert gate_for("http://a", SecretStr("k")) is gate
    assert gate_for("http://a", SecretStr("other")) is not gate
    assert gate_for("http://b", SecretStr("k")) is not gate
