"""The panels of the page of operations say what is wrong, and escape whatever a bundle, a plan or an error has."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from made_console import HTML
from made_experiments import PLAN
from msgspec import structs

from firstspin.evaluation.bootstrap import Figure
from firstspin.service.admin.operations import COMMENT, Operations, ServiceFacts
from firstspin.service.admin.recorder import Recorder, ServiceState, WorkerState
from firstspin.service.metrics import SharedMetrics
from firstspin.service.watch_facts import WatchFacts, WeekFacts, write_facts
from firstspin.serving.refusal import Refusal

START = datetime(2026, 1, 31, 12, tzinfo=UTC)
WORKER = WorkerState(0, 7, "answering", "0000aaaa", 0.2, 0, 0, "")
ENDS = {"0000aaaa": "2026-01-01T12:00:00Z", "0000bbbb": "never"}
STATE = ServiceState("0000aaaa", "0000aaaa", "0000bbbb", "", False, {"done": 1}, 3.0, ENDS, (WORKER,), compiled=True)


class Page:
    """The page over a service whose metrics and clock are set by hand."""

    def __init__(self, **service: Any) -> None:
        self.metrics, self.seconds = SharedMetrics(3), 0.0
        recorder = Recorder(self.metrics, lambda: self.seconds, lambda: START + timedelta(seconds=self.seconds))
        self.operations = Operations(recorder, ServiceFacts(**service))

    def after(self, seconds: float, state: ServiceState | None = STATE) -> None:
        self.seconds += seconds
        self.operations.record(state)

    async def events(self, allow: Any = lambda: None) -> AsyncGenerator[bytes | bytearray, None]:
        return (await self.operations.live(allow)).pieces

    def panels(self) -> dict[str, str]:
        async def first() -> bytes | bytearray:
            events = await self.events()
            event = await anext(events)
            await events.aclose()
            return event

        return read(asyncio.run(first()))


def read(event: bytes | bytearray) -> dict[str, str]:
    return json.loads(event.decode().split("data: ")[1])  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("state", "word", "notice"),
    [
        (STATE, "healthy", ""),
        (structs.replace(STATE, model=None), "no model", ""),
        (structs.replace(STATE, refusal="<b>cut</b>"), "needs attention", "refused: &lt;b&gt;cut&lt;/b&gt;"),
        (structs.replace(STATE, workers=(structs.replace(WORKER, heartbeat_age=2.6),)), "needs attention", "worker 0"),
        (structs.replace(STATE, workers=(structs.replace(WORKER, state="starting"),)), "no worker answers", "worker 0"),
        (structs.replace(STATE, workers=(structs.replace(WORKER, event_store="full"),)), "needs attention", "full"),
        (structs.replace(STATE, compiled=False), "healthy", "NumPy"),
    ],
)
def test_the_state_is_named_and_what_is_wrong_is_said(state: ServiceState, word: str, notice: str) -> None:
    page = Page()
    page.after(2, state)
    shown = page.panels()
    assert f">{word}</p>" in shown["status"]
    assert notice in shown["notices"]
    assert bool(shown["notices"]) is bool(notice)


def week(first: str, observed: float | None = None, *, differs: bool = False) -> WeekFacts:
    return WeekFacts(first, 1_200, START + timedelta(days=60), Figure(0.7, 0.68, 0.72), observed, differs)


CALM = WatchFacts(START, "0000aaaa", (week("2026-01-19"), week("2026-01-26")), 1, 8, {})
WORSE = structs.replace(
    CALM,
    weeks=(week("2026-01-19", 0.61, differs=True), week("2026-01-26", 0.69)),
    drifting={"country": "2026-01-26", "first genre": "2026-01-19"},
    is_below_rule=True,
)


@pytest.mark.parametrize(
    ("facts", "word", "drift", "rule", "observed"),
    [
        (CALM, "healthy", "none, of 8 columns after 1 whole week", "not found to be better", ["–", "–"]),
        (structs.replace(CALM, columns=0), "healthy", "not known: the bundle has no", "not found", ["–", "–"]),
        (structs.replace(CALM, weeks=()), "healthy", "none, of 8", "not found", []),
        (
            WORSE,
            "needs attention",
            "country since 2026-01-26, first genre since 2026-01-19",
            "has more hits than the model",
            [".690", ".610 differs"],
        ),
    ],
)
def test_what_the_report_about_the_answers_finds_is_said(
    tmp_path: Path, facts: WatchFacts, word: str, drift: str, rule: str, observed: list[str]
) -> None:
    write_facts(tmp_path / "watch.json", facts)
    page = Page(watch=tmp_path / "watch.json")
    page.after(2)
    shown = page.panels()
    listed = dict(re.findall(r"<dt>(.*?)</dt><dd><bdi>(.*?)</bdi></dd>", shown["quality"]))
    assert listed["drift"].startswith(drift)
    assert listed["business rule"].startswith(rule)
    assert listed["report of"] == "31 Jan 2026 12:00 UTC"
    rows = compared(shown["quality"])
    assert [row[2] for row in rows] == observed
    assert [row[1] for row in rows] == [".700 ±.020"] * len(rows)
    assert f">{word}</p>" in shown["status"]
    assert shown["notices"].count('class="note"') == (3 if facts is WORSE else 0)


def manifest(folder: Path, labels_end: str, hit: float | None) -> str:
    """Write the manifest of a bundle, as far as the page needs it; the bundle's id."""
    score = {"value": hit, "low": hit and hit - 0.02, "high": hit and hit + 0.02}
    card = {"best": "logistic", "figures": {"logistic": {"hit@3": score, "log_loss": {"value": None}}, "forest": {}}}
    ends = {"data_ends": "2026-03-01T00:00:00Z"}
    encoded = json.dumps({"label": ends, "data": {"labels_end": labels_end}, "scorecard": card, "more": [1]}).encode()
    folder.mkdir()
    (folder / "manifest.json").write_bytes(encoded)
    return hashlib.sha256(encoded).hexdigest()[:8]


def compared(html: str) -> list[tuple[str, ...]]:
    return [tuple(re.findall(r"<bdi>(.*?)</bdi>", row)) for row in re.findall(r"<tr>(.*?)</tr>", html)[1:]]


def test_champion_and_challenger_are_side_by_side(tmp_path: Path) -> None:
    page = Page()
    page.after(2)
    assert "--shadow" in page.panels()["shadow"]
    manifest(tmp_path / "0000aaaa", "2026-02-14T23:58:47", 0.7)
    challenger = manifest(tmp_path / "new", "2026-02-20T01:00:00", 0.75)
    page = Page(state=tmp_path, shadow=tmp_path / "new")
    page.after(2)
    facts = [
        ("trained until", "14 Feb 2026", "20 Feb 2026"),
        ("its data end", "1 Mar 2026", "1 Mar 2026"),
        ("hit@3, hold-out", ".700 ±.020", ".750 ±.020"),
        ("ndcg@5, hold-out", "–", "–"),
        ("log loss, hold-out", "–", "–"),
    ]
    assert compared(page.panels()["shadow"]) == [("bundle", "0000aaaa", "not loaded"), *facts]
    row = page.metrics.row(2)
    row.shadows(challenger)
    for outcome, more in {"scored": 1_200, "failed": 3, "dropped": 40}.items():
        row.count("firstspin_shadow_answers", outcome, more=more)
    for what, more in {"first genre": 900, "first three": 600, "source": 1_200}.items():
        row.count("firstspin_shadow_agreement", what, more=more)
    page.after(2)
    shown = page.panels()["shadow"]
    assert compared(shown) == [("bundle", "0000aaaa", challenger), *facts]
    assert re.findall(r"<dt>(.*?)</dt><dd><bdi>(.*?)</bdi></dd>", shown) == [
        ("scored", "1,200"),
        ("same first genre", "75.0%"),
        ("same first three", "50.0%"),
        ("same source", "100.0%"),
        ("failed", "3"),
        ("dropped", "40"),
    ]
    row.shadows("0000cccc")  # a bundle whose folder has another one by now: its facts are not known
    page.after(2)
    assert compared(page.panels()["shadow"])[:2] == [
        ("bundle", "0000aaaa", "0000cccc"),
        ("trained until", "14 Feb 2026", "not known"),
    ]


@pytest.mark.parametrize("content", [b"", b"[]", b'{"label": {}, "data": {"labels_end": 7}}', b"\xff"])
def test_a_manifest_that_can_not_be_read_leaves_its_facts_open(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "manifest.json").write_bytes(content)
    page = Page(state=tmp_path, shadow=tmp_path / "new")
    page.after(2)
    assert compared(page.panels()["shadow"])[1] == ("trained until", "not known", "not known")


def test_before_the_first_answer_of_the_supervisor_and_the_first_request_the_page_says_so() -> None:
    shown = Page().panels()
    assert "loading" in shown["status"]
    assert "has not answered yet" in shown["model"]
    assert "Nothing has been answered yet" in shown["answers"]
    assert "The first point comes" in shown["chart_requests"]


def test_a_service_that_needs_no_model_is_healthy_without_one() -> None:
    page = Page(needs_model=False)
    page.after(2, structs.replace(STATE, model=None, wanted=None, previous=None))
    assert "healthy" in page.panels()["status"]


def test_age_is_that_of_the_data_of_a_model() -> None:
    page = Page()
    page.metrics.row(0).serves("0000aaaa")
    page.metrics.row(0).answer("model")
    page.after(2)
    assert "1 Jan 2026, 30 days ago" in page.panels()["answers"]
    assert "<dt>its data end</dt><dd><bdi>not known</bdi></dd>" in page.panels()["model"]


def test_the_words_of_a_rollback_name_both_models() -> None:
    page = Page()
    page.after(2)
    words = page.panels()["rollback_words"].replace("code>", "b>")
    assert words.startswith('<strong data-to="0000bbbb"><b>0000bbbb</b></strong> is put in place of <b>0000aaaa')
    page.after(2, structs.replace(STATE, previous=None))
    assert page.panels()["rollback_words"] == "There is no previous model to roll back to."


def test_no_name_becomes_markup() -> None:
    page = Page(plan=structs.replace(PLAN, arms={"rule": 1.0, f"model-{HTML}": 1.0}), has_event_store=True)
    worker = structs.replace(WORKER, model=HTML, state=HTML, event_store=HTML)
    hostile = structs.replace(STATE, model=HTML, wanted=HTML, previous=HTML, refusal=HTML, workers=(worker,))
    page.after(2, structs.replace(STATE, reloads={}))
    page.after(2, hostile)
    assert [name for name, html in page.panels().items() if "<img" in html] == []
    assert len([name for name, html in page.panels().items() if "&lt;img" in html]) >= 7


def test_a_reader_that_does_not_read_misses_samples_and_nothing_piles_up() -> None:
    async def read_late() -> tuple[bytes | bytearray, bytes | bytearray]:
        page = Page()
        page.after(2)
        events = await page.events()
        await anext(events)
        for _ in range(1_000):
            page.after(2)
        late = await anext(events)
        page.after(0)
        same = await anext(events)
        page.operations.close()
        with pytest.raises(StopAsyncIteration):
            await anext(events)
        return late, same

    late, same = asyncio.run(read_late())
    assert "12:33:22" in read(late)["status"]
    assert same == COMMENT


def test_a_reader_whose_key_is_no_longer_valid_reads_no_more() -> None:
    def refuse() -> None:
        raise Refusal(401, "unauthorized", "send a key")

    async def first() -> bytes | bytearray:
        return await anext(await Page().events(refuse))

    with pytest.raises(StopAsyncIteration):
        asyncio.run(first())
