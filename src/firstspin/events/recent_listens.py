"""The latest listens of a user of the service, from the event store: evidence for the next recommendation.

The events of a user are found by an index. The connections are read-only, and nothing of an answer is remembered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from firstspin.events import statements
from firstspin.events.database import Database, Session
from firstspin.events.schema import Secret, tombstone
from firstspin.records import MAX_LISTENS, MAX_SECONDS, Listen, Listens

_listens: Final = tuple[Listen, ...]


class RecentListens:
    """Looks up the listens of users, in several threads; each lookup uses one of the idle connections, or a new one.

    `open_database` returns a read-only database with the index of listens.
    """

    def __init__(self, open_database: Callable[[], Database], secret: Secret) -> None:
        self._open, self._secret = open_database, secret
        self._idle: deque[Database] = deque()

    def get(self, user_id: str) -> Listens | None:
        """The latest 200 listens of a user, oldest first; None where there are none, or the user was erased.

        Raises as `Database` does, and ValueError where a row is no listen.
        """
        try:
            database = self._idle.pop()
        except IndexError:
            database = self._open()
        try:
            with database.reading() as session:
                return recent_listens(session, self._secret.user_hash(user_id)) or None
        finally:
            self._idle.append(database)

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()


def recent_listens(session: Session, user_hash: bytes) -> Listens:
    """The latest 200 listens, oldest first, without those with a time after their receipt.

    Whether the user was erased is asked last, so that an erasure during the lookup is respected. Raises ValueError
    where a row is no listen: `write` stores none such, but SQLite accepts any type, and its count would not be finite.
    """
    rows = session.run(statements.LATEST_LISTENS, (user_hash, MAX_LISTENS))
    if not rows or session.run(statements.erased(1), (tombstone(user_hash),)):
        return ()
    try:
        latest = [{"station_id": name, "seconds": min(seconds, MAX_SECONDS)} for name, seconds in reversed(rows)]
        return msgspec.convert(latest, _listens)
    except (TypeError, msgspec.ValidationError):
        raise ValueError("a row is no listen") from None
