"""A package of a third party that registers a worker, for tests to install in a folder of its own."""

import importlib
import os
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

from h3lab import workers

WORKER = """
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from h3lab.preparing.bound import Bound
from h3lab.preparing.cells import matrix
from h3lab.preparing.mergeable import Plain

class Centre(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.middle_ = (np.min(X, axis=0) + np.max(X, axis=0)).to_numpy() / 2
        return self
    def transform(self, X):
        return np.asarray(X) - self.middle_

class CentreFamily(Plain):
    wraps = Centre
    def partial(self, worker, x):
        return {"low": np.fmin.reduce(matrix(x)), "high": np.fmax.reduce(matrix(x))}
    def merge(self, states):
        low, high = (np.stack([state[name] for state in states]) for name in ("low", "high"))
        return {"low": np.fmin.reduce(low), "high": np.fmax.reduce(high)}
    def finish(self, worker, state, x):
        worker.middle_ = (state["low"] + state["high"]) / 2

family = CentreFamily()
"""


def install(site: Path, monkeypatch: pytest.MonkeyPatch, code: str = "", entry: str = "family") -> ModuleType:
    """Put the package ``centring`` into ``site``, with ``code`` at its end and an entry point that names ``entry``, as
    ``pip install -e`` would; import it here, and let processes that start from now on find it."""
    (site / "centring-1.dist-info").mkdir(parents=True)
    (site / "centring.py").write_text(WORKER + textwrap.dedent(code))
    (site / "centring-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: centring\nVersion: 1\n")
    (site / "centring-1.dist-info" / "entry_points.txt").write_text(f"[h3lab.workers]\nmiddle = centring:{entry}\n")
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
    monkeypatch.syspath_prepend(site)
    workers._of.cache_clear()
    package = importlib.import_module("centring")
    monkeypatch.setitem(sys.modules, "centring", sys.modules.pop("centring"))  # gone after the test
    return package
