"""A feed is the same rows in memory, stored, pickled and in views."""

import doctest
import json
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import h3lab.feeds.feed
from h3lab.errors import DamagedData, DataError, StorageError, UsageError
from h3lab.feeds.feed import Feed, open_feed
from h3lab.feeds.rows import Rows
from h3lab.serial import signed
from h3lab.source import row_keys

X = np.arange(60.0).reshape(20, 3)
Y = np.array(["no", "yes", "maybe", "no"] * 5)
THIN = sparse.csr_matrix(np.where(X % 4 == 0, X, 0))


def feeds() -> dict[str, Feed]:
    return {
        "dense": Feed.of(X, Y, weight=np.arange(20.0)),
        "sparse": Feed.of(THIN, Y),
        "blocks": Feed.of({"numbers": X, "words and more": THIN}, X[:, 0]),
        "images": Feed.of(np.zeros((20, 4, 4, 1), np.uint8), np.ones((20, 2))),
        "unlabelled": Feed.of(X),
    }


@pytest.fixture(params=feeds())
def feed(request):
    return feeds()[request.param]


def dense(x):
    if isinstance(x, dict):
        return {name: dense(block) for name, block in x.items()}
    return x.toarray().tolist() if sparse.issparse(x) else x.tolist()


def same(one: Feed, two: Feed) -> bool:
    (x, y), (u, v) = one.arrays(), two.arrays()
    a, b = one.batch(slice(None)), two.batch(slice(None))
    return (
        dense(x) == dense(u)
        and (y is None) == (v is None)
        and (y is None or np.array_equal(y, v))
        and np.array_equal(a.keys, b.keys)
        and (a.weight is None or np.array_equal(a.weight, b.weight))
    )


def test_the_examples_run():
    assert doctest.testmod(h3lab.feeds.feed).failed == 0


def test_stored_and_opened_it_is_the_same(feed, tmp_path):
    stored = feed.store(tmp_path / "feed")
    for again in (
        stored,
        open_feed(tmp_path / "feed"),
        open_feed(str(tmp_path / "feed")),
        open_feed(f"file://{tmp_path}/feed"),
    ):
        assert same(feed, again) and again.spec == feed.spec and again.fingerprint == feed.fingerprint
        assert again.url == str(tmp_path / "feed") and again.manifest["rows"] == 20 and again.pipeline is None
    assert stored.nbytes == feed.nbytes
    assert sparse.issparse(stored.arrays()[0]) == sparse.issparse(feed.arrays()[0])


def test_relative_paths_start_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    feed = feeds()["dense"].store("prepared/rows")
    monkeypatch.chdir("/")
    assert same(feed, open_feed(tmp_path / "prepared" / "rows"))
    assert feed.url == str(tmp_path / "prepared" / "rows")


def test_it_travels(feed, tmp_path):
    stored = feed.store(tmp_path)
    for one in (feed, stored, feed.select([3, 1]), stored.select([3, 1]).select([1])):
        there = signed.loads(signed.dumps(one))
        assert same(one, there) and there.fingerprint == one.fingerprint and there.url == one.url
        assert (there.parent is None) == (one.parent is None)


def test_a_stored_feed_travels_without_its_rows(tmp_path):
    stored = Feed.of(np.zeros((50_000, 4)), np.zeros(50_000)).store(tmp_path)
    assert len(signed.dumps(stored)) < 2_000
    assert len(signed.dumps(stored.split(0.2)[1])) < 8 * 11_000 + 2_000


def test_a_travelling_feed_keeps_its_state_when_it_is_stored_again(tmp_path):
    old = feeds()["dense"].store(tmp_path)
    sent = signed.dumps(old)
    feeds()["sparse"].store(tmp_path)
    assert same(signed.loads(sent), feeds()["dense"]) and same(open_feed(tmp_path), feeds()["sparse"])
    feeds()["images"].store(tmp_path)
    assert same(signed.loads(sent), feeds()["dense"])  # who has sent it holds it
    del old
    feeds()["images"].store(tmp_path)  # now it is garbage
    with pytest.raises(StorageError, match="prepared again"):
        signed.loads(sent)


def test_batches_by_any_index(feed, tmp_path):
    for one in (feed, feed.store(tmp_path)):
        mask = np.arange(20) % 3 == 0
        for index in (slice(2, 5), slice(None, None, -3), [4, 4, -1], np.array([0]), mask, []):
            batch = one.batch(index)
            expected = np.arange(20)[index if isinstance(index, slice) or len(index) else np.array([], int)]
            assert len(batch) == len(expected)
            assert batch.keys.tolist() == feed.batch(slice(None)).keys[expected].tolist()
        with pytest.raises(IndexError, match="row 20"):
            one.batch([20])


def test_views_select_and_split():
    feed = feeds()["dense"]
    view = feed.select(slice(10, None)).select([0, 3]).select(np.array([False, True]))
    assert len(view) == 1 and view.arrays()[0].tolist() == X[[13]].tolist()
    assert view.batch(slice(0, 1)).y.tolist() == feed.batch([13]).y.tolist() and view.targets().tolist() == [2]
    assert view.parent.parent.parent is feed and view.spec is feed.spec and feed.parent is None
    rest, held_out = feed.split(0.4, seed=2)
    assert len(rest) + len(held_out) == 20
    assert sorted(rest.arrays()[0][:, 0].tolist() + held_out.arrays()[0][:, 0].tolist()) == X[:, 0].tolist()
    with pytest.raises(IndexError):
        view.batch([1])
    with pytest.raises(IndexError):
        view.select([-2])


def test_an_empty_side_of_a_split_is_an_error():
    with pytest.raises(DataError, match="holds out nothing of 2 rows"):
        Feed.of(X[:2], Y[:2]).split(0.0001)
    with pytest.raises(DataError, match="everything"):
        Feed.of(X[:2], Y[:2]).split(0.9999)


@settings(deadline=None, max_examples=50)
@given(st.integers(20, 200), st.integers(1, 100), st.integers(0, 2**62), st.floats(0.2, 0.8))
def test_a_row_keeps_its_side_when_rows_are_added(count, more, seed, fraction):
    def sides(rows: int) -> dict[int, int]:
        feed = Feed.of(np.zeros((rows, 1)), np.arange(rows).astype(float))
        return {int(y): side for side, view in enumerate(feed.split(fraction, seed)) for y in view.targets()}

    try:
        before, after = sides(count), sides(count + more)
    except DataError:
        return  # so few rows that a side is empty
    assert before == {row: after[row] for row in range(count)}


def test_a_split_draws_by_key_not_by_place():
    keys = row_keys("rows.csv", 0, 20)
    order = np.random.default_rng(0).permutation(20)
    one, two = Feed.of(X, Y, keys=keys), Feed.of(X[order], Y[order], keys=keys[order])
    assert {*one.split(0.3)[1].batch(slice(None)).keys.tolist()} == {
        *two.split(0.3)[1].batch(slice(None)).keys.tolist()
    }


def test_fingerprints_follow_the_content(tmp_path):
    base = Feed.of(X, Y)
    assert Feed.of(X.copy(), Y.tolist()).fingerprint == base.fingerprint and len(base.fingerprint) == 32
    others = [
        Feed.of(X + 1, Y),
        Feed.of(X.astype(np.float32), Y),
        Feed.of(X[::-1], Y[::-1]),
        Feed.of(X, Y[::-1]),
        Feed.of(X, Y, weight=np.ones(20)),
        Feed.of(X, Y, labels=["no", "yes", "maybe", "never"]),
        Feed.of(X, Y, keys=np.arange(20)),
        Feed.of({"x": X}, Y),
        Feed.of(THIN, Y),
        base.select(slice(1, None)),
        base.select(slice(None)),
    ]
    assert len({feed.fingerprint for feed in [base, *others]}) == len(others) + 1
    view = base.select([1, 2]).store(tmp_path)
    assert view.fingerprint == base.select([1, 2]).fingerprint == base.select([0, 1, 2]).select([1, 2]).fingerprint


def test_parts_of_a_preparation_make_a_feed(tmp_path):
    """As preparing does it: batches of parts, one without rows, a spec from elsewhere."""
    whole = feeds()["sparse"]
    batches = [whole.batch(slice(a, b)) for a, b in ((0, 7), (7, 7), (7, 20))]
    feed = Feed(Rows.of(batches), whole.spec)
    assert same(feed, whole) and same(feed.store(tmp_path), whole)
    assert [part["rows"] for part in open_feed(tmp_path).manifest["parts"]] == [7, 0, 13]
    assert open_feed(tmp_path).fingerprint == feed.fingerprint


def test_frame_shows_the_first_rows(tmp_path):
    frame = feeds()["blocks"].frame(2)
    assert list(frame.columns) == ["numbers0", "numbers1", "numbers2", *(f"words and more{i}" for i in range(3)), "y"]
    assert frame.index.name == "key" and len(set(frame.index)) == 2
    assert frame.to_numpy().tolist() == np.hstack([X, THIN.toarray(), X[:, :1]])[:2].tolist()
    assert feeds()["dense"].frame(1)["y"].tolist() == ["no"]
    assert feeds()["images"].frame(1).shape == (1, 16 + 2)
    assert len(feeds()["dense"].frame()) == 5 and isinstance(feeds()["unlabelled"].frame(), pd.DataFrame)


def test_no_rows_have_all_columns(feed):
    few, none = feed.frame(1), feed.frame(0)
    assert list(none.columns) == list(few.columns) and len(none) == 0 and none.index.name == "key"
    assert feed.select([]).arrow().schema == feed.arrow().schema


def test_arrow_holds_all_rows(feed):
    table = feed.arrow()
    assert table.num_rows == 20 and table.column("key").to_pylist() == feed.batch(slice(None)).keys.tolist()
    if feed.spec.task == "classification":
        assert table.column("y").to_pylist() == Y.tolist()


def test_arrow_of_sparse_rows():
    row = feeds()["sparse"].arrow().column("x")[4].as_py()
    assert row == [{"column": i, "value": v} for i, v in enumerate(THIN.toarray()[4]) if v]


def test_torch_reads_it_in_batches(feed):
    torch = pytest.importorskip("torch")
    if feed.spec.features == 16:
        feed = Feed.of(np.zeros((20, 4, 4, 1), np.uint8), np.ones((20, 2)))
    loader = torch.utils.data.DataLoader(feed.torch(), batch_size=8)
    batches = list(loader)
    assert len(feed.torch()) == 20 and len(batches) == 3
    first = batches[0] if feed.targets() is None else batches[0][0]
    expected = dense(feed.batch(slice(0, 8)).x)
    assert ({n: b.tolist() for n, b in first.items()} if isinstance(first, dict) else first.tolist()) == expected
    if feed.targets() is not None:
        assert torch.cat([y for _, y in batches]).tolist() == feed.targets().tolist()


def test_it_shows_itself(feed, tmp_path):
    for one in (feed, feed.store(tmp_path)):
        bundle = one._repr_mimebundle_()
        assert bundle["text/plain"] == repr(one) == f"Feed: {one}"
        assert "20 rows" in repr(one) and "<script" not in bundle["text/html"]
        assert ("in memory" in bundle["text/html"]) == (one.url is None)
    images = Feed.of(np.zeros((1437, 8, 8), np.float32), np.arange(1437) % 10)
    assert str(images) == "1,437 rows · classification, 10 classes · 64 features · x (8×8) float32"
    assert str(feeds()["sparse"]).endswith("x (3) float64 sparse")


def test_a_damaged_feed_still_shows_itself(tmp_path):
    stored = Feed.of(X, Y).store(tmp_path)
    for path in (tmp_path / "parts").glob("*.y.*"):
        path.write_bytes(b"x" * path.stat().st_size)
    assert "DamagedData" in stored._repr_mimebundle_()["text/html"] and "20 rows" in repr(stored)
    with pytest.raises(DamagedData, match="00000.y"):
        stored.targets()


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"rank": 1}, {"rank": -1}, {"ranks": 0}, {"start": -1}])
def test_wrong_epochs_are_refused_at_once(options):
    with pytest.raises(UsageError, match="came"):
        Feed.of(X, Y).epoch(0, **options)


def test_opening_what_is_not_there(tmp_path):
    with pytest.raises(StorageError, match=r"no feed is stored in .*nowhere"):
        open_feed(tmp_path / "nowhere")
    with pytest.raises(StorageError, match=r"no feed is stored in memory://nowhere"):
        open_feed("memory://nowhere")


def test_another_process_reads_it(tmp_path):
    """Without scikit-learn, pandas or Arrow: a rank reads rows before any of them is needed."""
    feeds()["dense"].store(tmp_path)
    code = (
        "import sys, json; from h3lab.feeds.feed import open_feed; feed = open_feed(sys.argv[1]);"
        "batch = next(feed.epoch(0, batch_size=4, seed=1));"
        "print(json.dumps([batch.x.tolist(), [m for m in ('sklearn', 'pandas', 'pyarrow') if m in sys.modules]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    x, heavy = json.loads(done.stdout)
    assert x == next(feeds()["dense"].epoch(0, batch_size=4, seed=1)).x.tolist() and heavy == []


def test_a_feed_of_a_source_s_split_can_be_split_with_the_same_seed():
    import h3lab as h3
    from h3lab.feeds.feed import Feed

    rng = np.random.default_rng(0)
    train, _ = h3.read((rng.normal(size=(500, 3)), rng.integers(0, 2, 500))).split(test=0.2, seed=0)
    keys = np.concatenate([train.keys(part, train.read(part)) for part in train.parts()])
    feed = Feed.of(rng.normal(size=(len(keys), 3)), np.arange(len(keys)) % 2, keys=keys)
    rest, held_out = feed.split(0.1, seed=0)
    assert 0 < len(held_out) < 0.2 * len(feed) and len(rest) + len(held_out) == len(feed)


def bars(html: str) -> int:
    return html.count('class="h3-bar"')


def picture(*given, **options) -> str:
    return Feed.of(*given, **options)._repr_mimebundle_()["text/html"]


def test_its_picture_shows_the_most_frequent_classes_with_their_shares():
    labels = np.repeat([f"class {n:02d}" for n in range(40)], np.arange(40) + 1)
    html = picture(np.zeros((820, 1)), labels)
    order = [html.index(f"<td>class {n:02d}</td>") for n in range(39, 27, -1)]
    assert order == sorted(order) and "class 27" not in html and bars(html) == 12 + 1, "and a bar without length"
    shares = [re.search(rf"class {n:02d}.*?<small>(.*?)</small>", html)[1] for n in (39, 28)]
    assert shares == ["4.9 %", "3.5 %"] and re.search(r"28 others.*?>406<.*?<small>49.5 %<", html)
    few = picture(np.zeros((4000, 1)), [*range(2), *[1] * 3998], labels=[0, 1, 2])
    assert re.findall(r"<td>(\d)</td>.*?<small>(.*?)</small>", few) == [
        ("1", "100.0 %"),
        ("0", "< 0.1 %"),
        ("2", "0.0 %"),
    ]


def heights(html: str) -> list[float]:
    return [float(height) for height in re.findall(r"height:([\d.]+)em\"></span>", html)]


def test_its_picture_shows_targets_however_they_are_spread():
    random = np.random.default_rng(0)
    flat = picture(np.zeros((2000, 1)), random.random(2000) + 1)
    assert "logarithmic" not in flat and "beyond" not in flat and min(heights(flat)) > 1.5
    long = picture(np.zeros((2000, 1)), random.lognormal(3, 2, 2000))
    assert "logarithmic axis" in long and sum(height > 0.3 for height in heights(long)) > 12, "no flat line"
    ends = re.search(r'"h3-axis"><span>(.*?)</span><span>(.*?)</span>', long)
    assert 0 < float(ends[1]) < 1 and float(ends[2]) > 1000
    wild = picture(np.zeros((2000, 1)), np.append(random.normal(size=1999), 1e6))
    assert "rows beyond the axis" in wild and sum(height > 0.3 for height in heights(wild)) > 12
    same = picture(np.zeros((9, 1)), np.ones(9))
    assert "target: 1 to 1" in same and bars(same) == 0
    zeros = picture(np.zeros((2000, 1)), np.append(np.zeros(1999), 3.0))
    assert bars(zeros) == 30 and sum(height > 0 for height in heights(zeros)) == 2
    two = picture(np.zeros((50, 1)), np.column_stack([np.arange(50.0), np.arange(50.0) + 100]))
    assert bars(two) == 60 and "target0: 0 to 49" in two and "target1: 100 to 149" in two
    six = picture(np.zeros((50, 1)), random.random((50, 6)))
    assert bars(six) == 4 * 30 and "... 6 targets" in six


def test_its_picture_shows_what_was_computed_first_and_of_which_rows(tmp_path):
    import h3lab as h3
    from h3lab.preparing.prepare import prepare

    def write(n: int, more: float = 0.0) -> None:
        table = pd.DataFrame({"a": np.arange(20.0) + more, "y": ["b", "a"] * 10})
        table.to_parquet(tmp_path / f"rows-{n:02d}.parquet")

    for n in range(20):
        write(n)
    files = str(tmp_path / "*.parquet")
    fitted = prepare(h3.Pipeline(h3.Preprocessor("a", ["a"]), label="y"), files, to=tmp_path / "feed").pipeline
    write(15, more=1.0)
    feed = prepare(fitted, files, to=tmp_path / "feed")
    html = feed._repr_mimebundle_()["text/html"]
    shown = re.findall(r"<td>(rows-\d\d).parquet</td>.*?<td>(computed|used again)</td>", html)
    assert shown[:2] == [("rows-15", "computed"), ("rows-00", "used again")] and len(shown) == 12
    assert "... 20 parts, 19 of them used again" in html and "a view" not in html
    view = feed.split(0.3)[1]
    html = view._repr_mimebundle_()["text/html"]
    assert f"a view: {len(view):,} of 400 rows" in html and "of the whole feed, 400 rows" in html


def test_a_streams_picture_shows_the_labels_that_its_fit_has_counted():
    import h3lab as h3
    from h3lab.preparing.streaming import stream

    rows = pd.DataFrame({"a": np.arange(60.0), "y": ["no", "yes", "no"] * 20})
    feed = stream(h3.Pipeline(h3.Preprocessor("a", ["a"]), label="y"), rows)
    html = feed._repr_mimebundle_()["text/html"]
    assert re.search("<td>no</td>.*?>40<.*?66.7 %.*?<td>yes</td>.*?>20<", html)
    assert bars(feed.split(0.5)[0]._repr_mimebundle_()["text/html"]) == 0, "of a view they would have to be read"
    again = stream(feed.pipeline, rows)
    assert bars(again._repr_mimebundle_()["text/html"]) == 0, "nothing has counted them"


def test_its_picture_shows_blocks_labels_and_parts_with_versions(tmp_path):
    import h3lab as h3
    from h3lab.preparing.prepare import prepare

    rows = pd.DataFrame({"a": np.arange(40.0), "y": [None, *np.arange(39.0)]})
    for n in range(2):
        rows[n * 20 : n * 20 + 20].to_parquet(tmp_path / f"rows-{n}.parquet")
    source, pipeline = h3.read(str(tmp_path / "*.parquet")), h3.Pipeline(h3.Preprocessor("a", ["a"]), label="y")
    for to in (None, tmp_path / "feed"):
        feed = prepare(pipeline, source, to=to, on_null_label="drop")
        html = feed._repr_mimebundle_()["text/html"]
        assert "<td>a</td>" in html and bars(html) == 30 and "y: 0 to 38, median 19" in html
        for part in source.parts():
            assert f"rows-{part.index}.parquet" in html and part.version[:10] in html
        assert "<td>19</td><td>1</td>" in html, "rows and those left out, of the first part"
    assert "version" not in Feed.of(X, Y)._repr_mimebundle_()["text/html"]
