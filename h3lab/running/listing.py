"""Every run of this home, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from h3lab.errors import guided
from h3lab.running.folder import folders
from h3lab.running.run import Run

if TYPE_CHECKING:
    import pandas as pd


@guided
def runs() -> pd.DataFrame:
    """Every run of this home, newest first: name, state, epoch, step, loss, when it was started, its lab."""
    import pandas as pd

    rows = []
    for folder in folders():
        info, status = folder.info, Run(folder).status()
        row = {name: status.get(name) for name in ("name", "state", "epoch", "step", "loss", "val_accuracy")}
        rows.append({**row, "started": pd.Timestamp(info["created"], unit="s"), "lab": info.get("lab")})
    columns = ["name", "state", "epoch", "step", "loss", "val_accuracy", "started", "lab"]
    return pd.DataFrame(rows, columns=columns).sort_values("started", ascending=False, ignore_index=True)
