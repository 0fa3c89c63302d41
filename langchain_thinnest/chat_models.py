"""`ChatThinnest`: the methods that LangChain calls.

Its fields are in `_fields.py`; tools, typed answers, and the model as a tool in `_binding.py`;
what type checkers and editors are told of the arguments in `_signatures.py`.

Every method begins a `Call` and shows the pieces of its answer in the shape that LangChain
asked for. What travels over the wire, and what it means, is not known here.
"""

from __future__ import annotations

import warnings
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import closing
from typing import TYPE_CHECKING, Any, cast

import httpx
from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.globals import get_llm_cache
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.model_profile import ModelProfile
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig, ensure_config
from langchain_core.utils.utils import LC_ID_PREFIX
from langchain_core.utils.uuid import uuid7
from pydantic import ConfigDict, ValidationError
from typing_extensions import Self, override

from langchain_thinnest._answer.block_events import BlockEvents
from langchain_thinnest._answer.message import Answer
from langchain_thinnest._answer.server_tools import expand_server_tools
from langchain_thinnest._answer.turn import (
    End,
    Piece,
    ServerToolCall,
    ServerToolResult,
    Turn,
)
from langchain_thinnest._binding import ThinnestBinding
from langchain_thinnest._call import (
    Call,
    ClosedWithItsTask,
    GraphTurn,
    aclose,
    aread,
    ignore,
    read,
)
from langchain_thinnest._fields import (
    KEY_VARIABLES,
    NO_EFFECT,
    insecure,
    stop_sequences,
    warn_no_effect,
    without_inputs,
)
from langchain_thinnest._http.client import DEFAULT_TIMEOUT, Endpoint
from langchain_thinnest._http.retries import RetryPolicy
from langchain_thinnest._names import PROVIDER
from langchain_thinnest._request.body import Request, checked_id
from langchain_thinnest._request.endpoint import (
    PLACEHOLDER,
    STREAM,
    checked_endpoint,
    key_hint,
    path_of,
)
from langchain_thinnest._request.headers import with_extra
from langchain_thinnest._request.messages import to_text, tool_call_ids
from langchain_thinnest._request.tool_protocol import CallOptions
from langchain_thinnest._sessions import KNOWN_SESSIONS
from langchain_thinnest._signatures import Calls, Constructor, declared_as
from langchain_thinnest.errors import ThinnestRequestError

if TYPE_CHECKING:
    from langchain_protocol.protocol import MessagesData

# Private call arguments, from the methods that have a config to those that do the work.
_RUN = "_thinnest_run"
_INNER = "_thinnest_inner"
GRAPH_TURN = "_thinnest_graph_turn"  # from `agents`
_CONTEXT = "_thinnest_context"
_HEADERS = "extra_headers"
_CALL_ARGUMENTS = frozenset(
    {
        "agent_id",
        "endpoint",
        _HEADERS,
        "ls_structured_output_format",
        "model",
        "parallel_tool_calls",
        "request_metadata",
        "response_format",
        "session_id",
        "stream",
        "tool_choice",
        "tools",
    }
)
_PRIVATE = frozenset({_RUN, _CONTEXT, _INNER, GRAPH_TURN})


class ChatThinnest(ThinnestBinding):
    """A thinnest.ai agent as a LangChain chat model.

    The agent's instructions, model, memory and tools live at thinnest.ai; this class sends
    it one message and streams back what it says and what its tools do.

    Example:
        ```python
        from langchain_thinnest import ChatThinnest

        model = ChatThinnest(agent_id="ag_c47e7c97_b2f2")  # the key: THINNEST_API_KEY
        for chunk in model.stream("What is machine learning?"):
            print(chunk.text, end="", flush=True)
        ```

    Raises:
        pydantic.ValidationError: When made with wrong or unknown arguments. It never shows
            the key.
        ThinnestError: From every call; `langchain_thinnest.errors` draws the tree.
    """

    model_config = ConfigDict(defer_build=False)

    @declared_as(Constructor.construct)
    def __init__(self, **kwargs: Any) -> None:
        try:
            super().__init__(**kwargs)
        except ValidationError as error:
            failure = without_inputs(error, type(self))
            # Error reporters collect the locals of frames, and the key may be anywhere here.
            kwargs.clear()
            vars(self).clear()
        else:
            return
        raise failure

    # --- what the framework asks of a model ---

    @classmethod
    @override
    def is_lc_serializable(cls) -> bool:
        return True

    @property
    @override
    def lc_secrets(self) -> dict[str, str]:
        secrets = {"thinnest_api_key": KEY_VARIABLES[0]}
        if self.shared_limits is not None:  # its URL may hold a password
            secrets["shared_limits"] = "THINNEST_SHARED_LIMITS"
        return secrets

    @property
    @override
    def lc_attributes(self) -> dict[str, Any]:
        if isinstance(self.timeout, httpx.Timeout):
            return {"timeout": self.timeout.as_dict()}
        return {}

    @property
    @override
    def _llm_type(self) -> str:
        return "thinnest-chat"

    @property
    @override
    def _identifying_params(self) -> dict[str, Any]:
        return {
            "model_name": self.agent_id,
            "base_url": self.base_url,
            "endpoint": self.endpoint,
            "stop": self.stop,
            "request_metadata": self.request_metadata,
        }

    @override
    def _resolve_model_profile(self) -> ModelProfile:
        return ModelProfile(
            text_inputs=True,
            text_outputs=True,
            image_inputs=False,
            image_url_inputs=False,
            pdf_inputs=False,
            audio_inputs=False,
            video_inputs=False,
            image_tool_message=False,
            pdf_tool_message=False,
            image_outputs=False,
            audio_outputs=False,
            video_outputs=False,
            reasoning_output=False,
            tool_calling=True,
            tool_choice=True,
            # Typed answers work both ways. As a tool, one that does not fit is tried again.
            structured_output=False,
        )

    @override
    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = LangSmithParams(
            ls_provider=PROVIDER, ls_model_type="chat", ls_model_name=self._agent_of(kwargs)
        )
        if stop := stop or self.stop:
            params["ls_stop"] = stop
        temperature = kwargs.get("temperature", self.temperature)
        if isinstance(temperature, (int, float)):
            params["ls_temperature"] = temperature
        max_tokens = kwargs.get("max_tokens", self.max_tokens)
        if isinstance(max_tokens, int):
            params["ls_max_tokens"] = max_tokens
        session_id = self._context(kwargs)[0]
        if session_id is not None:  # LangSmith gathers a thread's runs by it
            cast("dict[str, Any]", params)["session_id"] = str(session_id)
        return params

    @override
    def _get_invocation_params(
        self, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        params = super()._get_invocation_params(stop=stop or self.stop, **_public(kwargs))
        # OpenLLMetry looks for `model`.
        agent_id = self._agent_of(kwargs)
        return {**params, "model": agent_id, "model_name": agent_id}

    @override
    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        # Said again, since the framework keeps `_serialized` when a model is copied.
        shown = {**self._identifying_params, **_public(kwargs)}
        shown["stop"] = stop or self.stop
        return super()._get_llm_string(**shown)

    @override
    def get_num_tokens(self, text: str) -> int:
        """Estimate the tokens of a text: four characters each."""
        return -(-len(text) // 4)

    @override
    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Estimate the tokens of what is sent for a history: four characters each.

        Args:
            messages: Any part of a history; the tools that the server ran count too.
            tools: The tools that are bound, which are sent along.
        """
        options = CallOptions.of({"tools": tools} if tools else {})
        try:
            return self.get_num_tokens(
                to_text(messages, None, options, expand=expand_server_tools)
            )
        except ThinnestRequestError:  # a part that could not be sent alone
            text = "\n\n".join([*options.preamble(), *(str(m.content) for m in messages)])
        return self.get_num_tokens(text)

    # --- before a call: config, callbacks, cache ---

    @override
    @declared_as(Calls[AIMessage].call)
    def invoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        config, kwargs = self._for_call(config, kwargs)
        return super().invoke(input, config, stop=stop, **kwargs)

    @override
    @declared_as(Calls[Coroutine[Any, Any, AIMessage]].call)
    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        config, kwargs = self._for_call(config, kwargs)
        return await super().ainvoke(input, config, stop=stop, **kwargs)

    @override
    @declared_as(Calls[Iterator[AIMessageChunk]].call)
    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        config, kwargs = self._for_call(config, kwargs)
        manager = CallbackManager.configure(
            config.get("callbacks"), self.callbacks, self.verbose
        )
        if manager.handlers:
            session_id = self._context(kwargs)[0]
            kwargs[_RUN] = CallbackManagerForLLMRun(**_run_fields(config, manager, session_id))
        return super().stream(input, config, stop=stop, **kwargs)

    @override
    @declared_as(Calls[AsyncIterator[AIMessageChunk]].call)
    def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        config, kwargs = self._for_call(config, kwargs)
        manager = AsyncCallbackManager.configure(
            config.get("callbacks"), self.callbacks, self.verbose
        )
        if manager.handlers:
            session_id = self._context(kwargs)[0]
            kwargs[_RUN] = AsyncCallbackManagerForLLMRun(
                **_run_fields(config, manager, session_id)
            )
        # Twins differ: the framework's async generator does not close the model's.
        inner: list[AsyncGenerator[ChatGenerationChunk, None]] = []
        kwargs[_INNER] = inner
        return _AsyncStream(super().astream(input, config, stop=stop, **kwargs), inner)

    if not TYPE_CHECKING:  # type checkers see the framework's overloads

        def stream_events(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
            """As the framework's, with the session of the config in v3 too."""
            if kwargs.get("version") == "v3":
                config, kwargs = self._for_call(config, kwargs)
            return super().stream_events(input, config, **kwargs)

        def astream_events(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
            """The async twin of `stream_events`."""
            if kwargs.get("version") == "v3":
                config, kwargs = self._for_call(config, kwargs)
            return super().astream_events(input, config, **kwargs)

    @override
    def _generate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        kwargs = {**kwargs, _RUN: run_manager}
        return super(ChatThinnest, self._cacheable(kwargs))._generate_with_cache(
            messages, stop=stop, run_manager=run_manager, **kwargs
        )

    @override
    async def _agenerate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        kwargs = {**kwargs, _RUN: run_manager}
        return await super(ChatThinnest, self._cacheable(kwargs))._agenerate_with_cache(
            messages, stop=stop, run_manager=run_manager, **kwargs
        )

    # --- a call ---

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = self._begin(messages, stop, kwargs)
        for _ in read(call, run_manager, ignore):
            pass
        return _result(call)

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = self._begin(messages, stop, kwargs)
        async for _ in aread(call, run_manager, ignore):
            pass
        return _result(call)

    @override
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        call = self._begin(messages, stop, kwargs)
        return read(call, run_manager or kwargs.get(_RUN), _chunks_of(call))

    @override
    def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        call = self._begin(messages, stop, kwargs)
        # Twins differ: see `astream`.
        chunks = aread(call, run_manager or kwargs.get(_RUN), _chunks_of(call))
        kwargs.get(_INNER, []).append(chunks)
        return chunks

    def _stream_chat_model_events(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        *,
        run_manager: CallbackManagerForLLMRun,
        **kwargs: Any,
    ) -> Iterator[MessagesData]:
        call = self._begin(messages, stop, kwargs)
        if call.turn is not None:
            call.turn.reports_events = True
        events = BlockEvents(call.answer, f"{LC_ID_PREFIX}-{run_manager.run_id}")
        found = read(call, run_manager, events.before_the_end)
        with closing(found):
            for some in found:
                yield from some
        # Last of all, since the framework asks for no event after it.
        yield from events.of(End())

    async def _astream_chat_model_events(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        *,
        run_manager: AsyncCallbackManagerForLLMRun,
        **kwargs: Any,
    ) -> AsyncIterator[MessagesData]:
        call = self._begin(messages, stop, kwargs)
        if call.turn is not None:
            call.turn.reports_events = True
        events = BlockEvents(call.answer, f"{LC_ID_PREFIX}-{run_manager.run_id}")
        found = aread(call, run_manager, events.before_the_end)
        # Twins differ: the framework's task may be cancelled between two events.
        async with ClosedWithItsTask(found):
            async for some in found:
                for event in some:
                    yield event
        # Last of all, since the framework asks for no event after it.
        for event in events.of(End()):
            yield event

    def _begin(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> Call:
        """Check everything and make the call; nothing is sent if anything is wrong."""
        _warn_unused(kwargs)
        session_id, request_metadata = self._context(kwargs)
        if session_id is not None:
            session_id = checked_id("session_id", session_id)
        agent_id = checked_id("agent_id", self._agent_of(kwargs))
        endpoint = self._endpoint_of(kwargs)
        options = CallOptions.of(kwargs)
        turn: GraphTurn | None = kwargs.get(GRAPH_TURN)
        request = Request(
            None if PLACEHOLDER in endpoint else agent_id,
            to_text(
                messages,
                session_id,
                options,
                expand=expand_server_tools,
                agent_id=agent_id,
                is_known=session_id is not None and KNOWN_SESSIONS.has(agent_id, session_id),
                seen=None if turn is None else turn.seen,
            ),
            session_id,
            request_metadata,
            asks_for_stream=endpoint != STREAM,
        )
        stop = self.stop if stop is None else stop
        return Call(
            endpoint=self._endpoint(
                path_of(endpoint, agent_id),
                with_extra(self.default_headers, kwargs.get(_HEADERS)),
            ),
            key_hint=key_hint(self.thinnest_api_key.get_secret_value(), endpoint),
            body=request.body(),
            session=None if session_id is None else (agent_id, session_id),
            policy=RetryPolicy(self.max_retries, self.max_retry_wait),
            answer=Answer(
                Turn(
                    max_event_bytes=self.max_event_bytes,
                    stop=stop_sequences(stop) if stop else (),
                    taken_ids=tool_call_ids(messages, expand_server_tools)
                    if len(messages) > 1
                    else (),
                    local_tools=options.parameters if options.tools else None,
                ),
                agent_id=agent_id,
                session_id=session_id,
                as_blocks=self.output_version == "v1",
                segment_id=None if turn is None else turn.segment_id,
            ),
            turn=turn,
        )

    def _endpoint(self, path: str, headers: Mapping[str, str]) -> Endpoint:
        # Again, since assignments, `model_copy` and `model_construct` validate nothing.
        if problem := insecure(self.base_url, allowed=self.allow_insecure_http):
            raise ThinnestRequestError(f"base_url {problem}. The message was not sent.")
        timeout = DEFAULT_TIMEOUT if self.timeout is None else httpx.Timeout(self.timeout)
        return Endpoint(
            base_url=self.base_url,
            path=path,
            api_key=self.thinnest_api_key,
            timeout=timeout,
            headers=headers,
            client=self.http_client,
            async_client=self.http_async_client,
            max_streams=self.max_streams,
            shared_limits=self.shared_limits,
            stall_timeout=self.stall_timeout,
            transport=self.transport,
        )

    def _agent_of(self, kwargs: Mapping[str, Any]) -> str:
        return kwargs.get("agent_id") or kwargs.get("model") or self.agent_id

    def _endpoint_of(self, kwargs: Mapping[str, Any]) -> str:
        endpoint = kwargs.get("endpoint")
        return checked_endpoint(self.endpoint if endpoint is None else endpoint)

    def _for_call(
        self, config: RunnableConfig | None, kwargs: dict[str, Any]
    ) -> tuple[RunnableConfig, dict[str, Any]]:
        """Take from the config what the framework does not pass to `_generate`."""
        config = ensure_config(config)
        configurable = config.get("configurable") or {}
        session_id = kwargs.get("session_id")
        if session_id is None:
            session_id = configurable.get(self.session_key)
        request_metadata = kwargs.get("request_metadata")
        if request_metadata is None:
            request_metadata = configurable.get("request_metadata")
        context = (session_id, request_metadata)
        return config, {**kwargs, _CONTEXT: context}

    def _context(self, kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Return session and metadata of a call: from its arguments, config, or fields."""
        if _CONTEXT not in kwargs:  # called by `generate`, which has no config argument
            kwargs = self._for_call(None, kwargs)[1]
        session_id, request_metadata = kwargs[_CONTEXT]
        return (
            self.session_id if session_id is None else session_id,
            self.request_metadata if request_metadata is None else request_metadata,
        )

    def _cacheable(self, kwargs: dict[str, Any]) -> Self:
        """Return this model, without its cache if the call has a session."""
        if self.cache is False or (self.cache is None and get_llm_cache() is None):
            return self
        if self._context(kwargs)[0] is None:
            return self
        return self.model_copy(update={"cache": False})


# No twin: a sync generator that is closed drops, and so closes, the one inside.
class _AsyncStream(AsyncIterator[AIMessageChunk]):
    """The framework's generator, as `astream` returns it; the inner one is closed first.

    The framework's generator does not close the model's, so that the connection would live,
    and the tool runs stay open, until the garbage collector comes by.
    """

    def __init__(
        self,
        chunks: AsyncIterator[AIMessageChunk],
        inner: list[AsyncGenerator[ChatGenerationChunk, None]],
    ) -> None:
        self._chunks = chunks
        self._inner = inner

    def __anext__(self) -> Awaitable[AIMessageChunk]:
        return self._chunks.__anext__()

    async def aclose(self) -> None:
        for chunks in self._inner:
            await aclose(chunks)
        await cast("AsyncGenerator[AIMessageChunk, None]", self._chunks).aclose()


def _chunks_of(call: Call) -> Callable[[Piece], ChatGenerationChunk]:
    """Return what makes chunks of pieces; a graph is shown the server's tools by the way."""
    chunk = call.answer.chunk
    turn = call.turn
    if turn is None:
        return chunk

    def shown(piece: Piece) -> ChatGenerationChunk:
        made = chunk(piece)
        if isinstance(piece, (ServerToolCall, ServerToolResult)):
            turn.show(piece, made.message.id)
        return made

    return shown


def _result(call: Call) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=call.answer.message())])


def _run_fields(
    config: RunnableConfig,
    manager: CallbackManager | AsyncCallbackManager,
    session_id: object,
) -> dict[str, Any]:
    """Return the fields of the model's run, which the framework does not pass to `_stream`.

    The callbacks are configured here, once, and handed on by the config: the framework then
    finds them configured. The run's id is fixed here too, for tool runs to be its children.
    """
    run_id = config.get("run_id") or uuid7()
    config["run_id"] = run_id
    config["callbacks"] = manager
    tags = config.get("tags") or []
    metadata = {**(config.get("metadata") or {})}
    if session_id is not None:
        metadata["session_id"] = str(session_id)
    return {
        "run_id": run_id,
        "handlers": manager.handlers,
        "inheritable_handlers": manager.inheritable_handlers,
        "parent_run_id": manager.parent_run_id,
        "tags": [*manager.tags, *tags],
        "inheritable_tags": [*manager.inheritable_tags, *tags],
        "metadata": {**manager.metadata, **metadata},
        "inheritable_metadata": {**manager.inheritable_metadata, **metadata},
    }


def _public(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that traces and cache keys may show."""
    hidden = {*_PRIVATE, _HEADERS}
    shown = {key: value for key, value in kwargs.items() if key not in hidden}
    session_id, request_metadata = kwargs.get(_CONTEXT, (None, None))
    if session_id is not None:
        shown["session_id"] = session_id
    if request_metadata is not None:
        shown["request_metadata"] = request_metadata
    return shown


def _warn_unused(kwargs: Mapping[str, Any]) -> None:
    unused = kwargs.keys() - _CALL_ARGUMENTS - _PRIVATE
    warn_no_effect(sorted(unused & NO_EFFECT), stacklevel=2)
    for name in sorted(unused - NO_EFFECT):
        if right := next((known for known in _LONG_NAMES if _is_near(name, known)), None):
            raise ThinnestRequestError(
                f"There is no call argument {name!r}; did you mean {right!r}?"
            )
    if unknown := sorted(unused - NO_EFFECT):
        warnings.warn(
            f"ChatThinnest ignores the unknown call argument(s) {', '.join(unknown)}.",
            stacklevel=2,
        )


# Shorter names are near to what frameworks bind for other providers.
_LONG_NAMES = sorted(name for name in _CALL_ARGUMENTS if len(name) >= 8)


def _is_near(name: str, known: str) -> bool:
    """Whether the edit distance is at most two."""
    if abs(len(name) - len(known)) > 2:
        return False
    row = list(range(len(known) + 1))
    for at, letter in enumerate(name, 1):
        before, row = row, [at]
        for i, other in enumerate(known, 1):
            row.append(min(before[i] + 1, row[-1] + 1, before[i - 1] + (letter != other)))
    return row[-1] <= 2
