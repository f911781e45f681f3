"""The coverage of calibrated rows, overall and by cohort, and the bundle that carries them."""

from __future__ import annotations

import json
from pathlib import Path

import made_people
import numpy as np
import pytest
from command_line import failed, firstspin
from made_bundles import pack

from firstspin import learn
from firstspin.evaluation import cross_validation, scorecard
from firstspin.evaluation.cross_validation import HoldOutAnswers
from firstspin.evaluation.row_coverage import row_coverage
from firstspin.models.prediction_sets import PredictionSets
from firstspin.records import Registration
from firstspin.serving import bundle

USERS = 100


def answers() -> HoldOutAnswers:
    """Users with 60%, 30% and 10% for three genres; the favourite of every fourth is the third."""
    before = np.array([0, 600_000, 900_000, *[2**31 - 1] * 3], dtype=np.int32)
    position = np.where(np.arange(USERS) % 4 == 3, 2, 0)
    half = np.full(USERS, 0.5)
    return HoldOutAnswers(
        position, half, np.zeros((USERS, 5), dtype=np.int64), half, before[position], np.tile(before, (USERS, 1))
    )


def test_the_rows_of_a_bundle_are_counted_as_they_are() -> None:
    users = made_people.examples(USERS)
    narrow = row_coverage("m", answers(), users, np.random.default_rng(0), PredictionSets(0.7, 599_999))
    assert narrow is not None
    assert (narrow.coverage.value, narrow.sizes["1"]) == (0.75, 1.0)
    assert narrow.coverage.low == pytest.approx(0.657, abs=1e-3)  # Wilson, of 75 of 100
    wide = row_coverage("m", answers(), users, np.random.default_rng(0), PredictionSets(0.7, 900_000))
    assert wide is not None
    assert (wide.coverage.value, wide.sizes["3"]) == (1.0, 1.0)


def test_without_a_bundle_the_threshold_of_a_user_comes_from_the_others() -> None:
    found = row_coverage("m", answers(), made_people.examples(USERS), np.random.default_rng(0))
    assert found is not None
    assert (found.level, found.coverage.value, found.sizes["3"]) == (0.9, 1.0, 1.0)
    assert {segment.by for segment in found.segments} == {"picks", "age", "country", "month"}
    assert all(segment.coverage.low < segment.coverage.high == 1.0 for segment in found.segments)


def test_a_trained_bundle_covers_new_users_as_its_scorecard_tells(tmp_path: Path) -> None:
    packed, _, card = learn.train(made_people.tables(tmp_path / "data", 1000), tmp_path / "b", "logistic")
    sets = bundle.load(tmp_path / "b").manifest.rows
    assert sets == packed.manifest.rows is not None
    assert card.rows is not None
    new = made_people.examples(4000, seed=9)
    found = row_coverage("b", cross_validation.answer(packed.predictor, new), new, np.random.default_rng(0), sets)
    assert found is not None
    assert found.coverage.value == pytest.approx(card.rows.coverage.value, abs=3 * (0.09 / 200) ** 0.5)
    assert found.coverage.value > 0.9 - 3 * (0.09 / 200) ** 0.5
    counted = [sets.rows(ranking.probabilities).count for ranking in packed.predictor.rankings(new.registrations)]
    asked = "recommend", "--bundle", tmp_path / "b", "--genres", "Rock", "--calibrated-rows", "--json"
    answer = json.loads(firstspin(*asked).stdout)
    count = sets.rows(packed.predictor.rank(Registration(genres=("Rock",))).probabilities).count
    assert answer["rows"] == {"count": count, "probability": 0.9}
    assert found.sizes["1"] == pytest.approx(counted.count(1) / len(new), abs=1e-6)


def test_a_bundle_without_calibrated_rows_says_what_to_do(tmp_path: Path) -> None:
    pack(tmp_path / "b")
    line = failed("recommend", "--bundle", tmp_path / "b", "--calibrated-rows")
    assert "has no calibrated rows: train it again, on at least 41 labelled users" in line


@pytest.mark.parametrize(("users", "has_rows"), [(40, False), (41, True)])
def test_41_labelled_users_have_nine_held_out_which_are_enough(tmp_path: Path, users: int, has_rows: bool) -> None:
    packed, _, _ = learn.train(made_people.tables(tmp_path / "data", users), tmp_path / "b", "popularity")
    assert (packed.manifest.rows is not None) == has_rows


def test_the_coverage_is_that_of_the_model_trained_even_where_a_baseline_hits_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = made_people.tables(tmp_path / "data", 100)
    monkeypatch.setattr(scorecard, "_best", lambda *_: "overall")
    _, _, card = learn.train(data, tmp_path / "b", "popularity")
    assert card.rows is not None
    assert card.best == card.rows.model == "popularity"


def test_a_bundle_without_calibrated_rows_has_no_coverage(tmp_path: Path) -> None:
    pack(tmp_path / "b")
    card, _ = learn.evaluate_bundle(made_people.tables(tmp_path / "data", 100), tmp_path / "b")
    assert card.rows is None
    pack(tmp_path / "c", rows=PredictionSets(0.9, 800_000))
    card, _ = learn.evaluate_bundle(tmp_path / "data", tmp_path / "c")
    assert card.rows is not None
    assert card.rows.model.startswith("bundle ")
