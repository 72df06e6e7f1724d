"""What preparing would make is known from a bounded sample, and what of it is estimated is said."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from cuts import CutSource
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

import h3lab as h3
from h3lab.errors import DataError, NotFittedError, UnknownName, UsageError
from h3lab.preparing.prepare import prepare
from h3lab.preparing.typed import _made_up

ROWS = 3000


def frame(rows: int = ROWS) -> pd.DataFrame:
    at = np.arange(rows)
    words = [f"common word{n % 7} rare{n // 10}" for n in at]  # the rare ones go on and on
    return pd.DataFrame({"price": at * 1.0, "city": np.array(["a", "b", "c"])[at % 3], "text": words, "y": at // 500})


PIPELINE = h3.Pipeline(
    h3.Preprocessor("numbers", ["price"], StandardScaler()),
    h3.Preprocessor("city", ["city"], OneHotEncoder(sparse_output=False)),
    h3.Preprocessor("text", "text", TfidfVectorizer()),
    label="y",
    join="blocks",
    dtype="float32",
)


def test_a_sample_of_all_rows_is_exact():
    found, feed = PIPELINE.plan(frame()), prepare(PIPELINE, frame())
    assert found.spec == feed.spec and found.rows == ROWS and found.nbytes == feed.nbytes
    assert not found.estimated and all(block.grew is None for block in found.blocks)


def test_what_grows_with_the_rows_is_told_from_what_does_not():
    found, feed = PIPELINE.plan(frame(), sample=1000), prepare(PIPELINE, frame())
    blocks = {block.name: block for block in found.blocks}
    for name in ("numbers", "city"):
        assert blocks[name].shape == feed.spec.blocks[name].shape and blocks[name].grew is None
        assert blocks[name].dtype == feed.spec.blocks[name].dtype
    assert blocks["numbers"].bytes == 4 and blocks["city"].bytes == 12
    assert blocks["text"].grew == 1 + 7 + 50 and blocks["text"].shape == (1 + 7 + 100,) and blocks["text"].sparse
    assert found.nbytes == pytest.approx(feed.nbytes, rel=0.02)
    assert "at least 2 classes: half of these rows had 1" in found.estimated
    assert any("wider for all rows" in line and line.endswith(": text") for line in found.estimated)


def test_only_a_sample_is_read(tmp_path):
    for n in range(3):
        frame()[n * 1000 : (n + 1) * 1000].to_parquet(tmp_path / f"{n}.parquet")
    source = h3.read(str(tmp_path / "*.parquet"))
    assert source.size() == "3,000 rows"
    (tmp_path / "2.parquet").unlink()  # a part that nobody reads may be gone
    found = PIPELINE.plan(source, sample=500)
    assert found.rows == 3000 and found.sampled == 500


class Silent(CutSource):
    """Tells the rows of a part only by reading it."""

    def parts(self):
        return [replace(part, rows=None) for part in super().parts()]


def test_a_source_that_does_not_tell_its_rows():
    found = PIPELINE.plan(Silent(frame()), sample=1000)
    assert found.rows is found.nbytes is None and found.bytes_a_row > 0
    assert any("len(source) counts them" in line for line in found.estimated) and "a row" in repr(found)


def test_a_fitted_pipeline_knows_its_columns():
    fitted = prepare(PIPELINE, frame()).pipeline
    found = fitted.plan(frame(), sample=100)
    assert found.spec == fitted.spec and found.estimated == ["estimated from the first 100 rows: bytes a row"]


def test_rows_that_will_be_left_out_do_not_count():
    rows = frame()
    rows["y"] = rows["y"].astype(float).where(rows.index % 2 == 0)
    with pytest.raises(DataError, match="label"):
        PIPELINE.plan(rows)
    pipeline = PIPELINE.replace(task="classification")
    found = pipeline.plan(rows, on_null_label="drop")
    assert found.nbytes == pytest.approx(prepare(pipeline, rows, on_null_label="drop").nbytes, rel=0.001)


def test_several_sources_are_joined_for_it():
    cities = pd.DataFrame({"city": ["a", "b", "c"], "size": [1.0, None, 3.0]})
    pipeline = h3.Pipeline(
        h3.Preprocessor("numbers", ["price"], StandardScaler()),
        h3.Preprocessor("size", ["size"], SimpleImputer(), source="cities"),
        label="y",
    )
    sources, keys = {"rows": frame(), "cities": cities}, {"cities": "city"}
    found = pipeline.plan(sources, keys=keys, sample=200)
    assert found.rows == ROWS and found.nbytes == prepare(pipeline, sources, keys=keys).nbytes


def test_errors_are_those_of_prepare():
    with pytest.raises(UnknownName, match="Did you mean 'price'"):
        h3.Pipeline(h3.Preprocessor("numbers", ["prize"], StandardScaler())).plan(frame())


def test_it_shows_itself():
    found = PIPELINE.plan(frame(), sample=1000)
    bundle = found._repr_mimebundle_()
    assert bundle["text/plain"] == repr(found) and "<script" not in bundle["text/html"]
    assert repr(found).startswith("Outlook: 3,000 rows, about ") and "58 columns in half of the sample" in repr(found)


# ---- From a schema


def schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema(columns) if columns else h3.read(frame(2)).schema


def test_a_schema_tells_what_rows_do_not_decide():
    found = PIPELINE.plan(schema())
    blocks = {block.name: block for block in found.blocks}
    assert (blocks["numbers"].shape, blocks["numbers"].dtype, blocks["numbers"].bytes) == ((1,), "float32", 4)
    assert blocks["city"].shape is blocks["text"].shape is found.spec is found.nbytes is None
    assert "unknown until fitted: city, text" in found.estimated
    assert "unknown until fitted: the classes of 'y'" in found.estimated
    assert repr(found).startswith("Outlook: classification, features unknown until fitted · from the types")
    assert (
        "its columns depend on the rows" in repr(found)
        and "its columns depend" in found._repr_mimebundle_()["text/html"]
    )


TYPED = h3.Pipeline(
    h3.Preprocessor("numbers", ["price", "stars"], SimpleImputer(), StandardScaler()),
    h3.Preprocessor("flags", ["new", "day"]),
    h3.Preprocessor("words", "text", HashingVectorizer(n_features=32)),
    h3.Preprocessor("topics", "text", TfidfVectorizer(), TruncatedSVD(5, random_state=0)),
    h3.Preprocessor("best", ["price", "stars"], SelectKBest(k=1)),
    label="y",
)


def rows_of_types(count: int) -> pd.DataFrame:
    at = np.arange(count)
    text = [f"some {n % 11} words {n % 5} and {n % 3} more" for n in at]
    days = at.astype("int8")
    return pd.DataFrame(
        {"price": at * 0.5, "stars": at % 6, "new": at % 2 == 0, "day": days, "text": text, "y": at % 7 / 2}
    )


@pytest.mark.parametrize("join", ["concat", "blocks"])
def test_the_spec_of_a_schema_is_that_of_rows(join):
    pipeline = TYPED.replace(join=join, dtype="float32")
    rows = rows_of_types(60)
    found, feed = pipeline.plan(h3.read(rows).schema), prepare(pipeline, rows)
    assert found.spec == feed.spec and not found.estimated
    assert found.spec == pipeline.plan(rows[:0]).spec, "and that of a table without rows"
    fitted = feed.pipeline.plan(h3.read(rows).schema)
    assert fitted.spec == feed.spec and not fitted.estimated


def test_a_schema_of_each_source():
    pipeline = h3.Pipeline(
        h3.Preprocessor("numbers", ["price"], StandardScaler()),
        h3.Preprocessor("size", ["size"], SimpleImputer(), source="cities"),
    )
    schemas = {"rows": schema(), "cities": schema(city=pa.string(), size=pa.float64())}
    assert [block.shape for block in pipeline.plan(schemas).blocks] == [(1,), (1,)]
    with pytest.raises(UsageError, match="schemas and other sources"):
        pipeline.plan({"rows": schema(), "cities": pd.DataFrame({"city": ["a"]})})


def test_a_schema_is_checked_as_rows_are():
    with pytest.raises(UnknownName, match="Did you mean 'price'"):
        h3.Pipeline(h3.Preprocessor("numbers", ["prize"], StandardScaler())).plan(schema())
    with pytest.raises(DataError, match="StandardScaler"):
        h3.Pipeline(h3.Preprocessor("numbers", ["city"], StandardScaler())).plan(schema())


def test_what_made_up_rows_do_not_suit_is_unknown():
    words = {"red": 0, "green": 1}
    strict = h3.Preprocessor("codes", ["city"], FunctionTransformer(lambda table: table.map(words.__getitem__)))
    few = h3.Preprocessor("projected", ["price"], PCA(900))
    odd = h3.Preprocessor("odd", ["at"])
    pipeline = h3.Pipeline(strict, few, odd)
    found = pipeline.plan(schema(city=pa.string(), price=pa.float64(), at=pa.list_(pa.float64())))
    assert [block.shape for block in found.blocks] == [None] * 3
    assert found.blocks[0].why == found.blocks[1].why == "rows that were made up do not suit it"
    assert found.estimated == ["unknown until fitted: codes, projected, odd"] and found.spec is None


@pytest.mark.parametrize(
    "type_",
    [
        *(pa.float16(), pa.float64(), pa.int8(), pa.uint8(), pa.int64(), pa.bool_(), pa.decimal128(7, 2)),
        *(pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())),
        *(pa.date32(), pa.date64(), pa.timestamp("ns"), pa.timestamp("us", "UTC"), pa.duration("s"), pa.time32("s")),
        *(pa.list_(pa.float32(), 4), pa.fixed_shape_tensor(pa.uint8(), (2, 3))),
    ],
    ids=str,
)
def test_rows_of_every_type_are_made_up(type_):
    column = _made_up(type_, 150)
    assert column.type == type_ and len(column) == 150 and column.null_count == 0


def test_an_unfitted_pipeline_says_who_knows_its_spec():
    with pytest.raises(NotFittedError, match=r"from a sample or a schema: pipeline\.plan\(source\)\.spec"):
        _ = PIPELINE.spec
