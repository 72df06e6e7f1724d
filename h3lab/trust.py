"""Trust: scikit-learn objects as skops bytes, and which types such bytes may hold. Nothing is ever unpickled.

It knows names of types and the two structures whose numbers scikit-learn follows unchecked; it does not know models,
pipelines or files.

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

from h3lab.errors import DamagedData, ModelError, Untrusted

_CLASSES = frozenset(
    "_loss base calibration cluster compose covariance cross_decomposition decomposition discriminant_analysis dummy "
    "ensemble feature_extraction feature_selection frozen gaussian_process impute isotonic kernel_approximation "
    "kernel_ridge linear_model manifold metrics mixture model_selection multiclass multioutput naive_bayes neighbors "
    "neural_network pipeline preprocessing random_projection semi_supervised svm tree".split()
)
_FUNCTIONS = frozenset({"feature_selection", "metrics"})
# Boosting over categories keeps a partial of check_array; a partial calls nothing that is not itself trusted.
_SINGLE = frozenset({"sklearn.utils._bunch.Bunch", "sklearn.utils.validation.check_array", "functools.partial"})


def dumps(value: Any, what: str = "this object") -> bytes:
    """skops bytes, the same for the same object in any process. ModelError says what of it cannot be written (a lambda,
    an open file)."""
    skops = _skops()
    try:
        return _named_in_order(bytes(skops.io.dumps(value)))
    except Exception as error:  # skops raises whatever the object's own reduction raises
        raise ModelError(
            f"{what} cannot be saved: {type(error).__name__}: {error}. Use functions and classes of a module in place "
            "of lambdas and local ones."
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
    except Exception as error:  # a damaged zip, a schema that lacks a field, a state that a class refuses, ...
        raise DamagedData(f"{what} holds no readable skops bytes ({type(error).__name__}: {error}).") from error
    if unknown:
        short = ", ".join(name.rpartition(".")[2] for name in unknown)
        raise Untrusted(
            f"{what} holds {', '.join(unknown)}, which h3lab does not know, so it is not opened. If you trust it, "
            f"import them and pass types=[{short}]."
        )
    for part in parts(value):
        _check(part, what)
        if type(part).__module__.startswith("sklearn.") and getattr(part, "memory", None) is not None:
            part.memory = None  # joblib unpickles what lies in a cache folder, and this one was named by the file
    return value


def name_of(kind: Any) -> str:
    """The name by which skops calls a class or function; text is taken as such a name."""
    return kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"


def known(name: str) -> bool:
    """Whether h3lab trusts a type that skops does not: scikit-learn's own classes, its scores, NumPy's scalars."""
    if name in _SINGLE:
        return True
    module, _, kind = name.rpartition(".")
    package, _, rest = module.partition(".")
    if package == "numpy":
        found = getattr(np, kind, None)
        return isinstance(found, np.ufunc) or (isinstance(found, type) and issubclass(found, np.generic | np.dtype))
    if package != "sklearn" or rest.partition(".")[0] not in _CLASSES | _FUNCTIONS or "tests" in rest.split("."):
        return False
    found = getattr(importlib.import_module(module), kind, None)
    # A module of scikit-learn also has what it imports (subprocess.Popen would be found in one).
    if not str(getattr(found, "__module__", "")).startswith("sklearn."):
        return False
    return rest.partition(".")[0] in (_CLASSES if isinstance(found, type) else _FUNCTIONS)


def types_in(value: Any) -> list[Any]:
    """Classes and functions of an object of the user's own, parts included, that are not scikit-learn's or NumPy's."""
    found: dict[str, Any] = {}
    for part in parts(value):
        kind = part if isinstance(part, type) or type(part).__name__ == "function" else type(part)
        if kind.__module__.partition(".")[0] not in ("builtins", "sklearn", "numpy", "scipy"):
            found[name_of(kind)] = kind
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
    """skops looks types up by name, and a class of the notebook that travelled here by value has none: lend it one."""
    lent = []
    for kind in types:
        module = None if isinstance(kind, str) else sys.modules.get(kind.__module__)
        if module is not None and not hasattr(module, kind.__qualname__):
            setattr(module, kind.__qualname__, kind)
            lent.append((module, kind.__qualname__))
    try:
        yield
    finally:
        for module, name in lent:
            delattr(module, name)


def _check(part: Any, what: str) -> None:
    """scikit-learn follows the numbers of trees without looking; wrong ones would read memory that is not theirs."""
    name = name_of(type(part))
    if name == "sklearn.tree._tree.Tree":
        sound = part.capacity == part.node_count and _sound_tree(part)
    elif name == "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor":
        sound = _sound_predictor(part)
    elif name.startswith(("sklearn.tree.", "sklearn.ensemble.")) and hasattr(part, "n_features_in_"):
        sound = all(has == given for has, given in _widths(part))
    else:
        return
    if not sound:
        raise DamagedData(f"{what} holds a {type(part).__name__} whose nodes contradict each other; it is damaged.")


def _widths(part: Any) -> Iterator[tuple[int, int]]:
    """For everything inside a tree or an ensemble: the columns that it reads, and those that it is given."""
    columns = part.n_features_in_
    if hasattr(part, "tree_"):
        yield part.tree_.n_features, columns
    trees = getattr(part, "estimators_", ())
    trees = list(trees.ravel() if isinstance(trees, np.ndarray) else trees)
    given = [len(drawn) for drawn in getattr(part, "estimators_features_", ())] or [columns] * len(trees)
    yield from (
        (tree.n_features_in_, width)
        for tree, width in zip(trees, given, strict=True)
        if hasattr(tree, "n_features_in_")
    )
    for predictor in (one for stage in getattr(part, "_predictors", ()) for one in stage):
        yield max(predictor.nodes["feature_idx"].max(initial=0) + 1, columns), columns


def _sound_tree(tree: Any) -> bool:
    own = np.arange(tree.node_count)
    inner = tree.children_left != -1
    below = np.concatenate([tree.children_left[inner], tree.children_right[inner]])
    # A child always comes after its parent, so there is no circle either.
    ordered = (below > np.concatenate([own[inner]] * 2)).all() and (below < tree.node_count).all()
    columns = tree.feature[inner]
    return bool(tree.node_count > 0 and ordered and (columns >= 0).all() and (columns < tree.n_features).all())


def _sound_predictor(predictor: Any) -> bool:
    nodes = predictor.nodes
    inner = nodes["is_leaf"] == 0
    own, below = np.arange(len(nodes))[inner], nodes[inner]
    ordered = all((below[side] > own).all() and (below[side] < len(nodes)).all() for side in ("left", "right"))
    categorical = below[below["is_categorical"] != 0]["bitset_idx"]
    bits = (predictor.raw_left_cat_bitsets, predictor.binned_left_cat_bitsets)
    enough = all(b.shape[1:] == (8,) and (categorical < len(b)).all() for b in bits)
    return bool(len(nodes) and ordered and enough and (below["feature_idx"] >= 0).all())
