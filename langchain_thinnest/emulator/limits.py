"""The limits that the vendor sets: requests in a window of time, and connections at once."""

from __future__ import annotations

import math
import time
from collections import Counter


class Limits:
    """What each API key has used; `None` is no limit."""

    def __init__(self, requests: int | None, seconds: float, connections: int | None) -> None:
        self._requests, self._seconds, self._connections = requests, seconds, connections
        self._windows: dict[str, tuple[float, int]] = {}  # key → (its end, requests in it)
        self._open: Counter[str] = Counter()

    def take(self, key: str) -> tuple[bool, dict[str, str]]:
        """Count a request: whether it is within the limit, and the headers that tell."""
        now = time.time()
        end, used = self._windows.get(key, (0.0, 0))
        if now >= end:
            end, used = now + self._seconds, 0
        allowed = self._requests is None or used < self._requests
        self._windows[key] = end, used + allowed
        if self._requests is None:
            return True, {}
        headers = {
            "X-RateLimit-Limit": str(self._requests),
            "X-RateLimit-Remaining": str(self._requests - used - allowed),
            "X-RateLimit-Reset": str(math.ceil(end)),
        }
        after = {} if allowed else {"Retry-After": str(max(1, math.ceil(end - now)))}
        return allowed, {**headers, **after}

    def connect(self, key: str) -> bool:
        """Open a connection, unless the key has too many."""
        allowed = self._connections is None or self._open[key] < self._connections
        self._open[key] += allowed
        return allowed

    def disconnect(self, key: str) -> None:
        """Close a connection that `connect` opened."""
        self._open[key] -= 1
