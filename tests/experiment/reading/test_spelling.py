"""Numbers, blanks and dates as exports spell them: one value each, or an error that names the option."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from spellings import REFUSED, WRITTEN, WRITTEN_DAYS

from firstspin.data import parsing
from firstspin.data.formats.written_values import Spelling
from firstspin.experiment.outcomes import Outcomes, read_outcomes, refuse_only_yes
from firstspin.experiment.reading.event_log import read_event_log
from firstspin.experiment.reading.outcome_columns import opened_table, value
from firstspin.experiment.reading.spelling import amount, day_kind
from firstspin.experiment.rules import parse_metric
from firstspin.records import InputError


def column(*cells: str, metric: str = "x:continuous", **options: object) -> Outcomes:
    """The outcomes of these cells, with a day if `metric` is not of them."""
    arms = [f"{'ab'[i % 2]}" for i in range(len(cells))]
    return read_outcomes(
        pa.table({"arm": arms, "x": list(cells)}), arm="arm", metrics=[parse_metric(metric)], **options
    )


def values(*cells: str, **options: object) -> list[float]:
    return sorted(column(*cells, **options).values[0].tolist())


def columns(cells: Sequence[Sequence[str]], **options: object) -> list[list[float]]:
    """The values of columns, each of which is read by itself; the first cell is of arm a, the others are of b."""
    table = {"arm": ["a", *"b" * (len(cells[0]) - 1)]} | {f"x{i}": list(of) for i, of in enumerate(cells)}
    metrics = [parse_metric(f"x{i}:continuous") for i in range(len(cells))]
    return [found.tolist() for found in read_outcomes(pa.table(table), arm="arm", metrics=metrics, **options).values]


@pytest.mark.parametrize("mark", ["point", "comma"])
def test_each_written_number_has_one_value_with_each_decimal_mark(mark: str) -> None:
    expected = {text: pair[mark == "comma"] for text, pair in WRITTEN.items()}
    numbers = {text: wanted for text, wanted in expected.items() if wanted is not REFUSED}
    found = columns([(text, "") for text in numbers], spelling=Spelling(decimal=mark))
    for (text, wanted), (one, blank) in zip(numbers.items(), found, strict=True):
        assert np.isnan(blank), text
        assert (None if np.isnan(one) else one) == (wanted if wanted is None else pytest.approx(wanted)), text
    refused, spelling = expected.keys() - numbers.keys(), Spelling(decimal=mark)
    with opened_table(pa.table({text: [text, ""] for text in refused}), spelling, list(refused)) as table:
        for text in refused:
            with pytest.raises(InputError, match=rf"row 1: {re.escape(f'{text} {text!r}')} is not a finite number"):
                value(table, text, amount(table, text, spelling))


@pytest.mark.parametrize("order", ["day-first", "month-first"])
def test_each_written_date_has_one_day_with_each_order(order: str) -> None:
    def days(*texts: str) -> list[date]:
        table = pa.table({"arm": ["a"] * len(texts), "x": list(range(len(texts))), "on": list(texts)})
        metrics, spelling = [parse_metric("x:continuous")], Spelling(dates=order)
        return read_outcomes(table, arm="arm", metrics=metrics, day="on", spelling=spelling).day.tolist()

    expected = {text: pair[order == "month-first"] for text, pair in WRITTEN_DAYS.items()}
    dates = {text: date.fromisoformat(f"2026-{on}") for text, on in expected.items() if on is not REFUSED}
    assert days(*dates) == list(dates.values())
    in_iso = [text for text in dates if re.match("2026-02-05", text)]  # which are read in another way by themselves
    assert days(*in_iso) == [dates[text] for text in in_iso]
    refused, spelling = expected.keys() - dates.keys(), Spelling(dates=order)
    with opened_table(pa.table({text: [text] for text in refused}), spelling, list(refused)) as table:
        for text in refused:
            with pytest.raises(InputError, match=r"outcomes row 1: .* is (not a date with a year|missing)"):
                value(table, text, day_kind(table, text, spelling))


def test_a_column_decides_what_one_of_its_values_leaves_open() -> None:
    assert values("1,234", "5.5") == [5.5, 1234]
    assert values("1,234", "5,5") == [1.234, 5.5]
    assert values("1.234", "5,5") == [5.5, 1234]
    assert values("1,234", "1,234,567") == [1234, 1234567]
    assert values("1,234", "7", spelling=Spelling(decimal="point")) == [7, 1234]
    assert values("12", "1.234") == [1.234, 12]
    [note] = column("12", "1.234").notes
    assert note == "x '1.234' is read with a decimal point; with --decimal comma it is in thousands."


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (
            ("7", "1,234"),
            "row 2: x '1,234' is ambiguous: .*; give --decimal comma or --decimal point",
        ),
        (("1.5", "1,5"), "row 1: x '1.5' and row 2: x '1,5' - the decimal marks differ"),
        (("5%", "0.05"), "row 1: x '5%' and row 2: x '0.05' - only one has a percent sign"),
        (("$5", "€5"), r"x has amounts in \$ and €; convert them to one"),
    ],
)
def test_what_a_column_leaves_open_is_an_error_with_the_option(cells: tuple[str, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        column(*cells)


def test_a_plain_number_reads_as_among_others() -> None:
    plain = ("0", "7", "-12", "+12", "007", "12.5", "12.50", "0.125", "-0.5", "1234.5", "1.2345", "00.12")
    for text in plain:
        assert re.fullmatch(parsing.PLAIN_NUMBER, text)
        assert not ("." in text and re.fullmatch(parsing.COMMA_NUMBER, text)), text
    alone, among_others = (columns([(text, "", other) for text in plain]) for other in ("nan", "1,234.56"))
    for text, one, many in zip(plain, alone, among_others, strict=True):
        assert np.isnan(one).tolist() == [False, True, True], text
        assert one[0] == many[0], text
    for text in ("1.234", "12.345", "-1.234", "12.", ".5", "1e3", "5%", "1,5", "12.345.678", "", "nan", "inf"):
        assert not re.fullmatch(parsing.PLAIN_NUMBER, text), text


def test_a_percentage_of_zero_needs_no_sign() -> None:
    assert values("5%", "0", "0.0") == [0, 0, 0.05]


def test_days_decide_the_order_or_an_option_does() -> None:
    def days(*texts: str, **options: object) -> list[date]:
        table = pa.table({"arm": ["a"] * len(texts), "x": list(range(len(texts))), "on": list(texts)})
        found = read_outcomes(table, arm="arm", metrics=[parse_metric("x:continuous")], day="on", **options)
        return [day for _, day in sorted(zip(found.values[0], found.day.tolist(), strict=True))]

    assert days("01/02/2026", "13/02/2026") == [date(2026, 2, 1), date(2026, 2, 13)]
    assert days("01/02/2026", "02/13/2026") == [date(2026, 1, 2), date(2026, 2, 13)]
    assert days("2026-02-01", "13.02.2026", "7 Feb 2026") == [date(2026, 2, 1), date(2026, 2, 13), date(2026, 2, 7)]
    assert days("02/02/2026") == [date(2026, 2, 2)]
    assert days("01/02/2026", spelling=Spelling(dates="month-first")) == [date(2026, 1, 2)]
    with pytest.raises(InputError, match=r"row 1: on '01/02/2026' is ambiguous: .* give --dates day-first or"):
        days("01/02/2026", "2026-02-01")
    with pytest.raises(InputError, match=r"row 2: on '13/02/2026' and row 1: on '02/13/2026' - the orders .* differ"):
        days("02/13/2026", "13/02/2026")


def test_blanks_are_missing_unless_they_mean_no(tmp_path: Path) -> None:
    blanks = ("", " ", "NA", "null", "-", "None")
    missing = column("yes", "no", *blanks, metric="x").values[0]
    assert (np.isnan(missing).sum(), np.nansum(missing)) == (6, 1)
    assert values("yes", "no", *blanks, metric="x:binary:blank=no") == [0] * 7 + [1]
    assert values("5", "", metric="x:continuous:blank=no") == [0, 5]
    path = tmp_path / "o.csv"
    path.write_text("arm,x\n" + "".join(f"{'ab'[i % 2]},{cell}\n" for i, cell in enumerate(("1", "0", *blanks))))
    found = read_outcomes(path, arm="arm", metrics=[parse_metric("x:binary:blank=no")])
    assert sorted(found.values[0].tolist()) == [0] * 7 + [1]


def test_a_metric_of_only_yes_and_blanks_is_refused_with_the_hint() -> None:
    for metric in ("x", "x:binary", "x:continuous"):
        with pytest.raises(InputError, match=r"x has only yes and 2 blanks: where .* say x:binary:blank=no"):
            refuse_only_yes(column("1", "", "1", "NA", metric=metric))
    refuse_only_yes(column("1", "", metric="x:binary:blank=no"))
    refuse_only_yes(column("1", "1", metric="x"))
    refuse_only_yes(column("1", "", "0", metric="x"))


def test_a_number_has_one_value_in_a_file_a_table_and_an_event_log(tmp_path: Path) -> None:
    one_currency = {text: pair[0] for text, pair in WRITTEN.items() if not re.search("[%\u20ack]|EUR", text)}
    numbers = {text: value for text, value in one_currency.items() if isinstance(value, float)}
    rows = [f'u{i},{"ab"[i % 2]},buy,2026-02-02,"{text}"' for i, text in enumerate(numbers)]
    path, spelling = tmp_path / "log.csv", Spelling(decimal="point")
    path.write_text("\n".join(["user,arm,event,time,x", *rows, ""]), encoding="utf-8")
    log = ("user", "event", "time", "x")
    for found in (
        column(*numbers, spelling=spelling),
        read_outcomes(path, arm="arm", metrics=[parse_metric("x:continuous")], spelling=spelling),
        read_event_log(path, log, [parse_metric("buy:continuous")], arm="arm", spelling=spelling),
    ):
        assert sorted(found.values[0]) == pytest.approx(sorted(numbers.values()))
