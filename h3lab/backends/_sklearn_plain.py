"""An actor as a plain scikit-learn estimator: its workers in a ColumnTransformer, its estimator behind them, all
fitted.

It knows scikit-learn's containers and a fitted pipeline's stages; it fits nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline as Row
from sklearn.preprocessing import FunctionTransformer

from h3lab.backends._sklearn import SklearnModel
from h3lab.backends._sklearn_answers import exact_of, unchanged
from h3lab.backends._sklearn_traits import takes_sparse
from h3lab.errors import ModelError, NotFittedError
from h3lab.preparing.chain import takes_text

if TYPE_CHECKING:
    from h3lab.actor import Actor
    from h3lab.pipeline import Pipeline


def to_sklearn(actor: Actor) -> Any:
    """The estimator itself where there is no pipeline, else a Pipeline that takes a DataFrame of raw rows. ModelError
    where the same answers take more than scikit-learn: another backend's model, joined blocks, a softened student."""
    if not actor.learned:
        raise NotFittedError(f"actor {actor.name!r} has not learned anything yet: actor.fit(X, y), or lab.train(...).")
    model, pipeline = actor.model_, actor.pipeline_
    if not isinstance(model, SklearnModel):
        raise ModelError(
            f"actor {actor.name!r} has a {type(model).__name__}, which is not scikit-learn's; use the actor."
        )
    estimator = _estimator(model)
    if pipeline is None:
        return estimator
    if pipeline.join != "concat":
        raise ModelError("join='blocks' has no counterpart in a ColumnTransformer; prepare with join='concat'.")
    steps = [("columns", _columns(pipeline, takes_sparse(estimator))), ("model", estimator)]
    if pipeline.dtype is not None and not any(block.sparse for block in pipeline.spec.blocks.values()):
        steps.insert(1, ("dtype", FunctionTransformer(np.dtype(pipeline.dtype).type)))
    return Row(steps)


def _estimator(model: SklearnModel) -> Any:
    """A copy of the trained estimator, with a student's temperature in its coefficients."""
    estimator, temperature = copy.deepcopy(model.native), float(model.parameters().get("temperature", 1.0))
    if temperature == 1.0:
        return estimator
    if exact_of(estimator) is not unchanged or not hasattr(estimator, "coef_"):
        raise ModelError(
            f"this {type(estimator).__name__} learned from answers softened by temperature {temperature:g}, and its "
            "probabilities are sharpened by it again, which it cannot do alone. Use the actor; actor.native is the "
            "estimator, with the same choices and softer probabilities."
        )
    estimator.coef_ = estimator.coef_ * temperature
    estimator.intercept_ = estimator.intercept_ * temperature
    return estimator


def _columns(pipeline: Pipeline, sparse: bool) -> ColumnTransformer:
    sparse = sparse and any(block.sparse for block in pipeline.spec.blocks.values())
    blocks = []
    for block in pipeline.preprocessors:
        workers = _row(pipeline.state.stages[block.name], block.columns)
        columns = block.columns if isinstance(block.columns, str) else list(block.columns)
        blocks.append((block.name, workers, columns))
    return _fitted(blocks, list(pipeline.state.schema.names), sparse)


def _row(stages: Any, columns: Any) -> Any:
    """The workers of a block as one transformer; workers over columns of text become a ColumnTransformer themselves,
    by name, or behind another worker, whose output is an array, by position."""
    steps: list[tuple[str, Any]] = []
    for number, stage in enumerate(stages):
        if isinstance(columns, str) or not takes_text(stage[0]):
            steps.append((f"worker{number}", copy.deepcopy(stage[0])))
            continue
        names = list(columns) if number == 0 else list(range(len(stage)))
        each = [(str(name), copy.deepcopy(worker), name) for name, worker in zip(names, stage, strict=True)]
        steps.append((f"worker{number}", _fitted(each, names, True)))
    if not steps:
        return FunctionTransformer()
    return steps[0][1] if len(steps) == 1 else Row(steps)


def _fitted(transformers: list[tuple[str, Any, Any]], names: Sequence[Any], sparse: bool) -> ColumnTransformer:
    """A ColumnTransformer around fitted transformers. It has no way to take them as they are, so it is fitted with ones
    that pass numbers through, on a made-up row, and theirs are put in their place."""
    made = ColumnTransformer([(name, FunctionTransformer(), _listed(columns)) for name, _, columns in transformers])
    made.fit(pd.DataFrame(np.zeros((1, len(names))), columns=names))
    made.transformers = [(name, worker, columns) for name, worker, columns in transformers]
    made.transformers_ = list(made.transformers)
    made.sparse_output_ = sparse
    return made


def _listed(columns: Any) -> list[Any]:
    return [columns] if isinstance(columns, str | int) else columns
