"""The order of tiles by expected listening: seconds per day since a station's first listen, shrunk by exposure."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import made_tables
import pytest
from command_line import firstspin

from firstspin.data.ingest import open_tables
from firstspin.data.labels.station_rates import expected_listening
from firstspin.data.stations import station_popularity
from firstspin.serving import bundle

STATIONS = [
    ("old", "Old FM", "Rock"),
    ("new", "New FM", "Rock"),
    ("unheard", "Unheard FM", "Rock"),
    ("jazz", "Jazz FM", "Jazz"),
]
END = datetime(2025, 4, 11)
LISTENS = [
    ("u", "2025-01-01T00:00:00Z", "old", 500),  # 100 days ago
    ("u", "2025-02-01T00:00:00Z", "old", 500),
    ("u", "2025-04-01T00:00:00Z", "new", 300),  # 10 days ago
    ("u", "2025-02-20T00:00:00Z", "jazz", 50),  # 50 days ago
    ("u", "2025-05-01T00:00:00Z", "unheard", 999),  # after the data's end
]


def test_rates_by_hand(tmp_path: Path) -> None:
    data = made_tables.tables(tmp_path / "data", [("u", "2025-01-01T00:00:00Z", 31, "", "", "")], LISTENS, STATIONS)
    tables = open_tables(data, workspace=tmp_path)
    rates = expected_listening(tables, station_popularity(tables), END)
    assert [(one.station_id, rate) for one, rate in rates] == [
        ("old", pytest.approx((1000 + 30 * 10) / 130)),  # 10, 30 and 0 a day: the median is 10
        ("new", pytest.approx((300 + 30 * 10) / 40)),
        ("unheard", pytest.approx((0 + 30 * 10) / 130)),
        ("jazz", pytest.approx((50 + 30 * 1) / 80)),
    ]


def test_train_orders_tiles_by_total_or_by_rate(tmp_path: Path) -> None:
    people = [(f"u{i}", "2025-01-01T00:00:00Z", 31, "", "", "Rock") for i in range(20)]
    listens = [(f"u{i}", "2025-02-10T00:00:00Z", "old", 900) for i in range(20)]
    listens += [(f"u{i}", "2025-04-01T00:00:00Z", "new", 800) for i in range(20)]
    listens += [("u0", "2025-04-11T00:00:00Z", "jazz", 1)]
    data = made_tables.tables(tmp_path / "data", people, listens, STATIONS)
    orders = []
    for tiles in ((), ("--tiles", "listening")):
        out = tmp_path / f"b{len(tiles)}"
        done = firstspin("train", "--data", data, "--out", out, "--model", "popularity", *tiles)
        assert done.returncode == 0, done.stderr
        orders.append([station.station_id for station in bundle.load(out).catalogue.by_genre["Rock"]])
    assert orders == [["old", "new", "unheard"], ["new", "old", "unheard"]]
    wrong = firstspin("train", "--data", data, "--out", tmp_path / "c", "--tiles", "alphabet")
    assert wrong.returncode == 2
