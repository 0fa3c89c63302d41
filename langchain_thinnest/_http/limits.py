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

from langchain_thinnest._http.limit_types import Question, Reply, Told

PACE = 0.003  # seconds of sleep for each place that a ticket is behind
LONGEST_SLEEP = 1.0
LIVE = 2.0  # seconds without asking, after which a ticket counts no more
LEASE = 25.0  # seconds after which a lease ends that is not renewed, in shared stores
BELIEF = 60.0  # seconds after which one request asks whether the server's word still holds
MARGIN = 0.05  # seconds after a reset
_REFRESH = 0.5  # seconds between two writes of a waiting ticket's time
_UNANSWERED = 5.0  # seconds for which a request without an answer holds others back
_FIRST, _FURTHER, _KNOWN = 5, 2, 100  # slow start: streams at first, more for each answer
_PATIENCE, _MOST_PATIENCE = 10.0, 160.0


@dataclass
class Limits:
    """What is known of one endpoint and key; see the top of the file."""

    at: float = 0.0  # the time of the last call
    swept: float = 0.0
    limit: int | None = None
    left: int | None = None
    reset: float = 0.0
    ends: float = 0.0  # the window's end, by our clock
    told: float = 0.0  # when the server told of it
    most: int | None = None  # streams at once, as learned
    peak: int = 0  # streams answered and open at once, since the last lesson
    lesson: float = -1.0  # when `most` changed last
    patience: float = _PATIENCE  # seconds, or answers for each stream, before it rises
    since: int = 0  # answers since the last lesson
    is_rising: bool = False  # `most` is more than was ever answered at once
    accepts: int = 0
    refusals: int = 0  # in a row
    row: float = 0.0  # when the row began
    tickets: list[list[Any]] = field(default_factory=list)  # [came, ticket, last asked]
    leases: dict[str, float] = field(default_factory=dict)  # open streams: when they end
    unanswered: dict[str, float] = field(default_factory=dict)  # of them: when they were sent
    is_changed: bool = True  # by the last call, beyond what time alone changes

    def ask(self, question: Question, now: float, lasts: float = inf) -> Reply:
        """Ask whether a request may go out; if so, its lease is booked for so many seconds."""
        ticket, came, lease, most, own, waits = question
        self._advance(now)
        came = now if came is None else min(came, now)
        rank = bisect_left(self.tickets, [came, ticket])
        is_known = rank < len(self.tickets) and self.tickets[rank][1] == ticket
        streams = self._streams(now, most) + own
        free = min(self._requests(now), streams)
        goes = (0 if own else rank) < free
        if not waits:
            goes = most is None or streams > 0
        if goes:
            self.leases[lease] = now + lasts
            self.unanswered[lease] = now
            if is_known:
                del self.tickets[rank]
            return Reply(True, 0.0, 0.0, came, self.accepts)
        self.is_changed = not is_known or now - self.tickets[rank][2] > _REFRESH
        if not is_known:
            insort(self.tickets, [came, ticket, now])
        elif self.is_changed:
            self.tickets[rank][2] = now
        closed = self.ends - now if self._requests(now) <= 0 and now < self.ends else 0.0
        sleep = min(closed, self.told + BELIEF - now) if closed else PACE * (rank + 1 - free)
        sleep = min(max(sleep, PACE), LONGEST_SLEEP)
        return Reply(False, sleep, closed, came, self.accepts)

    def accepted(self, lease: str, told: Told, now: float) -> None:
        """The server answers a request."""
        self._advance(now)
        sent = self.unanswered.pop(lease, self.told)
        self.accepts, self.since, self.refusals = self.accepts + 1, self.since + 1, 0
        answered = len(self.leases) - len(self.unanswered)
        self.peak = max(self.peak, answered)
        if self.most is not None and answered >= self.most:
            if self.is_rising:  # the server takes more than it was thought to
                self.patience, self.is_rising = max(1.0, self.patience / 2), False
            enough = self.since >= self.patience * self.most
            if answered > self.most or enough or now - self.lesson >= self.patience:
                self._learn_streams(max(answered, self.most + 1), now, is_rising=True)
        self._learn_window(told, sent, now)

    def refused(
        self, lease: str, ticket: str, came: float, told: Told, now: float
    ) -> tuple[int, int, float]:
        """The server refuses a request by a limit; the caller keeps its place in the order.

        Returns requests taken so far, refusals since the last of them, and their seconds.
        """
        self._advance(now)
        sent = self.unanswered.pop(lease, self.lesson)
        self.leases.pop(lease, None)
        self.row = self.row if self.refusals else now
        self.refusals += 1
        back = now
        asks_all = told.remaining is None and told.seconds is not None
        if told.remaining == 0 or (asks_all and (told.seconds or 0.0) <= BELIEF):
            is_early = told.reset is not None and told.reset <= self.reset and now >= self.ends
            self.limit = 1 if is_early else told.limit or self.limit
            self.left, self.told = 0, now
            self.reset = max(self.reset, told.reset or 0.0)
            seconds = LONGEST_SLEEP if told.seconds is None else told.seconds
            self.ends = now + max(seconds, 0.2 if is_early else 0.0) + MARGIN
            back = min(self.ends, now + BELIEF)
        if told.remaining != 0 and sent > self.lesson:
            if self.is_rising:  # too soon
                self.patience = min(_MOST_PATIENCE, self.patience * 2)
            self._learn_streams(max(1, self.peak), now, is_rising=False)
        insort(self.tickets, [min(came, now), ticket, back])
        return self.accepts, self.refusals, now - self.row

    def end(self, ids: list[str], now: float) -> None:
        """Streams are closed, or callers ask no more: take leases and tickets away."""
        self._advance(now)
        gone = set(ids)
        for lease in gone & self.leases.keys():
            del self.leases[lease]
            if self.unanswered.pop(lease, None) is not None and self.left:
                self.left -= 1  # the server may have counted it
        self.tickets = [ticket for ticket in self.tickets if ticket[1] not in gone]

    def renew(self, leases: list[str], now: float, lasts: float = LEASE) -> None:
        """Streams are still open."""
        self._advance(now)
        self.leases.update(dict.fromkeys(leases, now + lasts))

    def _requests(self, now: float) -> float:
        """Requests that the window has left."""
        if self.left is None:
            return inf
        left, since = self.left, 0.0
        if now >= self.ends:
            left, since = max(1, self.limit or 1), max(self.ends, now - BELIEF)
        elif now >= self.told + BELIEF:
            left = max(1, left)
        return left - sum(sent >= since for sent in self.unanswered.values())

    def _streams(self, now: float, most: int | None) -> float:
        """Streams that may be opened beside those that are open."""
        if most is None:
            most = self.most
        if most is not None:
            return most - len(self.leases)
        if self.accepts >= _KNOWN:
            return inf
        slow = sum(sent < now - _UNANSWERED for sent in self.unanswered.values())
        return _FIRST + _FURTHER * self.accepts + slow - len(self.leases)

    def _learn_streams(self, most: int, now: float, *, is_rising: bool) -> None:
        self.most, self.lesson, self.since, self.is_rising = most, now, 0, is_rising
        self.peak = len(self.leases) - len(self.unanswered)

    def _learn_window(self, told: Told, sent: float, now: float) -> None:
        if told.remaining is None or told.reset is None or told.seconds is None:
            if now >= self.ends:
                self.left = None
            return
        is_over = now >= min(self.ends, self.told + BELIEF)
        if self.left is None or told.reset > self.reset or sent > self.told or is_over:
            self.left, self.limit, self.reset = told.remaining, told.limit, told.reset
            self.ends, self.told = now + told.seconds + MARGIN, now
        else:  # it was sent before the last answer came
            self.left = min(self.left, told.remaining)

    def _advance(self, now: float) -> None:
        """Move to `now`, and drop what is over."""
        if now < self.at - 1.0:  # the clock was set back: no time above means anything
            vars(self).update(vars(Limits()))
        self.at, self.is_changed = now, True
        if now - self.swept > _REFRESH:
            self.swept = now
            self.tickets = [ticket for ticket in self.tickets if ticket[2] > now - LIVE]
            for lease in [lease for lease, ends in self.leases.items() if ends < now]:
                self.unanswered.pop(lease, None)
                del self.leases[lease]
