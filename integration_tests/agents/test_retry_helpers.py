"""Other people's retry helpers: what the docs say of each, on both sides.

The right forms send again what the server surely did not take, and nothing else. The wrong
ones are pinned: they send a message whose answer was cut three times, as the docs warn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRetryMiddleware, ToolRetryMiddleware
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import RetryPolicy
from tenacity import retry, retry_if_exception, stop_after_attempt

from integration_tests.conftest import KEY, Make
from integration_tests.wire import WireServer, refusal, stream
from langchain_thinnest import (
    ChatThinnest,
    ThinnestInterruptedError,
    ThinnestRateLimitError,
    is_retryable,
)
from langchain_thinnest.emulator import ThinnestEmulator
from unit_tests.contract import EVENTS, TEXT, as_sse

PROMPT = ChatPromptTemplate([("human", "{messages}")])
AT_ONCE = {"initial": 0.0, "max": 0.0, "exp_base": 1.0, "jitter": 0.0}
CALL = '<tool_call>{"name": "expert", "arguments": {"question": "Well?"}}</tool_call>'


def _graph(model: ChatThinnest, policy: RetryPolicy) -> Any:
    def ask(state: MessagesState) -> Any:
        return {"messages": model.invoke(state["messages"])}

    async def aask(state: MessagesState) -> Any:
        return {"messages": await model.ainvoke(state["messages"])}

    builder = StateGraph(MessagesState)
    builder.add_node("ask", RunnableLambda(ask, afunc=aask), retry_policy=policy)
    builder.add_edge(START, "ask")
    return builder.compile()


def _policy(**fields: Any) -> RetryPolicy:
    return RetryPolicy(initial_interval=0.01, jitter=False, **fields)


def _last(state: Any) -> Any:
    return state["messages"][-1]


def with_retry(model: ChatThinnest) -> Runnable[Any, Any]:
    return PROMPT | model.with_retry(exponential_jitter_params=AT_ONCE)


def model_middleware(model: ChatThinnest) -> Runnable[Any, Any]:
    middleware = ModelRetryMiddleware(on_failure="error", initial_delay=0.01)
    return create_agent(model, tools=[], middleware=[middleware]) | _last


def policy_with_predicate(model: ChatThinnest) -> Runnable[Any, Any]:
    return _graph(model, _policy(retry_on=is_retryable)) | _last


def tenacity_with_predicate(model: ChatThinnest) -> Runnable[Any, Any]:
    sure = retry(
        retry=retry_if_exception(is_retryable), stop=stop_after_attempt(3), reraise=True
    )
    ask, aask = sure(model.invoke), sure(model.ainvoke)

    async def call(text: str) -> Any:
        return await aask(text)

    return RunnableLambda(lambda given: given["messages"]) | RunnableLambda(ask, afunc=call)


def chain_with_retry(model: ChatThinnest) -> Runnable[Any, Any]:
    return (PROMPT | model).with_retry(exponential_jitter_params=AT_ONCE)


def plain_policy(model: ChatThinnest) -> Runnable[Any, Any]:
    return _graph(model, _policy()) | _last


RIGHT = [with_retry, model_middleware, policy_with_predicate, tenacity_with_predicate]
WRONG = [chain_with_retry, plain_policy]
Helper = Callable[[ChatThinnest], Runnable[Any, Any]]


def ask(runnable: Runnable[Any, Any], *, in_a_loop: bool) -> Any:
    given = {"messages": "hi"}
    return asyncio.run(runnable.ainvoke(given)) if in_a_loop else runnable.invoke(given)


both = pytest.mark.parametrize("in_a_loop", [False, True], ids=["sync", "async"])
REFUSED = refusal(429, headers={"Retry-After": "0"})
CUT = stream(as_sse(*EVENTS[:3]))
WHOLE = stream(as_sse(*EVENTS))


@both
@pytest.mark.parametrize("helper", RIGHT)
def test_what_was_not_taken_is_sent_again(
    wired: Make, wire: WireServer, helper: Helper, in_a_loop: bool
) -> None:
    wire.answer(REFUSED, WHOLE)
    assert ask(helper(wired(max_retries=0)), in_a_loop=in_a_loop).text == TEXT
    assert len(wire.requests) == 2


@both
@pytest.mark.parametrize("helper", RIGHT)
def test_what_may_have_been_taken_is_not(
    wired: Make, wire: WireServer, helper: Helper, in_a_loop: bool
) -> None:
    for script in (CUT, refusal(500), refusal(400)):
        wire.requests.clear()
        wire.answer(script)
        with pytest.raises(Exception) as caught:  # noqa: PT011 - of whatever class
            ask(helper(wired(max_retries=0)), in_a_loop=in_a_loop)
        assert not is_retryable(caught.value)
        assert len(wire.requests) == 1


@both
@pytest.mark.parametrize("helper", RIGHT)
def test_it_is_given_up_on(
    wired: Make, wire: WireServer, helper: Helper, in_a_loop: bool
) -> None:
    wire.answer(REFUSED)
    with pytest.raises(ThinnestRateLimitError):
        ask(helper(wired(max_retries=0)), in_a_loop=in_a_loop)
    assert len(wire.requests) == 3


@both
@pytest.mark.parametrize("helper", WRONG)
def test_the_wrong_forms_send_a_message_again(
    wired: Make, wire: WireServer, helper: Helper, in_a_loop: bool
) -> None:
    """If one of these fails, the helper has learned, and the docs are to say so."""
    wire.answer(CUT)
    with pytest.raises(ThinnestInterruptedError):
        ask(helper(wired(max_retries=0)), in_a_loop=in_a_loop)
    assert len(wire.requests) == 3


@both
@pytest.mark.parametrize(("script", "count"), [([REFUSED, WHOLE], 2), ([CUT], 1)])
def test_tool_middleware(
    wired: Make, wire: WireServer, script: list[Any], count: int, in_a_loop: bool
) -> None:
    """A hosted agent is a tool of another one."""
    wire.answer(*script)
    expert = wired(max_retries=0).as_tool(name="expert", description="Knows.")
    middleware = ToolRetryMiddleware(on_failure="error", initial_delay=0.01)
    with ThinnestEmulator({"ag_chief": [[CALL], ["So it is."]]}, api_keys=[KEY]) as emulator:
        chief = ChatThinnest(agent_id="ag_chief", api_key=KEY, base_url=emulator.base_url)
        agent = create_agent(chief, tools=[expert], middleware=[middleware])
        if count == 2:
            assert ask(agent, in_a_loop=in_a_loop)["messages"][-1].text == "So it is."
        else:
            with pytest.raises(ThinnestInterruptedError):
                ask(agent, in_a_loop=in_a_loop)
    assert len(wire.requests) == count
