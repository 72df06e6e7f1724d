"""The group of processes that train one torch module together, where there is one.

It knows ``torch.distributed``'s default group; it does not form it, and does not know which rows a rank has.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


class Ranks:
    """``rank`` of ``size``: 0 of 1 where no group was formed before the first step."""

    def __init__(self) -> None:
        formed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.size = torch.distributed.get_world_size() if formed else 1
        self.rank = torch.distributed.get_rank() if formed else 0

    def wrap(self, module: torch.nn.Module, device: torch.device) -> torch.nn.Module:
        """The module whose backward passes average the gradients over the ranks."""
        if self.size == 1:
            return module
        ids = None if device.type == "cpu" else [torch.cuda.current_device() if device.index is None else device.index]
        return torch.nn.parallel.DistributedDataParallel(module, device_ids=ids)

    def quiet(self, forward: Any, last: bool) -> AbstractContextManager[None]:
        """Around all backward passes of an update but the last: gradients are exchanged once."""
        return nullcontext() if last or self.size == 1 else forward.no_sync()

    def sum(self, values: dict[str, Any]) -> dict[str, Any]:
        """Each value summed over the ranks."""
        if self.size == 1:
            return values
        device = values["loss"].device
        together = torch.stack([torch.as_tensor(value, device=device).float() for value in values.values()])
        torch.distributed.all_reduce(together)
        return dict(zip(values, together, strict=True))
