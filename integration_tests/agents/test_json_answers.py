"""Answers in JSON in graphs and agents."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import ToolMessage

from integration_tests.conftest import Make
from integration_tests.wire import WireServer, refusal
from langchain_thinnest import create_thinnest_agent
from unit_tests.contract import TEXT, USAGE

TOOLS = [{"name": "web_search", "args": {"query": "ML"}, "result": "..."}]
ANSWER = {"response": TEXT, "session_id": "s1", "usage": USAGE, "tool_calls": TOOLS}
GIVEN: Any = {"messages": "hi"}


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("has_result", [False, True])
@pytest.mark.parametrize("version", [None, "v1"])
def test_a_hosted_agent(
    wired: Make, wire: WireServer, is_async: bool, has_result: bool, version: Any
) -> None:
    """The text comes last, also after a call whose result is not told."""
    tools = TOOLS if has_result else [{"name": "web_search", "args": {"query": "ML"}}]
    wire.answer(refusal(200, {**ANSWER, "tool_calls": tools}))
    model = wired(endpoint="/v1/agents/{agent_id}/chat", output_version=version)
    agent = create_thinnest_agent(model)

    async def run() -> list[Any]:
        return [part async for part in agent.astream(GIVEN, stream_mode=modes)]

    modes: Any = ["messages", "tools", "values"]
    parts = asyncio.run(run()) if is_async else list(agent.stream(GIVEN, stream_mode=modes))
    final = [data for mode, data in parts if mode == "values"][-1]["messages"][1:]
    assert [message.type for message in final] == ["ai", "tool", "ai"]
    assert final[1].status == ("success" if has_result else "error")
    assert (final[-1].text, final[-1].usage_metadata) == (TEXT, USAGE)
    shown = [data[0] for mode, data in parts if mode == "messages"]
    assert "".join(m.text for m in shown if not isinstance(m, ToolMessage)) == TEXT
    assert {message.id for message in shown} <= {message.id for message in final}
    events = [data["event"] for mode, data in parts if mode == "tools"]
    assert events == ["tool-started", "tool-finished" if has_result else "tool-error"]


@pytest.mark.parametrize("is_async", [False, True])
def test_an_agent_with_a_tool_of_its_own(
    wired: Make, wire: WireServer, is_async: bool
) -> None:
    def weather(city: str) -> str:
        """Say how the weather is."""
        return f"sunny in {city}"

    call = '<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call>'
    wire.answer(
        refusal(200, {"response": f"Let me look. {call}", "tool_calls": TOOLS}),
        refusal(200, {"response": "It is sunny."}),
    )
    agent = create_agent(wired(), tools=[weather])
    state = asyncio.run(agent.ainvoke(GIVEN)) if is_async else agent.invoke(GIVEN)
    human, first, result, last = state["messages"]
    assert human.text == "hi"
    assert first.tool_calls[0]["args"] == {"city": "Paris"}
    assert (result.text, last.text) == ("sunny in Paris", "It is sunny.")
