"""Landed: rows of a source, read once and put down as files, which all processes map: rows in memory, instead of each
process being sent a copy; and rows of a source that cannot say whether they have changed, as a database's, which are
then known by their content, read once instead of in each pass, and the same in all of them.

It knows Arrow files of one workroom; it is gone with it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from h3lab.errors import DamagedData
from h3lab.preparing.executor import Executor, Here, seeing
from h3lab.preparing.workroom import Shared, storage_error
from h3lab.serial.contents import column_digest
from h3lab.source import Part, Source

if TYPE_CHECKING:
    import pyarrow as pa

KEYS = "h3lab row key"
#: The share of a disk that is left free by rows which can be read again.
SPARE = 0.1
Progress = Callable[[str, int, int], None]


def in_memory(description: Any) -> bool:
    """Whether a source, by its description, has its rows in this process (or draws them from one that has)."""
    if not isinstance(description, dict):
        return False
    return description.get("kind") == "memory" or any(in_memory(value) for value in description.values())


class Landed(Source):
    """The same parts as another source, with the same keys. ``base``: that source, where it can be read again, which is
    done for parts that had no room on the disk."""

    numbered = False

    def __init__(
        self,
        folder: Path,
        schema: pa.Schema,
        parts: Sequence[Part],
        description: dict[str, Any],
        base: Source | None = None,
    ) -> None:
        self.folder, self._schema, self._parts, self._description = folder, schema, parts, description
        self.base = base

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    def parts(self) -> Sequence[Part]:
        return self._parts

    def read(self, part: Part, columns: Sequence[str] | None = None) -> pa.Table:
        """Some columns of a part; DamagedData where it is read again and has changed."""
        wanted = self.check(columns)
        if self.base is None or _file(self.folder, part).exists():
            return self._mapped(part).select(wanted)
        table = self.base.read(part, wanted)
        for name, column in zip(wanted, table.columns, strict=True):
            if column_digest(column) != part.contents[name]:
                raise DamagedData(
                    f"{self.base.title}, part {part.index} (rows from {part.start}): column {name!r} has changed since "
                    "the preparing began. Prepare again when nobody writes to it."
                )
        return table

    def keys(self, part: Part, table: pa.Table) -> np.ndarray:
        if self.base is None or _file(self.folder, part).exists():
            return np.asarray(self._mapped(part).column(KEYS).to_numpy())
        return self.base.keys(part, table)

    def describe(self) -> dict[str, Any]:
        return self._description

    def _mapped(self, part: Part) -> pa.Table:
        import pyarrow as pa

        with pa.memory_map(str(_file(self.folder, part))) as file:
            return pa.ipc.open_file(file).read_all()


def _file(folder: Path, part: Part) -> Path:
    return folder / f"rows-{part.index}.arrow"


def land(
    source: Source, columns: Sequence[str], folder: Path, executor: Executor, progress: Progress, by_content: bool
) -> Landed:
    """Read all parts once and put some of their columns down. ``by_content``: parts of which the source has no version
    get one from their rows and keys, and digests of their columns. Where that would fill the disk they are read again
    instead; rows in memory cannot be, so that is a StorageError."""
    import pyarrow as pa

    parts = list(source.parts())
    schema = pa.schema([source.schema.field(name) for name in columns])
    here = in_memory(source.describe())
    shared = Shared((source, columns, folder, by_content, here), folder / "land")
    found = []
    with closing((Here() if here else executor).map(_land, [(shared, part) for part in parts], "reading")) as done:
        for number, part in enumerate(done, 1):
            found.append(part)
            progress("reading", number, len(parts))
    return Landed(folder, schema, found, source.describe(), None if here else source)


def _land(task: tuple[Shared, Part]) -> Part:
    import pyarrow as pa

    (source, columns, folder, by_content, here), part = task[0].value, task[1]
    with seeing():
        table = source.read(part, list(columns))
    keyed = table.append_column(KEYS, pa.array(source.keys(part, table)))
    if here or part.version or _room_for(keyed.nbytes, folder):
        try:
            with pa.OSFile(str(_file(folder, part)), "wb") as file, pa.ipc.new_file(file, keyed.schema) as writer:
                writer.write_table(keyed)
        except OSError as error:
            raise storage_error(error, folder) from error
    if part.version or not by_content:
        return part
    contents = {name: column_digest(column) for name, column in zip(columns, keyed.columns)}
    contents[""] = column_digest(keyed.column(KEYS))
    return replace(part, rows=table.num_rows, version=f"content {contents['']}", contents=contents)


def _room_for(size: int, folder: Path) -> bool:
    disk = shutil.disk_usage(folder)
    return disk.free - size > SPARE * disk.total
