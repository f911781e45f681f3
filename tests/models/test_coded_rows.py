"""Rows encoded by columns equal those of registrations to the bit."""

from __future__ import annotations

import math
import tracemalloc

import made_people
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_columns import TYPES, columns

from firstspin.data.registrations.coded import coded
from firstspin.data.registrations.reading import registrations_of
from firstspin.models.coded_rows import MAX_CELLS, CodedRows, EncodedPicks
from firstspin.models.features import Category, Encoder, Number, Picks
from firstspin.records import MAX_PICKS, Registration

EXTRA = ("device", "visits")
GENRES = ("Folk, World", "Hip Hop", "Jazz", "R&B", "Rock", "rock")
NUMBERS = (0.0, -0.0, 1.5, -3.0, 5e-324, 1e300, math.nan, math.inf, -math.inf)
WORDS = ("female", " Female ", "FEMALE", "ﬀ", "other", "", " ", "\u2003male", "İ", "nul\0byte", "é", "é")
PICKS = (*GENRES, "ROCK", " Jazz", "hip\u00a0hop", "Polka", "", "  ", "R＆B")

ENCODER = Encoder(
    [
        Number("age", [18, 30.5, 60]),
        Category("gender", ["female", "male"]),
        Category("country", ["é", "se"], has_rare=False),
        Picks("genres", GENRES),
        Category("device", ["1.5", "phone"]),
        Number("visits", [0, 2]),
        Number("absent", [1]),
    ]
)

people = st.fixed_dictionaries(
    {
        "age": st.none() | st.integers(0, 120),
        "gender": st.none() | st.sampled_from(WORDS),
        "country": st.none() | st.sampled_from(WORDS),
        "genres": st.lists(st.sampled_from(PICKS) | st.none(), max_size=9),
        "device": st.none() | st.sampled_from([*WORDS, "PHONE", "1.5"]),
        "visits": st.none() | st.sampled_from(NUMBERS) | st.floats(),
    }
)


def table(rows: list[dict[str, object]]) -> pa.RecordBatch:
    return pa.record_batch({name: pa.array([row[name] for row in rows], TYPES[name]) for name in rows[0]})


@given(rows=st.lists(people, min_size=1, max_size=40), data=st.data())
def test_every_row_has_the_bits_of_its_registration(rows: list[dict[str, object]], data: st.DataObject) -> None:
    batch = table(rows)
    start = data.draw(st.integers(0, len(rows)))
    stop = data.draw(st.integers(start, len(rows)))
    one_by_one, known = ENCODER.matrix_matched(registrations_of(batch, EXTRA)[start:stop])
    for part, begin in ((batch, start), (batch.slice(start), 0)):  # a slice has its own offsets
        encoded, known_by_columns = CodedRows(ENCODER, coded(part, EXTRA)).matched(begin, begin + stop - start)
        assert encoded.tobytes() == one_by_one.tobytes()
        assert known_by_columns.tolist() == known


def test_picks_count_once_and_in_their_order() -> None:
    encoder = Encoder([Picks("genres", ("Jazz", "Rock"))])
    batch = columns([Registration(genres=("Polka", "ROCK", "rock", " Jazz", "Rock")), Registration(genres=("Polka",))])
    encoded, known = CodedRows(encoder, coded(batch)).matched(0, 2)
    shown = [{name: x for name, x in zip(encoder.columns, row, strict=True) if x} for row in encoded.tolist()]
    both = {"picked=Rock": 1.0, "rank=Rock": 1.0, "picked=Jazz": 1.0, "rank=Jazz": 0.5}
    assert shown == [{**both, "picks": 2.0, "picks~2": 1.0}, {"picks~0": 1.0}]
    assert known.tolist() == [True, False]


def test_memory_for_picks_does_not_grow_with_people_times_genres() -> None:
    genres = [f"genre {i}" for i in range(1_000)]
    picked = [Registration(genres=(genres[i % 1_000], genres[7 * i % 1_000], genres[i % 1_000])) for i in range(9_000)]
    rows = CodedRows(Encoder([Picks("genres", genres)]), coded(columns(picked)))
    [(_, picks)] = rows.answers()
    assert isinstance(picks, EncodedPicks)
    tracemalloc.start()
    cells = picks.cells(500, 9_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * 8 * MAX_CELLS < 8_500 * 1_000 * 8
    wanted = [tuple(dict.fromkeys(one.genres)) for one in picked[500:]]
    assert [genres[genre] for genre in cells.genres.tolist()] == [genre for of in wanted for genre in of]
    assert cells.numbers.tolist() == list(map(len, wanted))
    assert cells.people.tolist() == [i for i, of in enumerate(wanted) for _ in of]


def test_as_many_picks_as_there_may_be() -> None:
    genres = [f"genre {i}" for i in range(MAX_PICKS + 20)]
    encoder = Encoder([Picks("genres", genres)])
    registration = Registration(genres=tuple(reversed(genres[:MAX_PICKS])))
    encoded, _ = CodedRows(encoder, coded(columns([registration]))).matched(0, 1)
    assert encoded[0].tobytes() == encoder.encode(registration).tobytes()


@pytest.mark.parametrize("genres", [(), ("Rock",)])
def test_no_registrations_and_no_genres(genres: tuple[str, ...]) -> None:
    encoder = Encoder([Picks("genres", genres)])
    encoded, known = CodedRows(encoder, coded(columns([]))).matched(0, 0)
    assert encoded.shape == (0, len(encoder.columns))
    assert known.shape == (0,)
    some = made_people.examples(20).registrations
    assert np.array_equal(CodedRows(encoder, coded(columns(some))).matched(0, 20)[0], encoder.matrix(some))
