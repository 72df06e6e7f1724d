"""Actors are scikit-learn estimators: its own checks over actors of many models. Each deviation has its reason here."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from h3lab.actor import Actor
from h3lab.backends._torch import TorchModel

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
