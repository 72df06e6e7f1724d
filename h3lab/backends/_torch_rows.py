"""Rows as torch wants them: arrays to tensors on a device, through a module, and back as checked outputs.

It knows NumPy, CSR and tensors; it does not know losses or updates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from h3lab.batch import Batch, Inputs, rows_of
from h3lab.errors import ModelError, SpecMismatch
from h3lab.spec import Spec

#: Precision → type of parameters and inputs.
PRECISIONS = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.float32}
_NUMPY: dict[torch.dtype, Any] = {torch.float32: np.float32, torch.float64: np.float64}


class Rows:
    """The way of a batch's arrays into a module of one spec, device and precision."""

    def __init__(self, spec: Spec, device: torch.device, precision: str) -> None:
        self.spec, self.device = spec, device
        self.dtype = PRECISIONS[precision]
        self._float = _NUMPY[self.dtype]
        self._mixed = precision == "bfloat16"
        self._here = device.type == "cpu"

    def tensor(self, values: np.ndarray | None) -> Tensor | None:
        """Codes stay int64, all else becomes float; without a copy where type and memory allow."""
        if values is None:
            return None
        return self._placed(values, np.int64 if values.dtype.kind in "iu" else self._float)

    def inputs(self, x: Inputs) -> Any:
        """One float tensor; or a dict of them by block, where whole numbers stay int64 (for embeddings)."""
        if isinstance(x, Mapping):
            return {name: self._block(block, whole=True) for name, block in x.items()}
        return self._block(x, whole=False)

    def _block(self, x: Any, whole: bool) -> Tensor:
        if type(x) is not np.ndarray:
            # CSR becomes dense: few of torch's layers train on its own sparse tensors.
            x = x.toarray() if hasattr(x, "toarray") else np.asarray(x)
        return self._placed(x, np.int64 if whole and x.dtype.kind in "iu" else self._float)

    def _placed(self, values: np.ndarray, dtype: Any) -> Tensor:
        # A tensor over read-only memory (a mapped feed) would let a module write into it; torch warns, we copy.
        if values.dtype != dtype or not values.flags.carray:
            values = np.array(values, dtype, order="C")
        tensor = torch.from_numpy(values)
        return tensor if self._here else tensor.to(self.device, non_blocking=True)

    def batch(self, batch: Batch) -> Batch:
        """The batch with tensors in place of arrays, for a ``step`` of the user's own."""
        y, weight, soft = self.tensor(batch.y), self.tensor(batch.weight), self.tensor(batch.soft)
        x = self.inputs(batch.x)
        return Batch(x, y, weight, soft, batch.keys, batch.total, batch.place)  # type: ignore[arg-type]

    def mixed(self) -> AbstractContextManager[Any]:
        """Automatic mixed precision, where it was asked for."""
        return torch.autocast(self.device.type, torch.bfloat16) if self._mixed else nullcontext()

    def outputs(self, forward: Callable[..., Any], x: Inputs) -> Tensor:
        """(rows, outputs) of the module, in full precision."""
        inputs = self.inputs(x)
        try:
            with self.mixed():
                out = forward(**inputs) if isinstance(inputs, dict) else forward(inputs)
        except Exception as error:
            shapes = {k: tuple(v.shape) for k, v in inputs.items()} if isinstance(inputs, dict) else tuple(inputs.shape)
            raise ModelError(
                f"the module failed: {type(error).__name__}: {error}. It was given a batch of shape {shapes} "
                f"({self.spec}); build(spec) knows spec.features, spec.shape and spec.outputs."
            ) from error
        out = checked_outputs(out, self.spec, rows_of(x))
        return out.float() if self._mixed else out

    def check_labels(self, y: np.ndarray | None, cause: BaseException | None = None) -> None:
        """SpecMismatch where codes are outside the classes."""
        if y is None or self.spec.classes is None or not len(y):
            return
        low, high = int(np.min(y)), int(np.max(y))
        if low < 0 or high >= self.spec.classes:
            raise SpecMismatch(
                f"the batch has labels from {low} to {high}, the model knows {self.spec.classes} classes "
                f"(0..{self.spec.classes - 1}). Build it with classes={high + 1}, or correct the data."
            ) from cause


def checked_outputs(outputs: Any, spec: Spec, rows: int) -> Tensor:
    """A module's outputs as (rows, outputs), or ModelError that says what to return."""
    if isinstance(outputs, Tensor) and outputs.shape == (rows, spec.outputs):
        return outputs
    if isinstance(outputs, Tensor) and spec.task == "regression" and spec.outputs == 1 and outputs.shape == (rows,):
        return outputs.unsqueeze(1)
    came = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
    what = "one logit a class (no softmax)" if spec.task == "classification" else "one column a target"
    message = (
        f"the module returned {came} for {rows} rows; the data is {spec}, so expected shape ({rows}, {spec.outputs}): "
        f"{what}. End the network with torch.nn.Linear(..., spec.outputs)."
    )
    if spec.classes == 2 and isinstance(outputs, Tensor) and outputs.numel() == rows:
        message += " Two classes need two outputs, not one with a sigmoid."
    raise ModelError(message)
