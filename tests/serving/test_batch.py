"""Batch scoring by columns answers as `decide_many`: the same genres, probabilities and sources, to the bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import made_people
import numpy as np
import pytest
from made_app import Broken
from made_bundles import pack
from made_columns import columns
from made_experiments import HALVES

from firstspin.models.predictor import Predictor
from firstspin.records import Listen, Ranking, Registration
from firstspin.serving import batch, ranked_columns
from firstspin.serving.bundle import Bundle
from firstspin.serving.policy import PolicySettings, decide_many, top
from firstspin.serving.refusal import Refusal

PEOPLE = [
    *made_people.examples(60).registrations,
    Registration(age=9, gender="female", genres=("Rock",)),
    Registration(),
    Registration(genres=("Polka",)),
    Registration(age=12),
    Registration(age=13, country=" se "),
    Registration(genres=("Rock", "rock", "Jazz")),
]
LISTENING = [
    Registration(age=31, genres=("Rock",), listens=(Listen("1", 200.0), Listen("2", 30.0))),
    Registration(listens=(Listen("3", 200.0),)),
    Registration(listens=(Listen("unknown", 200.0),)),
    Registration(age=9, listens=(Listen("1", 200.0),)),
]


@pytest.fixture(scope="module", params=[True, False], ids=["knows silence", "does not"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return pack(tmp_path_factory.mktemp("bundle") / "b", knows_silence=request.param)


def answered(
    people: Sequence[Registration],
    bundle: Bundle,
    settings: PolicySettings,
    k: int | None,
    *further: str,
    size: int = 50,
) -> list[Ranking]:
    rankings: list[Ranking] = []

    def sink(batches: Iterator[batch.Answers], /) -> None:
        rankings.extend(ranking for answers in batches for ranking in answers.rankings()[1])

    parts = [columns(people[start : start + size], *further) for start in range(0, len(people), size)]
    assert batch.write(sink, parts, bundle, settings, k, lambda _: None) == len(people)
    return rankings


def expected(people: Sequence[Registration], bundle: Bundle, settings: PolicySettings, k: int | None) -> list[Ranking]:
    rankings = [decision.ranking for decision in decide_many(people, None, bundle, settings)]
    return [top(ranking, k) if k else ranking for ranking in rankings]


@pytest.mark.parametrize("min_age", [0, 13, 40])
@pytest.mark.parametrize("k", [None, 1, 3, 99])
def test_every_answer_is_that_of_the_policy(bundle: Bundle, min_age: int, k: int | None) -> None:
    settings = PolicySettings(min_age)
    assert answered(PEOPLE, bundle, settings, k) == expected(PEOPLE, bundle, settings, k)


def test_listens_are_evidence_and_the_order_stays(bundle: Bundle) -> None:
    people = [one for pair in zip(LISTENING, PEOPLE, strict=False) for one in pair]
    assert answered(people, bundle, PolicySettings(), 3, "listens") == expected(people, bundle, PolicySettings(), 3)


def test_where_the_model_fails_the_rule_answers(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    broken = replace(bundle, predictor=Broken(bundle.predictor.encoder))  # type: ignore[arg-type]
    rankings = answered(PEOPLE, broken, PolicySettings(), 3)
    assert rankings == expected(PEOPLE, broken, PolicySettings(), 3)
    assert "the model failed for" in caplog.text


def test_a_model_that_fails_for_one_row_answers_the_others(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranked_columns, "COLUMN_BATCH", 8)
    scores = type(bundle.predictor.scorer).scores

    class Picky:
        kind = "picky"

        def scores(self, rows: np.ndarray) -> np.ndarray:
            ages = rows[:, bundle.predictor.encoder.columns.index("age")]
            if (ages == 13).any():
                raise ValueError("13")
            return scores(bundle.predictor.scorer, rows)

    picky = replace(bundle, predictor=replace(bundle.predictor, scorer=Picky()))  # type: ignore[arg-type]
    rankings = answered(PEOPLE, picky, PolicySettings(), 3)
    assert rankings == expected(PEOPLE, picky, PolicySettings(), 3)
    assert [ranking.source for ranking in rankings].count("rule") == 1


def test_that_columns_fail_is_logged_once_and_the_answers_stay(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("female, 31")

    ranked_columns._log_slower.cache_clear()
    monkeypatch.setattr(ranked_columns, "coded_trees", fail)
    monkeypatch.setattr(ranked_columns.CodedRows, "matched", fail)
    for _ in range(2):
        assert answered(PEOPLE, bundle, PolicySettings(), 3) == expected(PEOPLE, bundle, PolicySettings(), 3)
    assert [record.message.partition(": ")[2] for record in caplog.records] == [
        "registrations can't be ranked by trees: MemoryError",
        "registrations can't be ranked by columns: MemoryError",
    ]


def test_what_columns_do_not_know_is_left_to_the_policy(bundle: Bundle) -> None:
    calibrated = PolicySettings(calibrated_rows=True)
    assert answered(PEOPLE, bundle, calibrated, 3) == expected(PEOPLE, bundle, calibrated, 3)
    with pytest.raises(Refusal):
        answered(PEOPLE, bundle, PolicySettings(refuse_under_age=True), 3)
    assert answered(PEOPLE, bundle, PolicySettings(experiment=HALVES), 3) == expected(
        PEOPLE, bundle, PolicySettings(), 3
    )


def test_a_rule_with_other_genres_than_the_model(bundle: Bundle) -> None:
    rule = bundle.rule
    fewer = Predictor(rule.encoder, ("Polka", *rule.genres[1:]), rule.scorer, rule.name)
    other = replace(bundle, rule=fewer)
    assert answered(PEOPLE, other, PolicySettings(40), None) == expected(PEOPLE, other, PolicySettings(40), None)


def test_the_arrow_table_has_the_sources_and_is_empty_without_answers(bundle: Bundle) -> None:
    parts: list[batch.Answers] = []
    batch.write(parts.extend, [columns(PEOPLE)], bundle, PolicySettings(), 2, lambda _: None)
    table = batch.to_arrow(parts)
    assert table.schema == batch.to_arrow([]).schema
    rankings = expected(PEOPLE, bundle, PolicySettings(), 2)
    assert table["user_id"].to_pylist() == [f"u{i}" for i in range(len(PEOPLE))]
    assert table["genres"].to_pylist() == [list(ranking.genres) for ranking in rankings]
    assert table["probabilities"].to_pylist() == [list(ranking.probabilities) for ranking in rankings]
    assert table["source"].to_pylist() == [ranking.source for ranking in rankings]
