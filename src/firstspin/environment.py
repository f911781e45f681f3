"""How settings given as text are read: environment variables, the service's options, hyperparameters.

A variable is checked like the option of its name, and a message names the variable. No value is ever taken for another:
a boolean is 1, true, yes, on or 0, false, no, off, and an empty or misspelt setting is an error. So a switch that
protects people (FIRSTSPIN_UNDER_AGE, FIRSTSPIN_KEYS, FIRSTSPIN_BARE_ERRORS …) is never off by mistake.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from math import inf, isfinite
from pathlib import Path
from typing import Final, TypeVar

from firstspin.data.parsing import Misspelt, utc_moment
from firstspin.records import InputError

PREFIX: Final = "FIRSTSPIN_"
BARE_ERRORS: Final = "FIRSTSPIN_BARE_ERRORS"
"""True where stderr is kept as a log: errors about tables then name file, row and field, and no value."""

YES: Final = frozenset({"1", "true", "yes", "on"})
NO: Final = frozenset({"0", "false", "no", "off"})
ALIKE: Final = 0.85
_SERVICE_LINK: Final = re.compile(r"(tcp|udp|sctp)://")

Setting = TypeVar("Setting")


def variable(option: str) -> str:
    """The environment variable of an option.

    >>> variable("under_age")
    'FIRSTSPIN_UNDER_AGE'
    """
    return PREFIX + option.upper().replace("-", "_")


def read(environment: Mapping[str, str], name: str, convert: Callable[[str], Setting]) -> Setting | None:
    """The setting of a variable; None where it is not set. Raises InputError, with its name, for a bad value."""
    if (text := environment.get(name)) is None:
        return None
    try:
        return convert(text)
    except InputError as problem:
        raise InputError(f"{name}: {problem}{_hint(name, text)}") from None


def required(environment: Mapping[str, str], name: str, convert: Callable[[str], Setting]) -> Setting:
    """The setting of a variable. Raises InputError, with its name, where it is not set or can't be read."""
    if (setting := read(environment, name, convert)) is None:
        raise InputError(f"{name} is not set")
    return setting


def _hint(name: str, text: str) -> str:
    if not _SERVICE_LINK.match(text):
        return ""
    service = name.removesuffix("_PORT").lower().replace("_", "-")
    return (
        f"; Kubernetes sets {name} for a service named {service}:"
        " set enableServiceLinks: false in the pod, or rename the service"
    )


def bare_errors(environment: Mapping[str, str]) -> bool:
    """Whether errors must not repeat values of tables. Raises InputError for a value that is neither true nor false."""
    return bool(read(environment, BARE_ERRORS, yes_or_no))


def refuse_misspelt(environment: Mapping[str, str], known: Collection[str]) -> None:
    """Raises InputError for a variable of ours that differs from a known one by little: its setting would be lost."""
    settings = {name.removeprefix(PREFIX) for name in known}
    for name in sorted(environment):
        given = name.removeprefix(PREFIX)
        if given != name and given not in settings:
            for meant in difflib.get_close_matches(given, settings, 1, ALIKE):
                raise InputError(f"{name} is not known; did you mean {PREFIX}{meant}?")


# --------------------------------------------------------------------------------------------- text -> setting


def yes_or_no(text: str) -> bool:
    """1, true, yes, on or 0, false, no, off, in any case. Raises InputError for anything else."""
    word = text.strip().lower()
    if word not in YES | NO:
        raise InputError(f"{text!r} is neither true nor false (1, true, yes, on or 0, false, no, off)")
    return word in YES


def words(text: str) -> str:
    """Text that says something. Raises InputError for an empty one, as of a shell variable that is not set."""
    if not text.strip():
        raise InputError("is empty")
    return text


def path(text: str) -> Path:
    """A path. Raises InputError for an empty one, which would be the current folder."""
    return Path(words(text))


def moment(text: str) -> datetime:
    """A date or a time as UTC without a zone; one without a zone is UTC. Raises InputError for anything else."""
    try:
        return utc_moment(text).astimezone(UTC).replace(tzinfo=None)
    except Misspelt:
        raise InputError(f"{text!r} is not a date or time like 2026-01-31") from None


def one_of(*choices: str) -> Callable[[str], str]:
    """Reads one of these words; raises InputError for any other."""

    def convert(text: str) -> str:
        if text not in choices:
            raise InputError(f"{text!r} is not one of {', '.join(choices)}")
        return text

    return convert


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """Reads a whole number in a range; raises InputError for anything else."""

    def convert(text: str) -> int:
        if not re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", text) or not low <= int(text) <= (inf if high is None else high):
            raise InputError(f"{text!r} is not a whole number {_range(low, high)}")
        return int(text)

    return convert


def seconds(low: float = 0.0, *, or_equal: bool = False) -> Callable[[str], float]:
    """Reads a finite number of seconds above `low`; raises InputError for anything else."""

    def convert(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = inf
        if not isfinite(number) or number < low or (number == low and not or_equal):
            raise InputError(f"{text!r} is not a number of seconds {'from' if or_equal else 'above'} {low:g}")
        return number

    return convert


def _range(low: int, high: int | None) -> str:
    return f"of at least {low}" if high is None else f"from {low} to {high}"
