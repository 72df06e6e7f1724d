"""``h3.demo()``: a first run to look at and to steer. It prints a cell, and what it does is to run that cell.

It knows the cell, and how long a person likes to watch: the learning rate is low, so that the curves fall for a minute,
and fall faster as soon as somebody raises it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from h3lab import worlds
from h3lab.errors import guided

if TYPE_CHECKING:
    from h3lab.running.run import Run

#: Code to paste into a notebook or a script. Text, and no function of this module, because it is read before it is run.
CELL = """\
import h3lab as h3
from sklearn.datasets import load_digits
from torch import nn

def network(spec):                                 # spec: what the data are like, known before any training
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(1024, spec.outputs))

lab = h3.Lab()                                     # starts two engines, or joins the laboratory that runs
actor = h3.Actor("demo", h3.TorchModel(network, optimizer="sgd", lr=1e-4))
run = lab.train(actor, load_digits(return_X_y=True), epochs=800, validation=0.2, replace=True)
run                                                # live curves, pause, stop, learning rate
"""
NEXT = """\
# Meanwhile: run.set(lr=1e-3), run.pause(), run.resume(), run.stop(); h3.attach("demo") finds it in any notebook."""


@guided
def demo() -> Run:
    """Show curves that move: train a small network on an engine, print the cell that does it, and return its run.

    In a notebook it returns at once, and the card below the cell is live. In a terminal it follows the run with a line;
    Ctrl-C ends the watching, not the run. Called again it starts over: a demo that still trains is ended first.

    >>> run = h3.demo()  # doctest: +SKIP
    """
    print(CELL, NEXT, sep="\n", flush=True)
    cell: dict[str, Any] = {"__name__": "__main__"}  # so that the network travels by value, as a notebook's does
    exec(compile(CELL, "<h3.demo>", "exec"), cell)
    run: Run = cell["run"]
    show = worlds.view("show")
    if show is None or not show(run):
        with suppress(KeyboardInterrupt):
            run.wait()
    return run
