"""The outside worlds by name: which module reads a URL, wraps a model, keeps a feed, shows a noun.

The core names them here, as strings, and imports on first use; a missing library becomes its pip line. Third parties
join through the entry point groups ``h3lab.backends``, ``h3lab.sources``, ``h3lab.workers`` and so on.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

from h3lab.errors import MissingExtra, UnknownName, UsageError

#: What to type when an import fails: top-level package → pip requirement.
PIP = {
    "torch": "torch",
    "sklearn": "scikit-learn",
    "mxnet": "mxnet",
    "keras": "keras",
    "lightning": "lightning",
    "transformers": "transformers accelerate",
    "tensorflow": "tensorflow-cpu",
    "bokeh": "bokeh",
    "anywidget": "anywidget",
    "ipywidgets": "ipywidgets",
    "ipyparallel": "ipyparallel",
    "requests": "requests",
    "s3fs": "s3fs",
    "skops": "skops",
    "sqlalchemy": "sqlalchemy",
    "psycopg": '"psycopg[binary]"',
}


def load(path: str) -> Any:
    """``"h3lab.backends._torch:TorchModel"`` → the object; MissingExtra has the pip line of a missing library."""
    module, _, name = path.partition(":")
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (told := missing(error, module)) is None:
            raise
        raise told from error
    return getattr(loaded, name) if name else loaded


def missing(error: ModuleNotFoundError, user: str) -> MissingExtra | None:
    """What to say of a library that is not installed and that ``user`` needs; None for a module of our own."""
    library = (error.name or "").partition(".")[0]
    if library in ("", "h3lab"):
        return None
    line = f"pip install {PIP.get(library, library)}"
    return MissingExtra(f"{library!r} is not installed, and {user} needs it. Install it with: {line}")


def plugs(group: str) -> Iterator[tuple[str, Any]]:
    """What third parties registered under ``h3lab.<group>``, each with where from, for messages; one that fails to
    load only warns."""
    for point in entry_points(group=f"h3lab.{group}"):
        package = "" if point.dist is None else f" of the package {point.dist.name!r}"
        where = f"entry point {point.name!r} ({point.value}) of h3lab.{group}{package}"
        try:
            found = point.load()
        except Exception as error:
            warnings.warn(f"{where} did not load: {type(error).__name__}: {error}", stacklevel=2)
        else:
            yield where, found


def plugged(group: str) -> Iterator[Any]:
    """The same without where from."""
    return (found for _, found in plugs(group))


#: Module of a model's class or a base of it → (the class that wraps it, the extra it needs).
BACKENDS = {
    "torch": "h3lab.backends._torch:TorchModel",
    "skorch": "h3lab.backends._skorch:SkorchModel",
    "sklearn": "h3lab.backends._sklearn:SklearnModel",
}

#: The same keys → the module that keeps its models in documents: ``to_document(model)``,
#: ``from_document(tree, spec, build, types)``.
DOCUMENTS = {
    "torch": "h3lab.backends._torch_saving",
    "skorch": "h3lab.backends._skorch",
    "sklearn": "h3lab.backends._sklearn_saving",
}

#: An actor as a plain scikit-learn estimator.
TO_SKLEARN = "h3lab.backends._sklearn_plain:to_sklearn"

#: Whatever names rows → a Source.
READ = "h3lab.sources:read"

#: A torch Dataset or DataLoader → (X, y).
PAIR = "h3lab.sources.datasets:pair"


def holds_examples(data: Any) -> bool:
    """Whether this is a torch Dataset or DataLoader, or the source of one."""
    bases = {f"{base.__module__}.{base.__name__}" for base in type(data).__mro__}
    return not bases.isdisjoint(
        (
            "torch.utils.data.dataset.Dataset",
            "torch.utils.data.dataloader.DataLoader",
            "h3lab.sources.datasets.Examples",
        )
    )


#: A model's backend → the module that tells the memory of its training by a trial: ``ahead``, ``peak``, ``of_model``,
#: ``place``. Models of others are tried with what Python allocates.
MEMORY = {"torch": "h3lab.backends._torch_memory"}

#: A feed into a folder, a folder's store, and the doors by which a feed leaves.
STORE = "h3lab.stores:store"
OPEN_STORE = "h3lab.stores:open_store"
DOORS = {
    "frame": "h3lab.stores.doors:frame",
    "arrow": "h3lab.stores.doors:arrow",
    "torch": "h3lab.stores.torchset:TorchSet",
}

#: Kind of a source's description → the function that opens it again.
SOURCES = {
    "files": "h3lab.sources.files:reopen",
    "memory": "h3lab.sources.frames:reopen",
    "keyed": "h3lab.keys:reopen",
    "joined": "h3lab.joining.joined:reopen",
    "split": "h3lab.splits:reopen",
    "sql": "h3lab.sources.sql:reopen",
}


def reopen(description: Any) -> Any:
    """The Source that ``Source.describe()`` described; DataError where it was in memory and is gone."""
    kind = description["kind"]
    for plug in plugged("sources") if kind not in SOURCES else ():
        if plug.kind == kind:
            return plug.reopen(description)
    if kind not in SOURCES:
        raise UnknownName("kind of source", kind, SOURCES)
    return load(SOURCES[kind])(description)


_PROMISED = ("build", "step", "logits", "parameters", "load_parameters", "state", "load_state")


def wraps(model: Any) -> str | None:
    """The backend for a model's class, found by the modules of its bases; ``"itself"`` for a Model, None for none."""
    if all(callable(getattr(type(model), name, None)) for name in _PROMISED):
        return "itself"
    tops = [base.__module__.partition(".")[0] for base in type(model).__mro__]
    found = next((BACKENDS[top] for top in tops if top in BACKENDS), None)
    learns = not isinstance(model, type) and all(callable(getattr(model, name, None)) for name in ("fit", "predict"))
    # Without a base that tells: scikit-learn's methods do, unless they are another framework's or a plug-in's.
    if found is None and learns and not PIP.keys() & set(tops):
        if not any(isinstance(model, plug.wraps) for plug in plugged("backends")):
            return BACKENDS["sklearn"]
    return found


def wrap(model: Any) -> Any:
    """A Model around a native one, whose framework is imported by no other way than its being used; a Model passes.

    UsageError for anything else lists what can be wrapped.
    """
    backend = wraps(model)
    if backend == "itself":
        return model
    for plug in plugged("backends") if backend is None else ():
        if isinstance(model, plug.wraps):
            return plug(model)
    if backend is None:
        known = ", ".join(sorted(BACKENDS))
        came = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        hint = "A function that builds a network goes into TorchModel(build)."
        if isinstance(model, type):
            name = model.__name__
            hint = f"Write {name}() with its parentheses; or, for a class that builds a network, TorchModel({name})."
        elif isinstance(model, str):
            hint = 'For example Actor("digits", LogisticRegression()): the name, then the model.'
        elif type(model).__module__.partition(".")[0] == "keras":
            hint = (
                "A Keras model of another backend than torch is none: set the environment variable KERAS_BACKEND=torch "
                "before keras is imported."
            )
        raise UsageError(f"{came} came as model; expected a model of {known}, or a Model. {hint}")
    return load(backend)(model)


def backend_of(model: Any) -> str | None:
    """The key under which BACKENDS has the class of a Model, or a base of it; None for one from elsewhere."""
    classes = {f"{base.__module__}:{base.__qualname__}" for base in type(model).__mro__}
    return next((key for key, path in BACKENDS.items() if path in classes), None)


#: The class of a framework's tensors → the module with ``to_array(tensor)`` and ``from_array(array, dtype)``.
TENSORS = {"torch.Tensor": "h3lab.backends._torch_state"}


def tensor(value: Any) -> str | None:
    """The key in TENSORS of a tensor's class or a base of it, None for whatever else comes; imports nothing."""
    bases = (f"{base.__module__}.{base.__qualname__}" for base in type(value).__mro__)
    return next((base for base in bases if base in TENSORS), None)


#: What a run was started with: ``read(folder)``.
LAUNCH = "h3lab.cluster.launch:Launch"

#: See that a run has a keeper: ``look_after(folder)``.
LOOK_AFTER = "h3lab.cluster.lifetime:look_after"

#: The views of a run: ``run`` gives its mimebundle, ``show`` puts it (or several in one figure) into the current cell,
#: ``settle`` brings its pictures up to date at its end, ``overlay`` is several in one figure, ``page`` an HTML page.
VIEWS = {
    "run": "h3lab.ui.display:mimebundle",
    "show": "h3lab.ui.display:show",
    "settle": "h3lab.ui.display:settle",
    "overlay": "h3lab.ui.display:overlay",
    "page": "h3lab.ui.page:write_page",
}


#: A framework → the function that makes its callback for ``h3.watch``: ``callback(name)``.
FRAMEWORKS = {
    "keras": "h3lab.frameworks._keras:callback",
    "lightning": "h3lab.frameworks._lightning:callback",
    "huggingface": "h3lab.frameworks._huggingface:callback",
}


def view(noun: str) -> Any:
    """The function that shows a noun in a notebook, or None where no display library is installed."""
    try:
        return load(VIEWS[noun])
    except MissingExtra:
        return None
