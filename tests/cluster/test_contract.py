"""The promise: the run belongs to the cluster, the notebook is a viewer."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import h3lab as h3

from .conftest import network, timeless, until

CELL = textwrap.dedent("""
    import h3lab as h3, torch
    from sklearn.datasets import load_digits
    X, y = load_digits(return_X_y=True)
    lab = h3.Lab(engines=2)
    net = lambda spec: torch.nn.Sequential(
        torch.nn.Linear(spec.features, 64), torch.nn.ReLU(), torch.nn.Linear(64, spec.outputs))
    run = lab.train(h3.Actor("contract", h3.TorchModel(net, lr=1e-3)), (X, y), epochs=20_000, validation=0.2)
    print("started", flush=True)
    run.wait()
""")


def test_a_killed_kernel_leaves_its_run_and_a_new_one_finds_every_record(lab, digits):
    kernel = subprocess.Popen([sys.executable, "-c", CELL], stdout=subprocess.PIPE, text=True)
    until(lambda: "started" in kernel.stdout.readline(), what="the cell")
    until(lambda: h3.attach("contract").step > 100, what="a hundred steps")
    os.kill(kernel.pid, signal.SIGKILL)
    kernel.wait()
    kernel.stdout.close()
    reached = h3.attach("contract").step
    until(lambda: h3.attach("contract").step > reached + 100, what="training goes on")

    run = h3.attach("contract")
    assert "steps/s" in repr(run)
    assert "step" in run.set(lr=1e-4)
    run.pause()
    assert run.state == "paused"
    steps = run.frame()["step"].tolist()
    assert steps == list(range(1, len(steps) + 1))
    # What the journal's lines say, read without h3lab.
    lines = [json.loads(line) for path in run.folder.journal.iterdir() for line in path.read_text().splitlines()]
    assert {line["step"] for line in lines if "event" not in line} == set(steps)
    run.resume()
    run.stop()
    assert run.state == "stopped" and run.stopped_at == run.step
    assert run.actor.score(*digits) > 0.9


def test_a_new_setting_holds_from_the_step_it_is_confirmed_at(long_run):
    said = long_run.set(lr=1e-4)
    event = next(e for e in reversed(long_run.events) if e["event"] == "set")
    assert said == f"lr=0.0001 took effect at step {event['step']}"
    assert long_run.settings.lr == 1e-4


def test_pause_holds_the_steps_and_resume_goes_on(long_run):
    long_run.pause()
    held = long_run.step
    assert long_run.state == "paused"
    assert long_run.step == held
    long_run.resume()
    until(lambda: long_run.step > held, what="it goes on")


def test_the_remote_run_has_the_same_bits_as_the_local_loop(lab, digits):
    run = lab.train(h3.Actor("bits", h3.TorchModel(network)), digits, epochs=3, validation=0.2).wait()
    local = h3.Actor("bits", h3.TorchModel(network))
    records = list(h3.train(local, digits, epochs=3, validation=0.2))

    assert timeless(run.records()) == timeless(records)
    remote, here = run.actor.model_.parameters(), local.model_.parameters()
    assert all((remote[name] == here[name]).all() for name in here)
