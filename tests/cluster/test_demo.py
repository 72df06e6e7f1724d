"""``h3.demo()``: what it prints is what it does."""

from concurrent.futures import ThreadPoolExecutor

import h3lab as h3
from h3lab.errors import RunNotFound
from h3lab.running.folder import ENDED
from h3lab.running.run import Run

from .conftest import timeless, until


def demo_of(number: int) -> Run | None:
    """The demo's run of this number, once it has some records."""
    try:
        run = h3.attach(f"demo/{number}")
    except RunNotFound:
        return None
    return run if run.step >= 30 else None


def test_the_demo_runs_the_cell_that_it_prints_and_starts_over(lab, capsys):
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(h3.demo)  # follows its run, as in a terminal
        first = until(lambda: demo_of(1), what="thirty steps of the demo")
        printed = capsys.readouterr().out.partition("joined the lab")[0]
        assert all(len(line) <= 120 for line in printed.splitlines())
        assert printed.startswith("import h3lab as h3\n") and 'h3.attach("demo")' in printed

        pasted = {"__name__": "__main__"}
        exec(compile(printed, "<pasted>", "exec"), pasted)
        again = running.result(60)
        assert again.name == first.name and again.state == "stopped", "the pasted cell has replaced it"
    second = until(lambda: demo_of(2), what="thirty steps of the pasted cell")
    assert pasted["run"].name == second.name and second.state not in ENDED
    assert timeless(second.records()[:30]) == timeless(first.records()[:30])
    for what in ("epochs", "batch_size", "settings", "values"):
        assert first.info.get(what) == second.info.get(what)
    assert "run.set(lr=1e-3)" in printed and "took effect" in second.set(lr=1e-3)
    second.stop()
