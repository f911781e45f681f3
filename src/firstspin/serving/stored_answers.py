"""Lookup of the answers that `firstspin score` stored: within a time budget, behind a circuit breaker.

The store may be slow, down or throttled, and no request waits for it longer than the budget. After some failures in a
row the circuit opens for a while: the store is not asked, so that its trouble costs no request any time and it gets no
further load. The service and the Lambda look answers up here; which of them may be used is decided in `policy`.
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
"""Nanoseconds for which the circuit stays open after so many failures in a row; then one more failure is enough."""

THREADS: Final = 8
OTHER_VERSION: Final = "other-version"
"""The outcome of a lookup whose answer another bundle stored."""


class AnswerStore(Protocol):
    """The one verb we use of a store of batch answers."""

    def get(self, user_id: str) -> StoredAnswer | None:
        """The answer kept for a user; ValueError for a row that nobody can read."""


class StoredAnswers:
    """Answers of a store, each looked up within `budget` seconds.

    `open_store` is called by the first lookup, and again until it succeeds; `now` gives nanoseconds that only grow.
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
        except Exception as problem:  # whatever it is, there is still the model
            return None, self._failed(problem)

    def wait(self, user_id: str) -> tuple[StoredAnswer | None, str]:
        """`get` where no event loop runs: the calling thread waits."""
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
