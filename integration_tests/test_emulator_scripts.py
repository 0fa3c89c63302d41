"""Scripts as the emulator's agents, and the pytest fixture that takes them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from integration_tests.conftest import KEY
from integration_tests.ways import WAYS
from langchain_thinnest import ChatThinnest, ThinnestGenerationError
from langchain_thinnest.emulator import ThinnestEmulator

pytest_plugins = ["pytester"]

CALL = {"type": "tool_call", "name": "clock", "args": {}}
RESULT = {"type": "tool_result", "name": "clock", "result": 7}


def model_of(emulator: ThinnestEmulator, **fields: Any) -> ChatThinnest:
    given = {"agent_id": "ag_1", "max_retries": 0, **fields}
    return ChatThinnest(api_key=KEY, base_url=emulator.base_url, **given)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_events_answer_every_message_the_same(way: Any) -> None:
    script = ["It is ", CALL, RESULT, {"type": "text", "content": "seven."}]
    with ThinnestEmulator({"ag_1": script}, api_keys=[KEY]) as emulator:
        for message in ("hi", "ho"):
            answer = way(model_of(emulator), message)
            assert answer.text == "It is seven."
            assert len(answer.content_blocks) == 4


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_lists_answer_turn_by_turn(way: Any) -> None:
    """In the order in which messages come, whatever their sessions; and then no more."""
    with ThinnestEmulator({"ag_1": [["one"], [CALL, RESULT], []]}, api_keys=[KEY]) as emulator:
        assert way(model_of(emulator, session_id="s"), "a").text == "one"
        assert len(way(model_of(emulator, session_id="t"), "b").content_blocks) == 2
        assert way(model_of(emulator), "c").text == ""
        with pytest.raises(ThinnestGenerationError, match=r"3 answers.* message 4: 'd'"):
            way(model_of(emulator), "d")
        assert [type(error).__name__ for error in emulator.errors] == ["Unanswered"]


def test_a_script_may_be_given_later() -> None:
    with ThinnestEmulator({}, api_keys=[KEY]) as emulator:
        emulator.agents["ag_1"] = [["one"], ["two"]]
        assert [model_of(emulator).invoke("hi").text for _ in range(2)] == ["one", "two"]
        emulator.agents["*"] = ["whoever"]
        assert model_of(emulator, agent_id="ag_other").invoke("hi").text == "whoever"
        emulator.agents["ag_1"] = [1]
        with pytest.raises(ThinnestGenerationError, match="ValueError: A script is a list"):
            model_of(emulator).invoke("hi")


def test_an_empty_script_is_an_empty_answer() -> None:
    with ThinnestEmulator({"ag_1": []}, api_keys=[KEY]) as emulator:
        assert [model_of(emulator).invoke("hi").text for _ in range(2)] == ["", ""]


@pytest.mark.parametrize("script", [[1], [None], [["a"], "b"], [["a"], [3]], [{"text": "a"}]])
def test_what_is_no_script_is_refused_at_once(script: Any) -> None:
    with pytest.raises(ValueError, match="A script is a list of strings and events"):
        ThinnestEmulator({"ag_1": script})


# --- the fixture, in a run of its own ---

CONFTEST = "from langchain_thinnest.emulator.pytest import thinnest\n"


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs tests as a user's, with one line in `conftest.py`."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # the others take 2 s to import
    pytester.makeconftest(CONFTEST)

    def run(code: str) -> pytest.RunResult:
        pytester.makepyfile(code)
        options = ["-p", "no:cacheprovider", "-p", "pytest_asyncio.plugin"]
        return pytester.runpytest_subprocess(*options, "-o", "asyncio_mode=auto")

    return run


def test_the_fixture_answers_sync_and_async(run: Any) -> None:
    run(
        """
        from langchain_thinnest import ChatThinnest
        from langchain_thinnest.emulator import Fault

        def test_each_message_the_same(thinnest):
            thinnest.answers("We have ", {"type": "text", "content": "7 left."})
            assert thinnest.model().invoke("Tea?").text == "We have 7 left."
            assert [chunk.text for chunk in thinnest.model().stream("Tea?")][0] == "We have "
            assert [request["message"] for request in thinnest.requests] == ["Tea?"] * 2

        async def test_turn_by_turn(thinnest):
            thinnest.answers(["one"], ["two"], agent_id="ag_shop")
            thinnest.answers("another")
            shop = thinnest.model("ag_shop", session_id="s")
            assert (await shop.ainvoke("a")).text == "one"
            assert [chunk.text async for chunk in shop.astream("b")][0] == "two"
            assert (await thinnest.model().ainvoke("c")).text == "another"
            assert thinnest.requests[1]["session_id"] == "s"

        def test_a_model_that_the_code_makes(thinnest):
            thinnest.answers("hi")
            thinnest.fail_next(Fault.status(429, retry_after=0))
            assert ChatThinnest(agent_id="ag_any").invoke("hi").text == "hi"
        """
    ).assert_outcomes(passed=3)


def test_the_fixture_says_what_was_asked_in_vain(run: Any) -> None:
    result = run(
        """
        def test_swallowed(thinnest):
            thinnest.answers(["Good."], agent_id="ag_shop")
            for message in ("Tea?", "Coffee?"):
                try:
                    thinnest.model("ag_shop").invoke(message)
                except Exception:
                    pass

        def test_no_answers(thinnest):
            thinnest.model().invoke("Milk?")
        """
    )
    result.assert_outcomes(passed=1, failed=1, errors=2)
    result.stdout.fnmatch_lines(
        [
            "*ag_shop has a script of 1 answers, and this is message 2: 'Coffee?'",
            "All that was asked:",
            "*/chat/stream*'Tea?'*",
            "*/chat/stream*'Coffee?'*",
            "*ag_test was asked 'Milk?', before `thinnest.answers(...)`*",
        ]
    )


def test_the_fixture_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "import langchain_thinnest.emulator\n"
        "try: import langchain_thinnest.emulator.pytest\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
        timeout=60,
    )
    assert (
        done.stdout == "The fixture needs pytest, which is not installed: pip install pytest\n"
    )
