"""Early listens: from the registration to the label window, in the order of time, copies once."""

from __future__ import annotations

from pathlib import Path

import made_tables

from firstspin.data.dataset import Reading, read_dataset
from firstspin.records import LabelRule

REGISTERED = "2025-01-01T00:00:00Z"
STATIONS = [("1", "Jazz FM", "Jazz"), ("2", "Rock FM", "Rock"), ("3", "Talk FM", "Talk")]


def test_listens_before_the_label_window(tmp_path: Path) -> None:
    people = [(user, REGISTERED, "", "", "", "") for user in ("a", "b", "c")]
    listens = [
        ("a", "2025-01-20T00:00:00Z", "2", 40),
        ("a", "2025-01-02T00:00:00Z", "1", 30),
        ("a", "2025-01-02T00:00:00Z", "1", 30),  # a copy
        ("a", "2025-01-03T00:00:00Z", "3", 50),  # nobody's top genre
        ("a", "2024-12-31T23:59:59Z", "2", 60),  # before the registration
        ("a", "2025-01-31T00:00:00Z", "1", 900),  # the window opens
        ("b", "2025-02-01T00:00:00Z", "2", 900),
        ("c", REGISTERED, "2", 70),  # without a label
        ("a", "2025-06-01T00:00:00Z", "1", 1),
    ]
    folder = made_tables.tables(tmp_path / "t", people, listens, STATIONS)
    dataset = read_dataset(folder, early=True)
    assert dataset.examples.user_ids == ("a", "b")
    early = dataset.early
    assert (early.users.tolist(), early.genres.tolist(), early.seconds.tolist()) == ([0, 0], [0, 1], [30, 40])
    assert dataset.station_genres == {"1": "Jazz", "2": "Rock", "3": "Talk"}
    assert not len(read_dataset(folder).early.users)
    no_gap = read_dataset(folder, Reading(rule=LabelRule(gap_days=0, min_seconds=0)), early=True)
    assert not len(no_gap.early.users)
