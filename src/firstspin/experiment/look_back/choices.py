"""The stations that a policy would have shown, from a table, a station or an arm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa

from firstspin.data.formats.connections import connect, in_our_words
from firstspin.data.formats.written_values import AS_WRITTEN, Spelling
from firstspin.data.schema import GENRE, STATION_ID, USER_ID
from firstspin.events.schema import Secret, scoped
from firstspin.experiment.reading.outcome_columns import UNIT, open_source, receive, value
from firstspin.files import workspace
from firstspin.records import InputError

USER_KEY: Final = "user_key"
NO_STATION: Final = "\x01"
"""The choice for a user without one: no station has this id, so no estimate counts the user."""


def read_choices(
    path: Path, attributed: pa.Table, experiment: str, secret: Secret | None, spelling: Spelling = AS_WRITTEN
) -> list[str]:
    """The policy's station for each row of `attributed`, from a CSV or Parquet table; NO_STATION for users not in it.

    The table has `station_id`, and `user_id` or, as in an export, `user_key`. User ids are hashed with the store's
    secret. Raises InputError where a column is missing, user ids come without a secret, or no user matches.
    """
    named, stations = _pairs(path, (USER_KEY, USER_ID), STATION_ID, spelling)
    if named == USER_ID:
        if secret is None:
            raise InputError(f"{path.name} names users by user_id: --events-secret is needed")
        stations = {scoped(secret.user_hash(user), experiment): station for user, station in stations.items()}
    keys: Sequence[str] = attributed[USER_KEY].to_pylist()
    if not stations.keys() & set(keys):
        raise InputError(f"{path.name} has none of the {len(keys):,} users of {experiment}")
    return [stations.get(key, NO_STATION) for key in keys]


def read_genres(path: Path, spelling: Spelling = AS_WRITTEN) -> dict[str, str]:
    """The genre of each station, from the table of stations."""
    return _pairs(path, (STATION_ID,), GENRE, spelling)[1]


def _pairs(path: Path, keys: Sequence[str], other: str, spelling: Spelling) -> tuple[str, dict[str, str]]:
    """Which of the columns `keys` the table has, and its values with those of `other`."""
    with workspace("look-back") as folder:
        source = open_source(path, "pairs", folder, (other,), keys, spelling)
        key = next((name for name in keys if name in source.columns), "")
        if not key:
            raise InputError(f"{path.name} has no column {' or '.join(keys)}")
        with connect(folder, [source]) as connection, in_our_words(f"{path.name} can't be read"):
            table = receive(connection, source, "pairs")
            columns = ", ".join(value(table, column, UNIT) for column in (key, other))
            rows = table.query(f"SELECT {columns} FROM {table.rows((key, other))}")
    pairs: dict[str, str] = {}
    for one, two in rows:
        if pairs.setdefault(str(one), str(two)) != two:
            raise InputError(f"{path.name} gives two values of {other} for one {key}")
    return key, pairs
