"""Parameters of an estimator by name: its learned arrays where they are all of it, else its skops bytes as one array.

It knows which families are told by their arrays; it does not know specs' data or training.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from sklearn.base import clone

from h3lab.errors import ModelError
from h3lab.serial import trust
from h3lab.spec import Spec

#: The one name under which anything but linear models, perceptrons and naive Bayes gives itself.
WHOLE = "estimator"
_FAMILIES = ("sklearn.linear_model.", "sklearn.svm._classes", "sklearn.naive_bayes", "sklearn.neural_network.")
_ARRAYS = tuple(
    "coef_ intercept_ coefs_ intercepts_ theta_ var_ class_prior_ class_count_ feature_count_ feature_log_prob_ "
    "class_log_prior_".split()
)


def parameters(estimator: Any) -> dict[str, np.ndarray]:
    """Copies of the learned arrays (``coef_``, ``intercept_``, ``coefs_.0``, ``theta_``, ...), or ``{"estimator":
    bytes as uint8}``."""
    named = _named(estimator)
    if named:
        return {name: np.array(value) for name, value in named.items()}
    return {WHOLE: np.frombuffer(trust.dumps(estimator, type(estimator).__name__, lent=True), np.uint8).copy()}


def with_parameters(estimator: Any, given: Mapping[str, np.ndarray], spec: Spec, types: Iterable[Any]) -> Any:
    """The estimator with these parameters; it may be unfitted. ModelError lists what does not fit."""
    if list(given) == [WHOLE]:
        loaded = trust.loads(np.asarray(given[WHOLE], np.uint8).tobytes(), types, "a model's parameters")
        if type(loaded) is not type(estimator):
            raise ModelError(
                f"these are parameters of a {type(loaded).__name__}, the model is a {type(estimator).__name__}."
            )
        return loaded
    made = estimator if _named(estimator) else _prepared(estimator, given, spec)
    mine = _named(made) or {WHOLE: np.empty(0)}
    wrong = [f"{name} is missing" for name in mine.keys() - given.keys()]
    wrong += [f"{name} is not in the {type(estimator).__name__}" for name in given.keys() - mine.keys()]
    wrong += [
        f"{name} has shape {np.shape(given[name])}, the model's has {np.shape(mine[name])}"
        for name in mine.keys() & given.keys()
        if np.shape(given[name]) != np.shape(mine[name])
    ]
    if wrong:
        raise ModelError("these parameters do not fit the model: " + "; ".join(sorted(wrong)) + ".")
    for name, value in mine.items():
        _set(made, name, value, given[name])
    return made


def _set(estimator: Any, name: str, old: Any, new: Any) -> None:
    if isinstance(old, np.ndarray) and old.dtype == new.dtype:
        old[...] = new  # in place: stochastic descent keeps other names for the same array
        return
    name, _, place = name.partition(".")
    if place:
        getattr(estimator, name)[int(place)] = np.array(new)
    else:
        setattr(estimator, name, np.array(new) if isinstance(old, np.ndarray) else new[()])


def _named(estimator: Any) -> dict[str, Any]:
    if not type(estimator).__module__.startswith(_FAMILIES):
        return {}
    named: dict[str, Any] = {}
    for name in _ARRAYS:
        value = vars(estimator).get(name)
        if isinstance(value, list):
            named |= {f"{name}.{i}": item for i, item in enumerate(value)}
        elif isinstance(value, (np.ndarray, np.floating, float)):
            named[name] = value
    # An intercept alone, as a support vector machine with a kernel has, is not all of a model.
    return named if len(named) > 1 else {}


def _prepared(estimator: Any, given: Mapping[str, Any], spec: Spec) -> Any:
    """A copy with arrays of these types, if it has any: it learns from a few made-up rows of the spec."""
    made = clone(estimator, safe=False)
    if not type(estimator).__module__.startswith(_FAMILIES):
        return made
    types = [value.dtype for value in given.values() if value.dtype.kind == "f"]
    rows = 10 * max(spec.classes or 1, 2)
    random = np.random.default_rng(0)
    x = random.random((rows, spec.features)).astype(types[0] if types else np.float64)
    if spec.classes is not None:
        y = np.asarray(spec.labels)[np.arange(rows) % spec.classes]
    else:
        y = random.random((rows, spec.outputs) if spec.outputs > 1 else rows) + 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it did not converge on nonsense
        made.fit(x, y)
    return made
