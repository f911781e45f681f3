"""Users who asked to be forgotten are left out of everything that is learned: registrations, listens, popularity."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Final

from firstspin.data.ingest import Tables

REASON: Final = "users who were erased"

Erased = Callable[[Collection[str]], Collection[str]]
"""Tells those of some users who were erased; see `experiment.erase.erased_users`."""


def without_erased(found: Tables, erased: Erased) -> Tables:
    """The tables without the users who were erased; their registrations are counted in `ignored`."""
    connection = found.connection
    known = connection.sql("SELECT user_id FROM registrations UNION SELECT user_id FROM listens").fetchall()
    gone = {"users": list(erased([user for (user,) in known]))}
    connection.execute("CREATE TEMP TABLE gone AS SELECT unnest($users::VARCHAR[]) AS user_id", gone)
    ((n,),) = connection.sql("SELECT count(*) FROM registrations SEMI JOIN gone USING (user_id)").fetchall()
    connection.execute("DELETE FROM registrations WHERE user_id IN (FROM gone)")
    connection.execute("ALTER VIEW listens RENAME TO listens_of_all")
    connection.execute("CREATE VIEW listens AS FROM listens_of_all ANTI JOIN gone USING (user_id)")
    return replace(found, ignored=found.ignored | ({REASON: n} if n else {}))
