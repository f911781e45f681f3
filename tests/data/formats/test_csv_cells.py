"""No spreadsheet takes a cell of our CSV for a formula, and the text can be restored."""

from __future__ import annotations

import csv
import io

import duckdb
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from firstspin.data.formats.csv_cells import GUARDED, csv_line, guarded, is_guarded, original

TEXTS = st.text(st.sampled_from("=+-@'\t\r\n \u00a0\u3000\uff1d\uff20;,\"|a1")) | st.text()
LIKE_A_FORMULA = ("=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "\n=1", " =1", "\u3000=1", "\uff1d1", "-", "+49170")
BEGINNINGS = tuple("=+-@\t\r\n")
PLAIN = ("", "007", "O'Brien", "'s Gravenhage", "a=b", "Rock", "1-2", "' '", "''")


@pytest.mark.parametrize("text", LIKE_A_FORMULA)
def test_what_begins_like_a_formula_gets_an_apostrophe(text: str) -> None:
    assert guarded(text) == "'" + text


@pytest.mark.parametrize("text", PLAIN)
def test_any_other_text_stays_as_it_is(text: str) -> None:
    assert (guarded(text), original(text), is_guarded(text)) == (text, text, False)


@given(TEXTS)
@example("'=1")
@example("''=1")
def test_every_text_comes_back_and_no_two_become_the_same_cell(text: str) -> None:
    assert original(guarded(text)) == text
    assert not guarded(text).startswith(BEGINNINGS)


@given(st.lists(TEXTS, min_size=2, max_size=3))
def test_a_row_is_read_as_it_was_written_and_no_cell_begins_a_formula(texts: list[str]) -> None:
    [row] = csv.reader(io.StringIO(csv_line(texts), newline=""), strict=True)
    assert list(map(original, row)) == texts
    assert not any(cell.startswith(BEGINNINGS) for cell in row)


@given(TEXTS)
def test_a_text_with_another_separator_is_one_cell_where_that_is_the_separator(text: str) -> None:
    for separator in ";\t":
        [row] = csv.reader(io.StringIO(csv_line([text, "0.5"]), newline=""), delimiter=separator)
        assert len(row) == 1
        assert not row[0].startswith(BEGINNINGS)


@given(TEXTS.filter(lambda text: "\0" not in text))
def test_duckdb_undoes_it_by_the_same_rule(text: str) -> None:
    for cell in (text, guarded(text)):
        asked = "SELECT CASE WHEN regexp_matches($cell, $guarded) THEN $cell[2:] ELSE $cell END"
        assert duckdb.execute(asked, {"cell": cell, "guarded": GUARDED}).fetchall() == [(original(cell),)]
