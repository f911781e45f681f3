"""Moves passwords from the process arguments, which every user of the machine can read, to the environment.

The environment is readable by the process's own user alone. Passwords occur in the addresses of databases.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote, urlsplit

ADDRESSES: Final = {"--events": "FIRSTSPIN_EVENTS", "--erased": "FIRSTSPIN_ERASED", "--listens": "FIRSTSPIN_LISTENS"}
"""Options that take the address of a database, and the environment variables that replace them."""

SCHEMES: Final = ("postgresql://", "postgres://")


def move_passwords_away() -> None:
    """Execute the program again, with its addresses in the environment, where an argument holds a password."""
    arguments, moved = without_passwords(sys.orig_argv)
    if moved:
        os.environ.update(moved)
        os.execv(sys.executable, [sys.executable, *arguments[1:]])


def without_passwords(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The arguments without the options whose address holds a password, and these options as variables.

    >>> without_passwords(["serve", "--events", "postgresql://me:secret@host/db", "--port=80"])
    (['serve', '--port=80'], {'FIRSTSPIN_EVENTS': 'postgresql://me:secret@host/db'})
    """
    remaining: list[str] = []
    moved: dict[str, str] = {}
    while arguments:
        option, equals, value = arguments[0].partition("=")
        words = arguments[: 2 if option in ADDRESSES and not equals else 1]
        arguments = arguments[len(words) :]
        address = value if equals else words[-1]
        if option in ADDRESSES and _has_password(address):
            moved[ADDRESSES[option]] = address
        elif words[0].startswith(SCHEMES) and _has_password(words[0]):  # `firstspin watch STORE`
            moved[ADDRESSES["--events"]] = words[0]
        else:
            remaining += words
    return remaining, moved


def _has_password(address: str) -> bool:
    """Whether libpq may see a password: unlike `urlsplit`, it looks for the @ beyond a #, ? or [ of a password."""
    user, at, _ = address.partition("://")[2].rpartition("@")
    try:
        urlsplit(address).port  # noqa: B018
    except ValueError:  # not an address: it may hold a password
        return True
    return bool(at and ":" in user) or "password=" in unquote(address)
