"""What is known of sessions: in this process, and in a graph's store."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

from langchain_thinnest._forks import Seen
from langchain_thinnest._http.closing import finish

if TYPE_CHECKING:
    from langgraph.store.base import BaseStore

logger = logging.getLogger(__name__)

V = TypeVar("V")


class RecentSessions(Generic[V]):
    """What is known of the latest (agent, session) pairs: the oldest are forgotten."""

    _MOST = 10_000

    def __init__(self) -> None:
        self._sessions: dict[tuple[str, str], V] = {}
        self._lock = threading.Lock()

    def put(self, agent_id: str, session_id: str, value: V) -> None:
        """Record what is known of a session now."""
        with self._lock:
            self._sessions.pop((agent_id, session_id), None)
            self._sessions[agent_id, session_id] = value
            if len(self._sessions) > self._MOST:
                del self._sessions[next(iter(self._sessions))]

    def get(self, agent_id: str, session_id: str) -> V | None:
        """Return what is known of a session."""
        return self._sessions.get((agent_id, session_id))


class KnownSessions:
    """The latest (agent, session) pairs that this process has sent a message to."""

    def __init__(self) -> None:
        self._sessions: RecentSessions[bool] = RecentSessions()

    def add(self, agent_id: str, session_id: str) -> None:
        """Record that a message was sent to a session."""
        self._sessions.put(agent_id, session_id, True)

    def has(self, agent_id: str, session_id: str) -> bool:
        """Whether this process has sent a message to the session."""
        return self._sessions.get(agent_id, session_id) is not None


KNOWN_SESSIONS = KnownSessions()


class SessionRecords:
    """What sessions have seen: in the store if there is one, and in this process."""

    _NAMESPACE = ("langchain_thinnest", "sessions")

    def __init__(self, memory: RecentSessions[Seen], store: BaseStore | None) -> None:
        self._memory = memory
        self._store = store

    def seen_by(self, agent_id: str, session_id: str) -> Seen | None:
        """Return what a session has seen, if that is known."""
        if self._store is not None:
            item = self._store.get(self._NAMESPACE, f"{agent_id}/{session_id}")
            if item is not None:
                return Seen.from_dict(item.value)
        return self._memory.get(agent_id, session_id)

    async def aseen_by(self, agent_id: str, session_id: str) -> Seen | None:
        """The async twin of `seen_by`."""
        if self._store is not None:
            item = await self._store.aget(self._NAMESPACE, f"{agent_id}/{session_id}")
            if item is not None:
                return Seen.from_dict(item.value)
        return self._memory.get(agent_id, session_id)

    def record(self, agent_id: str, session_id: str, seen: Seen) -> None:
        """Record what a session has seen; a store that fails is a warning.

        The answer is on its way by then, and is worth more.
        """
        self._memory.put(agent_id, session_id, seen)
        if (store := self._store) is None:
            return
        key = f"{agent_id}/{session_id}"
        try:
            store.put(self._NAMESPACE, key, seen.to_dict(), index=False)
        except Exception:
            logger.warning(_NOT_KEPT, session_id, exc_info=True)

    async def arecord(self, agent_id: str, session_id: str, seen: Seen) -> None:
        """The async twin of `record`."""
        self._memory.put(agent_id, session_id, seen)
        if (store := self._store) is None:
            return
        key = f"{agent_id}/{session_id}"
        try:
            # Twins differ: what was sent is recorded though the task is cancelled.
            await finish(lambda: store.aput(self._NAMESPACE, key, seen.to_dict(), index=False))
        except Exception:
            logger.warning(_NOT_KEPT, session_id, exc_info=True)


_NOT_KEPT = (
    "The graph's store did not take what session %r has seen. In other processes its next "
    "turn may be taken for a branch."
)
