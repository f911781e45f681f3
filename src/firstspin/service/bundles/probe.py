"""The bundle probe: a bundle answers test requests in every encoding before a worker loads it.

The requests go through the same `App`, `BodyReader`s and `Responses` as in a worker: golden registrations, one without
answers, one under age, every further field as a number, as text and as null. Every encoding must get the same answer.
"""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Awaitable, Iterable, Sequence
from itertools import islice
from typing import Final

import msgspec

from firstspin.data.further_fields import with_further_fields
from firstspin.data.schema import GENRES, INSTANCES, LISTENS, NUMBER, PICK_SEPARATOR, USER_ID
from firstspin.events.schema import EPOCH
from firstspin.records import MAX_PICKS, InputError, Recommendation, Registration, StoredAnswer
from firstspin.service.app import App, AppOptions, Clock
from firstspin.service.http.messages import Reply, Request
from firstspin.service.metrics import SharedMetrics
from firstspin.service.served_model import ServedModel
from firstspin.serving.bodies.encodings import Encoding, csv_row
from firstspin.serving.bundle import Bundle
from firstspin.serving.content import recommendation
from firstspin.serving.policy import DEFAULTS, Decision, PolicySettings, decide

_recommendations = msgspec.json.Decoder(Recommendation)

# Max number of countries with their own stations, and of further fields, in test requests.
MARKETS: Final = 3
FIELDS: Final = 20


class Predictions(msgspec.Struct, frozen=True):
    """The body of a reply about several registrations."""

    predictions: tuple[Recommendation, ...]


def probe(loaded: Bundle, serving: ServedModel) -> None:
    """Check the answers of a loaded bundle. Raises InputError with the request where an answer is wrong or missing.

    The policy's settings are the defaults: they decide between the model and the rule, and both are probed.
    """
    tallies = SharedMetrics(1)
    app = App(tallies, tallies.row(0), Clock(lambda: 0, lambda: EPOCH), AppOptions())
    app.serve(serving)
    asyncio.run(_Probe(app, serving, loaded).run())


class _Probe:
    def __init__(self, app: App, serving: ServedModel, loaded: Bundle) -> None:
        self._app, self._serving, self._bundle = app, serving, loaded
        self._extra = loaded.manifest.extra
        self._kind = with_further_fields(tuple(self._extra))

    async def run(self) -> None:
        await self._described()
        registrations = self._registrations()
        for one in registrations:
            await self._alone(one)
        size = self._serving.reader.max_instances or len(registrations)
        for start in range(0, len(registrations), size):
            await self._several(registrations[start : start + size])
        self._stored(Registration())

    def _registrations(self) -> list[Registration]:
        """The registrations of the test requests, each once."""
        manifest, known = self._bundle.manifest, self._bundle.predictor.genres
        golden = [*manifest.golden, *(manifest.golden_rule or ()), *(manifest.golden_further or ())]
        fields: list[dict[str, object]] = [golden.registration for golden in golden]
        fields += [{}, {"age": 0, "gender": "female", "genres": known[:2]}, {"age": 120, "genres": known[:MAX_PICKS]}]
        fields += [{"country": market} for market in list(self._bundle.catalogue.markets)[:MARKETS]]
        for name, kind in islice(self._extra.items(), FIELDS):
            fields += [{name: 1.5 if kind == NUMBER else "probe"}, {name: None}]
        return list(dict.fromkeys(msgspec.convert(one, self._kind) for one in fields))

    async def _alone(self, one: Registration) -> None:
        body, of_user = (msgspec.json.encode(msgspec.structs.asdict(one) | user) for user in ({}, {USER_ID: "u"}))
        loaded = self._app.answered(_request("/invocations", body), self._serving)  # one of many models
        for reply in (
            await self._answer("/invocations", body),
            await self._answer("/v1/recommendations", of_user),
            await self._reply("/models/NAME/invoke", loaded),
        ):
            self._check(one, _recommendations.decode(reply))
        await self._answer("/v1/explanations", body)

    async def _several(self, registrations: Sequence[Registration]) -> None:
        lines = b"".join(msgspec.json.encode(one) + b"\n" for one in registrations)
        listed = await self._answer("/invocations", msgspec.json.encode({INSTANCES: registrations}))
        by_line = await self._answer("/invocations", lines, Encoding.lines)
        for one, *answers in zip(
            registrations,
            msgspec.json.decode(listed, type=Predictions).predictions,
            _recommendations.decode_lines(by_line),
            strict=True,
        ):
            for answer in answers:
                self._check(one, answer)
        if in_csv := [one for one in registrations if _fits_csv(one)]:
            in_rows = await self._answer("/invocations", _rows(in_csv), Encoding.csv)
            if in_rows != b"".join(csv_row(self._expected(one).ranking) + b"\n" for one in in_csv):
                raise InputError("an answer in CSV is not the one expected")

    async def _described(self) -> None:
        msgspec.json.decode(await self._reply("/openapi.json", *self._app([_request("/openapi.json", method="GET")])))

    def _stored(self, one: Registration) -> None:
        """Check that a stored answer of this bundle is served."""
        stored = StoredAnswer(self._bundle.id, self._expected(one).ranking)
        decision = decide(one, "u", self._serving.bundle, stored, PolicySettings(stored_first=True))
        if decision.ranking is not stored.ranking:
            raise InputError("a stored answer of this bundle is not served")
        _recommendations.decode(self._serving.responses.json(one, decision))

    def _expected(self, one: Registration) -> Decision:
        decision = decide(one, None, self._bundle, None, DEFAULTS)
        if decision.failure:
            raise InputError(f"the model fails ({decision.failure})")
        return decision

    def _check(self, one: Registration, answer: Recommendation) -> None:
        expected = recommendation(one, self._expected(one), self._bundle)
        if answer != expected:
            raise InputError(f"an answer of {answer.source!r} is not the one expected of {expected.source!r}")

    async def _answer(self, path: str, body: bytes, encoding: Encoding = Encoding.json) -> bytes:
        return await self._reply(f"{path} in {encoding}", *self._app([_request(path, body, encoding)]))

    async def _reply(self, what: str, begun: Reply | Awaitable[Reply]) -> bytes:
        reply = begun if isinstance(begun, Reply) else await begun
        if reply.status != 200:
            raise InputError(f"a worker would answer {reply.status} to {what}")
        return bytes(reply.body)


def _request(path: str, body: bytes = b"", encoding: Encoding = Encoding.json, method: str = "POST") -> Request:
    return Request(method, path, b"", {b"content-type": encoding.encode()}, body)


def _fits_csv(registration: Registration) -> bool:
    """Whether a row of CSV has the same meaning: an empty cell is no answer, and a separator ends a pick."""
    texts = [*registration.genres, *(v for v in msgspec.structs.asdict(registration).values() if isinstance(v, str))]
    return all(text.strip() for text in texts) and not any(PICK_SEPARATOR in pick for pick in registration.genres)


def _rows(registrations: Iterable[Registration]) -> bytes:
    rows = io.StringIO()
    for one in registrations:
        fields = msgspec.structs.asdict(one) | {GENRES: PICK_SEPARATOR.join(one.genres)}
        del fields[LISTENS]  # no cell of a row without a header
        csv.writer(rows, lineterminator="\n").writerow("" if value is None else value for value in fields.values())
    return rows.getvalue().encode()
