"""A laboratory on an ipyparallel cluster that somebody else has started, and goes on to use."""

import os
from pathlib import Path

import ipyparallel as ipp
import numpy as np
import psutil
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import h3lab as h3
from h3lab.errors import EngineLost, LabError

from .conftest import until


@pytest.fixture
def cluster(tmp_path, other_home, monkeypatch):
    """One engine, as its owner would start it: it knows no H3LAB_HOME, and its Python may not even know h3lab."""
    monkeypatch.setenv("PYTHONPATH", str(Path(h3.__file__).parents[1]))
    (tmp_path / "security").mkdir()
    started = ipp.Cluster(
        n=1,
        profile_dir=str(tmp_path),
        load_profile=False,
        shutdown_atexit=False,
        controller_args=["--nodb", "--usethreads", "--HeartMonitor.period=500"],
        engine_launcher_class="local",
    )
    client = started.start_and_connect_sync()
    client.wait_for_engines(1, timeout=60)
    yield started, client
    client.close()
    started.stop_cluster_sync()


def servers(engine):
    """Where ranks and workers come from; multiprocessing's small tracker of resources stays with its process."""
    children = psutil.Process(engine).children()
    return [child for child in children if "forkserver" in " ".join(child.cmdline())]


def of_engine(client):
    return client[0].apply_sync(os.getpid)


def test_a_cluster_of_somebody_else_is_joined_used_and_left_as_it_was(cluster, capsys):
    started, client = cluster
    engine = of_engine(client)
    lab = h3.Lab(cluster=client)
    assert "joined an ipyparallel cluster: it restarts nothing there, and leaves it running" in capsys.readouterr().out
    assert "engine0 ready" in repr(lab)
    until(lambda: servers(engine), what="its forkservers")

    rows = np.random.default_rng(0).normal(size=(80, 3))
    frame = {"a": rows[:, 0], "b": rows[:, 1], "side": np.where(rows[:, 0] > 0, "right", "left")}
    pandas = pytest.importorskip("pandas")
    pipeline = h3.Pipeline(h3.Preprocessor("numbers", ["a", "b"], StandardScaler()), label="side")
    feed = lab.prepare(pipeline, pandas.DataFrame(frame))
    actor = h3.Actor("guest", LogisticRegression())
    run = lab.train(actor, feed).wait()
    assert run.state == "finished" and actor.score(feed) > 0.9
    with pytest.raises(LabError, match="1 slot"):
        lab.train(actor, feed, ranks=2)

    # A second notebook gives the Cluster in place of its Client.
    again = h3.Lab(cluster=started)
    assert again._folder.status["pid"] == lab._folder.status["pid"]
    lab.close()
    assert of_engine(client) == engine
    until(lambda: not servers(engine), what="what was started in the engine has ended")
    assert again._folder.status["state"] == "ended"


def test_what_is_no_cluster_is_refused_with_what_to_pass(other_home):
    with pytest.raises(LabError, match=r"a dict came.*h3\.Lab\(cluster=ipyparallel\.Client\(\)\)"):
        h3.Lab(cluster={"url": "tcp://127.0.0.1"})
    with pytest.raises(LabError, match="is not running. Start it first"):
        h3.Lab(cluster=ipp.Cluster(n=1, load_profile=False, profile_dir=str(other_home)))
    assert not (other_home / "labs/default/lab.json").exists()


def test_an_engine_that_cannot_serve_is_named_with_the_reason(cluster):
    client = cluster[1]

    def forget():
        import sys

        sys.modules["h3lab.cluster.host"] = None  # as where h3lab is not installed

    client[0].apply_sync(forget)
    with pytest.raises(EngineLost, match=r"(?s)engine0: .*h3lab must be installed where this engine runs"):
        h3.Lab(cluster=client)
    assert of_engine(client)
