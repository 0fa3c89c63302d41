"""Servers and models for the tests: the emulator, and the wire server."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from integration_tests import transports
from integration_tests.warm import Cold, Warm, warmed_up
from integration_tests.ways import V3_WAYS, WAYS
from integration_tests.wire import WireServer
from langchain_thinnest import ChatThinnest
from langchain_thinnest._answer import message
from langchain_thinnest._http import store
from langchain_thinnest.emulator import ThinnestEmulator, demo_agent
from unit_tests.contract import EVENTS

KEY = "ak_0123456789abcdef"
EXAMPLES_IMPORT = ["langchain_thinnest.chat_models", "langchain_thinnest.emulator"]
EXAMPLES_IMPORT += ["anyio._backends._asyncio"]
Make = Callable[..., ChatThinnest]


def example_agent(message: str, session: Any) -> Any:
    """Answers with the contract's example."""
    yield from EVENTS


def echo_agent(message: str, session: Any) -> Any:
    """Answers with what it was told, and how many turns it remembers."""
    yield f"{len(session.messages) // 2}: {message}"


# The files that take longest begin first, so that none is left alone at the end.
LONGEST = ["faults", "demo", "limits_in_processes", "notebooks", "lifetime", "limits"]
LONGEST += ["cancellation", "errors", "web_server", "chaos", "hover"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_configure() -> None:
    transports.use_it()


def pytest_collection_finish() -> None:
    """Spare the garbage collector the modules and the tests, which live to the end.

    Tests that look for what is left behind collect often, and each time takes 0.2 s otherwise.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def fresh_limits() -> None:
    """Forget what servers said of their limits: a port may be another server's by now."""
    store.forget()


@pytest.fixture(autouse=True)
def the_same_metadata_on_each_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests name all metadata of an answer; later cores are told one key more."""
    monkeypatch.setattr(message, "NORMALIZES", False)


@pytest.fixture
def emulator() -> Iterator[ThinnestEmulator]:
    agents = {"ag_example": example_agent, "ag_echo": echo_agent, "ag_demo": demo_agent}
    with ThinnestEmulator(agents, api_keys=[KEY]) as emulator:
        yield emulator


@pytest.fixture
def make(emulator: ThinnestEmulator) -> Make:
    """Makes a model that asks the emulator."""

    def make(agent_id: str = "ag_example", **fields: Any) -> ChatThinnest:
        given = {"api_key": KEY, "base_url": emulator.base_url, **fields}
        return ChatThinnest(agent_id=agent_id, **given)

    return make


@pytest.fixture
def wire() -> Iterator[WireServer]:
    with WireServer() as server:
        yield server


@pytest.fixture
def wired(wire: WireServer) -> Make:
    """Makes a model that asks the wire server."""

    def make(**fields: Any) -> ChatThinnest:
        given = {"agent_id": "ag_1", "api_key": KEY, "base_url": wire.base_url, **fields}
        return ChatThinnest(**given)

    return make


@pytest.fixture(scope="session")
def in_a_process() -> Iterator[Callable[..., Any]]:
    """Begins a function of `processes.py`, or of another module, in a process of its own."""
    flags = ["-X", "dev", "-W", "error::ResourceWarning"]
    # From Python 3.12 on, who forks is told of other threads: one that watches streams.
    flags += ["-W", "ignore:This process:DeprecationWarning"]
    warm, cold = warmed_up("integration_tests.conftest", flags=flags), Cold(*flags)

    def in_a_process(
        function: str, *arguments: str, module: str = "processes", is_cold: bool = False
    ) -> Any:
        python = cold if is_cold else warm
        return python.start(["-m", f"integration_tests.{module}", function, *arguments])

    yield in_a_process
    warm.close()


@pytest.fixture(scope="session")
def strict_python() -> Iterator[Warm | Cold]:
    """Runs code for which a warning is an error, as a test of an example does."""
    python = warmed_up(*EXAMPLES_IMPORT, flags=["-W", "error"])
    yield python
    python.close()


def _name(way: Any) -> str:
    return way.__name__


@pytest.fixture(params=WAYS, ids=_name)
def way(request: Any) -> Any:
    """Each of the ways to call a model."""
    return request.param


@pytest.fixture(params=[*WAYS, *V3_WAYS], ids=_name)
def any_way(request: Any) -> Any:
    """Each of the ways, the v3 event streams too."""
    return request.param
