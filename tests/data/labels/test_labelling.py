"""Labels agree with a slow, plain version of the rule, edge cases included."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import permutations
from pathlib import Path

import made_tables
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstspin.data.ingest import open_tables
from firstspin.data.labels import labelling
from firstspin.data.labels.expressions import NO_LISTEN, NOT_OVER, TOO_LITTLE
from firstspin.data.labels.label_file import read_examples
from firstspin.data.labels.labelling import label_tables
from firstspin.data.schema import ROW
from firstspin.data.sql import identifier
from firstspin.records import InputError, LabelRule

START = datetime(2025, 1, 1)
GENRES = {"1": "Rock", "2": "Jazz", "3": "Blues", "4": "Rock"}
STATIONS = [(station, f"Station {station}", genre) for station, genre in GENRES.items()]
Listen = tuple[str, datetime, str, float]


def rounded(total: float) -> float:
    """A sum to the microsecond, where it has such digits."""
    return round(total, 6) if 1e-3 <= total <= 2**33 else total


def slow_labels(
    registered: dict[str, datetime], listens: Sequence[Listen], rule: LabelRule
) -> dict[str, tuple[str, float] | str]:
    """The rule as a person would apply it: (top genre, seconds) a labelled user, or why there is no label."""
    ends = rule.data_ends or max(started for _, started, _, _ in listens)
    found: dict[str, tuple[str, float] | str] = {}
    for user, at in registered.items():
        opens, closes = at + timedelta(days=rule.gap_days), at + timedelta(days=rule.gap_days + rule.window_days)
        seconds: dict[str, float] = defaultdict(float)
        for who, started, station, heard in set(listens):  # a listen that is there twice counts once
            if who == user and opens <= started < closes:
                seconds[GENRES[station]] += heard
        seconds = {genre: rounded(total) for genre, total in seconds.items()}
        total = rounded(sum(seconds.values()))
        if closes > ends:
            found[user] = NOT_OVER
        elif not seconds:
            found[user] = NO_LISTEN
        elif total < rule.min_seconds:
            found[user] = TOO_LITTLE
        else:
            most = max(seconds.values())
            found[user] = (min(g for g, s in seconds.items() if s == most), float(total))
    return found


def our_labels(
    folder: Path, registered: dict[str, datetime], listens: Sequence[Listen], rule: LabelRule
) -> tuple[dict[str, tuple[str, float]], dict[str, int]]:
    people = [(user, f"{at.isoformat()}Z", "", "", "", "") for user, at in registered.items()]
    heard = [(user, f"{at.isoformat()}Z", station, seconds) for user, at, station, seconds in listens]
    data = made_tables.tables(folder / "data", people, heard, STATIONS)
    out = folder / "labels.parquet"
    census, _ = label_tables(open_tables(data, workspace=folder), rule, out)
    assert census.registered == len(registered)
    rows = pq.read_table(out).to_pylist()
    assert len(rows) == census.labelled
    for row in rows:
        played = {entry["genre"]: entry["seconds"] for entry in row["played"]}
        assert rounded(sum(played.values())) == row["seconds"]
        assert row["top_genre"] == min(genre for genre, of in played.items() if of == max(played.values()))
    return {row["user_id"]: (row["top_genre"], row["seconds"]) for row in rows}, census.dropped


def check(folder: Path, registered: dict[str, datetime], listens: Sequence[Listen], rule: LabelRule) -> None:
    expected = slow_labels(registered, listens, rule)
    labelled = {user: found for user, found in expected.items() if isinstance(found, tuple)}
    if not labelled:
        with pytest.raises(InputError, match=r"no user gets a label|no listen belongs to a registered user"):
            our_labels(folder, registered, listens, rule)
        return
    ours, dropped = our_labels(folder, registered, listens, rule)
    assert ours == labelled
    reasons = list(expected.values())
    assert dropped == {reason: reasons.count(reason) for reason in (NO_LISTEN, TOO_LITTLE, NOT_OVER)}


moments = st.one_of(
    st.sampled_from([timedelta(days=30), timedelta(days=60), timedelta(0), timedelta(days=-1)]),
    st.sampled_from([timedelta(days=30, seconds=-1), timedelta(days=60, seconds=-1), timedelta(days=60, seconds=1)]),
    st.integers(-86_400, 86_400 * 100).map(lambda seconds: timedelta(seconds=seconds)),
)


seconds_heard = st.sampled_from([1, 299, 300, 300.5, 600, 601])
listens_of_anyone = st.tuples(st.integers(0, 6), moments, st.sampled_from(sorted(GENRES)), seconds_heard)


@pytest.mark.parametrize("examples", [15, pytest.param(400, marks=pytest.mark.soak)])
def test_labels_match_the_slow_version(emptied: Callable[[], Path], examples: int) -> None:
    @settings(max_examples=examples)
    @given(
        st.lists(st.integers(0, 40 * 24), min_size=1, max_size=6),
        st.lists(listens_of_anyone, min_size=1, max_size=40),
    )
    def match(starts: list[int], heard: list[tuple[int, timedelta, str, float]]) -> None:
        registered = {f"u{i}": START + timedelta(hours=hours) for i, hours in enumerate(starts)}
        listens = [
            (f"u{who}", registered.get(f"u{who}", START) + after, station, seconds)
            for who, after, station, seconds in heard
        ]
        check(emptied(), registered, listens, LabelRule())

    match()


def labelled_one(tmp_path: Path, listens: Sequence[tuple[timedelta, str, float]], **rule: object) -> object:
    """What one user who registered at START gets."""
    heard = [("u", START + after, station, seconds) for after, station, seconds in listens]
    heard.append(("nobody", START + timedelta(days=100), "1", 1))
    expected = slow_labels({"u": START}, heard, replace(LabelRule(), **rule))  # type: ignore[arg-type]
    check(tmp_path, {"u": START}, heard, replace(LabelRule(), **rule))  # type: ignore[arg-type]
    return expected["u"]


def test_a_listen_at_the_start_of_day_30_counts_and_one_at_day_60_does_not(tmp_path: Path) -> None:
    listens = [(timedelta(days=30), "1", 700), (timedelta(days=60), "2", 9000)]
    assert labelled_one(tmp_path, listens) == ("Rock", 700.0)


def test_a_tie_goes_to_the_alphabetically_first(tmp_path: Path) -> None:
    listens = [(timedelta(days=31), "1", 400), (timedelta(days=32), "2", 400), (timedelta(days=33), "3", 400)]
    assert labelled_one(tmp_path, listens) == ("Blues", 1200.0)


@pytest.mark.parametrize("seconds", [2.0**52 - 2, 2.0**54, 600.5, 0.1, 1e300])
def test_a_tie_is_seen_to_the_microsecond_at_any_seconds(seconds: float, tmp_path: Path) -> None:
    """Whole seconds share a double with the genre's code; fractions, and sums too large for both, must not."""
    jazz, blues = (timedelta(days=32), "2", seconds), (timedelta(days=33), "3", seconds)
    tie = [(timedelta(days=31), "1", seconds), jazz, blues]
    assert labelled_one(tmp_path / "tie", tie, min_seconds=0) == ("Blues", rounded(seconds + seconds + seconds))
    lead = [(timedelta(days=31), "1", max(float(np.nextafter(seconds, 2 * seconds)), seconds + 1e-6)), jazz, blues]
    label = labelled_one(tmp_path / "lead", lead, min_seconds=0)
    assert isinstance(label, tuple)
    assert label[0] == "Rock"


def test_sums_that_no_double_has_give_shares(tmp_path: Path) -> None:
    """A share that is NaN, of one user, would end the training of the trees after a few rounds."""
    huge = [(timedelta(days=31, seconds=n), str(1 + n % 2), 1e308) for n in range(4)]
    assert labelled_one(tmp_path, huge) == ("Jazz", np.inf)
    assert read_examples(tmp_path / "labels.parquet").shares.tolist() == [[1.0]]  # of the genres that are a top genre


def test_fractions_add_up_in_any_order(tmp_path: Path) -> None:
    """In doubles 0.1 + 0.2 + 0.3 is 0.6 or 0.6000000000000001, by the order, and 0.7 + 0.2 + 0.1 is below 1."""
    for order in permutations([0.1, 0.2, 0.3]):
        folder = tmp_path / str(order)
        listens = [(timedelta(days=31, seconds=n), "2", seconds) for n, seconds in enumerate(order)]
        tie = [*listens, (timedelta(days=32), "4", 0.6)]
        assert labelled_one(folder / "tie", tie, min_seconds=1.2) == ("Jazz", 1.2)
    tenths = [(timedelta(days=31, seconds=n), "1", 0.1) for n in range(6000)]
    assert labelled_one(tmp_path / "tenths", tenths) == ("Rock", 600.0)


def test_labels_beside_other_rows_are_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where Python drops its assertions."""
    people = [(user, f"{START.isoformat()}Z", "", "", "", "") for user in ("a", "b")]
    heard = [(user, f"{(START + timedelta(days=31)).isoformat()}Z", "1", 900) for user in ("a", "b")]
    heard.append(("a", f"{(START + timedelta(days=90)).isoformat()}Z", "1", 1))
    tables = open_tables(made_tables.tables(tmp_path / "data", people, heard, STATIONS), workspace=tmp_path)

    def move(*_: object) -> None:
        moved = f"SELECT * FROM registrations ORDER BY {identifier(ROW)} DESC"
        tables.connection.execute(f"CREATE OR REPLACE TABLE registrations AS {moved}")

    monkeypatch.setattr(labelling, "refuse_unlabelled", move)
    with pytest.raises(InputError, match="different orders"):
        label_tables(tables, LabelRule(), tmp_path / "out.parquet")


def test_stations_of_one_genre_add_up(tmp_path: Path) -> None:
    listens = [(timedelta(days=31), "2", 500), (timedelta(days=31), "1", 300), (timedelta(days=31), "4", 300)]
    assert labelled_one(tmp_path, listens) == ("Rock", 1100.0)


def test_ten_minutes_are_enough_and_a_second_less_is_not(tmp_path: Path) -> None:
    assert labelled_one(tmp_path / "enough", [(timedelta(days=31), "1", 600)]) == ("Rock", 600.0)
    assert labelled_one(tmp_path / "less", [(timedelta(days=31), "1", 599)]) == TOO_LITTLE


def test_listens_before_the_window_are_no_part_of_the_label(tmp_path: Path) -> None:
    assert labelled_one(tmp_path, [(timedelta(days=-3), "1", 900), (timedelta(days=29), "1", 900)]) == NO_LISTEN


def test_a_window_that_ends_after_the_data_is_no_verdict(tmp_path: Path) -> None:
    ends = START + timedelta(days=60)
    listens = [(timedelta(days=31), "1", 900)]
    assert labelled_one(tmp_path / "over", listens, data_ends=ends) == ("Rock", 900.0)
    assert labelled_one(tmp_path / "not", listens, data_ends=ends - timedelta(seconds=1)) == NOT_OVER


def test_gap_and_window_can_be_set(tmp_path: Path) -> None:
    listens = [(timedelta(days=8), "2", 50), (timedelta(days=31), "1", 900)]
    assert labelled_one(tmp_path, listens, gap_days=7, window_days=7, min_seconds=50) == ("Jazz", 50.0)


def test_daylight_saving_moves_nothing(tmp_path: Path) -> None:
    """Days are 24 hours in UTC: Berlin's clocks went forward on 30 March 2025, inside this window."""
    registered = "2025-02-28T23:30:00+01:00"  # 22:30 UTC; the window closes on 29 April 22:30 UTC, 00:30 in Berlin
    listens = [("u", "2025-04-30T00:29:59+02:00", "1", 600), ("u", "2025-04-30T00:30:00+02:00", "2", 9000)]
    data = made_tables.tables(tmp_path / "data", [("u", registered, "", "", "", "")], listens)
    label_tables(open_tables(data, workspace=tmp_path), LabelRule(), tmp_path / "out.parquet")
    (row,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert (row["top_genre"], row["seconds"]) == ("Rock", 600.0)


def test_examples_carry_the_answers_and_the_shares(tmp_path: Path) -> None:
    people = [("b", "2025-01-02T00:00:00Z", "31", "", "US", "Jazz|Rock"), ("a", "2025-01-01T00:00:00Z", "", "", "", "")]
    listens = [
        ("b", "2025-02-10T00:00:00Z", "1", 600),
        ("b", "2025-02-10T00:00:00Z", "2", 200),
        ("a", "2025-02-10T00:00:00Z", "2", 900),
        ("a", "2025-02-10T00:00:00Z", "3", 100),
        ("x", "2025-04-10T00:00:00Z", "3", 100),
    ]
    data = made_tables.tables(tmp_path / "data", people, listens, STATIONS)
    label_tables(open_tables(data, workspace=tmp_path), LabelRule(), tmp_path / "out.parquet")
    examples = read_examples(tmp_path / "out.parquet")
    assert examples.user_ids == ("b", "a")  # in the order of the file
    assert examples.genres == ("Jazz", "Rock")  # nobody played Blues most
    assert examples.tops.tolist() == [1, 0]
    assert np.allclose(examples.shares, [[0.25, 0.75], [1.0, 0.0]])
    assert examples.registrations[0].genres == ("Jazz", "Rock")
    assert examples.registrations[1].age is None
