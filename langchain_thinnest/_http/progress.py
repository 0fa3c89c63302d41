"""How far a request got: whether its message was sent, and over which sockets.

httpcore tells of each of its steps by the `trace` extension of a request. A transport that
tells of nothing (a mock, an ASGI app) leaves it unknown.
This module does no I/O.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

PROGRESS = "langchain_thinnest.progress"
"""The extension of a request that holds its `Progress`."""


class Sent(Enum):
    """Whether the message, the request's body, was sent."""

    NO = "no"
    UNKNOWN = "unknown"
    YES = "yes"


class Progress:
    """What httpcore reported of one request.

    Attributes:
        sent: Whether the message was sent; `None` if nothing was told.
        networks: httpcore's streams of the connections that were made, the outermost last.
        is_connecting: A connection was made for this request, and carries nothing yet.
        stream_id: HTTP/2's number of the request.
    """

    def __init__(self) -> None:
        """Begin with nothing reported."""
        self.sent: Sent | None = None
        self.networks: list[Any] = []
        self.is_connecting = False
        self.stream_id: int | None = None
        self._is_for_proxy = False

    def trace(self, name: str, info: dict[str, Any]) -> None:
        """Record one of httpcore's steps."""
        if self.sent is None:
            self.sent = Sent.NO
        _, _, step = name.partition(".")
        # `.started` comes before h11 has looked at the headers, which it may refuse.
        if step == "send_request_headers.started":
            self.is_connecting = False
            self._is_for_proxy = info["request"].method == b"CONNECT"
            self.stream_id = info.get("stream_id")
        elif step == "send_request_headers.complete":
            self._advance(Sent.UNKNOWN)
        elif step == "send_request_body.complete":
            self._advance(Sent.YES)
        elif step in ("connect_tcp.complete", "start_tls.complete"):
            self.is_connecting = True
            self.networks.append(info["return_value"])

    async def atrace(self, name: str, info: dict[str, Any]) -> None:
        """The async twin of `trace`."""
        self.trace(name, info)

    def _advance(self, sent: Sent) -> None:
        if not self._is_for_proxy:
            self.sent = sent
