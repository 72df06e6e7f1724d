"""Stored rows: readers see the old set or the new one, and damage is named, never a crash."""

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from h3lab.batch import Batch
from h3lab.errors import DamagedData, DataError, StorageError
from h3lab.feeds.feed import Feed, open_feed
from h3lab.feeds.rows import columns
from h3lab.stores import checks, open_store
from h3lab.stores.columns import Columns
from h3lab.stores.states import FORMAT
from h3lab.testing import STORE_CHECKS
from h3lab.testing.stores import some_batches


def batch_of(value: float, rows: int = 50) -> Batch:
    return Batch(np.full((rows, 4), value), np.arange(rows) % 3, None, None, np.arange(rows, dtype=np.uint64))


def committed(folder, value: float = 1.0) -> Columns:
    store = Columns(folder)
    store.commit({"parts": [store.write("00000", batch_of(value))]})
    return store


@pytest.mark.parametrize("check", STORE_CHECKS)
def test_columns_keep_the_promises_of_a_store(check, tmp_path):
    check(Columns, tmp_path)


def test_a_manifest_can_be_read_by_people(tmp_path):
    store = committed(tmp_path)
    text = (tmp_path / "manifest-000001.json").read_text()
    manifest = json.loads(text)
    assert (manifest["format"], manifest["number"]) == (FORMAT, 1) and len(text.splitlines()) > 10
    file = manifest["parts"][0]["arrays"]["x"]["files"]["data"]
    assert (tmp_path / "parts" / file["file"]).stat().st_size == file["size"] == 50 * 4 * 8
    assert (
        np.fromfile(tmp_path / "parts" / file["file"], file["dtype"]).reshape(file["shape"]).tolist()
        == [[1.0] * 4] * 50
    )
    assert store.folder == tmp_path


def test_the_mapped_rows_are_read_only(tmp_path):
    store = committed(tmp_path)
    x = store.read(store.manifest()["parts"][0]).x
    with pytest.raises(ValueError, match="read-only"):
        x[0, 0] = 5


def files_of(store: Columns) -> list:
    return sorted(path for path in (store.folder / "parts").iterdir())


@pytest.mark.parametrize("harm", ["flip", "truncate", "lengthen", "remove"])
@pytest.mark.parametrize("name", some_batches())
def test_damage_is_named(harm, name, tmp_path):
    store = Columns(tmp_path)
    store.commit({"parts": [store.write("00000", some_batches()[name])]})
    for path in files_of(store):
        data = path.read_bytes()
        if harm == "flip" and data:
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        elif harm == "truncate" and data:
            path.write_bytes(data[:-1])
        elif harm == "lengthen":
            path.write_bytes(data + b"\0")
        elif harm == "remove":
            path.unlink()
        else:
            continue
        with pytest.raises(DamagedData, match=path.name):
            Columns(tmp_path).read(store.manifest()["parts"][0])
        path.write_bytes(data)
    assert len(store.read(store.manifest()["parts"][0])) == len(some_batches()[name])


def test_sizes_are_checked_before_any_row_is_read(tmp_path):
    store = committed(tmp_path)
    path = files_of(store)[0]
    os.truncate(path, 8)
    with pytest.raises(DamagedData, match=path.name):
        store.rows(store.manifest())


def test_bytes_are_checked_once_a_process_and_change(tmp_path, monkeypatch):
    store, calls = committed(tmp_path), []
    crc32 = checks.zlib.crc32
    monkeypatch.setattr(checks.zlib, "crc32", lambda *given: calls.append(given) or crc32(*given))
    for _ in range(3):
        Columns(tmp_path).read(store.manifest()["parts"][0])
    assert len(calls) == 3  # x, y and keys, not nine
    for path in files_of(store):
        os.utime(path, ns=(1, 1))
    Columns(tmp_path).read(store.manifest()["parts"][0])
    assert len(calls) == 6


def test_everything_is_on_the_disk_before_a_manifest_names_it(tmp_path, monkeypatch):
    events, fsync, link = [], os.fsync, os.link

    def synced(descriptor):
        events.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "link", lambda a, b: events.append(f"link {b.name}") or link(a, b))
    store = committed(tmp_path)
    named = events.index("link manifest-000001.json")
    assert {path.name for path in files_of(store)} | {"parts"} < set(events[:named])
    assert tmp_path.name in events[named:]


def test_equal_parts_share_their_files(tmp_path):
    store = committed(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in files_of(store)}
    entry = store.write("00000", batch_of(1.0))
    assert entry == store.manifest()["parts"][0] and set(files_of(store)) == set(before)


def test_a_kept_entry_needs_no_writing(tmp_path):
    """As a second preparation does it: parts that did not change keep their entries."""
    store = Columns(tmp_path)
    first = [store.write(f"{n:05d}", batch_of(n)) for n in range(3)]
    store.commit({"parts": first})
    store.commit({"parts": [first[0], store.write("00001", batch_of(9)), first[2]]})
    store.collect_garbage()
    taken = store.rows(store.manifest()).take(slice(None)).x[:, 0]
    assert taken.tolist() == [0.0] * 50 + [9.0] * 50 + [2.0] * 50


def test_garbage_is_what_the_last_two_manifests_do_not_name(tmp_path):
    for value in range(4):
        store = committed(tmp_path, value)
    abandoned = store.write("00001", batch_of(99))
    draft = tmp_path / "parts" / ".draft.1.0"
    draft.write_bytes(b"half a part")
    freed = store.collect_garbage()
    kept = {
        f["file"]
        for n in (3, 4)
        for p in store.manifest(n)["parts"]
        for a in p["arrays"].values()
        for f in a["files"].values()
    }
    assert {path.name for path in files_of(store)} == kept
    assert sorted(path.name for path in tmp_path.glob("manifest*")) == ["manifest-000003.json", "manifest-000004.json"]
    assert freed > abandoned["size"] and store.collect_garbage() == 0
    assert committed(tmp_path).manifest()["number"] == 5


def test_what_others_keep_in_the_folder_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "workroom").mkdir()
    committed(tmp_path).collect_garbage()
    assert (tmp_path / "notes.txt").read_text() == "mine" and (tmp_path / "workroom").is_dir()


@pytest.mark.parametrize("name", ["manifest-000001 (copy).json", "manifest-new.json", "pipeline-old.h3lab"])
def test_copies_beside_a_feed_are_no_states_of_it(name, tmp_path):
    store = committed(tmp_path)
    (tmp_path / name).write_text("{}")
    assert store.manifest()["number"] == 1
    again = committed(tmp_path)
    again.collect_garbage()
    assert again.manifest()["number"] == 2 and (tmp_path / name).exists()


def test_objects_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"00000\.x has Python objects"):
        Columns(tmp_path).write("00000", Batch(np.array([["a"]], dtype=object)))


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        ("{", DamagedData, "cannot be read"),
        ("[]", DamagedData, "cannot be read"),
        (json.dumps({"format": FORMAT + 1, "number": 2}), StorageError, "Update h3lab"),
    ],
)
def test_a_foreign_manifest_is_explained(content, kind, words, tmp_path):
    committed(tmp_path)
    (tmp_path / "manifest-000002.json").write_text(content)
    with pytest.raises(kind, match=words):
        open_feed(tmp_path)


def test_a_lost_pipeline_is_damage(tmp_path):
    store = Columns(tmp_path)
    store.commit({"parts": [store.write("00000", batch_of(1))], "pipeline": "abc"}, {"a": 1})
    (tmp_path / "pipeline-1.h3lab").write_bytes(b"something else")
    with pytest.raises(DamagedData, match=r"pipeline-1\.h3lab"):
        store.pipeline(store.manifest())
    (tmp_path / "pipeline-1.h3lab").unlink()
    with pytest.raises(DamagedData, match=r"pipeline-1\.h3lab is missing"):
        store.pipeline(store.manifest())


def test_a_number_whose_committer_died_is_skipped(tmp_path):
    store = committed(tmp_path)
    (tmp_path / "pipeline-2.h3lab").write_bytes(b"of a manifest that never came")
    number = store.commit({"parts": store.manifest()["parts"], "pipeline": "abc"}, {"a": 1})
    assert number == 3 and store.pipeline(store.manifest()) == {"a": 1}


def test_a_reader_sees_the_old_or_the_new(tmp_path):
    store, failures, seen, done = committed(tmp_path, 0.0), [], set(), threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                x, y = open_feed_of(tmp_path)
                seen.add(x[0, 0])
                if not (x == x[0, 0]).all() or y != x[0, 0]:
                    failures.append(x)
            except StorageError as error:  # two states have come between looking and opening
                if "prepared again" not in str(error):
                    failures.append(error)
            except Exception as error:
                failures.append(error)

    def open_feed_of(folder):
        manifest = Columns(folder).manifest()
        return Columns(folder).rows(manifest).take(slice(None)).x, manifest["value"]

    store.commit({"parts": store.manifest()["parts"], "value": 0.0})
    reader = threading.Thread(target=read)
    reader.start()
    for value in range(1, 60):
        store.commit(
            {"parts": [store.write("00000", batch_of(value)), store.write("00001", batch_of(value))], "value": value}
        )
    done.set()
    reader.join()
    assert not failures and len(seen) > 1


FILL = """
import resource, sys
import numpy as np
from h3lab.batch import Batch
from h3lab.errors import StorageError
from h3lab.feeds.feed import Feed, open_feed
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    Feed.of(np.zeros((100_000, 4)), np.zeros(100_000)).store(sys.argv[1])
except StorageError as error:
    print(error)
    print(len(open_feed(sys.argv[1])), [p.name for p in open_feed(sys.argv[1])._store.folder.rglob(".draft*")])
"""


MANY = """
import resource, sys
import numpy as np
from h3lab.batch import Batch
from h3lab.errors import StorageError
from h3lab.stores.columns import Columns
store = Columns(sys.argv[1])
x = np.ones((2, 3))
store.commit({"parts": [store.write(f"{n:05d}", Batch(x, None, None, None, np.arange(2))) for n in range(150)]})
resource.setrlimit(resource.RLIMIT_NOFILE, (128, int(sys.argv[2])))
try:
    print(len(store.rows(store.manifest()).take(slice(None))))
except StorageError as error:
    print(error)
"""


def test_a_feed_may_have_more_parts_than_files_may_be_open(tmp_path):
    def told(limit: int) -> str:
        command = [sys.executable, "-c", MANY, str(tmp_path), str(limit)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert told(4096) == "300"
    assert told(128) == (
        f"{tmp_path} cannot be read: this process may have 128 files open at a time. Allow it more (ulimit -n), or "
        "prepare from fewer, larger parts."
    )


def test_a_full_disk_leaves_the_old_feed(tmp_path):
    Feed.of(np.zeros((10, 4)), np.zeros(10)).store(tmp_path)
    done = subprocess.run([sys.executable, "-c", FILL, str(tmp_path)], capture_output=True, text=True)
    message, rest = done.stdout.splitlines()
    assert "3,200,000 bytes were wanted" in message and "still usable" in message and str(tmp_path) in message
    assert rest == "10 []", done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_really_full_disk_leaves_the_old_feed(tmp_path):
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(tmp_path)], capture_output=True
    ).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        Feed.of(np.zeros((10, 4)), np.zeros(10)).store(tmp_path)
        with pytest.raises(StorageError, match=r"320,000 bytes were wanted, [\d,]+ are free"):
            Feed.of(np.zeros((10_000, 4)), np.zeros(10_000)).store(tmp_path)
        assert len(open_feed(tmp_path)) == 10 and not list(tmp_path.rglob(".draft*"))
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


KILLED = """
import os, signal, sys
import numpy as np
from h3lab.stores import columns
from h3lab.feeds.feed import Feed
step = int(sys.argv[2])
calls = []
def die(name, real):
    def call(*given, **named):
        calls.append(name)
        if len(calls) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*given, **named)
    return call
for name in ("replace", "link", "fsync", "open"):
    setattr(os, name, die(name, getattr(os, name)))
Feed.of(np.ones((10, 4)), np.ones(10)).store(sys.argv[1])
print("done")
"""


@pytest.mark.slow
def test_a_writer_killed_anywhere_leaves_the_old_feed_or_the_new(tmp_path):
    """SIGKILL before each system call that moves, links, opens or waits for a file."""
    outcomes = []
    for step in range(1, 60):
        folder = tmp_path / str(step)
        Feed.of(np.zeros((10, 4)), np.zeros(10)).store(folder)
        done = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(step)], capture_output=True, text=True)
        y = open_feed(folder).arrays()[1]
        outcomes.append(float(y[0]))
        assert (y == y[0]).all()
        again = Feed.of(np.full((10, 4), 2.0), np.full(10, 2.0)).store(folder)
        assert (again.arrays()[1] == 2).all() and not list(folder.rglob(".draft*"))
        if "done" in done.stdout:
            break
    assert outcomes[0] == 0 and outcomes[-1] == 1 and len(outcomes) > 10
    assert outcomes == sorted(outcomes), "the new feed was there, and then was not"


def test_a_folder_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        Columns(tmp_path / "file").write("00000", batch_of(1))


def test_the_store_of_a_folder_is_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_store("a/b").folder == tmp_path / "a" / "b"
    assert open_store("~").folder.is_absolute() and open_store(f"file://{tmp_path}").folder == tmp_path


def test_parts_are_opened_when_they_are_asked_for(tmp_path):
    store = Columns(tmp_path)
    store.commit({"parts": [store.write(f"{n:05d}", batch_of(n)) for n in range(3)]})
    for path in files_of(store):
        if path.name.startswith("00002"):
            path.write_bytes(bytes(path.stat().st_size))
    rows = store.rows(store.manifest())
    assert rows.take(slice(0, 100)).x[-1, 0] == 1
    assert rows.take([99]).x[0, 0] == 1
    with pytest.raises(DamagedData, match="00002"):
        rows.take([100])


def test_every_column_of_a_batch_is_stored(tmp_path):
    batch = some_batches()["targets"]
    store = Columns(tmp_path)
    assert list(columns(store.read(store.write("0", batch)))) == ["x", "y", "soft", "keys"]
