"""From a file of one's own to a trained actor, on engines: guessed, prepared on the way, trained, taken home."""

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

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


def test_scikit_learns_containers_are_prepared_and_trained_on_engines(lab, flights):
    frame = pd.read_parquet(flights).head(3000).dropna(subset="arr_delay")
    X, y = frame.drop(columns="arr_delay"), frame["arr_delay"]
    columns = ColumnTransformer(
        [
            ("n", make_pipeline(SimpleImputer(), StandardScaler()), ["dep_delay", "distance"]),
            ("c", OneHotEncoder(), ["origin"]),
        ]
    )
    expected = clone(columns).fit_transform(X)
    feed = lab.prepare(columns, frame, label="arr_delay")
    made = feed.arrays()[0]
    assert np.allclose(made.toarray() if hasattr(made, "toarray") else made, expected, rtol=0, atol=1e-12)
    fitted = clone(columns).fit(X)
    plain = make_pipeline(fitted, Ridge()).fit(X, y)
    for model, pipeline in ((Ridge(), clone(columns)), (Ridge(), fitted), (make_pipeline(columns, Ridge()), None)):
        run = lab.train(h3.Actor("container", model, pipeline), (X, y), replace=True).wait()
        assert np.allclose(run.actor.predict(X), plain.predict(X), atol=1e-6)
        assert np.allclose(h3.attach("container").actor.predict(X), plain.predict(X), atol=1e-6)
    run = lab.train(h3.Actor("fed", make_pipeline(columns, Ridge())), feed).wait()
    assert np.allclose(run.actor.predict(X), plain.predict(X), atol=1e-6)
