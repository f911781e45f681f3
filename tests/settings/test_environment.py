"""Settings given as text: every variable is checked like an option, and no switch is off by mistake."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from firstspin.records import InputError
from firstspin.settings.environment import (
    bare_errors,
    moment,
    read,
    refuse_misspelt,
    required,
    seconds,
    whole,
    words,
    yes_or_no,
)


@pytest.mark.parametrize("text", ["1", "true", "TRUE", "yes", "On", " on "])
def test_a_boolean_may_be_true_in_four_words(text: str) -> None:
    assert yes_or_no(text)


@pytest.mark.parametrize("text", ["0", "false", "no", "OFF"])
def test_a_boolean_may_be_false_in_four_words(text: str) -> None:
    assert not yes_or_no(text)


@pytest.mark.parametrize("text", ["", "maybe", "2", "tru", "y", "enabled"])
def test_no_other_word_is_taken_for_a_boolean(text: str) -> None:
    with pytest.raises(InputError, match=r"FIRSTSPIN_BARE_ERRORS: '.*' is neither true nor false"):
        bare_errors({"FIRSTSPIN_BARE_ERRORS": text})


def test_errors_are_complete_unless_bare_errors_are_set() -> None:
    assert not bare_errors({})
    assert bare_errors({"FIRSTSPIN_BARE_ERRORS": "on"})


@pytest.mark.parametrize(
    ("convert", "text", "said"),
    [
        (whole(0, 65_535), "65536", "'65536' is not a whole number from 0 to 65535"),
        (whole(1), "0", "'0' is not a whole number of at least 1"),
        (whole(1), "1.5", "'1.5' is not a whole number of at least 1"),
        (whole(1), "1_000", "'1_000' is not a whole number of at least 1"),
        (whole(1), "٣", "'٣' is not a whole number of at least 1"),
        (whole(1), "9" * 5000, "is not a whole number of at least 1"),
        (seconds(), "nan", "'nan' is not a number of seconds above 0"),
        (seconds(), "inf", "'inf' is not a number of seconds above 0"),
        (seconds(), "0", "'0' is not a number of seconds above 0"),
        (seconds(or_equal=True), "-1", "'-1' is not a number of seconds from 0"),
        (words, " ", "is empty"),
        (moment, "soon", "'soon' is not a date or time like 2026-01-31"),
        (moment, "0001-01-01T00:00+10:00", "is not a date or time like 2026-01-31"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_the_name_of_its_variable(
    convert: Callable[[str], object], text: str, said: str
) -> None:
    with pytest.raises(InputError) as refused:
        read({"FIRSTSPIN_X": text}, "FIRSTSPIN_X", convert)
    assert str(refused.value).startswith("FIRSTSPIN_X: ")
    assert said in str(refused.value)


def test_a_variable_that_is_not_set_is_none_or_required() -> None:
    assert read({}, "FIRSTSPIN_X", words) is None
    with pytest.raises(InputError, match="FIRSTSPIN_X is not set"):
        required({}, "FIRSTSPIN_X", words)


def test_a_variable_that_kubernetes_sets_for_a_service_has_its_own_hint() -> None:
    with pytest.raises(InputError) as refused:
        read({"FIRSTSPIN_ADMIN_PORT": "tcp://10.96.0.7:8080"}, "FIRSTSPIN_ADMIN_PORT", whole(0, 65_535))
    assert "Kubernetes sets FIRSTSPIN_ADMIN_PORT for a service named firstspin-admin" in str(refused.value)
    assert "enableServiceLinks: false" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FIRSTSPIN_UNDERAGE", "FIRSTSPIN_UNDER_AGE"),
        ("FIRSTSPIN_KEY", "FIRSTSPIN_KEYS"),
        ("FIRSTSPIN_LEASTAGE", "FIRSTSPIN_LEAST_AGE"),
    ],
)
def test_a_misspelt_variable_is_refused_with_the_one_that_is_meant(name: str, meant: str) -> None:
    known = ["FIRSTSPIN_UNDER_AGE", "FIRSTSPIN_LEAST_AGE", "FIRSTSPIN_KEYS", "FIRSTSPIN_PORT"]
    with pytest.raises(InputError, match=f"unknown variable {name}; did you mean {meant}"):
        refuse_misspelt({name: "x"}, known)


def test_variables_of_others_are_left_alone() -> None:
    others = ("FIRSTSPIN_SERVICE_HOST", "FIRSTSPIN_SERVICE_PORT", "FIRSTSPIN_PORT_8080_TCP", "FIRSTSPIN_DATA", "KEY")
    refuse_misspelt(dict.fromkeys(others, "x"), ["FIRSTSPIN_KEYS", "FIRSTSPIN_PORT", "FIRSTSPIN_STATE"])
