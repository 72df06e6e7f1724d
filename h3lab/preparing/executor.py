"""An Executor: where the parts of a data set are worked on. The one-method seam between the verbs and a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


class Executor(Protocol):
    """Guarantees: every task is run to its end once in effect (a task whose process died is run again, so a function
    must be repeatable); results come in the order of the tasks; the first error is raised with the remote traceback
    and the rest is given up."""

    #: How many tasks run at a time.
    width: int

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task], label: str = "") -> Iterator[Result]:
        """Results of ``function(task)`` in order; ``label`` names the pass for progress and errors. Functions, tasks
        and results are pickled, so rows go by storage, not through here."""
        ...


class Here:
    """This process, one task after another: what ``pipeline.fit`` and tests use."""

    width = 1

    def map(self, function: Callable[[Any], Any], tasks: Sequence[Any], label: str = "") -> Iterator[Any]:
        """See :class:`Executor`."""
        return map(function, tasks)
