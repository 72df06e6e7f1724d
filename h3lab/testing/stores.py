"""What every store of prepared rows promises, as checks that its author can run.

They know write, commit, manifest, pipeline, rows, read, kept, collect_garbage and turn; they do not know files.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from h3lab.batch import Batch
from h3lab.errors import H3labError, StorageError, UsageError, guided
from h3lab.feeds.rows import columns, is_sparse

#: Opens the store of a folder.
Factory = Callable[[Path], Any]


@guided
def check_store(factory: Factory, folder: Path) -> None:
    """Raises AssertionError that says what a store breaks of its promises. ``folder`` is empty or not there yet."""
    if not callable(factory):
        raise UsageError(f"a {type(factory).__name__} came; expected a function from a folder to its store.")
    for number, check in enumerate(STORE_CHECKS):
        check(factory, folder / str(number))


def some_batches() -> dict[str, Batch]:
    """Batches of every form: dense of several types, sparse, blocks, without rows, without labels."""
    from scipy import sparse

    rng = np.random.default_rng(0)
    y, keys = np.arange(6) % 3, np.arange(6, dtype=np.uint64)
    thin = sparse.random(6, 9, 0.3, format="csr", random_state=1)
    return {
        "dense": Batch(rng.random((6, 4), np.float32), y, rng.random(6), None, keys),
        "images": Batch(rng.integers(0, 255, (6, 3, 2, 1), np.uint8), rng.random(6), None, None, keys),
        "targets": Batch(rng.random((6, 2)), rng.random((6, 2)), None, rng.random((6, 3), np.float32), keys),
        "sparse": Batch(thin, y, None, None, keys),
        "blocks": Batch({"words and more": thin, "a/b": rng.random((6, 2)) > 0.5}, y, None, None, keys),
        "unlabelled": Batch(rng.random((6, 1)), None, None, None, keys),
        "no rows": Batch(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), None, None, np.zeros(0, np.uint64)),
        "no sparse rows": Batch(sparse.csr_matrix((0, 9)), np.zeros(0, np.int64), None, None, np.zeros(0, np.uint64)),
    }


def check_round_trip(factory: Factory, folder: Path) -> None:
    """What is written is read, with types and shapes, by another opener; entries are JSON."""
    for name, batch in some_batches().items():
        place = folder / name.replace(" ", "-")
        entry = json.loads(json.dumps(factory(place).write("00000", batch)))
        assert entry["rows"] == len(batch), f"{name}: the entry tells {entry['rows']} rows"
        number = factory(place).commit({"parts": [entry], "note": name})
        manifest = factory(place).manifest()
        assert manifest["number"] == number and manifest["note"] == name
        _same(factory(place).read(manifest["parts"][0]), batch, name)
        _same(factory(place).rows(manifest).take(slice(None)), batch, name)


def check_order(factory: Factory, folder: Path) -> None:
    """Parts stand in the manifest's order, not in that of their writing; one without rows is no gap."""
    dense = some_batches()["dense"]
    store = factory(folder)
    pieces = [slice(0, 2), slice(2, 2), slice(2, 6)]
    entries = {n: store.write(f"{n:05d}", dense.take(pieces[n])) for n in (2, 0, 1)}
    store.commit({"parts": [entries[n] for n in range(3)]})
    found = store.rows(store.manifest())
    _same(found.take(slice(None)), dense, "three parts")
    _same(found.take([5, 0, 2]), dense.take([5, 0, 2]), "rows over the parts' boundaries")


def check_manifests(factory: Factory, folder: Path) -> None:
    """Numbers rise; a manifest never changes; rows that were opened before a commit stay what they were; the last
    two can be read after the garbage is gone; none at all is a StorageError."""
    store = factory(folder)
    _raises(StorageError, store.manifest)
    batches = [some_batches()["dense"], some_batches()["sparse"], some_batches()["blocks"]]
    numbers, opened = [], []
    for batch in batches:
        numbers.append(store.commit({"parts": [store.write("00000", batch)]}))
        opened.append(store.rows(store.manifest(numbers[-1])))
    assert numbers == sorted(set(numbers)) and store.manifest()["number"] == numbers[-1]
    store.collect_garbage()
    for number, batch, rows in list(zip(numbers, batches, opened, strict=True))[-2:]:
        _same(store.read(store.manifest(number)["parts"][0]), batch, f"manifest {number}")
        _same(rows.take(slice(None)), batch, f"manifest {number}, opened before")
    _raises(H3labError, lambda: store.manifest(numbers[-1] + 1))


def check_old_rows(factory: Factory, folder: Path) -> None:
    """Rows that were opened before several commits can still be read, or say that their state is gone; a feed that is
    opened anew is never called damaged."""
    store = factory(folder)
    batch = some_batches()["dense"]
    store.commit({"parts": [store.write("00000", batch)]})
    opened = store.rows(store.manifest())
    for number in range(3):
        store.commit({"parts": [store.write("00000", batch.take(slice(number + 1)))]})
        store.collect_garbage()
        assert len(factory(folder).rows(factory(folder).manifest())) == number + 1
    try:
        _same(opened.take(slice(None)), batch, "opened three commits ago")
    except StorageError as error:
        assert "is gone" in str(error), f"of a state that is gone was said: {error}"


def check_writing_again(factory: Factory, folder: Path) -> None:
    """Who opens a feed while its own parts are written once more sees it whole, and so does who has opened it."""
    batch, done, failures = Batch(np.random.default_rng(0).random((4000, 20))), threading.Event(), list[Exception]()
    entry = factory(folder).write("00000", batch)
    factory(folder).commit({"parts": [entry]})

    def read() -> None:
        while not done.is_set():
            try:
                factory(folder).rows(factory(folder).manifest())
            except Exception as error:
                failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        again = [factory(folder).write("00000", batch) for _ in range(5)]
    finally:
        done.set()
        reader.join()
    assert not failures, f"a reader found: {failures[0]!r}"
    assert {one["hash"] for one in again} == {entry["hash"]} and all(factory(folder).kept([entry, *again]))
    _same(factory(folder).read(entry), batch, "written again")


def check_turns(factory: Factory, folder: Path) -> None:
    """One at a time prepares: another is refused, removes nothing, and is let in afterwards."""
    store, other = factory(folder), factory(folder)
    with store.turn:
        entry = store.write("00000", some_batches()["dense"])
        error = _raises(StorageError, other.turn.__enter__)
        assert "another process is preparing into" in str(error) and str(os.getpid()) in str(error), str(error)
        _raises(StorageError, other.collect_garbage)
        store.turn.confirm()
        number = store.commit({"parts": [entry]})
        store.collect_garbage()
    with other.turn:
        assert other.collect_garbage() == 0, "a turn left something behind"
        _same(other.read(other.manifest(number)["parts"][0]), some_batches()["dense"], "written in a turn")


def check_committers(factory: Factory, folder: Path) -> None:
    """Two that commit at the same time get two numbers; each manifest keeps the pipeline that came with it."""
    entry = factory(folder).write("00000", some_batches()["dense"])
    barrier, told = threading.Barrier(3), list[tuple[int, list[int]]]()

    def commit(name: int) -> None:
        barrier.wait()
        for turn in range(3):
            who = [name, turn]
            told.append((factory(folder).commit({"parts": [entry], "who": who, "pipeline": "p"}, {"who": who}), who))

    threads = [threading.Thread(target=commit, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({number for number, _ in told}) == 9, f"9 commits were given these numbers: {sorted(told)}"
    store = factory(folder)
    for number, who in told:
        found = store.manifest(number)
        assert found["who"] == who and store.pipeline(found) == {"who": who}, f"state {number} is a mixture"


def check_hashes(factory: Factory, folder: Path) -> None:
    """Equal rows have equal hashes whatever the part is called; other rows, types or shapes have others."""
    store = factory(folder)
    hashes = {name: store.write("00000", batch)["hash"] for name, batch in some_batches().items()}
    assert len(set(hashes.values())) == len(hashes), "different rows have the same hash"
    for name, batch in some_batches().items():
        assert store.write("00007", batch)["hash"] == hashes[name], f"{name}: equal rows have different hashes"


def check_documents(factory: Factory, folder: Path) -> None:
    """A pipeline's document is kept with its manifest; without one there is None."""
    store = factory(folder)
    entry = store.write("00000", some_batches()["dense"])
    first = store.commit({"parts": [entry]})
    second = store.commit({"parts": [entry], "pipeline": "abc"}, {"mean": np.arange(3.0), "bytes": b"\x00\x01"})
    assert store.pipeline(store.manifest(first)) is None
    document = store.pipeline(store.manifest(second))
    assert np.array_equal(document["mean"], np.arange(3.0)) and document["bytes"] == b"\x00\x01"


def check_missing_parts(factory: Factory, folder: Path) -> None:
    """A manifest whose parts are not there is not committed, and the current one stays."""
    store, other = factory(folder), factory(folder / "other")
    entry = store.write("00000", some_batches()["dense"])
    number = store.commit({"parts": [entry]})
    foreign = other.write("00001", some_batches()["images"])
    _raises(H3labError, lambda: store.commit({"parts": [entry, foreign]}))
    assert store.manifest()["number"] == number, "a manifest without its parts became the current one"


def check_kept(factory: Factory, folder: Path) -> None:
    """A part that was written is there before a manifest names it, and is garbage once one names others."""
    store = factory(folder)
    written = [store.write(f"{n:05d}", batch) for n, batch in enumerate(some_batches().values())]
    assert factory(folder).kept(written) == [True] * len(written), "parts that were written are not there"
    foreign = factory(folder / "other").write("00009", some_batches()["dense"].take(slice(0, 2)))
    assert store.kept([written[0], foreign]) == [True, False] and store.kept([]) == []
    store.commit({"parts": written[:1]})
    store.collect_garbage()
    assert store.kept(written[:2]) == [True, False], "what no manifest names is still there"


STORE_CHECKS: tuple[Callable[[Factory, Path], None], ...] = (
    check_round_trip,
    check_order,
    check_manifests,
    check_old_rows,
    check_writing_again,
    check_turns,
    check_committers,
    check_hashes,
    check_documents,
    check_missing_parts,
    check_kept,
)


def _same(one: Batch, two: Batch, what: str) -> None:
    found, expected = columns(one), columns(two)
    assert list(found) == list(expected), f"{what}: {list(found)} came back, {list(expected)} were written"
    for name, array in expected.items():
        other = found[name]
        assert is_sparse(other) == is_sparse(array), f"{what}: {name} changed its form"
        assert other.dtype == array.dtype and other.shape == array.shape, (
            f"{what}: {name} is {other.dtype} {other.shape}"
        )
        equal = (other != array).nnz == 0 if is_sparse(array) else np.array_equal(other, array)
        assert equal, f"{what}: {name} has other numbers"


def _raises(kind: type[Exception], call: Callable[[], Any]) -> Exception:
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected, nothing was raised")
