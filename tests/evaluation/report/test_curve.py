"""The section on the number of training users shows the figures of a curve, and belongs to its tables."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import made_people
import pytest
from made_report import curve_of

from firstspin import learn
from firstspin.evaluation.cross_validation import Protocol
from firstspin.evaluation.learning_curve import read_curve, write_curve
from firstspin.evaluation.report import charts, curve, story
from firstspin.evaluation.report.parts import Note, Picture
from firstspin.records import InputError


def test_both_metrics_are_drawn_with_the_number_of_users_and_the_trend() -> None:
    hits, loss, trend = curve.section(curve_of(100, 200, 1600)).parts
    assert isinstance(hits, Picture)
    assert isinstance(loss, Picture)
    assert isinstance(trend, Note)
    assert hits.title == "auto has a hit@3 of 70.0% with 1,600 training users, 50.0% with 100"
    assert loss.title == "From 200 training users on, auto has a significantly lower log loss than the business rule"
    assert trend.text.startswith("If the trend of the last points goes on, 3,200 users would change hit@3 by +0.010")
    assert "auto with 1,600 users 0.700; business rule with 1,600 users 0.450" in hits.alt
    assert "log loss by number of training users: auto with 100 users 2.000" in loss.alt
    drawn = charts.svg(loss.draw(charts.NARROW), "x")
    assert all(f">{users}</text>" in drawn for users in ("100", "200", "1,600"))


def test_a_single_point_has_neither_a_trend_nor_a_first_point() -> None:
    hits, loss = curve.section(curve_of(100)).parts
    assert isinstance(hits, Picture)
    assert isinstance(loss, Picture)
    assert hits.title == "auto has a hit@3 of 50.0% with 100 training users"
    assert loss.title == "No significant difference in log loss to the business rule with 100 training users"
    assert "NaN" not in charts.svg(hits.draw(charts.WIDE), "x")


def test_a_report_takes_the_curve_of_its_tables_only(tmp_path: Path) -> None:
    data = made_people.tables(tmp_path / "data", 80)
    learn.train(data, tmp_path / "b", "popularity")
    measured, _ = learn.curve_of(data, "logistic", (20, 40), protocol=Protocol(folds=2))
    write_curve(measured, tmp_path / "curve.json")
    assert read_curve(tmp_path / "curve.json") == measured
    others = made_people.tables(tmp_path / "others", 81)
    with pytest.raises(InputError, match="is not about the users of these tables"):
        story.report(
            others, tmp_path / "b", tmp_path / "r.html", written=date(2026, 2, 1), curve=tmp_path / "curve.json"
        )


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"\xff", b'{"model": "auto", "held_out": 9, "points": [], "better_from": null, "doubled": {}}'],
)
def test_another_file_is_not_a_curve(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "card.json").write_bytes(content)
    with pytest.raises(InputError, match="is not a curve that firstspin evaluate --curve wrote"):
        read_curve(tmp_path / "card.json")


def test_a_curve_without_one_of_its_metrics_is_refused(tmp_path: Path) -> None:
    write_curve(curve_of(100, 200), tmp_path / "curve.json")
    content = (tmp_path / "curve.json").read_text()
    for metric in ("hit@3", "log_loss"):
        (tmp_path / "curve.json").write_text(content.replace(metric, "other", 1))
        with pytest.raises(InputError, match=f"without {metric}"):
            read_curve(tmp_path / "curve.json")


def test_a_curve_with_a_point_of_no_users_is_refused(tmp_path: Path) -> None:
    write_curve(curve_of(100), tmp_path / "curve.json")
    content = (tmp_path / "curve.json").read_text()
    (tmp_path / "curve.json").write_text(content.replace('"users": 100', '"users": 0'))
    with pytest.raises(InputError, match="is not a curve"):
        read_curve(tmp_path / "curve.json")
