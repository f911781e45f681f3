"""The study of the bundle in service: shown beside the bundle's folder, and said what is missing or old."""

from __future__ import annotations

import gzip
from pathlib import Path

import made_report
import pytest
from made_app import ask, new_app

from firstspin.evaluation.report.page import style_hash
from firstspin.service.app import App
from firstspin.service.pages import study
from firstspin.service.process.worker import load
from firstspin.serving import bundle
from firstspin.serving.bundle import report_path


@pytest.fixture
def packed(folder: Path, tmp_path: Path) -> Path:
    """A link to a bundle in a folder of its own."""
    (tmp_path / "versions").mkdir()
    real = tmp_path / "versions" / "it's one"
    real.mkdir()
    for file in folder.iterdir():
        (real / file.name).write_bytes(file.read_bytes())
    link = tmp_path / "now"
    link.symlink_to(real)
    return link


@pytest.fixture
def app(packed: Path) -> App:
    app = new_app(bundle=packed)
    app.serve(load(packed))
    return app


def shown(app: App) -> str:
    reply = ask(app, "GET", "/report")
    assert reply.status == 200
    return reply.body.decode()


def write(packed: Path, text: str) -> None:
    report_path(packed).write_text(text, encoding="utf-8")


def test_a_study_beside_the_bundle_is_shown_in_the_page_of_the_service(app: App, packed: Path) -> None:
    assert report_path(packed) == packed.parent / "versions" / "it's one-report.html"
    written = made_report.html(bundle.load(packed).id)
    write(packed, written)
    reply = ask(app, "GET", "/report")
    page = reply.body.decode()
    assert "<h1>Recommendations for new users: evaluation report</h1>" in page
    assert '<a href="/report" aria-current="page">Study</a>' in page
    assert page.count("<main") == page.count("<style") == 1
    assert 'role="alert"' not in page
    style = page.partition("<style>")[2].partition("</style>")[0]
    assert f"style-src 'self' '{style_hash(style)}'\r\n" in reply.headers.decode()
    assert "unsafe" not in reply.headers.decode()
    assert " style=" not in page
    compressed = ask(app, "GET", "/report", accept_encoding="gzip, br")
    assert gzip.decompress(compressed.body) == reply.body
    assert (b"content-encoding: gzip" in compressed.headers, b"gzip" in reply.headers) == (True, False)


def test_without_a_study_the_page_has_the_command_that_makes_one(app: App, packed: Path) -> None:
    page = shown(app)
    assert "No study yet" in page
    assert f"firstspin report --data DATA --bundle '{packed}'".replace("'", "") in page.replace("'", "")
    elsewhere = new_app(bundle=packed, report=packed.parent / "a report.html")
    assert "--out '" in shown(elsewhere)
    assert "--bundle BUNDLE" in shown(new_app())


def test_a_study_of_another_bundle_is_called_so_until_that_of_the_model_in_service_is_written(
    app: App, packed: Path
) -> None:
    write(packed, made_report.html("0badcafe"))
    assert "This study is about the bundle 0badcafe; " in shown(app)
    write(packed, made_report.html(bundle.load(packed).id))
    assert "This study is about" not in shown(app)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"<p>a page", study.NOT_OURS), (b"\xff\xfe", study.UNREADABLE)], ids=["other", "binary"]
)
def test_a_file_that_is_no_report_is_not_shown(app: App, packed: Path, content: bytes, reason: str) -> None:
    report_path(packed).write_bytes(content)
    page = shown(app)
    assert reason in page
    assert "<p>a page" not in page


def test_a_file_that_could_not_be_read_is_shown_once_it_can(
    app: App, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A permission that is repaired changes neither the time nor the size of a file. (Root has every permission.)"""

    def denied(*_: object, **__: object) -> str:
        raise PermissionError

    write(packed, made_report.html(bundle.load(packed).id))
    with monkeypatch.context() as while_denied:
        while_denied.setattr(Path, "read_text", denied)
        assert study.UNREADABLE in shown(app)
    assert "<h1>Recommendations for new users: evaluation report</h1>" in shown(app)


def test_matching_a_file_takes_time_in_proportion_to_its_size() -> None:
    """Parts that repeat and an end that is missing: with backtracking the square of the size, that is, minutes."""
    part = """<meta name="bundle" content="0badcafe">style-src 'sha256-a'<style></style><main>"""
    for cut in (part, part.removesuffix("<main>"), part.removesuffix("</style><main>"), part.partition(">")[0] + ">"):
        assert study.REPORT.match(cut * (study.MAX_BYTES // len(cut))) is None


def test_a_folder_or_an_enormous_file_in_place_of_the_report_is_named(
    app: App, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report_path(packed).mkdir()
    assert study.UNREADABLE in shown(app)
    report_path(packed).rmdir()
    monkeypatch.setattr(study, "MAX_BYTES", 100)
    write(packed, made_report.html("0badcafe"))
    assert study.TOO_LARGE in shown(app)
