"""The answering story. READ FIRST, with `learn.py` and `experiment/run.py`; `score.py` is the same for a whole file.

    bundle -rank(registration)-> ranking -fill-> recommendation

The service and the Lambda answer by the same policy (`serving/policy.py`) and give the same bits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Final

import msgspec

from firstspin.data import parsing
from firstspin.data.further_fields import with_further_fields
from firstspin.data.names import NameIndex
from firstspin.data.schema import AGE, GENRES, LISTENS, NUMBER, PICK_SEPARATOR, REGISTERED_AT, USER_ID
from firstspin.models.features import QUESTIONS
from firstspin.records import InputError, Listen, Recommendation, Registration, listed, normal
from firstspin.serving import bundle, explanations, policy
from firstspin.serving.bundle import Bundle
from firstspin.serving.content import recommendation

SHOWN_VALUES: Final = 10
"""Values of a field in a message."""


UNKNOWN_STATION: Final = "is no station of this bundle; its listens are ignored"


def recommend(
    path: Path | Bundle, registration: Registration, settings: policy.PolicySettings = policy.DEFAULTS
) -> Recommendation:
    """The answer of a bundle, loaded or in a folder, for one registration."""
    loaded = bundle.load(path) if isinstance(path, Path) else path
    decision = policy.decide(registration, None, loaded, None, settings)
    return recommendation(registration, decision, loaded)


def explain(path: Path | Bundle, registration: Registration) -> explanations.Explanation:
    """How much each answer of a registration moved each genre shown.

    Raises InputError where the model fails, so that the business rule answers.
    """
    loaded = bundle.load(path) if isinstance(path, Path) else path
    return explanations.explain(registration, loaded)


def registration_of(answers: Mapping[str, object], kinds: Mapping[str, str], genres: NameIndex) -> Registration:
    """The registration with these answers to a bundle with further fields of these `kinds`, and these `genres`.

    Text and numbers are parsed as in a table, picks in a text may have commas between; other values are typed, those
    of numpy, pandas, Polars and Arrow too. With a `user_id` it is a row of a table, of which other columns are ignored.
    Raises InputError for an unknown field, and for a value that is none of its field.
    """
    fields = (*QUESTIONS, *kinds, LISTENS)
    unknown = [name for name in answers if name not in (*fields, REGISTERED_AT)]
    if unknown and USER_ID not in answers:
        raise InputError(f"this bundle does not ask {unknown[0]!r}; it asks {', '.join(fields)}")
    values = {name: _plain(answers[name]) for name in fields if name in answers}
    for name, value in values.items():
        if name == GENRES and not isinstance(value, str | None):
            values[name] = _listed(value)
            continue
        if name == LISTENS and not isinstance(value, str | None):
            values[name] = _heard(value)
            continue
        is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
        wants_number = name == AGE or kinds.get(name) == NUMBER
        if not (value is None or isinstance(value, str) or (is_number and wants_number)):
            raise InputError(f"{name} {value!r} is not a {'number' if wants_number else 'text'}")
        if value is not None:
            try:
                values[name] = _parsed(name, str(value), kinds, genres)
            except parsing.Misspelt as problem:
                raise InputError(f"{name} {value!r} {problem}") from None
    try:
        return msgspec.convert(values, with_further_fields(tuple(kinds), kinds))
    except msgspec.ValidationError as problem:
        raise InputError(f"this is not a registration: {problem}") from None


def picks_of(text: str, genres: NameIndex) -> list[str]:
    """The picks of a text, separated as in a table, or by commas where the parts are genres."""
    return [pick for cell in parsing.picks(text) for pick in genres.separated(cell, ",")]


def unknown_picks(picks: Iterable[str], genres: NameIndex) -> Iterator[tuple[str, str]]:
    """Each pick that is no genre of the bundle, and what to tell about it."""
    for pick in picks:
        if genres.find(pick) is None:
            nearest = genres.nearest(pick)
            there = f"the nearest is {nearest}" if nearest else f"the genres are {PICK_SEPARATOR.join(genres.names)}"
            parts = re.split("[;/&+]", pick)
            if len(parts) > 1 and any(map(genres.find, parts)):
                there = f"separate picks by {PICK_SEPARATOR} or commas"
            yield pick, f"is not a genre of this bundle and is ignored; {there}"


def unknown_values(registration: Registration, loaded: Bundle) -> Iterator[tuple[str, str, str]]:
    """Each gender, country or further text that is no category of the model: its field, itself, and the problem."""
    for field, question in loaded.predictor.encoder.categories().items():
        value, known = getattr(registration, field, None), question.names
        if isinstance(value, str) and known.find(value) is None:
            nearest = known.nearest(value)
            there = (
                f"the nearest is {nearest}" if nearest else f"it knows {listed(known.names, SHOWN_VALUES) or 'none'}"
            )
            yield field, value, f"is no value that the model knows and counts as {question.unseen}; {there}"


def unknown_stations(registration: Registration, loaded: Bundle) -> list[str]:
    """The stations of the listens that the bundle does not know, each once: these listens are ignored."""
    known = loaded.evidence.stations
    return list(dict.fromkeys(one.station_id for one in registration.listens if one.station_id not in known))


def genres_of(loaded: Bundle) -> NameIndex:
    """The genres that a bundle knows, for its picks."""
    return NameIndex(map(normal, loaded.manifest.known_genres))


def _parsed(name: str, text: str, kinds: Mapping[str, str], genres: NameIndex) -> object:
    if name == GENRES:
        return picks_of(text, genres)
    if name == AGE:
        return parsing.age(text)
    if name == LISTENS:
        return parsing.listens(text)
    return parsing.number(text) if kinds.get(name) == NUMBER else text.strip()


def _listed(picks: object) -> list[object]:
    """Picks of any ordered kind as a list. Raises InputError for another kind, and for a pick that is not a text."""
    if isinstance(picks, set | frozenset):
        raise InputError(f"{GENRES}: a set has no order; give the picks in a list, in the order picked")
    if not isinstance(picks, Iterable) or isinstance(picks, Mapping | bytes):
        raise InputError(
            f"{GENRES} is of type {type(picks).__name__}: give the picks in a list, or in a text with | between"
        )
    one_by_one = [_plain(pick) for pick in picks]
    if wrong := [pick for pick in one_by_one if not isinstance(pick, str | None)]:
        raise InputError(f"{GENRES} has {wrong[0]!r}: each pick is a text")
    return one_by_one


def _heard(listens: object) -> list[object]:
    """Listens of any ordered kind as a list. Raises InputError for another kind."""
    if not isinstance(listens, list | tuple):
        raise InputError(
            f"{LISTENS} is of type {type(listens).__name__}: give a list, or a text such as 17:180|9:skipped"
        )
    return [msgspec.structs.asdict(one) if isinstance(one, Listen) else one for one in listens]


def _plain(value: object) -> object:
    """A value of a table library as Python's own: arrays are lists, and NaN, NaT and NA are None."""
    for convert in ("as_py", "tolist", "to_list"):
        if hasattr(value, convert):
            value = getattr(value, convert)()
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if (value != value) is not False else value


def with_extra(registration: Registration, extra: Mapping[str, str], kinds: Mapping[str, str]) -> Registration:
    """The registration with further answers, each converted to the kind it had in training.

    Raises InputError for a further field that the bundle does not have, and for a value that can't be read.
    """
    if unknown := [name for name in extra if name not in kinds]:
        raise InputError(f"this bundle does not ask {unknown[0]!r}; it asks {', '.join(kinds) or 'no further field'}")
    return registration_of({**msgspec.structs.asdict(registration), **extra}, kinds, NameIndex(()))
