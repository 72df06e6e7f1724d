"""Actor: a name, a model, a pipeline and training settings; a scikit-learn estimator.

It has parts and answers with them; how it is trained is ``training``'s, how it is kept ``saving``'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone
from sklearn.utils import Tags

from h3lab import estimator, pictures, worlds
from h3lab.errors import UsageError, guided
from h3lab.feeds import arrays, targets
from h3lab.feeds.feed import Feed
from h3lab.model import Model
from h3lab.options import Options
from h3lab.settings import Settings
from h3lab.spec import Spec, Task
from h3lab.training import answers, intake, validation

if TYPE_CHECKING:
    from h3lab.pipeline import Pipeline


@guided
class Actor(pictures.Displayed, estimator.Estimator):
    """A model with the preprocessing that makes its data: ``h3.Actor("student", LogisticRegression(), pipeline)``.

    ``model``: a Model such as TorchModel, or a native one (a scikit-learn estimator, a torch module), which is wrapped
    by its class. ``pipeline``: makes its rows from raw ones; training on a feed takes over the feed's. ``epochs``,
    ``batch_size``, ``validation`` (a fraction, a feed, (X, y) or raw rows), ``patience`` (epochs without progress of
    ``monitor``, after which the best epoch is kept), ``metrics`` (scikit-learn scorer names or functions
    ``f(y, predicted)``), ``seed``: see :func:`h3lab.train`.

    Learned: ``model_``, ``spec_``, ``pipeline_``, ``n_features_in_``, and ``classes_`` in a classification. Answers are
    labels as they stood in the source.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        pipeline: Pipeline | None = None,
        *,
        epochs: int = 10,
        batch_size: int = 64,
        validation: Any = None,
        patience: int | None = None,
        monitor: str = "val_loss",
        metrics: Any = None,
        seed: int = 0,
    ) -> None:
        self.name = name
        self.model = model
        self.pipeline = pipeline
        self.epochs = epochs
        self.batch_size = batch_size
        self.validation = validation
        self.patience = patience
        self.monitor = monitor
        self.metrics = metrics
        self.seed = seed

    # ---- Learning

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, **settings: Any) -> Actor:
        """Learn from (X, y), from raw rows where there is a pipeline, or from a Feed; from fresh parameters.
        ``settings``: as :func:`h3lab.train` takes them, for this once."""
        from h3lab.training.loop import train

        data = estimator.given(self, X, y, sample_weight)
        for _ in train(self, data, **settings):
            pass
        return self

    @estimator.available_if(estimator.learns_in_steps)
    def partial_fit(self, X: Any, y: Any = None, classes: Any = None, sample_weight: Any = None) -> Actor:
        """One pass over these rows, in batches, from where learning stands. ``classes``: all labels, at the first call
        where y does not show each."""
        from h3lab.training.loop import Training
        from h3lab.training.schedule import Schedule

        first = not self.learned
        model: Model = clone(worlds.wrap(self.model), safe=False) if first else self.model_
        pipeline = self.pipeline if first else self.pipeline_
        if isinstance(X, Feed):
            feed = intake.as_learned(self, X) if first else targets.like(X, self.spec_)
        elif pipeline is not None:
            feed = intake.apply(pipeline, X if y is None and sample_weight is None else (X, y, sample_weight))
        else:
            X, y, sample_weight = estimator.checked(self, X, y, sample_weight, reset=first)
            labels = classes if first else self.spec_.labels
            feed = Feed.of(X, y, weight=sample_weight, task=self.task, labels=labels)
        if not first:
            validation.check_same(feed, self.spec_, "partial_fit")
        options, _ = Options.of(self, {"epochs": 1, "validation": None, "patience": None}, ())
        schedule = Schedule(feed, model.capabilities, options)
        for _ in Training(self, model, schedule, None, Settings(model.settings), fresh=first):
            pass
        return self

    def adopt(self, model: Model, spec: Spec, pipeline: Pipeline | None) -> Actor:
        """Take over what was learned: a built model, the spec that it was built for, and the fitted pipeline."""
        self.model_, self.spec_, self.pipeline_ = model, spec, pipeline
        rows_alone = pipeline is None and len(spec.blocks) < 2
        self.n_features_in_ = spec.shape[0] if rows_alone else spec.features
        if pipeline is not None:
            self.n_features_in_ = len(pipeline.columns)
        if spec.labels is not None:
            self.classes_ = np.asarray(spec.labels)
        elif hasattr(self, "classes_"):
            del self.classes_
        return self

    # ---- Answers

    def predict(self, X: Any) -> np.ndarray:
        """(rows,) labels as they stood in the source, or predictions; (rows, targets) where there are several."""
        return answers.predictions(self.logits(X), self.spec_)

    @estimator.available_if(estimator.knows_probabilities)
    def predict_proba(self, X: Any) -> np.ndarray:
        """(rows, classes) probabilities, columns as in ``classes_``."""
        return answers.probabilities(self.logits(X))

    @estimator.available_if(estimator.classifies)
    def decision_function(self, X: Any) -> np.ndarray:
        """(rows, classes) logits; with two classes (rows,), how far the second is ahead."""
        return answers.decisions(self.logits(X))

    def logits(self, X: Any) -> np.ndarray:
        """(rows, outputs) log-probabilities up to a constant a row, or predictions. ``X``: raw rows (DataFrame, Arrow
        table, Source, list of dicts) or a Feed; arrays where the actor has no pipeline."""
        return self._answered(X, None, truth=False)[0]

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Accuracy, or R² in a regression."""
        from sklearn.metrics import accuracy_score, r2_score

        logits, codes, weight = self._answered(X, y)
        weight = weight if sample_weight is None else arrays.weights(sample_weight, len(logits))
        if self.spec_.task == "classification":
            return float(accuracy_score(codes, logits.argmax(axis=1), sample_weight=weight))
        return float(r2_score(codes, answers.predictions(logits, self.spec_), sample_weight=weight))

    def evaluate(self, X: Any, y: Any = None) -> dict[str, float]:
        """``loss``, ``accuracy`` in a classification, and the actor's ``metrics``."""
        logits, codes, weight = self._answered(X, y)
        metrics = Options.of(self, {}, ())[0].metrics
        return validation.score(logits, codes, weight, self.spec_, metrics, self.model_.capabilities)

    def plan(self, data: Any, **settings: Any) -> Any:
        """What memory ``train(actor, data, **settings)`` will need, and which batch fits: a :class:`Plan`."""
        return worlds.load("h3lab.training.plan:plan")(self, data, **settings)

    @property
    def native(self) -> Any:
        """The trained module or estimator itself, on the CPU, in evaluation mode."""
        self._check_learned()
        return self.model_.native

    def to_sklearn(self) -> Any:
        """A plain estimator or Pipeline with the same answers, where model and workers are scikit-learn's."""
        return worlds.load(worlds.TO_SKLEARN)(self)

    def save(self, path: str | Path) -> Path:
        """Keep it in a ``.h3`` file: weights and JSON, no pickle; see :func:`h3lab.load`."""
        from h3lab.saving import save

        return save(self, path)

    def check(self, lab: Any) -> list[str]:
        """What of it would not reach the engines of a lab, and why, a line each; an empty list where all does."""
        found: list[str] = estimator.lab_of(lab).check(self)
        return found

    @property
    def task(self) -> Task | None:
        """The task as learned; else as the pipeline or the model's kind says; None where the labels will tell."""
        return self.spec_.task if hasattr(self, "spec_") else estimator.declared_task(self.model, self.pipeline)

    # ---- Inside

    def _answered(self, X: Any, y: Any, truth: bool = True) -> tuple[np.ndarray, Any, Any]:
        """(logits, codes or floats, weights) of rows in any form."""
        self._check_learned()
        weight = None
        if isinstance(X, Feed):
            X = targets.like(X, self.spec_)
            validation.check_same(X, self.spec_, "the feed")
            logits = validation.logits_of(self.model_, X)
            if truth and y is None:
                return (logits, *validation.labels_of(X))
        elif self.pipeline_ is not None:
            told = ("label", "weight") if truth and y is None else ("weight",) if truth else ()
            batch = self.pipeline_.transform(intake.rows_for(self.pipeline_, X), told)
            logits, weight = self.model_.logits(batch.x), batch.weight
            if y is None and truth and batch.y is not None:
                return logits, batch.y, weight
        elif estimator.reads_raw(self.model_):
            logits = self.model_.logits(estimator.raw_columns(self.model_, X))
        else:
            X, y = estimator.unpaired(X, y)
            x = arrays.inputs(X) if isinstance(X, Mapping) else estimator.array(self, X, reset=False)
            validation.check_shape(x, self.spec_)
            logits = self.model_.logits(x)
        if truth and y is None:
            raise UsageError("there is nothing to compare the answers with: pass y, or rows with the label's column.")
        arrays.same_rows(logits, y=(codes := np.atleast_1d(self.spec_.encode(y)) if truth else None))
        return logits, codes, weight

    @property
    def learned(self) -> bool:
        """Whether it can answer. A native model that came fitted is taken in here, with what it tells of its data."""
        if not hasattr(self, "model_"):
            model = worlds.wrap(estimator.joined(self.model, self.pipeline))
            spec = getattr(model, "spec", None)
            if spec is None:
                return False
            model.build(spec, self.seed)
            self.adopt(model, spec, self.pipeline if getattr(self.pipeline, "fitted", False) else None)
        return True

    def _check_learned(self) -> None:
        if not self.learned:
            raise estimator.NotLearned(
                f"actor {self.name!r} has not learned anything yet: actor.fit(X, y), or lab.train(actor, feed) and "
                "then run.wait(), which loads the result into it (until then, run.actor is its newest snapshot)."
            )

    def __sklearn_clone__(self) -> Actor:
        return intake.with_fitted(super().__sklearn_clone__(), self.pipeline)  # type: ignore[no-any-return]

    def __sklearn_tags__(self) -> Tags:
        return estimator.complete(super().__sklearn_tags__(), self.model, self.task)


def __getattr__(name: str) -> Any:
    # `h3lab.load` opens what `Actor.save` wrote; saving imports this module.
    if name == "load":
        from h3lab.saving import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
