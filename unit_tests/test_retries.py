"""What headers say of limits, and the retry policy."""

from __future__ import annotations

import time
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any

import pytest
from tenacity import RetryCallState

from langchain_thinnest import (
    ThinnestConnectionError,
    ThinnestError,
    ThinnestRateLimitError,
    ThinnestServerError,
)
from langchain_thinnest._http.retries import RetryPolicy, asked_wait, rate_limit

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
    assert asked_wait(headers, now=NOW) == seconds


def test_the_servers_clock_counts() -> None:
    """A client whose clock is an hour wrong waits no longer, and no shorter."""
    headers = {"date": formatdate(NOW, usegmt=True), "x-ratelimit-reset": str(int(NOW) + 20)}
    for clock in (NOW - 3600, NOW, NOW + 3600):
        assert asked_wait(headers, now=clock) == 20


@pytest.mark.parametrize("off", [-2, -1, 0, 1, 2])
def test_where_the_clocks_agree_the_clients_is_finer(off: int) -> None:
    date = formatdate(NOW + off, usegmt=True)
    assert asked_wait({"date": date, "x-ratelimit-reset": str(int(NOW) + 20)}, now=NOW) == 20


def test_the_time_is_now_unless_it_is_said() -> None:
    wait = asked_wait({"x-ratelimit-reset": str(int(time.time()) + 20)})
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
    outcome = SimpleNamespace(exception=lambda: error)
    return [
        policy.wait(_state(attempt_number=number, outcome=outcome))
        for number in range(1, tries + 1)
    ]


def _state(**fields: Any) -> RetryCallState:
    state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]
    vars(state).update(fields)
    return state


def test_a_limit_without_a_word_outlasts_a_window_of_a_minute() -> None:
    policy = RetryPolicy(6, 75.0, dice=lambda: 0.5)
    assert waits(ThinnestRateLimitError("x", is_retryable=True), policy) == [
        1,
        2,
        4,
        8,
        16,
        32,
    ]


def test_a_connection_is_back_sooner_or_not_at_all() -> None:
    policy = RetryPolicy(6, 75.0, dice=lambda: 0.5)
    assert waits(ThinnestConnectionError("x", is_retryable=True), policy, 3) == [0.25, 0.5, 1]


def test_backoff_has_jitter_and_an_upper_bound() -> None:
    error = ThinnestRateLimitError("x", is_retryable=True)
    assert waits(error, RetryPolicy(6, 75.0, dice=lambda: 0.0), 2) == [0.75, 1.5]
    assert waits(error, RetryPolicy(6, 75.0, dice=lambda: 1.0), 2) == [1.25, 2.5]
    assert max(waits(error, RetryPolicy(6, 3.0), 9)) <= 3.0


@pytest.mark.parametrize("dice", [0.0, 1.0])
def test_what_the_server_asks_for_is_waited_for_and_hardly_more(dice: float) -> None:
    policy = RetryPolicy(6, 75.0, dice=lambda: dice)
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
    policy = RetryPolicy(6, 75.0, dice=lambda: 0.5)
    outcome = SimpleNamespace(exception=lambda: ValueError("x"))
    assert policy.wait(_state(attempt_number=1, outcome=outcome)) == 0.25
    assert policy.wait(_state(attempt_number=1, outcome=None)) == 0.25
