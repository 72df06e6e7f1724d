"""A run's folder that grows, written by a real process at a real pace: ``python paced.py digits --rate 1000``.

It writes what a rank writes, by the package's own Writer and RunFolder, and obeys controls; nothing is trained. So the
screen is tested at the pace of a fast training, on machines that cannot train that fast beside a browser.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from h3lab.running.folder import ENDED, RunFolder
from h3lab.running.journal import Writer, read
from h3lab.settings import Setting, Settings
from h3lab.worlds import view

DECLARED = (
    Setting("lr", float, 1e-3, low=0.0, log=True, help="learning rate"),
    Setting("temperature", float, 4.0, low=0.05, high=1000.0, log=True),
)
SLOTS = ["slot0"]
EPOCHS = 20


class Pace:
    """One run: ``advance`` writes the steps that are due, ``obey`` what viewers asked for."""

    def __init__(self, name: str, rate: float, steps: int, ahead: int = 0) -> None:
        self.folder = RunFolder.claim(name)
        self.rate, self.steps, self.per_epoch = rate, steps, max(1, steps // EPOCHS)
        self.settings = Settings(DECLARED)
        self.step, self.seen, self.paused, self.over = 0, 0, False, False
        self.random = random.Random(self.folder.name)
        self.folder.write_info(
            name=name, number=int(self.folder.path.name), created=time.time(), epochs=EPOCHS, batch_size=64,
            total_steps=steps, ranks=1, threads=1, seed=0, settings=[setting.to_json() for setting in DECLARED],
            values=dict(self.settings),
        )  # fmt: skip
        self.writer = Writer(self.folder.journal, 1, 1)
        self.state("training")
        self.begin = time.perf_counter()
        self.clock = self.begin
        while self.step < ahead:
            self.step += 1
            self.writer.record(self.record())
        self.clock = time.perf_counter() - self.step / self.rate

    def state(self, state: str, **values: Any) -> None:
        """Say how the run is."""
        self.folder.write_state(state, attempt=1, pid=os.getpid(), slots=SLOTS, step=self.step, **values)

    def advance(self) -> None:
        """Write the steps that are due."""
        now = time.perf_counter()
        due = self.step if self.paused else min(self.steps, int((now - self.clock) * self.rate))
        while self.step < due:
            self.step += 1
            self.writer.record(self.record())
        if self.paused:
            self.clock = now - self.step / self.rate

    def record(self) -> dict[str, float]:
        """The record of a step."""
        done = self.step / self.steps
        record = {
            "step": self.step,
            "epoch": (self.step - 1) // self.per_epoch + 1,
            "seconds": time.perf_counter() - self.begin,
            "loss": (2.2 * math.exp(-5 * done) + 0.25) * (1 + 0.05 * self.random.gauss(0, 1) * (1 + 2 * done)),
        }
        if self.step % self.per_epoch == 0:
            record["val_loss"] = 2.2 * math.exp(-5 * done) + 0.3 + 0.02 * self.random.random()
            record["val_accuracy"] = 0.97 - 0.35 * math.exp(-4 * done) + 0.01 * self.random.random()
        return record

    def obey(self) -> None:
        """Confirm what was asked."""
        for number, control in self.folder.controls(self.seen):
            self.seen = number
            if values := control.get("set"):
                self.settings = self.settings.replace(**values)
                self.writer.event("set", control=number, step=self.step, values=values)
                continue
            (verb,) = control.keys() & {"pause", "resume", "snapshot", "stop"}
            self.writer.event(verb, control=number, step=self.step)
            if verb in ("pause", "resume"):
                self.paused = verb == "pause"
                self.state("paused" if self.paused else "training")
            self.over = self.over or verb == "stop"

    def end(self, state: str, **values: Any) -> None:
        """Nothing follows."""
        self.writer.close()
        self.state(state, **values)


class Asked:
    """The least that the screen takes for a run: a folder, verbs that return when the writer has confirmed, and the two
    seams by which a Run is shown and waited for."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder, self.name = folder, folder.name

    def _ask(self, **control: Any) -> None:
        number, deadline = self.folder.ask(**control), time.monotonic() + 20
        while not any(event.get("control") == number for event in read(self.folder.journal).events):
            assert time.monotonic() < deadline, f"nobody confirmed {control}"
            time.sleep(0.02)

    def set(self, **values: Any) -> None:
        """Refuses what the declarations refuse, as a Run does."""
        Settings(DECLARED).replace(**values)
        self._ask(set=values)

    def _ipython_display_(self) -> None:
        if not view("show")(self):
            print(self.name)

    def wait(self) -> None:
        """Until the writer has ended."""
        while self.folder.state["state"] not in ENDED:
            time.sleep(0.02)
        view("settle")(self)

    def pause(self) -> None:
        """See :class:`Pace`."""
        self._ask(pause=True)

    def resume(self) -> None:
        """See :class:`Pace`."""
        self._ask(resume=True)

    def snapshot(self) -> None:
        """See :class:`Pace`."""
        self._ask(snapshot=True)

    def stop(self) -> None:
        """See :class:`Pace`."""
        self._ask(stop=True)


def main() -> None:
    """Write until the last step, or a stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--steps", type=int, default=600_000)
    parser.add_argument("--ahead", type=int, default=0, help="records that are there at the start")
    parser.add_argument("--fail", action="store_true", help="fail at the last step")
    options = parser.parse_args()
    pace = Pace(options.name, options.rate, options.steps, options.ahead)
    print(pace.folder.name, flush=True)
    while pace.step < pace.steps and not pace.over:
        pace.advance()
        pace.obey()
        pace.writer.flush() if pace.paused else None
        time.sleep(min(0.02, 1 / options.rate))
    if options.fail:
        try:
            raise ValueError(f"the batch of step {pace.step} holds a label that the model does not know")
        except ValueError as error:
            import traceback

            text = traceback.format_exc()
            pace.end(
                "failed",
                message="failed",
                error={"rank": 1, "type": "ValueError", "message": str(error), "traceback": text},
            )
    else:
        pace.end("stopped" if pace.over else "finished")


@contextmanager
def paced(name: str, **options: Any) -> Iterator[RunFolder]:
    """A writer in a process of its own, ended with the block; the folder it writes."""
    arguments = [f"--{key}" if value is True else f"--{key}={value}" for key, value in options.items()]
    path = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(
        [sys.executable, __file__, name, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
    )
    try:
        assert process.stdout is not None
        from h3lab.running.folder import find

        yield find(process.stdout.readline().strip())
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


if __name__ == "__main__":
    main()
