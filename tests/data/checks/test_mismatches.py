"""Values that match nothing are counted with an example, and refused where they are nearly all of a column."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import made_people
import made_tables
import pyarrow.parquet as pq
import pytest
from command_line import failed, firstspin
from made_bundles import pack_with_further_fields
from training_job import trained

from firstspin import learn
from firstspin.data.checks import mismatches
from firstspin.data.dataset import Reading
from firstspin.data.formats.written_values import Spelling
from firstspin.data.ingest import open_tables
from firstspin.data.labels.labelling import label_tables
from firstspin.files import workspace
from firstspin.records import Census, InputError, LabelRule
from firstspin.score import score

STATIONS = [("1", "One", "Rock"), ("2", "Two", "Jazz"), ("3", "Three", "Pop")]
REGISTERED = "2026-01-01T00:00:00Z"
LISTENS = [
    ("007", "2026-02-05T00:00:00Z", "1", "900"),
    ("008", "2026-02-05T00:00:00Z", "2", "900"),
    ("009", "2026-02-05T00:00:00Z", "3", "900"),
    ("009", "2026-03-10T00:00:00Z", "3", "900"),
]
NOW = datetime(2026, 11, 28)


def registrations(*users: str, picks: str = "Rock|Jazz", country: str = "US") -> list[tuple[str, ...]]:
    return [(user, REGISTERED, "30", "female", country, picks) for user in users or ("007", "008", "009")]


def census(
    folder: Path,
    people: Sequence[Sequence[str]] | None = None,
    listens: Sequence[Sequence[str]] = LISTENS,
    stations: Sequence[Sequence[str]] = STATIONS,
    now: datetime | None = NOW,
    **rule: object,
) -> Census:
    made_tables.write(folder / "data", "registrations", made_tables.REGISTRATIONS, people or registrations())
    made_tables.write(folder / "data", "listens", made_tables.LISTENS, listens)
    header = (*made_tables.STATIONS, "market")[: len(stations[0])]
    made_tables.write(folder / "data", "stations", header, stations)
    found = open_tables(folder / "data", workspace=folder)
    return label_tables(found, LabelRule(**rule), folder / "labels.parquet", now)[0]  # type: ignore[arg-type]


def labels(folder: Path) -> dict[str, tuple[str, float]]:
    rows = pq.read_table(folder / "labels.parquet").to_pylist()
    return {row["user_id"]: (row["top_genre"], row["seconds"]) for row in rows}


def lines(found: Census, *, bare: bool = False) -> list[str]:
    return [mismatch.line(bare=bare) for mismatch in found.mismatches]


def refused(folder: Path, **tables: object) -> InputError:
    with pytest.raises(InputError) as problem:
        census(folder, **tables)  # type: ignore[arg-type]
    assert "\n" not in str(problem.value)
    return problem.value


def test_tables_that_match_have_nothing_to_tell(tmp_path: Path) -> None:
    assert census(tmp_path).mismatches == ()
    assert census(tmp_path).data_ends == datetime(2026, 3, 10)
    assert labels(tmp_path) == {"007": ("Rock", 900.0), "008": ("Jazz", 900.0), "009": ("Pop", 900.0)}


# ------------------------------------------------------------------------------------------------------------- user ids


def test_listens_of_unregistered_users_are_counted(tmp_path: Path) -> None:
    found = census(tmp_path, listens=[*LISTENS, ("old", "2026-02-05T00:00:00Z", "1", "60")])
    said = "1 of 5 listens are of unregistered users (listens.csv)"
    assert lines(found) == [f"{said}, such as user_id old"]
    assert lines(found, bare=True) == [said]


@pytest.mark.parametrize(
    ("users", "said"),
    [
        (("7", "8", "9"), "user_id 007 (listens), 7 (registrations); they differ in zeros, case or space only"),
        (("007.0", "008.0", "009.0"), "user_id 007 (listens), 007.0 (registrations); they differ in zeros"),
        (("a", "b", "c"), "user_id 007 (listens), a (registrations)"),
    ],
)
def test_ids_that_are_not_the_same_in_both_tables_are_refused(
    users: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    problem = refused(tmp_path, people=registrations(*users))
    assert str(problem).startswith(f"no listen belongs to a registered user: {said}")
    assert problem.bare.startswith("no listen belongs to a registered user")
    assert "7" not in problem.bare


def test_ids_of_which_nearly_none_are_the_same_are_refused(tmp_path: Path) -> None:
    people = registrations("007", *(f"{i}" for i in range(100, 140)))
    listens = [*LISTENS[:1], *((f"0{i}", "2026-02-05T00:00:00Z", "1", "900") for i in range(100, 140))]
    problem = refused(tmp_path, people=people, listens=listens)
    assert str(problem).startswith(
        "nearly no listen belongs to a registered user: 1 of 41 users have any: user_id 0100"
    )


def test_the_listens_of_all_users_may_come_with_the_registrations_of_a_few(tmp_path: Path) -> None:
    others = [(f"u{i}", "2026-02-05T00:00:00Z", "1", "60") for i in range(996)]
    found = census(tmp_path, listens=[*LISTENS, *others])
    assert (found.labelled, found.mismatches[0].count) == (3, 996)


def test_the_example_of_very_many_unregistered_listens_is_one_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mismatches, "MAX_COMPARED", 2)
    others = [(user, "2026-02-05T00:00:00Z", "1", "60") for user in ("z", "y", "a")]
    found = census(tmp_path, listens=[*LISTENS, *others])
    assert lines(found) == ["3 of 7 listens are of unregistered users (listens.csv), such as user_id y"]


# --------------------------------------------------------------------------------------------------------------- copies


def test_a_listen_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    found = census(tmp_path, listens=[*LISTENS, *LISTENS[:2], LISTENS[0]])
    said = "3 of 6 listens in label windows are exact copies of others: each counts once"
    assert lines(found) == [f"{said}, such as one of user_id 007"]
    assert labels(tmp_path) == {"007": ("Rock", 900.0), "008": ("Jazz", 900.0), "009": ("Pop", 900.0)}


def test_listens_that_differ_in_anything_are_no_copies(tmp_path: Path) -> None:
    user, started, station, seconds = LISTENS[0]
    others = [
        ("008", started, station, seconds),
        (user, "2026-02-05T00:00:01Z", station, seconds),
        (user, started, "2", seconds),
        (user, started, station, "901"),
    ]
    assert census(tmp_path, listens=[*LISTENS, *others]).mismatches == ()
    assert labels(tmp_path)["007"] == ("Rock", 900.0 * 3 + 901.0)


def test_copies_may_decide_neither_the_label_nor_the_activity(tmp_path: Path) -> None:
    listens = [
        ("007", "2026-02-05T00:00:00Z", "1", "400"),
        ("007", "2026-02-05T00:00:00Z", "1", "400"),
        ("007", "2026-02-06T00:00:00Z", "2", "500"),
        ("008", "2026-02-05T00:00:00Z", "1", "400"),
        ("008", "2026-02-05T00:00:00Z", "1", "400"),
        *LISTENS[2:],
    ]
    found = census(tmp_path, listens=listens)
    assert labels(tmp_path) == {"007": ("Jazz", 900.0), "009": ("Pop", 900.0)}
    assert found.dropped["under the activity rule"] == 1


# --------------------------------------------------------------------------------------------------- times and lengths

NEW = ("010", "2026-02-20T00:00:00Z", "30", "", "", "")
ITS_LISTEN = ("010", "2026-03-25T00:00:00Z", "2", "900")


@pytest.mark.parametrize("now", [None, NOW])
def test_a_listen_of_2099_does_not_make_a_window_look_over(now: datetime | None, tmp_path: Path) -> None:
    wrong = ("007", "2099-01-01T00:00:00Z", "1", "60")
    people = [*registrations(), NEW]
    without = census(tmp_path / "a", people, [*LISTENS, ITS_LISTEN], now=now)
    found = census(tmp_path / "b", people, [*LISTENS, ITS_LISTEN, wrong], now=now)
    assert (found.registered, found.labelled, found.dropped) == (4, 3, without.dropped)
    assert found.dropped["window not over yet"] == 1
    assert found.data_ends == without.data_ends == datetime(2026, 3, 25)
    assert labels(tmp_path / "a") == labels(tmp_path / "b")
    assert lines(found) == [
        "1 of 6 listens start after the end of the data: their clocks are wrong (listens.csv), "
        "such as started_at 2099-01-01T00:00:00Z"
    ]


def test_a_moment_that_is_named_goes_before_every_rule(tmp_path: Path) -> None:
    found = census(tmp_path, [*registrations(), NEW], [*LISTENS, ITS_LISTEN], data_ends=datetime(2026, 4, 30))
    assert (found.labelled, found.data_ends) == (4, datetime(2026, 4, 30))
    problem = refused(tmp_path, data_ends=NOW + timedelta(days=2))
    assert str(problem) == "the data can't end at 2026-11-30T00:00:00Z: this time is in the future"


def test_where_most_listens_are_in_the_future_the_clock_of_the_machine_is_suspected(tmp_path: Path) -> None:
    found = census(tmp_path, now=datetime(2026, 1, 15))
    assert found.data_ends == datetime(2026, 3, 10)
    assert lines(found) == [
        "4 of 4 listens start in the future: check the clock of this machine (listens.csv), "
        "such as started_at 2026-03-10T00:00:00Z"
    ]


def test_registrations_of_the_future_are_counted(tmp_path: Path) -> None:
    found = census(tmp_path, [*registrations(), ("010", "2031-01-01T00:00:00Z", "", "", "", "")])
    assert found.dropped["window not over yet"] == 1
    assert lines(found) == [
        "1 of 4 registrations are in the future (registrations.csv), such as registered_at 2031-01-01T00:00:00Z"
    ]


def test_listens_longer_than_a_week_are_counted(tmp_path: Path) -> None:
    week = ("007", "2026-02-07T00:00:00Z", "1", "604800")
    longer = ("007", "2026-02-06T00:00:00Z", "1", "1209600.5")
    assert lines(census(tmp_path, listens=[*LISTENS, week, longer])) == [
        "1 of 6 listens are longer than a week (listens.csv), such as seconds 1209600.5"
    ]


def test_milliseconds_are_refused(tmp_path: Path) -> None:
    problem = refused(tmp_path, listens=[(*listen[:3], "900000") for listen in LISTENS])
    assert problem.bare == "every listen is longer than a week (listens.csv): are the seconds milliseconds?"
    assert str(problem) == f"{problem.bare} The longest has seconds 900000"


# --------------------------------------------------------------------------------------------------- picks and markets


def test_picks_that_name_no_genre_are_counted(tmp_path: Path) -> None:
    people = [*registrations(), *registrations("010", picks="Polka|Yodel|Polka")]
    said = "3 of 9 picks name no genre of the stations (registrations.csv)"
    found = census(tmp_path, people)
    assert lines(found) == [f"{said}, such as 'Polka' (2), 'Yodel' (1)"]
    assert lines(found, bare=True) == [said]


def test_the_most_frequent_unknown_picks_are_shown_with_the_nearest_genre(tmp_path: Path) -> None:
    people = [*registrations(), *registrations("010", picks="Rokc|Jaz|jaz.|Rokc")]
    (mismatch,) = census(tmp_path, people).mismatches
    assert (
        mismatch.example
        == "'Rokc' (2, nearest genre Rock), 'Jaz' (1, nearest genre Jazz), 'jaz.' (1, nearest genre Jazz)"
    )


def test_picks_in_another_case_name_their_genres(tmp_path: Path) -> None:
    assert census(tmp_path, registrations(picks="rock|JAZZ| pop ")).mismatches == ()


LISTS = "separate picks by '|', as in Rock|Jazz, or write lists in Parquet"


@pytest.mark.parametrize(
    ("picks", "what_to_do"),
    [
        ("['Rock', 'Jazz']", LISTS),
        ('["Rock","Jazz"]', LISTS),
        ("{Rock,Jazz}", LISTS),
        ("Rock, Jazz", "the picks look joined by ', ': --pick-separator ','"),
        ("rock;jazz", "the picks look joined by ';': --pick-separator ';'"),
        ("Rock/Jazz/Pop", "the picks look joined by '/': --pick-separator '/'"),
    ],
)
def test_picks_that_are_separated_otherwise_are_refused_with_what_to_do(
    picks: str, what_to_do: str, tmp_path: Path
) -> None:
    problem = refused(tmp_path, people=registrations(picks=picks))
    assert str(problem).startswith(f"no pick names a genre of the stations: {picks!r} (3")
    assert str(problem).endswith(f"the genres are Jazz, Pop, Rock; {what_to_do}")
    assert problem.bare == f"no pick names a genre of the stations (registrations.csv); {what_to_do}"


def test_a_separator_that_joins_some_picks_is_named_in_their_count(tmp_path: Path) -> None:
    people = [*registrations(), *registrations("010", picks="Rock, Jazz"), *registrations("011", picks="Pop")]
    (mismatch,) = census(tmp_path, people).mismatches
    assert mismatch.example == "'Rock, Jazz' (1); the picks look joined by ', ': --pick-separator ','"


@pytest.mark.parametrize(
    ("separator", "picks"), [(",", "rock, Jazz,, Pop"), (" - ", "Rock - jazz - Pop"), ("|", "Rock|Jazz|Pop")]
)
def test_picks_are_separated_as_the_option_says(separator: str, picks: str, tmp_path: Path) -> None:
    with workspace("t") as folder:
        data = made_tables.tables(tmp_path, registrations(picks=picks), [], STATIONS)
        opened = open_tables(data, workspace=folder, spelling=Spelling(pick_separator=separator))
        ((read,), *_) = opened.connection.execute("SELECT genres FROM registrations").fetchall()
        assert [pick.title() for pick in read] == ["Rock", "Jazz", "Pop"]


def test_score_reads_picks_with_the_separator_of_the_option(tmp_path: Path, folder: Path) -> None:
    answers = []
    for name, separator in (("pipes", "|"), ("commas", ", ")):
        asked = made_tables.write(
            tmp_path, name, made_tables.REGISTRATIONS, registrations(picks=f"Rock{separator}Jazz")
        )
        out = tmp_path / f"{name}-answers.csv"
        written, _, unknown = score(
            folder, asked, str(out), now=NOW, spelling=Spelling(pick_separator=separator.strip())
        )
        assert (written, unknown) == (3, [])
        answers.append(out.read_text(encoding="utf-8"))
    assert answers[0] == answers[1]


def test_picks_of_which_most_are_no_genre_are_refused(tmp_path: Path) -> None:
    half = [*registrations(picks="Rock"), *registrations("u1", "u2", "u3", picks="Polka")]
    assert census(tmp_path / "half", half).mismatches[0].count == 3
    assert str(refused(tmp_path, people=[*half, *registrations("u4", picks="Polka")])) == (
        "most picks name no genre of the stations: 3 of 7 do: 'Polka' (4) (registrations.csv); "
        "the genres are Jazz, Pop, Rock"
    )


def test_markets_that_are_no_registrations_country_are_counted(tmp_path: Path) -> None:
    stations = [(*STATIONS[0], "us|CA"), (*STATIONS[1], "SE|NO"), (*STATIONS[2], "")]
    assert lines(census(tmp_path, stations=stations)) == [
        "1 of 2 stations have no market that is the country of a registration (stations.csv), such as market SE"
    ]


def test_markets_that_are_named_otherwise_than_countries_are_refused(tmp_path: Path) -> None:
    stations = [(*station, "USA") for station in STATIONS]
    problem = refused(tmp_path, stations=stations)
    assert problem.bare == "nearly no country of the registrations is a market of the stations"
    assert str(problem) == f"{problem.bare}: country US (registrations.csv), market USA (stations.csv)"


def test_stations_of_the_whole_world_may_come_with_the_registrations_of_one_country(tmp_path: Path) -> None:
    stations = [(*STATIONS[0], "US"), *((f"s{i}", "S", "Jazz", "SE") for i in range(97)), *_everywhere(STATIONS[1:])]
    assert [mismatch.count for mismatch in census(tmp_path, stations=stations).mismatches] == [97]


def _everywhere(stations: Sequence[tuple[str, str, str]]) -> list[tuple[str, str, str, str]]:
    return [(*station, "US") for station in stations]


def test_without_countries_in_the_registrations_markets_are_not_checked(tmp_path: Path) -> None:
    stations = [(*station, "USA") for station in STATIONS]
    assert census(tmp_path, registrations(country=""), stations=stations).mismatches == ()


# ------------------------------------------------------------------------------------------------------------- commands

FOUND = "listens are of unregistered users (listens.csv)"


def strangers(folder: Path) -> Path:
    """Sixty people, and three listens of others, one with a clock of 2099."""
    data = made_people.tables(folder / "data", 60)
    with (data / "listens.csv").open("a") as file:
        file.write("alien,2025-03-05T00:00:00Z,1,60\nalien,2099-01-01T00:00:00Z,1,60\n")
    return data


def test_label_train_and_evaluate_tell_it_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, card = strangers(tmp_path), tmp_path / "scorecard.json"
    commands = {
        "label": ("--out", tmp_path / "l.parquet"),
        "train": ("--model", "popularity", "--out", tmp_path / "b"),
        "evaluate": ("--models", "popularity", "--folds", "2", "--out", card),
    }
    for bare in ("0", "1"):
        monkeypatch.setenv("FIRSTSPIN_BARE_ERRORS", bare)
        for command, words in commands.items():
            done = firstspin(command, "--data", data, *words)
            assert done.returncode == 0, done.stderr
            assert "mismatch: 3 of 63 " in done.stdout, command
            assert ("user_id alien" in done.stdout) == (bare == "0")
            assert ("2099-01-01" in done.stdout) == (bare == "0")
            (line,) = [line for line in done.stdout.splitlines() if "data_ends" in line]
            assert "data_ends 2025-" in line
    told = json.loads(card.read_bytes())["data"]
    assert told["mismatches"][FOUND] == 3
    assert told["data_ends"].startswith("2025-")
    assert "alien" not in card.read_text() + (tmp_path / "b" / "manifest.json").read_text()


def test_commands_refuse_what_matches_nothing_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = made_tables.tables(tmp_path / "data", registrations("7", "8", "9"), LISTENS, STATIONS)
    said = "no listen belongs to a registered user: user_id 007 (listens), 7 (registrations)"
    assert failed("label", "--data", data, "--out", tmp_path / "l.parquet").startswith(said)
    assert failed("train", "--data", data, "--out", tmp_path / "b").startswith(said)
    monkeypatch.setenv("FIRSTSPIN_BARE_ERRORS", "yes")
    bare = failed("evaluate", "--data", data)
    assert bare == "no listen belongs to a registered user; they differ in zeros, case or space only"


def test_a_training_jobs_log_tells_it_without_a_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    strangers(tmp_path / "made")
    (tmp_path / "input" / "data").mkdir(parents=True)
    (tmp_path / "made" / "data").rename(tmp_path / "input" / "data" / "training")
    assert trained(tmp_path, {"model": "popularity"}) == 0
    log = capsys.readouterr()
    assert "data_ends 2025-" in log.out + log.err
    assert "mismatch: 3 of 63 " in log.out + log.err
    assert "alien" not in log.out + log.err


def test_score_counts_picks_of_no_genre_that_the_bundle_knows(tmp_path: Path) -> None:
    data = made_people.tables(tmp_path / "data", 60)
    learn.train(data, tmp_path / "b", "popularity")
    asked = made_tables.write(tmp_path, "new", made_tables.REGISTRATIONS, registrations(picks="Rock|Polka"))
    *_, (unknown, *_) = score(tmp_path / "b", asked, str(tmp_path / "o.csv"), now=NOW)
    what = "3 of 6 picks name no genre that the bundle knows (new.csv)"
    assert unknown.line(bare=False) == f"{what}, such as 'Polka' (3)"
    done = firstspin("score", "--bundle", tmp_path / "b", "--registrations", asked, "--out", tmp_path / "o.csv")
    assert f"mismatch: {what}" in done.stdout


def test_score_counts_values_that_the_model_does_not_know(tmp_path: Path) -> None:
    """Training had the devices car and phone, the countries de and us, and no gender, which is not counted."""
    pack_with_further_fields(tmp_path / "b")
    header = (*made_tables.REGISTRATIONS, "device", "visits")
    people = [(*row, device, "3") for row, device in zip(registrations(), ("Phone", "fone", "fone"), strict=True)]
    asked = made_tables.write(tmp_path, "new", header, [(*people[0][:4], "Q", *people[0][5:]), *people[1:]])
    *_, unknown = score(tmp_path / "b", asked, str(tmp_path / "o.csv"), now=NOW)
    model = "none that the model knows and count as missing (new.csv)"
    assert [one.line(bare=False) for one in unknown if "picks" not in one.what] == [
        f"1 of 3 values of country are {model}, such as 'Q' (1)",
        f"2 of 3 values of device are {model}, such as 'fone' (2, nearest phone)",
    ]


def test_a_table_without_a_further_column_of_the_bundle_is_scored_and_evaluated(tmp_path: Path) -> None:
    """With the answers of a table whose column is empty."""
    data, kinds = made_people.tables(tmp_path / "data", 60), []
    rows = (data / "registrations.csv").read_text(encoding="utf-8").splitlines()
    plans = ["plan", *("free" if at % 2 else "paid" for at in range(60))]
    for name, column in (("with", plans), ("empty", ["plan", *[""] * 60])):
        text = "\n".join(f"{row},{plan}" for row, plan in zip(rows, column, strict=True))
        (tmp_path / f"{name}.csv").write_text(f"{text}\n", encoding="utf-8")
    without = (data / "registrations.csv").read_text(encoding="utf-8")
    (data / "registrations.csv").write_text((tmp_path / "with.csv").read_text(encoding="utf-8"), encoding="utf-8")
    learn.train(data, tmp_path / "b", "logistic", reading=Reading(extra=("plan",)))
    (data / "registrations.csv").write_text(without, encoding="utf-8")
    for asked in (tmp_path / "empty.csv", data / "registrations.csv"):
        score(tmp_path / "b", asked, str(tmp_path / "o.csv"), now=NOW)
        kinds.append((tmp_path / "o.csv").read_bytes())
    assert kinds[0] == kinds[1]
    card, dataset = learn.evaluate_bundle(data, tmp_path / "b")
    assert (dataset.census.absent, dataset.extra) == (("plan",), {})
    assert card.people == dataset.census.labelled


def test_score_refuses_a_table_of_which_most_picks_are_unknown_to_the_bundle(tmp_path: Path, folder: Path) -> None:
    asked = made_tables.write(tmp_path, "new", made_tables.REGISTRATIONS, registrations(picks="Rock, Jazz"))
    problem = failed("score", "--bundle", folder, "--registrations", asked, "--out", tmp_path / "o.csv")
    assert problem.startswith("no pick names a genre that the bundle knows: 'Rock, Jazz' (3) (new.csv); the genres are")
    assert problem.endswith("; the picks look joined by ', ': --pick-separator ','")
    assert not (tmp_path / "o.csv").exists()


@pytest.mark.parametrize(
    ("visits", "kind", "line"),
    [
        (
            ["1", "2", "3", "4", "1,200"],
            "text",
            "1 of 5 values of visits are not numbers, so the column counts as text",
        ),
        (["1", "2", "", "NaN", "3"], "number", None),
        (["phone", "2", "3", "4", "web"], "text", None),
    ],
)
def test_what_makes_a_column_of_numbers_text_is_shown(
    visits: list[str], kind: str, line: str | None, tmp_path: Path
) -> None:
    people = [(*person, value) for person, value in zip(registrations(*"abcde"), visits, strict=True)]
    listens = [(user, *LISTENS[0][1:]) for user in "abcde"] + [("a", *LISTENS[-1][1:])]
    data = made_tables.tables(tmp_path / "data", [], listens, STATIONS)
    made_tables.write(data, "registrations", (*made_tables.REGISTRATIONS, "visits"), people)
    found = open_tables(data, workspace=tmp_path, extra=["visits"])
    assert found.extra == {"visits": kind}
    seen, _ = label_tables(found, LabelRule(), tmp_path / "labels.parquet", NOW)
    assert lines(seen) == ([f"{line} (registrations.csv), such as '1,200'"] if line else [])
