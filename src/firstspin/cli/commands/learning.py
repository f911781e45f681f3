"""`firstspin world|label|train|evaluate|report`: from tables to a bundle. A command imports what it runs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstspin.cli import terminal
from firstspin.cli.apps import command, new_app
from firstspin.cli.from_settings import LABEL, MODEL, from_file
from firstspin.cli.next_steps import BUNDLE, next_command
from firstspin.cli.options import (
    BundlePath,
    ComparisonOptions,
    Data,
    Engine,
    ErasureOptions,
    FileOptions,
    ModelSeed,
    Seed,
    TableOptions,
    TrainingOptions,
    Without,
    parsed_moment,
    split_names,
    utc_now,
)
from firstspin.cli.output import scorecard
from firstspin.data.labels.label_state import LATE_DAYS
from firstspin.data.schema import LISTENS
from firstspin.records import MAX_DAYS

if TYPE_CHECKING:
    from firstspin.data.dataset import Dataset, Reading
    from firstspin.evaluation.cross_validation import Protocol
    from firstspin.evaluation.scorecard import Scorecard
    from firstspin.models.registry import Learning
    from firstspin.serving.bundle import Bundle

app = new_app()

Checkpoints = Annotated[
    Path | None,
    typer.Option(help="Folder for the trials of tuning; an interrupted run resumes from it.", rich_help_panel=MODEL),
]

Models = Annotated[str, typer.Option(help="Models, separated by commas.", metavar="<name,name>")]
Curve = Annotated[
    str,
    typer.Option(
        help="Instead: the learning curve of the last of --models, by these numbers of training users.",
        metavar="<users,users>",
    ),
]

ListenNumbers = Annotated[
    str,
    typer.Option(
        help="Instead: the last of --models with so many early listens known, beside history alone.",
        metavar="<number,number>",
    ),
]


@command(app, "world", example="firstspin world data --users 20000")
def world(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    users: Annotated[int, typer.Option(help="Number of simulated users.", min=1)],
    seed: Seed = 0,
    early_loyalty: Annotated[
        float, typer.Option(help="Share of the first month's listens that are to the later top genre.", min=0, max=0.99)
    ] = 0.0,
) -> None:
    """Write the tables of a simulated service, and its ground truth."""
    from firstspin.simulation.world import write_world

    with terminal.progress("simulated service") as progress:
        write_world(out, users, seed, progress, early_loyalty)
    terminal.out.print(f"{users:,} simulated registrations are in {out}")
    terminal.next_step(next_command(context, "evaluate", data=out, after=" --models auto --out scorecard.json"))


@command(app, "label", example="firstspin label --data data --out labels.parquet")
def label(
    context: typer.Context,
    data: Data,
    out: Annotated[
        Path, typer.Option(help="File to write (.parquet), one row per labelled user.", rich_help_panel=LABEL)
    ],
    tables: TableOptions,
    erasure: ErasureOptions,
    engine: Annotated[
        Engine, typer.Option(help="Engine that computes the labels.", rich_help_panel=LABEL)
    ] = Engine.duckdb,
    listens: Annotated[
        str,
        typer.Option(
            envvar="FIRSTSPIN_LISTENS",
            help="Read the listens of a database instead of --data: postgresql://USER@HOST/DATABASE or duckdb://FILE.",
            metavar="<address>",
        ),
    ] = "",
    listens_table: Annotated[
        str, typer.Option(help="Table or view of --listens: its name, or schema.name.", metavar="<name>")
    ] = LISTENS,
    state: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the sums of earlier listens: the new listens of --data are added, and no others read.",
            rich_help_panel=LABEL,
        ),
    ] = None,
    late_days: Annotated[
        int | None,
        typer.Option(
            help=f"With --state: days that a listen may come late and still count. Default: {LATE_DAYS}.",
            min=0,
            max=MAX_DAYS,
            rich_help_panel=LABEL,
        ),
    ] = None,
) -> None:
    """Label each registration with its top genre in the label window, and count the others by reason."""
    if late_days is not None and state is None:
        raise typer.BadParameter("--state says of which listens", param_hint="--late-days")
    from firstspin import learn

    with terminal.progress("labels") as progress, erasure.without_erased(tables.reading()) as reading:
        progress("reading the tables", 0.0)
        late = LATE_DAYS if late_days is None else late_days
        census, ignored = learn.label(data, out, reading, engine.value, listens, listens_table, state, late)
    scorecard.print_census(census, ignored)
    if listens or state:  # `train` reads all listens in files
        terminal.next_step(
            f"firstspin watch STORE --events-secret FILE --bundle bundle {shlex.join(['--labels', str(out)])}"
        )
    else:
        terminal.next_step(next_command(context, "train", tables, erasure, data=data, suggested=BUNDLE))


@command(app, "train", example="firstspin train --data data --out bundle --model logistic --without gender")
def train(
    context: typer.Context,
    data: Data,
    out: Annotated[Path, typer.Option(help="Bundle to write.", rich_help_panel=MODEL)],
    training: TrainingOptions,
    tables: TableOptions,
    erasure: ErasureOptions,
    checkpoints: Checkpoints = None,
) -> None:
    """Train a model and pack a bundle."""
    learning = training.learning(checkpoints)
    with erasure.without_erased(replace(tables.reading(), tiles=training.tiles)) as reading:
        packed, _ = train_and_show(data, out, training.model, reading, learning)
    known = packed.predictor.encoder.categories()
    further = [(name, known[name].values) for name in packed.manifest.extra if name in known and not terminal.bare()]
    answers = ["--age", "31", "--genres", packed.predictor.genres[0]]
    answers += [word for name, values in further if values for word in ("--answer", f"{name}={values[0]}")]
    terminal.next_step(next_command(context, "recommend", bundle=out, after=f" {shlex.join(answers)}"))


@command(app, "evaluate", example=("firstspin evaluate --data data --models auto --folds 5 --out scorecard.json"))
def evaluate(
    context: typer.Context,
    data: Data,
    tables: TableOptions,
    erasure: ErasureOptions,
    comparison: ComparisonOptions,
    models: Models = "logistic,lightgbm,auto",
    bundle: Annotated[Path | None, typer.Option(help="Evaluate this bundle instead.")] = None,
    folds: Annotated[
        int | None,
        typer.Option(help="Cross-validation folds. Default: 5, or 3 from 100,000 users on.", min=2),
    ] = None,
    split_at: Annotated[str, typer.Option(help="Instead of folds: train before this date, test from it on.")] = "",
    questions: Annotated[
        bool, typer.Option("--questions", help="Also measure the value of each question (ablation).")
    ] = False,
    curve: Curve = "",
    listens: ListenNumbers = "",
    out: Annotated[Path | None, typer.Option(help="File to write the scorecard or the curve to (.json).")] = None,
    without: Without = "",
    seed: ModelSeed = 0,
) -> None:
    """Evaluate models on held-out users, with confidence intervals.

    With --champion the exit status is the decision: 0 promote, 3 keep the champion, 4 not enough users.
    """
    from firstspin import preflight
    from firstspin.cli.commands.promotion import compare_and_exit
    from firstspin.evaluation.cross_validation import Protocol
    from firstspin.models.registry import Learning

    chosen, names = tables.reading(), split_names(models)
    protocol = Protocol(folds, parsed_moment(split_at, "--split-at") if split_at else None, seed)
    learning = Learning(split_names(without), seed)
    bundles = comparison.bundles()
    given = {"folds": folds, "split_at": split_at, "questions": questions, "without": without}
    of_models = any(value and not from_file(context, name) for name, value in given.items())
    _refuse_conflicts(bundle, bundles, of_models, questions, curve, listens)
    if not (bundle or names):
        raise typer.BadParameter("at least one model is needed, as in --models auto", param_hint="--models")
    if out:
        preflight.file(out, data, suffixes=(".json",))
    as_here = (context, "train", tables, erasure)
    if bundles:
        compare_and_exit(context, data, *bundles, comparison, chosen, erasure, out)
    if curve or listens:
        _evaluate_curve(data, names[-1], curve, listens, protocol, chosen, learning, erasure, out)
        line = next_command(*as_here, data=data, suggested=BUNDLE)
    elif bundle:
        held_out = next_command(context, "evaluate", tables, erasure, data=data, after=" --models auto")
        _evaluate_bundle(data, bundle, chosen, erasure, out, held_out)
        line = next_command(context, "serve", bundle=bundle)
    else:
        best = _evaluate_models(data, names, protocol, chosen, learning, erasure, out, with_ablation=questions)
        suggested = BUNDLE if "auto" in names else {"model": best, **BUNDLE}
        line = next_command(*as_here, suggested=suggested, data=data, without=without, seed=seed)
    terminal.next_step(line)


def _refuse_conflicts(
    bundle: Path | None, champion: object, of_models: bool, questions: bool, curve: str, listens: str
) -> None:
    """Raise BadParameter where options are given that exclude each other."""
    for option, is_refused, others in (
        ("--champion", champion and (bundle or curve or listens), "--bundle, --curve and --listens"),
        ("--bundle", (bundle or champion) and of_models, "--folds, --split-at, --questions and --without"),
        ("--curve", curve and (bundle or questions), "--bundle and --questions"),
        ("--listens", listens and (bundle or questions or curve), "--bundle, --questions and --curve"),
    ):
        if is_refused:
            raise typer.BadParameter(f"leave out {others}", param_hint=option)


def _evaluate_curve(
    data: Path,
    model: str,
    curve: str,
    listens: str,
    protocol: Protocol,
    chosen: Reading,
    learning: Learning,
    erasure: ErasureOptions,
    out: Path | None,
) -> None:
    """The curve by training users, or else by early listens."""
    from firstspin import learn
    from firstspin.evaluation.learning_curve import parse_sizes, write_curve
    from firstspin.evaluation.listens_curve import parse_numbers

    numbers = parse_sizes(curve) if curve else parse_numbers(listens)
    measure = learn.curve_of if curve else learn.listens_curve_of
    with (
        terminal.progress("learning curve" if curve else "early listens") as progress,
        erasure.without_erased(chosen) as reading,
    ):
        measured, dataset = measure(
            data, model, numbers, protocol=protocol, reading=reading, learning=learning, progress=progress
        )
    scorecard.print_census(dataset.census, dataset.ignored)
    scorecard.print_curve(measured)
    if out:
        write_curve(measured, out)


def _evaluate_bundle(
    data: Path, bundle: Path, chosen: Reading, erasure: ErasureOptions, out: Path | None, held_out: str
) -> None:
    from firstspin import learn

    with terminal.progress("evaluation") as progress, erasure.without_erased(chosen) as reading:
        card, dataset = learn.evaluate_bundle(data, bundle, reading=reading, progress=progress)
    scorecard.print_seen(card, held_out)
    _show(card, dataset, out)


def _evaluate_models(
    data: Path,
    models: Sequence[str],
    protocol: Protocol,
    chosen: Reading,
    learning: Learning,
    erasure: ErasureOptions,
    out: Path | None,
    *,
    with_ablation: bool,
) -> str:
    """The name of the best model."""
    from firstspin import learn

    with terminal.progress("evaluation") as progress, erasure.without_erased(chosen) as reading:
        card, dataset = learn.evaluate_models(
            data,
            models,
            protocol=protocol,
            reading=reading,
            learning=learning,
            with_ablation=with_ablation,
            progress=progress,
        )
    _show(card, dataset, out)
    return card.best


def _show(card: Scorecard, dataset: Dataset, out: Path | None) -> None:
    from firstspin.evaluation.scorecard import write_scorecard

    scorecard.print_census(dataset.census, dataset.ignored)
    scorecard.print_scorecard(card)
    if out:
        write_scorecard(card, out)


@command(app, "report", example="firstspin report --data data --bundle bundle")
def report(
    context: typer.Context,
    data: Data,
    bundle: BundlePath,
    files: FileOptions,
    erasure: ErasureOptions,
    out: Annotated[
        Path | None, typer.Option(help="File to write (.html); default: beside the bundle, where `serve` shows it.")
    ] = None,
    measured: Annotated[
        Path | None, typer.Option("--scorecard", help="File of `evaluate --questions --out`; default: evaluate now.")
    ] = None,
    curve: Annotated[
        Path | None, typer.Option(help="Learning curve to show: file of `evaluate --curve --out`.")
    ] = None,
    listens: Annotated[
        Path | None, typer.Option(help="Curve by early listens to show: file of `evaluate --listens --out`.")
    ] = None,
    experiment: Annotated[
        Path | None, typer.Option(help="Result of an A/B test to show: JSON of `experiment analyse --json`.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the data in the page's header; default: that of the folder.")] = "",
    date: Annotated[
        str, typer.Option(help="Date in the page's header, as in 2026-01-31; default: today (UTC). Repeatable with it.")
    ] = "",
) -> None:
    """Write the evaluation as one HTML page: listening by cohort, metrics of the models, value of each question."""
    from firstspin.evaluation.report import story
    from firstspin.serving.bundle import report_path

    place = out or report_path(bundle)
    written = (parsed_moment(date, "--date") if date else utc_now()).date()
    with terminal.progress("report") as progress, erasure.without_erased(files.reading()) as reading:
        story.report(
            data,
            bundle,
            place,
            written=written,
            name=name,
            measured=measured,
            curve=curve,
            listens=listens,
            experiment=experiment,
            reading=reading,
            progress=progress,
        )
    terminal.out.print(f"The report is in {place}")
    terminal.next_step(next_command(context, "serve", bundle=bundle, report=out))


def train_and_show(data: Path, out: Path, model: str, reading: Reading, learning: Learning) -> tuple[Bundle, Scorecard]:
    """Train, and tell what was learned from whom and how good it is."""
    from firstspin import learn

    with terminal.progress("training") as progress:
        packed, dataset, card = learn.train(data, out, model, reading=reading, learning=learning, progress=progress)
    scorecard.print_census(dataset.census, dataset.ignored)
    scorecard.print_hold_out(card)
    terminal.out.print(f"\nBundle {packed.id} ({packed.predictor.in_words()}) is in {out}")
    return packed, card
