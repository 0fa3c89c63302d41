"""How one call waits for the limits: its ticket, its leases, its sleeping; sync and async.

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

from langchain_thinnest._http.limit_types import Question, Reply, ReportedLimit
from langchain_thinnest._http.retries import RetryPolicy, Tries
from langchain_thinnest._http.store import Account, Owner
from langchain_thinnest.errors import (
    ThinnestConnectionError,
    ThinnestError,
    ThinnestRateLimitError,
    ThinnestTimeoutError,
)

logger = logging.getLogger("langchain_thinnest")
_LOG_AFTER = 10.0  # seconds of waiting
_LOG_AGAIN = 60.0  # seconds after which other calls with the key say so again
_LOG_UNREACHABLE_AFTER = 2.0  # seconds
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
        """Release the lease: the stream is closed, or was never opened."""
        self.is_open = False
        self.account.release(self.id)


# The streams that a caller opened and may still hold. Tasks and threads that it begins with a
# copy of its context wait with it, so they do not wait for these streams. Setting it inside of
# a generator sets it for the caller too, which is what is wanted.
_opened: ContextVar[tuple[weakref.ref[Lease], ...]] = ContextVar("opened", default=())


class Admission:
    """One call at the limits, with all its tries."""

    def __init__(self, account: Account, policy: RetryPolicy, max_streams: int | None) -> None:
        """Begin a call.

        Args:
            account: The limits of the endpoint and key.
            policy: How often and how long to wait.
            max_streams: The most streams at once, if the user has set it.
        """
        self.tries = Tries(policy)
        self._account = account
        self._max_streams = max_streams
        self._ticket = account.new_id()
        self._arrived: float | None = None
        self._own_streams = 0
        self._since = 0.0
        self._began = account.clock()

    def enter(self) -> Lease:
        """Wait until the request may go out.

        Raises:
            ThinnestRateLimitError: If that would take too long; nothing was sent.
        """
        # Twins differ: a sync call blocks the loop of its thread, with all of its tasks.
        lease = self._begin(is_task=False)
        try:
            while True:
                sleep = self._next_sleep(self._account.ask(self._question(lease)), lease)
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
                sleep = self._next_sleep(
                    await self._account.aask(self._question(lease)), lease
                )
                if not sleep:
                    return lease
                await asyncio.sleep(sleep)
        except BaseException:
            lease.end()
            raise

    def refused(self, lease: Lease, reported: ReportedLimit) -> None:
        """Record that a limit refused the request. The call keeps its position."""
        arrived = self._arrived
        seen = self._account.refused(lease.id, self._ticket, arrived, reported)
        self.tries.refuse(reported, *seen)

    async def arefused(self, lease: Lease, reported: ReportedLimit) -> None:
        """The async twin of `refused`."""
        arrived = self._arrived
        seen = await self._account.arefused(lease.id, self._ticket, arrived, reported)
        self.tries.refuse(reported, *seen)

    def accepted(self, lease: Lease, reported: ReportedLimit) -> None:
        """Record that the server answered."""
        self._account.accepted(lease.id, reported)

    def failed(self, error: ThinnestError) -> ThinnestError:
        """Count a failed try, and explain a refusal beside a stream of the caller's own."""
        if not isinstance(error, ThinnestRateLimitError):
            self.tries.fail()
        elif self._own_streams:
            error.args = (f"{error} {_NESTED}",)
        if isinstance(error, (ThinnestConnectionError, ThinnestTimeoutError)):
            self._log_unreachable(error)
        return error

    def _log_unreachable(self, error: ThinnestError) -> None:
        """Log once that the server cannot be reached, before a wait gets long."""
        if not self.may_retry(error):
            return
        now = self._account.clock()
        will_be = now - self._began + self.tries.delay(error)
        if (
            will_be >= _LOG_UNREACHABLE_AFTER
            and now - self._account.unreachable_logged_at > _LOG_AGAIN
        ):
            self._account.unreachable_logged_at = now
            logger.info("%s Trying again, for some seconds more.", error)

    def may_retry(self, error: ThinnestError) -> bool:
        """Whether to send again after a failure."""
        return not self.tries.are_over and self.tries.policy.should_retry(error)

    def leave(self) -> None:
        """End the call: it will ask no more."""
        self._account.release(self._ticket)

    def _begin(self, *, is_task: bool) -> Lease:
        """Begin a try: see which streams the caller would wait for in vain.

        A sync call blocks its thread's loop, with all of its tasks.
        """
        thread = threading.get_ident()
        own_streams = set(self._account.held_by(thread, by_tasks=not is_task))
        opened = [lease for ref in _opened.get() if (lease := ref()) and lease.is_open]
        own_streams.update(lease.id for lease in opened if lease.account is self._account)
        self._own_streams = len(own_streams)
        self._since = self._account.clock()
        return Lease(self._account, (thread, is_task))

    def _question(self, lease: Lease) -> Question:
        waits = self.tries.policy.max_retries > 0
        return Question(
            self._ticket, self._arrived, lease.id, self._max_streams, self._own_streams, waits
        )

    def _next_sleep(self, reply: Reply, lease: Lease) -> float:
        """Return the seconds to sleep, or 0 to send; raise if the wait would be too long."""
        self._arrived = reply.arrived
        if reply.is_admitted:
            lease.is_open = True
            opened = [ref for ref in _opened.get() if (it := ref()) and it.is_open]
            _opened.set((*opened, weakref.ref(lease)))
            self.tries.accepts = reply.accepts
            return 0.0
        if not self.tries.policy.max_retries:
            self.tries.fail()
            raise self._streams_are_full()
        if not self.tries.policy.allows(reply.closed):
            raise _window_is_closed(reply.closed)
        now = self._account.clock()
        if (
            now - self._since > _LOG_AFTER
            and now - self._account.waiting_logged_at > _LOG_AGAIN
        ):
            self._account.waiting_logged_at = now
            logger.info("Calls have waited for %.0f s: %s", _LOG_AFTER, self._why(reply))
        return reply.sleep

    def _why(self, reply: Reply) -> str:
        if reply.closed:
            return f"the rate limit's window ends in {reply.closed:.0f} s."
        if self._max_streams is not None:
            return f"max_streams={self._max_streams} streams are open, or others came first."
        return "as many streams are open as the server takes, or others came first."

    def _streams_are_full(self) -> ThinnestRateLimitError:
        return ThinnestRateLimitError(
            f"max_streams={self._max_streams} streams are open, and max_retries=0 does not "
            "wait for one to close; nothing was sent.",
            is_retryable=True,
        )


def _window_is_closed(seconds: float) -> ThinnestRateLimitError:
    return ThinnestRateLimitError(
        f"The rate limit is used up for another {seconds:.0f} s, by what the server said "
        "last, which is longer than max_retry_wait; nothing was sent.",
        retry_after=seconds,
        is_retryable=True,
    )
