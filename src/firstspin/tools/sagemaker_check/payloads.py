"""Bodies that the container under check understands, and what is made of them: longer, broken, one record more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from firstspin.records import InputError

JSON = frozenset({"application/json"})
CSV = frozenset({"text/csv"})
JSON_LINES = frozenset(
    {
        "application/jsonlines",
        "application/x-ndjson",
        "application/x-jsonlines",
        "application/jsonl",
        "application/jsonlines+json",
    }
)


def media_type(content_type: str) -> str:
    """The type without its parameters.

    >>> media_type("Text/CSV; charset=utf-8")
    'text/csv'
    """
    return content_type.partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class Payload:
    """A body that must be answered with 2xx."""

    content_type: str
    body: bytes

    @property
    def media_type(self) -> str:
        return media_type(self.content_type)


@dataclass(frozen=True, slots=True)
class Payloads:
    """One valid body for each content type that is to be checked; the first is the one used where any would do."""

    examples: tuple[Payload, ...]

    def __post_init__(self) -> None:
        if not self.examples:
            raise InputError("the check needs at least one valid body, with its content type")

    @property
    def first(self) -> Payload:
        return self.examples[0]

    @property
    def texts(self) -> tuple[Payload, ...]:
        """Those of types of which we know what is valid, and that answers are written in."""
        return tuple(payload for payload in self.examples if payload.media_type in JSON | CSV | JSON_LINES)

    def of(self, types: frozenset[str]) -> Payload | None:
        return next((payload for payload in self.examples if payload.media_type in types), None)


REGISTRATIONS = Payloads(
    (
        Payload("application/json", b'{"age": 31, "gender": "female", "country": "US", "genres": ["Rock", "Jazz"]}'),
        Payload("text/csv", b"age,gender,country,genres\n31,female,US,Rock|Jazz\n"),
        Payload("application/jsonlines", b'{"age": 31, "genres": ["Rock"]}\n{"country": "SE"}\n'),
    )
)
"""What every container of ours answers."""


def read(path: Path, content_type: str) -> Payload:
    """The body in a file; InputError when it can't be read or holds nothing."""
    try:
        body = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if not body.strip():
        raise InputError(f"{path}: holds no body")
    return Payload(content_type, body)


def filled(payload: Payload, size: int) -> Payload | None:
    """The same request as a body of `size` bytes, or None where we can't tell how.

    JSON and JSON Lines grow by spaces, which mean nothing there, to exactly `size`; a table can only grow by its last
    row, to at most `size`.
    """
    if payload.media_type in JSON | JSON_LINES:
        body = payload.body.rstrip(b"\r\n")
        return Payload(payload.content_type, body + b" " * (size - len(body) - 1) + b"\n")
    return filled_with_records(payload, size) if payload.media_type in CSV else None


def filled_with_records(payload: Payload, size: int) -> Payload | None:
    """The body with its last record again and again, up to `size` bytes; None for types that aren't a record a line."""
    if payload.media_type not in CSV | JSON_LINES:
        return None
    body, record = _ended(payload.body), _last_line(payload)
    return Payload(payload.content_type, body + record * ((size - len(body)) // len(record)))


def one_more(payload: Payload) -> Payload | None:
    """The body with its last record twice, or None for types that aren't a record a line."""
    if payload.media_type not in CSV | JSON_LINES:
        return None
    return Payload(payload.content_type, _ended(payload.body) + _last_line(payload))


def broken(payload: Payload) -> Payload:
    """What no server can make sense of as one of the `texts`: cut JSON with bytes that aren't UTF-8."""
    return Payload(payload.content_type, b'{"cut": ["\xff\xfe\x00')


def records(body: bytes) -> int:
    """How many lines that aren't empty."""
    return sum(bool(line.strip()) for line in body.splitlines())


def _ended(body: bytes) -> bytes:
    return body if body.endswith(b"\n") else body + b"\n"


def _last_line(payload: Payload) -> bytes:
    return payload.body.rstrip(b"\r\n").splitlines()[-1] + b"\n"
