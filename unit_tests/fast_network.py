"""The same network below `transport="fast"`: for the standard library's sockets, and aiohttp.

What these transports are given in place of a socket reads from the wires of `network.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import socket
from collections.abc import Callable
from typing import Any

import httpcore
import pytest

from unit_tests.network import Network, Wire

# What a socket's own errors are, by those that httpcore makes of them.
_RAISED: dict[type[Exception], Callable[[str], Exception]] = {
    httpcore.ConnectError: ConnectionRefusedError,
    httpcore.ConnectTimeout: TimeoutError,
    httpcore.ReadError: ConnectionResetError,
    httpcore.WriteError: BrokenPipeError,
    httpcore.WriteTimeout: TimeoutError,
}


@contextlib.contextmanager
def _as_sockets_do() -> Any:
    try:
        yield
    except tuple(_RAISED) as error:
        raise _RAISED[type(error)](str(error)) from error.__cause__ or error.__context__


class MemorySocket:
    """A blocking socket."""

    def __init__(self, wire: Wire, network: Network) -> None:
        self._wire, self._network = wire, network
        self._timeout: float | None = None

    def settimeout(self, seconds: float | None) -> None:
        self._timeout = seconds

    def setsockopt(self, *_: Any) -> None:
        pass

    def fileno(self) -> int:
        return self._wire.socket.fileno()

    def sendall(self, data: bytes) -> None:
        head, end, body = data.partition(b"\r\n\r\n")
        with _as_sockets_do():
            self._wire.write(head + end)
            if body:
                self._wire.write(body)

    def recv_into(self, buffer: Any) -> int:
        if self._wire.is_closed:
            raise OSError(errno.EBADF, "it is closed")
        left = self._wire.seconds_left
        limit = math.inf if self._timeout is None else self._timeout
        if limit == 0 < left:
            raise BlockingIOError(errno.EAGAIN, "nothing is there")
        assert min(left, limit) < math.inf, "this would wait for ever"
        if min(left, limit) > 0:
            self._network.clock.pass_(min(left, limit))
        if left > limit:
            raise TimeoutError("timed out")
        with _as_sockets_do():
            data = self._wire.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._wire.close()

    def _decref_socketios(self) -> None:
        pass


class MemoryTransport(asyncio.Transport):
    """A connection of asyncio, which reads as soon as there is something."""

    def __init__(self, wire: Wire, network: Network, protocol: Any) -> None:
        super().__init__({"socket": wire.socket})
        self._wire, self._network, self._protocol = wire, network, protocol
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._written = asyncio.Event()
        protocol.connection_made(self)
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        while not self._wire.is_closed:
            await self._may_read.wait()
            left = self._wire.seconds_left
            if left == math.inf:
                self._written.clear()
                await self._written.wait()
                continue
            await asyncio.sleep(left)
            try:
                with _as_sockets_do():
                    data = self._wire.read(64 * 1024)
            except OSError as error:
                self._lose(error)
                return
            if data:
                self._protocol.data_received(data)
            elif not self._protocol.eof_received():
                self.close()

    def write(self, data: Any) -> None:
        try:
            self._wire.write(bytes(data))
        except httpcore.WriteError:
            self._lose(BrokenPipeError("broken"))
        self._written.set()

    def pause_reading(self) -> None:
        self._may_read.clear()

    def resume_reading(self) -> None:
        self._may_read.set()

    def is_closing(self) -> bool:
        return self._wire.is_closed

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        if not self._wire.is_closed:
            self._lose(None)
            self._reading.cancel()

    def _lose(self, error: Exception | None) -> None:
        """Close it; the protocol is told a little later, as by asyncio."""
        self._wire.close()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, error)

    def abort(self) -> None:
        self.close()


def install(network: Network, patch: pytest.MonkeyPatch) -> None:
    """Have sockets of the standard library, and connections of aiohttp, go to a network."""

    def create_connection(address: tuple[str, int], timeout: Any = None) -> MemorySocket:
        with _as_sockets_do():
            return MemorySocket(network.connect(address[0]), network)

    patch.setattr(socket, "create_connection", create_connection)
    aiohttp = pytest.importorskip("aiohttp")

    class Connector(aiohttp.TCPConnector):  # type: ignore[misc, name-defined]
        async def _create_connection(self, request: Any, traces: Any, timeout: Any) -> Any:
            await network.hang("connect")
            try:
                with _as_sockets_do():
                    wire = network.connect(request.url.host)
            except TimeoutError as error:
                raise aiohttp.ConnectionTimeoutError(str(error)) from error
            except OSError as error:
                raise aiohttp.ClientConnectorError(request.connection_key, error) from error
            protocol = self._factory()
            MemoryTransport(wire, network, protocol)
            return protocol

    patch.setattr(aiohttp, "TCPConnector", Connector)
