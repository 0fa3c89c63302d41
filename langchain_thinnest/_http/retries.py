"""What a response says of limits, and the retry policy: when a request may go out again.

A POST here makes an agent act and a session remember, so only what the server surely did
not take is sent again: see `ThinnestError.is_retryable`. How long to wait is the server's
to say, by `Retry-After`, then `X-RateLimit-Reset`; where it says nothing, the waits grow
exponentially, with jitter. tenacity does the waiting.
This module does no I/O; the clock and the dice can be passed in.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from langchain_thinnest.errors import ThinnestError, ThinnestRateLimitError

if TYPE_CHECKING:
    from tenacity import RetryCallState

_HEADERS = {"limit": "x-ratelimit-limit", "remaining": "x-ratelimit-remaining"}
_RESET = "x-ratelimit-reset"
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{0,9})?")
_CLOCKS_AGREE = 2.0  # seconds


def rate_limit(headers: Mapping[str, str]) -> dict[str, int] | None:
    """Read the rate limit that a response's headers tell of.

    Args:
        headers: The response's headers; their names are looked up in lower case.

    Returns:
        What there is of `limit`, `remaining` (requests) and `reset` (Unix seconds).
    """
    found = {
        name: int(number)
        for name, header in {**_HEADERS, "reset": _RESET}.items()
        if (number := _number(headers.get(header))) is not None
    }
    return found or None


def asked_wait(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Read how long a refusal asks to wait.

    `X-RateLimit-Reset` is the server's clock, so it is compared with the server's own
    `Date` where the clocks disagree: a client whose clock is wrong waits no longer for it.
    (`Date` is in whole seconds, so where they agree the client's own clock is finer.)

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
    """Read how long the window of the rate limit still lasts, as `asked_wait` does."""
    at = _number(headers.get(_RESET))
    return None if at is None else max(0.0, at - _now(headers, now))


def _now(headers: Mapping[str, str], now: float | None) -> float:
    if now is None:
        now = time.time()
    servers = _date(headers.get("date"))
    return now if servers is None or abs(servers - now) <= _CLOCKS_AGREE else servers


def _number(text: str | None) -> float | None:
    """A number in plain digits, of a length that makes sense: `float` takes `inf` and more."""
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
        max_retries: Tries after the first.
        max_wait: The longest wait, in seconds; a server that asks for more is not waited for.
        dice: Gives a number from 0 to 1.
    """

    max_retries: int
    max_wait: float
    dice: Callable[[], float] = random.random

    @property
    def max_window_wait(self) -> float | None:
        """The longest wait for a window's end; who wants no retries wants no such wait."""
        return self.max_wait if self.max_retries else None

    def should_retry(self, error: BaseException) -> bool:
        """Whether the server surely did not take the message, and will take it in time."""
        return (
            isinstance(error, ThinnestError)
            and error.is_retryable
            and (error.retry_after or 0.0) <= self.max_wait
        )

    def wait(self, state: RetryCallState) -> float:
        """Seconds until the next try; tenacity asks."""
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, ThinnestError) else None
        if asked is not None:
            # Whole seconds are rounded, and others were told the same: come a little later.
            return min(asked + 0.05 + 0.2 * self.dice(), max(self.max_wait, asked))
        # A limit that says nothing may be a window of a minute; a lost connection is back
        # at once or not soon.
        first = 1.0 if isinstance(error, ThinnestRateLimitError) else 0.25
        backoff: float = first * 2.0 ** (state.attempt_number - 1)
        return min(backoff * (0.75 + 0.5 * self.dice()), self.max_wait)
