"""Workers: mergeable fits of scikit-learn's transformers, one file a family, and the table of them.

It knows which class is fitted how; it does not know parts, passes or files.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from h3lab.preparing.mergeable import Mergeable
from h3lab.worlds import plugged

#: Class → the family that merges it. A subclass may have changed anything, so it is looked up by its own name only.
FAMILIES = {
    "sklearn.preprocessing._data.StandardScaler": "h3lab.workers.scalers:Standard",
    "sklearn.preprocessing._data.MinMaxScaler": "h3lab.workers.scalers:MinMax",
    "sklearn.preprocessing._data.MaxAbsScaler": "h3lab.workers.scalers:MaxAbs",
    "sklearn.preprocessing._encoders.OneHotEncoder": "h3lab.workers.encoders:OneHot",
    "sklearn.preprocessing._encoders.OrdinalEncoder": "h3lab.workers.encoders:Ordinal",
    "sklearn.impute._base.SimpleImputer": "h3lab.workers.imputers:Simple",
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
    """The family that fits a worker in parts, or None where there is none."""
    kind: Any = type(worker)
    return _of(kind)


@cache
def _of(kind: Any) -> Mergeable | None:
    for plug in plugged("workers"):
        if issubclass(kind, plug.wraps):
            return plug  # type: ignore[no-any-return]
    module, _, family = FAMILIES.get(f"{kind.__module__}.{kind.__qualname__}", "").partition(":")
    return getattr(importlib.import_module(module), family)() if module else None
