"""Rate-limit state for one endpoint and API key: numbers, and what follows from them.

A caller asks whether its request may go out, or else sleeps for a while and asks again. Nobody
waits for another caller, so none that dies, hangs or is cancelled can hold up the rest.

- Window: requests left (the lowest `X-RateLimit-Remaining` told for a reset) minus requests
  sent and not answered yet. Answers may come in any order. When the window has ended, as many
  as its limit may go until an answer tells more.
- Streams: a lease each, from before the request until the stream is closed. The most that
  may be open is given by the user, or learned from refusals: the peak of streams that were
  answered and open. It rises slowly, and more slowly after each refusal.
- Tickets: who waits, in order of arrival. A ticket may go if there are fewer live tickets
  before it than free places. One that has not asked for `LIVE` seconds no longer counts.

This file may not know clocks, locks, stores or HTTP. Every method is given the time in seconds
(`now`, by one clock for all callers) and returns at once.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from math import inf
from typing import Any

from langchain_thinnest._http.limit_types import Question, Reply, ReportedLimit

PACE = 0.003  # seconds of sleep for each place that a ticket is behind
LONGEST_SLEEP = 1.0
LIVE = 2.0  # seconds without asking, after which a ticket counts no more
LEASE = 25.0  # seconds after which a lease ends that is not renewed, in shared stores
BELIEF = 60.0  # seconds after which one request checks whether a reported limit still holds
MARGIN = 0.05  # seconds after a reset
_REFRESH = 0.5  # seconds between two writes of a waiting ticket's time
_UNANSWERED = 5.0  # seconds for which a request without an answer holds others back
_FIRST, _FURTHER, _KNOWN = 5, 2, 100  # slow start: streams at first, more for each answer
_PATIENCE, _MOST_PATIENCE = 10.0, 160.0


@dataclass
class Limits:
    """Rate-limit state for one endpoint and API key; see the top of the file."""

    at: float = 0.0  # the time of the last call
    swept: float = 0.0
    limit: int | None = None
    remaining: int | None = None
    reset: float = 0.0
    window_ends: float = 0.0  # the window's end, by our clock
    reported_at: float = 0.0  # when the server told of it
    max_streams: int | None = None  # streams at once, as learned
    peak: int = 0  # streams answered and open at once, since `learned_at`
    learned_at: float = -1.0  # when `max_streams` changed last
    patience: float = _PATIENCE  # seconds, or answers for each stream, before it rises
    since: int = 0  # answers since `learned_at`
    is_rising: bool = False  # `max_streams` is more than was ever answered at once
    accepts: int = 0
    refusals: int = 0  # in a row
    row_began: float = 0.0  # when the row began
    tickets: list[list[Any]] = field(default_factory=list)  # [arrived, ticket, last asked]
    leases: dict[str, float] = field(default_factory=dict)  # open streams: when they end
    unanswered: dict[str, float] = field(default_factory=dict)  # of them: when they were sent
    is_changed: bool = True  # by the last call, beyond what time alone changes

    def ask(self, question: Question, now: float, lasts: float = inf) -> Reply:
        """Decide whether a request may go out now; if so, book its lease."""
        ticket, arrived, lease, max_streams, own_streams, waits = question
        self._advance(now)
        arrived = now if arrived is None else min(arrived, now)
        rank = bisect_left(self.tickets, [arrived, ticket])
        is_known = rank < len(self.tickets) and self.tickets[rank][1] == ticket
        streams = self._streams(now, max_streams) + own_streams
        free = min(self._requests(now), streams)
        is_admitted = (0 if own_streams else rank) < free
        if not waits:
            is_admitted = max_streams is None or streams > 0
        if is_admitted:
            self.leases[lease] = now + lasts
            self.unanswered[lease] = now
            if is_known:
                del self.tickets[rank]
            return Reply(True, 0.0, 0.0, arrived, self.accepts)
        self.is_changed = not is_known or now - self.tickets[rank][2] > _REFRESH
        if not is_known:
            insort(self.tickets, [arrived, ticket, now])
        elif self.is_changed:
            self.tickets[rank][2] = now
        closed = (
            self.window_ends - now
            if self._requests(now) <= 0 and now < self.window_ends
            else 0.0
        )
        sleep = (
            min(closed, self.reported_at + BELIEF - now)
            if closed
            else PACE * (rank + 1 - free)
        )
        sleep = min(max(sleep, PACE), LONGEST_SLEEP)
        return Reply(False, sleep, closed, arrived, self.accepts)

    def accepted(self, lease: str, reported: ReportedLimit, now: float) -> None:
        """Record that the server answered a request."""
        self._advance(now)
        sent = self.unanswered.pop(lease, self.reported_at)
        self.accepts, self.since, self.refusals = self.accepts + 1, self.since + 1, 0
        answered = len(self.leases) - len(self.unanswered)
        self.peak = max(self.peak, answered)
        if self.max_streams is not None and answered >= self.max_streams:
            if self.is_rising:  # the server takes more than was learned
                self.patience, self.is_rising = max(1.0, self.patience / 2), False
            enough = self.since >= self.patience * self.max_streams
            if answered > self.max_streams or enough or now - self.learned_at >= self.patience:
                self._learn_streams(max(answered, self.max_streams + 1), now, is_rising=True)
        self._learn_window(reported, sent, now)

    def refused(
        self, lease: str, ticket: str, arrived: float, reported: ReportedLimit, now: float
    ) -> tuple[int, int, float]:
        """Record that a limit refused a request; the caller keeps its position in the queue.

        Returns requests taken so far, refusals since the last of them, and their seconds.
        """
        self._advance(now)
        sent = self.unanswered.pop(lease, self.learned_at)
        self.leases.pop(lease, None)
        self.row_began = self.row_began if self.refusals else now
        self.refusals += 1
        back = now
        asks_all = reported.remaining is None and reported.seconds is not None
        if reported.remaining == 0 or (asks_all and (reported.seconds or 0.0) <= BELIEF):
            is_early = (
                reported.reset is not None
                and reported.reset <= self.reset
                and now >= self.window_ends
            )
            self.limit = 1 if is_early else reported.limit or self.limit
            self.remaining, self.reported_at = 0, now
            self.reset = max(self.reset, reported.reset or 0.0)
            seconds = LONGEST_SLEEP if reported.seconds is None else reported.seconds
            self.window_ends = now + max(seconds, 0.2 if is_early else 0.0) + MARGIN
            back = min(self.window_ends, now + BELIEF)
        if reported.remaining != 0 and sent > self.learned_at:
            if self.is_rising:  # too soon
                self.patience = min(_MOST_PATIENCE, self.patience * 2)
            self._learn_streams(max(1, self.peak), now, is_rising=False)
        insort(self.tickets, [min(arrived, now), ticket, back])
        return self.accepts, self.refusals, now - self.row_began

    def end(self, ids: list[str], now: float) -> None:
        """Remove leases of closed streams, and tickets of callers that stopped asking."""
        self._advance(now)
        ended = set(ids)
        for lease in ended & self.leases.keys():
            del self.leases[lease]
            if self.unanswered.pop(lease, None) is not None and self.remaining:
                self.remaining -= 1  # the server may have counted it
        self.tickets = [ticket for ticket in self.tickets if ticket[1] not in ended]

    def renew(self, leases: list[str], now: float, lasts: float = LEASE) -> None:
        """Extend the leases of streams that are still open."""
        self._advance(now)
        self.leases.update(dict.fromkeys(leases, now + lasts))

    def _requests(self, now: float) -> float:
        """Return how many requests the window still allows."""
        if self.remaining is None:
            return inf
        remaining, since = self.remaining, 0.0
        if now >= self.window_ends:
            remaining, since = max(1, self.limit or 1), max(self.window_ends, now - BELIEF)
        elif now >= self.reported_at + BELIEF:
            remaining = max(1, remaining)
        return remaining - sum(sent >= since for sent in self.unanswered.values())

    def _streams(self, now: float, max_streams: int | None) -> float:
        """Return how many more streams may be opened."""
        if max_streams is None:
            max_streams = self.max_streams
        if max_streams is not None:
            return max_streams - len(self.leases)
        if self.accepts >= _KNOWN:
            return inf
        slow = sum(sent < now - _UNANSWERED for sent in self.unanswered.values())
        return _FIRST + _FURTHER * self.accepts + slow - len(self.leases)

    def _learn_streams(self, max_streams: int, now: float, *, is_rising: bool) -> None:
        self.max_streams, self.learned_at, self.since, self.is_rising = (
            max_streams,
            now,
            0,
            is_rising,
        )
        self.peak = len(self.leases) - len(self.unanswered)

    def _learn_window(self, reported: ReportedLimit, sent: float, now: float) -> None:
        if reported.remaining is None or reported.reset is None or reported.seconds is None:
            if now >= self.window_ends:
                self.remaining = None
            return
        is_over = now >= min(self.window_ends, self.reported_at + BELIEF)
        if (
            self.remaining is None
            or reported.reset > self.reset
            or sent > self.reported_at
            or is_over
        ):
            self.remaining, self.limit, self.reset = (
                reported.remaining,
                reported.limit,
                reported.reset,
            )
            self.window_ends, self.reported_at = now + reported.seconds + MARGIN, now
        else:  # it was sent before the last answer came
            self.remaining = min(self.remaining, reported.remaining)

    def _advance(self, now: float) -> None:
        """Set the time, and drop expired tickets and leases."""
        if now < self.at - 1.0:  # the clock was set back: no time above means anything
            vars(self).update(vars(Limits()))
        self.at, self.is_changed = now, True
        if now - self.swept > _REFRESH:
            self.swept = now
            self.tickets = [ticket for ticket in self.tickets if ticket[2] > now - LIVE]
            for lease in [lease for lease, end in self.leases.items() if end < now]:
                self.unanswered.pop(lease, None)
                del self.leases[lease]
