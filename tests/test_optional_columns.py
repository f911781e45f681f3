"""Registrations without age, gender and country: every part works, as on empty columns."""

from __future__ import annotations

import csv
from datetime import date, datetime
from pathlib import Path

import made_people
import made_tables
import pyarrow.parquet as pq
import pytest
from command_line import firstspin

from firstspin import answer, learn, score
from firstspin.data.ingest import open_tables
from firstspin.evaluation.cross_validation import Protocol
from firstspin.evaluation.report import story
from firstspin.evaluation.scorecard import write_scorecard
from firstspin.records import InputError, Registration

ABSENT = ("age", "gender", "country")


def without(data: Path, *, columns: bool) -> Path:
    """Without the answers of three columns, or without the columns."""
    path = data / "registrations.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    header = [name for name in made_tables.REGISTRATIONS if not (columns and name in ABSENT)]
    answers = [["" if name in ABSENT else row[name] for name in header] for row in rows]
    made_tables.write(data, "registrations", header, answers)
    return data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return without(made_people.tables(tmp_path_factory.mktemp("absent"), 120), columns=True)


@pytest.fixture(scope="module")
def bundle(data: Path) -> Path:
    learn.train(data, data.parent / "bundle", "logistic")
    return data.parent / "bundle"


def test_absent_columns_train_the_same_bundle_as_empty_ones(bundle: Path, tmp_path: Path) -> None:
    empty = without(made_people.tables(tmp_path / "data", 120), columns=False)
    _, dataset, _ = learn.train(empty, tmp_path / "b", "logistic")
    assert dataset.census.absent == ()
    for path in sorted(bundle.iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_labels_have_the_columns_with_nulls(data: Path, tmp_path: Path) -> None:
    census, _ = learn.label(data, tmp_path / "labels.parquet")
    labels = pq.read_table(tmp_path / "labels.parquet")
    assert census.absent == ABSENT
    assert labels.schema.names[:6] == list(made_tables.REGISTRATIONS)
    assert [labels[name].null_count for name in ABSENT] == [len(labels)] * 3
    assert [str(labels.schema.field(name).type) for name in ABSENT] == ["int32", "string", "string"]


def test_models_and_bundles_are_evaluated_and_reported(data: Path, bundle: Path, tmp_path: Path) -> None:
    card, _ = learn.evaluate_models(data, ["logistic"], protocol=Protocol(folds=2), with_ablation=True)
    write_scorecard(card, tmp_path / "card.json")
    learn.evaluate_bundle(data, bundle)
    written = date(2026, 2, 1)
    story.report(data, bundle, tmp_path / "report.html", written=written, measured=tmp_path / "card.json")
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_requests_with_an_age_are_answered_and_tables_without_are_scored(data: Path, bundle: Path) -> None:
    some = Registration(age=50, gender="female", country="US", genres=("Rock",))
    assert answer.recommend(bundle, some).source == "model"
    out = data.parent / "scores.csv"
    written, *_ = score.score(bundle, data / "registrations.csv", str(out), now=datetime(2026, 1, 1))
    assert written == 120


def test_the_commands_name_the_absent_columns(data: Path, bundle: Path, tmp_path: Path) -> None:
    labelled = firstspin("label", "--data", data, "--out", tmp_path / "l.parquet")
    assert "the registrations have no column age, gender, country" in labelled.stdout
    scored = firstspin(
        "score", "--bundle", bundle, "--registrations", data / "registrations.csv", "--out", tmp_path / "s.csv"
    )
    assert "registrations.csv has no column age, gender, country" in scored.stderr


def test_a_column_in_another_spelling_is_not_taken_for_absent(tmp_path: Path) -> None:
    data = made_people.tables(tmp_path / "data", 5)
    text = (data / "registrations.csv").read_text()
    (data / "registrations.csv").write_text(text.replace("age,", "Age ,", 1))
    with pytest.raises(
        InputError, match=r"registrations\.csv has no column age, but Age: use it with --map age=Age, or"
    ):
        open_tables(data, workspace=tmp_path)
