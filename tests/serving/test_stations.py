"""From a ranking to real content: by popularity, market and availability, full, and never twice the same."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstspin.records import Ranking, Recommendation, Station
from firstspin.serving.stations import AND_MORE, CAROUSELS, SHOWN_STATIONS, TILES, Catalogue, StationList, fill

GENRES = ("Jazz", "Rock", "Pop", "Folk", "Soul", "Talk", "Latin")


def ranking(*genres: str) -> Ranking:
    return Ranking(genres, tuple(round(1 / (i + 2), 6) for i in range(len(genres))), "model")


def station(name: str, genre: str) -> Station:
    return Station(name, name.title(), genre)


def catalogue(listed: Mapping[str, tuple[str, float]], **markets: tuple[str, ...]) -> Catalogue:
    """Stations by id, each with its genre and popularity."""
    return Catalogue.of([(station(name, genre), popular) for name, (genre, popular) in listed.items()], markets)


def tiles(answer: Recommendation) -> dict[str, str]:
    return {carousel.title: " ".join(carousel.station_ids) for carousel in answer.carousels}


SMALL = {"a": ("Jazz", 5.0), "b": ("Rock", 9.0), "c": ("Jazz", 7.0), "d": ("Rock", 9.0), "e": ("Polka", 1.0)}


def test_the_most_popular_of_the_first_genre_is_the_message_and_ties_go_by_id() -> None:
    answer = fill(ranking("Rock", "Jazz"), {"Jazz"}, catalogue(SMALL), "m")
    assert [s.station_id for s in answer.stations] == ["b", "c", "d", "a", "e"]
    assert answer.message
    assert (answer.message.station_id, answer.message.title) == ("b", "Start with B")
    assert answer.message.reason == "Rock is popular with people like you"
    assert tiles(answer) == {"Rock": "b d", "Because you picked Jazz": "c a", "Polka": "e"}


def test_a_genre_without_a_station_gives_way_to_the_next() -> None:
    answer = fill(ranking("Opera", "Jazz", "Rock"), (), catalogue(SMALL), "m")
    assert [genre.genre for genre in answer.genres] == ["Opera", "Jazz", "Rock"]
    assert answer.message
    assert answer.message.reason == "Jazz is popular with newcomers"
    assert list(tiles(answer)) == ["Jazz", "Rock", "Polka"]


def test_a_carousel_that_is_not_full_takes_the_most_popular_that_stand_nowhere_else() -> None:
    many = {f"r{i}": ("Rock", 10.0 - i) for i in range(10)} | {"j": ("Jazz", 0.5), "k": ("Talk", 20.0)}
    answer = fill(ranking("Jazz", "Rock"), (), catalogue(many), "m")
    assert tiles(answer) == {"Jazz, and more": "j r8 r9", "Rock": "r0 r1 r2 r3 r4 r5 r6 r7", "Talk": "k"}


def test_a_carousel_with_stations_of_other_genres_says_so_in_its_title() -> None:
    one_each = catalogue({genre.lower(): (genre, 9.0 - place) for place, genre in enumerate(GENRES)})
    assert tiles(fill(ranking("Rock", "Folk"), {"Rock"}, one_each, "m")) == {
        "Because you picked Rock, and more": "rock talk latin",  # all that no carousel has
        "Folk": "folk",
        "Jazz": "jazz",
        "Pop": "pop",
        "Soul": "soul",
    }


def test_newcomers_see_the_stations_of_their_market_and_those_for_everyone() -> None:
    found = catalogue(SMALL, a=("SE", "no"), b=("DE",), d=())
    for country, expected in (
        ("se", "d c a e"),
        (" NO ", "d c a e"),
        ("DE", "b d c e"),
        ("XX", "d c e"),
        (None, "d c e"),
    ):
        answer = fill(ranking("Rock", "Jazz"), (), found.of_country(country), "m")
        assert " ".join(sorted(" ".join(tiles(answer).values()))) == " ".join(sorted(expected)), country
    assert fill(ranking("Rock"), (), found.of_country("DE"), "m").stations[0].station_id == "b"


def test_where_every_station_names_a_market_whoever_comes_from_nowhere_sees_all() -> None:
    found = catalogue(SMALL, **dict.fromkeys(SMALL, ("SE",)))
    assert len(fill(ranking("Rock"), (), found, "m").stations) == 5
    assert found.of_country("SE").popular == found.popular


def test_an_empty_catalogue_is_an_answer_without_stations() -> None:
    answer = fill(ranking("Rock"), (), Catalogue.of([]), "m")
    assert (answer.stations, answer.message, answer.carousels) == ((), None, ())


def test_a_catalogue_is_the_same_when_it_was_written_down() -> None:
    found = catalogue(SMALL, a=("SE",))
    assert msgspec.json.decode(msgspec.json.encode(found), type=Catalogue) == found
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"by_genre":{"Jazz":[]},"popular":[]}', type=Catalogue)


LISTED = st.dictionaries(
    st.integers(0, 200).map(str),
    st.tuples(st.sampled_from((*GENRES, "Polka")), st.integers(0, 5).map(float)),
    max_size=90,
)


@given(
    listed=LISTED,
    markets=st.dictionaries(st.integers(0, 200).map(str), st.sets(st.sampled_from(["SE", "DE", "us"]), max_size=2)),
    ranked=st.permutations(GENRES).flatmap(lambda genres: st.integers(1, len(genres)).map(lambda n: genres[:n])),
    picks=st.sets(st.sampled_from(GENRES), max_size=3),
    country=st.sampled_from([None, "se", "DE", "US", "XX"]),
)
def test_whatever_the_catalogue_the_answer_is_full_and_nothing_stands_twice(
    listed: dict[str, tuple[str, float]],
    markets: dict[str, set[str]],
    ranked: list[str],
    picks: set[str],
    country: str | None,
) -> None:
    found = Catalogue.of([(station(name, genre), popular) for name, (genre, popular) in listed.items()], markets)
    answer = fill(ranking(*ranked), picks, found.of_country(country), "m")
    everywhere = {name for name in listed if not markets.get(name)}
    named = {market.casefold() for name in listed for market in markets.get(name, ())}
    of_market = {name for name in listed if country and country.casefold() in map(str.casefold, markets.get(name, ()))}
    may_see = everywhere | of_market if country and country.casefold() in named else everywhere or set(listed)
    shown = [name for carousel in answer.carousels for name in carousel.station_ids]
    assert len(shown) == len(set(shown)) == min(len(may_see), len(answer.carousels) * TILES)
    assert set(shown) <= may_see
    assert len(answer.carousels) == min(CAROUSELS, len({listed[name][0] for name in may_see}))
    assert all(carousel.station_ids for carousel in answer.carousels)
    for one in answer.carousels:
        alone = {listed[name][0] for name in one.station_ids} == {one.genre}
        assert one.title.removeprefix("Because you picked ") == one.genre + ("" if alone else AND_MORE)
    assert len(answer.stations) == min(SHOWN_STATIONS, len(may_see)) == len(set(answer.stations))
    assert (answer.message is not None) == bool(may_see)
    assert answer == fill(ranking(*ranked), picks, found.of_country(country), "m")


def test_the_list_of_stations_has_each_once_with_its_colour_and_its_countries() -> None:
    listed = {"a": ("Jazz", 9.0), "b": ("Jazz", 8.0), "c": ("Rock", 7.0)}
    stations = [(station(name, genre), popular) for name, (genre, popular) in listed.items()]
    packed = Catalogue.of(stations, {"b": ("US", "se")}, {"a": "#0b7a75", "gone": "#ffffff"})
    of = {one.station_id: (one.colour, one.market) for one in StationList.of("m", packed).stations}
    assert of == {"a": ("#0b7a75", ()), "b": (None, ("US", "se")), "c": (None, ())}
    encoded = msgspec.json.encode(packed)
    assert msgspec.json.decode(encoded, type=Catalogue) == packed
    assert b"details" not in msgspec.json.encode(Catalogue.of(stations))
