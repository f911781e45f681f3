"""Addresses of PostgreSQL, of which no message repeats any part: it may be one of a password."""

from __future__ import annotations

from collections.abc import Mapping

from firstspin.records import InputError


def complete(url: str, defaults: Mapping[str, str], what: str) -> str:
    """A libpq URL as connection string, with the defaults of parameters that it does not name.

    Raises InputError, which begins with `what`, where it can't be parsed, or where a password has an @ of its own: the
    driver takes the rest for the host, and repeats it where that has no address.
    """
    import psycopg

    try:
        given = psycopg.conninfo.conninfo_to_dict(url)
        missing = {name: value for name, value in defaults.items() if name not in given}
        completed = psycopg.conninfo.make_conninfo(url, **missing)
    except psycopg.ProgrammingError:
        raise InputError(f"{what}: PostgreSQL can't parse it") from None
    host = str(given.get("host", ""))
    if "@" in host[1:] and not host.startswith("/"):  # sockets may have it
        raise InputError(f"{what}: two @ before the host: write %40 for an @ of the user or the password")
    return completed
