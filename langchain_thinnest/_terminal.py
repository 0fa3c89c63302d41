"""Lines typed at a terminal, a question on standard input, and an output that closes.

What the terminal chat needs of the operating system. It knows nothing of LangChain.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Iterator

_PASTE_PAUSE = 0.05  # seconds that may lie between two lines of a pasted text
_TOO_LATE = 0.5  # seconds after a prompt: as long as it takes somebody to notice an end
_SILENCE = 5.0  # seconds without a byte after which nobody is expected to ask by a pipe
_NOTE_AFTER = 1.0  # seconds
_PASTE_ON, _PASTE_OFF = "\033[?2004h", "\033[?2004l"


@contextlib.contextmanager
def editing() -> Iterator[None]:
    """Let lines be edited and called back, where Python has readline.

    Readline takes keys as they come. In between, the terminal must not gather lines either:
    it cuts them at 4,096 characters. GNU readline also takes a pasted text of several lines
    as one, if the terminal says where it begins and ends.
    """
    try:
        import readline
        import termios
    except ImportError:
        yield
        return
    takes_pastes = (
        "GNU" in (readline.__doc__ or "") and os.environ.get("TERM", "dumb") != "dumb"
    )
    # Before the prompt there is to be nothing but the prompt.
    readline.parse_and_bind("set enable-meta-key off")
    readline.parse_and_bind("set enable-bracketed-paste off")  # for each prompt; here: once
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    mode = termios.tcgetattr(fd)
    mode[3] &= ~termios.ICANON
    mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
    try:
        termios.tcsetattr(fd, termios.TCSADRAIN, mode)
        if takes_pastes:
            write(_PASTE_ON)
        yield
    finally:
        if takes_pastes:
            write(_PASTE_OFF)
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def typed(prompt: str) -> str | None:
    """Read what is typed: a line, or all lines of a pasted text; `None` at the end.

    Ctrl+C takes back what stands on the line; on an empty one it is the end, unless it was
    meant for the answer that ended a moment ago.
    """
    while True:
        began = time.monotonic()
        try:
            lines = [input(prompt)]
            while _comes(_PASTE_PAUSE):
                lines.append(input())
        except EOFError:
            return None
        except KeyboardInterrupt:
            if not _line() and time.monotonic() - began > _TOO_LATE:
                return None
            print()
        else:
            return "\n".join(lines).strip()


def _line() -> str:
    """What stands on the line that is being typed, as far as that is known."""
    try:
        import readline
    except ImportError:
        return ""
    return readline.get_line_buffer()


def piped() -> str:
    """Read a question from standard input, where it is not a terminal; empty if there is none.

    A pipe that nobody writes to, and nobody closes, is not waited for.
    """
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        return ""
    if not _comes(_NOTE_AFTER):
        print("Waiting for a question on standard input.", file=sys.stderr, flush=True)
        if not _comes(_SILENCE):
            return ""
    data: bytes = sys.stdin.buffer.read()
    return data.decode(errors="replace").strip()


def _comes(seconds: float) -> bool:
    """Whether standard input has something to read, or ends, within some seconds."""
    try:
        ready, _, _ = select.select([sys.stdin], [], [], seconds)
    except (OSError, ValueError):  # not a file that can be waited for, as on Windows
        return not sys.stdin.isatty()
    return bool(ready)


def write(text: str) -> None:
    """Write to standard output at once.

    Raises:
        BrokenPipeError: If nobody reads it any more. From then on it goes nowhere.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        silence()
        raise


def silence() -> None:
    """Let further output go nowhere, so that the interpreter's exit does not fail on it."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
