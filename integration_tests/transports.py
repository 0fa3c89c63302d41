"""Which transport, and whose clients, the tests use: two variables of the environment.

THINNEST_TEST_TRANSPORT=fast    the package's own connections are the fast ones
THINNEST_TEST_HTTPX=httpx2      clients that are given to a model are of httpx2
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from langchain_thinnest import ChatThinnest

GIVEN: Any = importlib.import_module(os.environ.get("THINNEST_TEST_HTTPX", "httpx"))
TRANSPORT = os.environ.get("THINNEST_TEST_TRANSPORT", "httpx")


def use_it() -> None:
    """Make it the default of all models in this process."""
    if ChatThinnest.model_fields["transport"].default != TRANSPORT:
        ChatThinnest.model_fields["transport"].default = TRANSPORT
        ChatThinnest.model_rebuild(force=True)


def fails_whole_answers(way: Any, transport: str = TRANSPORT) -> bool:
    """Whether garbage in the packet of an answer fails all of it: so aiohttp has it."""
    return transport == "fast" and way.__name__.removeprefix("chain_").startswith("a")
