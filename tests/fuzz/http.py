"""The app without its socket: requests of any body, and what must hold of every reply."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from made_app import new_app
from made_bundles import pack, pack_with_further_fields

from firstspin.service.http.messages import Handler, Reply, Request
from firstspin.service.process.worker import load
from fuzz import values
from fuzz.commands import FOREIGN
from fuzz.inputs import Broken, Input

FIELDS = ("age", "gender", "country", "genres", "listens")
FURTHER = ("device", "visits", "user_id")
"""Fields that not every app here asks for."""

TYPES = {"json": b"application/json", "lines": b"application/jsonlines", "csv": b"text/csv"}
ODD_TYPES = (
    *(
        b"",
        b"application/json; charset=utf-8",
        b"application/json;charset=latin-1",
        b"APPLICATION/JSON",
        b"text/csv;header=present",
    ),
    *(
        b"application/x-ndjson",
        b"text/plain",
        b"\xff",
        b"application/x-npy",
        b"a" * 5000,
        b";",
        b"text/csv\0",
        values.MARK.encode(),
    ),
)


class Log(logging.Handler):
    """What is logged while an input is checked: no error, and nothing that was sent."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def check(self) -> None:
        records, self.records = self.records, []
        for record in records:
            said = logging.Formatter().format(record)
            if values.MARK in said or values.MARK in str(record.__dict__):
                raise Broken(f"the log repeats what was sent: {said}")
            if record.levelno >= logging.ERROR:
                raise Broken(f"an error is logged: {said}")


@contextmanager
def logged() -> Iterator[Log]:
    """The log of everything below, kept from the terminal."""
    log, root = Log(), logging.getLogger()
    before, root.handlers = root.handlers, [log]
    try:
        yield log
    finally:
        root.handlers = before


Ask = Callable[[Input, Request], Reply]
"""Hands a request over, and checks what comes back."""


@contextmanager
def asking(folder: Path, **policy: object) -> Iterator[Ask]:
    """An app with a model that asks the usual fields, one with two more, and one that waits for its first."""
    pack(folder / "plain")
    pack_with_further_fields(folder / "further")
    apps = [new_app(**policy), new_app(**policy), new_app(without_model=True, **policy)]
    apps[0].serve(load(folder / "plain"))
    apps[1].serve(load(folder / "further"))
    loop = asyncio.new_event_loop()
    with logged() as log:

        def ask(made: Input, request: Request) -> Reply:
            made.note("request", request)
            reply = replied(loop, made.pick(apps), request)
            made.note("reply", reply)
            log.check()
            check_reply(reply.status, reply.body)
            return reply

        try:
            yield ask
        finally:
            loop.close()


def replied(loop: asyncio.AbstractEventLoop, app: Handler, request: Request) -> Reply:
    """The app's reply to one request, waited for."""
    [reply] = app([request])
    return reply if isinstance(reply, Reply) else loop.run_until_complete(_awaited(reply))


async def _awaited(reply: Awaitable[Reply]) -> Reply:
    return await reply


class _Error(msgspec.Struct, forbid_unknown_fields=True):
    code: str
    message: str


class _Refused(msgspec.Struct, forbid_unknown_fields=True):
    error: _Error


def check_reply(status: int, body: bytes) -> None:
    """No 5xx, and an error of the documented form, or its page for who accepts HTML, that repeats nothing."""
    if not (200 <= status < 300 or 400 <= status < 500):
        raise Broken(f"status {status}")
    if status < 400:
        return
    if values.MARK.encode() in body:
        raise Broken("the error repeats what was sent")
    if body.startswith(b"<!doctype html>") and b'<p class="status">%d</p>' % status in body:
        return
    try:
        refused = msgspec.json.decode(body, type=_Refused)
    except msgspec.MsgspecError:
        raise Broken(f"an error of another form: {body[:200]!r}") from None
    if not refused.error.code or not refused.error.message or (found := FOREIGN.search(refused.error.message)):
        raise Broken(f"the error says {found and found[0]!r}: {refused.error}")


def check_answers(body: bytes, kind: str, number: int | None = None) -> None:
    """As many answers as were asked for, each a whole one."""
    if kind == "csv":
        rows = body.decode().splitlines()
        answers: list[dict[str, object]] = []
        found = len(rows)
    else:
        text = body.decode()
        lines = [text] if kind == "json" else text.removesuffix("\n").split("\n")  # a name may hold U+0085 or U+2028
        told = [json.loads(line, parse_constant=_no_number) for line in lines]
        answers = told[0]["predictions"] if kind == "json" and "predictions" in told[0] else told
        found = len(answers)
    if number is not None and found != number:
        raise Broken(f"{found} answers to {number} registrations")
    for answer in answers:
        chances = [float(one["probability"]) for one in answer["genres"]]  # type: ignore[attr-defined]
        if answer["source"] != "no-model" and not (
            chances and all(0 <= one <= 1 and math.isfinite(one) for one in chances)
        ):
            raise Broken(f"an answer of these probabilities: {chances}")


def _no_number(name: str) -> None:
    raise Broken(f"{name} in JSON")


# ------------------------------------------------------------------------------------------------------------- requests


def request(made: Input, path: str, body: bytes, kind: str = "json") -> Request:
    """A request as the connection hands it over, most often with the right headers."""
    headers = {b"host": b"test", b"content-type": TYPES[kind]}
    if made.chance(0.1):
        headers[b"content-type"] = made.pick(ODD_TYPES)
    if made.chance(0.1):
        accept = (b"*/*", b"", b"text/html", b"application/json;q=0", b"\xff\xfe", b",;=", b"application/*")
        headers[b"accept"] = made.pick(accept)
    if made.chance(0.02):
        headers[b"content-encoding"] = made.pick((b"gzip", b"identity", b"\xff"))
    method = "POST" if made.chance(0.98) else made.pick(("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "X"))
    return Request(method, path, b"" if made.chance(0.95) else b"a=%ff&&", headers, body)


def registration(made: Input, of_user: bool = False) -> dict[str, object]:
    """A registration, good in most fields; `of_user` adds whose it is."""
    told: dict[str, object] = {"user_id": made.pick(("anna", "007", values.MARK))} if of_user else {}
    told |= {name: _value(made, name) for name in FIELDS if made.chance(0.5)}
    if made.chance(0.1):
        told |= {name: _value(made, name) for name in FURTHER if made.chance(0.5)}
    if made.chance(0.03):
        told[values.name(made)] = values.json_value(made)
    return told


def _value(made: Input, name: str) -> object:
    return values.json_value(made, 2) if made.chance(0.06) else _good(made, name)


def _good(made: Input, name: str) -> object:
    if name == "age":
        return made.pick((made.number(0, 120), None, 31, 12))
    if name == "visits":
        return made.pick((3, 2.5, 0))
    if name == "genres":
        return [
            made.pick(("Rock", "Jazz", "Pop", "rock ", "Polka", values.text(made))) for _ in range(made.number(0, 3))
        ]
    if name == "listens":
        return [_listen(made) for _ in range(made.pick((0, 1, 3, 200, 201)))]
    return made.pick(("US", "DE", "female", "phone", "car", "a", values.MARK, values.text(made)))


def _listen(made: Input) -> dict[str, object]:
    """Of a station that is there, or not; one in twenty is none."""
    station: dict[str, object] = {"station_id": made.pick(("1", "2", " 3", "nowhere", values.MARK))}
    listen = station | made.pick(({"seconds": 180}, {"seconds": 0.5}, {"skipped": True}))
    return (
        listen if made.chance(0.95) else listen | {made.pick(("seconds", "skipped", "at")): values.json_value(made, 1)}
    )


def json_body(made: Input, of_user: bool = False) -> bytes:
    """One registration, a list of them, anything, or damaged bytes."""
    kind = made.number(0, 19)
    if kind < 9:
        told: object = registration(made, of_user)
    elif kind < 14:
        told = {"instances": [registration(made, of_user) for _ in range(made.number(0, 5))]}
        if made.chance(0.1):
            told = told | registration(made)  # type: ignore[operator]
    elif kind < 16:
        told = values.json_value(made)
    elif kind == 16:
        return _deep(made)
    else:
        return values.mutated(made, values.as_json(made, registration(made, of_user)))
    return values.as_json(made, told)


def _deep(made: Input) -> bytes:
    depth = made.pick((10, 500, 5_000, 50_000))
    opening, closing = made.pick(((b"[", b"]"), (b'{"a":', b"}"), (b'{"instances":[', b"]}"), (b'{"genres":[', b"]}")))
    return opening * depth + made.pick((b"", b"1", closing * depth))


def lines_body(made: Input, of_user: bool = False) -> bytes:
    end = made.pick((b"\n", b"\n", b"\r\n", b"\n\n", b"\r", b"\0\n"))
    lines = [
        json_body(made) if made.chance(0.05) else values.as_json(made, registration(made, of_user))
        for _ in range(made.number(0, 5))
    ]
    body = end.join(lines) + (end if made.chance(0.5) else b"")
    return values.mutated(made, body) if made.chance(0.15) else body


def csv_body(made: Input, of_user: bool = False) -> bytes:
    """Rows with our header, the registrations table's, another or none."""
    header = ["user_id", "age", "gender"] if of_user else ["age", "gender", "country", "genres"]
    kind = made.number(0, 9)
    if kind < 3:
        header = ["user_id", "registered_at", "age", "gender", "country", "genres", "device"]
    elif kind < 5:
        made.random.shuffle(header)
    elif kind == 6:
        header.append("listens")
    elif kind == 5:
        header = [values.name(made) for _ in range(made.number(0, 6))]
    rows = [header] if made.chance(0.6) else []
    rows += [[_csv_cell(made, name) for name in header] for _ in range(made.number(0, 5))]
    for row in rows[1:]:
        if made.chance(0.05):
            row.append(values.cell(made))
    end = made.pick(("\n", "\n", "\r\n", "\r", "\n\n"))
    separator = made.pick((",", ",", ",", ",", ";", "\t"))
    text = end.join(separator.join(map(_quoted, row)) for row in rows) + (end if made.chance(0.5) else "")
    body = text.encode(made.pick(("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16")), "surrogatepass")
    return values.mutated(made, body) if made.chance(0.15) else body


def _csv_cell(made: Input, name: str) -> str:
    if made.chance(0.1):
        return values.cell(made)
    good = {"age": "31", "genres": "Rock|Jazz", "gender": "female", "registered_at": "2026-01-01T00:00:00Z"}
    good["listens"] = "1:180|nowhere:3|2:skipped"
    return "" if made.chance(0.2) else good.get(name, "US")


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if set(cell) & set('",\r\n;\t') else cell
