"""Formats: what a file's name says of its content, and what every format module offers.

``schema(file)``: names and types, from metadata or samples. ``cut(file, schema)``: its pieces, of a reasonable size.
``read(file, position, columns, schema)``: the rows of a piece. ``stream(file, columns, schema)``: record batches from
the beginning on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from h3lab.errors import DataError, UnknownName
from h3lab.source import PART_ROWS
from h3lab.sources.places import File

if TYPE_CHECKING:
    import pyarrow as pa

#: Bytes of a piece, decoded, where rows are large.
PART_BYTES = 64 << 20

#: Format → the module of this folder that reads it.
MODULES = {
    "parquet": "parquet",
    "csv": "text",
    "tsv": "text",
    "jsonl": "text",
    "arrow": "ipc",
    "npy": "npy",
    "npz": "npy",
}
_OF_FORMAT = {
    "parquet": "parquet pq parq",
    "csv": "csv",
    "tsv": "tsv tab",
    "jsonl": "jsonl ndjson json",
    "arrow": "arrow arrows ipc feather",
    "npy": "npy",
    "npz": "npz",
}
ENDINGS = {ending: name for name, endings in _OF_FORMAT.items() for ending in endings.split()}
COMPRESSED = {"gz": "gzip", "bz2": "bz2", "zst": "zstd", "lz4": "lz4"}


@dataclass(frozen=True)
class Piece:
    """Rows of one file: ``start`` (row number in the file), ``rows``, and a JSON-able ``position`` to read them by;
    ``bad``: how many more are left out."""

    start: int
    rows: int
    position: dict[str, Any]
    version: str
    bad: int = 0


@dataclass(frozen=True)
class Format:
    """A format by name, with the functions of its module; ``sifted``: those that leave bad rows out."""

    name: str
    sifted: bool = False

    def schema(self, file: File) -> pa.Schema:
        return self._function("schema")(file, self.name)

    def cut(self, file: File, schema: pa.Schema) -> Any:
        """A list of pieces; sifted, of each piece with its bad rows, one after another."""
        return self._function("cut")(file, self.name, schema)

    def read(self, file: File, position: Any, columns: Sequence[str], schema: pa.Schema) -> pa.Table:
        return self._function("read")(file, self.name, position, columns, schema)

    def stream(self, file: File, columns: Sequence[str], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        return self._function("stream")(file, self.name, columns, schema)

    def first(self, file: File, schema: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
        if MODULES[self.name] == "text":
            return self._function("first")(file, self.name, schema, rows)
        return self.stream(file, schema.names, schema)

    def _function(self, name: str) -> Callable[..., Any]:
        return getattr(import_module(f"h3lab.sources.{'sifted' if self.sifted else MODULES[self.name]}"), name)


def format_of(files: Sequence[File], format: str | None) -> Format:
    """The format that all files share; ``format`` wins over their names."""
    if format is not None:
        if format not in MODULES:
            raise UnknownName("format", format, MODULES)
        return Format(format)
    found = {file: ENDINGS.get(_ending(file.name)) for file in files}
    unknown = [file for file, name in found.items() if name is None]
    if unknown:
        raise DataError(
            f"{unknown[0].shown}: its name does not say what is in it. Known endings: {', '.join(ENDINGS)}; "
            f"for another name pass format=, one of {', '.join(MODULES)}."
        )
    names = sorted({str(name) for name in found.values()})
    if len(names) > 1:
        one = {name: next(file.name for file in files if found[file] == name) for name in names}
        raise DataError(f"files of several formats came: {one}. Read those of one format at a time.")
    squeezed = next((file for file in files if compression(file)), None)
    if squeezed is not None and MODULES[names[0]] != "text":
        raise DataError(
            f"{squeezed.shown}: {names[0]} compresses by itself, and is not read out of another compression."
        )
    return Format(names[0])


def compression(file: File) -> str | None:
    """How a file is compressed as a whole, by its name."""
    return COMPRESSED.get(file.name.lower().rpartition(".")[2])


def _ending(name: str) -> str:
    parts = name.lower().split(".")
    return parts[-2] if len(parts) > 2 and parts[-1] in COMPRESSED else parts[-1]


def rows_at_once(bytes_a_row: float) -> int:
    """Rows of a piece: the usual number, or fewer where rows are large. A power of two, so that it stays the same
    when the files grow a little."""
    rows = PART_ROWS
    while rows > 256 and rows * bytes_a_row > PART_BYTES:
        rows //= 2
    return rows


def runs(start: int, stop: int, length: int) -> Iterator[tuple[int, int]]:
    """``start`` to ``stop`` in runs of ``length``."""
    for begin in range(start, stop, length):
        yield begin, min(begin + length, stop)
