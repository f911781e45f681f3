"""With evidence the model is never worse than the better of its parents by more than noise, however many listens."""

from __future__ import annotations

import csv
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import made_tables
import numpy as np
import pyarrow.parquet as pq
import pytest
import real_movielens
from command_line import failed, firstspin

from firstspin import learn
from firstspin.evaluation.cross_validation import Protocol
from firstspin.evaluation.learning_curve import write_curve
from firstspin.evaluation.listens_curve import (
    EVIDENCE,
    HISTORY,
    METRICS,
    MODEL,
    SWITCH,
    ListensCurve,
    _worse,
    parse_numbers,
    read_listens_curve,
)
from firstspin.evaluation.metrics import RankingMetric
from firstspin.records import InputError
from firstspin.simulation.world import write_world

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "lastfm-2k"
LOSS = RankingMetric.LOG_LOSS.value
GENRES = ("Blues", "Jazz", "Pop", "Rock")
BEGIN = datetime(2025, 1, 1, tzinfo=UTC)


def curve_of(data: Path, numbers: tuple[int, ...] = (0, 1, 2, 5, 20)) -> ListensCurve:
    """The curve, on which evidence is never below the better of its parents by more than noise."""
    curve, _ = learn.listens_curve_of(data, "logistic", numbers, protocol=Protocol(folds=3))
    assert curve.worse == ()  # for all users and each group, corrected for the number of comparisons
    assert curve.comparisons == 2 * len(METRICS) * len(numbers) * (1 + len(curve.groups))
    first = curve.points[0].figures
    assert first[EVIDENCE] == first[MODEL] == first[SWITCH]
    return curve


def test_a_simulated_service_whose_first_month_is_noise(tmp_path: Path) -> None:
    write_world(tmp_path / "w", 2_000, 7)
    curve = curve_of(tmp_path / "w")
    assert {group.by for group in curve.groups} == {"picks", "age", "gender", "country", "month"}
    for point in curve.points[1:]:
        loss = {name: of[LOSS].value for name, of in point.figures.items()}
        assert loss[EVIDENCE] == pytest.approx(loss[MODEL], abs=0.01)  # truth: the listens say nothing
        assert loss[EVIDENCE] + 0.5 < loss[HISTORY]
        assert point.optimum == curve.points[0].optimum
    assert "Evidence is nowhere worse than the model or the history alone" in curve.sentence()


def test_a_simulated_service_whose_first_month_tells_and_its_optimum(tmp_path: Path) -> None:
    write_world(tmp_path / "w", 2_000, 11, early_loyalty=0.3)
    curve = curve_of(tmp_path / "w")
    optima = [point.optimum.value for point in curve.points if point.optimum]
    assert optima == sorted(set(optima))  # more listens tell more
    assert optima[-1] > optima[0] + 0.1
    for point in curve.points:
        assert point.optimum is not None
        assert point.of_optimum is not None
        assert 0.85 < point.of_optimum.value < 1.0
        hits = point.figures[EVIDENCE]["hit@3"]
        assert hits.low - 0.02 < point.optimum.value * point.of_optimum.value < hits.high + 0.02
    last = curve.points[-1]
    assert last.figures[EVIDENCE]["hit@3"].value > last.figures[MODEL]["hit@3"].value + 0.1
    for group in curve.groups:
        assert [point.listens for point in group.points] == [0, 1, 2, 5, 20]
        assert group.people >= group.points[0].users >= group.points[-1].users


def test_a_service_whose_first_month_tells(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tops = rng.integers(4, size=400)
    people, listens = [], []
    for i, top in enumerate(tops):
        at = BEGIN + timedelta(hours=i)
        pick = GENRES[top if rng.random() < 0.5 else rng.integers(4)]
        people.append((f"u{i}", at.isoformat(), "", "", "", pick))
        early = np.where(rng.random(20) < 0.5, top, rng.integers(4, size=20))
        days = [*np.sort(rng.uniform(0, 30, 20)), 45]
        for day, genre in zip(days, [*early, top], strict=True):
            listens.append((f"u{i}", (at + timedelta(days=day)).isoformat(), str(genre), 900))
    listens.append(("nobody", (BEGIN + timedelta(days=300)).isoformat(), "0", 9))
    stations = [(str(i), f"{genre} FM", genre) for i, genre in enumerate(GENRES)]
    curve = curve_of(made_tables.tables(tmp_path / "t", people, listens, stations))
    losses = [point.figures[EVIDENCE][LOSS].value for point in curve.points]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > 1.0
    assert losses[-1] < 0.15  # 20 listens, half of them to the top genre
    assert [point.users for point in curve.points] == [400] * 5


def test_real_listeners(tmp_path: Path) -> None:
    if not REAL.is_dir():
        pytest.skip(f"no real listeners here: {REAL} is absent")
    for name in ("registrations", "stations"):
        (tmp_path / f"{name}.csv").write_bytes((REAL / f"{name}.csv").read_bytes())
    rng = np.random.default_rng(0)
    with (REAL / "listens.csv").open(encoding="utf-8") as file:
        rows = []
        for row in csv.DictReader(file):  # each play is early or in the label window, at random
            days = float(rng.uniform(30, 58)) if rng.random() < 0.5 else 0.0
            at = datetime.fromisoformat(row["started_at"]) - timedelta(days=days)
            rows.append((row["user_id"], at.isoformat(), row["station_id"], row["seconds"]))
    made_tables.write(tmp_path, "listens", made_tables.LISTENS, rows)
    curve = curve_of(tmp_path)
    five = curve.points[3]
    assert five.optimum is None  # a real service
    assert five.over_better[LOSS].high < -0.1
    assert five.figures[EVIDENCE]["hit@3"].value > five.figures[SWITCH]["hit@3"].value + 0.03


def test_real_users_in_the_order_of_time(tmp_path: Path) -> None:
    imported = tmp_path / "movielens"
    real_movielens.write(tmp_path / "ml-100k.zip")
    firstspin("import", "movielens-100k", tmp_path / "ml-100k.zip", "--out", imported)
    heard: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in pq.read_table(imported / "listens.parquet").to_pylist():
        heard[row["user_id"]].append(row)
    rows = []
    for user, listens in heard.items():  # the first 20 are early, the rest make the label
        for nth, row in enumerate(sorted(listens, key=lambda one: (one["started_at"], one["station_id"]))):
            at = row["started_at"].replace(tzinfo=UTC) - timedelta(days=30 * (nth < 20))
            rows.append((user, at.isoformat(), row["station_id"], row["seconds"]))
    (imported / "listens.parquet").unlink()
    made_tables.write(imported, "listens", made_tables.LISTENS, rows)
    curve = curve_of(imported, (0, 1, 2, 3, 5, 10, 20))
    assert curve.held_out == 486
    assert {group.by for group in curve.groups} == {"picks", "age", "gender", "month"}
    for point in curve.points[2:]:
        assert point.over_better[LOSS].high < 0.01
        assert point.figures[EVIDENCE]["hit@3"].value > point.figures[SWITCH]["hit@3"].value + 0.05


# ---------------------------------------------------------------------- the test that nothing is worse


def values_of(rng: np.random.Generator, users: int, numbers: tuple[int, ...]) -> dict[str, Any]:
    """Values of evidence and its parents that differ by noise alone."""
    return {
        f"{number}/{name}/{metric}": rng.normal(size=users)
        for number in numbers
        for name in (EVIDENCE, MODEL, HISTORY)
        for metric in METRICS
    }


def test_a_loss_in_one_group_is_named() -> None:
    values = values_of(np.random.default_rng(0), 400, (0, 5))
    women, men = np.arange(100), np.arange(100, 400)
    values["5/evidence/log_loss"][women] += 0.7
    everyone = {("", ""): np.arange(400), ("gender", "female"): women, ("gender", "male"): men}
    comparisons, worse = _worse(values, everyone, (0, 5))
    assert comparisons == 36
    assert {(one.by, one.name, one.listens, one.metric, one.parent) for one in worse} == {
        ("gender", "female", 5, "log_loss", MODEL),
        ("gender", "female", 5, "log_loss", HISTORY),
    }
    assert all(one.difference == pytest.approx(0.7, abs=0.4) and one.p < 0.05 for one in worse)
    curve = ListensCurve("logistic", 400, (), (), comparisons, worse)
    assert "worse than a parent by more than noise in 2 places" in curve.sentence()
    assert "first gender female, 5 listens: log_loss +" in curve.sentence()


@pytest.mark.parametrize("curves", [100, pytest.param(300, marks=pytest.mark.soak)])
def test_noise_is_called_a_loss_in_at_most_one_of_twenty_curves(curves: int) -> None:
    groups = {("", ""): np.arange(60)} | {("picks", str(i)): np.arange(12 * i, 12 * i + 12) for i in range(5)}
    rng = np.random.default_rng(1)
    alarms = sum(bool(_worse(values_of(rng, 60, (1, 5)), groups, (1, 5))[1]) for _ in range(curves))
    assert alarms <= curves * 0.05 + 3 * (curves * 0.05 * 0.95) ** 0.5


def test_a_written_curve_is_read_again_and_another_file_is_refused(tmp_path: Path) -> None:
    write_world(tmp_path / "w", 400, 1)
    curve, _ = learn.listens_curve_of(tmp_path / "w", "popularity", (0, 3), protocol=Protocol(folds=2))
    write_curve(curve, tmp_path / "curve.json")
    assert read_listens_curve(tmp_path / "curve.json") == curve
    text = (tmp_path / "curve.json").read_text()
    for content in ("", "{}", text.replace("log_loss", "other", 1), text.replace('"history"', '"other"', 1)):
        (tmp_path / "other.json").write_text(content)
        with pytest.raises(InputError, match="is not a curve that firstspin evaluate --listens wrote"):
            read_listens_curve(tmp_path / "other.json")


def test_users_without_early_listens_are_an_error(tmp_path: Path) -> None:
    people = [(f"u{i}", "2025-01-01T00:00:00Z", "", "", "", "") for i in range(20)]
    listens = [(f"u{i}", "2025-02-10T00:00:00Z", str(1 + i % 2), 900) for i in range(20)]
    listens.append(("u0", "2025-06-10T00:00:00Z", "1", 900))
    data = made_tables.tables(tmp_path / "t", people, listens)
    assert failed("evaluate", "--data", data, "--models", "logistic", "--listens", "0,1") == (
        "no labelled user has listens between the registration and the label window"
    )


def test_numbers_of_listens() -> None:
    assert parse_numbers("5, 0,1,5") == (0, 1, 5)
    for text in ("", "1,", "-1", "201", "one", "1.5"):
        with pytest.raises(InputError, match="--listens takes numbers of listens from 0 to 200"):
            parse_numbers(text)
