"""What every source gets for nothing: counting, heads, pictures, row keys and splits, whatever its parts."""

import json
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from h3lab import worlds
from h3lab.errors import DataError, UnknownName, UsageError
from h3lab.joining.joined import join
from h3lab.keys import Keyed, keys_of
from h3lab.pipeline import Pipeline, Preprocessor
from h3lab.preparing.prepare import prepare
from h3lab.serial import signed
from h3lab.source import Part, Source, fraction, mix, row_keys
from h3lab.sources import read
from h3lab.testing import check_source


class Pieces(Source):
    """A table in parts that begin at ``cuts``; ``told`` says whether parts tell their rows. Counts its reads."""

    version = ""

    def __init__(self, table: pa.Table, cuts: Sequence[int] = (), told: bool = True) -> None:
        self.table, self.cuts, self.told, self.reads = table, list(cuts), told, 0

    @property
    def schema(self) -> pa.Schema:
        return self.table.schema

    def parts(self) -> list[Part]:
        edges = [0, *sorted(min(cut, len(self.table)) for cut in self.cuts), len(self.table)]
        spans = list(zip(edges, edges[1:]))
        lengths = [b - a if self.told else None for a, b in spans]
        return [Part(i, lengths[i], "rows", a, {"rows": [a, b]}, self.version) for i, (a, b) in enumerate(spans)]

    def read(self, part: Part, columns: Sequence[str] | None = None) -> pa.Table:
        self.reads += 1
        low, high = part.position["rows"]
        return self.table.select(self.check(columns)).slice(low, high - low)

    def describe(self) -> dict[str, Any]:
        return {"kind": "memory", "what": "pieces"}


def table(rows: int) -> pa.Table:
    rng = np.random.default_rng(7)
    names = pa.array([f"row {i}" for i in range(rows)])
    return pa.table({"id": np.arange(rows), "name": names, "class": pa.array(rng.choice(list("abc"), rows).tolist())})


def ids(source: Source) -> list[int]:
    return [row for part in source.tables(["id"]) for row in part.column("id").to_pylist()]


CUTS = st.lists(st.integers(0, 60), max_size=4)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), CUTS, CUTS, st.booleans())
def test_keys_do_not_depend_on_the_cut(rows, cuts, others, told):
    def keys(source: Source) -> list[int]:
        return [int(k) for part in source.parts() for k in source.keys(part, source.read(part))]

    one, two = Pieces(table(rows), cuts, told), Pieces(table(rows), others)
    assert keys(one) == keys(two) == row_keys("rows", 0, rows).tolist()
    assert keys(Keyed(one, "name")) == keys(Keyed(two, "name"))


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 60), CUTS, CUTS, st.integers(1, 40), st.integers(0, 99), st.floats(0.2, 0.8), st.booleans())
def test_a_row_keeps_its_side_when_rows_are_added(rows, cuts, others, more, seed, test, by_name):
    def sides(source: Source) -> list[list[int]]:
        return [ids(side) for side in (Keyed(source, "name") if by_name else source).split(test, seed)]

    try:
        train, held = sides(Pieces(table(rows), cuts))
    except DataError:
        assume(False)
    grown, grown_held = sides(Pieces(table(rows + more), others, told=False))
    assert [row for row in grown if row < rows] == train and [row for row in grown_held if row < rows] == held


@settings(deadline=None, max_examples=40)
@given(st.integers(12, 60), CUTS, st.booleans(), st.booleans(), st.sampled_from([None, "class"]))
def test_splits_of_splits_are_disjoint_and_complete(rows, cuts, told, by_name, stratify):
    source: Source = Pieces(table(rows), cuts, told)
    source = Keyed(source, "name") if by_name else source
    try:
        train, held = source.split(0.4, 1, stratify)
        inner, valid = train.split(0.5, 2)
    except DataError:
        assume(False)
    assert sorted(ids(inner) + ids(valid) + ids(held)) == list(range(rows))
    assert len(inner) + len(valid) == len(train) == len(ids(train))
    for side in (held, valid):
        there = signed.loads(signed.dumps(side))
        assert ids(there) == ids(side) and list(there.parts()) == list(side.parts())
        for part in there.parts():
            # the first read happens here, so no keys are remembered
            assert there.keys(part, side.read(part)).tolist() == side.keys(part, side.read(part)).tolist()


@settings(deadline=None, max_examples=40)
@given(st.integers(10, 80), CUTS, st.sampled_from([0.1, 0.25, 0.5]), st.integers(0, 9))
def test_a_stratified_split_is_exact(rows, cuts, test, seed):
    source = Pieces(table(rows), cuts)
    train, held = source.split(test, seed, stratify="class")
    for label in "abc":
        all_of = source.table.column("class").to_pylist().count(label)
        parts = [t.column("class").to_pylist().count(label) for t in held.tables()]
        assert sum(parts) == int(test * all_of + 0.5)
    assert sorted(ids(train) + ids(held)) == list(range(rows))
    assert held.read(held.parts()[0], ["id"]).column_names == ["id"]


def test_a_split_is_about_as_large_as_it_was_asked():
    source = read(pd.DataFrame({"a": np.arange(20_000)}))
    for test in (0.05, 0.5, 0.9):
        train, held = source.split(test, seed=4)
        assert abs(len(held) - test * 20_000) < 4 * np.sqrt(20_000 * test * (1 - test))
        assert len(train) + len(held) == 20_000


def test_seeds_draw_other_rows():
    source = Pieces(table(50))
    assert len({tuple(ids(source.split(0.5, seed)[1])) for seed in range(20)}) == 20


def test_versions_tell_splits_and_keys_apart():
    source = Pieces(table(30))
    source.version = "1"
    ways = [
        source,
        *source.split(0.5),
        *source.split(0.4),
        source.split(0.5, 1)[0],
        source.split(0.5, stratify="class")[0],
    ]
    ways += [
        Keyed(source, "id"),
        Keyed(source, "name"),
        Keyed(source, ["id", "name"]),
        Keyed(source.split(0.5)[0], "id"),
    ]
    assert len({way.parts()[0].version for way in ways}) == len(ways)
    source = Pieces(table(30))
    assert {way.parts()[0].version for way in (*source.split(0.5), Keyed(source, "id"))} == {""}


def test_a_feed_draws_anew_what_its_source_has_drawn():
    from h3lab.feeds.feed import Feed

    x = np.arange(2000.0).reshape(1000, 2)
    _, held = read((x, np.arange(1000.0))).split(0.3, seed=5)
    _, out = Feed.of(x, np.arange(1000.0)).split(0.3, seed=5)
    both = set(next(iter(held.tables())).column("y").to_pylist()) & set(out.arrays()[1].tolist())
    # Independent draws share .3 * .3 of the rows; one and the same draw would share all of .3.
    assert 0.06 < len(both) / 1000 < 0.12


def test_an_empty_side_is_an_error():
    with pytest.raises(DataError, match=r"leaves test without a row \(2 rows in all\)"):
        Pieces(table(2)).split(0.000001)
    with pytest.raises(DataError, match="leaves train without"):
        Pieces(table(2), told=False).split(0.999999)
    with pytest.raises(DataError, match="train and test without a row"):
        Pieces(table(0)).split()


def test_a_split_looks_no_further_than_it_must():
    source = Pieces(table(60), range(1, 60), told=False)
    source.split(0.5)
    assert source.reads < 10
    told = Pieces(table(60), [30])
    train, held = told.split(0.5)
    assert len(train) + len(held) == 60 and told.reads == 0


@pytest.mark.parametrize("test", [0, 1, -0.1, 1.5, "x", None])
def test_a_wrong_share_is_refused(test):
    with pytest.raises(UsageError, match=r"test=0\.2"):
        Pieces(table(9)).split(test)


def test_wrong_seeds_and_columns_are_refused():
    with pytest.raises(UsageError, match="seed=-1"):
        Pieces(table(9)).split(seed=-1)
    with pytest.raises(UnknownName, match=r"'clas'.*Did you mean 'class'"):
        Pieces(table(9)).split(stratify="clas")
    with pytest.raises(UnknownName, match="Did you mean 'name'"):
        Keyed(Pieces(table(9)), "nam")
    with pytest.raises(UnknownName, match="Did you mean 'id'"):
        train, _ = Pieces(table(9)).split(0.5)
        train.read(train.parts()[0], ["idd"])


def test_the_sources_of_these_tests_keep_the_promises():
    for source in (
        Pieces(table(30), [10, 10, 25]),
        Pieces(table(30), [4], told=False),
        Keyed(Pieces(table(9)), "name"),
    ):
        check_source(source)
        check_source(source.split(0.5, 1)[0])


def test_it_counts_once():
    source = Pieces(table(30), [10], told=False)
    assert len(source) == 30 == len(source)
    assert source.reads == 2 and bool(source)
    assert len(Pieces(table(0))) == 0 and bool(Pieces(table(0)))


def test_what_was_found_out_does_not_travel():
    train, _ = Pieces(table(5000)).split(0.5)
    len(train), train.read(train.parts()[0])
    assert "_known" in vars(train) and "_known" not in vars(signed.loads(signed.dumps(train)))


def test_head_and_columns():
    source = Pieces(table(30), [2, 2])
    assert source.columns == ["id", "name", "class"]
    assert source.head(4)["id"].tolist() == [0, 1, 2, 3] and len(source.head()) == 5
    assert len(source.head(100)) == 30 and source.head(0).columns.tolist() == source.columns


def test_it_shows_itself():
    text = repr(Pieces(table(30), [10]))
    assert text.startswith("Source: Pieces · 30 rows\nid: int64, name: string, class: string\n")
    assert "row 4" in text and "row 5" not in text
    html = Pieces(table(30))._repr_mimebundle_()["text/html"]
    assert "<td>row 4</td>" in html and "<td>row 5</td>" not in html


def test_wide_and_strange_values_are_shown_and_escaped():
    wide = pa.table({f"c{i}": ["<b>" + "x" * 500] for i in range(40)})
    source = Pieces(wide)
    assert "(40)" in repr(source) and max(map(len, repr(source).splitlines())) <= 120
    html = source._repr_mimebundle_()["text/html"]
    assert "<td><b>" not in html and "40 columns" in html and len(html) < 6000


def test_half_floats_are_shown_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = repr(read({"half": np.array([0.5, 2.0], np.float16)}))
    assert "0.5" in text and "Warning" not in text


class Broken(Pieces):
    """A source whose world is out of reach."""

    @property
    def schema(self) -> pa.Schema:
        raise OSError("no route to ftp://user:secret@host/x?token=secret")


def test_showing_never_raises_and_never_tells():
    for text in (repr(Broken(table(2))), Broken(table(2))._repr_mimebundle_()["text/html"]):
        assert "no route" in text and "secret" not in text


def test_rows_in_memory_say_that_they_cannot_come_back():
    description = json.loads(json.dumps(read(table(3)).split(0.5, 3)[0].describe()))
    with pytest.raises(DataError, match=r"an Arrow table in memory.*source="):
        worlds.reopen(description)
    with pytest.raises(UnknownName, match="kind of source 'fil'.*'files'"):
        worlds.reopen({"kind": "fil"})


# ---- Keys and draws ---------------------------------------------------------------------------------------


def test_draws_are_even_and_independent_of_each_other():
    keys = row_keys("a.csv", 0, 100_000)
    one, two = fraction(keys, 0), fraction(keys, 1)
    assert ((one >= 0) & (one < 1)).all()
    counts = np.histogram(one, 20, (0, 1))[0]
    assert abs(counts - 5000).max() < 5 * np.sqrt(5000)
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.02
    assert abs(np.corrcoef(one, fraction(row_keys("b.csv", 0, 100_000), 0))[0, 1]) < 0.02


def test_mix_is_a_bijection_as_published():
    assert mix(np.zeros(1, np.uint64))[0] == 0xE220A8397B1DCDAF  # SplitMix64's first number for the seed 0
    values = mix(np.arange(200_000, dtype=np.uint64))
    assert len(np.unique(values)) == 200_000


@settings(deadline=None, max_examples=100)
@given(st.lists(st.text(max_size=6), max_size=20), st.integers(0, 5))
def test_keys_of_text_follow_the_text_alone(texts, offset):
    column = pa.chunked_array([pa.array([""] * offset + texts, pa.string())]).slice(offset)
    keys = keys_of(column, "a")
    assert len(keys) == len(texts)
    known = {text: keys_of(pa.chunked_array([[text]], pa.string()), "a")[0] for text in texts}
    assert keys.tolist() == [known[text] for text in texts]
    assert len(set(known.values())) == len(known)
    for other in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        assert keys_of(column.cast(other), "a").tolist() == keys.tolist()


def test_keys_tell_permuted_and_prefixed_texts_apart():
    letters = "\0\1\2`abcd"
    texts = ["".join(letters[i] for i in picked) for n in range(5) for picked in np.ndindex(*[len(letters)] * n)]
    assert len(set(keys_of(pa.chunked_array([texts]), "a").tolist())) == len(texts)


def test_keys_of_numbers_and_times():
    whole = pa.chunked_array([[1, -2, 3]])
    assert keys_of(whole, "a").tolist() == keys_of(whole.cast(pa.int8()), "a").tolist()
    times = pa.chunked_array([pa.array([1, -2, 3], pa.timestamp("us"))])
    days = pa.chunked_array([pa.array([1, -2, 3], pa.date32())])
    flags = pa.chunked_array([[True, False]])
    for column in (whole, times, days, flags):
        assert len(set(keys_of(column, "a").tolist())) == len(column)


@pytest.mark.parametrize(
    ("values", "words"), [(["a", None], "1 rows have no key"), ([0.5], "is double"), ([[1]], "keys are whole numbers")]
)
def test_what_is_no_key_is_explained(values, words):
    with pytest.raises(DataError, match=words):
        keys_of(pa.chunked_array([values]), "column 'a'")


def test_keys_of_several_columns_need_them_all():
    one = Keyed(Pieces(table(30)), ["class", "id"])
    two = Keyed(Pieces(table(30)), ["class"])
    part = one.parts()[0]
    assert len(set(one.keys(part, one.read(part)).tolist())) == 30
    assert len(set(two.keys(part, two.read(part)).tolist())) == 3


class Shuffled(Pieces):
    """Gives the rows of a part in another order each time."""

    def read(self, part: Part, columns: Sequence[str] | None = None) -> pa.Table:
        found = super().read(part, columns)
        order = np.roll(np.arange(len(found)), self.reads)
        return found.take(pa.array(order)) if found.num_columns else found


class Changing(Pieces):
    """Gives other rows each time."""

    def read(self, part: Part, columns: Sequence[str] | None = None) -> pa.Table:
        found = super().read(part, None)
        return found.set_column(0, "id", pa.array(np.arange(len(found)) + self.reads)).select(self.check(columns))


class Growing(Pieces):
    """Has one more part each time it is read."""

    def parts(self) -> list[Part]:
        self.cuts = list(range(self.reads))
        return super().parts()


class Endless(Pieces):
    """Gives its parts one after another."""

    def parts(self) -> Any:
        return iter(super().parts())


@pytest.mark.parametrize(
    ("broken", "promise", "why"),
    [
        (Shuffled, "ordered", "another order: the source is not ordered"),
        (Changing, "replayable", "other rows: the source is not replayable"),
        (Growing, "bounded", "more parts after it was read to its end"),
        (Endless, "bounded", r"parts\(\) gives a list_iterator, which may have no end"),
    ],
)
def test_a_promise_that_is_broken_is_told_and_one_that_is_not_made_is_shown(broken, promise, why):
    with pytest.raises(AssertionError, match=why):
        check_source(broken(table(40), [10]))
    source = broken(table(40), [10])
    setattr(source, promise, False)
    notes = {"ordered": "in no order", "replayable": "read once", "bounded": "without an end"}
    assert source.notes == [notes[promise]] and f"\n{notes[promise]}\n" in repr(source)
    for around in (Keyed(source, "name"), Keyed(Keyed(source, "name"), "id")):
        assert not getattr(around, promise) and around.notes == source.notes
    check_source(source)
    with pytest.raises(UsageError, match=rf"comes {notes[promise]}; preparing reads all rows several times"):
        prepare(Pipeline(Preprocessor("n", ["id"])), source)


def test_what_is_read_once_says_so():
    assert "read once, and kept on disk" in repr(read({"a": n} for n in range(3)))
    assert read(pa.table({"a": [1]})).notes == []


@pytest.mark.parametrize("how", ["a stratified split", "a join that drops rows"])
def test_keys_are_those_of_the_part_whatever_other_threads_read(how):
    base = Pieces(table(3_000), range(20, 3_000, 20))
    if how == "a stratified split":
        source = base.split(0.5, seed=1, stratify="class")[0]
    else:
        some = read({"id": np.arange(0, 3_000, 3), "more": np.zeros(1_000)})
        source = join({"rows": base, "some": some}, {"some": "id"}, "drop", "error")
    pieces = [(part, source.read(part)) for part in source.parts()]
    alone = [source.keys(part, rows) for part, rows in pieces]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            together = list(pool.map(lambda piece: source.keys(*piece), pieces))
            assert all(np.array_equal(one, other) for one, other in zip(together, alone, strict=True))
