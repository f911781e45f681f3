"""Lookup of names in any spelling (case, width, space), at a cost that the text can't inflate.

Unicode's NFKC makes up to 18 letters of one character (U+FDFA), so normalising a text costs up to a thousand times as
much as reading it. A text is normalised here only where the result can be a name of the set: every letter it decomposes
into occurs in some name, and it has no more letters than the longest name. Both follow from three properties of NFKC
and case folding that `tests/data/test_names.py` checks for every code point.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher, get_close_matches
from typing import Final

from firstspin.records import MAX_TEXT, normal

CUTOFF: Final = 0.6
CUTOFF_OF_OTHERS: Final = 0.65
"""Minimum similarity (Ratcliff and Obershelp) of names with the same first letter, and of others."""


class NameIndex:
    """A set of names in normal form (see `records.normal`), looked up in any case.

    Of names that differ by case alone, the exact spelling wins, or else the first in alphabetical order.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self.names = tuple(sorted(self._names))
        self._folded = {name.casefold(): name for name in reversed(self.names)}
        decomposed = [_letters(folded) for folded in self._folded]
        self._letters = frozenset().union(*decomposed)
        self._max_letters = max(map(len, decomposed), default=0)
        self._sizes: dict[str, int] = {}  # character -> its number of letters; only those that occur in the names

    def find(self, text: str) -> str | None:
        """The name that this text spells; None where it spells none."""
        if text in self._names:
            return text
        if not (text.isascii() or self._is_possible(text)):
            return None
        name = normal(text)
        return name if name in self._names else self._folded.get(name.casefold())

    def find_all(self, texts: Iterable[str]) -> set[str]:
        """The names that these texts spell, and "" where one spells none."""
        distinct = set(texts)
        return distinct if distinct <= self._names else {self.find(text) or "" for text in distinct}

    def separated(self, text: str, separator: str) -> list[str]:
        """The parts of a list as people type it, trimmed; a name that contains the separator stays one part.

        >>> NameIndex(["Jazz", "Folk, World"]).separated("rock, folk, world,Jazz", ",")
        ['rock', 'folk, world', 'Jazz']
        """
        parts, separated = text.split(separator), []
        while parts:
            ends = (n for n in range(len(parts), 1, -1) if self.find(separator.join(parts[:n])) is not None)
            end = next(ends, 1)
            separated.append(separator.join(parts[:end]).strip())
            del parts[:end]
        return [part for part in separated if part]

    def nearest(self, text: str) -> str | None:
        """The name most similar to this text (Ratcliff and Obershelp, as in difflib); None where none is similar."""
        similar = get_close_matches(normal(text[:MAX_TEXT]).casefold(), self._folded, n=1)
        return self._folded[similar[0]] if similar else None

    def _is_possible(self, text: str) -> bool:
        """Whether the letters of this text can make up a name; ends at the first that can't."""
        size = 0
        for word in text.split():
            for character in word:
                letters = self._sizes.get(character) or self._size(character)
                size += letters
                if not letters or size > self._max_letters:
                    return False
        return True

    def _size(self, character: str) -> int:
        """The number of letters that a character decomposes into; 0 where one of them is in no name."""
        letters = _letters(character)
        if not self._letters.issuperset(_letters(letters.casefold())):
            return 0
        self._sizes[character] = len(letters)
        return len(letters)


def assigned(wanted: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """A similar name for each key of `wanted` whose text has one: the most similar pairs first, each name once.

    Names of another first letter must be more similar: `duration_s` has much of `station_id` by chance.
    """
    folded = {normal(name[:MAX_TEXT]).casefold(): name for name in names}
    texts = {key: normal(text[:MAX_TEXT]).casefold() for key, text in wanted.items()}
    pairs = [
        (SequenceMatcher(None, similar, text).ratio(), key, similar)
        for key, text in texts.items()
        for similar in get_close_matches(text, folded, n=max(len(folded), 1), cutoff=CUTOFF)
    ]
    chosen: dict[str, str] = {}
    for ratio, key, similar in sorted(pairs, reverse=True):
        certain = ratio >= CUTOFF_OF_OTHERS or similar[:1] == texts[key][:1]
        if certain and key not in chosen and folded[similar] not in chosen.values():
            chosen[key] = folded[similar]
    return chosen


def _letters(text: str) -> str:
    """The compatibility decomposition of a text, without space."""
    return "".join(unicodedata.normalize("NFKD", text).split())
