"""Columns of other names: mapped by option, refused where the map does not fit the tables."""

from __future__ import annotations

import shlex
from pathlib import Path

import made_tables
import pytest

from firstspin.data.column_map import column_map
from firstspin.data.ingest import open_tables, read_registrations
from firstspin.data.names import assigned
from firstspin.data.stations import station_popularity
from firstspin.records import InputError

LISTENS = [("007", "2025-02-05T10:00:00Z", "1", "900")]


def exported(folder: Path, *names: str) -> Path:
    """One user's tables; the registrations have the columns `names`."""
    made_tables.tables(folder, [], LISTENS)
    made_tables.write(folder, "registrations", names, [("007", "2025-01-01T00:00:00Z", "31", "f", "US", "Rock|Jazz")])
    return folder


def registered(data: Path, workspace: Path, option: str, extra: tuple[str, ...] = ()) -> list[tuple[object, ...]]:
    found = open_tables(data, workspace=workspace, mapping=column_map(option), extra=extra)
    columns = ", ".join(("user_id", "age", "gender", "genres", *extra))
    return found.connection.sql(f"SELECT {columns} FROM registrations").fetchall()


def test_columns_of_other_names_are_read_as_ours(tmp_path: Path) -> None:
    data = exported(tmp_path / "data", "uid", "signup", "Age at sign-up", "sex", "nation", "likes")
    option = "user_id=uid,registered_at=signup,age=Age at sign-up,gender=sex,country=nation,genres=likes"
    assert registered(data, tmp_path, option) == [("007", 31, "f", ["Rock", "Jazz"])]


def test_a_map_of_one_table_leaves_the_others_alone(tmp_path: Path) -> None:
    data = exported(tmp_path / "data", *made_tables.REGISTRATIONS)
    made_tables.write(data, "listens", ("user_id", "who", "started_at", "station_id", "seconds"), [("x", *LISTENS[0])])
    mapping = column_map("listens.user_id=who")
    found = open_tables(data, workspace=tmp_path, mapping=mapping)
    assert found.connection.sql("SELECT user_id FROM listens").fetchall() == [("007",)]


def test_a_mapped_column_wins_over_one_of_our_name(tmp_path: Path) -> None:
    data = exported(tmp_path / "data", "user_id", "registered_at", "real_age", "gender", "age", "genres")
    made_tables.write(
        data,
        "registrations",
        ("user_id", "registered_at", "real_age", "gender", "age", "genres"),
        [("007", "2025-01-01T00:00:00Z", "31", "f", "old", "Rock")],
    )
    assert registered(data, tmp_path, "age=real_age") == [("007", 31, "f", ["Rock"])]


def test_a_further_column_of_any_name_can_be_used(tmp_path: Path) -> None:
    data = exported(tmp_path / "data", "user_id", "registered_at", "age", "gender", "Device-Type", "genres")
    assert registered(data, tmp_path, "device=Device-Type", ("device",)) == [("007", 31, "f", ["Rock", "Jazz"], "US")]


@pytest.mark.parametrize(
    "name", ["user'; DROP TABLE listens; --", 'a "quoted" name', "uid=1", "comma, inside", "$(reboot)", "ünï\u202ecode"]
)
def test_a_hostile_name_is_only_a_name(tmp_path: Path, name: str) -> None:
    data = exported(tmp_path / "data", name, "registered_at", "age", "gender", "country", "genres")
    quoted = f"user_id={name}".replace('"', '""')
    assert registered(data, tmp_path, f'"{quoted}"') == [("007", 31, "f", ["Rock", "Jazz"])]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("user_id=uid,user_id=id", "two columns, 'uid' and 'id', are mapped to user_id"),
        ("age=x,gender=x", "the column 'x' is mapped to two, age and gender"),
        ("user_id", "'user_id': expected COLUMN=NAME, where NAME is the column's name in the file"),
        ("user_id=", "'user_id': expected COLUMN=NAME, where NAME is the column's name in the file"),
        ("=uid", "'': expected COLUMN=NAME, where NAME is the column's name in the file"),
        ("plays.user_id=uid", "'plays.user_id': the tables are registrations, listens, stations"),
    ],
)
def test_a_map_that_is_none_is_refused(option: str, message: str) -> None:
    with pytest.raises(InputError) as problem:
        column_map(option)
    assert str(problem.value) == message


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("usr_id=uid", "--map 'usr_id': firstspin has no such column; the nearest is user_id; further columns"),
        ("stations.age=x", "--map 'stations.age': firstspin has no such column; there are station_id, name, genre, "),
        ("listens.qqq=x", "--map 'listens.qqq': firstspin has no such column; there are user_id, started_at, "),
        ("user_id=usr", "--map user_id=usr: no table has a column usr; the nearest is user_id"),
        ("age=alter", r"registrations\.csv has no column alter \(age\) \(it has user_id, .*\)"),
        ("stations.name=titel", r"stations\.csv has no column titel \(name\) \(it has station_id, title, genre\)"),
        ("stations.name=titel", r"for columns of other names: --map name=title$"),
    ],
)
def test_a_map_that_does_not_fit_the_tables_names_the_nearest(tmp_path: Path, option: str, message: str) -> None:
    data = exported(tmp_path / "data", *made_tables.REGISTRATIONS)
    if "titel" in option:
        made_tables.write(data, "stations", ("station_id", "title", "genre"), made_tables.TWO_STATIONS)
    with pytest.raises(InputError, match=message):
        open_tables(data, workspace=tmp_path, mapping=column_map(option))


def test_a_table_of_the_settings_file_is_the_same_map() -> None:
    option = column_map('user_id=uid, listens.seconds=dur, "stations.name=Name, long"')
    assert column_map({"user_id": "uid", "listens": {"seconds": "dur"}, "stations.name": "Name, long"}) == option
    with pytest.raises(InputError, match="'user_id': the name of a column is text, not 7"):
        column_map({"user_id": 7})


def test_one_table_of_registrations_must_have_the_mapped_column(tmp_path: Path) -> None:
    path = exported(tmp_path, *made_tables.REGISTRATIONS) / "registrations.csv"
    with pytest.raises(InputError, match="--map user_id=uid: no table has a column uid"):
        read_registrations(path, workspace=tmp_path, mapping=column_map("user_id=uid"))


def test_a_missing_column_suggests_a_map(tmp_path: Path) -> None:
    data = exported(tmp_path / "data", "user", "registered_at", "age", "gender", "country", "genre")
    with pytest.raises(InputError, match=r"has no column user_id, genres .* --map user_id=user,genres=genre$"):
        open_tables(data, workspace=tmp_path)


def test_a_suggested_map_uses_each_column_once_and_only_similar_ones(tmp_path: Path) -> None:
    data = exported(tmp_path / "data", *made_tables.REGISTRATIONS)
    made_tables.write(data, "listens", ("uid", "start", "channel", "duration_s"), LISTENS)
    with pytest.raises(InputError, match=r"--map user_id=uid,started_at=start,station_id=NAME,seconds=NAME$"):
        open_tables(data, workspace=tmp_path)


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (("station", "genre"), {"station_id": "station"}),  # the genre is there, and not suggested
        (("genre_name", "genres"), {"genre": "genres"}),
        (("duration_s", "played_seconds"), {"seconds": "played_seconds"}),
    ],
)
def test_the_best_pairs_are_suggested_first(names: tuple[str, ...], columns: dict[str, str]) -> None:
    wanted = {name: name for name in ("station_id", "seconds", "genre") if name not in names}
    assert assigned(wanted, [name for name in names if name not in ("genre",)]) == columns


def shown_stations(folder: Path, names: tuple[str, ...], option: str = "") -> list[tuple[str, str, str]]:
    """The stations of a table with these columns, under this map."""
    data = exported(folder / "data", *made_tables.REGISTRATIONS)
    rows = [("1", "Rock"), ("2", "Jazz")]
    made_tables.write(data, "stations", names, rows)
    tables = open_tables(data, workspace=folder, mapping=column_map(option))
    return [(one.station_id, one.name, one.genre) for one, _ in station_popularity(tables)]


def test_stations_without_names_are_shown_by_their_ids_or_genres(tmp_path: Path) -> None:
    by_id = [("1", "1", "Rock"), ("2", "2", "Jazz")]
    assert shown_stations(tmp_path, ("station_id", "genre")) == by_id
    assert shown_stations(tmp_path, ("channel", "genre"), "stations.station_id=channel,name=channel") == by_id
    by_genre = [("1", "Rock", "Rock"), ("2", "Jazz", "Jazz")]
    assert shown_stations(tmp_path, ("station_id", "style"), "name=style,genre=style") == by_genre
    with pytest.raises(InputError, match="'style' is mapped to two, genre and station_id"):
        column_map("stations.station_id=style,name=style,genre=style")
    with pytest.raises(InputError, match="has no column name, but Name"):
        shown_stations(tmp_path, ("station_id", "Name", "genre"))


def test_a_further_column_without_a_valid_name_is_used_as_the_message_says(tmp_path: Path) -> None:
    names = ("user_id", "registered_at", "age", "gender", "streaming service", "genres")
    data = exported(tmp_path / "data", *names)
    with pytest.raises(InputError) as problem:
        registered(data, tmp_path, "", ("streaming service",))
    advice = "--map 'streaming_service=streaming service' --extra streaming_service"
    assert str(problem.value).endswith(f"rename the column, or use it as streaming_service: {advice}")
    _, option, _, extra = shlex.split(advice)
    assert registered(data, tmp_path, option, (extra,)) == [("007", 31, "f", ["Rock", "Jazz"], "US")]
    with pytest.raises(InputError, match=r"--map user_seconds=seconds --extra user_seconds$"):
        registered(data, tmp_path, "", ("seconds",))
    with pytest.raises(InputError) as problem:
        registered(data, tmp_path, "service=streaming service", ("servce",))
    assert str(problem.value) == (
        "--extra names servce, which --map has not; the nearest is service='streaming service'"
    )


@pytest.mark.parametrize(
    ("file", "advice"),
    [("listening_log.csv", ": rename listening_log.csv to listens.csv"), ("Listens.CSV", "Listens.CSV to listens.csv")],
)
def test_a_file_of_a_similar_name_is_to_be_renamed(tmp_path: Path, file: str, advice: str) -> None:
    data = exported(tmp_path / "data", *made_tables.REGISTRATIONS)
    (data / "listens.csv").rename(data / file)
    with pytest.raises(InputError) as problem:
        open_tables(data, workspace=tmp_path)
    assert str(problem.value).endswith(advice)
    (data / file).rename(data / "plays.csv")
    with pytest.raises(InputError, match=r"stations.csv\)$"):
        open_tables(data, workspace=tmp_path)
