"""Every door gives the same answer to the last bit, with listens and without, and refuses the same registrations.

The doors: the library, `score`, the Python API, the container's /invocations in each encoding, the container as batch
transform starts it, /v1, and the Lambda in front of it.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate, compress
from pathlib import Path
from typing import Any

import made_people
import made_tables
import msgspec
import pyarrow as pa
import pytest
from command_line import firstspin
from gateway_events import rest
from library import Recommender
from made_bundles import pack
from stand_in_runtime import endpoint
from training_job import ENTRYPOINT

from firstspin import api
from firstspin.aws.front.gateway import Gateway, from_environment
from firstspin.models.evidence.scoring import EvidenceSettings
from firstspin.records import Registration
from firstspin.serving import bundle
from firstspin.serving.bodies.encodings import Encoding
from firstspin.serving.bodies.limits import MAX_BODY_BYTES
from firstspin.serving.bodies.wire import BodyReader
from firstspin.serving.refusal import Refusal
from firstspin.tools.sagemaker_check import batch, lifecycle
from firstspin.tools.sagemaker_check.client import Answer, ContainerClient, ReadLimits
from firstspin.tools.sagemaker_check.payloads import Payload
from firstspin.tools.sagemaker_check.player import Target

PORTION = 2_000
STATIONS = (*map(str, range(12)), "nowhere")
FITTED = EvidenceSettings(weight=0.9, strength=6.0, saturation=45.0, picked=0.35)
PICKS = (*made_people.GENRES, "ROCK", " rock", "R&B, soul", 'the "real" thing', "日本の音楽", "Nobody's")
COUNTRIES = (None, "US", "se", "Côte d'Ivoire", "XX", "NA", "NULL")
GENDERS = (None, "female", "male", "Female ", "nonbinary, mostly", "other")
ODD_AGES = (-1, 121, 30.5, "thirty", "1e999", 10**19, "31 years")
BROKEN: tuple[Any, ...] = (
    [],
    "31",
    7,
    None,
    {"ages": 31},
    {"genres": "Rock"},
    {"gender": 1},
    {"age": True},
    {"age": "3"},
)
LISTEN: dict[str, Any] = {"station_id": "1", "seconds": 180}
BROKEN_LISTENS: tuple[Any, ...] = (
    "1:180",
    {"1": 180},
    LISTEN,
    [None],
    [[]],
    ["1"],
    [True],
    [LISTEN, {}],
    [{"seconds": 180}],
    [{"station_id": "1"}],
    *([LISTEN | {"station_id": station}] for station in (1, None, True, "", ["1"], "1" * 201)),
    *([LISTEN | {"seconds": seconds}] for seconds in (True, "180", [180], 0, -0.0, -5, 86_400.5, 1e308, 10**30)),
    [{"station_id": "1", "seconds": None}],
    [{"station_id": "1", "skipped": False}],
    *([LISTEN | {"skipped": skipped}] for skipped in (1, 0, "yes", None)),
    *([LISTEN | {"at": at}] for at in ("2999-01-01T00:00:00Z", "2026-01-01T00:00:00Z", None)),
    [LISTEN] * 201,
    [LISTEN] * 10_000,
)
UNREADABLE = (
    b"",
    b"{",
    b'{"age": 3',
    b"\xff\xfe",
    b"[1, 2",
    b"{'age': 3}",
    b'{"gender": "\xe9"}',
    *(b'{"listens": [{"station_id": "1", "seconds": %b}]}' % number for number in (b"NaN", b"Infinity", b"-Infinity")),
    b'{"listens": [{"station_id": "1", "seconds": 180}',
    b'{"listens": [{"station_id": "\xff", "seconds": 180}]}',
)


@dataclass(frozen=True)
class Doors:
    """The ones that are servers, and the bundle behind them all."""

    bundle: Path
    client: ContainerClient
    in_batch: ContainerClient
    gateway: Gateway

    def invoke(self, body: bytes, encoding: Encoding = Encoding.json) -> Answer:
        return self.client.invoke(Payload(encoding.value, body))

    def of_users(self, told: object) -> Answer:
        return self.client.post("/v1/recommendations", Payload("application/json", msgspec.json.encode(told)))

    def through_lambda(self, body: bytes, encoding: Encoding = Encoding.json) -> tuple[int, bytes]:
        event = rest("", headers={"content-type": encoding.value})
        answer = self.gateway(event | {"body": base64.b64encode(body).decode(), "isBase64Encoded": True})
        return answer["statusCode"], answer["body"].encode()


@contextmanager
def doors(packed: Path, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Doors]:
    """The container serving this bundle, and a Lambda in front of it."""
    image = Target(ENTRYPOINT, environment=os.environ, limits=ReadLimits(ready=60))
    with (
        lifecycle.serving(image, folder / "host", packed, {}) as host,
        lifecycle.serving(image, folder / "batch", packed, batch.VARIABLES) as transform,
    ):
        client, in_batch = host.client, transform.client
        assert client is not None, host.failure
        assert in_batch is not None, transform.failure
        with endpoint(lambda body, kind: client.invoke(Payload(kind, body)).body) as runtime:
            told = {
                "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": runtime.url,
                "AWS_ACCESS_KEY_ID": "none",
                "AWS_SECRET_ACCESS_KEY": "none",
                "AWS_DEFAULT_REGION": "us-east-1",
            }
            for name, value in told.items():
                patch.setenv(name, value)
            gateway = from_environment(
                {"FIRSTSPIN_ENDPOINT": "newcomers", "FIRSTSPIN_BUNDLE": str(packed), "FIRSTSPIN_BUDGET": "60"}
            )
            yield Doors(packed, client, in_batch, gateway)


def told_by(rng: random.Random) -> dict[str, Any]:
    """One in eight says something that is no registration."""
    told: dict[str, Any] = {
        "age": rng.choice((None, *range(5, 95))),
        "gender": rng.choice(GENDERS),
        "country": rng.choice(COUNTRIES),
        "genres": rng.sample(PICKS, rng.randint(0, 5)),
        "listens": [heard_by(rng) for _ in range(rng.choice((0, 0, 1, 2, 3, 9)))],
    }
    return told | {"age": rng.choice(ODD_AGES)} if rng.random() < 0.125 else told


def heard_by(rng: random.Random) -> dict[str, Any]:
    skipped = {"skipped": True} if rng.random() < 0.05 else {"seconds": rng.randrange(1, 9_000) / 4}
    return {"station_id": rng.choice(STATIONS)} | skipped


def is_good(told: dict[str, Any]) -> bool:
    return told["age"] not in ODD_AGES


def table(people: list[dict[str, Any]], header: bool = True) -> bytes:
    """As a body of CSV."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    if header:
        rows.writerow(("age", "gender", "country", "genres", "listens"))
    for told in people:
        rows.writerow([*_cells(told), "|".join(map(_listen, told["listens"]))])
    return out.getvalue().encode()


def _listen(listen: dict[str, Any]) -> str:
    return f"{listen['station_id']}:{'skipped' if 'skipped' in listen else listen['seconds']}"


def _cells(told: dict[str, Any]) -> list[object]:
    known = ["" if told[name] is None else told[name] for name in ("age", "gender", "country")]
    return [*known, "|".join(told["genres"])]


def tables_of(people: list[tuple[int, dict[str, Any]]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of registrations and of their listens; tables have no skips."""
    began = datetime(2026, 1, 1, tzinfo=UTC)
    registrations = [
        {"user_id": f"{n:07}", "registered_at": began, "age": None, **told, "listens": None} for n, told in people
    ]
    listens = [
        {"user_id": f"{n:07}", "started_at": began + timedelta(hours=nth)} | listen
        for n, told in people
        for nth, listen in enumerate(told["listens"])
        if "skipped" not in listen
    ]
    return registrations, listens


def has_no_skip(told: dict[str, Any]) -> bool:
    return not any("skipped" in listen for listen in told["listens"])


def by_the_api(packed: Path, good: list[tuple[int, dict[str, Any]]], answers: list[bytes]) -> None:
    """One by one, and as tables."""
    recommender = api.Recommender(packed)
    with warnings.catch_warnings(action="ignore"):  # of odd picks
        for (_, told), answer in zip(good, answers, strict=True):
            assert msgspec.json.encode(recommender.recommend(told)) == answer
        which = [at for at, (_, told) in enumerate(good) if has_no_skip(told)]
        registrations, listens = tables_of([good[at] for at in which])
        answered = recommender.score(pa.Table.from_pylist(registrations), listens=pa.Table.from_pylist(listens), top=99)
    figures = zip(answered["genres"].to_pylist(), answered["probabilities"].to_pylist(), strict=True)
    assert [(genres, list(map(repr, chances))) for genres, chances in figures] == [
        told_in_figures(answers[at]) for at in which
    ]


def scored(packed: Path, people: list[dict[str, Any]], folder: Path) -> dict[str, tuple[list[str], list[str]]]:
    """What `score` answers, by the number of the person; those with bad rows are left out."""
    _, listens = tables_of(list(enumerate(people)))
    columns = made_tables.LISTENS
    rows_of_listens = [
        [one["user_id"], one["started_at"].isoformat(), *(one[c] for c in columns[2:])] for one in listens
    ]
    heard = made_tables.write(folder, "heard", columns, rows_of_listens)
    with (folder / "registrations.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("user_id", "registered_at", "age", "gender", "country", "genres"))
        for number, told in enumerate(people):
            rows.writerow((f"{number:07}", "2026-01-01T00:00:00Z", *_cells(told)))
    words = ["score", "--bundle", packed, "--registrations", folder / "registrations.csv", "--listens", heard]
    done = firstspin(*words, "--skip-bad-rows", "--out", folder / "out.csv")
    assert done.returncode == 0, done.stderr
    with (folder / "out.csv").open(encoding="utf-8", newline="") as file:
        return {
            row["user_id"]: (row["genres"].split("|"), row["probabilities"].split("|")) for row in csv.DictReader(file)
        }


def told_in_figures(answer: bytes) -> tuple[list[str], list[str]]:
    """Genres and probabilities of an answer in JSON, as `score` writes them."""
    genres = json.loads(answer)["genres"]
    return [one["genre"] for one in genres], [repr(one["probability"]) for one in genres]


def joined(answers: list[bytes]) -> bytes:
    return b'{"predictions":[' + b",".join(answers) + b"]}"


def agree(open_doors: Doors, people: list[dict[str, Any]], folder: Path) -> None:
    good = [(number, told) for number, told in enumerate(people) if is_good(told)]
    recommender = Recommender(bundle.load(open_doors.bundle))
    by_library = [msgspec.json.encode(recommender.recommend(msgspec.convert(told, Registration))) for _, told in good]

    in_batch = scored(open_doors.bundle, people, folder)
    assert list(in_batch) == [f"{number:07}" for number, _ in good]
    figures = [told_in_figures(answer) for answer in by_library]
    known = [has_no_skip(told) for _, told in good]
    assert list(compress(in_batch.values(), known)) == list(compress(figures, known))
    by_the_api(open_doors.bundle, good, by_library)
    transformed(open_doors, [told for _, told in good], by_library)

    for start in range(0, len(good), PORTION):
        part, answers = good[start : start + PORTION], by_library[start : start + PORTION]
        alike(open_doors, part, answers, figures[start : start + PORTION])
    for _, told in [pair for pair in enumerate(people) if not is_good(pair[1])]:
        refused_alike(open_doors, told)


def transformed(open_doors: Doors, people: list[dict[str, Any]], answers: list[bytes]) -> None:
    """Batch transform sends as many as fit into a body."""
    start = 0
    while start < len(people):
        lines = [msgspec.json.encode(told) + b"\n" for told in people[start : start + 100_000]]
        fit = sum(total <= MAX_BODY_BYTES for total in accumulate(map(len, lines)))
        answer = open_doors.in_batch.invoke(Payload(Encoding.lines.value, b"".join(lines[:fit])))
        assert answer.body == b"".join(one + b"\n" for one in answers[start : start + fit])
        start += fit


def alike(open_doors: Doors, part: list[tuple[int, dict[str, Any]]], answers: list[bytes], figures: list[Any]) -> None:
    """Every server's door to a portion of good ones."""
    people = [told for _, told in part]
    body = msgspec.json.encode({"instances": people})
    assert open_doors.invoke(body).body == joined(answers)
    assert open_doors.through_lambda(body) == (200, joined(answers))
    lines = b"\n".join(map(msgspec.json.encode, people))
    assert open_doors.invoke(lines, Encoding.lines).body == b"".join(answer + b"\n" for answer in answers)
    rows = table(people)
    by_rows = open_doors.invoke(rows, Encoding.csv).body
    assert open_doors.through_lambda(rows, Encoding.csv) == (200, by_rows)
    cells = csv.reader(io.StringIO(by_rows.decode(), newline=""))
    assert [(genres.split("|"), chances.split("|")) for genres, chances in cells] == figures
    of_users = open_doors.of_users({"instances": [told | {"user_id": str(number)} for number, told in part]})
    assert of_users.body == joined(answers)


def refused_alike(open_doors: Doors, told: Any) -> None:
    """The same status and the same words at every door for one that is no registration."""
    body = msgspec.json.encode(told)
    with pytest.raises(Refusal) as refusal:
        BodyReader().read(body, Encoding.json)
    expected = (refusal.value.status, refusal.value.body())
    answer = open_doors.invoke(body)
    assert (answer.status, answer.body) == expected
    assert open_doors.through_lambda(body) == expected
    assert open_doors.invoke(body, Encoding.lines).status == expected[0]
    if isinstance(told, dict):
        assert open_doors.of_users(told | {"user_id": "u"}).status == expected[0]
    if isinstance(told, dict) and told.keys() == {"age", "gender", "country", "genres", "listens"}:
        assert open_doors.invoke(table([told], header=False), Encoding.csv).status == expected[0]


def unreadable_alike(open_doors: Doors, body: bytes) -> None:
    with pytest.raises(Refusal) as refusal:
        BodyReader().read(body, Encoding.json)
    answer = open_doors.invoke(body)
    assert (answer.status, answer.body) == (400, refusal.value.body())
    assert open_doors.through_lambda(body) == (400, refusal.value.body())
    assert open_doors.client.post("/v1/recommendations", Payload("application/json", body)).status == 400


def test_all_doors_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(tmp_path / "b", evidence=FITTED)
    rng = random.Random(7)
    with doors(tmp_path / "b", tmp_path, monkeypatch) as open_doors:
        agree(open_doors, [told_by(rng) for _ in range(1_000)], tmp_path)
        for broken in (*BROKEN, *({"listens": listens} for listens in BROKEN_LISTENS)):
            refused_alike(open_doors, broken)
        for body in UNREADABLE:
            unreadable_alike(open_doors, body)


@pytest.mark.soak
@pytest.mark.parametrize("model", ["logistic", "lightgbm", "popularity"])
def test_all_doors_agree_for_100_000(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(tmp_path / "b", model, evidence=FITTED)
    rng = random.Random(11)
    with doors(tmp_path / "b", tmp_path, monkeypatch) as open_doors:
        agree(open_doors, [told_by(rng) for _ in range(100_000)], tmp_path)
