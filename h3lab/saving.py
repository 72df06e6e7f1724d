"""Saving: an actor as one ``.h3`` file, which holds arrays and JSON (skops bytes for scikit-learn) and no pickle.

It knows what belongs to an actor and how a file is replaced whole; how a model or a pipeline is told is theirs to know.
Layout: the codec's bytes, then ``H3SUM`` and their BLAKE2 digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from h3lab import worlds
from h3lab.errors import DamagedData, ModelError, NotFittedError, StorageError, guided
from h3lab.home import path_of, replace_file
from h3lab.serial import codec, trust
from h3lab.spec import Spec

if TYPE_CHECKING:
    from h3lab.actor import Actor

FORMAT = 1
_KIND = "h3lab actor"
_SUM = b"H3SUM"
_DIGEST = 32
_ASK = "h3.load opens what actor.save(path) wrote."
#: Settings of an actor beside name, model and pipeline.
_SETTINGS = ("epochs", "batch_size", "validation", "patience", "monitor", "metrics", "seed")


def save(actor: Actor, path: str | Path) -> Path:
    """Write a trained actor; the file that was there stays whole until the new one is. Prints the line that opens it,
    with ``build=`` where a network has layers of your own and ``types=`` where an estimator or worker has.

    Raises NotFittedError before any training, ModelError that names what cannot be written, StorageError.
    """
    path = path_of(path, 'actor.save("student.h3")')
    if not actor.learned:
        raise NotFittedError(f"actor {actor.name!r} has not learned anything yet, so there is nothing to save.")
    backend = worlds.backend_of(actor.model_)
    if backend is None:
        raise ModelError(f"h3lab cannot save a {type(actor.model_).__name__}; known: {', '.join(worlds.DOCUMENTS)}.")
    model = worlds.load(worlds.DOCUMENTS[backend]).to_document(actor.model_)
    tree = {
        "kind": _KIND,
        "format": FORMAT,
        "name": actor.name,
        "settings": _settings(actor),
        "spec": json.dumps(actor.spec_.to_json()),
        "pipeline": None if actor.pipeline_ is None else actor.pipeline_.to_document(),
        "given": None if actor.pipeline is None else "fitted" if getattr(actor.pipeline, "fitted", False) else "recipe",
        "backend": backend,
        "model": model,
    }
    data = codec.pack(tree)
    data += _SUM + hashlib.blake2b(data, digest_size=_DIGEST).digest()
    try:
        replace_file(path, data, durable=True)
    except OSError as error:
        raise StorageError(
            f"{path} was not written ({error}); what was there is as it was. Give a file in a folder that is there."
        ) from error
    print(f"{path} ({_size(len(data))}) opens with {_line(path, model, actor.pipeline_)}")
    return path


@guided
def load(path: str | Path, *, build: Callable[..., Any] | Any = None, types: Iterable[Any] = ()) -> Actor:
    """``h3.load("student.h3")`` opens what :meth:`Actor.save` wrote: the actor answers with the same bits, and can be
    trained on.

    ``build``: the network's ``build(spec)`` (or a module) where it has layers of your own; ``types``: classes and
    functions of your own that an estimator or a worker uses. Nothing is unpickled, and nothing but these two can come
    from elsewhere than torch.nn, scikit-learn, NumPy and SciPy. Raises StorageError, DamagedData, Untrusted and
    ModelError, each with the line to type.
    """
    from h3lab.actor import Actor
    from h3lab.pipeline import Pipeline

    path = path_of(path, 'h3.load("student.h3")')
    tree = _read(path)
    types = trust.given_types(types)
    spec = Spec.from_json(json.loads(tree["spec"]))
    pipeline = None if tree["pipeline"] is None else Pipeline.from_document(tree["pipeline"], types=types)
    if tree["backend"] not in worlds.DOCUMENTS:
        raise ModelError(f"{path} holds a model of {tree['backend']!r}; known: {', '.join(worlds.DOCUMENTS)}.")
    documents = worlds.load(worlds.DOCUMENTS[tree["backend"]])
    model = documents.from_document(tree["model"], spec, build, types)
    given = {"fitted": pipeline, "recipe": None if pipeline is None else pipeline.with_fitted(None)}.get(tree["given"])
    return Actor(tree["name"], model, given, **json.loads(tree["settings"])).adopt(model, spec, pipeline)


def _read(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}. {_ASK}") from error
    body, end = data[: -len(_SUM) - _DIGEST], data[-len(_SUM) - _DIGEST :]
    if data[: len(codec.MAGIC)] != codec.MAGIC:
        raise DamagedData(f"{path} is no .h3 file: it begins with {data[:8]!r}. {_ASK}")
    if not end.startswith(_SUM):
        raise DamagedData(f"{path} is no saved actor, or its end is missing. Copy it again, or save it anew. {_ASK}")
    if end != _SUM + hashlib.blake2b(body, digest_size=_DIGEST).digest():
        raise DamagedData(f"{path} is truncated or damaged: its checksum is wrong. Copy it again, or save it anew.")
    tree = codec.unpack(body)
    if not isinstance(tree, dict) or tree.get("kind") != _KIND:
        raise DamagedData(f"{path} holds no actor. {_ASK}")
    if tree["format"] > FORMAT:
        raise DamagedData(
            f"{path} has format {tree['format']}; this h3lab reads up to {FORMAT}. Update h3lab to open it."
        )
    return tree


def _settings(actor: Actor) -> str:
    """JSON; rows to validate on and functions stay behind, they are data and code."""
    kept = {name: getattr(actor, name) for name in _SETTINGS}
    plain = (bool, int, float, str, type(None))
    for name, value in kept.items():
        several = isinstance(value, (list, tuple)) and all(isinstance(item, plain) for item in value)
        if not isinstance(value, plain) and not (several and name == "metrics"):
            kept[name] = value.item() if hasattr(value, "item") and getattr(value, "shape", 0) == () else None
    return json.dumps(kept)


def _line(path: Path, model: dict[str, Any], pipeline: Any) -> str:
    from h3lab.serial.documents import types_of

    names = dict.fromkeys([*model["types"], *(kind.__name__ for kind in (types_of(pipeline) if pipeline else ()))])
    build = f", build={model['build']}" if model["build"] else ""
    types = f", types=[{', '.join(name.rpartition('.')[2] for name in names)}]" if names else ""
    return f"h3.load({str(path)!r}{build}{types})"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
