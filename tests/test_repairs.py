"""Damage and what its error advises: whoever does that has a good feed afterwards, on every store."""

import re
import shutil
import uuid

import fsspec
import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import MinMaxScaler, StandardScaler

import h3lab as h3
from h3lab import home
from h3lab.errors import DamagedData, StorageError
from h3lab.feeds.feed import Feed
from h3lab.preparing.prepare import prepare
from h3lab.stores import open_store
from h3lab.stores.states import FORMAT

pytestmark = pytest.mark.service


@pytest.fixture(params=["folder", "memory"])
def near(request, tmp_path):
    """A store of each kind that takes no time: what is the same on a server is tried here."""
    return str(tmp_path / "feed") if request.param == "folder" else f"memory://feeds/{uuid.uuid4().hex[:8]}"


@pytest.fixture(params=["folder", "memory", "hdfs", "s3"])
def url(request, tmp_path):
    if request.param == "folder":
        return str(tmp_path / "feed")
    base = "memory://feeds" if request.param == "memory" else request.getfixturevalue(request.param)
    return f"{base}/{uuid.uuid4().hex[:8]}"


@pytest.fixture
def source(tmp_path):
    """Two files, so two parts, which say when they have changed."""
    n = np.arange(60)
    table = pd.DataFrame({"a": np.sin(n), "b": n % 7, "kind": (n % 3).astype(str)})
    for number in range(2):
        table[number * 30 : (number + 1) * 30].to_parquet(tmp_path / f"{number}.parquet")
    return h3.read(str(tmp_path / "*.parquet"))


def pipeline(second=None) -> h3.Pipeline:
    blocks = (h3.Preprocessor("a", ["a"], StandardScaler()), h3.Preprocessor("b", ["b"], second or StandardScaler()))
    return h3.Pipeline(*blocks, label="kind")


class Stored:
    """The files of a feed, to do harm to them."""

    def __init__(self, url: str) -> None:
        self.system, self.path = fsspec.core.url_to_fs(url)

    def names(self, beginning: str, folder: str = "") -> list[str]:
        self.system.invalidate_cache()
        found = self.system.ls("/".join(filter(None, [self.path, folder])), detail=False)
        return sorted(name for name in found if name.rpartition("/")[2].startswith(beginning))

    def harm(self, how: str, name: str) -> None:
        data = self.system.cat_file(name)
        if how == "remove":
            self.system.rm_file(name)
        elif how == "cut":
            self.system.pipe_file(name, data[: len(data) // 2])
        else:
            at = min(len(data) // 2, 60)  # in the first rows, not in what Parquet tells of them beside
            self.system.pipe_file(name, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def read(url: str) -> np.ndarray:
    """All rows, from where they are stored."""
    shutil.rmtree(home.room("cache"), ignore_errors=True)
    return h3.open_feed(url).arrays()[0]


@pytest.mark.parametrize(("how", "what"), [("flip", "part"), ("remove", "pipeline"), ("cut", "manifest")])
def test_who_prepares_again_has_a_good_feed(how, what, url, source):
    repaired(how, what, url, source)


@pytest.mark.parametrize(
    ("how", "what"), [("remove", "part"), ("cut", "part"), ("cut", "pipeline"), ("flip", "pipeline")]
)
def test_all_harm_is_repaired(how, what, near, source):
    repaired(how, what, near, source)


def repaired(how, what, url, source):
    expected = prepare(pipeline(), source, to=url).arrays()[0]
    stored = Stored(url)
    name = stored.names("00001", "parts")[0] if what == "part" else stored.names(what)[0]
    stored.harm(how, name)
    with pytest.raises(DamagedData, match="(?i)prepare (the feed )?again") as caught:
        read(url)
    assert name.rpartition("/")[2] in str(caught.value)
    again = prepare(pipeline(), source, to=url)
    assert np.array_equal(again.arrays()[0], expected) and np.array_equal(read(url), expected)
    counts = again.manifest["counts"]
    assert counts["reused"] == (1 if what == "part" else 2), f"{counts['reused']} of 2 parts were reused"
    # Nothing is left of it: the next one finds that nothing has changed.
    assert prepare(pipeline(), source, to=url).manifest["number"] == again.manifest["number"]


@pytest.mark.parametrize("how", ["remove", "cut", "flip"])
def test_a_block_of_a_damaged_part_is_not_reused(how, near, source):
    """A changed worker takes the other block out of the stored rows; nobody has read them since they were damaged."""
    url = near
    prepare(pipeline(), source, to=url)
    stored = Stored(url)
    for name in stored.names("00001", "parts"):
        stored.harm(how, name)
    shutil.rmtree(home.room("cache"), ignore_errors=True)
    again = prepare(pipeline(MinMaxScaler()), source, to=url)
    assert again.manifest["counts"]["reused_blocks"] == {"a": 1}
    assert np.array_equal(read(url), prepare(pipeline(MinMaxScaler()), source).arrays()[0])


def test_an_older_layout_is_prepared_anew_and_a_newer_one_left_alone(near, source):
    url = near
    prepare(pipeline(), source, to=url)
    stored = Stored(url)
    (name,) = stored.names("manifest")
    data = stored.system.cat_file(name)
    for layout, kind, words in ((FORMAT + 1, StorageError, "Update h3lab"), (FORMAT - 1, DamagedData, "Prepare")):
        stored.system.pipe_file(name, re.sub(rb'"format": \d+', b'"format": %d' % layout, data))
        with pytest.raises(kind, match=words):
            h3.open_feed(url)
        if layout > FORMAT:
            with pytest.raises(kind, match=words):
                prepare(pipeline(), source, to=url)
    assert prepare(pipeline(), source, to=url).manifest["number"] == 2 and len(read(url)) == 60


@pytest.mark.parametrize("how", ["remove", "cut", "flip"])
def test_a_damaged_cache_is_fetched_again(how, source):
    url = f"memory://feeds/{uuid.uuid4().hex[:8]}"
    expected = prepare(pipeline(), source, to=url).arrays()[0]
    for path in list(home.room("cache").rglob("parts/part.x*")):
        Stored(str(path.parent)).harm(how, str(path))
    assert np.array_equal(h3.open_feed(url).arrays()[0], expected)


def test_a_reader_goes_on_or_is_told_that_its_state_is_gone(url, source):
    """Locally it goes on to its end; far away only what it has fetched is there."""
    prepare(pipeline(), source, to=url)
    feed = h3.open_feed(url)
    feed.batch([0])
    for number in range(3):
        Feed.of(np.full((9, 2), number), np.arange(9) % 2).store(url)
    shutil.rmtree(home.room("cache"))
    if "://" not in url:
        assert len(feed.batch([59])) == 1
        return
    with pytest.raises(StorageError, match=r"state 1 of the feed in .* is gone; it was prepared again since"):
        feed.batch([59])


def test_a_state_that_nobody_reads_any_more_is_removed(tmp_path, source):
    url = str(tmp_path / "feed")
    feed = prepare(pipeline(), source, to=url)
    for scale in (3.0, 4.0, 5.0):
        prepare(pipeline(MinMaxScaler((0, scale))), source, to=url)
    names = [name.rpartition("/")[2] for name in Stored(url).names("manifest")]
    assert names == ["manifest-000001.json", "manifest-000003.json", "manifest-000004.json"]
    assert len(feed.select(slice(0, 40)).arrays()[0]) == 40
    del feed
    assert open_store(url).collect_garbage() > 0
    assert [name.rpartition("/")[2] for name in Stored(url).names("manifest")] == names[1:]
