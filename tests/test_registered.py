"""Workers of a third party: a package in a folder of its own, with a real entry point, here and in other processes."""

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from cuts import CutSource
from registering import install
from sklearn.preprocessing import StandardScaler

from h3lab import workers
from h3lab.cluster.executors import Processes
from h3lab.cluster.launch import own_modules
from h3lab.errors import MissingExtra, UsageError
from h3lab.pipeline import Pipeline, Preprocessor
from h3lab.preparing.prepare import prepare
from h3lab.testing import check_worker

FRAME = pd.DataFrame({"x": np.arange(12.0) ** 2, "z": np.arange(12.0)})


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModuleType]:
    return partial(install, tmp_path / "centring", monkeypatch)


def middles(worker: object, **given: object) -> tuple[str, list[float]]:
    feed = prepare(Pipeline(Preprocessor("n", ["x", "z"], worker)), CutSource(FRAME, [3, 3, 6]), **given)
    state = feed.pipeline.state
    return state.how[0]["how"], state.stages["n"][0][0].middle_.tolist()


def test_a_registered_family_keeps_its_promises_here_and_in_other_processes(installed):
    package = installed()
    check_worker(package.Centre(), FRAME)
    assert middles(package.Centre()) == ("merged", [60.5, 5.5])
    with Processes(1) as executor:
        assert middles(package.Centre(), executor=executor) == ("merged", [60.5, 5.5])


def test_a_registered_package_travels_by_reference(installed):
    import cloudpickle

    installed()
    with own_modules():
        assert not {"centring", "h3lab.workers"} & set(cloudpickle.list_registry_pickle_by_value())


def test_a_class_that_another_process_made_again_is_known_by_its_name(installed):
    package = installed()
    again = type("Centre", (package.Centre,), {"__module__": "centring", "__qualname__": "Centre"})
    assert isinstance(workers.mergeable(again()), package.CentreFamily)


def test_what_a_process_lacks_is_named():
    def work(number):
        return importlib.import_module("centring")

    with Processes(1) as executor:
        with pytest.raises(MissingExtra, match="'centring' is not installed, and the work on process0 needs it"):
            list(executor.map(work, [1]))


def test_a_family_that_this_process_lacks_is_named():
    with pytest.raises(MissingExtra, match="no family merges the fits of Pipeline .* install 'h3lab'"):
        workers.family(Pipeline(Preprocessor("n", ["x"])))


def test_a_class_may_be_registered_in_the_place_of_an_instance(installed):
    package = installed(entry="CentreFamily")
    assert middles(package.Centre()) == ("merged", [60.5, 5.5])


def test_one_without_wraps_is_named_and_harms_no_other(installed):
    installed("del CentreFamily.wraps")
    with pytest.warns(
        UserWarning, match=r"'middle' \(centring:family\) .* package 'centring' merges nothing: its wraps"
    ):
        assert workers.mergeable(StandardScaler()) is not None


def test_one_that_does_not_load_is_named_and_harms_no_other(installed):
    installed(entry="famly")
    with pytest.warns(UserWarning, match=r"'middle' \(centring:famly\) .* of the package 'centring' did not load"):
        assert workers.mergeable(StandardScaler()) is not None


@pytest.mark.parametrize(
    ("code", "entry", "words"),
    [
        ("class Half:\n  wraps = Centre\n  def takes(self, w, x): return True", "Half", "no bound, digest, partial"),
        ("class Full(CentreFamily):\n  def __init__(self, n): pass", "Full", "not made without arguments"),
    ],
)
def test_one_that_is_not_whole_says_what_it_lacks(installed, code, entry, words):
    package = installed(code, entry)
    with pytest.raises(UsageError, match=rf"entry point 'middle' .* of the package 'centring'.*{words}"):
        middles(package.Centre())
    assert workers.mergeable(StandardScaler()) is not None


BROKEN = {
    "merge": ("def merge(self, s): return s[0]", "middle_ is"),
    "fold": ("def merge(self, s): return {**CentreFamily.merge(self, s), 'n': len(s)}", "merged before differ"),
    "state": ("def partial(self, w, x): return {**CentreFamily.partial(self, w, x), 'x': object()}", "codec"),
    "change": ("def takes(self, w, x): w.n = 1; return True", "change the worker"),
    "transform": ("def transform(self, w, x): return matrix(x) - w.middle_ - 1e-9", "off by"),
    "bound": ("def bound(self, w): return 'identical'", "not a Bound"),
    "attribute": ("def finish(self, w, s, x): w.also_ = 3", "only the fit in parts sets also_"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_the_checks_find_what_a_family_breaks(installed, broken):
    code, words = BROKEN[broken]
    package = installed(f"class Broken(CentreFamily):\n  {code}\n", "Broken")
    with pytest.raises(AssertionError, match=words):
        check_worker(package.Centre(), FRAME)


def test_what_cannot_be_checked_is_explained(installed):
    package = installed()
    with pytest.raises(UsageError, match="3 rows came; expected ten or more"):
        check_worker(package.Centre(), FRAME[:3])
    with pytest.raises(UsageError, match="Standard does not take StandardScaler"):
        check_worker(StandardScaler(), pd.DataFrame({"x": list("abcdefghijkl")}))
    with pytest.raises(MissingExtra, match="no family merges"):
        check_worker(Pipeline(Preprocessor("n", ["x"])), FRAME)
