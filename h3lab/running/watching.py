"""Watching several runs at once: one figure in a notebook, a line each elsewhere."""

from __future__ import annotations

from typing import Any

from h3lab import worlds
from h3lab.errors import UsageError, guided
from h3lab.running.folder import find
from h3lab.running.run import Run


@guided
def watch(*runs: Run | str) -> None:
    """Show runs (or their names) in one figure in this cell, live: ``h3.watch(alone, taught)``."""
    if not runs or not all(isinstance(run, Run | str) for run in runs):
        kinds = ", ".join(type(run).__name__ for run in runs) or "nothing"
        raise UsageError(f"{kinds} came; expected runs or their names, for example h3.watch(run, 'digits/2').")
    chosen: list[Any] = [run if isinstance(run, Run) else Run(find(run)) for run in runs]
    show = worlds.view("show")
    if show is None or not show(*chosen):
        for run in chosen:
            print(repr(run))
