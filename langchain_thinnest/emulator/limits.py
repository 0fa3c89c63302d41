"""The limits that the vendor sets: requests in a window of time, and connections at once."""

from __future__ import annotations

import math
import time
from collections import Counter


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
        refused, headers = "", {}
        if self._requests is not None and used >= self._requests:
            refused = "Rate limit exceeded"
            headers["Retry-After"] = str(max(1, math.ceil(end - now)))
        elif self._connections is not None and self.open[key] >= self._connections:
            refused = "Too many concurrent connections"
        else:
            used += 1
        self._windows[key] = end, used
        if self._requests is not None:
            headers["X-RateLimit-Limit"] = str(self._requests)
            headers["X-RateLimit-Remaining"] = str(self._requests - used)
            headers["X-RateLimit-Reset"] = str(math.ceil(end))
        return refused, headers
