"""Reading of request bodies in JSON, JSON Lines and CSV, with the same rules for HTTP and Lambda.

Parsing is strict: an unknown field, the text "30" for an age, true or 30.5 are refused. The formats of values are the
same in all encodings and in tables (`parsing`, `records.Registration`). Ambiguities: of a repeated key the last counts;
a genre picked twice counts once; empty lines are skipped; null and an empty CSV cell are a missing answer. No error
repeats anything that was sent.

A short body is parsed at once. A long list is parsed in pieces of about a millisecond each, so that the event loop can
run other tasks in between.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Annotated, Final, TypeVar

import msgspec

from firstspin.data import parsing
from firstspin.data.further_fields import with_further_fields
from firstspin.data.schema import (
    AGE,
    COUNTRY,
    GENDER,
    GENRES,
    INSTANCES,
    LISTENS,
    NUMBER,
    REGISTERED_AT,
    REGISTRATION_COLUMNS,
    USER_ID,
)
from firstspin.records import MAX_TEXT, Registration
from firstspin.serving.bodies.csv_lines import CsvLines
from firstspin.serving.bodies.encodings import Encoding, around
from firstspin.serving.bodies.limits import (
    AT_ONCE,
    MAX_INSTANCES,
    MAX_OBJECTS,
    PIECE_BYTES,
    SHORT,
    Body,
    Text,
    refuse_too_long,
)
from firstspin.serving.refusal import Refusal

Decoded = TypeVar("Decoded")
Place = tuple[int, Registration | None]
"""The position reached in a body, and the registration parsed last, if any."""

UserId = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT)]

_LINE: Final = re.compile(rb"[ \t\r\n]*+([^\n]++)")
_MAX_PLACE: Final = 1_000
_PLACE: Final = re.compile(r" - at `\$((?:\.[a-z_]+|\[[0-9]+\])+)`$")
_INSTANCE: Final = re.compile(rf" - at `\$(\.{INSTANCES}\[[0-9]+\])`$")


@dataclass(frozen=True, slots=True)
class ParsedBody:
    """A parsed body: its registrations in order, and whether it was one object (`alone`) rather than a list."""

    registrations: Sequence[Registration]
    encoding: Encoding
    alone: bool = False

    @property
    def number(self) -> int:
        """The number of registrations."""
        return len(self.registrations)

    def pieces(self) -> Iterator[Sequence[Registration]]:
        """The registrations in order, AT_ONCE at a time."""
        for start in range(0, len(self.registrations), AT_ONCE):
            yield self.registrations[start : start + AT_ONCE]


@dataclass(frozen=True, slots=True)
class LongBody:
    """A long list that is parsed in pieces: each call of `pieces` parses it anew, some registrations at a time.

    The iterator raises Refusal at invalid content, above the limit of registrations, and at the end of an empty list.
    """

    encoding: Encoding
    pieces: Callable[[], Iterator[Sequence[Registration]]]


# ------------------------------------------------------------------------------------------------------------- reading


class BodyReader:
    """Parser of bodies with the `extra` fields, each "number" or "text" as in training.

    With `of_users`, every registration must have a `user_id`, which is an attribute of the parsed ones. A body has at
    most `max_instances` registrations; None: only its length is limited.
    """

    def __init__(
        self,
        extra: Mapping[str, str] | None = None,
        *,
        of_users: bool = False,
        max_instances: int | None = MAX_INSTANCES,
    ) -> None:
        self.extra = extra = dict(extra or {})
        self.max_instances = max_instances
        registration = with_further_fields(tuple(extra), extra)
        self._one = _with(registration, USER_ID, UserId) if of_users else registration
        self._of_users = of_users
        alone = _with(registration, USER_ID, UserId | msgspec.UnsetType, msgspec.UNSET) if of_users else registration
        body = _with(alone, INSTANCES, tuple[self._one, ...] | msgspec.UnsetType, msgspec.UNSET)  # type: ignore[name-defined]
        self._decode_body = msgspec.json.Decoder(body).decode
        self._decode_one = msgspec.json.Decoder(self._one).decode
        self._decode_outline = msgspec.json.Decoder(_outline(alone)).decode
        self._nothing = body()
        self._names = ((USER_ID,) if of_users else ()) + (AGE, GENDER, COUNTRY, GENRES, *extra)
        self._table = (*REGISTRATION_COLUMNS, *extra)
        columns = (*self._table, *self._names, LISTENS)
        self._fields = (*self._names, LISTENS)
        self._spelled = {name.lower(): name for name in columns} | {name: name for name in columns}
        numbers = {name: parsing.number for name, kind in extra.items() if kind == NUMBER}
        self._parsers: dict[str, Callable[[str], object]] = {
            AGE: parsing.age,
            GENRES: parsing.picks,
            LISTENS: parsing.listens,
            **numbers,
        }

    def read(self, body: Body, encoding: Encoding) -> ParsedBody:
        """The registrations of a body. Raises Refusal (400 where it can't be parsed, 422 where a value is invalid)."""
        if encoding is Encoding.json:
            return self._from_json(body)
        rows = (registration for _, registration in self._listed(body, encoding) if registration is not None)
        registrations = list(islice(rows, None if self.max_instances is None else self.max_instances + 1))
        self._check_number(len(registrations), at_end=True)
        return ParsedBody(registrations, encoding)

    def begin(self, body: Body, encoding: Encoding) -> ParsedBody | LongBody:
        """`read`, but of a long list only the outline is parsed yet. Raises Refusal as `read`."""
        if len(body) <= SHORT:
            return self.read(body, encoding)
        if encoding is Encoding.json:
            return self._from_long_json(body)
        return LongBody(encoding, partial(self._pieces, partial(self._listed, body, encoding)))

    def max_number(self, body: Body, encoding: Encoding) -> int:
        """An upper bound of the number of registrations of a body, without parsing it."""
        separators = (b"{",) if encoding is Encoding.json else (b"\n", b"\r")
        number = 1 + sum(map(body.count, separators))
        return number if self.max_instances is None else min(number, self.max_instances)

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

    def _from_json(self, body: Body) -> ParsedBody:
        whole = _decoded(self._decode_body, body, self._fields)
        several: Sequence[Registration] | msgspec.UnsetType = getattr(whole, INSTANCES)
        if several is msgspec.UNSET:
            if self._of_users and getattr(whole, USER_ID) is msgspec.UNSET:
                raise Refusal(422, "invalid", f"Object missing required field `{USER_ID}`")
            return ParsedBody((whole,), Encoding.json, alone=True)
        if msgspec.structs.replace(whole, **{INSTANCES: msgspec.UNSET}) != self._nothing:
            raise _both()
        self._check_number(len(several))
        return ParsedBody(several, Encoding.json)

    def _from_long_json(self, body: Body) -> ParsedBody | LongBody:
        """Parse the outline: fields and instances are located, but not parsed."""
        if body.count(b"{") > MAX_OBJECTS:
            raise self._too_many()
        self._check_number(len(_decoded(_decode_objects, body, self._fields).instances))
        outline = _decoded(self._decode_outline, body, self._fields)
        fields = {name: getattr(outline, name) for name in outline.__struct_fields__}
        instances: Sequence[msgspec.Raw] | msgspec.UnsetType = fields.pop(INSTANCES)
        given = {name: text for name, text in fields.items() if text is not msgspec.UNSET}
        for text in given.values():
            refuse_too_long(memoryview(text))
        others = msgspec.json.encode(given)
        if instances is msgspec.UNSET:
            return self._from_json(others)
        if _decoded(self._decode_body, others, self._fields) != self._nothing:
            raise _both()
        if not instances:
            return ParsedBody((), Encoding.json)
        return LongBody(Encoding.json, partial(self._pieces, partial(self._from_instances, instances)))

    def _from_instances(self, instances: Sequence[msgspec.Raw]) -> Iterator[Place]:
        position = 0
        for number, instance in enumerate(instances):
            text = memoryview(instance)
            position += len(text)
            refuse_too_long(text)
            yield position, _decoded(self._decode_one, text, self._fields, f"{INSTANCES}[{number}]")

    def _from_lines(self, body: Body) -> Iterator[Place]:
        position = 0
        while line := _LINE.match(body, position):
            position = line.end()
            try:
                refuse_too_long(memoryview(body)[line.start(1) : position])
                text = line[1]
                registration = _decoded(self._decode_one, text, self._fields) if text.strip() else None
            except Refusal as refusal:
                raise refusal.in_line(body.count(b"\n", 0, line.start(1)) + 1) from None
            yield position, registration

    def _from_csv(self, body: Body) -> Iterator[Place]:
        names: Sequence[str] = ()
        lines = CsvLines(body)
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
        """The names of a header row: only names of fields, or other names too where all fields are among them."""
        names = [self._spelled.get(cell.strip(), self._spelled.get(cell.strip().lower(), "")) for cell in row]
        ours = [name for name in names if name]
        complete = len(ours) == len(names) or set(ours).issuperset(self._names)
        return names if complete and len(set(ours)) == len(ours) else []

    def _columns(self, row: Sequence[str]) -> Sequence[str]:
        """The names of the cells without a header: the fields of requests, or the columns of the registrations table.

        Batch transform splits a table into parts, of which only the first has the header.
        """
        of_table = len(row) == len(self._table) and _is_moment(row[self._table.index(REGISTERED_AT)])
        return self._table if of_table else self._names

    def _from_row(self, names: Sequence[str], row: Sequence[str]) -> Registration:
        if len(row) != len(names):
            columns = ",".join(self._names)
            raise Refusal(422, "invalid", f"{len(row)} cells instead of {len(names)}; a header may name {columns}")
        answers: dict[str, object] = {}
        for name, cell in zip(names, row, strict=True):
            if name in self._fields and cell.strip():
                answers[name] = self._value(name, cell)
        try:
            return msgspec.convert(answers, self._one)
        except msgspec.ValidationError as problem:
            raise Refusal(422, "invalid", _reason(problem, self._fields)) from None

    def _check_number(self, number: int, *, at_end: bool = False) -> None:
        if self.max_instances is not None and number > self.max_instances:
            raise self._too_many()
        if at_end and not number:
            raise Refusal(400, "empty", "the body holds no registration")

    def _too_many(self) -> Refusal:
        limit = MAX_OBJECTS if self.max_instances is None else self.max_instances
        return Refusal(413, "too_many_instances", f"ask about at most {limit} newcomers at once")

    def _value(self, name: str, cell: str) -> object:
        try:
            return self._parsers.get(name, str.strip)(cell)
        except parsing.Misspelt as problem:
            raise Refusal(422, "invalid", f"{name} {problem}") from None


def user_of(registration: Registration) -> str:
    """The user id of a registration that a reader `of_users` has read."""
    user_id: str = getattr(registration, USER_ID)
    return user_id


def _is_moment(cell: str) -> bool:
    try:
        return bool(parsing.moment(cell))
    except parsing.Misspelt:
        return False


def _with(base: type[Registration], name: str, kind: object, default: object = msgspec.NODEFAULT) -> type[Registration]:
    return msgspec.defstruct(  # type: ignore[return-value]
        base.__name__, [(name, kind, default)], bases=(base,), frozen=True, kw_only=True, forbid_unknown_fields=True
    )


class _Anything(msgspec.Struct):
    """A JSON object whose content is not parsed."""


class _Objects(msgspec.Struct):
    """A JSON body of which only the type of its instances is checked: values of other types could be too many."""

    instances: tuple[_Anything, ...] = ()


_decode_objects: Final = msgspec.json.Decoder(_Objects).decode


def _outline(body: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """A body type with the same fields and instances, all of them unparsed."""
    fields = [(name, msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for name in body.__struct_fields__]
    instances = (INSTANCES, list[msgspec.Raw] | msgspec.UnsetType, msgspec.UNSET)
    return msgspec.defstruct("Outline", [*fields, instances], forbid_unknown_fields=True)


def _decoded(decode: Callable[[Text], Decoded], body: Text, names: Sequence[str], inside: str = "") -> Decoded:
    try:
        return decode(body)
    except msgspec.ValidationError as problem:
        if str(problem).startswith("Expected `object`") and " at " not in str(problem):
            raise Refusal(400, "not_an_object", "a registration is a JSON object") from None
        raise Refusal(422, "invalid", _reason(problem, names, inside)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refusal(400, "malformed", "the body is not JSON") from None


def _both() -> Refusal:
    return Refusal(422, "invalid", f"fields beside `{INSTANCES}`: give one registration or a list, not both")


def _reason(problem: msgspec.ValidationError, names: Sequence[str], inside: str = "") -> str:
    """The message of msgspec's error, only where it has types, limits and places, never what was sent.

    Instead of an unknown field, the `names` of the fields that are asked for are listed.
    """
    text = str(problem)
    words = text[:_MAX_PLACE].partition(" - at ")[0]
    is_ours = words.startswith(("Expected ", "Object missing required field", "Number out", "Integer value out"))
    if not is_ours:
        words = f"there is a field that this service does not ask for; it asks for {', '.join(names)}"
    place_match = (_PLACE if is_ours else _INSTANCE).search(text[-_MAX_PLACE:])  # a field's name may look like a place
    place = (inside + (place_match[1] if place_match else "")).lstrip(".")
    return f"{words} - at `{place}`" if place else words


# ----------------------------------------------------------------------------------------------------------- answering


def join(parts: Iterable[bytes], body: ParsedBody) -> bytes:
    """The response body of encoded answers, in the encoding of the request `body`."""
    begin, between, end = (b"", b"", b"") if body.alone else around(body.encoding)
    return begin + between.join(parts) + end
