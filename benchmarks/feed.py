"""Iterating a feed, shuffled, as a ratio to loops written by hand: `python benchmarks/feed.py`.

MNIST from $H3LAB_TEST_DATA/mnist.npz as float32, or random numbers of the same shape; one thread; CPU seconds of an
epoch, each batch is read once (a product with a vector). All ways take turns, because the machine's speed drifts; the
medians count. Then the disk: writing a feed, opening it, drawing its first shuffled batch, and an epoch by rows and
in blocks while its pages are evicted again and again, as those of a feed that is larger than memory are.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from h3lab.feeds.feed import Feed, open_feed

ROOT = Path(__file__).resolve().parent.parent
Pairs = Iterator[tuple[np.ndarray, np.ndarray]]


def data() -> tuple[np.ndarray, np.ndarray]:
    path = Path(os.environ.get("H3LAB_TEST_DATA", ROOT.parent / "shared" / "data")) / "mnist.npz"
    if not path.exists():
        rng = np.random.default_rng(0)
        return rng.random((60_000, 784), np.float32), rng.integers(0, 10, 60_000)
    with np.load(path) as file:
        return file["x_train"].reshape(-1, 784).astype(np.float32) / 255, file["y_train"].astype(np.int64)


def ways(x: np.ndarray, y: np.ndarray, stored: Feed, size: int) -> dict[str, Callable[[], Pairs]]:
    """Each way to see all rows once in a new order."""
    rng, feed, number = np.random.default_rng(0), Feed.of(x, y), iter(range(10**9))

    def shuffled_copy() -> Pairs:
        order = rng.permutation(len(x))
        xs, ys = x[order], y[order]
        for start in range(0, len(x), size):
            yield xs[start : start + size], ys[start : start + size]

    def gather() -> Pairs:
        order = rng.permutation(len(x))
        for start in range(0, len(x), size):
            at = order[start : start + size]
            yield x[at], y[at]

    def epoch(feed: Feed, copy: bool, **draw: Any) -> Callable[[], Pairs]:
        def run() -> Pairs:
            for batch in feed.epoch(next(number), batch_size=size, copy=copy, **draw):
                yield batch.x, batch.y

        return run

    return {
        "by hand: shuffled copy": shuffled_copy,
        "by hand: gather a batch": gather,
        "feed, reused buffers": epoch(feed, False),
        "feed, batches of their own": epoch(feed, True),
        "stored feed, reused buffers": epoch(stored, False),
        "  in blocks": epoch(stored, False, shuffle="blocks"),
        "  balanced classes": epoch(stored, False, sampling="balanced"),
        "  bucketed by length": epoch(stored, False, bucket=True),
        **loaders(x, y, size),
    }


def loaders(x: np.ndarray, y: np.ndarray, size: int) -> dict[str, Callable[[], Pairs]]:
    try:
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(1)
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    loader = torch.utils.data.DataLoader(dataset, batch_size=size, shuffle=True)

    def run() -> Pairs:
        for xb, yb in loader:
            yield xb.numpy(), yb.numpy()

    return {"torch DataLoader": run}


def measure(size: int, turns: int, x: np.ndarray, y: np.ndarray, stored: Feed) -> None:
    vector = np.ones(x.shape[1], np.float32)
    found: dict[str, list[float]] = {}
    for _ in range(turns):
        for name, way in ways(x, y, stored, size).items():
            rows, before = 0, time.process_time()
            for xb, yb in way():
                rows += len(yb)
                xb @ vector
            found.setdefault(name, []).append(time.process_time() - before)
            assert rows == len(x)
    seconds = {name: statistics.median(times) for name, times in found.items()}
    best = min(value for name, value in seconds.items() if name.startswith("by hand"))
    print(f"\nbatches of {size}: ms an epoch, µs a batch, ratio to the better loop by hand")
    for name, value in seconds.items():
        print(f"  {name:28} {value * 1e3:7.1f} {value * 1e6 * size / len(x):7.1f} {value / best:6.2f}")


FIRST = """
import sys, time
import numpy as np, h3lab.feeds.feed
started = time.perf_counter()
feed = h3lab.feeds.feed.open_feed(sys.argv[1])
opened = time.perf_counter()
batch = next(feed.epoch(0, batch_size=64))
print(f"  opened in {opened - started:.3f} s, first shuffled batch after {time.perf_counter() - started:.3f} s")
"""


def disk(folder: Path, gigabytes: float) -> None:
    rows = int(gigabytes * 1e9 / (784 * 4))
    feed = Feed.of(np.random.default_rng(0).random((rows, 784), np.float32), np.arange(rows) % 10)
    started = time.perf_counter()
    stored = feed.store(folder / "large")
    seconds = time.perf_counter() - started
    size = stored.nbytes / 1e9
    print(f"\na feed of {size:.2f} GB: written in {seconds:.2f} s ({size / seconds:.2f} GB/s)")
    raw = bytes(64 << 20)
    started = time.perf_counter()
    with open(folder / "raw", "wb", buffering=0) as file:
        for _ in range(int(stored.nbytes) >> 26):
            file.write(raw)
        os.fsync(file.fileno())
    print(f"  as many plain bytes, on the disk: {time.perf_counter() - started:.2f} s")
    subprocess.run([sys.executable, "-c", FIRST, str(folder / "large")], check=True)


SCARCE = """
import ctypes, re, sys, time
from pathlib import Path
from h3lab.feeds.feed import open_feed
from h3lab.stores import columns
feed, way, held, limit = open_feed(sys.argv[1]), sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
for path in (Path(sys.argv[1]) / "parts").iterdir():
    stat = path.stat()
    columns._checked.add((str(path), stat.st_size, stat.st_mtime_ns))  # checking would read all of it first

def evict():
    for line in open("/proc/self/maps"):
        if sys.argv[1] in line:
            begin, end = (int(v, 16) for v in line.split()[0].split("-"))
            assert not ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), 21)  # PAGEOUT

def read():
    return int(re.search(r"read_bytes: (\\d+)", open("/proc/self/io").read())[1])

list(zip(range(1), feed.epoch(0, shuffle=False)))
evict()
each, rows, seen, seconds, before = feed.nbytes / len(feed), 0, 0, 0.0, read()
began = time.perf_counter()
for batch in feed.epoch(0, batch_size=256, shuffle=way, copy=False):
    rows, seen = rows + len(batch), seen + len(batch) * each
    if seen >= held:
        seconds, seen = seconds + time.perf_counter() - began, 0
        evict()
        began = time.perf_counter()
        if seconds > limit:
            break
seconds += time.perf_counter() - began
used = (read() - before) / (rows * each)
print(f"  shuffle={way!r:9} {rows / seconds:10,.0f} rows/s, {used:.1f} bytes read for each that is used")
"""


def scarce(folder: Path, held: float, limit_seconds: float) -> None:
    print(f"\nan epoch of it, batches of 256, its pages evicted after each {held / 1e6:,.0f} MB of rows", flush=True)
    for way in ("rows", "blocks"):
        arguments = [str(folder / "large"), way, str(held), str(limit_seconds)]
        subprocess.run([sys.executable, "-c", SCARCE, *arguments], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    options = parser.parse_args()
    x, y = data()
    folder = Path(tempfile.mkdtemp(prefix="h3-feed-"))
    try:
        stored = Feed.of(x, y).store(folder / "mnist")
        for size in (64, 256):
            measure(size, options.turns, x, y, open_feed(stored.url))
        disk(folder, options.gigabytes)
        scarce(folder, 256e6, 10.0)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
