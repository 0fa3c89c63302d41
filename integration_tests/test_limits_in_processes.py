"""Limits where things go wrong: each case in a process of its own, so that a hang fails."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle
import re
import shutil
import sqlite3
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain_core.rate_limiters import BaseRateLimiter
from pydantic import SecretStr, ValidationError

from integration_tests.conftest import KEY, Make, echo_agent
from integration_tests.test_lifetime import ends_well, until
from integration_tests.wire import Watch, WireServer, refusal, stream
from langchain_thinnest import ChatThinnest, ThinnestRateLimitError
from langchain_thinnest._http.shared_store import store_at
from langchain_thinnest._http.store import account_for
from langchain_thinnest.emulator import ThinnestEmulator
from unit_tests.contract import EVENTS, TEXT, as_sse

PROCESSES = "limit_processes"
WHOLE = stream(as_sse(*EVENTS))


def emulator(**limits: Any) -> ThinnestEmulator:
    return ThinnestEmulator({"ag_echo": echo_agent}, api_keys=[KEY], **limits)


def model_of(server: Any, **fields: Any) -> ChatThinnest:
    return ChatThinnest(agent_id="ag_echo", api_key=KEY, base_url=server.base_url, **fields)


def test_loops_that_stand_still_hold_nobody_up(in_a_process: Any) -> None:
    with contextlib.ExitStack() as stack:
        running = {}
        for case in ("loop_that_is_blocked", "loop_that_is_closed"):
            server = stack.enter_context(emulator(requests_per_window=1, window_seconds=0.8))
            running[case] = in_a_process(case, server.base_url, module=PROCESSES)
        all_end_well(running)


def test_interrupts_at_any_moment_leave_no_place_behind(in_a_process: Any) -> None:
    with emulator() as server:
        ends_well(in_a_process("interrupted", server.base_url, module=PROCESSES))


def all_end_well(running: dict[str, Any]) -> None:
    """Wait for processes that run side by side, since they mostly wait themselves."""
    for case, process in running.items():
        print(case)
        ends_well(process)


def window(limit: int | str, remaining: int, reset: float) -> dict[str, str]:
    return {
        "X-RateLimit-Limit": str(limit),
        "X-RateLimit-Remaining": str(remaining),
        "X-RateLimit-Reset": str(int(reset)),
    }


def nonsense() -> dict[str, dict[str, str]]:
    soon = time.time() + 2
    return {
        "limit 0": window(0, 0, soon),
        "milliseconds": window(30, 0, soon * 1000),
        "years away": window(30, 0, soon + 10 * 365 * 86_400),
        "long ago": window(30, 0, 0),
        "stale date": {**window(30, 0, soon), "Date": "Thu, 01 Jan 2015 00:00:00 GMT"},
        "no limit": window("none", 0, soon),
    }


def test_headers_that_make_no_sense_close_no_key(in_a_process: Any) -> None:
    with contextlib.ExitStack() as stack:
        running = {}
        for case, headers in nonsense().items():
            wire = stack.enter_context(WireServer())
            wire.answer(stream(as_sse(*EVENTS), headers=headers))
            running[case] = in_a_process("answers", wire.base_url, "2", "40", module=PROCESSES)
        all_end_well(running)


def test_one_long_wait_rests_one_call_alone(
    wired: Make, wire: WireServer, in_a_process: Any
) -> None:
    wire.answer(refusal(429, headers={"Retry-After": "86400"}), WHOLE)
    with pytest.raises(ThinnestRateLimitError) as caught:
        wired().invoke("hi")
    assert caught.value.retry_after == 86_400
    ends_well(in_a_process("answers", wire.base_url, "1", "20", module=PROCESSES))
    assert wired().invoke("hi").text == TEXT


# --- streams at once ---


def slow_agent(message: str, session: Any) -> Iterator[str]:
    yield message
    time.sleep(0.05)


def test_max_streams_is_kept_without_a_refusal_by_threads_and_tasks() -> None:
    with ThinnestEmulator(
        {"ag_echo": slow_agent}, api_keys=[KEY], max_connections=2
    ) as server:
        model = model_of(server, max_streams=2, max_retries=1)

        def tasks() -> list[Any]:
            return asyncio.run(model.abatch(["hi"] * 30))

        with ThreadPoolExecutor() as pool:
            beside = pool.submit(tasks)
            assert len(model.batch(["hi"] * 30)) == len(beside.result()) == 30
        assert len(server.requests) == 60
        assert server.refused == 0


def test_a_call_inside_an_open_stream_goes_beyond_max_streams() -> None:
    with emulator() as server:
        model = model_of(server, max_streams=1)
        for _ in model.stream("outer"):
            assert model.invoke("inner").text == "0: inner"

        async def run() -> None:
            async for _ in model.astream("outer"):
                assert (await model.ainvoke("inner")).text == "0: inner"
                assert model.invoke("inner").text == "0: inner"

        asyncio.run(run())


def test_the_error_of_a_call_inside_an_open_stream_says_why(
    wired: Make, wire: WireServer
) -> None:
    go_on = threading.Event()
    wire.answer([*WHOLE[:2], Watch(go_on)], refusal(429))
    model = wired(max_streams=1, max_retries=0)
    chunks = model.stream("outer")
    next(chunks)
    with pytest.raises(ThinnestRateLimitError, match="had a stream open"):
        model.invoke("inner")
    chunks.close()  # type: ignore[attr-defined]


def test_who_wants_no_retries_waits_for_no_stream(wired: Make, wire: WireServer) -> None:
    closed = threading.Event()
    wire.answer([*WHOLE[:2], Watch(closed)], WHOLE)
    chunks = wired(max_streams=1).stream("outer")
    next(chunks)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(wired(max_streams=1, max_retries=0).invoke, "hi")
        with pytest.raises(ThinnestRateLimitError, match="nothing was sent"):
            call.result(5)
        assert len(wire.requests) == 1
        assert pool.submit(wired(max_retries=0).invoke, "asks").result(5).text == TEXT
    chunks.close()  # type: ignore[attr-defined]


def test_waiting_is_told_once(
    wired: Make, wire: WireServer, caplog: pytest.LogCaptureFixture
) -> None:
    """By a clock that runs ten times as fast."""
    account = account_for(wire.base_url, SecretStr(KEY))
    account.clock = lambda: 10 * time.monotonic()
    wire.answer([*WHOLE[:2], Watch(threading.Event())], WHOLE)
    caplog.set_level(logging.INFO, "langchain_thinnest")
    chunks = wired(max_streams=1).stream("outer")
    next(chunks)
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(wired(max_streams=1).invoke, "hi") for _ in range(3)]
        assert until(lambda: "max_streams=1" in caplog.text, 20)
        chunks.close()  # type: ignore[attr-defined]
        assert [call.result(10).text for call in calls] == [TEXT] * 3
    assert caplog.text.count("Calls have waited for 10 s") == 1


def test_a_server_that_only_refuses_is_given_up_on(wired: Make, wire: WireServer) -> None:
    wire.answer(refusal(429, headers={"Retry-After": "0"}))
    with ThreadPoolExecutor(20) as pool:
        model = wired(max_retries=2, max_retry_wait=0.5)
        calls = [pool.submit(model.invoke, "hi") for _ in range(20)]
        for call in calls:
            with pytest.raises(ThinnestRateLimitError):
                call.result(50)
    assert len(wire.requests) <= 3 * 20


# --- stores that processes share ---


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A `redis-server` on a free port; its URL."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed: the stores were tested on SQLite alone")
    pytest.importorskip("redis")
    folder = tmp_path_factory.mktemp("redis")

    def serves() -> bool:
        return "Ready to accept" in (folder / "log").read_text()

    for _ in range(3):  # another process may take the free port first
        with WireServer() as free:
            port = free.base_url.rpartition(":")[2]
        command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", ""]
        command += ["--requirepass", "secret-word", "--dir", str(folder)]
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log)
        if until(lambda: serves() or server.poll() is not None, 20) and serves():  # noqa: B023
            break
    assert serves()
    yield f"redis://:secret-word@127.0.0.1:{port}/0"
    server.terminate()
    server.wait(10)


@pytest.fixture(params=["sqlite", "redis"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/limits.db"
    url: str = request.getfixturevalue("redis_server")
    import redis

    with redis.Redis.from_url(url) as client:
        client.flushall()
    return url


def test_processes_count_together(shared: str, in_a_process: Any) -> None:
    """Forked and spawned ones, side by side, each with a server of their own."""
    methods = ["spawn", *(["fork"] if hasattr(os, "fork") else [])]
    limits = {
        "requests_per_window": 20,
        "window_seconds": 1.8,  # two seconds, as the headers say it
        "max_connections": 2,
    }
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(emulator(**limits)) for _ in methods]
        running = {
            method: in_a_process("fleet", server.base_url, shared, method, module=PROCESSES)
            for method, server in zip(methods, servers, strict=True)
        }
        all_end_well(running)
        for server in servers:
            assert len(server.requests) == 34
            assert server.refused <= 4


def test_the_places_of_a_killed_worker_come_back(shared: str, in_a_process: Any) -> None:
    lease = 4.0

    def agent(message: str, session: Any) -> Iterator[str]:
        yield message
        time.sleep(60 if message == "slow" else 0)

    with ThinnestEmulator({"ag_echo": agent}, api_keys=[KEY]) as server:
        store_at(shared).lease = lease
        asked = (server.base_url, shared, str(lease))
        worker = in_a_process("holds_streams", *asked, module=PROCESSES)
        assert worker.stdout is not None
        assert [worker.stdout.readline() for _ in range(2)] == ["open\n"] * 2
        worker.kill()
        worker.communicate(timeout=60)
        began = time.monotonic()
        model = model_of(server, shared_limits=shared, max_streams=2)
        assert model.invoke("hi").text == "hi"
        assert 1 < time.monotonic() - began < 15


async def test_async_calls_do_not_block_the_loop(shared: str) -> None:
    with emulator() as server:
        model = model_of(server, shared_limits=shared, max_streams=2)
        answers = await model.abatch([f"{n}" for n in range(20)])
        assert [answer.text for answer in answers] == [f"0: {n}" for n in range(20)]


async def test_a_cancelled_task_gives_back_what_it_booked(shared: str) -> None:
    with emulator() as server:
        model = model_of(server, shared_limits=shared, max_streams=1)
        await model.ainvoke("first")
        for number in range(60):
            task = asyncio.create_task(model.ainvoke("hi"))
            await asyncio.sleep(number * 0.0002)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await asyncio.wait_for(model.ainvoke("last"), 10)


def test_a_pickled_model_keeps_its_store(shared: str) -> None:
    with emulator() as server:
        model = pickle.loads(pickle.dumps(model_of(server, shared_limits=shared)))
        assert model.invoke("hi").text == "0: hi"
        assert model.shared_limits.get_secret_value() == shared


def test_the_thread_ends_when_no_stream_is_open(shared: str) -> None:
    def threads() -> int:
        return sum(each.name == "langchain-thinnest-limits" for each in threading.enumerate())

    with emulator() as server:
        store_at(shared).linger = 0.3
        chunks = model_of(server, shared_limits=shared).stream("hi")
        next(chunks)
        time.sleep(1.0)
        assert until(lambda: threads() == 1, 5)  # an earlier test's ends by then
        list(chunks)
    assert until(lambda: threads() == 0, 5)


def test_the_file_is_its_owners_alone_and_holds_no_key(tmp_path: Path) -> None:
    path = tmp_path / "limits.db"
    with emulator() as server:
        model_of(server, shared_limits=f"sqlite:///{path}").invoke("hi")
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert KEY.encode() not in file.read_bytes()


@pytest.mark.parametrize("trouble", ["gone", "locked", "no database", "no server"])
def test_a_store_out_of_reach_is_told_once_and_calls_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    url = f"sqlite:///{folder}/limits.db"
    if trouble == "no server":
        pytest.importorskip("redis")
        url = "redis://:secret-word@127.0.0.1:1/0"
    with emulator(max_connections=2) as server, contextlib.ExitStack() as stack:
        model = model_of(server, shared_limits=url, max_streams=2)
        if trouble == "gone":
            folder.rmdir()
        elif trouble == "no database":
            (folder / "limits.db").write_bytes(b"something else" * 1000)
        elif trouble == "locked":
            other = stack.enter_context(
                contextlib.closing(sqlite3.connect(folder / "limits.db"))
            )
            other.execute("BEGIN EXCLUSIVE")
        for _ in range(3):
            assert model.invoke("hi").text == "0: hi"
        assert len(asyncio.run(model.abatch(["hi"] * 10))) == 10
        assert server.refused == 0
    assert caplog.text.count("out of reach") == 1
    assert "secret-word" not in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        "limits.db",
        "",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:/x",
        "sqlite://host/limits.db",
        "sqlite:////no/such/folder/limits.db",
        "sqlite:////tmp",
        "sqlite:////tmp/x.db?mode=ro",
        "redis://",
        "redis://:secret-word@host:port/0",
        "redis://:secret-word@host/zero",
        "memcached://:secret-word@host",
        "mysql://user:secret-word@host/0",
    ],
)
def test_a_bad_url_is_refused_when_the_model_is_made(make: Make, url: str) -> None:
    with pytest.raises(ValidationError, match="shared_limits") as caught:
        make(shared_limits=url)
    assert "secret-word" not in str(caught.value)
    assert "secret-word" not in repr(caught.value.errors())


def test_the_environment_names_a_store(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("THINNEST_SHARED_LIMITS", f"sqlite:///{tmp_path}/limits.db")
    assert make("ag_echo").invoke("hi").text == "0: hi"
    assert (tmp_path / "limits.db").exists()


def test_a_password_is_shown_nowhere(make: Make, tmp_path: Path) -> None:
    pytest.importorskip("redis")
    from langchain_core.load import dumps

    model = make(shared_limits="redis://:secret-word@127.0.0.1:1/0")
    shown = [repr(model), str(model), dumps(model), str(model.model_dump())]
    shown += [str(model._identifying_params), str(model._get_llm_string())]
    assert not any("secret-word" in text for text in shown)


class Elsewhere(BaseRateLimiter):
    """A limiter that counts in another place, as one in Redis does."""

    def acquire(self, *, blocking: bool = True) -> bool:
        return True

    async def aacquire(self, *, blocking: bool = True) -> bool:
        return True


def test_a_rate_limiter_that_can_be_pickled_goes_along(make: Make) -> None:
    model = pickle.loads(pickle.dumps(make(rate_limiter=Elsewhere())))
    assert isinstance(model.rate_limiter, Elsewhere)


def test_the_example_of_the_page_on_workers_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).parents[1] / "docs" / "many-workers.md"
    (snippet,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    snippet = snippet.replace("//tmp/", f"/{tmp_path}/")
    with ThinnestEmulator({"ag_echo": echo_agent}, api_keys=[KEY]) as server:
        monkeypatch.setenv("THINNEST_API_KEY", KEY)
        monkeypatch.setenv("THINNEST_AGENT_ID", "ag_echo")
        monkeypatch.setenv("THINNEST_BASE_URL", server.base_url)
        names: dict[str, Any] = {}
        exec(snippet, names)
        assert names["model"].invoke("hi").text == "0: hi"
    assert (tmp_path / "thinnest-limits.db").exists()
