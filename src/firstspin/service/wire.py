"""Bodies <-> records: JSON, JSON Lines and CSV, the same rules at every door (HTTP, Lambda).

Reading is strict: a field nobody knows, the text "30" for an age, true or 30.5 are refused, not guessed at. How values
are spelled is one rule for all encodings and for tables (`parsing`, `records.Registration`). The rules where bodies
could be read in two ways: of a key given twice the last counts; a genre picked twice counts once; empty lines are
skipped; null and an empty CSV cell are an answer not given. No error repeats anything that was sent.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Annotated, Final

import msgspec

from firstspin import parsing
from firstspin.csv_cells import csv_line
from firstspin.further_fields import with_further_fields
from firstspin.records import MAX_TEXT, SHOWN_GENRES, Ranking, Registration
from firstspin.tables import (
    AGE,
    COUNTRY,
    GENDER,
    GENRES,
    INSTANCES,
    NUMBER,
    PICK_SEPARATOR,
    REGISTERED_AT,
    REGISTRATION_COLUMNS,
    USER_ID,
)

LARGEST_BODY: Final = 6_291_456  # bytes; what SageMaker lets through
MOST_INSTANCES: Final = 10_000

Body = bytes | bytearray

UserId = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT)]

_PLACE: Final = re.compile(r" - at `\$((?:\.[a-z_]+|\[[0-9]+\])+)`$")


class Encoding(StrEnum):
    """How a body is written down. The answer is written as the question was."""

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
"""Headers that decide something and hold one value: given twice, whoever stands in front may have read the other."""


class Refusal(Exception):
    """A request that gets no answer: an HTTP status, a code that programs may rely on, and a sentence for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status, self.code, self.message = status, code, message

    def body(self) -> bytes:
        """As it goes over the wire."""
        return msgspec.json.encode({"error": {"code": self.code, "message": self.message}})


@dataclass(frozen=True, slots=True)
class Asked:
    """What a body asks: about whom, in order, and whether it was one object rather than a list."""

    registrations: Sequence[Registration]
    encoding: Encoding
    alone: bool = False


# ------------------------------------------------------------------------------------------------------------- headers


def encoding_of(content_type: str) -> Encoding:
    """The encoding that a Content-Type names; JSON where there is none. Refusal 415 for any other."""
    media, _, parameters = content_type.partition(";")
    found = SPELLINGS.get(media.strip().lower() or "application/json")
    if found is None:
        raise Refusal(415, "unsupported_content_type", f"send one of {', '.join(SPELLINGS)}")
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().lower().partition("=")
        if name == "charset" and value.strip('"') not in ("utf-8", "utf8", "us-ascii"):
            raise Refusal(415, "unsupported_charset", "send UTF-8")
    return found


def refuse_twice(name: str) -> None:
    """Refusal 400 for a header (its name in lower case) that decides something and is given a second time.

    Accept is a list, whose parts the caller joins; of any other header the last counts.
    """
    if name in ONCE:
        raise Refusal(400, "malformed_request", f"there are two headers {name}")


def check_accept(accept: str, encoding: Encoding) -> None:
    """Refusal 406 unless an Accept header takes an answer in the encoding of the request."""
    welcome = {name for name, kind in SPELLINGS.items() if kind is encoding}
    welcome |= {"*/*", encoding.partition("/")[0] + "/*"}
    for part in accept.lower().split(","):
        media, *parameters = (word.strip() for word in part.split(";"))
        refused = any(re.fullmatch(r"q=0(\.0*)?", parameter.replace(" ", "")) for parameter in parameters)
        if media in welcome and not refused:
            return
    raise Refusal(406, "not_acceptable", f"this request is answered in {encoding}, the encoding it was sent in")


# ------------------------------------------------------------------------------------------------------------- reading


class Reader:
    """Reads bodies for a service that asks the `extra` fields too; each is "number" or "text", as training saw it.

    With `of_users` every registration must carry a `user_id`; it is then an attribute of what `read` gives. A body may
    ask about `most` newcomers; None leaves that to its length.
    """

    def __init__(
        self, extra: Mapping[str, str] | None = None, *, of_users: bool = False, most: int | None = MOST_INSTANCES
    ) -> None:
        self.extra = extra = dict(extra or {})
        self.most = most
        asked = with_further_fields(tuple(extra), extra)
        self._one = _with(asked, USER_ID, UserId) if of_users else asked
        self._of_users = of_users
        alone = _with(asked, USER_ID, UserId | msgspec.UnsetType, msgspec.UNSET) if of_users else asked
        body = _with(alone, INSTANCES, tuple[self._one, ...] | msgspec.UnsetType, msgspec.UNSET)  # type: ignore[name-defined]
        self._decode_body = msgspec.json.Decoder(body).decode
        self._decode_one = msgspec.json.Decoder(self._one).decode
        self._nothing = body()
        self._names = ((USER_ID,) if of_users else ()) + (AGE, GENDER, COUNTRY, GENRES, *extra)
        self._table = (*REGISTRATION_COLUMNS, *extra)
        known = (*self._table, *self._names)
        self._spelled = {name.lower(): name for name in known} | {name: name for name in known}
        numbers = {name: parsing.number for name, kind in extra.items() if kind == NUMBER}
        self._parsers: dict[str, Callable[[str], object]] = {AGE: parsing.age, GENRES: parsing.picks, **numbers}

    def read(self, body: Body, encoding: Encoding) -> Asked:
        """Everyone a body asks about. Refusal 400 for what can't be read, 422 for what can but isn't a registration."""
        if encoding is Encoding.json:
            return self._from_json(body)
        rows = self._from_lines(body) if encoding is Encoding.lines else self._from_csv(body)
        found = list(islice(rows, None if self.most is None else self.most + 1))
        self._check_number(found)
        if not found:
            raise Refusal(400, "empty", "the body holds no registration")
        return Asked(found, encoding)

    def _from_json(self, body: Body) -> Asked:
        asked = _decoded(self._decode_body, body)
        several: Sequence[Registration] | msgspec.UnsetType = getattr(asked, INSTANCES)
        if several is msgspec.UNSET:
            if self._of_users and getattr(asked, USER_ID) is msgspec.UNSET:
                raise Refusal(422, "invalid", f"Object missing required field `{USER_ID}`")
            return Asked((asked,), Encoding.json, alone=True)
        if msgspec.structs.replace(asked, **{INSTANCES: msgspec.UNSET}) != self._nothing:
            raise Refusal(422, "invalid", f"fields beside `{INSTANCES}`: give one registration or a list, not both")
        self._check_number(several)
        return Asked(several, Encoding.json)

    def _from_lines(self, body: Body) -> Iterator[Registration]:
        for number, line in enumerate(bytes(body).split(b"\n"), 1):
            if line.strip():
                yield _decoded(self._decode_one, line, f"line {number}: ")

    def _from_csv(self, body: Body) -> Iterator[Registration]:
        try:
            text = body.decode("utf-8-sig")  # spreadsheets put a byte order mark in front
        except UnicodeDecodeError:
            raise Refusal(400, "malformed", "the body is not UTF-8") from None
        names: Sequence[str] = ()
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        for number, row in enumerate(_lines(rows), 1):
            if not row or (len(row) == 1 != len(names) and not row[0].strip()):
                continue
            if not names and (names := self._header(row)):
                continue
            names = names or self._columns(row)
            yield self._from_row(names, row, f"line {number}: ")

    def _header(self, row: Sequence[str]) -> list[str]:
        """The names of a header: only names that are known here, or others beside all that are asked for."""
        names = [self._spelled.get(cell.strip(), self._spelled.get(cell.strip().lower(), "")) for cell in row]
        known = [name for name in names if name]
        complete = len(known) == len(names) or set(known).issuperset(self._names)
        return names if complete and len(set(known)) == len(known) else []

    def _columns(self, row: Sequence[str]) -> Sequence[str]:
        """The names of the cells where no header names them: those asked for, or those of the table of registrations.

        Batch transform splits a table into parts of which only the first has the header.
        """
        of_table = len(row) == len(self._table) and _is_moment(row[self._table.index(REGISTERED_AT)])
        return self._table if of_table else self._names

    def _from_row(self, names: Sequence[str], row: Sequence[str], where: str) -> Registration:
        if len(row) != len(names):
            columns = ",".join(self._names)
            raise Refusal(
                422, "invalid", f"{where}{len(row)} cells instead of {len(names)}; a header may name {columns}"
            )
        told: dict[str, object] = {}
        for name, cell in zip(names, row, strict=True):
            if name in self._names and cell.strip():
                told[name] = self._value(name, cell, where)
        try:
            return msgspec.convert(told, self._one)
        except msgspec.ValidationError as problem:
            raise Refusal(422, "invalid", where + _said(problem)) from None

    def _check_number(self, found: Sequence[Registration]) -> None:
        if self.most is not None and len(found) > self.most:
            raise Refusal(413, "too_many_instances", f"ask about at most {self.most} newcomers at once")

    def _value(self, name: str, cell: str, where: str) -> object:
        try:
            return self._parsers.get(name, str.strip)(cell)
        except parsing.Misspelt as problem:
            raise Refusal(422, "invalid", f"{where}{name} {problem}") from None


def _is_moment(cell: str) -> bool:
    try:
        return bool(parsing.moment(cell))
    except parsing.Misspelt:
        return False


def _with(
    asked: type[Registration], name: str, kind: object, default: object = msgspec.NODEFAULT
) -> type[Registration]:
    return msgspec.defstruct(  # type: ignore[return-value]
        asked.__name__, [(name, kind, default)], bases=(asked,), frozen=True, kw_only=True, forbid_unknown_fields=True
    )


def _decoded(decode: Callable[[Body], Registration], body: Body, where: str = "") -> Registration:
    try:
        return decode(body)
    except msgspec.ValidationError as problem:
        if str(problem).startswith("Expected `object`") and " at " not in str(problem):
            raise Refusal(400, "not_an_object", f"{where}a registration is a JSON object") from None
        raise Refusal(422, "invalid", where + _said(problem)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refusal(400, "malformed", f"{where}the body is not JSON") from None


def _said(problem: msgspec.ValidationError) -> str:
    """What msgspec found wrong, only where its words are types, limits and places, never what was sent."""
    text = str(problem)
    place = _PLACE.search(text)
    words = text.partition(" - at ")[0]
    if not words.startswith(("Expected ", "Object missing required field", "Number out", "Integer value out")):
        words = "there is a field that this service does not ask for"
    return f"{words} - at `{place[1][1:]}`" if place else words


def _lines(rows: Iterator[list[str]]) -> Iterator[list[str]]:
    try:
        yield from rows
    except csv.Error:
        raise Refusal(400, "malformed", "the body is not CSV") from None


# ----------------------------------------------------------------------------------------------------------- answering


def join(parts: Iterable[bytes], asked: Asked) -> bytes:
    """The answers, each already written down in the encoding of the question, as one body."""
    begin, between, end = (b"", b"", b"") if asked.alone else around(asked.encoding)
    return begin + between.join(parts) + end


def around(encoding: Encoding) -> tuple[bytes, bytes, bytes]:
    """What stands before, between and after several answers."""
    return (b'{"predictions":[', b",", b"]}") if encoding is Encoding.json else (b"", b"\n", b"\n")


def csv_row(ranking: Ranking) -> bytes:
    """The first genres of a ranking and their probabilities, as `firstspin score` writes them; no line end."""
    genres = PICK_SEPARATOR.join(ranking.genres[:SHOWN_GENRES])
    return csv_line([genres, PICK_SEPARATOR.join(map(repr, ranking.probabilities[:SHOWN_GENRES]))]).encode()
