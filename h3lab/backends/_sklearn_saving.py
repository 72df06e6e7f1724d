"""A SklearnModel as a document: a codec tree with its estimators as skops bytes, nothing ever unpickled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sklearn.base import clone

from h3lab.backends._sklearn import SklearnModel
from h3lab.serial import trust
from h3lab.spec import Spec


def to_document(model: SklearnModel) -> dict[str, Any]:
    """The codec tree. ``types``: names of what is not scikit-learn's own and :func:`from_document` has to be given."""
    recipe = clone(model.estimator, safe=False)
    name = type(recipe).__name__
    return {
        "estimator": trust.dumps(recipe, name),
        "clip": model.clip,
        "state": {**model.state(), "estimator": trust.dumps(model.native, name)},
        "types": [trust.name_of(kind) for kind in trust.types_in([recipe, model.native])],
        "build": "",
    }


def from_document(tree: Mapping[str, Any], spec: Spec, build: Any, types: Iterable[Any]) -> SklearnModel:
    """The inverse; ``build`` is for networks. Untrusted names the types that are missing."""
    types = tuple(types)
    model = SklearnModel(trust.loads(tree["estimator"], types, "the saved estimator"), clip=tree["clip"])
    model.build(spec, 0)
    model.load_state(tree["state"], types)
    return model
