"""Registrations in columns read as a sequence of the objects that they are made from."""

from __future__ import annotations

import numpy as np
import pytest
from made_columns import columns

from firstspin.data.further_fields import with_further_fields
from firstspin.data.registrations.coded import coded
from firstspin.data.registrations.reading import registrations_of
from firstspin.records import Examples, Registration

EXTRA = ("device", "visits")
WITH_EXTRA = with_further_fields(EXTRA)
SOME = [
    WITH_EXTRA(age=31, gender=" Female ", country="US", genres=("Rock", "Jazz"), device="phone", visits=1.5),
    WITH_EXTRA(),
    WITH_EXTRA(genres=("Jazz", " ", "Jazz"), visits=-0.0),
    WITH_EXTRA(age=31, country="us", device=""),
]
BATCH = columns(SOME, *EXTRA)


def test_as_a_sequence_they_are_the_objects() -> None:
    registrations, objects = coded(BATCH, EXTRA), registrations_of(BATCH, EXTRA)
    assert repr(list(registrations)) == repr(objects)  # each has a type of its own
    assert [repr(registrations[at]) for at in (-1, 0, 2)] == [repr(objects[at]) for at in (-1, 0, 2)]
    assert repr(list(registrations[1:3])) == repr(objects[1:3])
    assert len(registrations[3:1]) == 0
    with pytest.raises(IndexError):
        registrations[4]


def test_those_that_are_read_alone_have_one_type() -> None:
    registrations = coded(BATCH, EXTRA)
    assert registrations[1] == registrations[1] == list(registrations)[1]


def test_some_of_them_in_another_order() -> None:
    registrations = coded(columns([Registration(genres=(*"abcd"[:n],), age=n) for n in range(5)]))
    taken = registrations.take(np.array([3, 0, 3, 1]))
    assert [(one.age, one.genres) for one in taken] == [
        (3, ("a", "b", "c")),
        (0, ()),
        (3, ("a", "b", "c")),
        (1, ("a",)),
    ]
    assert list(registrations.take(np.array([], dtype=np.int64))) == []


def test_examples_take_them_as_they_take_objects() -> None:
    objects = [Registration(age=n, genres=("Jazz",) * n) for n in range(4)]
    which = np.array([2, 0])
    parts = []
    for registrations in (tuple(objects), coded(columns(objects))):
        ids, at = tuple("abcd"), np.zeros(4, "M8[s]")
        users = Examples(ids, registrations, at, ("Jazz",), np.zeros(4, np.int64), np.ones((4, 1)))
        parts.append(users.take(which))
    assert list(parts[0].registrations) == list(parts[1].registrations) == [objects[2], objects[0]]


def test_answers_are_counted_as_they_are_tidied() -> None:
    registrations = coded(BATCH, EXTRA)
    assert registrations.counts("country") == {"US": 1, "us": 1}
    assert registrations.counts("gender") == {"Female": 1}
    assert registrations.counts("device") == {"phone": 1}  # an empty text is no answer
    assert registrations.counts("age") == {31: 2}
    assert registrations.counts("referral") == {}
