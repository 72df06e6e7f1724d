"""Non-finite losses: what is said, and what is true of the parameters, when a loss is no number any more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from h3lab.batch import Batch
from h3lab.errors import NonFiniteLoss
from h3lab.model import Model


def lost(name: str, record: Mapping[str, Any], batch: Batch | None, model: Model) -> NonFiniteLoss:
    """The error for a record whose loss is not finite; ``batch`` is None where records were fetched later."""
    where = f"epoch {record['epoch']}, step {record['step']}"
    if batch is not None and batch.keys is not None:
        where += f", rows with keys {', '.join(map(str, batch.keys[:3]))}, ..."
    good = all(np.isfinite(value).all() for value in model.parameters().values() if value.dtype.kind == "f")
    kept = "the parameters are still finite, and kept" if good else "parameters are not finite: go back to a snapshot"
    return NonFiniteLoss(
        f"{name!r}: the loss became {record['loss']} at {where}; {kept}. Look for extreme values in these rows, or "
        "try a smaller lr, or clip_norm=1.0.",
        record["step"],
    )
