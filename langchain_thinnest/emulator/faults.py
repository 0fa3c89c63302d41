"""What can go wrong with a request: on purpose, and by the limits that the vendor sets."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Event = dict[str, Any]
_MESSAGE = "The emulator was told to fail"


class Cut(Exception):  # noqa: N818  # no error of anybody's: it was asked for
    """Ends a body without its end, for which the server closes the connection."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong with one request: `emulator.fail_next(Fault.cut(after=3))`."""

    kind: Literal["status", "cut", "stall", "error"]
    after: int = 0
    code: int = 0
    seconds: float = 0.0
    message: str = _MESSAGE
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def status(
        cls,
        code: int,
        message: str = _MESSAGE,
        *,
        retry_after: float | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Fault:
        """Refuse the request; `retry_after` is in seconds, or an HTTP date."""
        asked = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return cls("status", code=code, message=message, headers={**(headers or {}), **asked})

    @classmethod
    def cut(cls, *, after: int = 0) -> Fault:
        """Close the connection in the middle of the answer, after some events."""
        return cls("cut", after=after)

    @classmethod
    def stall(cls, seconds: float, *, after: int = 0) -> Fault:
        """Send nothing for some seconds, after some events, and go on."""
        return cls("stall", after=after, seconds=seconds)

    @classmethod
    def error(cls, message: str = _MESSAGE, *, after: int = 0) -> Fault:
        """Send an `error` event in place of the rest of the answer, after some events."""
        return cls("error", after=after, message=message)

    async def spoil(self, events: AsyncIterator[Event]) -> AsyncIterator[Event]:
        """Give events until something goes wrong."""
        left = self.after
        async for event in events:
            if left == 0 and self.kind == "cut":
                raise Cut
            if left == 0 and self.kind == "error":
                yield {"type": "error", "message": self.message}
                return
            await asyncio.sleep(self.seconds if left == 0 else 0)
            yield event
            left -= 1


class Limits:
    """What each API key has used; `None` is no limit. `open` counts its connections."""

    def __init__(self, requests: int | None, seconds: float, connections: int | None) -> None:
        self._requests, self._seconds, self._connections = requests, seconds, connections
        self._windows: dict[str, tuple[float, int]] = {}  # key → (its end, requests in it)
        self.open: Counter[str] = Counter()

    def take(self, key: str) -> tuple[str, dict[str, str]]:
        """Count a request. Gives why it is refused, if it is, and the headers that tell."""
        now = time.time()
        end, used = self._windows.get(key, (0.0, 0))
        if now >= end:
            end, used = now + self._seconds, 0
        is_full = self._requests is not None and used >= self._requests
        is_busy = self._connections is not None and self.open[key] >= self._connections
        used += not (is_full or is_busy)
        self._windows[key] = end, used
        headers = {"Retry-After": str(max(1, math.ceil(end - now)))} if is_full else {}
        if self._requests is not None:
            headers["X-RateLimit-Limit"] = str(self._requests)
            headers["X-RateLimit-Remaining"] = str(self._requests - used)
            headers["X-RateLimit-Reset"] = str(math.ceil(end))
        refused = "Too many concurrent connections" if is_busy else ""
        return "Rate limit exceeded" if is_full else refused, headers
