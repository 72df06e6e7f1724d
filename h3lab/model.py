"""What a backend promises: the Model protocol, in seven methods, and its capabilities as a value.

Outside ``backends/`` nobody calls a method of a native model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from h3lab.batch import Batch, Inputs
from h3lab.settings import Setting, Settings
from h3lab.spec import Spec


@dataclass(frozen=True)
class Capabilities:
    """What a model can take, as data.

    ``learns``: ``"batches"`` (a step is one batch), ``"increments"`` (each step sees all rows and adds to the model:
    warm-started ensembles) or ``"whole"`` (one step sees all rows and ends the training). ``sparse``: takes CSR.
    ``weights``: takes row weights. ``soft_targets``: losses it knows for a teacher's logits (``("kl",)``).
    ``asynchronous``: metrics of ``step`` live on a device and are fetched in blocks. ``ranks``: can train as a group.
    ``steps``: for increments, the model's own end (``n_estimators``, ``max_iter``). ``epochs``: for batches, the end
    where the model has one (1 for models that count rows, which a second pass would count twice). ``probabilities``:
    its logits are log-probabilities; False where they are margins, of which only order and sign mean something: such a
    model predicts, but has no ``predict_proba`` and teaches nobody. ``loss``: f(logits, y) → losses (rows,) or their
    mean, where it is neither cross entropy nor squared error; validation measures what the training minimises.
    ``places``: wants ``Batch.place``.
    """

    learns: Literal["batches", "increments", "whole"] = "batches"
    sparse: bool = False
    weights: bool = True
    soft_targets: tuple[str, ...] = ()
    asynchronous: bool = False
    ranks: bool = False
    steps: int | None = None
    epochs: int | None = None
    probabilities: bool = True
    loss: Callable[[np.ndarray, np.ndarray], Any] | None = None
    places: bool = False


@runtime_checkable
class Model(Protocol):
    """A trainable model. Implementations are scikit-learn-style parameter holders (``get_params``, clonable) whose
    learned parts appear in :meth:`build` or :meth:`load_parameters`; see ``h3lab.testing.check_model``."""

    @property
    def native(self) -> Any:
        """The trained module or estimator itself, on the CPU, in evaluation mode."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """Known without training."""
        ...

    @property
    def settings(self) -> tuple[Setting, ...]:
        """What of this model can be set for a run, with its defaults (``lr``, ...)."""
        ...

    def build(self, spec: Spec, seed: int) -> None:
        """Fresh parameters for this spec from this seed: the same seed gives the same bits."""
        ...

    def step(self, batch: Batch, settings: Settings) -> Mapping[str, Any]:
        """Learn from one batch. Returns its mean ``loss`` (with ``soft_loss`` and ``hard_loss`` where the batch has
        soft targets) and any other metric; values answer to ``float()``."""
        ...

    def logits(self, x: Inputs) -> np.ndarray:
        """(rows, outputs): log-probabilities up to a constant a row (classification) or predictions (regression).
        Leaves the training state (dropout, batch norm, random states) as it was."""
        ...

    def parameters(self) -> dict[str, np.ndarray]:
        """Named parameters and buffers, copied to the CPU."""
        ...

    def load_parameters(self, parameters: Mapping[str, np.ndarray]) -> None:
        """The inverse; every name and shape must be there, else ModelError that lists the differences."""
        ...

    def state(self) -> dict[str, Any]:
        """All that a training needs to go on bit-equal, as a codec tree: parameters, optimizer, random states."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state`, after :meth:`build` with the same spec."""
        ...
