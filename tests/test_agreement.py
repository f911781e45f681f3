"""Batch and HTTP agree for every real listener, to the last bit."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from command_line import firstspin
from made_service import serving

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
PORTION = 200


def done(*words: object) -> None:
    ran = firstspin(*words)
    assert ran.returncode == 0, ran


@pytest.mark.parametrize("task", ["lastfm-2k", "lastfm-1k"])
@pytest.mark.parametrize("model", ["logistic"])
def test_score_and_invocations_agree_for_every_listener(task: str, model: str, tmp_path: Path) -> None:
    data = DATA / task
    if not data.is_dir():
        pytest.skip(f"no real listeners here: {data} is absent")
    done("train", "--data", data, "--model", model, "--out", tmp_path / "b")
    asked = data / "registrations.csv"
    done("score", "--bundle", tmp_path / "b", "--registrations", asked, "--out", tmp_path / "o.csv")
    with asked.open(encoding="utf-8") as file:
        bodies = [
            {
                "age": int(row["age"]) if row["age"] else None,
                "gender": row["gender"] or None,
                "country": row["country"] or None,
                "genres": row["genres"].split("|") if row["genres"] else [],
            }
            for row in csv.DictReader(file)
        ]
    with (tmp_path / "o.csv").open(encoding="utf-8") as file:
        scored = [(row["genres"].split("|"), row["probabilities"].split("|")) for row in csv.DictReader(file)]
    answered = []
    with serving(tmp_path / "b") as service:
        for start in range(0, len(bodies), PORTION):
            body = json.dumps({"instances": bodies[start : start + PORTION]}).encode()
            status, _, answer = service.ask("POST", "/invocations", body)
            assert status == 200
            answered += json.loads(answer)["predictions"]
    told = [
        ([genre["genre"] for genre in answer["genres"]], [repr(genre["probability"]) for genre in answer["genres"]])
        for answer in answered
    ]
    assert told == scored
