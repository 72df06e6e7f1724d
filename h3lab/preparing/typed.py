"""Typed: what is known of prepared rows by the types of their columns alone, before there are any.

Rows are made up twice, few and more; a block that is as wide for both has a width that its rows do not decide. It knows
types and blocks; what a sample of true rows says is in ``outlook``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from h3lab.errors import H3labError, UsageError
from h3lab.pipeline import Pipeline
from h3lab.preparing import chain
from h3lab.preparing.growing import check_kinds, sees_labels
from h3lab.preparing.labels import is_float
from h3lab.preparing.prepare import check_names, prepare
from h3lab.preprocessor import Preprocessor
from h3lab.spec import Block, Spec, Task

if TYPE_CHECKING:
    import pyarrow as pa

#: Rows that are made up, no two alike: enough for 128 components of a projection, and fewer than categories are usual.
FEW, MORE = 150, 300


@dataclass(frozen=True)
class Typed:
    """``blocks`` by name, or in words why one is not known; ``task``; ``spec``, None where anything of it is not known
    before rows are seen."""

    blocks: Mapping[str, Block | str]
    task: Task
    spec: Spec | None


def schema_of(given: Any) -> pa.Schema | None:
    """An Arrow schema as it is; several in a dict as the one that joined rows would have; None for anything else."""
    import pyarrow as pa

    if isinstance(given, pa.Schema):
        return given
    if not isinstance(given, Mapping) or not any(isinstance(one, pa.Schema) for one in given.values()):
        return None
    if not all(isinstance(one, pa.Schema) for one in given.values()):
        kinds = {name: type(one).__name__ for name, one in given.items()}
        raise UsageError(f"schemas and other sources came together: {kinds}. Give the schema of each: source.schema.")
    first = next(iter(given))
    fields = [(f if name == first else f.with_name(f"{name}.{f.name}")) for name, one in given.items() for f in one]
    return pa.schema(fields)


def typed(pipeline: Pipeline, schema: pa.Schema) -> Typed:
    """Of a pipeline for rows of a schema. UnknownName and DataError for a column that is not there, or of a type that
    its worker does not take, as ``prepare`` raises them."""
    check_names(pipeline, schema.names)
    if pipeline.fitted:
        return Typed(pipeline.spec.blocks, pipeline.spec.task, pipeline.spec)
    blocks = {block.name: _block(pipeline, block, schema) for block in pipeline.preprocessors}
    task = _task(pipeline, schema)
    known = {name: block for name, block in blocks.items() if isinstance(block, Block)}
    if len(known) < len(blocks) or (pipeline.label is not None and task == "classification"):
        return Typed(blocks, task, None)
    features = sum(int(np.prod(block.shape)) for block in known.values())
    shape = next(iter(known.values())).shape if len(known) == 1 and pipeline.join == "concat" else (features,)
    return Typed(blocks, task, Spec(task, features, shape, int(pipeline.label is not None), None, None, known))


def _task(pipeline: Pipeline, schema: pa.Schema) -> Task:
    if pipeline.task is not None or pipeline.label is None:
        return pipeline.task or "regression"
    return "regression" if is_float(schema.field(pipeline.label).type) else "classification"


def _block(pipeline: Pipeline, block: Preprocessor, schema: pa.Schema) -> Block | str:
    made = [_prepared(pipeline, block, schema, rows) for rows in (FEW, MORE)]
    for one in made:
        if isinstance(one, str):
            return one
    few, more = made
    return more if few == more else "its columns depend on the rows"


def _prepared(pipeline: Pipeline, block: Preprocessor, schema: pa.Schema, rows: int) -> Any:
    """The block of so many rows that are made up, or why there is none."""
    import pyarrow as pa

    try:
        columns = {name: _made_up(schema.field(name).type, rows) for name in block.names}
    except (pa.ArrowException, TypeError, ValueError) as error:
        return f"no rows could be made up for it ({error})"
    table = pa.table(columns).rename_columns(block.bare)
    alone = Preprocessor(block.name, block.columns, *block.workers)
    for worker in alone.workers[:1]:
        for x in chain.inputs_of(worker, alone.cells(table)):
            check_kinds(worker, x, f"block {block.name!r}")
    label = None
    if any(sees_labels(worker) for worker in block.workers) and pipeline.label is not None:
        label, task = "label of the rows", _task(pipeline, schema)
        table = table.append_column(label, [np.arange(rows) / rows if task == "regression" else np.arange(rows) % 3])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            of = Pipeline(alone, label=label, task=pipeline.task, dtype=pipeline.dtype, seed=pipeline.seed)
            return prepare(of, table).spec.blocks[block.name]
    except H3labError:  # true rows may suit it: a vocabulary of certain words, more components than these rows have
        return "rows that were made up do not suit it"


def _made_up(type_: pa.DataType, rows: int) -> pa.Array:
    """Values of a type, as many as rows, no two alike where the type has so many."""
    import pyarrow as pa
    import pyarrow.types as t

    count = np.arange(1, rows + 1)
    if t.is_null(type_):
        raise ValueError("a column of no type")
    if hasattr(type_, "storage_type"):
        return pa.ExtensionArray.from_storage(type_, _made_up(type_.storage_type, rows))
    if t.is_fixed_size_list(type_):
        return pa.FixedSizeListArray.from_arrays(_made_up(type_.value_type, rows * type_.list_size), type_.list_size)
    if t.is_dictionary(type_):
        return _made_up(type_.value_type, rows).dictionary_encode()
    if t.is_string(type_) or t.is_large_string(type_) or t.is_string_view(type_):
        return pa.array([f"word{n} common" for n in count], type_)
    if t.is_boolean(type_):
        return pa.array(count % 2 == 1)
    if t.is_integer(type_) and type_.bit_width == 8:
        return pa.array(count % 128).cast(type_)
    if t.is_decimal(type_):
        return pa.array([Decimal(n % 100).scaleb(-type_.scale) for n in count.tolist()], type_)
    # Days and times of the day are whole numbers of four bytes, what else is a time has eight.
    return pa.array(count.astype(np.int32 if t.is_date32(type_) or t.is_time32(type_) else np.int64)).cast(type_)
