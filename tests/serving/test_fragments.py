"""Prepared JSON: the same bytes as encoding the filled answer, whatever the catalogue."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstspin.records import Ranking, Station
from firstspin.serving.fragments import CatalogueFragments, is_regular
from firstspin.serving.stations import TILES, Catalogue, fill, first_stations

GENRES = ("Jazz", "Rock", 'P"op', "Fölk", "Soul", "Talk", "Latin")


def ranking(genres: tuple[str, ...]) -> Ranking:
    return Ranking(genres, tuple(round(1 / (i + 2), 6) for i in range(len(genres))), "model")


def expected(genres: tuple[str, ...], picks: set[str], catalogue: Catalogue) -> bytes:
    answer = msgspec.to_builtins(fill(ranking(genres), picks, catalogue, "m"))
    content = {name: answer[name] for name in ("stations", "message", "carousels") if name in answer}
    return b"".join(b"," + msgspec.json.encode({name: value})[1:-1] for name, value in content.items())


@given(
    listed=st.dictionaries(
        st.integers(0, 200).map(str),
        st.tuples(st.sampled_from((*GENRES, "Polka")), st.integers(0, 5).map(float)),
        max_size=90,
    ),
    genres=st.permutations(GENRES).flatmap(lambda all_: st.integers(0, len(all_)).map(lambda n: tuple(all_[:n]))),
    picks=st.sets(st.sampled_from((*GENRES, "")), max_size=3),
)
def test_content_is_the_filled_answer_to_the_last_byte(
    listed: dict[str, tuple[str, float]], genres: tuple[str, ...], picks: set[str]
) -> None:
    stations = [(Station(name, f'{name} "é"', genre), popular) for name, (genre, popular) in listed.items()]
    catalogue = Catalogue.of(stations)
    fragments = CatalogueFragments(catalogue)
    assert fragments.content(genres, picks) == expected(genres, picks, catalogue)
    shown = first_stations(genres[:5], catalogue)
    assert fragments.station_ids(genres) == [station.station_id for station in shown]


def test_a_genre_with_few_stations_is_filled_up_from_popular_stations_that_are_shown_nowhere_else() -> None:
    rock = [(Station(f"r{i}", f"R{i}", "Rock"), 10.0 - i) for i in range(TILES + 2)]
    catalogue = Catalogue.of([*rock, (Station("j", "J", "Jazz"), 0.5)])
    content = msgspec.json.decode(b"{" + CatalogueFragments(catalogue).content(("Jazz", "Rock"), {"Rock"})[1:] + b"}")
    assert [(row["title"], " ".join(row["station_ids"])) for row in content["carousels"]] == [
        ("Jazz, and more", "j r8 r9"),
        ("Because you picked Rock", "r0 r1 r2 r3 r4 r5 r6 r7"),
    ]


A, B = Station("a", "A", "Rock"), Station("b", "B", "Jazz")


@pytest.mark.parametrize(
    ("by_genre", "popular"),
    [
        ({"Rock": (A,), "Jazz": (A,)}, (A,)),  # under another genre than its own
        ({"Rock": (A, A)}, (A,)),
        ({"Rock": (A,)}, (A, A)),
        ({"Rock": (A,)}, (A, B)),  # a genre without a list
        ({"Rock": (A,), "Jazz": (B,)}, (A, Station("b", "another B", "Jazz"))),
        ({"Rock": (A,)}, (Station("c", "C", "Rock"), A)),  # the most popular of all is not that of its genre
        ({"Rock": (A,)}, ()),
    ],
)
def test_a_catalogue_that_is_not_as_we_make_them_is_seen(
    by_genre: dict[str, tuple[Station, ...]], popular: tuple[Station, ...]
) -> None:
    assert is_regular(Catalogue.of([(A, 2.0), (B, 1.0)]))
    assert not is_regular(Catalogue(by_genre, popular))
