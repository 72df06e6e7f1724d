"""From a file of one's own to a trained actor, on engines: guessed, prepared on the way, trained, taken home."""

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.metrics import r2_score

import h3lab as h3

from .conftest import timeless


def test_a_file_and_a_label_become_a_trained_estimator(lab, flights):
    pipeline = h3.Pipeline.guess(flights, label="arr_delay")
    booster = HistGradientBoostingRegressor(warm_start=True, max_iter=20)
    actor = h3.Actor("delay", booster, pipeline)
    choices = {"metrics": ["r2"], "validation": 0.2, "on_null_label": "drop"}
    run = lab.train(actor, flights, **choices).wait()
    records = run.records()
    assert len(records) == 20 and records[-1]["val_r2"] > 0.5 > records[0]["val_r2"], "one record a tree: a curve"
    assert run.actor.native.n_iter_ == 20

    # Split first: what scaled the columns has seen no row that was held out, nor one without a label.
    train, held = (side.first(99_999).to_pandas().dropna(subset="arr_delay") for side in h3.read(flights).split(0.2))
    assert run.actor.pipeline_.state.stages["numbers"][1][0].n_samples_seen_ == len(train)
    assert np.isclose(r2_score(held["arr_delay"], run.actor.predict(held)), records[-1]["val_r2"])
    assert "rows without a label left out" in run.folder.info["feed"]

    local = h3.Actor("delay", booster, pipeline)
    assert timeless(h3.train(local, flights, **choices)) == timeless(records), "the same bits as in this process"
    assert actor.predict(pd.read_parquet(flights).head(3)).shape == (3,), "wait() has loaded it into the actor passed"
