"""Laboratories that start, do not start, are started twice, and end: each in a home of its own."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.preprocessing import StandardScaler

import h3lab as h3
from h3lab import cli
from h3lab.cluster import lab as lab_module
from h3lab.cluster.labfolder import LabFolder
from h3lab.errors import EngineLost, LabError
from h3lab.running import snapshots

from .conftest import network, until

BROKEN = """
import os, sys
if "ipyparallel.engine" in sys.orig_argv:
    sys.stderr.write("".join(f"line {number}\\n" for number in range(40)) + "this engine has no licence\\n")
    sys.stderr.flush()
    os._exit(7)
"""


def python(code, **more):
    text = textwrap.dedent(code)
    return subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, **more)


def test_an_engine_that_does_not_start_is_named_with_the_end_of_its_log(other_home, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(BROKEN)
    with monkeypatch.context() as broken:
        broken.setenv("PYTHONPATH", str(tmp_path))
        with pytest.raises(EngineLost, match=r"(?s)engines did not start.*slot0: .*this engine has no licence") as told:
            h3.Lab(engines=1)
    shown = str(told.value)
    assert "line 21\n" in shown and "line 20\n" not in shown
    assert not LabFolder().kept and LabFolder().status["state"] == "ended"
    # The cure works in the next cell.
    with h3.Lab(engines=1) as lab:
        assert "slot0 ready" in repr(lab)


def test_an_engine_that_hangs_is_named_when_the_time_is_over(other_home, tmp_path, monkeypatch):
    code = 'import signal, sys\nif "ipyparallel.engine" in sys.orig_argv:\n    signal.pause()\n'
    (tmp_path / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(lab_module, "START_SECONDS", 8.0)
    with pytest.raises(EngineLost, match=r"(?s)not every engine is ready after.*slot0 is starting"):
        h3.Lab(engines=1)
    assert not LabFolder().kept and LabFolder().status["state"] == "ended"


def test_leaving_ends_what_was_started_and_waits_for_its_runs(other_home, digits):
    with h3.Lab(engines=1) as lab:
        run = lab.train(h3.Actor("waited", h3.TorchModel(network)), digits, epochs=2)
    assert run.state == "finished"
    assert not lab._folder.kept and lab._folder.status["state"] == "ended"
    with pytest.raises(LabError, match=r"h3\.Lab\(engines=2\)"):
        lab.train(h3.Actor("late", h3.TorchModel(network)), digits)
    assert h3.attach("waited").frame()["step"].tolist() == run.frame()["step"].tolist()


START = """
    import sys
    import h3lab as h3
    lab = h3.Lab(engines=1)
    print("pid", lab._folder.status["pid"], [slot["pid"] for slot in lab._folder.status["slots"]], flush=True)
"""


def test_two_notebooks_that_start_a_lab_at_once_have_one_and_stop_all_ends_it(other_home, capsys):
    notebooks = [python(START) for _ in range(2)]
    outputs = [notebook.communicate(timeout=120)[0] for notebook in notebooks]
    told = {line for output in outputs for line in output.splitlines() if line.startswith("pid ")}
    assert len(told) == 1 and sum("joined the lab" in output for output in outputs) == 1
    # Both notebooks have ended; the lab has not.
    assert LabFolder().kept
    assert cli.main(["stop", "--all"]) == 0
    assert "lab: ended" in capsys.readouterr().out
    assert not LabFolder().kept and LabFolder().status["reason"] == "h3lab stop --all"


FOLLOW = """
    import torch
    import h3lab as h3
    from sklearn.datasets import load_digits
    lab = h3.Lab(engines=1)
    build = lambda spec: torch.nn.Linear(spec.features, spec.outputs)
    run = lab.train(h3.Actor("followed", h3.TorchModel(build)), load_digits(return_X_y=True), epochs=100_000)
    print("waits", flush=True)
    run.wait()
"""


def test_an_interrupt_ends_the_waiting_and_not_the_run_and_stop_all_ends_both(other_home):
    notebook = python(FOLLOW, stderr=subprocess.PIPE)
    until(lambda: "waits" in notebook.stdout.readline(), what="it waits")
    until(lambda: h3.attach("followed").step > 5, what="five steps")
    notebook.send_signal(signal.SIGINT)
    out, err = notebook.communicate(timeout=60)
    assert "the run goes on: h3.attach('followed/1')" in out and err.splitlines()[-1] == "KeyboardInterrupt"
    assert err.count('File "') <= 3 and "sleep" not in err, f"where it slept is nobody's affair: {err}"
    run = h3.attach("followed")
    reached = run.step
    until(lambda: run.step > reached + 20, what="it goes on")
    assert cli.main(["stop", "--all"]) == 0
    assert run.state == "stopped" and run.actor is not None


WITHIN = """
    import torch
    import h3lab as h3
    from sklearn.datasets import load_digits
    build = lambda spec: torch.nn.Linear(spec.features, spec.outputs)
    with h3.Lab(engines=1) as lab:
        runs = [lab.train(h3.Actor(name, h3.TorchModel(build)), load_digits(return_X_y=True), epochs=100_000)
                for name in ("trains", "waits")]
        print("begun", flush=True)
        runs[0].wait()
"""


def test_an_interrupt_within_a_lab_stops_its_runs_with_snapshots_and_ends_it(other_home):
    script = python(WITHIN, stderr=subprocess.PIPE)
    until(lambda: "begun" in script.stdout.readline(), what="both are begun")
    until(lambda: h3.attach("trains").step > 5, what="five steps")
    script.send_signal(signal.SIGINT)
    out, err = script.communicate(timeout=60)
    assert "goes on" not in out and out.count("begun in this `with` block, which an exception has left") == 2
    assert err.splitlines()[-1] == "KeyboardInterrupt" and err.count('File "') <= 3
    trains, waits = h3.attach("trains"), h3.attach("waits")
    assert trains.state == waits.state == "stopped"
    assert trains.stopped_at == trains.step == snapshots.newest_step(trains.folder) and waits.step == 0
    assert not LabFolder().kept and LabFolder().status["state"] == "ended"


LOOK = """
    import h3lab as h3
    lab = h3.Lab()
    print("looks", flush=True)
    input()
"""


def test_a_lab_that_another_notebook_looks_at_stays_when_its_block_ends_and_closing_twice_is_fine(other_home, capsys):
    with h3.Lab(engines=1) as lab:
        other = python(LOOK, stdin=subprocess.PIPE)
        until(lambda: "looks" in other.stdout.readline(), what="another one looks")
    assert "another notebook looks at the lab 'default', so it stays" in capsys.readouterr().out
    assert lab._folder.kept and "slot0 ready" in repr(lab) and repr(lab).endswith("ends 12 h after its last use")
    assert cli.main(["extend", "1d"]) == 0
    assert capsys.readouterr().out == "the lab 'default' ends 24 h after its last use\n"
    assert cli.main(["ps"]) == 0 and "ends 24 h after its last use (h3lab extend 24h)" in capsys.readouterr().out
    with pytest.raises(LabError, match=r"profile='slurm' came, but .* has none.*h3\.Lab\(profile='slurm'\)"):
        h3.Lab(profile="slurm")
    other.communicate("", timeout=60)
    lab.close()
    lab.close()
    assert "ended: no slots" in repr(lab) and lab.runs == []
    pipeline = h3.Pipeline(h3.Preprocessor("all", ["x0"], StandardScaler()))
    for use in (lambda: lab.prepare(pipeline, np.zeros((8, 1))), lambda: lab.extend(1)):
        with pytest.raises(LabError, match=r"the lab has ended \(somebody closed it\). Start one: h3.Lab\(engines=2\)"):
            use()
    assert cli.main(["extend", "1d"]) == 1 and "Start one" in capsys.readouterr().err


PREPARE = """
    import os, time
    import numpy as np
    import h3lab as h3
    from sklearn.preprocessing import FunctionTransformer

    def slowly(X):
        if "H3LAB_SLOT" in os.environ:  # the first rows are tried in the notebook itself
            print("works", flush=True)
            time.sleep(3600)
        return X

    lab = h3.Lab()
    print("looks", flush=True)
    try:
        lab.prepare(h3.Pipeline(h3.Preprocessor("all", ["x0"], FunctionTransformer(slowly))), np.zeros((8, 1)))
    except h3.errors.LabError as error:
        print("LabError:", error)
"""


def test_closing_does_not_take_the_engines_from_under_another_notebook_that_prepares(other_home):
    lab = h3.Lab(engines=1)
    other = python(PREPARE)
    until(lambda: "looks" in other.stdout.readline(), what="it has joined")
    until(
        lambda: any("works" in log.read_text() for log in lab._folder.jobs.glob("*/workers/*.log")), what="it prepares"
    )
    with pytest.raises(LabError, match=r"somebody prepares a feed here.*lab\.close\(force=True\)"):
        lab.close()
    lab.close(force=True)
    assert "LabError: the lab has ended meanwhile (somebody closed it)" in other.communicate(timeout=60)[0]


def test_a_keeper_whose_home_was_removed_ends_its_engines(other_home):
    lab = h3.Lab(engines=1)
    shutil.rmtree(lab._folder.path)  # what is written at this moment may make it again; the fixture waits for the end
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(other_home)


def left_alone(name):
    """A run whose lab was ended under it, as when a machine is shut down."""
    lab = h3.Lab(engines=1)
    X, y = np.random.default_rng(0).normal(size=(64, 4)), np.arange(64) % 2
    run = lab.train(h3.Actor(name, SGDClassifier(loss="log_loss")), (X, y), epochs=10**7)
    until(lambda: run.step > 100, what="a hundred steps")
    run.snapshot()
    os.kill(lab._folder.status["pid"], signal.SIGTERM)
    until(lambda: lab._folder.status["state"] == "ended" and not run.folder.locked, what="the lab has ended")
    return run


def test_a_run_that_its_lab_has_left_goes_on_in_the_next_lab(other_home):
    run = left_alone("left")
    assert h3.attach("left").step == run.step > 100
    with pytest.raises(LabError, match=r"left/1.*SIGTERM.*h3\.Lab\(\) starts it again"):
        run.wait()
    reached = run.step
    with h3.Lab() as lab:
        until(lambda: run.step > reached + 100, what="it goes on")
        run.stop()
        assert not lab.runs
    steps = run.frame()["step"].tolist()
    assert steps == list(range(1, len(steps) + 1)) and len(steps) == run.stopped_at


def test_a_run_that_its_lab_has_left_can_be_stopped_without_another(other_home):
    run = left_alone("forgotten")
    run.stop()
    assert run.state == "stopped" and 100 <= run.stopped_at <= run.step
    assert run.actor.score(np.zeros((2, 4)), [0, 1]) == 0.5
    run.delete()


class Telling(LogisticRegression):
    """Says where it is fitted."""

    def fit(self, X, y, sample_weight=None):
        print("draws with", os.environ["MPLBACKEND"], "child of", os.environ.get("JPY_PARENT_PID"), "in", os.getcwd())
        return super().fit(X, y, sample_weight)


def test_ranks_have_the_folder_of_the_notebook_and_not_what_ties_it_to_its_page(other_home, tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    monkeypatch.chdir(tmp_path)
    with h3.Lab(engines=1) as lab:
        run = lab.train(h3.Actor("telling", Telling()), ([[0.0], [1.0]], [0, 1]))
    assert f"draws with agg child of None in {tmp_path}" in run.logs()
