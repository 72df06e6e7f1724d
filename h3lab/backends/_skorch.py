"""SkorchModel: a net of skorch as a Model: each step is one of the net's own epochs, in the net's own batches, with its
callbacks and its split for validation.

It knows skorch's nets by their methods; what holds of any estimator is in ``_sklearn``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from h3lab.backends import _sklearn_traits as traits
from h3lab.backends._sklearn import SklearnModel
from h3lab.backends._sklearn_soft import Lesson
from h3lab.backends._sklearn_traits import Traits
from h3lab.backends._torch_state import Randomness, from_tree, to_array, to_tree
from h3lab.batch import Batch, Inputs, dense
from h3lab.errors import ModelError, SpecMismatch
from h3lab.model import Capabilities
from h3lab.settings import Setting, Settings
from h3lab.spec import Spec

_CLIP = 1e-12


class SkorchModel(SklearnModel):
    """A skorch net and how it is trained: ``max_epochs`` records, one an epoch, with the net's own ``batch_size``,
    ``train_split`` and callbacks; what its history tells of an epoch (``valid_loss``, ...) stands in the record.

    The net given is never changed: a clone learns, under the run's own seed. It is fitted on class codes (0, 1, ...),
    because that is what its criterion takes and its ``predict`` answers; the actor answers with labels. Callbacks keep
    no state in a snapshot. ``lr`` can be steered: a new rate multiplies that of every parameter group.
    """

    @property
    def capabilities(self) -> Capabilities:
        """See :class:`h3lab.model.Capabilities`."""
        return Capabilities(learns="increments", weights=False, steps=int(self.estimator.max_epochs))

    @property
    def settings(self) -> tuple[Setting, ...]:
        """``lr``, steerable."""
        lr = Setting("lr", float, 1e-2, low=0.0, log=True, help="learning rate")
        return (replace(lr, default=lr.check(float(self.estimator.lr))),)

    def build(self, spec: Spec, seed: int) -> None:
        """See :meth:`h3lab.model.Model.build`."""
        super().build(spec, seed)
        self._random = Randomness(seed, torch.device("cpu"))
        self._rate = float(self.estimator.lr)
        with self._own():
            if not getattr(self.estimator_, "initialized_", False):
                self.estimator_.initialize()

    def step(self, batch: Batch, settings: Settings) -> Mapping[str, Any]:
        """See :meth:`h3lab.model.Model.step`."""
        self._built()
        if settings.lr != self._rate and self._rate:
            for group in self.estimator_.optimizer_.param_groups:
                group["lr"] *= settings.lr / self._rate
            self._rate = settings.lr
        told = super().step(batch, settings)
        return {**_last(self.estimator_.history), **told}

    def parameters(self) -> dict[str, np.ndarray]:
        """See :meth:`h3lab.model.Model.parameters`: those of the net's module."""
        return {name: to_array(value) for name, value in self._learned().module_.state_dict().items()}

    def load_parameters(self, parameters: Mapping[str, np.ndarray]) -> None:
        """See :meth:`h3lab.model.Model.load_parameters`."""
        self._built()
        given = {name: torch.from_numpy(np.array(value)) for name, value in parameters.items()}
        try:
            self.estimator_.module_.load_state_dict(given)
        except RuntimeError as error:
            raise ModelError(f"these parameters do not fit the net's module: {error}") from error

    def state(self) -> dict[str, Any]:
        """See :meth:`h3lab.model.Model.state`."""
        self._built()
        net = self.estimator_
        return {
            "parameters": self.parameters(),
            "optimizer": to_tree(net.optimizer_.state_dict()),
            "history": json.dumps(list(net.history), default=float),
            "random": self._random.state(),
            "rate": self._rate,
            "steps": self._steps,
        }

    def load_state(self, state: Mapping[str, Any], types: Iterable[Any] = ()) -> None:
        """See :meth:`h3lab.model.Model.load_state`."""
        self.load_parameters(state["parameters"])
        net = self.estimator_
        net.optimizer_.load_state_dict(from_tree(state["optimizer"], net.optimizer_.state_dict()))
        net.history[:] = json.loads(state["history"])
        self._random.load_state(state["random"])
        self._rate, self._steps = float(state["rate"]), int(state["steps"])

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())
        random = state.pop("_random", None)  # generators do not travel, their states do
        return state if random is None else {**state, "random": random.state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        random = state.pop("random", None)
        super().__setstate__(state)
        if random is not None:
            self._random = Randomness(0, torch.device("cpu"))
            self._random.load_state(random)

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        module = getattr(self.estimator.module, "__name__", type(self.estimator.module).__name__)
        return f"SkorchModel({self._name}({module}, max_epochs={self.estimator.max_epochs}))"

    @property
    def _traits(self) -> Traits:
        return Traits(traits.task_of(self.estimator), "increments", None, "max_epochs", None, False, False)

    @contextmanager
    def _own(self) -> Iterator[None]:
        """The net draws from the run's random stream, prints no table and asks for one epoch at a time."""
        net = self.estimator_
        before = net.max_epochs, net.verbose
        # Set as attributes: set_params would make optimizer and callbacks anew.
        net.max_epochs, net.verbose = 1, 0
        try:
            with self._random:
                yield
        finally:
            net.max_epochs, net.verbose = before

    def _learn(self, chosen: Lesson) -> None:
        y = chosen.y
        if self.spec_.task == "regression":
            y = y.reshape(len(y), -1).astype(np.float32)
        elif _binary(self.estimator):
            y = y.astype(np.float32)
        try:
            with self._own():
                self.estimator_.partial_fit(chosen.x, y)
        except RuntimeError as error:
            raise ModelError(f"{self._name} failed on rows of shape {self.spec_.shape}: {error}") from error
        self._steps += 1

    def _table(self, x: Inputs) -> Any:
        if isinstance(x, Mapping):
            return {name: _array(block) for name, block in x.items()}
        x, spec = _array(x), self.spec
        if spec is not None and x.shape[1:] != spec.shape:
            raise SpecMismatch(f"rows of shape {x.shape[1:]} came; {self._name} was built for {spec.shape} ({spec}).")
        return x

    def _logits(self, table: Any) -> np.ndarray:
        net = self._learned()
        random = Randomness(0, torch.device("cpu"))
        with random:  # a loader of skorch's draws a seed although it does not shuffle
            if self.task == "regression" or (self.spec is not None and self.spec.task == "regression"):
                found = np.asarray(net.predict(table), np.float64)
                return found.reshape(len(found), -1)
            if isinstance(net.criterion_, torch.nn.CrossEntropyLoss) and net.predict_nonlinearity == "auto":
                out = net.forward(table, training=False)
                return np.asarray((out[0] if isinstance(out, tuple) else out).cpu().numpy(), np.float64)
            return np.asarray(np.log(np.maximum(net.predict_proba(table), _CLIP)))


def _binary(net: Any) -> bool:
    return any(base.__name__ == "NeuralNetBinaryClassifier" for base in type(net).__mro__)


def _array(x: Any) -> np.ndarray:
    x = np.asarray(dense(x))
    return x.astype(np.int64 if x.dtype.kind in "iu" else np.float32, copy=False)


def _last(history: Any) -> dict[str, float]:
    """What a net's history tells of its newest epoch; a record has its own clock and count."""
    row = history[-1] if len(history) else {}
    numbers = {n: v for n, v in row.items() if isinstance(v, (float, np.floating)) and n != "dur"}
    return {name: float(value) for name, value in numbers.items()}


def to_document(model: SkorchModel) -> dict[str, Any]:
    """The codec tree: the module's weights; the net itself is code, and is given when it is opened."""
    return {"class": model._name, "parameters": model.parameters(), "types": [], "lost": [], "build": "net"}


def from_document(tree: Mapping[str, Any], spec: Spec, build: Any, types: Iterable[Any]) -> SkorchModel:
    """The inverse. ``build``: the net, as it was given to the actor."""
    if build is None:
        raise ModelError(
            f"this file holds the weights of a {tree['class']} of skorch. Give the net: h3.load(path, build=net)."
        )
    model = SkorchModel(build)
    model.build(spec, 0)
    model.load_parameters(tree["parameters"])
    return model
