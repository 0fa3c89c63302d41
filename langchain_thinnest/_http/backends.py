"""A place for rate-limit states outside this process: its URL, and how states are written."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic_core import from_json, to_json

from langchain_thinnest._http.limits import Limits

T = TypeVar("T")
Op = Callable[[Limits, float], T]


class Backend(Protocol):
    """A place for states, by name."""

    @property
    def pace(self) -> float:
        """Seconds of sleep for each place that a ticket is behind."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """By which it says that it is out of reach."""

    def apply(self, name: str, op: Op[T], *, is_read: bool) -> T:
        """Change a state as one step, as others see it.

        Args:
            name: Which state.
            op: What to do. It may be done again, on a newer state.
            is_read: Whether it is likely to change nothing.
        """

    def close(self) -> None:
        """Close the connection."""


class Memo:
    """The state that was written last, so that it need not be read again if it is the same."""

    def __init__(self) -> None:
        """Begin with none."""
        self._by_name: dict[str, tuple[bytes, Limits]] = {}

    def take(self, name: str, state: bytes | None) -> Limits:
        """Read a state, to be changed."""
        known = self._by_name.pop(name, None)
        return known[1] if known is not None and known[0] == state else load(state)

    def keep(self, name: str, state: bytes, limits: Limits) -> None:
        """Take note of what was written."""
        self._by_name[name] = (state, limits)


def load(state: bytes | str | None) -> Limits:
    """Read a state; one that cannot be read is as good as none."""
    try:
        return Limits(**from_json(state)) if state else Limits()
    except (ValueError, TypeError):
        return Limits()


def dump(limits: Limits) -> bytes:
    """Write a state."""
    return to_json(vars(limits))


def check(url: str) -> None:
    """Check the URL of a store.

    Raises:
        ValueError: It cannot be used; the text holds no password.
    """
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        if parts.netloc or parts.query or parts.fragment or not _path(parts).strip("/"):
            raise ValueError("must name a file by its whole path: sqlite:///var/tmp/limits.db")
        folder = os.path.dirname(_path(parts))  # noqa: PTH120
        if not os.path.isdir(folder) or os.path.isdir(_path(parts)):  # noqa: PTH112
            raise ValueError(f"names no file in a folder that exists: {_path(parts)!r}")
    elif parts.scheme in ("redis", "rediss"):
        try:
            is_whole = bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_whole = False
        if not is_whole or not (parts.path.strip("/") or "0").isdigit():
            raise ValueError("must be like redis://host:6379/0")
        try:
            import redis  # noqa: F401
        except ImportError as error:
            raise ValueError(
                'needs the extra `redis`: pip install "langchain-thinnest[redis]"'
            ) from error
    else:
        raise ValueError("must begin with sqlite:///, redis:// or rediss://")


def _path(parts: SplitResult) -> str:
    path = "/" + unquote(parts.path).lstrip("/")
    return path[1:] if path[2:3] == ":" else path  # C:/folder


def open_backend(url: str) -> Backend:
    """Open the store at a URL."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        from langchain_thinnest._http.store_sqlite import SqliteBackend

        return SqliteBackend(_path(parts))
    from langchain_thinnest._http.store_redis import RedisBackend

    return RedisBackend(url)
