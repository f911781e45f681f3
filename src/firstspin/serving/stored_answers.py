"""Lookup of stored answers, written by `firstspin score`: within a time budget, behind a circuit breaker.

The store may be slow, down or throttled; no request waits longer than the budget. After several consecutive failures
the circuit opens for a while: lookups are skipped, so that requests lose no time and the store gets no load. The
service and the Lambda look answers up here; `policy` decides which of them may be used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Final, Protocol

from firstspin.records import StoredAnswer

LOOKUP_SECONDS: Final = 0.05
FAILURES: Final = 5
PAUSE: Final = 5_000_000_000
"""Nanoseconds for which the circuit is open after FAILURES consecutive failures; then one more failure opens it."""

THREADS: Final = 8
OTHER_VERSION: Final = "other-version"
"""The outcome of a lookup whose answer another bundle stored."""


class AnswerStore(Protocol):
    """The part of a score store that lookups use."""

    def get(self, user_id: str) -> StoredAnswer | None:
        """The stored answer of a user, or None. Raises ValueError where the row is malformed."""


class StoredAnswers:
    """Lookups in a store, each within `budget` seconds.

    `open_store` is called by the first lookup, and again until it succeeds; `now` is a monotonic clock (nanoseconds).
    """

    def __init__(
        self, open_store: Callable[[], AnswerStore], now: Callable[[], int], *, budget: float = LOOKUP_SECONDS
    ) -> None:
        self._open, self._now, self._budget = open_store, now, budget
        self._store: AnswerStore | None = None
        self._opening = Lock()
        self._failures, self._paused_until = 0, 0
        self._threads = ThreadPoolExecutor(THREADS, "stored")

    async def get(self, user_id: str) -> tuple[StoredAnswer | None, str]:
        """The stored answer, if there is one, and the outcome: found, none, malformed, failed or paused."""
        if self._is_open():
            return None, "paused"
        try:
            reading = asyncio.wrap_future(self._threads.submit(self._read, user_id))
            return self._succeeded(await asyncio.wait_for(reading, self._budget))
        except Exception as problem:  # any failure: the model answers
            return None, self._failed(problem)

    def wait(self, user_id: str) -> tuple[StoredAnswer | None, str]:
        """`get` without an event loop: blocks the calling thread."""
        if self._is_open():
            return None, "paused"
        reading = self._threads.submit(self._read, user_id)
        try:
            return self._succeeded(reading.result(self._budget))
        except Exception as problem:
            return None, self._failed(problem)
        finally:
            reading.cancel()

    def _is_open(self) -> bool:
        return self._failures >= FAILURES and self._now() < self._paused_until

    def _succeeded(self, stored: StoredAnswer | None) -> tuple[StoredAnswer | None, str]:
        self._failures = 0
        return stored, "found" if stored else "none"

    def _failed(self, problem: Exception) -> str:
        if isinstance(problem, ValueError):
            self._failures = 0
            return "malformed"
        self._failures += 1
        self._paused_until = self._now() + PAUSE
        return "failed"

    def _read(self, user_id: str) -> StoredAnswer | None:
        with self._opening:
            store = self._store = self._store or self._open()
        return store.get(user_id)
