"""A growing block: what of it is fitted, what is fitted next, and its first rows on the way through.

It knows how each worker is to be fitted; it does not fit the ones that need more than a few rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from h3lab import worlds
from h3lab.errors import DataError
from h3lab.preparing import chain
from h3lab.preparing.cells import Cells, native
from h3lab.preparing.passes import Pending
from h3lab.preprocessor import Preprocessor
from h3lab.serial.fingerprints import fingerprint


@dataclass
class Growing:
    """A block on its way: the first rows as its next worker is given them, what is fitted and what is still to do."""

    block: Preprocessor
    x: Any
    seed: int
    stages: list[chain.Stage] = field(default_factory=list)
    pending: Pending | None = None
    how: list[dict[str, Any]] = field(default_factory=list)

    @property
    def where(self) -> str:
        """The block as errors call it."""
        return f"block {self.block.name!r}"

    @property
    def given(self) -> list[Any]:
        """The first rows, for each worker of the pending stage."""
        assert self.pending is not None
        return chain.inputs_of(self.pending.workers[0], self.x)

    def advance(self) -> None:
        """Go on to the next worker that must learn; what learns nothing is fitted on the first rows and applied."""
        self.pending = None
        for place in range(len(self.stages), len(self.block.workers)):
            worker = self.block.workers[place]
            given = chain.inputs_of(worker, self.x)
            clones = tuple(self._clone(worker, place, number) for number in range(len(given)))
            how = learns(clones, given)
            for one, x in zip(clones, given, strict=True):
                check_kinds(one, x, self.where)
            self.how.append(self._described(clones, place, how))
            if how in ("merged", "streamed", "column"):
                self.pending = Pending(clones, how == "merged")
                return
            if how == "applied":
                for one, x in zip(clones, given, strict=True):
                    with chain.naming(one, x, self.where):
                        one.fit(native(x))
            self.fitted(clones)

    def spent(self, seconds: float) -> None:
        """So long has the fitting of its pending worker taken, in whichever process."""
        self.how[-1]["seconds"] = round(self.how[-1].get("seconds", 0.0) + seconds, 6)

    def fitted(self, stage: chain.Stage) -> None:
        """The workers of the next stage are fitted."""
        self.x = chain.apply(stage, chain.inputs_of(stage[0], self.x), self.where)
        self.stages.append(stage)

    def _clone(self, worker: Any, place: int, number: int) -> Any:
        from sklearn.base import clone
        from sklearn.frozen import FrozenEstimator

        if isinstance(worker, FrozenEstimator):
            return worker  # a clone of a frozen one is itself, and it stays as it is
        fresh = clone(worker)
        for name, value in sorted(fresh.get_params(deep=True).items()):
            if value is None and (name == "random_state" or name.endswith("__random_state")):
                fresh.set_params(**{name: drawn(self.seed, self.block.name, place, number, name)})
        return fresh

    def _described(self, clones: chain.Stage, place: int, how: str) -> dict[str, Any]:
        found: dict[str, Any] = {"block": self.block.name, "place": place, "worker": chain.name_of(clones[0])}
        found |= {"how": how, "clones": len(clones), "columns": self.block.names if place == 0 else []}
        if how == "merged":
            found["bound"] = str(worlds.load("h3lab.workers:family")(clones[0]).bound(clones[0]))
        if sees_labels(clones[0]):
            found["labels"] = True
        states = {k: v for k, v in clones[0].get_params(deep=True).items() if k.endswith("random_state")}
        states = {k: v for k, v in states.items() if v != "deprecated"}
        if states:
            found["random_state"] = {k: v if isinstance(v, int) else repr(v) for k, v in states.items()}
        return found


def learns(clones: chain.Stage, given: Sequence[Any]) -> str:
    """How a stage is fitted: frozen, applied (it learns nothing), merged, streamed or column."""
    from sklearn.frozen import FrozenEstimator
    from sklearn.utils import get_tags

    worker = clones[0]
    if isinstance(worker, FrozenEstimator):
        return "frozen"
    if not get_tags(worker).requires_fit:
        return "applied"
    family = worlds.load("h3lab.workers:mergeable")(worker)
    if family is not None and all(family.takes(worker, x) for x in given):
        return "merged"
    return "streamed" if family is None and hasattr(worker, "partial_fit") else "column"


def check_kinds(worker: Any, x: Any, where: str) -> None:
    """DataError where a worker that takes numbers alone is given text, before a pass over all rows finds out."""
    from sklearn.utils import get_tags

    if not isinstance(x, Cells) or not type(worker).__module__.startswith("sklearn.") or contains(worker):
        return
    tags = get_tags(worker)
    expected = "text" if chain.takes_text(worker) else "numbers"
    if x.one and expected == "numbers" and tags.input_tags.two_d_array and not tags.no_validation:
        raise DataError(
            f"{where}, worker {chain.name_of(worker)}: it takes a table, and the string {x.names[0]!r} selects one 1-D "
            f"column. Write [{x.names[0]!r}] to give it a table of one column."
        )
    anything = tags.no_validation or tags.input_tags.categorical or tags.input_tags.string or tags.input_tags.dict
    if expected == "numbers" and (anything or getattr(worker, "strategy", None) in ("most_frequent", "constant")):
        return
    fitting = ("text", "null") if expected == "text" else ("number", "bool", "null")
    for name, found, type_ in zip(x.names, x.kinds, x.table.schema.types, strict=True):
        if found not in fitting:
            raise DataError(
                f"{where}, worker {chain.name_of(worker)}: column {name!r} is {type_}; a column of {expected} is "
                "expected. Give this column to a block of its own, or convert it in the source."
            )


def contains(worker: Any) -> bool:
    """Whether a worker passes its columns on to others, each of which checks its own."""
    worker = getattr(worker, "estimator", worker)
    return hasattr(worker, "transformers") or hasattr(worker, "transformer_list")


def drawn(seed: int, block: str, place: int, number: int, name: str) -> int:
    """The random state of a worker that has none: the same for a pipeline's seed and the worker's place in it."""
    return int(fingerprint(seed, block, place, number, name)[:7], 16)


def cross_fits(worker: Any) -> bool:
    """Whether a worker's ``fit_transform`` gives its training rows other values than ``transform`` does."""
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import TargetEncoder

    steps = [step for _, step in worker.steps] if isinstance(worker, Pipeline) else [worker]
    return any(isinstance(step, TargetEncoder) for step in steps)


def sees_labels(worker: Any) -> bool:
    """Whether a worker learns from the labels, so that rows it was fitted on cannot be held out afterwards."""
    from sklearn.utils import get_tags

    # Selectors by a score do not say so in their tags, because their score may be a function of the columns alone.
    return bool(get_tags(worker).target_tags.required) or hasattr(worker, "score_func")
