"""The turn's tools → LangChain tool runs, so that whatever watches tools sees the server's.

A call starts a run the moment it arrives, as a child of the model's run; its result ends it
with a `ToolMessage`. A call that is still open when the answer ends, however it ends, ends
with `on_tool_error`, before the model's own end or error. A result that answers no call has
nothing to end, and starts nothing.

A handler may set context variables (LangGraph's does), and a generator would leak them into
its caller between two yields: so each callback runs in a context of its own.
This module knows nothing of where the tools' events come from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    AsyncCallbackManagerForToolRun,
    CallbackManager,
    CallbackManagerForLLMRun,
    CallbackManagerForToolRun,
)

from langchain_thinnest._answer.message import tool_message
from langchain_thinnest._answer.turn import End, Piece, ServerToolCall, ServerToolResult, Turn
from langchain_thinnest.errors import ThinnestStreamError

ToItsEnd = Callable[[Callable[[], Coroutine[Any, Any, None]]], Coroutine[Any, Any, None]]


class ToolRuns:
    """The tool runs below one model run; sync."""

    def __init__(self, turn: Turn, run: CallbackManagerForLLMRun | None) -> None:
        """Make the runs of a turn; without a run that has handlers nothing happens."""
        self._turn = turn
        self._manager: CallbackManager | None = None
        if run is not None and run.handlers:
            self._manager = CallbackManager(**_child_of(run))
        self._open: dict[str, tuple[CallbackManagerForToolRun, Context]] = {}

    def see(self, piece: Piece) -> None:
        """Take the next piece of the answer, which is no text."""
        if self._manager is None:
            return
        if isinstance(piece, ServerToolCall):
            context = copy_context()
            run = context.run(self._manager.on_tool_start, *_input(piece), **_started(piece))
            self._open[piece.id] = run, context
        elif isinstance(piece, ServerToolResult):
            if piece.id in self._open:
                run, context = self._open.pop(piece.id)
                context.run(run.on_tool_end, tool_message(piece))
        elif isinstance(piece, End):
            self.fail(_no_result(self._turn))

    def fail(self, error: BaseException) -> None:
        """End the runs that are still open."""
        while self._open:
            run, context = self._open.pop(next(iter(self._open)))
            context.run(run.on_tool_error, error)


class AsyncToolRuns:
    """The async twin of `ToolRuns`."""

    def __init__(
        # Twins differ: tasks can be cancelled, and runs must end all the same.
        self,
        turn: Turn,
        run: AsyncCallbackManagerForLLMRun | None,
        to_its_end: ToItsEnd,
    ) -> None:
        """Make the runs of a turn; without a run that has handlers nothing happens.

        Args:
            turn: The turn.
            run: The model's run.
            to_its_end: Awaits a coroutine in a task of its own, which nobody interrupts; it
                makes it again where it was ended by force.
        """
        self._turn = turn
        # Twins differ: see the arguments.
        self._to_its_end = to_its_end
        self._manager: AsyncCallbackManager | None = None
        if run is not None and run.handlers:
            self._manager = AsyncCallbackManager(**_child_of(run))
        # Twins differ: a task has a context of its own, in which a run starts and ends.
        self._open: dict[str, asyncio.Future[AsyncCallbackManagerForToolRun]] = {}

    async def see(self, piece: Piece) -> None:
        """Take the next piece of the answer, which is no text."""
        if self._manager is None:
            return
        if isinstance(piece, ServerToolCall):
            # Twins differ: a run starts in a task.
            start = self._manager.on_tool_start(*_input(piece), **_started(piece))
            # Kept before it is awaited: whoever cancels the wait does not undo the start.
            self._open[piece.id] = asyncio.ensure_future(start)
            await asyncio.shield(self._open[piece.id])
        elif isinstance(piece, ServerToolResult):
            # Twins differ: runs end in a task.
            message = tool_message(piece)
            await self._finish([piece.id], lambda run: run.on_tool_end(message))
        elif isinstance(piece, End):
            await self.fail(_no_result(self._turn))

    # Twins differ: runs end in a task.
    async def fail(self, error: BaseException) -> None:
        """End the runs that are still open."""
        await self._finish(list(self._open), lambda run: run.on_tool_error(error))

    # No twin: sync runs end where they are.
    async def _finish(
        self,
        ids: list[str],
        how: Callable[[AsyncCallbackManagerForToolRun], Coroutine[Any, Any, None]],
    ) -> None:
        """End runs, each exactly once, whoever cancels the caller meanwhile.

        In a task, whose context is its own.
        """

        async def end() -> None:
            for id_ in ids:
                start = self._open.get(id_)
                if start is None:
                    continue
                await asyncio.wait([start])
                del self._open[id_]
                if not start.cancelled() and start.exception() is None:
                    await how(start.result())

        if any(id_ in self._open for id_ in ids):
            await self._to_its_end(end)


def _child_of(run: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun) -> dict[str, Any]:
    """Return the fields of a child manager, with the run's own handlers.

    Its metadata stays (LangGraph's routing is in it), but for what describes a model.
    """
    metadata = {
        key: value
        for key, value in run.inheritable_metadata.items()
        if not key.startswith("ls_")
    }
    return {
        "handlers": run.handlers,
        "inheritable_handlers": run.handlers,
        "parent_run_id": run.run_id,
        "tags": run.inheritable_tags,
        "inheritable_tags": run.inheritable_tags,
        "metadata": metadata,
        "inheritable_metadata": metadata,
    }


def _input(call: ServerToolCall) -> tuple[dict[str, Any], str]:
    return {"name": call.name, "description": "Run by the agent, on the server"}, str(
        call.args
    )


def _started(call: ServerToolCall) -> dict[str, Any]:
    return {"inputs": call.args, "name": call.name, "tool_call_id": call.id}


def _no_result(turn: Turn) -> ThinnestStreamError:
    return ThinnestStreamError(
        "A stop sequence ended the answer before the tool's result came."
        if turn.is_cut
        else "The answer ended without a result of this tool."
    )
