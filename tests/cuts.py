"""A source that a test cuts where it likes, and an executor that pickles, as a cluster does."""

import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from h3lab.source import Part, Source


class CutSource(Source):
    """The rows of a table in parts that begin at ``cuts``; equal neighbours make an empty part."""

    def __init__(self, table: Any, cuts: Sequence[int] = (), version: str = "") -> None:
        table = table if isinstance(table, pa.Table) else pa.Table.from_pandas(table, preserve_index=False)
        self.table = table.replace_schema_metadata(None)
        self.bounds = [0, *sorted(cuts), self.table.num_rows]
        self.versions = [version] * (len(self.bounds) - 1)

    @property
    def schema(self) -> pa.Schema:
        return self.table.schema

    def parts(self) -> list[Part]:
        spans = zip(self.bounds, self.bounds[1:], strict=False)
        return [Part(i, b - a, "rows", a, {"from": a}, self.versions[i]) for i, (a, b) in enumerate(spans)]

    def read(self, part: Part, columns: Sequence[str] | None = None) -> pa.Table:
        table = self.table.slice(part.start, part.rows)
        return table if columns is None else table.select(columns)

    def describe(self) -> dict[str, Any]:
        return {"kind": "cut", "rows": self.table.num_rows}


class Pickling:
    """Runs tasks in this process, but sends functions, tasks and results through pickle, as other processes would
    get them; remembers how many bytes went through."""

    width = 2
    local = False

    def __init__(self) -> None:
        self.bytes = 0

    def map(
        self, function: Callable[[Any], Any], tasks: Sequence[Any], label: str = "", alike: bool = True
    ) -> Iterator[Any]:
        for task in tasks:
            call, given = self._sent((function, task))
            yield self._sent(call(given))

    def _sent(self, value: Any) -> Any:
        data = pickle.dumps(value)
        self.bytes += len(data)
        return pickle.loads(data)
