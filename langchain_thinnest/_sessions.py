"""Which sessions this process has spoken in."""

from __future__ import annotations

import threading


class KnownSessions:
    """The sessions that this process has spoken in, of each agent; the latest of them."""

    _MOST = 10_000

    def __init__(self) -> None:
        self._sessions: dict[tuple[str, str], None] = {}
        self._lock = threading.Lock()

    def add(self, agent_id: str, session_id: str) -> None:
        """Note that a session has heard a message."""
        with self._lock:
            self._sessions.pop((agent_id, session_id), None)
            self._sessions[agent_id, session_id] = None
            if len(self._sessions) > self._MOST:
                del self._sessions[next(iter(self._sessions))]

    def has(self, agent_id: str, session_id: str) -> bool:
        """Whether the session has heard a message of this process."""
        return (agent_id, session_id) in self._sessions


KNOWN_SESSIONS = KnownSessions()
