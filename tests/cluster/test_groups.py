"""Two ranks train one model: same parameters, and nobody waits for the dead."""

import os
import signal
import time

import numpy as np
import pytest

import h3lab as h3
from h3lab.cluster.attempt import Attempt
from h3lab.errors import RunFailed

from .conftest import network, until


def test_two_ranks_agree_with_one(lab, digits):
    two = lab.train(h3.Actor("two", h3.TorchModel(network)), digits, epochs=3, ranks=2).wait()
    one = lab.train(h3.Actor("one", h3.TorchModel(network)), digits, epochs=3).wait()
    a, b = two.actor.model_.parameters(), one.actor.model_.parameters()
    assert max(float(np.abs(a[name] - b[name]).max()) for name in a) <= 1e-5
    assert two.frame()["step"].tolist() == one.frame()["step"].tolist()
    assert len(two.folder.state["slots"]) == 2


def test_a_group_is_steered_as_one(lab, digits):
    run = lab.train(h3.Actor("steered", h3.TorchModel(network)), digits, epochs=100_000, ranks=2)
    until(lambda: run.step > 5)
    run.set(lr=1e-4)
    run.pause()
    held = run.step
    assert run.state == "paused"
    run.resume()
    until(lambda: run.step > held + 5, what="both go on")
    run.stop()
    assert run.state == "stopped"


def test_an_error_in_one_rank_ends_the_other(lab, digits):
    def failing(spec):
        import torch

        class Failing(torch.nn.Linear):
            count = 0

            def forward(self, x):
                self.count += 1
                if torch.distributed.is_initialized() and torch.distributed.get_rank() == 1 and self.count > 5:
                    raise ArithmeticError("only here")
                return super().forward(x)

        return Failing(spec.features, spec.outputs)

    run = lab.train(h3.Actor("one-fails", h3.TorchModel(failing)), digits, epochs=100_000, ranks=2)
    with pytest.raises(RunFailed, match="rank 1 on .*ArithmeticError: only here"):
        run.wait()
    # The next cell works.
    assert lab.train(h3.Actor("next", h3.TorchModel(network)), digits, epochs=1, ranks=2).wait().state == "finished"


def test_a_killed_rank_of_a_group_brings_the_group_back(lab, digits):
    run = lab.train(h3.Actor("group", h3.TorchModel(network)), digits, epochs=100_000, ranks=2, snapshot_every=20)
    until(lambda: run.step > 30)
    before = run.step
    os.kill(Attempt.newest(run.folder).start(1)["pid"], signal.SIGKILL)
    killed = time.monotonic()
    until(lambda: run.step > before + 30, what="it goes on")
    print(f"back after {time.monotonic() - killed:.1f} s")
    run.stop()
    steps = run.frame()["step"].tolist()
    assert steps == list(range(1, len(steps) + 1))
