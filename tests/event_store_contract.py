"""What every database behind the event store must do. A test class names its database and inherits the rest."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
from made_events import NOON, SECRET, click, clicks, ids, listen, shown
from made_service import until

from firstspin.events import statements
from firstspin.events.answer_counts import (
    AnswerCell,
    AnswerSum,
    DayCounts,
    InputCounts,
    merge_days,
    read_counts,
    write_counts,
)
from firstspin.events.database import Database, ResultRow, Row, Session, write
from firstspin.events.erasure import erase, erased_users
from firstspin.events.export import Exported, export
from firstspin.events.firehose import FirehoseReply, FirehoseSink, ForwardTally, Record, send
from firstspin.events.recent_listens import RecentListens, recent_listens
from firstspin.events.schema import Event, Exposure, Secret, Unavailable, candidates_json
from firstspin.events.slot_log import GREEDY, SLOT, read_slot_log
from firstspin.events.store import EventStore, QueueLimits, Statuses, open_database, open_store
from firstspin.records import InputError, Listen
from firstspin.serving.lookups import FAILURES, UserLookups

QUICK = QueueLimits(linger=0.002, retry=0.02, max_retry=0.1)


def kept(database: Database, table: str = "events") -> list[bytes]:
    """The ids of all rows, in the order of their arrival."""
    with database.snapshot() as session:
        return [row for (row,) in session.run(f"SELECT {table[:-1]}_id FROM {table} ORDER BY seq")]


def put(database: Database, exposures: list[Exposure], events: list[Event]) -> tuple[Statuses, Statuses]:
    written = database.transact(lambda session: write(session, exposures, events))
    return written.exposures, written.events


def as_version_1_had_it(session: Session) -> None:
    for column in ("carousel", "relevance", "listens"):
        session.run(f"ALTER TABLE exposures DROP COLUMN {column}")
    session.run("UPDATE exposures SET schema = 1")
    session.run("UPDATE about SET value = '1' WHERE name = 'version'")


class EventStoreContract:
    url: str

    def held(self) -> AbstractContextManager[None]:
        """While this lasts, nobody else can write."""
        raise NotImplementedError

    @pytest.fixture
    def database(self) -> Iterator[Database]:
        database = open_database(self.url, SECRET)
        yield database
        database.close()

    @pytest.fixture
    def store(self) -> Iterator[EventStore]:
        store = open_store(self.url, SECRET, QUICK)
        yield store
        store.close()

    def test_an_answer_means_that_others_can_read_it(self, store: EventStore, database: Database) -> None:
        assert store.submit(clicks("e", 3)).result(10) == ("stored", "stored", "stored")
        assert set(kept(database)) == ids(clicks("e", 3))

    def test_reports_of_answers_are_added_up_by_day_and_each_counts_once(
        self, store: EventStore, database: Database
    ) -> None:
        store.submit([click("first")]).result(10)
        assert read_counts(database) == []  # a store of an earlier version lacks the table
        cell = AnswerCell("3f2a9c1b", "model", "model", "3-5", 3, 12)
        for day, n in (("2026-01-31", 5), ("2026-01-30", 2), ("2026-01-31", 1)):
            store.submit_counts(DayCounts(day, (AnswerSum(cell, n, n * 600_000),)))
        store.close()
        again = DayCounts("2026-01-31", (AnswerSum(cell, 100, 1),))
        for _ in range(2):
            database.transact(lambda session: write_counts(session, [("the same id", again)]))
        assert read_counts(database) == [
            DayCounts("2026-01-30", (AnswerSum(cell, 2, 1_200_000),)),
            DayCounts("2026-01-31", (AnswerSum(cell, 106, 3_600_001),)),
        ]
        assert read_counts(database, since="2026-01-31")[0].day == "2026-01-31"

    def test_the_reports_of_a_day_that_is_over_are_merged_into_one_row(
        self, store: EventStore, database: Database
    ) -> None:
        cell = AnswerCell("3f2a9c1b", "model", "model", "3-5", 3, 12)
        inputs = (InputCounts("3f2a9c1b", {"age": {"18-24": 10}}, 1),)
        for day in ("2026-01-29", "2026-01-30", "2026-01-30", "2026-01-30", "2026-01-31", "2026-01-31"):
            store.submit_counts(DayCounts(day, (AnswerSum(cell, 2, 1_200_000),), inputs))
        store.close()
        before = read_counts(database)
        for late in (0, 1):
            merge_days(database, "2026-01-31")
            with database.snapshot() as session:
                rows = session.run("SELECT day, COUNT(*) FROM answer_counts GROUP BY day ORDER BY day")
            assert [tuple(row) for row in rows] == [("2026-01-29", 1), ("2026-01-30", 1), ("2026-01-31", 2)]
            assert read_counts(database)[:1] == before[:1]
            [of_day] = read_counts(database, since="2026-01-30")[:1]
            assert of_day.answers == (AnswerSum(cell, 6 + 2 * late, 3_600_000 + 1_200_000 * late),)
            assert of_day.inputs == (InputCounts("3f2a9c1b", {"age": {"18-24": 30}}, 3),)
            more = DayCounts("2026-01-30", (AnswerSum(cell, 2, 1_200_000),))
            database.transact(lambda session, more=more: write_counts(session, [("a late worker", more)]))

    def test_reports_of_answers_wait_while_the_database_fails(self, store: EventStore, database: Database) -> None:
        cell = AnswerCell("3f2a9c1b", "model", "model", "0", 1, 2)
        assert store.submit([click("first")]).result(10)
        with self.held():
            store.submit_counts(DayCounts("2026-01-31", (AnswerSum(cell, 5, 5),)))
        store.close()
        assert read_counts(database) == [DayCounts("2026-01-31", (AnswerSum(cell, 5, 5),))]

    def test_what_is_there_already_is_a_duplicate(self, store: EventStore, database: Database) -> None:
        assert store.submit([click("a"), click("b")]).result(10) == ("stored", "stored")
        assert store.submit([click("b"), click("c"), click("c")]).result(10) == ("duplicate", "stored", "duplicate")
        assert len(kept(database)) == 3

    def test_one_event_sent_a_thousand_times_at_once_is_one_row(self, store: EventStore, database: Database) -> None:
        futures: list[Future[Statuses]] = []

        def send() -> None:
            futures.extend([store.submit([click("same")]) for _ in range(125)])

        senders = [threading.Thread(target=send) for _ in range(8)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        assert Counter(future.result(20) for future in futures) == {("stored",): 1, ("duplicate",): 999}
        assert kept(database) == [click("same").event_id]

    @pytest.fixture
    def listens(self) -> Iterator[RecentListens]:
        """A reader of listens, beside a store that has their index."""
        with closing(self.with_index()) as writer:
            writer.open()
        reader = partial(open_database, self.url, SECRET, read_only=True, listens_by_user=True)
        with closing(RecentListens(reader, SECRET)) as found:
            yield found

    def with_index(self) -> Database:
        return open_database(self.url, SECRET, listens_by_user=True)

    def test_the_latest_listens_of_a_user_are_read_oldest_first(
        self, listens: RecentListens, database: Database
    ) -> None:
        put(database, [], [listen("2", station_id="b", minutes=2), listen("1", station_id="a", minutes=1)])
        put(database, [], [listen("3", station_id=" c ", minutes=2, seconds=6 * 86_400.0), click("4", minutes=3)])
        put(database, [], [listen("5", "berta", minutes=4), listen("6", minutes=9_999, flag="future")])
        assert listens.get("anna") == (Listen("a", 180.0), Listen("b", 180.0), Listen("c", 86_400.0))
        assert listens.get("nobody") is None
        put(database, [], [listen(f"late {i}", station_id=str(i), minutes=10 + i) for i in range(250)])
        assert [one.station_id for one in listens.get("anna") or ()] == [str(i) for i in range(50, 250)]

    def test_listens_of_an_erased_user_are_not_read_not_even_during_the_erasure(
        self, listens: RecentListens, database: Database
    ) -> None:
        put(database, [], [listen("1"), listen("2", "berta")])
        seen: list[list[ResultRow]] = []

        class Interrupted:
            """A session in which an erasure is committed between two queries."""

            def run(self, statement: str, values: Row = ()) -> list[ResultRow]:
                if seen:
                    erase(database, SECRET, ["anna"], now=NOON)
                seen.append(session.run(statement, values))
                return seen[-1]

        with database.reading() as session:
            assert recent_listens(Interrupted(), SECRET.user_hash("anna")) == ()  # type: ignore[arg-type]
        assert seen[0] == [("17", 180.0)]
        assert listens.get("anna") is None
        assert listens.get("berta") == (Listen("17", 180.0),)

    @pytest.mark.parametrize("seconds", ["NULL", "-1e308", "0"])
    def test_a_row_that_is_no_listen_is_malformed_and_concerns_no_other_user(
        self, seconds: str, listens: RecentListens, database: Database
    ) -> None:
        put(database, [], [listen("1"), listen("2"), listen("3", "berta")])
        event_id = SECRET.event_id("2")
        database.transact(
            lambda session: session.run(f"UPDATE events SET seconds = {seconds} WHERE event_id = ?", (event_id,))
        )
        lookups = UserLookups(lambda: listens, lambda: 0, budget=30)
        assert [lookups.wait("anna") for _ in range(FAILURES)] == [(None, "malformed")] * FAILURES
        assert lookups.wait("berta") == ((Listen("17", 180.0),), "found")  # the circuit breaker is closed

    def test_the_index_is_made_once_and_awaited_by_readers(self, database: Database) -> None:
        database.open()
        reader = open_database(self.url, SECRET, read_only=True, listens_by_user=True)
        for _ in range(2):
            with pytest.raises(Unavailable, match="no index of listens yet"):
                reader.open()
        put(database, [], [listen("1")])
        for _ in range(2):
            with closing(self.with_index()) as writer:
                assert put(writer, [], [listen("1"), listen("2")])[1][0] == "duplicate"
        with closing(reader), reader.reading() as session:
            assert len(recent_listens(session, SECRET.user_hash("anna"))) == 2
            assert "events_listens" in self.plan(session, statements.LATEST_LISTENS)
            all_listens = statements.LATEST_LISTENS.replace("AND flag <> 'future'", "")
            assert "events_listens" not in self.plan(session, all_listens)  # it has none in the future
            with pytest.raises(Exception, match=r"(?i)read-?only"):
                session.run(statements.PROBE)

    def plan(self, session: Session, query: str) -> str:
        """How the database executes the query."""
        raise NotImplementedError

    def test_stores_that_are_sent_the_same_in_another_order_agree(self, database: Database) -> None:
        events = clicks("e", 300)
        stores = [open_store(self.url, SECRET, QUICK) for _ in range(2)]
        futures = [stores[0].submit(events), stores[1].submit(events[::-1])]
        statuses = Counter(status for future in futures for status in future.result(20))
        for store in stores:
            store.close()
        assert statuses == {"stored": 300, "duplicate": 300}
        assert set(kept(database)) == ids(events)

    def test_an_exposure_is_kept_once(self, store: EventStore, database: Database) -> None:
        for _ in range(3):
            assert store.submit_exposures([shown()])
        assert store.submit_exposures([shown(station_id="4")])
        health = store.close()
        assert health.exposures == {"stored": 2, "duplicate": 2}
        assert kept(database, "exposures") == [shown().exposure_id, shown(station_id="4").exposure_id]

    def test_an_exposure_comes_back_as_it_went(self, database: Database) -> None:
        put(database, [shown()], [])
        with database.snapshot() as session:
            ((candidates, decided_at, propensity, schema),) = session.run(
                "SELECT candidates, decided_at, propensity, schema FROM exposures"
            )
        assert candidates == '{"model":["17","4"],"rule":["9"]}'
        assert (decided_at, propensity, schema) == (shown().decided_at, 0.5, 2)

    def test_a_store_of_version_1_is_migrated_with_its_rows(self, database: Database) -> None:
        put(database, [shown()], [click("e")])
        database.transact(as_version_1_had_it)
        for _ in range(2):  # the second time it is of this version
            database.close()
            database.open()
        slot = msgspec.structs.replace(shown("bert"), carousel=5, relevance=0.37, listens=3)
        put(database, [shown(), slot], [])
        with database.snapshot() as session:
            rows = session.run("SELECT carousel, relevance, listens, schema FROM exposures ORDER BY seq")
            assert session.run("SELECT value FROM about WHERE name = 'version'") == [("3",)]
        assert rows == [(None, None, None, 1), (5, 0.37, 3, 2)]
        assert kept(database) == [click("e").event_id]

    def test_the_log_of_the_slot_has_the_first_exposure_of_each_user_with_its_click(self, database: Database) -> None:
        def seen(user: str, station: str, minutes: float, greedy: str | None = "17", carousel: int = 5) -> Exposure:
            made = shown(user, SLOT, station_id=station, arm=SLOT, minutes=minutes)
            best = [greedy] if greedy else []
            return msgspec.structs.replace(
                made, candidates=candidates_json({GREEDY: best}), carousel=carousel, relevance=0.37
            )

        put(database, [seen("anna", "17", 0), seen("bert", "4", 1, None), seen("cleo", "17", 2)], [])
        put(database, [seen("anna", "4", 9), seen("dora", "17", 9, carousel=3), shown("emil")], [])
        late = click("late", "cleo", minutes=2 + 24 * 60)
        put(database, [], [click("a", minutes=1), click("b", minutes=2), click("c", "bert", minutes=5), late])
        with database.snapshot() as session:
            log = read_slot_log(session, 5)
            assert len(read_slot_log(session, 3).shown) == 1
            assert len(read_slot_log(session, 1).shown) == 0
        assert log.station_ids == ("17", "4")
        assert (log.shown.tolist(), log.best.tolist()) == ([0, 1, 0], [0, -1, 0])
        assert log.clicked.tolist() == [True, False, False]  # of the station shown, within a day
        assert (log.propensity.tolist(), log.relevance.tolist()) == ([0.5] * 3, [0.37] * 3)
        assert log.at[1] == np.datetime64("2026-01-31T12:01", "us")
        erase(database, SECRET, ["anna"], now=NOON)
        with database.snapshot() as session:
            assert len(read_slot_log(session, 5).shown) == 2

    @pytest.mark.parametrize(
        "wrong", ["propensity = 0", "propensity = 1.5", "relevance = -0.5", "relevance = NULL", "relevance = 1e308"]
    )
    def test_a_log_of_the_slot_with_numbers_that_are_no_shares_is_refused(self, wrong: str, database: Database) -> None:
        put(database, [msgspec.structs.replace(shown("anna", SLOT), carousel=5, relevance=0.37)], [])
        database.transact(lambda session: session.run(f"UPDATE exposures SET {wrong}"))
        with database.snapshot() as session, pytest.raises(InputError, match="rows that firstspin did not write"):
            read_slot_log(session, 5)

    def test_a_store_of_version_1_that_several_processes_open_is_migrated_once(self, database: Database) -> None:
        put(database, [shown()], [])
        database.transact(as_version_1_had_it)
        openers = [open_database(self.url, SECRET, patience=30) for _ in range(6)]
        with ThreadPoolExecutor(6) as threads:
            list(threads.map(lambda opener: opener.open(), openers))
        for i, opener in enumerate(openers):
            assert put(opener, [shown(f"user {i}")], [])[0] == ("stored",)
            opener.close()
        put(database, [shown("of an open connection")], [])  # as the old release's process still has it
        assert len(kept(database, "exposures")) == 8

    def test_events_keep_the_order_they_came_in(self, store: EventStore, database: Database) -> None:
        for event in clicks("e", 50):
            store.submit([event])
        store.close()
        assert kept(database) == [event.event_id for event in clicks("e", 50)]

    def test_closing_brings_everything_to_the_disk(self, store: EventStore, database: Database) -> None:
        futures = [store.submit(clicks(f"e{i}-", 20)) for i in range(100)]
        for i in range(500):
            store.submit_exposures([shown(f"user {i}")])
        health = store.close()
        assert all(future.done() for future in futures)
        assert (len(kept(database)), len(kept(database, "exposures"))) == (2000, 500)
        assert (health.waiting_events, health.waiting_exposures, health.dropped_exposures) == (0, 0, 0)

    def test_a_closed_store_takes_nothing(self, store: EventStore) -> None:
        store.close()
        with pytest.raises(Unavailable, match="closing"):
            store.submit([click("e")])
        assert not store.submit_exposures([shown()])
        assert store.health().dropped_exposures == 1

    def test_a_submission_withdrawn_in_time_is_not_written(self, database: Database) -> None:
        store = open_store(self.url, SECRET, QueueLimits(linger=30))
        store.submit([click("first")]).result(10)  # after a commit the next group gathers, here for half a minute
        withdrawn, wanted = store.submit([click("withdrawn")]), store.submit([click("wanted")])
        assert withdrawn.cancel()
        store.close()
        assert wanted.result(0) == ("stored",)
        assert set(kept(database)) == ids([click("first"), click("wanted")])

    def test_while_the_database_is_held_events_are_refused_and_exposures_wait(self, database: Database) -> None:
        store = open_store(self.url, SECRET, QUICK)
        with self.held():
            with pytest.raises(Unavailable):
                store.submit([click("refused")]).result(30)
            assert store.submit_exposures([shown()])
            health = store.health()
            assert not health.ready
            assert health.reason
            assert health.failures
            with pytest.raises(Unavailable):
                store.submit([click("refused at once")])
        until(lambda: store.health().ready)
        assert store.submit([click("taken")]).result(30) == ("stored",)
        assert store.close().exposures == {"stored": 1}
        assert set(kept(database)) >= ids([click("taken")])

    def test_queues_are_bounded(self) -> None:
        store = open_store(self.url, SECRET, QueueLimits(waiting_events=10, waiting_exposures=3, retry=30))
        until(lambda: store.health().ready)
        with self.held():
            store.submit([click("on its way")])
            while store.health().waiting_events:
                pass
            store.submit(clicks("e", 10))
            with pytest.raises(Unavailable):
                store.submit([click("too many")])
            assert [store.submit_exposures([shown(f"user {i}")]) for i in range(5)] == [True, True, True, False, False]
            health = store.close(timeout=2)  # it is tried again until then
        assert health.dropped_exposures == 5

    def test_a_store_of_another_key_is_refused(self, database: Database) -> None:
        database.open()
        with pytest.raises(InputError, match="another key"):
            open_store(self.url, Secret(bytes(32)))

    def test_a_snapshot_does_not_move(self, database: Database) -> None:
        put(database, [], clicks("before", 2))
        reader = open_database(self.url, SECRET)
        with reader.snapshot() as session:
            assert session.run("SELECT COUNT(*) FROM events") == [(2,)]
            put(database, [], clicks("after", 3))
            chunks = list(session.stream("SELECT event_id FROM events WHERE station_id = ?", ("17",), 1))
        assert [len(chunk) for chunk in chunks] == [1, 1]
        reader.close()

    def test_work_that_fails_leaves_nothing(self, database: Database) -> None:
        with pytest.raises(ZeroDivisionError):
            database.transact(lambda session: (write(session, [], clicks("e", 2)), 1 // 0))
        assert kept(database) == []

    def test_an_erased_user_is_gone_and_stays_away(self, store: EventStore, database: Database) -> None:
        put(database, [shown("anna"), shown("bert")], [click("a", "anna"), click("b", "anna"), click("c", "bert")])
        erasure = erase(database, SECRET, ["anna", "nobody"], now=NOON)
        assert (erasure.deleted.exposures, erasure.deleted.events, erasure.deleted.sent) == (1, 2, 0)
        assert erasure.compacted
        assert store.submit([click("a", "anna"), click("late", "anna"), click("d", "bert")]).result(10) == (
            "erased",
            "erased",
            "stored",
        )
        store.submit_exposures([shown("anna", "autumn")])
        assert store.close().exposures == {"erased": 1}
        assert set(kept(database)) == ids([click("c"), click("d")])
        assert erased_users(database, SECRET, ["bert", "anna", "carl"]) == {"anna"}

    def test_many_are_erased_at_once(self, database: Database) -> None:
        users = [f"user {i}" for i in range(100)]
        put(database, [], [click(f"e{user}", user) for user in users])
        assert erase(database, SECRET, users[:90], now=NOON).deleted.events == 90
        assert erased_users(database, SECRET, users) == set(users[:90])
        assert len(kept(database)) == 10

    def test_rows_go_out_once_in_the_order_they_came(self, database: Database) -> None:
        put(database, [shown("anna")], [*clicks("a", 3, "anna"), *clicks("b", 2, "bert")])
        taken: list[bytes] = []

        class Taker:
            def put_record_batch(self, *, DeliveryStreamName: str, Records: list[Record]) -> FirehoseReply:
                assert DeliveryStreamName == "lake"
                taken.extend(record["Data"] for record in Records)
                return {"RequestResponses": [{"ErrorCode": "no"}, *({} for _ in Records[1:])]}

        sink = FirehoseSink(Taker(), {"events": "lake"}, scope="lake")
        assert send(database, sink, "events") == ForwardTally(sent=2, failed=3)
        assert send(database, sink, "events") == ForwardTally(failed=3)
        assert [record.count(b"\n") for record in taken] == [3, 2, 3]
        assert taken[0] == taken[2]

    def test_an_experiment_is_exported_with_its_flags(self, database: Database, tmp_path: Path) -> None:
        put(
            database,
            [shown("anna"), shown("bert", "autumn")],
            [
                click("in order", "anna", minutes=1),
                click("early", "anna", minutes=-1),
                click("late", "anna", minutes=1, flag="late"),
                click("orphan", "nobody"),
                click("elsewhere", "bert", minutes=1),
            ],
        )
        exported = export(database, tmp_path / "out", "spring", chunk=2)
        assert exported == Exported(exposures=1, events={"": 1, "early": 1, "late": 1, "orphan": 1})
