"""A run in the output of a cell: where its card is mounted, and beside it the picture that stays when nothing is alive.

Two outputs a display. The first is an empty element in which a page with a kernel mounts the card; the second is the
static picture, hidden by the card's style sheet while there is a card, and kept up to date under its display id. A
widget's view is not used: a notebook that is opened without its kernel shows "model not found" in its place.
"""

from __future__ import annotations

import base64
import contextvars
import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

from h3lab.errors import UsageError
from h3lab.ui.curves import RUNS
from h3lab.ui.follower import Follower, follow, key_of
from h3lab.ui.headline import ended

#: While a page looks on, the picture in the notebook is at most so old; each costs 0.1 s of this process.
PICTURE_SECONDS = 60.0
#: The first one comes when the curve has a shape, and Matplotlib's import disturbs nobody.
FIRST_SECONDS = 5.0

#: Exhibits that a kernel keeps though nobody looks at them.
KEPT = 20

log = logging.getLogger("h3lab.ui")


class Exhibit:
    """All displays of one run (or of several in one figure) in this kernel: one panel, one picture under many ids."""

    def __init__(self, *runs: Any) -> None:
        from h3lab.ui.panel import Panel

        if len(runs) > len(RUNS):
            raise UsageError(f"{len(runs)} runs came; a figure has colours for {len(RUNS)}. Show them in two figures.")
        self.runs = runs
        self.panel = Panel(*runs)
        self.cells: set[str] = set()
        self.ids: list[str] = []
        self._context = contextvars.copy_context()
        #: The cell of the notebook, whichever time it is executed; loops of this process alone.
        self.place = _place() if runs[0].folder is None else None
        # A picture takes Matplotlib's import, and a loop of this process would wait for it.
        self._due = time.monotonic() + (PICTURE_SECONDS if self.place is not None else FIRST_SECONDS)
        self._over = False
        self._drawing = threading.Lock()
        self.followers: list[Follower] = [follow(run) for run in runs]
        for follower in self.followers:
            follower.join(self)

    watching = False

    def news(self, follower: Follower, drop_from: int | None) -> None:
        """Draw a new picture when one is due. Called by the follower, so only the decision is made here."""
        over = all(ended(each.state) for each in self.followers)
        if (over and not self._over) or (self.panel.watching and time.monotonic() > self._due):
            self._over, self._due = over, time.monotonic() + PICTURE_SECONDS
            task = self._context.copy().run
            threading.Thread(target=task, args=(self.redraw,), name="h3lab-picture", daemon=True).start()

    def settle(self) -> None:
        """The last picture, here and now."""
        self._over = True
        self.redraw()
        for follower in self.followers:
            follower.hurry()

    def redraw(self) -> None:
        """Bring the picture up to date wherever it is shown."""
        with self._drawing:
            picture = bundle(self.followers)
            for display_id in self.ids:
                _publish(picture, display_id, update=True)

    def publish(self) -> None:
        """The two outputs, in the current cell."""
        display_id = f"h3lab-{self.panel.view}-{len(self.ids)}"
        _publish({"text/html": f'<div class="h3lab-run h3lab-{self.panel.view}"></div>', "text/plain": ""})
        if all(ended(follower.origin.state) for follower in self.followers):
            _publish(bundle(self.followers), display_id)
        else:
            _publish({"text/plain": "\n".join(follower.line() for follower in self.followers)}, display_id)
        self.ids.append(display_id)

    def close(self) -> None:
        """Free the panel and its thread."""
        for follower in self.followers:
            follower.leave(self)
        self.panel.close()


def _publish(data: dict[str, Any], display_id: str | None = None, update: bool = False) -> None:
    from IPython.display import publish_display_data

    publish_display_data(data, transient={"display_id": display_id} if display_id else {}, update=update)


#: By the key of each run.
_exhibits: dict[tuple[Any, ...], Exhibit] = {}


def show(*runs: Any) -> bool:
    """Show runs in the current cell, once a cell however often it is asked; False where there is no notebook.

    Never raises: what goes wrong is logged, and a line of text is shown instead.
    """
    cell = _cell()
    if cell is None:
        return False
    try:
        key = tuple(map(key_of, runs))
        if key not in _exhibits or _exhibits[key].panel.comm is None:
            _make_room()
            _exhibits[key] = Exhibit(*runs)
            _replace(_exhibits[key], cell)
        exhibit = _exhibits[key]
        if cell not in exhibit.cells:
            exhibit.cells.add(cell)
            exhibit.publish()
    except Exception as error:
        log.exception("cannot show %s", ", ".join(run.name for run in runs))
        print(f"{', '.join(run.name for run in runs)}: not shown, because {type(error).__name__}: {error}")
    return True


def _make_room() -> None:
    """Free the oldest exhibits that nobody looks at, so that a kernel of many runs does not keep all their curves."""
    for key, exhibit in list(_exhibits.items())[: -KEPT or None]:
        if not exhibit.panel.watching and all(follower.complete for follower in exhibit.followers):
            exhibit.close()
            del _exhibits[key]


def _replace(new: Exhibit, cell: str) -> None:
    """Free what an earlier execution of the cell has shown of its loops: the page has dropped it already."""
    if new.place is None:
        return
    for key, old in list(_exhibits.items()):
        if old.place == new.place != "" and cell not in old.cells and all(each.complete for each in old.followers):
            old.close()
            del _exhibits[key]
    events = _shell().events
    if _after_cell not in events.callbacks["post_run_cell"]:
        events.register("post_run_cell", _after_cell)


def _after_cell(result: Any) -> None:
    """A loop of the cell's own thread has ended with its cell, though nobody said so: a framework tells its callbacks
    nothing of an exception, and an iterator may be held."""
    error = result.error_in_exec
    failed = error is not None and not isinstance(error, KeyboardInterrupt)
    for exhibit in list(_exhibits.values()):
        for run in exhibit.runs:
            if run.folder is None and run.thread is threading.main_thread():
                run.end("failed" if failed else "stopped", error if failed else None)


class Overlay:
    """Several runs in one figure: shown where a notebook shows it, a line a run elsewhere."""

    def __init__(self, runs: Sequence[Any]) -> None:
        self.runs = tuple(runs)

    def _ipython_display_(self) -> None:
        if not show(*self.runs):
            print(repr(self))

    def __repr__(self) -> str:
        return "\n".join(map(repr, self.runs))


def overlay(runs: Sequence[Any]) -> Overlay:
    """``overlay([run_a, run_b])``: their curves in one figure, at most eight."""
    return Overlay(runs)


def settle(run: Any) -> None:
    """The last picture of an ended run, sent from the cell that waits for it: programs that run notebooks without a
    browser take the outputs of the running cell only."""
    for key, exhibit in list(_exhibits.items()):
        if key_of(run) in key and _cell() is not None:
            try:
                exhibit.settle()
            except Exception:
                log.exception("no picture of %s", run.name)


def mimebundle(run: Any) -> dict[str, Any]:
    """A run for whoever asks it for its representations: the headline, and the picture once there are curves."""
    return bundle([Follower(run.folder)])


def bundle(followers: list[Follower]) -> dict[str, Any]:
    """The picture of runs and their headlines, as they are now."""
    from h3lab.ui.picture import overlay, png

    heads, columns, lines = [], [], []
    for follower in followers:
        follower.catch_up()
        # Drawn from a still, without the lock: while another thread computes a picture takes seconds, and curves go on.
        with follower.lock:
            heads.append(follower.head())
            columns.append(follower.columns.still())
            lines.append(follower.line())
    several = len(followers) > 1
    picture = overlay(heads, columns) if several else png(heads[0], columns[0], followers[0].story.marks)
    return {"image/png": base64.b64encode(picture).decode(), "text/plain": "\n".join(lines)}


def _shell() -> Any:
    """IPython's shell where a notebook's kernel runs it, else None."""
    import sys

    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython

    shell = get_ipython()
    return shell if getattr(shell, "kernel", None) is not None else None


def _cell() -> str | None:
    """The id of the request that the kernel is working on, None outside a notebook's kernel."""
    shell = _shell()
    return None if shell is None else str(shell.kernel.get_parent().get("header", {}).get("msg_id", ""))


def _place() -> str:
    """The id of the notebook's cell, where the page sends it."""
    shell = _shell()
    return "" if shell is None else str(shell.kernel.get_parent().get("metadata", {}).get("cellId", ""))
