"""Misuse: what somebody may type wrongly, and what h3lab answers. ``python tests/misuse.py`` writes docs/errors.md.

It holds the cases and runs one; ``test_misuse.py`` and ``cluster/test_misuse.py`` hold them to what they say.
"""

from __future__ import annotations

import contextlib
import copy
import io
import os
import re
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

PAGE = Path(__file__).resolve().parent.parent / "docs" / "errors.md"


class Case(NamedTuple):
    """``code``: what is typed, lines apart by ``;``. ``error``: the class of h3lab.errors that comes. ``words``: what
    its message must have, which is what to do about it."""

    id: str
    code: str
    error: str
    words: tuple[str, ...]


def case(id: str, code: str, error: str, *words: str) -> Case:
    return Case(id, code, error, words)


#: What the cases of this process find there.
PREFACE = """
import numpy as np, pandas as pd, torch
import h3lab as h3
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC
from torch import nn
from torch.optim.lr_scheduler import StepLR
from h3lab.feeds.feed import Feed
from h3lab.preparing.prepare import prepare
from h3lab.settings import Setting, Settings

X = np.arange(240.0).reshape(60, 4) % 7              # 60 rows, 4 columns
y = np.repeat(["a", "b", "c"], 20)                   # three classes
frame = pd.DataFrame({"text": ["good", "bad", "so so"] * 20, "price": X[:, 0], "stars": [5, 1, 3] * 20,
                      "rating": ["yes", "no", "maybe"] * 20})
numbers = h3.Preprocessor("numbers", ["price", "stars"], StandardScaler())
pipeline = h3.Pipeline(numbers, label="rating")
net = lambda spec: nn.Linear(spec.features, spec.outputs)
actor = h3.Actor("digits", h3.TorchModel(net), epochs=1)         # has not learned yet
teacher = h3.Actor("teacher", LogisticRegression()).fit(X, y)    # has learned
feed = prepare(pipeline, frame)
"""

#: Files that the cases find in their folder; made once a session.
FILES = """
import shutil, zipfile
from h3lab.saving import _SUM
from h3lab.serial import codec
import hashlib

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
    def forward(self, x):
        return self.layer(x)

frame.to_parquet("rows.parquet")
frame.to_csv("rows.csv", index=False)
frame[["price"]].to_csv("other.csv", index=False)
from pathlib import Path
Path("half.parquet").write_bytes(Path("rows.parquet").read_bytes()[:700])
Path("empty.csv").touch()
Path("text.npz").write_text("no archive")
Path("ragged.csv").write_text("a,b\\n1,2\\n1,2,3\\n")
Path("bad.csv").write_text("a,b\\n1\\n2\\n")
Path("cut.jsonl").write_text('{"a": 1}\\n{"a": \\n')
Path("notes.docx").write_text("x")
Path("a file").write_text("x")
Path("folder").mkdir()
with zipfile.ZipFile("zip.h3", "w") as archive:
    archive.writestr("a.txt", "x")
teacher.save("teacher.h3")
h3.Actor("own", h3.TorchModel(Net()), epochs=1).fit(X, y).save("own.h3")
data = Path("teacher.h3").read_bytes()
Path("cut.h3").write_bytes(data[:-100])
tree = codec.unpack(data[:-37])
tree["format"] = 99
packed = codec.pack(tree)
Path("future.h3").write_bytes(packed + _SUM + hashlib.blake2b(packed, digest_size=32).digest())
prepare(pipeline, frame, to="stored")
shutil.copytree("stored", "damaged")
for part in Path("damaged/parts").iterdir():
    part.write_bytes(b"cut")
"""

#: By what somebody wants to do.
GROUPS: dict[str, list[Case]] = {
    "Reading rows": [
        case("no file", 'h3.read("rows.parqet")', "DataError", "there is no file", "Did you mean 'rows.parquet'?"),
        case("no match", 'h3.read("*.orc")', "DataError", "no file matches", "There are: "),
        case("an empty folder", 'h3.read("folder")', "DataError", "is empty", "the path of a file"),
        case("no folder", 'h3.read("nowhere/rows.csv")', "DataError", "The folder", "is not there either"),
        case("an empty path", 'h3.read("")', "UsageError", "expected a file, a folder, a glob or a URL"),
        case("half a Parquet file", 'h3.read("half.parquet").columns', "DamagedData", "half.parquet", "format="),
        case(
            "an empty CSV file", 'h3.read("empty.csv").columns', "DataError", "not even a line that names its columns"
        ),
        case("no npz file", 'h3.read("text.npz").columns', "DamagedData", "Is the file whole", "format="),
        case(
            "a ragged CSV file", 'h3.read("ragged.csv").head()', "DamagedData", "line 3 has 3 fields, expected 2: 1,2,3"
        ),
        case(
            "a cut JSON file", 'h3.read("cut.jsonl").head()', "DamagedData", "line 2 is no JSON", "on_bad_rows='skip'"
        ),
        case("a misspelt policy", 'h3.read("rows.csv", on_bad_rows="skp")', "UnknownName", "Did you mean 'skip'?"),
        case("bad rows of a table", 'h3.read(frame, on_bad_rows="skip")', "UsageError", "for the rows of text files"),
        case("bad rows of Parquet", 'h3.read("rows.parquet", on_bad_rows="skip")', "UsageError", "csv, tsv, jsonl"),
        case("bad rows among rows", 'h3.read("*.csv", on_bad_rows="./")', "UsageError", "Give a folder elsewhere"),
        case("nothing but bad rows", 'h3.read("bad.csv", on_bad_rows="skip").parts()', "DataError", "all 2 are bad"),
        case("an unknown ending", 'h3.read("notes.docx")', "DataError", "Known endings: parquet", "pass format="),
        case("an unknown format", 'h3.read("rows.csv", format="xlsx")', "UnknownName", "Known: parquet, csv"),
        case("several formats", 'h3.read(["rows.csv", "rows.parquet"])', "DataError", "one format at a time"),
        case(
            "files that differ",
            'h3.read(["rows.csv", "other.csv"], key="text")',
            "DataError",
            "column 'text' is in rows.csv and not in",
        ),
        case("a file twice", 'h3.read(["rows.csv", "rows.csv"])', "DataError", "named twice"),
        case("an unknown kind of URL", 'h3.read("s4://bucket/rows.csv")', "UnknownName", "Did you mean 's3'?"),
        case("no server", 'h3.read("http://127.0.0.1:9/rows.csv")', "DataError", "http://127.0.0.1:9/rows.csv"),
        case(
            "a misspelt keyword of read", 'h3.read("rows.csv", fromat="csv")', "UnknownName", "Did you mean 'format'?"
        ),
        case("a format for a table", 'h3.read(frame, format="csv")', "UsageError", "it is for files alone"),
        case("a misspelt key", 'h3.read("rows.csv", key="starz")', "UnknownName", "Did you mean 'stars'?"),
        case("a number as key", 'h3.read("rows.csv", key=3)', "UsageError", "for example key='id'"),
        case("floats as key", 'h3.read(frame, key="price").split()', "DataError", "keys are whole numbers, text"),
        case("None as rows", "h3.read(None)", "UsageError", "expected a path", "a DataFrame"),
        case("a Series as rows", 'h3.read(frame["price"])', "UsageError", "a Series came", "a DataFrame"),
        case("a tensor as rows", "h3.read(torch.zeros(3, 2))", "UsageError", "a Tensor came", "(X, y) arrays"),
        case("a generator of numbers", "len(h3.read(i for i in range(3)))", "UsageError", "expected dicts, a row each"),
        case("a generator again", "g = iter([]); len(h3.read(g))", "DataError", "h3.read(lambda: rows())"),
        case("a list of words", 'h3.read(["good", "bad"])', "DataError", "there is no file", "There are: "),
        case("an empty list", "h3.read([])", "DataError", "expected rows, or the paths of files"),
        case("an empty table", "h3.read(pd.DataFrame())", "DataError", "at least one column"),
        case("y shorter than X", "h3.read((X, y[:10]))", "DataError", "X has 60 rows, y has 10"),
        case("mixed types", 'h3.read(pd.DataFrame({"a": [1, "x"]}))', "DataError", "mixes types", ".astype(str)"),
        case(
            "a column twice", 'h3.read(pd.DataFrame([[1, 2]], columns=["a", "a"]))', "DataError", "rename one of them"
        ),
        case("lists of two lengths", 'h3.read({"a": [1], "b": [1, 2]})', "DataError", "the same length"),
        case("a share above one", 'h3.read("rows.csv").split(test=1.5)', "UsageError", "for example test=0.2"),
        case("a share as text", 'h3.read("rows.csv").split(test="20%")', "UsageError", "a fraction between 0 and 1"),
        case(
            "scikit-learn's keyword", 'h3.read("rows.csv").split(test_size=0.2)', "UnknownName", "Did you mean 'test'?"
        ),
        case("a negative seed", 'h3.read("rows.csv").split(seed=-1)', "UsageError", "for example seed=0"),
        case(
            "a misspelt column to stratify by",
            'h3.read("rows.csv").split(stratify="ratings")',
            "UnknownName",
            "'rating'",
        ),
        case("one row to split", 'h3.read([{"a": 1}]).split()', "DataError", "more rows"),
        case("a number of rows as text", 'h3.read("rows.csv").head("five")', "UsageError", "expected a whole number"),
        case("no table", 'h3.read("sqlite:///rows.db")', "UsageError", "h3.read(url, table="),
        case("a table for a file", 'h3.read("rows.csv", table="rows")', "UsageError", "they are for databases"),
    ],
    "Writing a pipeline": [
        case(
            "no columns", 'h3.Preprocessor("numbers")', "UsageError", "misses 'columns'", "Preprocessor(name, columns"
        ),
        case("no name", 'h3.Preprocessor(["price"], StandardScaler())', "UsageError", "begins with its block's name"),
        case("two underscores in a name", 'h3.Preprocessor("a__b", ["price"])', "UsageError", "write one '_'"),
        case("columns that are None", 'h3.Preprocessor("numbers", None)', "UsageError", '["price", "stars"]'),
        case("columns by number", 'h3.Preprocessor("numbers", [0, 1])', "UsageError", "a name or a list of names"),
        case(
            "columns that are a table", 'h3.Preprocessor("numbers", frame)', "UsageError", "a name or a list of names"
        ),
        case(
            "a column named twice",
            'h3.Preprocessor("numbers", ["price", "price"])',
            "UsageError",
            "leave one of them out",
        ),
        case(
            "a class as worker",
            'h3.Preprocessor("n", ["price"], StandardScaler)',
            "UsageError",
            "StandardScaler() with its par",
        ),
        case(
            "a model as worker",
            'h3.Preprocessor("n", ["price"], LogisticRegression())',
            "UsageError",
            "fit and transform",
        ),
        case(
            "a word as worker", 'h3.Preprocessor("n", ["price"], "scale")', "UsageError", "no scikit-learn transformer"
        ),
        case(
            "a misspelt keyword of a block",
            'h3.Preprocessor("n", ["price"], sorce="x")',
            "UnknownName",
            "mean 'source'?",
        ),
        case("no block", "h3.Pipeline()", "UsageError", "at least one block"),
        case(
            "workers without blocks", "h3.Pipeline(StandardScaler())", "UsageError", 'Pipeline(Preprocessor("numbers"'
        ),
        case("a list of blocks", "h3.Pipeline([numbers])", "UsageError", "a list came", "Pipeline(Preprocessor("),
        case("two blocks of one name", "h3.Pipeline(numbers, numbers)", "UsageError", "each of its own name"),
        case("a misspelt label=", 'h3.Pipeline(numbers, lable="rating")', "UnknownName", "Did you mean 'label'?"),
        case(
            "another library's label=", 'h3.Pipeline(numbers, target="rating")', "UnknownName", "Did you mean 'label'?"
        ),
        case("a label that is no name", "h3.Pipeline(numbers, label=3)", "UsageError", "the name of a column"),
        case(
            "a label among the columns", 'h3.Pipeline(numbers, label="price")', "UsageError", "also a column of a block"
        ),
        case(
            "a misspelt task", 'h3.Pipeline(numbers, task="classify")', "UnknownName", "Did you mean 'classification'?"
        ),
        case("a misspelt join", 'h3.Pipeline(numbers, join="block")', "UnknownName", "Did you mean 'blocks'?"),
        case("a misspelt type", 'h3.Pipeline(numbers, dtype="float33")', "UsageError", "dtype='float32'"),
        case("a type that is no number", 'h3.Pipeline(numbers, dtype="str")', "UsageError", "dtype='float32'"),
        case(
            "a seed that is no number", 'h3.Pipeline(numbers, seed="x")', "UsageError", "expected a whole number from 0"
        ),
        case("a misspelt replacement", 'pipeline.replace(lable="text")', "UnknownName", "Did you mean 'label'?"),
        case(
            "a misspelt label to guess",
            'h3.Pipeline.guess(frame, label="ratng")',
            "UnknownName",
            "Did you mean 'rating'?",
        ),
        case("nothing to guess from", 'h3.Pipeline.guess(frame[:0], label="rating")', "DataError", "has no rows"),
        case(
            "a model to take over",
            "h3.Pipeline.from_sklearn(LogisticRegression(), frame)",
            "UsageError",
            "h3.Pipeline.guess(",
        ),
    ],
    "Preparing rows": [
        case("no pipeline", "prepare(frame, pipeline)", "UsageError", "expected a Pipeline", "h3.Pipeline("),
        case("None to prepare", "prepare(pipeline, None)", "UsageError", "expected a path", "a DataFrame"),
        case(
            "a missing column",
            'prepare(pipeline, frame.drop(columns="price"))',
            "UnknownName",
            "block 'numbers'",
            "Known: ",
        ),
        case("a missing label", 'prepare(pipeline, frame.drop(columns="rating"))', "UnknownName", "no column 'rating'"),
        case("another label", 'prepare(pipeline, frame, label="text")', "UsageError", "pipeline.replace(label='text')"),
        case(
            "a misspelt on_null_label", 'prepare(pipeline, frame, on_null_label="dorp")', "UnknownName", "mean 'drop'?"
        ),
        case(
            "rows without labels", "prepare(pipeline, frame.assign(rating=None))", "DataError", 'on_null_label="drop"'
        ),
        case("no rows", "prepare(pipeline, frame[:0])", "DataError", "has no rows"),
        case("a file as folder", 'prepare(pipeline, frame, to="a file")', "StorageError", "Give another one"),
        case("a number as folder", "prepare(pipeline, frame, to=3)", "UsageError", 'to="prepared/reviews"'),
        case(
            "text to a worker of numbers",
            'prepare(h3.Pipeline(h3.Preprocessor("t", ["text"], StandardScaler())), frame)',
            "DataError",
            "block 't', worker StandardScaler",
            "a column of numbers is expected",
        ),
        case(
            "numbers to a worker of text",
            'prepare(h3.Pipeline(h3.Preprocessor("p", ["price"], TfidfVectorizer())), frame)',
            "DataError",
            "worker TfidfVectorizer",
            "a column of text is expected",
        ),
        case(
            "one column where a table is taken",
            'prepare(h3.Pipeline(h3.Preprocessor("p", "price", StandardScaler())), frame)',
            "DataError",
            "Write ['price']",
        ),
        case(
            "text without a worker",
            'prepare(h3.Pipeline(h3.Preprocessor("t", ["text"])), frame)',
            "DataError",
            "OneHotEncoder() or TfidfVectorizer()",
        ),
        case(
            "a category that was not there",
            'cats = h3.Pipeline(h3.Preprocessor("c", ["rating"], OneHotEncoder())); '
            'prepare(prepare(cats, frame).pipeline, frame.assign(rating="never"))',
            "UnseenValue",
            "column 'rating'",
            "'never'; first in row 0 of part 1",
            'OneHotEncoder(handle_unknown="ignore")',
        ),
        case(
            "an infinite number",
            "prepare(pipeline, frame.assign(stars=np.inf))",
            "DataError",
            "worker StandardScaler",
            "infinity",
            "'stars'",
        ),
        case(
            "an infinite label",
            'prepare(h3.Pipeline(numbers, label="y"), frame.assign(y=np.inf))',
            "DataError",
            "infinite in 60 rows; leave them out",
        ),
        case(
            "text as a quantity",
            'prepare(h3.Pipeline(numbers, label="text", task="regression"), frame)',
            "DataError",
            "a regression needs numbers",
            "task='classification'",
        ),
        case(
            "text as weights",
            'prepare(h3.Pipeline(numbers, label="rating", weight="text"), frame)',
            "DataError",
            "weights are numbers from 0 on",
        ),
        case(
            "a worker that loses rows",
            'prepare(h3.Pipeline(h3.Preprocessor("p", ["price"], FunctionTransformer(lambda x: x[:3]))), frame)',
            "DataError",
            "60 rows came in and 3 came out",
            "filter the source instead",
        ),
        case("spec before fitting", "pipeline.spec", "NotFittedError", "feed = lab.prepare(pipeline, rows)"),
        case("transform before fitting", "pipeline.transform(frame)", "NotFittedError", "lab.prepare(pipeline, rows)"),
        case("an array without names", "feed.pipeline.transform(X)", "UsageError", "Pass a DataFrame"),
        case("a Series to transform", 'feed.pipeline.transform(frame["price"])', "UsageError", "Pass a DataFrame"),
        case(
            "a misspelt column to transform",
            'feed.pipeline.transform(frame.rename(columns={"stars": "star"}))',
            "UnknownName",
            "Did you mean 'star'?",
        ),
        case(
            "a column of another type",
            'feed.pipeline.transform(frame.assign(stars="many"))',
            "DataError",
            "the pipeline was fitted on int64",
        ),
        case(
            "an unknown label",
            'feed.pipeline.transform(frame.assign(rating="perhaps"))',
            "DataError",
            "It knows 3 classes: maybe, no, yes",
        ),
        case(
            "keys of one source", 'prepare(pipeline, frame, keys="id")', "UsageError", "a dict of two sources or more"
        ),
        case("a misspelt choice of gaps", 'prepare(pipeline, frame, on_missing="dorp")', "UnknownName", "mean 'drop'?"),
    ],
    "Feeds": [
        case("no feed there", 'h3.open_feed("nowhere")', "FeedNotFound", "lab.prepare(pipeline, rows, to=...)"),
        case("a file as feed", 'h3.open_feed("a file")', "FeedNotFound", "lab.prepare(pipeline, rows, to=...)"),
        case("None as feed", "h3.open_feed(None)", "UsageError", "expected text or a pathlib.Path"),
        case("a damaged feed", 'h3.open_feed("damaged")', "DamagedData", "Prepare again"),
        case("types that are none", 'h3.open_feed("stored", types=3)', "UsageError", "types=[MyWorker]"),
        case("text as X", 'Feed.of([["good"], ["bad"]], [0, 1])', "DataError", "lab.prepare(pipeline, rows)"),
        case("one dimension as X", "Feed.of(X[0], y)", "DataError", ".reshape(-1, 1)"),
        case("y longer than X", "Feed.of(X[:10], y)", "DataError", "X has 10 rows, y has 60"),
        case("missing labels", "Feed.of(X, [None] * 60)", "DataError", "misses 60 of 60 labels"),
        case("NaN as quantity", "Feed.of(X, np.full(60, np.nan))", "DataError", "Fill or drop them"),
        case("text and numbers as labels", 'Feed.of(X, [1, "a"] * 30)', "DataError", ".astype(str)"),
        case(
            "dates as labels", 'Feed.of(X, np.full(60, "2020-01-01", "datetime64[D]"))', "DataError", "expected labels"
        ),
        case("text for a regression", 'Feed.of(X, y, task="regression")', "DataError", "take a classifier"),
        case(
            "labels that are not among labels=",
            'Feed.of(X, y, labels=["a", "b"])',
            "DataError",
            "does not know: c",
            "2 classes",
        ),
        case("negative weights", "Feed.of(X, y, weight=-np.ones(60))", "DataError", "a number from 0 on"),
        case("a misspelt weight=", "Feed.of(X, y, weights=np.ones(60))", "UnknownName", "Did you mean 'weight'?"),
        case("keys as text", 'Feed.of(X, y, keys=["a"] * 60)', "DataError", "(rows,) whole numbers"),
        case("a row that is not there", "feed.batch([0, 100])", "OutOfRange", "there are 60 rows, from 0 to 59"),
        case("a position alone", "feed.batch(3)", "OutOfRange", "For one row write [3]"),
        case(
            "a mask of another length",
            "feed.select([True, False])",
            "OutOfRange",
            "a mask of 2 values came for 60 rows",
        ),
        case("a share of a feed as text", 'feed.split("20%")', "UsageError", "for example fraction=0.2"),
        case("a batch of no row", "feed.epoch(1, batch_size=0)", "UsageError", "expected a whole number from 1"),
        case("half a row", "feed.epoch(1, batch_size=2.5)", "UsageError", "expected a whole number from 1"),
        case("a misspelt batch_size", "feed.epoch(1, batchsize=3)", "UnknownName", "Did you mean 'batch_size'?"),
        case("a rank beyond ranks", "feed.epoch(1, rank=2, ranks=2)", "UsageError", "ranks count from 0"),
        case("labels nobody knows", 'feed.spec.encode(["perhaps"])', "DataError", "It knows 3 classes: maybe, no, yes"),
        case("labels of another type", "feed.spec.encode([1, 2])", "DataError", ".astype("),
        case("a code nobody knows", "feed.spec.decode([7])", "OutOfRange", "codes of 3 classes, from 0"),
    ],
    "Actors": [
        case("no model", 'h3.Actor("digits")', "UsageError", "misses 'model'", "Call it as Actor(name, model"),
        case(
            "a misspelt keyword", 'h3.Actor("d", h3.TorchModel(net), epocs=3)', "UnknownName", "Did you mean 'epochs'?"
        ),
        case(
            "skorch's keyword",
            'h3.Actor("d", h3.TorchModel(net), max_epochs=3)',
            "UnknownName",
            "Did you mean 'epochs'?",
        ),
        case("a function as model", 'h3.Actor("d", net).fit(X, y)', "UsageError", "goes into TorchModel(build)"),
        case(
            "model before name",
            'h3.Actor(h3.TorchModel(net), "d").fit(X, y)',
            "UsageError",
            "for example Actor('digits', model)",
        ),
        case(
            "a class as model",
            'h3.Actor("d", LogisticRegression).fit(X, y)',
            "UsageError",
            "LogisticRegression() with its par",
        ),
        case("a word as model", 'h3.Actor("d", "logistic").fit(X, y)', "UsageError", "the name, then the model"),
        case("None as model", 'h3.Actor("d", None).fit(X, y)', "UsageError", "expected a model of sklearn"),
        case("a transformer as model", 'h3.Actor("d", StandardScaler()).fit(X, y)', "UsageError", "fit and predict"),
        case("a number as name", "h3.Actor(3, LogisticRegression()).fit(X, y)", "UsageError", "Actor('digits', model)"),
        case(
            "a word as pipeline",
            'h3.Actor("d", LogisticRegression(), "numbers").fit(frame)',
            "UsageError",
            "h3.Pipeline(",
        ),
        case(
            "no epochs", 'h3.Actor("d", h3.TorchModel(net), epochs=0).fit(X, y)', "UsageError", "a whole number from 1"
        ),
        case(
            "half an epoch",
            'h3.Actor("d", h3.TorchModel(net), epochs=2.5).fit(X, y)',
            "UsageError",
            "for example epochs=10",
        ),
        case(
            "epochs as text",
            'h3.Actor("d", h3.TorchModel(net), epochs="3").fit(X, y)',
            "UsageError",
            "for example epochs=10",
        ),
        case("a batch size of nothing", "actor.fit(X, y, batch_size=0)", "UsageError", "for example batch_size=64"),
        case("a seed of None", "actor.fit(X, y, seed=None)", "UsageError", "for example seed=0"),
        case("no y", "actor.fit(X)", "UsageError", "Pass (X, y)", "Pipeline(..., label=...)"),
        case("fewer labels than rows", "actor.fit(X, y[:10])", "DataError", "X has 60 rows, y has 10"),
        case("one row alone", "actor.fit(X[0], y[:1])", "DataError", "array.reshape(1, -1)"),
        case("no rows to fit", "actor.fit(X[:0], y[:0])", "DataError", "minimum of 1 is required"),
        case("NaN in X", "actor.fit(np.full((60, 4), np.nan), y)", "DataError", "SimpleImputer()"),
        case("infinity in X", "actor.fit(np.full((60, 4), np.inf), y)", "DataError", "infinity"),
        case("NaN in y", "actor.fit(X, np.full(60, np.nan))", "DataError", "Fill or drop them"),
        case("text in X", "actor.fit(frame, y)", "DataError", "Actor(name, model, pipeline)"),
        case("a file as X", 'actor.fit("rows.csv", y)', "UsageError", "need an actor with a pipeline"),
        case("a generator as X", "actor.fit((row for row in X), y)", "UsageError", "an array or a table"),
        case("None as X", "actor.fit(None, y)", "UsageError", "an array or a table"),
        case("a feed with labels beside it", "actor.fit(feed, y)", "UsageError", "actor.fit(feed)"),
        case("negative sample weights", "actor.fit(X, y, sample_weight=-np.ones(60))", "DataError", "Negative values"),
        case("too few sample weights", "actor.fit(X, y, sample_weight=np.ones(3))", "DataError", "expected (60,)"),
        case("a classifier on quantities", "teacher.fit(X, X[:, 0] / 3)", "DataError", "Use a regression"),
        case("a regressor on text", 'h3.Actor("d", LinearRegression()).fit(X, y)', "DataError", "take a classifier"),
        case("one class alone", 'teacher.fit(X, ["a"] * 60)', "DataError", "at least 2 classes"),
        case(
            "labels twice",
            'h3.Actor("d", LogisticRegression(), pipeline).fit(frame, y)',
            "UsageError",
            "Pass one of them",
        ),
        case(
            "labels nowhere",
            'h3.Actor("d", LogisticRegression(), h3.Pipeline(numbers)).fit(frame)',
            "DataError",
            "Pipeline(..., label=...)",
        ),
        case(
            "labels of another length beside rows",
            'h3.Actor("d", LogisticRegression(), h3.Pipeline(numbers)).fit(frame, y[:3])',
            "DataError",
            "expected one a row",
        ),
        case(
            "a feed of another pipeline",
            'other = h3.Pipeline(h3.Preprocessor("n", ["price"]), label="rating")\n'
            'h3.Actor("d", LogisticRegression(), other).fit(feed)',
            "SpecMismatch",
            "Leave pipeline out of the actor",
        ),
        case("predict before fit", "actor.predict(X)", "NotFittedError", "actor.fit(X, y), or lab.train(actor, feed)"),
        case("save before fit", 'actor.save("digits.h3")', "NotFittedError", "nothing to save"),
        case("to_sklearn before fit", "actor.to_sklearn()", "NotFittedError", "actor.fit(X, y)"),
        case("fewer columns", "teacher.predict(X[:, :2])", "DataError", "expecting 4 features"),
        case("a table of text", "teacher.predict(frame)", "DataError", "Actor(name, model, pipeline)"),
        case(
            "a source without a pipeline",
            'teacher.predict(h3.read("rows.csv"))',
            "UsageError",
            "need an actor with a pipeline",
        ),
        case("a feed of other classes", "teacher.predict(feed)", "SpecMismatch", "the same fitted pipeline"),
        case("nothing to compare with", "teacher.score(X)", "UsageError", "pass y"),
        case("too few labels to score", "teacher.score(X, y[:3])", "DataError", "X has 60 rows, y has 3"),
        case("unknown labels to score", 'teacher.score(X, ["z"] * 60)', "DataError", "It knows 3 classes: a, b, c"),
        case(
            "too few weights to score",
            "teacher.score(X, y, sample_weight=np.ones(3))",
            "DataError",
            "expected one a row",
        ),
        case(
            "probabilities of a regression",
            'h3.Actor("d", LinearRegression()).predict_proba(X)',
            "NotOffered",
            "actor.predict(X)",
        ),
        case(
            "probabilities of margins",
            'h3.Actor("d", RidgeClassifier()).predict_proba(X)',
            "NotOffered",
            "CalibratedClassifierCV",
        ),
        case("parts for a model that takes all", "teacher.partial_fit(X, y)", "NotOffered", "use fit"),
        case("a misspelt parameter", "teacher.set_params(epoch=3)", "UnknownName", "Did you mean 'epochs'?"),
        case(
            "a misspelt parameter of the model",
            "teacher.set_params(model__c=3)",
            "UnknownName",
            "Did you mean 'model__C'?",
        ),
        case("a lab that is none", "teacher.check(None)", "UsageError", "actor.check(h3.Lab())"),
        case("a misspelt setting of fit", "actor.fit(X, y, epocs=3)", "UnknownName", "Did you mean 'epochs'?"),
        case(
            "a choice of rows that nobody prepares",
            'actor.fit(X, y, on_null_label="drop")',
            "UsageError",
            "has no pipeline",
        ),
    ],
    "Networks": [
        case("no network", "h3.TorchModel()", "UsageError", "misses 'build'", "Call it as TorchModel(build"),
        case("another library's lr", "h3.TorchModel(net, learning_rate=1e-3)", "UnknownName", "Did you mean 'lr'?"),
        case("lr by position", "h3.TorchModel(net, 1e-3)", "UsageError", "more arguments by position", "*, lr="),
        case(
            "a word as network",
            'h3.Actor("d", h3.TorchModel("net")).fit(X, y)',
            "UsageError",
            "expected a torch.nn.Module",
        ),
        case("a layer's class", 'h3.Actor("d", h3.TorchModel(nn.Linear)).fit(X, y)', "UsageError", "build(spec)"),
        case(
            "a function of nothing",
            'h3.Actor("d", h3.TorchModel(lambda: nn.Linear(4, 3))).fit(X, y)',
            "UsageError",
            "build(spec)",
        ),
        case(
            "a build that returns nothing",
            'h3.Actor("d", h3.TorchModel(lambda spec: None)).fit(X, y)',
            "ModelError",
            "expected a torch.nn.Module",
        ),
        case(
            "a build that fails",
            'h3.Actor("d", h3.TorchModel(lambda spec: nn.Linear(spec.featurs, 3))).fit(X, y)',
            "ModelError",
            "build(spec) failed",
            "featurs",
        ),
        case(
            "too many inputs", 'h3.Actor("d", h3.TorchModel(nn.Linear(5, 3))).fit(X, y)', "ModelError", "spec.features"
        ),
        case(
            "too few outputs",
            'h3.Actor("d", h3.TorchModel(nn.Linear(4, 2))).fit(X, y)',
            "ModelError",
            "torch.nn.Linear(..., spec.outputs)",
        ),
        case(
            "softmax twice",
            'h3.Actor("d", h3.TorchModel(nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)))).fit(X, y)',
            "ModelError",
            "Leave the last layer out",
        ),
        case(
            "a negative lr",
            'h3.Actor("d", h3.TorchModel(net, lr=-1)).fit(X, y)',
            "UsageError",
            "expected a number from 0",
        ),
        case(
            "lr as text", 'h3.Actor("d", h3.TorchModel(net, lr="0.1")).fit(X, y)', "UsageError", "for example lr=0.001"
        ),
        case(
            "a misspelt optimizer",
            'h3.Actor("d", h3.TorchModel(net, optimizer="SDG")).fit(X, y)',
            "UnknownName",
            "Did you mean 'sgd'?",
        ),
        case(
            "an optimizer that is made already",
            'h3.Actor("d", h3.TorchModel(net, optimizer=torch.optim.Adam([torch.ones(1)]))).fit(X, y)',
            "UsageError",
            "f(parameters, lr)",
        ),
        case(
            "an optimizer without lr",
            'h3.Actor("d", h3.TorchModel(net, optimizer=lambda p: None)).fit(X, y)',
            "UsageError",
            "f(parameters, lr)",
        ),
        case(
            "a misspelt loss",
            'h3.Actor("d", h3.TorchModel(net, loss="CrossEntropy")).fit(X, y)',
            "UnknownName",
            "mean 'cross_entropy'?",
        ),
        case(
            "a loss's class",
            'h3.Actor("d", h3.TorchModel(net, loss=nn.CrossEntropyLoss)).fit(X, y)',
            "UsageError",
            "CrossEntropyLoss() with its par",
        ),
        case(
            "a loss of one argument",
            'h3.Actor("d", h3.TorchModel(net, loss=lambda out: out.mean())).fit(X, y)',
            "UsageError",
            "f(outputs, y)",
        ),
        case(
            "a loss that returns a number",
            'h3.Actor("d", h3.TorchModel(net, loss=lambda out, y: 3.0)).fit(X, y)',
            "ModelError",
            "expected a 0-d tensor",
        ),
        case(
            "a loss of the other task",
            'h3.Actor("d", h3.TorchModel(net, loss="mse")).fit(X, y)',
            "DataError",
            "take a classifier",
        ),
        case(
            "a schedule by name",
            'h3.Actor("d", h3.TorchModel(net, scheduler="cosine")).fit(X, y)',
            "UsageError",
            "lambda o: StepLR(o, 100)",
        ),
        case(
            "a schedule without its numbers",
            'h3.Actor("d", h3.TorchModel(net, scheduler=StepLR)).fit(X, y)',
            "UsageError",
            "lambda o: StepLR(o, 100)",
        ),
        case(
            "a step of one argument",
            'h3.Actor("d", h3.TorchModel(net, step=lambda module: 1)).fit(X, y)',
            "UsageError",
            "f(module, batch)",
        ),
        case(
            "a step without a loss",
            'h3.Actor("d", h3.TorchModel(net, step=lambda m, batch: {"los": 1})).fit(X, y)',
            "ModelError",
            'with it as "loss"',
        ),
        case(
            "a device nobody has",
            'h3.Actor("d", h3.TorchModel(net, device="gpu")).fit(X, y)',
            "UsageError",
            "'cpu', 'cuda' or 'cuda:1'",
        ),
        case(
            "a device as a list",
            'h3.Actor("d", h3.TorchModel(net, device=["cpu"])).fit(X, y)',
            "UsageError",
            "'cpu', 'cuda' or 'cuda:1'",
        ),
        case(
            "a misspelt precision",
            'h3.Actor("d", h3.TorchModel(net, precision="float16")).fit(X, y)',
            "UsageError",
            "bfloat16",
        ),
        case(
            "a negative norm",
            'h3.Actor("d", h3.TorchModel(net, clip_norm=-1)).fit(X, y)',
            "UsageError",
            "for example clip_norm=1.0",
        ),
        case(
            "no pieces",
            'h3.Actor("d", h3.TorchModel(net, accumulate=0)).fit(X, y)',
            "UsageError",
            "a whole number from 1",
        ),
        case(
            "a misspelt compiler",
            'h3.Actor("d", h3.TorchModel(net, compile="inducter")).fit(X, y)',
            "UnknownName",
            "Did you mean 'inductor'?",
        ),
        case(
            "a loss that explodes",
            'h3.Actor("d", h3.TorchModel(net, lr=1e30, optimizer="sgd"), batch_size=20).fit(X, X[:, 0] / 3)',
            "NonFiniteLoss",
            "clip_norm=1.0",
        ),
        case("logits before training", "h3.TorchModel(net).logits(X)", "NotFittedError", "train it first"),
    ],
    "Training": [
        case("no data", "h3.train(actor)", "UsageError", "misses 'data'", "train(actor, data"),
        case("data before actor", "h3.train((X, y), actor)", "UsageError", "before the data"),
        case("a model as actor", "h3.train(LogisticRegression(), (X, y))", "UsageError", 'h3.Actor("digits", model)'),
        case("None as data", "h3.train(actor, None)", "UsageError", "expected a Feed, (X, y)"),
        case("X alone", "h3.train(actor, X)", "UsageError", "expected a Feed, (X, y)"),
        case("a table without a pipeline", "h3.train(actor, frame)", "UsageError", "Actor(name, model, pipeline)"),
        case("a misspelt setting", "h3.train(actor, (X, y), epocs=3)", "UnknownName", "Did you mean 'epochs'?"),
        case("a misspelt transfer", "h3.train(actor, (X, y), transfr=None)", "UnknownName", "Did you mean 'transfer'?"),
        case(
            "Keras' keyword",
            "h3.train(actor, (X, y), validation_split=0.2)",
            "UnknownName",
            "Did you mean 'validation'?",
        ),
        case(
            "a setting of lab.train",
            "h3.train(actor, (X, y), replace=True)",
            "UsageError",
            "lab.train(..., replace=...)",
        ),
        case(
            "a setting of no transfer",
            "h3.train(actor, (X, y), temperature=3)",
            "UsageError",
            "h3.Distill(teacher, temperature",
        ),
        case("a rate below zero", "h3.train(actor, (X, y), lr=-1)", "UsageError", "expected a number from 0"),
        case("no thread", "h3.train(actor, (X, y), threads=0)", "UsageError", "a whole number from 1"),
        case(
            "validation above one",
            "h3.train(actor, (X, y), validation=1.5)",
            "UsageError",
            "a fraction between 0 and 1",
        ),
        case("validation as text", 'h3.train(actor, (X, y), validation="20%")', "UsageError", "expected a fraction"),
        case(
            "validation of other columns",
            "h3.train(actor, (X, y), validation=(X[:, :2], y))",
            "SpecMismatch",
            "the model expects 4",
        ),
        case(
            "validation of other classes",
            'h3.train(actor, (X, y), validation=(X, ["z"] * 60))',
            "DataError",
            "It knows 3 classes",
        ),
        case("validation without labels", "h3.train(actor, (X, y), validation=(X,))", "UsageError", "expected (X, y)"),
        case(
            "patience without validation",
            "h3.train(actor, (X, y), patience=2)",
            "UsageError",
            "validation=0.1, or monitor='loss'",
        ),
        case(
            "no patience", "h3.train(actor, (X, y), patience=0, validation=0.2)", "UsageError", "a whole number from 1"
        ),
        case(
            "a metric nobody measures",
            'list(h3.train(actor, (X, y), patience=1, validation=0.4, monitor="val_acc"))',
            "UnknownName",
            "Did you mean 'val_accuracy'?",
        ),
        case("a monitor that is no name", "h3.train(actor, (X, y), monitor=3)", "UsageError", "for example 'val_loss'"),
        case(
            "a misspelt metric",
            'h3.train(actor, (X, y), validation=0.4, metrics=["f1_marco"])',
            "UnknownName",
            "Did you mean 'f1_macro'?",
        ),
        case("a number as metric", "h3.train(actor, (X, y), metrics=3)", "UsageError", "metrics=['f1_macro']"),
        case(
            "a metric of another task",
            'h3.train(actor, (X, y), validation=0.4, metrics=["r2"])',
            "UsageError",
            "'r2' cannot be measured",
            "3 classes",
        ),
        case(
            "a metric of one argument",
            "def share(y): return 1\nlist(h3.train(actor, (X, y), validation=0.4, metrics=[share]))",
            "UsageError",
            "share(y, predicted)",
        ),
        case(
            "a misspelt class_weight",
            'h3.train(actor, (X, y), class_weight="even")',
            "UsageError",
            "expected 'balanced'",
        ),
        case(
            "a weight of an unknown class",
            'h3.train(actor, (X, y), class_weight={"z": 2})',
            "UnknownName",
            "Known: a, b, c",
        ),
        case(
            "a weight as text",
            'h3.train(actor, (X, y), class_weight={"a": "heavy"})',
            "UsageError",
            "expected a number from 0",
        ),
        case(
            "class weights for a regression",
            'h3.train(actor, (X, X[:, 0] / 3), class_weight="balanced")',
            "UsageError",
            "a regression has no classes",
        ),
        case("no rank", "h3.train(actor, (X, y), ranks=0)", "UsageError", "a whole number from 1"),
        case("ranks of one process", "h3.train(teacher, (X, y), ranks=2)", "UsageError", "Leave ranks out"),
        case(
            "a start by name",
            'h3.train(actor, (X, y), start="digits")',
            "UsageError",
            "an actor that has learned, or a run",
        ),
        case(
            "a start that has not learned",
            "h3.train(actor, (X, y), start=actor)",
            "UsageError",
            "an actor that has learned, or a run",
        ),
        case(
            "a start of another kind", "h3.train(actor, (X, y), start=teacher)", "ModelError", "the same architecture"
        ),
        case(
            "settings as a dict",
            'h3.train(actor, (X, y)).settings = {"lr": 1}',
            "UsageError",
            "training.settings.replace(lr=...)",
        ),
        case("a setting in place", "h3.train(actor, (X, y)).settings.lr = 3", "NotOffered", "settings.replace(lr=3)"),
        case("a setting that is not there", "h3.train(actor, (X, y)).settings.rate", "NotOffered", "Known: lr"),
        case(
            "a misspelt setting to replace",
            "h3.train(actor, (X, y)).settings.replace(learning_rate=1)",
            "UnknownName",
            "Did you mean 'lr'?",
        ),
        case("a snapshot that is none", "h3.train(actor, (X, y)).restore({})", "UsageError", "training.snapshot()"),
        case(
            "a snapshot of other rows",
            "h3.train(actor, (X, y)).restore(h3.train(actor, (X[:30], y[:30])).snapshot())",
            "UsageError",
            "30 rows; this feed has 60",
            "start=its_actor",
        ),
        case(
            "a snapshot of batches of another size",
            "t = h3.train(actor, (X, y), batch_size=8); next(t); h3.train(actor, (X, y)).restore(t.snapshot())",
            "UsageError",
            "has batch_size=64",
            "after batch 1 of 8 of epoch 1",
            "Train with batch_size=8",
        ),
    ],
    "Teachers and students": [
        case("no teacher", "h3.Distill()", "UsageError", "misses 'teacher'", "Distill(teacher, *"),
        case("a teacher by name", 'h3.Distill("teacher")', "UsageError", "h3.attach('teacher')"),
        case("None as teacher", "h3.Distill(None)", "UsageError", "expected an actor, a run"),
        case("no teacher in a list", "h3.Distill([])", "UsageError", "expected teachers, or (teacher, weight)"),
        case("a negative weight", "h3.Distill([(teacher, -1)])", "UsageError", "weights above 0"),
        case(
            "a misspelt temperature", "h3.Distill(teacher, temprature=2)", "UnknownName", "Did you mean 'temperature'?"
        ),
        case("no temperature", "h3.Distill(teacher, temperature=0)", "UsageError", "from 0.05 to 1000"),
        case("a negative share", "h3.Distill(teacher, soft=-0.1)", "UsageError", "a number from 0 to 1"),
        case("hard as text", 'h3.Distill(teacher, hard="much")', "UsageError", "a number from 0 to 1"),
        case("an unknown distance", 'h3.Distill(teacher, loss="mse")', "UnknownName", "Known: kl"),
        case(
            "an actor as transfer",
            "h3.train(actor, (X, y), transfer=teacher)",
            "UsageError",
            "expected h3.Distill(teacher)",
        ),
        case(
            "a teacher that has not learned",
            "list(h3.train(actor, (X, y), transfer=h3.Distill(actor)))",
            "NotFittedError",
            "Train it first",
        ),
        case(
            "a teacher of other classes",
            "list(h3.train(actor, feed, transfer=h3.Distill(teacher)))",
            "SpecMismatch",
            "the classes that it knows itself",
        ),
        case(
            "a teacher without probabilities",
            'list(h3.train(actor, (X, y), transfer=h3.Distill(h3.Actor("m", LinearSVC()).fit(X, y))))',
            "ModelError",
            "CalibratedClassifierCV",
        ),
        case(
            "logits as probabilities",
            "list(h3.train(actor, (X, y), transfer=h3.Distill(lambda rows: np.ones((len(rows), 3)))))",
            "DataError",
            "scipy.special.softmax",
        ),
        case(
            "a teacher of one column",
            "list(h3.train(actor, (X, y), transfer=h3.Distill(lambda rows: np.ones(len(rows)))))",
            "SpecMismatch",
            "expected (60, 3)",
        ),
        case(
            "a teacher that fails",
            "list(h3.train(actor, (X, y), transfer=h3.Distill(lambda rows: 1 / 0)))",
            "ModelError",
            "ZeroDivisionError",
            "f(raw rows) -> (rows, outputs)",
        ),
        case(
            "a teacher of rows that are gone",
            "list(h3.train(actor, feed, transfer=h3.Distill(lambda rows: rows)))",
            "UsageError",
            "Distill(teacher, source=rows)",
        ),
        case(
            "a student that cannot",
            'h3.train(h3.Actor("k", KNeighborsClassifier()), (X, y), transfer=h3.Distill(teacher))',
            "UsageError",
            "A TorchModel",
        ),
    ],
    "Saved actors": [
        case("no such actor", 'h3.load("missing.h3")', "StorageError", "No such file", "actor.save(path)"),
        case("a folder", 'h3.load("folder")', "StorageError", "Is a directory", "actor.save(path)"),
        case("text", 'h3.load("a file")', "DamagedData", "no .h3 file", "actor.save(path)"),
        case("a zip", 'h3.load("zip.h3")', "DamagedData", "no .h3 file", "actor.save(path)"),
        case("half an actor", 'h3.load("cut.h3")', "DamagedData", "save it anew"),
        case("an actor of tomorrow", 'h3.load("future.h3")', "DamagedData", "format 99", "Update h3lab"),
        case("a part of a feed", 'h3.load("stored/pipeline-1.h3lab")', "DamagedData", "pipeline-1.h3lab"),
        case("a number", "h3.load(3)", "UsageError", 'h3.load("student.h3")'),
        case("a misspelt build=", 'h3.load("teacher.h3", bild=net)', "UnknownName", "Did you mean 'build'?"),
        case("a network of one's own", 'h3.load("own.h3")', "ModelError", "h3.load(path, build="),
        case(
            "a build of another shape",
            'h3.load("own.h3", build=nn.Linear(3, 3))',
            "ModelError",
            "do not fit the module",
        ),
        case("a build that is none", 'h3.load("own.h3", build="net")', "UsageError", "expected a torch.nn.Module"),
        case("types by name", 'h3.load("teacher.h3", types=["Net"])', "UsageError", "types=[MyWorker]"),
        case("save to a folder", 'teacher.save("folder")', "StorageError", "was not written"),
        case("save to nowhere", 'teacher.save("nowhere/teacher.h3")', "StorageError", "was not written"),
        case("save to None", "teacher.save(None)", "UsageError", 'actor.save("student.h3")'),
    ],
    "Runs and labs, before there is one": [
        case("no run at all", "h3.attach()", "RunNotFound", "lab.train(actor, feed)"),
        case("no run of that name", 'h3.attach("digits")', "RunNotFound", "there is no run 'digits'"),
        case("an actor to attach to", "h3.attach(actor)", "UsageError", "'digits' (its newest) or 'digits/2'"),
        case("a path to attach to", 'h3.attach("../digits")', "RunNotFound", "there is no run"),
        case("a misspelt name of h3", "h3.Lap(engines=2)", "NotOffered", "Did you mean h3.Lab?"),
        case("a name for all runs", 'h3.runs("digits")', "UsageError", "Call it as runs()"),
        case("nothing to watch", "h3.watch()", "UsageError", "misses 'records'", "watch(records"),
        case("a number to watch", "h3.watch(3)", "UsageError", "expected an iterable of dicts, or runs"),
        case("an actor to watch", "h3.watch(teacher)", "UsageError", "expected an iterable of dicts, or runs"),
        case("numbers as records", "list(h3.watch([1, 2]))", "UsageError", "for example {'loss': 0.1}"),
        case("a misspelt name=", 'h3.watch([{"loss": 1.0}], nme="x")', "UnknownName", "Did you mean 'name'?"),
        case("a function in a snapshot", 'h3.snapshot({"f": print})', "UsageError", "expected numbers, text, arrays"),
        case("a number of a demo", "h3.demo(3)", "UsageError", "Call it as demo()"),
        case("no engines", "h3.Lab(engines=0)", "LabError", "h3.Lab(engines=2)"),
        case("engines as text", 'h3.Lab(engines="two")', "LabError", "expected a whole number from 1"),
        case("a misspelt engines=", "h3.Lab(enginse=2)", "UnknownName", "Did you mean 'engines'?"),
        case("joblib's keyword", "h3.Lab(n_jobs=2)", "UnknownName", "Did you mean 'engines'?"),
        case("a cluster by name", 'h3.Lab(cluster="slurm")', "LabError", "h3.Lab(cluster=ipyparallel.Client())"),
        case("a profile that is no name", "h3.Lab(profile=3)", "LabError", "for example profile='slurm'"),
        case(
            "a table in place of a source", "h3.testing.check_source(frame)", "UsageError", "for example h3.read(...)"
        ),
        case("a model in place of its maker", "h3.testing.check_model(3)", "UsageError", "lambda: MyModel()"),
        case(
            "a misspelt task of easy data",
            'h3.testing.easy_feed("regresion")',
            "UnknownName",
            "Did you mean 'regression'?",
        ),
        case(
            "a setting of another type",
            'Settings([Setting("n", int, 1)], n=1.5)',
            "UsageError",
            "expected a whole number",
        ),
        case(
            "a setting that cannot be steered",
            'Settings([Setting("n", int, 1, steerable=False)]).replace(n=2)',
            "UsageError",
            "train(..., n=2)",
        ),
    ],
}

#: ``lab`` has two engines; ``run`` still trains, ``done`` has ended.
LAB_GROUPS: dict[str, list[Case]] = {
    "On a lab": [
        case("a lab of another size", "h3.Lab(engines=3)", "LabError", "Join it with h3.Lab()", "h3.Lab(engines=3)"),
        case("more ranks than slots", "lab.train(actor, (X, y), ranks=99)", "LabError", "a number from 1 to 2"),
        case("ranks as text", 'lab.train(actor, (X, y), ranks="two")', "LabError", "a number from 1 to 2"),
        case("a slash in a name", 'lab.train(h3.Actor("a/b", net_model), (X, y))', "UsageError", "letters, digits"),
        case("an empty name", 'lab.train(h3.Actor("", net_model), (X, y))', "UsageError", "Actor('digits', model)"),
        case("a number as a name", "lab.train(h3.Actor(3, net_model), (X, y))", "UsageError", "Actor('digits', model)"),
        case("a model without an actor", "lab.train(net_model, (X, y))", "UsageError", 'h3.Actor("digits", model)'),
        case("no data for a run", "lab.train(actor)", "UsageError", "misses 'data'", "Lab.train(actor, data"),
        case(
            "a name in use",
            "lab.train(h3.Actor(run.name.partition('/')[0], net_model), (X, y))",
            "NameInUse",
            "replace=True",
        ),
        case("a misspelt replace", "lab.train(actor, (X, y), replase=True)", "UnknownName", "Did you mean 'replace'?"),
        case(
            "a misspelt setting of a run", "lab.train(actor, (X, y), epocs=3)", "UnknownName", "Did you mean 'epochs'?"
        ),
        case(
            "a misspelt optimizer of a run",
            'lab.train(h3.Actor("d", h3.TorchModel(net, optimizer="adamm")), (X, y))',
            "UnknownName",
            "Did you mean 'adam'?",
        ),
        case(
            "a misspelt metric of a run",
            'lab.train(actor, (X, y), validation=0.4, metrics=["f1_marco"])',
            "UnknownName",
            "Did you mean 'f1_macro'?",
        ),
        case(
            "patience of a run without validation",
            "lab.train(actor, (X, y), patience=2)",
            "UsageError",
            "validation=0.1",
        ),
        case("no snapshots", "lab.train(actor, (X, y), snapshot_every=0)", "UsageError", "a whole number from 1"),
        case(
            "a transfer that is none",
            "lab.train(actor, (X, y), transfer=teacher)",
            "UsageError",
            "expected h3.Distill(teacher)",
        ),
        case(
            "what cannot travel",
            'lab.train(h3.Actor("d", h3.TorchModel(lambda spec, lock=threading.Lock(): net(spec))), (X, y))',
            "TravelError",
            "cannot be sent to an engine",
            "build(spec)",
        ),
        case(
            "a misspelt column on a lab",
            'lab.prepare(h3.Pipeline(h3.Preprocessor("n", ["prise"]), label="rating"), frame)',
            "UnknownName",
            "Did you mean 'price'?",
        ),
        case(
            "a misspelt label= on a lab",
            'lab.prepare(pipeline, frame, lable="rating")',
            "UnknownName",
            "Did you mean 'label'?",
        ),
        case("a table before its pipeline", "lab.prepare(frame, pipeline)", "UsageError", "expected a Pipeline"),
        case(
            "rows without labels on a lab",
            "lab.prepare(pipeline, frame.assign(rating=None))",
            "DataError",
            'on_null_label="drop"',
        ),
        case(
            "text to numbers on a lab",
            'lab.prepare(h3.Pipeline(h3.Preprocessor("t", ["text"], StandardScaler()), label="rating"), frame)',
            "DataError",
            "block 't', worker StandardScaler",
        ),
        case("a loop without a name", "lab.run(lambda settings: [])", "UsageError", "name='descent'"),
        case(
            "a loop that has begun",
            "def loop(settings): yield {}\nlab.run(loop(None))",
            "UsageError",
            "give the function itself",
        ),
        case("a loop that yields nothing", "def loop(settings): pass\nlab.run(loop)", "UsageError", "has no yield"),
        case(
            "a setting of a loop that is a list",
            "def loop(settings): yield {}\nlab.run(loop, sizes=[1, 2])",
            "UsageError",
            "sizes",
        ),
        case("an unknown setting to set", "run.set(learning_rate=1)", "UnknownName", "Did you mean 'lr'?"),
        case("a setting of a wrong type", 'run.set(lr="fast")', "UsageError", "expected a number from 0"),
        case("a rate below zero to set", "run.set(lr=-1)", "UsageError", "expected a number from 0"),
        case("a value without its name", "run.set(0.1)", "UsageError", "Call it as Run.set(**values)"),
        case("a time as text", 'run.wait(timeout_seconds="long")', "UsageError", "expected a number from 0"),
        case("another library's timeout", "run.wait(timeout=3)", "UnknownName", "Did you mean 'timeout_seconds'?"),
        case("a rank that is none", 'run.logs(rank="first")', "UsageError", "expected a whole number"),
        case("delete while it trains", "run.delete()", "LabError", "run.stop()"),
        case("a run that has no number so high", "h3.attach(run.name + '9')", "RunNotFound", "Known: "),
        case("a misspelt run", "h3.attach(run.name[1:].partition('/')[0])", "RunNotFound", "Did you mean"),
        case("close while runs train", "lab.close()", "LabError", "lab.close(force=True)"),
        case("a lease as text", 'lab.extend("long")', "UsageError", "lab.extend(hours=24)"),
        case("a lease that is over", "lab.extend(-1)", "UsageError", "lab.extend(hours=24)"),
    ],
}

#: A command line, its exit code, and words of what it prints.
COMMANDS: list[tuple[str, str, int, tuple[str, ...]]] = [
    ("a misspelt command", "h3lab atach digits", 2, ("invalid choice", "attach")),
    ("no command", "h3lab", 2, ("COMMAND",)),
    ("a run that is not there", "h3lab logs nobody", 1, ("there is no run 'nobody'",)),
    ("attach to what is not there", "h3lab attach nobody", 1, ("there is no run 'nobody'",)),
    ("stop what", "h3lab stop", 1, ("--all",)),
    ("remove what", "h3lab rm", 1, ("--older-than 30d",)),
    ("an age in no unit", "h3lab rm --older-than 30", 1, ("a number with d, h or m",)),
    ("engines in words", "h3lab start --engines two", 2, ("invalid int value",)),
    ("no engines to start", "h3lab start --engines 0", 1, ("expected a whole number from 1",)),
    ("a rank in words", "h3lab logs digits --rank first", 2, ("invalid int value",)),
]


class Answer(NamedTuple):
    """What came: the class of h3lab.errors, the message with this machine's paths left out, and the error itself."""

    kind: str
    message: str
    error: BaseException | None


def namespace(*prefaces: str, **more: Any) -> dict[str, Any]:
    """The names that cases find."""
    found: dict[str, Any] = {"__name__": "notebook", **more}
    for preface in prefaces:
        exec(preface, found)
    return found


def again(names: dict[str, Any]) -> dict[str, Any]:
    """The same names for another case; what a case may train is a copy."""
    return {**names, **{name: copy.deepcopy(names[name]) for name in ("actor", "teacher")}}


def make_files(folder: Path) -> None:
    """What the cases of FILES find in their folder."""
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        namespace(PREFACE, FILES)


def answered(code: str, names: dict[str, Any]) -> Answer:
    """Run the code of a case, as a cell would be, in the current folder."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            exec(compile(code, "<cell>", "exec"), names)
        except Exception as error:
            return Answer(kind_of(error), plain(str(error)), error)
    return Answer("nothing", "", None)


def kind_of(error: BaseException) -> str:
    """The class of h3lab.errors that an error is; that of a dependency by its own name."""
    kinds = [kind for kind in type(error).__mro__ if kind.__module__ == "h3lab.errors"]
    return (kinds or [type(error)])[0].__name__


def plain(message: str) -> str:
    """A message without the folders of this machine and of this test."""
    home = os.environ.get("H3LAB_HOME", "")
    for path, shown in ((os.path.realpath("."), "."), (home, "$H3LAB_HOME")):
        message = message.replace(path + os.sep, "" if shown == "." else shown + "/").replace(path, shown)
    message = re.sub(r"\.[\w.]+\.[a-z0-9_]{8}(?=')", ".draft", message)  # a temporary file
    return re.sub(r"0x[0-9a-f]+", "0x...", message)


def commanded(line: str) -> tuple[int, str]:
    """The exit code of a command line, and what it prints."""
    from h3lab.cli import main

    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        try:
            code = main(shlex.split(line)[1:])
        except SystemExit as ended:  # argparse
            code = int(ended.code or 0)
    return code, plain(told.getvalue().strip())


# ---- The page ---------------------------------------------------------------------------------------------

INTRODUCTION = """\
# What h3lab says

A message says what came, what was expected, and what to type. A name that nobody knows is answered with the closest
one, also where another library calls it so (`learning_rate` is `lr`). What a dependency raised is the cause of the
error (`raise ... from`), so its traceback is there too.

This page is written by `python tests/misuse.py` from the cases that the tests run.

## The tree

`except h3.errors.H3labError` catches whatever h3lab raises on purpose. Each class is also the built-in error that one
would expect, so `except ValueError` goes on to work.

"""


def tree() -> Iterator[str]:
    """The classes of h3lab.errors, each in one line."""
    from h3lab import errors

    def below(kind: type, depth: int) -> Iterator[str]:
        builtin = [base.__name__ for base in kind.__bases__ if base.__module__ == "builtins"]
        also = f" ({', '.join(builtin)})" if builtin and kind is not errors.H3labError else ""
        yield f"{'  ' * depth}- `{kind.__name__}`{also}: {' '.join((kind.__doc__ or '').split())}"
        for child in vars(errors).values():
            if isinstance(child, type) and kind in child.__bases__:
                yield from below(child, depth + 1)

    return below(errors.H3labError, 0)


def row(code: str, kind: str, message: str) -> str:
    """A line of a table."""
    # Which runs a home has is its own affair.
    message = re.sub(r"(\$H3LAB_HOME/runs\..*?Known: ).*", r"\1...", message)
    typed = " ⏎ ".join(part.strip() for part in code.split("\n"))
    quoted = re.sub(r"([<>*_`|\\])", r"\\\1", " ".join(message.split()))
    ticks = "``" if "`" in typed else "`"
    return f"| {ticks}{typed.replace('|', chr(92) + '|')}{ticks} | **{kind}**: {quoted} |"


def page(rows: Mapping[str, str]) -> str:
    """The page, from the lines of its tables by the cases' ids."""
    parts = [INTRODUCTION, "\n".join(tree()), "\n\n## What the examples find\n\n```python", PREFACE.rstrip(), "\n```\n"]
    for title, cases in {**GROUPS, **LAB_GROUPS}.items():
        if title in LAB_GROUPS:
            parts.append("\n`lab` has two engines, `run` still trains, `done` has ended.\n")
        lines = [rows[each.id] for each in cases]
        parts.append("\n".join([f"\n## {title}\n", "| what you type | what h3lab says |", "|---|---|", *lines, ""]))
    lines = [rows[name] for name, *_ in COMMANDS]
    parts.append(
        "\n".join(["\n## On the command line\n", "| what you type | what h3lab says |", "|---|---|", *lines, ""])
    )
    return "".join(parts)


def lab_names(lab: Any) -> dict[str, Any]:
    """What the cases on a lab find: ``run`` trains for as long as nobody stops it, ``done`` has ended."""
    names = namespace(PREFACE, "import threading\nnet_model = h3.TorchModel(net)", lab=lab)
    setup = 'h3.Actor("{0}", net_model), (X, y), epochs={1}'
    names["run"] = eval(f"lab.train({setup.format('long', 1_000_000)})", names)
    names["done"] = eval(f"lab.train({setup.format('done', 1)})", names).wait()
    while names["run"].step < 1:
        pass
    return names


def write() -> None:
    """Run every case, here and on a lab, and write the page."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="h3-") as home, tempfile.TemporaryDirectory() as folder:
        os.environ["H3LAB_HOME"] = home
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        make_files(Path(folder))
        os.chdir(folder)
        rows = {}
        here = namespace(PREFACE)
        for each in [each for cases in GROUPS.values() for each in cases]:
            rows[each.id] = row(each.code, *answered(each.code, again(here))[:2])
        for name, line, *_ in COMMANDS:
            code, told = commanded(line)
            rows[name] = row(line, f"exit code {code}", told.splitlines()[-1])
        import h3lab as h3

        lab = h3.Lab(engines=2)
        try:
            names = lab_names(lab)
            for each in [each for cases in LAB_GROUPS.values() for each in cases]:
                rows[each.id] = row(each.code, *answered(each.code, again(names))[:2])
        finally:
            lab.close(force=True)
        os.chdir("/")
        PAGE.write_text(page(rows), encoding="utf-8")
    for line in [line for line in rows.values() if "**nothing**" in line]:
        print("nothing came of", line, file=sys.stderr)


if __name__ == "__main__":
    write()
