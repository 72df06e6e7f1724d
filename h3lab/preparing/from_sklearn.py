"""scikit-learn's containers as a Pipeline: a ColumnTransformer's columns become blocks, a Pipeline's steps workers.

It knows how these containers name columns; it fits nothing. What came fitted is only applied.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from h3lab import worlds
from h3lab.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from h3lab.pipeline import Pipeline
    from h3lab.preprocessor import Preprocessor

#: Rows whose types a column selector is shown.
HEAD_ROWS = 64


def is_transformer(given: Any) -> bool:
    """Whether something is scikit-learn's: a container of transformers, or a transformer."""
    if isinstance(given, type) or not (hasattr(given, "fit") and hasattr(given, "get_params")):
        return False
    return hasattr(given, "transform") or hasattr(given, "steps")  # a Pipeline has transform only where its end has it


def is_fitted(given: Any) -> bool:
    """Whether a transformer has learned, so that it is only applied."""
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(given)
    except (NotFittedError, TypeError):
        return False
    return True


def as_pipeline(given: Any, source: Any, label: str | None = None, **settings: Any) -> Pipeline:
    """A Pipeline as it is; scikit-learn's ColumnTransformer, Pipeline of transformers or transformer as one.

    ``source``: rows with all its columns, whose order and types integers, slices and column selectors ask for; the
    label and the weight are not among them. Steps become blocks of the same name in the same order, their outputs equal
    those of ``transform``. UnknownName: a step's column that the rows do not have. UsageError names the step that has
    no counterpart.
    """
    from h3lab.pipeline import Pipeline

    if isinstance(given, Pipeline):
        return given
    if not is_transformer(given):
        hint = f" Write {given.__name__}() with its parentheses." if isinstance(given, type) else ""
        raise UsageError(
            f"a {type(given).__name__} came as pipeline; expected a Pipeline, or scikit-learn's ColumnTransformer or "
            f"Pipeline of transformers.{hint} For example "
            'h3.Pipeline(h3.Preprocessor("numbers", ["price"], StandardScaler()), label="rating"), or '
            'h3.Pipeline.guess(rows, label="rating").'
        )
    told = [name for name in (label, settings.get("weight")) if name is not None]
    return Pipeline(*blocks_of(given, frame_of(source, told)), label=label, **settings)


def frame_of(source: Any, told: Sequence[str] = ()) -> Any:
    """A DataFrame of the first rows without the columns that are no inputs; one that came is asked itself."""
    if hasattr(source, "iloc") and hasattr(source, "columns"):
        frame = source.rename(columns=str)
    else:
        frame = worlds.load(worlds.READ)(source).first(HEAD_ROWS).to_pandas()
    for name in told:
        if name not in frame.columns:
            raise UnknownName("column", name, frame.columns, "the source")
    return frame.drop(columns=list(told))


def blocks_of(given: Any, frame: Any) -> list[Preprocessor]:
    """The blocks of a transformer over the columns of a frame."""
    from sklearn.frozen import FrozenEstimator
    from sklearn.pipeline import Pipeline as Row

    from h3lab.preprocessor import Preprocessor

    if isinstance(given, FrozenEstimator):
        given = given.estimator
    if isinstance(given, Row):
        _check_ends_in_transformer(given)
        steps = [(name, step) for name, step in given.steps if not _passes(step)]
        if len(steps) == 1 and _selects(steps[0][1]):
            return blocks_of(steps[0][1], frame)
        name = next((name for name, _ in steps), "columns")
        columns = needed(steps[0][1], frame) if steps and _selects(steps[0][1]) else list(frame.columns)
        return [Preprocessor(name, columns, *workers(given, is_fitted(given), name))]
    if _selects(given):
        return _blocks(given, frame)
    return [Preprocessor(type(given).__name__.lower(), list(frame.columns), *workers(given, is_fitted(given), "it"))]


def _selects(given: Any) -> bool:
    from sklearn.compose import ColumnTransformer

    return isinstance(given, ColumnTransformer)


def _passes(step: Any) -> bool:
    return step is None or isinstance(step, str) and step == "passthrough"


def _check_ends_in_transformer(row: Any) -> None:
    name, last = row.steps[-1]
    if not _passes(last) and not hasattr(last, "transform"):
        raise UsageError(
            f"step {name!r} is a {type(last).__name__}, which is no transformer: a Pipeline with its model "
            'is an actor, h3.Actor("name", pipeline), and pipeline[:-1] is what prepares.'
        )


def _blocks(given: Any, frame: Any) -> list[Preprocessor]:
    """One block for each step of a ColumnTransformer that keeps something, the remainder last."""
    from h3lab.preprocessor import Preprocessor

    if given.transformer_weights:
        raise UsageError(
            f"transformer_weights={given.transformer_weights!r} multiplies whole blocks, which a Pipeline does not do. "
            "Leave it out, and put a FunctionTransformer that multiplies at the end of that step."
        )
    fitted, found = is_fitted(given), []
    for name, worker, columns in _steps(given, frame, fitted):
        names = [columns] if isinstance(columns, str) else columns
        for column in names:
            if column not in frame.columns and not _dropped(worker):
                raise UnknownName("column", column, frame.columns, f"the source (step {name!r})")
        if names and not _dropped(worker):
            found.append(Preprocessor(name, columns, *workers(worker, fitted, name)))
    if not found:
        raise UsageError(f"{_short(given)} keeps no column of {list(frame.columns)}.")
    return found


def _dropped(worker: Any) -> bool:
    return isinstance(worker, str) and worker == "drop"


def _steps(given: Any, frame: Any, fitted: bool) -> Iterator[tuple[str, Any, Any]]:
    """(name, worker, columns by name): a string where a 1-D column is selected, else a list."""
    if fitted:
        # Fitting has asked the selectors, and counts columns as it saw them.
        import pandas as pd

        frame = pd.DataFrame(columns=seen(given, frame))
        passed = [name for name, worker, _ in given.transformers if _passes(worker)]
        passed += ["remainder"] if _passes(given.remainder) else []
        for name, worker, columns in given.transformers_:
            yield name, "passthrough" if name in passed else worker, named(columns, frame, name)
        return
    used: set[str] = set()
    for name, worker, columns in given.transformers:
        chosen = named(columns, frame, name)
        used |= {chosen} if isinstance(chosen, str) else set(chosen)
        yield name, worker, chosen
    yield "remainder", given.remainder, [column for column in frame.columns if column not in used]


def seen(given: Any, frame: Any) -> list[str]:
    """The columns that a fitted transformer was shown, by name; those of the frame where it was shown an array."""
    if hasattr(given, "feature_names_in_"):
        return [str(name) for name in given.feature_names_in_]
    if given.n_features_in_ != len(frame.columns):
        raise UsageError(
            f"{_short(given)} was fitted on an array of {given.n_features_in_} columns, and the source has "
            f"{len(frame.columns)}: {list(frame.columns)}. Fit it on a DataFrame, so that it knows their names."
        )
    return list(frame.columns)


def named(columns: Any, frame: Any, step: str) -> Any:
    """A step's columns by name: a string for one 1-D column, else a list, as scikit-learn reads them: names, positions,
    slices, masks, or a function of the frame."""
    if callable(columns):
        columns = columns(frame)
    known = list(frame.columns)
    try:
        if isinstance(columns, slice):
            by_name = isinstance(columns.start, str) or isinstance(columns.stop, str)
            return list(frame.loc[:, columns].columns) if by_name else known[columns]
        if isinstance(columns, str) or hasattr(columns, "__index__"):
            return columns if isinstance(columns, str) else known[columns]
        columns = list(columns)
        if columns and all(type(one).__name__ in ("bool", "bool_") for one in columns):
            return [name for name, chosen in zip(known, columns, strict=True) if chosen]
        return [one if isinstance(one, str) else known[one] for one in columns]
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"step {step!r} selects {columns!r}, which does not fit the columns of the source, {known}: {error}. "
            "Select by name."
        ) from error


def needed(given: Any, frame: Any) -> list[str]:
    """The columns that a ColumnTransformer must be shown: those it names, or all where it counts or asks."""
    specs = [columns for _, _, columns in given.transformers]
    lists = [[one] if isinstance(one, str) else one for one in specs]
    if given.remainder == "drop" and all(
        isinstance(one, list) and all(isinstance(c, str) for c in one) for one in lists
    ):
        chosen = {column for one in lists for column in one}
        return [column for column in frame.columns if column in chosen]
    return seen(given, frame) if is_fitted(given) else list(frame.columns)


def workers(given: Any, fitted: bool, step: str) -> list[Any]:
    """A step's transformer as a row of workers; what stands inside another container is one worker, fitted whole."""
    from sklearn.frozen import FrozenEstimator
    from sklearn.pipeline import Pipeline as Row

    if _passes(given):
        return []
    if isinstance(given, Row):
        _check_ends_in_transformer(given)
        return [worker for name, one in given.steps for worker in workers(one, fitted, f"{step}: {name}")]
    if not is_transformer(given):
        raise UsageError(f"step {step!r} is {given!r}; expected a transformer, 'passthrough' or 'drop'.")
    return [FrozenEstimator(given) if fitted and not isinstance(given, FrozenEstimator) else given]


def _short(given: Any) -> str:
    return f"this {type(given).__name__}"
