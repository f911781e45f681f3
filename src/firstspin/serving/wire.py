"""Bodies <-> records: JSON, JSON Lines and CSV, the same rules at every door (HTTP, Lambda).

Reading is strict: a field nobody knows, the text "30" for an age, true or 30.5 are refused, not guessed at. How values
are spelled is one rule for all encodings and for tables (`parsing`, `records.Registration`). The rules where bodies
could be read in two ways: of a key given twice the last counts; a genre picked twice counts once; empty lines are
skipped; null and an empty CSV cell are an answer not given. No error repeats anything that was sent.

A short body is read at once. A long list is read in pieces, each of which takes about a millisecond, so that a service
can do other things in between.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from itertools import islice
from typing import Annotated, Final, TypeVar

import msgspec

from firstspin.data import parsing
from firstspin.data.formats.csv_cells import csv_line
from firstspin.data.further_fields import with_further_fields
from firstspin.data.schema import (
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
from firstspin.records import MAX_TEXT, SHOWN_GENRES, Ranking, Registration

LARGEST_BODY: Final = 6_291_456  # bytes; what SageMaker lets through
MOST_INSTANCES: Final = 10_000

Body = bytes | bytearray
Text = bytes | bytearray | memoryview
Decoded = TypeVar("Decoded")
Place = tuple[int, Registration | None]
"""How far a body has been read, and the registration that was read last, if any."""

UserId = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT)]

AT_ONCE: Final = 32
PIECE_BYTES: Final = 16_384
"""A piece of a list is so many registrations, or as many as lie in so many bytes."""

SHORT: Final = 16_384
"""A body of up to so many bytes is read at once."""

MAX_LENGTH: Final = 1_048_576
MAX_VALUES: Final = 65_536
"""What has more bytes, or more commas, is not read as a registration. The longest of all has a third of either."""

MAX_HEADER: Final = 1_000
"""So much of a Content-Type or an Accept is read."""

MAX_OBJECTS: Final = 131_072
"""A long body of JSON has at most so many braces, whatever the limit of newcomers."""

_LINE: Final = re.compile(rb"[ \t\r\n]*+([^\n]++)")
_CSV_LINE: Final = re.compile(rb"[^\r\n]*+(?:\r\n?|\n)?")
_LINE_ENDS: Final = re.compile(rb"[\r\n]*+")
_BOM: Final = b"\xef\xbb\xbf"  # spreadsheets put it in front of CSV
_LONGEST_PLACE: Final = 1_000
_PLACE: Final = re.compile(r" - at `\$((?:\.[a-z_]+|\[[0-9]+\])+)`$")
_INSTANCE: Final = re.compile(rf" - at `\$(\.{INSTANCES}\[[0-9]+\])`$")


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
"""Single-valued headers: given twice, a proxy in front may have used the other value (request smuggling)."""


class Refusal(Exception):
    """A request that gets no answer: an HTTP status, a code that programs may rely on, and a sentence for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status, self.code, self.message = status, code, message

    def body(self) -> bytes:
        """As it goes over the wire."""
        return msgspec.json.encode({"error": {"code": self.code, "message": self.message}})

    def in_line(self, number: int) -> Refusal:
        """The same, of a line of the body."""
        return Refusal(self.status, self.code, f"line {number}: {self.message}")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a body asks: about whom, in order, and whether it was one object rather than a list."""

    registrations: Sequence[Registration]
    encoding: Encoding
    alone: bool = False

    @property
    def number(self) -> int:
        """How many."""
        return len(self.registrations)

    def pieces(self) -> Iterator[Sequence[Registration]]:
        """Some at a time, in order."""
        for start in range(0, len(self.registrations), AT_ONCE):
            yield self.registrations[start : start + AT_ONCE]


@dataclass(frozen=True, slots=True)
class LongBody:
    """A list that is read in pieces, anew each time: `pieces` gives some registrations at a time, or none yet.

    It raises Refusal where it comes to what can't be read, or to more newcomers than allowed; at the end, where there
    was none.
    """

    encoding: Encoding
    pieces: Callable[[], Iterator[Sequence[Registration]]]


# ------------------------------------------------------------------------------------------------------------- headers


def encoding_of(content_type: str) -> Encoding:
    """The encoding that a Content-Type names; JSON where there is none. Refusal 415 for any other."""
    media, _, parameters = content_type[:MAX_HEADER].partition(";")
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
    for part in accept[:MAX_HEADER].lower().split(","):
        media, *parameters = (word.strip() for word in part.split(";"))
        refused = any(re.fullmatch(r"q=0(\.0*)?", parameter.replace(" ", "")) for parameter in parameters)
        if media in welcome and not refused:
            return
    raise Refusal(406, "not_acceptable", f"this request is answered in {encoding}, the encoding it was sent in")


# ------------------------------------------------------------------------------------------------------------- reading


class BodyReader:
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
        self._decode_outline = msgspec.json.Decoder(_outline(alone)).decode
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
        rows = (registration for _, registration in self._listed(body, encoding) if registration is not None)
        found = list(islice(rows, None if self.most is None else self.most + 1))
        self._check_number(len(found), at_end=True)
        return Asked(found, encoding)

    def begin(self, body: Body, encoding: Encoding) -> Asked | LongBody:
        """As `read`, but of a long list only its outline is read by now."""
        if len(body) <= SHORT:
            return self.read(body, encoding)
        if encoding is Encoding.json:
            return self._from_long_json(body)
        return LongBody(encoding, partial(self._pieces, partial(self._listed, body, encoding)))

    def most_in(self, body: Body, encoding: Encoding) -> int:
        """No fewer than a body asks about, without reading it."""
        separators = (b"{",) if encoding is Encoding.json else (b"\n", b"\r")
        number = 1 + sum(map(body.count, separators))
        return number if self.most is None else min(number, self.most)

    def _listed(self, body: Body, encoding: Encoding) -> Iterator[Place]:
        return self._from_lines(body) if encoding is Encoding.lines else self._from_csv(body)

    def _pieces(self, listed: Callable[[], Iterator[Place]]) -> Iterator[Sequence[Registration]]:
        number, begun = 0, 0
        piece: list[Registration] = []
        for position, registration in listed():
            if registration is not None:
                piece.append(registration)
            if len(piece) == AT_ONCE or position - begun >= PIECE_BYTES:
                number += len(piece)
                self._check_number(number)
                yield piece
                piece, begun = [], position
        self._check_number(number + len(piece), at_end=True)
        yield piece

    def _from_json(self, body: Body) -> Asked:
        asked = _decoded(self._decode_body, body)
        several: Sequence[Registration] | msgspec.UnsetType = getattr(asked, INSTANCES)
        if several is msgspec.UNSET:
            if self._of_users and getattr(asked, USER_ID) is msgspec.UNSET:
                raise Refusal(422, "invalid", f"Object missing required field `{USER_ID}`")
            return Asked((asked,), Encoding.json, alone=True)
        if msgspec.structs.replace(asked, **{INSTANCES: msgspec.UNSET}) != self._nothing:
            raise _both()
        self._check_number(len(several))
        return Asked(several, Encoding.json)

    def _from_long_json(self, body: Body) -> Asked | LongBody:
        """From its outline: fields and instances are found, but not read."""
        if body.count(b"{") > MAX_OBJECTS:
            raise self._too_many()
        self._check_number(len(_decoded(_decode_objects, body).instances))
        outline = _decoded(self._decode_outline, body)
        fields = {name: getattr(outline, name) for name in outline.__struct_fields__}
        instances: Sequence[msgspec.Raw] | msgspec.UnsetType = fields.pop(INSTANCES)
        given = {name: text for name, text in fields.items() if text is not msgspec.UNSET}
        for text in given.values():
            _refuse_too_long(memoryview(text))
        others = msgspec.json.encode(given)
        if instances is msgspec.UNSET:
            return self._from_json(others)
        if _decoded(self._decode_body, others) != self._nothing:
            raise _both()
        if not instances:
            return Asked((), Encoding.json)
        return LongBody(Encoding.json, partial(self._pieces, partial(self._from_instances, instances)))

    def _from_instances(self, instances: Sequence[msgspec.Raw]) -> Iterator[Place]:
        position = 0
        for number, instance in enumerate(instances):
            text = memoryview(instance)
            position += len(text)
            _refuse_too_long(text)
            yield position, _decoded(self._decode_one, text, f"{INSTANCES}[{number}]")

    def _from_lines(self, body: Body) -> Iterator[Place]:
        position = 0
        while line := _LINE.match(body, position):
            position = line.end()
            try:
                _refuse_too_long(memoryview(body)[line.start(1) : position])
                text = line[1]
                registration = _decoded(self._decode_one, text) if text.strip() else None
            except Refusal as refusal:
                raise refusal.in_line(body.count(b"\n", 0, line.start(1)) + 1) from None
            yield position, registration

    def _from_csv(self, body: Body) -> Iterator[Place]:
        names: Sequence[str] = ()
        lines = _CsvLines(body)
        for row in lines.rows():
            is_blank = not row or (len(row) == 1 != len(names) and not row[0].strip())
            if is_blank or (not names and (names := self._header(row))):
                yield lines.position, None
                continue
            names = names or self._columns(row)
            try:
                registration = self._from_row(names, row)
            except Refusal as refusal:
                raise refusal.in_line(lines.number()) from None
            yield lines.position, registration

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

    def _from_row(self, names: Sequence[str], row: Sequence[str]) -> Registration:
        if len(row) != len(names):
            columns = ",".join(self._names)
            raise Refusal(422, "invalid", f"{len(row)} cells instead of {len(names)}; a header may name {columns}")
        told: dict[str, object] = {}
        for name, cell in zip(names, row, strict=True):
            if name in self._names and cell.strip():
                told[name] = self._value(name, cell)
        try:
            return msgspec.convert(told, self._one)
        except msgspec.ValidationError as problem:
            raise Refusal(422, "invalid", _said(problem)) from None

    def _check_number(self, number: int, *, at_end: bool = False) -> None:
        if self.most is not None and number > self.most:
            raise self._too_many()
        if at_end and not number:
            raise Refusal(400, "empty", "the body holds no registration")

    def _too_many(self) -> Refusal:
        most = MAX_OBJECTS if self.most is None else self.most
        return Refusal(413, "too_many_instances", f"ask about at most {most} newcomers at once")

    def _value(self, name: str, cell: str) -> object:
        try:
            return self._parsers.get(name, str.strip)(cell)
        except parsing.Misspelt as problem:
            raise Refusal(422, "invalid", f"{name} {problem}") from None


def user_of(registration: Registration) -> str:
    """The user id of a registration that a reader `of_users` has read."""
    user_id: str = getattr(registration, USER_ID)
    return user_id


class _CsvLines:
    """The lines of a body of CSV, as its parser asks for them.

    A row that has too many values for any registration is refused before it is parsed.
    """

    def __init__(self, body: Body) -> None:
        self._body = body
        self.position = len(_BOM) if body.startswith(_BOM) else 0
        self._begun = self.position  # where the row began that is being parsed
        self._values = 0  # of that row, at most

    def rows(self) -> Iterator[list[str]]:
        """Each row's cells; of an empty row none, and of empty lines outside of rows nothing."""
        parsed = csv.reader(self, strict=True)
        while True:
            ends = _LINE_ENDS.match(self._body, self.position)
            self.position = self._begun = ends.end() if ends else self.position
            self._values = 0
            try:
                row = next(parsed, None)
            except csv.Error:
                raise Refusal(400, "malformed", "the body is not CSV") from None
            if row is None:
                return
            yield row

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = _CSV_LINE.match(self._body, self.position)
        if not line or line.end() == self.position:
            raise StopIteration
        self._values += self._body.count(b",", self.position, line.end()) + 2  # a line costs more than a comma
        self.position = line.end()
        if self._values > MAX_VALUES or self.position - self._begun > MAX_LENGTH:
            raise _too_long().in_line(self.number())
        try:
            return line[0].decode()
        except UnicodeDecodeError:
            raise Refusal(400, "malformed", "the body is not UTF-8") from None

    def number(self) -> int:
        """The line in which the row begins."""
        before = self._body[: self._begun]
        return len(before.splitlines()) + 1


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


class _Anything(msgspec.Struct):
    """An object of JSON, of which nothing is read."""


class _Objects(msgspec.Struct):
    """A body of JSON, of which only is seen that its instances are objects: others could be too many to be found."""

    instances: tuple[_Anything, ...] = ()


_decode_objects: Final = msgspec.json.Decoder(_Objects).decode


def _outline(body: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """A body with the fields of this one and instances, none of them read."""
    fields = [(name, msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for name in body.__struct_fields__]
    instances = (INSTANCES, list[msgspec.Raw] | msgspec.UnsetType, msgspec.UNSET)
    return msgspec.defstruct("Outline", [*fields, instances], forbid_unknown_fields=True)


def _decoded(decode: Callable[[Text], Decoded], body: Text, inside: str = "") -> Decoded:
    try:
        return decode(body)
    except msgspec.ValidationError as problem:
        if str(problem).startswith("Expected `object`") and " at " not in str(problem):
            raise Refusal(400, "not_an_object", "a registration is a JSON object") from None
        raise Refusal(422, "invalid", _said(problem, inside)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refusal(400, "malformed", "the body is not JSON") from None


def _refuse_too_long(text: Text) -> None:
    if len(text) > MAX_VALUES and (len(text) > MAX_LENGTH or bytes(text).count(b",") > MAX_VALUES):
        raise _too_long()


def _too_long() -> Refusal:
    return Refusal(422, "invalid", "this is too long for a registration")


def _both() -> Refusal:
    return Refusal(422, "invalid", f"fields beside `{INSTANCES}`: give one registration or a list, not both")


def _said(problem: msgspec.ValidationError, inside: str = "") -> str:
    """What msgspec found wrong, only where its words are types, limits and places, never what was sent."""
    text = str(problem)
    words = text[:_LONGEST_PLACE].partition(" - at ")[0]
    is_ours = words.startswith(("Expected ", "Object missing required field", "Number out", "Integer value out"))
    if not is_ours:
        words = "there is a field that this service does not ask for"
    found = (_PLACE if is_ours else _INSTANCE).search(text[-_LONGEST_PLACE:])  # the field's name may look like a place
    place = (inside + (found[1] if found else "")).lstrip(".")
    return f"{words} - at `{place}`" if place else words


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
