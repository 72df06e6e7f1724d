"""A feed's report says what each worker did, in memory, stored and opened later."""

import numpy as np
import pandas as pd
import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, QuantileTransformer, StandardScaler

import h3lab as h3
from h3lab.feeds.feed import Feed, open_feed
from h3lab.feeds.report import size
from h3lab.preparing.prepare import prepare

ROWS = 300


def frame(rows: int = ROWS, shift: int = 0) -> pd.DataFrame:
    at = np.arange(shift, shift + rows)
    price = np.where(at % 5 == 0, np.nan, at * 1.5)
    return pd.DataFrame({"price": price, "stars": at % 7, "city": np.array(["a", "b", "c"])[at % 3], "y": at % 2 * 1.0})


PIPELINE = h3.Pipeline(
    h3.Preprocessor("numbers", ["price", "stars"], SimpleImputer(), StandardScaler()),
    h3.Preprocessor("ranks", ["stars"], QuantileTransformer(n_quantiles=10)),
    h3.Preprocessor("logs", ["stars"], FunctionTransformer(np.log1p)),
    h3.Preprocessor("city", ["city"], OneHotEncoder()),
    h3.Preprocessor("raw", ["stars"]),
    label="y",
    task="regression",
    dtype="float32",
)


@pytest.mark.parametrize("stored", [False, True])
def test_it_says_what_each_worker_did(stored, tmp_path):
    feed = prepare(PIPELINE, frame(), to=tmp_path if stored else None)
    for one in [feed, open_feed(tmp_path)] if stored else [feed]:
        report = one.report()
        assert (report.rows, report.nbytes, report.parts, report.dropped) == (ROWS, one.nbytes, 1, 0)
        assert report.passes == 2 and report.fit_seconds > 0 and report.write_seconds > 0
        table = report.frame()
        assert table["block"].tolist() == ["numbers", "numbers", "ranks", "logs", "city", "raw"]
        ways = [way.partition(":")[0] for way in table["fitted"]]
        assert ways == ["merged", "merged", "whole column", "nothing to learn", "merged", ""]
        learned = table["worker"].isin(["SimpleImputer", "StandardScaler", "QuantileTransformer", "OneHotEncoder"])
        assert (table["fit_seconds"] > 0).tolist() == learned.tolist()
        nulls = table["nulls"].tolist()
        assert nulls[0] == ROWS // 5 and nulls[2] == 0 and np.isnan(nulls[1])
        weights = dict(zip(table["block"], table["bytes"], strict=True))  # the last line of a block
        assert weights["numbers"] == ROWS * 2 * 4 and weights["ranks"] == ROWS * 4
        assert weights["city"] == ROWS * (4 + 4) + (ROWS + 1) * 4  # sparse: a value and an index a row, and the bounds


def test_rows_left_out_are_counted(tmp_path):
    rows = frame()
    rows.loc[:9, "y"] = None
    for feed in (
        prepare(PIPELINE, rows, on_null_label="drop"),
        prepare(PIPELINE, rows, on_null_label="drop", to=tmp_path),
    ):
        assert feed.report().dropped == feed.dropped == 10
        assert "left out: 10 rows without a label" in repr(feed.report())


def test_a_fitted_pipeline_is_applied(tmp_path):
    fitted = prepare(PIPELINE, frame()).pipeline
    report = prepare(fitted, frame(50)).report()
    assert report.passes == 0 and "applied, not fitted" in repr(report)
    assert report.frame()["nulls"].iloc[0] == 10
    assert report.frame()["fit_seconds"].isna().all() and set(report.frame()["fitted"]) >= {"other rows, before"}
    scaler = StandardScaler().fit(frame()[["stars"]])
    frozen = h3.Pipeline(h3.Preprocessor("stars", ["stars"], FrozenEstimator(scaler)), label="y")
    assert prepare(frozen, frame()).report().frame()["fitted"].tolist() == ["came fitted"]


def test_what_was_used_again_is_told_from_what_was_computed(tmp_path):
    files = [tmp_path / f"{n}.parquet" for n in range(3)]
    for n, path in enumerate(files):
        frame(ROWS, n * ROWS).to_parquet(path)
    fitted = prepare(PIPELINE, [str(path) for path in files]).pipeline
    first = prepare(fitted, [str(path) for path in files[:2]], to=tmp_path / "feed").report()
    assert (first.parts, first.reused) == (2, 0)
    grown = prepare(fitted, [str(path) for path in files], to=tmp_path / "feed").report()
    assert (grown.parts, grown.reused) == (3, 2) and "3 parts, 2 of them reused" in repr(grown)
    nulls, weight = grown.frame()["nulls"].iloc[0], dict(zip(grown.frame()["block"], grown.frame()["bytes"]))
    assert nulls == 3 * ROWS // 5 and weight["ranks"] == 3 * ROWS * 4, "counts of reused parts are those of their rows"
    again = prepare(fitted, [str(path) for path in files], to=tmp_path / "feed").report()
    assert "nothing had changed since" in repr(again)
    assert "nothing had changed" not in repr(open_feed(tmp_path / "feed").report())


def test_what_was_fitted_again_though_its_rows_were_there_is_told(tmp_path):
    frame().to_parquet(tmp_path / "a.parquet")
    first = prepare(PIPELINE, tmp_path / "*.parquet", to=tmp_path / "feed")
    assert "again" not in repr(first.report())
    frame(60, ROWS).to_parquet(tmp_path / "b.parquet")
    report = repr(prepare(PIPELINE, tmp_path / "*.parquet", to=tmp_path / "feed").report())
    assert "used again as stored: " in report and "logs (1 of 2 parts)" in report and "city (1 of 2 parts)" in report
    assert "numbers was computed again: 1 of 2 parts are new or changed; it has learned other numbers" in report
    assert "fitted again on all rows, because no part can be fitted for itself: QuantileTransformer of ranks" in report
    again = prepare(PIPELINE, tmp_path / "*.parquet", to=tmp_path / "feed").report()
    assert "nothing had changed since" in repr(again) and "computed again" not in repr(again)


def test_what_was_looked_up_is_counted():
    rows = pd.DataFrame({"city": ["a", "b", "z", None], "y": [0.0, 1.0, 0.0, 1.0]})
    cities = pd.DataFrame({"city": ["a", "a", "b", "c"], "size": [1.0, 2.0, 3.0, 4.0]})
    pipeline = h3.Pipeline(h3.Preprocessor("size", ["size"], SimpleImputer(), source="cities"), label="y")
    options = {"keys": {"cities": "city"}, "on_duplicate": "first"}
    for on_missing, verb in (("fill", "filled"), ("drop", "left out")):
        feed = prepare(pipeline, {"rows": rows, "cities": cities}, on_missing=on_missing, **options)
        report = feed.report()
        counts = report.lookups["cities"]
        assert (counts["rows"], counts["duplicates"], counts["surplus"]) == (4, 1, 1)
        assert counts["missing"] == 2 and f"2 rows whose key was not found ({verb})" in repr(report)
        assert report.unmatched == (2 if on_missing == "drop" else 0) and len(feed) == 4 - report.unmatched


def test_it_shows_itself():
    report = prepare(PIPELINE, frame()).report()
    bundle = report._repr_mimebundle_()
    assert bundle["text/plain"] == repr(report) and repr(report).startswith("Report: 300 rows, ")
    assert "<script" not in bundle["text/html"] and bundle["text/html"].count("<tr>") == 1 + len(report.workers)
    lines = repr(report).splitlines()
    assert lines[1].split() == ["block", "worker", "fitted", "on", "fit", "s", "nulls", "write", "s", "bytes"]


def test_a_feed_of_arrays_and_a_view_have_one_too():
    assert "no pipeline has prepared them" in repr(Feed.of(np.zeros((3, 1))).report())
    feed = prepare(PIPELINE, frame())
    assert feed.select([1, 2]).report() == feed.report()
    assert [size(n) for n in (12, 1234, 5.6e6, 7.8e12)] == ["12 bytes", "1.2 kB", "5.6 MB", "7,800.0 GB"]
