"""The types that all modules share, all frozen, and the public errors. Imports no other module of the package."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias, get_args

import msgspec
import numpy as np
from msgspec.structs import force_setattr
from numpy.typing import NDArray

MAX_PICKS = 100
MAX_LISTENS = 200
SHOWN_GENRES = 5
"""Number of genres in an answer, over HTTP and in batch."""

MAX_TEXT = 200
MAX_MESSAGE_LINE = 1_000
"""Characters per line of an error message."""

MAX_AGE = 120
MAX_SECONDS = 86_400
"""The longest listen of a request: a day."""

MAX_SEED = 2**31 - 1
"""The largest seed that all training libraries accept."""

AGE_EDGES = (18, 25, 35, 45, 55)
"""Lower bounds of the age bands that cohorts and the baselines use, from the second band on."""

Source = Literal["model", "popular", "under-age", "rule-arm", "rule", "no-model", "batch", "champion"]
_EXPLAINED: Final[dict[Source, str]] = {
    "popular": "no answers: the same ranking for all new users",
    "under-age": "the business rule, without age and gender",
    "rule-arm": "the business rule's arm of the experiment",
    "rule": "the business rule, since the model failed",
    "no-model": "nothing can be recommended yet",
    "batch": "a stored answer",
    "champion": "the bundle in service, since the challenger failed",
}
SOURCES: tuple[Source, ...] = get_args(Source)
MAX_DAYS = 3650

Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
if TYPE_CHECKING:  # as stored
    Age: TypeAlias = int
    Picks: TypeAlias = tuple[str, ...]
    Listens: TypeAlias = tuple["Listen", ...]
else:  # as accepted: 31.0 is 31, null is no pick
    Age = (
        Annotated[int, msgspec.Meta(ge=0, le=MAX_AGE)] | Annotated[float, msgspec.Meta(ge=0, le=MAX_AGE, multiple_of=1)]
    )
    Picks = Annotated[tuple[Text | None, ...], msgspec.Meta(max_length=MAX_PICKS)] | None
    Listens = Annotated[tuple["Listen", ...], msgspec.Meta(max_length=MAX_LISTENS)] | None


def readable(text: str) -> str:
    r"""Text for a terminal, a log or a UTF-8 file: non-printable characters escaped, long lines cut in the middle.

    >>> print(readable("no column " + chr(27) + "[31m"))
    no column \x1b[31m
    """
    return "\n".join(map(_readable_line, text.split("\n")))


def listed(names: Sequence[str], most: int) -> str:
    """The first names, and how many more there are.

    >>> listed(["a", "b"], 2), listed(["a", "b", "c"], 2)
    ('a, b', 'a, b and 1 more')
    """
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def _readable_line(line: str) -> str:
    if len(line) > MAX_MESSAGE_LINE:
        head, tail = MAX_MESSAGE_LINE - 250, 200  # the end of a message says what is wrong: it stays
        line = f"{line[:head]} … ({len(line) - head - tail:,} characters more) … {line[-tail:]}"
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


class InputError(Exception):
    """Invalid input; the message names the file, row, field and value, and the reason.

    `bare` is the message for logs, without any value of a table; by default it is the message itself. Both are
    `readable`, whatever of the input they repeat. `field` is the column of a table that the error is about, if any.
    """

    def __init__(self, message: str, bare: str | None = None, *, field: str = "") -> None:
        super().__init__(readable(message))
        self.bare = readable(message if bare is None else bare)
        self.field = field


class BadRows(InputError):
    """Invalid rows of a table, one per line; `hints` name options that read them."""

    def __init__(self, message: str, bare: str, hints: tuple[str, ...] = ()) -> None:
        super().__init__(message, bare)
        self.hints = tuple(map(readable, hints))


class Listen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A station that a new user played for some `seconds`, or skipped. Raises ValueError where it is neither."""

    station_id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT)]
    seconds: Annotated[float, msgspec.Meta(gt=0, le=MAX_SECONDS)] | None = None
    skipped: bool = False

    def __post_init__(self) -> None:
        if self.seconds is None and not self.skipped:
            raise ValueError("Expected `seconds` or `skipped`")
        if self.station_id != (station_id := self.station_id.strip()):
            force_setattr(self, "station_id", station_id)


class Registration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The answers of one user's registration form: both a row of the training table and the body of a request.

    However it is built, the same rules hold: outer space is trimmed, an empty text is None, empty picks are dropped.
    `listens` are those since the registration, oldest first; they are no answer of the form, and training has none.
    """

    age: Age | None = None
    gender: Text | None = None
    country: Text | None = None
    genres: Picks = ()
    listens: Listens = ()

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
        if self.listens is None:
            force_setattr(self, "listens", ())


def is_answered(registration: Registration, question: str) -> bool:
    """Whether this field, one of ours or a further one, is answered."""
    return getattr(registration, question, None) not in (None, ())


def without_answers(registration: Registration, *questions: str) -> Registration:
    """The registration with these fields not answered."""
    return msgspec.structs.replace(registration, **{name: () if name == "genres" else None for name in questions})


@dataclass(frozen=True, slots=True)
class Examples:
    """The training data: n labelled users.

    `genres`: the k genres that are the top genre of at least one user, sorted · `tops` (n,): each user's top genre, as
    a position in `genres` · `shares` (n, k): shares of the listening seconds in the label window; rows sum to 1 ·
    `registered_at` (n,): datetime64[s] in UTC.
    """

    user_ids: tuple[str, ...]
    registrations: Sequence[Registration]
    registered_at: NDArray[np.datetime64]
    genres: tuple[str, ...]
    tops: NDArray[np.int64]
    shares: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.registrations)

    def take(self, which: NDArray[np.int64]) -> Examples:
        """The examples at positions `which` (m,), in this order, with the same genres."""
        taken = getattr(self.registrations, "take", None)  # of registrations in columns
        return Examples(
            tuple(self.user_ids[i] for i in which),
            taken(which) if taken else tuple(self.registrations[i] for i in which),
            self.registered_at[which],
            self.genres,
            self.tops[which],
            self.shares[which],
        )


@dataclass(frozen=True, slots=True)
class LabelRule:
    """The definition of a label: the genre with the most seconds in [registered_at + gap, + gap + window).

    Users with fewer than `min_seconds` in the window have no label. `data_ends` (UTC): the moment up to which listens
    are complete; by default that of the last listen. Raises InputError where a value is out of range: a negative gap
    would learn from listens before the registration.
    """

    gap_days: int = 30
    window_days: int = 30
    min_seconds: float = 600
    data_ends: datetime | None = None

    def __post_init__(self) -> None:
        if not (self.gap_days in range(MAX_DAYS + 1) and self.window_days in range(1, MAX_DAYS + 1)):
            given = f"gap_days is {self.gap_days!r}, window_days {self.window_days!r}"
            raise InputError(
                f"the label's gap is 0 to {MAX_DAYS} days, its window 1 to {MAX_DAYS}, whole ones ({given})"
            )
        if not hasattr(self.min_seconds, "__float__") or not 0 <= self.min_seconds < inf:
            raise InputError(f"the minimum of seconds in a window must be 0 or more ({self.min_seconds!r} is given)")

    def state(self) -> dict[str, object]:
        """The rule as JSON types; `LabelRule.from_state` reads them."""
        return {
            "gap_days": self.gap_days,
            "window_days": self.window_days,
            "least_seconds": float(self.min_seconds),
            "data_ends": self.data_ends and f"{self.data_ends.isoformat()}Z",
        }

    @staticmethod
    def from_state(state: Mapping[str, object]) -> LabelRule:
        """The rule of a `state()`, without `data_ends`. Raises ValidationError where a type is wrong."""
        names = {"gap_days": "gap_days", "window_days": "window_days", "least_seconds": "min_seconds"}
        return msgspec.convert({names[name]: value for name, value in state.items() if name in names}, LabelRule)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Values of the tables that match nothing or are implausible: `count` of `of` values, with one example.

    >>> Mismatch(1, 6, "picks name no genre of the stations (registrations.csv)", "'Polka'").line(bare=False)
    "1 of 6 picks name no genre of the stations (registrations.csv), such as 'Polka'"
    """

    count: int
    of: int
    what: str
    example: str

    def line(self, *, bare: bool) -> str:
        """The line of a message; a `bare` one leaves out the example, which is a value of a table."""
        text = f"{self.count:,} of {self.of:,} {self.what}"
        return text if bare else readable(f"{text}, such as {self.example}")


@dataclass(frozen=True, slots=True)
class Census:
    """Counts of all registered users: labelled, or dropped by reason; the end of the data (UTC) and the mismatches.

    `absent`: the columns age, gender and country that the registrations lack.
    """

    registered: int
    labelled: int
    dropped: dict[str, int]
    data_ends: datetime
    mismatches: tuple[Mismatch, ...] = ()
    absent: tuple[str, ...] = ()

    def lines(self, ignored: Mapping[str, int], *, bare: bool = False) -> list[str]:
        """Every user, labelled or dropped by reason; what was `ignored`, and what matches nothing."""
        counts = [("dropped", self.dropped), ("ignored", ignored)]
        return [
            f"{self.labelled:,} of {self.registered:,} registrations have a label",
            f"  data_ends {self.data_ends.isoformat()}Z",
            *([f"  the registrations have no column {', '.join(self.absent)}"] if self.absent else []),
            *(f"  {what} {n:,}: {reason}" for what, of in counts for reason, n in of.items() if n),
            *(f"  mismatch: {mismatch.line(bare=bare)}" for mismatch in self.mismatches),
        ]


class Ranking(msgspec.Struct, frozen=True):
    """Genres, best first, with the probability of each (six decimals)."""

    genres: tuple[str, ...]
    probabilities: tuple[float, ...]
    source: Source


class StoredAnswer(msgspec.Struct, frozen=True):
    """An answer computed in batch, as read from a score store; its source is "batch", `model` the bundle."""

    model: str
    ranking: Ranking


class Station(msgspec.Struct, frozen=True):
    """A radio station; `genre` is normalised, see `normal`."""

    station_id: str
    name: str
    genre: str


class GenreProbability(msgspec.Struct, frozen=True):
    """A genre of an answer, and its probability."""

    genre: str
    probability: float


class Message(msgspec.Struct, frozen=True):
    """The in-app message: one station, and the reason for it."""

    station_id: str
    title: str
    reason: str


class Carousel(msgspec.Struct, frozen=True):
    """A row of tiles on the home page."""

    title: str
    genre: str
    station_ids: tuple[str, ...]


class Rows(msgspec.Struct, frozen=True):
    """The number of genres, from the first one, that contain the user's favourite with at least this probability."""

    count: int
    probability: float


class Recommendation(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to one registration, as in the body of a response; with its experiment where the plan says so.

    `rows` is there where the service or the caller has it switched on, `listens`, the number of those that moved the
    ranking, where the service looks them up.
    """

    model: str
    source: Source
    genres: tuple[GenreProbability, ...]
    stations: tuple[Station, ...] = ()
    message: Message | None = None
    carousels: tuple[Carousel, ...] = ()
    rows: Rows | None = None
    listens: int | None = None
    experiment: str | None = None
    arm: str | None = None

    def __repr__(self) -> str:
        """What the user is shown first: genres with probabilities, and the message."""
        width = max((len(one.genre) for one in self.genres), default=0)
        genres = [f"  {one.genre:{width}}  {one.probability:.3f}" for one in self.genres]
        message = [f"  {self.message.title}. {self.message.reason}."] if self.message else []
        return "\n".join([f"Recommendation of model {self.model}, {answered_by(self.source)}", *genres, *message])

    def to_dict(self) -> dict[str, object]:
        """The answer as JSON types, as in the body of a response."""
        state: dict[str, object] = msgspec.to_builtins(self)
        return state


def answered_by(source: Source) -> str:
    """What answered, as texts have it.

    >>> answered_by("model"), answered_by("rule")
    ('answered by: model', 'answered by: rule (the business rule, since the model failed)')
    """
    explained = _EXPLAINED.get(source)
    return f"answered by: {source}{f' ({explained})' if explained else ''}"


def normal(text: str) -> str:
    r"""A name in normal form: Unicode NFKC, outer space trimmed, each inner run of space replaced by one space.

    >>> normal("  Hip\u00a0Hop ")
    'Hip Hop'
    """
    return (
        text
        if text.isascii() and text == " ".join(text.split())
        else " ".join(unicodedata.normalize("NFKC", text).split())
    )
