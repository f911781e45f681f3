"""The Python API: the three stages of `learn.py` and the answers of a bundle, for notebooks and scripts.

    label, train, evaluate: tables -> labels, a bundle, a scorecard
    Recommender: a bundle and registrations -> recommendations

Tables are pandas, Polars, Arrow or DuckDB ones, or paths. The commands call the same functions, so results and error
messages (InputError) are the same. docs/python.md has the examples, which run as tests.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from operator import index
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, overload

from firstspin import answer, learn
from firstspin import score as scoring
from firstspin.data.column_map import column_map
from firstspin.data.dataset import Reading
from firstspin.data.formats.dataframes import (
    FilePath,
    Table,
    TableSet,
    described,
    folder_of,
    listens_file,
    path_of,
    registrations_file,
)
from firstspin.data.formats.written_values import AS_WRITTEN, Spelling
from firstspin.data.labels import spark
from firstspin.data.labels.label_state import LATE_DAYS
from firstspin.data.schema import TileOrder
from firstspin.evaluation.cross_validation import Protocol
from firstspin.evaluation.scorecard import Scorecard
from firstspin.files import workspace
from firstspin.models.registry import Learning
from firstspin.models.task import Progress, silent
from firstspin.records import MAX_AGE, SHOWN_GENRES, Census, InputError, LabelRule, Recommendation
from firstspin.serving import batch, policy, spark_batch
from firstspin.serving import bundle as bundles
from firstspin.serving.bundle import Bundle
from firstspin.serving.content import recommendation
from firstspin.settings.environment import moment

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession


__all__ = [
    "Bundle",
    "InputError",
    "LabelRule",
    "Labels",
    "Recommendation",
    "Recommender",
    "Scorecard",
    "Spelling",
    "evaluate",
    "label",
    "score_on_spark",
    "train",
]

OWN_COLUMNS: Final[Mapping[str, str]] = MappingProxyType({})
"""No column of the tables has another name than ours."""


@dataclass(frozen=True, slots=True)
class Labels:
    """The labelled users, one per row of the Arrow table `table`, and the counts of all others by reason.

    `dropped` counts users without a label, `ignored` bad rows that were skipped. pandas, Polars and DuckDB read the
    object itself as a table, as in `polars.DataFrame(labels)`; `labels.to_pandas()` works with every pandas.
    """

    table: pa.Table
    census: Census
    ignored: dict[str, int]

    @property
    def dropped(self) -> dict[str, int]:
        """The number of users without a label, by reason."""
        return self.census.dropped

    def __len__(self) -> int:
        return len(self.table)

    def to_pandas(self) -> pd.DataFrame:
        """The labels as a pandas table."""
        return self.table.to_pandas()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        return "\n".join([*self.census.lines(self.ignored), f"columns: {', '.join(self.table.column_names)}"])


def label(
    data: TableSet,
    *,
    rule: LabelRule = LabelRule(),
    extra: str | Iterable[str] = (),
    columns: str | Mapping[str, str] = OWN_COLUMNS,
    spelling: Spelling = AS_WRITTEN,
    skip_bad_rows: bool = False,
    session: SparkSession | None = None,
    state: FilePath | None = None,
    late_days: int = LATE_DAYS,
) -> Labels:
    """Each user's top genre in the label window, and the users without one, counted by reason.

    `data` is a folder, or a dict of the tables registrations, listens and stations. `extra` names further columns of
    the registrations to keep, `spelling` how dates are written. With a Spark `session`, whose settings do not change,
    Spark reads the listens, and the tables may be its DataFrames. `state` is the folder of the sums of earlier listens,
    to which the new ones of `data` are added; they may come `late_days` late. Raises InputError where the tables can't
    be read, give no label (unless there is a state), or do not match the state.
    """
    import pyarrow.parquet as pq

    if session is not None and state is not None:
        raise InputError("state has listens of files: leave out session")
    with workspace("label") as folder:
        out = folder / "labels.parquet"
        reading = _reading(rule, extra, columns, spelling, skip_bad_rows)
        if session is None:
            place = None if state is None else Path(state)
            census, ignored = learn.label(folder_of(data, folder), out, reading, state=place, late_days=late_days)
        else:
            data, listens = spark.collected(data)
            census, ignored = spark.write_labels(folder_of(data, folder), out, reading, session, listens)
        return Labels(pq.read_table(out, memory_map=False), census, ignored)


def train(
    data: TableSet,
    out: FilePath,
    model: str = "auto",
    *,
    rule: LabelRule = LabelRule(),
    extra: str | Iterable[str] = (),
    columns: str | Mapping[str, str] = OWN_COLUMNS,
    spelling: Spelling = AS_WRITTEN,
    skip_bad_rows: bool = False,
    without: str | Iterable[str] = (),
    tune_minutes: float | None = None,
    tune_trials: int | None = None,
    seed: int = 0,
    tiles: TileOrder = "popularity",
    progress: Progress = silent,
) -> Bundle:
    """Train a model and write it as a bundle, with the scorecard of a hold-out in its manifest.

    `data` and `extra` as in `label`; `without` names questions that the model must not use; `tiles` "listening" orders
    a genre's stations by expected listening; `progress` is called with each step and the fraction done (`print` will
    do). Raises InputError where the tables can't be read, no model has this name, or `out` can't be written.
    """
    learning, written = Learning(_names(without), index(seed), tune_minutes, tune_trials), path_of(out, "out")
    with workspace("train") as folder:
        reading = replace(_reading(rule, extra, columns, spelling, skip_bad_rows), tiles=tiles)
        tables = folder_of(data, folder)
        packed, *_ = learn.train(tables, written, model, reading=reading, learning=learning, progress=progress)
        return packed


def evaluate(
    data: TableSet,
    models: str | Iterable[str] = ("logistic", "lightgbm", "auto"),
    *,
    bundle: FilePath | Bundle | None = None,
    folds: int | None = None,
    split_at: str | datetime | None = None,
    questions: bool = False,
    rule: LabelRule = LabelRule(),
    extra: str | Iterable[str] = (),
    columns: str | Mapping[str, str] = OWN_COLUMNS,
    spelling: Spelling = AS_WRITTEN,
    skip_bad_rows: bool = False,
    without: str | Iterable[str] = (),
    seed: int = 0,
    progress: Progress = silent,
) -> Scorecard:
    """Measure models on held-out users, with 95% intervals, beside the baselines; or measure a trained `bundle`.

    Users are split in `folds` (default 5, or 3 from 100,000 users on), or at the time `split_at`. `questions`: also
    measure the value of each question. All else as in `train`. Raises InputError as `train`, and where these users
    can't be split so.
    """
    reading = _reading(rule, extra, columns, spelling, skip_bad_rows)
    with workspace("evaluate") as folder:
        if bundle is not None:
            trained = bundle if isinstance(bundle, Bundle) else path_of(bundle, "the bundle")
            card, _ = learn.evaluate_bundle(folder_of(data, folder), trained, reading=reading, progress=progress)
            return card
        card, _ = learn.evaluate_models(
            folder_of(data, folder),
            _names(models),
            protocol=Protocol(folds, _moment(split_at), index(seed)),
            reading=reading,
            learning=Learning(_names(without), index(seed)),
            with_ablation=questions,
            progress=progress,
        )
        return card


def score_on_spark(
    registrations: DataFrame, bundle: FilePath, *, top: int = SHOWN_GENRES, min_age: int = policy.MIN_AGE
) -> DataFrame:
    """The answers of a bundle to a DataFrame of Spark, with the columns and values of `Recommender.score`, in no order.

    The bundle is sent to each executor once. Rows are answered when the result is used, as by `write.parquet`; a bad
    row then fails the job. Raises InputError where the bundle can't be loaded, a column has another type, or a user id
    occurs twice.
    """
    if top < 1:
        raise InputError(f"top is {top}; at least one genre is answered")
    return spark_batch.score_on_spark(path_of(bundle, "the bundle"), registrations, top, policy.PolicySettings(min_age))


class Recommender:
    """Answers registrations with a bundle, by the policy of the service: model, or business rule where it can't.

    Loading takes milliseconds and imports no table library. Under `min_age` years the rule answers, from the picks
    alone. `calibrated_rows`: an answer of the model has `rows`, the number of genres that contain the favourite with
    90% probability. Raises InputError where the bundle can't be loaded, or `min_age` is out of range.
    """

    def __init__(
        self, bundle: FilePath | Bundle, *, min_age: int = policy.MIN_AGE, calibrated_rows: bool = False
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else bundles.load(path_of(bundle, "the bundle"))
        if min_age not in range(MAX_AGE + 1):
            raise InputError(f"min_age {min_age!r} is not a whole number from 0 to {MAX_AGE}")
        self.settings = policy.PolicySettings(min_age, calibrated_rows=calibrated_rows)
        self._genres = answer.genres_of(self.bundle)

    def __repr__(self) -> str:
        return f"Recommender of {self.bundle!r}; minimum age {self.settings.min_age}"

    @overload
    def recommend(self, registration: Mapping[str, object] | None = None, /, **answers: object) -> Recommendation: ...

    @overload
    def recommend(self, registration: Table, /) -> pa.Table: ...

    def recommend(
        self, registration: Mapping[str, object] | Table | None = None, /, **answers: object
    ) -> Recommendation | pa.Table:
        """The answer to one registration: a dict, a row of a table, or keyword arguments; to a table as `score`.

        Every field is optional: `age`, `gender`, `country`, `genres` (picks in their order), further fields of the
        bundle, and `listens`, oldest first: dicts with `station_id` and `seconds` or `skipped`. Raises InputError for
        an unknown field or an invalid value.
        """
        as_dict = getattr(registration, "to_dict", None) or getattr(registration, "_asdict", None)
        if as_dict and not hasattr(registration, "columns"):
            registration = as_dict()  # a row of a pandas table, or a named tuple
        if registration is not None and not isinstance(registration, Mapping):
            return self.score(registration)
        if registration and (twice := [name for name in answers if name in registration]):
            raise InputError(f"{twice[0]} is given twice: in the registration and as an argument")
        answers = {**(registration or {}), **answers}
        one = answer.registration_of(answers, self.bundle.manifest.extra, self._genres)
        for pick, problem in answer.unknown_picks(one.genres, self._genres):
            warnings.warn(f"{pick!r} {problem}", stacklevel=2)
        for field, value, problem in answer.unknown_values(one, self.bundle):
            warnings.warn(f"{field} {value!r} {problem}", stacklevel=2)
        for station in answer.unknown_stations(one, self.bundle):
            warnings.warn(f"station {station!r} {answer.UNKNOWN_STATION}", stacklevel=2)
        return recommendation(one, policy.decide(one, None, self.bundle, None, self.settings), self.bundle)

    def score(
        self,
        registrations: Table,
        *,
        listens: Table | None = None,
        top: int = SHOWN_GENRES,
        spelling: Spelling = AS_WRITTEN,
        skip_bad_rows: bool = False,
    ) -> pa.Table:
        """The answers to a table of registrations, in order: the first `top` genres, their probabilities, the source.

        `listens`: a table of listens since the registrations, as evidence. Raises InputError where a table can't be
        read, or has a bad row that is not to be skipped.
        """
        if top < 1:
            raise InputError(f"top is {top}; at least one genre is answered")
        parts: list[batch.Answers] = []
        with workspace("score") as folder:
            _, left_out, unknown = scoring.score_into(
                parts.extend,
                self.bundle,
                registrations_file(registrations, folder, self.bundle.manifest.extra, named=listens is not None),
                self.settings,
                top,
                spelling=spelling,
                skip_bad_rows=skip_bad_rows,
                listens=None if listens is None else listens_file(listens, folder),
            )
        for reason, count in left_out.items():
            warnings.warn(f"left out {count:,}: {reason}", stacklevel=2)
        for one in unknown:
            warnings.warn(one.line(bare=False), stacklevel=2)
        return batch.to_arrow(parts)


def _reading(
    rule: LabelRule,
    extra: str | Iterable[str],
    columns: str | Mapping[str, str],
    spelling: Spelling,
    skip_bad_rows: bool,
) -> Reading:
    if not isinstance(rule, LabelRule):
        raise InputError(f"the rule is {described(rule)}: expected LabelRule(gap_days=30, window_days=30)")
    rule = replace(rule, data_ends=_moment(rule.data_ends))
    now = datetime.now(UTC).replace(tzinfo=None)
    return Reading(_names(extra), skip_bad_rows, rule, now=now, mapping=column_map(columns), spelling=spelling)


def _names(names: str | Iterable[str]) -> tuple[str, ...]:
    """Names in a list, or in text with commas between."""
    return tuple(name.strip() for name in (names.split(",") if isinstance(names, str) else names) if name.strip())


def _moment(at: str | datetime | None) -> datetime | None:
    """A time as a naive UTC datetime; without a zone it is UTC."""
    if at is None:
        return None
    return moment(at if isinstance(at, str) else at.isoformat())
