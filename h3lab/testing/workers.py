"""What every fit in parts promises, as checks that the author of a worker can run.

They know the Mergeable protocol and rows in parts; they do not know what a worker learns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from h3lab.errors import UsageError, guided
from h3lab.preparing.bound import Bound
from h3lab.preparing.cells import Cells, as_table, matrix, native
from h3lab.preparing.mergeable import Mergeable
from h3lab.serial import codec, signed
from h3lab.testing.fits import Fits, check_near, dense, packed, same_bits, tried


@guided
def check_worker(worker: Any, x: Any, y: Any = None, *, family: Mergeable | None = None, seed: int = 0) -> None:
    """Raises AssertionError that says which promise of :class:`h3lab.preparing.mergeable.Mergeable` the family of a
    worker breaks, and how.

    ``worker``: unfitted, and left as it is. ``x``: a DataFrame or a Series of raw rows, or an array or CSR as an
    earlier worker would give it; ten rows at least. ``y`` (rows,): labels, for a worker that learns from them.
    ``family``: None is the one that is registered for the worker. ``seed``: draws the cuts into parts.
    """
    fits = Fits(worker, _rows(x), None if y is None else np.asarray(y), seed, family)
    if fits.rows < 10:
        raise UsageError(f"{fits.rows} rows came; expected ten or more, so that there are parts to cut them into.")
    if not fits.family.takes(worker, fits.head):
        raise UsageError(
            f"{type(fits.family).__name__} does not take {worker!r} for these rows: its whole column would be fitted."
        )
    for check in WORKER_CHECKS:
        check(fits)


def check_declarations(fits: Fits) -> None:
    """The bound is a Bound and names parameters that there are; what is kept can be made of arrays again."""
    family, bound = fits.family, fits.bound
    assert isinstance(bound, Bound), f"bound gives a {type(bound).__name__}, not a Bound"
    unknown = {name for name, _ in bound.against} - set(fits.worker.get_params())
    assert not unknown, f"the bound is against parameters that the worker lacks: {sorted(unknown)}"
    assert family.kept is None or callable(family.kept.of), "kept has no of(arrays)"
    assert isinstance(family.labelled, bool), "labelled is True or False"


def check_equality(fits: Fits) -> None:
    """However the rows are cut, single rows and empty parts too, the fit is the worker's own on all rows: the same
    attributes, names and outputs, within the bound."""
    their, error = tried(fits.whole)
    assert error is None, f"the worker's own fit on all rows fails: {error!r}"
    for cuts in fits.cuts():
        mine, error = tried(fits.merged, cuts)
        assert error is None, f"parts that begin at {cuts} are not fitted: {error!r}"
        _near(mine, their, fits, f"parts that begin at {cuts}")


def check_gaps(fits: Fits) -> None:
    """Where a part has nothing but missing values, or one value is infinite, it is as with the worker's own fit: equal,
    or an error too."""
    for name, x in _spoilt(fits.x):
        spoilt = replace(fits, x=x)
        their, refused = tried(spoilt.whole)
        mine, error = tried(spoilt.merged, [spoilt.rows // 3, spoilt.rows // 2])
        told = f"scikit-learn says {refused}" if refused else "scikit-learn fits it"
        assert (error is None) == (refused is None), f"{name}: {told}; the fit in parts gives {error or mine!r}"
        if error is None:
            _near(mine, their, spoilt, name)


def check_merging(fits: Fits) -> None:
    """A merge is a fold: what the first states merge to may stand in their place. The same states give the same bits,
    and are not changed."""
    for cuts in fits.cuts()[1:]:
        states = fits.states(cuts)
        before = packed(states, "a state")
        expected = packed(fits.family.merge(states), "a merged state")
        for at in range(1, len(states) + 1):
            folded = fits.family.merge([fits.family.merge(states[:at]), *states[at:]])
            assert packed(folded, "a merged state") == expected, f"the first {at} of {len(states)} merged before differ"
        assert packed(states, "a state") == before, "merge changes the states that it is given"


def check_states(fits: Fits) -> None:
    """States travel by the codec: what comes back finishes the same worker."""
    states = fits.states(fits.cuts()[1])
    again = [codec.unpack(packed(state, "a state")) for state in states]
    workers = [fits.finished(fits.family.merge(one)) for one in (states, again)]
    outputs = [fits.family.transform(worker, fits.x) for worker in workers]
    assert same_bits(*outputs), "states that were packed and unpacked finish another worker"


def check_transform(fits: Fits) -> None:
    """``transform`` gives, from rows or from their digest, the bits that the worker's own gives."""
    worker = fits.merged(fits.cuts()[1])
    for part in fits.parts(fits.cuts()[1]):
        own = worker.transform(native(part.x))
        for x in (part.x, part.digest()):
            assert same_bits(fits.family.transform(worker, x), own), "transform is not the worker's own"


def check_unseen(fits: Fits) -> None:
    """Rows that the fit has not seen are treated as by the worker's own, refused too: here those of the second half."""
    first = np.arange(fits.rows) < fits.rows // 2
    half, rest = fits.only(first), fits.only(~first)
    their, refused = tried(half.whole)
    mine, error = tried(half.merged, [half.rows // 2])
    if refused or error:
        assert refused and error, f"half of the rows: scikit-learn says {refused}, the fit in parts {error}"
        return
    theirs, refused = tried(their.transform, native(rest.x))
    ours, error = tried(fits.family.transform, mine, rest.x)
    assert (error is None) == (refused is None), f"unseen rows: scikit-learn says {refused}, the fit in parts {error}"
    if error is None and not fits.bound.relative:
        assert same_bits(ours, theirs), "unseen rows come out otherwise than from scikit-learn's fit"


def check_untouched(fits: Fits) -> None:
    """Worker and rows are not changed by a part; ``finish`` leaves the parameters; the worker travels."""
    from sklearn.base import clone

    before = dense(native(fits.x)).copy()
    fitted = fits.merged(fits.cuts()[1])
    out = fits.family.transform(fitted, fits.x)
    assert _picture(fits.worker) == _picture(clone(fits.worker)), (
        "takes, digest, partial or merge change the worker that they are given"
    )
    assert same_bits(dense(native(fits.x)), before), "the rows are changed in place"
    assert repr(fitted) == repr(fits.worker), "finish changes parameters"
    again = signed.loads(signed.dumps(fitted))
    assert same_bits(fits.family.transform(again, fits.x), out), "the fitted worker differs after a journey"


WORKER_CHECKS: tuple[Callable[[Fits], None], ...] = (
    check_declarations,
    check_equality,
    check_gaps,
    check_merging,
    check_states,
    check_transform,
    check_unseen,
    check_untouched,
)


def _rows(x: Any) -> Any:
    if hasattr(x, "to_frame"):
        return Cells(as_table(x.to_frame(x.name or "x")), one=True)
    return Cells(as_table(x)) if hasattr(x, "columns") else x


def _near(mine: Any, their: Any, fits: Fits, when: str) -> None:
    _, error = tried(check_near, mine, their, fits, when)
    if error is not None:
        raise error


def _picture(worker: Any) -> str:
    # What begins with "_" is scikit-learn's own cache, which its methods fill whenever they are called.
    return f"{worker!r} {sorted(name for name in vars(worker) if not name.startswith('_'))}"


def _spoilt(x: Any) -> list[tuple[str, Any]]:
    """The same rows with a part of nothing but gaps, and with an infinite value, where they can have them."""
    rows = x.shape[0]
    gap = (np.arange(rows) >= rows // 3) & (np.arange(rows) < rows // 2)
    if isinstance(x, Cells):
        return [] if x.one else [("a part of gaps", _with_gaps(x, gap)), *_infinite(x)]
    values = matrix(x)
    if hasattr(values, "indptr") or values.dtype.kind != "f":
        return []
    infinite = values.copy()
    infinite[rows // 4, 0] = np.inf
    return [("a part of gaps", np.where(gap[:, None], np.nan, values)), ("an infinite value", infinite)]


def _infinite(x: Cells) -> list[tuple[str, Any]]:
    for place, (name, type_) in enumerate(zip(x.names, x.table.schema.types, strict=True)):
        if str(type_) in ("double", "float"):
            values = x.table.column(name).to_numpy().copy()
            values[len(values) // 4] = np.inf
            return [("an infinite value", replace(x, table=x.table.set_column(place, name, [values])))]
    return []


def _with_gaps(x: Cells, gap: np.ndarray) -> Cells:
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = {}
    for field, column in zip(x.table.schema, x.table.columns, strict=True):
        # Whole numbers with gaps are floats in every part, as in one DataFrame.
        plain = column.cast(pa.float64()) if pa.types.is_integer(field.type) else column
        columns[field.name] = pc.if_else(pa.array(gap), pa.scalar(None, plain.type), plain)
    return Cells(pa.table(columns), x.one, x.bare)
