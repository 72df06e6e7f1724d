"""Mergeable: what a fit in parts promises. Partial states of parts, merged in part order, finish a worker as its own
``fit`` on all rows would have.

Families of scikit-learn's workers implement it in ``workers/``; third parties join through the entry point group
``h3lab.workers`` with an object of this protocol that also has ``wraps``, the class that it is for, or a tuple of them.
``h3lab.testing.check_worker`` is the conformance suite of whatever is written to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from h3lab.preparing.bound import Bound


class Mergeable(Protocol):
    """The mergeable fit of some worker classes. Stateless: what is learned travels in the states.

    An input ``x`` is ``Cells`` (columns of raw rows), an array (rows, ...) or a CSR matrix (an earlier worker's
    output). A state is a tree that ``h3lab.serial.codec`` packs: dicts, lists, arrays, numbers and text.
    """

    #: The class of digests that are no input by themselves: ``x.arrays()`` names its arrays, ``kept.of(arrays)`` makes
    #: it again; None where there is no such class.
    kept: Any
    #: Whether :meth:`partial` is given the labels too, as a third argument: a Series, or None where there are none.
    labelled: bool

    def bound(self, worker: Any) -> Bound:
        """What is promised against the worker's own fit on all rows."""
        ...

    def takes(self, worker: Any, x: Any) -> bool:
        """Whether a worker of these parameters, given inputs such as the rows ``x`` (a few of the first), can be
        fitted so; else it takes its whole column."""
        ...

    def digest(self, worker: Any, x: Any) -> Any:
        """What both :meth:`partial` and :meth:`transform` begin with, so that it is computed and kept once (tokenised
        text); ``x`` itself where there is no such thing."""
        ...

    def partial(self, worker: Any, x: Any, *labels: Any) -> Any:
        """The state of one part of at least one row, from its digest."""
        ...

    def merge(self, states: Sequence[Any]) -> Any:
        """The state of all parts, in part order. States are folded: what the first of them merge to may stand in their
        place, and the merge with those that follow has the same bits. At least one state comes."""
        ...

    def finish(self, worker: Any, state: Any, x: Any) -> None:
        """Set the fitted attributes, scikit-learn's own included (``n_features_in_`` ...), from the merged state and a
        few of the first rows."""
        ...

    def transform(self, worker: Any, x: Any) -> Any:
        """Exactly what ``worker.transform`` gives, from rows or from their digest."""
        ...


class Plain:
    """The parts of a Mergeable that most families share: no digest, the worker's own transform."""

    kept: Any = None
    labelled = False

    def bound(self, worker: Any) -> Bound:
        """The same bits."""
        return Bound()

    def takes(self, worker: Any, x: Any) -> bool:
        """See :class:`Mergeable`."""
        return True

    def digest(self, worker: Any, x: Any) -> Any:
        """See :class:`Mergeable`."""
        return x

    def transform(self, worker: Any, x: Any) -> Any:
        """See :class:`Mergeable`."""
        from h3lab.preparing.cells import native

        return worker.transform(native(x))
