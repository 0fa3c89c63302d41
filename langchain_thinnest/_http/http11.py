"""What httpcore keeps to itself of an HTTP/1.1 connection; nothing else reads it.

httpx has no public way to ask whether unread bytes are left on a connection, or to read a
body with a deadline. A connection whose state cannot be read (a mock's, another transport's)
is `None` here, and whoever asks closes it.
This module knows nothing of requests, or of what the bytes mean.
"""

from __future__ import annotations

import contextlib
import selectors
import ssl
import time
from typing import Any

_READ_BYTES = 64 * 1024
# From httpx's stream of a response down to the connection that it is read from.
_INWARDS = ("_stream", "_httpcore_stream", "_connection")


# No `select` where there is `poll`: it fails above descriptor 1023.
_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)


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


def is_over(connection: Any) -> bool:
    """Whether one request and its answer are over, and not a byte that was read follows."""
    import h11

    state = getattr(connection, "_h11_state", None)
    return (
        state is not None
        and state.our_state is h11.DONE
        and state.their_state is h11.DONE
        and state.trailing_data == (b"", False)
    )


class Socket:
    """The socket below a connection, and what stands between the two.

    Asking httpcore each time costs as much as a small answer does.
    """

    def __init__(self, connection: Any) -> None:
        """Find what may hold bytes that nobody has read.

        Raises:
            AttributeError: If it is not what httpcore uses.
        """
        self._network = connection._network_stream  # noqa: SLF001
        self._tls = self._network.get_extra_info("ssl_object")
        self._poll = _Selector()
        self._poll.register(self._network.get_extra_info("socket"), selectors.EVENT_READ)
        self._bios: list[Any] = []
        self._protocol: Any = None
        self._guard: Any = None
        inner = self._network
        while inner is not None:
            bio = getattr(inner, "_read_bio", None) or getattr(inner, "_incoming", None)
            if bio is not None:
                self._bios.append(bio)
            if hasattr(inner, "_protocol"):  # anyio's: a queue of what asyncio has read
                self._protocol = inner._protocol  # noqa: SLF001
                self._guard = inner._receive_guard  # noqa: SLF001
                break
            inner = getattr(inner, "_stream", None) or getattr(inner, "transport_stream", None)

    def is_below(self, connection: Any) -> bool:
        """Whether this is still the connection's socket."""
        return getattr(connection, "_network_stream", None) is self._network

    def is_quiet(self) -> bool:
        """Whether there is nothing to read, not even the end of the connection."""
        if self._tls is not None and self._tls.pending():
            return False
        if any(bio.pending for bio in self._bios):
            return False
        if self._protocol is not None and (
            self._protocol.read_queue or self._protocol.is_at_eof or self._guard._guarded  # noqa: SLF001  # a read is under way
        ):
            return False
        return not self._poll.select(0)


def socket_of(connection: Any) -> Socket | None:
    """Find the socket below a connection; `None` where that cannot be known."""
    try:
        return Socket(connection)
    except (AttributeError, ValueError, KeyError):  # ValueError, KeyError: it is closed
        return None


def is_clean(connection: Any) -> bool:
    """Whether a connection can serve another request."""
    return (
        is_over(connection)
        and (below := socket_of(connection)) is not None
        and below.is_quiet()
    )


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
        """Return how long the next read may take; `None` to stop reading."""
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
