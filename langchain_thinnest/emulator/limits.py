"""The limits that the vendor sets: requests in a window of time, and connections at once."""

from __future__ import annotations

import math
import time
from collections import Counter


class Limits:
    """What each API key has used, and what a response says of it; `None` is no limit."""

    def __init__(self, requests: int | None, seconds: float, connections: int | None) -> None:
        self._requests, self._seconds, self._connections = requests, seconds, connections
        self._windows: dict[str, tuple[float, int]] = {}  # key → (its end, requests in it)
        self._open: Counter[str] = Counter()

    def take(self, key: str) -> bool:
        """Count a request, and say whether it is within the window's limit."""
        end, used = self._windows.get(key, (0.0, 0))
        if time.time() >= end:
            end, used = time.time() + self._seconds, 0
        allowed = self._requests is None or used < self._requests
        self._windows[key] = (end, used + allowed)
        return allowed

    def headers(self, key: str) -> dict[str, str]:
        """The `X-RateLimit-*` headers; none where there is no limit."""
        if self._requests is None:
            return {}
        end, used = self._windows[key]
        return {
            "X-RateLimit-Limit": str(self._requests),
            "X-RateLimit-Remaining": str(self._requests - used),
            "X-RateLimit-Reset": str(math.ceil(end)),
        }

    def seconds_left(self, key: str) -> int:
        """Seconds until the window ends, rounded up."""
        return max(1, math.ceil(self._windows[key][0] - time.time()))

    def connect(self, key: str) -> bool:
        """Open a connection, unless the key has too many."""
        allowed = self._connections is None or self._open[key] < self._connections
        self._open[key] += allowed
        return allowed

    def disconnect(self, key: str) -> None:
        """Close a connection that `connect` opened."""
        self._open[key] -= 1
