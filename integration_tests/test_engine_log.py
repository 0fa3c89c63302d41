"""The log of `cookbook/engines/ask.py`: what it says of each prompt, and what is asked again.

Engines are not needed here; `integration_tests/engines/` has them.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import messages_from_dict

from integration_tests.conftest import KEY, echo_agent
from langchain_thinnest.emulator import Fault, ThinnestEmulator

if sys.platform == "win32":
    pytest.skip("the log needs fcntl", allow_module_level=True)

import fcntl
import resource

from cookbook.engines import ask as engines

pytestmark = pytest.mark.tools

ROOT = Path(__file__).parents[1]
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThinnestEmulator]:
    with ThinnestEmulator({"ag": echo_agent}, api_keys=[KEY]) as server:
        monkeypatch.setenv("THINNEST_API_KEY", KEY)
        monkeypatch.setenv("THINNEST_AGENT_ID", "ag")
        monkeypatch.setenv("THINNEST_BASE_URL", server.base_url)
        yield server


@pytest.fixture(autouse=True)
def closed_logs() -> Iterator[None]:
    yield
    engines.forget()


class Run:
    """Runs of one file of prompts, one after the other."""

    def __init__(self, tmp: Path, monkeypatch: pytest.MonkeyPatch, *prompts: Any) -> None:
        self.folder, self.file, self.monkeypatch = (
            tmp / "answers",
            tmp / "p.jsonl",
            monkeypatch,
        )
        lines = [json.dumps(prompt, ensure_ascii=False) for prompt in prompts]
        self.file.write_text("\n\n".join(lines) + "\n", encoding="utf-8")

    def begin(self, *more: str) -> list[dict[str, str]]:
        command = ["plain.py", str(self.file), str(self.folder), *more]
        self.monkeypatch.setattr(sys, "argv", command)
        engines.forget()  # as a new process
        return engines.begin()[0]

    def __call__(self, *more: str) -> list[str]:
        """Ask what is to be asked, and give what became of it."""
        return [engines.ask(prompt, str(self.folder)) for prompt in self.begin(*more)]

    def finish(self, name: str, prompts: Any = ()) -> list[dict[str, Any]]:
        engines.finish(str(self.folder), prompts)
        text = (self.folder / f"{name}.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def log(self) -> Path:
        return max(
            (self.folder / "log").glob("*.jsonl"), key=lambda path: path.stat().st_mtime
        )


@pytest.fixture
def run_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda *prompts: Run(tmp_path, monkeypatch, *prompts)


def test_what_was_answered_is_not_asked_again(server: Any, run_of: Any) -> None:
    run = run_of("one", {"id": 7, "prompt": "tw\u2028o"}, "one")
    assert run() == ["answered", "answered"]
    assert run() == []
    assert len(server.requests) == 2
    one, two = run.finish("answered")
    assert (one["prompt"], one["text"], len(one["id"])) == ("one", "0: one", 16)
    assert (two["id"], two["text"], two["asked"]) == ("7", "0: tw\u2028o", 1)
    (message,) = messages_from_dict([two["message"]])
    assert message.usage_metadata["total_tokens"] > 0
    assert run.finish("failed") == []


def test_two_prompts_of_one_id_are_refused(server: Any, run_of: Any) -> None:
    with pytest.raises(SystemExit, match="Two prompts have the id '1'"):
        run_of({"id": 1, "prompt": "one"}, {"id": "1", "prompt": "two"})()


def test_a_message_whose_fate_is_unknown_is_asked_again_by_choice_only(
    server: Any, run_of: Any
) -> None:
    run = run_of("one", "two")
    server.fail_next(Fault.cut(after=0))
    assert run() == ["failed", "answered"]
    (failed,) = run.finish("failed")
    assert failed["error"] == "ThinnestInterruptedError"
    assert (failed["prompt"], failed["is_retryable"]) == ("one", False)
    assert failed["reason"]
    assert failed["next_run_asks"] is False
    assert run() == []
    assert run("--again", "ThinnestServerError") == []
    # It fails once more, and the choice was for one time.
    server.fail_next(Fault.cut(after=0))
    assert run("--again", "ThinnestInterruptedError") == ["failed"]
    assert engines.ask(engines.identified("one"), str(run.folder)) == "failed"
    assert run() == []
    assert run("--again", "all") == ["answered"]
    assert run.finish("failed") == []
    assert len(server.requests) == 4


def test_what_the_server_did_not_take_is_asked_by_the_next_run(
    server: Any, run_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of("one")
    run.begin()
    model = engines.model_of(str(run.folder)).model_copy(update={"max_retries": 0})
    server.fail_next(Fault.status(503, retry_after=1))
    with monkeypatch.context() as patch:
        patch.setattr(engines, "model_of", lambda _: model)
        assert run() == ["failed"]
    (failed,) = run.finish("failed")
    assert (failed["error"], failed["is_retryable"]) == ("ThinnestServerError", True)
    assert failed["next_run_asks"] is True
    assert run() == ["answered"]


def test_a_wrong_setting_leaves_no_line(run_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THINNEST_API_KEY", raising=False)
    run = run_of("one")
    with pytest.raises(ValueError, match="THINNEST_API_KEY"):
        run()
    (never,) = run.finish("failed", run.begin())
    assert (never["prompt"], never["event"], never["asked"]) == ("one", "never asked", 0)


def test_a_folder_that_a_worker_does_not_see_is_an_error(server: Any, run_of: Any) -> None:
    run = run_of("one")
    (one,) = run.begin()
    with pytest.raises(ValueError, match="folder"):
        engines.ask(one, str(run.folder) + "-elsewhere")
    assert server.requests == []


def test_a_torn_line_is_no_line(server: Any, run_of: Any) -> None:
    run = run_of("one", "two")
    assert run() == ["answered"] * 2
    whole = run.log().read_bytes()
    run.log().write_bytes(whole[:-20])  # in the middle of the second answer
    assert [prompt["prompt"] for prompt in run.begin()] == ["two"]
    (failed,) = run.finish("failed")
    assert (failed["error"], failed["next_run_asks"]) == ("Killed", True)
    assert run() == ["answered"]
    assert [entry["asked"] for entry in run.finish("answered")] == [1, 2]


def test_a_clock_that_is_ahead_hides_no_answer(
    server: Any, run_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of("one")
    (one,), folder = run.begin(), str(run.folder)
    dead = engines.Log(folder)
    with monkeypatch.context() as patch:
        patch.setattr(engines.time, "time", lambda: 2e10)
        dead.claim(one)
    dead.file.close()  # as when its process ends
    assert engines.ask(one, folder) == "answered"
    (answered,) = run.finish("answered")
    assert (answered["text"], answered["asked"]) == ("0: one", 2)


def test_what_was_killed_can_be_left_to_the_user(
    server: Any, run_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "ASK_KILLED_AGAIN", False)
    run = run_of("one", "two")
    (one, two), folder = run.begin(), str(run.folder)
    assert engines.log_of(folder).claim(one) is None
    assert engines.ask(two, folder) == "answered"
    assert run() == []  # the process of the first run has ended
    (killed,) = run.finish("failed")
    assert (killed["error"], killed["next_run_asks"]) == ("Killed", False)
    assert run("--again", "Killed") == ["answered"]
    assert {e["prompt"]: e["asked"] for e in run.finish("answered")} == {"one": 2, "two": 1}


def hold(prompt: Any, folder: str, is_asking: Any) -> None:
    """A process that asks, and never comes to an end."""
    log = engines.log_of(folder)
    assert log.claim(prompt) is None
    if hasattr(os, "fork") and not os.fork():  # a child of it lives on
        is_asking.set()
        time.sleep(20)
    signal.pause()


def test_what_another_process_asks_is_left_to_it_until_it_dies(
    server: Any, run_of: Any
) -> None:
    run, is_asking = run_of("one", "two"), SPAWN.Event()
    (one, _), folder = run.begin(), str(run.folder)
    other = SPAWN.Process(target=hold, args=(one, folder, is_asking), daemon=True)
    other.start()
    assert is_asking.wait(30)
    assert [prompt["prompt"] for prompt in run.begin()] == ["two"]
    assert engines.ask(one, folder) == "asking"
    os.kill(other.pid or 0, signal.SIGKILL)
    while other.is_alive():
        time.sleep(0.01)
    assert engines.ask(one, folder) == "answered"
    assert len(server.requests) == 1


def test_threads_and_processes_ask_each_prompt_once(server: Any, run_of: Any) -> None:
    numbers = [str(number) for number in range(60)]
    run, all_are_there = run_of(*numbers), SPAWN.Barrier(3)
    prompts, folder = run.begin(), str(run.folder)
    asked = (prompts, folder, all_are_there)
    workers = [SPAWN.Process(target=ask_all, args=asked, daemon=True) for _ in range(2)]
    for worker in workers:
        worker.start()
    ask_all(*asked)
    for worker in workers:
        worker.join(60)
    assert sorted(request["message"] for request in server.requests) == sorted(numbers)
    assert len(run.finish("answered")) == 60


def test_one_at_a_time_looks_and_notes(server: Any, run_of: Any) -> None:
    run = run_of("one")
    (one,), folder = run.begin(), str(run.folder)
    other = engines.Log(folder)
    with (run.folder / "log" / "lock").open("w") as lock, ThreadPoolExecutor(1) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        asked = pool.submit(engines.ask, one, folder)
        time.sleep(0.3)
        other.write(one["id"], "answered", text="by another process")
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert asked.result() == "answered"
    other.file.close()
    assert server.requests == []


def ask_all(prompts: Any, folder: str, all_are_there: Any) -> None:
    engines.model_of(folder)  # which takes a while
    all_are_there.wait(60)
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda prompt: engines.ask(prompt, folder), prompts)
        assert set(found) <= {"answered", "asking"}


def test_an_interrupt_lets_the_same_process_ask_again(
    server: Any, run_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of("one")
    (one,), folder = run.begin(), str(run.folder)

    class Interrupted:
        def invoke(self, _: str) -> None:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engines, "model_of", lambda _: Interrupted())
        with pytest.raises(KeyboardInterrupt):
            engines.ask(one, folder)
    assert engines.ask(one, folder) == "answered"


def test_a_line_that_did_not_fit_spoils_no_other(server: Any, run_of: Any) -> None:
    run = run_of("one", "two")
    (one, two), folder = run.begin(), str(run.folder)
    log = engines.log_of(folder)
    assert log.claim(one) is None
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    room = run.log().stat().st_size + 9
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(OSError, match="No room"):
            log.write(one["id"], "answered", text="cut")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert run.log().stat().st_size == room
    assert engines.ask(two, folder) == engines.ask(one, folder) == "answered"
    assert [entry["asked"] for entry in run.finish("answered")] == [2, 1]


def test_the_page_shows_the_code_as_it_is() -> None:
    page = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8")
    files = [path.read_text() for path in (ROOT / "cookbook" / "engines").glob("*.py")]
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        assert any(block in file for file in files), block


def test_what_ties_an_engine_in_is_short() -> None:
    for path in (ROOT / "cookbook" / "engines").glob("*.py"):
        assert len(path.read_text().splitlines()) <= (220 if path.stem == "ask" else 30), path
