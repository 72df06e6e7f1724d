"""Every run of this home, as a table; from small files and the ends of journals, so that hundreds take no time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from h3lab.errors import guided
from h3lab.running import journal
from h3lab.running.folder import ENDED, RunFolder, folders

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("name", "state", "epoch", "step", "loss", "val_loss", "val_accuracy")


@guided
def runs() -> pd.DataFrame:
    """``h3.runs()`` lists every run of this home, newest first: name, state, epoch, step, the newest loss and measures
    on held-out rows (``val_loss``, ``val_accuracy`` and what else there is), seconds trained, when it was started
    (local time), its lab."""
    import pandas as pd

    rows, measures = [], dict.fromkeys(COLUMNS)
    for summary in summaries():
        measures.update(dict.fromkeys(name for name in summary if name.startswith("val_")))
        started = pd.Timestamp(time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(summary["created"])))
        rows.append({**summary, "started": started})
    return pd.DataFrame(rows, columns=[*measures, "seconds", "started", "lab"])


def summaries() -> list[dict[str, Any]]:
    """``summary`` of every run, newest first."""
    return sorted(map(summary, folders()), key=lambda row: -float(row["created"]))


def summary(folder: RunFolder) -> dict[str, Any]:
    """State, epoch, step and newest metrics of a run, as its status but without what steers it."""
    info = folder.info
    # A record's values count, once there is one; what a state says of the step is older while it trains.
    return {
        **(state := folder.state),
        **journal.newest(folder.journal),
        # Last, because a loop's own metrics may have these names too.
        "name": folder.name,
        "state": state["state"],
        "created": float(info.get("created") or 0.0),
        "lab": info.get("lab"),
    }


def ended(older_than_seconds: float) -> list[RunFolder]:
    """Runs that ended at least so long ago."""
    limit = time.time() - older_than_seconds
    states = [(folder, folder.state) for folder in folders()]
    return [folder for folder, state in states if state["state"] in ENDED and float(state["since"]) < limit]
