"""A newcomer's path through the page `/` in a real browser: taps, keyboard, a phone, both themes, hostile names."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import made_console
import made_report
import pytest
from made_browser import PHONE, WIDE, Look, looks, visiting
from made_experiments import PLAN, START, log
from made_service import Service, serving
from msgspec import structs
from playwright.sync_api import Browser, Page, expect

from firstspin.experiment.plan import freeze
from firstspin.service.pages.analysis import write_list, write_pages
from firstspin.serving.bundle import report_path


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder: Path = tmp_path_factory.mktemp("console")
    packed = made_console.pack(folder / "b")
    report_path(folder / "b").write_text(made_report.html(packed.id), encoding="utf-8")
    with serving(folder / "b", "--drain-delay", "0") as started:
        yield started


def shown_genres(page: Page) -> list[str]:
    return page.locator("#reasons .genre").all_text_contents()


def answered(page: Page, service: Service, registration: dict[str, object]) -> dict[str, Any]:
    """The service's own answer, which the page shows, sooner or later."""
    reply = service.ask("POST", "/invocations", json.dumps(registration).encode(), content_type="application/json")
    answer: dict[str, Any] = json.loads(reply[2])
    expect(page.locator("#reasons .genre")).to_have_text([one["genre"] for one in answer["genres"]])
    expect(page.locator("#message h2")).to_have_text(answer["message"]["title"])
    expect(page.locator("#carousels h2")).to_have_text([one["title"] for one in answer["carousels"]])
    return answer


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_each_tap_shows_the_services_own_answer(
    browser: Browser, service: Service, size: dict[str, int], theme: str
) -> None:
    with visiting(browser, service.port, viewport=size, color_scheme=theme) as visit:
        page = visit.open("/")
        answered(page, service, {})
        page.get_by_label(made_console.EMOJI, exact=True).check()
        answered(page, service, {"genres": [made_console.EMOJI]})
        page.get_by_label(made_console.ARABIC, exact=True).check()
        page.get_by_label("Age", exact=True).fill("52")
        page.get_by_label("Device").select_option("phone")
        registration = {"age": 52, "device": "phone", "genres": [made_console.EMOJI, made_console.ARABIC]}
        answer = answered(page, service, registration)
        if size is PHONE:
            page.get_by_role("button", name="Open").click()
        share = f"{100 * answer['genres'][0]['probability']:.0f}%"
        expect(page.locator("#reasons .share").first).to_have_text(share)
        expect(page.locator("#reasons .effects").first).to_contain_text("age")
        expect(page.locator("#rule .list li")).to_have_count(3)
        assert visit.violations() == []
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= size["width"]


def test_the_address_reproduces_the_newcomer_and_no_request_has_it(browser: Browser, service: Service) -> None:
    with visiting(browser, service.port, viewport=WIDE) as visit:
        page = visit.open("/")
        page.get_by_label(made_console.LONG, exact=True).check()
        page.get_by_label("Age", exact=True).fill("33")
        page.get_by_label("Gender").select_option("female")
        answer = answered(page, service, {"age": 33, "gender": "female", "genres": [made_console.LONG]})
        address = page.url
        assert urlsplit(address).fragment == urlencode({"age": 33, "gender": "female", "genres": made_console.LONG})
        page.goto("about:blank")
        page.goto(address)
        assert answered(page, service, {"age": 33, "gender": "female", "genres": [made_console.LONG]}) == answer
        expect(page.get_by_label("Gender")).to_have_value("female")
        page.get_by_role("link", name="19, no picks").click()
        answered(page, service, {"age": 19})
        assert not [url for url in visit.requests if "age" in url or "female" in url]


def test_a_link_in_the_spelling_of_the_data_fills_the_form(browser: Browser, service: Service) -> None:
    with visiting(browser, service.port, viewport=WIDE) as visit:
        given = [("gender", " Female"), ("country", "us"), ("device", "PHONE"), ("genres", "gENRE  07")]
        page = visit.open(f"/#{urlencode(given)}")
        understood = {"gender": "female", "country": "US", "device": "phone"}
        answered(page, service, understood | {"genres": ["Genre 07"]})
        for name, value in understood.items():
            expect(page.locator(f"[name={name}]")).to_have_value(value)
        expect(page.locator("[name=device] option:checked")).to_have_text("Phone")
        expect(page.get_by_label("Genre 07", exact=True)).to_be_checked()
        page.goto(f"{visit.base}/#device=bicycle")
        answered(page, service, {})
        expect(page.locator("[name=device]")).to_have_value("")


def test_the_whole_path_by_keyboard_alone(browser: Browser, service: Service) -> None:
    with visiting(browser, service.port, viewport=WIDE) as visit:
        page = visit.open("/")

        def tab_to(selector: str) -> None:
            for _ in range(80):
                page.keyboard.press("Tab")
                if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                    return
            raise AssertionError(f"{selector} is not reached by Tab")

        tab_to("#theme")
        page.keyboard.press("Enter")
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        tab_to("#find")
        page.keyboard.type("genre 07")
        expect(page.locator("#genres label:visible")).to_have_count(1)
        tab_to("[value='Genre 07']")
        page.keyboard.press("Space")
        answered(page, service, {"genres": ["Genre 07"]})
        tab_to("[name=age]")
        page.keyboard.type("61")
        tab_to("[name=gender]")
        page.keyboard.press("ArrowDown")
        answered(page, service, {"age": 61, "gender": "female", "genres": ["Genre 07"]})
        tab_to(".tiles")
        tab_to("#json")
        page.keyboard.press("Enter")
        expect(page.locator("#shown pre")).to_contain_text('"source": "model"')
        page.keyboard.press("Escape")
        expect(page.locator("#shown")).not_to_be_visible()


def share(page: Page, genre: str) -> int:
    """The percentage that stands beside the bar of a genre."""
    return int(
        page.locator(f"#reasons li[data-key={json.dumps(genre, ensure_ascii=False)}] .share").text_content().strip("<%")
        or 0
    )


@pytest.mark.parametrize(("size", "theme"), [(WIDE, "light"), ({"width": 390, "height": 844}, "dark")])
def test_play_and_skip_move_the_bars(browser: Browser, service: Service, size: dict[str, int], theme: str) -> None:
    with visiting(browser, service.port, viewport=size, color_scheme=theme) as visit:
        page = visit.open("/")
        alone = answered(page, service, {})
        expect(page.locator("#heard span")).to_have_text("Play or skip a station: the ranking moves.")
        genre, station = made_console.EMOJI, alone["carousels"][2]["station_ids"][0]
        [number] = [place for place, name in enumerate(made_console.NAMES) if station.startswith(f"{place}<")]
        genre = made_console.NAMES[number]
        before = share(page, genre)
        play = page.locator(f".tile[data-key={json.dumps(station)}] button").first
        assert str(play.get_attribute("aria-label")).startswith("Play ")
        listens: list[dict[str, object]] = [{"station_id": station, "seconds": 180}]
        play.click()
        answer = answered(page, service, {"listens": listens})
        assert share(page, genre) > before
        assert answer["source"] == "model"
        play.click()
        other = answer["carousels"][0]["station_ids"][1]
        page.locator(f".tile[data-key={json.dumps(other)}] button").last.click()
        listens += [*listens, {"station_id": other, "skipped": True}]
        answered(page, service, {"listens": listens})
        expect(page.locator("#heard span")).to_have_text("2 played, 1 skipped")
        expect(page.locator("#spoken")).to_contain_text("Skipped ")
        expect(page.locator(f".tile[data-key={json.dumps(station)}]")).to_have_attribute("data-heard", "played")
        assert page.locator("#spoken").get_attribute("role") == "status"
        assert visit.violations() == []
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        sizes = page.locator(".hear button").evaluate_all("all => all.map(one => [one.offsetWidth, one.offsetHeight])")
        assert min(min(one) for one in sizes) >= 24  # WCAG 2.2, 2.5.8
        address = page.url
        page.goto("about:blank")
        page.goto(address)
        answered(page, service, {"listens": listens})
        page.get_by_role("button", name="Forget").click()
        assert answered(page, service, {}) == alone
        expect(page.get_by_role("button", name="Forget")).not_to_be_visible()
        expect(page.locator(":focus")).to_have_count(1)
        assert not [url for url in visit.requests if "listens" in url]


def test_listens_by_keyboard(browser: Browser, service: Service) -> None:
    with visiting(browser, service.port, viewport=WIDE) as visit:
        page = visit.open("/")
        alone = answered(page, service, {})
        expect(page.locator(".hear [tabindex='0']")).to_have_count(2 * len(alone["carousels"]))
        page.locator(".carousel").nth(2).locator("button").first.focus()
        page.keyboard.press("ArrowRight")
        ids = alone["carousels"][2]["station_ids"]
        listens: list[dict[str, object]] = []
        for key in ("Enter", "Space", "Enter"):  # the carousel rises, and the focus with it
            page.keyboard.press(key)
            listens.append({"station_id": ids[1], "seconds": 180})
            answered(page, service, {"listens": listens})
            focused = page.locator(":focus")
            expect(focused).to_have_attribute("aria-label", re.compile("^Play "))
            assert focused.evaluate("one => one.closest('.tile').dataset.key") == ids[1]
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        listens.append({"station_id": ids[1], "skipped": True})
        answered(page, service, {"listens": listens})


def test_listens_of_users_under_age_change_nothing(browser: Browser, service: Service) -> None:
    with visiting(browser, service.port, viewport=WIDE) as visit:
        refused = ["nonsense", "skipped:", "0:1", "86401:1", "9" * 400 + ":1", "180:" + "x" * 201]
        page = visit.open(f"/#age=12&listens=180%3A0%3C%26%3E0&{urlencode([('listens', one) for one in refused])}")
        young = answered(page, service, {"age": 12})
        assert answered(page, service, {"age": 12, "listens": [{"station_id": "0<&>0", "seconds": 180}]}) == young
        expect(page.locator("#heard")).not_to_be_visible()
        expect(page.locator(".hear").first).not_to_be_visible()
        page.get_by_label("Age", exact=True).fill("31")
        answered(page, service, {"age": 31, "listens": [{"station_id": "0<&>0", "seconds": 180}]})
        expect(page.locator("#heard span")).to_have_text("1 played, 0 skipped")


def test_hostile_names_are_text_in_their_own_direction(browser: Browser, service: Service) -> None:
    with visiting(browser, service.port, viewport=PHONE) as visit:
        page = visit.open(f"/#{urlencode([('genres', name) for name in made_console.NAMES])}")
        expect(page.locator("#carousels section")).to_have_count(4)
        titles = page.locator("#carousels h2").all_text_contents()
        assert sorted(titles) == sorted(f"Because you picked {name}" for name in made_console.NAMES)
        assert page.locator("#carousels img").count() == 0
        assert page.title() == "Try it · firstspin"
        arabic = page.locator(".tile span", has_text=made_console.ARABIC).first
        assert arabic.evaluate("tile => getComputedStyle(tile).direction") == "rtl"
        assert page.locator(".art text", has_text="🎷").count() > 0
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_what_is_under_age_or_out_of_range_is_said(browser: Browser, service: Service) -> None:
    with visiting(browser, service.port, viewport=WIDE) as visit:
        page = visit.open("/")
        page.get_by_label("Age", exact=True).fill("12")
        expect(page.locator("#note")).to_contain_text("age and gender are not used")
        answered(page, service, {"age": 12})
        page.get_by_label("Age", exact=True).fill("1234")
        expect(page.get_by_label("Age", exact=True)).to_have_attribute("aria-invalid", "")
        answered(page, service, {})


def test_while_the_service_is_away_the_page_says_so_and_goes_on_by_itself(browser: Browser, service: Service) -> None:
    context = browser.new_context(viewport=WIDE)
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{service.port}/")
    answered(page, service, {})
    context.route("**/invocations", lambda route: route.abort())
    page.get_by_label("Age", exact=True).fill("40")
    expect(page.locator("#problem")).to_contain_text("The service does not answer")
    context.unroute("**/invocations")
    answered(page, service, {"age": 40})
    expect(page.locator("#problem")).not_to_be_visible()
    context.close()


def test_the_curl_command_repeats_the_request(browser: Browser, service: Service) -> None:
    with visiting(browser, service.port, viewport=WIDE, permissions=["clipboard-read", "clipboard-write"]) as visit:
        page = visit.open("/")
        page.get_by_label(made_console.EMOJI, exact=True).check()
        answered(page, service, {"genres": [made_console.EMOJI]})
        page.get_by_role("button", name="Copy as curl").click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        command = page.evaluate("navigator.clipboard.readText()")
        body = json.dumps({"genres": [made_console.EMOJI]}, ensure_ascii=False, separators=(",", ":"))
        quoted = body.replace("'", "'\\''")
        assert command == (
            f"curl -H 'content-type: application/json' -d '{quoted}' http://127.0.0.1:{service.port}/invocations"
        )


def test_the_page_is_light_and_reads_without_javascript(browser: Browser, service: Service) -> None:
    with visiting(browser, service.port, viewport=WIDE) as visit:
        sizes: dict[str, int] = {}
        visit.page.on("response", lambda reply: sizes.update({reply.url: len(reply.body())}))
        page = visit.open("/")
        answered(page, service, {})
        page.wait_for_load_state("networkidle")
        assert sum(sizes.values()) < 150_000
        assert sum(size for url, size in sizes.items() if url.endswith(".js")) < 40_000
    with visiting(browser, service.port, viewport=WIDE, java_script_enabled=False) as visit:
        visit.page.goto(visit.base)
        expect(visit.page.get_by_label(made_console.HTML, exact=True)).to_be_attached()
        expect(visit.page.get_by_text("80.8%")).to_be_visible()
        expect(visit.page.get_by_text("In a terminal:")).to_be_visible()


@pytest.mark.parametrize(("size", "theme"), [(WIDE, "light"), (PHONE, "dark")], ids=["wide", "phone"])
def test_the_study_is_read_in_the_look_of_the_service(
    browser: Browser, service: Service, size: dict[str, int], theme: str
) -> None:
    with visiting(browser, service.port, viewport=size, color_scheme=theme) as visit:
        visit.page.goto(f"{visit.base}/")
        with visit.page.expect_response("**/report") as reply:
            visit.page.get_by_role("link", name="Study").click()
        assert reply.value.request.sizes()["responseBodySize"] < 100_000
        expect(visit.page.locator("h1")).to_have_text("Recommendations for new users: evaluation report")
        assert visit.violations() == []
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        card = visit.page.locator("#conclusion")
        before = card.evaluate("card => getComputedStyle(card).backgroundColor")
        visit.page.locator("#theme").click()
        assert card.evaluate("card => getComputedStyle(card).backgroundColor") != before


def test_motion_shows_what_moved_unless_less_motion_is_preferred(browser: Browser, service: Service) -> None:
    counting = (
        "window.moves = 0; const animate = Element.prototype.animate; Element.prototype.animate = function (...how)"
    )
    counting += " { window.moves += 1; return animate.apply(this, how); };"
    moves = {}
    for motion in ("no-preference", "reduce"):
        context = browser.new_context(viewport=WIDE, reduced_motion=motion)  # type: ignore[arg-type]
        context.add_init_script(counting)
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{service.port}/")
        answered(page, service, {})
        for genre in (made_console.LONG, made_console.EMOJI, made_console.HTML):
            page.goto(f"http://127.0.0.1:{service.port}/#{urlencode({'age': 20, 'genres': genre})}")
            answered(page, service, {"age": 20, "genres": [genre]})
        moves[motion] = page.evaluate("window.moves")
        context.close()
    assert moves["no-preference"] > 0
    assert moves["reduce"] == 0


def test_another_model_that_is_loaded_is_shown_beside_it(browser: Browser, tmp_path: Path, folder: Path) -> None:
    (tmp_path / "models").mkdir()
    shutil.copytree(folder, tmp_path / "models" / "other")
    options = ("--models", str(tmp_path / "models"), "--state", str(tmp_path / "state"), "--drain-delay", "0")
    with serving(folder, *options) as service:
        url = json.dumps({"model_name": "other <1>", "url": str(tmp_path / "models" / "other")}).encode()
        assert service.ask("POST", "/models", url, content_type="application/json")[0] == 200
        with visiting(browser, service.port, viewport=WIDE) as visit:
            page = visit.open("/#age=50&genres=Rock")
            expect(page.locator("#challenger .list li")).to_have_count(3)
            expect(page.locator("#model")).to_have_value("other <1>")
            expect(page.locator("#challenger .caption")).to_have_text("3 of 3 are the same as above.")
            page.get_by_label("Blues", exact=True).check()
            expect(page.locator("#challenger .list li")).to_have_count(3)
            assert visit.violations() == []


@pytest.fixture(scope="module")
def shadowed(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a challenger, which ranks by the business rule alone."""
    folder: Path = tmp_path_factory.mktemp("shadowed")
    made_console.pack(folder / "new", models=("popularity", "popularity"))
    shadow = ("--shadow", str(folder / "new"), "--shadow-share", "1", "--admin-port", "0")
    with serving(service.bundle, *shadow, "--drain-delay", "0") as started:
        yield started


def beside(page: Page, service: Service, registration: dict[str, object]) -> None:
    """The table has both services' own answers to the registration, sooner or later."""
    body = json.dumps(registration).encode()
    both = [
        json.loads(service.ask("POST", path, body, content_type="application/json")[2])
        for path in ("/invocations", "/challenger")
    ]
    expect(page.locator("#beside code")).to_have_text([answer["model"] for answer in both])
    genres, rows = page.locator("#beside tbody").first, page.locator("#beside tbody").last
    for column, answer in enumerate(both):
        first = answer["genres"][:5]
        cells = genres.locator(f"td:nth-child({column + 2})")
        expect(cells.locator(".genre")).to_have_text([one["genre"] for one in first])
        shares = [one["probability"] for one in first]
        expect(cells.locator(".share")).to_have_text([f"{100 * p:.0f}%" if p >= 0.005 else "<1%" for p in shares])
        titles = [one["title"] for one in answer["carousels"]]
        expect(rows.locator(f"td:nth-child({column + 2}) .genre")).to_have_text(titles)
    same = {one["genre"] for one in both[0]["genres"][:3]} & {one["genre"] for one in both[1]["genres"][:3]}
    expect(page.locator("#beside .caption")).to_contain_text(f"{len(same)} of the first 3 are the same.")


@pytest.mark.parametrize("looks", looks(390, 768, 1440), ids=["some", "all"])
def test_champion_and_challenger_answer_side_by_side(browser: Browser, shadowed: Service, looks: list[Look]) -> None:
    with visiting(browser, shadowed.port, viewport={"width": 390, "height": 900}) as visit:
        page = visit.open("/#age=52&genres=Genre+07")
        page.locator("#pull").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#beside")).to_be_visible(timeout=20_000)  # the process that scores is started
        beside(page, shadowed, {"age": 52, "genres": ["Genre 07"]})
        page.get_by_role("link", name="19, no picks").press("Enter")
        beside(page, shadowed, {"age": 19})
        page.goto(f"{visit.base}/#{urlencode({'age': 12, 'genres': made_console.ARABIC})}")  # under the minimum age
        beside(page, shadowed, {"age": 12, "genres": [made_console.ARABIC]})
        page.goto(f"{visit.base}/#genres={urlencode({'': made_console.LONG})[1:]}")
        beside(page, shadowed, {"genres": [made_console.LONG]})
        expect(page.locator("#beside")).not_to_have_attribute("aria-busy", "true")
        for width, theme in looks:
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=theme)
            assert visit.violations() == [], (width, theme)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            table = page.locator("#beside table")
            assert table.evaluate("table => table.scrollWidth <= table.parentElement.clientWidth")
        assert not [url for url in visit.requests if "age" in url or "Genre" in url]


@pytest.mark.parametrize("looks", looks(390, 768, 1440), ids=["some", "all"])
def test_operations_have_the_facts_of_both(browser: Browser, shadowed: Service, looks: list[Look]) -> None:
    port = int(next(line["port"] for line in shadowed.lines() if line["event"] == "admin port"))
    shadowed.recommend(age=31)
    models = [json.loads(shadowed.ask("POST", path, b"{}")[2])["model"] for path in ("/invocations", "/challenger")]
    with visiting(browser, port, viewport={"width": 390, "height": 900}) as visit:
        page = visit.open("/ops", "[data-panel=status] time")
        panel = page.locator("[data-panel=shadow]")
        expect(panel.locator("tbody tr").first).to_contain_text("".join(models), timeout=20_000)
        expect(panel.locator("tbody tr").nth(1)).to_contain_text("12 Feb 202612 Feb 2026")
        expect(panel.locator("tbody tr").nth(3)).to_contain_text(".808 ±.018.808 ±.018")
        for width, theme in looks:
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=theme)
            assert visit.violations() == [], (width, theme)
            assert panel.evaluate("panel => panel.scrollWidth <= panel.clientWidth"), width


def test_without_a_challenger_its_table_is_not_there(browser: Browser, service: Service) -> None:
    with visiting(browser, service.port, viewport=WIDE) as visit:
        page = visit.open("/")
        answered(page, service, {})
        expect(page.locator("#rule .list li")).to_have_count(3)
        expect(page.locator("#beside")).not_to_be_visible()
        assert not [url for url in visit.requests if url.endswith("/challenger")]


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Service]:
    """A service with pages of experiments in several states."""
    work: Path = tmp_path_factory.mktemp("experiments")
    three = structs.replace(PLAN, arms={"rule": 1.0, "model-a": 1.0, "model-b": 1.0}, peeking="always-valid")
    alike = {"rule": 20, "model-a": 20, "model-b": 22}
    long = structs.replace(
        PLAN, control=f"rule-{'r' * 60}", arms={f"rule-{'r' * 60}": 1.0, f"model-<b>{'w' * 60}": 1.0}
    )
    for name, plan, clickers in (
        ("collecting", PLAN, {"rule": 5, "model": 40}),
        ("three", three, alike),
        ("winner", structs.replace(PLAN, peeking="obrien-fleming"), {"rule": 5, "model": 40}),
        ("n" * 60, structs.replace(long, peeking="obrien-fleming"), dict.fromkeys(long.arms, 9)),
    ):
        named = structs.replace(plan, name=name)
        now = START + timedelta(days=4)
        write_pages(log(work, named, 4, clickers=clickers), named, work / "state" / "experiments", now=now)
    write_list(work / "state" / "experiments", "", now=now)
    freeze(PLAN, work / "plan.toml")
    options = ("--experiment", str(work / "plan.toml"), "--events", f"sqlite:///{work / 'events.sqlite'}")
    with serving(folder, *options, "--state", str(work / "state"), "--drain-delay", "0") as started:
        yield started


@pytest.mark.parametrize(("size", "theme"), [(WIDE, "light"), (PHONE, "dark")], ids=["wide", "phone"])
def test_an_experiment_is_read_at_each_size(
    browser: Browser, experiments: Service, size: dict[str, int], theme: str
) -> None:
    with visiting(browser, experiments.port, viewport=size, color_scheme=theme) as visit:
        names = ("collecting", "three", "winner", "winner.memo", "n" * 60, f"{'n' * 60}.memo")
        for path in (*(f"experiments/{name}" for name in names), "report", "experiments"):
            reply = visit.page.goto(f"{visit.base}/{path}")
            assert reply is not None
            assert len(reply.body()) < 100_000
            expect(visit.page.locator("h1")).to_be_visible()
            assert visit.violations() == []
            assert visit.page.evaluate("document.documentElement.scrollWidth") <= size["width"]
            cut = "tables => tables.some(table => table.scrollWidth > table.parentElement.clientWidth)"
            assert size is WIDE or not visit.page.locator(".metrics").evaluate_all(cut)
        visit.page.get_by_role("link", name="collecting").click()
        expect(visit.page.locator(".hidden-until")).to_contain_text("produces false winners")
        expect(visit.page.get_by_role("img")).to_have_count(2)
        visit.page.get_by_role("link", name="Decision memo").click()
        expect(visit.page.locator(".memo")).to_contain_text("Hidden until")


def test_the_memo_is_one_light_page_of_paper(browser: Browser, experiments: Service) -> None:
    with visiting(browser, experiments.port, viewport=WIDE, color_scheme="dark") as visit:
        for name in ("three", "winner"):
            visit.page.goto(f"{visit.base}/experiments/{name}.memo")
            assert len(re.findall(rb"/Type\s*/Page\b", visit.page.pdf(format="A4"))) == 1
        visit.page.emulate_media(media="print", color_scheme="dark")
        assert visit.page.locator(".memo").evaluate("memo => getComputedStyle(memo).color") == "rgb(20, 24, 31)"


@pytest.mark.parametrize(("size", "theme"), [(WIDE, "light"), (PHONE, "dark")], ids=["wide", "phone"])
@pytest.mark.parametrize(("path", "status"), [("/nothing", 404), ("/invocations", 405), ("/experiments/nobody", 404)])
def test_an_error_is_a_page(
    browser: Browser, service: Service, size: dict[str, int], theme: str, path: str, status: int
) -> None:
    with visiting(browser, service.port, viewport=size, color_scheme=theme) as visit:
        reply = visit.page.goto(f"{visit.base}{path}")
        assert reply is not None
        assert reply.status == status
        assert visit.violations() == []
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        visit.trouble.clear()  # the browser logs the status of the page itself
        visit.page.get_by_role("link", name="Try the service").click()
        expect(visit.page.get_by_text("What do you like?")).to_be_visible()
