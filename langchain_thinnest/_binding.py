"""Methods that bind to a model or wrap it: tools, retries, typed answers, `as_tool`.

Binding sends nothing: it checks what it is given, and hands it to the calls as arguments.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig
from langchain_core.runnables.retry import RunnableRetry
from pydantic import BaseModel, Field, create_model
from tenacity import retry_if_exception
from typing_extensions import override

from langchain_thinnest._answer.typed import ObjectParser, with_raw
from langchain_thinnest._fields import ThinnestFields
from langchain_thinnest._request.headers import ExtraHeaders
from langchain_thinnest._request.structured import Method, Schema, typed_answer
from langchain_thinnest._request.tool_protocol import as_function, choice_of
from langchain_thinnest.errors import is_retryable

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

    from langchain_thinnest._request.tool_protocol import Tool


class _Question(BaseModel):
    question: str = Field(description="What to ask, with all that is needed to answer it.")


class _Retry(RunnableRetry[LanguageModelInput, AIMessage]):
    """LangChain's retries, by a function of the exception."""

    predicate: Any = None

    @property
    def _kwargs_retrying(self) -> dict[str, Any]:
        arguments = super()._kwargs_retrying
        if self.predicate is not None:
            arguments["retry"] = retry_if_exception(self.predicate)
        return arguments


class _Bound(RunnableBinding[LanguageModelInput, AIMessage]):
    """The framework's binding; headers that are bound are in no repr or serialised form."""

    @classmethod
    @override
    def lc_id(cls) -> list[str]:
        return [*cls.get_lc_namespace(), "RunnableBinding"]

    @override
    def bind(self, **kwargs: Any) -> Runnable[LanguageModelInput, AIMessage]:
        return super().bind(**_with_unseen(kwargs))


def _with_unseen(kwargs: dict[str, Any]) -> dict[str, Any]:
    headers = kwargs.get("extra_headers")
    return kwargs if headers is None else {**kwargs, "extra_headers": ExtraHeaders(headers)}


class ThinnestBinding(ThinnestFields):
    """Methods that bind arguments to a `ChatThinnest`, or wrap it."""

    if not TYPE_CHECKING:  # type checkers see the framework's

        def bind(self, **kwargs: Any) -> Any:
            """As the framework's, with headers kept unseen."""
            return _Bound(bound=self, kwargs=_with_unseen(kwargs), config={})

    @override
    def bind_tools(
        self,
        tools: Sequence[Tool],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Let the agent call tools on this side, beside its own on the server.

        The API knows no tools, so they are described to the agent in its message, and its
        calls are read from its text: how well that goes depends on the agent's model and
        instructions. Without tools nothing is added to a message.

        Args:
            tools: Functions, pydantic classes, TypedDicts, LangChain tools, or dicts that
                describe one (OpenAI's and Anthropic's form, or a JSON schema with a title).
            tool_choice: `"auto"` (default); `"any"`, `"required"` or `True` for at least one
                call; a tool's name, or OpenAI's or Anthropic's dict, for a call of that one;
                `"none"` or `False` for no tools at all.
            strict: Tell the agent that arguments must fit exactly. They are not checked here.
            parallel_tool_calls: `False` asks for one call at most.
            **kwargs: Other arguments for the calls, such as `session_id`.

        Raises:
            ThinnestRequestError: For what is no tool, and for a choice that is not bound.

        Example:
            ```python
            def get_weather(city: str) -> str:
                \"\"\"Say how the weather is in a city.\"\"\"
                return f"It is sunny in {city}."

            answer = model.bind_tools([get_weather]).invoke("How is the weather in Paris?")
            print(answer.tool_calls)
            ```
        """
        described = [as_function(tool, strict=strict) for tool in tools]
        choice_of(tool_choice, described)  # what cannot be is refused now
        asked = {"tool_choice": tool_choice, "parallel_tool_calls": parallel_tool_calls}
        asked = {name: value for name, value in asked.items() if value is not None}
        return self.bind(tools=described, **asked, **kwargs)

    @override
    def with_retry(
        self,
        *,
        retry_if_exception_type: Any = None,
        wait_exponential_jitter: bool = True,
        exponential_jitter_params: Any = None,
        stop_after_attempt: int = 3,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Call the model again where that is safe, beside its own `max_retries`.

        A message makes an agent act, so by default only what `is_retryable` allows is sent
        again. (`with_retry()` on a chain knows nothing of that.)

        Args:
            retry_if_exception_type: Exception classes, or a function of the exception, that
                say what to send again.
            wait_exponential_jitter: Wait between the tries, longer each time.
            exponential_jitter_params: As LangChain's.
            stop_after_attempt: How many tries there are in all.

        Example:
            ```python
            print(model.with_retry(stop_after_attempt=2).invoke("Hi").text)
            ```
        """
        predicate = retry_if_exception_type or is_retryable
        types: tuple[type[BaseException], ...] = (Exception,)
        if isinstance(predicate, type):
            types, predicate = (predicate,), None
        elif not callable(predicate):
            types, predicate = tuple(predicate), None
        return _Retry(
            bound=self,
            kwargs={},
            config={},
            retry_exception_types=types,
            predicate=predicate,
            wait_exponential_jitter=wait_exponential_jitter,
            exponential_jitter_params=exponential_jitter_params,
            max_attempt_number=stop_after_attempt,
        )

    @override
    def with_structured_output(
        self,
        schema: Schema | None = None,
        *,
        include_raw: bool = False,
        method: Method = "json_schema",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Make a model whose answers are objects that fit a schema.

        Args:
            schema: A pydantic class, whose instances the answers then are; or a `TypedDict`
                or a JSON schema, for dicts. `None` is for `json_mode` alone.
            include_raw: Answer with `{"raw": the message, "parsed": the object or None,
                "parsing_error": None or what was wrong}`, and raise nothing.
            method: `"json_schema"` asks for an answer that fits the schema,
                `"function_calling"` for a call of a tool that takes it, `"json_mode"` for
                any JSON object: your prompt must say which.
            strict: Tell the agent that no other keys are allowed.
            **kwargs: None are known.

        Raises:
            ThinnestRequestError: For what is no schema.
            ValueError: For an unknown method or argument.
            langchain_core.exceptions.OutputParserException: From calls, if an answer holds no
                object that fits; its `llm_output` is the answer's text.

        Example:
            ```python
            class Weather(BaseModel):
                city: str
                celsius: float

            typed = model.with_structured_output(Weather)
            print(typed.invoke("It is 21.5 degrees in Paris.").celsius)
            ```
        """
        if kwargs:
            raise ValueError(f"with_structured_output has no arguments {', '.join(kwargs)}.")
        typed = typed_answer(schema, method, strict=strict)
        parser = ObjectParser(
            title=typed.title,
            answer_schema=typed.schema,
            model=typed.model,
            wants_object=typed.is_object,
        )
        read = with_raw(parser) if include_raw else parser
        return self.bind(**typed.arguments) | read

    @override
    def as_tool(
        self,
        args_schema: type[BaseModel] | None = None,
        *,
        name: str | None = None,
        description: str | None = None,
        arg_types: dict[str, type] | None = None,
    ) -> BaseTool:
        """Make a tool that asks the agent, for another model to call.

        Args:
            args_schema: The tool's arguments. Default: one string, `question`.
            name: The tool's name. Default: the model's.
            description: What the agent is good for: by this the other model decides.
            arg_types: The tool's arguments by name, instead of a schema.

        Returns:
            A tool that gives the answer's text, with the message as its artifact. One text
            argument goes to the agent as it is; others go as a line each, with their names.

        Example:
            ```python
            expert = model.as_tool(name="ask_expert", description="Knows machine learning.")
            print(expert.invoke({"question": "What is machine learning?"}))
            ```
        """
        from langchain_core.tools import StructuredTool

        name = name or self.get_name()
        if args_schema is None and arg_types:
            fields: dict[str, Any] = {key: (type_, ...) for key, type_ in arg_types.items()}
            args_schema = create_model(name, **fields)

        def ask(
            *texts: str, config: RunnableConfig, **arguments: Any
        ) -> tuple[str, AIMessage]:
            answer = self.invoke(_as_text(texts, arguments), config)
            return answer.text, answer

        async def aask(
            *texts: str, config: RunnableConfig, **arguments: Any
        ) -> tuple[str, AIMessage]:
            answer = await self.ainvoke(_as_text(texts, arguments), config)
            return answer.text, answer

        return StructuredTool.from_function(
            ask,
            aask,
            name=name,
            description=description or f"Asks the agent {self.agent_id} a question.",
            args_schema=args_schema or _Question,
            response_format="content_and_artifact",
        )


def _as_text(texts: Sequence[str], arguments: Mapping[str, Any]) -> str:
    written = {
        key: value
        if isinstance(value, str)
        else json.dumps(value, ensure_ascii=False, default=str)
        for key, value in arguments.items()
    }
    if len(written) > 1:
        return "\n".join(f"{key}: {text}" for key, text in written.items())
    return "\n".join([*texts, *written.values()])
