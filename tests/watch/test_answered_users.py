"""A user counts once in the sums of answers, however often and by whichever worker they are answered."""

from __future__ import annotations

import json
import random
import signal
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from made_answers_of_days import KEY
from made_bundles import pack
from made_service import QUICK, serving

from firstspin.events.answer_counts import DayCounts, read_counts
from firstspin.events.schema import Secret
from firstspin.events.store import open_database
from firstspin.models.input_reference import InputReference
from firstspin.records import Ranking, Registration, Source
from firstspin.serving.policy import Decision
from firstspin.watch.answered_users import USERS_PER_WORD, AnsweredUsers
from firstspin.watch.tally import AnswerTally

SUNDAY = datetime(2026, 2, 1, 23, 59, tzinfo=UTC)
MONDAY = SUNDAY + timedelta(minutes=1)
WEEK = timedelta(weeks=1)


def test_a_user_counts_once_in_two_weeks() -> None:
    users = AnsweredUsers(64)
    assert users.is_first("anna", SUNDAY)
    assert users.is_first("0042", SUNDAY)
    assert users.is_first("42", SUNDAY)
    assert not users.is_first("anna", SUNDAY)
    assert not users.is_first("anna", MONDAY)
    assert not users.is_first("anna", MONDAY + WEEK)  # answered each week
    assert users.is_first("42", MONDAY + WEEK)
    assert users.is_first("42", MONDAY + 10 * WEEK)
    assert users.is_first("bert", MONDAY + 10 * WEEK)
    assert not users.is_first("bert", MONDAY + 9 * WEEK)  # a clock that is set back


def test_few_new_users_are_left_out_even_between_two_full_weeks() -> None:
    users = AnsweredUsers(1 << 11)
    full = USERS_PER_WORD << 11
    weeks = [sum(users.is_first(f"{week} {i}", MONDAY + week * WEEK) for i in range(full)) for week in range(3)]
    assert weeks[0] > 0.99 * full
    assert min(weeks[1:]) > 0.98 * full
    assert not any(users.is_first(f"2 {i}", MONDAY + 2 * WEEK) for i in range(full))


def test_users_beyond_what_the_filter_takes_count_each_time() -> None:
    users = AnsweredUsers(8)
    for i in range(1_000):
        users.is_first(str(i), MONDAY)
    counted = [sum(users.is_first(f"late {i}", MONDAY) for i in range(1_000)) for _ in range(2)]
    assert counted[0] == counted[1] > 500


def decision(source: Source = "model") -> Decision:
    return Decision(Ranking(("Rock", "Pop"), (0.6, 0.4), source), "3f2a9c1b")


def counted(tally: AnswerTally) -> tuple[int, int]:
    """Answers, and registrations whose inputs were counted."""
    report = tally.due(closing=True)
    inputs = [one.columns["registrations"]["all"] for one in report.inputs] if report else []
    return total(report), sum(inputs)


def total(day: DayCounts | None) -> int:
    return sum(one.answers for one in day.answers if one.cell.top == 1) if day else 0


def test_repeated_requests_count_once_where_the_user_is_known(tmp_path: Path) -> None:
    made = pack(tmp_path / "b", inputs=InputReference({"registrations": {"all": 1_000}}))
    tally = AnswerTally(lambda: MONDAY, random.Random(0), AnsweredUsers(64))
    one, users = Registration(age=31), [str(i) for i in range(20)]
    for _ in range(3):
        tally.add([one] * 20, [decision()] * 20, made, users)
    assert counted(tally) == (20, 20)
    tally.add([one] * 20, [decision()] * 20, made, users)
    assert counted(tally) == (0, 0)
    for _ in range(3):
        tally.add([one] * 10, [decision()] * 10, made)
        tally.add([one] * 10, [decision()] * 10, made, [None] * 10)
    assert counted(tally) == (60, 60)


@pytest.mark.parametrize(("age", "source"), [(12, "under-age"), (19, "under-age"), (31, "no-model")])
def test_an_answer_that_does_not_count_leaves_its_user_to_the_next_one(
    tmp_path: Path, age: int, source: Source
) -> None:
    """Also above 18, where the service has a higher minimum age: nothing of these users is counted."""
    made = pack(tmp_path / "b", inputs=InputReference({"registrations": {"all": 1_000}}))
    tally = AnswerTally(lambda: MONDAY, random.Random(0), AnsweredUsers(64))
    users = [str(i) for i in range(20)]
    ranking = Ranking((), (), source) if source == "no-model" else Ranking(("Rock",), (1.0,), source)
    tally.add([Registration(age=age)] * 20, [Decision(ranking, "3f2a9c1b")] * 20, made, users)
    assert counted(tally) == (0, 0)
    tally.add([Registration(age=31)] * 20, [decision()] * 20, made, users)
    assert counted(tally) == (20, 20)


def test_whichever_worker_answers_a_user_counts_once(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(KEY.hex() + "\n")
    url = f"sqlite:///{tmp_path / 'events.sqlite'}"
    store = ("--events", url, "--events-secret", str(tmp_path / "secret"))
    with serving(folder, "--workers", "2", *store, *QUICK) as service:
        for i in range(60):  # each on a connection of its own
            body = json.dumps({"user_id": f"user {i % 12}", "age": 31}).encode()
            assert service.ask("POST", "/v1/recommendations", body)[0] == 200
            if i < 15:
                service.recommend(age=31)  # nobody knows of whom
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(30) == 0
    with closing(open_database(url, Secret(KEY))) as database:
        assert sum(total(day) for day in read_counts(database)) == 12 + 15
