"""Preparing: from a source to a feed, in memory or stored, again and after failures."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cuts import CutSource, Pickling
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA, IncrementalPCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, QuantileTransformer, StandardScaler, TargetEncoder

from h3lab.errors import DamagedData, DataError, StorageError, UnknownName, UsageError
from h3lab.feeds.feed import Feed, open_feed
from h3lab.pipeline import Pipeline, Preprocessor
from h3lab.preparing.prepare import prepare


def frame(rows: int = 120, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    words = [f"word{i}" for i in range(30)]
    return pd.DataFrame(
        {
            "text": [" ".join(rng.choice(words, 6)) for _ in range(rows)],
            "a": rng.normal(3, 2, rows),
            "b": rng.normal(size=rows),
            "n": rng.integers(0, 9, rows),
            "city": rng.choice(["Oslo", "Rome", "Łódź"], rows),
            "label": rng.choice(["yes", "no"], rows),
        }
    )


def recipe(**settings: Any) -> Pipeline:
    return Pipeline(
        Preprocessor("text", "text", TfidfVectorizer()),
        Preprocessor("numbers", ["a", "b", "n"], SimpleImputer(), StandardScaler()),
        Preprocessor("city", ["city"], OneHotEncoder()),
        label="label",
        **settings,
    )


def same(a: Feed, b: Feed) -> bool:
    (x, y), (u, v) = a.arrays(), b.arrays()
    return (abs(x - u) > 0).nnz == 0 and (y == v).all() and (a.batch([0, 1]).keys == b.batch([0, 1]).keys).all()


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.glob(".h3lab-work-*")]


# ---- Stored -----------------------------------------------------------------------------------------------


def test_a_stored_feed_is_the_one_in_memory(tmp_path: Path) -> None:
    source = CutSource(frame(), [30, 30, 100], version="1")
    memory = prepare(recipe(), source)
    stored = prepare(recipe(), source, to=tmp_path / "feed", executor=Pickling())
    assert same(memory, stored) and same(memory, open_feed(tmp_path / "feed"))
    assert stored.pipeline.fingerprint == memory.pipeline.fingerprint
    assert left(tmp_path / "feed") == []
    np.testing.assert_array_equal(memory.arrays()[1], frame()["label"])


def test_the_manifest_says_what_was_done(tmp_path: Path) -> None:
    prepare(recipe(), CutSource(frame(), [50], version="1"), to=tmp_path)
    manifest = json.loads((tmp_path / "manifest-000001.json").read_text())
    assert manifest["rows"] == 120 and manifest["spec"]["classes"] == 2
    assert "SimpleImputer(), StandardScaler()" in manifest["description"]
    assert [(w["block"], w["worker"], w["how"]) for w in manifest["workers"]] == [
        ("text", "TfidfVectorizer", "merged"),
        ("numbers", "SimpleImputer", "merged"),
        ("numbers", "StandardScaler", "merged"),
        ("city", "OneHotEncoder", "merged"),
    ]
    assert "1e-12" in manifest["workers"][2]["bound"]
    assert [part["place"]["start"] for part in manifest["source_parts"]] == [0, 50]
    assert all(part["hash"] for part in manifest["parts"]) and manifest["source"]["kind"] == "cut"
    assert manifest["counts"]["passes"] == 2


def test_nothing_changed_is_reused_at_once(tmp_path: Path) -> None:
    class Refusing:
        width, local = 1, False

        def map(self, function: Any, tasks: Any, label: str = "", alike: bool = True) -> Any:
            raise AssertionError("nothing is to be computed")

    source = CutSource(frame(), [50], version="1")
    first = prepare(recipe(), source, to=tmp_path)
    told: list[Any] = []
    again = prepare(recipe(), source, to=tmp_path, executor=Refusing(), progress=lambda *step: told.append(step))
    assert told == [("reused", 2, 2)]
    applied = prepare(again.pipeline, source, to=tmp_path, executor=Refusing())
    assert again.manifest["number"] == applied.manifest["number"] == 1
    assert same(first, again) and first.fingerprint == again.fingerprint


@pytest.mark.parametrize("change", ["recipe", "version", "unversioned rows", "drop", "rows"])
def test_what_changed_is_prepared_again(tmp_path: Path, change: str) -> None:
    more, version = frame(140), "" if change == "unversioned rows" else "1"
    rows = more[:120]  # parts of one name and version have the same rows
    prepare(recipe(), CutSource(rows, [50], version=version), to=tmp_path)
    if change == "unversioned rows":
        more = rows.assign(a=rows["a"] + 1)
    source = CutSource(more if "rows" in change else rows, [50], "2" if change == "version" else version)
    pipeline = recipe(seed=1) if change == "recipe" else recipe()
    feed = prepare(pipeline, source, to=tmp_path, on_null_label="drop" if change == "drop" else "error")
    assert feed.manifest["number"] == 2 and same(feed, prepare(pipeline, source))


def test_a_fitted_pipeline_rewrites_only_the_parts_that_changed(tmp_path: Path) -> None:
    fitted = prepare(recipe(), CutSource(frame(), [50], version="1")).pipeline
    source = CutSource(frame(), [40, 80], version="1")
    prepare(fitted, source, to=tmp_path)
    changed = CutSource(frame(), [40, 80], version="1")
    changed.versions[1] = "2"
    feed = prepare(fitted, changed, to=tmp_path)
    assert feed.manifest["counts"]["reused"] == 2
    assert same(feed, prepare(fitted, source)) and feed.pipeline.fingerprint == fitted.fingerprint


def test_rows_do_not_go_through_the_executor(tmp_path: Path) -> None:
    rows = frame(4000)
    for source in (CutSource(rows, range(500, 4000, 500)), rows):  # by a source, and in memory
        if source is rows:
            source = pa.Table.from_pandas(rows)
        executor = Pickling()
        feed = prepare(recipe(), source, to=tmp_path / str(type(source).__name__), executor=executor)
        assert same(feed, prepare(recipe(), source))
        if not isinstance(source, CutSource):
            assert executor.bytes < 60_000 < source.nbytes
    in_memory = prepare(recipe(), rows, executor=Pickling())
    assert same(in_memory, prepare(recipe(), rows))


def test_two_do_not_prepare_into_one_folder_at_the_same_time(tmp_path: Path) -> None:
    class Nested:
        width, local = 1, False

        def map(self, function: Any, tasks: Any, label: str = "", alike: bool = True) -> Any:
            with pytest.raises(StorageError, match="another process is preparing into"):
                prepare(recipe(), CutSource(frame()), to=tmp_path)
            yield from map(function, tasks)

    assert len(prepare(recipe(), CutSource(frame()), to=tmp_path, executor=Nested())) == 120


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[Any] = []
    prepare(recipe(), CutSource(frame(), [60]), to=tmp_path, progress=lambda *step: told.append(step))
    assert told == [
        ("reading", 1, 2),
        ("reading", 2, 2),
        ("fitting, pass 1", 1, 2),
        ("fitting, pass 1", 2, 2),
        ("fitting, pass 2", 1, 2),
        ("fitting, pass 2", 2, 2),
        ("writing", 1, 2),
        ("writing", 2, 2),
    ]


# ---- How workers are fitted -------------------------------------------------------------------------------


def how(feed: Feed) -> list[str]:
    return [entry["how"] for entry in feed.pipeline.state.how]


def test_a_worker_without_a_merge_gets_its_whole_column() -> None:
    rows = frame()
    pipeline = Pipeline(
        Preprocessor("n", ["a", "b"], StandardScaler(), QuantileTransformer(n_quantiles=20)),
        Preprocessor("t", "text", TfidfVectorizer(), PCA(4, svd_solver="arpack", random_state=0)),
    )
    feed = prepare(pipeline, CutSource(rows, [20, 90]), executor=Pickling())
    assert how(feed) == ["merged", "column", "merged", "column"]
    x = feed.arrays()[0]
    scaled = StandardScaler().fit_transform(rows[["a", "b"]])
    np.testing.assert_allclose(x[:, :2], QuantileTransformer(n_quantiles=20).fit_transform(scaled), atol=1e-9)
    pca = PCA(4, svd_solver="arpack", random_state=0)
    np.testing.assert_allclose(x[:, 2:], pca.fit_transform(TfidfVectorizer().fit_transform(rows["text"])), atol=1e-9)


def test_a_column_that_is_too_heavy_is_sampled_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline(Preprocessor("n", ["a", "b"], PCA(1, svd_solver="randomized")))
    size = prepare(pipeline, CutSource(frame())).pipeline.state.how[0]["bytes"]
    monkeypatch.setenv("H3LAB_COLUMN_BYTES", str(size // 2))
    with pytest.warns(
        UserWarning, match="PCA of block 'n' needs its whole column.*sample of 50.0%.*H3LAB_COLUMN_BYTES"
    ):
        feed = prepare(pipeline, CutSource(frame()))
    entry = feed.pipeline.state.how[0]
    assert entry["how"] == "sample" and entry["share"] == 0.5
    fitted = feed.pipeline.state.stages["n"][0][0]
    assert 40 <= fitted.n_samples_ <= 80


def test_partial_fit_is_streamed_part_by_part() -> None:
    rows = frame()
    # the part of 2 rows is too small to be taken alone, and the last one of 3 goes to the run before
    cuts = [2, 40, 40, 80, 117]
    feed = prepare(Pipeline(Preprocessor("n", ["a", "b", "n"], IncrementalPCA(2))), CutSource(rows, cuts))
    assert how(feed) == ["streamed"]
    expected = IncrementalPCA(2)
    for start in (0, 40, 80):
        expected.partial_fit(rows[["a", "b", "n"]][start : start + 40])
    np.testing.assert_allclose(feed.arrays()[0], expected.transform(rows[["a", "b", "n"]]), atol=1e-12)


def test_workers_that_learn_from_labels_get_them_and_it_is_noted() -> None:
    rows = frame()
    feed = prepare(
        Pipeline(Preprocessor("best", ["a", "b", "n"], SelectKBest(k=1)), label="label"), CutSource(rows, [50])
    )
    expected = SelectKBest(k=1).fit(rows[["a", "b", "n"]], rows["label"])
    np.testing.assert_array_equal(feed.arrays()[0], expected.transform(rows[["a", "b", "n"]]))
    assert feed.pipeline.state.how[0]["labels"]
    encoded = prepare(Pipeline(Preprocessor("city", ["city"], TargetEncoder()), label="label"), CutSource(rows, [50]))
    assert encoded.pipeline.state.how[0]["labels"]
    with pytest.raises(DataError, match="block 'city', worker TargetEncoder"):
        prepare(Pipeline(Preprocessor("city", ["city"], TargetEncoder())), CutSource(rows))


def test_random_states_follow_from_the_seed_and_the_place() -> None:
    def states(seed: int) -> list[int]:
        pipeline = Pipeline(
            Preprocessor("t", ["text"], TfidfVectorizer(), TruncatedSVD(2)),
            Preprocessor("p", ["a", "b"], PCA(1), PCA(1)),
            seed=seed,
        )
        feed = prepare(pipeline, CutSource(frame()))
        return [e["random_state"]["random_state"] for e in feed.pipeline.state.how if "random_state" in e]

    assert states(0) == states(0) != states(1)
    assert len(set(states(0))) == 3


class Remembering(TransformerMixin, BaseEstimator):
    """Knows what it was fitted on."""

    def fit(self, X: Any, y: Any = None) -> "Remembering":
        self.columns_, self.rows_, self.labels_ = list(X.columns), len(X), None if y is None else sorted(set(y))
        return self

    def transform(self, X: Any) -> Any:
        return np.full((len(X), 1), self.rows_)


def test_a_worker_of_ones_own_is_given_what_a_column_transformer_gives() -> None:
    feed = prepare(Pipeline(Preprocessor("r", ["a", "city"], Remembering()), label="label"), CutSource(frame(), [50]))
    worker = feed.pipeline.state.stages["r"][0][0]
    assert (worker.columns_, worker.rows_, worker.labels_) == (["a", "city"], 120, ["no", "yes"])


def test_whole_numbers_with_gaps_in_any_part_are_floats_in_every_part() -> None:
    numbers = pa.array([1, 2, 3, None, 5, 6], pa.int64())
    feed = prepare(Pipeline(Preprocessor("n", ["n"])), CutSource(pa.table({"n": numbers}), [2]))
    assert feed.arrays()[0].dtype == np.float64 and np.isnan(feed.arrays()[0][3, 0])
    whole = prepare(Pipeline(Preprocessor("n", ["n"])), CutSource(pa.table({"n": [1, 2, 3]}), [2]))
    assert whole.arrays()[0].dtype == np.int64
    with pytest.raises(DataError, match="block 'n' has gaps or fractions here.*int64"):
        whole.pipeline.transform([{"n": None}, {"n": 1}])


def test_parts_of_nulls_alone_and_empty_parts() -> None:
    rows = pd.DataFrame({"x": [np.nan] * 4 + [1.0, 3.0, 8.0], "c": [None] * 4 + ["u", "v", "u"]})
    pipeline = Pipeline(
        Preprocessor("x", ["x"], SimpleImputer(add_indicator=True), StandardScaler()),
        Preprocessor("c", ["c"], OneHotEncoder(sparse_output=False)),
    )
    feed = prepare(pipeline, CutSource(rows, [0, 2, 2, 4, 7]))
    x = SimpleImputer(add_indicator=True).fit_transform(rows[["x"]])
    np.testing.assert_allclose(feed.arrays()[0][:, :2], StandardScaler().fit_transform(x), atol=1e-12)
    np.testing.assert_array_equal(feed.arrays()[0][:, 2:], OneHotEncoder().fit_transform(rows[["c"]]).toarray())


# ---- Labels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "task", "expected"),
    [
        (["u", "v", "u", "w"], None, ("classification", ("u", "v", "w"))),
        ([True, False, True, True], None, ("classification", (False, True))),
        ([3, 7, 3, 3], None, ("classification", (3, 7))),
        (pd.Categorical(["u", "v", "u", "u"], ["u", "v", "never"]), None, ("classification", ("u", "v"))),
        ([0.5, 1.5, 2.5, 0.5], None, ("regression", None)),
        ([3, 7, 3, 3], "regression", ("regression", None)),
        ([0.0, 1.0, 1.0, 0.0], "classification", ("classification", (0.0, 1.0))),
    ],
)
def test_the_label_decides_the_task(values: Any, task: Any, expected: Any) -> None:
    rows = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0], "y": values})
    feed = prepare(Pipeline(Preprocessor("x", ["x"]), label="y", task=task), CutSource(rows, [1, 3]))
    assert (feed.spec.task, feed.spec.labels) == expected
    y = feed.batch(slice(None)).y
    assert y.dtype == (np.float64 if expected[0] == "regression" else np.int64)
    assert feed.arrays()[1].tolist() == list(values)


@pytest.mark.parametrize("task", [None, "regression"])
def test_what_is_no_label_is_said_before_anything_is_read(task: Any) -> None:
    rows = pd.DataFrame({"x": [1.0, 2.0], "y": [[1, 2], [3]]})
    with pytest.raises(DataError, match=r"the label 'y' is list<item: int64>; classes are text"):
        prepare(Pipeline(Preprocessor("x", ["x"]), label="y", task=task), rows)


def test_what_nobody_uses_may_be_of_any_type() -> None:
    odd = pa.array([{"a": "x"}, {"a": "y"}], pa.struct([("a", pa.string_view())]))  # which Arrow cannot filter
    rows = pa.table({"x": [1.0, 2.0], "y": ["u", None], "odd": odd})
    assert len(prepare(Pipeline(Preprocessor("x", ["x"]), label="y"), rows, on_null_label="drop")) == 1


@pytest.mark.parametrize(
    ("dtype", "values", "says"),
    [
        ("int8", [1, 300], "block 'x' has values from 1 to 300, which int8 does not hold"),
        ("uint16", [-1, 2], "from -1 to 2, which uint16"),
        ("float16", [1.0, 1e6], r"float16 does not hold \(up to 6.55e\+04\).*a wider type"),
        ("float32", [1.0, 1e300], r"float32 does not hold"),
    ],
)
def test_a_type_that_does_not_hold_the_numbers_is_refused(dtype: str, values: list[float], says: str) -> None:
    pipeline = Pipeline(Preprocessor("x", ["x"]), dtype=dtype)
    with pytest.raises(DataError, match=says):
        prepare(pipeline, {"x": values})
    assert prepare(pipeline, {"x": values[:1] if values[0] > 0 else [3]}).spec.blocks["x"].dtype == dtype
    if dtype.startswith("f"):
        assert np.isinf(prepare(pipeline, {"x": [np.inf, 1.0]}).arrays()[0][0, 0]), "infinity was there before"


def test_many_whole_numbers_are_questioned() -> None:
    rows = pd.DataFrame({"x": np.arange(300.0), "y": np.arange(300) % 150})
    with pytest.warns(UserWarning, match='150 different whole numbers.*task="regression"'):
        prepare(Pipeline(Preprocessor("x", ["x"]), label="y"), CutSource(rows))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare(Pipeline(Preprocessor("x", ["x"]), label="y", task="classification"), CutSource(rows))


def test_missing_labels_are_counted_over_all_parts_or_left_out(tmp_path: Path) -> None:
    rows = frame()
    rows.loc[[3, 60, 61], "label"] = None
    source = CutSource(rows, [50, 60, 62])
    with pytest.raises(DataError, match=r"'label' is missing in 3 of 120 rows.*on_null_label=\"drop\""):
        prepare(recipe(), source)
    feed = prepare(recipe(), source, to=tmp_path, on_null_label="drop", executor=Pickling())
    kept = rows.dropna()
    assert len(feed) == 117 and feed.manifest["counts"]["dropped"] == 3
    np.testing.assert_allclose(
        feed.arrays()[0].toarray(), prepare(recipe(), CutSource(kept)).arrays()[0].toarray(), atol=1e-12
    )
    keys = np.delete(prepare(Pipeline(Preprocessor("a", ["a"])), source).batch(slice(None)).keys, [3, 60, 61])
    np.testing.assert_array_equal(feed.batch(slice(None)).keys, keys)


def test_the_label_can_be_named_beside_the_pipeline() -> None:
    pipeline = Pipeline(Preprocessor("a", ["a"]))
    feed = prepare(pipeline, CutSource(frame()), label="label")
    assert feed.spec.classes == 2 and pipeline.label is None
    assert prepare(feed.pipeline, CutSource(frame()), label="label").spec == feed.spec
    with pytest.raises(UsageError, match=r"pipeline.replace\(label='city'\)"):
        prepare(feed.pipeline, CutSource(frame()), label="city")


def test_a_fitted_pipeline_is_applied_and_needs_no_label() -> None:
    train, test = CutSource(frame(), [30]), frame(40, seed=9)
    fitted = prepare(recipe(), train).pipeline
    feed = prepare(fitted, CutSource(test, [7]))
    assert feed.pipeline.fingerprint == fitted.fingerprint
    assert (feed.arrays()[0] != fitted.transform(test).x).nnz == 0
    bare = prepare(fitted, CutSource(test.drop(columns="label")))
    assert bare.arrays()[1] is None and bare.spec == fitted.spec


# ---- Bad input --------------------------------------------------------------------------------------------


def test_wrong_sources_are_refused_at_once() -> None:
    with pytest.raises(UnknownName, match=r"no column 'citty' in the source \(block 'c'\).*Did you mean 'city'"):
        prepare(Pipeline(Preprocessor("c", ["citty"], OneHotEncoder())), frame())
    with pytest.raises(UnknownName, match="no column 'lable'.*Did you mean 'label'"):
        prepare(Pipeline(Preprocessor("a", ["a"]), label="lable"), frame())
    with pytest.raises(UnknownName, match="on_null_label 'dorp'.*Did you mean 'drop'"):
        prepare(recipe(), frame(), on_null_label="dorp")
    with pytest.raises(UsageError, match="a DataFrame came as pipeline; expected a Pipeline, or scikit"):
        prepare(frame(), recipe())  # type: ignore[arg-type]
    with pytest.raises(DataError, match="the source has no rows"):
        prepare(recipe(), CutSource(frame().head(0)))
    with pytest.raises(DataError, match="no rows.*All of its 120 rows miss the label 'label'"):
        prepare(recipe(), CutSource(frame().assign(label=pd.Series([None] * 120, dtype="str"))), on_null_label="drop")
    stream = CutSource(frame())
    stream.bounded = False
    with pytest.raises(UsageError, match="CutSource comes without an end"):
        prepare(recipe(), stream)
    with pytest.raises(UsageError, match="block 'w' has a source of its own, 'weather'"):
        prepare(Pipeline(Preprocessor("w", ["a"], source="weather")), frame())


@pytest.mark.parametrize(
    ("block", "says"),
    [
        (
            Preprocessor("n", ["a", "city"], StandardScaler()),
            "StandardScaler: column 'city' is .*string; a column of numbers",
        ),
        (Preprocessor("n", ["city"], PCA(1)), "PCA: column 'city' is .*string; a column of numbers"),
        (
            Preprocessor("t", ["text", "n"], TfidfVectorizer()),
            "TfidfVectorizer: column 'n' is int64; a column of text",
        ),
        (
            Preprocessor("n", "a", StandardScaler()),
            r"StandardScaler: it takes a table, and the string 'a'.*Write \['a'\]",
        ),
        (Preprocessor("n", ["city"], SimpleImputer()), "SimpleImputer: column 'city' is .*string; a column of numbers"),
        (
            Preprocessor("t", "text", TfidfVectorizer(min_df=500)),
            "block 't', worker TfidfVectorizer: max_df corresponds",
        ),
    ],
)
def test_wrong_types_name_block_worker_and_column(block: Preprocessor, says: str) -> None:
    with pytest.raises(DataError, match=says):
        prepare(Pipeline(block), CutSource(frame(), [60]))


def test_text_with_gaps_says_how_to_fill_them() -> None:
    rows = frame()
    rows.loc[[3, 80], "text"] = None
    with pytest.raises(DataError, match=r"block 't'.*column 'text' has 1 of 60 rows without text.*SimpleImputer"):
        prepare(Pipeline(Preprocessor("t", "text", TfidfVectorizer())), CutSource(rows, [60]))
    filled = SimpleImputer(strategy="constant", fill_value="")
    feed = prepare(Pipeline(Preprocessor("t", ["text"], filled, TfidfVectorizer())), CutSource(rows, [60]))
    expected = TfidfVectorizer().fit_transform(rows["text"].fillna(""))
    assert abs(feed.arrays()[0] - expected).max() < 1e-12


def test_a_file_damaged_in_the_middle_leaves_the_old_feed(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pandas(frame(3000)), path, row_group_size=1000, write_page_checksum=True)
    first = prepare(recipe(), path, to=tmp_path / "feed")
    data = bytearray(path.read_bytes())
    middle = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset + 200
    data[middle : middle + 50] = b"\0" * 50
    path.write_bytes(bytes(data))
    with pytest.raises(DamagedData, match="rows.parquet"):
        prepare(recipe(), path, to=tmp_path / "feed")
    assert same(open_feed(tmp_path / "feed"), first) and left(tmp_path / "feed") == []


def run(code: str, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        cwd=Path(__file__).parent.parent,
    )


FULL = """
    import resource, sys
    import numpy as np, pandas as pd
    from cuts import CutSource, Pickling
    from h3lab.errors import StorageError
    from h3lab.pipeline import Pipeline, Preprocessor
    from h3lab.preparing.prepare import prepare
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import QuantileTransformer, StandardScaler

    what, limit = sys.argv[2], int(sys.argv[3])
    rows = pd.DataFrame({"x": np.arange(40_000.0), "n": np.arange(40_000), "t": ["some words here"] * 40_000})
    blocks = {
        "write": Preprocessor("x", ["x"]),
        "keep": Preprocessor("t", "t", TfidfVectorizer()),
        "second worker": Preprocessor("x", ["x"], QuantileTransformer(), StandardScaler()),
        "lookup": Preprocessor("x", ["x"], source="other"),
    }
    source, keys = CutSource(rows), None
    if what.startswith("lookup"):
        narrow = rows.assign(x=1).astype({"n": "int32", "x": "int8"})  # takes less than the hashes of its keys
        other = rows if what == "lookup" else narrow
        what, source, keys = "lookup", {"rows": source, "other": CutSource(other)}, {"other": "n"}
    if what == "iterator":
        what, source = "write", ({"x": float(n)} for n in range(40_000))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        prepare(Pipeline(blocks[what]), source, to=sys.argv[1], keys=keys, executor=Pickling())
    except StorageError as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("what", "limit"),
    [("write", 100_000), ("keep", 100_000), ("second worker", 100_000), ("lookup", 100_000), ("lookup keys", 250_000)],
)
def test_a_full_disk_leaves_the_old_feed(tmp_path: Path, what: str, limit: int) -> None:
    first = prepare(recipe(), CutSource(frame()), to=tmp_path)
    done = run(FULL, str(tmp_path), what, str(limit))
    assert done.returncode == 0, done.stderr
    assert "is full" in done.stdout and "still usable" in done.stdout and "another folder" in done.stdout
    assert f"disk of {tmp_path} is full" in done.stdout
    assert same(open_feed(tmp_path), first) and left(tmp_path) == []


def test_a_full_temporary_disk_is_named_as_such(tmp_path: Path) -> None:
    done = run(FULL, str(tmp_path), "iterator", "100000")
    assert done.returncode == 0, done.stderr
    assert f"disk of {tempfile.gettempdir()} is full" in done.stdout and "TMPDIR" in done.stdout


KILLED = """
    import os, signal, sys
    import numpy as np, pandas as pd
    from cuts import CutSource
    from h3lab.pipeline import Pipeline, Preprocessor
    from h3lab.preparing.prepare import prepare
    from sklearn.decomposition import PCA

    class Fatal:
        width, local = 1, True
        def map(self, function, tasks, label="", alike=True):
            if label == sys.argv[2]:
                list(map(function, tasks))
                os.kill(os.getpid(), signal.SIGKILL)
            yield from map(function, tasks)

    rows = pd.DataFrame({"x": np.arange(100.0), "y": np.arange(100.0)})
    prepare(Pipeline(Preprocessor("x", ["x", "y"], PCA(1))), CutSource(rows, [50]), to=sys.argv[1], executor=Fatal())
"""


@pytest.mark.parametrize("moment", ["fitting", "writing"])
def test_after_a_kill_the_old_feed_is_there_and_the_next_run_cleans_up(tmp_path: Path, moment: str) -> None:
    first = prepare(recipe(), CutSource(frame()), to=tmp_path)
    assert run(KILLED, str(tmp_path), moment).returncode == -signal.SIGKILL
    assert len(left(tmp_path)) == 1
    assert same(open_feed(tmp_path), first)
    again = prepare(recipe(seed=1), CutSource(frame()), to=tmp_path)
    assert left(tmp_path) == [] and again.manifest["number"] == 2
    named = {f["file"] for p in again.manifest["parts"] for a in p["arrays"].values() for f in a["files"].values()}
    named |= {f["file"] for p in first.manifest["parts"] for a in p["arrays"].values() for f in a["files"].values()}
    assert {path.name for path in (tmp_path / "parts").iterdir()} <= named


def test_a_living_workroom_is_left_alone(tmp_path: Path) -> None:
    from h3lab.preparing.workroom import clear, workroom

    with workroom(tmp_path) as mine:
        clear(tmp_path)
        with workroom(tmp_path) as other:
            assert mine.exists() and other.exists()
        assert mine.exists() and not other.exists()
    assert left(tmp_path) == []


# ---- What is kept between passes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "x",
    [
        np.arange(6, dtype=np.float32).reshape(3, 2),
        np.array([["a", None], ["b", "c"], ["", "ü"]], dtype=object),
        sparse.csr_matrix(np.eye(3)),
        pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}),
    ],
    ids=["array", "objects", "csr", "frame"],
)
def test_inputs_are_kept_as_they_are(tmp_path: Path, x: Any) -> None:
    from h3lab.preparing.workroom import keep, kept

    keep(tmp_path / "x", x)
    y = kept(tmp_path / "x")
    assert type(y) is type(x)
    if sparse.issparse(x):
        assert (x != y).nnz == 0
    elif isinstance(x, pd.DataFrame):
        pd.testing.assert_frame_equal(x, y)
    else:
        assert x.dtype == y.dtype and x.tolist() == y.tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_workers_that_pass_on_frames_and_text() -> None:
    """A DataFrame or text between two workers survives the passes."""
    shout = FunctionTransformer(lambda frame: frame.apply(lambda column: column.str.upper()))
    rows = frame()
    feed = prepare(
        Pipeline(Preprocessor("c", ["city"], shout, SimpleImputer(strategy="most_frequent"), OneHotEncoder())),
        CutSource(rows, [50]),
        executor=_ByValue(),
    )
    expected = OneHotEncoder().fit_transform(rows[["city"]].apply(lambda column: column.str.upper()))
    assert (feed.arrays()[0] != expected).nnz == 0


class _ByValue(Pickling):
    """Lambdas travel by cloudpickle, in the signed file of a pass."""


def test_reusing_reads_no_row(tmp_path: Path) -> None:
    class Counting(CutSource):
        reads = 0

        def read(self, part: Any, columns: Any = None) -> Any:
            type(self).reads += 1
            return super().read(part, columns)

    source = Counting(frame(), [60], version="1")
    prepare(recipe(), source, to=tmp_path)
    before = Counting.reads
    prepare(recipe(), source, to=tmp_path)
    assert Counting.reads == before > 0


def test_memory_that_parts_have_used_is_given_back() -> None:
    """Blocks below malloc's limit for maps stay in the heap when they are freed, as long as one behind them lives."""
    from h3lab.preparing.heap import WORTH_BYTES, give_back

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    blocks = [np.ones(12_000) for _ in range(1000)]
    last = np.ones(12_000)
    del blocks
    held = resident()
    give_back(WORTH_BYTES)
    assert held - resident() > 50_000_000 and last[0] == 1
