"""How late a curve is, how smooth its page, what a viewer costs: `python benchmarks/curves.py [latency frames cost]`.

A real rank, paced to 1,000 records a second by the time its steps take, watched in a real JupyterLab by a headless
Chromium. Each record carries when it was made; the page notes when it was painted. The machine's load counts: rank,
kernel, server and browser share its cores.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import psutil
import torch
from browsing import CHROMIUM, FLAGS, Jupyter, Notebook
from paced import paced
from playwright.sync_api import Browser, sync_playwright

import h3lab as h3

RATE, SECONDS, PAIRS, WINDOW = 1000.0, 20, 10, 6
SHOW = "import h3lab as h3\nrun = h3.attach({!r})\nrun"
SHOW_FOLDER = "from paced import Asked; from h3lab.running.folder import find; run = Asked(find({!r})); run"
CLOSE = "from h3lab.ui import display\nfor exhibit in display._exhibits.values():\n    exhibit.close()"
LOOP = "import time\nend = time.monotonic() + {}\nwhile time.monotonic() < end: pass"

#: Milliseconds from the making of each record to the end of the paint that shows it.
LATENCIES = """(seconds) => new Promise((resolve) => {
  const card = document.querySelector(".h3lab-card").h3lab, run = card.board.runs[0], late = [];
  let last = card.painted.step;
  const end = performance.now() + 1000 * seconds;
  const look = () => {
    const { step, at } = card.painted, made = run.points("made");
    if (step > last) for (let i = made.find(last + 1); i < made.find(step + 1); i++) late.push(at - 1000 * made.y[i]);
    last = Math.max(last, step);
    performance.now() < end ? requestAnimationFrame(look) : resolve(late);
  };
  look();
})"""
FRAMES = """(seconds) => new Promise((resolve) => {
  const times = [], end = performance.now() + 1000 * seconds;
  const look = (now) => { times.push(now); now < end ? requestAnimationFrame(look) : resolve(times); };
  requestAnimationFrame(look);
})"""


def build(spec: Any) -> torch.nn.Module:
    return torch.nn.Linear(spec.features, spec.outputs)


def paced_step(module: torch.nn.Module, batch: Any) -> dict[str, torch.Tensor]:
    """A step that is due a thousandth of a second after the one before, and says when it was done."""
    loss = torch.nn.functional.cross_entropy(module(batch.x), batch.y)
    clock = module.__dict__.setdefault("clock", [time.perf_counter(), 0])
    clock[1] += 1
    time.sleep(max(0.0, clock[0] + clock[1] / RATE - time.perf_counter()))
    return {"loss": loss, "made": torch.tensor(time.time(), dtype=torch.float64)}


def start(lab: Any, name: str) -> Any:
    """A training that records RATE times a second until it is stopped."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(6400, 16, generator=generator).numpy(), torch.randint(3, (6400,), generator=generator).numpy()
    actor = h3.Actor(name, h3.TorchModel(build, step=paced_step))
    run = lab.train(actor, (x, y), epochs=1_000_000, batch_size=64)
    while run.step < 100:
        time.sleep(0.05)
    return run


def opened(browser: Browser, server: Jupyter, cells: list[str]) -> Notebook:
    return Notebook(
        browser.new_context(viewport={"width": 1300, "height": 900}).new_page(), server, server.write(cells)
    )


def latency(lab: Any, browser: Browser, server: Jupyter) -> None:
    run = start(lab, "latency")
    book = opened(browser, server, [SHOW.format(run.name), LOOP.format(SECONDS + 10)])
    book.run(0)
    book.wait(book.painted, what="a first curve")
    for what in ("kernel idle", "kernel in a Python loop"):
        if what != "kernel idle":
            book.run(1, wait=False)
        book.page.wait_for_timeout(3000)
        late = sorted(book.page.evaluate(LATENCIES, SECONDS))
        told = f"{statistics.median(late):.0f} ms, p95 {late[int(0.95 * len(late))]:.0f} ms"
        print(f"| record made by a rank → painted, {what} | median {told} ({len(late):,} records) |", flush=True)
    run.stop()
    book.page.context.close()
    server.end_kernels()


def frames(lab: Any, browser: Browser, server: Jupyter) -> None:
    with paced("million", rate=RATE, steps=10_000_000, ahead=1_000_000) as folder:
        book = opened(browser, server, [SHOW_FOLDER.format(folder.name)])
        began = time.monotonic()
        book.run(0)
        book.wait(lambda: book.held() > 1_000_000, 120, "a million records")
        print(f"| a million records, read by a new kernel and shown | {time.monotonic() - began:.1f} s |")
        book.page.wait_for_timeout(2000)
        times = book.page.evaluate(FRAMES, SECONDS)
        gaps = sorted(b - a for a, b in zip(times, times[1:]))
        told = f"{statistics.median(gaps):.1f} / {gaps[int(0.95 * len(gaps))]:.1f} ms"
        print(
            f"| frame of the page with {book.held():,} records, 1,000 more a second: p50 / p95 | {told} |", flush=True
        )
        book.page.context.close()
        server.end_kernels()


def cost(lab: Any, browser: Browser, server: Jupyter) -> None:
    """CPU time of the rank a step, and steps a second, with and without a viewer in an open notebook; short windows in
    turn, because machines drift."""
    run = start(lab, "cost")
    rank = next(p for p in psutil.process_iter() if holds(p, str(run.folder.path)))
    book = opened(browser, server, [SHOW.format(run.name), CLOSE])

    def measure() -> tuple[float, float]:
        spent, step, at = sum(rank.cpu_times()[:2]), run.step, time.monotonic()
        book.page.wait_for_timeout(1000 * WINDOW)
        steps = run.step - step
        return (sum(rank.cpu_times()[:2]) - spent) / steps, steps / (time.monotonic() - at)

    ratios, speeds = [], []
    for _ in range(PAIRS):
        book.run(0)
        book.wait(book.painted, what="a first curve")
        watched = measure()
        book.run(1)
        book.wait(lambda: book.text("pill") == "frozen", what="the panel is closed")
        alone = measure()
        ratios.append(watched[0] / alone[0])
        speeds.append(watched[1] / alone[1])
    run.stop()
    low, high = sorted(ratios)[1], sorted(ratios)[-2]
    told = f"median {statistics.median(ratios):.3f}, all but the outermost {low:.3f} to {high:.3f}"
    print(f"| CPU of the rank a step, watched / alone, {PAIRS} pairs | {told} |")
    print(f"| steps a second, watched / alone | median {statistics.median(speeds):.4f} |", flush=True)
    book.page.context.close()


def holds(process: psutil.Process, folder: str) -> bool:
    """Whether a process is the rank of a run: it has the run's lock open."""
    try:
        return any(file.path == f"{folder}/lock" for file in process.open_files()) and process.pid != os.getpid()
    except psutil.Error:
        return False


def main() -> None:
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None:
        sys.exit("This benchmark needs chromium (Debian: apt-get install chromium).")
    home = Path(tempfile.mkdtemp(prefix="h3-"))
    os.environ["H3LAB_HOME"] = str(home / "lab")
    lab, server = h3.Lab(engines=2), Jupyter(home / "jupyter")
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            print(f"load of the machine before: {os.getloadavg()[0]:.1f}\n| what | measured |\n|---|---|", flush=True)
            for name in sys.argv[1:] or ("latency", "frames", "cost"):
                {"latency": latency, "frames": frames, "cost": cost}[name](lab, browser, server)
            browser.close()
    finally:
        server.close()
        lab.close(force=True)
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
