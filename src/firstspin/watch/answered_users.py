"""The users who were answered this week or last week, as Bloom filters: each counts once in the sums of answers.

A newcomer registers once, but an app may ask for the recommendation again and again. The filters are bits in memory
that all workers of a service share. They have no id, are on no disk, and are gone with the service. Their hash is
Python's own of texts, SipHash, whose key is drawn at each start.

A user takes four bits of one word (blocked Bloom filters: Putze, Sanders and Singler, ACM Journal of Experimental
Algorithmics 14, 2009). A new user whose bits are taken by others already is left out of the sums: 1.2% of the users of
a full week after another full one, whatever they answered. A sum is smaller by as much, and no share is biased.
"""

from __future__ import annotations

import mmap
from datetime import datetime
from typing import Final

WORDS: Final = 1 << 17
"""Of each week's filter: a megabyte."""
USERS_PER_WORD: Final = 5
"""A filter takes no more users on average; those beyond count each time that they are answered."""


class AnsweredUsers:
    """Two filters of so many words of 64 bits, a power of 2. To be created before the workers are forked.

    Workers write without a lock: where two write the same word at once, a user may be lost, and counts twice.
    """

    def __init__(self, words: int = WORDS) -> None:
        self._words, self._empty = words, bytes(8 * words)
        memory = memoryview(mmap.mmap(-1, 8 * (4 + 2 * words))).cast("Q")
        self._weeks, self._users, rest = memory[:2], memory[2:4], memory[4:]  # of each filter: its week, its users
        self._filters = (rest[:words], rest[words:])

    def is_first(self, user_id: str, now: datetime) -> bool:
        """Whether this is the first answer of a user in this week (Monday to Sunday) and the last."""
        week = (now.toordinal() - 1) // 7  # day 1 is a Monday
        own, other = week % 2, 1 - week % 2
        if self._weeks[own] != week:
            # the week first, so that no other worker empties the filter again
            self._weeks[own], self._users[own] = week, 0
            self._filters[own].cast("B")[:] = self._empty
        code = hash(user_id)
        place = code % self._words
        bits = 1 << (code >> 20 & 63) | 1 << (code >> 26 & 63) | 1 << (code >> 32 & 63) | 1 << (code >> 38 & 63)
        if self._filters[own][place] & bits == bits:
            return False
        if self._users[own] < USERS_PER_WORD * self._words:
            self._users[own] += 1
            self._filters[own][place] |= bits
        is_near = abs(self._weeks[other] - week) == 1  # also where the clock was set back
        return not (is_near and self._filters[other][place] & bits == bits)
