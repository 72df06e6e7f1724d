"""The face: names that lead, words for those that do not exist, and nouns that show themselves within their line."""

import inspect
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import StackingClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PowerTransformer, StandardScaler
from torch import nn

import h3lab as h3
from h3lab.backends._sklearn import SklearnModel
from h3lab.cluster import standing
from h3lab.errors import MissingExtra
from h3lab.feeds.feed import Feed
from h3lab.preparing.prepare import prepare
from h3lab.running.run import Run
from h3lab.running.status import line
from h3lab.settings import Setting, Settings


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("trian", "train"), ("attatch", "attach"), ("Preproccesor", "Preprocessor")],
)
def test_an_unknown_name_of_the_face_lists_the_known_ones_and_the_closest(wrong, meant):
    with pytest.raises(AttributeError, match=rf"no '{wrong}'\. Did you mean h3\.{meant}\? It has: Actor, .*, watch\."):
        getattr(h3, wrong)
    assert not hasattr(h3, "_ipython_display_"), "what a notebook asks every object for is no misspelt name"


def test_a_name_whose_library_is_missing_gives_its_pip_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # Python's own way to say that a module is not there
    monkeypatch.delitem(sys.modules, "h3lab.backends._torch", raising=False)
    monkeypatch.delitem(vars(h3), "TorchModel", raising=False)
    with pytest.raises(MissingExtra, match=r"h3\.TorchModel needs it\. Install it with: pip install torch"):
        h3.TorchModel  # noqa: B018


def test_the_face_shows_public_names_alone():
    code = "import h3lab as h3; h3.train, h3.Lab, h3.demo; print(*dir(h3))"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert names == sorted(h3.__all__) and len(names) <= 22


# ---- What objects say of themselves -----------------------------------------------------------------------

LONG = "a_very_long_name_" * 12
EVIL = "<script>alert(1)</script>"


def nouns() -> dict[str, object]:
    """Every public noun, made of what is hardest to show: 200 columns, 500 classes, long and evil names, deep nets."""
    random = np.random.default_rng(0)
    wide = pd.DataFrame(random.random((30, 200)), columns=[f"column_of_measurements_{i:03d}" for i in range(200)])
    wide["label"] = [f"{EVIL} {LONG} {i}" for i in range(30)]
    names = [EVIL, LONG]
    many = pd.DataFrame({name: random.random(1000) for name in names})
    many["text"] = [f"{EVIL} and so on, " * 20] * 1000
    many["label"] = [f"{EVIL}{i % 500}" for i in range(1000)]
    columns = [name for name in wide.columns if name != "label"]
    broad = h3.Pipeline(h3.Preprocessor("all", columns, StandardScaler(), PowerTransformer()), label="label")
    blocks = [h3.Preprocessor(f"block {EVIL} {i}", name) for i, name in enumerate(columns[:60])]
    texts = h3.Preprocessor("texts", ["text", EVIL], CountVectorizer(ngram_range=(1, 2)), TruncatedSVD(20))
    deep = nn.Sequential(*[nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Sequential(nn.ReLU())) for _ in range(50)])
    forest = make_pipeline(
        StandardScaler(), StackingClassifier([(f"m{i}", LogisticRegression(C=i)) for i in range(1, 9)])
    )
    feed, blocked = (prepare(recipe, h3.read(wide)) for recipe in (broad, h3.Pipeline(*blocks, label="label")))
    classes = prepare(h3.Pipeline(h3.Preprocessor(LONG, names, StandardScaler()), label="label"), h3.read(many))
    fitted = h3.Actor(EVIL, LogisticRegression(), epochs=3, metrics=["f1_macro"]).fit(
        classes.arrays()[0], ["a", "b"] * 500
    )
    torch = h3.TorchModel(
        lambda spec: deep, lr=1e-3, loss=lambda outputs, y: 0, optimizer=lambda parameters, lr: None, clip_norm=1.0
    )
    actors = [h3.Actor(LONG, torch), h3.Actor("deep", deep), h3.Actor("forest", forest, broad), fitted]
    return {
        **{f"source {i}": h3.read(frame) for i, frame in enumerate((wide, many))},
        **{f"pipeline {i}": p for i, p in enumerate((broad, feed.pipeline, blocked.pipeline, h3.Pipeline(texts)))},
        "preprocessor": broad.preprocessors[0],
        **{f"feed {i}": one for i, one in enumerate((feed, blocked, classes))},
        **{f"spec {i}": one.spec for i, one in enumerate((feed, blocked, classes))},
        "batch": feed.batch(slice(None)).with_soft(np.zeros((30, 30))),
        **{f"actor {i}": actor for i, actor in enumerate(actors)},
        "TorchModel": torch,
        "SklearnModel": SklearnModel(forest),
        "Distill": h3.Distill([*actors, lambda rows: rows]),
        "Distill of an estimator": h3.Distill(forest),
        "Training": h3.train(h3.Actor(LONG, deep), (np.zeros((9, 8)), np.arange(9) % 3)),
        "Settings": Settings([Setting(f"learning_rate_of_layer_{i}", float, 0.1) for i in range(30)]),
        "Setting": Setting("mode", str, "0", choices=tuple(map(str, range(99))), help=LONG),
    }


@pytest.fixture(scope="module")
def shown() -> dict[str, object]:
    return nouns()


ONE_LINE = ("feed", "spec", "batch", "actor", "TorchModel", "SklearnModel", "Distill", "Training", "Setting")


def test_every_repr_fits_its_line(shown):
    for name, noun in shown.items():
        lines = repr(noun).splitlines()
        assert max(map(len, lines)) <= 120, f"{name}: {max(lines, key=len)}"
        assert len(lines) == 1 or not name.startswith(ONE_LINE), f"{name} has {len(lines)} lines"
        assert " at 0x" not in repr(noun), f"{name} shows an address in memory"


def test_a_run_and_a_lab_fit_their_line():
    info = {"epochs": 3, "settings": [Setting("lr", float, 0.1).to_json()]}
    status = {"name": f"{LONG}/3", "state": "failed", "epoch": 2, "loss": 0.5, "val_accuracy": 0.25, "lr": 0.1}
    told = line(info, {**status, "error": {"type": "ValueError", "message": "one\n" * 200}})
    assert len(told) <= 120 and "failed" in told and "loss 0.5" in told and "\n" not in told
    slots = [{"name": f"slot{i}", "state": "ready", "run": f"{EVIL}/{i}"} for i in range(64)]
    assert len(standing.line("default", {"state": "ready", "slots": slots, "hours": 12})) <= 120
    assert "(64)" in standing.line("default", {"state": "ready", "slots": slots, "hours": 12})
    card = standing.card("default", {"state": "ready", "slots": slots})
    assert EVIL not in card and "&lt;script&gt;" in card


def test_what_a_notebook_shows_is_text_and_html_without_scripts_or_links(shown):
    rich = [name for name in shown if name.startswith(("source", "pipeline", "feed", "actor"))]
    for name in rich:
        bundle = shown[name]._repr_mimebundle_()
        assert bundle["text/plain"] == repr(shown[name])
        html = bundle["text/html"]
        assert not re.search(r"<script|\bhref=|\bsrc=|\bon\w+=", html), f"{name} shows markup that came from its data"
        assert len(html) < 20_000, f"{name} would make the notebook {len(html):,} bytes longer"
        ElementTree.fromstring(f"<div>{html.replace('<br>', '<br/>')}</div>")  # well-formed: nothing is left open


# ---- What a tab offers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("noun", ["run", "lab", "feed", "actor"])
def test_completion_offers_about_twenty_names_of_ours(noun, shown):
    named = {"run": Run, "lab": h3.Lab, "feed": shown["feed 0"], "actor": shown["actor 3"]}[noun]
    names = [name for name in dir(named) if not name.startswith("_")]
    assert len(names) <= 25, names
    if noun == "actor":
        assert {"fit", "predict", "predict_proba", "score", "save", "native", "classes_"} <= set(names)
        assert not {"get_metadata_routing", "set_fit_request", "adopt"} & set(names)
        assert "classes_" not in dir(shown["actor 0"]), "offered only when it is there"


def test_every_public_name_has_a_docstring_with_an_example_and_a_signature():
    for name in set(h3.__all__) - {"errors", "testing"}:
        thing = getattr(h3, name)
        words = inspect.getdoc(thing) or ""
        assert words, f"h3.{name} has no docstring"
        assert re.search(r">>> |\bh3\.\w+\(", words), f"h3.{name}: no example in its docstring"
        assert "(" in str(inspect.signature(thing))
    for kind in (h3.Lab, h3.Actor, h3.Pipeline, h3.Preprocessor, h3.Distill, Run, Feed):
        for name, member in inspect.getmembers_static(kind):
            if not name.startswith("_") and kind.__module__.startswith("h3lab"):
                defined = next(k for k in kind.__mro__ if name in vars(k))
                if defined.__module__.startswith("h3lab."):
                    described = not callable(member) and not isinstance(member, property)  # a field of a value
                    assert described or inspect.getdoc(getattr(kind, name)), f"{kind.__name__}.{name}"
