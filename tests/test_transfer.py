"""Distill: the loss is the one of the books, a teacher is asked once, and answers find their rows."""

import contextlib
import dataclasses
import json
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import LinearSVC
from torch import nn

from h3lab import soft_targets
from h3lab.actor import Actor
from h3lab.backends._torch import TorchModel
from h3lab.backends._torch_losses import Objective
from h3lab.errors import DataError, ModelError, NotFittedError, SpecMismatch, UnknownName, UsageError
from h3lab.feeds.feed import Feed
from h3lab.home import room
from h3lab.pipeline import Pipeline
from h3lab.preparing.prepare import prepare
from h3lab.preprocessor import Preprocessor
from h3lab.settings import Settings
from h3lab.soft_targets import answers, beside, mixture
from h3lab.sources import read
from h3lab.training import questions
from h3lab.training.loop import train
from h3lab.transfer import Distill

DIGITS, CLASSES = load_digits(return_X_y=True)
X, y = (DIGITS[:300] / 16).astype(np.float32), CLASSES[:300]
SPEC = Feed.of(X, y).spec


@pytest.fixture(autouse=True)
def nothing_kept():
    soft_targets._KEPT.clear()


def network(spec):
    return nn.Sequential(nn.Linear(spec.features, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, spec.outputs))


def actor(name="student", **settings):
    return Actor(name, TorchModel(network, lr=0.01), **{"epochs": 3, **settings})


def timeless(records):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


def logits(rows=7, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, 10)) * 3


# ---- The loss


def soft_loss(student, teacher, temperature, weight=None):
    student = torch.tensor(student, requires_grad=True)
    weight = None if weight is None else torch.as_tensor(weight)
    loss = Objective(None, SPEC).soft(student, torch.as_tensor(teacher), weight, len(student), temperature)
    loss.backward()
    return loss.item(), student.grad.numpy()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_it_is_kl_from_teacher_to_student_times_t_squared_as_mean_over_rows(temperature):
    student, teacher = logits(seed=1), logits(seed=2)
    p, q = softmax(teacher / temperature, axis=1), softmax(student / temperature, axis=1)
    expected = temperature**2 * rel_entr(p, q).sum() / len(student)
    assert soft_loss(student, teacher, temperature)[0] == pytest.approx(expected, rel=1e-10)
    twice = [np.concatenate([values, values]) for values in (student, teacher)]
    assert soft_loss(*twice, temperature)[0] == pytest.approx(expected, rel=1e-10)
    weight = np.arange(7.0)
    rows = temperature**2 * rel_entr(p, q).sum(axis=1)
    assert soft_loss(student, teacher, temperature, weight)[0] == pytest.approx((rows * weight).mean(), rel=1e-10)


def test_a_student_that_says_the_same_is_not_moved():
    teacher = logits()
    loss, gradient = soft_loss(teacher + 5.0, teacher, 3.0)  # logits are known up to a constant a row
    assert loss == pytest.approx(0, abs=1e-12) and np.abs(gradient).max() < 1e-12


@pytest.mark.parametrize("temperature", [1.0, 8.0])
def test_its_gradient_is_that_of_finite_differences(temperature):
    student, teacher = logits(3, 1), logits(3, 2)
    _, gradient = soft_loss(student, teacher, temperature)
    for at in np.ndindex(student.shape):
        step = np.zeros_like(student)
        step[at] = 1e-5
        high, low = (soft_loss(student + sign * step, teacher, temperature)[0] for sign in (1, -1))
        assert (high - low) / 2e-5 == pytest.approx(gradient[at], abs=1e-4)


def test_t_squared_keeps_the_gradient_at_its_size():
    student, teacher = logits(seed=1), logits(seed=2)
    sizes = [np.linalg.norm(soft_loss(student, teacher, temperature)[1]) for temperature in (100.0, 200.0, 400.0)]
    assert max(sizes) / min(sizes) < 1.05
    centred = [values - values.mean(axis=1, keepdims=True) for values in (student, teacher)]
    limit = (centred[0] - centred[1]) / 10 / 7  # Hinton et al. 2015, section 2.1
    np.testing.assert_allclose(soft_loss(student, teacher, 1e4)[1], limit, rtol=1e-2, atol=1e-4)


def test_a_step_tells_both_parts_and_their_sum():
    teacher = actor("teacher").fit(X, y)
    records = list(train(actor(), (X, y), transfer=Distill(teacher, temperature=2.0, soft=0.7)))
    for record in records:
        assert record["loss"] == pytest.approx(0.7 * record["soft_loss"] + 0.3 * record["hard_loss"], rel=1e-5)
    before = teacher.model_.parameters()
    whole = Feed.of(X, y).batch(slice(None)).with_soft(teacher.logits(X))
    student = actor().fit(X, y)
    told = student.model_.step(whole, Settings([*student.model_.settings, *Distill(teacher).settings], lr=0.0))
    p, q = (log_softmax(each / 4.0, axis=1) for each in (teacher.logits(X), student.logits(X)))
    assert told["soft_loss"] != pytest.approx(16 * (np.exp(p) * (p - q)).sum(1).mean(), rel=1e-3)  # dropout is on
    assert all(np.array_equal(value, before[name]) for name, value in teacher.model_.parameters().items())


def test_a_regression_learns_its_teachers_predictions():
    target = X.sum(1)
    teacher = Actor("teacher", LinearRegression()).fit(X, target)
    off = target + 100.0
    records = list(train(one := actor(epochs=80), (X, off), transfer=Distill(teacher, soft=1.0), lr=0.03))
    assert one.score(X, target) > 0.8
    last = records[-1]
    assert last["loss"] == pytest.approx(last["soft_loss"], rel=1e-6) and last["hard_loss"] > 5000


# ---- What it is for


def test_a_student_learns_from_rows_without_labels():
    pixels = (DIGITS / 16).astype(np.float32)
    teacher = Actor("teacher", LogisticRegression(max_iter=1000)).fit(pixels[:1200], CLASSES[:1200])
    few = actor("alone", epochs=40).fit(pixels[:60], CLASSES[:60]).score(pixels[1200:], CLASSES[1200:])
    nameless = Feed.of(pixels[:1200], labels=range(10))
    records = list(train(one := actor(epochs=20), nameless, transfer=Distill(teacher, temperature=2.0)))
    assert "hard_loss" not in records[0]
    assert one.score(pixels[1200:], CLASSES[1200:]) > few + 0.03


def test_the_same_seed_gives_the_same_student_and_validation_leaves_no_trace():
    teacher = actor("teacher").fit(X, y)
    runs = [
        timeless(train(actor(), (X, y), transfer=Distill(teacher), validation=held)) for held in (None, None, (X, y))
    ]
    for record in runs[2]:
        for name in ("val_loss", "val_accuracy"):
            record.pop(name, None)
    # Dropout that is left off after validation would show in the second epoch.
    assert runs[0] == runs[1] == runs[2]


def test_students_of_both_worlds_follow_teachers_of_both():
    teachers = [
        actor("torch", epochs=20).fit(X, y),
        Actor("forest", RandomForestClassifier(30, random_state=0)).fit(X, y),
    ]
    for teacher in teachers:
        for student in (actor(epochs=20), Actor("linear", LogisticRegression(max_iter=1000))):
            list(train(student, (X, y), transfer=Distill(teacher, temperature=2.0)))
            assert (student.predict(X) == teacher.predict(X)).mean() > 0.9


# ---- Settings


def test_hard_is_what_soft_leaves_unless_it_is_given():
    assert [setting.default for setting in Distill(len, soft=0.8).settings] == [4.0, 0.8, 0.2]
    assert [setting.default for setting in Distill(len, soft=0.8, hard=0.5).settings] == [4.0, 0.8, 0.5]
    teacher = actor("teacher").fit(X, y)
    for transfer, expected in ((Distill(teacher), 0.75), (Distill(teacher, hard=0.1), 0.1)):
        training = train(actor(), (X, y), transfer=transfer)
        next(training)
        training.settings = training.settings.replace(soft=0.25)
        assert training.settings.hard == pytest.approx(expected)
        record = next(training)
        assert record["loss"] == pytest.approx(0.25 * record["soft_loss"] + expected * record["hard_loss"], rel=1e-5)


def test_settings_of_a_transfer_are_settings_of_the_training():
    teacher = actor("teacher").fit(X, y)
    training = train(actor(), (X, y), transfer=Distill(teacher), temperature=9.0, soft=0.5)
    assert (training.settings.temperature, training.settings.soft, training.settings.lr) == (9.0, 0.5, 0.01)
    with pytest.raises(UnknownName, match="Did you mean 'temperature'"):
        train(actor(), (X, y), transfer=Distill(teacher), temprature=9.0)
    with pytest.raises(UsageError, match=r"none came: transfer=h3\.Distill\(teacher, temperature=\.\.\.\)"):
        train(actor(), (X, y), temperature=9.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0}, "temperature=0"),
        ({"soft": 1.5}, "soft=1.5"),
        ({"hard": "much"}, "hard='much'"),
        ({"loss": "mse"}, "Known: kl"),
        ({"clip": 0.0}, "clip=0.0"),
    ],
)
def test_values_that_make_no_sense(arguments, message):
    with pytest.raises(UsageError, match=message):
        Distill(len, **arguments)


@pytest.mark.parametrize("teachers", [[], [(len, 0.0)], [(len, 1.0, 2.0)], [(len, "much")]])
def test_shares_that_make_no_sense(teachers):
    with pytest.raises(UsageError, match="weights above 0"):
        Distill(teachers).teachers()


def test_it_is_a_frozen_value_with_a_repr():
    transfer = Distill(actor("teacher"), temperature=2.0)
    assert repr(transfer) == "Distill(teacher, temperature=2.0, soft=0.9, hard=1 - soft, loss='kl')"
    with pytest.raises(dataclasses.FrozenInstanceError):
        transfer.soft = 0.1


# ---- Asked once


class Counted(TorchModel):
    """Counts the rows that it was asked about."""

    asked = 0

    def logits(self, x):
        Counted.asked += len(x)
        return super().logits(x)


def test_answers_are_kept_for_the_next_student(tmp_path):
    teacher = Actor("teacher", Counted(network), epochs=2).fit(X, y)
    memory, stored = Feed.of(X, y), Feed.of(X, y).store(tmp_path / "feed")
    for feed in (memory, stored):
        soft_targets._KEPT.clear()
        Counted.asked = 0
        for _ in range(3):
            first = answers(teacher, feed, 1e-6)
        assert Counted.asked == len(X)
        soft_targets._KEPT.clear()  # as another process
        assert np.array_equal(answers(teacher, feed, 1e-6), first)
        assert Counted.asked == (len(X) if feed is stored else 2 * len(X))
    np.testing.assert_allclose(first, teacher.logits(X), rtol=1e-6)


def test_a_teacher_that_learned_more_is_asked_again():
    feed, teacher = Feed.of(X, y), actor("teacher").fit(X, y)
    before = answers(teacher, feed, 1e-6)
    teacher.fit(X, (y + 1) % 10)
    assert not np.allclose(answers(teacher, feed, 1e-6), before)


BACKGROUND = LogisticRegression(max_iter=500)


def test_a_function_is_known_by_what_it_names():
    def ask(rows):
        return np.concatenate([BACKGROUND.predict_proba(part) for part in np.array_split(rows, 2)])

    feed = Feed.of(X, y)
    BACKGROUND.fit(X, y)
    before = answers(ask, feed, 1e-6)
    assert answers(ask, feed, 1e-6) is before
    np.testing.assert_allclose(before, BACKGROUND.predict_log_proba(X), atol=1e-4, rtol=1e-4)
    BACKGROUND.fit(X, (y + 1) % 10)
    assert not np.allclose(answers(ask, feed, 1e-6), before)


def test_a_function_that_cannot_be_told_apart_is_asked_every_time():
    feed, lines = Feed.of(X, y), iter([1, 2])

    def ask(rows):
        return np.full((len(rows), 10), 0.1) if next(lines) else None

    assert np.array_equal(answers(ask, feed, 1e-6), answers(ask, feed, 1e-6))
    assert next(lines, None) is None


def test_a_seldom_answer_of_zero_counts_as_the_clip():
    certain = answers(lambda rows: np.eye(10)[y], Feed.of(X, y), 1e-3)
    assert np.unique(certain) == pytest.approx([np.log(1e-3), 0.0], abs=1e-6)


# ---- Answers find their rows


def test_answers_stand_beside_their_rows_in_any_selection(tmp_path):
    soft = np.arange(300 * 10, dtype=np.float32).reshape(300, 10)
    for feed in (Feed.of(X, y), Feed.of(X, y).store(tmp_path / "feed")):
        for part, expected in ((feed, soft), (feed.select(slice(10, 200, 3)), soft[10:200:3])):
            taught = beside(part, expected)
            assert np.array_equal(taught.batch(slice(None)).soft, expected)
            for batch in taught.epoch(1, batch_size=32, seed=3, copy=False):
                whole = part.batch(slice(None))
                at = [int(np.flatnonzero((whole.x == row).all(axis=1))[0]) for row in batch.x]
                assert np.array_equal(expected[at], batch.soft) or len(np.unique(whole.x, axis=0)) < len(whole)


def frame():
    return pd.DataFrame(X[:, 10:20], columns=[f"p{i}" for i in range(10)]).assign(digit=[f"d{label}" for label in y])


def columns(worker):
    return Pipeline(Preprocessor("pixels", [f"p{i}" for i in range(10)], worker), label="digit")


def test_a_teacher_with_a_pipeline_of_its_own_reads_the_raw_rows(tmp_path):
    rows = frame()
    teacher = Actor("teacher", LogisticRegression(max_iter=500), columns(MinMaxScaler())).fit(rows)
    expected = teacher.logits(rows)
    rows.to_parquet(tmp_path / "rows.parquet")
    train_rows, _ = read(tmp_path / "rows.parquet").split(test=0.3, seed=0)
    feed = prepare(columns(StandardScaler()), train_rows, to=tmp_path / "feed")
    found = answers(teacher, feed, 1e-6)
    whole, keys = (
        prepare(columns(StandardScaler()), tmp_path / "rows.parquet").batch(slice(None)),
        feed.batch(slice(None)).keys,
    )
    at = [int(np.flatnonzero(whole.keys == key)[0]) for key in keys]
    np.testing.assert_allclose(found, expected[at], rtol=1e-5, atol=1e-5)
    list(train(one := actor(), feed, transfer=Distill(teacher)))
    assert set(one.predict(rows)) <= {f"d{label}" for label in range(10)}


def test_the_label_is_not_shown_to_a_function():
    rows = frame()
    feed = prepare(columns(StandardScaler()), rows)
    seen = []

    def ask(given):
        seen.extend(given.columns)
        return np.full((len(given), 10), 0.1)

    answers(ask, feed, 1e-6, source=rows)
    assert seen == [f"p{i}" for i in range(10)]


def test_rows_in_memory_are_asked_for():
    rows = frame()
    feed = prepare(columns(StandardScaler()), rows)
    teacher = Actor("teacher", LogisticRegression(max_iter=500), columns(MinMaxScaler())).fit(rows)
    with pytest.raises(UsageError, match=r"Distill\(teacher, source=rows\)"):
        answers(teacher, feed, 1e-6)
    np.testing.assert_allclose(answers(teacher, feed, 1e-6, source=rows), teacher.logits(rows), rtol=1e-5, atol=1e-5)
    soft_targets._KEPT.clear()
    with pytest.raises(DataError, match="100 of 300 rows of the feed are not in source"):
        answers(teacher, feed, 1e-6, source=rows[:200])


def test_a_teacher_with_the_feeds_own_pipeline_reads_the_feed():
    feed = prepare(columns(StandardScaler()), frame())
    teacher = Actor("teacher", LogisticRegression(max_iter=500))
    list(train(teacher, feed))
    np.testing.assert_allclose(answers(teacher, feed, 1e-6), teacher.logits(feed), rtol=1e-6)


def test_several_teachers_teach_as_a_mixture_of_their_probabilities():
    one, two = logits(seed=1), logits(seed=2)
    mixed = mixture([(one, 0.25), (two, 0.75)], SPEC)
    expected = 0.25 * softmax(one, axis=1) + 0.75 * softmax(two, axis=1)
    np.testing.assert_allclose(softmax(mixed, axis=1), expected, rtol=1e-5)
    teachers = [actor("one").fit(X, y), (actor("two", seed=1).fit(X, y), 3.0)]
    assert [share for _, share in Distill(teachers).teachers()] == [0.25, 0.75]
    soft = Distill(teachers).taught(Feed.of(X, y)).batch(slice(None)).soft
    both = [softmax(teacher.logits(X), axis=1) for teacher in (teachers[0], teachers[1][0])]
    np.testing.assert_allclose(softmax(soft, axis=1), 0.25 * both[0] + 0.75 * both[1], rtol=1e-3, atol=1e-6)


def test_native_models_teach_too():
    forest = RandomForestClassifier(10, random_state=0).fit(X, y)
    module = network(SPEC).eval()
    np.testing.assert_allclose(softmax(answers(forest, Feed.of(X, y), 1e-6), 1).argmax(1), forest.predict(X))
    with torch.inference_mode():
        expected = module(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(answers(module, Feed.of(X, y), 1e-6), expected, rtol=1e-5, atol=1e-6)


# ---- Bad input


@pytest.mark.parametrize(
    ("teacher", "error", "message"),
    [
        (lambda: actor("empty"), NotFittedError, "'empty' has not learned anything yet"),
        (lambda: RandomForestClassifier(), NotFittedError, "not learned"),
        (lambda: actor("other").fit(X, y % 3), SpecMismatch, "knows classification, 3 classes"),
        (lambda: actor("wide").fit(np.hstack([X, X]), y), SpecMismatch, "128"),
        (lambda: Actor("margins", LinearSVC()).fit(X, y), ModelError, "margins and no probabilities"),
        (lambda: lambda rows: rows[:, :10] * 5, DataError, "do not sum to one.*softmax"),
        (
            lambda: lambda rows: np.full((len(rows), 3), 1 / 3),
            SpecMismatch,
            r"\(300, 3\) for 300 rows; expected \(300, 10\)",
        ),
        (lambda: lambda rows: np.full((len(rows), 10), np.nan), DataError, "300 of 300 rows are not finite"),
        (lambda: "teacher", UsageError, r"h3\.attach\('teacher'\)"),
    ],
)
def test_teachers_that_cannot_teach(teacher, error, message):
    with pytest.raises(error, match=message):
        next(train(actor(), (X, y), transfer=Distill(teacher())))


def test_a_student_with_a_step_of_its_own_learns_from_no_teacher():
    own = Actor("own", TorchModel(network, step=lambda module, batch: module(batch.x).mean()))
    with pytest.raises(UsageError, match="a step of its own"):
        train(own, (X, y), transfer=Distill(len))


# ---- A function or a service as teacher


TEACHES = LogisticRegression(max_iter=500).fit(X[:, 10:20], [f"d{label}" for label in y])


class Service(BaseHTTPRequestHandler):
    """Rows as JSON in, a dict from class to probability a row out; out of order after so many requests."""

    protocol_version = "HTTP/1.0"
    answered: list = []
    breaks_after = None

    def do_POST(self):
        if self.breaks_after is not None and len(self.answered) >= self.breaks_after:
            self.send_error(503, "overloaded")
            return
        rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        found = TEACHES.predict_proba(np.array([[row[f"p{i}"] for i in range(10)] for row in rows]))
        self.answered.append(len(rows))
        # The classes in an order of the service's own.
        body = json.dumps([dict(reversed(list(zip(TEACHES.classes_, map(float, p))))) for p in found]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(breaks_after=None):
    Service.answered, Service.breaks_after = [], breaks_after
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def asking(url):
    def ask(rows):
        request = urllib.request.Request(url, rows.to_json(orient="records").encode(), method="POST")
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    return ask


def test_a_service_teaches_by_the_names_of_its_classes_and_is_asked_once():
    rows = frame()
    feed = prepare(columns(StandardScaler()), rows)
    with serving() as url:
        ask = asking(url)
        found = answers(ask, feed, 1e-6, source=rows)
        expected = np.log(np.clip(TEACHES.predict_proba(rows[[f"p{i}" for i in range(10)]].to_numpy()), 1e-6, None))
        assert list(TEACHES.classes_) == list(feed.spec.labels)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        for _ in range(2):
            list(train(one := actor(), feed, transfer=Distill(ask, source=rows)))
        assert Service.answered == [300] and one.score(rows) > 0.2


@pytest.mark.parametrize("stored", [False, True], ids=["in memory", "stored"])
def test_a_service_that_breaks_off_is_asked_for_the_rest_alone(stored, tmp_path, monkeypatch):
    monkeypatch.setattr(questions, "ROWS_AT_A_TIME", 64)
    rows = frame()
    feed = prepare(columns(StandardScaler()), rows, to=tmp_path / "feed" if stored else None)
    with serving(breaks_after=3) as url:
        ask = asking(url)
        says = r"HTTPError: HTTP Error 503: overloaded \(192 of 300 rows are answered and kept; train again"
        with pytest.raises(ModelError, match=says) as caught:
            list(train(actor(), feed, transfer=Distill(ask, source=rows)))
        assert isinstance(caught.value.__cause__, urllib.error.HTTPError)
        if stored:
            questions._BROKEN_OFF.clear()  # as another process, such as a rank's second attempt
        Service.breaks_after = None
        list(train(actor(), feed, transfer=Distill(ask, source=rows)))
        assert Service.answered == [64, 64, 64, 64, 44]
    assert not questions._BROKEN_OFF and not list(room("soft").glob("*.pieces"))


def test_a_service_that_nobody_reaches_says_that_nothing_is_answered():
    with serving() as url:
        ask = asking(url)
    feed = prepare(columns(StandardScaler()), rows := frame())
    with pytest.raises(ModelError, match=r"URLError.*\(none yet\)\. It is called as f\(raw rows\)"):
        answers(ask, feed, 1e-6, source=rows)


def test_a_service_is_not_asked_for_rows_that_nobody_learns_from():
    rows, seen = frame(), []
    train_rows, _ = read(rows).split(test=0.7, seed=0)

    def ask(given):
        seen.append(len(given))
        return np.full((len(given), 10), 0.1)

    feed = prepare(columns(StandardScaler()), train_rows)
    answers(ask, feed, 1e-6, source=rows)
    assert sum(seen) == len(feed) < 120


LABELS = [f"d{label}" for label in range(10)]


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (lambda n: np.full((n - 1, 10), 0.1), SpecMismatch, r"shape \(299, 10\) for 300 rows; expected \(300, 10\)"),
        (lambda n: np.full((n, 10), 0.2), DataError, r"300 of 300 rows that do not sum to one \(the first is row 0"),
        (lambda n: [dict.fromkeys(LABELS[1:], 0.1)] * n, SpecMismatch, "answers for d1, .*; the classes are d0, d1"),
        (lambda n: pd.DataFrame(dict.fromkeys([*LABELS, "other"], [0.1] * n)), SpecMismatch, "and no other"),
        (lambda n: "overloaded", DataError, "returned a str that is no array of numbers"),
        (lambda n: [["a"] * 10] * n, DataError, "no array of numbers"),
    ],
)
def test_answers_that_are_no_probabilities_say_what_to_return(answer, error, says):
    feed = prepare(columns(StandardScaler()), rows := frame())
    with pytest.raises(error, match=says):
        answers(lambda given: answer(len(given)), feed, 1e-6, source=rows)


def test_named_answers_may_come_in_any_order():
    feed = prepare(columns(StandardScaler()), rows := frame())
    p = np.random.default_rng(0).dirichlet(np.ones(10), 300)
    expected = answers(lambda given: p, feed, 1e-6, source=rows)
    mixed = pd.DataFrame(p, columns=LABELS)[LABELS[::-1]]
    np.testing.assert_array_equal(answers(lambda given: mixed, feed, 1e-6, source=rows), expected)
