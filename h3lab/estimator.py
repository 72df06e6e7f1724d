"""Estimator: what scikit-learn asks of an actor beyond its methods: tags, and arrays checked in its words.

It knows scikit-learn's conventions; it does not know models or training.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any, TypeVar, cast

from sklearn import exceptions
from sklearn.base import BaseEstimator
from sklearn.utils import ClassifierTags, RegressorTags, Tags, get_tags
from sklearn.utils.validation import _check_sample_weight, validate_data

from h3lab import worlds
from h3lab.errors import DataError, H3labError, NotFittedError, NotOffered, UnknownName, UsageError, guided
from h3lab.preparing.cells import as_table
from h3lab.spec import Task


class NotLearned(NotFittedError, exceptions.NotFittedError):
    """What scikit-learn expects an estimator to raise, in h3lab's tree."""


class NoNumbers(DataError, TypeError):
    """scikit-learn wants a TypeError for values that no number can be made of."""


class Estimator(BaseEstimator):
    """scikit-learn's, with h3lab's answer to a parameter that is not there."""

    def set_params(self, **params: Any) -> Any:
        """Change parameters, ``model__lr`` those of the model; UnknownName lists them."""
        try:
            return super().set_params(**params)
        except ValueError as error:
            known = self.get_params()
            for name in params:
                if name not in known:
                    inner = f"{name.partition('__')[0]}__" if "__" in name else ""
                    near = [each for each in known if each.startswith(inner) and (inner or "__" not in each)]
                    raise UnknownName("parameter", name, near, type(self).__name__) from error
            raise


Method = TypeVar("Method", bound=Callable[..., Any])


class available_if:
    """A method that an actor has only where ``check(actor)`` raises nothing; else there is none, and the error says
    why. (scikit-learn's own says only that the attribute is missing.)"""

    def __init__(self, check: Callable[[Any], None]) -> None:
        self._check = check

    def __call__(self, method: Method) -> Method:
        self._method = guided(method)
        functools.update_wrapper(self, self._method)
        return cast(Method, self)

    def __get__(self, actor: Any, owner: type) -> Any:
        if actor is None:
            return self._method
        try:
            self._check(actor)
        except NotOffered:
            raise
        except H3labError as error:
            raise NotOffered(str(error)) from error
        return MethodType(self._method, actor)


_TASKS: dict[str | None, Task] = {"classifier": "classification", "regressor": "regression"}


def classifies(actor: Any) -> None:
    """NotOffered where it has no logits of classes."""
    if actor.task == "regression":
        raise NotOffered(f"actor {actor.name!r} is a regression: it has no probabilities; use actor.predict(X).")


def knows_probabilities(actor: Any) -> None:
    """NotOffered where it has no probabilities of classes."""
    classifies(actor)
    model = actor.model_ if hasattr(actor, "model_") else worlds.wrap(actor.model)
    if not model.capabilities.probabilities:
        raise NotOffered(
            f"actor {actor.name!r} has a model with margins and no probabilities; take one that has them, for example "
            "CalibratedClassifierCV around the estimator, or use decision_function."
        )


def learns_in_steps(actor: Any) -> None:
    """NotOffered where it cannot go on learning from more rows."""
    if worlds.wrap(actor.model).capabilities.learns != "batches":
        raise NotOffered(
            f"actor {actor.name!r} has a model that learns from all rows at once; use fit, or a model with partial_fit."
        )


def lab_of(given: Any) -> Any:
    """A lab; UsageError for anything else."""
    if not hasattr(given, "missing"):
        raise UsageError(f"a {type(given).__name__} came as lab; expected a Lab: actor.check(h3.Lab()).")
    return given


def declared_task(model: Any, pipeline: Any) -> Task | None:
    """The task as a pipeline or a model's kind says before any data came; None where the labels will tell."""
    if getattr(pipeline, "task", None) is not None:
        return pipeline.task  # type: ignore[no-any-return]
    kind = get_tags(model).estimator_type if hasattr(model, "__sklearn_tags__") else None
    return _TASKS.get(kind) or getattr(model, "task", None)


def apart(model: Any, pipeline: Any) -> tuple[Any, Any]:
    """(model, pipeline) of an actor. A scikit-learn Pipeline that begins with a ColumnTransformer is taken apart, so
    that its steps are fitted as those of any pipeline, and its last one is the model."""
    if pipeline is None and _selects_columns(model) and len(getattr(model, "steps", ())) > 1:
        return model.steps[-1][1], model[:-1]
    return model, pipeline


def joined(model: Any, pipeline: Any) -> Any:
    """A fitted estimator behind a fitted transformer of scikit-learn's, as one; any other model as it is."""
    from h3lab.preparing.from_sklearn import is_fitted, is_transformer

    if hasattr(pipeline, "recipe") or not is_transformer(pipeline) or not hasattr(model, "predict"):
        return model
    from sklearn.pipeline import Pipeline

    fitted = is_fitted(pipeline) and is_fitted(model)
    return Pipeline([("pipeline", pipeline), ("model", model)]) if fitted else model


def reads_raw(model: Any) -> bool:
    """Whether a model, or a Model of one, came fitted with a ColumnTransformer in it, and so answers raw rows."""
    native = getattr(model, "estimator_", getattr(model, "estimator", model))
    return _selects_columns(native) and hasattr(native, "feature_names_in_")


def raw_columns(model: Any, X: Any) -> Any:
    """The columns of raw rows that such a model asks for, as a DataFrame; UnknownName for one that is missing."""
    names = [str(name) for name in model.native.feature_names_in_]
    if hasattr(X, "iloc") and hasattr(X, "columns") and set(names) <= set(X.columns):
        return X[names]  # with the types that it has, as scikit-learn would be given it
    return as_table(X, names).to_pandas()


def _selects_columns(model: Any) -> bool:
    if not type(model).__module__.startswith(("sklearn.pipeline", "sklearn.frozen")):
        return False
    from sklearn.compose import ColumnTransformer

    row: Any = getattr(model, "estimator", model)  # a FrozenEstimator
    return hasattr(row, "steps") and isinstance(row.steps[0][1], ColumnTransformer)


def complete(tags: Tags, model: Any, task: Task | None) -> Tags:
    """An actor's tags from those of its model and its task."""
    tags.target_tags.required = True
    tags.input_tags.sparse = True
    if hasattr(model, "__sklearn_tags__"):
        inner = get_tags(model)
        tags.input_tags.allow_nan = inner.input_tags.allow_nan
        tags.target_tags.multi_output = inner.target_tags.multi_output
        tags.non_deterministic = inner.non_deterministic
        tags.classifier_tags, tags.regressor_tags = inner.classifier_tags, inner.regressor_tags
    if task == "classification":
        tags.estimator_type = "classifier"
        tags.classifier_tags, tags.regressor_tags = tags.classifier_tags or ClassifierTags(), None
        # A feed has one label a row, whatever the estimator inside could do.
        tags.classifier_tags.multi_label = tags.target_tags.multi_output = False
    elif task == "regression":
        tags.estimator_type = "regressor"
        tags.classifier_tags, tags.regressor_tags = None, tags.regressor_tags or RegressorTags()
    else:  # the labels will tell, and it may be either
        tags.classifier_tags, tags.regressor_tags = ClassifierTags(), RegressorTags()
    return tags


def checked(actor: Any, X: Any, y: Any, sample_weight: Any = None, reset: bool = True) -> tuple[Any, Any, Any]:
    """(X, y, weight) as scikit-learn wants them: X of two dimensions or more, numbers, finite unless the model takes
    NaN; ``reset`` remembers columns and their names in the actor. A dict of blocks passes."""
    if y is None:
        raise UsageError(
            "this actor requires y to be passed, but the target y is None. Pass (X, y); rows that have the label in a "
            "column need a pipeline that names it, Pipeline(..., label=...)."
        )
    if isinstance(X, Mapping) and not hasattr(X, "tocsr"):
        return X, y, sample_weight
    X = array(actor, X, reset)
    if sample_weight is not None:
        with _worded():
            sample_weight = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
    return X, y, sample_weight


def given(actor: Any, X: Any, y: Any, sample_weight: Any) -> Any:
    """The arguments of ``fit`` as data for a training: X alone where it brings its labels, else a tuple."""
    whole = actor.pipeline is not None or hasattr(X, "spec") or worlds.holds_examples(X)
    return X if whole and y is None and sample_weight is None else (X, y, sample_weight)


def unpaired(X: Any, y: Any) -> tuple[Any, Any]:
    """(X, y) of a torch Dataset or DataLoader; anything else as it is."""
    if not worlds.holds_examples(X):
        return X, y
    X, own = worlds.load(worlds.PAIR)(X)
    return X, own if y is None else y


def array(actor: Any, X: Any, reset: bool) -> Any:
    """X as an array or CSR matrix, its columns and their names checked against those that the actor remembers."""
    arrays = ("__array__", "__array_interface__", "__dlpack__", "tocsr")
    if isinstance(X, str) or not (isinstance(X, Sequence) or any(hasattr(X, name) for name in arrays)):
        raise UsageError(
            f"a {type(X).__name__} came as X; expected numbers (rows, columns) in an array or a table. Raw rows, such "
            "as files, sources or text, need an actor with a pipeline: Actor(name, model, pipeline)."
        )
    finite = "allow-nan" if get_tags(actor).input_tags.allow_nan else True
    with _worded():
        return validate_data(actor, X, reset=reset, accept_sparse="csr", allow_nd=True, ensure_all_finite=finite)


@contextmanager
def _worded() -> Iterator[None]:
    """scikit-learn's words for wrong arrays as DataError, with what to do, and without the array and the links."""
    try:
        yield
    except (TypeError, ValueError) as error:
        lines = str(error).split("\n")
        said = lines[0].removesuffix(" instead:")
        if "Reshape your data" in lines[-1]:
            said += f". {lines[-1]}"
        elif "NaN" in said:
            said += " Fill or drop these rows, for example with SimpleImputer() in a pipeline."
        elif "convert" in said or "numeric" in said or "must be" in said:
            said += ". Text and categories go through a pipeline: Actor(name, model, pipeline)."
        raise (DataError if isinstance(error, ValueError) else NoNumbers)(said) from error
