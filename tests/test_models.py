"""The conformance suite of models, over every kind of model there is, and over one that breaks each promise in turn."""

import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    BaggingClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import Lasso, LinearRegression, LogisticRegression, SGDClassifier, SGDRegressor
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier
from softmax_model import FAULTS, SoftmaxModel

from h3lab import testing
from h3lab.backends._sklearn import SklearnModel
from h3lab.backends._torch import TorchModel


def network(spec):
    return torch.nn.Sequential(torch.nn.Linear(spec.features, 16), torch.nn.ReLU(), torch.nn.Linear(16, spec.outputs))


def noisy_network(spec):
    return torch.nn.Sequential(
        torch.nn.Linear(spec.features, 16),
        torch.nn.BatchNorm1d(16),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.2),
        torch.nn.Linear(16, spec.outputs),
    )


def halving(optimizer):
    return torch.optim.lr_scheduler.StepLR(optimizer, 40, 0.5)


def wrapped(make, *arguments, **keywords):
    return lambda: SklearnModel(make(*arguments, **keywords))


RANDOM, NOISY = {"random": True}, {"random": True, "noisy": True}
CLASSIFIERS = {
    "numpy": (SoftmaxModel, RANDOM),
    "torch": (lambda: TorchModel(network, lr=0.01), RANDOM),
    "torch, noisy": (lambda: TorchModel(noisy_network, lr=0.01), NOISY),
    "torch, momentum and schedule": (
        lambda: TorchModel(network, lr=0.1, optimizer="momentum", scheduler=halving, accumulate=2, clip_norm=5.0),
        RANDOM,
    ),
    "logistic regression": (wrapped(LogisticRegression), {}),
    "stochastic descent": (wrapped(SGDClassifier, loss="log_loss", learning_rate="constant", eta0=0.05), RANDOM),
    "stochastic descent, margins": (wrapped(SGDClassifier, alpha=0.01), RANDOM),
    "perceptron": (wrapped(MLPClassifier, (16,), learning_rate_init=0.02), RANDOM),
    "perceptron, momentum": (wrapped(MLPClassifier, (16,), solver="sgd", learning_rate_init=0.05), RANDOM),
    "naive Bayes": (wrapped(GaussianNB), {}),
    "growing forest": (wrapped(RandomForestClassifier, 15, warm_start=True), RANDOM),
    "forest": (wrapped(RandomForestClassifier, 15), RANDOM),
    "growing boosting": (
        wrapped(GradientBoostingClassifier, n_estimators=8, warm_start=True, subsample=0.7, learning_rate=0.4),
        RANDOM,
    ),
    "growing histograms": (
        wrapped(HistGradientBoostingClassifier, max_iter=8, warm_start=True, min_samples_leaf=5),
        {},
    ),
    "growing bag": (wrapped(BaggingClassifier, n_estimators=5, warm_start=True), RANDOM),
    "tree": (wrapped(DecisionTreeClassifier), {}),
    "linear margins": (wrapped(LinearSVC), {}),
    "margins": (wrapped(SVC), {}),
    "neighbours": (wrapped(KNeighborsClassifier), {}),
    "discriminant": (wrapped(LinearDiscriminantAnalysis), {}),
    "row": (lambda: SklearnModel(make_pipeline(StandardScaler(), LogisticRegression())), {}),
}
REGRESSORS = {
    "numpy": (lambda: SoftmaxModel(lr=0.1), RANDOM),
    "torch": (lambda: TorchModel(network, lr=0.02), RANDOM),
    "least squares": (wrapped(LinearRegression), {}),
    "lasso": (wrapped(Lasso, alpha=0.01), {}),
    "stochastic descent": (wrapped(SGDRegressor, learning_rate="constant", eta0=0.02), RANDOM),
    "growing forest": (wrapped(RandomForestRegressor, 15, warm_start=True), RANDOM),
    "growing histograms": (
        wrapped(HistGradientBoostingRegressor, max_iter=25, warm_start=True, min_samples_leaf=5),
        {},
    ),
    "vectors": (wrapped(SVR), {}),
}


def by_name(check):
    return check.__name__


@pytest.mark.parametrize("check", testing.MODEL_CHECKS, ids=by_name)
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers(name, check):
    factory, traits = CLASSIFIERS[name]
    check(testing.Subject(factory, testing.easy_feed(), **traits))


@pytest.mark.parametrize("check", testing.MODEL_CHECKS, ids=by_name)
@pytest.mark.parametrize("name", REGRESSORS)
def test_regressors(name, check):
    factory, traits = REGRESSORS[name]
    check(testing.Subject(factory, testing.easy_feed("regression"), **traits))


@pytest.mark.parametrize("name", ["numpy", "torch", "logistic regression", "growing histograms", "growing forest"])
def test_sparse_rows(name):
    factory, traits = CLASSIFIERS[name]
    testing.check_model(factory, testing.easy_feed(sparse=True), **traits)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_suite_finds_every_fault(fault):
    subject = testing.Subject(lambda: SoftmaxModel(fault=fault), testing.easy_feed(), random=True)
    failed = set()
    for check in testing.MODEL_CHECKS:
        try:
            check(subject)
        except AssertionError:
            failed.add(check.__name__)
    assert FAULTS[fault] in failed


def test_every_check_has_a_fault():
    assert {check.__name__ for check in testing.MODEL_CHECKS} == set(FAULTS.values())
