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
