"""Options that several commands share are one declaration; a training job's hyperparameters are `train`'s options."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import typer
from typer.main import get_command
from typer.testing import CliRunner

from firstspin.cli.hyperparameters import job_options
from firstspin.cli.main import app
from firstspin.cli.options import ErasureOptions, FileOptions, TableOptions, TrainingOptions, with_options
from firstspin.data.column_map import column_map


@dataclass(frozen=True)
class Shape:
    size: Annotated[int, typer.Option(help="How large.", min=1)] = 3
    round: Annotated[bool, typer.Option("--round")] = False


@with_options
def draw(name: str, shape: Shape, colour: Annotated[str, typer.Option()] = "red") -> None:
    """Draw it."""
    typer.echo(f"{name} {shape} {colour}")


def options_of(command: str) -> dict[str, str | None]:
    """The options of a command with their help."""
    group = get_command(app)
    found = group.get_command(typer.Context(group), command)  # type: ignore[attr-defined]
    return {str(option.name): getattr(option, "help", None) for option in found.params}


def test_a_dataclass_of_options_becomes_an_option_for_each_field() -> None:
    drawing = typer.Typer()
    drawing.command()(draw)
    run = CliRunner().invoke(drawing, ["x", "--size", "5", "--round", "--colour", "blue"])
    assert run.output == "x Shape(size=5, round=True) blue\n"
    assert CliRunner().invoke(drawing, ["x"]).output == "x Shape(size=3, round=False) red\n"
    assert CliRunner().invoke(drawing, ["x", "--size", "0"]).exit_code == 2
    assert "How large." in CliRunner().invoke(drawing, ["--help"]).output


def test_label_train_and_evaluate_have_the_same_options_of_the_tables() -> None:
    shared = [one.name for kind in (TableOptions, ErasureOptions) for one in fields(kind)]
    label, train, evaluate = (options_of(command) for command in ("label", "train", "evaluate"))
    assert len(shared) == 12
    for name in shared:
        assert label[name] == train[name] == evaluate[name] is not None


def test_hyperparameters_are_the_options_of_train_but_for_the_jobs_own_folders() -> None:
    kinds = (TrainingOptions, TableOptions, ErasureOptions)
    hyperparameters = {one.name for kind in kinds for one in fields(kind)}
    assert hyperparameters == set(options_of("train")) - {"data", "out", "checkpoints", "settings"}


def test_a_hyperparameter_is_read_as_the_option_of_its_name(tmp_path: Path) -> None:
    told = {
        "model": "lightgbm",
        "tune": "1.5",
        "trials": "0",
        "seed": "7",
        "without": '["age", "gender"]',
        "extra": "device,market",
        "map": "user_id=uid",
        "skip_bad_rows": "True",
        "gap_days": "20",
        "window_days": '"40"',
        "least_seconds": "1e3",
        "data_ends": "2026-01-31",
        "sagemaker_region": "eu-west-1",
        "_tuning_objective_metric": "valid_hit3",
    }
    (tmp_path / "h.json").write_text(json.dumps(told))
    with job_options(tmp_path / "h.json", tmp_path) as (model, reading, learning):
        assert (model, learning.seed, learning.tune_minutes, learning.tune_trials) == ("lightgbm", 7, 1.5, 0)
        assert (learning.without, learning.checkpoints) == (("age", "gender"), tmp_path)
        assert (reading.extra, reading.skip_bad_rows) == (("device", "market"), True)
        assert reading.mapping == column_map("user_id=uid")
        assert reading.rule is not None
        assert reading.rule.state() == {
            "gap_days": 20,
            "window_days": 40,
            "least_seconds": 1000.0,
            "data_ends": "2026-01-31T00:00:00Z",
        }


def test_every_command_that_reads_tables_maps_columns_and_skips_bad_rows() -> None:
    for command in ("label", "train", "evaluate", "report", "score"):
        assert {"map", "skip_bad_rows"} <= set(options_of(command)), command


def test_the_map_of_a_settings_file_is_that_of_the_option() -> None:
    @with_options
    def show(files: FileOptions) -> None:
        typer.echo(files.map.headers)

    app = typer.Typer()
    app.command()(show)
    settings = {"map": {"user_id": "uid", "listens": {"seconds": "dur"}}}
    from_file = CliRunner().invoke(app, [], default_map=settings).output
    assert from_file == CliRunner().invoke(app, ["--map", "user_id=uid,listens.seconds=dur"]).output
    assert "('listens', 'seconds'): 'dur'" in from_file


def test_a_job_without_hyperparameters_has_the_defaults_of_train(tmp_path: Path) -> None:
    with job_options(tmp_path / "none.json", tmp_path) as (model, reading, learning):
        assert (model, learning.seed, reading.skip_bad_rows) == ("auto", 0, False)
        assert reading.rule is not None
        assert (reading.rule.gap_days, reading.rule.window_days, reading.rule.min_seconds) == (30, 30, 600)
