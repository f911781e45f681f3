"""The app behind the socket: every path, every encoding, and an answer for everybody."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import made_people
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from library import Recommender
from made_app import Broken, ask, code, new_app

from firstspin.records import Registration, Station
from firstspin.service.app import App
from firstspin.service.http.messages import Reply, Request, Work
from firstspin.service.process.worker import load
from firstspin.service.served_model import ServedModel
from firstspin.serving import bundle
from firstspin.serving.bodies.encodings import Encoding
from firstspin.serving.bodies.limits import AT_ONCE
from firstspin.serving.bodies.wire import BodyReader
from firstspin.serving.explanations import explain
from firstspin.serving.policy import Decision
from firstspin.serving.responses import Responses
from firstspin.serving.stations import Catalogue


@pytest.fixture
def app(folder: Path) -> App:
    made = new_app()
    made.serve(load(folder))
    return made


# ----------------------------------------------------------------------------------------------------------- answering


def test_an_answer_is_what_the_recommender_gives_to_the_last_byte(app: App, folder: Path) -> None:
    recommender = Recommender(bundle.load(folder))
    for registration in made_people.examples(50, 3).registrations:
        expected = msgspec.json.encode(recommender.recommend(registration))
        assert ask(app, "POST", "/invocations", msgspec.json.encode(registration)).body == expected


def test_prepared_parts_say_the_same_as_the_slow_way(folder: Path) -> None:
    loaded = bundle.load(folder)
    genres = tuple(f"G{i}" for i in range(4)) + made_people.GENRES
    many = [(Station(f"{genre}-{i}", f'"{genre}" & {i}é', genre), float(i)) for genre in genres for i in range(9)]
    ranked = Recommender(
        bundle.Bundle(
            loaded.id,
            loaded.manifest,
            Six(loaded.predictor.encoder),  # type: ignore[arg-type]
            loaded.rule,
            Catalogue.of(many),
        )
    )
    answers = Responses(ranked.bundle)
    for picks in ((), ("G1",), ("G1", "G0"), ("Rock", "nothing known"), ("nothing known",)):
        registration = Registration(age=31, genres=picks)
        answer = answers.json(registration, ranked.decide(registration))
        assert answer == msgspec.json.encode(ranked.recommend(registration))


SIX = ("G1", "G0", "Rock", "G2", "Jazz", "G3")


@settings(max_examples=80, suppress_health_check=list(HealthCheck))
@given(
    listed=st.dictionaries(
        st.integers(0, 99).map(str), st.tuples(st.sampled_from(SIX), st.integers(0, 9)), min_size=0, max_size=99
    )
    | st.integers(8, 12).map(lambda n: {f"{genre}-{i}": (genre, i % 4) for genre in SIX for i in range(n)}),
    markets=st.dictionaries(st.integers(0, 99).map(str), st.sets(st.sampled_from(["SE", "de", "Ünion"]), max_size=2)),
    registration=st.builds(
        Registration,
        age=st.sampled_from([None, 9, 31]),
        country=st.sampled_from([None, "se", " SE", "DE", "ÜNION", "XX", ""]),
        genres=st.lists(st.sampled_from([*SIX, " Rock ", "unknown", ""]), max_size=3).map(tuple),
    ),
)
def test_whatever_the_catalogue_prepared_parts_say_the_same_as_the_slow_way(
    folder: Path,
    listed: dict[str, tuple[str, int]],
    markets: dict[str, set[str]],
    registration: Registration,
) -> None:
    loaded = bundle.load(folder)
    stations = [(Station(name, f'"{name}" é', genre), float(heard)) for name, (genre, heard) in listed.items()]
    some_of_each = {name: {"SE"} for name in listed if "-" in name and int(name.split("-")[1]) >= 8}
    ranked = Recommender(
        replace(
            loaded, predictor=Six(loaded.predictor.encoder), catalogue=Catalogue.of(stations, markets | some_of_each)
        )
    )
    answer = Responses(ranked.bundle).json(registration, ranked.decide(registration))
    assert answer == msgspec.json.encode(ranked.recommend(registration))


def test_a_catalogue_that_we_did_not_make_is_answered_from_all_the_same(folder: Path) -> None:
    station = Station("1", "One", "Rock")
    twice = Catalogue({"Rock": (station,), "Jazz": (station,)}, (station,))
    ranked = Recommender(replace(bundle.load(folder), catalogue=twice))
    registration = Registration(age=31, genres=("Rock",))
    decision = ranked.decide(registration)
    answers = Responses(ranked.bundle)
    assert answers.json(registration, decision) == msgspec.json.encode(ranked.recommend(registration))
    assert answers.stations(registration, {"model": decision.ranking}) == {"model": ["1"]}


class Six:
    """A predictor that likes six genres, whoever asks."""

    genres = SIX

    def __init__(self, encoder: object) -> None:
        self.encoder = encoder

    def rank_row(self, row: object, source: str, moves: object = None) -> Any:  # noqa: ARG002
        return bundle.Ranking(self.genres, (0.5, 0.25, 0.1, 1e-06, 0.0, 0.0), source)


def test_an_explanation_is_what_the_terminal_tells(app: App, folder: Path) -> None:
    told = Registration(age=31, country="DE", genres=("Rock", "Jazz"))
    expected = msgspec.json.encode(explain(told, bundle.load(folder)))
    reply = ask(app, "POST", "/v1/explanations", msgspec.json.encode(told))
    assert (reply.status, reply.body) == (200, expected)
    assert set(json.loads(reply.body)["genres"][0]["moved"]) == {"age", "country", "genres"}
    assert ask(app, "POST", "/v1/explanations", b'{"instances":[{}]}').status == 422
    assert ask(app, "POST", "/v1/explanations", b"31,,,", content_type="text/csv").status == 415


def test_who_can_not_explain_says_so(folder: Path) -> None:
    assert code(ask(new_app(), "POST", "/v1/explanations", b"{}")) == "no_model"
    answer = json.loads(ask(new_app(without_model=True), "POST", "/v1/explanations", b"{}").body)
    assert (answer["source"], answer["genres"]) == ("no-model", [])
    loaded = bundle.load(folder)
    broken = replace(loaded, predictor=Broken(loaded.predictor.encoder))
    app = new_app()
    app.serve(ServedModel.of(broken))
    assert code(ask(app, "POST", "/v1/explanations", b'{"age":31}')) == "no_explanation"


def test_an_answer_that_would_be_too_long_is_refused_as_soon_as_that_is_known(folder: Path) -> None:
    for people in (2, 40):
        asked = msgspec.json.encode({"instances": [{"age": 31}] * people})
        replies = []
        for room in (inf, 300 * people):
            app = new_app(max_answer_bytes=room)
            app.serve(load(folder))
            replies.append(ask(app, "POST", "/invocations", asked))
        assert (replies[0].status, len(replies[0].body) > 300 * people) == (200, True)
        assert (replies[1].status, code(replies[1])) == (413, "answer_too_large")


def test_several_are_answered_in_order_as_each_alone(app: App) -> None:
    people = made_people.examples(70, 5).registrations
    alone = [ask(app, "POST", "/invocations", msgspec.json.encode(person)).body for person in people]
    instances = msgspec.json.encode({"instances": people})
    assert msgspec.json.decode(ask(app, "POST", "/invocations", instances).body) == {
        "predictions": [msgspec.json.decode(body) for body in alone]
    }
    lines = b"\n".join(map(msgspec.json.encode, people))
    reply = ask(app, "POST", "/invocations", lines, content_type="application/x-ndjson")
    assert reply.body == b"".join(body + b"\n" for body in alone)
    assert reply.content_type == b"application/jsonlines"


def test_however_many_are_asked_about_one_turn_of_the_loop_answers_one_piece(folder: Path) -> None:
    serving = load(folder)
    turns = [0]

    class Counting(Responses):
        def encoded(self, registration: Registration, decision: Decision, encoding: Encoding) -> bytes:
            turns[-1] += 1
            return super().encoded(registration, decision, encoding)

    app = new_app()
    app.serve(replace(serving, responses=Counting(serving.bundle)))
    body = json.dumps({"instances": [{"age": 31}] * 100}).encode()

    async def all_answered() -> list[Reply]:
        asked = [Request("POST", "/invocations", b"", {}, body)] * 5
        work = asyncio.gather(*(reply for reply in app(asked) if isinstance(reply, Work)))
        while not work.done():
            turns.append(0)
            await asyncio.sleep(0)
        return await work

    replies = asyncio.run(all_answered())
    assert [len(json.loads(reply.body)["predictions"]) for reply in replies] == [100] * 5
    assert (sum(turns), max(turns)) == (500, AT_ONCE)


def test_csv_is_answered_in_csv_with_all_genres(app: App, folder: Path) -> None:
    ranking = Recommender(bundle.load(folder)).rank(Registration(age=31, genres=("Rock",)))
    reply = ask(app, "POST", "/invocations", b"31,,,Rock\n,,,\n", content_type="text/csv")
    first, second, end = reply.body.decode().split("\n")
    assert first == "|".join(ranking.genres) + "," + "|".join(map(repr, ranking.probabilities))
    assert sorted(second.split(",")[0].split("|")) == sorted(made_people.GENRES)
    assert end == ""


def test_cases_6_to_8_anyone_is_answered_and_source_says_by_what(app: App) -> None:
    asked: dict[str, dict[str, object]] = {
        "model": {"age": 31, "gender": "does not say", "country": "Atlantis", "genres": ["Polka", "Rock"]},
        "popular": {"gender": "x", "genres": ["Polka"]},
        "under-age": {"age": 12, "gender": "female", "genres": ["Rock"]},
    }
    for source, told in asked.items():
        answer = json.loads(ask(app, "POST", "/invocations", json.dumps(told).encode()).body)
        assert answer["source"] == source
        assert len(answer["genres"]) == 4
    assert json.loads(ask(app, "POST", "/invocations", b"{}").body)["source"] == "popular"
    child = json.loads(ask(app, "POST", "/invocations", b'{"age":0,"genres":["Rock"]}').body)
    assert child["genres"][0]["genre"] == "Rock"


def test_a_model_that_fails_is_replaced_by_the_rule_and_the_answer_says_so(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = bundle.load(folder)
    broken = bundle.Bundle(
        loaded.id,
        loaded.manifest,
        Broken(loaded.predictor.encoder),
        loaded.rule,
        loaded.catalogue,  # type: ignore[arg-type]
    )
    app = new_app()
    app.serve(ServedModel.of(broken))
    answer = json.loads(ask(app, "POST", "/invocations", b'{"age":31,"genres":["Rock"]}').body)
    assert (answer["source"], answer["genres"][0]["genre"]) == ("rule", "Rock")
    several = json.loads(ask(app, "POST", "/invocations", b'{"instances":[{"age":31},{"age":41}]}').body)
    assert [answer["source"] for answer in several["predictions"]] == ["rule", "rule"]
    assert [record.getMessage() for record in caplog.records] == ["the model failed; the business rule answers"]


def test_case_30_without_a_model_the_service_is_not_ready_unless_told_to_answer_all_the_same() -> None:
    waiting = new_app()
    assert ask(waiting, "GET", "/ping").status == 503
    reply = ask(waiting, "POST", "/invocations", b"{}")
    assert (reply.status, code(reply), reply.headers) == (503, "no_model", b"retry-after: 1\r\n")
    answering = new_app(without_model=True)
    assert ask(answering, "GET", "/ping").status == 200
    assert json.loads(ask(answering, "POST", "/invocations", b'{"age":31}').body)["source"] == "no-model"
    assert ask(answering, "POST", "/invocations", b"31,,,\n", content_type="text/csv").body == b",\n"


def test_the_answer_names_the_model(app: App, folder: Path) -> None:
    assert json.loads(ask(app, "POST", "/invocations", b"{}").body)["model"] == bundle.load(folder).id


def test_a_text_that_unicode_expands_is_answered_as_an_unknown_name_and_never_normalised(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    normalised: list[str] = []
    monkeypatch.setattr("firstspin.data.names.normal", lambda text: normalised.append(text) or text)
    bomb = "\ufdfa" * 197
    told = {"gender": bomb, "country": bomb, "genres": ["Rock", *(f"{bomb}{i}" for i in range(99))]}
    for path in ("/invocations", "/v1/explanations"):
        sent = ask(app, "POST", path, json.dumps(told).encode())
        plain = ask(app, "POST", path, b'{"gender":"?","country":"?","genres":["Rock","?"]}')
        assert (sent.status, sent.body) == (200, plain.body)
    assert set(normalised) <= {"?"}


TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
PICKS = st.lists(st.sampled_from(made_people.GENRES) | TEXT, max_size=8)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "age": st.none() | st.integers(0, 120),
    "gender": st.none() | st.sampled_from(["female", "male"]) | TEXT,
    "country": st.none() | st.sampled_from(["US", "DE"]) | TEXT,
    "genres": PICKS,
}


@pytest.mark.parametrize("mask", range(2 ** len(FIELDS)))
def test_every_subset_of_fields_is_answered_whatever_they_hold(folder: Path, mask: int) -> None:
    app = new_app()
    app.serve(load(folder))
    told = {name: values for bit, (name, values) in enumerate(FIELDS.items()) if mask >> bit & 1}

    @settings(max_examples=25, suppress_health_check=list(HealthCheck))
    @given(st.fixed_dictionaries(told))
    def answered(registration: dict[str, Any]) -> None:
        reply = ask(app, "POST", "/invocations", json.dumps(registration).encode())
        assert reply.status == 200
        answer = json.loads(reply.body)
        assert {genre["genre"] for genre in answer["genres"]} == set(made_people.GENRES)
        assert answer["source"] in ("model", "popular", "under-age")

    answered()


# ------------------------------------------------------------------------------------------------------------ refusing


def test_case_12_other_paths_are_404_and_other_methods_405_with_allow(app: App) -> None:
    assert code(ask(app, "GET", "/nowhere")) == "not_found"
    reply = ask(app, "GET", "/invocations")
    assert (reply.status, reply.headers) == (405, b"allow: POST\r\n")
    reply = ask(app, "DELETE", "/ping")
    assert (reply.status, reply.headers) == (405, b"allow: GET, HEAD\r\n")


def test_case_11_types_are_negotiated(app: App) -> None:
    assert ask(app, "POST", "/invocations", b"{}", content_type="text/plain").status == 415
    assert ask(app, "POST", "/invocations", b"{}", accept="text/html").status == 406
    assert ask(app, "POST", "/invocations", b"{}", accept="application/json;q=0.5, */*;q=0.1").status == 200


def test_a_browser_that_does_not_say_what_it_sends_is_refused(app: App) -> None:
    page = {"origin": "https://evil.example"}
    for path in ("/invocations", "/v1/recommendations"):
        body = b'{"user_id":"1"}' if path.startswith("/v1") else b"{}"
        assert ask(app, "POST", path, body).status == 200
        assert ask(app, "POST", path, body, **page).status == 415
        assert ask(app, "POST", path, body, **page, content_type="application/json").status == 200


def test_case_9_a_compressed_body_is_never_unpacked(app: App) -> None:
    assert (
        code(ask(app, "POST", "/invocations", b"\x1f\x8b", content_encoding="gzip")) == "unsupported_content_encoding"
    )


def test_a_mistake_of_ours_is_a_500_without_a_word_of_the_request(app: App) -> None:
    app.serve(ServedModel(None, None, BodyReader(), BodyReader()))  # type: ignore[arg-type]
    reply = ask(app, "POST", "/invocations", b'{"gender":"secret"}')
    assert (reply.status, code(reply)) == (500, "internal")
    assert b"secret" not in reply.body


# ------------------------------------------------------------------------------------------------------------ counting


def test_metrics_tell_requests_answers_and_latency(app: App) -> None:
    ask(app, "POST", "/invocations", b"{}")
    ask(app, "POST", "/invocations", b"{")
    ask(app, "GET", "/nowhere/with/any/name")
    text = ask(app, "GET", "/metrics").body.decode()
    assert 'firstspin_requests_total{route="/invocations",status="200"} 1.0' in text
    assert 'firstspin_requests_total{route="/invocations",status="400"} 1.0' in text
    assert 'firstspin_requests_total{route="other",status="404"} 1.0' in text
    assert 'firstspin_answers_total{source="popular"} 1.0' in text
    assert 'firstspin_latency_seconds_count{hop="whole"} 3.0' in text


def test_readiness_is_told_by_the_status_alone_as_sagemaker_asks(app: App) -> None:
    reply = ask(app, "GET", "/ping")
    assert (reply.status, reply.body) == (200, b"")


def test_draining_turns_readiness_off_and_goes_on_answering(app: App) -> None:
    app.draining = True
    assert ask(app, "GET", "/ping").status == 503
    assert ask(app, "POST", "/invocations", b"{}").status == 200
