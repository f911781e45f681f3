from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_experiments import PLAN
from msgspec.structs import replace as replace_fields

from firstspin.experiment.analyse import analyse
from firstspin.experiment.attribution import Attributed, attribute, planned_outcomes
from firstspin.experiment.plan import experiment_key, plan_rules
from firstspin.records import InputError

START = datetime(2026, 2, 2, 12, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def exposure(user: str, arm: str, at: datetime = START, experiment: str = "first") -> dict[str, object]:
    row = {"experiment": experiment, "user_key": user, "arm": arm, "decided_at": at}
    return row | {"source": "model", "model": "3f2a", "message_genre": "Rock", "propensity": 0.5}


def event(
    event_id: str, user: str, at: datetime, kind: str = "click", seconds: float | None = None
) -> dict[str, object]:
    return {"event_id": event_id, "type": kind, "user_key": user, "at": at, "seconds": seconds}


EVENT_SCHEMA = pa.schema(
    {
        "event_id": pa.string(),
        "type": pa.string(),
        "user_key": pa.string(),
        "at": pa.timestamp("us", "UTC"),
        "seconds": pa.float64(),
    }
)


def join(
    exposures: list[dict[str, object]], events: list[dict[str, object]], until: datetime = START + 30 * DAY
) -> Attributed:
    return attribute(
        pa.Table.from_pylist(exposures),
        pa.Table.from_pylist(events, EVENT_SCHEMA),
        experiment="first",
        until=until,
        click_within=DAY,
        listen_within=7 * DAY,
    )


def told(found: Attributed) -> dict[str, tuple[object, object]]:
    return {row["user_key"]: (row["clicked"], row["seconds"]) for row in found.table.to_pylist()}


def test_each_exposed_user_has_a_row_whether_or_not_anything_followed() -> None:
    found = join(
        [exposure("a", "rule"), exposure("b", "model")],
        [event("1", "a", START + HOUR), event("2", "a", START + 2 * HOUR, "listen", 120.0)],
    )
    assert told(found) == {"a": (1, 120.0), "b": (0, 0.0)}
    assert found.table["day"].to_pylist() == [START.date()] * 2
    assert {"arm", "source", "model", "message_genre", "propensity"} <= set(found.table.column_names)


def test_a_click_counts_from_the_exposure_until_just_before_its_window_ends() -> None:
    users = ["before", "at once", "last moment", "too late"]
    moments = [START - HOUR, START, START + DAY - timedelta(microseconds=1), START + DAY]
    found = join(
        [exposure(user, "rule") for user in users],
        [event(user, user, moment) for user, moment in zip(users, moments, strict=True)],
    )
    assert {user: clicked for user, (clicked, _) in told(found).items()} == {
        "before": 0,
        "at once": 1,
        "last moment": 1,
        "too late": 0,
    }
    counted = found.counted
    assert (counted.clicks_early, counted.clicks_in_time, counted.clicks_late) == (1, 2, 1)


def test_an_event_sent_a_thousand_times_moves_no_number() -> None:
    once = [event("1", "a", START + HOUR), event("2", "a", START + HOUR, "listen", 60.0)]
    users = [exposure("a", "rule")]
    assert told(join(users, once)) == told(join(users, once * 1000)) == {"a": (1, 60.0)}
    assert join(users, once * 1000).counted.duplicate_events == 1998


def test_only_the_first_exposure_counts() -> None:
    found = join(
        [exposure("a", "rule", START + 2 * DAY), exposure("a", "rule")], [event("1", "a", START + 2 * DAY + HOUR)]
    )
    assert told(found) == {"a": (0, 0.0)}
    assert found.table["decided_at"].to_pylist()[0].replace(tzinfo=UTC) == START
    assert (found.counted.exposures, found.counted.repeated_exposures) == (2, 1)


def test_a_user_of_two_arms_is_left_out_and_counted() -> None:
    found = join([exposure("a", "rule"), exposure("a", "model", START + HOUR), exposure("b", "rule")], [])
    assert set(told(found)) == {"b"}
    assert found.left_out.in_several_arms == 1


def test_other_experiments_and_strangers_do_not_enter() -> None:
    found = join([exposure("a", "rule"), exposure("z", "rule", experiment="second")], [event("1", "z", START + HOUR)])
    assert told(found) == {"a": (0, 0.0)}
    assert found.counted.orphan_events == 1


def test_a_window_still_open_is_not_a_no() -> None:
    early = join([exposure("a", "rule")], [event("1", "a", START + HOUR)], until=START + 2 * HOUR)
    assert told(early) == {"a": (None, None)}
    assert early.counted.not_yet_due == 1
    assert told(join([exposure("a", "rule")], [event("1", "a", START + HOUR)], until=START + 2 * DAY)) == {
        "a": (1, None)
    }


def test_rows_after_the_time_of_the_analysis_are_ignored() -> None:
    found = join([exposure("a", "rule"), exposure("b", "rule", START + 9 * DAY)], [], until=START + 8 * DAY)
    assert set(told(found)) == {"a"}


def test_open_windows_are_named_with_their_users() -> None:
    plan = replace_fields(PLAN, starts_on=START.date())
    arms = ["rule", "model"] * 20
    shown = [exposure(f"u{i}", arm, START + (i % 10) * DAY, experiment_key(plan)) for i, arm in enumerate(arms)]
    now = START + 8 * DAY + HOUR
    found = attribute(
        pa.Table.from_pylist(shown), pa.Table.from_pylist([], EVENT_SCHEMA), experiment=experiment_key(plan), until=now
    )
    verdict = analyse(planned_outcomes(found, plan), plan_rules(plan), now=now)
    assert verdict.sentence == (
        "No decision yet: the plan is evaluated on 23 February 2026; "
        "the window of 24 hours for clicked is still open for 4 users."
    )
    [named] = [warning for warning in verdict.warnings if "window" in warning]
    assert named == (
        "The window of 24 hours for clicked is still open for 4 users: they are excluded from it until it closes."
    )
    assert verdict.metrics[0].open_window == "24 hours"


def test_a_log_without_users_of_the_plan_says_so() -> None:
    nobody = pa.Table.from_pylist([exposure("a", "rule", experiment="another")])
    events = pa.Table.from_pylist([], EVENT_SCHEMA)
    found = attribute(nobody, events, experiment=experiment_key(PLAN), until=START)
    with pytest.raises(
        InputError, match=r"the log has no user of first@.* in one arm: there is nothing to analyse yet"
    ):
        planned_outcomes(found, PLAN)


def test_parquet_files_and_tables_without_zone_give_the_same(tmp_path: Path) -> None:
    exposures, events = [exposure("a", "rule")], [event("1", "a", START + HOUR)]
    naive = pa.Table.from_pylist(exposures)
    naive = naive.set_column(3, "decided_at", naive["decided_at"].cast(pa.timestamp("us")))
    pq.write_table(naive, tmp_path / "exposures.parquet")
    pq.write_table(pa.Table.from_pylist(events, EVENT_SCHEMA), tmp_path / "events.parquet")
    found = attribute(
        tmp_path / "exposures.parquet", tmp_path / "events.parquet", experiment="first", until=START + 30 * DAY
    )
    assert told(found) == told(join(exposures, events))


def test_further_columns_of_any_name_change_nothing_and_are_passed_on() -> None:
    exposures, events = [exposure("a", "rule")], [event("1", "a", START + HOUR)]
    names = ("until", "asked_for", "click_within", "type", "at", "position", "clicks", "Day", "ARM", 'x"; --', "v0")
    found = join([row | dict.fromkeys(names, "x") | {"age": 31} for row in exposures], events)
    assert told(found) == told(join(exposures, events))
    assert found.table["age"].to_pylist() == [31]
    assert found.table["type"].to_pylist() == ["x"]


def test_logs_may_be_csv_and_their_values_are_checked(tmp_path: Path) -> None:
    shown, done = tmp_path / "exposures.csv", tmp_path / "events.csv"
    shown.write_text("experiment,user_key,arm,decided_at\nfirst,a,rule,2026-02-02T12:00:00Z\n")
    done.write_text("event_id,type,user_key,at,seconds\n1,click,a,2026-02-02T13:00:00Z,\n")
    asked = {"experiment": "first", "until": START + 30 * DAY}
    assert told(attribute(shown, done, **asked)) == {"a": (1, 0)}
    done.write_text("event_id,type,user_key,at,seconds\n1,click,a,yesterday,\n")
    with pytest.raises(InputError, match=r"events\.csv row 1: at 'yesterday' is not an ISO 8601 time"):
        attribute(shown, done, **asked)


def test_a_damaged_log_or_one_of_other_types_is_a_one_line_error(tmp_path: Path) -> None:
    exposures, events = pa.Table.from_pylist([exposure("a", "rule")]), pa.Table.from_pylist([], EVENT_SCHEMA)
    asked = {"experiment": "first", "until": START + 30 * DAY}
    days = pa.array([timedelta(days=20_000)])
    odd = exposures.set_column(3, "decided_at", days)
    with pytest.raises(InputError, match=r"exposures: decided_at is duration\[us\], where times are needed"):
        attribute(odd, events, **asked)
    path = tmp_path / "exposures.parquet"
    pq.write_table(pa.concat_tables([exposures] * 2_000), path, compression="none", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[100:20_000] = bytes(19_900)
    path.write_bytes(content)
    with pytest.raises(InputError, match="can't be read: damaged or cut off"):
        attribute(path, events, **asked)


def test_a_log_that_lacks_a_column_is_named(tmp_path: Path) -> None:
    shown = pa.Table.from_pylist([exposure("a", "rule")])
    with pytest.raises(InputError, match="exposures has no column arm"):
        attribute(shown.drop_columns("arm"), pa.Table.from_pylist([], EVENT_SCHEMA), experiment="first", until=START)
    with pytest.raises(InputError, match=r"none\.parquet is not a file"):
        attribute(tmp_path / "none.parquet", shown, experiment="first", until=START)
