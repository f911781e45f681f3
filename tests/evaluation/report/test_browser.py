"""The report in a real browser: nothing is cut, requested or run, in light and dark, on a phone and on paper."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from made_browser import violations
from made_report import curve_of, material, silent
from playwright.sync_api import Browser, Page

from firstspin.evaluation.report import page
from firstspin.evaluation.report.parts import Material

HOSTILE = (
    '"><img src=https://x.example/i onerror=alert(1)>',
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft " * 2,
    '<script>alert(1)</script> {{ 7 * 7 }} split(datum.label, "")',
    "url(#x) id='y' fill=\"#0b6e69\" & \u202eright to left",
)
CUT = """() => [...document.querySelectorAll('body *')].filter(one => {
    const at = one.getBoundingClientRect()
    return at.width && !one.closest('.scroll') && at.right > innerWidth + 1
}).map(one => one.outerHTML.slice(0, 80))"""
OUTSIDE = """() => [...document.querySelectorAll('svg text')].filter(text => {
    const at = text.getBoundingClientRect(), chart = text.closest('svg').getBoundingClientRect()
    return chart.width && (at.left < chart.left - 1 || at.right > chart.right + 1)
}).map(text => text.textContent)"""


def hostile() -> Material:
    """The made people with hostile names of genres, countries and genders."""
    whole = material()
    names = dict(zip(whole.examples.genres, HOSTILE, strict=True))
    told = tuple(
        msgspec.structs.replace(
            one,
            country=HOSTILE[0] if one.country == "US" else HOSTILE[1],
            gender=HOSTILE[2 + i % 2],
            genres=tuple(names[genre] for genre in one.genres),
        )
        for i, one in enumerate(whole.examples.registrations)
    )
    rename = {"US": HOSTILE[0], "DE": HOSTILE[1]} | names
    segments = [replace(one, name=rename.get(one.name, one.name)) for one in whole.card.segments]
    confusion = whole.card.confusion and replace(whole.card.confusion, genres=HOSTILE)
    grid = replace(whole.answers, rows=tuple(f"picked {name}" for name in HOSTILE), columns=HOSTILE)
    grid = replace(grid, values=np.diag([3.0, 2.0, 1.0, -1.0]), people=(90,) * 4)
    examples = replace(whole.examples, registrations=told, genres=HOSTILE)
    card = replace(whole.card, segments=segments, confusion=confusion)
    curve = curve_of(90, 100, 110, 12_800)  # numbers that lie close together
    name = "<b>data</b> " + "x" * 120
    return replace(whole, examples=examples, card=card, answers=grid, name=name, curve=curve)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of hostile names."""
    path: Path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page.page(hostile(), silent), encoding="utf-8")
    return path


@pytest.fixture
def opened(request: pytest.FixtureRequest, browser: Browser, written: Path) -> Iterator[Page]:
    """The page at a width in a colour scheme; anything it requests, prints or runs fails the test."""
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
    shown = context.new_page()
    trouble: list[str] = []
    shown.on("request", lambda one: None if one.url == written.as_uri() else trouble.append(one.url))
    shown.on("console", lambda line: trouble.append(line.text))
    shown.on("dialog", lambda dialog: (trouble.append(dialog.message), dialog.dismiss()))
    shown.goto(written.as_uri())
    yield shown
    context.close()
    assert trouble == []


SCREENS = [(390, "light"), (390, "dark"), (820, "light"), (1280, "dark")]


@pytest.mark.parametrize("opened", SCREENS, ids=str, indirect=True)
def test_nothing_is_cut_and_nothing_runs(opened: Page) -> None:
    assert opened.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert opened.evaluate(CUT) == []
    assert opened.evaluate(OUTSIDE) == []
    text = opened.locator("main").inner_text()
    assert "<script>alert(1)</script>" in text
    assert "onerror=alert(1)" in text
    assert opened.locator("script, img, iframe").count() == 0


MORE = [pytest.param(screen, marks=pytest.mark.soak) for screen in SCREENS[1:3]]


@pytest.mark.parametrize("opened", [SCREENS[0], SCREENS[3], *MORE], ids=str, indirect=True)
def test_it_is_accessible(opened: Page) -> None:
    assert violations(opened) == []


def test_the_charts_follow_the_colour_scheme_of_the_reader_and_paper_is_light(browser: Browser, written: Path) -> None:
    shown = browser.new_page(color_scheme="dark")
    shown.goto(written.as_uri())
    colours = "() => ['body', 'svg.wide text', '.heat td'].map(of => getComputedStyle(document.querySelector(of)))"
    colours += ".map((of, i) => i == 1 ? of.fill : of.backgroundColor)"
    dark = shown.evaluate(colours)
    shown.emulate_media(color_scheme="light")
    light = shown.evaluate(colours)
    assert all(a != b for a, b in zip(dark[:2], light[:2], strict=True))
    shown.emulate_media(color_scheme="dark", media="print")
    assert shown.evaluate(colours)[:2] == light[:2]
    shown.close()


def test_on_a_phone_the_numbers_of_a_heat_map_are_shown_on_request(browser: Browser, written: Path) -> None:
    shown = browser.new_page(viewport={"width": 390, "height": 800})
    shown.goto(written.as_uri())
    size = "() => getComputedStyle(document.querySelector('.heat tbody td')).fontSize"
    assert shown.evaluate(size) == "0px"
    shown.locator(".show").first.click()
    assert float(shown.evaluate(size).removesuffix("px")) >= 9
    assert shown.evaluate("document.documentElement.scrollWidth") <= 390
    shown.close()
