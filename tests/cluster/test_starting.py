"""Laboratories that start, do not start, are started twice, and end: each in a home of its own."""

import contextlib
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest

import h3lab as h3
from h3lab import cli
from h3lab.cluster import lab as lab_module
from h3lab.cluster.labfolder import LabFolder
from h3lab.errors import EngineLost, LabError

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
    assert "the run goes on: h3.attach('followed/1')" in out and "KeyboardInterrupt" in err
    run = h3.attach("followed")
    reached = run.step
    until(lambda: run.step > reached + 20, what="it goes on")
    assert cli.main(["stop", "--all"]) == 0
    assert run.state == "stopped" and run.actor is not None


def test_a_keeper_whose_home_was_removed_ends_its_engines(other_home):
    lab = h3.Lab(engines=1)
    shutil.rmtree(lab._folder.path)  # what is written at this moment may make it again; the fixture waits for the end
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(other_home)


def test_a_run_whose_journal_is_full_pauses_and_goes_on_when_it_may(other_home, digits, monkeypatch):
    from h3lab.cluster.launch import Launch

    monkeypatch.setattr(Launch.__init__, "__defaults__", _with_limit(Launch.__init__.__defaults__, 20_000))
    with h3.Lab(engines=1) as lab:
        run = lab.train(h3.Actor("full", h3.TorchModel(network)), digits, epochs=100_000)
        until(lambda: run.state == "paused", what="it pauses")
        assert next(event for event in run.events if event["event"] == "full")["size"] > 20_000
        assert "its limit: the run pauses" in run.logs()
        held = run.step
        run.resume()
        until(lambda: run.step > held, what="it goes on")
        until(lambda: run.state == "paused", what="it pauses again")
        assert run.step >= 2 * held * 0.9
        run.stop()


def _with_limit(defaults, size):
    return tuple(size if value == 10**9 else value for value in defaults)
