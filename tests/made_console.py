"""A bundle whose form has every kind of field, and whose names are as hostile as names get."""

from __future__ import annotations

from pathlib import Path

import made_people
import msgspec
import numpy as np

from firstspin.data.further_fields import with_further_fields
from firstspin.models import registry
from firstspin.records import Examples, Station
from firstspin.serving import bundle
from firstspin.serving.stations import Catalogue

HTML = '<img src=x onerror="document.title=1">'
ARABIC = "موسيقى عربية"
LONG = "Ü" * 199 + "!"
EMOJI = "🎷 Jazz & 'Soul' 👩‍👩‍👧"
NAMES = (HTML, ARABIC, LONG, EMOJI)
FURTHER_GENRES = tuple(f"Genre {number:02}" for number in range(56))
EXTRA = {"device": "text", "visits": "number"}
SCORECARD: dict[str, object] = {
    "best": "logistic",
    "figures": {"logistic": {"hit@3": {"value": 0.808, "low": 0.79, "high": 0.826}}},
    "lifts": {"logistic": {"popularity": {"hit@3": {"relative": {"value": 0.177, "low": 0.146, "high": 0.208}}}}},
}


def examples() -> Examples:
    """The people of `made_people` under other names of genres, with a gender, a device and a number of visits."""
    people = made_people.examples(160)
    names = dict(zip(made_people.GENRES, NAMES, strict=True))
    genres = tuple(sorted(NAMES))
    columns = [genres.index(names[genre]) for genre in people.genres]
    further = [
        {"gender": ("female", "male")[i % 2], "device": ("phone", "car")[i % 2], "visits": i % 7}
        for i in range(len(people))
    ]
    registrations = tuple(
        msgspec.convert(
            msgspec.to_builtins(one) | more | {"genres": [names[pick] for pick in one.genres]},
            with_further_fields(tuple(EXTRA)),
        )
        for one, more in zip(people.registrations, further, strict=True)
    )
    shares = np.empty_like(people.shares)
    shares[:, columns] = people.shares
    tops = np.array(columns)[people.tops]
    return Examples(people.user_ids, registrations, people.registered_at, genres, tops, shares)


def pack(out: Path, models: tuple[str, str] = ("logistic", "popularity")) -> bundle.Bundle:
    """The bundle of a model and a rule: 60 genres, four of them trained on, each with eight stations of its name."""
    known = (*NAMES, *FURTHER_GENRES)
    people = examples()
    fitted = [registry.fit(name, registry.prepare(people, known, extra=tuple(EXTRA))) for name in models]
    stations = [
        (Station(f"{number}<&>{i}", f"{genre} {i} FM"[-200:], genre), float(i))
        for i in range(8)
        for number, genre in enumerate(NAMES)
    ]
    return bundle.save(
        out,
        *fitted,
        Catalogue.of(stations),
        known_genres=known,
        extra=EXTRA,
        label={"data_ends": "2026-02-14T23:58:47Z"},
        data={"labels_end": "2026-02-12T10:00:00"},
        scorecard=SCORECARD,
    )
