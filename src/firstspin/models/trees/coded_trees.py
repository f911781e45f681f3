"""Registrations in columns -> scores of trees without rows of numbers, with the same bits.

What trees mask for an answer is one row of masks per distinct answer: the AND of those that its columns select. So a
registration costs the trees one row of masks per question and per pick, and no number of it is written or looked up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from firstspin.data.registrations.coded import Codes
from firstspin.models.coded_rows import CodedRows, EncodedPicks, Known, PickedCells, Rows
from firstspin.models.predictor import Array, Scorer
from firstspin.models.scorers import Indexes, TreeScorer
from firstspin.models.trees.bitrows import BitRows, Masks
from firstspin.records import MAX_PICKS

Part = tuple[Masks, Codes]
"""What the distinct answers to a question mask (v, t), and which of them each registration gives (n,)."""
OfPicks = tuple[Masks, Codes, PickedCells]
"""What the distinct picks mask (v, t), which of them each pick is (p,), and the picks."""

MAX_DISTINCT: Final = 1_024
"""Distinct answers to a question: of more, as to a further number, each would be that of few registrations."""


@dataclass(frozen=True, slots=True)
class CodedTrees:
    """n registrations for trees: the rows of `masks` (r, t) of registration i are named[offsets[i]:offsets[i + 1]].

    `known` (n,): whether training saw at least one of the answers.
    """

    trees: BitRows
    masks: Masks
    offsets: Indexes
    named: NDArray[np.int32]
    known: Known

    def scores(self, start: int, stop: int) -> Array:
        """(stop - start, k) raw scores of registrations [start, stop)."""
        return self.trees.scores_of(self.masks, self.offsets[start : stop + 1], self.named)

    def take(self, which: NDArray[np.bool_]) -> CodedTrees:
        """The registrations that are true in `which` (n,), in order."""
        lengths = np.diff(self.offsets)
        named = self.named[np.repeat(which, lengths)]
        return CodedTrees(self.trees, self.masks, _offsets(lengths[which]), named, self.known[which])


def coded_trees(scorer: Scorer, encoded: CodedRows) -> CodedTrees | None:
    """The registrations of `encoded` for a `TreeScorer`.

    None for another scorer, and where a row of masks per answer does not suit: questions with many distinct answers,
    and trees that turn right at a genre that is not picked.
    """
    if not isinstance(scorer, TreeScorer):
        return None
    known = np.zeros(len(encoded), dtype=bool)
    answers: list[Part] = []
    picks = None
    for first, part in encoded.answers():
        if isinstance(part, EncodedPicks):
            cells = part.cells(0, len(encoded))
            if cells.numbers.max(initial=0) >= len(part.counts):  # more than a form takes
                return None
            known |= cells.numbers > 0
            answers.append((_masks(scorer, first + 2 * part.n_genres, part.counts), cells.numbers))
            picks = _of_picks(scorer, first, part, cells)
            if picks is None:
                return None
        elif len(part.rows) > MAX_DISTINCT:
            return None
        else:
            known |= part.known[part.codes]
            answers.append((_masks(scorer, first, part.rows), part.codes))
    return CodedTrees(scorer.rows, *_joined(len(encoded), answers, picks), known)


def _masks(scorer: TreeScorer, first: int, rows: Rows) -> Masks:
    """What the columns [first, first + w) of encoded rows mask, given their values (v, w)."""
    here = np.flatnonzero((scorer.columns >= first) & (scorer.columns < first + rows.shape[1]))
    return scorer.rows.masks_of(here, rows[:, scorer.columns[here] - first])


def _of_picks(scorer: TreeScorer, first: int, part: EncodedPicks, cells: PickedCells) -> OfPicks | None:
    """What each pick masks, by genre and rank; None of too many, or where a genre that is not picked masks too."""
    places, codes = np.unique(cells.genres * MAX_PICKS + cells.ranks, return_inverse=True)
    if len(places) > MAX_DISTINCT:
        return None
    rows = np.zeros((len(places) + 1, 2 * part.n_genres))  # and that of no pick
    part.write_picks(rows, np.arange(len(places)), *np.divmod(places, MAX_PICKS))
    masks = _masks(scorer, first, rows)
    if (~masks[-1]).any():
        return None
    return masks, codes, cells


def _joined(n: int, answers: list[Part], picks: OfPicks | None) -> tuple[Masks, Indexes, NDArray[np.int32]]:
    """The fields `masks`, `offsets` and `named` of n registrations: their answers, then their picks."""
    masks = [of for of, _ in answers]
    starts = np.cumsum([0, *map(len, masks)])
    numbers = picks[2].numbers if picks else np.zeros(n, dtype=np.int64)
    offsets = _offsets(numbers + len(answers))
    named = np.empty(offsets[-1], dtype=np.int32)
    for i, (start, (_, codes)) in enumerate(zip(starts[:-1], answers, strict=True)):
        named[offsets[:-1] + i] = start + codes
    if picks:
        of_picks, codes, cells = picks
        masks.append(of_picks)
        named[offsets[cells.people] + len(answers) + cells.ranks] = starts[-1] + codes
    return np.concatenate(masks), offsets, named


def _offsets(lengths: Indexes) -> Indexes:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
