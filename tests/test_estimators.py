"""Actors are scikit-learn estimators: its own checks over actors of many models. Each deviation has its reason here."""

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.datasets import load_digits
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_predict, cross_val_score, cross_validate
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from h3lab.actor import Actor
from h3lab.backends._torch import TorchModel
from h3lab.pipeline import Pipeline, Preprocessor

CUT = "it learns in batches, and how rows fall into them depends on their number"
OWN = "the estimator inside does not hold it either (bootstrap, dual solver, a scaler without weights)"
NONE = "the model inside takes no weights, and says so"
EQUIVALENCE = ("check_sample_weight_equivalence_on_dense_data", "check_sample_weight_equivalence_on_sparse_data")
WEIGHTS = (
    *EQUIVALENCE,
    "check_sample_weights_pandas_series",
    "check_sample_weights_not_an_array",
    "check_sample_weights_list",
    "check_sample_weights_shape",
    "check_sample_weights_not_overwritten",
    "check_classifiers_one_label_sample_weights",
)

#: Name of the actor → check → why it is not held.
DEVIATIONS = {
    "forest": dict.fromkeys(EQUIVALENCE, OWN),
    "growing forest": dict.fromkeys(EQUIVALENCE, OWN),
    "margins": dict.fromkeys(EQUIVALENCE, OWN),
    "row": dict.fromkeys(EQUIVALENCE, OWN),
    "descent": dict.fromkeys(EQUIVALENCE, CUT),
    "bayes": dict.fromkeys(EQUIVALENCE, CUT),
    "network": dict.fromkeys(EQUIVALENCE, CUT),
    "neighbours": dict.fromkeys(WEIGHTS, NONE),
}


def network(spec):
    return torch.nn.Sequential(torch.nn.Linear(spec.features, 8), torch.nn.ReLU(), torch.nn.Linear(8, spec.outputs))


ACTORS = [
    Actor("logistic", LogisticRegression()),
    Actor("least squares", LinearRegression()),
    Actor("ridge", Ridge()),
    Actor("forest", RandomForestClassifier(5)),
    Actor("growing forest", RandomForestClassifier(5, warm_start=True)),
    Actor("boosting", HistGradientBoostingClassifier(max_iter=5)),
    Actor("margins", LinearSVC()),
    Actor("row", make_pipeline(StandardScaler(), LogisticRegression())),
    Actor("descent", SGDClassifier(loss="log_loss")),
    Actor("bayes", GaussianNB()),
    Actor("neighbours", KNeighborsClassifier()),
    Actor("perceptron", MLPClassifier((8,), learning_rate_init=0.05)),
    Actor("network", TorchModel(network, lr=0.02, loss="cross_entropy"), epochs=30),
]


@pytest.mark.filterwarnings("ignore")  # the checks provoke the warnings of the estimators inside
@parametrize_with_checks(ACTORS, expected_failed_checks=lambda actor: DEVIATIONS.get(actor.name, {}))
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def test_it_goes_where_estimators_go():
    X, y = load_digits(return_X_y=True)
    X, y = X[:300] / 16, y[:300]
    actor = Actor("forest", RandomForestClassifier(5))
    assert cross_val_score(actor, X, y, cv=3).min() > 0.5
    found = GridSearchCV(actor, {"model__n_estimators": [1, 20]}, cv=2).fit(X, y)
    assert found.best_params_ == {"model__n_estimators": 20}
    assert make_pipeline(StandardScaler(), clone(actor)).fit(X, y).score(X, y) > 0.9


def test_two_actors_share_nothing():
    X, y = load_digits(return_X_y=True)
    X, y = X[:300] / 16, y[:300]
    given = SGDClassifier(loss="log_loss")
    one, two = Actor("one", given, epochs=1, seed=1), Actor("two", given, epochs=5, seed=2)
    one.fit(X, y)
    before = one.logits(X)
    two.fit(X, y)
    assert not hasattr(given, "coef_") and one.native is not two.native
    assert np.array_equal(one.logits(X), before)
    assert np.array_equal(Actor("again", given, epochs=1, seed=1).fit(X, y).logits(X), before)


# ---- Where scikit-learn takes an estimator ----------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:300] / 16, y[:300]


@pytest.fixture
def table(digits):
    X, y = digits
    return pd.DataFrame(X, columns=[f"p{i}" for i in range(64)]).assign(
        kind=np.where(X[:, 20] > 0.5, "dark", "light")
    ), y


def learner(**settings):
    return Actor("g", TorchModel(network, lr=1e-3, loss="cross_entropy"), **{"epochs": 3, **settings})


def test_a_grid_goes_through_the_settings_of_the_model_and_of_the_actor(digits):
    actor = learner()
    found = GridSearchCV(actor, {"model__lr": [1e-4, 3e-2]}, cv=2).fit(*digits)
    assert found.best_params_ == {"model__lr": 3e-2} and found.best_estimator_.model.lr == 3e-2
    assert (
        GridSearchCV(learner(), {"epochs": [1, 20], "model__lr": [1e-2]}, cv=2).fit(*digits).best_params_["epochs"]
        == 20
    )
    assert actor.model.lr == 1e-3 and not hasattr(actor, "model_"), "the one that was given stays as it is"


def test_a_grid_reaches_into_scikit_learns_containers(table):
    rows, y = table
    columns = ColumnTransformer([("n", StandardScaler(), ["p1", "p2", "p10", "p20"])])
    beside = Actor("beside", LogisticRegression(), pipeline=columns)
    grid = {"model__C": [1e-6, 1.0], "pipeline__n__with_mean": [True, False]}
    assert GridSearchCV(beside, grid, cv=2).fit(rows, y).best_params_["model__C"] == 1.0
    whole = Actor("whole", make_pipeline(columns, LogisticRegression()))
    found = GridSearchCV(whole, {"model__logisticregression__C": [1e-6, 1.0]}, cv=2).fit(rows, y)
    assert found.best_params_ == {"model__logisticregression__C": 1.0}
    assert found.predict(rows).shape == (300,)


def test_folds_are_scored_and_predicted_as_by_hand(digits):
    X, y = digits
    folds = StratifiedKFold(3)
    scores = cross_val_score(learner(), X, y, cv=folds)
    predicted = cross_val_predict(learner(), X, y, cv=folds)
    sure = cross_val_predict(learner(), X, y, cv=folds, method="predict_proba")
    for number, (train, test) in enumerate(folds.split(X, y)):
        actor = learner().fit(X[train], y[train])
        assert actor.score(X[test], y[test]) == scores[number]
        assert np.array_equal(actor.predict(X[test]), predicted[test])
        assert np.array_equal(actor.predict_proba(X[test]), sure[test])
    assert cross_validate(learner(), X, y, cv=2, scoring=["accuracy", "neg_log_loss"])["test_neg_log_loss"].max() < 0


def test_folds_of_raw_rows_are_prepared_each_by_itself(table):
    rows, y = table
    pipeline = Pipeline(
        Preprocessor("n", ["p10", "p20", "p30"], StandardScaler()),
        Preprocessor("k", ["kind"], OneHotEncoder()),
        label="y",
    )
    actor = Actor("raw", LogisticRegression(), pipeline)
    (train, test), _ = StratifiedKFold(2).split(rows, y)
    by_hand = clone(actor).fit(rows.iloc[train], y[train])
    assert by_hand.pipeline_.state.stages["n"][0][0].n_samples_seen_ == len(train)
    assert cross_val_score(actor, rows, y, cv=2)[0] == by_hand.score(rows.iloc[test], y[test])


def test_a_clone_is_unfitted_and_learns_the_same(digits):
    X, y = digits
    actor = learner(metrics=["f1_macro"]).fit(X, y)
    again = clone(actor)
    assert not hasattr(again, "model_") and again.get_params()["model__lr"] == 1e-3 and again.metrics == ["f1_macro"]
    assert np.array_equal(again.fit(X, y).logits(X), actor.logits(X))


def test_it_votes_and_stacks_and_stands_at_the_end_of_a_pipeline(digits, table):
    X, y = digits
    members = [("line", Actor("line", LogisticRegression())), ("net", learner(epochs=20))]
    assert VotingClassifier(members, voting="soft").fit(X, y).score(X, y) > 0.9
    assert StackingClassifier(members, cv=2).fit(X, y).score(X, y) > 0.9
    row = make_pipeline(StandardScaler(), learner(epochs=20))
    assert GridSearchCV(row, {"actor__model__lr": [1e-4, 3e-2]}, cv=2).fit(X, y).best_params_ == {
        "actor__model__lr": 3e-2
    }
    target = TransformedTargetRegressor(Actor("r", Ridge()), func=np.log1p, inverse_func=np.expm1).fit(X, y * 1.0)
    assert target.predict(X).shape == y.shape
    # set_output is the transformers': the actor gets what they give, and remembers the names.
    named = (
        make_pipeline(StandardScaler(), learner()).set_output(transform="pandas").fit(table[0].drop(columns="kind"), y)
    )
    assert named[-1].feature_names_in_.tolist()[:2] == ["p0", "p1"]


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.mark.usefixtures("routing")
def test_weights_of_rows_are_routed_where_they_are_requested(digits):
    X, y = digits
    weight = np.where(np.arange(300) % 3 == 0, 5.0, 1.0)
    given = {"params": {"sample_weight": weight}}
    actor = Actor("w", LogisticRegression())
    assert actor.get_metadata_routing().fit.requests == {"sample_weight": None}
    with pytest.raises(UnsetMetadataPassedError, match="Actor.fit"):
        cross_val_score(actor, X, y, cv=2, **given)
    (train, test), _ = StratifiedKFold(2).split(X, y)
    asks = clone(actor).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
    fitted = clone(actor).fit(X[train], y[train], weight[train])
    assert cross_val_score(asks, X, y, cv=2, **given)[0] == fitted.score(X[test], y[test], weight[test])
    fits = clone(actor).set_fit_request(sample_weight=True).set_score_request(sample_weight=False)
    assert cross_val_score(fits, X, y, cv=2, **given)[0] == fitted.score(X[test], y[test])
    heavy = clone(actor).fit(X, y, weight).logits(X)
    assert not np.allclose(heavy, clone(actor).fit(X, y).logits(X))
    found = GridSearchCV(asks, {"model__C": [1.0]}, cv=2).fit(X, y, sample_weight=weight)
    assert np.array_equal(found.best_estimator_.logits(X), heavy)
    row = make_pipeline(StandardScaler(with_mean=False, with_std=False).set_fit_request(sample_weight=False), asks)
    assert np.allclose(row.fit(X, y, sample_weight=weight)[-1].logits(X), heavy)
    votes = VotingClassifier([("asks", asks)], voting="soft").fit(X, y, sample_weight=weight)
    assert np.array_equal(votes.estimators_[0].logits(X), heavy)
