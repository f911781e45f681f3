"""A seeded simulated service with known ground truth: registrations, listens, and P(top genre | registration).

For every user the top genre of the second month is drawn first, from exactly P(top genre | registration); then listens
are generated that agree with it. So the truth written beside the tables is exact. docs/world.md describes the model;
its numbers are in taste.py, people.py and stations.py.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from firstspin import preflight
from firstspin.data import schema
from firstspin.data.ground_truth import TRUTH
from firstspin.files import written_together
from firstspin.models.task import Progress, silent
from firstspin.records import InputError, Registration
from firstspin.simulation.people import (
    DATA_END,
    DAY,
    REGISTERING,
    TRYING_PICKS,
    Listens,
    People,
    draw_active,
    durations,
    front_page,
    listen,
    register,
)
from firstspin.simulation.stations import Dial, build_dial
from firstspin.simulation.taste import (
    COUNTRIES,
    GENDERS,
    GENRES,
    NOT_GIVEN,
    FormAnswers,
    Taste,
    bent_taste,
)

BEGIN: Final = np.datetime64("2025-01-01T00:00:00", "us")

BLOCK: Final = 10_000  # users generated at a time, each block from a random stream of its own
WORLD, PEOPLE = 1, 2  # the random streams of a seed
NO_LABEL: Final = -1

# Click probabilities of a message about one genre (the simulated experiment).
CLICK_FAVOURITE: Final = 0.068
CLICK_OTHER: Final = 0.040

UTC: Final = pa.timestamp("us", tz="UTC")
REGISTRATIONS: Final = pa.schema(
    [
        (schema.USER_ID, pa.string()),
        (schema.REGISTERED_AT, UTC),
        (schema.AGE, pa.int32()),
        (schema.GENDER, pa.string()),
        (schema.COUNTRY, pa.string()),
        (schema.GENRES, pa.list_(pa.string())),
    ]
)
LISTENS: Final = pa.schema(
    [
        (schema.USER_ID, pa.string()),
        (schema.STARTED_AT, UTC),
        (schema.STATION_ID, pa.string()),
        (schema.SECONDS, pa.int32()),
    ]
)


@dataclass(frozen=True, eq=False)
class World:
    """The ground truth of one simulated service: its k genres (sorted), taste, and stations.

    `early_loyalty`: probability that a listen of the first month is to the later top genre.
    """

    seed: int
    genres: tuple[str, ...]
    taste: Taste
    dial: Dial
    early_loyalty: float = 0.0


@dataclass(frozen=True, eq=False)
class Newcomers:
    """n users about to see a message, and everything that determines their reaction; `p` is (n, k)."""

    registrations: tuple[Registration, ...]
    p: NDArray[np.float64]  # (n, k) P(top genre | registration)
    favourite: NDArray[np.int64]  # (n,) the top genre they would have, index into the genres
    reluctance: NDArray[np.float64]  # (n,) in [0, 1): a message is clicked when its click probability exceeds this
    seconds: NDArray[np.int64]  # (n,) seconds of listening after a click, independent of the genre

    def take(self, which: NDArray[np.int64]) -> Newcomers:
        """The users at the positions `which` (m,), in this order."""
        registrations = tuple(self.registrations[i] for i in which)
        return Newcomers(
            registrations, self.p[which], self.favourite[which], self.reluctance[which], self.seconds[which]
        )


def make_world(seed: int, early_loyalty: float = 0.0) -> World:
    """The service of this seed. Seeds vary the taste and the stations, not the structure.

    Raises InputError for a negative seed, or an `early_loyalty` below 0 or from 1 on.
    """
    if not 0.0 <= early_loyalty < 1.0:
        raise InputError(f"early loyalty is {early_loyalty}; it is a probability from 0 to below 1")
    if seed < 0:
        raise InputError(f"seed is {seed}; it can't be negative")
    rng = np.random.default_rng([seed, WORLD])
    taste = bent_taste(rng)
    fame = np.array([GENRES[genre].played for genre in taste.genres])
    return World(seed, taste.genres, taste, build_dial(taste.genres, fame / fame.sum(), rng), early_loyalty)


# ------------------------------------------------------------------------------- the simulated experiment


def newcomers(world: World, n: int, rng: np.random.Generator) -> Newcomers:
    """Draw n users who register now; see `clicks` for their reaction to a message."""
    people = register(world.taste, n, rng)
    return Newcomers(
        registrations=_registrations(people.answers, world.genres),
        p=people.p,
        favourite=people.favourite,
        reluctance=rng.random(n),
        seconds=durations(n, rng),
    )


def clicks(people: Newcomers, shown: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n,): whether each user clicks the message about the genre `shown` (n,), by true taste, deterministic."""
    return people.reluctance < np.where(shown == people.favourite, CLICK_FAVOURITE, CLICK_OTHER)


def click_probabilities(people: Newcomers, shown: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n,): the true P(click | registration, genre shown), the mean of `clicks`."""
    liked = np.take_along_axis(people.p, shown[:, None], axis=1)[:, 0]
    return CLICK_OTHER + (CLICK_FAVOURITE - CLICK_OTHER) * liked


def _registrations(answers: FormAnswers, genres: tuple[str, ...]) -> tuple[Registration, ...]:
    countries = tuple(COUNTRIES)
    return tuple(
        Registration(
            age=None if age == NOT_GIVEN else age,
            gender=None if gender == NOT_GIVEN else GENDERS[gender],
            country=None if country == NOT_GIVEN else countries[country],
            genres=tuple(genres[pick] for pick in picks if pick != NOT_GIVEN),
        )
        for age, gender, country, picks in zip(
            answers.age.tolist(), answers.gender.tolist(), answers.country.tolist(), answers.picks.tolist(), strict=True
        )
    )


# --------------------------------------------------------------------------------------------- the tables


@dataclass(frozen=True, eq=False)
class Block:
    """A block of n users and their l listens, in seconds since BEGIN; arrays (n,) and (l,)."""

    user_ids: list[str]
    people: People
    registered: NDArray[np.int64]  # (n,)
    active: NDArray[np.bool_]  # (n,)
    listens: Listens  # until the end of the data, ordered by user, then time
    stations: NDArray[np.int64]  # (l,) into the dial's


def write_world(out: Path, users: int, seed: int, progress: Progress = silent, early_loyalty: float = 0.0) -> None:
    """Write registrations, listens and stations as Parquet, and truth.npz (docs/world.md), into the folder `out`.

    Nothing appears there before all of it is whole. The same seed gives the same tables, and a smaller service is a
    prefix of a larger one. Raises InputError when `users`, `seed` or `early_loyalty` is out of range, or `out` can't be
    written or is not empty: simulated tables must not mix with others.
    """
    if users < 1:
        raise InputError(f"users is {users}; a world needs at least one")
    preflight.new_folder(out)
    world = make_world(seed, early_loyalty)
    outs = [*(out / f"{table}.parquet" for table in schema.COLUMNS), out / TRUTH]
    with written_together(outs, shared=True) as (registrations, listens, stations, truth):
        pq.write_table(_station_table(world.dial), stations)
        blocks = (_block(world, first, min(BLOCK, users - first)) for first in range(0, users, BLOCK))
        with pq.ParquetWriter(registrations, REGISTRATIONS) as people, pq.ParquetWriter(listens, LISTENS) as heard:
            _write_truth(truth, world, users, _written(world, blocks, people, heard, users, progress))


def _written(
    world: World,
    blocks: Iterable[Block],
    people: pq.ParquetWriter,
    heard: pq.ParquetWriter,
    users: int,
    progress: Progress,
) -> Iterator[Block]:
    """The blocks as they are generated, each written to the tables."""
    done = 0
    for block in blocks:
        people.write_table(_registration_table(block, world.genres))
        heard.write_table(_listen_table(block, world.dial))
        yield block
        done += len(block.user_ids)
        progress("users written", done / users)


def _block(world: World, first: int, n: int) -> Block:
    """The n users from number `first` on (a multiple of BLOCK). A whole block is always generated."""
    rng = np.random.default_rng([world.seed, PEOPLE, first])
    people = register(world.taste, BLOCK, rng)
    registered = rng.integers(REGISTERING, size=BLOCK)
    active = draw_active(people, rng)
    listens = listen(people, active, world.genres, world.early_loyalty, rng)
    stations = world.dial.tuned(people.home[listens.person], listens.genre, rng)
    started = listens.started + registered[listens.person]
    order = np.lexsort((started, listens.person))
    order = order[(listens.person[order] < n) & (started[order] < DATA_END)]
    return Block(
        user_ids=[f"{number:08d}" for number in range(first, first + n)],
        people=people.first(n),
        registered=registered[:n],
        active=active[:n],
        listens=Listens(listens.person[order], started[order], listens.genre[order], listens.seconds[order]),
        stations=stations[order],
    )


def _write_truth(path: Path, world: World, users: int, blocks: Iterable[Block]) -> None:
    """Write the archive of NumPy arrays; the large `p` is written block by block."""
    user_ids, registered, active, favourite = [], [], [], []
    heard_last = 0
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("p.npy", "w", force_zip64=True) as file:
            shape = (users, len(world.genres))
            np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
            for block in blocks:
                file.write(block.people.p.astype("<f8").tobytes())
                user_ids.append(np.array(block.user_ids))
                registered.append(block.registered)
                active.append(block.active)
                favourite.append(block.people.favourite)
                heard_last = max(heard_last, block.listens.started.max(initial=0))
        over = (
            np.concatenate(registered) + 60 * DAY <= heard_last
        )  # as labelling has it: the data end with the last listen
        labelled = np.concatenate(active) & over
        arrays = {
            "user_id": np.concatenate(user_ids),
            "genres": np.array(world.genres),
            "label": np.where(labelled, np.concatenate(favourite), NO_LABEL),
            "labelled": labelled,
            "early_loyalty": np.array(world.early_loyalty),
            "early_tries": np.array(TRYING_PICKS),
            "front_page": front_page(world.genres),
        }
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def _registration_table(block: Block, genres: tuple[str, ...]) -> pa.Table:
    answers = block.people.answers
    counts = (answers.picks != NOT_GIVEN).sum(axis=1)
    picks = pa.array(genres).take(pa.array(answers.picks[answers.picks != NOT_GIVEN]))
    columns = [
        pa.array(block.user_ids),
        _moments(block.registered),
        pa.array(answers.age, mask=answers.age == NOT_GIVEN, type=pa.int32()),
        _words(GENDERS, answers.gender),
        _words(tuple(COUNTRIES), answers.country),
        pa.ListArray.from_arrays(np.concatenate([[0], counts.cumsum()]).astype(np.int32), picks),
    ]
    return pa.table(columns, schema=REGISTRATIONS)


def _listen_table(block: Block, dial: Dial) -> pa.Table:
    station_ids = pa.array([station.station_id for station in dial.stations])
    columns = [
        pa.array(block.user_ids).take(pa.array(block.listens.person)),
        _moments(block.listens.started),
        station_ids.take(pa.array(block.stations)),
        pa.array(block.listens.seconds, type=pa.int32()),
    ]
    return pa.table(columns, schema=LISTENS)


def _station_table(dial: Dial) -> pa.Table:
    return pa.table(
        {
            schema.STATION_ID: [station.station_id for station in dial.stations],
            schema.NAME: [station.name for station in dial.stations],
            schema.GENRE: [station.genre for station in dial.stations],
            "market": dial.markets,
            "popularity": dial.popularity,
            "colour": dial.colours,
        }
    )


def _moments(seconds: NDArray[np.int64]) -> pa.Array:
    return pa.array(BEGIN + seconds.astype("timedelta64[s]"), type=UTC)


def _words(words: tuple[str, ...], codes: NDArray[np.int16]) -> pa.Array:
    return pa.array(words).take(pa.array(codes, mask=codes == NOT_GIVEN))
