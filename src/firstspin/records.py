"""The nouns of the system, frozen. This file imports nothing of ours: everything else speaks in its words."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Annotated

import msgspec

MAX_PICKS = 100
MAX_TEXT = 200

Age = Annotated[int, msgspec.Meta(ge=0, le=120)]
Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
Picks = Annotated[tuple[Text, ...], msgspec.Meta(max_length=MAX_PICKS)]


class InputError(Exception):
    """What we were given can't be used; the message says what, where and why, in the user's words."""


class Registration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a newcomer told us. A row of the training table and the body of a request are this same type."""

    age: Age | None = None
    gender: Text | None = None
    country: Text | None = None
    genres: Picks = ()


class Ranking(msgspec.Struct, frozen=True):
    """Genres in the order we would show them, best first, with the probability of each (six decimals)."""

    genres: tuple[str, ...]
    probabilities: tuple[float, ...]
    source: str


class Station(msgspec.Struct, frozen=True):
    """Something that can be played. `genre` is already normal."""

    station_id: str
    name: str
    genre: str


class GenreChance(msgspec.Struct, frozen=True):
    genre: str
    probability: float


class Message(msgspec.Struct, frozen=True):
    """The in-app message: one station, and why."""

    station_id: str
    title: str
    reason: str


class Carousel(msgspec.Struct, frozen=True):
    """A row of tiles on the home page."""

    title: str
    genre: str
    station_ids: tuple[str, ...]


class Recommendation(msgspec.Struct, frozen=True, omit_defaults=True):
    """The whole answer to one newcomer, as it goes over the wire."""

    model: str
    source: str
    genres: tuple[GenreChance, ...]
    stations: tuple[Station, ...] = ()
    message: Message | None = None
    carousels: tuple[Carousel, ...] = ()


def normal(text: str) -> str:
    """A name as we compare it: Unicode NFKC, outer space trimmed, inner runs of space as one.

    >>> normal("  Hip\\u00a0Hop ")
    'Hip Hop'
    """
    return text if text.isascii() and text == " ".join(text.split()) else " ".join(
        unicodedata.normalize("NFKC", text).split()
    )


def with_further_fields(names: Sequence[str]) -> type[Registration]:
    """The registration type of a service that asks more: each further field is text, a number, or not given."""
    if not names:
        return Registration
    fields = [(name, Text | float | None, None) for name in names]
    return msgspec.defstruct(  # type: ignore[return-value]
        "Registration", fields, bases=(Registration,), frozen=True, kw_only=True, forbid_unknown_fields=True
    )
