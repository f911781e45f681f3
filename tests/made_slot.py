"""A bundle for the exploration slot: eight genres of three stations, of which the model knows four."""

from __future__ import annotations

from pathlib import Path

import made_people

from firstspin.models import registry
from firstspin.records import Station
from firstspin.serving import bundle
from firstspin.serving.stations import Catalogue

GENRES = (*made_people.GENRES, "Folk", "News", "Soul", "Talk")
STATIONS = {f"{genre}-{i}": genre for genre in GENRES for i in range(3)}


def pack_for_slot(out: Path) -> bundle.Bundle:
    people = made_people.examples(120)
    fitted = [registry.fit(name, registry.prepare(people, made_people.GENRES)) for name in ("logistic", "popularity")]
    stations = [
        (Station(name, f"{genre} {name[-1]} FM", genre), -float(place))
        for place, (name, genre) in enumerate(STATIONS.items())
    ]
    return bundle.save(
        out,
        *fitted,
        Catalogue.of(stations),
        known_genres=made_people.GENRES,
        extra={},
        label={},
        data={},
        scorecard=None,
    )
