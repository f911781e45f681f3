"""The example user: the most common answers, ranked and explained by the bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import made_people
import pytest

from firstspin import learn
from firstspin.evaluation.report import example
from firstspin.evaluation.report.parts import HtmlTable, Note
from firstspin.records import Examples, Registration
from firstspin.serving import bundle


def users(*registrations: Registration) -> Examples:
    return replace(made_people.examples(len(registrations)), registrations=registrations)


def test_the_most_common_answers_and_none_of_a_few_users() -> None:
    told = [Registration(age=20, country="DE", genres=("Rock", "Pop"))] * 12
    told += [Registration(age=40, country="US", gender="x", genres=("Jazz",))] * 9
    assert example.typical(users(*told)) == Registration(age=20, country="DE", genres=("Pop", "Rock"))
    assert example.typical(users(*told[-9:])) == Registration()


def test_the_answers_the_ranking_and_why(tmp_path: Path) -> None:
    learn.train(made_people.tables(tmp_path / "data", 200), tmp_path / "b", "logistic")
    packed = bundle.load(tmp_path / "b")
    made = example.example_user(made_people.examples(200), packed)
    (table,) = example.section(made).parts
    assert isinstance(table, HtmlTable)
    ranking = packed.predictor.rank(made.registration)
    assert [row[0].partition(" ")[2] for row in table.rows] == list(ranking.genres)
    assert table.header[3:-1] == ("effect of age", "effect of country", "effect of genres")
    for row in table.rows:  # the effects add up
        probability, base = (float(cell.rstrip("%")) for cell in row[1:3])
        assert base + sum(map(float, row[3:-1])) == pytest.approx(probability, abs=0.3)
    assert table.title.startswith("New user, age ")
    (note,) = example.section(replace(made, explanation=None)).parts
    assert isinstance(note, Note)
