"""What a torch training carries besides its module: random states, optimizer, schedule; and all of it as codec trees.

It knows torch's objects and plain trees of arrays; it does not know batches or losses.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from h3lab.errors import ModelError, UnknownName, UsageError

#: Name → class and its options beside ``lr`` and ``fused``; fused kernels exist on the CPU and on CUDA for all of them.
OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, {}),
    "sgd": (torch.optim.SGD, {}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adagrad": (torch.optim.Adagrad, {}),
    "rmsprop": (torch.optim.RMSprop, {}),
}
_FUSED = ("cpu", "cuda")


class Randomness:
    """The random stream of one training. Inside ``with`` it is torch's global one; outside, the user's is untouched, so
    that what a cell draws between two records changes nothing in the training, and the other way round."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._generators = [torch.default_generator]
        if device.type == "cuda":
            torch.cuda.init()
            index = torch.cuda.current_device() if device.index is None else device.index
            self._generators.append(torch.cuda.default_generators[index])
        #: The states that are not in force: the training's own, or inside ``with`` the user's.
        self._aside = [torch.Generator(g.device).manual_seed(seed).get_state() for g in self._generators]

    def _swap(self, *_: object) -> None:
        for number, generator in enumerate(self._generators):
            state = generator.get_state()
            generator.set_state(self._aside[number])
            self._aside[number] = state

    __enter__ = __exit__ = _swap

    def fork(self, rank: int) -> None:
        """A stream of its own for a rank above 0: ranks that drop the same units out would not be independent."""
        if rank:
            self._aside = [
                torch.Generator(g.device).manual_seed(zlib.crc32(state.numpy().tobytes(), rank)).get_state()
                for g, state in zip(self._generators, self._aside, strict=True)
            ]

    def state(self) -> list[np.ndarray]:
        """A codec tree; outside ``with``."""
        return [state.numpy().copy() for state in self._aside]

    def load_state(self, states: Iterable[np.ndarray]) -> None:
        # A snapshot of a CUDA training has a second stream, which a CPU does not draw from, and the other way round.
        given = [torch.from_numpy(np.array(state)) for state in states]
        self._aside = given[: len(self._aside)] + self._aside[len(given) :]


@dataclass(frozen=True)
class Configured:
    """An optimizer and a schedule that a module brings itself. ``epochal``: the schedule is stepped once an epoch, not
    once an update; ``frequency``: and only at every so many of them."""

    optimizer: torch.optim.Optimizer
    schedule: Any = None
    epochal: bool = False
    frequency: int = 1


class Optimization:
    """Optimizer and schedule. ``optimizer`` is a name or ``f(parameters, lr)``; ``scheduler`` is ``f(optimizer)``,
    stepped once an update. The schedule goes its own way over the learning rate that the training began with; setting
    another rate multiplies it. ``own``: what the module brings itself, and counts where no optimizer is named."""

    def __init__(
        self,
        module: torch.nn.Module,
        lr: float,
        optimizer: str | Callable[..., torch.optim.Optimizer] | None,
        scheduler: Callable[[torch.optim.Optimizer], Any] | None,
        own: Configured | None = None,
    ) -> None:
        parameters = [p for p in module.parameters() if p.requires_grad]
        if not parameters:
            raise ModelError("the module has no parameter that requires a gradient, so there is nothing to train.")
        if own is None or optimizer is not None:
            own = Configured(_optimizer(optimizer or "adam", parameters, lr))
        else:
            lr = float(own.optimizer.param_groups[0]["lr"])  # a schedule that was made with it counts from it
        self.lr = lr
        self.parameters = parameters
        self.optimizer = own.optimizer
        self._rates = [group["lr"] for group in self.optimizer.param_groups]
        self._current = lr
        self._own = own if scheduler is None else Configured(own.optimizer, scheduler(own.optimizer))
        self._schedule = _checked(self._own.schedule)
        self._ticks, self._epoch = 0, 1

    def forget(self) -> None:
        """Drop the last gradients; the optimizer's own zero_grad would take a hundredth of a small step."""
        for parameter in self.parameters:
            parameter.grad = None

    def step(self, lr: float, epoch: int | None = None) -> None:
        """One update at this learning rate, in this epoch (from 1) where that is known."""
        if self._own.epochal and self._schedule is not None:
            if epoch is None:
                raise ModelError(
                    "this schedule counts epochs, which a network from build(spec) is not told of. Give the "
                    'LightningModule itself, or its class; or configure it with "interval": "step".'
                )
            for _ in range(epoch - self._epoch):
                self._tick()
            self._epoch = epoch
        if self._schedule is None:
            if lr != self._current:
                self._rescale(lr)
            self.optimizer.step()
            return
        groups = self.optimizer.param_groups
        scale = lr / self.lr if self.lr else 1.0
        # A schedule computes its next rate from the group's last one, which therefore has to be its own again.
        own = [group["lr"] for group in groups]
        for group, rate in zip(groups, own, strict=True):
            group["lr"] = rate * scale
        self.optimizer.step()
        for group, rate in zip(groups, own, strict=True):
            group["lr"] = rate
        if not self._own.epochal:
            self._tick()

    def _tick(self) -> None:
        self._ticks += 1
        if self._ticks % self._own.frequency == 0:
            self._schedule.step()

    def _rescale(self, lr: float) -> None:
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            # Groups of one's own optimizer keep their ratio to each other.
            group["lr"] = lr if rate == self.lr else rate * (lr / self.lr) if self.lr else lr
        self._current = lr

    def state(self) -> dict[str, Any]:
        return {
            "lr": self.lr,
            "current": self._current,
            "optimizer": to_tree(self.optimizer.state_dict()),
            "schedule": None if self._schedule is None else to_tree(self._schedule.state_dict()),
            "ticks": [self._ticks, self._epoch],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The inverse, on an Optimization that was made with ``state["lr"]``."""
        self._current = state["current"]
        self.optimizer.load_state_dict(from_tree(state["optimizer"], self.optimizer.state_dict()))
        if self._schedule is not None and state["schedule"] is not None:
            self._schedule.load_state_dict(from_tree(state["schedule"], self._schedule.state_dict()))
        self._ticks, self._epoch = state.get("ticks", (0, 1))


def _checked(schedule: Any) -> Any:
    if schedule is not None and not hasattr(schedule, "get_last_lr"):
        came = type(schedule).__name__
        raise UsageError(f"scheduler(optimizer) returned {came}; expected a scheduler of torch.optim.lr_scheduler.")
    if isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
        raise UsageError(
            "ReduceLROnPlateau came as scheduler; it waits for a metric that a step does not have. End a training "
            "without progress with patience=, or change the rate where you see the metric: run.set(lr=...)."
        )
    return schedule


def _optimizer(chosen: Any, parameters: list[torch.nn.Parameter], lr: float) -> torch.optim.Optimizer:
    if isinstance(chosen, str):
        if chosen not in OPTIMIZERS:
            raise UnknownName("optimizer", chosen, OPTIMIZERS)
        kind, options = OPTIMIZERS[chosen]
        fused = kind is not torch.optim.RMSprop and all(
            p.device.type in _FUSED and torch.is_floating_point(p) for p in parameters
        )
        return kind(parameters, lr=lr, **options, **({"fused": True} if fused else {}))
    if not callable(chosen):
        raise UsageError(f"optimizer={chosen!r} came; expected one of {', '.join(OPTIMIZERS)}, or f(parameters, lr).")
    made = chosen(parameters, lr)
    if not isinstance(made, torch.optim.Optimizer):
        raise UsageError(f"optimizer(parameters, lr) returned {type(made).__name__}; expected a torch.optim.Optimizer.")
    return made


def to_array(tensor: Tensor) -> np.ndarray:
    """A copy on the CPU. NumPy has no bfloat16: it goes as float32, which holds it exactly."""
    tensor = tensor.detach()
    return np.array((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy())


def from_array(array: np.ndarray, dtype: str) -> Tensor:
    """The inverse: a tensor on the CPU, of a dtype as ``str(tensor.dtype)`` names it."""
    return torch.from_numpy(np.array(array)).to(getattr(torch, dtype.removeprefix("torch.")))


def to_tree(value: Any) -> Any:
    """Whatever a ``state_dict`` holds → a codec tree."""
    if isinstance(value, Tensor):
        return {"tensor": to_array(value), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, Mapping):
        return {"items": [[to_tree(key), to_tree(item)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return [to_tree(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, torch.dtype):
        return str(value)
    raise ModelError(
        f"the optimizer or scheduler keeps a {type(value).__name__} in its state, which a snapshot cannot hold; "
        "use one whose state_dict has tensors, numbers and text."
    )


def from_tree(tree: Any, like: Any = None) -> Any:
    """The inverse; containers take the type of their counterpart in ``like``, which a codec tree does not keep."""
    if isinstance(tree, dict) and "tensor" in tree:
        return from_array(tree["tensor"], tree["dtype"])
    if isinstance(tree, dict):
        inside = like if isinstance(like, Mapping) else {}
        items = {(key := from_tree(k)): from_tree(item, inside.get(key)) for k, item in tree["items"]}
        kind: Any = type(inside)
        return items if kind is dict else kind(items)
    if isinstance(tree, list):
        old = like if isinstance(like, (list, tuple)) and len(like) == len(tree) else [None] * len(tree)
        values = [from_tree(item, before) for item, before in zip(tree, old, strict=True)]
        return tuple(values) if isinstance(like, tuple) else values
    return tree
