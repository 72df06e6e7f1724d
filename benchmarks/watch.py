"""What `h3.watch` costs a loop of 1,000 records a second: `python benchmarks/watch.py [--pairs 8] [--seconds 1.5]`.

In a real kernel, in whose notebook a page looks on: the screen reads, encodes and sends what a browser would get. The
loop computes in Python for a thousandth of a second a record, the worst case, since every moment of the screen's thread
is taken from it. Windows with and without `h3.watch` take turns. Where other programs share the cores their noise is
larger than the cost, so it is counted too: the CPU of all threads beside the loop's own, and what a record costs in it.
What is paid once a loop (the card, the last picture) is told apart.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from kernels import Kernel

CELL = """
import threading, time, h3lab as h3
from pathlib import Path
from h3lab.running.local import LocalRun
from h3lab.ui import display

def compute(rounds):
    total = 0
    for number in range(rounds): total += number * number
    return total

def fastest():
    began = time.perf_counter(); compute(10_000)
    return time.perf_counter() - began
rounds = int(10 / min(fastest() for _ in range(50)))  # a millisecond each

def loop(records):
    for _ in range(records):
        compute(rounds)
        yield {"loss": 1.0, "accuracy": 0.5}

def others():
    "CPU seconds of the threads beside this one, as the system counts them: those of ZeroMQ are none of Python's."
    mine = threading.get_native_id()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path("/proc/self/task").iterdir()
               if int(task.name) != mine) / 1e9

def of_a_record(count=20_000):
    "Seconds that a record costs the loop itself, the best of some."
    def once():
        run, began = LocalRun("benchmark"), time.perf_counter()
        for _ in range(count):
            run.record({"loss": 1.0, "accuracy": 0.5}); run.obey()
        return (time.perf_counter() - began) / count
    return min(once() for _ in range(5))

def window(records, watched, warm=200):
    "Of a record: CPU, wall, CPU beside the loop; then what beginning and end took. The first records are left out."
    source, asked = loop(records), time.perf_counter()
    for count, _ in enumerate(h3.watch(source) if watched else source, 1):
        if count == 1:
            first = time.perf_counter()
            if watched:  # a page says that it looks on, and goes on saying so
                panel = list(display._exhibits.values())[-1].panel
                panel._on_message(None, {"type": "hello", "page": "benchmark"}, [])
                panel._silent_at = time.monotonic() + 600
        if count == warm: beside, cpu, wall = others(), time.process_time(), time.perf_counter()
        if count == records: spent = (time.process_time() - cpu, time.perf_counter() - wall, others() - beside)
    left = time.perf_counter() - wall - spent[1]
    return [each / (records - warm) for each in spent] + [first - asked, left]
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=1.5)
    options = parser.parse_args()
    records = int(1000 * options.seconds) + 200
    home = Path(tempfile.mkdtemp(prefix="h3-"))
    os.environ["H3LAB_HOME"], os.environ["IPYTHONDIR"] = str(home / "lab"), str(home / "ipython")
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}\n| what | measured |\n|---|---|", flush=True)
    kernel = Kernel()
    try:
        kernel.run(CELL)
        once = kernel.value("window(300, True)")
        cpu, wall, beside, begins, ends = [], [], [], [], []
        for pair in range(options.pairs):
            order = (True, False) if pair % 2 else (False, True)
            watched, alone = sorted(
                (kernel.value(f"({not each}, window({records}, {each}))") for each in order), key=lambda told: told[0]
            )
            cpu.append(watched[1][0] / alone[1][0])
            wall.append(watched[1][1] / alone[1][1])
            # By the second, not by the record: on a busy machine a record takes longer than it should.
            beside.append(watched[1][2] / watched[1][1] - alone[1][2] / alone[1][1])
            begins.append(watched[1][3])
            ends.append(watched[1][4])
        record = kernel.value("of_a_record()")
    finally:
        kernel.close()
        shutil.rmtree(home, ignore_errors=True)
    for what, ratios in (("CPU of the process", cpu), ("wall time", wall)):
        told = f"median {statistics.median(ratios):.4f} ({min(ratios):.3f} to {max(ratios):.3f})"
        print(f"| {what} a record, watched / alone, 1,000 a second, {options.pairs} pairs | {told} |")
    screen, loop = statistics.median(beside), record * 1000
    told = f"{screen:.4f} ({min(beside):.4f} to {max(beside):.4f}) + {loop:.4f} = {screen + loop:.4f}"
    print(f"| counted, as a share of a core: threads of the screen + in the loop | {told} |")
    print(f"| once a kernel: first card / last picture | {once[3]:.2f} s / {once[4]:.2f} s |")
    print(f"| once a loop: card / last picture | {statistics.median(begins):.3f} s / {statistics.median(ends):.2f} s |")


if __name__ == "__main__":
    main()
