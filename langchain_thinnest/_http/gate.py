"""When a request may go out: what the server said of its limits, shared by a process's calls.

Calls that share a base URL and a key share a gate. Each passes it before every request, and
is counted in until its stream is closed. The gate knows two limits:

- Requests in a window, from `X-RateLimit-Remaining` and `-Reset`: when none is left, calls
  wait for the reset, rather than be refused and burn a try each. Requests under way, whose
  answers have not told yet, count as used. After a refusal all wait as long as it asked.
- Streams at once. At first little is known, and few go out; the first answer lifts that. A
  refusal that has requests left means that too many streams were open: then as many as were
  answered may be, and one more is tried again after a while.

Calls wait in one line, threads and tasks alike, so that nobody starves; one that was refused
goes to the front, and a request of the next window is kept for it until it comes. Waiting
one's turn is not a try. A call in whose thread or task a stream is open already does not wait
for that stream to close, which may wait for the call.
This module sends nothing. The clock can be passed in.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping

from pydantic import SecretStr

from langchain_thinnest._http.retries import rate_limit, seconds_to_reset
from langchain_thinnest.errors import ThinnestRateLimitError

_FIRST_STREAMS = 10  # the vendor's limit on the paid plan
_GROW_AFTER = 20  # answers without a refusal, for each stream that is allowed
_MARGIN = 0.05  # seconds after a reset
_GLANCE = 0.05  # seconds until it is seen whether a call came again for what is kept for it
_PATIENCE = 30.0  # seconds to wait for a stream to close before asking the server
_GATES = 1000  # kept in a process; there is one for each key


class Gate:
    """The line before one endpoint, and what is known of its limits."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Make a gate that knows nothing yet."""
        self._clock = clock
        # Re-entrant, since the garbage collector may close a stream inside of it.
        self._lock = threading.RLock()
        self._line: deque[_Waiter] = deque()
        self._owners: Counter[object] = Counter()  # who has streams open
        self._open = 0
        self._answered = 0  # of the open ones, those that the server has accepted
        self._max_open: int | None = _FIRST_STREAMS
        self._knows_nothing = True
        self._since_refusal = 0
        self._paused_until = 0.0
        self._limit: int | None = None
        self._left: int | None = None  # requests left in the window, as far as is known
        self._kept = 0  # requests for calls that were refused and will come again
        self._reset = 0  # when the window ends, by the server's clock
        self._resets_at = 0.0  # the same by ours
        self._asked_until = 0.0  # the new window's first requests have no answer yet

    def enter(self, *, again: bool, max_wait: float | None, is_kept: bool = False) -> Pass:
        """Wait one's turn, in a thread.

        Args:
            again: The request was refused before, and goes to the front of the line.
            max_wait: The longest wait for a window's end, in seconds, once first in line;
                `None` does not wait for one, and asks the server.
            is_kept: A request is kept for it, which it takes.

        Returns:
            The right to send one request.

        Raises:
            ThinnestRateLimitError: If the window lasts longer than that.
        """
        owner = ("thread", threading.get_ident())
        waiter = _ThreadWaiter(owner, self._clock(), max_wait, is_kept)
        try:
            self._queue(waiter, again=again)
            while (wait := self._try(waiter)) is not None:
                waiter.wait(wait)
        except BaseException:
            self._unqueue(waiter)
            raise
        return Pass(self, owner)

    async def aenter(
        self, *, again: bool, max_wait: float | None, is_kept: bool = False
    ) -> Pass:
        """Wait one's turn, in a task."""
        owner = ("task", id(asyncio.current_task()))
        waiter = _TaskWaiter(owner, self._clock(), max_wait, is_kept)
        try:
            self._queue(waiter, again=again)
            while (wait := self._try(waiter)) is not None:
                await waiter.wait(wait)
        except BaseException:
            self._unqueue(waiter)
            raise
        return Pass(self, owner)

    def _queue(self, waiter: _Waiter, *, again: bool) -> None:
        with self._lock:
            if again:
                self._line.appendleft(waiter)
            else:
                self._line.append(waiter)

    def _unqueue(self, waiter: _Waiter) -> None:
        with self._lock:
            if waiter in self._line:
                self._line.remove(waiter)
            self._wake_next()

    def _try(self, waiter: _Waiter) -> float | None:
        """Let a waiter through (`None`), or say how many seconds to wait for a change."""
        with self._lock:
            now = self._clock()
            if self._line[0] is not waiter and not self._owners[waiter.owner]:
                return _PATIENCE
            wait = self._wait(waiter, now)
            if wait > 0:
                return wait
            self._line.remove(waiter)
            self._open += 1
            self._owners[waiter.owner] += 1
            self._kept -= waiter.is_kept
            if self._left is not None:
                self._left -= 1
            self._wake_next()
            return None

    def _wait(self, waiter: _Waiter, now: float) -> float:
        closed_until = self._paused_until
        if self._left is not None and self._left <= 0:
            closed_until = max(closed_until, self._resets_at)
        if now < closed_until and waiter.max_wait is not None:
            if closed_until - now > waiter.max_wait:
                raise _closed_too_long(closed_until - now)
            return closed_until - now
        if self._left is not None and self._left <= 0:  # a new window has begun
            if now < self._asked_until and waiter.max_wait is not None:
                return self._asked_until - now
            self._left = self._limit
            self._asked_until = now + _PATIENCE
        is_all_kept = self._left is not None and self._left <= self._kept
        if is_all_kept and not waiter.is_kept and waiter.max_wait is not None:
            return _GLANCE
        is_full = self._max_open is not None and self._open >= self._max_open
        if is_full and not self._owners[waiter.owner]:
            return max(0.0, waiter.since + _PATIENCE - now)
        return 0.0

    def _wake_next(self) -> None:
        if self._line:
            self._line[0].wake()

    def learn(self, headers: Mapping[str, str]) -> None:
        """Take what an answer's headers say."""
        with self._lock:
            self._answered += 1
            self._since_refusal += 1
            if self._knows_nothing:
                self._knows_nothing = False
                self._max_open = None
            elif self._max_open and self._since_refusal >= _GROW_AFTER * self._max_open:
                self._max_open += 1
                self._since_refusal = 0
            self._learn_window(headers)
            self._wake_next()

    def _learn_window(self, headers: Mapping[str, str]) -> None:
        self._asked_until = 0.0
        said = rate_limit(headers) or {}
        until_reset = seconds_to_reset(headers)
        if "remaining" not in said or until_reset is None:
            return
        left = said["remaining"] - (self._open - self._answered)
        if said["reset"] <= self._reset and self._left is not None:
            left = min(left, self._left)  # answers come out of order
        self._left = left
        self._limit = said.get("limit")
        self._reset = max(self._reset, said["reset"])
        self._resets_at = self._clock() + until_reset + _MARGIN

    def refuse(self, headers: Mapping[str, str], wait: float | None) -> bool:
        """Take a refusal: of the window, whose end all wait for, or of one stream too many.

        Returns:
            Whether a request of the next window is kept for the call: it takes it when it
            enters again, or else says that it gives it up.
        """
        with self._lock:
            is_of_window = (rate_limit(headers) or {}).get("remaining") == 0
            if is_of_window:
                self._learn_window(headers)
                self._kept += 1
            else:
                self._knows_nothing = False
                self._max_open = max(1, self._answered)
                self._since_refusal = 0
            if wait is not None:
                self._paused_until = max(self._paused_until, self._clock() + wait)
            return is_of_window

    def give_up(self) -> None:
        """A call for which a request is kept does not come again."""
        with self._lock:
            self._kept -= 1
            self._wake_next()

    def leave(self, owner: object, *, was_answered: bool) -> None:
        """Count a request out."""
        with self._lock:
            self._open -= 1
            self._answered -= was_answered
            if not was_answered:  # it told nothing, so that others have to ask
                self._asked_until = 0.0
            self._owners[owner] -= 1
            if not self._owners[owner]:
                del self._owners[owner]
            self._wake_next()


class Pass:
    """The right to send one request, and to have its stream open."""

    def __init__(self, gate: Gate, owner: object) -> None:
        """Make a pass; gates do."""
        self._gate = gate
        self._owner = owner
        self._was_answered = False
        self._has_left = False

    def answered(self, headers: Mapping[str, str]) -> None:
        """The server accepted the request."""
        self._was_answered = True
        self._gate.learn(headers)

    def refused(self, headers: Mapping[str, str], wait: float | None) -> bool:
        """The server refused the request by a limit; says whether the next one is kept."""
        return self._gate.refuse(headers, wait)

    def leave(self) -> None:
        """The stream is closed, or was never opened."""
        if not self._has_left:
            self._has_left = True
            self._gate.leave(self._owner, was_answered=self._was_answered)


def _closed_too_long(seconds: float) -> ThinnestRateLimitError:
    return ThinnestRateLimitError(
        f"The rate limit is used up for another {seconds:.0f} s, by what the server said "
        "last, which is longer than max_retry_wait; nothing was sent.",
        retry_after=seconds,
        is_retryable=True,
    )


class _ThreadWaiter:
    """A thread in the line. A bare lock, since waking must be safe inside the collector."""

    def __init__(
        self, owner: object, since: float, max_wait: float | None, is_kept: bool
    ) -> None:
        self.owner = owner
        self.since = since
        self.max_wait = max_wait
        self.is_kept = is_kept
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def wait(self, seconds: float) -> None:
        self._asleep.acquire(timeout=seconds)

    def wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # it is awake already
            self._asleep.release()


class _TaskWaiter:
    """A task in the line, which any thread may wake."""

    def __init__(
        self, owner: object, since: float, max_wait: float | None, is_kept: bool
    ) -> None:
        self.owner = owner
        self.since = since
        self.max_wait = max_wait
        self.is_kept = is_kept
        self._loop = asyncio.get_running_loop()
        self._awake = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._awake.wait(), seconds)
        self._awake.clear()

    def wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # its loop is closed, and so is the task
            self._loop.call_soon_threadsafe(self._awake.set)


_Waiter = _ThreadWaiter | _TaskWaiter
_gates: OrderedDict[tuple[str, SecretStr], Gate] = OrderedDict()
_gates_lock = threading.Lock()


def gate_for(base_url: str, key: SecretStr) -> Gate:
    """The gate that all calls of this process to one URL with one key pass."""
    with _gates_lock:
        gate = _gates.pop((base_url, key), None) or Gate()
        _gates[base_url, key] = gate  # the last one used stands last
        if len(_gates) > _GATES:
            _gates.popitem(last=False)
        return gate


def _forget() -> None:
    """After a fork: the parent's calls are none of the child's."""
    global _gates_lock  # noqa: PLW0603
    _gates_lock = threading.Lock()
    _gates.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
