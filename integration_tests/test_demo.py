"""The demo, as somebody types it: `python -m langchain_thinnest`."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from integration_tests.conftest import KEY
from integration_tests.warm import Cold, Warm, warmed_up
from langchain_thinnest.__main__ import main
from langchain_thinnest.emulator import Fault, ThinnestEmulator

DEMO = ["-m", "langchain_thinnest"]
COMMAND = [sys.executable, *DEMO]
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


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm | Cold]:
    modules = ("chat_models", "emulator", "_terminal")
    python = warmed_up(
        *(f"langchain_thinnest.{module}" for module in modules),
        "langchain_core.output_parsers",
        "langchain_core.prompts",
        "httpx",
        "anyio._backends._asyncio",
        "uvicorn.protocols.http.h11_impl",
    )
    yield python
    python.close()


@pytest.fixture
def run(warm: Warm, tmp_path: Path) -> Any:
    """Runs the demo in an empty directory, without a terminal."""

    def run(*arguments: str, stdin: int | None = None) -> Any:
        return warm.run([*DEMO, *arguments], cwd=tmp_path, stdin=stdin)

    return run


@pytest.fixture
def run_cold(tmp_path: Path) -> Any:
    """The same in a process that begins with nothing, as a user's does."""

    def run(*arguments: str) -> Any:
        return Cold().run([*DEMO, *arguments], cwd=tmp_path)

    return run


# --- without a terminal ---


def test_a_question_is_answered(run_cold: Any, tmp_path: Path) -> None:
    done = run_cold("What is", "37 * 42?")
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


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        (b"What is 37 * 42?\n", "What is 37 * 42?"),
        (b"  two\nlines \n\n", "two\nlines"),
        ("Grüße".encode(), "Grüße"),
        (b"\xff!", "\ufffd!"),
        (b"x" * 10_000, "x" * 10_000),
        (b"", SAMPLE),
        (b" \n", SAMPLE),
    ],
)
def test_a_question_on_standard_input(
    live: ThinnestEmulator, run: Any, given: bytes, asked: str
) -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, given)
    os.close(write_end)
    done = run(stdin=read_end)
    os.close(read_end)
    assert (done.returncode, done.stderr) == (0, "")
    assert [request["message"] for request in live.requests] == [asked]


@pytest.fixture
def silent_pipe() -> Iterator[int]:
    """Says nothing, and stays open."""
    read_end, write_end = os.pipe()
    yield read_end
    os.close(write_end)
    os.close(read_end)


def test_an_argument_counts_more_than_standard_input(
    live: ThinnestEmulator, run: Any, silent_pipe: int
) -> None:
    done = run("hi", stdin=silent_pipe)
    assert (done.returncode, done.stderr) == (0, "")
    assert live.requests[0]["message"] == "hi"


def test_a_pipe_that_says_nothing_is_not_waited_for(
    live: ThinnestEmulator, run: Any, silent_pipe: int
) -> None:
    done = run(stdin=silent_pipe)
    assert done.returncode == 0
    assert done.stderr == "Waiting for a question on standard input.\n"
    assert live.requests[0]["message"] == SAMPLE


@pytest.mark.parametrize("after", ["head -1", "head -3", "head -c 150", "true", "head -n 100"])
def test_an_output_that_is_closed(warm: Warm, after: str) -> None:
    python = Cold() if after == "head -1" else warm
    with subprocess.Popen(
        ["/bin/sh", "-c", after], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as reader:
        assert reader.stdin is not None
        with reader.stdin as end:
            process = python.start([*DEMO, "What are tides?"], stdout=end.fileno())
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (0 if "100" in after else 141, "")


def test_the_version(run: Any) -> None:
    done = run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"langchain-thinnest {version('langchain-thinnest')}\n"


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
    run_cold: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra is missing: a stand-in for one of its packages says so as Python would."""
    absent = "raise ModuleNotFoundError('No module named uvicorn', name='uvicorn')"
    (tmp_path / "uvicorn.py").write_text(absent)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    done = run_cold()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "The emulator needs uvicorn, which is not installed: "
        'pip install "langchain-thinnest[emulator]"\n'
    )


QUESTIONS = [
    "What is 2^10?",
    'What\'s "this"?',
    "a $(touch pwned) b `touch pwned` c; touch pwned # d",
    "$HOME $$ ${PATH} $(HOME) %s 100% \\n \\ 'x",
    "--help",
    "Grüße & <tags> | more",
    "two\nlines",
]


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("how", ["argument", "environment"])
def test_make_takes_a_question_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, question: str, how: str
) -> None:
    """Neither make nor a shell reads what is in it. In place of Python: what it is given."""
    shutil.copy(Path(__file__).parents[1] / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nprintf '<%s>' \"$@\"\n")
    python.chmod(0o755)
    (tmp_path / ".venv" / "demo").touch()
    command = ["make", "--no-print-directory", "demo"]
    if how == "argument":
        command.append(f"QUESTION={question}")
    else:
        monkeypatch.setenv("QUESTION", question)
    done = subprocess.run(
        command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"<-m><langchain_thinnest><--><{question}>"
    assert not (tmp_path / "pwned").exists()


# --- on a terminal ---


class Terminal:
    """The demo on a pseudo-terminal; each wait is for a text that comes after the last."""

    def __init__(self, start: Any) -> None:
        self._end, theirs = pty.openpty()
        self.process = start(theirs)
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
        """Type, no faster than it is taken, and read what is echoed meanwhile."""
        data = text.encode()
        while data:
            ready, writable, _ = select.select([self._end], [self._end], [], 30)
            assert ready or writable, "nobody takes what is typed"
            if ready:
                self.said += os.read(self._end, 65536).decode(errors="replace")
                self.said = self.said.replace("\r\n", "\n")
            elif writable:
                data = data[os.write(self._end, data[:1000]) :]

    def mode(self) -> list[Any]:
        return termios.tcgetattr(self._end)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(20)
        os.close(self._end)


@pytest.fixture
def open_terminal(warm: Warm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    # A child inherits SIG_IGN.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    terminals: list[Terminal] = []

    def open_terminal(
        *arguments: str, term: str = "xterm-256color", is_cold: bool = False
    ) -> Terminal:
        monkeypatch.setenv("TERM", term)

        def start(terminal: int) -> Any:
            if not is_cold:
                return warm.start([*DEMO, *arguments], terminal=terminal)
            return subprocess.Popen(
                [*COMMAND, *arguments],
                stdin=terminal,
                stdout=terminal,
                stderr=terminal,
                start_new_session=True,
                # So that keys signal.
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
            )

        terminals.append(Terminal(start))
        return terminals[-1]

    yield open_terminal
    for terminal in terminals:
        terminal.close()
    signal.signal(signal.SIGINT, before)


PROMPT = "\n> "
CTRL_C, CTRL_D = "\x03", "\x04"
TERMS = ["xterm-256color", "dumb"]


def begins(terminal: Terminal) -> str:
    """Wait for a chat's first prompt; give all that came before."""
    return str(terminal.wait_for("Ctrl+D ends the chat.\n") + terminal.wait_for(PROMPT))


def ends(terminal: Terminal) -> None:
    """End a chat, whose prompt is there."""
    terminal.type(CTRL_D)
    terminal.wait_for(None)
    assert terminal.process.wait(20) == 0
    assert "Traceback" not in terminal.said


def test_a_chat_begins_with_the_sample_and_remembers(open_terminal: Any) -> None:
    terminal = open_terminal(is_cold=True)
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


def test_ctrl_c_ends_the_answer_to_a_question(open_terminal: Any) -> None:
    terminal = open_terminal("What are tides?")
    terminal.wait_for("Let me")
    terminal.process.send_signal(signal.SIGINT)
    rest = terminal.wait_for(None)
    assert terminal.process.wait(20) == 130
    assert "Traceback" not in rest
    assert "[usage]" not in rest, terminal.said


def test_ctrl_c_ends_an_answer_and_not_the_chat(open_terminal: Any) -> None:
    terminal = open_terminal()
    terminal.wait_for("Let me")
    terminal.type(CTRL_C)
    assert "[usage]" not in terminal.wait_for("[ended]")
    terminal.wait_for(PROMPT)
    for _ in range(2):
        terminal.type("What are tides?\n")
        terminal.wait_for("Let me")
        terminal.type(CTRL_C)
        assert "[usage]" not in terminal.wait_for("[ended]")
        terminal.wait_for(PROMPT)
    terminal.type("What is 37 * 42?\n")
    assert "37 * 42 = 1554." in terminal.wait_for("[usage]")
    ends(terminal)


@pytest.mark.parametrize("term", TERMS)
def test_lines_are_edited_and_called_back(
    live: ThinnestEmulator, open_terminal: Any, term: str
) -> None:
    terminal = open_terminal(term=term)
    begins(terminal)
    for keys, turn in [
        ("hallo\x1b[D\x1b[D\x1b[D\x1b[D\x7fH\n", 1),  # back to the h, which goes
        ("Grüße 我\n", 2),
        ("\x1b[A\x1b[A you\n", 3),  # up, up: the first
    ]:
        terminal.type(keys)
        terminal.wait_for(f"\n{turn}: ")
        terminal.wait_for(PROMPT)
    ends(terminal)
    asked = [request["message"] for request in live.requests]
    assert asked == [SAMPLE, "Hallo", "Grüße 我", "Hallo you"]


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("size", [5_000, 100_000])
def test_a_long_line_is_not_cut(
    live: ThinnestEmulator, open_terminal: Any, term: str, size: int
) -> None:
    text = "".join(f"{number} " for number in range(size))[:size].strip()
    terminal = open_terminal(term=term)
    begins(terminal)
    terminal.type(text + "\n")
    terminal.wait_for("[usage]")
    terminal.wait_for(PROMPT)
    ends(terminal)
    assert [request["message"] for request in live.requests] == [SAMPLE, text]


PASTED = "first\n\n  second, of " + "many words, " * 1000 + "\nthird"


@pytest.mark.alone  # between two lines of a pasted text there are 0.05 s at most
@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("is_marked", [True, False])
def test_a_pasted_text_is_one_message(
    live: ThinnestEmulator, open_terminal: Any, term: str, is_marked: bool
) -> None:
    """With a terminal that says where it begins and ends, and with one that does not."""
    if is_marked and term == "dumb":
        pytest.skip("a terminal that marks pastes is not dumb")
    terminal = open_terminal(term=term)
    said = begins(terminal)
    assert ("\x1b[?2004h" in said) is (term != "dumb")
    terminal.type(f"\x1b[200~{PASTED}\x1b[201~\n" if is_marked else f"{PASTED}\n")
    terminal.wait_for("\n1: first")
    terminal.wait_for("[usage]")
    terminal.wait_for(PROMPT)
    ends(terminal)
    assert [request["message"] for request in live.requests] == [SAMPLE, PASTED]


def test_a_chat_without_readline(
    live: ThinnestEmulator, open_terminal: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "readline.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    terminal = open_terminal(is_cold=True)
    begins(terminal)
    terminal.type("one\ntwo\n")
    terminal.wait_for("\n1: one\ntwo")
    terminal.wait_for(PROMPT)
    ends(terminal)


def test_what_is_typed_during_an_answer_is_asked_next(
    live: ThinnestEmulator, open_terminal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THINNEST_AGENT_ID", "ag_slow")

    def slow(message: str, session: Any) -> Any:
        yield "Well, "
        time.sleep(1.0)
        yield "yes."

    live.agents["ag_slow"] = slow
    terminal = open_terminal()
    terminal.wait_for("Well, yes.")
    terminal.wait_for(PROMPT)
    terminal.type("once\n")
    terminal.wait_for("Well, ")
    following = "and then, " * 1000 + "what?"  # more than a terminal's line holds
    terminal.type(f"{following}\n")
    terminal.wait_for("[usage]")
    terminal.wait_for("Well, yes.")
    terminal.wait_for(PROMPT)
    ends(terminal)
    asked = [request["message"] for request in live.requests]
    assert asked == [SAMPLE, "once", following]


def test_the_terminal_is_left_as_it_was(open_terminal: Any) -> None:
    terminal = open_terminal()
    before = terminal.mode()
    begins(terminal)
    assert not terminal.mode()[3] & termios.ICANON
    terminal.type(CTRL_D)
    terminal.process.wait(20)
    assert terminal.mode() == before
    assert terminal.wait_for(None).count("\x1b[?2004l") == 1


def test_an_address_that_cannot_be_reached_is_told_once(
    live: ThinnestEmulator, open_terminal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THINNEST_BASE_URL", "http://127.0.0.1:9")
    terminal = open_terminal("hi")
    told = terminal.wait_for("Trying again")
    assert "Could not connect to http://127.0.0.1:9" in told
    assert told.count("[retry]") == 1
    terminal.process.send_signal(signal.SIGINT)
    assert "[retry]" not in terminal.wait_for(None)
    assert terminal.process.wait(20) == 130


def test_ctrl_c_between_two_pieces_ends_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(io.StringIO):
        def write(self, text: str) -> int:
            if text == " me":
                raise KeyboardInterrupt
            return super().write(text)

    monkeypatch.setattr(sys, "stdout", Interrupted())
    assert main(["What are tides?"]) == 130
    assert sys.stdout.getvalue().endswith("> What are tides?\nLet\n")  # and nothing else


@pytest.mark.alone  # the second Ctrl+C comes within 0.5 s
def test_ctrl_c_takes_back_a_line(live: ThinnestEmulator, open_terminal: Any) -> None:
    terminal = open_terminal()
    begins(terminal)
    terminal.type("half a que")
    terminal.wait_for("half a que")
    time.sleep(1.0)
    for _ in range(2):  # the second one comes soon, and is meant for the first line
        terminal.type(CTRL_C)
        terminal.wait_for(PROMPT)
        time.sleep(0.05)  # readline misses a signal between its prompt and its first wait
    terminal.type("whole\n")
    terminal.wait_for("\n1: whole")
    terminal.wait_for(PROMPT)
    ends(terminal)


def test_ctrl_c_at_the_prompt_ends_a_chat(live: ThinnestEmulator, open_terminal: Any) -> None:
    terminal = open_terminal()
    terminal.wait_for("Ctrl+D ends the chat.\n")
    terminal.wait_for(PROMPT)
    time.sleep(1.0)  # the prompt is there a little before Python waits for what is typed
    terminal.process.send_signal(signal.SIGINT)
    rest = terminal.wait_for(None)
    assert terminal.process.wait(20) == 0
    assert "Traceback" not in rest
