"""Erased users are left out of training: their registrations, their listens, and the popularity of stations."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from firstspin.data.ingest import Tables
from firstspin.data.schema import LISTENS, REGISTRATIONS
from firstspin.data.sql import identifier

REASON: Final = "users who were erased"

Erased = Callable[[Collection[str]], Collection[str]]
"""Returns those of the given user ids that were erased."""


def leave_out_erased(tables: Tables, erased: Erased, named: Sequence[str] = (REGISTRATIONS, LISTENS)) -> None:
    """Remove the erased users from registrations and listens; their registrations are counted in `ignored`.

    The table `erased` has those of the users `named` in these tables.
    """
    connection = tables.connection
    users = connection.sql(" UNION ".join(f"SELECT user_id FROM {identifier(name)}" for name in named)).fetchall()
    parameters = {"users": list(erased([user for (user,) in users]))}
    connection.execute("CREATE TEMP TABLE erased AS SELECT unnest($users::VARCHAR[]) AS user_id", parameters)
    ((n,),) = connection.sql("SELECT count(*) FROM registrations SEMI JOIN erased USING (user_id)").fetchall()
    connection.execute("DELETE FROM registrations WHERE user_id IN (FROM erased)")
    connection.execute("ALTER VIEW listens RENAME TO listens_of_all")
    connection.execute("CREATE VIEW listens AS FROM listens_of_all ANTI JOIN erased USING (user_id)")
    if n:
        tables.ignored[REASON] = n
