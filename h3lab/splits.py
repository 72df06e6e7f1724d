"""Splits: some rows of a source, drawn by key and seed, so that a row keeps its side when rows are added.

It knows draws and thresholds; it does not know files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from h3lab import worlds
from h3lab.errors import DataError, UsageError
from h3lab.source import Part, Source, fraction

if TYPE_CHECKING:
    import pyarrow as pa


class Split(Source):
    """One side of a split. ``test``: the share of the rows that are drawn for the test side, or for a split by
    classes the threshold of each. A part's position holds the part that it is drawn from."""

    def __init__(
        self,
        base: Source,
        side: str,
        test: float,
        seed: int,
        stratify: str | None = None,
        thresholds: Mapping[str, float] | None = None,
    ) -> None:
        self.base, self.side, self.test, self.seed = base, side, test, seed
        self.stratify, self.thresholds = stratify, dict(thresholds or {})
        self.numbered = base.numbered and stratify is None
        self.bounded, self.replayable, self.ordered = base.bounded, base.replayable, base.ordered

    @property
    def schema(self) -> pa.Schema:
        return self.base.schema

    def parts(self) -> Sequence[Part]:
        return list(self._once("parts", lambda: [self._part(part) for part in self.base.parts()]))

    def _part(self, part: Part) -> Part:
        rows = None
        if self.numbered and part.rows is not None:
            rows = int(self._mine(self.base.keys(part, _empty_rows(part.rows)), None).sum())
        drawn = f"{self.side} {self.test} {self.seed} {self.stratify} {sorted(self.thresholds.items())}"
        # A part whose version nobody knows stays one.
        version = f"{part.version}|{drawn}" if part.version else ""
        return replace(part, rows=rows, position=part.inside(), version=version)

    def read(self, part: Part, columns: Sequence[str] | None = None) -> pa.Table:
        wanted = self.check(columns)
        table, keys = self._drawn(part, wanted)
        self.__dict__["_known"] = {**self.__dict__.get("_known", {}), "keys": (part, keys)}
        return table.select(wanted)

    def _drawn(self, part: Part, wanted: Sequence[str]) -> tuple[pa.Table, np.ndarray]:
        """The rows of this side, of these columns at least, and their keys."""
        import pyarrow as pa

        below = _below(part)
        more = [self.stratify] if self.stratify is not None and self.stratify not in wanted else []
        # A table without columns forgets how many rows it has.
        table = self.base.read(below, [*wanted, *more] or self.columns[:1])
        keys = self.base.keys(below, table)
        mine = self._mine(keys, table)
        return table.filter(pa.array(mine)), keys[mine]

    def keys(self, part: Part, table: pa.Table) -> np.ndarray:
        known = self.__dict__.get("_known", {}).get("keys")
        if known is None or known[0] != part:
            below = _below(part)
            if self.numbered and below.rows is not None:
                keys = self.base.keys(below, _empty_rows(below.rows))
                return np.asarray(keys[self._mine(keys, None)])
            return self._drawn(part, [])[1]  # not by what is known: another thread may have read another part
        return np.asarray(known[1])

    def _mine(self, keys: np.ndarray, table: pa.Table | None) -> np.ndarray:
        limit: Any = self.test
        if self.stratify is not None and table is not None:
            codes, labels = _coded(table.column(self.stratify))
            limit = np.asarray([self.thresholds.get(label, self.test) for label in labels] or [0.0])[codes]
        return np.asarray((fraction(keys, self.seed) < limit) == (self.side == "test"))

    def describe(self) -> dict[str, Any]:
        own = {"side": self.side, "test": self.test, "seed": self.seed}
        if self.stratify is not None:
            own |= {"stratify": self.stratify, "thresholds": self.thresholds}
        return {"kind": "split", "of": self.base.describe(), **own}

    @property
    def title(self) -> str:
        how = f", stratified by {self.stratify}" if self.stratify is not None else ""
        return f"{self.side} rows of {self.base.title} (split {self.test}, seed {self.seed}{how})"

    def size(self) -> str:
        return super().size() if self.numbered and " rows" in self.base.size() else ""


def check_draw(name: str, fraction: Any, seed: Any) -> None:
    """UsageError for a fraction or a seed that nothing can be drawn by. ``name``: the fraction's argument."""
    if not isinstance(fraction, int | float | np.number) or not 0 < fraction < 1:
        raise UsageError(f"{name}={fraction!r} came; expected a fraction between 0 and 1, for example {name}=0.2.")
    if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        raise UsageError(f"seed={seed!r} came; expected a whole number from 0 on, for example seed=0.")


def split(source: Source, test: float, seed: int, stratify: str | None) -> tuple[Split, Split]:
    """See :meth:`Source.split`."""
    check_draw("test", test, seed)
    thresholds = None
    if stratify is not None:
        source.check([stratify])
        thresholds = _thresholds(source, test, seed, stratify)
    train, held = (Split(source, side, float(test), seed, stratify, thresholds) for side in ("train", "test"))
    _check_sides(train, held)
    return train, held


def _check_sides(train: Split, held: Split) -> None:
    """DataError where a side is empty; looks at parts only until both have a row."""
    found, rows = {"train": False, "test": False}, 0
    for part in train.base.parts():
        if part.rows is not None and train.numbered:
            keys, table = train.base.keys(part, _empty_rows(part.rows)), None
        else:
            table = train.base.read(part, [train.stratify or train.columns[0]])
            keys = train.base.keys(part, table)
        rows += len(keys)
        for side in (train, held):
            found[side.side] |= bool(side._mine(keys, table).any())
        if all(found.values()):
            return
    empty = " and ".join(side for side, some in found.items() if not some)
    raise DataError(
        f"a split with test={held.test} and seed={held.seed} leaves {empty} without a row ({rows} rows in all). "
        "Take another test or seed, or more rows."
    )


def _thresholds(source: Source, test: float, seed: int, column: str) -> dict[str, float]:
    """For each class the number below which its draws lie in the test side: those of round(test · rows) rows."""
    draws: dict[str, list[np.ndarray]] = {}
    for part in source.parts():
        table = source.read(part, [column])
        drawn = fraction(source.keys(part, table), seed)
        codes, labels = _coded(table.column(column))
        for code, label in enumerate(labels):
            draws.setdefault(label, []).append(drawn[codes == code])
    found = {}
    for label, pieces in draws.items():
        ordered = np.sort(np.concatenate(pieces))
        count = int(test * len(ordered) + 0.5)
        found[label] = float(ordered[count]) if count < len(ordered) else 1.0
    return found


def _coded(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """Codes of the classes of a column, and the classes as text, which JSON can hold whatever they are."""
    import pyarrow.types as t

    if t.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    coded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    return coded.indices.to_numpy(), [str(value) for value in coded.dictionary.to_pylist()]


def _below(part: Part) -> Part:
    return Part(**part.position["of"])


def _empty_rows(rows: int) -> pa.Table:
    """A table that knows only how many rows it has."""
    import pyarrow as pa

    return pa.table({"": pa.nulls(rows)})


def reopen(description: Mapping[str, Any]) -> Split:
    """The inverse of ``describe``."""
    own = {name: description.get(name) for name in ("stratify", "thresholds")}
    base = worlds.reopen(description["of"])
    return Split(base, description["side"], description["test"], description["seed"], **own)
