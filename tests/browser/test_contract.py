"""The contract, as a person lives it: a training in a notebook, its kernel killed, everything back in a new one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest
from browsing import Notebook

from h3lab.cluster.lab import Lab
from h3lab.cluster.labfolder import LabFolder
from h3lab.running.folder import find

TRAIN = """
import h3lab as h3, torch
from sklearn.datasets import load_digits
X, y = load_digits(return_X_y=True)
lab = h3.Lab(engines=2)
net = lambda spec: torch.nn.Sequential(
    torch.nn.Linear(spec.features, 64), torch.nn.ReLU(), torch.nn.Linear(64, spec.outputs))
run = lab.train(h3.Actor("digits", h3.TorchModel(net, lr=1e-3)), (X, y), epochs=20_000, validation=0.2)
run
"""
ATTACH = """
import h3lab as h3
from sklearn.datasets import load_digits
X, y = load_digits(return_X_y=True)
run = h3.attach("digits")
run
"""
STEER = 'print(run.set(lr=1e-4), run.pause(), run.resume(), run.stop(), sep="\\n")'


@pytest.fixture
def lab() -> Iterator[None]:
    """Whatever lab a notebook has started is closed."""
    yield
    if LabFolder().kept:
        Lab().close(force=True)


def test_a_training_outlives_its_notebook(notebook: Callable[..., Notebook], lab: None):
    book = notebook([TRAIN, ATTACH, STEER, "run.actor.score(X, y)"])
    book.run(0)
    book.wait(lambda: book.painted() > 200, 90, "a curve of a real training")
    assert book.text("place") == "slot0" and book.text("pill") == "training"
    os.kill(book.kernel_process().pid, signal.SIGKILL)
    book.wait(lambda: "this view is frozen" in book.text("code", 0), 30, "the card says that it is frozen")
    known = book.held(0)
    book.ready()

    book.run(1)
    book.wait(lambda: book.held(1) > known, 30, "the new kernel has what was recorded meanwhile")
    steps = book.steps(1)
    assert steps == list(range(1, len(steps) + 1)), "every record since step 1, each once"
    book.type("lr", "5e-4", 1)
    book.wait(lambda: "run.set(lr=5e-4)  # took effect at step" in book.text("code", 1), what="the rate from the panel")

    book.run(2)
    said = "".join(output.get("text", "") for output in book.output(2))
    assert "lr=0.0001 took effect at step" in said and "stopped after step" in said
    book.wait(lambda: book.text("pill", 1) == "stopped", what="the card says so too")
    book.wait(lambda: book.painted(1) == find("digits").state["stopped_at"], what="the last record is on the screen")
    book.run(3)
    (score,) = book.output(3)
    assert float(score["data"]["text/plain"]) > 0.9
    assert not book.errors
