"""Limits that processes share: the same arithmetic, on numbers in SQLite or Redis.

One daemon thread does everything with a store: what callers ask, what has ended, and the
renewal of leases. So the store's connection belongs to no event loop, async code never blocks,
and what is handed over is done in order. The thread ends when no stream is open.
A store that is out of reach is told once in the log. Until it is back, this process counts for
itself.
"""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import logging
import os
import queue
import threading
import time
from bisect import bisect_left, insort
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from langchain_thinnest._http.backends import Backend, Op, open_backend
from langchain_thinnest._http.limit_types import Question, Reply, ReportedLimit
from langchain_thinnest._http.limits import LEASE, LIVE, LONGEST_SLEEP, Limits
from langchain_thinnest._http.store import Account, LeaseRef

if TYPE_CHECKING:
    from pydantic import SecretStr


logger = logging.getLogger("langchain_thinnest")
T = TypeVar("T")
_TRY_AGAIN = 5.0  # seconds after which a store that was out of reach is tried again
_ANSWER = 10.0  # seconds in which the thread surely answers
_FRONT = 2  # tickets of a process that ask the store; the others wait behind them
_SWEEP = 0.5  # seconds
_GRID = 0.1  # seconds
_NAME = "langchain-thinnest-limits"


class _Request(NamedTuple):
    """Work for the store's thread."""

    future: Future[Any]
    name: str
    op: Op[Any]
    is_read: bool
    account: SharedAccount | None = None  # who asks for a lease
    lease: str = ""
    ends: str = ""  # a lease or ticket that is over


def _state(request: _Request) -> tuple[str, bool]:
    return request.name, request.is_read


def _each(ops: list[Op[Any]], limits: Limits, now: float) -> list[Any]:
    is_changed = False
    results = []
    for op in ops:
        results.append(op(limits, now))
        is_changed = is_changed or limits.is_changed
    limits.is_changed = is_changed
    return results


def _end(ids: list[str], limits: Limits, now: float) -> None:
    limits.end(ids, now)


def _renew(leases: list[str], lasts: float, limits: Limits, now: float) -> None:
    limits.renew(leases, now, lasts)


class SharedStore:
    """A store, and the one thread of this process that uses it.

    Attributes:
        lease: Seconds after which an open stream counts no more, unless it is renewed.
        linger: Seconds for which the thread waits for more to do.
    """

    lease = LEASE
    linger = 1.0

    def __init__(self, backend: Backend) -> None:
        """Use a backend; the thread begins with the first call."""
        self.backend = backend
        self.queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._leases: dict[str, tuple[str, SharedAccount]] = {}  # id → state, account
        self._local: dict[str, Limits] = {}  # what this process counts for itself
        self._try_again = 0.0
        self._is_out = False
        self._renewed = time.monotonic()

    def submit(
        self, name: str, op: Op[T], *, is_read: bool = False, **lease: Any
    ) -> Future[T]:
        """Queue a change of a state for the thread."""
        future: Future[T] = Future()
        self.queue.put(_Request(future, name, op, is_read, **lease))
        self.ensure_thread()
        return future

    def ensure_thread(self) -> None:
        """Start the thread, unless it is running."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, name=_NAME, daemon=True)
                    self._thread.start()

    def finish(self) -> None:
        """Work off the queue, for a limited time, and close the connection."""
        thread = self._thread
        if thread is not None:
            self.queue.put(None)
            thread.join(2.0)
        if thread is None or not thread.is_alive():
            self.backend.close()

    def _work(self) -> None:
        is_over = False
        while not is_over:
            try:
                items = [self.queue.get(timeout=self.linger)]
            except queue.Empty:
                items = []
                with self._lock:
                    if not self._leases and self.queue.empty():
                        self._thread = None
                        return
            while items and not self.queue.empty() and len(items) < 100:
                items.append(self.queue.get())
            is_over = self._do_all(items)
            if time.monotonic() - self._renewed > self.lease / 5:
                self._renewed = time.monotonic()
                self._renew()

    def _do_all(self, items: list[Any]) -> bool:
        """Work in order; neighbours that change the same state share one transaction."""
        for (name, is_read), group in groupby(map(self._request, filter(None, items)), _state):
            requests = [it for it in group if it.future.set_running_or_notify_cancel()]
            ops = [request.op for request in requests]
            try:
                results = self._do(name, partial(_each, ops), is_read=is_read)
            except BaseException as error:  # noqa: BLE001  # it is the callers' to see
                for request in requests:
                    request.future.set_exception(error)
                continue
            for request, result in zip(requests, results, strict=True):
                if (
                    request.account is not None and result.is_admitted
                ):  # to be renewed until it ends
                    self._leases[request.lease] = (name, request.account)
                self._leases.pop(request.ends, None)
                request.future.set_result(result)
        return None in items

    def _request(self, item: Any) -> _Request:
        """Turn an item of the queue into a request: some are just ended leases or tickets."""
        if isinstance(item, _Request):
            return item
        account: Any = item.account if isinstance(item, LeaseRef) else item[0]
        id_ = item.id if isinstance(item, LeaseRef) else item[1]
        account.ended(id_)
        return _Request(Future(), account.name, partial(_end, [id_]), False, ends=id_)

    def _renew(self) -> None:
        by_name: dict[str, list[str]] = {}
        for lease, (name, _) in list(self._leases.items()):
            by_name.setdefault(name, []).append(lease)
        for name, ids in by_name.items():
            self._do(name, partial(_renew, ids, self.lease), is_read=False)

    def _do(self, name: str, op: Op[T], *, is_read: bool) -> T:
        now = time.monotonic()
        if now >= self._try_again:
            try:
                result = self.backend.apply(name, op, is_read=is_read)
            except self.backend.errors as error:
                self._try_again = time.monotonic() + _TRY_AGAIN
                if not self._is_out:
                    logger.warning(
                        "The store of shared_limits is out of reach (%s). Until it is back, "
                        "this process counts for itself.",
                        type(error).__name__,
                    )
                self._is_out = True
            else:
                if self._is_out:
                    logger.info("The store of shared_limits is back.")
                    self._is_out = False
                    self._local.clear()
                return result
        return op(self._local.setdefault(name, Limits()), time.monotonic())


class SharedAccount(Account):
    """State in a store that other processes use too."""

    def __init__(self, store: SharedStore, base_url: str, key: SecretStr) -> None:
        """Use a store, which gets only a hash of the key."""
        super().__init__(store.queue.put)
        whose = f"{base_url}\0{key.get_secret_value()}".encode()
        self.name = hashlib.sha256(whose).hexdigest()
        self._store = store
        self._lock = threading.RLock()
        self._waiting: list[list[Any]] = []  # [ticket, last asked], in order of arrival
        self._accepts = 0
        self._swept = 0.0
        self._closed_until = 0.0  # as the store said last

    def ask(self, question: Question) -> Reply:
        reply = self._wait_behind(question)
        if reply is None:
            future = self._submit(question)
            # Twins differ: who awaits can be cancelled.
            try:
                reply = self._seen(question, future.result(_ANSWER))
            except FutureTimeout:  # nobody's call may hang for the sake of limits
                reply = Reply(True, 0.0, 0.0, question.arrived, self._accepts)
        return reply

    async def aask(self, question: Question) -> Reply:
        reply = self._wait_behind(question)
        if reply is None:
            future = self._submit(question)
            reply = self._seen(question, await asyncio.wrap_future(future))
        return reply

    def _submit(self, question: Question) -> Future[Reply]:
        def op(limits: Limits, now: float) -> Reply:
            return limits.ask(question, now, self._store.lease)

        is_read = question.arrived is not None
        return self._store.submit(
            self.name, op, is_read=is_read, account=self, lease=question.lease
        )

    def _wait_behind(self, question: Question) -> Reply | None:
        """Answer without the store, unless the ticket is among the first of this process."""
        if question.own_streams or not question.waits:
            return None
        now = self.clock()
        with self._lock:
            if now - self._swept > _SWEEP:
                self._swept = now
                self._waiting = [each for each in self._waiting if each[1] > now - LIVE]
            rank = bisect_left(self._waiting, [question.ticket])
            if rank < len(self._waiting) and self._waiting[rank][0] == question.ticket:
                self._waiting[rank][1] = now
            else:
                insort(self._waiting, [question.ticket, now])
        if rank < _FRONT:
            return None
        sleep = max(self._store.backend.pace * (rank + 1), self._closed_until - now)
        sleep = min(sleep, LONGEST_SLEEP)
        if sleep > 2 * _GRID:  # those that wait long wake together, which costs less
            sleep -= now % _GRID
        return Reply(False, sleep, 0.0, question.arrived, self._accepts)

    def _seen(self, question: Question, reply: Reply) -> Reply:
        self.used = self.clock()
        self._accepts = reply.accepts
        self._closed_until = self.used + reply.closed
        if reply.is_admitted:
            self._leave(question.ticket)
            return reply
        pace = self._store.backend.pace
        return reply._replace(sleep=max(reply.sleep, pace))

    def _leave(self, ticket: str) -> None:
        with self._lock:
            rank = bisect_left(self._waiting, [ticket])
            if rank < len(self._waiting) and self._waiting[rank][0] == ticket:
                del self._waiting[rank]

    def accepted(self, lease: str, reported: ReportedLimit) -> None:
        self._store.submit(
            self.name, lambda limits, now: limits.accepted(lease, reported, now)
        )

    def refused(
        self, lease: str, ticket: str, arrived: float | None, reported: ReportedLimit
    ) -> tuple[int, int, float]:
        # Twins differ: who awaits can be cancelled.
        return self._refuse(lease, ticket, arrived, reported).result(_ANSWER)

    async def arefused(
        self, lease: str, ticket: str, arrived: float | None, reported: ReportedLimit
    ) -> tuple[int, int, float]:
        return await asyncio.wrap_future(self._refuse(lease, ticket, arrived, reported))

    def _refuse(
        self, lease: str, ticket: str, arrived: float | None, reported: ReportedLimit
    ) -> Future[tuple[int, int, float]]:
        def op(limits: Limits, now: float) -> tuple[int, int, float]:
            return limits.refused(
                lease, ticket, now if arrived is None else arrived, reported, now
            )

        return self._store.submit(self.name, op)

    def release(self, id_: str) -> None:
        self._store.queue.put((self, id_))

    def ended(self, id_: str) -> None:
        """Forget a lease or a ticket; called by the store's thread."""
        self._drop(id_)
        self._leave(id_)


_stores: dict[tuple[int, str], SharedStore] = {}  # by process and URL


def store_at(url: str) -> SharedStore:
    """Return this process's store for a URL; after a fork, a new one."""
    name = (os.getpid(), url)
    store = _stores.get(name)
    if store is None:
        store = _stores.setdefault(name, SharedStore(open_backend(url)))
    return store


@atexit.register
def _finish() -> None:
    for (process, _), store in list(_stores.items()):
        if process == os.getpid():
            store.finish()
