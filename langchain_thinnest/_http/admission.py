"""One call's way through the limits: its ticket, its leases and its waiting, sync and async.

A caller asks, sleeps by the clock for a short time, and asks again; `limits.py` has the rules,
`store.py` the numbers. Whatever interrupts a call, its ticket and its lease are given back by
appending to a queue, which never blocks: also the garbage collector may do it, anywhere.
This file knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import weakref
from contextvars import ContextVar

from langchain_thinnest._http.limit_types import Question, Reply, Told
from langchain_thinnest._http.retries import RetryPolicy, Tries
from langchain_thinnest._http.store import Account, Owner
from langchain_thinnest.errors import (
    ThinnestConnectionError,
    ThinnestError,
    ThinnestRateLimitError,
    ThinnestTimeoutError,
)

logger = logging.getLogger("langchain_thinnest")
_TELL_AFTER = 10.0  # seconds of waiting
_TELL_AGAIN = 60.0  # seconds after which other calls with the key say so again
_TELL_UNREACHABLE_AFTER = 2.0  # seconds
_NESTED = (
    "The call was made while its own task or thread had a stream open, so it could not wait "
    "for that one to close."
)


class Lease:
    """The right to send one request and to have its stream open, until `end`.

    It ends too when nobody holds it any more.
    """

    __slots__ = ("__weakref__", "account", "id", "is_open")

    def __init__(self, account: Account, owner: Owner) -> None:
        """Make a lease that is not booked yet."""
        self.account = account
        self.is_open = False
        self.id = account.hold(self, owner)

    def end(self) -> None:
        """The stream is closed, or was never opened."""
        self.is_open = False
        self.account.release(self.id)


# The streams that a caller opened and may still hold. Tasks and threads that it begins with a
# copy of its context wait with it, so they do not wait for these streams. Setting it inside of
# a generator sets it for the caller too, which is what is wanted.
_opened: ContextVar[tuple[weakref.ref[Lease], ...]] = ContextVar("opened", default=())


class Admission:
    """What one call needs to pass the limits, with all its tries."""

    def __init__(self, account: Account, policy: RetryPolicy, max_streams: int | None) -> None:
        """Begin a call.

        Args:
            account: The limits of the endpoint and key.
            policy: How often and how long to wait.
            max_streams: The most streams at once, if the user has set it.
        """
        self.tries = Tries(policy)
        self._account = account
        self._most = max_streams
        self._ticket = account.new_id()
        self._came: float | None = None
        self._own = 0
        self._since = 0.0
        self._began = account.clock()

    def enter(self) -> Lease:
        """Wait until the request may go out.

        Raises:
            ThinnestRateLimitError: If that would take too long; nothing was sent.
        """
        lease = self._begin(is_task=False)
        try:
            while True:
                sleep = self._look(self._account.ask(self._question(lease)), lease)
                if not sleep:
                    return lease
                time.sleep(sleep)
        except BaseException:
            lease.end()
            raise

    async def aenter(self) -> Lease:
        """The async twin of `enter`."""
        lease = self._begin(is_task=True)
        try:
            while True:
                sleep = self._look(await self._account.aask(self._question(lease)), lease)
                if not sleep:
                    return lease
                await asyncio.sleep(sleep)
        except BaseException:
            lease.end()
            raise

    def refused(self, lease: Lease, told: Told) -> None:
        """The server refused the request by a limit. The call keeps its place in the order."""
        self.tries.refuse(
            told, *self._account.refused(lease.id, self._ticket, self._came, told)
        )

    async def arefused(self, lease: Lease, told: Told) -> None:
        """The async twin of `refused`."""
        came = self._came
        seen = await self._account.arefused(lease.id, self._ticket, came, told)
        self.tries.refuse(told, *seen)

    def accepted(self, lease: Lease, told: Told) -> None:
        """The server answers."""
        self._account.accepted(lease.id, told)

    def failed(self, error: ThinnestError) -> ThinnestError:
        """A try has failed: count it, and say whether it was one beside its own stream."""
        if not isinstance(error, ThinnestRateLimitError):
            self.tries.fail()
        elif self._own:
            error.args = (f"{error} {_NESTED}",)
        if isinstance(error, (ThinnestConnectionError, ThinnestTimeoutError)):
            self._tell_unreachable(error)
        return error

    def _tell_unreachable(self, error: ThinnestError) -> None:
        """Say once, before the wait that makes it long, that the server cannot be reached."""
        if self.tries.are_over or not self.tries.policy.should_retry(error):
            return
        now = self._account.clock()
        will_be = now - self._began + self.tries.delay(error)
        if (
            will_be >= _TELL_UNREACHABLE_AFTER
            and now - self._account.unreachable > _TELL_AGAIN
        ):
            self._account.unreachable = now
            logger.info("%s Trying again, for some seconds more.", error)

    def leave(self) -> None:
        """The call asks no more."""
        self._account.release(self._ticket)

    def _begin(self, *, is_task: bool) -> Lease:
        """Begin a try: see which streams the caller would wait for in vain.

        A sync call blocks its thread's loop, with all of its tasks.
        """
        thread = threading.get_ident()
        own = set(self._account.held_by(thread, by_tasks=not is_task))
        opened = [lease for ref in _opened.get() if (lease := ref()) and lease.is_open]
        own.update(lease.id for lease in opened if lease.account is self._account)
        self._own = len(own)
        self._since = self._account.clock()
        return Lease(self._account, (thread, is_task))

    def _question(self, lease: Lease) -> Question:
        waits = self.tries.policy.max_retries > 0
        return Question(self._ticket, self._came, lease.id, self._most, self._own, waits)

    def _look(self, reply: Reply, lease: Lease) -> float:
        """The seconds to sleep, 0 to go; an error if the wait would be too long."""
        self._came = reply.came
        if reply.goes:
            lease.is_open = True
            opened = [ref for ref in _opened.get() if (it := ref()) and it.is_open]
            _opened.set((*opened, weakref.ref(lease)))
            self.tries.accepts = reply.accepts
            return 0.0
        if not self.tries.policy.max_retries:
            self.tries.fail()
            raise self._full()
        if not self.tries.policy.allows(reply.closed):
            raise _closed(reply.closed)
        now = self._account.clock()
        if now - self._since > _TELL_AFTER and now - self._account.told > _TELL_AGAIN:
            self._account.told = now
            logger.info("Calls have waited for %.0f s: %s", _TELL_AFTER, self._why(reply))
        return reply.sleep

    def _why(self, reply: Reply) -> str:
        if reply.closed:
            return f"the rate limit's window ends in {reply.closed:.0f} s."
        if self._most is not None:
            return f"max_streams={self._most} streams are open, or others came first."
        return "as many streams are open as the server takes, or others came first."

    def _full(self) -> ThinnestRateLimitError:
        return ThinnestRateLimitError(
            f"max_streams={self._most} streams are open, and max_retries=0 does not wait for "
            "one to close; nothing was sent.",
            is_retryable=True,
        )


def _closed(seconds: float) -> ThinnestRateLimitError:
    return ThinnestRateLimitError(
        f"The rate limit is used up for another {seconds:.0f} s, by what the server said "
        "last, which is longer than max_retry_wait; nothing was sent.",
        retry_after=seconds,
        is_retryable=True,
    )
