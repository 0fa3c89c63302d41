"""A simulated fleet: processes with many calls, one server, and virtual time.

The rules are the package's own (`Limits`, `Tries`); what is simulated is the server, the
network and the passing of time. `python -m unit_tests.fleet` prints the table of the docs.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from langchain_thinnest._http.limit_types import Question, ReportedLimit
from langchain_thinnest._http.limits import LEASE, Limits
from langchain_thinnest._http.retries import RetryPolicy, Tries
from langchain_thinnest.errors import ThinnestRateLimitError


@dataclass
class Server:
    """Allows so many requests in a window, and so many streams at once."""

    limit: int = 30
    window: float = 10.0
    streams: int = 2
    window_ends: float = 0.0
    used: int = 0
    open: int = 0
    taken: list[float] = field(default_factory=list)  # when it took each request
    refused: int = 0

    def request(self, now: float) -> tuple[bool, ReportedLimit]:
        """Whether a request is taken, and what the headers say."""
        if now >= self.window_ends:
            self.window_ends, self.used = now + self.window, 0
        if self.used >= self.limit:
            self.refused += 1
            return False, self.reported(now, wait=math.ceil(self.window_ends - now))
        if self.open >= self.streams:
            self.refused += 1
            return False, self.reported(now, wait=None)
        self.used += 1
        self.open += 1
        self.taken.append(now)
        return True, self.reported(now, wait=math.ceil(self.window_ends) - now)

    def reported(self, now: float, wait: float | None) -> ReportedLimit:
        """The headers, with a reset in whole seconds."""
        return ReportedLimit(
            self.limit, self.limit - self.used, math.ceil(self.window_ends), wait
        )


@dataclass
class Process:
    """Calls that share an account."""

    name: str
    limits: Limits
    is_shared: bool = False
    is_dead: bool = False


class Fleet:
    """Runs calls to their ends, in virtual time.

    Attributes:
        server: Whom they ask.
        now: Seconds since the beginning.
        answered: Names of calls that have their answer.
        lost: Those that were given up on.
        went: Names of calls in the order in which their requests went out.
        asks: How often a caller asked whether it may go.
        most_leased: The most leases that were open at once.
    """

    def __init__(self, server: Server, seed: int = 0) -> None:
        self.server = server
        self.now = 0.0
        self.random = random.Random(seed)
        self.answered: list[str] = []
        self.lost: list[str] = []
        self.went: list[tuple[str, float]] = []
        self.asks = self.most_leased = 0
        self.latency = 0.005
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def at(self, when: float, do: Callable[[], None]) -> None:
        """Do something at a time."""
        heapq.heappush(self._events, (when, next(self._order), do))

    def call(
        self,
        process: Process,
        name: str,
        *,
        seconds: float = 0.3,
        max_streams: int | None = None,
        max_retries: int = 6,
        dies: bool = False,
    ) -> Call:
        """Begin a call now; it may die when its stream is open."""
        call = Call(self, process, name, seconds, max_streams, max_retries, dies)
        self.at(self.now, call.ask)
        return call

    def run(self, until: float = math.inf) -> None:
        """Let time pass until nothing is left to do."""
        while self._events and self._events[0][0] <= until:
            self.now, _, do = heapq.heappop(self._events)
            do()


class Call:
    """One call: it asks, sleeps, sends, and reads its answer."""

    def __init__(
        self,
        fleet: Fleet,
        process: Process,
        name: str,
        seconds: float,
        max_streams: int | None,
        max_retries: int,
        dies: bool,
    ) -> None:
        self.fleet, self.process, self.name = fleet, process, name
        self.seconds, self.max_streams, self.dies = seconds, max_streams, dies
        self.tries = Tries(RetryPolicy(max_retries, 75.0, random=fleet.random.random))
        self.ticket = f"{process.name}/{name}"
        self.arrived: float | None = None
        self.leases = 0
        self.is_over = False

    def ask(self) -> None:
        if self.process.is_dead or self.is_over:
            return
        fleet, limits = self.fleet, self.process.limits
        fleet.asks += 1
        lease = f"{self.ticket}#{self.leases}"
        lasts = LEASE if self.process.is_shared else math.inf
        question = Question(self.ticket, self.arrived, lease, self.max_streams)
        reply = limits.ask(question, fleet.now, lasts)
        self.arrived = reply.arrived
        if not reply.is_admitted:
            fleet.at(fleet.now + reply.sleep, self.ask)
            return
        self.tries.accepts = reply.accepts
        self.leases += 1
        fleet.most_leased = max(fleet.most_leased, len(limits.leases))
        fleet.went.append((self.name, fleet.now))
        fleet.at(fleet.now + fleet.latency, lambda: self.arrive(lease))

    def arrive(self, lease: str) -> None:
        is_taken, reported = self.fleet.server.request(self.fleet.now)
        if is_taken:
            self.fleet.at(self.fleet.now + self.seconds, self.finish_on_server)
        self.fleet.at(
            self.fleet.now + self.fleet.latency, lambda: self.hear(lease, is_taken, reported)
        )

    def hear(self, lease: str, is_taken: bool, reported: ReportedLimit) -> None:
        fleet, limits = self.fleet, self.process.limits
        if self.process.is_dead or self.is_over:
            return
        if is_taken:
            limits.accepted(lease, reported, fleet.now)
            if self.dies:
                self.is_over = True
            else:
                fleet.at(fleet.now + self.seconds, lambda: self.finish(lease))
            return
        assert self.arrived is not None
        seen = limits.refused(lease, self.ticket, self.arrived, reported, fleet.now)
        self.tries.refuse(reported, *seen)
        error = ThinnestRateLimitError("", retry_after=reported.seconds, is_retryable=True)
        if self.tries.are_over:
            limits.end([self.ticket], fleet.now)
            self.is_over = True
            fleet.lost.append(self.name)
        else:
            fleet.at(fleet.now + self.tries.delay(error), self.ask)

    def finish_on_server(self) -> None:
        self.fleet.server.open -= 1

    def finish(self, lease: str) -> None:
        if not self.process.is_dead:
            self.is_over = True
            self.process.limits.end([lease, self.ticket], self.fleet.now)
            self.fleet.answered.append(self.name)

    def cancel(self) -> None:
        """The caller vanishes, and says so."""
        if not self.is_over:
            self.is_over = True
            ids = [self.ticket, *(f"{self.ticket}#{n}" for n in range(self.leases))]
            self.process.limits.end(ids, self.fleet.now)


def fleet_of(
    processes: int, prompts: int, server: Server, *, is_shared: bool, seed: int = 0
) -> Fleet:
    """So many processes that begin within a second, with so many prompts in all."""
    fleet = Fleet(server, seed)
    shared = Limits()
    for number in range(processes):
        process = Process(f"p{number:04}", shared if is_shared else Limits(), is_shared)

        def begin(process: Process = process) -> None:
            for call in range(prompts // processes):
                fleet.call(process, f"{process.name}.{call:05}")

        fleet.at(fleet.random.random(), begin)
    fleet.run()
    return fleet


def main() -> None:
    """Print the table."""
    prompts = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    print("| processes | counting | time over the ideal | refused | lost |")
    print("|---|---|---|---|---|")
    for processes in (1, 4, 10, 25, 100):
        for is_shared in (False, True):
            server = Server(limit=600, window=10.0, streams=20)
            fleet = fleet_of(processes, prompts, server, is_shared=is_shared)
            windows = math.ceil(prompts / 600) - 1
            ratio = fleet.server.taken[-1] / (windows * 10.0)
            print(
                f"| {processes} | {'together' if is_shared else 'each for itself'} | "
                f"{ratio:.2f} x | {fleet.server.refused / prompts:.1%} | {len(fleet.lost)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
