"""`firstspin check`: what is understood and what to fix, of tables made by hand; nothing is written."""

from __future__ import annotations

import json
from pathlib import Path

import made_people
import made_tables
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import firstspin

from firstspin.data.checks.checking import Check, check_tables
from firstspin.data.checks.findings import BadValue, TableProblem
from firstspin.data.column_map import column_map
from firstspin.data.dataset import Reading, read_dataset
from firstspin.records import InputError

DAY = "2025-01-{:02}T00:00:00Z"
HEARD = "2025-02-15T00:00:00Z"
GOOD = ("007", DAY.format(1), "31", "female", "US", "Rock|Jazz")
LISTENS = [("007", HEARD, "1", "900"), ("007", "2025-12-01T00:00:00Z", "2", "60")]


def checked(folder: Path, reading: Reading = Reading()) -> Check:
    return check_tables(folder, reading, lambda _step, _done: None)


def found(check: Check) -> list[tuple[str, str, int, tuple[BadValue, ...]]]:
    return [(one.file, one.field, one.rows, one.examples) for one in check.problems]


def test_it_shows_what_it_understood(tmp_path: Path) -> None:
    header = ("uid", "registered_at", "age", "gender", "genres", "device", "visits", "plan-name", "")
    rows = [
        ("007", DAY.format(1), "31", "", "Rock|Polka", "phone", "3", "x", "0"),
        ("008", DAY.format(3), "", "f", "", "tv", "", "y", "1"),
    ]
    made_tables.tables(tmp_path, [], [*LISTENS, ("x", HEARD, "1", "9")])
    made_tables.write(tmp_path, "registrations", header, rows)
    check = checked(tmp_path, Reading(mapping=column_map("user_id=uid")))
    registrations, listens, stations = check.tables
    assert (registrations.rows, registrations.first, registrations.last) == (2, DAY.format(1), DAY.format(3))
    assert [(one.name, one.header, one.read_as, one.filled) for one in registrations.columns] == [
        ("user_id", "uid", "text", 2),
        ("registered_at", "registered_at", "time", 2),
        ("age", "age", "whole number", 1),
        ("gender", "gender", "text", 1),
        ("genres", "genres", "list of text", 1),
    ]
    assert registrations.unused == ("device", "visits", "plan-name", "")
    assert [(one.name, one.kind, bool(one.problem)) for one in check.further] == [
        ("device", "text", False),
        ("visits", "number", False),
        ("plan-name", "text", True),
    ]
    assert (listens.format, listens.rows, stations.rows, check.genres) == ("CSV", 3, 2, ("Jazz", "Rock"))
    assert {match.what: (match.count, match.of) for match in check.matches} == {
        "registered users have listens": (1, 2),
        "listens are of registered users": (2, 3),
        "listens have a known station": (3, 3),
        "stations have listens": (2, 2),
        "picks are genres of the stations": (1, 2),
    }
    assert check.census is not None
    assert (check.census.labelled, check.census.absent) == (1, ("country",))
    assert check.census.dropped["no listen in the window"] == 1
    assert check.problems == ()


def test_it_goes_on_after_each_problem(tmp_path: Path) -> None:
    registrations = [
        GOOD,
        ("8", "yesterday", "300", "", "", ""),  # two problems in one row
        ("9", DAY.format(2), "-1", "", "", ""),
        GOOD,
    ]
    listens = [*LISTENS, ("007", HEARD, "99", "60"), ("007", HEARD, "1", "0")]
    stations = [*made_tables.TWO_STATIONS, ("3", "Both", "Rock|Jazz")]
    check = checked(made_tables.tables(tmp_path, registrations, listens, stations))
    assert sorted(found(check)) == [
        ("listens.csv", "seconds", 1, (BadValue(4, "0"),)),
        ("listens.csv", "station_id", 1, (BadValue(3, "99"),)),
        ("registrations.csv", "age", 2, (BadValue(2, "300"), BadValue(3, "-1"))),
        ("registrations.csv", "registered_at", 1, (BadValue(2, "yesterday"),)),
        ("registrations.csv", "user_id", 1, (BadValue(4, "007"),)),
        ("stations.csv", "genre", 1, (BadValue(3, "Rock|Jazz"),)),
    ]
    assert all(one.advice and one.option == "--skip-bad-rows" for one in check.problems)
    assert [(table.rows, table.bad_rows) for table in check.tables] == [(1, 3), (2, 2), (2, 1)]
    assert check.census is not None
    assert check.census.labelled == 1


def test_parquet_rows_are_listed_too(tmp_path: Path) -> None:
    made_tables.tables(tmp_path, [GOOD], [])
    (tmp_path / "listens.csv").unlink()
    columns = {"user_id": ["007"] * 3, "started_at": [HEARD] * 3, "station_id": ["1", "9", "1"], "seconds": [9, 9, -1]}
    at = pa.array([HEARD[:-1]] * 3).cast(pa.timestamp("us"))
    pq.write_table(pa.table(columns | {"started_at": at}), tmp_path / "listens.parquet")
    assert [(field, rows, examples[0].row) for _, field, rows, examples in found(checked(tmp_path))[:2]] == [
        ("seconds", 1, 3),
        ("station_id", 1, 2),
    ]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: (data / "listens.csv").unlink(), "has neither listens.parquet nor listens.csv"),
        (lambda data: (data / "stations.csv").write_bytes(b"PK\x03\x04"), "stations.csv is a ZIP archive"),
        (lambda data: (data / "registrations.csv").write_text("a,b\n1,2\n"), "has no column user_id"),
    ],
)
def test_a_table_that_cannot_be_read_leaves_the_others(tmp_path: Path, damage: object, message: str) -> None:
    made_tables.tables(tmp_path, [GOOD, ("8", *GOOD[1:2], "300", "", "", "")], [*LISTENS, ("007", HEARD, "1", "-1")])
    damage(tmp_path)  # type: ignore[operator]
    check = checked(tmp_path)
    assert message in next(one.problem for one in check.problems if not one.rows)
    assert len(check.tables) == 2
    assert check.census is None
    assert len(check.problems) >= 2  # the bad rows of the other tables


def test_columns_that_match_nothing_are_all_listed(tmp_path: Path) -> None:
    registrations = [(f"{n:03}", DAY.format(n), "", "", "", "rock;jazz") for n in range(1, 9)]
    listens = [(str(n), HEARD, "1", "1e9") for n in range(1, 9)]
    check = checked(made_tables.tables(tmp_path, registrations, listens))
    assert [one.field for one in check.problems] == ["user_id", "seconds", "genres", ""]
    assert [one.file for one in check.problems] == ["listens.csv", "listens.csv", "registrations.csv", ""]


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(path): (path.stat().st_mode, path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in [folder, *folder.rglob("*")]
    }


@pytest.mark.parametrize("bad", [False, True])
def test_the_command_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: bool) -> None:
    home = tmp_path / "home"
    data = made_people.tables(home / "data", 60)
    if bad:
        with (data / "listens.csv").open("a") as file:
            file.write("u1,2025-02-05T10:00:00Z,1,-5\n")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.chdir(home)
    before = snapshot(home)
    done = firstspin("check", "--data", data)
    assert done.returncode == int(bad), done.stderr
    assert snapshot(home) == before
    assert not list((tmp_path / "tmp").iterdir())
    assert ("Nothing to fix" in done.stdout) == (not bad)
    assert "\nNext: firstspin train --data" in done.stdout
    assert ("Correct these rows" in done.stdout) == bad
    if bad:
        assert "listens.csv row 62: seconds '-5' is not more than 0" in done.stdout
        assert "--skip-bad-rows" in done.stdout
        assert done.stderr.strip().endswith("1 problem to fix")


def test_json_holds_the_same_for_programs_and_no_values_where_errors_are_bare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = made_tables.tables(tmp_path, [GOOD, ("8", DAY.format(2), "300", "", "", "")], LISTENS)
    answer = json.loads(firstspin("check", "--data", data, "--json").stdout)
    assert (answer["ok"], answer["labels"]["labelled"], answer["labels"]["data_ends"]) == (
        False,
        1,
        "2025-12-01T00:00:00Z",
    )
    assert answer["problems"] == [
        {
            "file": "registrations.csv",
            "field": "age",
            "problem": "is not between 0 and 120",
            "rows": 1,
            "examples": [{"row": 2, "value": "300"}],
            "advice": "correct it, or leave it empty",
            "option": "--skip-bad-rows",
        }
    ]
    monkeypatch.setenv("FIRSTSPIN_BARE_ERRORS", "1")
    bare = firstspin("check", "--data", data, "--json").stdout
    assert json.loads(bare)["problems"][0]["examples"] == [{"row": 2, "value": None}]
    assert "'300'" not in firstspin("check", "--data", data).stdout


def test_names_of_columns_are_printed_without_control_characters(tmp_path: Path) -> None:
    hostile = ("[/red]", "\x1b[31mred", "a\u202eb", "x" * 300)
    made_tables.tables(tmp_path, [], LISTENS)
    made_tables.write(tmp_path, "registrations", (*made_tables.REGISTRATIONS[:4], *hostile, "genres"), [])
    made_tables.write(tmp_path, "stations", (*made_tables.STATIONS, *hostile), [])
    done = firstspin("check", "--data", tmp_path, "--map", f"country={hostile[1]}")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)  # no registration
    assert all(character.isprintable() or character == "\n" for character in done.stdout)
    assert "[/red]" in done.stdout


def test_a_folder_that_is_none_is_one_error(tmp_path: Path) -> None:
    done = firstspin("check", "--data", tmp_path / "none")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip().endswith("is not a folder with registrations, listens and stations")


def test_errors_of_the_other_commands_name_the_option_that_skips(tmp_path: Path) -> None:
    data = made_tables.tables(tmp_path / "data", [GOOD, ("8", DAY.format(2), "300", "", "", "")], LISTENS)
    done = firstspin("label", "--data", data, "--out", tmp_path / "l.parquet")
    assert done.returncode == 1
    assert "--skip-bad-rows drops bad rows and counts them" in done.stderr
    skipped = firstspin("label", "--data", data, "--out", tmp_path / "l.parquet", "--skip-bad-rows")
    assert skipped.returncode == 0
    assert f"Next: firstspin train --data {data} --skip-bad-rows --out bundle" in skipped.stdout


def test_a_mapped_column_is_named_as_in_the_file(tmp_path: Path) -> None:
    made_tables.tables(tmp_path, [], LISTENS)
    header = ("user_id", "registered_at", "Alter", "gender", "country", "genres")
    made_tables.write(tmp_path, "registrations", header, [GOOD, ("8", DAY.format(2), "300", "", "", "")])
    (problem,) = checked(tmp_path, Reading(mapping=column_map("age=Alter"))).problems
    assert isinstance(problem, TableProblem)
    assert (problem.field, problem.label) == ("age", "Alter (age)")


def test_a_table_of_bad_rows_is_dropped_with_the_reason(tmp_path: Path) -> None:
    registrations = [(str(user), "31.12.2024 14:05", "31", "", "", "Rock") for user in range(40)]
    data = made_tables.tables(tmp_path / "data", registrations, LISTENS)
    done = firstspin("label", "--data", data, "--out", tmp_path / "l.parquet", "--skip-bad-rows")
    reason = "registered_at is not an ISO 8601 time"
    assert done.stderr.strip() == f"no training data: registrations.csv: 40 of 40 rows dropped: {reason}"
    good = (GOOD[0], HEARD, *GOOD[2:])  # whose window is after all listens
    made_tables.write(data, "registrations", made_tables.REGISTRATIONS, [good, *registrations])
    done = firstspin("label", "--data", data, "--out", tmp_path / "l.parquet", "--skip-bad-rows", "--gap-days", "400")
    assert done.stderr.strip().endswith(f"; registrations.csv: 40 of 41 rows dropped: {reason}")
    shown = firstspin("check", "--data", data)
    assert "write the time as in 2026-02-05T12:02:03Z" in shown.stdout
    assert "--skip-bad-rows" not in shown.stdout + shown.stderr
    bad_stations = [("1", "Rock FM", ""), ("2", "Jazz FM", "Rock|Jazz")]
    with pytest.raises(InputError) as problem:
        read_dataset(
            made_tables.tables(tmp_path / "stations", [GOOD], LISTENS, bad_stations), Reading(skip_bad_rows=True)
        )
    assert str(problem.value) == (
        "no training data: stations.csv: 2 of 2 rows dropped: genre is missing (1), genre holds a pipe sign, which "
        "separates genres (1); listens.csv: 2 of 2 rows dropped: station_id is not in the stations"
    )


def test_stations_without_a_column_of_names_are_counted(tmp_path: Path) -> None:
    made_tables.tables(tmp_path, [GOOD], LISTENS)
    made_tables.write(tmp_path, "stations", ("station_id", "genre"), [("1", "Rock"), ("2", "Jazz")])
    census = checked(tmp_path).census
    assert census is not None
    assert [kind.line(bare=True) for kind in census.mismatches] == [
        "2 of 2 stations have no name, as there is no column name: their ids are shown (stations.csv)"
    ]
