"""The subject of the workers' conformance suite: a worker, its rows, and its fits, in parts and on all rows at once.

It knows the Mergeable protocol and how near two fits are to one another; it does not know what is checked.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from h3lab import worlds
from h3lab.preparing import chain
from h3lab.preparing.bound import Bound
from h3lab.preparing.cells import Cells, matrix, native
from h3lab.preparing.mergeable import Mergeable
from h3lab.serial import codec

#: Rows that stand for all where a family asks for a few of the first; so few that a fit cannot do with them.
HEAD = 4


@dataclass(frozen=True, eq=False)
class Fits:
    """``worker``, unfitted; ``x`` (rows, ...), as a family gets it: Cells, an array or CSR; ``y`` (rows,) or None;
    ``seed`` draws the cuts. ``by``: what merges its fits, None whatever is registered for it."""

    worker: Any
    x: Any
    y: np.ndarray | None
    seed: int = 0
    by: Mergeable | None = None

    @property
    def family(self) -> Mergeable:
        """Whatever merges the fits of this worker; MissingExtra where nothing does."""
        found: Mergeable = self.by or worlds.load("h3lab.workers:family")(self.worker)
        return found

    @property
    def bound(self) -> Bound:
        """What is promised; the same bits for a worker that no family merges."""
        found = self.by or worlds.load("h3lab.workers:mergeable")(self.worker)
        return Bound() if found is None else found.bound(self.worker)

    @property
    def rows(self) -> int:
        """How many there are."""
        return int(self.x.shape[0])

    @property
    def head(self) -> Any:
        """The first rows."""
        return chain.rows(self.x, np.arange(self.rows) < HEAD)

    def cuts(self) -> list[list[int]]:
        """Where parts begin: one part, some random parts, empty ones too, and a dozen single rows."""
        rng = np.random.default_rng(self.seed)
        some = sorted(rng.integers(0, self.rows + 1, 4).tolist())
        return [[], some, sorted([*some, some[0], 0, self.rows, self.rows]), list(range(1, min(self.rows, 12)))]

    def only(self, chosen: np.ndarray) -> Fits:
        """The same of some rows, by mask (rows,)."""
        return replace(self, x=chain.rows(self.x, chosen), y=None if self.y is None else self.y[chosen])

    def parts(self, cuts: Sequence[int]) -> Iterator[Fits]:
        """Its parts that have rows, as no others are ever looked at."""
        place = np.arange(self.rows)
        for a, b in zip([0, *cuts], [*cuts, self.rows], strict=True):
            if a < b:
                yield self.only((place >= a) & (place < b))

    def states(self, cuts: Sequence[int]) -> list[Any]:
        """The partial state of each part."""
        return [self.family.partial(self.worker, part.digest(), *part.labels()) for part in self.parts(cuts)]

    def digest(self) -> Any:
        """What is kept of the rows between two passes, made again of its arrays."""
        found = self.family.digest(self.worker, self.x)
        return found if self.family.kept is None else self.family.kept.of(found.arrays())

    def labels(self) -> tuple[Any, ...]:
        """What a family that learns from labels is given beside the rows."""
        import pandas as pd

        if not self.family.labelled:
            return ()
        return (None if self.y is None else pd.Series(self.y),)

    def finished(self, state: Any) -> Any:
        """A worker from the merged state."""
        from sklearn.base import clone

        worker = clone(self.worker)
        self.family.finish(worker, state, self.head)
        return worker

    def merged(self, cuts: Sequence[int]) -> Any:
        """A worker, fitted in these parts."""
        return self.finished(self.family.merge(self.states(cuts)))

    def whole(self) -> Any:
        """A worker, fitted by its own ``fit`` on all rows at once."""
        from sklearn.base import clone

        worker = clone(self.worker).set_params(**dict(self.bound.against))
        if "random_state" in worker.get_params() and worker.random_state is None:
            worker.set_params(random_state=0)
        return worker.fit(native(self.x)) if self.y is None else worker.fit(native(self.x), self.y)


def tried(call: Callable[..., Any], *given: Any) -> tuple[Any, Exception | None]:
    """What a call gives or raises; without its warnings."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return call(*given), None
        except Exception as error:
            return None, error


def packed(tree: Any, what: str) -> bytes:
    """A tree as the codec packs it; AssertionError where it has what a state may not have."""
    try:
        return bytes(codec.pack(tree))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{what} is not packed by h3lab.serial.codec: {error}") from error


def same_bits(one: Any, two: Any) -> bool:
    """Whether two outputs have the same form, type and bits."""
    if not _alike(one, two):
        return False
    a, b = dense(one), dense(two)
    return bool(((a == b) | ((a != a) & (b != b))).all()) if a.dtype.kind in "fO" else bool((a == b).all())


def check_near(mine: Any, their: Any, fits: Fits, when: str) -> None:
    """AssertionError where a fit, or what it makes of the rows it was fitted on, is further from the worker's own than
    its bound allows."""
    bound = fits.bound
    x = rows_of(fits.x) if bound.relative else np.zeros((1, 1))
    for name in sorted(fitted_names(their) | fitted_names(mine)):
        have = [hasattr(worker, name) for worker in (mine, their)]
        assert have[0] == have[1], f"{when}: only {('scikit-learn', 'the fit in parts')[have[0]]} sets {name}"
        if have[0]:
            a, b = getattr(mine, name), getattr(their, name)
            assert _near(a, b, lambda value: bound.of_attribute(x, value)), f"{when}: {name} is {a!r}, not {b!r}"
    ours = chain.transform(mine, fits.x, when) if fits.by is None else fits.by.transform(mine, fits.x)
    theirs = their.transform(native(fits.x))
    assert _alike(ours, theirs), f"{when}: {_form(ours)} came out, not {_form(theirs)}"
    a, b = dense(ours), dense(theirs)
    exact = not bound.relative or hasattr(their, "get_support")  # a choice of columns is right or wrong
    allowed = 0.0 if exact else bound.of_output(x, b)
    assert _within(a, b, allowed), f"{when}: transform is off by {_off(a, b)}; {bound} is {allowed}"
    if hasattr(their, "get_feature_names_out"):
        a, b = (list(worker.get_feature_names_out()) for worker in (mine, their))
        assert a == b, f"{when}: columns are called {sorted({*a} - {*b})}, not {sorted({*b} - {*a})}"


def fitted_names(worker: Any) -> set[str]:
    """Attributes that a fit sets, and properties that follow from them."""
    names = {*vars(worker), *(n for n in dir(type(worker)) if isinstance(getattr(type(worker), n, None), property))}
    return {name for name in names if name.endswith("_") and not name.startswith("_")}


def rows_of(x: Any) -> np.ndarray:
    """Numbers (rows, columns), dense."""
    return dense(matrix(x))


def dense(x: Any) -> np.ndarray:
    """An output as an array; raw cells as the objects they are."""
    if isinstance(x, Cells):
        x = x.native()
    return np.asarray(x.toarray() if hasattr(x, "toarray") else x)


def _form(x: Any) -> str:
    x = x if hasattr(x, "indptr") else dense(x)
    return f"{'CSR ' if hasattr(x, 'indptr') else ''}{x.dtype} {tuple(x.shape)}"


def _alike(one: Any, two: Any) -> bool:
    return _form(one) == _form(two)


def _near(a: Any, b: Any, allowed: Callable[[np.ndarray], Any]) -> bool:
    """Whether fitted attributes are as near as they should be; what is no float is the same."""
    if isinstance(b, dict):
        return bool(a == b)
    if isinstance(b, list | tuple) or (isinstance(b, np.ndarray) and b.dtype == object):
        return len(a) == len(b) and all(_near(one, two, allowed) for one, two in zip(a, b, strict=True))
    if hasattr(b, "get_params"):
        return type(a) is type(b) and all(
            _near(getattr(a, name, None), getattr(b, name), allowed) for name in fitted_names(b) if hasattr(b, name)
        )
    a, b = np.asarray(a), np.asarray(b)
    counts = a.dtype.kind in "iu" and b.dtype.kind == "f" and not np.any(b % 1)  # scikit-learn counts in either type
    if a.shape != b.shape or not (a.dtype == b.dtype or counts):
        return False
    return _within(a, b, allowed(b) if b.dtype.kind == "f" else 0.0)


def _within(a: np.ndarray, b: np.ndarray, allowed: Any) -> bool:
    same = (a == b) | ((a != a) & (b != b))
    if a.dtype.kind not in "fiu":
        return bool(np.all(same))
    with np.errstate(invalid="ignore"):
        return bool(np.all(same | (abs(a.astype(float) - b.astype(float)) <= allowed)))


def _off(a: np.ndarray, b: np.ndarray) -> Any:
    return np.max(abs(a.astype(float) - b.astype(float)), axis=0, initial=0.0) if a.dtype.kind in "fiub" else "objects"
