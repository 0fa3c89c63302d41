"""Hosted agents in other people's agents: loops, supervisors, subagents, middleware.

The agents here follow scripts, so that every word of theirs and every message to them is
known; in the notebooks, and in the standard suite, one decides by itself.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    HumanInTheLoopMiddleware,
    ModelRetryMiddleware,
)
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command
from pydantic import BaseModel

from langchain_thinnest import (
    ChatThinnest,
    ThinnestInterruptedError,
    ThinnestServerError,
    create_thinnest_agent,
)
from langchain_thinnest.emulator import Fault, ThinnestEmulator

Scripted = Callable[..., ChatThinnest]
SEARCH = [
    {"type": "tool_call", "name": "search", "args": {"query": "tides"}},
    {"type": "tool_result", "name": "search", "result": "The moon pulls."},
]


def call(name: str, args: str = "{}") -> str:
    return f'<tool_call>{{"name": "{name}", "arguments": {args}}}</tool_call>'


@pytest.fixture
def emulator() -> Iterator[ThinnestEmulator]:
    with ThinnestEmulator({}) as emulator:
        yield emulator


@pytest.fixture
def scripted(emulator: ThinnestEmulator) -> Scripted:
    """Makes a model whose agent gives these answers, one after the other."""

    def make(agent_id: str, *answers: Any, **fields: Any) -> ChatThinnest:
        left = list(answers)

        def agent(message: str, session: Any) -> Any:
            answer = left.pop(0)
            yield from [answer] if isinstance(answer, str) else answer

        emulator.agents[agent_id] = agent
        return ChatThinnest(
            agent_id=agent_id,
            api_key=emulator.api_key,
            base_url=emulator.base_url,
            **fields,
        )

    return make


def run(graph: Any, given: Any, is_async: bool, config: Any = None) -> Any:
    if isinstance(given, str):
        given = {"messages": given}
    return (
        asyncio.run(graph.ainvoke(given, config)) if is_async else graph.invoke(given, config)
    )


both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


@tool
def get_weather(city: str) -> str:
    """Say how the weather is."""
    return f"Sunny in {city}."


@tool
def get_time(city: str) -> str:
    """Say what time it is."""
    return f"Noon in {city}."


PARIS = '{"city": "Paris"}'
WEATHER = (
    '<tool_response>{"name": "get_weather", "content": "Sunny in Paris."}</tool_response>'
)
TIME = '<tool_response>{"name": "get_time", "content": "Noon in Paris."}</tool_response>'
BOTH_ANSWERS = (
    ["Let me see. ", *SEARCH, "And: ", call("get_weather", PARIS) + call("get_time", PARIS)],
    "Sunny, and noon.",
)
BOTH_TYPES = ["human", "ai", "tool", "tool", "ai"]


def sent(emulator: ThinnestEmulator) -> list[str]:
    """What was sent, without what asks for tools."""
    return [body["message"].rpartition("none helps.\n\n")[2] for body in emulator.requests]


@both
def test_an_agent_loop_runs_the_local_tools_alone(
    scripted: Scripted, emulator: ThinnestEmulator, is_async: bool
) -> None:
    agent = create_agent(scripted("ag_1", *BOTH_ANSWERS), [get_weather, get_time])
    messages = run(agent, "Paris?", is_async)["messages"]
    assert [message.type for message in messages] == BOTH_TYPES
    assert [m.text for m in messages if isinstance(m, ToolMessage)] == [
        "Sunny in Paris.",
        "Noon in Paris.",
    ]
    assert messages[-1].text == "Sunny, and noon."
    blocks = [block["type"] for block in messages[1].content_blocks]
    assert blocks[1:3] == ["server_tool_call", "server_tool_result"]
    assert sent(emulator)[1] == "\n\n".join(
        [
            "User: Paris?",
            "Assistant: Let me see. ",
            'Assistant called search: {"query": "tides"}',
            "Tool (search): The moon pulls.",
            f"Assistant: And: \n{call('get_weather', PARIS)}\n{call('get_time', PARIS)}",
            WEATHER,
            TIME,
        ]
    )


@both
def test_an_agent_loop_with_sessions(
    scripted: Scripted, emulator: ThinnestEmulator, is_async: bool
) -> None:
    model = scripted("ag_1", *BOTH_ANSWERS, "Bye.", session_key="thread_id")
    agent = create_agent(model, [get_weather, get_time], checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "t_1"}}
    run(agent, "Paris?", is_async, thread)
    run(agent, "Thanks.", is_async, thread)
    assert {body["session_id"] for body in emulator.requests} == {"t_1"}
    assert sent(emulator) == ["Paris?", f"{WEATHER}\n\n{TIME}", "Thanks."]


@both
def test_an_agent_loop_streams(scripted: Scripted, is_async: bool) -> None:
    agent = create_agent(scripted("ag_1", *BOTH_ANSWERS), [get_weather, get_time])
    modes = ["messages", "tools", "updates"]

    async def arun() -> list[Any]:
        return [p async for p in agent.astream({"messages": "Paris?"}, stream_mode=modes)]

    if is_async and sys.version_info < (3, 11):
        pytest.skip("asyncio hands no config to the model before 3.11")
    parts = (
        asyncio.run(arun())
        if is_async
        else list(agent.stream({"messages": "Paris?"}, stream_mode=modes))
    )
    texts = [data[0].text for mode, data in parts if mode == "messages" and data[0].text]
    assert texts[:2] == ["Let me see. ", "And: "]
    assert texts[-1] == "Sunny, and noon."
    named = [
        part["name"]
        for mode, data in parts
        if mode == "messages"
        for part in getattr(data[0], "tool_call_chunks", ())
        if part["name"]
    ]
    assert named == ["get_weather", "get_time"]
    events = [data["event"] for mode, data in parts if mode == "tools"]
    # The server's search, then the two on this side, which may run at the same time.
    assert events[:2] == ["tool-started", "tool-finished"]
    assert sorted(events[2:]) == ["tool-finished"] * 2 + ["tool-started"] * 2


@both
def test_a_tool_that_fails_is_told(
    scripted: Scripted, emulator: ThinnestEmulator, is_async: bool
) -> None:
    model = scripted("ag_1", call("get_rain", PARIS), "Sorry.")
    messages = run(create_agent(model, [get_weather]), "Rain?", is_async)["messages"]
    assert messages[2].status == "error"
    assert sent(emulator)[1].endswith(
        'try one of [get_weather].", "status": "error"}</tool_response>'
    )
    assert messages[-1].text == "Sorry."


class Answer(BaseModel):
    """The answer."""

    city: str
    celsius: float


FIT = '{"city": "Paris", "celsius": 21.5}'
TYPED = Answer(city="Paris", celsius=21.5)


@both
@pytest.mark.parametrize("form", [Answer, ToolStrategy(Answer)], ids=["automatic", "tool"])
def test_a_typed_answer_as_a_tool(
    scripted: Scripted, emulator: ThinnestEmulator, form: Any, is_async: bool
) -> None:
    model = scripted(
        "ag_1",
        call("get_weather", PARIS),
        call("Answer", '{"city": "Paris"}'),  # does not fit: it is told, and tries again
        call("Answer", FIT),
    )
    agent = create_agent(model, [get_weather], response_format=form)
    assert run(agent, "Paris?", is_async)["structured_response"] == TYPED
    messages = [body["message"] for body in emulator.requests]
    assert all('"name": "Answer"' in message for message in messages)
    assert all("You must call at least one of the tools now." in m for m in messages)
    assert "celsius" in messages[2].rpartition("<tool_response>")[2]


@both
@pytest.mark.parametrize("tools", [[], [get_weather]], ids=["alone", "with a tool"])
def test_a_typed_answer_of_the_provider(
    scripted: Scripted, emulator: ThinnestEmulator, tools: Any, is_async: bool
) -> None:
    answers = [call("get_weather", PARIS), FIT] if tools else [FIT]
    agent = create_agent(
        scripted("ag_1", *answers), tools, response_format=ProviderStrategy(Answer)
    )
    assert run(agent, "Paris?", is_async)["structured_response"] == TYPED
    for body in emulator.requests:
        assert "<response_schema>\n" in body["message"]
        assert ("<tools>" in body["message"]) == bool(tools)


@both
def test_a_supervisor_of_two_hosted_agents_with_sessions(
    scripted: Scripted, emulator: ThinnestEmulator, is_async: bool
) -> None:
    """Each agent hears the user's question, and remembers in a session of its own."""
    question = "How is Paris, and how is 6 * 7?"
    poet = scripted("ag_poet", ["Warm. ", *SEARCH, "Blue."], "Still blue.", session_key="poet")
    clerk = scripted("ag_clerk", "It is 42.", "Still 42.", session_key="clerk")

    @tool
    def ask_poet() -> Command:
        """Hand over to the poet."""
        return Command(goto="poet")

    @tool
    def ask_clerk() -> Command:
        """Hand over to the clerk."""
        return Command(goto="clerk")

    chief = scripted(
        "ag_chief",
        *(call("ask_poet"), call("ask_clerk"), "Warm, blue, 42."),
        *(call("ask_clerk"), call("ask_poet"), "As before."),
    ).bind_tools([ask_poet, ask_clerk])

    def decide(state: MessagesState) -> Command:
        return _decided(chief.invoke(state["messages"]))

    async def adecide(state: MessagesState) -> Command:
        return _decided(await chief.ainvoke(state["messages"]))

    def _decided(answer: AIMessage) -> Command:
        goto = [made["name"].removeprefix("ask_") for made in answer.tool_calls]
        told = [
            ToolMessage("Handed over.", tool_call_id=made["id"], name=made["name"])
            for made in answer.tool_calls
        ]
        return Command(goto=goto or END, update={"messages": [answer, *told]})

    graph = StateGraph(MessagesState)
    graph.add_node(
        "chief", adecide if is_async else decide, destinations=("poet", "clerk", END)
    )
    for name, model in (("poet", poet), ("clerk", clerk)):
        graph.add_node(name, create_thinnest_agent(model, name=name))
        graph.add_edge(name, "chief")
    graph.add_edge(START, "chief")
    compiled = graph.compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1", "poet": "s_poet", "clerk": "s_clerk"}}

    messages = run(compiled, question, is_async, config)["messages"]
    assert messages[-1].text == "Warm, blue, 42."
    bodies = {body["agent_id"]: body for body in emulator.requests}
    for name in ("poet", "clerk"):
        assert bodies[f"ag_{name}"]["session_id"] == f"s_{name}"
        assert question in bodies[f"ag_{name}"]["message"]
    assert "session_id" not in bodies["ag_chief"]
    # What one agent's tools found, the next one reads.
    assert "Tool (search): The moon pulls." in bodies["ag_clerk"]["message"]

    run(compiled, "And now?", is_async, config)
    told = [body["message"] for body in emulator.requests if body["agent_id"] == "ag_poet"]
    assert len(told) == 2
    assert "User: And now?" in told[1]
    assert "It is 42." in told[1]  # what others said since
    assert "Blue." not in told[1]  # what the session remembers


@both
def test_a_subagent_of_deepagents(
    scripted: Scripted, emulator: ThinnestEmulator, is_async: bool
) -> None:
    deepagents = pytest.importorskip("deepagents", reason="it needs Python 3.11")
    oracle = scripted("ag_oracle", ["Hm. ", *SEARCH, "Because of the moon."])
    task = '{"description": "Why are there tides?", "subagent_type": "oracle"}'
    agent = deepagents.create_deep_agent(
        model=scripted("ag_chief", call("task", task), "The moon."),
        subagents=[
            {
                "name": "oracle",
                "description": "Knows why.",
                "runnable": create_thinnest_agent(oracle, name="oracle"),
            }
        ],
    )
    messages = run(agent, "Why are there tides?", is_async)["messages"]
    assert [message.type for message in messages] == ["human", "ai", "tool", "ai"]
    assert messages[2].text == "Because of the moon."
    asked = [body for body in emulator.requests if body["agent_id"] == "ag_oracle"]
    assert [body["message"] for body in asked] == ["Why are there tides?"]


@both
def test_a_tool_of_another_model(
    scripted: Scripted, emulator: ThinnestEmulator, is_async: bool
) -> None:
    oracle = scripted("ag_oracle", ["Hm. ", *SEARCH, "The moon."])
    expert = oracle.as_tool(name="ask_oracle", description="Knows why.")
    chief = scripted("ag_chief", call("ask_oracle", '{"question": "Why?"}'), "I see.")
    messages = run(create_agent(chief, [expert]), "Tides?", is_async)["messages"]
    assert [message.type for message in messages] == ["human", "ai", "tool", "ai"]
    assert messages[2].text == "Hm. The moon."
    assert messages[2].artifact.response_metadata["model_name"] == "ag_oracle"
    assert emulator.requests[1] == {"agent_id": "ag_oracle", "message": "Why?"}


@both
@pytest.mark.parametrize("decision", ["approve", "edit", "reject"])
def test_a_human_in_the_loop(
    scripted: Scripted, emulator: ThinnestEmulator, decision: str, is_async: bool
) -> None:
    agent = create_agent(
        scripted("ag_1", f"I ask. {call('get_weather', PARIS)}", "Done."),
        [get_weather],
        middleware=[HumanInTheLoopMiddleware({"get_weather": True})],
        checkpointer=InMemorySaver(),
    )
    thread = {"configurable": {"thread_id": "1"}}
    (stop,) = run(agent, "Paris?", is_async, thread)["__interrupt__"]
    assert stop.value["action_requests"][0]["args"] == {"city": "Paris"}
    answer: dict[str, Any] = {"type": decision}
    if decision == "edit":
        answer["edited_action"] = {"name": "get_weather", "args": {"city": "Rome"}}
    elif decision == "reject":
        answer["message"] = "Not now."
    resumed = run(agent, Command(resume={"decisions": [answer]}), is_async, thread)
    said, told = sent(emulator)[1].rsplit("<tool_response>", 1)
    assert call("get_weather", PARIS) in said
    assert ("Sunny in Paris." in told) == (decision == "approve")
    assert ("Sunny in Rome." in told) == (decision == "edit")
    assert ('Not now.", "status": "error"' in told) == (decision == "reject")
    assert resumed["messages"][-1].text == "Done."


@both
def test_retries_of_middleware_respect_what_is_retryable(
    scripted: Scripted, emulator: ThinnestEmulator, is_async: bool
) -> None:
    """A lost answer is not asked for again, since the agent may have acted."""

    retry = ModelRetryMiddleware(
        max_retries=2, on_failure="error", initial_delay=0.0, jitter=False
    )
    model = scripted("ag_1", "One.", "Two.", max_retries=0)
    agent = create_agent(model, [get_weather], middleware=[retry])
    emulator.fail_next(Fault.status(429, retry_after=0))
    assert run(agent, "Hi", is_async)["messages"][-1].text == "One."
    assert len(emulator.requests) == 2
    emulator.fail_next(Fault.cut(after=1))
    with pytest.raises(ThinnestInterruptedError):
        run(agent, "Hi", is_async)
    emulator.fail_next(Fault.status(500))
    with pytest.raises(ThinnestServerError):
        run(agent, "Hi", is_async)
    assert len(emulator.requests) == 4
