"""The arithmetic of the limits: the time is passed in, and nobody sleeps."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_thinnest._http.backends import dump, load
from langchain_thinnest._http.limit_types import Question, Reply, ReportedLimit
from langchain_thinnest._http.limits import (
    BELIEF,
    LEASE,
    LIVE,
    LONGEST_SLEEP,
    PACE,
    Limits,
)
from unit_tests.fleet import Call, Fleet, Process, Server, fleet_of

NOTHING = ReportedLimit()


class Line:
    """Calls by name, at a time that the test sets."""

    def __init__(self, max_streams: int | None = None) -> None:
        self.limits = Limits()
        self.now = 0.0
        self.max_streams = max_streams
        self.arrived: dict[str, float | None] = {}

    def ask(self, name: str, **how: Any) -> Reply:
        question = Question(
            name, self.arrived.get(name), f"{name}!", self.max_streams
        )._replace(**how)
        reply = self.limits.ask(question, self.now)
        self.arrived[name] = reply.arrived
        return reply

    def go(self, *names: str) -> list[str]:
        """Those of the names that may go."""
        return [name for name in names if self.ask(name).is_admitted]

    def accept(self, *names: str, reported: ReportedLimit = NOTHING) -> None:
        for name in names:
            self.limits.accepted(f"{name}!", reported, self.now)

    def refuse(self, name: str, reported: ReportedLimit = NOTHING) -> tuple[int, int, float]:
        arrived = self.arrived[name]
        assert arrived is not None
        return self.limits.refused(f"{name}!", name, arrived, reported, self.now)

    def end(self, *names: str) -> None:
        self.limits.end([f"{name}!" for name in names], self.now)


NAMES = [f"call {number:02}" for number in range(14)]


def reported(
    remaining: int, seconds: float = 10.0, reset: float = 10.0, limit: int = 3
) -> ReportedLimit:
    return ReportedLimit(limit, remaining, reset, seconds)


# --- streams ---


def test_a_few_go_out_first_and_each_answer_lets_more_go() -> None:
    line = Line()
    assert line.go(*NAMES) == NAMES[:5]
    line.accept(NAMES[0])
    assert line.go(*NAMES[5:]) == NAMES[5:7]
    line.accept(NAMES[1])
    assert line.go(*NAMES[7:]) == NAMES[7:9]


def test_first_requests_without_an_answer_hold_others_for_five_seconds() -> None:
    line = Line()
    line.go(*NAMES)
    line.now = 4.9
    assert not line.go(*NAMES[5:])
    line.now = 5.1
    assert line.go(*NAMES[5:]) == NAMES[5:10]


def test_a_stream_that_closes_makes_room() -> None:
    line = Line(max_streams=2)
    assert line.go(*NAMES) == NAMES[:2]
    line.end(NAMES[0], NAMES[0])
    assert line.go(*NAMES[2:]) == NAMES[2:3]


def test_the_users_own_limit_is_not_exceeded_even_by_one_who_does_not_wait() -> None:
    line = Line(max_streams=1)
    assert line.go("a") == ["a"]
    assert not line.ask("b", waits=False).is_admitted
    assert line.ask("c", own_streams=1).is_admitted


def test_one_who_does_not_wait_asks_the_server() -> None:
    line = Line()
    line.go(*NAMES[:5])
    assert line.ask("x", waits=False).is_admitted
    line.accept("x", reported=reported(0))
    assert line.ask("y", waits=False).is_admitted


def test_refusals_teach_the_peak_of_what_was_answered_and_open() -> None:
    line = Line()
    line.go(*NAMES[:5])
    line.accept(*NAMES[:2])
    line.end(NAMES[0])
    for name in NAMES[2:5]:
        line.refuse(name, ReportedLimit(30, 20))
    assert line.limits.max_streams == 2
    line.end(NAMES[1])
    assert line.go(*NAMES[2:]) == NAMES[2:4]


def test_one_burst_is_one_lesson() -> None:
    line = Line()
    line.go(*NAMES[:5])
    line.accept(*NAMES[:3])
    line.refuse(NAMES[3])
    line.end(*NAMES[:3])
    line.now = 1.0
    line.refuse(NAMES[4])  # it was sent before the lesson
    assert line.limits.max_streams == 3


def test_answers_after_a_lesson_prove_more() -> None:
    line = Line()
    line.go(*NAMES[:5])
    line.refuse(NAMES[4])
    assert line.limits.max_streams == 1
    line.accept(*NAMES[:3])
    assert line.limits.max_streams == 3


def test_the_most_rises_slowly_and_ever_more_slowly() -> None:
    def rises_after() -> float:
        began = line.now
        while line.limits.max_streams == 1:
            line.now += 1.0
            line.go("b")
            line.accept("b")
            line.end("b")
        line.now += 0.1
        line.go("x", "y")
        line.accept("x")
        line.refuse("y")
        line.end("x")
        return line.now - began

    line = Line()
    line.go("a")
    line.refuse("a")
    waits = [rises_after() for _ in range(3)]
    assert waits == sorted(waits)
    assert waits[2] > 2 * waits[0]


# --- windows ---


def test_what_is_left_goes_out_and_the_rest_waits_for_the_reset() -> None:
    line = Line()
    line.go("a")
    line.accept("a", reported=reported(2))
    assert line.go("b", "c", "d", "e") == ["b", "c"]
    line.now = 9.9
    reply = line.ask("d")
    assert not reply.is_admitted
    assert reply.closed == pytest.approx(0.15)
    assert reply.sleep <= LONGEST_SLEEP
    line.end("a", "b", "c")
    line.now = 10.1  # the limit is known to be three
    assert line.go("d", "e", "f", "g") == ["d", "e", "f"]


def test_answers_out_of_order() -> None:
    line = Line()
    line.go("a", "b", "c")
    line.accept("c", reported=reported(0))
    line.accept("b", reported=reported(1))
    assert not line.go("d")
    line.accept("a", reported=reported(9, reset=20.0))  # a new window
    assert line.go("d") == ["d"]


def test_an_answer_that_was_under_way_when_another_was_refused() -> None:
    line = Line()
    line.go("a", "b", "c")
    line.accept("a", reported=reported(900, seconds=60.0))
    line.now = 0.1
    line.refuse("b", ReportedLimit(remaining=0, seconds=0.0))
    line.accept(
        "c", reported=reported(899, seconds=59.9)
    )  # the same window, and an older answer
    line.now = 0.3
    assert line.go("b") == ["b"]
    line.accept("b", reported=reported(898, seconds=59.7))
    assert line.go("d", "e") == ["d", "e"]


def test_a_request_that_may_have_been_counted_is_counted() -> None:
    line = Line()
    line.go("a", "b")
    line.accept("a", reported=reported(1))
    line.end("b")  # without an answer
    assert not line.go("c")


def test_an_answer_that_tells_nothing_after_the_window() -> None:
    line = Line()
    line.go("a")
    line.accept("a", reported=reported(0))
    line.now = 10.1
    assert line.go(*NAMES) == NAMES[:3]
    line.accept(NAMES[0])
    assert len(line.go(*NAMES[3:])) > 2


@pytest.mark.parametrize("limit", [0, None])
def test_a_limit_that_makes_no_sense_lets_one_ask_again(limit: int | None) -> None:
    line = Line()
    line.go("a")
    line.accept("a", reported=ReportedLimit(limit, 0, 10.0, 10.0))
    line.now = 10.1
    assert line.go("b", "c") == ["b"]


def test_a_window_of_a_quarter_of_an_hour_is_asked_about_after_a_minute() -> None:
    line = Line()
    line.go("a")
    line.accept("a", reported=reported(0, seconds=900.0))
    line.now = BELIEF - 0.1
    assert line.ask("b").closed == pytest.approx(900 - BELIEF, abs=1)
    line.now = BELIEF + 0.1
    assert line.go("b", "c") == ["b"]
    line.accept("b", reported=reported(2))
    assert line.go("c") == ["c"]


def test_a_long_wait_that_one_refusal_asks_for_rests_that_call_alone() -> None:
    line = Line()
    line.go("a")
    line.refuse("a", ReportedLimit(seconds=86_400.0))
    line.now = LIVE + 0.1  # its place is no longer kept
    assert line.go("b") == ["b"]


@pytest.mark.parametrize("remaining", [0, None])
def test_a_short_wait_rests_all(remaining: int | None) -> None:
    line = Line()
    line.go("a")
    line.refuse("a", ReportedLimit(remaining=remaining, seconds=5.0))
    line.now = 4.0
    assert not line.go("b")
    line.now = 5.1
    assert line.go("b", "a", "b") == ["a"]  # one asks, and who was refused comes first
    line.accept("a")
    line.end("a")
    assert line.go("b") == ["b"]


def test_a_wait_with_requests_left_rests_nobody_else() -> None:
    line = Line()
    line.go("a", "b")
    line.accept("b")
    line.end("b")
    line.refuse("a", ReportedLimit(remaining=7, seconds=5.0))
    line.now = LIVE + 1  # the refused call's place is no longer kept
    assert line.go("c") == ["c"]


def test_a_server_that_rounds_its_reset_down_is_asked_by_one() -> None:
    line = Line()
    line.go("a")
    line.accept("a", reported=reported(0))
    line.now = 10.06
    assert line.go("b", "c", "d") == ["b", "c", "d"]
    line.end("c", "d")
    line.refuse("b", reported(0, seconds=0.0))
    line.now = 10.2
    assert not line.go("b", "c", "d")
    line.now = 10.4
    assert line.go("b", "c", "d") == ["b"]


# --- the order ---


def test_first_come_first_served_and_who_was_refused_keeps_its_place() -> None:
    line = Line(max_streams=1)
    line.go("a", "b", "c")
    line.refuse("a")
    assert line.go("b", "c", "a") == ["a"]
    line.end("a")
    assert line.go("c", "b") == ["b"]


def test_a_sleeping_ticket_keeps_one_place_and_a_dead_one_none() -> None:
    line = Line(max_streams=2)
    line.go("a", "b")
    line.go("b sleeps", "c", "d")
    line.end("a", "b")
    line.now = 1.0
    assert line.go("c", "d") == ["c"]
    line.now = LIVE + 0.6
    assert line.go("d") == ["d"]


def test_who_leaves_is_forgotten() -> None:
    line = Line(max_streams=1)
    line.go("a", "b", "c")
    line.limits.end(["b", "a!"], line.now)
    assert line.go("c") == ["c"]


# --- leases, clocks and states ---


def test_a_lease_that_is_not_renewed_ends() -> None:
    line = Line(max_streams=2)
    for name in ("killed", "renewed"):
        line.limits.ask(Question(name, None, name, 2), 0.0, LEASE)
    line.now = 20.0
    line.limits.renew(["renewed"], line.now)
    line.now = LEASE + 1
    assert line.go("a", "b") == ["a"]


def test_a_clock_that_is_set_back_closes_nothing() -> None:
    line = Line()
    line.now = 1e6
    line.go("a")
    line.accept("a", reported=reported(0, seconds=30.0))
    line.now = 5.0
    assert line.go("b") == ["b"]


def test_states_survive_being_written() -> None:
    line = Line()
    line.go(*NAMES)
    line.accept(NAMES[0], reported=reported(2))
    assert load(dump(line.limits)) == line.limits


@pytest.mark.parametrize("state", [b"", None, b"{", b"[]", b'{"other": 1}', b"null", b"\xff"])
def test_a_state_that_cannot_be_read_is_none(state: bytes | None) -> None:
    assert load(state) == Limits()


# --- fleets ---


def test_a_batch_over_the_limit_loses_nothing() -> None:
    fleet = fleet_of(1, 200, Server(), is_shared=False)
    assert (len(fleet.answered), fleet.lost) == (200, [])
    assert fleet.server.refused <= 20
    assert fleet.server.taken[-1] <= 1.25 * 60.3


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("is_shared", [False, True])
def test_four_processes_with_one_key(is_shared: bool, seed: int) -> None:
    fleet = fleet_of(4, 200, Server(), is_shared=is_shared, seed=seed)
    assert (len(fleet.answered), fleet.lost) == (200, [])
    assert (
        fleet.server.taken[-1] - fleet.server.taken[0] <= (1.2 if is_shared else 1.25) * 60.3
    )
    assert fleet.server.refused <= (10 if is_shared else 100)


def test_a_server_that_only_refuses_is_given_up_on() -> None:
    fleet = fleet_of(1, 200, Server(streams=0, limit=10**6), is_shared=False)
    assert len(fleet.lost) == 200
    assert fleet.now < 200
    assert fleet.server.refused < 400


def test_a_process_that_dies_gives_its_places_back() -> None:
    fleet = Fleet(Server(limit=1000, streams=10))
    limits = Limits()
    for number in range(2):
        process = Process(f"dies{number}", limits, is_shared=True)
        fleet.call(process, "x", max_streams=2, dies=True)
    fleet.run()
    for number in range(6):
        fleet.call(Process(f"lives{number}", limits, is_shared=True), "y", max_streams=2)
    fleet.run()
    assert len(fleet.answered) == 6
    assert fleet.now < LEASE + 5


@given(
    seed=st.integers(0, 2**16),
    limit=st.integers(1, 20),
    window=st.sampled_from([1.0, 5.0, 30.0]),
    streams=st.integers(1, 6),
    max_streams=st.sampled_from([None, 1, 2, 5]),
    calls=st.lists(
        st.tuples(
            st.floats(0, 20),  # when it comes
            st.sampled_from(["answers", "cancels", "dies"]),
            st.sampled_from([0.01, 0.3, 3.0]),  # how long its answer takes
        ),
        min_size=1,
        max_size=40,
    ),
    set_back=st.one_of(st.none(), st.floats(1, 20)),
)
def test_whatever_happens_nobody_waits_for_ever_and_no_known_limit_is_exceeded(
    seed: int,
    limit: int,
    window: float,
    streams: int,
    max_streams: int | None,
    calls: list[tuple[float, str, float]],
    set_back: float | None,
) -> None:
    fleet = Fleet(Server(limit=limit, window=window, streams=streams), seed)
    process = Process("p", Limits(), is_shared=True)
    begun: list[Call] = []

    def begin(index: int, end: str, seconds: float) -> None:
        call = fleet.call(
            process,
            f"{index:03}",
            seconds=seconds,
            max_streams=max_streams,
            dies=end == "dies",
        )
        begun.append(call)
        if end == "cancels":
            fleet.at(fleet.now + fleet.random.random() * 5, call.cancel)

    for index, (when, end, seconds) in enumerate(calls):
        fleet.at(when, lambda index=index, end=end, s=seconds: begin(index, end, s))
    if set_back is not None:  # as if the machine began anew: what is kept is from the future
        fleet.at(set_back, lambda: process.limits.__setattr__("at", 1e9))
    dead = sum(end == "dies" for _, end, _ in calls)
    fleet.run(until=20.0 + (len(calls) / limit + 2) * (window + 2) + dead * (LEASE + 5) + 400)
    assert all(call.is_over for call in begun)
    if max_streams is not None and max_streams <= streams and not dead and set_back is None:
        assert not fleet.lost
    if max_streams is not None:
        assert fleet.most_leased <= max_streams or set_back is not None or dead


@pytest.mark.parametrize("seed", range(4))
def test_no_older_call_is_overtaken_by_more_than_the_places_there_are(seed: int) -> None:
    """With calls that come one after the other, and answers of any length."""
    fleet = Fleet(Server(limit=10**6, streams=3), seed)
    process = Process("p", Limits())

    def begin(number: int) -> None:
        seconds = fleet.random.choice([0.05, 0.3, 1.0])
        fleet.call(process, f"{number:03}", seconds=seconds, max_streams=3)

    for number in range(60):
        fleet.at(number * 0.01, lambda number=number: begin(number))
    fleet.run()
    order = [int(name) for name, _ in fleet.went]
    for place, number in enumerate(order):
        assert sum(other > number for other in order[:place]) <= 3


def test_waiting_costs_little() -> None:
    """500 calls that wait for a window ask about once a second each."""
    fleet = Fleet(Server(limit=1, window=30.0, streams=10))
    process = Process("p", Limits())
    fleet.call(process, "first")
    fleet.run()
    began, asked = fleet.now, fleet.asks
    for number in range(500):
        fleet.call(process, f"{number:04}")
    fleet.run(until=began + 20)
    assert fleet.asks - asked <= 500 * 20 * 1.1
    assert math.isfinite(fleet.now)


# --- bounds, to the moment ---


def test_a_first_question_is_told_its_place() -> None:
    line = Line(max_streams=1)
    line.now = 3.0
    assert line.ask("a") == Reply(True, 0.0, 0.0, 3.0, 0)
    line.now = 4.0
    assert line.ask("b") == Reply(False, PACE, 0.0, 4.0, 0)
    assert line.ask("c") == Reply(False, 2 * PACE, 0.0, 4.0, 0)
    line.now = 4.5
    assert line.ask("b") == Reply(False, PACE, 0.0, 4.0, 0)  # it keeps its place
    line.accept("a")
    assert line.ask("c").accepts == 1


def test_who_is_far_behind_sleeps_longer_and_nobody_longer_than_the_longest() -> None:
    line = Line(max_streams=1)
    line.ask("first")
    sleeps = [line.ask(f"{number:04}").sleep for number in range(400)]
    assert sleeps[:3] == pytest.approx([PACE, 2 * PACE, 3 * PACE])
    assert sleeps[99] == pytest.approx(100 * PACE)
    assert sleeps[-1] == LONGEST_SLEEP


@pytest.mark.parametrize(
    ("seconds", "sleep", "closed"),
    [(0.4, 0.45, 0.45), (30.0, LONGEST_SLEEP, 30.05), (90.0, LONGEST_SLEEP, 90.05)],
)
def test_a_closed_window_is_slept_through(seconds: float, sleep: float, closed: float) -> None:
    line = Line()
    line.go("a")
    line.accept("a", reported=reported(0, seconds=seconds))
    reply = line.ask("b")
    assert reply.sleep == pytest.approx(sleep)
    assert reply.closed == pytest.approx(closed)


def test_a_window_ends_a_moment_after_its_reset() -> None:
    for now, may_go in ((10.04, []), (10.05, ["b"])):
        line = Line()
        line.go("a")
        line.accept("a", reported=reported(0, limit=1))
        line.end("a")
        line.now = now
        assert line.go("b") == may_go


def test_a_long_window_is_slept_through_until_it_is_checked() -> None:
    line = Line()
    line.go("a")
    line.accept("a", reported=reported(0, seconds=900.0))
    line.now = BELIEF - 0.25
    assert line.ask("b").sleep == pytest.approx(0.25)
    line.now = BELIEF
    assert line.go("b") == ["b"]


@pytest.mark.parametrize(("now", "gone"), [(5.0, 0), (5.01, 5)])
def test_requests_without_an_answer_hold_others_back_for_five_seconds(
    now: float, gone: int
) -> None:
    line = Line()
    line.go(*NAMES)
    line.now = now
    assert len(line.go(*NAMES[5:])) == gone


def test_after_a_hundred_answers_the_slow_start_is_over() -> None:
    line = Line()
    for number in range(100):
        line.go(f"{number}")
        line.accept(f"{number}")
        if number < 99:
            assert line.limits.accepts < 100
            line.end(f"{number}")
    names = [f"later {number:03}" for number in range(300)]
    assert line.go(*names) == names


def test_before_a_hundred_answers_each_lets_two_more_go() -> None:
    line = Line()
    for number in range(99):
        line.go(f"{number}")
        line.accept(f"{number}")
        line.end(f"{number}")
    names = [f"later {number:03}" for number in range(300)]
    assert len(line.go(*names)) == 5 + 2 * 99


def test_a_refusal_tells_how_long_the_row_of_them_is() -> None:
    line = Line()
    line.go(*NAMES[:5])
    line.accept(NAMES[0])
    line.now = 1.0
    assert line.refuse(NAMES[1]) == (1, 1, 0.0)
    line.now = 1.5
    assert line.refuse(NAMES[2]) == (1, 2, 0.5)
    line.accept(NAMES[3])
    line.now = 2.0
    assert line.refuse(NAMES[4]) == (2, 1, 0.0)


def test_who_was_refused_waits_for_the_end_of_the_window_it_is_told() -> None:
    line = Line()
    line.go("a")
    line.refuse("a", ReportedLimit(remaining=0))  # for how long is not told: a second
    for now, may_go in ((LONGEST_SLEEP + 0.04, []), (LONGEST_SLEEP + 0.05, ["a"])):
        line.now = now
        assert line.go("a") == may_go


@pytest.mark.parametrize(("seconds", "rests"), [(BELIEF, True), (BELIEF + 0.1, False)])
def test_a_wait_that_is_asked_of_all_is_a_minute_at_most(seconds: float, rests: bool) -> None:
    line = Line()
    line.go("a")
    line.refuse("a", ReportedLimit(seconds=seconds))
    line.now = LIVE + 0.6
    assert line.go("b") == ([] if rests else ["b"])


def test_a_refusal_without_a_word_teaches_one_stream_at_least() -> None:
    line = Line()
    line.go("a")
    line.now = 1.0
    line.refuse("a")
    assert line.limits.max_streams == 1
    assert line.go("a", "b") == ["a"]


def test_a_refusal_by_the_window_teaches_nothing_about_streams() -> None:
    line = Line()
    line.go("a", "b")
    line.accept("a")
    line.refuse("b", reported(0))
    assert line.limits.max_streams is None


def test_what_was_learned_rises_after_ten_answers_for_each_stream() -> None:
    line = Line()
    line.go("first")
    line.refuse("first")
    answers = 0
    while line.limits.max_streams == 1 and answers < 50:
        line.go("first")
        line.accept("first")
        line.end("first")
        answers += 1
    assert (answers, line.limits.max_streams) == (10, 2)


@pytest.mark.parametrize(("now", "streams"), [(9.9, 1), (10.0, 2)])
def test_what_was_learned_rises_after_ten_seconds(now: float, streams: int) -> None:
    line = Line()
    line.go("first")
    line.refuse("first")
    line.now = now
    line.go("first")
    line.accept("first")
    assert line.limits.max_streams == streams


def test_a_place_is_kept_for_two_seconds_without_a_question() -> None:
    for now, may_go in ((LIVE - 0.1, []), (LIVE + 0.1, ["b"])):
        line = Line(max_streams=1)
        line.go("holds", "a sleeps", "b")
        line.end("holds")
        line.now = now
        assert line.go("b") == may_go


def test_a_lease_ends_when_it_said() -> None:
    for now, may_go in ((LEASE, []), (LEASE + 0.1, ["b"])):
        line = Line(max_streams=1)
        line.limits.ask(Question("a", None, "a", 1), 0.0, LEASE)
        line.now = now
        assert line.go("b") == may_go


def test_a_lease_is_renewed_for_as_long_as_a_first_one() -> None:
    for now, may_go in ((10.0 + LEASE, []), (10.1 + LEASE, ["b"])):
        line = Line(max_streams=1)
        line.limits.ask(Question("a", None, "a", 1), 0.0, LEASE)
        line.limits.renew(["a"], 10.0)
        line.now = now
        assert line.go("b") == may_go


@pytest.mark.parametrize(("back", "is_forgotten"), [(0.9, False), (1.0, False), (1.1, True)])
def test_a_clock_may_go_back_by_a_second(back: float, is_forgotten: bool) -> None:
    line = Line(max_streams=1)
    line.now = 100.0
    line.go("a")
    line.now -= back
    assert line.go("b") == (["b"] if is_forgotten else [])


def test_a_state_is_written_where_more_than_the_time_has_changed() -> None:
    line = Line(max_streams=1)
    line.go("a", "b")
    assert line.limits.is_changed
    for now, is_changed in ((0.5, False), (0.6, True), (1.0, False), (1.2, True)):
        line.now = now
        line.ask("b")
        assert line.limits.is_changed is is_changed
    line.end("a")
    assert line.limits.is_changed


def test_an_older_answer_of_the_same_window_only_lowers_what_is_left() -> None:
    for told, gone in ((5, 2), (1, 1), (0, 0)):
        line = Line()
        line.go("a", "b")
        line.now = 0.1
        line.accept("a", reported=reported(2))
        line.accept("b", reported=reported(told))
        assert len(line.go("c", "d", "e", "f")) == gone


def test_a_request_that_ends_unanswered_costs_one_and_only_once() -> None:
    line = Line()
    line.go("a", "b", "c")
    line.accept("a", reported=reported(3))
    line.end("b", "b")
    line.end("b", "a")
    assert line.go("d", "e", "f") == ["d"]  # one is lost, and `c` has no answer yet
