"""One call to an agent: request out, pieces of the answer in; sync and async.

This is the one place where the steps meet: the client's bytes go through the turn, and every
view of the answer (message, chunks, events, tool runs) is fed from the pieces that come out.
The two functions differ only in how they wait for bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
)

from langchain_thinnest._answer.message import Answer
from langchain_thinnest._answer.tool_runs import AsyncToolRuns, ToolRuns
from langchain_thinnest._answer.turn import Piece, ServerToolCall, ServerToolResult
from langchain_thinnest._http.client import Endpoint, aopen_stream, open_stream
from langchain_thinnest._http.closing import finish
from langchain_thinnest._http.response import Response
from langchain_thinnest._http.retries import RetryPolicy
from langchain_thinnest._sessions import KNOWN_SESSIONS
from langchain_thinnest.errors import (
    ThinnestAuthenticationError,
    ThinnestNotFoundError,
    ThinnestPermissionError,
    ThinnestRequestError,
    ThinnestStreamError,
)

T = TypeVar("T")


class GraphTurn(Protocol):
    """The turn of a graph that a call is made for."""

    segment_id: str
    seen: int | None
    reports_events: bool

    def opened(self) -> None:
        """Take note that the answer begins, so that the message was taken."""

    async def aopened(self) -> None:
        """The async twin of `opened`."""

    def show(self, piece: ServerToolCall | ServerToolResult, message_id: str | None) -> None:
        """Show a call or a result in the graph's stream."""


@dataclass
class Call:
    """What one call needs.

    Attributes:
        endpoint: Where the message goes.
        body: The JSON to send.
        policy: When it may be sent again.
        answer: Gathers the answer.
        session: The agent and its session that the message goes to, if it goes to one.
        key_hint: What to try where the server refuses the key.
        turn: The turn of a graph that it is made for.
    """

    endpoint: Endpoint
    body: bytes
    policy: RetryPolicy
    answer: Answer
    session: tuple[str, str] | None = None
    key_hint: str | None = None
    turn: GraphTurn | None = None


def ignore(_: Piece) -> None:
    """A view that makes nothing: for callers that want the whole message alone."""


def read(
    call: Call, run: CallbackManagerForLLMRun | None, view: Callable[[Piece], T]
) -> Generator[T, None, None]:
    """Send the message and read the answer.

    Args:
        call: What to send, and where to.
        run: The model's run, which is told of retries, and below which the tools run.
        view: What to make of a piece.

    Yields:
        The view of each piece of the answer as it comes, of `End` last.

    Raises:
        ThinnestError: If the answer is not whole; see `errors`.
    """
    turn = call.answer.turn
    tools = ToolRuns(turn, run)
    try:
        on_retry = run.on_retry if run else None
        _check_open("http_client", call.endpoint.client)
        with open_stream(call.endpoint, call.body, call.policy, on_retry) as response:
            _begin(call, response)
            if call.turn is not None:
                call.turn.opened()
            for data in response:
                found = turn.feed(data)
                if type(found) is str:
                    response.waited = 0.0
                    yield view(found)
                    continue
                events = turn.events
                for piece in found:
                    if type(piece) is not str:
                        tools.see(piece)
                    yield view(piece)
                if turn.events != events:
                    response.waited = 0.0
                if turn.is_over:
                    break
            if turn.is_done:
                response.drain()
    except BaseException as error:
        _explain(call, error)
        tools.fail(error)
        raise


async def aread(
    call: Call, run: AsyncCallbackManagerForLLMRun | None, view: Callable[[Piece], T]
) -> AsyncGenerator[T, None]:
    """The async twin of `read`.

    It is the one generator from the caller's to the connection: of a chain of them, the
    garbage collector would close each by itself, all at once.
    """
    turn = call.answer.turn
    # Twins differ: tasks can be cancelled, and runs must end all the same.
    tools = AsyncToolRuns(turn, run, finish)
    try:
        on_retry = run.on_retry if run else None
        _check_open("http_async_client", call.endpoint.async_client)
        async with await aopen_stream(
            call.endpoint, call.body, call.policy, on_retry
        ) as response:
            _begin(call, response)
            if call.turn is not None:
                await call.turn.aopened()
            async for data in response:
                found = turn.feed(data)
                if type(found) is str:
                    response.waited = 0.0
                    yield view(found)
                    continue
                events = turn.events
                for piece in found:
                    if type(piece) is not str:
                        await tools.see(piece)
                    yield view(piece)
                if turn.events != events:
                    response.waited = 0.0
                if turn.is_over:
                    break
            if turn.is_done:
                await response.adrain()
    except BaseException as error:
        _explain(call, error)
        await tools.fail(error)
        raise


def _begin(call: Call, response: Response) -> None:
    """Record what the head of the response says."""
    call.answer.rate_limit = response.rate_limit
    call.answer.request_id = response.request_id
    if response.is_json:
        call.answer.turn.expect_json(call.endpoint.without_key)
    if call.session:
        KNOWN_SESSIONS.add(*call.session)


# No twin: nothing else closes a sync generator.
async def aclose(pieces: AsyncGenerator[Any, None]) -> None:
    """Close a generator of `aread`, unless it is running."""
    if not getattr(pieces, "ag_running", False):
        await pieces.aclose()


# No twin: only a task can be cancelled between two events.
class ClosedWithItsTask:
    """Closes pieces at the latest when the task that reads them is done.

    The framework's task for a v3 stream may be cancelled between two events. It leaves them
    to the garbage collector then, which may take its time.
    """

    def __init__(self, pieces: AsyncGenerator[Any, None]) -> None:
        """Take the pieces that the current task will read."""
        self._pieces = pieces
        self._task: asyncio.Task[Any] | None = None

    async def __aenter__(self) -> None:
        self._task = asyncio.current_task()
        if self._task is not None:
            self._task.add_done_callback(self._close)

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.remove_done_callback(self._close)
        await aclose(self._pieces)

    def _close(self, task: asyncio.Task[Any]) -> None:
        if not task.get_loop().is_closed():
            _closing.add(closing := task.get_loop().create_task(aclose(self._pieces)))
            closing.add_done_callback(_closing.discard)


_closing: set[asyncio.Task[None]] = set()  # asyncio refers to tasks only weakly


def _explain(call: Call, error: BaseException) -> None:
    """Add the partial message to a stream's error, and mask the key in its text."""
    if isinstance(error, ThinnestStreamError):
        error.partial = call.answer.message()
        error.request_id = error.request_id or call.answer.request_id
        error.args = (call.endpoint.without_key(str(error)),)
        error.detail = error.detail and call.endpoint.without_key(error.detail)
    elif isinstance(error, ThinnestNotFoundError):
        url = call.endpoint.base_url + call.endpoint.path
        where = f"the agent {call.answer.agent_id!r} at {url}"
        error.args = (f"{error} ({where}). Check agent_id, base_url and endpoint.",)
    elif call.key_hint and isinstance(
        error, (ThinnestAuthenticationError, ThinnestPermissionError)
    ):
        error.args = (f"{error}. {call.key_hint}",)


def _check_open(name: str, client: Any) -> None:
    if client is not None and client.is_closed:
        raise ThinnestRequestError(
            f"The {name} that the model was given is closed. Give it an open one, and keep it "
            "open as long as the model is used."
        )
