"""One experiment's tables for analysis, with everything that doesn't fit named instead of dropped."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from event_store_contract import put
from made_events import NOON, SECRET, click, clicks, shown

from firstspin.events.database import Database
from firstspin.events.erasure import erase
from firstspin.events.export import Exported, export
from firstspin.events.schema import Event, scoped
from firstspin.events.store import open_database
from firstspin.experiment.attribution import attribute


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(f"sqlite:///{tmp_path}/events.sqlite", SECRET)
    yield database
    database.close()


def key(user_id: str, experiment: str = "spring") -> str:
    return scoped(SECRET.user_hash(user_id), experiment)


def flags(out: Path) -> dict[str, str]:
    """Event id -> flag."""
    events = pq.read_table(out / "events.parquet").to_pylist()
    return {event["event_id"]: event["flag"] for event in events}


def test_an_exposure_is_a_row_with_both_arms_candidates(database: Database, tmp_path: Path) -> None:
    put(database, [shown("anna"), shown("bert", arm="rule", station_id="9", minutes=2)], [])
    assert export(database, tmp_path / "out", "spring") == Exported(exposures=2, events={})
    exposures = pq.read_table(tmp_path / "out" / "exposures.parquet")
    assert exposures.to_pylist()[1] == {
        "experiment": "spring",
        "user_key": key("bert"),
        "arm": "rule",
        "decided_at": NOON + timedelta(minutes=2),
        "source": "rule",
        "model": "3f2a9c1b",
        "station_id": "9",
        "propensity": 0.5,
        "carousel": None,
        "relevance": None,
        "listens": None,
        "candidates_model": ["17", "4"],
        "candidates_rule": ["9"],
    }
    assert exposures.schema.field("decided_at").type == pa.timestamp("us", "UTC")


def test_an_event_is_a_row_with_both_times(database: Database, tmp_path: Path) -> None:
    plain = click("e", "anna", minutes=3)
    fields = {name: getattr(plain, name) for name in plain.__struct_fields__}
    heard = Event(**(fields | {"type": "listen", "seconds": 180.5, "received_at": plain.at + 5_000_000}))
    put(database, [shown("anna")], [heard])
    export(database, tmp_path / "out", "spring")
    assert pq.read_table(tmp_path / "out" / "events.parquet").to_pylist() == [
        {
            "event_id": plain.event_id.hex(),
            "type": "listen",
            "user_key": key("anna"),
            "at": NOON + timedelta(minutes=3),
            "received_at": NOON + timedelta(minutes=3, seconds=5),
            "station_id": "17",
            "seconds": 180.5,
            "flag": "",
        }
    ]


def test_what_does_not_fit_is_flagged_and_stored(database: Database, tmp_path: Path) -> None:
    events = {
        "": click("in order", "anna", minutes=1),
        "early": click("before the message", "anna", minutes=-1),
        "late": click("long ago", "anna", minutes=-1, flag="late"),
        "future": click("tomorrow", "nobody", minutes=1, flag="future"),
        "orphan": click("never exposed", "nobody", minutes=1),
    }
    put(database, [shown("anna")], list(events.values()))
    exported = export(database, tmp_path / "out", "spring")
    assert exported.events == dict.fromkeys(events, 1)
    assert flags(tmp_path / "out") == {event.event_id.hex(): flag for flag, event in events.items()}


def test_an_event_that_came_before_its_exposure_is_no_orphan_once_that_is_there(
    database: Database, tmp_path: Path
) -> None:
    put(database, [], [click("quick", "anna", minutes=1)])
    assert export(database, tmp_path / "out", "spring").events == {"orphan": 1}
    put(database, [shown("anna")], [])
    assert export(database, tmp_path / "out", "spring").events == {"": 1}


def test_an_event_goes_to_every_experiment_its_user_was_in_and_to_no_other(database: Database, tmp_path: Path) -> None:
    put(
        database,
        [shown("anna", "spring"), shown("anna", "autumn"), shown("bert", "autumn")],
        [click("a", "anna", minutes=1), click("b", "bert", minutes=1)],
    )
    assert export(database, tmp_path / "spring", "spring").events == {"": 1}
    assert export(database, tmp_path / "autumn", "autumn").events == {"": 2}
    assert export(database, tmp_path / "winter", "winter") == Exported(exposures=0, events={})


def test_two_exports_have_no_user_key_in_common(database: Database, tmp_path: Path) -> None:
    users = [f"user {i}" for i in range(50)]
    put(database, [shown(user, experiment) for user in users for experiment in ("spring", "autumn")], [])
    keys = []
    for experiment in ("spring", "autumn"):
        export(database, tmp_path / experiment, experiment)
        keys.append(set(pq.read_table(tmp_path / experiment / "exposures.parquet")["user_key"].to_pylist()))
    assert (len(keys[0]), len(keys[1]), len(keys[0] & keys[1])) == (50, 50, 0)


def test_the_tables_of_no_rows_have_their_columns(database: Database, tmp_path: Path) -> None:
    export(database, tmp_path / "out", "spring", arms=("a", "b", "c"))
    exposures = pq.read_table(tmp_path / "out" / "exposures.parquet")
    assert exposures.column_names[-3:] == ["candidates_a", "candidates_b", "candidates_c"]
    assert exposures.num_rows == pq.read_table(tmp_path / "out" / "events.parquet").num_rows == 0


def test_an_erased_user_is_in_no_export(database: Database, tmp_path: Path) -> None:
    put(database, [shown("anna"), shown("bert")], [*clicks("a", 3, "anna"), *clicks("b", 2, "bert")])
    erase(database, SECRET, ["anna"], now=NOON)
    put(database, [shown("anna", station_id="4")], [click("late", "anna")])
    assert export(database, tmp_path / "out", "spring") == Exported(exposures=1, events={"": 2})


def test_more_rows_than_a_chunk_come_out_whole(database: Database, tmp_path: Path) -> None:
    put(database, [shown("anna")], clicks("e", 50))
    assert export(database, tmp_path / "out", "spring", chunk=7).events == {"": 50}
    table = pq.read_table(tmp_path / "out" / "events.parquet")
    assert table["event_id"].to_pylist() == [event.event_id.hex() for event in clicks("e", 50)]


def test_the_tables_are_what_the_analysis_reads(database: Database, tmp_path: Path) -> None:
    put(
        database,
        [shown("anna"), shown("bert", arm="rule"), shown("carl")],
        [click("a", "anna", minutes=1), click("b", "bert", minutes=-1), click("c", "nobody", minutes=1)],
    )
    export(database, tmp_path, "spring")
    found = attribute(
        tmp_path / "exposures.parquet", tmp_path / "events.parquet", experiment="spring", until=NOON + timedelta(days=9)
    )
    clicked = dict(zip(found.table["user_key"].to_pylist(), found.table["clicked"].to_pylist(), strict=True))
    assert clicked == {key("anna"): 1, key("bert"): 0, key("carl"): 0}
    assert (found.counted.clicks_early, found.counted.orphan_events) == (1, 1)
