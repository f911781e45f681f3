"""The form asks what the bundle in service can use; names are text, whatever they are."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import made_console
import made_people
import pytest
from made_app import ask, new_app
from made_bundles import pack
from msgspec import structs

from firstspin.models.evidence.scoring import EvidenceSettings
from firstspin.service.api_keys import Keys
from firstspin.service.app import App
from firstspin.service.pages import home
from firstspin.service.process.worker import load
from firstspin.serving.policy import PolicySettings


class Controls(HTMLParser):
    """The controls of the form by name, with their values or options; the texts and links of the page."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.values: dict[str, list[str]] = {}
        self.kinds: dict[str, str] = {}
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.name = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        if tag in ("input", "select") and "name" in attributes:
            self.name = attributes["name"]
            self.kinds[self.name] = attributes.get("type", tag)
        if tag in ("input", "option") and "value" in attributes:
            self.values.setdefault(self.name, []).append(attributes["value"])
        if tag == "a":
            self.links.append(attributes["href"])


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("console") / "b"
    made_console.pack(made)
    return made


def served(folder: Path, **options: object) -> App:
    app = new_app(**options)
    app.serve(load(folder))
    return app


def test_the_form_has_the_fields_and_the_answers_that_the_bundle_knows(packed: Path) -> None:
    form = Controls(ask(served(packed), "GET", "/").body)
    assert form.kinds == {
        "genres": "checkbox",
        "age": "number",
        "gender": "select",
        "country": "select",
        "device": "select",
        "visits": "number",
    }
    assert sorted(form.values["genres"]) == sorted((*made_console.NAMES, *made_console.FURTHER_GENRES))
    assert form.values["gender"] == ["", "female", "male"]
    assert form.values["country"] == ["", "DE", "US"]
    assert "img" not in form.tags
    assert [link for link in form.links if link.startswith("#age=19")] == ["#age=19"]


def test_a_question_that_no_training_user_answered_is_not_on_the_form(tmp_path: Path) -> None:
    people = made_people.examples(120)
    silent = tuple(structs.replace(one, age=None, country=None) for one in people.registrations)
    people = replace(people, registrations=silent)
    pack(tmp_path / "b", people=people)
    any_age = PolicySettings(min_age=0)
    page = Controls(ask(served(tmp_path / "b", policy=any_age), "GET", "/").body)
    assert page.kinds == {"genres": "checkbox"}
    assert [link for link in page.links if link.startswith("#")] == [
        "#content",
        *(f"#genres={one}" for one in ("Pop", "Rock", "Blues")),
    ]
    # The minimum age and the markets of stations change the response whatever the model knows.
    pack(tmp_path / "b", people=people, markets={"0": ("SE",), "1": ("Costa Rica",)})
    page = Controls(ask(served(tmp_path / "b"), "GET", "/").body)
    assert page.kinds == {"genres": "checkbox", "age": "number", "country": "select"}
    assert page.values["country"] == ["", "Costa Rica", "SE"]


def test_the_figures_of_the_scorecard_stand_with_their_intervals(packed: Path, folder: Path) -> None:
    page = re.sub(rb"<[^>]+>", b" ", ask(served(packed), "GET", "/").body).decode()
    assert re.search(r"80\.8%\s+± 1\.8\s+favourite in the top three", page)
    assert re.search(r"\+17\.7%\s+± 3\.1\s+over the business rule", page)
    assert b"top three" not in ask(served(folder), "GET", "/").body  # its bundle has no scorecard


def test_a_few_genres_are_shown_at_first_and_above_forty_there_is_a_search(packed: Path, folder: Path) -> None:
    many, few = ask(served(packed), "GET", "/").body, ask(served(folder), "GET", "/").body
    assert (many.count(b"data-further"), b'id="find"' in many) == (56, True)
    assert (few.count(b"data-further"), b'id="find"' in few) == (0, False)


def test_what_the_service_can_not_show_is_not_asked_for(folder: Path) -> None:
    assert b'data-explained="yes" data-challengers="no"' in ask(served(folder), "GET", "/").body
    keyed = ask(served(folder, keys=Keys(()), many_models=True), "GET", "/").body
    assert b'data-explained="no" data-challengers="yes"' in keyed
    assert b"under 13" in ask(served(folder), "GET", "/").body
    assert b"under " not in ask(served(folder, policy=PolicySettings(min_age=0)), "GET", "/").body
    assert b"No model yet" in ask(new_app(without_model=True), "GET", "/").body


def test_stations_can_be_played_where_listens_move_the_model(folder: Path, tmp_path: Path) -> None:
    assert b'data-listens="yes"' in ask(served(folder), "GET", "/").body
    pack(tmp_path / "b", evidence=EvidenceSettings(weight=0.0))
    assert b'data-listens="no"' in ask(served(tmp_path / "b"), "GET", "/").body


def test_the_page_follows_the_bundle_in_service(packed: Path, folder: Path) -> None:
    app = served(folder)
    assert b"Blues" in ask(app, "GET", "/").body
    app.serve(load(packed))
    assert b"Blues" not in ask(app, "GET", "/").body


def test_the_stations_are_cached_by_the_id_of_the_model(packed: Path, folder: Path) -> None:
    app = served(packed)
    reply = ask(app, "GET", "/stations.json")
    model = load(packed).responses.model
    listed = json.loads(reply.body)
    assert (listed["model"], len(listed["stations"])) == (model, 32)
    assert listed["stations"][0].keys() >= {"station_id", "name", "genre"}
    assert f'etag: "{model}"\r\ncache-control: no-cache'.encode() in reply.headers
    assert ask(app, "GET", "/stations.json", if_none_match=f'"{model}"').status == 304
    app.serve(load(folder))
    assert ask(app, "GET", "/stations.json", if_none_match=f'"{model}"').status == 200


@pytest.mark.parametrize(
    ("model", "made_of", "shown"),
    [
        ("auto", "0.20 popularity + 0.50 logistic + 0.30 lightgbm", "business rule, logistic and lightgbm"),
        ("auto", "0.20 business rule + 0.80 logistic", "business rule and logistic"),
        ("auto", "business rule", "business rule"),
        ("auto", "0.40 logistic + 0.60 network; trained on 524,288 random users of 1,000,000", "logistic and network"),
        ("auto", "0.40 logistic + 0.60 network; logistic tuned in 31 trials (penalty=9.0)", "logistic and network"),
        ("auto", "business rule; trained on 524,288 random users of 1,000,000", "business rule"),
        ("popularity", "", "business rule"),
        ("logistic", "", "logistic"),
    ],
)
def test_the_model_in_the_bar_is_named_as_in_tables(model: str, made_of: str, shown: str, tmp_path: Path) -> None:
    packed = pack(tmp_path / "b")
    part = structs.replace(packed.manifest.predictor, model=model, made_of=made_of)
    named = replace(packed, manifest=structs.replace(packed.manifest, predictor=part))
    assert re.search(rf" · {shown}( · |$)", home._facts(named))
