"""Rates, percentiles and changes of the page of operations, from metrics made by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec import structs

from firstspin.service.admin.facts import facts, percentile
from firstspin.service.admin.recorder import (
    BIN_SECONDS,
    BINS,
    EARLIER,
    MAX_CHANGES,
    MAX_MODELS,
    Recorder,
    ServiceState,
    WorkerState,
    changes,
)
from firstspin.service.metrics import BUCKETS, SharedMetrics

START = datetime(2026, 1, 31, 12, tzinfo=UTC)
WORKER = WorkerState(0, 7, "answering", "0000aaaa", 0.2, 0, 0, "")
STATE = ServiceState("0000aaaa", "0000aaaa", None, "", False, {"done": 1}, 3.0, {}, (WORKER,), compiled=True)


class Recording:
    """A recorder over two workers, and a clock that is set by hand."""

    def __init__(self) -> None:
        self.metrics, self.seconds = SharedMetrics(4), 0.0
        self.workers = [self.metrics.row(0), self.metrics.row(1)]
        self.recorder = self.again()

    def again(self) -> Recorder:
        return Recorder(self.metrics, lambda: self.seconds, lambda: START + timedelta(seconds=self.seconds))

    def after(self, seconds: float, state: ServiceState | None = STATE) -> Any:
        self.seconds += seconds
        self.recorder.record(state)
        return msgspec.json.decode(msgspec.json.encode(facts(self.recorder, None, has_event_store=False)))


def test_the_window_is_the_last_minute_and_the_rest_counts_in_the_totals_only() -> None:
    made = Recording()
    for _ in range(3):
        made.workers[0].request("/invocations", 200, 30_000)
    made.after(10)
    made.workers[1].request("/invocations", 503, 30_000)
    made.workers[1].request("/ping", 200, 30_000)
    shown = made.after(60)
    assert shown["window_seconds"] == 60
    assert (shown["requests"], shown["failed"]) == (2, 1)
    assert shown["routes"] == [
        {"route": "/invocations", "window": 1, "total": 4, "refused": 0, "failed": 1},
        {"route": "/ping", "window": 1, "total": 1, "refused": 0, "failed": 0},
    ]
    assert [(one["requests"], one["failed"]) for one in shown["bins"]] == [(3, 0), (2, 1)]


def test_a_percentile_lies_in_the_bucket_of_the_value_that_a_sort_has_there() -> None:
    rng = np.random.default_rng(5)
    values = rng.lognormal(5.5, 1.2, 5_000)  # microseconds
    buckets = np.bincount(np.searchsorted(BUCKETS, values), minlength=len(BUCKETS) + 1).tolist()
    edges = list(pairwise((0, *BUCKETS)))
    for share in (0.01, 0.5, 0.95, 0.99):
        exact = np.sort(values)[int(np.ceil(share * len(values))) - 1]
        low, high = next((low, high) for low, high in edges if low < exact <= high)
        estimate = percentile(buckets, share)
        assert estimate is not None
        assert low / 1_000 <= estimate <= high / 1_000


def test_without_a_request_there_is_no_percentile_and_above_the_last_bound_it_is_the_bound() -> None:
    empty = [0] * (len(BUCKETS) + 1)
    assert percentile(empty, 0.99) is None
    assert percentile([*empty[:-1], 3], 0.5) == 1_000
    assert percentile([4, *empty[1:]], 0.5) == 0.0125


def test_answers_count_for_the_model_that_their_worker_serves() -> None:
    made = Recording()
    made.workers[0].serves("0000aaaa")
    made.workers[0].answer("model")
    made.workers[1].serves("0000bbbb")
    made.workers[1].answer("model")
    made.workers[1].answer("popular")
    made.after(2)
    made.workers[0].serves("0000bbbb")
    made.workers[0].answer("model")
    made.workers[1].answer("model")
    made.workers[1].died()
    shown = {(one["source"], one["model"]): one["total"] for one in made.after(2)["answers"]}
    assert shown == {("model", "0000aaaa"): 1, ("model", "0000bbbb"): 3, ("popular", "0000bbbb"): 1}


def test_a_new_admin_process_does_not_know_the_model_of_earlier_answers() -> None:
    made = Recording()
    made.workers[0].serves("0000aaaa")
    made.workers[0].answer("model")
    made.recorder = made.again()
    made.workers[0].answer("model")
    assert [(one["model"], one["total"]) for one in made.after(2)["answers"]] == [("", 1), ("0000aaaa", 1)]


def test_however_long_it_records_and_whatever_changes_its_memory_is_bounded() -> None:
    made = Recording()
    for number in range(BINS + 50):
        shown = made.after(BIN_SECONDS, structs.replace(STATE, reloads={"refused": number}, refusal=f"no {number}"))
    assert len(shown["bins"]) == BINS
    assert len(shown["changes"]) == MAX_CHANGES
    assert shown["changes"][0]["text"] == f"A bundle was refused: no {BINS + 49}"


def test_the_counts_of_all_but_the_last_models_are_summed_and_none_is_counted_again_in_the_window() -> None:
    made, number = Recording(), MAX_MODELS + 5
    for model in range(number):
        made.workers[0].serves(f"{model:08x}")
        made.workers[0].answer("model")
        made.workers[0].answer("model")
        shown = made.after(BIN_SECONDS)
    counts = {one["model"]: (one["window"], one["total"]) for one in shown["answers"]}
    assert len(counts) == MAX_MODELS + 1
    assert counts[EARLIER][1] + 2 * MAX_MODELS == 2 * number
    assert counts[EARLIER][0] == 0
    assert counts[f"{number - 1:08x}"] == (2, 2)
    assert sum(window for window, _ in counts.values()) == 2 * 6
    assert len(made.recorder.latest.answers) == MAX_MODELS + 1


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        ({}, []),
        (
            {"wanted": "0000bbbb", "reloads": {"done": 2}},
            [("done", "0000bbbb was put in place of 0000aaaa")],
        ),
        ({"reloads": {"done": 2}}, [("done", "0000aaaa was checked again and stays")]),
        (
            {"wanted": "0000bbbb", "reloads": {"done": 1, "rollback": 1}},
            [("rollback", "Rolled back: 0000bbbb was put in place of 0000aaaa")],
        ),
        (
            {"reloads": {"done": 1, "refused": 2}, "refusal": "<b>cut</b>"},
            [("refused", "A bundle was refused: <b>cut</b>")],
        ),
        (
            {"wanted": None, "reloads": {"done": 1, "refused": 1}, "refusal": "it hangs"},
            [
                ("refused", "A bundle was refused: it hangs"),
                ("rollback", "A worker could not load 0000aaaa: 0000aaaa was taken out of service"),
            ],
        ),
        (
            {"workers": (structs.replace(WORKER, restarts=2, event_store="locked"),)},
            [
                ("worker", "Worker 0 was restarted"),
                ("store", "The event store of worker 0 takes no events: locked"),
            ],
        ),
    ],
)
def test_a_change_is_told_by_its_outcome_and_reason(new: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert changes(STATE, structs.replace(STATE, **new)) == expected
    assert changes(None, STATE) == []


def test_the_first_model_takes_no_place_of_another() -> None:
    without = structs.replace(STATE, wanted=None)
    assert changes(without, structs.replace(STATE, reloads={"done": 2})) == [("done", "0000aaaa was put in service")]


def test_a_refusal_that_repeats_is_one_change_with_its_count() -> None:
    made = Recording()
    for number in range(4):
        shown = made.after(2, structs.replace(STATE, reloads={"refused": number}, refusal="cut"))
    assert [(one["number"], one["times"]) for one in shown["changes"]] == [(3, 3)]


def test_while_the_supervisor_is_silent_the_metrics_go_on_and_its_last_facts_are_dated() -> None:
    made = Recording()
    made.after(2)
    made.workers[0].request("/ping", 200, 1_000)
    made.after(2, None)
    shown = made.after(2, None)
    assert shown["silent_since"] == "2026-01-31T12:00:04Z"
    assert shown["service"]["model"] == "0000aaaa"
    assert shown["requests"] == 1
    assert made.after(2)["silent_since"] is None
