"""Which sessions this process has spoken in."""

from __future__ import annotations

from langchain_thinnest._sessions import KnownSessions


class Few(KnownSessions):
    _MOST = 2


def test_the_latest_sessions_of_each_agent_are_known() -> None:
    known = Few()
    for session in ("a", "b", "a", "c"):
        known.add("ag_1", session)
    assert [known.has("ag_1", session) for session in ("a", "b", "c")] == [True, False, True]
    assert not known.has("ag_2", "a")
