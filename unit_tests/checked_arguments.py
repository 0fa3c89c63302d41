"""Right and wrong arguments, for type checkers; `make lint` runs mypy and Pyright on it.

A wrong line names the error that each of them must show. A comment without its error is an
error, in both of them; so each right line is green, and each wrong line is red. Nothing here
runs. `test_signatures.py` sees that no argument is missing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from uuid import UUID

import httpx
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.model_profile import ModelProfile
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import BaseModel, SecretStr
from typing_extensions import assert_type

from langchain_thinnest import ChatThinnest


def right_arguments_of_the_model(tokens: Callable[[str], list[int]]) -> ChatThinnest:
    ChatThinnest()
    ChatThinnest(model="ag_1", api_key="k", stop_sequences="END")
    ChatThinnest(model=None, api_key=None, base_url=None, endpoint=None)
    ChatThinnest(agent_id=None, thinnest_api_key=None, shared_limits=None, timeout=10)
    ChatThinnest(stall_timeout=None, stop=("END", "Fin"), callbacks=None, cache=True)
    return ChatThinnest(
        agent_id="ag_1",
        thinnest_api_key=SecretStr("k"),
        base_url="https://api.thinnest.ai",
        allow_insecure_http=True,
        endpoint="/chat",
        session_id="ada",
        session_key="thread_id",
        request_metadata={"page": "/pricing", "visits": 3},
        timeout=httpx.Timeout(10),
        stall_timeout=60,
        transport="fast",
        max_retries=0,
        max_retry_wait=2.5,
        max_streams=2,
        shared_limits="sqlite:///limits.db",
        max_event_bytes=1024,
        streaming=True,
        stop=["END"],
        default_headers={"X-Team": "docs"},
        http_client=httpx.Client(),
        http_async_client=httpx.AsyncClient(),
        temperature=0.5,
        max_tokens=100,
        name="oracle",
        cache=InMemoryCache(),
        callbacks=[BaseCallbackHandler()],
        tags=["docs"],
        metadata={"team": "docs"},
        verbose=True,
        rate_limiter=InMemoryRateLimiter(),
        disable_streaming="tool_calling",
        output_version="v1",
        custom_get_token_ids=tokens,
        profile=ModelProfile(),
    )


def what_a_model_has_another_one_takes(model: ChatThinnest) -> ChatThinnest:
    return ChatThinnest(
        agent_id=model.agent_id,
        thinnest_api_key=model.thinnest_api_key,
        base_url=model.base_url,
        allow_insecure_http=model.allow_insecure_http,
        endpoint=model.endpoint,
        session_id=model.session_id,
        session_key=model.session_key,
        request_metadata=model.request_metadata,
        timeout=model.timeout,
        stall_timeout=model.stall_timeout,
        transport=model.transport,
        max_retries=model.max_retries,
        max_retry_wait=model.max_retry_wait,
        max_streams=model.max_streams,
        shared_limits=model.shared_limits,
        max_event_bytes=model.max_event_bytes,
        streaming=model.streaming,
        stop=model.stop,
        default_headers=model.default_headers,
        http_client=model.http_client,
        http_async_client=model.http_async_client,
        temperature=model.temperature,
        max_tokens=model.max_tokens,
        name=model.name,
        cache=model.cache,
        callbacks=model.callbacks,
        tags=model.tags,
        metadata=model.metadata,
        verbose=model.verbose,
        rate_limiter=model.rate_limiter,
        disable_streaming=model.disable_streaming,
        output_version=model.output_version,
        custom_get_token_ids=model.custom_get_token_ids,
        profile=model.profile,
    )


def wrong_arguments_of_the_model() -> None:
    ChatThinnest("ag_1")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ChatThinnest(modle="ag_1")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ChatThinnest(top_p=0.1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ChatThinnest(
        agent_id=1,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        model=1,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        api_key=b"k",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        thinnest_api_key=b"k",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        base_url=httpx.URL("https://api.thinnest.ai"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        allow_insecure_http="yes",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        endpoint=1,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        session_id=3,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        session_key=None,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        metadata="docs",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        request_metadata="docs",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        timeout="10 s",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        transport="slow",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        stall_timeout="60",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        max_retries=None,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        max_retry_wait=None,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        max_streams="2",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        shared_limits=True,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        max_event_bytes=1.5,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        streaming="yes",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        stop=1,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        stop_sequences=1,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        default_headers={"X-Team": 1},  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
        http_client=httpx.AsyncClient(),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        http_async_client=httpx.Client(),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        temperature="0.5",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        max_tokens=0.5,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        name=1,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        cache="yes",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        callbacks=BaseCallbackHandler(),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        tags="docs",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        verbose=None,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        rate_limiter=2,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        disable_streaming="always",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        output_version=1,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        custom_get_token_ids=len,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        profile="gpt",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    )


class Weather(BaseModel):
    city: str


def look_up(city: str) -> str:
    return city


async def right_arguments_of_calls(model: ChatThinnest, config: RunnableConfig) -> None:
    assert_type(model.invoke("Hi"), AIMessage)
    assert_type(await model.ainvoke("Hi"), AIMessage)
    assert_type(model.stream("Hi"), Iterator[AIMessageChunk])
    assert_type(model.astream("Hi"), AsyncIterator[AIMessageChunk])
    model.invoke([HumanMessage("Hi")], config, session_id=UUID(int=1), tool_choice="any")
    model.stream([("user", "Hi")], session_id=7, tool_choice=True, tools=[{"name": "look_up"}])
    model.invoke("Hi", session_id=None, request_metadata=None, agent_id=None, endpoint=None)
    model.invoke("Hi", tools=None, tool_choice=None, response_format=None, stop=None)
    # What other providers know is bound to any model; ours warns.
    await model.ainvoke("Hi", top_p=0.1, store=False)
    model.invoke(
        "Hi",
        stop=["END"],
        session_id="ada",
        request_metadata={"page": "/pricing"},
        agent_id="ag_1",
        model="ag_1",
        endpoint="/chat",
        tools=[look_up, Weather],
        tool_choice={"type": "function", "function": {"name": "look_up"}},
        parallel_tool_calls=False,
        response_format=Weather,
        extra_headers={"traceparent": "00-1-2-01"},
    )


async def wrong_arguments_of_calls(model: ChatThinnest) -> None:
    model.invoke(
        1,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        stop="END",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        session_id=["ada"],  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        request_metadata="page",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        agent_id=1,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        model=1,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        endpoint=1,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        tools=look_up,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        tool_choice=1,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        parallel_tool_calls="no",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        response_format="json",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        extra_headers={"X": 1},  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    )
    await model.ainvoke(
        1,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        stop="END",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        session_id=["ada"],  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        request_metadata="page",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        agent_id=1,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        model=1,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        endpoint=1,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        tools=look_up,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        tool_choice=1,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        parallel_tool_calls="no",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        response_format="json",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        extra_headers={"X": 1},  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    )
    model.stream(
        1,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        stop="END",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        session_id=["ada"],  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        request_metadata="page",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        agent_id=1,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        model=1,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        endpoint=1,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        tools=look_up,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        tool_choice=1,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        parallel_tool_calls="no",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        response_format="json",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        extra_headers={"X": 1},  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    )
    model.astream(
        1,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        stop="END",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        session_id=["ada"],  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        request_metadata="page",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        agent_id=1,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        model=1,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        endpoint=1,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        tools=look_up,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        tool_choice=1,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        parallel_tool_calls="no",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        response_format="json",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        extra_headers={"X": 1},  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    )


def is_a_chat_model(model: ChatThinnest) -> BaseChatModel:
    asked: Runnable[LanguageModelInput, AIMessage] = model
    asked.invoke("Hi", session_id="ada")
    return model


class Subclass(ChatThinnest):
    """May override the calls as the framework declares them."""

    def invoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        return super().invoke(input, config, stop=stop, **kwargs)

    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        return await super().ainvoke(input, config, stop=stop, **kwargs)
