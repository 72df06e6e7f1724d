"""Attaching: a run of this home by its name, in any notebook, and somebody to keep it."""

from __future__ import annotations

import contextlib

from h3lab.cluster.lifetime import look_after
from h3lab.errors import LabError, guided
from h3lab.running.folder import find
from h3lab.running.run import Run


@guided
def attach(name: str | None = None) -> Run:
    """``h3.attach("digits/2")`` is that run, ``("digits")`` the newest of it, ``()`` the one started last: with every
    record since its start, wherever and whenever it was started. Without a cluster it still reads."""
    run = Run(find(name))
    with contextlib.suppress(LabError):  # a lab that has ended is no reason not to look at what the run left
        look_after(run.folder)
    return run
