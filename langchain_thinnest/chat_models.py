"""`ChatThinnest`: the fields that users set, and the methods that LangChain calls.

Every method begins a `Call` and shows the pieces of its answer in the shape that LangChain
asked for. What travels over the wire, and what it means, is not known here.
"""

from __future__ import annotations

import difflib
import os
import warnings
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, cast

import httpx
from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.globals import get_llm_cache
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.chat_model_stream import (
    AsyncChatModelStream,
    ChatModelStream,
)
from langchain_core.language_models.model_profile import ModelProfile
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig, ensure_config
from langchain_core.runnables.schema import StreamEvent
from langchain_core.utils.utils import LC_ID_PREFIX
from langchain_core.utils.uuid import uuid7
from pydantic import (
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError
from typing_extensions import Self, override

from langchain_thinnest._answer import PROVIDER, Answer
from langchain_thinnest._block_events import BlockEvents
from langchain_thinnest._call import Call, aread, read
from langchain_thinnest._client import DEFAULT_TIMEOUT, Endpoint, is_loopback
from langchain_thinnest._limits import RetryPolicy
from langchain_thinnest._messages import (
    Request,
    checked_id,
    has_control_characters,
    to_text,
    tool_call_ids,
)
from langchain_thinnest._turn import End, Piece, Turn
from langchain_thinnest.errors import ThinnestRequestError

if TYPE_CHECKING:
    from langchain_protocol.protocol import MessagesData

_KEY_VARIABLES = ("THINNEST_API_KEY", "THINNESTAI_API_KEY")
_DEFAULT_BASE_URL = "https://api.thinnest.ai"
# Private call arguments, from the methods that have a config to those that do the work.
_RUN = "_thinnest_run"
_INNER = "_thinnest_inner"
SEGMENT_ID = "_thinnest_segment_id"  # from `agents`, which expands the answer
_CONTEXT = "_thinnest_context"
_CALL_ARGUMENTS = frozenset({"agent_id", "model", "request_metadata", "session_id", "stream"})
_PRIVATE = frozenset({_RUN, _CONTEXT, _INNER, SEGMENT_ID})
_NO_EFFECT = frozenset({"temperature", "max_tokens"})


def _key_from_env() -> SecretStr:
    return SecretStr(next(filter(None, map(os.environ.get, _KEY_VARIABLES)), ""))


def _base_url_from_env() -> str:
    return os.environ.get("THINNEST_BASE_URL") or _DEFAULT_BASE_URL


class ChatThinnest(BaseChatModel):
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

    agent_id: str = Field(alias="model")
    """The agent to talk to (`ag_*`). A call's `agent_id=` or `model=` overrides it."""

    thinnest_api_key: SecretStr = Field(
        alias="api_key", default_factory=_key_from_env, validate_default=True
    )
    """The API key. Default: the environment's `THINNEST_API_KEY`, or `THINNESTAI_API_KEY`."""

    base_url: str = Field(default_factory=_base_url_from_env, validate_default=True)
    """Where the API is. Default: the environment's `THINNEST_BASE_URL`, or the vendor's.
    It must be https, or http to this very machine."""

    allow_insecure_http: bool = False
    """Allow `base_url` to be http to another machine, which sends the key in the clear."""

    session_id: str | None = None
    """The server-side memory to use. A call's `session_id=` overrides it, and so does
    `config["configurable"][session_key]`, in this order. Default: no memory."""

    session_key: str = "session_id"
    """The key in `config["configurable"]` that holds the session. Set it to `"thread_id"`,
    and each LangGraph thread is a session."""

    request_metadata: dict[str, Any] | None = None
    """Context for the agent, sent as the request's `metadata`. A call's `request_metadata=`
    or `config["configurable"]["request_metadata"]` replaces it."""

    timeout: float | httpx.Timeout | None = None
    """Seconds, or an `httpx.Timeout`. Default: 10 s to connect, 120 s between two reads."""

    max_retries: int = Field(default=6, ge=0)
    """Tries after the first, for what the server surely did not take: 429, 503 with
    `Retry-After`, and connections that were never made."""

    max_retry_wait: float = Field(default=75.0, ge=0, allow_inf_nan=False)
    """The longest wait before a try, in seconds. A server that asks for longer is not waited
    for: the error says how long. The default outlasts a limit of one minute."""

    max_event_bytes: int = Field(default=8 * 1024 * 1024, ge=1)
    """The most bytes that one event of the stream may have (8 MiB); a larger one is a
    `ThinnestProtocolError`, so that memory stays bounded."""

    streaming: bool | None = None
    """`True` makes `invoke` stream to callbacks; `False` makes `stream` give one chunk."""

    stop: list[str] | None = Field(default=None, alias="stop_sequences")
    """Sequences at whose first match the answer ends. The API does not know them, so the text
    is cut and the connection closed here: the usage is then unknown."""

    default_headers: dict[str, str] | None = Field(default=None, exclude=True, repr=False)
    """Headers to send along. They may hold secrets, so they are never serialised."""

    http_client: httpx.Client | None = Field(default=None, exclude=True, repr=False)
    """Your own client for sync calls, used as it is (its own timeouts too), never closed."""

    http_async_client: httpx.AsyncClient | None = Field(default=None, exclude=True, repr=False)
    """Your own client for async calls, used as it is, never closed."""

    temperature: float | None = None
    """Accepted and without effect: the agent's settings at thinnest.ai have it."""

    max_tokens: int | None = None
    """Accepted and without effect: the agent's settings at thinnest.ai have it."""

    model_config = ConfigDict(populate_by_name=True, extra="forbid", hide_input_in_errors=True)

    def __init__(self, **kwargs: Any) -> None:
        """Make a model; the fields are the arguments."""
        try:
            super().__init__(**kwargs)
        except ValidationError as error:
            failure = _without_inputs(error)
        else:
            return
        raise failure

    # --- fields ---

    @field_validator("agent_id", "session_id")
    @classmethod
    def _check_id(cls, value: str | None, info: Any) -> str | None:
        return value if value is None else checked_id(info.field_name, value)

    @field_validator("thinnest_api_key")
    @classmethod
    def _check_key(cls, value: SecretStr) -> SecretStr:
        key = value.get_secret_value()
        if not key:
            raise ValueError("is missing: pass api_key=... or set THINNEST_API_KEY")
        if not key.isascii() or has_control_characters(key) or " " in key:
            raise ValueError("holds a character (a space, a line end) that no key has")
        return value

    @field_validator("timeout", mode="before")
    @classmethod
    def _check_timeout(cls, value: object) -> object:
        if isinstance(value, Mapping):  # as `lc_attributes` writes an httpx.Timeout
            value = httpx.Timeout(**value)
        if isinstance(value, (int, float)) and not value > 0:
            raise ValueError("must be greater than 0 seconds")
        return value

    @field_validator("stop", mode="before")
    @classmethod
    def _check_stop(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("stop")
    @classmethod
    def _check_stop_sequences(cls, value: list[str] | None) -> list[str] | None:
        return value if value is None else _stop_sequences(value)

    @field_validator("default_headers")
    @classmethod
    def _check_headers(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        for name, content in (value or {}).items():
            if name.lower() == "authorization":
                raise ValueError("must not hold Authorization: pass the key as api_key")
            if not (name + content).isascii() or has_control_characters(name + content):
                raise ValueError(f"holds control or non-ASCII characters in {name!a}")
        return value

    @model_validator(mode="after")
    def _check_base_url(self) -> Self:
        url = self.base_url.rstrip("/")
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL:
            parsed = httpx.URL("")
        problem = None
        if parsed.scheme not in ("http", "https") or not parsed.host or " " in url:
            problem = "must be a URL such as https://api.thinnest.ai"
        elif parsed.userinfo or parsed.query or parsed.fragment:
            problem = "must hold no user, password, query or fragment"
        elif (
            parsed.scheme == "http"
            and not self.allow_insecure_http
            and not is_loopback(parsed.host)
        ):
            problem = (
                f"is plain http to {parsed.host!r}, which would send the key in the clear: "
                "use https, or set allow_insecure_http=True"
            )
        if problem:
            raise PydanticCustomError("base_url", "base_url {problem}", {"problem": problem})
        self.base_url = url
        return self

    @model_validator(mode="after")
    def _warn_of_no_effect(self) -> Self:
        _warn_no_effect(
            [name for name in sorted(_NO_EFFECT) if getattr(self, name) is not None],
            stacklevel=6,
        )
        return self

    # --- what the framework asks of a model ---

    @classmethod
    @override
    def is_lc_serializable(cls) -> bool:
        return True

    @property
    @override
    def lc_secrets(self) -> dict[str, str]:
        return {"thinnest_api_key": _KEY_VARIABLES[0]}

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
            tool_calling=False,
            structured_output=False,
        )

    @override
    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop or self.stop, **kwargs)
        params["ls_provider"] = PROVIDER
        params["ls_model_name"] = self._agent_of(kwargs)
        return params

    @override
    def _get_invocation_params(
        self, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        params = super()._get_invocation_params(stop=stop or self.stop, **_public(kwargs))
        return {**params, "model_name": self._agent_of(kwargs)}

    @override
    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        # Said again, since the framework keeps `_serialized` when a model is copied.
        shown = {**self._identifying_params, **_public(kwargs)}
        shown["stop"] = stop or self.stop
        return super()._get_llm_string(**shown)

    # --- before a call: config, callbacks, cache ---

    @override
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
            kwargs[_RUN] = CallbackManagerForLLMRun(**_run_fields(config, manager))
        return super().stream(input, config, stop=stop, **kwargs)

    @override
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
            kwargs[_RUN] = AsyncCallbackManagerForLLMRun(**_run_fields(config, manager))
        inner: list[AsyncGenerator[Piece, None]] = []
        kwargs[_INNER] = inner
        return _AsyncStream(super().astream(input, config, stop=stop, **kwargs), inner)

    @override
    def stream_events(  # type: ignore[override]  # the overloads are the framework's
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Iterator[StreamEvent] | ChatModelStream:
        if kwargs.get("version") == "v3":
            config, kwargs = self._for_call(config, kwargs)
        events: Iterator[StreamEvent] | ChatModelStream
        events = super().stream_events(input, config, **kwargs)
        return events

    @override
    def astream_events(  # type: ignore[override]  # the overloads are the framework's
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[StreamEvent] | Awaitable[AsyncChatModelStream]:
        if kwargs.get("version") == "v3":
            config, kwargs = self._for_call(config, kwargs)
        events: AsyncIterator[StreamEvent] | Awaitable[AsyncChatModelStream]
        events = super().astream_events(input, config, **kwargs)
        return events

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
        deque(read(call, run_manager), maxlen=0)
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
        async for _ in aread(call, run_manager):
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
        to_chunk = call.answer.chunk
        with closing(read(call, run_manager or kwargs.get(_RUN))) as pieces:
            for piece in pieces:
                yield to_chunk(piece)

    @override
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        call = self._begin(messages, stop, kwargs)
        to_chunk = call.answer.chunk
        async with aclosing(aread(call, run_manager or kwargs.get(_RUN))) as pieces:
            kwargs.get(_INNER, []).append(pieces)
            async for piece in pieces:
                yield to_chunk(piece)

    def _stream_chat_model_events(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        *,
        run_manager: CallbackManagerForLLMRun,
        **kwargs: Any,
    ) -> Iterator[MessagesData]:
        call = self._begin(messages, stop, kwargs)
        events = BlockEvents(call.answer, f"{LC_ID_PREFIX}-{run_manager.run_id}")
        with closing(read(call, run_manager)) as pieces:
            for piece in pieces:
                if type(piece) is not End:
                    yield from events.of(piece)
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
        events = BlockEvents(call.answer, f"{LC_ID_PREFIX}-{run_manager.run_id}")
        async with aclosing(aread(call, run_manager)) as pieces:
            async for piece in pieces:
                if type(piece) is not End:
                    for event in events.of(piece):
                        yield event
        # Last of all, since the framework asks for no event after it.
        for event in events.of(End()):
            yield event

    def _begin(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> Call:
        """Make the call, all of it checked: nothing is sent if anything is wrong."""
        _warn_unused(kwargs)
        session_id, request_metadata = self._context(kwargs)
        if session_id is not None:
            session_id = checked_id("session_id", session_id)
        agent_id = checked_id("agent_id", self._agent_of(kwargs))
        request = Request(
            agent_id, to_text(messages, session_id), session_id, request_metadata
        )
        stop = self.stop if stop is None else stop
        return Call(
            endpoint=self._endpoint(),
            body=request.body(),
            policy=RetryPolicy(self.max_retries, self.max_retry_wait),
            answer=Answer(
                Turn(
                    max_event_bytes=self.max_event_bytes,
                    stop=_stop_sequences(stop) if stop else (),
                    taken_ids=tool_call_ids(messages) if len(messages) > 1 else (),
                ),
                agent_id=agent_id,
                session_id=session_id,
                as_blocks=self.output_version == "v1",
                segment_id=kwargs.get(SEGMENT_ID),
            ),
        )

    def _endpoint(self) -> Endpoint:
        timeout = DEFAULT_TIMEOUT if self.timeout is None else httpx.Timeout(self.timeout)
        return Endpoint(
            base_url=self.base_url,
            api_key=self.thinnest_api_key,
            timeout=timeout,
            headers=self.default_headers or {},
            client=self.http_client,
            async_client=self.http_async_client,
        )

    def _agent_of(self, kwargs: Mapping[str, Any]) -> str:
        return kwargs.get("agent_id") or kwargs.get("model") or self.agent_id

    def _for_call(
        self, config: RunnableConfig | None, kwargs: dict[str, Any]
    ) -> tuple[RunnableConfig, dict[str, Any]]:
        """Carry over from the config what the framework does not hand to `_generate`."""
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
        """The session and the metadata of a call: argument, config, field, in this order."""
        if _CONTEXT not in kwargs:  # called by `generate`, which has no config argument
            kwargs = self._for_call(None, kwargs)[1]
        session_id, request_metadata = kwargs[_CONTEXT]
        return (
            self.session_id if session_id is None else session_id,
            self.request_metadata if request_metadata is None else request_metadata,
        )

    def _cacheable(self, kwargs: dict[str, Any]) -> Self:
        """This model, without a cache where the answer depends on a session's memory."""
        if self.cache is False or (self.cache is None and get_llm_cache() is None):
            return self
        if self._context(kwargs)[0] is None:
            return self
        return self.model_copy(update={"cache": False})


class _AsyncStream(AsyncIterator[AIMessageChunk]):
    """What `astream` gives: the framework's generator, closed from the inside out.

    The framework's generator does not close the model's, so that the connection would live,
    and the tool runs stay open, until the garbage collector comes by.
    """

    def __init__(
        self, chunks: AsyncIterator[AIMessageChunk], inner: list[AsyncGenerator[Piece, None]]
    ) -> None:
        self._chunks = chunks
        self._inner = inner

    def __anext__(self) -> Awaitable[AIMessageChunk]:
        return self._chunks.__anext__()

    async def aclose(self) -> None:
        for pieces in self._inner:
            await pieces.aclose()
        await cast("AsyncGenerator[AIMessageChunk, None]", self._chunks).aclose()


def _result(call: Call) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=call.answer.message())])


def _run_fields(
    config: RunnableConfig, manager: CallbackManager | AsyncCallbackManager
) -> dict[str, Any]:
    """What the model's run will be, for `_stream`, which the framework does not tell.

    The callbacks are configured here, once, and handed on by the config: the framework then
    finds them configured. The run's id is fixed here too, for tool runs to be its children.
    """
    run_id = config.get("run_id") or uuid7()
    config["run_id"] = run_id
    config["callbacks"] = manager
    tags = config.get("tags") or []
    metadata = config.get("metadata") or {}
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
    """A call's arguments as traces and cache keys may show them."""
    shown = {key: value for key, value in kwargs.items() if key not in _PRIVATE}
    session_id, request_metadata = kwargs.get(_CONTEXT, (None, None))
    if session_id is not None:
        shown["session_id"] = session_id
    if request_metadata is not None:
        shown["request_metadata"] = request_metadata
    return shown


def _stop_sequences(stop: Sequence[Any]) -> list[str]:
    sequences = [stop] if isinstance(stop, str) else list(stop)
    if not all(isinstance(sequence, str) and sequence for sequence in sequences):
        raise ThinnestRequestError("stop must hold strings that are not empty.")
    return sequences


def _warn_unused(kwargs: Mapping[str, Any]) -> None:
    unused = kwargs.keys() - _CALL_ARGUMENTS - _PRIVATE
    _warn_no_effect(sorted(unused & _NO_EFFECT), stacklevel=2)
    if unknown := sorted(unused - _NO_EFFECT):
        warnings.warn(
            f"ChatThinnest ignores the unknown call argument(s) {', '.join(unknown)}.",
            stacklevel=2,
        )


def _warn_no_effect(names: Sequence[str], stacklevel: int) -> None:
    if names:
        warnings.warn(
            f"{' and '.join(names)} without effect: the thinnest.ai API has no such field. "
            "Set it in the agent's settings at thinnest.ai.",
            stacklevel=stacklevel,
        )


def _without_inputs(error: ValidationError) -> ValidationError:
    """The same error without the inputs, among which the key may be."""
    details: list[InitErrorDetails] = []
    for item in error.errors(include_input=False, include_url=False):
        said = item["msg"]
        if item["type"] == "extra_forbidden":
            name = str(item["loc"][-1])
            known = difflib.get_close_matches(name, ChatThinnest.model_fields, n=1)
            said = "ChatThinnest has no such field" + (
                f"; did you mean {known[0]}?" if known else ""
            )
        kind = PydanticCustomError(item["type"], "{said}", {"said": said})
        details.append(InitErrorDetails(type=kind, loc=item["loc"], input=None))
    return ValidationError.from_exception_data(error.title, details, "python", hide_input=True)
