"""A rank: one process of a run, from its launch file to its last record. First start, recovery and groups are one code.

It knows the run's folder and a training; it does not know the engine that started it.
"""

from __future__ import annotations

import socket
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from h3lab.cluster.attempt import Attempt, attempts
from h3lab.cluster.groups import Group
from h3lab.cluster.launch import Launch
from h3lab.cluster.steering import Steering, Stop
from h3lab.errors import StorageError
from h3lab.home import replace_file
from h3lab.running import journal, snapshots
from h3lab.running.folder import RunFolder
from h3lab.serial import codec

SNAPSHOT_SECONDS, FIRST_SNAPSHOT_SECONDS = 10.0, 1.0
#: A loop of one's own says itself what is worth keeping: all of it, while writing takes a tenth of the time at most.
LOOP_SNAPSHOT_SECONDS, LOOP_SNAPSHOT_SHARE = 1.0, 0.1
LOCK_SECONDS = 60.0


def run_rank(path: str, number: int, rank: int) -> int:
    """Run it to its end; the exit code. What it raised stands in the attempt's files and on stderr."""
    folder = RunFolder(Path(path))
    if attempts(folder)[-1] != number:
        print(f"Attempt {number} was given up before this rank began.")
        return 0
    attempt = Attempt(folder, number)
    process = Rank(folder, attempt, rank)
    try:
        process.run()
        return 0
    except BaseException as error:
        text = traceback.format_exc()
        print(text, file=sys.stderr, flush=True)
        process.fail(error, text)
        return 1


class Rank:
    """``rank`` of the attempt's ranks; rank 0 leads: it holds the lock, the journal, the state and the snapshots."""

    def __init__(self, folder: RunFolder, attempt: Attempt, rank: int) -> None:
        self._folder, self._attempt, self._rank = folder, attempt, rank
        self._ranks = len(attempt.slots)
        self._leads = rank == 0
        self._journal: journal.Writer | None = None
        self._group = Group(attempt, rank, self._ranks)
        self._training: Any = None
        self._snapped = (0, 0.0)  # the step of the last snapshot written, and when the next one is due
        self._written: dict[str, Any] | None = None

    def run(self) -> None:
        """Open the launch file, train, and keep the result."""
        # The descriptor lives as long as the process, and so does the lock.
        self._lock = self._take_lock() if self._leads else None
        launch = self._launch = Launch.read(self._folder)
        launch.enter()
        self._group.join()
        self._training = training = self._begin(launch)
        self._report("training")
        ended, reason = "finished", ""
        try:
            for record in training:
                self._keep(record)
        except Stop as stop:
            ended, reason = "stopped", str(stop)
            self._catch_up()
        if self._leads:
            self._end(ended, reason)
        self._group.leave()

    def _take_lock(self) -> int:
        deadline = time.monotonic() + LOCK_SECONDS
        while (descriptor := self._folder.lock()) is None:
            if time.monotonic() > deadline:
                raise StorageError(f"another rank has held {self._folder.path / 'lock'} for {LOCK_SECONDS:g} s.")
            time.sleep(0.02)
        return descriptor

    def _begin(self, launch: Launch) -> Any:
        training: Any = launch.begin(self._rank, self._ranks)
        found = snapshots.read(self._folder)
        if found is not None:
            training.restore(found[1])
        if launch.loop is not None:
            self._written = training.snapshot()
            training.after_snapshot = self._offered
        reader = journal.Reader(self._folder.journal)
        reader.poll()
        if self._leads:
            self._journal = journal.Writer(self._folder.journal, self._attempt.number, training.step + 1)
        steering = Steering(
            self._folder, self._attempt, self._rank, self._ranks, self._tell, self._report, self._snapshot
        )
        steering.begin(reader.events, training.step)
        self._group.wait()
        training.before_step = steering.obey
        first = FIRST_SNAPSHOT_SECONDS if launch.loop is None else 0.0
        self._snapped = (training.step, time.monotonic() + first)
        return training

    def _keep(self, record: dict[str, Any]) -> None:
        writer = self._journal
        if writer is None:
            return
        writer.record(record)
        self._offered(self._training)
        if writer.size > self._launch.journal_bytes:
            self._pause_for_space(writer)

    def _pause_for_space(self, writer: journal.Writer) -> None:
        """Ask for a pause as a viewer would, so that it can be resumed as one: each pause doubles the room."""
        self._launch.journal_bytes *= 2
        self._folder.ask(pause=True)
        self._tell("full", size=writer.size, step=self._training.step)
        print(f"The journal has {writer.size / 1e6:.0f} MB, its limit: the run pauses. run.resume() doubles the limit.")

    def _offered(self, training: Any) -> None:
        """Write a snapshot if one is due. Of an actor there is always one to be had, of a loop when it has yielded."""
        if self._journal is None or (self._launch.loop is not None and training.snapshot() is self._written):
            return
        (step, due), every = self._snapped, self._launch.snapshot_every
        if training.step - step >= every if every else time.monotonic() >= due:
            self._tell("snapshot", step=self._snapshot())

    def _snapshot(self) -> int | None:
        """Write one; the step that it is of, None where a loop has yielded none."""
        if self._journal is None:
            return None
        began = time.monotonic()
        # First the records, which raises where a loss is no number; then what continues after them: a snapshot ahead of
        # its journal would leave a gap.
        self._catch_up()
        tree = self._training.snapshot()
        if tree is None or tree is self._written:
            return None if tree is None else int(tree["step"])
        snapshots.write(self._folder, tree["step"], tree)
        rest = SNAPSHOT_SECONDS
        if self._launch.loop is not None:
            self._written, rest = tree, max(LOOP_SNAPSHOT_SECONDS, (time.monotonic() - began) / LOOP_SNAPSHOT_SHARE)
        self._snapped = (tree["step"], time.monotonic() + rest)
        return int(tree["step"])

    def _catch_up(self) -> None:
        """Every step that is done into the journal, those that wait on a device too."""
        for record in self._training.fetch():
            if self._journal is not None:
                self._journal.record(record)
        if self._journal is not None:
            self._journal.flush()

    def _tell(self, event: str, **values: Any) -> None:
        if self._journal is not None:
            self._journal.event(event, **values)

    def _report(self, state: str, **values: Any) -> None:
        if not self._leads:
            return
        if state == "paused" and self._launch.loop is not None:
            self._snapshot()  # it may have come too soon after the last one, and a pause may last
        elif state == "paused":
            self._catch_up()
        elif self._journal is not None:
            self._journal.flush()
        training = self._training
        step = training.step if training is not None else 0
        slots = [slot["name"] for slot in self._attempt.slots]
        self._folder.write_state(
            state, attempt=self._attempt.number, step=step, slots=slots, host=socket.gethostname(), **values
        )

    def _end(self, state: str, reason: str) -> None:
        training = self._training
        tree = training.result()
        if tree is not None:
            replace_file(self._folder.result, codec.pack(tree), durable=True)
        self._tell("end", state=state, step=training.step)
        assert self._journal is not None
        self._journal.close()
        stopped = {"stopped_at": training.step} if state == "stopped" else {}
        self._report(state, **stopped, **({"message": reason} if reason else {}))

    def fail(self, error: BaseException, text: str) -> None:
        """Say what this rank raised, for the lab; a rank alone ends its run itself."""
        cause = {
            "type": type(error).__name__,
            "message": str(error),
            "traceback": text,
            "rank": self._rank,
            "host": socket.gethostname(),
            "released": self._group.released(error),
            "at": time.time(),
        }
        if self._training is not None and self._launch.loop is not None:
            with suppress(Exception):  # what is told is the loop's error
                self._snapshot()
        if self._journal is not None:
            self._journal.close()
        self._attempt.write_error(self._rank, cause)
        if self._ranks == 1:
            self._report("failed", error=cause, message=cause["message"])
