"""The rules of the API that need a laboratory; the table of all is in tests/test_rules.py."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import FunctionTransformer, StandardScaler, TargetEncoder
from torch import nn

import h3lab as h3
from h3lab.errors import ModelError, NotFittedError

from .conftest import network, timeless, until


def table(rows: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    found = pd.DataFrame({"a": rng.normal(size=rows), "b": rng.normal(2, 3, rows), "c": rng.choice(list("xyz"), rows)})
    found["stars"] = np.clip(np.round(found.a + 3), 1, 5).astype(int)
    return found


def numbers(*workers: Any) -> h3.Pipeline:
    return h3.Pipeline(h3.Preprocessor("n", ["a", "b"], *(workers or (StandardScaler(),))), label="stars")


# ---- Who holds what was learned


def test_lab_train_works_on_a_copy(lab, digits):
    X, y = digits
    module, before = nn.Linear(64, 10), [X.copy(), y.copy()]
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    actor = h3.Actor("copied", model := h3.TorchModel(module, lr=0.1), epochs=7)
    run = lab.train(actor, (X, y), epochs=1, lr=0.01, validation=0.2).wait()
    assert actor.model is model and not hasattr(model, "module_") and (actor.epochs, model.lr) == (7, 0.1)
    assert all((value == weights[name]).all() for name, value in module.state_dict().items())
    for now, then in zip((X, y), before, strict=True):
        np.testing.assert_array_equal(now, then)
    np.testing.assert_array_equal(actor.logits(X), run.actor.logits(X))
    assert actor.native is not run.actor.native


def test_the_passed_actor_says_what_to_do_while_its_run_trains(lab, digits, long_run):
    actor = h3.Actor("training", h3.TorchModel(network))
    run = lab.train(actor, digits, epochs=100_000)
    for ask in (actor.predict, actor.score, actor.evaluate):
        with pytest.raises(NotFittedError, match=r"run\.wait\(\).*run\.actor is its newest snapshot"):
            ask(digits[0])
    until(lambda: any(event["event"] == "snapshot" for event in run.events), what="a snapshot")
    assert run.actor.predict(digits[0]).shape == digits[1].shape
    run.stop()
    assert actor.predict(digits[0]).shape == digits[1].shape


def test_whatever_takes_an_actor_takes_a_run(lab, digits):
    teacher = lab.train(h3.Actor("teacher", h3.TorchModel(network, lr=0.01)), digits, epochs=2).wait()
    again = lab.train(teacher, digits, epochs=1, start=teacher, lr=0.0).wait()
    assert (teacher.name.rpartition("/")[0], again.name) == ("teacher", f"teacher/{int(teacher.name[8:]) + 1}")
    np.testing.assert_array_equal(again.actor.logits(digits[0]), teacher.actor.logits(digits[0]))
    student = h3.Actor("student", h3.TorchModel(network))
    remote = lab.train(student, digits, epochs=1, transfer=h3.Distill([(teacher, 2.0), (again, 1.0)])).wait()
    local = h3.train(student, digits, epochs=1, transfer=h3.Distill([(teacher, 2.0), (again, 1.0)]))
    assert timeless(remote.records()) == timeless(local)
    narrow = h3.Actor("narrow", h3.TorchModel(lambda spec: nn.Linear(spec.features, spec.outputs)))
    before = set(h3.runs()["name"])
    with pytest.raises(ModelError, match="start='teacher' does not fit this model"):
        lab.train(narrow, digits, start=teacher)
    assert set(h3.runs()["name"]) == before


# ---- Label and task, columns


def test_a_regressor_decides_the_task_on_the_lab_as_here(lab):
    rows, held = table(), table(50)
    feed = lab.prepare(numbers(), rows)
    assert feed.spec.task == "classification"
    here = h3.Actor("here", Ridge()).fit(feed)
    for data in (feed, rows):
        actor = h3.Actor("stars", Ridge(), numbers())
        run = lab.train(actor, data, validation=held, metrics=["r2"]).wait()
        np.testing.assert_allclose(actor.predict(rows), here.predict(rows), atol=1e-12)
        np.testing.assert_allclose(run.actor.predict(rows), here.predict(rows), atol=1e-12)
        assert run.records()[-1]["val_r2"] == pytest.approx(here.score(held))


def test_a_target_encoder_on_the_lab_is_as_here(lab):
    from h3lab.preparing.prepare import prepare

    pipeline = h3.Pipeline(h3.Preprocessor("city", ["c"], TargetEncoder()), label="stars", task="regression")
    np.testing.assert_array_equal(lab.prepare(pipeline, table()).arrays()[0], prepare(pipeline, table()).arrays()[0])


# ---- Training settings


def test_with_patience_the_best_epoch_is_what_comes_back(lab, digits):
    X, y = digits
    settings: dict[str, Any] = {"validation": 0.2, "patience": 2, "epochs": 60, "lr": 0.05, "monitor": "val_accuracy"}
    actor = h3.Actor("patient", h3.TorchModel(network))
    run = lab.train(actor, (X, y), **settings).wait()
    local = h3.Actor("patient", h3.TorchModel(network))
    records = timeless(h3.train(local, (X, y), **settings))
    assert timeless(run.records()) == records and records[-1]["epoch"] < 60
    np.testing.assert_array_equal(actor.logits(X), local.logits(X))
    best = max((r for r in records if "val_accuracy" in r), key=lambda record: record["val_accuracy"])
    assert best["epoch"] == records[-1]["epoch"] - 2


def test_snapshot_every_counts_steps(lab, digits):
    run = lab.train(h3.Actor("snapped", h3.TorchModel(network)), digits, epochs=1, snapshot_every=7).wait()
    steps = [event["step"] for event in run.events if event["event"] == "snapshot"]
    assert steps == list(range(7, run.step + 1, 7))


# ---- Doors


def test_to_is_the_home_or_resolves_against_the_notebook(lab, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    feed = lab.prepare(numbers(), table(), to="prepared/stars")
    assert Path(feed.url) == tmp_path / "prepared" / "stars" and h3.open_feed("prepared/stars").url == feed.url
    kept = lab.prepare(numbers(), table())
    assert Path(kept.url).parent == Path(os.environ["H3LAB_HOME"]).resolve() / "feeds"
    assert lab.prepare(numbers(), table()).url == kept.url
    np.testing.assert_array_equal(kept.arrays()[0], feed.arrays()[0])


def test_a_pipeline_with_a_lambda_trains(lab):
    rows = table()
    for _ in range(2):
        with pytest.warns(UserWarning, match="h3.open_feed cannot open it later"):
            feed = lab.prepare(numbers(FunctionTransformer(lambda x: 2 * x)), rows)
        run = lab.train(h3.Actor("lambda", LogisticRegression()), feed).wait()
        np.testing.assert_array_equal(run.actor.pipeline_.transform(rows).x, 2 * rows[["a", "b"]])
