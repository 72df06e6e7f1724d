"""The drills: a run shown in a real JupyterLab and Notebook 7, steered, reloaded, its kernel busy, killed, gone."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from browsing import Jupyter, Notebook, wait_for
from paced import paced

from h3lab.running import journal
from h3lab.running.folder import RunFolder

Open = Callable[..., Notebook]
SHOW = "from paced import Asked; from h3lab.running.folder import find; run = Asked(find({!r})); run"
LOOP = "import time\nend = time.monotonic() + {}\nwhile time.monotonic() < end: pass"


def written(folder: RunFolder) -> int:
    """Records on disk."""
    return len(journal.read(folder.journal).records)


def shows_all(book: Notebook, folder: RunFolder, index: int = -1) -> bool:
    """The page holds every record that was on disk before it was asked, none twice and none missing."""
    least, steps = written(folder), book.steps(index)
    return len(steps) >= least and steps == list(range(1, len(steps) + 1))


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_a_run_is_live_and_is_steered(notebook: Open, app: str):
    with paced("live", rate=1000) as folder:
        book = notebook([SHOW.format(folder.name)], app)
        book.run(0)
        first = book.wait(book.painted, what="a first curve")
        book.wait(lambda: book.painted() > first + 500, what="the curve moves")
        book.wait(lambda: shows_all(book, folder), what="every record is in the page")
        assert book.text("pill") == "training" and book.text("name") == "live"

        book.click("pause")
        book.wait(lambda: folder.state["state"] == "paused" and book.text("pill") == "paused", what="paused")
        assert re.match(r"run\.pause\(\)  # took effect at step \d+", book.text("code"))
        book.type("lr", "1e-4")
        book.wait(lambda: "run.set(lr=1e-4)  # took effect" in book.text("code"), what="the rate is confirmed")
        assert [e["values"] for e in journal.read(folder.journal).events if e["event"] == "set"] == [{"lr": 1e-4}]
        book.click("resume")
        book.wait(lambda: folder.state["state"] == "training", what="resumed")

        book.type("lr", "fast")
        book.wait(lambda: "lr='fast' came; expected a number" in book.text("trouble"), what="the refusal, in red")
        book.click("stop")
        book.wait(lambda: book.text("pill") == "stopped", what="stopped")
        book.wait(lambda: len(book.steps()) == written(folder), what="the last record")
        assert not book.errors


def test_a_reload_and_a_second_browser_have_every_record(notebook: Open, browser: object):
    with paced("reloaded", rate=1000) as folder:
        book = notebook([SHOW.format(folder.name)])
        book.run(0)
        book.wait(book.painted, what="a first curve")
        book.save()
        before = book.painted()
        book.open()
        book.wait(lambda: shows_all(book, folder), what="every record after a reload")
        book.wait(lambda: book.painted() > before, what="the curve moves on")

        page = book.page.context.new_page()
        other = Notebook(page, book.server, book.path)
        other.wait(lambda: shows_all(other, folder), what="every record in a second tab")
        moved = book.painted()
        book.wait(lambda: book.painted() > moved, what="the first tab moves on")
        assert not book.errors and not other.errors


def test_a_busy_kernel_still_shows_and_obeys(notebook: Open):
    with paced("busy", rate=1000) as folder:
        book = notebook([SHOW.format(folder.name), LOOP.format(40)])
        book.run(0)
        book.wait(book.painted, what="a first curve")
        book.run(1, wait=False)
        before = book.painted()
        book.wait(lambda: book.painted() > before + 1000, 10, "the curve moves while a cell computes")
        book.click("pause")
        book.wait(lambda: folder.state["state"] == "paused", 5, "the click is obeyed while a cell computes")
        book.click("resume")
        book.wait(lambda: book.text("pill") == "training", 5, "and the next one")
        assert book.prompt(1) == "[*]:", "the cell computes still"


def test_a_cell_that_shows_a_run_and_goes_on_is_live(notebook: Open):
    """What ``run.wait()`` is: the display and the busy kernel are the same cell."""
    with paced("same-cell", rate=1000) as folder:
        book = notebook([SHOW.format(folder.name).removesuffix("run") + "display(run)\n" + LOOP.format(40)])
        book.run(0, wait=False)
        first = book.wait(book.painted, what="a first curve while the cell computes")
        book.wait(lambda: book.painted() > first + 500, 8, "it moves")
        book.click("pause")
        book.wait(lambda: folder.state["state"] == "paused", 8, "it obeys")


def test_a_killed_kernel_is_said_and_a_new_one_has_every_record(notebook: Open):
    with paced("survives", rate=1000) as folder:
        book = notebook([SHOW.format(folder.name), SHOW.format(folder.name)])
        book.run(0)
        book.wait(book.painted, what="a first curve")
        os.kill(book.kernel_process().pid, signal.SIGKILL)
        book.wait(lambda: "this view is frozen" in book.text("code", 0), 30, "the card says that it is frozen")
        assert 'h3.attach("survives")' in book.text("code", 0) and book.text("pill", 0) == "frozen"
        book.ready()
        book.run(1)
        book.wait(lambda: shows_all(book, folder), what="every record in the new kernel")
        moved = book.painted()
        book.wait(lambda: book.painted() > moved, what="and what follows")


def test_a_restarted_kernel_is_said_at_once(notebook: Open):
    with paced("restarted", rate=100) as folder:
        book = notebook([SHOW.format(folder.name)])
        book.run(0)
        book.wait(book.painted, what="a first curve")
        book.page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
        book.wait(lambda: "this view is frozen: the kernel was restarted" in book.text("code"), what="frozen")
        assert folder.state["state"] == "training", "the run does not mind"


def test_a_saved_notebook_shows_the_picture_without_its_kernel(notebook: Open, jupyter: Jupyter):
    with paced("saved", rate=3000, steps=6000) as folder:
        book = notebook([SHOW.format(folder.name)])
        book.run(0)
        book.wait(lambda: book.text("pill") == "finished", what="finished")
        book.wait(lambda: "image/png" in book.output(0)[1]["data"], what="the last picture is in the notebook")
        hidden = book.page.locator(".jp-OutputArea-child").nth(1)
        assert not hidden.is_visible(), "beside a live card the picture is not needed"
        path = book.save()
    saved = nbformat.read(path, as_version=4)
    assert saved.cells[0].outputs[1].data["text/plain"].startswith("saved/1  finished")
    assert len(path.read_bytes()) < 100_000
    book.page.close()
    jupyter.end_kernels()
    other = Notebook(book.page.context.browser.new_page(), jupyter, book.path)
    other.page.wait_for_selector(".jp-OutputArea-child img")
    text = other.page.locator(".jp-OutputArea").first.inner_text()
    assert other.page.locator(".jp-OutputArea-child img").is_visible() and text.strip() == ""
    assert other.page.locator(".h3lab-card").count() == 0
    other.page.close()


def test_a_failed_run_shows_its_cause(notebook: Open):
    with paced("fails", rate=2000, steps=2000, fail=True) as folder:
        book = notebook([SHOW.format(folder.name)])
        book.run(0)
        book.wait(lambda: book.text("pill") == "failed", what="failed")
        assert book.text("cause-line") == (
            "rank 1: ValueError: the batch of step 2000 holds a label that the model does not know"
        )
        traceback = book.page.locator(".h3-traceback")
        assert not traceback.is_visible()
        book.page.locator(".h3-cause-line").click()
        assert traceback.is_visible() and "Traceback (most recent call last)" in traceback.inner_text()
        assert not book.page.locator(".h3-controls").is_visible()


def test_views_come_and_go_without_a_trace(notebook: Open):
    """Run again and again, moved, deleted, in two themes: one board, as many documents as cards."""
    documents = "() => [Bokeh.documents.length, Bokeh.index.roots.length]"
    a_card = 3  # views of a document: two figures, and one for notifications
    with paced("again", rate=200) as folder:
        book = notebook([SHOW.format(folder.name), "run", "len([t for t in __import__('threading').enumerate()])"])
        for _ in range(4):
            book.run(0)
            book.wait(book.painted, what="a curve")
        book.run(1)
        book.wait(lambda: book.painted(0) and book.painted(1), what="two cards of one run")
        book.wait(lambda: book.page.evaluate(documents) == [2, 2 * a_card], what="a document a card")
        colour = "card.plot.model('left.smooth.line').glyph.line_color.value"
        assert book.card(colour) == "#0072b2"
        theme = "(theme) => jupyterapp.commands.execute('apputils:change-theme', { theme })"
        book.page.evaluate(theme, "JupyterLab Dark")
        book.wait(lambda: book.card(colour) == "#56b4e9", what="the colours of a dark theme")
        book.page.evaluate(theme, "JupyterLab Light")
        script = """() => {
          jupyterapp.shell.currentWidget.content.activeCellIndex = 1;
          return jupyterapp.commands.execute('notebook:delete-cell');
        }"""
        book.page.evaluate(script)
        book.wait(lambda: book.page.evaluate(documents) == [1, a_card], what="the deleted card is gone")
        moved = book.painted()
        book.wait(lambda: book.painted() > moved, what="the other one moves on")
        assert not book.errors


def test_several_runs_share_a_figure(notebook: Open):
    with paced("left", rate=500) as left, paced("right", rate=500) as right:
        script = (
            "from paced import Asked; from h3lab.running.folder import find; from h3lab.worlds import view\n"
            f"view('show')(Asked(find({left.name!r})), Asked(find({right.name!r}))); None"
        )
        book = notebook([script])
        book.run(0)
        lines = "['run0', 'run1'].every((name) => card.plot.model(`left.${name}`).data.x.length)"
        drawn = f"card.board.runs.length === 2 && Boolean(card.plot?.document) && {lines}"
        book.wait(lambda: book.card(drawn), what="a line a run")
        assert book.page.locator(".h3-head").count() == 2 and book.page.locator(".h3-button").count() == 0


def test_zoom_refines_and_show_all_returns(notebook: Open):
    with paced("zoomed", rate=100_000, steps=50_000) as folder:
        wait_for(lambda: folder.state["state"] == "finished")
        book = notebook([SHOW.format(folder.name)])
        book.run(0)
        book.wait(lambda: book.painted() == 50_000, what="all of it")
        drawn = "card.plot.model('left.raw').data.x.length"
        assert 200 < book.card(drawn) < 2010, "far fewer points than there are, two a bin"
        book.card("card.plot.steps.setv({ start: 20000, end: 20400 })")
        book.wait(lambda: 401 <= book.card(drawn) <= 404, what="every point")
        book.page.locator(".h3-link").click()
        book.wait(lambda: book.card("card.plot.steps.start") == 0, what="all of it again")
        book.page.locator(".h3-view input[type=checkbox]").check()
        book.wait(
            lambda: book.card("card.plot.kind === 'log' && card.plot.model('left.raw').data.x.length > 0"), what="log"
        )
        assert not book.errors


def test_a_server_below_another_url_shows_the_same(notebook: Open, tmp_path: Path):
    server = Jupyter(tmp_path / "hub", base_url="/user/x/")
    try:
        with paced("below", rate=500) as folder:
            book = notebook([SHOW.format(folder.name)], server=server)
            book.run(0)
            book.wait(book.painted, what="a first curve")
            book.wait(lambda: shows_all(book, folder), what="every record")
            assert not book.errors
            book.page.close()
    finally:
        server.close()
