"""Run as a program: fills an event store until it is killed, naming each event on stdout once it was acknowledged.

python event_writer.py URL FIRST      events FIRST, FIRST + 1, ..., in submissions of 1 to 20
"""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import Future
from itertools import count

from made_events import SECRET, click, shown

from firstspin.events.store import QueueLimits, Statuses, open_store


def main(url: str, first: int) -> None:
    store = open_store(url, SECRET, QueueLimits(linger=0.001))
    room = threading.Semaphore(64)
    numbers = count(first)
    for turn in count():
        batch = [next(numbers) for _ in range(1 + turn % 20)]

        def acknowledged(future: Future[Statuses], batch: list[int] = batch) -> None:
            future.result()
            os.write(1, "".join(f"{number}\n" for number in batch).encode())
            room.release()

        room.acquire()
        store.submit([click(str(number)) for number in batch]).add_done_callback(acknowledged)
        store.submit_exposures([shown(f"user {batch[0]}")])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
