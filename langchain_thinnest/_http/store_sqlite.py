"""Rate-limit states in a SQLite file, for the processes of one machine.

Nothing in the file is worth keeping: if it is deleted, everything is learned again. It holds
no key, only hashes, and is readable by its owner alone.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

from langchain_thinnest._http.backends import Memo, dump
from langchain_thinnest._http.limits import Limits

T = TypeVar("T")
_LOCKED = 2.0  # seconds for which another's lock is waited for
_KEEP = 3600.0  # seconds for which a state is kept that nobody uses


class SqliteBackend:
    """See `Backend`. The time is the machine's monotonic clock, the same for all processes."""

    pace = 0.01  # a question costs more than in memory
    errors = (sqlite3.Error, OSError)

    def __init__(self, path: str) -> None:
        """Remember the path; the file is opened at the first use."""
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._memo = Memo()

    def apply(self, name: str, op: Callable[[Limits, float], T], *, is_read: bool) -> T:
        connection = self._connection or self._connect()
        if is_read:
            state = self._state(connection, name)
            limits = self._memo.take(name, state)
            result = op(limits, time.monotonic())
            if not limits.is_changed and state is not None:
                self._memo.keep(name, state, limits)
                return result
        connection.execute("BEGIN IMMEDIATE")
        try:
            limits = self._memo.take(name, self._state(connection, name))
            now = time.monotonic()
            result = op(limits, now)
            state = dump(limits)
            connection.execute(
                "INSERT OR REPLACE INTO limits VALUES (?, ?, ?)", (name, state, now)
            )
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        self._memo.keep(name, state, limits)
        return result

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _state(self, connection: sqlite3.Connection, name: str) -> bytes | None:
        found = connection.execute("SELECT state FROM limits WHERE name = ?", (name,))
        row = found.fetchone()
        return row[0] if row else None

    def _connect(self) -> sqlite3.Connection:
        # Before SQLite makes it, since its other files take the same mode.
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = sqlite3.connect(
            self._path, timeout=_LOCKED, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS limits"
                " (name TEXT PRIMARY KEY, state BLOB, used REAL) WITHOUT ROWID"
            )
            now = time.monotonic()
            connection.execute(
                "DELETE FROM limits WHERE used NOT BETWEEN ? AND ?", (now - _KEEP, now)
            )
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection
