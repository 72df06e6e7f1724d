"""The memory of a torch training, by a trial: bytes of all tensors that live while a step is made.

It knows tensors and their storages; it does not know how much memory there is.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from h3lab.backends._torch_build import made, tensors
from h3lab.spec import Spec


class Living(TorchDispatchMode):  # type: ignore[misc]
    """Follows the storages that operations make, while they live. (torch's profiler counts the same, and writes to the
    terminal; the resident memory of a process moves in steps of megabytes.)"""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, tuple[int, Any]] = {}  # address of a storage → its number, and a reference
        self._events: list[tuple[int, int]] = []  # number of a storage, and the bytes that came or went

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._look((args, kwargs), before=True)  # a view of what was there takes nothing
        out = function(*args, **(kwargs or {}))
        self._look(out)
        return out

    def _look(self, tree: Any, before: bool = False) -> None:
        for tensor in tree_leaves(tree):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._known:
                    self._follow(storage, 0 if before else storage.nbytes())

    def _follow(self, storage: Any, size: int) -> None:
        mark, number = storage._cdata, len(self._events)

        def gone(_: Any) -> None:
            self._events.append((number, -size))
            self._known.pop(mark, None)

        self._events.append((number, size))
        self._known[mark] = number, weakref.ref(storage, gone)

    def peak(self, apart: Iterable[torch.Tensor]) -> int:
        """Bytes at most at one time, those of some tensors left out, which live until now."""
        left = {self._known.get(tensor.untyped_storage()._cdata, (-1, None))[0] for tensor in apart}
        now = most = 0
        for number, change in self._events:
            now += 0 if number in left else change
            most = max(most, now)
        return most


def peak(model: Any, run: Callable[[], Any]) -> int:
    """Bytes at most of the tensors that ``run`` makes, without the gradients of parameters, which do not grow with the
    rows; what lived before does not count."""
    with Living() as living:
        run()
    return living.peak([p.grad for p in model.module_.parameters() if p.grad is not None])


def of_model(model: Any) -> dict[str, int]:
    """Bytes of ``parameters`` (and buffers), ``gradients`` and ``optimizer`` state of a model after its first step."""
    learned = [p for p in model.module_.parameters() if p.requires_grad]
    optimization = model._update._optimization
    state = [] if optimization is None else tree_leaves([dict(s) for s in optimization.optimizer.state.values()])
    return {
        "parameters": sum(map(_bytes, tensors(model.module_).values())),
        "gradients": sum(map(_bytes, learned)),
        "optimizer": sum(_bytes(value) for value in state if isinstance(value, torch.Tensor)),
    }


def ahead(model: Any, spec: Spec) -> int | None:
    """Bytes of the parameters before they take any, where the network can be built without; else None."""
    build = model.get_params()["build"]
    if isinstance(build, torch.nn.Module):
        return sum(_bytes(value) for value in build.parameters())
    try:
        with torch.device("meta"):
            return sum(_bytes(value) for value in made(build, spec, model.loss).parameters())
    except Exception:  # a network that computes with numbers while it is built
        return None


def place(model: Any) -> tuple[str, float | None]:
    """(device of the model, bytes that are free there; None: the machine's own memory)."""
    device = model._chosen_device()
    if device.type != "cuda":
        return "memory", None
    return str(device), float(torch.cuda.mem_get_info(device)[0])


def _bytes(tensor: Any) -> int:
    return int(tensor.numel() * tensor.element_size())
