"""What type checkers and editors are told of `ChatThinnest`: its own arguments and a call's.

The methods themselves take `**kwargs`: the constructor because some fields have two names, and
because a refused key must stand in no local variable of a traceback; the calls because the
framework hands on whatever was bound. So what may be given is declared here, and nothing of it
runs. `unit_tests/test_signatures.py` holds it to the fields and to what a call takes.

Of two names of which one ends like the other, the shorter one comes first: Pyright shows the
help of the first that ends alike.
"""

from __future__ import annotations

import inspect
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, cast

if TYPE_CHECKING:
    from uuid import UUID

    import httpx
    from langchain_core.caches import BaseCache
    from langchain_core.callbacks import Callbacks
    from langchain_core.language_models import LanguageModelInput
    from langchain_core.language_models.model_profile import ModelProfile
    from langchain_core.rate_limiters import BaseRateLimiter
    from langchain_core.runnables import RunnableConfig
    from pydantic import SecretStr

    from langchain_thinnest._request.structured import Schema
    from langchain_thinnest._request.tool_protocol import Tool

F = TypeVar("F", bound=Callable[..., Any])
R_co = TypeVar("R_co", covariant=True)


def declared_as(declared: F) -> Callable[[Callable[..., Any]], F]:
    """Show type checkers and editors a declared signature instead of a method's own.

    At run time the method is what it was, and has the declaration's help.
    """

    def declare(method: Callable[..., Any]) -> F:
        method.__doc__ = declared.__doc__
        return cast("F", method)

    return declare


def help_of(declared: Callable[..., Any]) -> dict[str, str]:
    """The help of each argument, as the docstring has it under `Args`."""
    section = inspect.cleandoc(declared.__doc__ or "").partition("Args:\n")[2]
    arguments = section.partition("\n\n")[0]
    found = re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", arguments, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


class Httpx2Client(Protocol):
    """A `Client` of httpx2, the continuation of httpx, which need not be installed."""

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""

    def build_request(self, method: str, url: Any, /) -> Any:
        """Build a request."""

    def close(self) -> None:
        """Close it."""


class Httpx2AsyncClient(Protocol):
    """An `AsyncClient` of httpx2."""

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""

    def build_request(self, method: str, url: Any, /) -> Any:
        """Build a request."""

    async def aclose(self) -> None:
        """Close it."""


class Constructor(Protocol):
    """The arguments of `ChatThinnest`; `...` is a default found elsewhere."""

    def construct(
        self: Any,
        *,
        agent_id: str | None = ...,
        model: str | None = ...,
        api_key: str | SecretStr | None = ...,
        thinnest_api_key: str | SecretStr | None = ...,
        base_url: str | None = ...,
        allow_insecure_http: bool = False,
        endpoint: str | None = "/chat/stream",
        session_id: str | None = None,
        session_key: str = "session_id",
        metadata: dict[str, Any] | None = None,
        request_metadata: Mapping[str, Any] | None = None,
        timeout: float | httpx.Timeout | None = None,
        stall_timeout: float | None = 600.0,
        max_retries: int = 6,
        max_retry_wait: float = 75.0,
        max_streams: int | None = None,
        shared_limits: str | SecretStr | None = ...,
        max_event_bytes: int = 8 * 1024 * 1024,
        streaming: bool | None = None,
        stop: str | list[str] | tuple[str, ...] | None = None,
        stop_sequences: str | list[str] | tuple[str, ...] | None = None,
        default_headers: Mapping[str, str] | None = None,
        transport: Literal["httpx", "fast"] = "httpx",
        http_client: httpx.Client | Httpx2Client | None = None,
        http_async_client: httpx.AsyncClient | Httpx2AsyncClient | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        name: str | None = None,
        cache: BaseCache | bool | None = None,
        callbacks: Callbacks = None,
        tags: list[str] | None = None,
        verbose: bool = ...,
        rate_limiter: BaseRateLimiter | None = None,
        disable_streaming: bool | Literal["tool_calling"] = False,
        output_version: str | None = ...,
        custom_get_token_ids: Callable[[str], list[int]] | None = None,
        profile: ModelProfile | None = None,
    ) -> None:
        """Make a model; the fields are the arguments, and some have a second name.

        Args:
            agent_id: The agent to talk to (`ag_*`). Default: the environment's
                `THINNEST_AGENT_ID`. A call's `agent_id=` or `model=` overrides it.
            model: The agent to talk to (`ag_*`). Default: the environment's
                `THINNEST_AGENT_ID`. A call's `agent_id=` or `model=` overrides it.
            api_key: The API key. Default: the environment's `THINNEST_API_KEY`, or
                `THINNESTAI_API_KEY`.
            thinnest_api_key: The API key. Default: the environment's `THINNEST_API_KEY`,
                or `THINNESTAI_API_KEY`.
            base_url: Where the API is. Default: the environment's `THINNEST_BASE_URL`, or
                the vendor's. It must be https, or http to this very machine.
            allow_insecure_http: Allow `base_url` to be http to another machine, which
                sends the key in the clear.
            endpoint: The path below `base_url`, in which `{agent_id}` stands for the
                agent's id. For an agent's key: `"/v1/agents/{agent_id}/chat"`. A call's
                `endpoint=` overrides it.
            session_id: The server-side memory to use. A call's `session_id=` overrides it,
                and so does `config["configurable"][session_key]`, in this order. Default:
                no memory.
            session_key: The key in `config["configurable"]` that holds the session. Set it
                to `"thread_id"`, and each LangGraph thread is a session. Sessions then
                follow forks in the graph that `create_thinnest_agent` makes; a plain model
                in `create_agent` follows none.
            metadata: LangChain's: metadata of each of this model's runs, in traces. What
                is sent to the agent is `request_metadata`.
            request_metadata: Context for the agent, sent as the request's `metadata`. A
                call's `request_metadata=` or `config["configurable"]["request_metadata"]`
                replaces it.
            timeout: Seconds, or an `httpx.Timeout`. Default: 10 s to connect, 120 s
                between two reads.
            stall_timeout: The longest time without an event, in seconds, whatever
                heartbeats come; then the call fails with `ThinnestInterruptedError`. Only
                time spent waiting for the server counts. `None`: no limit, for agents
                whose tools take longer than ten minutes.
            max_retries: Tries after the first, for what the server surely did not take:
                429, 503 with `Retry-After`, and connections that were never made.
            max_retry_wait: The longest wait before a try, in seconds. A server that asks
                for longer is not waited for: the error says how long. The default outlasts
                a limit of one minute.
            max_streams: The most streams open at once with this key, where the plan says
                (2, 10). Default: it is learned from refusals. It is never exceeded, but by
                a call made inside an open stream.
            shared_limits: Where the processes that share a key count together:
                `sqlite:///path` for those of one machine, `redis://host/0` for many (extra
                `redis`). Default: the environment's `THINNEST_SHARED_LIMITS`, or none:
                each process counts for itself.
            max_event_bytes: The most bytes that one event of the stream may have (8 MiB);
                a larger one is a `ThinnestProtocolError`, so that memory stays bounded.
            streaming: `True` makes `invoke` stream to callbacks; `False` makes `stream`
                give one chunk.
            stop: Sequences at whose first match the answer ends. The API does not know
                them, so the text is cut and the connection closed here: the usage is then
                unknown.
            stop_sequences: Sequences at whose first match the answer ends. The API does
                not know them, so the text is cut and the connection closed here: the usage
                is then unknown.
            default_headers: Headers to send along. They may hold secrets, so they are
                never serialised.
            transport: The connections of calls without an `http_client`. `"fast"` costs less
                per event.
            http_client: Your own client for sync calls, used as it is (its own timeouts
                too), never closed.
            http_async_client: Your own client for async calls, used as it is, never
                closed.
            temperature: Accepted and without effect: the agent's settings at thinnest.ai
                have it.
            max_tokens: Accepted and without effect: the agent's settings at thinnest.ai
                have it.
            name: LangChain's: the name of this model in traces.
            cache: LangChain's: a cache for answers; `True` for the global one, `False` for
                none. Default: the global one, if it is set. A call with a session uses
                none.
            callbacks: LangChain's: handlers that are told of each of this model's runs.
            tags: LangChain's: tags of each of this model's runs, in traces.
            verbose: LangChain's: print what the model is asked and what it answers.
                Default: `langchain_core.globals.get_verbose()`.
            rate_limiter: LangChain's: a limiter that each call waits for, before the
                package's own limits.
            disable_streaming: LangChain's: `True` makes `stream` give the answer of
                `invoke`, `"tool_calling"` does where tools are bound.
            output_version: LangChain's: `"v1"` makes a message's `content` its blocks.
                Default: the environment's `LC_OUTPUT_VERSION`, or text.
            custom_get_token_ids: LangChain's: a function that gives the tokens of a text.
            profile: LangChain's: what the model can do. Default: what thinnest.ai can.

        Raises:
            pydantic.ValidationError: For wrong or unknown arguments. It never shows the key.
        """


class Calls(Protocol[R_co]):
    """The arguments of a call that returns an `R_co`."""

    @abstractmethod
    def call(
        self: Any,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        session_id: str | int | UUID | None = None,
        request_metadata: Mapping[str, Any] | None = None,
        agent_id: str | None = None,
        model: str | None = None,
        endpoint: str | None = None,
        tools: Sequence[Tool] | None = None,
        tool_choice: str | bool | Mapping[str, Any] | None = None,
        parallel_tool_calls: bool | None = None,
        response_format: Schema | None = None,
        extra_headers: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> R_co:
        """Ask the agent.

        Args:
            input: A text, a list of messages, or a prompt.
            config: The run's callbacks, tags and metadata, and what is `configurable`.
            stop: Sequences at whose first match the answer ends.
            session_id: The server-side memory to use.
            request_metadata: Context for the agent, sent as the request's `metadata`.
            agent_id: The agent to ask instead of the model's.
            model: The agent to ask instead of the model's.
            endpoint: The path below `base_url`, instead of the model's.
            tools: Tools on this side that the agent may call, as `bind_tools` takes them.
            tool_choice: Which of the tools it must call, as `bind_tools` takes it.
            parallel_tool_calls: `False` asks for one call at most.
            response_format: The schema that the answer must fit. The answer stays text;
                `with_structured_output` reads it too.
            extra_headers: Headers of this call alone, such as trace context or a tenant's
                name. They stand in no trace, cache key, error or log.
            **kwargs: What is meant for other providers is ignored, with a warning.

        Raises:
            ThinnestError: `langchain_thinnest.errors` draws the tree.
        """
