"""Arguments -> one function of a story, and its result in the terminal. A command imports what it runs."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from firstspin.cli import explanation, scorecard, terminal
from firstspin.cli.options import (
    AsJson,
    BundlePath,
    Data,
    ErasureOptions,
    Seed,
    SkipBadRows,
    TableOptions,
    TrainingOptions,
    Without,
    parsed_moment,
    split_names,
    utc_now,
    with_options,
)
from firstspin.data import parsing
from firstspin.records import SHOWN_GENRES, InputError, Registration

if TYPE_CHECKING:
    from firstspin.data.dataset import Reading
    from firstspin.evaluation.scorecard import Scorecard
    from firstspin.models.registry import Learning

MAX_TOP: Final = 10_000
"""Genres of an answer in a file: more than any service has."""

NEWCOMERS: Final = 8_000
"""Simulated newcomers in the demo's A/B test: a few seconds of them, and far too few to be sure of 8.7%."""

app = typer.Typer(
    name="firstspin",
    help="Real-time recommendations for people who have only just registered.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Port = Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65_535)]
Checkpoints = Annotated[
    Path | None,
    typer.Option(help="Folder that keeps what tuning has tried, so that a run that was cut off goes on from there."),
]


class Engine(StrEnum):
    """What runs the labels' expression."""

    duckdb = "duckdb"
    spark = "spark"


@app.command("world")
def world(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    users: Annotated[int, typer.Option(help="How many people register.", min=1)],
    seed: Seed = 0,
) -> None:
    """Write the tables of a make-believe service, and its truth."""
    from firstspin.simulation.world import write_world

    with terminal.progress("make-believe service") as progress:
        write_world(out, users, seed, progress)
    terminal.out.print(f"{users:,} make-believe registrations are in {out}", markup=False)
    terminal.next_step(f"firstspin evaluate --data {out} --models popularity,auto --out scorecard.json")


@app.command("label")
@with_options
def label(
    data: Data,
    out: Annotated[Path, typer.Option(help="Parquet file to write, one row a labelled user.")],
    tables: TableOptions,
    erasure: ErasureOptions,
    engine: Annotated[Engine, typer.Option(help="What runs it.")] = Engine.duckdb,
) -> None:
    """Find the genre each earlier registration listened to most in its window."""
    from firstspin import learn

    with terminal.progress("labels") as progress, erasure.without_erased(tables.reading()) as reading:
        progress("reading the tables", 0.0)
        census, ignored = learn.label(data, out, reading, engine.value)
    scorecard.print_census(census, ignored)
    terminal.next_step(f"firstspin train --data {data} --out bundle")


@app.command("train")
@with_options
def train(
    data: Data,
    out: Annotated[Path, typer.Option(help="Bundle to write.")],
    training: TrainingOptions,
    tables: TableOptions,
    erasure: ErasureOptions,
    checkpoints: Checkpoints = None,
) -> None:
    """Learn from the tables and pack a bundle."""
    learning = training.learning(checkpoints)
    with erasure.without_erased(tables.reading()) as reading:
        _train(data, out, training.model, reading, learning)


@app.command("evaluate")
@with_options
def evaluate(
    data: Data,
    tables: TableOptions,
    erasure: ErasureOptions,
    models: Annotated[str, typer.Option(help="Names with commas between.")] = "popularity,logistic,lightgbm,auto",
    bundle: Annotated[Path | None, typer.Option(help="Evaluate this bundle instead.")] = None,
    folds: Annotated[
        int | None,
        typer.Option(help="Parts of the users; each is asked once. 5, or 3 from 100,000 people on.", min=2),
    ] = None,
    split_at: Annotated[str, typer.Option(help="Instead of folds: learn from before, ask from this date on.")] = "",
    questions: Annotated[bool, typer.Option("--questions", help="Say what each question buys, too.")] = False,
    out: Annotated[Path | None, typer.Option(help="JSON file for the scorecard.")] = None,
    without: Without = "",
    seed: Seed = 0,
) -> None:
    """Measure models on people they have not seen, with intervals."""
    from firstspin import learn, preflight
    from firstspin.evaluation.cross_validation import Protocol
    from firstspin.evaluation.scorecard import write_scorecard
    from firstspin.models.registry import Learning

    chosen = tables.reading()
    protocol = Protocol(folds, parsed_moment(split_at, "--split-at") if split_at else None, seed)
    learning = Learning(split_names(without), seed)
    if bundle and (folds or split_at or questions or without):
        raise typer.BadParameter("leave out --folds, --split-at, --questions and --without", param_hint="--bundle")
    if out:
        preflight.file(out, data)
    with terminal.progress("evaluation") as progress, erasure.without_erased(chosen) as reading:
        if bundle:
            card, dataset = learn.evaluate_bundle(data, bundle, reading=reading, progress=progress)
        else:
            card, dataset = learn.evaluate_models(
                data,
                split_names(models),
                protocol=protocol,
                reading=reading,
                learning=learning,
                with_ablation=questions,
                progress=progress,
            )
    scorecard.print_census(dataset.census, dataset.ignored)
    scorecard.print_scorecard(card)
    if out:
        write_scorecard(card, out)
    terminal.next_step(f"firstspin train --data {data} --out bundle")


@app.command("report")
@with_options
def report(
    data: Data,
    bundle: BundlePath,
    erasure: ErasureOptions,
    out: Annotated[Path, typer.Option(help="HTML file to write.")],
    measured: Annotated[
        Path | None, typer.Option("--scorecard", help="What `evaluate --questions --out` wrote; else measured here.")
    ] = None,
) -> None:
    """Write the study as one page: who listens to what, which model sees it, what each question buys."""
    from firstspin import learn
    from firstspin.data.dataset import Reading

    read_as_usual = Reading(now=utc_now())
    with terminal.progress("report") as progress, erasure.without_erased(read_as_usual) as reading:
        learn.report(data, bundle, out, measured=measured, reading=reading, progress=progress)
    terminal.out.print(f"The report is in {out}", markup=False)


@app.command("recommend")
def recommend(
    bundle: BundlePath,
    age: Annotated[str, typer.Option(help="Age in years.")] = "",
    gender: Annotated[str, typer.Option(help="Gender as told.")] = "",
    country: Annotated[str, typer.Option(help="Country as told.")] = "",
    genres: Annotated[str, typer.Option(help='Picks in the order picked: "Rock|Jazz".')] = "",
    answer: Annotated[
        list[str] | None, typer.Option(help="Answer to a further field, as in device=phone; once for each.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say how much each answer moved each genre.")] = False,
    as_json: AsJson = False,
) -> None:
    """Answer one newcomer in the terminal."""
    from firstspin import answer as answering

    registration, further = _registration(age, gender, country, genres), _answers(answer or ())
    if explain:
        explanation.show(answering.explain(bundle, registration, further), as_json=as_json)
        return
    found = answering.recommend(bundle, registration, further)
    if as_json:
        terminal.print_json(found)
        return
    terminal.out.print(f"model {found.model}, answered by: {found.source}", markup=False)
    shown = terminal.table("", "genre", "probability")
    for genre in found.genres:
        shown.add_row(genre.genre, f"{genre.probability:.3f}")
    terminal.out.print(shown)
    if found.message:
        terminal.out.print(f"\n{found.message.title}. {found.message.reason}.", markup=False)
    terminal.next_step(f"firstspin serve --bundle {bundle}")


@app.command("score")
def score(
    bundle: BundlePath,
    registrations: Annotated[Path, typer.Option(help="CSV or Parquet file.")],
    out: Annotated[str, typer.Option(help="File (.csv, .parquet), sqlite:PATH or dynamodb:TABLE.")],
    top: Annotated[
        int, typer.Option(help="How many genres a user; the service shows five.", min=1, max=MAX_TOP)
    ] = SHOWN_GENRES,
    least_age: Annotated[
        int | None, typer.Option(help="Under it, age and gender are not used, as in `serve` (13).", min=0, max=120)
    ] = None,
    skip_bad_rows: SkipBadRows = False,
) -> None:
    """Answer every registration of a file."""
    from firstspin import answer

    with terminal.progress("scoring") as progress:
        written, ignored = answer.score(
            bundle,
            registrations,
            out,
            top,
            now=datetime.now(UTC),
            least_age=least_age,
            skip_bad_rows=skip_bad_rows,
            progress=progress,
        )
    terminal.counted("left out", ignored)
    terminal.out.print(f"{written:,} registrations answered in {out}", markup=False)


@app.command("demo")
def demo(
    users: Annotated[int, typer.Option(help="How many make-believe people register.", min=100)] = 12_000,
    seed: Seed = 0,
    port: Port = 8080,
    no_serve: Annotated[bool, typer.Option("--no-serve", help="Stop after the scorecard.")] = False,
) -> None:
    """The whole story on a make-believe service, then the live page."""
    from firstspin.cli import claims
    from firstspin.data.dataset import Reading
    from firstspin.models.registry import Learning
    from firstspin.service import options
    from firstspin.simulation import run as simulation
    from firstspin.simulation.world import write_world

    if not no_serve:
        options.parse(["--bundle", "bundle", "--port", str(port)], os.environ)
    folder = Path(tempfile.mkdtemp(prefix="firstspin-demo-"))
    with terminal.progress("make-believe service") as progress:
        write_world(folder, users, seed, progress)
    terminal.out.print(f"A make-believe service with {users:,} registrations is in {folder}", markup=False)
    card = _train(folder, folder / "bundle", "auto", Reading(), Learning(seed=seed))
    setting = simulation.Setting(users=NEWCOMERS, seed=seed)
    with terminal.progress(f"A/B test on {NEWCOMERS:,} simulated newcomers") as progress:
        found = simulation.simulate(
            folder / "bundle", setting, folder / "experiment", now=time.perf_counter_ns, progress=progress
        )
    claims.show([*claims.entries(card, folder), *claims.tested(found, folder / "bundle")])
    if not no_serve:
        terminal.out.print(f"\nServing on http://127.0.0.1:{port} (Ctrl-C stops)", markup=False)
        sys.stdout.flush()
        command = [sys.executable, "-m", "firstspin.service", "--bundle", str(folder / "bundle"), "--port", str(port)]
        os.execv(sys.executable, command)  # the lean process, without what training imported


@app.command("serve", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def serve() -> None:
    """Answer over HTTP: --bundle BUNDLE [--host H] [--port P] [--workers N]."""


@app.command("events", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def events_of_users() -> None:
    """What is kept of users: erase it, export it, pass it on."""


@app.command("experiment", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def experiment() -> None:
    """Plan an A/B test, and read its result."""


@app.command("sagemaker", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def sagemaker() -> None:
    """See whether a container keeps SageMaker's contract, and ship a bundle there."""


def main() -> None:
    """The command line."""
    terminal.run(app)


def _train(data: Path, out: Path, model: str, reading: Reading, learning: Learning) -> Scorecard:
    """Train, and tell what was learned from whom and how good it is."""
    from firstspin import learn

    with terminal.progress("training") as progress:
        packed, dataset, card = learn.train(data, out, model, reading=reading, learning=learning, progress=progress)
    scorecard.print_census(dataset.census, dataset.ignored)
    scorecard.print_headline(card)
    made_of = packed.predictor.made_of or packed.predictor.name
    terminal.out.print(f"\nBundle {packed.id} ({made_of}) is in {out}", markup=False)
    terminal.next_step(f'firstspin recommend --bundle {out} --age 31 --genres "{packed.predictor.genres[0]}"')
    return card


def _answers(told: Iterable[str]) -> dict[str, str]:
    """`device=phone` as a field and its answer."""
    pairs = [pair.partition("=") for pair in told]
    if wrong := [name for name, equals, _ in pairs if not (name and equals)]:
        raise typer.BadParameter(f"{wrong[0]!r} is not FIELD=ANSWER", param_hint="--answer")
    return {name: answer for name, _, answer in pairs}


def _registration(age: str, gender: str, country: str, genres: str) -> Registration:
    """A registration of text, spelled as in the cells of a table."""
    try:
        told = {"age": parsing.age(age), "gender": gender.strip(), "country": country.strip()}
        return msgspec.convert(told | {"genres": parsing.picks(genres)}, Registration)
    except parsing.Misspelt as problem:
        raise InputError(f"this is not a registration: --age {age!r} {problem}") from None
    except msgspec.ValidationError as problem:
        raise InputError(f"this is not a registration: {problem}") from None
