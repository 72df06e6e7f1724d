"""The losses of a torch model: by name, of one's own, and the distance to a teacher; all as mean over a batch's rows.

It knows outputs, labels and weights as tensors; it does not know modules, optimizers or where a batch came from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from h3lab.errors import ModelError, UnknownName, UsageError
from h3lab.settings import Settings
from h3lab.spec import Spec

Loss = Callable[..., Tensor]

CLASSIFICATION: dict[str, Loss] = {"cross_entropy": F.cross_entropy, "hinge": F.multi_margin_loss}
REGRESSION: dict[str, Loss] = {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.huber_loss}


def task_of(loss: str | Loss | None) -> str | None:
    """``"classification"`` or ``"regression"`` where a loss's name tells it before any data came."""
    name = loss if isinstance(loss, str) else ""
    return "classification" if name in CLASSIFICATION else "regression" if name in REGRESSION else None


class Objective:
    """The loss of one training: ``loss`` is a name, ``f(outputs, y)`` (0-d: its mean, or one value a row), or None for
    cross entropy in classification and mean squared error in regression.

    Every result is a sum over the rows given, divided by ``total``: the shares of several ranks, or the pieces of an
    accumulated batch, add up to the loss of the whole batch.
    """

    def __init__(self, loss: str | Loss | None, spec: Spec) -> None:
        self._classifies = spec.task == "classification"
        known = CLASSIFICATION if self._classifies else REGRESSION
        if loss is None:
            loss = next(iter(known))
        if isinstance(loss, str):
            if loss not in known and loss in {**CLASSIFICATION, **REGRESSION}:
                raise UsageError(
                    f"loss={loss!r} came, which is a loss of {task_of(loss)}; the data is {spec}. "
                    f"Expected one of {', '.join(known)}, a function f(outputs, y), or None."
                )
            if loss not in known:
                raise UnknownName("loss", loss, known)
        elif not callable(loss):
            raise UsageError(
                f"loss={loss!r} came; expected one of {', '.join(known)}, a function f(outputs, y), or None."
            )
        self._named: Any = known[loss] if isinstance(loss, str) else None
        self._own: Any = None if isinstance(loss, str) else loss

    def values(self, outputs: Tensor, y: Tensor) -> Tensor:
        """(rows,) losses against the labels; or 0-d, their mean, where a loss of one's own returns that. ``outputs``:
        (rows, outputs); ``y``: (rows,) codes, or floats like outputs."""
        outputs, y = self._matched(outputs, y)
        if self._own is None:
            values = self._named(outputs, y, reduction="none")
            return values if values.ndim == 1 else values.flatten(1).mean(1)
        value, rows = self._own(outputs, y), len(outputs)
        if not isinstance(value, Tensor) or value.shape not in ((), (rows,)):
            came = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ModelError(
                f"loss(outputs, y) returned {came}; expected a 0-d tensor (the mean over rows), or ({rows},)."
            )
        return value

    def hard(self, outputs: Tensor, y: Tensor, weight: Tensor | None, total: int) -> Tensor:
        """0-d loss against the labels."""
        rows = len(outputs)
        if not rows:  # a rank's share of a batch smaller than the group; the mean of nothing would be no number
            return outputs.sum()
        if weight is None and rows == total and self._own is None:
            return self._named(*self._matched(outputs, y))
        value = self.values(outputs, y)
        if value.ndim:
            return (value if weight is None else value * weight).sum() / total
        if weight is not None:
            raise UsageError(
                "rows have weights, and loss(outputs, y) returned one number, in which they cannot be told apart. "
                f"Return one value a row, shape ({rows},), for example with reduction='none'."
            )
        return value * (rows / total)

    def _matched(self, outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if self._classifies:
            return outputs, y
        # Shapes (rows, 1) and (rows,) would broadcast to (rows, rows) without a word.
        return outputs.reshape(y.shape) if y.ndim < outputs.ndim else outputs, y.to(outputs.dtype)

    def soft(self, outputs: Tensor, teacher: Tensor, weight: Tensor | None, total: int, temperature: float) -> Tensor:
        """0-d distance to a teacher: T² KL(teacher at T ‖ student at T), summed over classes, from logits
        (Hinton et al. 2015); in regression the mean squared error to its predictions."""
        teacher = teacher.to(outputs.dtype).reshape(outputs.shape)
        if self._classifies:
            student_log = F.log_softmax(outputs / temperature, dim=1)
            teacher_log = F.log_softmax(teacher / temperature, dim=1)
            values = F.kl_div(student_log, teacher_log, reduction="none", log_target=True).sum(1) * temperature**2
        else:
            values = (outputs - teacher).square().mean(1)
        return (values if weight is None else values * weight).sum() / total

    def parts(
        self,
        outputs: Tensor,
        y: Tensor | None,
        soft: Tensor | None,
        weight: Tensor | None,
        total: int,
        settings: Settings,
    ) -> dict[str, Tensor]:
        """``loss``, and with a teacher's answers also ``soft_loss`` (T² included) and, where there are labels,
        ``hard_loss``: loss = soft · soft_loss + hard · hard_loss."""
        if soft is None:
            if y is None:
                raise UsageError(
                    "the batch has neither labels nor a teacher's answers, so there is nothing to learn from."
                )
            return {"loss": self.hard(outputs, y, weight, total)}
        near = self.soft(outputs, soft, weight, total, settings.temperature)
        if y is None:
            return {"loss": settings.soft * near, "soft_loss": near}
        right = self.hard(outputs, y, weight, total)
        return {"loss": settings.soft * near + settings.hard * right, "soft_loss": near, "hard_loss": right}
