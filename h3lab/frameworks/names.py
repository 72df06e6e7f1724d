"""Names of metrics: what frameworks call them, and what the curves do."""

from __future__ import annotations

import re

_TRAIN = re.compile(r"^(train|training)_")
_HELD_OUT = re.compile(r"^(val|valid|validation|eval)_")


def curve_name(name: str, held_out: bool = False) -> str:
    """``train/acc`` → ``acc``; ``eval_loss`` and ``valid/loss`` → ``val_loss``: what belongs together is drawn
    together.

    ``held_out`` says that the metric is one of validation, whatever it is called.
    """
    plain = re.sub(r"[/. ]", "_", name).removesuffix("_step")
    held_out = held_out or _HELD_OUT.match(plain) is not None
    plain = _HELD_OUT.sub("", _TRAIN.sub("", plain))
    return f"val_{plain}" if held_out else plain
