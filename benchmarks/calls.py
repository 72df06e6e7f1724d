"""How long each public call lets one wait beyond its work: `python benchmarks/calls.py`.

Each call has a process of its own. There the same work written by hand runs once and pays for the imports that both
need; then the call runs for the first time, and then both take five turns. What is told is the difference between the
two. CPU seconds are measured beside the clock, because a busy machine makes the clock say anything; a call that sleeps
would show in the clock alone. No engine is asked here: benchmarks/lab.py does that.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

ROWS, COLUMNS, RUNS, RECORDS = 20_000, 20, 200, 1000
NAMES = [f"c{i}" for i in range(COLUMNS)]


def prepare_home(home: Path) -> None:
    """A table, a prepared feed, a saved actor, and RUNS runs of RECORDS records, two of them still training."""
    import numpy as np
    import pandas as pd
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    import h3lab as h3
    from h3lab.preparing.prepare import prepare
    from h3lab.running import journal
    from h3lab.running.folder import RunFolder

    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.random((ROWS, COLUMNS)), columns=NAMES)
    frame["label"] = random.choice(["yes", "no"], ROWS)
    frame.to_parquet(home / "table.parquet")
    numbers = h3.Preprocessor("numbers", NAMES, StandardScaler())
    feed = prepare(h3.Pipeline(numbers, label="label"), h3.read(home / "table.parquet"), to=home / "feed")
    h3.Actor("saved", LogisticRegression()).fit(feed).save(home / "saved.h3")
    np.save(home / "x.npy", feed.arrays()[0])
    for number in range(1, RUNS + 1):
        folder = RunFolder(home / "runs" / "digits" / str(number))
        folder.path.mkdir(parents=True)
        folder.write_info(
            number=number, name="digits", epochs=3, created=time.time(), settings=[], values={}, lab="default"
        )
        folder.write_state("finished", attempt=1, step=RECORDS, slots=["slot0"], host="here")
        writer = journal.Writer(folder.journal, 1, 1)
        for step in range(1, RECORDS + 1):
            writer.record({"step": step, "epoch": 1, "seconds": step / 100, "loss": 1 / step})
        writer.close()


# ---- The calls, and the same by hand: each is a function that returns what is to be timed --------------------


def recipe() -> Any:
    """Blocks of a pipeline, and the names of its columns."""
    from sklearn.preprocessing import StandardScaler

    import h3lab as h3

    return h3.Pipeline(*[h3.Preprocessor(name, name, StandardScaler()) for name in NAMES], label="label")


def transformer() -> Any:
    """The same as a ColumnTransformer."""
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import StandardScaler

    return ColumnTransformer([(name, StandardScaler(), [name]) for name in NAMES])


def network() -> Any:
    """A module of torch, for actors, which are estimators of scikit-learn."""
    import sklearn.base  # noqa: F401
    from torch import nn

    return nn.Sequential(nn.Linear(COLUMNS, 64), nn.ReLU(), nn.Linear(64, 2))


def actor() -> Any:
    """An actor around it."""
    import h3lab as h3

    return h3.Actor("a", h3.TorchModel(network(), lr=1e-3))


def parquet_head(home: Path) -> Any:
    """Schema and five rows of a Parquet file."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(home / "table.parquet")
    return str(file.schema_arrow), next(file.iter_batches(5)).to_pandas().to_string()


def skops_load(home: Path) -> Any:
    """An estimator from a file, without pickle."""
    from sklearn.linear_model import LogisticRegression
    from skops import io

    path = home / "by-hand.skops"
    if not path.exists():
        io.dump(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), path)
    return io.load(path, trusted=[])


def states(home: Path) -> Any:
    """What a table of runs has, read from its files."""
    import pandas as pd

    rows = []
    for path in (home / "runs" / "digits").iterdir():
        info, state = (json.loads((path / f"{what}.json").read_text()) for what in ("run", "state"))
        last = next(path.glob("journal*/*" if (path / "journal").is_dir() else "*.jsonl")).read_bytes()[-300:]
        rows.append({**info, **state, "last": last})
    return pd.DataFrame(rows)


def records(home: Path) -> Any:
    """The records of one run, for arrays."""
    numpy()
    path = home / "runs" / "digits" / "200"
    found = next(path.glob("journal*/*" if (path / "journal").is_dir() else "*.jsonl"))
    return [json.loads(line) for line in found.read_bytes().splitlines()]


def h3() -> Any:
    """The face."""
    import h3lab

    return h3lab


def numpy() -> Any:
    """NumPy, imported."""
    import numpy

    return numpy


def sample(home: Path) -> Any:
    """The table as pandas has it, what describes its columns, and workers for them."""
    import pandas as pd

    transformer()

    frame = pd.read_parquet(home / "table.parquet")
    return frame.nunique(), frame.isna().sum()


Call = tuple[Callable[[Path], Any], Callable[[Path], Any]]
CALLS: dict[str, Call] = {
    "import h3lab": (lambda home: h3(), lambda home: None),
    "h3.read(parquet)": (lambda home: h3().read(home / "table.parquet"), parquet_head),
    "repr(source)": (lambda home: repr(h3().read(home / "table.parquet")), parquet_head),
    "h3.Pipeline of 20 blocks": (lambda home: recipe(), lambda home: transformer()),
    "repr(pipeline)": (lambda home: repr(recipe()), lambda home: repr(transformer())),
    "h3.Pipeline.guess": (lambda home: h3().Pipeline.guess(home / "table.parquet", label="label"), sample),
    "h3.Actor(TorchModel)": (lambda home: actor(), lambda home: network()),
    "repr and card of an actor": (lambda home: actor()._repr_mimebundle_(), lambda home: repr(network())),
    "h3.open_feed": (lambda home: h3().open_feed(home / "feed"), lambda home: skops_load(home)),
    "repr and card of a feed": (
        lambda home: h3().open_feed(home / "feed")._repr_mimebundle_(),
        lambda home: skops_load(home),
    ),
    "h3.load": (lambda home: h3().load(home / "saved.h3"), skops_load),
    "h3.train, first record": (
        lambda home: next(iter(h3().train(actor(), h3().open_feed(home / "feed"), epochs=1))),
        lambda home: by_hand_step(home),
    ),
    f"h3.attach, of {RUNS} runs": (lambda home: h3().attach("digits"), lambda home: numpy()),
    "repr(run)": (lambda home: repr(h3().attach("digits")), records),
    "run.frame()": (lambda home: h3().attach("digits").frame(), lambda home: table_of(records(home))),
    f"h3.runs(), {RUNS} runs": (lambda home: h3().runs(), states),
}


def table_of(rows: Any) -> Any:
    """Records as a table."""
    import pandas as pd

    return pd.DataFrame(rows)


def by_hand_step(home: Path) -> Any:
    """A step of Adam on the same network, rows from a memory map, and the pipeline's estimator beside it."""
    import numpy as np
    import torch

    skops_load(home)
    module = network()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    rows = torch.from_numpy(np.load(home / "x.npy", mmap_mode="r")[:64].astype("float32"))
    torch.nn.functional.cross_entropy(module(rows), torch.zeros(64, dtype=torch.long)).backward()
    optimizer.step()


# ---- Measuring ------------------------------------------------------------------------------------------------


def timed(call: Callable[[Path], Any], home: Path) -> tuple[float, float]:
    """(CPU, clock) seconds of one call."""
    cpu, clock = time.process_time(), time.perf_counter()
    call(home)
    return time.process_time() - cpu, time.perf_counter() - clock


def measured(name: str, home: Path) -> dict[str, tuple[float, float]]:
    """(CPU, clock) of the call's first time, and the medians of later turns of the call and of the same by hand."""
    ours, theirs = CALLS[name]
    theirs(home)
    first = timed(ours, home)
    turns = [(timed(ours, home), timed(theirs, home)) for _ in range(5)]

    def middle(side: int) -> tuple[float, float]:
        return statistics.median(turn[side][0] for turn in turns), statistics.median(turn[side][1] for turn in turns)

    return {"first": first, "ours": middle(0), "theirs": middle(1)}


def child(name: str, home: Path) -> dict[str, list[float]]:
    """The same, in a new process."""
    command = [sys.executable, __file__, "--one", name, "--home", str(home)]
    # Compiled once, as an installation is: without it each new process would compile every module again.
    environment = {n: v for n, v in os.environ.items() if n != "PYTHONDONTWRITEBYTECODE"} | {"H3LAB_HOME": str(home)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    if done.returncode:
        sys.exit(f"{name}: {done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="calls whose name has this")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(options.one, options.home)))
        return
    with tempfile.TemporaryDirectory(prefix="h3-") as folder:
        home = Path(folder)
        os.environ["H3LAB_HOME"] = folder
        prepare_home(home)
        compileall.compile_dir(Path(h3().__file__).parent, quiet=1)
        print("| call | beyond, first time (CPU) | beyond, again (CPU) | again (clock) | by hand (clock) |")
        print("|---|---|---|---|---|")
        for name in CALLS:
            if options.only and options.only not in name:
                continue
            found = child(name, home)
            beyond = [(found[when][0] - found["theirs"][0]) * 1000 for when in ("first", "ours")]
            late = " **slow**" if max(beyond) > 100 else ""
            clock = [found[side][1] * 1000 for side in ("ours", "theirs")]
            print(f"| {name}{late} | {beyond[0]:.0f} ms | {beyond[1]:.1f} ms | {clock[0]:.1f} ms | {clock[1]:.1f} ms |")


if __name__ == "__main__":
    main()
