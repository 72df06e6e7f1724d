"""A feed larger than memory: what the next window needs is fetched and checked while this one is used, and no more."""

import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from h3lab.errors import DamagedData
from h3lab.feeds import ahead, epochs, orders
from h3lab.feeds.feed import Feed, open_feed
from h3lab.feeds.rows import Rows, Runs, columns, is_sparse
from h3lab.stores import checks


@pytest.fixture(autouse=True, scope="module")
def small():
    """Stretches of some rows, blocks of some stretches, windows of some blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "STRETCH", 64)
        patch.setattr(ahead, "GAP_BYTES", 64)
        patch.setattr(orders, "BLOCK_BYTES", 400)
        patch.setattr(orders, "WINDOW_BYTES", 1200)
        patch.setattr(epochs, "CHUNK_BYTES", 400)
        patch.setattr(epochs, "ROWS_A_PART", 1)
        yield


def features(form: str, count: int):
    random = np.random.default_rng(count)
    dense = random.random((count, 5), np.float32)
    thin = sparse.random(count, 30, 0.2, format="csr", random_state=1)
    return {"dense": dense, "sparse": thin, "blocks": {"words": thin, "numbers": dense}}[form]


def stored(folder: Path, form: str, count: int, parts: int) -> Feed:
    whole = Feed.of(features(form, count), np.arange(count) % 3, keys=np.arange(count, dtype=np.uint64))
    cuts = np.linspace(0, count, parts + 1).astype(int)
    return Feed(Rows.of([whole.batch(slice(a, b)) for a, b in zip(cuts, cuts[1:])]), whole.spec).store(folder)


def same(one, two) -> bool:
    pairs = zip(columns(one).items(), columns(two).items(), strict=True)
    return all(
        name == other and ((a != b).nnz == 0 if is_sparse(a) else np.array_equal(a, b))
        for (name, a), (other, b) in pairs
    )


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    form=st.sampled_from(["dense", "sparse", "blocks"]),
    count=st.integers(3, 120),
    parts=st.integers(1, 3),
    view=st.booleans(),
    draw=st.sampled_from([{}, {"sampling": "balanced"}, {"bucket": True}, {"shuffle": False}]),
    batch_size=st.integers(1, 40),
    ranks=st.integers(1, 3),
    start=st.integers(0, 5),
    copy=st.booleans(),
    scarce=st.booleans(),
)
def test_what_is_fetched_ahead_is_what_memory_holds(
    tmp_path_factory, form, count, parts, view, draw, batch_size, ranks, start, copy, scarce
):
    feed = stored(tmp_path_factory.mktemp("feed"), form, count, parts)
    known = Feed(Rows.of([feed.batch(slice(None))]), feed.spec)
    if view:
        chosen = np.random.default_rng(0).permutation(count)[: max(1, count // 2)]
        feed, known = feed.select(chosen), known.select(chosen)
    limit = pytest.MonkeyPatch()
    limit.setenv("H3LAB_SHUFFLE_BYTES", "0" if scarce else "1e9")
    for rank in range(ranks):
        options = {"batch_size": batch_size, "rank": rank, "ranks": ranks, "start": start, "shuffle": "blocks"} | draw
        given = feed.epoch(1, copy=copy, **options)
        assert all(same(a, b) for a, b in zip(given, known.epoch(1, **options), strict=True))
    limit.undo()


def unchecked(feed: Feed) -> float:
    """Share of the stretches of a feed's arrays that this process has not checked."""
    files = [known for known in checks._known.values() if str(known.path).startswith(str(feed.url))]
    return float(np.concatenate([file._open for file in files]).mean())


def test_the_first_batches_read_two_windows_and_no_more(tmp_path):
    feed = stored(tmp_path, "dense", 2000, 4)
    for way in ("blocks", False):
        batches = feed.epoch(0, batch_size=8, shuffle=way)
        next(batches)
        assert unchecked(feed) > 0.7
        batches.close()
    list(feed.epoch(0, batch_size=8, shuffle="blocks"))
    assert unchecked(feed) == 0


@pytest.mark.parametrize("shuffle", ["blocks", False])
@pytest.mark.parametrize(("limit", "given_back"), [("0", True), ("1e9", False)])
def test_used_windows_are_given_back_where_memory_is_scarce(shuffle, limit, given_back, monkeypatch):
    monkeypatch.setenv("H3LAB_SHUFFLE_BYTES", limit)
    fetched, released = set(), set()
    whole = Feed.of(np.arange(4000.0)[:, None])
    rows = Rows.of([whole.batch(slice(0, 4000))])

    def release(part: int, begin: int, end: int) -> None:
        assert set(range(begin, end)) <= fetched, "rows were given back before they were fetched"
        released.update(range(begin, end))

    runs = Runs(rows, lambda part, begin, end: fetched.update(range(begin, end)), release)
    feed = Feed(Rows(rows.parts, [4000], rows.nbytes, runs=runs), whole.spec)
    seen = [row for batch in feed.epoch(0, batch_size=5, shuffle=shuffle) for row in batch.x[:, 0]]
    assert sorted(seen) == list(range(4000)) and fetched == set(range(4000))
    assert len(released) > 3600 if given_back else not released


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux is told so")
def test_memory_that_is_given_back_is_no_longer_mapped(tmp_path):
    feed = open_feed(stored(tmp_path, "dense", 200_000, 1).url)
    rows, _, release, _ = feed._rows.runs
    expected = feed.arrays()[0]
    held = [part.x.copy() for part in rows.parts]  # every page has been touched
    before = mapped_bytes(str(tmp_path))
    for number, part in enumerate(rows.parts):
        release(number, 0, len(part))
    assert before - mapped_bytes(str(tmp_path)) > 0.9 * sum(x.nbytes for x in held)
    assert np.array_equal(np.concatenate([part.x for part in rows.parts]), expected), "they can be read again"


def mapped_bytes(folder: str) -> int:
    """Bytes of the files of a folder that are in this process's page tables, by ``/proc``."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            inside = folder in line and ".x" in line
        elif inside and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found


@pytest.mark.parametrize("form", ["dense", "sparse"])
@pytest.mark.parametrize("harm", ["flip", "cut"])
def test_damage_is_found_before_its_rows_are_given(form, harm, tmp_path):
    feed = open_feed(stored(tmp_path, form, 2000, 1).url)
    path = max((p for p in (tmp_path / "parts").iterdir() if ".x" in p.name), key=lambda p: p.stat().st_size)
    size, given = path.stat().st_size, []
    batches = feed.epoch(0, batch_size=8, shuffle="blocks")
    if harm == "cut":
        os.truncate(path, size // 2)
    else:
        with path.open("r+b") as file:
            file.seek(size // 2)
            byte = file.read(1)[0]
            file.seek(size // 2)
            file.write(bytes([byte ^ 1]))
    with pytest.raises(DamagedData, match=path.name):
        given.extend(batches)
    assert bool(given) == (harm == "flip"), "windows without damage are given"


def test_rows_that_are_not_in_blocks_are_checked_whole(tmp_path):
    feed = stored(tmp_path, "dense", 200, 1)
    path = next(path for path in (tmp_path / "parts").iterdir() if ".x" in path.name)
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    for read in (lambda: feed.batch([0]), lambda: next(feed.epoch(0)), lambda: feed.arrays()):
        with pytest.raises(DamagedData, match=path.name):
            read()


def far(parts: int, fetch) -> Feed:
    """A feed whose parts a store far away would hand out, ten rows each."""
    whole = Feed.of(np.arange(10.0 * parts)[:, None])
    rows = [whole.batch(slice(10 * n, 10 * n + 10)) for n in range(parts)]
    known = Rows.of(rows)
    return Feed(
        Rows(rows, [10] * parts, known.nbytes, runs=Runs(known, fetch, lambda *run: None, far=True)), whole.spec
    )


@pytest.mark.parametrize("shuffle", ["rows", "blocks", False])
def test_several_parts_are_fetched_at_once(shuffle):
    together = threading.Barrier(2, timeout=10)
    feed = far(2, lambda part, begin, end: together.wait())
    assert len(next(feed.epoch(0, shuffle=shuffle))) == 20


def test_the_next_part_is_under_way_while_this_one_is_used():
    there = [threading.Event() for _ in range(40)]
    feed = far(40, lambda part, begin, end: there[part].set())
    batches = feed.epoch(0, batch_size=5, shuffle=False)
    next(batches)
    assert there[1].wait(10) and not there[-1].is_set()
    assert len(list(batches)) == 79 and all(event.is_set() for event in there)


def test_what_fetching_raises_is_raised_where_the_rows_are_due():
    def fetch(part: int, begin: int, end: int) -> None:
        if part == 30:
            raise DamagedData("part 30")

    given = []
    with pytest.raises(DamagedData, match="part 30"):
        given.extend(far(40, fetch).epoch(0, batch_size=10, shuffle=False))
    assert 0 < len(given) <= 30
