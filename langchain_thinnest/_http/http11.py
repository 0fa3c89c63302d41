"""What httpcore keeps to itself of an HTTP/1.1 connection; nothing else reads it.

httpx has no public way to ask whether unread bytes are left on a connection, or to read a
body with a deadline. A connection whose state cannot be read (a mock's, another transport's)
is `None` here, and whoever asks closes it.
This module knows nothing of requests, or of what the bytes mean.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from typing import Any

_READ_BYTES = 64 * 1024
# From httpx's stream of a response down to the connection that it is read from.
_INWARDS = ("_stream", "_httpcore_stream", "_connection")


def connection_of(stream: object) -> Any:
    """Find the HTTP/1.1 connection below a response's stream; `None` if there is none."""
    inner: Any = stream
    for _ in range(12):
        if hasattr(inner, "_h11_state") and hasattr(inner, "_network_stream"):
            return inner
        names = (name for name in _INWARDS if getattr(inner, name, None) is not None)
        name = next(names, None)
        if name is None:
            return None
        inner = getattr(inner, name)
    return None


def is_clean(connection: Any) -> bool:
    """Whether one request and answer are over, and not a byte follows them."""
    import h11

    try:
        state = connection._h11_state  # noqa: SLF001
        return (
            state.our_state is h11.DONE
            and state.their_state is h11.DONE
            and state.trailing_data == (b"", False)
            and is_quiet(connection)
        )
    except AttributeError:
        return False


def is_quiet(connection: Any) -> bool:
    """Whether nothing came in on a connection, not even its end, that was not read."""
    try:
        network = connection._network_stream  # noqa: SLF001
        return not network.get_extra_info("is_readable") and _holds_nothing(network)
    except AttributeError:
        return False


def _holds_nothing(network: Any) -> bool:
    """Whether no layer above the socket holds bytes that were taken from it."""
    secured = network.get_extra_info("ssl_object")
    if secured is not None and secured.pending():
        return False
    inner = network
    for _ in range(8):
        bio = getattr(inner, "_read_bio", None) or getattr(inner, "_incoming", None)
        if bio is not None and bio.pending:
            return False
        protocol = getattr(inner, "_protocol", None)  # anyio's: a queue of what asyncio read
        if protocol is not None:
            if inner._receive_guard._guarded:  # noqa: SLF001  # a read is under way
                return False
            return not protocol.read_queue and not protocol.is_at_eof
        names = ("_stream", "transport_stream")
        inner = next((getattr(inner, name) for name in names if hasattr(inner, name)), None)
        if inner is None:
            break
    return True  # a socket of the standard library, which holds nothing itself


def read_on(connection: Any, seconds: float, most: int = 0) -> bytes:
    """Read a body on, to its end if that comes in time.

    Args:
        connection: The connection; whatever iterates over its body must not go on after.
        seconds: The longest time that this may take.
        most: How many bytes of the body are wanted; the rest is dropped.

    Returns:
        The bytes that are wanted, as far as they came.
    """
    body = _Rest(connection, seconds, most)
    with contextlib.suppress(*_failures()):
        while (left := body.seconds_to_read()) is not None:
            body.take(connection._network_stream.read(_READ_BYTES, timeout=left))  # noqa: SLF001
    return body.wanted


async def aread_on(connection: Any, seconds: float, most: int = 0) -> bytes:
    """The async twin of `read_on`."""
    body = _Rest(connection, seconds, most)
    with contextlib.suppress(*_failures()):
        while (left := body.seconds_to_read()) is not None:
            network = connection._network_stream  # noqa: SLF001
            body.take(await network.read(_READ_BYTES, timeout=left))
    return body.wanted


class _Rest:
    """The rest of a body, as far as it is read."""

    def __init__(self, connection: Any, seconds: float, most: int) -> None:
        self._state = connection._h11_state  # noqa: SLF001
        self._give_up = time.monotonic() + seconds
        self._most = most
        self.wanted = b""

    def take(self, data: bytes) -> None:
        self._state.receive_data(data)

    def seconds_to_read(self) -> float | None:
        """How long the next read may take; `None` if there is nothing more to read for."""
        import h11

        while (left := self._give_up - time.monotonic()) > 0:
            event = self._state.next_event()
            if event is h11.NEED_DATA:
                return left
            if not isinstance(event, h11.Data):
                return None
            if len(self.wanted) < self._most:
                self.wanted += event.data
                if len(self.wanted) >= self._most:
                    return None
        return None


def _failures() -> tuple[type[Exception], ...]:
    import h11
    import httpcore

    return (
        httpcore.TimeoutException,
        httpcore.NetworkError,
        httpcore.ProtocolError,
        h11.ProtocolError,
        ssl.SSLError,
        OSError,
    )
