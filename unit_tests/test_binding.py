"""What is bound to a model or made of it: tools, retries, typed answers, a tool."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain_core.exceptions import OutputParserException
from pydantic import BaseModel
from typing_extensions import TypedDict

from langchain_thinnest import (
    ThinnestInterruptedError,
    ThinnestRateLimitError,
    ThinnestRequestError,
    ThinnestServerError,
    is_retryable,
)
from unit_tests.answers import refusal, stream
from unit_tests.conftest import Make
from unit_tests.contract import EVENTS, TEXT, as_sse
from unit_tests.network import Network, Side

WHOLE = stream(as_sse(*EVENTS))


def spoken(text: str) -> list[Any]:
    """A whole answer that says so, in small pieces."""
    pieces = [text[at : at + 5] for at in range(0, len(text), 5)]
    events = [{"type": "text", "content": piece} for piece in pieces]
    return stream(*(as_sse(event) for event in events), as_sse({"type": "done"}))


# --- retries around a call ---


@pytest.mark.parametrize(
    ("what", "is_asked_again"),
    [
        (None, True),
        (is_retryable, True),
        (ThinnestRateLimitError, True),
        ((ThinnestRateLimitError, ValueError), True),
        (ThinnestServerError, False),
        (lambda error: False, False),
    ],
)
def test_with_retry_takes_classes_or_a_function(
    network: Network, side: Side, make: Make, what: Any, is_asked_again: bool
) -> None:
    network.answer(refusal(429, {}), WHOLE)
    model: Any = make(max_retries=0).with_retry(
        retry_if_exception_type=what, wait_exponential_jitter=False
    )
    if is_asked_again:
        assert side.invoke(model, "hi").text == TEXT
    else:
        with pytest.raises(ThinnestRateLimitError):
            side.invoke(model, "hi")
    assert len(network.requests) == 1 + is_asked_again


def test_with_retry_never_sends_a_message_twice(
    network: Network, side: Side, make: Make
) -> None:
    network.answer(stream(as_sse(*EVENTS[:3])))
    with pytest.raises(ThinnestInterruptedError):
        side.invoke(make().with_retry(), "hi")  # type: ignore[arg-type]
    assert len(network.requests) == 1


# --- typed answers ---


class Trip(BaseModel):
    """A trip."""

    city: str
    days: int


class TripDict(TypedDict):
    """A trip."""

    city: str
    days: int


LISBON = {"city": "Lisbon", "days": 3}
METHODS = ["json_schema", "function_calling", "json_mode"]


def written(method: str, name: str, value: Any) -> str:
    """How an agent would write an object."""
    if method != "function_calling":
        return f"So:\n```json\n{json.dumps(value)}\n```"
    return f'<tool_call>{{"name": "{name}", "arguments": {json.dumps(value)}}}</tool_call>'


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("schema", "value"), [(Trip, Trip(**LISBON)), (TripDict, LISBON)])
def test_an_answer_that_fits(
    network: Network, side: Side, make: Make, method: Any, schema: Any, value: Any
) -> None:
    network.answer(spoken(written(method, schema.__name__, LISBON)))
    typed: Any = make().with_structured_output(schema, method=method)
    assert side.invoke(typed, "Where to?") == value
    assert [*side.stream(typed, "Where to?")][-1] == value


def test_an_object_is_given_as_it_grows(network: Network, side: Side, make: Make) -> None:
    network.answer(spoken(written("json_schema", "", LISBON)))
    seen: Any = [*side.stream(make().with_structured_output(TripDict), "hi")]  # type: ignore[arg-type]
    assert seen[0]["city"] in "Lisbon"
    assert len(seen) > 2
    assert seen[-1] == LISBON


@pytest.mark.parametrize("method", METHODS)
def test_an_answer_that_does_not_fit(
    network: Network, side: Side, make: Make, method: Any
) -> None:
    typed: Any = make().with_structured_output(Trip, method=method)
    for text in ("I would rather not.", written(method, "Trip", {"city": "Lisbon"})):
        network.answer(spoken(text))
        with pytest.raises(OutputParserException) as caught:
            side.invoke(typed, "hi")
        assert ("Lisbon" in (caught.value.llm_output or "")) is ("Lisbon" in text)
        with pytest.raises(OutputParserException):
            list(side.stream(typed, "hi"))


def test_with_the_raw_answer(network: Network, side: Side, make: Make) -> None:
    typed: Any = make().with_structured_output(Trip, include_raw=True)
    network.answer(spoken(json.dumps(LISBON)), spoken("No."))
    found: Any = side.invoke(typed, "hi")
    assert found["raw"].text == json.dumps(LISBON)
    assert found["parsed"] == Trip(**LISBON)
    assert found["parsing_error"] is None
    found = side.invoke(typed, "hi")
    assert (found["raw"].text, found["parsed"]) == ("No.", None)
    assert isinstance(found["parsing_error"], OutputParserException)
    *_, last = side.stream(typed, "hi")
    assert isinstance(last["parsing_error"], OutputParserException)


def test_what_is_no_schema_or_argument_is_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="no arguments tools"):
        make().with_structured_output(Trip, tools=[])
    with pytest.raises(ThinnestRequestError):
        make().with_structured_output(7)  # type: ignore[arg-type]


# --- the model as a tool ---


class Question(BaseModel):
    topic: str
    limits: list[int]


@pytest.mark.parametrize(
    ("fields", "given", "sent"),
    [
        ({}, {"question": "What is it?"}, "What is it?"),
        ({"arg_types": {"topic": str}}, {"topic": "ML"}, "ML"),
        (
            {"args_schema": Question},
            {"topic": "ML", "limits": [1, 2]},
            "topic: ML\nlimits: [1, 2]",
        ),
    ],
)
def test_a_model_as_a_tool(
    network: Network, side: Side, make: Make, fields: Any, given: Any, sent: str
) -> None:
    network.answer(WHOLE)
    expert = make().as_tool(name="ask_expert", **fields)
    assert "ag_1" in expert.description
    call = {"type": "tool_call", "id": "c1", "name": "ask_expert", "args": given}
    message = side.either(expert.invoke, expert.ainvoke, call)
    assert (message.content, message.artifact.text) == (TEXT, TEXT)
    assert network.requests[0].json["message"] == sent
    assert expert.args_schema is not None


def test_a_tool_is_named_after_its_model(make: Make) -> None:
    expert = make(name="expert").as_tool(description="Knows it.")
    assert (expert.name, expert.description) == ("expert", "Knows it.")
