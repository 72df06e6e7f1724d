"""SklearnModel: how estimators of every kind learn, answer and are asked, beyond what the suite of models checks."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from h3lab import worlds
from h3lab.actor import Actor
from h3lab.backends._sklearn import SklearnModel
from h3lab.backends._sklearn_soft import lesson, measures
from h3lab.batch import Batch
from h3lab.errors import DataError, ModelError, NonFiniteLoss, NotFittedError, SpecMismatch, UsageError
from h3lab.feeds.feed import Feed
from h3lab.model import Capabilities
from h3lab.settings import Setting, Settings
from h3lab.training.answers import log_softmax
from h3lab.training.loop import train
from h3lab.transfer import Distill

X, Y = load_digits(return_X_y=True)
X = X / 16
NAMES = np.array([f"digit {i}" for i in range(10)])
LABELS = NAMES[Y]
FEED = Feed.of(X[:400], LABELS[:400])


def whole(feed=FEED):
    return feed.batch(slice(None))


def fitted(estimator, feed=FEED, seed=0, steps=None):
    """A SklearnModel after one training of the usual kind."""
    model = SklearnModel(estimator)
    model.build(feed.spec, seed)
    settings = Settings(model.settings)
    if model.capabilities.learns == "batches":
        for epoch in range(model.capabilities.epochs or 3):
            for batch in feed.epoch(epoch + 1, batch_size=50, seed=0):
                model.step(batch, settings)
    else:
        for _ in range(steps or model.capabilities.steps or 1):
            model.step(whole(feed), settings)
    return model


# ---- What an estimator can do


@pytest.mark.parametrize(
    "estimator, expected",
    [
        (LogisticRegression(), Capabilities("whole", True, True, ("kl",))),
        (SGDClassifier(loss="log_loss"), Capabilities("batches", True, True, ("kl",))),
        (SGDClassifier(), Capabilities("batches", True, True, (), probabilities=False)),
        (SGDClassifier(loss="log_loss", early_stopping=True), Capabilities("whole", True, True, ("kl",))),
        (SGDClassifier(loss="log_loss", class_weight="balanced"), Capabilities("whole", True, True, ("kl",))),
        (SGDRegressor(), Capabilities("batches", True, True, ("kl",))),
        (MLPClassifier(), Capabilities("batches", True, True, ("kl",))),
        (MLPClassifier(solver="lbfgs"), Capabilities("whole", True, True, ("kl",))),
        (GaussianNB(), Capabilities("batches", False, True, ("kl",), epochs=1)),
        (MultinomialNB(), Capabilities("batches", True, True, ("kl",), epochs=1)),
        (RandomForestClassifier(), Capabilities("whole", True, True, ("kl",))),
        (RandomForestClassifier(7, warm_start=True), Capabilities("increments", True, True, ("kl",), steps=7)),
        (
            HistGradientBoostingClassifier(max_iter=9, warm_start=True),
            Capabilities("increments", False, True, ("kl",), steps=9),
        ),
        (LogisticRegression(warm_start=True), Capabilities("whole", True, True, ("kl",))),
        (LinearSVC(), Capabilities("whole", True, True, (), probabilities=False)),
        (KNeighborsClassifier(), Capabilities("whole", True, False, ())),
        (LinearRegression(), Capabilities("whole", True, True, ("kl",))),
        (make_pipeline(StandardScaler(), LogisticRegression()), Capabilities("whole", False, True, ("kl",))),
        (GridSearchCV(KNeighborsClassifier(), {}), Capabilities("whole", True, False, ())),
        (GridSearchCV(LogisticRegression(), {}), Capabilities("whole", True, True, ("kl",))),
    ],
    ids=str,
)
def test_capabilities(estimator, expected):
    assert SklearnModel(estimator).capabilities == expected


@pytest.mark.parametrize(
    "estimator, rate",
    [
        (SGDClassifier(learning_rate="constant", eta0=0.3), 0.3),
        (SGDClassifier(learning_rate="optimal"), None),
        (SGDRegressor(eta0=0.02), 0.02),
        (MLPClassifier(learning_rate_init=0.005), 0.005),
        (MLPClassifier(solver="lbfgs"), None),
        (HistGradientBoostingClassifier(warm_start=True, learning_rate=0.2), 0.2),
        (HistGradientBoostingClassifier(), None),
        (GradientBoostingClassifier(warm_start=True), None),
        (LogisticRegression(), None),
    ],
    ids=str,
)
def test_only_a_rate_that_takes_effect_is_a_setting(estimator, rate):
    settings = SklearnModel(estimator).settings
    assert [(setting.name, setting.default) for setting in settings] == ([] if rate is None else [("lr", rate)])


def test_the_rate_of_growing_histograms_holds_from_the_next_tree_on():
    """And leaves those that are there as they are."""
    model = SklearnModel(HistGradientBoostingClassifier(max_iter=3, warm_start=True, learning_rate=0.3))
    model.build(FEED.spec, 0)
    settings = Settings(model.settings)
    model.step(whole(), settings)
    first = model.logits(X[:50])
    model.step(whole(), settings.replace(lr=1e-9))
    assert np.allclose(model.logits(X[:50]), first, atol=1e-6)
    model.step(whole(), settings)
    assert np.abs(model.logits(X[:50]) - first).max() > 0.1


# ---- The estimator itself


def test_the_users_estimator_is_never_changed():
    given = SGDClassifier(loss="log_loss")
    before = given.get_params()
    fitted(given)
    assert given.get_params() == before and not hasattr(given, "coef_")


def test_native_is_fitted_on_the_labels_as_they_stand():
    model = fitted(RandomForestClassifier(20))
    assert list(model.native.classes_) == sorted(NAMES)
    assert (model.native.predict(X[400:600]) == LABELS[400:600]).mean() > 0.7


def test_class_weights_of_the_estimator_go_by_the_labels_of_the_source():
    heavy = fitted(LogisticRegression(class_weight={"digit 8": 1000.0}, max_iter=2000))
    plain = fitted(LogisticRegression(max_iter=2000))
    eight = list(FEED.spec.labels).index("digit 8")
    assert (heavy.logits(X).argmax(1) == eight).sum() > (plain.logits(X).argmax(1) == eight).sum()


def test_one_fit_is_scikit_learns():
    model = fitted(RandomForestClassifier(10, random_state=3))
    alone = RandomForestClassifier(10, random_state=3).fit(X[:400], LABELS[:400])
    assert np.array_equal(model.native.predict_proba(X), alone.predict_proba(X))


@pytest.mark.parametrize(
    "make",
    [
        lambda **more: RandomForestClassifier(6, random_state=3, **more),
        lambda **more: ExtraTreesClassifier(6, random_state=3, **more),
        lambda **more: GradientBoostingClassifier(n_estimators=4, random_state=3, **more),
        lambda **more: HistGradientBoostingClassifier(max_iter=4, random_state=3, **more),
    ],
    ids=["forest", "extra trees", "boosting", "histograms"],
)
def test_growing_step_by_step_gives_the_whole(make):
    model = fitted(make(warm_start=True))
    alone = make().fit(X[:400], LABELS[:400])
    assert np.array_equal(model.native.predict_proba(X), alone.predict_proba(X))


def test_growing_has_a_record_an_addition_and_ends_at_its_own_end():
    actor = Actor("forest", RandomForestClassifier(5, warm_start=True))
    records = list(train(actor, FEED, validation=0.25))
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5]
    assert all("val_loss" in record for record in records)
    assert len(actor.native.estimators_) == 5
    assert len(list(train(actor, FEED, epochs=3))) == 3 and actor.native.n_estimators == 3


def test_growing_can_be_stopped_in_between():
    actor = Actor("forest", RandomForestClassifier(50, warm_start=True))
    training = train(actor, FEED)
    for record in training:
        if record["step"] == 4:
            training.stop()
    assert len(actor.native.estimators_) == 4 and actor.score(X[:400], LABELS[:400]) > 0.9


def test_naive_bayes_sees_every_row_once():
    """A second pass would count them twice, so that smoothing would be halved."""
    actor = Actor("bayes", MultinomialNB(), batch_size=100)
    assert [record["epoch"] for record in train(actor, FEED)] == [1] * 4
    alone = MultinomialNB().fit(X[:400], LABELS[:400])
    assert np.allclose(actor.native.feature_log_prob_, alone.feature_log_prob_, rtol=1e-12)


def test_random_states_come_from_the_seed_in_every_part():
    row = make_pipeline(
        FunctionTransformer(), VotingClassifier([("a", RandomForestClassifier(3)), ("b", GaussianNB())])
    )
    model = SklearnModel(row)
    model.build(FEED.spec, 5)
    seeds = [value for name, value in model.estimator_.get_params().items() if name.endswith("random_state")]
    assert len(seeds) == 1 and isinstance(seeds[0], int)
    again = SklearnModel(row)
    again.build(FEED.spec, 6)
    assert again.estimator_.get_params()["votingclassifier__a__random_state"] != seeds[0]
    kept = SklearnModel(RandomForestClassifier(random_state=11))
    kept.build(FEED.spec, 5)
    assert kept.estimator_.random_state == 11


def test_numpys_global_stream_plays_no_part():
    np.random.seed(0)
    one = fitted(SGDClassifier(loss="log_loss")).parameters()
    np.random.seed(1)
    two = fitted(SGDClassifier(loss="log_loss")).parameters()
    assert np.array_equal(one["coef_"], two["coef_"])


class Nearest:
    """Only fit, predict and predict_proba, and no base of scikit-learn's."""

    def fit(self, x, y):
        self.classes_, codes = np.unique(y, return_inverse=True)
        self.centres_ = np.stack([x[codes == code].mean(0) for code in range(len(self.classes_))])
        return self

    def predict_proba(self, x):
        far = -((x[:, None] - self.centres_) ** 2).sum(2)
        return np.exp(log_softmax(far))

    def predict(self, x):
        return self.classes_[self.predict_proba(x).argmax(1)]


def test_what_has_the_methods_can_be_wrapped():
    model = fitted(Nearest())
    assert model.task == "classification" and model.capabilities == Capabilities("whole", False, False, ())
    assert (FEED.spec.decode(model.logits(X[400:]).argmax(1)) == LABELS[400:]).mean() > 0.8
    assert Actor("nearest", Nearest()).fit(X[:400], LABELS[:400]).score(X[400:], LABELS[400:]) > 0.8
    with pytest.raises(UsageError, match="came as model"):
        Actor("a class", Nearest).fit(X, LABELS)
    with pytest.raises(UsageError, match="fit and predict"):
        SklearnModel(StandardScaler()).build(FEED.spec, 0)


NOTEBOOK = """
import sys
import numpy as np
from sklearn.linear_model import SGDClassifier
from h3lab.serial import codec
from h3lab.serial import signed
from h3lab.backends._sklearn import SklearnModel
from h3lab.settings import Settings
from h3lab.testing import easy_feed
class Mine(SGDClassifier):  # stands in no module that another process could import
    pass
model = SklearnModel(Mine(loss="log_loss"))
model.build(easy_feed().spec, 0)
launch = signed.dumps(model)
model.step(easy_feed().batch(slice(0, 40)), Settings())
open(sys.argv[1], "wb").write(codec.pack({"launch": launch, "state": model.state(), "parameters": model.parameters()}))
print(model.logits(easy_feed().batch(slice(None)).x).tobytes().hex())
"""
RANK = """
import sys
from h3lab.serial import codec
from h3lab.serial import signed
from h3lab.testing import easy_feed
tree = codec.unpack(open(sys.argv[1], "rb").read())
model = signed.loads(tree["launch"])
model.load_state(tree["state"])
print(model.logits(easy_feed().batch(slice(None)).x).tobytes().hex())
"""


def test_a_class_of_the_notebook_comes_back_from_its_snapshot(tmp_path):
    """It travelled by value, so no name of the rank's process leads to it."""
    said = [
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True, timeout=120)
        for code in (NOTEBOOK, RANK)
    ]
    assert said[1].returncode == 0, said[1].stderr
    assert said[0].stdout == said[1].stdout != ""


def test_wrapping_imports_no_other_framework():
    code = """
import sys
from sklearn.linear_model import LogisticRegression
from h3lab.actor import Actor
import numpy as np
x = np.random.default_rng(0).normal(size=(40, 3))
actor = Actor("a", LogisticRegression()).fit(x, x[:, 0] > 0)
actor.predict_proba(x)
print(*[name for name in ("torch", "keras", "tensorflow", "mxnet", "bokeh", "ipyparallel") if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []


def test_the_backend_is_found_by_the_class():
    class Own(LogisticRegression):
        pass

    assert isinstance(worlds.wrap(Own()), SklearnModel)
    assert worlds.backend_of(worlds.wrap(Own())) == "sklearn"


# ---- One that came fitted


def test_a_fitted_estimator_answers_and_teaches_at_once():
    alone = LogisticRegression(max_iter=2000).fit(X[:1000], LABELS[:1000])
    actor = Actor("given", alone)
    assert np.array_equal(actor.predict(X[1000:]), alone.predict(X[1000:]))
    assert np.allclose(actor.predict_proba(X[1000:]), alone.predict_proba(X[1000:]), atol=1e-12)
    student = Actor("student", SGDClassifier(loss="log_loss"))
    *_, last = train(student, FEED, transfer=Distill(alone))
    assert last["soft_loss"] > 0 and student.score(X[1000:], LABELS[1000:]) > 0.8


def test_what_a_fitted_estimator_tells_of_its_data():
    spec = SklearnModel(LogisticRegression(max_iter=2000).fit(X, LABELS)).spec
    assert (spec.task, spec.features, spec.labels) == ("classification", 64, tuple(sorted(NAMES)))
    assert SklearnModel(LinearRegression().fit(X, X[:, :2])).spec.outputs == 2
    assert SklearnModel(LogisticRegression()).spec is None


def test_a_fitted_estimator_of_other_classes_is_refused():
    other = LogisticRegression(max_iter=2000).fit(X, Y)
    with pytest.raises(SpecMismatch, match="came fitted on"):
        SklearnModel(other).build(FEED.spec, 0)


def test_training_begins_with_an_unfitted_clone():
    given = RandomForestClassifier(5, random_state=0).fit(X[:100], LABELS[:100])
    actor = Actor("again", given).fit(X[:400], LABELS[:400])
    assert actor.native is not given
    fresh = RandomForestClassifier(5, random_state=0).fit(X[:400], LABELS[:400])
    assert np.array_equal(actor.native.predict_proba(X), fresh.predict_proba(X))


def test_an_estimator_fitted_on_named_columns_gets_them():
    import pandas as pd

    table = pd.DataFrame(X[:300], columns=[f"p{i}" for i in range(64)])
    given = LogisticRegression(max_iter=2000).fit(table, LABELS[:300])
    assert (Actor("named", given).predict(X[:300]) == given.predict(table)).all()  # a warning would be an error


# ---- Answers


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(max_iter=2000),
        SGDClassifier(loss="log_loss"),
        SGDClassifier(loss="modified_huber"),
        GaussianNB(var_smoothing=1e-3),
        MLPClassifier((16,), learning_rate_init=0.02),
        LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
        GradientBoostingClassifier(n_estimators=3),
        HistGradientBoostingClassifier(max_iter=3),
        CalibratedClassifierCV(LinearSVC(), cv=2),
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        GridSearchCV(LogisticRegression(max_iter=2000), {"C": [0.1, 1.0]}, cv=2),
    ],
    ids=str,
)
@pytest.mark.parametrize("classes", [2, 10])
def test_logits_are_the_log_probabilities_of_the_estimator(estimator, classes):
    chosen = Y[:400] < classes
    feed = Feed.of(X[:400][chosen], LABELS[:400][chosen])
    model = fitted(estimator, feed)
    p, q = model.native.predict_proba(X[400:600]), np.exp(log_softmax(model.logits(X[400:600])))
    assert np.allclose(p, q, atol=1e-9)


@pytest.mark.parametrize(
    "estimator",
    [
        LinearSVC(),
        SVC(),
        SVC(decision_function_shape="ovo"),
        RidgeClassifier(),
        SGDClassifier(),
        VotingClassifier([("a", GaussianNB()), ("b", LinearSVC())]),
        RandomForestClassifier(3, max_depth=1),
    ],
    ids=str,
)
def test_the_greatest_logit_is_what_the_estimator_predicts(estimator):
    model = fitted(estimator)
    assert (FEED.spec.decode(model.logits(X).argmax(1)) == model.native.predict(X)).all()


def test_margins_predict_but_are_no_probabilities():
    actor = Actor("margins", LinearSVC()).fit(X[:400], LABELS[:400])
    assert actor.score(X[400:], LABELS[400:]) > 0.8 and not hasattr(actor, "predict_proba")
    with pytest.raises(ModelError, match="CalibratedClassifierCV"):
        next(train(Actor("student", LogisticRegression()), FEED, transfer=Distill(actor)))


def test_a_forest_never_answers_zero():
    forest = fitted(RandomForestClassifier(20, warm_start=True))
    p = np.exp(log_softmax(forest.logits(X)))
    assert (forest.native.predict_proba(X) == 0).any()
    assert p.min() > 1 / 21 / 2
    assert "clip=0.0476" in repr(forest)
    fine = SklearnModel(RandomForestClassifier(20), clip=1e-4)
    fine.build(FEED.spec, 0)
    fine.step(whole(), Settings())
    assert np.exp(log_softmax(fine.logits(X))).min() < 2e-4
    with pytest.raises(UsageError, match="clip"):
        SklearnModel(RandomForestClassifier(), clip=0.7).build(FEED.spec, 0)


def test_few_trees_and_many_classes_do_not_tie():
    """A clip of one vote may be more than the likeliest class has."""
    forest = fitted(RandomForestClassifier(2, max_depth=1))
    assert (FEED.spec.decode(forest.logits(X).argmax(1)) == forest.native.predict(X)).all()


def test_a_class_that_training_never_saw_is_unlikely_and_in_its_column():
    seen = Feed.of(X[:400], LABELS[:400], labels=[*NAMES, "digit 5.5"])
    for estimator in (RandomForestClassifier(5), LogisticRegression(max_iter=2000), GaussianNB(var_smoothing=0.01)):
        model = fitted(estimator, seen)
        z = model.logits(X[:400])
        never = list(seen.spec.labels).index("digit 5.5")
        assert z.shape == (400, 11) and np.isfinite(z).all()
        assert (z.argmax(1) != never).all() and (seen.spec.decode(z.argmax(1)) == LABELS[:400]).mean() > 0.8


def test_regressions_have_a_column_a_target():
    y = np.stack([X[:400].sum(1), X[:400, 10]], 1)
    model = fitted(LinearRegression(), Feed.of(X[:400], y))
    assert np.allclose(model.logits(X[:400]), y, atol=1e-8)
    single = fitted(RandomForestRegressor(5), Feed.of(X[:400], y[:, 0]))
    assert single.logits(X[:7]).shape == (7, 1)


# ---- Inputs


def test_sparse_rows_go_to_those_who_take_them():
    sparse = Feed.of(csr_matrix(X[:400]), LABELS[:400])
    taker, other = fitted(LogisticRegression(max_iter=2000), sparse), fitted(GaussianNB(var_smoothing=0.01), sparse)
    dense = fitted(GaussianNB(var_smoothing=0.01))
    assert taker.capabilities.sparse and not other.capabilities.sparse
    assert np.array_equal(other.logits(csr_matrix(X)), dense.logits(X))


def test_sparse_rows_that_do_not_fit_are_refused_before_memory_is_taken():
    huge = csr_matrix((np.ones(1), ([0], [0])), shape=(10**7, 10**6))
    model = SklearnModel(GaussianNB())
    with pytest.raises(DataError, match="TruncatedSVD"):
        model.build(Feed.of(csr_matrix(X[:20]), LABELS[:20]).spec, 0)
        model.step(Batch(huge, np.zeros(10**7, np.int64)), Settings())


def test_images_are_flattened_and_blocks_stand_side_by_side():
    flat = fitted(LogisticRegression(max_iter=2000))
    images = Feed.of(X[:400].reshape(-1, 8, 8), LABELS[:400])
    assert np.array_equal(
        fitted(LogisticRegression(max_iter=2000), images).logits(X[:9].reshape(-1, 8, 8)), flat.logits(X[:9])
    )
    halves = {"left": X[:400, :20], "right": csr_matrix(X[:400, 20:])}
    blocks = fitted(LogisticRegression(max_iter=2000), Feed.of(halves, LABELS[:400]))
    assert np.allclose(
        blocks.logits({"left": X[:9, :20], "right": csr_matrix(X[:9, 20:])}), flat.logits(X[:9]), atol=1e-3
    )


def test_wrong_data_is_said():
    model = fitted(LogisticRegression(max_iter=2000))
    with pytest.raises(SpecMismatch, match="63 columns came; LogisticRegression was built for 64"):
        model.logits(X[:, :63])
    with pytest.raises(SpecMismatch, match=r"labels from 0 to 12, the model knows 10 classes"):
        model.step(Batch(X[:20], np.full(20, 12) * (np.arange(20) > 0)), Settings())
    with pytest.raises(SpecMismatch, match="LinearRegression is a regressor, and the data is classification"):
        SklearnModel(LinearRegression()).build(FEED.spec, 0)
    with pytest.raises(NotFittedError, match="build"):
        SklearnModel(LogisticRegression()).step(whole(), Settings())
    with pytest.raises(ModelError, match="nothing to learn"):
        model.step(Batch(X[:20]), Settings())


def test_foreign_errors_are_mapped_and_chained():
    model = SklearnModel(LogisticRegression(C=-1.0))
    model.build(FEED.spec, 0)
    with pytest.raises(DataError, match="LogisticRegression cannot learn from these rows: The 'C' parameter") as caught:
        model.step(whole(), Settings())
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_descent_that_diverges_tells_a_loss_that_is_no_number():
    model = SklearnModel(SGDRegressor(learning_rate="constant", eta0=1e6))
    feed = Feed.of(X[:400] * 1e160, X[:400].sum(1))
    model.build(feed.spec, 0)
    assert not np.isfinite(model.step(whole(feed), Settings(model.settings))["loss"])
    with pytest.raises(NonFiniteLoss, match="step 1"):
        list(train(Actor("far", model.estimator), feed))


def test_a_perceptron_makes_one_update_of_a_batch():
    """Left to itself it would cut a batch into pieces of 200, and warn at one that is smaller."""
    model = SklearnModel(MLPClassifier((4,)))
    model.build(FEED.spec, 0)
    for rows in (300, 20, 300):
        model.step(FEED.batch(slice(0, rows)), Settings(model.settings))
    assert model.estimator_._optimizer.t == 3


# ---- Weights and teachers


def test_weights_are_refused_by_who_takes_none():
    model = SklearnModel(KNeighborsClassifier())
    model.build(FEED.spec, 0)
    batch = Batch(X[:400], whole().y, np.linspace(0.5, 1, 400))
    with pytest.raises(ModelError, match="KNeighborsClassifier takes no weights of rows"):
        model.step(batch, Settings())


def test_weights_reach_the_last_step_of_a_row():
    weight = np.where(whole().y == 3, 50.0, 1.0)
    row = make_pipeline(StandardScaler(), DecisionTreeClassifier(max_depth=3, random_state=0))
    model = SklearnModel(row)
    model.build(FEED.spec, 0)
    model.step(Batch(X[:400], whole().y, weight), Settings())
    scaled = StandardScaler().fit_transform(X[:400])
    alone = DecisionTreeClassifier(max_depth=3, random_state=0).fit(scaled, LABELS[:400], sample_weight=weight)
    assert np.array_equal(model.native[-1].tree_.value, alone.tree_.value)


TRANSFER = [Setting(name, float, 1.0, low=0.0) for name in ("temperature", "soft", "hard")]


def taught(estimator, soft, temperature, y=True, weights=(0.7, 0.3), steps=1):
    model = SklearnModel(estimator)
    model.build(FEED.spec, 0)
    settings = Settings([*model.settings, *TRANSFER], temperature=temperature, soft=weights[0], hard=weights[1])
    batch = Batch(X[:400], whole().y if y else None, soft=soft)
    for _ in range(steps):
        told = model.step(batch, settings)
    return model, told


@pytest.fixture(scope="module")
def teacher():
    return fitted(LogisticRegression(C=0.1, max_iter=2000), Feed.of(X, LABELS)).logits(X[:400])


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_copies_give_what_soft_labels_would(teacher, temperature):
    """A student that learns by counting shows the weights it was given: a tree with one leaf has their mean."""
    p = np.exp(log_softmax(teacher / temperature))
    stump = DecisionTreeClassifier(min_samples_leaf=0.999, max_depth=1)
    model, _ = taught(stump, teacher, temperature)
    wanted = 0.7 * p.mean(0) + 0.3 / temperature * np.bincount(whole().y) / 400
    wanted /= wanted.sum()
    assert np.allclose(model.native.predict_proba(X[:1])[0], wanted, atol=1e-3)
    # sharpened by T again, because the student said at its temperature one what the teacher says at T
    assert np.allclose(log_softmax(model.logits(X[:1])), log_softmax(temperature * np.log(wanted)[None]), atol=0.05)


def test_small_shares_are_left_out_and_their_weight_kept(teacher):
    settings = Settings(TRANSFER, temperature=1.0, soft=0.9, hard=0.1)
    made = lesson(Batch(X[:400], whole().y, np.linspace(0.5, 2, 400), teacher), settings, FEED.spec)
    assert len(made.y) < 4000
    assert made.weight.sum() == pytest.approx(np.linspace(0.5, 2, 400).sum())


@pytest.mark.parametrize(
    "estimator, steps",
    [
        (LogisticRegression(max_iter=3000, C=100.0), 1),
        (HistGradientBoostingClassifier(max_iter=15), 1),
        (MLPClassifier((64,), learning_rate_init=0.02), 60),
    ],
    ids=["linear", "boosting", "perceptron"],
)
def test_a_student_is_as_sure_as_its_teacher(estimator, steps, teacher):
    """Not T times less, which accuracy would not show."""
    model, told = taught(estimator, teacher, 4.0, weights=(1.0, 0.0), steps=steps)
    z = model.logits(X[:400])
    p, q = np.exp(log_softmax(teacher)), np.exp(log_softmax(z))
    assert abs(p.max(1).mean() - q.max(1).mean()) < 0.1
    assert (p.argmax(1) == q.argmax(1)).mean() > 0.9
    p, q = log_softmax(teacher / 4), log_softmax(z / 4)
    assert told["soft_loss"] == pytest.approx(16 * (np.exp(p) * (p - q)).sum(1).mean(), rel=1e-6)


def test_the_two_losses_weigh_as_they_say(teacher):
    """Copies have the minimum of soft · T² KL + hard · cross entropy, or nearly so: neither other weights of the hard
    copies nor another temperature of the logits come as near."""
    wrong = np.roll(teacher, 1, axis=1)  # a teacher who contradicts every label
    settings = Settings(TRANSFER, temperature=4.0, soft=0.5, hard=0.5)
    batch = Batch(X[:400], whole().y, soft=wrong)

    def loss(soft, hard, temperature):
        model, _ = taught(LogisticRegression(C=100.0, max_iter=5000), wrong, 4.0, weights=(soft, hard))
        return measures(model.logits(X[:400]) / 4.0 * temperature, batch, settings, FEED.spec)["loss"]

    own = loss(0.5, 0.5, 4.0)
    assert own < loss(0.5, 4 * 0.5, 4.0)  # hard copies of their whole weight
    assert own < loss(0.5, 0.5, 1.0)  # logits as they were learned


def test_a_student_that_answers_like_its_teacher_has_no_loss(teacher):
    settings = Settings(TRANSFER, temperature=3.0, soft=1.0, hard=0.0)
    batch = Batch(X[:400], whole().y, soft=teacher + 7.0)  # the same up to a constant a row
    assert measures(teacher, batch, settings, FEED.spec)["soft_loss"] == pytest.approx(0, abs=1e-12)


def test_hard_loss_is_scikit_learns():
    model, told = taught(LogisticRegression(max_iter=2000), np.zeros((400, 10)), 1.0, weights=(0.0, 1.0))
    assert told["loss"] == told["hard_loss"]
    proba = model.native.predict_proba(X[:400])
    assert told["hard_loss"] == pytest.approx(log_loss(LABELS[:400], proba, labels=sorted(NAMES)))
    assert model.native.coef_ == pytest.approx(fitted(LogisticRegression(max_iter=2000)).native.coef_)


def test_rows_without_labels_are_learned_from_the_teacher_alone(teacher):
    model, told = taught(LogisticRegression(max_iter=2000), teacher, 2.0, y=False)
    assert "hard_loss" not in told and (model.logits(X[:400]).argmax(1) == teacher.argmax(1)).mean() > 0.95


@pytest.mark.parametrize(
    "estimator, lacks", [(KNeighborsClassifier(), "weights of rows"), (LinearSVC(), "probabilities")]
)
def test_who_cannot_learn_from_a_teacher_says_what_can(estimator, lacks, teacher):
    with pytest.raises(ModelError, match=f"has no {lacks}.*SGDClassifier.*soft=0"):
        taught(estimator, teacher, 2.0)
    model, _ = taught(estimator, teacher, 2.0, weights=(0.0, 1.0))
    assert (model.logits(X[:400]).argmax(1) == whole().y).mean() > 0.9


def test_a_regression_learns_the_mean_of_target_and_teacher():
    y = X[:400].sum(1)
    feed = Feed.of(X[:400], y)
    model = SklearnModel(LinearRegression())
    model.build(feed.spec, 0)
    settings = Settings(TRANSFER, temperature=4.0, soft=0.25, hard=0.75)
    told = model.step(Batch(X[:400], y, soft=(y + 8.0)[:, None]), settings)
    assert np.allclose(model.logits(X[:400])[:, 0], y + 2.0, atol=1e-6)
    assert told["soft_loss"] == pytest.approx(36) and told["hard_loss"] == pytest.approx(4)


def test_a_forest_that_was_taught_travels_and_is_kept_with_its_temperature(teacher):
    model, _ = taught(RandomForestClassifier(5), teacher, 4.0)
    other = SklearnModel(RandomForestClassifier(5))
    other.build(FEED.spec, 1)
    other.load_parameters(model.parameters())
    assert float(model.parameters()["temperature"]) == 4.0 and "temperature=4" in repr(other)
    assert np.array_equal(other.logits(X), model.logits(X))


# ---- As a plain estimator


def test_to_sklearn_has_the_same_answers(teacher):
    actor = Actor("plain", LogisticRegression(max_iter=2000)).fit(X[:400], LABELS[:400])
    plain = actor.to_sklearn()
    assert type(plain) is LogisticRegression and plain is not actor.native
    assert np.allclose(plain.predict_proba(X), actor.predict_proba(X), atol=1e-12)


def test_a_students_temperature_goes_into_linear_coefficients():
    given = LogisticRegression(max_iter=2000).fit(X, LABELS)
    student = Actor("student", LogisticRegression(max_iter=3000))
    for _ in train(student, FEED, transfer=Distill(given, temperature=5.0)):
        pass
    assert np.allclose(student.to_sklearn().predict_proba(X), student.predict_proba(X), atol=1e-9)
    assert np.abs(student.native.predict_proba(X) - student.predict_proba(X)).max() > 0.2
    forest = Actor("forest", RandomForestClassifier(5))
    for _ in train(forest, FEED, transfer=Distill(given)):
        pass
    with pytest.raises(ModelError, match="actor.native is the estimator"):
        forest.to_sklearn()
