"""Iterators as sources: rows that come once, kept on disk for as long as somebody needs them."""

import gc
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.linear_model import SGDClassifier
from sklearn.preprocessing import StandardScaler

import h3lab as h3
from h3lab.errors import DataError, UsageError
from h3lab.source import row_keys
from h3lab.sources import iterators
from h3lab.testing import check_source


def dicts(count: int = 250) -> Iterator[dict[str, Any]]:
    for n in range(count):
        yield {"n": n, "half": n / 2, "word": f"w{n % 5}", "label": n % 2}


def whole(count: int = 250) -> pd.DataFrame:
    return pd.DataFrame(list(dicts(count)))


def tables(kind: Any, size: int = 70) -> Iterator[Any]:
    frame = whole()
    for begin in range(0, len(frame), size):
        yield kind(frame.iloc[begin : begin + size].reset_index(drop=True))


KINDS: dict[str, Any] = {
    "a function of dicts": lambda: dicts,
    "a generator": dicts,
    "DataFrames": lambda: tables(lambda frame: frame),
    "Arrow tables": lambda: tables(pa.Table.from_pandas),
    "record batches": lambda: tables(pa.RecordBatch.from_pandas),
    "lists of dicts": lambda: tables(lambda frame: frame.to_dict("records")),
    "a map": lambda: map(dict, dicts()),
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iterators, "PART_ROWS", 100)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_are_yielded_are_a_source_like_any(kind: str) -> None:
    source = h3.read(KINDS[kind]())
    assert (source.bounded, source.replayable, source.ordered) == (True, True, True)
    check_source(source)
    assert [part.rows for part in source.parts()] == [100, 100, 50]
    pd.testing.assert_frame_equal(pa.concat_tables(source.tables()).to_pandas(), whole())


def test_the_same_rows_have_the_same_keys_however_they_come() -> None:
    for make in [*KINDS.values(), whole]:
        source = h3.read(make())
        keys = np.concatenate([source.keys(part, source.read(part)) for part in source.parts()])
        assert np.array_equal(keys, row_keys("memory", 0, 250))


def test_nothing_is_read_before_somebody_looks_and_nothing_twice() -> None:
    begun = []

    def rows() -> Iterator[dict[str, Any]]:
        begun.append(1)
        yield from dicts()

    source = h3.read(rows)
    assert not begun
    assert len(source) == 250 and source.columns and len(source) == 250
    list(source.tables())
    assert len(begun) == 1


def test_rows_are_gone_from_the_disk_with_their_source() -> None:
    source = h3.read(dicts())
    assert len(source) == 250
    folder: Path = source._folder  # type: ignore[attr-defined]
    sent = pickle.loads(pickle.dumps(source))
    assert folder.exists() and len(list(sent.tables())) == 3
    del source
    gc.collect()
    assert not folder.exists()
    with pytest.raises(DataError, match="a process that has ended"):
        list(sent.tables())


def test_types_are_those_of_all_rows() -> None:
    def rows() -> Iterator[dict[str, Any]]:
        for n in range(150):
            yield {"a": None if n < 100 else n, "b": n if n < 120 else n / 4}
        yield {"a": 1, "b": 2, "late": "x"}

    source = h3.read(rows)
    assert [str(field.type) for field in source.schema] == ["int64", "double", "string"]
    check_source(source)
    with pytest.raises(DataError, match=r"rows from 100: .*'a'"):
        len(h3.read({"a": n if n < 100 else "x"} for n in range(150)))


def test_an_actor_learns_from_a_generator() -> None:
    pipeline = h3.Pipeline(h3.Preprocessor("numbers", ["n", "half"], StandardScaler()), label="label")
    one, two = (h3.Actor(name, SGDClassifier(random_state=0), pipeline) for name in ("one", "two"))
    for actor, rows in ((one, dicts()), (two, whole())):
        list(h3.train(actor, rows, epochs=2))
    assert np.array_equal(one.decision_function(whole()), two.decision_function(whole()))
    streamed = h3.Actor("streamed", SGDClassifier(random_state=0), pipeline)
    list(h3.train(streamed, dicts, prepare="stream", shuffle=False, epochs=2))
    list(h3.train(two, whole(), shuffle=False, epochs=2))
    assert np.array_equal(streamed.decision_function(whole()), two.decision_function(whole()))


def broken() -> Iterator[dict[str, Any]]:
    yield from dicts(30)
    raise KeyError("price")


def test_what_goes_wrong_says_where_and_what_to_type() -> None:
    with pytest.raises(DataError, match=r"failed after 30 rows: KeyError"):
        len(h3.read(broken))
    with pytest.raises(UsageError, match=r"yielded a int after 0 rows; expected dicts"):
        len(h3.read(iter([1, 2])))
    with pytest.raises(UsageError, match=r"gave a DataFrame; expected an iterator"):
        len(h3.read(whole))
    spent = dicts()
    list(spent)
    with pytest.raises(DataError, match=r"h3\.read\(lambda: rows\(\)\)"):
        len(h3.read(spent))
    with pytest.raises(UsageError, match="an iterator of dicts"):
        h3.read(7)


def test_an_iterator_that_was_left_in_its_middle_does_not_go_on_there() -> None:
    class Failing(Iterator[Any]):
        def __init__(self) -> None:
            self.at = 0

        def __next__(self) -> dict[str, Any]:
            self.at += 1
            if self.at == 3:
                raise ConnectionError("the queue is away")
            if self.at > 9:
                raise StopIteration
            return {"n": self.at}

    source = h3.read(Failing())
    with pytest.raises(DataError, match="failed after 2 rows: ConnectionError"):
        len(source)
    with pytest.raises(DataError, match=r"begun before .* no row twice. Make it again"):
        len(source)


@pytest.mark.parametrize("item", [(1, 2), (np.zeros(3), np.zeros(3)), np.arange(3)], ids=["pair", "arrays", "array"])
def test_what_may_be_meant_as_one_row_is_not_read_as_many(item: Any) -> None:
    with pytest.raises(UsageError, match=rf"yielded a {type(item).__name__} after 0 rows; expected dicts"):
        len(h3.read(iter([item])))


def test_a_function_that_cannot_be_called_is_said() -> None:
    def rows(count: int) -> Iterator[dict[str, Any]]:
        yield from dicts(count)

    with pytest.raises(DataError, match=r"rows\(\) gives failed after 0 rows: TypeError: .*'count'"):
        len(h3.read(rows))
