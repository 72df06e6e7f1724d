"""The Trainer of Transformers as a run of this process."""

from __future__ import annotations

import math
import re
from typing import Any

from transformers import TrainerCallback

from h3lab.frameworks.names import curve_name
from h3lab.running.local import LocalRun

#: What a Trainer logs of its own pace, which the headline knows better.
_PACE = re.compile(r"epoch|total_flos|.*_(runtime|per_second)")


class TransformersCurves(TrainerCallback):
    """What ``h3.watch.huggingface()`` gives: live curves of ``trainer.train()``, a point every ``logging_steps``;
    *Stop* sets ``control.should_training_stop``."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name
        self._run: LocalRun | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **rest: Any) -> None:
        """Show it, in the process of rank 0."""
        if state.is_world_process_zero:
            self._run = LocalRun(
                self.name or type(model).__name__,
                epochs=math.ceil(state.num_train_epochs) or None,
                total_steps=state.max_steps if state.max_steps > 0 else None,
                code={"stop": "control.should_training_stop = True"},
            ).open()

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """The step, which the headline counts, and whatever was clicked meanwhile."""
        if self._run is not None:
            self._run.record(self._axes(state))
            if not self._run.obey():
                control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        """A record of what the Trainer logs: means since it last did, or an evaluation."""
        told = logs or {}
        if self._run is not None and "train_runtime" not in told:  # the summary at the end repeats means of the whole
            metrics = {curve_name(name): value for name, value in told.items() if not _PACE.fullmatch(name)}
            self._run.record(self._axes(state) | metrics)

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Leave the last picture."""
        if self._run is not None:
            self._run.end("stopped" if self._run.stopping else "finished")

    def _axes(self, state: Any) -> dict[str, Any]:
        return {"step": state.global_step, "epoch": math.ceil(state.epoch or 0) or 1}


callback = TransformersCurves
