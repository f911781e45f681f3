"""The endpoint's answer, checked before it is passed on: a malformed one is answered by the fallback instead."""

from __future__ import annotations

import csv
import io
from typing import Annotated, Final

import msgspec

from firstspin.aws.front.experiment import UserAnswer
from firstspin.data.schema import PICK_SEPARATOR
from firstspin.records import Carousel, GenreProbability, Message, Ranking, Station
from firstspin.serving.bodies.encodings import Encoding, csv_row
from firstspin.serving.bodies.wire import ParsedBody


class MalformedAnswer(Exception):
    """The endpoint's answer does not match the request."""


def check_answer(answer: bytes, parsed: ParsedBody) -> str:
    """The id of the bundle that answered, empty for CSV. Raises MalformedAnswer where an answer is missing."""
    try:
        models = _models(answer, parsed)
    except (msgspec.MsgspecError, csv.Error, ValueError, RecursionError):
        raise MalformedAnswer from None
    if len(models) != parsed.number:
        raise MalformedAnswer
    return models[-1] if models else ""


def _models(answer: bytes, parsed: ParsedBody) -> list[str]:
    """The model that each answer names, an empty name for a row of CSV."""
    text = answer.decode()  # all of it: msgspec doesn't look into fields that it skips
    if parsed.encoding is Encoding.csv:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
        if not all(map(_is_answer, rows)):
            raise MalformedAnswer
        return [""] * len(rows)
    if parsed.alone:
        return [_ONE(answer).model]
    if parsed.encoding is Encoding.json:
        return [one.model for one in _SEVERAL(answer).predictions]
    return [_ONE(line).model for line in answer.splitlines()]


def _is_answer(row: list[str]) -> bool:
    """Whether this is a row as `encodings.csv_row` writes them. False or ValueError where it isn't."""
    genres, probabilities = (cell.split(PICK_SEPARATOR) for cell in row)
    return all(genres) and all(0 <= float(one) <= 1 for _, one in zip(genres, probabilities, strict=True))


class _Chance(GenreProbability, frozen=True):
    genre: Annotated[str, msgspec.Meta(min_length=1)]
    probability: Annotated[float, msgspec.Meta(ge=0, le=1)]


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A recommendation that recommends something; a service without a model doesn't, and the fallback does better.

    Its source is one that another version of the endpoint may have added.
    """

    model: str
    source: str
    genres: Annotated[tuple[_Chance, ...], msgspec.Meta(min_length=1)]
    stations: tuple[Station, ...] = ()
    message: Message | None = None
    carousels: tuple[Carousel, ...] = ()


class _Predictions(msgspec.Struct):
    predictions: tuple[_Answer, ...]


class _Parts(msgspec.Struct):
    predictions: list[msgspec.Raw]


_PARTS: Final = msgspec.json.Decoder(_Parts).decode
_ONE: Final = msgspec.json.Decoder(_Answer).decode
_SEVERAL: Final = msgspec.json.Decoder(_Predictions).decode


def answer_parts(answer: bytes, alone: bool) -> list[bytes]:
    """The answers in a checked body of JSON, as they are."""
    return [answer] if alone else [bytes(part) for part in _PARTS(answer).predictions]


def user_answer(part: bytes | None, encoding: Encoding) -> UserAnswer:
    """An answer of the endpoint, in the encoding of the request."""
    assert part is not None
    answer = _ONE(part)
    stations = [station.station_id for station in answer.stations]
    if encoding is Encoding.csv:
        genres, probabilities = zip(*((one.genre, one.probability) for one in answer.genres), strict=True)
        part = csv_row(Ranking(genres, probabilities, "model"))
    return UserAnswer(part, answer.source, answer.model, stations)


def answer_source(answer: bytes) -> str:
    """The source of one checked answer."""
    return _ONE(answer).source
