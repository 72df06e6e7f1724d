"""The Lab: a notebook's view of its cluster. It starts or joins it, prepares feeds on it, starts runs and finds them.

It asks the keeper through the lab's folder and holds no engine itself, so that its death changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

from h3lab.cluster import processes, standing, travel
from h3lab.cluster.executors import Engines
from h3lab.cluster.labfolder import LabFolder
from h3lab.cluster.lifetime import LIVING, answer, check_plan, end, revive
from h3lab.cluster.starts import begin, begin_loop, feed_folder
from h3lab.errors import EngineLost, LabError, UsageError, guided
from h3lab.home import alone, write_json
from h3lab.running.folder import ENDED, folders
from h3lab.running.progress import Line, duration, parts
from h3lab.running.run import Run
from h3lab.urls import is_url

START_SECONDS, POLL_SECONDS = 60.0, 0.02
ENGINES = 2


@guided
class Lab:
    """``h3.Lab(engines=2)`` starts the lab of this ``$H3LAB_HOME``, or joins the one that runs and says so.

    ``profile``: an IPython profile whose launchers start controller and engines (Slurm, SSH, ...). ``cluster``: an
    ipyparallel Cluster or Client that exists already; nothing of it is restarted or stopped from here. In ``with`` the
    runs begun in it are waited for, and what it started is stopped; an exception stops those runs at once.
    """

    def __init__(self, engines: int | None = None, *, profile: str | None = None, cluster: Any = None) -> None:
        check_plan(engines, profile)
        self._folder = LabFolder()
        self._begun: list[Run] = []
        self._own = self._entered = False
        with self._folder.starting(START_SECONDS):
            if self._folder.kept:
                self._join(engines, profile, cluster)
            else:
                self._start(engines, profile, cluster)
        self._look_on()

    def _join(self, engines: int | None, profile: str | None, cluster: Any) -> None:
        if any(slot["state"] == "failed" for slot in self._folder.status["slots"]):
            answer(self._folder, "retry")
        status = self._wait_ready()
        if cluster is not None and not status.get("guest"):
            raise LabError("a lab of its own runs in this H3LAB_HOME. End it first: h3.Lab().close(), then join yours.")
        if profile is not None and profile != status.get("profile"):
            raise LabError(
                f"profile={profile!r} came, but the lab that runs here has {status.get('profile') or 'none'}. Join it "
                f"with h3.Lab(), or end it with h3.Lab().close() and start again with h3.Lab(profile={profile!r})."
            )
        count = len(status["slots"])
        if engines is not None and engines != count and not status.get("guest"):
            raise LabError(
                f"engines={engines} came, but the lab that runs here has {count}. Join it with h3.Lab(), or end it "
                f"with h3.Lab().close() and start again with h3.Lab(engines={engines})."
            )
        print(f"joined the lab that runs here: {self!r}")

    def _start(self, engines: int | None, profile: str | None, cluster: Any) -> None:
        from h3lab.cluster import keeper
        from h3lab.serial import signed

        signed.key()
        before = self._folder.status
        adopted = before.get("state") in LIVING and engines is None and cluster is None
        plan: dict[str, Any] = {"engines": engines or ENGINES, "profile": profile, "guest": False, "hours": None}
        if adopted:
            plan = {name: before.get(name) for name in plan}
        if cluster is not None:
            from h3lab.cluster.engines import guest_connection

            write_json(self._folder.connection, guest_connection(cluster))
            plan = {"engines": 0, "profile": None, "guest": True, "hours": None}
            print("joined an ipyparallel cluster: it restarts nothing there, and leaves it running.")
        self._folder.write_status(state="starting", slots=[], **plan)
        self._own = not adopted
        keeper.start(self._folder)
        try:
            self._wait_ready()
        except LabError:
            # Left alive it would be joined by the next call, which may have a cure for what was wrong.
            if self._own and self._folder.kept:
                end(self._folder, "its engines did not start")
            raise

    def _wait_ready(self) -> dict[str, Any]:
        """Until every slot is ready; EngineLost with the end of its log for one that is not to be had."""
        began, line = time.monotonic(), Line()
        while True:
            status = self._folder.status
            slots, waited = status["slots"], time.monotonic() - began
            ready = sum(slot["state"] == "ready" for slot in slots)
            failed = [f"{slot['name']}: {slot['reason']}" for slot in slots if slot["state"] == "failed"]
            kept = self._folder.kept
            if failed and ready + len(failed) == len(slots):
                raise EngineLost("engines did not start.\n" + "\n".join(failed))
            if status["state"] == "ready" and slots and ready == len(slots):
                line.end(f"lab ready: {ready} engines in {duration(waited)}" if waited > 0.5 else "")
                return status
            if waited > START_SECONDS and kept and slots:
                late = [f"{s['name']} is {s['state']}. {s['reason']}" for s in slots if s["state"] != "ready"]
                raise EngineLost(f"not every engine is ready after {duration(waited)}.\n" + "\n".join(late))
            if status["state"] == "ended" or waited > START_SECONDS or (waited > 5 and not kept):
                reason = status.get("reason") or f"not ready after {duration(waited)}"
                raise LabError(f"the lab did not start: {reason}\n{self._folder.log_tail()}")
            line.show(f"starting engines: {ready} of {len(slots) or '?'} ready, {duration(waited)}")
            time.sleep(POLL_SECONDS)

    def _look_on(self) -> None:
        pid = os.getpid()
        (self._folder.viewers / f"{pid}-{processes.born(pid)}").touch()

    # ---- Verbs

    def train(
        self,
        actor: Any,
        data: Any,
        *,
        ranks: int = 1,
        transfer: Any = None,
        start: Any = None,
        replace: bool = False,
        class_weight: Any = None,
        snapshot_every: int | None = None,
        **settings: Any,
    ) -> Run:
        """Start a run and return at once; see :func:`h3lab.train` for ``data``, ``transfer``, ``start``,
        ``class_weight`` and ``settings``. ``ranks``: slots that train it together. ``replace``: end a run of this name
        that still trains. ``snapshot_every``: steps between snapshots; None is about every ten seconds.

        Everything that can be refused is refused here, before anything is queued. NameInUse while a run of that name
        trains; TravelError for what cannot be sent.
        """
        self._alive()
        slots = len(self._folder.status["slots"])
        if not isinstance(ranks, int) or not 1 <= ranks <= slots:
            raise LabError(f"ranks={ranks} came; this lab has {slots} slots, so expected a number from 1 to {slots}.")
        more = {"transfer": transfer, "start": start, "class_weight": class_weight, "snapshot_every": snapshot_every}
        return self._begin(begin(self, actor, data, ranks, replace, more, settings))

    def run(
        self,
        loop: Any,
        *,
        name: str | None = None,
        replace: bool = False,
        snapshot_every: int | None = None,
        **settings: Any,
    ) -> Run:
        """Start a loop of one's own as a run, and return at once: ``lab.run(loop, name="descent", lr=0.01)``.

        ``loop(settings)`` is a generator function that yields a dict of metrics a step and reads ``settings.lr``, which
        ``run.set(lr=0.1)`` changes between two yields. One that takes ``(settings, state=None)`` can ``yield
        h3.snapshot(state)``, and is started again with it where its process has died; any other begins anew. ``name``:
        None is the function's. ``snapshot_every``: steps between snapshots that are written; None is all, about one a
        second at most. ``settings``: numbers, booleans, text, or a Setting each.
        """
        self._alive()
        return self._begin(begin_loop(self, loop, name, replace, snapshot_every, settings))

    def _begin(self, run: Run) -> Run:
        run.bound = self._entered
        self._begun.append(run)
        self._folder.ask("run", path=str(run.folder.path))
        return run

    def prepare(
        self,
        pipeline: Any,
        source: Any,
        *,
        to: str | Path | None = None,
        label: str | None = None,
        keys: Any = None,
        on_missing: str = "error",
        on_duplicate: str = "error",
        on_null_label: str = "error",
    ) -> Any:
        """A Feed of a source's rows, prepared on the engines and stored in the folder or at the URL ``to`` (None: under
        ``$H3LAB_HOME/feeds``); see :func:`h3lab.preparing.prepare.prepare`."""
        from h3lab.preparing.from_sklearn import as_pipeline
        from h3lab.preparing.matching import opened
        from h3lab.preparing.prepare import prepare

        pipeline = as_pipeline(pipeline, source, label)
        source = opened(pipeline, source, keys, on_missing, on_duplicate)
        self._alive()
        folder = feed_folder(pipeline, source, label, on_null_label) if to is None else to
        line, place = Line(), folder if is_url(str(folder)) else Path(folder).expanduser().absolute()
        # The same cell in two notebooks: the second one finds everything done.
        with alone(place, lambda seconds: line.show(f"another notebook prepares this feed, {duration(seconds)}")):
            feed = prepare(
                pipeline,
                source,
                to=folder,
                label=label,
                executor=self.executor,
                on_null_label=on_null_label,
                progress=parts(line),
            )
        line.end(f"{feed.dropped:,} rows without a label were left out" if feed.dropped else "")
        return feed

    @property
    def executor(self) -> Engines:
        """What works on parts: see :class:`h3lab.preparing.executor.Executor`."""
        return Engines(self._folder, max(1, len(self._folder.status["slots"])))

    @property
    def runs(self) -> list[Run]:
        """The runs of this lab that have not ended."""
        return [Run(f) for f in folders(lab=self._folder.name) if f.state["state"] not in ENDED]

    @property
    def name(self) -> str:
        """``default``."""
        return self._folder.name

    def check(self, actor: Any) -> list[str]:
        """What of an actor would not reach the engines, and why, a line each; an empty list where all does."""
        return travel.check(actor, self)

    def missing(self, modules: list[str]) -> dict[str, list[str]]:
        """Slot → those of these modules that its Python cannot find."""
        return dict(answer(self._folder, "missing", modules=modules).get("missing", {}))

    def extend(self, hours: float) -> float:
        """Let the lab live ``hours`` after it was last needed, and a paused run keep its slot for ``hours`` from now on
        (12 by default); when the lab's lease now ends, as a time stamp. A run that nobody resumes is then stopped, with
        a snapshot."""
        if isinstance(hours, bool) or not isinstance(hours, int | float) or not 0 < hours < 1e6:
            raise UsageError(f"hours={hours!r} came; expected a number above 0, for example lab.extend(hours=24).")
        return float(answer(self._folder, "lease", hours=hours)["ends"])

    def _alive(self) -> None:
        if not self._folder.kept:
            revive(self._folder)

    # ---- Its end

    def close(self, force: bool = False) -> None:
        """End the lab and its engines; LabError while runs train, unless ``force`` stops them first, each with a
        snapshot."""
        if force and self._folder.status["state"] in LIVING:
            self._stop(self.runs)
        end(self._folder, force=force)

    def _stop(self, runs: list[Run]) -> None:
        for run in runs:  # all at once: while one is waited for the others take their snapshots
            if run.state not in ENDED:
                run.folder.ask(stop=True)
        for run in runs:
            run.stop()

    def __enter__(self) -> Lab:
        self._entered = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._entered = False
        going = [run for run in self._begun if run.folder.path.exists() and run.state not in ENDED]
        try:
            for run in going if kind is None else []:
                run.wait()
        finally:
            # Also after Ctrl-C, or a run that failed while the others were waited for.
            left = [run for run in going if run.state not in ENDED]
            self._stop(left)
            for run in left:
                print(f"{run!r}; it was begun in this `with` block, which an exception has left")
            if self._own:
                self._leave()

    def _leave(self) -> None:
        if self._folder.watched(but=os.getpid()):
            print(f"another notebook looks at the lab {self.name!r}, so it stays; h3lab stop --all ends it")
            return
        with contextlib.suppress(LabError):  # somebody else's runs train there
            self.close()

    def __repr__(self) -> str:
        return standing.line(self._folder.name, self._folder.status)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": standing.card(self._folder.name, self._folder.status)}
