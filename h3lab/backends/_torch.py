"""TorchModel: a PyTorch network as a Model.

It knows how to build, place, save and ask a module; how one is trained is said in ``_torch_update``.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import Tags

from h3lab import brief
from h3lab.backends import _torch_lightning as lightning
from h3lab.backends._torch_build import made, materialize, seeded, tensors, word
from h3lab.backends._torch_check import check
from h3lab.backends._torch_losses import Objective, task_of
from h3lab.backends._torch_rows import Rows
from h3lab.backends._torch_state import Randomness, to_array
from h3lab.backends._torch_update import Update, Way
from h3lab.batch import Batch, Inputs, rows_of, take
from h3lab.errors import ModelError, NotFittedError, UnknownName, UsageError, guided
from h3lab.model import Capabilities
from h3lab.settings import Setting, Settings
from h3lab.spec import Spec

#: Rows that :meth:`TorchModel.logits` takes through the module at a time.
ROWS_AT_A_TIME = 4096

# Arguments of the constructor that have the name of one of a Model's methods are kept under another.
_KEPT_AS = {"build": "_build", "step": "_step"}


@guided
class TorchModel(BaseEstimator):
    """A PyTorch module and how it is trained: ``h3.TorchModel(build_net, optimizer="adamw", lr=1e-3)``.

    ``build``: a ``torch.nn.Module`` (a copy of it is trained, from its present weights) or ``build(spec)`` that makes
    one, called under the run's own seed. The module takes rows of shape (rows, *spec.shape), as floats, and returns
    (rows, spec.outputs): logits, or predictions. With ``join="blocks"`` it is called with one keyword a block, whole
    numbers as int64.

    A LightningModule, or its class, trains by its own ``training_step`` and ``configure_optimizers``, and what it
    logs goes into the records; with a ``loss`` it trains by its forward, as any module. A Keras 3 model on the torch
    backend is a module too.

    ``lr``: learning rate; None is 1e-3, or a LightningModule's own (where that is made for the data, by ``build(spec)``
    or a class whose first argument is the spec, say it). ``optimizer``: ``"adam"`` (None too), ``"adamw"``,
    ``"sgd"``, ``"momentum"`` (SGD, Nesterov 0.9), ``"adagrad"``, ``"rmsprop"`` or ``f(parameters, lr)``. ``loss``:
    ``"cross_entropy"``, ``"hinge"``; ``"mse"``, ``"mae"``, ``"huber"``; ``f(outputs, y)``; None chooses by task.
    ``scheduler``: ``f(optimizer)``, stepped once an update; it multiplies what ``set(lr=)`` sets. ``step``:
    ``f(module, batch) -> loss or dict`` with ``"loss"``, in place of forward and loss; the batch's arrays are tensors.
    ``device``: None is CUDA where there is one. ``precision``: ``"float32"``, ``"float64"``, or ``"bfloat16"``
    (automatic mixed precision). ``clip_norm``: greatest norm of an update's gradient. ``accumulate``: pieces that a
    batch is cut into, to save memory; the update stays that of the whole batch. ``compile``: ``torch.compile``, with a
    backend's name where it is a string.
    """

    def __init__(
        self,
        build: Any,
        *,
        lr: float | None = None,
        optimizer: Any = None,
        loss: Any = None,
        scheduler: Callable[..., Any] | None = None,
        step: Callable[..., Any] | None = None,
        device: Any = None,
        precision: str = "float32",
        clip_norm: float | None = None,
        accumulate: int = 1,
        compile: bool | str = False,
    ) -> None:
        self._build, self._step = build, step
        self.lr = lr
        self.optimizer = optimizer
        self.loss = loss
        self.scheduler = scheduler
        self.device = device
        self.precision = precision
        self.clip_norm = clip_norm
        self.accumulate = accumulate
        self.compile = compile

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name, as in scikit-learn."""
        return {name: getattr(self, _KEPT_AS.get(name, name)) for name in self._get_param_names()}

    def set_params(self, **params: Any) -> TorchModel:
        """Change arguments of the constructor; UnknownName lists them. They hold from the next build on."""
        for name, value in params.items():
            if name not in self._get_param_names():
                raise UnknownName("parameter", name, self._get_param_names(), "TorchModel")
            setattr(self, _KEPT_AS.get(name, name), value)
        return self

    def __sklearn_clone__(self) -> TorchModel:
        # A module is copied when it is built; a copy before that would cost its memory twice, and not every class of
        # Keras can be copied by deepcopy.
        return type(self)(**self.get_params(deep=False))

    @property
    def capabilities(self) -> Capabilities:
        """See :class:`h3lab.model.Capabilities`; a teacher's answers are beyond a ``step`` of one's own."""
        return Capabilities(
            soft_targets=() if self._step is not None or self._own_step(self._build) else ("kl",),
            asynchronous=self._chosen_device().type == "cuda",
            ranks=True,
            weights=not self._own_step(self._build),
            places=self._own_step(self._build),
            loss=None if self.loss in (None, "cross_entropy", "mse") else self._loss_of_logits,
        )

    @property
    def settings(self) -> tuple[Setting, ...]:
        """``lr``, steerable. Whatever trains a model asks for them first, so wrong arguments are said here."""
        self._check()
        lr = Setting("lr", float, 1e-3, low=0.0, log=True, help="learning rate")
        if self.lr is not None:
            return (replace(lr, default=lr.check(self.lr)),)
        own = lightning.rate_of(self._build) if self._own_step(self._build) and self.optimizer is None else None
        return (lr if own is None else replace(lr, default=lr.check(own)),)

    @property
    def task(self) -> str | None:
        """What the loss's name says about the task before any data came; None where it says nothing."""
        return task_of(self.loss)

    @property
    def spec(self) -> Spec | None:
        """The spec that it was built for."""
        return self._rows.spec if hasattr(self, "module_") else None

    @property
    def native(self) -> torch.nn.Module:
        """The trained module, on the CPU, in evaluation mode; a copy where the training lives on another device."""
        module = self._module()
        return (module if self._rows.device.type == "cpu" else copy.deepcopy(module).cpu()).eval()

    def build(self, spec: Spec, seed: int) -> None:
        """See :meth:`h3lab.model.Model.build`."""
        self._check()
        device = self._chosen_device()
        random = Randomness(seed, device)
        rows = Rows(spec, device, self.precision)
        with random:
            with seeded(seed):
                module = made(self._build, spec, self.loss).to(device, rows.dtype)
                materialize(module, rows)
        if self._own_step(module):
            lightning.prepared(module)
            self._check_rate(module)
        self._equip(module, rows, random, seed)

    def step(self, batch: Batch, settings: Settings) -> Mapping[str, Any]:
        """See :meth:`h3lab.model.Model.step`. Where the loss is not finite, parameters stay as they were (not on CUDA,
        where nobody waits for the loss)."""
        self._module()
        return self._update.step(batch, settings)

    def logits(self, x: Inputs) -> np.ndarray:
        """See :meth:`h3lab.model.Model.logits`."""
        module, rows = self._module(), rows_of(x)
        training = module.training
        out = np.empty((rows, self._rows.spec.outputs), np.float64 if self.precision == "float64" else np.float32)
        module.eval()
        try:
            with torch.inference_mode(), Randomness(self._seed, self._rows.device):
                for start in range(0, rows, ROWS_AT_A_TIME):
                    part = slice(start, start + ROWS_AT_A_TIME)
                    out[part] = self._rows.outputs(module, take(x, part)).cpu().numpy()
        finally:
            module.train(training)
        return out

    def parameters(self) -> dict[str, np.ndarray]:
        """See :meth:`h3lab.model.Model.parameters`."""
        return {name: to_array(value) for name, value in tensors(self._module()).items()}

    def load_parameters(self, parameters: Mapping[str, np.ndarray]) -> None:
        """See :meth:`h3lab.model.Model.load_parameters`."""
        mine = tensors(self._module())
        wrong = [f"{name} is missing" for name in mine.keys() - parameters.keys()]
        wrong += [f"{name} is not in the module" for name in parameters.keys() - mine.keys()]
        wrong += [
            f"{name} has shape {np.shape(parameters[name])}, the module's has {tuple(mine[name].shape)}"
            for name in mine.keys() & parameters.keys()
            if np.shape(parameters[name]) != tuple(mine[name].shape)
        ]
        if wrong:
            raise ModelError("these parameters do not fit the module: " + "; ".join(sorted(wrong)) + ".")
        with torch.no_grad():
            for name, value in mine.items():
                value.copy_(torch.from_numpy(np.array(parameters[name])))

    def state(self) -> dict[str, Any]:
        """See :meth:`h3lab.model.Model.state`."""
        return {"parameters": self.parameters(), **self._update.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See :meth:`h3lab.model.Model.load_state`."""
        self.load_parameters(state["parameters"])
        self._update.load_state(state)

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        # Functions by their names: an address in memory says nothing, and differs in every process.
        defaults = inspect.signature(type(self)).parameters
        given = {name: value for name, value in self.get_params().items() if value is not defaults[name].default}
        words = [word(given.pop("build")), *(f"{name}={word(value)}" for name, value in given.items())]
        return f"{type(self).__name__}({brief.listed(words, brief.LINE - len(type(self).__name__) - 2)})"

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.estimator_type = {"classification": "classifier", "regression": "regressor"}.get(self.task or "")
        tags.target_tags.multi_output = self.task != "classification"
        return tags

    def __getstate__(self) -> dict[str, Any]:
        # What was learned travels on the CPU; groups, compiled code and generators are made again where it arrives.
        state: dict[str, Any] = super().__getstate__()
        if not hasattr(self, "module_"):
            return state
        kept = {name: value for name, value in state.items() if name not in ("module_", "_rows", "_update")}
        module = self.module_ if self._rows.device.type == "cpu" else copy.deepcopy(self.module_).cpu()
        return {**kept, "learned": (module, self._rows.spec, self._update.state())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        learned = state.pop("learned", None)
        super().__setstate__(state)
        if learned is not None:
            module, spec, update = learned
            rows = Rows(spec, self._chosen_device(), self.precision)
            self._equip(module.to(rows.device), rows, Randomness(self._seed, rows.device), self._seed)
            self._update.load_state(update)

    def _loss_of_logits(self, logits: np.ndarray, y: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            outputs, targets = (torch.from_numpy(values).to(self._rows.device) for values in (logits, y))
            return Objective(self.loss, self._rows.spec).values(outputs, targets).cpu().numpy()

    def _equip(self, module: torch.nn.Module, rows: Rows, random: Randomness, seed: int) -> None:
        given = (self.optimizer, self.scheduler, self._step, self.clip_norm, self.accumulate, self.compile)
        way = Way(*given, lightning=self._own_step(module))
        self.module_, self._rows, self._seed = module, rows, seed
        self._update = Update(module, way, rows, Objective(self.loss, rows.spec), random)

    def _own_step(self, module: Any) -> bool:
        return lightning.trains_itself(module, self.loss, self._step)

    def _check_rate(self, module: torch.nn.Module) -> None:
        told = None if self.optimizer is not None or self.lr is not None else lightning.configure(module)
        shown = self.settings[0].default
        if told is not None and (own := told.optimizer.param_groups[0]["lr"]) != shown:
            raise ModelError(
                f"the {type(module).__name__} that build(spec) made begins with a learning rate of {own}, which nobody "
                f"could know before it was made. Say it: TorchModel(build, lr={own})."
            )

    def _module(self) -> torch.nn.Module:
        if not hasattr(self, "module_"):
            raise NotFittedError("this TorchModel has no parameters yet: call build(spec, seed), or train it first.")
        return self.module_

    def _check(self) -> None:
        names = [name for name in inspect.signature(TorchModel).parameters if name not in ("lr", "device")]
        check({name: getattr(self, _KEPT_AS.get(name, name)) for name in names})

    def _chosen_device(self) -> torch.device:
        if self.device is None:
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
        except (RuntimeError, TypeError) as error:
            raise UsageError(f"device={self.device!r} came; expected for example 'cpu', 'cuda' or 'cuda:1'.") from error
        if device.type == "cuda" and not torch.cuda.is_available():
            raise UsageError(f"device={self.device!r} came, and this process sees no CUDA device: use 'cpu', or None.")
        return device
