"""Lookup of what a store has about a user: within a time budget, bounded in number, behind a circuit breaker.

The store may be slow, down or throttled; no request waits longer than the budget. After several consecutive failures
the circuit opens for a while: lookups are skipped, so that requests lose no time and the store gets no load. The
service and the Lambda look up stored answers and listens here; `policy` decides which of them may be used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import BoundedSemaphore, Lock
from typing import Final, Generic, Literal, Protocol, TypeVar

LOOKUP_SECONDS: Final = 0.05
FAILURES: Final = 5
PAUSE: Final = 5_000_000_000
"""Nanoseconds for which the circuit is open after FAILURES consecutive failures; then one more failure opens it."""

THREADS: Final = 8
QUEUE: Final = 64
"""Lookups that wait for a thread; above it they are skipped."""

Outcome = Literal["found", "none", "malformed", "failed", "late", "full", "paused"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("found", "none", "malformed", "failed", "late", "full", "paused")
OTHER_VERSION: Final = "other-version"
"""The outcome of a lookup whose answer another bundle stored."""

Found = TypeVar("Found")
FoundHere = TypeVar("FoundHere", covariant=True)


class UserStore(Protocol[FoundHere]):
    """The part of a store that lookups use, in several threads."""

    def get(self, user_id: str) -> FoundHere | None:
        """What there is about a user, or None. Raises ValueError where the row is malformed."""


class UserLookups(Generic[Found]):
    """Lookups in a store, each within `budget` seconds, at most `queue` of them waiting for one of the threads.

    `open_store` is called by the first lookup, and again until it succeeds; `now` is a monotonic clock (nanoseconds).
    """

    def __init__(
        self,
        open_store: Callable[[], UserStore[Found]],
        now: Callable[[], int],
        *,
        budget: float = LOOKUP_SECONDS,
        threads: int = THREADS,
        queue: int = QUEUE,
    ) -> None:
        self._open, self._now, self._budget = open_store, now, budget
        self._store: UserStore[Found] | None = None
        self._opening = Lock()
        self._failures, self._paused_until = 0, 0
        self._threads = ThreadPoolExecutor(threads, "lookup")
        self._room = BoundedSemaphore(threads + queue)

    async def get(self, user_id: str) -> tuple[Found | None, Outcome]:
        """What there is about a user, if anything, and the outcome."""
        reading = self._begun(user_id)
        if not isinstance(reading, Future):
            return None, reading
        try:
            return self._succeeded(await asyncio.wait_for(asyncio.wrap_future(reading), self._budget))
        except Exception as problem:  # any failure: it is answered without
            return None, self._failed(problem)

    def wait(self, user_id: str) -> tuple[Found | None, Outcome]:
        """`get` without an event loop: blocks the calling thread."""
        reading = self._begun(user_id)
        if not isinstance(reading, Future):
            return None, reading
        try:
            return self._succeeded(reading.result(self._budget))
        except Exception as problem:
            return None, self._failed(problem)
        finally:
            reading.cancel()

    def _begun(self, user_id: str) -> Future[Found | None] | Outcome:
        """The lookup in a thread, or why there is none."""
        if self._failures >= FAILURES and self._now() < self._paused_until:
            return "paused"
        if not self._room.acquire(blocking=False):
            return "full"
        reading = self._threads.submit(self._read, user_id)
        reading.add_done_callback(lambda _: self._room.release())
        return reading

    def _succeeded(self, found: Found | None) -> tuple[Found | None, Outcome]:
        self._failures = 0
        return found, "none" if found is None else "found"

    def _failed(self, problem: Exception) -> Outcome:
        if isinstance(problem, ValueError):
            self._failures = 0
            return "malformed"
        self._failures += 1
        self._paused_until = self._now() + PAUSE
        return "late" if isinstance(problem, TimeoutError) else "failed"

    def _read(self, user_id: str) -> Found | None:
        with self._opening:
            store = self._store = self._store or self._open()
        return store.get(user_id)
