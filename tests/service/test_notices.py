"""Which notices the report about the answers gives cause for, each once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from firstspin.service.notices import causes_in_answers, notify_of_answers
from firstspin.service.watch_facts import WatchFacts
from firstspin.webhooks.outbox import Notice, pending

NOW = datetime(2026, 4, 1, tzinfo=UTC)


FACTS = WatchFacts(
    as_of=NOW,
    model="3f2a9c1b",
    weeks=(),
    whole_weeks=9,
    columns=7,
    drifting={"first pick": "2026-03-16"},
    labelled_weeks=("2026-01-19",),
)


def test_complete_labels_and_drift_give_notice() -> None:
    assert [(kind, subject) for kind, subject, _, _ in causes_in_answers(FACTS)] == [
        ("labels.complete", "2026-01-19"),
        ("data.drift", "first pick, week of 2026-03-16"),
    ]


def test_each_notice_is_queued_once(tmp_path: Path) -> None:
    dropped: list[None] = []
    for hours in (0, 1):
        later = msgspec.structs.replace(FACTS, as_of=NOW + timedelta(hours=hours))
        notify_of_answers(later, tmp_path, lambda: dropped.append(None))
    sentences = {msgspec.json.decode(one.path.read_bytes(), type=Notice).data.sentence for one in pending(tmp_path)}
    assert len(list(pending(tmp_path))) == 2
    assert any("The label windows of the week of 2026-01-19 are over" in text for text in sentences)
    assert dropped == []


def test_a_model_below_the_rule_gives_notice_about_its_bundle() -> None:
    below = msgspec.structs.replace(FACTS, labelled_weeks=(), drifting={}, is_below_rule=True)
    [(kind, subject, _, sentence)] = causes_in_answers(below)
    assert (kind, subject) == ("model.below_rule", "3f2a9c1b")
    assert "business rule" in sentence
