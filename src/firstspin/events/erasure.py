"""Erasure of users (the right to be forgotten): their rows are deleted, and a tombstone marks the id as erased.

Later events of an erased id are refused, with an error to the sender. Training excludes `erased_users`. An erased id
stays erased; a returning person needs a new id.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from firstspin.events.database import Database, Deleted, delete_users, erased_among
from firstspin.events.schema import Secret, microseconds


@dataclass(frozen=True, slots=True)
class Erasure:
    """The deleted rows, and whether the store's files are free of them (`compacted`).

    `deleted.sent` rows had been sent to a sink, where their user is `schema.scoped(user_hash, scope)`. Without
    `compacted` the rows are deleted, but bytes of them may remain in the files until `Database.compact` succeeds, which
    needs as much free space as the store has data.
    """

    deleted: Deleted
    compacted: bool


def erase(database: Database, secret: Secret, user_ids: Collection[str], *, now: datetime) -> Erasure:
    """Erase these users; the files are rewritten once, whatever the number of users. Raises as `Database` does."""
    users = [secret.user_hash(user_id) for user_id in user_ids]
    at = microseconds(now)
    deleted = database.transact(lambda session: delete_users(session, users, at), deleting=True)
    return Erasure(deleted, database.compact())


def erased_users(database: Database, secret: Secret, user_ids: Collection[str]) -> frozenset[str]:
    """The erased users among `user_ids`, which training must exclude. Raises as `Database` does."""
    users = {secret.user_hash(user_id): user_id for user_id in user_ids}
    with database.reading() as session:
        return frozenset(users[user_hash] for user_hash in erased_among(session, users))
