from __future__ import annotations

import pyarrow as pa

from firstspin.experiment.analyse import analyse
from firstspin.experiment.outcomes import read_outcomes
from firstspin.experiment.rules import Rules, parse_metric
from firstspin.experiment.verdict import TextTable, verdict_lines


def lines(**columns: list[object]) -> tuple[TextTable, ...]:
    metrics = (parse_metric("clicked:binary"), parse_metric("seconds:continuous:cap=100:margin=0.05"))
    outcomes = read_outcomes(pa.table(columns), arm="arm", metrics=metrics, day="day")
    return verdict_lines(analyse(outcomes, Rules(control="rule", metrics=metrics)))


def test_the_verdict_reads_as_tables_of_text() -> None:
    sections = lines(
        arm=["rule", "model"] * 500,
        clicked=[0, 0, 0, 1, 1, 1, 0, 0, 0, 0] * 100,
        seconds=[0.0, 20.0, 400.0, 90.0, 0.0, 30.0, 50.0, 0.0, 5.0, 60.0] * 100,
        day=["2026-02-02", "2026-02-02", "2026-02-03", "2026-02-03"] * 250,
    )
    users, clicked, seconds, spread, clickers, daily, weekdays = sections
    assert users.title == "Users by arm: no mismatch (chi-square p = 1.0000)"
    assert clicked.rows == (
        ("rule", "500", "20.000%", "", "", "", "control"),
        ("model", "500", "40.000%", "+100%", "+63.2% to +146%", "< 0.0001", "significant"),
    )
    assert seconds.title == "seconds (guardrail, capped at 100 per user)"
    assert seconds.rows[0][2] == "31"
    assert spread.rows[0] == ("rule", "500", "91", "40.0%", "5", "400", "400", "400")
    assert clickers.title.startswith("seconds among users with clicked")
    assert [row[0] for row in daily.rows] == ["2026-02-02", "2026-02-03"]
    assert [row[0] for row in weekdays.rows] == ["Monday", "Tuesday"]
    for section in sections:
        assert all(len(row) == len(section.columns) for row in section.rows)


def test_what_is_not_known_is_a_dash_with_its_reason() -> None:
    sections = lines(arm=["rule", "model"], clicked=[0, 0], seconds=[None, None], day=["2026-02-02"] * 2)
    assert sections[1].rows[1] == (
        "model",
        "1",
        "0.000%",
        "-",
        "-100% to unbounded",
        "1.0000",
        "the control's mean is 0 or not shown to be above 0: the relative lift is undefined",
    )
    assert sections[2].rows[1][2:] == ("-", "-", "-", "-", "an arm has no users")
