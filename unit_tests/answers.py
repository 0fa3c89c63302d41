"""What a server answers, as the bytes of HTTP/1.1."""

from __future__ import annotations

import json
from typing import Any

HEADERS = {"Content-Type": "text/event-stream"}
END = b"0\r\n\r\n"


def head(
    status: int = 200, headers: dict[str, str] | None = None, version: str = "1.1"
) -> bytes:
    """A status line and headers."""
    lines = [f"HTTP/{version} {status} Whatever"]
    lines += [
        f"{name}: {value}" for name, value in (HEADERS if headers is None else headers).items()
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def stream(*data: bytes, headers: dict[str, str] | None = None) -> list[Any]:
    """A whole answer: a write for each of the data, and the end of a chunked body."""
    head_ = head(200, {**HEADERS, "Transfer-Encoding": "chunked", **(headers or {})})
    return [head_, *(chunk(piece) for piece in data), END]


def refusal(status: int, body: Any = None, headers: dict[str, str] | None = None) -> list[Any]:
    """A whole error response; the body goes out as JSON unless it is bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = "text/html" if isinstance(body, bytes) else "application/json"
    fields = {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}
    return [head(status, fields) + content]
