"""Deezer genre lists (GEMSEC): the genres that users in Croatia, Hungary and Romania like. One genre is held back."""

from __future__ import annotations

from typing import Final

from firstspin.data.importers.layouts import ArchiveLayout, GenreLists

MAX_PICKS: Final = 6

DEEZER: Final = ArchiveLayout(
    name="deezer",
    title="Deezer genre lists (GEMSEC): liked genres of 143,884 users in Croatia, Hungary and Romania",
    home="https://snap.stanford.edu/data/gemsec-Deezer.html",
    licence="no licence is stated with the data; ask the authors before commercial use",
    citation=(
        "B. Rozemberczki, R. Davies, R. Sarkar and C. Sutton. GEMSEC: Graph Embedding with Self Clustering. "
        "Proceedings of "
        "the 2019 IEEE/ACM International Conference on Advances in Social Networks Analysis and Mining (ASONAM 2019)"
    ),
    derived=(
        "listens: one of the user's liked genres, chosen by a hash, is held back and heard for one hour; users with "
        "one genre only are left out",
        f"genres (the picks): up to {MAX_PICKS} of the other liked genres, in the order of a hash",
        "registered_at and started_at are placeholders: users are spread evenly over the year 2017, and listen 59 days "
        "later. The lists have no times, so a split by date says nothing",
        "country: from the name of the file; user_id: country and number",
        "The label is never among the picks, so the business rule scores nothing: compare with overall popularity",
    ),
    files={"lists": GenreLists("_genres.json")},
    prepare=(
        "CREATE TABLE liked AS SELECT country || user_id AS user_id, country, genre, row_number() OVER (PARTITION BY "
        "country, user_id ORDER BY md5(country || user_id || ':' || genre)) AS nth FROM (SELECT country, user_id, "
        "unnest(list_distinct(genres)) AS genre FROM lists WHERE len(list_distinct(genres)) > 1)",
        "CREATE TABLE people AS SELECT user_id, country, TIMESTAMP '2017-01-01' + to_seconds(CAST(floor(31536000.0 * "
        "(row_number() OVER (ORDER BY md5(user_id)) - 1) / count(*) OVER ()) AS BIGINT)) AS registered_at FROM liked "
        "WHERE nth = 1",
        "CREATE TABLE genre_ids AS SELECT genre, (row_number() OVER (ORDER BY genre))::VARCHAR AS station_id FROM "
        "(SELECT DISTINCT genre FROM liked)",
    ),
    registrations=(
        f"SELECT user_id, registered_at, any_value(country) AS country, list(genre ORDER BY nth)[1:{MAX_PICKS}] AS "
        "genres FROM people JOIN (SELECT user_id, genre, nth FROM liked WHERE nth > 1) USING (user_id) GROUP BY "
        "user_id, registered_at ORDER BY registered_at, user_id"
    ),
    listens=(
        "SELECT user_id, registered_at + INTERVAL 59 DAY AS started_at, station_id, 3600 AS seconds FROM liked "
        "JOIN people USING (user_id) JOIN genre_ids USING (genre) WHERE nth = 1 ORDER BY started_at, user_id"
    ),
    stations="SELECT station_id, genre AS name, genre FROM genre_ids ORDER BY station_id::INTEGER",
)
