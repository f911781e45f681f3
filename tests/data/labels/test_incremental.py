"""Labels from a state and new listens equal those of all listens at once: rows, census and counts."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import made_tables
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import failed, firstspin
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from made_listens import START, columns
from made_tables import TWO_STATIONS
from preloaded import preloaded
from small_disk import BALLAST, fill_up, small_disk

from firstspin import api, learn, preflight
from firstspin.data.dataset import Reading, write_labels
from firstspin.data.labels import incremental
from firstspin.data.labels.incremental import GIVEN_TWICE, LATE
from firstspin.records import Census, InputError, LabelRule

Row = tuple[str | None, datetime | None, str | None, float | None]
STATIONS = [*TWO_STATIONS, ("3", "", "Blues"), ("4", "", "Rock")]
RULE = LabelRule(gap_days=3, window_days=5, min_seconds=10)


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def folder(
    place: Path,
    listens: Sequence[Row],
    people: Iterable[tuple[str, datetime]],
    stations: Sequence[Sequence[str]] = STATIONS,
) -> Path:
    """The three tables; the listens are in a file of Parquet."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    rows = [(user, f"{at.isoformat()}Z", "", "", "", "Rock|Blues") for user, at in people]
    made_tables.write(place, "registrations", made_tables.REGISTRATIONS, rows)
    made_tables.write(place, "stations", made_tables.STATIONS, stations)
    columns_of = columns(list(listens)) if listens else {name: of[:0] for name, of in columns([EXAMPLE]).items()}
    pq.write_table(pa.table(columns_of), place / "listens.parquet")
    return place


EXAMPLE: Row = ("a", day(4), "1", 50.0)
PEOPLE = [("a", day(0)), ("b", day(2))]


def labels(path: Path) -> list[tuple[Any, ...]]:
    table = pq.read_table(path, columns=["user_id", "top_genre", "seconds"])
    return list(zip(*table.to_pydict().values(), strict=True))


class Days:
    """A state that is updated, beside all listens so far."""

    def __init__(self, root: Path, reading: Reading, late_days: int) -> None:
        self.root, self.reading, self.late_days = root, reading, late_days
        self.state, self.out, self.all = root / "state", root / "labels.parquet", []

    def take(self, listens: Sequence[Row], people: Iterable[tuple[str, datetime]], now: datetime | None = None) -> Any:
        """Add a day; the census and the counts."""
        self.all += listens
        people = list(people)
        place = folder(self.root / "day", listens, people)
        self.reading, self.people = replace(self.reading, now=now), people
        return incremental.write_labels(place, self.out, self.reading, self.state, self.late_days)

    def at_once(self) -> tuple[Census, dict[str, int]]:
        """The census and the counts of all listens so far, with labels in `full.parquet`."""
        place = folder(self.root / "all", self.all, self.people)
        return write_labels(place, self.root / "full.parquet", self.reading)

    def same(self, taken: Any) -> None:
        assert taken == self.at_once()
        assert pq.read_table(self.out).equals(pq.read_table(self.root / "full.parquet"))


# ------------------------------------------------------------------------------------------------- equal to all at once

EXAMPLES = 4
USERS = [f"u{number}" for number in range(9)]
seconds = st.one_of(st.integers(1, 900).map(float), st.floats(0.01, 900), st.sampled_from([0.1, 0.2, 0.3, 700_000.0]))
listen = st.tuples(
    st.integers(0, 11),  # of the users, and three without a registration
    st.floats(0, 12),  # days after the registration
    st.integers(0, 3),
    seconds,
    st.integers(0, 2),  # days of delay
    st.integers(0, 2),  # copies, which come within two days too
)


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, phases=[Phase.generate])
@given(
    st.lists(st.integers(0, 20), min_size=9, max_size=9),
    st.lists(listen, min_size=12, max_size=80),
    st.sets(st.integers(1, 34), min_size=2, max_size=5),
    st.integers(0, 2),
    st.randoms(use_true_random=False),
)
def test_days_give_the_labels_census_and_counts_of_all_at_once(
    emptied: Callable[[], Path],
    registered: list[int],
    heard: list[tuple[int, float, int, float, int, int]],
    cuts: set[int],
    odd: int,
    rng: random.Random,
) -> None:
    """Late and repeated listens, wrong clocks, bad rows, users who come late, leave or are corrected, other options;
    windows that close; whole and fractional seconds.
    """
    arriving: list[tuple[float, Row]] = []
    for user, after, station, length, delay, copies in heard:
        name, since = (USERS[user], registered[user]) if user < len(USERS) else (f"stranger{user}", 0)
        row = (name, day(since + after), STATIONS[station][0], length)
        arriving += [(since + after + delay * rng.random(), row)] * (1 + copies * (delay > 0))
        arriving += [(since + after + 2 * rng.random(), row)] * (copies if delay == 0 else 0)
    arriving += [(rng.uniform(0, 30), ("u1", day(40_000), "1", 60.0)) for _ in range(odd)]  # a clock of 2135
    arriving += [(rng.uniform(0, 30), (None, day(5), "1", 60.0)) for _ in range(odd)]
    people = [(name, day(since)) for name, since in zip(USERS, registered, strict=True)]
    days = Days(emptied(), Reading(skip_bad_rows=True, rule=RULE), late_days=2)
    gone: set[str] = set()
    moved: dict[str, float] = {}

    def people_at(end: int, moved: dict[str, float]) -> list[tuple[str, datetime]]:
        here = [(name, at) for name, at in people if at < day(end) and name not in gone]
        return [(name, at + timedelta(days=moved.get(name, 0))) for name, at in here]

    for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), 50], strict=True):
        rows = [row for at, row in arriving if begin <= at < end]
        before, moved = moved, moved | dict.fromkeys(rng.sample(USERS, odd), 0.5)  # corrected registrations
        here = people_at(end, moved)
        ends = day(end - 6) if rng.random() < 0.2 else None
        rule = replace(RULE, min_seconds=rng.choice([10, 300]), data_ends=ends)
        days.reading = replace(days.reading, rule=rule)
        if not here or not any(user for user, *_ in rows):  # no day of data: its listens come with the next one
            arriving = [(end if begin <= at < end else at, row) for at, row in arriving]
            continue
        try:
            try:
                taken = days.take(rows, here, now=day(end))
            except InputError as refused:
                if "another registered_at" not in str(refused):
                    raise
                moved = before  # the correction comes too late
                days.all = days.all[: -len(rows)]
                taken = days.take(rows, people_at(end, moved), now=day(end))
        except InputError as refused:  # nearly all listens are of strangers: all at once is refused too
            with pytest.raises(InputError, match=re.escape(str(refused))):
                days.at_once()
            days.all = days.all[: -len(rows)]
            arriving = [(end if begin <= at < end else at, row) for at, row in arriving]
            continue
        if taken[0].labelled:
            days.same(taken)
        gone |= set(rng.sample(USERS, 1)) if odd == 2 else set()


def test_late_and_repeated_listens_count_as_if_they_had_come_in_time(tmp_path: Path) -> None:
    days = Days(tmp_path, Reading(rule=RULE), late_days=3)
    days.take([("a", day(4), "1", 50.0), ("x", day(5), "1", 9.0)], PEOPLE)
    days.take([("b", day(6), "2", 40.0), ("a", day(4), "1", 50.0)], PEOPLE)  # a copy, two days late
    taken = days.take([("a", day(6), "2", 50.5), ("b", day(9), "1", 39.0)], PEOPLE)  # Jazz overtakes, three days late
    days.same(taken)
    assert labels(days.out) == [("a", "Jazz", 100.5)]
    assert [mismatch.count for mismatch in taken[0].mismatches] == [1, 1]  # of x; the copy


def test_listens_that_come_too_late_are_counted_and_left_out(tmp_path: Path) -> None:
    days = Days(tmp_path, Reading(rule=RULE), late_days=1)
    days.take([EXAMPLE, ("b", day(20), "2", 40.0)], PEOPLE)
    days.take([("b", day(21), "2", 40.0)], PEOPLE)
    for total in (1, 2):
        _, ignored = days.take([("a", day(5), "2", 500.0 * total), ("b", day(21.5), "2", 40.0)], PEOPLE)
        assert ignored == {LATE: total}
        assert labels(days.out) == [("a", "Rock", 50.0)]
    old = [("a", day(5) + timedelta(seconds=n), "2", 5.0) for n in range(30)]
    with pytest.raises(InputError, match=r"30 of 30 listens \(listens.parquet\) start before 2026-02-21, up to which"):
        days.take(old, PEOPLE)
    assert days.take([("b", day(22), "2", 40.0)], PEOPLE)[1] == {LATE: 2}


def test_no_label_yet_is_a_file_without_rows_and_a_state(tmp_path: Path) -> None:
    days = Days(tmp_path, Reading(rule=RULE), late_days=1)
    census, _ = days.take([("a", day(0.5), "1", 50.0)], PEOPLE)
    assert (census.labelled, census.registered, labels(days.out)) == (0, 2, [])
    assert days.take([EXAMPLE, ("b", day(9), "1", 50.0)], PEOPLE)[0].labelled == 1


def test_a_file_given_twice_counts_once(tmp_path: Path) -> None:
    """A run that is repeated gives the same labels: a scheduler may try it again."""
    days = Days(tmp_path, Reading(rule=RULE), late_days=9)
    first = days.take([EXAMPLE, ("b", day(9), "1", 50.0)], PEOPLE)
    place = days.root / "day"
    again = incremental.write_labels(place, days.out, days.reading, days.state)
    assert again == (first[0], {GIVEN_TWICE: 1})
    days.same((again[0], {}))


def test_only_the_new_files_of_a_folder_are_read(tmp_path: Path) -> None:
    """A folder that grows by a file a day; the old ones may be removed, and are not opened."""
    place = folder(tmp_path / "data", [EXAMPLE], PEOPLE)
    (place / "listens").mkdir()
    (place / "listens.parquet").rename(place / "listens" / "1.parquet")
    out, state, reading = tmp_path / "out.parquet", tmp_path / "state", Reading(rule=RULE)
    incremental.write_labels(place, out, reading, state)
    old = place / "listens" / "1.parquet"
    stat = old.stat()
    old.write_bytes(bytes(stat.st_size))  # no Parquet any more, but of the same size and time
    os.utime(old, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    pq.write_table(pa.table(columns([("b", day(9), "2", 60.0)])), place / "listens" / "2.parquet")
    census, ignored = incremental.write_labels(place, out, reading, state)
    assert (census.labelled, ignored, labels(out)) == (1, {}, [("a", "Rock", 50.0)])
    old.unlink()
    shutil.copyfile(place / "listens" / "2.parquet", place / "listens" / "3.parquet")
    assert incremental.write_labels(place, out, reading, state) == (census, {GIVEN_TWICE: 1})
    for part in ("4", "5"):  # as Spark writes them
        pq.write_table(pa.table(columns([EXAMPLE])).slice(1), place / "listens" / f"{part}.parquet")
    assert incremental.write_labels(place, out, reading, state) == (census, {GIVEN_TWICE: 1})  # 3.parquet
    pq.write_table(pa.table(columns([("b", day(9), "2", 61.0)])), place / "listens" / "2.parquet")
    with pytest.raises(InputError, match=r"listens/2.parquet has changed since the state has its listens: give new"):
        incremental.write_labels(place, out, reading, state)


def test_erased_users_leave_the_state(tmp_path: Path) -> None:
    people = [("a", day(0)), ("erased-user", day(1)), ("c", day(2))]
    days = Days(tmp_path, Reading(rule=RULE), late_days=1)
    rows: list[Row] = [
        ("erased-user", day(5), "1", 50.0),
        ("a", day(5), "1", 50.0),
        ("erased-user", day(12), "1", 50.0),
    ]
    days.take([*rows, ("gone-user", day(5), "2", 70.0)], people)
    reading = Reading(rule=RULE, erased=lambda users: [user for user in users if user in ("erased-user", "gone-user")])
    days.reading = reading
    place = folder(tmp_path / "next", [("c", day(13), "1", 50.0)], people)
    census, ignored = incremental.write_labels(place, days.out, reading, days.state, 1)
    assert (census.registered, census.labelled, ignored) == (2, 1, {"users who were erased": 1})
    assert labels(days.out) == [("a", "Rock", 50.0)]
    for path in days.state.glob("*.parquet"):
        assert not {"erased-user", "gone-user"} & set(pq.read_table(path).to_pydict().get("user_id", []))


def test_listens_of_users_who_register_leave_or_return_later_count_as_all_at_once(tmp_path: Path) -> None:
    """Listens before a registration are those of a stranger until it comes; a registration without any may be late."""
    days = Days(tmp_path, Reading(rule=RULE), late_days=1)
    strangers: list[Row] = [("later", day(1), "1", 50.0), ("x", day(1), "1", 50.0)]
    days.take([EXAMPLE, *strangers, ("b", day(6), "2", 50.0), ("a", day(20), "1", 50.0)], PEOPLE)
    taken = days.take([("b", day(21), "2", 50.0)], PEOPLE)
    days.same(taken)
    assert [mismatch.example for mismatch in taken[0].mismatches] == ["user_id later"]
    here = [*PEOPLE, ("later", day(18)), ("silent", day(3))]  # silent: its window opened before all that is summed
    days.same(days.take([("later", day(22), "2", 50.0)], here))
    taken = days.take([("b", day(24), "2", 50.0)], [PEOPLE[1], *here[2:]])
    days.same(taken)
    assert (taken[0].registered, [mismatch.count for mismatch in taken[0].mismatches]) == (3, [3])  # x; a has left
    gone = {"x", "silent"}
    days.reading = Reading(rule=RULE, erased=lambda users: [user for user in users if user in gone])
    taken = days.take([("later", day(25), "1", 5.0)], [PEOPLE[1], *here[2:]])
    assert (taken[0].registered, [mismatch.count for mismatch in taken[0].mismatches]) == (2, [2])
    message = refused(days, folder(days.root / "returned", [("b", day(26), "2", 50.0)], PEOPLE))
    assert "1 registrations are new or have another registered_at" in message
    assert "(user_id a)" in message


def test_days_without_listens_are_no_copies_of_each_other(tmp_path: Path) -> None:
    days = Days(tmp_path, Reading(rule=RULE), late_days=1)
    days.take([EXAMPLE, ("b", day(9), "1", 50.0)], PEOPLE)
    for _ in range(2):
        days.same(days.take([], PEOPLE))


def test_the_state_has_single_listens_of_the_late_days_alone(tmp_path: Path) -> None:
    """Of other listens it has a row per user and genre of those in windows, however many there are."""
    days, sizes = Days(tmp_path, Reading(rule=RULE), late_days=2), []
    for number in range(7):
        rows = [("a", day(number + n / 200), "1", 1.0) for n in range(200)]
        days.take(rows, [*PEOPLE, ("c", day(6))])
        tables = {path.name: len(pq.read_table(path)) for path in days.state.glob("*.parquet")}
        sizes.append(sum(n for name, n in tables.items() if name.startswith("recent")))
    assert sizes == [200, 400, 600, 800, 1000, 600, 800]  # the file of a day stays until half of them are summed
    assert {name: n for name, n in tables.items() if not name.startswith(("closed", "listeners", "strangers"))} == {
        "recent.6.parquet": 600,
        "recent.7.parquet": 200,
        "sums.7.parquet": 1,
        "users.7.parquet": 3,
        "days.7.parquet": 7,
        "heard.7.parquet": 1,
    }


def parts(days: Days) -> dict[str, tuple[int, int]]:
    """The files of closed users, with their inode and number of rows."""
    paths = sorted(days.state.glob("closed.*"))
    return {path.name: (path.stat().st_ino, pq.read_metadata(path).num_rows) for path in paths}


def test_closed_users_stay_in_files_that_are_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The window of a ends on the 8th day, that of b on the 10th, that of c on the 12th."""
    days, people = Days(tmp_path, Reading(rule=RULE), late_days=1), [("c", day(4)), *PEOPLE]
    days.take([EXAMPLE, ("b", day(6), "2", 5.0), ("b", day(6), "2", 5.0), ("a", day(8.5), "2", 90.0)], people)
    days.same(days.take([("b", day(9.5), "1", 40.5), ("c", day(9.5), "1", 40.0)], people))
    first = parts(days)
    assert [n for _, n in first.values()] == [0, 1]  # a
    days.same(days.take([("c", day(11.5), "2", 41.0), ("x", day(11.6), "2", 41.0)], people))
    second = parts(days)
    assert [n for _, n in second.values()] == [0, 1, 1]
    assert second.items() > first.items()  # the same inodes
    assert {path.name for path in days.state.glob("sums.*")} == {"sums.3.parquet"}
    assert pq.read_table(days.state / "sums.3.parquet")["user_id"].to_pylist() == ["c"]

    people = [people[1], people[0], people[2], ("d", day(9))]  # another order, and options that close no user
    for at, rule in enumerate((replace(RULE, min_seconds=50.5), replace(RULE, data_ends=day(9)))):
        days.reading = Reading(rule=rule)
        days.same(days.take([("d", day(12.5 + at / 10), "1", 30.0)], people))
    assert parts(days).items() > second.items()

    days.reading = Reading(rule=RULE)
    days.same(days.take([("d", day(12.7), "1", 30.0)], people[1:]))  # a has left: the parts are written anew
    assert [n for _, n in parts(days).values()] == [1]
    days.same(days.take([("d", day(16), "1", 30.0)], people[1:]))
    assert [n for _, n in parts(days).values()] == [1, 1]  # c
    monkeypatch.setattr(incremental, "_MAX_PARTS", 2)
    days.same(days.take([("d", day(18.5), "1", 30.0)], people[1:]))
    assert [n for _, n in parts(days).values()] == [3]


# -------------------------------------------------------------------------------------------- a state that does not fit


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Days:
    """A state that is summed up to the 19th day, and that nobody changes."""
    made = Days(tmp_path_factory.mktemp("made"), Reading(rule=RULE), late_days=1)
    made.take([EXAMPLE, ("x", day(4), "2", 9.0), ("b", day(20), "2", 40.0)], PEOPLE)
    made.take([("b", day(20.5), "2", 41.0)], PEOPLE)
    return made


@pytest.fixture
def days(made: Days, tmp_path: Path) -> Days:
    """A copy of it."""
    shutil.copytree(made.root, tmp_path, dirs_exist_ok=True)
    copy = Days(tmp_path, made.reading, made.late_days)
    copy.all += made.all
    return copy


def refused(days: Days, place: Path, reading: Reading | None = None) -> str:
    """The message, after which the state takes the next day as if nothing had been."""
    before = {path.name: path.read_bytes() for path in days.state.iterdir()}
    with pytest.raises(InputError) as problem:
        incremental.write_labels(place, days.out, reading or days.reading, days.state, 1)
    assert {path.name: path.read_bytes() for path in days.state.iterdir()} == before
    return str(problem.value)


def test_a_state_of_other_tables_is_refused(days: Days) -> None:
    rows: list[Row] = [("b", day(21), "1", 40.0)]
    others = [PEOPLE[0], ("b", day(1)), ("x", day(0))]
    message = refused(days, folder(days.root / "corrected", rows, others))
    assert "does not match the tables: 1 registrations are new or have another registered_at" in message
    assert "(user_id x): remove the folder of the state, and give all listens again" in message
    assert "(user_id a)" in refused(days, folder(days.root / "moved", rows, [("a", day(1)), PEOPLE[1]]))
    renamed = [("1", "", "Pop"), *STATIONS[1:]]
    message = refused(days, folder(days.root / "renamed", rows, PEOPLE, renamed))
    assert "a station of its sums has another genre now (station_id 1: Rock, Pop)" in message
    message = refused(days, folder(days.root / "missing", rows, PEOPLE, [STATIONS[0]]))
    assert "a station of its listens is not in the stations (station_id 2)" in message
    message = refused(days, folder(days.root / "rule", rows, PEOPLE), Reading(rule=LabelRule(3, 6)))
    assert "has the sums of --gap-days 3 --window-days 5: give these, or remove the folder" in message
    late = [*PEOPLE, ("new", day(17))]  # its window opens after all that is summed
    days.same(days.take([*rows, ("new", day(20.2), "1", 20.0)], late))


@pytest.mark.parametrize("name", ["sums.2.parquet", "closed.1.parquet", "manifest.json"])
def test_a_changed_state_is_refused(days: Days, name: str) -> None:
    place = folder(days.root / "next", [EXAMPLE], PEOPLE)
    path = days.state / name
    content = path.read_bytes()
    damaged = content.replace(b'"late":', b'"late":1') if name == "manifest.json" else content[:-1]
    for bad in (damaged, b"", b'{"sha256": "", "state": {"format": 7}}'):
        path.write_bytes(bad)
        message = refused(days, place)
        assert f"{days.state}" in message
        assert "remove the folder of the state, and give all listens again" in message
    assert ("format 7" in message) == (name == "manifest.json")
    path.unlink()
    assert f"{name}" in refused(days, place)


def test_files_of_a_state_may_be_links_to_a_store(days: Days) -> None:
    """Tools that version data move files to a store, and link them."""
    for path in days.state.glob("*.parquet"):
        path.rename(days.root / path.name)
        path.symlink_to(days.root / path.name)
    days.same(days.take([("b", day(21), "1", 40.0)], PEOPLE))
    assert not any(path.is_symlink() for path in days.state.iterdir())


# ----------------------------------------------------------------------------------------------- the command, in Python


def test_in_python_tables_in_memory_are_added_to_a_state(days: Days) -> None:
    place = folder(days.root / "next", [("b", day(5.5), "1", 40.0)], PEOPLE)
    tables = {"registrations": place / "registrations.csv", "stations": place / "stations.csv"}
    listens = pq.read_table(place / "listens.parquet").set_column(1, "started_at", pa.array([day(21)]))
    labelled = api.label(tables | {"listens": listens}, rule=RULE, state=days.state, late_days=1)
    assert labelled.table["user_id"].to_pylist() == ["a"]
    assert labelled.census.data_ends == day(21)


def command(days: Days, place: Path) -> list[str]:
    rule = ["--gap-days", "3", "--window-days", "5", "--least-seconds", "10", "--late-days", "1"]
    return ["label", "--data", str(place), "--out", str(days.out), "--state", str(days.state), *rule]


def test_the_command_updates_a_state(days: Days) -> None:
    place = folder(days.root / "next", [("b", day(21), "1", 40.0), ("a", day(5), "2", 90.0)], PEOPLE)
    shown = firstspin(*command(days, place)).stdout
    assert "ignored 1: listens that start before those already summed (--late-days)" in " ".join(shown.split())
    assert labels(days.out) == [("a", "Rock", 50.0)]
    assert days.state.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in days.state.iterdir()} == {0o600}
    wrong = firstspin("label", "--data", place, "--out", "x.parquet", "--late-days", "1")
    assert (wrong.returncode, "--state says of which listens" in wrong.stderr) == (2, True)


def test_what_a_state_can_not_be_is_refused_before_any_work(days: Days) -> None:
    place = folder(days.root / "next", [("b", day(21), "1", 40.0)], PEOPLE)
    with pytest.raises(InputError, match="leave out --listens and --engine spark"):
        learn.label(place, days.out, days.reading, listens="duckdb://x.db", state=days.state)
    with pytest.raises(InputError, match=r"is not a state of `firstspin label`: it has no manifest.json; name another"):
        learn.label(place, days.out, days.reading, state=days.root / "day")
    for inside in (place, place / "listens", place / "listens" / "state", place.parent):
        with pytest.raises(InputError, match=r"holds the tables; name another folder for the state"):
            learn.label(place, days.out, days.reading, state=inside)
    with pytest.raises(InputError, match=r"inside.parquet is inside the state"):
        learn.label(place, days.state / "inside.parquet", days.reading, state=days.state)
    with pytest.raises(InputError, match=r"labels.parquet is a file; name a folder for the state"):
        learn.label(place, days.root / "x.parquet", days.reading, state=days.out)


DIES_AT_EACH_RENAME = """
import os, signal, sys
import duckdb, ibis.backends.duckdb, pyarrow.parquet  # once, and not in each child
from pathlib import Path
from firstspin import learn
from firstspin.data.dataset import Reading
from firstspin.records import LabelRule

data, *roots = map(Path, sys.argv[1:])
for step, root in enumerate(roots, 1):
    child = os.fork()
    if not child:
        os.environ["DIES_AT"] = str(step)
        reading, state = Reading(rule=LabelRule(3, 5, 10)), root / "state"
        learn.label(data, root / "labels.parquet", reading, state=state, late_days=1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, step
"""


def test_a_killed_run_leaves_the_state_before_or_after_it(days: Days) -> None:
    """Whatever a killed run leaves, the same run then gives the labels."""
    library = preloaded("dies_at", days.root)
    place = folder(days.root / "next", [("b", day(25), "1", 40.0)], [*PEOPLE, ("c", day(16))])
    days.take([], [*PEOPLE, ("c", day(16))])
    roots = [days.root / "before the state is renamed", days.root / "before the labels are"]
    for root in roots:
        shutil.copytree(days.state, root / "state")
    kill = {"LD_PRELOAD": str(library), "DIES_IN": "rename"}
    subprocess.run([sys.executable, "-c", DIES_AT_EACH_RENAME, place, *roots], env=os.environ | kill, check=True)
    earlier = (days.state / "manifest.json").read_bytes()
    assert [(root / "state" / "manifest.json").read_bytes() == earlier for root in roots] == [True, False]
    for root in roots:
        assert not (root / "labels.parquet").exists()
        census, _ = incremental.write_labels(place, root / "labels.parquet", days.reading, root / "state", 1)
        assert (census.data_ends, census.registered) == (day(25), 3)


def test_a_state_that_a_killed_run_had_moved_aside_comes_back(days: Days) -> None:
    """File systems without an exchange take two renames: between them there is no folder of the state."""
    aside = days.root / ".state.0.partial"
    aside.mkdir()
    days.state.rename(aside / "replaced")
    days.same(days.take([("b", day(21), "1", 40.0)], PEOPLE))
    assert not aside.exists()


def test_a_full_disk_leaves_the_state(days: Days, tmp_path: Path) -> None:
    place = folder(tmp_path / "next", [("b", day(21), "1", 40.0)], PEOPLE)
    with small_disk(tmp_path / "disk", 1) as disk:
        shutil.copytree(days.state, disk / "state")
        fill_up(disk)
        run = ["label", "--data", place, "--out", days.out, "--state", disk / "state", *command(days, place)[-8:]]
        assert f"{disk / 'state'} can't be written: not enough space" in failed(*run)
        (disk / BALLAST).unlink()
        assert firstspin(*run).returncode == 0
        assert {path.name for path in disk.iterdir()} == {"state"}


def test_a_full_temporary_folder_is_named(days: Days, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On another disk than the state, which is copied there."""
    place = folder(tmp_path / "next", [("b", day(21), "1", 40.0)], PEOPLE)
    with small_disk(tmp_path / "disk", 1) as disk:
        fill_up(disk)
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        assert "state can't be read: not enough space; TMPDIR names the folder" in refused(days, place)


def test_two_runs_at_once_are_refused(days: Days) -> None:
    place = folder(days.root / "next", [("b", day(21), "1", 40.0)], PEOPLE)
    for state in (days.state, days.root / "first"):
        days.state = state
        with incremental.held(state):
            for _ in range(2):  # the first refused run leaves the folder of a first run, and its lock, in place
                assert "is in use by another run of `firstspin label`: run it again after that" in refused(days, place)


@pytest.mark.parametrize("late_days", [-1, 3651, 10**10])
def test_other_late_days_are_refused(days: Days, late_days: int) -> None:
    """A negative number would sum up days that are not there yet."""
    with pytest.raises(InputError, match="listens may be late by 0 to 3650 days"):
        learn.label(days.root / "day", days.out, days.reading, state=days.state, late_days=late_days)


def test_a_mount_point_is_refused_before_any_work(days: Days, tmp_path: Path) -> None:
    place = folder(tmp_path / "next", [("b", day(21), "1", 40.0)], PEOPLE)
    with small_disk(tmp_path / "disk", 1) as disk:
        with pytest.raises(InputError, match=r"disk is a mount point, which no rename can replace; name a folder in"):
            learn.label(place, days.out, days.reading, state=disk)
        with pytest.raises(InputError, match=r"disk is a mount point"):
            preflight.bundle(disk, place)
