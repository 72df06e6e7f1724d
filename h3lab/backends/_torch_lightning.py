"""A LightningModule's own way to train: ``training_step`` as the step, ``configure_optimizers`` as optimizer and
schedule, ``self.log`` as metrics; without a Trainer.

It knows LightningModule by its base class and imports nothing of Lightning, which the user's own module has imported.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from h3lab.backends._torch_state import Configured
from h3lab.batch import Batch
from h3lab.errors import ModelError, UsageError
from h3lab.records import AXES

#: Methods that a Trainer calls around an update; nobody calls them here.
HOOKS = (
    "on_fit_start on_fit_end on_train_start on_train_end on_train_epoch_start on_train_epoch_end on_train_batch_start "
    "on_train_batch_end on_before_zero_grad on_before_backward on_after_backward on_before_optimizer_step "
    "optimizer_step optimizer_zero_grad lr_scheduler_step configure_gradient_clipping on_before_batch_transfer "
    "on_after_batch_transfer transfer_batch_to_device setup on_validation_epoch_end validation_step"
).split()
#: Of those, what a training without it does right, because h3lab validates and stores in its own way.
_REPLACED = ("setup", "on_validation_epoch_end", "validation_step", "transfer_batch_to_device")


class NoTrainer(ModelError, AttributeError):
    """A LightningModule asks its Trainer for something, and there is none."""


def is_lightning(module: Any) -> bool:
    """Whether this is a LightningModule, or a class of them."""
    kind = module if isinstance(module, type) else type(module)
    return _base(kind) is not None


def trains_itself(module: Any, loss: Any, step: Any) -> bool:
    """Whether its ``training_step`` is the step: where neither ``step`` nor ``loss`` says otherwise."""
    return is_lightning(module) and loss is None and step is None and _overrides(module, "training_step")


def instance(kind: type[torch.nn.Module], spec: Any) -> torch.nn.Module:
    """A module of a class: ``kind(spec)`` where its first argument is called so, else ``kind()``."""
    if list(inspect.signature(kind).parameters)[:1] == ["spec"]:
        return kind(spec)
    if required := _required(kind):
        raise UsageError(
            f"TorchModel({kind.__name__}) came, whose arguments {', '.join(required)} nobody gives. Give a module, "
            f"TorchModel({kind.__name__}({required[0]}=...)), or call its first argument spec."
        )
    return kind()


def _required(kind: type) -> list[str]:
    given = inspect.signature(kind).parameters.values()
    return [p.name for p in given if p.default is p.empty and p.kind < p.VAR_POSITIONAL]


def prepared(module: torch.nn.Module) -> torch.nn.Module:
    """A LightningModule ready to train here: its layers made, and a warning of hooks that nobody will call."""
    if not getattr(module, "automatic_optimization", True):
        raise ModelError(
            f"{type(module).__name__} sets automatic_optimization = False, so its training_step is a loop of its own. "
            'Run it as one: write the loop as a generator that yields {"loss": ...}, and call lab.run(loop, name=...).'
        )
    if _overrides(module, "configure_model"):
        module.configure_model()
    ignored = [name for name in HOOKS if name not in _REPLACED and _overrides(module, name)]
    if ignored:
        warnings.warn(
            f"{type(module).__name__} has {', '.join(ignored)}, which a Trainer calls and h3lab does not: move what "
            "matters into training_step or configure_optimizers, or take a loop of your own (lab.run).",
            stacklevel=2,
        )
    return module


def rate_of(module: Any) -> float | None:
    """The learning rate that ``configure_optimizers`` begins with; None where nothing tells it before data came."""
    if isinstance(module, type):
        if any(
            p.default is p.empty and p.kind < p.VAR_POSITIONAL for p in inspect.signature(module).parameters.values()
        ):
            return None
        with torch.random.fork_rng(devices=[]):
            module = prepared(module())
    found = configure(module)
    return None if found is None else float(found.optimizer.param_groups[0]["lr"])


def configure(module: Any) -> Configured | None:
    """What ``configure_optimizers`` returned, whichever of its forms it has; None where it says nothing."""
    if not _overrides(module, "configure_optimizers"):
        return None
    with attached(module, StandIn()):
        given = module.configure_optimizers()
    chosen: Any = given
    schedule: Any = None
    if isinstance(given, tuple) and len(given) == 2 and all(isinstance(each, (list, tuple)) for each in given):
        chosen, schedule = _one(given[0], module), _one(given[1], module) if given[1] else None
    elif isinstance(given, (list, tuple)):
        chosen = _one(given, module)
    if isinstance(chosen, Mapping):
        chosen, schedule = chosen.get("optimizer"), chosen.get("lr_scheduler", schedule)
    if chosen is None:
        return None
    if not isinstance(chosen, torch.optim.Optimizer):
        raise ModelError(
            f"{type(module).__name__}.configure_optimizers returned {type(given).__name__}; expected an optimizer, a "
            'dict with "optimizer" and "lr_scheduler", or ([optimizer], [scheduler]).'
        )
    told: Mapping[str, Any] = schedule if isinstance(schedule, Mapping) else {"scheduler": schedule}
    return Configured(
        chosen,
        told.get("scheduler"),
        epochal=told.get("interval", "epoch") == "epoch",
        frequency=int(told.get("frequency", 1)),
    )


class LightningStep(torch.nn.Module):
    """``training_step`` as a forward pass, so that what wraps a module (a group of ranks, a compiler) sees it.

    ``batch`` is (x, y) as its DataLoader would give it, x alone where there is no label, x a dict where the feed has
    blocks. ``batch_idx`` counts within an epoch.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module
        taken = inspect.signature(module.training_step).parameters  # type: ignore[arg-type]
        self._numbered = "batch_idx" in taken or len(taken) > 1

    def forward(self, batch: Any, number: int) -> Any:
        """Whatever ``training_step`` returns."""
        step: Any = self.module.training_step
        return step(batch, number) if self._numbered else step(batch)


def step(forward: Any, batch: Batch, module: Any, stand_in: StandIn) -> dict[str, Any]:
    """The loss of one ``training_step``, and what it logged."""
    if batch.soft is not None or batch.weight is not None:
        what = "a teacher's answers" if batch.soft is not None else "weights of rows"
        raise ModelError(
            f"{type(module).__name__}.training_step takes no {what}. Train it by its forward: "
            "TorchModel(module, loss='cross_entropy')."
        )
    epoch, number = batch.place or (1, stand_in.global_step)
    stand_in.begin(epoch - 1, module)
    with attached(module, stand_in):
        result = forward(batch.x if batch.y is None else (batch.x, batch.y), number)
    stand_in.global_step += 1
    loss = result.get("loss") if isinstance(result, Mapping) else result
    if loss is None:
        raise ModelError(
            f"{type(module).__name__}.training_step returned no loss; expected a 0-d tensor, or a dict with it as "
            '"loss". A step is not left out here: return 0 * loss where a batch shall not count.'
        )
    return {**stand_in.take(), "loss": loss}


class StandIn:
    """What a ``training_step`` may ask of ``self.trainer``, and where ``self.log`` goes."""

    is_global_zero = training = True
    sanity_checking = False
    logger = None

    def __init__(self) -> None:
        self.current_epoch = self.global_step = 0
        self._logged: dict[str, Any] = {}
        self.loggers: list[Any] = []

    def begin(self, epoch: int, module: torch.nn.Module) -> None:
        """The epoch (from 0) of the next step; running metrics begin anew with it, as a Trainer sees to."""
        if epoch == self.current_epoch:
            return
        self.current_epoch = epoch
        for part in module.modules():
            if all(hasattr(part, name) for name in ("update", "compute", "reset")):
                part.reset()  # type: ignore[operator]

    def log(self, name: str, value: Any, *_: Any, **__: Any) -> None:
        """``self.log``; where and how it should be shown is h3lab's own."""
        if hasattr(value, "compute"):  # a running metric of torchmetrics: this batch's value where it was called on one
            batch = getattr(value, "_forward_cache", None)
            value = value.compute() if batch is None else batch
        if isinstance(value, Mapping):
            self.log_dict(value)
        elif not isinstance(value, (bool, int, float)) and getattr(value, "numel", lambda: 0)() != 1:
            raise ModelError(f"self.log({name!r}, ...) got a {type(value).__name__}; a record holds single numbers.")
        elif name not in (*AXES, "loss"):  # a record has its own
            self._logged[name] = value.detach().reshape(()) if isinstance(value, torch.Tensor) else float(value)

    def log_dict(self, values: Any, *_: Any, **__: Any) -> None:
        """``self.log_dict``."""
        for name, value in values.items():
            self.log(name, value)

    def take(self) -> dict[str, Any]:
        """What was logged since the last time."""
        logged, self._logged = self._logged, {}
        return logged

    def __getattr__(self, name: str) -> Any:
        raise NoTrainer(
            f"this LightningModule asks for self.trainer.{name}, which only a Trainer knows. Make it an argument of "
            "the module, or give TorchModel an optimizer= and scheduler= of your own."
        )


@contextmanager
def attached(module: Any, stand_in: StandIn) -> Iterator[None]:
    """``self.log`` and ``self.trainer`` of a module, and of those in it, lead to the stand-in meanwhile."""
    parts = [part for part in module.modules() if is_lightning(part)]
    before = [vars(part).get("_trainer") for part in parts]
    for part in parts:
        # On the instance alone: its class's own log asks a Trainer for its loops.
        part.log, part.log_dict, part._trainer = stand_in.log, stand_in.log_dict, stand_in
    try:
        yield
    finally:
        for part, trainer in zip(parts, before, strict=True):
            del part.log, part.log_dict
            part._trainer = trainer


def _base(kind: type) -> type | None:
    tops = ("lightning", "pytorch_lightning")
    for base in kind.__mro__:
        if base.__name__ == "LightningModule" and base.__module__.partition(".")[0] in tops:
            return base
    return None


def _overrides(module: Any, name: str) -> bool:
    kind = module if isinstance(module, type) else type(module)
    return getattr(kind, name, None) is not getattr(_base(kind), name, None)


def _one(given: Any, module: Any) -> Any:
    if len(given) != 1:
        raise ModelError(
            f"{type(module).__name__}.configure_optimizers returned {len(given)} optimizers or schedules; a training "
            "here has one of each. Run it as a loop of your own: lab.run(loop, name=...)."
        )
    return given[0]
