"""Twice, and tomorrow: cells executed again, two notebooks on one laboratory, kernels that die or wait."""

import io
import json
import re
import subprocess
import sys
import textwrap

import nbformat
import pytest
from nbclient import NotebookClient

import h3lab as h3
from h3lab import cli
from h3lab.errors import LabError, RunNotFound, UsageError
from h3lab.running import progress, snapshots
from h3lab.running.folder import folders

from .conftest import network, until

RACE = """
    import os, pathlib, sys, time
    import numpy as np
    from sklearn.linear_model import SGDClassifier
    import h3lab as h3

    def meet(folder):
        # Whoever is writing its launch file waits a moment for another one that does the same.
        (folder / str(os.getpid())).touch()
        deadline = time.monotonic() + 1
        while len(list(folder.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.001)

    class Meeting(SGDClassifier):
        def __getstate__(self):
            meet(pathlib.Path(sys.argv[1]))
            return super().__getstate__()

    lab = h3.Lab()
    X, y = np.random.default_rng(0).normal(size=(64, 4)), np.arange(64) % 2
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        print("has", lab.train(h3.Actor("raced", Meeting(loss="log_loss")), (X, y), epochs=10**7).name)
    except h3.errors.NameInUse as error:
        print("refused", error)
"""


def python(code, *arguments, **more):
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **more)


def test_of_notebooks_that_start_one_name_in_the_same_instant_one_has_it(lab, tmp_path):
    notebooks = [python(RACE, tmp_path, stdin=subprocess.PIPE) for _ in range(2)]
    for notebook in notebooks:
        until(lambda n=notebook: "ready" in n.stdout.readline(), what="it stands at the line")
    for notebook in notebooks:
        notebook.stdin.write("go\n")
        notebook.stdin.flush()
    said = [notebook.communicate(timeout=60)[0].splitlines()[-1] for notebook in notebooks]
    assert len([line for line in said if line.startswith("has raced/")]) == 1, said
    assert len([line for line in said if line.startswith("refused") and "replace=True" in line]) == 1, said
    assert len([run for run in lab.runs if run.name.startswith("raced/")]) == 1


def test_a_run_that_does_not_exist_is_told_with_the_closest_and_the_list(lab, digits):
    run = lab.train(h3.Actor("sought", h3.TorchModel(network)), digits, epochs=1).wait()
    assert h3.attach().name == h3.attach("sought").name == h3.attach("sought/1").name == run.name == "sought/1"
    with pytest.raises(RunNotFound, match=r"Did you mean 'sought'\? Known: .*sought"):
        h3.attach("sougt")
    with pytest.raises(RunNotFound, match=r"no run 'sought/7'.*Known: sought/1\."):
        h3.attach("sought/7")
    with pytest.raises(UsageError, match=r"7 came; expected the name of a run, for example 'digits'"):
        h3.attach(7)
    run.delete()
    with pytest.raises(RunNotFound) as told:
        h3.attach("sought")
    assert "Known: sought" not in str(told.value), "a deleted run is not offered"
    assert not list(folders("sought"))


def test_a_forgotten_paused_run_says_until_when_and_is_then_stopped_with_a_snapshot(lab, digits, capsys):
    run = lab.train(h3.Actor("forgot", h3.TorchModel(network)), digits, epochs=100_000)
    until(lambda: run.step > 10, what="ten steps")
    run.pause()
    until(lambda: "lease_ends" in run.folder.state, what="it is told until when")
    assert re.search(r"^forgot/1  paused .*  until \w+ \d\d:\d\d, then its lab stops it", repr(run))
    assert run.status()["message"].endswith("lab.extend(hours) gives it longer")
    assert re.search(r"slot\d paused until \w+ \d\d:\d\d: forgot/1", repr(lab))
    capsys.readouterr()
    assert cli.main(["ps"]) == 0 and "paused until" in capsys.readouterr().out
    ends = run.folder.state["lease_ends"]
    lab.extend(hours=24)
    until(lambda: run.folder.state["lease_ends"] > ends + 11 * 3600, what="it may stay longer")
    try:
        lab.extend(hours=1 / 3600)
        until(lambda: run.state == "stopped", what="its lease is over")
    finally:
        lab.extend(hours=12)
    assert "it was paused for longer than its lease, and nobody resumed it" in run.status()["message"]
    assert "nobody resumed it" in (lab._folder.logs / "keeper.log").read_text()
    assert run.stopped_at == run.step == snapshots.newest_step(run.folder)
    until(lambda: not any(slot["run"] for slot in lab._folder.status["slots"]), what="its slot is free")
    with pytest.raises(UsageError, match=r"hours=-1 came; .*lab\.extend\(hours=24\)"):
        lab.extend(hours=-1)


def test_a_run_that_is_resumed_in_time_is_not_stopped(lab, long_run):
    long_run.pause()
    until(lambda: "lease_ends" in long_run.folder.state, what="it is told until when")
    long_run.resume()
    reached = long_run.step
    until(lambda: long_run.step > reached + 10, what="it goes on")
    assert "lease_ends" not in long_run.folder.state and "until" not in repr(long_run)


def test_set_and_pause_on_a_run_that_waits_hold_from_its_first_step(lab, digits, long_run):
    second = lab.train(h3.Actor("beside", h3.TorchModel(network)), digits, epochs=100_000)
    third = lab.train(h3.Actor("waiting", h3.TorchModel(network)), digits, epochs=100_000)
    until(lambda: re.search(r"queued behind .*'beside'", repr(third)), what="it says behind whom")
    assert third.set(lr=3e-3).startswith("recorded: the run is queued")
    assert third.pause().startswith("recorded: the run is queued")
    second.stop()
    until(lambda: third.state == "paused", what="it has begun")
    assert third.step == 0 and third.settings.lr == 3e-3
    fourth = lab.train(h3.Actor("never", h3.TorchModel(network)), digits, epochs=1)
    until(lambda: "queued behind" in repr(fourth), what="it waits")
    assert fourth.stop() == "stopped" and fourth.step == 0 and "stopped before it began" in repr(fourth)
    third.resume()
    until(lambda: third.step > 3, what="it trains")
    third.stop()
    assert third.set(lr=1) == third.pause() == third.resume() == third.stop() == "stopped"


SECOND = """
    import sys
    import numpy as np
    import h3lab as h3
    from sklearn.linear_model import SGDClassifier
    from sklearn.preprocessing import StandardScaler
    import pandas as pd
    X = np.random.default_rng(0).normal(size=(64, 4))
    rows = pd.DataFrame(X, columns=list("abcd")).assign(y=np.arange(64) % 2)
    with h3.Lab() as lab:
        pipeline = h3.Pipeline(h3.Preprocessor("all", list("abcd"), StandardScaler()), label="y")
        feed = lab.prepare(pipeline, rows, to=sys.argv[1])
        run = lab.train(h3.Actor("second", SGDClassifier(loss="log_loss")), feed, epochs=10**7)
        print("begun", len(feed), *sorted(run.name for run in lab.runs), flush=True)
        input()
        1 / 0
"""


def test_two_notebooks_train_on_one_lab_see_all_runs_and_the_error_of_one_is_its_own(lab, long_run, tmp_path):
    notebook = python(SECOND, tmp_path / "feed", stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    said = until(lambda: next((line for line in notebook.stdout if line.startswith("begun")), ""), what="it trains")
    second = h3.attach("second")
    assert said.split() == ["begun", "64", second.name, long_run.name] or said.split()[2:] == [
        long_run.name,
        second.name,
    ]
    assert {run.name for run in lab.runs} == {long_run.name, second.name}
    assert {long_run.name, second.name} <= set(h3.runs()["name"])
    until(lambda: second.step > 10, what="both train")
    with pytest.raises(LabError, match=f"{long_run.name}.* still train.*close\\(force=True\\)"):
        lab.close()
    out, err = notebook.communicate("\n", timeout=60)
    assert "ZeroDivisionError" in err and f"{second.name}  stopped" in out
    assert second.state == "stopped" and second.step == snapshots.newest_step(second.folder)
    reached = long_run.step
    until(lambda: long_run.step > reached + 20, what="the first one's run goes on")
    assert lab._folder.kept, "the second notebook had joined this lab, so it does not end it"


PREPARE = """
    import sys
    import numpy as np, pandas as pd
    import h3lab as h3
    from sklearn.preprocessing import StandardScaler
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(200_000, 4)), columns=list("abcd"))
    pipeline = h3.Pipeline(h3.Preprocessor("all", list("abcd"), StandardScaler()))
    lab = h3.Lab()
    print("ready", flush=True)
    sys.stdin.readline()
    print(len(lab.prepare(pipeline, rows, to=sys.argv[1])))
"""


def test_two_notebooks_that_prepare_one_feed_at_once_both_have_it(lab, tmp_path):
    notebooks = [python(PREPARE, tmp_path / "feed", stdin=subprocess.PIPE) for _ in range(2)]
    for notebook in notebooks:
        until(lambda n=notebook: "ready" in n.stdout.readline(), what="it stands at the line")
    for notebook in notebooks:
        notebook.stdin.write("go\n")
        notebook.stdin.flush()
    assert [notebook.communicate(timeout=60)[0].split()[-1] for notebook in notebooks] == ["200000"] * 2
    assert len(h3.open_feed(tmp_path / "feed")) == 200_000


@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
def test_waiting_prints_sparse_lines_in_a_pipe_and_one_updating_line_in_a_terminal(long_run, monkeypatch, terminal):
    shown = io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.05)
    assert long_run.wait(timeout_seconds=1.0) is long_run
    text = shown.getvalue()
    assert long_run.name[:20] in text and text.endswith("\n")
    if terminal:
        assert text.count("\r") > 4 and text.count("\n") == 1
    else:
        assert 2 <= text.count("\n") <= 5 and "\r" not in text, "each pause is twice as long as the one before"


COUNT = """
import gc, json, os, threading
import numpy as np, psutil
from comm import get_comm_manager
from sklearn.linear_model import SGDClassifier
import h3lab as h3
X, y = np.random.default_rng(0).normal(size=(64, 4)), np.arange(64) % 2
lab = h3.Lab()

def count():
    gc.collect()
    status = lab._folder.status
    me, keeper, *engines = map(psutil.Process, [os.getpid(), status["pid"], *(slot["pid"] for slot in status["slots"])])
    print(json.dumps({
        "threads": threading.active_count(), "descriptors": me.num_fds(), "processes": len(me.children(recursive=True)),
        "comms": len(get_comm_manager().comms),
        "keeper": [keeper.num_fds(), keeper.num_threads(), len(keeper.children(recursive=True))],
        "engines": [[engine.num_threads(), len(engine.children(recursive=True))] for engine in engines],
        "engines' descriptors": [engine.num_fds() for engine in engines],
    }))
"""
TRAIN = """
run = lab.train(h3.Actor("leaky", SGDClassifier(loss="log_loss")), (X, y), epochs=3)
run.wait()
"""


def test_a_cell_that_trains_executed_thirty_times_leaks_nothing(lab):
    cells = list(map(nbformat.v4.new_code_cell, (COUNT, TRAIN, "count()")))
    client = NotebookClient(nbformat.v4.new_notebook(cells=cells), timeout=60, kernel_name="python3")

    def counted(times):
        for _ in range(times):
            client.execute_cell(cells[1], 1)
        until(lambda: not any(slot["run"] for slot in lab._folder.status["slots"]), what="free slots")
        client.execute_cell(cells[2], 2)
        return json.loads(cells[2].outputs[0].text)

    with client.setup_kernel():
        client.execute_cell(cells[0], 0)
        first, before, after = counted(2), counted(20), counted(8)  # a kernel keeps the cards of its last twenty runs
    # ipykernel gives each thread of an engine that prints a socket, which goes when garbage is collected: some ten.
    few, _, many = (each.pop("engines' descriptors") for each in (first, before, after))
    # A picture may be in the making at either count; a leak would be one a run.
    assert all(after.pop(name) < before.pop(name) + 4 for name in ("descriptors", "threads"))
    assert after == before and all(late < early + 20 for early, late in zip(few, many, strict=True))
    assert h3.attach("leaky").name == "leaky/30" and len(h3.runs().query("name.str.startswith('leaky/')")) == 30
    cards = [output for output in cells[1].outputs if "h3lab-run" in output.get("data", {}).get("text/html", "")]
    assert len(cards) == 1, "the cell shows its run once, though wait() and its last line both show it"
