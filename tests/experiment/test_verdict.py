from __future__ import annotations

import pyarrow as pa

from firstspin.experiment.analyse import analyse
from firstspin.experiment.outcomes import read_outcomes
from firstspin.experiment.rules import Rules, parse_metric
from firstspin.experiment.verdict import TextTable, signed_percent, verdict_lines


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


def test_a_lift_on_a_control_near_zero_is_a_factor_with_its_reason() -> None:
    sections = lines(
        arm=["rule"] * 4_000 + ["model"] * 4_000,
        clicked=[1] + [0] * 3_999 + [1] * 60 + [0] * 3_940,
        seconds=[1.0, 2.0] * 4_000,
        day=(["2026-02-02"] * 2_000 + ["2026-02-03"] * 2_000) * 2,
    )
    assert sections[1].rows[1][3:5] == ("×60", "+948% to ×344")
    [daily] = [section for section in sections if "cumulative by day" in section.title]
    assert daily.title.endswith("; ×20 is twenty times the control, which is near 0")
    assert all("×" in row[2] and len(row[2]) < 25 for row in daily.rows)
    assert [signed_percent(share) for share in (9.99, 10.0, 998.0, 999.0, -9.0, -20.0)] == [
        "+999%",
        "×11",
        "×999",
        "over ×1,000",
        "-900%",
        "under -1,000%",
    ]
