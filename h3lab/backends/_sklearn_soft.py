"""Lessons: what an estimator is given to learn of a batch, with a teacher's answers or without, and how well it did.

A classifier learns a teacher's probabilities p, taken at temperature T, from weighted copies: each row once a class,
weighted ``soft * p(class)``, its own class with ``hard / T`` more. It so matches at *its* temperature one what the
teacher says at T; its logits are therefore T times what it learned (:attr:`Lesson.temperature`). Left out, the student
would be as undecided as a teacher at T: on digits the calibration error is then .4 in place of .03. And because what is
learned is a T-th of the logits, a hard copy pulls T times as hard as the hard loss does: hence ``hard / T``. A
regressor learns the weighted mean of target and teacher's prediction, which has the same minimum as the two squared
errors.

It knows arrays, weights and settings; it does not know estimators.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from h3lab.batch import Batch, Inputs, take
from h3lab.errors import DataError, ModelError, SpecMismatch
from h3lab.memory import free_memory
from h3lab.settings import Settings
from h3lab.spec import Spec

#: Copies with less of their row's weight than this are left out, and the row's others carry their weight.
LEAST_SHARE = 1e-3


@dataclass(frozen=True)
class Lesson:
    """Rows ``x`` with targets ``y`` (class codes, or floats) and ``weight`` (None: all equal); ``temperature`` of what
    is learned from them."""

    x: Inputs
    y: np.ndarray
    weight: np.ndarray | None
    temperature: float = 1.0


def lesson(batch: Batch, settings: Settings, spec: Spec) -> Lesson:
    """What to learn of this batch. Raises ModelError without labels and teacher, SpecMismatch for unknown classes."""
    if batch.y is not None and spec.classes is not None and len(batch):
        low, high = int(np.min(batch.y)), int(np.max(batch.y))
        if low < 0 or high >= spec.classes:
            raise SpecMismatch(
                f"the batch has labels from {low} to {high}, the model knows {spec.classes} classes "
                f"(0..{spec.classes - 1}). Build it with classes={high + 1}, or correct the data."
            )
    soft = 0.0 if batch.soft is None else float(settings.soft)
    hard = 1.0 if batch.soft is None else 0.0 if batch.y is None else float(settings.hard)
    if batch.y is None and not soft:
        raise ModelError("the batch has neither labels nor a teacher's answers, so there is nothing to learn from.")
    if batch.weight is not None and not batch.weight.all():
        # Most estimators learn something of rows of weight zero all the same, if only their number.
        batch = batch.take(batch.weight != 0)
    if not soft:
        assert batch.y is not None
        return Lesson(batch.x, batch.y, batch.weight)
    assert batch.soft is not None
    if spec.task == "regression":
        near = np.asarray(batch.soft, np.float64).reshape(len(batch), -1)
        target = near if batch.y is None else (soft * near + hard * batch.y.reshape(near.shape)) / (soft + hard)
        return Lesson(batch.x, target[:, 0] if spec.outputs == 1 else target, batch.weight)
    return _copies(batch, np.exp(log_softmax(batch.soft / settings.temperature)), soft, hard, settings.temperature)


def _copies(batch: Batch, p: np.ndarray, soft: float, hard: float, temperature: float) -> Lesson:
    share = soft * p
    if batch.y is not None:
        share[np.arange(len(p)), batch.y] += hard / temperature
    total = share.sum(axis=1, keepdims=True)
    share[share < LEAST_SHARE * total] = 0.0
    share *= total / share.sum(axis=1, keepdims=True)
    if batch.weight is not None:
        share *= batch.weight[:, None]
    rows, codes = np.nonzero(share)
    _check_room(batch, len(rows))
    return Lesson(take(batch.x, rows), codes.astype(np.int64), share[rows, codes], temperature)


def _check_room(batch: Batch, copies: int) -> None:
    x = batch.x
    size = (x.data.nbytes if hasattr(x, "indptr") else x.nbytes) * copies / max(len(batch), 1)
    if size > free_memory() / 2:
        raise DataError(
            f"learning a teacher's probabilities takes {copies:,} weighted copies of {len(batch):,} rows, "
            f"{size / 2**30:.1f} GiB, and half of the free memory is {free_memory() / 2**31:.1f} GiB. Take fewer rows, "
            "a lower temperature (fewer classes count), or a student that learns by batches, such as SGDClassifier."
        )


def measures(z: np.ndarray, batch: Batch, settings: Settings, spec: Spec) -> dict[str, float]:
    """``loss`` and its parts from logits (or predictions) ``z`` of the batch's rows, as means over rows: cross entropy
    or squared error; with a teacher soft · T² KL + hard · that."""
    weight = np.ones(len(z)) if batch.weight is None else batch.weight
    total = len(z) if batch.total is None else batch.total
    hard = None if batch.y is None else float((weight * _hard(z, batch.y, spec)).sum() / total)
    soft = None if batch.soft is None else float((weight * _soft(z, batch.soft, settings, spec)).sum() / total)
    if soft is None:
        out = {"loss": hard}
    else:
        loss = settings.soft * soft + (0.0 if hard is None else settings.hard * hard)
        out = {"loss": loss, "soft_loss": soft, "hard_loss": hard}
    if batch.y is not None and spec.task == "classification":
        out["accuracy"] = float((z.argmax(axis=1) == batch.y).sum() / total)
    return {name: value for name, value in out.items() if value is not None}


def _hard(z: np.ndarray, y: np.ndarray, spec: Spec) -> np.ndarray:
    if spec.task == "regression":
        return np.square(z - y.reshape(z.shape)).mean(axis=1)
    return -log_softmax(z)[np.arange(len(z)), y]


def _soft(z: np.ndarray, teacher: np.ndarray, settings: Settings, spec: Spec) -> np.ndarray:
    if spec.task == "regression":
        return np.square(z - teacher.reshape(z.shape)).mean(axis=1)
    student, teacher = log_softmax(z / settings.temperature), log_softmax(teacher / settings.temperature)
    return settings.temperature**2 * (np.exp(teacher) * (teacher - student)).sum(axis=1)


def log_softmax(z: Any) -> np.ndarray:
    """(rows, classes) logits → log-probabilities."""
    z = np.asarray(z, np.float64)
    z = z - z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))
