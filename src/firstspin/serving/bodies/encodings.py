"""The encodings of request and response bodies: JSON, JSON Lines and CSV, and the headers that choose one."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

from firstspin.data.formats.csv_cells import csv_line
from firstspin.data.schema import PICK_SEPARATOR
from firstspin.records import SHOWN_GENRES, Ranking
from firstspin.serving.refusal import Refusal

MAX_HEADER: Final = 1_000
"""Characters of a Content-Type or Accept header that are read."""


class Encoding(StrEnum):
    """The encoding of a body; a response has that of its request."""

    json = "application/json"
    lines = "application/jsonlines"
    csv = "text/csv"


SPELLINGS: Final = {
    "application/json": Encoding.json,
    "application/jsonlines": Encoding.lines,
    "application/x-ndjson": Encoding.lines,
    "text/csv": Encoding.csv,
}

ONCE: Final = frozenset(
    {
        "authorization",
        "content-encoding",
        "content-type",
        "expect",
        "host",
        "origin",
        "sec-fetch-site",
        "x-api-key",
        "x-firstspin-user",
    }
)
"""Headers that must not be repeated: a proxy in front may have read the other value."""


def encoding_of(content_type: str) -> Encoding:
    """The encoding of a Content-Type; JSON where it is empty. Raises Refusal (415) where it is unsupported."""
    media, _, parameters = content_type[:MAX_HEADER].partition(";")
    encoding = SPELLINGS.get(media.strip().lower() or "application/json")
    if encoding is None:
        raise Refusal(415, "unsupported_content_type", f"send one of {', '.join(SPELLINGS)}")
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().lower().partition("=")
        if name == "charset" and value.strip('"') not in ("utf-8", "utf8", "us-ascii"):
            raise Refusal(415, "unsupported_charset", "send UTF-8")
    return encoding


def refuse_twice(name: str) -> None:
    """Raises Refusal (400) where a repeated header (name in lower case) must not be repeated.

    The caller joins the values of Accept, which is a list; of any other header the last counts.
    """
    if name in ONCE:
        raise Refusal(400, "malformed_request", f"there are two headers {name}")


def check_accept(accept: str, encoding: Encoding) -> None:
    """Raises Refusal (406) where an Accept header does not accept the encoding of the request."""
    welcome = {name for name, kind in SPELLINGS.items() if kind is encoding}
    welcome |= {"*/*", encoding.partition("/")[0] + "/*"}
    for part in accept[:MAX_HEADER].lower().split(","):
        media, *parameters = (word.strip() for word in part.split(";"))
        refused = any(re.fullmatch(r"q=0(\.0*)?", parameter.replace(" ", "")) for parameter in parameters)
        if media in welcome and not refused:
            return
    raise Refusal(406, "not_acceptable", f"this request is answered in {encoding}, the encoding it was sent in")


def around(encoding: Encoding) -> tuple[bytes, bytes, bytes]:
    """The bytes before, between and after several answers."""
    return (b'{"predictions":[', b",", b"]}") if encoding is Encoding.json else (b"", b"\n", b"\n")


def csv_row(ranking: Ranking) -> bytes:
    """The first genres of a ranking and their probabilities as a CSV row of `firstspin score`, without line end."""
    genres = PICK_SEPARATOR.join(ranking.genres[:SHOWN_GENRES])
    return csv_line([genres, PICK_SEPARATOR.join(map(repr, ranking.probabilities[:SHOWN_GENRES]))]).encode()
