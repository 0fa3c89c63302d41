"""The vendor's sibling endpoints: what is asked there, with which key, and what comes back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.runnables import ConfigurableField
from langchain_core.tools import tool

from integration_tests import ways
from integration_tests.conftest import KEY, Make, echo_agent, example_agent
from integration_tests.wire import WireServer, head, refusal, stream
from langchain_thinnest import (
    ChatThinnest,
    ThinnestAuthenticationError,
    ThinnestError,
    ThinnestNotFoundError,
    ThinnestPermissionError,
    ThinnestRateLimitError,
    ThinnestRequestError,
)
from langchain_thinnest.emulator import Fault, ThinnestEmulator
from unit_tests.contract import EVENTS, TEXT, as_sse

STREAM, ACCOUNT, AGENT = "/chat/stream", "/chat", "/v1/agents/{agent_id}/chat"
AGENT_KEY, ACCOUNT_KEY = "ak_of_one_agent", "thns_sk_of_all"


@pytest.fixture(params=[True, False], ids=["stream", "json"])
def siblings(request: Any) -> Iterator[ThinnestEmulator]:
    """The emulator, whose sibling endpoints stream, or answer in JSON."""
    agents = {"ag_1": example_agent, "ag_2": echo_agent}
    with ThinnestEmulator(
        agents,
        api_keys=[ACCOUNT_KEY],
        agent_keys={AGENT_KEY: "ag_1"},
        siblings_stream=request.param,
    ) as emulator:
        yield emulator


def model_of(emulator: ThinnestEmulator, **fields: Any) -> ChatThinnest:
    given = {"agent_id": "ag_1", "api_key": AGENT_KEY, "base_url": emulator.base_url}
    return ChatThinnest(**{**given, "endpoint": AGENT, **fields})


# --- what is asked ---


@pytest.mark.parametrize(
    ("endpoint", "path", "body"),
    [
        (STREAM, "/chat/stream", {"agent_id": "a/1", "message": "hi"}),
        (ACCOUNT, "/chat", {"agent_id": "a/1", "message": "hi", "stream": True}),
        (AGENT, "/v1/agents/a%2F1/chat", {"message": "hi", "stream": True}),
        ("/own", "/own", {"agent_id": "a/1", "message": "hi", "stream": True}),
    ],
)
def test_the_request(
    wired: Make, wire: WireServer, any_way: Any, endpoint: str, path: str, body: Any
) -> None:
    wire.answer(stream(as_sse(*EVENTS)))
    model = wired(agent_id="a/1", base_url=f"{wire.base_url}/proxy")
    model = model.model_copy(update={"endpoint": endpoint})
    assert any_way(model, "hi").text == TEXT
    context = {"session_id": "s", "request_metadata": {"page": "/"}}
    assert any_way(model, "hi", **context).text == TEXT
    assert [taken.line for taken in wire.requests] == [f"POST /proxy{path} HTTP/1.1"] * 2
    assert wire.requests[0].json == body
    assert wire.requests[1].json == {**body, "session_id": "s", "metadata": {"page": "/"}}


def test_a_call_names_another_endpoint(wired: Make, wire: WireServer, any_way: Any) -> None:
    wire.answer(stream(as_sse(*EVENTS)))
    any_way(wired(), "hi", endpoint=AGENT)
    any_way(wired(endpoint=ACCOUNT), "hi", endpoint=AGENT, agent_id="ag_2")
    any_way(wired(endpoint=ACCOUNT), "hi", endpoint=None)
    any_way(wired(endpoint=AGENT), "hi", endpoint=STREAM)
    assert [taken.line.split()[1] for taken in wire.requests] == [
        "/v1/agents/ag_1/chat",
        "/v1/agents/ag_2/chat",
        "/chat",
        "/chat/stream",
    ]


def test_a_config_names_another_endpoint(wired: Make, wire: WireServer, any_way: Any) -> None:
    wire.answer(stream(as_sse(*EVENTS)))
    model = wired().configurable_fields(
        agent_id=ConfigurableField("agent"), endpoint=ConfigurableField("endpoint")
    )
    if any_way in ways.V3_WAYS:
        pytest.skip("a configurable model of the framework has no v3 events of its own")
    any_way(model, "hi", {"configurable": {"endpoint": AGENT, "agent": "ag_7"}})
    any_way(model, "hi")
    assert [taken.line.split()[1] for taken in wire.requests] == [
        "/v1/agents/ag_7/chat",
        "/chat/stream",
    ]


@pytest.mark.parametrize("endpoint", ["", "chat", "/../chat", "/{agent}/chat", "/a?b", 7])
def test_a_wrong_endpoint_of_a_call_is_refused(
    wired: Make, wire: WireServer, any_way: Any, endpoint: Any
) -> None:
    with pytest.raises(ThinnestRequestError, match="endpoint"):
        any_way(wired(), "hi", endpoint=endpoint)
    with pytest.raises(ThinnestRequestError, match="endpoint"):
        any_way(wired().model_copy(update={"endpoint": endpoint}), "hi")
    with pytest.raises(ThinnestRequestError, match="did you mean 'endpoint'"):
        any_way(wired(), "hi", endpont=AGENT)
    assert wire.requests == []


# --- what comes back ---


def test_an_agents_key_opens_its_endpoint(siblings: ThinnestEmulator, any_way: Any) -> None:
    answer = any_way(model_of(siblings), "hi")
    assert answer.text == TEXT
    assert answer.usage_metadata["total_tokens"] > 0
    assert answer.response_metadata["session_id"].startswith("sess_")
    assert [block["type"] for block in answer.content_blocks if "tool" in block["type"]] == [
        "server_tool_call",
        "server_tool_result",
    ]
    assert siblings.requests[0].path == "/v1/agents/ag_1/chat"


@pytest.mark.parametrize("endpoint", [ACCOUNT, AGENT])
def test_a_session_that_the_server_made_goes_on(
    siblings: ThinnestEmulator, any_way: Any, endpoint: str
) -> None:
    model = model_of(siblings, api_key=ACCOUNT_KEY, agent_id="ag_2", endpoint=endpoint)
    first = any_way(model, "one")
    session_id = first.response_metadata["session_id"]
    again = any_way(model, [first, ("human", "two")], session_id=session_id)
    assert (first.text, again.text) == ("0: one", "1: two")
    assert siblings.requests[1]["message"] == "two"


def test_local_tools_and_typed_answers(any_way: Any) -> None:
    @tool
    def weather(city: str) -> str:
        """Say how the weather is."""
        return city

    call = '<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call>'
    for streams in (True, False):
        agents = {"ag_1": [[call], ['{"city": "Lisbon"}']]}
        with ThinnestEmulator(agents, siblings_stream=streams) as emulator:
            model = model_of(emulator, api_key=emulator.api_key)
            answer = any_way(model.bind_tools([weather]), "hi")
            assert answer.tool_calls[0]["args"] == {"city": "Paris"}
            if any_way in (ways.invoke, ways.ainvoke):
                typed = model.with_structured_output(
                    {"title": "T", "type": "object", "properties": {"city": {}}}
                )
                assert any_way(typed, "hi") == {"city": "Lisbon"}


def test_limits_are_of_the_key_whatever_the_endpoint(way: Any) -> None:
    with ThinnestEmulator({"ag_1": ["hi"]}, requests_per_window=1) as emulator:
        model = model_of(emulator, api_key=emulator.api_key, max_retry_wait=0.5)
        assert way(model, "hi").text == "hi"
        with pytest.raises(ThinnestRateLimitError, match="nothing was sent"):
            way(model, "hi", endpoint=STREAM)
        assert (len(emulator.requests), emulator.refused) == (1, 0)


@pytest.mark.parametrize("is_async", [False, True])
def test_endpoints_and_kinds_of_answers_share_a_connection(
    wired: Make, wire: WireServer, is_async: bool
) -> None:
    import asyncio

    streamed, json = stream(as_sse(*EVENTS)), refusal(200, {"response": TEXT})
    wire.answer(streamed, json, streamed, json)
    model = wired()
    endpoints = [STREAM, AGENT, ACCOUNT, STREAM]

    async def run() -> list[str]:
        return [(await model.ainvoke("hi", endpoint=path)).text for path in endpoints]

    if is_async:
        assert asyncio.run(run()) == [TEXT] * 4
    else:
        assert [model.invoke("hi", endpoint=path).text for path in endpoints] == [TEXT] * 4
    assert wire.connections == 1


# --- keys that do not fit ---


@pytest.mark.parametrize(
    ("key", "endpoint", "said"),
    [
        ("ak_1234567", STREAM, 'set endpoint="/v1/agents/{agent_id}/chat"'),
        ("agno_1234567", STREAM, 'set endpoint="/v1/agents/{agent_id}/chat"'),
        ("ak_1234567", ACCOUNT, 'set endpoint="/v1/agents/{agent_id}/chat"'),
        ("ak_1234567", AGENT, None),
        ("ta_live_1234567", STREAM, "newer API"),
        ("ta_live_1234567", AGENT, "newer API"),
        ("thns_sk_1234567", STREAM, None),
    ],
)
@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused_is_told_where_it_belongs(
    wired: Make,
    wire: WireServer,
    any_way: Any,
    key: str,
    endpoint: str,
    said: str | None,
    status: int,
) -> None:
    wire.answer(refusal(status, {"detail": f"no {key}"}))
    kind = ThinnestAuthenticationError if status == 401 else ThinnestPermissionError
    with pytest.raises(ThinnestError) as caught:
        any_way(wired(api_key=key), "hi", endpoint=endpoint)
    assert type(caught.value) is kind
    assert said in str(caught.value) if said else "endpoint=" not in str(caught.value)
    assert key not in str(caught.value) + str(vars(caught.value))


def test_the_emulator_tells_keys_apart(siblings: ThinnestEmulator, any_way: Any) -> None:
    with pytest.raises(ThinnestAuthenticationError, match="set endpoint="):
        any_way(model_of(siblings, endpoint=STREAM), "hi")
    with pytest.raises(ThinnestPermissionError, match="another agent's"):
        any_way(model_of(siblings, agent_id="ag_2"), "hi")
    with pytest.raises(ThinnestNotFoundError, match="/v1/agents/ag_3/chat"):
        any_way(model_of(siblings, agent_id="ag_3", api_key=ACCOUNT_KEY), "hi")


def test_an_agent_that_fails(siblings: ThinnestEmulator, any_way: Any) -> None:
    siblings.fail_next(Fault.error("Out of ideas"))
    with pytest.raises(ThinnestError, match="Out of ideas"):
        any_way(model_of(siblings), "hi")


def test_another_path_that_knows_no_post(wired: Make, wire: WireServer, way: Any) -> None:
    wire.answer([head(405, {"Content-Length": "0"})])
    with pytest.raises(ThinnestRequestError, match="405"):
        way(wired(api_key=KEY), "hi", endpoint="/own")
