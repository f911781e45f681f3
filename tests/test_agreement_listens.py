"""A registration with listens has one answer at every entry point; without listens it has the bits it always had."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import made_people
import made_tables
import msgspec
import numpy as np
import pytest
from command_line import failed, firstspin
from gateway_events import rest
from made_app import ask, new_app
from made_bundles import pack
from stand_in_runtime import endpoint

from firstspin.api import Recommender
from firstspin.aws.front.gateway import from_environment
from firstspin.models.evidence.scoring import Evidence, EvidenceSettings
from firstspin.records import Listen, Recommendation, Registration
from firstspin.service.app import App
from firstspin.service.process.worker import load
from firstspin.serving import bundle
from firstspin.serving.content import recommendation
from firstspin.serving.explanations import explain
from firstspin.serving.policy import DEFAULTS, PolicySettings, decide, decide_many

STATIONS = [str(i) for i in range(12)]  # of Blues, Jazz, Pop and Rock in turn
HEARD = [
    {"station_id": "1", "seconds": 300.0},
    {"station_id": "nowhere", "seconds": 9.0},
    {"station_id": "3", "skipped": True},
]
AS_TEXT = "1:300|nowhere:9|3:skipped"


@pytest.fixture(scope="module")
def app(folder: Path) -> App:
    made = new_app()
    made.serve(load(folder))
    return made


def drawn(rng: np.random.Generator) -> Registration:
    stations = map(str, rng.choice([*STATIONS, "nowhere"], rng.integers(0, 6)))
    skips, seconds = rng.random(6) < 0.3, rng.integers(1, 900, 6).astype(float)
    listens = tuple(
        Listen(station, None if skip else float(heard), bool(skip))
        for station, skip, heard in zip(stations, skips, seconds, strict=False)
    )
    picks = tuple(map(str, rng.permutation(made_people.GENRES)[: rng.integers(0, 3)]))
    age = int(rng.integers(5, 80)) if rng.random() < 0.5 else None
    return Registration(age=age, genres=picks, listens=listens)


@pytest.mark.parametrize("knows_silence", [True, False])
def test_one_by_one_and_in_a_batch(tmp_path: Path, knows_silence: bool) -> None:
    loaded = pack(tmp_path / "b", knows_silence=knows_silence)
    rng = np.random.default_rng(0)
    registrations = [drawn(rng) for _ in range(400)]
    alone = [decide(one, None, loaded, None, DEFAULTS) for one in registrations]
    assert alone == list(decide_many(registrations, None, loaded, DEFAULTS))
    moved = 0
    for one, decision in zip(registrations, alone, strict=True):
        form_only = decide(msgspec.structs.replace(one, listens=()), None, loaded, None, DEFAULTS)
        young = one.age is not None and one.age < DEFAULTS.min_age
        known = any(listen.station_id != "nowhere" for listen in one.listens)
        assert decision.moved == (known and not young)
        assert (decision.ranking == form_only.ranking) == (not decision.moved)
        assert decision.source == ("model" if decision.moved else form_only.source)
        moved += decision.moved
    assert moved > 200


def test_listens_move_towards_what_was_played_and_away_from_what_was_skipped(folder: Path) -> None:
    loaded = bundle.load(folder)

    def jazz(*listens: Listen) -> float:
        ranking = decide(Registration(listens=listens), None, loaded, None, DEFAULTS).ranking
        return dict(zip(ranking.genres, ranking.probabilities, strict=True))["Jazz"]

    by_number = [jazz(*[Listen("1", 600.0)] * n) for n in (0, 1, 2, 5)]
    assert by_number == sorted(set(by_number))
    assert jazz(Listen("1", skipped=True)) < jazz() < jazz(Listen("1", 5.0)) < jazz(Listen("1", 600.0))
    assert jazz(Listen("5", 600.0)) == jazz(Listen("1", 600.0))  # another station of the genre


def test_every_entry_point_gives_the_same_answer(
    app: App, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = bundle.load(folder)
    registration = Registration(genres=("Pop",), listens=tuple(msgspec.convert(HEARD, list[Listen])))
    decision = decide(registration, None, loaded, None, DEFAULTS)
    expected = as_json(recommendation(registration, decision, loaded))
    fields: dict[str, Any] = {"genres": ["Pop"], "listens": HEARD}
    body = json.dumps(fields).encode()
    of_user = json.dumps({"user_id": "7"} | fields).encode()
    assert decision.moved

    assert json.loads(ask(app, "POST", "/invocations", body).body) == expected
    assert json.loads(ask(app, "POST", "/v1/recommendations", of_user).body) == expected
    several = ask(app, "POST", "/invocations", b'{"instances":[' + body + b"," + body + b"]}")
    assert json.loads(several.body) == {"predictions": [expected] * 2}
    lines = ask(app, "POST", "/invocations", body + b"\n", content_type="application/jsonlines")
    assert json.loads(lines.body) == expected
    row = ask(app, "POST", "/invocations", f"genres,listens\nPop,{AS_TEXT}\n".encode(), content_type="text/csv")
    assert row.body.decode() == bundle_row(expected)

    with pytest.warns(UserWarning, match="'nowhere' is no station of this bundle"):
        assert as_json(Recommender(loaded).recommend(fields)) == expected
    with pytest.warns(UserWarning, match="'nowhere' is no station of this bundle"):
        assert as_json(Recommender(loaded).recommend(genres="Pop", listens=AS_TEXT)) == expected
    done = firstspin("recommend", "--bundle", folder, "--genres", "Pop", "--listens", AS_TEXT, "--json")
    assert json.loads(done.stdout) == expected

    with endpoint(lambda sent, _: bytes(ask(app, "POST", "/invocations", sent).body)) as runtime:
        keys = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_DEFAULT_REGION": "us-east-1"}
        for name, value in (keys | {"AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": runtime.url}).items():
            monkeypatch.setenv(name, value)
        gateway = from_environment(
            {"FIRSTSPIN_ENDPOINT": "newcomers", "FIRSTSPIN_BUNDLE": str(folder), "FIRSTSPIN_BUDGET": "60"}
        )
        assert json.loads(gateway(rest(body.decode()))["body"]) == expected
        to_users = rest(of_user.decode(), path="/v1/recommendations")
        assert json.loads(gateway(to_users)["body"]) == expected

    new = made_tables.write(tmp_path, "new", ("user_id", "genres"), [("7", "Pop"), ("8", "Pop")])
    listens = [("7", "2026-01-02T00:00:00Z", "1", 300), ("nobody", "2026-01-02T00:00:00Z", "2", 300)]
    heard = made_tables.write(tmp_path, "heard", made_tables.LISTENS, [*listens, *listens])  # copies count once
    firstspin("score", "--bundle", folder, "--registrations", new, "--listens", heard, "--out", tmp_path / "a.csv")
    played = Registration(genres=("Pop",), listens=(Listen("1", 300.0),))
    rows = (tmp_path / "a.csv").read_text().splitlines()[1:]
    for scored, one in zip(rows, (played, Registration(genres=("Pop",))), strict=True):
        ranking = decide(one, None, loaded, None, DEFAULTS).ranking
        assert scored.split(",")[1:] == ["|".join(ranking.genres), "|".join(map(repr, ranking.probabilities))]


def as_json(answer: Recommendation) -> Any:
    return json.loads(msgspec.json.encode(answer))


def bundle_row(answer: dict[str, Any]) -> str:
    genres = "|".join(one["genre"] for one in answer["genres"])
    return f"{genres},{'|'.join(repr(one['probability']) for one in answer['genres'])}\n"


def test_an_explanation_names_the_listens(folder: Path) -> None:
    loaded, rng = bundle.load(folder), np.random.default_rng(1)
    for one in [drawn(rng) for _ in range(30)]:
        explained, decision = explain(one, loaded), decide(one, None, loaded, None, DEFAULTS)
        shown = dict(zip(decision.ranking.genres, decision.ranking.probabilities, strict=True))
        for reason in explained.genres:
            assert ("listens" in reason.moved) == decision.moved
            assert reason.probability == pytest.approx(shown[reason.genre], abs=2e-6)
            assert reason.without_answers + sum(reason.moved.values()) == pytest.approx(reason.probability, abs=1e-5)


def test_listens_of_users_under_age_move_nothing(folder: Path) -> None:
    loaded, listens = bundle.load(folder), (Listen("1", 600.0),)
    young = Registration(age=9, genres=("Pop",))
    with_listens = msgspec.structs.replace(young, listens=listens)
    for settings in (DEFAULTS, PolicySettings(min_age=16, stored_first=True)):
        assert decide(with_listens, "7", loaded, None, settings) == decide(young, "7", loaded, None, settings)


BAD: dict[str, Any] = {
    "neither": [{"station_id": "17secret"}],
    "negative": [{"station_id": "17secret", "seconds": -5}],
    "zero": [{"station_id": "17secret", "seconds": 0}],
    "no station": [{"seconds": 5}],
    "number as station": [{"station_id": 17, "seconds": 5}],
    "empty station": [{"station_id": "", "seconds": 5}],
    "long station": [{"station_id": "17secret" * 99, "seconds": 5}],
    "more than a day": [{"station_id": "17secret", "seconds": 1e9}],
    "huge": [{"station_id": "17secret", "seconds": 1e308}],
    "a time": [{"station_id": "17secret", "seconds": 5, "at": "2999-01-01T00:00:00Z"}],
    "text": "17secret:180",
    "one": {"station_id": "17secret", "seconds": 5},
    "201": [{"station_id": "17secret", "seconds": 5}] * 201,
    "10,000": [{"station_id": "17secret", "seconds": 5}] * 10_000,
}


@pytest.mark.parametrize("what", BAD)
def test_bad_listens_are_refused_without_repeating_them(app: App, what: str) -> None:
    body = json.dumps({"listens": BAD[what]}).encode()
    for sent, kind in (
        (body, "application/json"),
        (b'{"instances":[' + body + b"]}", "application/json"),
        (body, "application/jsonlines"),
    ):
        reply = ask(app, "POST", "/invocations", sent, content_type=kind)
        assert reply.status == 422
        assert json.loads(reply.body)["error"]["code"] == "invalid"
        assert b"17secret" not in reply.body


@pytest.mark.parametrize(
    "cell", ["17secret", "17secret:", ":5", "17secret:-5", "17secret:5s", "|".join(["17secret:5"] * 201)]
)
def test_a_bad_cell_is_refused_in_csv_and_in_the_terminal(app: App, folder: Path, cell: str) -> None:
    reply = ask(app, "POST", "/invocations", f"age,listens\n31,{cell}\n".encode(), content_type="text/csv")
    assert reply.status == 422
    assert b"17secret" not in reply.body
    if cell == "17secret":
        assert "is not a list of listens such as 17:180|9:skipped" in failed(
            "recommend", "--bundle", folder, "--listens", cell
        )


def test_a_bundle_keeps_its_evidence_and_an_earlier_one_has_the_defaults(tmp_path: Path) -> None:
    earlier = pack(tmp_path / "earlier")
    assert earlier.manifest.evidence is None
    assert earlier.evidence.settings == EvidenceSettings()
    fitted = Evidence(
        earlier.predictor.genres, EvidenceSettings(0.0), earlier.evidence.log_ratios, {"of no carousel": 1}
    )
    bundle.save(
        tmp_path / "fitted",
        earlier.predictor,
        earlier.rule,
        earlier.catalogue,
        known_genres=earlier.manifest.known_genres,
        extra={},
        label={},
        data={},
        scorecard=None,
        evidence=fitted,
    )
    loaded = bundle.load(tmp_path / "fitted")
    assert loaded.evidence == fitted
    assert not decide(Registration(listens=(Listen("of no carousel", 600.0),)), None, loaded, None, DEFAULTS).moved


def test_listens_to_unknown_stations_are_counted(folder: Path) -> None:
    app = new_app()
    app.serve(load(folder))
    one, young = {"listens": HEARD}, {"age": 9, "listens": HEARD}
    ask(app, "POST", "/invocations", json.dumps(one).encode())
    ask(app, "POST", "/invocations", json.dumps({"instances": [one, {"age": 31}, young]}).encode())
    text = ask(app, "GET", "/metrics").body.decode()
    assert 'firstspin_listens_total{station="known"} 4.0' in text
    assert 'firstspin_listens_total{station="unknown"} 2.0' in text
