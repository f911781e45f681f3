"""Inputs as counts: the same categories in training and in the service, and no small count leaves a worker."""

from __future__ import annotations

import random

import msgspec
import pytest

from firstspin.data.further_fields import with_further_fields
from firstspin.models.input_reference import InputReference
from firstspin.records import Registration
from firstspin.watch.inputs import InputSketch, reference_of

GENRES = ("Jazz", "Rock")
PEOPLE = [
    *[Registration(age=31, gender="female", country="US", genres=("Rock", "rock ", "Jazz"))] * 30,
    *[Registration(age=None, gender=None, country="us", genres=())] * 12,
    *[Registration(age=60, gender="male", country="IS", genres=("Polka",))] * 3,
    *[Registration(age=16, gender="male", country="US", genres=("Rock",))] * 50,
]


def sketched(
    reference: InputReference, people: list[Registration], *, rounded: bool, seed: int = 0
) -> dict[str, dict[str, int]]:
    sketch = InputSketch(reference, random.Random(seed))
    for one in people:
        sketch.add(one, "Rock")
    return sketch.taken(rounded=rounded)


def test_the_reference_counts_adults_by_category_and_puts_rare_ones_together() -> None:
    columns = reference_of(PEOPLE, {}, GENRES).columns
    assert columns["registrations"] == {"all": 45, "other": 0}
    assert columns["age"] == {"25-34": 30, "not given": 12, "other": 0}
    assert columns["country"] == {"us": 42, "other": 0}
    assert columns["picks"] == {"rock": 30, "jazz": 30, "other": 0}
    assert columns["first pick"] == {"rock": 30, "not given": 12, "other": 0}
    assert columns["number of picks"] == {"2": 30, "0": 12, "other": 0}
    assert columns["first genre"] == {"Jazz": 0, "Rock": 0}


def test_the_service_counts_the_same_categories() -> None:
    reference = reference_of(PEOPLE * 10, {}, GENRES)
    counts = sketched(reference, PEOPLE * 10, rounded=False)
    for column in set(reference.columns) - {"first genre"}:
        assert counts[column] == {name: n for name, n in reference.columns[column].items() if n}
    assert counts["first genre"] == {"Rock": 450}


def test_what_training_does_not_know_is_other_and_no_text_of_a_request_is_kept() -> None:
    reference = reference_of(PEOPLE, {}, GENRES)
    counts = sketched(
        reference, [Registration(country="Atlantis", gender="secret", genres=("Zydeco",))] * 20, rounded=False
    )
    assert counts["country"] == counts["gender"] == counts["picks"] == counts["first pick"] == {"other": 20}


def test_counts_below_10_stay_until_they_are_10() -> None:
    sketch = InputSketch(reference_of(PEOPLE, {}, GENRES), random.Random(0))
    for _ in range(2):
        for _ in range(9):
            sketch.add(PEOPLE[0], None)
        first = sketch.taken(rounded=False)
        assert first in ({}, {column: dict.fromkeys(of, 18) for column, of in first.items()})
    assert first["country"] == {"us": 18}
    assert sketch.taken(rounded=False) == {}


def test_the_rest_is_rounded_to_0_or_10_and_is_right_on_average() -> None:
    reference = reference_of(PEOPLE, {}, GENRES)
    three = PEOPLE[:3]
    reports = [sketched(reference, three, rounded=True, seed=seed) for seed in range(2_000)]
    counts = [report.get("country", {}).get("us", 0) for report in reports]
    assert set(counts) == {0, 10}
    assert sum(counts) / len(counts) == pytest.approx(3, abs=0.35)


def test_further_fields_are_columns_and_numbers_are_in_quarters() -> None:
    kind = with_further_fields(("device", "visits"))
    people = [msgspec.convert({"device": ("Phone", "car")[i % 2], "visits": i}, kind) for i in range(100)]
    columns = reference_of(people, {"device": "text", "visits": "number"}, GENRES).columns
    assert columns["device"] == {"phone": 50, "car": 50, "other": 0}
    assert columns["visits"] == {f"quarter {i}": 25 for i in range(1, 5)} | {"other": 0}
    reference = reference_of(people, {"device": "text", "visits": "number"}, GENRES)
    assert sketched(reference, [kind()] * 10, rounded=False)["visits"] == {"other": 10}
