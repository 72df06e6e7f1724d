"""Cuts follow from the keys: their pieces do not matter, equal keys stay together, and a change stays where it is."""

import datetime as dt

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from h3lab.source import mix
from h3lab.sources.cuts import cuts, hashes_of


def cut(keys, rows, edges=()):
    """[(key, row number)] of sorted keys that come in pieces."""
    keys = np.asarray(keys, np.int64)
    runs = np.searchsorted(keys, keys)
    bounds = [0, *sorted(edges), len(keys)]
    pieces = [slice(a, b) for a, b in zip(bounds, bounds[1:], strict=False)]
    return list(cuts([(keys[p].tolist(), mix(keys[p].astype(np.uint64)), runs[p]) for p in pieces], rows))


@settings(deadline=None)
@given(keys=st.lists(st.integers(0, 60), max_size=200).map(sorted), rows=st.integers(1, 20), data=st.data())
def test_sizes_runs_and_pieces(keys, rows, data):
    found = cut(keys, rows)
    starts = [at for _, at in found]
    assert [keys[at] for at in starts] == [key for key, _ in found]
    assert starts == sorted(set(starts)) and starts[:1] == [0][: len(keys)]
    assert all(at == 0 or keys[at - 1] < keys[at] for at in starts), "a run of equal keys is cut"
    longest = max((keys.count(key) for key in keys), default=0)
    sizes = np.diff([*starts, len(keys)])
    assert all(size <= max(2, rows // 2 + rows) + longest for size in sizes)
    assert all(size >= rows // 2 for size in sizes[:-1])
    edges = data.draw(st.lists(st.integers(0, len(keys)), max_size=6))
    assert cut(keys, rows, edges) == found


def test_a_change_stays_where_it_is():
    rng = np.random.default_rng(0)
    keys = np.sort(rng.choice(10**9, 100_000, replace=False))
    before = {key for key, _ in cut(keys, 1000)}
    moved = []
    for _ in range(30):
        gone = np.delete(keys, rng.integers(len(keys)))
        more = np.sort(np.append(gone, rng.integers(10**9)))
        moved.append(len({key for key, _ in cut(more, 1000)} - before))
    assert 90 < len(before) < 110 and np.mean(moved) < 1, moved


def test_keys_of_any_type_have_hashes():
    columns = [
        pa.array([1, 2], pa.int8()),
        pa.array([0.5, 1e300]),
        pa.array(["a", "ü"]),
        pa.array([b"\xff", b""]),
        pa.array([dt.date(2013, 1, 1), dt.date(2013, 1, 2)]),
        pa.array([dt.datetime(2013, 1, 1), dt.datetime(2013, 1, 2)]),
        pa.array([True, False]),
    ]
    for column in columns:
        found = hashes_of(pa.table({"k": column}))
        assert found.dtype == np.uint64 and len(set(found.tolist())) == 2
