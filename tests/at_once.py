"""Calls that would be made in another thread, made at once."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from typing import Any


class AtOnce(Executor):
    """An executor that runs each call in the calling thread, so that nothing runs on after it."""

    def submit(self, call: Any, /, *args: Any, **words: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(call(*args, **words))
        except Exception as problem:
            future.set_exception(problem)
        return future
