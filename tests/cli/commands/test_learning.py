"""`train` measures the model that it ships; `evaluate` says first where a bundle knows the users."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import made_people
import made_tables
import pytest
import typer

from firstspin import learn
from firstspin.cli.commands import learning
from firstspin.serving import bundle


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, the bundle `b` of an ensemble and the bundle `rule`, trained on them."""
    folder = tmp_path_factory.mktemp("trained")
    made_people.tables(folder / "data", 300)
    learn.train(folder / "data", folder / "b")
    learn.train(folder / "data", folder / "rule", "popularity")
    return folder


def part(data: Path, out: Path, first: int, *, others: str = "") -> Path:
    """The tables of the users from number `first` on, under new ids where `others` is their prefix."""
    users = {"nobody", *(f"u{number}" for number in range(first, 300))}
    for name in ("registrations", "listens", "stations"):
        with (data / f"{name}.csv").open(newline="") as file:
            header, *rows = csv.reader(file)
        if name != "stations":
            rows = [[others + row[0], *row[1:]] for row in rows if row[0] in users]
        made_tables.write(out, name, header, rows)
    return out


def first_line(capsys: pytest.CaptureFixture[str], data: Path, path: Path, *more: str) -> str:
    capsys.readouterr()
    learning.app(["evaluate", "--data", str(data), "--bundle", str(path), *more], standalone_mode=False)
    return capsys.readouterr().out.splitlines()[0]


def test_the_scorecard_is_that_of_the_ensemble_in_the_bundle(trained: Path) -> None:
    manifest = bundle.load(trained / "b").manifest
    assert " + " in manifest.predictor.made_of
    assert manifest.scorecard is not None
    assert manifest.scorecard["protocol"]["made_of"] == manifest.predictor.made_of  # type: ignore[index]


@pytest.mark.parametrize("model", ["b", "rule"])
def test_a_bundle_evaluated_on_its_training_users_says_so_first(
    trained: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = bundle.load(trained / model).id
    warning = f"Warning: bundle {name} was trained on these very users, so its figures are too high."
    assert first_line(capsys, trained / "data", trained / model).startswith(warning)


def test_so_does_one_whose_users_have_other_labels_now_or_are_fewer(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warning = "was trained on these very users"
    out = tmp_path / "scorecard.json"
    fewer = part(trained / "data", tmp_path / "fewer", 180)
    assert warning in first_line(capsys, fewer, trained / "rule", "--out", str(out))
    assert json.loads(out.read_text())["protocol"]["share of these people that it was trained on"] == 1.0
    assert warning in first_line(capsys, trained / "data", trained / "rule", "--least-seconds", "601")


def test_users_that_a_bundle_does_not_know_give_no_warning(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = part(trained / "data", tmp_path / "others", 0, others="x")
    assert first_line(capsys, others, trained / "rule") == "300 of 300 registrations have a label"


def test_a_bundle_of_an_earlier_version_knows_its_very_users(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads((trained / "rule" / "manifest.json").read_text())
    del manifest["users"]
    (tmp_path / "old").mkdir()
    for path in (trained / "rule").iterdir():
        (tmp_path / "old" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "old" / "manifest.json").write_text(json.dumps(manifest))
    assert "these very users" in first_line(capsys, trained / "data", tmp_path / "old")


def test_the_curve_is_printed_and_written(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", "--data", str(trained / "data"), "--models", "logistic", "--folds", "2"]
    out = tmp_path / "curve.json"
    learning.app([*command, "--curve", "100,40", "--out", str(out)], standalone_mode=False)
    printed = capsys.readouterr().out
    assert "log_loss on 300 held-out users, by the number of training users" in printed
    assert "If the trend of the last points goes on, 200 users would change hit@3" in " ".join(printed.split())
    assert [point["users"] for point in json.loads(out.read_bytes())["points"]] == [40, 100]


def test_a_curve_is_not_that_of_a_bundle(trained: Path) -> None:
    command = ["evaluate", "--data", str(trained / "data"), "--bundle", str(trained / "b"), "--curve", "40"]
    with pytest.raises(typer.BadParameter, match="leave out --bundle and --questions"):
        learning.app(command, standalone_mode=False)


@pytest.mark.parametrize("curve", [(), ("--curve", "40")])
@pytest.mark.parametrize("models", ["", " , "])
def test_without_any_model_there_is_nothing_to_evaluate(trained: Path, models: str, curve: tuple[str, ...]) -> None:
    command = ["evaluate", "--data", str(trained / "data"), "--models", models, *curve]
    with pytest.raises(typer.BadParameter, match="at least one model is needed, as in --models auto"):
        learning.app(command, standalone_mode=False)
