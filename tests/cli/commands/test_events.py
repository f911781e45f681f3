"""`firstspin events`: who is erased is gone from the store, late events and training; rows go out as tables."""

from __future__ import annotations

import json
import os
import shlex
import sqlite3
import subprocess
import sys
from codecs import BOM_UTF8
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import made_people
import msgspec
import pyarrow.parquet as pq
import pytest
from command_line import failed, firstspin
from made_bundles import pack
from made_events import NOON, SECRET, click, shown
from made_experiments import PLAN
from made_service import exchange, request, serving
from private_postgres import cluster, missing
from stand_in_firehose import firehose

from firstspin import learn
from firstspin.data import erasure, ingest
from firstspin.data.dataset import Reading
from firstspin.data.stations import station_popularity
from firstspin.events.database import Database, write
from firstspin.events.erasure import erase, erased_users
from firstspin.events.schema import candidates_json
from firstspin.events.slot_log import GREEDY, SLOT
from firstspin.events.store import open_database
from firstspin.experiment.plan import experiment_key, freeze
from firstspin.serving import bundle

USERS = ("u1", "u2", "u3")
KEY = experiment_key(PLAN)


@dataclass(frozen=True)
class Stored:
    """An event store with a click and an exposure of each of three users, as the commands name it."""

    url: str
    secret: Path

    @property
    def options(self) -> tuple[str, ...]:
        return ("--events", self.url, "--events-secret", str(self.secret))

    @contextmanager
    def opened(self) -> Iterator[Database]:
        with closing(open_database(self.url, SECRET)) as database:
            database.open()
            yield database

    def rows(self) -> tuple[int, int]:
        with self.opened() as database, database.snapshot() as session:
            counts = (session.run(f"SELECT COUNT(*) FROM {table}")[0][0] for table in ("exposures", "events"))
            return next(counts), next(counts)


def filled(url: str, folder: Path) -> Stored:
    secret = folder / "events.secret"
    secret.write_text(bytes(range(32)).hex())
    stored = Stored(url, secret)
    with stored.opened() as database:
        exposures = [shown(user, KEY) for user in USERS]
        events = [click(f"{user} clicks", user, minutes=5) for user in USERS]
        database.transact(lambda session: write(session, exposures, events))
    return stored


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    return filled(f"sqlite:///{tmp_path / 'events.sqlite'}", tmp_path)


def erased_on_the_command_line(stored: Stored, folder: Path) -> None:
    """Erase u1 by name, and u2 and one unknown by a file; what comes of them later is refused."""
    listed = folder / "users.txt"
    listed.write_text("u2\nnobody\n")
    done = firstspin("events", "erase", "u1", "--users", listed, *stored.options)
    assert done.returncode == 0, done.stderr
    assert "3 users are erased; 2 exposures and 2 events were deleted" in done.stdout
    assert stored.rows() == (1, 1)
    with stored.opened() as database:
        late = [click("late", "u1"), click("in time", "u3")]
        written = database.transact(lambda session: write(session, [shown("u2", KEY, station_id="4")], late))
    assert (written.exposures, written.events) == (("erased",), ("erased", "stored"))


def test_only_a_line_feed_or_carriage_return_ends_an_id_in_a_list(tmp_path: Path) -> None:
    users = ["u\x85", "u\u2028v", "u\x1cw"]  # str.splitlines divides each of them
    database = Stored(f"sqlite:///{tmp_path / 'events.sqlite'}", tmp_path / "events.secret")
    database.secret.write_text(bytes(range(32)).hex())
    with database.opened() as opened:
        opened.transact(lambda session: write(session, [shown(user, KEY) for user in users], []))
    listed = tmp_path / "users.txt"
    listed.write_bytes(BOM_UTF8 + "\r\n".join(users).encode())
    done = firstspin("events", "erase", "--users", listed, *database.options)
    assert "3 users are erased; 3 exposures and 0 events were deleted" in done.stdout, done.stderr


def test_erased_users_do_not_return_to_sqlite(stored: Stored, tmp_path: Path) -> None:
    erased_on_the_command_line(stored, tmp_path)


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_erased_users_do_not_return_to_postgresql(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="needs the extra 'postgres'")
    with cluster() as server:
        erased_on_the_command_line(filled(server.url, tmp_path), tmp_path)


def test_training_and_labels_leave_out_the_erased_and_say_so(stored: Stored, tmp_path: Path) -> None:
    data = made_people.tables(tmp_path / "data", 60)
    with stored.opened() as database:
        erase(database, SECRET, USERS, now=NOON)
        reading = Reading(erased=lambda users: erased_users(database, SECRET, users))
        census, ignored = learn.label(data, tmp_path / "labels.parquet", reading)
    assert (census.registered, ignored) == (57, {"users who were erased": 3})
    labelled = pq.read_table(tmp_path / "labels.parquet")["user_id"].to_pylist()
    assert set(labelled) == {f"u{i}" for i in range(60)} - set(USERS)
    gone = ("--erased", stored.url, "--events-secret", stored.secret)
    done = firstspin("train", "--data", data, "--out", tmp_path / "b", "--model", "popularity", *gone)
    assert done.returncode == 0, done.stderr
    assert "3: users who were erased" in done.stdout
    about = bundle.load(tmp_path / "b").manifest.data
    assert (about["registered"], about["labelled"]) == (57, 57)


def test_listens_of_the_erased_make_no_station_popular(tmp_path: Path) -> None:
    data = made_people.tables(tmp_path / "data", 60)
    with connect_tables(data, tmp_path) as found:
        everybody = sum(seconds for _, seconds in station_popularity(found))
        erasure.leave_out_erased(found, lambda _: ("u0", "nobody"))
        assert everybody - sum(seconds for _, seconds in station_popularity(found)) == 900 + 1


@contextmanager
def connect_tables(data: Path, workspace: Path) -> Iterator[ingest.Tables]:
    found = ingest.open_tables(data, workspace=workspace)
    with closing(found.connection):
        yield found


def test_the_exploration_slot_is_exported_by_its_name(stored: Stored, tmp_path: Path) -> None:
    made = shown("bert", SLOT, station_id="4", arm=SLOT)
    slot = msgspec.structs.replace(made, candidates=candidates_json({GREEDY: ["17"]}), carousel=5, relevance=0.37)
    with stored.opened() as database:
        database.transact(lambda session: write(session, [slot], []))
    done = firstspin("events", "export", "--out", tmp_path / "log", "--slot", *stored.options)
    assert done.returncode == 0, done.stderr
    [row] = pq.read_table(tmp_path / "log" / "exposures.parquet").to_pylist()
    assert (row["station_id"], row["propensity"], row["carousel"], row["relevance"]) == ("4", 0.5, 5, 0.37)
    assert row["candidates_greedy"] == ["17"]
    for wrong in ((), ("--slot", "--plan", tmp_path / "plan.toml")):
        refused = firstspin("events", "export", "--out", tmp_path / "log", *wrong, *stored.options)
        assert refused.returncode == 2
        assert "give --plan PLAN, or --slot" in refused.stderr


def test_an_export_holds_no_id_and_a_sealed_plan_reads_it(stored: Stored, tmp_path: Path) -> None:
    plan = tmp_path / "experiment.toml"
    freeze(PLAN, plan)
    out = tmp_path / "the log"
    done = firstspin("events", "export", "--out", out, "--plan", plan, *stored.options)
    assert done.returncode == 0, done.stderr
    assert "3 exposures and 3 events" in done.stdout
    exposures = pq.read_table(out / "exposures.parquet")
    assert exposures["experiment"].to_pylist() == [KEY] * 3
    assert not set(exposures["user_key"].to_pylist()) & set(USERS)
    *_, last = done.stdout.splitlines()
    assert last == f"Next: firstspin experiment analyse --exported '{out}' --plan {plan}"
    read = firstspin(*shlex.split(last.removeprefix("Next: firstspin ")), "--json")
    assert read.returncode == 0, read.stderr
    assert json.loads(read.stdout)["users"] == {"rule": 0, "model": 3}  # so far


def test_rows_go_on_to_firehose_once_and_a_failing_sink_keeps_them_waiting(stored: Stored) -> None:
    pytest.importorskip("boto3", reason="needs the extra 'aws'")
    names = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "none")
    streams = ("--exposures-stream", "lake-exposures", "--events-stream", "lake-events")
    with firehose() as sink:

        def forwarded() -> subprocess.CompletedProcess[str]:
            words = ("events", "forward", "--once", *streams, "--endpoint-url", sink.url, *stored.options)
            command = [sys.executable, "-m", "firstspin", *words]
            environment = os.environ | names | {"AWS_DEFAULT_REGION": "eu-west-1"}
            return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)

        sink.error = (500, "InternalFailure")
        assert "could not be sent; they wait in the store" in forwarded().stderr
        sink.error = None
        assert "6 rows sent" in forwarded().stdout
        assert [len(sink.lines[f"lake-{table}"]) for table in ("exposures", "events")] == [3, 3]


def test_a_wrong_secret_or_no_user_is_told_in_a_line(stored: Stored, tmp_path: Path) -> None:
    other = tmp_path / "other.secret"
    other.write_text(bytes(32).hex())
    message = failed("events", "erase", "u1", "--events", stored.url, "--events-secret", other)
    assert "written under another key" in message
    assert stored.rows() == (3, 3)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE exposures SET candidates = '{'",
        "UPDATE exposures SET decided_at = 'noon'",
        "UPDATE exposures SET user_hash = 'anna'",
        "UPDATE exposures SET propensity = 'half'",
        "UPDATE exposures SET decided_at = 9000000000000000000",
    ],
)
def test_a_store_whose_rows_somebody_changed_is_told_in_a_sentence(
    damage: str, stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("boto3", reason="needs the extra 'aws'")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    freeze(PLAN, plan := tmp_path / "experiment.toml")
    with closing(sqlite3.connect(tmp_path / "events.sqlite")) as connection, connection:
        connection.execute(damage)
    out = tmp_path / "out"
    exported = firstspin("events", "export", "--out", out, "--plan", plan, *stored.options)
    said = "the event store has rows that firstspin did not write; they can't be exported\n"
    assert (exported.returncode, exported.stderr) in [(1, said), (0, "")]
    assert list(out.glob("*")) == [] or exported.returncode == 0
    with firehose() as sink:
        words = ("events", "forward", "--once", "--exposures-stream", "lake", "--endpoint-url", sink.url)
        forwarded = firstspin(*words, *stored.options)
    assert "Traceback" not in forwarded.stderr + exported.stderr


@pytest.mark.parametrize(
    ("store", "words"),
    [
        ("mysql://a/b", "invalid event store URL mysql:…; expected sqlite:///PATH or postgresql://HOST/NAME"),
        ("sqlite://events.sqlite", "expected sqlite:///events.sqlite (under the working folder)"),
        ("sqlite:///{here}/typo.sqlite", "does not exist"),
        ("sqlite:///{here}/events.secret", "events.secret is not an event store"),
        ("postgresql://127.0.0.1:1/x", "the event store can't be used just now: PostgreSQL: "),
    ],
)
@pytest.mark.parametrize("command", ["erase", "export", "forward", "analyse", "label"])
def test_a_store_that_cannot_be_used_is_told_in_a_sentence(
    store: str, words: str, command: str, stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    freeze(PLAN, plan := tmp_path / "experiment.toml")
    made_people.tables(tmp_path / "data", 5)
    given = ("--events", store.format(here=tmp_path), "--events-secret", stored.secret)
    commands = {
        "erase": ("events", "erase", "u1", *given),
        "export": ("events", "export", "--out", tmp_path / "out", "--plan", plan, *given),
        "forward": ("events", "forward", "--once", "--events-stream", "lake", "--endpoint-url", "http://127.0.0.1:1"),
        "analyse": ("experiment", "analyse", "--plan", plan, *given),
        "label": ("label", "--data", tmp_path / "data", "--out", tmp_path / "labels.parquet", "--erased", *given[1:]),
    }
    if command == "forward":
        pytest.importorskip("boto3", reason="needs the extra 'aws'")
        commands["forward"] += given
    said = failed(*commands[command])
    assert words in said
    assert "\n" not in said
    assert not (tmp_path / "typo.sqlite").exists()


def test_users_are_erased_over_the_admin_port_many_calls_at_a_time(stored: Stored, tmp_path: Path) -> None:
    pack(tmp_path / "b")
    with stored.opened() as database:
        events = [click(f"click {user}", f"user {user}") for user in range(40)]
        database.transact(lambda session: write(session, [], events))
    with serving(tmp_path / "b", "--drain-delay", "0", "--admin-port", "0", *stored.options) as service:
        port = next(line["port"] for line in service.lines() if line["event"] == "admin port")

        def ask(user: int) -> tuple[int, int]:
            body = json.dumps({"user_ids": [f"user {user}"]}).encode()
            with service.connect(port) as connection:
                status, _, said = exchange(connection, request("POST", "/erase", body, connection="close"))
            return status, json.loads(said)["deleted"]["events"]

        with ThreadPoolExecutor(8) as callers:
            assert list(callers.map(ask, range(40))) == [(200, 1)] * 40
    assert stored.rows() == (3, 3)
