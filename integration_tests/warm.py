"""Processes that begin with the framework's imports done, which take a second otherwise.

A server process imports once and forks for each command: `python -m module ...` or
`python -c code ...`, with the standard streams, the environment and the folder that a test
gives. The command runs as `__main__`, and its interpreter ends as it always does. How the
package is imported is not for these processes to test.

    python -m integration_tests.warm 3 langchain_thinnest.chat_models
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_HEAD = struct.Struct("!I")


class Process:
    """A command that runs; of `subprocess.Popen`, what the tests use."""

    def __init__(
        self, status: int, stdout: io.TextIOWrapper | None, stderr: io.TextIOWrapper | None
    ) -> None:
        self.stdin, self.stdout, self.stderr = None, stdout, stderr
        self.returncode: int | None = None
        self._status = os.fdopen(status, "rb", buffering=0)
        self.pid = int(self._status.readline())

    def poll(self) -> int | None:
        return self._wait(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, or minus the number of the signal that killed it."""
        status = self._wait(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return status

    def _wait(self, timeout: float | None) -> int | None:
        if self.returncode is None and self._has_ended(timeout):
            self.returncode = os.waitstatus_to_exitcode(int(self._status.readline()))
            self._status.close()
        return self.returncode

    def _has_ended(self, timeout: float | None) -> bool:
        poll = select.poll()  # `select` fails above descriptor 1023
        poll.register(self._status, select.POLLIN)
        return bool(poll.poll(None if timeout is None else timeout * 1000))

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float) -> tuple[Any, Any]:
        """Read to the ends of its outputs, and wait; kill it if that takes too long."""
        said: dict[Any, str] = {}

        def read(stream: Any) -> None:
            with stream:
                said[stream] = stream.read()

        readers = [
            threading.Thread(target=read, args=(stream,), daemon=True)
            for stream in (self.stdout, self.stderr)
            if stream is not None
        ]
        for reader in readers:
            reader.start()
        give_up = time.monotonic() + timeout
        for reader in readers:
            reader.join(max(0.0, give_up - time.monotonic()))
        try:
            self.wait(max(0.0, give_up - time.monotonic()))
        finally:
            self.kill()
        return said.get(self.stdout), said.get(self.stderr)


class Warm:
    """The server process. It ends with `close`, or with the process that began it."""

    def __init__(self, *modules: str, flags: Sequence[str] = ()) -> None:
        """Begin it; it imports the modules that there are."""
        self._control, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, *flags, "-m", "integration_tests.warm"]
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), *modules],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def close(self) -> None:
        self._control.close()
        self._process.wait(30)

    def start(
        self,
        arguments: Sequence[str],
        *,
        cwd: str | Path = ROOT,
        stdin: int | None = None,
        stdout: int | None = None,
        terminal: int | None = None,
    ) -> Process:
        """Begin a command: what stands behind `python`.

        Args:
            arguments: `-m module ...` or `-c code ...`.
            cwd: Where it runs.
            stdin: The descriptor of its input, which is empty by default.
            stdout: The descriptor of its output; by default a pipe, as stderr is.
            terminal: The descriptor of a terminal, which is all three then. Its keys signal.
        """
        status, its_status = os.pipe()
        ends: list[io.TextIOWrapper | None] = [None, None]
        streams, made = [terminal] * 3, [its_status]
        if terminal is None:
            streams = [stdin, stdout, None]
            if stdin is None:
                streams[0] = os.open(os.devnull, os.O_RDONLY)
                made.append(streams[0])
            for number in (1, 2):
                if streams[number] is None:
                    end, streams[number] = os.pipe()
                    ends[number - 1] = os.fdopen(end, encoding="utf-8")
                    made.append(streams[number])
        asked = json.dumps(
            {
                "arguments": list(arguments),
                "cwd": str(cwd),
                "environment": dict(os.environ),
                "has_terminal": terminal is not None,
            }
        ).encode()
        socket.send_fds(self._control, [_HEAD.pack(len(asked))], [*streams, its_status])
        self._control.sendall(asked)
        for fd in made:
            os.close(fd)
        return Process(status, *ends)

    def run(
        self, arguments: Sequence[str], *, cwd: str | Path = ROOT, stdin: int | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; see `start`."""
        process = self.start(arguments, cwd=cwd, stdin=stdin)
        said = process.communicate(60)
        return subprocess.CompletedProcess(list(arguments), process.wait(0), *said)


class Cold:
    """The same, with processes that begin with nothing: where that is to be tested."""

    def __init__(self, *flags: str) -> None:
        self._command = [sys.executable, *flags]

    def close(self) -> None:
        pass

    def start(
        self,
        arguments: Sequence[str],
        *,
        cwd: str | Path = ROOT,
        stdin: int | None = None,
        stdout: int | None = None,
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self._command, *arguments],
            cwd=cwd,
            env={"PYTHONPATH": str(ROOT), **os.environ},
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )

    def run(
        self, arguments: Sequence[str], *, cwd: str | Path = ROOT, stdin: int | None = None
    ) -> subprocess.CompletedProcess[str]:
        with self.start(arguments, cwd=cwd, stdin=stdin) as process:
            try:
                said = process.communicate(timeout=60)
            finally:
                process.kill()
        return subprocess.CompletedProcess(list(arguments), process.wait(0), *said)


def warmed_up(*modules: str, flags: Sequence[str] = ()) -> Warm | Cold:
    """A server process, where the system can fork."""
    return Warm(*modules, flags=flags) if hasattr(os, "fork") else Cold(*flags)


# --- the server ---


def _serve(control: socket.socket) -> Callable[[], None] | None:
    """Fork for each command. In the child, give what it is to do."""
    while True:
        head, fds, _, _ = socket.recv_fds(control, _HEAD.size, 4)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not head:
            return None
        (left,) = _HEAD.unpack(head)
        asked = b""
        while len(asked) < left:
            asked += control.recv(left - len(asked))
        if not os.fork():
            return _begin(json.loads(asked), fds)
        for fd in fds:
            os.close(fd)


def _begin(asked: dict[str, Any], fds: list[int]) -> Callable[[], None]:
    """Fork again: the child does it, and this process tells how that ended."""
    *streams, status = fds
    pid = os.fork()
    if pid:
        for fd in streams:
            os.close(fd)
        os.write(status, b"%d\n" % pid)
        os.write(status, b"%d\n" % os.waitpid(pid, 0)[1])
        os._exit(0)
    os.close(status)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if asked["has_terminal"]:
        os.setsid()
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
        os.close(fd)
    if asked["has_terminal"]:
        import fcntl
        import termios

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    _open_streams()
    return lambda: _run(*asked["arguments"])


def _open_streams() -> None:
    """As Python itself opens them."""
    through = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    for number, name in ((1, "stdout"), (2, "stderr")):
        raw = open(number, "wb", closefd=False)  # noqa: SIM115
        stream = io.TextIOWrapper(
            raw,
            encoding="utf-8",
            errors="backslashreplace" if name == "stderr" else "strict",
            line_buffering=name == "stderr" or os.isatty(number),
            write_through=through,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _run(kind: str, name: str, *arguments: str) -> None:
    sys.path[0] = str(Path.cwd()) if kind == "-m" else ""
    if kind == "-m":
        sys.argv = [name, *arguments]
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    else:
        sys.argv = ["-c", *arguments]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(name, "<string>", "exec"), main.__dict__)


def _main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    for module in sys.argv[2:]:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    gc.collect()
    gc.freeze()  # what is shared stays shared
    with control:
        run = _serve(control)
    if run is not None:
        run()


if __name__ == "__main__":
    _main()
