"""Update: one module's way from a batch to changed parameters, with all that this carries from step to step.

It knows how a module is trained; it does not know who built it or what its parameters are called.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from h3lab.backends import _torch_keras as keras
from h3lab.backends import _torch_lightning as lightning
from h3lab.backends._torch_losses import Objective
from h3lab.backends._torch_ranks import Ranks
from h3lab.backends._torch_rows import Rows
from h3lab.backends._torch_state import Optimization, Randomness
from h3lab.batch import Batch
from h3lab.errors import ModelError
from h3lab.settings import Settings


@dataclass(frozen=True)
class Way:
    """How to update, as TorchModel's arguments say it."""

    optimizer: Any
    scheduler: Callable[..., Any] | None
    step: Callable[..., Any] | None
    clip_norm: float | None
    accumulate: int
    compile: bool | str
    lightning: bool = False


class Update:
    """Updates ``module`` in place; the optimizer is made at the first step, with its learning rate."""

    def __init__(self, module: torch.nn.Module, way: Way, rows: Rows, objective: Objective, random: Randomness) -> None:
        self._module, self._way, self._rows = module, way, rows
        self._objective, self._random = objective, random
        self._optimization: Optimization | None = None
        self._forward: Any = None
        self._ranks = Ranks()
        self._here = rows.device.type == "cpu"
        self._stand_in = lightning.StandIn()

    def step(self, batch: Batch, settings: Settings) -> dict[str, Any]:
        """See :meth:`TorchModel.step`."""
        with self._random:
            optimization = self._ready(settings.lr)
            if not self._module.training:
                self._module.train()
            optimization.forget()
            metrics = self._ranks.sum(self._backward(batch, settings))
            if self._here:
                metrics = {n: value if type(value) is float else value.item() for n, value in metrics.items()}
                if not math.isfinite(metrics["loss"]):
                    return metrics
            if self._way.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(optimization.parameters, self._way.clip_norm)
            optimization.step(settings.lr, None if batch.place is None else batch.place[0])
        return metrics

    def _made(self, lr: float) -> Optimization:
        own = lightning.configure(self._module) if self._way.lightning else None
        return Optimization(self._module, lr, self._way.optimizer, self._way.scheduler, own)

    def _ready(self, lr: float) -> Optimization:
        if self._optimization is None:
            self._optimization = self._made(lr)
        if self._forward is None:
            # The group is formed between build and the first step.
            self._ranks = Ranks()
            self._random.fork(self._ranks.rank)
            asked = lightning.LightningStep(self._module) if self._way.lightning else self._module
            self._forward = self._ranks.wrap(asked, self._rows.device)
            if self._way.compile:
                chosen = {"backend": self._way.compile} if isinstance(self._way.compile, str) else {}
                self._forward = torch.compile(self._forward, **chosen)
            if keras.is_keras(self._module):
                self._forward = keras.training(self._forward)
        return self._optimization

    def _backward(self, batch: Batch, settings: Settings) -> dict[str, Any]:
        """Gradients of the batch's loss; and its metrics, this rank's share of them."""
        rows, count = len(batch), self._way.accumulate
        total = rows if batch.total is None else batch.total
        if count == 1:
            return self._of_piece(batch, settings, total)
        sums: dict[str, Any] = {}
        count = max(min(count, rows), 1)
        for i in range(count):
            piece = replace(batch.take(slice(rows * i // count, rows * (i + 1) // count)), place=batch.place)
            with self._ranks.quiet(self._forward, last=i == count - 1):
                for name, value in self._of_piece(piece, settings, total).items():
                    sums[name] = sums[name] + value if name in sums else value
        return sums

    def _of_piece(self, batch: Batch, settings: Settings, total: int) -> dict[str, Any]:
        parts = self._parts(batch, settings, total)
        loss = parts["loss"]
        # DistributedDataParallel averages over the ranks what has to be a sum.
        (loss if self._ranks.size == 1 else loss * self._ranks.size).backward()
        return {name: value if type(value) is float else value.detach() for name, value in parts.items()}

    def _parts(self, batch: Batch, settings: Settings, total: int) -> dict[str, Any]:
        if self._way.step is not None or self._way.lightning:
            return self._of_own_step(batch, total)
        rows = self._rows
        if not self._here:
            rows.check_labels(batch.y)  # on a device a wrong label is an assertion that ends the process's CUDA
        y = rows.tensor(batch.y)
        outputs = rows.outputs(self._forward, batch.x)
        try:
            parts = self._objective.parts(
                outputs, y, rows.tensor(batch.soft), rows.tensor(batch.weight), total, settings
            )
        except (IndexError, RuntimeError) as error:
            rows.check_labels(batch.y, error)
            raise
        if y is not None and rows.spec.classes is not None:
            parts["accuracy"] = _correct(outputs.detach(), y) / total
        return parts

    def _of_own_step(self, batch: Batch, total: int) -> dict[str, Tensor]:
        share = len(batch) / total
        given, own = self._rows.batch(batch), self._way.step
        if not self._here:
            self._rows.check_labels(batch.y)
        try:
            with self._rows.mixed():
                if own is not None:
                    result = own(self._forward, given)
                else:
                    result = lightning.step(self._forward, given, self._module, self._stand_in)
        except (IndexError, RuntimeError) as error:
            self._rows.check_labels(batch.y, error)
            raise
        parts = dict(result) if isinstance(result, Mapping) else {"loss": result}
        loss = parts.get("loss")
        if not isinstance(loss, Tensor) or loss.ndim or not loss.requires_grad:
            came = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            name = "step(module, batch)" if own is not None else "training_step"
            raise ModelError(
                f"{name} returned {came} as loss; expected a 0-d tensor that depends on the module's "
                'parameters (the mean over rows), or a dict with it as "loss".'
            )
        return {name: torch.as_tensor(value, device=loss.device) * share for name, value in parts.items()}

    def state(self) -> dict[str, Any]:
        """Random states, optimizer and schedule as a codec tree."""
        optimization = None if self._optimization is None else self._optimization.state()
        return {"random": self._random.state(), "optimization": optimization, "steps": self._stand_in.global_step}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The inverse, over the same parameters."""
        self._random.load_state(state["random"])
        self._forward = None
        saved = state["optimization"]
        self._optimization = None
        self._stand_in.global_step = state.get("steps", 0)
        if saved is not None:
            self._optimization = self._made(saved["lr"])
            self._optimization.load_state(saved)


def _correct(outputs: Tensor, y: Tensor) -> Any:
    if outputs.device.type != "cpu":
        return (outputs.argmax(1) == y).sum()
    # NumPy needs a quarter of the time of torch's three operations, which would be a twentieth of a small step.
    return float(np.count_nonzero(outputs.numpy().argmax(1) == y.numpy()))
