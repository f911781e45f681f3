"""Static files are cached for good, errors are pages for browsers only, and no page runs anything but our own files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from made_app import ask, code, new_app

from firstspin.service.app import App
from firstspin.service.pages.site import SECURITY, STATIC, STATIC_FILES
from firstspin.service.process.worker import load

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
PAGES = ("/", "/report", "/experiments", "/nothing")


@pytest.fixture
def app(folder: Path) -> App:
    app = new_app()
    app.serve(load(folder))
    return app


def header(headers: bytes, name: str) -> str:
    return dict(line.split(": ", 1) for line in headers.decode().splitlines())[name]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_runs_only_files_of_this_service_and_each_of_them_is_there(app: App, path: str) -> None:
    page = ask(app, "GET", path, **BROWSER)
    assert SECURITY in page.headers
    assert "'unsafe" not in page.headers.decode()
    assert b"style=" not in page.body
    assert b"<style" not in page.body
    assert re.search(rb"<script[^>]*>[^<]", page.body) is None
    linked = set(re.findall(rb'(?:src|href)="(/static/[^"]+)"', page.body))
    assert len(linked) >= 3
    assert all(ask(app, "GET", path.decode()).status == 200 for path in linked)
    assert not re.search(rb"(?:src|href)=\"?(?:https?:)?//", page.body)


def test_a_static_file_never_changes_under_its_path(app: App) -> None:
    for path in STATIC_FILES:
        reply = ask(app, "GET", path)
        tag = header(reply.headers, "etag")
        assert header(reply.headers, "cache-control") == (
            "public, max-age=31536000, immutable" if path.startswith(STATIC) else "no-cache"
        )
        assert ask(app, "GET", path, if_none_match=f'W/"x", {tag}').status == 304
        assert ask(app, "GET", path, if_none_match='"x"').status == 200
    assert ask(app, "GET", "/static/000000000000/look.css").status == 404
    assert ask(app, "POST", f"{STATIC}/look.css").status in (404, 405)


def test_an_error_is_a_page_for_a_browser_and_json_for_a_program(app: App) -> None:
    page = ask(app, "GET", "/nothing", **BROWSER)
    assert (page.status, page.content_type) == (404, b"text/html; charset=utf-8")
    assert b"<h1>Not Found</h1><p>There is nothing at this path.</p>" in page.body
    for accept in ("application/json", "*/*", ""):
        reply = ask(app, "GET", "/nothing", accept=accept)
        assert (reply.content_type, code(reply)) == (b"application/json", "not_found")
    refused = ask(app, "GET", "/invocations", **BROWSER)
    assert (refused.status, header(refused.headers, "allow")) == (405, "POST")
    assert b"<h1>Method Not Allowed</h1>" in refused.body
    starting = ask(new_app(), "GET", "/ping", **BROWSER)
    assert (starting.status, header(starting.headers, "retry-after")) == (503, "1")
    assert b"There is no model yet." in starting.body


def test_a_failure_of_ours_is_a_page_too(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firstspin.service.app.home", lambda *_: 1 / 0)
    page = ask(app, "GET", "/", **BROWSER)
    assert (page.status, b"<h1>Internal Server Error</h1>" in page.body) == (500, True)
    assert code(ask(app, "GET", "/")) == "internal"


def test_the_interface_for_programs_answers_in_json_whatever_is_accepted(app: App) -> None:
    refused = ask(app, "POST", "/invocations", b"{", **BROWSER)
    assert (refused.content_type, refused.status) == (b"application/json", 400)


def test_the_navigation_names_the_pages_that_exist(app: App) -> None:
    for path in ("/report", "/experiments"):
        assert f'<a href="{path}" aria-current="page">'.encode() in ask(app, "GET", path).body


def test_without_pages_the_interface_for_programs_remains(folder: Path) -> None:
    app = new_app(pages=False)
    app.serve(load(folder))
    for path in ("/", "/report", "/experiments", "/favicon.ico", f"{STATIC}/look.css"):
        reply = ask(app, "GET", path, **BROWSER)
        assert (reply.status, code(reply)) == (404, "not_found")
    assert [ask(app, "GET", path).status for path in ("/ping", "/stations.json")] == [200, 200]
