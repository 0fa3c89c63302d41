"""The demo, as somebody types it: `python -m langchain_thinnest`."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration_tests.conftest import KEY
from langchain_thinnest.__main__ import main
from langchain_thinnest.emulator import Fault, ThinnestEmulator

COMMAND = [sys.executable, "-m", "langchain_thinnest"]
SAMPLE = "What are applications of machine learning in 2026?"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings from outside; the package is found from every directory."""
    for name in list(os.environ):
        if name.startswith("THINNEST") or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))


@pytest.fixture
def live(emulator: ThinnestEmulator, monkeypatch: pytest.MonkeyPatch) -> ThinnestEmulator:
    """A service that the environment names."""
    monkeypatch.setenv("THINNEST_API_KEY", KEY)
    monkeypatch.setenv("THINNEST_AGENT_ID", "ag_echo")
    monkeypatch.setenv("THINNEST_BASE_URL", emulator.base_url)
    return emulator


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Runs the demo in an empty directory, without a terminal."""

    def run(*arguments: str, stdin: int | None = subprocess.DEVNULL) -> Any:
        return subprocess.run(
            [*COMMAND, *arguments],
            check=False,
            cwd=tmp_path,
            stdin=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


# --- without a terminal ---


def test_a_question_is_answered(run: Any, tmp_path: Path) -> None:
    done = run("What is", "37 * 42?")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Asking the emulator on this machine")
    assert lines[2:6] == [
        "> What is 37 * 42?",
        "Let me work that out. ",
        '  [tool call]   calculator {"expression": "37 * 42"}',
        "  [tool result] calculator -> 1554",
    ]
    assert lines[6] == "37 * 42 = 1554."
    assert re.fullmatch(r"  \[usage\]       \d+ tokens in, \d+ out, \d+ in all", lines[-1])
    assert list(tmp_path.iterdir()) == []


def test_the_sample_question_is_answered_without_one(run: Any) -> None:
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    assert f"> {SAMPLE}\n" in done.stdout
    assert "[tool call]   search_library" in done.stdout
    assert "[tool result] search_library -> [" in done.stdout
    assert "From “Machine learning”" in done.stdout
    assert done.stdout.count("[usage]") == 1


def test_a_closed_stdin_is_no_terminal(run: Any) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" "$@" <&-', *COMMAND],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"> {SAMPLE}\n" in done.stdout


def test_a_dead_proxy_does_not_matter(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.lower(), "http://127.0.0.1:9")
    done = run("What is 37 * 42?")
    assert (done.returncode, done.stderr) == (0, "")
    assert "calculator -> 1554" in done.stdout


def test_the_service_that_the_environment_names(live: ThinnestEmulator, run: Any) -> None:
    done = run("hi")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Asking ag_echo at {live.base_url}.\n")
    assert "\n0: hi\n" in done.stdout
    assert live.requests == [{"agent_id": "ag_echo", "message": "hi"}]
    assert KEY not in done.stdout


def test_a_retry_is_told(live: ThinnestEmulator, run: Any) -> None:
    live.fail_next(Fault.status(429, "Slow down", retry_after=0))
    done = run("hi")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"\n  \[retry\]       in \d+\.\d s: .*Slow down", done.stdout)
    assert "\n0: hi\n" in done.stdout


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("THINNEST_AGENT_ID", "ag_unknown", "agent"),
        ("THINNEST_API_KEY", "ak_of_somebody_else", "authentication"),
        ("THINNEST_API_KEY", "ak_with a space", "thinnest_api_key"),
        ("THINNEST_BASE_URL", "http://thinnest.example", "base_url"),
    ],
)
def test_what_goes_wrong_is_said_clearly(
    live: ThinnestEmulator,
    run: Any,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    says: str,
) -> None:
    monkeypatch.setenv(name, value)
    done = run("hi")
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert says in said.partition("\n\n")[2] + done.stderr
    assert "Traceback" not in said
    assert os.environ["THINNEST_API_KEY"] not in said


def test_what_to_install_is_said(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra is missing: a stand-in for one of its packages says so as Python would."""
    absent = "raise ModuleNotFoundError('No module named uvicorn', name='uvicorn')"
    (tmp_path / "uvicorn.py").write_text(absent)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    done = run()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "The emulator needs uvicorn, which is not installed: "
        'pip install "langchain-thinnest[emulator]"\n'
    )


# --- on a terminal ---


class Terminal:
    """The demo on a pseudo-terminal; each wait is for a text that comes after the last."""

    def __init__(self, *arguments: str) -> None:
        self._end, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        self.said = ""
        self._seen = 0

    def wait_for(self, text: str | None) -> str:
        """Read until the text has come, or without one until the end; give what came."""
        deadline = time.monotonic() + 30
        while text is None or text not in self.said[self._seen :]:
            ready, _, _ = select.select([self._end], [], [], deadline - time.monotonic())
            assert ready, f"{text!r} did not come; this did: {self.said!r}"
            try:
                data = os.read(self._end, 65536)
            except OSError:  # as Linux says that nobody is at the other end
                data = b""
            if not data:
                assert text is None, f"{text!r} did not come; this did: {self.said!r}"
                break
            self.said += data.decode(errors="replace").replace("\r\n", "\n")
        start = self._seen
        end = len(self.said) if text is None else self.said.index(text, start) + len(text)
        self._seen = end
        return self.said[start:end]

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._end)


@pytest.fixture
def open_terminal() -> Iterator[Any]:
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a child inherits SIG_IGN
    terminals: list[Terminal] = []

    def open_terminal(*arguments: str) -> Terminal:
        terminals.append(Terminal(*arguments))
        return terminals[-1]

    yield open_terminal
    for terminal in terminals:
        terminal.close()
    signal.signal(signal.SIGINT, before)


PROMPT = "\n> "
CTRL_D = "\x04"


def test_a_chat_begins_with_the_sample_and_remembers(open_terminal: Any) -> None:
    terminal = open_terminal()
    sample = terminal.wait_for("Ctrl+D ends the chat.\n")
    assert f"\n> {SAMPLE}\n" in sample
    assert "[tool result] search_library" in sample
    assert "[usage]" in sample
    terminal.wait_for(PROMPT)
    terminal.type("What is 37 * 42?\n")
    assert "37 * 42 = 1554." in terminal.wait_for("[usage]")
    terminal.wait_for(PROMPT)
    terminal.type("\n")
    terminal.wait_for(PROMPT)
    terminal.type("what did I ask?\n")
    answer = " ".join(terminal.wait_for("[usage]").split())
    assert f"you asked: “{SAMPLE}”; “What is 37 * 42?”." in answer
    terminal.wait_for(PROMPT)
    terminal.type(CTRL_D)
    terminal.wait_for(None)
    assert terminal.process.wait(20) == 0
    assert "Traceback" not in terminal.said


def test_a_question_on_a_terminal_is_no_chat(open_terminal: Any) -> None:
    terminal = open_terminal("What is 37 * 42?")
    assert "37 * 42 = 1554." in terminal.wait_for(None)
    assert terminal.process.wait(20) == 0


def test_a_chat_with_the_service_is_one_session(
    live: ThinnestEmulator, open_terminal: Any
) -> None:
    terminal = open_terminal()
    for turn in range(3):
        terminal.wait_for(f"\n{turn}: ")
        terminal.wait_for(PROMPT)
        terminal.type("hi\n")
    terminal.wait_for("\n3: hi\n")
    terminal.wait_for(PROMPT)
    terminal.type(CTRL_D)
    terminal.wait_for(None)
    assert terminal.process.wait(20) == 0
    assert [request["message"] for request in live.requests] == [SAMPLE, "hi", "hi", "hi"]
    assert len({request["session_id"] for request in live.requests}) == 1


def test_a_chat_outlives_an_error(
    live: ThinnestEmulator, open_terminal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THINNEST_AGENT_ID", "ag_later")
    terminal = open_terminal()
    terminal.wait_for("[error]")
    terminal.wait_for(PROMPT)
    live.agents["ag_later"] = lambda message, session: f"Heard {message}."
    terminal.type("you\n")
    terminal.wait_for("Heard you.")
    terminal.wait_for(PROMPT)
    terminal.type(CTRL_D)
    terminal.wait_for(None)
    assert terminal.process.wait(20) == 0


@pytest.mark.parametrize("arguments", [(), ("What are tides?",)])
def test_ctrl_c_ends_an_answer(open_terminal: Any, arguments: Any) -> None:
    terminal = open_terminal(*arguments)
    terminal.wait_for("Let me")
    terminal.process.send_signal(signal.SIGINT)
    rest = terminal.wait_for(None)
    assert terminal.process.wait(20) == 130
    assert "Traceback" not in rest
    assert "[usage]" not in rest, terminal.said


def test_ctrl_c_between_two_pieces_ends_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(io.StringIO):
        def write(self, text: str) -> int:
            if text == " me":
                raise KeyboardInterrupt
            return super().write(text)

    monkeypatch.setattr(sys, "stdout", Interrupted())
    assert main(["What are tides?"]) == 130
    assert sys.stdout.getvalue().endswith("> What are tides?\nLet\n")  # and nothing else


def test_ctrl_c_at_the_prompt_ends_a_chat(live: ThinnestEmulator, open_terminal: Any) -> None:
    terminal = open_terminal()
    terminal.wait_for("Ctrl+D ends the chat.\n")
    terminal.wait_for(PROMPT)
    time.sleep(0.5)  # the prompt is there a little before Python waits for what is typed
    terminal.process.send_signal(signal.SIGINT)
    rest = terminal.wait_for(None)
    assert terminal.process.wait(20) == 0
    assert "Traceback" not in rest
