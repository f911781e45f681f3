"""Last.fm-1K (listening histories) and HetRec Last.fm-2K (play counts and tags). Artists are stations."""

from __future__ import annotations

from typing import Final

from firstspin.data.importers.layouts import SECONDS_OF_A_PLAY, ArchiveLayout, TextFile
from firstspin.data.sql import literal

TOP_ARTISTS: Final = 50
MAX_PICKS: Final = 3

_TAGS: Final = {
    **dict.fromkeys(("alternative", "alternative rock", "alternative metal"), "Alternative"),
    **dict.fromkeys(("ambient", "chillout", "chill", "downtempo", "trip-hop", "trip hop", "lounge"), "Ambient"),
    **dict.fromkeys(("blues", "blues rock"), "Blues"),
    **dict.fromkeys(("classic rock", "hard rock", "60s", "70s"), "Classic rock"),
    **dict.fromkeys(("classical", "opera", "contemporary classical"), "Classical"),
    **dict.fromkeys(("country", "alt-country", "americana"), "Country"),
    **dict.fromkeys(("dance", "house", "trance", "disco", "techno", "drum and bass", "dubstep"), "Dance"),
    **dict.fromkeys(("electronic", "electronica", "idm", "synthpop", "electro", "electropop"), "Electronic"),
    **dict.fromkeys(("experimental", "noise", "avant-garde", "post-rock", "krautrock"), "Experimental"),
    **dict.fromkeys(("folk", "singer-songwriter", "acoustic", "indie folk"), "Folk"),
    **dict.fromkeys(("hip-hop", "hip hop", "rap", "gangsta rap"), "Hip hop"),
    **dict.fromkeys(("indie", "indie rock", "indie pop"), "Indie"),
    **dict.fromkeys(("industrial", "ebm", "gothic", "gothic rock", "darkwave", "industrial metal"), "Industrial"),
    **dict.fromkeys(("j-pop", "j-rock", "jpop", "jrock", "k-pop", "kpop", "japanese", "visual kei"), "J-pop and K-pop"),
    **dict.fromkeys(("jazz", "smooth jazz", "acid jazz", "swing", "bossa nova"), "Jazz"),
    **dict.fromkeys(("latin", "salsa", "mpb", "brazilian", "reggaeton"), "Latin"),
    **dict.fromkeys(("metal", "heavy metal", "death metal", "black metal", "thrash metal", "metalcore"), "Metal"),
    **dict.fromkeys(("progressive metal", "power metal", "nu metal", "symphonic metal", "doom metal"), "Metal"),
    **dict.fromkeys(("new wave", "post-punk", "80s"), "New wave"),
    **dict.fromkeys(("pop", "pop rock", "britpop", "teen pop"), "Pop"),
    **dict.fromkeys(("punk", "punk rock", "pop punk", "hardcore", "emo", "ska", "screamo"), "Punk and emo"),
    **dict.fromkeys(("progressive rock", "psychedelic", "psychedelic rock", "art rock"), "Progressive rock"),
    **dict.fromkeys(("reggae", "dub", "dancehall"), "Reggae"),
    **dict.fromkeys(("rnb", "r&b", "soul", "funk", "neo-soul", "motown"), "R&B and soul"),
    **dict.fromkeys(("rock", "grunge"), "Rock"),
    **dict.fromkeys(("soundtrack", "instrumental", "film score"), "Soundtrack"),
}
"""Tags that name a genre, and the genre."""

LASTFM_1K: Final = ArchiveLayout(
    name="lastfm-1k",
    title="Last.fm-1K: 19,150,868 plays of 992 users, with gender, age, country and date of registration",
    home="http://ocelma.net/MusicRecommendationDataset/lastfm-1K.html",
    licence="distributed with permission of Last.fm for non-commercial use",
    citation=(
        "O. Celma. Music Recommendation and Discovery: The Long Tail, Long Fail, and Long Play in the Digital Music "
        "Space. Springer, 2010"
    ),
    derived=(
        "registered_at: the date of the profile, midnight UTC; where there is none, the day of the first play",
        f"genres (the picks): the {MAX_PICKS} most played genres of the user's first 30 days, which end before the "
        "label window; the archive has no picks",
        f"seconds: {SECONDS_OF_A_PLAY} a play; the archive has no lengths",
        "genre of an artist: from --genres FILE, a CSV or Parquet table with the columns name and genre, such as the "
        f"stations of lastfm-2k; without it, the {TOP_ARTISTS} artists with the most listeners are each a genre of "
        "their own, named after the artist. Plays of other artists are left out",
    ),
    files={
        "profiles": TextFile("userid-profile.tsv", ("user_id", "gender", "age", "country", "signup")),
        "plays": TextFile(
            "userid-timestamp-artid-artname-traid-traname.tsv",
            ("user_id", "moment", "artist_id", "artist", "track_id", "track"),
        ),
    },
    prepare=(
        "CREATE VIEW heard AS SELECT user_id, try_strptime(moment, '%Y-%m-%dT%H:%M:%SZ') AS moment, "
        "trim(artist) AS artist FROM plays",
        f"INSERT INTO artist_genres SELECT artist, artist FROM (SELECT artist, count(DISTINCT user_id) AS n FROM heard "
        f"WHERE artist <> '' AND NOT contains(artist, '|') AND NOT EXISTS (FROM artist_genres) GROUP BY artist "
        f"ORDER BY n DESC, artist LIMIT {TOP_ARTISTS})",
        "CREATE TABLE artists AS SELECT artist, genre FROM (SELECT DISTINCT artist FROM heard WHERE artist <> '') "
        "JOIN artist_genres ON lower(artist) = lower(trim(name)) "
        "QUALIFY row_number() OVER (PARTITION BY artist ORDER BY genre) = 1",
        "CREATE TABLE people AS SELECT user_id, gender, age, country, coalesce(try_strptime(signup, '%b %d, %Y'), "
        "date_trunc('day', first)) AS registered_at FROM profiles LEFT JOIN (SELECT user_id, min(moment) AS first "
        "FROM heard GROUP BY user_id) USING (user_id) WHERE NOT starts_with(user_id, '#')",
        f"CREATE TABLE picks AS SELECT user_id, list(genre ORDER BY n DESC, genre)[1:{MAX_PICKS}] AS genres FROM "
        "(SELECT user_id, genre, count(*) AS n FROM heard JOIN artists USING (artist) JOIN people USING (user_id) "
        "WHERE moment >= registered_at AND moment < registered_at + INTERVAL 30 DAY GROUP BY ALL) GROUP BY user_id",
    ),
    registrations=(
        "SELECT user_id, registered_at, CASE WHEN TRY_CAST(age AS INTEGER) BETWEEN 0 AND 120 THEN age::INTEGER END AS "
        "age, gender, country, coalesce(genres, []) AS genres FROM people LEFT JOIN picks USING (user_id) WHERE "
        "registered_at IS NOT NULL ORDER BY user_id"
    ),
    listens=(
        f"SELECT user_id, moment AS started_at, artist AS station_id, {SECONDS_OF_A_PLAY} AS seconds FROM heard "
        "SEMI JOIN artists USING (artist) WHERE moment IS NOT NULL ORDER BY user_id, moment, artist"
    ),
    stations="SELECT artist AS station_id, artist AS name, genre FROM artists ORDER BY artist",
    takes_genres=True,
)

_TAG_ROWS: Final = ", ".join(f"({literal(tag)}, {literal(genre)})" for tag, genre in _TAGS.items())

LASTFM_2K: Final = ArchiveLayout(
    name="lastfm-2k",
    title="HetRec 2011 Last.fm-2K: play counts of 17,632 artists and tags by 1,892 users",
    home="https://grouplens.org/datasets/hetrec-2011/",
    licence="non-commercial use; the terms of Last.fm apply",
    citation=(
        "I. Cantador, P. Brusilovsky and T. Kuflik. 2nd Workshop on Information Heterogeneity and Fusion in "
        "Recommender Systems (HetRec 2011). Proceedings of the 5th ACM Conference on Recommender Systems (RecSys 2011)"
    ),
    derived=(
        "registered_at: the time of the user's first tag; users without tags are left out",
        f"genres (the picks): the {MAX_PICKS} genres that the user's tags name most often, by a list of tags",
        f"listens: plays of artists that the user never tagged, so that no tag predicts itself; {SECONDS_OF_A_PLAY} "
        "seconds a play. started_at is a placeholder, registered_at + 59 days: the archive has play counts without "
        "times, so a split by date says nothing",
        "genre of an artist: the genre that most users' tags name; artists without one are left out",
    ),
    files={
        "artists": TextFile("artists.dat", ("artist_id", "name", "url", "picture"), header=True),
        "tags": TextFile("tags.dat", ("tag_id", "tag"), encoding="iso-8859-1", header=True),
        "plays": TextFile("user_artists.dat", ("user_id", "artist_id", "plays"), header=True),
        "tagged": TextFile(
            "user_taggedartists-timestamps.dat", ("user_id", "artist_id", "tag_id", "millisecond"), header=True
        ),
    },
    prepare=(
        f"CREATE TABLE named AS SELECT user_id, artist_id, genre FROM tagged JOIN tags USING (tag_id) JOIN (VALUES "
        f"{_TAG_ROWS}) AS of_tags(spelled, genre) ON lower(trim(tag)) = spelled",
        "CREATE TABLE genres AS SELECT artist_id, genre FROM (SELECT artist_id, genre, count(DISTINCT user_id) AS n "
        "FROM named GROUP BY ALL) QUALIFY row_number() OVER (PARTITION BY artist_id ORDER BY n DESC, genre) = 1",
        "CREATE TABLE people AS SELECT user_id, min(moment) AS registered_at FROM (SELECT user_id, "
        "make_timestamp(TRY_CAST(millisecond AS BIGINT) * 1000) AS moment FROM tagged) "
        "WHERE moment BETWEEN TIMESTAMP '2002-01-01' AND TIMESTAMP '2012-01-01' GROUP BY user_id",
        f"CREATE TABLE picks AS SELECT user_id, list(genre ORDER BY n DESC, genre)[1:{MAX_PICKS}] AS genres FROM "
        "(SELECT user_id, genre, count(*) AS n FROM named GROUP BY ALL) GROUP BY user_id",
    ),
    registrations=(
        "SELECT user_id, registered_at, coalesce(genres, []) AS genres FROM people LEFT JOIN picks USING (user_id) "
        "ORDER BY registered_at, user_id"
    ),
    listens=(
        "SELECT user_id, registered_at + INTERVAL 59 DAY AS started_at, artist_id AS station_id, TRY_CAST(plays AS "
        f"BIGINT) * {SECONDS_OF_A_PLAY} AS seconds FROM plays SEMI JOIN genres USING (artist_id) ANTI JOIN tagged "
        "USING (user_id, artist_id) JOIN people USING (user_id) WHERE TRY_CAST(plays AS BIGINT) > 0 ORDER BY user_id, "
        "artist_id"
    ),
    stations=(
        "SELECT artist_id AS station_id, name, genre FROM genres JOIN artists USING (artist_id) ORDER BY artist_id"
    ),
)
