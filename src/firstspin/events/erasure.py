"""A person asks to be forgotten: the rows go, and the id is known as erased when it comes again.

The rule for what arrives late is refusal: nothing of it is kept, and its sender is told. Training leaves the erased
out by asking `erased_users`. An erased id stays erased; a person who comes back comes with a new one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from firstspin.events.database import Database, Deleted, delete_users, erased_among
from firstspin.events.schema import Secret, microseconds


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was deleted, and whether no trace is left in the store's files.

    `deleted.sent` rows had gone to a sink before; there they carry `events.scoped(user_hash, scope)`. Not `compacted`
    means that the rows are gone but that bytes of them may lie in the files until `Database.compact` succeeds, which
    takes as much free space as the store has data.
    """

    deleted: Deleted
    compacted: bool


def erase(database: Database, secret: Secret, user_ids: Collection[str], *, now: datetime) -> Erasure:
    """Forget these users. Many at once cost little more than one, because the files are rewritten once."""
    users = [secret.user_hash(user_id) for user_id in user_ids]
    at = microseconds(now)
    deleted = database.transact(lambda session: delete_users(session, users, at), deleting=True)
    return Erasure(deleted, database.compact())


def erased_users(database: Database, secret: Secret, user_ids: Collection[str]) -> frozenset[str]:
    """Those of the users who were erased: what training must leave out."""
    users = {secret.user_hash(user_id): user_id for user_id in user_ids}
    with database.snapshot() as session:
        return frozenset(users[user_hash] for user_hash in erased_among(session, users))
