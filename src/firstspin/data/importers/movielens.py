"""MovieLens 100K, 1M and 25M: ratings of films. Films are stations; the ratings after the first ten are listens."""

from __future__ import annotations

from typing import Final

from firstspin.data.importers.layouts import ArchiveLayout, TextFile
from firstspin.data.sql import literal

FIRST_RATINGS: Final = 10
LIKED: Final = 4
MAX_PICKS: Final = 5
SECONDS_OF_A_FILM: Final = 5400

_LICENCE: Final = (
    "GroupLens: research use; no redistribution and no commercial use without permission; the archive's README has the "
    "terms"
)
_CITATION: Final = (
    "F. M. Harper and J. A. Konstan. The MovieLens Datasets: History and Context. ACM Transactions on Interactive "
    "Intelligent Systems 5(4), 2015, article 19. https://doi.org/10.1145/2827872"
)
_DERIVED: Final = (
    "registered_at: the time of the user's first rating",
    f"genres (the picks): the genres of the films rated {LIKED} or more among the first {FIRST_RATINGS} ratings (the "
    f"first half of fewer than {2 * FIRST_RATINGS}), most frequent first, at most {MAX_PICKS}",
    f"listens: the later ratings of {LIKED} or more, {SECONDS_OF_A_FILM} seconds each. started_at is the time of the "
    "rating plus 30 days: most users rate in one session, which so falls into the default label window. The label is "
    "the same as with the real times and --gap-days 0",
    "genre of a film: of its genres, the one that the fewest films have; films without a genre are left out",
)
_GENRES: Final = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
"""The genres of MovieLens 100K, in the order of its columns."""

_OCCUPATIONS: Final = (
    *("other", "academic/educator", "artist", "clerical/admin", "college/grad student", "customer service"),
    *("doctor/health care", "executive/managerial", "farmer", "homemaker", "K-12 student", "lawyer", "programmer"),
    *("retired", "sales/marketing", "scientist", "self-employed", "technician/engineer", "tradesman/craftsman"),
    *("unemployed", "writer"),
)
"""The occupations of MovieLens 1M, by code."""

_PREPARE: Final = (
    "CREATE TABLE genre_sizes AS SELECT genre, count(*) AS films FROM (SELECT unnest(genres) AS genre FROM items) "
    "GROUP BY genre",
    "CREATE TABLE films AS SELECT item_id, title, genre FROM (SELECT item_id, title, unnest(genres) AS genre FROM "
    "items) JOIN genre_sizes USING (genre) QUALIFY row_number() OVER (PARTITION BY item_id ORDER BY films, genre) = 1",
    f"CREATE TABLE rated AS SELECT user_id, item_id, rating::DOUBLE >= {LIKED} AS liked, moment, row_number() OVER "
    f"(PARTITION BY user_id ORDER BY moment, item_id) AS nth, nth <= least({FIRST_RATINGS}, count(*) OVER (PARTITION "
    "BY user_id) // 2) AS is_first FROM (SELECT *, make_timestamp(TRY_CAST(second AS BIGINT) * 1000000) AS moment "
    "FROM ratings) SEMI JOIN films USING (item_id) WHERE moment IS NOT NULL AND TRY_CAST(rating AS DOUBLE) IS NOT NULL",
    "CREATE TABLE picks AS SELECT user_id, list(genre ORDER BY n DESC, genre)"
    f"[1:{MAX_PICKS}] AS genres FROM (SELECT user_id, genre, count(*) AS n FROM rated JOIN films USING (item_id) "
    "WHERE liked AND is_first GROUP BY ALL) GROUP BY user_id",
)
_REGISTERED: Final = "SELECT user_id, min(moment) AS registered_at FROM rated GROUP BY user_id"
_LISTENS: Final = (
    f"SELECT user_id, moment + INTERVAL 30 DAY AS started_at, item_id AS station_id, {SECONDS_OF_A_FILM} AS seconds "
    "FROM rated WHERE liked AND NOT is_first ORDER BY user_id, nth"
)
_STATIONS: Final = "SELECT item_id AS station_id, title AS name, genre FROM films ORDER BY item_id"


def _registrations(answers: str) -> str:
    joined = f"({_REGISTERED}) LEFT JOIN users USING (user_id)" if answers else f"({_REGISTERED})"
    columns = f"user_id, registered_at, {answers}" if answers else "user_id, registered_at"
    return (
        f"SELECT {columns}, coalesce(genres, []) AS genres FROM {joined} LEFT JOIN picks USING (user_id) "
        "ORDER BY registered_at, user_id"
    )


def _named(names: tuple[str, ...]) -> str:
    """SQL: the name of the number in the column `occupation`."""
    listed = ", ".join(map(literal, names))
    return f"([{listed}])[TRY_CAST(occupation AS INTEGER) + 1]"


_FLAGS: Final = ", ".join(
    f"CASE WHEN genre_{at} = '1' THEN {literal(name)} END" for at, name in enumerate(_GENRES) if at
)

ML_100K: Final = ArchiveLayout(
    name="movielens-100k",
    title="MovieLens 100K: 100,000 ratings by 943 users, with age, gender and occupation",
    home="https://grouplens.org/datasets/movielens/100k/",
    licence=_LICENCE,
    citation=_CITATION,
    derived=_DERIVED,
    files={
        "ratings": TextFile("u.data", ("user_id", "item_id", "rating", "second")),
        "films_read": TextFile(
            "u.item",
            ("item_id", "title", "released", "on_video", "url", *(f"genre_{at}" for at in range(len(_GENRES)))),
            "|",
            "iso-8859-1",
        ),
        "users": TextFile("u.user", ("user_id", "age", "gender", "occupation", "zip"), "|"),
    },
    prepare=(
        f"CREATE VIEW items AS SELECT item_id, title, list_filter([{_FLAGS}], lambda name: name IS NOT NULL) AS genres "
        "FROM films_read",
        *_PREPARE,
    ),
    registrations=_registrations("TRY_CAST(age AS INTEGER) AS age, gender, occupation"),
    listens=_LISTENS,
    stations=_STATIONS,
)

ML_1M: Final = ArchiveLayout(
    name="movielens-1m",
    title="MovieLens 1M: 1,000,209 ratings by 6,040 users, with age group, gender and occupation",
    home="https://grouplens.org/datasets/movielens/1m/",
    licence=_LICENCE,
    citation=_CITATION,
    derived=(*_DERIVED, "age: the lower bound of the age group, and empty for the group under 18"),
    files={
        "ratings": TextFile("ratings.dat", ("user_id", "item_id", "rating", "second"), "::"),
        "films_read": TextFile("movies.dat", ("item_id", "title", "genres"), "::", "iso-8859-1"),
        "users": TextFile("users.dat", ("user_id", "gender", "age", "occupation", "zip"), "::"),
    },
    prepare=(
        "CREATE VIEW items AS SELECT item_id, title, string_split(genres, '|') AS genres FROM films_read",
        *_PREPARE,
    ),
    registrations=_registrations(
        f"nullif(TRY_CAST(age AS INTEGER), 1) AS age, gender, {_named(_OCCUPATIONS)} AS occupation"
    ),
    listens=_LISTENS,
    stations=_STATIONS,
)

ML_25M: Final = ArchiveLayout(
    name="movielens-25m",
    title="MovieLens 25M: 25,000,095 ratings by 162,541 users; also the layout of 20M, 32M and latest",
    home="https://grouplens.org/datasets/movielens/25m/",
    licence=_LICENCE,
    citation=_CITATION,
    derived=_DERIVED,
    files={
        "ratings": TextFile("ratings.csv", ("user_id", "item_id", "rating", "second"), ",", header=True),
        "films_read": TextFile("movies.csv", ("item_id", "title", "genres"), ",", header=True, quoted=True),
    },
    prepare=(
        "CREATE VIEW items AS SELECT item_id, title, list_filter(string_split(genres, '|'), "
        "lambda name: name <> '(no genres listed)') AS genres FROM films_read",
        *_PREPARE,
    ),
    registrations=_registrations(""),
    listens=_LISTENS,
    stations=_STATIONS,
)
