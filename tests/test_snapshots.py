"""Snapshots are whole or not there, and the newest whole one counts."""

import numpy as np
import pytest

from h3lab.running import snapshots
from h3lab.running.folder import RunFolder


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("H3LAB_HOME", str(tmp_path))
    return RunFolder.claim("digits")


def tree(step):
    return {"step": step, "weights": np.arange(step, dtype="float32"), "random": {"key": step**9}}


def test_before_the_first_there_is_none(run):
    assert snapshots.read(run) is None and snapshots.newest_step(run) == 0


def test_the_newest_is_read_and_two_are_kept(run):
    for step in (2, 9, 10, 99_999_990, 100_000_000):
        snapshots.write(run, step, tree(min(step, 50)))
    step, found = snapshots.read(run)
    assert step == snapshots.newest_step(run) == 100_000_000
    assert found["random"] == {"key": 50**9} and np.array_equal(found["weights"], np.arange(50, dtype="float32"))
    assert sorted(path.name for path in run.snapshots.iterdir()) == ["100000000.h3lab", "99999990.h3lab"]


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[:-3], lambda data: data[:60] + b"?" + data[61:]]
)
def test_a_damaged_one_is_passed_over(run, damage):
    snapshots.write(run, 5, tree(5))
    path = snapshots.write(run, 6, tree(6))
    path.write_bytes(damage(path.read_bytes()))
    assert snapshots.read(run)[0] == 5


def test_what_a_dying_writer_leaves_is_no_snapshot(run):
    snapshots.write(run, 5, tree(5))
    (run.snapshots / ".00000006.h3lab.x7f3").write_bytes(b"half")
    assert snapshots.read(run)[0] == snapshots.newest_step(run) == 5
