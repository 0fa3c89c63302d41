"""A pytest fixture, `thinnest`: import it from here into `conftest.py`; see the README."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from langchain_thinnest import ChatThinnest
from langchain_thinnest.emulator import Session, ThinnestEmulator
from langchain_thinnest.emulator.agents import Unanswered, scripted

try:
    import pytest
except ModuleNotFoundError as error:
    message = "The fixture needs pytest, which is not installed: pip install pytest"
    raise ImportError(message) from error


class ScriptedThinnest(ThinnestEmulator):
    """What the fixture gives: an emulator, with `requests`, `fail_next`, `agents` and all."""

    def answers(self, *script: Any, agent_id: str = "*") -> None:
        """Say what an agent answers, as a script; by default, all that are given nothing."""
        self.agents[agent_id] = scripted(list(script))

    def model(self, agent_id: str = "ag_test", **fields: Any) -> ChatThinnest:
        """A model that asks here."""
        given = {"api_key": self.api_key, "base_url": self.base_url, **fields}
        return ChatThinnest(agent_id=agent_id, **given)


def _unanswered(message: str, session: Session) -> None:
    raise Unanswered(
        f"{session.agent_id} was asked {message!r}, before `thinnest.answers(...)`"
    )


@pytest.fixture
def thinnest(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedThinnest]:
    """An agent that answers as the test says, whom every `ChatThinnest(...)` asks.

    A message without an answer is an error there, and fails the test at its end.
    """
    with ScriptedThinnest({"*": _unanswered}) as emulator:
        monkeypatch.setenv("THINNEST_API_KEY", emulator.api_key)
        monkeypatch.setenv("THINNEST_BASE_URL", emulator.base_url)
        monkeypatch.setenv("THINNEST_AGENT_ID", "ag_test")
        yield emulator
    if missing := [str(error) for error in emulator.errors if isinstance(error, Unanswered)]:
        asked = "\n".join(f"  {r.path} {dict(r)}" for r in emulator.requests)
        pytest.fail("\n".join([*missing, "All that was asked:", asked]), pytrace=False)
