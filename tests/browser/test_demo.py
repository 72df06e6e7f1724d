"""The first cell that a newcomer runs: curves that move, in the cell and wherever its run is shown again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from browsing import Notebook

from h3lab.cluster.lab import Lab
from h3lab.cluster.labfolder import LabFolder


@pytest.fixture
def lab_ends() -> Iterator[None]:
    """What the notebook has started is closed."""
    yield
    if LabFolder().kept:
        Lab().close(force=True)


@pytest.mark.usefixtures("lab_ends")
def test_the_demo_opens_moving_curves(notebook: Callable[..., Notebook]):
    book = notebook(["import h3lab as h3\nrun = h3.demo()", "run", "run.stop()"])
    book.run(0)
    first = book.wait(book.painted, 90, "a curve, shown although the run is assigned to a name")
    book.wait(lambda: book.painted() > first + 50, 60, "it moves")
    printed = "".join(output.get("text", "") for output in book.output(0)).partition("starting engines")[0]
    assert printed.startswith("import h3lab as h3\n") and "lab.train(" in printed
    book.run(1)
    book.wait(lambda: book.painted(1), what="the run that it returned is the same one")
    assert book.text("name", 0) == book.text("name", 1) == "demo"
    book.run(2)
    book.wait(lambda: book.text("pill", 0) == "stopped", what="stopped")
    assert not book.errors
