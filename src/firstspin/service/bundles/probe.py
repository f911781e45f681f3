"""The bundle probe: a bundle is served to made-up requests in every encoding before any worker takes it.

The requests go through the same `App`, `BodyReader`s and `Responses` as those of a worker: golden registrations, one
without answers, one under age, every further field as a number, as text and as null. All must be answered alike.
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
from firstspin.data.schema import GENRES, INSTANCES, NUMBER, PICK_SEPARATOR, USER_ID
from firstspin.events.schema import EPOCH
from firstspin.records import MAX_PICKS, InputError, Recommendation, Registration, StoredAnswer
from firstspin.service.app import App, AppOptions, Clock, ServedModel
from firstspin.service.http.messages import Reply, Request
from firstspin.service.metrics import SharedMetrics
from firstspin.serving.bundle import Bundle
from firstspin.serving.policy import DEFAULTS, Decision, PolicySettings, decide
from firstspin.serving.responses import recommendation
from firstspin.serving.wire import Encoding, csv_row

_recommendations = msgspec.json.Decoder(Recommendation)

# So many countries with stations of their own, and further fields, are asked about.
MARKETS: Final = 3
FIELDS: Final = 20


class Predictions(msgspec.Struct, frozen=True):
    """An answer to several."""

    predictions: tuple[Recommendation, ...]


def probe(loaded: Bundle, serving: ServedModel) -> None:
    """Raise InputError, with what was asked, unless what serves this bundle answers everything, and right.

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
        asked = self._registrations()
        for one in asked:
            await self._alone(one)
        most = self._serving.reader.max_instances or len(asked)
        for start in range(0, len(asked), most):
            await self._several(asked[start : start + most])
        self._stored(Registration())

    def _registrations(self) -> list[Registration]:
        """What is asked, once each."""
        manifest, known = self._bundle.manifest, self._bundle.predictor.genres
        golden = [*manifest.golden, *(manifest.golden_rule or ()), *(manifest.golden_further or ())]
        made_up: list[dict[str, object]] = [golden.registration for golden in golden]
        made_up += [{}, {"age": 0, "gender": "female", "genres": known[:2]}, {"age": 120, "genres": known[:MAX_PICKS]}]
        made_up += [{"country": market} for market in list(self._bundle.catalogue.markets)[:MARKETS]]
        for name, kind in islice(self._extra.items(), FIELDS):
            made_up += [{name: 1.5 if kind == NUMBER else "probe"}, {name: None}]
        return list(dict.fromkeys(msgspec.convert(one, self._kind) for one in made_up))

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

    async def _several(self, asked: Sequence[Registration]) -> None:
        lines = b"".join(msgspec.json.encode(one) + b"\n" for one in asked)
        listed = await self._answer("/invocations", msgspec.json.encode({INSTANCES: asked}))
        by_line = await self._answer("/invocations", lines, Encoding.lines)
        for one, *answers in zip(
            asked,
            msgspec.json.decode(listed, type=Predictions).predictions,
            _recommendations.decode_lines(by_line),
            strict=True,
        ):
            for answer in answers:
                self._check(one, answer)
        if asked := [one for one in asked if _is_said_in_csv(one)]:
            in_rows = await self._answer("/invocations", _rows(asked), Encoding.csv)
            if in_rows != b"".join(csv_row(self._expected(one).ranking) + b"\n" for one in asked):
                raise InputError("an answer in CSV is not the one expected")

    async def _described(self) -> None:
        msgspec.json.decode(await self._reply("/openapi.json", *self._app([_request("/openapi.json", method="GET")])))

    def _stored(self, one: Registration) -> None:
        """An answer that batch scoring stored is served too."""
        stored = StoredAnswer(self._bundle.id, self._expected(one).ranking)
        decision = decide(one, "u", self._serving.bundle, stored, PolicySettings(stored_first=True))
        if decision.ranking is not stored.ranking:
            raise InputError("a stored answer of the bundle is not taken for its own")
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


def _is_said_in_csv(registration: Registration) -> bool:
    """Whether a row of CSV tells the same: an empty cell is no answer, and a separator ends a pick."""
    told = [*registration.genres, *(v for v in msgspec.structs.asdict(registration).values() if isinstance(v, str))]
    return all(text.strip() for text in told) and not any(PICK_SEPARATOR in pick for pick in registration.genres)


def _rows(asked: Iterable[Registration]) -> bytes:
    rows = io.StringIO()
    for one in asked:
        told = msgspec.structs.asdict(one) | {GENRES: PICK_SEPARATOR.join(one.genres)}
        csv.writer(rows, lineterminator="\n").writerow("" if value is None else value for value in told.values())
    return rows.getvalue().encode()
