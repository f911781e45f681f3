"""`firstspin recommend|score`: answers of a bundle, one in the terminal or many to a file or store."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from firstspin.cli import terminal
from firstspin.cli.apps import command, new_app
from firstspin.cli.from_settings import SERVICE
from firstspin.cli.next_steps import next_command
from firstspin.cli.options import AsJson, BundlePath, Engine, FileOptions
from firstspin.cli.output import explanation
from firstspin.data import parsing
from firstspin.records import SHOWN_GENRES, InputError, Registration, answered_by

MAX_TOP: Final = 10_000
"""Genres of an answer in a file: more than any service has."""

app = new_app()


@command(app, "recommend", example='firstspin recommend --bundle bundle --age 31 --genres "Rock|Jazz" --explain')
def recommend(
    context: typer.Context,
    bundle: BundlePath,
    age: Annotated[str, typer.Option(help="Age in years.")] = "",
    gender: Annotated[str, typer.Option(help="Gender.")] = "",
    country: Annotated[str, typer.Option(help="Country.")] = "",
    genres: Annotated[str, typer.Option(help='Picks in the order picked: "Rock|Jazz" or "Rock, Jazz".')] = "",
    answer: Annotated[
        list[str] | None, typer.Option(help="Answer to a further field, as in device=phone; repeat.")
    ] = None,
    listens: Annotated[
        str, typer.Option(help='Stations played (seconds) or skipped, oldest first: "17:180|9:skipped".')
    ] = "",
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the effect of each answer (Shapley values).")
    ] = False,
    calibrated_rows: Annotated[
        bool, typer.Option("--calibrated-rows", help="Say how many genres contain the favourite with 90% probability.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Recommend for one registration in the terminal."""
    from firstspin import answer as answering
    from firstspin.serving.bundle import load
    from firstspin.serving.policy import PolicySettings

    loaded = load(bundle)
    known = answering.genres_of(loaded)
    picks = answering.picks_of(genres, known)
    for pick, problem in answering.unknown_picks(picks, known):
        terminal.warn(f"{'a pick' if terminal.bare() else repr(pick)} {problem}")
    own, further = _registration(age, gender, country, picks, listens), _answers(answer or ())
    registration = answering.with_extra(own, further, loaded.manifest.extra)
    for field, value, problem in answering.unknown_values(registration, loaded):
        terminal.warn(f"{field}{'' if terminal.bare() else f' {value!r}'} {problem}")
    for station in answering.unknown_stations(registration, loaded):
        terminal.warn(f"a station{'' if terminal.bare() else f' {station!r}'} {answering.UNKNOWN_STATION}")
    if explain:
        explanation.show(answering.explain(loaded, registration), as_json=as_json)
        return
    if calibrated_rows and loaded.manifest.rows is None:
        raise InputError(f"{bundle} has no calibrated rows: train it again, on at least 41 labelled users")
    recommendation = answering.recommend(loaded, registration, PolicySettings(calibrated_rows=calibrated_rows))
    if as_json:
        terminal.print_json(recommendation)
        return
    terminal.out.print(f"model {recommendation.model}, {answered_by(recommendation.source)}")
    shown = terminal.table("", "genre", "probability")
    for genre in recommendation.genres:
        shown.add_row(genre.genre, f"{genre.probability:.3f}")
    terminal.show(shown)
    if rows := recommendation.rows:
        first = "the first genre" if rows.count == 1 else f"one of the first {rows.count} genres"
        terminal.out.print(f"\nThe favourite is {first} with a probability of at least {rows.probability:.0%}.")
    if recommendation.message:
        terminal.out.print(f"\n{recommendation.message.title}. {recommendation.message.reason}.")
    terminal.next_step(next_command(context, "serve", bundle=bundle))


@command(app, "score", example="firstspin score --bundle bundle --registrations new.csv --out answers.csv")
def score(
    context: typer.Context,
    bundle: BundlePath,
    registrations: Annotated[Path, typer.Option(help="CSV or Parquet file.")],
    out: Annotated[str, typer.Option(help="File (.csv, .parquet), sqlite:PATH or dynamodb:TABLE.")],
    files: FileOptions,
    listens: Annotated[
        Path | None, typer.Option(help="Listens since the registrations, as evidence (CSV or Parquet).")
    ] = None,
    top: Annotated[
        int, typer.Option(help="Genres per user; the service shows five.", min=1, max=MAX_TOP)
    ] = SHOWN_GENRES,
    least_age: Annotated[
        int | None,
        typer.Option(
            help="Below this age, age and gender are not used. Default: 13, as in `serve`.",
            min=0,
            max=120,
            rich_help_panel=SERVICE,
        ),
    ] = None,
    engine: Annotated[
        Engine, typer.Option(help="Engine that answers; spark: local Spark, from Parquet to Parquet, in no order.")
    ] = Engine.duckdb,
) -> None:
    """Score a table of registrations into a file, SQLite or DynamoDB (batch scoring)."""
    if engine is Engine.spark:
        _score_on_spark(bundle, registrations, out, files, listens, top, least_age)
        return
    from firstspin.score import score as score_file

    with terminal.progress("scoring") as progress:
        written, ignored, unknown = score_file(
            bundle,
            registrations,
            out,
            top,
            now=datetime.now(UTC),
            min_age=least_age,
            mapping=files.map,
            spelling=files.spelling(),
            skip_bad_rows=files.skip_bad_rows,
            listens=listens,
            progress=progress,
        )
    terminal.counted("left out", ignored)
    for one in unknown:
        terminal.mismatch(one)
    terminal.out.print(f"{written:,} registrations answered in {out}")
    store = out if out.startswith(("sqlite:", "dynamodb:")) else None
    terminal.next_step(next_command(context, "serve", bundle=bundle, scores=store, least_age=least_age))


def _score_on_spark(
    bundle: Path, registrations: Path, out: str, files: FileOptions, listens: Path | None, top: int, min_age: int | None
) -> None:
    """Score on Spark. Raises InputError for options about how the tables are read, which only DuckDB heeds."""
    from firstspin.score import score_file_on_spark

    if listens is not None or files != FileOptions():
        raise InputError(
            "--engine spark takes none of --listens, --map, --skip-bad-rows, --dates, --pick-separator and --encoding: "
            "use --engine duckdb"
        )
    with terminal.progress("scoring") as progress:
        progress("Spark", 0.0)
        written = score_file_on_spark(bundle, registrations, out, top, min_age=min_age)
    terminal.out.print(f"{written:,} registrations answered in {out}")


def _answers(options: Iterable[str]) -> dict[str, str]:
    """The fields and answers of texts such as `device=phone`."""
    pairs = [pair.partition("=") for pair in options]
    if wrong := [name for name, equals, _ in pairs if not (name and equals)]:
        raise typer.BadParameter(f"{wrong[0]!r} is not FIELD=ANSWER", param_hint="--answer")
    return {name: answer for name, _, answer in pairs}


def _registration(age: str, gender: str, country: str, picks: list[str], listens: str) -> Registration:
    """A registration from text, parsed as the cells of a table."""
    given: dict[str, object] = {"gender": gender.strip(), "country": country.strip(), "genres": picks}
    for name, text, parse in (("age", age, parsing.age), ("listens", listens, parsing.listens)):
        try:
            given[name] = parse(text)
        except parsing.Misspelt as problem:
            raise InputError(f"this is not a registration: --{name} {text!r} {problem}") from None
    try:
        return msgspec.convert(given, Registration)
    except msgspec.ValidationError as problem:
        raise InputError(f"this is not a registration: {problem}") from None
