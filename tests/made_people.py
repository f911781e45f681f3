"""Labelled people made by hand: the first pick comes true, and people over 40 play Jazz whatever they picked."""

from __future__ import annotations

import numpy as np

from firstspin.records import Examples, Registration

GENRES = ("Blues", "Jazz", "Pop", "Rock")


def examples(n: int, seed: int = 0) -> Examples:
    """n of them, registered a day apart."""
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
        np.datetime64("2025-01-01", "s") + np.arange(n) * np.timedelta64(1, "D"),
        GENRES,
        np.array(tops),
        shares,
    )
