"""The demo agent's tools really do their work."""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from langchain_thinnest.emulator import Session, demo_agent
from langchain_thinnest.emulator.demo import calculator, search_library


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("17 * (3 + 4)", "119"),
        ("2^10", "1024"),
        ("7 / 2", "3.5"),
        ("8 / 2", "4"),
        ("1,000 - 1", "999"),
        ("-3 % 5", "2"),
        ("6 \u00f7 4 \u00d7 2", "3"),
    ],
)
def test_calculator(expression: str, value: str) -> None:
    assert calculator(expression) == value


@pytest.mark.parametrize(
    "expression", ["1 / 0", "2 +", "__import__('os')", "9**9**9**9", "(" * 300 + "1", "a.b"]
)
def test_calculator_says_what_is_wrong(expression: str) -> None:
    assert calculator(expression).startswith("error: ")


def test_search_finds_the_passage_that_fits() -> None:
    assert "Fundy" in search_library("largest tides")[0]["text"]
    assert search_library("waggle dancing")[0]["title"] == "Honeybees"
    assert search_library("zzz") == search_library("") == search_library('"') == []


def ask(message: str) -> list[tuple[str, object]]:
    items = list(demo_agent(message, Session(None, "ag_demo")))
    return [
        (item["name"], item.get("args", item.get("result")))
        for item in items
        if isinstance(item, dict)
    ]


def test_tools_are_chosen_from_the_message() -> None:
    assert ask("What is 17 * (3 + 4)?") == [
        ("calculator", {"expression": "17 * (3 + 4)"}),
        ("calculator", "119"),
    ]
    assert ask("Tell me about honeybees")[0] == ("search_library", {"query": "honeybees"})
    assert [name for name, _ in ask("2+2, and what about tides?")] == [
        *["calculator"] * 2,
        *["search_library"] * 2,
    ]
    assert ask("what is it?") == []


@pytest.mark.parametrize("message", ["", "2+2", "tides", "zzz", "(" * 200 + "1+1"])
def test_it_says_what_it_is(message: str) -> None:
    pieces = demo_agent(message, Session(None, "ag_demo"))
    assert "emulator" in "".join(piece for piece in pieces if isinstance(piece, str))


def told(message: str, session: Session) -> str:
    pieces = demo_agent(message, session)
    return "".join(piece for piece in pieces if isinstance(piece, str))


def test_it_remembers_a_name_within_a_session() -> None:
    session = Session("s", "ag_demo")
    assert told("My name is Ada.", session).startswith("Hello, Ada.")
    session.messages += [HumanMessage("My name is Ada."), AIMessage("Hello, Ada.")]
    assert "Ada" in told("What is my name?", session)
    assert "Ada" not in told("What is my name?", Session(None, "ag_demo"))
    transcript = "User: My name is Ada.\n\nAssistant: Hello.\n\nUser: What is my name?"
    assert "Ada" in told(transcript, Session(None, "ag_demo"))


@pytest.mark.parametrize(
    "head", ["<tools>\n", "<response_schema>\n", "Answer with one JSON object"]
)
def test_it_pretends_to_no_model(head: str) -> None:
    assert "Without a model" in told(f"{head} What is 2 + 2?", Session(None, "ag_demo"))
