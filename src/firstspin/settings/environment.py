"""Parsing of settings given as text: environment variables, options of the service, hyperparameters.

A variable is checked like the option of its name, and error messages name the variable. Values are never guessed: a
boolean is 1, true, yes, on or 0, false, no, off, and an empty or misspelt setting is an error. So a switch that
protects users (FIRSTSPIN_UNDER_AGE, FIRSTSPIN_KEYS, FIRSTSPIN_BARE_ERRORS …) is never off by mistake.
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
"""True where stderr goes to a log: errors about tables then name file, row and field, but no value."""

SETTINGS: Final = "FIRSTSPIN_SETTINGS"
"""The settings file; without it SETTINGS_FILE in the working directory, if there is one."""
SETTINGS_FILE: Final = "firstspin.toml"

WEBHOOK_SECRET: Final = "FIRSTSPIN_WEBHOOK_SECRET"
"""The secret of the service's webhooks, where no file has it."""

YES: Final = frozenset({"1", "true", "yes", "on"})
NO: Final = frozenset({"0", "false", "no", "off"})
MIN_SIMILARITY: Final = 0.85
_SERVICE_LINK: Final = re.compile(r"(tcp|udp|sctp)://")

Setting = TypeVar("Setting")


def variable(option: str) -> str:
    """The environment variable of an option.

    >>> variable("under_age")
    'FIRSTSPIN_UNDER_AGE'
    """
    return PREFIX + option.upper().replace("-", "_")


def read(environment: Mapping[str, str], name: str, convert: Callable[[str], Setting]) -> Setting | None:
    """The setting of a variable; None where it is not set. Raises InputError where its value is invalid."""
    if (text := environment.get(name)) is None:
        return None
    try:
        return convert(text)
    except InputError as problem:
        raise InputError(f"{name}: {problem}{_hint(name, text)}") from None


def required(environment: Mapping[str, str], name: str, convert: Callable[[str], Setting]) -> Setting:
    """The setting of a variable. Raises InputError where it is not set or its value is invalid."""
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


def settings_file(environment: Mapping[str, str]) -> Path | None:
    """The settings file where no option names it; None where there is none. Raises InputError where it is empty."""
    return read(environment, SETTINGS, path) or (Path(SETTINGS_FILE) if Path(SETTINGS_FILE).exists() else None)


def bare_errors(environment: Mapping[str, str]) -> bool:
    """Whether errors must not repeat values of tables. Raises InputError where the value is no boolean."""
    return bool(read(environment, BARE_ERRORS, yes_or_no))


def refuse_misspelt(environment: Mapping[str, str], names: Collection[str]) -> None:
    """Raises InputError where a FIRSTSPIN_ variable is nearly one of `names`: its setting would have no effect."""
    settings = {name.removeprefix(PREFIX) for name in names}
    for name in sorted(environment):
        given = name.removeprefix(PREFIX)
        if given != name and given not in settings:
            for similar in difflib.get_close_matches(given, settings, 1, MIN_SIMILARITY):
                raise InputError(f"unknown variable {name}; did you mean {PREFIX}{similar}?")


# --------------------------------------------------------------------------------------------- text -> setting


def yes_or_no(text: str) -> bool:
    """A boolean: 1, true, yes, on or 0, false, no, off, in any case. Raises InputError where the text is another."""
    word = text.strip().lower()
    if word not in YES | NO:
        raise InputError(f"{text!r} is neither true nor false (1, true, yes, on or 0, false, no, off)")
    return word in YES


def words(text: str) -> str:
    """A text. Raises InputError where it is empty, as that of a shell variable that is not set."""
    if not text.strip():
        raise InputError("is empty")
    return text


def path(text: str) -> Path:
    """A path. Raises InputError where the text is empty, which would be the current folder."""
    return Path(words(text))


def moment(text: str) -> datetime:
    """A date or time as a naive UTC datetime; without a zone it is UTC. Raises InputError where the text is neither."""
    try:
        return utc_moment(text).astimezone(UTC).replace(tzinfo=None)
    except Misspelt:
        raise InputError(f"{text!r} is not a date or time like 2026-01-31") from None


def one_of(*choices: str) -> Callable[[str], str]:
    """A parser of one of these words; it raises InputError where the text is another."""

    def convert(text: str) -> str:
        if text not in choices:
            raise InputError(f"{text!r} is not one of {', '.join(choices)}")
        return text

    return convert


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """A parser of an integer from `low` to `high`; it raises InputError where the text is none."""

    def convert(text: str) -> int:
        if not re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", text) or not low <= int(text) <= (inf if high is None else high):
            raise InputError(f"{text!r} is not a whole number {_range(low, high)}")
        return int(text)

    return convert


def seconds(*, or_equal: bool = False) -> Callable[[str], float]:
    """A parser of a finite number of seconds above 0; it raises InputError where the text is none."""

    def convert(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = inf
        if not isfinite(number) or number < 0 or (number == 0 and not or_equal):
            raise InputError(f"{text!r} is not a number of seconds {'from' if or_equal else 'above'} 0")
        return number

    return convert


def share(text: str) -> float:
    """A number from 0 to 1. Raises InputError where the text is none."""
    try:
        number = float(text)
    except ValueError:
        number = inf
    if not 0 <= number <= 1:
        raise InputError(f"{text!r} is not a share from 0 to 1")
    return number


def _range(low: int, high: int | None) -> str:
    return f"of at least {low}" if high is None else f"from {low} to {high}"
