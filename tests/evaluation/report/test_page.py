"""The report shows the scorecard's figures, needs no network, and describes every chart for screen readers."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import date
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import made_people
import msgspec
import numpy as np
import pytest
from made_report import curve_of, fit, listens_curve_of, material, plain, silent

from firstspin import learn
from firstspin.evaluation import scorecard
from firstspin.evaluation.cross_validation import Protocol
from firstspin.evaluation.report import charts, model_card, page, patterns, people, quality, story
from firstspin.evaluation.report.parts import HeatMap, HtmlTable, Note, Picture
from firstspin.records import InputError, Registration

SECTIONS = ("ladder", "segments", "calibration", "questions", "labels", "listening", "picks", "answers", "model-card")


class Reader(HTMLParser):
    """What a page holds: anchors, pictures with their words, addresses, and tags left open."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: list[str] = []
        self.said: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.pictures = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append(tag)
        self.ids += [named["id"]] if named.get("id") else []
        self.anchors += [str(named["id"])] if tag == "section" else []
        if tag == "svg":
            self.pictures += 1
            self.said += [named["aria-label"]] if named.get("aria-label") and named.get("role") == "img" else []


@cache
def read() -> tuple[str, Reader]:
    html = plain()
    reader = Reader()
    reader.feed(html)
    return html, reader


def test_every_section_is_there_and_in_the_contents() -> None:
    html, reader = read()
    assert tuple(reader.anchors) == ("conclusion", *SECTIONS)
    assert all(f'href="#{name}"' in html for name in SECTIONS)


def test_the_business_rule_has_one_name() -> None:
    html, _ = read()
    assert ">business rule<" in html
    assert "popularity" not in html.replace("sorted by popularity", "")


def test_every_chart_has_a_description() -> None:
    _, reader = read()
    assert reader.pictures >= 14  # each drawn wide and narrow
    assert len(reader.said) == reader.pictures
    assert all(len(said) > 30 for said in reader.said)


def test_the_page_asks_the_network_for_nothing() -> None:
    html, reader = read()
    assert "http://" not in html
    assert "https://" not in html
    assert not {"script", "link", "img", "iframe", "image"} & set(reader.tags)
    assert not re.search(r"@import|url\((?!#)", html)


def test_the_only_style_is_the_one_allowed_by_its_hash() -> None:
    html, _ = read()
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert f"default-src 'none'; style-src '{page.style_hash(style)}'" in html
    assert page.style_hash("alert('Hello, world.');") == "sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng="  # MDN's
    assert " style=" not in html
    assert '<meta name="bundle" content="0badcafe">' in html


def test_numbers_have_a_true_minus() -> None:
    html, _ = read()
    assert not re.search(r">[^<]*(?<![\w-])-\d", html.partition("<main>")[2])


def test_ids_are_each_their_own() -> None:
    html, reader = read()
    assert len(reader.ids) == len(set(reader.ids))
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(reader.ids)


def test_titles_state_the_figures() -> None:
    html, _ = read()
    card = material().card
    assert f"{card.figures['logistic']['hit@3'].value:.1%}" in html
    assert "240 of 300 users" in html
    assert "made people, 1 February 2026" in html
    assert "simulated" in html


def test_curves_have_their_sections() -> None:
    with_curves = replace(material(), curve=curve_of(100, 200), listens=listens_curve_of(0, 5))
    reader = Reader()
    reader.feed(page.page(with_curves, silent))
    at = SECTIONS.index("questions") + 1
    assert tuple(reader.anchors) == ("conclusion", *SECTIONS[:at], "curve", "listens", *SECTIONS[at:])


def test_heat_maps_are_tables_with_the_values_on_hover() -> None:
    grid = patterns.Grid(("Pop", "Rock"), ("Jazz", "Folk"), np.array([[0.5, 0.25], [0.0, 1.0]]), (1200, 40))
    part = HeatMap("title", "text", "picked", "top genre", grid, "{:.0%}")
    drawn = page._coloured(part)
    assert [(name, people) for name, people, _ in drawn["cells"]] == [("Pop", "1,200"), ("Rock", "40")]
    assert [[cell["short"] for cell in cells] for _, _, cells in drawn["cells"]] == [["50", "25"], ["0", "100"]]
    assert [cell["strength"] for cell in drawn["cells"][0][2]] == [32, 16]
    html, _ = read()
    assert 'title="Rock, Rock: ' in html
    assert html.count('<th scope="col"><span>Rock</span></th>') >= 3
    assert html.count("<caption>") == html.count('class="heat"') >= 3


def test_a_negative_value_and_one_without_a_colour() -> None:
    grid = patterns.Grid(("a",), ("x", "y", "z"), np.array([[-0.2, 0.1, -0.0001]]), (60,))
    part = HeatMap("", "", "", "", grid, "{:+.0%}", coloured=np.array([[True, False, True]]))
    ((_, _, cells),) = page._coloured(part)["cells"]
    assert [(cell["text"], cell["kind"], cell["strength"]) for cell in cells] == [
        ("-20%", "d", 65),
        ("+10%", "u", 0),
        ("0%", "d", 0),
    ]


def test_the_charts_have_the_colours_of_the_page() -> None:
    html, _ = read()
    assert not re.search(r'<[^>]*(fill|stroke)="#(0b6e69|d4572a|24292f|000)"', html)
    used = set(re.findall(r"var\(--([a-z]+)\)", html)) - {"hue", "v"}
    assert all(f"--{name}:light-dark(" in html for name in used)


def test_words_from_the_tables_can_not_break_the_page() -> None:
    evil = replace(material().examples, genres=("<b>Blues</b>", "Jazz & Co", "Pop", 'Rock"'))
    html = page.page(replace(material(), examples=evil), silent)
    assert "<b>Blues" not in html


def test_without_answers_the_page_has_notes_in_place_of_charts() -> None:
    bare = replace(material().examples, registrations=(Registration(),) * 240)
    empty = patterns.Grid((), made_people.GENRES, np.empty((0, 4)), ())
    card = replace(material(known=False).card, questions=None, segments=[])
    html = page.page(replace(material(), examples=bare, answers=empty, card=card), silent)
    assert "There are no picks to compare" in html
    assert "The value of questions was not measured" in html
    assert "simulated" not in html


def test_picks_that_come_true_lie_on_the_diagonal() -> None:
    examples = made_people.examples(2000)
    grid = patterns.picked_and_played(examples)
    assert set(grid.rows) == set(made_people.GENRES)
    i, j = grid.rows.index("Rock"), grid.columns.index("Rock")
    pickers = [top for told, top in zip(examples.registrations, examples.tops, strict=True) if "Rock" in told.genres]
    assert grid.people[i] == len(pickers)
    assert grid.values[i, j] == pytest.approx(np.mean([made_people.GENRES[top] == "Rock" for top in pickers]))
    assert grid.values.sum(axis=1) == pytest.approx(np.ones(len(grid.rows)))


def test_picks_in_another_case_are_the_same_picks() -> None:
    examples = made_people.examples(400)
    small = tuple(replace_genres(told, [genre.lower() for genre in told.genres]) for told in examples.registrations)
    lower, predictor = replace(examples, registrations=small), fit("logistic", examples)
    for draw in (patterns.picked_and_played, lambda of: patterns.answers_and_genres(predictor, of)):
        assert (draw(lower).rows, draw(lower).people) == (draw(examples).rows, draw(examples).people)
        assert (draw(lower).values == draw(examples).values).all()


def replace_genres(told: Registration, genres: list[str]) -> Registration:
    return msgspec.structs.replace(told, genres=tuple(genres))


def test_the_mean_share_per_user_by_gender_leaves_out_small_groups() -> None:
    few = made_people.examples(45)
    told = [Registration(gender=g) for g in ["f"] * 20 + ["M"] * 10 + ["m"] * 6 + ["x"] * 9]
    examples = replace(few, registrations=tuple(told))
    grid = patterns.mean_shares(examples, patterns.genders(examples))
    assert grid.rows == ("f", "M")
    assert grid.people == (20, 16)
    rock = grid.columns.index("Rock")
    assert grid.values[0, rock] == pytest.approx(few.shares[:20, made_people.GENRES.index("Rock")].mean())


def test_effects_of_answers_are_relative_to_no_answers_and_the_mean_genre() -> None:
    examples = made_people.examples(400)
    predictor = fit("logistic", examples)
    grid = patterns.answers_and_genres(predictor, examples)
    scores = predictor.scores([Registration(), Registration(genres=("Rock",))])
    moved = scores[1] - scores[0]
    moved -= moved.mean()
    i = grid.rows.index("picked Rock")
    for genre, value in zip(grid.columns, grid.values[i], strict=True):
        assert value == pytest.approx(moved[predictor.genres.index(genre)])
    assert grid.columns[int(grid.values[i].argmax())] == "Rock"


def test_what_nobody_answered_is_no_input() -> None:
    facts = replace(material().manifest, asks=("age", "gender", "genres"))  # nobody of the made people gave a gender
    parts = model_card.section(replace(material(), manifest=facts)).parts
    (rows,) = (dict(part.rows) for part in parts if isinstance(part, HtmlTable))
    assert re.fullmatch(r"age \(\d+% answered\), genres \(\d+% answered\)", rows["Input"])
    assert rows["Never answered in these data"] == "gender"


def test_figures_of_another_model_than_the_bundles_are_marked() -> None:
    other = replace(material(), manifest=replace(material().manifest, model="auto"))
    rows = [
        dict(part.rows)["Evaluation"]
        for of in (material(), other)
        for part in model_card.section(of).parts
        if isinstance(part, HtmlTable)
    ]
    assert rows == ["2 folds, 240 users", "2 folds, 240 users; of logistic, not of this model"]


def test_charts_fit_the_width_they_are_drawn_for() -> None:
    for section in (*people.sections(material()), *quality.sections(material())):
        for part in section.parts:
            if isinstance(part, Picture):
                for width in (charts.WIDE, charts.NARROW):
                    drawn = charts.svg(part.draw(width), "x")
                    found = re.search(r'width="(\d+)"', drawn)
                    assert found is not None
                    assert int(found[1]) <= width + 1, (part.title, width)
            elif isinstance(part, HeatMap):
                assert part.grid.values.shape == (len(part.grid.rows), len(part.grid.columns))
            else:
                assert isinstance(part, Note) or part.rows


def test_report_takes_a_scorecard_of_the_same_users_only(tmp_path: Path) -> None:
    data = made_people.tables(tmp_path / "data", 80)
    learn.train(data, tmp_path / "b", "popularity")
    card, _ = learn.evaluate_models(data, ["logistic"], protocol=Protocol(folds=2))
    scorecard.write_scorecard(card, tmp_path / "card.json")
    written = date(2026, 2, 1)
    story.report(data, tmp_path / "b", tmp_path / "r.html", written=written, measured=tmp_path / "card.json")
    assert "80 of 80 users" in (tmp_path / "r.html").read_text()
    kept = json.loads((tmp_path / "card.json").read_text())
    kept["data"]["fingerprint"] = "of others"
    (tmp_path / "card.json").write_text(json.dumps(kept))
    with pytest.raises(InputError, match="is not about the users of these tables"):
        story.report(data, tmp_path / "b", tmp_path / "r2.html", written=written, measured=tmp_path / "card.json")
    assert not (tmp_path / "r2.html").exists()
