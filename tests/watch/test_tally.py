"""A worker's sums: of probabilities, never of users, reported every five minutes and at the end of a day."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from firstspin.events.answer_counts import AnswerCell, AnswerSum, DayCounts
from firstspin.records import Ranking, Registration, Source
from firstspin.serving.policy import Decision
from firstspin.watch.tally import AnswerTally

NIGHT = datetime(2026, 1, 31, 23, 57, tzinfo=UTC)
SHARES = (0.41, 0.2, 0.11, 0.08, 0.05, 0.15)
ANSWERED = Registration(age=31, gender="female", country="US", genres=("Rock", "rock ", "Jazz"))


def decision(source: Source = "model", shares: tuple[float, ...] = SHARES, **more: bool) -> Decision:
    return Decision(Ranking(tuple("abcdef"[: len(shares)]), shares, source), "3f2a9c1b", **more)


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.at = NIGHT

    def __call__(self) -> datetime:
        return self.at


def test_an_answer_is_three_sums_of_its_first_genres() -> None:
    tally = AnswerTally(Hands(), random.Random(0))
    tally.add([ANSWERED] * 2, [decision()] * 2)
    kind = ("3f2a9c1b", "model", "model", "2")
    assert tally.due(closing=True) == DayCounts(
        "2026-01-31",
        (
            AnswerSum(AnswerCell(*kind, 1, 8), 2, 820_000),
            AnswerSum(AnswerCell(*kind, 3, 14), 2, 1_440_000),
            AnswerSum(AnswerCell(*kind, 5, 17), 2, 1_700_000),
        ),
    )
    assert tally.due(closing=True) is None


def test_a_report_is_due_after_five_minutes_and_belongs_to_the_day_of_its_answers() -> None:
    clock = Hands()
    tally = AnswerTally(clock, random.Random(0))
    tally.add([ANSWERED], [decision()])
    clock.at += timedelta(minutes=2)
    assert tally.due() is None
    clock.at += timedelta(minutes=2)  # past midnight
    report = tally.due()
    assert report is not None
    assert report.day == "2026-01-31"
    tally.add([ANSWERED] * 10, [decision()] * 10)
    clock.at += timedelta(minutes=5)
    report = tally.due()
    assert report is not None
    assert report.day == "2026-02-01"
    clock.at += timedelta(minutes=5)
    assert tally.due() is None  # nothing was answered


def test_fewer_than_ten_answers_of_a_kind_wait_for_the_end_of_the_day() -> None:
    clock = Hands()
    clock.at -= timedelta(hours=1)
    tally = AnswerTally(clock, random.Random(0))
    reports = []
    for _ in range(4):
        tally.add([ANSWERED] * 3, [decision()] * 3)
        tally.add([ANSWERED] * 10, [decision("popular", by_rule=True)] * 10)
        clock.at += timedelta(minutes=5)
        reports.append(tally.due())
    answers = [{one.cell.source: one.answers for one in report.answers} for report in reports if report]
    assert answers == [{"popular": 10}, {"popular": 10}, {"popular": 10}, {"model": 12, "popular": 10}]
    tally.add([ANSWERED], [decision()])
    clock.at += timedelta(minutes=5)
    assert tally.due() is None
    clock.at += timedelta(days=1)
    report = tally.due()
    assert report is not None
    assert (report.day, {one.answers for one in report.answers}) == ("2026-01-31", {1})


def test_the_sums_of_few_answers_are_whole_percents_and_right_on_average() -> None:
    sums = []
    for seed in range(400):
        tally = AnswerTally(Hands(), random.Random(seed))
        tally.add([ANSWERED], [decision(shares=(0.4125, 0.3, 0.2875))])
        report = tally.due(closing=True)
        assert report is not None
        sums.append(report.answers[0].millionths)
    assert set(sums) == {410_000, 420_000}
    assert sum(sums) / 400 == pytest.approx(412_500, abs=1_000)
    tally = AnswerTally(Hands(), random.Random(0))
    tally.add([ANSWERED] * 10, [decision(shares=(0.4125, 0.3, 0.2875))] * 10)
    report = tally.due(closing=True)
    assert report is not None
    assert report.answers[0].millionths == 4_125_000


def test_a_clock_that_is_set_back_delays_no_report() -> None:
    clock = Hands()
    tally = AnswerTally(clock, random.Random(0))
    tally.add([ANSWERED] * 10, [decision()] * 10)
    clock.at -= timedelta(hours=3)
    assert tally.due() is not None


@pytest.mark.parametrize(
    ("made", "source", "predicted"),
    [
        (decision(), "model", "model"),
        (decision("popular", by_rule=True), "popular", "rule"),
        (decision("batch"), "batch", "model"),
        (decision(moved=True), "model", "listens"),
        (decision(by_rule=True, moved=True), "model", "listens"),
    ],
)
def test_what_ranked_is_part_of_the_kind(made: Decision, source: str, predicted: str) -> None:
    tally = AnswerTally(Hands(), random.Random(0))
    tally.add([ANSWERED], [made])
    report = tally.due(closing=True)
    assert report is not None
    assert {(one.cell.source, one.cell.predicted) for one in report.answers} == {(source, predicted)}


def test_no_genres_and_under_age_count_nothing_and_two_genres_are_certain_among_three() -> None:
    tally = AnswerTally(Hands(), random.Random(0))
    tally.add([ANSWERED] * 3, [decision("no-model", ()), decision("under-age"), decision(shares=(0.7, 0.300001))])
    report = tally.due(closing=True)
    assert report is not None
    assert [(one.cell.top, one.millionths) for one in report.answers] == [(1, 700_000), (3, 1_000_000), (5, 1_000_000)]


def test_no_age_gender_country_or_pick_is_in_a_report() -> None:
    tally = AnswerTally(Hands(), random.Random(0))
    tally.add([ANSWERED], [decision()])
    text = repr(tally.due(closing=True))
    assert not any(value in text for value in ("female", "US", "Rock", "Jazz", "31)", "genres"))
