"""The shared types, and error messages that are readable."""

from __future__ import annotations

from typing import get_args

import pytest

from firstspin.records import MAX_MESSAGE_LINE, BadRows, InputError, Source, answered_by


@pytest.mark.parametrize(
    ("repeated", "shown"),
    [
        ("\x1b[31m", r"\x1b[31m"),
        ("a\0b", r"a\x00b"),
        ("a\x85b", r"a\x85b"),
        ("\u202eabc", r"\u202eabc"),
        ("\udcff", r"\udcff"),
        ("\r", r"\r"),
        ("Märsche 🎵", "Märsche 🎵"),
    ],
)
def test_an_error_repeats_no_character_that_a_terminal_would_obey(repeated: str, shown: str) -> None:
    assert str(InputError(f"no column {repeated}")) == f"no column {shown}"
    assert BadRows("row 1\nrow 2", f"row {repeated}").bare == f"row {shown}"


def test_an_error_has_lines_that_can_be_read() -> None:
    said = str(InputError(f"{'n' * 10_000} is no name\nrow 2"))
    assert " characters more) … " in said
    assert said.endswith("is no name\nrow 2")
    assert max(map(len, said.split("\n"))) <= MAX_MESSAGE_LINE


@pytest.mark.parametrize("source", get_args(Source))
def test_texts_explain_each_source_but_the_model(source: Source) -> None:
    assert answered_by(source).startswith(f"answered by: {source}")
    assert answered_by(source).endswith(")") == (source != "model")
