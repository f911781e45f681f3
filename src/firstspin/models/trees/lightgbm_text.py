"""LightGBM's model text (format v4) as plain arrays, read without LightGBM.

LightGBM itself trusts this text: a truncated or edited file can end the process that loads it. Here every count, link
and number is checked first: any text gives a `ParsedTrees` or an `InputError`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from firstspin.records import InputError

MISSING_NONE: Final = 0
MISSING_ZERO: Final = 1
MISSING_NAN: Final = 2

_REFUSED = {"num_cat": "categorical splits", "is_linear": "linear leaves"}
_WHOLE = re.compile(r"(?:-?[0-9]{1,9}(?: -?[0-9]{1,9})*)?")
# a threshold may be infinite: a split between the missing and all others
_DECIMAL = re.compile(r"(?:{0}(?: {0})*)?".format(r"(?:-?[0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?|-?inf)"))

Section = dict[str, str]


@dataclass(frozen=True, slots=True)
class ParsedTrees:
    """The t trees of a model, each with up to m leaves; the arrays are padded to the largest tree.

    Tree i adds to score i % n_scores. A tree of l leaves has the nodes 0 … l-2 (node 0 is the root) and the leaves 0 …
    l-1: `n_leaves` (t,). `left` and `right` (t, m-1) name a node, or leaf v as -v-1; a child node's number is above its
    parent's. A row goes left where its value in `columns` (t, m-1) is at most `thresholds` (t, m-1); `missing` (a
    MISSING_ code) says which values go by `default_left` instead. `leaf_values` (t, m).
    """

    n_columns: int
    n_scores: int
    n_leaves: NDArray[np.int64]
    columns: NDArray[np.int64]
    thresholds: NDArray[np.float64]
    missing: NDArray[np.int64]
    default_left: NDArray[np.bool_]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    leaf_values: NDArray[np.float64]

    @property
    def nodes(self) -> NDArray[np.bool_]:
        """Which cells (t, m-1) of the padded arrays are nodes."""
        return _cells(self.n_leaves - 1)


def read_trees(text: str) -> ParsedTrees:
    """The trees of a model text with any number of classes, numerical splits and constant leaves.

    Raises InputError, which names the tree and the line, where the text can't be used.
    """
    header, sections = _sections(text)
    n_columns = _count(header, "max_feature_idx", low=0) + 1
    if len(header.get("feature_infos", "").split(" ")) != n_columns:
        raise InputError(f"model text: feature_infos does not describe {n_columns} columns")
    n_scores = _count(header, "num_tree_per_iteration", low=1)
    if len(sections) % n_scores:
        raise InputError(f"model text: {len(sections)} trees are not whole rounds of {n_scores}")
    n_leaves = np.array([_count(section, "num_leaves", low=1) for section in sections])
    decisions = _whole_numbers(sections, "decision_type", n_leaves - 1)
    trees = ParsedTrees(
        n_columns=n_columns,
        n_scores=n_scores,
        n_leaves=n_leaves,
        columns=_whole_numbers(sections, "split_feature", n_leaves - 1),
        thresholds=_decimals(sections, "threshold", n_leaves - 1),
        missing=decisions >> 2,
        default_left=(decisions & 2) > 0,
        left=_whole_numbers(sections, "left_child", n_leaves - 1),
        right=_whole_numbers(sections, "right_child", n_leaves - 1),
        leaf_values=_decimals(sections, "leaf_value", n_leaves),
    )
    _refuse_where((decisions < 0) | (decisions > 11) | (decisions % 2 > 0), "a decision_type that means nothing here")
    _refuse_where((trees.columns < 0) | (trees.columns >= n_columns), "a split_feature that is not a column")
    _refuse_where(~np.isfinite(trees.leaf_values), "a leaf_value that is not finite")
    _check_links(trees)
    return trees


def _sections(text: str) -> tuple[Section, list[Section]]:
    """The header's and each tree's lines by name, cut at the sizes that the header itself declares."""
    head, _, _ = text.partition("\nTree=0\n")
    header = _lines(head)
    if not head.startswith("tree\n") or header.get("version") != "v4":
        raise InputError("model text: not a LightGBM model of format v4")
    sizes = _parsed(header, "tree_sizes", _WHOLE)
    if not sizes:
        raise InputError("model text: no trees")
    ends = (np.cumsum([int(size) for size in sizes]) + len(head) + 1).tolist()
    if not text.startswith("end of trees\n", ends[-1]):
        raise InputError("model text: the trees do not end where tree_sizes says: the text is cut or changed")
    spans = itertools.pairwise([len(head) + 1, *ends])
    return header, [_section(i, text[start:end]) for i, (start, end) in enumerate(spans)]


def _section(i: int, text: str) -> Section:
    section = _lines(text)
    if not text.startswith(f"Tree={i}\n"):
        raise InputError(f"model text: tree {i} does not start where tree_sizes says: the text is cut or changed")
    for name, what in _REFUSED.items():
        if section.get(name) != "0":
            raise InputError(f"model text: tree {i} has {what} ({name} is not 0), which can't be scored here")
    return section


def _lines(text: str) -> Section:
    return {name: value for name, _, value in (line.partition("=") for line in text.split("\n"))}


def _parsed(section: Section, name: str, form: re.Pattern[str]) -> list[str]:
    where = f"tree {section['Tree']}" if "Tree" in section else "the header"
    if name not in section:
        raise InputError(f"model text: {where} has no line {name}")
    if not form.fullmatch(section[name]):
        raise InputError(f"model text: {where} has values in {name} that are not numbers")
    return section[name].split()


def _count(section: Section, name: str, *, low: int) -> int:
    words = _parsed(section, name, _WHOLE)
    if len(words) != 1 or int(words[0]) < low:
        raise InputError(f"model text: {name} is {section[name]!r}, not one number from {low}")
    return int(words[0])


def _whole_numbers(sections: list[Section], name: str, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The line `name` of every tree as rows (t, max(counts)), padded with 0."""
    numbers = [int(word) for word in _words(sections, name, counts, _WHOLE)]
    padded = np.zeros((len(counts), counts.max()), np.int64)
    padded[_cells(counts)] = numbers
    return padded


def _decimals(sections: list[Section], name: str, counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The same for decimals. Python's float(), like LightGBM's own parser, rounds to the nearest double."""
    numbers = [float(word) for word in _words(sections, name, counts, _DECIMAL)]
    padded = np.zeros((len(counts), counts.max()))
    padded[_cells(counts)] = numbers
    return padded


def _words(sections: list[Section], name: str, counts: NDArray[np.int64], form: re.Pattern[str]) -> Iterator[str]:
    for i, (section, n) in enumerate(zip(sections, counts.tolist(), strict=True)):
        words = _parsed(section, name, form)
        if len(words) != n:
            raise InputError(f"model text: tree {i} has {len(words)} values in {name}, not {n}")
        yield from words


def _cells(counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(t, max(counts)): which cells hold something when row i holds counts[i] values."""
    cells: NDArray[np.bool_] = np.arange(counts.max()) < counts[:, None]
    return cells


def _check_links(trees: ParsedTrees) -> None:
    """Refuse links that are not a tree.

    A tree of l leaves has 2l - 2 links and as many places to link to: when each link leads to a leaf or to a node with
    a higher number, and no two lead to the same, everything hangs together below the root.
    """
    width = trees.leaf_values.shape[1]
    links = np.zeros((len(trees.n_leaves), 2 * width - 1), np.int64)
    for child in (trees.left, trees.right):
        lost = (child < -trees.n_leaves[:, None]) | (child > trees.n_leaves[:, None] - 2)
        backward = (child >= 0) & (child <= np.arange(width - 1))
        _refuse_where(trees.nodes & (lost | backward), "a child that is not one of its later nodes or leaves")
        at, node = np.nonzero(trees.nodes)
        np.add.at(links, (at, child[at, node] + width), 1)
    _refuse_where(links > 1, "a node or leaf with two parents")


def _refuse_where(wrong: NDArray[np.bool_], what: str) -> None:
    """Raise InputError for the first tree that has a wrong cell; wrong is (t, anything)."""
    if wrong.any():
        raise InputError(f"model text: tree {int(np.flatnonzero(wrong.any(axis=1))[0])} has {what}")
