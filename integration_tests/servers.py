"""Servers that tests begin as processes of their own."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

import httpx


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def until_it_serves(
    url: str, server: subprocess.Popen[bytes], log: Path, seconds: float = 60.0
) -> None:
    """Wait until a server answers; say what it logged if it does not."""
    give_up = time.monotonic() + seconds
    while server.poll() is None and time.monotonic() < give_up:
        try:
            httpx.get(url, trust_env=False)
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"{url} does not answer:\n{log.read_text('utf-8')}")
