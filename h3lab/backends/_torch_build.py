"""How a network comes to be: from a module, a class or a function, under the run's own seed; and its tensors by name.

It knows the kinds of modules that a TorchModel takes; it does not know how they are trained.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from h3lab import brief
from h3lab.backends import _torch_keras as keras
from h3lab.backends import _torch_lightning as lightning
from h3lab.backends._torch_rows import Rows
from h3lab.errors import H3labError, ModelError, UsageError
from h3lab.spec import Spec


def made(build: Any, spec: Spec, loss: Any) -> torch.nn.Module:
    """The network of ``build``: a copy of a module, an instance of a LightningModule's class, what ``build(spec)``
    returns. ModelError where it is none, or returns probabilities although the loss is one by name."""
    if isinstance(build, torch.nn.Module):
        module = keras.copied(build) if keras.is_keras(build) else copy.deepcopy(build)
    elif isinstance(build, type) and lightning.is_lightning(build):
        module = lightning.instance(build, spec)
    elif callable(build):
        try:
            module = build(spec)
        except H3labError:
            raise
        except Exception as error:
            raise ModelError(f"build(spec) failed: {type(error).__name__}: {error} ({spec})") from error
    else:
        raise UsageError(f"TorchModel({build!r}) came; expected a torch.nn.Module or a function of the spec.")
    if not isinstance(module, torch.nn.Module):
        raise ModelError(f"build(spec) returned {type(module).__name__}; expected a torch.nn.Module.")
    named = loss is None or isinstance(loss, str)
    if named and keras.is_keras(module):
        return keras.prepared(module, spec)  # type: ignore[no-any-return]
    last = module[-1] if isinstance(module, torch.nn.Sequential) and len(module) else None
    if spec.task == "classification" and named and isinstance(last, (torch.nn.Softmax, torch.nn.Sigmoid)):
        raise ModelError(
            f"the network ends in {last}, and the loss applies softmax itself; twice, it learns slowly and teaches "
            "wrongly. Leave the last layer out, so that the network returns logits."
        )
    return module


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Python's own random numbers, which Keras draws the seeds of its layers from, are the run's meanwhile."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


def materialize(module: torch.nn.Module, rows: Rows) -> None:
    """Lazy layers learn their shapes from made-up rows, because parameters are asked for before the first batch."""
    unbuilt = keras.is_keras(module) and not module.built
    if unbuilt or any(torch.nn.parameter.is_lazy(p) for p in [*module.parameters(), *module.buffers()]):
        blocks = {name: np.zeros((2, *block.shape), block.dtype) for name, block in rows.spec.blocks.items()}
        shape = rows.spec.shape
        rows.outputs(module, blocks if len(blocks) > 1 and not shape else np.zeros((2, *shape)))


def tensors(module: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    if keras.is_keras(module):
        return keras.tensors(module)
    return {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}


def word(value: Any) -> str:
    """An argument as a repr shows it: an address in memory says nothing, and differs in every process."""
    if isinstance(value, torch.nn.Module):
        return f"{type(value).__name__}(...)"
    return brief.word(value)
