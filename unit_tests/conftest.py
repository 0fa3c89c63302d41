"""How long hypothesis looks: `--hypothesis-profile` chooses. And what tests of calls need."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_socket
from hypothesis import HealthCheck, settings

from langchain_thinnest import ChatThinnest
from langchain_thinnest._answer import message
from langchain_thinnest._http import store
from langchain_thinnest._http.transport import CLIENTS
from unit_tests import fast_network
from unit_tests.network import Clock, Network, Side

# The machine may be busy. `make fuzz` looks longer.
settings.register_profile("default", deadline=None, max_examples=30)
settings.register_profile("fuzz", deadline=None, max_examples=20_000)
settings.register_profile(
    "mutants",
    deadline=None,
    max_examples=30,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("default")

KEY = "ak_0123456789abcdef"
Make = Callable[..., ChatThinnest]


@pytest.fixture(autouse=True)
def _no_socket() -> Iterator[None]:
    """Event loops have a pair of Unix sockets to wake themselves up by; else there is none."""
    pytest_socket.disable_socket(allow_unix_socket=True)
    yield
    pytest_socket.enable_socket()


@pytest.fixture(autouse=True)
def the_same_metadata_on_each_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests name all metadata of an answer; later cores are told one key more."""
    monkeypatch.setattr(message, "NORMALIZES", False)


@pytest.fixture
def collect() -> Callable[[], int]:
    """Collects the garbage of this test; all that was there before takes long to look at."""
    gc.collect()
    gc.freeze()
    return gc.collect


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Virtual time, for all code of this process."""
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    monkeypatch.setattr(time, "sleep", clock.sleep)
    return clock


@pytest.fixture
def network(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    """A network in memory."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    store.forget()  # its times are of another clock
    network = Network(clock)
    network.install(monkeypatch)
    yield network
    network.close()
    CLIENTS._clients.clear()  # whose connections lead into this network


@pytest.fixture(params=["sync", "async"])
def side(clock: Clock, request: pytest.FixtureRequest) -> Iterator[Side]:
    """The sync side, and the async one."""
    side = Side(clock, is_async=request.param == "async")
    yield side
    side.close_loop()


@pytest.fixture(params=["httpx", "fast"])
def transport(
    request: pytest.FixtureRequest, network: Network, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The model's `transport`."""
    if request.param == "fast":
        fast_network.install(network, monkeypatch)
    return str(request.param)


@pytest.fixture
def make(network: Network) -> Make:
    """Makes a model that asks the server of the network."""

    def make(**fields: Any) -> ChatThinnest:
        given = {"agent_id": "ag_1", "api_key": KEY, "base_url": network.base_url}
        return ChatThinnest(**{**given, **fields})

    return make
