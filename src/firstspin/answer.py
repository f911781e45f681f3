"""The answering story. READ FIRST, with `learn.py` and `experiment/run.py`; `score.py` is the same for a whole file.

    bundle -rank(registration)-> ranking -fill-> recommendation

The service and the Lambda answer by the same policy (`serving/policy.py`) and give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from firstspin.data import parsing
from firstspin.data.further_fields import with_further_fields
from firstspin.data.schema import AGE, GENRES, NUMBER, REGISTERED_AT, USER_ID
from firstspin.models.features import QUESTIONS
from firstspin.records import InputError, Recommendation, Registration
from firstspin.serving import bundle, explanations, policy
from firstspin.serving.bundle import Bundle
from firstspin.serving.content import recommendation


def recommend(
    path: Path | Bundle, registration: Registration, extra: Mapping[str, str] | None = None
) -> Recommendation:
    """The answer of a bundle, loaded or in a folder, for one registration; `extra` holds further answers as text.

    Raises InputError for a further field that the bundle does not have, and for a value that can't be read.
    """
    loaded = bundle.load(path) if isinstance(path, Path) else path
    registration = _with_extra(registration, extra or {}, loaded.manifest.extra)
    decision = policy.decide(registration, None, loaded, None, policy.DEFAULTS)
    return recommendation(registration, decision, loaded)


def explain(
    path: Path | Bundle, registration: Registration, extra: Mapping[str, str] | None = None
) -> explanations.Explanation:
    """How much each answer of a registration moved each genre shown; `extra` as in `recommend`.

    Raises InputError as `recommend`, and where the model fails, so that the business rule answers.
    """
    loaded = bundle.load(path) if isinstance(path, Path) else path
    return explanations.explain(_with_extra(registration, extra or {}, loaded.manifest.extra), loaded)


def registration_of(answers: Mapping[str, object], kinds: Mapping[str, str]) -> Registration:
    """The registration with these answers; `kinds` are the further fields of the bundle.

    Text is parsed as in a table; other values are typed, those of numpy, pandas, Polars and Arrow too. The other
    columns of the registrations table are ignored, so that a row of it is a registration. Raises InputError for an
    unknown field, and for a value that is none of its field.
    """
    fields = (*QUESTIONS, *kinds)
    if unknown := [name for name in answers if name not in (*fields, USER_ID, REGISTERED_AT)]:
        raise InputError(f"this bundle does not ask {unknown[0]!r}; it asks {', '.join(fields)}")
    parsers: dict[str, Callable[[str], object]] = {AGE: parsing.age, GENRES: parsing.picks}
    parsers |= {name: parsing.number for name, kind in kinds.items() if kind == NUMBER}
    values = {name: _plain(answers[name]) for name in fields if name in answers}
    for name, value in values.items():
        if isinstance(value, str):
            try:
                values[name] = parsers.get(name, str.strip)(value)
            except parsing.Misspelt as problem:
                raise InputError(f"{name} {value!r} {problem}") from None
    try:
        return msgspec.convert(values, with_further_fields(tuple(kinds), kinds))
    except msgspec.ValidationError as problem:
        raise InputError(f"this is not a registration: {problem}") from None


def _plain(value: object) -> object:
    """A value of a table library as Python's own: arrays are lists, and NaN, NaT and NA are None."""
    for convert in ("as_py", "tolist", "to_list"):
        if hasattr(value, convert):
            value = getattr(value, convert)()
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if (value != value) is not False else value


def _with_extra(registration: Registration, extra: Mapping[str, str], kinds: Mapping[str, str]) -> Registration:
    """The registration with further answers, each converted to the kind it had in training."""
    if unknown := [name for name in extra if name not in kinds]:
        raise InputError(f"this bundle does not ask {unknown[0]!r}; it asks {', '.join(kinds) or 'no further field'}")
    return registration_of({**msgspec.structs.asdict(registration), **extra}, kinds)
