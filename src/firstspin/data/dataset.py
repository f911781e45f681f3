"""The tables of a folder -> a labelled dataset in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, get_args

import numpy as np

from firstspin.data import ingest
from firstspin.data.checks.findings import TableProblem
from firstspin.data.column_map import OWN_NAMES, ColumnMap
from firstspin.data.erasure import Erased, leave_out_erased
from firstspin.data.formats.written_values import AS_WRITTEN, Spelling
from firstspin.data.further_fields import check_names
from firstspin.data.labels import labelling
from firstspin.data.labels.early_listens import EarlyListens, read_early_listens, station_genres
from firstspin.data.labels.label_file import read_examples
from firstspin.data.labels.station_rates import expected_listening
from firstspin.data.registrations.reading import read_people
from firstspin.data.schema import COLUMNS, TileOrder
from firstspin.data.stations import station_colours, station_markets, station_popularity
from firstspin.files import workspace
from firstspin.records import Census, Examples, InputError, LabelRule, Registration, Station

MAX_REGISTERED: Final = 100_000


@dataclass(frozen=True, slots=True)
class Reading:
    """How the tables are read: further columns, column names, spelling of values, skipping of bad rows, label rule.

    With `extra_optional` the table may lack further columns: no user has a value. `erased` returns which of some users
    were erased from an event store: they are left out, and counted. `now` (UTC, without a zone) detects clocks that are
    ahead; without it, only listens far beyond all others are detected. `tiles` is the order of stations. `listens` is a
    table of a database to read in place of the file.

    Raises InputError for a further column whose name is taken or cannot be a field, and for another order of tiles.
    """

    extra: tuple[str, ...] = ()
    skip_bad_rows: bool = False
    rule: LabelRule = LabelRule()
    erased: Erased | None = None
    now: datetime | None = None
    mapping: ColumnMap = OWN_NAMES
    spelling: Spelling = AS_WRITTEN
    extra_optional: bool = False
    tiles: TileOrder = "popularity"
    listens: ingest.StoredTable | None = None

    def __post_init__(self) -> None:
        check_names(self.extra)
        if self.tiles not in get_args(TileOrder):
            raise InputError(f"tiles is {self.tiles!r}; it is one of {', '.join(get_args(TileOrder))}")


@dataclass(frozen=True, slots=True)
class Dataset:
    """The three tables, checked and labelled.

    `stations` are the available stations with their popularity, `markets` the countries of each that names any, and
    `colours` the colour of each that has one. `station_genres` has the genre of every station, `early` the listens of
    labelled users before their label window, where they were asked for, and `registered` up to MAX_REGISTERED
    registrations of users with and without a label, evenly spaced in the file.
    """

    examples: Examples
    genres: tuple[str, ...]
    extra: dict[str, str]
    stations: list[tuple[Station, float]]
    markets: dict[str, tuple[str, ...]]
    colours: dict[str, str]
    census: Census
    rule: LabelRule
    ignored: dict[str, int]
    station_genres: dict[str, str]
    early: EarlyListens
    registered: tuple[Registration, ...] = ()

    def summary(self) -> dict[str, object]:
        """What manifest and scorecard record of the data; it identifies no user.

        `labels_end` (UTC) is the end of the last label window: nothing of later is in the labels.
        """
        examples = self.examples
        label_days = self.rule.gap_days + self.rule.window_days
        pairs = zip(examples.user_ids, examples.tops.tolist(), strict=True)
        labels = hashlib.sha256()
        for at, (user, top) in enumerate(pairs):  # of all users at once, the text takes a GB
            labels.update(f"{chr(10) * bool(at)}{user}\t{top}".encode())
        return {
            "fingerprint": labels.hexdigest(),
            "registered": self.census.registered,
            "labelled": self.census.labelled,
            "dropped": self.census.dropped,
            "ignored": self.ignored,
            "mismatches": {mismatch.what: mismatch.count for mismatch in self.census.mismatches},
            "data_ends": f"{self.census.data_ends.isoformat()}Z",
            "from": str(examples.registered_at.min()),
            "to": str(examples.registered_at.max()),
            "labels_end": str(examples.registered_at.max() + np.timedelta64(label_days, "D")),
        }


def read_dataset(data: Path, reading: Reading = Reading(), *, early: bool = False) -> Dataset:
    """The tables of a folder, checked and labelled, with the `early` listens if asked for.

    Raises InputError where they are bad or give no label.
    """
    with workspace("tables") as folder:
        tables = open_reading(data, folder, reading)
        labelled = folder / "labelled.parquet"
        census, rule = labelling.label_tables(tables, reading.rule, labelled, reading.now)
        stations, by_rate = station_popularity(tables), reading.tiles == "listening"
        examples = read_examples(labelled, tuple(tables.extra))
        return Dataset(
            examples=examples,
            genres=tables.genres,
            extra=tables.extra,
            stations=expected_listening(tables, stations, census.data_ends) if by_rate else stations,
            markets=station_markets(tables),
            colours=station_colours(tables),
            census=census,
            rule=rule,
            ignored=tables.ignored,
            station_genres=station_genres(tables.connection),
            early=read_early_listens(tables.connection, examples.genres, rule) if early else EarlyListens.none(),
            registered=_registered(tables, census.registered) if early else (),
        )


def _registered(tables: ingest.Tables, registered: int) -> tuple[Registration, ...]:
    every = -(-registered // MAX_REGISTERED)
    batches = read_people(tables.connection, tuple(tables.extra), every=max(1, every))
    return tuple(one for _, registrations in batches for one in registrations)


def write_labels(data: Path, out: Path, reading: Reading) -> tuple[Census, dict[str, int]]:
    """One Parquet row per labelled user; the census, and the counts of what was ignored. Raises as `read_dataset`."""
    with workspace("label") as folder:
        tables = open_reading(data, folder, reading)
        census, _ = labelling.label_tables(tables, reading.rule, out, reading.now)
    return census, tables.ignored


def open_reading(
    data: Path, folder: Path, reading: Reading, *, collected: list[TableProblem] | None = None
) -> ingest.Tables:
    """The checked tables without erased users; intermediate files lie in `folder`.

    `collected`: problems are appended there, see `ingest.open_tables`. Raises InputError as that.
    """
    tables = ingest.open_tables(
        data,
        workspace=folder,
        extra=reading.extra,
        mapping=reading.mapping,
        spelling=reading.spelling,
        extra_optional=reading.extra_optional,
        skip_bad_rows=reading.skip_bad_rows,
        collected=collected,
        listens=reading.listens,
    )
    if reading.erased and len(tables.sources) == len(COLUMNS):
        leave_out_erased(tables, reading.erased)
    return tables
