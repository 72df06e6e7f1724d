"""Keras' ``fit`` as a run of this process."""

from __future__ import annotations

from typing import Any

import keras

from h3lab.running.local import LocalRun


class KerasCurves(keras.callbacks.Callback):
    """What ``h3.watch.keras()`` gives: live curves of ``model.fit``; *Stop* sets ``model.stop_training``."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__()
        self.name = name
        self._run: LocalRun | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Show it."""
        epochs, steps = self.params.get("epochs"), self.params.get("steps")
        self._run = LocalRun(
            self.name or self.model.name,
            epochs=epochs,
            total_steps=epochs * steps if epochs and steps else None,
            code={"stop": "model.stop_training = True"},
        ).open()
        self._epoch, self._before, self._step = 1, 0, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Keras counts epochs from 0."""
        self._epoch, self._before = epoch + 1, self._step

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """A record, and whatever was clicked meanwhile; of several batches in one execution, one record."""
        if self._run is None:
            return
        self._step = self._before + batch + 1
        self._run.record(self._axes() | (logs or {}))
        if not self._run.obey():
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """What is known of an epoch and not of its last batch: validation, the learning rate of a schedule."""
        if self._run is not None:
            late = {n: v for n, v in (logs or {}).items() if n.startswith("val_") or n == "learning_rate"}
            self._run.record(self._axes() | late)

    def on_train_end(self, logs: Any = None) -> None:
        """Leave the last picture."""
        if self._run is not None:
            self._run.end("stopped" if self._run.stopping else "finished")

    def _axes(self) -> dict[str, Any]:
        return {"step": self._step, "epoch": self._epoch}


callback = KerasCurves
