"""Where the numbers of limits live: one contract, whatever the store."""

from __future__ import annotations

import asyncio
import itertools
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from langchain_thinnest._http import backends, shared_store
from langchain_thinnest._http.admission import Lease
from langchain_thinnest._http.backends import Op, open_backend
from langchain_thinnest._http.limit_types import Question, Reply, ReportedLimit
from langchain_thinnest._http.limits import Limits
from langchain_thinnest._http.shared_store import SharedAccount, SharedStore, store_at
from langchain_thinnest._http.store import Account, MemoryAccount
from unit_tests.answers import stream
from unit_tests.conftest import KEY, Make
from unit_tests.contract import EVENTS, TEXT, as_sse
from unit_tests.network import Clock, Network, Side
from unit_tests.test_admission import last_of

NOTHING = ReportedLimit()
USED_UP = ReportedLimit(limit=1, remaining=0, reset=1e9, seconds=30.0)


class InMemory:
    """A backend that does what a test says."""

    pace = 0.01
    errors = (OSError,)

    def __init__(self) -> None:
        self.states: dict[str, Limits] = {}
        self.trouble: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.applied = 0
        self.is_closed = False

    def apply(self, name: str, op: Op[Any], *, is_read: bool) -> Any:
        self.applied += 1
        self.entered.set()
        self.gate.wait()
        if self.trouble is not None:
            raise self.trouble
        return op(self.states.setdefault(name, Limits()), time.monotonic())

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def opened() -> Iterator[list[SharedStore]]:
    """The stores that a test opens; they end with it."""
    stores: list[SharedStore] = []
    yield stores
    for store in stores:
        store.finish()


@pytest.fixture(params=["memory", "in-memory", "sqlite", "redis"])
def another(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    opened: list[SharedStore],
) -> Callable[[], Account]:
    """Makes the same account as others see it: other processes, if they share a store."""
    if request.param == "memory":
        account = MemoryAccount()
        return lambda: account
    if request.param == "redis":
        redis, fake = pytest.importorskip("redis"), pytest.importorskip("fakeredis")
        pytest.importorskip("lupa")
        monkeypatch.setattr(redis, "Redis", fake.FakeRedis)
    in_memory = InMemory()
    urls = {"sqlite": f"sqlite:///{tmp_path}/limits.db", "redis": f"redis://{tmp_path.name}/0"}

    def make() -> Account:
        url = urls.get(request.param)
        opened.append(SharedStore(open_backend(url) if url else in_memory))
        return SharedAccount(opened[-1], "http://localhost", SecretStr(KEY))

    return make


def tell(account: Account) -> None:
    """See to it that the store has heard of all so far: things are done in order."""
    if isinstance(account, SharedAccount):
        account._store.submit(account.name, lambda *_: None).result(5)


ASIDE = (-1, False)  # an owner: another thread


class Caller:
    """A call that asks an account, sync or async."""

    def __init__(self, account: Account, *, is_async: bool, max_streams: int | None = None):
        self.account, self.is_async = account, is_async
        self.ticket = account.new_id()
        self.lease = Lease(account, ASIDE)
        self.arrived: float | None = None
        self.max_streams = max_streams

    def ask(self) -> Reply:
        question = Question(self.ticket, self.arrived, self.lease.id, self.max_streams)
        if self.is_async:
            reply = asyncio.run(self.account.aask(question))
        else:
            reply = self.account.ask(question)
        self.arrived = reply.arrived
        return reply

    def refuse(self, reported: ReportedLimit) -> tuple[int, int, float]:
        given = (self.lease.id, self.ticket, self.arrived, reported)
        if self.is_async:
            return asyncio.run(self.account.arefused(*given))
        return self.account.refused(*given)


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def caller(request: pytest.FixtureRequest) -> Callable[..., Caller]:
    return lambda account, **fields: Caller(account, is_async=request.param, **fields)


def test_streams_of_all_are_counted_together(
    another: Callable[[], Account], caller: Callable[..., Caller]
) -> None:
    first = caller(another(), max_streams=1)
    second = caller(another(), max_streams=1)
    assert first.ask().is_admitted
    reply = second.ask()
    assert not reply.is_admitted
    assert 0 < reply.sleep <= 1.0
    first.lease.end()
    first.account.release(first.ticket)
    tell(first.account)
    assert second.ask().is_admitted


def test_a_window_that_one_uses_up_is_closed_for_all(
    another: Callable[[], Account], caller: Callable[..., Caller]
) -> None:
    first, second = caller(another()), caller(another())
    assert first.ask().is_admitted
    first.account.accepted(first.lease.id, USED_UP)
    tell(first.account)
    reply = second.ask()
    assert not reply.is_admitted
    assert 29 < reply.closed < 31


def test_refusals_of_all_are_counted_together(
    another: Callable[[], Account], caller: Callable[..., Caller]
) -> None:
    first, second = caller(another()), caller(another())
    assert first.ask().is_admitted
    assert second.ask().is_admitted
    for number, each in enumerate((first, second)):
        accepts, refusals, seconds = each.refuse(NOTHING)
        assert (accepts, refusals) == (0, number + 1)
        assert 0 <= seconds < 10


def test_a_lease_that_nobody_holds_any_more_ends(
    another: Callable[[], Account], caller: Callable[..., Caller], collect: Callable[[], int]
) -> None:
    account = another()
    first = caller(account, max_streams=1)
    assert first.ask().is_admitted
    del first
    collect()
    assert caller(account, max_streams=1).ask().is_admitted


# --- the thread that talks to a shared store ---


@pytest.fixture
def backend() -> InMemory:
    return InMemory()


@pytest.fixture
def account(backend: InMemory, opened: list[SharedStore], clock: Clock) -> SharedAccount:
    opened.append(SharedStore(backend))
    return SharedAccount(opened[-1], "http://localhost", SecretStr(KEY))


def test_a_store_out_of_reach_is_told_once_and_this_process_counts_for_itself(
    backend: InMemory,
    clock: Clock,
    account: SharedAccount,
    caller: Callable[..., Caller],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "langchain_thinnest")
    backend.trouble = OSError("gone")
    first = caller(account, max_streams=1)
    assert first.ask().is_admitted
    assert not caller(account, max_streams=1).ask().is_admitted
    assert backend.applied == 1
    clock.pass_(5.1)  # then it is tried again
    assert not caller(account, max_streams=1).ask().is_admitted
    assert backend.applied == 2
    clock.pass_(5.1)
    backend.trouble = None
    assert caller(account).ask().is_admitted
    assert backend.states
    away, back = (record.getMessage() for record in caplog.records)
    assert away.startswith("The store of shared_limits is out of reach (OSError).")
    assert back == "The store of shared_limits is back."


def test_leases_are_renewed_as_long_as_streams_are_open(
    backend: InMemory, clock: Clock, account: SharedAccount, caller: Callable[..., Caller]
) -> None:
    held, other = caller(account), caller(account)
    assert held.ask().is_admitted
    (state,) = backend.states.values()
    for _ in range(10):
        clock.pass_(6.0)
        assert caller(account).ask().is_admitted
    assert held.lease.id in state.leases
    held.lease.end()
    other.ask()
    assert held.lease.id not in state.leases


def test_those_far_behind_need_not_ask_the_store(
    backend: InMemory, clock: Clock, account: SharedAccount, caller: Callable[..., Caller]
) -> None:
    first = caller(account, max_streams=1)
    first.ask()
    waiting = [caller(account, max_streams=1) for _ in range(30)]
    for each in waiting:
        each.ask()
    asked = backend.applied
    replies = [each.ask() for each in waiting]
    assert backend.applied == asked + 2
    sleeps = [reply.sleep for reply in replies]
    assert not any(reply.is_admitted for reply in replies)
    assert sleeps[2] < sleeps[-1] <= 1.0
    clock.pass_(3.0)  # those that ask no more are not waited behind
    assert waiting[-1].ask().sleep < 0.1


def test_a_store_that_hangs_holds_no_call_up(
    backend: InMemory,
    account: SharedAccount,
    caller: Callable[..., Caller],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_store, "_ANSWER", 0.01)  # seconds, of a lock's own clock
    backend.gate.clear()
    assert Caller(account, is_async=False).ask().is_admitted
    backend.gate.set()


def test_what_nobody_waits_for_any_more_is_not_done(
    backend: InMemory, account: SharedAccount
) -> None:
    async def main() -> None:
        backend.gate.clear()
        busy = asyncio.ensure_future(account.aask(Question("a", None, "a!")))
        await asyncio.sleep(0)
        assert backend.entered.wait(5)
        given_up = asyncio.ensure_future(account.aask(Question("b", None, "b!")))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.sleep(0)
        backend.gate.set()
        assert (await busy).is_admitted
        await account.aask(Question("c", None, "c!"))

    asyncio.run(main())
    (state,) = backend.states.values()
    assert "b!" not in state.leases
    assert {"a!", "c!"} <= state.leases.keys()


def test_a_fault_of_a_store_is_the_callers_to_see(
    backend: InMemory, account: SharedAccount, caller: Callable[..., Caller]
) -> None:
    backend.trouble = RuntimeError("a mistake")
    with pytest.raises(RuntimeError, match="a mistake"):
        caller(account).ask()
    backend.trouble = None
    assert caller(account).ask().is_admitted


def test_the_thread_ends_when_no_stream_is_open(
    account: SharedAccount,
    opened: list[SharedStore],
    caller: Callable[..., Caller],
) -> None:
    opened[0].linger = 0.02  # seconds, of a queue's own clock
    held = caller(account)
    held.ask()
    thread: Any = opened[0]._thread
    thread.join(0.1)
    assert thread.is_alive()
    held.lease.end()
    thread.join(5.0)
    assert not thread.is_alive()
    assert caller(account).ask().is_admitted  # another one begins


def test_what_is_left_is_done_at_the_end(
    backend: InMemory, account: SharedAccount, opened: list[SharedStore]
) -> None:
    call = Caller(account, is_async=False)
    call.ask()
    call.lease.end()
    opened[0].finish()
    (state,) = backend.states.values()
    assert not state.leases
    assert backend.is_closed


# --- SQLite ---


@pytest.mark.parametrize("damage", [b"no database" * 1000, None])
def test_a_file_that_is_no_database_is_out_of_reach(
    tmp_path: Path, opened: list[SharedStore], caplog: Any, damage: bytes | None
) -> None:
    path = tmp_path / "folder" / "limits.db"
    if damage:
        path.parent.mkdir()
        path.write_bytes(damage)
    opened.append(SharedStore(open_backend(f"sqlite://{path}")))
    account = SharedAccount(opened[0], "http://localhost", SecretStr(KEY))
    assert Caller(account, is_async=False).ask().is_admitted
    assert "out of reach" in caplog.text


def test_a_file_is_its_owners_alone_and_keeps_what_is_used(
    tmp_path: Path, clock: Clock
) -> None:
    url = f"sqlite://{tmp_path}/limits.db"

    def ask(name: str, number: int) -> int:
        backend = open_backend(url)
        question = Question(f"t{number}", None, f"l{number}")
        backend.apply(name, lambda limits, now: limits.ask(question, now), is_read=True)
        found = backend.apply(name, lambda limits, now: len(limits.leases), is_read=False)
        backend.close()
        backend.close()
        return found

    assert [ask("mine", number) for number in range(2)] == [1, 2]
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert KEY.encode() not in file.read_bytes()
    clock.pass_(3601.0)
    assert ask("another's", 0) == 1
    assert ask("mine", 3) == 1  # what nobody used for an hour is gone


def test_a_step_that_fails_changes_nothing(tmp_path: Path) -> None:
    backend = open_backend(f"sqlite://{tmp_path}/limits.db")

    def fails(limits: Limits, now: float) -> None:
        limits.accepts += 1
        raise RuntimeError("a mistake")

    with pytest.raises(RuntimeError, match="a mistake"):
        backend.apply("x", fails, is_read=False)
    assert backend.apply("x", lambda limits, now: limits.accepts, is_read=False) == 0
    backend.close()


def test_redis_gives_up_where_others_change_the_state_each_time(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    redis, fake = pytest.importorskip("redis"), pytest.importorskip("fakeredis")
    pytest.importorskip("lupa")
    monkeypatch.setattr(redis, "Redis", fake.FakeRedis)
    mine, other = (open_backend("redis://contended/0") for _ in range(2))
    numbers = itertools.count()

    def ask(limits: Limits, now: float) -> None:
        clock.pass_(0.5)
        question = Question("t", None, f"theirs{next(numbers)}")
        other.apply("x", lambda limits, now: limits.ask(question, now), is_read=False)
        limits.ask(Question("t", None, "mine"), now)

    with pytest.raises(redis.RedisError, match="each time"):
        mine.apply("x", ask, is_read=False)
    assert next(numbers) == 4
    assert other.apply("x", lambda limits, now: "mine" in limits.leases, is_read=True) is False
    for backend in (mine, other):
        backend.close()


# --- from the user's side ---


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("limits.db", "must begin with sqlite:///"),
        ("memcached://:secret-word@host", "must begin with"),
        ("sqlite://", "must name a file"),
        ("sqlite://host/limits.db", "must name a file"),
        ("sqlite:////tmp/x.db?mode=ro", "must name a file"),
        ("sqlite:////no/such/folder/limits.db", "no file in a folder that exists"),
        ("sqlite:////tmp", "no file in a folder that exists"),
        ("redis://", "must be like redis://host:6379/0"),
        ("redis://:secret-word@host:port/0", "must be like"),
        ("redis://:secret-word@host/zero", "must be like"),
    ],
)
def test_a_bad_url_is_refused_when_the_model_is_made(make: Make, url: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said) as caught:
        make(shared_limits=url)
    assert "secret-word" not in str(caught.value) + repr(caught.value.errors())


def test_redis_needs_its_extra(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "redis", None)
    with pytest.raises(ValidationError, match=r"langchain-thinnest\[redis\]"):
        make(shared_limits="redis://host/0")


def test_a_drive_is_part_of_a_path() -> None:
    from urllib.parse import urlsplit

    assert backends._path(urlsplit("sqlite:///C:/my%20limits.db")) == "C:/my limits.db"
    assert backends._path(urlsplit("sqlite:////var/tmp/limits.db")) == "/var/tmp/limits.db"


def test_processes_share_what_one_learned(
    network: Network,
    side: Side,
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_store, "_stores", {})
    monkeypatch.setenv("THINNEST_SHARED_LIMITS", f"sqlite://{tmp_path}/limits.db")
    network.answer(last_of(30), stream(as_sse(*EVENTS)))
    assert side.invoke(make(), "hi").text == TEXT
    mine = store_at(os.environ["THINNEST_SHARED_LIMITS"])
    assert mine is store_at(os.environ["THINNEST_SHARED_LIMITS"])
    mine.finish()
    began = network.clock.now
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -3)
        assert side.invoke(make(), "hi").text == TEXT
        assert store_at(os.environ["THINNEST_SHARED_LIMITS"]) is not mine
        assert 28 < network.clock.now - began < 31
        shared_store._finish()
