"""What 0.1 wrote goes on living: messages as JSON, and a pickled model."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

from langchain_core.messages import HumanMessage, messages_from_dict

from langchain_thinnest import ChatThinnest, expand_server_tools
from unit_tests.history import to_text

FIXTURES = Path(__file__).parent / "fixtures" / "0.1"


def test_messages() -> None:
    stored = json.loads((FIXTURES / "messages.json").read_text(encoding="utf-8"))
    for name, dicts in stored.items():
        history = [*messages_from_dict(dicts), HumanMessage("And?")]
        whole = to_text(history, None, agent_id="ag_shop")
        assert "Assistant called stock" in whole
        if name in ("session", "blocks"):
            assert to_text(history, "s_1", agent_id="ag_shop") == "And?"
            assert len(expand_server_tools(history[1])) == 3  # type: ignore[arg-type]


def test_a_pickled_model() -> None:
    model: ChatThinnest = pickle.loads((FIXTURES / "model.pickle").read_bytes())
    assert (model.agent_id, model.session_id, model.stop) == ("ag_shop", "s_1", ["x"])
    for name in ChatThinnest.model_fields:
        getattr(model, name)
