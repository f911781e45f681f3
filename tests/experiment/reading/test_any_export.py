"""A/B exports as people have them: totals, counts, event logs and odd spellings give the verdict of the clean rows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from firstspin.data.formats.written_values import Spelling
from firstspin.experiment.rules import Rules, parse_metric
from firstspin.experiment.run import Layout, analyse_table
from firstspin.experiment.verdict import Verdict
from firstspin.records import InputError

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = ("2026-02-02", "2026-02-03", "2026-02-04")
COUNTS = {("A", DAYS[0]): (400, 30), ("A", DAYS[1]): (600, 70), ("B", DAYS[0]): (500, 80), ("B", DAYS[2]): (500, 90)}
"""Users and clicks by arm and day."""

DATA = Path(__file__).parents[4] / "shared" / "data"
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str, encoding: str = "utf-8") -> Path:
        path = tmp_path / "export.csv"
        path.write_text(text, encoding=encoding)
        return path

    return written


def verdict(path: Path, *metrics: str, weights: dict[str, float] | None = None, **layout: object) -> Verdict:
    """The verdict with the control A; `metrics` as on the command line."""
    rules = Rules(control="A", metrics=tuple(map(parse_metric, metrics)), weights=weights or {})
    return analyse_table(path, rules, Layout(**layout), now=NOW)


def as_rows() -> str:
    rows = [f"{arm},{day},{int(i < clicks)}" for (arm, day), (n, clicks) in COUNTS.items() for i in range(n)]
    return "\n".join(["arm,day,clicks", *rows, ""])


def as_json(found: Verdict) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(found, warnings=()))


def test_counts_give_the_verdict_of_the_rows(write: Write) -> None:
    by_rows = verdict(write(as_rows()), "clicks:binary")
    by_day = "arm,day,users,clicks\n" + "".join(f"{a},{d},{n},{c}\n" for (a, d), (n, c) in COUNTS.items())
    counted = verdict(write(by_day), counts=("arm", "users", "clicks"))
    assert as_json(counted) == as_json(by_rows)
    assert counted.users == {"A": 1_000, "B": 1_000}
    assert counted.sentence.startswith("B wins: B's clicks 10.0% to 17.0%, +70.0% ")
    daily = as_json(verdict(write(by_day), counts=("arm", "users", "clicks"), day="day"))
    assert daily == as_json(verdict(write(as_rows()), "clicks:binary", day="day"))


def test_counts_come_with_a_total_a_byte_order_mark_and_thousands(write: Write) -> None:
    expected = as_json(verdict(write("arm,users,clicks\nA,1000,100\nB,1000,170\n"), counts=("arm", "users", "clicks")))
    for text in (
        "\ufeffarm;users;clicks\nA;1.000;100\nB;1.000;170\nTotal;2.000;270\n;;\n",
        'arm,users,clicks\nA ,"1,000",100\nb,600,70\nB,400,100\nGrand total,"2,000",270\n',
    ):
        assert as_json(verdict(write(text), counts=("arm", "users", "clicks"))) == expected


@pytest.mark.parametrize(
    "rows",
    [
        "All,2000,270\nA,1000,100\nB,1000,170\n",
        "A,1000,100\nB,1000,170\nInsgesamt,2000,270\n",
        "A,1000,100\nB,1000,170\nTOTAL:,2000,270\n",
        "A,1000,100\nB,1000,170\nAlle Nutzer,2000,270\nGesamt:,2000,270\n",
        "A,1000,100\nTutti,2000,270\nB,1000,170\n",
        "A,1000,100\nB,1000,170\n,2000,270\n",
        "A,1000,100\nB,1000,170\nTutti,2000,\n",
        "A,1000,100\nB,1000,170\n,,\nSource: Tableau,,\n",
        "A,1000,100\nB,1000,170\nTotal,2000,270\n,,\nSource: Tableau,,\n",
    ],
)
def test_a_total_or_a_note_of_counts_is_excluded_with_a_warning(rows: str, write: Write) -> None:
    found = verdict(write(f"arm,users,clicks\n{rows}"), counts=("arm", "users", "clicks"))
    assert found.users == {"A": 1_000, "B": 1_000}
    assert any(warning.startswith("Row") and warning.endswith("excluded.") for warning in found.warnings)


def test_an_arm_is_no_total_where_it_is_named_or_its_outcomes_differ(write: Write) -> None:
    counts = ("arm", "users", "clicks")
    double = write("arm,users,clicks\nA,1000,100\nB,1000,170\nC,2000,269\n")
    assert verdict(double, counts=counts).users == {"A": 1_000, "B": 1_000, "C": 2_000}
    everyone = write("arm,users,clicks\nB,1000,100\nC,1000,170\nall,2000,270\nA,1000,90\n")
    weights = {"A": 1.0, "B": 1.0, "C": 1.0, "all": 2.0}
    assert verdict(everyone, counts=counts, weights=weights).users["all"] == 2_000
    arm = write("arm,clicked\n" + "A,1\nA,0\n" * 20 + "all,1\nall,0\n" * 20)
    assert verdict(arm, "clicked").users == {"A": 40, "all": 40}


def test_a_total_or_a_note_among_users_is_excluded_with_a_warning(write: Write) -> None:
    users = "".join(f"{name},{i % 3 // 2}\n" for name in "AB" for i in range(30))
    text = f"arm,clicked\nAlle Nutzer:,0\n{users}TOTAL:,1\nGesamt,1\n,\nSource: Tableau,\n,\n"
    found = verdict(write(text), "clicked")
    assert found.users == {"A": 30, "B": 30}
    assert found.warnings[-4:] == (
        "Row 65 ('Source: Tableau') is a note below the table and is excluded.",
        "Row 63, the last one, is a total and is excluded.",
        "Row 62, the last one, is a total and is excluded.",
        "Row 1, the first one, is a total and is excluded.",
    )


def test_a_blank_count_is_missing_and_a_margin_may_be_given(write: Write) -> None:
    text = "arm,day,users,clicks,buys\nA,1,500,50,5\nA,2,500,60,\nB,1,500,90,4\nB,2,500,80,\n"
    found = verdict(write(text), "clicks", "buys:margin=0.05", counts=("arm", "users", "clicks", "buys"))
    assert [arm.missing for arm in found.metrics[1].arms] == [500, 500]
    assert "a loss of up to" in found.sentence
    assert found.decision == "guardrail not kept"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("A,10,11\nB,10,1\n", "export.csv row 1: clicks is more than users; each user counts once"),
        ("A,10,1.5\nB,10,1\n", "row 1: clicks is not a whole number of users"),
        ("A,10,10%\nB,10,1\n", "row 1: clicks is not a whole number of users"),
        ('A,10,"9,8%"\nB,10,1\n', "row 1: clicks is not a whole number of users; a rate is none"),
        ('A,10,"0,098"\nB,10,1\n', "row 1: clicks is not a whole number of users; a rate is none"),
        (
            "A,10,1\nB,10,1\n\nSource: Tableau\nPage 1\n",
            "row 3 has 1 cells .*: if it is a note below the table, delete it",
        ),
        ("A,10,1\nB,10,1\nSource: X,,\n", "row 3: users is missing; if the row is a note below the table, delete it"),
        ("A,10,1\nB\nC,10,1\n", "row 2 has 1 cells instead of 3$"),
        ("A,10,-1\nB,10,1\n", "row 1: clicks is not a whole number of users"),
        ("A,,1\nB,10,1\n", "row 1: users is not a whole number of users"),
        ("A,10,x\nB,10,1\n", "row 1: clicks 'x' is not a finite number"),
        ("A,10,1\n,10,1\n", "row 2: arm is missing"),
        ("A,0,0\nB,0,0\n", "users adds up to 0; expected 1 to"),
        ("A,10,1\nB,9000000000,1\n", "users adds up to 9,000,000,010; expected 1 to"),
        ("A,10,1\n", "the only arm is 'A'; a comparison needs at least two arms"),
        ("", "users adds up to 0"),
    ],
)
def test_counts_that_can_not_be_are_named(rows: str, words: str, write: Write) -> None:
    with pytest.raises(InputError, match=words):
        verdict(write(f"arm,users,clicks\n{rows}"), counts=("arm", "users", "clicks"))


def test_counts_have_no_means(write: Write) -> None:
    with pytest.raises(InputError, match="revenue: counts give the binary metrics clicks only; a mean needs one row"):
        verdict(write("arm,users,clicks\n"), "revenue:continuous", counts=("arm", "users", "clicks"))
    with pytest.raises(InputError, match="expected different columns of arm, users and outcomes"):
        verdict(write("arm,users,clicks\n"), counts=("arm", "users"))


EVENTS = """user,arm,event,time,value
u1,A,exposure,02/05/2026 10:00 AM,
u1,,click,02/05/2026 10:05 AM,
u1,,listen,02/05/2026 11:00 PM,"1,200.5"
u1,,listen,02/06/2026 10:00 AM,99.5
u2,A,exposure,02/13/2026 10:00 AM,
u3,B,exposure,02/06/2026 10:00 AM,
u3,B,click,02/06/2026 9:00 AM,
u3,B,listen,02/07/2026 9:00 AM,20
u4,B,exposure,02/06/2026 10:00 AM,
u4,B,click,02/08/2026 9:00 AM,
u4,B,click,02/08/2026 9:01 AM,
u5,B,click,02/08/2026 9:00 AM,
u6,A,exposure,02/08/2026 9:00 AM,
u6,B,exposure,02/08/2026 9:05 AM,
"""


def test_an_event_log_becomes_a_row_per_user(write: Write) -> None:
    log = {"log": ("user", "event", "time", "value"), "exposure": "exposure"}
    found = verdict(write(EVENTS), "click", "listen", "listen:binary", "click:continuous", **log)
    assert found.users == {"A": 2, "B": 2}
    assert [measured.metric for measured in found.metrics] == ["click", "listen", "listen (any)", "click (sum)"]
    means = [[arm.mean for arm in measured.arms] for measured in found.metrics]
    assert means == [[0.5, 0.5], [650.0, 10.0], [0.5, 0.5], [0.5, 1.0]]  # the click before the exposure is none
    assert [str(day.day) for day in found.daily] == ["2026-02-05", "2026-02-06", "2026-02-13"]
    assert found.left_out.in_several_arms == 1
    assert "Users without the event exposure are excluded: 1." in found.warnings


def test_an_event_log_without_exposures_times_or_values(write: Write) -> None:
    text = "user,arm,event\nu1,A,visit\nu1,A,click\nu2,A,visit\nu3,B,visit\nu4,B,visit\nu4,B,click\nu4,B,click\n"
    found = verdict(write(text), "click", "click:continuous", log=("user", "event"))
    assert [[arm.mean for arm in measured.arms] for measured in found.metrics] == [[0.5, 0.5], [0.5, 1.0]]
    assert found.daily == ()
    assert any("name the event that each user has with --exposure" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("metric", "layout", "words"),
    [
        ("clicks", {"log": ("user", "event")}, "has no event clicks; it has click, exposure and listen"),
        ("click", {"log": ("user", "event"), "exposure": "shown"}, "has no event shown, which --exposure names"),
        ("click", {"log": ("user",)}, "expected different columns of user, event, time and value"),
        ("click", {"log": ("user", "name")}, "has no column name"),
        ("click", {"log": ("user", "event", "value")}, "row 1: value is missing"),
    ],
)
def test_an_event_log_that_can_not_be_read_is_named(
    metric: str, layout: dict[str, object], words: str, write: Write
) -> None:
    with pytest.raises(InputError, match=words):
        verdict(write(EVENTS), metric, **layout)


def test_what_stands_in_a_table_is_not_in_a_message_for_a_log(write: Write) -> None:
    for text, metric, layout in (
        (EVENTS, "clicks", {"log": ("user", "event")}),
        ('arm,x\nA,5\nB,"1,234"\n', "x:continuous", {}),
        ("arm,x,on\nA,5,01/02/2026\n", "x:continuous", {"day": "on"}),
        ("arm,users,clicks\nA,5,many\n", "clicks", {"counts": ("arm", "users", "clicks")}),
    ):
        with pytest.raises(InputError) as refused:
            verdict(write(text), metric, **layout)
        assert not any(word in refused.value.bare for word in ("exposure", "1,234", "01/02", "many"))


def test_arms_that_differ_in_case_are_one_and_a_total_is_no_user(write: Write) -> None:
    rows = [f"u{i},{('A', 'a ', ' b', 'B', 'B')[i % 5]},{int(i % 3 == 0)}" for i in range(500)]
    text = "\n".join(["user_id,variant,clicked", *rows, "Total,,167", ",,", ""])
    found = verdict(write(text), "clicked:binary", arm="variant", weights={"A": 2, "B": 3})
    assert found.users == {"A": 200, "B": 300}
    assert [warning for warning in found.warnings if "Arm" in warning or "Row" in warning] == [
        "Row 501, the last one, is a total and is excluded.",
        "Arm a is read as A: they differ only in case.",
        "Arm b is read as B: they differ only in case.",
    ]


def test_a_word_for_a_blank_is_no_arm_unless_it_is_named(write: Write) -> None:
    text = "user,arm,x\n" + "".join(f"u{i},{('A', 'B', 'NULL', '-', 'none')[i % 5]},{i % 2}\n" for i in range(50))
    found = verdict(write(text), "x")
    assert (found.users, found.left_out.without_arm) == ({"A": 10, "B": 10}, 30)
    by_user = verdict(write(text), "x", unit="user")
    assert (by_user.users, by_user.left_out.without_arm) == ({"A": 10, "B": 10}, 30)
    named = verdict(write(text), "x", weights={"A": 1, "B": 1, "none": 1})
    assert (named.users["none"], named.left_out.without_arm) == (10, 20)


def test_a_table_of_counts_read_as_rows_points_to_its_option(write: Write) -> None:
    found = verdict(write("arm,users,clicks\nA,100,10\nB,100,20\n"), "clicks")
    assert any("--counts arm,users,clicks" in warning for warning in found.warnings)


def test_true_and_false_are_read_as_a_spreadsheet_writes_them(write: Write) -> None:
    found = verdict(write("arm;x\nA;WAHR\nA;FALSCH\nB;ja\nB;Nein\nB;VRAI\n"), "x")
    assert (found.metrics[0].kind, [arm.mean for arm in found.metrics[0].arms]) == ("binary", [0.5, 2 / 3])


def test_users_in_several_rows_are_noticed_under_their_usual_names(write: Write) -> None:
    for column in ("user_id", "userid", "User ID", "customer_id"):
        found = verdict(write(f"{column},arm,x\nu1,A,1\nu1,A,1\nu2,B,0\nu3,A,0\n"), "x")
        assert found.left_out.repeated == 1


def test_a_row_without_an_arm_needs_no_valid_values(write: Write) -> None:
    found = verdict(write("arm,x,on\nA,1,2026-02-02\n,n.v.,\nB,0,2026-02-02\nA,0,2026-02-02\n"), "x", day="on")
    assert (found.left_out.without_arm, found.users) == (1, {"A": 2, "B": 1})


@pytest.mark.parametrize("metric", ["x:binary", "x:continuous:margin=0.05", "x:continuous:cap=p99", "x:ratio=x"])
@pytest.mark.parametrize("rows", ["A,1\nB,1\n", "A,0\nB,0\n", "A,5\nB,7\n", "A,\nB,\n", "A,0\nA,0\nB,1\nB,1\nC,1\n"])
def test_the_smallest_exports_have_a_verdict_or_a_sentence(metric: str, rows: str, write: Write) -> None:
    with suppress(InputError):
        found = verdict(write(f"arm,x\n{rows}"), metric)
        assert found.winner is None or found.decision == "winner"
        assert b"NaN" not in msgspec.json.encode(found)


def test_spelled_revenue_in_semicolons_gives_the_verdict_of_plain_numbers(write: Write) -> None:
    numbers = [(("A", "B")[i % 2], 1000.5 + 7 * i + 900 * (i % 2)) for i in range(200)]
    plain = write("arm,x\n" + "".join(f"{arm},{x}\n" for arm, x in numbers))
    expected = as_json(verdict(plain, "x:continuous"))
    german = [f"{x:,.2f}".translate(str.maketrans(",.", ".,")) for _, x in numbers]
    spelled = "".join(f"{arm};{text} €\n" for (arm, _), text in zip(numbers, german, strict=True))
    assert as_json(verdict(write(f"arm;x\n{spelled}"), "x:continuous")) == expected
    us = "".join(f'{arm}\t"${x:,.2f}"\n' for arm, x in numbers)
    assert as_json(verdict(write(f"arm\tx\n{us}", "utf-16"), "x:continuous", spelling=Spelling("point"))) == expected


def test_udacitys_daily_sums_are_read_as_counts(write: Write) -> None:
    folder = DATA / "udacity-free-trial"
    if not folder.exists():
        pytest.skip(f"the real test is not at {folder}")
    lines = [
        f"{arm},{line}"
        for arm in ("control", "experiment")
        for line in (folder / f"{arm}_data.csv").read_text().splitlines()[1:]
    ]
    text = "\n".join(["arm,Date,Pageviews,Clicks,Enrollments,Payments", *lines])
    path, counts = write(text), ("arm", "Clicks", "Enrollments", "Payments")
    rules = Rules(control="control", metrics=())
    found = analyse_table(path, rules, Layout(counts=counts), now=NOW)
    assert found.decision == "control is better"
    points = [measured.beside_control[0].lift.difference for measured in found.metrics]
    assert [100 * point.value for point in points] == pytest.approx([-2.06, -0.49], abs=0.0051)
    assert sum(arm.missing for arm in found.metrics[0].arms) == 22_150  # the outcomes of the last fourteen days
    with pytest.raises(InputError, match="Date 'Sat, Oct 11' is not a date with a year"):
        analyse_table(path, rules, Layout(counts=counts, day="Date"), now=NOW)
