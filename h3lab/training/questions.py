"""Questions: a function or a service asked for the probabilities of raw rows, some at a time; what it has answered is
kept until all is there.

It knows what such a teacher is given and has to give back; it does not know feeds or losses.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from h3lab.batch import rows_of, take
from h3lab.errors import DataError, ModelError, SpecMismatch
from h3lab.home import replace_file
from h3lab.spec import Spec

#: Rows that a function is given at a time: what is asked again after a failure.
ROWS_AT_A_TIME = 1024

#: Answers of questions that were broken off, by what was asked.
_BROKEN_OFF: dict[Any, dict[int, np.ndarray]] = {}


class Questions:
    """``function(rows)`` asked for ``total`` rows in all. ``key``: the same for the same function and rows; ``folder``:
    where answers are kept until :meth:`settle`, None for this process alone."""

    def __init__(
        self, function: Callable[[Any], Any], spec: Spec, clip: float, total: int, key: Any, folder: Path | None
    ) -> None:
        self._function, self._spec, self._clip, self._total = function, spec, clip, total
        # The function itself where nothing tells it from others: alive as long as its answers, and no longer.
        self._key = (function, total) if key is None else key
        self._folder, self._number, self._answered = folder, 0, 0

    def __call__(self, rows: Any) -> np.ndarray:
        """(rows, outputs) logits or predictions of a DataFrame, or of prepared rows where there are no raw ones."""
        count = len(rows) if hasattr(rows, "iloc") else rows_of(rows)
        starts = range(0, count, ROWS_AT_A_TIME)
        return np.concatenate([self._piece(_some(rows, slice(at, at + ROWS_AT_A_TIME))) for at in starts])

    def settle(self) -> None:
        """All is answered and kept elsewhere."""
        _BROKEN_OFF.pop(self._key, None)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _piece(self, rows: Any) -> np.ndarray:
        number, count = self._number, len(rows) if hasattr(rows, "iloc") else rows_of(rows)
        found = self._kept(number)
        if found is None or len(found) != count:
            found = self._asked(rows, count)
            self._keep(number, found)
        self._number, self._answered = number + 1, self._answered + count
        return found

    def _asked(self, rows: Any, count: int) -> np.ndarray:
        try:
            given = self._function(rows)
        except Exception as error:  # whatever a service's client raises
            kept = f"{self._answered:,} of {self._total:,} rows are answered and kept" if self._answered else "none yet"
            again = "; train again, and it is asked for the rest alone" if self._answered else ""
            raise ModelError(
                f"the teacher's function failed: {type(error).__name__}: {error} ({kept}{again}). It is called as "
                f"f(raw rows) -> (rows, outputs), with up to {ROWS_AT_A_TIME:,} rows at a time."
            ) from error
        values = by_name(given, self._spec)
        if self._spec.task == "regression":
            return _regressed(values, count, self._spec)
        if values.shape != (count, self._spec.classes):
            raise SpecMismatch(
                f"the teacher's function returned shape {values.shape} for {count} rows; expected ({count}, "
                f"{self._spec.classes}): a probability for each of {self._spec.labels}, in this order, or a DataFrame "
                "or dicts with these names."
            )
        lost = int((~np.isfinite(values)).any(axis=1).sum())
        if lost:
            raise DataError(f"the teacher's answers to {lost} of {count} rows are not finite.")
        bad = np.flatnonzero(~((values >= 0).all(axis=1) & (np.abs(values.sum(axis=1) - 1) <= 1e-3)))
        if len(bad):
            raise DataError(
                f"the teacher's function returned {len(bad)} of {count} rows that do not sum to one (the first is row "
                f"{bad[0]}: {np.round(values[bad[0]], 4).tolist()}), so they are no probabilities. If they are logits, "
                "return scipy.special.softmax(logits, axis=1)."
            )
        return np.asarray(np.log(np.clip(values, self._clip, None)))

    def _kept(self, number: int) -> np.ndarray | None:
        found = _BROKEN_OFF.get(self._key, {}).get(number)
        file = None if self._folder is None else self._folder / f"{number}.npy"
        if found is None and file is not None and file.exists():
            found = np.load(file, allow_pickle=False)
        return found

    def _keep(self, number: int, values: np.ndarray) -> None:
        _BROKEN_OFF.setdefault(self._key, {})[number] = values
        if self._folder is not None:
            buffer = io.BytesIO()
            np.save(buffer, values, allow_pickle=False)
            self._folder.mkdir(parents=True, exist_ok=True)
            replace_file(self._folder / f"{number}.npy", buffer.getvalue())


def _some(rows: Any, cut: slice) -> Any:
    return rows.iloc[cut].reset_index(drop=True) if hasattr(rows, "iloc") else take(rows, cut)


def by_name(given: Any, spec: Spec) -> np.ndarray:
    """A teacher's answers as floats, columns in the order of ``spec.labels``: those of a DataFrame and of dicts are
    matched by name (as text), those of an array stand in that order already."""
    if isinstance(given, list) and given and all(isinstance(each, Mapping) for each in given):
        names: list[Any] = list(dict.fromkeys(name for each in given for name in each))
        given = {name: [each.get(name, 0.0) for each in given] for name in names}
    named = given if isinstance(given, Mapping) else None
    if hasattr(given, "columns") and hasattr(given, "iloc"):
        named = {name: given[name].to_numpy() for name in given.columns}
    if named is not None and spec.labels is not None:
        columns = {str(name): values for name, values in named.items()}
        wanted = [str(label) for label in spec.labels]
        if columns.keys() != set(wanted):
            raise SpecMismatch(
                f"the teacher's function answers for {', '.join(columns)}; the classes are {', '.join(wanted)}. Give "
                "each of them a probability, and no other."
            )
        given = np.column_stack([np.asarray(columns[name]) for name in wanted])
    try:
        return np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"the teacher's function returned a {type(given).__name__} that is no array of numbers ({error}); expected "
            f"(rows, {spec.outputs}), or dicts from class to probability."
        ) from error


def _regressed(values: np.ndarray, count: int, spec: Spec) -> np.ndarray:
    if values.shape not in ((count, spec.outputs), (count,) if spec.outputs == 1 else ()):
        raise SpecMismatch(
            f"the teacher's function returned shape {values.shape} for {count} rows; expected "
            f"({count}, {spec.outputs})."
        )
    return values.reshape(count, -1)
