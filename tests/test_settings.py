"""Settings: declarations that say what came and what was expected, and values that are swapped whole."""

import copy
import json
import pickle

import numpy as np
import pytest

from h3lab.errors import UnknownName, UsageError
from h3lab.settings import Setting, Settings

LR = Setting("lr", float, 1e-3, low=0.0, high=10.0, log=True, help="learning rate")
SIZE = Setting("size", int, 64, low=1, steerable=False)
ON = Setting("on", bool, True)
MODE = Setting("mode", str, "mean", choices=("mean", "max"))
NAME = Setting("name", str, "a")
ALL = (LR, SIZE, ON, MODE, NAME)


@pytest.mark.parametrize(
    "setting, value, expected",
    [
        (LR, 0.5, 0.5),
        (LR, 1, 1.0),
        (LR, 0.0, 0.0),
        (LR, 10.0, 10.0),
        (LR, np.float32(0.5), 0.5),
        (LR, np.int64(2), 2.0),
        (SIZE, 7, 7),
        (SIZE, 7.0, 7),
        (SIZE, np.int16(7), 7),
        (ON, False, False),
        (ON, np.bool_(False), False),
        (MODE, "max", "max"),
        (NAME, "anything", "anything"),
    ],
)
def test_values_are_taken_in_the_settings_type(setting, value, expected):
    taken = setting.check(value)
    assert taken == expected and type(taken) is setting.kind


@pytest.mark.parametrize(
    "setting, value, says",
    [
        (LR, "x", "lr='x' came; expected a number from 0 to 10, for example lr=0.001"),
        (LR, None, "lr=None came"),
        (LR, True, "lr=True came"),
        (LR, -1e-9, "from 0 to 10"),
        (LR, 10.1, "from 0 to 10"),
        (LR, float("nan"), "lr=nan came"),
        (LR, float("inf"), "lr=inf came"),
        (LR, np.float32("nan"), "lr=nan came"),
        (LR, 10**400, "expected a number"),
        (LR, -(10**400), "expected a number"),
        (LR, [0.1], "expected a number"),
        (LR, np.array([0.1, 0.2]), "expected a number"),
        (SIZE, 0, "expected a whole number from 1, for example size=64"),
        (SIZE, 2.5, "size=2.5 came"),
        (SIZE, 10**400, "expected a whole number"),
        (SIZE, False, "size=False came"),
        (ON, 1, "on=1 came; expected True or False"),
        (ON, "yes", "expected True or False"),
        (MODE, "min", "mode='min' came; expected one of 'mean', 'max'"),
        (MODE, 3, "expected one of"),
        (NAME, 3, "name=3 came; expected text"),
    ],
)
def test_what_came_and_what_was_expected(setting, value, says):
    with pytest.raises(UsageError) as caught:
        setting.check(value)
    assert says in str(caught.value)


@pytest.mark.parametrize("setting", ALL, ids=lambda setting: setting.name)
def test_a_declaration_goes_to_another_process_as_json(setting):
    assert Setting.from_json(json.loads(json.dumps(setting.to_json()))) == setting


def test_values_are_read_as_attributes_and_items():
    settings = Settings(ALL, lr=0.5)
    assert settings.lr == settings["lr"] == 0.5 and settings.size == 64
    assert dict(settings) == {"lr": 0.5, "size": 64, "on": True, "mode": "mean", "name": "a"}
    assert len(settings) == 5 and "lr" in settings and "rate" not in settings
    assert repr(Settings([LR])) == "Settings(lr=0.001)"
    assert settings.declared == ALL
    with pytest.raises(AttributeError, match="no setting 'rate'.*Known: lr, size"):
        settings.rate  # noqa: B018
    with pytest.raises(KeyError):
        settings["rate"]


def test_they_are_frozen():
    settings = Settings(ALL)
    with pytest.raises(AttributeError, match=r"settings.replace\(lr=0.5\)"):
        settings.lr = 0.5
    with pytest.raises(AttributeError):
        settings.other = 1
    with pytest.raises(TypeError):
        settings["lr"] = 0.5
    assert settings.lr == 1e-3


def test_a_change_is_another_value():
    old = Settings(ALL)
    new = old.replace(lr=0.5, mode="max")
    assert (old.lr, old.mode, new.lr, new.mode) == (1e-3, "mean", 0.5, "max")
    assert new == Settings(ALL, lr=0.5, mode="max") != old
    assert hash(new) == hash(Settings(ALL, lr=0.5, mode="max"))
    assert len({old, Settings(ALL), new}) == 2


def test_a_change_that_is_wrong_changes_nothing():
    settings = Settings(ALL)
    with pytest.raises(UsageError, match="lr='x' came"):
        settings.replace(on=False, lr="x")
    assert settings == Settings(ALL)


def test_names_that_are_not_there():
    with pytest.raises(UnknownName, match="Did you mean 'lr'.*Known: lr, size"):
        Settings(ALL, lrr=0.1)
    with pytest.raises(UnknownName, match="Known: lr, on, mode, name") as caught:
        Settings(ALL).replace(sizes=3)
    assert "size" not in caught.value.known  # what cannot be steered is not offered for steering


def test_what_cannot_be_steered_says_where_it_belongs():
    with pytest.raises(UsageError, match=r"cannot change while a run trains; give it to train\(..., size=32\)"):
        Settings(ALL).replace(size=32)
    assert Settings(ALL, size=32).size == 32


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_they_travel(way):
    settings = Settings(ALL, lr=0.25)
    there = way(settings)
    assert there == settings and there.declared == settings.declared and there.replace(lr=1.0).lr == 1.0
