"""Names of tables and columns, each defined once."""

from __future__ import annotations

from typing import Final, Literal

REGISTRATIONS: Final = "registrations"
LISTENS: Final = "listens"
STATIONS: Final = "stations"

USER_ID: Final = "user_id"
REGISTERED_AT: Final = "registered_at"
AGE: Final = "age"
GENDER: Final = "gender"
COUNTRY: Final = "country"
GENRES: Final = "genres"
STARTED_AT: Final = "started_at"
STATION_ID: Final = "station_id"
SECONDS: Final = "seconds"
NAME: Final = "name"
GENRE: Final = "genre"
TOP_GENRE: Final = "top_genre"
PLAYED: Final = "played"
PROBABILITIES: Final = "probabilities"
SOURCE: Final = "source"
MARKET: Final = "market"
COLOUR: Final = "colour"
AVAILABLE: Final = "available"
POPULARITY: Final = "popularity"

INSTANCES: Final = "instances"
"""Not a column: the list of registrations in a request."""

ROW: Final = "row of the file"
"""The position in the file, from 0. Internal columns have a space in their name, which further columns can't have."""

PICK_SEPARATOR: Final = "|"
SKIPPED: Final = "skipped"

TileOrder = Literal["popularity", "listening"]
"""The order of a genre's stations: by popularity, or by expected listening (`station_rates`)."""

NUMBER: Final = "number"
TEXT: Final = "text"
"""The kinds of further columns."""

OPTIONAL: Final = (AGE, GENDER, COUNTRY, NAME)
"""Columns that the tables may lack: every user then has no answer, and a station's name is its id."""

REGISTRATION_COLUMNS: Final = (USER_ID, REGISTERED_AT, AGE, GENDER, COUNTRY, GENRES)
LISTEN_COLUMNS: Final = (USER_ID, STARTED_AT, STATION_ID, SECONDS)
STATION_COLUMNS: Final = (STATION_ID, NAME, GENRE)
COLUMNS: Final = {
    REGISTRATIONS: REGISTRATION_COLUMNS,
    LISTENS: LISTEN_COLUMNS,
    STATIONS: STATION_COLUMNS,
}
