"""Labelled people made by hand: the first pick comes true, and people over 40 play Jazz whatever they picked."""

from __future__ import annotations

from pathlib import Path

import made_tables
import numpy as np

from firstspin.records import Examples, Registration

GENRES = ("Blues", "Jazz", "Pop", "Rock")


def examples(n: int, seed: int = 0, *, hours: int = 24) -> Examples:
    """n of them, registered so many hours apart."""
    rng = np.random.default_rng(seed)
    registrations, tops = [], []
    for _ in range(n):
        picks = tuple(rng.permutation(GENRES)[: rng.integers(0, 4)])
        age = int(rng.integers(18, 60)) if rng.random() < 0.8 else None
        country = str(rng.choice(["US", "DE"]))
        registrations.append(Registration(age=age, country=country, genres=tuple(map(str, picks))))
        chance = np.full(4, 0.02)
        chance[1 if age and age > 40 else GENRES.index(picks[0]) if len(picks) else 2] = 0.94
        tops.append(int(rng.choice(4, p=chance)))
    shares = np.eye(4)[tops] * 0.8 + 0.05
    return Examples(
        tuple(f"u{i}" for i in range(n)),
        tuple(registrations),
        np.datetime64("2025-01-01", "s") + np.arange(n) * np.timedelta64(hours, "h"),
        GENRES,
        np.array(tops),
        shares,
    )


def tables(folder: Path, n: int, *, hours: int = 24) -> Path:
    """The same people as a folder of tables: each plays a station of their top genre in the window."""
    people = examples(n, hours=hours)
    station = {genre: str(i) for i, genre in enumerate(people.genres)}
    rows = [
        (user, f"{at}Z", "" if told.age is None else told.age, "", told.country, "|".join(told.genres))
        for user, at, told in zip(people.user_ids, people.registered_at, people.registrations, strict=True)
    ]
    listens = [
        (user, f"{at + 45 * 86_400}Z", station[people.genres[top]], 900)
        for user, at, top in zip(people.user_ids, people.registered_at, people.tops, strict=True)
    ]
    listens.append(("nobody", "2025-12-31T00:00:00Z", "0", 1))  # the data end long after everybody's window
    return made_tables.tables(
        folder, rows, listens, [(number, f"{genre} FM", genre) for genre, number in station.items()]
    )
