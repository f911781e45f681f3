"""What Firehose wrote is the log of the experiment: once per id, in any order, and nothing is read that is no row."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from event_store_contract import put
from made_events import SECRET, click, shown

from firstspin.events.delivered import export_delivered
from firstspin.events.export import Exported, export
from firstspin.events.firehose import FirehoseReply, FirehoseSink, Record, forward
from firstspin.events.schema import Event
from firstspin.events.store import open_database
from firstspin.records import InputError


class Lake:
    """A client of Firehose that writes what it is given at once, a file a call."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put_record_batch(self, *, DeliveryStreamName: str, Records: list[Record]) -> FirehoseReply:
        day = self.folder / DeliveryStreamName / "day=2026-01-31"
        day.mkdir(parents=True, exist_ok=True)
        data = b"".join(record["Data"] for record in Records)
        (day / f"{len(list(day.iterdir()))}.gz").write_bytes(gzip.compress(data))
        return {"RequestResponses": [{"RecordId": "1"} for _ in Records]}


def listen(event_id: str, user_id: str, minutes: float) -> Event:
    plain = click(event_id, user_id, minutes=minutes)
    fields = {name: getattr(plain, name) for name in plain.__struct_fields__}
    return Event(**(fields | {"type": "listen", "seconds": 180.5}))


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A folder as Firehose leaves it, beside `store`, the export of the same event store."""
    database = open_database(f"sqlite:///{tmp_path}/events.sqlite", SECRET)
    exposures = [shown("anna"), shown("bert", arm="rule", station_id="9"), shown("carl", "autumn")]
    events = [
        click("e", "anna", minutes=3),
        listen("l", "anna", 5),
        click("early", "bert", minutes=-1),
        click("late", "bert", minutes=2, flag="late"),
        click("elsewhere", "carl"),
        click("orphan", "dora"),
    ]
    put(database, exposures, events)
    sink = FirehoseSink(Lake(tmp_path / "lake"), {"exposures": "exposures", "events": "events"}, "spring")
    forward(database, sink, rng=np.random.default_rng(1), pause=lambda wait: wait > 0)
    export(database, tmp_path / "store", "spring")
    database.close()
    return tmp_path / "lake"


def rows(folder: Path) -> list[Any]:
    tables = [pq.read_table(folder / name).to_pylist() for name in ("exposures.parquet", "events.parquet")]
    return [sorted(table, key=str) for table in tables]


def test_the_tables_are_those_that_the_store_exports(written: Path, tmp_path: Path) -> None:
    done = export_delivered(written, tmp_path / "out", "spring")
    assert done == Exported(2, {"": 2, "early": 1, "late": 1, "orphan": 1})
    assert rows(tmp_path / "out") == rows(tmp_path / "store")
    for name in ("exposures.parquet", "events.parquet"):
        assert pq.read_schema(tmp_path / "out" / name) == pq.read_schema(tmp_path / "store" / name)


def test_files_that_come_twice_plain_empty_and_in_another_order_change_nothing(written: Path, tmp_path: Path) -> None:
    export_delivered(written, tmp_path / "once", "spring")
    for path in sorted(written.rglob("*.gz")):
        lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
        (written / f"0-{path.parent.parent.name}.json").write_bytes(b"".join(reversed(lines)) + b"\n\n")
    (written / "empty.gz").write_bytes(gzip.compress(b""))
    (written / "empty").write_bytes(b"")
    (written / ".hidden").write_bytes(b"no row")
    assert len(list(written.rglob("*"))) > 6
    export_delivered(written, tmp_path / "twice", "spring", chunk=1)
    assert rows(tmp_path / "twice") == rows(tmp_path / "once")


def test_a_message_that_was_shown_again_counts_from_its_first_time(written: Path, tmp_path: Path) -> None:
    export_delivered(written, tmp_path / "once", "spring")
    [path] = (written / "exposures").rglob("*.gz")
    lines = gzip.decompress(path.read_bytes()).replace(b"T12:00:00Z", b"T14:00:00Z")
    (written / "0-again.json").write_bytes(lines)  # read first
    export_delivered(written, tmp_path / "again", "spring")
    assert rows(tmp_path / "again") == rows(tmp_path / "once")


def changed(**fields: object) -> Callable[[dict[str, Any]], bytes]:
    return lambda row: json.dumps(row | fields).encode()


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda _: b"no json", "line 2 is not a row that firstspin sends to Firehose"),
        (lambda row: json.dumps(row).encode()[:50], "line 2 is not a row"),
        (lambda _: b"\xff{}", "line 2 is not a row"),
        (lambda _: b"{}", "line 2 is not a row .* missing required field `event_id`"),
        (changed(type="purchase"), "line 2 is not a row"),
        (changed(at="2026-01-31T12:00:00"), "line 2 is not a row"),
        (changed(seconds="long"), "line 2 is not a row"),
        (changed(schema=2), "line 2 has schema 2; this version of firstspin reads 1"),
    ],
)
def test_a_line_that_is_no_row_is_named(
    written: Path, tmp_path: Path, spoil: Callable[[dict[str, Any]], bytes], problem: str
) -> None:
    [path] = (written / "events").rglob("*.gz")
    first = gzip.decompress(path.read_bytes()).splitlines()[0]
    path.write_bytes(gzip.compress(first + b"\n" + spoil(json.loads(first))))
    with pytest.raises(InputError, match=problem) as caught:
        export_delivered(written, tmp_path / "out", "spring")
    assert str(path) in str(caught.value)
    assert list((tmp_path / "out").glob("*.parquet")) == []


def test_a_file_that_was_not_downloaded_whole_is_named(written: Path, tmp_path: Path) -> None:
    [path] = (written / "exposures").rglob("*.gz")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=f"{path.name} can't be read"):
        export_delivered(written, tmp_path / "out", "spring")


def test_a_folder_without_the_experiment_is_no_result(written: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lake holds no exposure of winter"):
        export_delivered(written, tmp_path / "out", "winter")
    (tmp_path / "nothing").mkdir()
    for name in ("nothing", "missing"):
        with pytest.raises(InputError, match=f"{name} holds no file"):
            export_delivered(tmp_path / name, tmp_path / "out", "spring")
