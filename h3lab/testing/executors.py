"""What every Executor promises, as checks that its author can run: order, errors, giving up, reuse, and the same bits.

They know ``map``; they do not know processes.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from h3lab.errors import DataError, UnknownName, UsageError, guided
from h3lab.preparing.executor import Executor, Here


@guided
def check_executor(executor: Executor) -> None:
    """Raises AssertionError that says what an executor breaks of its promises. It is used many times, and not closed.
    Takes some seconds."""
    if not callable(getattr(executor, "map", None)):
        raise UsageError(f"a {type(executor).__name__} came; expected an executor, with width, local and map.")
    for check in EXECUTOR_CHECKS:
        check(executor)


def check_order(executor: Executor) -> None:
    """Results come in the order of the tasks, whichever are done first; no tasks give no results; functions may be
    closures."""
    offset = 100

    def late(number: int) -> tuple[int, bytes]:
        time.sleep(0.02 * (number % 3 == 0))
        return offset + number, b"\x00" * number

    assert executor.width >= 1
    found = list(executor.map(late, range(20), "order"))
    assert found == [(100 + n, b"\x00" * n) for n in range(20)], f"{found} came for tasks in order"
    assert list(executor.map(late, [], "nothing")) == []


def check_laziness(executor: Executor) -> None:
    """Results come while later tasks are still to be done, by a generator that can be closed."""
    with tempfile.TemporaryDirectory() as folder:

        def wait(number: int) -> int:
            """The last task waits for whoever has received the first result."""
            deadline = time.monotonic() + 30
            while number == 63 and not (Path(folder) / "received").exists():
                if time.monotonic() > deadline:
                    raise TimeoutError("the first result was not handed out before the last task was done")
                time.sleep(0.01)
            return number

        results = executor.map(wait, range(64), "laziness")
        assert iter(results) is results, "map gives an iterator"
        assert next(results) == 0
        (Path(folder) / "received").touch()
        assert list(results) == list(range(1, 64))


def check_errors(executor: Executor) -> None:
    """An error of ours keeps its class, any other becomes a DataError; both name the pass and the part, and the text
    or the notes say where it was raised."""

    def misspelt(number: int) -> int:
        if number == 2:
            raise UnknownName("column", "sise", ["size"])
        return number

    def divide(number: int) -> float:
        return 1 / (number - 2)

    error = _raised(UnknownName, executor, misspelt)
    assert "fitting, part 3" in " ".join(error.__notes__), f"its notes do not name the part: {error.__notes__}"
    assert "Did you mean 'size'" in str(error)
    error = _raised(DataError, executor, divide)
    assert "fitting, part 3" in str(error) and "ZeroDivisionError" in str(error), f"it says {error}"
    where = f"{error} {' '.join(getattr(error, '__notes__', []))}" if error.__cause__ is None else _trace(error)
    assert "in divide" in where, "it does not say where it was raised"
    assert list(executor.map(abs, [-1], "after an error")) == [1], "after an error it cannot be used again"


def check_giving_up(executor: Executor) -> None:
    """Closing the iterator gives up the rest: nothing is worked on any more, and the executor can be used again."""
    with tempfile.TemporaryDirectory() as folder:

        def slow(number: int) -> int:
            (Path(folder) / f"{number}").touch()
            time.sleep(0.05)
            return number

        results = executor.map(slow, range(400), "giving up")
        assert next(results) == 0
        results.close()
        begun = len(os.listdir(folder))
        time.sleep(0.3)
        assert len(os.listdir(folder)) == begun < 400, f"{len(os.listdir(folder)) - begun} tasks began after the end"
    assert list(executor.map(abs, [-1, -2], "again")) == [1, 2], "once closed it cannot be used again"


def check_passes(executor: Executor) -> None:
    """A second map may begin while the first is not read to its end."""
    first = executor.map(abs, range(0, -6, -1), "one")
    assert next(first) == 0
    assert list(executor.map(str, range(5), "two")) == list("01234")
    assert list(first) == [1, 2, 3, 4, 5]


def check_bits(executor: Executor) -> None:
    """A preparation gives the same bits as one task after another in this process."""
    import pandas as pd
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import QuantileTransformer, StandardScaler

    from h3lab.pipeline import Pipeline, Preprocessor
    from h3lab.preparing.prepare import prepare

    rng = np.random.default_rng(0)
    words = np.array("the a spam free call now win cash hello dear".split())
    frame = pd.DataFrame({"text": [" ".join(rng.choice(words, 5)) for _ in range(500)], "x": rng.normal(1e6, 1, 500)})
    with tempfile.TemporaryDirectory() as folder:
        for number in range(5):
            frame[number * 100 : number * 100 + 100].to_parquet(f"{folder}/rows-{number}.parquet")
        pipeline = Pipeline(
            Preprocessor("text", "text", TfidfVectorizer()),
            Preprocessor("x", ["x"], StandardScaler(), QuantileTransformer(n_quantiles=20)),
            join="blocks",
        )
        there = prepare(pipeline, f"{folder}/rows-*.parquet", to=f"{folder}/there", executor=executor)
        here = prepare(pipeline, f"{folder}/rows-*.parquet", to=f"{folder}/here", executor=Here())
        assert there.pipeline == here.pipeline, "another pipeline was fitted"
        hashes = [[part["hash"] for part in (feed.manifest or {})["parts"]] for feed in (there, here)]
        assert hashes[0] == hashes[1], "other rows were prepared"


EXECUTOR_CHECKS: tuple[Callable[[Executor], None], ...] = (
    check_order,
    check_laziness,
    check_errors,
    check_giving_up,
    check_passes,
    check_bits,
)


def _raised(kind: type[Exception], executor: Executor, function: Callable[[int], Any]) -> Any:
    try:
        list(executor.map(function, range(6), "fitting"))
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected, nothing was raised")


def _trace(error: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(error))
