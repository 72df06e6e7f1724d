"""Traits of an estimator: what it is, how it can learn, what of it can be set. Asked of the object, never of a table of
names where its signature, tags or parameters tell.

It knows scikit-learn; it does not know batches or specs.
"""

from __future__ import annotations

import inspect
import zlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.base import clone
from sklearn.ensemble import BaggingClassifier, HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.ensemble._forest import BaseForest
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model._stochastic_gradient import BaseSGD
from sklearn.model_selection._search import BaseSearchCV
from sklearn.naive_bayes import _BaseNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network._multilayer_perceptron import BaseMultilayerPerceptron
from sklearn.pipeline import Pipeline
from sklearn.tree import BaseDecisionTree
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from h3lab.spec import Task

#: Schedules of stochastic gradient descent that read ``eta0`` at every step.
_STEERED = ("constant", "invscaling", "adaptive")
_METHODS = {"batches": "partial_fit", "increments": "fit", "whole": "fit"}


@dataclass(frozen=True)
class Traits:
    """What holds of an estimator through a whole training: its ``task``, how it ``learns``, by which ``method``; the
    names of the keyword for ``weight``, of the parameter that it ``grows`` by and of its learning ``rate``, or None;
    whether it takes ``sparse`` rows, and ``counts`` them."""

    task: Task | None
    learns: Literal["batches", "increments", "whole"]
    weight: str | None
    grows: str | None
    rate: str | None
    sparse: bool
    counts: bool

    @classmethod
    def of(cls, estimator: Any) -> Traits:
        """Ask the estimator, fitted or not."""
        how = learns(estimator)
        weight = weight_argument(estimator, _METHODS[how])
        sparse, counts = takes_sparse(estimator), isinstance(estimator, _BaseNB)
        return cls(task_of(estimator), how, weight, grows_by(estimator), rate_of(estimator), sparse, counts)

    @property
    def method(self) -> str:
        """``partial_fit`` or ``fit``."""
        return _METHODS[self.learns]


def task_of(estimator: Any) -> Task | None:
    """What the estimator predicts; None where neither tags nor methods tell."""
    try:
        kind = get_tags(estimator).estimator_type
    except (AttributeError, TypeError):  # no scikit-learn estimator, it only has its methods
        kind = getattr(estimator, "_estimator_type", None)
    if kind is None and (hasattr(estimator, "predict_proba") or hasattr(estimator, "classes_")):
        kind = "classifier"
    tasks: dict[str | None, Task] = {"classifier": "classification", "regressor": "regression"}
    return tasks.get(kind)


def is_fitted(estimator: Any) -> bool:
    """Whether it has learned something already."""
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return False
    except (TypeError, AttributeError):  # no estimator of scikit-learn's: what learning leaves behind tells
        return any(name.endswith("_") and not name.startswith("_") for name in vars(estimator))
    return True


def takes_sparse(estimator: Any) -> bool:
    """Whether its tags say that it takes CSR."""
    try:
        return bool(get_tags(estimator).input_tags.sparse)
    except (AttributeError, TypeError):
        return False


def core(estimator: Any) -> Any:
    """The estimator that answers: the last step of a pipeline, the best one of a search."""
    if isinstance(estimator, Pipeline):
        return core(estimator.steps[-1][1])
    if isinstance(estimator, FrozenEstimator):
        return core(estimator.estimator)
    if isinstance(estimator, BaseSearchCV):
        return core(getattr(estimator, "best_estimator_", estimator.estimator))
    return estimator


def named(estimator: Any, x: Any) -> Any:
    """An array with the column names that the estimator was fitted with: it would warn of, or fail on, the same columns
    without them."""
    names = getattr(estimator, "feature_names_in_", None)
    if names is None or not isinstance(x, np.ndarray):
        return x
    import pandas as pd

    return pd.DataFrame(x, columns=names)


def targets_of(estimator: Any) -> int:
    """How many targets a fitted regressor predicts. The last step is asked: the first may take no numbers."""
    last = core(estimator)
    row = np.zeros((1, getattr(last, "n_features_in_", estimator.n_features_in_)))
    return int(np.size(last.predict(named(last, row))))


def weight_argument(estimator: Any, method: str = "fit") -> str | None:
    """The keyword by which ``method`` takes weights of rows; None where it takes none."""
    if isinstance(estimator, Pipeline):
        name, last = estimator.steps[-1]
        inner = weight_argument(last)
        return None if inner is None else f"{name}__{inner}"
    if isinstance(estimator, BaseSearchCV):
        return weight_argument(estimator.estimator)
    found = getattr(estimator, method, None)
    return "sample_weight" if found is not None and "sample_weight" in inspect.signature(found).parameters else None


def grows_by(estimator: Any) -> str | None:
    """The parameter that counts the members of a warm-started ensemble; None for any other estimator."""
    parameters = _parameters(estimator)
    if parameters.get("warm_start") is not True:
        return None
    if isinstance(estimator, (HistGradientBoostingClassifier, HistGradientBoostingRegressor)):
        return "max_iter"
    return "n_estimators" if "n_estimators" in parameters else None


def learns(estimator: Any) -> Literal["batches", "increments", "whole"]:
    """See :class:`h3lab.model.Capabilities`. Early stopping and balanced classes need all rows at once, which is why
    scikit-learn refuses them in ``partial_fit``."""
    if grows_by(estimator) is not None:
        return "increments"
    parameters = _parameters(estimator)
    whole = parameters.get("early_stopping") is True or parameters.get("class_weight") == "balanced"
    return "batches" if hasattr(estimator, "partial_fit") and not whole else "whole"


def rate_of(estimator: Any) -> str | None:
    """The parameter that holds a learning rate which takes effect in mid-training; None where there is none.

    Gradient boosting has one too, but it scales the trees that are there already, so a change would rewrite the past;
    histogram boosting keeps it in the leaves.
    """
    if isinstance(estimator, BaseSGD):
        steered = "eta0" in _parameters(estimator) and estimator.learning_rate in _STEERED
        return "eta0" if steered else None
    if isinstance(estimator, BaseMultilayerPerceptron):
        return "learning_rate_init" if estimator.solver in ("adam", "sgd") else None
    return "learning_rate" if grows_by(estimator) == "max_iter" else None


def set_rate(estimator: Any, name: str, value: float) -> None:
    """Learn at this rate from the next step on."""
    old = getattr(estimator, name)
    if old == value:
        return
    estimator.set_params(**{name: value})
    optimizer = getattr(estimator, "_optimizer", None)  # of a multilayer perceptron, made from its parameters once
    if optimizer is not None:
        optimizer.learning_rate_init = optimizer.learning_rate = value
        if hasattr(optimizer, "velocities") and old > 0:
            # They have the rate in them, and would go on at the old one for tens of steps.
            optimizer.velocities = [velocity * (value / old) for velocity in optimizer.velocities]


def clip_of(estimator: Any) -> float:
    """About the least probability that the estimator can tell from zero: one vote of its members or neighbours."""
    last = core(estimator)
    if isinstance(last, (BaseForest, BaggingClassifier)):
        return 1.0 / (last.n_estimators + 1)
    if isinstance(last, KNeighborsClassifier):
        return 1.0 / (last.n_neighbors + 1)
    return 1e-3 if isinstance(last, BaseDecisionTree) else 1e-12


def fresh(estimator: Any, seed: int) -> Any:
    """An unfitted copy; every ``random_state`` that is None, of its parts too, is drawn from ``seed``."""
    made = clone(estimator, safe=False)
    if hasattr(made, "set_params"):
        names = [name for name, value in made.get_params().items() if value is None and _is_seed(name)]
        made.set_params(**{name: _drawn(seed, name) for name in names})
    return made


def _is_seed(name: str) -> bool:
    return name == "random_state" or name.endswith("__random_state")


def _drawn(seed: int, name: str) -> int:
    return int(np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1)[0] >> np.uint32(1))


def _parameters(estimator: Any) -> dict[str, Any]:
    return dict(estimator.get_params(deep=False)) if hasattr(estimator, "get_params") else {}
