"""The Python API: tables of any library in, labels, bundles, scorecards and recommendations out."""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import made_people
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest

from firstspin import learn
from firstspin.api import InputError, LabelRule, Labels, Recommender, evaluate, label, train
from firstspin.records import Registration

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:polars")

TABLES = ("registrations", "listens", "stations")
N, LABELLED = 120, 105  # the windows of the last 15 are not over


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_people.tables(tmp_path_factory.mktemp("data"), N)


@pytest.fixture(scope="module")
def arrow(data: Path) -> dict[str, pa.Table]:
    ids = pa_csv.ConvertOptions(column_types={"user_id": pa.string(), "station_id": pa.string(), "age": pa.int64()})
    return {name: pa_csv.read_csv(data / f"{name}.csv", convert_options=ids) for name in TABLES}


@pytest.fixture(scope="module")
def expected(data: Path) -> Labels:
    return label(data)


def with_lists(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(genres=[text.split("|") if text else [] for text in table["genres"].fillna("")])


LIBRARIES: dict[str, Callable[[pa.Table], Any]] = {
    "pyarrow": lambda table: table,
    "pandas": lambda table: table.to_pandas(),
    "pandas, nullable": lambda table: table.to_pandas().convert_dtypes(),
    "pandas, Arrow-backed": lambda table: table.to_pandas(types_mapper=pd.ArrowDtype),
    "pandas, index": lambda table: table.to_pandas().set_index(table.column_names[0]),
    "pandas, categories": lambda table: table.to_pandas().astype(
        {
            name: "category"
            for name, kind in zip(table.column_names, table.schema.types, strict=True)
            if kind == pa.string()
        }
    ),
    "Polars": lambda table: pl.DataFrame(table),
    "Polars, categories": lambda table: pl.DataFrame(table).with_columns(pl.col(pl.String).cast(pl.Categorical)),
    "Arrow, runs": lambda table: pa.table(
        {name: _runs(table[name]) if name in ("country", "genre") else table[name] for name in table.column_names}
    ),
    "stream": lambda table: pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=7)),
}


def _runs(column: pa.ChunkedArray) -> pa.Array:
    return pa.compute.run_end_encode(column.combine_chunks())


@pytest.mark.parametrize("library", LIBRARIES)
def test_tables_of_any_library_give_the_labels_of_the_folder(
    expected: Labels, arrow: dict[str, pa.Table], library: str
) -> None:
    labels = label({name: LIBRARIES[library](table) for name, table in arrow.items()})
    assert labels.table.equals(expected.table)
    assert labels.dropped == expected.dropped
    assert len(labels) == labels.census.labelled == LABELLED


def test_lists_of_text_are_picks_whatever_holds_them(expected: Labels, arrow: dict[str, pa.Table]) -> None:
    frame = with_lists(arrow["registrations"].to_pandas())
    polars = pl.DataFrame(frame).with_columns(pl.col("genres").cast(pl.List(pl.Categorical)))
    arrays = frame.assign(genres=[np.array(picks, dtype=object) for picks in frame["genres"]])
    tuples = frame.assign(genres=[tuple(picks) for picks in frame["genres"]])
    for registrations in (frame, polars, arrays, tuples):
        assert label({**arrow, "registrations": registrations}).table["genres"] == expected.table["genres"]


def test_times_are_utc_with_a_zone_or_without(expected: Labels, arrow: dict[str, pa.Table]) -> None:
    frame = arrow["registrations"].to_pandas()
    aware = pd.to_datetime(frame["registered_at"], utc=True)
    for times in (aware, aware.dt.tz_convert("Asia/Tokyo"), aware.dt.tz_localize(None), aware.astype(object)):
        registrations = frame.assign(registered_at=times)
        labels = label({**arrow, "registrations": registrations})
        assert labels.table["registered_at"] == expected.table["registered_at"]


def test_a_table_may_stay_a_file_beside_others_in_memory(data: Path, arrow: dict[str, pa.Table]) -> None:
    mixed = {
        "registrations": arrow["registrations"],
        "listens": str(data / "listens.csv"),
        "stations": data / "stations.csv",
    }
    assert label(mixed).table.equals(label(str(data)).table)


def test_labels_are_a_table_for_other_libraries_and_tell_who_has_none(expected: Labels) -> None:
    labels = expected
    assert pl.DataFrame(labels)["top_genre"].to_list() == pd.DataFrame.from_arrow(labels)["top_genre"].tolist()
    assert repr(labels).splitlines()[:3] == [
        "105 of 120 registrations have a label",
        "  data_ends 2025-06-14T00:00:00Z",
        "  dropped 15: window not over yet",
    ]


WRONG_TABLES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a table alone": (lambda t: t["listens"], r"the data are of type pandas.DataFrame: expected a folder, or a dict"),
    "no listens": (lambda t: {"registrations": t["registrations"]}, "the data have no listens: a dict of tables has"),
    "another name": (lambda t: {**t, "users": t["listens"]}, "'users' is none of the tables: registrations, listens"),
    "None": (lambda t: {**t, "listens": None}, "listens is missing: expected a path, or a table with the Arrow"),
    "a list of dicts": (lambda t: {**t, "listens": [{"user_id": 1}]}, "listens is of type list: expected a path"),
    "lazy": (lambda t: {**t, "listens": pl.LazyFrame()}, r"polars.LazyFrame: expected .*; call collect\(\) first"),
    "no such file": (lambda t: {**t, "listens": "a/b.csv"}, "a/b.csv is not a file"),
    "no such folder": (lambda _: "nowhere", "nowhere is not a folder with registrations"),
    "no column": (
        lambda t: {**t, "listens": t["listens"].drop(columns="seconds")},
        "listens has no column seconds",
    ),
    "empty": (lambda t: {**t, "listens": t["listens"].iloc[:0]}, "the registrations or the listens are empty"),
    "no columns": (lambda t: {**t, "listens": pd.DataFrame()}, "listens has no column user_id, started_at"),
    "mixed ids": (
        lambda t: {**t, "stations": t["stations"].assign(station_id=[1, "2", 3, 4])},
        r"stations can't be read as an Arrow table; each column needs values of one type.*column station_id",
    ),
    "two names": (lambda t: {**t, "listens": pd.DataFrame([[1, 2]], columns=["a", "a"])}, "Duplicate column names"),
    "durations": (
        lambda t: {**t, "listens": t["listens"].assign(seconds=pd.to_timedelta(t["listens"]["seconds"], unit="s"))},
        r"listens: seconds is duration\[us\], where numbers are needed",
    ),
    "a bad age": (
        lambda t: {**t, "registrations": t["registrations"].assign(age=[300.0] + [None] * (N - 1))},
        "registrations row 1: age '300.0' is not between 0 and 120",
    ),
    "an unknown station": (
        lambda t: {**t, "listens": t["listens"].assign(station_id="99")},
        "listens row 1: station_id '99' is not in the stations",
    ),
}


@pytest.mark.parametrize("wrong", WRONG_TABLES)
def test_wrong_tables_are_named_with_what_is_wrong(arrow: dict[str, pa.Table], wrong: str) -> None:
    change, message = WRONG_TABLES[wrong]
    with pytest.raises(InputError, match=message):
        label(change({name: table.to_pandas() for name, table in arrow.items()}))


def test_columns_that_nobody_needs_may_have_any_type(data: Path, arrow: dict[str, pa.Table]) -> None:
    interval = pa.array([pa.MonthDayNano([1, 2, 3])] * N)
    registrations = arrow["registrations"].append_column("span", interval)
    assert label({**arrow, "registrations": registrations}).table.equals(label(data).table)


def test_a_bundle_of_tables_in_memory_is_that_of_the_folder(
    data: Path, arrow: dict[str, pa.Table], tmp_path: Path
) -> None:
    steps: list[str] = []
    mine = train(arrow, str(tmp_path / "mine"), "logistic", progress=lambda step, _done: steps.append(step))
    packed, *_ = learn.train(data, tmp_path / "theirs", "logistic")
    assert mine.predictor.genres == packed.predictor.genres
    one = Registration(age=31, genres=("Rock",))
    assert mine.predictor.rank(one) == packed.predictor.rank(one)
    assert repr(mine) == f"Bundle {mine.id}: logistic; 4 genres"
    assert steps[0] == "reading the tables"


def test_a_scorecard_has_intervals_and_reads_well(data: Path) -> None:
    card = evaluate(data, "popularity, logistic", folds=3, without="country")
    hit = card.figures["logistic"]["hit@3"]
    assert hit.low < hit.value < hit.high
    state: Any = card.to_dict()
    assert state["figures"]["logistic"]["hit@3"] == {"value": hit.value, "low": hit.low, "high": hit.high}
    assert (
        repr(card).splitlines()[0] == f"3 folds over users, n = {LABELLED} held-out users, ± half-width of the 95% CI"
    )
    assert "lift in hit@3 over each baseline" in repr(card)
    assert "<td>logistic</td>" in card._repr_html_()


def test_users_are_split_at_a_time_of_any_type(data: Path) -> None:
    at = datetime(2025, 3, 15, tzinfo=UTC)
    cards = [
        evaluate(data, ["popularity"], split_at=moment)
        for moment in ("2025-03-15", at, pd.Timestamp("2025-03-15T09:00+09:00"), at.replace(tzinfo=None))
    ]
    assert {card.protocol["protocol"] for card in cards} == {"split at 2025-03-15T00:00:00Z"}


def test_the_end_of_the_data_may_have_a_zone(data: Path) -> None:
    ends = datetime(2025, 12, 1, tzinfo=UTC)
    assert label(data, rule=LabelRule(data_ends=ends)).census.data_ends == ends.replace(tzinfo=None)


# ------------------------------------------------------------------------------------------------------ recommendations


@pytest.fixture(scope="module")
def folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a bundle."""
    out: Path = tmp_path_factory.mktemp("bundle") / "b"
    train(data, out, "logistic")
    return out


@pytest.fixture(scope="module")
def recommender(folder: Path) -> Recommender:
    return Recommender(str(folder))


def test_one_registration_is_keyword_arguments_or_a_dict(recommender: Recommender) -> None:
    answer = recommender.recommend(age=31, genres=["Rock", "Jazz"])
    assert answer == recommender.recommend({"age": 31, "genres": ["Rock", "Jazz"]})
    assert answer == recommender.recommend({"age": "31"}, genres="Rock|Jazz")
    assert answer.source == "model"
    assert answer.message is not None
    assert answer.carousels
    first, *genres, message = repr(answer).splitlines()
    assert first == f"Recommendation of model {recommender.bundle.id}, answered by: model"
    assert [line.split()[0] for line in genres] == [one.genre for one in answer.genres]
    assert message.strip() == f"{answer.message.title}. {answer.message.reason}."
    assert answer.to_dict()["source"] == "model"


def test_nothing_answered_and_a_child_are_answered_by_the_policy(recommender: Recommender) -> None:
    assert recommender.recommend().source == "popular"
    assert recommender.recommend(age=12, genres=["Jazz"]).source == "under-age"
    assert Recommender(recommender.bundle, min_age=18).recommend(age=17).source == "under-age"


@pytest.mark.parametrize(
    ("answers", "usual"),
    [
        ({"age": np.int64(31)}, {"age": 31}),
        ({"age": np.float64(31.0)}, {"age": 31}),
        ({"age": float("nan")}, {}),
        ({"age": pd.NA, "gender": None, "country": np.nan}, {}),
        ({"age": pa.scalar(31)}, {"age": 31}),
        ({"country": np.str_("DE")}, {"country": "DE"}),
        ({"genres": np.array(["Rock", "Pop"], dtype=object)}, {"genres": ["Rock", "Pop"]}),
        ({"genres": pd.Series(["Rock", "Pop"])}, {"genres": ["Rock", "Pop"]}),
        ({"genres": pl.Series(["Rock", "Pop"])}, {"genres": ["Rock", "Pop"]}),
        ({"genres": ("Rock", None, np.nan)}, {"genres": ["Rock"]}),
        ({"genres": "Rock|Pop"}, {"genres": ["Rock", "Pop"]}),
        ({"genres": "Rock, Pop"}, {"genres": ["Rock", "Pop"]}),
        ({"genres": np.array("Rock|Pop")}, {"genres": ["Rock", "Pop"]}),
        ({"genres": pd.Categorical(["Rock", "Pop"])}, {"genres": ["Rock", "Pop"]}),
        ({"genres": pd.Index(["Rock", "Pop"])}, {"genres": ["Rock", "Pop"]}),
        ({"genres": pa.array(["Rock", "Pop"])}, {"genres": ["Rock", "Pop"]}),
        ({"genres": pa.chunked_array([["Rock"], ["Pop"]])}, {"genres": ["Rock", "Pop"]}),
        ({"genres": pa.scalar(["Rock", "Pop"])}, {"genres": ["Rock", "Pop"]}),
        ({"genres": [pa.scalar("Rock"), np.str_("Pop")]}, {"genres": ["Rock", "Pop"]}),
        ({"genres": dict.fromkeys(["Rock", "Pop"]).keys()}, {"genres": ["Rock", "Pop"]}),
        ({"genres": deque(["Rock", "Pop"])}, {"genres": ["Rock", "Pop"]}),
        ({"genres": float("nan")}, {}),
        ({"user_id": "7", "registered_at": pd.NaT, "age": 31}, {"age": 31}),
    ],
)
def test_values_of_table_libraries_are_those_of_python(
    recommender: Recommender, answers: dict[str, Any], usual: dict[str, Any]
) -> None:
    assert recommender.recommend(answers) == recommender.recommend(usual)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"agee": 31}, "this bundle does not ask 'agee'; it asks age, gender, country, genres, listens"),
        ({"age": 300}, "age 300 is not between 0 and 120"),
        ({"age": np.float64(30.5)}, "age 30.5 is not a whole number"),
        ({"age": True}, "age True is not a number"),
        ({"age": "30.5"}, "age '30.5' is not a whole number"),
        ({"age": "old"}, "age 'old' is not a number"),
        ({"gender": 1}, "gender 1 is not a text"),
        ({"genres": [1]}, "genres has 1: each pick is a text"),
        ({"genres": ["Rock", ["Jazz"]]}, r"genres has \['Jazz'\]: each pick is a text"),
        ({"genres": 5}, "genres is of type int: give the picks in a list"),
        ({"genres": b"Rock"}, "genres is of type bytes"),
        ({"genres": {"Rock": 1}}, "genres is of type dict"),
        ({"genres": frozenset(["Rock"])}, "genres: a set has no order"),
        ({"genres": {"Rock", "Jazz"}}, "genres: a set has no order; give the picks in a list"),
    ],
)
def test_wrong_answers_are_named(recommender: Recommender, answers: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        recommender.recommend(answers)


def test_a_table_is_answered_row_by_row_as_its_registrations(
    recommender: Recommender, arrow: dict[str, pa.Table], data: Path
) -> None:
    answers = recommender.recommend(arrow["registrations"])
    assert (
        answers
        == recommender.score(data / "registrations.csv")
        == recommender.score(pl.DataFrame(arrow["registrations"]))
    )
    rows = with_lists(arrow["registrations"].to_pandas()).to_dict("records")
    for row, answered in zip(rows, answers.to_pylist(), strict=True):
        one = recommender.recommend(row)
        assert answered == {
            "user_id": row["user_id"],
            "genres": [shown.genre for shown in one.genres],
            "probabilities": [shown.probability for shown in one.genres],
            "source": one.source,
        }


def test_a_table_in_memory_may_lack_columns(recommender: Recommender) -> None:
    answers = recommender.score(pd.DataFrame({"genres": [["Rock"], None, ["Jazz", "Pop"]]}), top=1)
    assert answers["user_id"].to_pylist() == ["1", "2", "3"]
    assert answers["source"].to_pylist() == ["model", "popular", "model"]
    assert [len(genres) for genres in answers["genres"].to_pylist()] == [1, 1, 1]
    assert recommender.score(pd.DataFrame({"age": pd.Series([], dtype=float)})).num_rows == 0


def test_arguments_of_another_type_are_named(
    recommender: Recommender, data: Path, arrow: dict[str, pa.Table], tmp_path: Path
) -> None:
    wrong: list[tuple[Any, str]] = [
        (lambda: label(data, rule={"gap_days": 30}), r"the rule is of type dict: expected LabelRule\(gap_days=30"),
        (lambda: train(tmp_path / "b", arrow), "out is of type dict, where a path is expected"),  # type: ignore[arg-type]
        (lambda: Recommender(arrow["stations"]), "the bundle is of type pyarrow.Table, where a path is expected"),  # type: ignore[arg-type]
        (lambda: LabelRule(gap_days="30"), "whole ones .gap_days is '30', window_days 30"),  # type: ignore[arg-type]
        (lambda: LabelRule(min_seconds=None), "0 or more .None is given"),  # type: ignore[arg-type]
        (lambda: recommender.recommend({"age": 3}, age=4), "age is given twice"),
    ]
    for call, message in wrong:
        with pytest.raises(InputError, match=message):
            call()


def test_a_column_of_sets_has_no_order(recommender: Recommender, arrow: dict[str, pa.Table]) -> None:
    registrations = arrow["registrations"].to_pandas()
    sets = registrations.assign(genres=[{"Rock", "Jazz"}, None] * (len(registrations) // 2))
    for call in (lambda: label({**arrow, "registrations": sets}), lambda: recommender.score(sets)):
        with pytest.raises(InputError, match="registrations: genres has sets, which have no order; give the picks in"):
            call()


def test_each_kind_of_a_column_of_picks_gives_the_same_answers(recommender: Recommender) -> None:
    picks = [["Rock", "Pop"], ["Jazz"]]
    columns = [picks, [*map(tuple, picks)], [*map(np.array, picks)], ["Rock|Pop", "Jazz"]]
    frames = [pd.DataFrame({"age": [31, 31], "genres": pd.Series(of, dtype=object)}) for of in columns]
    frames += [pl.DataFrame({"age": [31, 31], "genres": of}) for of in columns]
    frames += [pa.table({"age": [31, 31], "genres": picks})]
    for frame in frames:
        assert recommender.recommend(frame) == recommender.recommend(frames[0]), frame
    usual = recommender.recommend(age=31, genres=picks[0])
    for frame in frames[:4]:
        assert recommender.recommend(frame.iloc[0]) == usual
        assert recommender.recommend(next(frame.itertuples(index=False))) == usual
    for frame in frames[4:8]:
        assert recommender.recommend(frame.row(0, named=True)) == usual
    objects = pl.DataFrame({"age": [31], "genres": pl.Series([{"Rock"}], dtype=pl.Object)})
    with pytest.raises(InputError, match=r"genres is a column of Python objects .* give the picks in lists"):
        recommender.recommend(objects)


def test_labels_as_pandas(expected: Labels) -> None:
    pd.testing.assert_frame_equal(expected.to_pandas(), expected.table.to_pandas())


def test_a_table_with_misspelt_picks_is_an_error_and_other_absent_columns_a_warning(
    recommender: Recommender, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InputError, match="the table has no column genres, but genre: rename it, or leave it out"):
        recommender.score(pd.DataFrame({"age": [31], "genre": ["Rock"]}))
    with pytest.raises(InputError, match="the table has no column age, but Age: rename it"):
        recommender.score(pl.DataFrame({"Age": [31], "genres": ["Rock"]}))
    recommender.score(pd.DataFrame({"age": [31], "genres": ["Rock"]}))
    assert not caplog.messages
    recommender.score(pd.DataFrame({"age": [31], "gender": ["f"], "country": ["de"], "picks": ["Rock"]}))
    assert caplog.messages == ["the table has no column genres: answered without; not used: picks"]


def test_a_file_to_score_needs_no_time_of_registration(recommender: Recommender, tmp_path: Path) -> None:
    with_time = tmp_path / "with.csv"
    with_time.write_text("user_id,registered_at,age,gender,country,genres\n1,2026-01-01T00:00:00Z,31,,de,Rock\n")
    without = tmp_path / "without.csv"
    without.write_text("user_id,age,gender,country,genres\n1,31,,de,Rock\n")
    assert recommender.score(without) == recommender.score(with_time)


def test_listens_move_the_answers_to_a_table(recommender: Recommender, tmp_path: Path) -> None:
    station = recommender.bundle.evidence.by_genre()["Jazz"][0]
    people = pd.DataFrame({"user_id": ["a", "b"], "genres": [["Rock"], ["Rock"]]})
    at = [datetime(2020, 1, 1, hour, tzinfo=UTC) for hour in range(3)]
    listens = pd.DataFrame({"user_id": ["a", "a", "c"], "started_at": at, "station_id": station, "seconds": 600})
    alone, moved = recommender.score(people), recommender.score(people, listens=listens)
    listens.to_parquet(tmp_path / "listens.parquet")
    assert recommender.score(people, listens=tmp_path / "listens.parquet") == moved
    assert moved.slice(1) == alone.slice(1)
    expected = recommender.recommend(genres=["Rock"], listens=[{"station_id": station, "seconds": 600}] * 2)
    assert moved["probabilities"][0].as_py() == [one.probability for one in expected.genres]
    assert moved.slice(0, 1) != alone.slice(0, 1)
    later = people.assign(registered_at=datetime(2021, 1, 1, tzinfo=UTC))  # those before the registration do not count
    assert recommender.score(later, listens=listens) == alone
    with pytest.raises(InputError, match="the registrations have no column user_id, so their listens are not known"):
        recommender.score(people[["genres"]], listens=listens)
    with pytest.raises(InputError, match=r"listens .*seconds"):
        recommender.score(people, listens=listens.drop(columns="seconds"))


def test_a_table_without_any_answer_is_an_error_and_skipped_rows_are_logged(
    recommender: Recommender,
) -> None:
    with pytest.raises(InputError, match=r"none of the columns age, gender, country, genres \(it has Age\)"):
        recommender.score(pd.DataFrame({"Age": [31]}))
    ages = pd.DataFrame({"age": [31, 131]})
    with pytest.raises(InputError, match="registrations row 2: age '131' is not between 0 and 120"):
        recommender.score(ages)
    with pytest.warns(UserWarning, match="left out 1: registrations: age is not between 0 and 120"):
        assert len(recommender.score(ages, skip_bad_rows=True)) == 1
    with pytest.raises(InputError, match="top is 0; at least one genre"):
        recommender.score(ages, top=0)


def test_picks_may_have_commas_between_and_an_unknown_one_is_a_warning(recommender: Recommender) -> None:
    assert recommender.recommend(genres="Rock, Jazz") == recommender.recommend(genres=["Rock", "Jazz"])
    with pytest.warns(UserWarning, match="'Jaz' is not a genre of this bundle and is ignored; the nearest is Jazz"):
        assert recommender.recommend(genres=["Rock", "Jaz"]) == recommender.recommend(genres="Rock")
    picks = pd.DataFrame({"genres": [["Rock"], ["Polka"], ["Jazz"]]})
    with pytest.warns(UserWarning, match="1 of 3 picks name no genre that the bundle knows .*'Polka'"):
        recommender.score(picks)


def test_a_country_that_the_model_does_not_know_is_a_warning(recommender: Recommender) -> None:
    with pytest.warns(UserWarning, match="country 'DEE' is no value that the model knows .* the nearest is de"):
        recommender.recommend(age=31, country="DEE")
    with pytest.warns(UserWarning, match="gender 'none of yours' is no value that the model knows"):
        recommender.recommend(age=31, gender="none of yours")


def test_a_row_of_a_pandas_table_is_a_registration(recommender: Recommender, arrow: dict[str, pa.Table]) -> None:
    row = arrow["registrations"].to_pandas().assign(device="phone").iloc[3]
    answers = row[["age", "country", "genres"]].to_dict()
    assert recommender.recommend(row) == recommender.recommend(row.to_dict()) == recommender.recommend(answers)
    with pytest.raises(InputError, match="does not ask 'device'"):
        recommender.recommend(answers, device="phone")


def test_an_empty_column_of_text_may_have_the_type_of_floats(
    expected: Labels, arrow: dict[str, pa.Table], tmp_path: Path
) -> None:
    frames = {name: table.to_pandas() for name, table in arrow.items()}
    frames["registrations"] = frames["registrations"].assign(gender=np.nan)
    for name, frame in frames.items():
        frame.to_parquet(tmp_path / f"{name}.parquet")
    assert label(frames).table.equals(expected.table)
    assert label(tmp_path).table.equals(expected.table)
    frames["registrations"].assign(gender=1.5).to_parquet(tmp_path / "registrations.parquet")
    with pytest.raises(InputError, match="gender is double, where text is needed"):
        label(tmp_path)


@pytest.mark.parametrize("years", [-1, 121, "13", 13.5])
def test_a_minimum_age_out_of_range_is_an_error(recommender: Recommender, years: Any) -> None:
    with pytest.raises(InputError, match="is not a whole number from 0 to 120"):
        Recommender(recommender.bundle, min_age=years)


def test_columns_of_other_names_are_mapped(expected: Labels, arrow: dict[str, pa.Table]) -> None:
    renamed = arrow["registrations"].rename_columns({"user_id": "uid", "age": "years"})
    columns = {"registrations.user_id": "uid", "age": "years"}
    assert label({**arrow, "registrations": renamed}, columns=columns).table.equals(expected.table)


def test_a_rule_with_half_days_or_text_is_an_error() -> None:
    for days in (0.5, "7", -1):
        with pytest.raises(InputError, match="the label's gap is 0 to 3650 days"):
            LabelRule(gap_days=days)


def test_a_recommender_imports_no_table_library(folder: Path) -> None:
    heavy = ("pandas", "polars", "ibis", "duckdb", "pyarrow", "sklearn", "lightgbm", "scipy")
    code = (
        "import sys; from firstspin.api import Recommender;"
        f"print(Recommender({str(folder)!r}).recommend(age=31, genres=['Rock']).source);"
        f"print([module for module in {heavy} if module in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["model", "[]"]
