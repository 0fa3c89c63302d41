"""`python -m langchain_thinnest`: watch an agent answer, in the terminal.

It streams a LangChain pipeline (prompt | ChatThinnest) over real HTTP: text as it comes, tool
calls and results apart from it by a callback handler, usage at the end. With a question, as an
argument or on standard input, it answers that; without one it answers a sample, and on a
terminal that begins a small chat with a session.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from importlib.metadata import version
from typing import Any, cast
from uuid import uuid4

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import LLMResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import ValidationError
from tenacity import RetryCallState

from langchain_thinnest import (
    ChatThinnest,
    ThinnestConnectionError,
    ThinnestError,
    ThinnestTimeoutError,
)
from langchain_thinnest._terminal import editing, piped, silence, typed, write

_PACKAGE = "langchain-thinnest"
_QUESTION = "What are applications of machine learning in 2026?"
_LIVE = "set THINNEST_API_KEY and THINNEST_AGENT_ID to ask the live service"
_SHOWN = 160
_INTERRUPTED = 130  # as a shell says it of a command that Ctrl+C ended
_CLOSED = 141  # and of one whose output nobody reads any more
_UNREACHABLE_AFTER = 2.0  # seconds


class TerminalHandler(BaseCallbackHandler):
    """Prints what the agent's tools do, apart from the text, and the usage at the end."""

    def __init__(self) -> None:
        """Begin at the start of a line."""
        self.at_line_start = True
        self.is_closed = False
        self._is_interrupted = False
        self._is_unreachable = False
        self._dim, self._plain = ("\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "")

    def text(self, text: str) -> None:
        """Print a piece of the answer."""
        if text:
            self._write(text)
            self.at_line_start = text.endswith("\n")

    def note(self, note: str) -> None:
        """Print a line that is no part of the answer."""
        before = "" if self.at_line_start else "\n"
        self._write(f"{before}{self._dim}  {note}{self._plain}\n")
        self.at_line_start = True

    def _write(self, text: str) -> None:
        """Write; a callback's error would be logged, so a closed output is only noted."""
        try:
            write(text)
        except BrokenPipeError:
            self.is_closed = True

    @contextmanager
    def noting_ctrl_c(self) -> Iterator[None]:
        """End the model's run after Ctrl+C: a chain with a parser would read it to its end."""
        try:
            yield
        except KeyboardInterrupt:
            self._is_interrupted = True
            # What a generator raises when it is closed now would look like a fault.
            sys.unraisablehook = lambda _: None
            raise

    def on_llm_new_token(self, *_: Any, **__: Any) -> None:
        """End the model's run after Ctrl+C, in the one way that no generator reports."""
        if self._is_interrupted:
            raise GeneratorExit

    def on_retry(self, retry_state: RetryCallState, **_: Any) -> None:
        """Print why and how long the model waits; of a lost server once, after 2 s."""
        error = retry_state.outcome and retry_state.outcome.exception()
        if isinstance(error, (ThinnestConnectionError, ThinnestTimeoutError)):
            waits = (retry_state.seconds_since_start or 0.0) + retry_state.upcoming_sleep
            if waits >= _UNREACHABLE_AFTER and not self._is_unreachable:
                self._is_unreachable = True
                self.note(f"[retry]       {error} Trying again, for some seconds more.")
            return
        self.note(f"[retry]       in {retry_state.upcoming_sleep:.1f} s: {error}")

    def on_tool_start(self, serialized: dict[str, Any], input_str: str, **kwargs: Any) -> None:
        """Print a tool call."""
        inputs = kwargs.get("inputs")
        shown = input_str if inputs is None else json.dumps(inputs, ensure_ascii=False)
        self.note(f"[tool call]   {serialized['name']} {_short(shown)}")

    def on_tool_end(self, output: Any, **_: Any) -> None:
        """Print a tool's result."""
        self.note(f"[tool result] {output.name} -> {_short(output.text)}")

    def on_tool_error(self, error: BaseException, **_: Any) -> None:
        """Print why a tool has no result."""
        self.note(f"[tool error]  {_short(str(error))}")

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        """Print the usage."""
        message = getattr(response.generations[0][0], "message", None)
        usage = message.usage_metadata if isinstance(message, AIMessage) else None
        if usage:
            self.note(
                f"[usage]       {usage['input_tokens']} tokens in, "
                f"{usage['output_tokens']} out, {usage['total_tokens']} in all"
            )


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def main(argv: Sequence[str] | None = None) -> int:
    """Answer a question, or chat.

    Returns:
        The exit status: 1 if the agent gave no whole answer, 130 after Ctrl+C.
    """
    parser = argparse.ArgumentParser(
        prog="python -m langchain_thinnest",
        description="Stream an agent's answer, with what its tools do, through LangChain.",
        epilog=f"It asks an emulator on this machine; {_LIVE}.",
    )
    parser.add_argument("question", nargs="*", help="without one: a sample, then a chat")
    parser.add_argument(
        "--version", action="version", version=f"langchain-thinnest {version(_PACKAGE)}"
    )
    question = " ".join(parser.parse_args(argv).question)
    try:
        with ExitStack() as stack:
            model = _live() or _emulated(stack)
            if question or not _is_terminal():
                return _ask(model, question or piped() or _QUESTION, session_id=None)
            return _chat(model)
    except KeyboardInterrupt:
        print()
        return _INTERRUPTED
    except BrokenPipeError:
        silence()
        return _CLOSED


def _is_terminal() -> bool:
    return all(file is not None and file.isatty() for file in (sys.stdin, sys.stdout))


def _live() -> ChatThinnest | None:
    agent_id = os.environ.get("THINNEST_AGENT_ID")
    if not agent_id or not (
        os.environ.get("THINNEST_API_KEY") or os.environ.get("THINNESTAI_API_KEY")
    ):
        return None
    try:
        model = ChatThinnest(agent_id=agent_id)
    except ValidationError as error:  # which does not show the key
        raise SystemExit(f"The environment's settings are wrong: {error}") from None
    print(f"Asking {agent_id} at {model.base_url}.\n")
    return model


def _emulated(stack: ExitStack) -> ChatThinnest:
    try:
        from langchain_thinnest.emulator import ThinnestEmulator, demo_agent
    except ImportError as error:  # which says what to install
        raise SystemExit(str(error)) from None

    def paced(message: str, session: Any) -> Iterator[Any]:
        """The demo agent, as slow as a model: ten times slower where its tools work."""
        for item in demo_agent(message, session):
            time.sleep(0.02 if isinstance(item, str) else 0.2)
            yield item

    emulator = stack.enter_context(ThinnestEmulator({"ag_demo": paced}))
    print(f"Asking the emulator on this machine ({_LIVE}).\n")
    return ChatThinnest(
        agent_id="ag_demo", api_key=emulator.api_key, base_url=emulator.base_url
    )


def _ask(model: ChatThinnest, question: str, session_id: str | None) -> int:
    print(f"> {question}")
    return _answer(model, question, session_id)


def _answer(model: ChatThinnest, question: str, session_id: str | None) -> int:
    prompt = ChatPromptTemplate([("human", "{question}")])
    chain: Runnable[dict[str, str], str] = prompt | model | StrOutputParser()
    terminal = TerminalHandler()
    config: RunnableConfig = {
        "callbacks": [terminal],
        "configurable": {"session_id": session_id},
    }
    texts = cast("Generator[str, None, None]", chain.stream({"question": question}, config))
    try:
        with closing(texts), terminal.noting_ctrl_c():
            for text in texts:
                terminal.text(text)
                if terminal.is_closed:
                    raise KeyboardInterrupt
    except ThinnestError as error:
        terminal.note(f"[error]       {error}")
        return 1
    except KeyboardInterrupt:
        if terminal.is_closed:
            raise BrokenPipeError from None
        raise
    return 0


def _chat(model: ChatThinnest) -> int:
    session_id = f"terminal-{uuid4().hex}"
    status = _turn(model, _QUESTION, session_id, shows_question=True)
    with editing():
        print("\nNow ask what you like; the agent remembers. Ctrl+C ends an answer, ", end="")
        print("Ctrl+D ends the chat.\n")
        while (question := typed("> ")) is not None:
            if question:
                status = _turn(model, question, session_id)
    print()
    return status


def _turn(
    model: ChatThinnest, question: str, session_id: str, *, shows_question: bool = False
) -> int:
    """One question of a chat, which Ctrl+C ends alone."""
    try:
        return (_ask if shows_question else _answer)(model, question, session_id)
    except KeyboardInterrupt:
        print("\n  [ended]       The agent may have acted all the same.")
        return 0


if __name__ == "__main__":
    sys.exit(main())
