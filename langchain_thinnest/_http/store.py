"""Where the numbers of `limits.py` live: an account for each endpoint and API key.

Calls of this process share accounts. By default the numbers are in this process's memory; with
`shared_limits` they are in a store that other processes use too: see `shared_store.py`.
Accounts that nobody has used for a while are dropped, since services have thousands of keys.
After a fork the child begins anew: the parent's streams are not its own.
"""

from __future__ import annotations

import itertools
import math
import os
import secrets
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from langchain_thinnest._http.limits import Limits

if TYPE_CHECKING:
    from pydantic import SecretStr

    from langchain_thinnest._http.limit_types import Question, Reply, ReportedLimit

Owner = tuple[int, bool]  # a thread, and whether it is one of its tasks
_KEEP = 300.0  # seconds without use
_SWEEP = 60.0


class LeaseRef(weakref.ref[Any]):
    """A weak reference that reports when its lease was dropped."""

    __slots__ = ("account", "id")
    account: Account
    id: str


class Account(ABC):
    """Rate-limit state for one endpoint and API key, as calls of this process use it.

    Attributes:
        clock: What time it is for these calls, in seconds.
    """

    def __init__(self, on_drop: Callable[[Any], None]) -> None:
        """Begin with no call.

        Args:
            on_drop: Takes a `LeaseRef` whose lease is gone. The garbage collector calls it,
                so it must be a function in C that does not lock.
        """
        self._on_drop = on_drop
        # The garbage collector may run while this is read, and let other threads go on: so
        # even a copy of it needs the lock. No finalizer takes it.
        self._held: dict[str, tuple[LeaseRef, Owner]] = {}
        self._held_lock = threading.RLock()
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count()
        self.clock: Callable[[], float] = time.monotonic
        self.used = self.clock()
        # When it was logged that calls wait, and that no connection can be made.
        self.waiting_logged_at = -math.inf
        self.unreachable_logged_at = -math.inf

    def new_id(self) -> str:
        """An id for a ticket or a lease; later ones sort behind earlier ones."""
        return f"{self._prefix}{next(self._numbers):012d}"

    def hold(self, lease: object, owner: Owner) -> str:
        """Register a lease, so that it ends at the latest when it is garbage-collected."""
        ref = LeaseRef(lease, self._on_drop)
        ref.account, ref.id = self, self.new_id()
        with self._held_lock:
            self._held[ref.id] = (ref, owner)
        return ref.id

    def _holders(self) -> list[tuple[str, LeaseRef, Owner]]:
        with self._held_lock:
            return [(id_, ref, owner) for id_, (ref, owner) in self._held.items()]

    def _drop(self, id_: str) -> None:
        with self._held_lock:
            self._held.pop(id_, None)

    def held_by(self, thread: int, *, by_tasks: bool) -> list[str]:
        """Return the open leases of a thread, with those of its tasks if `by_tasks`."""
        return [
            lease
            for lease, ref, (its_thread, is_task) in self._holders()
            if its_thread == thread and (by_tasks or not is_task)
            if (held := ref()) is not None and held.is_open
        ]

    @property
    def is_idle(self) -> bool:
        """Whether nobody has used it for a while, and no stream is open.

        Leases that have ended are still held: they go at the next use, which may never come.
        """
        held = [ref() for _, ref, _ in self._holders()]
        is_open = any(lease is not None and lease.is_open for lease in held)
        return not is_open and self.clock() - self.used > _KEEP

    @abstractmethod
    def ask(self, question: Question) -> Reply:
        """Ask whether a request may go out now."""

    @abstractmethod
    async def aask(self, question: Question) -> Reply:
        """The async twin of `ask`."""

    @abstractmethod
    def accepted(self, lease: str, reported: ReportedLimit) -> None:
        """Record that the server answered a request."""

    @abstractmethod
    def refused(
        self, lease: str, ticket: str, arrived: float | None, reported: ReportedLimit
    ) -> tuple[int, int, float]:
        """Record that a limit refused a request."""

    @abstractmethod
    async def arefused(
        self, lease: str, ticket: str, arrived: float | None, reported: ReportedLimit
    ) -> tuple[int, int, float]:
        """The async twin of `refused`."""

    @abstractmethod
    def release(self, id_: str) -> None:
        """Give back a lease or a ticket. Takes no lock, so it is safe in a finalizer."""


class MemoryAccount(Account):
    """State in this process's memory."""

    def __init__(self) -> None:
        """Begin with nothing known."""
        # The garbage collector may end a lease while this thread holds the lock. So what has
        # ended goes into a queue, which the next caller empties.
        self._ended: deque[str | LeaseRef] = deque()
        super().__init__(self._ended.append)
        self._lock = threading.RLock()
        self._limits = Limits()

    def ask(self, question: Question) -> Reply:
        with self._lock:
            return self._limits.ask(question, self._now())

    async def aask(self, question: Question) -> Reply:
        return self.ask(question)

    def accepted(self, lease: str, reported: ReportedLimit) -> None:
        with self._lock:
            self._limits.accepted(lease, reported, self._now())

    def refused(
        self, lease: str, ticket: str, arrived: float | None, reported: ReportedLimit
    ) -> tuple[int, int, float]:
        with self._lock:
            now = self._now()
            return self._limits.refused(
                lease, ticket, now if arrived is None else arrived, reported, now
            )

    async def arefused(
        self, lease: str, ticket: str, arrived: float | None, reported: ReportedLimit
    ) -> tuple[int, int, float]:
        return self.refused(lease, ticket, arrived, reported)

    def release(self, id_: str) -> None:
        self._ended.append(id_)

    def _now(self) -> float:
        self.used = now = self.clock()
        if self._ended:
            ids = []
            while self._ended:
                item = self._ended.popleft()
                ids.append(item if isinstance(item, str) else item.id)
                self._drop(ids[-1])
            self._limits.end(ids, now)
        return now


class _Accounts:
    """This process's accounts."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.lock = threading.RLock()
        self.by_key: dict[tuple[str, SecretStr, SecretStr | None], Account] = {}
        self.swept = time.monotonic()

    def get(self, base_url: str, key: SecretStr, shared: SecretStr | None) -> Account:
        account = self.by_key.get((base_url, key, shared))
        if account is None:
            with self.lock:
                account = self.by_key.get((base_url, key, shared))
                if account is None:
                    self._sweep()
                    account = _new_account(base_url, key, shared)
                    self.by_key[base_url, key, shared] = account
        account.used = account.clock()
        return account

    def _sweep(self) -> None:
        now = time.monotonic()
        if now - self.swept > _SWEEP:
            self.swept = now
            for key in [key for key, account in self.by_key.items() if account.is_idle]:
                del self.by_key[key]


def _new_account(base_url: str, key: SecretStr, shared: SecretStr | None) -> Account:
    if shared is None:
        return MemoryAccount()
    from langchain_thinnest._http.shared_store import SharedAccount, store_at

    return SharedAccount(store_at(shared.get_secret_value()), base_url, key)


_accounts = _Accounts()
_parents: list[_Accounts] = []  # after a fork: kept, neither used nor closed


def account_for(base_url: str, key: SecretStr, shared: SecretStr | None = None) -> Account:
    """Return the account that all calls of this process with one URL and key share."""
    global _accounts  # noqa: PLW0603
    if _accounts.process != os.getpid():
        _parents.append(_accounts)
        _accounts = _Accounts()
    return _accounts.get(base_url, key, shared)


def forget() -> None:
    """Forget all that is known of limits."""
    global _accounts  # noqa: PLW0603
    _accounts = _Accounts()
