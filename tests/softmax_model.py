"""A Model in NumPy alone: softmax or linear regression by gradient descent, derivable by hand.

It shows that the protocol needs no framework, and, with a ``fault``, that a check of the suite finds what it is for.
"""

import dataclasses

import numpy as np
from sklearn.base import BaseEstimator

from h3lab.errors import ModelError, NotFittedError, SpecMismatch
from h3lab.model import Capabilities
from h3lab.settings import Setting
from h3lab.training.answers import log_softmax

#: Fault → the check that finds it.
FAULTS = {
    "clone forgets the rate": "check_declarations",
    "answers before it is built": "check_unbuilt",
    "forgets the seed": "check_seeds",
    "the same for every seed": "check_seeds",
    "moves when asked": "check_logits",
    "looks at other rows": "check_logits",
    "climbs": "check_learning",
    "tells half the loss": "check_loss",
    "forgets the momentum": "check_state",
    "hands out its own arrays": "check_parameters",
    "takes any names": "check_parameters",
    "weighs nothing": "check_weights",
    "is never divided by T": "check_soft_targets",
    "adds up wrongly": "check_soft_targets",
    "keeps its rate": "check_steering",
    "cuts wide rows": "check_wrong_data",
    "leaves the momentum at home": "check_travel",
}


class SoftmaxModel(BaseEstimator):
    def __init__(self, lr=0.5, momentum=0.5, fault=None):
        self.lr = lr
        self.momentum = momentum
        self.fault = fault

    @property
    def native(self):
        self._check()
        return self.w

    @property
    def capabilities(self):
        return Capabilities(soft_targets=("kl",))

    @property
    def settings(self):
        lr = Setting("lr", float, 0.5, low=0.0, log=True)
        return (dataclasses.replace(lr, default=0.25 if self.fault == "clone forgets the rate" else self.lr),)

    def get_params(self, deep=True):
        params = super().get_params(deep)
        return {**params, "momentum": 0.0} if self.fault == "clone forgets the rate" else params

    def build(self, spec, seed):
        if self.fault == "the same for every seed":
            seed = 0
        random = np.random.default_rng(None if self.fault == "forgets the seed" else seed)
        self.spec = spec
        self.w = random.normal(size=(spec.features + 1, spec.outputs)) * 0.01
        self.velocity = np.zeros_like(self.w)

    def step(self, batch, settings):
        self._check()
        x = self._inputs(batch.x)
        if self.spec.classes and batch.y.max() >= self.spec.classes:
            raise SpecMismatch(f"{batch.y.max()} is no class")
        z, weight = x @ self.w, np.ones(len(x)) if batch.weight is None else batch.weight
        if self.fault == "weighs nothing":
            weight = np.ones(len(x))
        told, slope = self._hard(z, batch.y, weight)
        if batch.soft is not None:
            near, towards = self._soft(z, batch.soft, weight, settings.temperature)
            slope = settings.soft * towards + settings.hard * slope
            hard = told["loss"]
            told = {"loss": settings.soft * near + settings.hard * hard, "soft_loss": near, "hard_loss": hard}
            if self.fault == "adds up wrongly":
                told["loss"] += 1.0
        lr = self.lr if self.fault == "keeps its rate" else settings.lr
        gradient = x.T @ slope / len(x) * (-1 if self.fault == "climbs" else 1)
        self.velocity = self.momentum * self.velocity + gradient
        self.w -= lr * self.velocity
        if self.fault == "tells half the loss":
            told = {name: value / 2 for name, value in told.items()}
        return told

    def _hard(self, z, y, weight):
        if not self.spec.classes:
            return {"loss": float((weight * np.square(z[:, 0] - y)).mean())}, 2 * weight[:, None] * (z - y[:, None])
        p, rows = log_softmax(z), np.arange(len(z))
        slope = np.exp(p)
        slope[rows, y] -= 1
        return {"loss": float(-(weight * p[rows, y]).mean())}, slope * weight[:, None]

    def _soft(self, z, teacher, weight, temperature):
        if not self.spec.classes:
            return float((weight * np.square(z - teacher)[:, 0]).mean()), 2 * weight[:, None] * (z - teacher)
        student = log_softmax(z if self.fault == "is never divided by T" else z / temperature)
        teacher = log_softmax(teacher / temperature)
        values = (np.exp(teacher) * (teacher - student)).sum(1) * temperature**2
        return float((weight * values).mean()), temperature * (np.exp(student) - np.exp(teacher)) * weight[:, None]

    def logits(self, x):
        if self.fault != "answers before it is built":
            self._check()
        elif not hasattr(self, "w"):
            return np.zeros((len(x), 3))
        z = self._inputs(x) @ self.w
        if self.fault == "moves when asked":
            self.w = self.w + 1e-9
        return z - z.mean(0) if self.fault == "looks at other rows" else z

    def parameters(self):
        self._check()
        return {"w": self.w if self.fault == "hands out its own arrays" else self.w.copy()}

    def load_parameters(self, parameters):
        if list(parameters) != ["w"] and self.fault != "takes any names":
            raise ModelError(f"w was expected, {list(parameters)} came")
        self.w = np.array(parameters.get("w", self.w))

    def state(self):
        kept = {} if self.fault == "forgets the momentum" else {"velocity": self.velocity.copy()}
        return {"w": self.w.copy(), **kept}

    def load_state(self, state):
        self.w = np.array(state["w"])
        self.velocity = np.array(state.get("velocity", np.zeros_like(self.w)))

    def __getstate__(self):
        state = super().__getstate__()
        if self.fault == "leaves the momentum at home" and "velocity" in state:
            state = {**state, "velocity": np.zeros_like(self.velocity)}
        return state

    def _check(self):
        if not hasattr(self, "w"):
            raise NotFittedError("not built")

    def _inputs(self, x):
        x = x.toarray() if hasattr(x, "toarray") else np.asarray(x)
        x = x.reshape(len(x), -1).astype(np.float64)
        if self.fault == "cuts wide rows":
            x = x[:, : self.spec.features]
        if x.shape[1] != self.spec.features:
            raise SpecMismatch(f"{x.shape[1]} columns came")
        return np.column_stack([x, np.ones(len(x))])
