"""A pick means its genre in any case, width, accent form and space, at every entry point."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from pathlib import Path

import made_people
import made_tables
import pytest
from made_app import ask, new_app
from made_bundles import pack

from firstspin import api
from firstspin.score import score
from firstspin.service.app import App
from firstspin.service.process.worker import load

GENRES = ("Caf\u00e9 del Mar", "Folk, World", "Jazz", "Strasse")
SPELLINGS = {
    "Jazz": ("jazz", "JAZZ", " jaZZ\t", "\uff2a\uff41\uff3a\uff5a", "\u00a0Jazz\u3000"),
    "Caf\u00e9 del Mar": (
        "CAF\u00c9 DEL MAR",
        "cafe\u0301 del mar",
        "Cafe\u0301\u00a0del   Mar",
        "caf\u00e9\u2003del\u2003mar",
    ),
    "Strasse": ("stra\u00dfe", "STRASSE", "STRA\u1e9eE"),
    "Folk, World": ("folk, world", "FOLK,  WORLD"),
}
CASES = [(genre, spelled) for genre, spellings in SPELLINGS.items() for spelled in spellings]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("known") / "b"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made_people, "GENRES", GENRES)
        pack(out)
    return out


@pytest.fixture(scope="module")
def app(known: Path) -> App:
    made = new_app()
    made.serve(load(known))
    return made


@pytest.fixture(scope="module")
def right(app: App) -> dict[str, bytes]:
    """The answer to each genre in its own spelling; they differ."""
    bodies = {genre: json.dumps({"genres": [genre], "age": 30}).encode() for genre in GENRES}
    answers = {genre: ask(app, "POST", "/invocations", body).body for genre, body in bodies.items()}
    assert len(set(answers.values())) == len(GENRES)
    return answers


@pytest.mark.parametrize(("genre", "spelled"), CASES)
def test_over_http_and_in_python(
    app: App, known: Path, right: dict[str, bytes], genre: str, spelled: str, caplog: pytest.LogCaptureFixture
) -> None:
    one = {"genres": [spelled], "age": 30}
    assert ask(app, "POST", "/invocations", json.dumps(one).encode()).body == right[genre]
    assert ask(app, "POST", "/v1/recommendations", json.dumps(one | {"user_id": "u"}).encode()).body == right[genre]
    several = ask(app, "POST", "/invocations", json.dumps({"instances": [one, one]}).encode()).body
    assert several == b'{"predictions":[' + right[genre] + b"," + right[genre] + b"]}"
    row = ask(app, "POST", "/invocations", f'age,genres\n30,"{spelled}"\n'.encode(), content_type="text/csv").body
    assert row.decode().split("|")[0].strip('"') == json.loads(right[genre])["genres"][0]["genre"]
    answer = api.Recommender(known).recommend(age=30, genres=[spelled])
    assert [one.genre for one in answer.genres] == [one["genre"] for one in json.loads(right[genre])["genres"]]
    assert not caplog.text


def test_in_tables(known: Path, right: dict[str, bytes], tmp_path: Path) -> None:
    rows = [(f"u{i}", "2026-01-01T00:00:00Z", "30", "", "", spelled) for i, (_, spelled) in enumerate(CASES)]
    table = made_tables.write(tmp_path, "new", made_tables.REGISTRATIONS, rows)
    _, ignored, unknown = score(known, table, str(tmp_path / "out.csv"), now=datetime(2026, 2, 1, tzinfo=UTC))
    assert (ignored, unknown) == ({}, [])
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        answers = [row["genres"].split("|") for row in csv.DictReader(file)]
    for (genre, _), answer in zip(CASES, answers, strict=True):
        assert answer == [one["genre"] for one in json.loads(right[genre])["genres"]]
