"""Values that pass between callers, servers and `limits.py`. Times are in seconds."""

from __future__ import annotations

from typing import NamedTuple


class ReportedLimit(NamedTuple):
    """What a response's headers report about the window of requests."""

    limit: int | None = None
    remaining: int | None = None
    reset: float | None = None  # the server's stamp, which tells windows apart
    seconds: float | None = None  # until the reset, or as long as a refusal asks to wait


class Question(NamedTuple):
    """A caller's question: may this request go out?"""

    ticket: str  # its id
    arrived: float | None  # from an earlier reply; `None` for the first question
    lease: str  # an id for the stream, used once
    max_streams: int | None = None  # streams at once, if the user has set it
    own_streams: int = 0  # that the caller holds itself, so that it may not wait for them
    waits: bool = True  # without it, only `max_streams` holds the request back


class Reply(NamedTuple):
    """The answer: send it now, or ask again in `sleep` seconds."""

    is_admitted: bool
    sleep: float
    closed: float  # seconds until the used-up window ends; 0 if it is open
    arrived: float | None  # the ticket's place in the order of arrival
    accepts: int  # requests that the server has taken so far
