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
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

import httpx

_STREAMS_EACH = 20  # twice what the vendor allows at once on the paid plan


def is_loopback(host: str) -> bool:
    """Whether a host is this machine: then no proxy stands between, and http is safe."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


C = TypeVar("C", bound=httpx.Client | httpx.AsyncClient)


@dataclass
class _Lent(Generic[C]):
    """A client, and how many streams are open on it."""

    client: C
    streams: int = 0


class Loan(Generic[C]):
    """A client for one stream.

    Attributes:
        client: The client.
    """

    def __init__(self, client: C, give_back: Callable[[], list[Any]] = list) -> None:
        """Lend a client; by default one that is the caller's own."""
        self.client = client
        self._give_back = give_back

    def end(self) -> None:
        """The stream is closed: close the clients that are not needed any more."""
        for client in self._spare():
            client.close()

    async def aend(self) -> None:
        """The async twin of `end`."""
        for client in self._spare():
            await client.aclose()

    def _spare(self) -> list[Any]:
        give_back, self._give_back = self._give_back, list
        return give_back()


class _Shelf(Generic[C]):
    """The clients for one base URL.

    For every request, httpx looks at each connection of a client, and at idle ones twice: with
    hundreds, that takes longer than the answer. So a client carries a few streams, and where
    more are open, there are more clients; these go once they are not needed any more.
    """

    def __init__(self, make: Callable[[], C]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._lent: list[_Lent[C]] = []

    def lend(self) -> Loan[C]:
        with self._lock:
            lent = next((lent for lent in self._lent if lent.streams < _STREAMS_EACH), None)
            if lent is None:
                lent = _Lent(self._make())
                self._lent.append(lent)
            lent.streams += 1
        return Loan(lent.client, lambda: self._take_back(lent))

    def _take_back(self, lent: _Lent[C]) -> list[C]:
        spare = []
        with self._lock:
            lent.streams -= 1
            while (
                len(self._lent) > 1
                and not self._lent[-1].streams
                and self._lent[-2].streams < _STREAMS_EACH
            ):
                spare.append(self._lent.pop().client)
        return spare

    @property
    def clients(self) -> list[C]:
        return [lent.client for lent in self._lent]


class _Clients:
    """The process's own clients for sync calls."""

    def __init__(self) -> None:
        self._shelves: dict[str, _Shelf[httpx.Client]] = {}

    def lend(self, base_url: str, own: httpx.Client | None) -> Loan[httpx.Client]:
        """Lend a client, unless the caller has one."""
        if own is not None:
            return Loan(own)
        shelf = self._shelves.get(base_url)
        if shelf is None:
            shelf = _Shelf(lambda: httpx.Client(**_client_options(base_url)))
            shelf = self._shelves.setdefault(base_url, shelf)
        return shelf.lend()

    def close(self) -> None:
        for shelf in self._shelves.values():
            for client in shelf.clients:
                client.close()
        self.forget()

    def forget(self) -> None:
        """Drop the clients without closing them: after a fork they are the parent's."""
        self._shelves = {}


class _AsyncClients:
    """The same for async calls: an AsyncClient belongs to the loop that first used it.

    Each loop's clients live in an async generator suspended at its `yield`: the loop's own
    `shutdown_asyncgens`, which `asyncio.run` calls, closes them in the loop they belong to.
    """

    def __init__(self) -> None:
        # No weak keys: each generator knows its loop, and would keep it.
        self._by_loop: dict[
            asyncio.AbstractEventLoop,
            dict[str, tuple[_Shelf[httpx.AsyncClient], AsyncIterator[object]]],
        ] = {}

    async def lend(
        self, base_url: str, own: httpx.AsyncClient | None
    ) -> Loan[httpx.AsyncClient]:
        """Lend a client, unless the caller has one."""
        if own is not None:
            return Loan(own)
        shelves = self._by_loop.setdefault(asyncio.get_running_loop(), {})
        held = shelves.get(base_url)
        if held is None:
            life = self._live(base_url)
            # The first step of the generator does not suspend, so no other task comes
            # between the look and the entry.
            held = shelves[base_url] = (await life.__anext__(), life)
        return held[0].lend()

    async def _live(self, base_url: str) -> AsyncIterator[_Shelf[httpx.AsyncClient]]:
        shelf = _Shelf(lambda: httpx.AsyncClient(**_client_options(base_url)))
        try:
            yield shelf
        finally:
            self._by_loop.pop(asyncio.get_running_loop(), None)
            for client in shelf.clients:
                await client.aclose()


_ssl_context = cache(httpx.create_ssl_context)  # slow to make, and the same for all clients


def _client_options(base_url: str) -> dict[str, Any]:
    options: dict[str, Any] = {
        "verify": _ssl_context(),
        # Waiting for a connection of the pool would be a limit that nobody set. Idle ones
        # are dropped before a server's usual 5 s would drop them under a request.
        "limits": httpx.Limits(
            max_connections=None,
            max_keepalive_connections=_STREAMS_EACH,
            keepalive_expiry=4.0,
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
