from __future__ import annotations

import bz2
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from firstspin.experiment.outcomes import LeftOut, Outcomes, read_outcomes
from firstspin.experiment.rules import Metric, parse_metric
from firstspin.records import InputError


def read(source: Path | pa.Table, *metrics: str, **options: object) -> Outcomes:
    return read_outcomes(source, arm="arm", metrics=[parse_metric(text) for text in metrics], **options)


def csv(folder: Path, text: str) -> Path:
    path = folder / "o.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_row_is_a_user_and_every_spelling_of_yes_counts(tmp_path: Path) -> None:
    rows = "arm,clicked\n" + "\n".join(f"a,{word}" for word in ("1", "TRUE", "true", "Yes", "0", "False", "n", "0.0"))
    found = read(csv(tmp_path, rows + "\nb,1\n"), "clicked")
    assert found.arms == ("a", "b")
    assert found.metrics[0].kind == "binary"
    assert found.values[0][found.arm == 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    assert len(read(csv(tmp_path, "\ufeffarm,clicked\na,1\nb,0\n"), "clicked")) == 2


def test_arms_are_text_even_when_they_look_like_numbers_or_gaps(tmp_path: Path) -> None:
    assert read(csv(tmp_path, "arm,clicked\n01,1\nNA,0\nNULL,0\n"), "clicked").arms == ("01", "NA", "NULL")


def test_numbers_that_are_not_all_yes_or_no_are_continuous(tmp_path: Path) -> None:
    found = read(csv(tmp_path, "arm,seconds\na,1\nb,0\nb,7.5\n"), "seconds")
    assert found.metrics[0].kind == "continuous"


def test_rows_sum_up_to_one_a_unit(tmp_path: Path) -> None:
    rows = "user,arm,clicked,seconds,day\nu,a,0,10,2026-02-03\nu,a,1,5,2026-02-02\nv,b,0,7,2026-02-04\n"
    found = read(
        csv(tmp_path, rows), "clicked:binary", "seconds:continuous", "seconds:ratio=clicked", unit="user", day="day"
    )
    assert [found.values[i].tolist() for i in range(3)] == [[1, 0], [15, 7], [15, 7]]
    assert found.per[2].tolist() == [1, 0]
    assert found.day.tolist() == [date(2026, 2, 2), date(2026, 2, 4)]


def test_a_unit_in_two_arms_is_left_out_and_counted(tmp_path: Path) -> None:
    rows = "user,arm,clicked\nu,a,1\nu,b,1\nv,b,0\nw,,1\nx,a,1\nx,,1\n"
    found = read(csv(tmp_path, rows), "clicked", unit="user")
    assert (len(found), found.left_out) == (2, LeftOut(without_arm=1, in_several_arms=1))
    both = read(csv(tmp_path, rows), "clicked", unit="user", left_out=LeftOut(in_several_arms=4))
    assert both.left_out.in_several_arms == 5


def test_rows_of_the_same_user_are_noticed_when_no_unit_is_given(tmp_path: Path) -> None:
    found = read(csv(tmp_path, "user_id,arm,clicked\nu,a,1\nu,a,1\nv,b,0\n"), "clicked")
    assert (len(found), found.left_out.repeated) == (3, 1)


def test_gaps_in_a_metric_stay_gaps(tmp_path: Path) -> None:
    found = read(csv(tmp_path, "arm,seconds\na,\na,3\nb,4\n"), "seconds:continuous")
    assert np.isnan(found.values[0]).sum() == 1


@pytest.mark.parametrize(
    ("rows", "metric", "words"),
    [
        ("arm,clicked\na,1\nb,maybe\n", "clicked:binary", "o.csv row 2: clicked 'maybe' is not binary"),
        ("arm,s\na,1\nb,inf\n", "s:continuous", "o.csv row 2: s 'inf' is not a finite number"),
        ("arm,s\na,1\nb,1e999\n", "s:continuous", "o.csv row 2: s '1e999' is not a finite number"),
        ("arm,s\na,1\nb,1e99\n", "s:continuous", r"o.csv row 2: s '1e99' is not below 1e\+60"),
        ("arm,s\na,1\nb,1_0\n", "s:continuous", "o.csv row 2: s '1_0' is not a finite number"),
        ("arm,s\na,1\nb,2,3\n", "s:continuous", "o.csv row 2 has 3 cells instead of 2"),
        ("arm,s,s\na,1,2\nb,2,3\n", "s:continuous", "o.csv names the column s twice"),
        ("arm,s\na,1\nb,x\n", "s", "o.csv row 2: s 'x' is not a finite number"),
        ("arm,s\na,1\nb,2\n", "t", "has no column t"),
        ("arm,s\n", "s", "no user is in exactly one arm"),
        ("arm,s\n,1\n", "s", "no user is in exactly one arm"),
        ("", "s", "is empty"),
    ],
)
def test_what_can_not_be_read_is_named(tmp_path: Path, rows: str, metric: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read(csv(tmp_path, rows), metric)


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfarm,clicked\na,1\nb,0\n",
        b"sep=,\narm,clicked\na,1\nb,0\n",
        b"sep=;\r\narm;clicked\r\na;1\r\nb;0\r\n",
        b"arm;clicked\na;1\nb;0\n",
        b"arm\tclicked\na\t1\nb\t0\n",
        b",arm,clicked\n0,a,1\n1,b,0\n",
        b"x,x,arm,clicked\n0,1,a,1\n1,0,b,0\n",
        b"arm,clicked,Arm,CLICKED\na,1,z,9\nb,0,z,9\n",
        b"arm,clicked\na,1\r\nb,0\n",
        b"arm,clicked,\na,1,\nb,0,\n",
        b"arm,clicked\na,1,\nb,0\n",
        b" arm , clicked \n a , 1 \n b , 0 \n",
        b'"arm","clicked"\n"a","1"\n"b","0"',
        "arm,clicked\na,1\nb,0\n".encode("utf-16"),
        b"row of the file,problem of the row,column 0,arm,clicked\n1,2,3,a,1\n2,3,4,b,0\n",
    ],
)
def test_a_csv_file_is_read_however_it_is_written(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    path.write_bytes(content)
    found = read(path, "clicked:binary")
    assert (found.arms, found.arm.tolist(), found.values[0].tolist()) == (("a", "b"), [0, 1], [1, 0])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (bz2.compress(b"arm,clicked\na,1\n"), "o.csv is compressed with bzip2: unpack it first"),
        (b"arm,clicked\na,1\nb,0,0,0\n", "o.csv row 2 has 4 cells instead of 2"),
        (b"arm,clicked,arm\na,1,b\n", "o.csv names the column arm twice"),
        (b"arm,clicked\na,1\nb,\xff\n", "o.csv row 2 is not text in UTF-8: --encoding names"),
        (b"a,1\nb,0\n", r"o.csv has no column arm, clicked \(it has a, 1\)"),
    ],
)
def test_an_unreadable_csv_file_is_a_one_line_error(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        read(path, "clicked:binary")


def test_an_apostrophe_that_our_csv_has_before_a_formula_is_taken_away(tmp_path: Path) -> None:
    rows = "user_id,arm,clicked,market\n'=1,'-a,1,'@x\n'=1,'-a,1,'@x\n''=1,b,0,it's\n'tis,b,0,'tis\n"
    found = read(csv(tmp_path, rows), "clicked", unit="user_id")
    assert (found.arms, len(found)) == (("-a", "b"), 3)
    parquet = tmp_path / "o.parquet"
    pq.write_table(pa.table({"arm": ["'-a", "b"], "clicked": [1, 0]}), parquet)
    assert read(parquet, "clicked").arms == ("'-a", "b")


def test_a_nan_is_a_gap_as_text_and_as_a_number(tmp_path: Path) -> None:
    for source in (
        csv(tmp_path, "arm,seconds\na,NaN\na,3\nb,4\n"),
        pa.table({"arm": ["a", "a", "b"], "seconds": [float("nan"), 3.0, 4.0]}),
    ):
        assert np.isnan(read(source, "seconds:continuous").values[0]).sum() == 1


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (pa.array([1, 0, None], pa.int8()), [1, 0]),
        (pa.array([True, False, None]), [1, 0]),
        (pa.array([Decimal("1.50"), Decimal("0.25"), None], pa.decimal128(20, 2)), [1.5, 0.25]),
        (pa.array(["1", "0", None]).dictionary_encode(), [1, 0]),
        (pa.array(["1", "0", None], pa.large_string()), [1, 0]),
        (pa.array([1.5, float("nan"), None], pa.float32()), [1.5]),
        (pa.array([2**63, 0, None], pa.uint64()), [2.0**63, 0]),
    ],
    ids=["int8", "boolean", "decimal", "dictionary", "large text", "float32", "uint64"],
)
def test_every_type_that_holds_numbers_is_read(column: pa.Array, values: list[float], tmp_path: Path) -> None:
    path = tmp_path / "o.parquet"
    pq.write_table(pa.table({"arm": ["a", "b", "b"], "x": column}), path)
    found = read(path, "x:continuous").values[0]
    assert found[~np.isnan(found)].tolist() == values


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (pa.array([timedelta(seconds=1), None]), r"o.parquet: x is duration\[us\], where numbers are needed"),
        (pa.array([b"1", b"0"]), "o.parquet: x is binary, where numbers are needed"),
        (pa.array([date(2026, 1, 1), None]), r"o.parquet: x is date32\[day\], where numbers are needed"),
        (pa.array([{"y": 1}, None]), "o.parquet: x is struct<y: int64>, where numbers are needed"),
    ],
    ids=["duration", "binary", "date", "struct"],
)
def test_a_type_that_holds_no_numbers_is_named(column: pa.Array, words: str, tmp_path: Path) -> None:
    path = tmp_path / "o.parquet"
    pq.write_table(pa.table({"arm": ["a", "b"], "x": column}), path)
    with pytest.raises(InputError, match=words):
        read(path, "x:continuous")
    with pytest.raises(InputError, match=r"o\.parquet: x is"):
        read_outcomes(path, arm="arm", metrics=[parse_metric("x")], covariates=())


@pytest.mark.parametrize(
    "name",
    ['x"; DROP TABLE received; --', "x\ny", "x" * 10_000, "'", "\\", "SELECT 1", "column 0", "é", "%s?$1"],
)
def test_a_column_of_any_name_is_only_a_column(name: str, tmp_path: Path) -> None:
    path = tmp_path / "o.parquet"
    pq.write_table(pa.table({"arm": ["a", "b"], name: [1.5, 2.5], f"{name}2": [1, 2]}), path)
    metric = Metric(name, "continuous")
    found = read_outcomes(path, arm="arm", metrics=[metric], covariates=[f"{name}2"], unit=f"{name}2")
    assert found.values[0].tolist() == [1.5, 2.5]


def test_arms_of_any_name_are_only_names() -> None:
    arms = ["'; DROP TABLE users; --", '"', "\n", "'", "%", "ARM", "arm"]
    found = read(pa.table({"arm": [*arms, *arms], "x": [1.0] * 14}), "x:continuous")
    assert set(found.arms) == {arm for arm in arms if arm.strip()}


def test_what_stands_in_a_table_is_not_in_a_message_for_a_log(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        read(csv(tmp_path, "arm,clicked\na,telltale\n"), "clicked:binary")
    assert refused.value.bare == "o.csv row 1: clicked is not binary (1 or 0, true or false, yes or no)"


def test_a_column_that_can_be_no_arm_metric_or_covariate_is_refused(tmp_path: Path) -> None:
    path = csv(tmp_path, "user,arm,x\n" + "".join(f"u{i},{'ab'[i % 2]},{i}\n" for i in range(200)))
    for options, words in (
        ({"arm": "user"}, "user has more than 100 values; is it the column of the arm"),
        ({"arm": ""}, "a column name is empty"),
        ({"covariates": ["arm"]}, "the covariate arm is the arm; a covariate must be known at registration"),
        ({"covariates": ["x"]}, "the covariate x is a metric"),
    ):
        with pytest.raises(InputError, match=words):
            read_outcomes(path, **{"arm": "arm", "metrics": [parse_metric("x:continuous")]} | options)


def test_a_day_or_unit_that_is_none_is_named(tmp_path: Path) -> None:
    path = csv(tmp_path, "user,arm,s,day\nu,a,1,2026-02-02\n,b,2,tomorrow\n")
    with pytest.raises(InputError, match="row 2: day 'tomorrow' is not a date"):
        read(path, "s", day="day")
    with pytest.raises(InputError, match="row 2: user is missing"):
        read(path, "s", unit="user")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none"):
        read(tmp_path / "none.csv", "s")


def test_times_are_taken_to_their_day_in_utc(tmp_path: Path) -> None:
    rows = "arm,s,at\na,1,2026-02-02T23:30:00-01:00\nb,2,2026-02-02T23:30:00Z\n"
    assert read(csv(tmp_path, rows), "s", day="at").day.tolist() == [date(2026, 2, 3), date(2026, 2, 2)]


def test_csv_parquet_and_arrow_say_the_same_in_any_order_and_in_any_pieces(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    n = 5_000
    columns = {
        "user": rng.integers(0, 2_000, n).astype(str),
        "seconds": rng.lognormal(3, 2, n),
        "clicked": rng.random(n) < 0.1,
        "visits": rng.integers(1, 9, n),
        "age": np.where(rng.random(n) < 0.1, None, rng.integers(13, 90, n)),
        "market": rng.choice(["de", "hu", "it"], n),
        "day": [datetime(2026, 2, int(day)) for day in rng.integers(1, 15, n)],
    }
    table = pa.table(columns)
    table = table.append_column("arm", pa.array(["a" if int(user) % 2 else "b" for user in columns["user"]]))
    shuffled = table.take(pa.array(rng.permutation(n)))
    paths = [tmp_path / "whole.parquet", tmp_path / "pieces.parquet"]
    pq.write_table(table, paths[0])
    pq.write_table(shuffled, paths[1], row_group_size=700)
    text = tmp_path / "text.csv"
    lines = [",".join(table.column_names)]
    for row in shuffled.to_pylist():
        lines.append(",".join("" if value is None else str(value) for value in row.values()))
    text.write_text("\n".join(lines) + "\n")
    metrics = ["clicked", "seconds:continuous", "seconds:ratio=visits"]
    options = {"unit": "user", "day": "day", "covariates": ["age", "market"]}
    first, *others = [read(source, *metrics, **options) for source in (table, *paths, text)]
    for other in others:
        for one, two in zip(
            (*first.values, first.per[2], first.arm), (*other.values, other.per[2], other.arm), strict=True
        ):
            assert np.array_equal(one, two)
        assert np.array_equal(first.covariates, other.covariates)
        assert np.array_equal(first.day, other.day)


def test_covariates_become_indicators_of_levels_and_numbers_with_their_gaps_marked(tmp_path: Path) -> None:
    rows = "arm,clicked,age,market\na,1,20,de\na,0,,hu\nb,1,40,it\nb,0,30,\n"
    found = read(csv(tmp_path, rows), "clicked", covariates=["age", "market"])
    by_age = {row[0]: row[1:].tolist() for row in found.covariates}
    # age with the gap at its mean of 30, the gap, and de, hu, it beside the level of no market
    assert found.covariates.shape == (4, 5)
    assert by_age[20] == [0, 1, 0, 0]
    assert by_age[40] == [0, 0, 0, 1]
    assert sorted(row[0] for row in found.covariates) == [20, 30, 30, 40]


def test_a_covariate_of_too_many_levels_or_of_one_is_refused_or_left_out(tmp_path: Path) -> None:
    rows = "arm,clicked,name,same\n" + "".join(f"{'ab'[i % 2]},1,n{i},x\n" for i in range(60))
    with pytest.raises(InputError, match="name has more than 50"):
        read(csv(tmp_path, rows), "clicked", covariates=["name"])
    assert read(csv(tmp_path, rows), "clicked", covariates=["same"]).covariates.shape == (60, 0)


def test_columns_that_hold_no_numbers_or_days_are_refused_by_their_type() -> None:
    table = pa.table({"arm": ["a", "b"], "s": [[1], [2]], "day": [1, 2], "c": [1, 0]})
    with pytest.raises(InputError, match=r"outcomes: s is list<.*int64>, where numbers are needed"):
        read(table, "s")
    with pytest.raises(InputError, match="outcomes: day is int64, where days are needed"):
        read(table, "c", day="day")


def test_a_column_named_like_a_word_of_ours_is_only_a_column() -> None:
    names = ["row", "unit", "arms", "v0", "users", "received"]
    table = pa.table({"arm": ["a", "b"], **{name: [1.5, 2.5] for name in names}})
    found = read(table, *names)
    assert all(values.tolist() == [1.5, 2.5] for values in found.values)


def test_names_with_quotes_and_spaces_are_only_names(tmp_path: Path) -> None:
    path = tmp_path / "o.parquet"
    pq.write_table(pa.table({'the "arm"': ["a", "b"], "a; DROP TABLE x": [1, 0]}), path)
    found = read_outcomes(path, arm='the "arm"', metrics=[parse_metric("a; DROP TABLE x")])
    assert found.values[0].tolist() == [1, 0]
