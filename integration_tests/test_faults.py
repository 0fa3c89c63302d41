"""Every fault has one outcome, in every way to call a model; the table is in `faults.py`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from langchain_core.callbacks import BaseCallbackHandler

from integration_tests import ways
from integration_tests.faults import (
    FAULTS,
    LONG,
    MAX_EVENT_BYTES,
    OF_FAST_ASYNC,
    STALL,
    TIMEOUT,
    WHOLE,
    Fault,
    joined,
    markdown,
)
from integration_tests.test_lifetime import until
from integration_tests.transports import fails_whole_answers
from integration_tests.wire import (
    Close,
    Reset,
    Step,
    Wait,
    WireServer,
    chunk,
    head,
    refusal,
    stream,
)
from langchain_thinnest import (
    ChatThinnest,
    ThinnestError,
    ThinnestInterruptedError,
    ThinnestProtocolError,
    ThinnestStreamError,
)
from unit_tests.contract import EVENTS, TEXT, as_printed, lines
from unit_tests.test_chat_models import locals_of_ours

WAYS = [
    ways.invoke,
    ways.stream,
    ways.ainvoke,
    ways.astream,
    ways.stream_events,
    ways.astream_events,
]


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def way(request: Any) -> Any:
    return request.param


@pytest.fixture
def key() -> str:
    """A key of its own: what calls with one key to one port learn of limits, they share."""
    return f"ak_{uuid4().hex}"


@pytest.fixture
def model(wire: WireServer, key: str) -> ChatThinnest:
    """Asks the wire server."""
    return ChatThinnest(agent_id="ag_1", api_key=key, base_url=wire.base_url, timeout=10.0)


class Retries(BaseCallbackHandler):
    """Counts how often a message is sent again."""

    def __init__(self) -> None:
        self.count = 0

    def on_retry(self, *args: Any, **kwargs: Any) -> None:
        self.count += 1


def model_for(fault: Fault, base_url: str, **fields: Any) -> ChatThinnest:
    given = {
        "agent_id": "ag_1",
        "base_url": base_url,
        "timeout": httpx.Timeout(TIMEOUT, read=STALL if fault.is_slow else TIMEOUT),
        "max_retries": 1,
        "max_retry_wait": 0.05,
        "max_event_bytes": MAX_EVENT_BYTES,
        **fields,
        **fault.fields,
    }
    return ChatThinnest(**given)


def has_its_outcome(fault: Fault, way: Any, model: ChatThinnest) -> None:
    key = model.thinnest_api_key.get_secret_value()
    retries = Retries()
    config = {"callbacks": [retries]}
    begin = time.monotonic()
    if fault.error is None:
        assert way(model, "hi", config).text == fault.text
    else:
        with pytest.raises(ThinnestError) as caught:
            way(model, "hi", config)
        error = caught.value
        assert type(error) is fault.error
        assert error.is_retryable is fault.is_retryable
        if fault.partial is None:
            assert not isinstance(error, ThinnestStreamError)
        else:
            assert isinstance(error, ThinnestStreamError)
            assert error.partial.text == fault.partial
            assert "finish_reason" not in error.partial.response_metadata
        # httpx's own error holds the signed request: it must not be reachable from here.
        assert error.__cause__ is None
        assert not isinstance(error.__context__, Exception)
        assert key not in repr(error) + repr(vars(error))
        assert key not in repr(locals_of_ours(error))
        str(error).encode()  # it can be printed
        assert said_of_sending(error) == fault.sent, str(error)
    assert time.monotonic() - begin < fault.within
    assert retries.count == fault.is_sent_again


def said_of_sending(error: ThinnestError) -> str:
    """Whether the message was sent, by the error's words; what a server answered, it was."""
    if "was not sent." in str(error):
        return "no"
    return "unknown" if "not known whether the message arrived" in str(error) else "yes"


def check(fault: Fault, way: Any) -> None:
    if fails_whole_answers(way) and fault.name in OF_FAST_ASYNC:
        together = [joined(fault.script)]
        fault = replace(fault, error=ThinnestProtocolError, partial="", script=together)
    key = f"ak_{uuid4().hex}"
    if fault.place is not None:
        with fault.place() as place:
            model = model_for(fault, place.base_url, api_key=key, **place.fields)
            has_its_outcome(fault, way, model)
            times = {"yes": 1 + fault.is_sent_again, "no": 0, "unknown": 0}[fault.sent]
            assert len(place.requests) == times
        return
    with WireServer() as server:
        server.answer(fault.script)
        model = model_for(fault, server.base_url, api_key=key)
        for asked in range(1, fault.asks + 1):
            has_its_outcome(fault, way, model)
            # What comes behind an answer is there before the next call, which must see it.
            assert asked == fault.asks or until(lambda asked=asked: server.answered == asked)
        assert len(server.requests) == fault.asks * (1 + fault.is_sent_again)


@pytest.fixture(scope="module")
def side_by_side(request: pytest.FixtureRequest) -> Callable[[Any], dict[str, Future[None]]]:
    """Checks the slow rows of a way, all that this run has, at once; the results by name."""
    tests = [item.callspec.params for item in request.session.items if in_the_table(item)]

    @cache
    def check_all(way: Any) -> dict[str, Future[None]]:
        faults = [test["fault"] for test in tests if test["way"] is way]
        results = {}
        with ThreadPoolExecutor(len(FAULTS)) as pool:
            for fault in faults:
                if fault.is_slow:
                    results[fault.name] = pool.submit(check, fault, way)
                    time.sleep(0.01)  # so that they do not all work at the same moments
        return results

    return check_all


def in_the_table(item: Any) -> bool:
    return getattr(item, "function", None) is test_a_fault_has_its_outcome


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_has_its_outcome(fault: Fault, way: Any, side_by_side: Any) -> None:
    if fault.is_slow:
        side_by_side(way)[fault.name].result()
    else:
        check(fault, way)


def test_every_row_has_a_name_of_its_own() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(
    model: ChatThinnest, wire: WireServer, way: Any, status: int
) -> None:
    with WireServer() as elsewhere:
        elsewhere.answer(stream(WHOLE))
        wire.answer(refusal(status, b"", {"Location": f"{elsewhere.base_url}/chat/stream"}))
        with pytest.raises(ThinnestProtocolError, match="not followed"):
            way(model, "hi")
        assert elsewhere.connections == 0
        assert len(wire.requests) == 1


# --- cut at every byte ---

BODY = as_printed(*EVENTS)
ENDS = [  # of each line, without its line end
    len(b"\n".join(lines(*EVENTS[: count + 1]))) for count in range(len(EVENTS))
]
CHUNKED = head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})


def cuts(server: WireServer, kind: str) -> Iterator[tuple[str, bool]]:
    """Set the server to cut the example at each byte in turn, and say what must come of it."""
    for at in range(len(BODY) + 1):
        begin = CHUNKED + b"%x\r\n" % len(BODY) if kind != "end" else head()
        last: Step = Reset() if kind == "reset" else Close()
        server.answer([begin + BODY[:at], last])
        arrived = [event for event, end in zip(EVENTS, ENDS, strict=True) if end <= at]
        yield "".join(event.get("content", "") for event in arrived), at == len(BODY)


@pytest.mark.parametrize("kind", ["close", "reset", "end"])
def test_a_cut_at_any_byte_of_a_sync_stream(
    model: ChatThinnest, wire: WireServer, kind: str
) -> None:
    for text, is_whole in cuts(wire, kind):
        streamed, partial = "", None
        try:
            for piece in model.stream("hi"):
                streamed += piece.text
        except ThinnestInterruptedError as error:
            partial = error.partial.text
        assert streamed == text
        assert partial == (None if is_whole else text)
    assert len(wire.requests) == len(BODY) + 1


@pytest.mark.parametrize("kind", ["close", "reset", "end"])
async def test_a_cut_at_any_byte_of_an_async_stream(
    model: ChatThinnest, wire: WireServer, kind: str
) -> None:
    for text, is_whole in cuts(wire, kind):
        streamed, partial = "", None
        try:
            async for piece in model.astream("hi"):
                streamed += piece.text
        except ThinnestInterruptedError as error:
            partial = error.partial.text
        assert streamed == text
        assert partial == (None if is_whole else text)
    assert len(wire.requests) == len(BODY) + 1


# --- after `done` ---


def test_the_last_chunk_does_not_wait_for_the_server_to_close(
    model: ChatThinnest, wire: WireServer
) -> None:
    wire.answer([CHUNKED + chunk(WHOLE), Wait(LONG)])
    times: dict[str | None, float] = {}

    async def read() -> None:
        async for piece in model.astream("hi"):
            times[piece.chunk_position] = time.monotonic()

    for piece in model.stream("hi"):
        times[piece.chunk_position] = time.monotonic()
    assert time.monotonic() - times["last"] > 0.3  # of the 0.5 s that are waited behind it
    asyncio.run(read())
    assert time.monotonic() - times["last"] > 0.3


@pytest.mark.parametrize("after", [Wait(LONG), Close(), Reset()])
def test_the_next_call_does_not_suffer(
    model: ChatThinnest, wire: WireServer, way: Any, after: Step
) -> None:
    wire.answer([CHUNKED + chunk(WHOLE), after], stream(WHOLE))
    assert way(model, "hi").text == TEXT
    assert way(model, "hi").text == TEXT


# --- the table for people ---


def test_the_page_is_up_to_date() -> None:
    page = Path(__file__).parents[1] / "docs" / "faults.md"
    assert page.read_text(encoding="utf-8") == markdown()


def test_the_breaks_fit_the_code() -> None:
    """`break_faults.py` changes lines, which must be there; running it takes long."""
    from integration_tests.break_faults import BREAKS, PACKAGE  # which imports this file

    for broken in BREAKS:
        for file, old, _ in broken.edits:
            source = (PACKAGE / file).read_text(encoding="utf-8")
            assert source.count(old) == 1, (broken.what, old)
