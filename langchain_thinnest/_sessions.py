"""The sessions that this process has sent messages to."""

from __future__ import annotations

import threading


class KnownSessions:
    """The latest (agent, session) pairs that this process has sent a message to."""

    _MOST = 10_000

    def __init__(self) -> None:
        self._sessions: dict[tuple[str, str], None] = {}
        self._lock = threading.Lock()

    def add(self, agent_id: str, session_id: str) -> None:
        """Record that a message was sent to a session."""
        with self._lock:
            self._sessions.pop((agent_id, session_id), None)
            self._sessions[agent_id, session_id] = None
            if len(self._sessions) > self._MOST:
                del self._sessions[next(iter(self._sessions))]

    def has(self, agent_id: str, session_id: str) -> bool:
        """Whether this process has sent a message to the session."""
        return (agent_id, session_id) in self._sessions


KNOWN_SESSIONS = KnownSessions()
