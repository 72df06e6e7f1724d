"""Saved actors: the same bits come back, nothing is unpickled, and what cannot be told is said when it is saved."""

import io
import os
import pickle
import re
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from softmax_model import SoftmaxModel
from torch import nn

import h3lab as h3
from h3lab.backends import _torch_saving
from h3lab.errors import DamagedData, ModelError, NotFittedError, StorageError, Untrusted
from h3lab.preparing.prepare import prepare
from h3lab.saving import load, save
from h3lab.serial import codec

X, Y = load_digits(return_X_y=True)
X, Y = (X[:300] / 16).astype(np.float32), np.array([f"digit {i}" for i in Y[:300]])


def network(spec):
    return nn.Sequential(
        nn.Linear(spec.features, 32, bias=False),
        nn.BatchNorm1d(32),
        nn.GELU(),
        nn.Dropout(0.3),
        nn.Linear(32, spec.outputs),
    )


def image_network(spec):
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 4, 3, padding="same"),
        nn.PReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Sequential(nn.LayerNorm(64), nn.Linear(64, spec.outputs)),
    )


class OwnNetwork(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.inside = nn.Linear(spec.features, 16)
        self.last = nn.Linear(16, spec.outputs)

    def forward(self, x):
        return self.last(torch.sin(self.inside(x)))


ACTORS = {
    "network": lambda: h3.TorchModel(network, lr=0.01),
    "images": lambda: h3.TorchModel(image_network, lr=0.01, optimizer="momentum"),
    "network of a module": lambda: h3.TorchModel(nn.Sequential(nn.Linear(64, 10)), precision="float64"),
    "linear": lambda: LogisticRegression(max_iter=2000),
    "descent": lambda: SGDClassifier(loss="log_loss"),
    "forest": lambda: RandomForestClassifier(5),
    "growing forest": lambda: RandomForestClassifier(5, warm_start=True),
    "histograms": lambda: HistGradientBoostingClassifier(max_iter=3, warm_start=True),
    "perceptron": lambda: MLPClassifier((8,)),
    "row": lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
}


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(0)
    words = ["good", "bad", "film", "play", "slow", "fine"]
    table = pd.DataFrame(
        {
            "title": [" ".join(random.choice(words, 3)) for _ in range(200)],
            "body": [" ".join(random.choice(words, 5)) for _ in range(200)],
            "price": random.normal(20, 5, 200),
            "kind": random.choice(["book", "disc", "game"], 200),
        }
    )
    table["rating"] = np.where(table.title.str.contains("good") ^ (table.price > 22), "keep", "sell")
    return table


@pytest.fixture(scope="module")
def pipeline():
    return h3.Pipeline(
        h3.Preprocessor("text", ["title", "body"], TfidfVectorizer()),
        h3.Preprocessor("price", ["price"], StandardScaler()),
        h3.Preprocessor("kind", ["kind"], OneHotEncoder()),
        label="rating",
    )


@pytest.fixture
def trained(request):
    return h3.Actor(request.param, ACTORS[request.param](), epochs=2, batch_size=50).fit(X, Y)


# ---- The same bits


@pytest.mark.parametrize("trained", ACTORS, indirect=True)
def test_the_same_bits_come_back(trained, tmp_path, capsys):
    path = trained.save(tmp_path / "a.h3")
    line = capsys.readouterr().out
    again = eval(line[line.index("h3.load(") :], {"h3": h3})  # the line that it prints is the line that opens it
    assert path == tmp_path / "a.h3" and isinstance(again, h3.Actor)
    assert np.array_equal(again.logits(X), trained.logits(X))
    assert np.array_equal(again.predict(X), trained.predict(X))
    assert "object at" not in repr(again)
    assert (again.name, again.epochs, again.batch_size) == (trained.name, 2, 50)
    assert list(again.classes_) == list(trained.classes_)


@pytest.mark.parametrize("trained", ["network", "linear", "growing forest", "perceptron"], indirect=True)
def test_what_was_loaded_trains_on_like_the_original(trained, tmp_path):
    again = load(trained.save(tmp_path / "a.h3"))
    fresh = h3.Actor("fresh", ACTORS[trained.name](), epochs=2, batch_size=50).fit(X[:150], Y[:150])
    assert np.array_equal(again.fit(X[:150], Y[:150]).logits(X), fresh.logits(X))


def test_a_module_that_was_given_with_its_weights_goes_on_from_the_saved_ones(tmp_path):
    actor = h3.Actor("a", h3.TorchModel(nn.Sequential(nn.Linear(64, 10))), epochs=20).fit(X, Y)
    again = load(actor.save(tmp_path / "a.h3"))
    first = next(iter(h3.train(again, (X, Y), batch_size=300)))
    assert first["loss"] == pytest.approx(actor.evaluate(X, Y)["loss"], rel=1e-5)


@pytest.mark.parametrize("model", ["network", "linear", "forest"])
@pytest.mark.parametrize("given", [True, False], ids=["pipeline of the actor", "pipeline of the feed"])
def test_the_pipeline_comes_with_it(model, given, rows, pipeline, tmp_path):
    actor = h3.Actor("a", ACTORS[model](), pipeline if given else None, epochs=2)
    actor.fit(rows if given else prepare(pipeline, rows))
    again = load(actor.save(tmp_path / "a.h3"))
    assert np.array_equal(again.logits(rows), actor.logits(rows))
    assert again.score(rows) == actor.score(rows)
    assert np.array_equal(again.predict(rows.drop(columns="rating")), actor.predict(rows))
    assert (again.pipeline is None) == (actor.pipeline is None)
    if given:
        assert not again.pipeline.fitted  # so that fit learns from the rows that it is given, as before
        again.fit(rows[:100])


def test_a_plain_pipeline_has_the_same_answers(rows, pipeline):
    actor = h3.Actor("a", LogisticRegression(max_iter=2000)).fit(prepare(pipeline, rows))
    plain = actor.to_sklearn()
    raw = rows.drop(columns="rating")
    assert np.allclose(plain.predict_proba(raw), actor.predict_proba(raw), atol=1e-12)
    assert np.array_equal(plain.predict(raw), actor.predict(raw))
    single = h3.Pipeline(h3.Preprocessor("t", "title", TfidfVectorizer()), label="rating", dtype="float32")
    actor = h3.Actor("b", LogisticRegression(max_iter=2000)).fit(prepare(single, rows))
    assert np.allclose(actor.to_sklearn().predict_proba(raw), actor.predict_proba(raw), atol=1e-6)
    with pytest.raises(ModelError, match="TorchModel"):
        h3.Actor("c", ACTORS["network"](), epochs=1).fit(X, Y).to_sklearn()


def largest(y, predicted):
    return np.abs(y - predicted).max()


def test_regressions_and_settings(tmp_path):
    y = X.sum(1).astype(float)
    actor = h3.Actor(
        "sum", RandomForestRegressor(5), epochs=3, patience=2, monitor="val_r2", metrics=["r2", largest], validation=0.2
    )
    again = load(actor.fit(X, y).save(tmp_path / "a.h3"))
    assert np.array_equal(again.predict(X), actor.predict(X)) and again.spec_ == actor.spec_
    assert (again.patience, again.monitor, again.validation) == (2, "val_r2", 0.2)
    assert again.metrics is None  # one of them was code
    rows = h3.Actor("rows", LogisticRegression(max_iter=2000), validation=(X, Y)).fit(X, Y)
    assert load(rows.save(tmp_path / "b.h3")).validation is None


def test_a_taught_student_keeps_its_temperature(tmp_path):
    teacher = LogisticRegression(max_iter=2000).fit(X, Y)
    student = h3.Actor("student", RandomForestClassifier(5))
    for _ in h3.train(student, (X, Y), transfer=h3.Distill(teacher)):
        pass
    assert np.array_equal(load(student.save(tmp_path / "a.h3")).logits(X), student.logits(X))


def test_a_native_model_that_came_fitted_can_be_saved(tmp_path):
    alone = LogisticRegression(max_iter=2000).fit(X, Y)
    again = load(h3.Actor("given", alone).save(tmp_path / "a.h3"))
    assert np.array_equal(again.predict(X), alone.predict(X))


# ---- Networks of one's own


def test_a_network_of_ones_own_needs_its_function(tmp_path, capsys):
    actor = h3.Actor("own", h3.TorchModel(OwnNetwork, lr=0.01), epochs=2).fit(X, Y)
    path = actor.save(tmp_path / "own.h3")
    assert "build=OwnNetwork)" in capsys.readouterr().out
    with pytest.raises(ModelError, match=r"weights of a OwnNetwork.*h3.load\(path, build=OwnNetwork\)"):
        load(path)
    assert np.array_equal(load(path, build=OwnNetwork).logits(X), actor.logits(X))
    assert np.array_equal(load(path, build=OwnNetwork(actor.spec_)).logits(X), actor.logits(X))
    with pytest.raises(ModelError, match="inside.weight is missing|do not fit"):
        load(path, build=network)


def hooked():
    module = nn.Sequential(nn.Linear(64, 10))
    module[0].register_forward_hook(lambda *values: None)
    return module


def replaced():
    module = nn.Sequential(nn.Linear(64, 10))
    module[0].forward = torch.nn.functional.relu
    return module


def tied():
    layer = nn.Linear(64, 64)
    return nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(64, 10))


def marked():
    module = nn.Sequential(nn.Linear(64, 10))
    module[0].remember = 3
    return module


@pytest.mark.parametrize(
    "module",
    [
        hooked(),
        replaced(),
        tied(),
        marked(),
        nn.Sequential(torch.nn.utils.parametrizations.weight_norm(nn.Linear(64, 10))),
        nn.Sequential(nn.TransformerEncoderLayer(64, 2)),
        nn.Sequential(type("ReLU", (nn.ReLU,), {})()),
    ],
    ids=["hook", "forward", "tied", "attribute", "parametrized", "transformer", "class of the same name"],
)
def test_what_layers_alone_do_not_tell_is_not_told_so(module):
    assert _torch_saving.describe(module) is None


def test_a_layer_without_parameters_may_stand_twice():
    relu = nn.ReLU()
    assert _torch_saving.describe(nn.Sequential(nn.Linear(4, 4), relu, nn.Linear(4, 4), relu)) is not None


MADE = {
    "Linear": (3, 4),
    "Bilinear": (3, 4, 5),
    "Embedding": (5, 3),
    "EmbeddingBag": (5, 3),
    "LayerNorm": (3,),
    "GroupNorm": (2, 4),
    "RMSNorm": (3,),
    "LocalResponseNorm": (2,),
    "PixelShuffle": (2,),
    "PixelUnshuffle": (2,),
    "Fold": ((4, 4), (2, 2)),
    "Unfold": ((2, 2),),
    "ChannelShuffle": (2,),
    "Threshold": (0.1, 20.0),
    "Unflatten": (1, (2, 3)),
}


def arguments_of(name):
    for part, arguments in (("Conv", (2, 4, 3)), ("Adaptive", (2,)), ("LPPool", (2, 3)), ("Pool", (2,))):
        if part in name:
            return arguments
    if name.startswith("ConstantPad"):
        return (1, 2.0)
    return MADE.get(name, (4,) if "Norm" in name else (1,) if "Pad" in name else ())


@pytest.mark.parametrize("name", _torch_saving.LAYERS)
def test_every_listed_layer_is_told_and_built_again(name):
    module = nn.Sequential(_torch_saving.LAYERS[name](*arguments_of(name)))
    layers = _torch_saving.describe(module)
    assert layers is not None
    shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    assert repr(_torch_saving.rebuild(layers, shapes)) == repr(module)


def test_frozen_layers_stay_frozen(tmp_path):
    module = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    module[0].requires_grad_(False)
    actor = h3.Actor("frozen", h3.TorchModel(module), epochs=1).fit(X, Y)
    again = load(actor.save(tmp_path / "a.h3"))
    assert [value.requires_grad for value in again.native.parameters()] == [False, False, True, True]


def own_loss(outputs, y):
    return nn.functional.cross_entropy(outputs, y)


def test_code_among_the_arguments_is_missed_where_training_needs_it(tmp_path):
    actor = h3.Actor("own loss", h3.TorchModel(network, loss=own_loss), epochs=1).fit(X, Y)
    again = load(actor.save(tmp_path / "a.h3"))
    assert np.array_equal(again.logits(X), actor.logits(X))
    with pytest.raises(ModelError, match=r"its loss was code.*set_params\(loss="):
        again.fit(X, Y)
    again.model.set_params(loss=own_loss)
    assert np.array_equal(again.fit(X, Y).logits(X), actor.logits(X))


# ---- Estimators and workers of one's own


class OwnForest(RandomForestClassifier):
    pass


def squared(x):
    return np.asarray(x) ** 2


def test_types_of_ones_own_are_asked_for(rows, tmp_path, capsys):
    pipeline = h3.Pipeline(h3.Preprocessor("price", ["price"], FunctionTransformer(squared)), label="rating")
    actor = h3.Actor("own", OwnForest(3)).fit(prepare(pipeline, rows))
    path = actor.save(tmp_path / "own.h3")
    assert set(re.search(r"types=\[(.*)\]", capsys.readouterr().out)[1].split(", ")) == {"OwnForest", "squared"}
    with pytest.raises(Untrusted, match=r"squared.*types=\[squared\]"):
        load(path)
    with pytest.raises(Untrusted, match=r"OwnForest.*types=\[OwnForest\]"):
        load(path, types=[squared])
    assert np.array_equal(load(path, types=[OwnForest, squared]).logits(rows), actor.logits(rows))


def test_lambdas_are_refused_when_they_are_saved(tmp_path):
    row = make_pipeline(FunctionTransformer(lambda x: x * 2), LogisticRegression(max_iter=2000))
    actor = h3.Actor("lambda", row).fit(X, Y)
    with pytest.raises(ModelError, match="lambda"):
        actor.save(tmp_path / "a.h3")
    assert not list(tmp_path.iterdir())


# ---- Files


def test_errors_of_use(tmp_path):
    with pytest.raises(NotFittedError, match="nothing to save"):
        save(h3.Actor("a", LogisticRegression()), tmp_path / "a.h3")
    with pytest.raises(ModelError, match="cannot save a SoftmaxModel"):
        save(h3.Actor("a", SoftmaxModel(), epochs=1).fit(X, Y), tmp_path / "a.h3")
    actor = h3.Actor("a", LogisticRegression(max_iter=2000)).fit(X, Y)
    with pytest.raises(StorageError, match="was not written"):
        actor.save(tmp_path / "nowhere" / "a.h3")
    with pytest.raises(StorageError, match="cannot be read"):
        load(tmp_path / "a.h3")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.h3"
    first = h3.Actor("first", LogisticRegression(max_iter=2000)).fit(X, Y)
    first.save(path)
    before = path.read_bytes()

    def full(*values):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError, match="No space left.*as it was"):
        h3.Actor("second", LogisticRegression(max_iter=2000)).fit(X, Y).save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    assert load(path).name == "first"


@pytest.mark.parametrize("trained", ["linear"], indirect=True)
def test_damage_is_found(trained, tmp_path):
    path = trained.save(tmp_path / "a.h3")
    good = path.read_bytes()
    for where in (3, 40, len(good) // 2, len(good) - 100, len(good) - 1):
        bad = bytearray(good)
        bad[where] ^= 1
        path.write_bytes(bad)
        with pytest.raises(DamagedData, match=r"a\.h3"):
            load(path)
    for cut in (0, 5, 100, len(good) - 1):
        path.write_bytes(good[:cut])
        with pytest.raises(DamagedData, match=r"a\.h3"):
            load(path)


@pytest.mark.parametrize("data", [pickle.dumps({"a": 1}), b"PK\x03\x04", b"", b"H3LAB\0"])
def test_other_files_are_refused(data, tmp_path):
    (tmp_path / "a.h3").write_bytes(data)
    with pytest.raises(DamagedData, match=r"a\.h3"):
        load(tmp_path / "a.h3")


def forged(path, change):
    """The file with its tree changed, and a checksum that fits."""
    import hashlib

    tree = codec.unpack(path.read_bytes())
    change(tree)
    data = codec.pack(tree)
    path.write_bytes(data + b"H3SUM" + hashlib.blake2b(data, digest_size=32).digest())


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('exploded')",))


@pytest.mark.parametrize("trained", ["linear"], indirect=True)
def test_a_pickle_in_place_of_an_estimator_does_nothing(trained, tmp_path):
    path = trained.save(tmp_path / "a.h3")
    forged(path, lambda tree: tree["model"].update(estimator=pickle.dumps(Bomb())))
    with pytest.raises(DamagedData, match="skops"):
        load(path)


@pytest.mark.parametrize("trained", ["linear"], indirect=True)
def test_an_array_of_objects_in_skops_bytes_does_nothing(trained, tmp_path):
    path = trained.save(tmp_path / "a.h3")

    def change(tree):
        out, old = io.BytesIO(), zipfile.ZipFile(io.BytesIO(tree["model"]["state"]["estimator"]))
        with zipfile.ZipFile(out, "w") as new:
            for name in old.namelist():
                content = old.read(name)
                if name.endswith(".npy"):
                    buffer = io.BytesIO()
                    np.save(buffer, np.array([Bomb()], object), allow_pickle=True)
                    content = buffer.getvalue()
                new.writestr(name, content)
        tree["model"]["state"]["estimator"] = out.getvalue()

    forged(path, change)
    with pytest.raises(DamagedData, match="skops"):
        load(path)


@pytest.mark.parametrize("trained", ["network"], indirect=True)
@pytest.mark.parametrize(
    "layer, error",
    [
        ({"class": "Module", "arguments": {}}, Untrusted),
        ({"class": "DataParallel", "arguments": {"module": 1}}, Untrusted),
        ({"class": "os.system", "arguments": {"command": "true"}}, Untrusted),
        ({"class": "Linear", "arguments": {"in_features": 10**9, "out_features": 10**9}}, DamagedData),
        ({"class": "Linear", "arguments": {"in_features": "x", "out_features": []}}, DamagedData),
        ({"class": "Linear", "arguments": {"nonsense": 1}}, DamagedData),
    ],
)
def test_only_listed_layers_of_fitting_size_are_built(trained, layer, error, tmp_path):
    path = trained.save(tmp_path / "a.h3")
    forged(path, lambda tree: tree["model"]["layers"]["children"].__setitem__(0, ["0", layer]))
    with pytest.raises(error):
        load(path)


@pytest.mark.parametrize("trained", ["linear"], indirect=True)
def test_files_of_a_newer_h3lab_say_so(trained, tmp_path):
    path = trained.save(tmp_path / "a.h3")
    forged(path, lambda tree: tree.update(format=99))
    with pytest.raises(DamagedData, match="format 99.*Update h3lab"):
        load(path)
    forged(path, lambda tree: tree.update(format=1, kind="something"))
    with pytest.raises(DamagedData, match="no actor"):
        load(path)
    forged(path, lambda tree: tree.update(kind="h3lab actor", backend="keras"))
    with pytest.raises(ModelError, match="'keras'; known: torch, skorch, sklearn"):
        load(path)


def test_nothing_is_unpickled(rows, pipeline, tmp_path):
    """An audit hook sees every global that any unpickler looks up; it stays for the life of its process."""
    feed = prepare(pipeline, rows)
    paths = [
        str(h3.Actor(str(number), model, epochs=1).fit(feed).save(tmp_path / f"{number}.h3"))
        for number, model in enumerate(
            [
                h3.TorchModel(network),
                RandomForestClassifier(3),
                HistGradientBoostingClassifier(max_iter=2),
                MLPClassifier((4,)),
            ]
        )
    ]
    code = f"""
import pickle, sys
import numpy as np
import h3lab as h3
def hook(event, arguments):
    if event == "pickle.find_class":
        raise SystemExit(f"unpickled {{arguments}}")
sys.addaudithook(hook)
for path in {paths!r}:
    print(h3.load(path).name, end=" ")
try:
    pickle.loads(pickle.dumps(np.float64(1.0)))
except SystemExit:
    print("and the hook works")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.stdout.strip() == "0 1 2 3 and the hook works", run.stderr
