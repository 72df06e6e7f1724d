"""Engines: the ipyparallel cluster under a lab, ours or somebody else's. Starting, finding again and ending processes.

It knows ipyparallel's controller and engine sets; it does not know slots' states or runs.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from h3lab.cluster import processes
from h3lab.cluster.labfolder import LabFolder
from h3lab.errors import LabError
from h3lab.home import read_json

LOG = logging.getLogger("h3lab.keeper")
CLUSTER_ID = "h3lab"
CONTROLLER_PROGRAM = "ipyparallel.controller"

#: Registration waits for two beats of the heart: at ipyparallel's own 3 s a lab takes 7 s to start. A dead engine is
#: noticed by its process; ten missed beats are for one that hangs. Schedulers in threads save eight processes.
CONTROLLER = ["--nodb", "--usethreads", "--HeartMonitor.period=500", "--HeartMonitor.max_heartmonitor_misses=10"]
#: Without the nanny an engine is one process. An engine outlives a dead controller for ten minutes, so that a lab
#: whose keeper has died too can still be found with its ranks at work.
ENGINE = ["--IPEngine.enable_nanny=False", "--IPEngine.max_heartbeat_misses=600"]


class OwnEngines:
    """A controller and one engine set a slot, which gives each slot its own environment and lets it restart alone."""

    ours = True

    def __init__(self, folder: LabFolder, profile: str | None) -> None:
        import ipyparallel as ipp

        self._folder = folder
        self._profile = profile
        self._heart: tuple[int, processes.Pulse] = (0, processes.Pulse(None))
        self._loop = asyncio.new_event_loop()
        # ipyparallel's launchers watch their processes from the loop that started them: it has to run all the time.
        threading.Thread(target=self._loop.run_forever, name="launchers", daemon=True).start()
        self._cluster: ipp.Cluster = self._do(self._make(ipp.Cluster))

    async def _make(self, make: Any, *arguments: Any) -> Any:
        where: dict[str, Any] = {"profile_dir": str(self._folder.path / "ipython"), "load_profile": False}
        if self._profile:
            where = {"profile": self._profile}
        else:
            Path(where["profile_dir"], "security").mkdir(parents=True, exist_ok=True)
        return make(*arguments, cluster_id=CLUSTER_ID, shutdown_atexit=False, log=LOG, parent=None, **where)

    def _do(self, coroutine: Coroutine[Any, Any, Any], timeout_seconds: float = 30.0) -> Any:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(timeout_seconds)
        except TimeoutError:
            future.cancel()
            name = getattr(coroutine, "__name__", "a call")
            raise LabError(f"ipyparallel has not finished {name} for {timeout_seconds:g} s.") from None

    def adopt(self) -> list[str]:
        """Take over what a dead keeper has left alive: names of the slots found, none where the controller is gone
        (what is left of such a cluster is ended, because its engines answer nobody)."""
        import ipyparallel as ipp

        file = Path(self._cluster.cluster_file)
        state = read_json(file)
        if state is None:
            return []
        sets = state["engines"]["sets"]
        pids = {name: _engine_pid(launcher) for name, launcher in sets.items()}
        controller = (state.get("controller") or {}).get("state") or {}
        if not _is(controller.get("pid"), CONTROLLER_PROGRAM):
            processes.end_orphans(int(controller.get("pid") or 0), CONTROLLER_PROGRAM)
            for pid in pids.values():
                if pid is not None and _is(pid, "ipyparallel.engine"):
                    processes.end_group(pid)
            file.unlink(missing_ok=True)
            return []
        # A launcher made from a dead process's id may hold a stranger's: such sets are left out.
        state["engines"]["sets"] = {n: s for n, s in sets.items() if _is(pids[n], "ipyparallel.engine")}

        async def adopt() -> Any:
            return ipp.Cluster.from_dict(
                state, cluster_file=str(file), log=LOG, parent=None, load_profile=bool(self._profile)
            )

        self._cluster = self._do(adopt())
        return list(self._cluster.engines)

    def start_controller(self) -> None:
        """Start it and wait for its connection files."""
        for path in Path(self._cluster.profile_dir, "security").glob(f"ipcontroller-{CLUSTER_ID}-*.json"):
            # Files of a dead controller would be read before the new one has written its own.
            path.unlink()
        self._cluster.controller_args = CONTROLLER
        self._cluster.controller_ip = "127.0.0.1" if not self._profile else self._cluster.controller_ip
        self._do(self._cluster.start_controller(), 30.0)
        self._do(self._cluster.controller.get_connection_info(timeout=30), 35.0)

    def start(self, slot: str, environment: dict[str, str]) -> None:
        """Start the engine of a slot; it registers within seconds."""
        self.end(slot)
        self._do(self._cluster.start_engines(1, engine_set_id=slot, environment=dict(environment), engine_args=ENGINE))

    def running(self, slot: str) -> bool:
        """Whether the slot's engine process has been started and has not ended."""
        launcher = self._cluster.engines.get(slot)
        if launcher is None or launcher.state == "after":
            return False
        pid = self.pid(slot)
        return pid is None or processes.alive(pid)

    def pid(self, slot: str) -> int | None:
        """The engine's process id where its launcher knows one."""
        launcher = self._cluster.engines.get(slot)
        local = next(iter(getattr(launcher, "launchers", {}).values()), launcher)
        pid = getattr(local, "pid", -1)
        return pid if pid and pid > 0 else None

    def output(self, slot: str) -> str:
        """What the slot's engine has printed."""
        launcher = self._cluster.engines.get(slot)
        return str(launcher.get_output()) if launcher is not None else ""

    def end(self, slot: str) -> None:
        """End the slot's engine and its children at once; nothing of value lives in them."""
        if slot not in self._cluster.engines:
            return
        pid = self.pid(slot)
        if pid is not None:
            processes.end_group(pid)
        self._do(self._cluster.stop_engines(slot), 60.0)

    @property
    def controlled(self) -> bool:
        """Whether the controller lives."""
        controller = self._cluster.controller
        if controller is None or controller.state != "running":
            return False
        pid, pulse = self._heart
        if pid != controller.pid or not pulse.beats:
            self._heart = controller.pid, processes.Pulse(controller.pid)
        return self._heart[1].beats

    @property
    def connection(self) -> Path:
        """The file that tells a client how to connect."""
        return Path(self._cluster.controller.connection_files["client"])

    def stop(self) -> None:
        """End everything."""
        for slot in list(self._cluster.engines):
            self.end(slot)
        controller = self._cluster.controller
        if controller is not None:
            pid = getattr(controller, "pid", 0)
            if pid and pid > 0:
                processes.end_group(pid)
                # It has a process of its own for the hearts, which outlives a SIGKILL of the controller.
                processes.end_orphans(pid, CONTROLLER_PROGRAM)
            self._do(self._cluster.stop_controller(), 60.0)
            # After SIGKILL the launcher may still be waiting to hear of it, and a new controller is refused.
            self._cluster.controller = None


class GuestEngines:
    """Engines of a cluster that is not ours: nothing is started, restarted or stopped here."""

    ours = False

    def __init__(self, folder: LabFolder) -> None:
        self.connection = folder.connection

    controlled = True

    def running(self, slot: str) -> bool:
        """Whether an engine runs is its owner's affair."""
        return True

    def output(self, slot: str) -> str:
        """What an engine has printed is its owner's affair too."""
        return ""


def guest_connection(cluster: Any) -> dict[str, Any]:
    """How to reach the controller of an ipyparallel Cluster or Client, as its connection file would say it."""
    if hasattr(cluster, "connect_client_sync"):
        if cluster.controller is None:
            raise LabError(f"{cluster!r} is not running. Start it first: cluster.start_and_connect_sync().")
        path = cluster.controller.connection_files["client"]
        with open(path) as file:
            return dict(json.load(file))
    config = getattr(cluster, "_config", None)
    if not isinstance(config, dict):
        raise LabError(
            f"cluster= takes an ipyparallel Cluster or Client; a {type(cluster).__name__} came. "
            "For example h3.Lab(cluster=ipyparallel.Client())."
        )
    # A client has turned the ports into URLs.
    ports = ("control", "task", "mux", "iopub", "notification", "registration", "broadcast")
    return {key: int(str(value).rsplit(":", 1)[-1]) if key in ports else value for key, value in config.items()}


def _engine_pid(launcher: dict[str, Any]) -> int | None:
    engines = list(launcher.get("engines", {}).values())
    return (engines[0] if engines else launcher).get("pid")


def _is(pid: int | None, program: str) -> bool:
    return pid is not None and pid > 0 and processes.alive(pid) and program in processes.command(pid)


def environment(index: int) -> dict[str, str]:
    """What a slot's processes get beside the keeper's own variables: its name, thread caps, its GPU."""
    cap = os.environ.get("OMP_NUM_THREADS", "1")
    caps = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    values = {name: os.environ.get(name, cap) for name in caps}
    gpus = _gpus()
    if gpus:
        values["CUDA_VISIBLE_DEVICES"] = gpus[index % len(gpus)]
    return {**values, "H3LAB_SLOT": f"slot{index}"}


def _gpus() -> list[str]:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [gpu for gpu in named.split(",") if gpu]
    try:
        return [str(i) for i in range(len(os.listdir("/proc/driver/nvidia/gpus")))]
    except OSError:
        return []
