"""Rate-limit headers, and the retry policy: whether and when to send a request again.

A POST here makes an agent act and a session remember, so only what the server surely did
not take is sent again: see `ThinnestError.is_retryable`. How long to wait is the server's
to say, by `Retry-After`, then `X-RateLimit-Reset`. Where it says nothing, the waits grow
exponentially, with jitter. tenacity does the waiting.
This file does no I/O; the clock and the random numbers can be passed in.
"""

from __future__ import annotations

import random as _random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime
from functools import lru_cache
from math import inf

from langchain_thinnest._http.limit_types import ReportedLimit
from langchain_thinnest.errors import ThinnestError, ThinnestRateLimitError

_HEADERS = {"limit": "x-ratelimit-limit", "remaining": "x-ratelimit-remaining"}
_RESET = "x-ratelimit-reset"
_LIMIT_HEADERS = (*_HEADERS.items(), ("reset", _RESET))
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{0,9})?")
_CLOCKS_AGREE = 2.0  # seconds
_DAY = 86_400.0  # seconds; no window is longer
_SHORTEST_WAIT = 0.25  # seconds that are always waited, whatever `max_retry_wait` says
_STREAMS_WAIT = 4.0  # seconds; for a place among the streams at once
_MOST_REFUSALS = 20  # for each of `max_retries`, also while others get through


def reported_by_answer(headers: Mapping[str, str]) -> ReportedLimit:
    """Read the rate limit that an answer reports."""
    seconds = seconds_to_reset(headers)
    return _reported(headers, seconds, makes_sense=seconds is not None)


def reported_by_refusal(headers: Mapping[str, str]) -> ReportedLimit:
    """Read the rate limit that a refusal reports."""
    makes_sense = seconds_to_reset(headers) is not None
    return _reported(headers, retry_delay(headers), makes_sense=makes_sense)


def _reported(
    headers: Mapping[str, str], seconds: float | None, *, makes_sense: bool
) -> ReportedLimit:
    limit, remaining = (_number(headers.get(header)) for header in _HEADERS.values())
    return ReportedLimit(
        None if limit is None else int(limit),
        None if remaining is None else int(remaining),
        _number(headers.get(_RESET)) if makes_sense else None,
        seconds,
    )


def rate_limit(headers: Mapping[str, str]) -> dict[str, int] | None:
    """Read the rate limit that a response's headers tell of.

    Args:
        headers: The response's headers; their names are looked up in lower case.

    Returns:
        What there is of `limit`, `remaining` (requests) and `reset` (Unix seconds).
    """
    found = {
        name: int(number)
        for name, header in _LIMIT_HEADERS
        if (number := _number(headers.get(header))) is not None
    }
    return found or None


def retry_delay(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Read how long a refusal asks to wait.

    Args:
        headers: The refusal's headers.
        now: Unix seconds; by default the time it is.

    Returns:
        Seconds, or `None` if the headers say nothing that makes sense.
    """
    asked = headers.get("retry-after")
    seconds = _number(asked)
    if seconds is not None:
        return seconds
    at = _date(asked)
    if at is not None:
        return max(0.0, at - _now(headers, now))
    # A refusal that has requests left is not about the window, whose reset would be the
    # wrong thing to wait for.
    if (_number(headers.get(_HEADERS["remaining"])) or 0) > 0:
        return None
    return seconds_to_reset(headers, now)


def seconds_to_reset(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Read how long the window of the rate limit still lasts.

    `X-RateLimit-Reset` is the server's clock, so it is compared with the server's own `Date`
    where the clocks disagree: a client whose clock is wrong waits no longer for it. A `Date`
    may also be stale, so the shorter of two waits that make sense is taken. A reset in
    milliseconds is read as such. One that lies more than a day away makes no sense.
    """
    at = _number(headers.get(_RESET))
    if at is None:
        return None
    ours = time.time() if now is None else now
    servers = _now(headers, ours)
    for stamp in (at, at / 1000):
        waits = {stamp - ours, stamp - servers}
        ahead = [wait for wait in waits if 0 <= wait <= _DAY]
        if ahead:
            return min(ahead)
        if -_DAY <= stamp - servers < 0:
            return 0.0
    return 0.0 if at < servers else None


def _now(headers: Mapping[str, str], now: float | None) -> float:
    """Return the server's time, or ours where the two agree, since it is finer."""
    if now is None:
        now = time.time()
    servers = _date(headers.get("date"))
    return now if servers is None or abs(servers - now) <= _CLOCKS_AGREE else servers


@lru_cache(maxsize=1000)
def _number(text: str | None) -> float | None:
    """Parse plain digits alone: `float` would also accept `inf` and exponents."""
    return float(text) if text and _NUMBER.fullmatch(text.strip()) else None


def _date(text: str | None) -> float | None:
    try:
        date = parsedate_to_datetime(text) if text else None
        if date is not None and date.tzinfo is None:  # asctime, or a zone of -0000: UTC
            date = date.replace(tzinfo=timezone.utc)
        return None if date is None else date.timestamp()
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True)
class RetryPolicy:
    """Whether to send again, and after how long.

    Attributes:
        max_retries: Tries after the first; with 0, nothing is waited for.
        max_wait: The longest wait, in seconds; a server that asks for more is not waited for.
        random: Gives a number from 0 to 1.
    """

    max_retries: int
    max_wait: float
    random: Callable[[], float] = _random.random

    def allows(self, seconds: float) -> bool:
        """Return whether a wait is at most `max_wait`."""
        return seconds <= max(self.max_wait, _SHORTEST_WAIT)

    def should_retry(self, error: BaseException) -> bool:
        """Whether the server surely did not take the message, and will take it in time."""
        return (
            isinstance(error, ThinnestError)
            and error.is_retryable
            and self.allows(error.retry_after or 0.0)
        )

    def delay(self, error: BaseException | None, tries: int) -> float:
        """Seconds until the next try.

        Args:
            error: What came of the last one.
            tries: How many have counted so far, from 1 on.
        """
        asked = error.retry_after if isinstance(error, ThinnestError) else None
        if asked is not None:
            # Whole seconds are rounded, and others were told the same: come a little later.
            return min(asked + 0.05 + 0.2 * self.random(), max(self.max_wait, asked))
        return min(self._backoff(error, tries) * (0.75 + 0.5 * self.random()), self.max_wait)

    def patience(self) -> float:
        """Return how many seconds all backoffs take together."""
        error = ThinnestRateLimitError("")
        tries = range(1, self.max_retries + 1)
        return sum(min(self._backoff(error, number), self.max_wait) for number in tries)

    def _backoff(self, error: BaseException | None, tries: int) -> float:
        # A limit that says nothing may be a window of a minute; a lost connection is back
        # at once or not soon.
        first = 1.0 if isinstance(error, ThinnestRateLimitError) else 0.25
        backoff: float = first * 2.0 ** (tries - 1)
        return backoff


@dataclass
class Tries:
    """The tries of one call: which of them count, and when it gives up.

    A refusal by a limit costs a try only while no other request gets through, so that a batch
    over the limit loses nothing. A server that only refuses is given up on, and once that has
    been seen for long enough, each further call ends at its first refusal.
    """

    policy: RetryPolicy
    counted: float = 0.0
    refusals: int = 0
    accepts: int | None = None  # how many requests had got through before the last try
    is_hopeless: bool = False
    was_free: bool = False
    longest: float = inf  # seconds until the next try

    def fail(self) -> None:
        """Count a try that failed for another reason than a limit."""
        self.counted += 1
        self.was_free, self.longest = False, inf

    def refuse(
        self, reported: ReportedLimit, accepts: int, refusals: int, seconds: float
    ) -> None:
        """Count a try that a limit refused; `Limits.refused` explains the numbers.

        One with requests left is of the streams at once, of which other processes may close
        one at any time. So its long backoffs are cut in parts, which cost a part of a try.
        """
        self.refusals += 1
        self.was_free = self.accepts is not None and accepts > self.accepts
        self.longest = _STREAMS_WAIT if reported.remaining else inf
        if not self.was_free:
            self.counted += min(1.0, self.longest / 2.0 ** int(self.counted))
        many = refusals > self.policy.max_retries
        self.is_hopeless = many and seconds >= self.policy.patience()

    @property
    def are_over(self) -> bool:
        """Whether the call has used up its tries."""
        retries = self.policy.max_retries
        are_used_up = self.counted > retries or self.refusals > _MOST_REFUSALS * retries
        return are_used_up or self.is_hopeless

    def delay(self, error: BaseException | None) -> float:
        """Return the seconds until the next try: few, if the last one was not counted."""
        if self.was_free and getattr(error, "retry_after", None) is None:
            return min(0.05 + 0.1 * self.policy.random(), self.policy.max_wait)
        delay = self.policy.delay(error, max(1, int(self.counted)))
        return min(delay, self.longest * (0.75 + 0.5 * self.policy.random()))
