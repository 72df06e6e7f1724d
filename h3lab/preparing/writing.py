"""Writing: one part, prepared by the fitted pipeline and stored; blocks that have not changed are taken from its stored
rows.

It knows one part; which of its blocks have not changed is in ``reuse``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from h3lab import worlds
from h3lab.feeds.manifest import identity
from h3lab.feeds.rows import is_sparse
from h3lab.preparing import chain
from h3lab.preparing.executor import seen
from h3lab.preparing.heap import give_back
from h3lab.preparing.passes import Job, climb, nulls_of, read
from h3lab.preparing.remembered import WRITTEN
from h3lab.preparing.workroom import Shared

if TYPE_CHECKING:
    import pyarrow as pa


def write(task: tuple[Shared, int]) -> dict[str, Any]:
    """Prepare one part by the fitted pipeline. With a store: its entry; without: the ``batch`` itself."""
    (job, reuse), number = task[0].value, task[1]
    started = time.perf_counter()
    store = None if job.store is None else worlds.load("h3lab.stores:open_store")(job.store)
    changed = [block for block in job.pipeline.preprocessors if block.name not in reuse.same.get(number, ())]
    table, keys, dropped = read(job, job.parts[number], changed if number in reuse.entries else None)
    same = {} if store is None else reuse.blocks(store, job, number, table.num_rows)
    if number in reuse.entries and not same:  # its rows are not those that were stored
        table, keys, dropped = read(job, job.parts[number])
    found: dict[str, Any] = {"rows": table.num_rows, "dropped": dropped, "blocks": {}}
    found["nulls"] = {**(reuse.seen[number].get("nulls", {}) if same else {}), **nulls_of(table)}
    used = table.nbytes
    if table.num_rows:
        blocks = {
            block.name: _again(same[block.name], reuse.seen[number], block.name, found)
            if block.name in same
            else _finished(job, block, table, number, found)
            for block in job.pipeline.preprocessors
        }
        table = table.select([name for name in (job.pipeline.label, job.pipeline.weight) if name in table.column_names])
        batch = job.pipeline.joined(blocks, table, keys)
        del blocks, same
        if store is None:
            found["batch"] = batch
        else:
            seen(job.store)
            found["entry"] = store.write(f"{number:05d}", batch)
        del batch
    give_back(used)
    found["seconds"] = round(time.perf_counter() - started, 4)
    if job.memory is not None and WRITTEN in job.marks and job.parts[number].version:
        job.memory.keep(job.marks[WRITTEN], identity(job.parts[number]), found)
    return found


def _again(x: Any, before: Mapping[str, Any], name: str, found: dict[str, Any]) -> Any:
    """A block as it was stored."""
    found["blocks"][name] = {**before.get("blocks", {}).get(name, {"bytes": 0}), "seconds": 0.0, "reused": True}
    return x


def _finished(job: Job, block: Any, table: pa.Table, number: int, found: dict[str, Any]) -> Any:
    """A block, prepared; what it took and what it weighs is put into ``found``."""
    began = time.perf_counter()
    _, given = climb(job, block, table, number)
    x = chain.finished(given[0], f"block {block.name!r}")
    size = np.dtype(job.pipeline.spec.blocks[block.name].dtype).itemsize
    index = x.indptr.nbytes + x.indices.nbytes if is_sparse(x) else 0
    weight = (x.nnz if is_sparse(x) else x.size) * size + index
    found["blocks"][block.name] = {"seconds": round(time.perf_counter() - began, 6), "bytes": int(weight)}
    return x
