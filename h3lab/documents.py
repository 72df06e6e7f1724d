"""A pipeline as a document: a codec tree with its workers as skops bytes, nothing ever unpickled.

It knows what a saved pipeline holds and whom it trusts; it does not know files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from h3lab.errors import DamagedData, MissingExtra, ModelError, Untrusted
from h3lab.pipeline import Fitted, Pipeline
from h3lab.preprocessor import Preprocessor
from h3lab.spec import Spec

FORMAT = 1
#: Modules whose types are trusted: their classes are estimators and containers of numbers.
_TRUSTED_MODULES = ("sklearn",)


def to_document(pipeline: Pipeline) -> dict[str, Any]:
    """The codec tree. Workers that skops cannot write (a lambda in a FunctionTransformer) are named in it instead, so
    that everything else stays usable; opening them raises the reason."""
    blocks = []
    for block in pipeline.preprocessors:
        columns = block.columns if isinstance(block.columns, str) else list(block.columns)
        blocks.append({"name": block.name, "columns": columns, "source": block.source} | _saved(block.workers))
    document: dict[str, Any] = {"format": FORMAT, "blocks": blocks}
    for name in ("label", "task", "weight", "join", "dtype", "seed"):
        document[name] = getattr(pipeline, name)
    if pipeline.fitted:
        state = pipeline.state
        document["fitted"] = {
            "spec": json.dumps(state.spec.to_json()),
            "schema": state.schema.serialize().to_pybytes(),
            "names": {name: list(names) for name, names in state.names.items()},
            "how": state.how,
            "fingerprint": state.fingerprint,
            "stages": {name: _saved([list(stage) for stage in stages]) for name, stages in state.stages.items()},
        }
    return document


def from_document(tree: Mapping[str, Any], types: Iterable[Any] = ()) -> Pipeline:
    """The pipeline of a document. ``types``: classes or functions of your own that may be loaded; Untrusted names
    those that are missing and the line to type."""
    import pyarrow as pa

    if not isinstance(tree, Mapping) or tree.get("format") != FORMAT:
        raise DamagedData("this is no document of a pipeline, or one of a newer h3lab.")
    trusted = _names(types)
    blocks = [
        Preprocessor(b["name"], b["columns"], *_loaded(b, b["name"], trusted), source=b["source"])
        for b in tree["blocks"]
    ]
    settings = {name: tree[name] for name in ("label", "task", "weight", "join", "dtype", "seed")}
    pipeline = Pipeline(*blocks, **settings)
    if "fitted" not in tree:
        return pipeline
    f = tree["fitted"]
    stages = {
        name: tuple(tuple(stage) for stage in _loaded(saved, name, trusted)) for name, saved in f["stages"].items()
    }
    schema = pa.ipc.read_schema(pa.py_buffer(f["schema"]))
    spec = Spec.from_json(json.loads(f["spec"]))
    return pipeline.with_fitted(Fitted(spec, schema, stages, f["names"], f["how"], f["fingerprint"]))


def _saved(workers: Any) -> dict[str, Any]:
    import skops.io

    try:
        return {"workers": skops.io.dumps(list(workers))}
    except Exception as error:  # skops raises whatever the object's own reduction raises
        return {"workers": None, "reason": f"{type(error).__name__}: {error}"}


def _loaded(saved: Mapping[str, Any], block: str, trusted: list[str]) -> Any:
    try:
        import skops.io
    except ModuleNotFoundError as error:
        raise MissingExtra("'skops' is not installed. Install it with: pip install skops") from error

    if saved["workers"] is None:
        raise ModelError(
            f"the workers of block {block!r} could not be saved ({saved['reason']}), so they cannot be loaded. "
            "Use functions and classes of a module instead of lambdas, and prepare again."
        )
    named = skops.io.get_untrusted_types(data=saved["workers"])
    unknown = [name for name in named if name not in trusted and not _known(name)]
    if unknown:
        line = f"types=[{', '.join(name.rpartition('.')[2] for name in unknown)}]"
        raise Untrusted(
            f"block {block!r} was saved with {', '.join(unknown)}, which h3lab does not know. "
            f"If you trust this file, import them and pass {line}."
        )
    return skops.io.loads(saved["workers"], trusted=[*named])


def _known(name: str) -> bool:
    module, _, kind = name.rpartition(".")
    if module == "numpy":
        found = getattr(np, kind, None)
        return isinstance(found, np.ufunc) or (isinstance(found, type) and issubclass(found, np.generic | np.dtype))
    return module.partition(".")[0] in _TRUSTED_MODULES


def _names(types: Iterable[Any]) -> list[str]:
    return [kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}" for kind in types]
