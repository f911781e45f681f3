"""Every door gives the same answer to the last bit, and refuses the same registrations.

The doors: the library, `score`, the container's /invocations in each encoding, the container as batch transform starts
it, /v1, and the Lambda in front of it.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import made_people
import msgspec
import pytest
from gateway_events import rest
from library import Recommender
from made_bundles import pack
from stand_in_runtime import endpoint
from training_job import ENTRYPOINT

from firstspin.aws.front.gateway import Gateway, from_environment
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
UNREADABLE = (b"", b"{", b'{"age": 3', b"\xff\xfe", b"[1, 2", b"{'age': 3}", b'{"gender": "\xe9"}')


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
    }
    return told | {"age": rng.choice(ODD_AGES)} if rng.random() < 0.125 else told


def is_good(told: dict[str, Any]) -> bool:
    return told["age"] not in ODD_AGES


def table(people: list[dict[str, Any]], header: bool = True) -> bytes:
    """As a body of CSV."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    if header:
        rows.writerow(("age", "gender", "country", "genres"))
    for told in people:
        rows.writerow(_cells(told))
    return out.getvalue().encode()


def _cells(told: dict[str, Any]) -> list[object]:
    known = ["" if told[name] is None else told[name] for name in ("age", "gender", "country")]
    return [*known, "|".join(told["genres"])]


def scored(packed: Path, people: list[dict[str, Any]], folder: Path) -> dict[str, tuple[list[str], list[str]]]:
    """What `score` answers, by the number of the person; those with bad rows are left out."""
    with (folder / "registrations.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("user_id", "registered_at", "age", "gender", "country", "genres"))
        for number, told in enumerate(people):
            rows.writerow((f"{number:07}", "2026-01-01T00:00:00Z", *_cells(told)))
    words = ["score", "--bundle", packed, "--registrations", folder / "registrations.csv", "--skip-bad-rows"]
    command = [sys.executable, "-m", "firstspin", *map(str, words), "--out", str(folder / "out.csv")]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
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
    assert list(in_batch.values()) == figures
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
    if isinstance(told, dict) and told.keys() == {"age", "gender", "country", "genres"}:
        assert open_doors.invoke(table([told], header=False), Encoding.csv).status == expected[0]


def unreadable_alike(open_doors: Doors, body: bytes) -> None:
    with pytest.raises(Refusal) as refusal:
        BodyReader().read(body, Encoding.json)
    answer = open_doors.invoke(body)
    assert (answer.status, answer.body) == (400, refusal.value.body())
    assert open_doors.through_lambda(body) == (400, refusal.value.body())
    assert open_doors.client.post("/v1/recommendations", Payload("application/json", body)).status == 400


def test_all_doors_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(tmp_path / "b")
    rng = random.Random(7)
    with doors(tmp_path / "b", tmp_path, monkeypatch) as open_doors:
        agree(open_doors, [told_by(rng) for _ in range(1_000)], tmp_path)
        for broken in BROKEN:
            refused_alike(open_doors, broken)
        for body in UNREADABLE:
            unreadable_alike(open_doors, body)


@pytest.mark.soak
@pytest.mark.parametrize("model", ["logistic", "lightgbm", "popularity"])
def test_all_doors_agree_for_100_000(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(tmp_path / "b", model)
    rng = random.Random(11)
    with doors(tmp_path / "b", tmp_path, monkeypatch) as open_doors:
        agree(open_doors, [told_by(rng) for _ in range(100_000)], tmp_path)
