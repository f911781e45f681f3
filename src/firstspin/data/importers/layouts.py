"""What an importer is made of: the files of an archive, the SQL that turns them into tables, and what is derived."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

SECONDS_OF_A_PLAY: Final = 210
"""Assumed length of a play, where an archive only counts plays."""


@dataclass(frozen=True, slots=True)
class TextFile:
    """A text file of an archive, without quotes unless `quoted`; the rows of its `columns` become a table of texts."""

    name: str
    columns: Sequence[str]
    delimiter: str = "\t"
    encoding: str = "utf-8"
    header: bool = False
    quoted: bool = False


@dataclass(frozen=True, slots=True)
class GenreLists:
    """JSON files, one a country, that map each user to a list of genres; the columns are country, user_id and genres.

    The country is the part of the file's name before `suffix`.
    """

    suffix: str


@dataclass(frozen=True, slots=True)
class ArchiveLayout:
    """An archive of a known layout.

    `files` become tables of these names. `prepare` (SQL statements) and the three queries are run over them. `derived`
    says what of the result the archive does not contain. `takes_genres`: a table `artist_genres` (name, genre) is made
    of the option --genres.
    """

    name: str
    title: str
    home: str
    licence: str
    citation: str
    derived: Sequence[str]
    files: dict[str, TextFile | GenreLists]
    prepare: Sequence[str]
    registrations: str
    listens: str
    stations: str
    takes_genres: bool = False
