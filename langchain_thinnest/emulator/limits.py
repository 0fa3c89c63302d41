"""The limits that the vendor sets: requests in a window of time, and connections at once."""

from __future__ import annotations

import math
import time


class Limits:
    """What each API key has used, and what a response says of it."""

    def __init__(
        self,
        requests_per_window: int | None,
        window_seconds: float,
        max_connections: int | None,
    ) -> None:
        """Set the limits; `None` is no limit."""
        self._requests = requests_per_window
        self._seconds = window_seconds
        self._connections = max_connections
        self._windows: dict[str, tuple[float, int]] = {}  # key → (its end, requests in it)
        self._open: dict[str, int] = {}

    def take(self, key: str) -> bool:
        """Count a request, and say whether it is within the window's limit."""
        now = time.time()
        end, used = self._windows.get(key, (0.0, 0))
        if now >= end:
            end, used = now + self._seconds, 0
        allowed = self._requests is None or used < self._requests
        self._windows[key] = (end, used + allowed)
        return allowed

    def headers(self, key: str) -> dict[str, str]:
        """The `X-RateLimit-*` headers; none where there is no limit."""
        if self._requests is None:
            return {}
        end, used = self._windows.get(key, (time.time() + self._seconds, 0))
        return {
            "X-RateLimit-Limit": str(self._requests),
            "X-RateLimit-Remaining": str(self._requests - used),
            "X-RateLimit-Reset": str(math.ceil(end)),
        }

    def seconds_left(self, key: str) -> int:
        """Seconds until the window ends, rounded up."""
        end, _ = self._windows.get(key, (0.0, 0))
        return max(1, math.ceil(end - time.time()))

    def connect(self, key: str) -> bool:
        """Open a connection, unless the key has too many."""
        count = self._open.get(key, 0)
        if self._connections is not None and count >= self._connections:
            return False
        self._open[key] = count + 1
        return True

    def give_back(self, key: str) -> None:
        """Take back what `take` counted: a request that is refused for another reason."""
        end, used = self._windows[key]
        self._windows[key] = (end, used - 1)

    def disconnect(self, key: str) -> None:
        """Close a connection that `connect` opened."""
        self._open[key] -= 1
