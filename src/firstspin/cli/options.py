"""The options that several commands share, each declared once: its name, type, range, default and help."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar, get_type_hints

import typer

from firstspin.cli.from_settings import DATA, EXTRAS, GATE, LABEL, MODEL
from firstspin.data.column_map import OWN_NAMES, ColumnMap, column_map
from firstspin.data.formats.written_values import DayOrder, Spelling
from firstspin.data.schema import PICK_SEPARATOR, TileOrder
from firstspin.evaluation.metrics import MARGIN, RankingMetric
from firstspin.records import MAX_SEED, InputError, LabelRule
from firstspin.settings.environment import moment
from firstspin.settings.file import FileSetting

if TYPE_CHECKING:
    from firstspin.data.dataset import Reading
    from firstspin.models.registry import Learning

Result = TypeVar("Result")

Data = Annotated[
    Path,
    typer.Option(help="Folder with registrations, listens and stations (.csv or .parquet).", rich_help_panel=DATA),
]
BundlePath = Annotated[Path, typer.Option(help="Folder written by `firstspin train`.", rich_help_panel=MODEL)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
_SEED_HELP: Final = "The same seed gives the same result, bit for bit."
Seed = Annotated[int, typer.Option(help=_SEED_HELP, min=0, max=MAX_SEED)]
ModelSeed = Annotated[int, typer.Option(help=_SEED_HELP, min=0, max=MAX_SEED, rich_help_panel=MODEL)]
SkipBadRows = Annotated[
    bool, typer.Option("--skip-bad-rows", help="Drop and count bad rows instead of failing.", rich_help_panel=DATA)
]
ColumnNames = Annotated[
    ColumnMap,
    typer.Option(
        parser=lambda given: _parsed_map(given),
        metavar="<column=name,...>",
        help="Names of columns in the files: user_id=uid, or for one table listens.user_id=uid.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
Dates = Annotated[
    DayOrder | None,
    typer.Option(
        envvar="FIRSTSPIN_DATES",
        help="Also read times that are not ISO 8601, and 01/02/2026 in this order; without a zone they are UTC.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
PickSeparator = Annotated[
    str,
    typer.Option(
        envvar="FIRSTSPIN_PICK_SEPARATOR",
        show_envvar=False,
        help="What separates the picks in a text.",
        metavar="<text>",
        rich_help_panel=DATA,
    ),
]
Encoding = Annotated[
    str | None,
    typer.Option(
        envvar="FIRSTSPIN_ENCODING",
        help="Encoding of CSV files that are not UTF-8, as in cp1252.",
        metavar="<name>",
        rich_help_panel=DATA,
    ),
]
TableEncoding = Annotated[
    str | None, typer.Option(help="Encoding of a CSV file that is not UTF-8, as in cp1252.", metavar="<name>")
]
Without = Annotated[
    str,
    typer.Option(
        help="Questions to exclude, separated by commas, as in age,gender.",
        metavar="<name,name>",
        rich_help_panel=MODEL,
    ),
]


_RULE: Final = LabelRule()


class Engine(StrEnum):
    """What computes the labels, or the answers of `score`."""

    duckdb = "duckdb"
    spark = "spark"


@dataclass(frozen=True, slots=True)
class FileOptions:
    """How files of tables are read: options of every command that reads any."""

    map: ColumnNames = OWN_NAMES
    skip_bad_rows: SkipBadRows = False
    dates: Dates = None
    pick_separator: PickSeparator = PICK_SEPARATOR
    encoding: Encoding = None

    def spelling(self) -> Spelling:
        """How values are written in the files. Raises BadParameter where the separator or the encoding is invalid."""
        return new_spelling(dates=self.dates, pick_separator=self.pick_separator, encoding=self.encoding)

    def reading(self) -> Reading:
        """How to read the tables, with the default label rule. Raises BadParameter or InputError as `spelling`."""
        from firstspin.data.dataset import Reading

        return Reading(skip_bad_rows=self.skip_bad_rows, now=utc_now(), mapping=self.map, spelling=self.spelling())


@dataclass(frozen=True, slots=True)
class TableOptions(FileOptions):
    """How the tables are read and labelled: options of `check`, `label`, `train` and `evaluate`."""

    extra: Annotated[
        str,
        typer.Option(
            help="Further columns of the registrations, separated by commas.",
            metavar="<name,name>",
            rich_help_panel=EXTRAS,
        ),
    ] = ""
    gap_days: Annotated[
        int,
        typer.Option(help="Days after registration before the label's window opens.", min=0, rich_help_panel=LABEL),
    ] = _RULE.gap_days
    window_days: Annotated[
        int, typer.Option(help="Length of the label's window in days.", min=1, rich_help_panel=LABEL)
    ] = _RULE.window_days
    least_seconds: Annotated[
        float,
        typer.Option(help="A user with fewer seconds in the window is inactive.", min=0, rich_help_panel=LABEL),
    ] = _RULE.min_seconds
    data_ends: Annotated[
        str,
        typer.Option(help="Time up to which listens are complete; default: the last listen.", rich_help_panel=LABEL),
    ] = ""

    def reading(self) -> Reading:
        """How to read the tables. Raises BadParameter or InputError for a value out of range."""
        ends = parsed_moment(self.data_ends, "--data-ends") if self.data_ends else None
        rule = LabelRule(self.gap_days, self.window_days, self.least_seconds, ends)
        return replace(FileOptions.reading(self), extra=split_names(self.extra), rule=rule)


@dataclass(frozen=True, slots=True)
class ErasureOptions:
    """Where erased users are looked up: options of every command that reads listens."""

    erased: Annotated[
        str | None,
        typer.Option(
            envvar="FIRSTSPIN_ERASED",
            help="Exclude users erased from this event store; needs --events-secret.",
            rich_help_panel=DATA,
        ),
    ] = None
    events_secret: Annotated[Path | None, typer.Option(help="File with that store's secret.", rich_help_panel=DATA)] = (
        None
    )

    @contextmanager
    def without_erased(self, reading: Reading) -> Iterator[Reading]:
        """The same reading, which leaves out erased users; the event store is open meanwhile.

        Raises BadParameter where a secret is given without a store.
        """
        if self.erased is None:
            if self.events_secret is not None:
                raise typer.BadParameter("--erased says of which store", param_hint="--events-secret")
            yield reading
            return
        from firstspin.cli.stored import opened_store
        from firstspin.events.erasure import erased_users

        with opened_store(self.erased, self.events_secret) as (database, known):
            yield replace(reading, erased=lambda users: erased_users(database, known, users))


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """What is trained and how: options of `train`, and hyperparameters of a training job."""

    model: Annotated[
        str,
        typer.Option(
            help="auto, popularity (business rule), logistic, forest, network, lightgbm.", rich_help_panel=MODEL
        ),
    ] = "auto"
    tune: Annotated[
        float | None,
        typer.Option(help="Minutes of hyperparameter search before training.", min=0, rich_help_panel=MODEL),
    ] = None
    trials: Annotated[
        int | None,
        typer.Option(help="Trials of hyperparameter search; reproducible.", min=0, rich_help_panel=MODEL),
    ] = None
    without: Without = ""
    seed: ModelSeed = 0
    tiles: Annotated[
        TileOrder,
        typer.Option(
            help="Order of a genre's stations: popularity, or listening per day since their first listen, shrunk.",
            rich_help_panel=MODEL,
        ),
    ] = "popularity"

    def learning(self, checkpoints: Path | None) -> Learning:
        """How to learn; `checkpoints` is the folder of tuning's progress."""
        from firstspin.models.registry import Learning

        return Learning(split_names(self.without), self.seed, self.tune, self.trials, checkpoints=checkpoints)


@dataclass(frozen=True, slots=True)
class GateOptions:
    """When a challenger may replace the champion: options of `evaluate --champion` and `sagemaker promote`."""

    metric: Annotated[
        RankingMetric, typer.Option(help="Metric in which a challenger must be better.", rich_help_panel=GATE)
    ] = RankingMetric.HIT_3
    margin: Annotated[
        float,
        typer.Option(
            help="Accepted loss in another metric or in a segment, as a share of the champion's value.",
            rich_help_panel=GATE,
        ),
    ] = MARGIN

    def __post_init__(self) -> None:
        if not 0 < self.margin < 1:
            raise typer.BadParameter(f"{self.margin!r} is not a share between 0 and 1", param_hint="--margin")


@dataclass(frozen=True, slots=True)
class ComparisonOptions(GateOptions):
    """Two bundles to compare: options of `evaluate`."""

    champion: Annotated[
        Path | None,
        typer.Option(help="Instead: whether --challenger may replace this bundle, on users new to both."),
    ] = None
    challenger: Annotated[Path | None, typer.Option(help="The bundle that may replace --champion.")] = None
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison of --champion as JSON.")] = False

    def bundles(self) -> tuple[Path, Path] | None:
        """Champion and challenger; None where neither is given. Raises BadParameter where one is missing."""
        if self.champion and self.challenger:
            return self.champion, self.challenger
        if self.champion or self.challenger or self.as_json:
            raise typer.BadParameter("give --champion and --challenger", param_hint="--champion")
        return None


def with_options(command: Callable[..., Result]) -> Callable[..., Result]:
    """The command as Typer reads it: a parameter that is a dataclass of options becomes its fields, an option each."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: kind for name, kind in hints.items() if is_dataclass(kind) and isinstance(kind, type)}

    @wraps(command)
    def with_fields(**given: Any) -> Result:
        grouped = {
            name: kind(**{one.name: given.pop(one.name) for one in fields(kind)}) for name, kind in groups.items()
        }
        return command(**given, **grouped)

    parameters = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            types = get_type_hints(groups[name], include_extras=True)
            options = [(one.name, types[one.name], one.default) for one in fields(groups[name])]
        else:
            options = [(name, hints[name], parameter.default)]
        parameters += [
            inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
            for option, kind, default in options
        ]
    with_fields.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_fields.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_fields


def new_spelling(**given: Any) -> Spelling:
    """The spelling that these options describe. Raises BadParameter where one is invalid."""
    try:
        return Spelling(**given)
    except InputError as problem:
        option, _, reason = str(problem).partition(" ")
        raise typer.BadParameter(reason, param_hint=option) from None


def split_names(text: str) -> tuple[str, ...]:
    """The names in text with commas between."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def named_values(pairs: Sequence[str]) -> dict[str, str]:
    """The values by name of texts NAME=VALUE. Raises BadParameter for another text."""
    if wrong := [one for one in pairs if "=" not in one]:
        raise typer.BadParameter(f"{wrong[0]!r} is not NAME=VALUE")
    return dict(one.split("=", 1) for one in pairs)


def _parsed_map(given: str | FileSetting | ColumnMap) -> ColumnMap:
    """The column names of an option, or of a table of the settings file. Raises BadParameter where they are no map."""
    try:
        if isinstance(given, FileSetting):
            columns = given.value if isinstance(given.value, dict) else given.text("str", ",")
            return column_map(columns, place=given.place)
        return given if isinstance(given, ColumnMap) else column_map(given)
    except InputError as problem:
        raise typer.BadParameter(str(problem), param_hint="--map") from None


def utc_now() -> datetime:
    """The time of day (UTC), without a zone as in tables."""
    return datetime.now(UTC).replace(tzinfo=None)


def parsed_moment(text: str, option: str) -> datetime:
    """A date or time (UTC) that was given for this option. Raises BadParameter for anything else."""
    try:
        return moment(text)
    except InputError as problem:
        raise typer.BadParameter(str(problem), param_hint=option) from None
