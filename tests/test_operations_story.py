"""An operator's path through the page `/ops` in a real browser: live figures, a refusal, a rollback, keys, failures."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import made_bundles
import made_console
import pytest
from made_browser import WIDE, Look, Visit, looks, visiting
from made_experiments import PLAN
from made_service import Service, admin, point, serving, until
from msgspec import structs
from playwright.sync_api import Browser, Page, expect

from firstspin.experiment.plan import freeze

HOSTILE = f"{made_console.HTML} {made_console.ARABIC} 👩‍👩‍👧 {'Ü' * 60}"
"""The name of a folder, which a refusal repeats."""

ARM = f"model-{made_console.HTML} {'x' * 150}"


def port(service: Service) -> int:
    return int(next(line["port"] for line in service.lines() if line["event"] == "admin port"))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose second model is in place, and whose bundle is now a refused one in a folder of a hostile name."""
    work: Path = tmp_path_factory.mktemp("operations") / HOSTILE
    work.mkdir()
    made_console.pack(work / "one")
    made_bundles.pack(work / "two")
    (work / "bad").mkdir()
    (work / "bad" / "manifest.json").write_text("{")
    freeze(structs.replace(PLAN, arms={"rule": 1.0, ARM: 1.0}), work / "plan.toml")
    (work / "b").symlink_to(work / "one")
    events = ("--events", f"sqlite:///{work / 'events.sqlite'}", "--experiment", str(work / "plan.toml"))
    with serving(
        work / "b", "--admin-port", "0", "--workers", "2", "--drain-delay", "0", "--state", str(work / "state"), *events
    ) as started:
        first = started.recommend()["model"]
        point(work / "b", work / "two")
        until(lambda: admin(started, "GET", "/state")[1]["model"] not in (first, None))
        point(work / "b", work / "bad")
        until(lambda: admin(started, "GET", "/state")[1]["refusal"])
        yield started


def live(visit: Visit) -> Page:
    """The page, once it has had an event."""
    page = visit.open("/ops", "[data-panel=status] time")
    before = page.locator("[data-panel=status] time").text_content()
    expect(page.locator("[data-panel=status] time")).not_to_have_text(str(before))
    return page


@pytest.mark.parametrize("looks", looks(360, 768, 1440), ids=["some", "all"])
def test_the_page_is_read_at_each_width_in_both_themes_whatever_the_names(
    browser: Browser, service: Service, looks: list[Look]
) -> None:
    service.recommend(age=31, genres=["Rock"])
    with visiting(browser, port(service), viewport=WIDE) as visit:
        page = live(visit)
        expect(page.locator("[data-panel=notices]")).to_contain_text(made_console.HTML)
        expect(page.locator("[data-panel=experiment]")).to_contain_text(ARM)
        expect(page.locator("[data-panel=answers] tbody tr")).not_to_have_count(0)
        expect(page.get_by_role("img")).to_have_count(2, timeout=20_000)
        page.get_by_text("The charts as a table").click()
        assert page.locator("#ops img").count() == 0
        assert page.title() == "Operations · firstspin"
        for width, theme in looks:
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=theme)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert visit.violations() == [], (width, theme)
            cell = page.locator("[data-panel=answers] tbody th").first
            assert cell.evaluate("cell => cell.clientWidth") >= 80  # words, not a letter a line
            page.locator("#rollback").click()
            assert visit.violations() == [], (width, theme)
            page.keyboard.press("Escape")


def test_the_page_is_light_reads_without_javascript_and_prints(browser: Browser, service: Service) -> None:
    with visiting(browser, port(service), viewport=WIDE) as visit:
        sizes: dict[str, int] = {}
        visit.page.on(
            "response", lambda reply: sizes.update({reply.url: int(reply.header_value("content-length") or 0)})
        )
        page = live(visit)
        assert 20_000 < sum(sizes.values()) < 100_000
        page.emulate_media(media="print")
        expect(page.get_by_role("button", name="Reload")).not_to_be_visible()
        expect(page.locator("[data-panel=model]")).to_be_visible()
    with visiting(browser, port(service), viewport=WIDE, java_script_enabled=False) as visit:
        page = visit.open("/ops", "[data-panel=status] time")
        expect(page.get_by_text("With JavaScript these figures are live")).to_be_visible()
        expect(page.get_by_role("button", name="Roll back")).not_to_be_visible()


def test_by_keyboard_alone_a_rollback_is_confirmed_and_a_reload_says_why_it_is_refused(
    browser: Browser, service: Service
) -> None:
    state = admin(service, "GET", "/state")[1]
    with visiting(browser, port(service), viewport=WIDE) as visit:
        page = live(visit)

        def tab_to(selector: str) -> None:
            for _ in range(40):
                page.keyboard.press("Tab")
                if page.locator(selector).evaluate("element => element === document.activeElement"):
                    return
            raise AssertionError(f"no way to {selector}")

        tab_to("#rollback")
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog", name="Roll back?")
        expect(dialog).to_contain_text(f"{state['previous']} is put in place of {state['model']}")
        expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.locator("#rollback")).to_be_focused()
        assert admin(service, "GET", "/state")[1]["model"] == state["model"]
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")  # Cancel has the focus
        expect(dialog).not_to_be_visible()
        assert admin(service, "GET", "/state")[1]["model"] == state["model"]
        page.keyboard.press("Enter")
        tab_to("#confirm-rollback .go-ahead")
        page.keyboard.press("Enter")
        expect(page.locator("#result")).to_have_text(
            f"Rolled back: {state['previous']} was put in place of {state['model']}", timeout=20_000
        )
        until(lambda: service.recommend()["model"] == state["previous"])
        expect(page.locator("[data-panel=model] dd").first).to_contain_text(str(state["previous"]))
        tab_to("#reload")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog", name="Reload")).to_contain_text(f"in place of {state['previous']}")
        tab_to("#confirm-reload .go-ahead")
        page.keyboard.press("Enter")
        expect(page.locator("#result")).to_contain_text("A bundle was refused: ", timeout=20_000)
        expect(page.locator("#result")).to_contain_text("manifest.json can't be read")
        expect(page.locator("#result")).to_have_class(re.compile("bad"))


def test_a_rollback_that_was_overtaken_is_not_done_and_the_reason_is_shown(browser: Browser, service: Service) -> None:
    context = browser.new_context(viewport=WIDE)
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{port(service)}/ops")
    page.locator("#rollback:enabled").click()
    to = page.locator("#rollback-words [data-to]").get_attribute("data-to")
    status, outcome = admin(service, "POST", "/rollback", b"{}")  # another operator
    assert (status, outcome["model"]) == (200, to)
    expect(page.locator("[data-panel=changes] li").first).to_contain_text("Rolled back")
    expect(page.locator("#rollback-words [data-to]")).to_have_text(str(to))  # what is confirmed stays as it was
    page.locator("#confirm-rollback .go-ahead").click()
    expect(page.locator("#result")).to_contain_text("Not done: the previous bundle is another one by now")
    assert admin(service, "GET", "/state")[1]["wanted"] == to
    expect(page.locator("#rollback-words [data-to]")).not_to_have_text(str(to))
    context.close()


def test_after_the_admin_process_ended_the_page_says_so_and_goes_on_by_itself(
    browser: Browser, service: Service
) -> None:
    context = browser.new_context(viewport=WIDE)
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{port(service)}/ops")
    expect(page.locator("#rollback")).to_be_enabled()
    context.route("**/ops/live", lambda route: route.abort())  # of the next admin process, which is there in 30 ms
    os.kill(
        next(line["admin_pid"] for line in reversed(service.lines()) if line["event"] == "admin port"), signal.SIGKILL
    )
    expect(page.locator("#connection")).to_have_text("No connection: these figures are old. Trying again.")
    before = page.locator("[data-panel=status] time").text_content()
    context.unroute("**/ops/live")
    page.evaluate("dispatchEvent(new Event('online'))")
    expect(page.locator("#connection")).to_be_empty(timeout=20_000)
    expect(page.locator("[data-panel=status] time")).not_to_have_text(str(before))
    context.close()


def test_a_hidden_page_reads_nothing_until_it_is_shown_again(browser: Browser, service: Service) -> None:
    hide = "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
    hide += " document.dispatchEvent(new Event('visibilitychange')); }"
    with visiting(browser, port(service), viewport=WIDE) as visit:
        page = live(visit)
        with page.expect_event("requestfailed", lambda request: request.url.endswith("/ops/live")):
            page.evaluate(hide, True)
        assert len([url for url in visit.requests if url.endswith("/ops/live")]) == 1
        with page.expect_request("**/ops/live"):
            page.evaluate(hide, False)
        expect(page.locator("#connection")).to_be_empty()


def test_a_key_is_asked_for_and_stored_nowhere(browser: Browser, folder: Path, tmp_path: Path) -> None:
    keys = [{"name": "ops", "sha256": hashlib.sha256(b"open sesame").hexdigest(), "admin": True}]
    (tmp_path / "keys.json").write_text(json.dumps({"keys": keys}))
    (tmp_path / "b").symlink_to(folder)
    with serving(
        tmp_path / "b", "--admin-port", "0", "--drain-delay", "0", "--keys", str(tmp_path / "keys.json")
    ) as locked:
        model = locked.recommend()["model"]
        with visiting(browser, port(locked), viewport=WIDE) as visit:
            page = visit.open("/ops", "#key-form:visible")
            expect(page.get_by_label("Key", exact=True)).to_be_focused()
            expect(page.locator("#facts")).not_to_be_visible()
            assert visit.violations() == []
            page.keyboard.type("a guess")
            page.keyboard.press("Enter")
            expect(page.locator("#key-problem")).to_contain_text("Refused: send a key")
            page.get_by_label("Key", exact=True).fill("open sesame")
            page.get_by_role("button", name="Open").click()
            expect(page.locator("[data-panel=model]")).to_contain_text(model)
            page.locator("#reload").click()
            page.locator("#confirm-reload .go-ahead").click()
            expect(page.locator("#result")).to_have_text(f"{model} was checked again and stays", timeout=20_000)
            assert page.locator("#rollback").is_disabled()
            assert page.evaluate("[document.cookie, localStorage.length, sessionStorage.length].join()") == ",0,0"
            assert not [url for url in visit.requests if "sesame" in url]
            assert "sesame" not in page.content()
            assert [line for line in visit.trouble if "401" not in line] == []
            visit.trouble.clear()  # the browser reports the refused guess
        assert "sesame" not in locked.log.read_text()
