"""A sync HTTP/1.1 connection on the standard library's `http.client`, as an httpx transport.

It costs less than half of httpx's own connection for each event. `http.client` accepts more
than HTTP allows, so this module checks what it lets pass: an incomplete head or body, a length
that is not a number, header lines that are none, and informational answers.
This module knows no proxies, and nothing of what requests and answers mean.
"""

from __future__ import annotations

import contextlib
import io
import re
import selectors
import socket
import ssl
import time
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from typing import Any

import httpx
from typing_extensions import Self, override

from langchain_thinnest._http.environment import tls_context
from langchain_thinnest._http.http11 import Selector
from langchain_thinnest._http.progress import PROGRESS, Progress, Sent

_READ_BYTES = 64 * 1024
_LINES = re.compile(rb"(?:[\w!#$%&'*+.^`|~-]+: [^\0\r\n]*\r\n)*")  # RFC 9110, 5.5 and 5.6.2
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r?\n")  # RFC 9112, 7.1
_DISCONNECTED = "Server disconnected without sending a response."
_INCOMPLETE = "peer closed connection without sending complete message body (incomplete read)"


class FastTransport(httpx.BaseTransport):
    """One connection. It is opened by the first request, and carries one at a time."""

    def __init__(self, url: httpx.URL) -> None:
        """Take the URL whose host to connect to.

        Raises:
            ThinnestConnectionError: If the CA certificates cannot be read.
        """
        self._url = url
        self._tls = tls_context(url) if url.scheme == "https" else None
        self._socket: Any = None
        self._answer: Any = None

    @override
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        timeouts = request.extensions["timeout"]
        progress: Progress = request.extensions.get(PROGRESS) or Progress()
        progress.sent = Sent.NO
        data = _written(request)
        if self._socket is None:
            with _as_httpx(httpx.ConnectTimeout, httpx.ConnectError):
                self._connect(timeouts["connect"])
            progress.networks.append(self._socket)
        progress.sent = Sent.UNKNOWN
        with _as_httpx(httpx.WriteTimeout, httpx.WriteError):
            self._socket.settimeout(timeouts["write"])
            try:
                self._socket.sendall(data)
                progress.sent = Sent.YES
            except ConnectionError:  # the server may have answered before it hung up
                pass
        with _as_httpx(httpx.ReadTimeout, httpx.ReadError):
            self._socket.settimeout(timeouts["read"])
            self._answer = answer = _Answer.begun(self._buffer)
        return httpx.Response(
            answer.status,
            headers=[(k.encode(), v.encode("latin-1")) for k, v in answer.headers.items()],
            stream=_Body(self, timeouts),
            extensions={
                "http_version": b"HTTP/1.1",
                "reason_phrase": answer.reason.encode("latin-1"),
            },
        )

    def _connect(self, timeout: float | None) -> None:
        host = self._url.host.strip("[]")
        port = self._url.port or (443 if self._url.scheme == "https" else 80)
        sock = socket.create_connection((host, port), timeout)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_hostname=host)
        except BaseException:
            sock.close()
            raise
        self._socket, self._buffer = sock, _Buffer(socket.SocketIO(sock, "r"), _READ_BYTES)
        self._selector = Selector()
        self._selector.register(sock, selectors.EVENT_READ)

    def read(self) -> bytes:
        """Read what there is of the body, at least a byte; empty at its end."""
        answer = self._answer
        is_between = answer.fp is not None and answer.chunked and answer.chunk_left is None
        if is_between and (arrived := _whole_chunks(self._buffer)):
            return arrived
        data: bytes = answer.read1(_READ_BYTES)
        if not data and answer.length:
            raise httpx.RemoteProtocolError(_INCOMPLETE)
        return data

    def set_timeout(self, seconds: float | None) -> None:
        """Set how long a read may take."""
        self._socket.settimeout(seconds)

    @override
    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    # --- what `http11` asks of a connection below a response, and of its socket ---

    def is_over(self) -> bool:
        is_read = self._answer.isclosed() or self._answer.length == 0
        return is_read and not self._answer.will_close

    def socket(self) -> Self:
        return self

    def is_below(self, below: object) -> bool:
        return below is self

    def is_quiet(self) -> bool:
        self._socket.settimeout(0)
        try:
            return not self._buffer.peek(1) and not self._selector.select(0)
        except ssl.SSLWantReadError:  # there is nothing to read
            return True
        except (OSError, ValueError):  # it is closed
            return False

    def read_on(self, seconds: float, most: int = 0) -> bytes:
        give_up = time.monotonic() + seconds
        wanted = b""
        with contextlib.suppress(OSError, HTTPException, ValueError, httpx.HTTPError):
            while (left := give_up - time.monotonic()) > 0:
                self._socket.settimeout(left)
                data = self.read()
                wanted += data[: most - len(wanted)]
                if not data or len(wanted) >= most > 0:
                    break
        return wanted


class _Body(httpx.SyncByteStream):
    """The body of an answer."""

    def __init__(self, connection: FastTransport, timeouts: dict[str, float | None]) -> None:
        self._connection = connection
        self._timeouts = timeouts

    def __iter__(self) -> Iterator[bytes]:
        self._connection.set_timeout(self._timeouts["read"])
        with _as_httpx(httpx.ReadTimeout, httpx.ReadError):
            while data := self._connection.read():
                yield data


class _Buffer(io.BufferedReader):
    """Reads a socket. It stays open, though an answer that is over closes it."""

    @override
    def flush(self) -> None:
        pass

    @override
    def close(self) -> None:
        pass


class _Head:
    """Lines from a buffer, as `http.client` reads a head."""

    def __init__(self, buffer: _Buffer) -> None:
        self._buffer = buffer
        self.is_cut = False

    def makefile(self, _: str) -> Self:
        return self

    def readline(self, size: int) -> bytes:
        line = self._buffer.readline(size)
        self.is_cut = len(line) < size and not line.endswith(b"\n")  # closed within it
        return line

    def flush(self) -> None:
        pass  # Python 3.13 asks for it when it forgets a response

    def close(self) -> None:
        pass


class _Answer(HTTPResponse):
    """`http.client`'s response, and what it does not look at."""

    @classmethod
    def begun(cls, buffer: _Buffer) -> Self:
        """Read a head, behind those that are only informational (RFC 9110, 15.2)."""
        while True:
            head: Any = _Head(buffer)
            answer = cls(head, method="POST")
            try:
                answer.begin()
            except HTTPException:  # a part of a status line is none
                if not head.is_cut:
                    raise
            if head.is_cut:
                raise httpx.RemoteProtocolError(_DISCONNECTED)
            if not 100 <= answer.status < 200 or answer.status == 101:
                break
        lengths = set(answer.headers.get_all("content-length", []))
        if answer.headers.defects or len(lengths) > 1 or not all(map(str.isdecimal, lengths)):
            raise httpx.RemoteProtocolError("illegal header line")
        if answer.fp is not None:
            answer.fp = buffer
        return answer

    def _get_chunk_left(self) -> int | None:
        left: int | None = self.chunk_left
        if left:
            return left
        if left == 0:
            self.fp.read(2)  # the line end of the last chunk
        line = self.fp.readline(_READ_BYTES)
        size = _CHUNK.fullmatch(line)  # `int`, which `http.client` uses, takes signs and more
        if size is None:
            raise httpx.RemoteProtocolError("illegal chunk header" if line else _INCOMPLETE)
        left = int(size[1], 16) or None
        if left is None:
            self._read_and_discard_trailer()  # type: ignore[attr-defined]
            self._close_conn()  # type: ignore[attr-defined]
        self.chunk_left = left
        return left


def _whole_chunks(buffer: _Buffer) -> bytes:
    """Read the chunks that have arrived whole; empty if the next one has not."""
    arrived = buffer.peek(1)
    chunks: list[bytes] = []
    at = 0
    while (size := _CHUNK.match(arrived, at)) is not None:
        begin = size.end()
        end = begin + int(size[1], 16)
        if begin == end or arrived[end : end + 2] != b"\r\n":
            break
        chunks.append(arrived[begin:end])
        at = end + 2
    buffer.read(at)
    return b"".join(chunks)


def _written(request: httpx.Request) -> bytes:
    lines = b"".join(b"%s: %s\r\n" % line for line in request.headers.raw)
    if not _LINES.fullmatch(lines):
        raise httpx.LocalProtocolError("Illegal header name or value")
    method, target = request.method.encode(), request.url.raw_path
    return b"%s %s HTTP/1.1\r\n%s\r\n%s" % (method, target, lines, request.content)


@contextlib.contextmanager
def _as_httpx(
    timeout: type[httpx.TimeoutException], failure: type[httpx.NetworkError]
) -> Iterator[None]:
    """Raise httpx's exceptions in place of the standard library's."""
    try:
        yield
    except TimeoutError as error:
        raise timeout(str(error)) from error
    except OSError as error:
        raise failure(str(error)) from error
    except (HTTPException, ValueError) as error:
        raise httpx.RemoteProtocolError(str(error) or repr(error)) from error
