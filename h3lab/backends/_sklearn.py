"""SklearnModel: any scikit-learn classifier or regressor as a Model, and whatever has their methods.

It knows how an estimator is built, taught and asked; what it *is* stands in ``_sklearn_traits``, what it answers in
``_sklearn_answers``, what it learns from in ``_sklearn_soft``.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, get_tags

from h3lab import brief
from h3lab.backends import _sklearn_traits as traits
from h3lab.backends._sklearn_answers import answers
from h3lab.backends._sklearn_parameters import parameters, with_parameters
from h3lab.backends._sklearn_soft import Lesson, lesson, measures
from h3lab.backends._sklearn_traits import Traits
from h3lab.batch import Batch, Inputs, dense, rows_of
from h3lab.errors import DataError, ModelError, NotFittedError, SpecMismatch, UsageError, guided
from h3lab.feeds import arrays
from h3lab.model import Capabilities
from h3lab.serial import trust
from h3lab.settings import Setting, Settings
from h3lab.spec import Spec, Task

#: A step's metrics are measured on at most this many of its rows, evenly spaced: some estimators learn in no time and
#: answer slowly.
MEASURED_ROWS = 4096
_CAPABLE = (
    "Take an estimator with both (LogisticRegression, SGDClassifier(loss='log_loss'), MLPClassifier, naive Bayes, "
    "trees, forests, boosting)"
)


@guided
class SklearnModel(BaseEstimator):
    """A scikit-learn estimator and how it is trained. The estimator given is never changed: a clone learns, and its
    ``random_state``, where None, comes from the run's seed. One that came fitted answers at once.

    It keeps what it learned through :meth:`build` too, as a torch module keeps its weights; ``h3.train`` begins with an
    unfitted clone, as ``fit`` does everywhere in scikit-learn.

    It learns by batches where it has ``partial_fit``, by increments (one record an added member) where it is an
    ensemble with ``warm_start=True``, else whole, in one ``fit``. It is fitted on the labels as they stand in the
    source, so ``native`` is an estimator like any other. A step's loss and accuracy are those *after* it, on at most
    4096 of its rows.

    ``clip``: the least probability it answers with, because members that only vote give exact zeros, and a logarithm
    has none of zero; None chooses about one vote (1/(trees + 1) for a forest), 1e-12 for those that do not vote.
    """

    def __init__(self, estimator: Any, *, clip: float | None = None) -> None:
        self.estimator = estimator
        self.clip = clip

    @property
    def capabilities(self) -> Capabilities:
        """See :class:`h3lab.model.Capabilities`."""
        has, grows = self._traits, self._traits.grows
        probabilities = has.task == "regression" or hasattr(self._asked(), "predict_proba")
        return Capabilities(
            learns=has.learns,
            sparse=has.sparse,
            weights=has.weight is not None,
            soft_targets=("kl",) if has.task == "regression" or (probabilities and has.weight) else (),
            steps=None if grows is None else int(getattr(self.estimator, grows)),
            epochs=1 if has.learns == "batches" and has.counts else None,
            probabilities=probabilities,
        )

    @property
    def settings(self) -> tuple[Setting, ...]:
        """``lr``, steerable, where a learning rate takes effect in mid-training; else none."""
        name = self._traits.rate
        if name is None:
            return ()
        lr = Setting("lr", float, 1e-3, low=0.0, log=True, help=f"learning rate ({name})")
        return (dataclasses.replace(lr, default=lr.check(getattr(self.estimator, name))),)

    @property
    def task(self) -> Task | None:
        """What the estimator predicts; None where it does not say."""
        return self._traits.task

    @property
    def spec(self) -> Spec | None:
        """The spec it was built for, or what an estimator that came fitted tells of its data; None if nothing does."""
        if hasattr(self, "estimator_"):
            return self.spec_
        columns = getattr(self.estimator, "n_features_in_", None)
        if columns is None or not traits.is_fitted(self.estimator):
            return None
        row = np.zeros((1, columns))
        if self.task != "regression":
            labels = np.asarray(self.estimator.classes_)
            return arrays.describe(row, "classification", labels, len(labels))
        return arrays.describe(row, "regression", None, traits.targets_of(self.estimator))

    @property
    def native(self) -> Any:
        """The trained estimator itself."""
        return self._learned()

    def build(self, spec: Spec, seed: int) -> None:
        """See :meth:`h3lab.model.Model.build`."""
        if not all(hasattr(self.estimator, name) for name in ("fit", "predict")):
            raise UsageError(f"SklearnModel({self.estimator!r}) came; expected an object with fit and predict.")
        if self.task is not None and self.task != spec.task:
            raise SpecMismatch(
                f"{self._name} is a {'classifier' if self.task == 'classification' else 'regressor'}, and the data is "
                f"{spec}. Use an estimator for that, or say task={self.task!r}."
            )
        if self.clip is not None:
            Setting("clip", float, 1e-3, low=1e-300, high=0.5).check(self.clip)
        self._built_as = Traits.of(self.estimator)
        grows = self._built_as.grows
        if traits.is_fitted(self.estimator):
            self._check_same(spec)
            self.estimator_ = copy.deepcopy(self.estimator)
            members = 0 if grows is None else getattr(self.estimator, grows)
        else:
            self.estimator_, members = traits.fresh(self.estimator, seed), 0
        self.spec_, self.temperature_, self._steps = spec, 1.0, members

    def step(self, batch: Batch, settings: Settings) -> Mapping[str, Any]:
        """See :meth:`h3lab.model.Model.step`."""
        if not hasattr(self, "estimator_"):
            raise NotFittedError(f"this {self._name} is not built yet: call build(spec, seed), or train it.")
        if batch.soft is not None and settings.soft and not self.capabilities.soft_targets:
            lacks = "probabilities" if self._traits.weight else "weights of rows"
            raise ModelError(
                f"{self._name} has no {lacks}, so it cannot learn a teacher's probabilities. {_CAPABLE}, or let "
                "this one learn from labels alone: soft=0, hard=1."
            )
        batch = dataclasses.replace(batch, x=self._table(batch.x))
        chosen = lesson(batch, settings, self.spec_)
        if self._traits.rate is not None:
            traits.set_rate(self.estimator_, self._traits.rate, settings.lr)
        try:
            if len(chosen.y):
                self._learn(chosen)
        except (ValueError, TypeError) as error:
            if "overflow" in str(error):  # stochastic descent that diverged: the training loop knows what to do then
                return {"loss": float("nan")}
            raise DataError(f"{self._name} cannot learn from these rows: {error}") from error
        self.temperature_ = float(chosen.temperature)
        some = batch.take(slice(None, None, -(-len(batch) // MEASURED_ROWS))) if len(batch) > MEASURED_ROWS else batch
        return measures(self._logits(some.x), some, settings, self.spec_)

    def logits(self, x: Inputs) -> np.ndarray:
        """See :meth:`h3lab.model.Model.logits`. An estimator without probabilities (``capabilities.probabilities``)
        answers with its margins."""
        self._learned()
        return self._logits(self._table(x))

    def parameters(self) -> dict[str, np.ndarray]:
        """See :meth:`h3lab.model.Model.parameters`: the learned arrays of linear models, perceptrons and naive Bayes
        (``coef_``, ...); ``estimator``, skops bytes, of any other. A student of softened answers adds ``temperature``,
        by which its log-probabilities are multiplied."""
        found = parameters(self._learned())
        return found if self._temperature == 1.0 else {**found, "temperature": np.array(self._temperature)}

    def load_parameters(self, parameters: Mapping[str, np.ndarray]) -> None:
        """See :meth:`h3lab.model.Model.load_parameters`."""
        self._built()
        given = dict(parameters)
        temperature = float(given.pop("temperature", 1.0))
        self.estimator_ = with_parameters(self.estimator_, given, self.spec_, trust.types_in(self.estimator))
        self.temperature_ = temperature
        if (grows := self._traits.grows) is not None:  # the next step adds to the members that came
            self._steps = int(getattr(self.estimator_, grows))

    def state(self) -> dict[str, Any]:
        """See :meth:`h3lab.model.Model.state`."""
        self._built()
        saved = trust.dumps(self.estimator_, self._name, lent=True)
        return {"estimator": saved, "temperature": self.temperature_, "steps": self._steps}

    def load_state(self, state: Mapping[str, Any], types: Iterable[Any] = ()) -> None:
        """See :meth:`h3lab.model.Model.load_state`. Classes that the estimator given is made of are trusted in it, and
        ``types``."""
        self._built()
        known = [*types, *trust.types_in(self.estimator)]
        self.estimator_ = trust.loads(state["estimator"], known, "a model's state")
        self.temperature_, self._steps = float(state["temperature"]), int(state["steps"])

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        shown = "" if self.task == "regression" else f", clip={self._clip:.3g}"
        shown += "" if self._temperature == 1.0 else f", temperature={self._temperature:g}"
        return f"SklearnModel({brief.word(self.estimator, brief.LINE - len(shown) - 14)}{shown})"

    def __sklearn_tags__(self) -> Tags:
        try:
            return copy.deepcopy(get_tags(self.estimator))
        except (AttributeError, TypeError):
            return super().__sklearn_tags__()

    def _check_same(self, spec: Spec) -> None:
        own = self.spec
        if own is None or (own.labels, own.features, own.outputs) == (spec.labels, spec.features, spec.outputs):
            return
        raise SpecMismatch(
            f"{self._name} came fitted on {own} {own.labels or ''}, and the data is {spec} {spec.labels or ''}. Give "
            "an unfitted one (sklearn.base.clone), or the data that it knows."
        )

    def _learn(self, chosen: Lesson) -> None:
        model, has = self.estimator_, self._traits
        y = chosen.y if self.spec_.classes is None else np.asarray(self.spec_.labels)[chosen.y]
        options: dict[str, Any] = {}
        if chosen.weight is not None:
            if has.weight is None:
                raise ModelError(
                    f"{self._name} takes no weights of rows, which come here from class_weight=, sample_weight= or the "
                    f"pipeline's weight column. {_CAPABLE}, or leave them out."
                )
            options[has.weight] = chosen.weight
        if has.grows is not None:
            model.set_params(**{has.grows: self._steps + 1})
        if has.learns == "batches":
            if self.spec_.classes is not None:
                options["classes"] = np.asarray(self.spec_.labels)
            # A perceptron would cut a batch into smaller ones.
            if getattr(self.estimator, "batch_size", None) == "auto":
                model.batch_size = rows_of(chosen.x)
        getattr(model, has.method)(chosen.x, y, **options)
        self._steps += 1

    def _table(self, x: Inputs) -> Any:
        """Inputs as the estimator takes them: two-dimensional, blocks side by side, sparse only where it may be."""
        if isinstance(x, Mapping):
            blocks = [_flat(block) for block in x.values()]
            if any(hasattr(block, "indptr") for block in blocks):
                import scipy.sparse

                x = scipy.sparse.hstack(blocks, format="csr")
            else:
                x = np.hstack(blocks)
        if not self._traits.sparse:
            x = dense(x)
        x = _flat(x)
        spec = self.spec
        if spec is not None and hasattr(x, "shape") and x.shape[1] != spec.features:
            raise SpecMismatch(f"{x.shape[1]} columns came; {self._name} was built for {spec.features} ({spec}).")
        return traits.named(self._asked(), x)

    def _logits(self, table: Any) -> np.ndarray:
        model, spec = self._learned(), self.spec
        if spec is None:  # fitted elsewhere, on something else than columns of numbers
            labels = getattr(model, "classes_", None)
            spec = arrays.describe(np.zeros((1, 1)), self.task or "regression", labels, 1)
        return answers(model, table, spec, self._clip) * self._temperature

    def _learned(self) -> Any:
        model = self._asked()
        if traits.is_fitted(model):
            return model
        raise NotFittedError(f"this {self._name} has not learned anything yet: train it, or give a fitted one.")

    def _built(self) -> None:
        if not hasattr(self, "estimator_"):
            raise NotFittedError(f"this {self._name} is not built yet: call build(spec, seed) first.")

    def _asked(self) -> Any:
        return getattr(self, "estimator_", self.estimator)

    @property
    def _traits(self) -> Traits:
        return self._built_as if hasattr(self, "_built_as") else Traits.of(self.estimator)

    @property
    def _clip(self) -> float:
        return traits.clip_of(self._asked()) if self.clip is None else self.clip

    @property
    def _temperature(self) -> float:
        return float(getattr(self, "temperature_", 1.0))

    @property
    def _name(self) -> str:
        return type(self.estimator).__name__


def _flat(x: Any) -> Any:
    return x.reshape(len(x), -1) if isinstance(x, np.ndarray) and x.ndim > 2 else x
