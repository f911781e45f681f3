from __future__ import annotations

import re

import lightgbm as lgb
import numpy as np
import pytest
from random_trees import random_model, text_of

from firstspin.models.trees.lightgbm_text import MISSING_NAN, MISSING_NONE, MISSING_ZERO, ParsedTrees, read_trees
from firstspin.records import InputError

# Tree 0: column 0 at most 30 ends in leaf 0; above, column 1 decides between the leaves 2 and 1. Tree 1 is one leaf.
STUMPS = [
    {
        "split_feature": [0, 1],
        "threshold": [30.0, 0.5],
        "decision_type": [10, 4],
        "left_child": [-1, -3],
        "right_child": [1, -2],
        "leaf_value": [0.25, -1.5, 3.0],
    },
    {name: [] for name in ("split_feature", "threshold", "decision_type", "left_child", "right_child")}
    | {"leaf_value": [0.125]},
]
TEXT = text_of(STUMPS, n_scores=2, n_columns=3)


def changed(old: str, new: str) -> str:
    """TEXT with tree 0's line changed, and its size with it, so that only the change itself is wrong."""
    assert TEXT.count(old) == 1
    size = int(re.search(r"tree_sizes=(\d+)", TEXT)[1])
    return TEXT.replace(old, new).replace(f"tree_sizes={size}", f"tree_sizes={size + len(new) - len(old)}")


def test_a_model_by_hand_comes_out_as_written():
    trees = read_trees(TEXT)
    assert (trees.n_columns, trees.n_scores) == (3, 2)
    assert trees.n_leaves.tolist() == [3, 1]
    assert trees.nodes.tolist() == [[True, True], [False, False]]
    assert trees.columns.tolist() == [[0, 1], [0, 0]]
    assert trees.thresholds.tolist() == [[30.0, 0.5], [0.0, 0.0]]
    assert trees.missing[0].tolist() == [MISSING_NAN, MISSING_ZERO]
    assert trees.default_left[0].tolist() == [True, False]
    assert trees.left[0].tolist() == [-1, -3]
    assert trees.right[0].tolist() == [1, -2]
    assert trees.leaf_values.tolist() == [[0.25, -1.5, 3.0], [0.125, 0.0, 0.0]]


def test_every_number_of_a_trained_model_is_the_one_lightgbm_holds():
    rng = np.random.default_rng(1)
    rows = np.where(rng.random((400, 3)) < 0.1, np.nan, rng.normal(size=(400, 3)))
    settings = {"objective": "multiclass", "num_class": 3, "num_leaves": 9, "verbosity": -1, "num_threads": 1}
    booster = lgb.train(settings, lgb.Dataset(rows, rng.integers(0, 3, 400)), 5)
    trees = read_trees(booster.model_to_string())
    dumped = booster.dump_model()["tree_info"]
    assert trees.n_leaves.tolist() == [tree["num_leaves"] for tree in dumped]
    for i, tree in enumerate(dumped):
        assert_same(trees, i, tree["tree_structure"])


def assert_same(trees: ParsedTrees, i: int, dumped: dict) -> None:
    if "leaf_value" in dumped:
        assert trees.leaf_values[i, dumped["leaf_index"]] == dumped["leaf_value"]
        return
    node = dumped["split_index"]
    codes = {"None": MISSING_NONE, "Zero": MISSING_ZERO, "NaN": MISSING_NAN}
    assert trees.columns[i, node] == dumped["split_feature"]
    assert trees.thresholds[i, node] == dumped["threshold"]
    assert trees.missing[i, node] == codes[dumped["missing_type"]]
    assert trees.default_left[i, node] == dumped["default_left"]
    for child, link in ((dumped["left_child"], trees.left[i, node]), (dumped["right_child"], trees.right[i, node])):
        assert link == (child["split_index"] if "split_index" in child else ~child["leaf_index"])
        assert_same(trees, i, child)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not a LightGBM model"),
        ("hello\n" * 9, "not a LightGBM model"),
        (TEXT.replace("version=v4", "version=v3"), "format v4"),
        (TEXT.replace("Tree=1\n", "Tree=2\n"), "tree 1 does not start"),
        (TEXT.replace("end of trees\n", ""), "cut or changed"),
        (TEXT.replace("leaf_value=0.25 ", "leaf_value=0.255 "), "cut or changed"),
        (re.sub("tree_sizes=.*", "tree_sizes=", TEXT), "no trees"),
        (re.sub("tree_sizes=.*\n", "", TEXT), "no line tree_sizes"),
        (re.sub("tree_sizes=.*", "tree_sizes=1 2 x", TEXT), "values in tree_sizes that are not numbers"),
        (TEXT.replace("iteration=2", "iteration=3"), "2 trees are not whole rounds of 3"),
        (TEXT.replace("iteration=2", "iteration=0"), "num_tree_per_iteration"),
        (TEXT.replace("max_feature_idx=2", "max_feature_idx=0"), "feature_infos"),
        (TEXT.replace("max_feature_idx=2", "max_feature_idx=99999999"), "feature_infos"),
        (changed("num_cat=0\nsplit_feature=0 1", "num_cat=1\nsplit_feature=0 1"), "categorical splits"),
        (changed("3\nis_linear=0", "3\nis_linear=1"), "linear leaves"),
        (changed("num_leaves=3", "num_leaves=4"), "tree 0 has 2 values in decision_type, not 3"),
        (changed("num_leaves=3", "num_leaves=999999999"), "tree 0 has 2 values"),
        (changed("num_leaves=3", "num_leaves=0"), "num_leaves"),
        (changed("split_feature=0 1", "split_feature=0 3"), "not a column"),
        (changed("split_feature=0 1", "split_feature=0 -1"), "not a column"),
        (changed("threshold=30 0.5", "threshold=30 nan"), "values in threshold that are not numbers"),
        (changed("threshold=30 0.5", "threshold=3_0 0.5"), "values in threshold that are not numbers"),
        (changed("threshold=30 0.5", "threshold=30"), "1 values in threshold, not 2"),
        (changed("decision_type=10 4", "decision_type=12 4"), "decision_type"),
        (changed("decision_type=10 4", "decision_type=11 4"), "decision_type"),
        (changed("leaf_value=0.25 -1.5 3", "leaf_value=0.25 -1.5 inf"), "not finite"),
        (changed("leaf_value=0.25 -1.5 3", "leaf_value=0.25 -1.5 1e999"), "not finite"),
        (changed("leaf_value=0.25 -1.5 3", "leaf_valve=0.25 -1.5 3"), "no line leaf_value"),
        (changed("left_child=-1 -3", "left_child=-1 -4"), "later nodes or leaves"),
        (changed("left_child=-1 -3", "left_child=-1 1"), "later nodes or leaves"),
        (changed("right_child=1 -2", "right_child=0 -2"), "later nodes or leaves"),
        (changed("right_child=1 -2", "right_child=1 -1"), "two parents"),
    ],
)
def test_what_is_no_such_model_is_refused_by_name(text: str, complaint: str):
    with pytest.raises(InputError, match=complaint):
        read_trees(text)


def test_a_text_cut_anywhere_is_refused():
    whole = random_model(np.random.default_rng(2), n_scores=2, n_rounds=2, n_columns=3, max_leaves=5, missing=[0, 1, 2])
    read_trees(whole)
    for end in range(len(whole)):
        with pytest.raises(InputError):
            read_trees(whole[:end])


def test_a_damaged_text_gives_trees_or_an_input_error_and_nothing_else():
    rng = np.random.default_rng(3)
    whole = random_model(rng, n_scores=2, n_rounds=2, n_columns=3, max_leaves=5, missing=[0, 1, 2])
    refused = 0
    for _ in range(3000):
        damaged = list(whole)
        for at in rng.integers(0, len(whole), rng.integers(1, 4)):
            damaged[at] = str(rng.choice(list("0123456789-.e =\n\0é٣x")))
        try:
            read_trees("".join(damaged))
        except InputError:
            refused += 1
    assert refused > 1000
