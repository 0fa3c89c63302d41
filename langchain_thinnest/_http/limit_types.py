"""What callers, servers and rate limits tell each other. Times are in seconds."""

from __future__ import annotations

from typing import NamedTuple


class ReportedLimit(NamedTuple):
    """What a response's headers say of the window of requests."""

    limit: int | None = None
    remaining: int | None = None
    reset: float | None = None  # the server's stamp, which tells windows apart
    seconds: float | None = None  # until the reset, or as long as a refusal asks to wait


class Question(NamedTuple):
    """What a caller asks."""

    ticket: str  # its id
    arrived: float | None  # as an earlier reply said
    lease: str  # an id for the stream, used once
    max_streams: int | None = None  # streams at once, if the user has set it
    own_streams: int = (
        0  # streams that the caller holds itself, so that it may not wait for them
    )
    waits: bool = True  # or else it stops at nothing but `most`


class Reply(NamedTuple):
    """What a caller is told: to go, or to ask again in `sleep` seconds."""

    is_admitted: bool
    sleep: float
    closed: float  # seconds until the window ends by the server's word; 0 if it is open
    arrived: float | None  # the ticket's place in the order of arrival
    accepts: int  # requests that the server has taken so far
