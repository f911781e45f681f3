"""Exposures of busy moments are stored in batches, and no reader, eraser or sink sees a difference."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from event_store_contract import kept, put
from made_events import NOON, SECRET, click, shown
from small_disk import fill_up, small_disk

from firstspin.events.database import ResultRow
from firstspin.events.databases.batches import AT_ONCE, MAX_BATCH, MIN_BATCH
from firstspin.events.databases.sqlite import SqliteDatabase
from firstspin.events.erasure import erase
from firstspin.events.export import export
from firstspin.events.firehose import FirehoseReply, FirehoseSink, Record, send
from firstspin.events.schema import Exposure, Unavailable
from firstspin.events.store import open_store


@pytest.fixture
def database(tmp_path: Path) -> Iterator[SqliteDatabase]:
    with closing(SqliteDatabase(tmp_path / "events.sqlite", SECRET.fingerprint)) as database:
        yield database


def several(n: int, prefix: str = "user", *, minutes: float = 0) -> list[Exposure]:
    return [shown(f"{prefix} {i}", minutes=minutes) for i in range(n)]


def stored(database: SqliteDatabase) -> tuple[int, int]:
    """The numbers of rows and of batches in the file."""
    with closing(sqlite3.connect(database.path)) as connection:
        counts = "SELECT (SELECT COUNT(*) FROM exposures), (SELECT COUNT(*) FROM exposure_batches)"
        [(rows, batches)] = connection.execute(counts)
    return rows, batches


def exposure_ids(exposures: list[Exposure]) -> list[bytes]:
    return [one.exposure_id for one in exposures]


def test_a_commit_of_many_exposures_is_a_batch_and_one_of_few_is_rows(database: SqliteDatabase) -> None:
    few, many = several(MIN_BATCH - 1, "few"), several(MIN_BATCH, "many")
    assert put(database, few, [])[0] == ("stored",) * len(few)
    assert stored(database) == (len(few), 0)
    assert put(database, many, [click("e")])[0] == ("stored",) * len(many)
    assert stored(database) == (len(few), 1)
    assert kept(database, "exposures") == exposure_ids([*few, *many])


def test_rows_are_made_of_batches_in_the_order_of_their_arrival(database: SqliteDatabase) -> None:
    batches = [several(AT_ONCE, str(i)) for i in range(3)]
    for batch in batches:
        put(database, batch, [])
    put(database, several(1, "first"), [])  # the oldest batch becomes rows, and this one waits behind the others
    assert stored(database) == (AT_ONCE, 2 * AT_ONCE // MAX_BATCH + 1)
    put(database, several(1, "second"), [])
    assert stored(database) == (2 * AT_ONCE, AT_ONCE // MAX_BATCH + 2)
    put(database, several(1, "third"), [])
    assert stored(database) == (3 * AT_ONCE, 3)
    put(database, several(1, "fourth"), [])
    assert stored(database) == (3 * AT_ONCE + 4, 0)
    late = [shown(f"{name} 0") for name in ("first", "second", "third", "fourth")]
    assert kept(database, "exposures") == exposure_ids([*chain(*batches), *late])


def test_of_two_exposures_with_one_id_the_first_stays_wherever_both_are(database: SqliteDatabase) -> None:
    def at() -> list[ResultRow]:
        with database.snapshot() as session:
            query = "SELECT (decided_at - ?) / 60000000, COUNT(*) FROM exposures GROUP BY 1"
            return session.run(query, (shown().decided_at,))

    put(database, several(1, minutes=1), [])
    put(database, several(MIN_BATCH, minutes=2), [])
    put(database, several(MIN_BATCH, minutes=3), [])
    assert stored(database) == (1, 2)
    assert at() == [(1, 1), (2, MIN_BATCH - 1)]
    put(database, several(2, minutes=4), [])
    assert stored(database) == (MIN_BATCH, 0)
    assert at() == [(1, 1), (2, MIN_BATCH - 1)]


def test_an_experiment_is_exported_from_rows_and_batches(database: SqliteDatabase, tmp_path: Path) -> None:
    put(database, [shown("anna")], [])
    put(database, [*several(100), shown("bert", "autumn")], [])
    put(
        database, [], [click("later", "user 7", minutes=1), click("early", "user 8", minutes=-1), click("no", "nobody")]
    )
    exported = export(database, tmp_path / "out", "spring", chunk=10)
    assert (exported.exposures, exported.events) == (101, {"": 1, "early": 1, "orphan": 1})
    table = pq.read_table(tmp_path / "out" / "exposures.parquet").to_pylist()
    assert table[1] == table[0] | {"user_key": table[1]["user_key"]}  # one as a row, one from a batch
    assert stored(database) == (1, 1)  # reading writes nothing


def test_an_erased_user_is_in_no_batch_and_no_byte_of_the_file(database: SqliteDatabase) -> None:
    put(database, [shown("anna")], [])
    put(database, [*several(MIN_BATCH), shown("anna"), shown("anna", station_id="4")], [])
    put(database, [*several(MIN_BATCH, "others"), shown("anna", "autumn")], [])
    put(database, [shown("anna", f"test {i}") for i in range(MIN_BATCH)], [])
    assert SECRET.user_hash("anna") in database.path.read_bytes() + Path(f"{database.path}-wal").read_bytes()
    erasure = erase(database, SECRET, ["anna", "user 3"], now=NOON)
    assert erasure.deleted.exposures == 1 + 1 + 1 + MIN_BATCH + 1  # the repeated one counts once
    assert erasure.compacted
    database.close()
    assert SECRET.user_hash("anna") not in database.path.read_bytes()
    assert len(kept(database, "exposures")) == 2 * MIN_BATCH - 1
    assert stored(database) == (0, 2)  # the batch of this user alone is gone
    assert put(database, [*several(MIN_BATCH, "new"), shown("anna", "winter")], [])[0][-1] == "erased"
    assert len(kept(database, "exposures")) == 3 * MIN_BATCH - 1


def test_exposures_of_batches_go_to_a_sink_once(database: SqliteDatabase) -> None:
    for i in range(3):
        put(database, several(AT_ONCE, str(i)), [])
    taken: list[bytes] = []

    class Taker:
        def put_record_batch(self, *, DeliveryStreamName: str, Records: list[Record]) -> FirehoseReply:  # noqa: ARG002
            taken.extend(record["Data"] for record in Records)
            return {"RequestResponses": [{} for _ in Records]}

    sink = FirehoseSink(Taker(), {"exposures": "lake"}, scope="lake")
    while send(database, sink, "exposures").sent:
        pass
    assert len(taken) == len(set(taken)) == 3 * AT_ONCE
    assert stored(database) == (3 * AT_ONCE, 0)


def damage(database: SqliteDatabase, batch: int, at: int) -> None:
    """Flip one bit of a batch, at this place."""
    with closing(sqlite3.connect(database.path)) as connection, connection:
        query = "SELECT exposures FROM exposure_batches WHERE batch = ?"
        packed = bytearray(connection.execute(query, (batch,)).fetchone()[0])
        packed[at] ^= 4
        connection.execute("UPDATE exposure_batches SET exposures = ? WHERE batch = ?", (bytes(packed), batch))


def set_aside(database: SqliteDatabase) -> int:
    with database.reading() as session:
        return int(session.run("SELECT COUNT(*) FROM damaged_batches")[0][0])


@pytest.mark.parametrize("at", [0, 40, -1_000, -1])  # of the header, an id, a text or number, the checksum
def test_a_flipped_bit_costs_the_exposures_of_its_batch_alone_and_readers_log_it(
    at: int, database: SqliteDatabase, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("first", "second", "third"):
        put(database, several(MIN_BATCH, name), [])
    damage(database, 2, at)
    rest = exposure_ids([*several(MIN_BATCH, "first"), *several(MIN_BATCH, "third")])
    for _ in range(2):  # before and after a writer has set the batch aside
        assert kept(database, "exposures") == rest
        assert "1 batches of up to 500 exposures are damaged and left out" in caplog.text
        assert export(database, tmp_path / "out", "spring").exposures == len(rest)
        caplog.clear()
        database.settle()
    assert (stored(database), set_aside(database)) == ((2 * MIN_BATCH, 0), 1)
    assert put(database, several(1), []) == (("stored",), ())
    assert stored(database) == (2 * MIN_BATCH + 1, 0)


@pytest.mark.parametrize("is_settled", [False, True])
def test_an_erasure_deletes_damaged_batches_because_the_user_may_be_in_them(
    is_settled: bool, database: SqliteDatabase
) -> None:
    put(database, [*several(MIN_BATCH, "lost"), shown("anna")], [])
    put(database, [*several(MIN_BATCH), shown("anna", "autumn")], [])
    damage(database, 1, -1)
    if is_settled:
        database.settle()
    erasure = erase(database, SECRET, ["anna"], now=NOON)
    assert (erasure.deleted.exposures, erasure.compacted) == (1, True)
    database.close()
    assert SECRET.user_hash("anna") not in database.path.read_bytes()
    assert SECRET.user_hash("lost 3") not in database.path.read_bytes()
    assert set_aside(database) == 0
    assert kept(database, "exposures") == exposure_ids(several(MIN_BATCH))


@pytest.mark.parametrize("packed", [b"", b"\x91\x01", b"nonsense", "text", "\xff"])
def test_a_batch_of_another_program_is_left_out_and_stops_no_writer(
    packed: bytes | str, database: SqliteDatabase
) -> None:
    put(database, several(1, "row"), [])
    insert = "INSERT INTO exposure_batches (exposures) VALUES (?)"
    if packed == "\xff":
        insert = insert.replace("?", "CAST(x'ff' || ? AS TEXT)")  # not UTF-8
    database.transact(lambda session: session.run(insert, (packed,)))
    assert len(kept(database, "exposures")) == 1
    assert put(database, several(1, "later"), [])[0] == ("stored",)
    assert (stored(database), set_aside(database)) == ((2, 0), 1)


def test_on_a_full_disk_a_user_of_many_busy_commits_can_be_erased(tmp_path: Path) -> None:
    others = several(5_000)
    with (
        small_disk(tmp_path / "small", megabytes=30) as disk,
        closing(SqliteDatabase(disk / "events.sqlite", SECRET.fingerprint, reserve_bytes=4 << 20)) as database,
    ):
        database.open()
        for i in range(8):  # 6 MB
            put(database, [shown("anna", f"test {i}"), *others], [])
        assert database.compact()  # the log of writes is empty
        fill_up(disk)
        assert erase(database, SECRET, ["anna"], now=NOON).deleted.exposures == 8
        assert len(kept(database, "exposures")) == 5_000


def test_a_reader_without_space_for_the_exposures_of_batches_says_so(database: SqliteDatabase) -> None:
    put(database, several(2_000), [])
    with database.reading() as session:
        session.run("PRAGMA temp.max_page_count = 20")
    with pytest.raises(Unavailable, match="full"), database.snapshot():
        pass
    with database.reading() as session:
        session.run("PRAGMA temp.max_page_count = 1000000")
    assert len(kept(database, "exposures")) == 2_000


def test_exposures_that_wait_in_the_queue_are_all_stored_when_the_store_is_closed(database: SqliteDatabase) -> None:
    store = open_store(f"sqlite:///{database.path}", SECRET)
    for i in range(60):
        store.submit_exposures(several(50, str(i)))
    health = store.close()
    assert (health.exposures, health.dropped_exposures) == ({"stored": 3_000}, 0)
    assert len(set(kept(database, "exposures"))) == 3_000


def test_a_store_of_version_2_gets_batches(database: SqliteDatabase) -> None:
    put(database, several(2), [])
    database.transact(lambda session: session.run("UPDATE about SET value = '2' WHERE name = 'version'"))
    database.transact(lambda session: session.run("DROP TABLE exposure_batches"))
    database.close()
    put(database, several(MIN_BATCH, "new"), [])
    assert stored(database) == (2, 1)
    assert len(kept(database, "exposures")) == 2 + MIN_BATCH
