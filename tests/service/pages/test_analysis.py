"""The pages of an experiment: its files, whatever its names; and the service that makes and serves them."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from made_app import NOW, ask, new_app
from made_experiments import HALVES, PLAN, SECRET, START, log
from made_service import ask_for, serving, until
from msgspec import structs

from firstspin.events.database import Database
from firstspin.events.store import open_database, open_store
from firstspin.experiment.plan import Plan, freeze, reads_at
from firstspin.experiment.rules import Metric
from firstspin.records import InputError
from firstspin.service.app import App
from firstspin.service.exposures import ExposureLog
from firstspin.service.pages import analysis, charts, experiments
from firstspin.service.pages.analysis import _signed, analyse_store, write_list, write_pages
from firstspin.service.pages.experiments import WANTED
from firstspin.service.pages.site import Site
from firstspin.serving.experiment import running


@pytest.fixture
def app(tmp_path: Path) -> App:
    return new_app(experiment_pages=tmp_path / "pages")


@pytest.fixture(scope="module")
def three_days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log of the first experiment after three days."""
    return log(tmp_path_factory.mktemp("log"), PLAN, 3)


@pytest.fixture(scope="module")
def analysed(three_days: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of the first experiment after three days."""
    folder: Path = tmp_path_factory.mktemp("analysed")
    write_pages(three_days, PLAN, folder, now=START + timedelta(days=3))
    return folder


@pytest.fixture
def pages(analysed: Path, tmp_path: Path) -> Path:
    """A copy of these pages."""
    return shutil.copytree(analysed, tmp_path / "pages")


def test_the_page_memo_and_figures_are_served_and_ask_for_the_next_analysis(
    app: App, three_days: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "pages"
    assert ask(app, "GET", "/experiments/first").status == 404
    assert ask(app, "GET", "/experiments").status == 200
    found = write_pages(three_days, PLAN, folder, now=START + timedelta(days=3, hours=12))
    page = ask(app, "GET", "/experiments/first").body.decode()
    assert found.sentence in page
    assert "Hidden until 16 February 2026" in page
    assert "Does model raise clicked over rule by 10.0%" in ask(app, "GET", "/experiments/first.memo").body.decode()
    write_list(folder, "first", now=START + timedelta(days=3, hours=12))
    assert '<a href="/experiments/first">' in ask(app, "GET", "/experiments").body.decode()
    figures = ask(app, "GET", "/experiments/first.json")
    assert (json.loads(figures.body)["status"], figures.content_type) == ("collecting", b"application/json")
    rows = list(csv.DictReader(ask(app, "GET", "/experiments/first.csv").body.decode().splitlines()))
    assert [row["value"] for row in rows if row["figure"] == "exposures"] == ["100"] * 6
    assert (folder / WANTED).exists()


@pytest.mark.parametrize(
    "path", ["/experiments/..", "/experiments/first.html", "/experiments/%2e%2e", "/experiments/.json"]
)
@pytest.mark.usefixtures("pages")
def test_nothing_else_of_the_folder_is_served(app: App, path: str) -> None:
    assert ask(app, "GET", path).status == 404


def test_the_running_experiment_has_a_page_before_its_first_figures_and_old_ones_are_called_old(
    three_days: Path, tmp_path: Path
) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'events.sqlite'}", SECRET)
    app = new_app(experiment_pages=tmp_path, ledger=ExposureLog(store, SECRET, lambda: NOW, HALVES))
    for path, status in (("first", 200), ("first.json", 503), ("other", 404)):
        assert ask(app, "GET", f"/experiments/{path}").status == status
    assert b"refresh: 2" in ask(app, "GET", "/experiments/first").headers
    for minutes, old in ((14, False), (16, True)):
        write_pages(three_days, PLAN, tmp_path, now=NOW - timedelta(minutes=minutes))
        assert (b"These figures are old" in ask(app, "GET", "/experiments/first").body) is old
    store.close()


def test_an_ended_experiment_stays_in_the_list_behind_the_running_one(
    app: App, three_days: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "pages"
    write_pages(three_days, PLAN, folder, now=reads_at(PLAN))
    second = structs.replace(PLAN, name="second")
    write_pages(log(tmp_path, second, 1), second, folder, now=START + timedelta(days=1))
    write_list(folder, "second", now=START + timedelta(days=1))
    page = ask(app, "GET", "/experiments").body.decode()
    assert page.index("/experiments/second") < page.index("/experiments/first")
    assert "winner" in page


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An event store without users."""
    opened = open_database(f"sqlite:///{tmp_path / 'events.sqlite'}", SECRET)
    with closing(opened):
        opened.open()
        yield opened


def test_an_experiment_that_ended_without_being_read_is_called_ready(app: App, pages: Path, database: Database) -> None:
    analyse_store(database, None, pages, now=reads_at(PLAN) - timedelta(seconds=1))
    assert "collecting" in ask(app, "GET", "/experiments").body.decode()
    analyse_store(database, None, pages, now=reads_at(PLAN))  # the store has none of its users: the figures stay
    page = ask(app, "GET", "/experiments").body.decode()
    assert "ready to read" in page
    assert "600 of" in page
    assert "No experiment is running here" in page


@pytest.fixture
def second(three_days: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A second experiment, which runs at the end of the first; the store has the users of both."""
    plan = structs.replace(PLAN, name="second")
    logs = {"first": three_days, "second": log(tmp_path, plan, 3)}
    monkeypatch.setattr("firstspin.experiment.run.read_log", lambda _, plan, __: logs[plan.name])
    return plan


def test_an_experiment_that_ended_while_another_ran_is_analysed_at_its_end(
    app: App, pages: Path, database: Database, second: Plan
) -> None:
    analyse_store(database, second, pages, now=reads_at(PLAN))
    page = ask(app, "GET", "/experiments").body.decode()
    assert page.index("/experiments/second") < page.index("/experiments/first")
    assert page.count('badge good">winner') == 2
    assert page.count("running here</p>") == 1
    assert "older" not in ask(app, "GET", "/experiments/first").body.decode()


def test_bad_files_stop_neither_the_list_nor_other_experiments(
    app: App, pages: Path, database: Database, second: Plan
) -> None:
    (pages / "a.toml").mkdir()  # a plan without figures, which is no plan
    (pages / "b.toml").write_bytes(b"\xff")
    (pages / "c.json").write_bytes(b'{"experiment": "c')
    (pages / "d.json").write_bytes(b"{}")
    assert_both_are_winners(app, pages, database, second)


@pytest.mark.parametrize("content", [b"", None])
def test_a_bad_file_of_figures_is_made_again(
    app: App, pages: Path, database: Database, second: Plan, content: bytes | None
) -> None:
    (pages / "first.json").unlink()
    if content is not None:
        (pages / "first.json").write_bytes(content)
    assert experiments.UNDATED in ask(app, "GET", "/experiments/first").body.decode()
    assert_both_are_winners(app, pages, database, second)


def assert_both_are_winners(app: App, pages: Path, database: Database, second: Plan) -> None:
    """After the analysis at the end of the first experiment."""
    analyse_store(database, second, pages, now=reads_at(PLAN))
    page = ask(app, "GET", "/experiments").body.decode()
    assert page.count('badge good">winner') == 2
    assert 'role="alert"' not in ask(app, "GET", "/experiments/first").body.decode()


def test_a_running_experiment_that_cant_be_analysed_stops_neither_the_list_nor_ended_ones(
    app: App, pages: Path, database: Database, second: Plan, tmp_path: Path
) -> None:
    (tmp_path / "exposures.parquet").write_bytes(b"cut")
    with pytest.raises(InputError):
        analyse_store(database, second, pages, now=reads_at(PLAN))
    assert 'badge good">winner' in ask(app, "GET", "/experiments").body.decode()


def test_the_plan_is_written_last_and_a_page_that_fails_leaves_no_file(
    three_days: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        raise RuntimeError

    monkeypatch.setattr(analysis, "rendered", fail)
    with pytest.raises(RuntimeError):
        write_pages(three_days, PLAN, tmp_path / "pages", now=START + timedelta(days=1))
    assert not list((tmp_path / "pages").glob("*"))


def test_figures_of_users_are_not_replaced_by_those_of_an_empty_store_though_their_file_is_damaged(
    pages: Path, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    page = (pages / "first.html").read_bytes()
    (pages / "first.json").write_text("cut")
    analyse_store(database, None, pages, now=reads_at(PLAN))
    assert (pages / "first.html").read_bytes() == page
    assert caplog.messages == [
        "an ended experiment can't be analysed",
        "the figures of an experiment can't be read",
    ]


def test_the_log_of_an_ended_experiment_has_no_value_of_a_table(
    pages: Path, database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise InputError("user 'anna' has the arm 'x'", bare="a user has another arm")

    monkeypatch.setattr("firstspin.experiment.run.read_log", fail)
    analyse_store(database, None, pages, now=reads_at(PLAN))
    assert [vars(record)["reason"] for record in caplog.records] == ["a user has another arm"]


def test_every_chart_has_its_numbers_in_a_table(app: App, tmp_path: Path) -> None:
    plan = structs.replace(PLAN, peeking="obrien-fleming")
    write_pages(log(tmp_path, plan, 3), plan, tmp_path / "pages", now=START + timedelta(days=4))
    page = ask(app, "GET", "/experiments/first").body.decode()
    assert page.count('class="drawn"') == page.count("All figures as CSV") == 3
    assert "<td>2026-01-28</td><td>100</td><td>100</td>" in page  # exposures of the third day
    assert "<td>2026-01-28</td><td>600</td><td>3,000</td>" in page  # users until then, and as planned
    assert "<td>2026-01-28</td><td>600</td><td>+700%</td>" in page  # the lift until then


def test_each_metric_has_its_role_whatever_its_kind_and_also_where_two_share_a_column(app: App, tmp_path: Path) -> None:
    per_click, guarded = Metric("seconds", "ratio", per="clicked"), Metric("clicked", "binary", margin=0.05)
    plan = structs.replace(PLAN, metrics=(*PLAN.metrics, per_click, guarded))
    folder, roles = tmp_path / "pages", ("decides", "secondary", "guardrail, margin 5%")
    made = log(tmp_path, plan, 3)
    write_pages(made, plan, folder, now=reads_at(plan) - timedelta(seconds=1))
    hidden = ask(app, "GET", "/experiments/first").body.decode()
    write_pages(made, plan, folder, now=reads_at(plan))
    shown = ask(app, "GET", "/experiments/first").body.decode()
    for name, role in zip(("clicked", "seconds / clicked", "clicked"), roles, strict=True):
        assert hidden.count(f"<li><span>{name}</span><span>{role}</span></li>") == 1
        assert shown.count(f'<td role="cell">{name}<br><span class="muted">{role}</span></td>') == len(plan.arms)
    assert (
        '<th scope="row">seconds / clicked</th><td>model: ' in ask(app, "GET", "/experiments/first.memo").body.decode()
    )


def test_a_primary_ratio_is_named_with_its_divisor(app: App, tmp_path: Path) -> None:
    plan = structs.replace(PLAN, metrics=(Metric("seconds", "ratio", per="clicked"),), deviation=1.0)
    write_pages(log(tmp_path, plan, 1), plan, tmp_path / "pages", now=START + timedelta(days=1))
    assert "raise seconds / clicked over" in ask(app, "GET", "/experiments/first.memo").body.decode()
    page = experiments.page(Site(), running(plan), {}, NOW).body.decode()
    assert "<dd>seconds / clicked, to find a lift" in page


def test_names_of_arms_and_metrics_are_text(app: App, tmp_path: Path) -> None:
    arms = {"rule": 1.0, "model-<b>": 1.0}
    plan = structs.replace(PLAN, arms=arms, peeking="obrien-fleming")
    clickers = {"rule": 5, "model-<b>": 5}
    write_pages(log(tmp_path, plan, 3, clickers=clickers), plan, tmp_path / "pages", now=START + timedelta(days=4))
    page = ask(app, "GET", "/experiments/first").body.decode()
    assert "<b>" not in page
    assert "model-&lt;b&gt;" in page


def test_the_service_analyses_its_own_experiment_outside_the_workers(folder: Path, tmp_path: Path) -> None:
    freeze(PLAN, tmp_path / "plan.toml")
    state = tmp_path / "state"
    options = ("--experiment", str(tmp_path / "plan.toml"), "--events", f"sqlite:///{tmp_path / 'events.sqlite'}")
    with serving(folder, *options, "--state", str(state), "--drain-delay", "0") as service:
        until(lambda: service.ask("GET", "/experiments/first.json")[0] == 200, 60)
        before = json.loads(service.ask("GET", "/experiments/first.json")[2])
        assert ask_for(service, "anna")[0] == 200
        until(lambda: json.loads(service.ask("GET", "/experiments/first.json")[2])["as_of"] != before["as_of"], 60)
        assert "a process of the background failed" not in service.log.read_text()


def test_negative_lifts_have_the_minus_sign_of_the_other_pages() -> None:
    chart = charts.band([(-0.05, -0.08, 0.02)], 3, "lift", _signed)
    assert "−5.0% (−8.0% to +2.0%)" in chart
    assert ">−10%<" in chart
    steep = charts.band([(7.0, -0.5, 40.0)], 3, "lift", _signed)
    assert ">+1000%<" in steep
    assert ">−200%<" not in steep  # no lift is below −100%
    assert ">-" not in chart
