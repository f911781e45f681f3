"""A genre that contains the separator of the picks is one pick, in the tables of training and of scoring."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import made_people
import made_tables
import pyarrow.parquet as pq
import pytest
from made_bundles import pack

from firstspin.data.dataset import Reading, write_labels
from firstspin.data.formats.written_values import Spelling
from firstspin.data.ingest import open_tables
from firstspin.records import LabelRule
from firstspin.score import score

STATIONS = [("1", "", "Folk, World"), ("2", "", "Folk"), ("3", "", "R&B"), ("4", "", "Rock / Pop / Indie")]


@pytest.mark.parametrize(
    ("separator", "picks", "read"),
    [
        (",", "rock, folk,  WORLD,Folk", ["rock", "Folk, World", "Folk"]),
        (",", "World, Folk", ["World", "Folk"]),
        ("&", "Folk & r & b", ["Folk", "R&B"]),
        ("/", "Folk/Rock/Pop/Indie/Rock/Pop", ["Folk", "Rock / Pop / Indie", "Rock", "Pop"]),
        ("|", "Folk, World|R&B", ["Folk, World", "R&B"]),
    ],
)
def test_a_genre_with_the_separator_is_one_pick(separator: str, picks: str, read: list[str], tmp_path: Path) -> None:
    people = [(str(at), "2025-01-01T00:00Z", "", "", "", of) for at, of in enumerate((picks, "", "Folk", picks))]
    made_tables.tables(tmp_path / "data", people, [], STATIONS)
    opened = open_tables(tmp_path / "data", workspace=tmp_path, spelling=Spelling(pick_separator=separator))
    rows = opened.connection.execute("SELECT genres FROM registrations ORDER BY user_id").fetchall()
    assert [of for (of,) in rows] == [read, [], ["Folk"], read]


def test_scoring_reads_it_as_one_pick_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made_people, "GENRES", ("Folk, World", "Jazz", "Pop", "Rock"))
    pack(tmp_path / "b")
    answers = []
    for separator in ("|", ","):
        rows = [("1", "2025-01-01T00:00Z", "", "", "", separator.join(("Jazz", "Folk, World")))]
        asked = made_tables.write(tmp_path, "new", made_tables.REGISTRATIONS, rows)
        spelling = Spelling(pick_separator=separator)
        *_, unknown = score(tmp_path / "b", asked, str(tmp_path / "o.csv"), now=datetime(2026, 1, 1), spelling=spelling)
        assert unknown == []
        answers.append((tmp_path / "o.csv").read_bytes())
    assert answers[0] == answers[1]


def test_each_user_keeps_the_own_label_where_picks_are_joined(tmp_path: Path) -> None:
    """Every third user picked and plays Folk, World, the others Rock: DuckDB moves the rows whose list is updated."""
    genres = ["Rock" if number % 3 else "Folk, World" for number in range(12)]
    people = [(f"u{number}", "2025-01-01T00:00Z", "", "", "", of) for number, of in enumerate(genres)]
    played = [(f"u{number}", "2025-02-10T00:00Z", of, "600") for number, of in enumerate(genres)]
    stations = [("Folk, World", "", "Folk, World"), ("Rock", "", "Rock")]
    made_tables.tables(tmp_path / "data", people, played, stations)
    reading = Reading(spelling=Spelling(pick_separator=","), rule=LabelRule(data_ends=datetime(2025, 6, 1)))
    write_labels(tmp_path / "data", tmp_path / "labels.parquet", reading)
    labels = pq.read_table(tmp_path / "labels.parquet").to_pydict()
    assert dict(zip(labels["user_id"], labels["top_genre"], strict=True)) == {
        f"u{number}": of for number, of in enumerate(genres)
    }
    assert labels["user_id"] == [f"u{number}" for number in range(12)]
    assert [[one["genre"] for one in of] for of in labels["played"]] == [[of] for of in genres]
