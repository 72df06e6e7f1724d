"""Who prepares into a place: one at a time, on one machine or on several; whoever died is not waited for."""

import os
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import MinMaxScaler, StandardScaler

import h3lab as h3
from h3lab.errors import StorageError
from h3lab.feeds.feed import Feed
from h3lab.preparing.prepare import prepare
from h3lab.stores import open_store, turns
from h3lab.stores.objects import Objects
from h3lab.testing.stores import some_batches

pytestmark = pytest.mark.service

HELD = """
import sys
from h3lab.stores import open_store
with open_store(sys.argv[1]).turn:
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["hdfs", "s3"])
def url(request):
    return f"{request.getfixturevalue(request.param)}/{uuid.uuid4().hex[:8]}"


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Makes this process another machine: the locks of the others are not its own."""

    def move(name: str) -> None:
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.setattr(turns, "room", lambda _: tmp_path / name)

    return move


@pytest.fixture
def holder(tmp_path):
    """Starts a process that holds the turn of a URL, on this machine or (its own home) on another one."""
    started = []

    def start(url: str, home: Path | None = None) -> subprocess.Popen:
        here = {} if home is None else {"H3LAB_HOME": str(home)}
        process = subprocess.Popen(
            [sys.executable, "-c", HELD, url],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), **here},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def store(value: float, url: str) -> Feed:
    return Feed.of(np.full((9, 2), value), np.full(9, value)).store(url)


def later(monkeypatch) -> None:
    """Leases that were not renewed have run out."""
    clock = turns.time.time
    monkeypatch.setattr(turns.time, "time", lambda: clock() + turns.LEASE_SECONDS)


def leases(url: str) -> list[str]:
    return [name for name in Objects(url).listing() if name.startswith(".lease-")]


def test_another_machine_is_refused_and_told_who_it_is(url, holder, tmp_path, monkeypatch):
    store(1.0, url)
    other = holder(url, tmp_path / "home")
    who = rf"process {other.pid} on .*, since \d{{4}}-\d\d-\d\d .*its lease ends at \d\d:\d\d:\d\d"
    with pytest.raises(StorageError, match=who):
        store(2.0, url)
    other.send_signal(signal.SIGKILL)
    other.wait()
    with pytest.raises(StorageError, match=who):
        store(2.0, url)  # who looks from another machine cannot know it
    later(monkeypatch)
    assert store(2.0, url).arrays()[1].tolist() == [2.0] * 9
    assert leases(url) == []


@pytest.mark.parametrize("url", ["hdfs"], indirect=True)
def test_who_was_killed_on_this_machine_is_not_waited_for(url, holder):
    other = holder(url)
    with pytest.raises(StorageError, match=f"process {other.pid}"):
        store(1.0, url)
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert len(store(1.0, url)) == 9 and leases(url) == []


def test_who_was_cut_off_finds_that_the_turn_is_another_ones(url, machine, monkeypatch):
    slow, quick = open_store(url), open_store(url)
    machine("a")
    with slow.turn:
        entry = slow.write("00000", some_batches()["dense"])
        slow.turn.confirm()
        machine("b")
        with pytest.raises(StorageError, match="another process is preparing into"):
            quick.turn.__enter__()
        later(monkeypatch)
        with quick.turn:
            number = quick.commit({"parts": [quick.write("00000", some_batches()["sparse"])]})
            with pytest.raises(StorageError, match=r"was cut off for more than 120 s, and another one has begun"):
                slow.commit({"parts": [entry]})
            with pytest.raises(StorageError, match="was cut off"):
                slow.collect_garbage()
            quick.turn.confirm()
    assert open_store(url).manifest()["number"] == number and leases(url) == []


def test_a_lease_is_renewed_while_its_owner_lives(machine, monkeypatch):
    url = f"memory://feeds/{uuid.uuid4().hex[:8]}"
    monkeypatch.setattr(turns, "RENEW_SECONDS", 0.001)
    renewed, claim = threading.Event(), Objects.claim

    def seen(self, name, data):
        found = claim(self, name, data)
        if name == ".lease-5":
            renewed.set()
        return found

    monkeypatch.setattr(Objects, "claim", seen)
    with open_store(url).turn:
        assert renewed.wait(10)
        assert len(leases(url)) in (1, 2)  # a new one is made before the old one goes
    assert leases(url) == []


def test_a_name_is_claimed_by_one_alone(url):
    barrier, won = threading.Barrier(6), []

    def claim(number: int) -> None:
        files = Objects(url)
        files.listing()
        barrier.wait()
        if files.claim("name", b"%d" % number):
            won.append(number)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and Objects(url).read("name") == b"%d" % won[0]
    assert not Objects(url).claim("name", b"late") and list(Objects(url).listing()) == ["name"]


def pipeline(worker) -> h3.Pipeline:
    return h3.Pipeline(h3.Preprocessor("a", ["a"], worker), label="kind")


def test_two_machines_that_prepare_at_once_make_no_mixture(url, monkeypatch, tmp_path):
    """Each has its own feed or is refused, and what is there afterwards is that of one of them."""

    def room(name: str) -> Path:  # a thread is a machine
        (own := tmp_path / threading.current_thread().name).mkdir(exist_ok=True)
        return own

    monkeypatch.setattr(turns, "room", room)
    rows = pd.DataFrame({"a": np.arange(50.0), "kind": np.arange(50) % 2})
    workers = {"standard": StandardScaler(), "between": MinMaxScaler()}
    expected = {name: prepare(pipeline(worker), rows).arrays()[0] for name, worker in workers.items()}
    barrier, told = threading.Barrier(2), {}

    def go(name: str) -> None:
        barrier.wait()
        try:
            feed = prepare(pipeline(workers[name]), rows, to=url)
            told[name] = (feed.pipeline.fingerprint, feed.arrays()[0])
        except StorageError as error:
            told[name] = str(error)

    threads = [threading.Thread(target=go, args=(name,)) for name in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = {name: found for name, found in told.items() if not isinstance(found, str)}
    assert done, told
    for name, found in told.items():
        if name in done:
            assert np.array_equal(found[1], expected[name])
        else:
            assert "another process is preparing into" in found
    opened = h3.open_feed(url)
    assert (opened.pipeline.fingerprint, opened.arrays()[0].tolist()) in [(f, x.tolist()) for f, x in done.values()]
