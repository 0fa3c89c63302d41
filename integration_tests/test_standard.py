"""The framework's own tests: against the emulator, and the live service when a key is set."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests

from integration_tests.protocol_agent import protocol_agent
from langchain_thinnest import ChatThinnest
from langchain_thinnest.emulator import ThinnestEmulator


class Standard(ChatModelIntegrationTests):
    """What `ChatThinnest` is, whatever it asks."""

    @property
    def chat_model_class(self) -> type[ChatThinnest]:
        return ChatThinnest

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def enable_vcr_tests(self) -> bool:
        return True

    @pytest.fixture(scope="class")
    @classmethod
    def vcr_config(cls) -> dict[str, Any]:
        """Ask the server each time, and keep no key."""
        return {"record_mode": "all", "filter_headers": ["authorization"]}

    @pytest.fixture
    def vcr_cassette_dir(self, tmp_path: Path) -> str:
        return str(tmp_path)


class TestEmulated(Standard):
    emulator: ThinnestEmulator

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def serve(cls) -> Iterator[None]:
        agents = {"ag_demo": protocol_agent, "ag_other": protocol_agent}
        with ThinnestEmulator(agents) as cls.emulator:
            yield

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "agent_id": "ag_demo",
            "api_key": self.emulator.api_key,
            "base_url": self.emulator.base_url,
        }

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "ag_other"


class TestJSONAnswers(TestEmulated):
    """At the endpoint for an agent's key, which answers in JSON."""

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def serve(cls) -> Iterator[None]:
        agents = {"ag_demo": protocol_agent, "ag_other": protocol_agent}
        with ThinnestEmulator(agents, siblings_stream=False) as cls.emulator:
            yield
            paths = {request.path for request in cls.emulator.requests}
            assert paths == {f"/v1/agents/{agent_id}/chat" for agent_id in agents}

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {**super().chat_model_params, "endpoint": "/v1/agents/{agent_id}/chat"}


if os.environ.get("THINNEST_API_KEY") and os.environ.get("THINNEST_AGENT_ID"):

    class TestLive(Standard):
        @property
        def chat_model_params(self) -> dict[str, Any]:
            return {"agent_id": os.environ["THINNEST_AGENT_ID"]}

        @property
        def supports_model_override(self) -> bool:
            return False  # the environment names one agent
