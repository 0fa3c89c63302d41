"""Rate-limit states in Redis, for the processes of many machines (extra `redis`).

A state is read and swapped if it is unchanged, by scripts that also tell the server's time, so
that the clocks of the machines do not matter.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from langchain_thinnest._http.backends import Memo, dump
from langchain_thinnest._http.limits import Limits

T = TypeVar("T")
_SECONDS = 2.0  # for an answer
_PREFIX = "langchain-thinnest:limits:"
_READ = """
local time = redis.call('TIME')
return {redis.call('GET', KEYS[1]) or '', time[1], time[2]}
"""
# A state is kept for an hour.
_SWAP = """
local time = redis.call('TIME')
local state = redis.call('GET', KEYS[1]) or ''
if state == ARGV[1] then
    redis.call('SET', KEYS[1], ARGV[2], 'EX', 3600)
    return {}
end
return {state, time[1], time[2]}
"""


class RedisBackend:
    """See `Backend`. The time is the server's."""

    pace = 0.01  # a question costs more than in memory
    errors = (redis.RedisError, OSError)

    def __init__(self, url: str) -> None:
        """Remember the URL; the connection is made at the first use."""
        self._client = redis.Redis.from_url(
            url,
            socket_timeout=_SECONDS,
            socket_connect_timeout=_SECONDS,
            retry=Retry(NoBackoff(), 1),
        )
        self._memo = Memo()
        self._read: Any = self._client.register_script(_READ)
        self._swap: Any = self._client.register_script(_SWAP)

    def apply(self, name: str, op: Callable[[Limits, float], T], *, is_read: bool) -> T:  # noqa: ARG002
        keys = [_PREFIX + name]
        found = self._read(keys=keys)
        give_up = time.monotonic() + _SECONDS
        while time.monotonic() < give_up:
            state, seconds, micros = found
            limits = self._memo.take(name, state)
            result = op(limits, int(seconds) + int(micros) / 1e6)
            if not limits.is_changed:
                self._memo.keep(name, state, limits)
                return result
            new = dump(limits)
            found = self._swap(keys=keys, args=[state, new])
            if not found:
                self._memo.keep(name, new, limits)
                return result
        raise redis.RedisError("Others changed the state each time")

    def close(self) -> None:
        self._client.close()
