"""How long a lab and its runs let one wait, and what a viewer costs: `python benchmarks/lab.py`.

Everything is real: a keeper, two engines, ranks that train a small network, one of them paced to 1,000 records a
second. Seconds are the median of some tries and the worst of them, because machines drift; a first try that pays for
imports in this process is told apart.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import psutil
import torch

import h3lab as h3
from h3lab.cluster.attempt import Attempt

RATE = 1000.0


def build(spec: Any) -> torch.nn.Module:
    return torch.nn.Linear(spec.features, spec.outputs)


def paced_step(module: torch.nn.Module, batch: Any) -> torch.Tensor:
    """A step that is due a thousandth of a second after the one before."""
    loss = torch.nn.functional.cross_entropy(module(batch.x), batch.y)
    clock = module.__dict__.setdefault("clock", [time.perf_counter(), 0])
    clock[1] += 1
    time.sleep(max(0.0, clock[0] + clock[1] / RATE - time.perf_counter()))
    return loss


def start(lab: h3.Lab, name: str, step: Any = None) -> Any:
    """A training that goes on until it is stopped."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(6400, 16, generator=generator).numpy(), torch.randint(3, (6400,), generator=generator).numpy()
    return lab.train(h3.Actor(name, h3.TorchModel(build, step=step)), (x, y), epochs=1_000_000, batch_size=64)


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 120
    while not (found := condition()):
        if time.monotonic() > deadline:
            sys.exit("what this waits for has not come for two minutes")
        time.sleep(0.002)
    return found


def row(what: str, seconds: list[float], unit: str = "s") -> None:
    scale = {"s": 1.0, "ms": 1e3}[unit]
    told = f"median {scale * statistics.median(seconds):.2f}, worst {scale * max(seconds):.2f} {unit}"
    print(f"| {what} | {told} ({len(seconds)} tries) |", flush=True)


def imports(tries: int) -> None:
    code = "import time; began = time.perf_counter(); import h3lab; print(time.perf_counter() - began)"
    told = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(tries)
    ]
    row("`import h3lab`", [float(each.stdout) for each in told], "ms")


def first_records(lab: h3.Lab, tries: int) -> None:
    def one(number: int) -> float:
        began = time.monotonic()
        run = start(lab, f"first{number}")
        until(lambda: run.step)
        spent = time.monotonic() - began
        run.stop()
        return spent

    row("`train` → first record, the first run of a lab just started", [one(0)])
    row("`train` → first record, warm lab", [one(number) for number in range(1, tries + 1)])


def steering(lab: h3.Lab, tries: int) -> None:
    run = start(lab, "steered", paced_step)
    until(lambda: run.step > 100)
    spent, late = [], []
    for number in range(1, 10 * tries + 1):
        began, before = time.monotonic(), run.step
        run.set(lr=1e-3 / number)
        spent.append(time.monotonic() - began)
        late.append(next(event["step"] for event in reversed(run.events) if event["event"] == "set") - before)
    run.stop()
    row("`set` → confirmed, 1,000 steps a second", spent, "ms")
    told = f"median {statistics.median(late):.0f}, worst {max(late)}"
    print(f"| steps between the last one seen and the one that took it | {told} |")


def attaching(lab: h3.Lab, tries: int, records: int) -> None:
    run = start(lab, "attached")
    until(lambda: run.step > records)
    run.pause()
    code = (
        "import time; began = time.perf_counter(); import h3lab as h3; n = len(h3.attach('attached').frame()); "
        "print(time.perf_counter() - began, n)"
    )
    told = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(tries)
    ]
    seconds = [float(each.stdout.split()[-2]) for each in told]
    assert all(int(each.stdout.split()[-1]) == run.step for each in told)
    row(f"new process → `h3.attach` → `frame()` of all {run.step:,} records", seconds)
    run.stop()


def rank_of(run: Any) -> tuple[int, int]:
    """Processes of a run's engine and of its rank."""
    attempt = Attempt.newest(run.folder)
    assert attempt is not None
    return attempt.slots[0]["pid"], (attempt.start(0) or {})["pid"]


def recovered(lab: h3.Lab, what: str) -> float:
    run = start(lab, f"killed-{what}")
    until(lambda: run.step > 200)
    run.snapshot()
    engine, rank = rank_of(run)
    began = time.monotonic()
    os.kill(engine if what == "engine" else rank, signal.SIGKILL)
    until(lambda: sum(event["event"] == "attempt" for event in run.events) == 2)
    reached = run.step
    until(lambda: run.step > reached)
    spent = time.monotonic() - began
    run.stop()
    return spent


def recovery(lab: h3.Lab, tries: int, what: str) -> None:
    row(f"{what} killed → the run goes on", [recovered(lab, what) for _ in range(tries)])


def percent(process: psutil.Process, seconds: float) -> float:
    before, began = sum(process.cpu_times()[:2]), time.monotonic()
    time.sleep(seconds)
    return float(100 * (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began))


def keeping(lab: h3.Lab, seconds: float) -> None:
    keeper = psutil.Process(lab._folder.status["pid"])
    print(f"| CPU of the keeper, nothing runs | {percent(keeper, seconds):.2f} % of a core |", flush=True)
    run = start(lab, "kept", paced_step)
    until(lambda: run.step > 100)
    print(f"| CPU of the keeper, a run trains | {percent(keeper, seconds):.2f} % of a core |", flush=True)
    run.stop()


@contextlib.contextmanager
def viewer(name: str) -> Iterator[None]:
    """Another process that looks at a run ten times a second, as the screen does."""
    code = (
        f"import time, h3lab as h3; run = h3.attach({name!r})\n"
        "while True: run.status(); print(run.step, flush=True); time.sleep(0.1)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    threading.Thread(target=process.stdout.read, daemon=True).start()
    try:
        yield
    finally:
        process.kill()
        process.wait()


def watching(lab: h3.Lab, pairs: int, seconds: float) -> None:
    run = start(lab, "watched", paced_step)
    until(lambda: run.step > 100)
    rank = psutil.Process(rank_of(run)[1])

    def measure() -> tuple[float, float]:
        spent, step, began = sum(rank.cpu_times()[:2]), run.step, time.monotonic()
        time.sleep(seconds)
        steps = run.step - step
        return (sum(rank.cpu_times()[:2]) - spent) / steps, steps / (time.monotonic() - began)

    costs, speeds = [], []
    for _ in range(pairs):
        alone = measure()
        with viewer(run.name):
            watched = measure()
        costs.append(watched[0] / alone[0])
        speeds.append(watched[1] / alone[1])
    run.stop()
    print(f"| CPU of the rank a step, `h3.attach` and ten looks a second / alone | {statistics.median(costs):.3f} |")
    print(f"| records a second, the same / alone | {statistics.median(speeds):.4f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=3, help="of each wait (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each look at a processor (%(default)s)")
    parser.add_argument("--records", type=int, default=20_000, help="to attach to (%(default)s)")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="h3-"))
    os.environ["H3LAB_HOME"] = str(home / "lab")
    load = os.getloadavg()[0]
    lab = None
    try:
        with contextlib.redirect_stdout(sys.stderr):
            began = time.monotonic()
            lab = h3.Lab(engines=2)
            ready = time.monotonic() - began
        print(f"load of the machine before: {load:.1f}\n\n| what | measured |\n|---|---|", flush=True)
        row("`Lab(engines=2)` → ready", [ready])
        imports(options.tries)
        first_records(lab, options.tries)
        steering(lab, options.tries)
        attaching(lab, options.tries, options.records)
        recovery(lab, options.tries, "rank")
        recovery(lab, options.tries, "engine")
        keeping(lab, options.seconds)
        watching(lab, options.tries, options.seconds)
    finally:
        if lab is not None:
            lab.close(force=True)
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
