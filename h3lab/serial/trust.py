"""Trust: scikit-learn objects as skops bytes, and which types such bytes may hold. Nothing is ever unpickled.

It knows names of types; it does not know models, pipelines or files.

Bytes are refused, before any object is made, unless each of their types is trusted by skops, is named below, or is the
caller's own (``types``). A trusted *function* could be called with chosen arguments, so functions are listed by
package as narrowly as use allows: ``sklearn.utils`` alone has some that run the source code they are given.
"""

from __future__ import annotations

import importlib
import io
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import PurePath
from types import ModuleType
from typing import Any

import numpy as np

from h3lab.errors import DamagedData, ModelError, Untrusted, UsageError
from h3lab.serial import trees

_CLASSES = frozenset(
    "_loss base calibration cluster compose covariance cross_decomposition decomposition discriminant_analysis dummy "
    "ensemble feature_extraction feature_selection frozen gaussian_process impute isotonic kernel_approximation "
    "kernel_ridge linear_model manifold metrics mixture model_selection multiclass multioutput naive_bayes neighbors "
    "neural_network pipeline preprocessing random_projection semi_supervised svm tree".split()
)
_NOTHING = object()
_FUNCTIONS = frozenset({"feature_selection", "metrics"})
# Boosting over categories keeps a partial of check_array; a partial calls nothing that is not itself trusted.
_SINGLE = frozenset({"sklearn.utils._bunch.Bunch", "sklearn.utils.validation.check_array", "functools.partial"})


def dumps(value: Any, what: str = "this object", *, lent: bool = False) -> bytes:
    """skops bytes, the same for the same object in any process. ModelError says what of it cannot be written (an open
    file), or not be found again by its name (a lambda); ``lent`` says that :func:`loads` will be given those in
    ``types``."""
    found: dict[str, Any] = {}
    for kind in types_in(value):
        if found.setdefault(name_of(kind), kind) is not kind or ("<" in kind.__qualname__ and not lent):
            raise ModelError(
                f"{what} cannot be saved: {kind.__qualname__} has no name by which another process finds it. Use "
                "functions and classes of a module, or of the notebook, in place of lambdas and local ones."
            )
    skops = _skops()
    try:
        return _named_in_order(bytes(skops.io.dumps(value)))
    except Exception as error:  # skops raises whatever the object's own reduction raises
        raise ModelError(
            f"{what} cannot be saved: {type(error).__name__}: {error}. An estimator holds numbers, text and functions; "
            "leave out open files, connections and the like."
        ) from error


def _named_in_order(data: bytes) -> bytes:
    """skops names parts and files by addresses in memory and stamps the time; here they are numbered as they come."""
    numbers: dict[str, str] = {}
    files: dict[str, str] = {}

    def number(found: re.Match[str]) -> str:
        if found[1]:
            return f'"__id__": {numbers.setdefault(found[1], str(len(numbers) + 1))}'
        name = files.setdefault(found[2], f"{len(files) + 1}{PurePath(found[2]).suffix}")
        return f'"file": "{name}"'

    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        # Inside a text of the object's own every quote has a backslash before it, so that nothing there looks the same.
        schema = re.sub(r'(?<!\\)"__id__": (\d+)|(?<!\\)"file": "([^"\\]+)"', number, old.read("schema.json").decode())
        for name, renamed in files.items():
            new.writestr(zipfile.ZipInfo(renamed), _without_gaps(old.read(name)))
        new.writestr(zipfile.ZipInfo("schema.json"), schema)
    return out.getvalue()


def _without_gaps(file: bytes) -> bytes:
    """Nodes of trees are records with unused bytes at their end, which hold whatever lay in memory there."""
    if b"'descr': [" not in file[:64]:
        return file
    array = np.load(io.BytesIO(file), allow_pickle=False)
    clean, out = np.zeros(array.shape, array.dtype), io.BytesIO()
    for name in array.dtype.names or ():
        clean[name] = array[name]
    np.save(out, clean, allow_pickle=False)
    return out.getvalue()


def given_types(types: Any) -> tuple[Any, ...]:
    """``types`` as somebody gave them; UsageError for what is no class or function."""
    given = tuple(types) if isinstance(types, Iterable) else (types,)
    if not all(callable(kind) for kind in given):
        raise UsageError(f"types={types!r} came; expected classes and functions of your own, types=[MyWorker].")
    return given


def loads(data: bytes, types: Iterable[Any] = (), what: str = "this file") -> Any:
    """The object. ``types``: classes and functions of one's own that may be in it. Untrusted names the others and the
    line to type; DamagedData where the bytes are none of skops or their numbers contradict each other."""
    skops = _skops()
    types = tuple(types)
    own = {name_of(kind) for kind in types}
    try:
        named = skops.io.get_untrusted_types(data=data)
        unknown = [name for name in named if name not in own and not known(name)]
        if not unknown:
            with _reachable(types):
                value = skops.io.loads(data, trusted=[*named, *own])
            broken = next((part for part in parts(value) if not trees.sound(part)), None)
    except Exception as error:  # a damaged zip, a schema that lacks a field, a state that a class refuses, ...
        raise DamagedData(f"{what} holds no readable skops bytes ({type(error).__name__}: {error}).") from error
    if unknown:
        short = ", ".join(name.rpartition(".")[2] for name in unknown)
        raise Untrusted(
            f"{what} holds {', '.join(unknown)}, which h3lab does not know, so it is not opened. If you trust it, "
            f"import them and pass types=[{short}]."
        )
    if broken is not None:
        raise DamagedData(f"{what} holds a {type(broken).__name__} whose nodes contradict each other; it is damaged.")
    for part in parts(value):
        if type(part).__module__.startswith("sklearn.") and getattr(part, "memory", None) is not None:
            part.memory = None  # joblib unpickles what lies in a cache folder, and this one was named by the file
    return value


def name_of(kind: Any) -> str:
    """The name by which skops calls a class or function; text is taken as such a name."""
    return kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__name__}"


def known(name: str) -> bool:
    """Whether h3lab trusts a type that skops does not: scikit-learn's own classes, its scores, NumPy's scalars."""
    if name in _SINGLE:
        return True
    module, _, kind = name.rpartition(".")
    package, _, rest = module.partition(".")
    if package == "numpy":
        found = getattr(np, kind, None)
        return isinstance(found, np.ufunc) or (isinstance(found, type) and issubclass(found, np.generic | np.dtype))
    if package != "sklearn" or not _listed(module, _CLASSES | _FUNCTIONS):
        return False
    try:
        found = getattr(importlib.import_module(module), kind, None)
    except ImportError:
        return False
    # A module also has what it imports, so that much is found in one that is not its own.
    own = str(getattr(found, "__module__", ""))
    return _listed(own, _CLASSES if isinstance(found, type) else _FUNCTIONS)


def _listed(module: str, packages: frozenset[str]) -> bool:
    names = module.split(".")
    return len(names) > 1 and names[0] == "sklearn" and names[1] in packages and "tests" not in names


def types_in(value: Any) -> list[Any]:
    """Classes and functions in an object, parts included, that come from elsewhere than scikit-learn, NumPy and the
    standard library."""
    found: dict[int, Any] = {}
    for part in parts(value):
        kind = part if isinstance(part, type) or type(part).__name__ == "function" else type(part)
        top = kind.__module__.partition(".")[0]
        if top not in ("sklearn", "numpy", "scipy") and (top == "__main__" or top not in sys.stdlib_module_names):
            found[id(kind)] = kind
    return list(found.values())


def parts(value: Any) -> Iterator[Any]:
    """The object and everything in it: attributes, items, elements of object arrays; each once."""
    todo, seen = [value], set()
    while todo:
        part = todo.pop()
        if id(part) in seen or isinstance(part, (str, bytes, int, float, type(None))):
            continue
        seen.add(id(part))
        yield part
        if isinstance(part, dict):
            todo += [*part.keys(), *part.values()]
        elif isinstance(part, (list, tuple, set)) or (isinstance(part, np.ndarray) and part.dtype.hasobject):
            todo += list(part.ravel() if isinstance(part, np.ndarray) else part)
        elif not isinstance(part, type):
            todo += vars(part).values() if hasattr(part, "__dict__") else []


def _skops() -> Any:
    """skops imports every module of scikit-learn to find its estimators, and one of them imports torch, in seconds and
    hundreds of megabytes. That one has no estimator: a stand-in takes its name until skops has looked."""
    name = "sklearn.externals.array_api_compat.torch"
    if "skops.io" not in sys.modules and "torch" not in sys.modules and name not in sys.modules:
        sys.modules[name] = ModuleType(name)
        try:
            import skops.io
        finally:
            del sys.modules[name]
    import skops.io

    return skops


@contextmanager
def _reachable(types: Iterable[Any]) -> Iterator[None]:
    """skops looks types up by name, and a class of the notebook that travelled here by value has none, or one that by
    now another class has: lend it."""
    before: list[tuple[Any, str, Any]] = []
    for kind in types:
        module = None if isinstance(kind, str) else sys.modules.get(kind.__module__)
        if module is not None and getattr(module, kind.__name__, None) is not kind:
            before.append((module, kind.__name__, getattr(module, kind.__name__, _NOTHING)))
            setattr(module, kind.__name__, kind)
    try:
        yield
    finally:
        for module, name, value in reversed(before):
            delattr(module, name) if value is _NOTHING else setattr(module, name, value)
