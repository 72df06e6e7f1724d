"""Training straight from a source on real engines: nothing is stored, and the same is learned."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import SGDClassifier
from sklearn.preprocessing import StandardScaler
from torch import nn

import h3lab as h3
from h3lab.errors import UsageError
from h3lab.home import room


def table(rows: int = 2000) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (rows, 3))
    return pd.DataFrame(x, columns=["a", "b", "c"]).assign(label=(x[:, 0] > x[:, 1]).astype(int))


def recipe() -> h3.Pipeline:
    return h3.Pipeline(h3.Preprocessor("numbers", ["a", "b", "c"], StandardScaler()), label="label")


def perceptron(spec: Any) -> nn.Module:
    return nn.Sequential(nn.Linear(spec.features, 8), nn.ReLU(), nn.Linear(8, spec.outputs))


@pytest.fixture
def rows(tmp_path: Path) -> Any:
    table().to_parquet(tmp_path / "rows.parquet", row_group_size=250)
    return h3.read(tmp_path / "rows.parquet")


def losses(records: Any) -> list[tuple[float, float | None]]:
    return [(record["loss"], record.get("val_loss")) for record in records]


def test_a_run_learns_from_a_source_what_a_local_training_does(lab: Any, rows: Any) -> None:
    before = set(room("feeds").iterdir())
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 50, "validation": 0.2, "prepare": "stream"}
    actor = h3.Actor("on the way", SGDClassifier(random_state=0), recipe())
    run = lab.train(actor, rows, **settings)
    run.wait()
    local = h3.Actor("local", SGDClassifier(random_state=0), recipe())
    assert losses(run.records()) == losses(h3.train(local, rows, **settings))
    assert np.array_equal(run.actor.decision_function(table(50)), local.decision_function(table(50)))
    assert set(room("feeds").iterdir()) == before


def test_two_ranks_share_rows_that_are_prepared_on_the_way(lab: Any, rows: Any) -> None:
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 50, "prepare": "stream"}
    run = lab.train(h3.Actor("shared", h3.TorchModel(perceptron), recipe()), rows, ranks=2, **settings)
    run.wait()
    alone = losses(h3.train(h3.Actor("alone", h3.TorchModel(perceptron), recipe()), rows, **settings))
    assert np.allclose([loss for loss, _ in losses(run.records())], [loss for loss, _ in alone], atol=1e-4)


def test_rows_that_engines_cannot_read_are_refused(lab: Any) -> None:
    actor = h3.Actor("in memory", SGDClassifier(random_state=0), recipe())
    with pytest.raises(UsageError, match="Write it to files first"):
        lab.train(actor, table(), prepare="stream")
