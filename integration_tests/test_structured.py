"""Typed answers over the wire: every method, on every path, in a chain too."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.prompts import ChatPromptTemplate
from pydantic import BaseModel
from typing_extensions import TypedDict

from integration_tests.conftest import Make
from integration_tests.wire import WireServer, stream
from langchain_thinnest import ThinnestInterruptedError
from unit_tests.contract import as_sse


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


def answer(text: str, *, is_whole: bool = True) -> list[Any]:
    pieces = [text[at : at + 5] for at in range(0, len(text), 5)]
    events: list[dict[str, Any]] = [{"type": "text", "content": piece} for piece in pieces]
    return stream(as_sse(*events, *([{"type": "done"}] if is_whole else [])))


def written(method: str, name: str, value: dict[str, Any]) -> str:
    """How an agent would write an object."""
    if method != "function_calling":
        return f"```json\n{json.dumps(value)}\n```"
    return f'<tool_call>{{"name": "{name}", "arguments": {json.dumps(value)}}}</tool_call>'


def invoke(model: Any, given: Any) -> Any:
    return model.invoke(given)


def batch(model: Any, given: Any) -> Any:
    return model.batch([given])[0]


def last_of_stream(model: Any, given: Any) -> Any:
    return list(model.stream(given))[-1]


def ainvoke(model: Any, given: Any) -> Any:
    return asyncio.run(model.ainvoke(given))


def abatch(model: Any, given: Any) -> Any:
    return asyncio.run(model.abatch([given]))[0]


def last_of_astream(model: Any, given: Any) -> Any:
    async def run() -> Any:
        return [part async for part in model.astream(given)][-1]

    return asyncio.run(run())


any_way = pytest.mark.parametrize(
    "way",
    [invoke, batch, last_of_stream, ainvoke, abatch, last_of_astream],
    ids=lambda way: way.__name__,
)


@any_way
@pytest.mark.parametrize("method", METHODS)
def test_an_answer_that_fits(wired: Make, wire: WireServer, method: Any, way: Any) -> None:
    prompt = ChatPromptTemplate([("human", "{question}")])
    for schema, expected in ((Trip, Trip(**LISBON)), (TripDict, LISBON)):
        wire.answer(answer(written(method, schema.__name__, LISBON)))
        typed = wired().with_structured_output(schema, method=method)
        assert way(typed, "Where to?") == expected
        assert way(prompt | typed, {"question": "Where to?"}) == expected


@any_way
@pytest.mark.parametrize("method", METHODS)
def test_an_answer_that_does_not_fit(
    wired: Make, wire: WireServer, method: Any, way: Any
) -> None:
    typed = wired().with_structured_output(Trip, method=method)
    refusal = "I would rather not."
    for text in (refusal, written(method, "Trip", {"city": "Lisbon"})):
        wire.answer(answer(text))
        with pytest.raises(OutputParserException) as raised:
            way(typed, "Where to?")
    assert "Lisbon" in raised.value.llm_output
    wire.answer(answer(refusal))
    with pytest.raises(OutputParserException) as raised:
        way(typed, "Where to?")
    assert raised.value.llm_output == refusal


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("way", [invoke, ainvoke])
def test_with_the_raw_answer(wired: Make, wire: WireServer, method: Any, way: Any) -> None:
    typed = wired().with_structured_output(Trip, method=method, include_raw=True)
    text = written(method, "Trip", LISBON)
    wire.answer(answer(text))
    outcome = way(typed, "Where to?")
    assert set(outcome) == {"raw", "parsed", "parsing_error"}
    assert (outcome["parsed"], outcome["parsing_error"]) == (Trip(**LISBON), None)
    assert outcome["raw"].text == ("" if method == "function_calling" else text)
    wire.answer(answer("No."))
    outcome = way(typed, "Where to?")
    assert (outcome["raw"].text, outcome["parsed"]) == ("No.", None)
    assert isinstance(outcome["parsing_error"], OutputParserException)


@pytest.mark.parametrize("method", METHODS)
def test_an_object_grows_while_it_streams(wired: Make, wire: WireServer, method: Any) -> None:
    wire.answer(answer(written(method, "TripDict", LISBON)))
    typed = wired().with_structured_output(TripDict, method=method)

    async def run() -> list[Any]:
        return [part async for part in typed.astream("Where to?")]

    parts = list(typed.stream("Where to?"))
    assert parts[-1] == LISBON
    assert len(parts) > 2
    for before, after in pairwise(parts):
        assert before.keys() <= after.keys()
        assert str(after["city"]).startswith(before["city"])
    assert asyncio.run(run()) == parts


@any_way
def test_an_answer_that_breaks_off_is_no_object(
    wired: Make, wire: WireServer, way: Any
) -> None:
    """Not even when what came is a whole object: there may have been more to it."""
    for text in (json.dumps(LISBON), json.dumps(LISBON)[:-4]):
        wire.answer(answer(text, is_whole=False))
        with pytest.raises(ThinnestInterruptedError):
            way(wired().with_structured_output(Trip), "Where to?")


def test_what_is_sent(wired: Make, wire: WireServer) -> None:
    wire.answer(answer("{}"))
    sent: dict[str, str] = {}
    for method in METHODS:
        typed = wired(session_id="s").with_structured_output(
            {"title": "T", "type": "object"}, method=method
        )
        assert typed.invoke("Where to?") == {} or method == "function_calling"
        sent[method] = wire.requests[-1].json["message"]
    assert sent["json_schema"] == (
        '<response_schema>\n{"title": "T", "type": "object"}\n</response_schema>\n\n'
        "Answer with one JSON object that fits the schema above and nothing else: no prose, "
        "no code fence.\n\nWhere to?"
    )
    assert sent["json_mode"] == (
        "Answer with one JSON object and nothing else: no prose, no code fence.\n\nWhere to?"
    )
    assert sent["function_calling"].startswith("<tools>\n")
    assert sent["function_calling"].endswith(
        "You must call the tool T now. Make one call at most.\n\nWhere to?"
    )
