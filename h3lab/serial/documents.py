"""A pipeline as a document: a codec tree with its workers as skops bytes, nothing ever unpickled.

It knows what a saved pipeline holds; whom it trusts is said in ``trust``.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from h3lab.errors import DamagedData, ModelError
from h3lab.pipeline import Fitted, Pipeline
from h3lab.preprocessor import Preprocessor
from h3lab.serial import trust
from h3lab.spec import Spec

FORMAT = 1
_SETTINGS = ("label", "task", "weight", "join", "dtype", "seed")


def to_document(pipeline: Pipeline) -> dict[str, Any]:
    """The codec tree. Workers that skops cannot write (a lambda in a FunctionTransformer) are named in it instead, so
    that everything else stays usable; opening them raises the reason."""
    blocks = []
    for block in pipeline.preprocessors:
        columns = block.columns if isinstance(block.columns, str) else list(block.columns)
        saved = _saved(list(block.workers), block.name)
        blocks.append({"name": block.name, "columns": columns, "source": block.source} | saved)
    document: dict[str, Any] = {"format": FORMAT, "blocks": blocks}
    document |= {name: getattr(pipeline, name) for name in _SETTINGS}
    if pipeline.fitted:
        state = pipeline.state
        document["fitted"] = {
            "spec": json.dumps(state.spec.to_json()),
            "schema": state.schema.serialize().to_pybytes(),
            "names": {name: list(names) for name, names in state.names.items()},
            "how": state.how,
            "fingerprint": state.fingerprint,
            "lookups": None if state.lookups is None else json.dumps(state.lookups),
            "stages": {name: _saved_stages(stages, name) for name, stages in state.stages.items()},
        }
    return document


def from_document(tree: Mapping[str, Any], types: Iterable[Any] = ()) -> Pipeline:
    """The pipeline of a document. ``types``: classes or functions of your own that may be loaded; Untrusted names
    those that are missing and the line to type."""
    import pyarrow as pa

    if not isinstance(tree, Mapping) or tree.get("format") != FORMAT:
        raise DamagedData("this is no document of a pipeline, or one of a newer h3lab.")
    types = tuple(types)
    blocks = [
        Preprocessor(b["name"], b["columns"], *_loaded(b, b["name"], types), source=b["source"]) for b in tree["blocks"]
    ]
    pipeline = Pipeline(*blocks, **{name: tree[name] for name in _SETTINGS})
    if "fitted" not in tree:
        return pipeline
    f = tree["fitted"]
    stages = {name: _loaded_stages(saved, name, types) for name, saved in f["stages"].items()}
    schema = pa.ipc.read_schema(pa.py_buffer(f["schema"]))
    spec = Spec.from_json(json.loads(f["spec"]))
    lookups = None if f.get("lookups") is None else json.loads(f["lookups"])
    return pipeline.with_fitted(Fitted(spec, schema, stages, f["names"], f["how"], f["fingerprint"], lookups))


def missing(document: Mapping[str, Any]) -> str | None:
    """Why a document is not whole, and so cannot be opened; None where it can."""
    stages = document.get("fitted", {}).get("stages", {}).values()
    return next((str(saved["reason"]) for saved in [*document["blocks"], *stages] if saved["workers"] is None), None)


def types_of(pipeline: Pipeline) -> list[Any]:
    """Classes and functions of the user's own in a pipeline, which :func:`from_document` must be given."""
    return trust.types_in([list(block.workers) for block in pipeline.preprocessors])


def _saved_stages(stages: Any, block: str) -> dict[str, Any]:
    """Fitted workers. Vocabularies are saved beside them, as one text: skops writes a file entry a word, in seconds."""
    bare: list[list[Any]] = []
    words = {}
    for place, stage in enumerate(stages):
        bare.append([])
        for number, worker in enumerate(stage):
            known = getattr(worker, "vocabulary_", None)
            if isinstance(known, dict) and known and all(type(word) is str and "\n" not in word for word in known):
                worker = copy.copy(worker)
                del worker.vocabulary_
                positions = np.fromiter(known.values(), np.int64, len(known))
                words[f"{place}.{number}"] = {"words": "\n".join(known).encode(), "positions": positions}
            bare[-1].append(worker)
    return _saved(bare, block) | {"vocabularies": words}


def _loaded_stages(saved: Mapping[str, Any], block: str, types: tuple[Any, ...]) -> tuple[tuple[Any, ...], ...]:
    stages = _loaded(saved, block, types)
    for where, found in saved["vocabularies"].items():
        place, number = map(int, where.split("."))
        words = found["words"].decode().split("\n")
        stages[place][number].vocabulary_ = dict(zip(words, found["positions"].tolist(), strict=True))
    return tuple(tuple(stage) for stage in stages)


def _saved(workers: Any, block: str) -> dict[str, Any]:
    # skops would write such a function by this name, and find another one, or none, under it.
    nameless = [kind.__qualname__ for kind in trust.types_in(workers) if "<" in kind.__qualname__]
    if nameless:
        reason = f"in block {block!r} {nameless[0]} has no name by which another process finds it. Use functions and "
        return {"workers": None, "reason": reason + "classes of a module, or of the notebook, in place of lambdas."}
    try:
        return {"workers": trust.dumps(workers, f"block {block!r}")}
    except ModelError as error:
        return {"workers": None, "reason": str(error)}


def _loaded(saved: Mapping[str, Any], block: str, types: tuple[Any, ...]) -> Any:
    if saved["workers"] is None:
        raise ModelError(f"this pipeline was not saved whole, so it cannot be opened: {saved['reason']}")
    return trust.loads(saved["workers"], types, f"block {block!r} of this pipeline")
