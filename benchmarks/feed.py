"""Iterating a feed, shuffled, as a ratio to loops written by hand: `python benchmarks/feed.py`.

MNIST from $H3LAB_TEST_DATA/mnist.npz as float32, or random numbers of the same shape; one thread; CPU seconds of an
epoch, each batch is read once (a product with a vector). All ways take turns, because the machine's speed drifts; the
medians count. Then the disk: writing a feed, opening it, drawing its first shuffled batch; and epochs in a control
group whose memory is a third of the feed (this needs root on Linux), by rows, in blocks, and by torch's DataLoader.
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
        **loaders(x, y, stored, size),
    }


def loaders(x: np.ndarray, y: np.ndarray, stored: Feed, size: int) -> dict[str, Callable[[], Pairs]]:
    """torch's, over the arrays in memory and over the maps of the stored feed."""
    try:
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(1)

    def run(dataset: Any) -> Callable[[], Pairs]:
        loader = torch.utils.data.DataLoader(dataset, batch_size=size, shuffle=True)
        return lambda: ((xb.numpy(), yb.numpy()) for xb, yb in loader)

    memory = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    return {"torch DataLoader, in memory": run(memory), "torch DataLoader, over the maps": run(Mapped(stored))}


class Mapped:
    """The rows of a stored feed, one by one out of its memory maps, as a map-style data set."""

    def __init__(self, feed: Feed) -> None:
        self.starts, self.maps = feed._rows.starts, []
        for part in (feed.manifest or {})["parts"]:
            x, y = (part["arrays"][name]["files"]["data"] for name in ("x", "y"))
            paths = [Path(str(feed.url)) / "parts" / file["file"] for file in (x, y)]
            maps = [np.memmap(p, f["dtype"], "r", shape=tuple(f["shape"])) for p, f in zip(paths, (x, y), strict=True)]
            self.maps.append(maps)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
        part = int(np.searchsorted(self.starts, row, "right")) - 1 if len(self.maps) > 1 else 0
        x, y = self.maps[part]
        return x[row - self.starts[part]].copy(), y[row - self.starts[part]]


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


def epochs_of(folder: Path, way: str, seconds: float) -> None:
    """An epoch, and in blocks a second one, whose bytes have been checked by then."""
    feed = open_feed(folder)
    for number in range(2 if way == "blocks" else 1):
        epoch_of(feed, folder, way, seconds, number)


def epoch_of(feed: Feed, folder: Path, way: str, seconds: float, number: int) -> None:
    """Rows a second of an epoch, or of its beginning, in this process; the files are not in memory when it begins."""
    for path in (folder / "parts").iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if way == "DataLoader":
        import torch

        torch.set_num_threads(1)
        loader = iter(torch.utils.data.DataLoader(Mapped(feed), batch_size=256, shuffle=True))
    rows, vector, before, began = 0, np.ones(784, np.float32), bytes_read(), time.perf_counter()
    given = loader if way == "DataLoader" else feed.epoch(number, batch_size=256, shuffle=way, copy=False)
    for batch in given:
        x = batch[0].numpy() if way == "DataLoader" else batch.x
        rows += len(x)
        x @ vector
        if time.perf_counter() - began > seconds:
            break
    seconds = time.perf_counter() - began
    used = (bytes_read() - before) / (rows * feed.nbytes / len(feed))
    print(
        f"  {way:11} epoch {number} {rows / seconds:10,.0f} rows/s, {used:.1f} bytes read for each that is used",
        flush=True,
    )


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split("read_bytes: ")[1].split()[0])


def scarce(folder: Path, turns: int, limit_seconds: float) -> None:
    memory = int(open_feed(folder / "large").nbytes / 3)
    version1 = Path("/sys/fs/cgroup/memory")
    group = (version1 if version1.is_dir() else Path("/sys/fs/cgroup")) / f"h3lab-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if version1.is_dir() else "memory.max")).write_text(str(memory))
    except OSError as error:
        print(f"\nno control group, so nothing is said of a feed larger than memory: {error}")
        return
    ahead = sorted({path.read_text().strip() for path in Path("/sys/block").glob("*/queue/read_ahead_kb")})
    print(
        f"\nan epoch of it, batches of 256, in {memory / 1e6:,.0f} MB of memory; a fault reads {ahead} KB", flush=True
    )
    enter = f"echo $$ > {group}/cgroup.procs && exec "
    for way in ("blocks", "rows", "DataLoader") * turns:
        command = f"{enter} {sys.executable} {__file__} --epoch {way} --folder {folder / 'large'}"
        subprocess.run(["sh", "-c", f"{command} --seconds {limit_seconds}"], check=True)
    group.rmdir()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    for name, kind in (("epoch", str), ("folder", Path), ("seconds", float)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.epoch:
        epochs_of(options.folder, options.epoch, options.seconds)
        return
    x, y = data()
    folder = Path(tempfile.mkdtemp(prefix="h3-feed-"))
    try:
        stored = Feed.of(x, y).store(folder / "mnist")
        for size in (64, 256):
            measure(size, options.turns, x, y, open_feed(stored.url))
        disk(folder, options.gigabytes)
        scarce(folder, 3, 20.0)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
