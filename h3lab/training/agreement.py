"""Agreement: whether an actor's pipeline is the one that made a feed; where not, which worker differs.

It knows pipelines and their blocks; it does not know rows or models.
"""

from __future__ import annotations

from typing import Any

from h3lab import estimator
from h3lab.errors import SpecMismatch
from h3lab.feeds.feed import Feed
from h3lab.preparing.from_sklearn import blocks_of

_SETTINGS = ("label", "task", "weight", "join", "dtype", "seed")


def check(actor: Any, feed: Feed) -> None:
    """SpecMismatch where an actor has another pipeline than the feed; it names the worker."""
    mine, theirs = estimator.apart(actor.model, actor.pipeline)[1], feed.pipeline
    if mine is None:
        return
    if theirs is None:
        raise SpecMismatch(
            f"actor {actor.name!r} has a pipeline, and this feed was made from arrays without one. Train it on raw "
            "rows or on a feed of its pipeline; or leave pipeline out of the actor."
        )
    if not hasattr(mine, "recipe"):
        mine = _over_columns_of(theirs, mine)
    if mine.task is None and theirs.task is not None:
        mine = mine.with_fitted(None).replace(task=theirs.task)  # the label and the model leave nothing else to differ
    if mine.recipe != theirs.recipe:
        raise SpecMismatch(
            f"actor {actor.name!r} has another pipeline than the feed: {_difference(mine, theirs)}. Leave pipeline out "
            "of the actor, which then takes over the feed's; or prepare the rows with the actor's."
        )


def _over_columns_of(theirs: Any, transformer: Any) -> Any:
    """scikit-learn's transformer as a Pipeline over the columns that a fitted one takes, with its label."""
    from h3lab.pipeline import Pipeline

    blocks = blocks_of(transformer, theirs.state.schema.empty_table().to_pandas())
    return Pipeline(*blocks, **{name: getattr(theirs, name) for name in _SETTINGS})


def _difference(mine: Any, theirs: Any) -> str:
    ours = {block.name: block for block in mine.preprocessors}
    others = {block.name: block for block in theirs.preprocessors}
    if list(ours) != list(others):
        return f"its blocks are {list(ours)}, the feed's {list(others)}"
    for name, block in ours.items():
        other = others[name]
        if block.columns != other.columns:
            return f"block {name!r} takes {block.columns}, in the feed {other.columns}"
        for number in range(max(len(block.workers), len(other.workers))):
            pair = [str(w[number]) if number < len(w) else "none" for w in (block.workers, other.workers)]
            if pair[0] != pair[1]:
                return f"worker {number + 1} of block {name!r} is {pair[0]}, in the feed {pair[1]}"
    for name in _SETTINGS:
        if getattr(mine, name) != getattr(theirs, name):
            return f"{name} is {getattr(mine, name)!r}, in the feed {getattr(theirs, name)!r}"
    return "a worker or a column's source differs"
