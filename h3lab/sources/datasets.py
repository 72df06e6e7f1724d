"""Examples: the rows of a torch Dataset or DataLoader, asked of it by number; images keep their shape.

It knows what such objects answer; it imports torch only for what the user's own object was made with.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from h3lab.errors import DataError, UsageError
from h3lab.memory import free_memory
from h3lab.source import PART_ROWS, Part, Source
from h3lab.sources.frames import NAME
from h3lab.sources.tables import columns_of, table_of

if TYPE_CHECKING:
    import pyarrow as pa

#: Rows that are asked for and stacked at a time.
ROWS_AT_A_TIME = 1024
_PART_BYTES = 64 << 20
#: Names under which the label of a row that is a dict usually stands.
_LABELS = ("y", "label", "labels", "target", "targets")


class Examples(Source):
    """Rows (x, y), x alone, or dicts. ``indices``: the rows of it that count, None for all; ``collate``: what makes
    arrays of a list of rows. A Dataset without numbers is read once, into memory."""

    def __init__(self, dataset: Any, indices: Sequence[int] | None = None, collate: Callable[..., Any] | None = None):
        self.dataset, self.indices, self._collate = dataset, indices, collate
        self._streams = _streams(dataset)
        if not self._streams and indices is None:
            try:
                self.indices = range(len(dataset))
            except TypeError as error:
                raise UsageError(
                    f"the {type(dataset).__name__} has no length, so its rows cannot be asked for by number. Give it "
                    "__len__, or make it an IterableDataset."
                ) from error
        if not self._streams and not len(self.indices or ()):
            raise DataError(f"the {type(dataset).__name__} has no rows.")

    @property
    def schema(self) -> pa.Schema:
        return self._once("schema", lambda: table_of(self._some(0, 1)).schema)

    def parts(self) -> Sequence[Part]:
        if self._streams:
            rows, each = len(_any(self._streamed())), PART_ROWS
        else:
            rows = len(self.indices or ())
            size = sum(array.nbytes for array in self._some(0, 1).values() if array.dtype.kind != "O")
            each = max(1, min(PART_ROWS, _PART_BYTES // max(1, size)))
        starts = range(0, rows, each)
        # What it would answer today nobody knows without asking, so a part has no version.
        return [Part(i, min(each, rows - at), NAME, at) for i, at in enumerate(starts)]

    def read(self, part: Part, columns: Sequence[str] | None = None) -> pa.Table:
        return columns_of(self._some(part.start, part.start + (part.rows or 0)), self.check(columns))

    def first(self, rows: int) -> pa.Table:
        return table_of(self._some(0, max(1, rows))).slice(0, rows)

    def arrays(self) -> dict[str, np.ndarray]:
        """All rows, each column whole; DataError before it takes more memory than there is."""
        if self._streams:
            return self._streamed()
        one, rows = self._some(0, 1), len(self.indices or ())
        size = rows * sum(array.nbytes for array in one.values())
        if size > free_memory() / 2:
            raise DataError(
                f"{rows:,} rows of {self.title} take {size / 2**30:.1f} GiB, more than half of the memory that is "
                "free. Prepare them part by part instead: lab.prepare(h3.Pipeline(h3.Preprocessor('x', 'x'), "
                "label='y'), dataset)."
            )
        return self._some(0, rows)

    def describe(self) -> dict[str, Any]:
        return {"kind": "memory", "what": self.title}

    @property
    def title(self) -> str:
        return f"a torch {type(self.dataset).__name__}"

    @property
    def notes(self) -> list[str]:
        return ["read once, and kept in memory"] if self._streams else []

    def _some(self, start: int, stop: int) -> dict[str, np.ndarray]:
        if self._streams:
            return {name: array[start:stop] for name, array in self._streamed().items()}
        wanted = (self.indices or ())[start:stop]
        cuts = range(0, len(wanted), ROWS_AT_A_TIME)
        return _joined([self._stacked(self._asked(wanted[at : at + ROWS_AT_A_TIME])) for at in cuts])

    def _asked(self, numbers: Sequence[int]) -> list[Any]:
        several = getattr(self.dataset, "__getitems__", None)
        found, where = [], f"rows from {numbers[0]} on"
        try:
            if callable(several):
                return list(several(list(numbers)))
            for number in numbers:
                where = f"row {number}"
                found.append(self.dataset[number])
        except Exception as error:  # whatever the user's own code raises
            raise DataError(f"{where} of {self.title} could not be read: {type(error).__name__}: {error}") from error
        return found

    def _streamed(self) -> dict[str, np.ndarray]:
        return self._once("streamed", self._stream)

    def _stream(self) -> dict[str, np.ndarray]:
        rows, pieces, size, limit = iter(self.dataset), [], 0, free_memory() / 2
        while piece := list(itertools.islice(rows, ROWS_AT_A_TIME)):
            pieces.append(self._stacked(piece))
            size += sum(array.nbytes for array in pieces[-1].values())
            if size > limit:
                raise DataError(
                    f"{self.title} has more rows than half of the free memory holds ({limit / 2**30:.1f} GiB), or no "
                    "end. Take a piece of it: itertools.islice in its __iter__, or a Dataset with numbers."
                )
        if not pieces:
            raise DataError(f"{self.title} has no rows.")
        return _joined(pieces)

    def _stacked(self, rows: list[Any]) -> dict[str, np.ndarray]:
        from torch.utils.data import default_collate

        try:
            made = (self._collate or default_collate)(rows)
        except (TypeError, RuntimeError, ValueError, KeyError) as error:
            hint = "have different shapes, or are no numbers"
            if isinstance(error, KeyError):
                hint = "are dicts with different names"
            if "PIL" in str(error):
                hint = "are pictures, not numbers: give the Dataset transform=torchvision.transforms.ToTensor()"
            raise DataError(f"rows of {self.title} cannot be stacked; they {hint} ({error}).") from error
        found = {name: _array(value, name) for name, value in self._named(made).items()}
        for name, array in found.items():
            if array.ndim == 0 or len(array) != len(rows):
                raise DataError(
                    f"collate_fn made {name!r} of shape {array.shape} of {len(rows)} rows; one row for each is needed."
                )
        return found

    def _named(self, made: Any) -> dict[str, Any]:
        if isinstance(made, Mapping):
            return {str(name): value for name, value in made.items()}
        if not isinstance(made, (list, tuple)):
            return {"x": made}
        if len(made) != 2 or isinstance(made[0], (list, tuple)) or isinstance(made[1], (Mapping, list)):
            what = [type(each).__name__ for each in made]
            # Words of a label come as a list of text, which is a column like any other.
            if not (len(made) == 2 and isinstance(made[1], list) and made[1] and isinstance(made[1][0], str)):
                raise UsageError(
                    f"a row of {self.title} has {len(made)} values ({', '.join(what)}); expected (x, y), or a dict "
                    "with a name for each value."
                )
        x, y = made
        return {**(x if isinstance(x, Mapping) else {"x": x}), "y": y}


def examples(what: Any) -> Examples | None:
    """The source of a torch Dataset or DataLoader; None for anything else. UsageError for a loader with a sampler that
    cannot be kept."""
    kinds = {(base.__module__, base.__name__) for base in type(what).__mro__}
    if ("torch.utils.data.dataloader", "DataLoader") in kinds:
        return _of_loader(what)
    return Examples(what) if ("torch.utils.data.dataset", "Dataset") in kinds else None


def pair(what: Any, batch_size: int | None = None) -> tuple[Any, np.ndarray | None]:
    """(X, y) of a torch Dataset or DataLoader, or of their source, for a model without a pipeline: X an array, or a
    dict of them. ``batch_size``: that of a training, which is told where a loader has another."""
    source = what if isinstance(what, Examples) else examples(what)
    assert source is not None
    if batch_size is not None:
        _tell(what, batch_size)
        _tell_of_chance(source)
    found = source.arrays()
    names = list(found)
    labels = [name for name in _LABELS if name in found]
    y = found.pop(labels[0]) if len(labels) == 1 else None
    if not found or len(labels) > 1:
        raise UsageError(
            f"rows of {source.title} have the columns {', '.join(names)}, and which of them is the label "
            "is not clear. Name it: h3.Actor(name, model, h3.Pipeline(h3.Preprocessor('x', ...), label=...))."
        )
    blocks = {name: array.reshape(-1, 1) if array.ndim == 1 else array for name, array in found.items()}
    return (blocks if len(blocks) > 1 else _any(found)), y


def _of_loader(loader: Any) -> Examples:
    from torch.utils.data import SequentialSampler, SubsetRandomSampler, default_collate

    if loader.batch_sampler is None:
        raise UsageError(
            "a DataLoader with batch_size=None came, whose Dataset makes batches itself. Give a Dataset of rows."
        )
    collate = None if loader.collate_fn is default_collate else loader.collate_fn
    if _streams(loader.dataset):
        return Examples(loader.dataset, None, collate)
    sampler, own = loader.sampler, type(loader.batch_sampler).__name__ != "BatchSampler"
    if isinstance(sampler, SubsetRandomSampler) and not own:
        return Examples(loader.dataset, sorted(int(index) for index in sampler.indices), collate)
    plain = isinstance(sampler, SequentialSampler) or _permutes(sampler, loader.dataset)
    if not plain or own:
        name = type(loader.batch_sampler if own else sampler).__name__
        raise UsageError(
            f"the DataLoader has a {name}, which h3lab cannot follow: it cuts, shuffles and shares batches itself. "
            "Give its Dataset (loader.dataset); a torch.utils.data.Subset of it for some rows; class_weight='balanced' "
            "or (X, y, weight) for weighted ones; ranks=... for several processes."
        )
    return Examples(loader.dataset, None, collate)


def _streams(dataset: Any) -> bool:
    # An IterableDataset inherits a __getitem__ that only raises.
    kinds = {base.__name__ for base in type(dataset).__mro__}
    return "IterableDataset" in kinds or not hasattr(dataset, "__getitem__")


def _permutes(sampler: Any, dataset: Any) -> bool:
    from torch.utils.data import RandomSampler

    return isinstance(sampler, RandomSampler) and not sampler.replacement and sampler.num_samples == len(dataset)


def _tell(loader: Any, batch_size: int) -> None:
    """Say what of a loader is h3lab's own here, where that makes a difference."""
    if not hasattr(loader, "batch_sampler"):
        return
    differs = [f"batch_size={loader.batch_size}"] if loader.batch_size != batch_size else []
    differs += ["shuffle=False"] if type(loader.sampler).__name__ == "SequentialSampler" else []
    differs += ["drop_last=True"] if loader.drop_last else []
    if differs:
        warnings.warn(
            f"{', '.join(differs)} of the DataLoader {'is' if len(differs) == 1 else 'are'} not used: a training cuts "
            f"its own batches, here of {batch_size} rows, in an order drawn from its seed. For another size say "
            f"batch_size={loader.batch_size}.",
            stacklevel=3,
        )


def _tell_of_chance(source: Examples) -> None:
    if source._streams:
        return
    first, again = source._some(0, 1), source._some(0, 1)
    if any(not np.array_equal(array, again[name]) for name, array in first.items()):
        warnings.warn(
            f"{source.title} answers its first row differently each time (a random transform?). Its rows are read "
            "once, and every epoch sees the same: put what is random into the module's forward, where self.training.",
            stacklevel=3,
        )


def _array(value: Any, name: str) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        try:
            value = value.numpy()
        except TypeError:  # bfloat16 and its like, which NumPy does not have; float32 holds their values
            value = value.float().numpy()
    array = np.asarray(value)
    if array.dtype.kind == "O":
        raise DataError(f"{name!r} of a row is {type(value).__name__}, which is no number, text or array of numbers.")
    return array


def _joined(pieces: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    try:
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    except (ValueError, KeyError) as error:
        raise DataError(f"rows have different shapes or names: {error}. Pad them in the Dataset.") from error


def _any(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    return next(iter(arrays.values()))
