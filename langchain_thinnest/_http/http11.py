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
import sys
import time
from typing import Any, Protocol

_READ_BYTES = 64 * 1024
# From httpx's stream of a response down to the connection that it is read from.
_INWARDS = ("_stream", "_connection", "_httpcore_stream")


# No `select` where there is `poll`: it fails above descriptor 1023.
Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)


def connection_of(stream: object) -> Any:
    """Find the HTTP/1.1 connection below a response's stream; `None` if there is none."""
    inner: Any = stream
    for _ in range(12):
        for name in _INWARDS:
            if (below := getattr(inner, name, None)) is not None:
                inner = below
                break
        else:
            if hasattr(inner, "_h11_state") and hasattr(inner, "_network_stream"):
                return HttpcoreConnection(inner)
            return inner if hasattr(inner, "is_over") else None
    return None


class Below(Protocol):
    """A connection below a response, as far as this package looks into it."""

    def is_over(self) -> bool:
        """Whether one request and its answer are over, and no byte that was read follows."""

    def socket(self) -> Any:
        """Find its socket, which has the methods of `Socket`; `None` if it has none."""


class HttpcoreConnection:
    """A connection of httpcore's."""

    __slots__ = ("connection",)

    def __init__(self, connection: Any) -> None:
        """Look into a connection."""
        self.connection = connection

    def is_over(self) -> bool:
        import h11

        state = self.connection._h11_state  # noqa: SLF001
        return (
            state.our_state is h11.DONE
            and state.their_state is h11.DONE
            and state.trailing_data == (b"", False)
        )

    def socket(self) -> Socket | None:
        try:
            return Socket(self.connection)
        except (AttributeError, ValueError, KeyError):  # ValueError, KeyError: it is closed
            return None

    def close(self) -> None:
        self.connection.close()

    async def aclose(self) -> None:
        await self.connection.aclose()

    def read_on(self, seconds: float, most: int = 0) -> bytes:
        """Read a body on, to its end if that comes in time; for a sync connection.

        Whatever iterates over its body must not go on after.

        Args:
            seconds: The longest time that this may take.
            most: How many bytes of the body are wanted; the rest is dropped.

        Returns:
            The bytes that are wanted, as far as they came.
        """
        body = _Rest(self.connection, seconds, most)
        network = self.connection._network_stream  # noqa: SLF001
        with contextlib.suppress(*_failures()):
            while (left := body.seconds_to_read()) is not None:
                body.take(network.read(_READ_BYTES, timeout=left))
        return body.wanted


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
        self._poll = Selector()
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

    def is_below(self, below: Any) -> bool:
        """Whether this is still the connection's socket."""
        return below.connection._network_stream is self._network  # noqa: SLF001

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


def is_clean(below: Below) -> bool:
    """Whether a connection can serve another request."""
    return below.is_over() and (socket := below.socket()) is not None and socket.is_quiet()


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

    libraries = [it for name in ("httpcore", "httpcore2") if (it := sys.modules.get(name))]
    return (
        *(library.TimeoutException for library in libraries),
        *(library.NetworkError for library in libraries),
        *(library.ProtocolError for library in libraries),
        h11.ProtocolError,
        ssl.SSLError,
        OSError,
    )
