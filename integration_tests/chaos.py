"""A server that fails in every way it can, and callers that must see just what happened.

Each turn draws a fault. Its message names the turn, and everything about the turn (the
answer, the fault, where the bytes are cut, what the caller must see) follows from the seed
and that name: the server, a process of its own, and the callers, threads and event loops,
work it out alike. Every piece of an answer holds the turn's name, so that a piece that
reaches another caller shows.

    python -m integration_tests.chaos --turns 20000 --seed 7

This is no test; `test_chaos.py` runs it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import gc
import itertools
import json
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import anyio
import httpx
from langchain_core._api.beta_decorator import LangChainBetaWarning
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessageChunk

from integration_tests.wire import END, Close, Reset, Step, Wait, chunk, head, refusal
from langchain_thinnest import (
    ChatThinnest,
    ThinnestAuthenticationError,
    ThinnestBalanceError,
    ThinnestConnectionError,
    ThinnestError,
    ThinnestGenerationError,
    ThinnestInterruptedError,
    ThinnestNotFoundError,
    ThinnestPermissionError,
    ThinnestProtocolError,
    ThinnestRateLimitError,
    ThinnestRequestError,
    ThinnestServerError,
    ThinnestStreamError,
    ThinnestTimeoutError,
)

MAX_EVENT_BYTES = 4096
MAX_RETRIES = 2
FOREVER = Wait(30.0)  # longer than any client waits
IMPATIENT, PATIENT = 1.0, 30.0  # seconds of a read; the machine is busy
SYNC_LANES, ASYNC_LANES, TASKS = 6, 2, 10
MOST_IDLE = 20  # connections that wait for the next call
TURNS_PER_LOOP = 200
_TEXTS = ["Grüße ", "\u2028", "\x85\n", '"}\n\n', "data: {", "\U0001f600", "\\", "\r", "."]
_TOOLS = ["search", "read", "do it"]
_GARBAGE = [b"nonsense", b"[1, 2]", b"null", b'{"type": "text", "content": 7}', b"{]}"]
_KINDS = ["text/event-stream", "text/event-stream; charset=utf-8", "Text/Event-Stream", None]


class Turn:
    """One message, what the server does about it, and what the caller must see.

    Attributes:
        scripts: What the server does to the first request for it, the second, and so on.
        acts: For each of them, whether the agent took the message.
        error: The class of error to be seen, or `None` for a whole answer.
        partial: With an error of the stream: the text that came before.
        is_exact: Nothing of `partial` can be lost on the way.
        may_be_whole: The whole answer came before the fault: it may have been seen in time.
    """

    def __init__(self, seed: int, number: int) -> None:
        self.rng = random.Random(f"{seed}/{number}")
        self.name = f"{seed}-{number}"
        self.message = f"<{self.name}> \u2028Grüße,\r\n Welt"
        self.session = f"s{self.name}" if self.rng.random() < 0.3 else None
        self.key = f"ak_chaos_{self.rng.randrange(8)}"
        self.usage = {"input_tokens": number, "output_tokens": 2, "total_tokens": number + 2}
        self.events = [*self._answer(), {"type": "done", "usage": self.usage}]
        self.text = text_of(self.events)
        self.line_end = self.rng.choice([b"\n", b"\n", b"\r\n", b"\r"])
        self.is_printed = self.rng.random() < 0.5  # no blank lines, as on the vendor's page
        self.error: type[ThinnestError] | None = None
        self.partial = ""
        self.is_exact = True
        self.may_be_whole = False
        self.read_timeout = PATIENT
        self.is_reachable = True
        self.breaks_the_next = False
        self.fault = self.rng.choices(list(FAULTS), WEIGHTS)[0]
        self.scripts: list[list[Step]] = []
        self.acts: list[bool] = []
        FAULTS[self.fault](self)

    def _answer(self) -> Iterator[dict[str, Any]]:
        for number in range(self.rng.choice([0, 1, 2, 5, 5, 10])):
            some = "".join(self.rng.choices(_TEXTS, k=self.rng.randrange(4)))
            kind = self.rng.choice(["text"] * 8 + ["token", "content"])
            yield {"type": kind, "content": f"<{self.name}.{number}>{some}"}
            if self.rng.random() < 0.25:
                yield from self._tool(number)

    def _tool(self, number: int) -> Iterator[dict[str, Any]]:
        name = self.rng.choice(_TOOLS)
        id_ = {"id": f"call-{self.name}-{number}"} if self.rng.random() < 0.3 else {}
        result = self.rng.choice([f"<{self.name}>", {"of": [self.name]}])
        if self.rng.random() < 0.95:
            yield {"type": "tool_call", "name": name, "args": {"of": self.name}, **id_}
        if self.rng.random() < 0.9:
            yield {"type": "tool_result", "name": name, "result": result, **id_}

    # --- what the server does ---

    def expect(
        self,
        error: type[ThinnestError] | None,
        partial: str = "",
        *,
        is_exact: bool = True,
        may_be_whole: bool = False,
    ) -> None:
        self.error, self.partial = error, partial
        self.is_exact, self.may_be_whole = is_exact, may_be_whole

    def acted(self, *steps: Step) -> None:
        """The agent takes the message, and the server does this."""
        self.scripts.append(list(steps))
        self.acts.append(True)

    def refused(self, *steps: Step) -> None:
        self.scripts.append(list(steps))
        self.acts.append(False)

    def line(self, event: dict[str, Any]) -> bytes:
        """An event as the stream has it, without the line end."""
        is_ascii = self.rng.random() < 0.5
        name = self.rng.choice([b"data: ", b"data: ", b"data:"])
        if self.rng.random() < 0.05:  # one event in many lines
            text = json.dumps(event, ensure_ascii=is_ascii, indent=1)
            return self.line_end.join(name + part.encode() for part in text.split("\n"))
        return name + json.dumps(event, ensure_ascii=is_ascii).encode()

    def body(self, *lines: bytes) -> tuple[bytes, list[int]]:
        """The lines as a body, and where each one ends."""
        body = self.rng.choice([b"", b"", b"\xef\xbb\xbf"])
        ends = []
        for line in lines:
            if self.rng.random() < 0.1:
                aside = self.rng.choice([b": ping", b"event: x", b"id: 1", b"retry: 5", b"x"])
                body += aside + self.line_end
            body += line
            ends.append(len(body))
            body += self.line_end * (1 if self.is_printed else 2)
        if ends and self.rng.random() < 0.5:
            body = body[: ends[-1]]  # the last line ends with the body
        return body, ends

    def whole_body(self) -> tuple[bytes, list[int]]:
        return self.body(*map(self.line, self.events))

    def framed(self, body: bytes, *, more: int = 0, is_whole: bool = True) -> bytes:
        """A response with this body, framed in one of the ways there are."""
        kind = self.rng.choice(_KINDS)
        fields = {"Content-Type": kind} if kind else {}
        if self.rng.random() < 0.3:
            fields["X-RateLimit-Limit"] = "1000000"
            fields["X-RateLimit-Remaining"] = "900000"
            fields["X-RateLimit-Reset"] = str(int(time.time()) + 60)
        if more or self.rng.random() < 0.3:
            return head(200, {**fields, "Content-Length": str(len(body) + more)}) + body
        cuts = sorted(self.rng.randrange(len(body) + 1) for _ in range(3))
        parts = [body[a:b] for a, b in itertools.pairwise([0, *cuts, len(body)])]
        return (
            head(200, {**fields, "Transfer-Encoding": "chunked"})
            + b"".join(chunk(part) for part in parts if part)
            + (END if is_whole else b"")
        )

    def cut(self, data: bytes) -> list[Step]:
        """Writes of these bytes, cut anywhere, sometimes with a breath between them."""
        cuts = sorted(
            self.rng.randrange(len(data) + 1) for _ in range(self.rng.choice([0, 0, 1, 4]))
        )
        steps: list[Step] = []
        for start, end in itertools.pairwise([0, *cuts, len(data)]):
            steps.append(data[start:end])
            if self.rng.random() < 0.2:
                steps.append(Wait(0.002))
        return steps

    def cut_short(self) -> tuple[bytes, int]:
        """A part of the body, and how much is missing; the text in it is what to expect."""
        body, ends = self.whole_body()
        at = self.rng.randrange(ends[-1])
        came = [event for event, end in zip(self.events, ends, strict=True) if end <= at]
        self.expect(ThinnestInterruptedError, text_of(came))
        return body[:at], len(body) - at

    def broken_at_an_event(self, *lines: bytes) -> bytes:
        """The whole body with lines in it that do not belong; what came before is expected."""
        at = self.rng.randrange(len(self.events))
        self.partial = text_of(self.events[:at])
        given = list(map(self.line, self.events))
        return self.body(*given[:at], *lines, *given[at:])[0]


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(event.get("content", "") for event in events)


FAULTS: dict[str, Callable[[Turn], None]] = {}
WEIGHTS: list[float] = []


def fault(weight: float = 1.0) -> Callable[[Callable[[Turn], None]], Callable[[Turn], None]]:
    """Register a fault: how often it is drawn, against 1 for most."""

    def register(make: Callable[[Turn], None]) -> Callable[[Turn], None]:
        FAULTS[make.__name__.strip("_").replace("_", " ")] = make
        WEIGHTS.append(weight)
        return make

    return register


# --- whole answers ---


@fault(25)
def none(turn: Turn) -> None:
    turn.acted(*turn.cut(turn.framed(turn.whole_body()[0])))


@fault(3)
def ends_with_the_connection(turn: Turn) -> None:
    version = turn.rng.choice(["1.0", "1.1"])
    fields = {"Content-Type": "text/event-stream", "Connection": "close"}
    turn.acted(*turn.cut(head(200, fields, version) + turn.whole_body()[0]), Close())


@fault()
def early_hints(turn: Turn) -> None:
    hints = head(turn.rng.choice([100, 103]), {"Link": "</x>"})
    turn.acted(*turn.cut(hints + turn.framed(turn.whole_body()[0])))


@fault(2)
def gzip(turn: Turn) -> None:
    turn.acted(*turn.cut(zipped_response(zipped(turn.whole_body()[0]))))


@fault(2)
def more_after_done(turn: Turn) -> None:
    more = turn.rng.choice(
        [
            turn.line({"type": "text", "content": "too late"}),
            turn.line({"type": "error", "message": "too late"}),
            b"data: [DONE]",
            b"data: nonsense",
            b"data: {",
            b"\x00\xff" * 100,
            b"data: " + b"x" * 2 * MAX_EVENT_BYTES,
        ]
    )
    turn.acted(*turn.cut(turn.framed(turn.body(*map(turn.line, turn.events), more)[0])))


@fault()
def two_done(turn: Turn) -> None:
    other = {"type": "done", "usage": {**turn.usage, "input_tokens": 0}}
    lines = map(turn.line, [*turn.events, other, turn.events[-1]])
    turn.acted(*turn.cut(turn.framed(turn.body(*lines)[0])))


@fault()
def unknown_events(turn: Turn) -> None:
    turn.acted(
        *turn.cut(
            turn.framed(
                turn.broken_at_an_event(
                    turn.line({"type": "thinking", "content": "hm"}), b"data: [DONE]", b"data"
                )
            )
        )
    )
    turn.partial = ""


@fault(0.25)
def never_closes_after_done(turn: Turn) -> None:
    body = turn.whole_body()[0] + turn.line_end
    turn.acted(turn.framed(body, is_whole=False, more=turn.rng.choice([0, 9])), FOREVER)


@fault()
def length_too_long(turn: Turn) -> None:
    turn.acted(*turn.cut(turn.framed(turn.whole_body()[0], more=9)), Close())


@fault()
def closes_after_done(turn: Turn) -> None:
    turn.acted(*turn.cut(turn.framed(turn.whole_body()[0], is_whole=False)), Close())


@fault()
def resets_after_done(turn: Turn) -> None:
    wire = turn.framed(turn.whole_body()[0], is_whole=False)
    turn.expect(ThinnestError, turn.text, is_exact=False, may_be_whole=True)
    turn.acted(wire, Reset())


@fault(0.5)
def closes_an_idle_connection(turn: Turn) -> None:
    """Without having said so: whoever uses it in this very moment is lost."""
    turn.breaks_the_next = True
    turn.acted(turn.framed(turn.whole_body()[0]), Close())


# --- refused ---


def _refuse(status: int, error: type[ThinnestError]) -> Callable[[Turn], None]:
    def refuse(turn: Turn) -> None:
        said = turn.rng.choice([{"detail": turn.name}, turn.name.encode(), {"x": 1}, b""])
        if status == 204:
            said = b""  # bytes after the response would be taken for the next one
        turn.expect(error)
        turn.refused(*turn.cut(b"".join(refusal(status, said))))  # type: ignore[arg-type]

    refuse.__name__ = f"refused_{status}"
    return refuse


for _status, _error in {
    400: ThinnestRequestError,
    401: ThinnestAuthenticationError,
    402: ThinnestBalanceError,
    403: ThinnestPermissionError,
    404: ThinnestNotFoundError,
    418: ThinnestRequestError,
    422: ThinnestRequestError,
    500: ThinnestServerError,
    502: ThinnestServerError,
    503: ThinnestServerError,
    302: ThinnestProtocolError,
    204: ThinnestProtocolError,
}.items():
    fault(0.7)(_refuse(_status, _error))


def _ask_again(turn: Turn, status: int, error: type[ThinnestError]) -> None:
    times = turn.rng.choice([1, 1, 2, MAX_RETRIES + 1])
    headers = {"Retry-After": "0"}
    if turn.rng.random() < 0.5:
        headers["X-RateLimit-Remaining"] = "0"
    for _ in range(times):
        turn.refused(*refusal(status, {"detail": "later"}, headers))
    if times > MAX_RETRIES:
        turn.expect(error)
    else:
        turn.acted(*turn.cut(turn.framed(turn.whole_body()[0])))


@fault()
def _429_retry_after_0(turn: Turn) -> None:
    turn.key = f"ak_{turn.name}"  # a refusal costs nothing while others get through
    _ask_again(turn, 429, ThinnestRateLimitError)


@fault()
def _503_retry_after_0(turn: Turn) -> None:
    _ask_again(turn, 503, ThinnestServerError)


@fault(0.5)
def _429_retry_after_an_hour(turn: Turn) -> None:
    turn.key = f"ak_{turn.name}"  # all calls with the key wait
    turn.expect(ThinnestRateLimitError)
    turn.refused(*refusal(429, {"detail": "later"}, {"Retry-After": "3600"}))


@fault(0.5)
def connection_refused(turn: Turn) -> None:
    turn.is_reachable = False
    turn.expect(ThinnestConnectionError)


# --- no answer ---


@fault()
def resets_before_the_status(turn: Turn) -> None:
    turn.expect(ThinnestConnectionError)
    turn.acted(Reset())


@fault()
def closes_before_the_status(turn: Turn) -> None:
    turn.expect(ThinnestConnectionError)
    turn.acted(Close())


@fault()
def closes_in_the_head(turn: Turn) -> None:
    begin = turn.framed(b"")
    turn.expect(ThinnestConnectionError)
    turn.acted(begin[: turn.rng.randrange(1, begin.index(b"\r\n\r\n"))], Close())


@fault()
def no_http(turn: Turn) -> None:
    turn.expect(ThinnestProtocolError)
    turn.acted(b"220 mail.example ESMTP\r\n\r\n" + turn.whole_body()[0], Close())


@fault(0.3)
def stalls_before_the_status(turn: Turn) -> None:
    turn.read_timeout = IMPATIENT
    turn.expect(ThinnestTimeoutError)
    turn.acted(turn.framed(b"")[: turn.rng.choice([0, 9])], FOREVER)


# --- no whole answer ---


@fault(2)
def closes_in_the_body(turn: Turn) -> None:
    part, missing = turn.cut_short()
    more = turn.rng.choice([0, missing])
    turn.acted(*turn.cut(turn.framed(part, more=more, is_whole=False)), Close())


@fault(2)
def ends_the_body_early(turn: Turn) -> None:
    turn.acted(*turn.cut(turn.framed(turn.cut_short()[0])))


@fault(2)
def resets_in_the_body(turn: Turn) -> None:
    part, missing = turn.cut_short()
    # A reset may overtake what was sent before it, the head too.
    turn.expect(ThinnestError, turn.partial, is_exact=False)
    turn.acted(*turn.cut(turn.framed(part, more=missing, is_whole=False)), Reset())


@fault(0.5)
def stalls_in_the_body(turn: Turn) -> None:
    part, missing = turn.cut_short()
    turn.read_timeout = IMPATIENT
    turn.acted(turn.framed(part, more=missing), FOREVER)


@fault()
def breaks_the_chunks(turn: Turn) -> None:
    part = turn.cut_short()[0]
    turn.is_exact = False
    fields = {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"}
    turn.acted(*turn.cut(head(200, fields) + chunk(part or b": x") + b"zz\r\nnot a size\r\n"))


@fault(2)
def error_event(turn: Turn) -> None:
    wire = turn.framed(turn.broken_at_an_event(turn.line({"type": "error", "message": "!"})))
    turn.expect(ThinnestGenerationError, turn.partial)
    turn.acted(*turn.cut(wire))


@fault()
def error_event_first(turn: Turn) -> None:
    lines = map(turn.line, [{"type": "error", "message": "no"}, *turn.events])
    turn.expect(ThinnestGenerationError)
    turn.acted(*turn.cut(turn.framed(turn.body(*lines)[0])))


@fault(2)
def garbage_event(turn: Turn) -> None:
    wire = turn.framed(turn.broken_at_an_event(b"data: " + turn.rng.choice(_GARBAGE)))
    turn.expect(ThinnestProtocolError, turn.partial)
    turn.acted(*turn.cut(wire))


@fault()
def event_too_large(turn: Turn) -> None:
    huge = turn.line({"type": "text", "content": "x" * 2 * MAX_EVENT_BYTES})
    wire = turn.framed(turn.broken_at_an_event(huge))
    turn.expect(ThinnestProtocolError, turn.partial)
    turn.acted(*turn.cut(wire))


@fault()
def another_content_type(turn: Turn) -> None:
    body = turn.whole_body()[0]
    kind = turn.rng.choice(["application/json", "text/html", "text/plain"])
    turn.expect(ThinnestProtocolError)
    fields = {"Content-Type": kind, "Content-Length": str(len(body))}
    turn.acted(*turn.cut(head(200, fields) + body))


@fault()
def gzip_broken(turn: Turn) -> None:
    part = turn.cut_short()[0]
    # What was unzipped of a read is lost with the rest of it.
    turn.expect(ThinnestProtocolError, turn.partial, is_exact=False)
    # A block of a kind that there is none of, after all that was zipped so far.
    turn.acted(*turn.cut(zipped_response(zipped(part, is_whole=False) + b"\xff" * 9)))


@fault()
def gzip_cut(turn: Turn) -> None:
    part = turn.cut_short()[0]
    turn.acted(*turn.cut(zipped_response(zipped(part, is_whole=False))))


def zipped(data: bytes, *, is_whole: bool = True) -> bytes:
    zip_ = zlib.compressobj(wbits=31)
    return zip_.compress(data) + zip_.flush(zlib.Z_FINISH if is_whole else zlib.Z_SYNC_FLUSH)


def zipped_response(body: bytes) -> bytes:
    fields = {"Content-Type": "text/event-stream", "Content-Encoding": "gzip"}
    return head(200, {**fields, "Content-Length": str(len(body))}) + body


# --- the server, a process of its own ---


async def serve(seed: int) -> None:
    """Serve until the standard input ends; print the port first."""
    log: dict[str, list[Any]] = {}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone = (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError)
        with contextlib.suppress(*gone):
            while await _answer(reader, writer, seed, log):
                pass
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


async def _answer(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    seed: int,
    log: dict[str, list[Any]],
) -> bool:
    """Answer one request, and say whether the connection lives on."""
    line, *fields = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (f.partition(": ") for f in fields)}
    if line.startswith("GET"):
        said = json.dumps(log).encode()
        writer.write(head(200, {"Content-Length": str(len(said))}) + said)
        return True
    request = json.loads(await reader.readexactly(int(headers["content-length"])))
    name = request["message"].partition(">")[0].removeprefix("<")
    turn = Turn(seed, int(name.partition("-")[2]))
    entry = log.setdefault(name, [0, 0, 0])  # requests, acts, requests that are not the turn's
    number = min(entry[0], len(turn.scripts) - 1)
    entry[0] += 1
    entry[1] += turn.acts[number]
    entry[2] += (request["message"], request.get("session_id"), headers["authorization"]) != (
        turn.message,
        turn.session,
        f"Bearer {turn.key}",
    )
    for step in turn.scripts[number]:
        if isinstance(step, bytes):
            writer.write(step)
            await writer.drain()
        elif isinstance(step, Wait):
            assert isinstance(step.until, float)
            if step is not FOREVER:
                await asyncio.sleep(step.until)
                continue
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(reader.read(), step.until)
            return False
        else:
            if isinstance(step, Reset):
                linger = struct.pack("ii", 1, 0)
                with contextlib.suppress(OSError):  # the client was faster
                    writer.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, linger
                    )
                writer.transport.abort()
            return False
    return True


class Server:
    """The server's process."""

    def __init__(self, seed: int) -> None:
        command = [
            sys.executable,
            "-m",
            "integration_tests.chaos",
            "--serve",
            f"--seed={seed}",
        ]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.base_url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def log(self) -> dict[str, list[int]]:
        with urllib.request.urlopen(f"{self.base_url}/log", timeout=10) as response:
            return json.load(response)

    def close(self) -> None:
        self._process.communicate(timeout=10)


# --- the callers ---


class Runs(BaseCallbackHandler):
    """Counts the runs of one turn that were begun and ended."""

    def __init__(self, *, run_inline: bool = True) -> None:
        self.run_inline = run_inline
        self.tools: Counter[Any] = Counter()
        self.ends: Counter[Any] = Counter()
        self.model_ends = 0

    def on_tool_start(self, *args: Any, run_id: Any, **kwargs: Any) -> None:
        self.tools[run_id] += 1

    def on_tool_end(self, *args: Any, run_id: Any, **kwargs: Any) -> None:
        self.ends[run_id] += 1

    on_tool_error = on_tool_end

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self.model_ends += 1

    on_llm_error = on_llm_end

    @property
    def are_whole(self) -> bool:
        """Each tool run that began has ended, once."""
        return self.tools == self.ends == Counter(set(self.tools))


@dataclass
class Seen:
    """What the caller of one turn saw."""

    turn: Turn
    way: str
    runs: Runs = field(default_factory=Runs)
    text: str = ""  # of the chunks
    message: Any = None
    error: BaseException | None = None
    has_stopped: bool = False  # the caller went away before the end
    has_ended: bool = False

    def add(self, piece: AIMessageChunk) -> None:
        self.text += piece.text
        self.message = piece if self.message is None else self.message + piece

    def take(self, result: Any) -> None:
        if isinstance(result, BaseException):
            self.error = result
        else:
            self.message = result
            self.text = result.text

    @property
    def is_lost(self) -> bool:
        """It was sent, and nothing came back, as is the way of connections."""
        return (
            isinstance(self.error, ThinnestConnectionError)
            and not self.error.is_retryable
            and self.turn.is_reachable
        )

    @property
    def call(self) -> tuple[Any, dict[str, Any]]:
        """The arguments of the call."""
        config: dict[str, Any] = {"callbacks": [self.runs]}
        if self.turn.session:
            config["configurable"] = {"session_id": self.turn.session}
        return self.turn.message, config


class Callers:
    """Calls a model in all ways, from threads and event loops at once."""

    def __init__(self, base_url: str, nowhere: str, seed: int, turns: int) -> None:
        self._base_urls = {True: base_url, False: nowhere}
        self._numbers = iter(range(turns))
        self._lock = threading.Lock()
        self._seed = seed
        self.seen: list[Seen] = []
        self.problems: list[str] = []

        @cache
        def model(key: str, read: float, is_reachable: bool) -> ChatThinnest:
            return ChatThinnest(
                agent_id="ag_chaos",
                api_key=key,
                base_url=self._base_urls[is_reachable],
                timeout=httpx.Timeout(PATIENT, read=read),
                max_event_bytes=MAX_EVENT_BYTES,
                max_retries=MAX_RETRIES,
                max_retry_wait=0.3,
            )

        self._model = model

    def model(self, turn: Turn) -> ChatThinnest:
        return self._model(turn.key, turn.read_timeout, turn.is_reachable)

    def next(self, ways: dict[str, Any], count: int = 1) -> list[Seen]:
        with self._lock:
            numbers = list(itertools.islice(self._numbers, count))
        seen = []
        for number in numbers:
            turn = Turn(self._seed, number)
            way = turn.rng.choice(list(ways))
            inline = turn.rng.random() < 0.8
            seen.append(Seen(turn, way, Runs(run_inline=inline)))
        self.seen += seen
        return seen

    def run(self, seconds: float) -> None:
        gc.freeze()  # what there is now need not be looked at again and again
        lanes = [
            threading.Thread(target=self._sync_lane, daemon=True) for _ in range(SYNC_LANES)
        ]
        lanes += [
            threading.Thread(target=self._async_lane, daemon=True) for _ in range(ASYNC_LANES)
        ]
        for lane in lanes:
            lane.start()
        give_up = time.monotonic() + seconds
        while any(lane.is_alive() for lane in lanes) and time.monotonic() < give_up:
            began = time.monotonic()
            gc.collect()  # a stream that is kept counts as open until it is found
            time.sleep(0.1 + 5 * (time.monotonic() - began))
        gc.unfreeze()
        if any(lane.is_alive() for lane in lanes):
            faulthandler.dump_traceback()
            stuck = [f"{s.turn.name} {s.turn.fault}" for s in self.seen if not s.has_ended]
            self.problems.append(f"these did not end in {seconds} s: {stuck[:20]}")

    def _sync_lane(self) -> None:
        while group := self.next(SYNC_WAYS):
            (seen,) = group
            try:
                if seen.way == "batch":
                    self._batch([seen, *self.next({"batch": None}, 2)])
                    continue
                SYNC_WAYS[seen.way](self.model(seen.turn), seen)
            except BaseException as error:
                seen.error = error
            seen.has_ended = True

    def _batch(self, group: list[Seen]) -> None:
        by_model: dict[int, list[Seen]] = {}
        for seen in group:
            by_model.setdefault(id(self.model(seen.turn)), []).append(seen)
        for alike in by_model.values():
            inputs, configs = zip(*(seen.call for seen in alike), strict=True)
            model = self.model(alike[0].turn)
            results = model.batch(list(inputs), list(configs), return_exceptions=True)
            for seen, result in zip(alike, results, strict=True):
                seen.take(result)
                seen.has_ended = True

    def _async_lane(self) -> None:
        has_more = True
        while has_more:
            has_more = asyncio.run(self._loop())

    async def _loop(self) -> bool:
        left = iter(range(TURNS_PER_LOOP))
        has_more = True

        async def work() -> None:
            nonlocal has_more
            for _ in left:
                group = self.next(ASYNC_WAYS)
                if not group:
                    has_more = False
                    return
                (seen,) = group
                try:
                    await ASYNC_WAYS[seen.way](self.model(seen.turn), seen)
                except BaseException as error:
                    seen.error = error
                seen.has_ended = True

        await asyncio.gather(*(work() for _ in range(TASKS)))
        give_up = time.monotonic() + 5
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            # A stream that was left is closed by a task, which may leave another one to close.
            _, pending = await asyncio.wait(others, timeout=5)
            if pending or time.monotonic() > give_up:
                self.problems.append(f"tasks that live on: {pending}")
                break
            await asyncio.sleep(0)
        return has_more


def _invoke(model: ChatThinnest, seen: Seen) -> None:
    seen.take(model.invoke(*seen.call))


def _stream(model: ChatThinnest, seen: Seen) -> None:
    for piece in model.stream(*seen.call):
        seen.add(piece)


def _stream_and_stop(model: ChatThinnest, seen: Seen) -> None:
    stop = seen.turn.rng.randrange(4)
    for number, piece in enumerate(model.stream(*seen.call)):
        seen.add(piece)
        if number == stop:
            seen.has_stopped = True
            break


def _stream_and_keep(model: ChatThinnest, seen: Seen) -> None:
    """Stop, but leave the stream to the garbage collector, which finds it when it may."""
    chunks = model.stream(*seen.call)
    cycle: list[Any] = [chunks]
    cycle.append(cycle)
    seen.add(next(chunks))
    seen.has_stopped = True


def _v3(model: ChatThinnest, seen: Seen) -> None:
    seen.take(model.stream_events(*seen.call, version="v3").output)


def _v3_and_stop(model: ChatThinnest, seen: Seen) -> None:
    stream = model.stream_events(*seen.call, version="v3")
    for delta in stream.text:
        seen.text += delta
        seen.has_stopped = True
        break
    else:
        seen.message = stream.output


async def _ainvoke(model: ChatThinnest, seen: Seen) -> None:
    seen.take(await model.ainvoke(*seen.call))


async def _abatch(model: ChatThinnest, seen: Seen) -> None:
    given, config = seen.call
    (result,) = await model.abatch([given], [config], return_exceptions=True)
    seen.take(result)


async def _astream(model: ChatThinnest, seen: Seen) -> None:
    async for piece in model.astream(*seen.call):
        seen.add(piece)


async def _astream_and_stop(model: ChatThinnest, seen: Seen) -> None:
    stop = seen.turn.rng.randrange(4)
    chunks = model.astream(*seen.call)
    number = 0
    async for piece in chunks:
        seen.add(piece)
        if number == stop:
            seen.has_stopped = True
            if seen.turn.rng.random() < 0.5:
                await chunks.aclose()  # type: ignore[attr-defined]
            break
        number += 1


async def _av3(model: ChatThinnest, seen: Seen) -> None:
    async with await model.astream_events(*seen.call, version="v3") as stream:
        seen.take(await stream.output)


def _cancelled(
    way: Callable[[ChatThinnest, Seen], Coroutine[Any, Any, None]],
) -> Callable[[ChatThinnest, Seen], Coroutine[Any, Any, None]]:
    async def cancelled(model: ChatThinnest, seen: Seen) -> None:
        cancel = seen.turn.rng.choice([_by_scope, _by_wait_for, _by_task])
        after = seen.turn.rng.choice([0.0, 0.002, 0.01, 0.03])
        seen.has_stopped = await cancel(way(model, seen), after, seen.turn.rng)

    return cancelled


async def _by_task(call: Coroutine[Any, Any, None], after: float, rng: random.Random) -> bool:
    """Cancel up to three times, and say whether the call was cancelled."""
    task = asyncio.ensure_future(call)
    await asyncio.wait([task], timeout=after)
    for _ in range(rng.randint(1, 3)):
        task.cancel()
        await asyncio.sleep(rng.choice([0.0, 0.001]))
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


async def _by_scope(call: Coroutine[Any, Any, None], after: float, _: random.Random) -> bool:
    """As Starlette does: the scope cancels again and again until the call has left it."""
    with anyio.move_on_after(after) as scope:
        await call
    return scope.cancelled_caught


async def _by_wait_for(
    call: Coroutine[Any, Any, None], after: float, _: random.Random
) -> bool:
    try:
        await asyncio.wait_for(call, after or 0.001)
    except asyncio.TimeoutError:
        return True
    return False


SYNC_WAYS: dict[str, Any] = {
    "invoke": _invoke,
    "stream": _stream,
    "batch": None,
    "v3": _v3,
    "stream and stop": _stream_and_stop,
    "stream and keep": _stream_and_keep,
    "v3 and stop": _v3_and_stop,
}
ASYNC_WAYS: dict[str, Any] = {
    "ainvoke": _ainvoke,
    "abatch": _abatch,
    "astream": _astream,
    "async v3": _av3,
    "astream and stop": _astream_and_stop,
    "ainvoke, cancelled": _cancelled(_ainvoke),
    "astream, cancelled": _cancelled(_astream),
    "async v3, cancelled": _cancelled(_av3),
}


# --- what must have happened ---


def problems_of(seen: Seen, requests: int, acts: int, strange: int) -> Iterator[str]:
    """Say what of one turn is not as it must be."""
    turn, error = seen.turn, seen.error
    if not seen.has_ended:
        yield "it did not end"
    yield from _problems_of_requests(seen, requests, acts, strange)
    if not seen.runs.are_whole:
        yield f"tool runs: {dict(seen.runs.tools)} began, {dict(seen.runs.ends)} ended"
    if not turn.text.startswith(seen.text):
        yield f"text that is not its own: {seen.text!r}"
    if seen.has_stopped:
        if error is not None:
            yield f"it stopped, and saw {error!r}"
        return
    if seen.runs.model_ends != 1:
        yield f"its model run ended {seen.runs.model_ends} times"
    if error is None:
        if turn.error is not None and not turn.may_be_whole:
            yield f"no error, where {turn.error.__name__} belongs"
        else:
            yield from _problems_of_a_whole(seen)
    elif turn.error is None or not isinstance(error, turn.error):
        yield f"{error!r}, where {turn.error} belongs"
    else:
        yield from _problems_of_an_error(seen, error)


def _problems_of_requests(seen: Seen, requests: int, acts: int, strange: int) -> Iterator[str]:
    if acts > 1:
        yield f"the agent acted {acts} times"
    if strange:
        yield "a request was not the turn's"
    expected = len(seen.turn.scripts) if seen.turn.is_reachable else 0
    if requests > expected or (requests < expected and not seen.has_stopped):
        yield f"{requests} requests, not {expected}"


def _problems_of_a_whole(seen: Seen) -> Iterator[str]:
    turn, message = seen.turn, seen.message
    if message is None:
        yield "neither a message nor an error"
        return
    if not message.text == seen.text == turn.text:
        yield f"{message.text!r} and {seen.text!r}, not {turn.text!r}"
    if message.usage_metadata != turn.usage:
        yield f"usage {message.usage_metadata}"
    if message.response_metadata.get("session_id") != turn.session:
        yield f"metadata {message.response_metadata}"
    tools = [event for event in turn.events if event["type"].startswith("tool")]
    blocks = [block for block in message.content_blocks if "server_tool" in block["type"]]
    orphans = _orphans(tools)
    if len(blocks) not in (len(tools), len(tools) + orphans):
        yield f"{len(blocks)} tool blocks, not {len(tools)}"
    if any(turn.name not in json.dumps(block) for block in blocks if "output" in block):
        yield f"results that are not its own: {blocks}"
    calls = sum(event["type"] == "tool_call" for event in tools)
    if len(seen.runs.tools) != calls:
        yield f"{len(seen.runs.tools)} tool runs, not {calls}"


def _orphans(tools: list[dict[str, Any]]) -> int:
    return sum(event["type"] == "tool_result" for event in tools)


def _problems_of_an_error(seen: Seen, error: ThinnestError) -> Iterator[str]:
    turn = seen.turn
    is_safe = error.status_code == 429 or not turn.is_reachable or "503 retry" in turn.fault
    if error.is_retryable != is_safe:
        yield f"is_retryable is {error.is_retryable}"
    if not isinstance(error, ThinnestStreamError):
        if seen.text:
            yield f"text before {error!r}: {seen.text!r}"
        return
    partial = error.partial.text
    if partial != turn.partial if turn.is_exact else not turn.partial.startswith(partial):
        yield f"partial {partial!r}, not {turn.partial!r}"
    if not partial.startswith(seen.text):
        yield f"{seen.text!r} was seen, and {partial!r} is the partial"
    if turn.name not in repr(error.partial) and (partial or error.partial.content_blocks):
        yield f"a partial that is not its own: {error.partial!r}"


@dataclass
class Report:
    """What a run came to."""

    faults: Counter[str]
    ways: Counter[str]
    lost: int
    seconds: float
    problems: list[str]

    def __str__(self) -> str:
        counts = [f"{count:6} {name}" for name, count in self.faults.most_common()]
        columns = [
            "".join(f"{item:36}" for item in row).rstrip()
            for row in itertools.zip_longest(*[iter(counts)] * 3, fillvalue="")
        ]
        turns = self.faults.total()
        ways = ", ".join(f"{count} {way}" for way, count in self.ways.most_common())
        return "\n".join(
            [
                *columns,
                f"by way: {ways}",
                f"{self.lost} sent into a connection that the server was just closing",
                f"{turns} turns in {self.seconds:.1f} s, {len(self.problems)} problems",
                *self.problems[:20],
            ]
        )


def _descriptors() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def run(turns: int, seed: int, seconds: float) -> Report:
    """Run turns against a new server, and check each against what must have happened."""
    server = Server(seed)
    with socket.socket() as unused, contextlib.closing(server):
        unused.bind(("127.0.0.1", 0))  # and does not listen
        nowhere = f"http://127.0.0.1:{unused.getsockname()[1]}"
        callers = Callers(server.base_url, nowhere, seed, turns)
        descriptors = _descriptors()
        began = time.monotonic()
        callers.run(seconds)
        seconds = time.monotonic() - began
        gc.collect()
        # Idle connections for sync calls may live on.
        if (left := _descriptors() - descriptors) > MOST_IDLE:
            callers.problems.append(f"{left} descriptors are left open")
        log = server.log()
    problems = callers.problems
    lost = 0
    for seen in callers.seen:
        requests, acts, strange = log.pop(seen.turn.name, (0, 0, 0))
        if requests == 0 and seen.is_lost:
            lost += 1
            continue
        problems += [
            f"{seen.turn.name}, {seen.turn.fault}, {seen.way}: {problem}"
            for problem in problems_of(seen, requests, acts, strange)
        ]
    if log:
        problems.append(f"the server knows turns that nobody made: {list(log)[:20]}")
    if len(callers.seen) != turns:
        problems.append(f"{len(callers.seen)} turns were made")
    if lost > sum(seen.turn.breaks_the_next for seen in callers.seen):
        problems.append(f"{lost} messages were lost on the way")
    faults = Counter(seen.turn.fault for seen in callers.seen)
    ways = Counter(seen.way for seen in callers.seen)
    return Report(faults, ways, lost, seconds, problems)


def main() -> int:
    parser = argparse.ArgumentParser(description="Turns against a server that fails at random")
    parser.add_argument("--turns", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=600.0, help="give up after")
    parser.add_argument("--serve", action="store_true", help="be the server")
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve(given.seed))
        return 0
    warnings.filterwarnings("ignore", category=LangChainBetaWarning)
    report = run(given.turns, given.seed, given.seconds)
    print(report, flush=True)
    if any("did not end" in problem for problem in report.problems):
        os._exit(1)  # a thread that hangs would be waited for
    return bool(report.problems)


if __name__ == "__main__":
    sys.exit(main())
