"""Which sessions this process has spoken in."""

from __future__ import annotations

from langchain_thinnest._sessions import KnownSessions, RecentSessions


class Few(RecentSessions[bool]):
    _MOST = 2


def test_the_latest_sessions_of_each_agent_are_known() -> None:
    known = Few()
    for session in ("a", "b", "a", "c"):
        known.put("ag_1", session, True)
    assert [known.get("ag_1", session) for session in ("a", "b", "c")] == [True, None, True]
    assert not known.get("ag_2", "a")


def test_a_session_is_known_by_its_agent() -> None:
    known = KnownSessions()
    known.add("ag_1", "a")
    assert known.has("ag_1", "a")
    assert not known.has("ag_1", "b")
    assert not known.has("ag_2", "a")
