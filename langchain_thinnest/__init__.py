"""LangChain integration for thinnest.ai, a service that hosts AI agents."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_thinnest._answer.server_tools import expand_server_tools
    from langchain_thinnest.agents import create_thinnest_agent as create_thinnest_agent
    from langchain_thinnest.chat_models import ChatThinnest
    from langchain_thinnest.errors import (
        ThinnestAuthenticationError,
        ThinnestBalanceError,
        ThinnestConnectionError,
        ThinnestError,
        ThinnestGenerationError,
        ThinnestInterruptedError,
        ThinnestNotFoundError,
        ThinnestPermissionError,
        ThinnestProtocolError,
        ThinnestRateLimitError,
        ThinnestRequestError,
        ThinnestServerError,
        ThinnestStreamError,
        ThinnestTimeoutError,
        is_retryable,
    )

    __version__: str

__all__ = [
    "ChatThinnest",
    "ThinnestAuthenticationError",
    "ThinnestBalanceError",
    "ThinnestConnectionError",
    "ThinnestError",
    "ThinnestGenerationError",
    "ThinnestInterruptedError",
    "ThinnestNotFoundError",
    "ThinnestPermissionError",
    "ThinnestProtocolError",
    "ThinnestRateLimitError",
    "ThinnestRequestError",
    "ThinnestServerError",
    "ThinnestStreamError",
    "ThinnestTimeoutError",
    "expand_server_tools",
    "is_retryable",
]
# `create_thinnest_agent` is public too, but `import *` must not need its extra.

_HOMES = {
    "ChatThinnest": "langchain_thinnest.chat_models",
    "create_thinnest_agent": "langchain_thinnest.agents",
    "expand_server_tools": "langchain_thinnest._answer.server_tools",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: importing the package costs nothing."""
    if name == "__version__":  # of what is installed: pyproject.toml is where it is set
        from importlib.metadata import version

        return version("langchain-thinnest")
    if name not in __all__ and name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES.get(name, "langchain_thinnest.errors")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_HOMES, "__version__"})
