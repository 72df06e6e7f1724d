"""What a slot's forkservers import once, so that every later rank and worker starts in milliseconds.

There are two: workers prepare rows and need no torch, which would cost each slot two hundred megabytes meanwhile. The
lists are our own and each import is checked: multiprocessing's own preload fails without a word, and then every child
pays for the imports again.
"""

from __future__ import annotations

import gc
import importlib
import time

#: Only modules that start no thread and open no device when they are imported. A missing one is left out.
WORKER = (
    "numpy",
    "scipy.sparse",
    "sklearn.preprocessing",
    "sklearn.feature_extraction.text",
    "pyarrow",
    "h3lab.cluster.worker",
    "h3lab.preparing.writing",
    "h3lab.preparing.fitting",
)
RANK = (
    "numpy",
    "scipy.sparse",
    "sklearn.linear_model",
    "pyarrow",
    "torch",
    "torch.nn.parallel",
    "torch.optim",
    "h3lab.cluster.rank",
    "h3lab.actor",
    "h3lab.feeds.feed",
    "h3lab.training.loop",
    "h3lab.backends._sklearn",
    "h3lab.backends._torch",
    # What the first optimizer of a process imports without asking: two seconds on an idle machine.
    "torch._dynamo",
)

#: Module → why it could not be imported.
FAILED: dict[str, str] = {}


def load(names: tuple[str, ...]) -> float:
    """Import them all; seconds that it took."""
    started = time.monotonic()
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # a broken optional library must not end every child of the slot
            FAILED[name] = f"{type(error).__name__}: {error}"
    # A collection writes to the header of every object that it looks at. Left to do so, each child would soon hold a
    # hundred megabytes of imports as its own that it shares with this process.
    gc.collect()
    gc.freeze()
    return time.monotonic() - started
