"""Answers: what a model's logits say, as labels, probabilities or predictions.

It knows logits and specs; it does not know models.
"""

from __future__ import annotations

import numpy as np

from h3lab.spec import Spec


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities in float64, (rows, classes)."""
    shifted = logits - logits.max(axis=1, keepdims=True).astype(np.float64)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def predictions(logits: np.ndarray, spec: Spec) -> np.ndarray:
    """Labels as they stood in the source; in regression (rows,), or (rows, targets) where there are several."""
    if spec.task == "classification":
        return spec.decode(logits.argmax(axis=1))
    values = logits.astype(np.float64)
    return values[:, 0] if spec.outputs == 1 else values


def probabilities(logits: np.ndarray) -> np.ndarray:
    """(rows, classes), each row summing to one."""
    return np.asarray(np.exp(log_softmax(logits)))


def decisions(logits: np.ndarray) -> np.ndarray:
    """(rows, classes), or with two classes (rows,): how far the second is ahead."""
    return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits
