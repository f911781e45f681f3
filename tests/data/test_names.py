"""Names are matched in any spelling, at a cost that the text can't inflate."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstspin.data.names import NameIndex
from firstspin.records import normal

GENRES = ("Rock", "Hip Hop", "Café", "Çiftetelli", "ﷺ", "صلى الله عليه وسلم", "演歌", "트로트", "R&B", "")
KNOWN = [normal(genre) for genre in GENRES]
FOLDED = [normal(genre).casefold() for genre in (*GENRES, "Straße", "ᾳ", "İ", "ǰ")]
BOTH = [*KNOWN, "rock", "ROCK", "Straße", *FOLDED]
CHARACTERS = [chr(i) for i in range(sys.maxunicode + 1) if not 0xD800 <= i <= 0xDFFF]
ASSIGNED = [of for of in CHARACTERS if unicodedata.category(of) not in ("Cn", "Co")]
"""The others are unassigned or of private use: each decomposes and folds into itself."""

spelled = st.lists(st.sampled_from([*GENRES, *FOLDED]), max_size=2).map("".join) | st.text(max_size=8)


def fullwidth(text: str) -> str:
    return "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in text)


def decomposed(text: str) -> str:
    return unicodedata.normalize("NFD", text)


@given(
    spelled,
    st.sampled_from([str, str.upper, str.title, str.casefold, fullwidth, decomposed]),
    st.sampled_from(["", " ", "\u00a0\t", "\u3000"]),
)
def test_a_name_is_found_exactly_where_normalising_the_text_gives_it(
    text: str, form: Callable[[str], str], space: str
) -> None:
    sent = space + form(text).replace(" ", f" {space}") + space
    for names in (KNOWN, FOLDED, BOTH):
        exact = [name for name in (sent, normal(sent)) if name in names]
        alike = sorted({name for name in names if name.casefold() == normal(sent).casefold()})
        assert NameIndex(names).find(sent) == next(iter([*exact, *alike]), None)


@pytest.mark.parametrize("form", ["NFKC", "NFKD"])
def test_a_character_is_either_space_or_decomposes_into_letters(form: str) -> None:
    """What `NameIndex` builds on, 1: space gives no letters, and anything else at least one."""
    for character in ASSIGNED:
        letters = "".join(unicodedata.normalize(form, character).split())
        assert bool(letters) is not character.isspace(), hex(ord(character))


def test_case_folding_loses_no_letters_and_folds_a_composed_character_as_its_parts() -> None:
    """`NameIndex` relies on it (2 and 3): a folded text is the folding of its characters, one by one."""

    def letters(text: str) -> str:
        return "".join(unicodedata.normalize("NFKD", text).split())

    for character in ASSIGNED:
        apart, composed = letters(character), unicodedata.normalize("NFKC", character)
        folded = letters(composed.casefold())
        assert len(folded) >= len(apart), hex(ord(character))
        assert set(folded) == set(letters(apart.casefold())), hex(ord(character))


def test_a_text_that_can_be_no_known_name_is_never_normalised(monkeypatch: pytest.MonkeyPatch) -> None:
    normalised: list[str] = []
    monkeypatch.setattr("firstspin.data.names.normal", lambda text: normalised.append(text) or normal(text))
    latin, arabic = NameIndex(["Rock", "Café"]), NameIndex(["صلى الله عليه وسلم"])
    bombs = ["\ufdfa" * 200, "\U0001d15e" * 200, "\u0300\u0316" * 100, "Roc\ufdfa", "Café" * 50, "Ro" + "\uff23" * 198]
    assert [latin.find(bomb) for bomb in bombs] == [None] * len(bombs)
    assert arabic.find("\ufdfa" * 200) is None
    assert normalised == []
    assert arabic.find("\ufdfa") == "صلى الله عليه وسلم"
    assert latin.find(" \uff32\uff4f\uff43\uff4b") == "Rock"


def test_what_is_remembered_of_characters_is_bounded_by_the_names() -> None:
    latin = NameIndex(["Rock"])
    for character in CHARACTERS:
        latin.find(character * 2)
    assert {letter for character in latin._sizes for letter in normal(character).casefold()} == set("rock")


@given(st.text(max_size=4))
def test_without_names_nothing_is_found(text: str) -> None:
    assert NameIndex(()).find(text) is None
