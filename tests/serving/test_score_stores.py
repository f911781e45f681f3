"""Batch answers in a key-value store: all of a run or nothing of it, whatever the store leaves undone."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from botocore.exceptions import ClientError
from stand_in_sagemaker import control_plane

from firstspin.records import InputError, Ranking, StoredAnswer
from firstspin.serving.score_stores import (
    MAX_ITEMS,
    DynamoScores,
    MalformedRow,
    ScoreReader,
    SqliteReader,
    SqliteScores,
    open_scores,
)


def answer(genre: str) -> Ranking:
    return Ranking((genre, "Other"), (0.75, 0.25), "model")


def first_genre(store: ScoreReader, user: str = "u1") -> str:
    found = store.get(user)
    assert found is not None
    return found.ranking.genres[0]


def opened_in(folder: Path) -> set[str]:
    """The files of a folder that this process has open; a deleted one says so."""
    files = [str(link.readlink()) for link in list(Path("/proc/self/fd").iterdir()) if link.is_symlink()]
    return {file for file in files if file.startswith(str(folder))}


def batches(genre: str, users: int = 60) -> Iterator[tuple[list[str], list[Ranking]]]:
    yield [f"u{i}" for i in range(users)], [answer(genre)] * users


class Table:
    """A DynamoDB table at its worst: takes 25 items a call and leaves a third of them unprocessed."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], dict[str, Any]] = {}
        self.calls = 0

    def batch_write_item(self, RequestItems: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
        ((name, requests),) = RequestItems.items()
        assert len(requests) <= MAX_ITEMS
        self.calls += 1
        taken = requests[: -(len(requests) // 3)] if len(requests) >= 3 else requests
        for request in taken:
            self.put_item(name, request["PutRequest"]["Item"])
        left = requests[len(taken) :]
        return {"UnprocessedItems": {name: left} if left else {}}

    def put_item(self, TableName: str, Item: dict[str, Any]) -> None:  # noqa: ARG002
        self.items[Item["user_id"]["S"], Item["version"]["S"]] = Item

    def get_item(self, TableName: str, Key: dict[str, Any], ConsistentRead: bool) -> dict[str, Any]:  # noqa: ARG002
        assert ConsistentRead
        item = self.items.get((Key["user_id"]["S"], Key["version"]["S"]))
        return {"Item": item} if item else {}


@pytest.fixture(params=["sqlite", "dynamodb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqliteScores | DynamoScores]:
    if request.param == "sqlite":
        with closing(SqliteScores(tmp_path / "scores.db")) as sqlite:
            yield sqlite
    else:
        yield DynamoScores("scores", Table(), sleep=lambda _: None, rng=np.random.default_rng(0))


def test_every_answer_can_be_read_back(store: SqliteScores | DynamoScores) -> None:
    store.write("3f2a9c1b.20261123T040000", batches("Rock"))
    assert [store.get(f"u{i}") for i in range(60)] == [
        StoredAnswer("3f2a9c1b", Ranking(("Rock", "Other"), (0.75, 0.25), "batch"))
    ] * 60
    assert store.get("nobody") is None


def test_an_empty_store_knows_nobody(store: SqliteScores | DynamoScores) -> None:
    assert store.get("u1") is None


def test_a_run_is_seen_only_when_it_is_whole(store: SqliteScores | DynamoScores) -> None:
    store.write("one", batches("Rock"))

    def broken() -> Iterator[tuple[list[str], list[Ranking]]]:
        yield from batches("Jazz", 30)
        assert first_genre(store) == "Rock"  # half of the new run lies there, unseen
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        store.write("two", broken())
    assert first_genre(store) == "Rock"
    store.write("three", batches("Jazz"))
    assert first_genre(store) == "Jazz"


def test_a_user_who_is_scored_twice_has_the_later_answer(store: SqliteScores | DynamoScores) -> None:
    store.write("one", iter([(["u", "u"], [answer("Rock"), answer("Jazz")])]))
    assert first_genre(store, "u") == "Jazz"


@pytest.mark.parametrize(
    "row",
    [
        b"{",
        None,
        b'{"genres":[],"probabilities":[],"source":"model"}',
        b'{"genres":["Rock","Jazz"],"probabilities":[0.5],"source":"model"}',
        b'{"genres":["Rock","Rock"],"probabilities":[0.5,0.5],"source":"model"}',
        b'{"genres":["Rock"],"probabilities":[1.1],"source":"model"}',
        b'{"genres":["Rock"],"probabilities":[-0.1],"source":"model"}',
    ],
    ids=["no JSON", "empty", "no genre", "two lengths", "a genre twice", "over 1", "under 0"],
)
def test_a_malformed_row_is_nobodys_answer(row: bytes | None, store: SqliteScores | DynamoScores) -> None:
    store.write("one", batches("Rock", 1))
    if isinstance(store, DynamoScores):
        store._client.items["u0", "one"]["answer"] = {"NULL": True} if row is None else {"B": row}
    else:
        store._connection.execute("UPDATE scores SET answer = ?", [row])
    with pytest.raises(MalformedRow):
        store.get("u0")


@pytest.mark.parametrize("nobody", [[], [([], [])]], ids=["no batch", "an empty batch"])
def test_a_run_that_answers_nobody_is_refused_and_the_run_before_stays(
    nobody: list[tuple[list[str], list[Ranking]]], store: SqliteScores | DynamoScores
) -> None:
    store.write("one", batches("Rock"))
    with pytest.raises(
        InputError, match=r"scores.*: there are no registrations to score; the stored answers are not changed"
    ):
        store.write("two", iter(nobody))
    assert first_genre(store) == "Rock"


def test_a_table_that_takes_nothing_is_an_error_and_the_old_run_stays() -> None:
    table = Table()
    store = DynamoScores("scores", table, sleep=lambda _: None)
    store.write("one", batches("Rock"))
    table.batch_write_item = lambda RequestItems: {"UnprocessedItems": RequestItems}  # type: ignore[method-assign]
    with pytest.raises(InputError, match="dynamodb:scores left 25 items unwritten"):
        store.write("two", batches("Jazz"))
    assert first_genre(store) == "Rock"


def throttled() -> ClientError:
    error = {"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}
    return ClientError(error, "BatchWriteItem")  # type: ignore[arg-type]


class TestALongRun:
    """Several batches into a table that throttles whole calls and breaks off."""

    class Throttling(Table):
        """Refuses each call whole when it first comes; gone for the user `breaks` and later ones."""

        def __init__(self, breaks: str = "v") -> None:
            super().__init__()
            self.breaks, self.came, self.written, self._lock = breaks, set[str](), list[str](), threading.Lock()

        def batch_write_item(self, RequestItems: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
            ((_, requests),) = RequestItems.items()
            users = [one["PutRequest"]["Item"]["user_id"]["S"] for one in requests]
            with self._lock:
                if max(users) >= self.breaks:
                    raise ConnectionError("gone")
                if users[0] not in self.came:
                    self.came.add(users[0])
                    raise throttled()
                self.written += users
                return super().batch_write_item(RequestItems)

    @staticmethod
    def run(users: int = 300, genre: str = "Rock") -> Iterator[tuple[list[str], list[Ranking]]]:
        """Batches of 100 users, of whom each has an answer of its own."""
        names = [f"u{i:04}" for i in range(users)]
        for start in range(0, users, 100):
            yield names[start : start + 100], [answer(f"{genre} of {name}") for name in names[start : start + 100]]

    @staticmethod
    def store(table: Table, now: datetime = datetime(2026, 11, 23, tzinfo=UTC)) -> DynamoScores:
        return DynamoScores("scores", table, sleep=lambda _: None, rng=np.random.default_rng(0), now=lambda: now)

    def broken(self) -> Throttling:
        """A table whose run broke off in its third batch."""
        table = self.Throttling(breaks="u0210")
        with pytest.raises(ConnectionError):
            self.store(table).write("b1.20261123T040000", self.run())
        assert table.items["#writing", "#writing"]["done"] == {"N": "2"}
        table.breaks = "v"
        table.written.clear()
        return table

    def test_that_is_throttled_whole_is_written_whole(self) -> None:
        table = self.Throttling()
        self.store(table).write("b1.one", self.run())
        assert [first_genre(self.store(table), f"u{i:04}") for i in range(300)] == [
            f"Rock of u{i:04}" for i in range(300)
        ]

    def test_that_is_throttled_for_ever_ends_and_changes_nothing(self) -> None:
        table = Table()
        self.store(table).write("b1.one", self.run())

        def never(RequestItems: object) -> dict[str, Any]:  # noqa: ARG001
            raise throttled()

        table.batch_write_item = never  # type: ignore[assignment,method-assign]
        with pytest.raises(InputError, match="left 25 items unwritten after 8 tries"):
            self.store(table).write("b1.two", self.run(genre="Jazz"))
        assert first_genre(self.store(table), "u0000") == "Rock of u0000"

    def test_that_broke_off_goes_on_where_it_was(self) -> None:
        table = self.broken()
        assert self.store(table).get("u0000") is None
        self.store(table).write("b1.20261123T050000", self.run())
        assert min(table.written) == "u0200"
        assert [first_genre(self.store(table), f"u{i:04}") for i in range(300)] == [
            f"Rock of u{i:04}" for i in range(300)
        ]

    @pytest.mark.parametrize(
        ("version", "genre", "days"),
        [("b2.20261123T050000", "Rock", 0), ("b1.20261123T050000", "Jazz", 0), ("b1.20261125T050000", "Rock", 2)],
        ids=["another bundle", "other answers", "two days later"],
    )
    def test_is_not_mixed_with_another(self, version: str, genre: str, days: int) -> None:
        table = self.broken()
        store = self.store(table, datetime(2026, 11, 23 + days, tzinfo=UTC))
        store.write(version, self.run(genre=genre))
        assert min(table.written) == "u0000"
        assert {first_genre(store, f"u{i:04}").split()[0] for i in range(300)} == {genre}

    def test_whose_registrations_changed_below_the_mark_is_refused_once_and_then_begins_anew(self) -> None:
        table = self.broken()
        changed = list(self.run())
        changed[1] = changed[1][0], changed[0][1]
        mark = table.items["#writing", "#writing"]
        for batches in (changed, changed[:1]):
            table.items["#writing", "#writing"] = mark
            with pytest.raises(InputError, match=r"others than those of the run b1\.2026.*, which broke off"):
                self.store(table).write("b1.two", iter(batches))
        assert self.store(table).get("u0000") is None
        table.written.clear()
        self.store(table).write("b1.two", iter(changed))
        assert min(table.written) == "u0000"
        assert first_genre(self.store(table), "u0150") == "Rock of u0050"

    def test_that_broke_off_yesterday_does_not_fail_todays_registrations(self) -> None:
        table = self.broken()
        changed = list(self.run())
        changed[1] = changed[1][0], changed[0][1]
        store = self.store(table, datetime(2026, 11, 23, 23, tzinfo=UTC))  # the next daily run, after a late break
        store.write("b1.20261124T040000", iter(changed))
        assert min(table.written) == "u0000"
        assert first_genre(store, "u0150") == "Rock of u0050"

    def test_outlives_a_long_weekend_and_says_when_it_was_written(self) -> None:
        table = Table()
        self.store(table).write("b1.one", self.run(1))
        written = datetime(2026, 11, 23, tzinfo=UTC)
        assert table.items["u0000", "b1.one"]["expires"] == {"N": str(int((written + timedelta(days=14)).timestamp()))}
        assert table.items["#current", "#current"]["written"] == {"N": str(int(written.timestamp()))}
        assert "expires" not in table.items["#current", "#current"]


def test_a_url_of_another_kind_is_refused() -> None:
    with pytest.raises(InputError, match="invalid store URL"):
        open_scores("redis:scores")


class TestAnSqliteFile:
    @pytest.fixture
    def opened(self) -> Iterator[Callable[[Path], SqliteScores]]:
        with ExitStack() as stack:
            yield lambda path: stack.enter_context(closing(SqliteScores(path)))

    def test_a_second_run_at_once_is_refused_and_readers_go_on_with_the_run_before(
        self, opened: Callable[[Path], SqliteScores], tmp_path: Path
    ) -> None:
        path = tmp_path / "scores.db"
        one, two = opened(path), opened(path)
        two._connection.execute("PRAGMA busy_timeout = 0")

        def disturbed() -> Iterator[tuple[list[str], list[Ranking]]]:
            yield from batches("Rock", 30)
            assert opened(path).get("u1") is None  # opened and read while the run is under way
            with pytest.raises(InputError, match=rf"sqlite:{path}: database is locked \(is another run writing to it"):
                two.write("two", batches("Jazz", 5))
            yield [f"u{i}" for i in range(30, 60)], [answer("Rock")] * 30

        one.write("one", disturbed())
        assert [first_genre(two, f"u{i}") for i in range(60)] == ["Rock"] * 60
        two.write("two", batches("Jazz"))
        assert first_genre(one) == "Jazz"

    def test_a_run_waits_for_a_short_one(self, opened: Callable[[Path], SqliteScores], tmp_path: Path) -> None:
        one, two = opened(tmp_path / "scores.db"), opened(tmp_path / "scores.db")
        later = threading.Thread(target=two.write, args=("two", batches("Jazz")))

        def meanwhile() -> Iterator[tuple[list[str], list[Ranking]]]:
            later.start()
            yield from batches("Rock")

        one.write("one", meanwhile())
        later.join()
        assert [first_genre(one, f"u{i}") for i in range(60)] == ["Jazz"] * 60

    def test_what_a_killed_run_wrote_was_never_there(
        self, opened: Callable[[Path], SqliteScores], tmp_path: Path
    ) -> None:
        path = tmp_path / "scores.db"
        opened(path).write("one", batches("Rock"))
        killed = """
import os, signal, sys
from pathlib import Path
from firstspin.serving.score_stores import SqliteScores
from firstspin.records import Ranking
def batches():
    yield [f"k{i}" for i in range(50_000)], [Ranking(("Jazz",), (1.0,), "model")] * 50_000
    os.kill(os.getpid(), signal.SIGKILL)
SqliteScores(Path(sys.argv[1])).write("killed", batches())
"""
        assert subprocess.run([sys.executable, "-c", killed, str(path)], check=False).returncode == -signal.SIGKILL
        store = opened(path)
        assert (first_genre(store), store.get("k1")) == ("Rock", None)
        store.write("two", batches("Jazz"))
        versions = store._connection.execute("SELECT version, count(*) FROM scores GROUP BY version").fetchall()
        assert versions == [("one", 60), ("two", 60)]
        assert first_genre(store) == "Jazz"

    def test_only_the_two_latest_runs_are_kept(self, opened: Callable[[Path], SqliteScores], tmp_path: Path) -> None:
        store = opened(tmp_path / "scores.db")
        for version in ("c", "a", "b"):
            store.write(version, batches("Rock"))
        assert store._connection.execute("SELECT DISTINCT version FROM scores").fetchall() == [("a",), ("b",)]

    def test_a_full_disk_is_told_and_the_run_before_stays(
        self, opened: Callable[[Path], SqliteScores], tmp_path: Path
    ) -> None:
        store = opened(tmp_path / "scores.db")
        store.write("one", batches("Rock"))
        store._connection.execute("PRAGMA max_page_count = 20")
        with pytest.raises(InputError, match=r"sqlite:.*scores\.db: database or disk is full"):
            store.write("two", batches("Jazz", 5000))
        assert first_genre(store) == "Rock"

    def test_a_reader_closes_the_connection_to_a_file_that_was_replaced(self, tmp_path: Path) -> None:
        path = tmp_path / "scores.db"
        with closing(SqliteReader(path)) as reader:
            assert reader.get("u1") is None  # no file yet
            for genre in ("Rock", "Jazz"):
                path.unlink(missing_ok=True)
                with closing(SqliteScores(path)) as store:
                    store.write(genre, batches(genre))
                assert first_genre(reader) == genre
                assert [file for file in opened_in(tmp_path) if file.endswith("(deleted)")] == []
        assert opened_in(tmp_path) == set()

    @pytest.mark.parametrize(
        ("wrong", "reason"),
        [
            ("folder", "is a folder; name a file in it"),
            ("text", "is not an SQLite file; name another one, it is left as it is"),
            ("other", "has other tables than those of `firstspin score`; it is not changed"),
        ],
    )
    def test_what_is_no_database_is_refused_by_name(self, wrong: str, reason: str, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "text").write_text("a list of things to do\n" * 100)
        with closing(sqlite3.connect(tmp_path / "other")) as connection, connection:
            connection.execute("CREATE TABLE places (url TEXT)")
        with pytest.raises(InputError, match=f"^{tmp_path / wrong} {reason}$"):
            open_scores(f"sqlite:{tmp_path / wrong}")

    @pytest.mark.parametrize(
        ("url", "meant"),
        [
            (
                "sqlite://scores.db",
                "expected sqlite:scores.db for a file under the working folder, or sqlite:/scores.db",
            ),
            ("sqlite:///var/scores.db", "or sqlite:/var/scores.db for an absolute path"),
            ("sqlite::memory:", "invalid store URL"),
        ],
    )
    def test_an_address_with_slashes_too_many_is_refused_with_the_right_spelling(self, url: str, meant: str) -> None:
        with pytest.raises(InputError, match=re.escape(meant)):
            open_scores(url)


class TestDynamoDBInTrouble:
    """What AWS says is one clear line with the table's name or the setting at fault (moto's DynamoDB)."""

    @pytest.fixture(autouse=True)
    def environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in {
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_CONFIG_FILE": str(tmp_path / "none"),
            "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": "http://127.0.0.1:1",  # nothing here may ever reach AWS
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it remembers credentials

    @pytest.fixture
    def moto(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        with control_plane() as server:
            monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
            yield

    @pytest.mark.usefixtures("moto")
    def test_a_table_that_is_not_there(self) -> None:
        assert said("nowhere").startswith("dynamodb:nowhere: ResourceNotFoundException: ")

    @pytest.mark.usefixtures("moto")
    def test_a_table_with_other_keys(self) -> None:
        boto3.client("dynamodb").create_table(
            TableName="other",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        assert said("other").startswith("dynamodb:other: ValidationException: ")

    def test_no_region(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_DEFAULT_REGION")
        assert said("scores") == "AWS: You must specify a region. Set AWS_DEFAULT_REGION, as for any AWS tool."

    def test_no_credentials(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        assert said("scores").startswith("dynamodb:scores: Unable to locate credentials: set them as for any AWS tool")

    @pytest.mark.parametrize("url", ["localhost:8000", "http://[::1", "http://127.0.0.1:port"])
    def test_an_address_that_is_none(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        assert said("scores").startswith("AWS: a setting such as AWS_ENDPOINT_URL can't be used: ")

    def test_a_name_that_can_be_none(self) -> None:
        with pytest.raises(InputError, match=r"^dynamodb:: Parameter validation failed: Invalid length .*$"):
            DynamoScores("", boto3.client("dynamodb")).write("one", batches("Rock"))


DYNALITE = Path(__file__).parent.parent / "dynalite"
LISTEN = """
const server = require('dynalite')({createTableMs: 0})
server.listen(0, '127.0.0.1', () => console.log(server.address().port))
"""


@pytest.mark.skipif(
    not (shutil.which("node") and (DYNALITE / "node_modules" / ".package-lock.json").exists()),
    reason=f"DynamoDB's limits are not tested: `make test` finds no npm and Node 20 to install {DYNALITE}",
)
class TestDynamoDBsLimits:
    """dynalite refuses what DynamoDB refuses, where moto and our stand-in may be kinder."""

    @pytest.fixture
    def client(self) -> Iterator[Any]:
        with subprocess.Popen(["node", "-e", LISTEN], cwd=DYNALITE, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                yield boto3.client(
                    "dynamodb",
                    endpoint_url=f"http://127.0.0.1:{int(server.stdout.readline())}",
                    region_name="eu-west-1",
                    aws_access_key_id="a",
                    aws_secret_access_key="b",
                )
            finally:
                server.terminate()

    @pytest.fixture(autouse=True)
    def table(self, client: Any) -> None:
        keys = {"user_id": "HASH", "version": "RANGE"}
        client.create_table(
            TableName="scores",
            KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in keys.items()],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in keys],
            BillingMode="PAY_PER_REQUEST",
        )
        client.get_waiter("table_exists").wait(TableName="scores", WaiterConfig={"Delay": 0.05})

    def test_a_run_is_written_and_read_back(self, client: Any) -> None:
        store = DynamoScores("scores", client)
        store.write("3f2a9c1b.20261123T040000", batches("Rock"))
        assert [first_genre(store, f"u{i}") for i in range(60)] == ["Rock"] * 60
        assert store.get("nobody") is None

    def test_more_items_a_call_are_refused_there_and_by_our_stand_in(self, client: Any) -> None:
        keys = [{"user_id": {"S": f"u{i}"}, "version": {"S": "one"}} for i in range(MAX_ITEMS + 1)]
        requests = {"scores": [{"PutRequest": {"Item": key}} for key in keys]}
        with pytest.raises(ClientError, match=r"ValidationException.* 25"):
            client.batch_write_item(RequestItems=requests)
        with pytest.raises(AssertionError):
            Table().batch_write_item(requests)


def said(table: str) -> str:
    """The one line of a `score` into a table that can't be written."""
    with pytest.raises(InputError) as problem:
        open_scores(f"dynamodb:{table}").write("one", batches("Rock"))
    assert "\n" not in str(problem.value)
    return str(problem.value)
