"""The nouns of the system, frozen. This file imports nothing of ours: everything else speaks in its words."""

from __future__ import annotations

import unicodedata
from dataclasses import asdict, dataclass
from datetime import datetime
from math import inf
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias, get_args

import msgspec
import numpy as np
from msgspec.structs import force_setattr
from numpy.typing import NDArray

MAX_PICKS = 100
SHOWN_GENRES = 5
"""How many genres an answer names, over HTTP and in batch alike."""

MAX_TEXT = 200
MAX_MESSAGE_LINE = 1_000
"""Characters of a line of a message."""

MAX_AGE = 120
AGE_EDGES = (18, 25, 35, 45, 55)
"""Lower bounds of the age bands that cohorts and the baselines use, from the second band on."""

Source = Literal["model", "popular", "under-age", "rule", "no-model", "batch"]
SOURCES: tuple[Source, ...] = get_args(Source)
MAX_DAYS = 3650

Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
if TYPE_CHECKING:  # as kept
    Age: TypeAlias = int
    Picks: TypeAlias = tuple[str, ...]
else:  # as accepted: 31.0 is 31, null is no pick
    Age = (
        Annotated[int, msgspec.Meta(ge=0, le=MAX_AGE)] | Annotated[float, msgspec.Meta(ge=0, le=MAX_AGE, multiple_of=1)]
    )
    Picks = Annotated[tuple[Text | None, ...], msgspec.Meta(max_length=MAX_PICKS)] | None


def readable(text: str) -> str:
    r"""Text that a terminal, a log and a file in UTF-8 take: other characters escaped, and each line of some length.

    >>> print(readable("no column " + chr(27) + "[31m"))
    no column \x1b[31m
    """
    return "\n".join(map(_readable_line, text.split("\n")))


def _readable_line(line: str) -> str:
    if len(line) > MAX_MESSAGE_LINE:
        head, tail = MAX_MESSAGE_LINE - 250, 200  # a message ends with what is wrong: that stays
        line = f"{line[:head]} … ({len(line) - head - tail:,} characters more) … {line[-tail:]}"
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


class InputError(Exception):
    """What we were given can't be used; the message says what, where and why, in the user's words.

    `bare` says the same without anything that stands in a table, for logs; it is the message itself unless given. Both
    are `readable`, whatever of the input they repeat.
    """

    def __init__(self, message: str, bare: str | None = None) -> None:
        super().__init__(readable(message))
        self.bare = readable(message if bare is None else bare)


class BadRows(InputError):
    """Rows that can't be used, one a line."""

    def __init__(self, message: str, bare: str) -> None:
        super().__init__(message, bare)


class Registration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a newcomer told us. A row of the training table and the body of a request are this same type.

    Every way to make one has the same rules: texts lose their outer space, an empty text is not given, empty picks
    are dropped.
    """

    age: Age | None = None
    gender: Text | None = None
    country: Text | None = None
    genres: Picks = ()

    def __post_init__(self) -> None:
        age, gender, country, genres = self.age, self.gender, self.country, self.genres
        if type(age) is float:
            force_setattr(self, "age", int(age))
        if gender is not None and gender != (word := gender.strip() or None):
            force_setattr(self, "gender", word)
        if country is not None and country != (word := country.strip() or None):
            force_setattr(self, "country", word)
        try:
            picks = tuple(filter(None, map(str.strip, genres)))
        except TypeError:  # null in their place, or among them
            picks = tuple(pick.strip() for pick in genres or () if pick and not pick.isspace())
        if genres != picks:
            force_setattr(self, "genres", picks)


@dataclass(frozen=True, slots=True)
class Examples:
    """What training learns from: n people, what each told us at registration and what they then played.

    `genres` are the k genres that at least one of them played most, sorted; `tops` (n,) indexes into them; `shares`
    (n, k) says how the seconds of each window were divided, rows summing to 1;
    `registered_at` (n,) is datetime64[s] in UTC.
    """

    user_ids: tuple[str, ...]
    registrations: tuple[Registration, ...]
    registered_at: NDArray[np.datetime64]
    genres: tuple[str, ...]
    tops: NDArray[np.int64]
    shares: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.registrations)

    def take(self, which: NDArray[np.int64]) -> Examples:
        """The examples at these positions, in this order; the genres stay."""
        return Examples(
            tuple(self.user_ids[i] for i in which),
            tuple(self.registrations[i] for i in which),
            self.registered_at[which],
            self.genres,
            self.tops[which],
            self.shares[which],
        )


@dataclass(frozen=True, slots=True)
class LabelRule:
    """What counts as the label: most seconds in [registered_at + gap, + gap + window), from so many seconds on.

    `data_ends` (UTC) is the moment up to which listens are complete; by default that of the last listen. Raises
    InputError for what can't be: a gap below 0 would learn from listens before the registration.
    """

    gap_days: int = 30
    window_days: int = 30
    least_seconds: float = 600
    data_ends: datetime | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.gap_days <= MAX_DAYS and 1 <= self.window_days <= MAX_DAYS):
            raise InputError(f"the label's gap is 0 to {MAX_DAYS} days, its window 1 to {MAX_DAYS}")
        if not 0 <= self.least_seconds < inf:
            raise InputError("the least seconds of a window are 0 or more")

    def state(self) -> dict[str, object]:
        """As JSON keeps it."""
        return asdict(self) | {
            "least_seconds": float(self.least_seconds),
            "data_ends": self.data_ends and f"{self.data_ends.isoformat()}Z",
        }


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Values of the tables that match nothing or can hardly be meant: `count` of `of`, and one of them as an example.

    >>> Mismatch(1, 6, "picks name no genre of the stations (registrations.csv)", "'Polka'").line(bare=False)
    "1 of 6 picks name no genre of the stations (registrations.csv), such as 'Polka'"
    """

    count: int
    of: int
    what: str
    example: str

    def line(self, *, bare: bool) -> str:
        """As messages give it; without the example, which stands in a table, where it is `bare`."""
        said = f"{self.count:,} of {self.of:,} {self.what}"
        return said if bare else readable(f"{said}, such as {self.example}")


@dataclass(frozen=True, slots=True)
class Census:
    """Every user of the registrations, kept or dropped by reason; when the data end (UTC), and what matches nothing."""

    registered: int
    labelled: int
    dropped: dict[str, int]
    data_ends: datetime
    mismatches: tuple[Mismatch, ...] = ()


class Ranking(msgspec.Struct, frozen=True):
    """Genres in the order we would show them, best first, with the probability of each (six decimals)."""

    genres: tuple[str, ...]
    probabilities: tuple[float, ...]
    source: Source


class StoredAnswer(msgspec.Struct, frozen=True):
    """An answer as a store of batch answers keeps it: its source is "batch", `model` the bundle that gave it."""

    model: str
    ranking: Ranking


class Station(msgspec.Struct, frozen=True):
    """Something that can be played. `genre` is already normal."""

    station_id: str
    name: str
    genre: str


class GenreProbability(msgspec.Struct, frozen=True):
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
    source: Source
    genres: tuple[GenreProbability, ...]
    stations: tuple[Station, ...] = ()
    message: Message | None = None
    carousels: tuple[Carousel, ...] = ()


def normal(text: str) -> str:
    r"""A name as we compare it: Unicode NFKC, outer space trimmed, inner runs of space as one.

    >>> normal("  Hip\u00a0Hop ")
    'Hip Hop'
    """
    return (
        text
        if text.isascii() and text == " ".join(text.split())
        else " ".join(unicodedata.normalize("NFKC", text).split())
    )
