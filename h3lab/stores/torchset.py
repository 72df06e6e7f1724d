"""A feed as a torch Dataset, for training loops of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from h3lab.batch import dense
from h3lab.feeds.feed import Feed


class TorchSet(torch.utils.data.Dataset):
    """Map-style: ``set[i]`` is (x, y), or x alone where there is no label. x is a tensor, or a dict of tensors by
    block; sparse blocks come dense. A DataLoader asks for whole batches at once."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed

    def __len__(self) -> int:
        return len(self.feed)

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        batch = self.feed.batch(list(indices))
        x = dense(batch.x)
        if isinstance(x, dict):
            blocks = {name: _tensors(block) for name, block in x.items()}
            rows: Sequence[Any] = [{name: block[i] for name, block in blocks.items()} for i in range(len(batch))]
        else:
            rows = _tensors(x)
        return list(rows) if batch.y is None else list(zip(rows, _tensors(batch.y), strict=True))


def _tensors(array: Any) -> Sequence[Any]:
    return torch.from_numpy(array).unbind()
