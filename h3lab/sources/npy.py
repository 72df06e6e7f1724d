"""NumPy files: ``.npy`` (columns x0, x1, ...) and ``.npz`` (a column, or several, for each array of equal length).

A ``.npz`` is compressed as a whole, so each process that reads it holds its arrays in memory.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa

from h3lab.errors import DamagedData, DataError
from h3lab.sources.formats import Piece, rows_at_once, runs
from h3lab.sources.places import File
from h3lab.sources.tables import columns_of, table_of

_HEAD = 1 << 16


def _headers(file: File, kind: str) -> dict[str, tuple[tuple[int, ...], bool, np.dtype, int]]:
    """Array → shape, whether in Fortran order, type, and the byte where its numbers begin."""
    if kind == "npy":
        return {"x": _header(BytesIO(file.bytes(0, _HEAD)))}
    with file.open() as source, zipfile.ZipFile(source) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        found = {}
        for name in names:
            with archive.open(name) as member:
                found[name[:-4]] = _header(member)
    return found


def _header(opened: Any) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    version = np.lib.format.read_magic(opened)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = reader(opened)
    return shape, fortran, dtype, opened.tell()


def _checked(file: File, kind: str) -> dict[str, tuple[tuple[int, ...], bool, np.dtype, int]]:
    found = _headers(file, kind)
    for name, (shape, _, dtype, _) in found.items():
        if dtype.hasobject:
            raise DataError(f"{file.shown}: array {name!r} holds Python objects, which are never unpickled. Save text "
                            "with .astype(str), or use Parquet.")  # fmt: skip
        if not shape:
            raise DataError(f"{file.shown}: array {name!r} is a single value; rows were expected.")
    lengths = {name: shape[0] for name, (shape, *_) in found.items()}
    if not found:
        raise DamagedData("it holds no arrays")
    if len(set(lengths.values())) != 1:
        raise DataError(
            f"{file.shown}: its arrays have different numbers of rows: {lengths}. Load it and pass those that belong "
            'together: data = numpy.load(...); h3.read((data["..."], data["..."])).'
        )
    return found


def schema(file: File, kind: str) -> pa.Schema:
    """From the arrays' headers."""
    empty = {name: np.empty((0, *shape[1:]), dtype) for name, (shape, _, dtype, _) in _checked(file, kind).items()}
    return table_of(empty).schema


def cut(file: File, kind: str, schema: pa.Schema) -> list[Piece]:
    """Runs of rows."""
    headers = _checked(file, kind)
    rows = next(iter(headers.values()))[0][0]
    size = sum(dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64)) for shape, _, dtype, _ in headers.values())
    version = file.version
    return [Piece(low, high - low, {"rows": [low, high]}, version) for low, high in runs(0, rows, rows_at_once(size))]


def read(file: File, kind: str, position: Any, columns: Sequence[str], schema: pa.Schema) -> pa.Table:
    """The rows of a piece."""
    low, high = position["rows"]
    return columns_of(_slices(file, kind, low, high), columns)


def _slices(file: File, kind: str, low: int, high: int) -> dict[str, np.ndarray]:
    if kind == "npy":
        shape, fortran, dtype, begin = _headers(file, kind)["x"]
        if not fortran:
            row = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
            data = file.bytes(begin + low * row, begin + high * row)
            if len(data) != (high - low) * row:
                raise DamagedData(f"it ends at byte {begin + low * row + len(data)}, rows were to go on")
            return {"x": np.frombuffer(data, dtype).reshape(high - low, *shape[1:])}
    return {name: array[low:high] for name, array in _whole(file, kind, file.version).items()}


@lru_cache(maxsize=2)
def _whole(file: File, kind: str, version: str) -> dict[str, np.ndarray]:
    with file.open() as source:
        loaded = np.load(BytesIO(source.read()), allow_pickle=False)
        if kind == "npy":
            return {"x": loaded}
        return {name: loaded[name] for name in loaded.files}


def stream(file: File, kind: str, columns: Sequence[str], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """From the first row on."""
    for piece in cut(file, kind, schema):
        yield from read(file, kind, piece.position, columns, schema).to_batches()
