"""An Executor: where the parts of a data set are worked on. The one-method seam between the verbs and a cluster.

``h3lab.testing.check_executor`` is the conformance suite of whatever is written to this seam.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from h3lab.errors import DataError, H3labError
from h3lab.settings import whole

Task = TypeVar("Task")
Result = TypeVar("Result")


class Executor(Protocol):
    """Guarantees: every task is run to its end once in effect (a task whose process died, or takes many times as long
    as the others, is run again, so a function must be repeatable); results come in the order of the tasks; the first
    error is raised, with its part named and the remote traceback, and the rest is given up. Closing the iterator gives
    up too, and nothing works for it any more once that returns; the executor can be used again."""

    #: How many tasks run at a time.
    width: int
    #: Whether tasks run in this process, so that nothing is pickled.
    local: bool

    def map(
        self, function: Callable[[Task], Result], tasks: Sequence[Task], label: str = "", alike: bool = True
    ) -> Generator[Result, None, None]:
        """Results of ``function(task)`` in order, by a generator; ``label`` names the pass for progress and errors.
        Functions, tasks and results are pickled where this is not ``local``, so rows go by storage, not through here.
        ``alike``: the tasks are about as long as one another, so that one which takes much longer is in trouble."""
        ...


class Here:
    """This process: one task after another, or in ``threads`` at a time. What ``pipeline.fit`` and tests use."""

    local = True

    def __init__(self, threads: int = 1) -> None:
        self.width = whole("threads", threads, 1)

    def map(
        self, function: Callable[[Any], Any], tasks: Sequence[Any], label: str = "", alike: bool = True
    ) -> Generator[Any, None, None]:
        """See :class:`Executor`."""
        if self.width == 1:
            for number, task in enumerate(tasks):
                yield named(lambda task=task: function(task), label, number)  # type: ignore[misc]
            return
        pool = ThreadPoolExecutor(self.width, thread_name_prefix="h3lab part")
        ahead: deque[Future[Any]] = deque()
        try:
            for number, task in enumerate(tasks):
                ahead.append(pool.submit(function, task))
                # No further ahead than that: what is done and not fetched is held in memory.
                if len(ahead) == 2 * self.width:
                    yield named(ahead.popleft().result, label, number + 1 - 2 * self.width)
            for number in range(len(tasks) - len(ahead), len(tasks)):
                yield named(ahead.popleft().result, label, number)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def named(result: Callable[[], Any], label: str, number: int) -> Any:
    """What a call gives; what it raises says which part it was."""
    try:
        return result()
    except Exception as error:
        raise told(error, f"{type(error).__name__}: {error}", part(label, number)) from error.__cause__ or error


def told(error: BaseException | None, text: str, where: str) -> H3labError:
    """The error of a task as its caller gets it: ours stay what they are, with a note; others become a DataError."""
    if isinstance(error, H3labError):
        error.add_note(where)
        return error
    return DataError(f"{where} failed: {text}")


def part(label: str, number: int) -> str:
    """``fitting, part 3``: a task as messages call it."""
    return f"{label}, part {number + 1}" if label else f"part {number + 1}"


@contextmanager
def seeing() -> Iterator[None]:
    """Errors of files that are not there, which name the slot that does not see them: whoever began has seen them."""
    try:
        yield
    except (H3labError, FileNotFoundError) as error:
        missing = error if isinstance(error, FileNotFoundError) else error.__cause__
        if "H3LAB_SLOT" not in os.environ or not isinstance(missing, FileNotFoundError):
            raise
        raise unseen(f"{missing.filename or error}".removesuffix(".")) from error


def unseen(path: str) -> DataError:
    """A path that whoever began has seen, and this slot does not."""
    return DataError(
        f"{os.environ['H3LAB_SLOT']} on {socket.gethostname()} does not see {path}. It was removed meanwhile, or it is "
        "on a disk that this machine does not share: put it where all engines see it, or pass a URL (webhdfs://, "
        "s3://, ...)."
    )


def seen(folder: Path | str) -> None:
    """DataError where a folder that is to be written to is not there: made anew, nobody else would find it."""
    if isinstance(folder, Path):
        with seeing():
            folder.stat()
