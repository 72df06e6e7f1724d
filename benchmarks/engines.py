"""A feed on all engines at once: `python benchmarks/engines.py`, 1 GB on four.

Rows go to the engines by storage, never through the controller, and a page that they all read lies in memory once.
Each engine reads the whole feed, shuffled, in batches of 256. Memory is the sum of PSS over the notebook, the keeper,
the controllers, the engines and their ranks: before, while all ranks live and read nothing, and the highest while they
read. A first batch counts from the moment at which the feed is stored: the rank opens it, checks it and draws.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import psutil
from prepare import Sampler, family, pss

import h3lab as h3
from h3lab.feeds.feed import Feed

FEATURES = 784


def read(settings: Any) -> Iterator[dict[str, float]]:
    """Wait for a feed to be there, then read all of it, and stay."""
    feed = None
    while feed is None:
        yield {"rows": 0.0, "first": 0.0}
        time.sleep(0.005)
        if os.path.exists(settings.marker):
            feed = h3.open_feed(settings.url)
    vector, rows, first = np.ones(FEATURES, np.float32), 0, 0.0
    for batch in feed.epoch(0, batch_size=256, copy=False):
        rows, first = rows + len(batch), first or time.time()
        assert np.isfinite(batch.x @ vector).all()
        if rows % 25_600 == 0:
            yield {"rows": float(rows), "first": first}
    while True:
        yield {"rows": float(rows), "first": first}
        time.sleep(0.05)


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 300
    while not (found := condition()):
        if time.monotonic() > deadline:
            sys.exit("what this waits for has not come for five minutes")
        time.sleep(0.02)
    return found


def controllers(home: str) -> int:
    """PSS of ipyparallel's controller and its schedulers."""
    pids = [p for p in family(os.getpid(), home) if "controller" in " ".join(psutil.Process(p).cmdline())]
    assert pids, "there is no controller"
    return pss(pids)


def last(run: Any, name: str) -> float:
    return float(run.frame()[name].iloc[-1])


def measure(engines: int, gigabytes: float, home: str) -> None:
    marker, url = Path(home) / "stored", Path(home) / "feed"
    count = int(gigabytes * 1e9 / (FEATURES * 4))
    lab = h3.Lab(engines=engines)
    runs = [lab.run(read, name=f"reader{n}", url=str(url), marker=str(marker)) for n in range(engines)]
    until(lambda: all(run.step for run in runs))
    before, controller = pss(family(os.getpid(), home)), controllers(home)
    feed = Feed.of(np.random.default_rng(0).random((count, FEATURES), np.float32), np.arange(count) % 10).store(url)
    size = feed.nbytes
    del feed
    sampler = Sampler(os.getpid(), home)
    sampler.start()
    stored = time.time()
    marker.touch()
    until(lambda: all(last(run, "rows") >= count for run in runs))
    seconds, peak = time.time() - stored, sampler.stop()
    firsts = [last(run, "first") - stored for run in runs]
    print(f"feed {size / 1e6:,.0f} MB, {engines} engines; everything without it {before / 1e6:,.0f} MB")
    print(
        f"  the highest while all read it   + {(peak - before) / 1e6:,.0f} MB: {(peak - before) / size:.2f} x the feed"
    )
    print(f"  first shuffled batches after    {', '.join(f'{first:.2f}' for first in sorted(firsts))} s")
    print(f"  all have read all after         {seconds:.1f} s: {engines * count / seconds:,.0f} rows/s")
    print(f"  controller                      + {(controllers(home) - controller) / 1e6:.1f} MB")
    for run in runs:
        run.stop()
    lab.close(force=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engines", type=int, default=4)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    options = parser.parse_args()
    home = os.environ["H3LAB_HOME"] = tempfile.mkdtemp(prefix="h3-")
    try:
        measure(options.engines, options.gigabytes, home)
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
