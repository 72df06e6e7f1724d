"""Feeds at URLs: on a real HDFS, on S3, in memory; readers see the old set or the new one, damage is named."""

import json
import os
import shutil
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import StandardScaler

import h3lab as h3
from h3lab import home
from h3lab.errors import DamagedData, StorageError
from h3lab.feeds.feed import Feed
from h3lab.preparing.prepare import prepare
from h3lab.serial import signed
from h3lab.stores import cache, open_store
from h3lab.stores.parquet import Parquet
from h3lab.testing import STORE_CHECKS

pytestmark = pytest.mark.service


@pytest.fixture(params=["memory", "hdfs", "s3"])
def url(request):
    base = "memory://feeds" if request.param == "memory" else request.getfixturevalue(request.param)
    return f"{base}/{uuid.uuid4().hex[:8]}"


def rows(count: int = 200) -> pd.DataFrame:
    n = np.arange(count)
    words = np.array(["red", "green", "blue", "grey"])
    return pd.DataFrame(
        {"price": np.sin(n), "stars": n % 5, "title": words[n % 4] + " " + words[n % 3], "kind": (n % 3).astype(str)}
    )


def pipeline() -> h3.Pipeline:
    return h3.Pipeline(
        h3.Preprocessor("numbers", ["price", "stars"], StandardScaler()),
        h3.Preprocessor("title", "title", TfidfVectorizer()),
        label="kind",
        join="blocks",
    )


@pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
def test_parquet_keeps_the_promises_of_a_store(check, url, tmp_path):
    check(lambda folder: Parquet(f"{url}/{folder.relative_to(tmp_path)}"), tmp_path / "x")


def test_a_feed_is_prepared_to_a_url_and_opened_elsewhere(url):
    here = prepare(pipeline(), rows())
    stored = prepare(pipeline(), rows(), to=url)
    for feed in (stored, h3.open_feed(url), signed.loads(signed.dumps(stored)), here.store(url + "/again")):
        (x, y), (a, b) = feed.arrays(), here.arrays()
        assert np.array_equal(x["numbers"], a["numbers"]) and (x["title"] != a["title"]).nnz == 0
        assert y.tolist() == b.tolist()
        assert feed.pipeline.fingerprint == here.pipeline.fingerprint
    again = [batch.keys.tolist() for batch in h3.open_feed(url).epoch(3, batch_size=64)]
    assert again == [batch.keys.tolist() for batch in here.epoch(3, batch_size=64)]


def test_others_read_the_files(url):
    feed = prepare(pipeline(), rows(), to=url)
    system, path = fsspec.core.url_to_fs(url)
    with system.open(f"{path}/parts/{feed.manifest['parts'][0]['file']}") as file:
        table = pq.read_table(file)
    assert table.num_rows == 200 and set(table.column_names) == {"x/numbers", "x/title", "y", "keys"}
    assert len(table["x/numbers"][0].as_py()) == 2 and set(table["x/title"][0].as_py()[0]) == {"column", "value"}


def test_what_has_not_changed_is_reused(url):
    prepare(pipeline(), rows(), to=url)
    shown = []
    feed = prepare(pipeline(), rows(), to=url, progress=lambda *what: shown.append(what[0]))
    assert shown == ["reused"] and feed.manifest["number"] == 1


def test_rows_lie_in_a_cache_that_all_processes_share(url):
    feed = prepare(pipeline(), rows(), to=url)
    entry = feed.manifest["parts"][0]
    feed.arrays()
    folder = home.room("cache") / entry["hash"]
    assert (folder / "manifest-000001.json").exists()
    system, path = fsspec.core.url_to_fs(url)
    with system.open(f"{path}/parts/{entry['file']}", "wb") as file:
        file.write(b"x" * entry["stored"])
    assert len(h3.open_feed(url).arrays()[1]) == 200  # nothing is fetched twice
    shutil.rmtree(folder)
    with pytest.raises(DamagedData, match=r"parts/00000.*is damaged"):
        h3.open_feed(url).arrays()


def test_the_cache_forgets_what_was_used_the_longest_ago(monkeypatch):
    monkeypatch.setenv("H3LAB_CACHE_BYTES", "20000")
    monkeypatch.setattr(cache.time, "time", lambda: 4e9)  # far later than the files
    url = f"memory://feeds/{uuid.uuid4().hex}"
    hashes = []
    for seed in range(3):
        x = np.random.default_rng(seed).normal(size=(100, 10))
        feed = Feed.of(x, np.arange(100) % 2).store(f"{url}/{seed}")
        feed.arrays()
        hashes.append(feed.manifest["parts"][0]["hash"])
    there = {path.name for path in home.room("cache").iterdir()}
    assert hashes[2] in there and hashes[0] not in there


def test_several_make_room_at_the_same_time(tmp_path, monkeypatch):
    monkeypatch.setenv("H3LAB_CACHE_BYTES", "100")
    begin = threading.Barrier(4)

    def make(_):
        begin.wait()
        cache.make_room(0, tmp_path)

    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            for part in range(40):
                (tmp_path / f"{part}" / "parts").mkdir(parents=True)
                for name in range(5):
                    (tmp_path / f"{part}" / "parts" / f"{name}").write_bytes(b"123456789")
                os.utime(tmp_path / f"{part}", (0, part))
            list(pool.map(make, range(4)))
            left = {path.name for path in tmp_path.iterdir()}
            assert left <= {"38", "39"}, "what was used last stays, and nothing half removed"
            shutil.rmtree(tmp_path)
            tmp_path.mkdir()


def test_damage_is_named_before_anything_is_read(url):
    feed = prepare(pipeline(), rows(), to=url)
    system, path = fsspec.core.url_to_fs(url)
    file = f"{path}/parts/{feed.manifest['parts'][0]['file']}"
    with system.open(file, "wb") as opened:
        opened.write(b"short")
    with pytest.raises(DamagedData, match=r"has 5 bytes, .* were written"):
        h3.open_feed(url)
    system.rm_file(file)
    with pytest.raises(DamagedData, match="is missing; prepare the feed again"):
        h3.open_feed(url)
    with pytest.raises(StorageError, match="no feed is stored in"):
        h3.open_feed(url + "/elsewhere")


def test_a_server_that_is_gone_is_named_without_its_password():
    store = open_store("webhdfs://me:geheim@127.0.0.1:9/feeds")
    with pytest.raises(StorageError, match="cannot be reached") as caught:
        store.manifest()
    assert "geheim" not in str(caught.value)


def test_passwords_are_in_no_manifest_and_no_picture(url):
    feed = prepare(pipeline(), rows(), to=url)
    feed.arrays()  # fetched, so that the picture needs no server of that name
    feed._store.folder = "s3://me:geheim@bucket/feed"
    assert "geheim" not in repr(feed) + str(feed._repr_mimebundle_()) + json.dumps(dict(feed.manifest))


@pytest.mark.parametrize("service_name", ["hdfs", "s3"])
def test_raw_files_are_read_by_url(service_name, request, tmp_path):
    url = f"{request.getfixturevalue(service_name)}/{uuid.uuid4().hex[:8]}"
    system, path = fsspec.core.url_to_fs(url)
    system.makedirs(path, exist_ok=True)
    for number in range(2):
        rows()[number::2].to_parquet(tmp_path / f"{number}.parquet")
        rows()[number::2].to_csv(tmp_path / f"{number}.csv", index=False)
        rows()[number::2].to_json(tmp_path / f"{number}.jsonl", orient="records", lines=True)
        for ending in ("parquet", "csv", "jsonl"):
            system.put_file(str(tmp_path / f"{number}.{ending}"), f"{path}/{number}.{ending}")
    expected = pd.concat([rows()[0::2], rows()[1::2]]).sort_values("price")["title"].tolist()
    for ending in ("parquet", "csv", "jsonl"):
        source = h3.read(f"{url}/*.{ending}")
        assert len(source) == 200
        found = pd.concat([table.to_pandas() for table in source.tables()]).sort_values("price")
        assert found["title"].tolist() == expected
    h3.testing.check_source(h3.read(f"{url}/*.parquet"))
