"""Further fields: columns of the registrations that a service uses beyond the four standard ones.

One rule defines the valid names, for `--extra` of every command, for bundles and for requests.
"""

from __future__ import annotations

import keyword
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec.structs import force_setattr

from firstspin.data import schema
from firstspin.records import MAX_TEXT, InputError, Registration, Text, normal

_USED: Final = frozenset(schema.REGISTRATION_COLUMNS)
_IN_REQUESTS: Final = frozenset({schema.INSTANCES, schema.LISTENS})
_IN_LABELS: Final = frozenset({schema.TOP_GENRE, schema.SECONDS, schema.PLAYED})


def with_further_fields(names: Sequence[str], kinds: Mapping[str, str] | None = None) -> type[Registration]:
    """The registration type with these further fields; each is optional.

    `kinds` maps a field to NUMBER or TEXT; without it a field takes both. Raises InputError where a name is invalid.
    """
    check_names(names)
    if not names:
        return Registration
    types = {schema.NUMBER: float | None, schema.TEXT: Text | None}
    fields = [(name, types.get((kinds or {}).get(name, ""), Text | float | None), None) for name in names]

    def tidy(registration: Registration) -> None:
        Registration.__post_init__(registration)
        for name in names:
            answer = getattr(registration, name)
            if type(answer) is str and answer != (word := answer.strip() or None):
                force_setattr(registration, name, word)

    return msgspec.defstruct(  # type: ignore[return-value]
        "Registration",
        fields,
        bases=(Registration,),
        namespace={"__post_init__": tidy},
        frozen=True,
        kw_only=True,
        forbid_unknown_fields=True,
    )


def check_names(names: Sequence[str]) -> None:
    """Raises InputError where a name is reserved, can't be a field of a request, or occurs twice.

    Names are compared in any case: databases, and so files that are joined with ours, treat `Age` and `age` as equal.
    """
    seen: set[str] = set()
    for name in names:
        folded = name.casefold()
        if reason := "it is named twice" if folded in seen else _refused(name, folded):
            shown = name if len(name) <= MAX_TEXT and name.isprintable() else f"{name[:80]!r}"
            raise InputError(f"further column {shown}: {reason}")
        seen.add(folded)


def _refused(name: str, folded: str) -> str | None:
    if folded in _USED:
        return "this column is always used"
    reason = _invalid(name, folded)
    return f"{reason}; rename the column{_alias(name)}" if reason else None


def _alias(name: str) -> str:
    """How to use a column of this name under a valid one; empty where that would not fit the option."""
    word = re.sub(r"\W+", "_", normal(name)).strip("_") if len(name) <= MAX_TEXT else ""
    valid = (new for new in (word, f"user_{word}") if word and new.casefold() not in _USED)
    alias = next((new for new in valid if not _invalid(new, new.casefold())), None)
    if alias is None or not name.isprintable() or set(name) & set(',"'):
        return ""
    return f", or use it as {alias}: --map {shlex.quote(f'{alias}={name}')} --extra {alias}"


def _invalid(name: str, folded: str) -> str | None:
    if folded in _IN_REQUESTS:
        return "requests use this name"
    if folded in _IN_LABELS:
        return "the labels have a column of this name"
    if len(name) > MAX_TEXT:
        return f"its name is longer than {MAX_TEXT} characters"
    if not name.isidentifier() or name.startswith("_") or normal(name) != name:
        return "a name is letters, digits and underscores and begins with a letter"
    if keyword.iskeyword(name):
        return f"{name} is a word of Python"
    return None
