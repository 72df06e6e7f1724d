"""What TorchModel was given, checked before anything is trained: names, numbers, and whether functions can be called.

It knows the arguments of TorchModel; it does not know data or devices.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch

from h3lab.backends import _torch_lightning as lightning
from h3lab.backends._torch_losses import CLASSIFICATION, REGRESSION
from h3lab.backends._torch_rows import PRECISIONS
from h3lab.backends._torch_state import OPTIMIZERS
from h3lab.errors import UnknownName, UsageError
from h3lab.settings import Setting


def check(given: dict[str, Any]) -> None:
    """UsageError for the first argument of TorchModel that cannot be right."""
    build, optimizer, loss = given["build"], given["optimizer"], given["loss"]
    if not isinstance(build, torch.nn.Module) and not (isinstance(build, type) and lightning.is_lightning(build)):
        _callable("build", build, "a torch.nn.Module or a function of the spec, build(spec)", "spec")
    if optimizer is not None:
        _named("optimizer", optimizer, OPTIMIZERS, "f(parameters, lr)", "parameters", "lr")
    if isinstance(loss, type):
        raise UsageError(f"loss={loss.__name__} came, which is a class. Write {loss.__name__}() with its parentheses.")
    if loss is not None:
        _named("loss", loss, {**CLASSIFICATION, **REGRESSION}, "f(outputs, y), or None", "outputs", "y")
    if given["scheduler"] is not None:
        _callable("scheduler", given["scheduler"], "f(optimizer), for example lambda o: StepLR(o, 100)", "optimizer")
    if given["step"] is not None:
        _callable("step", given["step"], "f(module, batch) -> loss", "module", "batch")
    if given["precision"] not in PRECISIONS:
        raise UsageError(f"precision={given['precision']!r} came; expected one of {', '.join(PRECISIONS)}.")
    Setting("accumulate", int, 1, low=1).check(given["accumulate"])
    if given["clip_norm"] is not None:
        Setting("clip_norm", float, 1.0, low=0.0).check(given["clip_norm"])
    if isinstance(given["compile"], str) and given["compile"] not in torch.compiler.list_backends(()):
        raise UnknownName("backend of torch.compile", given["compile"], torch.compiler.list_backends(()))


def _named(name: str, value: Any, known: Any, expected: str, *arguments: str) -> None:
    """A name that is known, or a function that takes these arguments."""
    if not isinstance(value, str):
        _callable(name, value, f"one of {', '.join(known)}, or {expected}", *arguments)
    elif value not in known:
        raise UnknownName(name, value, known)


def _callable(name: str, value: Any, expected: str, *arguments: str) -> None:
    if not callable(value):
        came = repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
        raise UsageError(f"{name}={came} came; expected {expected}.")
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # written in C, and silent about what it takes
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        called = f"{name}({', '.join(arguments)})"
        shown = getattr(value, "__name__", type(value).__name__)
        raise UsageError(f"{name}={shown} cannot be called as {called}: {error}. Expected {expected}.") from error
