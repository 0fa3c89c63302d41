"""Awaiting what must come to its end, whoever cancels the caller meanwhile.

A task can be cancelled twice, and an anyio cancel scope (every Starlette and FastAPI request
runs in one) cancels again and again until the task has left it. So what closes a connection
runs in a task of its own, where neither reaches it, and the caller waits for that task.
This module knows nothing of connections.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

SECONDS = 2.0
_TRIES = 3


# No twin: only tasks can be cancelled.
async def finish(
    make: Callable[[], Coroutine[Any, Any, None]], seconds: float = SECONDS
) -> None:
    """Run a coroutine to its end, and only then let the caller's cancellation through.

    Args:
        make: Makes the coroutine. It is called again where the task was cancelled by itself,
            as `asyncio.run` does with all tasks, so it must go on from where it was.
        seconds: The longest time to wait. What takes longer goes on by itself.

    Raises:
        CancelledError: If the caller was cancelled while it waited.
    """
    import anyio  # httpx needs it; it is imported once there is a connection

    give_up = time.monotonic() + seconds
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        for _ in range(_TRIES):
            task = asyncio.ensure_future(make())
            while not task.done() and (left := give_up - time.monotonic()) > 0:
                try:
                    await asyncio.wait([task], timeout=left)
                except asyncio.CancelledError as error:
                    cancelled = error
            if not task.done():
                _late.add(task)
                task.add_done_callback(_late.discard)
            if not task.cancelled():
                break
    # No `uncancel`: the count of cancellations belongs to whoever cancelled.
    if cancelled is not None:
        raise cancelled
    if task.done() and not task.cancelled():
        task.result()


# Tasks that nobody awaits any more. asyncio keeps only weak references to tasks.
_late: set[asyncio.Future[None]] = set()
