"""What memory a training will need is known before it is spent, agrees with what it then takes, and does not grow."""

import gc
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from cuts import CutSource
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import SGDClassifier, SGDRegressor
from sklearn.preprocessing import StandardScaler
from softmax_model import SoftmaxModel

import h3lab as h3
from h3lab.errors import DataError, UsageError
from h3lab.feeds.feed import Feed
from h3lab.memory import free_memory
from h3lab.preparing import streaming
from h3lab.training import foresight

torch = pytest.importorskip("torch")


def feed_of(rows: int = 2000, features: int = 20) -> Feed:
    random = np.random.default_rng(0)
    return Feed.of(random.random((rows, features), np.float32), np.arange(rows) % 4)


def build(spec):
    return torch.nn.Sequential(torch.nn.Linear(spec.features, 64), torch.nn.Tanh(), torch.nn.Linear(64, spec.outputs))


def items(plan) -> dict:
    return {item.name: item for item in plan.items}


def test_parameters_gradients_and_optimizer_are_counted():
    count = 20 * 64 + 64 + 64 * 4 + 4
    for optimizer, copies in (("sgd", 0), ("momentum", 1), ("adam", 2)):
        found = items(h3.Actor("net", h3.TorchModel(build, optimizer=optimizer)).plan(feed_of()))
        assert found["parameters"].nbytes == found["gradients"].nbytes == 4 * count
        assert 4 * count * copies <= found["optimizer"].nbytes <= 4 * count * copies + 64  # and a count of steps each
        assert found["snapshot"].nbytes == 2 * (4 * count + found["optimizer"].nbytes)


def test_activations_grow_with_the_batch():
    actor, feed = h3.Actor("net", h3.TorchModel(build)), feed_of()
    small, large = (items(actor.plan(feed, batch_size=size))["activations"] for size in (100, 1000))
    assert large.nbytes - small.nbytes == pytest.approx(900 * small.a_row)
    assert small.a_row >= 64 * 4, "the hidden layer's outputs are kept for the way back"
    half = items(actor.plan(feed, batch_size=1000, ranks=2))["activations"]
    assert half.nbytes == pytest.approx(large.nbytes / 2, rel=0.01)
    pieces = h3.Actor("net", h3.TorchModel(build, accumulate=4))
    assert items(pieces.plan(feed, batch_size=1000))["activations"].nbytes < 0.5 * large.nbytes


def test_the_largest_batch_fits_and_the_next_does_not():
    actor, feed = h3.Actor("net", h3.TorchModel(build)), feed_of(20_000)
    plan = actor.plan(feed, batch_size=20_000, memory_bytes=8e6)
    assert not plan.fits and 0 < plan.largest_batch_size < 20_000
    assert f"batch_size={plan.largest_batch_size}." in plan.lacking and "does not fit" in repr(plan)
    assert actor.plan(feed, batch_size=plan.largest_batch_size, memory_bytes=8e6).fits
    assert not actor.plan(feed, batch_size=int(1.01 * plan.largest_batch_size) + 1, memory_bytes=8e6).fits
    none = actor.plan(feed, memory_bytes=1e5)
    assert none.largest_batch_size == 0 and "No batch fits" in none.lacking
    assert actor.plan(feed).fits and not actor.plan(feed).lacking


def test_a_model_that_is_too_large_is_refused_before_it_is_built():
    def huge(spec):
        return torch.nn.Linear(spec.features, 10**9)

    with pytest.raises(UsageError, match="parameters of this model have 84.0 GB"):
        h3.Actor("huge", h3.TorchModel(huge)).plan(feed_of(), memory_bytes=1e9)


def test_validation_and_patience_count():
    actor, feed = h3.Actor("net", h3.TorchModel(build), validation=0.5, patience=2), feed_of()
    found = items(actor.plan(feed))
    assert found["answers"].nbytes >= 4 * 4 * 900 and found["best epoch"].nbytes == found["parameters"].nbytes


@pytest.mark.parametrize("model", [SoftmaxModel(), SGDClassifier(), RandomForestClassifier(5)])
def test_models_of_no_framework_are_tried_too(model):
    actor = h3.Actor("a", model)
    plan = actor.plan(feed_of())
    assert plan.fits and items(plan)["parameters"].nbytes > 0 and not actor.learned
    assert plan.batch_size == (0 if isinstance(model, RandomForestClassifier) else 64)


def test_a_step_that_fails_on_a_few_rows_is_said():
    def picky(module, batch):
        assert len(batch.y) >= 100
        return torch.nn.functional.cross_entropy(module(batch.x), batch.y)

    plan = h3.Actor("net", h3.TorchModel(build, step=picky)).plan(feed_of())
    assert "activations are not known" in plan.note and plan.note in repr(plan)
    assert items(plan)["activations"].note == "not known"


def test_it_shows_itself():
    plan = h3.Actor("net", h3.TorchModel(build)).plan(feed_of(), batch_size=128)
    bundle = plan._repr_mimebundle_()
    assert bundle["text/plain"] == repr(plan) and "<script" not in bundle["text/html"]
    assert repr(plan).startswith("Plan: 'net' on 2,000 rows, batch_size=128: fits, up to batch_size=2,000 · ")
    assert all(name in repr(plan) for name in ("parameters", "gradients", "optimizer", "activations", "snapshot"))
    assert 0 < free_memory() < 1e14


MEASURED = """
import gc, json, sys, warnings
import numpy as np, torch, h3lab as h3
from h3lab.feeds.feed import Feed
from h3lab.serial import codec

def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))

def build(spec):
    layers = [torch.nn.Linear(spec.features, 512)]
    for _ in range(10):
        layers.append(torch.nn.Tanh())
    return torch.nn.Sequential(*layers, torch.nn.Linear(512, 2000), torch.nn.Linear(2000, 2))

feed = Feed.of(np.random.default_rng(0).random((8192, 64), np.float32), np.arange(8192) % 2)
actor = h3.Actor("net", h3.TorchModel(build), batch_size=int(sys.argv[1]))
plan = actor.plan(feed)
training = h3.train(actor, feed)
gc.collect()
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
for _ in range(2):
    next(training)
if sys.argv[2] == "snapshot":
    codec.pack(training.snapshot())
print(json.dumps([plan.peak["memory"], status("VmHWM") - before]))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="the peak of a process is reset on Linux alone")
@pytest.mark.parametrize(("batch_size", "moment"), [(4096, "step"), (16, "snapshot")])
def test_a_plan_agrees_with_what_is_measured(batch_size, moment):
    """Within a third, and some pages: a process also keeps what it has given back to its allocator."""
    command = [sys.executable, "-W", "ignore", "-c", MEASURED, str(batch_size), moment]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    planned, measured = json.loads(done.stdout)
    assert planned > 20e6 and measured / 1.33 - 8e6 < planned < measured * 1.33 + 8e6, (planned, measured)


# ---- Rows


def table(rows: int = 3000) -> pd.DataFrame:
    at = np.arange(rows)
    return pd.DataFrame({f"c{n}": (at * (n + 1)) % 97 * 1.0 for n in range(8)} | {"y": at % 2})


NUMBERS = h3.Pipeline(h3.Preprocessor("numbers", [f"c{n}" for n in range(8)], StandardScaler()), label="y")


def linear(**settings) -> h3.Actor:
    return h3.Actor("linear", SGDClassifier(), NUMBERS, **settings)


class Bounded(CutSource):
    """Gives no part after the first two."""

    def read(self, part, columns=None):
        assert part.start < 600, "a plan reads a sample"
        return super().read(part, columns)


@pytest.mark.parametrize("prepare", ["feed", "stream"])
def test_rows_that_are_not_prepared_are_planned_from_a_sample(prepare, monkeypatch):
    monkeypatch.setattr(foresight, "SAMPLE_ROWS", 500)
    rows = table()
    plan = linear(validation=0.2).plan(Bounded(rows, range(300, 3000, 300)), prepare=prepare)
    monkeypatch.undo()
    assert plan.rows == 2400 and "estimated from the first 500 rows" in plan.note and "about 2,400 rows" in repr(plan)
    training = linear(validation=0.2).plan(rows, prepare=prepare)
    for name in ("rows", "rows held out", "parameters", "batches"):
        assert items(plan)[name].nbytes == pytest.approx(items(training)[name].nbytes, rel=0.05), name
    each = 8 * 8 + 8 + 8
    assert items(plan)["rows"].nbytes == 2400 * each and items(plan)["rows held out"].nbytes == 600 * each
    assert items(plan)["a part"].when == ("always" if prepare == "stream" else "preparing")


def test_a_stream_keeps_no_more_than_its_windows(monkeypatch):
    each = 8 * 8 + 8 + 8
    monkeypatch.setattr(streaming, "WINDOW_BYTES", 2 * 100 * each)
    source = CutSource(table(), range(100, 3000, 100))
    planned = items(linear().plan(source, prepare="stream"))["rows"]
    assert planned.nbytes == 3 * 2 * 100 * each and "windows" in planned.note
    assert items(linear().plan(streaming.stream(NUMBERS, source)))["rows"].nbytes == planned.nbytes
    training = h3.train(linear(epochs=2), source, prepare="stream")
    most = 0
    for _ in training:
        kept = training.feed._rows.parts._kept.values()
        most = max(most, sum(batch.x.nbytes + batch.y.nbytes + batch.keys.nbytes for batch in kept))
    assert most == planned.nbytes


def test_rows_count_where_they_lie(tmp_path):
    feed = feed_of(20_000)
    held = items(actor := h3.Actor("a", SoftmaxModel()).plan(feed))["rows"]
    assert held.nbytes == 20_000 * (20 * 4 + 8 + 8) and actor.free["memory"] > free_memory() - 1e9
    stored = items(h3.Actor("a", SoftmaxModel()).plan(feed.store(tmp_path)))["rows"]
    assert stored.nbytes == 0 and "1.9 MB in files, mapped" in stored.note
    rest, aside = feed.split(0.2)
    halves = items(h3.Actor("a", SoftmaxModel()).plan(rest, validation=aside))
    assert halves["rows"].nbytes == held.nbytes and halves["rows held out"].nbytes == 0, "views of the same rows"


def test_batches_are_no_more_than_the_rows():
    plan = h3.Actor("a", SoftmaxModel()).plan(feed_of(100), memory_bytes=5e4)
    assert items(plan)["batches"].nbytes == 100 * (20 * 4 + 8 + 8) and plan.fits


def test_a_plan_checks_what_a_training_does():
    with pytest.raises(UsageError, match="from all rows at once"):
        h3.Actor("a", RandomForestClassifier(), NUMBERS).plan(table(), prepare="stream")
    with pytest.raises(UsageError, match="shuffle='rows'"):
        linear().plan(table(), prepare="stream", shuffle="rows")
    with pytest.raises(DataError, match="no rows"):
        linear().plan(table().iloc[:0])


MEASURED_ROWS = """
import gc, sys
import h3lab as h3
from sklearn.linear_model import SGDClassifier, SGDRegressor
from sklearn.preprocessing import StandardScaler
from h3lab.preparing.heap import WORTH_BYTES, give_back

def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))

folder, way = sys.argv[1:]
names = [f"c{n}" for n in range(40)]
pipeline = h3.Pipeline(h3.Preprocessor("numbers", names, StandardScaler()), label="y")
actor = h3.Actor("linear", SGDClassifier(), pipeline, epochs=1, batch_size=512)
source = h3.read(folder + "/*.parquet")
list(h3.train(actor, source.first(100).to_pandas(), prepare=way))
gc.collect()
give_back(WORTH_BYTES)
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
training = h3.train(actor, source, prepare=way)
for _ in training:  # the whole epoch: a stream keeps the parts that it came to
    pass
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="the peak of a process is reset on Linux alone")
@pytest.mark.parametrize("way", ["feed", "stream"])
def test_a_plan_of_raw_rows_agrees_with_what_is_measured(way, tmp_path):
    names, random = [f"c{n}" for n in range(40)], np.random.default_rng(0)
    for n in range(5):
        columns = {name: random.random(60_000) for name in names} | {"y": np.arange(60_000) % 2}
        pd.DataFrame(columns).to_parquet(tmp_path / f"{n}.parquet")
    pipeline = h3.Pipeline(h3.Preprocessor("numbers", names, StandardScaler()), label="y")
    actor = h3.Actor("linear", SGDClassifier(), pipeline, batch_size=512)
    planned = actor.plan(str(tmp_path / "*.parquet"), prepare=way).peak["memory"]
    command = [sys.executable, "-W", "ignore", "-c", MEASURED_ROWS, str(tmp_path), way]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    measured = int(done.stdout)
    assert measured / 1.33 - 8e6 < planned < measured * 1.33 + 8e6, (planned, measured)


# ---- Growth


@pytest.mark.parametrize(
    ("model", "stored"),
    [(SoftmaxModel(), False), (SoftmaxModel(), True), (SGDRegressor(), True), (h3.TorchModel(build), True)],
    ids=["python", "python-stored", "sklearn-stored", "torch-stored"],
)
def test_nothing_grows_over_ten_thousand_steps(model, stored, tmp_path):
    """Blocks of Python's own, and the resident memory of the process, where torch's tensors and pages of files are.
    With a stored feed each epoch is validated too."""
    labels = np.arange(1000) % 4 * (1.0 if isinstance(model, SGDRegressor) else 1)
    rows = Feed.of(np.random.default_rng(0).random((1000, 4), np.float32), labels)
    feed = rows.store(tmp_path / "feed") if stored else rows
    validation = rows.select(slice(0, 16)).store(tmp_path / "held") if stored else None
    training = h3.train(h3.Actor("a", model, epochs=80, batch_size=8, validation=validation), feed)

    def steps(count: int) -> tuple[int, int]:
        for _ in range(count):
            next(training)
        gc.collect()
        with open("/proc/self/statm") as file:
            return sys.getallocatedblocks(), int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    blocks, resident = steps(1000)
    later, after = steps(9000)
    assert training.step == 10_000
    assert later - blocks < 9000 * 0.1 and after - resident < 9000 * 400, "less than a record a step stays behind"
