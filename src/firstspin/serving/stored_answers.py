"""The answers that `firstspin score` kept, as the service reads them back: in time, or not at all.

The store may be slow, down or throttled, and nobody waits for it longer than its budget. After some failures in a row
it is left in peace for a while, so that a store in trouble costs newcomers nothing and gets no further load.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Final, Protocol

from firstspin.records import Registration, StoredAnswer, is_under
from firstspin.serving.policy import LEAST_AGE

FAILURES: Final = 5
PAUSE: Final = 5_000_000_000
"""Nanoseconds in which a store is not asked after so many failures in a row; then one more failure is enough."""

THREADS: Final = 8


class AnswerStore(Protocol):
    """The one verb we use of a store of batch answers."""

    def get(self, user_id: str) -> StoredAnswer | None:
        """The answer kept for a user; ValueError for a row that nobody can read."""


class StoredAnswers:
    """What a store keeps, each answer within `budget` seconds; `first` says whether it goes before the model's own.

    Who is younger than `least_age` gets none: it may have been made of the age and gender that are not to be used.
    `open_store` is called by the first who asks, and again until it succeeds; `now` gives nanoseconds that only grow.
    """

    def __init__(
        self,
        open_store: Callable[[], AnswerStore],
        now: Callable[[], int],
        *,
        first: bool = False,
        budget: float = 0.05,
        least_age: int = LEAST_AGE,
    ) -> None:
        self.first, self._least_age = first, least_age
        self._open, self._now, self._budget = open_store, now, budget
        self._store: AnswerStore | None = None
        self._opening = Lock()
        self._failures, self._paused_until = 0, 0
        self._threads = ThreadPoolExecutor(THREADS, "kept")

    def serves(self, registration: Registration) -> bool:
        """Whether this newcomer may be answered from here."""
        return not is_under(self._least_age, registration)

    async def get(self, user_id: str) -> tuple[StoredAnswer | None, str]:
        """The answer, if there is one, and for the count how it went: found, none, malformed, failed or paused."""
        if self._failures >= FAILURES and self._now() < self._paused_until:
            return None, "paused"
        reading = asyncio.get_running_loop().run_in_executor(self._threads, self._read, user_id)
        try:
            found = await asyncio.wait_for(reading, self._budget)
        except ValueError:
            self._failures = 0
            return None, "malformed"
        except Exception:  # whatever it is, there is still the model
            self._failures += 1
            self._paused_until = self._now() + PAUSE
            return None, "failed"
        self._failures = 0
        return found, "found" if found else "none"

    def _read(self, user_id: str) -> StoredAnswer | None:
        with self._opening:
            store = self._store = self._store or self._open()
        return store.get(user_id)
