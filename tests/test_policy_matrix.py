"""One policy at every entry point: each combination of what is known has one expected answer, wherever it is asked.

`EXPECTED` is the policy as a table that shares no code with `serving.policy`: the first row that fits a case gives the
source of its answer. Every entry point is sent every case that it can express; `CANNOT_EXPRESS` lists the others.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby, islice, product
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from at_once import AtOnce
from gateway_events import rest
from made_app import NOW, Broken, new_app
from made_bundles import pack
from made_columns import columns
from made_experiments import HALVES, SECRET

from firstspin import answer as answering
from firstspin import api
from firstspin.aws.front.experiment import ExposureStream
from firstspin.aws.front.gateway import Gateway
from firstspin.events.firehose import SCOPE, FirehoseReply, FirehoseSink, Record
from firstspin.experiment.assign import assign
from firstspin.records import Ranking, Registration, StoredAnswer
from firstspin.score import score
from firstspin.service.app import App
from firstspin.service.exposures import ExposureLog
from firstspin.service.http.messages import Reply, Request
from firstspin.service.served_model import ServedModel
from firstspin.serving import batch
from firstspin.serving.bodies.encodings import Encoding
from firstspin.serving.bodies.wire import BodyReader
from firstspin.serving.bundle import Bundle
from firstspin.serving.explanations import ModelFailed, explain
from firstspin.serving.lookups import UserLookups
from firstspin.serving.policy import PolicySettings, decide
from firstspin.serving.refusal import Refusal

ADULT = 31
STORED = Ranking(("Classical", "Jazz"), (0.6, 0.4), "batch")
OTHER_BUNDLE = "another0"
IN_RULE_ARM, IN_MODEL_ARM = (
    next(u for u in map(str, range(100)) if getattr(assign(HALVES.split, u), "arm", "") == arm)
    for arm in ("rule", "model")
)


class Case(NamedTuple):
    """One combination. `silence` is whether the model's training saw registrations without answers."""

    age: int | None
    picks: tuple[str, ...]
    user: str | None
    stored: str  # "none", or by which bundle: "ours", "another's"
    model: str  # "fine", "failing", "absent"
    silence: bool
    min_age: int
    refuses: bool
    stored_first: bool
    experiment: bool

    @property
    def under_age(self) -> bool:
        return self.age is not None and self.age < self.min_age

    @property
    def arm(self) -> str:
        return {IN_RULE_ARM: "rule", IN_MODEL_ARM: "model"}.get(self.user or "", "") if self.experiment else ""

    @property
    def has_stored(self) -> bool:
        return self.user is not None and self.stored != "none"

    @property
    def has_our_stored(self) -> bool:
        return self.has_stored and self.stored == "ours"

    @property
    def says_nothing_known(self) -> bool:
        return self.age is None and self.picks != ("Rock",)

    @property
    def registration(self) -> Registration:
        return Registration(age=self.age, gender="female" if self.age else None, genres=self.picks)

    @property
    def settings(self) -> PolicySettings:
        return PolicySettings(self.min_age, self.refuses, self.stored_first, HALVES if self.experiment else None)


EXPECTED: tuple[tuple[str, Callable[[Case], bool]], ...] = (
    ("refused", lambda c: c.under_age and c.refuses),
    ("batch", lambda c: c.model == "absent" and c.has_stored and not c.under_age and not c.arm),
    ("no-model", lambda c: c.model == "absent"),
    ("under-age", lambda c: c.under_age),
    ("rule-arm", lambda c: c.arm == "rule"),
    ("batch", lambda c: c.stored_first and c.has_our_stored and not c.arm),
    ("popular by the rule", lambda c: c.says_nothing_known and not c.silence),
    ("popular", lambda c: c.model == "fine" and c.says_nothing_known),
    ("model", lambda c: c.model == "fine"),
    ("batch", lambda c: c.has_our_stored and not c.arm),
    ("rule", lambda _: True),
)

CASES = [
    Case(age, *others, min_age, *settings)
    for min_age in (13, 16)
    for age in (None, *sorted({12, min_age - 1, min_age, ADULT}))
    for others in product(
        ((), ("Rock",), ("Polka",)),
        (None, IN_RULE_ARM, IN_MODEL_ARM),
        ("none", "ours", "another's"),
        ("fine", "failing", "absent"),
        (True, False),
    )
    for settings in product((False, True), repeat=3)
]

CANNOT_EXPRESS: dict[str, tuple[tuple[str, Callable[[Case], bool]], ...]] = {
    "decide": (),
    "/invocations": (("a request names no user", lambda c: c.user is not None),),
    "/v1/recommendations": (("a request names its user", lambda c: c.user is None),),
    "several at /v1/recommendations": (
        ("a request names its users", lambda c: c.user is None),
        ("stored answers are looked up for one user at a time", lambda c: c.stored != "none"),
        ("one that is refused refuses all", lambda c: c.under_age and c.refuses),
    ),
    "/models/NAME/invoke": (
        ("a request names no user", lambda c: c.user is not None),
        ("what is invoked is loaded", lambda c: c.model == "absent"),
    ),
    "score": (
        ("it makes stored answers", lambda c: c.stored != "none" or c.stored_first),
        ("it answers users outside of experiments", lambda c: c.user is not None or c.experiment),
        ("it refuses nobody", lambda c: c.refuses),
        ("it begins with a bundle", lambda c: c.model == "absent"),
    ),
    "recommend in the terminal": (
        ("it takes no user", lambda c: c.user is not None or c.experiment),
        ("it reads no stored answers", lambda c: c.stored != "none" or c.stored_first),
        ("it has no settings", lambda c: c.min_age != 13 or c.refuses),
        ("a bundle on a disk that fails is refused when it is loaded", lambda c: c.model != "fine"),
    ),
    "recommend in Python": (
        ("it takes no user", lambda c: c.user is not None or c.experiment),
        ("it reads no stored answers", lambda c: c.stored != "none" or c.stored_first),
        ("it refuses nobody", lambda c: c.refuses),
        ("it begins with a bundle", lambda c: c.model == "absent"),
    ),
    "the Lambda": (
        ("there is a bundle in its package", lambda c: c.model == "absent"),
        ("the endpoint goes before stored answers", lambda c: c.stored_first),
        ("a user named by a header takes part in no experiment", lambda c: c.experiment),
    ),
    "/v1/recommendations of the Lambda": (
        ("there is a bundle in its package", lambda c: c.model == "absent"),
        ("the endpoint goes before stored answers", lambda c: c.stored_first),
        ("a request names its user", lambda c: c.user is None),
    ),
    "/v1/explanations": (("a request names no user", lambda c: c.user is not None),),
}


class Answer(NamedTuple):
    """What an entry point answered; "" and () where it does not say so."""

    source: str
    model: str = ""
    genres: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()


@dataclass
class World:
    """Two bundles on a disk (by whether training saw silence), what is loaded of them, and which stored answers are."""

    folders: dict[bool, Path]
    bundles: dict[tuple[bool, str], Bundle | None]

    def bundle(self, case: Case) -> Bundle | None:
        return self.bundles[case.silence, case.model]

    def stored(self, case: Case) -> StoredAnswer | None:
        ours = self.bundles[case.silence, "fine"]
        assert ours is not None
        return {
            "none": None,
            "ours": StoredAnswer(ours.id, STORED),
            "another's": StoredAnswer(OTHER_BUNDLE, STORED),
        }[case.stored]

    def expected(self, case: Case) -> Answer:
        """The first row of the table that fits, and whose ranking that is."""
        source = next(source for source, fits in EXPECTED if fits(case))
        loaded, stored = self.bundles[case.silence, "fine"], self.stored(case)
        assert loaded is not None
        picks_alone = Registration(genres=case.picks)
        rankings: dict[str, Callable[[], tuple[str, Ranking]]] = {
            "batch": lambda: (stored.model if stored else "", STORED),
            "no-model": lambda: ("none", Ranking((), (), "no-model")),
            "under-age": lambda: (loaded.id, loaded.rule.rank(picks_alone, "under-age")),
            "rule": lambda: (loaded.id, loaded.rule.rank(picks_alone, "rule")),
            "rule-arm": lambda: (loaded.id, loaded.rule.rank(picks_alone, "rule-arm")),
            "popular by the rule": lambda: (loaded.id, loaded.rule.rank(picks_alone, "popular")),
            "popular": lambda: (loaded.id, loaded.predictor.rank(case.registration, "popular")),
            "model": lambda: (loaded.id, loaded.predictor.rank(case.registration, "model")),
        }
        if source == "refused":
            return Answer("refused")
        model, ranking = rankings[source]()
        return Answer(ranking.source, model, ranking.genres, ranking.probabilities)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("matrix")
    made = World({}, {})
    for silence in (True, False):
        made.folders[silence] = folder / f"silence-{silence}"
        loaded = pack(made.folders[silence], knows_silence=silence)
        broken = replace(loaded, predictor=Broken(loaded.predictor.encoder))  # type: ignore[arg-type]
        made.bundles |= {(silence, "fine"): loaded, (silence, "failing"): broken, (silence, "absent"): None}
    return made


SOME = 5
"""Every fifth of thousands of cases has each combination of any three values: no dimension has five of them."""


@pytest.fixture(params=[SOME, pytest.param(1, marks=pytest.mark.soak)], ids=["some", "all"])
def step(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def cases(entry: str, step: int = 1) -> Iterator[Case]:
    """The cases that an entry point can express, or every `step`-th of them."""
    found = (case for case in CASES if not any(cannot(case) for _, cannot in CANNOT_EXPRESS[entry]))
    return islice(found, 0, None, step)


def check(world: World, answered: Iterator[tuple[Case, Answer]]) -> None:
    """Every answer is the expected one, as far as the entry point tells it."""
    counted: Counter[str] = Counter()
    for case, answer in answered:
        expected = world.expected(case)
        counted[expected.source] += 1
        told = Answer(*(of if is_told else type(of)() for of, is_told in zip(expected, answer, strict=True)))
        assert answer == told, case
    assert counted.keys() - {"refused"}


def parsed(body: bytes | bytearray | str) -> Answer:
    return _answer(json.loads(body))


def _answer(told: dict[str, Any]) -> Answer:
    genres = told["genres"]
    return Answer(
        told["source"],
        told["model"],
        tuple(one["genre"] for one in genres),
        tuple(one["probability"] for one in genres),
    )


# -------------------------------------------------------------------------------------------------------- the library


def test_decide(world: World) -> None:
    def answered() -> Iterator[tuple[Case, Answer]]:
        for case in cases("decide"):
            try:
                made = decide(case.registration, case.user, world.bundle(case), world.stored(case), case.settings)
            except Refusal as refusal:
                yield case, Answer("refused" if refusal.code == "under_age" else refusal.code)
                continue
            yield case, Answer(made.source, made.model, made.ranking.genres, made.ranking.probabilities)

    check(world, answered())


# --------------------------------------------------------------------------------------------------------------- HTTP


class Exposures:
    """An event store that remembers the exposures it is given."""

    def __init__(self) -> None:
        self.arms: list[str] = []

    def submit_exposures(self, exposures: Sequence[Any]) -> int:
        self.arms.extend(exposure.arm for exposure in exposures)
        return len(exposures)


class Service:
    """The app, with a lookup of stored answers and an experiment, as the settings of a case have it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._loop = asyncio.new_event_loop()
        self._apps: dict[object, App] = {}
        self._served = {key: ServedModel.of(loaded) for key, loaded in world.bundles.items()}
        self.exposures = Exposures()
        self._stored: StoredAnswer | None = None

    def app(self, case: Case) -> App:
        self._stored = self._world.stored(case)
        key = (case.min_age, case.refuses, case.stored_first, case.experiment, case.model == "absent")
        if key not in self._apps:
            ledger = ExposureLog(self.exposures, SECRET, lambda: NOW, HALVES)  # type: ignore[arg-type]
            self._apps[key] = new_app(
                policy=PolicySettings(case.min_age, case.refuses, case.stored_first),
                ledger=ledger if case.experiment else None,
                stored=UserLookups(lambda: self, lambda: 0, budget=30),
                without_model=True,
                further=lambda app, request: app.answered(request, self._named),
            )
        self._named = self.served(case)
        if case.model != "absent":
            self._apps[key].serve(self.served(case))
        return self._apps[key]

    def served(self, case: Case) -> ServedModel:
        return self._served[case.silence, case.model]

    def get(self, _user: str) -> StoredAnswer | None:
        """As the store of batch answers."""
        return self._stored

    def ask(self, case: Case, path: str, told: object) -> Reply:
        [reply] = self.app(case)([Request("POST", path, b"", {}, msgspec.json.encode(told))])
        return self.awaited(reply)

    def awaited(self, reply: Any) -> Reply:
        if isinstance(reply, Reply):
            return reply

        async def waiting() -> Reply:
            return await reply  # type: ignore[no-any-return]

        return self._loop.run_until_complete(waiting())

    def close(self) -> None:
        self._loop.close()


@pytest.fixture
def service(world: World) -> Iterator[Service]:
    made = Service(world)
    yield made
    made.close()


def fields(case: Case) -> dict[str, object]:
    told = msgspec.structs.asdict(case.registration)
    return told if case.user is None else told | {"user_id": case.user}


def read(reply: Reply) -> Answer:
    if reply.status == 403:
        assert json.loads(reply.body)["error"]["code"] == "under_age"
        return Answer("refused")
    assert reply.status == 200, reply.body
    return parsed(reply.body)


@pytest.mark.parametrize("path", ["/invocations", "/v1/recommendations"])
def test_one_over_http(world: World, service: Service, path: str, step: int) -> None:
    check(world, ((case, read(service.ask(case, path, fields(case)))) for case in cases(path, step)))


def test_a_user_of_the_experiment_is_recorded_with_the_arm_and_nobody_else_is(service: Service, step: int) -> None:
    for case in cases("/v1/recommendations", step):
        service.exposures.arms.clear()
        service.ask(case, "/v1/recommendations", fields(case))
        is_exposed = case.arm and not case.under_age and case.model != "absent"
        assert service.exposures.arms == ([case.arm] if is_exposed else []), case


def test_several_over_http_in_one_request_and_in_one_turn(world: World, service: Service, step: int) -> None:
    def answered() -> Iterator[tuple[Case, Answer]]:
        path = "/v1/recommendations"
        for _, together in groupby(sorted(cases(f"several at {path}", step), key=_served_alike), key=_served_alike):
            group = list(together)
            reply = service.ask(group[0], path, {"instances": [fields(case) for case in group]})
            yield from zip(group, map(_answer, json.loads(reply.body)["predictions"]), strict=True)
            bodies = [msgspec.json.encode(fields(case)) for case in group]
            replies = service.app(group[0])([Request("POST", path, b"", {}, body) for body in bodies])
            yield from zip(group, (read(service.awaited(reply)) for reply in replies), strict=True)

    check(world, answered())


def _served_alike(case: Case) -> tuple[object, ...]:
    return case[4:]


def test_one_that_is_refused_refuses_the_whole_request(world: World, service: Service) -> None:
    young = next(case for case in cases("/v1/recommendations") if world.expected(case).source == "refused")
    old = young._replace(age=ADULT)
    reply = service.ask(young, "/v1/recommendations", {"instances": [fields(old), fields(young)]})
    assert read(reply) == Answer("refused")


def test_one_of_many_models(world: World, service: Service, step: int) -> None:
    def answered() -> Iterator[tuple[Case, Answer]]:
        for case in cases("/models/NAME/invoke", step):
            yield case, read(service.ask(case, "/models/m/invoke", fields(case)))

    check(world, answered())


def test_explanations(world: World, service: Service, step: int) -> None:
    """Where the rule answers because the model fails there is no explanation; the genres explained are those shown."""
    for case in cases("/v1/explanations", step):
        reply, expected = service.ask(case, "/v1/explanations", fields(case)), world.expected(case)
        if expected.source == "rule":
            assert (reply.status, json.loads(reply.body)["error"]["code"]) == (503, "no_explanation"), case
            with pytest.raises(ModelFailed):
                explain(case.registration, world.bundle(case), case.settings)
        else:
            assert read(reply) == expected, case


# ------------------------------------------------------------------------------------------------- batch and terminal


@pytest.mark.parametrize("model", ["fine", "failing"])
def test_batch_scoring(world: World, model: str, tmp_path: Path) -> None:
    def answered() -> Iterator[tuple[Case, Answer]]:
        asked = sorted((case for case in cases("score") if case.model == model), key=_served_alike)
        for _, together in groupby(asked, key=_served_alike):
            group = list(together)
            rankings = scored(world, group, tmp_path) if model == "fine" else written(world, group)
            yield from ((case, Answer("", "", *ranking)) for case, ranking in zip(group, rankings, strict=True))

    check(world, answered())


def scored(world: World, group: list[Case], folder: Path) -> list[tuple[tuple[str, ...], tuple[float, ...]]]:
    """What `firstspin score` writes into a file."""
    table, out = folder / "registrations.csv", folder / "scores.csv"
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(("user_id", "registered_at", "age", "gender", "country", "genres"))
    for number, case in enumerate(group):
        told = case.registration
        writer.writerow((f"u{number}", "2026-01-01T00:00:00Z", told.age, told.gender, "", "|".join(told.genres)))
    table.write_text(rows.getvalue())
    at = datetime(2026, 11, 28, tzinfo=UTC)
    score(world.folders[group[0].silence], table, str(out), now=at, min_age=group[0].min_age)
    with out.open(newline="") as file:
        return [
            (tuple(row["genres"].split("|")), tuple(map(float, row["probabilities"].split("|"))))
            for row in csv.DictReader(file)
        ]


def written(world: World, group: list[Case]) -> list[tuple[tuple[str, ...], tuple[float, ...]]]:
    """The same where the model fails, which no bundle on a disk does."""
    rankings: list[Ranking] = []

    def sink(batches: Iterator[batch.Answers], /) -> None:
        rankings.extend(ranking for answers in batches for ranking in answers.rankings()[1])

    people = [columns([case.registration for case in group])]
    bundle = world.bundle(group[0])
    assert bundle is not None
    batch.write(sink, people, bundle, group[0].settings, None, lambda _: None)
    return [(ranking.genres, ranking.probabilities) for ranking in rankings]


def test_the_terminal(world: World) -> None:
    def answered() -> Iterator[tuple[Case, Answer]]:
        for case in cases("recommend in the terminal"):
            answer = answering.recommend(world.folders[case.silence], case.registration)
            yield case, parsed(msgspec.json.encode(answer))

    check(world, answered())


@pytest.mark.filterwarnings("ignore:'Polka' is not a genre")
@pytest.mark.filterwarnings("ignore:.* is no value that the model knows")
def test_recommend_in_python(world: World) -> None:
    def answered() -> Iterator[tuple[Case, Answer]]:
        for case in cases("recommend in Python"):
            bundle = world.bundle(case)
            assert bundle is not None
            answer = api.Recommender(bundle, min_age=case.min_age).recommend(msgspec.structs.asdict(case.registration))
            yield case, parsed(msgspec.json.encode(answer))

    check(world, answered())


# ---------------------------------------------------------------------------------------------------------- the Lambda


class ModelError(Exception):
    """As boto3 raises it where the endpoint's container answers an error."""

    def __init__(self, status: int, body: bytes) -> None:
        error = {"Code": "ModelError", "Message": "Received client error"}
        self.response = {"Error": error, "OriginalStatusCode": status, "OriginalMessage": body.decode()}


class Endpoint:
    """SageMaker's runtime with the service behind it, or an endpoint that is down."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.case: Case | None = None  # None: down

    def invoke_endpoint(self, *, Body: bytes, **_: Any) -> dict[str, Any]:
        if self.case is None:
            raise ConnectionError("the endpoint is down")
        [reply] = self.service.app(self.case)([Request("POST", "/invocations", b"", {}, Body)])
        made = self.service.awaited(reply)
        if made.status != 200:
            raise ModelError(made.status, bytes(made.body))
        return {"Body": io.BytesIO(made.body)}


class Lake:
    """Firehose, which remembers the arms of the exposures it is given."""

    def __init__(self) -> None:
        self.arms: list[str] = []

    def put_record_batch(self, *, DeliveryStreamName: str, Records: list[Record]) -> FirehoseReply:  # noqa: ARG002
        self.arms.extend(json.loads(record["Data"])["arm"] for record in Records)
        return {"RequestResponses": [{"RecordId": "1"} for _ in Records]}


@pytest.mark.parametrize("failing", ["the endpoint is down", "its model fails"])
@pytest.mark.parametrize("decides", ["the Lambda", "the endpoint"])
@pytest.mark.parametrize("entry", ["the Lambda", "/v1/recommendations of the Lambda"])
def test_the_lambda(world: World, service: Service, failing: str, decides: str, entry: str, step: int) -> None:
    """With the settings about age in Lambda and endpoint, or, where the endpoint is up, in the endpoint alone."""
    endpoint, lake = Endpoint(service), Lake()
    stream = ExposureStream(HALVES, SECRET, FirehoseSink(lake, {"exposures": "e"}, SCOPE), lambda: NOW)
    gateways: dict[object, Gateway] = {}

    def answered() -> Iterator[tuple[Case, Answer]]:
        for case in cases(entry, step):
            is_down = case.model == "failing" and failing == "the endpoint is down"
            if decides == "the endpoint" and is_down:
                continue
            endpoint.case = None if is_down else case._replace(user=None, stored="none", experiment=False)
            settings = PolicySettings(case.min_age, case.refuses and decides == "the Lambda")
            key = (settings.min_age, settings.refuse_under_age, case.silence, case.experiment)
            if key not in gateways:
                loaded = world.bundles[case.silence, "fine"]
                assert loaded is not None
                stored = UserLookups(lambda: store, lambda: 0, budget=30)
                exposures = stream if case.experiment else None
                gateways[key] = Gateway(
                    endpoint, "newcomers", loaded, BodyReader(), settings, stored, exposures, threads=AtOnce()
                )
            store.stored = world.stored(case)
            lake.arms.clear()
            reply = gateways[key](event(case, entry))
            yield case, read(Reply(reply["statusCode"], reply["body"].encode()))
            assert lake.arms == ([case.arm] if case.arm and not case.under_age else []), case

    def event(case: Case, entry: str) -> dict[str, Any]:
        if entry != "the Lambda":
            return rest(msgspec.json.encode(fields(case)).decode(), path="/v1/recommendations")
        headers = {"content-type": Encoding.json.value} | ({"x-firstspin-user": case.user} if case.user else {})
        return rest(msgspec.json.encode(case.registration).decode(), headers=headers)

    class Store:
        stored: StoredAnswer | None = None

        def get(self, _user: str) -> StoredAnswer | None:
            return self.stored

    store = Store()
    check(world, answered())
