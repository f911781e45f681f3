"""Model texts as LightGBM writes them, with trees that training would never grow, and rows to hit them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NEAR_ZERO = float(np.float32(1e-35))
EXTREMES = [0.0, -0.0, 1.0, NEAR_ZERO, -NEAR_ZERO, 5e-324, -5e-324, 2.2e-308, 1.7e308, -1.7e308, 1e300]


def random_model(
    rng: np.random.Generator, *, n_scores: int, n_rounds: int, n_columns: int, max_leaves: int, missing: Sequence[int]
) -> str:
    """A model whose every node splits anywhere, with any default side and any of these kinds of missing values."""
    pools = np.array([_pool(rng) for _ in range(n_columns)])
    trees = [
        _tree(rng, pools, n_leaves=int(rng.integers(1, max_leaves + 1)), missing=missing)
        for _ in range(n_rounds * n_scores)
    ]
    return text_of(trees, n_scores=n_scores, n_columns=n_columns)


def text_of(trees: Sequence[dict[str, Sequence[object]]], *, n_scores: int, n_columns: int) -> str:
    """The model text of trees given as their lines."""
    sections = [
        f"Tree={i}\nnum_leaves={len(tree['leaf_value'])}\nnum_cat=0\n"
        + "".join(f"{name}={' '.join(map(_written, values))}\n" for name, values in tree.items())
        + "is_linear=0\nshrinkage=1\n\n\n"
        for i, tree in enumerate(trees)
    ]
    return (
        f"tree\nversion=v4\nnum_class={n_scores}\nnum_tree_per_iteration={n_scores}\nlabel_index=0\n"
        f"max_feature_idx={n_columns - 1}\nfeature_names={' '.join(f'c{i}' for i in range(n_columns))}\n"
        f"feature_infos={' '.join(['none'] * n_columns)}\ntree_sizes={' '.join(str(len(s)) for s in sections)}\n\n"
        + "".join(sections)
        + "end of trees\n"
    )


def rows_near(rng: np.random.Generator, thresholds: NDArray[np.float64], n: int, n_columns: int) -> NDArray[np.float64]:
    """Rows (n, n_columns) of values at, just below and just above the thresholds, with gaps and infinities."""
    values = np.concatenate([thresholds, EXTREMES])
    every = [values, np.nextafter(values, np.inf), np.nextafter(values, -np.inf), -values, [np.nan, np.inf, -np.inf]]
    rows = rng.choice(np.concatenate(every), (n, n_columns))
    return np.where(rng.random((n, n_columns)) < 0.3, rng.integers(0, 2, (n, n_columns)), rows)


def _written(value: object) -> str:
    return f"{value:.17g}" if isinstance(value, float) else str(value)


def _pool(rng: np.random.Generator) -> list[float]:
    return [*EXTREMES, np.inf, *rng.normal(size=4).tolist(), *rng.integers(0, 90, 4).astype(float).tolist()]


def _tree(
    rng: np.random.Generator, pools: NDArray[np.float64], *, n_leaves: int, missing: Sequence[int]
) -> dict[str, Sequence[object]]:
    """Grown as LightGBM grows: each split turns a leaf into the next node, its right child into the next leaf."""
    columns, places = (rng.integers(0, n, n_leaves - 1) for n in pools.shape)
    left, right = [0] * (n_leaves - 1), [0] * (n_leaves - 1)
    parent: dict[int, tuple[list[int], int]] = {}
    for node, leaf in enumerate(rng.integers(0, np.arange(1, n_leaves)).tolist()):
        if leaf in parent:
            links, at = parent[leaf]
            links[at] = node
        left[node], right[node] = ~leaf, ~(node + 1)
        parent[leaf], parent[node + 1] = (left, node), (right, node)
    decisions = 4 * rng.choice(missing, n_leaves - 1) + 2 * rng.integers(0, 2, n_leaves - 1)
    magnitudes = 10.0 ** rng.choice([-300, -8, 0, 0, 0, 0, 3], n_leaves)
    return {
        "split_feature": columns.tolist(),
        "threshold": pools[columns, places].tolist(),
        "decision_type": decisions.tolist(),
        "left_child": left,
        "right_child": right,
        "leaf_value": np.where(rng.random(n_leaves) < 0.05, -0.0, rng.normal(size=n_leaves) * magnitudes).tolist(),
    }
