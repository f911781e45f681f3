"""With evidence the model is never worse than the better of its parents by more than noise, however many listens."""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from pathlib import Path

import made_tables
import numpy as np
import pytest
from command_line import failed

from firstspin import learn
from firstspin.evaluation.cross_validation import Protocol
from firstspin.evaluation.listens_curve import EVIDENCE, HISTORY, METRICS, MODEL, SWITCH, ListensCurve, parse_numbers
from firstspin.evaluation.metrics import RankingMetric
from firstspin.records import InputError
from firstspin.simulation.world import write_world

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "lastfm-2k"
LOSS = RankingMetric.LOG_LOSS.value
GENRES = ("Blues", "Jazz", "Pop", "Rock")
BEGIN = datetime(2025, 1, 1, tzinfo=UTC)


def curve_of(data: Path, numbers: tuple[int, ...] = (0, 1, 2, 5, 20)) -> ListensCurve:
    curve, _ = learn.listens_curve_of(data, "logistic", numbers, protocol=Protocol(folds=3))
    for point in curve.points:
        for metric in METRICS:
            better = point.over_better[metric]
            if metric == LOSS:
                assert better.low <= 0, f"{point.listens} listens: log loss {better} above the better parent"
            else:
                assert better.high >= 0, f"{point.listens} listens: {metric} {better} below the better parent"
    first = curve.points[0].figures
    assert first[EVIDENCE] == first[MODEL] == first[SWITCH]
    return curve


def test_a_service_whose_first_month_is_noise(tmp_path: Path) -> None:
    write_world(tmp_path / "w", 3_000, 7, lambda _, __: None)
    curve = curve_of(tmp_path / "w")
    for point in curve.points[1:]:
        loss = {name: of[LOSS].value for name, of in point.figures.items()}
        assert loss[EVIDENCE] == pytest.approx(loss[MODEL], abs=0.01)  # truth: the listens say nothing
        assert loss[EVIDENCE] + 0.5 < loss[HISTORY]


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
    assert five.over_better[LOSS].high < -0.1
    assert five.figures[EVIDENCE]["hit@3"].value > five.figures[SWITCH]["hit@3"].value + 0.03


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
