"""A notice is queued once per cause, whatever happens to the processes that see it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from firstspin.webhooks import outbox
from firstspin.webhooks.outbox import Kind, Notice, Queued, forget_oldest, notice_id_of, notify, pending

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def queue(folder: Path, subject: str = "first@3f2a9c1b", cause: str = "") -> Queued:
    return notify(folder, "experiment.sample_ratio", subject, "The arms differ.", at=NOON, cause=cause)


def test_a_notice_is_a_file_of_the_body_that_is_sent(tmp_path: Path) -> None:
    assert queue(tmp_path / "new" / "outbox") == "queued"
    [one] = pending(tmp_path / "new" / "outbox")
    assert one.path.read_bytes() == (
        b'{"type":"experiment.sample_ratio","timestamp":"2026-01-31T12:00:00Z",'
        b'"data":{"subject":"first@3f2a9c1b","sentence":"The arms differ."}}'
    )


def test_the_same_cause_is_one_notice_before_and_after_it_is_sent(tmp_path: Path) -> None:
    assert [queue(tmp_path), queue(tmp_path)] == ["queued", "known"]
    [one] = pending(tmp_path)
    one.failed(one.next_at)
    assert queue(tmp_path) == "known"
    [one] = pending(tmp_path)
    one.done()
    assert queue(tmp_path) == "known"
    assert list(pending(tmp_path)) == []


def test_another_kind_subject_or_cause_is_another_notice(tmp_path: Path) -> None:
    assert [queue(tmp_path), queue(tmp_path, "second"), queue(tmp_path, cause="again")] == ["queued"] * 3
    ids = {notice_id_of(kind, subject, "") for kind in get_args(Kind) for subject in ("a", "b")}
    assert len(ids) == 2 * len(get_args(Kind))


def test_an_id_is_the_same_in_every_process_and_version() -> None:
    assert notice_id_of("experiment.no_data", "first@3f2a9c1b", "2026-01-26") == (
        "msg_9c8f942382c16cfc9407fc59577fd532"
    )


def test_the_outbox_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_PENDING", 2)
    assert [queue(tmp_path, str(number)) for number in range(3)] == ["queued", "queued", "dropped"]
    next(pending(tmp_path)).done()
    assert queue(tmp_path, "2") == "queued"


def test_done_notices_are_remembered_up_to_a_number_the_newest_first(tmp_path: Path) -> None:
    for number in range(4):
        queue(tmp_path, str(number))
    for one in pending(tmp_path):
        os.utime(one.path, (one.next_at, float(one.path.read_bytes().count(b'"subject":"3"'))))
        one.done()
    forget_oldest(tmp_path, 1)
    assert [queue(tmp_path, str(number)) for number in range(4)] == ["queued", "queued", "queued", "known"]


def test_other_files_are_no_notices(tmp_path: Path) -> None:
    for name in ("msg.json", ".0.json", "notes.txt", "msg_1.x.json"):
        (tmp_path / name).write_text("{}")
    assert list(pending(tmp_path)) == []
    assert list(pending(tmp_path / "missing")) == []


def test_a_notice_is_due_from_its_time_on_and_after_a_clock_is_set_back(tmp_path: Path) -> None:
    queue(tmp_path)
    [one] = pending(tmp_path)
    one.failed(1_000.0)
    [one] = pending(tmp_path)
    assert (one.failures, one.next_at) == (1, 1_000.0)
    assert [one.is_due(now) for now in (999.0, 1_000.0, 2_000.0, -10_000.0)] == [False, True, True, True]


def test_a_body_has_the_declared_form(tmp_path: Path) -> None:
    queue(tmp_path)
    [one] = pending(tmp_path)
    assert msgspec.json.decode(one.path.read_bytes(), type=Notice).timestamp == NOON
