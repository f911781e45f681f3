"""`firstspin watch`: what a running service has stored, beside the labels that come two months later."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import made_people
import made_tables
import pytest
from command_line import failed, firstspin
from made_bundles import pack
from made_service import QUICK, serving, until

from firstspin import learn
from firstspin.evaluation.bootstrap import bare
from firstspin.events.schema import read_secret
from firstspin.service.admin.panels import _quality
from firstspin.service.process.clock import set_clock
from firstspin.service.watch_facts import WATCH_FILE, WatchFacts, read_facts
from firstspin.service.watch_run import watch_store
from firstspin.serving.policy import DEFAULTS

MONDAY = datetime(2025, 3, 3, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Watched:
    """The store of a service that answered 400 newcomers on a Monday, and the tables two months later."""

    bundle: Path
    tables: Path
    store: tuple[str, ...]

    def watch(self, *words: object) -> str:
        done = firstspin("watch", *self.store, "--bundle", self.bundle, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout


def newcomers(folder: Path) -> tuple[Path, list[dict[str, object]]]:
    """Tables of 400 people who registered on that Monday, and their registrations as requests have them."""
    people = made_people.examples(400, seed=5)
    station = {genre: str(i) for i, genre in enumerate(people.genres)}
    told = [{"age": one.age, "country": one.country, "genres": one.genres} for one in people.registrations]
    rows = [
        (user, "2025-03-03T12:00:00Z", one["age"] or "", "", one["country"], "|".join(one["genres"]))
        for user, one in zip(people.user_ids, told, strict=True)
    ]
    listens = [
        (user, "2025-04-16T00:00:00Z", station[people.genres[top]], 900)
        for user, top in zip(people.user_ids, people.tops, strict=True)
    ]
    listens.append(("nobody", "2025-12-31T00:00:00Z", "0", 1))
    stations = [(number, f"{genre} FM", genre) for genre, number in station.items()]
    return made_tables.tables(folder, rows, listens, stations), told


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    folder = tmp_path_factory.mktemp("watched")
    bundle = folder / "bundle"
    learn.train(made_people.tables(folder / "earlier", 600), bundle, "logistic")
    tables, told = newcomers(folder / "later")
    secret, clock = folder / "events.secret", folder / "clock"
    set_clock(clock, MONDAY)
    store = (f"sqlite:///{folder / 'events.sqlite'}", "--events-secret", str(secret))
    options = ("--state", str(folder / "state"), "--clock", str(clock), "--workers", "2", "--events", *store, *QUICK)
    with serving(bundle, *options) as service:
        several = json.dumps({"instances": told[:399]}).encode()
        assert service.ask("POST", "/invocations", several)[0] == 200
        service.recommend(**told[399])
        service.process.send_signal(signal.SIGTERM)
        service.process.wait(30)
    return Watched(bundle, tables, store)


def test_a_service_reports_its_answers_and_the_labels_agree_with_what_was_expected(
    watched: Watched, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.parquet"
    assert firstspin("label", "--data", watched.tables, "--out", labels).returncode == 0
    report = json.loads(watched.watch("--labels", labels, "--json"))
    week, every = report["weeks"]
    assert (week["week"], week["labels_complete"]) == ("2025-03-03", "2025-05-09T00:00:00Z")
    assert week["cohorts"] == every["cohorts"]
    hits = week["cohorts"][0]["hits"]["hit@1"]
    assert (hits["answers"], hits["labelled"], report["differs"]) == (400, 400, False)
    assert hits["expected"]["value"] == pytest.approx(hits["expected_labelled"]["value"], abs=1e-3)  # ranked again
    assert hits["expected"]["low"] <= hits["observed"] <= hits["expected"]["high"]
    [drift] = report["drift"]
    assert (drift["model"], drift["weeks"]) == (week["cohorts"][2]["name"], 0)  # one day is no whole week
    assert {one["column"] for one in drift["columns"]} == {
        *("age", "gender", "country", "picks", "number of picks", "first pick", "first genre")
    }
    assert all(one["since"] is None for one in drift["columns"])
    [rule] = report["rule"]
    assert (rule["model"], rule["observed"], rule["is_below"]) == (
        drift["model"],
        week["cohorts"][0]["hits"]["hit@3"]["observed"],
        False,
    )
    text = watched.watch("--labels", labels)
    assert (
        f"hit@3 of 400 labelled users is {rule['observed']:.3f}, {rule['by_rule']:.3f} by the business rule"
        in " ".join(text.split())
    )
    assert "no drift" in text
    assert "2025-05-09" in text
    assert f"observed {hits['observed']:.3f} of 400" in text


def test_metrics_and_operations_show_what_is_expected_and_observed(watched: Watched, tmp_path: Path) -> None:
    """Another service on the same store, ten days later, with the labels of a later day."""
    labels, state, clock = tmp_path / "labels.parquet", tmp_path / "state", tmp_path / "clock"
    assert firstspin("label", "--data", watched.tables, "--out", labels).returncode == 0
    set_clock(clock, MONDAY + timedelta(days=10))
    options = ("--state", state, "--clock", clock, "--labels", labels, "--events", *watched.store, *QUICK)
    with serving(watched.bundle, *map(str, options)) as service:
        until(lambda: read_facts(state / WATCH_FILE) is not None, 60)
        metrics = service.ask("GET", "/metrics")[2].decode()
    facts = read_facts(state / WATCH_FILE)
    assert facts is not None
    [week] = facts.weeks
    assert (week.week, week.answers, week.differs, facts.drifting) == ("2025-03-03", 400, False, {})
    assert (facts.whole_weeks, facts.columns) == (0, 7)
    samples = [line.rpartition(" ") for line in metrics.splitlines() if not line.startswith("#")]
    values = {name: float(value) for name, _, value in samples}
    rates = [values[f'firstspin_expected_hit_rate{{bound="{bound}",k="3"}}'] for bound in ("low", "value", "high")]
    assert week.expected is not None
    assert rates == [week.expected.low, week.expected.value, week.expected.high]
    assert values["firstspin_drift_columns"] == values["firstspin_hits_differ"] == values["firstspin_below_rule"] == 0
    assert values["firstspin_watch_timestamp_seconds"] == (MONDAY + timedelta(days=10)).timestamp()
    shown = _quality(facts)
    assert "2025-05-09" in shown
    assert f">{bare(week.observed or 0)}<" in shown


@pytest.mark.parametrize(("days", "weeks"), [(66, ()), (67, ("2025-03-03",)), (94, ("2025-03-03",)), (96, ())])
def test_complete_labels_are_reported_though_another_bundle_answered(
    days: int, weeks: tuple[str, ...], watched: Watched, tmp_path: Path
) -> None:
    other, out = tmp_path / "other", tmp_path / "facts.json"
    pack(other)
    secret = read_secret(Path(watched.store[2]))
    now, facts = MONDAY + timedelta(days=days), list[WatchFacts]()
    watch_store(watched.store[0], secret, other, None, DEFAULTS, out, gauge=lambda *_: None, tell=facts.append, now=now)
    assert [one.labelled_weeks for one in facts] == [weeks]


def test_without_labels_it_shows_what_is_expected_and_when_to_label(watched: Watched) -> None:
    text = watched.watch()
    assert "Week of 2025-03-03: expected hits" in text
    assert next(line.split()[:2] for line in text.splitlines() if line.startswith("picks")) == ["picks", "0"]
    assert "observed" not in text
    assert "firstspin label --data DIR --out labels.parquet, then this command with --labels" in text


def test_answers_of_a_bundle_that_is_not_given_have_no_expected_hits(watched: Watched, tmp_path: Path) -> None:
    other = tmp_path / "other"
    pack(other)
    done = firstspin("watch", *watched.store, "--bundle", other)
    assert done.returncode == 0
    assert "pass the bundle with --bundle" in done.stderr


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"user_id,top_genre\n", "is not a Parquet file"), (b"", "is not a Parquet file"), (None, "No such file")],
)
def test_another_file_of_labels_is_refused_by_name(
    content: bytes | None, problem: str, watched: Watched, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.parquet"
    if content is not None:
        labels.write_bytes(content)
    message = failed("watch", *watched.store, "--bundle", watched.bundle, "--labels", labels)
    assert "labels.parquet" in message
    assert problem in message


def test_a_store_that_is_not_there_is_not_created(watched: Watched, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'none.sqlite'}"
    message = failed("watch", url, *watched.store[1:], "--bundle", watched.bundle)
    assert "none.sqlite does not exist" in message
    assert not (tmp_path / "none.sqlite").exists()
    assert firstspin("watch", "--bundle", watched.bundle).returncode == 2
