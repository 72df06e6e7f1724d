"""CPU time of the training loop, as a ratio to the best loop written by hand: `python benchmarks/training.py`.

An MLP 784-256-10, batch 64, fused Adam, one thread, an epoch of MNIST from $H3LAB_TEST_DATA/mnist.npz. Each loop reads
the loss at every step. Pairs are interleaved, because the machine's speed drifts; the median of the ratios counts.
`--curves` measures a rank of a lab instead, journal and all, while a viewer follows its curves.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import psutil
import torch
from torch import nn

import h3lab as h3
from h3lab.feeds.feed import Feed
from h3lab.ui.follower import Follower

BATCH = 64
ROOT = Path(__file__).resolve().parent.parent


def data() -> tuple[np.ndarray, np.ndarray]:
    folder = Path(os.environ.get("H3LAB_TEST_DATA", ROOT.parent / "shared" / "data"))
    with np.load(folder / "mnist.npz") as file:
        names = {name.lower(): name for name in file.files}
        x = file[names.get("x_train") or names["train_images"]]
        y = file[names.get("y_train") or names["train_labels"]]
    return x.reshape(len(x), -1).astype(np.float32) / 255, y.astype(np.int64)


def build(spec: object = None) -> nn.Module:
    return nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))


def by_hand(x: np.ndarray, y: np.ndarray, shuffle: str) -> Callable[[], float]:
    """The loop that everybody writes, as fast as it goes. ``shuffle``: "copy", "gather" or "no"."""
    X, Y = torch.from_numpy(x), torch.from_numpy(y)
    net = build()
    optimizer = torch.optim.Adam(net.parameters(), fused=True)
    loss_of = nn.functional.cross_entropy

    def epoch() -> float:
        order = torch.randperm(len(X)) if shuffle != "no" else None
        xs, ys = (X[order], Y[order]) if shuffle == "copy" else (X, Y)
        value = 0.0
        for start in range(0, len(X), BATCH):
            if shuffle == "gather":
                chosen = order[start : start + BATCH]
                xb, yb = xs[chosen], ys[chosen]
            else:
                xb, yb = xs[start : start + BATCH], ys[start : start + BATCH]
            optimizer.zero_grad()
            loss = loss_of(net(xb), yb)
            loss.backward()
            optimizer.step()
            value = loss.item()
        return value

    return epoch


def ours(x: np.ndarray, y: np.ndarray, shuffle: bool) -> Callable[[], float]:
    feed = Feed.of(x, y)
    if not shuffle:
        shuffled = feed.epoch
        feed.epoch = lambda number, **options: shuffled(number, shuffle=False, **options)  # type: ignore[method-assign]
    actor = h3.Actor("mlp", h3.TorchModel(build))
    # One training whose epochs are taken one at a time, as the loop by hand keeps its optimizer.
    records = iter(h3.train(actor, feed, epochs=1000, batch_size=BATCH))
    steps = feed.steps(BATCH)

    def epoch() -> float:
        for _ in range(steps):
            record = next(records)
        return record["loss"]

    return epoch


def cpu_seconds(work: Callable[[], float]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def compare(pairs: int, shuffle: bool, rows: int | None) -> None:
    x, y = (values[:rows] for values in data())
    hand = {name: by_hand(x, y, name) for name in (("copy", "gather") if shuffle else ("no",))}
    mine = ours(x, y, shuffle)
    seconds: dict[str, list[float]] = {name: [] for name in (*hand, "h3lab")}
    cpu_seconds(mine), [cpu_seconds(loop) for loop in hand.values()]  # caches and lazy imports
    for _ in range(pairs):
        for name, loop in hand.items():
            seconds[name].append(cpu_seconds(loop))
        seconds["h3lab"].append(cpu_seconds(mine))
    best = min(hand, key=lambda name: statistics.median(seconds[name]))
    ratios = [a / b for a, b in zip(seconds["h3lab"], seconds[best], strict=True)]
    steps = -(-len(x) // BATCH)
    shown = ", ".join(f"{name} {statistics.median(values) / steps * 1e6:.0f}" for name, values in seconds.items())
    print(f"shuffle {'on ' if shuffle else 'off'}: CPU µs a step (median of {pairs} epochs): {shown}")
    print(f"    h3lab / {best}: median {statistics.median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f}")


def rank_of(folder: Path) -> psutil.Process:
    """The process that holds the lock of a run."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and any(file.path == str(folder / "lock") for file in process.open_files()):
                return process
    raise LookupError(f"no process holds {folder}/lock")


class Eager:
    """A view that wants every piece of news at once, as a panel in sight does."""

    watching = True

    def news(self, follower: Follower, drop_from: int | None) -> None:
        """Drawing is the page's work; its cost is in `curves.py`."""


def compare_watched(pairs: int, rows: int | None) -> None:
    """The rank trains an epoch, pauses, the loop by hand trains one, and so on: never both at once.

    The viewer is the panel's follower in this process, so its CPU time is not the rank's.
    """
    x, y = (values[:rows] for values in data())
    hand = {name: by_hand(x, y, name) for name in ("copy", "gather")}
    seconds: dict[str, list[float]] = {name: [] for name in (*hand, "h3lab")}
    steps = -(-len(x) // BATCH)
    with h3.Lab(engines=1) as lab:
        run = lab.train(h3.Actor("watched", h3.TorchModel(build)), (x, y), epochs=100_000, batch_size=BATCH)
        Follower(run.folder).join(Eager())
        reached(run, steps)
        rank = rank_of(run.folder.path)
        for _ in range(pairs):
            run.pause()
            for name, loop in hand.items():
                seconds[name].append(cpu_seconds(loop) / steps)
            spent, begun = sum(rank.cpu_times()[:2]), run.step
            run.resume()
            reached(run, begun + steps)
            run.pause()
            seconds["h3lab"].append((sum(rank.cpu_times()[:2]) - spent) / (run.step - begun))
        run.stop()
    best = min(hand, key=lambda name: statistics.median(seconds[name]))
    ratios = [a / b for a, b in zip(seconds["h3lab"], seconds[best], strict=True)]
    shown = ", ".join(f"{name} {statistics.median(values) * 1e6:.0f}" for name, values in seconds.items())
    print(f"curves on, shuffled: CPU µs a step (median of {pairs} epochs): {shown}")
    print(f"    rank / {best}: median {statistics.median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f}")


def reached(run: Any, step: int) -> None:
    while run.step < step:
        time.sleep(0.02)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--rows", type=int, default=None, help="take only the first rows of MNIST")
    parser.add_argument("--curves", action="store_true", help="a rank of a lab, watched, against the loop by hand")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.curves:
        compare_watched(arguments.pairs, arguments.rows)
    for shuffle in () if arguments.curves else (True, False):
        compare(arguments.pairs, shuffle, arguments.rows)
