"""Workers: mergeable fits of scikit-learn's transformers, one file a family, and the table of them.

It knows which class is fitted how; it does not know parts, passes or files.
"""

from __future__ import annotations

import importlib
import socket
import sys
import warnings
from functools import cache
from typing import Any

from h3lab.errors import MissingExtra, UsageError
from h3lab.preparing.mergeable import Mergeable
from h3lab.worlds import plugs

#: What a family is called for.
PROMISED = ("bound", "takes", "digest", "partial", "merge", "finish", "transform")

#: Class → the family that merges it. A subclass may have changed anything, so it is looked up by its own name only.
FAMILIES = {
    "sklearn.preprocessing._data.StandardScaler": "h3lab.workers.scalers:Standard",
    "sklearn.preprocessing._data.MinMaxScaler": "h3lab.workers.scalers:MinMax",
    "sklearn.preprocessing._data.MaxAbsScaler": "h3lab.workers.scalers:MaxAbs",
    "sklearn.preprocessing._encoders.OneHotEncoder": "h3lab.workers.encoders:OneHot",
    "sklearn.preprocessing._encoders.OrdinalEncoder": "h3lab.workers.encoders:Ordinal",
    "sklearn.impute._base.SimpleImputer": "h3lab.workers.imputers:Simple",
    "sklearn.impute._base.MissingIndicator": "h3lab.workers.imputers:Indicator",
    "sklearn.feature_extraction.text.CountVectorizer": "h3lab.workers.text:Counting",
    "sklearn.feature_extraction.text.TfidfVectorizer": "h3lab.workers.text:Weighting",
    "sklearn.feature_extraction.text.TfidfTransformer": "h3lab.workers.tfidf:Tfidf",
    "sklearn.preprocessing._polynomial.PolynomialFeatures": "h3lab.workers.shapes:ShapeOnly",
    "sklearn.preprocessing._discretization.KBinsDiscretizer": "h3lab.workers.bins:UniformBins",
    "sklearn.feature_selection._variance_threshold.VarianceThreshold": "h3lab.workers.selectors:Variance",
    "sklearn.feature_selection._univariate_selection.SelectKBest": "h3lab.workers.selectors:Scored",
    "sklearn.feature_selection._univariate_selection.SelectPercentile": "h3lab.workers.selectors:Scored",
    "sklearn.feature_selection._univariate_selection.SelectFpr": "h3lab.workers.selectors:Scored",
    "sklearn.feature_selection._univariate_selection.SelectFdr": "h3lab.workers.selectors:Scored",
    "sklearn.feature_selection._univariate_selection.SelectFwe": "h3lab.workers.selectors:Scored",
    "sklearn.feature_selection._univariate_selection.GenericUnivariateSelect": "h3lab.workers.selectors:Scored",
    "sklearn.decomposition._pca.PCA": "h3lab.workers.projections:Pca",
    "sklearn.decomposition._truncated_svd.TruncatedSVD": "h3lab.workers.projections:TruncatedSvd",
}


def mergeable(worker: Any) -> Mergeable | None:
    """The family that fits a worker in parts, or None where there is none. UsageError: a third party registered one
    that lacks some of a Mergeable."""
    kind: Any = type(worker)
    return _of(kind)


def family(worker: Any) -> Mergeable:
    """The same where there has to be one; MissingExtra where another process has found it and this one does not."""
    found = mergeable(worker)
    if found is None:
        package = type(worker).__module__.partition(".")[0]
        raise MissingExtra(
            f"no family merges the fits of {type(worker).__name__} on {socket.gethostname()}: none of the table, and "
            f"none is registered under h3lab.workers for Python in {sys.prefix}. If {package!r} brings one, install "
            f"{package!r} there as it is where the fit began: pip install {package}"
        )
    return found


@cache
def _of(kind: type[Any]) -> Mergeable | None:
    bases = {_name(base) for base in kind.__mro__}
    for where, plug in plugs("workers"):
        wrapped = getattr(plug, "wraps", None)
        classes = wrapped if isinstance(wrapped, tuple) else (wrapped,)
        if not all(isinstance(one, type) for one in classes):
            warnings.warn(
                f"{where} merges nothing: its wraps is {wrapped!r}; expected the class of workers that it is for, or a "
                "tuple of classes. Every other worker is fitted as without it.",
                stacklevel=2,
            )
        # By name, because a class that was defined in a notebook is another object on an engine.
        elif bases & {_name(one) for one in classes}:
            return _checked(plug, where, kind)
    module, _, found = FAMILIES.get(_name(kind), "").partition(":")
    return getattr(importlib.import_module(module), found)() if module else None


def _checked(plug: Any, where: str, kind: type[Any]) -> Mergeable:
    """A registered family, or an instance of the class that was registered in its place."""
    try:
        made: Mergeable = plug() if isinstance(plug, type) else plug
    except TypeError as error:
        raise UsageError(
            f"{where} is a class that is not made without arguments ({error}). Register an instance."
        ) from error
    missing = [name for name in PROMISED if not callable(getattr(made, name, None))]
    missing += [name for name in ("kept", "labelled") if not hasattr(made, name)]
    if missing:
        raise UsageError(
            f"{where}, which is to merge the fits of {kind.__name__}, has no {', '.join(missing)}. Let it inherit from "
            "h3lab.preparing.mergeable.Plain, and see h3lab.preparing.mergeable.Mergeable for what each has to do."
        )
    return made


def _name(kind: type[Any]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
