"""A Keras 3 model on Keras's torch backend, which is a torch module with names and habits of its own.

It knows Keras by its base class and imports nothing of it, which the user's own model has done.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from h3lab.errors import ModelError


def is_keras(module: Any) -> bool:
    """Whether this is a layer or model of Keras 3 (on the torch backend, or it would be no torch module)."""
    return any(base.__module__ == "keras.src.layers.layer" for base in type(module).__mro__)


def tensors(module: Any) -> dict[str, Tensor]:
    """Weights, and states of random generators, numbered: Keras's own names count the models of a process."""
    return {f"{i}.{variable.name}": variable.value for i, variable in enumerate(module.variables)}


def training(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A forward pass in which dropout drops: Keras asks an argument, not the module's mode."""
    return partial(forward, training=True)


def copied(module: Any) -> Any:
    """A copy with the same weights, made of the configurations of its layers."""
    if getattr(module, "compiled", False):
        warnings.warn(
            "what model.compile was told is not used here: say TorchModel(model, lr=..., optimizer=..., loss=...), and "
            "metrics= on the actor.",
            stacklevel=2,
        )
    try:
        # deepcopy would go through Keras's file format, optimizer and all, which loses parts of that with a warning.
        made = sys.modules["keras"].models.clone_model(module)
    except Exception as error:  # whatever a class's own configuration raises
        raise ModelError(
            f"Keras cannot copy this {type(module).__name__} by the configuration of its layers, as "
            "it copies Sequential and functional models. Give a function that makes it: TorchModel(build) with "
            "def build(spec): ..."
        ) from error
    with torch.no_grad():
        for there, here in zip(made.variables, module.variables, strict=True):
            there.value.copy_(here.value)
    return made


def prepared(module: Any, spec: Any) -> Any:
    """The model as it trains here; ModelError where it returns probabilities."""
    layers = getattr(module, "layers", [])
    last = layers[-1] if layers else module
    ends = getattr(getattr(last, "activation", None), "__name__", type(last).__name__.lower())
    if spec.task == "classification" and ends in ("softmax", "sigmoid"):
        raise ModelError(
            f"this Keras model ends in {ends}, and the loss applies softmax itself. Leave it out: Dense({spec.outputs})"
            "; or, of a model that is trained already, model.layers[-1].activation = keras.activations.linear."
        )
    return module
