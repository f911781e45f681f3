"""The section on early listens shows the figures of a curve, and belongs to its tables."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from made_report import listens_curve_of

from firstspin import learn
from firstspin.evaluation.cross_validation import Protocol
from firstspin.evaluation.learning_curve import write_curve
from firstspin.evaluation.report import charts, listens, story
from firstspin.evaluation.report.parts import Note, Picture
from firstspin.records import InputError
from firstspin.simulation.world import write_world


def test_both_metrics_are_drawn_by_the_number_of_listens_beside_the_optimum() -> None:
    hits, loss, verdict, groups = listens.section(listens_curve_of(0, 1, 5, 20)).parts
    assert isinstance(hits, Picture)
    assert isinstance(loss, Picture)
    assert hits.title == "auto with evidence has a hit@3 of 66.0% after 20 listens, 60.0% without"
    assert loss.title == "Its log loss is 0.66 after 20 listens, 0.60 without"
    assert "model with evidence after 5 0.640" in hits.alt
    assert "history alone after 0 0.500" in hits.alt
    assert "optimum after 20 0.900" in hits.alt
    assert "dashed line is the Bayes-optimal" in hits.text
    assert "optimum" not in loss.alt
    assert isinstance(verdict, Note)
    assert verdict.text.startswith("Evidence is nowhere worse than the model or the history alone by more than noise")
    assert isinstance(groups, Picture)
    assert "gender: female +0.060" in groups.alt
    assert "number of picks: 3-5 +0.060" in groups.alt
    assert "month" not in groups.alt
    assert groups.text.endswith("evidence is worse in no place.")
    assert ">gender: female</text>" in charts.svg(groups.draw(charts.NARROW), "x")
    for width in (charts.NARROW, charts.WIDE):
        drawn = charts.svg(hits.draw(width), "x")
        assert all(f">{number}</text>" in drawn for number in ("0", "1", "5", "20"))
        assert "stroke-dasharray" in drawn
        assert "NaN" not in drawn
    assert "dashed" not in listens.section(listens_curve_of(0, 1, optimum=False)).parts[0].text  # type: ignore[union-attr]


def test_a_single_number_of_listens_is_drawn_too() -> None:
    for number in (0, 1):
        hits = listens.section(listens_curve_of(number)).parts[0]
        assert isinstance(hits, Picture)
        assert "NaN" not in charts.svg(hits.draw(charts.WIDE), "x")


def test_a_report_takes_the_curve_of_its_tables_only(tmp_path: Path) -> None:
    for name, seed in (("data", 1), ("others", 2)):
        write_world(tmp_path / name, 300, seed)
    learn.train(tmp_path / "others", tmp_path / "b", "popularity")
    measured, _ = learn.listens_curve_of(tmp_path / "data", "popularity", (0, 3), protocol=Protocol(folds=2))
    write_curve(measured, tmp_path / "listens.json")
    with pytest.raises(InputError, match="is not about the users of these tables"):
        story.report(
            tmp_path / "others",
            tmp_path / "b",
            tmp_path / "r.html",
            written=date(2026, 2, 1),
            listens=tmp_path / "listens.json",
        )
