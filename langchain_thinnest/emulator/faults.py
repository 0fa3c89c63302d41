"""What can be made to go wrong with a request, on purpose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong with one request; make it with one of the class methods.

    Example:
        ```python
        emulator.fail_next(Fault.status(429, retry_after=1), times=2)
        emulator.fail_next(Fault.cut(after=3))
        ```
    """

    kind: Literal["status", "cut", "stall", "error"]
    after: int = 0
    code: int = 0
    seconds: float = 0.0
    message: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def status(
        cls,
        code: int,
        message: str = "The emulator was told to fail",
        *,
        retry_after: float | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Fault:
        """Refuse the request.

        Args:
            code: The HTTP status.
            message: What the body's `detail` says.
            retry_after: The `Retry-After` header: seconds, or an HTTP date.
            headers: Other headers to send.
        """
        asked = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return cls("status", code=code, message=message, headers={**(headers or {}), **asked})

    @classmethod
    def cut(cls, *, after: int = 0) -> Fault:
        """Close the connection in the middle of the answer, after some events."""
        return cls("cut", after=after)

    @classmethod
    def stall(cls, seconds: float, *, after: int = 0) -> Fault:
        """Send nothing for some seconds, after some events, and go on."""
        return cls("stall", after=after, seconds=seconds)

    @classmethod
    def error(cls, message: str = "The emulator was told to fail", *, after: int = 0) -> Fault:
        """Send an `error` event in place of the rest of the answer, after some events."""
        return cls("error", after=after, message=message)
