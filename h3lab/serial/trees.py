"""Trees: whether the nodes of a tree that came from a file lead nowhere but into the tree.

scikit-learn follows their numbers without a look; wrong ones would read memory that is not the tree's, or never end.
It knows trees and what is made of them; it does not know files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np


def sound(part: Any) -> bool:
    """Whether a tree, or an ensemble of such, can be asked; anything else can."""
    name = f"{type(part).__module__}.{type(part).__name__}"
    if name == "sklearn.tree._tree.Tree":
        return bool(part.capacity == part.node_count and _sound_tree(part))
    if name == "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor":
        return _sound_predictor(part)
    if name.startswith(("sklearn.tree.", "sklearn.ensemble.")) and hasattr(part, "n_features_in_"):
        return all(has == given for has, given in _widths(part))
    return True


def _widths(part: Any) -> Iterator[tuple[int, int]]:
    """For everything inside a tree or an ensemble: the columns that it reads, and those that it is given."""
    columns = part.n_features_in_
    if hasattr(part, "tree_"):
        yield part.tree_.n_features, columns
    trees = getattr(part, "estimators_", ())
    trees = list(trees.ravel() if isinstance(trees, np.ndarray) else trees)
    given = [len(drawn) for drawn in getattr(part, "estimators_features_", ())] or [columns] * len(trees)
    yield from (
        (tree.n_features_in_, width)
        for tree, width in zip(trees, given, strict=True)
        if hasattr(tree, "n_features_in_")
    )
    for predictor in (one for stage in getattr(part, "_predictors", ()) for one in stage):
        yield max(predictor.nodes["feature_idx"].max(initial=0) + 1, columns), columns


def _sound_tree(tree: Any) -> bool:
    own = np.arange(tree.node_count)
    inner = tree.children_left != -1
    below = np.concatenate([tree.children_left[inner], tree.children_right[inner]])
    # A child always comes after its parent, so there is no circle either.
    ordered = (below > np.concatenate([own[inner]] * 2)).all() and (below < tree.node_count).all()
    columns = tree.feature[inner]
    return bool(tree.node_count > 0 and ordered and (columns >= 0).all() and (columns < tree.n_features).all())


def _sound_predictor(predictor: Any) -> bool:
    nodes = predictor.nodes
    inner = nodes["is_leaf"] == 0
    own, below = np.arange(len(nodes))[inner], nodes[inner]
    ordered = all((below[side] > own).all() and (below[side] < len(nodes)).all() for side in ("left", "right"))
    categorical = below[below["is_categorical"] != 0]["bitset_idx"]
    bits = (predictor.raw_left_cat_bitsets, predictor.binned_left_cat_bitsets)
    enough = all(b.shape[1:] == (8,) and (categorical < len(b)).all() for b in bits)
    return bool(len(nodes) and ordered and enough and (below["feature_idx"] >= 0).all())
