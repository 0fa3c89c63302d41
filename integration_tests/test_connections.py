"""A connection carries only its own answer, and closing it cannot be interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from integration_tests.conftest import Make
from integration_tests.test_lifetime import BEGIN, WHOLE, until
from integration_tests.transports import GIVEN, fails_whole_answers
from integration_tests.ways import in_each_at_once
from integration_tests.wire import (
    END,
    HEADERS,
    Repeat,
    Step,
    Wait,
    WireServer,
    chunk,
    head,
    stream,
)
from langchain_thinnest import (
    ThinnestConnectionError,
    ThinnestError,
    ThinnestInterruptedError,
    ThinnestProtocolError,
    ThinnestRequestError,
)
from unit_tests.contract import EVENTS, TEXT, as_sse

OTHER = stream(as_sse({"type": "text", "content": "another's"}, {"type": "done"}))


@pytest.mark.parametrize(
    "extra", [b"\r\n", b"x", b"".join(OTHER)], ids=["crlf", "x", "answer"]
)  # type: ignore[arg-type]
@pytest.mark.parametrize("is_late", [False, True], ids=["at once", "late"])
def test_what_follows_an_answer_reaches_no_other_call(
    wired: Make, wire: WireServer, way: Any, extra: bytes, is_late: bool
) -> None:
    """It comes with the answer, or when the call has given its connection back."""
    model = wired()
    for asked in range(1, 4):
        is_over = threading.Event()
        late = [*WHOLE, Wait(is_over), extra]
        wire.answer(late if is_late else [b"".join(WHOLE) + extra])  # type: ignore[arg-type]
        if extra == b"x" and not is_late and fails_whole_answers(way):
            with pytest.raises(ThinnestProtocolError, match="is not HTTP"):
                way(model, "hi")
        else:
            assert way(model, "hi").text == TEXT
        is_over.set()
        assert until(lambda asked=asked: wire.answered == asked)


@pytest.mark.parametrize("given", [False, True], ids=["own", "given"])
def test_a_zipped_answer_gives_its_connection_back_once(
    wired: Make, wire: WireServer, given: bool
) -> None:
    """Its end is known to httpx alone: nobody reads on a connection that others have."""
    body = gzip.compress(as_sse(*EVENTS).rstrip())  # the last line ends with the body
    fields = {"Content-Encoding": "gzip", "Content-Length": str(len(body))}
    wire.answer([head(200, {**HEADERS, **fields}) + body])
    with GIVEN.Client() if given else contextlib.nullcontext() as client:
        model = wired(http_client=client, timeout=2.0)
        with ThreadPoolExecutor(8) as pool:
            texts = list(pool.map(lambda _: model.invoke("hi").text, range(100)))
    assert texts == [TEXT] * 100


def test_cookies_do_not_travel_between_keys(wired: Make, wire: WireServer, way: Any) -> None:
    wire.answer(stream(as_sse(*EVENTS), headers={"Set-Cookie": "a=gr\u00fc\u00df; Path=/"}))
    for key in ("ak_1", "ak_2", "ak_2"):
        assert way(wired(api_key=key), "hi").text == TEXT
    assert not any("cookie" in request.headers for request in wire.requests)


@pytest.mark.parametrize(
    "rest", [Repeat(chunk(b": ping\n"), 0.05), Wait(5.0)], ids=["heartbeats", "silence"]
)
def test_heartbeats_do_not_hide_a_stall_and_silence_is_one_too(
    wired: Make, wire: WireServer, rest: Step
) -> None:
    wire.answer([*BEGIN, rest])

    def check(way: Any) -> None:
        with pytest.raises(ThinnestInterruptedError, match="`stall_timeout`") as caught:
            way(wired(stall_timeout=0.5), "hi")
        assert caught.value.partial.text == EVENTS[0]["content"]

    in_each_at_once(check)


@pytest.mark.parametrize(
    "proxy", ["socks://127.0.0.1:1", "gopher://x", "socks5://127.0.0.1:1"]
)
def test_a_proxy_that_cannot_be_used_is_named_by_its_variable(
    wired: Make, wire: WireServer, way: Any, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ThinnestRequestError, match="ALL_PROXY"):
        way(wired(base_url="https://thinnest.invalid"), "hi")
    wire.answer(WHOLE)
    assert way(wired(), "hi").text == TEXT  # loopback has no proxy


@pytest.mark.parametrize(
    ("base_url", "no_proxy", "is_direct"),
    [
        ("https://[2001:db8::1]", "2001:db8::1", True),
        ("https://[2001:db8::1]", "[2001:db8::1]", True),
        ("https://[2001:db8::1]:8443", "[2001:db8::1]:8443", True),
        ("https://[2001:db8::1]", "2001:db8::2", False),
        ("https://thinnest.invalid", "invalid", True),
        ("https://thinnest.invalid", ".invalid", True),
        ("https://thinnest.invalid", "thinnest.invalid:443", True),
        ("https://thinnest.invalid", "a.invalid, [::1], 10.0.0.0/8", False),
        ("https://thinnest.invalid", "*", True),
    ],
)
def test_no_proxy_is_read(
    wired: Make,
    wire: WireServer,
    base_url: str,
    no_proxy: str,
    is_direct: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wire.answer([head(403, {"Content-Length": "0"})])
    monkeypatch.setenv("ALL_PROXY", wire.base_url.removeprefix("http://"))  # a bare host
    monkeypatch.setenv("NO_PROXY", no_proxy)
    with pytest.raises(ThinnestError, match="was not sent"):
        wired(base_url=base_url, max_retries=0, timeout=0.2).invoke("hi")
    assert (not wire.requests) is is_direct


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.8.0.1"])
def test_loopback_has_no_proxy(
    wired: Make, wire: WireServer, way: Any, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.setenv(name.lower(), "http://127.0.0.1:1")
    wire.answer(WHOLE)
    model = wired(base_url=wire.base_url.replace("127.0.0.1", host), timeout=5.0)
    if host != "127.8.0.1":  # the server listens on one address
        assert way(model, "hi").text == TEXT
        return
    with pytest.raises(ThinnestConnectionError, match="Could not connect"):
        way(wired(base_url=model.base_url, max_retries=0), "hi")


@pytest.mark.parametrize("status", [403, 407])
def test_a_proxy_that_refuses_is_final(
    wired: Make, wire: WireServer, way: Any, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire.answer([head(status, {"Content-Length": "0"})])
    monkeypatch.setenv("HTTPS_PROXY", wire.base_url)
    with pytest.raises(ThinnestConnectionError, match=f"{status}.*was not sent") as caught:
        way(wired(base_url="https://thinnest.invalid"), "hi")
    assert not caught.value.is_retryable
    assert len(wire.requests) == 1


def test_an_empty_file_of_authorities_is_named(
    wired: Make, way: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty.pem").touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "empty.pem"))
    with pytest.raises(ThinnestConnectionError, match=r"SSL_CERT_FILE.*was not sent"):
        way(wired(base_url="https://127.0.0.1:1"), "hi")


def test_the_clear_text_guard_cannot_be_walked_around(wired: Make, way: Any) -> None:
    model = wired()
    model.base_url = "http://example.invalid"
    for one in (model, wired().model_copy(update={"base_url": "http://example.invalid"})):
        with pytest.raises(ThinnestRequestError, match="in the clear"):
            way(one, "hi")


def test_a_hook_that_raises_has_sent_nothing(wired: Make, wire: WireServer) -> None:
    def hook(request: httpx.Request) -> None:
        raise httpx.ReadTimeout("no token")

    with (
        GIVEN.Client(event_hooks={"request": [hook]}) as client,
        pytest.raises(ThinnestError, match="was not sent"),
    ):
        wired(http_client=client).invoke("hi")
    assert not wire.requests


# --- threads ---


def test_no_thread_of_ours_runs(wired: Make, wire: WireServer, way: Any) -> None:
    go_on = threading.Event()
    wire.answer([*BEGIN, Wait(go_on), chunk(as_sse(*EVENTS[1:])), END])
    before = set(threading.enumerate())
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(way, wired(), "hi")
        assert until(lambda: len(wire.requests) == 1)
        threading.Event().wait(0.05)  # until it reads the body
        names = {thread.name for thread in threading.enumerate() if thread not in before}
        go_on.set()
        assert answer.result().text == TEXT
    assert all("_accept" in name or "_serve" in name or "Pool" in name for name in names), (
        names
    )
    assert not any("thinnest" in name for name in names)


# --- loops ---


def test_a_loop_that_is_closed_barely_leaves_no_socket(wired: Make, wire: WireServer) -> None:
    wire.answer(WHOLE)
    model = wired()

    def sockets() -> int:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    def ask() -> None:
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(model.ainvoke("hi")).text == TEXT
        loop.close()

    ask()
    before = sockets()
    for _ in range(10):
        ask()
    assert sockets() <= before
