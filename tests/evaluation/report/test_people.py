"""The sections on users state what hand-made users did, and nothing that a few users did by chance."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import numpy as np
from made_report import material

from firstspin.evaluation.report import patterns, people
from firstspin.evaluation.report.parts import HeatMap, Note, Picture
from firstspin.records import Examples, LabelRule, Registration

GENRES = ("Jazz", "Pop", "Rock")


def users(registrations: list[Registration], shares: np.ndarray, registered: list[str] | None = None) -> Examples:
    n = len(registrations)
    at = np.array(registered or ["2025-01-01"] * n, dtype="datetime64[s]")
    return Examples(tuple(map(str, range(n))), tuple(registrations), at, GENRES, shares.argmax(axis=1), shares)


def part_of(examples: Examples, anchor: str, number: int = 0, rule: LabelRule | None = None) -> Picture | HeatMap:
    of = replace(material(), examples=examples, rule=rule or material().rule)
    (section,) = [one for one in people.sections(of) if one.anchor == anchor]
    part = section.parts[number]
    assert isinstance(part, (Picture, HeatMap))
    return part


def test_the_mean_share_per_user_is_not_called_a_share_of_all_listening() -> None:
    """Whether the one Rock listener played a thousand times as long as all others is not in the shares."""
    shares = np.repeat([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], [1, 9], axis=0)
    drawn = part_of(users([Registration()] * 10, shares), "listening")
    assert drawn.title == "Jazz: 90% of an average user's listening"
    words = drawn.title + drawn.text + drawn.alt
    assert "mean over users" in words
    assert "all listening" not in words
    assert "share of listening" not in words


def test_genres_with_equal_shares_are_named_together() -> None:
    shares = np.repeat([[0.4, 0.2, 0.4]], 10, axis=0)
    assert part_of(users([Registration()] * 10, shares), "listening").title == (
        "Jazz and Rock: 40% of an average user's listening each"
    )


def test_months_with_equal_numbers_are_named_together_and_no_month_is_left_out() -> None:
    when = ["2025-01-10"] * 3 + ["2025-02-10"] * 1 + ["2025-04-10"] * 3
    examples = users([Registration()] * 7, np.eye(3)[[0] * 7], when)
    drawn = part_of(examples, "labels", 1)
    assert drawn.title.endswith("2025-01 to 2025-04: the highest number, 3, in 2025-01 and 2025-04")
    assert patterns.arrivals(examples.registered_at, "month") == {
        "2025-01": 3,
        "2025-02": 1,
        "2025-03": 0,
        "2025-04": 3,
    }
    alike = users([Registration()] * 2, np.eye(3)[[0, 0]], ["2025-01-10", "2025-02-10"])
    assert part_of(alike, "labels", 1).title.endswith("2025-01 to 2025-02: 1 in each month")


def test_a_month_with_open_windows_is_incomplete_and_neither_high_nor_low() -> None:
    """The data end on 20 May: only users of 1 to 21 March have their 60 days behind them."""
    when = ["2025-01-10"] * 30 + ["2025-02-10"] * 30 + ["2025-03-10"] * 20
    examples = users([Registration()] * 80, np.eye(3)[[0] * 80], when)
    rule = LabelRule(data_ends=datetime(2025, 5, 20))
    drawn = part_of(examples, "labels", 1, rule)
    assert isinstance(drawn, Picture)
    assert drawn.title.endswith("2025-01 to 2025-03: 30 in each month")
    assert "2025-03: incomplete" in drawn.text
    assert "no decline" in drawn.text
    chart = str(drawn.draw(720).to_dict())
    assert chart.count("'windows': 'incomplete'") == 1
    assert not patterns.has_open_windows("2025-03", LabelRule(data_ends=datetime(2025, 5, 31)))  # 60 days from 1 April
    assert patterns.has_open_windows("2025-03", LabelRule(data_ends=datetime(2025, 5, 30)))
    assert patterns.has_open_windows("2025", rule)


def test_an_age_band_of_a_dozen_users_is_not_named_and_not_coloured() -> None:
    """Twelve users over 55 play only Jazz; 100 aged 18 to 24 play more Rock than 200 others do."""
    told = [Registration(age=60)] * 12 + [Registration(age=20)] * 100 + [Registration(age=30)] * 200
    tops = [0] * 12 + [2] * 80 + [1] * 20 + ([1] * 120 + [2] * 80)
    drawn = part_of(users(told, np.eye(3)[tops]), "listening", 1)
    assert isinstance(drawn, HeatMap)
    assert "at ages 18-24" in drawn.title
    assert "55+" not in drawn.title
    assert drawn.coloured is not None
    assert not drawn.coloured[drawn.grid.rows.index("55+")].any()
    assert drawn.coloured[drawn.grid.rows.index("18-24"), drawn.grid.columns.index("Rock")]


def test_without_a_clear_difference_no_age_and_no_gender_is_named() -> None:
    rng = np.random.default_rng(1)
    told = [Registration(age=int(rng.choice([20, 30, 40])), gender=str(rng.choice(["f", "m"]))) for _ in range(400)]
    examples = users(told, np.eye(3)[rng.integers(0, 3, 400)])
    by_gender, by_age = (part_of(examples, "listening", i) for i in (0, 1))
    assert by_gender.title == "No genre's mean share per user differs clearly by gender"
    assert by_age.title == "No genre's mean share per user differs clearly by age"


def test_a_clear_difference_by_gender_is_named_with_its_interval_and_ties_together() -> None:
    told = [Registration(gender="f")] * 100 + [Registration(gender="m")] * 100
    tops = [0] * 50 + [1] * 50 + [0] * 50 + [2] * 50  # Jazz alike, Pop only f, Rock only m
    title = part_of(users(told, np.eye(3)[tops]), "listening").title
    assert "Pop (f against m) and Rock (f against m), 50.0 points each" in title
    tops = [0] * 80 + [1] * 10 + [2] * 10 + [0] * 40 + [1] * 30 + [2] * 30
    title = part_of(users(told, np.eye(3)[tops]), "listening").title
    assert "Jazz (f against m), +40.0 points [+2" in title


def test_a_pick_of_few_users_is_no_extreme() -> None:
    """All ten pickers of Rock play Rock: too few to be called the best pick."""
    told = [Registration(genres=("Rock",))] * 10 + [Registration(genres=("Pop",))] * 100
    told += [Registration(genres=("Jazz",))] * 100
    tops = [2] * 10 + [1] * 60 + [0] * 40 + [0] * 20 + [1] * 80
    drawn = part_of(users(told, np.eye(3)[tops]), "picks")
    assert drawn.title.startswith("A pick is the top genre of 40% of the users who picked it, from 20% [")
    assert "(Jazz) to 60% [" in drawn.title
    assert "Rock" not in drawn.title
    few = users(told[:10], np.eye(3)[tops[:10]])
    assert "too few to compare" in part_of(few, "picks").title


def test_picks_without_a_clear_difference_are_not_ranked() -> None:
    told = [Registration(genres=("Pop",))] * 60 + [Registration(genres=("Jazz",))] * 60
    tops = [1] * 31 + [0] * 29 + [0] * 29 + [1] * 31
    assert part_of(users(told, np.eye(3)[tops]), "picks").title.endswith("without a clear difference between genres")


def test_the_largest_effect_is_that_of_an_answer_of_many_users() -> None:
    grid = patterns.Grid(("picked Jazz", "picked Pop", "picked Rock"), GENRES, np.diag([9.0, 2.02, 1.98]), (10, 60, 60))
    (section,) = [one for one in people.sections(replace(material(), answers=grid)) if one.anchor == "answers"]
    (drawn,) = section.parts
    assert not isinstance(drawn, Note)
    assert "“picked Pop” on Pop and “picked Rock” on Rock (+2.0)" in drawn.title
