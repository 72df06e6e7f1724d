"""Lightning's ``Trainer.fit`` as a run of this process."""

from __future__ import annotations

import importlib
import math
import sys
import time
from collections.abc import Mapping
from typing import Any

from h3lab.frameworks.names import curve_name
from h3lab.running.local import LocalRun

#: A metric on a device is fetched so often; each time waits for the device, which a loop on it need not do.
FETCH_SECONDS = 0.05

# Lightning is one framework under two names, and a Trainer of one takes no callback of the other.
_OLD = "pytorch_lightning" in sys.modules and "lightning" not in sys.modules
_Callback: Any = importlib.import_module("pytorch_lightning" if _OLD else "lightning.pytorch").Callback


class LightningCurves(_Callback):
    """What ``h3.watch.lightning()`` gives: live curves of ``trainer.fit``; *Stop* sets ``trainer.should_stop``."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__()
        self.name = name
        self._run: LocalRun | None = None
        self._held: set[str] = set()
        self._known: set[str] = set()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Show it, in the process of rank 0."""
        if not trainer.is_global_zero:
            return
        epochs = trainer.max_epochs if (trainer.max_epochs or -1) > 0 else None
        steps = epochs * trainer.num_training_batches if epochs else math.inf
        self._run = LocalRun(
            self.name or type(pl_module).__name__,
            epochs=epochs,
            total_steps=int(steps) if math.isfinite(steps) else None,
            code={"stop": "trainer.should_stop = True"},
        ).open()
        self._step, self._due = 0, 0.0

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """A record, and whatever was clicked meanwhile."""
        if self._run is None:
            return
        self._step += 1
        now = time.perf_counter()
        if pl_module.device.type == "cpu" or now >= self._due:
            self._due = now + FETCH_SECONDS
            told = trainer.callback_metrics
            metrics = {curve_name(n): v for n, v in told.items() if n not in self._held and not n.endswith("_epoch")}
            loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
            if loss is not None:
                # Lightning divides it by the number of batches whose gradients are summed.
                metrics["loss"] = loss * trainer.accumulate_grad_batches
            self._run.record(self._axes(trainer) | metrics)
        if not self._run.obey():
            trainer.should_stop = True

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Remember what training has logged: the rest is validation's, whatever it is called."""
        self._known = set(trainer.callback_metrics)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """A record of what validation says."""
        if self._run is None or trainer.sanity_checking:
            return
        told = trainer.callback_metrics
        self._held |= {name for name in told if name not in self._known}
        metrics = {curve_name(name, held_out=True): told[name] for name in self._held if name in told}
        self._run.record(self._axes(trainer) | metrics)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Leave the last picture."""
        if self._run is not None:
            self._run.end("stopped" if self._run.stopping else "finished")

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Leave the last picture, with the cause."""
        if self._run is not None:
            failed = isinstance(exception, Exception)
            self._run.end("failed" if failed else "stopped", exception if failed else None)

    def _axes(self, trainer: Any) -> dict[str, Any]:
        return {"step": self._step, "epoch": trainer.current_epoch + 1}


callback = LightningCurves
