"""What travels to an engine, and what is said of that which does not."""

import importlib
import pickle
import sys
import threading
from collections import OrderedDict
from decimal import Decimal
from fractions import Fraction

import cloudpickle
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from h3lab.actor import Actor
from h3lab.cluster.launch import Launch, own_modules
from h3lab.cluster.travel import _modules, check, culprit
from h3lab.errors import TravelError, Untrusted
from h3lab.running.folder import RunFolder


@pytest.fixture(autouse=True)
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("H3LAB_HOME", str(tmp_path / "home"))
    return RunFolder.claim("digits")


@pytest.fixture
def local(tmp_path, monkeypatch):
    """A module of the user's own, beside the notebook."""
    (tmp_path / "my_layers.py").write_text("WIDTH = 8\ndef width():\n    return WIDTH\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("my_layers")
    sys.modules.pop("my_layers", None)


def by_value():
    return set(cloudpickle.list_registry_pickle_by_value())


def test_own_modules_travel_by_value_while_it_lasts(local):
    with own_modules():
        assert "my_layers" in by_value()
        assert not by_value() & {"numpy", "json", "sklearn.linear_model", "h3lab.actor", "__main__"}
        data = cloudpickle.dumps(local.width)
    assert "my_layers" not in by_value()
    sys.modules.pop("my_layers")
    assert pickle.loads(data)() == 8 and "my_layers" not in sys.modules


def test_what_the_user_registered_stays_registered(local):
    cloudpickle.register_pickle_by_value(local)
    try:
        with own_modules():
            pass
        assert "my_layers" in by_value()
    finally:
        cloudpickle.unregister_pickle_by_value(local)


def test_own_modules_are_put_back_after_an_error(local):
    with pytest.raises(ZeroDivisionError), own_modules():
        1 / 0  # noqa: B018
    assert "my_layers" not in by_value()


def test_a_launch_is_read_as_it_was_written(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Launch(Actor("digits", LogisticRegression(C=3)), data=[1, 2], settings={"epochs": 3}).write(run)
    found = Launch.read(run)
    assert found.actor.name == "digits" and found.data == [1, 2] and found.settings == {"epochs": 3}
    assert found.directory == str(tmp_path) and found.path == [entry for entry in sys.path if entry]


def test_a_launch_that_somebody_changed_is_not_opened(run):
    Launch(Actor("digits", LogisticRegression()), data=None).write(run)
    data = bytearray(run.launch.read_bytes())
    data[len(data) // 2] ^= 1
    run.launch.write_bytes(data)
    with pytest.raises(Untrusted, match="not signed"):
        Launch.read(run)


def test_a_rank_stands_where_the_notebook_stood(run, tmp_path, monkeypatch, capsys):
    before = list(sys.path)
    monkeypatch.setattr(sys, "path", list(before))
    monkeypatch.chdir(tmp_path)
    Launch(None, None, directory=str(tmp_path / "home"), path=["/nowhere/of/mine", *sys.path[:1]]).enter()
    assert sys.path == [*before, "/nowhere/of/mine"]
    Launch(None, None, directory="/nowhere").enter()
    assert "/nowhere is not here" in capsys.readouterr().out


def test_a_launch_that_cannot_travel_names_what(run):
    lock = threading.Lock()
    actor = Actor("digits", LogisticRegression(class_weight={"a": [lock]}))
    with pytest.raises(TravelError, match=r"actor\.model\.class_weight\['a'\]\[0\] \(a _thread\.lock\)"):
        Launch(actor, data=None).write(run)
    assert not run.launch.exists()


def test_the_innermost_culprit_is_named():
    lock = threading.Lock()

    def closure():
        return lock

    assert culprit({"a": (1, [lock])}, "x") == "x['a'][1][0] (a _thread.lock)"
    assert culprit(closure, "f") == "f.<lock> (a _thread.lock)"
    assert culprit([1, "a", np.ones(2)], "x") is None
    deep = lock
    for _ in range(9):
        deep = [deep]
    assert culprit(deep, "x") == "x[0][0][0][0][0] (a builtins.list)"  # it looks five levels down


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_modules_are_read_from_a_pickle_without_running_it(protocol):
    # The second Fraction takes its module from the memo.
    values = [OrderedDict(a=1), Fraction(1, 2), Fraction(3, 4), Decimal(1)]
    assert {"collections", "fractions", "decimal"} <= _modules(pickle.dumps(values, protocol))


def test_checking_an_actor_names_what_an_engine_lacks():
    class Engines:
        asked: list = []

        def missing(self, modules):
            self.asked += modules
            return {"slot0": [], "slot1": ["sklearn"]}

    engines = Engines()
    actor = Actor("digits", LogisticRegression(class_weight={0: np.ones(200_000)}))
    large, lacking = check(actor, engines)
    assert "1.6 MB" in large and lacking == "slot1 cannot import 'sklearn', which the actor needs"
    assert "sklearn" in engines.asked and "h3lab" not in engines.asked
    assert check(Actor("digits", LogisticRegression(class_weight={0: threading.Lock()})), engines) == [
        "actor.model.class_weight[0] (a _thread.lock) cannot be sent to an engine"
    ]
