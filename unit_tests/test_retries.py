"""What headers say of limits, and the retry policy."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import Any

import pytest

from langchain_thinnest import (
    ThinnestConnectionError,
    ThinnestError,
    ThinnestRateLimitError,
    ThinnestServerError,
)
from langchain_thinnest._http.limit_types import ReportedLimit
from langchain_thinnest._http.retries import (
    RetryPolicy,
    Tries,
    rate_limit,
    reported_by_answer,
    reported_by_refusal,
    retry_delay,
    seconds_to_reset,
)

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": formatdate(NOW + 7, usegmt=True)}, 7),
        ({"retry-after": formatdate(NOW - 7, usegmt=True)}, 0),
        ({"retry-after": "3", "x-ratelimit-reset": str(int(NOW) + 60)}, 3),
        ({"x-ratelimit-reset": str(int(NOW) + 20)}, 20),
        ({"x-ratelimit-reset": str(int(NOW) - 20)}, 0),
        ({"x-ratelimit-reset": str(int(NOW) + 20), "x-ratelimit-remaining": "0"}, 20),
        ({"x-ratelimit-reset": str(int(NOW) + 20), "x-ratelimit-remaining": "5"}, None),
        ({}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "1.2.3"}, None),
        ({"retry-after": ". 5"}, None),
        ({"retry-after": "5 ."}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "\u0665"}, None),
        ({"x-ratelimit-reset": str(int(NOW) + 20), "x-ratelimit-remaining": "1"}, None),
        ({"x-ratelimit-reset": "later"}, None),
    ],
)
def test_asked_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_delay(headers, now=NOW) == seconds


def test_the_servers_clock_counts() -> None:
    """A client whose clock is an hour wrong waits no longer, and no shorter."""
    headers = {"date": formatdate(NOW, usegmt=True), "x-ratelimit-reset": str(int(NOW) + 20)}
    for clock in (NOW - 3600, NOW, NOW + 3600):
        assert retry_delay(headers, now=clock) == 20


@pytest.mark.parametrize("off", [-2, -1, 0, 1, 2])
def test_where_the_clocks_agree_the_clients_is_finer(off: int) -> None:
    date = formatdate(NOW + off, usegmt=True)
    assert retry_delay({"date": date, "x-ratelimit-reset": str(int(NOW) + 20)}, now=NOW) == 20


def test_the_time_is_now_unless_it_is_said() -> None:
    wait = retry_delay({"x-ratelimit-reset": str(int(time.time()) + 20)})
    assert wait is not None
    assert 18 < wait <= 20


def test_rate_limit() -> None:
    headers = {
        "x-ratelimit-limit": "60",
        "x-ratelimit-remaining": "0",
        "x-ratelimit-reset": "1800000000",
    }
    assert rate_limit(headers) == {"limit": 60, "remaining": 0, "reset": 1_800_000_000}
    assert rate_limit({"x-ratelimit-limit": "60", "x-ratelimit-reset": "?"}) == {"limit": 60}
    assert rate_limit({"x-ratelimit-remaining": "9" * 400, "x-ratelimit-limit": "5 ."}) is None
    assert rate_limit({}) is None


def waits(error: ThinnestError, policy: RetryPolicy, tries: int = 6) -> list[float]:
    return [policy.delay(error, number) for number in range(1, tries + 1)]


def test_a_limit_without_a_word_outlasts_a_window_of_a_minute() -> None:
    policy = RetryPolicy(6, 75.0, random=lambda: 0.5)
    assert waits(ThinnestRateLimitError("x", is_retryable=True), policy) == [
        1,
        2,
        4,
        8,
        16,
        32,
    ]


def test_a_connection_is_back_sooner_or_not_at_all() -> None:
    policy = RetryPolicy(6, 75.0, random=lambda: 0.5)
    assert waits(ThinnestConnectionError("x", is_retryable=True), policy, 3) == [0.25, 0.5, 1]


def test_backoff_has_jitter_and_an_upper_bound() -> None:
    error = ThinnestRateLimitError("x", is_retryable=True)
    assert waits(error, RetryPolicy(6, 75.0, random=lambda: 0.0), 2) == [0.75, 1.5]
    assert waits(error, RetryPolicy(6, 75.0, random=lambda: 1.0), 2) == [1.25, 2.5]
    assert max(waits(error, RetryPolicy(6, 3.0), 9)) <= 3.0


@pytest.mark.parametrize("number", [0.0, 1.0])
def test_what_the_server_asks_for_is_waited_for_and_hardly_more(number: float) -> None:
    policy = RetryPolicy(6, 75.0, random=lambda: number)
    error = ThinnestRateLimitError("x", is_retryable=True, retry_after=3.0)
    assert all(3.0 < wait < 3.3 for wait in waits(error, policy))


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ThinnestRateLimitError("x", is_retryable=True), True),
        (ThinnestRateLimitError("x", is_retryable=True, retry_after=75.0), True),
        (ThinnestRateLimitError("x", is_retryable=True, retry_after=75.1), False),
        (ThinnestServerError("x", is_retryable=True, retry_after=1.0), True),
        (ThinnestServerError("x"), False),
        (ThinnestError("x"), False),
        (ValueError("x"), False),
    ],
)
def test_what_is_sent_again(error: Exception, again: bool) -> None:
    assert RetryPolicy(6, 75.0).should_retry(error) is again


def test_an_error_that_asks_for_nothing_is_sent_again_whatever_the_longest_wait() -> None:
    error = ThinnestRateLimitError("x", is_retryable=True)
    assert RetryPolicy(6, 0.5).should_retry(error)


def test_a_wait_for_no_error_of_ours_is_a_backoff() -> None:
    policy = RetryPolicy(6, 75.0, random=lambda: 0.5)
    assert policy.delay(ValueError("x"), 1) == 0.25
    assert policy.delay(None, 1) == 0.25


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ratelimit-reset": str(int(NOW + 20) * 1000)}, 20),  # milliseconds
        ({"x-ratelimit-reset": str(int(NOW + 20) * 1000), "date": formatdate(NOW)}, 20),
        ({"x-ratelimit-reset": str(int(NOW) + 10 * 365 * 86_400)}, None),
        ({"x-ratelimit-reset": str(int(NOW) + 900)}, 900),
        ({"x-ratelimit-reset": "0"}, 0),
        ({"x-ratelimit-reset": "20"}, 0),
        ({"x-ratelimit-reset": str(int(NOW) + 5), "date": formatdate(NOW - 3600)}, 5),  # stale
        ({"x-ratelimit-reset": str(int(NOW) - 5), "date": formatdate(NOW - 9)}, 4),
    ],
)
def test_resets_are_believed_as_far_as_they_make_sense(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert seconds_to_reset(headers, now=NOW) == seconds


def tries(**fields: Any) -> Tries:
    return Tries(RetryPolicy(2, 75.0, random=lambda: 0.5), accepts=0, **fields)


def test_a_refusal_costs_a_try_only_while_nobody_else_gets_through() -> None:
    call = tries()
    for accepts in range(1, 11):
        call.refuse(ReportedLimit(), accepts, 1, 0.0)
        assert (call.counted, call.are_over) == (0, False)
        assert call.delay(ThinnestRateLimitError("x")) == pytest.approx(0.1)
        call.accepts = accepts
    for counted in (1, 2, 3):
        call.refuse(ReportedLimit(), 10, counted, 0.0)
        assert (call.counted, call.are_over) == (counted, counted == 3)


def test_free_tries_do_not_go_on_for_ever() -> None:
    call = tries()
    for _ in range(41):
        assert not call.are_over
        call.refuse(ReportedLimit(), 100, 1, 0.0)
    assert call.are_over


def test_a_server_that_has_only_refused_for_long_is_given_up_on_at_the_next_refusal() -> None:
    call = tries()
    call.refuse(ReportedLimit(), 0, 3, call.policy.patience() - 0.1)
    assert not call.are_over
    call.refuse(ReportedLimit(), 0, 3, call.policy.patience())
    assert call.are_over


def test_long_backoffs_for_a_stream_are_cut_in_parts() -> None:
    call = Tries(RetryPolicy(6, 75.0, random=lambda: 0.5), accepts=0)
    waited = 0.0
    while not call.are_over:
        call.refuse(ReportedLimit(remaining=3), 0, 1, 0.0)
        delay = call.delay(ThinnestRateLimitError("x"))
        assert delay <= 4.0
        waited += delay
    assert 50 < waited < 80  # as long as the whole ones


@pytest.mark.parametrize("longest", [0.0, 0.1])
def test_the_shortest_waits_are_always_waited(longest: float) -> None:
    policy = RetryPolicy(6, longest)
    assert policy.allows(0.2)
    assert not policy.allows(1.0)


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata"])
@pytest.mark.parametrize(
    "date",
    [
        "Thu, 01 Jan 1970 00:01:40 GMT",
        "Thu Jan  1 00:01:40 1970",  # as asctime writes it: always GMT (RFC 9110, 5.6.7)
        "Thursday, 01-Jan-70 00:01:40 GMT",
        "Thu, 01 Jan 1970 00:01:40 -0000",
        "Thu, 01 Jan 1970 05:31:40 +0530",
    ],
)
def test_a_date_without_a_zone_is_no_local_time(
    zone: str, date: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert retry_delay({"retry-after": date}, now=40.0) == 60.0
        headers = {"date": date, "x-ratelimit-reset": "130"}  # the server's clock is ahead
        assert seconds_to_reset(headers, now=40.0) == 30.0
    finally:
        monkeypatch.undo()
        time.tzset()


# --- bounds ---

ANSWER = {"x-ratelimit-limit": "60", "x-ratelimit-remaining": "7"}


def test_what_an_answer_reports() -> None:
    reset = str(int(time.time()) + 20)
    told = reported_by_answer({**ANSWER, "x-ratelimit-reset": reset})
    assert told[:3] == (60, 7, float(reset))
    assert told.seconds == pytest.approx(20, abs=2)
    # A wait is a refusal's to ask for; a reset that makes no sense tells no windows apart.
    assert reported_by_answer({**ANSWER, "retry-after": "3"}) == (60, 7, None, None)
    assert reported_by_answer({**ANSWER, "x-ratelimit-reset": "9" * 15})[2:] == (None, None)
    assert reported_by_answer({}) == ReportedLimit()


def test_what_a_refusal_reports() -> None:
    reset = str(int(time.time()) + 20)
    spent = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": reset}
    told = reported_by_refusal(spent)
    assert told[:3] == (None, 0, float(reset))
    assert told.seconds == pytest.approx(20, abs=2)
    assert reported_by_refusal({**spent, "retry-after": "3"}) == (None, 0, float(reset), 3.0)
    assert reported_by_refusal({**ANSWER, "retry-after": "3"}) == (60, 7, None, 3.0)
    assert reported_by_refusal(ANSWER) == (60, 7, None, None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("9" * 15, 999_999_999_999_999.0),
        ("9" * 16, None),
        ("1.123456789", 1.123456789),
        ("1.1234567891", None),
        ("1.", 1.0),
        (".5", None),
        (" 3 ", 3.0),
        ("3 4", None),
        ("3s", None),
    ],
)
def test_plain_numbers_alone_are_read(text: str, seconds: float | None) -> None:
    assert retry_delay({"retry-after": text}, now=NOW) == seconds


DAY = 86_400


@pytest.mark.parametrize(
    ("ahead", "seconds"), [(0, 0), (DAY, DAY), (DAY + 1, None), (-DAY, 0), (-DAY - 1, 0)]
)
def test_a_reset_is_a_day_away_at_most(ahead: int, seconds: float | None) -> None:
    assert seconds_to_reset({"x-ratelimit-reset": str(int(NOW) + ahead)}, now=NOW) == seconds


@pytest.mark.parametrize(("off", "seconds"), [(2, 20), (3, 17), (-2, 20), (-3, 20)])
def test_a_date_counts_from_two_seconds_on(off: int, seconds: float) -> None:
    date = formatdate(NOW + off, usegmt=True)
    headers = {"date": date, "x-ratelimit-reset": str(int(NOW) + 20)}
    assert seconds_to_reset(headers, now=NOW) == seconds
    at = formatdate(NOW + 20, usegmt=True)
    asked = retry_delay({"date": date, "retry-after": at}, now=NOW)
    assert asked == (20 if abs(off) == 2 else 20 - off)


@pytest.mark.parametrize("max_wait", [0.0, 0.25])
def test_a_quarter_of_a_second_is_always_waited(max_wait: float) -> None:
    policy = RetryPolicy(6, max_wait)
    assert policy.allows(0.25)
    assert not policy.allows(0.26)
    assert RetryPolicy(6, 3.0).allows(3.0)
    assert not RetryPolicy(6, 3.0).allows(3.01)


@pytest.mark.parametrize(
    ("asked", "max_wait", "number", "wait"),
    [
        (3.0, 75.0, 0.0, 3.05),
        (3.0, 75.0, 1.0, 3.25),
        (3.0, 3.1, 1.0, 3.1),
        (3.0, 1.0, 1.0, 3.0),
        (0.0, 75.0, 0.5, 0.15),
    ],
)
def test_a_wait_that_is_asked_for(
    asked: float, max_wait: float, number: float, wait: float
) -> None:
    policy = RetryPolicy(6, max_wait, random=lambda: number)
    error = ThinnestRateLimitError("x", retry_after=asked)
    assert policy.delay(error, 1) == pytest.approx(wait)
    assert policy.delay(error, 5) == pytest.approx(wait)


@pytest.mark.parametrize(
    ("retries", "max_wait", "seconds"),
    [(0, 75.0, 0), (1, 75.0, 1), (4, 75.0, 15), (4, 3.0, 9), (8, 75.0, 63 + 64 + 75)],
)
def test_the_patience_is_the_sum_of_all_backoffs(
    retries: int, max_wait: float, seconds: float
) -> None:
    assert RetryPolicy(retries, max_wait).patience() == seconds


def test_a_call_begins_with_nothing_counted() -> None:
    call = Tries(RetryPolicy(2, 75.0, random=lambda: 0.5))
    assert not call.are_over
    assert call.delay(ThinnestConnectionError("x")) == 0.25
    call.refuse(ReportedLimit(), 5, 1, 0.0)  # nobody is known to have got through since
    assert (call.counted, call.refusals, call.was_free) == (1, 1, False)


def test_a_failure_of_another_kind_counts_and_ends_what_a_refusal_said() -> None:
    call = tries()
    call.refuse(ReportedLimit(remaining=3), 1, 1, 0.0)
    assert call.delay(ThinnestRateLimitError("x")) == pytest.approx(0.1)
    call.fail()
    assert (call.counted, call.was_free) == (1, False)
    assert call.delay(ThinnestRateLimitError("x", retry_after=60.0)) == pytest.approx(60.15)
    call.fail()
    assert not call.are_over
    call.fail()
    assert call.are_over


@pytest.mark.parametrize(
    ("number", "max_wait", "wait"), [(0.0, 75.0, 0.05), (1.0, 75.0, 0.15), (1.0, 0.1, 0.1)]
)
def test_a_try_that_was_free_is_soon_followed(
    number: float, max_wait: float, wait: float
) -> None:
    call = Tries(RetryPolicy(2, max_wait, random=lambda: number), accepts=0)
    call.refuse(ReportedLimit(), 1, 1, 0.0)
    assert call.delay(ThinnestRateLimitError("x")) == pytest.approx(wait)
    assert call.delay(None) == pytest.approx(wait)
    asked = call.delay(ThinnestRateLimitError("x", retry_after=60.0))
    assert asked == pytest.approx(
        max(max_wait, 60.0) if max_wait < 1 else 60.05 + 0.2 * number
    )


def test_a_wait_for_a_stream_is_four_seconds_and_costs_a_part_of_a_try() -> None:
    call = Tries(RetryPolicy(6, 75.0, random=lambda: 0.5), accepts=0)
    waits_, costs = [], []
    for _ in range(6):
        before = call.counted
        call.refuse(ReportedLimit(remaining=1), 0, 1, 0.0)
        costs.append(call.counted - before)
        waits_.append(call.delay(ThinnestRateLimitError("x")))
    assert costs == [1.0, 1.0, 1.0, 0.5, 0.5, 0.25]
    assert waits_ == [1.0, 2.0, 4.0, 4.0, 4.0, 4.0]


@pytest.mark.parametrize(("refusals", "is_over"), [(2, False), (3, True)])
def test_only_a_long_row_of_refusals_is_hopeless(refusals: int, is_over: bool) -> None:
    call = tries()
    call.refuse(ReportedLimit(), 0, refusals, call.policy.patience())
    assert call.are_over is is_over


def test_without_retries_the_first_failure_is_the_end() -> None:
    for fail in (Tries.fail, lambda call: call.refuse(ReportedLimit(), 1, 1, 0.0)):
        call = Tries(RetryPolicy(0, 75.0), accepts=0)
        fail(call)
        assert call.are_over
