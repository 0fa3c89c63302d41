"""The process's own httpx clients: calls to the same base URL share their connections.

A model made anew for each call (`configurable_fields` makes one) thus costs no connection.
This module knows nothing of requests.
"""

from __future__ import annotations

import asyncio
import atexit
import ipaddress
import os
import threading
from collections.abc import AsyncIterator
from functools import cache
from typing import Any

import httpx


def is_loopback(host: str) -> bool:
    """Whether a host is this machine: then no proxy stands between, and http is safe."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class _Clients:
    """The process's own httpx clients: models with the same endpoint share connections."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: dict[str, httpx.Client] = {}

    def get(self, base_url: str) -> httpx.Client:
        client = self._clients.get(base_url)
        if client is None:
            with self._lock:
                client = self._clients.get(base_url)
                if client is None:
                    client = httpx.Client(**_client_options(base_url))
                    self._clients[base_url] = client
        return client

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        self.forget()

    def forget(self) -> None:
        """Drop the clients without closing them: after a fork they are the parent's."""
        self._lock = threading.Lock()
        self._clients = {}


class _AsyncClients:
    """The same for async calls: an AsyncClient belongs to the loop that first used it.

    Each loop's client lives in an async generator suspended at its `yield`: the loop's own
    `shutdown_asyncgens`, which `asyncio.run` calls, closes it in the loop it belongs to.
    """

    def __init__(self) -> None:
        # No weak keys: each generator knows its loop, and would keep it.
        self._by_loop: dict[
            asyncio.AbstractEventLoop,
            dict[str, tuple[httpx.AsyncClient, AsyncIterator[httpx.AsyncClient]]],
        ] = {}

    async def get(self, base_url: str) -> httpx.AsyncClient:
        clients = self._by_loop.setdefault(asyncio.get_running_loop(), {})
        held = clients.get(base_url)
        if held is None:
            life = self._live(base_url)
            # The first step of the generator does not suspend, so no other task comes
            # between the look and the entry.
            held = clients[base_url] = (await life.__anext__(), life)
        return held[0]

    async def _live(self, base_url: str) -> AsyncIterator[httpx.AsyncClient]:
        client = httpx.AsyncClient(**_client_options(base_url))
        try:
            yield client
        finally:
            self._by_loop.pop(asyncio.get_running_loop(), None)
            await client.aclose()


_ssl_context = cache(httpx.create_ssl_context)  # slow to make, and the same for all clients


def _client_options(base_url: str) -> dict[str, Any]:
    options: dict[str, Any] = {
        "verify": _ssl_context(),
        # Waiting for a connection of the pool would be a limit that nobody set. Idle ones
        # are dropped before a server's usual 5 s would drop them under a request.
        "limits": httpx.Limits(
            max_connections=None, max_keepalive_connections=100, keepalive_expiry=4.0
        ),
    }
    host = httpx.URL(base_url).host
    if is_loopback(host):  # proxies from the environment do not stand before loopback
        options["mounts"] = {f"all://[{host}]" if ":" in host else f"all://{host}": None}
    return options


CLIENTS = _Clients()
ASYNC_CLIENTS = _AsyncClients()
atexit.register(CLIENTS.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=CLIENTS.forget)
