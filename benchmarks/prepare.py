"""Preparing a million rows, as a ratio to scikit-learn in one process: `python benchmarks/prepare.py`.

20 numeric columns (scaled), 5 categorical ones (one-hot) and a text of about 10 words (tf-idf, 20,000 words), from a
Parquet file to a stored feed. scikit-learn keeps its result in memory and stores nothing. Each run is a process of its
own with one thread a process; memory is the highest sum of PSS over its process tree, sampled 20 times a second, so
pages that processes share count once. Pairs are interleaved and the medians count. Two workers of a forkserver stand
for two engines; `--lab` prepares with `h3.Lab(engines=2)` instead. Workers and engines are up before the clock starts.
`--times 10` compares h3lab with itself on ten times the rows, where scikit-learn would need ten times its memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from h3lab.feeds.feed import open_feed

NUMBERS = [f"n{i}" for i in range(20)]
CATEGORIES = {"c0": 5, "c1": 10, "c2": 30, "c3": 100, "c4": 500}
WORDS = 20_000


def generate(path: Path, rows: int) -> None:
    """Words of a Zipf-like language with 60,000 of them; row groups of 62,500 rows."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(sorted({"".join(rng.choice(letters, rng.integers(3, 10))) for _ in range(60_000)}))
    rng.shuffle(words)
    share = np.cumsum(1 / np.arange(1, len(words) + 1) ** 1.05)
    writer = None
    for start in range(0, rows, 62_500):
        count = min(62_500, rows - start)
        lengths = rng.poisson(10, count).clip(1)
        drawn = np.searchsorted(share, rng.random(lengths.sum()) * share[-1])
        tokens = pa.array(words).take(pa.array(drawn))
        bounds = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        columns: dict[str, Any] = {n: rng.normal(i * 10, 1 + i, count) for i, n in enumerate(NUMBERS)}
        for name, size in CATEGORIES.items():
            columns[name] = pa.array([f"{name}_{i:03d}" for i in range(size)]).take(
                pa.array(rng.integers(0, size, count))
            )
        columns["text"] = pc.binary_join(pa.ListArray.from_arrays(bounds, tokens), " ")
        columns["label"] = pa.array(["no", "yes"]).take(pa.array(rng.integers(0, 2, count)))
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


# ---- What is compared -------------------------------------------------------------------------------------


def by_sklearn(data: Path) -> dict[str, Any]:
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    began = time.perf_counter()
    frame = pd.read_parquet(data)
    blocks = [
        ("numbers", StandardScaler(), NUMBERS),
        ("categories", OneHotEncoder(), list(CATEGORIES)),
        ("text", TfidfVectorizer(max_features=WORDS), "text"),
    ]
    x = ColumnTransformer(blocks, sparse_threshold=1.0).fit_transform(frame)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "sums": sums(x.data)}


def sums(values: np.ndarray) -> list[float]:
    """What two preparations must agree in, computed without another copy of the numbers."""
    return [float(values.sum()), float(values @ values)]


def by_h3lab(data: Path, out: Path, lab: bool, width: int) -> dict[str, Any]:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    import h3lab as h3
    from h3lab.cluster.executors import Processes
    from h3lab.preparing.executor import Here
    from h3lab.preparing.prepare import prepare

    pipeline = h3.Pipeline(
        h3.Preprocessor("numbers", NUMBERS, StandardScaler()),
        h3.Preprocessor("categories", list(CATEGORIES), OneHotEncoder()),
        h3.Preprocessor("text", "text", TfidfVectorizer(max_features=WORDS)),
        label="label",
    )
    executor: Any = h3.Lab(engines=width) if lab else Processes(width) if width > 1 else Here()
    if width > 1 and not lab:
        list(executor.map(abs, range(width * 4)))
    try:
        began = time.perf_counter()
        feed = executor.prepare(pipeline, data, to=out) if lab else prepare(pipeline, data, to=out, executor=executor)
        seconds = time.perf_counter() - began
    finally:
        getattr(executor, "close", lambda: None)()
    return {"seconds": seconds, "counts": feed.manifest["counts"]}


# ---- Memory -----------------------------------------------------------------------------------------------


def family(root: int, home: str) -> list[int]:
    """A process, its descendants, and whatever was started detached with its H3LAB_HOME."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            mine = process.pid == root or root in (parent.pid for parent in process.parents())
            if mine or process.environ().get("H3LAB_HOME") == home:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def pss(pids: Sequence[int]) -> int:
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:  # has just ended
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total * 1024


class Sampler(threading.Thread):
    """The highest sum of PSS until :meth:`stop`."""

    def __init__(self, root: int, home: str) -> None:
        super().__init__(daemon=True)
        self.root, self.home, self.peak, self._ended = root, home, 0, threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.05):
            self.peak = max(self.peak, pss(family(self.root, self.home)))

    def stop(self) -> int:
        self._ended.set()
        self.join()
        return self.peak


def measured(options: argparse.Namespace, kind: str, data: Path, out: Path) -> dict[str, Any]:
    """One run in a process of its own."""
    shutil.rmtree(out, ignore_errors=True)
    home = tempfile.mkdtemp(prefix="h3-")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "H3LAB_HOME": home, "ARROW_DEFAULT_MEMORY_POOL": "system"}
    command = [sys.executable, __file__, "--run", kind, "--data", str(data), "--out", str(out)]
    command += ["--engines", str(options.engines), *(["--lab"] if options.lab else [])]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        sampler = Sampler(process.pid, home)
        sampler.start()
        printed, _ = process.communicate()
        peak = sampler.stop()
    shutil.rmtree(home, ignore_errors=True)
    if process.returncode:
        raise SystemExit(f"the run of {kind} has failed")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found: dict[str, Any] = json.loads(printed.splitlines()[-1]) | {"peak": peak, "cpu": cpu}
    return found


def compare(options: argparse.Namespace, data: Path, out: Path) -> None:
    runs: dict[str, list[dict[str, Any]]] = {"sklearn": [], "h3lab": []}
    for _ in range(options.pairs):
        for kind, found in runs.items():
            found.append(measured(options, kind, data, out))
            last = found[-1]
            line = f"{kind:8} {last['seconds']:6.2f} s  {last['peak'] / 1e6:6.0f} MB  {last['cpu']:6.2f} s of CPU"
            print(line, flush=True)
    parts = [sums(part.x.data) for part in open_feed(out)._rows.parts]
    assert np.allclose(np.sum(parts, axis=0), runs["sklearn"][0]["sums"], rtol=1e-9), "not the same numbers"
    seconds = [statistics.median(b["seconds"] / a["seconds"] for a, b in zip(*reversed(runs.values()), strict=True))]
    memory = [statistics.median(a["peak"] / b["peak"] for a, b in zip(*reversed(runs.values()), strict=True))]
    where = f"Lab(engines={options.engines})" if options.lab else f"{options.engines} processes"
    print(f"{where}: {seconds[0]:.2f} x as fast as scikit-learn, {memory[0]:.2f} of its memory")
    print(runs["h3lab"][-1]["counts"])


def grow(options: argparse.Namespace, data: Path, out: Path) -> None:
    """The same preparing, of `times` as many rows: what that costs in time and in memory."""
    larger = data.with_name(f"{data.stem}-times-{options.times}.parquet")
    if not larger.exists():
        generate(larger, options.rows * options.times)
    runs: dict[Path, list[dict[str, Any]]] = {data: [], larger: []}
    for _ in range(options.pairs):
        for path, found in runs.items():
            found.append(last := measured(options, "h3lab", path, out))
            rows = last["counts"]["rows"]
            print(f"{rows:10,} rows  {last['seconds']:6.2f} s  {last['peak'] / 1e6:6.0f} MB", flush=True)
    for name in ("seconds", "peak"):
        ratio = statistics.median(b[name] / a[name] for a, b in zip(*runs.values(), strict=True))
        print(f"{options.times} times the rows: {ratio:.2f} x the {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--engines", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--times", type=int, help="compare with this many times the rows, instead of with scikit-learn")
    parser.add_argument("--lab", action="store_true", help="prepare on the engines of h3.Lab")
    parser.add_argument("--data", type=Path, help="a Parquet file to keep between runs; made where it is missing")
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--run", choices=("sklearn", "h3lab"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run == "sklearn":
        print(json.dumps(by_sklearn(options.data)))
    elif options.run == "h3lab":
        print(json.dumps(by_h3lab(options.data, options.out, options.lab, options.engines)))
    else:
        with tempfile.TemporaryDirectory() as folder:
            data = options.data or Path(folder) / "rows.parquet"
            if not data.exists():
                generate(data, options.rows)
            (grow if options.times else compare)(options, data, Path(folder) / "feed")


if __name__ == "__main__":
    main()
