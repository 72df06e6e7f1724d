"""An actor is a scikit-learn estimator with a pipeline of its own, and answers rows in every form."""

import copy
import pickle

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from scipy import sparse
from scipy.special import softmax
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.datasets import load_digits
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import DataConversionWarning
from sklearn.exceptions import NotFittedError as NotFittedBySklearn
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from h3lab.actor import Actor
from h3lab.backends._torch import TorchModel
from h3lab.errors import DataError, NotFittedError, SpecMismatch, UnknownName, UsageError
from h3lab.feeds.feed import Feed
from h3lab.pipeline import Pipeline
from h3lab.preparing.prepare import prepare
from h3lab.preprocessor import Preprocessor
from h3lab.sources import read
from h3lab.training.loop import train

DIGITS, CLASSES = load_digits(return_X_y=True)
X, y = (DIGITS[:300] / 16).astype(np.float32), CLASSES[:300]


def network(spec):
    return nn.Sequential(nn.Linear(spec.features, 16), nn.ReLU(), nn.Linear(16, spec.outputs))


def actor(name="net", pipeline=None, **settings):
    return Actor(name, TorchModel(network, lr=0.02), pipeline, **{"epochs": 15, **settings})


def frame(rows=400, seed=0):
    random = np.random.default_rng(seed)
    table = pd.DataFrame(
        {"a": random.normal(3, 2, rows), "b": random.normal(0, 1, rows), "c": random.choice(["x", "y", "z"], rows)}
    )
    return table.assign(answer=np.where(table.a + 2 * table.b + (table.c == "x") > 3, "yes", "no"))


def pipeline(worker=None, label="answer", **settings):
    return Pipeline(
        Preprocessor("numbers", ["a", "b"], worker or StandardScaler()),
        Preprocessor("letters", ["c"], OneHotEncoder()),
        label=label,
        **settings,
    )


# ---- scikit-learn

BATCHES = "it learns in batches, and how rows fall into them depends on their number"


@pytest.mark.filterwarnings("ignore")  # the checks provoke warnings
@parametrize_with_checks(
    [
        Actor("regressor", TorchModel(network, lr=0.02, loss="mse"), epochs=60, batch_size=16),
        Actor("either", TorchModel(network, lr=0.02), epochs=5),
    ],
    expected_failed_checks=lambda _: {
        "check_sample_weight_equivalence_on_dense_data": BATCHES,
        "check_sample_weight_equivalence_on_sparse_data": BATCHES,
    },
)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def test_it_is_searched_scored_and_cloned():
    found = GridSearchCV(actor(epochs=2), {"model__lr": [1e-6, 0.03], "epochs": np.array([2, 3])}, cv=2).fit(X, y)
    assert found.best_params_ == {"model__lr": 0.03, "epochs": 3}
    assert found.best_estimator_.model_.get_params()["lr"] == 0.03
    assert cross_val_score(actor(), X, y, cv=2).min() > 0.6
    fresh = clone(found.best_estimator_)
    assert not fresh.learned and fresh.epochs == 3


def test_its_kind_is_its_models_or_its_pipelines_or_its_labels():
    cases = [
        (Actor("a", LogisticRegression()), (True, False)),
        (Actor("a", LinearRegression()), (False, True)),
        (Actor("a", TorchModel(network, loss="hinge")), (True, False)),
        (Actor("a", TorchModel(network), pipeline(task="regression")), (False, True)),
        (actor(), (False, False)),
        (actor(epochs=1).fit(X, y), (True, False)),
        (actor(epochs=1).fit(X, y / 2), (False, True)),
    ]
    for one, expected in cases:
        assert (is_classifier(one), is_regressor(one)) == expected
    regression = cases[-1][0]
    assert not hasattr(regression, "predict_proba") and not hasattr(regression, "classes_")
    assert hasattr(regression.fit(X, y), "predict_proba")
    assert not hasattr(Actor("margins", LinearSVC()), "predict_proba")
    assert not hasattr(Actor("whole", LogisticRegression()), "partial_fit")


def test_it_travels_and_goes_on():
    one = actor(epochs=3).fit(X, y)
    for other in (copy.deepcopy(one), pickle.loads(pickle.dumps(one.set_params(model=TorchModel(network_of_all))))):
        assert np.array_equal(other.predict_proba(X), one.predict_proba(X))
        other.partial_fit(X, y)
        assert other.score(X, y) > 0


network_of_all = network


def test_its_repr_is_one_line():
    assert repr(actor()) == "Actor('net', TorchModel(network, lr=0.02): not trained)"
    assert (
        repr(actor(epochs=1).fit(X, y))
        == "Actor('net', TorchModel(network, lr=0.02): classification, 10 classes, 64 features)"
    )
    assert repr(actor(pipeline=pipeline())).endswith("not trained, with a pipeline)")


# ---- Answers


def test_answers_are_labels_as_in_the_source():
    names = np.array([f"digit {label}" for label in range(10)])[y]
    one = actor().fit(X, names)
    assert set(one.predict(X)) <= set(names) and one.score(X, names) > 0.9
    assert one.classes_.tolist() == sorted(set(names))
    chances = one.predict_proba(X)
    np.testing.assert_allclose(chances, softmax(one.logits(X), axis=1), rtol=1e-5)
    assert np.array_equal(one.classes_[chances.argmax(1)], one.predict(X))
    with pytest.raises(DataError, match="labels of type int64 came"):
        one.score(X, y)


def test_two_classes_have_one_decision():
    one = actor().fit(X, y % 2 == 0)
    decision = one.decision_function(X)
    assert decision.shape == (300,) and np.array_equal(decision > 0, one.predict(X))
    assert one.predict(X).dtype == bool


def test_native_models_are_wrapped_by_their_class_and_answer_when_they_came_fitted():
    forest = HistGradientBoostingClassifier(max_iter=5).fit(X, y)
    assert Actor("fitted", forest).score(X, y) == forest.score(X, y)
    assert Actor("linear", LogisticRegression(max_iter=500)).fit(X, y).score(X, y) > 0.9
    module = nn.Linear(64, 10)
    one = Actor("module", module, epochs=30).fit(X, y)
    assert one.score(X, y) > 0.5 and isinstance(one.native, nn.Linear) and one.native is not module
    with pytest.raises(UsageError, match="a str came as model; expected a model of sklearn, skorch, torch"):
        Actor("text", "linear").fit(X, y)


def test_a_model_that_takes_nan_gets_it():
    holes = X.copy()
    holes[::7, 3] = np.nan
    assert Actor("boosting", HistGradientBoostingClassifier(max_iter=5)).fit(holes, y).score(holes, y) > 0.5
    with pytest.raises(ValueError, match="NaN"):
        actor().fit(holes, y)


def test_sparse_rows_and_blocks_and_images():
    thin = sparse.csr_matrix(X)
    assert np.array_equal(actor(epochs=2).fit(thin, y).predict(X), actor(epochs=2).fit(X, y).predict(thin))
    two = TorchModel(lambda spec: Blocks(spec), lr=0.02)
    one = Actor("blocks", two, epochs=5).fit({"left": X[:, :32], "right": X[:, 32:]}, y)
    assert one.predict({"left": X[:, :32], "right": X[:, 32:]}).shape == (300,)
    with pytest.raises(SpecMismatch, match="built for rows of shape"):
        one.predict({"left": X, "right": X})
    pictures = X.reshape(-1, 1, 8, 8)
    flat = Actor("pictures", TorchModel(lambda spec: nn.Sequential(nn.Flatten(), nn.Linear(64, 10))), epochs=2)
    assert flat.fit(pictures, y).predict(pictures).shape == (300,)
    with pytest.raises(SpecMismatch, match=r"rows of shape \(1, 4, 16\) came"):
        flat.predict(X.reshape(-1, 1, 4, 16))


class Blocks(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.parts = nn.ModuleDict({n: nn.Linear(b.shape[0], spec.outputs) for n, b in spec.blocks.items()})

    def forward(self, **blocks):
        return sum(self.parts[name](block) for name, block in blocks.items())


def test_evaluate_tells_the_actors_metrics():
    one = actor(metrics=["f1_macro", "neg_log_loss"]).fit(X, y)
    told = one.evaluate(X, y)
    assert told.keys() == {"loss", "accuracy", "f1_macro", "neg_log_loss"}
    assert told["neg_log_loss"] == pytest.approx(-told["loss"], rel=1e-5)
    assert told["accuracy"] == one.score(X, y) == one.score(Feed.of(X, y))
    with pytest.raises(UsageError, match="pass y"):
        one.score(X)


# ---- Steps


def test_partial_fit_learns_on_and_knows_classes_that_come_later():
    for one in (actor(batch_size=16), Actor("descent", SGDClassifier(loss="log_loss"), batch_size=16)):
        for _ in range(8):
            for start in range(0, 300, 100):
                one.partial_fit(X[start : start + 100], y[start : start + 100], classes=range(10))
        assert one.score(X, y) > 0.8 and one.classes_.tolist() == list(range(10))
        one.partial_fit(X[:5], y[:5])
        with pytest.raises(DataError, match="labels that the model does not know: 11"):
            one.partial_fit(X[:5], np.full(5, 11))
        with pytest.raises(ValueError, match="features"):
            one.partial_fit(X[:, :5], y)


def test_partial_fit_keeps_the_optimizers_momentum():
    steps, once = actor(batch_size=300), actor(batch_size=300, epochs=4)
    for _ in range(4):
        steps.partial_fit(X, y)
    once.fit(X, y)
    np.testing.assert_allclose(steps.logits(X), once.logits(X), rtol=1e-3, atol=1e-4)


def test_fit_forgets_what_was_learned():
    one = actor(epochs=1).fit(X, y)
    first = one.logits(X)
    assert np.array_equal(one.fit(X, y).logits(X), first)


# ---- Raw rows


def test_raw_rows_in_every_form():
    rows = frame()
    one = actor(pipeline=pipeline()).fit(rows)
    expected = one.predict(rows)
    assert one.score(rows) > 0.9 and set(expected) == {"no", "yes"}
    nameless = rows.drop(columns="answer")
    forms = [nameless, pa.table(rows), read(rows), nameless.to_dict("records"), prepare(one.pipeline_, rows)]
    assert all(np.array_equal(one.predict(form), expected) for form in forms)
    assert one.predict(nameless.to_dict("records")[:1]).tolist() == [expected[0]]
    assert one.evaluate(pa.table(rows))["accuracy"] == one.score(prepare(one.pipeline_, rows)) == one.score(rows)
    assert one.score(nameless, rows.answer) == one.score(rows)
    with pytest.raises(UsageError, match="pass y, or rows with the label's column"):
        one.score(nameless)
    with pytest.raises(UsageError, match="raw rows were expected, a ndarray"):
        one.predict(np.zeros((3, 5)))
    with pytest.raises(UnknownName, match="no column 'b' in these rows. Did you mean 'bb'"):
        one.predict(rows.rename(columns={"b": "bb"}))


def test_labels_beside_the_rows():
    rows = frame()
    one = actor(pipeline=pipeline(label=None)).fit(rows.drop(columns="answer"), rows.answer)
    two = actor(pipeline=pipeline()).fit(rows)
    assert np.array_equal(one.logits(rows), two.logits(rows))
    weighted = actor(pipeline=pipeline()).fit(rows.drop(columns="answer"), rows.answer, np.linspace(0, 1, 400))
    assert not np.array_equal(weighted.logits(rows), two.logits(rows))
    with pytest.raises(UsageError, match="the column 'answer' already"):
        actor(pipeline=pipeline()).fit(rows, rows.answer)


def test_arrays_through_a_pipeline_that_was_fitted_on_arrays():
    columns = Pipeline(Preprocessor("pixels", [f"x{n}" for n in range(64)], StandardScaler()))
    one = actor(pipeline=columns).fit(X, y)
    assert one.score(X, y) > 0.9 and one.predict(X[:3]).shape == (3,)
    with pytest.raises(ValueError, match="x63"):
        one.predict(X[:, :63])


def test_rows_to_validate_on_do_not_enter_the_fit():
    rows = frame()
    rows.loc[:, "a"] += np.arange(400) / 10
    one = actor(pipeline=pipeline(), epochs=1)
    training = train(one, rows, validation=0.25)
    last = list(training)[-1]
    seen = len(training.feed)
    assert 250 < seen < 350 and "val_loss" in last
    kept, _ = read(rows).split(test=0.25, seed=0)
    apart = prepare(pipeline(), kept)
    assert np.array_equal(training.feed.arrays()[0].toarray(), apart.arrays()[0].toarray())


def test_partial_fit_on_raw_rows():
    rows = frame()
    one = actor(pipeline=pipeline(), batch_size=32)
    for _ in range(15):
        one.partial_fit(rows)
    mean = one.pipeline_.state.stages["numbers"][0][0].mean_
    one.partial_fit(frame(50, seed=1))
    assert one.score(rows) > 0.9 and np.array_equal(one.pipeline_.state.stages["numbers"][0][0].mean_, mean)


def test_training_on_a_feed_takes_over_its_pipeline():
    rows, feed = frame(), prepare(pipeline(), frame())
    one = actor().fit(feed)
    assert one.pipeline is None and one.pipeline_ is feed.pipeline and one.score(rows) > 0.9
    actor(pipeline=pipeline()).fit(feed)
    cases = [
        (pipeline(MinMaxScaler()), r"worker 1 of block 'numbers' is MinMaxScaler\(\), in the feed StandardScaler\(\)"),
        (pipeline(seed=3), "seed is 3, in the feed 0"),
        (Pipeline(Preprocessor("numbers", ["a"], StandardScaler()), label="answer"), r"blocks are \['numbers'\]"),
        (pipeline(label="c2"), "label is 'c2', in the feed 'answer'"),
    ]
    for other, message in cases:
        with pytest.raises(SpecMismatch, match=message):
            actor(pipeline=other).fit(feed)
    with pytest.raises(SpecMismatch, match="made from arrays without one"):
        actor(pipeline=pipeline()).fit(Feed.of(X, y))


def test_a_split_of_a_feed_is_refused_where_a_worker_saw_the_labels():
    feed = prepare(pipeline(), frame())
    with pytest.warns(UserWarning, match="share its preprocessing"):
        assert "val_loss" in list(train(actor(), feed, validation=0.2))[-1]
    tail = Pipeline(Preprocessor("pixels", ["a", "b"], SelectKBest(k=1)), label="answer")
    seen = prepare(tail, frame())
    with pytest.raises(UsageError, match=r"SelectKBest\(k=1\) of block 'pixels' has learned from the labels"):
        train(actor(), seen, validation=0.2)


def test_what_has_not_learned_says_so():
    for ask in (lambda a: a.predict(X), lambda a: a.native, lambda a: a.evaluate(X, y)):
        with pytest.raises(NotFittedError, match=r"'net' has not learned anything yet: actor.fit"):
            ask(actor())
    with pytest.raises(NotFittedBySklearn):
        actor().predict(X)
    with pytest.warns(DataConversionWarning):
        actor(epochs=1).fit(X, y[:, None])


def test_it_is_saved_and_opened(tmp_path):
    from h3lab.actor import load

    one = actor(pipeline=pipeline()).fit(frame())
    path = one.save(tmp_path / "net.h3")
    assert np.array_equal(load(path).predict_proba(frame()), one.predict_proba(frame()))
    assert torch.is_tensor(load(path).native[0].weight)
