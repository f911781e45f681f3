"""Valid request bodies for the container under check, and those derived from them: longer, broken, one more record."""

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
    """A valid request body: the response must be 2xx."""

    content_type: str
    body: bytes

    @property
    def media_type(self) -> str:
        """The content type without its parameters."""
        return media_type(self.content_type)


@dataclass(frozen=True, slots=True)
class Payloads:
    """One valid body per content type to check; the first is the default. Raises InputError where there is none."""

    examples: tuple[Payload, ...]

    def __post_init__(self) -> None:
        if not self.examples:
            raise InputError("the check needs at least one valid body, with its content type")

    @property
    def first(self) -> Payload:
        """The default body."""
        return self.examples[0]

    @property
    def texts(self) -> tuple[Payload, ...]:
        """The bodies in JSON, JSON Lines or CSV, whose validity and responses can be checked."""
        return tuple(payload for payload in self.examples if payload.media_type in JSON | CSV | JSON_LINES)

    def of(self, types: frozenset[str]) -> Payload | None:
        """The first body of one of these types; None without."""
        return next((payload for payload in self.examples if payload.media_type in types), None)


REGISTRATIONS = Payloads(
    (
        Payload("application/json", b'{"age": 31, "gender": "female", "country": "US", "genres": ["Rock", "Jazz"]}'),
        Payload("text/csv", b"age,gender,country,genres\n31,female,US,Rock|Jazz\n"),
        Payload("application/jsonlines", b'{"age": 31, "genres": ["Rock"]}\n{"country": "SE"}\n'),
    )
)
"""Valid bodies for firstspin's own container."""


def read(path: Path, content_type: str) -> Payload:
    """The body in a file. Raises InputError where it can't be read or is empty."""
    try:
        body = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if not body.strip():
        raise InputError(f"{path} is empty")
    return Payload(content_type, body)


def filled(payload: Payload, size: int) -> Payload | None:
    """The same request as a body of `size` bytes; None for other types than JSON, JSON Lines and CSV.

    JSON and JSON Lines are padded with spaces to exactly `size`; CSV repeats its last row, up to at most `size`.
    """
    if payload.media_type in JSON | JSON_LINES:
        body = payload.body.rstrip(b"\r\n")
        return Payload(payload.content_type, body + b" " * (size - len(body) - 1) + b"\n")
    return filled_with_records(payload, size) if payload.media_type in CSV else None


def filled_with_records(payload: Payload, size: int) -> Payload | None:
    """The body with its last record repeated, up to `size` bytes; None for types without one record per line."""
    if payload.media_type not in CSV | JSON_LINES:
        return None
    body, record = _ended(payload.body), _last_line(payload)
    return Payload(payload.content_type, body + record * ((size - len(body)) // len(record)))


def one_more(payload: Payload) -> Payload | None:
    """The body with its last record twice; None for types without one record per line."""
    if payload.media_type not in CSV | JSON_LINES:
        return None
    return Payload(payload.content_type, _ended(payload.body) + _last_line(payload))


def broken(payload: Payload) -> Payload:
    """An invalid body of any of the `texts` types: truncated JSON with invalid UTF-8."""
    return Payload(payload.content_type, b'{"cut": ["\xff\xfe\x00')


def records(body: bytes) -> int:
    """The number of non-empty lines."""
    return sum(bool(line.strip()) for line in body.splitlines())


def _ended(body: bytes) -> bytes:
    return body if body.endswith(b"\n") else body + b"\n"


def _last_line(payload: Payload) -> bytes:
    return payload.body.rstrip(b"\r\n").splitlines()[-1] + b"\n"
