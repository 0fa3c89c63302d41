"""The fields that users set on `ChatThinnest`: their meaning, and what is refused.

A wrong value is refused when the model is made, by an error that says what to do and never
shows the key: pydantic prints its inputs unless it is told not to, and keeps them anyway.
This module knows nothing of calls.
"""

from __future__ import annotations

import difflib
import os
import pickle
import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal

import httpx
from langchain_core.language_models import BaseChatModel
from pydantic import (
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError
from typing_extensions import Self, override

from langchain_thinnest._http.backends import check as check_store
from langchain_thinnest._http.environment import is_loopback
from langchain_thinnest._request.body import checked_id, has_control_characters
from langchain_thinnest._request.endpoint import STREAM, checked_endpoint, repeated_in
from langchain_thinnest._request.headers import problem_of
from langchain_thinnest._signatures import Constructor, help_of
from langchain_thinnest.errors import ThinnestRequestError

KEY_VARIABLES = ("THINNEST_API_KEY", "THINNESTAI_API_KEY")
AGENT_VARIABLE = "THINNEST_AGENT_ID"
NO_EFFECT = frozenset({"temperature", "max_tokens"})
_ALIASES = {"agent_id": "model", "thinnest_api_key": "api_key", "stop": "stop_sequences"}
_UNSET_BY_NONE = (
    "agent_id",
    "model",
    "thinnest_api_key",
    "api_key",
    "base_url",
    "endpoint",
)
_DEFAULT_BASE_URL = "https://api.thinnest.ai"


def _key_from_env() -> SecretStr:
    return SecretStr(next(filter(None, map(os.environ.get, KEY_VARIABLES)), ""))


def _agent_from_env() -> str:
    return os.environ.get(AGENT_VARIABLE, "")


def _base_url_from_env() -> str:
    return os.environ.get("THINNEST_BASE_URL") or _DEFAULT_BASE_URL


def _shared_limits_from_env() -> SecretStr | None:
    url = os.environ.get("THINNEST_SHARED_LIMITS")
    return SecretStr(url) if url else None


def _of_httpx2(name: str) -> WrapValidator:
    """Accept a client of httpx2 too, the continuation of httpx with the same interface."""

    def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        httpx2 = sys.modules.get("httpx2")
        is_one = httpx2 is not None and isinstance(value, getattr(httpx2, name))
        return value if is_one else handler(value)

    return WrapValidator(check)


class ThinnestFields(BaseChatModel):
    """The fields of `ChatThinnest`, and how they are checked."""

    agent_id: str = Field(
        alias="model", default_factory=_agent_from_env, validate_default=True
    )
    """The agent to talk to (`ag_*`). Default: the environment's
    `THINNEST_AGENT_ID`. A call's `agent_id=` or `model=` overrides it."""

    thinnest_api_key: SecretStr = Field(
        alias="api_key", default_factory=_key_from_env, validate_default=True
    )
    """The API key. Default: the environment's `THINNEST_API_KEY`, or `THINNESTAI_API_KEY`."""

    base_url: str = Field(default_factory=_base_url_from_env, validate_default=True)
    """Where the API is. Default: the environment's `THINNEST_BASE_URL`, or the vendor's.
    It must be https, or http to this very machine."""

    allow_insecure_http: bool = False
    """Allow `base_url` to be http to another machine, which sends the key in the clear."""

    endpoint: str = STREAM
    """The path below `base_url`, in which `{agent_id}` stands for the agent's id. For an
    agent's key: `"/v1/agents/{agent_id}/chat"`. A call's `endpoint=` overrides it."""

    session_id: str | None = None
    """The server-side memory to use. A call's `session_id=` overrides it, and so does
    `config["configurable"][session_key]`, in this order. Default: no memory."""

    session_key: str = "session_id"
    """The key in `config["configurable"]` that holds the session. Set it to `"thread_id"`,
    and each LangGraph thread is a session. Sessions then follow forks in the graph that
    `create_thinnest_agent` makes; a plain model in `create_agent` follows none."""

    request_metadata: dict[str, Any] | None = None
    """Context for the agent, sent as the request's `metadata`. A call's `request_metadata=`
    or `config["configurable"]["request_metadata"]` replaces it."""

    timeout: float | httpx.Timeout | None = None
    """Seconds, or an `httpx.Timeout`. Default: 10 s to connect, 120 s between two reads."""

    stall_timeout: float | None = Field(default=600.0, gt=0, allow_inf_nan=False)
    """The longest time without an event, in seconds, whatever heartbeats come; then the call
    fails with `ThinnestInterruptedError`. Only time spent waiting for the server counts.
    `None`: no limit, for agents whose tools take longer than ten minutes."""

    max_retries: int = Field(default=6, ge=0)
    """Tries after the first, for what the server surely did not take: 429, 503 with
    `Retry-After`, and connections that were never made."""

    max_retry_wait: float = Field(default=75.0, ge=0, allow_inf_nan=False)
    """The longest wait before a try, in seconds. A server that asks for longer is not waited
    for: the error says how long. The default outlasts a limit of one minute."""

    max_streams: int | None = Field(default=None, ge=1)
    """The most streams open at once with this key, where the plan says (2, 10). Default: it is
    learned from refusals. It is never exceeded, but by a call made inside an open stream."""

    shared_limits: SecretStr | None = Field(
        default_factory=_shared_limits_from_env, validate_default=True
    )
    """Where the processes that share a key count together: `sqlite:///path` for those of one
    machine, `redis://host/0` for many (extra `redis`). Default: the environment's
    `THINNEST_SHARED_LIMITS`, or none: each process counts for itself."""

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

    transport: Literal["httpx", "fast"] = "httpx"
    """The connections of calls without an `http_client`. `"fast"` costs less per event."""

    http_client: Annotated[httpx.Client | None, _of_httpx2("Client")] = Field(
        default=None, exclude=True, repr=False
    )
    """Your own client for sync calls, used as it is (its own timeouts too), never closed."""

    http_async_client: Annotated[httpx.AsyncClient | None, _of_httpx2("AsyncClient")] = Field(
        default=None, exclude=True, repr=False
    )
    """Your own client for async calls, used as it is, never closed."""

    temperature: float | None = None
    """Accepted and without effect: the agent's settings at thinnest.ai have it."""

    max_tokens: int | None = None
    """Accepted and without effect: the agent's settings at thinnest.ai have it."""

    model_config = ConfigDict(
        populate_by_name=True,
        extra="forbid",
        hide_input_in_errors=True,
        defer_build=True,  # nobody makes one of these; `ChatThinnest` says otherwise
    )

    @override
    def __getstate__(self) -> dict[Any, Any]:
        if bound := self._unpicklable():
            raise TypeError(
                f"A {type(self).__name__} with {' and '.join(bound)} cannot be pickled: open "
                "connections and locks stay in their process. Make the model without, and set "
                "them where it is used: model.model_copy(update={...})."
            )
        return super().__getstate__()

    @override
    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        memo = {} if memo is None else memo
        memo.update((id(value), value) for value in self._bound_to_this_process().values())
        return super().__deepcopy__(memo)

    def _bound_to_this_process(self) -> dict[str, Any]:
        names = ("http_client", "http_async_client", "rate_limiter")
        given = {name: getattr(self, name) for name in names}
        return {name: value for name, value in given.items() if value is not None}

    def _unpicklable(self) -> dict[str, Any]:
        """Return the fields that cannot be pickled."""
        bound = self._bound_to_this_process()
        try:
            pickle.dumps(bound.get("rate_limiter"))
        except Exception:  # noqa: BLE001  # whatever it raises, it cannot be pickled
            return bound
        bound.pop("rate_limiter", None)
        return bound

    @override
    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        for name, field in type(self).model_fields.items():
            if name not in self.__dict__:  # an older release's model has no such field
                self.__dict__[name] = field.get_default(
                    call_default_factory=True, validated_data={}
                )

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        for name, alias in _ALIASES.items():
            if values.get(name) is not None and values.get(alias) is not None:
                raise PydanticCustomError(
                    "both_names",
                    "{name} and {alias} are two names of one field: give one of them",
                    {"name": name, "alias": alias},
                )
        # None is as good as nothing, as for other providers: the default, or the environment.
        unset = {name for name in _UNSET_BY_NONE if values.get(name, "") is None}
        return {name: value for name, value in values.items() if name not in unset}

    @field_validator("agent_id", mode="before")
    @classmethod
    def _check_agent(cls, value: object) -> object:
        if value == "":
            raise ValueError(f"is missing: pass agent_id=... or set {AGENT_VARIABLE}")
        return value

    @field_validator("agent_id", "session_id")
    @classmethod
    def _check_id(cls, value: str | None, info: Any) -> str | None:
        return value if value is None else checked_id(info.field_name, value)

    @field_validator("endpoint")
    @classmethod
    def _check_endpoint(cls, value: str) -> str:
        return checked_endpoint(value)

    @field_validator("thinnest_api_key")
    @classmethod
    def _check_key(cls, value: SecretStr) -> SecretStr:
        key = value.get_secret_value()
        if not key:
            raise ValueError("is missing: pass api_key=... or set THINNEST_API_KEY")
        if not key.isascii() or has_control_characters(key) or " " in key:
            raise ValueError("holds a character (a space, a line end) that no key has")
        return value

    @field_validator("shared_limits")
    @classmethod
    def _check_shared_limits(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_store(value.get_secret_value())
        return value

    @field_validator("timeout", mode="before")
    @classmethod
    def _check_timeout(cls, value: object) -> object:
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                raise ValueError(
                    f"must be seconds as a number, such as 10, not {value!r:.40}"
                ) from None
        if isinstance(value, Mapping):  # as `lc_attributes` writes an httpx.Timeout
            value = httpx.Timeout(**value)
        if isinstance(value, (int, float)) and not value > 0:
            raise ValueError("must be greater than 0 seconds")
        return value

    @field_validator("stop", mode="before")
    @classmethod
    def _check_stop(cls, value: object) -> object:
        if value is not None and not isinstance(value, (str, list, tuple)):
            raise ValueError("stop must be a string or a list of strings")
        return [value] if isinstance(value, str) else value

    @field_validator("stop")
    @classmethod
    def _check_stop_sequences(cls, value: list[str] | None) -> list[str] | None:
        return value if value is None else stop_sequences(value)

    @field_validator("default_headers")
    @classmethod
    def _check_headers(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        if value and (problem := problem_of(value)):
            raise ValueError(problem)
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
        else:
            problem = repeated_in(parsed.path, self.endpoint)
            problem = problem or insecure(url, allowed=self.allow_insecure_http)
        if problem:
            raise PydanticCustomError("base_url", "base_url {problem}", {"problem": problem})
        self.base_url = url
        return self

    @model_validator(mode="after")
    def _warn_of_no_effect(self) -> Self:
        warn_no_effect(
            [name for name in sorted(NO_EFFECT) if getattr(self, name) is not None],
            stacklevel=6,
        )
        return self


# Pydantic's `use_attribute_docstrings` would read the sources at import, in 0.1 s.
for _name, _help in help_of(Constructor.construct).items():
    if _name in ThinnestFields.model_fields:
        ThinnestFields.model_fields[_name].description = _help


@lru_cache(maxsize=100)
def insecure(base_url: str, *, allowed: bool) -> str | None:
    """Say why a URL would send the key in the clear; `None` if it would not, or may."""
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL:
        return "must be a URL such as https://api.thinnest.ai"
    if url.scheme == "https" or (url.scheme == "http" and (allowed or is_loopback(url.host))):
        return None
    return (
        f"is plain http to {url.host!r}, which would send the key in the clear: "
        "use https, or set allow_insecure_http=True"
    )


def stop_sequences(stop: Sequence[Any]) -> list[str]:
    if not isinstance(stop, (str, list, tuple, set, frozenset)):
        raise ThinnestRequestError(
            f"stop must be a string or a list of strings, not {stop!r:.40}."
        )
    sequences = [stop] if isinstance(stop, str) else list(stop)
    if not all(isinstance(sequence, str) and sequence for sequence in sequences):
        raise ThinnestRequestError("stop must hold strings that are not empty.")
    return sequences


def warn_no_effect(names: Sequence[str], stacklevel: int) -> None:
    if names:
        warnings.warn(
            f"{' and '.join(names)} without effect: the thinnest.ai API has no such field. "
            "Set it in the agent's settings at thinnest.ai.",
            stacklevel=stacklevel,
        )


# What other providers' models are given, by whoever moves a chain here.
_NAMED_OTHERWISE = {
    "model_name": "model",
    "request_timeout": "timeout",
    "openai_api_base": "base_url",
    "openai_api_key": "api_key",
}
_NOT_HERE = frozenset(
    {
        "extra_body",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "model_kwargs",
        "n",
        "presence_penalty",
        "reasoning_effort",
        "response_format",
        "seed",
        "stream_options",
        "stream_usage",
        "top_k",
        "top_p",
        "use_responses_api",
    }
)


def _advice(name: str, model: type[BaseChatModel]) -> str:
    if name in _NOT_HERE:
        return ", and the thinnest.ai API has none: leave it out"
    close = difflib.get_close_matches(name, [*model.model_fields, *_ALIASES.values()], n=1)
    known = _NAMED_OTHERWISE.get(name) or next(iter(close), None)
    return f"; did you mean {known}?" if known else ""


def without_inputs(error: ValidationError, model: type[BaseChatModel]) -> ValidationError:
    """Copy an error without its inputs, since the key may be among them."""
    details: list[InitErrorDetails] = []
    for item in error.errors(include_input=False, include_url=False):
        said = item["msg"]
        if item["type"] == "extra_forbidden":
            name = str(item["loc"][-1])
            said = f"{model.__name__} has no such field{_advice(name, model)}"
        kind = PydanticCustomError(item["type"], "{said}", {"said": said})
        names = {alias: name for name, alias in _ALIASES.items()}
        loc = tuple(names.get(str(part), part) for part in item["loc"])
        details.append(InitErrorDetails(type=kind, loc=loc, input=None))
    return ValidationError.from_exception_data(error.title, details, "python", hide_input=True)
