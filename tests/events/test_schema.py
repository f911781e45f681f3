"""What comes in as an event, what is kept of it, and what is not."""

import json
import multiprocessing
import re
import stat
import tracemalloc
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstspin.events.schema import (
    EPOCH,
    FUTURE,
    LATE,
    MAX_EVENTS,
    Batch,
    Event,
    Exposure,
    Secret,
    exposure,
    microseconds,
    read_batch,
    read_secret,
    results,
    scoped,
    tombstone,
)
from firstspin.records import InputError

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
SECRET = Secret(bytes(range(32)))
CLICK = {"event_id": "e1", "type": "click", "user_id": "u1", "station_id": "17", "at": "2026-01-31T11:59:58Z"}
LISTEN = CLICK | {"event_id": "e2", "type": "listen", "seconds": 180}


def read(*items: object) -> Batch:
    return read_batch(json.dumps({"events": items}).encode(), SECRET, received_at=NOW)


def answers(batch: Batch) -> list[dict[str, object]]:
    return msgspec.to_builtins(results(batch, ["stored"] * len(batch.events)))


def test_a_click_and_a_listen_are_stored_with_both_times() -> None:
    click, listen = read(CLICK, LISTEN).events
    assert (click.type, click.station_id, click.seconds, click.flag) == ("click", "17", None, "")
    assert (listen.type, listen.seconds) == ("listen", 180.0)
    assert EPOCH + timedelta(microseconds=click.at) == datetime(2026, 1, 31, 11, 59, 58, tzinfo=UTC)
    assert EPOCH + timedelta(microseconds=click.received_at) == NOW


@pytest.mark.parametrize(
    "at",
    ["2026-01-31t11:59:58z", "2026-01-31 11:59:58 UTC", "2026-01-31T12:59:58+01", " 2026-01-31T11:59:58.000000000Z"],
)
def test_times_of_events_are_spelled_as_in_tables(at: str) -> None:
    (event,) = read(CLICK | {"at": at}).events
    assert event.at == microseconds(datetime(2026, 1, 31, 11, 59, 58, tzinfo=UTC))
    (event,) = read(CLICK | {"at": "2026-01-31T11:59Z"}).events
    assert event.at == microseconds(datetime(2026, 1, 31, 11, 59, tzinfo=UTC))


def test_one_bad_event_of_a_hundred_leaves_ninety_nine() -> None:
    items = [CLICK | {"event_id": f"e{i}"} for i in range(100)]
    items[41] = items[41] | {"at": "yesterday"}
    batch = read(*items)
    answer = answers(batch)
    assert len(batch.events) == 99
    assert [item["event_id"] for item in answer] == [f"e{i}" for i in range(100)]
    assert [i for i, item in enumerate(answer) if item["status"] != "stored"] == [41]
    assert answer[41]["error"] == "at is a time since 1971 with a time zone, like 2026-01-31T12:00:00Z"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"event_id": ""}, "event_id"),
        ({"event_id": "x" * 201}, "event_id"),
        ({"event_id": "a\u0000b"}, "event_id"),
        ({"user_id": None}, "user_id"),
        ({"user_id": 17}, "user_id"),
        ({"user_id": "line\nbreak"}, "user_id"),
        ({"station_id": ""}, "station_id"),
        ({"station_id": "a\u202eb"}, "station_id"),
        ({"type": "view"}, "type"),
        ({"at": "2026-01-31T12:00:00"}, "at"),
        ({"at": "2026-01-31"}, "at"),
        ({"at": "2026-01-31T24:00Z"}, "at"),
        ({"at": ""}, "at"),
        ({"at": None}, "at"),
        ({"at": 1769860800}, "at"),
        ({"at": "2016-12-31T23:59:60Z"}, "at"),
        ({"at": "0001-01-01T00:00:00+14:00"}, "at"),
        ({"at": "9999-12-31T23:59:59-14:00"}, "at"),
        ({"seconds": 3}, "seconds"),
        ({"type": "listen"}, "seconds"),
        ({"type": "listen", "seconds": 0}, "seconds"),
        ({"type": "listen", "seconds": -1}, "seconds"),
        ({"type": "listen", "seconds": "180"}, "seconds"),
        ({"type": "listen", "seconds": True}, "seconds"),
        ({"type": "listen", "seconds": 7 * 86400 + 1}, "seconds"),
        ({"age": 31}, "an event"),
        ({"gender": "female"}, "an event"),
        ({"country": "US"}, "an event"),
    ],
)
def test_a_broken_rule_is_named(change: dict[str, object], named: str) -> None:
    batch = read(CLICK | change)
    assert batch.events == ()
    (answer,) = answers(batch)
    assert answer["status"] == "invalid"
    assert str(answer["error"]).startswith(f"{named} ")


@pytest.mark.parametrize("item", [1, None, "text", [], [CLICK], {}])
def test_what_is_no_event_at_all_is_refused_like_any_other(item: object) -> None:
    (answer,) = answers(read(item))
    assert (answer["event_id"], answer["status"]) == (None, "invalid")


@pytest.mark.parametrize(("right", "wrong"), [(b"180", b"1e400"), (b'"e2"', b'"\xff"')])
def test_a_number_or_text_out_of_this_world_spoils_only_its_own_event(right: bytes, wrong: bytes) -> None:
    sent = json.dumps({"events": [LISTEN, CLICK]}).encode().replace(right, wrong)
    assert [answer["status"] for answer in answers(read_batch(sent, SECRET, received_at=NOW))] == ["invalid", "stored"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"events": 1}',
        b'{"events": [], "age": 31}',
        b'{"events": [',
        b'{"events": [NaN]}',
        b'{"events": [' + b"[" * 100_000 + b"]" * 100_000 + b"]}",
        b'\xef\xbb\xbf{"events": []}',
    ],
    ids=range(9),
)
def test_a_body_that_is_no_batch_is_refused_whole(body: bytes) -> None:
    with pytest.raises(InputError, match="expected JSON"):
        read_batch(body, SECRET, received_at=NOW)


def test_a_batch_has_a_largest_size() -> None:
    assert len(read(*[CLICK] * MAX_EVENTS).events) == MAX_EVENTS
    with pytest.raises(InputError, match="at most 1000 events"):
        read(*[CLICK] * (MAX_EVENTS + 1))


def test_texts_of_commas_are_no_further_events_and_millions_of_items_are_not_found_one_by_one() -> None:
    commas = CLICK | dict.fromkeys(("event_id", "user_id", "station_id"), "," * 200)
    assert len(read(*[commas] * MAX_EVENTS).events) == MAX_EVENTS
    body = b'{"events":[' + b"1," * 3_000_000 + b"1]}"
    tracemalloc.start()
    with pytest.raises(InputError, match="at most 1000 events"):
        read_batch(body, SECRET, received_at=NOW)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < len(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.sampled_from([*LISTEN, "age"]), JSON) | JSON, max_size=5))
def test_whatever_the_items_are_each_gets_one_answer(items: list[object]) -> None:
    assert len(answers(read(*items))) == len(items)


@pytest.mark.parametrize("field", LISTEN)
def test_no_answer_repeats_a_value(field: str) -> None:
    for planted in ("planted\n", ["planted"], {"planted": "planted"}):
        (answer,) = answers(read(LISTEN | {field: planted}))
        assert answer["status"] == "invalid"
        assert "planted" not in json.dumps(answer)


def test_an_event_far_from_its_receipt_is_stored_and_flagged() -> None:
    def flag(at: datetime) -> str:
        (event,) = read(CLICK | {"at": at.isoformat()}).events
        return event.flag

    assert flag(NOW - LATE) == ""
    assert flag(NOW - LATE - timedelta(microseconds=1)) == "late"
    assert flag(NOW - timedelta(days=60)) == "late"
    assert flag(NOW + FUTURE) == ""
    assert flag(NOW + FUTURE + timedelta(microseconds=1)) == "future"


def test_our_clock_an_hour_back_flags_what_is_right_but_keeps_it() -> None:
    body = json.dumps({"events": [CLICK]}).encode()
    (before,) = read_batch(body, SECRET, received_at=NOW).events
    (after,) = read_batch(body, SECRET, received_at=NOW - timedelta(hours=1)).events
    assert (before.flag, after.flag) == ("", "future")
    assert (before.at, before.event_id) == (after.at, after.event_id)


def test_the_hour_that_comes_twice_in_autumn_is_two_moments() -> None:
    first = datetime(2026, 10, 25, 2, 30, tzinfo=timezone(timedelta(hours=2)))
    second = datetime(2026, 10, 25, 2, 30, tzinfo=timezone(timedelta(hours=1)))
    assert microseconds(second) - microseconds(first) == 3600 * 10**6


def shown(user_id: str = "0042", station_id: str = "17", experiment: str = "spring") -> Exposure:
    return exposure(
        SECRET,
        experiment=experiment,
        user_id=user_id,
        arm="model",
        propensity=0.5,
        decided_at=microseconds(NOW),
        source="model",
        model="3f2a9c1b",
        station_id=station_id,
        candidates={"model": ["17", "4"], "rule": [str(i) for i in range(1000)]},
    )


def test_a_request_sent_again_is_the_same_exposure() -> None:
    others = [shown("42"), shown(station_id="4"), shown(experiment="autumn")]
    assert shown().exposure_id == shown().exposure_id
    assert len({shown().exposure_id, *(other.exposure_id for other in others)}) == 4


def test_an_exposure_keeps_both_arms_candidates_up_to_a_hundred() -> None:
    assert json.loads(shown().candidates) == {"model": ["17", "4"], "rule": [str(i) for i in range(100)]}


def test_an_event_and_an_exposure_of_one_user_join() -> None:
    (event,) = read(CLICK | {"user_id": "0042"}).events
    assert event.user_hash == shown().user_hash


def test_neither_user_nor_event_id_is_stored() -> None:
    user = "anna.schmidt@example.org"
    (event,) = read(CLICK | {"user_id": user, "event_id": f"click-{user}"}).events
    kept = repr((event, shown(user))).encode() + msgspec.msgpack.encode((event, shown(user)))
    assert user.encode() not in kept


def test_no_stored_row_has_a_field_of_personal_data() -> None:
    fields = {*Event.__struct_fields__, *Exposure.__struct_fields__}
    assert not any(re.search("age|gender|country|user_id", field) for field in fields)


def test_hashes_differ_by_key_and_by_what_they_are_for() -> None:
    other = Secret(bytes(32))
    user = SECRET.user_hash("u1")
    assert len({user, other.user_hash("u1"), SECRET.event_id("u1"), SECRET.user_hash("u2"), tombstone(user)}) == 5
    assert len({scoped(user, "spring"), scoped(user, "autumn"), user.hex(), tombstone(user).hex()}) == 4
    assert SECRET.fingerprint != other.fingerprint


def test_a_hash_is_the_same_on_every_host_and_in_every_release() -> None:
    assert SECRET.user_hash("0042").hex() == "92fb56cb42352754a4931424fc4b71a6"
    assert scoped(SECRET.user_hash("0042"), "spring") == "791dc78a2c969d2ca98529564ec567d4"


def test_events_of_an_erased_user_are_refused_with_the_reason() -> None:
    first, second, third = results(read(CLICK, {}, LISTEN), ["duplicate", "erased"])
    assert (first.status, second.status, third.status) == ("duplicate", "invalid", "invalid")
    assert third.error == "this user was erased: the event is not stored"


def _race(path: Path, fresh: bytes, found: "multiprocessing.Queue[str]") -> None:
    found.put(read_secret(path, fresh).fingerprint)


def test_processes_that_start_together_agree_on_a_key(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    found: multiprocessing.Queue[str] = context.Queue()
    path = tmp_path / "events.key"
    racers = [context.Process(target=_race, args=(path, bytes([i] * 32), found)) for i in range(8)]
    for racer in racers:
        racer.start()
    fingerprints = {found.get(timeout=30) for _ in racers}
    for racer in racers:
        racer.join()
    assert fingerprints == {read_secret(path, bytes(32)).fingerprint}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["events.key"]


@pytest.mark.parametrize("content", ["", "xyz", "00" * 31])
def test_a_file_that_holds_no_key_is_not_overwritten(tmp_path: Path, content: str) -> None:
    path = tmp_path / "events.key"
    path.write_text(content)
    with pytest.raises(InputError, match="invalid key of an event store"):
        read_secret(path, bytes(32))
    assert path.read_text() == content


@pytest.mark.parametrize("fresh", [None, b""])
def test_a_key_that_is_not_there_is_not_made_up(tmp_path: Path, fresh: bytes | None) -> None:
    with pytest.raises(InputError, match="key of"):
        read_secret(tmp_path / "events.key", fresh)
    assert list(tmp_path.iterdir()) == []
