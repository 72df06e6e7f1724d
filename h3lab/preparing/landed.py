"""Landed: rows of a source in memory, put down as files once, so that other processes map them instead of each being
sent a copy.

It knows Arrow files of one workroom; it is gone with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from h3lab.preparing.workroom import storage_error
from h3lab.source import Part, Source

if TYPE_CHECKING:
    import pyarrow as pa

_KEYS = "h3lab row key"


def in_memory(description: Any) -> bool:
    """Whether a source, by its description, has its rows in this process (or draws them from one that has)."""
    if not isinstance(description, dict):
        return False
    return description.get("kind") == "memory" or any(in_memory(value) for value in description.values())


class Landed(Source):
    """The same parts as another source, with the same keys."""

    def __init__(self, folder: Path, schema: pa.Schema, parts: Sequence[Part], description: dict[str, Any]) -> None:
        self.folder, self._schema, self._parts, self._description = folder, schema, parts, description

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    def parts(self) -> Sequence[Part]:
        return self._parts

    def read(self, part: Part, columns: Sequence[str] | None = None) -> pa.Table:
        return self._mapped(part).select(self.check(columns))

    def keys(self, part: Part, table: pa.Table) -> np.ndarray:
        return np.asarray(self._mapped(part).column(_KEYS).to_numpy())

    def describe(self) -> dict[str, Any]:
        return self._description

    def _mapped(self, part: Part) -> pa.Table:
        import pyarrow as pa

        with pa.memory_map(str(_file(self.folder, part))) as file:
            return pa.ipc.open_file(file).read_all()


def _file(folder: Path, part: Part) -> Path:
    return folder / f"rows-{part.index}.arrow"


def land(source: Source, parts: Sequence[Part], columns: Sequence[str], folder: Path) -> Landed:
    """Put some columns of all parts down. StorageError where the disk is full."""
    import pyarrow as pa

    schema = pa.schema([source.schema.field(name) for name in columns])
    for part in parts:
        table = source.read(part, list(columns))
        keyed = table.append_column(_KEYS, pa.array(source.keys(part, table)))
        try:
            with pa.OSFile(str(_file(folder, part)), "wb") as file, pa.ipc.new_file(file, keyed.schema) as writer:
                writer.write_table(keyed)
        except OSError as error:
            raise storage_error(error, folder) from error
    return Landed(folder, schema, parts, source.describe())
